/* plan/path_int.h - what the parts of the solver `path` share. See docs/PATH.md for the mathematics.
 *
 * A *visit* is a maximal run of consecutive layers on one node; a node may be visited any number of times and its visits share
 * its store. A visit is *small* when it takes at most half of the store, else *large*: of all visits of a node at most one is
 * large. A *weight* is a pair (sec, damage) of non-negative factors; the weighted cost of a plan is
 * sec * seconds + damage * Σ damage, so every plan within the budgets that is faster than U has a weighted cost below
 * sec * U + damage * damage_max. All bounds are such weighted costs. */
#ifndef DIL_PLAN_PATH_INT_H
#define DIL_PLAN_PATH_INT_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

#include "dilemma/base.h"

enum {
    PX_MASK_MAX = 11,    /* nodes whose large visit the completion bound remembers */
    PX_COVER_MAX = 5,    /* nodes up to which it also remembers which were visited */
    PX_COVER_LATE_MAX = 7, /* the same where a search without it takes long */
    PX_WEIGHTS_MAX = 12,
    PX_LABELS_MAX = 4 << 20, /* labels of one level search */
};

/* Links by the node that they leave; hop_to ascends within a node. */
typedef struct px_links {
    int *first;  /* [S+1] */
    int *to;     /* [first[S]] */
    double *sec;
} px_links;

typedef struct px_real px_real; /* path_fit.h */

/* The problem as the solver wants it: bytes and damage by layer, seconds by node first. */
typedef struct px_core {
    int n_layers, n_nodes, n_levels;
    const double *bytes;  /* [L][Q] */
    const double *sec;    /* [S][L][Q] */
    const double *damage; /* [L][Q] */
    const double *store;  /* [S] */
    const double *hop;    /* [S][S], INFINITY where there is no link; NULL: only links */
    const px_links *links; /* may be NULL beside hop */
    const double *source, *sink; /* [S] */
    double damage_max;

    /* A bare problem has none of what follows. A measured one (real) has its other budgets priced into sec. */
    const px_real *real;
    const double *file;       /* [L][Q] in the written file */
    double file_max;
    double sec_credit;        /* what the prices in sec add at most to a plan within the budgets */
    const double *extra;      /* [L] buffer beyond the least one, which store lacks already */
    const double *home_bytes; /* [Q] of the last layer on `home`, where the table that it shares with the first one is */
    int home;
    bool has_ends;            /* the nodes of the first and the last layer are known, and what they store there */
    int first_node, last_node;
    double first_bytes, last_bytes;
    const double *head_hop;   /* [S][S] the hop before the last layer; NULL: as hop */
    const int *twin;          /* [S] the node before it that it can be exchanged for, -1: none; NULL: nobody has one (path_twin.c) */
} px_core;

static inline double px_bytes(const px_core *c, int l, int q) { return c->bytes[l * c->n_levels + q]; }
static inline double px_bytes_on(const px_core *c, int s, int l, int q) {
    return c->home_bytes && s == c->home && l == c->n_layers - 1 ? c->home_bytes[q] : px_bytes(c, l, q);
}
double dil__px_room(const px_core *c, int s, const int *layer, int first, int n);
static inline double px_damage(const px_core *c, int l, int q) { return c->damage[l * c->n_levels + q]; }
static inline double px_sec(const px_core *c, int s, int l, int q) {
    return c->sec[((size_t)s * (size_t)c->n_layers + (size_t)l) * (size_t)c->n_levels + (size_t)q];
}
double dil__px_link_sec(const px_links *k, int from, int to); /* INFINITY: no link */
/* The same links by the node that they enter: back->to is where they come from. false: no memory. */
bool dil__px_links_back(const px_links *k, int n_nodes, px_links *back);
void dil__px_links_fini(px_links *k);
static inline double px_hop(const px_core *c, int s, int t) {
    return c->hop ? c->hop[(size_t)s * (size_t)c->n_nodes + (size_t)t] : dil__px_link_sec(c->links, s, t);
}

