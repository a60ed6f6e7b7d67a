/* plan/path_leaf.h - exact levels of whole structures, with the caches that structures share. */
#ifndef DIL_PLAN_PATH_LEAF_H
#define DIL_PLAN_PATH_LEAF_H

#include "plan/path_int.h"

typedef struct px_leaf px_leaf;
px_leaf *dil__px_leaf_new(const px_tree *t);
void dil__px_leaf_free(const px_tree *t, px_leaf *f);
/* Least weighted costs [n_w], by the tree's weights, of a group within the whole store; borrowed until the next call. NULL: no memory. */
const double *dil__px_union_cost(px_tree *t, px_leaf *f, const px_group *g);
/* Finds the structure's best levels and keeps the plan if it beats t->best. A structure that was
 * solved before is not solved again. false: no memory. */
bool dil__px_leaf_solve(px_tree *t, px_leaf *f, const int *node);

#endif
