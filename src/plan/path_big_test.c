/* The search over many nodes, forced onto medium instances whose optimum the exact search proves: its bound is never above the optimum, its
 * plans are plans. In units of what fits, stores hold about two to five layers, so that good structures have several visits and the
 * relaxation has cycles to forget. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#include "plan/path_use.h"

enum { L_MAX = 16, S_MAX = 9, Q = 4 };

typedef struct instance {
    px_core core;
    px_links links;
    double bytes[L_MAX * Q], sec[S_MAX * L_MAX * Q], damage[L_MAX * Q], store[S_MAX], hop[S_MAX * S_MAX], source[S_MAX], sink[S_MAX];
    int first[S_MAX + 1], to[S_MAX * S_MAX];
    double link_sec[S_MAX * S_MAX];
} instance;

static void make_nodes(instance *x, dil_rng *r) {
    px_core *c = &x->core;
    for (int s = 0; s < c->n_nodes; s++) {
        const double speed = 0.3 + dil_rng_unit(r);
        for (int l = 0; l < c->n_layers; l++)
            for (int q = 0; q < Q; q++) x->sec[(s * c->n_layers + l) * Q + q] = speed * (2 + q) * (0.95 + 0.1 * dil_rng_unit(r));
        x->store[s] = 60 + (double)dil_rng_below(r, 60);
        x->source[s] = x->sink[s] = s == 0 ? 0 : 0.5 + dil_rng_unit(r);
    }
}

static void make_links(instance *x, dil_rng *r) {
    px_core *c = &x->core;
    const double missing = dil_rng_below(r, 2) ? 0.3 : 0;
    x->links = (px_links){x->first, x->to, x->link_sec};
    int n = 0;
    for (int s = 0; s < c->n_nodes; s++) {
        x->first[s] = n;
        for (int t = 0; t < c->n_nodes; t++) {
            const bool is = s != t && !(dil_rng_unit(r) < missing);
            x->hop[s * c->n_nodes + t] = s == t ? 0 : is ? 0.3 + 2 * dil_rng_unit(r) : INFINITY;
            if (!is) continue;
            x->to[n] = t;
            x->link_sec[n++] = x->hop[s * c->n_nodes + t];
        }
    }
    x->first[c->n_nodes] = n;
}

static void make(instance *x, uint64_t seed) {
    dil_rng r;
    dil_rng_init(&r, seed);
    px_core *c = &x->core;
    *c = (px_core){.n_layers = 10 + (int)dil_rng_below(&r, L_MAX - 9), .n_nodes = 5 + (int)dil_rng_below(&r, S_MAX - 4), .n_levels = Q, .bytes = x->bytes,
                   .sec = x->sec, .damage = x->damage, .store = x->store, .hop = x->hop, .source = x->source, .sink = x->sink};
    for (int l = 0; l < c->n_layers; l++) {
        const double weight = exp(0.8 * dil_rng_normal(&r));
        for (int q = 0; q < Q; q++) {
            x->bytes[l * Q + q] = 10 + 7 * q;
            x->damage[l * Q + q] = weight * pow(0.35, q);
        }
        c->damage_max += weight * (dil_rng_below(&r, 2) ? 0.35 : 0.2);
    }
    make_nodes(x, &r);
    make_links(x, &r);
}

static double solve(const px_core *c, int keep, px_plan *best, px_report *report) {
    const px_options opt = {.stop_at = -1, .deadline_ns = dil_now_ns() + 60000000000, .n_threads = 1, .keep = keep};
    assert_int_equal(dil__px_solve(c, &opt, best, report, NULL), DIL_OK);
    return best->found ? best->sec : INFINITY;
}

static void many_node_bounds_are_never_above_the_optimum(void **state) {
    (void)state;
    const uint64_t n = getenv("DILEMMA_TEST_QUICK") ? 12 : 60;
    int revisits = 0, feasible = 0;
    double gap = 0;
    for (uint64_t seed = 1; seed <= n; seed++) {
        instance x;
        int node[2][L_MAX], level[2][L_MAX];
        px_plan exact = {.node = node[0], .level = level[0]}, big = {.node = node[1], .level = level[1]};
        px_report a, b;
        make(&x, seed);
        const double optimum = solve(&x.core, 0, &exact, &a);
        if (!a.complete) fail_msg("seed %llu: the exact search did not end", (unsigned long long)seed);
        px_core c = x.core;
        c.hop = NULL;
        c.links = &x.links;
        const double found = solve(&c, 1, &big, &b);
        double sec, damage;
        if (b.bound > optimum * (1 + 1e-9)) fail_msg("seed %llu: bound %.12g above the least %.12g", (unsigned long long)seed, b.bound, optimum);
        if (big.found && (!dil__px_evaluate(&c, big.node, big.level, &sec, &damage) || damage > px_budget(&c) || sec < optimum * (1 - 1e-9)))
            fail_msg("seed %llu: a plan beyond the budgets, or beyond the least", (unsigned long long)seed);
        if (!big.found || !exact.found) continue;
        feasible++;
        gap += (found - b.bound) / found;
        for (int l = 2; l < c.n_layers; l++)
            for (int m = 0; m + 1 < l; m++)
                if (node[0][m] == node[0][l] && node[0][l - 1] != node[0][l]) {
                    revisits++;
                    l = c.n_layers;
                    break;
                }
    }
    print_message("%d of %d with plans, %d optima come back to a node, mean gap %.2f %%\n", feasible, (int)n, revisits, 100 * gap / feasible);
    assert_true(feasible >= (int)n / 3);
    assert_true(revisits >= (int)n / 12);
}

/* Whatever is remembered and whatever is dropped, ways through a plan stay: at any multipliers the root is at most the plan's
 * weighted cost while nothing is dropped. */
