/* Sockets. Limits that hold before and after authentication: handshakes end within 5 s, messages within DIL_FRAME_MAX,
 * queues within 64 frames a connection; ZMTP heartbeats find half-open connections. */
#include "net/sock.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

enum { QUEUE_FRAMES = 64, HANDSHAKE_MS = 5000, BEAT_MS = 1000, BEAT_TIMEOUT_MS = 5000, RECONNECT_MS = 50, RECONNECT_MAX_MS = 1000 };

bool dil__address_ok(const char *address)
{
    const char *colon = strrchr(address, ':');
    if (!colon || colon == address || strlen(address) >= 200 || strpbrk(address, " \t\n/@?#")) return false;
    unsigned port = 0;
    for (const char *p = colon + 1; *p; p++) {
        if (*p < '0' || *p > '9' || (port = port * 10 + (unsigned)(*p - '0')) > 65535) return false;
    }
    return colon[1] != 0;
}

static void set_int(void *sock, int option, int value)
{
    zmq_setsockopt(sock, option, &value, sizeof value);
}

static void set_limits(void *sock)
{
    int64_t max = DIL_FRAME_MAX;
    zmq_setsockopt(sock, ZMQ_MAXMSGSIZE, &max, sizeof max);
    set_int(sock, ZMQ_LINGER, 0);
    set_int(sock, ZMQ_SNDHWM, QUEUE_FRAMES);
    set_int(sock, ZMQ_RCVHWM, QUEUE_FRAMES);
    set_int(sock, ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS);
    set_int(sock, ZMQ_HEARTBEAT_IVL, BEAT_MS);
    set_int(sock, ZMQ_HEARTBEAT_TIMEOUT, BEAT_TIMEOUT_MS);
    set_int(sock, ZMQ_RECONNECT_IVL, RECONNECT_MS);
    set_int(sock, ZMQ_RECONNECT_IVL_MAX, RECONNECT_MAX_MS);
    set_int(sock, ZMQ_IPV6, 1);
}

static dil_status secure(void *sock, const dil_keypair *me, const char *server_key, dil_err *err)
{
    if (!me) return DIL_OK;
    if (!server_key) set_int(sock, ZMQ_CURVE_SERVER, 1);
    bool ok = (!server_key || zmq_setsockopt(sock, ZMQ_CURVE_SERVERKEY, server_key, DIL_KEY_CHARS) == 0) &&
              zmq_setsockopt(sock, ZMQ_CURVE_PUBLICKEY, me->public_key, DIL_KEY_CHARS) == 0 &&
              zmq_setsockopt(sock, ZMQ_CURVE_SECRETKEY, me->secret_key, DIL_KEY_CHARS) == 0;
    return ok ? DIL_OK : dil_fail(err, DIL_EAUTH, "a key is not usable: %s", zmq_strerror(errno));
}

static dil_status new_socket(void *ctx, int type, void **out, dil_err *err)
{
    void *s = zmq_socket(ctx, type);
    if (!s) return dil_fail(err, DIL_EMEMORY, "no socket: %s", zmq_strerror(errno));
    set_limits(s);
    *out = s;
    return DIL_OK;
}

dil_status dil__dial(void *ctx, const char *address, const char *server_key, const dil_keypair *me, void **sock, dil_err *err)
{
    if (!dil__address_ok(address)) return dil_fail(err, DIL_EUSAGE, "'%s' is not HOST:PORT", address);
    if (me && !dil_key_is_valid(server_key))
        return dil_fail(err, DIL_EAUTH, "%s: its public key is not known; give it, or say --insecure on both sides", address);
    void *s = NULL;
    dil_status st = new_socket(ctx, ZMQ_DEALER, &s, err);
    if (st == DIL_OK) st = secure(s, me, server_key, err);
    char url[256];
    snprintf(url, sizeof url, "tcp://%s", address);
    if (st == DIL_OK && zmq_connect(s, url) != 0) st = dil_fail(err, DIL_ENET, "%s: %s", address, zmq_strerror(errno));
    if (st == DIL_OK) *sock = s;
    else if (s) zmq_close(s);
    return st;
}

static dil_status bind_to(void *s, const char *address, dil_err *err)
{
    char url[256];
    snprintf(url, sizeof url, "tcp://%s", address);
    if (zmq_bind(s, url) == 0) return DIL_OK;
    if (errno == EADDRINUSE) return dil_fail(err, DIL_EBUSY, "%s is in use by another program: choose another port", address);
    if (errno == ENODEV || errno == EADDRNOTAVAIL) return dil_fail(err, DIL_ENET, "cannot listen on %s: this machine has no such address", address);
    return dil_fail(err, DIL_ENET, "cannot listen on %s: %s", address, zmq_strerror(errno));
}

