/* Several models: the joined program against enumeration of all pairs of plans, judged by the referee; and against one after the other. */
#include <dilemma/fleet.h>

#include "plan/problem_impl.h"
#include "plan/small_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

typedef struct pair {
    dil_profile *prof[2];
    dil_cluster *c, *other;
    dil_fleet_model m[2];
} pair;

static pair make(uint64_t seed)
{
    pair x;
    dil_err err = {0};
    dil_rng r;
    dil_rng_init(&r, seed);
    assert_int_equal(small_model(seed, 1, 2, true, &x.prof[0], &x.c, &err), DIL_OK);
    assert_int_equal(small_model(seed + 1000, 1, 2, true, &x.prof[1], &x.other, &err), DIL_OK);
    for (uint32_t i = 0; i < 2; i++) x.c->nodes[i].memory_bytes = (uint64_t)((double)x.c->nodes[i].memory_bytes * small_between(&r, 1.1, 2.2));
    for (uint32_t i = 0; i < 2; i++) {
        x.m[i] = (dil_fleet_model){x.prof[i], dil_plan_options_default(), small_between(&r, 0.2, 3)};
        x.m[i].options.max_damage = small_between(&r, 0.002, 0.1);
        x.m[i].options.tokens_in = 40;
        x.m[i].options.tokens_out = 20;
        if (dil_rng_below(&r, 2)) x.m[i].options.rate = small_between(&r, 1, 12);
    }
    return x;
}

static void drop(pair *x)
{
    for (int i = 0; i < 2; i++) dil_profile_free(x->prof[i]);
    dil_cluster_free(x->c);
    dil_cluster_free(x->other);
}

/* Every plan of three layers on two nodes that is within its own budgets. -> how many */
static uint32_t all_plans(const pair *x, int which, dil_plan **out)
{
    uint32_t n = 0, node_of[2] = {0, 1};
    for (uint32_t code = 0; code < 8 * 9; code++) {
        uint32_t node[3] = {code & 1, code >> 1 & 1, code >> 2 & 1}, q = code / 8, level[3] = {q % 3, q / 3, q % 3};
        dil_solution s = {.n_layers = 3, .node = node, .level = level, .solver = "all"};
        dil_plan *plan;
        if (dil__plan_unbudgeted(x->prof[which], x->c, &x->m[which].options, &s, node_of, &plan, NULL) != DIL_OK) continue;
        if (dil_plan_predict(x->prof[which], x->c, &x->m[which].options, plan, false, NULL) == DIL_OK) out[n++] = plan;
        else dil_plan_free(plan);
    }
    return n;
}

static double enumerate(const pair *x)
{
    static dil_plan *a[72], *b[72];
    uint32_t na = all_plans(x, 0, a), nb = all_plans(x, 1, b);
    double best = INFINITY;
    for (uint32_t i = 0; i < na; i++) {
        for (uint32_t k = 0; k < nb; k++) {
            dil_plan *both[2] = {a[i], b[k]};
            double sum = x->m[0].weight * a[i]->total_sec + x->m[1].weight * b[k]->total_sec;
            if (sum < best && dil_fleet_check(x->m, 2, x->c, both, NULL) == DIL_OK) best = sum;
        }
    }
    for (uint32_t i = 0; i < na; i++) dil_plan_free(a[i]);
    for (uint32_t i = 0; i < nb; i++) dil_plan_free(b[i]);
    return best;
}

static void joined_plans_are_the_best_of_all_pairs(void **state)
{
    (void)state;
    int solved = 0, none = 0, better = 0, n = getenv("DILEMMA_TEST_QUICK") ? 6 : 60;
    for (uint64_t seed = 1; seed <= (uint64_t)n; seed++) {
        pair x = make(seed);
        dil_plan *plans[2] = {0};
        dil_fleet_result r, turn;
        dil_err err = {0};
        dil_fleet_how how = {.limit_sec = 60, .gap = 1e-7};
        double best = enumerate(&x);
        dil_status s = dil_fleet_plan(x.m, 2, x.c, &how, plans, &r, &err);
        if ((s == DIL_OK) != isfinite(best) || (s != DIL_OK && s != DIL_EINFEASIBLE))
            fail_msg("seed %llu: enumeration %.9g, joined: %s", (unsigned long long)seed, best, err.text);
        if (s == DIL_OK && (fabs(r.objective - best) > 1e-6 * best || r.bound > best * (1 + 1e-9)))
            fail_msg("seed %llu: enumeration %.9g, joined %.9g, bound %.9g", (unsigned long long)seed, best, r.objective, r.bound);
        for (int i = 0; i < 2 && s == DIL_OK; i++) dil_plan_free(plans[i]);
        how.method = DIL_FLEET_IN_TURN;
        dil_status t = dil_fleet_plan(x.m, 2, x.c, &how, plans, &turn, &err);
        if (t == DIL_OK) {
            assert_true(s == DIL_OK && turn.objective >= r.objective * (1 - 1e-6));
            for (int i = 0; i < 2; i++) dil_plan_free(plans[i]);
        }
        solved += s == DIL_OK;
        none += s != DIL_OK;
        better += s == DIL_OK && (t != DIL_OK || turn.objective > r.objective * 1.001);
        drop(&x);
    }
    print_message("%d solved, %d have no plans; joined is better than one after the other in %d\n", solved, none, better);
    assert_true(getenv("DILEMMA_TEST_QUICK") || (solved > n / 4 && none > 0 && better > 0));
}

