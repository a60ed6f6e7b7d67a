/* plan/path_busy.c - how little the busiest node can have to do: a bound for the goal of throughput.
 *
 * Links cost nothing in that goal, so what prices on the nodes' loads leave open is that layers are whole: on the demo's three machines a
 * layer more or less on one is 3 to 6 % of its load. Here every node takes the layers and levels that it likes best, any of them, within one
 * load u that is the same for all. A layer pays alpha to whoever takes it; damage, file and bytes are priced. For all alpha, and prices >= 0, no plan has a
 * busiest node with less than
 *     min over u of  u + Σ_s K_s(u)  +  Σ alpha - damage's price * budget - file's price * limit - Σ_s price_s * store_s
 * where K_s(u) is the knapsack of node s over all layers: the least of priced damage, file and bytes less alpha within the load u. One table says it
 * for all u. Loads are counted in units, rounded down, so that the knapsack only ever allows more; a node's unit divides the least load of its
 * layers. Links and the order of the layers are left out. The multipliers are climbed by the r-algorithm (path_climb.c).
 * The minimum over u mixes loads at which too few layers fit with loads at which too many do (2 % lost on 24 equal layers and 3 nodes). So it climbs again and again over the u
 * from the bound on that was found, up to the load T that matters; where all but the term u is above zero at T, it is so below T too, and nothing is better than T. */
#include "plan/path_real.h"

#include <stdlib.h>
#include <string.h>

enum { UNITS = 4096, CELLS_MAX = 1 << 24, CLIMBS = 6 };

typedef struct busy {
    const px_core *c;
    const double *load;      /* [L][S][Q] of the problem */
    int n, n_units;          /* multipliers: alpha [L], damage, file, bytes [S] */
    double upper, grain;     /* no plan with more matters; u goes up in so large steps */
    int from;                /* the first step that counts */
    bool closed;             /* nothing is better than upper */
    int64_t deadline_ns;
    double *unit;            /* [S] load of a unit */
    double *z, *grad, *scale; /* [n] seconds for the whole budget; what its budget is */
    double *table;           /* [S][L+1][n_units+1] */
    int *units;              /* [S][L][Q+1] the last one: left to others */
    double *cost;            /* [Q+1] */
    bool *over;              /* [S] does not even hold the least buffer */
} busy;

static int at_damage(const busy *b) { return b->c->n_layers; }
static int at_file(const busy *b) { return b->c->n_layers + 1; }
static int at_bytes(const busy *b, int s) { return b->c->n_layers + 2 + s; }

static double load_of(const busy *b, int l, int s, int q) {
    const px_core *c = b->c;
    return b->load[dil__cell(c->real->p, (uint32_t)l, (uint32_t)s, (uint32_t)q)];
}

static double *row_of(const busy *b, int s, int l) {
    return b->table + ((size_t)s * (size_t)(b->c->n_layers + 1) + (size_t)l) * (size_t)(b->n_units + 1);
}
static int *units_of(const busy *b, int s, int l) { return b->units + ((size_t)s * (size_t)b->c->n_layers + (size_t)l) * (size_t)(b->c->n_levels + 1); }

static bool may_hold(const px_core *c, int l, int s, int q) {
    const double bytes = px_bytes_on(c, s, l, q);
    if ((l == 0 && !(c->source[s] < INFINITY)) || (l == c->n_layers - 1 && !(c->sink[s] < INFINITY))) return false;
    return bytes < INFINITY && bytes <= c->store[s];
}

/* At least upper / n_units, and the least load of most layers is a multiple of it. */
static double fit_unit(const busy *b, int s) {
    const px_core *c = b->c;
    const int l = c->n_layers / 2;
    double least = INFINITY;
    for (int q = 0; q < c->n_levels; q++)
        if (may_hold(c, l, s, q)) least = fmin(least, load_of(b, l, s, q));
    const double n = floor(least / b->grain);
    return n >= 1 && n < b->n_units ? least / n : b->grain;
}

static void fill_units(busy *b) {
    const px_core *c = b->c;
    for (int s = 0; s < c->n_nodes; s++) {
        b->over[s] = c->store[s] < 0;
        b->unit[s] = fit_unit(b, s);
        for (int l = 0; l < c->n_layers; l++) {
            int *units = units_of(b, s, l);
            for (int q = 0; q < c->n_levels; q++) {
                const bool may = !b->over[s] && may_hold(c, l, s, q) && load_of(b, l, s, q) <= b->upper;
                units[q] = may ? (int)(load_of(b, l, s, q) * (1 + 1e-12) / b->unit[s]) : b->n_units + 1;
            }
            units[c->n_levels] = 0;
        }
    }
}