/* The hops from s to a layer, where they are dense. */
static inline const double *px_hop_row(const px_core *c, int s, int layer) {
    return (c->head_hop && layer == c->n_layers - 1 ? c->head_hop : c->hop) + (size_t)s * (size_t)c->n_nodes;
}
static inline double px_hop_into(const px_core *c, int s, int t, int layer) { /* what layer `layer` on t costs after one on s */
    return c->head_hop && layer == c->n_layers - 1 ? c->head_hop[(size_t)s * (size_t)c->n_nodes + (size_t)t] : px_hop(c, s, t);
}

typedef struct px_visit {
    int node, first, n;
    bool small;
} px_visit;

/* One weight with its tables: cost of every visit, and the cheapest completion after it. */
typedef struct px_weight {
    double sec, damage, file;
    const double *price; /* [S] a byte on the node, NULL: nothing. Borrowed */
    double credit;       /* Σ price * store: what every plan within the stores pays at most */
    int n_units;   /* a store is counted in so many units, items rounded down */
    double *small; /* [S][L][run_max]: cheapest levels of the n layers from l on s within half of the store (n - 1 last index) */
    double *large; /* the same within the whole store */
    double *rest;  /* [L+1][S][2^n_bits]: layers < l are done, the last on s, large visits of the nodes in the mask are spent */
    double root;   /* cheapest way through everything */
} px_weight;

/* The layers of one node in a plan. */
typedef struct px_group {
    int node, n;
    const int *layer; /* [n] */
} px_group;

/* The levels of one group that matter: Pareto-optimal in (damage, seconds), damage ascending. */
typedef struct px_front {
    int n, n_layers;
    bool complete; /* false: PX_LABELS_MAX was reached, something may be missing */
    double slack;  /* every choice whose weighted cost is within slack of the group's least one is dominated by a point */
    double *damage, *sec;
    uint8_t *level; /* [n][n_layers] */
} px_front;

/* The two loops that take nine tenths of the time: gcc vectorises them at -O3 only, and for the machine at hand when told so. */
#if defined(__GNUC__) && !defined(__clang__)
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define PX_HOT __attribute__((optimize("O3"), target_clones("avx512f", "avx2", "default")))
#else
#define PX_HOT __attribute__((optimize("O3")))
#endif
#else
#define PX_HOT
#endif

void *dil__px_alloc(size_t n, size_t size); /* zeroed, NULL on overflow too */

/* --- path_knap.c: byte knapsacks ---------------------------------------------------------------------------------- */

/* out[u] = min over levels q with units[q] <= u of in[u - units[q]] + cost[q], for u in [0, n_units]. */
void dil__px_knap_step(const double *in, double *out, int n_units, const int *units, const double *cost, int n_levels);
/* Bytes of a layer in units of the node's store, rounded down; more than n_units where it cannot fit. */
void dil__px_units(const px_core *c, int node, int layer, int n_units, int *units);
/* Fills small (where w has it) and large of one node; false: no memory. */
bool dil__px_visits_of_node(const px_core *c, px_weight *w, int node, const int *run_max, int run_cap);
/* Fills small and large of w; visit costs that cannot fit are INFINITY. */
bool dil__px_visit_table(const px_core *c, px_weight *w, const int *run_max, int run_cap);
/* Cheapest weighted cost of the group's layers within the whole store (bytes rounded down). */
double dil__px_group_cost(const px_core *c, const px_weight *w, const px_group *g, double *scratch /* [2][n_units+1] */);
/* Levels of the group at least weighted cost with bytes rounded up, so that they really fit; false where none does. */
bool dil__px_group_levels(const px_core *c, const px_weight *w, const px_group *g, double store, int n_units, int *level);
/* The levels of the visit that its table entry stands for (bytes rounded down); false: there are none. */
bool dil__px_visit_levels(const px_core *c, const px_weight *w, const px_visit *v, int *level);
/* Weighted cost of a level. */
static inline double px_cost(const px_core *c, const px_weight *w, int s, int l, int q) {
    double cost = w->sec * px_sec(c, s, l, q) + w->damage * px_damage(c, l, q);
    if (w->file > 0) cost += w->file * c->file[l * c->n_levels + q];
    return w->price ? cost + w->price[s] * px_bytes_on(c, s, l, q) : cost;
}

/* --- path_level.c: exact levels ------------------------------------------------------------------------------------ */

bool dil__px_front_build(const px_core *c, const px_weight *w, const px_group *g, double slack, int64_t deadline_ns, px_front *out);
void dil__px_front_fini(px_front *f);

