/* plan/path_thin.c - measured problems on many nodes: those that cannot be in a better plan go first.
 *
 * The relaxation that remembers by cell (path_ng.c) under the multipliers of every budget (path_dual.c), for a tied table once for each of its
 * levels. Visits that no plan below the target contains are dropped step by step; what is left is a problem of few nodes, which
 * path_real.c then searches with one case for each pair of the table's nodes. Those cases on all nodes together were the alternative: at 45 nodes they
 * are 14,000. */
#include "plan/path_real.h"

#include <stdlib.h>
#include <string.h>

enum { FIRST_STEPS = 40, STEPS = 150, ROUNDS = 4, UNITS = 256 };

typedef struct choice { double bound; int level; } choice;

static int by_bound(const void *a, const void *b) {
    const choice *x = a, *y = b;
    return x->bound != y->bound ? (x->bound < y->bound ? -1 : 1) : x->level - y->level;
}

/* The best multipliers for one level of the table, visits dropped on the way; marks the nodes that are left. false: no memory. */
static bool thin_level(px_real_job *j, int level, bool *keep, double *bound) {
    px_ng ng;
    dil__px_allow(j, level, -1, -1);
    bool ok = dil__px_ng_init(&ng, &j->core, 1);
    j->dual.ng = &ng;
    ng.w.n_units = UNITS;
    size_t before = ng.n_cells;
    for (int round = 0; ok && round < ROUNDS && dil_now_ns() < j->options.deadline_ns; round++) {
        ok = dil__px_dual_run(&j->dual, &j->core, NULL, &j->best, STEPS, j->options.deadline_ns);
        if (!ok || j->dual.no_path || !j->best.found) break;
        dil__px_ng_drop(&ng, dil__px_target(j));
        dil_log(DIL_LOG_DEBUG, "path", "level %d, round %d: bound %.6g, best %.6g, %zu cells", level, round, j->dual.bound, j->best.sec, ng.n_cells);
        if (ng.n_cells == 0) break;
        if (round > 1 && ng.n_cells > before * 9 / 10) break;
        before = ng.n_cells;
    }
    *bound = j->dual.no_path || ng.n_cells == 0 ? INFINITY : j->dual.bound;
    for (int s = 0; ok && s < j->core.n_nodes; s++)
        for (int l = 0; l < j->core.n_layers && ng.n_cells > 0 && !j->dual.no_path; l++) keep[s] = keep[s] || ng.g.run_max[s * j->core.n_layers + l] > 0;
    j->dual.ng = NULL;
    dil__px_ng_fini(&ng);
    return ok;
}

/* The levels of the table by what they promise at common multipliers. -> their number, -1: no memory */
static int rank_levels(px_real_job *j, choice *list) {
    int n = 0;
    for (uint32_t q = 0; q < (j->p->tied ? j->p->level_count[0] : 1); q++) {
        px_ng ng;
        dil__px_allow(j, j->p->tied ? (int)q : -1, -1, -1);
        bool ok = dil__px_ng_init(&ng, &j->core, 1);
        j->dual.ng = &ng;
        ng.w.n_units = UNITS;
        ok = ok && dil__px_dual_run(&j->dual, &j->core, NULL, &j->best, n == 0 ? FIRST_STEPS : FIRST_STEPS / 4, j->options.deadline_ns);
        if (ok && n == 0 && !j->dual.no_path) dil__fit_set_anchor(j->real.fit, &j->dual.y);
        if (ok && !j->dual.no_path) list[n++] = (choice){j->dual.bound, j->p->tied ? (int)q : -1};
        j->dual.ng = NULL;
        dil__px_ng_fini(&ng);
        if (!ok) return -1;
    }
    qsort(list, (size_t)n, sizeof *list, by_bound);
    return n;
}