/* Priced cost of a layer's levels on a node, and of leaving it to others. */
static void fill_cost(busy *b, const double *z, int s, int l) {
    const px_core *c = b->c;
    const double damage = z[at_damage(b)] / b->scale[at_damage(b)], file = c->file_max < INFINITY ? z[at_file(b)] / b->scale[at_file(b)] : 0,
                 bytes = z[at_bytes(b, s)] / b->scale[at_bytes(b, s)];
    for (int q = 0; q < c->n_levels; q++) {
        b->cost[q] = units_of(b, s, l)[q] > b->n_units ? 0 : damage * px_damage(c, l, q) + bytes * px_bytes_on(c, s, l, q) - z[l];
        if (file > 0 && units_of(b, s, l)[q] <= b->n_units) b->cost[q] += file * c->file[l * c->n_levels + q];
    }
    b->cost[c->n_levels] = 0;
}

/* What node s takes within u units, added to the gradient. */
static void take(busy *b, const double *z, int s, int u) {
    const px_core *c = b->c;
    for (int l = c->n_layers - 1; l >= 0; l--) {
        const double *in = row_of(b, s, l);
        const int *units = units_of(b, s, l);
        double least = INFINITY;
        int best = c->n_levels;
        fill_cost(b, z, s, l);
        for (int q = 0; q <= c->n_levels; q++) {
            if (units[q] > u || !(in[u - units[q]] + b->cost[q] < least)) continue;
            least = in[u - units[q]] + b->cost[q];
            best = q;
        }
        u -= units[best];
        if (best == c->n_levels) continue;
        b->grad[l] -= 1;
        b->grad[at_damage(b)] += px_damage(c, l, best) / b->scale[at_damage(b)];
        if (c->file_max < INFINITY) b->grad[at_file(b)] += c->file[l * c->n_levels + best] / b->scale[at_file(b)];
        b->grad[at_bytes(b, s)] += px_bytes_on(c, s, l, best) / b->scale[at_bytes(b, s)];
    }
}

static double budget_of(const busy *b, int k) {
    const px_core *c = b->c;
    if (k == at_damage(b)) return c->damage_max;
    if (k == at_file(b)) return c->file_max < INFINITY ? c->file_max : 0;
    return fmax(0, c->store[k - at_bytes(b, 0)]);
}

/* Units of node s within a load below that of step u + 1. */
static int units_within(const busy *b, int s, int u) {
    const double n = (u + 1) * b->grain * (1 + 1e-9) / b->unit[s];
    return n < b->n_units ? (int)n : b->n_units;
}

/* The bound at b->z, its gradient in b->grad. */
static double bound_at(busy *b) {
    const px_core *c = b->c;
    const int S = c->n_nodes, L = c->n_layers;
    double fixed = 0, least = INFINITY;
    for (int l = 0; l < L; l++) {
        fixed += b->z[l];
        b->grad[l] = 1;
    }
    for (int k = L; k < b->n; k++) {
        const double share = budget_of(b, k) / b->scale[k];
        fixed -= b->z[k] * share * (1 + 1e-10);
        b->grad[k] = -share;
    }
    for (int s = 0; s < S; s++) {
        memset(row_of(b, s, 0), 0, (size_t)(b->n_units + 1) * sizeof(double));
        for (int l = 0; l < L; l++) {
            fill_cost(b, b->z, s, l);
            dil__px_knap_step(row_of(b, s, l), row_of(b, s, l + 1), b->n_units, units_of(b, s, l), b->cost, c->n_levels + 1);
        }
    }
    int best = b->from;
    for (int u = b->from; u < b->n_units; u++) {
        double sum = u * b->grain;
        for (int s = 0; s < S; s++) sum += row_of(b, s, L)[units_within(b, s, u)];
        if (sum >= least) continue;
        least = sum;
        best = u;
    }
    double all = fixed;
    for (int s = 0; s < S; s++) all += row_of(b, s, L)[units_within(b, s, b->n_units - 1)];
    b->closed = b->closed || all > 1e-9 * b->upper;
    for (int s = 0; s < S; s++) take(b, b->z, s, units_within(b, s, best));
    return least + fixed;
}

