/* The node's two slow threads: jobs (disk, measurements, loading) and works (opening stages, computing). */
#include "net/measure.h"
#include "net/node_int.h"

#include <string.h>

/* --- the job thread --------------------------------------------------------------------------------------------------------- */

static dil_status accept_session(dil_node *n, dil__net_session *s, char detail[160], dil_err *err)
{
    dil_status st = dil__net_session_measure(s, detail, err);
    if (st != DIL_OK) return st;
    uint64_t used = dil__node_bytes_in_use(n);
    char need[32], offer[32], in_use[32];
    if (s->load.fetch_only) used = 0;
    if (s->bytes > n->memory_bytes || used > n->memory_bytes - s->bytes)
        return dil_fail(err, DIL_ELIMIT, "too little memory: the stages need %s (%s), this node offers %s and %s of it are in use", dil_format_bytes(s->bytes, need),
                        detail, dil_format_bytes(n->memory_bytes, offer), dil_format_bytes(used, in_use));
    if (s->load.fetch_only) s->bytes = 0;
    pthread_mutex_lock(&n->lock);
    bool room = n->n_sessions < DIL__SESSIONS_MAX;
    if (room) {
        s->owner_tag = ++n->next_tag;
        s->seen_ns = dil_now_ns();
        s->n_refs++;
        n->session[n->n_sessions++] = s;
    }
    pthread_mutex_unlock(&n->lock);
    if (!room) return dil_fail(err, DIL_EBUSY, "this node holds %d sessions already", DIL__SESSIONS_MAX);
    for (uint32_t i = 0; n->gate && i < s->load.n_parts; i++) dil__gate_admit(n->gate, s->load.parts[i].prev_key, s->owner_tag, INT64_MAX);
    return DIL_OK;
}

static void answer_need(dil_node *n, dil__net_session *s, const dil__item *it, const dil_frame *f)
{
    n->job_reply.len = 0;
    pthread_mutex_lock(&s->lock);
    s->control = it->from;
    bool ok = dil__msg_need(&n->job_reply, f->session, f->id, s->missing, s->load.n_chunks);
    uint32_t left = s->n_missing;
    pthread_mutex_unlock(&s->lock);
    if (ok) dil__node_send(n, &it->from, &n->job_reply);
    if (left == 0) dil__node_complete(n, s);
}

static void log_load(dil__net_session *s, const char *detail)
{
    const dil__load *m = &s->load;
    char where[128] = "";
    size_t at = 0;
    for (uint32_t i = 0; i < m->n_parts && at < sizeof where; i++)
        at += (size_t)snprintf(where + at, sizeof where - at, "%s%u-%u", i ? ", " : "", m->parts[i].first_layer, m->parts[i].last_layer);
    dil_log(DIL_LOG_INFO, "node", "session %016llx: layers %s of %s; %s; %u of %u chunks are in the cache", (unsigned long long)s->id, where,
            m->arch.name, detail, m->n_chunks - s->n_missing, m->n_chunks);
}

static dil_status do_load(dil_node *n, const dil__item *it, const dil_frame *f, dil_err *err)
{
    dil__net_session *old = dil__node_session(n, f->session);
    if (old) {
        dil_hash h = dil_hash_of(f->body, f->body_bytes);
        dil__node_status now = {0};
        dil__net_session_status(old, &now);
        bool same = memcmp(&h, &old->load_hash, sizeof h) == 0 && strcmp(old->owner, it->key) == 0 && now.state != DIL__SESSION_FAILED;
        if (same) answer_need(n, old, it, f); /* the coordinator lost the connection, not us the session */
        else dil__node_remove(n, old, "loaded anew");
        dil__node_put(n, old);
        if (same) return DIL_OK;
    }
    dil__net_session *s;
    dil_status st = dil__net_session_new(&n->env, f, it->key, &it->from, &s, err);
    if (st != DIL_OK) return st;
    char detail[160] = "", other[DIL__ADDRESS_MAX];
    const char *from = zmq_msg_gets(&it->msg, "Peer-Address");
    snprintf(s->from, sizeof s->from, "%s", from ? from : "somewhere");
    if (s->load.replace && dil__node_rival(n, it->key, s->load.run, other))
        st = dil_fail(err, DIL_EBUSY, "another coordinator with the same key runs on this node, from %s: end it first, or give one of the two a key of its own", other);
    if (st == DIL_OK && s->load.replace) dil__node_end_replaced(n, it->key, s->load.run, s->load.model, "replaced by its coordinator");
    if (st == DIL_OK) st = accept_session(n, s, detail, err);
    if (st == DIL_OK) {
        dil__net_session_look_up(s);
        log_load(s, detail);
        answer_need(n, s, it, f);
    }
    dil__node_put(n, s);
    return st;
}

