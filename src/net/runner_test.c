/* labels: threads */
/* The scheduler over a pipe that computes a known function of each sequence's own tokens: any mix-up of slots, positions or
 * order shows as a wrong token. Depths above one answer late and, in a thread of its own, at random times. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "net/pipe.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { VOCAB = 1000, N_CTX = 512, CHUNK = 16, MAX_WANT = 64 };

/* The next token after tokens[0..n). */
static int32_t oracle(const int32_t *tokens, uint32_t n)
{
    uint64_t h = 1469598103934665603u;
    for (uint32_t i = 0; i < n; i++) h = (h ^ (uint64_t)tokens[i]) * 1099511628211u;
    return (int32_t)((h >> 20) % VOCAB);
}

typedef struct answer {
    uint64_t id;
    dil__row rows[MAX_WANT];
    uint32_t n_rows;
    bool failed;
} answer;

typedef struct fake {
    dil__pipe pipe;
    int32_t kv[64][N_CTX];
    uint32_t shape_of[64][N_CTX]; /* of the stream of this seed */
    uint64_t seed[64];
    uint32_t len[64];
    bool begun[64];
    answer ring[DIL__DEPTH_MAX], current;
    uint32_t head, n;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool woken, reset, down;
    atomic_bool ready;
    atomic_uint max_flying, n_works, n_mixed, fail_at, hold; /* hold 1: answers are kept back */
    atomic_uint seen_decode_group, n_continued, n_losses_left;
    dil_rng loss;
} fake;

/* With fixed shapes a position is computed in the same shape whenever it is computed: alone, or in a chunk that starts at the same place. */
static void note_shape(fake *f, const dil__work *w, uint32_t i)
{
    if (!f->pipe.fixed_shapes) return;
    uint32_t first = i, last = i;
    while (first > 0 && w->batch.seq[first - 1] == w->batch.seq[i]) first--;
    while (last + 1 < w->batch.n_tokens && w->batch.seq[last + 1] == w->batch.seq[i]) last++;
    int32_t slot = w->batch.seq[i], pos = w->batch.pos[i];
    uint32_t shape = 1 + (uint32_t)w->batch.pos[first] * 1000 + (last - first);
    if (f->shape_of[slot][pos]) assert_int_equal(f->shape_of[slot][pos], shape);
    f->shape_of[slot][pos] = shape;
}

static dil_status fake_submit(dil__pipe *p, const dil__work *w, dil_err *err)
{
    fake *f = (fake *)p;
    assert_false(f->down);
    if (!atomic_load(&f->ready)) return dil_fail(err, DIL_ENET, "fake is down");
    answer a = {.id = w->id};
    for (uint32_t i = 0; i < w->n_begin; i++) {
        assert_true(w->begin[i].n_prompt <= w->begin[i].n_known);
        if (w->begin[i].n_known > w->begin[i].n_prompt) atomic_fetch_add(&f->n_continued, 1);
        f->len[w->begin[i].slot] = 0;
        if (f->seed[w->begin[i].slot] != w->begin[i].sampler.seed) memset(f->shape_of[w->begin[i].slot], 0, sizeof f->shape_of[0]);
        f->seed[w->begin[i].slot] = w->begin[i].sampler.seed;
        f->begun[w->begin[i].slot] = true;
    }
    uint32_t seqs = 0;
    for (uint32_t i = 0; i < w->batch.n_tokens; i++) {
        int32_t s = w->batch.seq[i];
        assert_true(s >= 0 && (uint32_t)s < p->n_seq);
        assert_true(f->begun[s]);
        assert_int_equal(w->batch.pos[i], f->len[s]);
        f->kv[s][f->len[s]++] = w->batch.token[i];
        if (i == 0 || s != w->batch.seq[i - 1]) seqs++;
        note_shape(f, w, i);
        if (w->batch.want[i]) a.rows[a.n_rows++] = (dil__row){.token = oracle(f->kv[s], f->len[s]), .logprob = -1.0f};
    }
    assert_true(w->batch.n_tokens <= CHUNK);
    if (seqs > 1) atomic_store(&f->seen_decode_group, seqs);
    unsigned n = atomic_fetch_add(&f->n_works, 1) + 1;
    a.failed = n == atomic_load(&f->fail_at);
    pthread_mutex_lock(&f->lock);
    assert_true(f->n < (p->pieces.most_sec > 0 ? 2 : 1) * p->depth);
    f->ring[(f->head + f->n++) % DIL__DEPTH_MAX] = a;
    if (f->n > atomic_load(&f->max_flying)) atomic_store(&f->max_flying, f->n);
    if (atomic_load(&f->n_losses_left) && dil_rng_below(&f->loss, 25) == 0) {
        atomic_fetch_sub(&f->n_losses_left, 1);
        f->reset = true;
    }
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
    return DIL_OK;
}