/* Outside z >= 0 (all but alpha) the nearest point inside counts, less a penalty, as in path_dual.c. */
static bool climb_value(void *ctx, const double *z, double *value, double *grad) {
    busy *b = ctx;
    double steepest = 0;
    for (int k = 0; k < b->n; k++) b->z[k] = k < b->c->n_layers ? z[k] : fmax(0, z[k]);
    *value = bound_at(b);
    memcpy(grad, b->grad, (size_t)b->n * sizeof *grad);
    for (int k = 0; k < b->n; k++) steepest = fmax(steepest, fabs(grad[k]));
    for (int k = b->c->n_layers; k < b->n; k++) {
        if (z[k] >= 0) continue;
        *value += 2 * steepest * z[k];
        grad[k] = 2 * steepest;
    }
    return true;
}

static bool is_over(void *ctx) {
    const busy *b = ctx;
    return b->closed || dil_now_ns() > b->deadline_ns;
}

/* At the relaxation's prices every layer pays what it costs where it costs least: the bound is then the relaxation's, if layers could be cut. */
static void first_multipliers(const busy *b, const pf_prices *y, double *z) {
    const px_core *c = b->c;
    double sum = 0;
    z[at_damage(b)] = y->damage * b->scale[at_damage(b)];
    z[at_file(b)] = c->file_max < INFINITY ? y->file * b->scale[at_file(b)] : 0;
    for (int s = 0; s < c->n_nodes; s++) {
        z[at_bytes(b, s)] = y->node[s][PF_BYTES] * b->scale[at_bytes(b, s)];
        sum += y->node[s][PF_CHUNK];
    }
    for (int l = 0; l < c->n_layers; l++) {
        double least = INFINITY;
        for (int s = 0; s < c->n_nodes; s++) {
            const double part = sum > 0 ? y->node[s][PF_CHUNK] / sum : 1.0 / c->n_nodes;
            for (int q = 0; q < c->n_levels; q++) {
                if (units_of(b, s, l)[q] > b->n_units) continue;
                double cost = part * load_of(b, l, s, q) + y->damage * px_damage(c, l, q) + y->node[s][PF_BYTES] * px_bytes_on(c, s, l, q);
                if (c->file_max < INFINITY) cost += y->file * c->file[l * c->n_levels + q];
                least = fmin(least, cost);
            }
        }
        z[l] = least < INFINITY ? least : b->upper;
    }
}

bool dil__px_busy_bound(const px_core *c, double upper, int rounds, const pf_prices *prices, px_busy *y) {
    const size_t L = (size_t)c->n_layers, S = (size_t)c->n_nodes, Q = (size_t)c->n_levels, n = L + 2 + S;
    busy b = {.c = c, .load = c->real->chunk, .n = (int)n, .upper = upper, .n_units = UNITS, .deadline_ns = y->deadline_ns};
    y->bound = 0;
    if (!(upper > 0 && upper < INFINITY)) return true;
    while (b.n_units > 64 && (L + 1) * S * (size_t)b.n_units > CELLS_MAX) b.n_units /= 2;
    b.grain = upper / b.n_units;
    b.z = dil__px_alloc(3 * n + Q + 1 + S, sizeof *b.z);
    b.table = dil__px_alloc((L + 1) * S, (size_t)(b.n_units + 1) * sizeof *b.table);
    b.units = dil__px_alloc(S * L, (Q + 1) * sizeof *b.units);
    b.over = dil__px_alloc(S, sizeof *b.over);
    px_climb climb = {.n = (int)n, .rounds = rounds, .enough = upper, .still = 1e-5, .ctx = &b, .value_at = climb_value, .stop = is_over,
                      .scratch = dil__px_alloc(dil__px_climb_scratch((int)n), sizeof(double))};
    bool ok = b.z && b.table && b.units && b.over && climb.scratch;
    if (ok && !y->z) ok = (y->z = dil__px_alloc(n, sizeof *y->z)) != NULL;
    if (ok) {
        b.grad = b.z + n;
        b.scale = b.grad + n;
        b.cost = b.scale + n;
        b.unit = b.cost + Q + 1;
        for (int k = (int)L; k < b.n; k++) b.scale[k] = budget_of(&b, k) > 0 ? budget_of(&b, k) : 1;
        fill_units(&b);
        if (!y->has) first_multipliers(&b, prices, y->z);
        y->has = true;
        for (int i = 0; ok && i < CLIMBS && !is_over(&b); i++) {
            const double before = y->bound;
            b.from = (int)(before / b.grain);
            ok = dil__px_climb(&climb, y->z, 0.02 * upper);
            y->bound = fmax(before, b.closed ? upper : fmin(upper, climb.best - 1e-9 * upper));
            if (y->bound < before + 2e-4 * upper) break;
        }
    }
    free(climb.scratch);
    free(b.z);
    free(b.table);
    free(b.units);
    free(b.over);
    return ok;
}
