/* plan/path_knap.c - byte knapsacks of the solver `path`.
 *
 * The store of a node is counted in n_units units and every item is rounded down, so a table never charges more than the truth:
 * what it gives is a lower bound, whatever the bytes are. The table is dense because its
 * step vectorises; lists of Pareto points would be exact, but merging them would not. */
#include "plan/path_int.h"

#include <stdlib.h>
#include <string.h>

void *dil__px_alloc(size_t n, size_t size) {
    size_t bytes;
    if (!dil_mul_size(n ? n : 1, size, &bytes)) return NULL;
    return calloc(1, bytes);
}

/* In blocks, so that what is read and written stays in the nearest cache. */
PX_HOT void dil__px_knap_step(const double *restrict in, double *restrict out, int n_units, const int *units, const double *cost,
                              int n_levels) {
    enum { BLOCK = 256 };
    for (int from = 0; from <= n_units; from += BLOCK) {
        const int to = from + BLOCK <= n_units + 1 ? from + BLOCK : n_units + 1;
        for (int u = from; u < to; u++) out[u] = INFINITY;
        for (int q = 0; q < n_levels; q++) {
            const int first = units[q] > from ? units[q] : from, shift = units[q];
            const double add = cost[q];
            for (int u = first; u < to; u++) {
                const double v = in[u - shift] + add;
                out[u] = v < out[u] ? v : out[u];
            }
        }
    }
}

/* The store is taken a billionth larger, so that no rounding of the division can make an item larger than it is. */
static double unit_bytes(const px_core *c, int node, int n_units) { return c->store[node] * (1 + 1e-9) / n_units; }

void dil__px_units(const px_core *c, int node, int layer, int n_units, int *units) {
    const double unit = unit_bytes(c, node, n_units);
    for (int q = 0; q < c->n_levels; q++) {
        const double b = px_bytes_on(c, node, layer, q);
        if (b > c->store[node]) units[q] = n_units + 1;
        else units[q] = unit > 0 ? (int)(b / unit) : 0;
    }
}

static void item(const px_core *c, const px_weight *w, int node, int layer, int *units, double *cost) {
    dil__px_units(c, node, layer, w->n_units, units);
    for (int q = 0; q < c->n_levels; q++) cost[q] = px_cost(c, w, node, layer, q);
}

/* Part of a unit that rounding down loses on the levels of one layer. */
static double rounding_loss(const px_core *c, int layer, double store, double unit) {
    double loss = 0;
    for (int q = 0; q < c->n_levels; q++) {
        const double b = px_bytes(c, layer, q);
        if (b > 0 && b <= store) loss += b / unit - floor(b / unit);
    }
    return loss;
}

/* A unit that divides the levels of the middle layer well, with at most n_units of them to the store: most models have many
 * layers of one size, and what rounding down loses on each is what the bound loses. -> their number. */
static int fit_unit(const px_core *c, int node, int n_units, double *unit) {
    const int layer = c->n_layers / 2;
    const double store = c->store[node] * (1 + 1e-9);
    double best = INFINITY;
    *unit = store / n_units;
    for (int q = 0; q < c->n_levels; q++) {
        const double b = px_bytes(c, layer, q);
        if (!(b > 0 && b <= store)) continue;
        const int most = (int)(b / store * n_units);
        for (int j = most; j > 0 && j >= most * 3 / 4; j--) {
            const double u = b / j * (1 - 1e-12), loss = rounding_loss(c, layer, store, u) * u;
            if (u >= store / n_units && loss < best) {
                best = loss;
                *unit = u;
            }
        }
    }
    const int n = *unit > 0 ? (int)(store / *unit) : n_units;
    return n < n_units ? n : n_units;
}

static void visit_item(const px_core *c, const px_weight *w, int node, int l, double unit, int K, int *units, double *cost) {
    for (int q = 0; q < c->n_levels; q++) {
        const double b = px_bytes_on(c, node, l, q);
        units[q] = b > c->store[node] ? K + 1 : unit > 0 ? (int)(b / unit) : 0;
        cost[q] = px_cost(c, w, node, l, q);
    }
}

/* Bytes that some of a node's layers can take: without the largest buffer that is needed there, and without the first and last layer
 * where those are on the node but not among them. layer: which, [n], or NULL: the n from `first` on. */
double dil__px_room(const px_core *c, int s, const int *layer, int first, int n) {
    double extra = 0, room = c->store[s];
    bool has_first = !c->has_ends || s != c->first_node, has_last = !c->has_ends || s != c->last_node;
    if (!has_first && c->extra) extra = c->extra[0];
    if (!has_last && c->extra) extra = fmax(extra, c->extra[c->n_layers - 1]);
    for (int i = 0; i < n; i++) {
        const int l = layer ? layer[i] : first + i;
        if (c->extra) extra = fmax(extra, c->extra[l]);
        has_first = has_first || l == 0;
        has_last = has_last || l == c->n_layers - 1;
    }
    if (!has_first) room -= c->first_bytes;
    if (!has_last) room -= c->last_bytes;
    return room - extra;
}

/* Units that fit into so many bytes; -1: not even an item of 0 bytes. */
static int room_units(double bytes, double unit, int most) {
    if (bytes < 0) return -1;
    const double u = unit > 0 ? bytes * (1 + 1e-9) / unit : most;
    return u < most ? (int)u : most;
}

