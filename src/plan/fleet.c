/* Several models: what they share is priced, each is planned by `path` beside the others (fleet_price.c, fleet_search.c), and one program for
 * HiGHS closes what is small enough (fleet_mip.c). Measured against that program alone in docs/PLANNER.md. */
#include "plan/fleet_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TINY_COLUMNS = 2000, SMALL_COLUMNS = 20000, COLUMNS_MAX = 200000 };

double dil__fleet_sec_left(const dil__fleet *f)
{
    return (double)(f->end_ns - dil_now_ns()) * 1e-9;
}

double dil__fleet_cost(const dil__fleet *f)
{
    double sum = 0;
    for (uint32_t i = 0; i < f->n; i++) sum += f->v[i].placed ? f->v[i].cost : INFINITY;
    return sum;
}

bool dil__fleet_closed(const dil__fleet *f)
{
    double cost = dil__fleet_cost(f);
    return isfinite(cost) && cost - f->bound <= f->gap * cost;
}

/* --- one goal ------------------------------------------------------------------------------------------------------------- */

typedef struct alone { /* the members' plans as if each had the cluster for itself */
    uint32_t *node[DIL_FLEET_MAX], *level[DIL_FLEET_MAX]; /* NULL: none was found in the time */
    double *left, *use; /* [keys] */
} alone;

static dil_status solve_alone(dil__fleet *f, alone *x, uint32_t i, double limit_sec, dil_err *err)
{
    dil__member *v = &f->v[i];
    dil_err why = {0};
    uint32_t *node = calloc(2 * (size_t)v->p->n_layers, sizeof *node);
    if (!node) return dil_fail(err, DIL_EMEMORY, "fleet: out of memory");
    dil__fleet_solve o = {.left = x->left, .limit_sec = limit_sec, .gap = f->gap, .from_plan = true, .node = node, .level = node + v->p->n_layers};
    dil_status s = dil__fleet_solve_member(f, v, &o, &why);
    v->alone = v->weight > 0 ? fmax(0, o.bound) : 0;
    if (s == DIL_OK) {
        x->node[i] = node;
        x->level[i] = o.level;
        dil__fleet_add_use(f, v, o.node, o.level, x->use);
        return s;
    }
    free(node);
    if (s == DIL_ETIMEOUT) return DIL_OK;
    return s == DIL_EINFEASIBLE ? dil_fail(err, s, "no plans for all %u models meet the budgets together: model %u has none even alone", f->n, i) : dil_fail(err, s, "fleet: model %u: %.300s", i, why.text);
}

/* A bound for each member, and whether it has a plan at all. Where all of these fit together nothing is better. */
static dil_status plan_alone(dil__fleet *f, double limit_sec, dil_err *err)
{
    alone x = {.left = calloc(2 * dil__fleet_keys(f), sizeof *x.left)};
    dil_status s = x.left ? DIL_OK : dil_fail(err, DIL_EMEMORY, "fleet: out of memory");
    double sum = 0;
    bool all = true;
    x.use = x.left + dil__fleet_keys(f);
    for (size_t k = 0; k < dil__fleet_keys(f) && s == DIL_OK; k++) x.left[k] = 1;
    for (uint32_t i = 0; i < f->n && s == DIL_OK; i++) {
        s = solve_alone(f, &x, i, limit_sec / f->n, err);
        sum += f->v[i].alone;
        all = all && x.node[i];
    }
    for (size_t k = 0; k < dil__fleet_keys(f) && s == DIL_OK; k++) all = all && x.use[k] <= 1 + 1e-10;
    if (s == DIL_OK) f->bound = fmax(f->bound, sum);
    for (uint32_t i = 0; i < f->n; i++) {
        if (s == DIL_OK && all) s = dil__fleet_place(f, &f->v[i], x.node[i], x.level[i], err);
        free(x.node[i]);
    }
    free(x.left);
    return s;
}

