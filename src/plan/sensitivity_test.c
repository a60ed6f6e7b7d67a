/* Every gain that --explain tells and every point of the front, against enumeration of the changed problem. */
#include "plan/problem_impl.h"
#include "plan/small_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

static int seeds(int n)
{
    return getenv("DILEMMA_TEST_QUICK") ? 1 : n;
}

static double enumerated(const dil_profile *prof, const dil_cluster *c, const dil_plan_options *o, double damage_max, double *damage)
{
    dil_problem *p;
    dil_solution *s = NULL;
    dil_err err = {0};
    assert_int_equal(dil_problem_from_profile(prof, c, o, &p, NULL, &err), DIL_OK);
    p->damage_max = damage_max;
    dil_solve_options so = {.solver = "exhaustive", .goal = damage ? DIL_GOAL_DAMAGE : DIL_GOAL_SEC, .limit_sec = 60};
    dil_status ok = dil_plan_solve(p, &so, &s, &err);
    double v = ok == DIL_OK ? s->objective : INFINITY;
    if (damage) *damage = v;
    dil_solution_free(s);
    dil_problem_free(p);
    return v;
}

static dil_cluster changed(const dil_cluster *c, const dil_explanation *e)
{
    dil_cluster d = *c;
    d.nodes = calloc(c->n_nodes, sizeof *d.nodes);
    d.links = calloc(c->n_links, sizeof *d.links);
    memcpy(d.nodes, c->nodes, c->n_nodes * sizeof *d.nodes);
    memcpy(d.links, c->links, c->n_links * sizeof *d.links);
    uint32_t i = e->node ? dil_cluster_find(c, e->node) : DIL_NO_NODE;
    if (e->reason == DIL_REASON_MEMORY) d.nodes[i].memory_bytes += (uint64_t)e->more;
    for (uint32_t k = 0; e->reason == DIL_REASON_LINKS && k < d.n_links; k++) {
        if (d.links[k].from != i && d.links[k].to != i) continue;
        d.links[k].latency_sec /= 2;
        d.links[k].bytes_per_sec *= 2;
    }
    return d;
}

static void every_gain_is_that_of_a_plan(void **state)
{
    (void)state;
    int binding = 0, left_out = 0;
    for (uint64_t seed = 1; seed <= (uint64_t)seeds(8); seed++) {
        dil_profile *prof;
        dil_cluster *c;
        dil_plan *plan;
        dil_err err = {0};
        static dil_explanation e[DIL_EXPLANATIONS_MAX];
        uint32_t n;
        assert_int_equal(small_model(seed, 2, 3, true, &prof, &c, &err), DIL_OK);
        dil_plan_options o = dil_plan_options_default();
        o.max_damage = 0.03;
        o.tokens_in = 48;
        o.gap = 1e-7;
        if (dil_plan_make(prof, c, &o, &plan, &err) != DIL_OK) fail_msg("seed %llu: %s", (unsigned long long)seed, err.text);
        if (dil_plan_explain(prof, c, &o, plan, e, &n, &err) != DIL_OK) fail_msg("seed %llu: %s", (unsigned long long)seed, err.text);
        assert_true(n >= 7);
        for (uint32_t i = 0; i < n; i++) {
            if (e[i].reason == DIL_REASON_LEFT_OUT) {
                left_out++;
                assert_true(e[i].total_sec >= plan->total_sec * (1 - 1e-9));
                continue;
            }
            dil_cluster d = changed(c, &e[i]);
            double budget = o.max_damage + (e[i].reason == DIL_REASON_DAMAGE ? e[i].more : 0);
            double best = enumerated(prof, &d, &o, budget, NULL);
            if (!e[i].proved || fabs(best - e[i].total_sec) > 1e-6 * best || e[i].bound_sec > best * (1 + 1e-9))
                fail_msg("seed %llu: '%s': %.9g s, enumeration %.9g s", (unsigned long long)seed, e[i].text, e[i].total_sec, best);
            assert_true(e[i].binds == (best < plan->total_sec * (1 - 1e-6)));
            binding += e[i].binds;
            free(d.nodes);
            free(d.links);
        }
        dil_plan_free(plan);
        dil_cluster_free(c);
        dil_profile_free(prof);
    }
    assert_true(binding > 0);
    print_message("%d binding, %d nodes left out\n", binding, left_out);
}

static void every_point_of_the_front_is_the_best_at_its_budget(void **state)
{
    (void)state;
    for (uint64_t seed = 21; seed < 21 + (uint64_t)seeds(4); seed++) {
        dil_profile *prof;
        dil_cluster *c;
        dil_err err = {0};
        dil_front_point v[6];
        uint32_t n;
        double least;
        assert_int_equal(small_model(seed, 2, 3, true, &prof, &c, &err), DIL_OK);
        dil_plan_options o = dil_plan_options_default();
        o.gap = 1e-7;
        if (dil_plan_front(prof, c, &o, DIL_FRONT_DAMAGE, 6, v, &n, &err) != DIL_OK) fail_msg("seed %llu: %s", (unsigned long long)seed, err.text);
        assert_int_equal(n, 6);
        enumerated(prof, c, &o, INFINITY, &least);
        assert_true(fabs(v[0].budget - least) <= 1e-9 + 1e-6 * least);
        for (uint32_t i = 0; i < n; i++) {
            double best = enumerated(prof, c, &o, v[i].budget * (1 + 1e-12), NULL);
            if (fabs(best - v[i].total_sec) > 1e-6 * best || v[i].bound_sec > best * (1 + 1e-9))
                fail_msg("seed %llu, budget %.9g: front %.9g s, enumeration %.9g s", (unsigned long long)seed, v[i].budget, v[i].total_sec, best);
            assert_true(v[i].damage <= v[i].budget * (1 + 1e-9));
            if (i) assert_true(v[i].total_sec <= v[i - 1].total_sec && v[i].budget >= v[i - 1].budget);
        }
        assert_true(fabs(v[n - 1].total_sec - enumerated(prof, c, &o, INFINITY, NULL)) <= 1e-6 * v[n - 1].total_sec);
        dil_cluster_free(c);
        dil_profile_free(prof);
    }
}