static void fake_wait(dil__pipe *p, int64_t timeout_ns, dil__pipe_event *out)
{
    (void)timeout_ns;
    fake *f = (fake *)p;
    *out = (dil__pipe_event){0};
    pthread_mutex_lock(&f->lock);
    while (!f->woken && !f->reset && !f->down && (f->n == 0 || atomic_load(&f->hold))) pthread_cond_wait(&f->changed, &f->lock);
    if (f->reset) {
        f->reset = false;
        f->n = 0;
        f->down = true;
        out->kind = DIL__PIPE_RESET;
        memset(f->begun, 0, sizeof f->begun);
        dil_fail(&out->err, DIL_ENET, "node b vanished");
    } else if (f->down) {
        f->down = false;
        out->kind = DIL__PIPE_UP;
    } else if (f->n && !atomic_load(&f->hold)) {
        f->current = f->ring[f->head];
        f->head = (f->head + 1) % DIL__DEPTH_MAX;
        f->n--;
        *out = (dil__pipe_event){.kind = f->current.failed ? DIL__PIPE_FAILED : DIL__PIPE_RESULT, .id = f->current.id,
                                 .rows = f->current.rows, .n_rows = f->current.n_rows};
        if (f->current.failed) dil_fail(&out->err, DIL_EDATA, "fake failure");
    }
    f->woken = false;
    pthread_mutex_unlock(&f->lock);
}

static void fake_wake(dil__pipe *p)
{
    fake *f = (fake *)p;
    pthread_mutex_lock(&f->lock);
    f->woken = true;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
}

static void fake_state(dil__pipe *p, dil_runner_state *out)
{
    fake *f = (fake *)p;
    out->ready = atomic_load(&f->ready);
    snprintf(out->why, sizeof out->why, "%s", out->ready ? "" : "fake is down");
}

static void fake_close(dil__pipe *p)
{
    fake *f = (fake *)p;
    pthread_mutex_destroy(&f->lock);
    pthread_cond_destroy(&f->changed);
    free(f);
}

static const dil__pipe_ops fake_ops = {fake_submit, fake_wait, fake_wake, fake_state, fake_close};

static dil_runner *runner_shaped(fake **f, uint32_t n_seq, uint32_t depth, uint32_t queue_max, bool fixed_shapes)
{
    *f = calloc(1, sizeof **f);
    (*f)->pipe = (dil__pipe){.ops = &fake_ops, .n_ctx = N_CTX, .n_seq = n_seq, .n_vocab = VOCAB, .chunk = CHUNK, .depth = depth, .fixed_shapes = fixed_shapes};
    atomic_store(&(*f)->ready, true);
    pthread_mutex_init(&(*f)->lock, NULL);
    pthread_cond_init(&(*f)->changed, NULL);
    dil_runner *r = NULL;
    dil_err err;
    assert_int_equal(dil__runner_new(&(*f)->pipe, queue_max, &r, &err), DIL_OK);
    return r;
}

static dil_runner *runner_of(fake **f, uint32_t n_seq, uint32_t depth, uint32_t queue_max)
{
    return runner_shaped(f, n_seq, depth, queue_max, false);
}

static void hold(fake *f, bool on)
{
    pthread_mutex_lock(&f->lock);
    atomic_store(&f->hold, on);
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
}

typedef struct job { /* one request as its client sees it */
    int32_t tokens[N_CTX + 1];
    uint32_t n_prompt, n;
    uint64_t id;
    dil_gen_kind kind;
    dil_gen_finish finish;
    dil_status status;
    unsigned order;
    atomic_bool done;
    atomic_uint got;
} job;

