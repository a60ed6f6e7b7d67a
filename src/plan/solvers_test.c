/* The solvers against the oracle: `milp` finds what `exhaustive` finds, on bare and on full problems, and says the same where there
 * is no plan. Every failure prints the seed that makes it. */
#include "plan/problem_impl.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static double between(dil_rng *r, double lo, double hi)
{
    return lo + (hi - lo) * dil_rng_unit(r);
}

static double *push(dil_problem *p, size_t n)
{
    double *v = dil_arena_push(p->arena, n, sizeof *v);
    assert_non_null(v);
    return v;
}

static uint32_t more_nodes; /* than random_bare has by itself */

/* Storage and quality bind about as in the planner's benchmark family; links may be missing, stores and links unequal. */
static dil_problem *random_bare(dil_rng *r)
{
    uint32_t L = 2 + (uint32_t)dil_rng_below(r, 4), S = 1 + (uint32_t)dil_rng_below(r, 3) + more_nodes, Q = 1 + (uint32_t)dil_rng_below(r, 3);
    dil_problem *p;
    assert_int_equal(dil__problem_new(L, S, Q, "test", &p, NULL), DIL_OK);
    double total = 0, worst = 0, least = 0;
    for (uint32_t l = 0; l < L; l++) {
        p->level_count[l] = 1 + (uint32_t)dil_rng_below(r, Q);
        double size = between(r, 1, 3), scale = between(r, .2, 3);
        for (uint32_t q = 0; q < p->level_count[l]; q++) {
            size_t lq = (size_t)l * Q + q;
            p->layer_bytes[lq] = floor(1000 * size * (q + 1) * between(r, .8, 1.2));
            p->damage[lq] = dil_rng_below(r, 8) == 0 ? 0 : scale * pow(4, -(double)q) * between(r, .8, 1.2);
            for (uint32_t s = 0; s < S; s++) p->layer_sec[dil__cell(p, l, s, q)] = 1e-6 * p->layer_bytes[lq] * between(r, .5, 4);
        }
        total += p->layer_bytes[(size_t)l * Q + p->level_count[l] / 2];
        worst += p->damage[(size_t)l * Q];
        least += p->damage[(size_t)l * Q + p->level_count[l] - 1];
    }
    for (uint32_t s = 0; s < S; s++) {
        p->store_bytes[s] = floor(total * between(r, .3, 1.6) / (S > 1 ? 1.7 : 1));
        p->source_sec[s] = s ? between(r, 0, 3e-3) : 0;
        p->sink_sec[s] = s ? between(r, 0, 3e-3) : 0;
    }
    if (dil_rng_below(r, 5)) p->damage_max = least + between(r, -.05, .8) * (worst - least);
    if (p->damage_max < 0) p->damage_max = 0;
    p->hops = dil_arena_push(p->arena, (size_t)S * S, sizeof *p->hops);
    bool sparse = dil_rng_below(r, 4) == 0;
    for (uint32_t i = 0; i < S; i++) {
        for (uint32_t j = 0; j < S; j++) {
            if (i == j || (sparse && dil_rng_below(r, 3) == 0)) continue;
            double sec = between(r, 0, 6e-3);
            p->hops[p->n_hops++] = (dil_hop){.from = i, .to = j, .sec = sec, .head_sec = sec};
        }
    }
    return p;
}

static bool coin(dil_rng *r)
{
    return dil_rng_below(r, 2) != 0;
}

