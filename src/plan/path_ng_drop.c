/* plan/path_ng_drop.c - ways of path_ng.h from the front, and the visits that no plan below a target contains. */
#include "plan/path_ng_int.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

PX_HOT static void lower_row(double *restrict to, const double *restrict hop, double add, int n) {
    for (int i = 0; i < n; i++) {
        const double v = add + hop[i];
        to[i] = v < to[i] ? v : to[i];
    }
}

/* Ways that end on s before layer l, by what they have spent. */
static double after_at(px_ng *x, int l, int s) {
    const size_t j = ng_cell(x, l, s);
    double *after = x->after + x->at[j], least = INFINITY;
    const unsigned spent = ng_bit_of(x, j, s);
    unsigned map[PX_NG_MEMORY];
    for (unsigned m = 0; m < ng_masks_of(x, j); m++) after[m] = INFINITY;
    for (int n = 1; n <= l && n <= x->g.run_cap; n++) {
        if (n > ng_reach(x, l - n, s)) continue;
        const size_t k = ng_cell(x, l - n, s);
        const double whole = ng_large(x, s, l - n, n), half = ng_small(x, s, l - n, n);
        const unsigned self = ng_bit_of(x, k, s);
        if (!(whole + x->from0[k] < INFINITY)) continue;
        ng_map_bits(x, k, j, map);
        for (unsigned m = 0; m < ng_masks_of(x, k); m++) {
            const double v = x->from[x->at[k] + m];
            const unsigned to = ng_carry(m, map);
            after[to] = fmin(after[to], v + half);
            if (!(m & self)) after[to | spent] = fmin(after[to | spent], v + whole);
        }
    }
    for (unsigned m = 0; m < ng_masks_of(x, j); m++) least = fmin(least, after[m]);
    return least;
}

/* From s before layer l to the starts at l; only what a plan within the limit could use where a successor remembers. */
static void spread_from(px_ng *x, int l, int s, double least, double limit, double *row) {
    const px_core *c = x->c;
    const size_t k = ng_cell(x, l, s);
    unsigned map[PX_NG_MEMORY];
    if (c->hop) lower_row(row, px_hop_row(c, s, l), least, c->n_nodes);
    const int lo = c->hop ? 0 : c->links->first[s], hi = c->hop ? c->n_nodes : c->links->first[s + 1];
    for (int e = lo; e < hi; e++) {
        const int t = c->hop ? e : c->links->to[e];
        const double hop = c->hop ? px_hop_row(c, s, l)[t] : c->links->sec[e];
        const size_t j = ng_cell(x, l, t);
        if (!c->hop) row[t] = fmin(row[t], least + hop);
        if (x->n_memory[j] == 0 || t == s || !(least + hop + x->start0[j] <= limit)) continue;
        ng_map_bits(x, k, j, map);
        double *from = x->from + x->at[j];
        for (unsigned m = 0; m < ng_masks_of(x, k); m++) {
            const unsigned to = ng_carry(m, map);
            from[to] = fmin(from[to], x->after[x->at[k] + m] + hop);
        }
    }
}

static void forward(px_ng *x, double limit) {
    const px_core *c = x->c;
    const int L = c->n_layers, S = c->n_nodes;
    for (size_t i = 0; i < x->at[(size_t)L * (size_t)S]; i++) x->from[i] = INFINITY;
    for (size_t i = 0; i < (size_t)L * (size_t)S; i++) x->from0[i] = INFINITY;
    for (int s = 0; s < S; s++) x->from0[s] = x->from[x->at[s]] = c->source[s];
    for (int l = 1; l < L; l++) {
        double *row = x->from0 + ng_cell(x, l, 0);
        for (int s = 0; s < S; s++) {
            if (!x->ends[ng_cell(x, l, s)]) continue;
            const double hop_self = row[s], least = after_at(x, l, s);
            if (!(least + x->rest[x->at[ng_cell(x, l, s)]] <= limit)) {
                double *after = x->after + x->at[ng_cell(x, l, s)];
                for (unsigned m = 0; m < ng_masks_of(x, ng_cell(x, l, s)); m++) after[m] = INFINITY;
                continue;
            }
            spread_from(x, l, s, least, limit, row);
            row[s] = hop_self;
        }
        for (int s = 0; s < S; s++) {
            const size_t k = ng_cell(x, l, s);
            double *from = x->from + x->at[k];
            if (x->n_memory[k] == 0) from[0] = row[s];
        }
    }
}

/* Least cost of a way through the visit (l, s, n). */
static double through(const px_ng *x, int l, int s, int n) {
    const size_t k = ng_cell(x, l, s), j = ng_cell(x, l + n, s);
    const unsigned self = ng_bit_of(x, k, s), spent = ng_bit_of(x, j, s);
    const double whole = ng_large(x, s, l, n), half = ng_small(x, s, l, n);
    unsigned map[PX_NG_MEMORY];
    double least = INFINITY;
    if (!x->ends[j]) return INFINITY;
    ng_map_bits(x, k, j, map);
    for (unsigned m = 0; m < ng_masks_of(x, k); m++) {
        const double v = x->from[x->at[k] + m];
        if (!(v < INFINITY)) continue;
        const unsigned to = ng_carry(m, map);
        const double *rest = x->rest + x->at[j];
        least = fmin(least, v + half + rest[to]);
        if (!(m & self)) least = fmin(least, v + whole + rest[to | spent]);
    }
    return least;
}

double dil__px_ng_drop(px_ng *x, double target) {
    const px_core *c = x->c;
    const int L = c->n_layers, S = c->n_nodes;
    const double limit = px_limit(c, &x->w, target);
    double lost = INFINITY;
    assert(!x->stale);
    forward(x, limit);
    x->has_from = true;
    bool *ends = calloc((size_t)(L + 1) * (size_t)S, sizeof *ends);
    if (!ends) return INFINITY; /* nothing is dropped */
    x->n_cells = 0;
    for (int s = 0; s < S; s++)
        for (int l = 0; l < L; l++) {
            int *most = &x->g.run_max[s * L + l], n = *most, keep = 0;
            for (; n > 0; n--) {
                const double v = through(x, l, s, n);
                if (v <= limit) {
                    if (keep == 0) keep = n;
                    ends[ng_cell(x, l + n, s)] = true;
                }
            }
            if (keep < *most) lost = target;
            *most = keep;
            x->n_cells += keep > 0;
        }
    memcpy(x->ends, ends, (size_t)(L + 1) * (size_t)S * sizeof *ends);
    free(ends);
    return lost;
}