static void learning_keeps_every_plan_a_way(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= (getenv("DILEMMA_TEST_QUICK") ? 12 : 60); seed++) {
        instance x;
        int node[L_MAX], level[L_MAX];
        double price[S_MAX] = {0};
        px_plan exact = {.node = node, .level = level};
        px_report a;
        px_ng ng;
        dil_rng r;
        make(&x, seed);
        dil_rng_init(&r, seed);
        if (!(solve(&x.core, 0, &exact, &a) < INFINITY)) continue;
        px_core c = x.core;
        c.hop = NULL;
        c.links = &x.links;
        assert_true(dil__px_ng_init(&ng, &c, 1));
        for (int step = 0; step < 12; step++) {
            const double weight = 20 * dil_rng_unit(&r) / c.damage_max;
            for (int s = 0; s < c.n_nodes; s++) price[s] = dil_rng_below(&r, 2) ? 5 * dil_rng_unit(&r) / c.store[s] : 0;
            assert_true(dil__px_ng_relax(&ng, weight, price));
            double cost = exact.sec + weight * exact.damage;
            for (int l = 0; l < c.n_layers; l++) cost += price[node[l]] * px_bytes(&c, l, level[l]);
            if (ng.w.root > cost * (1 + 1e-12)) fail_msg("seed %llu step %d: root %.12g above a plan's %.12g", (unsigned long long)seed, step, ng.w.root, cost);
            dil__px_ng_drop(&ng, exact.sec * (1 + 1e-6)); /* the plan itself is faster and must stay */
            dil__px_ng_way(&ng);
            if (step == 2) assert_true(dil__px_ng_prime(&ng, c.n_nodes)); /* from here on every node is remembered everywhere */
            dil__px_ng_learn(&ng);
        }
        dil__px_ng_fini(&ng);
    }
}

