/* However the bytes are cut into tokens, the text is the same, always whole characters, never a stop string. */
#define _GNU_SOURCE
#include "serve/textout.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static bool well_formed(const uint8_t *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        int len = dil__utf8_len(s + i, n - i);
        if (len <= 0) return false;
        i += (size_t)len;
    }
    return true;
}

/* Pushes text in pieces of the given lengths (cycled) and checks every piece that comes out. */
static void run(const char *text, size_t n, const char *const *stop, const size_t *stop_len, size_t n_stop, dil_rng *rng, dil_buf *all)
{
    dil__textout t;
    dil__textout_init(&t, stop, stop_len, n_stop);
    dil_buf_init(all, 1 << 20);
    bool stopped = false;
    for (size_t i = 0; i < n && !stopped;) {
        size_t k = rng ? 1 + dil_rng_below(rng, 5) : n;
        if (k > n - i) k = n - i;
        size_t before = all->len;
        stopped = dil__textout_push(&t, text + i, k, all);
        if (all->len > before) assert_true(well_formed(all->data + before, all->len - before));
        i += k;
    }
    if (!stopped) dil__textout_flush(&t, all);
    dil__textout_fini(&t);
}

static void text_does_not_depend_on_where_tokens_end(void **state)
{
    (void)state;
    const char *stop[] = {"<end>", "\xe2\x82\xac\xe2\x82\xac"};
    size_t len[] = {5, 6};
    for (uint64_t seed = 1; seed <= 3000; seed++) {
        dil_rng r;
        dil_rng_init(&r, seed);
        static const char *const part[] = {"a", "<", "<e", "<end", "end>", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\xff", "\xe2\x82", "\x80", " "};
        char text[128];
        size_t n = 0;
        while (n < 60) {
            const char *p = part[dil_rng_below(&r, sizeof part / sizeof part[0])];
            memcpy(text + n, p, strlen(p));
            n += strlen(p);
        }
        dil_buf cut, whole;
        run(text, n, stop, len, 2, &r, &cut);
        run(text, n, stop, len, 2, NULL, &whole);
        if (cut.len != whole.len || (cut.len && memcmp(cut.data, whole.data, cut.len) != 0)) fail_msg("seed %llu", (unsigned long long)seed);
        if (cut.len && memmem(cut.data, cut.len, "<end>", 5)) fail_msg("a stop string came out: seed %llu", (unsigned long long)seed);
        dil_buf_fini(&cut);
        dil_buf_fini(&whole);
    }
}

static void a_stop_string_may_span_tokens(void **state)
{
    (void)state;
    const char *stop[] = {"\n\nQ:"};
    size_t len[] = {4};
    dil__textout t;
    dil_buf out;
    dil_buf_init(&out, 1 << 16);
    dil__textout_init(&t, stop, len, 1);
    assert_false(dil__textout_push(&t, "yes\n", 4, &out));
    assert_string_equal(dil_buf_str(&out), "yes");
    assert_false(dil__textout_push(&t, "\n", 1, &out));
    assert_false(dil__textout_push(&t, "\nQ", 2, &out)); /* "\n\n\nQ": the first line break is free */
    assert_string_equal(dil_buf_str(&out), "yes\n");
    assert_true(dil__textout_push(&t, ": more", 6, &out));
    assert_string_equal(dil_buf_str(&out), "yes\n");
    assert_true(dil__textout_push(&t, "x", 1, &out));
    dil__textout_flush(&t, &out);
    assert_string_equal(dil_buf_str(&out), "yes\n");
    dil__textout_fini(&t);
    dil_buf_fini(&out);
}

static void what_was_held_back_comes_at_the_end(void **state)
{
    (void)state;
    const char *stop[] = {"STOP"};
    size_t len[] = {4};
    dil__textout t;
    dil_buf out;
    dil_buf_init(&out, 1 << 16);
    dil__textout_init(&t, stop, len, 1);
    assert_false(dil__textout_push(&t, "go STO", 6, &out));
    assert_false(dil__textout_push(&t, "\xf0\x9f\x98", 3, &out));
    dil__textout_flush(&t, &out);
    assert_string_equal(dil_buf_str(&out), "go STO\xef\xbf\xbd");
    dil__textout_fini(&t);
    dil_buf_fini(&out);
}

/* Unicode 15, table 3-7 and the cases around its borders. */
static void utf8_lengths_are_the_standard_s(void **state)
{
    (void)state;
    static const struct { const char *s; size_t n; int len; } c[] = {
        {"a", 1, 1}, {"\xc2\x80", 2, 2}, {"\xc1\xbf", 2, 0}, {"\xe0\xa0\x80", 3, 3}, {"\xe0\x9f\xbf", 3, 0}, {"\xed\x9f\xbf", 3, 3},
        {"\xed\xa0\x80", 3, 0}, {"\xef\xbf\xbf", 3, 3}, {"\xf0\x90\x80\x80", 4, 4}, {"\xf0\x8f\xbf\xbf", 4, 0}, {"\xf4\x8f\xbf\xbf", 4, 4},
        {"\xf4\x90\x80\x80", 4, 0}, {"\xf5\x80\x80\x80", 4, 0}, {"\x80", 1, 0}, {"\xe2", 1, -1}, {"\xe2\x82", 2, -1}, {"\xf0\x9f\x98", 3, -1},
        {"\xe2\x41", 2, 0},
    };
    for (size_t i = 0; i < sizeof c / sizeof c[0]; i++) {
        if (dil__utf8_len((const uint8_t *)c[i].s, c[i].n) != c[i].len) fail_msg("case %zu", i);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_does_not_depend_on_where_tokens_end),
        cmocka_unit_test(a_stop_string_may_span_tokens),
        cmocka_unit_test(what_was_held_back_comes_at_the_end),
        cmocka_unit_test(utf8_lengths_are_the_standard_s),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
