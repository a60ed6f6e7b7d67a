/* The part of <zmq.h> that src/net uses, over wire.c: DEALER and ROUTER, and a PAIR that reads a socket's monitor. What does not wait in
 * libzmq does not wait here; zmq_poll waits.
 *
 * ZMQ_FD is edge-triggered, as in libzmq and a little harsher: it is readable from the moment that something arrives at a socket whose reader had
 * seen it empty until the next call on the socket, whatever that call is. Code that misses such an edge sleeps on a full socket. */
#include "netsim/wire.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { FD_FIRST = 2000000, SOCKETS_MAX = 1024 };

typedef struct part { /* lies in a zmq_msg_t */
    void *block;
    uint8_t *data;
    size_t size;
    bool more;
} part;
_Static_assert(sizeof(part) <= sizeof(zmq_msg_t), "a message must fit");

static sim_socket *sockets;
static sim_socket *by_fd[SOCKETS_MAX];

void sim_sockets_begin(void)
{
    memset(by_fd, 0, sizeof by_fd);
}

static void drop(sim_socket *s)
{
    sim_socket **at = &sockets;
    while (*at != s) at = &(*at)->next;
    *at = s->next;
    if (s->monitor) s->monitor->watched = NULL;
    if (s->watched) s->watched->monitor = NULL;
    sim_message_free(s->rest);
    by_fd[s->fd] = NULL;
    s->host->sockets--;
    sim_free(s);
}

void sim_sockets_drop(sim_host *h)
{
    for (sim_socket *s = sockets, *next; s; s = next) {
        next = s->next;
        if (s->host == h || !h) drop(s);
    }
}

sim_socket *sim_listener(const char *address)
{
    sim_socket *s = sockets;
    while (s && strcmp(s->address, address) != 0) s = s->next;
    return s;
}

void sim_event(sim_socket *s, uint16_t event)
{
    sim_socket *m = s->monitor;
    if (!m || m->n_events == sizeof m->event / sizeof *m->event) return;
    m->event[m->n_events++] = event;
    sim_wake(m, INT32_MAX);
}

void sim_signal(sim_socket *s)
{
    if (s->asleep) s->signaled = true;
    s->asleep = false;
    sim_wake(s, INT32_MAX);
}

bool sim_socket_fd_ready(int fd, const void **object)
{
    *object = fd >= FD_FIRST && fd < FD_FIRST + SOCKETS_MAX ? by_fd[fd - FD_FIRST] : NULL;
    return *object && ((const sim_socket *)*object)->signaled;
}

/* --- messages ---------------------------------------------------------------------------------------------------------------------------- */

int zmq_msg_init(zmq_msg_t *m)
{
    *(part *)m = (part){0};
    return 0;
}

int zmq_msg_init_size(zmq_msg_t *m, size_t n)
{
    void *p = malloc(n ? n : 1);
    *(part *)m = (part){.block = p, .data = p, .size = n};
    return p ? 0 : -1;
}

int zmq_msg_close(zmq_msg_t *m)
{
    free(((part *)m)->block);
    return zmq_msg_init(m);
}

void *zmq_msg_data(zmq_msg_t *m) { return ((part *)m)->data; }
size_t zmq_msg_size(const zmq_msg_t *m) { return ((const part *)m)->size; }
int zmq_msg_more(const zmq_msg_t *m) { return ((const part *)m)->more; }

int zmq_msg_move(zmq_msg_t *to, zmq_msg_t *from)
{
    zmq_msg_close(to);
    *(part *)to = *(part *)from;
    return zmq_msg_init(from);
}

const char *zmq_msg_gets(const zmq_msg_t *m, const char *property)
{
    (void)m, (void)property;
    return NULL; /* no CURVE here: no user id */
}

/* A message as it was read from TCP: now and then it lies at an odd address in a larger block. */
static sim_message *message_of(const void *data, size_t n)
{
    sim_message *m = sim_alloc(sizeof *m);
    size_t odd = sim_chance(0.1) ? 1 + (size_t)dil_rng_below(sim_rng(), 7) : 0;
    m->block = sim_alloc(n + 8);
    m->data = (uint8_t *)m->block + odd;
    m->size = n;
    if (n) memcpy(m->data, data, n);
    return m;
}

static void give(zmq_msg_t *to, sim_message *m, bool more)
{
    zmq_msg_close(to);
    *(part *)to = (part){.block = m->block, .data = m->data, .size = m->size, .more = more};
    sim_heap_own(m->block, m->size, sim_here());
    sim_free(m);
}