/* The same of ways that know how much of a store they used, passes from both ends in turn, whatever is melted, learned or dropped. */
static void stores_that_fill_up_keep_every_plan_a_way(void **state) {
    (void)state;
    int learned = 0, dropped = 0;
    for (uint64_t seed = 1; seed <= (getenv("DILEMMA_TEST_QUICK") ? 20 : 60); seed++) {
        instance x;
        int node[L_MAX], level[L_MAX];
        const double none[S_MAX] = {0};
        px_plan exact = {.node = node, .level = level};
        px_report a;
        px_ng ng;
        px_use u;
        px_use_way *way = malloc(PX_USE_WAYS * sizeof *way);
        dil_rng r;
        assert_non_null(way);
        make(&x, seed);
        dil_rng_init(&r, seed);
        if (!(solve(&x.core, 0, &exact, &a) < INFINITY)) {
            free(way);
            continue;
        }
        px_core c = x.core;
        if (seed & 1) {
            c.hop = NULL;
            c.links = &x.links;
        }
        const double sec = exact.sec * (1 + 1e-6); /* the plan itself is faster and must stay */
        assert_true(dil__px_ng_init(&ng, &c, 1));
        assert_true(dil__px_ng_relax(&ng, 20 * dil_rng_unit(&r) / c.damage_max, none));
        assert_true(dil__px_use_init(&u, &ng, px_limit(&c, &ng.w, sec)));
        for (int pass = 0; pass < 10; pass++) {
            int n = 0;
            u.most = 1 + (int)dil_rng_below(&r, pass < 4 ? 8 : 200);
            const int part = (int)dil_rng_below(&r, (uint64_t)c.n_layers + 1), all = pass & 1 ? 0 : c.n_layers;
            assert_true(dil__px_use_pass(&u, pass & 1, dil_rng_below(&r, 2) ? part : all, px_limit(&c, &ng.w, sec), INT64_MAX));
            const double cost = exact.sec + ng.w.damage * exact.damage;
            if (u.least > cost * (1 + 1e-12))
                fail_msg("seed %llu pass %d: the least %.12g is above a plan's %.12g", (unsigned long long)seed, pass, u.least, cost);
            assert_true(dil__px_use_ways(&u, PX_USE_WAYS, way, &n));
            for (int i = 0; i < n; i++) {
                int layers = 0;
                for (int k = 0; k < way[i].n; k++) {
                    assert_int_equal(way[i].visit[k].first, layers);
                    layers += way[i].visit[k].n;
                }
                assert_int_equal(layers, c.n_layers);
                learned += dil__px_use_learn(&u, &way[i]);
            }
            if (dil_rng_below(&r, 3) == 0) assert_true(dil__px_use_forget(&u));
            if (pass != 5) continue;
            assert_true(dil__px_ng_relax(&ng, 20 * dil_rng_unit(&r) / c.damage_max, none));
            dil__px_use_again(&u, px_limit(&c, &ng.w, sec));
        }
        size_t all = 0;
        for (int l = 0; l < c.n_layers; l++)
            for (int s = 0; s < c.n_nodes; s++) all += (size_t)ng.g.run_max[s * c.n_layers + l];
        dropped += u.n_alive < all;
        dil__px_use_fini(&u);
        dil__px_ng_fini(&ng);
        free(way);
    }
    print_message("%d entries learned, visits dropped in %d instances\n", learned, dropped);
    assert_true(learned > 0);
    assert_true(dropped > 0);
}

