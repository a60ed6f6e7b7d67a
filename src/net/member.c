#include "net/member.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int64_t ns(double sec)
{
    return (int64_t)(sec * 1e9);
}

dil_status dil__members_init(dil__members *m, const dil_cluster *cluster, const dil_keypair *key, double detect_sec, uint64_t run, uint64_t model,
                             dil_err *err)
{
    *m = (dil__members){.cluster = cluster, .key = key, .detect_sec = detect_sec, .run = run, .model = model};
    m->n = cluster->n_nodes < DIL__MEMBERS_MAX ? cluster->n_nodes : DIL__MEMBERS_MAX;
    dil_buf_init(&m->buf, 4096);
    m->zmq = zmq_ctx_new();
    m->member = calloc(m->n ? m->n : 1, sizeof *m->member);
    if (m->zmq && m->member) return DIL_OK;
    dil__members_fini(m);
    return dil_fail(err, DIL_EMEMORY, "no memory to watch %u nodes", cluster->n_nodes);
}

static void hang_up(dil__member *one)
{
    if (one->sock) zmq_close(one->sock);
    *one = (dil__member){0};
}

void dil__members_fini(dil__members *m)
{
    for (uint32_t i = 0; m->member && i < m->n; i++) hang_up(&m->member[i]);
    free(m->member);
    if (m->zmq) zmq_ctx_term(m->zmq);
    dil_buf_fini(&m->buf);
    *m = (dil__members){0};
}

static void dial(dil__members *m, uint32_t node)
{
    dil__member *one = &m->member[node];
    const dil_cluster_node *n = &m->cluster->nodes[node];
    hang_up(one);
    one->dial_ns = dil_now_ns();
    if (!dil__address_ok(n->address) || (m->key && !dil_key_is_valid(n->public_key))) return;
    if (dil__dial(m->zmq, n->address, n->public_key, m->key, &one->sock, NULL) != DIL_OK) one->sock = NULL;
}

void dil__members_watch(dil__members *m, uint32_t node, bool on)
{
    if (node >= m->n || on == (m->member[node].dial_ns != 0)) return;
    if (on) dial(m, node);
    else hang_up(&m->member[node]);
}

static void hear(dil__member *one, bool *news)
{
    for (;;) {
        zmq_msg_t msg;
        zmq_msg_init(&msg);
        bool got = zmq_msg_recv(&msg, one->sock, ZMQ_DONTWAIT) >= 0;
        bool whole = got && !zmq_msg_more(&msg);
        if (got) dil__drop_parts(one->sock, &msg);
        dil_frame f;
        dil_node_info info;
        if (whole && dil_frame_decode(zmq_msg_data(&msg), zmq_msg_size(&msg), &f, NULL) == DIL_OK && f.type == DIL_FRAME_INFO &&
            dil__msg_get_info(&f, &info, NULL) == DIL_OK) {
            one->heard_ns = dil_now_ns();
            one->memory_free = info.memory_free;
            if (!one->since_ns) *news = true;
            if (!one->since_ns) one->since_ns = one->heard_ns;
        }
        zmq_msg_close(&msg);
        if (!got) return;
    }
}

static void tick(dil__members *m, uint32_t node, int64_t now, bool *news)
{
    dil__member *one = &m->member[node];
    if (one->since_ns && now - one->heard_ns > ns(m->detect_sec)) {
        one->since_ns = 0;
        *news = true;
    }
    /* ZeroMQ gives up on a handshake that failed: a node that is silent is dialled anew now and then. */
    if (!one->since_ns && now - one->dial_ns > ns(m->detect_sec > 1 ? 2 * m->detect_sec : 2)) dial(m, node);
    if (!one->sock || now < one->beat_ns) return;
    one->beat_ns = now + ns(m->detect_sec / 4);
    m->buf.len = 0;
    if (dil__msg_hello(&m->buf, 1, m->run, m->model)) dil__send_buf(one->sock, &m->buf, NULL);
}

bool dil__members_poll(dil__members *m, int fd, long timeout_ms)
{
    zmq_pollitem_t items[DIL__MEMBERS_MAX + 1] = {{.fd = fd, .events = ZMQ_POLLIN}};
    int n = 1;
    for (uint32_t i = 0; i < m->n; i++) {
        if (m->member[i].sock) items[n++] = (zmq_pollitem_t){.socket = m->member[i].sock, .events = ZMQ_POLLIN};
    }
    zmq_poll(items, n, timeout_ms);
    uint64_t count;
    if (items[0].revents && read(fd, &count, sizeof count) < 0) items[0].revents = 0;
    bool news = false;
    int64_t now = dil_now_ns();
    for (uint32_t i = 0; i < m->n; i++) {
        bool watched = m->member[i].sock || m->member[i].dial_ns;
        if (m->member[i].sock) hear(&m->member[i], &news);
        if (watched) tick(m, i, now, &news);
    }
    return news;
}
