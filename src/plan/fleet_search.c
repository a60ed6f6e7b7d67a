/* Plans for a fleet: one member after the other within what is left, at prices that say what the room is worth to the rest; then
 * members solved again beside the others, alone and in small groups taken out together, while that finds better plans.
 *
 * The plans of the order given, without prices, are always among those compared, so the result is never worse than placing one model after the
 * other. Every solve is `path`'s, from the member's plan on where it has one. */
#include "plan/fleet_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ROUGH_GAP 5e-3   /* of a solve whose result is solved again */
#define MOST_FACTOR 1.5  /* of the prices */
#define FROM_NOTHING 4   /* slices: a first plan must be found */
#define LAST_SHARE 0.2   /* of the time, for every member once more over all nodes */
enum { TRIES = 24, GROUP_MAX = 3, FEW = 5, MANY_NODES = 11 };

typedef struct search {
    dil__fleet *f;
    int64_t end_ns;
    double slice_sec;       /* of one solve, at most */
    int tries;              /* in a row that bring nothing */
    uint32_t few;           /* nodes of one solve beside its plan's; 0: all */
    double *left, *price;   /* [keys] */
    uint32_t *node, *level; /* [L] scratch */
    uint32_t **kept;        /* [n] the best plans: node, then level */
    double kept_cost;       /* INFINITY: none */
    bool settled[DIL_FLEET_MAX]; /* solved beside the others as they are */
    dil_rng rng;
} search;

/* --- plans that are kept -------------------------------------------------------------------------------------------------- */

static void keep(search *x)
{
    double cost = dil__fleet_cost(x->f);
    if (!(cost < x->kept_cost)) return;
    for (uint32_t i = 0; i < x->f->n; i++) {
        const dil__member *v = &x->f->v[i];
        memcpy(x->kept[i], v->node, v->p->n_layers * sizeof *v->node);
        memcpy(x->kept[i] + v->p->n_layers, v->level, v->p->n_layers * sizeof *v->level);
    }
    x->kept_cost = cost;
}

static dil_status go_back(search *x, dil_err *err)
{
    dil_status s = DIL_OK;
    for (uint32_t i = 0; i < x->f->n && s == DIL_OK; i++) {
        dil__member *v = &x->f->v[i];
        v->placed = false;
        if (isfinite(x->kept_cost)) s = dil__fleet_place(x->f, v, x->kept[i], x->kept[i] + v->p->n_layers, err);
    }
    return s;
}

static double sec_left(const search *x)
{
    return (double)(x->end_ns - dil_now_ns()) * 1e-9;
}

/* --- steps ------------------------------------------------------------------------------------------------------------------ */

/* The member's plan beside the others; *found: there is one, better than its own where it has one. */
static dil_status solve_one(search *x, dil__member *v, double factor, bool *found, dil_err *err)
{
    dil__fleet *f = x->f;
    dil_err why = {0};
    dil__fleet_solve o = {.left = x->left, .gap = x->few ? fmax(f->gap, ROUGH_GAP) : f->gap, .limit_sec = fmin(x->slice_sec * (v->placed ? 1 : FROM_NOTHING), fmax(sec_left(x), 0.02)),
                          .from_plan = v->placed, .few = x->few, .node = x->node, .level = x->level};
    double was = v->placed ? v->cost : INFINITY;
    *found = false;
    dil__fleet_left(f, v, x->left);
    for (size_t k = 0; factor > 0 && k < dil__fleet_keys(f); k++) x->price[k] = factor * f->price[k];
    if (factor > 0) o.price = x->price;
    dil_status s = dil__fleet_solve_member(f, v, &o, &why);
    dil_log(DIL_LOG_DEBUG, "fleet", "member %d: factor %.3g, limit %.3g s: %s, kept %.6g", (int)(v - f->v), factor, o.limit_sec, s == DIL_OK ? "found" : why.text, x->kept_cost);
    if (s == DIL_ETIMEOUT) x->slice_sec = fmin(2 * x->slice_sec, fmax(x->slice_sec, 0.2 * sec_left(x) / f->n));
    if (s == DIL_EINFEASIBLE || s == DIL_ETIMEOUT) return DIL_OK;
    if (s != DIL_OK) return dil_fail(err, s, "%s", why.text);
    dil_use u;
    s = dil_problem_check(v->p, o.node, o.level, &u, err);
    *found = s == DIL_OK && v->weight * dil__goal_cost(&u, f->goal) < was * (1 - 1e-12);
    return *found || s != DIL_OK ? s == DIL_OK ? dil__fleet_place(f, v, o.node, o.level, err) : s : DIL_OK;
}

