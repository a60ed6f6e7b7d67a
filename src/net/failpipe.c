/* The scheduler's side of the pipe that keeps going, and its opening and closing. The other side is the thread in failover.c. */
#include "net/failover.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

static void on_news(void *ctx)
{
    dil__ring_poke(((dil__failover *)ctx)->fd);
}

static dil_status fail_submit(dil__pipe *p, const dil__work *w, dil_err *err)
{
    dil__ring *r = ((dil__failover *)p)->ring;
    return r->pipe.ops->submit(&r->pipe, w, err);
}

/* True: an event of our own is in *out. */
static bool take_swap(dil__failover *f, dil__pipe_event *out)
{
    bool swapped = false, gave_up = false;
    pthread_mutex_lock(&f->lock);
    if (f->next && !f->old) {
        f->old = f->ring;
        f->ring = f->next;
        f->next = NULL;
        f->pipe.depth = f->ring->pipe.depth;
        swapped = true;
    } else if (f->give_up) {
        f->give_up = false;
        gave_up = true;
        out->err = f->stuck_err;
    }
    pthread_mutex_unlock(&f->lock);
    if (!swapped && !gave_up) return false;
    if (swapped) dil__ring_poke(f->fd);
    out->kind = swapped ? DIL__PIPE_RESET : DIL__PIPE_GIVE_UP;
    return true;
}

static void fail_wait(dil__pipe *p, int64_t timeout_ns, dil__pipe_event *out)
{
    dil__failover *f = (dil__failover *)p;
    *out = (dil__pipe_event){0};
    if (!take_swap(f, out)) f->ring->pipe.ops->wait(&f->ring->pipe, timeout_ns, out);
}

static void fail_wake(dil__pipe *p)
{
    dil__failover *f = (dil__failover *)p;
    pthread_mutex_lock(&f->lock);
    dil__ring_poke(f->ring->wake_fd);
    pthread_mutex_unlock(&f->lock);
}

static void fail_state(dil__pipe *p, dil_runner_state *out)
{
    dil__failover *f = (dil__failover *)p;
    pthread_mutex_lock(&f->lock);
    dil__ring *r = f->ring;
    r->pipe.ops->state(&r->pipe, out);
    out->ready = out->ready && !f->next;
    out->recovering = !out->ready && f->was_ready && !f->stuck;
    if (!out->ready && f->lost_ns) {
        char ring_says[240];
        snprintf(ring_says, sizeof ring_says, "%.235s", out->why);
        snprintf(out->why, sizeof out->why, "%.250s%s%s", f->stuck ? f->stuck_err.text : f->doing, ring_says[0] ? "; " : "", ring_says);
        snprintf(out->node, sizeof out->node, "%.120s", f->lost);
        out->recovering_sec = (double)(dil_now_ns() - f->lost_ns) * 1e-9;
    }
    pthread_mutex_unlock(&f->lock);
}

static void close_ring(dil__ring *r)
{
    if (r) r->pipe.ops->close(&r->pipe);
}

static void fail_close(dil__pipe *p)
{
    dil__failover *f = (dil__failover *)p;
    atomic_store(&f->closing, true);
    if (f->started) {
        dil__ring_poke(f->fd);
        pthread_join(f->thread, NULL);
    }
    dil__linkwatch_close(f->links);
    close_ring(f->fetch);
    dil_plan_free(f->fetch_plan);
    close_ring(f->old);
    close_ring(f->next);
    close_ring(f->ring);
    dil__members_fini(&f->members);
    dil__replan_free(f->replan);
    if (f->plan != f->first_plan) dil_plan_free(f->plan);
    for (uint32_t i = 0; f->fate && i < f->cluster->n_nodes; i++) free(f->fate[i].had);
    free(f->fate);
    free(f->link_down_ns);
    free(f->link_now);
    free(f->there);
    if (f->fd >= 0) close(f->fd);
    pthread_mutex_destroy(&f->lock);
    sodium_memzero(&f->key, sizeof f->key);
    free(f);
}

const dil__pipe_ops dil__failover_ops = {fail_submit, fail_wait, fail_wake, fail_state, fail_close};

