/* Status table and error text. */
#include <dilemma/base.h>

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static void every_status_has_a_name_and_an_exit_status_of_its_own(void **state)
{
    (void)state;
    for (int a = 0; a < DIL_N_STATUS; a++) {
        assert_string_not_equal(dil_status_name((dil_status)a), "unknown");
        int http = dil_status_http((dil_status)a);
        assert_true(a == DIL_OK ? http == 200 : http >= 400 && http < 600);
        for (int b = 0; b < a; b++) assert_int_not_equal(dil_status_exit((dil_status)a), dil_status_exit((dil_status)b));
    }
    assert_string_equal(dil_status_name((dil_status)DIL_N_STATUS), "unknown");
    assert_string_equal(dil_status_name((dil_status)-1), "unknown");
    assert_int_equal(dil_status_exit((dil_status)99), 70);
    assert_int_equal(dil_status_http((dil_status)99), 500);
}

static void text_and_code_are_kept_and_err_may_be_null(void **state)
{
    (void)state;
    dil_err err;
    assert_int_equal(dil_fail(&err, DIL_ELIMIT, "%s: %d of %d", "x", 3, 2), DIL_ELIMIT);
    assert_int_equal(err.code, DIL_ELIMIT);
    assert_string_equal(err.text, "x: 3 of 2");
    assert_int_equal(dil_fail(NULL, DIL_ENET, "nobody reads this"), DIL_ENET);
    errno = EACCES;
    assert_int_equal(dil_fail_errno(NULL, "x"), DIL_EIO);
}

static void errno_chooses_the_code(void **state)
{
    (void)state;
    dil_err err;
    static const struct { int e; dil_status s; } table[] = {{ENOENT, DIL_ENOTFOUND}, {ENOMEM, DIL_EMEMORY}, {EACCES, DIL_EIO}, {ENOSPC, DIL_EIO}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        errno = table[i].e;
        assert_int_equal(dil_fail_errno(&err, "file %d", 7), table[i].s);
        assert_memory_equal(err.text, "file 7: ", 8);
        assert_string_equal(err.text + 8, strerror(table[i].e));
    }
}

static void text_is_cut_at_its_maximum(void **state)
{
    (void)state;
    dil_err err;
    char big[2 * DIL_ERR_TEXT_MAX];
    memset(big, 'a', sizeof big);
    big[sizeof big - 1] = 0;
    dil_fail(&err, DIL_EIO, "%s", big);
    assert_int_equal(strlen(err.text), DIL_ERR_TEXT_MAX - 1);
    errno = EIO;
    dil_fail_errno(&err, "%s", big);
    assert_int_equal(strlen(err.text), DIL_ERR_TEXT_MAX - 1);
}

static void a_context_may_be_put_in_front(void **state)
{
    (void)state;
    dil_err err;
    dil_fail(&err, DIL_EIO, "inner");
    dil_fail(&err, err.code, "outer: %s", err.text);
    assert_string_equal(err.text, "outer: inner");
}

static void text_is_one_line_of_valid_utf8(void **state)
{
    (void)state;
    static const char *const in_out[][2] = {
        {"a\nb\tc\x1b[31md\x7f", "a b c [31md "},
        {"Grüße 世界 🚀", "Grüße 世界 🚀"},
        {"x\xff\xc3", "x??"},                     /* no lead byte, a cut sequence */
        {"\xc0\xaf|\xe0\x80\xaf", "??|???"},      /* overlong */
        {"\xed\xa0\x80|\xf4\x90\x80\x80", "???|????"}, /* a surrogate, beyond the last code point */
        {"a\xc2\x9b" "31m", "a  31m"},            /* the one-character form of ESC [ */
    };
    for (size_t i = 0; i < sizeof in_out / sizeof *in_out; i++) {
        dil_err err;
        dil_fail(&err, DIL_EFORMAT, "%s", in_out[i][0]);
        assert_string_equal(err.text, in_out[i][1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_status_has_a_name_and_an_exit_status_of_its_own),
        cmocka_unit_test(text_and_code_are_kept_and_err_may_be_null),
        cmocka_unit_test(errno_chooses_the_code),
        cmocka_unit_test(text_is_cut_at_its_maximum),
        cmocka_unit_test(a_context_may_be_put_in_front),
        cmocka_unit_test(text_is_one_line_of_valid_utf8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