/* --- contexts and sockets ------------------------------------------------------------------------------------------------------------------- */

void *zmq_ctx_new(void) { return malloc(1); }

int zmq_ctx_term(void *context)
{
    for (const sim_socket *s = sockets; s; s = s->next) assert(s->context != context); /* libzmq would wait for ever */
    while (sim_lingers(context)) sim_sleep(1000000);
    free(context);
    return 0;
}

void *zmq_socket(void *context, int type)
{
    sim_socket *s = sim_alloc(sizeof *s);
    s->type = type;
    s->context = context;
    s->host = sim_here();
    s->asleep = true;
    while (s->fd < SOCKETS_MAX && by_fd[s->fd]) s->fd++;
    assert(s->fd < SOCKETS_MAX);
    by_fd[s->fd] = s;
    s->host->sockets++;
    s->next = sockets;
    sockets = s;
    return s;
}

int zmq_close(void *socket)
{
    sim_socket *s = socket;
    if (s->type == ZMQ_DEALER && s->pipe) sim_hang_up(s->pipe, s->linger);
    if (s->type == ZMQ_ROUTER) sim_stop_listening(s);
    drop(s);
    sim_maybe_yield();
    return 0;
}

int zmq_setsockopt(void *socket, int option, const void *value, size_t n)
{
    if (option == ZMQ_LINGER && n == sizeof(int)) memcpy(&((sim_socket *)socket)->linger, value, n);
    return 0;
}

static bool readable(const sim_socket *s)
{
    if (s->rest) return true;
    if (s->type == ZMQ_PAIR) return s->n_events > 0;
    if (s->type == ZMQ_DEALER) return s->pipe && s->pipe->dial.in.n > 0;
    for (const sim_pipe *p = sim_pipes(); p; p = p->next) {
        if (p->listen.socket == s && p->listen.in.n) return true;
    }
    return false;
}

/* Any call takes the edge; only one that finds nothing makes the next arrival an edge again. */
static void touch(sim_socket *s, bool looked)
{
    s->signaled = false;
    if (looked && !readable(s)) s->asleep = true;
}

int zmq_getsockopt(void *socket, int option, void *value, size_t *n)
{
    sim_socket *s = socket;
    if (option == ZMQ_LAST_ENDPOINT) {
        snprintf(value, *n, "tcp://%s", s->address);
        return 0;
    }
    touch(s, true);
    int out = option == ZMQ_FD ? FD_FIRST + s->fd : readable(s) ? ZMQ_POLLIN : 0;
    assert(option == ZMQ_FD || option == ZMQ_EVENTS);
    memcpy(value, &out, sizeof out);
    return 0;
}

int zmq_bind(void *socket, const char *url)
{
    sim_socket *s = socket;
    const char *address = url + strlen("tcp://");
    if (s->type != ZMQ_ROUTER || sim_listener(address)) {
        errno = s->type == ZMQ_ROUTER ? EADDRINUSE : EPROTONOSUPPORT;
        return -1;
    }
    snprintf(s->address, sizeof s->address, "%s", address);
    return 0;
}

int zmq_connect(void *socket, const char *url)
{
    sim_socket *s = socket;
    if (s->type == ZMQ_DEALER) {
        s->pipe = sim_dial(s, url + strlen("tcp://"), 0);
        return 0;
    }
    for (sim_socket *other = sockets; other; other = other->next) {
        if (s->type != ZMQ_PAIR || strcmp(other->monitor_name, url) != 0) continue;
        s->watched = other;
        other->monitor = s;
        return 0;
    }
    errno = ECONNREFUSED;
    return -1;
}

int zmq_socket_monitor(void *socket, const char *name, int events)
{
    (void)events;
    snprintf(((sim_socket *)socket)->monitor_name, sizeof((sim_socket *)socket)->monitor_name, "%s", name ? name : "");
    return 0;
}

/* --- sending ---------------------------------------------------------------------------------------------------------------------------------- */

static int refuse(int why)
{
    errno = why;
    return -1;
}

static int put(sim_pipe *p, sim_end *end, const void *data, size_t n)
{
    if (end->out.n >= SIM_HWM) return refuse(EAGAIN);
    sim_push(&end->out, message_of(data, n));
    sim_pump(p);
    return (int)n;
}

