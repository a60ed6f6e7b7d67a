/* plan/path_room.c - completions of a structure with one budget exact and the others priced.
 *
 * Prices alone (path_fit.c) leave as much as one layer's level is worth, and that can be a seventh of an answer: the next smaller level of a
 * block may compute four times as long, and a prompt in many chunks pays for it once a chunk. A knapsack over the layers, of file bytes, of damage, or of
 * bytes node by node, leaves that only in the other budgets. Amounts are counted in units and rounded down, so the knapsacks only ever
 * allow more; bytes in multiples of their common divisor, where there is one, are exact. */
#include "plan/path_fit.h"

#include <stdlib.h>
#include <string.h>

enum { UNITS = 4096, CELLS_MAX = 1 << 18 };

static int units_of(double amount, double unit, int most) {
    if (amount < 0) return -1;
    if (!(unit > 0)) return most;
    const double u = amount * (1 + 1e-9) / unit;
    return u < most ? (int)u : most;
}

static double price_of(const pf_prices *y, int node, int what) {
    return what == PF_DAMAGE ? y->damage : what == PF_FILE ? y->file : y->node[node][PF_BYTES];
}

static double cap_of(const px_fit *f, int group, int what) {
    return what == PF_DAMAGE ? f->cap_damage : what == PF_FILE ? f->cap_file : f->group[group].cap[PF_BYTES];
}

static double *row(pf_room *k, int position) { return k->rest + (size_t)position * (size_t)(k->n_units + 1); }

/* Least of the budget that each position from i on takes, summed to the end (of bytes: of the group). What is counted is only the rest. */
static void fill_floor(px_fit *f, pf_room *k) {
    const int L = f->c->n_layers;
    k->floor[L] = 0;
    for (int i = L - 1; i >= 0; i--) {
        const int l = f->order[i];
        double least = INFINITY;
        for (int j = f->first[l]; j < f->first[l + 1]; j++) least = fmin(least, f->item[j].use[k->what]);
        const bool ends = i + 1 == L || (k->what == PF_BYTES && f->group_of[f->order[i + 1]] != f->group_of[l]);
        k->floor[i] = least + (ends ? 0 : k->floor[i + 1]);
    }
}

static double least_at(const px_fit *f, const pf_room *k, int i) {
    const int L = f->c->n_layers;
    const bool ends = i + 1 == L || (k->what == PF_BYTES && f->group_of[f->order[i + 1]] != f->group_of[f->order[i]]);
    return k->floor[i] - (ends ? 0 : k->floor[i + 1]);
}

/* Bytes of tensors have a large common divisor. 0: they have none */
static double common_unit(const px_fit *f, const pf_room *k, double most) {
    uint64_t unit = 0;
    if (k->what == PF_DAMAGE) return 0;
    for (int i = 0; i < f->c->n_layers; i++)
        for (int l = f->order[i], j = f->first[l]; j < f->first[l + 1]; j++) {
            const double v = f->item[j].use[k->what] - least_at(f, k, i);
            if (v != floor(v) || v > 1e15) return 0;
            for (uint64_t a = (uint64_t)v; a;) {
                const uint64_t b = unit % a;
                unit = a;
                a = b;
            }
        }
    return (double)unit * k->n_units >= most ? (double)unit : 0;
}

static void fill_units(px_fit *f, pf_room *k) {
    double most = 0;
    for (int g = 0; g < f->n_groups; g++) {
        k->unit[g] = cap_of(f, g, k->what);
        for (int i = 0; i < f->c->n_layers; i++)
            if ((k->what != PF_BYTES || f->group_of[f->order[i]] == g) && (i == 0 || k->what == PF_BYTES)) {
                k->unit[g] -= k->floor[i]; /* the first of the group */
                break;
            }
        most = fmax(most, k->unit[g]);
    }
    const double unit = common_unit(f, k, most);
    for (int g = 0; g < f->n_groups; g++) k->unit[g] = unit > 0 ? unit : k->unit[g] / k->n_units;
}

