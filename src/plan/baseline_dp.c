/* Baselines that place layers by dynamic programming, each precision in turn.
 *
 *   edgeshard   EdgeShard, arXiv 2405.14371, Algorithm 1 (latency): the first layer stays on the source device; DP(i, j) is the
 *               least delay of layers 0..i with layer i on device j, DP(i, j) = min_k DP(i-1, k) + comm(k, j) + comp(i, j), over
 *               devices whose memory still holds layer i; at the end the token returns to the source. What a device has left is
 *               remembered along the path that won, so the rule is a heuristic where memory binds.
 *   halda       the placement of prima.cpp's Halda, arXiv 2504.08791: devices in a ring from the head device, which keeps
 *               embedding and head; each gets a window of consecutive blocks, window sizes minimise the devices' own seconds; the
 *               ring's communication does not enter the choice. With everything in memory one round of the ring is best, and disk
 *               offload, prefetching and GPU windows have nothing to decide here. Where the head device is too small for both
 *               ends they are windowed like blocks. */
#include "plan/baseline.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { NODES_MAX = 2000 }; /* edgeshard keeps what every device has left, for every device */

typedef struct held { /* along the best path to one device */
    double sec;
    double *bytes, *buffer; /* [S] */
} held;

typedef struct shard {
    const dil_problem *p;
    uint32_t *node, *level, *from; /* [L], [L], [L][S] */
    held *now, *next;              /* [S] */
    double *block;                 /* 4 [S][S] */
} shard;

static bool shard_init(shard *x, const dil_problem *p)
{
    size_t S = p->n_nodes;
    *x = (shard){.p = p, .node = calloc(p->n_layers, sizeof *x->node), .level = calloc(p->n_layers, sizeof *x->level),
                 .from = calloc(p->n_layers * S, sizeof *x->from), .now = calloc(S, sizeof *x->now), .next = calloc(S, sizeof *x->next),
                 .block = calloc(4 * S * S, sizeof *x->block)};
    if (!x->node || !x->level || !x->from || !x->now || !x->next || !x->block) return false;
    for (size_t s = 0; s < S; s++) {
        x->now[s] = (held){INFINITY, x->block + s * S, x->block + (S + s) * S};
        x->next[s] = (held){INFINITY, x->block + (2 * S + s) * S, x->block + (3 * S + s) * S};
    }
    return true;
}

static void shard_fini(shard *x)
{
    free(x->node);
    free(x->level);
    free(x->from);
    free(x->now);
    free(x->next);
    free(x->block);
}

static double bytes_of(const shard *x, uint32_t l, uint32_t s)
{
    const dil_problem *p = x->p;
    bool again = p->tied && l > 0 && l == p->n_layers - 1 && s == dil__entry_node(p); /* the first layer is there */
    return p->layer_bytes[(size_t)l * p->n_levels + x->level[l]] - (again ? p->shared_bytes[x->level[l]] : 0);
}

static double buffer_of(const shard *x, uint32_t l)
{
    return x->p->buffer_bytes ? x->p->buffer_bytes[l] : 0;
}

static bool has_room(const shard *x, const held *h, uint32_t l, uint32_t s)
{
    return h->bytes[s] + bytes_of(x, l, s) + fmax(h->buffer[s], buffer_of(x, l)) <= x->p->store_bytes[s] * (1 + 1e-9);
}

static void extend(shard *x, uint32_t l, uint32_t k, uint32_t j, double comm)
{
    const held *h = &x->now[k];
    double sec = h->sec + comm + x->p->layer_sec[dil__cell(x->p, l, j, x->level[l])];
    if (sec >= x->next[j].sec || !has_room(x, h, l, j)) return;
    x->next[j].sec = sec;
    x->from[(size_t)l * x->p->n_nodes + j] = k;
}

