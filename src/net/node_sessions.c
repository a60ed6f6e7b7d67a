/* Who holds what on this node, and how it is answered. A session leaves the table at once; the worker frees it behind the works that still
 * use it. */
#include "net/node_int.h"

#include <string.h>
#include <unistd.h>

#define LEASE_NS INT64_C(30000000000) /* a coordinator that is silent for so long has lost its session */

/* --- sending ---------------------------------------------------------------------------------------------------------------- */

void dil__node_poke(dil_node *n)
{
    uint64_t one = 1;
    if (write(n->poke_fd, &one, sizeof one) < 0) return; /* full: it is awake anyway */
}

static bool send_to(dil_node *n, const dil__id *to, const dil_buf *frame)
{
    if (!to->len) return false;
    pthread_mutex_lock(&n->router_lock);
    bool ok = zmq_send(n->router, to->bytes, to->len, ZMQ_SNDMORE | ZMQ_DONTWAIT) >= 0 && zmq_send(n->router, frame->data, frame->len, ZMQ_DONTWAIT) >= 0;
    int events = 0;
    size_t size = sizeof events;
    zmq_getsockopt(n->router, ZMQ_EVENTS, &events, &size);
    pthread_mutex_unlock(&n->router_lock);
    if (events & ZMQ_POLLIN) dil__node_poke(n);
    return ok;
}

void dil__node_send(void *node, const dil__id *to, const dil_buf *frame)
{
    if (to->len && !send_to(node, to, frame)) dil_log(DIL_LOG_DEBUG, "node", "an answer found nobody: the peer is gone");
}

void dil__node_send_error(dil_node *n, dil_buf *b, const dil__id *to, const dil_frame *f, const dil_err *e)
{
    b->len = 0;
    if (dil__msg_error(b, DIL_FRAME_ERROR, f->session, f->id, 0, e)) dil__node_send(n, to, b);
}

void dil__node_send_empty(dil_node *n, dil_buf *b, const dil__id *to, const dil_frame *f, dil_frame_type type)
{
    b->len = 0;
    if (dil__msg_empty(b, type, f->session, f->id, 0)) dil__node_send(n, to, b);
}

bool dil__node_push_status(dil_node *n, dil__net_session *s)
{
    dil__node_status m = {.memory_free = dil__node_free_for(n, s)};
    dil__net_session_status(s, &m);
    dil_buf b;
    dil_buf_init(&b, 4096);
    dil__id to;
    pthread_mutex_lock(&s->lock);
    to = s->control;
    pthread_mutex_unlock(&s->lock);
    bool ok = dil__msg_status(&b, s->id, 0, &m) && send_to(n, &to, &b);
    dil_buf_fini(&b);
    return ok;
}

/* --- sessions --------------------------------------------------------------------------------------------------------------- */

dil__net_session *dil__node_session(dil_node *n, uint64_t id)
{
    dil__net_session *s = NULL;
    pthread_mutex_lock(&n->lock);
    for (uint32_t i = 0; i < n->n_sessions; i++) {
        if (n->session[i]->id == id) s = n->session[i];
    }
    if (s) s->n_refs++;
    pthread_mutex_unlock(&n->lock);
    return s;
}

dil_status dil__node_own_session(dil_node *n, uint64_t id, const char *key, dil__net_session **out, dil_err *err)
{
    dil__net_session *s = dil__node_session(n, id);
    if (!s) return dil_fail(err, DIL_ENOTFOUND, "no such session");
    if (strcmp(s->owner, key) != 0) {
        dil__node_put(n, s);
        return dil_fail(err, DIL_EAUTH, "the session belongs to another coordinator");
    }
    *out = s;
    return DIL_OK;
}

void dil__node_put(dil_node *n, dil__net_session *s)
{
    pthread_mutex_lock(&n->lock);
    bool last = --s->n_refs == 0;
    pthread_mutex_unlock(&n->lock);
    if (last) dil__net_session_free(s);
}

void dil__node_remove(dil_node *n, dil__net_session *s, const char *why)
{
    bool found = false;
    pthread_mutex_lock(&n->lock);
    for (uint32_t i = 0; i < n->n_sessions; i++) {
        if (n->session[i] != s) continue;
        n->session[i] = n->session[--n->n_sessions];
        found = true;
        break;
    }
    pthread_mutex_unlock(&n->lock);
    if (!found) return;
    if (n->gate) dil__gate_expel(n->gate, s->owner_tag);
    char bytes[32];
    dil_log(DIL_LOG_INFO, "node", "session %016llx ended (%s), %s are free again", (unsigned long long)s->id, why, dil_format_bytes(s->bytes, bytes));
    dil__item it = {.kind = DIL__ITEM_END, .ptr = s}; /* the worker frees it, behind the works that still use it */
    zmq_msg_init(&it.msg);
    if (!dil__queue_push(&n->works, &it)) dil__node_put(n, s);
}

