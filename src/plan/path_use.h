/* plan/path_use.h - the relaxation of path_ng.h with stores that fill up: ways that remember how much of a node they used.
 *
 * A pass goes through the layers from one end and leaves, for every cell (boundary between layers, node), the ways from that end to a
 * visit on the node; ways that what the last pass from the other end left cannot complete below the limit are dropped, and with them visits. Passes from
 * both ends in turn drop more and more. Whatever is remembered, every plan below the limit stays a way: when none is left there is no such plan. */
#ifndef DIL_PLAN_PATH_USE_H
#define DIL_PLAN_PATH_USE_H

#include <stdatomic.h>

#include "plan/path_ng.h"

enum { PX_USE_MEMORY = 12, PX_USE_WAYS = 64 };

typedef struct px_use_label {
    double cost;
    uint64_t used;      /* by memory entry of the cell: fifteenths of the store, one bit of room above each */
    int from_node, from_at; /* the label before it */
    int n;              /* layers of its last visit */
} px_use_label;

typedef struct px_use_list { px_use_label *v; int n, cap; } px_use_list;

typedef struct px_use {
    px_ng *x;            /* visits and their costs; borrowed, and not to be changed by others meanwhile */
    double limit;        /* weighted: ways above are left */
    int most;            /* labels of one cell; beyond them the costly ones are melted into others */
    double *full;        /* [S] what the store's bytes are worth at the node's price */
    double *priced;      /* [S][L+1] the layers before, each at its least cost with bytes at the node's price */
    uint8_t *alive;      /* by visit: may be in a plan below the limit */
    int *memory;         /* [L+1][S][PX_USE_MEMORY] */
    uint8_t *n_memory;   /* [L+1][S] */
    px_use_list *list[2]; /* [L+1][S] of ways from the front that ended a visit there, and of ways to the end that begin one */
    int whole[2];        /* list[0] holds all ways up to this boundary, list[1] from this one on */
    double *near;        /* [L+1][S] the least that comes on the other side of the cell and its hop, whatever was used */
    px_links in;         /* the links by the node that they enter */
    double least;        /* out: of the ways found by the last pass; INFINITY: none below the limit */
    atomic_bool melted;  /* out: labels were melted in the last pass */
    bool late;           /* out: the last pass did not end */
    size_t n_labels, n_alive; /* out */
} px_use;

/* A way as visits in order. */
typedef struct px_use_way { double cost; int n; px_visit visit[1024]; } px_use_way;

/* After dil__px_ng_relax without prices. The memories of x are taken over as far as they fit. false: no memory; dil__px_use_fini in any case. */
bool dil__px_use_init(px_use *u, px_ng *x, double limit);
void dil__px_use_fini(px_use *u);
/* dir 0: from the front, 1: from the end; as far as the boundary `to`. limit: not above that of a pass before. false: no memory. */
bool dil__px_use_pass(px_use *u, int dir, int to, double limit, int64_t deadline_ns);
/* Every cell remembers itself and the nodes up to two links away that the relaxation finds most attractive, `most` together. After
 * dil__px_ng_drop. false: no memory. */
bool dil__px_use_prime(px_use *u, int most);
/* Everything that x did not drop may matter again: for a higher limit. What is remembered stays. */
void dil__px_use_revive(px_use *u, double limit);
/* The cheapest ways through some cells, `most` <= PX_USE_WAYS, none before there was a pass from each end. false: no memory. */
bool dil__px_use_ways(px_use *u, int most, px_use_way *way, int *n_ways);
/* The cheapest way over each node [S], by and large. After a pass from the end. */
void dil__px_use_worth(const px_use *u, double *worth);
/* What the way's levels damage, every visit by itself; 0: it has none that fit. */
double dil__px_use_damage(const px_use *u, const px_use_way *y);
/* After x was relaxed at another weight: visits dropped stay so, and what is remembered. */
void dil__px_use_again(px_use *u, double limit);
/* Cells forget nodes that no visit left before them, or none behind them, is on, so that there is room to learn. false: no memory. */
bool dil__px_use_forget(px_use *u);
/* Where the way uses more of a node than there is, the cells in between learn to remember it. -> entries learned. */
int dil__px_use_learn(px_use *u, const px_use_way *y);

/* --- path_tune.c --- */

typedef struct px_tune {
    double lo, lo_over, hi, hi_over; /* weights, and the logarithm of damage over budget there; 0: none yet */
    int left;                        /* changes that are left */
} px_tune;
/* Another weight for what *weight damaged, unless that is `near` (a logarithm) the budget. false: this one will do. */
bool dil__px_retune(px_tune *t, double damage, double budget, double near, double *weight);

/* --- path_sparse.c --- */

typedef struct px_sparse {
    px_ng *x;
    px_plan *best;       /* in and out */
    double damage;       /* in and out: weight on damage; x is relaxed at it */
    const double *price; /* [S] zeros */
    int64_t deadline_ns;
    double *worth;       /* [2 * S] out: the cheapest way without repeats over each node, INFINITY for most; the second half is scratch */
} px_sparse;
/* Plans from the cheapest structures without repeats. With links only. false: no memory. */
bool dil__px_sparse_plans(px_sparse *k);

/* --- path_close.c --- */

typedef struct px_close {
    px_ng *x;            /* relaxed at the weight on damage to be used, without prices */
    px_plan *best;       /* found; in and out */
    double aim;          /* relative: what is to be proved */
    bool few_links;      /* memories from the start, and targets from low ones up */
    int64_t deadline_ns;
    bool (*plans)(void *ctx); /* called where the plan got better; may be NULL */
    void *ctx;
    double *worth;       /* [S] out: the cheapest way over each node, when plans is called */
    double bound;        /* in and out: seconds */
    bool proved;         /* out: no plan is better by more than the aim */
} px_close;
bool dil__px_close_run(px_close *k); /* false: no memory */

#endif
