/* plan/path.c - the solver `path`: multipliers, first plans, and the exact search, in this order. docs/PATH.md has the mathematics. */
#include "plan/path_int.h"
#include "plan/problem_impl.h"

#include <stdlib.h>
#include <string.h>

enum { ROOT_UNITS = 512, TREE_UNITS = 2048, KEEP = 40, KEEP_MOST = 48, ROOT_STEPS = 40, FEW_NODES = 6000, FEW_LINKS = 8 };

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

static void restrict_to(px_graph *g, const px_core *c, const int *run_max) {
    for (int i = 0; i < c->n_nodes * c->n_layers; i++)
        if (run_max[i] < g->run_max[i]) g->run_max[i] = run_max[i];
    for (int s = 0; s < c->n_nodes; s++) g->bit[s] = -1;
    g->n_bits = 0;
    g->cover = false;
}

typedef struct dense { /* a search over nodes whose hops are dense */
    const px_options *o;
    px_graph g;
    px_root r;
    px_weight w[PX_WEIGHTS_MAX], leaf_w[PX_WEIGHTS_MAX];
    px_tree t;
} dense;

/* At the graph's masks and the multipliers found. false: no memory. */
static bool search(dense *d, px_report *report) {
    px_tree *t = &d->t;
    const int64_t t0 = dil_now_ns();
    bool ok = make_weights(&d->r, d->w, &t->n_w);
    t->n_leaf_w = make_leaf_weights(&d->r, d->leaf_w);
    report->weights_sec += (double)(dil_now_ns() - t0) * 1e-9;
    for (int k = 0; ok && k < t->n_w; k++) d->r.bound = fmax(d->r.bound, px_seconds(t->c, &d->w[k], d->w[k].root));
    if (d->o->notes_bounds) dil__trail_bound(t->best->trail, d->r.bound);
    ok = ok && dil__px_tree_run(t);
    for (int k = 0; k < PX_WEIGHTS_MAX; k++) dil__px_weight_fini(&d->w[k]);
    return ok;
}

/* Where masks without the nodes visited are not enough for a short search they get them, and it begins anew. */
static bool search_twice(dense *d, px_report *report) {
    px_tree *t = &d->t;
    const bool has_late = d->g.n_bits > 0 && !d->g.cover && t->c->n_nodes <= PX_COVER_LATE_MAX;
    if (has_late) t->most = d->o->few ? d->o->few : FEW_NODES;
    if (!search(d, report)) return false;
    if (!has_late || !t->exhausted) return true;
    t->most = 0;
    t->lost = INFINITY;
    report->restarted = true;
    dil__px_graph_cover(t->c, &d->g, true);
    return dil__px_root_again(&d->r, ROOT_STEPS) && search(d, report);
}

static void fill_report(const dense *d, px_report *report) {
    const px_root *r = &d->r;
    const px_tree *t = &d->t;
    const px_plan *best = t->best;
    report->plain_bound = r->plain_bound;
    report->root_bound = r->bound;
    report->bound = r->no_path ? INFINITY : best->found ? fmax(r->bound, fmin(t->lost, px_target(t))) : fmax(r->bound, t->lost);
    report->complete = r->no_path || t->lost == INFINITY || (best->found && t->lost >= px_target(t));
    report->canceled = t->canceled;
    report->n_nodes = t->n_nodes;
    report->n_leaves = t->n_leaves;
    report->n_fronts = t->n_fronts;
    report->n_unions = t->n_unions;
}

