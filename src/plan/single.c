/* The baseline "best single node": the fastest plan that puts every layer on one node, its levels chosen exactly (the MILP of one
 * node is a multiple-choice knapsack). It is what a user does today without a planner; it proves nothing about other plans, so its
 * bound is the weak one that no solver is needed for: every layer on its best node at its fastest level, links for nothing. */
#include "plan/baseline.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static double least(const dil_problem *p, dil_goal goal, uint32_t l, uint32_t s)
{
    double best = INFINITY;
    for (uint32_t q = 0; q < p->level_count[l]; q++) {
        double c = goal == DIL_GOAL_SEC ? p->layer_sec[dil__cell(p, l, s, q)] : p->damage[(size_t)l * p->n_levels + q];
        if (c < best) best = c;
    }
    return best;
}

typedef struct candidate {
    double bound;
    uint32_t node;
} candidate;

static int by_bound(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    return (x->bound > y->bound) - (x->bound < y->bound);
}

static double cost_of(const dil_problem *p, dil_goal goal, const uint32_t *node, const uint32_t *level)
{
    dil_use u;
    if (dil_problem_check(p, node, level, &u, NULL) != DIL_OK) return INFINITY;
    return dil__goal_cost(&u, goal);
}

/* A node that fails for want of time hides behind one that has a plan; with none at all the last failure is the answer. */
static dil_status try_nodes(dil__job *job, const candidate *order, uint32_t *node, uint32_t *level, dil_err *err)
{
    const dil_problem *p = job->p;
    int64_t end = dil_now_ns() + (int64_t)(job->limit_sec * 1e9);
    double best = INFINITY;
    dil_status failed = DIL_EINFEASIBLE;
    for (uint32_t i = 0; i < p->n_nodes && order[i].bound < best; i++) {
        double left = (double)(end - dil_now_ns()) * 1e-9;
        if (left <= 0) {
            failed = dil_fail(err, DIL_ETIMEOUT, "baseline:best-single: no plan within the time limit");
            break;
        }
        dil__job one = {.p = p, .goal = job->goal, .limit_sec = left, .gap = job->gap, .progress = job->progress, .node = node, .level = level};
        dil_status s = dil__solve_milp_order(&one, &order[i].node, 1, NULL, err);
        if (s == DIL_ECANCELED) return s;
        if (s != DIL_OK) {
            if (s != DIL_EINFEASIBLE) failed = s;
            continue;
        }
        double cost = cost_of(p, job->goal, node, level);
        if (cost >= best) continue;
        best = cost;
        memcpy(job->node, node, p->n_layers * sizeof *node);
        memcpy(job->level, level, p->n_layers * sizeof *level);
    }
    return isfinite(best) ? DIL_OK : failed;
}

dil_status dil__baseline_single(dil__job *job, dil_err *err)
{
    const dil_problem *p = job->p;
    candidate *order = calloc(p->n_nodes, sizeof *order);
    uint32_t *choice = calloc((size_t)2 * p->n_layers, sizeof *choice);
    dil_status s = DIL_EMEMORY;
    if (order && choice) {
        for (uint32_t i = 0; i < p->n_nodes; i++) {
            order[i].node = i;
            for (uint32_t l = 0; l < p->n_layers; l++) order[i].bound += least(p, job->goal, l, i);
        }
        qsort(order, p->n_nodes, sizeof *order, by_bound);
        s = try_nodes(job, order, choice, choice + p->n_layers, err);
        job->bound = dil__trivial_bound(p, job->goal);
    }
    free(order);
    free(choice);
    if (s == DIL_EMEMORY) return dil_fail(err, s, "baseline:best-single: out of memory");
    if (s == DIL_EINFEASIBLE) return dil_fail(err, s, "baseline:best-single: no single node holds the model within the budgets");
    return s;
}
