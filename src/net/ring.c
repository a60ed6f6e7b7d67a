/* The data half: the pipe that the scheduler works through. Works leave on one connection, to the first stage's node, results
 * come on another, from the last stage's. Both belong to the scheduler's thread.
 *
 * After any loss the connections are made anew under the next epoch number: ATTACH to the last node and an empty work around
 * the ring, whose return is what "ready" means. The work does not wait for ATTACH to be answered; another one follows the answer, for the case that
 * the first came to the last node too early. The first epoch's connections are dialled while layers are loaded. Results of an older epoch are
 * dropped. */
#include "net/ring.h"

#include "base/wire.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { BOUNCES_MAX = 5 }; /* times that works fail for the network's sake without any result between */
#define LOST_ONE_NS INT64_C(10000000000) /* at most so often is a work taken for lost in the middle */
#define TEST_NS INT64_C(4000000000) /* within which attach and test must be answered before they are tried again */

void dil__ring_poke(int fd)
{
    uint64_t one = 1;
    if (write(fd, &one, sizeof one) < 0) return; /* full: it is awake anyway */
}

/* --- connections of an epoch ------------------------------------------------------------------------------------------------ */

static void close_data(dil__ring *r)
{
    if (r->out) zmq_close(r->out);
    if (r->in) zmq_close(r->in);
    r->out = r->in = NULL;
    r->dialled_ahead = false;
    r->data_state = RING_DOWN;
    memset(r->flight, 0, sizeof r->flight);
    atomic_store(&r->n_flying, 0);
}

static void ring_trouble(dil__ring *r, const dil_err *e)
{
    pthread_mutex_lock(&r->lock);
    r->ring_err = *e;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
    dil_log(DIL_LOG_WARN, "ring", "%s", e->text);
}

static const dil__ring_node *first_node(const dil__ring *r) { return &r->node[r->stage_node[0]]; }
static const dil__ring_node *last_node(const dil__ring *r) { return &r->node[r->stage_node[r->n_stages - 1]]; }

static dil_status send_attach(dil__ring *r, dil_err *err)
{
    dil_buf b;
    dil_buf_init(&b, 4096);
    dil__msg_empty(&b, DIL_FRAME_ATTACH, r->session, 1, r->epoch);
    dil_status s = dil__send_buf(r->in, &b, err);
    dil_buf_fini(&b);
    return s;
}

static dil_status dial_data(dil__ring *r, dil_err *err)
{
    const dil_keypair *me = r->secure ? &r->key : NULL;
    close_data(r);
    dil_status s = dil__dial(r->zmq, first_node(r)->address, first_node(r)->key, me, &r->out, err);
    return s == DIL_OK ? dil__dial(r->zmq, last_node(r)->address, last_node(r)->key, me, &r->in, err) : s;
}

static void dial_ahead(dil__ring *r)
{
    r->dialled_ahead = dial_data(r, NULL) == DIL_OK;
    if (!r->dialled_ahead) close_data(r); /* the epoch tells why */
}

static dil_status send_work(dil__ring *r, uint64_t id, const dil_batch *b, const dil__begin *begin, uint32_t n_begin, dil_err *err)
{
    dil__work_head h = {.n_tokens = b->n_tokens, .n_begin = n_begin, .extra_bytes = dil__work_extra_bytes(begin, n_begin)};
    zmq_msg_t m;
    if (zmq_msg_init_size(&m, dil__work_bytes(&h)) != 0) return dil_fail(err, DIL_EMEMORY, "no memory for a work of %u tokens", b->n_tokens);
    void *hidden;
    dil__work_put(zmq_msg_data(&m), r->session, id, r->epoch, &h, b, begin, &hidden);
    if (zmq_msg_send(&m, r->out, ZMQ_DONTWAIT) >= 0) return DIL_OK;
    zmq_msg_close(&m);
    return dil_fail(err, DIL_ENET, "node %s takes no works: %s", first_node(r)->name, zmq_strerror(errno));
}

static dil_status send_test(dil__ring *r, dil_err *err)
{
    dil_batch none = {0};
    return send_work(r, 0, &none, NULL, 0, err);
}

