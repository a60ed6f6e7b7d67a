/* Baselines that solve a problem of their own through the exact solvers.
 *
 *   uniform        one precision for the whole model, the placement exact: the best that can be done without choosing levels by layer.
 *                  Precisions that break quality or size by themselves are not placed at all.
 *   soft-quality   LLM-PQ, arXiv 2403.01136: the quality indicator enters the objective, seconds + theta * damage, and only memory is
 *                  hard; theta is the user's. Its partition search is replaced by the exact one, and theta is found by bisection so
 *                  that the budget is met, which its users would do by hand. What is left against a hard budget: a penalty can only
 *                  reach plans on the convex hull of (damage, seconds). A size limit is kept hard, as memory is. */
#include "plan/baseline.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { THETAS = 9 };

static dil_status place(const dil_problem *p, double limit_sec, const dil__job *job, dil_solution **out)
{
    dil_solve_options o = {.goal = DIL_GOAL_SEC, .limit_sec = limit_sec, .gap = fmax(job->gap, 1e-3), .progress = job->progress};
    return dil_plan_solve(p, &o, out, NULL);
}

static bool levels_fit(const dil_problem *p, const uint32_t *level)
{
    double damage = 0, file = 0;
    for (uint32_t l = 0; l < p->n_layers; l++) {
        size_t lq = (size_t)l * p->n_levels + level[l];
        damage += p->damage[lq];
        file += p->file_bytes ? p->file_bytes[lq] : p->layer_bytes[lq];
    }
    return damage <= p->damage_max * (1 + 1e-9) && file <= p->file_bytes_max * (1 + 1e-9);
}

/* With the two budgets of the levels lifted, so that a precision that breaks them still shows what it would take. */
static void place_at(dil__trial *t, const uint32_t *level)
{
    dil_problem *one = NULL;
    dil_solution *s = NULL;
    double left = dil__trial_left_sec(t);
    if (left <= 0 || dil__problem_at_levels(t->job->p, level, &one, NULL) != DIL_OK) return;
    one->damage_max = one->file_bytes_max = INFINITY;
    dil_status ok = place(one, left / 4, t->job, &s);
    if (ok == DIL_OK) dil__trial_add(t, s->node, level);
    else if (ok == DIL_ECANCELED) t->stopped = ok;
    dil_solution_free(s);
    dil_problem_free(one);
}

dil_status dil__baseline_uniform(dil__job *job, dil_err *err)
{
    dil__trial t;
    const dil_problem *p = job->p;
    dil_status s = dil__trial_init(&t, job, "uniform", err);
    uint32_t *level = s == DIL_OK ? calloc(p->n_layers, sizeof *level) : NULL;
    if (s == DIL_OK && level) {
        uint32_t n = dil__precisions(p);
        for (int pass = 0; pass < 2 && isinf(t.best_sec); pass++) { /* those that fit; if none has a plan, the others */
            for (uint32_t c = 0; c < n && dil__trial_left_sec(&t) > 0; c++) {
                dil__precision_levels(p, c, level);
                if (levels_fit(p, level) == (pass == 0)) place_at(&t, level);
            }
        }
        s = dil__trial_end(&t, err);
    } else if (s == DIL_OK) {
        free(t.level);
        s = dil_fail(err, DIL_EMEMORY, "baseline:uniform: out of memory");
    }
    free(level);
    return s;
}

/* --- soft-quality ------------------------------------------------------------------------------------------------------- */

/* Seconds and damage of the best plan at theta; false: none found. */
static bool at_theta(dil__trial *t, double *sec, double theta, double limit_sec, double *damage)
{
    const dil_problem *p = t->job->p;
    dil_problem soft = *p;
    dil_solution *s = NULL;
    soft.layer_sec = sec;
    soft.damage_max = INFINITY;
    for (uint32_t l = 0; l < p->n_layers; l++) {
        for (uint32_t k = 0; k < p->n_nodes; k++) {
            for (uint32_t q = 0; q < p->level_count[l]; q++) {
                size_t i = dil__cell(p, l, k, q);
                sec[i] = p->layer_sec[i] + theta * p->damage[(size_t)l * p->n_levels + q];
            }
        }
    }
    dil_status ok = place(&soft, limit_sec, t->job, &s);
    if (ok == DIL_ECANCELED) t->stopped = ok;
    if (ok != DIL_OK) return false;
    dil__trial_add(t, s->node, s->level);
    *damage = 0;
    for (uint32_t l = 0; l < p->n_layers; l++) *damage += p->damage[(size_t)l * p->n_levels + s->level[l]];
    dil_solution_free(s);
    return true;
}

/* theta where a typical second is worth a typical damage. */
static double first_theta(const dil_problem *p)
{
    double sec = dil__trivial_bound(p, DIL_GOAL_SEC), damage = p->damage_max;
    return sec > 0 && damage > 0 && isfinite(damage) ? sec / damage : 1;
}

static void search_theta(dil__trial *t, double *sec)
{
    const dil_problem *p = t->job->p;
    double lo = 0, hi = INFINITY, theta = isfinite(p->damage_max) ? first_theta(p) : 0, damage, limit = t->job->limit_sec / THETAS;
    for (int i = 0; i < THETAS && dil__trial_left_sec(t) > 0; i++) {
        if (!at_theta(t, sec, theta, limit, &damage)) break;
        if (damage <= p->damage_max) hi = theta;
        else lo = theta;
        if (hi == 0) break; /* the budget does not bind */
        theta = isinf(hi) ? 8 * theta : lo == 0 ? theta / 8 : sqrt(lo * hi);
        if (hi < lo * 1.01) break;
    }
}

dil_status dil__baseline_soft(dil__job *job, dil_err *err)
{
    dil__trial t;
    const dil_problem *p = job->p;
    dil_status s = dil__trial_init(&t, job, "soft-quality", err);
    if (s != DIL_OK) return s;
    double *sec = calloc((size_t)p->n_layers * p->n_nodes * p->n_levels, sizeof *sec);
    if (sec) search_theta(&t, sec);
    s = sec ? dil__trial_end(&t, err) : dil_fail(err, DIL_EMEMORY, "baseline:soft-quality: out of memory");
    if (!sec) free(t.level);
    free(sec);
    return s;
}
