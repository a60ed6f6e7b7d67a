/* plan/path.c - the solver `path`: multipliers, first plans, and the exact search, in this order. docs/PATH.md has the mathematics.
 *
 * The multiplier on damage is found by cutting planes in one dimension: the relaxation is concave in it, its slope at a point is
 * what the relaxed plan overruns of the budget. Every relaxed plan on the way gives a structure, and that a first plan. */
#include "plan/path_int.h"

#include <stdlib.h>
#include <string.h>

enum { ROOT_UNITS = 1024, TREE_UNITS = 2048 };

typedef struct root {
    const px_core *c;
    px_graph *g;
    px_weight w;
    px_visit *visit; /* [L] */
    int n_visits;
    int *node, *level; /* [L] */
    px_plan *best;
    double bound, w_best; /* best bound in seconds and its weight on damage */
    int64_t deadline_ns;
} root;

/* Levels of the relaxed plan, visit by visit -> its damage; INFINITY when there is none. */
static double relaxed_damage(root *r) {
    const px_core *c = r->c;
    int layers[1024];
    double damage = 0;
    for (int i = 0; i < r->n_visits; i++) {
        const px_visit *v = &r->visit[i];
        for (int l = 0; l < v->n; l++) {
            layers[l] = v->first + l;
            r->node[v->first + l] = v->node;
        }
        const px_group g = {v->node, v->n, layers};
        if (!dil__px_group_levels(c, r->w.sec, r->w.damage, &g, ROOT_UNITS, r->level)) return INFINITY;
        for (int l = 0; l < v->n; l++) damage += px_damage(c, layers[l], r->level[l]);
    }
    return damage;
}

typedef struct sample { double at, value, slope; } sample;

/* The relaxation at one weight on damage, and a plan from its structure. false: no memory. */
static bool sample_at(root *r, double at, sample *s, bool *no_path) {
    if (!dil__px_weight_init(r->c, r->g, &r->w, 1, at, ROOT_UNITS)) return false;
    *no_path = !(r->w.root < INFINITY);
    if (*no_path) return true;
    s->at = at;
    s->value = r->w.root - at * px_budget(r->c);
    if (s->value > r->bound) {
        r->bound = s->value;
        r->w_best = at;
    }
    r->n_visits = dil__px_relaxed(r->c, r->g, &r->w, r->visit);
    s->slope = relaxed_damage(r) - r->c->damage_max;
    double w = at > 0 ? at : 1e-6;
    dil__px_round(r->c, r->node, &w, r->best);
    return true;
}

static double first_weight(const px_core *c) {
    double sec = 0;
    for (int l = 0; l < c->n_layers; l++) {
        double least = INFINITY;
        for (int s = 0; s < c->n_nodes; s++)
            for (int q = 0; q < c->n_levels; q++)
                if (px_bytes(c, l, q) < INFINITY) least = fmin(least, px_sec(c, s, l, q));
        sec += least;
    }
    return c->damage_max > 0 && sec > 0 ? 0.2 * sec / c->damage_max : 1;
}

/* Maximises the relaxation over the weight on damage. */
static bool find_weight(root *r, bool *no_path) {
    sample lo = {0}, hi = {0}, x;
    r->bound = -INFINITY;
    if (!sample_at(r, 0, &lo, no_path)) return false;
    if (*no_path || lo.slope <= 0) return true;
    double at = first_weight(r->c);
    for (int i = 0; i < 60; i++, at *= 4) {
        if (!sample_at(r, at, &hi, no_path)) return false;
        if (hi.slope <= 0) break;
        lo = hi;
    }
    for (int i = 0; i < 14 && hi.slope <= 0 && dil_now_ns() < r->deadline_ns; i++) {
        double mid = (hi.value - hi.slope * hi.at - lo.value + lo.slope * lo.at) / (lo.slope - hi.slope);
        const double top = lo.value + lo.slope * (mid - lo.at);
        if (top - r->bound < 1e-4 * fabs(r->bound)) break;
        if (!(mid > lo.at && mid < hi.at)) break;
        if (!sample_at(r, mid, &x, no_path)) return false;
        if (x.slope > 0) lo = x;
        else hi = x;
    }
    return true;
}

static bool root_init(root *r) {
    const size_t L = (size_t)r->c->n_layers;
    r->visit = dil__px_alloc(L, sizeof *r->visit);
    r->node = dil__px_alloc(2 * L, sizeof *r->node);
    r->level = r->node ? r->node + L : NULL;
    return r->visit && r->node;
}

static void root_fini(root *r) {
    dil__px_weight_fini(&r->w);
    free(r->visit);
    free(r->node);
}

static bool make_weights(const root *r, px_tree *t, px_weight *w) {
    static const double factor[] = {1, 0.6, 0.8, 1.25, 1.6};
    t->w = w;
    t->n_w = 0;
    t->main_w = 0;
    for (size_t i = 0; i < sizeof factor / sizeof *factor; i++) {
        if (i > 0 && r->w_best <= 0) break;
        if (!dil__px_weight_init(r->c, r->g, &w[t->n_w], 1, r->w_best * factor[i], TREE_UNITS)) return false;
        t->n_w++;
    }
    if (!dil__px_weight_init(r->c, r->g, &w[t->n_w], 0, 1, TREE_UNITS)) return false;
    t->n_w++;
    return true;
}

dil_status dil__px_solve(const px_core *c, const px_options *o, px_plan *best, px_report *report, dil_err *err) {
    px_graph g;
    root r = {.c = c, .g = &g, .best = best};
    px_weight w[PX_WEIGHTS_MAX] = {0};
    px_tree t = {.c = c, .g = &g, .best = best, .stop_at = o->stop_at, .rel_gap = o->gap, .lost = INFINITY};
    t.deadline_ns = r.deadline_ns = o->deadline_ns;
    *report = (px_report){.bound = -INFINITY};
    bool no_path = false;
    bool ok = dil__px_graph_init(c, &g);
    const int64_t t0 = dil_now_ns();
    ok = ok && root_init(&r) && find_weight(&r, &no_path);
    const int64_t t1 = dil_now_ns();
    report->root_sec = (double)(t1 - t0) * 1e-9;
    report->root_bound = r.bound;
    report->root_best = best->found ? best->sec : INFINITY;
    if (ok && !no_path) {
        ok = make_weights(&r, &t, w);
        report->weights_sec = (double)(dil_now_ns() - t1) * 1e-9;
        for (int k = 0; ok && k < t.n_w; k++)
            if (w[k].sec > 0) r.bound = fmax(r.bound, (w[k].root - w[k].damage * px_budget(c)) / w[k].sec);
        report->root_bound = r.bound;
        ok = ok && dil__px_tree_run(&t);
    }
    report->bound = no_path ? INFINITY : best->found ? fmax(r.bound, fmin(t.lost, best->sec * (1 - o->gap))) : fmax(r.bound, t.lost);
    report->complete = no_path || t.lost == INFINITY || (best->found && t.lost >= best->sec * (1 - o->gap));
    report->n_nodes = t.n_nodes;
    report->n_leaves = t.n_leaves;
    report->n_fronts = t.n_fronts;
    report->n_unions = t.n_unions;
    for (int k = 0; k < PX_WEIGHTS_MAX; k++) dil__px_weight_fini(&w[k]);
    root_fini(&r);
    dil__px_graph_fini(&g);
    if (!ok) return dil_fail(err, DIL_EMEMORY, "path: no memory");
    return DIL_OK;
}
