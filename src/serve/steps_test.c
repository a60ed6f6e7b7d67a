/* A step is done only while both what goes in and what came out are the same. */
#include "serve/steps.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static char dir[] = "/tmp/steps_test_XXXXXX", record[64], output[64];
static dil_err err;

static bool done(const char *version, double value)
{
    dil__steps *s;
    dil__key k;
    assert_int_equal(dil__steps_open(record, &s, &err), DIL_OK);
    dil__key_init(&k, version);
    dil__key_num(&k, value);
    bool is = dil__steps_done(s, "plan", &k, output);
    dil__key_fini(&k);
    dil__steps_close(s);
    return is;
}

static void a_step_is_done_until_something_changes(void **state)
{
    (void)state;
    assert_int_equal(dil_file_write(output, "result", 6, &err), DIL_OK);
    assert_false(done("plan 1", 0.5));
    dil__steps *s;
    dil__key k;
    assert_int_equal(dil__steps_open(record, &s, &err), DIL_OK);
    dil__key_init(&k, "plan 1");
    dil__key_num(&k, 0.5);
    assert_int_equal(dil__steps_record(s, "plan", &k, output, &err), DIL_OK);
    dil__key_fini(&k);
    dil__steps_close(s);
    assert_true(done("plan 1", 0.5));
    assert_false(done("plan 1", 0.25));
    assert_false(done("plan 2", 0.5));
    assert_int_equal(dil_file_write(output, "resulT", 6, &err), DIL_OK);
    assert_false(done("plan 1", 0.5));
    assert_int_equal(dil_file_write(output, "result", 6, &err), DIL_OK);
    assert_true(done("plan 1", 0.5));
    unlink(output);
    assert_false(done("plan 1", 0.5));
}

static void a_broken_record_is_moved_aside(void **state)
{
    (void)state;
    char bad[80];
    snprintf(bad, sizeof bad, "%s.bad", record);
    assert_int_equal(dil_file_write(record, "{\"plan\":", 8, &err), DIL_OK);
    assert_false(done("plan 1", 0.5));
    assert_true(dil_file_exists(bad) && !dil_file_exists(record));
    unlink(bad);
}

int main(void)
{
    if (!mkdtemp(dir)) return 1;
    snprintf(record, sizeof record, "%s/steps.json", dir);
    snprintf(output, sizeof output, "%s/out", dir);
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_step_is_done_until_something_changes), cmocka_unit_test(a_broken_record_is_moved_aside)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(record);
    unlink(output);
    rmdir(dir);
    return failed;
}