/* Without the program: what is found is a plan for all, what is proved is true, and one after the other is never better. */
static void prices_bound_the_best_of_all_pairs(void **state)
{
    (void)state;
    int solved = 0, best_found = 0, n = getenv("DILEMMA_TEST_QUICK") ? 4 : 12;
    double gap = 0;
    for (uint64_t seed = 201; seed <= 200 + (uint64_t)n; seed++) {
        pair x = make(seed);
        dil_plan *plans[2] = {0};
        dil_fleet_result r, turn;
        dil_err err = {0};
        dil_fleet_how how = {.limit_sec = 20, .gap = 1e-4, .method = DIL_FLEET_PRICES};
        double best = enumerate(&x);
        dil_status s = dil_fleet_plan(x.m, 2, x.c, &how, plans, &r, &err);
        if (s == DIL_OK && (r.objective < best * (1 - 1e-9) || r.bound > best * (1 + 1e-9)))
            fail_msg("seed %llu: enumeration %.9g, prices %.9g, bound %.9g", (unsigned long long)seed, best, r.objective, r.bound);
        if (s == DIL_EINFEASIBLE && isfinite(best)) fail_msg("seed %llu: enumeration %.9g, prices: %s", (unsigned long long)seed, best, err.text);
        for (int i = 0; i < 2 && s == DIL_OK; i++) dil_plan_free(plans[i]);
        how.method = DIL_FLEET_IN_TURN;
        dil_status t = dil_fleet_plan(x.m, 2, x.c, &how, plans, &turn, &err);
        for (int i = 0; i < 2 && t == DIL_OK; i++) dil_plan_free(plans[i]);
        if (t == DIL_OK && (s != DIL_OK || r.objective > turn.objective * (1 + 1e-4)))
            fail_msg("seed %llu: one after the other %.9g, prices %.9g", (unsigned long long)seed, turn.objective, s == DIL_OK ? r.objective : INFINITY);
        solved += s == DIL_OK;
        best_found += s == DIL_OK && r.objective <= best * (1 + 1e-4);
        gap = fmax(gap, s == DIL_OK ? r.gap : 0);
        drop(&x);
    }
    print_message("%d of %d solved, %d of them the best; largest gap %.3g %%\n", solved, n, best_found, 100 * gap);
    assert_true(best_found * 10 >= solved * 8 && gap < 0.6);
}

static void models_without_a_quality_budget_share_the_damage_first(void **state)
{
    (void)state;
    pair x = make(11);
    dil_plan *plans[2];
    dil_fleet_result r;
    dil_err err = {0};
    dil_fleet_how how = {.limit_sec = 60, .gap = 1e-7};
    for (int i = 0; i < 2; i++) {
        x.m[i].options.max_damage = INFINITY;
        x.m[i].options.rate = 0;
    }
    for (uint32_t i = 0; i < 2; i++) x.c->nodes[i].memory_bytes = (uint64_t)1 << 40; /* room for all: no damage at all is possible */
    if (dil_fleet_plan(x.m, 2, x.c, &how, plans, &r, &err) != DIL_OK) fail_msg("%s", err.text);
    for (int i = 0; i < 2; i++) {
        assert_true(plans[i]->predicted_damage == 0);
        dil_plan_free(plans[i]);
    }
    drop(&x);
}

static void one_model_is_the_ordinary_plan(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 8; seed++) {
        pair x = make(seed);
        dil_plan *plan, *alone;
        dil_fleet_result r;
        dil_err err = {0};
        dil_fleet_how how = {.limit_sec = 60, .gap = 1e-7};
        x.m[0].options.gap = 1e-7;
        dil_status a = dil_plan_make(x.prof[0], x.c, &x.m[0].options, &alone, &err), b = dil_fleet_plan(x.m, 1, x.c, &how, &plan, &r, &err);
        assert_int_equal(a, b);
        if (a == DIL_OK) {
            assert_true(fabs(alone->total_sec - plan->total_sec) <= 1e-6 * alone->total_sec);
            dil_plan_free(alone);
            dil_plan_free(plan);
        }
        drop(&x);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(joined_plans_are_the_best_of_all_pairs),
        cmocka_unit_test(prices_bound_the_best_of_all_pairs),
        cmocka_unit_test(models_without_a_quality_budget_share_the_damage_first),
        cmocka_unit_test(one_model_is_the_ordinary_plan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
