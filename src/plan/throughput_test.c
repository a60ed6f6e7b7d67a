/* Throughput as the objective: the rate is the largest that enumeration finds, no bound is below it, and of the plans near it the one that
 * comes out is the fastest. */
#include "plan/problem_impl.h"
#include "plan/small_model.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

static double least(const dil_problem *p, dil_goal goal, uint64_t seed)
{
    dil_solve_options so = {.solver = "exhaustive", .goal = goal, .limit_sec = 60, .gap = 1e-7};
    dil_solution *s = NULL;
    dil_err err = {0};
    if (dil_plan_solve(p, &so, &s, &err) != DIL_OK) fail_msg("seed %llu: %s", (unsigned long long)seed, err.text);
    double v = s->objective;
    dil_solution_free(s);
    return v;
}

static void the_rate_is_the_largest_and_the_plan_the_fastest_near_it(void **state)
{
    (void)state;
    int n = getenv("DILEMMA_TEST_QUICK") ? 4 : 24, slower = 0;
    for (uint64_t seed = 1; seed <= (uint64_t)n; seed++) {
        dil_profile *prof = NULL;
        dil_cluster *c = NULL;
        dil_problem *p = NULL;
        dil_plan *plan = NULL, *fast = NULL;
        dil_err err = {0};
        dil_plan_options o = dil_plan_options_default();
        o.max_damage = 0.03;
        o.gap = 1e-6;
        o.tokens_in = 1 + (uint32_t)(seed % 3) * 50;
        assert_int_equal(small_model(seed, 2, 3, seed % 2 == 0, &prof, &c, &err), DIL_OK);
        if (dil_plan_make(prof, c, &o, &fast, &err) != DIL_OK) fail_msg("seed %llu: %s", (unsigned long long)seed, err.text);
        o.objective = DIL_OBJECTIVE_THROUGHPUT;
        assert_int_equal(dil_problem_from_profile(prof, c, &o, &p, NULL, &err), DIL_OK);
        double load = least(p, DIL_GOAL_LOAD, seed), rate = o.load_max / load;
        p->load_max = load * (1 + DIL_THROUGHPUT_SLACK);
        double sec = least(p, DIL_GOAL_SEC, seed);
        if (dil_plan_make(prof, c, &o, &plan, &err) != DIL_OK) fail_msg("seed %llu: %s", (unsigned long long)seed, err.text);
        if (plan->requests_per_sec < rate / (1 + DIL_THROUGHPUT_SLACK) * (1 - 1e-6) || plan->requests_per_sec_bound < rate * (1 - 1e-6))
            fail_msg("seed %llu: the plan sustains %g, at most %g; enumeration finds %g", (unsigned long long)seed, plan->requests_per_sec,
                     plan->requests_per_sec_bound, rate);
        if (fabs(plan->total_sec - sec) > 1e-4 * sec) fail_msg("seed %llu: %g s, enumeration finds %g s", (unsigned long long)seed, plan->total_sec, sec);
        assert_true(plan->requests_per_sec >= fast->requests_per_sec / (1 + DIL_THROUGHPUT_SLACK) * (1 - 1e-6));
        slower += plan->total_sec > fast->total_sec * 1.01;
        dil_plan_free(plan);
        dil_plan_free(fast);
        dil_problem_free(p);
        dil_profile_free(prof);
        dil_cluster_free(c);
    }
    print_message("in %d of %d the plan of most requests is slower than the fastest\n", slower, n);
    assert_true(slower > 0); /* else the two objectives are one */
}

/* Layers that are alike on nodes of unlike speed: what keeps the least load above that of layers that could be cut is that they are whole. Links are
 * free, so the structures are many: the bound has to say it, a search would not end. */
static void whole_layers_are_counted(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        enum { L = 24, S = 3, Q = 2 };
        dil_rng r;
        dil_problem *p = NULL;
        dil_solution *s = NULL;
        dil_err err = {0};
        double slow[S], least = INFINITY;
        dil_rng_init(&r, seed);
        assert_int_equal(dil__problem_new(L, S, Q, "test", &p, NULL), DIL_OK);
        p->load = dil_arena_push(p->arena, L * S * Q, sizeof *p->load);
        p->hops = dil_arena_push(p->arena, S * S, sizeof *p->hops);
        assert_true(p->load && p->hops);
        for (uint32_t n = 0; n < S; n++) slow[n] = 0.5 + dil_rng_unit(&r);
        for (uint32_t l = 0; l < L; l++) {
            p->level_count[l] = Q;
            for (uint32_t q = 0; q < Q; q++) {
                p->layer_bytes[l * Q + q] = 2 - q;
                p->damage[l * Q + q] = q;
                for (uint32_t n = 0; n < S; n++) p->load[dil__cell(p, l, n, q)] = p->layer_sec[dil__cell(p, l, n, q)] = 0.01 * slow[n] * (q ? 0.8 : 1);
            }
        }
        for (uint32_t n = 0; n < S; n++) {
            p->store_bytes[n] = 2 * L;
            for (uint32_t m = 0; m < S; m++)
                if (m != n) p->hops[p->n_hops++] = (dil_hop){.from = n, .to = m};
        }
        for (int a = 0; a <= L; a++) /* so many on each node, the fast level everywhere */
            for (int b = 0; a + b <= L; b++) least = fmin(least, 0.008 * fmax(a * slow[0], fmax(b * slow[1], (L - a - b) * slow[2])));
        if (dil_plan_solve(p, &(dil_solve_options){.solver = "path", .goal = DIL_GOAL_LOAD, .limit_sec = 60, .gap = 2e-3}, &s, &err) != DIL_OK) fail_msg("seed %llu: %s", (unsigned long long)seed, err.text);
        if (s->bound > least * (1 + 1e-9) || !s->optimal || s->objective > least * 1.002)
            fail_msg("seed %llu: load %.9g, proved %.9g, the least is %.9g", (unsigned long long)seed, s->objective, s->bound, least);
        dil_solution_free(s);
        dil_problem_free(p);
    }
}

static void a_rate_is_needed_to_count_loads(void **state)
{
    (void)state;
    dil_profile *prof = NULL;
    dil_cluster *c = NULL;
    dil_problem *p = NULL;
    dil_solution *s = NULL;
    dil_err err = {0};
    dil_plan_options o = dil_plan_options_default();
    assert_int_equal(small_model(1, 2, 2, false, &prof, &c, &err), DIL_OK);
    assert_int_equal(dil_problem_from_profile(prof, c, &o, &p, NULL, &err), DIL_OK);
    assert_int_equal(dil_plan_solve(p, &(dil_solve_options){.goal = DIL_GOAL_LOAD, .limit_sec = 1}, &s, &err), DIL_EUSAGE);
    dil_problem_free(p);
    dil_profile_free(prof);
    dil_cluster_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_rate_is_the_largest_and_the_plan_the_fastest_near_it),
        cmocka_unit_test(whole_layers_are_counted),
        cmocka_unit_test(a_rate_is_needed_to_count_loads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
