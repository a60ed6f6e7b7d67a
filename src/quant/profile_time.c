/* Seconds of every kind of layer at every level on every node. Layers of one kind share their measurement.
 *
 * Everything is measured twice, minutes' work apart, and what differs by more than a tenth a third time; the median (of two: their
 * mean) counts. Machines slow down for seconds at a time, and one measurement in such a moment would drive the plan off a node. */
#include "quant/profiler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROUNDS = 3 };
#define DIFFERENT 0.1

/* Nodes that a local measurement cannot tell apart share one; with a timing function each node is asked. */
static void time_key(const dil__profiler *p, const dil_cluster_node *node, const dil__kind *k, const char *level, uint32_t n_past, int round,
                     char key[DIL__JOURNAL_KEY])
{
    char who[64];
    if (p->o->time_layer) {
        dil_hash h = dil_hash_of(node->name, strlen(node->name));
        char hex[2 * DIL_HASH_BYTES + 1];
        dil_hash_hex(&h, hex);
        snprintf(who, sizeof who, "%.16s", hex);
    } else {
        snprintf(who, sizeof who, "%ut", node->threads);
    }
    snprintf(key, DIL__JOURNAL_KEY, "time:%s:%u:%s:%u:%d", who, k->layer, level, n_past, round);
}

static dil_status time_local(const dil__profiler *p, const dil_cluster_node *node, const dil__kind *k, const dil_type *types,
                             uint32_t n_past, uint32_t batch, dil_layer_time *t, dil_err *err)
{
    int threads = node->threads > 0 ? (int)node->threads : dil_cpu_count();
    return dil_engine_time_layer(&p->arch, k->layer, types, NULL, threads, n_past, batch, p->o->time_limit_sec, t, err);
}

/* f: decode, and a token of a batch; on the node, its throttle included. */
static dil_status time_batch(dil__profiler *p, const dil_cluster_node *node, const dil__kind *k, const dil__level *l, uint32_t n_past, uint32_t batch,
                             const char *key, double f[2], dil_err *err)
{
    double stretch = p->o->time_layer ? 1 : node->throttle;
    if (!dil__journal_get(p->journal, key, f, 2)) {
        dil_type types[DIL_LAYER_TENSORS_MAX];
        dil_layer_time t;
        for (size_t i = 0; i < DIL_LAYER_TENSORS_MAX; i++) types[i] = DIL_TYPE_F32;
        for (size_t r = 0; r < k->n_roles; r++) types[k->role[r]] = l->type[r];
        dil_status st = p->o->time_layer ? p->o->time_layer(p->o->time_ctx, node, &p->arch, k->layer, types, n_past, batch, &t, err)
                                         : time_local(p, node, k, types, n_past, batch, &t, err);
        if (st != DIL_OK) return st;
        f[0] = t.decode_sec;
        f[1] = t.prefill_sec;
        st = dil__journal_put(p->journal, key, f, 2, err);
        if (st != DIL_OK) return st;
    }
    f[0] *= stretch;
    f[1] *= stretch;
    return DIL_OK;
}

static dil_status time_once(dil__profiler *p, const dil_cluster_node *node, const dil__kind *k, const dil__level *l, uint32_t n_past, int round,
                            double f[2], dil_err *err)
{
    char key[DIL__JOURNAL_KEY];
    time_key(p, node, k, l->name, n_past, round, key);
    return time_batch(p, node, k, l, n_past, p->o->batch, key, f, err);
}

static bool differ(double x, double y)
{
    return fabs(x - y) > DIFFERENT * fmin(x, y);
}

static double middle(const double x[ROUNDS], int n)
{
    if (n == 2) return 0.5 * (x[0] + x[1]);
    return fmax(fmin(x[0], x[1]), fmin(fmax(x[0], x[1]), x[2]));
}

/* All rounds; after the first pass over everything the first is in the journal. */
static dil_status time_one(dil__profiler *p, const dil_cluster_node *node, const dil__kind *k, const dil__level *l, uint32_t n_past,
                           double f[2], dil_err *err)
{
    double decode[ROUNDS], prefill[ROUNDS];
    int n = 0;
    while (n < ROUNDS && (n < 2 || differ(decode[0], decode[1]) || differ(prefill[0], prefill[1]))) {
        dil_status st = time_once(p, node, k, l, n_past, n, f, err);
        if (st != DIL_OK) return st;
        decode[n] = f[0];
        prefill[n++] = f[1];
    }
    f[0] = middle(decode, n);
    f[1] = middle(prefill, n);
    return DIL_OK;
}

static dil_status step(dil__profiler *p, size_t *done, size_t total, dil_err *err)
{
    if (dil_progress_step(p->progress, "seconds of the layers", (double)(*done)++, (double)total)) return DIL_OK;
    return dil_fail(err, DIL_ECANCELED, "canceled; what is measured is kept, and --resume (up and demo by themselves) goes on from it");
}

