/* net/replan.h - another plan for the same file: who holds each layer, now that nodes or links are gone, back, or slower.
 *
 * Levels stay what they are, since the file is written. Bytes, KV cache and buffers come from the model as it is served; seconds from
 * the plan's costs, and where it has none for a node they are estimated. The search is dil_plan_migrate's. */
#ifndef DIL_NET_REPLAN_H
#define DIL_NET_REPLAN_H

#include <dilemma/engine.h>
#include <dilemma/gguf.h>
#include <dilemma/migrate.h>

typedef struct dil__replan_node {
    bool usable;              /* may hold layers */
    uint64_t memory_bytes;    /* it offers; 0: as the cluster says */
    double slower;            /* its seconds are so many times the measured ones; 0: 1 */
} dil__replan_node;

typedef struct dil__replan dil__replan;
/* plan, cluster, model, arch: borrowed. opts: n_ctx, n_seq, max_batch, kv_type and fixed_shapes as they are served. */
dil_status dil__replan_new(const dil_plan *plan, const dil_cluster *cluster, const dil_gguf *model, const dil_arch *arch, const dil_stage_opts *opts,
                           dil__replan **out, dil_err *err);
void dil__replan_free(dil__replan *r);

/* node [n_nodes of the cluster]; link_down [n_links], may be NULL: links not to be used. link_now [n_links]: as measured last; NULL: as the cluster says. old: the plan that runs. *out is owned:
 * dil_plan_free; its strings live on its own arena. Errors: DIL_EINFEASIBLE says which budget is short, by how much, and among which nodes. */
dil_status dil__replan_make(dil__replan *r, const dil_plan *old, const dil__replan_node *node, const uint8_t *link_down,
                            const dil_cluster_link *link_now,
                            const dil_migrate_options *mo, double limit_sec, dil_plan **out, dil_migration *m, dil_err *err);

/* Bytes a second that the node reads on the plan's layers there, as measured; 0: the plan that r was made with has no costs for it. */
double dil__replan_speed(const dil__replan *r, const dil_plan *plan, uint32_t node);

#endif
