/* Our table of types against ggml's own; quantizing and back against the definition of a quantizer; what would make ggml abort. */
#include <dilemma/engine.h>

#include <ggml.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void the_type_table_equals_ggmls(void **state)
{
    (void)state;
    int found = 0;
    for (int t = 0; t < DIL_TYPE_LIMIT; t++) {
        const dil_type_info *ours = dil_type_get(t);
        const struct ggml_type_traits *theirs = t < GGML_TYPE_COUNT ? ggml_get_type_traits((enum ggml_type)t) : NULL;
        bool known = theirs && theirs->type_size > 0 && theirs->blck_size > 0;
        if (!known) {
            assert_null(ours);
            continue;
        }
        if (!ours) fail_msg("type %d (%s) is missing", t, theirs->type_name);
        assert_int_equal(ours->block_elems, theirs->blck_size);
        assert_int_equal(ours->block_bytes, theirs->type_size);
        assert_int_equal(ours->is_quantized, theirs->is_quantized);
        dil_type back;
        assert_true(dil_type_from_name(theirs->type_name, &back));
        assert_int_equal(back, t);
        if (ours->is_quantized) assert_true(!ggml_quantize_requires_imatrix((enum ggml_type)t) || ours->needs_imatrix);
        found++;
    }
    assert_true(found > 30);
}

static bool writable(dil_type t)
{
    const dil_type_info *i = dil_type_get(t);
    return i && (i->is_quantized || t <= DIL_TYPE_F16 || t == DIL_TYPE_BF16) && t != DIL_TYPE_Q8_1 && t != DIL_TYPE_Q8_K;
}

/* Root of the mean square error relative to the values', for normal values. */
static double round_trip(dil_type t, const float *x, uint64_t rows, uint64_t cols, const float *importance)
{
    uint64_t row;
    dil_err err = {0};
    assert_true(dil_type_row_bytes(t, cols, &row));
    uint8_t *q = malloc(row * rows);
    float *y = malloc(rows * cols * sizeof *y);
    if (dil_engine_quantize(t, x, rows, cols, importance, q, 2, &err)) fail_msg("%s: %s", dil_type_get(t)->name, err.text);
    if (dil_engine_dequantize(t, q, rows * cols, y, &err)) fail_msg("%s: %s", dil_type_get(t)->name, err.text);
    double e = 0, s = 0;
    for (uint64_t i = 0; i < rows * cols; i++) {
        e += ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
        s += (double)x[i] * (double)x[i];
    }
    free(q);
    free(y);
    return s > 0 ? sqrt(e / s) : e;
}

static void every_type_comes_back_as_close_as_its_bits_allow(void **state)
{
    (void)state;
    enum { ROWS = 12, COLS = 512 };
    float *x = malloc(ROWS * COLS * sizeof *x), ones[COLS];
    dil_rng rng;
    dil_rng_init(&rng, 5);
    for (int i = 0; i < ROWS * COLS; i++) x[i] = (float)dil_rng_normal(&rng) * 0.05f;
    for (int i = 0; i < COLS; i++) ones[i] = 1;
    for (dil_type t = 0; t < DIL_TYPE_LIMIT; t++) {
        if (!writable(t)) continue;
        double bits = dil_type_bits(t), e = round_trip(t, x, ROWS, COLS, ones);
        double allowed = t == DIL_TYPE_TQ1_0 || t == DIL_TYPE_TQ2_0 || t == DIL_TYPE_Q2_0 ? 0.9 /* made for ternary weights */ : bits < 2 ? 0.75 : bits < 2.5 ? 0.55 : bits < 3.5 ? 0.3 : bits < 4.3 ? 0.2 : bits < 5.6 ? 0.12 : bits < 8 ? 0.06 : 0.01;
        if (!(e <= allowed)) fail_msg("%s, %.2f bits: error %.3f, allowed %.3f", dil_type_get(t)->name, bits, e, allowed);
    }
    free(x);
}