static dil_status time_first(dil__profiler *p, dil__kind *k, size_t *done, size_t total, dil_err *err)
{
    for (size_t q = 0; q < k->n_levels; q++) {
        dil_status st = step(p, done, total, err);
        double f[2];
        for (uint32_t s = 0; s < p->o->cluster->n_nodes && st == DIL_OK; s++)
            st = time_once(p, &p->o->cluster->nodes[s], k, &k->level[q], p->o->n_past, 0, f, err);
        if (st != DIL_OK) return st;
    }
    return DIL_OK;
}

static dil_status time_kind(dil__profiler *p, dil__kind *k, size_t *done, size_t total, dil_err *err)
{
    uint32_t n_nodes = p->o->cluster->n_nodes;
    k->decode_sec = calloc(k->n_levels * n_nodes, sizeof(double));
    k->prefill_sec = calloc(k->n_levels * n_nodes, sizeof(double));
    k->decode_sec_per_cached = calloc(n_nodes, sizeof(double));
    if (!k->decode_sec || !k->prefill_sec || !k->decode_sec_per_cached) return dil_fail(err, DIL_EMEMORY, "out of memory");
    for (size_t q = 0; q < k->n_levels; q++) {
        dil_status st = step(p, done, total, err);
        for (uint32_t s = 0; s < n_nodes && st == DIL_OK; s++) {
            double f[2];
            st = time_one(p, &p->o->cluster->nodes[s], k, &k->level[q], p->o->n_past, f, err);
            k->decode_sec[q * n_nodes + s] = f[0];
            k->prefill_sec[q * n_nodes + s] = f[1];
        }
        if (st != DIL_OK) return st;
    }
    return DIL_OK;
}

/* Attention grows with what is cached, whatever the types: one level tells the slope. */
static dil_status time_slope(dil__profiler *p, dil__kind *k, dil_err *err)
{
    uint32_t n_nodes = p->o->cluster->n_nodes, far = 4 * p->o->n_past;
    if (far > p->o->context) far = p->o->context;
    if (far <= p->o->n_past) return DIL_OK;
    for (uint32_t s = 0; s < n_nodes; s++) {
        double f[2];
        dil_status st = time_one(p, &p->o->cluster->nodes[s], k, &k->level[0], far, f, err);
        if (st != DIL_OK) return st;
        double slope = (f[0] - k->decode_sec[s]) / (double)(far - p->o->n_past);
        k->decode_sec_per_cached[s] = slope > 0 ? slope : 0;
    }
    return DIL_OK;
}

/* A pass over one token, in the measure of which the same moment's single token is: the machine's own drift does not count. */
static dil_status time_pass(dil__profiler *p, const dil_cluster_node *node, const dil__kind *k, size_t q, uint32_t rows, double *over_one, dil_err *err)
{
    char plain[DIL__JOURNAL_KEY], key[DIL__JOURNAL_KEY];
    double f[2];
    time_key(p, node, k, k->level[q].name, p->o->n_past, 0, plain);
    snprintf(key, sizeof key, "pass%u-%.*s", rows, (int)sizeof key - 16, plain);
    dil_status st = time_batch(p, node, k, &k->level[q], p->o->n_past, rows, key, f, err);
    if (st == DIL_OK) *over_one = rows * f[1] / f[0];
    return st;
}

static dil_status time_passes(dil__profiler *p, dil__kind *k, size_t *done, size_t total, dil_err *err)
{
    uint32_t n_nodes = p->o->cluster->n_nodes;
    k->pass_sec = calloc(k->n_levels * DIL_PROFILE_PASSES * n_nodes, sizeof(double));
    if (!k->pass_sec) return dil_fail(err, DIL_EMEMORY, "out of memory");
    for (size_t q = 0; q < k->n_levels; q++) {
        dil_status st = step(p, done, total, err);
        for (uint32_t i = 0; i < DIL_PROFILE_PASSES * n_nodes && st == DIL_OK; i++) {
            double over_one;
            st = time_pass(p, &p->o->cluster->nodes[i % n_nodes], k, q, dil_profile_pass_rows(i / n_nodes), &over_one, err);
            if (st == DIL_OK) k->pass_sec[q * DIL_PROFILE_PASSES * n_nodes + i] = over_one * k->decode_sec[q * n_nodes + i % n_nodes];
        }
        if (st != DIL_OK) return st;
    }
    return DIL_OK;
}

dil_status dil__profiler_time(dil__profiler *p, dil_err *err)
{
    size_t total = 0, done = 0;
    for (size_t i = 0; i < DIL__KINDS; i++) total += (p->o->passes ? 3 : 2) * p->kind[i].n_levels;
    for (size_t i = 0; i < DIL__KINDS; i++) {
        dil_status st = time_first(p, &p->kind[i], &done, total, err);
        if (st != DIL_OK) return st;
    }
    for (size_t i = 0; i < DIL__KINDS; i++) {
        dil_status st = time_kind(p, &p->kind[i], &done, total, err);
        if (st == DIL_OK && i == DIL__BLOCK) st = time_slope(p, &p->kind[i], err);
        if (st == DIL_OK && p->o->passes) st = time_passes(p, &p->kind[i], &done, total, err);
        if (st != DIL_OK) return st;
    }
    dil_progress_step(p->progress, "seconds of the layers", 1, 1);
    return DIL_OK;
}