bool dil__px_visits_of_node(const px_core *c, px_weight *w, int node, const int *run_max, int run_cap) {
    double unit;
    const int K = fit_unit(c, node, w->n_units, &unit), Q = c->n_levels, L = c->n_layers;
    const size_t items = (size_t)L * (size_t)Q;
    double *scratch = malloc((2 * ((size_t)K + 1) + 2 * items) * sizeof *scratch);
    if (!scratch) return false;
    double *cost = scratch + 2 * (K + 1);
    int *units = (int *)(cost + items); /* [L][Q] */
    for (int l = 0; l < L; l++) visit_item(c, w, node, l, unit, K, units + l * Q, cost + l * Q);
    for (int l = 0; l < L; l++) {
        const size_t at = ((size_t)node * (size_t)L + (size_t)l) * (size_t)run_cap;
        double *v = scratch, *next = scratch + K + 1;
        memset(v, 0, (size_t)(K + 1) * sizeof *v);
        const int n_max = run_max[node * L + l];
        for (int n = 0; n < n_max; n++) {
            const int room = room_units(dil__px_room(c, node, NULL, l, n + 1), unit, K);
            dil__px_knap_step(v, next, K, units + (l + n) * Q, cost + (l + n) * Q, Q);
            if (w->small) w->small[at + (size_t)n] = room < 0 ? INFINITY : next[room < K / 2 ? room : K / 2];
            w->large[at + (size_t)n] = room < 0 ? INFINITY : next[room];
            double *t = v;
            v = next;
            next = t;
        }
        for (int n = n_max; n < run_cap; n++) {
            if (w->small) w->small[at + (size_t)n] = INFINITY;
            w->large[at + (size_t)n] = INFINITY;
        }
    }
    free(scratch);
    return true;
}

bool dil__px_visit_table(const px_core *c, px_weight *w, const int *run_max, int run_cap) {
    for (int s = 0; s < c->n_nodes; s++)
        if (!dil__px_visits_of_node(c, w, s, run_max, run_cap)) return false;
    return true;
}

double dil__px_group_cost(const px_core *c, const px_weight *w, const px_group *g, double *scratch) {
    double *v = scratch, *next = scratch + w->n_units + 1;
    double cost[256];
    int units[256];
    memset(v, 0, (size_t)(w->n_units + 1) * sizeof *v);
    for (int i = 0; i < g->n; i++) {
        item(c, w, g->node, g->layer[i], units, cost);
        dil__px_knap_step(v, next, w->n_units, units, cost, c->n_levels);
        double *t = v;
        v = next;
        next = t;
    }
    const int room = room_units(dil__px_room(c, g->node, g->layer, 0, g->n), unit_bytes(c, g->node, w->n_units), w->n_units);
    return room < 0 ? INFINITY : v[room];
}

bool dil__px_visit_levels(const px_core *c, const px_weight *w, const px_visit *v, int *level) {
    double unit;
    const int K = fit_unit(c, v->node, w->n_units, &unit), Q = c->n_levels;
    const size_t row = (size_t)K + 1;
    double *table = dil__px_alloc(((size_t)v->n + 1) * row, sizeof *table), cost[256];
    int units[256];
    if (!table) return false;
    for (int i = 0; i < v->n; i++) {
        const int l = v->first + i;
        visit_item(c, w, v->node, l, unit, K, units, cost);
        dil__px_knap_step(table + (size_t)i * row, table + (size_t)(i + 1) * row, K, units, cost, Q);
    }
    int u = room_units(dil__px_room(c, v->node, NULL, v->first, v->n), unit, K);
    if (v->small && u > K / 2) u = K / 2;
    const bool ok = u >= 0 && table[(size_t)v->n * row + (size_t)u] < INFINITY;
    for (int i = v->n - 1; ok && i >= 0; i--) {
        double least = INFINITY;
        visit_item(c, w, v->node, v->first + i, unit, K, units, cost);
        for (int q = 0; q < Q; q++) {
            if (units[q] > u || !(table[(size_t)i * row + (size_t)(u - units[q])] + cost[q] < least)) continue;
            least = table[(size_t)i * row + (size_t)(u - units[q])] + cost[q];
            level[i] = q;
        }
        u -= units[level[i]];
    }
    free(table);
    return ok;
}

/* Rounded up, so that what fits in units fits in bytes; a hair below the unit above counts as that unit. */
static void units_above(const px_core *c, int node, int layer, double store, int n_units, int *units) {
    const double unit = store / n_units;
    for (int q = 0; q < c->n_levels; q++) {
        const double b = px_bytes_on(c, node, layer, q);
        units[q] = b > store ? n_units + 1 : b > 0 ? (int)ceil(b / unit - 1e-9) : 0;
    }
}

/* The rows of the table are kept instead of the choices: the step that fills them runs in vector registers, and the way back
 * looks for the level that explains each value. */
bool dil__px_group_levels(const px_core *c, const px_weight *w, const px_group *g, double store, int n_units, int *level) {
    const size_t row = (size_t)n_units + 1;
    double *v = dil__px_alloc(((size_t)g->n + 1) * row, sizeof *v), cost[256];
    int units[256];
    if (!v) return false;
    for (int i = 0; i < g->n; i++) {
        units_above(c, g->node, g->layer[i], store, n_units, units);
        for (int q = 0; q < c->n_levels; q++) cost[q] = px_cost(c, w, g->node, g->layer[i], q);
        dil__px_knap_step(v + (size_t)i * row, v + (size_t)(i + 1) * row, n_units, units, cost, c->n_levels);
    }
    const bool ok = v[(size_t)g->n * row + row - 1] < INFINITY;
    for (int i = g->n - 1, u = n_units; ok && i >= 0; i--) {
        const double *in = v + (size_t)i * row;
        double least = INFINITY;
        units_above(c, g->node, g->layer[i], store, n_units, units);
        for (int q = 0; q < c->n_levels; q++) {
            if (units[q] > u) continue;
            const double x = in[u - units[q]] + px_cost(c, w, g->node, g->layer[i], q);
            if (x < least) {
                least = x;
                level[i] = q;
            }
        }
        u -= units[level[i]];
    }
    free(v);
    return ok;
}
