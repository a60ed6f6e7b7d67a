/* The oracle: every assignment of nodes and levels, cost and budgets taken from the referee. Only sums that can never shrink again
 * cut the tree (damage, file bytes, a node's bytes less what a tied table may give back, delay), so that it stays obviously right. */
#include "plan/problem_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LEAVES_MAX 2e9

typedef struct search {
    dil__job *job;
    uint32_t *node, *level;  /* [L] of the partial assignment */
    double *bytes;           /* [S] */
    double best;
    uint64_t steps;
    int64_t end_ns;
    dil_status stopped;
} search;

static void leaf(search *x)
{
    const dil_problem *p = x->job->p;
    dil_use u;
    if (dil_problem_check(p, x->node, x->level, &u, NULL) != DIL_OK) return;
    double cost = dil__goal_cost(&u, x->job->goal);
    if (cost >= x->best) return;
    x->best = cost;
    dil__trail_plan(x->job->trail, cost);
    memcpy(x->job->node, x->node, p->n_layers * sizeof *x->node);
    memcpy(x->job->level, x->level, p->n_layers * sizeof *x->level);
}

static bool out_of_time(search *x)
{
    if (++x->steps % 65536 == 0) {
        if (dil_now_ns() > x->end_ns) x->stopped = DIL_ETIMEOUT;
        else if (!dil_progress_step(x->job->progress, "planning", 0, 1)) x->stopped = DIL_ECANCELED;
    }
    return x->stopped != DIL_OK;
}

static void descend(search *x, uint32_t l, double cost, double damage, double file)
{
    const dil_problem *p = x->job->p;
    const double slack = 1 + 1e-9;
    if (out_of_time(x) || cost > x->best || damage > p->damage_max * slack || file > p->file_bytes_max * slack) return;
    if (l == p->n_layers) {
        leaf(x);
        return;
    }
    for (uint32_t s = 0; s < p->n_nodes; s++) {
        const dil_hop *hop = l ? dil_problem_hop(p, x->node[l - 1], s) : NULL;
        if (l && x->node[l - 1] != s && !hop) continue;
        for (uint32_t q = 0; q < p->level_count[l]; q++) {
            size_t lq = (size_t)l * p->n_levels + q;
            double back = p->tied && l == p->n_layers - 1 ? p->shared_bytes[q] : 0;
            if (x->bytes[s] + p->layer_bytes[lq] - back > p->store_bytes[s] * slack) continue;
            x->node[l] = s;
            x->level[l] = q;
            x->bytes[s] += p->layer_bytes[lq];
            double own = x->job->goal == DIL_GOAL_SEC ? p->layer_sec[dil__cell(p, l, s, q)] : x->job->goal == DIL_GOAL_DAMAGE ? p->damage[lq] : 0;
            descend(x, l + 1, cost + own,
                    damage + p->damage[lq], file + (p->file_bytes ? p->file_bytes[lq] : p->layer_bytes[lq]));
            x->bytes[s] -= p->layer_bytes[lq];
        }
    }
}

dil_status dil__solve_exhaustive(dil__job *job, dil_err *err)
{
    const dil_problem *p = job->p;
    double leaves = 1;
    for (uint32_t l = 0; l < p->n_layers; l++) leaves *= (double)p->n_nodes * p->level_count[l];
    if (leaves > LEAVES_MAX)
        return dil_fail(err, DIL_ELIMIT, "exhaustive: %.3g assignments, at most %.0e; use milp", leaves, LEAVES_MAX);
    search x = {.job = job, .best = INFINITY, .end_ns = dil_now_ns() + (int64_t)(job->limit_sec * 1e9)};
    x.node = calloc(p->n_layers, sizeof *x.node);
    x.level = calloc(p->n_layers, sizeof *x.level);
    x.bytes = calloc(p->n_nodes, sizeof *x.bytes);
    if (x.node && x.level && x.bytes) descend(&x, 0, 0, 0, 0);
    dil_status s = x.node && x.level && x.bytes ? DIL_OK : dil_fail(err, DIL_EMEMORY, "exhaustive: out of memory");
    free(x.node);
    free(x.level);
    free(x.bytes);
    if (s != DIL_OK) return s;
    if (x.stopped == DIL_ECANCELED) return dil_fail(err, DIL_ECANCELED, "planning was canceled");
    if (x.stopped == DIL_ETIMEOUT && isinf(x.best)) return dil_fail(err, DIL_ETIMEOUT, "exhaustive: no plan within the time limit");
    if (isinf(x.best)) return dil_fail(err, DIL_EINFEASIBLE, "no plan meets the budgets");
    job->bound = x.stopped == DIL_OK ? x.best : -INFINITY;
    return DIL_OK;
}