/* With the best prices each member's problem once more by `path`, which knows its own limits: where that says more than its way did. */
static dil_status bound_by_path(dil__fleet *f, double limit_sec, dil_err *err)
{
    dil_status s = DIL_OK;
    double sum = 0, *left = calloc(dil__fleet_keys(f), sizeof *left);
    if (!left) return dil_fail(err, DIL_EMEMORY, "fleet: out of memory");
    for (size_t k = 0; k < dil__fleet_keys(f); k++) {
        left[k] = 1;
        sum -= f->price[k];
    }
    for (uint32_t i = 0; i < f->n && s == DIL_OK; i++) {
        dil__member *v = &f->v[i];
        dil_err why = {0};
        uint32_t *node = calloc(2 * (size_t)v->p->n_layers, sizeof *node);
        dil__fleet_solve o = {.left = left, .price = f->price, .limit_sec = limit_sec / f->n, .gap = f->gap, .from_plan = true, .node = node, .level = node + v->p->n_layers};
        s = node ? dil__fleet_solve_member(f, v, &o, &why) : DIL_EMEMORY;
        if (s == DIL_ETIMEOUT) s = DIL_OK;
        else if (s != DIL_OK) dil_fail(err, s, "fleet: model %u: %.300s", i, why.text);
        sum += fmax(v->priced, o.bound);
        free(node);
    }
    free(left);
    if (s == DIL_OK) f->bound = fmax(f->bound, sum);
    return s;
}

/* The share of the time that plans and prices get; the program has the rest. */
static double search_share(const dil__fleet *f)
{
    double columns = dil__fleet_mip_columns(f);
    if (f->how->method == DIL_FLEET_PRICES || columns > COLUMNS_MAX) return 1;
    return columns > SMALL_COLUMNS ? 0.7 : 0.3;
}

static dil_status plan_by_prices(dil__fleet *f, double limit_sec, dil_err *err)
{
    int64_t end = dil_now_ns() + (int64_t)(limit_sec * 1e9);
    dil_status s = f->n > 1 ? dil__fleet_raise(f, 0.15 * limit_sec, err) : DIL_OK;
    if (s == DIL_OK && f->bound == INFINITY) return dil_fail(err, DIL_EINFEASIBLE, "no plans for all %u models meet the budgets together", f->n);
    bool large = f->n > 1 && dil__fleet_mip_columns(f) > COLUMNS_MAX; /* a solve over all nodes takes long, and the others will share its nodes */
    if (s == DIL_OK && !large) s = plan_alone(f, f->n > 1 ? 0.2 * limit_sec : limit_sec, err);
    if (s != DIL_OK || dil__fleet_closed(f) || f->n == 1) return s;
    bool program_follows = f->how->method != DIL_FLEET_PRICES && dil__fleet_mip_columns(f) < TINY_COLUMNS;
    s = dil__fleet_search(f, end - (int64_t)(0.2e9 * limit_sec), program_follows, err);
    if (s == DIL_ETIMEOUT && f->how->method != DIL_FLEET_PRICES) s = DIL_OK; /* the program may find some */
    if (s == DIL_OK && !dil__fleet_closed(f) && !program_follows) s = bound_by_path(f, 0.2 * limit_sec, err);
    return s;
}

static dil_status plan_goal(dil__fleet *f, dil_err *err)
{
    dil_status s = DIL_OK;
    double share = search_share(f);
    f->bound = 0; /* costs are not negative */
    memset(f->price, 0, dil__fleet_keys(f) * sizeof *f->price);
    if (f->how->method != DIL_FLEET_PROGRAM) s = plan_by_prices(f, share * dil__fleet_sec_left(f), err);
    if (s != DIL_OK || (isfinite(dil__fleet_cost(f)) && (share == 1 || dil__fleet_closed(f)))) return s;
    if (share == 1 && f->how->method != DIL_FLEET_PROGRAM) return dil_fail(err, DIL_ETIMEOUT, "no plans for all %u models were found in the time", f->n);
    s = dil__fleet_mip(f, err);
    return s == DIL_ETIMEOUT && isfinite(dil__fleet_cost(f)) ? DIL_OK : s;
}

