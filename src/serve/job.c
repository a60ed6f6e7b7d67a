/* A generation's state machine: tokens in, response bytes out. Everything is under the job's lock; the runner is never called
 * with it held, and never blocks on a client: what a slow reader leaves stands in a bounded buffer, and beyond it the job ends. */
#include "serve/job.h"

#include "serve/answer.h"
#include "serve/textout.h"

#include <pthread.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

struct dil__job {
    pthread_mutex_t lock;
    int n_holders;
    dil__backend backend;
    void (*wake)(void *);
    void *wake_ctx;
    uint64_t run_id;
    dil__api_req req;
    dil__answer answer;
    char id[48], model[128];
    dil__textout text;
    dil_buf plain;             /* whole answers: the text so far */
    dil_buf out;               /* response bytes; [out_at, len) not yet taken */
    size_t out_at;
    bool asleep, sleeps_for_body;
    bool started, done, failed;
    dil_err error;
};

void dil__job_drop(dil__job *j)
{
    pthread_mutex_lock(&j->lock);
    int left = --j->n_holders;
    pthread_mutex_unlock(&j->lock);
    if (left > 0) return;
    pthread_mutex_destroy(&j->lock);
    dil__api_req_fini(&j->req);
    dil__textout_fini(&j->text);
    dil_buf_fini(&j->plain);
    dil_buf_fini(&j->out);
    free(j);
}

static bool awaited(const dil__job *j, bool body)
{
    if (j->done) return true;
    if (!j->req.stream) return false;
    return body ? j->out_at < j->out.len : j->started;
}

static void fail_job(dil__job *j, const dil_err *e)
{
    if (j->done) return;
    j->failed = j->done = true;
    j->error = *e;
    if (j->req.stream && j->started) {
        const char *code;
        dil__answer_error_event(dil__answer_status(e, &code), e->text, &j->out);
    }
}

static void finish(dil__job *j, const char *reason)
{
    if (j->done) return;
    dil_buf tail;
    dil_buf_init(&tail, DIL_SERVE_OUTPUT_MAX);
    dil__textout_flush(&j->text, &tail);
    if (!j->req.stream) {
        dil_buf_append(&j->plain, tail.data, tail.len);
        dil__answer_whole(&j->answer, dil_buf_str(&j->plain), j->plain.len, reason, &j->out);
        j->out.failed |= j->plain.failed;
    } else {
        if (!j->started) dil__answer_first(&j->answer, j->req.stream_usage, &j->out);
        if (tail.len) dil__answer_chunk(&j->answer, dil_buf_str(&tail), tail.len, NULL, j->req.stream_usage, &j->out);
        dil__answer_chunk(&j->answer, "", 0, reason, j->req.stream_usage, &j->out);
        if (j->req.stream_usage) dil__answer_usage(&j->answer, &j->out);
        dil_buf_append(&j->out, "data: [DONE]\n\n", 14);
    }
    dil_buf_fini(&tail);
    j->started = j->done = true;
}

/* Returns true when a stop string is complete. */
static bool take_token(dil__job *j, int32_t token)
{
    size_t len;
    const char *bytes = j->backend.piece(j->backend.ctx, token, &len);
    j->answer.n_generated++;
    if (!j->req.stream) return dil__textout_push(&j->text, bytes, len, &j->plain);
    dil_buf piece;
    dil_buf_init(&piece, DIL_SERVE_OUTPUT_MAX);
    bool stop = dil__textout_push(&j->text, bytes, len, &piece);
    if (!j->started) dil__answer_first(&j->answer, j->req.stream_usage, &j->out);
    if (piece.len) dil__answer_chunk(&j->answer, dil_buf_str(&piece), piece.len, NULL, j->req.stream_usage, &j->out);
    dil_buf_fini(&piece);
    j->started = true;
    return stop;
}

/* Buffers at their limit mean that nobody reads, or that the answer is too long to be one. */
static bool overflowed(dil__job *j)
{
    if (!j->out.failed && !j->plain.failed && !j->text.held.failed) return false;
    dil_err e;
    dil_fail(&e, DIL_ELIMIT, "more than %u bytes of the answer wait to be read", DIL_SERVE_OUTPUT_MAX);
    j->done = j->failed = true;
    j->error = e;
    return true;
}

static void wake_sleeper(dil__job *j)
{
    if (!j->asleep || !awaited(j, j->sleeps_for_body)) return;
    j->asleep = false;
    j->wake(j->wake_ctx);
}

static void on_event(void *ctx, uint64_t id, const dil_gen_event *e)
{
    dil__job *j = ctx;
    bool stop = false, last = e->kind != DIL_GEN_TOKEN;
    pthread_mutex_lock(&j->lock);
    if (e->kind == DIL_GEN_TOKEN && !j->done) {
        stop = take_token(j, e->token);
        if (stop) finish(j, "stop");
    } else if (e->kind == DIL_GEN_DONE && !j->done) {
        j->answer.prefill_sec = e->prefill_sec;
        j->answer.decode_sec = e->decode_sec;
        j->answer.n_guessed = e->n_guessed;
        j->answer.n_right = e->n_right;
        if (e->finish == DIL_FINISH_CANCELED) {
            dil_err err;
            dil_fail(&err, DIL_ECANCELED, "the request was canceled");
            fail_job(j, &err);
        } else finish(j, e->finish == DIL_FINISH_STOP ? "stop" : "length");
    } else if (e->kind == DIL_GEN_ERROR) fail_job(j, e->error);
    if (overflowed(j)) stop = !last;
    wake_sleeper(j);
    pthread_mutex_unlock(&j->lock);
    if (stop) j->backend.cancel(j->backend.ctx, id);
    if (last) dil__job_drop(j);
}