static void start_epoch(dil__ring *r)
{
    dil_err e;
    r->epoch++;
    r->data_since_ns = dil_now_ns();
    dil_status s = r->dialled_ahead ? DIL_OK : dial_data(r, &e);
    r->dialled_ahead = false;
    if (s == DIL_OK) s = send_attach(r, &e);
    if (s == DIL_OK) s = send_test(r, &e);
    if (s == DIL_OK) r->data_state = RING_ATTACHES;
    else ring_trouble(r, &e);
}

static void is_attached(dil__ring *r)
{
    dil_err e;
    if (r->data_state != RING_ATTACHES) return;
    if (send_test(r, &e) == DIL_OK) r->data_state = RING_TESTS;
    else ring_trouble(r, &e);
}

static void ring_is_up(dil__ring *r, dil__pipe_event *out)
{
    r->data_state = RING_UP;
    out->kind = DIL__PIPE_UP;
    pthread_mutex_lock(&r->lock);
    r->ready = r->loaded && !r->reset;
    r->was_ready |= r->ready;
    r->ring_err = (dil_err){0};
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
    r->news(r->news_ctx);
    dil_log(DIL_LOG_INFO, "ring", "ready: %u stages on %u nodes, the test came back after %.1f ms", r->n_stages, r->n_nodes,
            (double)(dil_now_ns() - r->data_since_ns) * 1e-6);
}

static void retry_epoch(dil__ring *r)
{
    if (dil_now_ns() - r->data_since_ns < TEST_NS) return;
    dil_err e;
    if (r->data_state == RING_TESTS) dil_fail(&e, DIL_ENET, "the ring does not close: a test frame did not come back within 4 s; nodes must reach each other at their addresses");
    else dil_fail(&e, DIL_ENET, "node %s (%s), the last stage, does not answer on the data connection", last_node(r)->name, last_node(r)->address);
    ring_trouble(r, &e);
    start_epoch(r);
}

/* --- the pipe ----------------------------------------------------------------------------------------------------------------- */

static dil_status ring_submit(dil__pipe *p, const dil__work *w, dil_err *err)
{
    dil__ring *r = (dil__ring *)p;
    if (r->data_state != RING_UP) return dil_fail(err, DIL_ENET, "the ring is not ready");
    uint32_t at = 0;
    while (at < DIL__DEPTH_MAX && r->flight[at].id) at++;
    if (at == DIL__DEPTH_MAX) return dil_fail(err, DIL_EBUSY, "%d works are in flight", DIL__DEPTH_MAX);
    int64_t now = dil_now_ns();
    dil_status s = send_work(r, w->id, &w->batch, w->begin, w->n_begin, err);
    if (s == DIL_ENET) close_data(r); /* the next wait starts an epoch */
    if (s != DIL_OK) return s;
    r->flight[at].id = w->id;
    r->flight[at].sent_ns = now;
    r->flight[at].decode = dil__work_is_round(w);
    atomic_fetch_add(&r->n_flying, 1);
    atomic_store(&r->progress_ns, now);
    return DIL_OK;
}

/* False: no such work, or it is over. */
static bool land(dil__ring *r, uint64_t id, uint64_t compute_ns)
{
    for (uint32_t i = 0; id && i < DIL__DEPTH_MAX; i++) {
        if (r->flight[i].id != id) continue;
        int64_t now = dil_now_ns();
        if (r->flight[i].decode && compute_ns) {
            double round = (double)(now - r->flight[i].sent_ns) * 1e-9, compute = (double)compute_ns * 1e-9;
            pthread_mutex_lock(&r->lock);
            dil_ring_timing *t = &r->timing;
            t->round_sec += t->round_sec > 0 ? (round - t->round_sec) / 16 : round;
            t->compute_sec += t->compute_sec > 0 ? (compute - t->compute_sec) / 16 : compute;
            if (t->least_overhead_sec <= 0 || round - compute < t->least_overhead_sec) t->least_overhead_sec = round - compute;
            pthread_mutex_unlock(&r->lock);
        }
        r->flight[i].id = 0;
        if (compute_ns) r->n_bounced = 0;
        atomic_fetch_sub(&r->n_flying, 1);
        atomic_store(&r->progress_ns, now);
        return true;
    }
    return false;
}

/* A work before this one is still out. Works keep their order, so what overtook it says that it was lost where two nodes' connection broke and was
 * made again; or that it failed and the word of it is slower. Starting over helps the first; the second would come again, so once in a while only. */
