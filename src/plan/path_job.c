/* plan/path_job.c - the planner's problem for the solver `path`, and its answer for the planner.
 *
 * With the goal DIL_GOAL_DAMAGE the damage takes the place of the seconds, hops cost nothing and there is no other budget.
 * Levels that a layer lacks get bytes that fit nowhere. Budgets are taken with the referee's tolerance, so that a budget which is
 * the exact sum of what is chosen stays met whatever the order of the additions. */
#include "plan/path_fit.h"
#include "plan/problem_impl.h"

#include <stdlib.h>
#include <string.h>

#define TOLERANCE 0.9e-9

typedef struct copy { /* what px_core points to */
    double *bytes, *sec, *damage, *store, *source, *sink;
    px_links links;
    px_core core;
} copy;

static bool is_bare(const dil_problem *p)
{
    if (p->tied || p->buffer_bytes || p->file_bytes_max < INFINITY || (p->chunk_weight > 0 && p->chunk_sec) || p->load_max < INFINITY) return false;
    for (uint32_t i = 0; i < p->n_hops && p->n_layers > 1; i++)
        if (p->hops[i].head_sec != p->hops[i].sec) return false;
    return true;
}

static void copy_fini(copy *k)
{
    free(k->bytes);
    free(k->sec);
    free(k->damage);
    free(k->store);
    free(k->source);
    free(k->sink);
    free(k->links.first);
    free(k->links.to);
    free(k->links.sec);
}

static bool copy_alloc(copy *k, const dil_problem *p)
{
    const size_t L = p->n_layers, S = p->n_nodes, Q = p->n_levels;
    k->bytes = dil__px_alloc(L * Q, sizeof(double));
    k->sec = dil__px_alloc(L * S * Q, sizeof(double));
    k->damage = dil__px_alloc(L * Q, sizeof(double));
    k->store = dil__px_alloc(S, sizeof(double));
    k->source = dil__px_alloc(S, sizeof(double));
    k->sink = dil__px_alloc(S, sizeof(double));
    k->links.first = dil__px_alloc(S + 1, sizeof(int));
    k->links.to = dil__px_alloc(p->n_hops, sizeof(int));
    k->links.sec = dil__px_alloc(p->n_hops, sizeof(double));
    return k->bytes && k->sec && k->damage && k->store && k->source && k->sink && k->links.first && k->links.to && k->links.sec;
}

static double copy_levels(copy *k, const dil_problem *p, bool by_damage)
{
    const size_t L = p->n_layers, S = p->n_nodes, Q = p->n_levels;
    double most = 0; /* damage of the worst levels together */
    for (size_t l = 0; l < L; l++) {
        double worst = 0;
        for (size_t q = 0; q < Q; q++) {
            const bool is = q < p->level_count[l];
            k->bytes[l * Q + q] = is ? p->layer_bytes[l * Q + q] : INFINITY;
            k->damage[l * Q + q] = is && !by_damage ? p->damage[l * Q + q] : 0;
            worst = fmax(worst, k->damage[l * Q + q]);
            for (size_t s = 0; is && s < S; s++)
                k->sec[(s * L + l) * Q + q] = by_damage ? p->damage[l * Q + q] : p->layer_sec[dil__cell(p, (uint32_t)l, (uint32_t)s, (uint32_t)q)];
        }
        most += worst;
    }
    return most;
}

static void copy_fill(copy *k, const dil_problem *p, bool by_damage)
{
    const double most = copy_levels(k, p, by_damage);
    for (uint32_t s = 0; s < p->n_nodes; s++) {
        k->store[s] = p->store_bytes[s] * (1 + TOLERANCE);
        k->source[s] = by_damage && isfinite(p->source_sec[s]) ? 0 : p->source_sec[s];
        k->sink[s] = by_damage && isfinite(p->sink_sec[s]) ? 0 : p->sink_sec[s];
    }
    for (uint32_t i = 0; i < p->n_hops; i++) {
        k->links.first[p->hops[i].from + 1]++;
        k->links.to[i] = (int)p->hops[i].to;
        k->links.sec[i] = by_damage ? 0 : p->hops[i].sec;
    }
    for (uint32_t s = 0; s < p->n_nodes; s++) k->links.first[s + 1] += k->links.first[s];
    k->core = (px_core){.n_layers = (int)p->n_layers, .n_nodes = (int)p->n_nodes, .n_levels = (int)p->n_levels, .bytes = k->bytes,
                        .sec = k->sec, .damage = k->damage, .store = k->store, .links = &k->links, .source = k->source, .sink = k->sink,
                        .damage_max = by_damage ? 0 : fmin(most, p->damage_max * (1 + TOLERANCE))};
}

static void take_start(const dil__job *job, const px_core *c, px_plan *best)
{
    if (!job->start_node) return;
    for (int l = 0; l < c->n_layers; l++) {
        best->node[l] = (int)job->start_node[l];
        best->level[l] = (int)job->start_level[l];
    }
    best->found = dil__px_evaluate(c, best->node, best->level, &best->sec, &best->damage) && best->damage <= px_budget(c);
    if (best->found) dil__trail_plan(best->trail, best->sec);
}

static dil_status answer(dil__job *job, px_plan *best, const px_report *r, dil_err *err)
{
    if (r->canceled) return dil_fail(err, DIL_ECANCELED, "path: canceled");
    if (best->found && job->goal == DIL_GOAL_DAMAGE && best->sec > job->p->damage_max * (1 + TOLERANCE)) best->found = false;
    if (!best->found && (r->complete || (job->goal == DIL_GOAL_DAMAGE && r->bound > job->p->damage_max * (1 + 1e-9)))) return dil_fail(err, DIL_EINFEASIBLE, "path: no plan meets the budgets");
    if (!best->found) return dil_fail(err, DIL_ETIMEOUT, "path: no plan within %g seconds", job->limit_sec);
    for (uint32_t l = 0; l < job->p->n_layers; l++) {
        job->node[l] = (uint32_t)best->node[l];
        job->level[l] = (uint32_t)best->level[l];
    }
    job->bound = r->bound;
    return DIL_OK;
}

dil_status dil__solve_path(dil__job *job, dil_err *err)
{
    const dil_problem *p = job->p;
    if (!is_bare(p) || job->goal == DIL_GOAL_LOAD) return dil__px_solve_real(job, err);
    const double limit_sec = fmin(job->limit_sec, 1e9);
    const px_options o = {.gap = 0.1 * job->gap, .stop_at = -1, .deadline_ns = dil_now_ns() + (int64_t)(limit_sec * 1e9),
                          .n_threads = dil_cpu_count() < 2 ? 1 : 2, .progress = job->progress, .notes_bounds = true};
    copy k = {0};
    px_plan best = {.node = dil__px_alloc(p->n_layers, sizeof(int)), .level = dil__px_alloc(p->n_layers, sizeof(int)), .trail = job->trail};
    px_report report;
    dil_status s = DIL_EMEMORY;
    if (best.node && best.level && copy_alloc(&k, p)) {
        copy_fill(&k, p, job->goal == DIL_GOAL_DAMAGE);
        take_start(job, &k.core, &best);
        s = dil__px_solve(&k.core, &o, &best, &report, err);
        if (s == DIL_OK) s = answer(job, &best, &report, err);
    } else {
        s = dil_fail(err, DIL_EMEMORY, "path: out of memory for %u layers on %u nodes", p->n_layers, p->n_nodes);
    }
    copy_fini(&k);
    free(best.node);
    free(best.level);
    return s;
}
