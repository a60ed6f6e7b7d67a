/* The daemon. Four threads: the gate (authentication), the listener (this file's heart: it owns the ROUTER, answers what
 * takes no time and hands on the rest), the job thread (disk, measurements, loading) and the worker (stages). Heartbeats are
 * therefore answered while a long prompt is computed, and a slow disk does not stop a token.
 *
 * Answers come from all threads. A ZeroMQ socket belongs to one thread at a time, which a lock makes true; its readiness is
 * edge-triggered, so whoever used the socket looks afterwards whether something arrived meanwhile and pokes the listener.
 * Handing answers to the listener instead was rejected: it costs every token one more switch between threads. */
#include "net/gate.h"
#include "net/measure.h"
#include "net/node_impl.h"
#include "net/queue.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>


enum { JOBS_MAX = 256, WORKS_MAX = 256, SESSIONS_MAX = 16 };
#define LEASE_NS INT64_C(30000000000) /* a coordinator that is silent for so long has lost its session */

enum { ITEM_FRAME, ITEM_OPEN, ITEM_END };

struct dil_node {
    void *zmq, *router;
    uint16_t port;
    int router_fd, poke_fd;
    pthread_mutex_t router_lock;
    pthread_t listener, jobs_thread, worker;
    int n_threads_started;
    atomic_bool stopping;
    dil__queue jobs, works;

    pthread_mutex_t lock; /* guards sessions and the counts in them */
    dil__net_session *session[SESSIONS_MAX];
    uint32_t n_sessions;
    uint64_t next_tag;

    dil__gate *gate;      /* NULL: insecure */
    dil_keypair key;
    dil__env env;
    char device[64], cpu[128];
    uint64_t memory_bytes;
    dil_buf reply;        /* the listener's */
    dil_buf job_reply;    /* the job thread's */
    int64_t next_sweep_ns, complained_ns;
};

/* --- sending ---------------------------------------------------------------------------------------------------------------- */

static void poke(dil_node *n)
{
    uint64_t one = 1;
    if (write(n->poke_fd, &one, sizeof one) < 0) return; /* full: it is awake anyway */
}

static void send_to(void *node, const dil__id *to, const dil_buf *frame)
{
    dil_node *n = node;
    if (!to->len) return;
    pthread_mutex_lock(&n->router_lock);
    bool ok = zmq_send(n->router, to->bytes, to->len, ZMQ_SNDMORE | ZMQ_DONTWAIT) >= 0 && zmq_send(n->router, frame->data, frame->len, ZMQ_DONTWAIT) >= 0;
    int events = 0;
    size_t size = sizeof events;
    zmq_getsockopt(n->router, ZMQ_EVENTS, &events, &size);
    pthread_mutex_unlock(&n->router_lock);
    if (events & ZMQ_POLLIN) poke(n);
    if (!ok) dil_log(DIL_LOG_DEBUG, "node", "an answer found nobody: the peer is gone");
}

static void send_error(dil_node *n, dil_buf *b, const dil__id *to, const dil_frame *f, const dil_err *e)
{
    b->len = 0;
    if (dil__msg_error(b, DIL_FRAME_ERROR, f->session, f->id, 0, e)) send_to(n, to, b);
}

static void send_empty(dil_node *n, dil_buf *b, const dil__id *to, const dil_frame *f, dil_frame_type type)
{
    b->len = 0;
    if (dil__msg_empty(b, type, f->session, f->id, 0)) send_to(n, to, b);
}

/* --- sessions --------------------------------------------------------------------------------------------------------------- */

static dil__net_session *session_get(dil_node *n, uint64_t id)
{
    dil__net_session *s = NULL;
    pthread_mutex_lock(&n->lock);
    for (uint32_t i = 0; i < n->n_sessions; i++) {
        if (n->session[i]->id == id) s = n->session[i];
    }
    if (s) s->n_refs++;
    pthread_mutex_unlock(&n->lock);
    return s;
}

static void session_put(dil_node *n, dil__net_session *s)
{
    pthread_mutex_lock(&n->lock);
    bool last = --s->n_refs == 0;
    pthread_mutex_unlock(&n->lock);
    if (last) dil__net_session_free(s);
}