/* A ROUTER's message is the routing id, then the rest. */
static int put_routed(sim_socket *s, const void *data, size_t n, bool more)
{
    uint32_t rid;
    if (s->send_to) {
        sim_pipe *p = s->send_to;
        assert(!more);
        s->send_to = NULL;
        return put(p, &p->listen, data, n);
    }
    if (n != 5 || !more) return refuse(EHOSTUNREACH);
    memcpy(&rid, (const uint8_t *)data + 1, sizeof rid);
    for (sim_pipe *p = sim_pipes(); p; p = p->next) {
        if (p->listen.socket != s || !p->listen.up || p->rid != rid) continue;
        if (p->listen.out.n >= SIM_HWM) return refuse(EAGAIN);
        s->send_to = p;
        return (int)n;
    }
    return refuse(EHOSTUNREACH);
}

int zmq_send(void *socket, const void *data, size_t n, int flags)
{
    sim_socket *s = socket;
    if (!(flags & ZMQ_SNDMORE)) sim_maybe_yield();
    if (sim_chance(0.5)) touch(s, false);
    int sent = s->type == ZMQ_ROUTER ? put_routed(s, data, n, (flags & ZMQ_SNDMORE) != 0) : put(s->pipe, &s->pipe->dial, data, n);
    return sent;
}

int zmq_msg_send(zmq_msg_t *m, void *socket, int flags)
{
    int n = zmq_send(socket, zmq_msg_data(m), zmq_msg_size(m), flags);
    if (n >= 0) zmq_msg_close(m);
    return n;
}

/* --- receiving -------------------------------------------------------------------------------------------------------------------------------- */

/* Connections are read in turn; the seed says which is next. */
static sim_pipe *next_pipe(const sim_socket *s)
{
    sim_pipe *found = NULL;
    uint64_t n = 0;
    for (sim_pipe *p = sim_pipes(); p; p = p->next) {
        if (p->listen.socket == s && p->listen.in.n && dil_rng_below(sim_rng(), ++n) == 0) found = p;
    }
    return found;
}

static bool receive_routed(sim_socket *s, zmq_msg_t *m)
{
    sim_pipe *p = next_pipe(s);
    if (!p) return false;
    uint8_t id[5] = {0};
    memcpy(id + 1, &p->rid, sizeof p->rid);
    s->rest = sim_pop(&p->listen.in);
    give(m, message_of(id, sizeof id), true);
    sim_pump(p);
    return true;
}

static bool receive_event(sim_socket *s, zmq_msg_t *m)
{
    if (!s->n_events) return false;
    uint8_t event[6] = {0};
    memcpy(event, &s->event[0], sizeof s->event[0]);
    memmove(s->event, s->event + 1, --s->n_events * sizeof *s->event);
    s->rest = message_of("tcp://", 6);
    give(m, message_of(event, sizeof event), true);
    return true;
}

static bool receive_dealt(sim_socket *s, zmq_msg_t *m)
{
    sim_message *got = s->pipe ? sim_pop(&s->pipe->dial.in) : NULL;
    if (!got) return false;
    give(m, got, false);
    sim_pump(s->pipe);
    return true;
}

int zmq_msg_recv(zmq_msg_t *m, void *socket, int flags)
{
    sim_socket *s = socket;
    assert(flags & ZMQ_DONTWAIT);
    if (s->rest) {
        sim_message *rest = s->rest;
        s->rest = NULL;
        give(m, rest, false);
        return (int)zmq_msg_size(m);
    }
    sim_maybe_yield();
    bool got = s->type == ZMQ_ROUTER ? receive_routed(s, m) : s->type == ZMQ_PAIR ? receive_event(s, m) : receive_dealt(s, m);
    if (!got) touch(s, true);
    return got ? (int)zmq_msg_size(m) : refuse(EAGAIN);
}

int zmq_poll(zmq_pollitem_t *items, int n, long timeout_ms)
{
    int64_t until = timeout_ms < 0 ? INT64_MAX : sim_now() + timeout_ms * 1000000;
    const void *object[64];
    assert(n <= 64);
    sim_maybe_yield();
    for (;;) {
        int ready = 0;
        for (int i = 0; i < n; i++) {
            bool yes = items[i].socket ? readable(items[i].socket) : sim_fd_ready(items[i].fd, &object[i]);
            if (items[i].socket) object[i] = items[i].socket;
            items[i].revents = yes ? ZMQ_POLLIN : 0;
            ready += yes;
        }
        if (ready || sim_now() >= until) return ready;
        sim_wait(object, n, until);
    }
}
