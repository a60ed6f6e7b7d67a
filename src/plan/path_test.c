/* The solver `path` against plain enumeration of every assignment, on seeded instances of many shapes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "plan/path_int.h"

enum { L_MAX = 7, S_MAX = 5, Q_MAX = 4 };

typedef struct instance {
    px_core core;
    double bytes[L_MAX * Q_MAX], sec[S_MAX * L_MAX * Q_MAX], damage[L_MAX * Q_MAX], store[S_MAX], hop[S_MAX * S_MAX], source[S_MAX],
        sink[S_MAX];
} instance;

/* Values with many ties (small integers, zeros among them) or with none. */
static double value(dil_rng *r, bool ties) { return ties ? (double)dil_rng_below(r, 4) : dil_rng_unit(r); }

static void make(instance *x, uint64_t seed) {
    dil_rng r;
    dil_rng_init(&r, seed);
    static const int shape[][3] = {{3, 2, 2}, {5, 2, 3}, {4, 3, 3}, {6, 3, 2}, {1, 1, 1}, {1, 4, 3}, {7, 2, 2}, {5, 4, 2}, {6, 4, 1}, {5, 5, 2}, {4, 4, 3}, {2, 5, 4}};
    const int *s = shape[dil_rng_below(&r, sizeof shape / sizeof *shape)];
    px_core *c = &x->core;
    *c = (px_core){.n_layers = s[0], .n_nodes = s[1], .n_levels = s[2], .bytes = x->bytes, .sec = x->sec, .damage = x->damage,
                   .store = x->store, .hop = x->hop, .source = x->source, .sink = x->sink};
    const int L = s[0], S = s[1], Q = s[2];
    const bool ties = dil_rng_below(&r, 3) == 0, free_hops = dil_rng_below(&r, 5) == 0, zero_damage = dil_rng_below(&r, 8) == 0;
    const double p_missing = dil_rng_below(&r, 2) ? 0 : 0.4;
    double total = 0, damage_lo = 0, damage_hi = 0;
    for (int l = 0; l < L; l++) {
        double least = INFINITY, most = 0;
        for (int q = 0; q < Q; q++) {
            x->bytes[l * Q + q] = ties ? (double)(1 + dil_rng_below(&r, 3)) : (double)(1 + dil_rng_below(&r, 1000000));
            x->damage[l * Q + q] = zero_damage ? 0 : value(&r, ties);
            least = fmin(least, x->damage[l * Q + q]);
            most = fmax(most, x->damage[l * Q + q]);
            total += x->bytes[l * Q + q] / Q;
            for (int n = 0; n < S; n++) x->sec[(n * L + l) * Q + q] = value(&r, ties);
        }
        damage_lo += least;
        damage_hi += most;
    }
    const double roomy = 0.3 + 1.7 * dil_rng_unit(&r);
    for (int n = 0; n < S; n++) {
        x->store[n] = floor(total / S * roomy * (0.3 + 1.4 * dil_rng_unit(&r)));
        x->source[n] = dil_rng_unit(&r) < p_missing / 2 ? INFINITY : free_hops ? 0 : value(&r, ties);
        x->sink[n] = dil_rng_unit(&r) < p_missing / 2 ? INFINITY : free_hops ? 0 : value(&r, ties);
        for (int m = 0; m < S; m++)
            x->hop[n * S + m] = n == m ? 0 : dil_rng_unit(&r) < p_missing ? INFINITY : free_hops ? 0 : 0.7 * value(&r, ties);
    }
    c->damage_max = damage_lo + dil_rng_unit(&r) * dil_rng_unit(&r) * 1.2 * (damage_hi - damage_lo);
    if (dil_rng_below(&r, 12) == 0) c->damage_max = 0.98 * damage_lo;
    if (dil_rng_below(&r, 12) == 0) c->damage_max = damage_lo; /* exactly tight */
}

typedef struct oracle {
    const px_core *c;
    double used[S_MAX], best;
    bool revisit;
    int node[L_MAX];
} oracle;

static void enumerate(oracle *o, int l, double sec, double damage) {
    const px_core *c = o->c;
    if (sec >= o->best) return;
    if (l == c->n_layers) {
        sec += c->sink[o->node[l - 1]];
        if (sec < o->best && damage <= px_budget(c)) o->best = sec;
        return;
    }
    for (int s = 0; s < c->n_nodes; s++) {
        const double hop = l == 0 ? c->source[s] : s == o->node[l - 1] ? 0 : px_hop(c, o->node[l - 1], s);
        if (!(hop < INFINITY)) continue;
        for (int q = 0; q < c->n_levels; q++) {
            if (o->used[s] + px_bytes(c, l, q) > c->store[s]) continue;
            o->used[s] += px_bytes(c, l, q);
            o->node[l] = s;
            enumerate(o, l + 1, sec + hop + px_sec(c, s, l, q), damage + px_damage(c, l, q));
            o->used[s] -= px_bytes(c, l, q);
        }
    }
}

