/* labels: threads */
/* Guesses, their number, and the rule by which they are taken: with them every text is the one without, greedy and sampled, and what is
 * sampled has the distribution that the logits say. The model is a table: logits that depend on the last two tokens of the sequence as
 * the cache holds it, so that a cache that was not rolled back gives another text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "net/picker.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { VOCAB = 12, N_CTX = 400, N_SEQ = 4, CHUNK = 32, ROWS = N_SEQ + DIL__DRAFT_MAX };

static void logits_after(const int32_t *tokens, uint32_t n, float *out)
{
    uint64_t h = n > 1 ? (uint64_t)tokens[n - 2] * 31 + 7 : 3;
    h = (h * 131 + (uint64_t)tokens[n - 1]) * 0x9e3779b97f4a7c15u;
    dil_rng rng;
    dil_rng_init(&rng, h);
    for (int v = 0; v < VOCAB; v++) out[v] = (float)(4 * dil_rng_unit(&rng));
}

/* --- a pipe of that model ----------------------------------------------------------------------------------------------------- */

typedef struct answer {
    uint64_t id;
    dil__row rows[ROWS];
    uint32_t n_rows;
} answer;

typedef struct table {
    dil__pipe pipe;
    dil__picker picker;
    int32_t kv[N_SEQ][N_CTX];
    uint32_t len[N_SEQ];
    answer queue[DIL__DEPTH_MAX], now;
    uint32_t n, n_works;
    atomic_bool woken;
} table;

static dil_status table_submit(dil__pipe *p, const dil__work *w, dil_err *err)
{
    table *t = (table *)p;
    answer *a = &t->queue[t->n++];
    *a = (answer){.id = w->id};
    float logits[ROWS * VOCAB];
    uint32_t n = 0;
    for (uint32_t i = 0; i < w->n_begin; i++) {
        t->len[w->begin[i].slot] = 0;
        assert_int_equal(dil__picker_begin(&t->picker, &w->begin[i], err), DIL_OK);
    }
    for (uint32_t i = 0; i < w->batch.n_tokens; i++) {
        int32_t s = w->batch.seq[i], at = w->batch.pos[i];
        assert_true(at >= 0 && (uint32_t)at <= t->len[s] && at < N_CTX);
        t->kv[s][at] = w->batch.token[i];
        t->len[s] = (uint32_t)at + 1;
        assert_true(n < ROWS);
        if (w->batch.want[i]) logits_after(t->kv[s], t->len[s], logits + VOCAB * n++);
    }
    t->n_works++;
    return dil__picker_pick(&t->picker, &w->batch, logits, a->rows, &a->n_rows, err);
}

static void table_wait(dil__pipe *p, int64_t timeout_ns, dil__pipe_event *out)
{
    (void)timeout_ns;
    table *t = (table *)p;
    *out = (dil__pipe_event){0};
    while (t->n == 0 && !atomic_exchange(&t->woken, false)) dil_sleep_ns(20000);
    if (t->n == 0) return;
    t->now = t->queue[0];
    memmove(t->queue, t->queue + 1, --t->n * sizeof t->queue[0]);
    *out = (dil__pipe_event){.kind = DIL__PIPE_RESULT, .id = t->now.id, .rows = t->now.rows, .n_rows = t->now.n_rows, .compute_sec = 1e-3};
}

static void table_wake(dil__pipe *p) { atomic_store(&((table *)p)->woken, true); }
static void table_state(dil__pipe *p, dil_runner_state *out) { (void)p, out->ready = true; }

static void table_close(dil__pipe *p)
{
    dil__picker_fini(&((table *)p)->picker);
    free(p);
}

static const dil__pipe_ops table_ops = {table_submit, table_wait, table_wake, table_state, table_close};

static dil_runner *open_table(table **t, uint32_t depth)
{
    dil_runner *r;
    dil_err err;
    *t = calloc(1, sizeof **t);
    (*t)->pipe = (dil__pipe){.ops = &table_ops, .n_ctx = N_CTX, .n_seq = N_SEQ, .n_vocab = VOCAB, .chunk = CHUNK, .depth = depth};
    assert_int_equal(dil__picker_init(&(*t)->picker, N_SEQ, VOCAB, &err), DIL_OK);
    assert_int_equal(dil__runner_new(&(*t)->pipe, 64, &r, &err), DIL_OK);
    return r;
}

