/* plan/path_use_int.h - what the parts of path_use.h share: labels of a cell, and how what was used is packed into them. */
#ifndef DIL_PLAN_PATH_USE_INT_H
#define DIL_PLAN_PATH_USE_INT_H

#include "plan/path_use.h"

enum { USE_BITS = 5, USE_FULL = 15 }; /* of a field of px_use_label.used: its highest bit is room for sums */

static inline size_t use_cell(const px_use *u, int b, int s) { return (size_t)b * (size_t)u->x->c->n_nodes + (size_t)s; }
static inline size_t use_visit_at(const px_use *u, int s, int first, int n) { return px_visit_at(u->x->c, &u->x->g, s, first, n); }
static inline double use_cheapest(const px_use_list *l) { return l->n > 0 ? l->v[0].cost : INFINITY; }
/* Whether the ways of a direction at the boundary are all there. */
static inline bool use_known(const px_use *u, int dir, int b) { return dir ? b >= u->whole[1] : b <= u->whole[0]; }
static inline int use_field(uint64_t used, int entry) { return (int)(used >> (USE_BITS * entry) & 31); }

/* --- path_use_label.c --- */

/* The node's memory entry in the cell k, -1: it is not remembered. */
int dil__px_use_entry(const px_use *u, size_t k, int node);
/* For every entry of the cell k the shift of it in the cell j, -1: j does not remember. */
void dil__px_use_map(const px_use *u, size_t k, size_t j, int *shift);
uint64_t dil__px_use_carry(uint64_t used, const int *shift);
/* What two sides of a way pass the stores by together. */
double dil__px_use_overrun(const px_use *u, size_t k, uint64_t a, uint64_t b);
bool dil__px_use_push(px_use_list *k, px_use_label y); /* false: no memory */
/* Ascending by cost, none of them cheaper than another even if what it has used more is paid for; at most `most`, the others melted into those.
 * -> some were. */
bool dil__px_use_reduce(const px_use *u, size_t cell, px_use_list *k, int most);

/* --- path_use.c --- */

/* The ways in direction dir that a visit on t may begin after, at the boundary b. false: no memory. */
bool dil__px_use_gather(px_use *u, int dir, int b, int t, px_use_list *start);

#endif