/* Any mixture of what a measured problem adds. */
static dil_problem *random_full(dil_rng *r)
{
    dil_problem *p = random_bare(r);
    uint32_t L = p->n_layers, S = p->n_nodes, Q = p->n_levels;
    size_t lq = (size_t)L * Q, cells = lq * S;
    if (coin(r)) {
        p->tied = true;
        p->level_count[L - 1] = p->level_count[0];
        p->shared_bytes = push(p, Q);
        for (uint32_t q = 0; q < p->level_count[0]; q++) {
            p->shared_bytes[q] = p->layer_bytes[q];
            p->layer_bytes[(L - 1) * (size_t)Q + q] = p->layer_bytes[q] + floor(between(r, 0, 50));
            p->damage[(L - 1) * (size_t)Q + q] = 0;
            for (uint32_t s = 0; s < S; s++) p->layer_sec[dil__cell(p, L - 1, s, q)] = 1e-6 * p->layer_bytes[q] * between(r, .5, 4);
        }
    }
    if (coin(r)) {
        p->file_bytes = push(p, lq);
        double some = 0;
        for (uint32_t l = 0; l < L; l++) {
            for (uint32_t q = 0; q < p->level_count[l]; q++) {
                size_t i = (size_t)l * Q + q;
                p->file_bytes[i] = p->layer_bytes[i] - (p->tied && l == L - 1 ? p->shared_bytes[q] : 0);
                p->layer_bytes[i] += l && l + 1 < L ? 300 : 0; /* KV */
            }
            some += p->file_bytes[(size_t)l * Q + p->level_count[l] / 2];
        }
        if (coin(r)) p->file_bytes_max = some * between(r, .7, 1.3);
    }
    if (coin(r)) {
        p->buffer_bytes = push(p, L);
        for (uint32_t l = 0; l < L; l++) p->buffer_bytes[l] = floor(between(r, 0, l + 1 == L ? 2000 : 300));
        for (uint32_t s = 0; s < S; s++) p->store_bytes[s] += 600;
    }
    if (coin(r)) {
        p->chunk_weight = 1 + (double)dil_rng_below(r, 4);
        p->chunk_sec = push(p, cells);
        for (size_t i = 0; i + Q * (size_t)S < cells; i++) p->chunk_sec[i] = p->layer_sec[i] * between(r, 0, 1);
        for (uint32_t i = 0; i < p->n_hops; i++) {
            p->hops[i].chunk_sec = between(r, 0, 6e-3);
            p->hops[i].head_sec = p->hops[i].sec * between(r, .1, 1);
        }
    }
    if (coin(r)) {
        p->load = push(p, cells);
        p->out_load = push(p, S);
        p->in_load = push(p, S);
        p->load_max = .9;
        p->head_share = between(r, .1, 1);
        double rate = between(r, 5, 120);
        for (size_t i = 0; i < cells; i++) p->load[i] = rate * p->layer_sec[i];
        for (uint32_t s = 0; s < S; s++) p->out_load[s] = between(r, 0, .7), p->in_load[s] = between(r, 0, .7);
        for (uint32_t i = 0; i < p->n_hops; i++) p->hops[i].load = between(r, 0, .8);
    }
    return p;
}

/* Better plan by better plan up to the solution, and no bound on the way is above the best plan there is. */
static void check_incumbents(const dil_solution *s, double best, uint64_t seed)
{
    assert_in_range(s->n_incumbents, 1, DIL_INCUMBENTS_MAX);
    for (uint32_t i = 0; i < s->n_incumbents; i++) {
        const dil_incumbent *x = &s->incumbents[i], *before = i ? x - 1 : NULL;
        if (x->bound > best * (1 + 1e-9) + 1e-12)
            fail_msg("seed %llu: %s had the bound %.12g on its way, there is a plan of %.12g", (unsigned long long)seed, s->solver, x->bound, best);
        if (before && (x->objective > before->objective || x->sec < before->sec || x->cpu_sec < before->cpu_sec || x->bound < before->bound))
            fail_msg("seed %llu: %s: plan %u on the way is no better or no later than the one before", (unsigned long long)seed, s->solver, i);
        assert_true(x->sec <= s->solve_sec && x->cpu_sec <= s->solve_cpu_sec);
    }
    assert_true(s->incumbents[s->n_incumbents - 1].objective == s->objective);
}

