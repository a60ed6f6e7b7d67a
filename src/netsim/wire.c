/* Links and connections. What a connection may do to the programs at its ends is what TCP and ZeroMQ 4.3 do: bytes come in order or not at
 * all; a break loses what is under way, and the two ends learn of it at different times; what a DEALER had queued goes out on the next
 * connection, what a ROUTER had queued is lost; a SYN into the void is repeated after 1, 3, 7, ... s; a heartbeat every second finds a
 * silent end after 5. */
#include "netsim/wire.h"

#include <stdlib.h>
#include <string.h>

#define MS INT64_C(1000000)
#define SEC INT64_C(1000000000)

static struct {
    int64_t latency_ns;
    double bytes_per_ns, stretch;
    bool blocked;
} link_of[SIM_HOSTS_MAX][SIM_HOSTS_MAX];
static bool dark[SIM_HOSTS_MAX]; /* lost its power: not even its kernel answers */
static sim_pipe *pipes;
static uint64_t next_id;
static uint32_t next_rid, queue_most;

void sim_push(sim_queue *q, sim_message *m)
{
    m->next = NULL;
    if (q->last) q->last->next = m;
    else q->first = m;
    q->last = m;
    if (++q->n > queue_most) queue_most = q->n;
}

sim_message *sim_pop(sim_queue *q)
{
    sim_message *m = q->first;
    if (!m) return NULL;
    q->first = m->next;
    if (!q->first) q->last = NULL;
    q->n--;
    return m;
}

void sim_message_free(sim_message *m)
{
    if (!m) return;
    sim_free(m->block);
    sim_free(m);
}

void sim_drain(sim_queue *q)
{
    for (sim_message *m; (m = sim_pop(q));) sim_message_free(m);
}

sim_pipe *sim_pipes(void) { return pipes; }
uint32_t sim_queue_most(void) { return queue_most; }

void sim_wire_begin(void)
{
    memset(link_of, 0, sizeof link_of);
    memset(dark, 0, sizeof dark);
    next_id = 0;
    next_rid = (uint32_t)dil_rng_u64(sim_rng());
    queue_most = 0;
}

static void drain_end(sim_end *e)
{
    sim_drain(&e->out);
    sim_drain(&e->fly);
    sim_drain(&e->in);
}

static void drop(sim_pipe *p)
{
    drain_end(&p->dial);
    drain_end(&p->listen);
    sim_pipe **at = &pipes;
    while (*at != p) at = &(*at)->next;
    *at = p->next;
    sim_free(p);
}

void sim_wire_end(void)
{
    while (pipes) drop(pipes);
}

/* --- links ------------------------------------------------------------------------------------------------------------------------------- */

void sim_link(sim_host *from, sim_host *to, double latency_sec, double bytes_per_sec)
{
    link_of[from->id][to->id].latency_ns = (int64_t)(latency_sec * 1e9);
    link_of[from->id][to->id].bytes_per_ns = bytes_per_sec * 1e-9;
    link_of[from->id][to->id].stretch = 1;
}

static int64_t delay(const sim_host *from, const sim_host *to)
{
    double stretch = link_of[from->id][to->id].stretch;
    if (stretch > 1) stretch *= dil_rng_unit(sim_rng());
    return (int64_t)((double)link_of[from->id][to->id].latency_ns * (stretch > 1 ? stretch : 1));
}

static bool blocked(const sim_host *a, const sim_host *b)
{
    return link_of[a->id][b->id].blocked || dark[a->id] || dark[b->id];
}

static bool cut(const sim_host *a, const sim_host *b)
{
    return blocked(a, b) || blocked(b, a);
}

static bool stopped(const sim_host *h)
{
    return h->paused_until > sim_now();
}

/* --- events of connections: by number, since a connection may be gone when its event comes ------------------------------------------------- */

static sim_pipe *pipe_of(uint64_t id)
{
    sim_pipe *p = pipes;
    while (p && p->id != id) p = p->next;
    return p;
}

static void try_to_connect(void *ctx, uint64_t id);

static void drop_if_over(sim_pipe *p)
{
    bool dial_over = p->moved || (!p->dial.socket && (p->state == PIPE_BROKEN || p->state == PIPE_DIALS) && !p->linger_until);
    if (dial_over && !p->listen.up && p->listen.in.n == 0) drop(p);
}

