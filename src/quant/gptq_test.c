/* Oracle: the textbook form of the same algorithm in double precision, by eliminating one column at a time from an explicit inverse
 * (no Cholesky factor, no units, no slabs), and the loss tr(D H D^T) that it is meant to lower. */
#include "quant/gptq.h"
#include "quant/codec.h"

#include <dilemma/engine.h>

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { N = 256, ROWS = 70, SAMPLES = 600 }; /* more than one slab of rows */

/* Inputs whose columns are correlated, as a layer's are. */
static float *correlated_rows(dil_rng *r, size_t n_rows)
{
    float *x = malloc(n_rows * N * sizeof *x);
    for (size_t i = 0; i < n_rows; i++) {
        double common[8];
        for (int k = 0; k < 8; k++) common[k] = dil_rng_normal(r);
        for (size_t j = 0; j < N; j++) x[i * N + j] = (float)(0.5 * dil_rng_normal(r) + common[j % 8] + 0.5 * common[j * 7 % 8]);
    }
    return x;
}

static void invert(double *a, double *inv)
{
    memset(inv, 0, N * N * sizeof *inv);
    for (size_t i = 0; i < N; i++) inv[i * N + i] = 1;
    for (size_t p = 0; p < N; p++) { /* symmetric positive definite: no pivoting needed */
        double d = 1 / a[p * N + p];
        for (size_t j = 0; j < N; j++) {
            a[p * N + j] *= d;
            inv[p * N + j] *= d;
        }
        for (size_t i = 0; i < N; i++) {
            double f = a[i * N + p];
            if (i == p || f == 0) continue;
            for (size_t j = 0; j < N; j++) {
                a[i * N + j] -= f * a[p * N + j];
                inv[i * N + j] -= f * inv[p * N + j];
            }
        }
    }
}

static double *damped(const dil__hessian *h)
{
    double *a = malloc(N * N * sizeof *a), mean = 0;
    for (size_t i = 0; i < N; i++) mean += h->sum[i * N + i] / N;
    for (size_t i = 0; i < N; i++) {
        for (size_t j = 0; j < N; j++) a[i * N + j] = h->sum[i < j ? i * N + j : j * N + i] + (i == j ? 0.01 * mean : 0);
    }
    return a;
}

/* One row by optimal-brain-surgeon steps; result [N]. */
static void reference_row(const dil__codec *c, const float *w0, const double *full_inverse, float *result)
{
    double *inv = malloc(N * N * sizeof *inv), w[N];
    memcpy(inv, full_inverse, N * N * sizeof *inv);
    float imp[N], now[N];
    double *steps = malloc(N * sizeof *steps); /* what each diagonal is when its column comes up */
    for (size_t j = 0; j < N; j++) {
        steps[j] = inv[j * N + j];
        for (size_t a = j + 1; a < N; a++) {
            double f = inv[a * N + j] / inv[j * N + j];
            for (size_t b = j; b < N; b++) inv[a * N + b] -= f * inv[j * N + b];
        }
    }
    for (size_t j = 0; j < N; j++) {
        imp[j] = (float)(1 / steps[j]);
        w[j] = (double)w0[j];
    }
    dil__block_fit f;
    for (size_t j = 0; j < N; j++) {
        uint32_t g = (uint32_t)(j % c->block / c->group);
        if (j % c->group == 0) {
            for (size_t k = 0; k < N; k++) now[k] = (float)w[k];
            if (g == 0) c->fit(c, now + j, imp + j, &f);
            else if (c->refit_group) c->refit_group(c, g, now + j, imp + j, &f);
        }
        uint32_t code = dil__codec_nearest(c, ((float)w[j] - f.offset[g]) * f.inverse[g]);
        result[j] = dil__codec_value(c, &f, g, code);
        /* Row j of the eliminated inverse, over its diagonal, says how the rest makes up for the error. */
        double e = (w[j] - (double)result[j]) / inv[j * N + j];
        for (size_t k = j; k < N; k++) w[k] -= e * inv[j * N + k];
    }
    free(steps);
    free(inv);
}

static double row_loss(const double *h, const float *w, const float *q)
{
    double total = 0, d[N];
    for (size_t i = 0; i < N; i++) d[i] = (double)w[i] - (double)q[i];
    for (size_t i = 0; i < N; i++) {
        for (size_t j = 0; j < N; j++) total += d[i] * h[i * N + j] * d[j];
    }
    return total;
}

static double loss(const double *h, const float *w, const float *q)
{
    double total = 0;
    for (size_t r = 0; r < ROWS; r++) total += row_loss(h, w + r * N, q + r * N);
    return total;
}

