/* plan/path_rest.c - the cheapest completion of a plan, at one weight.
 *
 * rest[l][s][U]: layers before l are placed, the last of them on s; U holds the nodes whose one large visit is spent. From behind,
 *     start[s][U] = min over n of  small(s, l, n) + rest[l+n][s][U]
 *                                  large(s, l, n) + rest[l+n][s][U + s]      only when s is not in U
 *     rest[l][s][U] = min over s' != s of hop[s][s'] + start[s'][U]
 * with masks innermost, so that every pass runs along memory. Small visits are not limited: the relaxation. Nodes beyond the bits
 * may have any number of large visits.
 *
 * With few nodes (or some more, where a search without it takes long) U also says which nodes were visited at all, and a way whose nodes together cannot hold any plan has no end. Without that a
 * node that has to be used but is far is paid for in part: the prices mix ways that put much there with ways that put nothing. */
#include "plan/path_int.h"

#include <stdlib.h>
#include <string.h>

PX_HOT static void lower(double *restrict to, const double *restrict from, double add, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const double v = from[i] + add;
        to[i] = v < to[i] ? v : to[i];
    }
}

/* What a node that is visited has for layers: without the buffer of the smallest that it can hold, or of an end that is known to be there. */
static double cover_room(const px_core *c, int s) {
    const int last = c->n_layers - 1;
    const bool inner = c->has_ends && s != c->first_node && s != c->last_node && last > 1;
    double extra = INFINITY, end = 0;
    for (int l = inner ? 1 : 0; c->extra && l <= (inner ? last - 1 : last); l++) extra = fmin(extra, c->extra[l]);
    if (c->extra && c->has_ends && s == c->first_node) end = c->extra[0];
    if (c->extra && c->has_ends && s == c->last_node) end = fmax(end, c->extra[last]);
    return fmax(0, c->store[s] - (c->extra ? fmax(extra, end) : 0));
}

/* The sets of nodes whose stores together hold the layers within the damage budget: one knapsack of all layers in bytes, rounded down.
 * false: all sets that have room at all do, or no memory. */
static bool find_cover(const px_core *c, px_graph *g) {
    enum { UNITS = 4096 };
    const int L = c->n_layers, S = c->n_nodes, Q = c->n_levels;
    double all = 0, cost[256], *v = dil__px_alloc(2 * (UNITS + 1), sizeof *v);
    int units[256];
    bool any = false;
    for (int s = 0; s < S; s++) all += cover_room(c, s);
    const double unit = all * (1 + 1e-9) / UNITS;
    g->enough = dil__px_alloc((size_t)1 << S, sizeof *g->enough);
    if (!v || !g->enough || Q > 256 || !(unit > 0)) {
        free(v);
        return false;
    }
    double *in = v, *out = v + UNITS + 1;
    for (int l = 0; l < L; l++) {
        for (int q = 0; q < Q; q++) {
            double b = px_bytes(c, l, q);
            if (l == L - 1 && c->home_bytes) b = fmin(b, c->home_bytes[q]);
            units[q] = b <= all * (1 + 1e-9) ? (int)(b * (1 - 1e-9) / unit) : UNITS + 1;
            cost[q] = px_damage(c, l, q);
        }
        dil__px_knap_step(in, out, UNITS, units, cost, Q);
        double *t = in;
        in = out;
        out = t;
    }
    for (unsigned set = 1; set < 1u << S; set++) {
        double room = 0;
        for (int s = 0; s < S; s++) room += set >> s & 1 ? cover_room(c, s) : 0;
        const int u = (int)fmin(UNITS, room * (1 + 1e-9) / unit);
        g->enough[set] = in[u] <= c->damage_max * (1 + 1e-9) + 1e-12 * fabs(c->damage_max);
        any = any || !g->enough[set];
    }
    free(v);
    return any;
}

bool dil__px_graph_cover(const px_core *c, px_graph *g, bool on) {
    free(g->enough);
    g->enough = NULL;
    g->n_bits = c->n_nodes < PX_MASK_MAX ? c->n_nodes : PX_MASK_MAX;
    g->cover = on && c->n_nodes > 1 && find_cover(c, g);
    if (g->cover) g->n_bits *= 2;
    return g->cover;
}

