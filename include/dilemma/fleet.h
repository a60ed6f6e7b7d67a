/* dilemma/fleet.h - several models on one cluster at once: memory, compute and links shared, budgets and weight each its own.
 *
 *   dil_fleet_model m[2] = {{profile_a, options_a, 1}, {profile_b, options_b, 1}};
 *   dil_plan *plans[2];  dil_fleet_result r;
 *   dil_fleet_plan(m, 2, cluster, &how, plans, &r, err);
 *
 * Minimises the sum over the models of weight times the delay of an answer, jointly, and says how far from the least it can be: prices on what
 * is shared and a search over the models' plans, and for few of them one integer program, which is exact where it ends.
 * docs/PLANNER.md, "Several models". */
#ifndef DILEMMA_FLEET_H
#define DILEMMA_FLEET_H

#include <dilemma/problem.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DIL_FLEET_MAX 32

typedef struct dil_fleet_model {
    const dil_profile *profile;
    dil_plan_options options; /* budgets, tokens, context, entry; its rate loads nodes and links, its limit_sec and solver are not read */
    double weight;            /* > 0; of a model asked at a rate usually the rate */
} dil_fleet_model;

typedef enum dil_fleet_method {
    DIL_FLEET_AUTO,           /* prices, then the program where it is small enough */
    DIL_FLEET_PRICES,
    DIL_FLEET_PROGRAM,        /* one program for HiGHS and nothing else */
    DIL_FLEET_IN_TURN         /* a baseline: models in their order, each as well as the ones before it leave room for */
} dil_fleet_method;

typedef struct dil_fleet_how {
    double limit_sec, gap;    /* > 0; 0: 1e-3 */
    dil_fleet_method method;
    const dil_progress *progress;
} dil_fleet_how;

typedef struct dil_fleet_result {
    double objective;         /* sum of weight * total_sec */
    double bound;             /* <= objective: proved for every set of plans; 0 in turn */
    double gap, solve_sec;
} dil_fleet_result;

/* plans [n], each owned: dil_plan_free. A plan's own bound_sec is not proved (0). Without a quality budget in any of its forms a model's
 * damage is first made least, the sum over such models jointly, and may then be (1 + slack) of what it came to. All models with a rate
 * have the same load_max. Errors: DIL_EINFEASIBLE there are no plans for all; DIL_ETIMEOUT none were found; DIL_EUSAGE; DIL_ELIMIT. */
dil_status dil_fleet_plan(const dil_fleet_model *models, uint32_t n, const dil_cluster *cluster, const dil_fleet_how *how, dil_plan **plans,
                          dil_fleet_result *r, dil_err *err);

/* The referee of several plans: each by dil_plan_predict, and together memory (weights, KV, and every model's own buffer), compute, links
 * and connections, recomputed from the profiles. DIL_EINFEASIBLE names the first that does not fit. */
dil_status dil_fleet_check(const dil_fleet_model *models, uint32_t n, const dil_cluster *cluster, dil_plan *const *plans, dil_err *err);

#ifdef __cplusplus
}
#endif
#endif
