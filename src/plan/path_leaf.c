/* plan/path_leaf.c - the best levels of one structure, exactly.
 *
 * Every node's layers (all its visits together) have their front of (damage, seconds); fronts are cached, because the structures
 * that survive share most of their visits. The fronts are summed one after the other under the same weighted limits, and the last
 * one is met by bisection. */
#include "plan/path_leaf.h"

#include "plan/path_fit.h"

#include <stdlib.h>
#include <string.h>

typedef struct point {
    double damage, sec;
    uint32_t from, pick; /* in the stage before, in the group's front */
} point;

typedef struct stage {
    point *v;
    size_t n, cap;
} stage;

typedef struct costs { /* of groups, by weight */
    px_map *index;
    double *v; /* [n][n_w] */
    size_t n, cap;
} costs;

struct px_leaf {
    px_map *solved, *fronts_of;
    px_front *front;
    size_t n_fronts, cap_fronts;
    costs of_tree, of_leaf;
    double *scratch; /* knapsack rows */
    int *layers;     /* [L] */
    px_group *group; /* [<= L] */
    double *cost;    /* [groups][n_w] */
    const px_front **chosen;
    stage *stages;   /* [groups] */
};

static bool reserve(void **v, size_t *cap, size_t need, size_t size) {
    if (need <= *cap) return true;
    size_t n = *cap ? 2 * *cap : 64;
    while (n < need) n *= 2;
    void *p = realloc(*v, n * size);
    if (!p) return false;
    *v = p;
    *cap = n;
    return true;
}

px_leaf *dil__px_leaf_new(const px_tree *t) {
    const size_t L = (size_t)t->c->n_layers;
    px_leaf *f = dil__px_alloc(1, sizeof *f);
    if (!f) return NULL;
    f->solved = dil__px_map_new();
    f->fronts_of = dil__px_map_new();
    f->of_tree.index = dil__px_map_new();
    f->of_leaf.index = dil__px_map_new();
    f->scratch = dil__px_alloc(2 * ((size_t)t->w[0].n_units + 1), sizeof *f->scratch);
    f->layers = dil__px_alloc(L, sizeof *f->layers);
    f->group = dil__px_alloc(L, sizeof *f->group);
    f->cost = dil__px_alloc(L * (size_t)t->n_leaf_w, sizeof *f->cost);
    f->chosen = dil__px_alloc(L, sizeof *f->chosen);
    f->stages = dil__px_alloc(L, sizeof *f->stages);
    if (f->solved && f->fronts_of && f->of_tree.index && f->of_leaf.index && f->scratch && f->layers && f->group && f->cost && f->chosen && f->stages) return f;
    dil__px_leaf_free(t, f);
    return NULL;
}

void dil__px_leaf_free(const px_tree *t, px_leaf *f) {
    if (!f) return;
    for (size_t i = 0; i < f->n_fronts; i++) dil__px_front_fini(&f->front[i]);
    for (int i = 0; f->stages && i < t->c->n_layers; i++) free(f->stages[i].v);
    dil__px_map_free(f->solved);
    dil__px_map_free(f->fronts_of);
    dil__px_map_free(f->of_tree.index);
    dil__px_map_free(f->of_leaf.index);
    free(f->front);
    free(f->of_tree.v);
    free(f->of_leaf.v);
    free(f->scratch);
    free(f->layers);
    free(f->group);
    free(f->cost);
    free(f->chosen);
    free(f->stages);
    free(f);
}

static px_key group_key(const px_group *g) {
    px_key k = {0, 0};
    dil__px_key_add(&k, (uint64_t)g->node);
    for (int i = 0; i < g->n; i++) dil__px_key_add(&k, (uint64_t)g->layer[i]);
    return k;
}

static double *costs_of(costs *k, int n_w, const px_group *g) {
    bool is_new;
    uint32_t *at = dil__px_map_at(k->index, group_key(g), &is_new);
    if (!at) return NULL;
    if (is_new) {
        if (!reserve((void **)&k->v, &k->cap, (k->n + 1) * (size_t)n_w, sizeof *k->v)) return NULL;
        for (int i = 0; i < n_w; i++) k->v[k->n * (size_t)n_w + (size_t)i] = NAN;
        *at = (uint32_t)k->n++;
    }
    return k->v + *at * (size_t)n_w;
}

double *dil__px_union_cost(px_tree *t, px_leaf *f, const px_group *g) { return costs_of(&f->of_tree, t->n_w, g); }

