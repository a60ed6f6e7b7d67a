/* Moving: bytes, seconds and gain computed by hand; the decision against the definition; what is chosen against all plans. */
#include <dilemma/migrate.h>

#include "plan/problem_impl.h"
#include "plan/small_scene.h"

/* Nodes as digits, levels as b, m, s: "0b 0m 1m 0b". */
static dil_plan *plan_of(const scene *s, const char *text)
{
    uint32_t node[8], level[8], node_of[8];
    dil_plan *plan;
    dil_err err = {0};
    for (uint32_t i = 0; i < s->prof->n_nodes; i++) node_of[i] = i;
    for (uint32_t l = 0; l < s->prof->n_layers; l++) {
        node[l] = (uint32_t)(text[3 * l] - '0');
        level[l] = text[3 * l + 1] == 'b' ? 0 : text[3 * l + 1] == 'm' ? 1 : 2;
    }
    dil_solution sol = {.n_layers = s->prof->n_layers, .node = node, .level = level, .solver = "test"};
    if (dil__plan_unbudgeted(s->prof, s->c, &s->o, &sol, node_of, &plan, &err) != DIL_OK) fail_msg("%s: %s", text, err.text);
    return plan;
}

static void only_what_a_node_lacks_is_moved(void **state)
{
    (void)state;
    scene s = make(1, 2, 3, false);
    dil_cluster_link *k01 = (dil_cluster_link *)dil_cluster_link_get(s.c, 0, 1), *k02 = (dil_cluster_link *)dil_cluster_link_get(s.c, 0, 2);
    k01->latency_sec = 0.5, k01->bytes_per_sec = 1e6;
    k02->latency_sec = 0.25, k02->bytes_per_sec = 4e6;
    const struct { const char *old, *new; double bytes, sec; uint32_t layers; } v[] = {
        {"0b 0b 0b 0b", "0b 0b 0b 0b", 0, 0, 0},
        {"0b 0b 0b 0b", "0b 1b 0b 0b", 2e6, 0.5 + 2, 1},        /* one block at 2 MB */
        {"0b 0b 0b 0b", "0b 1b 2b 0b", 4e6, 2.5, 2},            /* side by side: the slower link counts */
        {"0b 1b 0b 0b", "0b 1m 0b 0b", 1.2e6, 0.5 + 1.2, 1},    /* other types: again, smaller */
        {"0b 1b 1b 0b", "0b 0b 0b 0b", 0, 0, 2},                /* the entry has the file */
        {"0b 1b 0b 0b", "1b 1b 0b 0b", 4e6, 0.5 + 4, 1},        /* the embedding */
        {"1b 1b 0b 0b", "1b 1b 0b 1b", 0, 0, 0},                /* the head's table is there with the embedding */
        {"0b 0b 0b 0b", "1b 0b 0b 1b", 4e6, 0.5 + 4, 1},        /* one table for both */
        {"0b 0b 0b 1b", "1b 0b 0b 0b", 0, 0, 1},                /* the head's table becomes the embedding; the entry has the file */
    };
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
        dil_plan *a = plan_of(&s, v[i].old), *b = plan_of(&s, v[i].new);
        dil_migrate_options mo = {.horizon_sec = 100, .rate = 0.01};
        dil_migration m;
        dil_err err = {0};
        s.o.max_damage = INFINITY;
        if (dil_migration_cost(s.prof, s.c, &s.o, a, b, &mo, &m, &err) != DIL_OK) fail_msg("%s", err.text);
        if (fabs(m.moved_bytes - v[i].bytes) > 1 || fabs(m.move_sec - v[i].sec) > 1e-9)
            fail_msg("%s to %s: %.0f bytes in %.3f s, expected %.0f in %.3f", v[i].old, v[i].new, m.moved_bytes, m.move_sec, v[i].bytes, v[i].sec);
        assert_true(m.moves == (strcmp(v[i].old, v[i].new) != 0));
        /* pause = move + replay of 128 + 64 tokens as a prompt; one stream */
        if (m.moves) {
            dil_plan_options one = s.o;
            one.tokens_in = 192;
            one.tokens_out = 1;
            dil_plan *again = plan_of(&s, v[i].new);
            assert_int_equal(dil_plan_predict(s.prof, s.c, &one, again, true, &err), DIL_OK);
            assert_true(fabs(m.replay_sec - again->prefill_sec) < 1e-12 && m.streams == 1);
            double pause = m.move_sec + m.replay_sec;
            assert_true(fabs(m.cost_sec - pause * (1 + 0.5 * 0.01 * pause)) < 1e-9);
            assert_true(fabs(m.gain_sec - 0.01 * (100 - pause) * (a->total_sec - b->total_sec)) < 1e-9);
            dil_plan_free(again);
        }
        dil_plan_free(a);
        dil_plan_free(b);
    }
    drop(&s);
}

static bool has_block_on_n1(void *ctx, const char *node, uint32_t layer, const char *level)
{
    (void)ctx;
    return strcmp(node, "n1") == 0 && layer == 1 && strcmp(level, "big") == 0;
}

