/* Speculation in the plan: figures computed by hand, the referee against the problem on random models, and nothing changes without it. */
#include "plan/problem_impl.h"
#include "plan/small_scene.h"

#include <math.h>

/* Embedding, one block, head on these nodes, all at the first level. */
static dil_plan *plan_on(const scene *s, const uint32_t node[3])
{
    uint32_t at[3] = {node[0], node[1], node[2]}, level[3] = {0}, node_of[2] = {0, 1};
    dil_solution sol = {.n_layers = 3, .node = at, .level = level, .solver = "test"};
    dil_plan *plan;
    dil_err err = {0};
    if (dil__plan_unbudgeted(s->prof, s->c, &s->o, &sol, node_of, &plan, &err) != DIL_OK) fail_msg("%s", err.text);
    return plan;
}

static void near(const char *what, double got, double want)
{
    if (fabs(got - want) > 1e-12 * fabs(want)) fail_msg("%s is %.15g, by hand %.15g", what, got, want);
}

/* Every layer 10 ms a token and 4 ms a further row; every link 20 ms and 10 ms a hidden state. */
static scene round_numbers(void)
{
    scene s = make(1, 1, 2, false);
    for (uint32_t l = 0; l < 3; l++) {
        for (uint32_t n = 0; n < 2; n++) {
            s.prof->layers[l].levels[0].decode_sec[n] = 0.010;
            s.prof->layers[l].levels[0].prefill_sec[n] = 0.004;
        }
    }
    for (uint32_t i = 0; i < s.c->n_links; i++) s.c->links[i].latency_sec = 0.02, s.c->links[i].bytes_per_sec = 230400;
    s.o.max_damage = INFINITY;
    s.o.tokens_in = 32; /* one chunk */
    s.o.tokens_out = 101;
    return s;
}

static void a_pass_costs_and_yields_what_is_computed_by_hand(void **state)
{
    (void)state;
    static const struct { uint32_t d; double chance, yield; } v[] = {{0, 0.5, 1}, {1, 0.5, 1.5}, {2, 0.5, 1.75}, {3, 1, 4}, {5, 0, 1}, {2, 0.1, 1.11}, {15, 1, 16}};
    scene s = round_numbers();
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
        const double d = v[i].d, yield = v[i].yield, pass = 0.010 + d * 0.004;
        s.o.n_guesses = v[i].d;
        s.o.acceptance = v[i].chance;
        dil_plan *p = plan_on(&s, (const uint32_t[]){0, 1, 0});
        near("token", p->token_sec, (3 * pass + 2 * (0.02 + (1 + d) * 0.01)) / yield);
        near("prefill", p->prefill_sec, 32 * 0.004 + (0.02 + 0.32) + 32 * 0.004 + 0.03 + 0.010); /* knows of no guesses */
        near("answer", p->total_sec, p->prefill_sec + 100 * p->token_sec);
        double node = 101 * 2 * pass / yield + 32 * 0.004, link = 0.01 * (32 + 101 * (1 + d) / yield);
        near("requests a second", p->requests_per_sec, 0.9 / fmax(node, link));
        near("compute of a stage", p->stages[1].compute_sec, 0.010);
        assert_true(p->n_guesses == v[i].d && p->acceptance == (v[i].d ? v[i].chance : 0));
        dil_plan_free(p);
        p = plan_on(&s, (const uint32_t[]){1, 1, 1}); /* ids of all rows go there, those that count come back */
        near("token", p->token_sec, (3 * pass + 2 * 0.02 + 4 * (1 + d) / 230400) / yield + 4.0 / 230400);
        near("prefill", p->prefill_sec, 0.02 + 128.0 / 230400 + 2 * 32 * 0.004 + 0.010 + 0.02 + 4.0 / 230400);
        dil_plan_free(p);
    }
    drop(&s);
}

