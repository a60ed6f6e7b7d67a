/* plan/path_ng.c - the relaxation of path_ng.h: completions from behind, and the cheapest way.
 *
 * Of a cell's masks the empty one is the cheapest, so the successors in order of it settle the other masks after a few; cells that
 * remember nothing are a vectorised minimum over a row of hops. A full table over all masks and successors was the alternative and took ten times longer. */
#include "plan/path_ng_int.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { MASKS = 1 << PX_NG_MEMORY, CANDIDATES = 48, BLOCK = 32 };

unsigned dil__px_ng_carry(const px_ng *x, int l, int s, unsigned mask, int m, int t) {
    unsigned map[PX_NG_MEMORY];
    if (!mask) return 0;
    ng_map_bits(x, ng_cell(x, l, s), ng_cell(x, m, t), map);
    return ng_carry(mask, map);
}

unsigned dil__px_ng_spend(const px_ng *x, int l, int s, unsigned mask, int m) {
    return dil__px_ng_carry(x, l, s, mask, m, s) | ng_bit_of(x, ng_cell(x, m, s), s);
}

double dil__px_ng_rest(const px_ng *x, int l, int s, unsigned mask) {
    const size_t k = ng_cell(x, l, s);
    return x->ends[k] ? x->rest[x->at[k] + mask] : INFINITY;
}

/* --- backward --- */

static void start_at(px_ng *x, int l, int s) {
    const size_t k = ng_cell(x, l, s);
    double *start = x->start + x->at[k];
    const unsigned n_masks = ng_masks_of(x, k), self = ng_bit_of(x, k, s);
    unsigned map[PX_NG_MEMORY], to[MASKS];
    for (unsigned m = 0; m < n_masks; m++) start[m] = INFINITY;
    to[0] = 0;
    for (int n = 1; n <= ng_reach(x, l, s); n++) {
        const size_t j = ng_cell(x, l + n, s);
        const double *rest = x->rest + x->at[j];
        const double whole = ng_large(x, s, l, n), half = ng_small(x, s, l, n);
        const unsigned spent = ng_bit_of(x, j, s);
        if (!x->ends[j] || !(whole < INFINITY)) continue;
        if (n_masks > 1) ng_map_bits(x, k, j, map);
        for (unsigned m = 0; m < n_masks; m++) {
            if (m) to[m] = to[m & (m - 1)] | map[__builtin_ctz(m)];
            const double a = half + rest[to[m]], b = m & self ? INFINITY : whole + rest[to[m] | spent];
            start[m] = fmin(start[m], fmin(a, b));
        }
    }
    x->start0[k] = start[0];
}

typedef struct next { double guess, hop; int node; } next;

static void note_next(next *v, int *n, next y) {
    if (*n == CANDIDATES && y.guess >= v[*n - 1].guess) return;
    int i = *n < CANDIDATES ? (*n)++ : *n - 1;
    for (; i > 0 && v[i - 1].guess > y.guess; i--) v[i] = v[i - 1];
    v[i] = y;
}

/* Successors of s at layer l that some mask may want, the cheapest first. */
static int candidates(const px_ng *x, int l, int s, next *v) {
    const px_core *c = x->c;
    const size_t k = ng_cell(x, l, s);
    const double *start0 = x->start0 + ng_cell(x, l, 0);
    double enough = INFINITY; /* some successor costs no more than this with everything spent */
    unsigned map[PX_NG_MEMORY];
    int n = 0;
    const int lo = c->hop ? 0 : c->links->first[s], hi = c->hop ? c->n_nodes : c->links->first[s + 1];
    for (int e = lo; e < hi; e++) {
        const int t = c->hop ? e : c->links->to[e];
        const double hop = c->hop ? px_hop_row(c, s, l)[t] : c->links->sec[e];
        const double least = hop + start0[t];
        if (!(least < enough) || t == s) continue;
        note_next(v, &n, (next){least, hop, t});
        const size_t j = ng_cell(x, l, t);
        enough = fmin(enough, hop + x->start[x->at[j] + ng_map_bits(x, k, j, map)]);
    }
    return n;
}

static void rest_at(px_ng *x, int l, int s) {
    const size_t k = ng_cell(x, l, s);
    double *rest = x->rest + x->at[k];
    const unsigned n_masks = ng_masks_of(x, k);
    next v[CANDIDATES];
    unsigned map[CANDIDATES][PX_NG_MEMORY];
    if (!x->ends[k]) {
        for (unsigned m = 0; m < n_masks; m++) rest[m] = INFINITY;
        return;
    }
    if (n_masks == 1) {
        rest[0] = dil__px_least_next(x->c, s, l, x->start0 + ng_cell(x, l, 0));
        return;
    }
    const int n = candidates(x, l, s, v);
    for (int i = 0; i < n; i++) ng_map_bits(x, k, ng_cell(x, l, v[i].node), map[i]);
    for (unsigned m = 0; m < n_masks; m++) {
        double least = INFINITY;
        int i = 0;
        for (; i < n && v[i].guess < least; i++)
            least = fmin(least, v[i].hop + x->start[x->at[ng_cell(x, l, v[i].node)] + ng_carry(m, map[i])]);
        if (i == n && n == CANDIDATES) least = fmin(least, v[n - 1].guess); /* what was not kept costs at least this */
        rest[m] = least;
    }
}

