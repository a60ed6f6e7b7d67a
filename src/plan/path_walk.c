/* plan/path_walk.c - plans for many nodes with few links: the cheapest structures that come back to no node, some for every cell.
 *
 * A way of few links is local, and a network has as many regions as it has nodes. A beam compares ways of all regions by guesses, and the completions
 * that a guess needs are the relaxation's, cheapest where two good nodes lie side by side, not where a dozen do. Here ways are only compared with those that
 * end in the same cell (boundary between layers, node), whose completions are the same but for the nodes that they bar. Of every cell the
 * cheapest `most` are kept, no two over the same nodes, from the front up to the middle and from the end down to it, where they are joined. */
#include "plan/path_ng.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 16, MOST = 32 };

typedef struct ranked {
    double cost;
    uint64_t set; /* a bit for every node, by its number: what has none in common has no node in common */
} ranked;

typedef struct step {
    ranked r;
    int from_node; /* the step before it: -1: none */
    uint8_t from_at, n; /* n: layers of the visit */
} step;

typedef struct walk {
    px_ng *x;
    const px_links *links[2]; /* those that enter a node, those that leave it */
    double limit;
    int most, middle, low;    /* from the front up to the boundary middle, from the end down to low */
    step *v[2];
    uint8_t *n[2];            /* of a cell */
    int dir, b;
} walk;

typedef struct starts { int n; step v[MOST]; } starts;

static uint64_t bit_of(int node) { return 1ull << ((unsigned)node * 0x9e3779b1u >> 26); }
static size_t cell(const walk *k, int b, int s) { return (size_t)b * (size_t)k->x->c->n_nodes + (size_t)s; }
static size_t own(const walk *k, int dir, int b, int s) { return cell(k, b - (dir ? k->low : 0), s); }
static step *list(const walk *k, int dir, int b, int s) { return k->v[dir] + own(k, dir, b, s) * (size_t)k->most; }

static bool on_way(const walk *k, int dir, int b, int s, int at, int node) {
    while (s >= 0) {
        const step *y = &list(k, dir, b, s)[at];
        if (s == node) return true;
        if (!(y->r.set & bit_of(node))) return false;
        b += dir ? y->n : -y->n;
        s = y->from_node;
        at = y->from_at;
    }
    return false;
}

static const ranked *rank_of(const char *list, size_t size, int i) { return (const void *)(list + (size_t)i * size); } /* the first member of both */

/* Room for one of that cost and set in a list [*n] of steps or joins, ascending by cost, of equal sets the cheaper only, at most `most`. NULL: it is none of them. */
static void *place(void *list, size_t size, int *n, int most, ranked y) {
    char *v = list;
    int i = 0;
    if (*n == most && y.cost >= rank_of(v, size, *n - 1)->cost) return NULL;
    while (i < *n && rank_of(v, size, i)->cost <= y.cost)
        if (rank_of(v, size, i++)->set == y.set) return NULL;
    int hole = i;
    while (hole < *n && rank_of(v, size, hole)->set != y.set) hole++;
    if (hole == *n) {
        if (*n < most) ++*n;
        else hole--;
    }
    memmove(v + (size_t)(i + 1) * size, v + (size_t)i * size, (size_t)(hole - i) * size);
    return v + (size_t)i * size;
}

static void note(step *v, int *n, int most, step y) {
    step *to = place(v, sizeof *v, n, most, y.r);
    if (to) *to = y;
}

/* The ways that a visit on t may begin after, at the boundary b. */
static void gather(const walk *k, int dir, int b, int t, starts *out) {
    const px_core *c = k->x->c;
    const px_links *links = k->links[dir];
    out->n = 0;
    if (b == (dir ? c->n_layers : 0)) {
        const double end = dir ? c->sink[t] : c->source[t];
        if (end < INFINITY) out->v[out->n++] = (step){.r = {.cost = end}, .from_node = -1};
        return;
    }
    for (int e = links->first[t]; e < links->first[t + 1]; e++) {
        const int s = links->to[e], n = k->n[dir][own(k, dir, b, s)];
        const step *from = list(k, dir, b, s);
        for (int i = 0; i < n; i++) {
            const double cost = from[i].r.cost + links->sec[e];
            if (cost > k->limit || (out->n == k->most && cost >= out->v[out->n - 1].r.cost)) break;
            if (s == t || ((from[i].r.set & bit_of(t)) && on_way(k, dir, b, s, i, t))) continue;
            note(out->v, &out->n, k->most, (step){{cost, from[i].r.set}, s, (uint8_t)i, 0});
        }
    }
}

static void extend(const walk *k, int t, const starts *from) {
    const px_ng *x = k->x;
    const px_core *c = x->c;
    const int L = c->n_layers, most = k->dir ? k->b - k->low : k->middle - k->b;
    for (int n = 1; n <= most && n <= x->g.run_cap; n++) {
        const int first = k->dir ? k->b - n : k->b, end = k->dir ? first : k->b + n;
        if (n > x->g.run_max[t * L + first]) {
            if (k->dir) continue;
            break;
        }
        const size_t j = cell(k, end, t);
        const double h = x->w.large[px_visit_at(c, &x->g, t, first, n)];
        const double near = k->dir ? x->from0[j] : x->ends[j] ? x->rest[x->at[j]] : INFINITY;
        step *to = list(k, k->dir, end, t);
        int n_to = k->n[k->dir][own(k, k->dir, end, t)];
        for (int i = 0; i < from->n && from->v[i].r.cost + h + near <= k->limit; i++) {
            step y = from->v[i];
            y.r.cost += h;
            y.r.set |= bit_of(t);
            y.n = (uint8_t)n;
            note(to, &n_to, k->most, y);
        }
        k->n[k->dir][own(k, k->dir, end, t)] = (uint8_t)n_to;
    }
}

