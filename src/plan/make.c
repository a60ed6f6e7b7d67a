/* dil_plan_make: measurements in, plan.json out. Without a quality budget it solves twice: the fastest plan within a size alone
 * would be the worst file, so the least damage within size and storage is found first and (1 + slack) of it becomes the budget. */
#include "plan/plancosts.h"
#include "plan/problem_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_GAP 1e-3 /* what is measured is not known better */
#define DAMAGE_SHARE 0.4 /* of the time limit, for the first of two solves */

static bool has_quality_budget(const dil_plan_options *o)
{
    return isfinite(o->max_damage) || isfinite(o->max_loss_increase);
}

/* A baseline must meet the same quality as the rest, so its budget comes from the exact solver. */
static const char *damage_solver(const char *solver)
{
    return solver && strncmp(solver, "baseline:", 9) == 0 ? "auto" : solver;
}

static dil_status solve_sec(const dil_problem *p, const dil_plan_options *o, const dil_solve_options *so, dil_solution **out, dil_err *err)
{
    dil_status s = o->export_path ? dil_problem_export(o->export_path, p, DIL_GOAL_SEC, err) : DIL_OK;
    return s == DIL_OK ? dil_plan_solve(p, so, out, err) : s;
}

double dil__plan_gap(const dil_plan_options *o)
{
    return o->gap > 0 ? o->gap : DEFAULT_GAP;
}

dil_status dil__plan_set_quality(dil_problem *p, const dil_plan_options *o, dil_solution **least, dil_err *err)
{
    *least = NULL;
    if (has_quality_budget(o)) return DIL_OK;
    dil_solve_options first = {.solver = damage_solver(o->solver), .goal = DIL_GOAL_DAMAGE, .limit_sec = DAMAGE_SHARE * o->limit_sec,
                               .gap = dil__plan_gap(o), .progress = o->progress};
    dil_solution *d;
    dil_status s = dil_plan_solve(p, &first, &d, err);
    if (s != DIL_OK) return s;
    if (!d->optimal)
        dil_log(DIL_LOG_WARN, "plan", "least damage found %.6g, proved at least %.6g: the time limit came first", d->objective, d->bound);
    p->damage_max = (1 + o->slack) * d->objective;
    *least = d;
    return DIL_OK;
}

typedef struct course { /* of the solves before the last one */
    dil_solution *start;  /* owned; NULL: none */
    double solve_sec;
    double load, load_bound; /* throughput: of the busiest one at the problem's rate; 0: not asked */
    dil__trail trail;     /* of the time that they took */
} course;

/* The least load of the busiest one, and then room for a little more. */
static dil_status set_throughput(dil_problem *p, const dil_plan_options *o, double limit_sec, course *c, dil_err *err)
{
    dil_solution *s;
    dil_solve_options so = {.solver = o->solver, .goal = DIL_GOAL_LOAD, .limit_sec = limit_sec, .gap = dil__plan_gap(o), .progress = o->progress,
                            .start_node = c->start ? c->start->node : NULL, .start_level = c->start ? c->start->level : NULL};
    dil_status ok = dil_plan_solve(p, &so, &s, err);
    if (ok != DIL_OK) return ok;
    dil_solution_free(c->start);
    c->start = s;
    c->solve_sec += s->solve_sec;
    c->load = s->objective;
    c->load_bound = s->bound;
    p->load_max = s->objective * (1 + DIL_THROUGHPUT_SLACK);
    return DIL_OK;
}

