/* quant/levels.h - the levels of a block: mixes of types per tensor on the front of bytes against damage.
 *
 * For each role (tensor of a block) the bytes and the damage of each type are given; damages add. Taking every role's lower convex hull
 * and stepping along them in order of damage per byte saved gives every mix on the hull of the sum; of these the ones nearest to
 * a ladder of bits per weight are kept. */
#ifndef DIL_QUANT_LEVELS_H
#define DIL_QUANT_LEVELS_H

#include <dilemma/tensor.h>

enum { DIL__LEVEL_ROLES = 32, DIL__LEVEL_TYPES = 24, DIL__LEVELS_MAX = 24 };

typedef struct dil__role_choice {
    dil_type type[DIL__LEVEL_TYPES];
    double bytes[DIL__LEVEL_TYPES], damage[DIL__LEVEL_TYPES];
    size_t n;
    double elems;
} dil__role_choice;

typedef struct dil__level {
    char name[32];
    dil_type type[DIL__LEVEL_ROLES]; /* [n_roles] */
    double bits;                     /* a weight */
    double damage;                   /* predicted */
} dil__level;

/* Returns how many levels were written to out [max], by falling bits. ladder [n_ladder]: bits per weight to come near to, falling.
 * uniform [n_uniform]: types to offer for all roles at once as well, where every role has them (for their speed). */
size_t dil__levels_design(const dil__role_choice *roles, size_t n_roles, const double *ladder, size_t n_ladder, const dil_type *uniform,
                          size_t n_uniform, dil__level *out, size_t max);

#endif