static void put_visits(void *ctx, size_t block) {
    const walk *k = ctx;
    const int S = k->x->c->n_nodes;
    for (int t = (int)block * BLOCK; t < (int)(block + 1) * BLOCK && t < S; t++) {
        starts from;
        gather(k, k->dir, k->b, t, &from);
        if (from.n > 0) extend(k, t, &from);
    }
}

/* --- joins --- */

typedef struct join { ranked r; int b, t, front_node, front_at, back_at; } join;

static bool share_a_node(const walk *k, const join *y) {
    int b = y->b, s = y->front_node, at = y->front_at;
    while (s >= 0) {
        const step *f = &list(k, 0, b, s)[at];
        if (on_way(k, 1, y->b, y->t, y->back_at, s)) return true;
        b -= f->n;
        s = f->from_node;
        at = f->from_at;
    }
    return false;
}

/* The cheapest way whose visit at the boundary b begins on t. */
static join join_at(const walk *k, int b, int t) {
    const step *back = list(k, 1, b, t);
    const int n_back = k->n[1][own(k, 1, b, t)];
    join best = {.r = {.cost = INFINITY}};
    starts from;
    if (n_back == 0) return best;
    gather(k, 0, b, t, &from);
    for (int i = 0; i < from.n; i++)
        for (int j = 0; j < n_back && from.v[i].r.cost + back[j].r.cost < best.r.cost; j++) {
            const join y = {{from.v[i].r.cost + back[j].r.cost, from.v[i].r.set | back[j].r.set}, b, t, from.v[i].from_node, from.v[i].from_at, j};
            if (!(from.v[i].r.set & back[j].r.set) || !share_a_node(k, &y)) best = y;
        }
    return best;
}

static void note_join(join *v, int *n, int most, join y) {
    join *to = place(v, sizeof *v, n, most, y.r);
    if (to) *to = y;
}

static void nodes_of(const walk *k, const join *y, int *node) {
    for (int b = y->b, s = y->front_node, at = y->front_at; s >= 0;) {
        const step *f = &list(k, 0, b, s)[at];
        for (int i = 1; i <= f->n; i++) node[b - i] = s;
        b -= f->n;
        s = f->from_node;
        at = f->from_at;
    }
    for (int b = y->b, s = y->t, at = y->back_at; s >= 0;) {
        const step *f = &list(k, 1, b, s)[at];
        for (int i = 0; i < f->n; i++) node[b + i] = s;
        b += f->n;
        s = f->from_node;
        at = f->from_at;
    }
}

static bool run(walk *k, px_walk *o) {
    const px_core *c = k->x->c;
    const int L = c->n_layers, S = c->n_nodes, n_blocks = (S + BLOCK - 1) / BLOCK;
    join *v = dil__px_alloc((size_t)o->most_ways, sizeof *v);
    int n = 0;
    if (!v) return false;
    for (k->b = 0, k->dir = 0; k->b < k->middle; k->b++) dil_parallel(k->x->n_threads, (size_t)n_blocks, put_visits, k);
    for (k->b = L, k->dir = 1; k->b > k->low; k->b--) dil_parallel(k->x->n_threads, (size_t)n_blocks, put_visits, k);
    for (int b = k->low; b <= k->middle; b++)
        for (int t = 0; t < S; t++) {
            const join y = join_at(k, b, t);
            if (y.r.cost < INFINITY) note_join(v, &n, o->most_ways, y);
        }
    for (int i = 0; i < n; i++) {
        o->cost[i] = v[i].r.cost;
        nodes_of(k, &v[i], o->node + (size_t)i * (size_t)L);
    }
    o->n_ways = n;
    free(v);
    return true;
}

bool dil__px_ng_walk(px_ng *x, double limit, int most, px_walk *out) {
    const px_core *c = x->c;
    const size_t S = (size_t)c->n_nodes;
    walk k = {.x = x, .limit = limit, .most = most < MOST ? most : MOST, .middle = c->n_layers / 2};
    px_links back;
    assert(x->has_from && c->links && !c->hop);
    k.low = k.middle + 1 > x->g.run_cap ? k.middle + 1 - x->g.run_cap : 0;
    if (!dil__px_links_back(c->links, c->n_nodes, &back)) return false;
    k.links[0] = &back;
    k.links[1] = c->links;
    const size_t rows[2] = {(size_t)k.middle + 1, (size_t)(c->n_layers - k.low) + 1};
    bool ok = true;
    for (int d = 0; d < 2; d++) {
        k.v[d] = dil__px_alloc(rows[d] * S, (size_t)k.most * sizeof(step));
        k.n[d] = dil__px_alloc(rows[d] * S, 1);
        ok = ok && k.v[d] && k.n[d];
    }
    ok = ok && run(&k, out);
    for (int d = 0; d < 2; d++) {
        free(k.v[d]);
        free(k.n[d]);
    }
    dil__px_links_fini(&back);
    return ok;
}
