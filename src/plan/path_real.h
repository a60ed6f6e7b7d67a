/* plan/path_real.h - a measured problem while the solver `path` works on it (path_real.c, path_thin.c). */
#ifndef DIL_PLAN_PATH_REAL_H
#define DIL_PLAN_PATH_REAL_H

#include "plan/path_fit.h"
#include "plan/path_ng.h"

typedef struct px_case {
    double bound;
    int level, first, last; /* of a tied table the level, and the nodes of its two ends; -1: not tied */
} px_case;

typedef struct px_real_job {
    dil__job *job;
    const dil_problem *p;
    bool by_damage, free_hops, file_first; /* file_first: the core's damage is the file size */
    px_real real;
    px_core core;
    double *bytes, *sec, *damage, *file, *store, *hop, *head_hop, *source, *sink, *extra,
        *home_bytes;
    int *twin;
    px_case *list;
    size_t n_cases;
    px_plan best;
    px_options options;
    px_dual dual;
    double *feasible_price, feasible_file; /* multipliers that bound the damage of what fits */
} px_real_job;

/* The levels that a case allows. level -1: any, the head's bytes without what is shared, so that every case is in it. */
void dil__px_allow(px_real_job *j, int level, int first, int last);
double dil__px_target(const px_real_job *j); /* a plan has to be faster to matter */

/* path_busy.c. Of the goal of throughput: what the busiest node has at least in a plan that is better than `upper`, by at most `rounds` steps from y's
 * multipliers on, or at first from the relaxation's prices; upper: nothing is. false: no memory. y: zeroed before the first call but for its deadline; z is the caller's to free. */
typedef struct px_busy {
    double *z, bound;
    bool has;
    int64_t deadline_ns;
} px_busy;
bool dil__px_busy_bound(const px_core *c, double upper, int rounds, const pf_prices *prices, px_busy *y);

/* path_thin.c. Marks the nodes that a plan below the target can use. -> their number, -1: no memory. *bound: of every plan; *dropped: what was
 * excluded takes at least this. */
int dil__px_thin(px_real_job *j, bool *keep, double *bound, double *dropped);
/* The problem over some of the nodes; what is by layer and level is borrowed from p. *out owned: dil_problem_free. */
dil_status dil__px_part_of(const dil_problem *p, const uint32_t *node, uint32_t n, dil_problem **out, dil_err *err);

#endif