static atomic_uint done_order;

static void on_event(void *ctx, uint64_t id, const dil_gen_event *ev)
{
    (void)id;
    job *j = ctx;
    assert_false(atomic_load(&j->done));
    if (ev->kind == DIL_GEN_TOKEN) {
        j->tokens[j->n++] = ev->token;
        atomic_store(&j->got, j->n - j->n_prompt);
        return;
    }
    j->kind = ev->kind;
    j->finish = ev->finish;
    j->status = ev->kind == DIL_GEN_ERROR ? ev->error->code : DIL_OK;
    j->order = atomic_fetch_add(&done_order, 1);
    atomic_store(&j->done, true);
}

static job *start(dil_runner *r, uint64_t seed, uint32_t n_prompt, uint32_t max_tokens, dil_status want)
{
    job *j = calloc(1, sizeof *j);
    dil_rng rng;
    dil_rng_init(&rng, seed);
    for (uint32_t i = 0; i < n_prompt; i++) j->tokens[i] = (int32_t)dil_rng_below(&rng, VOCAB);
    j->n = j->n_prompt = n_prompt;
    dil_err err = {0};
    dil_gen_req req = {.prompt = j->tokens, .n_prompt = n_prompt, .max_tokens = max_tokens, .sampler.seed = seed + 1};
    dil_status s = dil_runner_submit(r, &req, on_event, j, &j->id, &err);
    if (s != want) print_error("submit: %s\n", err.text);
    assert_int_equal(s, want);
    return j;
}

static void wait_for(job *j)
{
    while (!atomic_load(&j->done)) dil_sleep_ns(100000);
}

static void check_text(const job *j)
{
    for (uint32_t i = j->n_prompt; i < j->n; i++) assert_int_equal(j->tokens[i], oracle(j->tokens, i));
}

static void many_streams_each_get_their_own_text(uint32_t n_seq, uint32_t depth)
{
    fake *f;
    dil_runner *r = runner_of(&f, n_seq, depth, 256);
    job *jobs[100];
    for (uint32_t i = 0; i < 100; i++) jobs[i] = start(r, i, 1 + (i * 37) % 120, 1 + (i * 13) % 60, DIL_OK);
    for (uint32_t i = 0; i < 100; i++) {
        wait_for(jobs[i]);
        assert_int_equal(jobs[i]->kind, DIL_GEN_DONE);
        assert_int_equal(jobs[i]->finish, DIL_FINISH_LENGTH);
        assert_int_equal(jobs[i]->n - jobs[i]->n_prompt, 1 + (i * 13) % 60);
        check_text(jobs[i]);
        free(jobs[i]);
    }
    assert_true(atomic_load(&f->max_flying) <= depth);
    dil_runner_state st;
    dil_runner_get_state(r, &st);
    assert_int_equal(st.requests, 100);
    assert_int_equal(st.failures, 0);
    dil_runner_close(r);
}

static void texts_are_right_with_one_stage(void **s) { (void)s; many_streams_each_get_their_own_text(8, 1); }
static void texts_are_right_with_a_deep_pipe(void **s) { (void)s; many_streams_each_get_their_own_text(12, 4); }
static void texts_are_right_with_one_slot(void **s) { (void)s; many_streams_each_get_their_own_text(1, 3); }

static void sequences_split_into_groups_that_fill_the_stages(void **state)
{
    (void)state;
    fake *f;
    dil_runner *r = runner_of(&f, 8, 4, 64);
    hold(f, true);
    job *jobs[8];
    for (uint32_t i = 0; i < 8; i++) jobs[i] = start(r, i, 4, 300, DIL_OK);
    hold(f, false);
    for (uint32_t i = 0; i < 8; i++) {
        wait_for(jobs[i]);
        check_text(jobs[i]);
        free(jobs[i]);
    }
    assert_int_equal(atomic_load(&f->max_flying), 4);
    assert_int_equal(atomic_load(&f->seen_decode_group), 2); /* eight sequences over four stages */
    dil_runner_close(r);
}

