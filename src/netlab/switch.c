/* The switch: reads IP packets from one TUN device a node and writes each to its destination's device when the link says so.
 *
 * A directed link is a drop-tail queue, a serial line of `rate`, and a propagation delay. A packet's times are fixed when it
 * arrives: the line is free at tx_free, so it has left at max(now, tx_free) + bytes / rate and arrives `delay` later, never
 * before its predecessor. What waits stands in a FIFO per link; a heap holds the links by the time of their first packet, and
 * one absolute timerfd wakes us for the earliest. Nothing polls.
 *
 * Packets come with a virtio header, so the kernel may hand over TCP super-packets of up to 64 KiB, which pass to the other
 * device as they are: that is what makes 1 Gbit/s and more possible at one system call a packet. They are charged to the line
 * with the headers that their segments would have. A node with a lossy link gets them cut by the kernel, so that a loss hits
 * one segment. Rejected: sch_netem over veth pairs (not in every kernel), and a thread per link (thousands of wake-ups). */
#include "netlab/lab.h"

#include <errno.h>
#include <linux/virtio_net.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>

#define PACKET_MAX (65536 + 128)
#define READS_A_TURN 64

typedef struct packet {
    struct packet *next;
    int64_t left_ns, arrive_ns; /* leaves the queue for the line's end; arrives */
    uint32_t len;               /* with the virtio header */
    uint8_t data[];
} packet;

typedef struct line {
    dil__lab_link set;
    packet *first, *last;
    packet *waiting;            /* first one that has not left yet at the last look */
    uint64_t waiting_bytes;     /* from there on */
    int64_t tx_free_ns, last_arrive_ns;
    uint32_t to;
    int heap_at;                /* -1: nothing under way */
    uint64_t n_packets, n_bytes, n_lost, n_dropped;
} line;

typedef struct net_switch {
    const dil__lab_spec *spec;
    uint32_t n;
    const int *tun, *ns;
    line *lines;        /* [n][n] */
    line **heap;        /* by first->arrive_ns */
    size_t n_heap;
    uint64_t held_bytes;
    dil_rng rng;
    int timer, epoll, control;
    int64_t armed_ns;
    uint8_t scratch[PACKET_MAX];
} net_switch;

/* --- heap of links ----------------------------------------------------------------------------------------------------- */

static void heap_put(net_switch *w, size_t i, line *l)
{
    w->heap[i] = l;
    l->heap_at = (int)i;
}

static void sift_up(net_switch *w, size_t i)
{
    line *l = w->heap[i];
    while (i > 0) {
        size_t up = (i - 1) / 2;
        if (w->heap[up]->first->arrive_ns <= l->first->arrive_ns) break;
        heap_put(w, i, w->heap[up]);
        i = up;
    }
    heap_put(w, i, l);
}

static void sift_down(net_switch *w, size_t i)
{
    line *l = w->heap[i];
    for (;;) {
        size_t kid = 2 * i + 1;
        if (kid >= w->n_heap) break;
        if (kid + 1 < w->n_heap && w->heap[kid + 1]->first->arrive_ns < w->heap[kid]->first->arrive_ns) kid++;
        if (w->heap[kid]->first->arrive_ns >= l->first->arrive_ns) break;
        heap_put(w, i, w->heap[kid]);
        i = kid;
    }
    heap_put(w, i, l);
}

static void heap_remove(net_switch *w, line *l)
{
    size_t i = (size_t)l->heap_at;
    line *last = w->heap[--w->n_heap];
    l->heap_at = -1;
    if (last == l) return;
    heap_put(w, i, last);
    sift_down(w, i);
    sift_up(w, (size_t)last->heap_at);
}

/* --- packets ------------------------------------------------------------------------------------------------------------ */

/* The bytes that the packet's segments take on the line, each with its own headers. */
static uint64_t line_bytes(const uint8_t *data, size_t len)
{
    struct virtio_net_hdr h;
    memcpy(&h, data, sizeof h);
    size_t ip = len - sizeof h;
    if (h.gso_type == VIRTIO_NET_HDR_GSO_NONE || h.gso_size == 0 || h.hdr_len >= ip) return ip;
    size_t payload = ip - h.hdr_len, segments = (payload + h.gso_size - 1) / h.gso_size;
    return payload + segments * h.hdr_len;
}