static uint32_t text_of(dil_runner *r, uint64_t seed, float temperature, float repeat_penalty, int32_t *out)
{
    int32_t prompt[40];
    uint32_t n_prompt = 1 + (uint32_t)seed % 40, n;
    dil_rng rng;
    dil_rng_init(&rng, seed);
    for (uint32_t i = 0; i < n_prompt; i++) prompt[i] = (int32_t)dil_rng_below(&rng, VOCAB);
    const int32_t stop = 11;
    dil_gen_req req = {.prompt = prompt, .n_prompt = n_prompt, .max_tokens = 1 + (uint32_t)(seed * 7) % N_CTX, .stop = &stop, .n_stop = seed % 3 == 0,
                       .sampler = {.temperature = temperature, .top_p = 1, .repeat_penalty = repeat_penalty, .seed = seed}};
    dil_err err;
    dil_status s = dil_runner_generate(r, &req, out, &n, NULL, &err);
    if (s != DIL_OK) fail_msg("%s", err.text);
    return n;
}

static void texts_are_those_without_guesses(void **state)
{
    (void)state;
    for (uint32_t depth = 1; depth <= 3; depth += 2) {
        table *a, *b;
        dil_runner *plain = open_table(&a, depth), *ahead = open_table(&b, depth);
        dil_runner_speculate(plain, 0);
        for (uint64_t seed = 0; seed < 300; seed++) {
            int32_t x[N_CTX], y[N_CTX];
            float temperature = seed % 2 ? 0.7f : 0, penalty = seed % 5 ? 1 : 1.3f;
            dil_runner_speculate(ahead, 1 + (int)(seed % 15));
            uint32_t n = text_of(plain, seed, temperature, penalty, x);
            assert_int_equal(text_of(ahead, seed, temperature, penalty, y), n);
            assert_memory_equal(x, y, n * sizeof *x);
        }
        dil_runner_state st;
        dil_runner_get_state(ahead, &st);
        assert_true(st.n_right > 1000 && st.n_guessed > st.n_right + 1000); /* both kinds were met */
        assert_true(b->n_works < a->n_works - 1000);
        uint32_t saved = a->n_works - b->n_works; /* a right guess saves a work, but one of the stop that ends a text: a third of the texts has one */
        assert_true(saved <= st.n_right && saved + 100 >= st.n_right);
        dil_runner_get_state(plain, &st);
        assert_int_equal(st.n_guessed, 0);
        dil_runner_close(plain);
        dil_runner_close(ahead);
    }
}

/* What the planner predicts and the ring times is one token a sequence; a pass with guesses computes more rows. */
static void rounds_are_passes_without_guesses_or_prompts(void **state)
{
    (void)state;
    uint8_t wanted[] = {1, 1}, prompt[] = {0, 1};
    int32_t streams[] = {3, 5}, guessed[] = {3, 3};
    dil__work w = {.batch = {.n_tokens = 2, .seq = streams, .want = wanted}};
    assert_true(dil__work_is_round(&w));
    w.batch.seq = guessed;
    assert_false(dil__work_is_round(&w));
    w.batch.n_tokens = 1;
    assert_true(dil__work_is_round(&w));
    w.n_begin = 1;
    assert_false(dil__work_is_round(&w));
    w = (dil__work){.batch = {.n_tokens = 2, .seq = guessed, .want = prompt}};
    assert_false(dil__work_is_round(&w));
}

typedef struct job {
    int32_t tokens[N_CTX];
    uint32_t n;
    atomic_bool done;
} job;

static void collect(void *ctx, uint64_t id, const dil_gen_event *ev)
{
    (void)id;
    job *j = ctx;
    if (ev->kind == DIL_GEN_TOKEN) j->tokens[j->n++] = ev->token;
    else atomic_store(&j->done, true);
}

