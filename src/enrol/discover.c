/* The sockets of multicast DNS. The responder shares port 5353 with whatever daemon is there; who asks uses a port of its own and is answered
 * directly (RFC 6762, 5.1 and 6.7), so asking needs no port and no privilege. Answers to all are at most one a second and interface,
 * a little delayed, and direct ones come out of a bucket, so that nobody can make a node shout. */
#define _GNU_SOURCE /* in_pktinfo */
#include <dilemma/discover.h>

#include "enrol/iface.h"
#include "enrol/mdns.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define GROUP "224.0.0.251"
enum { DIRECT_MAX = 20 };
#define SECOND INT64_C(1000000000)

void dil_key_id(const char *z85, char out[DIL_KEY_ID_CHARS + 1])
{
    dil_hash h = dil_hash_of(z85, strlen(z85));
    char hex[2 * DIL_HASH_BYTES + 1];
    dil_hash_hex(&h, hex);
    memcpy(out, hex, DIL_KEY_ID_CHARS);
    out[DIL_KEY_ID_CHARS] = 0;
}

/* One socket for all interfaces; which one a datagram leaves by is said with it. */
static int open_socket(uint16_t port, dil_err *err)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), one = 1, hops = 255;
    if (fd < 0) {
        dil_fail_errno(err, "multicast DNS: socket");
        return -1;
    }
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_ANY)}};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (port) setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
    setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &one, sizeof one);
    setsockopt(fd, IPPROTO_IP, IP_MULTICAST_TTL, &hops, sizeof hops);
    setsockopt(fd, IPPROTO_IP, IP_MULTICAST_LOOP, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&at, sizeof at) == 0) return fd;
    dil_fail(err, DIL_ENET, "multicast DNS: port %u: %s", port, strerror(errno));
    close(fd);
    return -1;
}

static bool send_group(int fd, const dil__iface *by, const uint8_t *data, size_t len)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(DIL__MDNS_PORT)};
    struct ip_mreqn face = {.imr_address = by->address, .imr_ifindex = (int)by->index};
    inet_pton(AF_INET, GROUP, &to.sin_addr);
    return setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &face, sizeof face) == 0 && sendto(fd, data, len, 0, (struct sockaddr *)&to, sizeof to) == (ssize_t)len;
}

/* One datagram, where it came from, by which interface, and whether it was sent to the group. False: none is there. */
static bool receive(int fd, uint8_t *data, size_t *len, struct sockaddr_in *from, unsigned *by, bool *to_group)
{
    union {
        struct cmsghdr align;
        uint8_t space[CMSG_SPACE(sizeof(struct in_pktinfo))];
    } control;
    struct iovec part = {.iov_base = data, .iov_len = DIL__MDNS_PACKET};
    struct msghdr m = {.msg_name = from, .msg_namelen = sizeof *from, .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof control.space};
    ssize_t n = recvmsg(fd, &m, MSG_DONTWAIT);
    if (n < 0) return false;
    *len = (m.msg_flags & MSG_TRUNC) ? 0 : (size_t)n;
    *by = 0;
    *to_group = false;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
        struct in_pktinfo info;
        if (c->cmsg_level != IPPROTO_IP || c->cmsg_type != IP_PKTINFO) continue;
        memcpy(&info, CMSG_DATA(c), sizeof info);
        *by = (unsigned)info.ipi_ifindex;
        *to_group = info.ipi_addr.s_addr == inet_addr(GROUP);
    }
    return true;
}

/* --- the node ------------------------------------------------------------------------------------------------------------------ */

typedef struct face {
    dil__iface at;
    int64_t due_ns, said_ns; /* due 0: nothing to say */
    bool first;              /* what is new is said twice, a second apart (RFC 6762, 8.3) */
} face;

struct dil_announce {
    int fd, stop;
    pthread_t thread;
    bool started;
    atomic_bool stopping;
    dil__mdns_node self;
    face at[DIL__IFACES_MAX];
    size_t n;
    double bucket;
    int64_t filled_ns;
};

static size_t compose(dil_announce *a, const face *f, bool legacy, uint16_t id, bool goodbye, uint8_t out[DIL__MDNS_PACKET])
{
    dil__mdns_node self = a->self;
    memcpy(self.address, &f->at.address, 4);
    return dil__mdns_answer(&self, legacy, id, goodbye, out);
}

static void announce(dil_announce *a, face *f, bool goodbye)
{
    uint8_t out[DIL__MDNS_PACKET];
    send_group(a->fd, &f->at, out, compose(a, f, false, 0, goodbye, out));
    f->said_ns = dil_now_ns();
    f->due_ns = f->first ? f->said_ns + SECOND : 0;
    f->first = false;
}