/* The exact search over the nodes of c, which has dense hops. run_max, most: as dil__px_solve_part. */
static bool solve_dense(const px_core *whole, const px_options *o, const int *run_max, uint64_t most, px_plan *best, px_report *report) {
    int *twin = dil__px_alloc((size_t)whole->n_nodes, sizeof *twin);
    if (!twin) return false;
    px_core core = *whole;
    const px_core *c = &core;
    if (dil__px_find_twins(c, twin)) core.twin = twin;
    dense d = {.o = o};
    d.r = (px_root){.c = c, .g = &d.g, .best = best, .n_units = ROOT_UNITS, .deadline_ns = o->deadline_ns};
    d.t = (px_tree){.c = c, .g = &d.g, .w = d.w, .leaf_w = d.leaf_w, .best = best, .stop_at = o->stop_at, .rel_gap = o->gap, .lost = INFINITY,
                    .deadline_ns = o->deadline_ns, .most = most, .progress = o->progress};
    const int64_t t0 = dil_now_ns();
    bool ok = dil__px_graph_init(c, &d.g);
    if (ok && run_max) restrict_to(&d.g, c, run_max);
    else if (ok && o->few) dil__px_graph_cover(c, &d.g, false);
    ok = ok && dil__px_root_init(&d.r) && dil__px_root_run(&d.r, ROOT_STEPS);
    report->root_sec = (double)(dil_now_ns() - t0) * 1e-9;
    report->root_best = best->found ? best->sec : INFINITY;
    if (ok && !d.r.no_path) ok = search_twice(&d, report);
    fill_report(&d, report);
    dil__px_root_fini(&d.r);
    dil__px_graph_fini(&d.g);
    free(twin);
    return ok;
}

bool dil__px_solve_part(const px_core *c, const px_options *o, const int *node, int n, const int *run_max, uint64_t most, px_plan *best, px_report *report) {
    px_part k;
    px_plan inner;
    if (!dil__px_part_init(&k, c, node, n, best, &inner)) return false;
    const bool ok = solve_dense(&k.core, o, run_max, most, &inner, report);
    dil__px_part_fini(&k, node, &inner, best);
    return ok;
}

static bool solve_all_nodes(const px_core *c, const px_options *o, px_plan *best, px_report *report) {
    int *node = dil__px_alloc((size_t)c->n_nodes, sizeof *node);
    if (!node) return false;
    for (int s = 0; s < c->n_nodes; s++) node[s] = s;
    const bool ok = dil__px_solve_part(c, o, node, c->n_nodes, NULL, 0, best, report);
    free(node);
    return ok;
}

static int keep_of(const px_options *o) { return o->keep > 0 ? o->keep : KEEP; }

/* Best plan over all nodes: first those that cannot matter are dropped, then the rest is searched. */
static bool solve_big(const px_core *c, const px_options *o, px_plan *best, px_report *report) {
    px_big b = {.c = c, .best = best, .gap = fmax(o->gap, 0.004), .n_threads = o->n_threads, .keep = keep_of(o),
                .few_links = (double)c->links->first[c->n_nodes] * FEW_LINKS < (double)c->n_nodes * c->n_nodes, .deadline_ns = o->deadline_ns};
    bool ok = dil__px_big_run(&b);
    px_options part = *o;
    part.notes_bounds = false; /* of what is left only */
    const bool closed = best->found && b.bound >= best->sec * (1 - 1.001 * b.gap);
    if (ok && !b.no_path && !closed && b.n_nodes > 0 && b.n_nodes <= KEEP_MOST) ok = dil__px_solve_part(c, &part, b.node, b.n_nodes, NULL, 0, best, report);
    else if (ok) *report = (px_report){.bound = b.bound, .complete = b.no_path};
    report->bound = b.no_path ? INFINITY : fmax(b.bound, fmin(report->bound, b.lost));
    if (best->found) report->complete = report->bound >= best->sec * (1 - o->gap);
    free(b.price);
    free(b.node);
    return ok;
}

dil_status dil__px_solve(const px_core *c, const px_options *o, px_plan *best, px_report *report, dil_err *err) {
    *report = (px_report){.bound = -INFINITY};
    const bool ok = c->hop ? solve_dense(c, o, NULL, 0, best, report)
                    : c->n_nodes > keep_of(o) ? solve_big(c, o, best, report) : solve_all_nodes(c, o, best, report);
    if (!ok) return dil_fail(err, DIL_EMEMORY, "path: out of memory for %d layers on %d nodes", c->n_layers, c->n_nodes);
    if (best->found) report->bound = fmin(report->bound, best->sec);
    return DIL_OK;
}
