/* Several solvers on one problem. A plan that breaks a budget is shown with its figures all the same: the referee from measurements is
 * asked with the budgets lifted, so that the only thing it may refuse is a missing link. */
#include "plan/problem_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void fill_row(const dil_problem *p, const dil_solve_options *o, const char *name, dil_compare_row *r, dil_solution **s)
{
    dil_err why = {0};
    dil_use u = {0};
    dil_solve_options so = *o;
    so.solver = name;
    *r = (dil_compare_row){.token_sec = NAN, .prefill_sec = NAN, .total_sec = NAN, .damage = NAN, .ratio_to_fp32 = NAN};
    int64_t start = dil_now_ns();
    r->status = dil__solve_any(p, &so, s, &why);
    r->solve_sec = (double)(dil_now_ns() - start) * 1e-9;
    snprintf(r->solver, sizeof r->solver, "%s", r->status == DIL_OK && strcmp(name, "auto") == 0 ? (*s)->solver : name);
    if (r->status != DIL_OK) {
        const char *text = strncmp(why.text, name, strlen(name)) == 0 ? strstr(why.text + strlen(name), ": ") : NULL;
        const char *first = strstr(why.text, ": "); /* "baseline:x+levels" says "baseline:x: " */
        if (!text && strncmp(why.text, "baseline:", 9) == 0) text = first;
        snprintf(r->why, sizeof r->why, "%.250s", text ? text + 2 : why.text);
    }
    if (!*s) return;
    dil_status checked = dil_problem_check(p, (*s)->node, (*s)->level, &u, NULL);
    r->has_plan = u.connected;
    r->total_sec = u.sec;
    r->damage = u.damage;
    if (checked == DIL_OK) r->bound_sec = (*s)->bound;
}

dil_status dil_problem_compare(const dil_problem *p, const dil_solve_options *options, const char *const *names, uint32_t n,
                               dil_compare_row *rows, dil_err *err)
{
    dil_status ok = dil_problem_validate(p, err);
    for (uint32_t i = 0; i < n && ok == DIL_OK; i++) {
        dil_solution *s;
        fill_row(p, options, names[i], &rows[i], &s);
        dil_solution_free(s);
        if (rows[i].status == DIL_ECANCELED) ok = dil_fail(err, DIL_ECANCELED, "planning was canceled");
    }
    return ok;
}

/* The same measurements without budgets. */
static dil_cluster_node *lift(const dil_cluster *cluster, const dil_plan_options *o, dil_cluster *free_cluster, dil_plan_options *free_o)
{
    *free_o = *o;
    free_o->max_damage = free_o->max_loss_increase = free_o->max_ratio = INFINITY;
    free_o->rate = 0;
    *free_cluster = *cluster;
    free_cluster->nodes = calloc(cluster->n_nodes, sizeof *free_cluster->nodes);
    if (!free_cluster->nodes) return NULL;
    memcpy(free_cluster->nodes, cluster->nodes, cluster->n_nodes * sizeof *cluster->nodes);
    for (uint32_t i = 0; i < cluster->n_nodes; i++) free_cluster->nodes[i].memory_bytes = (uint64_t)1 << 60;
    return free_cluster->nodes;
}

dil_status dil__plan_refill(const dil_profile *profile, const dil_cluster *cluster, const dil_plan_options *o, dil_plan *plan, dil_err *err)
{
    dil_cluster free_cluster;
    dil_plan_options free_o;
    dil_cluster_node *nodes = lift(cluster, o, &free_cluster, &free_o);
    if (!nodes) return dil_fail(err, DIL_EMEMORY, "plan: out of memory");
    dil_status ok = dil_plan_predict(profile, &free_cluster, &free_o, plan, true, err);
    free(nodes);
    return ok;
}

dil_status dil__plan_unbudgeted(const dil_profile *profile, const dil_cluster *cluster, const dil_plan_options *o, const dil_solution *s,
                                const uint32_t *node_of, dil_plan **out, dil_err *err)
{
    dil_plan *plan = dil__plan_from_solution(profile, cluster, o, s, node_of);
    if (!plan) return dil_fail(err, DIL_EMEMORY, "plan: out of memory");
    dil_status ok = dil__plan_refill(profile, cluster, o, plan, err);
    if (ok == DIL_OK) *out = plan;
    else dil_plan_free(plan);
    return ok;
}

static dil_status add_figures(const dil_profile *profile, const dil_cluster *cluster, const dil_plan_options *o, const dil_solution *s,
                              const uint32_t *node_of, dil_compare_row *r, dil_err *err)
{
    dil_plan *plan;
    dil_status ok = dil__plan_unbudgeted(profile, cluster, o, s, node_of, &plan, err);
    if (ok != DIL_OK) return ok;
    if (fabs(plan->total_sec - r->total_sec) > 1e-6 * plan->total_sec + 1e-12)
        ok = dil_fail(err, DIL_EINTERNAL, "%s: its plan takes %.9g s, recomputed from the measurements %.9g s", r->solver, r->total_sec, plan->total_sec);
    r->token_sec = plan->token_sec;
    r->prefill_sec = plan->prefill_sec;
    r->damage = plan->predicted_damage;
    r->ratio_to_fp32 = plan->ratio_to_fp32;
    dil_plan_free(plan);
    return ok;
}

static dil_status compare(const dil_profile *profile, const dil_cluster *cluster, dil_problem *p, const dil_plan_options *o, const uint32_t *node_of,
                          const char *const *names, uint32_t n, dil_compare_row *rows, dil_err *err)
{
    dil_solution *least;
    dil_status ok = dil__plan_set_quality(p, o, &least, err);
    if (ok != DIL_OK) return ok;
    dil_solve_options so = {.goal = DIL_GOAL_SEC, .limit_sec = o->limit_sec, .gap = dil__plan_gap(o), .progress = o->progress};
    for (uint32_t i = 0; i < n && ok == DIL_OK; i++) {
        dil_solution *s;
        bool ours = strncmp(names[i], "baseline:", 9) != 0;
        so.start_node = ours && least ? least->node : NULL;
        so.start_level = ours && least ? least->level : NULL;
        fill_row(p, &so, names[i], &rows[i], &s);
        if (rows[i].has_plan) ok = add_figures(profile, cluster, o, s, node_of, &rows[i], err);
        dil_solution_free(s);
        if (rows[i].status == DIL_ECANCELED) ok = dil_fail(err, DIL_ECANCELED, "planning was canceled");
    }
    dil_solution_free(least);
    return ok;
}

dil_status dil_plan_compare(const dil_profile *profile, const dil_cluster *cluster, const dil_plan_options *options, const char *const *names,
                            uint32_t n, dil_compare_row *rows, dil_err *err)
{
    dil_problem *p = NULL;
    uint32_t *node_of = calloc(profile->n_nodes, sizeof *node_of);
    if (!node_of) return dil_fail(err, DIL_EMEMORY, "compare: out of memory");
    dil_status s = dil_problem_from_profile(profile, cluster, options, &p, node_of, err);
    if (s == DIL_OK) s = compare(profile, cluster, p, options, node_of, names, n, rows, err);
    dil_problem_free(p);
    free(node_of);
    return s;
}