/* --- path_rest.c: completion bounds --------------------------------------------------------------------------------- */

typedef struct px_graph {
    int run_cap;        /* most layers that one visit can hold */
    int *run_max;       /* [S][L] the same from a layer on, on a node */
    int n_bits;
    bool cover;         /* masks have a second bit for each node: visited at all; enough [2^n_nodes] says which sets can hold a plan */
    bool *enough;
    int *bit;           /* [S] the node's bit in a mask, -1: its large visits are not remembered */
} px_graph;

bool dil__px_graph_init(const px_core *c, px_graph *g);
void dil__px_graph_fini(px_graph *g);
/* Masks begin or end to say which nodes were visited. Weights at them are to be made anew. -> whether they do, for some sets are not enough. */
bool dil__px_graph_cover(const px_core *c, px_graph *g, bool on);
static inline size_t px_rest_at(const px_core *c, const px_graph *g, int layer, int node, unsigned mask) {
    return (((size_t)layer * (size_t)c->n_nodes + (size_t)node) << g->n_bits) + mask;
}
static inline size_t px_visit_at(const px_core *c, const px_graph *g, int node, int first, int n) {
    return ((size_t)node * (size_t)c->n_layers + (size_t)first) * (size_t)g->run_cap + (size_t)n - 1;
}
/* The bit of its large visit, and the mask after a visit. */
static inline unsigned px_mask_of(const px_graph *g, int node) { return g->bit[node] < 0 ? 0u : 1u << g->bit[node]; }
static inline unsigned px_mask_after(const px_graph *g, unsigned mask, int node, bool small) {
    return mask | (small ? 0 : px_mask_of(g, node)) | (g->cover ? 1u << (g->n_bits / 2 + node) : 0);
}

/* Allocates the tables of w for (sec, damage) and fills them. */
bool dil__px_weight_init(const px_core *c, const px_graph *g, px_weight *w, double sec, double damage, const double *price, int n_units);
static inline double px_file_credit(const px_core *c, const px_weight *w) { return w->file > 0 ? w->file * c->file_max : 0; }
/* Seconds that no plan within the budgets can beat when its weighted cost is at least `cost`; 0 where the weight has no seconds. */
static inline double px_seconds(const px_core *c, const px_weight *w, double cost) {
    return w->sec > 0 ? (cost - w->damage * c->damage_max * (1 + 1e-10) - px_file_credit(c, w) - w->credit) / w->sec - c->sec_credit : 0;
}
void dil__px_weight_fini(px_weight *w);
/* Cheapest way through that starts on s. */
double dil__px_root_from(const px_core *c, const px_graph *g, const px_weight *w, int s);
/* The visits of a cheapest way through; -> their number, 0 when there is none. */
int dil__px_relaxed(const px_core *c, const px_graph *g, const px_weight *w, px_visit *visit);

/* --- path_plan.c: plans from structures ------------------------------------------------------------------------------- */

typedef struct px_plan {
    int *node, *level; /* [L] */
    double sec, damage;
    bool found;
    struct dil__trail *trail; /* of the better plans; may be NULL */
} px_plan;

/* A plan of n_layers becomes *best. */
void dil__px_take(px_plan *best, int n_layers, const int *node, const int *level, double sec, double damage);

/* Seconds and damage of (node, level); false when a store or a link forbids it. The damage budget is not looked at. */
bool dil__px_evaluate(const px_core *c, const int *node, const int *level, double *sec, double *damage);
static inline double px_budget(const px_core *c) { return c->damage_max * (1 + 1e-10); }
/* Chooses levels for the structure by bisection of the damage weight and keeps the plan when it beats *best. *w_damage: the
 * weight to start from, and the one found. */
bool dil__px_round(const px_core *c, const int *node, double *w_damage, px_plan *best);
/* Levels for the structure from the nodes' fronts within `slack` (weighted cost) of the weight on damage; keeps the plan when it beats
 * *best. false: no memory. */
bool dil__px_polish(const px_core *c, const int *node, double w_damage, double slack, px_plan *best);
/* Both one after the other. false: no memory. */
bool dil__px_round_well(const px_core *c, const int *node, double w_damage, px_plan *best);
/* Groups of a structure: [<= S], their layers in `layers` [L]. -> number of groups. */
int dil__px_groups(const px_core *c, const int *node, px_group *group, int *layers);