double dil__px_union_fill(px_tree *t, px_leaf *f, const px_group *g, double *cost, int k) {
    if (isnan(cost[k])) {
        cost[k] = dil__px_group_cost(t->c, &t->w[k], g, f->scratch);
        t->n_unions++;
    }
    return cost[k];
}

static const px_front *front_of(px_tree *t, px_leaf *f, const px_group *g, int k, double slack) {
    px_key key = group_key(g);
    dil__px_key_add(&key, (uint64_t)k);
    bool is_new;
    uint32_t *at = dil__px_map_at(f->fronts_of, key, &is_new);
    if (!at) return NULL;
    if (!is_new && f->front[*at].slack >= slack && f->front[*at].complete) return &f->front[*at];
    px_front made;
    if (!dil__px_front_build(t->c, &t->leaf_w[k], g, slack * 1.25, t->deadline_ns, &made)) return NULL;
    t->n_fronts++;
    if (is_new) {
        if (!reserve((void **)&f->front, &f->cap_fronts, f->n_fronts + 1, sizeof *f->front)) {
            dil__px_front_fini(&made);
            return NULL;
        }
        *at = (uint32_t)f->n_fronts++;
    } else {
        dil__px_front_fini(&f->front[*at]);
    }
    f->front[*at] = made;
    return &f->front[*at];
}

static int by_damage(const void *a, const void *b) {
    const point *x = a, *y = b;
    if (x->damage != y->damage) return x->damage < y->damage ? -1 : 1;
    return x->sec < y->sec ? -1 : x->sec > y->sec;
}

static void keep_pareto(stage *s) {
    size_t n = 0;
    if (s->n > 1) qsort(s->v, s->n, sizeof *s->v, by_damage);
    for (size_t i = 0; i < s->n; i++)
        if (n == 0 || s->v[i].sec < s->v[n - 1].sec) s->v[n++] = s->v[i];
    s->n = n;
}

/* Sums of a stage and a front, within the limits left for each weight. */
static int combine(const px_tree *t, const stage *in, const px_front *g, const double *room, stage *out) {
    out->n = 0;
    for (size_t i = 0; i < in->n; i++)
        for (int j = 0; j < g->n; j++) {
            const point x = {in->v[i].damage + g->damage[j], in->v[i].sec + g->sec[j], (uint32_t)i, (uint32_t)j};
            bool fits = true;
            for (int k = 0; k < t->n_leaf_w && fits; k++) fits = t->leaf_w[k].sec * x.sec + t->leaf_w[k].damage * x.damage <= room[k];
            if (!fits) continue;
            if (out->n > PX_LABELS_MAX) return 1;
            if (!reserve((void **)&out->v, &out->cap, out->n + 1, sizeof *out->v)) return -1;
            out->v[out->n++] = x;
        }
    keep_pareto(out);
    return 0;
}

/* The fastest sum of a stage and a front within the damage left. */
static bool finish(const px_tree *t, const stage *in, const px_front *g, point *best) {
    best->sec = INFINITY;
    int j = g->n - 1; /* stage damage ascends, so the front's damage descends */
    for (size_t i = 0; i < in->n; i++) {
        while (j >= 0 && in->v[i].damage + g->damage[j] > px_budget(t->c)) j--;
        if (j < 0) break;
        const double sec = in->v[i].sec + g->sec[j];
        if (sec < best->sec) *best = (point){in->v[i].damage + g->damage[j], sec, (uint32_t)i, (uint32_t)j};
    }
    return best->sec < INFINITY;
}

static void adopt(px_tree *t, px_leaf *f, const int *node, int n_groups, point last) {
    int level[1024];
    uint32_t pick = last.pick, from = last.from;
    for (int i = n_groups - 1; i >= 0; i--) {
        const px_group *g = &f->group[i];
        for (int k = 0; k < g->n; k++) level[g->layer[k]] = f->chosen[i]->level[(size_t)pick * (size_t)g->n + (size_t)k];
        if (i == 0) break;
        const point *p = &f->stages[i - 1].v[from];
        pick = p->pick;
        from = p->from;
    }
    double sec, damage;
    if (!dil__px_evaluate(t->c, node, level, &sec, &damage) || damage > px_budget(t->c)) return;
    if (t->best->found && sec >= t->best->sec) return;
    dil__px_take(t->best, t->c->n_layers, node, level, sec, damage);
}

