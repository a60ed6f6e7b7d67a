#include "quant/journal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char path[] = "/tmp/dil-journal-XXXXXX";

static dil__journal *open_ok(const char *header, bool resume)
{
    dil__journal *j = NULL;
    dil_err err;
    assert_int_equal(dil__journal_open(path, header, resume, &j, &err), DIL_OK);
    return j;
}

static void values_come_back_bit_for_bit(void **state)
{
    (void)state;
    dil__journal *j = open_ok("h", false);
    double v[3] = {1.0 / 3, -1e-300, 4e17}, got[3];
    assert_int_equal(dil__journal_put(j, "a:b", v, 3, NULL), DIL_OK);
    assert_int_equal(dil__journal_put(j, "c", v, 1, NULL), DIL_OK);
    dil__journal_close(j);
    j = open_ok("h", true);
    assert_int_equal(dil__journal_count(j), 2);
    assert_true(dil__journal_get(j, "a:b", got, 3));
    assert_memory_equal(v, got, sizeof v);
    assert_false(dil__journal_get(j, "a:b", got, 2));
    assert_false(dil__journal_get(j, "b", got, 1));
    dil__journal_close(j);
}

static void a_line_cut_short_anywhere_is_not_read(void **state)
{
    (void)state;
    dil__journal *j = open_ok("head", false);
    double v[2] = {12345.678, 9.25}, got[2];
    dil__journal_put(j, "one", v, 2, NULL);
    dil__journal_put(j, "two", v, 2, NULL);
    dil__journal_close(j);
    dil_buf whole;
    dil_buf_init(&whole, 4096);
    assert_int_equal(dil_file_read(path, &whole, NULL), DIL_OK);
    for (size_t len = 0; len <= whole.len; len++) {
        FILE *f = fopen(path, "w");
        fwrite(whole.data, 1, len, f);
        fclose(f);
        j = open_ok("head", true);
        if (dil__journal_get(j, "two", got, 2)) assert_int_equal(len, whole.len);
        char old[64];
        snprintf(old, sizeof old, "%s.old", path);
        unlink(old);
        if (dil__journal_get(j, "one", got, 2)) assert_memory_equal(got, v, sizeof v);
        dil__journal_put(j, "three", v, 1, NULL);
        dil__journal_close(j);
        j = open_ok("head", true);
        assert_true(dil__journal_get(j, "three", got, 1));
        dil__journal_close(j);
    }
    dil_buf_fini(&whole);
}

static void another_header_starts_anew(void **state)
{
    (void)state;
    double v = 1;
    dil__journal *j = open_ok("x", false);
    dil__journal_put(j, "k", &v, 1, NULL);
    dil__journal_close(j);
    j = open_ok("y", true);
    assert_false(dil__journal_get(j, "k", &v, 1));
    dil__journal_close(j);
    char old[64];
    snprintf(old, sizeof old, "%s.old", path);
    assert_true(dil_file_exists(old));
    unlink(old);
    j = open_ok("y", false);
    dil__journal_remove(j);
    assert_false(dil_file_exists(path));
}

static void rubbish_is_no_measurement(void **state)
{
    (void)state;
    FILE *f = fopen(path, "w");
    fputs("h\nkey 1 2 x\n 5\nok 7\nlong", f);
    for (int i = 0; i < 400; i++) fputs(" 1", f);
    fputs("\n\xff\xfe \n", f);
    fclose(f);
    dil__journal *j = open_ok("h", true);
    double v;
    assert_true(dil__journal_get(j, "ok", &v, 1) && v == 7);
    assert_false(dil__journal_get(j, "key", &v, 1));
    dil__journal_remove(j);
}

int main(void)
{
    int fd = mkstemp(path);
    if (fd < 0) return 1;
    close(fd);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_come_back_bit_for_bit), cmocka_unit_test(a_line_cut_short_anywhere_is_not_read),
        cmocka_unit_test(another_header_starts_anew), cmocka_unit_test(rubbish_is_no_measurement)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
