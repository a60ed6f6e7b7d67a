/* Deadlines by phase, looked at once a second; hang-ups by epoll. Connections are found by serial number, never by descriptor:
 * those are reused. */
#include "serve/guard.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct dil__guarded {
    dil__guard *guard;
    dil__guarded *prev, *next;
    int fd;
    uint64_t serial;
    dil__guard_phase_of phase;
    int64_t since_ns;
    dil__job *job; /* held by the request */
};

struct dil__guard {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t job_left;
    dil__guarded *first;
    uint32_t n_jobs;
    uint64_t last_serial;
    int epoll, quit;
    int64_t limit_ns[3];
};

static void cut_late(dil__guard *g)
{
    int64_t now = dil_now_ns();
    pthread_mutex_lock(&g->lock);
    for (dil__guarded *c = g->first; c; c = c->next) {
        int64_t limit = g->limit_ns[c->phase];
        if (limit > 0 && now - c->since_ns > limit) shutdown(c->fd, SHUT_RDWR);
    }
    pthread_mutex_unlock(&g->lock);
}

static void hung_up(dil__guard *g, uint64_t serial)
{
    dil__job *job = NULL;
    pthread_mutex_lock(&g->lock);
    for (dil__guarded *c = g->first; c; c = c->next) {
        if (c->serial == serial && c->job) dil__job_hold(job = c->job);
    }
    pthread_mutex_unlock(&g->lock);
    if (!job) return;
    dil__job_abort(job, "the client hung up");
    dil__job_drop(job);
}

static void *watch(void *ctx)
{
    dil__guard *g = ctx;
    struct epoll_event ev[32];
    for (int64_t looked = 0;;) {
        int n = epoll_wait(g->epoll, ev, 32, 1000);
        if (n < 0 && errno != EINTR) return NULL;
        for (int i = 0; i < n; i++) {
            if (ev[i].data.u64 == 0) return NULL;
            hung_up(g, ev[i].data.u64);
        }
        if (dil_now_ns() - looked < 900000000) continue;
        cut_late(g);
        looked = dil_now_ns();
    }
}

dil_status dil__guard_open(int headers_sec, int body_sec, dil__guard **out, dil_err *err)
{
    dil__guard *g = calloc(1, sizeof *g);
    if (!g) return dil_fail(err, DIL_EMEMORY, "http: no memory");
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->job_left, NULL);
    g->limit_ns[DIL_GUARD_IDLE] = headers_sec * INT64_C(1000000000);
    g->limit_ns[DIL_GUARD_BODY] = body_sec * INT64_C(1000000000);
    g->epoll = epoll_create1(EPOLL_CLOEXEC);
    g->quit = eventfd(0, EFD_CLOEXEC);
    struct epoll_event e = {.events = EPOLLIN};
    if (g->epoll >= 0 && g->quit >= 0 && epoll_ctl(g->epoll, EPOLL_CTL_ADD, g->quit, &e) == 0 &&
        pthread_create(&g->thread, NULL, watch, g) == 0) {
        *out = g;
        return DIL_OK;
    }
    dil_status s = dil_fail_errno(err, "http: the guard's thread");
    if (g->epoll >= 0) close(g->epoll);
    if (g->quit >= 0) close(g->quit);
    pthread_cond_destroy(&g->job_left);
    pthread_mutex_destroy(&g->lock);
    free(g);
    return s;
}

void dil__guard_close(dil__guard *g)
{
    if (!g) return;
    uint64_t one = 1;
    while (write(g->quit, &one, sizeof one) < 0 && errno == EINTR) {}
    pthread_join(g->thread, NULL);
    close(g->epoll);
    close(g->quit);
    pthread_cond_destroy(&g->job_left);
    pthread_mutex_destroy(&g->lock);
    free(g);
}

dil__guarded *dil__guard_add(dil__guard *g, int fd)
{
    dil__guarded *c = calloc(1, sizeof *c);
    if (!c) return NULL;
    c->guard = g;
    c->fd = fd;
    c->since_ns = dil_now_ns();
    pthread_mutex_lock(&g->lock);
    c->serial = ++g->last_serial;
    c->next = g->first;
    if (c->next) c->next->prev = c;
    g->first = c;
    pthread_mutex_unlock(&g->lock);
    return c;
}

void dil__guard_remove(dil__guarded *c)
{
    if (!c) return;
    dil__guard *g = c->guard;
    pthread_mutex_lock(&g->lock);
    if (c->prev) c->prev->next = c->next;
    else g->first = c->next;
    if (c->next) c->next->prev = c->prev;
    pthread_mutex_unlock(&g->lock);
    free(c);
}

void dil__guard_phase(dil__guarded *c, dil__guard_phase_of phase)
{
    if (!c) return;
    pthread_mutex_lock(&c->guard->lock);
    c->phase = phase;
    c->since_ns = dil_now_ns();
    pthread_mutex_unlock(&c->guard->lock);
}

void dil__guard_set_job(dil__guarded *c, dil__job *j)
{
    if (!c) return;
    pthread_mutex_lock(&c->guard->lock);
    if (!c->job != !j) {
        struct epoll_event e = {.events = EPOLLRDHUP | EPOLLONESHOT, .data.u64 = c->serial};
        if (epoll_ctl(c->guard->epoll, j ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, c->fd, &e) != 0)
            dil_log(DIL_LOG_DEBUG, "http", "a hang-up would not be seen: %s", strerror(errno));
    }
    if (j && !c->job) c->guard->n_jobs++;
    if (!j && c->job) c->guard->n_jobs--;
    c->job = j;
    if (!c->guard->n_jobs) pthread_cond_signal(&c->guard->job_left);
    pthread_mutex_unlock(&c->guard->lock);
}

void dil__guard_abort_jobs(dil__guard *g, const void *backend, const char *why)
{
    for (uint64_t done = 0;;) { /* one at a time, without the lock while it is aborted; serials only grow */
        dil__job *job = NULL;
        uint64_t serial = UINT64_MAX;
        pthread_mutex_lock(&g->lock);
        for (dil__guarded *c = g->first; c; c = c->next) {
            if (c->job && (!backend || dil__job_backend(c->job) == backend) && c->serial > done && c->serial < serial) {
                job = c->job;
                serial = c->serial;
            }
        }
        if (job) dil__job_hold(job);
        pthread_mutex_unlock(&g->lock);
        if (!job) return;
        done = serial;
        dil__job_abort(job, why);
        dil__job_drop(job);
    }
}

void dil__guard_drain(dil__guard *g, int limit_ms)
{
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    int64_t ns = end.tv_nsec + limit_ms * INT64_C(1000000);
    end.tv_sec += ns / 1000000000;
    end.tv_nsec = ns % 1000000000;
    pthread_mutex_lock(&g->lock);
    while (g->n_jobs > 0 && pthread_cond_timedwait(&g->job_left, &g->lock, &end) == 0) {}
    pthread_mutex_unlock(&g->lock);
}
