/* When a link counts as another one, and when a ring's rounds count as slow. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "net/linkwatch.h"

static bool differ(double ms, double mbit, double ms2, double mbit2)
{
    dil_cluster_link a = {.latency_sec = ms * 1e-3, .bytes_per_sec = mbit * 125e3}, b = {.latency_sec = ms2 * 1e-3, .bytes_per_sec = mbit2 * 125e3};
    bool one = dil__link_differs(&a, &b);
    assert_int_equal(one, dil__link_differs(&b, &a)); /* there and back */
    return one;
}

static void a_link_is_another_one_by_half_and_where_it_matters(void **state)
{
    (void)state;
    assert_true(differ(5, 1000, 20, 1000));
    assert_true(differ(0.1, 1000, 5, 1000));
    assert_true(differ(5, 1000, 5, 50));     /* a chunk of a prompt takes ten milliseconds more */
    assert_true(differ(1, 100, 1, 10));
    assert_false(differ(5, 1000, 6.5, 1000)); /* less than half */
    assert_false(differ(0.05, 1000, 0.4, 1000)); /* eight times, and nobody notices */
    assert_false(differ(5, 10000, 5, 900));   /* a chunk takes half a millisecond more */
    assert_false(differ(20, 1000, 20, 60));   /* eight milliseconds beside a round trip of 40 are not told apart for sure */
    assert_false(differ(5, 100, 5, 100));
}

static void rounds_are_slow_at_the_third_look_and_once(void **state)
{
    (void)state;
    dil__round_watch w = {0};
    for (int i = 0; i < 10; i++) assert_false(dil__round_is_slow(&w, 0.010 + 0.0005 * (i % 3)));
    assert_false(dil__round_is_slow(&w, 0.080)); /* one hiccup */
    assert_false(dil__round_is_slow(&w, 0));     /* nothing decoded: not a look */
    assert_false(dil__round_is_slow(&w, 0.010));
    assert_false(dil__round_is_slow(&w, 0.050));
    assert_false(dil__round_is_slow(&w, 0.050));
    assert_true(dil__round_is_slow(&w, 0.050));
    for (int i = 0; i < 20; i++) assert_false(dil__round_is_slow(&w, 0.051)); /* asked for once */
    for (int i = 0; i < 20; i++) assert_false(dil__round_is_slow(&w, 0.010)); /* better again: forgotten soon */
    assert_false(dil__round_is_slow(&w, 0.050));
    assert_false(dil__round_is_slow(&w, 0.050));
    assert_true(dil__round_is_slow(&w, 0.050));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_link_is_another_one_by_half_and_where_it_matters),
        cmocka_unit_test(rounds_are_slow_at_the_third_look_and_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