typedef struct pass { px_ng *x; int layer; } pass;

static void visits_of(void *ctx, size_t s) {
    px_ng *x = ctx;
    dil__px_visits_of_node(x->c, &x->w, (int)s, x->g.run_max, x->g.run_cap);
}

static void start_block(void *ctx, size_t i) {
    const pass *p = ctx;
    for (int s = (int)i * BLOCK; s < (int)(i + 1) * BLOCK && s < p->x->c->n_nodes; s++) start_at(p->x, p->layer, s);
}

static void rest_block(void *ctx, size_t i) {
    const pass *p = ctx;
    for (int s = (int)i * BLOCK; s < (int)(i + 1) * BLOCK && s < p->x->c->n_nodes; s++) rest_at(p->x, p->layer, s);
}

static void backward(px_ng *x) {
    const px_core *c = x->c;
    const size_t n_blocks = ((size_t)c->n_nodes + BLOCK - 1) / BLOCK;
    for (int s = 0; s < c->n_nodes; s++) x->rest[x->at[ng_cell(x, c->n_layers, s)]] = c->sink[s];
    for (int l = c->n_layers - 1; l >= 0; l--) {
        pass p = {x, l};
        dil_parallel(x->n_threads, n_blocks, start_block, &p);
        if (l > 0) dil_parallel(x->n_threads, n_blocks, rest_block, &p);
    }
    x->w.root = INFINITY;
    for (int s = 0; s < c->n_nodes; s++) x->w.root = fmin(x->w.root, c->source[s] + x->start0[s]);
}

static bool lay_out(px_ng *x) {
    const size_t n = (size_t)(x->c->n_layers + 1) * (size_t)x->c->n_nodes;
    for (size_t k = 0; k < n; k++) {
        const int l = (int)(k / (size_t)x->c->n_nodes), s = (int)(k % (size_t)x->c->n_nodes);
        if (l < x->c->n_layers && !x->ends[k] && ng_reach(x, l, s) == 0) x->n_memory[k] = 0;
        x->at[k + 1] = x->at[k] + ng_masks_of(x, k);
    }
    if (x->at[n] <= x->cap) return true;
    const size_t cap = x->at[n] + x->at[n] / 4;
    free(x->start);
    free(x->rest);
    free(x->from);
    free(x->after);
    x->cap = 0;
    x->start = dil__px_alloc(cap, sizeof *x->start);
    x->rest = dil__px_alloc(cap, sizeof *x->rest);
    x->from = dil__px_alloc(cap, sizeof *x->from);
    x->after = dil__px_alloc(cap, sizeof *x->after);
    if (!x->start || !x->rest || !x->from || !x->after) return false;
    x->cap = cap;
    return true;
}

bool dil__px_ng_relax(px_ng *x, double damage, const double *price) {
    x->w.sec = 1;
    x->w.damage = damage;
    x->w.price = price;
    x->w.credit = 0;
    for (int s = 0; s < x->c->n_nodes; s++) x->w.credit += price[s] * x->c->store[s];
    if (!lay_out(x)) return false;
    x->stale = x->has_from = false;
    dil_parallel(x->n_threads, (size_t)x->c->n_nodes, visits_of, x);
    backward(x);
    return true;
}

/* --- the cheapest way --- */

static int next_node(const px_ng *x, int l, int last, unsigned mask) {
    const px_core *c = x->c;
    double least = INFINITY;
    int to = -1;
    unsigned map[PX_NG_MEMORY];
    const bool dense = last < 0 || c->hop;
    const int lo = dense ? 0 : c->links->first[last], hi = dense ? c->n_nodes : c->links->first[last + 1];
    for (int e = lo; e < hi; e++) {
        const int t = dense ? e : c->links->to[e];
        const double hop = last < 0 ? c->source[t] : dense ? px_hop_row(c, last, l)[t] : c->links->sec[e];
        const size_t j = ng_cell(x, l, t);
        if (t == last || hop + x->start0[j] >= least) continue;
        if (last >= 0) ng_map_bits(x, ng_cell(x, l, last), j, map);
        const double v = hop + x->start[x->at[j] + (last < 0 ? 0 : ng_carry(mask, map))];
        if (v < least) {
            least = v;
            to = t;
        }
    }
    return to;
}