static void streams_beside_each_other_keep_their_texts(void **state)
{
    (void)state;
    table *t, *u;
    dil_runner *r = open_table(&t, 4), *plain = open_table(&u, 1);
    dil_runner_speculate(r, 7);
    dil_runner_speculate(plain, 0);
    static job jobs[24];
    for (uint32_t i = 0; i < 24; i++) {
        int32_t prompt[] = {(int32_t)(i % VOCAB), 3, 5};
        dil_gen_req req = {.prompt = prompt, .n_prompt = 3, .max_tokens = 40 + 10 * i, .sampler = {.temperature = 0.5f, .top_p = 1, .seed = i}};
        assert_int_equal(dil_runner_submit(r, &req, collect, &jobs[i], NULL, NULL), DIL_OK);
    }
    for (uint32_t i = 0; i < 24; i++) {
        while (!atomic_load(&jobs[i].done)) dil_sleep_ns(100000);
        int32_t prompt[] = {(int32_t)(i % VOCAB), 3, 5}, want[N_CTX];
        dil_gen_req req = {.prompt = prompt, .n_prompt = 3, .max_tokens = 40 + 10 * i, .sampler = {.temperature = 0.5f, .top_p = 1, .seed = i}};
        uint32_t n;
        assert_int_equal(dil_runner_generate(plain, &req, want, &n, NULL, NULL), DIL_OK);
        assert_int_equal(jobs[i].n, n);
        assert_memory_equal(jobs[i].tokens, want, n * sizeof *want);
    }
    dil_runner_close(r);
    dil_runner_close(plain);
}

/* --- the rule ------------------------------------------------------------------------------------------------------------------ */

/* The next three tokens after {1, 2} when {4, 0} were guessed: their joint distribution against the product of the softmaxes. */
static void sampled_tokens_have_the_distribution_of_the_logits(void **state)
{
    (void)state;
    enum { RUNS = 60000 };
    static double expected[VOCAB][VOCAB], seen[VOCAB][VOCAB];
    dil__picker p;
    dil_err err;
    assert_int_equal(dil__picker_init(&p, 1, VOCAB, &err), DIL_OK);
    float l[VOCAB];
    for (int32_t a = 0; a < VOCAB; a++) {
        int32_t text[] = {1, 2, a};
        double pa, sum = 0;
        logits_after(text, 2, l);
        for (int v = 0; v < VOCAB; v++) sum += exp((double)l[v]);
        pa = exp((double)l[a]) / sum;
        logits_after(text, 3, l);
        sum = 0;
        for (int v = 0; v < VOCAB; v++) sum += exp((double)l[v]);
        for (int b = 0; b < VOCAB; b++) expected[a][b] = pa * exp((double)l[b]) / sum;
    }
    for (uint32_t run = 0; run < RUNS; run++) {
        dil__begin begin = {.slot = 0, .sampler = {.temperature = 1, .top_p = 1, .repeat_penalty = 1, .seed = run}};
        assert_int_equal(dil__picker_begin(&p, &begin, &err), DIL_OK);
        int32_t text[] = {1, 2, 4, 0}, pos[] = {1, 2, 3}, seq[] = {0, 0, 0};
        uint8_t want[] = {1, 1, 1};
        float logits[3 * VOCAB];
        for (uint32_t i = 0; i < 3; i++) logits_after(text, 2 + i, logits + VOCAB * i);
        dil_batch b = {.n_tokens = 3, .token = text + 1, .pos = pos, .seq = seq, .want = want};
        dil__row rows[3];
        uint32_t n;
        assert_int_equal(dil__picker_pick(&p, &b, logits, rows, &n, &err), DIL_OK);
        assert_int_equal(n, 3);
        int32_t first = rows[0].token, second = rows[1].token;
        assert_true((first == 4) == (second >= 0));
        if (second < 0) { /* the guess was wrong: a work of its own */
            assert_int_equal(rows[2].token, -1);
            int32_t again[] = {1, 2, first};
            logits_after(again, 3, logits);
            dil_batch one = {.n_tokens = 1, .token = again + 2, .pos = pos + 1, .seq = seq, .want = want};
            assert_int_equal(dil__picker_pick(&p, &one, logits, rows, &n, &err), DIL_OK);
            second = rows[0].token;
        } else {
            assert_true((second == 0) == (rows[2].token >= 0));
        }
        seen[first][second]++;
    }
    double chi2 = 0;
    for (int a = 0; a < VOCAB; a++) {
        for (int b = 0; b < VOCAB; b++) chi2 += pow(seen[a][b] - RUNS * expected[a][b], 2) / (RUNS * expected[a][b]);
    }
    print_message("    chi square %.1f of %d degrees\n", chi2, VOCAB * VOCAB - 1);
    assert_true(chi2 < 143 + 4.5 * sqrt(2 * 143)); /* the seeds are fixed; a wrong rule gives thousands */
    dil__picker_fini(&p);
}