/* 4 layers, 4 nodes, 2 levels; storage and quality bind. */
static dil_problem *small_bare(uint64_t seed)
{
    dil_problem *p;
    dil_rng r;
    dil_rng_init(&r, seed);
    assert_int_equal(dil__problem_new(4, 4, 2, "test", &p, NULL), DIL_OK);
    p->hops = dil_arena_push(p->arena, 12, sizeof *p->hops);
    for (uint32_t l = 0; l < 4; l++) {
        p->level_count[l] = 2;
        for (uint32_t q = 0; q < 2; q++) {
            p->layer_bytes[2 * l + q] = q ? 600 : 1000;
            p->damage[2 * l + q] = q ? small_between(&r, 0.5, 1.5) : 0;
            for (uint32_t s = 0; s < 4; s++) p->layer_sec[dil__cell(p, l, s, q)] = small_between(&r, 1, 4) * (q ? 0.7 : 1);
        }
    }
    p->damage_max = 2.2;
    for (uint32_t s = 0; s < 4; s++) {
        p->store_bytes[s] = small_between(&r, 500, 2500);
        p->source_sec[s] = p->sink_sec[s] = s ? small_between(&r, 0, 1) : 0;
        for (uint32_t t = 0; t < 4; t++) {
            double sec = small_between(&r, 0.1, 1.5);
            if (s != t) p->hops[p->n_hops++] = (dil_hop){.from = s, .to = t, .sec = sec, .head_sec = sec};
        }
    }
    return p;
}

static double least_sec(dil_problem *p)
{
    dil_solution *s = NULL;
    dil_solve_options o = {.solver = "exhaustive", .limit_sec = 60};
    assert_int_equal(dil_plan_solve(p, &o, &s, NULL), DIL_OK);
    double v = s->objective;
    dil_solution_free(s);
    return v;
}

/* The problem with one thing changed as the explanation says, by enumeration; then changed back. */
static double least_changed(dil_problem *p, const dil_explanation *e)
{
    for (int pass = 0; pass < 2; pass++) {
        const double sign = pass ? -1 : 1, factor = pass ? 2 : 0.5;
        static double v;
        if (pass) v = least_sec(p);
        if (e->reason == DIL_REASON_MEMORY) p->store_bytes[e->index] += sign * e->more;
        if (e->reason == DIL_REASON_DAMAGE) p->damage_max += sign * e->more;
        for (uint32_t i = 0; e->reason == DIL_REASON_LINKS && i < p->n_hops; i++) {
            if (p->hops[i].from != e->index && p->hops[i].to != e->index) continue;
            p->hops[i].sec *= factor;
            p->hops[i].head_sec *= factor;
        }
        if (e->reason == DIL_REASON_LINKS) {
            p->source_sec[e->index] *= factor;
            p->sink_sec[e->index] *= factor;
        }
        if (pass) return v;
    }
    return 0;
}

static void gains_of_a_bare_problem_are_those_of_plans(void **state)
{
    (void)state;
    int binding = 0, left_out = 0, none = 0;
    for (uint64_t seed = 1; seed <= (uint64_t)seeds(20); seed++) {
        dil_problem *p = small_bare(seed);
        dil_solution *plan = NULL;
        dil_err err = {0};
        static dil_explanation e[DIL_EXPLANATIONS_MAX];
        uint32_t n;
        dil_solve_options o = {.limit_sec = 60, .gap = 1e-7};
        dil_status ok = dil_plan_solve(p, &o, &plan, &err);
        if (ok == DIL_OK) ok = dil_problem_explain(p, &o, plan->node, plan->level, e, &n, &err);
        if (ok != DIL_OK && ok != DIL_EINFEASIBLE) fail_msg("seed %llu: %s", (unsigned long long)seed, err.text);
        none += ok != DIL_OK;
        for (uint32_t i = 0; ok == DIL_OK && i < n; i++) {
            assert_true(e[i].node == NULL && isnan(e[i].token_sec) && strlen(e[i].text) > 10);
            left_out += e[i].reason == DIL_REASON_LEFT_OUT;
            if (e[i].reason == DIL_REASON_LEFT_OUT) continue;
            double least = least_changed(p, &e[i]);
            if (fabs(least - e[i].total_sec) > 1e-6 * least) fail_msg("seed %llu: %s: enumeration %.9g, told %.9g", (unsigned long long)seed, e[i].text, least, e[i].total_sec);
            assert_true(e[i].proved && e[i].binds == (least < plan->objective * (1 - 1e-6)));
            binding += e[i].binds;
        }
        dil_solution_free(plan);
        dil_problem_free(p);
    }
    print_message("%d gains, %d nodes left out, %d without a plan\n", binding, left_out, none);
    assert_true(getenv("DILEMMA_TEST_QUICK") || (binding > 10 && left_out > 3));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_gain_is_that_of_a_plan),
        cmocka_unit_test(every_point_of_the_front_is_the_best_at_its_budget),
        cmocka_unit_test(gains_of_a_bare_problem_are_those_of_plans),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
