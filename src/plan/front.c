/* The Pareto front: one proved solve for each budget. */
#include "plan/chart.h"
#include "plan/problem_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static dil_status point(const dil_profile *profile, const dil_cluster *cluster, const dil_plan_options *o, double budget, dil_front_point *out,
                        dil_err *err)
{
    dil_plan *plan;
    dil_status s = dil_plan_make(profile, cluster, o, &plan, err);
    if (s != DIL_OK) return s;
    *out = (dil_front_point){.budget = budget, .damage = plan->predicted_damage, .ratio_to_fp32 = plan->ratio_to_fp32, .token_sec = plan->token_sec,
                             .prefill_sec = plan->prefill_sec, .total_sec = plan->total_sec, .bound_sec = plan->bound_sec, .gap = plan->gap,
                             .solve_sec = plan->solve_sec};
    dil_plan_free(plan);
    return DIL_OK;
}

/* The least damage within everything else. */
static dil_status least_damage(const dil_profile *profile, const dil_cluster *cluster, const dil_plan_options *o, double *damage, dil_err *err)
{
    dil_problem *p;
    dil_solution *s = NULL;
    dil_status ok = dil_problem_from_profile(profile, cluster, o, &p, NULL, err);
    if (ok != DIL_OK) return ok;
    dil_solve_options so = {.goal = DIL_GOAL_DAMAGE, .limit_sec = o->limit_sec, .gap = dil__plan_gap(o), .progress = o->progress};
    ok = dil_plan_solve(p, &so, &s, err);
    if (ok == DIL_OK) *damage = s->objective;
    dil_solution_free(s);
    dil_problem_free(p);
    return ok;
}

static void size_range(const dil_profile *profile, double *least, double *most)
{
    *least = *most = 0;
    for (uint32_t l = 0; l < profile->n_layers; l++) {
        const dil_profile_layer *layer = &profile->layers[l];
        double lo = INFINITY, hi = 0;
        for (uint32_t q = 0; q < layer->n_levels; q++) {
            const dil_profile_level *v = &layer->levels[q];
            double bytes = (double)v->bytes;
            if (profile->tied_head && l + 1 == profile->n_layers)
                bytes -= v->shared_bytes ? (double)v->shared_bytes : fmin((double)profile->layers[0].levels[q].bytes, bytes);
            lo = fmin(lo, bytes);
            hi = fmax(hi, bytes);
        }
        *least += lo;
        *most += hi;
    }
    *least /= 4 * (double)profile->n_params;
    *most /= 4 * (double)profile->n_params;
}

/* A plan at a smaller budget is one at a larger, and a bound at a larger budget holds at a smaller. */
static void join(dil_front_point *v, uint32_t n)
{
    for (uint32_t i = 1; i < n; i++) {
        if (v[i].total_sec <= v[i - 1].total_sec) continue;
        double budget = v[i].budget, bound = v[i].bound_sec, solve_sec = v[i].solve_sec;
        v[i] = v[i - 1];
        v[i].budget = budget;
        v[i].bound_sec = fmin(bound, v[i].total_sec);
        v[i].solve_sec = solve_sec;
    }
    for (uint32_t i = n; i-- > 0;) {
        if (i + 1 < n) v[i].bound_sec = fmin(fmax(v[i].bound_sec, v[i + 1].bound_sec), v[i].total_sec);
        v[i].gap = v[i].total_sec > 0 ? (v[i].total_sec - v[i].bound_sec) / v[i].total_sec : 0;
    }
}

/* Geometric: the front is steep at small damage. A least damage of zero starts at a thousandth of the largest. */
static dil_status over_damage(const dil_profile *profile, const dil_cluster *cluster, dil_plan_options o, uint32_t n, dil_front_point *points,
                              uint32_t *found, dil_err *err)
{
    double least;
    dil_front_point fastest;
    o.max_loss_increase = INFINITY;
    o.max_damage = INFINITY;
    dil_status s = least_damage(profile, cluster, &o, &least, err);
    o.max_damage = 1e9; /* no limit, but not "no budget" either, which would solve for the least damage first */
    if (s == DIL_OK) s = point(profile, cluster, &o, INFINITY, &fastest, err);
    if (s != DIL_OK) return s;
    double from = fmax(least, 1e-3 * fastest.damage), to = fmax(fastest.damage, from);
    for (uint32_t i = 0; i < n && s != DIL_ECANCELED; i++) {
        double budget = i + 1 == n ? to : i == 0 ? least : from * pow(to / from, (double)i / (n - 1));
        if (i + 1 == n) fastest.budget = to, points[(*found)++] = fastest;
        else {
            o.max_damage = budget * (1 + 1e-12);
            s = point(profile, cluster, &o, budget, &points[*found], err);
            if (s == DIL_OK) ++*found;
        }
        if (i == 0 && s != DIL_OK && s != DIL_ETIMEOUT) return s;
    }
    join(points, *found);
    return s == DIL_ECANCELED ? s : DIL_OK;
}