/* --- the goals in turn ---------------------------------------------------------------------------------------------------- */

/* Damage budgets of the members without one: the least sum, each (1 + slack) of its part. */
static dil_status set_quality(dil__fleet *f, dil_err *err)
{
    bool any = false;
    for (uint32_t i = 0; i < f->n; i++) {
        f->v[i].weight = f->v[i].own_budget ? 0 : 1;
        any = any || !f->v[i].own_budget;
    }
    if (!any) return DIL_OK;
    int64_t end = f->end_ns, now = dil_now_ns();
    f->end_ns = now + (int64_t)(0.4 * (double)(end - now));
    f->goal = DIL_GOAL_DAMAGE;
    dil_status s = plan_goal(f, err);
    f->end_ns = end;
    for (uint32_t i = 0; i < f->n && s == DIL_OK; i++) {
        if (f->v[i].weight > 0) f->v[i].p->damage_max = (1 + f->v[i].m->options.slack) * f->v[i].cost;
    }
    return s;
}

static dil_status solve(dil__fleet *f, dil_err *err)
{
    dil_status s = set_quality(f, err);
    f->goal = DIL_GOAL_SEC;
    for (uint32_t i = 0; i < f->n; i++) f->v[i].weight = f->v[i].m->weight;
    for (uint32_t i = 0; i < f->n && s == DIL_OK; i++) { /* the plans of least damage are plans to start from */
        dil__member *v = &f->v[i];
        if (v->placed) s = dil__fleet_place(f, v, v->node, v->level, err);
    }
    return s == DIL_OK ? plan_goal(f, err) : s;
}

/* --- the whole ---------------------------------------------------------------------------------------------------------- */

static dil_status check_call(const dil_fleet_model *models, uint32_t n, const dil_fleet_how *how, dil_err *err)
{
    double load_max = 0;
    if (n == 0 || n > DIL_FLEET_MAX) return dil_fail(err, DIL_EUSAGE, "%u models, allowed 1 to %d", n, DIL_FLEET_MAX);
    if (!(how->limit_sec > 0) || !(how->gap >= 0)) return dil_fail(err, DIL_EUSAGE, "a time limit of %g s, a gap of %g", how->limit_sec, how->gap);
    for (uint32_t i = 0; i < n; i++) {
        if (!(models[i].weight > 0 && models[i].weight <= 1e9)) return dil_fail(err, DIL_EUSAGE, "model %u: a weight of %g, expected above 0", i, models[i].weight);
        if (!(models[i].options.rate > 0)) continue;
        if (load_max > 0 && models[i].options.load_max != load_max) return dil_fail(err, DIL_EUSAGE, "model %u: another highest load than the others", i);
        load_max = models[i].options.load_max;
    }
    return DIL_OK;
}

static dil_status open_member(dil__fleet *f, dil__member *v, const dil_fleet_model *m, dil_err *err)
{
    *v = (dil__member){.m = m, .own_budget = isfinite(m->options.max_damage) || isfinite(m->options.max_loss_increase)};
    v->node_of = calloc(m->profile->n_nodes, sizeof *v->node_of);
    v->in_cluster = calloc(m->profile->n_nodes, sizeof *v->in_cluster);
    v->node = calloc(m->profile->n_layers, sizeof *v->node);
    v->level = calloc(m->profile->n_layers, sizeof *v->level);
    v->link_of = calloc(f->cluster->n_links + 1u, sizeof *v->link_of);
    v->use = calloc(dil__fleet_keys(f), sizeof *v->use);
    if (!v->node_of || !v->in_cluster || !v->node || !v->level || !v->link_of || !v->use) return dil_fail(err, DIL_EMEMORY, "fleet: out of memory");
    dil_status s = dil_problem_from_profile(m->profile, f->cluster, &m->options, &v->p, v->node_of, err);
    if (s == DIL_OK) s = dil_problem_from_profile(m->profile, f->cluster, &m->options, &v->work, NULL, err);
    if (s != DIL_OK) return s;
    if (!dil__fleet_spread(v)) return dil_fail(err, DIL_EMEMORY, "fleet: out of memory");
    for (uint32_t i = 0; i < v->p->n_nodes; i++) v->in_cluster[i] = dil_cluster_find(f->cluster, m->profile->nodes[v->node_of[i]]);
    for (uint32_t i = 0; i < v->p->n_hops; i++)
        v->link_of[i] = (uint32_t)(dil_cluster_link_get(f->cluster, v->in_cluster[v->p->hops[i].from], v->in_cluster[v->p->hops[i].to]) - f->cluster->links);
    return DIL_OK;
}

