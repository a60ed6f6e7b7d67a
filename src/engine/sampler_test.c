/* The sampler against its definition: frequencies of many draws, greedy ties, truncations, penalties. */
#include "engine/rows.h"

#include <dilemma/engine.h>

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define N 50u

static void fill(float *l)
{
    for (uint32_t i = 0; i < N; i++) l[i] = 3 * sinf((float)i * 1.7f);
}

static void greedy_takes_the_lowest_id_among_equals(void **state)
{
    (void)state;
    float l[6] = {1, 5, 2, 5, 5, -1}, lp;
    dil_sampler_opts o = dil_sampler_defaults();
    o.temperature = 0;
    dil_sampler *s = dil_sampler_new(&o, 6);
    for (int i = 0; i < 3; i++) assert_int_equal(dil_sampler_pick(s, l, &lp), 1);
    double z = 3 * exp(5) + exp(1) + exp(2) + exp(-1);
    assert_float_equal(lp, (float)log(exp(5) / z), 1e-6f);
    dil_sampler_free(s);
}

static void a_bias_is_added_and_a_large_one_decides(void **state)
{
    (void)state;
    float l[6] = {1, 5, 2, 5, 5, -1};
    dil_logit_bias b[] = {{1, -100}, {4, 0.5f}, {77, 100}, {-3, 100}};
    dil_sampler_opts o = dil_sampler_defaults();
    o.temperature = 0;
    o.bias = b;
    o.n_bias = 4;
    dil_sampler *s = dil_sampler_new(&o, 6);
    b[1].bias = -9; /* it was copied */
    assert_int_equal(dil_sampler_pick(s, l, NULL), 4);
    dil_sampler_free(s);
    o.temperature = 1;
    b[0] = (dil_logit_bias){5, 100};
    s = dil_sampler_new(&o, 6);
    for (int i = 0; i < 50; i++) assert_int_equal(dil_sampler_pick(s, l, NULL), 5);
    dil_sampler_free(s);
}

static void reductions_over_a_row_are_those_of_the_definition(void **state)
{
    (void)state;
    enum { MOST = 3001 };
    static float x[MOST];
    dil_rng rng;
    dil_rng_init(&rng, 5);
    for (uint32_t n = 1; n <= MOST; n = n < 40 ? n + 1 : n * 2 - 9) {
        float spread = n % 3 ? 20.0f : 300.0f; /* what is far below the largest counts nothing */
        for (uint32_t i = 0; i < n; i++) x[i] = spread * ((float)dil_rng_unit(&rng) - 0.7f);
        if (n % 4 == 0) x[n - 1] = x[n / 2] = 1000; /* equals: the first */
        uint32_t most = 0;
        double sum = 0;
        for (uint32_t i = 1; i < n; i++) most = x[i] > x[most] ? i : most;
        for (uint32_t i = 0; i < n; i++) sum += exp((double)(x[i] - x[most]));
        assert_int_equal(dil__row_argmax(x, n), most);
        assert_true(fabs(dil__row_log_sum_exp(x, n, x[most]) - (double)x[most] - log(sum)) < 1e-6);
    }
}

/* Draws under o follow softmax(l / temperature) restricted to `kept`. */
static void check_frequencies(dil_sampler_opts o, const float *l, const bool *kept)
{
    enum { DRAWS = 200000 };
    double p[N] = {0}, sum = 0;
    int count[N] = {0};
    for (uint32_t i = 0; i < N; i++) sum += p[i] = kept[i] ? exp((double)l[i] / (double)o.temperature) : 0;
    dil_sampler *s = dil_sampler_new(&o, N);
    for (int i = 0; i < DRAWS; i++) count[dil_sampler_pick(s, l, NULL)]++;
    for (uint32_t i = 0; i < N; i++) {
        double e = DRAWS * p[i] / sum;
        if (fabs(count[i] - e) > 5 * sqrt(e) + 1e-9) fail_msg("token %u: drawn %d times, expected %.1f", i, count[i], e);
    }
    dil_sampler_free(s);
}

static void draws_follow_the_truncated_distribution(void **state)
{
    (void)state;
    float l[N];
    bool kept[N];
    fill(l);
    dil_sampler_opts o = {.temperature = 0.7f, .top_p = 1, .repeat_penalty = 1, .seed = 4};
    for (uint32_t i = 0; i < N; i++) kept[i] = true;
    check_frequencies(o, l, kept);
    o.top_k = 5;
    for (uint32_t i = 0; i < N; i++) {
        int above = 0;
        for (uint32_t k = 0; k < N; k++) above += l[k] > l[i];
        kept[i] = above < 5;
    }
    check_frequencies(o, l, kept);
    o.top_k = 0;
    o.min_p = 0.3f;
    float max = -1e9f;
    for (uint32_t i = 0; i < N; i++) max = fmaxf(max, l[i]);
    for (uint32_t i = 0; i < N; i++) kept[i] = exp((double)(l[i] - max) / 0.7) >= 0.3;
    check_frequencies(o, l, kept);
    o.min_p = 0;
    o.top_p = 0.6f;
    double sum = 0;
    for (uint32_t i = 0; i < N; i++) sum += exp((double)l[i] / 0.7);
    for (uint32_t i = 0; i < N; i++) { /* in, while those above it do not yet make up 0.6 */
        double above = 0;
        for (uint32_t k = 0; k < N; k++) above += l[k] > l[i] ? exp((double)l[k] / 0.7) : 0;
        kept[i] = above < 0.6 * sum;
    }
    check_frequencies(o, l, kept);
}

