/* What a retry gets: the tokens that were there, over a restart too, and never another request's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "serve/retry.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char path[256];

static dil__retry *open_table(void)
{
    dil__retry *t = NULL;
    dil_err err = {0};
    if (dil__retry_open(path, &t, &err) != DIL_OK) fail_msg("%s", err.text);
    return t;
}

static dil__retry_run *begin(dil__retry *t, const char *key, const char *body, uint64_t *seed, dil_status want)
{
    dil__retry_run *r = NULL;
    assert_int_equal(dil__retry_begin(t, key, body, strlen(body), seed, &r, NULL), want);
    return r;
}

static void tokens(dil__retry_run *r, uint32_t from, uint32_t to)
{
    for (uint32_t i = from; i < to; i++) dil__retry_note(r, &(dil_gen_event){.kind = DIL_GEN_TOKEN, .token = (int32_t)(100 + i), .n_generated = i + 1});
}

static void expect(const dil__retry_run *r, uint32_t n, bool stopped)
{
    uint32_t have;
    bool end;
    const int32_t *token = dil__retry_known(r, &have, &end);
    assert_int_equal(have, n);
    assert_int_equal(end, stopped);
    for (uint32_t i = 0; i < n; i++) assert_int_equal(token[i], 100 + i);
}

static void a_cut_off_answer_goes_on_after_a_restart(void **state)
{
    (void)state;
    unlink(path);
    dil__retry *t = open_table();
    uint64_t seed = 77, other = 5;
    dil__retry_run *r = begin(t, "k1", "body", &seed, DIL_OK);
    expect(r, 0, false);
    tokens(r, 0, 10);
    begin(t, "k1", "body", &other, DIL_EBUSY);
    begin(t, "k1", "another", &other, DIL_EUSAGE);
    dil__retry_leave(r);
    dil__retry_close(t); /* not in order: nothing was finished */
    FILE *f = fopen(path, "a");
    fputs("T 00ff", f); /* a line that a kill cut off, behind it nothing */
    fclose(f);

    t = open_table();
    other = 5;
    r = begin(t, "k1", "body", &other, DIL_OK);
    assert_int_equal(other, 77);
    expect(r, 10, false);
    tokens(r, 0, 20); /* the known ones come again as events */
    dil__retry_note(r, &(dil_gen_event){.kind = DIL_GEN_DONE, .finish = DIL_FINISH_STOP, .n_generated = 20});
    dil__retry_leave(r);
    dil__retry_close(t);

    t = open_table();
    r = begin(t, "k1", "body", &other, DIL_OK);
    expect(r, 20, true);
    dil__retry_leave(r);
    dil__retry_close(t);
    unlink(path);
}

static void an_error_or_a_cancel_ends_nothing(void **state)
{
    (void)state;
    unlink(path);
    dil__retry *t = open_table();
    uint64_t seed = 1;
    dil__retry_run *r = begin(t, "k", "b", &seed, DIL_OK);
    tokens(r, 0, 3);
    dil__retry_note(r, &(dil_gen_event){.kind = DIL_GEN_DONE, .finish = DIL_FINISH_CANCELED, .n_generated = 3});
    dil__retry_note(r, &(dil_gen_event){.kind = DIL_GEN_ERROR, .n_generated = 3});
    dil__retry_leave(r);
    r = begin(t, "k", "b", &seed, DIL_OK);
    expect(r, 3, false);
    dil__retry_leave(r);
    dil__retry_close(t);
    unlink(path);
}

static void the_oldest_go_first_and_busy_ones_stay(void **state)
{
    (void)state;
    dil__retry *t = NULL;
    assert_int_equal(dil__retry_open(NULL, &t, NULL), DIL_OK);
    uint64_t seed = 1;
    char key[32];
    dil__retry_run *held = begin(t, "held", "b", &seed, DIL_OK);
    tokens(held, 0, 5);
    for (int i = 0; i < 3 * DIL__RETRY_ENTRIES_MAX; i++) {
        snprintf(key, sizeof key, "k%d", i);
        dil__retry_run *r = begin(t, key, "b", &seed, DIL_OK);
        tokens(r, 0, 2);
        dil__retry_leave(r);
    }
    expect(held, 5, false);
    dil__retry_run *last = begin(t, key, "b", &seed, DIL_OK), *first = begin(t, "k0", "b", &seed, DIL_OK);
    expect(last, 2, false);
    expect(first, 0, false);
    dil__retry_close(t); /* the held ones keep it */
    tokens(held, 5, 6);
    dil__retry_leave(last);
    dil__retry_leave(first);
    dil__retry_leave(held);
}

static void garbage_in_the_file_is_passed_over(void **state)
{
    (void)state;
    dil_rng rng;
    dil_rng_init(&rng, 4);
    for (int round = 0; round < 200; round++) {
        FILE *f = fopen(path, "w");
        for (uint64_t n = dil_rng_below(&rng, 400); n > 0; n--) fputc("RTE 09af\n-x\0"[dil_rng_below(&rng, 12)], f);
        fclose(f);
        dil__retry_close(open_table());
    }
    unlink(path);
}

int main(void)
{
    const char *dir = getenv("TMPDIR");
    snprintf(path, sizeof path, "%s/dilemma-retry-%ld", dir ? dir : "/tmp", (long)getpid());
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_cut_off_answer_goes_on_after_a_restart),
        cmocka_unit_test(an_error_or_a_cancel_ends_nothing),
        cmocka_unit_test(the_oldest_go_first_and_busy_ones_stay),
        cmocka_unit_test(garbage_in_the_file_is_passed_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
