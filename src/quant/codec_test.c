/* Oracles: ggml's own dequantizer for the byte layouts, brute force for the nearest code, and ggml's own quantizer for the
 * weighted error of the scale searches. */
#include "quant/codec.h"
#include "base/half.h"

#include <dilemma/engine.h>

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static const dil_type types[] = {DIL_TYPE_Q4_0, DIL_TYPE_Q4_1, DIL_TYPE_Q5_0, DIL_TYPE_Q5_1, DIL_TYPE_Q8_0, DIL_TYPE_IQ4_NL,
                                 DIL_TYPE_MXFP4, DIL_TYPE_Q2_0, DIL_TYPE_Q2_K, DIL_TYPE_Q3_K, DIL_TYPE_Q4_K, DIL_TYPE_Q5_K,
                                 DIL_TYPE_Q6_K, DIL_TYPE_IQ4_XS};
enum { N_TYPES = sizeof types / sizeof types[0], COLS = 1024, ROWS = 32 };

static int random_int(dil_rng *r, int lo, int hi)
{
    return lo + (int)dil_rng_below(r, (uint64_t)(hi - lo + 1));
}

/* A fit that no search chose: any scales that the type can store. */
static dil__block_fit random_fit(const dil__codec *c, dil_rng *r)
{
    dil__block_fit f = {.d = dil__f16_from_f32((float)dil_rng_unit(r) + 0.01f), .m = dil__f16_from_f32((float)dil_rng_unit(r))};
    bool has_min = c->submin_max > 0 || c->type == DIL_TYPE_Q4_1 || c->type == DIL_TYPE_Q5_1;
    if (c->type == DIL_TYPE_MXFP4) f.d = (uint16_t)random_int(r, 100, 140);
    float d = c->type == DIL_TYPE_MXFP4 ? ldexpf(1, f.d - 128) : dil__f16_to_f32(f.d);
    float m = has_min ? dil__f16_to_f32(f.m) : 0;
    for (uint32_t g = 0; g < c->block / c->group; g++) {
        f.scale[g] = d;
        f.offset[g] = m;
        if (c->sub_max == 0) continue;
        f.sub[g] = (int16_t)random_int(r, c->sub_min, c->sub_max);
        f.submin[g] = (int16_t)random_int(r, 0, c->submin_max);
        f.scale[g] = d * (float)f.sub[g];
        f.offset[g] = -m * (float)f.submin[g];
    }
    return f;
}

static void packed_blocks_decode_to_the_chosen_values_in_ggml(void **state)
{
    (void)state;
    dil_rng r;
    dil_rng_init(&r, 1);
    for (size_t t = 0; t < N_TYPES; t++) {
        const dil__codec *c = dil__codec_get(types[t]);
        assert_non_null(c);
        assert_int_equal(c->block_bytes, dil_type_get(types[t])->block_bytes);
        assert_int_equal(c->block, dil_type_get(types[t])->block_elems);
        for (int trial = 0; trial < 200; trial++) {
            dil__block_fit f = random_fit(c, &r);
            uint8_t codes[DIL__CODEC_BLOCK], bytes[256];
            for (uint32_t i = 0; i < c->block; i++) codes[i] = (uint8_t)dil_rng_below(&r, c->n_codes);
            c->pack(&f, codes, bytes);
            float got[DIL__CODEC_BLOCK];
            assert_int_equal(dil_engine_dequantize(types[t], bytes, c->block, got, NULL), DIL_OK);
            for (uint32_t i = 0; i < c->block; i++) {
                uint32_t g = i / c->group;
                double want = (double)f.scale[g] * c->grid[codes[i]] + f.offset[g];
                double size = fabs((double)f.scale[g] * c->grid[codes[i]]) + fabs((double)f.offset[g]);
                assert_true(fabs((double)got[i] - want) <= 3e-7 * size); /* one fused rounding more or less */
            }
        }
    }
}

