/* The control half: one thread that talks to every node, each a small state machine:
 *
 *   CONNECTS -HELLO/INFO-> LOADS -LOAD/NEED-> RECEIVES -chunks-> OPENS -STATUS-> READY
 *
 * Over links with delay a start is a matter of round trips: LOAD leaves right behind HELLO, connections are made while chunks are hashed, and as
 * soon as every node has its session JOIN lets all of them dial their neighbours at once, while layers are still being loaded.
 *
 * Heartbeats run in every state behind the first. Silence for lost_sec, or a node that no longer knows the session, sends it
 * back to CONNECTS, and the data half is told to give up what was in flight. Chunks have a connection of their own, so that
 * a heartbeat never stands behind a megabyte of weights on a slow link. */
#include "net/ring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { WINDOW = 4 /* chunks on the way to one node */, REDIAL_MS = 500, SILENCE_LOADING = 15 /* times lost_sec without an answer to LOAD */ };

#define BUSY_NS INT64_C(7000000000) /* a coordinator that went without a word is given up by the node meanwhile (sock.c) */
#define GONE_NS INT64_C(300000000) /* a connection that broke is made again meanwhile where there is anybody */
#define DETECT_SHARE 0.9 /* of lost_sec: the rest is what noticing takes */

typedef struct ctl {
    dil__ring *r;
    int64_t woke_ns;
    bool hashed, joined;
    dil_buf buf;
    zmq_pollitem_t *items; /* [2 * n_nodes + 1] */
} ctl;

static int64_t ns(double sec)
{
    return (int64_t)(sec * 1e9);
}

/* --- what the other half and the outside see ------------------------------------------------------------------------------ */

static void set_phase(dil__ring *r, dil__ring_node *n, dil__node_phase phase)
{
    pthread_mutex_lock(&r->lock);
    n->phase = phase;
    if (phase == DIL__NODE_READY) n->err = (dil_err){0};
    bool all = true, accepted = true;
    for (uint32_t i = 0; i < r->n_nodes; i++) {
        dil__node_phase p = r->node[i].phase;
        all = all && p == DIL__NODE_READY;
        accepted = accepted && (p == DIL__NODE_RECEIVES || p == DIL__NODE_OPENS || p == DIL__NODE_READY);
    }
    bool news = all != r->loaded || accepted != r->accepted;
    r->loaded = all;
    r->accepted = accepted;
    if (!all) r->ready = false;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
    if (news) dil__ring_poke(r->wake_fd);
    r->news(r->news_ctx);
}

static void set_error(dil__ring *r, dil__ring_node *n, const dil_err *e)
{
    pthread_mutex_lock(&r->lock);
    bool news = strcmp(n->err.text, e->text) != 0;
    n->err = *e;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
    if (news) dil_log(DIL_LOG_WARN, "ring", "node %s: %s", n->name, e->text);
    r->news(r->news_ctx);
}

/* node NULL: it was a link. */
static void reset(dil__ring *r, dil__ring_node *node, const dil_err *e)
{
    pthread_mutex_lock(&r->lock);
    if (node) { /* in one step: whoever looks sees the loss and its reason */
        node->phase = DIL__NODE_CONNECTS;
        r->accepted = r->loaded = false;
    }
    if (r->ready || !r->lost_ns) {
        r->lost_ns = dil_now_ns();
        snprintf(r->lost_node, sizeof r->lost_node, "%s", node ? node->name : "");
    }
    r->reset = true;
    r->ready = false;
    r->reset_err = *e;
    pthread_mutex_unlock(&r->lock);
    dil__ring_poke(r->wake_fd);
    r->news(r->news_ctx);
}

/* --- connecting ------------------------------------------------------------------------------------------------------------- */

static void send_frame(ctl *c, void *sock)
{
    dil_err e;
    if (dil__send_buf(sock, &c->buf, &e) != DIL_OK) dil_log(DIL_LOG_DEBUG, "ring", "%s", e.text);
    c->buf.len = 0;
    c->buf.failed = false;
}

