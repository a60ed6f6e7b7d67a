/* The pairing over TCP. The node's desk is one thread and one poll: every connection has a buffer of one message, ten seconds, and a
 * place among sixteen; when all are taken the oldest that has proved nothing goes, so that idle ones cannot keep a person out. */
#define _GNU_SOURCE /* accept4 */
#include "enrol/pairing.h"
#include "net/sock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PLACES = 16, PLACES_A_HOST = 2, STEP_MS = 10000, LIMIT_SEC = 600 };

/* --- addresses --------------------------------------------------------------------------------------------------------------- */

static dil_status resolve(const char *address, bool listen, struct addrinfo **out, dil_err *err)
{
    char host[256];
    if (!dil__address_ok(address)) return dil_fail(err, DIL_EUSAGE, "'%s' is not HOST:PORT", address);
    const char *colon = strrchr(address, ':'), *from = address;
    size_t n = (size_t)(colon - address);
    if (n > 2 && from[0] == '[' && from[n - 1] == ']') from++, n -= 2;
    snprintf(host, sizeof host, "%.*s", (int)n, from);
    struct addrinfo want = {.ai_socktype = SOCK_STREAM, .ai_flags = listen ? AI_PASSIVE : 0};
    int e = getaddrinfo(strcmp(host, "*") == 0 ? NULL : host, colon + 1, &want, out);
    return e == 0 ? DIL_OK : dil_fail(err, DIL_ENET, "%s: %s", address, gai_strerror(e));
}

static void name_of(const struct sockaddr *a, socklen_t len, char out[DIL_PAIR_ADDRESS_MAX], bool with_port)
{
    char host[64] = "?", port[8] = "";
    getnameinfo(a, len, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV);
    snprintf(out, DIL_PAIR_ADDRESS_MAX, with_port ? "%s:%s" : "%s", host, port);
}

/* A message of some hundred bytes always fits an empty socket buffer; what does not go at once never will. */
static bool send_all(int fd, const dil_buf *b)
{
    return !b->failed && (b->len == 0 || send(fd, b->data, b->len, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)b->len);
}

/* --- the node's desk --------------------------------------------------------------------------------------------------------- */

typedef struct guest {
    int fd;                 /* -1: the place is free */
    int64_t until_ns, since_ns;
    char host[DIL_PAIR_ADDRESS_MAX];
    dil__pairing run;
    uint8_t in[DIL__PAIRING_MAX];
    size_t n_in;
} guest;

struct dil_pair_desk {
    int fd;
    uint16_t port;
    dil__pairing_who me;
    char code[DIL_PAIR_DIGITS + 1], *allow_path;
    int64_t until_ns, begun_ns;
    int tries;
    guest place[PLACES];
};

static dil_status listen_on(dil_pair_desk *d, const char *address, dil_err *err)
{
    struct addrinfo *list;
    dil_status s = resolve(address, true, &list, err);
    if (s != DIL_OK) return s;
    int why = EADDRNOTAVAIL, one = 1;
    for (struct addrinfo *a = list; a && d->fd < 0; a = a->ai_next) {
        int fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0) continue;
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        if (bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, PLACES) == 0) d->fd = fd;
        else {
            why = errno;
            close(fd);
        }
    }
    freeaddrinfo(list);
    if (d->fd < 0 && why == EADDRINUSE) return dil_fail(err, DIL_EBUSY, "%s is in use by another program (a node that runs already?): stop it while pairing, or choose another port", address);
    if (d->fd < 0) return dil_fail(err, DIL_ENET, "cannot listen on %s: %s", address, strerror(why));
    struct sockaddr_storage at;
    socklen_t len = sizeof at;
    char port[8] = "0";
    if (getsockname(d->fd, (struct sockaddr *)&at, &len) == 0) getnameinfo((struct sockaddr *)&at, len, NULL, 0, port, sizeof port, NI_NUMERICSERV);
    d->port = (uint16_t)strtoul(port, NULL, 10);
    return DIL_OK;
}