static dil_status solve(dil_problem *p, const dil_plan_options *o, dil_solution **out, course *c, dil_err *err)
{
    int64_t end = dil_now_ns() + (int64_t)(o->limit_sec * 1e9);
    double before_sec, before_cpu_sec;
    dil__trail_begin(&c->trail);
    dil_solve_options so = {.solver = o->solver, .goal = DIL_GOAL_SEC, .limit_sec = o->limit_sec, .gap = dil__plan_gap(o), .progress = o->progress};
    dil_status s = dil__plan_set_quality(p, o, &c->start, err);
    if (s == DIL_OK && c->start) c->solve_sec = c->start->solve_sec;
    if (s == DIL_OK && o->objective == DIL_OBJECTIVE_THROUGHPUT)
        s = set_throughput(p, o, fmax(0.6 * (double)(end - dil_now_ns()) * 1e-9, 0.1 * o->limit_sec), c, err);
    if (s != DIL_OK) return s;
    if (!c->start) return solve_sec(p, o, &so, out, err);
    double left = (double)(end - dil_now_ns()) * 1e-9;
    so.limit_sec = left > 0.1 * o->limit_sec ? left : 0.1 * o->limit_sec;
    so.start_node = c->start->node;
    so.start_level = c->start->level;
    dil__trail_now(&c->trail, &before_sec, &before_cpu_sec);
    s = solve_sec(p, o, &so, out, err);
    if (s != DIL_OK) return s;
    (*out)->solve_sec += c->solve_sec;
    for (uint32_t i = 0; i < (*out)->n_incumbents; i++) {
        (*out)->incumbents[i].sec += before_sec;
        (*out)->incumbents[i].cpu_sec += before_cpu_sec;
    }
    return DIL_OK;
}

static const char *copy(dil_plan *plan, const char *text)
{
    return dil_arena_strdup(plan->arena, text, strlen(text));
}

static bool copy_layer(dil_plan *plan, dil_plan_layer *out, const dil_profile_layer *layer, const dil_profile_level *level, const char *node)
{
    out->name = copy(plan, layer->name);
    out->node = copy(plan, node);
    out->level = copy(plan, level->name);
    out->n_types = level->n_types;
    out->types = dil_arena_push(plan->arena, level->n_types, sizeof *out->types);
    if (!out->name || !out->node || !out->level || !out->types) return false;
    for (uint32_t i = 0; i < level->n_types; i++) {
        out->types[i] = (dil_level_type){copy(plan, level->types[i].role), copy(plan, level->types[i].type)};
        if (!out->types[i].role || !out->types[i].type) return false;
    }
    return true;
}

static void cut_stages(dil_plan *plan, const uint32_t *node)
{
    for (uint32_t l = 0; l < plan->n_layers; l++) {
        if (l == 0 || node[l] != node[l - 1])
            plan->stages[plan->n_stages++] = (dil_plan_stage){.node = plan->layers[l].node, .first_layer = l};
        plan->stages[plan->n_stages - 1].last_layer = l;
    }
}

static bool kl_is_used(const dil_profile *prof, const dil_plan_options *o)
{
    if (o->measure) return strcmp(o->measure, "kl") == 0;
    for (uint32_t l = 0; l + (prof->tied_head ? 1 : 0) < prof->n_layers; l++) {
        for (uint32_t q = 0; q < prof->layers[l].n_levels; q++) {
            if (isnan(prof->layers[l].levels[q].damage_kl)) return false;
        }
    }
    return true;
}

dil_plan *dil__plan_from_solution(const dil_profile *prof, const dil_cluster *cluster, const dil_plan_options *o, const dil_solution *s,
                                  const uint32_t *node_of)
{
    dil_arena *a = dil_arena_new((size_t)64 << 20);
    dil_plan *plan = a ? dil_arena_push(a, 1, sizeof *plan) : NULL;
    if (!plan) {
        dil_arena_free(a);
        return NULL;
    }
    plan->arena = a;
    plan->model_path = copy(plan, prof->model_path);
    plan->model_hash = copy(plan, prof->model_hash);
    plan->entry = copy(plan, o->entry ? o->entry : cluster->nodes[cluster->entry].name);
    plan->solver = copy(plan, s->solver);
    plan->context = o->context ? o->context : prof->context;
    plan->sequences = prof->sequences;
    plan->tokens_in = o->tokens_in;
    plan->tokens_out = o->tokens_out;
    plan->solve_sec = s->solve_sec;
    plan->damage_measure = kl_is_used(prof, o) ? "kl" : "weight";
    plan->n_layers = prof->n_layers;
    plan->layers = dil_arena_push(a, plan->n_layers, sizeof *plan->layers);
    plan->stages = dil_arena_push(a, plan->n_layers, sizeof *plan->stages);
    bool ok = plan->model_path && plan->model_hash && plan->entry && plan->solver && plan->layers && plan->stages;
    for (uint32_t l = 0; l < plan->n_layers && ok; l++) {
        const dil_profile_layer *layer = &prof->layers[l];
        ok = copy_layer(plan, &plan->layers[l], layer, &layer->levels[s->level[l]], prof->nodes[node_of[s->node[l]]]);
    }
    if (ok) {
        cut_stages(plan, s->node);
        ok = dil__plan_costs_fill(plan, prof);
    }
    if (ok) return plan;
    dil_plan_free(plan);
    return NULL;
}

