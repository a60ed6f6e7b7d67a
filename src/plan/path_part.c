/* plan/path_part.c - the problem over some of the nodes, renumbered, so that what searches them finds them side by side. */
#include "plan/path_int.h"

#include <stdlib.h>
#include <string.h>

static void part_free(px_part *k, px_plan *inner) {
    free(k->sec);
    free(k->store);
    free(k->hop);
    free(k->source);
    free(k->sink);
    free(inner->node);
    free(inner->level);
}

static void copy_nodes(px_part *k, const px_core *c, const int *node, int n) {
    const size_t row = (size_t)c->n_layers * (size_t)c->n_levels;
    for (int i = 0; i < n; i++) {
        const int s = node[i];
        memcpy(k->sec + (size_t)i * row, c->sec + (size_t)s * row, row * sizeof(double));
        k->store[i] = c->store[s];
        k->source[i] = c->source[s];
        k->sink[i] = c->sink[s];
        for (int j = 0; j < n; j++) k->hop[(size_t)i * (size_t)n + (size_t)j] = i == j ? 0 : px_hop(c, s, node[j]);
    }
    k->core.n_nodes = n;
    k->core.sec = k->sec;
    k->core.store = k->store;
    k->core.hop = k->hop;
    k->core.links = NULL;
    k->core.source = k->source;
    k->core.sink = k->sink;
}

/* The plan in the part's numbers; one on nodes that the part lacks is not taken over. */
static void to_part(const px_core *c, const int *node, int n, const px_plan *from, px_plan *to) {
    to->found = from->found;
    for (int l = 0; l < c->n_layers && to->found; l++) {
        int at = 0;
        while (at < n && node[at] != from->node[l]) at++;
        if (at == n) to->found = false;
        else to->node[l] = at;
        to->level[l] = from->level[l];
    }
    to->sec = from->sec;
    to->damage = from->damage;
    to->trail = from->trail;
}

bool dil__px_part_init(px_part *k, const px_core *c, const int *node, int n, const px_plan *whole, px_plan *inner) {
    const size_t L = (size_t)c->n_layers, S = (size_t)n;
    *k = (px_part){.core = *c};
    *inner = (px_plan){.node = dil__px_alloc(L, sizeof(int)), .level = dil__px_alloc(L, sizeof(int))};
    k->sec = dil__px_alloc(S, L * (size_t)c->n_levels * sizeof(double));
    k->store = dil__px_alloc(S, sizeof(double));
    k->hop = dil__px_alloc(S * S, sizeof(double));
    k->source = dil__px_alloc(S, sizeof(double));
    k->sink = dil__px_alloc(S, sizeof(double));
    if (!k->sec || !k->store || !k->hop || !k->source || !k->sink || !inner->node || !inner->level) {
        part_free(k, inner);
        return false;
    }
    copy_nodes(k, c, node, n);
    to_part(c, node, n, whole, inner);
    return true;
}

void dil__px_part_fini(px_part *k, const int *node, px_plan *inner, px_plan *whole) {
    const size_t L = (size_t)k->core.n_layers;
    if (inner->found && (!whole->found || inner->sec < whole->sec)) {
        for (size_t l = 0; l < L; l++) {
            whole->node[l] = node[inner->node[l]];
            whole->level[l] = inner->level[l];
        }
        whole->sec = inner->sec;
        whole->damage = inner->damage;
        whole->found = true;
    }
    part_free(k, inner);
}