static bool lost_one(dil__ring *r, uint64_t id, dil_err *err)
{
    uint64_t lost = 0;
    int64_t now = dil_now_ns();
    for (uint32_t i = 0; i < DIL__DEPTH_MAX; i++) {
        if (r->flight[i].id && r->flight[i].id < id) lost = r->flight[i].id;
    }
    if (!lost || (r->lost_one_ns && now - r->lost_one_ns < LOST_ONE_NS)) return false;
    r->lost_one_ns = now;
    dil_fail(err, DIL_ENET, "work %llu was lost between two nodes, one behind it came through", (unsigned long long)lost);
    return true;
}

static void take_result(dil__ring *r, const dil_frame *f, dil__pipe_event *out)
{
    if (f->session != r->session || f->epoch != r->epoch) return;
    if (f->id == 0) {
        if (r->data_state == RING_TESTS || r->data_state == RING_ATTACHES) ring_is_up(r, out);
        return;
    }
    uint64_t compute_ns;
    dil__pipe_event ev = {.kind = DIL__PIPE_RESULT, .id = f->id, .rows = r->rows};
    if (dil__msg_get_result(f, &compute_ns, r->rows, r->pipe.n_seq + DIL__DRAFT_MAX, &ev.n_rows, &ev.err) != DIL_OK) ev.kind = DIL__PIPE_FAILED;
    else ev.compute_sec = (double)compute_ns * 1e-9;
    if (!land(r, f->id, compute_ns)) return;
    if (lost_one(r, f->id, &ev.err)) {
        ev.kind = DIL__PIPE_RESET;
        close_data(r);
    }
    *out = ev;
}

/* Reads until there is an event for the scheduler or nothing more to read. */
static void read_results(dil__ring *r, dil__pipe_event *out)
{
    while (r->in && out->kind == DIL__PIPE_NOTHING) {
        if (zmq_msg_recv(&r->answer, r->in, ZMQ_DONTWAIT) < 0) return;
        bool whole = !zmq_msg_more(&r->answer);
        dil__drop_parts(r->in, &r->answer);
        dil_frame f;
        if (!whole || dil_frame_decode(zmq_msg_data(&r->answer), zmq_msg_size(&r->answer), &f, NULL) != DIL_OK) continue;
        if (f.type == DIL_FRAME_RESULT) take_result(r, &f, out);
        else if (f.type == DIL_FRAME_OK) is_attached(r);
    }
}

/* Of the network, not of the request: it goes on in the next epoch, unless that helps nothing. */
static bool passes(dil__ring *r, const dil_err *e)
{
    return (e->code == DIL_ENET || e->code == DIL_EBUSY) && r->n_bounced++ < BOUNCES_MAX;
}

/* What the control half left for us. True: an event is in *out. */
static bool take_news(dil__ring *r, bool *accepted, bool *loaded, dil__pipe_event *out)
{
    pthread_mutex_lock(&r->lock);
    *accepted = r->accepted;
    *loaded = r->loaded;
    bool was_reset = r->reset;
    r->reset = false;
    if (was_reset) {
        out->kind = DIL__PIPE_RESET;
        out->err = r->reset_err;
        r->n_failed = 0;
    } else if (r->n_failed) {
        dil__failed_work w = r->failed[--r->n_failed];
        if (w.epoch == r->epoch) {
            out->id = w.id;
            out->err = w.err;
            out->kind = passes(r, &w.err) || lost_one(r, w.id, &out->err) ? DIL__PIPE_RESET : DIL__PIPE_FAILED;
        }
    }
    pthread_mutex_unlock(&r->lock);
    if (out->kind == DIL__PIPE_RESET) close_data(r);
    if (out->kind == DIL__PIPE_FAILED && !land(r, out->id, 0)) out->kind = DIL__PIPE_NOTHING;
    return out->kind != DIL__PIPE_NOTHING;
}