/* Between the rows that were measured on a line; a pass that was measured shorter than a token's takes a token's. */
static void a_pass_takes_what_was_measured_for_its_rows(void **state)
{
    (void)state;
    static const struct { uint32_t rows; double sec; } v[] = {{1, 0.010}, {2, 0.012}, {3, 0.016}, {4, 0.020}, {6, 0.025}, {8, 0.030}, {12, 0.045}, {16, 0.060}};
    double pass[DIL_PROFILE_PASSES * 2];
    for (int i = 0; i < DIL_PROFILE_PASSES * 2; i++) pass[i] = (double[]){0.012, 0.020, 0.030, 0.060}[i / 2];
    scene s = round_numbers();
    for (uint32_t l = 0; l < 3; l++) s.prof->layers[l].levels[0].pass_sec = pass;
    s.o.acceptance = 0;
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
        s.o.n_guesses = v[i].rows - 1;
        dil_plan *p = plan_on(&s, (const uint32_t[]){0, 1, 0});
        near("token", p->token_sec, 3 * v[i].sec + 2 * (0.02 + v[i].rows * 0.01));
        dil_plan_free(p);
    }
    for (int i = 0; i < DIL_PROFILE_PASSES * 2; i++) pass[i] = 0.005;
    dil_plan *p = plan_on(&s, (const uint32_t[]){0, 1, 0});
    near("token", p->token_sec, 3 * 0.010 + 2 * (0.02 + 16 * 0.01));
    dil_plan_free(p);
    for (uint32_t l = 0; l < 3; l++) s.prof->layers[l].levels[0].pass_sec = NULL;
    drop(&s);
}

/* What the problem says of a plan's assignment, against the referee's rate: nodes, links and connections. */
static void same_load(const scene *s, const dil_plan *plan, uint64_t seed)
{
    dil_problem *p = NULL;
    dil_plan_options o = s->o;
    dil_use u = {0};
    uint32_t node[8], level[8];
    o.objective = DIL_OBJECTIVE_THROUGHPUT; /* loads at one request a second */
    o.rate = 0;
    assert_int_equal(dil_problem_from_profile(s->prof, s->c, &o, &p, NULL, NULL), DIL_OK);
    for (uint32_t l = 0; l < plan->n_layers; l++) {
        node[l] = dil_cluster_find(s->c, plan->layers[l].node); /* numbered alike in cluster, profile and problem */
        for (level[l] = 0; strcmp(s->prof->layers[l].levels[level[l]].name, plan->layers[l].level) != 0;) level[l]++;
    }
    dil_problem_check(p, node, level, &u, NULL);
    if (fabs(o.load_max / u.load_max - plan->requests_per_sec) > 1e-9 * plan->requests_per_sec)
        fail_msg("seed %llu: the problem says %.12g requests a second, the referee %.12g", (unsigned long long)seed, o.load_max / u.load_max, plan->requests_per_sec);
    dil_problem_free(p);
}

static void same_layers(const dil_plan *a, const dil_plan *b, bool *same)
{
    *same = true;
    for (uint32_t l = 0; l < a->n_layers; l++)
        *same = *same && strcmp(a->layers[l].node, b->layers[l].node) == 0 && strcmp(a->layers[l].level, b->layers[l].level) == 0;
}

static void problem_and_referee_agree_and_the_best_plan_moves(void **state)
{
    (void)state;
    int n = getenv("DILEMMA_TEST_QUICK") ? 8 : 60, moved = 0, limited = 0;
    for (uint64_t seed = 1; seed <= (uint64_t)n; seed++) {
        dil_rng r;
        dil_rng_init(&r, seed);
        scene s = make(seed, 2, 3, seed % 2 == 0);
        dil_plan *plain = NULL, *plan = NULL, *path = NULL;
        dil_err err = {0};
        s.o.solver = "exhaustive";
        s.o.tokens_in = 1 + (uint32_t)(small_between(&r, 0, 100));
        s.o.tokens_out = 1 + (uint32_t)(small_between(&r, 0, 100));
        if (dil_plan_make(s.prof, s.c, &s.o, &plain, &err) != DIL_OK) fail_msg("seed %llu: %s", (unsigned long long)seed, err.text);
        s.o.n_guesses = 1 + (uint32_t)small_between(&r, 0, 15);
        s.o.acceptance = seed % 10 == 0 ? 1 : seed % 10 == 1 ? 0 : small_between(&r, 0.1, 1);
        /* make fails where the solver's seconds are not the referee's */
        if (dil_plan_make(s.prof, s.c, &s.o, &plan, &err) != DIL_OK) fail_msg("seed %llu: %s", (unsigned long long)seed, err.text);
        same_load(&s, plan, seed);
        s.o.solver = "path";
        if (dil_plan_make(s.prof, s.c, &s.o, &path, &err) != DIL_OK) fail_msg("seed %llu: %s", (unsigned long long)seed, err.text);
        if (fabs(path->total_sec - plan->total_sec) > 1e-6 * plan->total_sec)
            fail_msg("seed %llu: path %.12g s, enumeration %.12g s", (unsigned long long)seed, path->total_sec, plan->total_sec);
        bool same;
        same_layers(plain, plan, &same);
        moved += !same;
        /* the plan for plain passes, counted with guesses, is not faster than the plan that was made for them */
        assert_int_equal(dil_plan_predict(s.prof, s.c, &s.o, plain, true, &err), DIL_OK);
        assert_true(plan->total_sec <= plain->total_sec * (1 + 1e-9));
        s.o.rate = plan->requests_per_sec * 1.02; /* more than this plan sustains: another one, or none */
        dil_plan *other = NULL;
        dil_status ok = dil_plan_make(s.prof, s.c, &s.o, &other, &err);
        if (ok != DIL_OK && ok != DIL_EINFEASIBLE) fail_msg("seed %llu: %s", (unsigned long long)seed, err.text);
        if (ok == DIL_OK) {
            same_load(&s, other, seed);
            assert_true(other->requests_per_sec >= s.o.rate * (1 - 1e-9) && other->total_sec >= plan->total_sec * (1 - 1e-9));
            limited++;
        }
        dil_plan_free(other);
        dil_plan_free(path);
        dil_plan_free(plan);
        dil_plan_free(plain);
        drop(&s);
    }
    print_message("of %d plans %d are others than without guesses; %d of those for a higher rate exist\n", n, moved, limited);
    assert_true(n < 60 || (moved > 0 && limited > 0));
}