static void deliver(net_switch *w, line *l, const uint8_t *data, size_t len)
{
    ssize_t n = write(w->tun[l->to], data, len);
    if (n < 0) l->n_dropped++;
    else l->n_packets++, l->n_bytes += len - sizeof(struct virtio_net_hdr);
}

static void pop_first(net_switch *w, line *l)
{
    packet *p = l->first;
    if (l->waiting == p) {
        l->waiting = p->next;
        l->waiting_bytes -= p->len;
    }
    l->first = p->next;
    if (!l->first) l->last = l->waiting = NULL;
    w->held_bytes -= p->len;
    free(p);
}

static void empty_line(net_switch *w, line *l)
{
    if (l->heap_at >= 0) heap_remove(w, l);
    while (l->first) {
        pop_first(w, l);
        l->n_dropped++;
    }
    l->tx_free_ns = 0;
}

static uint64_t queue_limit(const dil__lab_link *s)
{
    if (s->queue_bytes) return s->queue_bytes;
    double q = s->rate_bytes_per_sec * 0.05;
    return q < 262144 ? 262144 : q > DIL_LAB_QUEUE_MAX ? DIL_LAB_QUEUE_MAX : (uint64_t)q;
}

static void send_on(net_switch *w, line *l, const uint8_t *data, size_t len, int64_t now)
{
    const dil__lab_link *s = &l->set;
    if (s->down || (s->loss > 0 && dil_rng_unit(&w->rng) < s->loss)) {
        l->n_lost++;
        return;
    }
    if (s->rate_bytes_per_sec <= 0 && s->delay_sec <= 0 && !l->first) {
        deliver(w, l, data, len);
        return;
    }
    while (l->waiting && l->waiting->left_ns <= now) {
        l->waiting_bytes -= l->waiting->len;
        l->waiting = l->waiting->next;
    }
    /* A queue takes at least one packet, however large. */
    if ((l->waiting && l->waiting_bytes + len > queue_limit(s)) || w->held_bytes + len > DIL_LAB_HELD_MAX) {
        l->n_dropped++;
        return;
    }
    packet *p = malloc(sizeof *p + len);
    if (!p) {
        l->n_dropped++;
        return;
    }
    int64_t start = l->tx_free_ns > now ? l->tx_free_ns : now;
    double tx = s->rate_bytes_per_sec > 0 ? (double)line_bytes(data, len) / s->rate_bytes_per_sec * 1e9 : 0;
    p->left_ns = l->tx_free_ns = start + (int64_t)tx;
    p->arrive_ns = p->left_ns + (int64_t)(s->delay_sec * 1e9);
    if (l->first && p->arrive_ns < l->last_arrive_ns) p->arrive_ns = l->last_arrive_ns;
    l->last_arrive_ns = p->arrive_ns;
    p->len = (uint32_t)len;
    p->next = NULL;
    memcpy(p->data, data, len);
    w->held_bytes += len;
    l->waiting_bytes += len;
    if (!l->waiting) l->waiting = p;
    if (l->last) l->last->next = p;
    l->last = p;
    if (!l->first) {
        l->first = p;
        heap_put(w, w->n_heap++, l);
        sift_up(w, (size_t)l->heap_at);
    }
}

static void route(net_switch *w, uint32_t from, const uint8_t *data, size_t len, int64_t now)
{
    size_t ip = sizeof(struct virtio_net_hdr);
    if (len < ip + 20 || data[ip] >> 4 != 4) return; /* IPv4 alone */
    const uint8_t *dst = data + ip + 16;
    bool everyone = dst[0] >= 224 || (dst[2] == 255 && dst[3] == 255);
    if (everyone) {
        for (uint32_t to = 0; to < w->n; to++) {
            if (to != from) send_on(w, &w->lines[from * w->n + to], data, len, now);
        }
        return;
    }
    if (dst[0] != 10 || dst[1] != 77 || dst[3] == 0) return;
    uint32_t to = (uint32_t)dst[2] * 250 + dst[3] - 1;
    if (to < w->n && to != from) send_on(w, &w->lines[from * w->n + to], data, len, now);
}

static void read_tun(net_switch *w, uint32_t node)
{
    for (int i = 0; i < READS_A_TURN; i++) {
        ssize_t n = read(w->tun[node], w->scratch, sizeof w->scratch);
        if (n <= 0) return;
        route(w, node, w->scratch, (size_t)n, dil_now_ns());
    }
}