static void ring_wait(dil__pipe *p, int64_t timeout_ns, dil__pipe_event *out)
{
    (void)timeout_ns; /* the runner asks for no timeouts; our own are those of the epoch */
    dil__ring *r = (dil__ring *)p;
    *out = (dil__pipe_event){0};
    bool accepted, loaded;
    if (take_news(r, &accepted, &loaded, out)) return;
    if (!loaded && (r->data_state != RING_DOWN || (r->dialled_ahead && !accepted))) close_data(r);
    if (loaded && r->data_state == RING_DOWN) start_epoch(r);
    else if (accepted && r->data_state == RING_DOWN && !r->dialled_ahead) dial_ahead(r);
    read_results(r, out);
    if (out->kind != DIL__PIPE_NOTHING) return;
    bool settling = r->data_state == RING_ATTACHES || r->data_state == RING_TESTS || (loaded && r->data_state == RING_DOWN);
    zmq_pollitem_t items[2] = {{.fd = r->wake_fd, .events = ZMQ_POLLIN}, {.socket = r->in, .events = ZMQ_POLLIN}};
    zmq_poll(items, r->in ? 2 : 1, settling ? 100 : -1);
    uint64_t count;
    if (items[0].revents && read(r->wake_fd, &count, sizeof count) < 0 && errno != EAGAIN) return;
    read_results(r, out);
    if (settling && (r->data_state == RING_ATTACHES || r->data_state == RING_TESTS || r->data_state == RING_DOWN)) retry_epoch(r);
}

static void ring_wake(dil__pipe *p)
{
    dil__ring_poke(((dil__ring *)p)->wake_fd);
}

const char *dil__ring_phase_text(const dil__ring_node *n, char out[160])
{
    double done = n->bytes_total ? 100.0 * (double)(n->bytes_sent + n->bytes_cached) / (double)n->bytes_total : 100;
    switch (n->phase) {
    case DIL__NODE_CONNECTS: snprintf(out, 160, n->err.code ? "%.150s" : "connecting", n->err.text); break;
    case DIL__NODE_LOADS: snprintf(out, 160, "looking into its cache"); break;
    case DIL__NODE_RECEIVES: snprintf(out, 160, "loading %.0f %%", done); break;
    case DIL__NODE_OPENS: snprintf(out, 160, "opening its layers"); break;
    case DIL__NODE_READY: snprintf(out, 160, "ready"); break;
    case DIL__NODE_REFUSES: snprintf(out, 160, "%.150s", n->err.text); break;
    }
    return out;
}

static void ring_state(dil__pipe *p, dil_runner_state *out)
{
    dil__ring *r = (dil__ring *)p;
    char *why = out->why;
    why[0] = 0;
    pthread_mutex_lock(&r->lock);
    bool ready = out->ready = r->ready;
    out->recovering = !ready && r->was_ready;
    if (out->recovering) {
        out->recovering_sec = (double)(dil_now_ns() - r->lost_ns) * 1e-9;
        snprintf(out->node, sizeof out->node, "%.120s", r->lost_node);
    }
    if (!ready && r->loaded) snprintf(why, DIL_ERR_TEXT_MAX, "%s", r->ring_err.code ? r->ring_err.text : "testing the ring");
    for (uint32_t i = 0; !ready && !r->loaded && i < r->n_nodes; i++) {
        const dil__ring_node *n = &r->node[i];
        char text[160];
        size_t at = strlen(why);
        if (n->phase != DIL__NODE_READY && at + 1 < DIL_ERR_TEXT_MAX)
            snprintf(why + at, DIL_ERR_TEXT_MAX - at, "%snode %s: %s", at ? "; " : "", n->name, dil__ring_phase_text(n, text));
    }
    pthread_mutex_unlock(&r->lock);
}

static void ring_close(dil__pipe *p)
{
    dil__ring *r = (dil__ring *)p;
    atomic_store(&r->closing, true);
    if (r->started) {
        dil__ring_poke(r->ctl_fd);
        pthread_join(r->thread, NULL);
    }
    close_data(r);
    zmq_msg_close(&r->answer);
    if (r->zmq) zmq_ctx_term(r->zmq);
    if (r->wake_fd >= 0) close(r->wake_fd);
    if (r->ctl_fd >= 0) close(r->ctl_fd);
    pthread_mutex_destroy(&r->lock);
    pthread_cond_destroy(&r->changed);
    dil_arena_free(r->arena);
    free(r->rows);
    dil_buf_fini(&r->words);
    sodium_memzero(&r->key, sizeof r->key);
    free(r);
}

