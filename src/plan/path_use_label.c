/* plan/path_use_label.c - labels of path_use.h: what was used, packed, carried and compared.
 *
 * A way that has used more of a node than another pays at most the difference for it later, for cost and used together only ever grow by what every byte at the
 * node's price costs. So one that is cheaper even with all such differences added makes the other superfluous. Without that only labels with no
 * entry larger would do so, and the labels of a cell are several times as many. */
#include "plan/path_use_int.h"

#include <stdlib.h>

enum { NEAREST = 16 };
static const uint64_t GUARDS = 0x0842108421084210ull; /* bit 4 of every field, 12 fields */

/* --- what was used, by memory entry --- */

static uint64_t least_of(uint64_t a, uint64_t b) {
    const uint64_t g = ((b | GUARDS) - a) & GUARDS, of_a = g - (g >> 4);
    return (a & of_a) | (b & ~of_a & ~GUARDS);
}

static int n_memory(const px_use *u, size_t k) { return u->n_memory[k]; }
static const int *memory(const px_use *u, size_t k) { return u->memory + k * PX_USE_MEMORY; }

int dil__px_use_entry(const px_use *u, size_t k, int node) {
    const int *m = memory(u, k), n = n_memory(u, k);
    for (int i = 0; i < n; i++)
        if (m[i] == node) return i;
    return -1;
}

void dil__px_use_map(const px_use *u, size_t k, size_t j, int *shift) {
    const int *m = memory(u, k), n = n_memory(u, k);
    for (int i = 0; i < n; i++) {
        const int e = dil__px_use_entry(u, j, m[i]);
        shift[i] = e < 0 ? -1 : USE_BITS * e;
    }
}

uint64_t dil__px_use_carry(uint64_t used, const int *shift) {
    uint64_t to = 0;
    while (used) {
        const int i = __builtin_ctzll(used) / USE_BITS;
        const uint64_t f = used >> (USE_BITS * i) & 31;
        if (shift[i] >= 0) to |= f << shift[i];
        used &= ~(31ull << (USE_BITS * i));
    }
    return to;
}

double dil__px_use_overrun(const px_use *u, size_t k, uint64_t a, uint64_t b) {
    const int *m = memory(u, k);
    double sum = 0;
    while (a) {
        const int i = __builtin_ctzll(a) / USE_BITS;
        const int f = use_field(a, i), g = use_field(b, i);
        if (f + g > USE_FULL) sum += u->full[m[i]] * (f + g - USE_FULL) / USE_FULL;
        a &= ~(31ull << (USE_BITS * i));
    }
    return sum;
}

/* --- lists --- */

bool dil__px_use_push(px_use_list *k, px_use_label y) {
    if (k->n == k->cap) {
        const int cap = k->cap ? 2 * k->cap : 8;
        px_use_label *v = realloc(k->v, (size_t)cap * sizeof *v);
        if (!v) return false;
        k->v = v;
        k->cap = cap;
    }
    k->v[k->n++] = y;
    return true;
}

static int by_cost(const void *p, const void *q) {
    const px_use_label *a = p, *b = q;
    if (a->cost != b->cost) return a->cost < b->cost ? -1 : 1;
    if (a->used != b->used) return a->used < b->used ? -1 : 1;
    return a->from_node != b->from_node ? a->from_node - b->from_node : a->from_at - b->from_at;
}

/* What a fifteenth of every entry of the cell costs at most. */
static void units_of(const px_use *u, size_t k, double *unit) {
    for (int i = 0; i < n_memory(u, k); i++) unit[i] = u->full[memory(u, k)[i]] / USE_FULL;
}

/* What a way costs more, at most, for having used a where another used b; counted up to `enough`. */
static double dearer_by(uint64_t a, uint64_t b, const double *unit, double enough) {
    uint64_t more = ~((b | GUARDS) - a) & GUARDS;
    double sum = 0;
    for (; more && sum <= enough; more &= more - 1) {
        const int i = __builtin_ctzll(more) / USE_BITS;
        sum += unit[i] * (double)(use_field(a, i) - use_field(b, i));
    }
    return sum;
}

/* Puts y into the kept label, of some of the dearest, that loses least memory by it: one as cheap as either, with what both have used. */
static void melt(px_use_list *k, int n, const px_use_label *y, const double *unit) {
    int at = n - 1;
    double least = INFINITY;
    for (int j = n - 1; j >= 0 && j >= n - NEAREST && least > 0; j--) {
        const double loss = dearer_by(k->v[j].used, y->used, unit, least) + dearer_by(y->used, k->v[j].used, unit, least);
        if (loss < least) {
            least = loss;
            at = j;
        }
    }
    k->v[at].used = least_of(k->v[at].used, y->used);
}

bool dil__px_use_reduce(const px_use *u, size_t cell, px_use_list *k, int most) {
    int n = 0;
    bool melted = false;
    double unit[PX_USE_MEMORY];
    if (k->n > 1) qsort(k->v, (size_t)k->n, sizeof *k->v, by_cost);
    units_of(u, cell, unit);
    for (int i = 0; i < k->n; i++) {
        const px_use_label y = k->v[i];
        bool worse = false;
        for (int j = 0; j < n && !worse; j++) worse = dearer_by(k->v[j].used, y.used, unit, y.cost - k->v[j].cost) <= y.cost - k->v[j].cost;
        if (worse) continue;
        if (n < most) {
            k->v[n++] = y;
        } else {
            melt(k, n, &y, unit);
            melted = true;
        }
    }
    k->n = n;
    return melted;
}