static double hops_of(const px_core *c, const int *node) {
    double hops = c->source[node[0]] + c->sink[node[c->n_layers - 1]];
    for (int l = 1; l < c->n_layers; l++)
        if (node[l] != node[l - 1]) hops += px_hop(c, node[l - 1], node[l]);
    return hops;
}

/* What the limits leave when every group costs its least, by weight; false when some limit is passed. *k: the weight that leaves
 * least; *bound: seconds that no levels can beat. */
static bool make_room(const px_tree *t, const px_leaf *f, const int *node, int n_groups, double *room, int *k, double *bound) {
    const double hops = hops_of(t->c, node), upper = px_target(t);
    *k = 0;
    *bound = 0;
    for (int j = 0; j < t->n_leaf_w; j++) {
        const px_weight *w = &t->leaf_w[j];
        double total = w->sec * hops;
        for (int i = 0; i < n_groups; i++) total += f->cost[i * t->n_leaf_w + j];
        room[j] = px_limit(t->c, w, upper) - total;
        if (!(room[j] >= 0)) return false;
        *bound = fmax(*bound, px_seconds(t->c, w, total));
        if (w->sec > 0 && room[j] / w->sec < room[*k] / t->leaf_w[*k].sec) *k = j;
    }
    return true;
}

static int choose_fronts(px_tree *t, px_leaf *f, int n_groups, int k, double slack, double bound) {
    for (int i = 0; i < n_groups; i++)
        if (!front_of(t, f, &f->group[i], k, slack)) return -1;
    for (int i = 0; i < n_groups; i++) { /* only now: the cache moves as it grows */
        px_key key = group_key(&f->group[i]);
        bool is_new;
        dil__px_key_add(&key, (uint64_t)k);
        f->chosen[i] = &f->front[*dil__px_map_at(f->fronts_of, key, &is_new)];
        if (!f->chosen[i]->complete) t->lost = fmin(t->lost, bound);
        if (f->chosen[i]->n == 0) return 0;
    }
    return 1;
}

/* 1: go on, 0: the structure is settled, -1: no memory. */
static int sum_fronts(px_tree *t, px_leaf *f, const int *node, int n_groups, double *room, double bound) {
    point zero = {0}, last = {0};
    stage none = {&zero, 1, 1};
    const stage *in = &none;
    for (int i = 0; i + 1 < n_groups; i++) {
        for (int j = 0; j < t->n_leaf_w; j++) room[j] += f->cost[i * t->n_leaf_w + j];
        const int rc = combine(t, in, f->chosen[i], room, &f->stages[i]);
        if (rc < 0) return -1;
        if (rc > 0) t->lost = fmin(t->lost, bound);
        in = &f->stages[i];
    }
    if (finish(t, in, f->chosen[n_groups - 1], &last)) adopt(t, f, node, n_groups, last);
    return 0;
}

bool dil__px_leaf_solve(px_tree *t, px_leaf *f, const int *node) {
    px_key key = {1, 1};
    for (int l = 0; l < t->c->n_layers; l++) dil__px_key_add(&key, (uint64_t)node[l]);
    bool is_new;
    if (!dil__px_map_at(f->solved, key, &is_new)) return false;
    if (!is_new) return true;
    if (t->c->real) return dil__px_fit_leaf(t, node);
    t->n_leaves++;
    double w_damage = t->leaf_w[0].damage > 0 ? t->leaf_w[0].damage : 1e-6;
    if (!t->best->found) dil__px_round(t->c, node, &w_damage, t->best); /* any plan narrows the exact search below */
    const int n_groups = dil__px_groups(t->c, node, f->group, f->layers);
    for (int i = 0; i < n_groups; i++) {
        double *cost = costs_of(&f->of_leaf, t->n_leaf_w, &f->group[i]);
        if (!cost) return false;
        for (int k = 0; k < t->n_leaf_w; k++)
            if (isnan(cost[k])) cost[k] = dil__px_group_cost(t->c, &t->leaf_w[k], &f->group[i], f->scratch);
        memcpy(f->cost + i * t->n_leaf_w, cost, (size_t)t->n_leaf_w * sizeof *cost);
    }
    double room[PX_WEIGHTS_MAX], bound;
    int k;
    if (!make_room(t, f, node, n_groups, room, &k, &bound)) return true;
    const int rc = choose_fronts(t, f, n_groups, k, room[k], bound);
    if (rc <= 0) return rc == 0;
    return sum_fronts(t, f, node, n_groups, room, bound) >= 0;
}
