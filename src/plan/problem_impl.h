/* plan/problem_impl.h - inside the planner: making problems and solutions, and the solvers behind dil_plan_solve. */
#ifndef DIL_PLAN_PROBLEM_IMPL_H
#define DIL_PLAN_PROBLEM_IMPL_H

#include <dilemma/problem.h>

/* Zeroed arrays, level_count too; no budgets. */
dil_status dil__problem_new(uint32_t n_layers, uint32_t n_nodes, uint32_t n_levels, const char *what, dil_problem **out, dil_err *err);
dil_status dil__solution_new(uint32_t n_layers, dil_solution **out, dil_err *err);

static inline size_t dil__cell(const dil_problem *p, uint32_t layer, uint32_t node, uint32_t level)
{
    return ((size_t)layer * p->n_nodes + node) * p->n_levels + level;
}

static inline double dil__goal_cost(const dil_use *u, dil_goal goal)
{
    return goal == DIL_GOAL_SEC ? u->sec : goal == DIL_GOAL_DAMAGE ? u->damage : u->load_max;
}

/* When plans were found. Solvers call it at any time with whatever they have: what is no better than before is left out. */
typedef struct dil__trail {
    int64_t start_ns, start_cpu_ns;
    double bound, cap;       /* proved so far; what else the solver has left out cannot be below cap */
    dil_incumbent v[DIL_INCUMBENTS_MAX];
    uint32_t n;
} dil__trail;
void dil__trail_begin(dil__trail *t);
void dil__trail_now(const dil__trail *t, double *sec, double *cpu_sec);
void dil__trail_bound(dil__trail *t, double bound);    /* t may be NULL */
void dil__trail_plan(dil__trail *t, double objective); /* t may be NULL */

/* A solver writes node and level [n_layers] and the proved bound; the caller has them checked and computes the objective itself.
 * `start` (may be NULL) is a plan within the budgets. DIL_EINFEASIBLE needs no text: the caller finds out what is short. */
typedef struct dil__job {
    const dil_problem *p;
    dil_goal goal;
    double limit_sec, gap;
    const dil_progress *progress;
    const uint32_t *start_node, *start_level; /* NULL: none */
    double cutoff;                            /* plans that cost more are of no interest; 0 or INFINITY: all are */
    uint32_t *node, *level;                   /* out [n_layers] */
    double bound;                             /* out; -INFINITY: none */
    dil__trail *trail;                        /* NULL: nobody asks */
    bool choose_levels;                       /* a baseline that only places gets the best levels for its placement */
    bool has_plan;                            /* out, of a baseline that is infeasible: node and level are its plan all the same */
} dil__job;

dil_status dil__solve_milp(dil__job *job, dil_err *err);
dil_status dil__solve_exhaustive(dil__job *job, dil_err *err);
dil_status dil__solve_path(dil__job *job, dil_err *err);
/* dil_plan_solve, but the plan of a baseline that breaks a budget comes out too, with DIL_EINFEASIBLE; *out is NULL where there is
 * none. Its objective and bound are not set then. */
dil_status dil__solve_any(const dil_problem *p, const dil_solve_options *o, dil_solution **out, dil_err *err);

/* baseline.c: "baseline:NAME". DIL_EINFEASIBLE says which budget the rule's plan breaks, and job->has_plan whether there is one. */
dil_status dil__solve_baseline(const char *name, dil__job *job, dil_err *err);
const char *dil__baseline_name(uint32_t i); /* NULL after the last */

/* make.c. The gap that is asked for; the damage budget of a problem without one, from the least damage (*least, owned; NULL where the
 * options have a budget); a solution as a plan, its figures not filled yet (NULL: out of memory). */
double dil__plan_gap(const dil_plan_options *o);
dil_status dil__plan_set_quality(dil_problem *p, const dil_plan_options *o, dil_solution **least, dil_err *err);
dil_plan *dil__plan_from_solution(const dil_profile *prof, const dil_cluster *cluster, const dil_plan_options *o, const dil_solution *s,
                                  const uint32_t *node_of);

/* compare.c. A plan's figures from the measurements with every budget lifted: only a missing link is refused. The first fills a plan
 * that exists, the second makes one of a solution (*out owned). */
dil_status dil__plan_refill(const dil_profile *profile, const dil_cluster *cluster, const dil_plan_options *o, dil_plan *plan, dil_err *err);
dil_status dil__plan_unbudgeted(const dil_profile *profile, const dil_cluster *cluster, const dil_plan_options *o, const dil_solution *s,
                                const uint32_t *node_of, dil_plan **out, dil_err *err);

/* sensitivity.c. A plan in the problem's numbers: node, level [L]. DIL_ENOTFOUND: a node or level of it is not there any more. */
dil_status dil__plan_in_problem(const dil_plan *plan, const dil_profile *prof, const dil_problem *p, const uint32_t *node_of, uint32_t *node,
                                uint32_t *level, dil_err *err);

/* The same MILP for a given order of the stages' nodes [n_order], neighbours different, each with a layer at least; with `stage`
 * [L] (may be NULL) every layer's stage is given too. */
dil_status dil__solve_milp_order(dil__job *job, const uint32_t *order, uint32_t n_order, const uint16_t *stage, dil_err *err);

/* Which budget could be widened, and by how much, so that some plan exists: the text of DIL_EINFEASIBLE. */
dil_status dil__explain_infeasible(const dil_problem *p, double limit_sec, dil_err *err);

#endif