static void close_bulk(dil__ring_node *n)
{
    dil__watch_close(&n->bulk_watch, n->bulk);
    if (n->bulk) zmq_close(n->bulk);
    n->bulk = NULL;
}

static void hang_up(dil__ring_node *n)
{
    dil__watch_close(&n->watch, n->ctl);
    if (n->ctl) zmq_close(n->ctl);
    n->ctl = NULL;
    close_bulk(n);
}

static bool put_load(ctl *c, dil__ring_node *n)
{
    if (dil__msg_load(&c->buf, c->r->session, 2, &n->load)) {
        send_frame(c, n->ctl);
        return true;
    }
    dil_err e;
    dil_fail(&e, DIL_ELIMIT, "the list of its chunks is longer than a frame");
    set_error(c->r, n, &e);
    set_phase(c->r, n, DIL__NODE_REFUSES);
    c->buf.len = 0;
    c->buf.failed = false;
    return false;
}

static void dial(ctl *c, dil__ring_node *n)
{
    dil__ring *r = c->r;
    dil_err e;
    hang_up(n);
    n->dial_ns = dil_now_ns();
    if (dil__dial(r->zmq, n->address, n->key, r->secure ? &r->key : NULL, &n->ctl, &e) != DIL_OK ||
        dil__watch_open(&n->watch, r->zmq, n->ctl, &e) != DIL_OK) {
        hang_up(n);
        set_error(r, n, &e);
        return;
    }
    dil__msg_empty(&c->buf, DIL_FRAME_HELLO, 0, 1, 0);
    send_frame(c, n->ctl);
    if (c->hashed) put_load(c, n);
}

/* The node is gone or forgot us: start over with it. */
static void lose(ctl *c, dil__ring_node *n, const dil_err *e)
{
    bool had = n->phase == DIL__NODE_READY;
    set_error(c->r, n, e);
    if (had) reset(c->r, n, e);
    set_phase(c->r, n, DIL__NODE_CONNECTS);
    dial(c, n);
}

static void wait_for_need(ctl *c, dil__ring_node *n)
{
    n->sent_ns = dil_now_ns();
    set_phase(c->r, n, DIL__NODE_LOADS);
}

/* Everybody lets everybody in from now on. */
static void join(ctl *c)
{
    pthread_mutex_lock(&c->r->lock);
    bool accepted = c->r->accepted;
    pthread_mutex_unlock(&c->r->lock);
    for (uint32_t i = 0; accepted && !c->joined && !c->r->fetch_only && i < c->r->n_nodes; i++) {
        dil__msg_empty(&c->buf, DIL_FRAME_JOIN, c->r->session, 5, 0);
        send_frame(c, c->r->node[i].ctl);
    }
    c->joined = accepted;
}

/* --- chunks ----------------------------------------------------------------------------------------------------------------- */

static void send_chunks(ctl *c, dil__ring_node *n)
{
    while (n->bulk && n->n_window < WINDOW && n->next_chunk < n->load.n_chunks) {
        uint32_t i = n->next_chunk++;
        if (!n->missing[i]) continue;
        dil__msg_chunk(&c->buf, c->r->session, (uint64_t)i + 1, i, n->chunk[i].data, n->chunk[i].bytes);
        send_frame(c, n->bulk);
        n->n_window++;
    }
}

