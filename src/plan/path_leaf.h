/* plan/path_leaf.h - exact levels of whole structures, with the caches that structures share. */
#ifndef DIL_PLAN_PATH_LEAF_H
#define DIL_PLAN_PATH_LEAF_H

#include "plan/path_int.h"

typedef struct px_leaf px_leaf;
px_leaf *dil__px_leaf_new(const px_tree *t);
void dil__px_leaf_free(const px_tree *t, px_leaf *f);
/* Where the least weighted costs [n_w], by the tree's weights, of a group within the whole store are kept: NaN until
 * dil__px_union_fill is called for one. Borrowed until the next call. NULL: no memory. */
double *dil__px_union_cost(px_tree *t, px_leaf *f, const px_group *g);
double dil__px_union_fill(px_tree *t, px_leaf *f, const px_group *g, double *cost, int k);
/* Finds the structure's best levels and keeps the plan if it beats t->best. A structure that was
 * solved before is not solved again. false: no memory. */
bool dil__px_leaf_solve(px_tree *t, px_leaf *f, const int *node);

#endif