uint64_t dil__node_bytes_in_use(dil_node *n)
{
    uint64_t sum = 0;
    pthread_mutex_lock(&n->lock);
    for (uint32_t i = 0; i < n->n_sessions; i++) sum += n->session[i]->bytes;
    pthread_mutex_unlock(&n->lock);
    return sum;
}

/* A coordinator that was started anew (another run) has lost what it had; within a run each model has its own session. */
static bool gives_way(const dil__net_session *s, const char *owner, uint64_t run, uint64_t model)
{
    return strcmp(s->owner, owner) == 0 && (s->load.run != run || s->load.model == model);
}

uint64_t dil__node_bytes_kept(dil_node *n, const char *owner, uint64_t run, uint64_t model)
{
    uint64_t sum = 0;
    pthread_mutex_lock(&n->lock);
    for (uint32_t i = 0; i < n->n_sessions; i++) sum += gives_way(n->session[i], owner, run, model) ? 0 : n->session[i]->bytes;
    pthread_mutex_unlock(&n->lock);
    return sum;
}

uint64_t dil__node_free_for(dil_node *n, const dil__net_session *s)
{
    uint64_t kept = dil__node_bytes_kept(n, s->owner, s->load.run, s->load.model);
    return kept < n->memory_bytes ? n->memory_bytes - kept : 0;
}

void dil__node_end_replaced(dil_node *n, const char *owner, uint64_t run, uint64_t model, const char *why)
{
    for (;;) {
        dil__net_session *found = NULL;
        pthread_mutex_lock(&n->lock);
        for (uint32_t i = 0; i < n->n_sessions && !found; i++) {
            if (gives_way(n->session[i], owner, run, model)) found = n->session[i];
        }
        pthread_mutex_unlock(&n->lock);
        if (!found) return;
        dil__node_remove(n, found, why);
    }
}

/* Of another run with that key, past `after` in the table's order; got. NULL: none. */
static dil__net_session *other_run(dil_node *n, const char *owner, uint64_t run, uint32_t *after)
{
    dil__net_session *s = NULL;
    pthread_mutex_lock(&n->lock);
    for (; *after < n->n_sessions && !s; ++*after) {
        dil__net_session *one = n->session[*after];
        if (strcmp(one->owner, owner) == 0 && one->load.run != run) s = one;
    }
    if (s) s->n_refs++;
    pthread_mutex_unlock(&n->lock);
    return s;
}

bool dil__node_rival(dil_node *n, const char *owner, uint64_t run, char from[DIL__ADDRESS_MAX])
{
    bool alive = false;
    uint32_t at = 0;
    for (dil__net_session *s; !alive && (s = other_run(n, owner, run, &at));) {
        alive = dil__node_push_status(n, s);
        if (alive) snprintf(from, DIL__ADDRESS_MAX, "%s", s->from);
        dil__node_put(n, s);
    }
    return alive;
}

void dil__node_end_silent(dil_node *n)
{
    int64_t now = dil_now_ns();
    if (now < n->next_sweep_ns) return;
    n->next_sweep_ns = now + LEASE_NS / 10;
    dil__net_session *found = NULL;
    pthread_mutex_lock(&n->lock);
    for (uint32_t i = 0; i < n->n_sessions; i++) {
        if (now - n->session[i]->seen_ns > LEASE_NS) found = n->session[i];
    }
    pthread_mutex_unlock(&n->lock);
    if (found) dil__node_remove(n, found, "no word from its coordinator for 30 s");
}

void dil__node_touch(dil_node *n, dil__net_session *s)
{
    pthread_mutex_lock(&n->lock);
    s->seen_ns = dil_now_ns();
    pthread_mutex_unlock(&n->lock);
}

static void push_open(dil_node *n, dil__net_session *s)
{
    pthread_mutex_lock(&s->lock);
    bool queued = s->open_queued;
    s->open_queued = true;
    pthread_mutex_unlock(&s->lock);
    if (queued) return;
    dil__net_session_set_state(s, DIL__SESSION_OPENS, NULL);
    pthread_mutex_lock(&n->lock);
    s->n_refs++;
    pthread_mutex_unlock(&n->lock);
    dil__item it = {.kind = DIL__ITEM_OPEN, .ptr = s};
    zmq_msg_init(&it.msg);
    if (!dil__queue_push(&n->works, &it)) dil__node_put(n, s);
}

void dil__node_complete(dil_node *n, dil__net_session *s)
{
    if (s->load.fetch_only) dil__net_session_set_state(s, DIL__SESSION_READY, NULL);
    else push_open(n, s);
}
