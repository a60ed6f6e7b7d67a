/* dil_plan_solve: picks the solver, has its plan checked by the referee, breaks ties towards less damage. */
#include "plan/problem_impl.h"

#include <math.h>
#include <string.h>

typedef dil_status solver_fn(dil__job *job, dil_err *err);

static const struct {
    const char *name;
    solver_fn *solve;
} solvers[] = {
    {"milp", dil__solve_milp},
    {"path", dil__solve_path},
    {"exhaustive", dil__solve_exhaustive},
};

const char *const *dil_plan_solvers(void)
{
    static const char *const names[] = {
        "auto", "path", "milp", "exhaustive", "baseline:best-single", "baseline:equal-split", "baseline:memory-proportional",
        "baseline:speed-proportional", "baseline:edgeshard", "baseline:halda", "baseline:uniform", "baseline:soft-quality", "baseline:paper",
        "baseline:equal-split+levels", "baseline:memory-proportional+levels", "baseline:speed-proportional+levels",
        "baseline:edgeshard+levels", "baseline:halda+levels", NULL};
    return names;
}

static bool is_baseline(const char *name)
{
    return strncmp(name, "baseline:", 9) == 0;
}

dil_status dil__solution_new(uint32_t n_layers, dil_solution **out, dil_err *err)
{
    dil_arena *a = dil_arena_new(1 << 20);
    dil_solution *s = a ? dil_arena_push(a, 1, sizeof *s) : NULL;
    if (s) *s = (dil_solution){.n_layers = n_layers, .arena = a, .node = dil_arena_push(a, n_layers, sizeof(uint32_t)), .level = dil_arena_push(a, n_layers, sizeof(uint32_t))};
    if (!s || !s->node || !s->level) {
        dil_arena_free(a);
        return dil_fail(err, DIL_EMEMORY, "planning: out of memory");
    }
    *out = s;
    return DIL_OK;
}

void dil_solution_free(dil_solution *s)
{
    if (s) dil_arena_free(s->arena);
}

/* Layer by layer: another level that costs no more and damages less (or costs less) within the budgets is taken. */
static void polish(const dil_problem *p, dil_goal goal, dil_solution *s, dil_use *best)
{
    for (uint32_t l = 0; l < p->n_layers; l++) {
        bool tied = p->tied && (l == 0 || l == p->n_layers - 1);
        if (tied && l != 0) continue;
        for (uint32_t q = 0; q < p->level_count[l]; q++) {
            uint32_t was = s->level[l];
            dil_use u;
            if (q == was) continue;
            s->level[l] = q;
            if (tied) s->level[p->n_layers - 1] = q;
            bool better = dil_problem_check(p, s->node, s->level, &u, NULL) == DIL_OK &&
                          (dil__goal_cost(&u, goal) < dil__goal_cost(best, goal) ||
                           (goal == DIL_GOAL_SEC && u.sec <= best->sec && u.damage < best->damage));
            if (better) {
                *best = u;
                continue;
            }
            s->level[l] = was;
            if (tied) s->level[p->n_layers - 1] = was;
        }
    }
}

static dil_status judge(const dil_problem *p, const dil__job *job, dil_solution *s, dil_err *err)
{
    dil_use u;
    dil_err why = {0};
    dil_status ok = dil_problem_check(p, s->node, s->level, &u, &why);
    if (ok != DIL_OK) return dil_fail(err, DIL_EINTERNAL, "%s: its plan fails the check: %.400s", s->solver, why.text);
    if (!is_baseline(s->solver)) polish(p, job->goal, s, &u);
    s->objective = dil__goal_cost(&u, job->goal);
    s->bound = job->bound < s->objective ? job->bound : s->objective;
    if (!(s->bound > 0)) s->bound = 0; /* costs are not negative */
    s->gap = s->objective > 0 ? (s->objective - s->bound) / s->objective : 0;
    s->optimal = s->gap <= job->gap;
    return DIL_OK;
}