/* Members join in this order; *all: each found room. One that does not comes earlier, some times. */
static dil_status join(search *x, uint32_t *order, uint32_t n, double factor, bool *all, dil_err *err)
{
    *all = false;
    for (uint32_t tries = 0; tries <= n && !*all; tries++) {
        uint32_t k = 0;
        bool found = true;
        for (uint32_t i = 0; i < n; i++) x->f->v[order[i]].placed = false;
        for (; k < n && found && sec_left(x) >= 0; k++) {
            dil_status s = solve_one(x, &x->f->v[order[k]], k + 1 < n || n == 1 ? factor : 0, &found, err);
            if (s != DIL_OK) return s;
        }
        *all = found && k == n;
        if (*all || sec_left(x) < 0) return DIL_OK;
        uint32_t late = order[--k];
        memmove(order + 1, order, k * sizeof *order);
        order[0] = late;
    }
    return DIL_OK;
}

/* Each member again beside the others until none gains. */
static dil_status refine(search *x, dil_err *err)
{
    for (uint32_t i = 0, still = 0; still < x->f->n && sec_left(x) > 0; i = (i + 1) % x->f->n) {
        bool found = false;
        if (!x->settled[i]) {
            dil_status s = solve_one(x, &x->f->v[i], 0, &found, err);
            if (s != DIL_OK) return s;
            if (found) memset(x->settled, 0, sizeof x->settled);
            x->settled[i] = true;
        }
        still = found ? 0 : still + 1;
    }
    return DIL_OK;
}

static dil_status attempt(search *x, uint32_t *order, uint32_t n, double factor, dil_err *err)
{
    bool all;
    memset(x->settled, 0, sizeof x->settled);
    dil_status s = join(x, order, n, factor, &all, err);
    if (s == DIL_OK && all) {
        keep(x);
        s = refine(x, err);
    }
    if (s == DIL_OK && all) keep(x);
    return s == DIL_OK ? go_back(x, err) : s;
}

static void shuffle(dil_rng *r, uint32_t *v, uint32_t n)
{
    for (uint32_t i = n; i > 1; i--) {
        uint32_t k = (uint32_t)dil_rng_below(r, i), t = v[i - 1];
        v[i - 1] = v[k];
        v[k] = t;
    }
}

/* The members by the weight of their delay, which comes first where it is largest; or as they are. */
static void sort_order(const search *x, uint32_t *order, bool by_weight)
{
    for (uint32_t i = 0; i < x->f->n; i++) {
        uint32_t k = i;
        for (; by_weight && k > 0 && x->f->v[order[k - 1]].m->weight < x->f->v[i].m->weight; k--) order[k] = order[k - 1];
        order[k] = i;
    }
}

static bool goes_on(const search *x)
{
    return sec_left(x) > 0 && !dil__fleet_closed(x->f);
}

static bool many_nodes(const search *x)
{
    return x->f->cluster->n_nodes > MANY_NODES;
}

/* In the order given without prices first, where nodes are few all of them at every solve: that is what the result is not to be worse than. */
static dil_status first_plans(search *x, dil_err *err)
{
    static const double factors[] = {0, 0, 1, 0.5};
    uint32_t order[DIL_FLEET_MAX];
    dil_status s = DIL_OK;
    keep(x);
    for (size_t k = 0; k < sizeof factors / sizeof *factors && s == DIL_OK && goes_on(x); k++) {
        sort_order(x, order, k > 0);
        x->few = k > 0 || many_nodes(x) ? FEW : 0;
        s = attempt(x, order, x->f->n, factors[k], err);
    }
    return s;
}

