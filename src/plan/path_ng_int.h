/* plan/path_ng_int.h - what the parts of path_ng.h share: cells and what they remember, as masks. */
#ifndef DIL_PLAN_PATH_NG_INT_H
#define DIL_PLAN_PATH_NG_INT_H

#include "plan/path_ng.h"

static inline size_t ng_cell(const px_ng *x, int l, int s) { return (size_t)l * (size_t)x->c->n_nodes + (size_t)s; }
static inline double ng_small(const px_ng *x, int s, int l, int n) { return x->w.small[px_visit_at(x->c, &x->g, s, l, n)]; }
static inline double ng_large(const px_ng *x, int s, int l, int n) { return x->w.large[px_visit_at(x->c, &x->g, s, l, n)]; }
static inline int ng_reach(const px_ng *x, int l, int s) { return x->g.run_max[s * x->c->n_layers + l]; }
static inline unsigned ng_masks_of(const px_ng *x, size_t k) { return 1u << x->n_memory[k]; }

/* The node's bit in what the cell k remembers; 0: it does not. */
static inline unsigned ng_bit_of(const px_ng *x, size_t k, int node) {
    const int *m = x->memory + k * PX_NG_MEMORY;
    for (int i = 0; i < x->n_memory[k]; i++)
        if (m[i] == node) return 1u << i;
    return 0;
}

/* For every bit of the cell k its bit in the cell j, 0 where j does not remember. -> all that may be carried */
static inline unsigned ng_map_bits(const px_ng *x, size_t k, size_t j, unsigned *map) {
    unsigned all = 0;
    for (int i = 0; i < x->n_memory[k]; i++) all |= map[i] = ng_bit_of(x, j, x->memory[k * PX_NG_MEMORY + (size_t)i]);
    return all;
}

static inline unsigned ng_carry(unsigned mask, const unsigned *map) {
    unsigned to = 0;
    for (int i = 0; mask; i++, mask >>= 1)
        if (mask & 1) to |= map[i];
    return to;
}

#endif
