/* Link measurements from this node to a peer.
 *
 * Latency: the median of small echoes, with a pause before each: a frame of a ring finds both ends asleep too, and waking them is
 * part of its way (echoes without pauses were a quarter shorter than the hops of a running ring). Bandwidth: batches of growing size go out at once and only the last frame of a batch is
 * answered; the time beyond the round trip is the bytes' own. Batches grow until one takes a tenth of the time allowed, so a
 * slow link is not filled for minutes and a fast one is filled beyond TCP's slow start; the median of the batches at the final
 * size counts. */
#include "net/measure.h"

#include <errno.h>
#include <stdlib.h>

#define PAUSE_NS INT64_C(5000000)

enum { ECHOES = 25, ECHOES_MIN = 5, FRAME = 256 << 10, BATCHES = 5, BATCH_MAX = 256 };

typedef struct prober {
    void *sock;
    dil__watch watch;
    const dil__peer *peer;
    const dil_keypair *me;
    dil_buf buf;
    uint64_t next_id;
    double limit_sec;
    int64_t start_ns;
} prober;

static double left_sec(const prober *p)
{
    return p->limit_sec - (double)(dil_now_ns() - p->start_ns) * 1e-9;
}

static dil_status send_echo(prober *p, uint32_t reply, uint32_t payload, dil_err *err)
{
    p->buf.len = 0;
    if (!dil__msg_echo(&p->buf, ++p->next_id, reply, payload)) return dil_fail(err, DIL_EMEMORY, "no memory for an echo of %u bytes", payload);
    int ms = (int)(left_sec(p) * 1000);
    zmq_setsockopt(p->sock, ZMQ_SNDTIMEO, &(int){ms > 1 ? ms : 1}, sizeof(int));
    if (zmq_send(p->sock, p->buf.data, p->buf.len, 0) >= 0) return DIL_OK;
    dil__watch_poll(&p->watch);
    return dil__watch_fail(&p->watch, p->peer->address, p->me, p->limit_sec, err);
}

static dil_status wait_reply(prober *p, uint64_t id, dil_err *err)
{
    for (;;) {
        dil__watch_poll(&p->watch);
        double left = left_sec(p);
        if (left <= 0 || p->watch.refused == 1) return dil__watch_fail(&p->watch, p->peer->address, p->me, p->limit_sec, err);
        zmq_pollitem_t item = {.socket = p->sock, .events = ZMQ_POLLIN};
        if (zmq_poll(&item, 1, left < 0.05 ? 1 + (long)(left * 1000) : 50) <= 0) continue;
        zmq_msg_t m;
        zmq_msg_init(&m);
        dil_frame f;
        bool got = zmq_msg_recv(&m, p->sock, ZMQ_DONTWAIT) >= 0 && dil_frame_decode(zmq_msg_data(&m), zmq_msg_size(&m), &f, NULL) == DIL_OK;
        bool mine = got && f.type == DIL_FRAME_ECHO_REPLY && f.id == id;
        zmq_msg_close(&m);
        if (mine) return DIL_OK;
    }
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static dil_status measure_rtt(prober *p, dil_node_link *out, dil_err *err)
{
    double t[ECHOES];
    uint32_t n = 0;
    dil_status s = send_echo(p, 0, 0, err); /* the first pays for the connection */
    if (s == DIL_OK) s = wait_reply(p, p->next_id, err);
    while (s == DIL_OK && n < ECHOES && (n < ECHOES_MIN || left_sec(p) > p->limit_sec * 0.6)) {
        dil_sleep_ns(PAUSE_NS);
        int64_t t0 = dil_now_ns();
        s = send_echo(p, 0, 0, err);
        if (s == DIL_OK) s = wait_reply(p, p->next_id, err);
        t[n++] = (double)(dil_now_ns() - t0) * 1e-9;
    }
    if (s != DIL_OK) return s;
    qsort(t, n, sizeof *t, by_value);
    out->rtt_sec = t[n / 2];
    out->rtt_spread = (t[3 * n / 4] - t[n / 4]) / t[n / 2];
    out->n_echoes = n;
    return DIL_OK;
}

/* Seconds of n frames of a size, the answer to the last included. */
static dil_status time_batch(prober *p, uint32_t n, uint32_t bytes, double *sec, dil_err *err)
{
    int64_t t0 = dil_now_ns();
    dil_status s = DIL_OK;
    for (uint32_t i = 0; i < n && s == DIL_OK; i++) s = send_echo(p, i + 1 == n ? 0 : UINT32_MAX, bytes, err);
    if (s == DIL_OK) s = wait_reply(p, p->next_id, err);
    *sec = (double)(dil_now_ns() - t0) * 1e-9;
    return s;
}

static double speed(double bytes, double sec, double rtt_sec)
{
    double own = sec - rtt_sec;
    if (own < sec * 0.05) own = sec * 0.05; /* faster than can be told apart from the round trip */
    return bytes / own;
}

static dil_status measure_speed(prober *p, dil_node_link *out, dil_err *err)
{
    uint32_t bytes = 16 << 10, n = 1;
    double sec, got[BATCHES];
    dil_status s = time_batch(p, n, bytes, &sec, err);
    while (s == DIL_OK && sec < p->limit_sec * 0.08 && n < BATCH_MAX && left_sec(p) > p->limit_sec * 0.5) {
        if (bytes < FRAME) bytes *= 4;
        else n *= 2;
        s = time_batch(p, n, bytes, &sec, err);
    }
    uint32_t k = 0;
    if (s == DIL_OK) got[k++] = speed((double)n * bytes, sec, out->rtt_sec);
    while (s == DIL_OK && k < BATCHES && left_sec(p) > 2 * sec) {
        s = time_batch(p, n, bytes, &sec, err);
        got[k++] = speed((double)n * bytes, sec, out->rtt_sec);
    }
    if (s != DIL_OK) return s;
    qsort(got, k, sizeof *got, by_value);
    out->bytes_per_sec = got[k / 2];
    return DIL_OK;
}

dil_status dil__measure_link(void *zmq, const dil__peer *peer, const dil_keypair *me, double limit_sec, dil_node_link *out, dil_err *err)
{
    prober p = {.peer = peer, .me = me, .limit_sec = limit_sec, .start_ns = dil_now_ns()};
    dil_status s = dil__dial(zmq, peer->address, peer->key, me, &p.sock, err);
    if (s != DIL_OK) return s;
    dil_buf_init(&p.buf, DIL_FRAME_MAX);
    dil_node_link got = {0};
    s = dil__watch_open(&p.watch, zmq, p.sock, err);
    if (s == DIL_OK) s = measure_rtt(&p, &got, err);
    if (s == DIL_OK) s = measure_speed(&p, &got, err);
    if (s == DIL_OK) *out = got;
    dil__watch_close(&p.watch, p.sock);
    dil_buf_fini(&p.buf);
    zmq_close(p.sock);
    return s;
}