static void error_feedback_equals_the_textbook_and_beats_rounding(void **state)
{
    (void)state;
    static const dil_type types[] = {DIL_TYPE_IQ4_NL, DIL_TYPE_Q4_0, DIL_TYPE_Q4_1, DIL_TYPE_Q5_0, DIL_TYPE_Q5_1, DIL_TYPE_Q8_0,
                                     DIL_TYPE_MXFP4, DIL_TYPE_Q2_0, DIL_TYPE_Q2_K, DIL_TYPE_Q3_K, DIL_TYPE_Q4_K, DIL_TYPE_Q5_K,
                                     DIL_TYPE_Q6_K, DIL_TYPE_IQ4_XS};
    dil_rng r;
    dil_rng_init(&r, 11);
    float *x = correlated_rows(&r, SAMPLES), *w = malloc(ROWS * N * sizeof *w), *q = malloc(ROWS * N * sizeof *q);
    float *ref = malloc(ROWS * N * sizeof *ref), *u, imp[N];
    uint8_t *bytes = malloc(ROWS * N * 2);
    for (size_t i = 0; i < ROWS * N; i++) w[i] = (float)(0.05 * dil_rng_normal(&r));
    dil__hessian h;
    assert_int_equal(dil__hessian_init(&h, N, NULL), DIL_OK);
    assert_int_equal(dil__hessian_add(&h, x, SAMPLES / 2, NULL), DIL_OK);
    assert_int_equal(dil__hessian_add(&h, x + SAMPLES / 2 * N, SAMPLES - SAMPLES / 2, NULL), DIL_OK);
    double *hd = damped(&h), *scratch = damped(&h), *inverse = malloc(N * N * sizeof *inverse);
    invert(scratch, inverse);
    assert_int_equal(dil__gptq_factor(&h, 0.01, &u, NULL), DIL_OK);
    for (size_t i = 0; i < N; i++) imp[i] = (float)hd[i * N + i];

    for (size_t t = 0; t < sizeof types / sizeof types[0]; t++) {
        const dil__codec *c = dil__codec_get(types[t]);
        assert_int_equal(dil__gptq_quantize(types[t], w, ROWS, N, u, 0, bytes, 2, NULL), DIL_OK);
        assert_int_equal(dil_engine_dequantize(types[t], bytes, ROWS * N, q, NULL), DIL_OK);
        double mine = loss(hd, w, q);
        size_t differ = 0;
        for (size_t row = 0; row < ROWS; row++) reference_row(c, w + row * N, inverse, ref + row * N);
        for (size_t i = 0; i < ROWS * N; i++) differ += fabsf(q[i] - ref[i]) > 1e-5f;
        double textbook = loss(hd, w, ref);
        assert_int_equal(dil__codec_quantize(types[t], w, ROWS, N, imp, bytes, 2, NULL), DIL_OK);
        assert_int_equal(dil_engine_dequantize(types[t], bytes, ROWS * N, q, NULL), DIL_OK);
        double rounded = loss(hd, w, q);
        print_message("%-7s loss: gptq / textbook %.4f, gptq / rounding %.3f, codes that differ %.2f %%\n", dil_type_get(types[t])->name,
                      mine / textbook, mine / rounded, 100.0 * (double)differ / (ROWS * N));
        /* A tie decided the other way changes what follows in its row, not the loss by much. */
        assert_true(fabs(mine / textbook - 1) < 0.03);
        assert_true(mine < 0.85 * rounded);
    }
    free(x); free(w); free(q); free(ref); free(u); free(bytes); free(hd); free(scratch); free(inverse);
    dil__hessian_fini(&h);
}

/* By brute force: the loss with value `to` in place of q[j], less the loss now. */
static double change_by(const double *h, const float *w, const float *q, size_t j, double to)
{
    double slope = 0, move = to - (double)q[j];
    for (size_t i = 0; i < N; i++) slope += h[j * N + i] * ((double)q[i] - (double)w[i]);
    return 2 * move * slope + move * move * h[j * N + j];
}

