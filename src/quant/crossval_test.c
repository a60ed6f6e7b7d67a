/* Oracle: fresh inputs that took no part. What the halves choose must do on them nearly as well as the best of the ladder, and the fixed
 * values that it replaced must do worse somewhere. */
#include "quant/crossval.h"

#include "quant/codec.h"

#include <dilemma/engine.h>

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { N = 96, ROWS = 40, TOKENS = 400, FRESH = 4000 };

/* Inputs with a spectrum that falls off, as a layer's are; true_d [ROWS][N]: what outputs lack by rights; noise on top. */
static void fill(dil_rng *r, const double *mix, const double *true_d, double noise, size_t n, float *x, double *lack)
{
    for (size_t t = 0; t < n; t++) {
        double z[N];
        for (size_t i = 0; i < N; i++) z[i] = dil_rng_normal(r) / (1 + (double)i / 8);
        for (size_t j = 0; j < N; j++) {
            double s = 0;
            for (size_t i = 0; i < N; i++) s += mix[j * N + i] * z[i];
            x[t * N + j] = (float)s;
        }
        for (size_t k = 0; k < ROWS; k++) {
            double s = noise * dil_rng_normal(r);
            for (size_t j = 0; j < N; j++) s += true_d[k * N + j] * (double)x[t * N + j];
            lack[t * ROWS + k] = s;
        }
    }
}

typedef struct text { float *x; double *lack; size_t n; dil__hessian h; double *b; } text;

static text make_text(dil_rng *r, const double *mix, const double *true_d, double noise, size_t n)
{
    text t = {malloc(n * N * sizeof *t.x), malloc(n * ROWS * sizeof *t.lack), n, {0}, calloc(ROWS * N, sizeof *t.b)};
    fill(r, mix, true_d, noise, n, t.x, t.lack);
    assert_int_equal(dil__hessian_init(&t.h, N, NULL), DIL_OK);
    assert_int_equal(dil__hessian_add(&t.h, t.x, n, NULL), DIL_OK);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < ROWS; k++)
            for (size_t j = 0; j < N; j++) t.b[k * N + j] += t.lack[i * ROWS + k] * (double)t.x[i * N + j];
    return t;
}

static void free_text(text *t)
{
    free(t->x);
    free(t->lack);
    free(t->b);
    dil__hessian_fini(&t->h);
}

/* Mean square of what a move d leaves of the lack, over the lack without it, token by token. */
static double left_by(const text *t, const float *d)
{
    double left = 0, all = 0;
    for (size_t i = 0; i < t->n; i++) {
        for (size_t k = 0; k < ROWS; k++) {
            double s = t->lack[i * ROWS + k];
            all += s * s;
            for (size_t j = 0; j < N; j++) s -= (double)d[k * N + j] * (double)t->x[i * N + j];
            left += s * s;
        }
    }
    return left / all;
}

static double *random_matrix(dil_rng *r, size_t n, double size)
{
    double *m = malloc(n * sizeof *m);
    for (size_t i = 0; i < n; i++) m[i] = size * dil_rng_normal(r);
    return m;
}

static double left_with(const text *half, const text *fresh, double share)
{
    dil__hessian whole;
    double b[ROWS * N];
    float d[ROWS * N] = {0};
    assert_int_equal(dil__hessian_init(&whole, N, NULL), DIL_OK);
    dil__hessian_join(&whole, &half[0].h);
    dil__hessian_join(&whole, &half[1].h);
    for (size_t i = 0; i < ROWS * N; i++) b[i] = half[0].b[i] + half[1].b[i];
    if (share >= 0) assert_int_equal(dil__ridge_move(&whole, share, b, d, ROWS, NULL), DIL_OK);
    dil__hessian_fini(&whole);
    return left_by(fresh, d);
}

