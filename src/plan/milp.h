/* plan/milp.h - the MILP of a problem, whole or with one budget made elastic. */
#ifndef DIL_PLAN_MILP_H
#define DIL_PLAN_MILP_H

#include "plan/highs.h"
#include "plan/problem_impl.h"

typedef enum dil__budget { DIL__BUDGET_NONE, DIL__BUDGET_STORE, DIL__BUDGET_DAMAGE, DIL__BUDGET_FILE, DIL__BUDGET_LOAD } dil__budget;

typedef struct dil__milp_shape {
    dil_goal goal;
    dil__budget relax;  /* the objective becomes this budget's least overrun (storage: summed over the nodes) */
    const uint32_t *order; /* [n_order] nodes of the stages in their order, each with a layer at least; NULL: any path */
    uint32_t n_order;
    const uint16_t *stage; /* [L] with an order: the stage of every layer, so that only levels are free; NULL: free */
} dil__milp_shape;

typedef struct dil__milp dil__milp;

typedef struct dil__milp_run_options {
    double limit_sec, gap;
    const dil_progress *progress;
    const uint32_t *start_node, *start_level; /* [L]; NULL: none */
    double cutoff;                            /* 0 or INFINITY: none */
    struct dil__trail *trail;                 /* may be NULL */
} dil__milp_run_options;

typedef struct dil__milp_result {
    uint32_t *node, *level;  /* [L], the caller's */
    double objective, bound; /* with an elastic budget: in units of 1 / dil__milp_elastic_unit */
    uint32_t elastic_node;   /* elastic storage: the node with the largest overrun */
} dil__milp_result;

dil_status dil__milp_build(const dil_problem *p, const dil__milp_shape *shape, dil__milp **out, dil_err *err);
void dil__milp_free(dil__milp *m);
dil_status dil__milp_run(const dil__milp *m, const dil__milp_run_options *o, dil__milp_result *r, dil_err *err);
double dil__milp_elastic_unit(const dil_problem *p, dil__budget which);

/* For several models in one program. A row's tag says what is shared: what is left of capacity 1 of that node, link or connection. */
enum { DIL__TAG_OWN = -1, DIL__TAG_STORE = 0, DIL__TAG_NODE, DIL__TAG_OUT, DIL__TAG_IN, DIL__TAG_LINK };
static inline int dil__tag(const dil_problem *p, int kind, uint32_t i) /* i: node, or hop */
{
    return kind * (int)p->n_nodes + (int)i;
}
typedef struct dil__milp_part {
    dil__mip mip;      /* borrowed from m */
    double scale;      /* its costs are the problem's times this */
    const int *tag;    /* [n_rows] */
} dil__milp_part;
dil__milp_part dil__milp_get(const dil__milp *m);
void dil__milp_choice(const dil__milp *m, const double *v, uint32_t *node, uint32_t *level); /* v: of its own columns */
/* The columns that say a plan, and their values: the rest follows. -> how many; 0 where the plan has no columns. */
int dil__milp_start(const dil__milp *m, const uint32_t *node, const uint32_t *level, int *cols, double *v);

#endif
