/* plan/path_level.c - the exact choice of levels for the layers that share a node.
 *
 * Label setting: a label is (bytes, damage, seconds) of the layers done so far. A label goes when its weighted cost plus the
 * cheapest completion that fits the bytes left (a knapsack table from behind, rounded down) exceeds the group's least cost by more
 * than the slack, or when another label is no worse in all three. Both are exact: what remains holds, for every choice within the
 * slack, one that is at least as good in damage and seconds. */
#include "plan/path_int.h"

#include <stdlib.h>
#include <string.h>

typedef struct label {
    double bytes, damage, sec;
    uint32_t parent; /* in the layer before */
    uint8_t level;
    bool dead;
} label;

typedef struct labels {
    label *v;
    size_t n, cap;
} labels;

/* The labels seen so far in order of bytes: damage ascending, seconds descending. */
typedef struct stair {
    struct step { double damage, sec; uint32_t label; } *v;
    size_t n, cap;
} stair;

static bool grow(void **v, size_t *cap, size_t need, size_t size) {
    if (need <= *cap) return true;
    size_t n = *cap ? 2 * *cap : 256;
    while (n < need) n *= 2;
    void *p = realloc(*v, n * size);
    if (!p) return false;
    *v = p;
    *cap = n;
    return true;
}

/* Adds x unless something already there is no worse; labels come with bytes ascending. */
static bool insert(labels *out, stair *s, const label *x) {
    size_t lo = 0, hi = s->n; /* first step with damage > x->damage */
    while (lo < hi) {
        const size_t mid = (lo + hi) / 2;
        if (s->v[mid].damage <= x->damage) lo = mid + 1;
        else hi = mid;
    }
    if (lo > 0 && s->v[lo - 1].sec <= x->sec) return true;
    if (!grow((void **)&out->v, &out->cap, out->n + 1, sizeof *out->v)) return false;
    if (!grow((void **)&s->v, &s->cap, s->n + 1, sizeof *s->v)) return false;
    size_t from = lo, to = lo; /* steps that x replaces: damage >= x's, seconds >= x's */
    while (from > 0 && s->v[from - 1].damage == x->damage) from--;
    while (to < s->n && s->v[to].sec >= x->sec) to++;
    for (size_t i = from; i < to; i++) /* x needs no fewer bytes; with as many it makes them useless */
        if (out->v[s->v[i].label].bytes == x->bytes) out->v[s->v[i].label].dead = true;
    if (from + 1 != to) memmove(s->v + from + 1, s->v + to, (s->n - to) * sizeof *s->v);
    s->n = s->n - (to - from) + 1;
    s->v[from] = (struct step){x->damage, x->sec, (uint32_t)out->n};
    out->v[out->n++] = *x;
    return true;
}

static void drop_dead(labels *a) {
    size_t n = 0;
    for (size_t i = 0; i < a->n; i++)
        if (!a->v[i].dead) a->v[n++] = a->v[i];
    a->n = n;
}

typedef struct search {
    const px_core *c;
    const px_weight *w;
    const px_group *g;
    double *tail; /* [n+1][n_units+1]: cheapest weighted cost of layers i.. of the group within so many units */
    double unit, limit;
    int64_t deadline_ns;
} search;

static double tail_cost(const search *s, int i, double bytes_used) {
    const int K = s->w->n_units;
    const double store = s->c->store[s->g->node];
    double u = s->unit > 0 ? (store * (1 + 1e-9) - bytes_used) / s->unit : K;
    if (u < 0) return INFINITY;
    if (u > K) u = K;
    return s->tail[(size_t)i * ((size_t)K + 1) + (size_t)u];
}

static bool make_tail(search *s) {
    const int K = s->w->n_units, n = s->g->n;
    int units[256];
    double cost[256];
    s->tail = dil__px_alloc(((size_t)n + 1) * ((size_t)K + 1), sizeof *s->tail);
    if (!s->tail) return false;
    s->unit = s->c->store[s->g->node] * (1 + 1e-9) / K;
    for (int i = n - 1; i >= 0; i--) {
        const int l = s->g->layer[i];
        dil__px_units(s->c, s->g->node, l, K, units);
        for (int q = 0; q < s->c->n_levels; q++)
            cost[q] = px_cost(s->c, s->w, s->g->node, l, q);
        dil__px_knap_step(s->tail + (size_t)(i + 1) * ((size_t)K + 1), s->tail + (size_t)i * ((size_t)K + 1), K, units, cost,
                          s->c->n_levels);
    }
    return true;
}

