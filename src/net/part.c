/* Computing works. Where hidden states travel as F32 the engine reads hidden states where they lie in the received message and writes them where they lie in
 * the next one.
 *
 * An epoch is a stretch of time in which nothing was lost. The coordinator starts a new one after any failure; a stage that
 * sees its number forgets all sequences, dials its next node afresh unless nothing was sent there yet (the old connection may hold frames
 * of the old epoch, and ZeroMQ gives up on a connection whose handshake was refused) and drops whatever still arrives from older ones. */
#include "net/part.h"

#include "base/wire.h"
#include "engine/grammar.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

dil_status dil__part_open_head(dil__net_session *s, dil_err *err)
{
    size_t n;
    uint32_t n_rows = s->load.n_seq + DIL__DRAFT_MAX;
    if (!dil_mul_size(n_rows, s->load.arch.n_vocab, &n) || !dil_mul_size(n, sizeof(float), &n))
        return dil_fail(err, DIL_ELIMIT, "%u sequences of %u logits", s->load.n_seq, s->load.arch.n_vocab);
    s->logits = malloc(n);
    s->rows = calloc(n_rows, sizeof *s->rows);
    if (!s->logits || !s->rows) return dil_fail(err, DIL_EMEMORY, "no memory for %zu bytes of logits", n);
    dil_status st = dil__picker_init(&s->picker, s->load.n_seq, s->load.arch.n_vocab, err);
    const dil_tensor *words = st == DIL_OK ? dil__net_session_tensor(s, DIL__WORDS) : NULL;
    return words ? dil__grammar_vocab_unpack(words->data, words->bytes, s->load.arch.n_vocab, &s->picker.words, err) : st;
}

static void hang_up(dil__net_session *s, dil__part *p)
{
    pthread_mutex_lock(&s->lock);
    if (p->out) zmq_close(p->out);
    p->out = NULL;
    p->fresh = false;
    pthread_mutex_unlock(&s->lock);
}

void dil__part_close(dil__net_session *s, dil__part *p)
{
    if (p->stage) s->env->engine->close(p->stage);
    p->stage = NULL;
    hang_up(s, p);
}

static void enter_epoch(dil__net_session *s, uint32_t epoch)
{
    for (uint32_t i = 0; i < s->load.n_parts; i++) {
        for (uint32_t q = 0; q < s->load.n_seq; q++) s->env->engine->trim(s->parts[i].stage, q, 0);
        pthread_mutex_lock(&s->lock);
        bool fresh = s->parts[i].fresh;
        pthread_mutex_unlock(&s->lock);
        if (!fresh) hang_up(s, &s->parts[i]);
    }
    s->epoch = epoch;
}

static void tell_failure(dil__net_session *s, const dil_frame *f, const dil_err *e)
{
    dil__id to;
    pthread_mutex_lock(&s->lock);
    to = s->control;
    pthread_mutex_unlock(&s->lock);
    s->reply.len = 0;
    if (dil__msg_error(&s->reply, DIL_FRAME_WORK_FAILED, s->id, f->id, f->epoch, e)) s->env->send(s->env->node, &to, &s->reply);
    dil_log(DIL_LOG_ERROR, "node", "work %llu failed: %s", (unsigned long long)f->id, e->text);
}

static dil__part *find_part(dil__net_session *s, uint32_t stage)
{
    for (uint32_t i = 0; i < s->load.n_parts; i++) {
        if (s->parts[i].spec.stage == stage) return &s->parts[i];
    }
    return NULL;
}

static void wait_throttle(const dil__net_session *s, int64_t compute_ns)
{
    if (s->env->throttle > 1) dil_sleep_ns((int64_t)((s->env->throttle - 1) * (double)compute_ns));
}

static dil_status begin_slots(dil__net_session *s, dil__part *p, const dil__work_view *v, dil_err *err)
{
    dil_status st = DIL_OK;
    for (uint32_t i = 0; i < v->head.n_begin && st == DIL_OK; i++) {
        dil__begin b = dil__work_begin(v, i);
        s->env->engine->trim(p->stage, b.slot, 0);
        if (!p->spec.next.address[0]) st = dil__picker_begin(&s->picker, &b, err);
    }
    return st;
}

