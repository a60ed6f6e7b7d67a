/* The best cut against all cuts; rules of normalization against a map made here, and maps that are broken. The ids of the reference library
 * are tests/unigram_test.py's. */
#include "model/unigram.h"

#include <dilemma/tokenizer.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N = 14 };

static const char *const spelling[N] = {"<unk>", "a", "b", "c", "ab", "bc", "abc", "ca", "aa", "aab", "\xE2\x96\x81", ("\xE2\x96\x81" "a"), "\xC3\xA4", "[u]"};

static void build(dil__vocab *v, dil__unigram *u, const float score[N], bool collapses)
{
    dil__str token[N];
    int32_t type[N];
    for (int i = 0; i < N; i++) {
        token[i] = (dil__str){spelling[i], strlen(spelling[i])};
        type[i] = i == 0 ? DIL__TOKEN_UNKNOWN : i == N - 1 ? DIL__TOKEN_USER : DIL__TOKEN_NORMAL;
    }
    const dil__vocab_src src = {.tokens = token, .types = type, .n_tokens = N, .scores = score};
    const dil__unigram_src more = {.space_first = collapses, .collapses = collapses};
    dil_err err;
    if (dil__vocab_init(v, &src, &err) != DIL_OK || dil__unigram_init(u, v, score, &more, &err) != DIL_OK) fail_msg("%s", err.text);
}

static void drop(dil__vocab *v, dil__unigram *u)
{
    dil__unigram_fini(u);
    dil__vocab_fini(v);
}

/* The highest sum over all cuts of s; d is an unknown character. */
static double best_of_all(const float score[N], double unknown, const char *s)
{
    if (!*s) return 0;
    double best = *s == 'd' ? unknown + best_of_all(score, unknown, s + 1) : -1e30;
    for (int i = 1; i < N - 4; i++) {
        size_t n = strlen(spelling[i]);
        if (strncmp(s, spelling[i], n) != 0) continue;
        double sum = (double)score[i] + best_of_all(score, unknown, s + n);
        if (sum > best) best = sum;
    }
    return best;
}

static void no_cut_is_better(void **state)
{
    (void)state;
    uint32_t seed = 20261130;
    print_message("seed %u\n", seed);
    for (int round = 0; round < 300; round++) {
        float score[N] = {0};
        double least = 0;
        for (int i = 1; i < N; i++) {
            seed = seed * 1664525 + 1013904223;
            score[i] = -(float)(seed >> 20) / 256;
            if (i < N - 1 && (double)score[i] < least) least = (double)score[i];
        }
        char text[13] = {0};
        for (int i = 0; i < 12; i++) {
            seed = seed * 1664525 + 1013904223;
            text[i] = "aabbccd"[(seed >> 16) % 7];
        }
        dil__vocab v;
        dil__unigram u;
        dil__viterbi scratch = {0};
        dil__ids ids = {0};
        build(&v, &u, score, false);
        assert_int_equal(dil__unigram_text(&u, &v, &scratch, text, 12, &ids, NULL), DIL_OK);
        double sum = 0;
        for (size_t i = 0; i < ids.n; i++) sum += ids.id[i] ? (double)score[ids.id[i]] : 0;
        for (const char *s = text; *s; s++) sum += *s == 'd' ? least - 10 : 0; /* a run of them is one token */
        double want = best_of_all(score, least - 10, text);
        if (sum < want - 1e-3 || sum > want + 1e-3) fail_msg("round %d, \"%s\": %g, the best is %g", round, text, sum, want);
        free(ids.id);
        dil__viterbi_fini(&scratch);
        drop(&v, &u);
    }
}

static void expect_normal(const dil__unigram *u, const dil__vocab *v, const char *text, const char *want)
{
    dil_buf out;
    dil_buf_init(&out, 1000);
    assert_int_equal(dil__unigram_normalize(u, v, text, strlen(text), &out, NULL), DIL_OK);
    assert_string_equal(dil_buf_str(&out), want);
    dil_buf_fini(&out);
}

static void spaces_collapse_where_the_file_says_so(void **state)
{
    (void)state;
    static const float score[N] = {0};
    dil__vocab v;
    dil__unigram u;
    build(&v, &u, score, true);
    expect_normal(&u, &v, "", "");
    expect_normal(&u, &v, "   ", "");
    expect_normal(&u, &v, "  a  b ", " a b");
    expect_normal(&u, &v, "a\xFFz", " a\xEF\xBF\xBDz");
    drop(&v, &u);
    build(&v, &u, score, false);
    expect_normal(&u, &v, "  a  \xE2\x96\x81 ", "  a    ");
    drop(&v, &u);
}

/* A double array of the keys "x" (to "yz") and "xx" (to nothing): units are at the exclusive or of an offset and a byte. */
static size_t small_map(uint8_t *out)
{
    enum { UNITS = 1024, ROOT = 256, X = 512, XX = 768, LEAF = 1 << 8 };
    uint32_t unit[UNITS] = {0};
    unit[0] = ROOT << 10;
    unit[ROOT ^ 'x'] = (uint32_t)((ROOT ^ 'x') ^ X) << 10 | LEAF | 'x';
    unit[X] = 0x80000000u | 1;
    unit[X ^ 'x'] = (uint32_t)((X ^ 'x') ^ XX) << 10 | LEAF | 'x';
    unit[XX] = 0x80000000u | 0;
    static const char to[] = "\0yz";
    const uint32_t bytes = sizeof unit;
    for (size_t i = 0; i < 4; i++) out[i] = (uint8_t)(bytes >> 8 * i);
    for (size_t i = 0; i < sizeof unit; i++) out[4 + i] = (uint8_t)(unit[i / 4] >> 8 * (i % 4));
    memcpy(out + 4 + sizeof unit, to, sizeof to);
    return 4 + sizeof unit + sizeof to;
}

static void the_longest_rule_applies(void **state)
{
    (void)state;
    static uint8_t bytes[8192];
    static const float score[N] = {0};
    size_t len = small_map(bytes);
    dil__vocab v;
    dil__unigram u;
    build(&v, &u, score, false);
    assert_int_equal(dil__charsmap_init(&u.map, bytes, len, NULL), DIL_OK);
    expect_normal(&u, &v, "axb xx xxx[u]", "ayzb  yz[u]");
    drop(&v, &u);
}

static void broken_maps_are_refused(void **state)
{
    (void)state;
    static uint8_t bytes[8192], broken[8192], huge[DIL__CHARSMAP_TO_MAX + 64];
    size_t len = small_map(bytes);
    dil__charsmap m;
    dil_err err;
    assert_int_equal(dil__charsmap_init(&m, bytes, len - 1, &err), DIL_EFORMAT); /* no end */
    for (size_t n = 1; n < 8; n++) assert_int_equal(dil__charsmap_init(&m, bytes, n, &err), DIL_EFORMAT);
    memcpy(broken, bytes, len);
    broken[2] = 1; /* more units than there are bytes */
    assert_int_equal(dil__charsmap_init(&m, broken, len, &err), DIL_EFORMAT);
    memset(huge, 'a', sizeof huge);
    memcpy(huge, "\4\0\0\0\0\0\0\0", 8);
    huge[sizeof huge - 1] = 0;
    assert_int_equal(dil__charsmap_init(&m, huge, sizeof huge, &err), DIL_ELIMIT);
    assert_null(m.bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_cut_is_better),
        cmocka_unit_test(spaces_collapse_where_the_file_says_so),
        cmocka_unit_test(the_longest_rule_applies),
        cmocka_unit_test(broken_maps_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
