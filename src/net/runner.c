/* The scheduler: continuous batching over a pipe (net/pipe.h), written once for the local stage and for the ring.
 *
 * Each request goes through one rule: it has tokens that are known (the prompt, then what was sampled) and of these some are
 * fed. One unfed token makes it a candidate for a decode work; more make it a candidate for a chunk. Decode works and chunks
 * alternate, so that neither new prompts nor running streams wait for more than one work of the other kind. With a pipe of
 * several stages the decoding sequences split into as many groups as the pipe is deep: while one group is in the second
 * stage the next is in the first. Mixing decode tokens into chunks was rejected: it would change the batch shape, and with
 * it the last bits of running streams, with every prompt that arrives.
 *
 * When the pipe loses what its slots held, every running request starts over with the tokens that it has: the prompt and what was
 * sampled go through as a prompt (with fixed shapes: in the shapes of the first time), and nobody outside notices but by the pause.
 *
 * A sequence that is decoded alone takes guesses of its next tokens along (net/draft.h); fed counts only those that were right.
 *
 * One thread owns requests and pipe. Others only append to the queue, set cancel flags, and wake it. */
#include "net/draft.h"
#include "net/pipe.h"
#include "net/request.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

typedef struct part { /* one sequence's share of a work */
    uint32_t slot, n_wants;
} part;

typedef struct flight {
    uint64_t id; /* 0: free */
    uint32_t n_parts;
    part *parts; /* [n_seq] */
    bool decode, alone;
    int64_t sent_ns;
    uint32_t n_guesses; /* of the only part */
    int32_t guess[DIL__DRAFT_MAX];
} flight;

struct dil_runner {
    dil__pipe *pipe;
    pthread_t thread;
    bool started;

    pthread_mutex_t lock; /* guards queue, n_queue, next_id, and the slots' pointers against cancel */
    dil__request **queue;      /* [queue_max], oldest first */
    uint32_t n_queue, queue_max;
    uint64_t next_id;
    atomic_bool mail, closing;

    dil__request **slot; /* [n_seq] */
    flight *flights; /* [depth] */
    uint32_t n_flying, turn;
    bool chunk_next;
    bool down;       /* between RESET and UP */
    uint64_t next_work;
    int32_t *token, *pos, *seq; /* [chunk] the work being built */
    uint8_t *want;
    dil__begin *begin; /* [n_seq] */
    dil__pace pace;
    atomic_int speculate; /* dil_runner_speculate */
    atomic_uint_fast64_t n_guessed, n_right;

    atomic_uint n_active, n_queued, n_recoveries;
    atomic_uint_fast64_t tokens_in, tokens_out, requests, failures;
    atomic_int_fast64_t token_ns;
};

static void fail_request(dil_runner *r, dil__request *q, const dil_err *e)
{
    atomic_fetch_add(&r->failures, 1);
    dil__request_fail(q, e);
}

static void take_token(dil_runner *r, dil__request *q, const dil__row *row)
{
    int64_t old = atomic_load(&r->token_ns), dt = dil__request_tick(q);
    if (dt) atomic_store(&r->token_ns, old ? old + (dt - old) / 8 : dt);
    if (!dil__request_stops(q, row->token)) atomic_fetch_add(&r->tokens_out, 1); /* before it is told */
    dil__request_take(q, row);
}

/* --- slots ---------------------------------------------------------------------------------------------------------- */

/* A slot is free again when nothing of its request is in flight any more: results are matched by slot. */
static void release_ended(dil_runner *r)
{
    for (uint32_t i = 0; i < r->pipe->n_seq; i++) {
        dil__request *q = r->slot[i];
        if (!q || !q->ended || q->n_flying) continue;
        pthread_mutex_lock(&r->lock);
        r->slot[i] = NULL;
        pthread_mutex_unlock(&r->lock);
        dil__request_free(q);
        atomic_fetch_sub(&r->n_active, 1);
    }
}

static dil__request *take_queued(dil_runner *r, uint32_t i)
{
    dil__request *q = r->queue[i];
    memmove(r->queue + i, r->queue + i + 1, (r->n_queue - i - 1) * sizeof *r->queue);
    r->n_queue--;
    atomic_store(&r->n_queued, r->n_queue);
    return q;
}

