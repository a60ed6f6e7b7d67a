/* Oracle: the definitions, in long double, term by term. */
#include "quant/logits.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static long double lse_exact(const float *x, size_t n)
{
    long double m = x[0], s = 0;
    for (size_t i = 0; i < n; i++) m = x[i] > m ? x[i] : m;
    for (size_t i = 0; i < n; i++) s += expl((long double)x[i] - m);
    return m + logl(s);
}

static long double kl_exact(const float *p, const float *q, size_t n)
{
    long double zp = lse_exact(p, n), zq = lse_exact(q, n), s = 0;
    for (size_t i = 0; i < n; i++) s += expl((long double)p[i] - zp) * (((long double)p[i] - zp) - ((long double)q[i] - zq));
    return s;
}

static void nll_and_kl_equal_their_definitions(void **state)
{
    (void)state;
    uint64_t seed = 20260101;
    print_message("seed %llu\n", (unsigned long long)seed);
    dil_rng r;
    dil_rng_init(&r, seed);
    static const size_t sizes[] = {1, 2, 7, 8, 9, 511, 512, 513, 4099, 49152};
    static const double spreads[] = {0.0, 0.1, 3.0, 30.0, 200.0};
    for (size_t a = 0; a < sizeof sizes / sizeof sizes[0]; a++) {
        for (size_t b = 0; b < sizeof spreads / sizeof spreads[0]; b++) {
            size_t n = sizes[a];
            float *p = malloc(n * sizeof *p), *q = malloc(n * sizeof *q);
            for (size_t i = 0; i < n; i++) {
                p[i] = (float)(spreads[b] * dil_rng_normal(&r));
                q[i] = p[i] + (float)(0.05 * dil_rng_normal(&r));
            }
            dil__lse lp = dil__logits_lse(p, n), lq = dil__logits_lse(q, n);
            long double z = lse_exact(p, n);
            assert_true(fabsl((long double)lp.max + lp.log_sum - z) <= 1e-6L * fmaxl(1, fabsl(z)));
            int32_t t = (int32_t)dil_rng_below(&r, n);
            assert_true(fabsl(dil__logits_nll(p, &lp, t) - (z - p[t])) <= 1e-6L * fmaxl(1, fabsl(z)) + 1e-4L);
            long double kl = kl_exact(p, q, n);
            double got = dil__logits_kl(p, &lp, q, &lq, n);
            assert_true(fabsl(got - kl) <= 2e-6L + 1e-4L * kl);
            assert_true(dil__logits_kl(p, &lp, p, &lp, n) == 0.0);
            free(p);
            free(q);
        }
    }
}

static void kl_of_two_coins_is_known(void **state)
{
    (void)state;
    float p[2] = {logf(0.75f), logf(0.25f)}, q[2] = {logf(0.5f), logf(0.5f)};
    dil__lse lp = dil__logits_lse(p, 2), lq = dil__logits_lse(q, 2);
    assert_true(fabs(dil__logits_kl(p, &lp, q, &lq, 2) - (0.75 * log(1.5) + 0.25 * log(0.5))) < 1e-7);
    assert_int_equal(lp.argmax, 0);
    assert_int_equal(lq.argmax, 0);
}

static void nan_and_infinity_are_seen(void **state)
{
    (void)state;
    float x[9] = {0, 1, 2, 3, 4, 5, 6, 7, 8};
    x[4] = NAN;
    assert_true(isnan(dil__logits_lse(x, 9).log_sum));
    x[4] = INFINITY;
    assert_true(isnan(dil__logits_lse(x, 9).log_sum));
    x[4] = -INFINITY;
    assert_true(isfinite(dil__logits_lse(x, 9).log_sum));
}

static void threads_change_nothing(void **state)
{
    (void)state;
    enum { ROWS = 37, VOCAB = 1003 };
    float *s = malloc(sizeof(float[ROWS][VOCAB])), *t = malloc(sizeof(float[ROWS][VOCAB]));
    int32_t target[ROWS];
    dil_rng r;
    dil_rng_init(&r, 7);
    for (size_t i = 0; i < ROWS * VOCAB; i++) s[i] = (float)dil_rng_normal(&r), t[i] = s[i] + 0.1f * (float)dil_rng_normal(&r);
    for (size_t i = 0; i < ROWS; i++) target[i] = (int32_t)dil_rng_below(&r, VOCAB);
    dil__score one[ROWS], many[ROWS];
    dil__logits_score(s, t, target, ROWS, VOCAB, 1, one);
    dil__logits_score(s, t, target, ROWS, VOCAB, 4, many);
    for (size_t i = 0; i < ROWS; i++) {
        assert_true(one[i].nll == many[i].nll && one[i].kl == many[i].kl && one[i].same_top == many[i].same_top);
        assert_true(one[i].kl > 0);
    }
    free(s);
    free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nll_and_kl_equal_their_definitions), cmocka_unit_test(kl_of_two_coins_is_known),
        cmocka_unit_test(nan_and_infinity_are_seen), cmocka_unit_test(threads_change_nothing)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