static void passes_lower_the_loss_until_no_code_does(void **state)
{
    (void)state;
    static const struct { dil_type t; double at_most; } types[] = {{DIL_TYPE_IQ4_NL, 0.97}, {DIL_TYPE_Q4_1, 0.97}, {DIL_TYPE_MXFP4, 0.97}, {DIL_TYPE_Q2_0, 0.97},
                                                                   {DIL_TYPE_Q2_K, 0.97}, {DIL_TYPE_Q3_K, 0.97}, {DIL_TYPE_Q4_K, 0.97}, {DIL_TYPE_Q8_0, 1}};
    enum { FEW = 6 };
    dil_rng r;
    dil_rng_init(&r, 13);
    float *x = correlated_rows(&r, SAMPLES), w[FEW * N], q[FEW * N], *u;
    uint8_t bytes[FEW * N * 2];
    for (size_t i = 0; i < FEW * N; i++) w[i] = (float)(0.05 * dil_rng_normal(&r));
    dil__hessian h;
    assert_int_equal(dil__hessian_init(&h, N, NULL), DIL_OK);
    assert_int_equal(dil__hessian_add(&h, x, SAMPLES, NULL), DIL_OK);
    assert_int_equal(dil__gptq_factor(&h, 0.01, &u, NULL), DIL_OK);
    double *hd = damped(&h);
    for (size_t t = 0; t < sizeof types / sizeof types[0]; t++) {
        const dil__codec *c = dil__codec_get(types[t].t);
        double loss_of[2] = {0};
        for (int done = 0; done < 2; done++) {
            assert_int_equal(dil__gptq_quantize(types[t].t, w, FEW, N, u, done ? 1000 : 0, bytes, 1, NULL), DIL_OK);
            assert_int_equal(dil_engine_dequantize(types[t].t, bytes, FEW * N, q, NULL), DIL_OK);
            for (size_t row = 0; row < FEW; row++) loss_of[done] += row_loss(hd, w + row * N, q + row * N);
        }
        /* A neighbour on the grid is one step of the block's scale away: read it off the block's own values. */
        double worst = 0;
        for (size_t j = 0; j < FEW * N; j++) {
            size_t row = j / N, block = j - j % c->group;
            for (size_t k = block; k < block + c->group; k++) {
                double d = change_by(hd, w + row * N, q + row * N, j % N, (double)q[k]);
                worst = d < worst ? d : worst;
            }
        }
        print_message("%-7s loss: with passes / error feedback alone %.3f; a code left that would lower it by %.1e of it\n", dil_type_get(types[t].t)->name,
                      loss_of[1] / loss_of[0], -worst / loss_of[1]);
        assert_true(loss_of[1] < types[t].at_most * loss_of[0]);
        assert_true(-worst < 1e-5 * loss_of[1]);
    }
    free(x); free(u); free(hd);
    dil__hessian_fini(&h);
}

static void independent_inputs_need_no_feedback(void **state)
{
    (void)state;
    dil_rng r;
    dil_rng_init(&r, 12);
    dil__hessian h;
    assert_int_equal(dil__hessian_init(&h, N, NULL), DIL_OK);
    for (size_t i = 0; i < N; i++) h.sum[i * N + i] = 5;
    h.n_rows = 5;
    float *u, w[4 * N];
    uint8_t a[4 * N], b[4 * N];
    assert_int_equal(dil__gptq_factor(&h, 0.01, &u, NULL), DIL_OK);
    for (size_t i = 0; i < 4 * N; i++) w[i] = (float)dil_rng_normal(&r);
    assert_int_equal(dil__gptq_quantize(DIL_TYPE_Q4_1, w, 4, N, u, 0, a, 1, NULL), DIL_OK);
    assert_int_equal(dil__codec_quantize(DIL_TYPE_Q4_1, w, 4, N, NULL, b, 1, NULL), DIL_OK);
    assert_memory_equal(a, b, 4 * N / 32 * 20);
    free(u);
    dil__hessian_fini(&h);
}

static void bad_calibration_is_said_and_leaves_the_sum(void **state)
{
    (void)state;
    dil__hessian h;
    float *u = NULL, x[64] = {0};
    dil_err err;
    assert_int_equal(dil__hessian_init(&h, 32, NULL), DIL_OK);
    assert_int_equal(dil__gptq_factor(&h, 0.01, &u, &err), DIL_EDATA);
    x[40] = NAN;
    assert_int_equal(dil__hessian_add(&h, x, 2, &err), DIL_EDATA);
    assert_int_equal(h.n_rows, 0);
    x[40] = 0; /* all inputs zero: no information at all */
    assert_int_equal(dil__hessian_add(&h, x, 2, &err), DIL_OK);
    assert_int_equal(dil__gptq_factor(&h, 0.01, &u, &err), DIL_EDATA);
    x[0] = 1; /* rank one: damping makes it usable */
    assert_int_equal(dil__hessian_add(&h, x, 2, &err), DIL_OK);
    assert_int_equal(dil__gptq_factor(&h, 0.01, &u, &err), DIL_OK);
    free(u);
    dil__hessian_fini(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(error_feedback_equals_the_textbook_and_beats_rounding),
        cmocka_unit_test(passes_lower_the_loss_until_no_code_does),
        cmocka_unit_test(independent_inputs_need_no_feedback),
        cmocka_unit_test(bad_calibration_is_said_and_leaves_the_sum),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