/* -> 1 when both found a plan, 0 when both found none. */
static int agree(const dil_problem *p, dil_goal goal, const char *solver, uint64_t seed)
{
    dil_solution *a = NULL, *b = NULL;
    dil_err ea = {0}, eb = {0};
    dil_solve_options o = {.solver = "exhaustive", .goal = goal, .limit_sec = 60};
    dil_status sa = dil_plan_solve(p, &o, &a, &ea);
    o.solver = solver;
    o.gap = 1e-7;
    dil_status sb = dil_plan_solve(p, &o, &b, &eb);
    if (sa != sb) fail_msg("seed %llu: exhaustive says %s (%s), %s says %s (%s)", (unsigned long long)seed, dil_status_name(sa), ea.text, solver,
                           dil_status_name(sb), eb.text);
    if (sa == DIL_OK) {
        if (fabs(a->objective - b->objective) > 2e-7 * a->objective + 1e-12)
            fail_msg("seed %llu: exhaustive finds %.12g, %s %.12g", (unsigned long long)seed, a->objective, solver, b->objective);
        if (b->bound > a->objective * (1 + 1e-9) + 1e-12)
            fail_msg("seed %llu: %s claims the bound %.12g, there is a plan of %.12g", (unsigned long long)seed, solver, b->bound, a->objective);
        assert_true(b->optimal);
        check_incumbents(a, a->objective, seed);
        check_incumbents(b, a->objective, seed);
    } else {
        assert_int_equal(sa, DIL_EINFEASIBLE);
        assert_true(eb.text[0] != 0);
    }
    dil_solution_free(a);
    dil_solution_free(b);
    return sa == DIL_OK;
}

/* DILEMMA_PLAN_TIMES=10: ten times the instances, for a change of the solvers. */
static int more(void)
{
    const char *times = getenv("DILEMMA_PLAN_TIMES");
    return times && atoi(times) > 0 ? atoi(times) : 1;
}

static void run_seeds(uint64_t first, int n, dil_problem *make(dil_rng *), dil_goal goal, const char *solver, int least_solved)
{
    int solved = 0;
    n *= more();
    least_solved *= more();
    if (getenv("DILEMMA_TEST_QUICK")) { /* under a sanitizer the paths through the code count, not the number of instances */
        n /= 10;
        least_solved /= 12;
    }
    for (int i = 0; i < n; i++) {
        dil_rng r;
        dil_rng_init(&r, first + (uint64_t)i);
        dil_problem *p = make(&r);
        dil_err err = {0};
        if (dil_problem_validate(p, &err) != DIL_OK) fail_msg("seed %llu: %s", (unsigned long long)first + (unsigned long long)i, err.text);
        solved += agree(p, goal, solver, first + (uint64_t)i);
        dil_problem_free(p);
    }
    print_message("%s: %d of %d have a plan\n", solver, solved, n);
    assert_true(solved >= least_solved); /* else the family no longer tests anything */
    assert_true(solved < n);
}

static void milp_equals_enumeration_on_bare_problems(void **state)
{
    (void)state;
    run_seeds(1000, 150, random_bare, DIL_GOAL_SEC, "milp", 70);
}

static void milp_equals_enumeration_on_full_problems(void **state)
{
    (void)state;
    run_seeds(50000, 200, random_full, DIL_GOAL_SEC, "milp", 70);
}

static void milp_equals_enumeration_at_least_damage(void **state)
{
    (void)state;
    run_seeds(90000, 80, random_full, DIL_GOAL_DAMAGE, "milp", 30);
}

static void path_equals_enumeration_on_bare_problems(void **state)
{
    (void)state;
    run_seeds(1000, 500, random_bare, DIL_GOAL_SEC, "path", 250);
}

static void path_equals_enumeration_at_least_damage(void **state)
{
    (void)state;
    run_seeds(20000, 150, random_bare, DIL_GOAL_DAMAGE, "path", 70);
}

