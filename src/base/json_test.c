/* The JSON getters: errors name place and key, numbers keep to their ranges. */
#include "base/json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static json_t *doc;
static dil_err err;

static int parse_doc(void **state)
{
    (void)state;
    static const char text[] = "{\"i\": 7, \"r\": 6.0, \"big\": 1e300, \"half\": 0.5, \"s\": \"text\", \"t\": true, \"n\": null, \"o\": {}, \"a\": []}";
    return dil__json_parse("doc", text, sizeof text - 1, &doc, NULL);
}

static int free_doc(void **state)
{
    (void)state;
    json_decref(doc);
    return 0;
}

static void integers_keep_to_their_range(void **state)
{
    (void)state;
    int64_t v = 99;
    assert_int_equal(dil__json_int(doc, "i", "w", 0, 10, &v, &err), DIL_OK);
    assert_int_equal(v, 7);
    assert_int_equal(dil__json_int(doc, "r", "w", 0, 10, &v, &err), DIL_OK); /* 6.0 is an integer to people */
    assert_int_equal(v, 6);
    assert_int_equal(dil__json_int(doc, "i", "w", 8, 10, &v, &err), DIL_EFORMAT);
    assert_string_equal(err.text, "w: \"i\" is 7, allowed 8 to 10");
    assert_int_equal(dil__json_int(doc, "half", "w", 0, 10, &v, &err), DIL_EFORMAT);
    assert_int_equal(dil__json_int(doc, "big", "w", INT64_MIN, INT64_MAX, &v, &err), DIL_EFORMAT);
    assert_int_equal(dil__json_int(doc, "s", "w", 0, 10, &v, &err), DIL_EFORMAT);
    assert_string_equal(err.text, "w: \"s\" is a string, expected an integer");
    assert_int_equal(dil__json_int(doc, "x", "w", 0, 10, &v, &err), DIL_EFORMAT);
    assert_string_equal(err.text, "w: \"x\" is missing");
    assert_int_equal(v, 6); /* outputs are written on success alone */
}

static void types_are_checked(void **state)
{
    (void)state;
    double d;
    const char *s;
    json_t *j;
    bool b;
    assert_int_equal(dil__json_num(doc, "half", "w", &d, &err), DIL_OK);
    assert_true(d == 0.5);
    assert_int_equal(dil__json_num(doc, "t", "w", &d, &err), DIL_EFORMAT);
    assert_int_equal(dil__json_str(doc, "s", "w", &s, &err), DIL_OK);
    assert_string_equal(s, "text");
    assert_int_equal(dil__json_str(doc, "n", "w", &s, &err), DIL_EFORMAT);
    assert_string_equal(err.text, "w: \"n\" is null, expected a string");
    assert_int_equal(dil__json_obj(doc, "o", "w", &j, &err), DIL_OK);
    assert_int_equal(dil__json_obj(doc, "a", "w", &j, &err), DIL_EFORMAT);
    assert_int_equal(dil__json_arr(doc, "a", "w", &j, &err), DIL_OK);
    assert_int_equal(dil__json_arr(doc, "o", "w", &j, &err), DIL_EFORMAT);
    assert_int_equal(dil__json_bool_or(doc, "t", "w", false, &b, &err), DIL_OK);
    assert_true(b);
    assert_int_equal(dil__json_bool_or(doc, "i", "w", false, &b, &err), DIL_EFORMAT);
    assert_int_equal(dil__json_num(json_null(), "x", "w", &d, &err), DIL_EFORMAT); /* no object at all */
}

static void absent_and_null_take_the_default(void **state)
{
    (void)state;
    static const char *const keys[] = {"x", "n"};
    for (int i = 0; i < 2; i++) {
        double d;
        int64_t v;
        const char *s;
        bool b;
        assert_true(dil__json_num_or(doc, keys[i], "w", 1.5, &d, &err) == DIL_OK && d == 1.5);
        assert_true(dil__json_int_or(doc, keys[i], "w", 0, 1, 9, &v, &err) == DIL_OK && v == 9);
        assert_true(dil__json_str_or(doc, keys[i], "w", NULL, &s, &err) == DIL_OK && !s);
        assert_true(dil__json_bool_or(doc, keys[i], "w", true, &b, &err) == DIL_OK && b);
    }
}

static void broken_text_is_named_by_line(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "{", "{\"a\": 1,}", "{\"a\": 1} x", "{\"a\": 1, \"a\": 2}", "\"\xff\"", "1e999", "[1"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        json_t *j = NULL;
        assert_int_equal(dil__json_parse("f.json", bad[i], strlen(bad[i]), &j, &err), DIL_EFORMAT);
        assert_memory_equal(err.text, "f.json: line 1", 14);
    }
    size_t n = 1000000; /* nesting that would exhaust a recursive parser without a limit */
    char *deep = malloc(n);
    memset(deep, '[', n);
    json_t *j = NULL;
    assert_int_equal(dil__json_parse("f.json", deep, n, &j, &err), DIL_EFORMAT);
    free(deep);
}

static void files_round_trip_and_are_bounded(void **state)
{
    (void)state;
    char path[64];
    snprintf(path, sizeof path, "/tmp/dilemma-json-%ld", (long)getpid());
    assert_int_equal(dil__json_save(path, doc, &err), DIL_OK);
    json_t *back = NULL;
    assert_int_equal(dil__json_load(path, 1 << 20, &back, &err), DIL_OK);
    assert_true(json_equal(doc, back));
    json_decref(back);
    assert_int_equal(dil__json_load(path, 10, &back, &err), DIL_ELIMIT);
    unlink(path);
    assert_int_equal(dil__json_load(path, 10, &back, &err), DIL_ENOTFOUND);
    assert_int_equal(dil__json_save("/dev/full", doc, &err), DIL_EIO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers_keep_to_their_range),
        cmocka_unit_test(types_are_checked),
        cmocka_unit_test(absent_and_null_take_the_default),
        cmocka_unit_test(broken_text_is_named_by_line),
        cmocka_unit_test(files_round_trip_and_are_bounded),
    };
    return cmocka_run_group_tests(tests, parse_doc, free_doc);
}