static dil__request *next_canceled(dil_runner *r)
{
    dil__request *q = NULL;
    pthread_mutex_lock(&r->lock);
    for (uint32_t i = 0; i < r->n_queue && !q; i++) {
        if (atomic_load(&r->queue[i]->canceled)) q = take_queued(r, i);
    }
    pthread_mutex_unlock(&r->lock);
    return q;
}

static void end_canceled(dil_runner *r)
{
    for (dil__request *q; (q = next_canceled(r));) {
        dil__request_end(q, DIL_FINISH_CANCELED);
        dil__request_free(q);
    }
    for (uint32_t i = 0; i < r->pipe->n_seq; i++) {
        dil__request *q = r->slot[i];
        if (q && !q->ended && atomic_load(&q->canceled)) dil__request_end(q, DIL_FINISH_CANCELED);
    }
}

static void admit(dil_runner *r)
{
    pthread_mutex_lock(&r->lock);
    for (uint32_t i = 0; i < r->pipe->n_seq && r->n_queue; i++) {
        if (r->slot[i]) continue;
        r->slot[i] = take_queued(r, 0);
        atomic_fetch_add(&r->n_active, 1);
    }
    pthread_mutex_unlock(&r->lock);
}

/* --- building works -------------------------------------------------------------------------------------------------- */

static uint32_t n_unfed(const dil__request *q)
{
    return q && !q->ended ? q->n_known - q->n_fed : 0;
}

/* Tokens that go through as a prompt: all that are known, but with fixed shapes never what was decoded one by one the first time. */
static uint32_t chunk_tokens(const dil_runner *r, const dil__request *q)
{
    uint32_t n = n_unfed(q);
    if (!r->pipe->fixed_shapes || n == 0) return n > 1 || (n == 1 && q->n_fed < q->n_prompt) ? n : 0;
    uint32_t left = q->n_fed < q->n_prompt ? q->n_prompt - q->n_fed : 0;
    return left < n ? left : n;
}

/* As many of them as travel together. */
static uint32_t piece_tokens(const dil_runner *r, const dil__request *q)
{
    uint32_t n = chunk_tokens(r, q), most = dil__piece_tokens(&r->pipe->pieces, q->n_known, r->pipe->chunk);
    return n < most ? n : most;
}

static bool wants_chunk(const dil_runner *r, const dil__request *q)
{
    return chunk_tokens(r, q) > 0;
}

static bool wants_decode(const dil_runner *r, const dil__request *q)
{
    return n_unfed(q) >= 1 && chunk_tokens(r, q) == 0;
}

static bool any(const dil_runner *r, bool (*wants)(const dil_runner *, const dil__request *))
{
    for (uint32_t i = 0; i < r->pipe->n_seq; i++) {
        if (wants(r, r->slot[i])) return true;
    }
    return false;
}

static flight *free_flight(dil_runner *r)
{
    for (uint32_t i = 0; i < DIL__DEPTH_MAX; i++) {
        if (!r->flights[i].id) return &r->flights[i];
    }
    return NULL;
}

static void add_part(dil_runner *r, dil__work *w, flight *f, uint32_t slot, uint32_t n)
{
    dil__request *q = r->slot[slot];
    if (!q->begun) r->begin[w->n_begin++] = (dil__begin){.slot = slot, .n_prompt = q->n_prompt, .n_known = q->n_known, .n_top = q->n_top, .sampler = q->sampler};
    q->begun = true;
    for (uint32_t k = 0; k < n; k++) {
        uint32_t at = w->batch.n_tokens++, p = q->n_fed + k;
        r->token[at] = q->tokens[p];
        r->pos[at] = (int32_t)p;
        r->seq[at] = (int32_t)slot;
        r->want[at] = p + 1 == q->n_known;
    }
    q->n_fed += n;
    uint32_t n_in = q->n_fed < q->n_prompt ? q->n_fed : q->n_prompt;
    if (n_in > q->n_counted) {
        atomic_fetch_add(&r->tokens_in, n_in - q->n_counted);
        q->n_counted = n_in;
    }
    q->n_flying++;
    f->parts[f->n_parts++] = (part){.slot = slot, .n_wants = q->n_fed == q->n_known};
}

