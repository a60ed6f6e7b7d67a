/* Slow nodes are found, busy machines and changed batches are not taken for them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "net/tempo.h"

enum { MS = 1000000 };
#define BYTES 1e7

static void works(dil__tempo *p, uint32_t n, uint32_t n_tokens, uint64_t ns)
{
    for (uint32_t i = 0; i < n; i++) dil__tempo_note(p, n_tokens, ns);
}

/* Two nodes; returns the look at which the first is called slow, 0: never. */
static int looks_until_slow(dil__tempo_watch w[2], dil__tempo p[2], uint32_t n_tokens, uint64_t ns_first, uint64_t ns_second, double measured)
{
    double slower;
    for (int look = 1; look <= 10; look++) {
        works(&p[0], 20, n_tokens, ns_first);
        works(&p[1], 20, n_tokens, ns_second);
        for (int i = 0; i < 2; i++) assert_true(dil__tempo_look(&w[i], &p[i], BYTES, measured));
        double least = w[0].factor < w[1].factor ? w[0].factor : w[1].factor;
        assert_false(dil__tempo_is_slow(&w[1], least, &slower));
        if (dil__tempo_is_slow(&w[0], least, &slower)) {
            assert_true(slower > 5 && slower < 12);
            return look;
        }
    }
    return 0;
}

static void a_node_that_becomes_ten_times_slower_is_found(void **state)
{
    (void)state;
    dil__tempo_watch w[2] = {0};
    dil__tempo p[2] = {0};
    assert_int_equal(looks_until_slow(w, p, 1, 4 * MS, 4 * MS, 0), 0);
    assert_int_equal(looks_until_slow(w, p, 1, 40 * MS, 4 * MS, 0), 3);
}

static void a_node_slower_than_measured_is_found_from_the_start(void **state)
{
    (void)state;
    dil__tempo_watch w[2] = {0};
    dil__tempo p[2] = {0};
    assert_int_equal(looks_until_slow(w, p, 1, 40 * MS, 4 * MS, BYTES / 4e-3), 3);
}

static void what_slows_all_is_nobodys_fault(void **state)
{
    (void)state;
    dil__tempo_watch w[2] = {0};
    dil__tempo p[2] = {0};
    assert_int_equal(looks_until_slow(w, p, 1, 4 * MS, 4 * MS, 0), 0);
    assert_int_equal(looks_until_slow(w, p, 1, 40 * MS, 30 * MS, 0), 0);
}

static void larger_works_are_compared_with_their_like(void **state)
{
    (void)state;
    dil__tempo_watch w[2] = {0};
    dil__tempo p[2] = {0};
    assert_int_equal(looks_until_slow(w, p, 1, 4 * MS, 4 * MS, 0), 0);
    assert_int_equal(looks_until_slow(w, p, 8, 30 * MS, 4 * MS, 0), 0); /* one node profits less from batches */
    works(&p[0], 5, 100, 900 * MS);                                     /* a prompt says nothing */
    assert_false(dil__tempo_look(&w[0], &p[0], BYTES, 0));
}

static void a_new_session_starts_over(void **state)
{
    (void)state;
    dil__tempo_watch w[2] = {0};
    dil__tempo p[2] = {0};
    assert_int_equal(looks_until_slow(w, p, 1, 4 * MS, 4 * MS, 0), 0);
    p[0] = (dil__tempo){0};
    works(&p[0], 5, 1, 4 * MS);
    assert_false(dil__tempo_look(&w[0], &p[0], BYTES, 0));
    works(&p[0], 5, 1, 4 * MS);
    assert_true(dil__tempo_look(&w[0], &p[0], BYTES, 0));
    assert_true(w[0].factor < 1.01);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_node_that_becomes_ten_times_slower_is_found),
        cmocka_unit_test(a_node_slower_than_measured_is_found_from_the_start),
        cmocka_unit_test(what_slows_all_is_nobodys_fault),
        cmocka_unit_test(larger_works_are_compared_with_their_like),
        cmocka_unit_test(a_new_session_starts_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
