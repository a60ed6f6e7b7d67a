/* The pipe of stages that this process drives itself: one on its own device, or several in a row on ggml RPC workers. Submit computes, wait
 * hands the result over, in the scheduler's own thread, so that a token costs no hand-over between threads. Workers compute one after
 * the other: overlapping them would need a thread each, for an engine that is there to be compatible, not fast. */
#include "net/message.h"
#include "net/picker.h"
#include "net/places.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

typedef struct local {
    dil__pipe pipe;
    dil_stage *stage[DIL__PARTS_MAX];
    uint32_t n_stages;
    float *hidden[2]; /* [max_batch][n_embd] between stages; NULL with one */
    dil__picker picker;
    float *logits;   /* [n_seq + DIL__DRAFT_MAX][n_vocab] */
    dil__row *rows;  /* [n_seq + DIL__DRAFT_MAX] */
    bool has_result;
    dil__pipe_event result;
    pthread_mutex_t lock; /* guards woken */
    pthread_cond_t changed;
    bool woken;
} local;

static dil_status eval(local *l, const dil_batch *b, dil_err *err)
{
    dil_status s = DIL_OK;
    l->result.compute_sec = 0;
    for (uint32_t i = 0; i < l->n_stages && s == DIL_OK; i++) {
        s = dil_stage_eval(l->stage[i], b, i ? l->hidden[(i - 1) % 2] : NULL, i + 1 < l->n_stages ? l->hidden[i % 2] : l->logits, err);
        l->result.compute_sec += (double)dil_stage_get_stats(l->stage[i]).last_eval_ns * 1e-9;
    }
    return s;
}

static dil_status compute(local *l, const dil__work *w, dil_err *err)
{
    for (uint32_t i = 0; i < w->n_begin; i++) {
        for (uint32_t k = 0; k < l->n_stages; k++) dil_stage_seq_trim(l->stage[k], w->begin[i].slot, 0);
        dil_status s = dil__picker_begin(&l->picker, &w->begin[i], err);
        if (s != DIL_OK) return s;
    }
    dil_status s = eval(l, &w->batch, err);
    return s == DIL_OK ? dil__picker_pick(&l->picker, &w->batch, l->logits, l->rows, &l->result.n_rows, err) : s;
}

static dil_status local_submit(dil__pipe *p, const dil__work *w, dil_err *err)
{
    local *l = (local *)p;
    dil_status s = compute(l, w, err);
    if (s != DIL_OK) return s;
    l->result.kind = DIL__PIPE_RESULT;
    l->result.id = w->id;
    l->result.rows = l->rows;
    l->has_result = true;
    return DIL_OK;
}

static void local_wait(dil__pipe *p, int64_t timeout_ns, dil__pipe_event *out)
{
    (void)timeout_ns; /* a result is there already, or only a wake can end the wait */
    local *l = (local *)p;
    *out = (dil__pipe_event){0};
    if (l->has_result) {
        *out = l->result;
        l->has_result = false;
        return;
    }
    pthread_mutex_lock(&l->lock);
    while (!l->woken) pthread_cond_wait(&l->changed, &l->lock);
    l->woken = false;
    pthread_mutex_unlock(&l->lock);
}

static void local_wake(dil__pipe *p)
{
    local *l = (local *)p;
    pthread_mutex_lock(&l->lock);
    l->woken = true;
    pthread_cond_signal(&l->changed);
    pthread_mutex_unlock(&l->lock);
}

static void local_state(dil__pipe *p, dil_runner_state *out)
{
    (void)p;
    out->ready = true;
}

static void local_close(dil__pipe *p)
{
    local *l = (local *)p;
    for (uint32_t i = 0; i < DIL__PARTS_MAX; i++) dil_stage_close(l->stage[i]);
    free(l->hidden[0]);
    free(l->hidden[1]);
    dil__picker_fini(&l->picker);
    pthread_mutex_destroy(&l->lock);
    pthread_cond_destroy(&l->changed);
    free(l->logits);
    free(l->rows);
    free(l);
}

static const dil__pipe_ops local_ops = {local_submit, local_wait, local_wake, local_state, local_close};