static uint32_t count_decoding(const dil_runner *r)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < r->pipe->n_seq; i++) {
        const dil__request *q = r->slot[i];
        if (q && !q->ended && q->n_fed >= q->n_prompt) n++;
    }
    return n;
}

/* The scan starts behind the slot that was served last, so that a group that does not fit goes first the next time. */
static void fill_decode(dil_runner *r, dil__work *w, flight *f)
{
    uint32_t n_seq = r->pipe->n_seq, depth = r->pipe->depth;
    uint32_t group = (count_decoding(r) + depth - 1) / depth;
    if (group > r->pipe->chunk) group = r->pipe->chunk;
    uint32_t start = r->turn;
    for (uint32_t i = 0; i < n_seq && w->batch.n_tokens < group; i++) {
        uint32_t s = (start + i) % n_seq;
        if (!wants_decode(r, r->slot[s])) continue;
        add_part(r, w, f, s, 1);
        r->turn = (s + 1) % n_seq;
    }
}

/* Behind the last token of a sequence that is alone in its work: its next tokens, as far as they can be guessed. */
static void add_guesses(dil_runner *r, dil__work *w, flight *f)
{
    dil__request *q = r->slot[f->parts[0].slot];
    int depth = atomic_load(&r->speculate);
    if (f->n_parts != 1 || !f->parts[0].n_wants || !q->draft || !depth) return;
    uint32_t room = r->pipe->chunk - 1, left = q->n_max - q->n_known - 1;
    f->n_guesses = dil__draft_guess(q->draft, &r->pace, q->tokens, q->n_known, depth, count_decoding(r), left < room ? left : room, f->guess);
    for (uint32_t i = 0; i < f->n_guesses; i++) {
        uint32_t at = w->batch.n_tokens++;
        r->token[at] = f->guess[i];
        r->pos[at] = (int32_t)(q->n_known + i);
        r->seq[at] = (int32_t)f->parts[0].slot;
        r->want[at] = 1;
    }
    f->parts[0].n_wants += f->n_guesses;
}

static void fill_chunk(dil_runner *r, dil__work *w, flight *f)
{
    uint32_t n_seq = r->pipe->n_seq, start = r->turn;
    for (uint32_t i = 0; i < n_seq; i++) {
        uint32_t s = (start + i) % n_seq;
        if (!wants_chunk(r, r->slot[s])) continue;
        uint32_t n = piece_tokens(r, r->slot[s]), room = r->pipe->chunk - w->batch.n_tokens;
        if (n > room) {
            if (f->n_parts) break; /* a chunk is never cut smaller than it would be alone */
            n = room;
        }
        add_part(r, w, f, s, n);
        r->turn = (s + 1) % n_seq;
        if (r->pipe->fixed_shapes) break;
    }
}

static void land(dil_runner *r, flight *f)
{
    for (uint32_t i = 0; i < f->n_parts; i++) r->slot[f->parts[i].slot]->n_flying--;
    f->id = 0;
    f->n_parts = f->n_guesses = 0;
    r->n_flying--;
}

static void fail_flight(dil_runner *r, flight *f, const dil_err *e)
{
    for (uint32_t i = 0; i < f->n_parts; i++) {
        dil__request *q = r->slot[f->parts[i].slot];
        if (!q->ended) fail_request(r, q, e);
    }
    land(r, f);
}

/* What was in flight is void and the slots are empty: all that runs starts over. */
static void take_reset(dil_runner *r)
{
    for (uint32_t i = 0; i < DIL__DEPTH_MAX; i++) {
        if (r->flights[i].id) land(r, &r->flights[i]);
    }
    for (uint32_t i = 0; i < r->pipe->n_seq; i++) {
        dil__request *q = r->slot[i];
        if (!q) continue;
        q->n_fed = 0;
        q->begun = false;
    }
    r->down = true;
}

/* A prompt's pieces are under way on every link while every stage computes; where nobody else waits for a stage, more of them than there are stages. */
static bool has_room(const dil_runner *r)
{
    uint32_t depth = r->pipe->depth, most = 2 * depth < DIL__DEPTH_MAX ? 2 * depth : DIL__DEPTH_MAX;
    if (r->n_flying < depth) return true;
    return r->pipe->pieces.most_sec > 0 && r->n_flying < most && atomic_load(&r->n_active) == 1 && any(r, wants_chunk);
}