static void take_over(shard *x, uint32_t l)
{
    uint32_t S = x->p->n_nodes;
    for (uint32_t j = 0; j < S; j++) {
        held *to = &x->next[j];
        if (isinf(to->sec)) continue;
        const held *h = &x->now[x->from[(size_t)l * S + j]];
        memcpy(to->bytes, h->bytes, S * sizeof *to->bytes);
        memcpy(to->buffer, h->buffer, S * sizeof *to->buffer);
        to->bytes[j] += bytes_of(x, l, j);
        to->buffer[j] = fmax(to->buffer[j], buffer_of(x, l));
    }
    held *swap = x->now;
    x->now = x->next;
    x->next = swap;
}

/* false: memory or links leave no path. */
static bool shard_run(shard *x)
{
    const dil_problem *p = x->p;
    uint32_t S = p->n_nodes, source = dil__entry_node(p), best = 0;
    for (uint32_t s = 0; s < S; s++) x->now[s].sec = INFINITY;
    memset(x->now[source].bytes, 0, S * sizeof(double));
    memset(x->now[source].buffer, 0, S * sizeof(double));
    if (!has_room(x, &x->now[source], 0, source)) return false;
    x->now[source].sec = p->source_sec[source] + p->layer_sec[dil__cell(p, 0, source, x->level[0])];
    x->now[source].bytes[source] = bytes_of(x, 0, source);
    x->now[source].buffer[source] = buffer_of(x, 0);
    for (uint32_t l = 1; l < p->n_layers; l++) {
        for (uint32_t s = 0; s < S; s++) x->next[s].sec = INFINITY;
        for (uint32_t s = 0; s < S; s++) {
            if (isfinite(x->now[s].sec)) extend(x, l, s, s, 0);
        }
        for (uint32_t i = 0; i < p->n_hops; i++) {
            const dil_hop *h = &p->hops[i];
            if (isfinite(x->now[h->from].sec)) extend(x, l, h->from, h->to, l + 1 == p->n_layers ? h->head_sec : h->sec);
        }
        take_over(x, l);
    }
    for (uint32_t s = 1; s < S; s++) {
        if (x->now[s].sec + p->sink_sec[s] < x->now[best].sec + p->sink_sec[best]) best = s;
    }
    if (!isfinite(x->now[best].sec + p->sink_sec[best])) return false;
    for (uint32_t l = p->n_layers; l-- > 0;) {
        x->node[l] = best;
        if (l) best = x->from[(size_t)l * S + best];
    }
    return true;
}

dil_status dil__baseline_edgeshard(dil__job *job, dil_err *err)
{
    shard x;
    dil__trial t;
    if (job->p->n_nodes > NODES_MAX)
        return dil_fail(err, DIL_ELIMIT, "baseline:edgeshard: %u nodes, at most %d", job->p->n_nodes, NODES_MAX);
    dil_status s = shard_init(&x, job->p) ? dil__trial_init(&t, job, "edgeshard", err) : dil_fail(err, DIL_EMEMORY, "baseline: out of memory");
    if (s == DIL_OK) {
        for (uint32_t c = 0, n = dil__precisions(job->p); c < n && dil__trial_left_sec(&t) > 0; c++) {
            dil__precision_levels(job->p, c, x.level);
            if (shard_run(&x)) dil__trial_add(&t, x.node, x.level);
        }
        s = dil__trial_end(&t, err);
    }
    shard_fini(&x);
    return s;
}

/* --- halda -------------------------------------------------------------------------------------------------------------- */

typedef struct ring {
    const dil_problem *p;
    uint32_t *order;        /* [S] the head device first */
    uint32_t *node, *level; /* [L] */
    double *best;           /* [S+1][L+1] least seconds of the first k devices with the first i layers */
    uint32_t *start;        /* [S+1][L+1] first layer of device k's window */
} ring;