static void deliver_due(net_switch *w)
{
    int64_t now = dil_now_ns();
    while (w->n_heap > 0 && w->heap[0]->first->arrive_ns <= now) {
        line *l = w->heap[0];
        deliver(w, l, l->first->data, l->first->len);
        pop_first(w, l);
        if (l->first) sift_down(w, 0);
        else heap_remove(w, l);
    }
}

static void arm(net_switch *w)
{
    int64_t at = w->n_heap ? w->heap[0]->first->arrive_ns : 0;
    if (at == w->armed_ns) return;
    struct itimerspec t = {.it_value = {.tv_sec = at / 1000000000, .tv_nsec = at % 1000000000}};
    timerfd_settime(w->timer, TFD_TIMER_ABSTIME, &t, NULL);
    w->armed_ns = at;
}

/* --- control ------------------------------------------------------------------------------------------------------------- */

static void choose_offload(net_switch *w, uint32_t node)
{
    bool lossy = false;
    for (uint32_t to = 0; to < w->n; to++) lossy |= to != node && w->lines[node * w->n + to].set.loss > 0;
    dil__lab_tun_offload(w->tun[node], !lossy);
}

static dil_status command_set(net_switch *w, char **save, dil_err *err)
{
    const char *from = strtok_r(NULL, " ", save), *to = strtok_r(NULL, " ", save);
    int a = from ? dil__lab_spec_node(w->spec, from) : -1, b = to ? dil__lab_spec_node(w->spec, to) : -1;
    if (a < 0 || b < 0 || a == b)
        return dil_fail(err, DIL_EUSAGE, "set: no link from '%.31s' to '%.31s'", from ? from : "", to ? to : "");
    line *l = &w->lines[(uint32_t)a * w->n + (uint32_t)b];
    dil__lab_link next = l->set;
    for (const char *word; (word = strtok_r(NULL, " ", save));) {
        dil_status s = dil__lab_link_word(&next, word, err);
        if (s != DIL_OK) return s;
    }
    bool cut = next.down && !l->set.down;
    l->set = next;
    if (cut) empty_line(w, l); /* a pulled cable loses what was on it */
    choose_offload(w, (uint32_t)a);
    return DIL_OK;
}

static void command_show(const net_switch *w, dil_buf *out)
{
    struct rusage ru;
    getrusage(RUSAGE_SELF, &ru);
    double cpu = (double)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) + (double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) * 1e-6;
    dil_buf_printf(out, "{\"pid\": %d, \"cpu_sec\": %.6f, \"held_bytes\": %llu, \"nodes\": [", (int)getpid(), cpu, (unsigned long long)w->held_bytes);
    char address[16];
    for (uint32_t i = 0; i < w->n; i++) {
        dil_buf_printf(out, "%s{\"name\": \"%s\", \"address\": \"%s\", \"ns_fd\": %d}", i ? ", " : "", w->spec->name[i],
                       dil__lab_address(i, address), w->ns[i]);
    }
    dil_buf_printf(out, "], \"links\": [");
    bool first = true;
    for (uint32_t i = 0; i < w->n * w->n; i++) {
        if (i / w->n == i % w->n) continue;
        const line *l = &w->lines[i];
        dil_buf_printf(out, "%s\n {\"from\": \"%s\", \"to\": \"%s\", \"delay_ms\": %g, \"rate_mbit\": %g, \"loss\": %g, \"down\": %s, "
                       "\"packets\": %llu, \"bytes\": %llu, \"lost\": %llu, \"dropped\": %llu}", first ? "" : ",",
                       w->spec->name[i / w->n], w->spec->name[i % w->n], l->set.delay_sec * 1e3, l->set.rate_bytes_per_sec * 8e-6,
                       l->set.loss, l->set.down ? "true" : "false", (unsigned long long)l->n_packets,
                       (unsigned long long)l->n_bytes, (unsigned long long)l->n_lost, (unsigned long long)l->n_dropped);
        first = false;
    }
    dil_buf_printf(out, "]}\n");
}