static dil_status keep_trail(dil_solution *s, dil__trail *t, dil_err *err)
{
    dil__trail_plan(t, s->objective);
    if (t->n > 0 && !(s->incumbents = dil_arena_push(s->arena, t->n, sizeof *s->incumbents))) return dil_fail(err, DIL_EMEMORY, "planning: out of memory");
    for (uint32_t i = 0; i < t->n; i++) {
        dil_incumbent *x = &s->incumbents[s->n_incumbents++];
        *x = t->v[i];
        x->objective = fmax(x->objective, s->objective); /* a solver's own sum may be below the referee's by its last digits */
        x->bound = fmin(x->bound, s->bound);
    }
    return DIL_OK;
}

static dil_status run(dil_solution *s, dil__job *job, bool automatic, dil_err *err)
{
    solver_fn *solve = NULL;
    if (is_baseline(s->solver)) return dil__solve_baseline(s->solver, job, err);
    for (size_t i = 0; i < sizeof solvers / sizeof *solvers; i++) {
        if (strcmp(solvers[i].name, s->solver) == 0) solve = solvers[i].solve;
    }
    dil_status ok = solve(job, err);
    if (ok == DIL_ETIMEOUT && automatic) { /* a plan late is better than none */
        snprintf(s->solver, sizeof s->solver, "milp");
        ok = dil__solve_milp(job, err);
    }
    return ok == DIL_EINFEASIBLE ? dil__explain_infeasible(job->p, job->limit_sec, err) : ok;
}

static dil_status check_call(const dil_problem *p, const dil_solve_options *o, const char *name, dil_err *err)
{
    bool known = false;
    for (const char *const *n = dil_plan_solvers(); *n; n++) known = known || strcmp(*n, name) == 0;
    if (!known)
        return dil_fail(err, DIL_EUSAGE, "unknown solver '%.64s'; there are auto, path, milp, exhaustive, and the baselines: best-single, "
                        "equal-split, memory-proportional, speed-proportional, edgeshard, halda, uniform, soft-quality, paper", name);
    if (o->goal == DIL_GOAL_LOAD && !p->load) return dil_fail(err, DIL_EUSAGE, "the problem has no loads: throughput needs a rate to count them at");
    if (!(o->limit_sec > 0)) return dil_fail(err, DIL_EUSAGE, "the time limit is %g seconds, expected above 0", o->limit_sec);
    return dil_problem_validate(p, err);
}

dil_status dil__solve_any(const dil_problem *p, const dil_solve_options *o, dil_solution **out, dil_err *err)
{
    const char *name = o->solver ? o->solver : "auto";
    bool automatic = strcmp(name, "auto") == 0;
    dil_solution *s = NULL;
    *out = NULL;
    dil_status ok = check_call(p, o, name, err);
    if (ok == DIL_OK) ok = dil__solution_new(p->n_layers, &s, err);
    if (ok != DIL_OK) return ok;
    snprintf(s->solver, sizeof s->solver, "%s", automatic ? "path" : name);
    dil__job job = {.p = p, .goal = o->goal, .limit_sec = o->limit_sec, .gap = o->gap > 0 ? o->gap : 1e-4, .progress = o->progress,
                    .node = s->node, .level = s->level, .bound = -INFINITY};
    if (o->start_node && o->start_level && dil_problem_check(p, o->start_node, o->start_level, NULL, NULL) == DIL_OK) {
        job.start_node = o->start_node;
        job.start_level = o->start_level;
    }
    dil__trail trail;
    dil__trail_begin(&trail);
    job.trail = &trail;
    ok = run(s, &job, automatic, err);
    if (ok == DIL_OK) ok = judge(p, &job, s, err);
    if (ok == DIL_OK) ok = keep_trail(s, &trail, err);
    dil__trail_now(&trail, &s->solve_sec, &s->solve_cpu_sec);
    if (ok == DIL_OK || (ok == DIL_EINFEASIBLE && job.has_plan)) *out = s;
    else dil_solution_free(s);
    return ok;
}

dil_status dil_plan_solve(const dil_problem *p, const dil_solve_options *o, dil_solution **out, dil_err *err)
{
    dil_solution *s = NULL;
    dil_status ok = dil__solve_any(p, o, &s, err);
    if (ok == DIL_OK) *out = s;
    else dil_solution_free(s);
    return ok;
}