static bool submit_one(dil_runner *r)
{
    flight *f = free_flight(r);
    if (!f) return false;
    bool chunk = any(r, wants_chunk), decode = any(r, wants_decode);
    if (!chunk && !decode) return false;
    if (chunk && decode) chunk = r->chunk_next;
    r->chunk_next = !chunk;
    dil__work w = {.id = ++r->next_work, .begin = r->begin,
                   .batch = {.token = r->token, .pos = r->pos, .seq = r->seq, .want = r->want}};
    if (chunk) fill_chunk(r, &w, f);
    else fill_decode(r, &w, f);
    if (!chunk) add_guesses(r, &w, f);
    f->id = w.id;
    f->decode = !chunk && w.n_begin == 0;
    f->alone = r->n_flying++ == 0;
    f->sent_ns = dil_now_ns();
    dil_err e;
    dil_status s = r->pipe->ops->submit(r->pipe, &w, &e);
    if (s == DIL_ENET) take_reset(r);
    else if (s != DIL_OK) fail_flight(r, f, &e);
    return true;
}

/* --- the loop -------------------------------------------------------------------------------------------------------- */

static flight *find_flight(dil_runner *r, uint64_t id)
{
    for (uint32_t i = 0; i < DIL__DEPTH_MAX; i++) {
        if (id && r->flights[i].id == id) return &r->flights[i];
    }
    return NULL;
}

/* One token, and one more behind every guess that was right. */
static void take_rows(dil_runner *r, const flight *f, const part *p, const dil__row *rows)
{
    dil__request *q = r->slot[p->slot];
    uint32_t right = 0;
    if (!q->ended) { /* before the event that ends it: what is told has its last pass */
        q->n_guessed += f->n_guesses;
        atomic_fetch_add(&r->n_guessed, f->n_guesses);
    }
    for (uint32_t i = 0; i < p->n_wants && !q->ended && rows[i].token >= 0; i++) {
        if (i < f->n_guesses && rows[i].token == f->guess[i]) q->n_right++;
        take_token(r, q, &rows[i]);
        if (i >= f->n_guesses || rows[i].token != f->guess[i]) break;
        right++;
        if (!q->ended) q->n_fed++;
    }
    atomic_fetch_add(&r->n_right, right);
    if (f->n_guesses && !q->ended) dil__draft_learn(q->draft, &r->pace, f->n_guesses, right);
}

static void take_result(dil_runner *r, flight *f, const dil__pipe_event *ev)
{
    uint32_t row = 0;
    if (f->decode && f->n_parts == 1) dil__pace_note(&r->pace, 1 + f->n_guesses, dil__sec(dil_now_ns() - f->sent_ns), ev->compute_sec, f->alone);
    for (uint32_t i = 0; i < f->n_parts; i++) {
        if (row + f->parts[i].n_wants <= ev->n_rows) take_rows(r, f, &f->parts[i], ev->rows + row);
        row += f->parts[i].n_wants;
    }
    if (row != ev->n_rows) {
        dil_err e;
        dil_fail(&e, DIL_EINTERNAL, "work %llu came back with %u tokens, not %u", (unsigned long long)ev->id, ev->n_rows, row);
        fail_flight(r, f, &e);
        return;
    }
    land(r, f);
}

static void fail_waiting(dil_runner *r, const dil_err *e)
{
    pthread_mutex_lock(&r->lock);
    while (r->n_queue) {
        dil__request *q = take_queued(r, r->n_queue - 1);
        pthread_mutex_unlock(&r->lock);
        fail_request(r, q, e);
        dil__request_free(q);
        pthread_mutex_lock(&r->lock);
    }
    pthread_mutex_unlock(&r->lock);
}

static void give_up(dil_runner *r, const dil_err *e)
{
    take_reset(r);
    for (uint32_t i = 0; i < r->pipe->n_seq; i++) {
        if (r->slot[i] && !r->slot[i]->ended) fail_request(r, r->slot[i], e);
    }
    fail_waiting(r, e);
}

