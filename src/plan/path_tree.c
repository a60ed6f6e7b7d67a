/* plan/path_tree.c - depth first over structures: which node takes how many of the next layers.
 *
 * A branch is a visit together with its size class (small or large), so that the completion bound knows which large visits are
 * spent. Visits of one node are charged together: their union is a knapsack of its own. A branch is left when for some weight the
 * cost so far plus the cheapest completion passes what a better plan may cost; at the end of a branch the levels are chosen
 * exactly (path_leaf.c). Children are explored in the order of their bounds. */
#include "plan/path_leaf.h"

#include <stdlib.h>
#include <string.h>

typedef struct child {
    double bound;
    px_visit visit;
} child;

typedef struct walk {
    px_tree *t;
    px_leaf *leaf;
    px_visit *visit; /* [L] of the branch */
    int n_visits;
    double *so_far;    /* [L+1][n_w] weighted hops and node costs */
    double *node_cost; /* [S][n_w] of the branch's visits of the node */
    int *n_of;         /* [S] visits of the node */
    int *node;         /* [L] structure */
    int *layers;       /* [L] of one group */
    child *pool;
    size_t n_pool, cap_pool;
    double limit[PX_WEIGHTS_MAX];
    double upper;      /* the limits are for this */
    bool stop;
    uint64_t steps;
} walk;

static void set_limits(walk *w) {
    w->upper = px_target(w->t);
    for (int k = 0; k < w->t->n_w; k++) w->limit[k] = px_limit(w->t->c, &w->t->w[k], w->upper);
}

static bool out_of_time(walk *w) {
    if ((++w->steps & 0x3f) == 0) {
        if (dil_now_ns() > w->t->deadline_ns) w->stop = true;
        if (!dil_progress_step(w->t->progress, "planning", 0, 1)) w->stop = w->t->canceled = true;
    }
    if (w->t->best->found && w->t->best->sec <= w->t->stop_at) w->stop = true;
    if (w->t->most > 0 && w->t->n_nodes >= w->t->most) w->stop = w->t->exhausted = true;
    return w->stop;
}

/* The layers of v's node in the branch and in v. */
static px_group union_with(walk *w, const px_visit *v) {
    px_group g = {v->node, 0, w->layers};
    for (int i = 0; i < w->n_visits; i++)
        if (w->visit[i].node == v->node)
            for (int l = 0; l < w->visit[i].n; l++) w->layers[g.n++] = w->visit[i].first + l;
    for (int l = 0; l < v->n; l++) w->layers[g.n++] = v->first + l;
    return g;
}

/* Cost of v's node after v, by weight: its visits apart, or their union if that says more. */
static bool node_cost_after(walk *w, const px_visit *v, double *cost) {
    const px_tree *t = w->t;
    const size_t at = px_visit_at(t->c, t->g, v->node, v->first, v->n);
    const double *before = w->node_cost + (size_t)v->node * (size_t)t->n_w;
    for (int k = 0; k < t->n_w; k++) cost[k] = before[k] + (v->small ? t->w[k].small[at] : t->w[k].large[at]);
    if (w->n_of[v->node] == 0) return true;
    const px_group g = union_with(w, v);
    double *both = dil__px_union_cost(w->t, w->leaf, &g);
    if (!both) return false;
    for (int k = 0; k < t->n_w; k++) cost[k] = fmax(cost[k], dil__px_union_fill(w->t, w->leaf, &g, both, k));
    return true;
}

/* Weighted cost of a plan through the branch and v at the weight k, when v's node then costs `cost`. */
static double way_through(const walk *w, const px_visit *v, double hop, size_t rest, double cost, int k) {
    const px_tree *t = w->t;
    return w->so_far[(size_t)w->n_visits * (size_t)t->n_w + (size_t)k] + t->w[k].sec * hop + cost -
           w->node_cost[(size_t)v->node * (size_t)t->n_w + (size_t)k] + t->w[k].rest[rest];
}

/* Least seconds of a plan through the branch and v, INFINITY when some limit is passed; NaN: no memory. The union of the node's
 * visits is only asked for when all weights let v pass without it, and weight by weight. */
static double bound_of(walk *w, const px_visit *v, double hop, unsigned mask) {
    px_tree *t = w->t;
    const size_t rest = px_rest_at(t->c, t->g, v->first + v->n, v->node, px_mask_after(t->g, mask, v->node, v->small));
    const size_t at = px_visit_at(t->c, t->g, v->node, v->first, v->n);
    const double *before = w->node_cost + (size_t)v->node * (size_t)t->n_w;
    double bound = 0, cost[PX_WEIGHTS_MAX];
    for (int k = 0; k < t->n_w; k++) {
        cost[k] = before[k] + (v->small ? t->w[k].small[at] : t->w[k].large[at]);
        const double x = way_through(w, v, hop, rest, cost[k], k);
        if (!(x <= w->limit[k]) || x == INFINITY) return INFINITY;
        bound = fmax(bound, px_seconds(t->c, &t->w[k], x));
    }
    if (w->n_of[v->node] == 0) return bound;
    const px_group g = union_with(w, v);
    double *both = dil__px_union_cost(t, w->leaf, &g);
    if (!both) return NAN;
    for (int k = 0; k < t->n_w; k++) {
        const double x = way_through(w, v, hop, rest, fmax(cost[k], dil__px_union_fill(t, w->leaf, &g, both, k)), k);
        if (!(x <= w->limit[k]) || x == INFINITY) return INFINITY;
        bound = fmax(bound, px_seconds(t->c, &t->w[k], x));
    }
    return bound;
}

