/* plan/highs.h - a mixed-integer program through HiGHS. highs.c is the only file that sees its header (which defines constants). */
#ifndef DIL_PLAN_HIGHS_H
#define DIL_PLAN_HIGHS_H

#include <dilemma/base.h>

typedef struct dil__mip { /* minimise cost · v, 0 <= v <= upper, row_lower <= A v <= row_upper; all borrowed */
    int n_cols, n_rows, n_values;
    const double *cost, *upper;          /* [n_cols] */
    const int *integral;                 /* [n_cols] 1: an integer */
    const double *row_lower, *row_upper; /* [n_rows] */
    const int *start;                    /* [n_rows] first of its values */
    const int *index;                    /* [n_values] column */
    const double *value;                 /* [n_values] */
} dil__mip;

typedef struct dil__mip_options {
    double limit_sec, gap;
    double cutoff;              /* 0 or INFINITY: none */
    const int *start_col;       /* [n_start] values of a solution to start from; the rest follows from them */
    const double *start_value;
    int n_start;
    const dil_progress *progress;
    void (*improved)(void *ctx, double objective, double bound); /* a better solution was found; NULL: nobody asks */
    void *ctx;
} dil__mip_options;

typedef struct dil__mip_result {
    double *v;                  /* [n_cols], the caller's */
    double objective, bound;    /* bound: -INFINITY where nothing is proved */
    bool timed_out;
} dil__mip_result;

/* One thread, tolerances 1e-9: budgets and objective should be scaled to about 1 and 100. `name` begins the errors: DIL_EINFEASIBLE,
 * DIL_ETIMEOUT without a solution, DIL_ECANCELED, DIL_EINTERNAL. */
dil_status dil__mip_solve(const char *name, const dil__mip *m, const dil__mip_options *o, dil__mip_result *r, dil_err *err);
dil_status dil__mip_write(const char *path, const dil__mip *m, dil_err *err); /* .lp or .mps by the ending */

#endif