static void close_member(dil__member *v)
{
    dil__milp_free(v->milp);
    dil_problem_free(v->p);
    dil_problem_free(v->work);
    free(v->spread);
    free(v->link_of);
    free(v->use);
    free(v->node_of);
    free(v->in_cluster);
    free(v->node);
    free(v->level);
}

static dil_status make_plans(dil__fleet *f, dil_plan **plans, dil_err *err)
{
    for (uint32_t i = 0; i < f->n; i++) {
        dil__member *v = &f->v[i];
        dil_use u;
        dil_err why = {0};
        if (dil_problem_check(v->p, v->node, v->level, &u, &why) != DIL_OK) return dil_fail(err, DIL_EINTERNAL, "fleet: model %u: %.300s", i, why.text);
        dil_solution s = {.n_layers = v->p->n_layers, .node = v->node, .level = v->level, .solver = "fleet"};
        dil_status ok = dil__plan_unbudgeted(v->m->profile, f->cluster, &v->m->options, &s, v->node_of, &plans[i], err);
        if (ok != DIL_OK) return ok;
        plans[i]->bound_sec = 0;
        plans[i]->gap = 1;
    }
    return DIL_OK;
}

dil_status dil_fleet_plan(const dil_fleet_model *models, uint32_t n, const dil_cluster *cluster, const dil_fleet_how *how, dil_plan **plans,
                          dil_fleet_result *r, dil_err *err)
{
    dil_status s = check_call(models, n, how, err);
    if (s != DIL_OK) return s;
    int64_t start = dil_now_ns();
    dil__member v[DIL_FLEET_MAX] = {0};
    dil_plan *made[DIL_FLEET_MAX] = {0};
    dil__fleet f = {.v = v, .n = n, .cluster = cluster, .how = how, .gap = how->gap > 0 ? how->gap : 1e-3, .end_ns = start + (int64_t)(how->limit_sec * 1e9)};
    *r = (dil_fleet_result){0};
    if (!(f.price = calloc(dil__fleet_keys(&f), sizeof *f.price))) return dil_fail(err, DIL_EMEMORY, "fleet: out of memory");
    for (uint32_t i = 0; i < n && s == DIL_OK; i++) s = open_member(&f, &v[i], &models[i], err);
    if (s == DIL_OK) s = how->method == DIL_FLEET_IN_TURN ? dil__fleet_in_turn(&f, err) : solve(&f, err);
    if (s == DIL_OK) s = make_plans(&f, made, err);
    if (s == DIL_OK) {
        dil_err why = {0};
        r->objective = 0;
        for (uint32_t i = 0; i < n; i++) r->objective += models[i].weight * made[i]->total_sec;
        if (dil_fleet_check(models, n, cluster, made, &why) != DIL_OK) s = dil_fail(err, DIL_EINTERNAL, "fleet: its plans fail the check: %.300s", why.text);
    }
    r->bound = fmax(0, fmin(f.bound, r->objective));
    r->gap = r->objective > 0 ? (r->objective - r->bound) / r->objective : 0;
    r->solve_sec = (double)(dil_now_ns() - start) * 1e-9;
    for (uint32_t i = 0; i < n; i++) {
        close_member(&v[i]);
        if (s == DIL_OK) plans[i] = made[i];
        else dil_plan_free(made[i]);
    }
    free(f.price);
    return s;
}