static bool try_child(walk *w, px_visit v, double hop, unsigned mask) {
    const double bound = bound_of(w, &v, hop, mask);
    if (isnan(bound)) return false;
    if (bound == INFINITY) return true;
    if (w->n_pool == w->cap_pool) {
        const size_t cap = w->cap_pool ? 2 * w->cap_pool : 1024;
        child *p = realloc(w->pool, cap * sizeof *p);
        if (!p) return false;
        w->pool = p;
        w->cap_pool = cap;
    }
    w->pool[w->n_pool++] = (child){bound, v};
    return true;
}

static bool make_children(walk *w, int layer, int last, unsigned mask) {
    const px_core *c = w->t->c;
    const px_graph *g = w->t->g;
    for (int s = 0; s < c->n_nodes; s++) {
        const double hop = last < 0 ? c->source[s] : s == last ? INFINITY : px_hop_into(c, last, s, layer);
        if (!(hop < INFINITY)) continue;
        if (c->twin && w->n_of[s] == 0 && c->twin[s] >= 0 && w->n_of[c->twin[s]] == 0) continue; /* the twin comes first */
        const bool spent = (mask & px_mask_of(g, s)) != 0;
        for (int n = 1; n <= g->run_max[s * c->n_layers + layer]; n++) {
            if (px_mask_of(g, s) && !try_child(w, (px_visit){s, layer, n, true}, hop, mask)) return false; /* else it is in the large one */
            if (!spent && !try_child(w, (px_visit){s, layer, n, false}, hop, mask)) return false;
        }
    }
    return true;
}

static int by_bound(const void *a, const void *b) {
    const child *x = a, *y = b;
    return x->bound < y->bound ? -1 : x->bound > y->bound;
}

static bool explore(walk *w, int layer, int last, unsigned mask);

static bool descend(walk *w, const px_visit *v, int last, unsigned mask) {
    px_tree *t = w->t;
    const size_t n_w = (size_t)t->n_w;
    double cost[PX_WEIGHTS_MAX], before[PX_WEIGHTS_MAX];
    double *node_cost = w->node_cost + (size_t)v->node * n_w;
    const double hop = last < 0 ? t->c->source[v->node] : px_hop_into(t->c, last, v->node, v->first);
    if (!node_cost_after(w, v, cost)) return false;
    memcpy(before, node_cost, n_w * sizeof *before);
    const double *so_far = w->so_far + (size_t)w->n_visits * n_w;
    double *next = w->so_far + (size_t)(w->n_visits + 1) * n_w;
    for (size_t k = 0; k < n_w; k++) next[k] = so_far[k] + t->w[k].sec * hop + cost[k] - before[k];
    memcpy(node_cost, cost, n_w * sizeof *cost);
    w->visit[w->n_visits++] = *v;
    w->n_of[v->node]++;
    for (int l = 0; l < v->n; l++) w->node[v->first + l] = v->node;
    const bool ok = explore(w, v->first + v->n, v->node, px_mask_after(t->g, mask, v->node, v->small));
    w->n_of[v->node]--;
    w->n_visits--;
    memcpy(node_cost, before, n_w * sizeof *before);
    return ok;
}

static bool explore(walk *w, int layer, int last, unsigned mask) {
    px_tree *t = w->t;
    t->n_nodes++;
    if (layer == t->c->n_layers) {
        if (!dil__px_leaf_solve(t, w->leaf, w->node)) return false;
        set_limits(w);
        return true;
    }
    const size_t base = w->n_pool;
    if (!make_children(w, layer, last, mask)) return false;
    const size_t n = w->n_pool - base;
    if (n == 0) return true;
    qsort(w->pool + base, n, sizeof *w->pool, by_bound);
    for (size_t i = 0; i < n; i++) {
        const child ch = w->pool[base + i];
        if (ch.bound >= w->upper) break;
        if (out_of_time(w)) {
            t->lost = fmin(t->lost, ch.bound);
            break;
        }
        if (!descend(w, &ch.visit, last, mask)) return false;
    }
    w->n_pool = base;
    return true;
}

bool dil__px_tree_run(px_tree *t) {
    t->exhausted = false;
    const size_t L = (size_t)t->c->n_layers, S = (size_t)t->c->n_nodes, n_w = (size_t)t->n_w;
    walk w = {.t = t};
    w.leaf = dil__px_leaf_new(t);
    w.visit = dil__px_alloc(L, sizeof *w.visit);
    w.so_far = dil__px_alloc((L + 1) * n_w, sizeof *w.so_far);
    w.node_cost = dil__px_alloc(S * n_w, sizeof *w.node_cost);
    w.n_of = dil__px_alloc(S, sizeof *w.n_of);
    w.node = dil__px_alloc(L, sizeof *w.node);
    w.layers = dil__px_alloc(L, sizeof *w.layers);
    bool ok = w.leaf && w.visit && w.so_far && w.node_cost && w.n_of && w.node && w.layers;
    if (ok) {
        set_limits(&w);
        ok = explore(&w, 0, -1, 0);
    }
    dil__px_leaf_free(t, w.leaf);
    free(w.visit);
    free(w.so_far);
    free(w.node_cost);
    free(w.n_of);
    free(w.node);
    free(w.layers);
    free(w.pool);
    return ok;
}
