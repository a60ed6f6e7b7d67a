/* What the page may ask when it enrols a machine. */
#include "serve/enrol.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static dil_status parse(const char *body, dil__enrol *out, const char **param)
{
    dil_err err;
    return dil__enrol_parse(body, strlen(body), out, param, &err);
}

static void addresses_get_the_usual_port(void **state)
{
    (void)state;
    static const char *const pair[][2] = {{"10.0.0.2", "10.0.0.2:7100"}, {"10.0.0.2:7105", "10.0.0.2:7105"}, {"pi.local", "pi.local:7100"}, {"[fe80::1]", "[fe80::1]:7100"}, {"[fe80::1]:9", "[fe80::1]:9"}};
    for (size_t i = 0; i < sizeof pair / sizeof *pair; i++) {
        char body[256];
        dil__enrol e;
        const char *param;
        snprintf(body, sizeof body, "{\"address\": \"%s\", \"code\": \"4821-7736\"}", pair[i][0]);
        assert_int_equal(parse(body, &e, &param), DIL_OK);
        assert_string_equal(e.address, pair[i][1]);
        assert_string_equal(e.code, "48217736");
        assert_string_equal(e.name, "");
    }
}

static void what_is_wrong_is_named(void **state)
{
    (void)state;
    static const char *const wrong[][2] = {
        {"{\"code\": \"48217736\"}", "address"}, {"{\"address\": \"\", \"code\": \"48217736\"}", "address"}, {"{\"address\": 1, \"code\": \"48217736\"}", "address"},
        {"{\"address\": \"a\"}", "code"}, {"{\"address\": \"a\", \"code\": 48217736}", "code"}, {"{\"address\": \"a\", \"code\": \"4821773\"}", "code"},
        {"{\"address\": \"a\", \"code\": \"48217736\", \"name\": \"../b\"}", "name"}, {"{\"address\": \"a\", \"code\": \"48217736\", \"name\": 7}", "name"}};
    dil__enrol e = {.name = "untouched"};
    const char *param;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(parse(wrong[i][0], &e, &param), DIL_EFORMAT);
        assert_string_equal(param, wrong[i][1]);
    }
    assert_int_equal(parse("[", &e, &param), DIL_EFORMAT);
    assert_null(param);
    assert_int_equal(parse("[]", &e, &param), DIL_EFORMAT);
    char body[400], host[300];
    memset(host, 'h', sizeof host - 1);
    host[sizeof host - 1] = 0;
    for (size_t n = 100; n < 140; n++) { /* as long as one may be, and longer */
        snprintf(body, sizeof body, "{\"address\": \"%.*s\", \"code\": \"48217736\", \"name\": null}", (int)n, host);
        dil_status s = parse(body, &e, &param);
        assert_int_equal(s, n + 5 < DIL_PAIR_ADDRESS_MAX ? DIL_OK : DIL_EFORMAT);
        if (s == DIL_OK) assert_int_equal(strlen(e.address), n + 5);
    }
}

static void a_folder_without_nodes_has_none(void **state)
{
    (void)state;
    json_t *list = dil__enrolled_json("/nonexistent/folder");
    assert_int_equal(json_array_size(list), 0);
    assert_true(json_is_array(list));
    json_decref(list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(addresses_get_the_usual_port), cmocka_unit_test(what_is_wrong_is_named), cmocka_unit_test(a_folder_without_nodes_has_none)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