static bool may_answer_directly(dil_announce *a)
{
    int64_t now = dil_now_ns();
    a->bucket += (double)(now - a->filled_ns) * 1e-9 * DIRECT_MAX;
    if (a->bucket > DIRECT_MAX) a->bucket = DIRECT_MAX;
    a->filled_ns = now;
    if (a->bucket < 1) return false;
    a->bucket -= 1;
    return true;
}

static void hear(dil_announce *a)
{
    uint8_t data[DIL__MDNS_PACKET], out[DIL__MDNS_PACKET];
    struct sockaddr_in from;
    unsigned by;
    bool to_group;
    size_t len;
    for (int i = 0; i < 64 && receive(a->fd, data, &len, &from, &by, &to_group); i++) {
        uint16_t id;
        if (!to_group || !dil__mdns_asks(data, len, &a->self, &id)) continue; /* what was sent to us alone may come from far away */
        for (size_t k = 0; k < a->n; k++) {
            face *f = &a->at[k];
            if (f->at.index != by) continue;
            if (from.sin_port != htons(DIL__MDNS_PORT)) {
                if (may_answer_directly(a)) sendto(a->fd, out, compose(a, f, true, id, false, out), 0, (struct sockaddr *)&from, sizeof from);
            } else if (!f->due_ns) {
                int64_t soon = dil_now_ns() + (20 + randombytes_uniform(100)) * (SECOND / 1000), rest = f->said_ns + SECOND;
                f->due_ns = soon > rest ? soon : rest;
            }
            break;
        }
    }
}

static void *respond(void *arg)
{
    dil_announce *a = arg;
    while (!atomic_load(&a->stopping)) {
        int64_t now = dil_now_ns(), next = now + 60 * SECOND;
        for (size_t i = 0; i < a->n; i++) {
            if (a->at[i].due_ns && a->at[i].due_ns <= now) announce(a, &a->at[i], false);
            if (a->at[i].due_ns && a->at[i].due_ns < next) next = a->at[i].due_ns;
        }
        struct pollfd item[2] = {{.fd = a->fd, .events = POLLIN}, {.fd = a->stop, .events = POLLIN}};
        if (poll(item, 2, (int)((next - now) / 1000000) + 1) < 0 && errno != EINTR) break;
        uint64_t count;
        if (item[1].revents && read(a->stop, &count, sizeof count) < 0 && errno != EAGAIN) break;
        if (item[0].revents) hear(a);
    }
    return NULL;
}

static void wake(dil_announce *a)
{
    uint64_t one = 1;
    if (write(a->stop, &one, sizeof one) < 0) dil_log(DIL_LOG_WARN, "announce", "cannot wake the responder: %s", strerror(errno));
}

static dil_status join(dil_announce *a, struct in_addr host, dil_err *err)
{
    dil__iface all[DIL__IFACES_MAX];
    size_t n = dil__ifaces(all, DIL__IFACES_MAX);
    struct ip_mreqn group = {.imr_multiaddr = {inet_addr(GROUP)}};
    for (size_t i = 0; i < n; i++) {
        if (all[i].loopback || !all[i].multicast || (host.s_addr != htonl(INADDR_ANY) && host.s_addr != all[i].address.s_addr)) continue;
        group.imr_ifindex = (int)all[i].index;
        if (setsockopt(a->fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &group, sizeof group) != 0 && errno != EADDRINUSE) continue;
        a->at[a->n++] = (face){.at = all[i], .due_ns = dil_now_ns(), .said_ns = dil_now_ns() - SECOND, .first = true};
    }
    return a->n ? DIL_OK : dil_fail(err, DIL_ENET, "multicast DNS: no network interface with multicast to be found on");
}

