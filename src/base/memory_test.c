/* Checked sizes, arenas, buffers: limits hold to the byte, and nothing is handed out twice. */
#include <dilemma/base.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* Requests that no machine can meet are part of the test; AddressSanitizer would end the program at them. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "allocator_may_return_null=1";
}

static void sizes_that_overflow_are_told(void **state)
{
    (void)state;
    size_t z = 7;
    uint64_t u = 7;
    assert_true(dil_mul_size(SIZE_MAX / 2, 2, &z) && z == SIZE_MAX - 1);
    assert_false(dil_mul_size(SIZE_MAX / 2 + 1, 2, &z));
    assert_true(dil_add_size(SIZE_MAX - 1, 1, &z) && z == SIZE_MAX);
    assert_false(dil_add_size(SIZE_MAX, 1, &z));
    assert_true(dil_mul_u64(1ull << 32, (1ull << 32) - 1, &u) && u == UINT64_MAX - (1ull << 32) + 1);
    assert_false(dil_mul_u64(1ull << 32, 1ull << 32, &u));
    assert_false(dil_add_u64(UINT64_MAX, 1, &u));
    assert_true(dil_mul_u64(0, UINT64_MAX, &u) && u == 0);
}

/* Every piece keeps the bytes that were written into it, whatever the order of large and small ones. */
static void pieces_of_an_arena_are_zeroed_aligned_and_apart(void **state)
{
    (void)state;
    enum { N = 3000 };
    static struct { uint8_t *p; size_t n; } piece[N];
    dil_arena *a = dil_arena_new(SIZE_MAX);
    dil_rng r;
    dil_rng_init(&r, 11);
    for (int i = 0; i < N; i++) {
        piece[i].n = (size_t)dil_rng_below(&r, i % 50 == 0 ? 3000000 / 8 : 300);
        piece[i].p = dil_arena_push(a, piece[i].n, 1);
        assert_non_null(piece[i].p);
        assert_int_equal((uintptr_t)piece[i].p % 16, 0);
        for (size_t k = 0; k < piece[i].n; k++) assert_int_equal(piece[i].p[k], 0);
        memset(piece[i].p, i & 255, piece[i].n);
    }
    for (int i = 0; i < N; i++) {
        for (size_t k = 0; k < piece[i].n; k++) assert_int_equal(piece[i].p[k], i & 255);
    }
    dil_arena_free(a);
}

static void an_arena_stops_at_its_limit(void **state)
{
    (void)state;
    dil_arena *a = dil_arena_new(1000); /* 62 pieces of 16 */
    for (int i = 0; i < 62; i++) assert_non_null(dil_arena_push(a, 1, 1));
    assert_int_equal(dil_arena_used(a), 992);
    assert_null(dil_arena_push(a, 1, 1));
    dil_arena_free(a);
    a = dil_arena_new(SIZE_MAX);
    assert_null(dil_arena_push(a, SIZE_MAX, 2));
    assert_null(dil_arena_push(a, SIZE_MAX, 1));
    assert_null(dil_arena_push(a, SIZE_MAX - 100, 1));
    assert_int_equal(dil_arena_used(a), 0);
    assert_non_null(dil_arena_push(a, 0, 8)); /* an empty array is an array */
    assert_null(dil_arena_strdup(a, "x", SIZE_MAX));
    dil_arena_free(a);
    dil_arena_free(NULL);
    a = dil_arena_new(0);
    assert_null(dil_arena_push(a, 1, 1));
    dil_arena_free(a);
}

static void copies_of_strings_end_with_zero(void **state)
{
    (void)state;
    dil_arena *a = dil_arena_new(1 << 16);
    char *s = dil_arena_strdup(a, "hello world", 5);
    assert_string_equal(s, "hello");
    assert_string_equal(dil_arena_strdup(a, NULL, 0), "");
    dil_arena_free(a);
}

static void a_buffer_grows_to_its_maximum_and_no_further(void **state)
{
    (void)state;
    dil_buf b;
    dil_buf_init(&b, 10);
    assert_string_equal(dil_buf_str(&b), "");
    assert_true(dil_buf_append(&b, "01234", 5) && dil_buf_append(&b, "56789", 5));
    assert_string_equal(dil_buf_str(&b), "0123456789");
    assert_false(dil_buf_append(&b, "x", 1));
    assert_true(b.failed);
    assert_false(dil_buf_append(&b, "", 0)); /* it stays failed */
    assert_string_equal(dil_buf_str(&b), "");
    dil_buf_fini(&b);
    assert_int_equal(b.max, 10);
    assert_true(dil_buf_append(&b, "again", 5)); /* and may be used again after fini */
    dil_buf_fini(&b);
    dil_buf_init(&b, SIZE_MAX);
    assert_true(dil_buf_append(&b, "x", 1));
    assert_false(dil_buf_reserve(&b, SIZE_MAX - 1)); /* no memory of that size */
    dil_buf_fini(&b);
}

static void printf_appends_whole_or_fails(void **state)
{
    (void)state;
    dil_buf b;
    dil_buf_init(&b, 1 << 20);
    for (int i = 0; i < 1000; i++) assert_true(dil_buf_printf(&b, "%d,", i));
    assert_int_equal(b.len, 10 * 2 + 90 * 3 + 900 * 4);
    assert_memory_equal(dil_buf_str(&b) + b.len - 8, "998,999,", 8);
    dil_buf_fini(&b);
    dil_buf_init(&b, 4);
    assert_false(dil_buf_printf(&b, "%s", "hello"));
    assert_true(b.failed && b.len == 0);
    dil_buf_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_that_overflow_are_told),
        cmocka_unit_test(pieces_of_an_arena_are_zeroed_aligned_and_apart),
        cmocka_unit_test(an_arena_stops_at_its_limit),
        cmocka_unit_test(copies_of_strings_end_with_zero),
        cmocka_unit_test(a_buffer_grows_to_its_maximum_and_no_further),
        cmocka_unit_test(printf_appends_whole_or_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
