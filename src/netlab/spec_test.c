/* What lab.json and the words of `netlab set` mean, and what is refused. */
#include "netlab/lab.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static dil__lab_spec spec;
static dil_err err;

static dil_status parse(const char *text)
{
    return dil__lab_spec_parse("t", text, strlen(text), &spec, &err);
}

static void links_inherit_the_default_and_both_sets_two(void **state)
{
    (void)state;
    assert_int_equal(parse("{\"nodes\": [\"a\", \"b\", \"c\"], \"default\": {\"delay_ms\": 20, \"rate_mbit\": 100},"
                           "\"links\": [{\"from\": \"a\", \"to\": \"b\", \"loss\": 0.5, \"both\": true},"
                           "{\"from\": \"c\", \"to\": \"a\", \"delay_ms\": 1, \"down\": true}]}"), DIL_OK);
    assert_float_equal(spec.link[0][1].delay_sec, 0.02, 1e-12);
    assert_float_equal(spec.link[1][0].loss, 0.5, 0);
    assert_float_equal(spec.link[2][0].delay_sec, 0.001, 1e-12);
    assert_float_equal(spec.link[2][0].rate_bytes_per_sec, 12.5e6, 1e-6);
    assert_true(spec.link[2][0].down);
    assert_float_equal(spec.link[0][2].loss, 0, 0);
}

static void what_makes_no_sense_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "", "[]", "{}", "{\"nodes\": []}", "{\"nodes\": [\"a\", \"a\"]}", "{\"nodes\": [\"../x\"]}", "{\"nodes\": [7]}",
        "{\"nodes\": [\"a\"], \"links\": [{\"from\": \"a\", \"to\": \"a\"}]}", "{\"nodes\": [\"a\", \"b\"], \"links\": [{\"from\": \"a\", \"to\": \"z\"}]}",
        "{\"nodes\": [\"a\", \"b\"], \"default\": {\"loss\": 1.5}}", "{\"nodes\": [\"a\", \"b\"], \"default\": {\"delay_ms\": -1}}",
        "{\"nodes\": [\"a\", \"b\"], \"default\": {\"delay_ms\": 1e9}}", "{\"nodes\": [\"a\"], \"mtu\": 7}", "{\"nodes\": [\"a\"], \"links\": {}}",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (parse(bad[i]) == DIL_OK) fail_msg("taken: %s", bad[i]);
        assert_true(err.text[0] != 0);
    }
}

static void words_carry_units(void **state)
{
    (void)state;
    dil__lab_link l = {0};
    static const char *const good[] = {"delay=1500us", "rate=1gbit", "loss=2.5%", "queue=1MiB", "down"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) assert_int_equal(dil__lab_link_word(&l, good[i], &err), DIL_OK);
    assert_float_equal(l.delay_sec, 0.0015, 1e-12);
    assert_float_equal(l.rate_bytes_per_sec, 125e6, 1e-3);
    assert_float_equal(l.loss, 0.025, 1e-12);
    assert_int_equal(l.queue_bytes, 1048576);
    assert_true(l.down);
    assert_int_equal(dil__lab_link_word(&l, "up", &err), DIL_OK);
    assert_false(l.down);
    static const char *const bad[] = {"", "delay", "delay=", "delay=-1ms", "delay=5parsec", "loss=101%", "rate=nan", "delay=61s", "up=1", "x=1"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        dil__lab_link before = l;
        if (dil__lab_link_word(&l, bad[i], &err) == DIL_OK) fail_msg("taken: %s", bad[i]);
        assert_memory_equal(&before, &l, sizeof l);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(links_inherit_the_default_and_both_sets_two),
        cmocka_unit_test(what_makes_no_sense_is_refused),
        cmocka_unit_test(words_carry_units),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
