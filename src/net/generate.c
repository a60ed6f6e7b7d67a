/* dil_runner_generate: a request that its caller waits for. */
#include <dilemma/runner.h>

#include <pthread.h>

typedef struct waiter {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int32_t *tokens;
    uint32_t n, max;
    bool done;
    dil_gen_event last;
    dil_err err;
} waiter;

static void collect(void *ctx, uint64_t id, const dil_gen_event *ev)
{
    (void)id;
    waiter *w = ctx;
    if (ev->kind == DIL_GEN_TOKEN) {
        if (w->n < w->max) w->tokens[w->n++] = ev->token;
        return;
    }
    pthread_mutex_lock(&w->lock);
    w->last = *ev;
    if (ev->kind == DIL_GEN_ERROR) w->err = *ev->error;
    w->last.error = NULL;
    w->done = true;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->lock);
}

dil_status dil_runner_generate(dil_runner *r, const dil_gen_req *req, int32_t *tokens, uint32_t *n_tokens, dil_gen_event *done,
                               dil_err *err)
{
    waiter w = {.tokens = tokens, .max = req->max_tokens};
    pthread_mutex_init(&w.lock, NULL);
    pthread_cond_init(&w.changed, NULL);
    dil_status s = dil_runner_submit(r, req, collect, &w, NULL, err);
    if (s == DIL_OK) {
        pthread_mutex_lock(&w.lock);
        while (!w.done) pthread_cond_wait(&w.changed, &w.lock);
        pthread_mutex_unlock(&w.lock);
        *n_tokens = w.n;
        if (done) *done = w.last;
        if (w.last.kind == DIL_GEN_ERROR) s = dil_fail(err, w.err.code, "%s", w.err.text);
    }
    pthread_cond_destroy(&w.changed);
    pthread_mutex_destroy(&w.lock);
    return s;
}