static void take_need(ctl *c, dil__ring_node *n, const dil_frame *f)
{
    const uint8_t *bits;
    dil_err e;
    n->busy_ns = 0;
    if (dil__msg_get_need(f, n->load.n_chunks, &bits, &e) != DIL_OK) {
        lose(c, n, &e);
        return;
    }
    uint64_t missing = 0;
    n->n_missing = n->next_chunk = n->n_window = 0;
    for (uint32_t i = 0; i < n->load.n_chunks; i++) {
        n->missing[i] = bits[i / 8] >> i % 8 & 1;
        n->n_missing += n->missing[i];
        if (n->missing[i]) missing += n->chunk[i].bytes;
    }
    pthread_mutex_lock(&c->r->lock);
    n->bytes_sent = 0;
    n->bytes_cached = n->bytes_total - missing;
    pthread_mutex_unlock(&c->r->lock);
    set_phase(c->r, n, n->n_missing ? DIL__NODE_RECEIVES : DIL__NODE_OPENS);
    if (!n->n_missing) return;
    close_bulk(n);
    if (dil__dial(c->r->zmq, n->address, n->key, c->r->secure ? &c->r->key : NULL, &n->bulk, &e) != DIL_OK ||
        dil__watch_open(&n->bulk_watch, c->r->zmq, n->bulk, &e) != DIL_OK) lose(c, n, &e);
    else send_chunks(c, n);
}

static void take_ack(ctl *c, dil__ring_node *n, const dil_frame *f)
{
    if (f->id == 0 || f->id > n->load.n_chunks || !n->missing[f->id - 1] || n->phase != DIL__NODE_RECEIVES) return;
    uint32_t i = (uint32_t)f->id - 1;
    n->missing[i] = 0;
    n->n_window--;
    n->n_missing--;
    pthread_mutex_lock(&c->r->lock);
    n->bytes_sent += n->chunk[i].bytes;
    pthread_cond_broadcast(&c->r->changed);
    pthread_mutex_unlock(&c->r->lock);
    if (n->n_missing == 0) set_phase(c->r, n, DIL__NODE_OPENS);
    else send_chunks(c, n);
}

/* --- answers ---------------------------------------------------------------------------------------------------------------- */

static void refuse(ctl *c, dil__ring_node *n, const dil_err *e)
{
    set_error(c->r, n, e);
    if (n->phase == DIL__NODE_READY) reset(c->r, n, e);
    set_phase(c->r, n, DIL__NODE_REFUSES);
}

static void take_status(ctl *c, dil__ring_node *n, const dil_frame *f)
{
    dil_err e;
    dil__node_status st;
    if (f->session != c->r->session || dil__msg_get_status(f, &st, &e) != DIL_OK) return;
    if (st.busy || st.n_queued || st.last_work != n->status.last_work) atomic_store(&c->r->progress_ns, n->heard_ns);
    n->status = st;
    pthread_mutex_lock(&c->r->lock);
    n->rss_bytes = st.rss_bytes;
    n->memory_free = st.memory_free;
    n->memory_known = st.state != DIL__SESSION_NONE;
    n->tempo = st.tempo;
    pthread_mutex_unlock(&c->r->lock);
    switch (st.state) {
    case DIL__SESSION_NONE:
        if (n->phase == DIL__NODE_READY || n->phase == DIL__NODE_OPENS || n->phase == DIL__NODE_RECEIVES) {
            dil_fail(&e, DIL_ENET, "node %s (%s) was restarted and lost its layers", n->name, n->address);
            lose(c, n, &e);
        }
        break;
    case DIL__SESSION_FAILED:
        dil_fail(&e, st.err.code ? st.err.code : DIL_ENET, "node %s: %s", n->name, st.err.text);
        refuse(c, n, &e);
        break;
    case DIL__SESSION_READY:
        if (n->phase == DIL__NODE_OPENS || n->phase == DIL__NODE_RECEIVES) {
            dil_log(DIL_LOG_INFO, "ring", "node %s is ready", n->name);
            set_phase(c->r, n, DIL__NODE_READY);
        }
        break;
    default: break;
    }
}

static void take_failed_work(ctl *c, const dil__ring_node *n, const dil_frame *f)
{
    dil_err theirs;
    if (f->session != c->r->session || dil__msg_get_error(f, &theirs) != DIL_OK) return;
    pthread_mutex_lock(&c->r->lock);
    if (c->r->n_failed < DIL__DEPTH_MAX) {
        dil__failed_work *w = &c->r->failed[c->r->n_failed++];
        w->id = f->id;
        w->epoch = f->epoch;
        dil_fail(&w->err, theirs.code, "node %s: %s", n->name, theirs.text);
    }
    pthread_mutex_unlock(&c->r->lock);
    dil__ring_poke(c->r->wake_fd);
}

