/* plan/path_fit.h - one structure of a measured problem: bounds, quick levels and exact levels under every budget.
 *
 * With the node of every layer given, what is left is one level for each layer under budgets of damage and file size, of bytes and
 * load on every node, and with the slowest node's seconds a chunk in the objective. */
#ifndef DIL_PLAN_PATH_FIT_H
#define DIL_PLAN_PATH_FIT_H

#include "plan/path_int.h"
#include "plan/problem_impl.h"

enum { PF_DAMAGE, PF_FILE, PF_BYTES, PF_LOAD, PF_CHUNK, PF_N };

/* What a measured problem has beyond px_core, all of it with the referee's tolerance. */
struct px_real {
    const dil_problem *p;
    bool by_damage;      /* the objective is damage, and crossing links is free */
    bool by_load;        /* the objective is the busiest one's load: it stands in the place of the seconds a chunk, and seconds count nothing */
    double chunk_weight; /* 0: none */
    const double *chunk; /* [L][S][Q] of the problem: chunk_sec, or load */
    double file_max, load_max;
    double *sec;         /* what px_core's sec points to */
    struct px_fit *fit;  /* workspace and the multipliers met last */
};

typedef struct pf_item { /* one level of one layer where the structure puts it */
    double cost, use[PF_N];
    int level;
} pf_item;

typedef struct pf_group {
    int node;
    double cap[PF_N]; /* bytes and load */
} pf_group;

/* Multipliers of a structure: seconds (or damage) a unit of each budget. */
typedef struct pf_prices {
    double damage, file, link_chunk;
    double (*node)[PF_N]; /* [S] bytes, load, chunk */
    double base_damage;   /* 1: the objective is damage, whatever the problem's is */
} pf_prices;

/* A knapsack over the layers in one budget, the others priced (path_room.c). */
typedef struct pf_room {
    int what, n_units;
    double *rest;  /* [L+1][n_units+1] least priced cost of the positions from i on within so many units; owned, the others lie behind it */
    double *flat, *floor, *unit; /* scratch; [L+1] least that the positions from i on take, which is not counted; [groups] of the budget */
} pf_room;
enum { PF_ROOMS = 3 };

typedef struct px_fit {
    const px_core *c;
    const px_real *real;
    int n_groups;
    pf_group *group;      /* [L] */
    int *group_of;        /* [L] */
    int *order;           /* [L] layers, group after group */
    int *first;           /* [L+1] of each layer's items */
    pf_item *item;        /* [L*Q] */
    double fixed;         /* source, hops, sink */
    double link_chunk;    /* busiest link a chunk */
    double cap_damage, cap_file;
    pf_prices warm, by_damage_warm; /* the best found last */
    pf_prices at, best, trial; /* scratch */
    pf_prices anchor;     /* of the whole relaxation */
    bool has_anchor;
    int *pick;            /* [L] item of the relaxed choice */
    int *level;           /* [L] */
    double *gradient, *z, *scratch; /* [3 + 3 * groups], of the climb */
    pf_room room[PF_ROOMS];
    int n_rooms;         /* for the structure and prices that dil__fit_rooms was called with last */
    bool merged;         /* all nodes are one: a bound, not a plan */
    uint64_t n_fits, n_labels;
} px_fit;

bool dil__fit_init(px_fit *f, const px_core *c, const px_real *real);
void dil__fit_fini(px_fit *f);
/* Lays the structure out; false where a link, a connection or a level that fits is missing. */
bool dil__fit_structure(px_fit *f, const int *node);
/* Raises the Lagrangian bound from *y on, for at most `rounds` rounds or until it passes `enough`. -> the bound; *y has its prices, unless that passed
 * `enough`.
 * upper: an estimate from above of what the bound can reach. */
double dil__fit_bound(px_fit *f, pf_prices *y, int rounds, double upper, double enough);
/* Prices of the whole relaxation, for structures that are unlike the one before; going back to them. */
void dil__fit_set_anchor(px_fit *f, const pf_prices *y);
void dil__fit_rewind(px_fit *f);
/* Levels near the relaxed choice at y, made feasible and improved by single and paired changes; kept in *best when better. */
void dil__fit_round(px_fit *f, const pf_prices *y, const int *node, px_plan *best);
/* Knapsacks at the prices y -> a lower bound, INFINITY where nothing fits, -INFINITY where no budget can bind. */
double dil__fit_rooms(px_fit *f, const pf_prices *y, double upper);
/* Of each knapsack what the priced cost without its budget's price can be below `upper`; and the least that the positions from `position`
 * on add to it when `used` of the budget is gone (of bytes: in the group at hand). */