/* One line in, one answer out: "ok ..." or "error CODE text". Returns false on quit. */
static bool run_command(net_switch *w, char *text, dil_buf *out)
{
    dil_err err = {0};
    char *save = NULL;
    const char *verb = strtok_r(text, " ", &save);
    dil_status s = DIL_OK;
    bool go_on = true;
    dil_buf body;
    dil_buf_init(&body, 1u << 20);
    if (verb && strcmp(verb, "set") == 0) s = command_set(w, &save, &err);
    else if (verb && strcmp(verb, "show") == 0) command_show(w, &body);
    else if (verb && strcmp(verb, "quit") == 0) go_on = false;
    else s = dil_fail(&err, DIL_EUSAGE, "unknown command '%.31s'", verb ? verb : "");
    if (s == DIL_OK) dil_buf_printf(out, "ok %s", dil_buf_str(&body));
    else dil_buf_printf(out, "error %d %s", (int)s, err.text);
    dil_buf_fini(&body);
    return go_on;
}

/* The peer is the administrator's own tool (the socket's folder is root's): a short timeout keeps a stuck one from stopping us. */
static bool serve_control(net_switch *w)
{
    int fd = accept(w->control, NULL, NULL);
    if (fd < 0) return true;
    struct timeval limit = {.tv_usec = 50000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    char text[DIL_LAB_COMMAND_MAX];
    ssize_t n = recv(fd, text, sizeof text - 1, 0);
    bool go_on = true;
    if (n > 0) {
        text[n] = 0;
        dil_buf out;
        dil_buf_init(&out, 1u << 20);
        go_on = run_command(w, text, &out);
        if (send(fd, dil_buf_str(&out), out.len, MSG_NOSIGNAL) < 0) go_on = go_on && true;
        dil_buf_fini(&out);
    }
    close(fd);
    return go_on;
}

/* --- loop ----------------------------------------------------------------------------------------------------------------- */

static bool watch(net_switch *w, int fd, uint32_t tag)
{
    struct epoll_event e = {.events = EPOLLIN, .data.u32 = tag};
    return epoll_ctl(w->epoll, EPOLL_CTL_ADD, fd, &e) == 0;
}

enum { TAG_TIMER = DIL_LAB_NODES_MAX, TAG_CONTROL, TAG_QUIT };

static bool handle(net_switch *w, uint32_t tag)
{
    if (tag < w->n) read_tun(w, tag);
    else if (tag == TAG_TIMER) {
        uint64_t fired;
        if (read(w->timer, &fired, sizeof fired) > 0) w->armed_ns = 0;
    } else if (tag == TAG_CONTROL) return serve_control(w);
    else return false;
    return true;
}

static void loop(net_switch *w)
{
    struct epoll_event ev[16];
    for (;;) {
        int n = epoll_wait(w->epoll, ev, 16, -1);
        if (n < 0 && errno != EINTR) return;
        deliver_due(w);
        for (int i = 0; i < n; i++) {
            if (!handle(w, ev[i].data.u32)) return;
        }
        deliver_due(w);
        arm(w);
    }
}

dil_status dil__lab_switch(const dil__lab_spec *spec, const int *tun, const int *ns, int control, int quit_signals, dil_err *err)
{
    net_switch *w = calloc(1, sizeof *w);
    size_t n2 = (size_t)spec->n_nodes * spec->n_nodes;
    line *lines = calloc(n2, sizeof *lines);
    line **heap = calloc(n2, sizeof(line *));
    dil_status s = DIL_OK;
    if (!w || !lines || !heap) {
        s = dil_fail(err, DIL_EMEMORY, "netlab: no memory for %zu links", n2);
        goto done;
    }
    *w = (net_switch){.spec = spec, .n = spec->n_nodes, .tun = tun, .ns = ns, .lines = lines, .heap = heap, .control = control};
    dil_rng_init(&w->rng, spec->seed);
    for (uint32_t i = 0; i < n2; i++) {
        lines[i].set = spec->link[i / w->n][i % w->n];
        lines[i].to = i % w->n;
        lines[i].heap_at = -1;
    }
    w->epoll = epoll_create1(EPOLL_CLOEXEC);
    w->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    bool good = w->epoll >= 0 && w->timer >= 0 && watch(w, w->timer, TAG_TIMER) && watch(w, control, TAG_CONTROL) &&
                watch(w, quit_signals, TAG_QUIT);
    for (uint32_t i = 0; good && i < w->n; i++) {
        good = watch(w, tun[i], i);
        choose_offload(w, i);
    }
    if (good) loop(w);
    else s = dil_fail_errno(err, "netlab: epoll");
    for (size_t i = 0; i < n2; i++) empty_line(w, &lines[i]);
    if (w->epoll >= 0) close(w->epoll);
    if (w->timer >= 0) close(w->timer);
done:
    free(w);
    free(lines);
    free(heap);
    return s;
}