/* --- path_map.c ----------------------------------------------------------------------------------------------------------- */

typedef struct px_key { uint64_t a, b; } px_key;
typedef struct px_map px_map;
void dil__px_key_add(px_key *k, uint64_t x);
px_map *dil__px_map_new(void);
void dil__px_map_free(px_map *m);
uint32_t *dil__px_map_at(px_map *m, px_key k, bool *is_new); /* where k's value stands, 0 when new; NULL: no memory */

/* --- path_root.c: multipliers ------------------------------------------------------------------------------------------- */

typedef struct px_root {
    const px_core *c;
    const px_graph *g;
    px_plan *best;   /* the best of the plans met on the way */
    int n_units;
    int64_t deadline_ns;
    bool no_path;    /* out: not even the relaxation has a plan */
    double bound, best_damage, *best_price; /* out: seconds, and the weight [S] that proves them */
    double plain_bound, plain_damage;       /* out: the same without prices */
    px_weight w;
    px_visit *visit; /* [L] */
    int n_visits;
    int *node, *level; /* [L] */
    double *used;      /* [S] bytes of the relaxed plan */
    px_map *rounded;   /* structures met */
} px_root;

double dil__px_first_weight(const px_core *c); /* a guess of seconds a unit of damage */
bool dil__px_root_init(px_root *r); /* after c, g, best, n_units, deadline_ns */
bool dil__px_root_run(px_root *r, int n_steps); /* false: no memory */
bool dil__px_root_again(px_root *r, int n_steps); /* from the multipliers found, after the graph's masks have changed */
void dil__px_root_fini(px_root *r);

/* --- path_climb.c ------------------------------------------------------------------------------------------------------- */

/* A concave function is raised from z [n] on; z becomes the best point met. */
typedef struct px_climb {
    int n, rounds;      /* evaluations at most */
    double enough;      /* a value as good ends it */
    double still;       /* so does a relative gain below this over some steps */
    void *ctx;
    bool (*value_at)(void *ctx, const double *z, double *value, double *gradient); /* false: no memory */
    bool (*stop)(void *ctx); /* may be NULL */
    double *scratch;    /* [dil__px_climb_scratch(n)] */
    double best;        /* out */
} px_climb;
size_t dil__px_climb_scratch(int n);
bool dil__px_climb(px_climb *c, double *z, double step); /* step: its first length */

/* --- path_twin.c: equal nodes ------------------------------------------------------------------------------------------- */

/* twin [S]; the first and last layer's nodes are nobody's twins where they are known. hop must be dense. -> any */
bool dil__px_find_twins(const px_core *c, int *twin);
/* Values by node (v[s * stride]) become the mean of their twins'. */
void dil__px_level_twins(const px_core *c, double *v, size_t stride);

/* --- path_tree.c: the exact search ------------------------------------------------------------------------------------ */

typedef struct px_tree {
    const px_core *c;
    const px_graph *g;
    const px_weight *w;  /* for bounds, the one that prunes most first */
    int n_w;
    const px_weight *leaf_w; /* without prices or tables, for levels of whole structures */
    int n_leaf_w;
    px_plan *best;
    double stop_at;      /* a plan this good is enough */
    double rel_gap;      /* subtrees that cannot improve by more are left */
    int64_t deadline_ns;
    uint64_t most;       /* search nodes; 0: any number */
    double lost;         /* least bound of what was left unexplored */
    const dil_progress *progress;
    bool canceled, exhausted; /* out; the second: `most` was reached */
    uint64_t n_nodes, n_leaves, n_fronts, n_unions;
} px_tree;

static inline double px_target(const px_tree *t) { return t->best->found ? t->best->sec * (1 - t->rel_gap) : INFINITY; }
/* Weighted cost that a plan faster than `upper` cannot pass. */
static inline double px_limit(const px_core *c, const px_weight *w, double upper) {
    const double limit = (w->sec > 0 ? w->sec * (upper + c->sec_credit) : 0) + w->damage * c->damage_max * (1 + 1e-10) + px_file_credit(c, w) +
                         w->credit;
    return limit + 1e-12 * fabs(limit);
}