static void nearest_code_is_the_nearest(void **state)
{
    (void)state;
    dil_rng r;
    dil_rng_init(&r, 2);
    for (size_t t = 0; t < N_TYPES; t++) {
        const dil__codec *c = dil__codec_get(types[t]);
        float span = c->grid[c->n_codes - 1] - c->grid[0];
        for (int i = 0; i < 20000; i++) {
            float x = c->grid[0] + span * (float)(1.4 * dil_rng_unit(&r) - 0.2);
            float got = fabsf(c->grid[dil__codec_nearest(c, x)] - x), best = INFINITY;
            for (uint32_t k = 0; k < c->n_codes; k++) best = fminf(best, fabsf(c->grid[k] - x));
            assert_true(got <= best + 1e-6f * span);
        }
        assert_int_equal(dil__codec_nearest(c, 1e30f), c->n_codes - 1);
        assert_int_equal(dil__codec_nearest(c, -1e30f), 0);
    }
}

static double weighted_error(dil_type t, const void *bytes, const float *w, const float *imp)
{
    static float got[ROWS * COLS];
    assert_int_equal(dil_engine_dequantize(t, bytes, ROWS * COLS, got, NULL), DIL_OK);
    double err = 0;
    for (size_t i = 0; i < ROWS * COLS; i++) err += (double)imp[i % COLS] * pow((double)got[i] - (double)w[i], 2);
    return err;
}

static void scale_search_is_not_behind_ggmls_quantizer(void **state)
{
    (void)state;
    static float w[ROWS * COLS], imp[COLS];
    static uint8_t ours[ROWS * COLS * 2], theirs[ROWS * COLS * 2];
    dil_rng r;
    dil_rng_init(&r, 3);
    for (int tail = 0; tail < 2; tail++) {
        for (size_t i = 0; i < ROWS * COLS; i++) {
            double x = dil_rng_normal(&r);
            w[i] = (float)(0.02 * (tail ? x * fabs(x) : x));
        }
        for (size_t i = 0; i < COLS; i++) imp[i] = (float)exp(dil_rng_normal(&r));
        for (size_t t = 0; t < N_TYPES; t++) {
            assert_int_equal(dil__codec_quantize(types[t], w, ROWS, COLS, imp, ours, 2, NULL), DIL_OK);
            assert_int_equal(dil_engine_quantize(types[t], w, ROWS, COLS, imp, theirs, 1, NULL), DIL_OK);
            double mine = weighted_error(types[t], ours, w, imp), ggml = weighted_error(types[t], theirs, w, imp);
            print_message("%-7s %s weighted error, ours / ggml: %.3f\n", dil_type_get(types[t])->name, tail ? "heavy tail" : "normal    ",
                          mine / ggml);
            assert_true(mine <= 1.005 * ggml);
        }
    }
}

static void weights_that_are_not_finite_are_refused(void **state)
{
    (void)state;
    static float w[256];
    uint8_t dst[1024];
    w[17] = NAN;
    assert_int_equal(dil__codec_quantize(DIL_TYPE_Q4_0, w, 1, 256, NULL, dst, 1, NULL), DIL_EDATA);
    w[17] = 1e30f;
    assert_int_equal(dil__codec_quantize(DIL_TYPE_Q4_0, w, 1, 256, NULL, dst, 1, NULL), DIL_EDATA);
    w[17] = 1;
    assert_int_equal(dil__codec_quantize(DIL_TYPE_Q2_K, w, 1, 128, NULL, dst, 1, NULL), DIL_EUNSUPPORTED);
    assert_int_equal(dil__codec_quantize(DIL_TYPE_IQ3_S, w, 1, 256, NULL, dst, 1, NULL), DIL_EUNSUPPORTED);
    memset(w, 0, sizeof w);
    for (size_t t = 0; t < N_TYPES; t++) {
        float back[256];
        assert_int_equal(dil__codec_quantize(types[t], w, 1, 256, NULL, dst, 1, NULL), DIL_OK);
        assert_int_equal(dil_engine_dequantize(types[t], dst, 256, back, NULL), DIL_OK);
        for (int i = 0; i < 256; i++) assert_true(back[i] == 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packed_blocks_decode_to_the_chosen_values_in_ggml),
        cmocka_unit_test(nearest_code_is_the_nearest),
        cmocka_unit_test(scale_search_is_not_behind_ggmls_quantizer),
        cmocka_unit_test(weights_that_are_not_finite_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
