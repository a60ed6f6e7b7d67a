/* plan/path_local.c - first plans of measured problems: local search over structures.
 *
 * A structure is judged by its Lagrangian bound, which most bad ones pass after a step or two at the prices of the last good one. A
 * move gives an interval of layers that ends at a cut another node: that shifts cuts, removes, adds and exchanges stages. Where no
 * move helps the levels are chosen exactly. Whole plans as states were rejected: every move would need its levels repaired first. */
#include "plan/path_fit.h"

#include <stdlib.h>
#include <string.h>

typedef struct local {
    px_fit *f;
    px_plan *best;
    double gap;
    int64_t deadline_ns;
    int *node, *try, *start; /* [L] */
    int *order;              /* [S] */
    double value;
    px_map *met;
} local;

static double bound_of(local *k, const int *node, int rounds, double enough) {
    if (!dil__fit_structure(k->f, node)) return INFINITY;
    const double upper = enough < INFINITY ? enough * 1.02 : k->best->found ? k->best->sec : INFINITY;
    return dil__fit_bound(k->f, &k->f->warm, rounds, upper, enough);
}

/* The layers [from, to) on s. true: the structure is better and taken. */
static bool try_move(local *k, int from, int to, int s) {
    const int L = k->f->c->n_layers;
    bool same = true;
    memcpy(k->try, k->node, (size_t)L * sizeof *k->try);
    for (int l = from; l < to; l++) {
        same = same && k->try[l] == s;
        k->try[l] = s;
    }
    if (same) return false;
    const double enough = k->value * (1 - 1e-4);
    if (bound_of(k, k->try, 30, enough) >= enough) return false;
    const double v = bound_of(k, k->try, 150, enough);
    if (v >= enough) return false;
    k->value = v;
    memcpy(k->node, k->try, (size_t)L * sizeof *k->node);
    return true;
}

static bool improve(local *k) {
    const int L = k->f->c->n_layers, S = k->f->c->n_nodes;
    for (int cut = 0; cut <= L; cut++) {
        if (cut > 0 && cut < L && k->node[cut] == k->node[cut - 1]) continue;
        for (int n = 1; n <= L; n++)
            for (int side = 0; side < 2; side++) {
                const int from = side ? cut - n : cut, to = side ? cut : cut + n;
                if (from < 0 || to > L) continue;
                if (dil_now_ns() > k->deadline_ns) return false;
                const int before = from > 0 ? k->node[from - 1] : -1, after = to < L ? k->node[to] : -1;
                for (int s = 0; s < S; s++) /* neighbours are what shifts a cut; others only for whole stages and single layers */
                    if (s == before || s == after || n == 1 || to == L || from == 0 || (before >= 0 && k->node[from] != before && k->node[to - 1] != after))
                        if (try_move(k, from, to, s)) return true;
            }
    }
    return false;
}

static bool seen(local *k, const int *node) {
    px_key key = {3, 3};
    bool is_new = true;
    for (int l = 0; l < k->f->c->n_layers; l++) dil__px_key_add(&key, (uint64_t)node[l]);
    return !dil__px_map_at(k->met, key, &is_new) || !is_new;
}

static void descend_from(local *k, const int *node) {
    const int L = k->f->c->n_layers;
    memcpy(k->node, node, (size_t)L * sizeof *k->node);
    dil__fit_rewind(k->f);
    k->value = bound_of(k, k->node, 200, INFINITY);
    if (!(k->value < INFINITY) || seen(k, node)) return;
    while (improve(k)) continue;
    if (seen(k, k->node)) return;
    double lost = INFINITY;
    const double upper = k->best->found ? k->best->sec * (1 - k->gap) : INFINITY;
    if (k->value < upper) dil__fit_settle(k->f, k->node, upper, k->deadline_ns, k->best, &lost);
}

/* Cuts that give every node of the order layers in proportion to its room. */
static void cut_in_proportion(const px_core *c, const int *order, int n, int *node) {
    double total = 0, bytes = 0;
    for (int i = 0; i < n; i++) total += fmax(0, c->store[order[i]]);
    for (int pass = 0; pass < 2; pass++) {
        double room = fmax(0, c->store[order[0]]), filled = 0;
        for (int l = 0, i = 0; l < c->n_layers; l++) {
            double least = INFINITY;
            for (int q = 0; q < c->n_levels; q++) least = fmin(least, px_bytes(c, l, q));
            if (pass) {
                while (i + 1 < n && filled + least / 2 > bytes * room / total) room += fmax(0, c->store[order[++i]]);
                node[l] = order[i];
            }
            filled += least;
        }
        bytes = filled;
    }
}

/* From node s always to the nearest one that is left. -> how many can be reached. */
static int nearest_order(const px_core *c, int s, int *order) {
    int n = 0;
    for (order[n++] = s; n < c->n_nodes; n++) {
        double least = INFINITY;
        int next = -1;
        for (int t = 0; t < c->n_nodes; t++) {
            bool used = c->store[t] <= 0;
            for (int i = 0; i < n && !used; i++) used = order[i] == t;
            const double hop = px_hop(c, order[n - 1], t);
            if (used || !(hop < least)) continue;
            least = hop;
            next = t;
        }
        if (next < 0) break;
        order[n] = next;
    }
    return n;
}

int dil__px_proportional(const px_core *c, int s, int n, int *order, int *node) {
    const int most = nearest_order(c, s, order);
    cut_in_proportion(c, order, n < most ? n : most, node);
    return most;
}

static bool local_init(local *k) {
    const size_t L = (size_t)k->f->c->n_layers;
    k->node = dil__px_alloc(3 * L, sizeof *k->node);
    k->order = dil__px_alloc((size_t)k->f->c->n_nodes, sizeof *k->order);
    k->met = dil__px_map_new();
    if (!k->node || !k->order || !k->met) return false;
    k->try = k->node + L;
    k->start = k->try + L;
    return true;
}

bool dil__px_local_search(const px_core *c, px_plan *best, const int *hint, double gap, int64_t deadline_ns) {
    local k = {.f = c->real->fit, .best = best, .gap = gap, .deadline_ns = deadline_ns};
    const int L = c->n_layers, S = c->n_nodes;
    const bool ok = local_init(&k);
    if (ok && best->found) {
        memcpy(k.start, best->node, (size_t)L * sizeof *k.start);
        descend_from(&k, k.start);
    }
    if (ok && hint) descend_from(&k, hint);
    for (int s = 0; ok && s < S && s < 12; s++) {
        if (!(c->source[s] < INFINITY)) continue;
        const int most = dil__px_proportional(c, s, S, k.order, k.start);
        for (int n = most; n >= 1 && n >= most - 2; n--) {
            dil__px_proportional(c, s, n, k.order, k.start);
            descend_from(&k, k.start);
            if (n > 1) { /* the head back to where a tied table is */
                dil__px_proportional(c, s, n, k.order, k.start);
                k.start[L - 1] = k.start[0];
                descend_from(&k, k.start);
            }
        }
    }
    dil__px_map_free(k.met);
    free(k.node);
    free(k.order);
    return ok;
}
