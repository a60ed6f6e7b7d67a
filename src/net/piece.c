/* The size of pieces. What bounds it from below is what comes with each: a frame, its way through the threads, a pass over the graph, and where weights
 * are read slower than multiplied with, reading them once more. */
#include "net/piece.h"

#include <math.h>
#include <string.h>

enum { PIECE_MIN = 16, TILE = 64 /* rows from which ggml's attention on CPUs goes by tiles */ };
#define PIECE_SEC 0.0008 /* of each piece at each stage */
#define UNTILED 1.2      /* times that a token takes in a smaller piece; both measured: docs/PIPELINE.md, "Pieces of a prompt" */

typedef struct cost {
    double more_sec, token_sec; /* of each piece; of each token of it */
} cost;

uint32_t dil__cost_column(const dil_plan_costs *c, const char *name)
{
    for (uint32_t i = 0; c && i < c->n_nodes; i++) {
        if (strcmp(c->nodes[i], name) == 0) return i;
    }
    return UINT32_MAX;
}

/* The head sees one token of a prompt: it is not counted. */
static cost cost_of_layer(const dil_plan *p, const dil_plan_stage *s, uint32_t layer)
{
    const dil_plan_costs *c = p->costs;
    uint32_t at = dil__cost_column(c, s->node);
    if (at == UINT32_MAX || layer + 1 == p->n_layers) return (cost){0};
    double one = c->decode_sec[(size_t)layer * c->n_nodes + at], more = c->prefill_sec[(size_t)layer * c->n_nodes + at];
    return (cost){fmax(0, one - more), more};
}

dil__pieces dil__pieces_of_plan(const dil_plan *p, const dil_cluster *cluster, uint32_t n_embd, uint32_t value_bytes)
{
    dil__pieces out = {0};
    for (uint32_t i = 0; p->costs && i < p->n_stages; i++) {
        cost all = {.more_sec = PIECE_SEC};
        for (uint32_t k = 0; k < p->n_stages; k++) { /* a node that is visited again computes one of its stages at a time */
            if (strcmp(p->stages[k].node, p->stages[i].node) != 0) continue;
            for (uint32_t l = p->stages[k].first_layer; l <= p->stages[k].last_layer; l++) {
                cost one = cost_of_layer(p, &p->stages[k], l);
                all.more_sec += one.more_sec;
                all.token_sec += one.token_sec;
                if (k == i) out.sum_sec += one.token_sec;
            }
        }
        out.most_sec = fmax(out.most_sec, all.token_sec);
        out.more_sec = fmax(out.more_sec, all.more_sec);
        if (i + 1 == p->n_stages) break;
        uint32_t from = dil_cluster_find(cluster, p->stages[i].node), to = dil_cluster_find(cluster, p->stages[i + 1].node);
        const dil_cluster_link *link = from == DIL_NO_NODE || to == DIL_NO_NODE || from == to ? NULL : dil_cluster_link_get(cluster, from, to);
        double travels = link ? (double)n_embd * value_bytes / link->bytes_per_sec : 0;
        out.sum_sec += travels;
        out.most_sec = fmax(out.most_sec, travels);
    }
    return out.sum_sec > out.most_sec * 1.001 ? out : (dil__pieces){0};
}

static double seconds(const dil__pieces *p, uint32_t n, uint32_t b)
{
    double tokens = (b < TILE ? UNTILED : 1) * b, further = (n + b - 1) / b - 1.0;
    return p->sum_sec * tokens + further * (p->more_sec + p->most_sec * tokens);
}

uint32_t dil__piece_tokens(const dil__pieces *p, uint32_t n, uint32_t chunk)
{
    uint32_t best = chunk;
    if (!(p->most_sec > 0)) return chunk;
    for (uint32_t b = PIECE_MIN; b < chunk; b += b < TILE ? PIECE_MIN : TILE) {
        if (seconds(p, n, b) < seconds(p, n, best)) best = b;
    }
    return best;
}