static dil_status finish(const dil_profile *prof, const dil_cluster *cluster, const dil_plan_options *o, const dil_solution *s, dil_plan *plan,
                         dil_err *err)
{
    dil_err why = {0};
    dil_status ok = dil_plan_predict(prof, cluster, o, plan, true, &why);
    if (ok != DIL_OK) return dil_fail(err, DIL_EINTERNAL, "%s: its plan fails the check from measurements: %.300s", s->solver, why.text);
    if (fabs(plan->total_sec - s->objective) > 1e-6 * plan->total_sec + 1e-12)
        return dil_fail(err, DIL_EINTERNAL, "%s: its plan takes %.9g s, recomputed from the measurements %.9g s", s->solver, s->objective,
                        plan->total_sec);
    plan->bound_sec = s->bound < plan->total_sec ? s->bound : plan->total_sec;
    plan->gap = plan->total_sec > 0 ? (plan->total_sec - plan->bound_sec) / plan->total_sec : 0;
    plan->incumbents = s->n_incumbents ? dil_arena_push(plan->arena, s->n_incumbents, sizeof *plan->incumbents) : NULL;
    if (s->n_incumbents && !plan->incumbents) return dil_fail(err, DIL_EMEMORY, "plan: out of memory");
    plan->n_incumbents = s->n_incumbents;
    if (s->n_incumbents) memcpy(plan->incumbents, s->incumbents, s->n_incumbents * sizeof *plan->incumbents);
    return DIL_OK;
}

/* The rate that was found, against the referee's. */
static dil_status finish_rate(const dil_problem *p, const dil_plan_options *o, const dil_solution *s, const course *c, dil_plan *plan, dil_err *err)
{
    const double counted_at = o->rate > 0 ? o->rate : 1;
    dil_use u;
    if (c->load <= 0) return DIL_OK;
    dil_status ok = dil_problem_check(p, s->node, s->level, &u, err);
    if (ok != DIL_OK) return ok;
    const double found = counted_at * o->load_max / u.load_max;
    if (fabs(plan->requests_per_sec - found) > 1e-6 * found)
        return dil_fail(err, DIL_EINTERNAL, "%s: its plan sustains %.9g requests a second, recomputed from the measurements %.9g", s->solver, found, plan->requests_per_sec);
    plan->requests_per_sec_bound = c->load_bound > 0 ? counted_at * o->load_max / c->load_bound : 0;
    return DIL_OK;
}

dil_status dil_plan_make(const dil_profile *profile, const dil_cluster *cluster, const dil_plan_options *options, dil_plan **out, dil_err *err)
{
    dil_problem *p = NULL;
    dil_solution *s = NULL;
    dil_plan *plan = NULL;
    uint32_t *node_of = calloc(profile->n_nodes, sizeof *node_of);
    if (!node_of) return dil_fail(err, DIL_EMEMORY, "plan: out of memory");
    dil_status ok = dil_problem_from_profile(profile, cluster, options, &p, node_of, err);
    course c = {0};
    if (ok == DIL_OK) ok = solve(p, options, &s, &c, err);
    if (ok == DIL_OK) {
        plan = dil__plan_from_solution(profile, cluster, options, s, node_of);
        ok = plan ? finish(profile, cluster, options, s, plan, err) : dil_fail(err, DIL_EMEMORY, "plan: out of memory");
    }
    if (ok == DIL_OK) ok = finish_rate(p, options, s, &c, plan, err);
    if (ok == DIL_OK) *out = plan;
    else dil_plan_free(plan);
    dil_solution_free(s);
    dil_solution_free(c.start);
    dil_problem_free(p);
    free(node_of);
    return ok;
}