/* Under the session's lock. */
static dil_status dial(const dil__net_session *s, dil__part *p, dil_err *err)
{
    return p->out ? DIL_OK : dil__dial(s->env->zmq, p->spec.next.address, p->spec.next.key, s->env->key, &p->out, err);
}

void dil__net_session_join(dil__net_session *s)
{
    dil_err err;
    pthread_mutex_lock(&s->lock);
    for (uint32_t i = 0; i < s->load.n_parts; i++) {
        dil__part *p = &s->parts[i];
        if (!p->spec.next.address[0] || p->out) continue;
        p->fresh = dial(s, p, &err) == DIL_OK; /* what is wrong the first work tells */
    }
    pthread_mutex_unlock(&s->lock);
}

static dil_status dial_next(dil__net_session *s, dil__part *p, dil_err *err)
{
    pthread_mutex_lock(&s->lock);
    dil_status st = dial(s, p, err);
    p->fresh = false;
    pthread_mutex_unlock(&s->lock);
    return st;
}

/* The last stage chooses tokens too: that is its computing. */
static dil_status compute(dil__net_session *s, dil__part *p, const dil__work_view *v, float *out, uint32_t *n_rows, uint64_t *compute_ns, dil_err *err)
{
    dil_status st = begin_slots(s, p, v, err);
    if (st != DIL_OK || v->head.n_tokens == 0) return st;
    int64_t t0 = dil_now_ns();
    const float *in = v->hidden;
    if (in && s->load.wire != DIL_TYPE_F32) {
        dil__wire_widen(s->load.wire, v->hidden, (size_t)v->head.n_tokens * v->head.n_hidden, s->wide_in);
        in = s->wide_in;
    }
    st = s->env->engine->eval(p->stage, &v->batch, in, out, err);
    if (st == DIL_OK && !p->spec.next.address[0]) st = dil__picker_pick(&s->picker, &v->batch, out, s->rows, n_rows, err);
    wait_throttle(s, dil_now_ns() - t0);
    uint64_t took = (uint64_t)(dil_now_ns() - t0);
    *compute_ns = v->head.compute_ns + took;
    pthread_mutex_lock(&s->lock);
    if (st == DIL_OK) dil__tempo_note(&s->tempo, v->head.n_tokens, took);
    pthread_mutex_unlock(&s->lock);
    return st;
}

static dil_status finish_ring(dil__net_session *s, dil__part *p, const dil_frame *f, const dil__work_view *v, dil_err *err)
{
    uint64_t ns = v->head.compute_ns;
    uint32_t n = 0;
    dil_status st = compute(s, p, v, s->logits, &n, &ns, err);
    if (st != DIL_OK) return st;
    dil__id to;
    pthread_mutex_lock(&s->lock);
    to = s->attached;
    pthread_mutex_unlock(&s->lock);
    s->reply.len = 0;
    if (!dil__msg_result(&s->reply, s->id, f->id, f->epoch, ns, s->rows, n)) return dil_fail(err, DIL_ELIMIT, "a result of %u tokens is too long", n);
    s->env->send(s->env->node, &to, &s->reply);
    return DIL_OK;
}

static dil_status send_on(dil__part *p, zmq_msg_t *msg, dil_err *err)
{
    if (zmq_msg_send(msg, p->out, ZMQ_DONTWAIT) >= 0) return DIL_OK;
    return dil_fail(err, DIL_ENET, "cannot hand over to %s: %s", p->spec.next.address, errno == EAGAIN ? "it takes nothing" : zmq_strerror(errno));
}