/* 20,000 tokens that fall off slowly: far more than a few thousand matter. */
static void a_long_tail_is_drawn_from_too(void **state)
{
    (void)state;
    enum { LONG = 20000, DRAWS = 400 };
    float *l = calloc(LONG, sizeof *l);
    for (int i = 0; i < LONG; i++) l[(i * 7919) % LONG] = -(float)i / LONG; /* rank i, at ids all over */
    double below[LONG + 1]; /* of the probability */
    below[0] = 0;
    for (int i = 0; i < LONG; i++) below[i + 1] = below[i] + exp(-(double)i / LONG);
    const dil_sampler_opts all[] = {{.temperature = 1, .top_p = 1, .repeat_penalty = 1, .seed = 1}, {.temperature = 1, .top_p = 0.8f, .repeat_penalty = 1, .seed = 2},
                                    {.temperature = 1, .top_p = 1, .min_p = 0.6f, .repeat_penalty = 1, .seed = 3},
                                    {.temperature = 1, .top_p = 1, .top_k = 9000, .repeat_penalty = 1, .seed = 4}};
    for (size_t t = 0; t < 4; t++) {
        int end = LONG, half = 0; /* ranks below `end` may be drawn */
        while (t == 1 && below[end - 1] >= 0.8 * below[LONG]) end--;
        if (t == 2) end = (int)ceil(-log(0.6) * LONG);
        if (t == 3) end = 9000;
        dil_sampler *s = dil_sampler_new(&all[t], LONG);
        for (int i = 0; i < DRAWS; i++) {
            int32_t id = dil_sampler_pick(s, l, NULL);
            int rank = (int)lroundf(-l[id] * LONG);
            if (rank > end) fail_msg("case %zu: rank %d was drawn, the last allowed is %d", t, rank, end - 1);
            half += rank < end / 2;
        }
        double e = DRAWS * below[end / 2] / below[end];
        if (fabs(half - e) > 5 * sqrt(e)) fail_msg("case %zu: %d of %d draws from the better half, expected %.0f", t, half, DRAWS, e);
        dil_sampler_free(s);
    }
    free(l);
}

static void one_seed_gives_one_sequence(void **state)
{
    (void)state;
    float l[N];
    fill(l);
    dil_sampler_opts o = dil_sampler_defaults();
    o.seed = 99;
    dil_sampler *a = dil_sampler_new(&o, N), *b = dil_sampler_new(&o, N);
    for (int i = 0; i < 1000; i++) assert_int_equal(dil_sampler_pick(a, l, NULL), dil_sampler_pick(b, l, NULL));
    dil_sampler_free(a);
    dil_sampler_free(b);
}

static void penalties_turn_away_from_what_was_said(void **state)
{
    (void)state;
    float l[4] = {2.0f, 1.9f, 1.0f, -1.0f};
    dil_sampler_opts o = {.temperature = 0, .top_p = 1, .repeat_penalty = 1, .presence_penalty = 0.5f, .frequency_penalty = 0.2f};
    dil_sampler *s = dil_sampler_new(&o, 4);
    float now[4];
    int count[4] = {0};
    for (int i = 0; i < 7; i++) {
        for (int k = 0; k < 4; k++) now[k] = l[k] - (count[k] ? 0.5f + 0.2f * (float)count[k] : 0);
        int best = 0;
        for (int k = 1; k < 4; k++) best = now[k] > now[best] ? k : best;
        int32_t id = dil_sampler_pick(s, l, NULL);
        assert_int_equal(id, best);
        dil_sampler_accept(s, id);
        count[id]++;
    }
    dil_sampler_accept(s, -1);
    dil_sampler_accept(s, 4); /* out of range: nothing happens */
    dil_sampler_free(s);
}

/* A stream that goes on after a loss: what was drawn is skipped, what was picked is accepted. */
static void a_skipped_sampler_goes_on_as_the_first_did(void **state)
{
    (void)state;
    enum { WORDS = 200, CUT = 17, ALL = 60 };
    dil_sampler_opts o = {.temperature = 0.9f, .top_p = 0.9f, .repeat_penalty = 1.2f, .frequency_penalty = 0.3f, .seed = 5};
    dil_sampler *a = dil_sampler_new(&o, WORDS), *b = dil_sampler_new(&o, WORDS);
    float l[ALL][WORDS];
    int32_t picked[ALL];
    dil_rng rng;
    dil_rng_init(&rng, 8);
    for (int t = 0; t < ALL; t++) {
        for (int i = 0; i < WORDS; i++) l[t][i] = (float)dil_rng_normal(&rng);
        picked[t] = dil_sampler_pick(a, l[t], NULL);
        dil_sampler_accept(a, picked[t]);
    }
    dil_sampler_skip(b, CUT);
    for (int t = 0; t < CUT; t++) dil_sampler_accept(b, picked[t]);
    for (int t = CUT; t < ALL; t++) {
        assert_int_equal(dil_sampler_pick(b, l[t], NULL), picked[t]);
        dil_sampler_accept(b, picked[t]);
    }
    dil_sampler_free(a);
    dil_sampler_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_skipped_sampler_goes_on_as_the_first_did),
        cmocka_unit_test(reductions_over_a_row_are_those_of_the_definition),
        cmocka_unit_test(a_bias_is_added_and_a_large_one_decides),
        cmocka_unit_test(greedy_takes_the_lowest_id_among_equals),
        cmocka_unit_test(draws_follow_the_truncated_distribution),
        cmocka_unit_test(a_long_tail_is_drawn_from_too),
        cmocka_unit_test(one_seed_gives_one_sequence),
        cmocka_unit_test(penalties_turn_away_from_what_was_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