/* The visit that a cheapest way makes at s; *mask: spent before, then after. */
static px_visit next_visit(const px_ng *x, int l, int s, unsigned *mask) {
    const size_t k = ng_cell(x, l, s);
    unsigned map[PX_NG_MEMORY], after = 0;
    double least = INFINITY;
    px_visit v = {s, l, 1, true};
    for (int n = 1; n <= ng_reach(x, l, s); n++) {
        const size_t j = ng_cell(x, l + n, s);
        if (!x->ends[j]) continue;
        ng_map_bits(x, k, j, map);
        const unsigned to = ng_carry(*mask, map), spent = ng_bit_of(x, j, s);
        const double *rest = x->rest + x->at[j];
        const double a = ng_small(x, s, l, n) + rest[to], b = *mask & ng_bit_of(x, k, s) ? INFINITY : ng_large(x, s, l, n) + rest[to | spent];
        if (!(fmin(a, b) < least)) continue;
        least = fmin(a, b);
        v.n = n;
        v.small = a <= b;
        after = v.small ? to : to | spent;
    }
    *mask = after;
    return v;
}

static bool add_levels(px_ng *x, const px_visit *v, double *damage) {
    const px_core *c = x->c;
    int layers[1024];
    for (int i = 0; i < v->n; i++) layers[i] = v->first + i;
    const px_group g = {v->node, v->n, layers};
    const double room = dil__px_room(c, v->node, layers, 0, v->n);
    if (!dil__px_group_levels(c, &x->w, &g, v->small ? fmin(c->store[v->node] / 2, room) : room, 4 * x->w.n_units, x->level) &&
        !dil__px_group_levels(c, &x->w, &g, room, 4 * x->w.n_units, x->level)) return false;
    for (int i = 0; i < v->n; i++) {
        *damage += px_damage(c, layers[i], x->level[i]);
        x->used[v->node] += px_bytes_on(c, v->node, layers[i], x->level[i]);
    }
    return true;
}

double dil__px_ng_way(px_ng *x) {
    assert(!x->stale);
    double damage = 0;
    unsigned mask = 0, map[PX_NG_MEMORY];
    memset(x->used, 0, (size_t)x->c->n_nodes * sizeof *x->used);
    x->n_visits = 0;
    for (int l = 0, last = -1; l < x->c->n_layers;) {
        const int to = next_node(x, l, last, mask);
        if (to < 0) return INFINITY;
        if (last >= 0) {
            ng_map_bits(x, ng_cell(x, l, last), ng_cell(x, l, to), map);
            mask = ng_carry(mask, map);
        }
        const px_visit v = next_visit(x, l, to, &mask);
        if (!add_levels(x, &v, &damage)) return INFINITY;
        x->visit[x->n_visits++] = v;
        l += v.n;
        last = to;
    }
    return damage;
}

/* --- life --- */

void dil__px_ng_revive(px_ng *x) {
    const px_core *c = x->c;
    px_graph g;
    if (!dil__px_graph_init(c, &g)) return; /* what was dropped stays so */
    memcpy(x->g.run_max, g.run_max, (size_t)c->n_nodes * (size_t)c->n_layers * sizeof *g.run_max);
    for (size_t k = 0; k < (size_t)(c->n_layers + 1) * (size_t)c->n_nodes; k++) x->ends[k] = true;
    x->n_cells = (size_t)c->n_layers * (size_t)c->n_nodes;
    dil__px_graph_fini(&g);
}

bool dil__px_ng_init(px_ng *x, const px_core *c, int n_threads) {
    const size_t L = (size_t)c->n_layers, S = (size_t)c->n_nodes;
    *x = (px_ng){.c = c, .n_threads = n_threads};
    if (!dil__px_graph_init(c, &x->g)) return false;
    const size_t visits = S * L * (size_t)x->g.run_cap;
    x->w.n_units = 192;
    x->w.small = dil__px_alloc(visits, sizeof(double));
    x->w.large = dil__px_alloc(visits, sizeof(double));
    x->memory = dil__px_alloc(L * S, PX_NG_MEMORY * sizeof *x->memory);
    x->n_memory = dil__px_alloc((L + 1) * S, 1);
    x->ends = dil__px_alloc((L + 1) * S, sizeof *x->ends);
    x->at = dil__px_alloc((L + 1) * S + 1, sizeof *x->at);
    x->start0 = dil__px_alloc(L * S, sizeof *x->start0);
    x->from0 = dil__px_alloc(L * S, sizeof *x->from0);
    x->visit = dil__px_alloc(L, sizeof *x->visit);
    x->used = dil__px_alloc(S, sizeof *x->used);
    x->level = dil__px_alloc(L, sizeof *x->level);
    if (!x->w.small || !x->w.large || !x->memory || !x->n_memory || !x->ends || !x->at || !x->start0 || !x->from0 || !x->visit ||
        !x->used || !x->level) return false;
    memset(x->ends, true, (L + 1) * S * sizeof *x->ends);
    x->n_cells = L * S;
    return true;
}

void dil__px_ng_fini(px_ng *x) {
    dil__px_weight_fini(&x->w);
    dil__px_graph_fini(&x->g);
    free(x->memory);
    free(x->n_memory);
    free(x->ends);
    free(x->at);
    free(x->start);
    free(x->rest);
    free(x->from);
    free(x->after);
    free(x->start0);
    free(x->from0);
    free(x->visit);
    free(x->used);
    free(x->level);
    *x = (px_ng){0};
}