static void chunks_of_one_prompt_follow_each_other_into_the_pipe(void **state)
{
    (void)state;
    fake *f;
    dil_runner *r = runner_of(&f, 2, 4, 64);
    hold(f, true);
    job *j = start(r, 7, 10 * CHUNK, 2, DIL_OK);
    while (atomic_load(&f->max_flying) < 4) dil_sleep_ns(100000);
    hold(f, false);
    wait_for(j);
    check_text(j);
    assert_int_equal(atomic_load(&f->n_works), 11);
    free(j);
    dil_runner_close(r);
}

static void pieces_of_a_prompt_that_is_alone_go_twice_as_deep(void **state)
{
    (void)state;
    fake *f;
    dil_runner *r = runner_of(&f, 2, 3, 64);
    f->pipe.pieces = (dil__pieces){0.001, 0.006, 0.002}; /* pieces of 16 tokens: a chunk */
    hold(f, true);
    job *j = start(r, 7, 16 * CHUNK, 2, DIL_OK);
    while (atomic_load(&f->max_flying) < 6) dil_sleep_ns(100000);
    hold(f, false);
    wait_for(j);
    check_text(j);
    assert_int_equal(atomic_load(&f->n_works), 17);
    atomic_store(&f->max_flying, 0);
    job *a = start(r, 8, 16 * CHUNK, 30, DIL_OK), *b = start(r, 9, 8 * CHUNK, 30, DIL_OK);
    wait_for(a);
    wait_for(b);
    check_text(a);
    check_text(b);
    free(j);
    free(a);
    free(b);
    dil_runner_close(r);
}

static void pieces_are_those_of_least_time(void **state)
{
    (void)state;
    assert_int_equal(dil__piece_tokens(&(dil__pieces){0}, 1000, 128), 128);
    assert_int_equal(dil__piece_tokens(&(dil__pieces){10, 0.003, 0.001}, 1000, 128), 128); /* what comes with a piece is all that counts */
    assert_int_equal(dil__piece_tokens(&(dil__pieces){0.001, 0.006, 0.002}, 1000, 128), 64);
    assert_int_equal(dil__piece_tokens(&(dil__pieces){0.001, 0.006, 0.002}, 100, 128), 16);
    assert_int_equal(dil__piece_tokens(&(dil__pieces){0.001, 0.006, 0.002}, 100, 8), 8);
}

static void pieces_of_a_plan_are_counted_as_by_hand(void **state)
{
    (void)state;
    const char *names[] = {"a", "b"};
    double one[] = {0, 0, 0.010, 0.020, 0.010, 0.020, 0.5, 0.5}, more[] = {0, 0, 0.004, 0.008, 0.004, 0.008, 0.5, 0.5}; /* [4][2] */
    dil_plan_costs costs = {.nodes = names, .n_nodes = 2, .batch = 128, .decode_sec = one, .prefill_sec = more};
    dil_plan_stage stages[] = {{.node = "a", .first_layer = 0, .last_layer = 1}, {.node = "b", .first_layer = 2, .last_layer = 2}, {.node = "a", .first_layer = 3, .last_layer = 3}};
    dil_cluster_node nodes[] = {{.name = "a"}, {.name = "b"}};
    dil_cluster_link links[] = {{.from = 0, .to = 1, .bytes_per_sec = 1e6}, {.from = 1, .to = 0, .bytes_per_sec = 1e9}};
    dil_cluster cluster = {.nodes = nodes, .n_nodes = 2, .links = links, .n_links = 2};
    dil_plan plan = {.n_layers = 4, .stages = stages, .n_stages = 3, .costs = &costs};
    dil__pieces p = dil__pieces_of_plan(&plan, &cluster, 1000, 4);
    assert_float_equal(p.most_sec, 0.008, 1e-9);
    assert_float_equal(p.sum_sec, 0.004 + 0.004 + 0.008 + 0.000004, 1e-9); /* the head sees one token */
    assert_float_equal(p.more_sec, 0.012 + 0.0008, 1e-9);
    links[0].bytes_per_sec = 1e5;
    assert_float_equal(dil__pieces_of_plan(&plan, &cluster, 1000, 4).most_sec, 0.040, 1e-9);
    stages[1].node = "a";
    assert_true(dil__pieces_of_plan(&plan, &cluster, 1000, 4).most_sec == 0); /* one node */
    plan.costs = NULL;
    assert_true(dil__pieces_of_plan(&plan, &cluster, 1000, 4).most_sec == 0);
}

