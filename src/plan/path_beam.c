/* plan/path_beam.c - structures by a beam over the ways of the relaxation, led by its completions and prices.
 *
 * A label is a way that repeats no node; its guess is its cost and the cheapest completion of the relaxation with what it has spent, so
 * labels above the limit can go. Of every layer the best labels are extended, few of one node. At the end the cheapest structures get levels. */
#include "plan/path_ng.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { SAME = 6 };

typedef struct label {
    double cost, guess;
    uint64_t set; /* sum of the nodes' hashes */
    unsigned mask;
    int node, first, parent;
} label;

typedef struct bucket { int *v, n, cap; double cut; } bucket; /* cut: guesses that are not worth keeping */

typedef struct beam {
    px_ng *x;
    double limit;
    int room;
    label *pool;
    int n_pool, cap_pool;
    bucket *at; /* [L+1] */
    int *n_same; /* [S] */
} beam;

static uint64_t hash(int node) {
    px_key k = {3, 5};
    dil__px_key_add(&k, (uint64_t)node);
    return k.a;
}

static bool on_way(const beam *b, int i, int node) {
    for (; i >= 0; i = b->pool[i].parent)
        if (b->pool[i].node == node) return true;
    return false;
}

static int by_guess(const void *p, const void *q) {
    const label *a = *(const label *const *)p, *b = *(const label *const *)q;
    return a->guess != b->guess ? (a->guess < b->guess ? -1 : 1) : a->node - b->node;
}

/* The best labels of a bucket come first. -> their number; -1: no memory */
static int select_labels(beam *b, bucket *k, int room, int same_most) {
    const label **v = malloc(((size_t)k->n + 1) * sizeof *v);
    if (!v) return -1;
    for (int i = 0; i < k->n; i++) v[i] = &b->pool[k->v[i]];
    if (k->n > 1) qsort((void *)v, (size_t)k->n, sizeof *v, by_guess);
    int n = 0;
    for (int i = 0; i < k->n && n < room; i++) {
        bool same = false;
        if (b->n_same[v[i]->node] >= same_most) continue;
        for (int j = 0; j < n && !same; j++) same = v[j]->node == v[i]->node && v[j]->set == v[i]->set;
        if (same) continue;
        b->n_same[v[i]->node]++;
        v[n++] = v[i];
    }
    for (int i = 0; i < n; i++) b->n_same[v[i]->node] = 0;
    for (int i = 0; i < n; i++) k->v[i] = (int)(v[i] - b->pool);
    free((void *)v);
    return n;
}

static bool push(beam *b, int layer, label y) {
    bucket *k = &b->at[layer];
    if (y.guess >= k->cut) return true;
    if (k->n >= 8 * b->room + 4096 && layer < b->x->c->n_layers) {
        k->n = select_labels(b, k, b->room, SAME);
        if (k->n < 0) return false;
        if (k->n == b->room) k->cut = b->pool[k->v[k->n - 1]].guess;
    }
    if (k->n == k->cap) {
        const int cap = k->cap ? 2 * k->cap : 64;
        int *v = realloc(k->v, (size_t)cap * sizeof *v);
        if (!v) return false;
        k->v = v;
        k->cap = cap;
    }
    if (b->n_pool == b->cap_pool) {
        const int cap = b->cap_pool ? 2 * b->cap_pool : 4096;
        label *v = realloc(b->pool, (size_t)cap * sizeof *v);
        if (!v) return false;
        b->pool = v;
        b->cap_pool = cap;
    }
    b->pool[b->n_pool] = y;
    k->v[k->n++] = b->n_pool++;
    return true;
}

static bool extend(beam *b, int l, int i) {
    const px_ng *x = b->x;
    const px_core *c = x->c;
    const int s = i < 0 ? -1 : b->pool[i].node;
    const bool dense = s < 0 || c->hop;
    const int lo = dense ? 0 : c->links->first[s], hi = dense ? c->n_nodes : c->links->first[s + 1];
    for (int e = lo; e < hi; e++) {
        const int t = dense ? e : c->links->to[e];
        const double hop = s < 0 ? c->source[t] : dense ? px_hop_row(c, s, l)[t] : c->links->sec[e];
        const double so_far = (i < 0 ? 0 : b->pool[i].cost) + hop;
        if (!(so_far + x->start0[(size_t)l * (size_t)c->n_nodes + (size_t)t] <= b->limit) || on_way(b, i, t)) continue;
        const unsigned mask = i < 0 ? 0 : dil__px_ng_carry(x, l, s, b->pool[i].mask, l, t);
        const uint64_t set = (i < 0 ? 0 : b->pool[i].set) + hash(t);
        for (int n = 1; n <= x->g.run_max[t * c->n_layers + l]; n++) {
            const double cost = so_far + x->w.large[px_visit_at(c, &x->g, t, l, n)];
            const unsigned after = dil__px_ng_spend(x, l, t, mask, l + n);
            const double guess = cost + dil__px_ng_rest(x, l + n, t, after);
            if (guess <= b->limit && !push(b, l + n, (label){cost, guess, set, after, t, l, i})) return false;
        }
    }
    return true;
}

static bool round_label(const beam *b, int i, px_plan *best) {
    int node[1024], last = b->x->c->n_layers;
    double w = b->x->w.damage > 0 ? b->x->w.damage : 1e-6;
    for (; i >= 0; i = b->pool[i].parent) {
        for (int l = b->pool[i].first; l < last; l++) node[l] = b->pool[i].node;
        last = b->pool[i].first;
    }
    return dil__px_round_well(b->x->c, node, w, best);
}

static bool search(beam *b, int room, int n_round, px_plan *best) {
    const int L = b->x->c->n_layers;
    if (!extend(b, 0, -1)) return false;
    for (int l = 1; l < L; l++) {
        const int n = select_labels(b, &b->at[l], room, SAME);
        if (n < 0) return false;
        for (int i = 0; i < n; i++)
            if (!extend(b, l, b->at[l].v[i])) return false;
    }
    const int n = select_labels(b, &b->at[L], n_round, n_round);
    for (int i = 0; i < n; i++)
        if (!round_label(b, b->at[L].v[i], best)) return false;
    return n >= 0;
}

bool dil__px_ng_beam(px_ng *x, double limit, int room, int n_round, px_plan *best) {
    beam b = {.x = x, .limit = limit, .room = room};
    assert(!x->stale);
    b.at = dil__px_alloc((size_t)x->c->n_layers + 1, sizeof *b.at);
    b.n_same = dil__px_alloc((size_t)x->c->n_nodes, sizeof *b.n_same);
    for (int l = 0; b.at && l <= x->c->n_layers; l++) b.at[l].cut = INFINITY;
    const bool ok = b.at && b.n_same && search(&b, room, n_round, best);
    for (int l = 0; b.at && l <= x->c->n_layers; l++) free(b.at[l].v);
    free(b.at);
    free(b.n_same);
    free(b.pool);
    return ok;
}