static void session_remove(dil_node *n, dil__net_session *s, const char *why)
{
    bool found = false;
    pthread_mutex_lock(&n->lock);
    for (uint32_t i = 0; i < n->n_sessions; i++) {
        if (n->session[i] != s) continue;
        n->session[i] = n->session[--n->n_sessions];
        found = true;
        break;
    }
    pthread_mutex_unlock(&n->lock);
    if (!found) return;
    if (n->gate) dil__gate_expel(n->gate, s->owner_tag);
    char bytes[32];
    dil_log(DIL_LOG_INFO, "node", "session %016llx ended (%s), %s are free again", (unsigned long long)s->id, why, dil_format_bytes(s->bytes, bytes));
    dil__item it = {.kind = ITEM_END, .ptr = s}; /* the worker frees it, behind the works that still use it */
    zmq_msg_init(&it.msg);
    if (!dil__queue_push(&n->works, &it)) session_put(n, s);
}

static uint64_t bytes_in_use(dil_node *n)
{
    uint64_t sum = 0;
    pthread_mutex_lock(&n->lock);
    for (uint32_t i = 0; i < n->n_sessions; i++) sum += n->session[i]->bytes;
    pthread_mutex_unlock(&n->lock);
    return sum;
}

static void end_sessions_of(dil_node *n, const char *owner, const char *why)
{
    for (;;) {
        dil__net_session *found = NULL;
        pthread_mutex_lock(&n->lock);
        for (uint32_t i = 0; i < n->n_sessions && !found; i++) {
            if (strcmp(n->session[i]->owner, owner) == 0) found = n->session[i];
        }
        pthread_mutex_unlock(&n->lock);
        if (!found) return;
        session_remove(n, found, why);
    }
}

static void end_silent_sessions(dil_node *n)
{
    int64_t now = dil_now_ns();
    if (now < n->next_sweep_ns) return;
    n->next_sweep_ns = now + LEASE_NS / 10;
    dil__net_session *found = NULL;
    pthread_mutex_lock(&n->lock);
    for (uint32_t i = 0; i < n->n_sessions; i++) {
        if (now - n->session[i]->seen_ns > LEASE_NS) found = n->session[i];
    }
    pthread_mutex_unlock(&n->lock);
    if (found) session_remove(n, found, "no word from its coordinator for 30 s");
}

static void touch(dil_node *n, dil__net_session *s)
{
    pthread_mutex_lock(&n->lock);
    s->seen_ns = dil_now_ns();
    pthread_mutex_unlock(&n->lock);
}

static void push_open(dil_node *n, dil__net_session *s)
{
    pthread_mutex_lock(&s->lock);
    bool queued = s->open_queued;
    s->open_queued = true;
    pthread_mutex_unlock(&s->lock);
    if (queued) return;
    dil__net_session_set_state(s, DIL__SESSION_OPENS, NULL);
    pthread_mutex_lock(&n->lock);
    s->n_refs++;
    pthread_mutex_unlock(&n->lock);
    dil__item it = {.kind = ITEM_OPEN, .ptr = s};
    zmq_msg_init(&it.msg);
    if (!dil__queue_push(&n->works, &it)) session_put(n, s);
}

static void complete(dil_node *n, dil__net_session *s)
{
    if (s->load.fetch_only) dil__net_session_set_state(s, DIL__SESSION_READY, NULL);
    else push_open(n, s);
}

/* --- the job thread --------------------------------------------------------------------------------------------------------- */