/* One layer more: the labels of all levels merged in order of bytes. The last layer drops the bytes. 0 on success, 1: too many
 * labels, -1: no memory. */
static int extend(const search *s, int i, const labels *in, labels *out, stair *st) {
    const px_core *c = s->c;
    const int Q = c->n_levels, l = s->g->layer[i];
    const bool last = i + 1 == s->g->n;
    const double store = c->store[s->g->node];
    size_t at[256] = {0};
    out->n = st->n = 0;
    for (size_t step = 0;; step++) {
        int best = -1;
        double least = INFINITY;
        for (int q = 0; q < Q; q++) {
            if (at[q] >= in->n) continue;
            const double b = in->v[at[q]].bytes + px_bytes(c, l, q);
            if (b < least) {
                least = b;
                best = q;
            }
        }
        if (best < 0 || least > store) return 0;
        const label *from = in->v + at[best];
        label x = {least, from->damage + px_damage(c, l, best), from->sec + px_sec(c, s->g->node, l, best),
                   (uint32_t)at[best]++, (uint8_t)best, false};
        if (s->w->sec * x.sec + s->w->damage * x.damage + tail_cost(s, i + 1, x.bytes) > s->limit) continue;
        if (last) x.bytes = 0;
        if (!insert(out, st, &x)) return -1;
        if (out->n > PX_LABELS_MAX) return 1;
        if ((step & 0xfff) == 0xfff && dil_now_ns() > s->deadline_ns) return 1;
    }
}

static bool collect(const search *s, labels *by_layer, px_front *f) {
    const int n_layers = s->g->n;
    labels *end = &by_layer[n_layers];
    f->n_layers = n_layers;
    f->n = (int)end->n;
    f->damage = dil__px_alloc(end->n, sizeof(double));
    f->sec = dil__px_alloc(end->n, sizeof(double));
    f->level = dil__px_alloc(end->n * (size_t)n_layers, 1);
    if (!f->damage || !f->sec || !f->level) return false;
    for (size_t i = 0; i < end->n; i++) {
        const label *x = &end->v[i];
        f->damage[i] = x->damage;
        f->sec[i] = x->sec;
        for (int l = n_layers; l > 0; l--) {
            f->level[i * (size_t)n_layers + (size_t)l - 1] = x->level;
            x = &by_layer[l - 1].v[x->parent];
        }
    }
    return true;
}

static int by_damage(const void *a, const void *b) {
    const label *x = a, *y = b;
    return x->damage < y->damage ? -1 : x->damage > y->damage;
}

bool dil__px_front_build(const px_core *c, const px_weight *w, const px_group *g, double slack, int64_t deadline_ns, px_front *out) {
    search s = {.c = c, .w = w, .g = g, .deadline_ns = deadline_ns};
    stair st = {0};
    labels *by_layer = dil__px_alloc((size_t)g->n + 1, sizeof *by_layer);
    *out = (px_front){.complete = true, .slack = slack};
    bool ok = by_layer && make_tail(&s) && grow((void **)&by_layer[0].v, &by_layer[0].cap, 1, sizeof(label));
    if (ok) {
        const double least = s.tail[w->n_units];
        s.limit = least + slack + 1e-12 * fabs(least);
        by_layer[0].v[by_layer[0].n++] = (label){0};
    }
    for (int i = 0; ok && i < g->n; i++) {
        const int rc = extend(&s, i, &by_layer[i], &by_layer[i + 1], &st);
        ok = rc >= 0;
        if (rc > 0) out->complete = false;
        drop_dead(&by_layer[i + 1]);
    }
    if (ok) {
        labels *end = &by_layer[g->n];
        if (end->n > 1) qsort(end->v, end->n, sizeof(label), by_damage);
        ok = collect(&s, by_layer, out);
    }
    for (int i = 0; by_layer && i <= g->n; i++) free(by_layer[i].v);
    free(by_layer);
    free(st.v);
    free(s.tail);
    if (!ok) dil__px_front_fini(out);
    return ok;
}

void dil__px_front_fini(px_front *f) {
    free(f->damage);
    free(f->sec);
    free(f->level);
    *f = (px_front){0};
}