/* Every one has loads. */
static dil_problem *random_loaded(dil_rng *r)
{
    dil_problem *p = random_full(r);
    if (p->load) return p;
    size_t cells = (size_t)p->n_layers * p->n_nodes * p->n_levels;
    p->load = push(p, cells);
    for (size_t i = 0; i < cells; i++) p->load[i] = 20 * p->layer_sec[i];
    for (uint32_t i = 0; i < p->n_hops; i++) p->hops[i].load = between(r, 0, .3);
    p->head_share = between(r, .1, 1);
    return p;
}

static void solvers_equal_enumeration_at_the_busiest_ones_load(void **state)
{
    (void)state;
    run_seeds(130000, 60, random_loaded, DIL_GOAL_LOAD, "milp", 20);
    run_seeds(130000, 150, random_loaded, DIL_GOAL_LOAD, "path", 50);
}

static void path_equals_enumeration_on_full_problems(void **state)
{
    (void)state;
    run_seeds(50000, 700, random_full, DIL_GOAL_SEC, "path", 280);
    run_seeds(90000, 200, random_full, DIL_GOAL_DAMAGE, "path", 80);
}

/* --- a medium size, and the ends of the scale ---------------------------------------------------------------------------- */

/* 8 to 11 layers of a model's shape on three or four nodes, every budget there and near to binding. */
static dil_problem *medium(dil_rng *r)
{
    uint32_t L = 8 + (uint32_t)dil_rng_below(r, 4), S = 3 + (uint32_t)dil_rng_below(r, 2), Q = 4;
    dil_problem *p;
    assert_int_equal(dil__problem_new(L, S, Q, "test", &p, NULL), DIL_OK);
    p->file_bytes = push(p, (size_t)L * Q);
    p->buffer_bytes = push(p, L);
    p->shared_bytes = push(p, Q);
    p->chunk_sec = push(p, (size_t)L * S * Q);
    p->load = push(p, (size_t)L * S * Q);
    p->out_load = push(p, S);
    p->in_load = push(p, S);
    p->hops = dil_arena_push(p->arena, (size_t)S * S, sizeof *p->hops);
    p->tied = coin(r);
    p->chunk_weight = (double)dil_rng_below(r, 4);
    double speed[4], total = 0, file = 0, damage = 0, load = 0, rate = between(r, .2, 2);
    for (uint32_t s = 0; s < S; s++) speed[s] = between(r, .5, 3);
    for (uint32_t l = 0; l < L; l++) {
        bool end = l == 0 || l + 1 == L, head = l + 1 == L;
        double sensitive = between(r, .3, 2);
        p->level_count[l] = Q;
        p->buffer_bytes[l] = head ? 900 : l ? 300 : 100;
        for (uint32_t q = 0; q < Q; q++) {
            size_t lq = (size_t)l * Q + q;
            double size = (end ? 4000 : 1500) * (1 - .2 * q), kv = end ? 0 : 200;
            p->layer_bytes[lq] = size + kv;
            p->file_bytes[lq] = size;
            p->damage[lq] = sensitive * pow(3, q) * between(r, .9, 1.1);
            for (uint32_t s = 0; s < S; s++) {
                size_t cell = dil__cell(p, l, s, q);
                p->layer_sec[cell] = size * 1e-4 * speed[s] * between(r, .8, 1.2);
                p->chunk_sec[cell] = head ? 0 : p->layer_sec[cell] * .3;
                p->load[cell] = rate * p->layer_sec[cell];
            }
        }
        if (p->tied && head) {
            for (uint32_t q = 0; q < Q; q++) {
                p->shared_bytes[q] = p->layer_bytes[q];
                p->layer_bytes[(size_t)l * Q + q] = p->layer_bytes[q] + 10;
                p->file_bytes[(size_t)l * Q + q] = 10;
                p->damage[(size_t)l * Q + q] = 0;
            }
        }
        total += p->layer_bytes[(size_t)l * Q + 2];
        file += p->file_bytes[(size_t)l * Q + 2];
        damage += p->damage[(size_t)l * Q + 2];
        load += p->load[dil__cell(p, l, 0, 2)];
    }
    for (uint32_t s = 0; s < S; s++) {
        p->store_bytes[s] = floor(total * between(r, .25, .75)) + 900;
        p->source_sec[s] = s ? between(r, 0, .2) : 0;
        p->sink_sec[s] = s ? between(r, 0, .2) : 0;
        p->out_load[s] = between(r, 0, .3);
        p->in_load[s] = between(r, 0, .3);
        for (uint32_t t = 0; t < S; t++) {
            double sec = between(r, 0, .3);
            if (t == s || dil_rng_below(r, 8) == 0) continue;
            p->hops[p->n_hops++] = (dil_hop){.from = s, .to = t, .sec = sec, .head_sec = .6 * sec, .chunk_sec = .3 * sec, .load = between(r, 0, .4)};
        }
    }
    p->head_share = .5;
    if (coin(r)) p->file_bytes_max = file * between(r, .95, 1.3);
    if (coin(r)) p->damage_max = damage * between(r, .8, 1.5);
    if (coin(r)) p->load_max = load * between(r, .4, 1);
    return p;
}