static dil_status accept_session(dil_node *n, dil__net_session *s, char detail[160], dil_err *err)
{
    dil_status st = dil__net_session_measure(s, detail, err);
    if (st != DIL_OK) return st;
    uint64_t used = bytes_in_use(n);
    char need[32], offer[32], in_use[32];
    if (s->load.fetch_only) used = 0;
    if (s->bytes > n->memory_bytes || used > n->memory_bytes - s->bytes)
        return dil_fail(err, DIL_ELIMIT, "too little memory: the stages need %s (%s), this node offers %s and %s of it are in use", dil_format_bytes(s->bytes, need),
                        detail, dil_format_bytes(n->memory_bytes, offer), dil_format_bytes(used, in_use));
    if (s->load.fetch_only) s->bytes = 0;
    pthread_mutex_lock(&n->lock);
    bool room = n->n_sessions < SESSIONS_MAX;
    if (room) {
        s->owner_tag = ++n->next_tag;
        s->seen_ns = dil_now_ns();
        s->n_refs++;
        n->session[n->n_sessions++] = s;
    }
    pthread_mutex_unlock(&n->lock);
    if (!room) return dil_fail(err, DIL_EBUSY, "this node holds %d sessions already", SESSIONS_MAX);
    for (uint32_t i = 0; n->gate && i < s->load.n_parts; i++) dil__gate_admit(n->gate, s->load.parts[i].prev_key, s->owner_tag, INT64_MAX);
    return DIL_OK;
}

static void answer_need(dil_node *n, dil__net_session *s, const dil__item *it, const dil_frame *f)
{
    n->job_reply.len = 0;
    pthread_mutex_lock(&s->lock);
    s->control = it->from;
    bool ok = dil__msg_need(&n->job_reply, f->session, f->id, s->missing, s->load.n_chunks);
    uint32_t left = s->n_missing;
    pthread_mutex_unlock(&s->lock);
    if (ok) send_to(n, &it->from, &n->job_reply);
    if (left == 0) complete(n, s);
}

static void log_load(dil__net_session *s, const char *detail)
{
    const dil__load *m = &s->load;
    char where[128] = "";
    size_t at = 0;
    for (uint32_t i = 0; i < m->n_parts && at < sizeof where; i++)
        at += (size_t)snprintf(where + at, sizeof where - at, "%s%u-%u", i ? ", " : "", m->parts[i].first_layer, m->parts[i].last_layer);
    dil_log(DIL_LOG_INFO, "node", "session %016llx: layers %s of %s; %s; %u of %u chunks are in the cache", (unsigned long long)s->id, where,
            m->arch.name, detail, m->n_chunks - s->n_missing, m->n_chunks);
}

static dil_status do_load(dil_node *n, const dil__item *it, const dil_frame *f, dil_err *err)
{
    dil__net_session *old = session_get(n, f->session);
    if (old) {
        dil_hash h = dil_hash_of(f->body, f->body_bytes);
        dil__node_status now = {0};
        dil__net_session_status(old, &now);
        bool same = memcmp(&h, &old->load_hash, sizeof h) == 0 && strcmp(old->owner, it->key) == 0 && now.state != DIL__SESSION_FAILED;
        if (same) answer_need(n, old, it, f); /* the coordinator lost the connection, not us the session */
        else session_remove(n, old, "loaded anew");
        session_put(n, old);
        if (same) return DIL_OK;
    }
    dil__net_session *s;
    dil_status st = dil__net_session_new(&n->env, f, it->key, &it->from, &s, err);
    if (st != DIL_OK) return st;
    char detail[160] = "";
    if (s->load.replace) end_sessions_of(n, it->key, "replaced by its coordinator");
    st = accept_session(n, s, detail, err);
    if (st == DIL_OK) {
        dil__net_session_look_up(s);
        log_load(s, detail);
        answer_need(n, s, it, f);
    }
    session_put(n, s);
    return st;
}

static dil_status do_chunk(dil_node *n, const dil__item *it, const dil_frame *f, dil_err *err)
{
    uint32_t index, left = 0;
    const void *data;
    size_t len;
    dil_status st = dil__msg_get_chunk(f, &index, &data, &len, err);
    dil__net_session *s = st == DIL_OK ? session_get(n, f->session) : NULL;
    if (st == DIL_OK && !s) st = dil_fail(err, DIL_ENOTFOUND, "no such session");
    if (st == DIL_OK && strcmp(s->owner, it->key) != 0) st = dil_fail(err, DIL_EAUTH, "the session belongs to another coordinator");
    if (st == DIL_OK) st = dil__net_session_chunk(s, index, data, len, &left, err);
    if (st == DIL_OK) {
        touch(n, s);
        send_empty(n, &n->job_reply, &it->from, f, DIL_FRAME_OK);
        if (left == 0) complete(n, s);
    }
    if (s) session_put(n, s);
    return st;
}

