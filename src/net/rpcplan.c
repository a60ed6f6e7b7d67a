/* A plan on stock ggml RPC workers: nodes whose address is rpc://HOST:PORT. */
#include "net/message.h"
#include "net/places.h"

#include <dilemma/coordinator.h>

#include <string.h>

static bool is_rpc(const dil_cluster_node *n)
{
    return strncmp(n->address, "rpc://", 6) == 0;
}

bool dil_plan_uses_rpc(const dil_plan *plan, const dil_cluster *cluster)
{
    for (uint32_t i = 0; i < plan->n_stages; i++) {
        uint32_t at = dil_cluster_find(cluster, plan->stages[i].node);
        if (at != DIL_NO_NODE && is_rpc(&cluster->nodes[at])) return true;
    }
    return false;
}

dil_status dil_runner_rpc(const dil_plan *plan, const dil_cluster *cluster, const dil_weights *weights, const dil_arch *arch, const dil_stage_opts *opts,
                          dil_runner **out, dil_err *err)
{
    dil__place place[DIL__PARTS_MAX];
    uint32_t next = 0;
    if (plan->n_stages < 1 || plan->n_stages > DIL__PARTS_MAX) return dil_fail(err, DIL_ELIMIT, "a plan of %u stages, at most %d on RPC workers", plan->n_stages, DIL__PARTS_MAX);
    for (uint32_t i = 0; i < plan->n_stages; i++) {
        const dil_plan_stage *s = &plan->stages[i];
        uint32_t at = dil_cluster_find(cluster, s->node);
        if (at == DIL_NO_NODE) return dil_fail(err, DIL_ENOTFOUND, "the plan uses node '%s', which is not in the cluster", s->node);
        if (s->first_layer != next || s->last_layer < next) return dil_fail(err, DIL_EINFEASIBLE, "the plan's stage %u does not follow on the one before", i);
        if (!is_rpc(&cluster->nodes[at]) && strcmp(s->node, plan->entry) != 0)
            return dil_fail(err, DIL_EUNSUPPORTED, "node '%s' is a node of ours beside RPC workers: run `dilemma node --device rpc://HOST:PORT` for each of those, and plan over nodes alone",
                            s->node);
        place[i] = (dil__place){s->first_layer, s->last_layer, is_rpc(&cluster->nodes[at]) ? cluster->nodes[at].address : NULL};
        next = s->last_layer + 1;
    }
    if (next != dil_arch_n_layers(arch)) return dil_fail(err, DIL_EINFEASIBLE, "the plan covers %u layers, the model has %u: it is of another model", next, dil_arch_n_layers(arch));
    dil_stage_opts o = *opts;
    if (!o.n_ctx) o.n_ctx = plan->context;
    return dil__runner_places(arch, weights, &o, opts->n_seq ? opts->n_seq : plan->sequences ? plan->sequences : 1, place, plan->n_stages, out, err);
}