/* 1: one of the budgets is met with less than a hundredth to spare, and the plan without it is another. */
static void count_binding(const dil_problem *p, const dil_solution *s, int binding[5])
{
    dil_use u;
    assert_int_equal(dil_problem_check(p, s->node, s->level, &u, NULL), DIL_OK);
    binding[0] += u.over_store_bytes > -.02 * p->store_bytes[u.over_store_node];
    binding[1] += u.damage > .98 * p->damage_max;
    binding[2] += u.file_bytes > .98 * p->file_bytes_max;
    binding[3] += u.load_max > .95 * p->load_max;
    binding[4] += p->tied && s->node[0] == s->node[p->n_layers - 1];
}

/* -> the plan of path, NULL: both find none. */
static dil_solution *same_as_milp(const dil_problem *p, dil_goal goal, int seed)
{
    dil_solve_options o = {.solver = "milp", .goal = goal, .limit_sec = 500, .gap = 1e-6};
    dil_solution *a = NULL, *b = NULL;
    dil_status sa = dil_plan_solve(p, &o, &a, NULL);
    o.solver = "path";
    dil_status sb = dil_plan_solve(p, &o, &b, NULL);
    if (sa != sb) fail_msg("seed %d: milp says %s, path %s", seed, dil_status_name(sa), dil_status_name(sb));
    if (sa == DIL_OK && (!b->optimal || fabs(a->objective - b->objective) > 3e-6 * a->objective))
        fail_msg("seed %d: milp finds %.12g, path %.12g, at least %.12g", seed, a->objective, b->objective, b->bound);
    dil_solution_free(a);
    return b;
}

/* More nodes than the completions remember: they are thinned out first. */
static void path_equals_milp_on_many_nodes(void **state)
{
    (void)state;
    int n = (getenv("DILEMMA_TEST_QUICK") ? 6 : 20) * more(), solved = 0;
    more_nodes = 10;
    for (int i = 0; i < n; i++) {
        dil_rng r;
        dil_rng_init(&r, 500000 + (uint64_t)i);
        dil_problem *p = random_full(&r);
        dil_solution *s = same_as_milp(p, DIL_GOAL_SEC, 500000 + i);
        solved += s != NULL;
        dil_solution_free(s);
        dil_problem_free(p);
    }
    more_nodes = 0;
    print_message("%d of %d have a plan\n", solved, n);
    assert_true(solved > n / 3);
}