static dil_status open_stages(local *l, const dil_arch *arch, const dil_weights *weights, const dil_stage_opts *opts, const dil__place *place, uint32_t n, dil_err *err)
{
    for (int i = 0; i < 2 && n > 1; i++) {
        l->hidden[i] = calloc(opts->max_batch > opts->n_seq ? opts->max_batch : opts->n_seq, arch->n_embd * sizeof *l->hidden[i]);
        if (!l->hidden[i]) return dil_fail(err, DIL_EMEMORY, "no memory for hidden states");
    }
    for (; l->n_stages < n; l->n_stages++) {
        const dil__place *p = &place[l->n_stages];
        dil_stage_opts o = *opts;
        o.first_layer = p->first_layer;
        o.last_layer = p->last_layer;
        if (p->device) o.device = p->device;
        dil_status s = dil_stage_open(arch, weights, &o, NULL, &l->stage[l->n_stages], err);
        if (s != DIL_OK) return s;
    }
    return DIL_OK;
}

static dil_status open_local(local *l, const dil_arch *arch, const dil_weights *weights, dil_stage_opts opts, const dil__place *place, uint32_t n_stages, dil_err *err)
{
    size_t n;
    uint32_t n_rows = opts.n_seq + DIL__DRAFT_MAX;
    if (!dil_mul_size(n_rows, arch->n_vocab, &n) || !dil_mul_size(n, sizeof(float), &n))
        return dil_fail(err, DIL_ELIMIT, "%u sequences of %u logits", opts.n_seq, arch->n_vocab);
    l->logits = malloc(n);
    l->rows = calloc(n_rows, sizeof *l->rows);
    if (!l->logits || !l->rows) return dil_fail(err, DIL_EMEMORY, "no memory for %zu bytes of logits", n);
    dil_status s = dil__picker_init(&l->picker, opts.n_seq, arch->n_vocab, err);
    if (s == DIL_OK) s = open_stages(l, arch, weights, &opts, place, n_stages, err);
    if (s != DIL_OK) return s;
    const dil_stage_opts *got = dil_stage_get_opts(l->stage[0]);
    uint32_t chunk = got->max_batch < DIL__CHUNK ? got->max_batch : DIL__CHUNK;
    l->pipe.n_ctx = got->n_ctx;
    l->pipe.n_seq = opts.n_seq;
    l->pipe.n_vocab = arch->n_vocab;
    l->pipe.chunk = chunk;
    l->pipe.schema_max = DIL_SCHEMA_BYTES_MAX;
    l->pipe.depth = 1;
    l->pipe.fixed_shapes = opts.fixed_shapes;
    return DIL_OK;
}

dil_status dil__runner_places(const dil_arch *arch, const dil_weights *weights, const dil_stage_opts *opts, uint32_t n_seq, const dil__place *place,
                              uint32_t n_places, dil_runner **out, dil_err *err)
{
    if (n_seq < 1 || n_seq > DIL__SLOTS_MAX)
        return dil_fail(err, DIL_EUSAGE, "%u sequences at once, allowed 1 to %d", n_seq, DIL__SLOTS_MAX);
    local *l = calloc(1, sizeof *l);
    if (!l) return dil_fail(err, DIL_EMEMORY, "no memory for a runner");
    l->pipe.ops = &local_ops;
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->changed, NULL);
    dil_stage_opts o = *opts;
    o.n_seq = n_seq;
    if (!o.max_batch) o.max_batch = DIL__CHUNK;
    dil_status s = open_local(l, arch, weights, o, place, n_places, err);
    if (s != DIL_OK) {
        local_close(&l->pipe);
        return s;
    }
    return dil__runner_new(&l->pipe, DIL__QUEUE_MAX, out, err);
}

dil_status dil_runner_local(const dil_arch *arch, const dil_weights *weights, const dil_stage_opts *opts, uint32_t n_seq,
                            dil_runner **out, dil_err *err)
{
    dil__place whole = {.last_layer = dil_arch_n_layers(arch) - 1};
    return dil__runner_places(arch, weights, opts, n_seq, &whole, 1, out, err);
}