dil_status dil_pair_open(const dil_pair_opts *o, dil_pair_desk **out, dil_err *err)
{
    if (sodium_init() < 0) return dil_fail(err, DIL_EINTERNAL, "libsodium does not start");
    if (!dil_pair_name_ok(o->name)) return dil_fail(err, DIL_EUSAGE, "'%.80s' cannot be a machine's name: letters, digits, '-', '_' and '.'", o->name);
    dil_pair_desk *d = calloc(1, sizeof *d);
    if (!d) return dil_fail(err, DIL_EMEMORY, "no memory for pairing");
    d->fd = -1;
    for (int i = 0; i < PLACES; i++) d->place[i].fd = -1;
    snprintf(d->me.name, sizeof d->me.name, "%s", o->name);
    snprintf(d->me.key, sizeof d->me.key, "%s", o->key);
    snprintf(d->code, sizeof d->code, "%08u", randombytes_uniform(100000000));
    d->tries = DIL_PAIR_TRIES;
    d->begun_ns = dil_now_ns();
    d->until_ns = d->begun_ns + (int64_t)((o->limit_sec > 0 ? o->limit_sec : LIMIT_SEC) * 1e9);
    d->allow_path = strdup(o->allow_path);
    dil_status s = d->allow_path ? DIL_OK : dil_fail(err, DIL_EMEMORY, "no memory for pairing");
    if (s == DIL_OK && o->code && !dil_pair_code_read(o->code, d->code)) s = dil_fail(err, DIL_EUSAGE, "a code has %d digits", DIL_PAIR_DIGITS);
    if (s == DIL_OK) s = listen_on(d, o->listen, err);
    if (s == DIL_OK) *out = d;
    else dil_pair_close(d);
    return s;
}

const char *dil_pair_code(const dil_pair_desk *d)
{
    return d->code;
}

uint16_t dil_pair_port(const dil_pair_desk *d)
{
    return d->port;
}

static void show_out(guest *g)
{
    if (g->fd >= 0) close(g->fd);
    dil__pairing_end(&g->run);
    g->fd = -1;
    g->n_in = 0;
}

void dil_pair_close(dil_pair_desk *d)
{
    if (!d) return;
    for (int i = 0; i < PLACES; i++) show_out(&d->place[i]);
    if (d->fd >= 0) close(d->fd);
    sodium_memzero(d->code, sizeof d->code);
    free(d->allow_path);
    free(d);
}

/* A free place, or that of the oldest that has proved nothing; NULL: the host has its share, or all are busy proving. */
static guest *find_place(dil_pair_desk *d, const char *host)
{
    guest *found = NULL;
    int same = 0;
    for (int i = 0; i < PLACES; i++) {
        guest *g = &d->place[i];
        if (g->fd >= 0 && strcmp(g->host, host) == 0) same++;
        if (g->fd < 0) {
            if (!found || found->fd >= 0) found = g;
        } else if (g->run.step == DIL__PAIRING_START_WANTED || g->run.step == DIL__PAIRING_PROVE_WANTED) {
            if (!found || (found->fd >= 0 && g->since_ns < found->since_ns)) found = g;
        }
    }
    return same < PLACES_A_HOST ? found : NULL;
}

static void let_in(dil_pair_desk *d)
{
    struct sockaddr_storage from;
    socklen_t len = sizeof from;
    int fd = accept4(d->fd, (struct sockaddr *)&from, &len, SOCK_CLOEXEC | SOCK_NONBLOCK), one = 1;
    if (fd < 0) return;
    char host[DIL_PAIR_ADDRESS_MAX];
    name_of((struct sockaddr *)&from, len, host, false);
    guest *g = find_place(d, host);
    uint8_t space[2 * DIL__PAIRING_MAX];
    dil_buf out = {.data = space, .cap = sizeof space, .max = sizeof space};
    if (!g) {
        dil__pairing none = {0};
        dil__pairing_refuse(&none, DIL__PAIRING_BUSY, &out);
        send_all(fd, &out);
        close(fd);
        return;
    }
    show_out(g);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    g->fd = fd;
    g->since_ns = dil_now_ns();
    g->until_ns = g->since_ns + (int64_t)STEP_MS * 1000000;
    memcpy(g->host, host, sizeof g->host);
    if (dil__pairing_begin(&g->run, false, &d->me, d->code, &out, NULL) != DIL_OK || !send_all(fd, &out)) show_out(g);
}

/* The whole of a message's bytes, as they come; 1: a message is there, 0: not yet, -1: none of ours, or the peer is gone. */
static int read_message(int fd, uint8_t *in, size_t *n)
{
    for (;;) {
        size_t want = dil__pairing_size(in, *n);
        if (want == DIL__PAIRING_BAD) return -1;
        if (want && *n == want) return 1;
        ssize_t got = recv(fd, in + *n, (want ? want : DIL__PAIRING_HEAD) - *n, MSG_DONTWAIT);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return 0;
        if (got <= 0) return -1;
        *n += (size_t)got;
    }
}

static dil_status count_wrong(dil_pair_desk *d, const guest *g, dil_err *err)
{
    d->tries--;
    dil_log(DIL_LOG_WARN, "pair", "a wrong code from %s: %d tries left", g->host, d->tries);
    return d->tries > 0 ? DIL_OK : dil_fail(err, DIL_EAUTH, "%d wrong codes: this one is dead. Start the pairing again for a new one", DIL_PAIR_TRIES);
}