static void a_full_queue_is_said_with_its_numbers(void **state)
{
    (void)state;
    fake *f;
    dil_runner *r = runner_of(&f, 1, 1, 2);
    hold(f, true);
    job *a = start(r, 1, 3, 5, DIL_OK);
    dil_runner_state st;
    do dil_runner_get_state(r, &st);
    while (st.n_active != 1);
    job *b = start(r, 2, 3, 5, DIL_OK), *c = start(r, 3, 3, 5, DIL_OK), *d = start(r, 4, 3, 5, DIL_EBUSY);
    hold(f, false);
    wait_for(a);
    wait_for(b);
    wait_for(c);
    assert_true(a->order < b->order && b->order < c->order);
    check_text(c);
    free(a); free(b); free(c); free(d);
    dil_runner_close(r);
}

static void a_long_prompt_does_not_stop_running_streams(void **state)
{
    (void)state;
    fake *f;
    dil_runner *r = runner_of(&f, 2, 1, 8);
    job *a = start(r, 1, 2, 400, DIL_OK);
    while (atomic_load(&a->got) < 5) dil_sleep_ns(1000);
    hold(f, true);
    unsigned before = atomic_load(&a->got);
    job *b = start(r, 2, 20 * CHUNK, 1, DIL_OK);
    hold(f, false);
    wait_for(b);
    unsigned during = atomic_load(&a->got) - before;
    wait_for(a);
    assert_true(during >= 19 || a->order < b->order);
    check_text(a);
    check_text(b);
    free(a); free(b);
    dil_runner_close(r);
}

static void canceling_ends_a_running_and_a_waiting_request(void **state)
{
    (void)state;
    fake *f;
    dil_runner *r = runner_of(&f, 1, 2, 8);
    hold(f, true);
    job *a = start(r, 1, 5 * CHUNK, 50, DIL_OK), *b = start(r, 2, 3, 5, DIL_OK), *c = start(r, 3, 3, 5, DIL_OK);
    while (atomic_load(&f->max_flying) < 2) dil_sleep_ns(100000);
    dil_runner_cancel(r, b->id);
    dil_runner_cancel(r, a->id);
    wait_for(a);
    wait_for(b);
    assert_int_equal(a->finish, DIL_FINISH_CANCELED);
    assert_int_equal(b->finish, DIL_FINISH_CANCELED);
    assert_false(atomic_load(&c->done));
    hold(f, false);
    wait_for(c);
    assert_int_equal(c->finish, DIL_FINISH_LENGTH);
    check_text(c);
    free(a); free(b); free(c);
    dil_runner_close(r);
}

static void a_failed_work_fails_its_requests_only(void **state)
{
    (void)state;
    fake *f;
    dil_runner *r = runner_of(&f, 1, 1, 8);
    atomic_store(&f->fail_at, 3);
    job *a = start(r, 1, 2, 50, DIL_OK), *b = start(r, 2, 2, 50, DIL_OK);
    wait_for(a);
    wait_for(b);
    assert_int_equal(a->status, DIL_EDATA);
    assert_int_equal(b->kind, DIL_GEN_DONE);
    check_text(b);
    free(a); free(b);
    dil_runner_close(r);
}