static bool ring_init(ring *x, const dil_problem *p)
{
    size_t S = p->n_nodes, L = p->n_layers, n = 0, cells = (S + 1) * (L + 1);
    *x = (ring){.p = p, .order = calloc(S, sizeof *x->order), .node = calloc(L, sizeof *x->node), .level = calloc(L, sizeof *x->level),
                .best = calloc(cells, sizeof *x->best), .start = calloc(cells, sizeof *x->start)};
    if (!x->order || !x->node || !x->level || !x->best || !x->start) return false;
    uint32_t head = dil__entry_node(p);
    x->order[n++] = head;
    for (uint32_t s = 0; s < S; s++) {
        if (s != head) x->order[n++] = s;
    }
    return true;
}

static void ring_fini(ring *x)
{
    free(x->order);
    free(x->node);
    free(x->level);
    free(x->best);
    free(x->start);
}

/* Windows of the layers [first, last] over the ring; `taken` bytes are held by the head device beforehand. */
static bool windows(ring *x, uint32_t first, uint32_t last, double taken, double taken_buffer)
{
    const dil_problem *p = x->p;
    uint32_t S = p->n_nodes, n = last - first + 1, row = p->n_layers + 1;
    for (uint32_t i = 0; i <= n; i++) x->best[i] = i ? INFINITY : 0;
    for (uint32_t k = 1; k <= S; k++) {
        uint32_t s = x->order[k - 1];
        double *now = x->best + (size_t)k * row;
        const double *before = now - row;
        for (uint32_t to = 0; to <= n; to++) {
            double bytes = k == 1 ? taken : 0, buffer = k == 1 ? taken_buffer : 0, sec = 0;
            now[to] = before[to];
            x->start[(size_t)k * row + to] = to;
            for (uint32_t from = to; from-- > 0;) {
                uint32_t l = first + from;
                bytes += p->layer_bytes[(size_t)l * p->n_levels + x->level[l]];
                buffer = fmax(buffer, p->buffer_bytes ? p->buffer_bytes[l] : 0);
                sec += p->layer_sec[dil__cell(p, l, s, x->level[l])];
                if (bytes + buffer > p->store_bytes[s] * (1 + 1e-9)) break;
                if (before[from] + sec >= now[to]) continue;
                now[to] = before[from] + sec;
                x->start[(size_t)k * row + to] = from;
            }
        }
    }
    if (isinf(x->best[(size_t)S * row + n])) return false;
    for (uint32_t k = S, to = n; k > 0; k--) {
        uint32_t from = x->start[(size_t)k * row + to];
        for (uint32_t i = from; i < to; i++) x->node[first + i] = x->order[k - 1];
        to = from;
    }
    return true;
}

static bool ring_run(ring *x)
{
    const dil_problem *p = x->p;
    uint32_t L = p->n_layers, head = x->order[0];
    if (L > 2) {
        double ends = p->layer_bytes[x->level[0]] + p->layer_bytes[(size_t)(L - 1) * p->n_levels + x->level[L - 1]] -
                      (p->tied ? p->shared_bytes[x->level[L - 1]] : 0);
        double buffer = p->buffer_bytes ? fmax(p->buffer_bytes[0], p->buffer_bytes[L - 1]) : 0;
        if (ends + buffer <= p->store_bytes[head] && windows(x, 1, L - 2, ends, buffer)) {
            x->node[0] = x->node[L - 1] = head;
            return true;
        }
    }
    return windows(x, 0, L - 1, 0, 0);
}

dil_status dil__baseline_halda(dil__job *job, dil_err *err)
{
    ring x;
    dil__trial t;
    dil_status s = ring_init(&x, job->p) ? dil__trial_init(&t, job, "halda", err) : dil_fail(err, DIL_EMEMORY, "baseline: out of memory");
    if (s == DIL_OK) {
        for (uint32_t c = 0, n = dil__precisions(job->p); c < n && dil__trial_left_sec(&t) > 0; c++) {
            dil__precision_levels(job->p, c, x.level);
            if (ring_run(&x)) dil__trial_add(&t, x.node, x.level);
        }
        s = dil__trial_end(&t, err);
    }
    ring_fini(&x);
    return s;
}
