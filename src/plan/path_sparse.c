/* plan/path_sparse.c - first plans for many nodes with few links, and the weight on damage that suits them.
 *
 * At the weight of the relaxation's bound the cheapest structures nearly all miss the quality budget, for relaxed ways have the best nodes to themselves
 * twice. So ways without repeats (path_walk.c) are found again at the weight at which the cheapest of them meet it. */
#include "plan/path_use.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { N_WAYS = 64, N_ROUND = 32, N_DAMAGE = 5, LABELS = 8, ROUNDS = 3, UNITS = 768 };

static const double NEAR = 0.1; /* logarithm of damage over budget that will do */

static bool round_ways(px_sparse *k, const px_walk *w) {
    const int L = k->x->c->n_layers;
    const double weight = k->x->w.damage > 0 ? k->x->w.damage : 1e-6;
    for (int i = 0; i < w->n_ways && i < N_ROUND; i++)
        if (!dil__px_round_well(k->x->c, w->node + (size_t)i * (size_t)L, weight, k->best)) return false;
    return true;
}

/* What the structure's levels damage at the weight at hand; 0: they fit nowhere. */
static double damage_of(const px_sparse *k, const int *node) {
    const px_core *c = k->x->c;
    const px_weight w = {.sec = 1, .damage = k->x->w.damage};
    px_group group[1024];
    int layers[1024], level[1024];
    double damage = 0;
    for (int i = 0, n = dil__px_groups(c, node, group, layers); i < n; i++) {
        if (!dil__px_group_levels(c, &w, &group[i], c->store[group[i].node], UNITS, level)) return 0;
        for (int j = 0; j < group[i].n; j++) damage += px_damage(c, group[i].layer[j], level[j]);
    }
    return damage;
}

/* The cheapest ways' geometric mean; 0: none. */
static double mean_damage(const px_sparse *k, const px_walk *w) {
    double sum = 0;
    int n = 0;
    for (int i = 0; i < w->n_ways && i < N_DAMAGE; i++) {
        const double damage = damage_of(k, w->node + (size_t)i * (size_t)k->x->c->n_layers);
        if (!(damage > 0)) continue;
        sum += log(damage);
        n++;
    }
    return n > 0 ? exp(sum / n) : 0;
}

/* The nodes of the ways by their cheapest, then the nodes around these by the cheapest ways of the relaxation. */
static void note_worth(px_sparse *k, const px_walk *w) {
    const px_core *c = k->x->c;
    const size_t n = (size_t)w->n_ways * (size_t)c->n_layers;
    double *least = k->worth + c->n_nodes;
    dil__px_ng_least(k->x, least);
    for (int s = 0; s < c->n_nodes; s++) k->worth[s] = INFINITY;
    for (size_t i = n; i-- > 0;) k->worth[w->node[i]] = w->cost[i / (size_t)c->n_layers];
    for (size_t i = 0; i < n; i++)
        for (int e = c->links->first[w->node[i]]; e < c->links->first[w->node[i] + 1]; e++) {
            const int t = c->links->to[e];
            k->worth[t] = fmin(k->worth[t], w->cost[w->n_ways - 1] + least[t]);
        }
}

static bool run(px_sparse *k, px_walk *w) {
    px_tune tune = {.left = ROUNDS - 1};
    double weight = k->damage;
    for (int i = 0; i < ROUNDS && dil_now_ns() < k->deadline_ns; i++) {
        k->damage = weight;
        if (!dil__px_ng_relax(k->x, weight, k->price)) return false;
        dil__px_ng_drop(k->x, INFINITY); /* for the ways to every cell */
        if (!dil__px_ng_walk(k->x, INFINITY, LABELS, w) || !round_ways(k, w)) return false;
        dil_log(DIL_LOG_DEBUG, "path", "%d ways at %.4g: from %.6g, plan %.6g, %.2f s of CPU", w->n_ways, weight,
                w->n_ways > 0 ? px_seconds(k->x->c, &k->x->w, w->cost[0]) : INFINITY, k->best->found ? k->best->sec : INFINITY, (double)clock() / CLOCKS_PER_SEC);
        if (!dil__px_retune(&tune, mean_damage(k, w), k->x->c->damage_max, NEAR, &weight)) break;
    }
    return true;
}

bool dil__px_sparse_plans(px_sparse *k) {
    const size_t L = (size_t)k->x->c->n_layers;
    px_walk w = {.most_ways = N_WAYS, .cost = dil__px_alloc(N_WAYS, sizeof(double)), .node = dil__px_alloc(N_WAYS * L, sizeof(int))};
    const bool ok = w.cost && w.node && run(k, &w);
    if (ok) note_worth(k, &w);
    free(w.cost);
    free(w.node);
    return ok;
}