dil_status dil__listen(void *ctx, const char *address, const dil_keypair *me, void **sock, uint16_t *port, dil_err *err)
{
    if (!dil__address_ok(address)) return dil_fail(err, DIL_EUSAGE, "'%s' is not HOST:PORT", address);
    void *s = NULL;
    dil_status st = new_socket(ctx, ZMQ_ROUTER, &s, err);
    if (st == DIL_OK) st = secure(s, me, NULL, err);
    if (st == DIL_OK && me) {
        zmq_setsockopt(s, ZMQ_ZAP_DOMAIN, "dilemma", 7);
    }
    if (st == DIL_OK) {
        set_int(s, ZMQ_ROUTER_MANDATORY, 1);
        st = bind_to(s, address, err);
    }
    if (st != DIL_OK) {
        if (s) zmq_close(s);
        return st;
    }
    char bound[256] = "";
    size_t n = sizeof bound;
    zmq_getsockopt(s, ZMQ_LAST_ENDPOINT, bound, &n);
    const char *colon = strrchr(bound, ':');
    unsigned p = 0;
    if (colon) sscanf(colon + 1, "%u", &p);
    if (port) *port = (uint16_t)p;
    *sock = s;
    return DIL_OK;
}

dil_status dil__send_buf(void *sock, const dil_buf *b, dil_err *err)
{
    if (b->failed || b->len < DIL_FRAME_HEADER_BYTES) return dil_fail(err, DIL_ELIMIT, "a frame of more than %zu bytes", b->max);
    if (zmq_send(sock, b->data, b->len, ZMQ_DONTWAIT) >= 0) return DIL_OK;
    return dil_fail(err, DIL_ENET, "cannot send: %s", errno == EAGAIN ? "the peer takes nothing" : zmq_strerror(errno));
}

void dil__drop_parts(void *sock, const zmq_msg_t *last)
{
    bool more = zmq_msg_more(last) != 0;
    while (more) {
        zmq_msg_t part;
        zmq_msg_init(&part);
        more = zmq_msg_recv(&part, sock, ZMQ_DONTWAIT) >= 0 && zmq_msg_more(&part);
        zmq_msg_close(&part);
    }
}

/* --- watching handshakes ---------------------------------------------------------------------------------------------------- */

dil_status dil__watch_open(dil__watch *w, void *ctx, void *sock, dil_err *err)
{
    static atomic_uint counter;
    char name[64];
    snprintf(name, sizeof name, "inproc://watch-%u", atomic_fetch_add(&counter, 1));
    *w = (dil__watch){0};
    int events = ZMQ_EVENT_CONNECTED | ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
                 ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_DISCONNECTED;
    if (zmq_socket_monitor(sock, name, events) != 0) return dil_fail(err, DIL_EMEMORY, "no socket monitor: %s", zmq_strerror(errno));
    w->monitor = zmq_socket(ctx, ZMQ_PAIR);
    if (w->monitor) set_int(w->monitor, ZMQ_LINGER, 0);
    if (w->monitor && zmq_connect(w->monitor, name) == 0) return DIL_OK;
    dil__watch_close(w, sock);
    return dil_fail(err, DIL_EMEMORY, "no socket monitor: %s", zmq_strerror(errno));
}

static void take_event(dil__watch *w, unsigned event)
{
    if (event & ZMQ_EVENT_CONNECTED) w->connected = true;
    if (event & ZMQ_EVENT_HANDSHAKE_SUCCEEDED) {
        w->shaken = true;
        w->refused = 0;
        w->gone_ns = 0;
    }
    if (event & ZMQ_EVENT_DISCONNECTED && w->shaken) {
        w->n_broken++;
        if (!w->gone_ns) w->gone_ns = dil_now_ns();
    }
    if (event & ZMQ_EVENT_HANDSHAKE_FAILED_AUTH) w->refused = 1;
    if (event & (ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL) && !w->refused) w->refused = 2;
}

void dil__watch_poll(dil__watch *w)
{
    for (;;) {
        zmq_msg_t m;
        zmq_msg_init(&m);
        bool got = zmq_msg_recv(&m, w->monitor, ZMQ_DONTWAIT) >= 0;
        if (got && zmq_msg_size(&m) >= 2) {
            uint16_t event;
            memcpy(&event, zmq_msg_data(&m), sizeof event);
            take_event(w, event);
        }
        if (got) dil__drop_parts(w->monitor, &m);
        zmq_msg_close(&m);
        if (!got) return;
    }
}

void dil__watch_close(dil__watch *w, void *sock)
{
    if (sock) zmq_socket_monitor(sock, NULL, 0);
    if (w->monitor) zmq_close(w->monitor);
    *w = (dil__watch){0};
}

dil_status dil__watch_fail(const dil__watch *w, const char *address, const dil_keypair *me, double sec, dil_err *err)
{
    if (w->refused == 1)
        return dil_fail(err, DIL_EAUTH, "%s refused our key %s: allow it there (dilemma keys allow)", address, me ? me->public_key : "");
    if (w->refused == 2 || (w->connected && !w->shaken))
        return dil_fail(err, DIL_EAUTH, "%s: the handshake failed: it has another key than we were told, or only one side runs --insecure", address);
    if (!w->connected) return dil_fail(err, DIL_ENET, "%s does not answer within %.3g s", address, sec);
    return dil_fail(err, DIL_ENET, "%s is connected but silent for %.3g s", address, sec);
}
