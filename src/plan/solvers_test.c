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

/* Storage and quality bind about as in the planner's benchmark family; links may be missing, stores and links unequal. */
static dil_problem *random_bare(dil_rng *r)
{
    uint32_t L = 2 + (uint32_t)dil_rng_below(r, 4), S = 1 + (uint32_t)dil_rng_below(r, 3), Q = 1 + (uint32_t)dil_rng_below(r, 3);
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
    } else {
        assert_int_equal(sa, DIL_EINFEASIBLE);
        assert_true(eb.text[0] != 0);
    }
    dil_solution_free(a);
    dil_solution_free(b);
    return sa == DIL_OK;
}

static void run_seeds(uint64_t first, int n, dil_problem *make(dil_rng *), dil_goal goal, const char *solver, int least_solved)
{
    int solved = 0;
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
    run_seeds(1000, 600, random_bare, DIL_GOAL_SEC, "milp", 300);
}

static void milp_equals_enumeration_on_full_problems(void **state)
{
    (void)state;
    run_seeds(50000, 900, random_full, DIL_GOAL_SEC, "milp", 350);
}

static void milp_equals_enumeration_at_least_damage(void **state)
{
    (void)state;
    run_seeds(90000, 200, random_full, DIL_GOAL_DAMAGE, "milp", 80);
}

static void path_equals_enumeration_on_bare_problems(void **state)
{
    (void)state;
    run_seeds(1000, 1500, random_bare, DIL_GOAL_SEC, "path", 750);
}

static void path_equals_enumeration_at_least_damage(void **state)
{
    (void)state;
    run_seeds(20000, 400, random_bare, DIL_GOAL_DAMAGE, "path", 200);
}

static void path_equals_enumeration_on_full_problems(void **state)
{
    (void)state;
    run_seeds(50000, 3000, random_full, DIL_GOAL_SEC, "path", 1200);
    run_seeds(90000, 1000, random_full, DIL_GOAL_DAMAGE, "path", 400);
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