/* Explores every structure that may beat best. false: no memory. */
bool dil__px_tree_run(px_tree *t);

/* --- path_part.c: some of the nodes --------------------------------------------------------------------------------------- */

/* The problem over some of the nodes, its hops dense. */
typedef struct px_part {
    px_core core;
    double *sec, *store, *hop, *source, *sink;
} px_part;
/* node [n]; inner becomes `whole` in the part's numbers where it only uses its nodes. false: no memory, and nothing to free. */
bool dil__px_part_init(px_part *k, const px_core *c, const int *node, int n, const px_plan *whole, px_plan *inner);
/* Takes inner over into whole when it is better, and frees both part and inner. */
void dil__px_part_fini(px_part *k, const int *node, px_plan *inner, px_plan *whole);

/* --- path_lns.c: structures by parts ------------------------------------------------------------------------------------ */

/* Least hop to the layer + start[t] over the nodes t that follow s. */
double dil__px_least_next(const px_core *c, int s, int layer, const double *start);

enum { PX_LNS_WEIGHTS = 4 };
typedef struct px_lns px_lns;
/* w [n_w <= PX_LNS_WEIGHTS]: large visits, without prices; borrowed. */
px_lns *dil__px_lns_new(const px_core *c, const px_graph *g, const px_weight *w, int n_w, uint64_t seed);
void dil__px_lns_free(px_lns *x);
/* A first structure, rounded into best. false: no memory. */
bool dil__px_lns_beam(px_lns *x, px_plan *best, int room);
/* CPU time of this thread. What is limited by it finds no worse plans where others need the machine too. */
int64_t dil__px_cpu_ns(void);
/* Improves best (found) window by window, until one of the two times is there. false: no memory. */
bool dil__px_lns_run(px_lns *x, px_plan *best, int n_perturb, int64_t cpu_until_ns, int64_t deadline_ns);

/* --- path_big.c: hundreds of nodes and more ----------------------------------------------------------------------------- */

/* What the search over all nodes hands to the search over those that are left. */
typedef struct px_big {
    const px_core *c;
    px_plan *best;       /* in and out */
    double gap;          /* nodes that cannot improve a plan by more are dropped */
    int n_threads, keep; /* stop at so few nodes */
    bool few_links;      /* of what there could be: a way is local */
    int64_t deadline_ns;
    bool no_path;        /* out: not even the relaxation has a plan */
    double bound;        /* out: seconds */
    double lost;         /* out: least bound of what was dropped */
    double damage, *price; /* out: multipliers, [S] */
    int *node, n_nodes;  /* out: nodes that are left, [S] */
} px_big;
bool dil__px_big_run(px_big *b); /* false: no memory. node, price are the caller's to free */

/* --- path.c ------------------------------------------------------------------------------------------------------------ */

typedef struct px_options {
    double gap;      /* relative: a plan this close to its bound ends the search */
    double stop_at;  /* so does a plan this fast */
    int64_t deadline_ns;
    int n_threads;
    int keep;        /* more nodes than these are thinned out first; 0: the default */
    const dil_progress *progress; /* may be NULL */
    uint64_t few;    /* search nodes, before masks say which nodes were visited; 0: the default, for few nodes none */
    bool notes_bounds; /* bounds are of everything: best's trail may have them */
} px_options;

typedef struct px_report {
    double bound;    /* proved; INFINITY: there is no plan */
    bool canceled;
    bool complete;   /* the search came to its end: best is optimal within the gap, or there is no plan */
    double plain_bound, root_bound, root_best, root_sec, weights_sec;
    uint64_t n_nodes, n_leaves, n_fronts, n_unions;
    bool restarted;  /* there were two searches, the second with masks that say more */
} px_report;

/* The exact search over the nodes node [n] of c. run_max [n][L] when all that matters is known to begin there and to be no longer: then without
 * masks, for few visits; NULL: everything. most: search nodes, 0: any number. report: of that part. false: no memory. */
bool dil__px_solve_part(const px_core *c, const px_options *o, const int *node, int n, const int *run_max, uint64_t most, px_plan *best, px_report *report);
/* best->node and best->level [L] are the caller's; best->found may hold a plan to start from. */
dil_status dil__px_solve(const px_core *c, const px_options *o, px_plan *best, px_report *report, dil_err *err);

#endif