/* Out of memory in the middle of a work: not the request's fault, and the next one will not fare better. */
static bool ran_short(ctl *c, dil__ring_node *n, const dil_frame *f)
{
    dil_err theirs, e;
    if (f->session != c->r->session || dil__msg_get_error(f, &theirs) != DIL_OK || theirs.code != DIL_EMEMORY) return false;
    dil_fail(&e, DIL_EMEMORY, "node %s ran out of memory: %.400s", n->name, theirs.text);
    refuse(c, n, &e);
    return true;
}

static void take_error(ctl *c, dil__ring_node *n, const dil_frame *f)
{
    dil_err theirs, e;
    if (dil__msg_get_error(f, &theirs) != DIL_OK) return;
    dil_fail(&e, theirs.code, "node %s (%s): %s", n->name, n->address, theirs.text);
    if (n->phase == DIL__NODE_READY) return; /* late news of what is over */
    if (theirs.code == DIL_EBUSY && !n->busy_ns) n->busy_ns = n->heard_ns;
    if (theirs.code == DIL_EBUSY && n->heard_ns - n->busy_ns < BUSY_NS) {
        set_error(c->r, n, &e);
        set_phase(c->r, n, DIL__NODE_CONNECTS);
    } else if (theirs.code == DIL_ENOTFOUND) lose(c, n, &e);
    else refuse(c, n, &e);
}

static void take_frame(ctl *c, dil__ring_node *n, const dil_frame *f)
{
    switch (f->type) {
    case DIL_FRAME_INFO:
        if (n->phase == DIL__NODE_CONNECTS) wait_for_need(c, n);
        break;
    case DIL_FRAME_NEED:
        if (n->phase == DIL__NODE_LOADS) take_need(c, n, f);
        break;
    case DIL_FRAME_OK: take_ack(c, n, f); break;
    case DIL_FRAME_STATUS: take_status(c, n, f); break;
    case DIL_FRAME_WORK_FAILED:
        if (!ran_short(c, n, f)) take_failed_work(c, n, f);
        break;
    case DIL_FRAME_ERROR: take_error(c, n, f); break;
    default: break;
    }
}

static void read_socket(ctl *c, dil__ring_node *n, void *sock)
{
    /* What a frame makes us do may close the socket: look again each time. */
    while (sock && (sock == n->ctl || sock == n->bulk)) {
        zmq_msg_t m;
        zmq_msg_init(&m);
        bool got = zmq_msg_recv(&m, sock, ZMQ_DONTWAIT) >= 0;
        bool whole = got && !zmq_msg_more(&m);
        if (got) dil__drop_parts(sock, &m);
        dil_frame f;
        if (whole && dil_frame_decode(zmq_msg_data(&m), zmq_msg_size(&m), &f, NULL) == DIL_OK) {
            n->heard_ns = dil_now_ns();
            pthread_mutex_lock(&c->r->lock);
            n->shown_heard_ns = n->heard_ns;
            pthread_mutex_unlock(&c->r->lock);
            take_frame(c, n, &f);
        }
        zmq_msg_close(&m);
        if (!got) return;
    }
}

/* --- time ------------------------------------------------------------------------------------------------------------------- */

static void watch_connecting(ctl *c, dil__ring_node *n, int64_t now)
{
    dil__ring *r = c->r;
    if (n->ctl) dil__watch_poll(&n->watch);
    bool stuck = !n->ctl || n->watch.refused || (n->watch.connected && !n->watch.shaken);
    if (n->busy_ns && now - n->heard_ns > ns(r->lost_sec + 2)) n->busy_ns = 0;
    if (n->ctl && !n->busy_ns && (n->watch.refused || now - n->dial_ns > ns(r->lost_sec))) {
        dil_err e;
        dil__watch_fail(&n->watch, n->address, r->secure ? &r->key : NULL, r->lost_sec, &e);
        set_error(r, n, &e);
    }
    /* ZeroMQ tries again by itself where nobody listens, but gives up on a handshake that failed. */
    int64_t patience = n->busy_ns ? ns(1) : stuck && n->watch.refused ? REDIAL_MS * INT64_C(1000000) : ns(r->lost_sec > 1 ? 2 * r->lost_sec : 2);
    if (now - n->dial_ns > patience) dial(c, n);
}