bool dil__px_graph_init(const px_core *c, px_graph *g) {
    const int L = c->n_layers, S = c->n_nodes;
    *g = (px_graph){0};
    g->run_max = dil__px_alloc((size_t)S * (size_t)L, sizeof *g->run_max);
    g->bit = dil__px_alloc((size_t)S, sizeof *g->bit);
    double *least = dil__px_alloc((size_t)L, sizeof *least);
    if (!g->run_max || !g->bit || !least) {
        free(least);
        dil__px_graph_fini(g);
        return false;
    }
    for (int l = 0; l < L; l++) {
        least[l] = INFINITY;
        for (int q = 0; q < c->n_levels; q++) least[l] = fmin(least[l], px_bytes(c, l, q));
    }
    const double last = least[L - 1];
    for (int s = 0; s < S; s++) {
        g->bit[s] = s < PX_MASK_MAX ? s : -1;
        least[L - 1] = last;
        for (int q = 0; q < c->n_levels; q++) least[L - 1] = fmin(least[L - 1], px_bytes_on(c, s, L - 1, q));
        for (int l = 0; l < L; l++) {
            double sum = 0;
            int n = 0;
            for (; l + n < L; n++) {
                sum += least[l + n];
                if (sum > dil__px_room(c, s, NULL, l, n + 1) + 1e-12 * fabs(c->store[s])) break;
            }
            g->run_max[s * L + l] = n;
            if (n > g->run_cap) g->run_cap = n;
        }
    }
    if (g->run_cap == 0) g->run_cap = 1;
    dil__px_graph_cover(c, g, S <= PX_COVER_MAX);
    free(least);
    return true;
}

void dil__px_graph_fini(px_graph *g) {
    free(g->run_max);
    free(g->bit);
    free(g->enough);
    *g = (px_graph){0};
}

static void lower_covered(const px_graph *g, double *to, const double *rest, int s, double small, double large) {
    const size_t M = (size_t)1 << g->n_bits, run = px_mask_of(g, s), been = px_mask_after(g, 0, s, true);
    for (size_t u = 0; u < M; u += run) { /* the bits below the large visit's run along memory */
        if (small < INFINITY) lower(to + u, rest + (u | been), small, run);
        if (large < INFINITY && !(u & run)) lower(to + u, rest + (u | been | run), large, run);
    }
}

static void start_costs(const px_core *c, const px_graph *g, const px_weight *w, int l, double *start) {
    const size_t M = (size_t)1 << g->n_bits;
    for (int s = 0; s < c->n_nodes; s++) {
        double *to = start + (size_t)s * M;
        for (size_t u = 0; u < M; u++) to[u] = INFINITY;
        const int n_max = g->run_max[s * c->n_layers + l];
        for (int n = 1; n <= n_max; n++) {
            const size_t at = px_visit_at(c, g, s, l, n);
            const double *rest = w->rest + px_rest_at(c, g, l + n, s, 0);
            const size_t b = px_mask_of(g, s);
            if (g->cover) {
                lower_covered(g, to, rest, s, w->small[at], w->large[at]);
                continue;
            }
            if (w->small[at] < INFINITY) lower(to, rest, w->small[at], M);
            if (!(w->large[at] < INFINITY)) continue;
            if (!b) lower(to, rest, w->large[at], M);
            for (size_t u = 0; b && u < M; u += 2 * b) lower(to + u, rest + u + b, w->large[at], b);
        }
    }
}