static void moves_as_far_as_other_text_bears_out(void **state)
{
    (void)state;
    static const double noises[] = {0.01, 1, 5, 30}, fixed[] = {0.01, 0.03, 0.1, 0.3, 1, 3, -1};
    dil_rng r;
    dil_rng_init(&r, 21);
    double *mix = random_matrix(&r, N * N, 0.3), *true_d = random_matrix(&r, ROWS * N, 0.1), worst_of_003 = 0;
    for (size_t k = 0; k < sizeof noises / sizeof noises[0]; k++) {
        text half[2] = {make_text(&r, mix, true_d, noises[k], TOKENS), make_text(&r, mix, true_d, noises[k], TOKENS)};
        text fresh = make_text(&r, mix, true_d, noises[k], FRESH);
        double share, best = 2;
        assert_int_equal(dil__crossval_ridge((const dil__hessian *[]){&half[0].h, &half[1].h}, (const double *[]){half[0].b, half[1].b}, ROWS, &share, NULL), DIL_OK);
        for (size_t i = 0; i < sizeof fixed / sizeof fixed[0]; i++) best = fmin(best, left_with(half, &fresh, fixed[i]));
        double chosen = left_with(half, &fresh, share);
        print_message("noise %g: lambda %.3g leaves %.4f of the lack, the best of the ladder %.4f, 0.03 %.4f\n", noises[k], share, chosen, best,
                      left_with(half, &fresh, 0.03));
        assert_true(chosen < best + 0.01);
        assert_true(chosen < 1.0001);
        worst_of_003 = fmax(worst_of_003, left_with(half, &fresh, 0.03) - chosen);
        for (int i = 0; i < 2; i++) free_text(&half[i]);
        free_text(&fresh);
    }
    assert_true(worst_of_003 > 0.01);
    free(mix);
    free(true_d);
}

static double rounding_loss(const dil__hessian *fit, const dil__hessian *fresh, const float *w, double damp)
{
    float *u, q[ROWS * N];
    uint8_t bytes[ROWS * N];
    double loss = 0;
    assert_int_equal(dil__gptq_factor(fit, damp, &u, NULL), DIL_OK);
    assert_int_equal(dil__gptq_quantize(DIL_TYPE_Q4_0, w, ROWS, N, u, DIL__GPTQ_PASSES, bytes, 1, NULL), DIL_OK);
    assert_int_equal(dil_engine_dequantize(DIL_TYPE_Q4_0, bytes, ROWS * N, q, NULL), DIL_OK);
    for (size_t row = 0; row < ROWS; row++)
        for (size_t i = 0; i < N; i++)
            for (size_t j = 0; j < N; j++)
                loss += (double)(q[row * N + i] - w[row * N + i]) * fresh->sum[i < j ? i * N + j : j * N + i] * (double)(q[row * N + j] - w[row * N + j]);
    free(u);
    return loss;
}

static void damps_by_what_other_text_says(void **state)
{
    (void)state;
    dil_rng r;
    dil_rng_init(&r, 22);
    double *mix = random_matrix(&r, N * N, 0.3), *none = calloc(ROWS * N, sizeof *none);
    float w[ROWS * N];
    for (size_t i = 0; i < ROWS * N; i++) w[i] = (float)(0.05 * dil_rng_normal(&r));
    static const size_t tokens[] = {60, 2000};
    double damp[2], few_by_many = 0, few = 0;
    for (int k = 0; k < 2; k++) {
        text half[2] = {make_text(&r, mix, none, 1, tokens[k]), make_text(&r, mix, none, 1, tokens[k])}, fresh = make_text(&r, mix, none, 1, FRESH);
        assert_int_equal(dil__crossval_damp(DIL_TYPE_Q4_0, (const dil__hessian *[]){&half[0].h, &half[1].h}, w, ROWS, 1, &damp[k], NULL), DIL_OK);
        dil__hessian_join(&half[0].h, &half[1].h);
        if (k == 0) few = rounding_loss(&half[0].h, &fresh.h, w, damp[0]), few_by_many = rounding_loss(&half[0].h, &fresh.h, w, 0.003);
        for (int i = 0; i < 2; i++) free_text(&half[i]);
        free_text(&fresh);
    }
    print_message("damping: %g of %zu tokens, %g of %zu; on other text the first leaves %.3f of what 0.003 does\n", damp[0], 2 * tokens[0], damp[1], 2 * tokens[1],
                  few / few_by_many);
    assert_true(damp[0] > damp[1]);
    assert_true(few < few_by_many);
    free(mix);
    free(none);
}

static void a_singular_covariance_is_said(void **state)
{
    (void)state;
    dil__hessian h;
    double b[N] = {1}, share;
    dil_err err;
    assert_int_equal(dil__hessian_init(&h, N, NULL), DIL_OK);
    h.n_rows = 1; /* all zero */
    assert_int_equal(dil__crossval_ridge((const dil__hessian *[]){&h, &h}, (const double *[]){b, b}, 1, &share, &err), DIL_EDATA);
    float w[N] = {0};
    assert_int_equal(dil__ridge_move(&h, 0.1, b, w, 1, &err), DIL_EDATA);
    dil__hessian_fini(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(moves_as_far_as_other_text_bears_out),
        cmocka_unit_test(damps_by_what_other_text_says),
        cmocka_unit_test(a_singular_covariance_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