void dil__fit_room_limits(const px_fit *f, const pf_prices *y, double upper, double *limit);
double dil__fit_room_rest(const px_fit *f, int k, int position, double used);
/* What the priced sum over the layers can be in a plan below `upper`: the bound's constants on the other side. */
double dil__fit_limit(const px_fit *f, const pf_prices *y, double upper);
/* Exact, with the knapsacks at hand: *best holds the structure's best plan if that is better than `upper`. 1 settled, 0 too many labels, -1 no memory. */
int dil__fit_labels(px_fit *f, const pf_prices *y, const pf_prices *y_damage, const int *node, double upper, int64_t deadline_ns,
                    px_plan *best);

/* All of it for one structure: *best holds its best plan if that is better than upper. Widens the limit step by step, because labels
 * are few while it is close to the bound. *lost is lowered to the structure's bound where labels gave up. -1: no memory. */
int dil__fit_settle(px_fit *f, const int *node, double upper, int64_t deadline_ns, px_plan *best, double *lost);
/* First plans; hint [L] (may be NULL): a structure to start from. Levels are those that c allows. false: no memory. */
bool dil__px_local_search(const px_core *c, px_plan *best, const int *hint, double gap, int64_t deadline_ns);

/* With damage as the objective: a good plan near the structure `start`, until one is as good as `enough`. */
bool dil__px_least_damage(const px_core *c, const int *start, double enough, int rounds, int64_t deadline_ns, px_plan *best);
/* The least damage if all stores were one: a lower bound, at least `known`. false: no memory. */
bool dil__px_merged_damage(const px_core *c, double known, double upper, int64_t deadline_ns, double *bound);
/* Layers in proportion to the nodes' stores, from node s always on to the nearest; the first n nodes of that order. -> how many it has. */
int dil__px_proportional(const px_core *c, int s, int n, int *order /* [S] */, int *node /* [L] */);

/* What path_plan.c and path_leaf.c call for a measured problem. */
bool dil__px_fit_round(const px_core *c, const int *node, px_plan *best);
bool dil__px_fit_leaf(px_tree *t, const int *node);
bool dil__px_fit_evaluate(const px_core *c, const int *node, const int *level, double *sec, double *damage);

/* Multipliers of the whole relaxation. y: where to start, and the best found; price: its bytes, w: the weight at them. */
typedef struct px_dual {
    pf_prices y;
    double *price; /* [S] */
    int n_units;
    struct px_ng *ng; /* the relaxation that remembers by cell in place of the graph's; NULL: not. Borrowed */
    px_weight w;
    double bound;
    int *node;     /* [L] structure of the relaxed plan met last */
    bool no_path;
} px_dual;

bool dil__px_dual_init(px_dual *o, const px_core *c);
void dil__px_dual_fini(px_dual *o);
/* Structures met are rounded into *plan. c's seconds are left priced at the best multipliers. false: no memory. */
bool dil__px_dual_run(px_dual *o, px_core *c, const px_graph *g, px_plan *plan, int n_steps, int64_t deadline_ns);
/* Prices chunks and load into the core's seconds. */
void dil__px_price(px_core *c, const pf_prices *y);

dil_status dil__px_solve_real(dil__job *job, dil_err *err);

static inline double pf_priced(const pf_item *x, const pf_prices *y, int node) {
    const double *n = y->node[node];
    return x->cost + y->damage * x->use[PF_DAMAGE] + y->file * x->use[PF_FILE] + n[PF_BYTES] * x->use[PF_BYTES] +
           n[PF_LOAD] * x->use[PF_LOAD] + n[PF_CHUNK] * x->use[PF_CHUNK];
}

static inline double pf_base(const pf_item *x, const pf_prices *y, int node) {
    return pf_priced(x, y, node) - x->cost + (y->base_damage > 0 ? x->use[PF_DAMAGE] : x->cost);
}

#endif