static void path_equals_milp_on_medium_problems(void **state)
{
    (void)state;
    int n = (getenv("DILEMMA_TEST_QUICK") ? 4 : 12) * more(), solved = 0, binding[5] = {0};
    for (int i = 0; i < n; i++) {
        dil_rng r;
        dil_rng_init(&r, 700000 + (uint64_t)i);
        dil_problem *p = medium(&r);
        assert_int_equal(dil_problem_validate(p, NULL), DIL_OK);
        dil_goal goal = i % 4 == 3 ? DIL_GOAL_DAMAGE : i % 4 == 2 ? DIL_GOAL_LOAD : DIL_GOAL_SEC;
        dil_solution *b = same_as_milp(p, goal, 700000 + i);
        if (b) count_binding(p, b, binding);
        solved += b != NULL;
        dil_solution_free(b);
        dil_problem_free(p);
    }
    print_message("%d of %d have a plan; storage binds in %d, damage %d, size %d, load %d, one node has both ends of the table in %d\n", solved, n,
                  binding[0], binding[1], binding[2], binding[3], binding[4]);
    assert_true(solved > n / 4);
    for (int k = 0; k < 5 && n > 100; k++) assert_true(binding[k] > 0);
}

/* A full problem with every budget, then bent to one end. */
static void agree_bent(const char *what, void bend(dil_problem *p), int least)
{
    int solved = 0, n = getenv("DILEMMA_TEST_QUICK") ? 10 : 40;
    for (int i = 0; i < n; i++) {
        dil_rng r;
        dil_rng_init(&r, 300000 + (uint64_t)i);
        dil_problem *p = random_full(&r);
        bend(p);
        solved += agree(p, DIL_GOAL_SEC, "path", 300000 + (uint64_t)i);
        dil_problem_free(p);
    }
    print_message("%s: %d of %d have a plan\n", what, solved, n);
    assert_true(n < 40 || solved >= least);
}

static void bend_one_node(dil_problem *p)
{
    for (uint32_t s = 1; s < p->n_nodes; s++) p->source_sec[s] = p->sink_sec[s] = INFINITY;
    p->n_hops = 0;
    p->store_bytes[0] *= 4;
}

static void bend_equal_nodes(dil_problem *p)
{
    for (uint32_t l = 0; l < p->n_layers; l++)
        for (uint32_t s = 1; s < p->n_nodes; s++)
            for (uint32_t q = 0; q < p->n_levels; q++) {
                p->layer_sec[dil__cell(p, l, s, q)] = p->layer_sec[dil__cell(p, l, 0, q)];
                if (p->chunk_sec) p->chunk_sec[dil__cell(p, l, s, q)] = p->chunk_sec[dil__cell(p, l, 0, q)];
                if (p->load) p->load[dil__cell(p, l, s, q)] = p->load[dil__cell(p, l, 0, q)];
            }
    for (uint32_t s = 0; s < p->n_nodes; s++) {
        p->store_bytes[s] = p->store_bytes[0];
        p->source_sec[s] = p->sink_sec[s] = 0;
    }
}

static void bend_free_links(dil_problem *p) /* zero latency and infinite bandwidth */
{
    for (uint32_t i = 0; i < p->n_hops; i++) p->hops[i] = (dil_hop){.from = p->hops[i].from, .to = p->hops[i].to};
    for (uint32_t s = 0; s < p->n_nodes; s++) p->source_sec[s] = p->sink_sec[s] = 0;
    if (p->out_load) memset(p->out_load, 0, p->n_nodes * sizeof *p->out_load);
    if (p->in_load) memset(p->in_load, 0, p->n_nodes * sizeof *p->in_load);
}

static void bend_no_links(dil_problem *p)
{
    p->n_hops = 0;
}

static void bend_one_layer(dil_problem *p)
{
    p->n_layers = 1;
    p->tied = false;
}

