/* The daemon. Four threads: the gate (authentication), the listener (this file's heart: it owns the ROUTER, answers what
 * takes no time and hands on the rest), the job thread (disk, measurements, loading) and the worker (stages). Heartbeats are
 * therefore answered while a long prompt is computed, and a slow disk does not stop a token.
 *
 * Answers come from all threads. A ZeroMQ socket belongs to one thread at a time, which a lock makes true; its readiness is
 * edge-triggered, so whoever used the socket looks afterwards whether something arrived meanwhile and pokes the listener.
 * Handing answers to the listener instead was rejected: it costs every token one more switch between threads. */
#include "net/node_int.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { JOBS_MAX = 256, WORKS_MAX = 256 };

/* --- the listener ------------------------------------------------------------------------------------------------------------ */

static dil_status answer_info(dil_node *n, const dil__id *to, const char *key, const dil_frame *f, dil_err *err)
{
    dil_node_info m = {.memory_bytes = n->memory_bytes, .threads = (uint32_t)n->env.n_threads, .throttle = n->env.throttle};
    bool named;
    uint64_t run, model;
    dil_status st = dil__msg_get_hello(f, &named, &run, &model, err);
    if (st != DIL_OK) return st;
    uint64_t used = named ? dil__node_bytes_kept(n, key, run, model) : dil__node_bytes_in_use(n);
    m.memory_free = used < n->memory_bytes ? n->memory_bytes - used : 0;
    snprintf(m.version, sizeof m.version, "%s", DILEMMA_VERSION);
    snprintf(m.device, sizeof m.device, "%s", n->device);
    snprintf(m.cpu, sizeof m.cpu, "%s", n->cpu);
    n->reply.len = 0;
    if (dil__msg_info(&n->reply, f->id, &m)) dil__node_send(n, to, &n->reply);
    return DIL_OK;
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
    dil__net_session *s = dil__node_session(n, f->session);
    if (s && strcmp(s->owner, key) == 0) {
        dil__node_touch(n, s);
        dil__net_session_status(s, &m);
        m.memory_free = dil__node_free_for(n, s);
        pthread_mutex_lock(&s->lock);
        s->control = *to;
        pthread_mutex_unlock(&s->lock);
    }
    if (s) dil__node_put(n, s);
    m.n_queued = dil__queue_len(&n->works);
    m.rss_bytes = resident_bytes();
    n->reply.len = 0;
    if (dil__msg_status(&n->reply, f->session, f->id, &m)) dil__node_send(n, to, &n->reply);
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
    if (st == DIL_OK) dil__node_send_empty(n, &n->reply, to, f, DIL_FRAME_OK);
    return st;
}

static dil_status answer_unload(dil_node *n, const dil__id *to, const char *key, const dil_frame *f, dil_err *err)
{
    dil__net_session *s;
    dil_status st = dil__node_own_session(n, f->session, key, &s, err);
    if (st != DIL_OK) return st;
    dil__node_remove(n, s, "unloaded by its coordinator");
    dil__node_put(n, s);
    dil__node_send_empty(n, &n->reply, to, f, DIL_FRAME_OK);
    return DIL_OK;
}

static dil_status answer_attach(dil_node *n, const dil__id *to, const char *key, const dil_frame *f, dil_err *err)
{
    dil__net_session *s;
    dil_status st = dil__node_own_session(n, f->session, key, &s, err);
    if (st != DIL_OK) return st;
    pthread_mutex_lock(&s->lock);
    s->attached = *to;
    pthread_mutex_unlock(&s->lock);
    dil__node_touch(n, s);
    dil__node_send_empty(n, &n->reply, to, f, DIL_FRAME_OK);
    dil__node_put(n, s);
    return DIL_OK;
}

static dil_status take_join(dil_node *n, const char *key, const dil_frame *f, dil_err *err)
{
    dil__net_session *s;
    dil_status st = dil__node_own_session(n, f->session, key, &s, err);
    if (st != DIL_OK) return st;
    dil__net_session_join(s);
    dil__node_put(n, s);
    return DIL_OK;
}

static dil_status answer_echo(dil_node *n, const dil__id *to, const dil_frame *f, dil_err *err)
{
    uint32_t bytes;
    dil_status st = dil__msg_get_echo(f, &bytes, err);
    if (st != DIL_OK || bytes == UINT32_MAX) return st;
    n->reply.len = 0;
    if (dil__msg_echo_reply(&n->reply, f->id, bytes)) dil__node_send(n, to, &n->reply);
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
    dil__net_session *s = dil__node_session(n, f->session);
    if (!s) return DIL_OK; /* of a session that ended: late frames are no news */
    it->ptr = s;
    it->kind = DIL__ITEM_FRAME;
    dil_status st = hand_on(n, &n->works, it, f, err);
    if (st != DIL_OK) dil__node_put(n, s);
    return st;
}

static dil_status dispatch(dil_node *n, dil__item *it, const dil_frame *f, dil_err *err)
{
    if (f->type == DIL_FRAME_WORK) return take_work(n, it, f, err);
    if (f->type == DIL_FRAME_ECHO) return answer_echo(n, &it->from, f, err);
    if (n->gate && !dil__gate_is_operator(n->gate, it->key))
        return dil_fail(err, DIL_EAUTH, "%s is for coordinators; key %s is not one of them", dil_frame_type_name(f->type), it->key);
    switch (f->type) {
    case DIL_FRAME_HELLO: return answer_info(n, &it->from, it->key, f, err);
    case DIL_FRAME_HEARTBEAT: answer_heartbeat(n, &it->from, it->key, f); return DIL_OK;
    case DIL_FRAME_ADMIT: return answer_admit(n, &it->from, f, err);
    case DIL_FRAME_UNLOAD: return answer_unload(n, &it->from, it->key, f, err);
    case DIL_FRAME_ATTACH: return answer_attach(n, &it->from, it->key, f, err);
    case DIL_FRAME_JOIN: return take_join(n, it->key, f, err);
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
        if (st == DIL_EUNSUPPORTED) dil__node_send_error(n, &n->reply, &it->from, &(dil_frame){0}, &err);
        return;
    }
    dil_frame head = f;
    st = dispatch(n, it, &f, &err); /* on success the message may have moved on: only its head is still ours */
    if (st == DIL_OK) return;
    complain(n, err.text);
    dil__node_send_error(n, &n->reply, &it->from, &head, &err);
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
        dil__node_end_silent(n);
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
                        .throttle = o->throttle > 1 ? o->throttle : 1, .send = dil__node_send, .node = n, .stopping = &n->stopping};
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
    void *(*const run[])(void *) = {listen_on, dil__node_run_jobs, dil__node_run_works};
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
    if (n->poke_fd >= 0) dil__node_poke(n);
    if (n->jobs.item) dil__queue_close(&n->jobs);
    if (n->works.item) dil__queue_close(&n->works);
    pthread_t thread[] = {n->listener, n->jobs_thread, n->worker};
    for (int i = 0; i < n->n_threads_started; i++) pthread_join(thread[i], NULL);
    for (uint32_t i = 0; i < n->n_sessions; i++) dil__net_session_free(n->session[i]);
    /* Sessions that ended but whose end is still queued. */
    for (dil__item *it; n->works.item && n->works.n; n->works.n--, n->works.head = (n->works.head + 1) % n->works.cap) {
        it = &n->works.item[n->works.head];
        if (it->kind == DIL__ITEM_END) dil__net_session_free(it->ptr);
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