/* Without masks and over some visits: with those of an optimum among them nothing better and nothing worse is found. */
static void some_visits_with_an_optimum_among_them_give_it(void **state) {
    (void)state;
    int ended = 0;
    for (uint64_t seed = 1; seed <= (getenv("DILEMMA_TEST_QUICK") ? 12 : 24); seed++) {
        instance x;
        int node[2][L_MAX], level[2][L_MAX], run_max[S_MAX * L_MAX], all[S_MAX];
        px_plan exact = {.node = node[0], .level = level[0]}, some = {.node = node[1], .level = level[1]};
        px_report a, b;
        dil_rng r;
        make(&x, seed);
        dil_rng_init(&r, seed);
        const double optimum = solve(&x.core, 0, &exact, &a);
        const int L = x.core.n_layers;
        if (!(optimum < INFINITY)) continue;
        for (int s = 0; s < x.core.n_nodes; s++) all[s] = s;
        for (int i = 0; i < x.core.n_nodes * L; i++) run_max[i] = (int)dil_rng_below(&r, 4);
        for (int l = 0, n; l < L; l += n) {
            for (n = 1; l + n < L && node[0][l + n] == node[0][l];) n++;
            if (run_max[node[0][l] * L + l] < n) run_max[node[0][l] * L + l] = n;
        }
        const px_options opt = {.stop_at = -1, .deadline_ns = INT64_MAX, .n_threads = 1};
        assert_true(dil__px_solve_part(&x.core, &opt, all, x.core.n_nodes, run_max, 20000, &some, &b));
        if (b.bound > optimum * (1 + 1e-9)) fail_msg("seed %llu: bound %.12g above the least %.12g", (unsigned long long)seed, b.bound, optimum);
        if (!b.complete) continue;
        ended++;
        if (!some.found || fabs(some.sec - optimum) > 1e-9 * optimum) fail_msg("seed %llu: %.12g, the least is %.12g", (unsigned long long)seed, some.sec, optimum);
    }
    print_message("%d ended\n", ended);
    assert_true(ended >= 6);
}

/* Passes, what they leave, and the search of that: from a plan that may be a fifth too slow. */
static void the_gap_is_closed_to_no_more_than_the_optimum(void **state) {
    (void)state;
    int proved = 0, improved = 0, tried = 0;
    for (uint64_t seed = 1; seed <= (getenv("DILEMMA_TEST_QUICK") ? 12 : 24); seed++) {
        instance x;
        int node[2][L_MAX], level[2][L_MAX];
        const double none[S_MAX] = {0};
        double worth[S_MAX];
        px_plan exact = {.node = node[0], .level = level[0]}, best = {.node = node[1], .level = level[1]};
        px_report a, b;
        px_ng ng;
        make(&x, seed);
        const double optimum = solve(&x.core, 0, &exact, &a);
        if (!(optimum < INFINITY)) continue;
        const px_options rough = {.gap = 0.2, .stop_at = -1, .deadline_ns = INT64_MAX, .n_threads = 1};
        assert_int_equal(dil__px_solve(&x.core, &rough, &best, &b, NULL), DIL_OK);
        px_core c = x.core;
        if (seed & 1) {
            c.hop = NULL;
            c.links = &x.links;
        }
        const double start = best.sec;
        assert_true(dil__px_ng_init(&ng, &c, 1));
        assert_true(dil__px_ng_relax(&ng, dil__px_first_weight(&c), none));
        px_close k = {.x = &ng, .best = &best, .aim = 0.001, .deadline_ns = INT64_MAX, .worth = worth, .bound = -INFINITY};
        assert_true(dil__px_close_run(&k));
        if (k.bound > optimum * (1 + 1e-9)) fail_msg("seed %llu: bound %.12g above the least %.12g", (unsigned long long)seed, k.bound, optimum);
        if (best.sec < optimum * (1 - 1e-9)) fail_msg("seed %llu: a plan of %.12g beyond the least %.12g", (unsigned long long)seed, best.sec, optimum);
        if (k.proved && best.sec * (1 - k.aim) > optimum * (1 + 1e-9)) fail_msg("seed %llu: proved, but %.12g is not near the least", (unsigned long long)seed, best.sec);
        tried++;
        proved += k.proved;
        improved += best.sec < start * (1 - 1e-9);
        dil__px_ng_fini(&ng);
    }
    print_message("%d of %d proved within 0.1 %%, %d plans improved\n", proved, tried, improved);
    assert_true(proved > tried / 10);
    assert_true(improved > 0);
}