static dil_status do_time_layer(dil_node *n, const dil__item *it, const dil_frame *f, dil_err *err)
{
    dil__time_layer m;
    dil_layer_time t;
    dil_status st = dil__msg_get_time_layer(f, &m, err);
    dil_layer_tensor tensors[DIL_LAYER_TENSORS_MAX];
    if (st == DIL_OK && dil_arch_layer_tensors(&m.arch, m.layer, tensors) != m.n_types)
        st = dil_fail(err, DIL_EFORMAT, "TIME_LAYER: %u types for another number of tensors", m.n_types);
    if (st == DIL_OK)
        st = n->env.engine->time_layer(&m.arch, m.layer, m.types, n->device, n->env.n_threads, m.n_past, m.n_batch, m.limit_sec < 60 ? m.limit_sec : 60, &t, err);
    if (st != DIL_OK) return st;
    t.decode_sec *= n->env.throttle;
    t.prefill_sec *= n->env.throttle;
    n->job_reply.len = 0;
    if (dil__msg_times(&n->job_reply, f->id, &t)) send_to(n, &it->from, &n->job_reply);
    return DIL_OK;
}

static dil_status do_probe(dil_node *n, const dil__item *it, const dil_frame *f, dil_err *err)
{
    dil__peer peer;
    double limit;
    dil_node_link got;
    dil_status st = dil__msg_get_probe_link(f, &peer, &limit, err);
    if (st == DIL_OK) st = dil__measure_link(n->zmq, &peer, n->env.key, limit < 60 ? limit : 60, &got, err);
    if (st != DIL_OK) return st;
    n->job_reply.len = 0;
    if (dil__msg_link(&n->job_reply, f->id, &got)) send_to(n, &it->from, &n->job_reply);
    return DIL_OK;
}

static void do_job(dil_node *n, dil__item *it)
{
    dil_frame f;
    dil_err err;
    dil_status st = dil_frame_decode(zmq_msg_data(&it->msg), zmq_msg_size(&it->msg), &f, &err);
    if (st != DIL_OK) return;
    switch (f.type) {
    case DIL_FRAME_LOAD: st = do_load(n, it, &f, &err); break;
    case DIL_FRAME_CHUNK: st = do_chunk(n, it, &f, &err); break;
    case DIL_FRAME_TIME_LAYER: st = do_time_layer(n, it, &f, &err); break;
    case DIL_FRAME_PROBE_LINK: st = do_probe(n, it, &f, &err); break;
    default: return;
    }
    if (st == DIL_OK) return;
    dil_log(DIL_LOG_WARN, "node", "%s refused: %s", dil_frame_type_name(f.type), err.text);
    send_error(n, &n->job_reply, &it->from, &f, &err);
}

static void *run_jobs(void *arg)
{
    dil_node *n = arg;
    dil__item it;
    while (dil__queue_pop(&n->jobs, &it)) {
        do_job(n, &it);
        zmq_msg_close(&it.msg);
    }
    return NULL;
}

/* --- the worker ------------------------------------------------------------------------------------------------------------- */

static void push_status(dil_node *n, dil__net_session *s)
{
    dil__node_status m = {0};
    dil__net_session_status(s, &m);
    dil_buf b;
    dil_buf_init(&b, 4096);
    dil__id to;
    pthread_mutex_lock(&s->lock);
    to = s->control;
    pthread_mutex_unlock(&s->lock);
    if (dil__msg_status(&b, s->id, 0, &m)) send_to(n, &to, &b);
    dil_buf_fini(&b);
}

static void do_open(dil_node *n, dil__net_session *s)
{
    dil_err err;
    int64_t t0 = dil_now_ns();
    dil_status st = dil__net_session_open(s, &err);
    dil__net_session_set_state(s, st == DIL_OK ? DIL__SESSION_READY : DIL__SESSION_FAILED, st == DIL_OK ? NULL : &err);
    if (st == DIL_OK) dil_log(DIL_LOG_INFO, "node", "session %016llx is ready after %.2f s", (unsigned long long)s->id, (double)(dil_now_ns() - t0) * 1e-9);
    else dil_log(DIL_LOG_ERROR, "node", "session %016llx cannot be opened: %s", (unsigned long long)s->id, err.text);
    push_status(n, s);
    dil__store_evict(n->env.store, dil_wall_ms() - 60000);
}