static void beat(ctl *c, dil__ring_node *n, int64_t now)
{
    if (now < n->beat_ns) return;
    n->beat_ns = now + ns(c->r->lost_sec / 4);
    dil__msg_empty(&c->buf, DIL_FRAME_HEARTBEAT, c->r->session, 3, 0);
    send_frame(c, n->ctl);
}

/* A connection that broke while weights travelled took some with it, or the word that they came. It is made again by itself, and nobody would
 * miss them: the node is asked anew what it lacks. */
static void watch_bulk(ctl *c, dil__ring_node *n)
{
    if (n->phase != DIL__NODE_RECEIVES || !n->bulk) return;
    dil__watch_poll(&n->bulk_watch);
    if (n->bulk_watch.n_broken && put_load(c, n)) wait_for_need(c, n);
}

static void tick_node(ctl *c, dil__ring_node *n, int64_t now)
{
    if (n->phase == DIL__NODE_CONNECTS) {
        watch_connecting(c, n, now);
        return;
    }
    beat(c, n, now);
    watch_bulk(c, n);
    dil__watch_poll(&n->watch);
    double silent = (double)(now - n->heard_ns) * 1e-9;
    dil_err e;
    if (n->watch.gone_ns && now - n->watch.gone_ns > GONE_NS) {
        dil_fail(&e, DIL_ENET, "node %s (%s) vanished: its connection broke and nobody answers there", n->name, n->address);
        lose(c, n, &e);
    } else if (silent > DETECT_SHARE * c->r->lost_sec) {
        dil_fail(&e, DIL_ENET, "node %s (%s) vanished: no word for %.1f s", n->name, n->address, silent);
        lose(c, n, &e);
    } else if (n->phase == DIL__NODE_LOADS && now - n->sent_ns > ns(c->r->lost_sec * SILENCE_LOADING)) {
        dil_fail(&e, DIL_ENET, "node %s (%s) did not answer to its layers", n->name, n->address);
        lose(c, n, &e);
    } else if (n->phase == DIL__NODE_REFUSES && now - n->dial_ns > ns(n->busy_ns ? 2 : 10)) {
        set_phase(c->r, n, DIL__NODE_CONNECTS); /* what it lacked may be there now */
        dial(c, n);
    }
}

/* Works are on their way, no node did anything for a while, and nothing comes back: a link between nodes is broken. That all are idle in their last
 * words is not enough: those are not of one moment, and a work that went from one to the other between them is seen at neither. */
static void watch_ring(ctl *c, int64_t now)
{
    dil__ring *r = c->r;
    if (atomic_load(&r->n_flying) == 0 || now - atomic_load(&r->progress_ns) < ns(DETECT_SHARE * r->lost_sec)) return;
    uint32_t at = r->n_stages;
    for (uint32_t i = 0; i < r->n_nodes; i++) {
        const dil__ring_node *n = &r->node[i];
        if (n->phase != DIL__NODE_READY || n->status.busy || n->status.n_queued || now - n->heard_ns > ns(r->lost_sec)) return;
    }
    for (uint32_t i = 0; i + 1 < r->n_stages && at == r->n_stages; i++) {
        if (r->node[r->stage_node[i]].status.last_work > r->node[r->stage_node[i + 1]].status.last_work) at = i;
    }
    dil_err e;
    pthread_mutex_lock(&r->lock);
    r->broken_from = at < r->n_stages ? r->stage_node[at] : UINT32_MAX;
    r->broken_to = at < r->n_stages ? r->stage_node[at + 1] : UINT32_MAX;
    pthread_mutex_unlock(&r->lock);
    if (at < r->n_stages)
        dil_fail(&e, DIL_ENET, "the link from node %s to node %s is broken: a work went in and did not arrive", r->node[r->stage_node[at]].name,
                 r->node[r->stage_node[at + 1]].name);
    else dil_fail(&e, DIL_ENET, "a work was lost on the ring: every node is idle and nothing comes back for %.1f s", r->lost_sec);
    atomic_store(&r->progress_ns, now);
    dil_log(DIL_LOG_WARN, "ring", "%s", e.text);
    reset(r, NULL, &e);
}

