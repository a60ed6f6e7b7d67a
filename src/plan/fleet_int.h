/* plan/fleet_int.h - inside the planning of several models: the members, what they share, and the three ways to plan them.
 *
 * What is shared is a list of keys, each of capacity 1: of every node of the cluster its store, its time, its connection out and in, then
 * every link (DIL__TAG_STORE.. of milp.h). A member's use of a key is its share of that capacity. */
#ifndef DIL_PLAN_FLEET_INT_H
#define DIL_PLAN_FLEET_INT_H

#include <dilemma/fleet.h>

#include "plan/milp.h"

typedef struct dil__member {
    const dil_fleet_model *m;
    dil_problem *p;         /* alone on the cluster */
    dil_problem *work;      /* the same; seconds, stores and loads are overwritten for every solve (fleet_rest.c) */
    dil__milp *milp;
    uint32_t *node_of, *in_cluster; /* [S] in the profile, in the cluster */
    uint32_t *link_of;      /* [n_hops] in the cluster */
    double weight;          /* of its goal; 0: any plan will do */
    double *spread;         /* [L] bytes of buffer that a layer is sure to take, see dil__fleet_spread */
    uint32_t *node, *level; /* [L] its plan, where `placed` */
    double *use, cost;      /* [keys] of that plan, and its weighted goal */
    double alone, priced;   /* proved: no plan of it costs less, and none at f->price */
    bool placed, own_budget;
} dil__member;

typedef struct dil__fleet {
    dil__member *v;         /* [n] */
    uint32_t n;
    const dil_cluster *cluster;
    const dil_fleet_how *how;
    dil_goal goal;          /* of all members: seconds or damage */
    double gap, bound;      /* bound: proved for the weighted sum */
    double *price;          /* [keys] of the best bound by prices, all 0 before */
    int64_t end_ns;
} dil__fleet;

static inline size_t dil__fleet_keys(const dil__fleet *f) { return (size_t)DIL__TAG_LINK * f->cluster->n_nodes + f->cluster->n_links; }
static inline size_t dil__fleet_node_key(const dil__fleet *f, const dil__member *v, int kind, uint32_t s)
{
    return (size_t)kind * f->cluster->n_nodes + v->in_cluster[s];
}
static inline size_t dil__fleet_link_key(const dil__fleet *f, const dil__member *v, uint32_t hop)
{
    return (size_t)DIL__TAG_LINK * f->cluster->n_nodes + v->link_of[hop];
}
double dil__fleet_sec_left(const dil__fleet *f);
double dil__fleet_cost(const dil__fleet *f); /* the weighted sum over the members, INFINITY where one has no plan */
bool dil__fleet_closed(const dil__fleet *f); /* there are plans for all, proved within the gap */

/* --- fleet_rest.c: one member beside the others ------------------------------------------------------------------------- */

/* use [keys] += the plan's. */
void dil__fleet_add_use(const dil__fleet *f, const dil__member *v, const uint32_t *node, const uint32_t *level, double *use);
/* left [keys]: what the members that are placed leave, without `except` (NULL: of all). */
void dil__fleet_left(const dil__fleet *f, const dil__member *except, double *left);
/* Buffers as bytes of the layers: a node's buffer is at least the sum over its layers, whatever plan it is. */
bool dil__fleet_spread(dil__member *v);

typedef struct dil__fleet_solve {
    const double *left;     /* [keys] */
    const double *price;    /* [keys] weighted cost of the whole key; NULL: none */
    double limit_sec, gap;
    bool from_plan;         /* the member's plan is a start */
    uint32_t few;           /* only the member's own and so many nodes that promise most, the bound is none then; 0: all nodes */
    uint32_t *node, *level; /* out [L] */
    double bound;           /* out: no plan costs less, its use priced and never charged too high; -INFINITY */
} dil__fleet_solve;
/* DIL_EINFEASIBLE, DIL_ETIMEOUT and DIL_ECANCELED as dil_plan_solve, without a search for the reason. */
dil_status dil__fleet_solve_member(const dil__fleet *f, dil__member *v, dil__fleet_solve *o, dil_err *err);
/* The plan becomes the member's. DIL_EINTERNAL: it breaks its own budgets. */
dil_status dil__fleet_place(const dil__fleet *f, dil__member *v, const uint32_t *node, const uint32_t *level, dil_err *err);

/* --- fleet_price.c: bounds by prices ------------------------------------------------------------------------------------- */

/* Raises f->bound and sets f->price, until it stands still or limit_sec passed; a bound of INFINITY: not even the relaxation has plans. */
dil_status dil__fleet_raise(dil__fleet *f, double limit_sec, dil_err *err);

typedef struct dil__scout { /* what the ways through a member's `work` at ever better prices say */
    double *count;          /* [S] zeroed: how much the last ones use each node */
    uint32_t *node, *level; /* [L] the best of them that is a plan, where sec < INFINITY */
    double sec;
    bool none;              /* there is no way at all, and no plan */
} dil__scout;
dil_status dil__fleet_scout(const dil__fleet *f, const dil__member *v, double limit_sec, dil__scout *x, dil_err *err);

/* --- fleet_search.c: plans ----------------------------------------------------------------------------------------------- */

/* Each member in its order within what those before it leave, as well as can be. Members without a quality budget: least damage first. */
dil_status dil__fleet_in_turn(dil__fleet *f, dil_err *err);
/* Plans for all, and better ones, with the prices at hand, until `end_ns` or nothing more is found, which is soon in a short one.
 * DIL_ETIMEOUT: no plans for all. */
dil_status dil__fleet_search(dil__fleet *f, int64_t end_ns, bool short_one, dil_err *err);

/* --- fleet_mip.c: one program --------------------------------------------------------------------------------------------- */

double dil__fleet_mip_columns(const dil__fleet *f); /* about so many */
/* Plans and f->bound by HiGHS, from the members' plans where all have one, until f->end_ns. DIL_ETIMEOUT: nothing (better) was found. */
dil_status dil__fleet_mip(dil__fleet *f, dil_err *err);

#endif