static dil_status open_all(dil__failover *f, dil_err *err)
{
    uint32_t n_nodes = f->cluster->n_nodes, n_layers = dil_arch_n_layers(&f->arch);
    f->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    f->fate = calloc(n_nodes ? n_nodes : 1, sizeof *f->fate);
    f->link_down_ns = calloc(f->cluster->n_links + 1, sizeof *f->link_down_ns);
    f->link_now = calloc(f->cluster->n_links + 1, sizeof *f->link_now);
    f->there = calloc(n_nodes + 1, 1);
    if (f->fd < 0 || !f->fate || !f->link_down_ns || !f->link_now || !f->there) return dil_fail(err, DIL_EMEMORY, "no memory for a coordinator");
    if (f->cluster->n_links) memcpy(f->link_now, f->cluster->links, f->cluster->n_links * sizeof *f->link_now);
    for (uint32_t i = 0; i < n_nodes; i++) {
        f->fate[i].had = calloc(n_layers, 1);
        if (!f->fate[i].had) return dil_fail(err, DIL_EMEMORY, "no memory for a coordinator of %u nodes", n_nodes);
    }
    dil_status s = dil__ring_open(f->plan, f->cluster, f->model, &f->arch, &f->o, false, on_news, f, &f->ring, err);
    if (s != DIL_OK) return s;
    const dil__pipe_ops *ops = f->pipe.ops;
    f->pipe = f->ring->pipe;
    f->pipe.ops = ops;
    f->o.n_ctx = f->pipe.n_ctx; /* the same for every ring to come */
    f->o.n_seq = f->pipe.n_seq;
    f->o.chunk = f->pipe.chunk;
    s = dil__members_init(&f->members, f->cluster, f->o.key, f->o.lost_sec, f->o.run, f->o.model, err);
    if (s == DIL_OK && f->o.relink_sec > 0 && !f->o.stay) s = dil__linkwatch_open(f->cluster, f->o.key, f->o.relink_sec, on_news, f, &f->links, err);
    if (s != DIL_OK) return s;
    if (pthread_create(&f->thread, NULL, dil__failover_run, f) != 0) return dil_fail(err, DIL_EMEMORY, "no thread for a coordinator");
    f->started = true;
    return DIL_OK;
}

dil_status dil_runner_ring(const dil_plan *plan, const dil_cluster *cluster, const dil_gguf *model, const dil_arch *arch, const dil_ring_opts *opts,
                           dil_runner **out, dil_err *err)
{
    dil__failover *f = calloc(1, sizeof *f);
    if (!f) return dil_fail(err, DIL_EMEMORY, "no memory for a coordinator");
    f->pipe.ops = &dil__failover_ops;
    f->first_plan = plan;
    f->plan = (dil_plan *)(uintptr_t)plan;
    f->cluster = cluster;
    f->model = model;
    f->arch = *arch;
    f->o = *opts;
    if (opts->key) f->key = *opts->key;
    if (opts->key) f->o.key = &f->key;
    if (!(f->o.lost_sec > 0)) f->o.lost_sec = 2;
    if (!(f->o.patience_sec > 0)) f->o.patience_sec = 30;
    if (!(f->o.horizon_sec > 0)) f->o.horizon_sec = 3600;
    while (f->o.run == 0) randombytes_buf(&f->o.run, sizeof f->o.run);
    f->fd = -1;
    pthread_mutex_init(&f->lock, NULL);
    dil_status s = open_all(f, err);
    if (s != DIL_OK) {
        fail_close(&f->pipe);
        return s;
    }
    return dil__runner_new(&f->pipe, DIL__QUEUE_MAX, out, err);
}

dil__ring *dil__failover_borrow(dil_runner *runner)
{
    dil__pipe *p = dil__runner_pipe(runner);
    if (p->ops != &dil__failover_ops) return NULL;
    dil__failover *f = (dil__failover *)p;
    pthread_mutex_lock(&f->lock);
    dil__ring *r = f->ring;
    f->n_lookers++;
    pthread_mutex_unlock(&f->lock);
    return r;
}

void dil__failover_return(dil_runner *runner)
{
    dil__failover *f = (dil__failover *)dil__runner_pipe(runner);
    pthread_mutex_lock(&f->lock);
    f->n_lookers--;
    pthread_mutex_unlock(&f->lock);
}