static void dial_end_knows(void *ctx, uint64_t id)
{
    (void)ctx;
    sim_pipe *p = pipe_of(id);
    if (!p || p->moved) return;
    if (p->dial.socket && stopped(p->dial.host)) {
        sim_at(p->dial.host->paused_until, dial_end_knows, NULL, id);
        return;
    }
    if (p->dial.socket) {
        sim_event(p->dial.socket, ZMQ_EVENT_DISCONNECTED);
        sim_pipe *q = sim_dial(p->dial.socket, p->address, 50 * MS + (int64_t)dil_rng_below(sim_rng(), 50 * MS));
        q->dial.out = p->dial.out;
        q->dial.in = p->dial.in;
        p->dial.out = p->dial.in = (sim_queue){0};
        p->dial.socket->pipe = q;
    }
    p->linger_until = 0;
    p->moved = true;
    p->dial.socket = NULL;
    p->dial.up = false;
    drop_if_over(p);
}

static void listening_end_knows(void *ctx, uint64_t id)
{
    (void)ctx;
    sim_pipe *p = pipe_of(id);
    if (!p) return;
    if (p->listen.socket && stopped(p->listen.host)) {
        sim_at(p->listen.host->paused_until, listening_end_knows, NULL, id);
        return;
    }
    p->listen.up = false;
    sim_drain(&p->listen.out);
    if (p->listen.socket) sim_signal(p->listen.socket);
    drop_if_over(p);
}

/* From now on nothing passes. The ends learn of it at their times. */
static void break_pipe(sim_pipe *p, int64_t dial_knows, int64_t listen_knows)
{
    if (p->state == PIPE_BROKEN) return;
    sim_trace("the connection of %s to %s breaks", p->dial.host->name, p->address);
    bool shaking = p->state == PIPE_SHAKES || p->state == PIPE_DIALS;
    p->state = PIPE_BROKEN;
    sim_drain(&p->dial.fly);
    sim_drain(&p->listen.fly);
    if (shaking && p->dial.socket) sim_event(p->dial.socket, ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL);
    uint64_t id = p->id;
    sim_at(dial_knows, dial_end_knows, NULL, id);
    sim_at(listen_knows, listening_end_knows, NULL, id);
}

static int64_t silence(void)
{
    return sim_now() + 5 * SEC + (int64_t)dil_rng_below(sim_rng(), SEC);
}

static void miss_heartbeat(void *ctx, uint64_t id)
{
    (void)ctx;
    sim_pipe *p = pipe_of(id);
    if (!p || (p->state != PIPE_UP && p->state != PIPE_SHAKES) || !p->listen.host) return;
    if (!cut(p->dial.host, p->listen.host) && !stopped(p->dial.host) && !stopped(p->listen.host)) return;
    break_pipe(p, sim_now(), sim_now() + (int64_t)dil_rng_below(sim_rng(), SEC));
}

/* --- messages under way ----------------------------------------------------------------------------------------------------------------------- */

static void finish_closing(sim_pipe *p)
{
    if (p->dial.socket || p->moved || p->state != PIPE_UP || p->dial.fly.n || p->dial.out.n) return;
    p->linger_until = 0;
    break_pipe(p, sim_now(), sim_now() + delay(p->dial.host, p->listen.host));
}

static void arrive(sim_pipe *p, sim_end *from, sim_end *to)
{
    bool any = false;
    if (p->state != PIPE_UP || blocked(from->host, to->host) || stopped(to->host)) return;
    while (from->fly.n && from->fly.first->at <= sim_now() && to->in.n < SIM_HWM) {
        sim_message *m = sim_pop(&from->fly);
        if (to->socket) sim_push(&to->in, m);
        else sim_message_free(m);
        any = true;
    }
    if (any && to->socket) sim_signal(to->socket);
}

static void something_arrives(void *ctx, uint64_t id)
{
    (void)ctx;
    sim_pipe *p = pipe_of(id);
    if (!p) return;
    arrive(p, &p->dial, &p->listen);
    arrive(p, &p->listen, &p->dial);
    sim_pump(p);
}

static void send_on(sim_pipe *p, sim_end *from, sim_end *to)
{
    if (p->state == PIPE_BROKEN && from->up) sim_drain(&from->out); /* into a buffer that nobody will read */
    if (p->state != PIPE_UP || stopped(from->host)) return;
    while (from->out.n && from->fly.n < SIM_FLIGHT) {
        sim_message *m = sim_pop(&from->out);
        int64_t start = from->free_ns > sim_now() ? from->free_ns : sim_now();
        from->free_ns = start + (int64_t)((double)m->size / link_of[from->host->id][to->host->id].bytes_per_ns);
        m->at = from->free_ns + delay(from->host, to->host);
        if (from->fly.last && from->fly.last->at > m->at) m->at = from->fly.last->at;
        sim_push(&from->fly, m);
        sim_at(m->at, something_arrives, NULL, p->id);
    }
}

