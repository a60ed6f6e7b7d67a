/* labels: threads */
/* Random numbers against the published sequences, hashes against RFC 7693's function, sizes as people write them, threads. */
#include <dilemma/base.h>

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

/* xoshiro256++ from the state 1, 2, 3, 4, as its authors' C program prints it. */
static void random_numbers_are_xoshiro256_plus_plus(void **state)
{
    (void)state;
    static const uint64_t want[] = {41943041, 58720359, 3588806011781223, 3591011842654386, 9228616714210784205u,
                                    9973669472204895162u, 14011001112246962877u, 12406186145184390807u, 15849039046786891736u, 10450023813501588000u};
    dil_rng r = {{1, 2, 3, 4}};
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) assert_true(dil_rng_u64(&r) == want[i]);
}

/* splitmix64 from the seed 1234567, published with it. */
static void seeds_go_through_splitmix64(void **state)
{
    (void)state;
    dil_rng r;
    dil_rng_init(&r, 1234567);
    assert_true(r.s[0] == 6457827717110365317u && r.s[1] == 3203168211198807973u && r.s[2] == 9817491932198370423u && r.s[3] == 4593380528125082431u);
}

static void random_numbers_keep_to_their_ranges(void **state)
{
    (void)state;
    dil_rng r;
    dil_rng_init(&r, 5);
    unsigned count[6] = {0};
    double sum = 0, squares = 0, unit = 0;
    enum { N = 600000 };
    for (int i = 0; i < N; i++) {
        count[dil_rng_below(&r, 6)]++;
        double u = dil_rng_unit(&r), x = dil_rng_normal(&r);
        assert_true(u >= 0 && u < 1 && isfinite(x));
        unit += u;
        sum += x;
        squares += x * x;
    }
    for (int i = 0; i < 6; i++) assert_true(fabs(count[i] - N / 6.0) < 5 * sqrt(N / 6.0)); /* five sigma */
    assert_true(fabs(unit / N - 0.5) < 0.002 && fabs(sum / N) < 0.01 && fabs(squares / N - 1) < 0.01);
    for (int i = 0; i < 100; i++) assert_true(dil_rng_below(&r, 1) == 0 && dil_rng_below(&r, UINT64_MAX) < UINT64_MAX);
}

/* BLAKE2b-256 of "" and "abc": the values that every implementation gives. */
static void hashes_are_blake2b_256(void **state)
{
    (void)state;
    static const char *const want[][2] = {{"", "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8"},
                                          {"abc", "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319"}};
    for (int i = 0; i < 2; i++) {
        dil_hash h = dil_hash_of(want[i][0], strlen(want[i][0])), back;
        char hex[2 * DIL_HASH_BYTES + 1];
        dil_hash_hex(&h, hex);
        assert_string_equal(hex, want[i][1]);
        assert_true(dil_hash_from_hex(hex, &back) && memcmp(&h, &back, sizeof h) == 0);
        hex[10] = 'g';
        assert_false(dil_hash_from_hex(hex, &back));
        assert_false(dil_hash_from_hex("0e57", &back));
    }
}

static void sizes_are_read_as_people_write_them(void **state)
{
    (void)state;
    static const struct { const char *text; uint64_t bytes; } good[] = {
        {"0", 0}, {"98362432", 98362432}, {"500M", 500000000}, {"1.5GiB", 1610612736}, {"1.5 GB", 1500000000}, {"64k", 64000}, {"64KiB", 65536},
        {"2T", 2000000000000}, {"1tib", 1099511627776}, {"7B", 7}, {"1e3", 1000}, {"0.5K", 500}};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        uint64_t v = 1;
        if (!dil_parse_bytes(good[i].text, &v) || v != good[i].bytes) fail_msg("%s gives %llu", good[i].text, (unsigned long long)v);
    }
    static const char *const bad[] = {"", "M", "-1", "nan", "inf", "1X", "1MM", "1 M B", "10000000T", "1e30", "5Mi i", "12,5M"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        uint64_t v = 77;
        if (dil_parse_bytes(bad[i], &v)) fail_msg("'%s' gives %llu", bad[i], (unsigned long long)v);
        assert_true(v == 77);
    }
}

static void sizes_are_written_short(void **state)
{
    (void)state;
    char out[32];
    assert_string_equal(dil_format_bytes(0, out), "0 B");
    assert_string_equal(dil_format_bytes(999, out), "999 B");
    assert_string_equal(dil_format_bytes(98362432, out), "98.4 MB");
    assert_string_equal(dil_format_bytes(999949, out), "999.9 kB");
    assert_string_equal(dil_format_bytes(999950, out), "1.0 MB");
    assert_string_equal(dil_format_bytes(UINT64_MAX, out), "18.4 EB");
}

static void clocks_go_forward(void **state)
{
    (void)state;
    int64_t a = dil_now_ns();
    dil_sleep_ns(2000000);
    dil_sleep_ns(-5);
    assert_true(dil_now_ns() - a >= 2000000);
    assert_true(dil_wall_ms() > 1700000000000); /* after 2023 */
}

static atomic_int done[1000];

static void mark(void *ctx, size_t i)
{
    (void)ctx;
    atomic_fetch_add(&done[i], 1);
}

static void a_parallel_loop_does_everything_once(void **state)
{
    (void)state;
    static const int threads[] = {-1, 0, 1, 2, 3, 16, 100000};
    for (size_t t = 0; t < sizeof threads / sizeof *threads; t++) {
        for (size_t n = 0; n <= 1000; n += 250) {
            memset((void *)done, 0, sizeof done);
            dil_parallel(threads[t], n, mark, NULL);
            for (size_t i = 0; i < 1000; i++) assert_int_equal(done[i], i < n);
        }
    }
    assert_true(dil_cpu_count() >= 1);
}

static int seen;
static char last[64];

static void sink(void *ctx, dil_log_level level, const char *module, const char *text)
{
    assert_ptr_equal(ctx, &seen);
    assert_true(level >= DIL_LOG_INFO);
    seen++;
    snprintf(last, sizeof last, "%s: %s", module, text);
}

static bool stop(void *ctx, const char *what, double at, double total)
{
    (void)ctx, (void)what;
    return at < total;
}

static void log_and_progress_reach_their_receivers(void **state)
{
    (void)state;
    dil_log(DIL_LOG_ERROR, "m", "nobody listens");
    dil_log_set_sink(sink, &seen, DIL_LOG_INFO);
    dil_log(DIL_LOG_DEBUG, "m", "too little");
    dil_log(DIL_LOG_WARN, "m", "%d", 5);
    dil_log_set_sink(NULL, NULL, DIL_LOG_INFO);
    assert_int_equal(seen, 1);
    assert_string_equal(last, "m: 5");
    assert_true(dil_progress_step(NULL, "x", 1, 2));
    dil_progress p = {.fn = stop};
    assert_true(dil_progress_step(&p, "x", 1, 2));
    assert_false(dil_progress_step(&p, "x", 2, 2));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_numbers_are_xoshiro256_plus_plus),
        cmocka_unit_test(seeds_go_through_splitmix64),
        cmocka_unit_test(random_numbers_keep_to_their_ranges),
        cmocka_unit_test(hashes_are_blake2b_256),
        cmocka_unit_test(sizes_are_read_as_people_write_them),
        cmocka_unit_test(sizes_are_written_short),
        cmocka_unit_test(clocks_go_forward),
        cmocka_unit_test(a_parallel_loop_does_everything_once),
        cmocka_unit_test(log_and_progress_reach_their_receivers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