static void take_event(dil_runner *r, const dil__pipe_event *ev)
{
    flight *f = find_flight(r, ev->id);
    switch (ev->kind) {
    case DIL__PIPE_NOTHING: break;
    case DIL__PIPE_RESULT:
        if (f) take_result(r, f, ev);
        break;
    case DIL__PIPE_FAILED:
        if (f) fail_flight(r, f, &ev->err);
        break;
    case DIL__PIPE_RESET:
        if (!r->down && atomic_load(&r->n_active)) atomic_fetch_add(&r->n_recoveries, 1);
        take_reset(r);
        break;
    case DIL__PIPE_UP: r->down = false; break;
    case DIL__PIPE_GIVE_UP: give_up(r, &ev->err); break;
    }
}

static void cancel_all(dil_runner *r)
{
    dil_err e;
    dil_fail(&e, DIL_ECANCELED, "the runner was closed");
    for (uint32_t i = 0; i < r->pipe->n_seq; i++) {
        dil__request *q = r->slot[i];
        if (q && !q->ended) fail_request(r, q, &e);
        pthread_mutex_lock(&r->lock);
        r->slot[i] = NULL;
        pthread_mutex_unlock(&r->lock);
        dil__request_free(q);
    }
    fail_waiting(r, &e);
}

/* True: one was over with what an earlier run had told, and its slot can be had. */
static bool begin_resumed(dil_runner *r)
{
    bool ended = false;
    for (uint32_t i = 0; i < r->pipe->n_seq; i++) {
        dil__request *q = r->slot[i];
        if (!q || q->ended || !(q->n_resumed || (q->resumed_stop && !q->begun))) continue;
        dil__request_tell_resumed(q);
        ended = ended || q->ended;
    }
    return ended;
}

static void fill_slots(dil_runner *r)
{
    do {
        release_ended(r);
        if (!atomic_load(&r->n_queued)) return;
        admit(r);
    } while (begin_resumed(r));
}

static void *schedule(void *arg)
{
    dil_runner *r = arg;
    while (!atomic_load(&r->closing)) {
        if (atomic_exchange(&r->mail, false)) end_canceled(r);
        fill_slots(r);
        while (!r->down && has_room(r) && submit_one(r)) continue;
        dil__pipe_event ev = {0};
        bool idle = r->down || (!any(r, wants_chunk) && !any(r, wants_decode));
        if (r->n_flying || idle) r->pipe->ops->wait(r->pipe, -1, &ev);
        take_event(r, &ev);
    }
    cancel_all(r);
    return NULL;
}

/* --- the public face --------------------------------------------------------------------------------------------------- */

static void wake(dil_runner *r)
{
    atomic_store(&r->mail, true);
    r->pipe->ops->wake(r->pipe);
}

dil_status dil_runner_submit(dil_runner *r, const dil_gen_req *req, dil_gen_fn *fn, void *ctx, uint64_t *id, dil_err *err)
{
    dil_status s = dil__request_check(req, r->pipe, err);
    if (s != DIL_OK) return s;
    dil__request *q = dil__request_new(req, r->pipe->n_ctx, atomic_load(&r->speculate) != 0, fn, ctx);
    if (!q) return dil_fail(err, DIL_EMEMORY, "no memory for a request of %zu tokens", req->n_prompt);
    pthread_mutex_lock(&r->lock);
    bool full = r->n_queue == r->queue_max;
    if (!full) {
        q->id = ++r->next_id;
        if (id) *id = q->id;
        r->queue[r->n_queue++] = q;
        atomic_store(&r->n_queued, r->n_queue);
    }
    pthread_mutex_unlock(&r->lock);
    if (full) {
        dil__request_free(q);
        return dil_fail(err, DIL_EBUSY, "the queue is full: %u requests wait, %u run", r->queue_max, atomic_load(&r->n_active));
    }
    atomic_fetch_add(&r->requests, 1);
    wake(r);
    return DIL_OK;
}

