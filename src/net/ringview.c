/* Looking at a ring from outside, whichever ring it is at the moment. */
#include "net/failover.h"

#include <string.h>

/* An error that waiting does not mend, and that is not planned around. */
static const dil_err *hopeless(const dil__ring *r)
{
    for (uint32_t i = 0; i < r->n_nodes; i++) {
        const dil__ring_node *n = &r->node[i];
        if ((n->phase == DIL__NODE_REFUSES && n->err.code != DIL_EIO) || n->err.code == DIL_EAUTH) return &n->err;
    }
    return NULL;
}

/* Waits for at most 100 ms. DIL_ETIMEOUT: not yet. */
static dil_status wait_a_little(dil__ring *r, int64_t end_ns, uint64_t *done, uint64_t *total, dil_err *err)
{
    dil_status s = DIL_ETIMEOUT;
    int64_t now = dil_now_ns(), until = now + 100000000 < end_ns ? now + 100000000 : end_ns;
    pthread_mutex_lock(&r->lock);
    const dil_err *e = hopeless(r);
    if (!r->ready && !e) pthread_cond_timedwait(&r->changed, &r->lock, &(struct timespec){until / 1000000000, until % 1000000000});
    e = hopeless(r);
    if (r->ready) s = DIL_OK;
    else if (e) s = dil_fail(err, e->code, "%s", e->text);
    for (uint32_t i = 0; i < r->n_nodes; i++) {
        *done += r->node[i].bytes_sent + r->node[i].bytes_cached;
        *total += r->node[i].bytes_total;
    }
    pthread_mutex_unlock(&r->lock);
    return s;
}

dil_status dil_ring_wait_ready(dil_runner *runner, double timeout_sec, const dil_progress *progress, dil_err *err)
{
    int64_t end = dil_now_ns() + (int64_t)(timeout_sec * 1e9);
    for (;;) {
        uint64_t done = 0, total = 0;
        dil__ring *r = dil__failover_borrow(runner);
        if (!r) return DIL_OK;
        dil_status s = wait_a_little(r, end, &done, &total, err);
        dil__failover_return(runner);
        if (!dil_progress_step(progress, "sending layers", (double)done, (double)total) && s == DIL_ETIMEOUT)
            return dil_fail(err, DIL_ECANCELED, "canceled while the nodes were loading");
        if (s != DIL_ETIMEOUT) return s;
        if (dil_now_ns() >= end) break;
    }
    dil_runner_state st;
    dil_runner_get_state(runner, &st);
    return dil_fail(err, DIL_ETIMEOUT, "not ready within %.3g s: %.400s", timeout_sec, st.why);
}

static void layers_text(const dil__load *load, char *out, size_t cap)
{
    size_t at = 0;
    out[0] = 0;
    for (uint32_t i = 0; i < load->n_parts && at < cap; i++)
        at += (size_t)snprintf(out + at, cap - at, "%s%u-%u", i ? ", " : "", load->parts[i].first_layer, load->parts[i].last_layer);
}

size_t dil_ring_nodes(dil_runner *runner, dil_ring_node *out, size_t cap)
{
    dil__ring *r = dil__failover_borrow(runner);
    if (!r) return 0;
    int64_t now = dil_now_ns();
    pthread_mutex_lock(&r->lock);
    for (uint32_t i = 0; i < r->n_nodes && i < cap; i++) {
        const dil__ring_node *n = &r->node[i];
        out[i] = (dil_ring_node){.ready = n->phase == DIL__NODE_READY, .bytes_total = n->bytes_total, .bytes_sent = n->bytes_sent,
                                 .bytes_cached = n->bytes_cached, .rss_bytes = n->rss_bytes,
                                 .silent_sec = n->shown_heard_ns ? (double)(now - n->shown_heard_ns) * 1e-9 : 0, .n_stages = n->load.n_parts,
                                 .n_works = n->tempo.n[0], .works_sec = (double)n->tempo.ns[0] * 1e-9};
        snprintf(out[i].name, sizeof out[i].name, "%s", n->name);
        layers_text(&n->load, out[i].layers, sizeof out[i].layers);
        dil__ring_phase_text(n, out[i].state);
    }
    size_t n_nodes = r->n_nodes;
    pthread_mutex_unlock(&r->lock);
    dil__failover_return(runner);
    return n_nodes;
}

void dil_ring_get_timing(dil_runner *runner, dil_ring_timing *out)
{
    *out = (dil_ring_timing){0};
    dil__ring *r = dil__failover_borrow(runner);
    if (!r) return;
    pthread_mutex_lock(&r->lock);
    *out = r->timing;
    pthread_mutex_unlock(&r->lock);
    dil__failover_return(runner);
}