static void *run_works(void *arg)
{
    dil_node *n = arg;
    dil__item it;
    while (dil__queue_pop(&n->works, &it)) {
        dil__net_session *s = it.ptr;
        if (it.kind == ITEM_OPEN) do_open(n, s);
        if (it.kind == ITEM_FRAME) dil__net_session_work(s, &it.msg, n->gate ? it.key : NULL);
        session_put(n, s);
        zmq_msg_close(&it.msg);
    }
    return NULL;
}

/* --- the listener ------------------------------------------------------------------------------------------------------------ */

static void answer_info(dil_node *n, const dil__id *to, const dil_frame *f)
{
    dil_node_info m = {.memory_bytes = n->memory_bytes, .threads = (uint32_t)n->env.n_threads, .throttle = n->env.throttle};
    uint64_t used = bytes_in_use(n);
    m.memory_free = used < n->memory_bytes ? n->memory_bytes - used : 0;
    snprintf(m.version, sizeof m.version, "%s", DILEMMA_VERSION);
    snprintf(m.device, sizeof m.device, "%s", n->device);
    snprintf(m.cpu, sizeof m.cpu, "%s", n->cpu);
    n->reply.len = 0;
    if (dil__msg_info(&n->reply, f->id, &m)) send_to(n, to, &n->reply);
}