static bool has_revisit(const px_core *c, const int *node) {
    for (int l = 2; l < c->n_layers; l++)
        for (int m = 0; m + 1 < l; m++)
            if (node[m] == node[l] && node[l - 1] != node[l]) return true;
    return false;
}

static void path_equals_enumeration(void **state) {
    (void)state;
    const char *env = getenv("DILEMMA_PATH_SEEDS");
    const uint64_t n = env ? strtoull(env, NULL, 10) : 3000;
    int feasible = 0, revisits = 0, twice = 0;
    for (uint64_t seed = 1; seed <= n; seed++) {
        instance x;
        make(&x, seed);
        oracle o = {.c = &x.core, .best = INFINITY};
        enumerate(&o, 0, 0, 0);
        int node[L_MAX], level[L_MAX];
        px_plan best = {.node = node, .level = level};
        px_report report;
        dil_err err;
        const px_options opt = {.stop_at = -1, .deadline_ns = dil_now_ns() + 60000000000, .n_threads = 1, .few = seed % 2 ? 1 + seed % 5 : 0};
        assert_int_equal(dil__px_solve(&x.core, &opt, &best, &report, &err), DIL_OK);
        twice += report.restarted;
        double sec = INFINITY, damage = 0;
        if (best.found && (!dil__px_evaluate(&x.core, node, level, &sec, &damage) || damage > px_budget(&x.core)))
            fail_msg("seed %llu: a plan beyond the budgets", (unsigned long long)seed);
        if (!report.complete) fail_msg("seed %llu: not proved", (unsigned long long)seed);
        if (best.found != (o.best < INFINITY) || (best.found && fabs(sec - o.best) > 1e-9 * (1 + o.best)))
            fail_msg("seed %llu: %.12g, but the least is %.12g", (unsigned long long)seed, sec, o.best);
        if (report.root_bound > o.best * (1 + 1e-9) + 1e-12)
            fail_msg("seed %llu: root bound %.12g above the least %.12g", (unsigned long long)seed, report.root_bound, o.best);
        feasible += best.found;
        revisits += best.found && has_revisit(&x.core, node);
    }
    print_message("%d instances, %d feasible, %d with a revisit in the plan, %d searched twice\n", (int)n, feasible, revisits, twice);
    assert_true(twice > (int)n / 50);
    assert_true(feasible > (int)n / 4);
    assert_true(revisits > (int)n / 50);
}

/* The instance's hops as links. */
static void make_links(const px_core *c, px_links *k, int *first, int *to, double *sec) {
    *k = (px_links){first, to, sec};
    int n = 0;
    for (int s = 0; s < c->n_nodes; s++) {
        first[s] = n;
        for (int t = 0; t < c->n_nodes; t++)
            if (s != t && px_hop(c, s, t) < INFINITY) {
                to[n] = t;
                sec[n++] = px_hop(c, s, t);
            }
    }
    first[c->n_nodes] = n;
}

static void thinning_keeps_bounds_true(void **state) {
    (void)state;
    int close = 0, n = 0;
    for (uint64_t seed = 1; seed <= (getenv("DILEMMA_TEST_QUICK") ? 100 : 750); seed++) {
        instance x;
        make(&x, seed);
        oracle o = {.c = &x.core, .best = INFINITY};
        enumerate(&o, 0, 0, 0);
        px_links links;
        int first[S_MAX + 1], to[S_MAX * S_MAX], node[L_MAX], level[L_MAX];
        double sec[S_MAX * S_MAX], at, damage;
        make_links(&x.core, &links, first, to, sec);
        x.core.links = &links;
        x.core.hop = NULL;
        px_plan best = {.node = node, .level = level};
        px_report report;
        const px_options opt = {.stop_at = -1, .deadline_ns = dil_now_ns() + 60000000000, .n_threads = 1, .keep = 1 + (int)(seed % 3)};
        assert_int_equal(dil__px_solve(&x.core, &opt, &best, &report, NULL), DIL_OK);
        if (report.bound > o.best * (1 + 1e-9) + 1e-12)
            fail_msg("seed %llu: bound %.12g above the least %.12g", (unsigned long long)seed, report.bound, o.best);
        if (!best.found && report.complete && o.best < INFINITY) fail_msg("seed %llu: a plan was lost", (unsigned long long)seed);
        if (!best.found) continue;
        if (!dil__px_evaluate(&x.core, node, level, &at, &damage) || damage > px_budget(&x.core) || at < o.best - 1e-9)
            fail_msg("seed %llu: a plan beyond the budgets, or beyond the least", (unsigned long long)seed);
        n++;
        close += at < 1.05 * o.best + 1e-12;
    }
    print_message("%d plans, %d within 5 %% of the least\n", n, close);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(path_equals_enumeration), cmocka_unit_test(thinning_keeps_bounds_true)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
