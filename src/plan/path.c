/* plan/path.c - the solver `path`: multipliers, first plans, and the exact search, in this order. docs/PATH.md has the mathematics. */
#include "plan/path_int.h"

#include <stdlib.h>
#include <string.h>

enum { ROOT_UNITS = 512, TREE_UNITS = 2048 };

static bool make_weights(const px_root *r, px_weight *w, int *n) {
    static const double factor[] = {1, 0.7, 1.4};
    *n = 0;
    for (size_t i = 0; i < sizeof factor / sizeof *factor; i++) {
        if (i > 0 && r->best_damage <= 0) break;
        if (!dil__px_weight_init(r->c, r->g, &w[*n], 1, r->best_damage * factor[i], r->best_price, TREE_UNITS)) return false;
        ++*n;
    }
    for (size_t i = 0; i < sizeof factor / sizeof *factor; i++) {
        if (i > 0 && r->plain_damage <= 0) break;
        if (!dil__px_weight_init(r->c, r->g, &w[*n], 1, r->plain_damage * factor[i], NULL, TREE_UNITS)) return false;
        ++*n;
    }
    if (!dil__px_weight_init(r->c, r->g, &w[*n], 0, 1, NULL, TREE_UNITS)) return false;
    ++*n;
    return true;
}

static int make_leaf_weights(const px_root *r, px_weight *w) {
    static const double factor[] = {1, 0.6, 0.8, 1.25, 1.6};
    int n = 0;
    for (size_t i = 0; i < sizeof factor / sizeof *factor; i++) {
        if (i > 0 && r->best_damage <= 0) break;
        w[n++] = (px_weight){.sec = 1, .damage = r->best_damage * factor[i], .n_units = TREE_UNITS};
    }
    w[n++] = (px_weight){.damage = 1, .n_units = TREE_UNITS};
    return n;
}

dil_status dil__px_solve(const px_core *c, const px_options *o, px_plan *best, px_report *report, dil_err *err) {
    px_graph g;
    px_root r = {.c = c, .g = &g, .best = best, .n_units = ROOT_UNITS, .deadline_ns = o->deadline_ns};
    px_weight w[PX_WEIGHTS_MAX] = {0}, leaf_w[PX_WEIGHTS_MAX];
    px_tree t = {.c = c, .g = &g, .w = w, .leaf_w = leaf_w, .best = best, .stop_at = o->stop_at, .rel_gap = o->gap, .lost = INFINITY};
    t.deadline_ns = o->deadline_ns;
    *report = (px_report){.bound = -INFINITY};
    const int64_t t0 = dil_now_ns();
    bool ok = dil__px_graph_init(c, &g) && dil__px_root_init(&r) && dil__px_root_run(&r, 40);
    const int64_t t1 = dil_now_ns();
    report->root_sec = (double)(t1 - t0) * 1e-9;
    report->root_best = best->found ? best->sec : INFINITY;
    if (ok && !r.no_path) {
        ok = make_weights(&r, w, &t.n_w);
        t.n_leaf_w = make_leaf_weights(&r, leaf_w);
        report->weights_sec = (double)(dil_now_ns() - t1) * 1e-9;
        for (int k = 0; ok && k < t.n_w; k++) r.bound = fmax(r.bound, px_seconds(c, &w[k], w[k].root));
        ok = ok && dil__px_tree_run(&t);
    }
    report->plain_bound = r.plain_bound;
    report->root_bound = r.bound;
    report->bound = r.no_path ? INFINITY : best->found ? fmax(r.bound, fmin(t.lost, px_target(&t))) : fmax(r.bound, t.lost);
    report->complete = r.no_path || t.lost == INFINITY || (best->found && t.lost >= px_target(&t));
    report->n_nodes = t.n_nodes;
    report->n_leaves = t.n_leaves;
    report->n_fronts = t.n_fronts;
    report->n_unions = t.n_unions;
    for (int k = 0; k < PX_WEIGHTS_MAX; k++) dil__px_weight_fini(&w[k]);
    dil__px_root_fini(&r);
    dil__px_graph_fini(&g);
    if (!ok) return dil_fail(err, DIL_EMEMORY, "path: no memory");
    return DIL_OK;
}