dil_status dil_announce_open(const char *host, uint16_t port, const char *name, const char *key, bool pairing, dil_announce **out, dil_err *err)
{
    struct in_addr at;
    if (inet_pton(AF_INET, host, &at) != 1) return dil_fail(err, DIL_EUSAGE, "announcing wants an IPv4 address to listen on, or 0.0.0.0, not '%s'", host);
    if (ntohl(at.s_addr) >> 24 == 127) return dil_fail(err, DIL_EUSAGE, "nobody else reaches %s: to be found, listen on 0.0.0.0 or on the address of a network", host);
    if (!dil_pair_name_ok(name)) return dil_fail(err, DIL_EUSAGE, "'%.80s' cannot be a machine's name: letters, digits, '-', '_' and '.'", name);
    dil_announce *a = calloc(1, sizeof *a);
    if (!a) return dil_fail(err, DIL_EMEMORY, "no memory for announcing");
    a->stop = -1;
    a->self.port = port;
    snprintf(a->self.name, sizeof a->self.name, "%s", name);
    dil_key_id(key, a->self.id);
    a->self.pairing = pairing;
    a->filled_ns = dil_now_ns();
    a->bucket = DIRECT_MAX;
    dil_status s = (a->fd = open_socket(DIL__MDNS_PORT, err)) < 0 ? DIL_ENET : join(a, at, err);
    if (s == DIL_OK && (a->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0) s = dil_fail_errno(err, "announcing");
    if (s == DIL_OK && pthread_create(&a->thread, NULL, respond, a) != 0) s = dil_fail(err, DIL_EMEMORY, "no thread for announcing");
    a->started = s == DIL_OK;
    if (s == DIL_OK) *out = a;
    else dil_announce_close(a);
    return s;
}

void dil_announce_close(dil_announce *a)
{
    if (!a) return;
    if (a->started) {
        atomic_store(&a->stopping, true);
        wake(a);
        pthread_join(a->thread, NULL);
        for (size_t i = 0; i < a->n; i++) announce(a, &a->at[i], true);
    }
    if (a->stop >= 0) close(a->stop);
    if (a->fd >= 0) close(a->fd);
    free(a);
}

/* --- the coordinator -------------------------------------------------------------------------------------------------------------- */

static void take_node(const dil__mdns_node *m, dil_found_node *out, size_t cap, size_t *n)
{
    dil_found_node f = {.pairing = m->pairing};
    memcpy(f.name, m->name, sizeof f.name);
    memcpy(f.id, m->id, sizeof f.id);
    snprintf(f.address, sizeof f.address, "%u.%u.%u.%u:%u", m->address[0], m->address[1], m->address[2], m->address[3], m->port);
    for (size_t i = 0; i < *n; i++) {
        if (strcmp(out[i].id, f.id) == 0) return; /* by several networks: the first answer is the nearest */
    }
    if (*n < cap) out[(*n)++] = f;
}

static int by_name(const void *a, const void *b)
{
    int c = strcmp(((const dil_found_node *)a)->name, ((const dil_found_node *)b)->name);
    return c ? c : strcmp(((const dil_found_node *)a)->id, ((const dil_found_node *)b)->id);
}

static size_t ask_all(int fd, const dil__iface *by, size_t n, const uint8_t *query, size_t len)
{
    size_t sent = 0;
    for (size_t i = 0; i < n; i++) sent += !by[i].loopback && by[i].multicast && send_group(fd, &by[i], query, len);
    return sent;
}

dil_status dil_discover(double sec, dil_found_node *out, size_t cap, size_t *n, dil_err *err)
{
    dil__iface faces[DIL__IFACES_MAX];
    dil__mdns_node got[8];
    uint8_t data[DIL__MDNS_PACKET], query[DIL__MDNS_PACKET];
    size_t n_faces = dil__ifaces(faces, DIL__IFACES_MAX), found = 0, sent = 0, len;
    uint16_t id = (uint16_t)randombytes_random(), theirs;
    size_t query_len = dil__mdns_query(id, query);
    int fd = open_socket(0, err);
    if (fd < 0) return DIL_ENET;
    int64_t start = dil_now_ns(), end = start + (int64_t)(sec * 1e9);
    static const double at[] = {0, 0.15, 0.5}; /* of the time: a datagram may be lost */
    for (size_t asked = 0;;) {
        int64_t now = dil_now_ns(), next = end;
        if (now >= end) break;
        if (asked < 3 && now >= start + (int64_t)(at[asked] * (double)(end - start))) {
            sent += ask_all(fd, faces, n_faces, query, query_len);
            asked++;
        }
        if (asked < 3) next = start + (int64_t)(at[asked] * (double)(end - start));
        struct pollfd item = {.fd = fd, .events = POLLIN};
        int64_t left = (next - dil_now_ns()) / 1000000 + 1;
        if (poll(&item, 1, left > 0 ? (int)left : 0) <= 0) continue;
        struct sockaddr_in from;
        unsigned by;
        bool to_group;
        while (receive(fd, data, &len, &from, &by, &to_group)) {
            size_t told = from.sin_port == htons(DIL__MDNS_PORT) ? dil__mdns_read(data, len, &theirs, got, 8) : 0;
            for (size_t i = 0; i < told && theirs == id; i++) take_node(&got[i], out, cap, &found);
        }
    }
    close(fd);
    if (!sent) return dil_fail(err, DIL_ENET, "cannot look for nodes: no network interface takes multicast");
    qsort(out, found, sizeof *out, by_name);
    *n = found;
    return DIL_OK;
}