static void fill(px_fit *f, const pf_prices *y, pf_room *k) {
    const int L = f->c->n_layers;
    double cost[256];
    int units[256];
    fill_floor(f, k);
    fill_units(f, k);
    for (int u = 0; u <= k->n_units; u++) row(k, L)[u] = 0;
    for (int i = L - 1; i >= 0; i--) {
        const int l = f->order[i], g = f->group_of[l], node = f->group[g].node, n = f->first[l + 1] - f->first[l];
        const double *from = row(k, i + 1), least = least_at(f, k, i);
        if (k->what == PF_BYTES && i + 1 < L && f->group_of[f->order[i + 1]] != g) { /* the next group has a store of its own */
            const int h = f->group_of[f->order[i + 1]], all = units_of(cap_of(f, h, k->what) - k->floor[i + 1], k->unit[h], k->n_units);
            for (int u = 0; u <= k->n_units; u++) k->flat[u] = all < 0 ? INFINITY : from[all];
            from = k->flat;
        }
        for (int j = 0; j < n; j++) {
            const pf_item *x = &f->item[f->first[l] + j];
            cost[j] = pf_base(x, y, node) - price_of(y, node, k->what) * x->use[k->what];
            units[j] = units_of((x->use[k->what] - least) * (1 - 2e-9), k->unit[g], k->n_units + 1);
        }
        dil__px_knap_step(from, row(k, i), k->n_units, units, cost, n);
    }
}

/* What the priced costs of a plan below `upper` can be at most. */
static double room_limit(const px_fit *f, const pf_prices *y, int what, double upper) {
    double v = dil__fit_limit(f, y, upper);
    if (what != PF_BYTES) return v - price_of(y, 0, what) * cap_of(f, 0, what);
    for (int g = 0; g < f->n_groups; g++) v -= price_of(y, f->group[g].node, what) * cap_of(f, g, what);
    return v;
}

static bool applies(const px_fit *f, int what) {
    if (what == PF_DAMAGE && (f->real->by_damage || !(f->cap_damage < INFINITY))) return false;
    for (int g = 0; g < f->n_groups; g++)
        if (!(cap_of(f, g, what) > 0) || !(cap_of(f, g, what) < INFINITY)) return false;
    for (int l = 0; l < f->c->n_layers; l++)
        if (f->first[l + 1] - f->first[l] > 256) return false;
    return true;
}

/* A budget that none of the choices can break needs no knapsack. */
static bool can_bind(const px_fit *f, int what) {
    double most[64] = {0};
    if (f->n_groups > 64) return false;
    for (int l = 0; l < f->c->n_layers; l++) {
        double worst = 0;
        for (int i = f->first[l]; i < f->first[l + 1]; i++) worst = fmax(worst, f->item[i].use[what]);
        most[what == PF_BYTES ? f->group_of[l] : 0] += worst;
    }
    for (int g = 0; g < f->n_groups; g++)
        if (most[what == PF_BYTES ? g : 0] > cap_of(f, g, what)) return true;
    return false;
}

double dil__fit_rooms(px_fit *f, const pf_prices *y, double upper) {
    static const int budgets[PF_ROOMS] = {PF_FILE, PF_DAMAGE, PF_BYTES};
    const int L = f->c->n_layers, n_units = L + 1 > CELLS_MAX / UNITS ? CELLS_MAX / (L + 1) : UNITS;
    double bound = -INFINITY;
    f->n_rooms = 0;
    for (int b = 0; b < PF_ROOMS; b++) {
        pf_room *k = &f->room[f->n_rooms];
        k->what = budgets[b];
        k->n_units = n_units;
        if (n_units < 64 || !applies(f, k->what) || !can_bind(f, k->what)) continue;
        if (!k->rest) k->rest = malloc(((size_t)(L + 2) * (size_t)(n_units + 1) + 2 * (size_t)(L + 1)) * sizeof *k->rest);
        if (!k->rest) continue; /* a weaker bound, no fault */
        k->flat = row(k, L + 1);
        k->floor = row(k, L + 2);
        k->unit = k->floor + L + 1;
        fill(f, y, k);
        f->n_rooms++;
        const double value = upper + dil__fit_room_rest(f, f->n_rooms - 1, 0, 0) - room_limit(f, y, k->what, upper);
        bound = fmax(bound, value - 1e-11 * fabs(value));
    }
    return bound;
}

void dil__fit_room_limits(const px_fit *f, const pf_prices *y, double upper, double *limit) {
    for (int k = 0; k < f->n_rooms; k++) {
        limit[k] = room_limit(f, y, f->room[k].what, upper);
        limit[k] += 1e-11 * fabs(limit[k]);
    }
}

double dil__fit_room_rest(const px_fit *f, int k, int position, double used) {
    const pf_room *r = &f->room[k];
    if (position == f->c->n_layers) return 0;
    const int g = f->group_of[f->order[position]];
    const bool fresh = r->what == PF_BYTES && position > 0 && f->group_of[f->order[position - 1]] != g;
    const int u = units_of(cap_of(f, g, r->what) - (fresh ? 0 : used) - r->floor[position], r->unit[g], r->n_units);
    return u < 0 ? INFINITY : r->rest[(size_t)position * (size_t)(r->n_units + 1) + (size_t)u];
}
