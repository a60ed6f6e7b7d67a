#include "net/linkwatch.h"

#include <dilemma/node.h>

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define PROBE_SEC 0.4          /* beside what round trips take: a few hundredths of a second of it fill the link */
#define PROBE_ROUNDS 14.0      /* round trips of a probe: the handshake, some echoes, a few batches */
#define ANSWER_SEC 3.0
#define ADMIT_SEC 60u
#define RATIO 1.5
#define TIMES 3                /* measurements in a row that agree with each other and not with what is believed */
#define NOTICED_SEC 2e-3       /* less is what a busy machine does to a measurement */
#define CHUNK_BYTES 65536.0    /* whose time on the link counts beside the delay */

struct dil__linkwatch {
    const dil_cluster *cluster;
    const dil_keypair *key;
    double every_sec;
    void (*news)(void *ctx);
    void *ctx;
    pthread_t thread;

    pthread_mutex_t lock;      /* guards what follows */
    pthread_cond_t changed;
    bool closing;
    uint8_t *there;            /* [n_nodes] */
    uint8_t *suspect;          /* [n_links] to be measured soon */
    dil_cluster_link *believed; /* [n_links] */
    dil_cluster_link *other;   /* [n_links] a measurement that differs, not yet seen TIMES; rtt_sec 0: none */
    uint8_t *n_other;          /* [n_links] how often in a row */
    uint32_t turn;
    bool news_due;
    char why[160];
};

/* --- pure ------------------------------------------------------------------------------------------------------------------- */

static bool apart(double a, double b)
{
    return a > RATIO * b || b > RATIO * a;
}

bool dil__link_differs(const dil_cluster_link *x, const dil_cluster_link *y)
{
    double cx = CHUNK_BYTES / x->bytes_per_sec, cy = CHUNK_BYTES / y->bytes_per_sec;
    if (apart(x->latency_sec, y->latency_sec) && fabs(x->latency_sec - y->latency_sec) > NOTICED_SEC) return true;
    return apart(cx, cy) && fabs(cx - cy) > NOTICED_SEC + 0.5 * fmin(x->latency_sec, y->latency_sec); /* a batch is timed no finer than the round trip */
}

bool dil__round_is_slow(dil__round_watch *w, double overhead_sec)
{
    if (overhead_sec <= 0) return false;
    if (w->usual_sec <= 0) w->usual_sec = overhead_sec;
    bool slow = overhead_sec > RATIO * w->usual_sec + 2 * NOTICED_SEC;
    if (!slow) w->usual_sec += (overhead_sec - w->usual_sec) / (overhead_sec < w->usual_sec ? 2 : 32);
    w->n_slow = slow ? w->n_slow + 1 : 0;
    if (w->n_slow < 3) return false;
    w->n_slow = 0;
    w->usual_sec = overhead_sec; /* whatever the links turn out to be, this is how it is now */
    return true;
}

/* --- measuring ---------------------------------------------------------------------------------------------------------------- */

static dil_status admit(const dil__linkwatch *w, const dil_cluster_node *at, const dil_cluster_node *from, dil_err *err)
{
    dil_node_conn *c;
    if (!w->key) return DIL_OK;
    dil_status s = dil_node_connect(at->address, at->public_key, w->key, ANSWER_SEC, &c, err);
    if (s != DIL_OK) return s;
    s = dil_node_admit(c, &from->public_key, 1, ADMIT_SEC, err);
    dil_node_disconnect(c);
    return s;
}

static dil_status measure(const dil__linkwatch *w, uint32_t link, dil_cluster_link *out, dil_err *err)
{
    const dil_cluster_link *l = &w->cluster->links[link];
    const dil_cluster_node *from = &w->cluster->nodes[l->from], *to = &w->cluster->nodes[l->to];
    double limit = fmin(ANSWER_SEC, PROBE_SEC + PROBE_ROUNDS * 2 * out->latency_sec);
    dil_node_conn *c;
    dil_node_link got;
    dil_status s = admit(w, to, from, err);
    if (s == DIL_OK) s = dil_node_connect(from->address, from->public_key, w->key, ANSWER_SEC, &c, err);
    if (s != DIL_OK) return s;
    s = dil_node_probe_link(c, to->address, w->key ? to->public_key : NULL, limit, &got, err);
    if (s != DIL_OK && limit < ANSWER_SEC) s = dil_node_probe_link(c, to->address, w->key ? to->public_key : NULL, ANSWER_SEC, &got, err); /* a link that became slow looks like a handshake that fails */
    dil_node_disconnect(c);
    if (s != DIL_OK) return s;
    double rate = out->bytes_per_sec; /* a batch that a few round trips of TCP's slow start explain says nothing about the rate */
    *out = *l;
    out->rtt_sec = got.rtt_sec;
    out->latency_sec = got.rtt_sec / 2;
    out->bytes_per_sec = got.bytes_per_sec < rate && CHUNK_BYTES / got.bytes_per_sec < 2 * got.rtt_sec ? rate : got.bytes_per_sec;
    return DIL_OK;
}

/* Under the lock. True: measure it once more now. */
static bool take_measurement(dil__linkwatch *w, uint32_t link, const dil_cluster_link *got)
{
    dil_cluster_link *believed = &w->believed[link], *other = &w->other[link];
    if (!dil__link_differs(believed, got)) {
        other->rtt_sec = 0;
        return false;
    }
    bool again = other->rtt_sec > 0 && !dil__link_differs(other, got);
    w->n_other[link] = again ? w->n_other[link] + 1 : 1;
    *other = *got;
    if (w->n_other[link] < TIMES) return true;
    other->rtt_sec = 0;
    snprintf(w->why, sizeof w->why, "the link from %.40s to %.40s takes %.1f ms and %.0f Mbit/s, not %.1f ms and %.0f Mbit/s", w->cluster->nodes[got->from].name,
             w->cluster->nodes[got->to].name, got->latency_sec * 1e3, got->bytes_per_sec * 8e-6, believed->latency_sec * 1e3, believed->bytes_per_sec * 8e-6);
    *believed = *got;
    w->news_due = true;
    return false;
}