/* Budgets that are exactly what the best plan without them takes. */
static void bend_tight(dil_problem *p)
{
    dil_solution *s = NULL;
    dil_solve_options o = {.solver = "exhaustive", .goal = DIL_GOAL_DAMAGE, .limit_sec = 60};
    dil_use u;
    if (dil_plan_solve(p, &o, &s, NULL) != DIL_OK) return;
    assert_int_equal(dil_problem_check(p, s->node, s->level, &u, NULL), DIL_OK);
    p->damage_max = u.damage;
    p->file_bytes_max = u.file_bytes;
    if (isfinite(p->load_max)) p->load_max = u.load_max;
    if (u.over_store_bytes < 0) p->store_bytes[u.over_store_node] += u.over_store_bytes;
    dil_solution_free(s);
}

static void path_equals_enumeration_at_the_ends(void **state)
{
    (void)state;
    agree_bent("one node", bend_one_node, 10);
    agree_bent("one layer", bend_one_layer, 20);
    agree_bent("equal nodes", bend_equal_nodes, 10);
    agree_bent("free links", bend_free_links, 10);
    agree_bent("no links", bend_no_links, 5);
    agree_bent("tight budgets", bend_tight, 10);
}

/* Costs that no measurement gives are refused by name, by every solver. */
static void impossible_costs_are_refused(void **state)
{
    (void)state;
    static const double bad[] = {NAN, -1, INFINITY, 1e300};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        dil_rng r;
        dil_rng_init(&r, 50001);
        dil_problem *p = random_full(&r);
        dil_solution *s = NULL;
        dil_err err = {0};
        dil_solve_options o = {.limit_sec = 10};
        p->layer_sec[0] = bad[i];
        assert_int_equal(dil_plan_solve(p, &o, &s, &err), DIL_EFORMAT);
        assert_non_null(strstr(err.text, "layer_sec"));
        assert_null(s);
        dil_problem_free(p);
    }
}

/* Whatever the limit, the bound is below the best plan, a plan meets the budgets, and "optimal" is true. */
static void a_time_limit_never_gives_a_wrong_optimum(void **state)
{
    (void)state;
    for (int i = 0; i < 8; i++) {
        dil_rng r;
        dil_rng_init(&r, 700000 + (uint64_t)i);
        dil_problem *p = medium(&r);
        dil_solve_options o = {.solver = "path", .limit_sec = 100, .gap = 1e-6};
        dil_solution *best = NULL;
        dil_status ok = dil_plan_solve(p, &o, &best, NULL);
        for (double limit = 1e-5; limit < .1; limit *= 10) {
            dil_solution *s = NULL;
            o.limit_sec = limit;
            dil_status got = dil_plan_solve(p, &o, &s, NULL);
            if (got != ok && got != DIL_ETIMEOUT) fail_msg("seed %d, %g s: %s, without a limit %s", 700000 + i, limit, dil_status_name(got), dil_status_name(ok));
            if (got == DIL_OK && (s->bound > best->objective * (1 + 1e-9) || s->objective < best->objective * (1 - 2e-6) ||
                                  (s->optimal && s->objective > best->objective * (1 + 2e-6))))
                fail_msg("seed %d, %g s: %.12g, proved %.12g, but the best is %.12g", 700000 + i, limit, s->objective, s->bound, best->objective);
            dil_solution_free(s);
        }
        dil_solution_free(best);
        dil_problem_free(p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(milp_equals_enumeration_on_bare_problems),
        cmocka_unit_test(milp_equals_enumeration_on_full_problems),
        cmocka_unit_test(milp_equals_enumeration_at_least_damage),
        cmocka_unit_test(path_equals_enumeration_on_bare_problems),
        cmocka_unit_test(path_equals_enumeration_at_least_damage),
        cmocka_unit_test(path_equals_enumeration_on_full_problems),
        cmocka_unit_test(solvers_equal_enumeration_at_the_busiest_ones_load),
        cmocka_unit_test(path_equals_milp_on_medium_problems),
        cmocka_unit_test(path_equals_milp_on_many_nodes),
        cmocka_unit_test(path_equals_enumeration_at_the_ends),
        cmocka_unit_test(impossible_costs_are_refused),
        cmocka_unit_test(a_time_limit_never_gives_a_wrong_optimum),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
