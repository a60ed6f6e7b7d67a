/* Oracle: the definition. Every half converts to the exactly equal float (ldexp), and every float to the nearest half, found by
 * comparing distances in double with both neighbours; ties go to the even code. */
#include "base/half.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <dilemma/base.h>

static double half_value(unsigned h)
{
    int exp = (h >> 10) & 31, man = h & 1023;
    double v = exp ? ldexp(1024 + man, exp - 25) : ldexp(man, -24);
    return h & 0x8000 ? -v : v;
}

static void half_to_float_is_exact_for_every_code(void **state)
{
    (void)state;
    for (unsigned h = 0; h < 65536; h++) {
        if (((h >> 10) & 31) == 31) continue;
        assert_true((double)dil__f16_to_f32((uint16_t)h) == half_value(h));
        assert_int_equal(dil__f16_from_f32((float)half_value(h)), h);
    }
    assert_true(isinf(dil__f16_to_f32(0x7c00)) && isnan(dil__f16_to_f32(0x7e01)));
}

static void float_to_half_takes_the_nearest_and_ties_go_to_even(void **state)
{
    (void)state;
    dil_rng r;
    dil_rng_init(&r, 7);
    for (int i = 0; i < 2000000; i++) {
        float f = dil__f32_from_bits((uint32_t)dil_rng_u64(&r));
        if (i % 4 == 0) { /* a tie on purpose */
            unsigned h = (unsigned)dil_rng_below(&r, 0x7bff);
            f = (float)((half_value(h) + half_value(h + 1)) / 2);
        }
        if (!(fabsf(f) < 65504.0f)) continue;
        unsigned h = dil__f16_from_f32(f);
        double here = fabs(half_value(h) - (double)f);
        for (int step = -1; step <= 1; step += 2) {
            unsigned other = (h & 0x7fff) + (unsigned)step;
            if (other > 0x7bff) continue;
            double there = fabs(half_value((h & 0x8000) | other) - (double)f);
            assert_true(here < there || (here == there && (h & 1) == 0));
        }
    }
    assert_int_equal(dil__f16_from_f32(65519.0f), 0x7bff);
    assert_int_equal(dil__f16_from_f32(65520.0f), 0x7c00);
    assert_int_equal(dil__f16_from_f32(-1e30f), 0xfc00);
    assert_true(isnan(dil__f16_to_f32(dil__f16_from_f32(NAN))));
}

static void bfloat_keeps_the_upper_bits_rounded_to_even(void **state)
{
    (void)state;
    dil_rng r;
    dil_rng_init(&r, 8);
    for (int i = 0; i < 1000000; i++) {
        float f = dil__f32_from_bits((uint32_t)dil_rng_u64(&r));
        if (!(fabsf(f) < 3e38f)) continue;
        uint16_t h = dil__bf16_from_f32(f);
        double here = fabs((double)dil__bf16_to_f32(h) - (double)f);
        double up = fabs((double)dil__bf16_to_f32((uint16_t)(h + 1)) - (double)f);
        assert_true(here < up || (here == up && (h & 1) == 0));
    }
    assert_true(isnan(dil__bf16_to_f32(dil__bf16_from_f32(NAN))));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(half_to_float_is_exact_for_every_code),
        cmocka_unit_test(float_to_half_takes_the_nearest_and_ties_go_to_even),
        cmocka_unit_test(bfloat_keeps_the_upper_bits_rounded_to_even),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