static dil_status do_chunk(dil_node *n, const dil__item *it, const dil_frame *f, dil_err *err)
{
    uint32_t index, left = 0;
    const void *data;
    size_t len;
    dil_status st = dil__msg_get_chunk(f, &index, &data, &len, err);
    dil__net_session *s = NULL;
    if (st == DIL_OK) st = dil__node_own_session(n, f->session, it->key, &s, err);
    if (st == DIL_OK) st = dil__net_session_chunk(s, index, data, len, &left, err);
    if (st == DIL_OK) {
        dil__node_touch(n, s);
        dil__node_send_empty(n, &n->job_reply, &it->from, f, DIL_FRAME_OK);
        if (left == 0) dil__node_complete(n, s);
    }
    if (s) dil__node_put(n, s);
    return st;
}

static dil_status do_time_layer(dil_node *n, const dil__item *it, const dil_frame *f, dil_err *err)
{
    dil__time_layer m;
    dil_layer_time t;
    dil_status st = dil__msg_get_time_layer(f, &m, err);
    dil_layer_tensor tensors[DIL_LAYER_TENSORS_MAX];
    if (st == DIL_OK && dil_arch_layer_tensors(&m.arch, m.layer, tensors) != m.n_types)
        st = dil_fail(err, DIL_EFORMAT, "TIME_LAYER: %u types for another number of tensors", m.n_types);
    if (st == DIL_OK)
        st = n->env.engine->time_layer(&m.arch, m.layer, m.types, n->device, n->env.n_threads, m.n_past, m.n_batch, m.limit_sec < 60 ? m.limit_sec : 60, &t, err);
    if (st != DIL_OK) return st;
    t.decode_sec *= n->env.throttle;
    t.prefill_sec *= n->env.throttle;
    n->job_reply.len = 0;
    if (dil__msg_times(&n->job_reply, f->id, &t)) dil__node_send(n, &it->from, &n->job_reply);
    return DIL_OK;
}

static dil_status do_probe(dil_node *n, const dil__item *it, const dil_frame *f, dil_err *err)
{
    dil__peer peer;
    double limit;
    dil_node_link got;
    dil_status st = dil__msg_get_probe_link(f, &peer, &limit, err);
    if (st == DIL_OK) st = dil__measure_link(n->zmq, &peer, n->env.key, limit < 60 ? limit : 60, &got, err);
    if (st != DIL_OK) return st;
    n->job_reply.len = 0;
    if (dil__msg_link(&n->job_reply, f->id, &got)) dil__node_send(n, &it->from, &n->job_reply);
    return DIL_OK;
}

static void do_job(dil_node *n, dil__item *it)
{
    dil_frame f;
    dil_err err;
    dil_status st = dil_frame_decode(zmq_msg_data(&it->msg), zmq_msg_size(&it->msg), &f, &err);
    if (st != DIL_OK) return;
    switch (f.type) {
    case DIL_FRAME_LOAD: st = do_load(n, it, &f, &err); break;
    case DIL_FRAME_CHUNK: st = do_chunk(n, it, &f, &err); break;
    case DIL_FRAME_TIME_LAYER: st = do_time_layer(n, it, &f, &err); break;
    case DIL_FRAME_PROBE_LINK: st = do_probe(n, it, &f, &err); break;
    default: return;
    }
    if (st == DIL_OK) return;
    dil_log(DIL_LOG_WARN, "node", "%s refused: %s", dil_frame_type_name(f.type), err.text);
    dil__node_send_error(n, &n->job_reply, &it->from, &f, &err);
}

void *dil__node_run_jobs(void *arg)
{
    dil_node *n = arg;
    dil__item it;
    while (dil__queue_pop(&n->jobs, &it)) {
        do_job(n, &it);
        zmq_msg_close(&it.msg);
    }
    return NULL;
}

/* --- the worker ------------------------------------------------------------------------------------------------------------- */

static void do_open(dil_node *n, dil__net_session *s)
{
    dil_err err;
    int64_t t0 = dil_now_ns();
    dil_status st = dil__net_session_open(s, &err);
    dil__net_session_set_state(s, st == DIL_OK ? DIL__SESSION_READY : DIL__SESSION_FAILED, st == DIL_OK ? NULL : &err);
    if (st == DIL_OK) dil_log(DIL_LOG_INFO, "node", "session %016llx is ready after %.2f s", (unsigned long long)s->id, (double)(dil_now_ns() - t0) * 1e-9);
    else dil_log(DIL_LOG_ERROR, "node", "session %016llx cannot be opened: %s", (unsigned long long)s->id, err.text);
    dil__node_push_status(n, s);
    dil__store_evict(n->env.store, dil_wall_ms() - 60000);
}

void *dil__node_run_works(void *arg)
{
    dil_node *n = arg;
    dil__item it;
    while (dil__queue_pop(&n->works, &it)) {
        dil__net_session *s = it.ptr;
        if (it.kind == DIL__ITEM_OPEN) do_open(n, s);
        if (it.kind == DIL__ITEM_FRAME) dil__net_session_work(s, &it.msg, n->gate ? it.key : NULL);
        dil__node_put(n, s);
        zmq_msg_close(&it.msg);
    }
    return NULL;
}
