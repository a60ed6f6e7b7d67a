/* What a stored tensor's parameters mean, against finite differences through the stored bytes; and the symmetric divergence's gradient. */
#include "quant/trainable.h"
#include "quant/distill_loss.h"

#include <dilemma/engine.h>

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { COLS = 512, ROWS = 3, N = COLS * ROWS };

static const dil_type types[] = {
    DIL_TYPE_Q4_0, DIL_TYPE_Q4_1, DIL_TYPE_Q5_0, DIL_TYPE_Q5_1, DIL_TYPE_Q8_0, DIL_TYPE_IQ4_NL, DIL_TYPE_Q2_0, DIL_TYPE_Q2_K, DIL_TYPE_Q3_K,
    DIL_TYPE_Q4_K, DIL_TYPE_Q5_K, DIL_TYPE_Q6_K, DIL_TYPE_IQ4_XS, DIL_TYPE_IQ3_S, DIL_TYPE_IQ3_XXS, DIL_TYPE_IQ2_S, DIL_TYPE_IQ2_XS, DIL_TYPE_IQ2_XXS};

static float w[N], c[N];

static double loss(dil__trainable *t, float *out)
{
    dil_err err = {0};
    dil__trainable_apply(t);
    if (dil_engine_dequantize(t->src->type, t->bytes, N, out, &err)) fail_msg("%s", err.text);
    double l = 0;
    for (size_t i = 0; i < N; i++) l += (double)c[i] * (double)out[i];
    return l;
}

static void check_type(dil_type type, dil_rng *rng)
{
    dil_err err = {0};
    uint64_t row;
    assert_true(dil_type_row_bytes(type, COLS, &row));
    float ones[COLS], *value = malloc(N * sizeof *value), *scratch = malloc(N * sizeof *scratch);
    uint8_t *bytes = malloc(row * ROWS), *spare = malloc(row * ROWS);
    for (size_t i = 0; i < COLS; i++) ones[i] = 1;
    for (size_t i = 0; i < N; i++) w[i] = (float)dil_rng_normal(rng) + 0.3f, c[i] = (float)dil_rng_normal(rng);
    if (dil_engine_quantize(type, w, ROWS, COLS, ones, bytes, 1, &err)) fail_msg("%s", err.text);
    dil_tensor src = {.type = type, .n_dims = 2, .ne = {COLS, ROWS, 1, 1}, .data = bytes, .bytes = row * ROWS};
    dil__trainable t;
    assert_true(dil__trainable_can(&src));
    if (dil__trainable_init(&t, &src, &err)) fail_msg("%s", err.text);
    double l0 = loss(&t, value);
    assert_memory_equal(t.bytes, bytes, src.bytes); /* p = 0 is the file as it was */
    if (dil__trainable_add(&t, c, value, scratch, spare, &err)) fail_msg("%s", err.text);
    /* W = d A + m B: the loss along exp(p) is exactly linear, up to the rounding of a half. */
    for (size_t k = 0; k < t.n; k += 1 + t.n / 40) {
        memset(t.p, 0, t.n * sizeof *t.p);
        t.p[k] = 0.5f;
        double got = (loss(&t, scratch) - l0) / (exp(0.5) - 1), want = (double)t.grad[k];
        double size = 0;
        for (size_t i = 0; i < t.block_elems; i++) size += fabs((double)c[k % t.n_blocks * t.block_elems + i] * (double)value[k % t.n_blocks * t.block_elems + i]);
        if (!(fabs(got - want) < 0.004 * (size + fabs(want)) + 1e-4))
            fail_msg("%s, parameter %zu of %zu: %g by differences, %g by the gradient", dil_type_get(type)->name, k, t.n, got, want);
    }
    dil__trainable_fini(&t);
    free(value), free(scratch), free(bytes), free(spare);
}

static void gradients_of_scales_and_minima_are_those_of_the_stored_bytes(void **state)
{
    (void)state;
    dil_rng rng;
    dil_rng_init(&rng, 4);
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) check_type(types[i], &rng);
    dil_tensor mx = {.type = DIL_TYPE_MXFP4, .ne = {32, 1, 1, 1}}, half = {.type = DIL_TYPE_F16, .ne = {32, 4, 1, 1}};
    assert_false(dil__trainable_can(&mx)); /* powers of two */
    assert_false(dil__trainable_can(&half));
}

static void a_vector_moves_in_units_of_its_size(void **state)
{
    (void)state;
    float v[4] = {2, -2, 2, 2}, dw[4] = {1, 0.5f, -1, 0}, out[4];
    dil_tensor src = {.type = DIL_TYPE_F32, .n_dims = 1, .ne = {4, 1, 1, 1}, .data = v, .bytes = sizeof v};
    dil__trainable t;
    dil_err err = {0};
    if (dil__trainable_init(&t, &src, &err) || dil__trainable_add(&t, dw, v, NULL, NULL, &err)) fail_msg("%s", err.text);
    for (int i = 0; i < 4; i++) assert_float_equal(t.grad[i], 2 * dw[i], 1e-6);
    dil__trainable_step(&t, 0.01, 1, 1); /* Adam's first step has the rate's length against the gradient's sign */
    for (int i = 0; i < 3; i++) assert_float_equal(t.p[i], dw[i] > 0 ? -0.01 : 0.01, 1e-4);
    dil__trainable_apply(&t);
    memcpy(out, t.bytes, sizeof out);
    assert_float_equal(out[0], 2 - 0.02, 1e-4);
    assert_float_equal(out[3], 2, 1e-7);
    dil__trainable_fini(&t);
}