static void a_zero_stays_zero(void **state)
{
    (void)state;
    enum { COLS = 256 };
    float x[2 * COLS] = {0}, ones[COLS];
    for (int i = 0; i < COLS; i++) ones[i] = 1;
    for (dil_type t = 0; t < DIL_TYPE_LIMIT; t++) {
        if (writable(t)) assert_true(round_trip(t, x, 2, COLS, ones) < 1e-12);
    }
}

static void hostile_values_and_importances_never_abort(void **state)
{
    (void)state;
    enum { COLS = 256, ROWS = 4 };
    float x[ROWS * COLS], imp[COLS];
    uint8_t q[ROWS * COLS * 4];
    dil_rng rng;
    for (uint64_t seed = 0; seed < 60; seed++) {
        dil_rng_init(&rng, seed);
        for (int i = 0; i < ROWS * COLS; i++) {
            double m = pow(10, dil_rng_unit(&rng) * 49 - 44); /* denormals to 1e5 */
            x[i] = dil_rng_below(&rng, 4) ? (float)(dil_rng_normal(&rng) * m) : 0;
            if (fabsf(x[i]) > 65504) x[i] = 65504;
        }
        for (int i = 0; i < COLS; i++) imp[i] = dil_rng_below(&rng, 3) ? (float)pow(10, dil_rng_unit(&rng) * 76 - 38) : 0;
        if (seed % 5 == 0) memset(imp, 0, sizeof imp);
        for (dil_type t = 0; t < DIL_TYPE_LIMIT; t++) {
            dil_err err = {0};
            if (writable(t) && dil_engine_quantize(t, x, ROWS, COLS, imp, q, 1, &err)) fail_msg("seed %d, type %d: %s", (int)seed, t, err.text);
        }
    }
}

static void what_cannot_be_quantized_is_refused(void **state)
{
    (void)state;
    float x[256] = {0}, imp[256] = {0};
    uint8_t q[1024];
    dil_err err = {0};
    assert_int_equal(dil_engine_quantize(DIL_TYPE_Q4_0, x, 1, 48, NULL, q, 1, &err), DIL_EUSAGE);
    assert_int_equal(dil_engine_quantize(DIL_TYPE_Q8_K, x, 1, 256, NULL, q, 1, &err), DIL_EUNSUPPORTED);
    assert_int_equal(dil_engine_quantize(DIL_TYPE_I32, x, 1, 256, NULL, q, 1, &err), DIL_EUNSUPPORTED);
    assert_int_equal(dil_engine_quantize(63, x, 1, 256, NULL, q, 1, &err), DIL_EUNSUPPORTED);
    assert_int_equal(dil_engine_quantize(DIL_TYPE_IQ2_XXS, x, 1, 256, NULL, q, 1, &err), DIL_EDATA);
    x[200] = NAN;
    assert_int_equal(dil_engine_quantize(DIL_TYPE_Q4_0, x, 1, 256, NULL, q, 1, &err), DIL_EDATA);
    assert_non_null(strstr(err.text, "column 200"));
    x[200] = 1e6f;
    assert_int_equal(dil_engine_quantize(DIL_TYPE_Q4_0, x, 1, 256, NULL, q, 1, &err), DIL_EDATA);
    x[200] = 0;
    imp[3] = -1;
    assert_int_equal(dil_engine_quantize(DIL_TYPE_IQ2_XXS, x, 1, 256, imp, q, 1, &err), DIL_EDATA);
    assert_int_equal(dil_engine_dequantize(DIL_TYPE_Q4_0, q, 33, x, &err), DIL_EUSAGE);
    assert_int_equal(dil_engine_dequantize(DIL_TYPE_Q8_1, q, 32, x, &err), DIL_EUNSUPPORTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_type_table_equals_ggmls),
        cmocka_unit_test(every_type_comes_back_as_close_as_its_bits_allow),
        cmocka_unit_test(a_zero_stays_zero),
        cmocka_unit_test(hostile_values_and_importances_never_abort),
        cmocka_unit_test(what_cannot_be_quantized_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