static bool may_be_measured(const dil__linkwatch *w, uint32_t link)
{
    const dil_cluster_link *l = &w->cluster->links[link];
    return w->there[l->from] && w->there[l->to];
}

/* Under the lock: a suspect, or when `due` the next in turn; UINT32_MAX: none. */
static uint32_t choose(dil__linkwatch *w, bool due)
{
    uint32_t n = w->cluster->n_links;
    for (uint32_t i = 0; i < n; i++) {
        bool suspect = w->suspect[i];
        w->suspect[i] = 0;
        if (suspect && may_be_measured(w, i)) return i;
    }
    for (uint32_t i = 0; due && i < n; i++) {
        uint32_t at = (w->turn + i) % n;
        if (!may_be_measured(w, at)) continue;
        w->turn = (at + 1) % n;
        return at;
    }
    return UINT32_MAX;
}

static void *watch(void *arg)
{
    dil__linkwatch *w = arg;
    int64_t next_ns = dil_now_ns() + (int64_t)(w->every_sec * 1e9);
    pthread_mutex_lock(&w->lock);
    while (!w->closing) {
        bool due = dil_now_ns() >= next_ns;
        uint32_t link = choose(w, due);
        if (due) next_ns = dil_now_ns() + (int64_t)(w->every_sec * 1e9);
        if (link == UINT32_MAX) {
            struct timespec until = {next_ns / 1000000000, next_ns % 1000000000};
            pthread_cond_timedwait(&w->changed, &w->lock, &until);
            continue;
        }
        dil_cluster_link got = w->believed[link];
        pthread_mutex_unlock(&w->lock);
        dil_err e;
        dil_status s = measure(w, link, &got, &e);
        if (s != DIL_OK) dil_log(DIL_LOG_DEBUG, "links", "%s to %s: %s", w->cluster->nodes[w->cluster->links[link].from].name, w->cluster->nodes[w->cluster->links[link].to].name, e.text);
        pthread_mutex_lock(&w->lock);
        if (s == DIL_OK && take_measurement(w, link, &got)) w->suspect[link] = 1;
        bool news = w->news_due;
        if (!news) continue;
        pthread_mutex_unlock(&w->lock);
        w->news(w->ctx);
        pthread_mutex_lock(&w->lock);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

/* --- the outside ---------------------------------------------------------------------------------------------------------------- */

static void free_watch(dil__linkwatch *w)
{
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->changed);
    free(w->there);
    free(w->suspect);
    free(w->believed);
    free(w->other);
    free(w->n_other);
    free(w);
}

dil_status dil__linkwatch_open(const dil_cluster *cluster, const dil_keypair *key, double every_sec, void (*news)(void *ctx), void *ctx, dil__linkwatch **out,
                               dil_err *err)
{
    dil__linkwatch *w = calloc(1, sizeof *w);
    if (!w) return dil_fail(err, DIL_EMEMORY, "no memory to watch links");
    *w = (dil__linkwatch){.cluster = cluster, .key = key, .every_sec = every_sec, .news = news, .ctx = ctx};
    pthread_mutex_init(&w->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&w->changed, &attr);
    pthread_condattr_destroy(&attr);
    w->there = calloc(cluster->n_nodes + 1, 1);
    w->suspect = calloc(cluster->n_links + 1, 1);
    w->believed = calloc(cluster->n_links + 1, sizeof *w->believed);
    w->other = calloc(cluster->n_links + 1, sizeof *w->other);
    w->n_other = calloc(cluster->n_links + 1, 1);
    if (w->believed && cluster->n_links) memcpy(w->believed, cluster->links, cluster->n_links * sizeof *w->believed);
    if (w->there && w->suspect && w->believed && w->other && w->n_other && pthread_create(&w->thread, NULL, watch, w) == 0) {
        *out = w;
        return DIL_OK;
    }
    free_watch(w);
    return dil_fail(err, DIL_EMEMORY, "no memory to watch %u links", cluster->n_links);
}

void dil__linkwatch_close(dil__linkwatch *w)
{
    if (!w) return;
    pthread_mutex_lock(&w->lock);
    w->closing = true;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    free_watch(w);
}

void dil__linkwatch_nodes(dil__linkwatch *w, const uint8_t *there)
{
    pthread_mutex_lock(&w->lock);
    memcpy(w->there, there, w->cluster->n_nodes);
    pthread_mutex_unlock(&w->lock);
}

void dil__linkwatch_suspect(dil__linkwatch *w, const uint32_t *link, uint32_t n)
{
    pthread_mutex_lock(&w->lock);
    for (uint32_t i = 0; i < n; i++) w->suspect[link[i]] = 1;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->lock);
}

bool dil__linkwatch_take(dil__linkwatch *w, dil_cluster_link *links, char why[160])
{
    pthread_mutex_lock(&w->lock);
    bool due = w->news_due;
    if (due) {
        memcpy(links, w->believed, w->cluster->n_links * sizeof *links);
        memcpy(why, w->why, sizeof w->why);
        w->news_due = false;
    }
    pthread_mutex_unlock(&w->lock);
    return due;
}
