/* The published rules against their definitions: splits computed by hand, the dynamic programmes against enumeration, the rest against
 * the exhaustive solver; and no baseline ever beats it. Every failure prints its seed. */
#include "plan/baseline.h"

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

static int seeds(int n)
{
    return getenv("DILEMMA_TEST_QUICK") ? n / 10 : n;
}

/* One level, layers of 1 byte and 1 s, links of 0 s between all, ample stores: only the rule decides. */
static dil_problem *plain(uint32_t L, uint32_t S)
{
    dil_problem *p;
    assert_int_equal(dil__problem_new(L, S, 1, "test", &p, NULL), DIL_OK);
    p->hops = dil_arena_push(p->arena, (size_t)S * S, sizeof *p->hops);
    for (uint32_t l = 0; l < L; l++) {
        p->level_count[l] = 1;
        p->layer_bytes[l] = 1;
        for (uint32_t s = 0; s < S; s++) p->layer_sec[dil__cell(p, l, s, 0)] = 1;
    }
    for (uint32_t s = 0; s < S; s++) {
        p->store_bytes[s] = 100;
        p->source_sec[s] = s ? 1e-3 : 0;
        for (uint32_t k = 0; k < S; k++) {
            if (k != s) p->hops[p->n_hops++] = (dil_hop){.from = s, .to = k};
        }
    }
    return p;
}

static dil_problem *random_problem(uint64_t seed, bool one_level)
{
    dil_rng r;
    dil_rng_init(&r, seed);
    uint32_t L = 3 + (uint32_t)dil_rng_below(&r, 3), S = 1 + (uint32_t)dil_rng_below(&r, 3), Q = one_level ? 1 : 1 + (uint32_t)dil_rng_below(&r, 3);
    dil_problem *p;
    assert_int_equal(dil__problem_new(L, S, Q, "test", &p, NULL), DIL_OK);
    double total = 0, worst = 0, least = 0;
    for (uint32_t l = 0; l < L; l++) {
        p->level_count[l] = Q;
        for (uint32_t q = 0; q < Q; q++) {
            size_t lq = (size_t)l * Q + q;
            p->layer_bytes[lq] = floor(1000 * (q + 1) * between(&r, .8, 1.2));
            p->damage[lq] = pow(4, -(double)q) * between(&r, .2, 2);
            for (uint32_t s = 0; s < S; s++) p->layer_sec[dil__cell(p, l, s, q)] = 1e-6 * p->layer_bytes[lq] * between(&r, .5, 4);
        }
        total += p->layer_bytes[(size_t)l * Q + Q / 2];
        worst += p->damage[(size_t)l * Q];
        least += p->damage[(size_t)l * Q + Q - 1];
    }
    p->hops = dil_arena_push(p->arena, (size_t)S * S, sizeof *p->hops);
    for (uint32_t s = 0; s < S; s++) {
        p->store_bytes[s] = floor(total * between(&r, .3, 1.6) / (S > 1 ? 1.7 : 1));
        p->source_sec[s] = s ? between(&r, 1e-4, 3e-3) : 0;
        p->sink_sec[s] = s ? between(&r, 0, 3e-3) : 0;
        for (uint32_t k = 0; k < S; k++) {
            double sec = between(&r, 0, 3e-3);
            if (k != s) p->hops[p->n_hops++] = (dil_hop){.from = s, .to = k, .sec = sec, .head_sec = sec};
        }
    }
    p->damage_max = least + between(&r, .05, 1) * (worst - least);
    return p;
}

/* NULL: the rule's plan breaks a budget, or it has none. */
static dil_solution *solve(const dil_problem *p, const char *name, uint64_t seed)
{
    dil_solution *s = NULL;
    dil_err err = {0};
    dil_solve_options o = {.solver = name, .goal = DIL_GOAL_SEC, .limit_sec = 60, .gap = 1e-7};
    dil_status ok = dil_plan_solve(p, &o, &s, &err);
    if (ok != DIL_OK && ok != DIL_EINFEASIBLE) fail_msg("seed %llu: %s: %s", (unsigned long long)seed, name, err.text);
    if (ok != DIL_OK) assert_true(err.text[0] != 0);
    return s;
}

static void assert_nodes(const dil_problem *p, const char *name, const char *expected)
{
    dil_solution *s = solve(p, name, 0);
    assert_non_null(s);
    char got[64] = "";
    for (uint32_t l = 0; l < p->n_layers; l++) got[l] = (char)('a' + s->node[l]);
    assert_string_equal(got, expected);
    dil_solution_free(s);
}

