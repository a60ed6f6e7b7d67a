/* dilemma/migrate.h - planning again for a network that has changed: is another plan worth what it costs to get there?
 *
 *   dil_migration m;  dil_plan *next;
 *   dil_plan_migrate(profile, cluster_now, &options, old_plan, &mo, &next, &m, err);   m.moves says whether next differs
 *
 * A move costs a pause: the weights that a node lacks come from the entry over its link (links work side by side, the entry's own
 * connection limits all), then the running streams are replayed, their tokens going through the new plan as a prompt. Requests that
 * run or arrive in the pause wait. It gains rate * (horizon - pause) * (old delay - new delay). docs/PLANNER.md, "A changing network". */
#ifndef DILEMMA_MIGRATE_H
#define DILEMMA_MIGRATE_H

#include <dilemma/problem.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct dil_migrate_options {
    double horizon_sec; /* for how long the network is expected to stay as it is, >= 0 */
    double rate;        /* requests a second; 0: one after the other on the old plan */
    double margin;      /* the gain must be at least 1 + margin times the cost, >= 0 */
    /* Optional: the node has the layer's chunks at that level from earlier (its cache), besides those of the old plan. */
    bool (*has)(void *ctx, const char *node, uint32_t layer, const char *level);
    void *has_ctx;
} dil_migrate_options;

typedef struct dil_migration {
    bool moves;             /* the plan returned differs from the old one */
    bool forced;            /* the old one cannot run any more: a node, link or level is gone or a budget is broken */
    char why_forced[200];
    uint32_t n_layers;      /* layers that some node receives */
    double moved_bytes;     /* over the links; what the entry itself lacks is not counted, it has the file */
    double move_sec, replay_sec, pause_sec; /* pause = move + replay */
    double streams;         /* requests that run at a time */
    double cost_sec;        /* seconds that requests wait because of the move, summed */
    double gain_sec;        /* seconds that requests are answered earlier, summed over the horizon */
    double old_total_sec;   /* delay of the old plan on the network as it is; INFINITY when forced */
    double new_total_sec;   /* of the plan returned */
    double best_total_sec;  /* of the best plan, costs of the move aside */
} dil_migration;

/* What going from `old` to `plan` costs and gains; both are plans of the same model. old_total_sec is measured on `cluster`. */
dil_status dil_migration_cost(const dil_profile *profile, const dil_cluster *cluster, const dil_plan_options *options, const dil_plan *old,
                              const dil_plan *plan, const dil_migrate_options *mo, dil_migration *m, dil_err *err);

/* dil_plan_migrate - the old plan with its figures on the network as it is, or a better one. Two plans are considered: the best, and the
 * best when the bytes to move are weighed in; the one of largest net gain is taken if its gain is at least (1 + margin) times its
 * cost. Without a quality budget the old plan's damage is allowed too. *out is owned: dil_plan_free. Errors: those of dil_plan_make. */
dil_status dil_plan_migrate(const dil_profile *profile, const dil_cluster *cluster, const dil_plan_options *options, const dil_plan *old,
                            const dil_migrate_options *mo, dil_plan **out, dil_migration *m, dil_err *err);

#ifdef __cplusplus
}
#endif
#endif