static uint64_t resident_bytes(void)
{
    FILE *f = fopen("/proc/self/statm", "re");
    unsigned long long total = 0, resident = 0;
    if (!f) return 0;
    if (fscanf(f, "%llu %llu", &total, &resident) != 2) resident = 0;
    fclose(f);
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void answer_heartbeat(dil_node *n, const dil__id *to, const char *key, const dil_frame *f)
{
    dil__node_status m = {.state = DIL__SESSION_NONE};
    dil__net_session *s = session_get(n, f->session);
    if (s && strcmp(s->owner, key) == 0) {
        touch(n, s);
        dil__net_session_status(s, &m);
        pthread_mutex_lock(&s->lock);
        s->control = *to;
        pthread_mutex_unlock(&s->lock);
    }
    if (s) session_put(n, s);
    m.n_queued = dil__queue_len(&n->works);
    m.rss_bytes = resident_bytes();
    n->reply.len = 0;
    if (dil__msg_status(&n->reply, f->session, f->id, &m)) send_to(n, to, &n->reply);
}

static dil_status answer_admit(dil_node *n, const dil__id *to, const dil_frame *f, dil_err *err)
{
    dil_arena *a = dil_arena_new(1 << 20);
    if (!a) return dil_fail(err, DIL_EMEMORY, "ADMIT: no memory");
    uint32_t seconds, count;
    char (*keys)[DIL_KEY_CHARS + 1];
    dil_status st = dil__msg_get_admit(f, a, &seconds, &keys, &count, err);
    for (uint32_t i = 0; st == DIL_OK && n->gate && i < count; i++)
        dil__gate_admit(n->gate, keys[i], 0, dil_now_ns() + (int64_t)seconds * 1000000000);
    dil_arena_free(a);
    if (st == DIL_OK) send_empty(n, &n->reply, to, f, DIL_FRAME_OK);
    return st;
}

static dil_status answer_unload(dil_node *n, const dil__id *to, const char *key, const dil_frame *f, dil_err *err)
{
    dil__net_session *s = session_get(n, f->session);
    if (!s) return dil_fail(err, DIL_ENOTFOUND, "no such session");
    bool own = strcmp(s->owner, key) == 0;
    if (own) session_remove(n, s, "unloaded by its coordinator");
    session_put(n, s);
    if (!own) return dil_fail(err, DIL_EAUTH, "the session belongs to another coordinator");
    send_empty(n, &n->reply, to, f, DIL_FRAME_OK);
    return DIL_OK;
}

static dil_status answer_attach(dil_node *n, const dil__id *to, const char *key, const dil_frame *f, dil_err *err)
{
    dil__net_session *s = session_get(n, f->session);
    if (!s) return dil_fail(err, DIL_ENOTFOUND, "no such session");
    bool own = strcmp(s->owner, key) == 0;
    if (own) {
        pthread_mutex_lock(&s->lock);
        s->attached = *to;
        pthread_mutex_unlock(&s->lock);
        touch(n, s);
        send_empty(n, &n->reply, to, f, DIL_FRAME_OK);
    }
    session_put(n, s);
    return own ? DIL_OK : dil_fail(err, DIL_EAUTH, "the session belongs to another coordinator");
}

static dil_status answer_echo(dil_node *n, const dil__id *to, const dil_frame *f, dil_err *err)
{
    uint32_t bytes;
    dil_status st = dil__msg_get_echo(f, &bytes, err);
    if (st != DIL_OK || bytes == UINT32_MAX) return st;
    n->reply.len = 0;
    if (dil__msg_echo_reply(&n->reply, f->id, bytes)) send_to(n, to, &n->reply);
    return DIL_OK;
}

static dil_status hand_on(dil_node *n, dil__queue *q, dil__item *it, const dil_frame *f, dil_err *err)
{
    (void)n;
    if (dil__queue_push(q, it)) return DIL_OK;
    return dil_fail(err, DIL_EBUSY, "%s: this node has %u frames waiting", dil_frame_type_name(f->type), q->cap);
}

static dil_status take_work(dil_node *n, dil__item *it, const dil_frame *f, dil_err *err)
{
    dil__net_session *s = session_get(n, f->session);
    if (!s) return DIL_OK; /* of a session that ended: late frames are no news */
    it->ptr = s;
    it->kind = ITEM_FRAME;
    dil_status st = hand_on(n, &n->works, it, f, err);
    if (st != DIL_OK) session_put(n, s);
    return st;
}

static dil_status dispatch(dil_node *n, dil__item *it, const dil_frame *f, dil_err *err)
{
    if (f->type == DIL_FRAME_WORK) return take_work(n, it, f, err);
    if (f->type == DIL_FRAME_ECHO) return answer_echo(n, &it->from, f, err);
    if (n->gate && !dil__gate_is_operator(n->gate, it->key))
        return dil_fail(err, DIL_EAUTH, "%s is for coordinators; key %s is not one of them", dil_frame_type_name(f->type), it->key);
    switch (f->type) {
    case DIL_FRAME_HELLO: answer_info(n, &it->from, f); return DIL_OK;
    case DIL_FRAME_HEARTBEAT: answer_heartbeat(n, &it->from, it->key, f); return DIL_OK;
    case DIL_FRAME_ADMIT: return answer_admit(n, &it->from, f, err);
    case DIL_FRAME_UNLOAD: return answer_unload(n, &it->from, it->key, f, err);
    case DIL_FRAME_ATTACH: return answer_attach(n, &it->from, it->key, f, err);
    case DIL_FRAME_LOAD: case DIL_FRAME_CHUNK: case DIL_FRAME_TIME_LAYER: case DIL_FRAME_PROBE_LINK: return hand_on(n, &n->jobs, it, f, err);
    default: return dil_fail(err, DIL_EFORMAT, "%s is not for a node", dil_frame_type_name(f->type));
    }
}

static void complain(dil_node *n, const char *text)
{
    int64_t now = dil_now_ns();
    if (now - n->complained_ns < 1000000000) return;
    n->complained_ns = now;
    dil_log(DIL_LOG_WARN, "node", "%s", text);
}

static void take_message(dil_node *n, dil__item *it)
{
    const char *key = n->gate ? zmq_msg_gets(&it->msg, "User-Id") : NULL;
    snprintf(it->key, sizeof it->key, "%s", key ? key : "");
    dil_frame f;
    dil_err err;
    dil_status st = dil_frame_decode(zmq_msg_data(&it->msg), zmq_msg_size(&it->msg), &f, &err);
    if (st != DIL_OK) {
        complain(n, err.text);
        if (st == DIL_EUNSUPPORTED) send_error(n, &n->reply, &it->from, &(dil_frame){0}, &err);
        return;
    }
    dil_frame head = f;
    st = dispatch(n, it, &f, &err); /* on success the message may have moved on: only its head is still ours */
    if (st == DIL_OK) return;
    complain(n, err.text);
    send_error(n, &n->reply, &it->from, &head, &err);
}

/* One message: routing id, then one frame. What has another form is dropped. False: nothing to read. */
static bool receive(dil_node *n, dil__item *it, bool *good)
{
    zmq_msg_t id;
    zmq_msg_init(&id);
    pthread_mutex_lock(&n->router_lock);
    bool got = zmq_msg_recv(&id, n->router, ZMQ_DONTWAIT) >= 0;
    *good = got && zmq_msg_more(&id) && zmq_msg_recv(&it->msg, n->router, ZMQ_DONTWAIT) >= 0;
    if (got) dil__drop_parts(n->router, *good ? &it->msg : &id);
    pthread_mutex_unlock(&n->router_lock);
    size_t len = zmq_msg_size(&id);
    *good = *good && len > 0 && len <= DIL__ID_MAX && !zmq_msg_more(&it->msg);
    if (*good) {
        memcpy(it->from.bytes, zmq_msg_data(&id), len);
        it->from.len = (uint8_t)len;
    }
    zmq_msg_close(&id);
    return got;
}

static void drain(dil_node *n)
{
    for (bool got = true; got && !atomic_load(&n->stopping);) {
        dil__item it = {0};
        bool good;
        zmq_msg_init(&it.msg);
        got = receive(n, &it, &good);
        if (good) take_message(n, &it);
        zmq_msg_close(&it.msg);
    }
}

static void *listen_on(void *arg)
{
    dil_node *n = arg;
    struct pollfd fds[2] = {{.fd = n->router_fd, .events = POLLIN}, {.fd = n->poke_fd, .events = POLLIN}};
    while (!atomic_load(&n->stopping)) {
        drain(n);
        end_silent_sessions(n);
        if (poll(fds, 2, 1000) < 0 && errno != EINTR) break;
        uint64_t count;
        if (fds[1].revents && read(n->poke_fd, &count, sizeof count) < 0) continue;
    }
    return NULL;
}

/* --- start and stop ------------------------------------------------------------------------------------------------------------ */

static uint64_t free_memory(void)
{
    uint64_t total, available;
    dil_memory(&total, &available);
    return available / 10 * 9;
}

static dil_status cache_path(const char *given, char out[4096], dil_err *err)
{
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int n = given ? snprintf(out, 4096, "%s", given)
          : xdg && *xdg ? snprintf(out, 4096, "%s/dilemma/chunks", xdg)
          : home && *home ? snprintf(out, 4096, "%s/.cache/dilemma/chunks", home) : -1;
    if (n >= 0 && n < 4096) return DIL_OK;
    return dil_fail(err, DIL_EUSAGE, "no folder for the cache: give --cache");
}

static void describe_machine(dil_node *n, const char *device)
{
    dil_device_info info[16];
    size_t count = dil_engine_devices(info, 16);
    snprintf(n->device, sizeof n->device, "%s", device ? device : "CPU");
    for (size_t i = 0; i < count && i < 16; i++) {
        if (strcmp(info[i].name, n->device) == 0) snprintf(n->cpu, sizeof n->cpu, "%s", info[i].description);
    }
}

static dil_status open_security(dil_node *n, const dil_node_opts *o, dil_err *err)
{
    if (o->insecure) return DIL_OK;
    if (!o->key) return dil_fail(err, DIL_EAUTH, "a node needs its key pair (dilemma keys), or --insecure");
    if (!o->allow_path && !(o->allow && o->allow->n))
        return dil_fail(err, DIL_EAUTH, "nobody would be let in: give the coordinator's public key (dilemma keys allow), or --insecure");
    n->key = *o->key;
    n->env.key = &n->key;
    return dil__gate_open(n->zmq, o->allow_path, o->allow, &n->gate, err);
}

static dil_status open_node(dil_node *n, const dil_node_opts *o, const dil__engine *engine, dil_err *err)
{
    char cache[4096];
    n->env = (dil__env){.zmq = n->zmq, .engine = engine, .device = n->device, .n_threads = o->n_threads ? o->n_threads : dil_cpu_count(),
                        .throttle = o->throttle > 1 ? o->throttle : 1, .send = send_to, .node = n, .stopping = &n->stopping};
    n->memory_bytes = o->memory_bytes ? o->memory_bytes : free_memory();
    dil_status st = cache_path(o->cache_dir, cache, err);
    if (st == DIL_OK) st = dil__store_open(cache, o->cache_max_bytes, &n->env.store, err);
    if (st == DIL_OK) st = open_security(n, o, err);
    if (st == DIL_OK) st = dil__listen(n->zmq, o->listen, n->env.key, &n->router, &n->port, err);
    if (st != DIL_OK) return st;
    size_t size = sizeof n->router_fd;
    n->poke_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (n->poke_fd < 0 || zmq_getsockopt(n->router, ZMQ_FD, &n->router_fd, &size) != 0) return dil_fail_errno(err, "no descriptor to wait on");
    if (!dil__queue_init(&n->jobs, JOBS_MAX) || !dil__queue_init(&n->works, WORKS_MAX)) return dil_fail(err, DIL_EMEMORY, "no memory for queues");
    void *(*const run[])(void *) = {listen_on, run_jobs, run_works};
    pthread_t *const thread[] = {&n->listener, &n->jobs_thread, &n->worker};
    for (; n->n_threads_started < 3; n->n_threads_started++) {
        if (pthread_create(thread[n->n_threads_started], NULL, run[n->n_threads_started], n) != 0) return dil_fail(err, DIL_EMEMORY, "no threads for a node");
    }
    return DIL_OK;
}

dil_status dil__node_start(const dil_node_opts *o, const dil__engine *engine, dil_node **out, dil_err *err)
{
    dil_node *n = calloc(1, sizeof *n);
    if (!n) return dil_fail(err, DIL_EMEMORY, "no memory for a node");
    n->poke_fd = -1;
    pthread_mutex_init(&n->router_lock, NULL);
    pthread_mutex_init(&n->lock, NULL);
    dil_buf_init(&n->reply, DIL_FRAME_MAX);
    dil_buf_init(&n->job_reply, DIL_FRAME_MAX);
    n->zmq = zmq_ctx_new();
    if (engine == &dil__engine_real) describe_machine(n, o->device);
    dil_status st = n->zmq ? open_node(n, o, engine, err) : dil_fail(err, DIL_EMEMORY, "no network context");
    if (st == DIL_OK) *out = n;
    else dil_node_stop(n);
    return st;
}

dil_status dil_node_start(const dil_node_opts *o, dil_node **out, dil_err *err)
{
    return dil__node_start(o, &dil__engine_real, out, err);
}

uint16_t dil_node_port(const dil_node *n)
{
    return n->port;
}

void dil_node_stop(dil_node *n)
{
    if (!n) return;
    atomic_store(&n->stopping, true);
    if (n->poke_fd >= 0) poke(n);
    if (n->jobs.item) dil__queue_close(&n->jobs);
    if (n->works.item) dil__queue_close(&n->works);
    pthread_t thread[] = {n->listener, n->jobs_thread, n->worker};
    for (int i = 0; i < n->n_threads_started; i++) pthread_join(thread[i], NULL);
    for (uint32_t i = 0; i < n->n_sessions; i++) dil__net_session_free(n->session[i]);
    /* Sessions that ended but whose end is still queued. */
    for (dil__item *it; n->works.item && n->works.n; n->works.n--, n->works.head = (n->works.head + 1) % n->works.cap) {
        it = &n->works.item[n->works.head];
        if (it->kind == ITEM_END) dil__net_session_free(it->ptr);
        zmq_msg_close(&it->msg);
    }
    if (n->jobs.item) dil__queue_fini(&n->jobs);
    if (n->works.item) dil__queue_fini(&n->works);
    if (n->router) zmq_close(n->router);
    dil__gate_close(n->gate);
    if (n->zmq) zmq_ctx_term(n->zmq);
    dil__store_close(n->env.store);
    if (n->poke_fd >= 0) close(n->poke_fd);
    dil_buf_fini(&n->reply);
    dil_buf_fini(&n->job_reply);
    pthread_mutex_destroy(&n->router_lock);
    pthread_mutex_destroy(&n->lock);
    free(n);
}