static dil_status submit(dil__job *j, dil_err *err)
{
    dil_ids ids = {0};
    dil_status s = j->backend.encode(j->backend.ctx, &j->req, &ids, err);
    if (s != DIL_OK) return s;
    if (ids.n == 0) {
        free(ids.id);
        return dil_fail(err, DIL_EFORMAT, "the prompt is empty");
    }
    dil_runner_state state;
    j->backend.state(j->backend.ctx, &state);
    uint32_t max_tokens = j->req.max_tokens ? j->req.max_tokens : j->req.kind == DIL_API_CHAT ? state.n_ctx : 16;
    dil_gen_req r = {.prompt = ids.id, .n_prompt = ids.n, .max_tokens = max_tokens ? max_tokens : 1, .sampler = j->req.sampler,
                     .stop = j->backend.stop, .n_stop = j->backend.n_stop};
    j->answer.n_prompt = (uint32_t)ids.n;
    s = j->backend.submit(j->backend.ctx, &r, on_event, j, &j->run_id, err);
    free(ids.id);
    return s;
}

dil_status dil__job_start(const dil__backend *b, dil__api_req *q, const char *model, void (*wake)(void *ctx), void *wake_ctx,
                          dil__job **out, dil_err *err)
{
    dil__job *j = calloc(1, sizeof *j);
    if (!j) {
        dil__api_req_fini(q);
        return dil_fail(err, DIL_EMEMORY, "no memory for the request");
    }
    pthread_mutex_init(&j->lock, NULL);
    j->n_holders = 2;
    j->backend = *b;
    j->wake = wake;
    j->wake_ctx = wake_ctx;
    j->req = *q;
    *q = (dil__api_req){0};
    if (!j->req.seeded) randombytes_buf(&j->req.sampler.seed, sizeof j->req.sampler.seed);
    uint64_t r[2];
    randombytes_buf(r, sizeof r);
    snprintf(j->id, sizeof j->id, "%s-%016llx%08llx", j->req.kind == DIL_API_CHAT ? "chatcmpl" : "cmpl", (unsigned long long)r[0],
             (unsigned long long)r[1] & 0xffffffffu);
    snprintf(j->model, sizeof j->model, "%s", model);
    j->answer = (dil__answer){.kind = j->req.kind, .id = j->id, .model = j->model, .created_sec = dil_wall_ms() / 1000};
    dil__textout_init(&j->text, j->req.stop, j->req.stop_len, j->req.n_stop);
    dil_buf_init(&j->plain, DIL_SERVE_OUTPUT_MAX);
    dil_buf_init(&j->out, 4 * (size_t)DIL_SERVE_OUTPUT_MAX); /* JSON of the text, escapes included */
    dil_status s = submit(j, err);
    if (s == DIL_OK) {
        *out = j;
        return s;
    }
    j->n_holders = 1;
    dil__job_drop(j);
    return s;
}

void dil__job_hold(dil__job *j)
{
    pthread_mutex_lock(&j->lock);
    j->n_holders++;
    pthread_mutex_unlock(&j->lock);
}

void dil__job_abort(dil__job *j, const char *why)
{
    dil_err e;
    dil_fail(&e, DIL_ECANCELED, "%s", why);
    pthread_mutex_lock(&j->lock);
    bool runs = !j->done;
    fail_job(j, &e);
    wake_sleeper(j);
    pthread_mutex_unlock(&j->lock);
    if (runs) j->backend.cancel(j->backend.ctx, j->run_id);
}

void dil__job_leave(dil__job *j)
{
    if (!j) return;
    pthread_mutex_lock(&j->lock);
    j->asleep = false;
    pthread_mutex_unlock(&j->lock);
    dil__job_abort(j, "the client is gone");
    dil__job_drop(j);
}

bool dil__job_is_stream(const dil__job *j)
{
    return j->req.stream;
}

bool dil__job_sleep(dil__job *j, bool body, void (*suspend)(void *ctx), void *ctx)
{
    pthread_mutex_lock(&j->lock);
    bool sleeps = !awaited(j, body);
    if (sleeps) {
        j->asleep = true;
        j->sleeps_for_body = body;
        suspend(ctx);
    }
    pthread_mutex_unlock(&j->lock);
    return sleeps;
}

int dil__job_status(dil__job *j, dil_buf *error_body)
{
    pthread_mutex_lock(&j->lock);
    int http = 200;
    if (j->failed && !(j->req.stream && j->started)) {
        const char *code;
        http = dil__answer_status(&j->error, &code);
        dil__answer_error(http, j->error.text, NULL, code, error_body);
    }
    pthread_mutex_unlock(&j->lock);
    return http;
}

size_t dil__job_read(dil__job *j, char *buf, size_t max, bool *end)
{
    pthread_mutex_lock(&j->lock);
    size_t n = j->out.len - j->out_at;
    if (n > max) n = max;
    if (n > 0) memcpy(buf, j->out.data + j->out_at, n);
    j->out_at += n;
    if (j->out_at == j->out.len) {
        *end = j->done;
        j->out.len = j->out_at = 0;
    } else *end = false;
    pthread_mutex_unlock(&j->lock);
    return n;
}