/* A machine that was suspended, or so busy that this thread did not run, has missed words that were said: that is not silence. */
static void excuse_own_sleep(ctl *c, int64_t now)
{
    int64_t slept = c->woke_ns ? now - c->woke_ns : 0;
    c->woke_ns = now;
    if (slept < ns(c->r->lost_sec / 3)) return;
    for (uint32_t i = 0; i < c->r->n_nodes; i++) {
        dil__ring_node *n = &c->r->node[i];
        n->heard_ns = n->heard_ns + slept < now ? n->heard_ns + slept : now;
    }
    atomic_store(&c->r->progress_ns, now);
}

static int wait_sockets(ctl *c)
{
    dil__ring *r = c->r;
    int n = 0;
    c->items[n++] = (zmq_pollitem_t){.fd = r->ctl_fd, .events = ZMQ_POLLIN};
    for (uint32_t i = 0; i < r->n_nodes; i++) {
        if (r->node[i].ctl) c->items[n++] = (zmq_pollitem_t){.socket = r->node[i].ctl, .events = ZMQ_POLLIN};
        if (r->node[i].bulk) c->items[n++] = (zmq_pollitem_t){.socket = r->node[i].bulk, .events = ZMQ_POLLIN};
    }
    long ms = (long)(r->lost_sec * 1000 / 8);
    return zmq_poll(c->items, n, ms < 1 ? 1 : ms > 100 ? 100 : ms);
}

static void say_goodbye(ctl *c)
{
    for (uint32_t i = 0; i < c->r->n_nodes; i++) {
        dil__ring_node *n = &c->r->node[i];
        if (!n->ctl || n->phase == DIL__NODE_CONNECTS) continue;
        dil__msg_empty(&c->buf, DIL_FRAME_UNLOAD, c->r->session, 4, 0);
        zmq_setsockopt(n->ctl, ZMQ_LINGER, &(int){500}, sizeof(int));
        send_frame(c, n->ctl);
    }
}

void *dil__ring_control(void *ring)
{
    dil__ring *r = ring;
    ctl c = {.r = r, .items = calloc((size_t)2 * r->n_nodes + 1, sizeof *c.items)};
    dil_buf_init(&c.buf, DIL_FRAME_MAX);
    if (!c.items) return NULL;
    for (uint32_t i = 0; i < r->n_nodes; i++) dial(&c, &r->node[i]);
    dil__ring_hash(r);
    c.hashed = true;
    for (uint32_t i = 0; i < r->n_nodes; i++) {
        if (r->node[i].ctl) put_load(&c, &r->node[i]);
    }
    while (!atomic_load(&r->closing)) {
        wait_sockets(&c);
        for (uint32_t i = 0; i < r->n_nodes; i++) {
            read_socket(&c, &r->node[i], r->node[i].ctl);
            read_socket(&c, &r->node[i], r->node[i].bulk);
        }
        join(&c);
        int64_t now = dil_now_ns();
        excuse_own_sleep(&c, now);
        for (uint32_t i = 0; i < r->n_nodes; i++) tick_node(&c, &r->node[i], now);
        watch_ring(&c, now);
    }
    say_goodbye(&c);
    for (uint32_t i = 0; i < r->n_nodes; i++) hang_up(&r->node[i]);
    dil_buf_fini(&c.buf);
    free(c.items);
    return NULL;
}
