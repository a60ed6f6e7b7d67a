/* plan/baseline.h - what the published rules share (docs/PLANNER.md, "Baselines").
 *
 * Most of them place layers and leave the precision to the user, who takes one for the whole model: such a rule is tried at every
 * precision, and the fastest plan that meets the budgets is its answer. With job->choose_levels ("+levels" behind the name) the
 * rule keeps its placement and the levels are chosen exactly for it, which is more than its authors offer. A rule whose every plan
 * breaks a budget answers DIL_EINFEASIBLE, and the plan that breaks it least stays in the job. */
#ifndef DIL_PLAN_BASELINE_H
#define DIL_PLAN_BASELINE_H

#include "plan/problem_impl.h"

typedef struct dil__trial {
    dil__job *job;
    const char *name;
    double best_sec, least_over; /* of plans that meet the budgets; of those that do not, the largest relative overrun */
    int64_t end_ns;
    dil_status stopped;          /* DIL_OK, or why no more is tried */
    uint32_t *level;             /* [L] scratch */
    uint64_t tried[2 * DIL_LEVELS_MAX]; /* placements whose levels were chosen */
    uint32_t n_tried;
    char why[256];               /* what the plan of least_over breaks */
} dil__trial;

dil_status dil__trial_init(dil__trial *t, dil__job *job, const char *name, dil_err *err);
/* A plan of the rule; with choose_levels its placement with the best levels too. */
void dil__trial_add(dil__trial *t, const uint32_t *node, const uint32_t *level);
double dil__trial_left_sec(dil__trial *t); /* 0: stop trying */
/* Frees, and says how it went. */
dil_status dil__trial_end(dil__trial *t, dil_err *err);

/* The precisions that a whole model can have: those of more than half of the layers. At a precision a layer that lacks it has the
 * smallest level that is not smaller, relative to its largest one, as the usual quantizers do. level [L]. */
uint32_t dil__precisions(const dil_problem *p);
void dil__precision_levels(const dil_problem *p, uint32_t precision, uint32_t *level);

uint32_t dil__entry_node(const dil_problem *p); /* nearest to the source */
/* The problem with one level a layer. *out is owned. */
dil_status dil__problem_at_levels(const dil_problem *p, const uint32_t *level, dil_problem **out, dil_err *err);
/* Every layer on its best node at its fastest level, links for nothing. */
double dil__trivial_bound(const dil_problem *p, dil_goal goal);

dil_status dil__baseline_equal_split(dil__job *job, dil_err *err);
dil_status dil__baseline_memory(dil__job *job, dil_err *err);
dil_status dil__baseline_speed(dil__job *job, dil_err *err);
dil_status dil__baseline_edgeshard(dil__job *job, dil_err *err);
dil_status dil__baseline_halda(dil__job *job, dil_err *err);
dil_status dil__baseline_uniform(dil__job *job, dil_err *err);
dil_status dil__baseline_soft(dil__job *job, dil_err *err);
dil_status dil__baseline_paper(dil__job *job, dil_err *err);
dil_status dil__baseline_single(dil__job *job, dil_err *err);

#endif