static const dil__pipe_ops ring_ops = {ring_submit, ring_wait, ring_wake, ring_state, ring_close};

/* --- opening ------------------------------------------------------------------------------------------------------------------ */

static dil_status open_ring(dil__ring *r, const dil_plan *plan, const dil_cluster *cluster, const dil_arch *arch, const dil_ring_opts *o, dil_err *err)
{
    dil__pipe *p = &r->pipe;
    p->n_ctx = o->n_ctx ? o->n_ctx : plan->context;
    p->n_seq = o->n_seq ? o->n_seq : plan->sequences ? plan->sequences : 1;
    p->n_vocab = arch->n_vocab;
    p->chunk = o->chunk ? o->chunk : DIL__CHUNK;
    p->depth = plan->n_stages + 1 < DIL__DEPTH_MAX ? plan->n_stages + 1 : DIL__DEPTH_MAX;
    p->fixed_shapes = o->fixed_shapes;
    if (!o->fixed_shapes) p->pieces = dil__pieces_of_plan(plan, cluster, arch->n_embd, (uint32_t)dil__wire_bytes(o->wire)); /* else a text would depend on the plan */
    if (p->n_ctx < 2 || p->n_seq > DIL__SLOTS_MAX || p->chunk > DIL__WORK_TOKENS_MAX)
        return dil_fail(err, DIL_EUSAGE, "a context of %u tokens, %u sequences, chunks of %u: at least 2, at most %d, at most %d", p->n_ctx, p->n_seq, p->chunk,
                        DIL__SLOTS_MAX, DIL__WORK_TOKENS_MAX);
    if (p->n_ctx > DIL_ARCH_CTX_MAX || (uint64_t)arch->n_embd * p->chunk * sizeof(float) > DIL_FRAME_MAX / 2)
        return dil_fail(err, DIL_ELIMIT, "chunks of %u hidden states of %u values are longer than a frame; take smaller ones", p->chunk, arch->n_embd);
    r->rows = calloc(p->n_seq + DIL__DRAFT_MAX, sizeof *r->rows);
    r->arena = dil_arena_new((size_t)1 << 30);
    r->zmq = zmq_ctx_new();
    r->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    r->ctl_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (!r->rows || !r->arena || !r->zmq || r->wake_fd < 0 || r->ctl_fd < 0) return dil_fail(err, DIL_EMEMORY, "no memory for a coordinator");
    dil_status s = dil__ring_build(r, plan, cluster, arch, o, err);
    if (s != DIL_OK) return s;
    if (pthread_create(&r->thread, NULL, dil__ring_control, r) != 0) return dil_fail(err, DIL_EMEMORY, "no thread for a coordinator");
    r->started = true;
    return DIL_OK;
}

dil_status dil__ring_open(const dil_plan *plan, const dil_cluster *cluster, const dil_gguf *model, const dil_arch *arch, const dil_ring_opts *opts,
                          bool fetch_only, void (*news)(void *ctx), void *news_ctx, dil__ring **out, dil_err *err)
{
    dil__ring *r = calloc(1, sizeof *r);
    if (!r) return dil_fail(err, DIL_EMEMORY, "no memory for a coordinator");
    if (sodium_init() < 0) return dil_fail(err, DIL_EINTERNAL, "no random numbers");
    r->pipe.ops = &ring_ops;
    r->pipe.schema_max = opts->words ? DIL__SCHEMA_MAX : 0;
    r->fetch_only = fetch_only;
    r->news = news;
    r->news_ctx = news_ctx;
    r->model = model;
    r->secure = opts->key != NULL;
    if (opts->key) r->key = *opts->key;
    r->lost_sec = opts->lost_sec > 0 ? opts->lost_sec : 2;
    r->wake_fd = r->ctl_fd = -1;
    r->broken_from = r->broken_to = UINT32_MAX;
    zmq_msg_init(&r->answer);
    dil_buf_init(&r->words, DIL_FRAME_MAX);
    pthread_mutex_init(&r->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&r->changed, &attr);
    pthread_condattr_destroy(&attr);
    while (r->session == 0) randombytes_buf(&r->session, sizeof r->session);
    dil_status s = open_ring(r, plan, cluster, arch, opts, err);
    if (s == DIL_OK) *out = r;
    else ring_close(&r->pipe);
    return s;
}