static dil_status run(search *x, dil_err *err)
{
    uint32_t order[DIL_FLEET_MAX], n = x->f->n;
    int64_t end_ns = x->end_ns;
    x->end_ns -= (int64_t)(LAST_SHARE * (double)(end_ns - dil_now_ns()));
    dil_status s = first_plans(x, err);
    for (int tries = 0; s == DIL_OK && tries < x->tries; tries++) {
        if (isinf(x->kept_cost)) x->end_ns = end_ns; /* plans first */
        if (!goes_on(x)) break;
        uint32_t group = isinf(x->kept_cost) ? n : 2 + (uint32_t)dil_rng_below(&x->rng, GROUP_MAX - 1);
        sort_order(x, order, false);
        shuffle(&x->rng, order, n);
        double was = x->kept_cost;
        s = attempt(x, order, group < n ? group : n, MOST_FACTOR * dil_rng_unit(&x->rng), err);
        if (x->kept_cost < was * (1 - 1e-9)) tries = 0;
    }
    x->end_ns = end_ns;
    x->few = 0;
    if (s != DIL_OK || isinf(x->kept_cost) || !goes_on(x)) return s;
    memset(x->settled, 0, sizeof x->settled);
    s = refine(x, err);
    keep(x);
    return s;
}

static bool open_search(search *x)
{
    size_t keys = dil__fleet_keys(x->f), L = 1;
    bool ok = (x->kept = calloc(x->f->n, sizeof *x->kept)) != NULL;
    for (uint32_t i = 0; i < x->f->n && ok; i++) {
        size_t n = x->f->v[i].p->n_layers;
        L = n > L ? n : L;
        ok = (x->kept[i] = calloc(2 * n, sizeof **x->kept)) != NULL;
    }
    x->left = calloc(2 * keys, sizeof *x->left);
    x->node = calloc(2 * L, sizeof *x->node);
    if (!ok || !x->left || !x->node) return false;
    x->price = x->left + keys;
    x->level = x->node + L;
    return true;
}

static void close_search(search *x)
{
    for (uint32_t i = 0; i < x->f->n && x->kept; i++) free(x->kept[i]);
    free(x->kept);
    free(x->left);
    free(x->node);
}

dil_status dil__fleet_search(dil__fleet *f, int64_t end_ns, bool short_one, dil_err *err)
{
    search x = {.f = f, .end_ns = end_ns, .kept_cost = INFINITY, .tries = short_one ? 1 : TRIES};
    x.slice_sec = fmax(0.05, sec_left(&x) / (20 * f->n));
    dil_rng_init(&x.rng, 1);
    dil_status s = open_search(&x) ? run(&x, err) : dil_fail(err, DIL_EMEMORY, "fleet: out of memory");
    if (s == DIL_OK) s = go_back(&x, err);
    if (s == DIL_OK && isinf(x.kept_cost)) s = dil_fail(err, DIL_ETIMEOUT, "no plans for all %u models were found in the time", f->n);
    close_search(&x);
    return s;
}

/* --- the baseline ------------------------------------------------------------------------------------------------------------ */

static dil_status solve_next(search *x, dil__member *v, dil_err *err)
{
    dil__fleet *f = x->f;
    dil__fleet_solve o = {.left = x->left, .gap = f->gap, .limit_sec = x->slice_sec, .from_plan = true, .node = x->node, .level = x->level};
    dil__fleet_left(f, v, x->left);
    f->goal = v->own_budget ? DIL_GOAL_SEC : DIL_GOAL_DAMAGE;
    v->weight = v->m->weight;
    for (;;) {
        dil_use u;
        dil_status s = dil__fleet_solve_member(f, v, &o, err);
        if (s == DIL_OK) s = dil_problem_check(v->p, o.node, o.level, &u, err);
        if (s == DIL_OK && f->goal == DIL_GOAL_DAMAGE) v->p->damage_max = (1 + v->m->options.slack) * u.damage;
        if (s == DIL_OK) s = dil__fleet_place(f, v, o.node, o.level, err);
        if (s != DIL_OK || f->goal == DIL_GOAL_SEC) return s;
        f->goal = DIL_GOAL_SEC;
    }
}

dil_status dil__fleet_in_turn(dil__fleet *f, dil_err *err)
{
    search x = {.f = f, .end_ns = f->end_ns};
    dil_status s = open_search(&x) ? DIL_OK : dil_fail(err, DIL_EMEMORY, "fleet: out of memory");
    x.slice_sec = sec_left(&x) / (2 * f->n);
    for (uint32_t i = 0; i < f->n && s == DIL_OK; i++) s = solve_next(&x, &f->v[i], err);
    f->goal = DIL_GOAL_SEC;
    close_search(&x);
    return s;
}