/* Losses at arbitrary moments, many of them, while prompts and texts of many lengths run: each text is whole, nothing is repeated. */
static void texts_are_right_over_losses(uint32_t n_seq, uint32_t depth, bool fixed)
{
    fake *f;
    dil_runner *r = runner_shaped(&f, n_seq, depth, 256, fixed);
    hold(f, true);
    dil_rng_init(&f->loss, 11 + depth);
    atomic_store(&f->n_losses_left, 40);
    job *jobs[60];
    for (uint32_t i = 0; i < 60; i++) jobs[i] = start(r, i, 1 + (i * 37) % 120, 1 + (i * 13) % 90, DIL_OK);
    hold(f, false);
    for (uint32_t i = 0; i < 60; i++) {
        wait_for(jobs[i]);
        assert_int_equal(jobs[i]->kind, DIL_GEN_DONE);
        assert_int_equal(jobs[i]->n - jobs[i]->n_prompt, 1 + (i * 13) % 90);
        check_text(jobs[i]);
        free(jobs[i]);
    }
    assert_int_equal(atomic_load(&f->n_losses_left), 0);
    assert_true(atomic_load(&f->n_continued) > 0);
    dil_runner_state st;
    dil_runner_get_state(r, &st);
    assert_int_equal(st.failures, 0);
    assert_true(st.n_recoveries > 0);
    uint64_t want_in = 0;
    for (uint32_t i = 0; i < 60; i++) want_in += 1 + (i * 37) % 120;
    assert_int_equal(st.tokens_in, want_in); /* a replay is not counted again */
    dil_runner_close(r);
}

static void a_loss_costs_no_token(void **s) { (void)s; texts_are_right_over_losses(5, 3, false); }
static void a_loss_costs_no_token_with_one_slot(void **s) { (void)s; texts_are_right_over_losses(1, 1, false); }
static void a_loss_costs_no_token_in_fixed_shapes(void **s) { (void)s; texts_are_right_over_losses(5, 3, true); }

static void what_cannot_be_served_is_refused(void **state)
{
    (void)state;
    fake *f;
    dil_runner *r = runner_of(&f, 1, 1, 8);
    dil_err err;
    int32_t bad[2] = {1, VOCAB};
    int32_t *longp = calloc(N_CTX, sizeof *longp);
    job j = {0};
    dil_gen_req req = {.prompt = bad, .n_prompt = 2, .max_tokens = 1};
    assert_int_equal(dil_runner_submit(r, &req, on_event, &j, NULL, &err), DIL_EDATA);
    req = (dil_gen_req){.prompt = longp, .n_prompt = N_CTX, .max_tokens = 1};
    assert_int_equal(dil_runner_submit(r, &req, on_event, &j, NULL, &err), DIL_ELIMIT);
    req.n_prompt = 0;
    assert_int_equal(dil_runner_submit(r, &req, on_event, &j, NULL, &err), DIL_EUSAGE);
    atomic_store(&f->ready, false);
    req.n_prompt = 1;
    assert_int_equal(dil_runner_submit(r, &req, on_event, &j, NULL, &err), DIL_ENET);
    free(longp);
    dil_runner_close(r);
}

static void generation_ends_where_the_context_does_and_at_a_stop(void **state)
{
    (void)state;
    fake *f;
    dil_runner *r = runner_of(&f, 1, 1, 8);
    job *a = start(r, 5, N_CTX - 3, 100, DIL_OK);
    wait_for(a);
    assert_int_equal(a->n, N_CTX);
    assert_int_equal(a->finish, DIL_FINISH_LENGTH);
    check_text(a);
    int32_t prompt[3] = {1, 2, 3}, text[8] = {1, 2, 3}, out[8];
    for (uint32_t i = 3; i < 8; i++) text[i] = oracle(text, i);
    dil_gen_event done;
    uint32_t n;
    dil_err err;
    dil_gen_req req = {.prompt = prompt, .n_prompt = 3, .max_tokens = 8, .stop = &text[6], .n_stop = 1};
    assert_int_equal(dil_runner_generate(r, &req, out, &n, &done, &err), DIL_OK);
    assert_int_equal(n, 3);
    assert_int_equal(done.finish, DIL_FINISH_STOP);
    assert_memory_equal(out, text + 3, 3 * sizeof *out);
    free(a);
    dil_runner_close(r);
}