static void equal_split_gives_every_node_the_same_number(void **state)
{
    (void)state;
    dil_problem *p = plain(11, 3); /* 9 blocks */
    assert_nodes(p, "baseline:equal-split", "aaaabbbcccc");
    dil_problem_free(p);
}

static void memory_split_follows_exo_and_llama_cpp(void **state)
{
    (void)state;
    dil_problem *p = plain(10, 3); /* 8 blocks */
    p->store_bytes[0] = 20, p->store_bytes[1] = 40, p->store_bytes[2] = 20;
    /* llama.cpp: layers 1..9 at 0/9..8/9 against 0.25, 0.75, 1: three, four, two; the embedding at the host. */
    for (uint32_t i = 0; i < p->n_hops; i++) p->hops[i].sec = p->hops[i].head_sec = p->hops[i].from == 1 && p->hops[i].to == 0 ? 1 : 0;
    assert_nodes(p, "baseline:memory-proportional", "aaaabbbbcc");
    /* exo: largest first, b a c: blocks 4, 2, 2; its order is cheaper once the hop from a to b costs. */
    for (uint32_t i = 0; i < p->n_hops; i++) p->hops[i].sec = p->hops[i].head_sec = p->hops[i].from == 0 && p->hops[i].to == 1 ? 1 : 0;
    assert_nodes(p, "baseline:memory-proportional", "bbbbbaaccc");
    dil_problem_free(p);
}

static void speed_split_is_inverse_to_seconds(void **state)
{
    (void)state;
    dil_problem *p = plain(11, 2);
    for (uint32_t l = 0; l < 11; l++) p->layer_sec[dil__cell(p, l, 1, 0)] = 4; /* shares 0.8 and 0.2 */
    assert_nodes(p, "baseline:speed-proportional", "aaaaaaaaabb"); /* llama.cpp's rounding: 0..7 of 10 below 0.8 */
    dil_problem_free(p);
}

static void a_rule_that_breaks_a_budget_says_which(void **state)
{
    (void)state;
    dil_problem *p = plain(11, 3);
    dil_solution *s = NULL;
    dil_err err = {0};
    p->store_bytes[2] = 3; /* of four */
    dil_solve_options o = {.solver = "baseline:equal-split", .limit_sec = 10};
    assert_int_equal(dil__solve_any(p, &o, &s, &err), DIL_EINFEASIBLE);
    assert_string_equal(err.text, "baseline:equal-split: storage: node 2 needs 4 bytes and offers 3");
    assert_non_null(s); /* its plan all the same */
    assert_int_equal(s->node[10], 2);
    dil_solution_free(s);
    assert_int_equal(dil_plan_solve(p, &o, &s, &err), DIL_EINFEASIBLE);
    dil_problem_free(p);
}

/* With room for all everywhere the dynamic programme is exact; the first layer is pinned by taking the other sources away. */
static void edgeshard_is_optimal_where_memory_is_ample(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= (uint64_t)seeds(200); seed++) {
        dil_problem *p = random_problem(seed, true);
        for (uint32_t s = 0; s < p->n_nodes; s++) p->store_bytes[s] = 1e6, p->source_sec[s] = s ? INFINITY : 0;
        dil_solution *a = solve(p, "exhaustive", seed), *b = solve(p, "baseline:edgeshard", seed);
        assert_non_null(a);
        assert_non_null(b);
        if (fabs(a->objective - b->objective) > 1e-12) fail_msg("seed %llu: %.9g, edgeshard %.9g", (unsigned long long)seed, a->objective, b->objective);
        dil_solution_free(a);
        dil_solution_free(b);
        dil_problem_free(p);
    }
}

/* Least compute seconds of windows in ring order within the stores, by enumeration of the cuts; INFINITY: none. */
static double best_windows(const dil_problem *p, uint32_t first, uint32_t last, uint32_t s, double taken)
{
    double best = first > last ? 0 : INFINITY, bytes = taken, sec = 0;
    if (s == p->n_nodes) return best;
    best = best_windows(p, first, last, s + 1, 0);
    for (uint32_t l = first; l <= last; l++) {
        bytes += p->layer_bytes[l];
        sec += p->layer_sec[dil__cell(p, l, s, 0)];
        if (bytes > p->store_bytes[s]) break;
        best = fmin(best, sec + best_windows(p, l + 1, last, s + 1, 0));
    }
    return best;
}