static void without_guesses_nothing_changes(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        scene s = make(seed, 2, 3, seed % 2 == 0);
        dil_plan *a = NULL, *b = NULL;
        dil_err err = {0};
        bool same;
        s.o.rate = 0.01;
        assert_int_equal(dil_plan_make(s.prof, s.c, &s.o, &a, &err), DIL_OK);
        s.o.acceptance = 0.7; /* not read */
        assert_int_equal(dil_plan_make(s.prof, s.c, &s.o, &b, &err), DIL_OK);
        same_layers(a, b, &same);
        assert_true(same && a->token_sec == b->token_sec && a->total_sec == b->total_sec && a->bound_sec == b->bound_sec &&
                    a->requests_per_sec == b->requests_per_sec && b->n_guesses == 0 && b->acceptance == 0);
        double sum = 0; /* a token is its stages and hops, and here the way from the entry */
        for (uint32_t i = 0; i < a->n_stages; i++) sum += a->stages[i].compute_sec + a->stages[i].hop_sec;
        const dil_cluster_link *k = dil_cluster_link_get(s.c, 0, dil_cluster_find(s.c, a->stages[0].node));
        near("token", a->token_sec, sum + (k ? k->latency_sec + 4 / k->bytes_per_sec : 0));
        dil_plan_free(a);
        dil_plan_free(b);
        drop(&s);
    }
}

static void options_that_mean_nothing_are_refused(void **state)
{
    (void)state;
    static const struct { uint32_t d; double chance; } v[] = {{DIL_PLAN_GUESSES_MAX + 1, 0.5}, {UINT32_MAX, 0.5}, {1, NAN}, {1, -0.1}, {1, 1.1}, {15, INFINITY}};
    scene s = make(1, 1, 2, false);
    dil_plan *good = NULL;
    dil_err err = {0};
    assert_int_equal(dil_plan_make(s.prof, s.c, &s.o, &good, &err), DIL_OK);
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
        dil_plan *p = NULL;
        s.o.n_guesses = v[i].d;
        s.o.acceptance = v[i].chance;
        assert_int_equal(dil_plan_make(s.prof, s.c, &s.o, &p, &err), DIL_EUSAGE);
        assert_null(p);
        assert_int_equal(dil_plan_predict(s.prof, s.c, &s.o, good, false, &err), DIL_EUSAGE);
    }
    dil_plan_free(good);
    drop(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pass_costs_and_yields_what_is_computed_by_hand),
        cmocka_unit_test(a_pass_takes_what_was_measured_for_its_rows),
        cmocka_unit_test(problem_and_referee_agree_and_the_best_plan_moves),
        cmocka_unit_test(without_guesses_nothing_changes),
        cmocka_unit_test(options_that_mean_nothing_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