void sim_pump(sim_pipe *p)
{
    if (p->state == PIPE_UP) {
        arrive(p, &p->dial, &p->listen);
        arrive(p, &p->listen, &p->dial);
    }
    send_on(p, &p->dial, &p->listen);
    send_on(p, &p->listen, &p->dial);
    finish_closing(p);
}

static void kick(void *ctx, uint64_t arg)
{
    (void)ctx, (void)arg;
    for (sim_pipe *p = pipes; p; p = p->next) {
        if (p->state == PIPE_UP) sim_at(sim_now() + (int64_t)dil_rng_below(sim_rng(), 200 * MS), something_arrives, NULL, p->id);
    }
}

/* --- connecting ----------------------------------------------------------------------------------------------------------------------------------- */

static sim_host *host_of(const char *address)
{
    char name[8];
    const char *colon = strrchr(address, ':');
    snprintf(name, sizeof name, "%.*s", (int)(colon - address), address);
    return sim_host_find(name);
}

static void again(sim_pipe *p)
{
    int64_t wait = 50 * MS << (p->n_refused < 5 ? p->n_refused : 5);
    if (wait > SEC) wait = SEC;
    p->n_refused++;
    p->state = PIPE_DIALS;
    sim_at(sim_now() + wait + (int64_t)dil_rng_below(sim_rng(), 50 * MS), try_to_connect, NULL, p->id);
}

static void shaken(void *ctx, uint64_t id)
{
    (void)ctx;
    sim_pipe *p = pipe_of(id);
    if (!p || p->state != PIPE_SHAKES) return;
    sim_socket *l = sim_listener(p->address);
    if (!p->dial.socket && !p->linger_until) {
        drop(p);
        return;
    }
    bool slow = l && (cut(p->dial.host, p->listen.host) || stopped(p->dial.host) || stopped(p->listen.host));
    if (slow && sim_now() - p->shake_ns < 5 * SEC) {
        sim_at(sim_now() + 100 * MS, shaken, NULL, id);
        return;
    }
    if (slow || !l) {
        if (p->dial.socket) sim_event(p->dial.socket, ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL);
        if (p->dial.socket) sim_event(p->dial.socket, ZMQ_EVENT_DISCONNECTED);
        again(p);
        return;
    }
    p->state = PIPE_UP;
    p->rid = ++next_rid;
    p->listen.socket = l;
    p->listen.up = p->dial.up = true;
    p->n_refused = p->n_lost = 0;
    sim_trace("%s is connected to %s", p->dial.host->name, p->address);
    if (p->dial.socket) sim_event(p->dial.socket, ZMQ_EVENT_HANDSHAKE_SUCCEEDED);
    sim_signal(l);
    sim_pump(p);
}

static void tcp_connected(void *ctx, uint64_t id)
{
    (void)ctx;
    sim_pipe *p = pipe_of(id);
    if (!p || p->state != PIPE_DIALS) return;
    if (!sim_listener(p->address) || cut(p->dial.host, p->listen.host)) {
        again(p);
        return;
    }
    p->state = PIPE_SHAKES;
    p->shake_ns = sim_now();
    if (p->dial.socket) sim_event(p->dial.socket, ZMQ_EVENT_CONNECTED);
    sim_at(sim_now() + 2 * delay(p->dial.host, p->listen.host) + delay(p->listen.host, p->dial.host), shaken, NULL, id);
}

static void try_to_connect(void *ctx, uint64_t id)
{
    (void)ctx;
    sim_pipe *p = pipe_of(id);
    if (!p || p->state != PIPE_DIALS) return;
    if (!p->dial.socket && p->linger_until <= sim_now()) {
        drop(p);
        return;
    }
    if (stopped(p->dial.host)) {
        sim_at(p->dial.host->paused_until, try_to_connect, NULL, id);
        return;
    }
    sim_host *to = host_of(p->address);
    p->listen.host = to;
    if (to && cut(p->dial.host, to)) { /* a SYN into the void */
        int64_t wait = SEC << (p->n_lost < 6 ? p->n_lost : 6);
        p->n_lost++;
        sim_at(sim_now() + wait, try_to_connect, NULL, id);
        return;
    }
    p->n_lost = 0;
    if (!to || !sim_listener(p->address)) again(p);
    else sim_at(sim_now() + delay(p->dial.host, to) + delay(to, p->dial.host), tcp_connected, NULL, id);
}

