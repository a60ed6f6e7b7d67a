/* Baselines that give every node a share of the layers in proportion to one number.
 *
 *   equal-split           the same number of layers each: the default of pipeline parallelism (GPipe, arXiv 1811.06965; Megatron-LM,
 *                         arXiv 2104.04473), and EdgeShard's own baseline "Even" (arXiv 2405.14371, section V).
 *   memory-proportional   exo (ring_memory_weighted_partitioning_strategy.py): nodes by memory, largest first, shares of the blocks
 *                         rounded to 1e-5, the embedding with the first shard and the head with the last. llama.cpp (llama-model.cpp,
 *                         default split of the layers): devices as given, shares of free memory, block i goes to the first device
 *                         whose cumulated share is above i / (blocks + 1), the head counts as a block, the embedding stays at the
 *                         host. Both are tried, the faster one counts.
 *   speed-proportional    the same with the nodes' speed (one over the seconds of all layers): what a user of llama.cpp types as
 *                         --tensor-split by hand on unequal machines.
 *
 * None of them looks at a link, and none leaves a slow node out. */
#include "plan/baseline.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct share {
    uint32_t node;
    double weight;
} share;

typedef struct split {
    const dil_problem *p;
    share *share;           /* [S] in the order of the stages */
    uint32_t *node, *level; /* [L] */
} split;

static bool split_init(split *x, const dil_problem *p)
{
    *x = (split){.p = p, .share = calloc(p->n_nodes, sizeof *x->share), .node = calloc(p->n_layers, sizeof *x->node),
                 .level = calloc(p->n_layers, sizeof *x->level)};
    return x->share && x->node && x->level;
}

static void split_fini(split *x)
{
    free(x->share);
    free(x->node);
    free(x->level);
}

/* The entry node first, the others as the cluster lists them, all of weight 1. */
static void order_as_given(split *x)
{
    uint32_t entry = dil__entry_node(x->p), n = 0;
    x->share[n++] = (share){entry, 1};
    for (uint32_t s = 0; s < x->p->n_nodes; s++) {
        if (s != entry) x->share[n++] = (share){s, 1};
    }
}

static int heavier(const void *a, const void *b)
{
    const share *x = a, *y = b;
    if (x->weight != y->weight) return x->weight > y->weight ? -1 : 1;
    return (x->node > y->node) - (x->node < y->node);
}

static double total(const split *x)
{
    double sum = 0;
    for (uint32_t i = 0; i < x->p->n_nodes; i++) sum += x->share[i].weight;
    return sum > 0 ? sum : 1;
}

/* exo: shares of the blocks [1, L-2], rounded to 1e-5; the ends follow the first and the last block. */
static void split_like_exo(split *x)
{
    uint32_t L = x->p->n_layers, n_blocks = L > 2 ? L - 2 : L, first = L > 2 ? 1 : 0, S = x->p->n_nodes;
    double sum = total(x), start = 0;
    uint32_t from = 0;
    for (uint32_t i = 0; i < S; i++) {
        double end = i + 1 == S ? 1 : round((start + x->share[i].weight / sum) * 1e5) / 1e5;
        uint32_t to = i + 1 == S ? n_blocks : (uint32_t)(end * n_blocks);
        for (uint32_t b = from; b < to && b < n_blocks; b++) x->node[first + b] = x->share[i].node;
        if (to > from) from = to;
        start = end;
    }
    if (L > 2) {
        x->node[0] = x->node[1];
        x->node[L - 1] = x->node[L - 2];
    }
}

static void split_equally(split *x)
{
    uint64_t L = x->p->n_layers, S = x->p->n_nodes, n_blocks = L > 2 ? L - 2 : L, first = L > 2 ? 1 : 0;
    for (uint64_t i = 0; i < S; i++) {
        for (uint64_t b = i * n_blocks / S; b < (i + 1) * n_blocks / S; b++) x->node[first + b] = x->share[i].node;
    }
    if (L > 2) {
        x->node[0] = x->node[1];
        x->node[L - 1] = x->node[L - 2];
    }
}