/* The peer is who the code says: its key is let in before it hears that it was. */
static dil_status enrol(dil_pair_desk *d, guest *g, dil_buf *out, dil_pair_peer *peer, dil_err *err)
{
    dil_status s = dil_keyring_add(d->allow_path, g->run.peer.key, g->run.peer.name, err);
    if (s != DIL_OK) {
        dil__pairing_refuse(&g->run, DIL__PAIRING_NAME, out);
        send_all(g->fd, out);
        return s;
    }
    dil__pairing_keep(&g->run, out);
    send_all(g->fd, out);
    *peer = (dil_pair_peer){0};
    memcpy(peer->key, g->run.peer.key, sizeof peer->key);
    memcpy(peer->name, g->run.peer.name, sizeof peer->name);
    memcpy(peer->address, g->host, sizeof peer->address);
    return DIL_OK;
}

/* *paired: the work is done. An error is the desk's end; a guest's own errors are only its own. */
static dil_status hear(dil_pair_desk *d, guest *g, dil_pair_peer *peer, bool *paired, dil_err *err)
{
    int got = read_message(g->fd, g->in, &g->n_in);
    if (got == 0) return DIL_OK;
    uint8_t space[2 * DIL__PAIRING_MAX];
    dil_buf out = {.data = space, .cap = sizeof space, .max = sizeof space};
    dil_status s = DIL_OK;
    dil_err own;
    bool well = got > 0 && dil__pairing_take(&g->run, g->in, g->n_in, &out, &own) == DIL_OK;
    g->n_in = 0;
    if (well && g->run.step == DIL__PAIRING_PROVED) {
        s = enrol(d, g, &out, peer, err);
        *paired = s == DIL_OK;
        show_out(g);
        return s;
    }
    well = send_all(g->fd, &out) && well;
    if (g->run.wrong_code) s = count_wrong(d, g, err);
    if (!well) show_out(g);
    return s;
}

dil_status dil_pair_wait(dil_pair_desk *d, const dil_progress *progress, dil_pair_peer *out, dil_err *err)
{
    bool paired = false;
    double total = (double)(d->until_ns - d->begun_ns) * 1e-9;
    dil_status s = DIL_OK;
    while (s == DIL_OK && !paired) {
        int64_t now = dil_now_ns();
        if (now >= d->until_ns) return dil_fail(err, DIL_ETIMEOUT, "nobody paired within %.0f s, the code is dead. Start the pairing again for a new one", total);
        if (!dil_progress_step(progress, "waiting to be paired", (double)(now - d->begun_ns) * 1e-9, total)) return dil_fail(err, DIL_ECANCELED, "canceled while waiting to be paired");
        struct pollfd item[PLACES + 1] = {{.fd = d->fd, .events = POLLIN}};
        for (int i = 0; i < PLACES; i++) {
            guest *g = &d->place[i];
            if (g->fd >= 0 && now >= g->until_ns) show_out(g);
            item[i + 1] = (struct pollfd){.fd = g->fd, .events = POLLIN};
        }
        int64_t left_ms = (d->until_ns - now) / 1000000 + 1;
        if (poll(item, PLACES + 1, left_ms < 200 ? (int)left_ms : 200) < 0 && errno != EINTR) return dil_fail_errno(err, "waiting to be paired");
        for (int i = 0; i < PLACES && s == DIL_OK && !paired; i++) {
            if (item[i + 1].revents && d->place[i].fd == item[i + 1].fd && d->place[i].fd >= 0) s = hear(d, &d->place[i], out, &paired, err);
        }
        if (item[0].revents && s == DIL_OK && !paired) let_in(d);
    }
    return s;
}

/* --- the coordinator ------------------------------------------------------------------------------------------------------------ */

static int left_ms(int64_t until_ns)
{
    int64_t left = (until_ns - dil_now_ns()) / 1000000;
    return left < 0 ? 0 : left > 600000 ? 600000 : (int)left;
}

static dil_status connect_one(const struct addrinfo *a, int64_t until_ns, int *out, int *why)
{
    int fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), one = 1, e = 0;
    socklen_t len = sizeof e;
    if (fd < 0) {
        *why = errno;
        return DIL_ENET;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, a->ai_addr, a->ai_addrlen) != 0) e = errno;
    if (e == EINPROGRESS) {
        struct pollfd item = {.fd = fd, .events = POLLOUT};
        int n = poll(&item, 1, left_ms(until_ns));
        if (n <= 0 || getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &len) != 0) e = ETIMEDOUT;
    }
    if (e == 0) {
        *out = fd;
        return DIL_OK;
    }
    close(fd);
    *why = e;
    return DIL_ENET;
}