sim_pipe *sim_dial(sim_socket *s, const char *address, int64_t wait_ns)
{
    sim_pipe *p = sim_alloc(sizeof *p);
    p->id = ++next_id;
    p->dial.socket = s;
    p->dial.host = s->host;
    p->context = s->context;
    snprintf(p->address, sizeof p->address, "%s", address);
    p->next = pipes;
    pipes = p;
    sim_at(sim_now() + wait_ns + (int64_t)dil_rng_below(sim_rng(), MS), try_to_connect, NULL, p->id);
    return p;
}

/* --- ends ------------------------------------------------------------------------------------------------------------------------------------------- */

void sim_hang_up(sim_pipe *p, int linger_ms)
{
    p->dial.socket = NULL;
    sim_drain(&p->dial.in);
    if (linger_ms > 0 && p->dial.out.n) p->linger_until = sim_now() + linger_ms * MS;
    else sim_drain(&p->dial.out);
    if (p->state == PIPE_DIALS || p->state == PIPE_SHAKES) {
        if (!p->linger_until) drop(p);
        else sim_at(p->linger_until, dial_end_knows, NULL, p->id);
        return;
    }
    if (p->state == PIPE_UP) sim_at(silence(), miss_heartbeat, NULL, p->id);
    if (p->state == PIPE_UP) sim_pump(p);
    else drop_if_over(p);
}

void sim_stop_listening(sim_socket *s)
{
    for (sim_pipe *p = pipes, *next; p; p = next) {
        next = p->next;
        if (p->listen.socket != s) continue;
        p->listen.socket = NULL;
        p->listen.up = false;
        sim_drain(&p->listen.in);
        if (p->state == PIPE_BROKEN) drop_if_over(p);
        else break_pipe(p, sim_now() + delay(p->listen.host, p->dial.host), sim_now());
    }
}

bool sim_lingers(const void *context)
{
    for (const sim_pipe *p = pipes; p; p = p->next) {
        if (p->context == context && p->linger_until > sim_now() && p->dial.out.n) return true;
    }
    return false;
}

/* --- faults --------------------------------------------------------------------------------------------------------------------------------------------- */

static bool between(const sim_pipe *p, const sim_host *a, const sim_host *b)
{
    return (p->dial.host == a && p->listen.host == b) || (p->dial.host == b && p->listen.host == a);
}

void sim_link_block(sim_host *from, sim_host *to, bool on)
{
    link_of[from->id][to->id].blocked = on;
    if (!on) {
        kick(NULL, 0);
        return;
    }
    for (sim_pipe *p = pipes; p; p = p->next) {
        if (between(p, from, to)) sim_at(silence(), miss_heartbeat, NULL, p->id);
    }
}

bool sim_link_blocked(const sim_host *from, const sim_host *to)
{
    return link_of[from->id][to->id].blocked;
}

void sim_link_stretch(sim_host *from, sim_host *to, double times)
{
    link_of[from->id][to->id].stretch = times;
}

void sim_link_reset(sim_host *a, sim_host *b)
{
    for (sim_pipe *p = pipes; p; p = p->next) {
        if (!between(p, a, b) || (p->state != PIPE_UP && p->state != PIPE_SHAKES)) continue;
        int64_t first = sim_now() + delay(a, b), other = sim_chance(0.3) ? silence() : first;
        bool dial_first = sim_chance(0.5);
        break_pipe(p, dial_first ? first : other, dial_first ? other : first);
    }
}

void sim_wire_gone(sim_host *h, bool silently)
{
    dark[h->id] = silently;
    for (sim_pipe *p = pipes, *next; p; p = next) {
        next = p->next;
        int64_t knows = silently ? silence() : sim_now();
        if (p->dial.host == h && !p->moved) {
            p->dial.socket = NULL;
            p->linger_until = 0;
            sim_drain(&p->dial.in);
            sim_drain(&p->dial.out);
            if (p->state == PIPE_UP) break_pipe(p, sim_now(), knows + delay(h, p->listen.host));
            else if (p->state == PIPE_BROKEN) drop_if_over(p);
            else drop(p);
        } else if (p->listen.host == h && p->listen.socket) {
            p->listen.socket = NULL;
            p->listen.up = false;
            sim_drain(&p->listen.in);
            if (p->state == PIPE_BROKEN) drop_if_over(p);
            else break_pipe(p, knows + delay(h, p->dial.host), sim_now());
        }
    }
}

void sim_wire_back(sim_host *h)
{
    dark[h->id] = false;
}

void sim_wire_paused(sim_host *h)
{
    for (sim_pipe *p = pipes; p; p = p->next) {
        if (p->dial.host == h || p->listen.host == h) sim_at(silence(), miss_heartbeat, NULL, p->id);
    }
    sim_at(h->paused_until, kick, NULL, 0);
}