static void halda_minimises_compute_over_windows(void **state)
{
    (void)state;
    int ends_at_head = 0, solved = 0;
    for (uint64_t seed = 1; seed <= (uint64_t)seeds(300); seed++) {
        dil_problem *p = random_problem(seed, true);
        uint32_t last = p->n_layers - 1;
        double ends = p->layer_bytes[0] + p->layer_bytes[last], expected = INFINITY;
        if (ends <= p->store_bytes[0])
            expected = p->layer_sec[0] + p->layer_sec[dil__cell(p, last, 0, 0)] + best_windows(p, 1, last - 1, 0, ends);
        ends_at_head += isfinite(expected);
        if (isinf(expected)) expected = best_windows(p, 0, last, 0, 0);
        p->damage_max = INFINITY;
        dil_solution *s = solve(p, "baseline:halda", seed);
        if ((s != NULL) != isfinite(expected)) fail_msg("seed %llu: a plan: %d, windows: %g", (unsigned long long)seed, s != NULL, expected);
        double sec = 0;
        for (uint32_t l = 0; s && l <= last; l++) sec += p->layer_sec[dil__cell(p, l, s->node[l], 0)];
        if (s && fabs(sec - expected) > 1e-12) fail_msg("seed %llu: windows %.9g, halda %.9g", (unsigned long long)seed, expected, sec);
        solved += s != NULL;
        dil_solution_free(s);
        dil_problem_free(p);
    }
    assert_true(ends_at_head > 0 && ends_at_head < solved);
}

static void uniform_is_the_best_of_all_precisions(void **state)
{
    (void)state;
    int found = 0;
    for (uint64_t seed = 1; seed <= (uint64_t)seeds(120); seed++) {
        dil_problem *p = random_problem(seed, false);
        double best = INFINITY;
        for (uint32_t q = 0; q < p->n_levels; q++) {
            uint32_t level[8];
            for (uint32_t l = 0; l < p->n_layers; l++) level[l] = q;
            dil_problem *one;
            assert_int_equal(dil__problem_at_levels(p, level, &one, NULL), DIL_OK);
            dil_solution *s = solve(one, "exhaustive", seed);
            if (s) best = fmin(best, s->objective);
            dil_solution_free(s);
            dil_problem_free(one);
        }
        dil_solution *u = solve(p, "baseline:uniform", seed);
        if ((u != NULL) != isfinite(best) || (u && fabs(u->objective - best) > 1e-3 * best))
            fail_msg("seed %llu: the best precision takes %.9g, uniform %.9g", (unsigned long long)seed, best, u ? u->objective : INFINITY);
        found += u != NULL;
        dil_solution_free(u);
        dil_problem_free(p);
    }
    assert_true(found > seeds(120) / 4);
}

static void the_papers_programme_is_exact_on_bare_problems(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= (uint64_t)seeds(80); seed++) {
        dil_problem *p = random_problem(seed, false);
        dil_solution *a = solve(p, "exhaustive", seed), *b = solve(p, "baseline:paper", seed);
        if ((a != NULL) != (b != NULL) || (a && fabs(a->objective - b->objective) > 1e-6 * a->objective))
            fail_msg("seed %llu: exhaustive %.9g, paper %.9g", (unsigned long long)seed, a ? a->objective : INFINITY, b ? b->objective : INFINITY);
        dil_solution_free(a);
        dil_solution_free(b);
        dil_problem_free(p);
    }
}

/* The referee has passed every plan inside dil_plan_solve; here: none is better than the best, "+levels" is never worse than without. */
static void no_baseline_beats_the_optimum(void **state)
{
    (void)state;
    for (uint64_t seed = 1000; seed < 1000 + (uint64_t)seeds(60); seed++) {
        dil_problem *p = random_problem(seed, false);
        dil_solution *best = solve(p, "exhaustive", seed);
        for (const char *const *n = dil_plan_solvers(); *n; n++) {
            char with[64];
            if (strncmp(*n, "baseline:", 9) != 0 || strchr(*n, '+')) continue;
            dil_solution *s = solve(p, *n, seed), *more = NULL;
            snprintf(with, sizeof with, "%s+levels", *n);
            for (const char *const *k = dil_plan_solvers(); *k; k++) {
                if (strcmp(*k, with) == 0) more = solve(p, *k, seed);
            }
            if ((s || more) && !best) fail_msg("seed %llu: %s has a plan where there is none", (unsigned long long)seed, *n);
            if (s && s->objective < best->objective * (1 - 1e-9)) fail_msg("seed %llu: %s beats the optimum", (unsigned long long)seed, *n);
            if (s && s->bound > best->objective * (1 + 1e-9)) fail_msg("seed %llu: %s: bound above the optimum", (unsigned long long)seed, *n);
            if (more && more->objective < best->objective * (1 - 1e-9)) fail_msg("seed %llu: %s beats the optimum", (unsigned long long)seed, with);
            if (s && more && more->objective > s->objective * (1 + 1e-9)) fail_msg("seed %llu: %s is worse than %s", (unsigned long long)seed, with, *n);
            dil_solution_free(s);
            dil_solution_free(more);
        }
        dil_solution_free(best);
        dil_problem_free(p);
    }
}

