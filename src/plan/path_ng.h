/* plan/path_ng.h - the relaxation over many nodes: ways through the layers that remember some of the nodes they used up.
 *
 * A cell is (layer, node): a visit starts there, or one on the node ended before the layer. Every cell remembers up to PX_NG_MEMORY nodes:
 * of the nodes whose large visit is spent, a way keeps those that the cell it comes to remembers. A plan makes no two large visits to a node, so
 * whatever is remembered, every plan is a way: a relaxation. Whom to remember is learned from the cycles of the ways found
 * (decremental state space and ng-route relaxations do so for vehicle routes; there by node, here by node and layer). */
#ifndef DIL_PLAN_PATH_NG_H
#define DIL_PLAN_PATH_NG_H

#include "plan/path_int.h"

enum { PX_NG_MEMORY = 14 };

typedef struct px_ng {
    const px_core *c;
    px_graph g;          /* run_max shrinks: 0 where no visit that starts in the cell can matter */
    px_weight w;         /* small and large, root */
    int n_threads;
    int *memory;         /* [L][S][PX_NG_MEMORY] */
    uint8_t *n_memory;   /* [L+1][S] */
    bool *ends;          /* [L+1][S] a visit that ends before the layer can matter */
    size_t *at;          /* [(L+1)*S + 1] where a cell's values by mask begin */
    double *start, *rest; /* cheapest from a visit that starts in the cell; after one that ended before it */
    double *from;        /* cheapest way to a visit that starts in the cell, its hop included */
    double *after;       /* cheapest way to the end of a visit that ends before the cell */
    size_t cap;
    double *start0, *from0; /* [L][S] the least over the masks of start and from */
    px_visit *visit;     /* [L] the cheapest way */
    int n_visits;
    double *used;        /* [S] its bytes */
    int *level;          /* [L] of one visit */
    bool has_from;       /* from0 is of the last relaxation */
    bool stale;          /* something was learned: values and masks do not fit until the next relaxation */
    size_t n_cells;      /* where visits start that can matter */
} px_ng;

bool dil__px_ng_init(px_ng *x, const px_core *c, int n_threads);
void dil__px_ng_fini(px_ng *x);
void dil__px_ng_revive(px_ng *x); /* everything matters again */
/* Fills tables and completions at (1, damage, price [S]); x->w.root is INFINITY when there is no way. false: no memory. */
bool dil__px_ng_relax(px_ng *x, double damage, const double *price);
/* The cheapest way into x->visit and x->used -> its damage; INFINITY when it has no levels. */
double dil__px_ng_way(px_ng *x);
/* Where the way comes back to a node for a second large visit, the cells in between learn to remember it. -> cycles learned. Until the
 * next dil__px_ng_relax nothing but dil__px_ng_revive may be called. */
int dil__px_ng_learn(px_ng *x);
/* With few links: every cell remembers itself and the nodes around whose cheapest ways were cheapest, `most` together. Learning one way
 * after the other does not come to an end where many regions of the network are alike. After dil__px_ng_drop; then as after learning.
 * false: no memory. */
bool dil__px_ng_prime(px_ng *x, int most);
/* cost [S]: the cheapest way over each node. After dil__px_ng_drop. */
void dil__px_ng_least(const px_ng *x, double *cost);
/* Every cell is taught its own node and the most - 1 (at most 16) up to two links around that cost least. After dil__px_ng_drop. false: no memory. */
typedef void px_teach(void *to, int l, int s, int node);
bool dil__px_teach_near(const px_ng *x, int most, px_teach *teach, void *to);
/* Drops visits that no plan faster than target contains, by the multipliers at hand. -> least seconds of a plan with a dropped one. */
double dil__px_ng_drop(px_ng *x, double target);
/* Masks for ways of one's own: carried from the cell (l, s) to (m, t), after a large visit from (l, s) to before m, and the completion then. */
unsigned dil__px_ng_carry(const px_ng *x, int l, int s, unsigned mask, int m, int t);
unsigned dil__px_ng_spend(const px_ng *x, int l, int s, unsigned mask, int m);
double dil__px_ng_rest(const px_ng *x, int l, int s, unsigned mask);

/* --- path_beam.c --- */

/* Structures without repeats below the limit, by the multipliers at hand: `room` labels a layer, the best n_round rounded into best.
 * false: no memory. */
bool dil__px_ng_beam(px_ng *x, double limit, int room, int n_round, px_plan *best);

/* --- path_walk.c --- */

/* Structures without repeats, the cheapest first, every one over other nodes. */
typedef struct px_walk {
    int most_ways;
    double *cost;  /* [most_ways] out: weighted */
    int *node;     /* [most_ways][L] out */
    int n_ways;    /* out */
} px_walk;
/* The cheapest that are found below the limit, `most` for every cell on the way. With links only. After dil__px_ng_relax and dil__px_ng_drop.
 * false: no memory. */
bool dil__px_ng_walk(px_ng *x, double limit, int most, px_walk *out);

#endif
