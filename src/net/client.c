/* Asking a node: one connection, one question at a time, a watch on the handshake so that a wrong key is told from a silent
 * machine. */
#include "net/message.h"
#include "net/sock.h"

#include <stdlib.h>

struct dil_node_conn {
    void *zmq, *sock;
    dil__watch watch;
    char address[DIL__ADDRESS_MAX];
    dil_keypair me;
    bool secure;
    double timeout_sec;
    uint64_t next_id;
    dil_buf buf;
    zmq_msg_t answer; /* of the last question */
};

/* Waits for the answer to the question `id`; *f borrows from c->answer. */
static dil_status wait_answer(dil_node_conn *c, uint64_t id, double timeout_sec, dil_frame *f, dil_err *err)
{
    int64_t end = dil_now_ns() + (int64_t)(timeout_sec * 1e9);
    for (;;) {
        dil__watch_poll(&c->watch);
        int64_t left = end - dil_now_ns();
        if (left <= 0 || c->watch.refused == 1) return dil__watch_fail(&c->watch, c->address, c->secure ? &c->me : NULL, timeout_sec, err);
        zmq_pollitem_t item = {.socket = c->sock, .events = ZMQ_POLLIN};
        if (zmq_poll(&item, 1, left < 50000000 ? (long)(left / 1000000 + 1) : 50) <= 0) continue;
        if (zmq_msg_recv(&c->answer, c->sock, ZMQ_DONTWAIT) < 0) continue;
        bool more = zmq_msg_more(&c->answer) != 0;
        dil__drop_parts(c->sock, &c->answer);
        if (more) continue;
        dil_status s = dil_frame_decode(zmq_msg_data(&c->answer), zmq_msg_size(&c->answer), f, err);
        if (s != DIL_OK) return s;
        if (f->id == id || (f->type == DIL_FRAME_ERROR && f->id == 0)) return DIL_OK;
    }
}

static dil_status ask(dil_node_conn *c, dil_frame_type want, double timeout_sec, dil_frame *f, dil_err *err)
{
    dil_status s = dil__send_buf(c->sock, &c->buf, err);
    if (s == DIL_OK) s = wait_answer(c, c->next_id, timeout_sec, f, err);
    if (s != DIL_OK) return s;
    if (f->type == want) return DIL_OK;
    dil_err theirs;
    if (f->type == DIL_FRAME_ERROR && dil__msg_get_error(f, &theirs) == DIL_OK) return dil_fail(err, theirs.code, "%s: %s", c->address, theirs.text);
    return dil_fail(err, DIL_EFORMAT, "%s answered %s instead of %s", c->address, dil_frame_type_name(f->type), dil_frame_type_name(want));
}

static uint64_t start(dil_node_conn *c)
{
    c->buf.len = 0;
    c->buf.failed = false;
    return ++c->next_id;
}

static dil_status open_conn(dil_node_conn *c, const char *server_key, const dil_keypair *me, dil_err *err)
{
    c->zmq = zmq_ctx_new();
    if (!c->zmq) return dil_fail(err, DIL_EMEMORY, "no network context");
    dil_status s = dil__dial(c->zmq, c->address, server_key, me, &c->sock, err);
    return s == DIL_OK ? dil__watch_open(&c->watch, c->zmq, c->sock, err) : s;
}

dil_status dil_node_connect(const char *address, const char *server_key, const dil_keypair *me, double timeout_sec, dil_node_conn **out, dil_err *err)
{
    dil_node_conn *c = calloc(1, sizeof *c);
    if (!c) return dil_fail(err, DIL_EMEMORY, "no memory for a connection");
    snprintf(c->address, sizeof c->address, "%s", address);
    c->secure = me != NULL;
    if (me) c->me = *me;
    c->timeout_sec = timeout_sec;
    dil_buf_init(&c->buf, DIL_FRAME_MAX);
    zmq_msg_init(&c->answer);
    dil_status s = open_conn(c, server_key, me, err);
    dil_node_info info;
    if (s == DIL_OK) s = dil_node_get_info(c, &info, err); /* proves keys and version */
    if (s == DIL_OK) *out = c;
    else dil_node_disconnect(c);
    return s;
}

void dil_node_disconnect(dil_node_conn *c)
{
    if (!c) return;
    dil__watch_close(&c->watch, c->sock);
    if (c->sock) zmq_close(c->sock);
    zmq_msg_close(&c->answer);
    if (c->zmq) zmq_ctx_term(c->zmq);
    dil_buf_fini(&c->buf);
    free(c);
}

dil_status dil_node_get_info(dil_node_conn *c, dil_node_info *out, dil_err *err)
{
    dil_frame f;
    dil__msg_empty(&c->buf, DIL_FRAME_HELLO, 0, start(c), 0);
    dil_status s = ask(c, DIL_FRAME_INFO, c->timeout_sec, &f, err);
    return s == DIL_OK ? dil__msg_get_info(&f, out, err) : s;
}

dil_status dil_node_time_layer(dil_node_conn *c, const dil_arch *arch, uint32_t layer, const dil_type *types, uint32_t n_types, uint32_t n_past,
                               uint32_t n_batch, double limit_sec, dil_layer_time *out, dil_err *err)
{
    if (n_types > DIL_LAYER_TENSORS_MAX) return dil_fail(err, DIL_EUSAGE, "%u types for one layer, at most %d", n_types, DIL_LAYER_TENSORS_MAX);
    dil__time_layer m = {.arch = *arch, .layer = layer, .n_types = n_types, .n_past = n_past, .n_batch = n_batch, .limit_sec = limit_sec};
    for (uint32_t i = 0; i < n_types; i++) m.types[i] = types[i];
    dil_frame f;
    dil__msg_time_layer(&c->buf, start(c), &m);
    dil_status s = ask(c, DIL_FRAME_TIMES, c->timeout_sec + 60 + 10 * limit_sec, &f, err); /* it may stand behind others' measurements */
    return s == DIL_OK ? dil__msg_get_times(&f, out, err) : s;
}

dil_status dil_node_admit(dil_node_conn *c, const char *const *keys, uint32_t n_keys, uint32_t seconds, dil_err *err)
{
    if (n_keys > DIL__ADMIT_MAX) return dil_fail(err, DIL_ELIMIT, "%u keys, at most %d at once", n_keys, DIL__ADMIT_MAX);
    char (*copy)[DIL_KEY_CHARS + 1] = calloc(n_keys + 1, sizeof *copy);
    if (!copy) return dil_fail(err, DIL_EMEMORY, "no memory for %u keys", n_keys);
    for (uint32_t i = 0; i < n_keys; i++) snprintf(copy[i], sizeof copy[i], "%s", keys[i]);
    dil__msg_admit(&c->buf, start(c), seconds, (const char (*)[DIL_KEY_CHARS + 1])copy, n_keys);
    free(copy);
    dil_frame f;
    return ask(c, DIL_FRAME_OK, c->timeout_sec, &f, err);
}

dil_status dil_node_probe_link(dil_node_conn *c, const char *peer_address, const char *peer_key, double limit_sec, dil_node_link *out, dil_err *err)
{
    dil__peer p = {0};
    snprintf(p.address, sizeof p.address, "%s", peer_address);
    snprintf(p.key, sizeof p.key, "%s", peer_key ? peer_key : "");
    dil_frame f;
    dil__msg_probe_link(&c->buf, start(c), &p, limit_sec);
    dil_status s = ask(c, DIL_FRAME_LINK, c->timeout_sec + limit_sec * 2, &f, err);
    return s == DIL_OK ? dil__msg_get_link(&f, out, err) : s;
}