void dil_runner_cancel(dil_runner *r, uint64_t id)
{
    pthread_mutex_lock(&r->lock);
    for (uint32_t i = 0; i < r->n_queue; i++) {
        if (r->queue[i]->id == id) atomic_store(&r->queue[i]->canceled, true);
    }
    for (uint32_t i = 0; i < r->pipe->n_seq; i++) {
        if (r->slot[i] && r->slot[i]->id == id) atomic_store(&r->slot[i]->canceled, true);
    }
    pthread_mutex_unlock(&r->lock);
    wake(r);
}

void dil_runner_get_state(dil_runner *r, dil_runner_state *out)
{
    *out = (dil_runner_state){.n_ctx = r->pipe->n_ctx, .queue_max = r->queue_max};
    r->pipe->ops->state(r->pipe, out);
    out->n_recoveries = atomic_load(&r->n_recoveries);
    out->n_active = atomic_load(&r->n_active);
    out->n_queued = atomic_load(&r->n_queued);
    out->tokens_in = atomic_load(&r->tokens_in);
    out->tokens_out = atomic_load(&r->tokens_out);
    out->requests = atomic_load(&r->requests);
    out->failures = atomic_load(&r->failures);
    out->n_guessed = atomic_load(&r->n_guessed);
    out->n_right = atomic_load(&r->n_right);
    out->token_sec = dil__sec(atomic_load(&r->token_ns));
}

void dil_runner_speculate(dil_runner *r, int depth)
{
    atomic_store(&r->speculate, depth < 0 ? DIL_SPECULATE_AUTO : depth);
}

dil__pipe *dil__runner_pipe(dil_runner *r)
{
    return r->pipe;
}

static bool allocate(dil_runner *r)
{
    const dil__pipe *p = r->pipe;
    uint32_t n = p->chunk > p->n_seq ? p->chunk : p->n_seq;
    r->queue = calloc(r->queue_max, sizeof *r->queue);
    r->slot = calloc(p->n_seq, sizeof *r->slot);
    r->flights = calloc(DIL__DEPTH_MAX, sizeof *r->flights);
    r->begin = calloc(p->n_seq, sizeof *r->begin);
    r->token = calloc(n, sizeof *r->token);
    r->pos = calloc(n, sizeof *r->pos);
    r->seq = calloc(n, sizeof *r->seq);
    r->want = calloc(n, 1);
    if (!r->queue || !r->slot || !r->flights || !r->begin || !r->token || !r->pos || !r->seq || !r->want) return false;
    for (uint32_t i = 0; i < DIL__DEPTH_MAX; i++) {
        r->flights[i].parts = calloc(p->n_seq, sizeof *r->flights[i].parts);
        if (!r->flights[i].parts) return false;
    }
    return true;
}

dil_status dil__runner_new(dil__pipe *pipe, uint32_t queue_max, dil_runner **out, dil_err *err)
{
    dil_runner *r = calloc(1, sizeof *r);
    if (!r) {
        pipe->ops->close(pipe);
        return dil_fail(err, DIL_EMEMORY, "no memory for a runner");
    }
    r->pipe = pipe;
    r->queue_max = queue_max;
    atomic_store(&r->speculate, DIL_SPECULATE_AUTO);
    pthread_mutex_init(&r->lock, NULL);
    dil_status s = DIL_OK;
    if (!allocate(r)) s = dil_fail(err, DIL_EMEMORY, "no memory for a runner of %u sequences", pipe->n_seq);
    if (s == DIL_OK && pthread_create(&r->thread, NULL, schedule, r) != 0)
        s = dil_fail(err, DIL_EMEMORY, "cannot start the scheduler's thread");
    r->started = s == DIL_OK;
    if (s == DIL_OK) *out = r;
    else dil_runner_close(r);
    return s;
}

void dil_runner_close(dil_runner *r)
{
    if (!r) return;
    if (r->started) {
        atomic_store(&r->closing, true);
        wake(r);
        pthread_join(r->thread, NULL);
    }
    for (uint32_t i = 0; r->flights && i < DIL__DEPTH_MAX; i++) free(r->flights[i].parts);
    r->pipe->ops->close(r->pipe);
    pthread_mutex_destroy(&r->lock);
    free(r->queue);
    free(r->slot);
    free(r->flights);
    free(r->begin);
    free(r->token);
    free(r->pos);
    free(r->seq);
    free(r->want);
    free(r);
}