int dil__px_thin(px_real_job *j, bool *keep, double *bound, double *dropped) {
    const int S = j->core.n_nodes;
    choice *list = dil__px_alloc((size_t)j->p->n_levels, sizeof *list);
    const int n = list ? rank_levels(j, list) : -1;
    bool ok = n >= 0;
    int left = 0;
    const int64_t now = dil_now_ns(), quarter = now + (j->options.deadline_ns - now) / 4;
    for (int i = 0; ok && i < n && i < 3; i++) {
        dil__px_allow(j, list[i].level, -1, -1);
        ok = dil__px_local_search(&j->core, &j->best, j->dual.node, j->options.gap, quarter);
    }
    *bound = INFINITY;
    for (int i = 0; ok && i < n; i++) {
        double least = list[i].bound;
        if (least >= dil__px_target(j)) continue;
        ok = thin_level(j, list[i].level, keep, &least);
        *bound = fmin(*bound, fmax(least, list[i].bound));
    }
    *dropped = j->best.found ? dil__px_target(j) : INFINITY; /* every target before was higher */
    *bound = fmin(*bound, *dropped);
    for (int l = 0; ok && l < j->core.n_layers && j->best.found; l++) keep[j->best.node[l]] = true;
    for (int s = 0; s < S; s++) left += keep[s];
    free(list);
    dil_log(DIL_LOG_DEBUG, "path", "%d of %d nodes are left, bound %.6g, best %.6g", left, S, *bound, j->best.found ? j->best.sec : INFINITY);
    return ok ? left : -1;
}

/* --- the problem over the nodes that are left --- */

static void copy_cells(const dil_problem *p, const uint32_t *node, const dil_problem *to, const double *from, double *v) {
    for (uint32_t l = 0; from && l < p->n_layers; l++)
        for (uint32_t i = 0; i < to->n_nodes; i++)
            memcpy(v + dil__cell(to, l, i, 0), from + dil__cell(p, l, node[i], 0), p->n_levels * sizeof *v);
}

static double *by_node(dil_problem *to, const double *from, const uint32_t *node) {
    double *v = from ? dil_arena_push(to->arena, to->n_nodes, sizeof *v) : NULL;
    for (uint32_t i = 0; v && i < to->n_nodes; i++) v[i] = from[node[i]];
    return v;
}

dil_status dil__px_part_of(const dil_problem *p, const uint32_t *node, uint32_t n, dil_problem **out, dil_err *err) {
    dil_problem *to;
    dil_status s = dil__problem_new(p->n_layers, n, p->n_levels, "path", &to, err);
    if (s != DIL_OK) return s;
    dil_arena *a = to->arena;
    const size_t cells = (size_t)p->n_layers * n * p->n_levels;
    double *sec = to->layer_sec;
    *to = *p; /* what is by layer and level is borrowed */
    to->arena = a;
    to->n_nodes = n;
    to->layer_sec = sec;
    to->store_bytes = by_node(to, p->store_bytes, node);
    to->source_sec = by_node(to, p->source_sec, node);
    to->sink_sec = by_node(to, p->sink_sec, node);
    to->out_load = by_node(to, p->out_load, node);
    to->in_load = by_node(to, p->in_load, node);
    to->chunk_sec = p->chunk_sec ? dil_arena_push(a, cells, sizeof(double)) : NULL;
    to->load = p->load ? dil_arena_push(a, cells, sizeof(double)) : NULL;
    to->hops = dil_arena_push(a, (size_t)n * n, sizeof *to->hops);
    to->n_hops = 0;
    if (!to->store_bytes || !to->source_sec || !to->sink_sec || !to->hops || !to->out_load != !p->out_load || !to->in_load != !p->in_load ||
        !to->chunk_sec != !p->chunk_sec || !to->load != !p->load) {
        dil_problem_free(to);
        return dil_fail(err, DIL_EMEMORY, "path: out of memory for %u layers on %u nodes", p->n_layers, n);
    }
    copy_cells(p, node, to, p->layer_sec, to->layer_sec);
    copy_cells(p, node, to, p->chunk_sec, to->chunk_sec);
    copy_cells(p, node, to, p->load, to->load);
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t k = 0; k < n; k++) {
            const dil_hop *h = dil_problem_hop(p, node[i], node[k]);
            if (!h) continue;
            to->hops[to->n_hops] = *h;
            to->hops[to->n_hops].from = i;
            to->hops[to->n_hops++].to = k;
        }
    *out = to;
    return DIL_OK;
}