static void fill_rest(const px_core *c, const px_graph *g, px_weight *w, double *start) {
    const size_t M = (size_t)1 << g->n_bits;
    const int L = c->n_layers, S = c->n_nodes;
    for (int s = 0; s < S; s++) {
        double *to = w->rest + px_rest_at(c, g, L, s, 0);
        for (size_t u = 0; u < M; u++) to[u] = !g->cover || g->enough[u >> c->n_nodes] ? w->sec * c->sink[s] : INFINITY;
    }
    for (int l = L - 1; l >= 0; l--) {
        start_costs(c, g, w, l, start);
        if (l == 0) break;
        for (int s = 0; s < S; s++) {
            double *to = w->rest + px_rest_at(c, g, l, s, 0);
            for (size_t u = 0; u < M; u++) to[u] = INFINITY;
            for (int t = 0; t < S; t++)
                if (t != s && px_hop_into(c, s, t, l) < INFINITY) lower(to, start + (size_t)t * M, w->sec * px_hop_into(c, s, t, l), M);
        }
    }
    w->root = INFINITY;
    for (int s = 0; s < S; s++)
        if (c->source[s] < INFINITY) w->root = fmin(w->root, w->sec * c->source[s] + start[(size_t)s * M]);
}

bool dil__px_weight_init(const px_core *c, const px_graph *g, px_weight *w, double sec, double damage, const double *price,
                          int n_units) {
    const size_t M = (size_t)1 << g->n_bits;
    const size_t visits = (size_t)c->n_nodes * (size_t)c->n_layers * (size_t)g->run_cap;
    if (!w->small) {
        w->small = dil__px_alloc(visits, sizeof *w->small);
        w->large = dil__px_alloc(visits, sizeof *w->large);
        w->rest = dil__px_alloc((size_t)(c->n_layers + 1) * (size_t)c->n_nodes, M * sizeof *w->rest);
    }
    w->sec = sec;
    w->damage = damage;
    w->price = price;
    w->credit = 0;
    for (int s = 0; price && s < c->n_nodes; s++) w->credit += price[s] * c->store[s];
    w->n_units = n_units;
    double *start = dil__px_alloc((size_t)c->n_nodes, M * sizeof *start);
    const bool ok = w->small && w->large && w->rest && start && dil__px_visit_table(c, w, g->run_max, g->run_cap);
    if (ok) fill_rest(c, g, w, start);
    free(start);
    if (!ok) dil__px_weight_fini(w);
    return ok;
}

void dil__px_weight_fini(px_weight *w) {
    free(w->small);
    free(w->large);
    free(w->rest);
    *w = (px_weight){0};
}

/* The cheapest visit that starts at layer l on s, with large visits of U spent. */
static double best_visit(const px_core *c, const px_graph *g, const px_weight *w, int l, int s, unsigned mask, px_visit *v) {
    double least = INFINITY;
    for (int n = 1; n <= g->run_max[s * c->n_layers + l]; n++) {
        const size_t at = px_visit_at(c, g, s, l, n);
        const unsigned b = px_mask_of(g, s);
        const double small = w->small[at] + w->rest[px_rest_at(c, g, l + n, s, px_mask_after(g, mask, s, true))];
        if (small < least) {
            least = small;
            *v = (px_visit){s, l, n, true};
        }
        if (mask & b) continue;
        const double large = w->large[at] + w->rest[px_rest_at(c, g, l + n, s, px_mask_after(g, mask, s, false))];
        if (large < least) {
            least = large;
            *v = (px_visit){s, l, n, false};
        }
    }
    return least;
}

double dil__px_root_from(const px_core *c, const px_graph *g, const px_weight *w, int s) {
    px_visit v;
    return c->source[s] < INFINITY ? w->sec * c->source[s] + best_visit(c, g, w, 0, s, 0, &v) : INFINITY;
}

int dil__px_relaxed(const px_core *c, const px_graph *g, const px_weight *w, px_visit *visit) {
    int n = 0, last = -1;
    unsigned mask = 0;
    for (int l = 0; l < c->n_layers;) {
        double least = INFINITY;
        px_visit v = {0}, best = {0};
        for (int s = 0; s < c->n_nodes; s++) {
            const double hop = last < 0 ? c->source[s] : s == last ? INFINITY : px_hop_into(c, last, s, l);
            if (!(hop < INFINITY)) continue;
            const double x = w->sec * hop + best_visit(c, g, w, l, s, mask, &v);
            if (x < least) {
                least = x;
                best = v;
            }
        }
        if (!(least < INFINITY)) return 0;
        visit[n++] = best;
        mask = px_mask_after(g, mask, best.node, best.small);
        last = best.node;
        l += best.n;
    }
    return n;
}
