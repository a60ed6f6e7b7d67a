/* CPace against the vectors of draft-irtf-cfrg-cpace, and what a wrong input changes. */
#include "enrol/cpace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void bytes(const char *hex, uint8_t *out)
{
    for (size_t i = 0; hex[2 * i]; i++) {
        unsigned v;
        assert_int_equal(sscanf(hex + 2 * i, "%2x", &v), 1);
        out[i] = (uint8_t)v;
    }
}

static const char ci[] = "\x0b" "A_initiator" "\x0b" "B_responder";

static void begin(dil__cpace *c, bool initiator, const char *scalar_hex, const char *ad)
{
    uint8_t scalar[32], sid[16];
    bytes(scalar_hex, scalar);
    bytes("7e4b4791d6a8ef019b936c79fb7f2c57", sid);
    dil__cpace_begin_with(c, scalar, initiator, "Password", 8, ci, strlen(ci), sid, sizeof sid, ad, strlen(ad));
}

static void the_drafts_vectors(void **state)
{
    (void)state;
    dil__cpace a, b;
    uint8_t want[64];
    begin(&a, true, "da3d23700a9e5699258aef94dc060dfda5ebb61f02a5ea77fad53f4ff0976d08", "ADa");
    bytes("d6bac480f2c386c394efc7c47adb9925dcd2630b64f240c50f8d0eec482b9157", want);
    assert_memory_equal(a.own, want, 32);
    begin(&b, false, "d2316b454718c35362d83d69df6320f38578ed5984651435e2949762d900b80d", "ADb");
    bytes("3ea7e0b19560d7c0b0f5734f63b955286dfa8232b5ebe63324e2d9e7433f7258", want);
    assert_memory_equal(b.own, want, 32);
    assert_true(dil__cpace_meet(&a, b.own, "ADb", 3));
    assert_true(dil__cpace_meet(&b, a.own, "ADa", 3));
    bytes("b69effbf61b51d56401c0f65601abe428de8206feaaf0e32198896dcae7b35cd2b38950a39dfd5d4a79164614c2984f7daa460b588c1e80c3fa2068af7900447", want);
    assert_memory_equal(a.isk, want, 64);
    assert_memory_equal(b.isk, want, 64);
}

/* Points that an attacker could force a known key with. */
static void points_that_are_none_end_the_run(void **state)
{
    (void)state;
    uint8_t bad[32] = {0};
    dil__cpace c;
    dil__cpace_begin(&c, true, "12345678", 8, "ci", 2, "sid", 3, "a", 1);
    assert_false(dil__cpace_meet(&c, bad, "b", 1)); /* neutral */
    memset(bad, 0xff, sizeof bad);
    assert_false(dil__cpace_meet(&c, bad, "b", 1)); /* not canonical */
    bytes("0100000000000000000000000000000000000000000000000000000000000000", bad);
    assert_false(dil__cpace_meet(&c, bad, "b", 1)); /* negative */
    char long_ad[DIL__CPACE_AD_MAX + 1] = {0};
    assert_false(dil__cpace_meet(&c, c.own, long_ad, sizeof long_ad));
    dil__cpace_end(&c);
    assert_int_equal(c.scalar[0] | c.mac_key[0], 0);
}

typedef struct input {
    const char *code, *ci, *sid, *told_ad;
} input;

/* Runs A against B, who has other inputs; whether each believes the other. */
static bool agree(input x, input y)
{
    dil__cpace a, b;
    uint8_t ta[DIL__CPACE_TAG], tb[DIL__CPACE_TAG];
    dil__cpace_begin(&a, true, x.code, strlen(x.code), x.ci, strlen(x.ci), x.sid, strlen(x.sid), "alice", 5);
    dil__cpace_begin(&b, false, y.code, strlen(y.code), y.ci, strlen(y.ci), y.sid, strlen(y.sid), "bob", 3);
    assert_true(dil__cpace_meet(&a, b.own, x.told_ad, strlen(x.told_ad)));
    assert_true(dil__cpace_meet(&b, a.own, y.told_ad, strlen(y.told_ad)));
    dil__cpace_tag(&a, NULL, ta);
    dil__cpace_tag(&b, NULL, tb);
    bool ab = dil__cpace_check(&b, NULL, ta), ba = dil__cpace_check(&a, NULL, tb);
    assert_int_equal(ab, ba);
    assert_false(dil__cpace_check(&a, NULL, ta)); /* one's own tag sent back */
    assert_false(dil__cpace_check(&a, "more", tb));
    dil__cpace_tag(&b, "more", tb);
    assert_int_equal(dil__cpace_check(&a, "more", tb), ab);
    return ab;
}

static void every_input_counts(void **state)
{
    (void)state;
    input x = {"12345678", "ci", "sid", "bob"}, y = {"12345678", "ci", "sid", "alice"};
    assert_true(agree(x, y));
    assert_false(agree(x, (input){"12345679", "ci", "sid", "alice"}));
    assert_false(agree(x, (input){"12345678", "cj", "sid", "alice"}));
    assert_false(agree(x, (input){"12345678", "ci", "sie", "alice"}));
    assert_false(agree(x, (input){"12345678", "ci", "sid", "mallory"}));
    assert_false(agree((input){"12345678", "ci", "sid", "mallory"}, y));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_drafts_vectors), cmocka_unit_test(points_that_are_none_end_the_run), cmocka_unit_test(every_input_counts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
