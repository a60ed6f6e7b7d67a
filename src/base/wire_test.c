/* Hidden states on the wire: rounded as the types say, and never to infinity. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/wire.h"

#include <math.h>
#include <string.h>

static void values_come_back_within_half_a_step(void **state)
{
    (void)state;
    static const struct { dil_type type; double bits; } types[] = {{DIL_TYPE_F16, 11}, {DIL_TYPE_BF16, 8}, {DIL_TYPE_F32, 60}};
    for (int t = 0; t < 3; t++) {
        float x[501], y[501];
        uint8_t wire[sizeof x];
        for (int i = 0; i < 501; i++) x[i] = (i % 2 ? 1.0f : -1.0f) * expf((float)(i - 100) / 40) * (1 + (float)(i % 7) / 9);
        x[3] = 0;
        dil_err err;
        assert_int_equal(dil__wire_narrow(types[t].type, x, 501, wire, &err), DIL_OK);
        dil__wire_widen(types[t].type, wire, 501, y);
        for (int i = 0; i < 501; i++) assert_true(fabs((double)(y[i] - x[i])) <= fabs((double)x[i]) * pow(2, -types[t].bits));
    }
}

static void what_does_not_fit_is_said_and_not_made_infinite(void **state)
{
    (void)state;
    float x[3] = {1, -65504, 3};
    uint8_t wire[sizeof x];
    dil_err err;
    assert_int_equal(dil__wire_narrow(DIL_TYPE_F16, x, 3, wire, &err), DIL_OK);
    x[1] = -65520; /* rounds beyond the largest */
    assert_int_equal(dil__wire_narrow(DIL_TYPE_F16, x, 3, wire, &err), DIL_EDATA);
    assert_non_null(strstr(err.text, "-65520"));
    assert_int_equal(dil__wire_narrow(DIL_TYPE_BF16, x, 3, wire, &err), DIL_OK);
    x[1] = 3.4e38f;
    assert_int_equal(dil__wire_narrow(DIL_TYPE_BF16, x, 3, wire, &err), DIL_EDATA);
    assert_int_equal(dil__wire_narrow(DIL_TYPE_F32, x, 3, wire, &err), DIL_OK);
    dil_type type;
    assert_true(dil__wire_from_name("bf16", &type) && type == DIL_TYPE_BF16);
    assert_false(dil__wire_from_name("q4_0", &type));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_come_back_within_half_a_step),
        cmocka_unit_test(what_does_not_fit_is_said_and_not_made_infinite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