static dil_status dial(const char *address, int64_t until_ns, int *out, dil_err *err)
{
    struct addrinfo *list;
    dil_status s = resolve(address, false, &list, err);
    if (s != DIL_OK) return s;
    int why = 0;
    s = DIL_ENET;
    for (struct addrinfo *a = list; a && s != DIL_OK; a = a->ai_next) s = connect_one(a, until_ns, out, &why);
    freeaddrinfo(list);
    if (s == DIL_OK) return s;
    return dil_fail(err, DIL_ENET, "%s: %s. Is \"dilemma node --pair\" running there, with --listen on an address that we reach, and the port open?", address, strerror(why));
}

dil_status dil_pair_reach(const char *address, double limit_sec, dil_err *err)
{
    int fd;
    dil_status s = dial(address, dil_now_ns() + (int64_t)(limit_sec * 1e9), &fd, err);
    if (s == DIL_OK) close(fd);
    return s;
}

/* One message from the node, taken; an error has the node's address. */
static dil_status converse(int fd, const char *address, int64_t until_ns, dil__pairing *run, dil_buf *out, dil_err *err)
{
    uint8_t in[DIL__PAIRING_MAX];
    size_t n = 0;
    for (;;) {
        int got = read_message(fd, in, &n);
        if (got > 0) break;
        if (got < 0 && n == 0 && run->step != DIL__PAIRING_HELLO_WANTED) return dil_fail(err, DIL_ENET, "%s ended the connection; try again", address);
        if (got < 0) return dil_fail(err, DIL_ENET, "%s answers, but does not pair: start its node with --pair", address);
        struct pollfd item = {.fd = fd, .events = POLLIN};
        int ms = left_ms(until_ns);
        if (ms == 0) return dil_fail(err, DIL_ENET, "%s takes the connection, but says nothing: is it a \"dilemma node --pair\"?", address);
        if (poll(&item, 1, ms) < 0 && errno != EINTR) return dil_fail_errno(err, "%s", address);
    }
    dil_err own;
    out->len = 0;
    dil_status s = dil__pairing_take(run, in, n, out, &own);
    bool sent = send_all(fd, out);
    if (s != DIL_OK) return dil_fail(err, s, "%s: %s", address, own.text);
    return sent ? DIL_OK : dil_fail(err, DIL_ENET, "%s ended the connection; try again", address);
}

static dil_status keep_node(int fd, const char *address, const char *name, const char *dir, dil__pairing *run, dil_buf *out, dil_pair_peer *peer, dil_err *err)
{
    snprintf(peer->address, sizeof peer->address, "%s", address);
    snprintf(peer->name, sizeof peer->name, "%s", name ? name : run->peer.name);
    memcpy(peer->key, run->peer.key, sizeof peer->key);
    dil_status s = dil_pair_keep(dir, peer, err);
    out->len = 0;
    if (s == DIL_OK) dil__pairing_keep(run, out);
    else dil__pairing_refuse(run, DIL__PAIRING_NAME, out);
    bool sent = send_all(fd, out);
    if (s == DIL_OK && !sent) s = dil_fail(err, DIL_ENET, "%s ended the connection; pair it again", address);
    return s;
}

dil_status dil_pair_with(const char *address, const char *name, const char *code, const dil_keypair *me, const char *dir, double limit_sec,
                         dil_pair_peer *out, dil_err *err)
{
    dil__pairing run;
    dil__pairing_who who = {0};
    dil_pair_peer peer = {0};
    uint8_t space[2 * DIL__PAIRING_MAX];
    dil_buf buf = {.data = space, .cap = sizeof space, .max = sizeof space};
    if (sodium_init() < 0) return dil_fail(err, DIL_EINTERNAL, "libsodium does not start");
    if (name && !dil_pair_name_ok(name)) return dil_fail(err, DIL_EUSAGE, "'%.80s' cannot be a machine's name: letters, digits, '-', '_' and '.'", name);
    if (strlen(address) >= sizeof peer.address) return dil_fail(err, DIL_EUSAGE, "an address has fewer than %d characters", DIL_PAIR_ADDRESS_MAX);
    memcpy(who.key, me->public_key, sizeof who.key);
    dil_pair_own_name(who.name);
    int64_t until_ns = dil_now_ns() + (int64_t)(limit_sec * 1e9);
    dil_status s = dil__pairing_begin(&run, true, &who, code, &buf, err);
    int fd = -1;
    if (s == DIL_OK) s = dial(address, until_ns, &fd, err);
    while (s == DIL_OK && run.step != DIL__PAIRING_ENDED) {
        s = converse(fd, address, until_ns, &run, &buf, err);
        if (s == DIL_OK && run.step == DIL__PAIRING_PROVED) s = keep_node(fd, address, name, dir, &run, &buf, &peer, err);
    }
    if (fd >= 0) close(fd);
    dil__pairing_end(&run);
    if (s == DIL_OK) *out = peer;
    return s;
}