/* --- guesses ------------------------------------------------------------------------------------------------------------------ */

static void guesses_are_what_followed_the_last_time(void **state)
{
    (void)state;
    dil__draft *d = dil__draft_new(100);
    dil__pace p = {0};
    int32_t out[DIL__DRAFT_MAX];
    const int32_t text[] = {5, 6, 7, 8, 9, 1, 6, 7, 2, 3, 6, 7, 8};
    assert_int_equal(dil__draft_guess(d, &p, text, 5, 4, 1, 9, out), 0); /* nothing was said twice yet */
    assert_int_equal(dil__draft_guess(d, &p, text, 8, 4, 1, 9, out), 4);
    assert_memory_equal(out, ((int32_t[]){8, 9, 1, 6}), 16);
    assert_int_equal(dil__draft_guess(d, &p, text, 12, 3, 1, 9, out), 3);
    assert_memory_equal(out, ((int32_t[]){2, 3, 6}), 12);               /* the latest, not the first */
    assert_int_equal(dil__draft_guess(d, &p, text, 13, 2, 1, 9, out), 2);
    assert_memory_equal(out, ((int32_t[]){9, 1}), 8);                   /* the longest agreement, not the latest */
    assert_int_equal(dil__draft_guess(d, &p, text, 13, 9, 1, 1, out), 1);
    dil__draft_free(d);
    d = dil__draft_new(100);
    const int32_t loop[] = {4, 1, 2, 3, 1, 2, 3};
    assert_int_equal(dil__draft_guess(d, &p, loop, 7, 8, 1, 8, out), 8);
    assert_memory_equal(out, ((int32_t[]){1, 2, 3, 1, 2, 3, 1, 2}), 32);
    dil__draft_free(d);
}

static uint32_t depth_of(double link_sec, double more, uint32_t n_streams, uint32_t right_of_ten)
{
    dil__draft *d = dil__draft_new(64);
    dil__pace p = {.link_sec = link_sec, .rows_sec = {[1] = 0.014}, .more = more};
    int32_t text[64], out[DIL__DRAFT_MAX];
    for (int i = 0; i < 64; i++) text[i] = i % 20;
    for (uint32_t i = 0; i < 200; i++) {
        dil__draft_guess(d, &p, text, 40, 1, 1, 1, out);
        dil__draft_learn(d, &p, 1, i % 10 < right_of_ten);
    }
    uint32_t n = dil__draft_guess(d, &p, text, 40, DIL_SPECULATE_AUTO, n_streams, DIL__DRAFT_MAX, out);
    dil__draft_free(d);
    return n;
}

static void as_many_are_guessed_as_pay(void **state)
{
    (void)state;
    assert_int_equal(depth_of(0.06, 0.5, 1, 10), DIL__DRAFT_MAX);  /* long links, always right */
    assert_int_equal(depth_of(0.06, 0.5, 1, 0), 0);                /* never right */
    assert_int_equal(depth_of(0, 1, 1, 10), 0);                    /* no links, and a row costs what a token costs */
    assert_true(depth_of(0, 0.1, 1, 10) > 5);                      /* no links, but rows are cheap */
    assert_true(depth_of(0.06, 0.5, 1, 7) < depth_of(0.06, 0.5, 1, 9));
    assert_true(depth_of(0.06, 0.9, 8, 9) < depth_of(0.06, 0.9, 1, 9)); /* others use the links meanwhile */
    dil__pace p = {0};
    for (int i = 0; i < 200; i++) {
        dil__pace_note(&p, 1, 0.074, 0.014, true);
        dil__pace_note(&p, 4, 0.095, 0.035, true);
        dil__pace_note(&p, 1, 0.5, 0.014, false);
    }
    assert_true(fabs(p.link_sec - 0.06) < 1e-6 && fabs(p.rows_sec[1] - 0.014) < 1e-6 && fabs(p.more - 0.5) < 1e-6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(guesses_are_what_followed_the_last_time),
        cmocka_unit_test(as_many_are_guessed_as_pay),
        cmocka_unit_test(texts_are_those_without_guesses),
        cmocka_unit_test(rounds_are_passes_without_guesses_or_prompts),
        cmocka_unit_test(streams_beside_each_other_keep_their_texts),
        cmocka_unit_test(sampled_tokens_have_the_distribution_of_the_logits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