/* Σ c W over parameters of which W is linear (whole tensors) or bilinear (LoRA): differences are exact up to rounding. */
static void check_linear(dil__trainable *t, double step, double tolerance)
{
    dil_err err = {0};
    float *value = malloc(N * sizeof *value);
    for (size_t i = 0; i < N; i++) c[i] = sinf((float)i);
    dil__trainable_apply(t);
    if (dil__trainable_values(t, value, &err) || dil__trainable_add(t, c, value, NULL, NULL, &err)) fail_msg("%s", err.text);
    for (size_t k = 0; k < t->n; k += 1 + t->n / 50) {
        double l[2];
        float p = t->p[k];
        for (int side = 0; side < 2; side++) {
            t->p[k] = p + (float)(side ? step : -step);
            dil__trainable_apply(t);
            if (dil__trainable_values(t, value, &err)) fail_msg("%s", err.text);
            l[side] = 0;
            for (size_t i = 0; i < N; i++) l[side] += (double)c[i] * (double)value[i];
        }
        t->p[k] = p;
        double got = (l[1] - l[0]) / (2 * step), want = (double)t->grad[k];
        if (!(fabs(got - want) < tolerance * (1 + fabs(want)))) fail_msg("parameter %zu of %zu: %g by differences, %g by the gradient", k, t->n, got, want);
    }
    free(value);
}

static void whole_tensors_and_thin_matrices_have_their_gradients(void **state)
{
    (void)state;
    dil_err err = {0};
    dil_rng rng;
    dil_rng_init(&rng, 11);
    uint16_t half[N];
    for (size_t i = 0; i < N; i++) {
        w[i] = (float)dil_rng_normal(&rng);
        half[i] = 0x3c00; /* 1 */
    }
    dil_tensor full = {.type = DIL_TYPE_F32, .n_dims = 2, .ne = {COLS, ROWS, 1, 1}, .data = w, .bytes = sizeof w}, f16 = full, codes = full;
    f16.type = DIL_TYPE_F16, f16.data = half, f16.bytes = sizeof half;
    dil__trainable t;
    if (dil__trainable_init_full(&t, &full, &err)) fail_msg("%s", err.text);
    check_linear(&t, 0.5, 1e-3);
    dil__trainable_fini(&t);
    if (dil__trainable_init_full(&t, &f16, &err)) fail_msg("%s", err.text);
    check_linear(&t, 0.5, 1e-3); /* halves and wholes have no rounding */
    dil__trainable_fini(&t);
    codes.type = DIL_TYPE_Q8_0;
    assert_int_equal(dil__trainable_init_full(&t, &codes, &err), DIL_EUNSUPPORTED);
    if (dil__trainable_init_lora(&t, &f16, 4, 0.5f, &rng, &err)) fail_msg("%s", err.text);
    float *value = malloc(N * sizeof *value);
    if (dil__trainable_values(&t, value, &err)) fail_msg("%s", err.text);
    for (size_t i = 0; i < N; i++) assert_true(value[i] == 1); /* B is zero: as it is */
    for (size_t i = 0; i < t.n; i++) t.p[i] = (float)dil_rng_normal(&rng);
    check_linear(&t, 0.01, 2e-2);
    dil__trainable_fini(&t);
    free(value);
}

/* Both divergences of two rows of logits in double. */
static dil__divergence divergence(const float *p, const float *q, size_t n)
{
    double sp = 0, sq = 0;
    dil__divergence d = {0};
    for (size_t i = 0; i < n; i++) sp += exp((double)p[i]), sq += exp((double)q[i]);
    for (size_t i = 0; i < n; i++) {
        double lp = (double)p[i] - log(sp), lq = (double)q[i] - log(sq);
        d.forward += exp(lp) * (lp - lq);
        d.backward += exp(lq) * (lq - lp);
    }
    return d;
}

static void the_gradient_of_the_divergence_is_the_difference_quotient(void **state)
{
    (void)state;
    enum { V = 1037 };
    dil_rng rng;
    dil_rng_init(&rng, 9);
    static float p[2 * V], q[2 * V], tp[2 * V], grad[2 * V];
    for (size_t i = 0; i < 2 * V; i++) {
        p[i] = (float)(3 * dil_rng_normal(&rng));
        q[i] = i < V ? (float)(3 * dil_rng_normal(&rng)) : p[i];
    }
    memcpy(tp, p, sizeof p);
    memcpy(grad, q, sizeof q);
    dil__divergence out[2];
    dil__distill_rows(tp, grad, 2, V, 0.25f, 1, out);
    dil__divergence want = divergence(p, q, V);
    assert_float_equal(out[0].forward, want.forward, 1e-4 * want.forward);
    assert_float_equal(out[0].backward, want.backward, 1e-4 * want.backward);
    assert_true(want.forward > 0.5 && fabs(want.forward - want.backward) > 0.01);
    assert_float_equal(out[1].forward, 0, 1e-6); /* equal rows */
    for (size_t i = V; i < 2 * V; i++) assert_float_equal(grad[i], 0, 1e-6);
    for (size_t i = 0; i < V; i += 37) {
        float was = q[i], e = 0.02f;
        q[i] = was + e;
        dil__divergence a = divergence(p, q, V);
        q[i] = was - e;
        dil__divergence b = divergence(p, q, V);
        q[i] = was;
        double by_difference = 0.25 * 0.5 * (a.forward + a.backward - b.forward - b.backward) / (2 * (double)e);
        assert_float_equal(grad[i], by_difference, 2e-3 * fabs(by_difference) + 1e-5);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(gradients_of_scales_and_minima_are_those_of_the_stored_bytes),
                                       cmocka_unit_test(a_vector_moves_in_units_of_its_size), cmocka_unit_test(whole_tensors_and_thin_matrices_have_their_gradients),
                                       cmocka_unit_test(the_gradient_of_the_divergence_is_the_difference_quotient)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