static void what_a_cache_has_is_not_moved(void **state)
{
    (void)state;
    scene s = make(1, 2, 3, false);
    s.o.max_damage = INFINITY;
    dil_plan *a = plan_of(&s, "0b 0b 0b 0b"), *b = plan_of(&s, "0b 1b 1b 0b"), *c = plan_of(&s, "0b 1m 1b 0b");
    dil_migrate_options mo = {.horizon_sec = 9, .has = has_block_on_n1};
    dil_migration m;
    dil_err err = {0};
    assert_int_equal(dil_migration_cost(s.prof, s.c, &s.o, a, b, &mo, &m, &err), DIL_OK);
    assert_true(m.moved_bytes == 2e6 && m.n_layers == 1);
    assert_int_equal(dil_migration_cost(s.prof, s.c, &s.o, a, c, &mo, &m, &err), DIL_OK);
    assert_true(m.moved_bytes == 3.2e6 && m.n_layers == 2); /* another level is another chunk */
    dil_plan_free(a);
    dil_plan_free(b);
    dil_plan_free(c);
    drop(&s);
}

static void slow_links(dil_cluster *c, dil_rng *r)
{
    for (uint32_t i = 0; i < c->n_links; i++) {
        double f = exp(2 * dil_rng_normal(r));
        c->links[i].latency_sec *= f;
        c->links[i].bytes_per_sec = fmax(1e5, c->links[i].bytes_per_sec / f);
    }
}

static void a_move_pays_by_its_margin_or_is_not_made(void **state)
{
    (void)state;
    int moved = 0, kept = 0, partial = 0, n = getenv("DILEMMA_TEST_QUICK") ? 3 : 25;
    for (uint64_t seed = 1; seed <= (uint64_t)n; seed++) {
        scene s = make(seed, 2, 3, true);
        dil_plan *old, *best, *next;
        dil_err err = {0};
        dil_rng r;
        dil_rng_init(&r, seed);
        if (dil_plan_make(s.prof, s.c, &s.o, &old, &err) != DIL_OK) fail_msg("seed %llu: %s", (unsigned long long)seed, err.text);
        slow_links(s.c, &r);
        if (dil_plan_make(s.prof, s.c, &s.o, &best, &err) != DIL_OK) fail_msg("seed %llu: %s", (unsigned long long)seed, err.text);
        static const double horizon[] = {0, 3, 30, 300, 1e7};
        for (size_t i = 0; i < sizeof horizon / sizeof *horizon; i++) {
            dil_migrate_options mo = {.horizon_sec = horizon[i], .rate = 0.5, .margin = 0.2};
            dil_migration m, direct;
            if (dil_plan_migrate(s.prof, s.c, &s.o, old, &mo, &next, &m, &err) != DIL_OK) fail_msg("seed %llu: %s", (unsigned long long)seed, err.text);
            assert_int_equal(dil_migration_cost(s.prof, s.c, &s.o, old, best, &mo, &direct, &err), DIL_OK);
            assert_int_equal(dil_plan_predict(s.prof, s.c, &s.o, next, false, &err), DIL_OK);
            assert_false(m.forced);
            assert_true(fabs(m.best_total_sec - best->total_sec) <= 1e-6 * best->total_sec);
            assert_true(fabs(next->total_sec - m.new_total_sec) <= 1e-9);
            if (m.moves) {
                assert_true(m.gain_sec >= 1.2 * m.cost_sec);
                assert_true(m.gain_sec - m.cost_sec >= direct.gain_sec - direct.cost_sec - 1e-9); /* never worse than the whole move */
                partial += m.moved_bytes < direct.moved_bytes - 1;
                moved++;
            } else {
                assert_true(m.gain_sec == 0 && fabs(next->total_sec - m.old_total_sec) <= 1e-9);
                /* the whole move, where it would pay by far, is not overlooked */
                assert_false(direct.gain_sec > 1.2 * direct.cost_sec * (1 + 1e-6) && direct.moves);
                kept++;
            }
            if (horizon[i] == 0) assert_false(m.moves);
            if (horizon[i] == 1e7 && best->total_sec < m.old_total_sec * 0.99) assert_true(m.moves && next->total_sec < best->total_sec * 1.001);
            dil_plan_free(next);
        }
        dil_plan_free(best);
        dil_plan_free(old);
        drop(&s);
    }
    print_message("%d moved (%d of them less than all), %d kept\n", moved, partial, kept);
    assert_true(getenv("DILEMMA_TEST_QUICK") || (moved > 10 && kept > 10 && partial > 0));
}

static void a_plan_whose_node_is_gone_is_left_at_any_price(void **state)
{
    (void)state;
    scene s = make(3, 2, 3, false);
    dil_plan *old = plan_of(&s, "0b 1b 2b 0b"), *next;
    dil_migrate_options mo = {.horizon_sec = 0};
    dil_migration m;
    dil_err err = {0};
    dil_cluster without = *s.c;
    dil_cluster_link links[8];
    without.n_nodes = 2; /* n2 is the last */
    without.n_links = 0;
    for (uint32_t i = 0; i < s.c->n_links; i++) {
        if (s.c->links[i].from < 2 && s.c->links[i].to < 2) links[without.n_links++] = s.c->links[i];
    }
    without.links = links;
    if (dil_plan_migrate(s.prof, &without, &s.o, old, &mo, &next, &m, &err) != DIL_OK) fail_msg("%s", err.text);
    assert_true(m.forced && m.moves && strstr(m.why_forced, "n2") != NULL);
    assert_int_equal(dil_plan_predict(s.prof, &without, &s.o, next, false, &err), DIL_OK);
    dil_plan_free(next);
    dil_plan_free(old);
    drop(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_what_a_node_lacks_is_moved),
        cmocka_unit_test(what_a_cache_has_is_not_moved),
        cmocka_unit_test(a_move_pays_by_its_margin_or_is_not_made),
        cmocka_unit_test(a_plan_whose_node_is_gone_is_left_at_any_price),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