static dil_status over_ratio(const dil_profile *profile, const dil_cluster *cluster, dil_plan_options o, uint32_t n, dil_front_point *points,
                             uint32_t *found, dil_err *err)
{
    double least, most;
    dil_status s = DIL_OK;
    size_range(profile, &least, &most);
    o.max_damage = o.max_loss_increase = INFINITY;
    for (uint32_t i = 0; i < n && s != DIL_ECANCELED; i++) {
        o.max_ratio = least + (most - least) * (n > 1 ? (double)i / (n - 1) : 1);
        o.max_ratio *= 1 + 1e-12;
        s = point(profile, cluster, &o, o.max_ratio, &points[*found], err);
        if (s == DIL_OK) ++*found;
    }
    return *found > 0 && s != DIL_ECANCELED ? DIL_OK : s;
}

dil_status dil_plan_front(const dil_profile *profile, const dil_cluster *cluster, const dil_plan_options *options, dil_front over, uint32_t n,
                          dil_front_point *points, uint32_t *found, dil_err *err)
{
    *found = 0;
    if (n < 2) return dil_fail(err, DIL_EUSAGE, "a front has at least 2 points, asked were %u", n);
    return over == DIL_FRONT_DAMAGE ? over_damage(profile, cluster, *options, n, points, found, err)
                                    : over_ratio(profile, cluster, *options, n, points, found, err);
}

dil_status dil_front_write_csv(const char *path, const dil_front_point *points, uint32_t n, dil_err *err)
{
    dil_outfile o;
    dil_status s = dil_outfile_open(&o, path, err);
    if (s != DIL_OK) return s;
    fputs("budget,damage,ratio_to_fp32,token_sec,prefill_sec,total_sec,bound_sec,gap,solve_sec\n", o.stream);
    for (uint32_t i = 0; i < n; i++) {
        const dil_front_point *v = &points[i];
        fprintf(o.stream, "%.9g,%.9g,%.9g,%.9g,%.9g,%.9g,%.9g,%.9g,%.3f\n", v->budget, v->damage, v->ratio_to_fp32, v->token_sec, v->prefill_sec,
                v->total_sec, v->bound_sec, v->gap, v->solve_sec);
    }
    return dil_outfile_commit(&o, err);
}

dil_status dil_front_write_svg(const char *path, dil_front over, const dil_front_point *points, uint32_t n, dil_err *err)
{
    double *v = calloc(3u * n + 1, sizeof *v);
    if (!v) return dil_fail(err, DIL_EMEMORY, "%s: out of memory", path);
    double gap = 0;
    for (uint32_t i = 0; i < n; i++) {
        v[i] = over == DIL_FRONT_DAMAGE ? points[i].budget : 100 * points[i].ratio_to_fp32;
        v[n + i] = points[i].total_sec;
        v[2 * n + i] = points[i].bound_sec;
        gap = fmax(gap, points[i].gap);
    }
    char note[160];
    snprintf(note, sizeof note, "%u points with what is proved: no plan at that budget takes less than the circle (largest gap %.2g %%)", n, 100 * gap);
    dil__series s[] = {{"best plan", "#2a6fbb", v, v + n, n, over == DIL_FRONT_DAMAGE, true, true}, {"proved bound (circles)", "#9aa5b1", v, v + 2 * n, n, false, true, false}};
    dil__chart c = {.title = over == DIL_FRONT_DAMAGE ? "Delay of an answer against the damage allowed" : "Delay of an answer against the file's size",
                    .note = note, .x_label = over == DIL_FRONT_DAMAGE ? "damage allowed" : "size, % of fp32", .y_label = "seconds of an answer",
                    .series = s, .n_series = 2};
    dil_status ok = dil__chart_write(path, &c, err);
    free(v);
    return ok;
}