static void an_earlier_run_is_told_again_and_goes_on(void **state)
{
    (void)state;
    fake *f;
    dil_runner *r = runner_of(&f, 2, 2, 8);
    int32_t text[40] = {1, 2, 3}, out[40];
    for (uint32_t i = 3; i < 40; i++) text[i] = oracle(text, i);
    uint32_t n;
    dil_gen_event done;
    dil_err err;
    dil_gen_req req = {.prompt = text, .n_prompt = 3, .max_tokens = 30, .resumed = text + 3, .n_resumed = 12};
    assert_int_equal(dil_runner_generate(r, &req, out, &n, &done, &err), DIL_OK);
    assert_int_equal(n, 30);
    assert_memory_equal(out, text + 3, 30 * sizeof *out);
    assert_int_equal(done.finish, DIL_FINISH_LENGTH);
    unsigned works = atomic_load(&f->n_works);
    req.n_resumed = 30; /* all of it was there, and one where it had stopped */
    assert_int_equal(dil_runner_generate(r, &req, out, &n, &done, &err), DIL_OK);
    assert_int_equal(n, 30);
    req.n_resumed = 7;
    req.resumed_stop = true;
    assert_int_equal(dil_runner_generate(r, &req, out, &n, &done, &err), DIL_OK);
    assert_int_equal(n, 7);
    assert_int_equal(done.finish, DIL_FINISH_STOP);
    req.n_resumed = 0;
    assert_int_equal(dil_runner_generate(r, &req, out, &n, &done, &err), DIL_OK);
    assert_int_equal(n, 0);
    assert_int_equal(atomic_load(&f->n_works), works);
    dil_runner_close(r);
}

static void a_retry_that_is_over_at_once_gives_its_slot_on(void **state)
{
    (void)state;
    fake *f;
    dil_runner *r = runner_of(&f, 1, 1, 8);
    hold(f, true);
    job *running = start(r, 1, 2, 20, DIL_OK), *retry = calloc(1, sizeof *retry);
    dil_gen_req req = {.prompt = (int32_t[]){1, 2}, .n_prompt = 2, .max_tokens = 3, .resumed = (int32_t[]){3, 4, 5}, .n_resumed = 3};
    assert_int_equal(dil_runner_submit(r, &req, on_event, retry, &retry->id, NULL), DIL_OK);
    job *waiting = start(r, 2, 2, 5, DIL_OK);
    hold(f, false);
    wait_for(running);
    wait_for(retry);
    wait_for(waiting); /* nothing else wakes the scheduler for it */
    check_text(waiting);
    free(running); free(retry); free(waiting);
    dil_runner_close(r);
}

static void closing_ends_what_runs(void **state)
{
    (void)state;
    fake *f;
    dil_runner *r = runner_of(&f, 1, 1, 8);
    hold(f, true);
    job *a = start(r, 1, 2, 50, DIL_OK), *b = start(r, 2, 2, 50, DIL_OK);
    dil_runner_close(r);
    assert_int_equal(a->status, DIL_ECANCELED);
    assert_int_equal(b->status, DIL_ECANCELED);
    free(a); free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_are_right_with_one_stage),
        cmocka_unit_test(texts_are_right_with_a_deep_pipe),
        cmocka_unit_test(texts_are_right_with_one_slot),
        cmocka_unit_test(sequences_split_into_groups_that_fill_the_stages),
        cmocka_unit_test(chunks_of_one_prompt_follow_each_other_into_the_pipe),
        cmocka_unit_test(pieces_of_a_prompt_that_is_alone_go_twice_as_deep),
        cmocka_unit_test(pieces_are_those_of_least_time),
        cmocka_unit_test(pieces_of_a_plan_are_counted_as_by_hand),
        cmocka_unit_test(a_full_queue_is_said_with_its_numbers),
        cmocka_unit_test(a_long_prompt_does_not_stop_running_streams),
        cmocka_unit_test(canceling_ends_a_running_and_a_waiting_request),
        cmocka_unit_test(a_failed_work_fails_its_requests_only),
        cmocka_unit_test(a_loss_costs_no_token),
        cmocka_unit_test(a_loss_costs_no_token_with_one_slot),
        cmocka_unit_test(a_loss_costs_no_token_in_fixed_shapes),
        cmocka_unit_test(what_cannot_be_served_is_refused),
        cmocka_unit_test(generation_ends_where_the_context_does_and_at_a_stop),
        cmocka_unit_test(an_earlier_run_is_told_again_and_goes_on),
        cmocka_unit_test(a_retry_that_is_over_at_once_gives_its_slot_on),
        cmocka_unit_test(closing_ends_what_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