/* Recomputed from the tables; -1: comes back to a node, or over no link. */
static double cost_of_way(const px_ng *x, const int *node) {
    const px_core *c = x->c;
    double cost = c->source[node[0]] + c->sink[node[c->n_layers - 1]];
    for (int l = 0, n; l < c->n_layers; l += n) {
        for (n = 1; l + n < c->n_layers && node[l + n] == node[l];) n++;
        for (int m = 0; m < l; m++)
            if (node[m] == node[l]) return -1;
        cost += x->w.large[px_visit_at(c, &x->g, node[l], l, n)] + (l > 0 ? px_hop(c, node[l - 1], node[l]) : 0);
    }
    return cost < INFINITY ? cost : -1;
}

/* The search for few links, forced: walks are structures at their cost, the bound stays below the optimum, plans are plans. */
static void few_links_bounds_are_never_above_the_optimum(void **state) {
    (void)state;
    int walks = 0, close = 0, tried = 0;
    for (uint64_t seed = 1; seed <= (getenv("DILEMMA_TEST_QUICK") ? 8 : 24); seed++) {
        enum { WAYS = 16 };
        instance x;
        int node[2][L_MAX], level[2][L_MAX], way[WAYS * L_MAX];
        const double none[S_MAX] = {0};
        double way_cost[WAYS];
        px_plan exact = {.node = node[0], .level = level[0]}, big = {.node = node[1], .level = level[1]};
        px_report a;
        px_ng ng;
        make(&x, seed);
        const double optimum = solve(&x.core, 0, &exact, &a);
        if (!(optimum < INFINITY)) continue;
        px_core c = x.core;
        c.hop = NULL;
        c.links = &x.links;
        assert_true(dil__px_ng_init(&ng, &c, 1));
        assert_true(dil__px_ng_relax(&ng, dil__px_first_weight(&c), none));
        dil__px_ng_drop(&ng, INFINITY);
        px_walk w = {.most_ways = WAYS, .cost = way_cost, .node = way};
        assert_true(dil__px_ng_walk(&ng, INFINITY, 4, &w));
        for (int i = 0; i < w.n_ways; i++) {
            const double cost = cost_of_way(&ng, way + i * c.n_layers);
            if (fabs(cost - way_cost[i]) > 1e-9 * cost) fail_msg("seed %llu: walk %d costs %.12g, not %.12g", (unsigned long long)seed, i, cost, way_cost[i]);
        }
        walks += w.n_ways;
        dil__px_ng_fini(&ng);
        px_big b = {.c = &c, .best = &big, .gap = 0.004, .n_threads = 1, .keep = 1, .few_links = true, .deadline_ns = dil_now_ns() + 60000000000};
        assert_true(dil__px_big_run(&b));
        double sec, damage;
        if (b.no_path || b.bound > optimum * (1 + 1e-9)) fail_msg("seed %llu: bound %.12g above the least %.12g", (unsigned long long)seed, b.bound, optimum);
        if (big.found && (!dil__px_evaluate(&c, big.node, big.level, &sec, &damage) || damage > px_budget(&c) || sec < optimum * (1 - 1e-9)))
            fail_msg("seed %llu: a plan beyond the budgets, or beyond the least", (unsigned long long)seed);
        tried++;
        close += big.found && b.bound > 0.95 * optimum;
        free(b.price);
        free(b.node);
    }
    print_message("%d walks; %d of %d bounds within 5 %%\n", walks, close, tried);
    assert_true(walks > 0);
    assert_true(close > tried / 4);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(few_links_bounds_are_never_above_the_optimum), cmocka_unit_test(some_visits_with_an_optimum_among_them_give_it), cmocka_unit_test(the_gap_is_closed_to_no_more_than_the_optimum), cmocka_unit_test(stores_that_fill_up_keep_every_plan_a_way), cmocka_unit_test(many_node_bounds_are_never_above_the_optimum), cmocka_unit_test(learning_keeps_every_plan_a_way)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