/* What soft-quality solves: a size limit, no damage budget, the damage in the seconds. */
static void a_penalty_in_place_of_the_budget_is_solved_exactly(void **state)
{
    (void)state;
    int found = 0;
    for (uint64_t seed = 1; seed <= (uint64_t)seeds(300); seed++) {
        dil_problem *p = random_problem(seed, false);
        size_t lq = (size_t)p->n_layers * p->n_levels;
        double theta = (double[]){1e-3, 1e-2, 0.1, 1}[seed % 4], least = 0, most = 0;
        p->damage_max = INFINITY;
        p->file_bytes = dil_arena_push(p->arena, lq, sizeof(double));
        memcpy(p->file_bytes, p->layer_bytes, lq * sizeof(double));
        for (uint32_t l = 0; l < p->n_layers; l++) {
            double lo = INFINITY, hi = 0;
            for (uint32_t q = 0; q < p->n_levels; q++) {
                lo = fmin(lo, p->layer_bytes[l * p->n_levels + q]);
                hi = fmax(hi, p->layer_bytes[l * p->n_levels + q]);
                for (uint32_t s = 0; s < p->n_nodes; s++) p->layer_sec[dil__cell(p, l, s, q)] += theta * p->damage[l * p->n_levels + q];
            }
            least += lo;
            most += hi;
        }
        p->file_bytes_max = floor(least + 0.3 * (most - least));
        dil_solution *a = solve(p, "exhaustive", seed), *b = solve(p, "path", seed);
        if ((a != NULL) != (b != NULL) || (a && fabs(a->objective - b->objective) > 1e-6 * a->objective))
            fail_msg("seed %llu: exhaustive %.9g, path %.9g", (unsigned long long)seed, a ? a->objective : INFINITY, b ? b->objective : INFINITY);
        found += a != NULL;
        dil_solution_free(a);
        dil_solution_free(b);
        dil_problem_free(p);
    }
    assert_true(found > seeds(300) / 3);
}

static void a_precision_that_a_layer_lacks_is_rounded_up(void **state)
{
    (void)state;
    dil_problem *p;
    assert_int_equal(dil__problem_new(4, 1, 3, "test", &p, NULL), DIL_OK);
    static const uint32_t class[4][3] = {{7, 8, 9}, {7, 5, 6}, {7, 5, 6}, {7, 5, 6}};
    static const double bytes[4][3] = {{100, 60, 30}, {10, 5, 3}, {10, 5, 3}, {10, 5, 3}};
    p->precision = dil_arena_push(p->arena, 12, sizeof *p->precision);
    for (uint32_t l = 0; l < 4; l++) {
        p->level_count[l] = 3;
        for (uint32_t q = 0; q < 3; q++) p->precision[l * 3 + q] = class[l][q], p->layer_bytes[l * 3 + q] = bytes[l][q];
    }
    assert_int_equal(dil__precisions(p), 3); /* 7, 5, 6; 8 and 9 are of one layer alone */
    static const uint32_t expected[3][4] = {{0, 0, 0, 0}, {1, 1, 1, 1}, {2, 2, 2, 2}};
    for (uint32_t c = 0; c < 3; c++) {
        uint32_t level[4];
        dil__precision_levels(p, c, level);
        assert_memory_equal(level, expected[c], sizeof level);
    }
    dil_problem_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_split_gives_every_node_the_same_number),
        cmocka_unit_test(memory_split_follows_exo_and_llama_cpp),
        cmocka_unit_test(speed_split_is_inverse_to_seconds),
        cmocka_unit_test(a_rule_that_breaks_a_budget_says_which),
        cmocka_unit_test(edgeshard_is_optimal_where_memory_is_ample),
        cmocka_unit_test(halda_minimises_compute_over_windows),
        cmocka_unit_test(uniform_is_the_best_of_all_precisions),
        cmocka_unit_test(the_papers_programme_is_exact_on_bare_problems),
        cmocka_unit_test(no_baseline_beats_the_optimum),
        cmocka_unit_test(a_penalty_in_place_of_the_budget_is_solved_exactly),
        cmocka_unit_test(a_precision_that_a_layer_lacks_is_rounded_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