static dil_status pass_on(dil__net_session *s, dil__part *p, const dil_frame *f, const dil__work_view *v, dil_err *err)
{
    dil_status st = dial_next(s, p, err);
    if (st != DIL_OK) return st;
    uint32_t value_bytes = (uint32_t)dil__wire_bytes(s->load.wire);
    dil__work_head h = {.stage = p->spec.stage + 1, .n_tokens = v->head.n_tokens, .n_begin = v->head.n_begin, .n_hidden = s->load.arch.n_embd, .extra_bytes = v->head.extra_bytes,
                        .value_bytes = value_bytes};
    zmq_msg_t msg;
    if (zmq_msg_init_size(&msg, dil__work_bytes(&h)) != 0) return dil_fail(err, DIL_EMEMORY, "no memory for a frame of %zu bytes", dil__work_bytes(&h));
    uint8_t *to = zmq_msg_data(&msg);
    uint8_t *out = (uintptr_t)to % 8 ? NULL : to;
    if (!out) {
        zmq_msg_close(&msg);
        return dil_fail(err, DIL_EINTERNAL, "a message lies at an odd address");
    }
    void *hidden;
    dil__work_put(out, s->id, f->id, f->epoch, &h, &v->batch, NULL, &hidden);
    bool narrow = s->load.wire != DIL_TYPE_F32;
    st = compute(s, p, v, narrow ? s->wide_out : hidden, NULL, &h.compute_ns, err);
    if (st == DIL_OK && narrow) st = dil__wire_narrow(s->load.wire, s->wide_out, (size_t)h.n_tokens * h.n_hidden, hidden, err);
    if (st == DIL_OK) {
        dil__work_patch(out, &h, v);
        st = send_on(p, &msg, err);
    }
    zmq_msg_close(&msg);
    return st;
}

/* ZeroMQ may hand over a message inside a receive buffer (only without CURVE); the engine wants aligned floats. */
static const void *align(dil__net_session *s, const void *data, size_t n)
{
    if ((uintptr_t)data % 8 == 0) return data;
    if (n > s->aligned_bytes) {
        free(s->aligned);
        s->aligned = malloc(n);
        s->aligned_bytes = s->aligned ? n : 0;
    }
    return s->aligned ? memcpy(s->aligned, data, n) : NULL;
}

static dil_status check_sender(const dil__part *p, const char *sender, dil_err *err)
{
    if (!sender || dil_key_equal(sender, p->spec.prev_key)) return DIL_OK;
    return dil_fail(err, DIL_EAUTH, "a work for stage %u came from %s, not from the node before it", p->spec.stage, sender);
}

static dil_status check_shape(const dil__net_session *s, const dil__part *p, const dil__work_view *v, dil_err *err)
{
    uint32_t want = p->spec.first_layer == 0 ? 0 : s->load.arch.n_embd;
    if (v->head.n_hidden == want || (v->head.n_tokens == 0 && v->head.n_hidden == 0)) return DIL_OK;
    return dil_fail(err, DIL_EFORMAT, "WORK: hidden states of %u values, stage %u takes %u", v->head.n_hidden, p->spec.stage, want);
}

static void set_busy(dil__net_session *s, bool busy, uint64_t done_id)
{
    pthread_mutex_lock(&s->lock);
    s->busy = busy;
    if (done_id) s->last_work = done_id;
    pthread_mutex_unlock(&s->lock);
}

static dil_status take_work(dil__net_session *s, const dil_frame *f, const char *sender, dil_err *err)
{
    dil__work_view v;
    dil_status st = dil__work_get(f, s->load.n_ctx, s->load.n_seq, s->load.arch.n_vocab, s->load.max_batch, (uint32_t)dil__wire_bytes(s->load.wire), &v, err);
    if (st != DIL_OK) return st;
    dil__part *p = find_part(s, v.head.stage);
    if (!p || !p->stage) return dil_fail(err, DIL_ENOTFOUND, "stage %u is not loaded here", v.head.stage);
    st = check_sender(p, sender, err);
    if (st == DIL_OK) st = check_shape(s, p, &v, err);
    if (st != DIL_OK) return st;
    if (f->epoch < s->epoch) return DIL_OK;
    if (f->epoch > s->epoch) enter_epoch(s, f->epoch);
    return p->spec.next.address[0] ? pass_on(s, p, f, &v, err) : finish_ring(s, p, f, &v, err);
}

void dil__net_session_work(dil__net_session *s, zmq_msg_t *msg, const char *sender)
{
    dil_err err;
    dil_frame f;
    size_t n = zmq_msg_size(msg);
    const void *data = align(s, zmq_msg_data(msg), n);
    if (!data || dil_frame_decode(data, n, &f, &err) != DIL_OK) return;
    set_busy(s, true, 0);
    dil_status st = take_work(s, &f, sender, &err);
    set_busy(s, false, st == DIL_OK ? f.id : 0);
    if (st == DIL_EAUTH) dil_log(DIL_LOG_WARN, "node", "dropped: %s", err.text); /* not the coordinator's fault: nobody is told */
    else if (st != DIL_OK) tell_failure(s, &f, &err);
}