/* llama.cpp: blocks and head against the cumulated shares, the embedding at the host. */
static void split_like_llama_cpp(split *x)
{
    uint32_t L = x->p->n_layers, S = x->p->n_nodes;
    double sum = total(x);
    x->node[0] = dil__entry_node(x->p);
    for (uint32_t l = 1; l < L; l++) {
        double at = (double)(l - 1) / (L - 1), cumulated = 0;
        uint32_t i = 0;
        for (; i + 1 < S; i++) {
            cumulated += x->share[i].weight;
            if (cumulated / sum > at) break;
        }
        x->node[l] = x->share[i].node;
    }
}

static dil_status out_of_memory(split *x, dil_err *err)
{
    split_fini(x);
    return dil_fail(err, DIL_EMEMORY, "baseline: out of memory");
}

dil_status dil__baseline_equal_split(dil__job *job, dil_err *err)
{
    split x;
    dil__trial t;
    if (!split_init(&x, job->p)) return out_of_memory(&x, err);
    dil_status s = dil__trial_init(&t, job, "equal-split", err);
    if (s == DIL_OK) {
        order_as_given(&x);
        split_equally(&x);
        for (uint32_t c = 0, n = dil__precisions(job->p); c < n && dil__trial_left_sec(&t) > 0; c++) {
            dil__precision_levels(job->p, c, x.level);
            dil__trial_add(&t, x.node, x.level);
        }
        s = dil__trial_end(&t, err);
    }
    split_fini(&x);
    return s;
}

/* The two orders and roundings of a weight that is set in `share`. */
static void add_both(split *x, dil__trial *t)
{
    split_like_llama_cpp(x);
    dil__trial_add(t, x->node, x->level);
    qsort(x->share, x->p->n_nodes, sizeof *x->share, heavier);
    split_like_exo(x);
    dil__trial_add(t, x->node, x->level);
}

dil_status dil__baseline_memory(dil__job *job, dil_err *err)
{
    split x;
    dil__trial t;
    if (!split_init(&x, job->p)) return out_of_memory(&x, err);
    dil_status s = dil__trial_init(&t, job, "memory-proportional", err);
    if (s == DIL_OK) {
        for (uint32_t c = 0, n = dil__precisions(job->p); c < n && dil__trial_left_sec(&t) > 0; c++) {
            dil__precision_levels(job->p, c, x.level);
            order_as_given(&x);
            for (uint32_t i = 0; i < job->p->n_nodes; i++) x.share[i].weight = job->p->store_bytes[x.share[i].node];
            add_both(&x, &t);
        }
        s = dil__trial_end(&t, err);
    }
    split_fini(&x);
    return s;
}

static double speed(const split *x, uint32_t s)
{
    double sec = 0;
    for (uint32_t l = 0; l < x->p->n_layers; l++) sec += x->p->layer_sec[dil__cell(x->p, l, s, x->level[l])];
    return 1 / fmax(sec, 1e-12);
}

dil_status dil__baseline_speed(dil__job *job, dil_err *err)
{
    split x;
    dil__trial t;
    if (!split_init(&x, job->p)) return out_of_memory(&x, err);
    dil_status s = dil__trial_init(&t, job, "speed-proportional", err);
    if (s == DIL_OK) {
        for (uint32_t c = 0, n = dil__precisions(job->p); c < n && dil__trial_left_sec(&t) > 0; c++) {
            dil__precision_levels(job->p, c, x.level);
            order_as_given(&x);
            for (uint32_t i = 0; i < job->p->n_nodes; i++) x.share[i].weight = speed(&x, x.share[i].node);
            add_both(&x, &t);
        }
        s = dil__trial_end(&t, err);
    }
    split_fini(&x);
    return s;
}
