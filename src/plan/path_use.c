/* plan/path_use.c - ways that remember how much of a node's store they have used.
 *
 * For visits V1.. of one node with n layers each, h(V) the least cost within the whole store, g(V) the least cost with every byte at a price v and
 * no limit, their cost in any plan is at least
 *     T_k = max(T_{k-1} + h(V_k), max over sets A of visits: Σ_{not in A} h + Σ_{A} g - v·store)
 * and both are counted by one number: used r = 0 at first; a visit adds max(h, g + r - v·store) to the cost, and r grows by g less that where it is
 * more. r over v·store is the part of the store that is used; when it is full every further byte costs v. The price counts only where a node is
 * come back to, and what it gives back is given once: unlike a multiplier of the whole problem it costs ways elsewhere nothing. A way remembers r of
 * the nodes that its cell remembers, rounded down to fifteenths: less used never costs more, so forgetting and rounding only lower the bound.
 *
 * Labels of a cell are kept by (cost, used), no one cheaper with no more used; beyond `most` of them the dearest are melted into others: the less
 * of both in every entry, at the lower cost. A way is left when it cannot be completed below the limit by anything found from the other side, where
 * both sides' use of a node is added up. Tables over all masks (path_ng.c) with three or four classes of visits were the alternative:
 * a thousand values a cell, most of them of ways that nobody wants. */
#include "plan/path_use.h"

#include <assert.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { BITS = 5, FULL = 15, BLOCK = 8, NEAREST = 16, SPREAD = 2 };
static const uint64_t GUARDS = 0x0842108421084210ull; /* bit 4 of every field, 12 fields */

static size_t cell(const px_use *u, int b, int s) { return (size_t)b * (size_t)u->x->c->n_nodes + (size_t)s; }

/* --- what was used, by memory entry --- */

static bool no_more(uint64_t a, uint64_t b) { return (((b | GUARDS) - a) & GUARDS) == GUARDS; } /* a <= b in every field */
static uint64_t least_of(uint64_t a, uint64_t b) {
    const uint64_t g = ((b | GUARDS) - a) & GUARDS, of_a = g - (g >> 4);
    return (a & of_a) | (b & ~of_a & ~GUARDS);
}

static int n_memory(const px_use *u, size_t k) { return u->n_memory[k]; }
static const int *memory(const px_use *u, size_t k) { return u->memory + k * PX_USE_MEMORY; }

static int entry_of(const px_use *u, size_t k, int node) {
    const int *m = memory(u, k), n = n_memory(u, k);
    for (int i = 0; i < n; i++)
        if (m[i] == node) return i;
    return -1;
}

/* For every entry of the cell k the shift of it in the cell j, -1: j does not remember. */
static void map_entries(const px_use *u, size_t k, size_t j, int *shift) {
    const int *m = memory(u, k), n = n_memory(u, k);
    for (int i = 0; i < n; i++) {
        const int e = entry_of(u, j, m[i]);
        shift[i] = e < 0 ? -1 : BITS * e;
    }
}

static uint64_t carry(uint64_t used, const int *shift) {
    uint64_t to = 0;
    while (used) {
        const int i = __builtin_ctzll(used) / BITS;
        const uint64_t f = used >> (BITS * i) & 31;
        if (shift[i] >= 0) to |= f << shift[i];
        used &= ~(31ull << (BITS * i));
    }
    return to;
}

/* What two sides of a way pass the stores by together. */
static double overrun(const px_use *u, size_t k, uint64_t a, uint64_t b) {
    const int *m = memory(u, k);
    double sum = 0;
    while (a) {
        const int i = __builtin_ctzll(a) / BITS;
        const int f = (int)(a >> (BITS * i) & 31), g = (int)(b >> (BITS * i) & 31);
        if (f + g > FULL) sum += u->full[m[i]] * (f + g - FULL) / FULL;
        a &= ~(31ull << (BITS * i));
    }
    return sum;
}

/* --- lists --- */

static bool push(px_use_list *k, px_use_label y) {
    if (k->n == k->cap) {
        const int cap = k->cap ? 2 * k->cap : 8;
        px_use_label *v = realloc(k->v, (size_t)cap * sizeof *v);
        if (!v) return false;
        k->v = v;
        k->cap = cap;
    }
    k->v[k->n++] = y;
    return true;
}

static int by_cost(const void *p, const void *q) {
    const px_use_label *a = p, *b = q;
    if (a->cost != b->cost) return a->cost < b->cost ? -1 : 1;
    if (a->used != b->used) return a->used < b->used ? -1 : 1;
    return a->from_node != b->from_node ? a->from_node - b->from_node : a->from_at - b->from_at;
}

static int fields_sum(uint64_t v) {
    int sum = 0;
    for (; v; v >>= BITS) sum += (int)(v & FULL);
    return sum;
}

/* Puts y into the kept label, of some of the dearest, that loses least memory by it: one as cheap as either, with what both have used. */
static void melt(px_use_list *k, int n, const px_use_label *y) {
    int at = n - 1, least = INT_MAX;
    for (int j = n - 1; j >= 0 && j >= n - NEAREST && least > 0; j--) {
        const uint64_t both = least_of(k->v[j].used, y->used);
        const int loss = fields_sum(k->v[j].used) + fields_sum(y->used) - 2 * fields_sum(both);
        if (loss < least) {
            least = loss;
            at = j;
        }
    }
    k->v[at].used = least_of(k->v[at].used, y->used);
}

/* Ascending by cost, none of them cheaper and with less used than another; at most `most`, the others melted into those. */
static void reduce(px_use_list *k, int most) {
    int n = 0;
    if (k->n > 1) qsort(k->v, (size_t)k->n, sizeof *k->v, by_cost);
    for (int i = 0; i < k->n; i++) {
        const px_use_label y = k->v[i];
        bool worse = false;
        for (int j = 0; j < n && !worse; j++) worse = no_more(k->v[j].used, y.used);
        if (worse) continue;
        if (n == most) melt(k, n, &y);
        else k->v[n++] = y;
    }
    k->n = n;
}

/* --- a pass --- */

typedef struct pass {
    px_use *u;
    int dir, b; /* the boundary that visits are put on to */
    bool failed;
} pass;

static size_t visit_at(const px_use *u, int s, int first, int n) { return px_visit_at(u->x->c, &u->x->g, s, first, n); }

/* Whether something that comes on the other side of the cell completes the way below the limit. */
static bool completes(const px_use *u, int dir, int b, int t, double cost, uint64_t used) {
    const size_t k = cell(u, b, t);
    if (!u->has[!dir]) return dir == 1 || cost + u->x->start0[k] <= u->limit;
    const px_use_list *l = &u->list[!dir][k];
    for (int i = 0; i < l->n && cost + l->v[i].cost <= u->limit; i++)
        if (!used || !l->v[i].used || cost + l->v[i].cost + overrun(u, k, used, l->v[i].used) <= u->limit) return true;
    return false;
}

static bool gather_from(pass *p, int t, int s, double hop, px_use_list *start) {
    px_use *u = p->u;
    const size_t k = cell(u, p->b, s), j = cell(u, p->b, t);
    const px_use_list *l = &u->list[p->dir][k];
    int shift[PX_USE_MEMORY];
    if (l->n == 0 || s == t) return true;
    map_entries(u, k, j, shift);
    for (int i = 0; i < l->n; i++) {
        const double cost = l->v[i].cost + hop;
        const uint64_t used = carry(l->v[i].used, shift);
        if (cost > u->limit) break;
        if (!completes(u, p->dir, p->b, t, cost, used)) continue;
        if (!push(start, (px_use_label){cost, used, s, i, 0})) return false;
        if (!used) break; /* the others are no cheaper */
    }
    return true;
}

static bool gather(pass *p, int t, px_use_list *start) {
    px_use *u = p->u;
    const px_core *c = u->x->c;
    const int L = c->n_layers, b = p->b;
    start->n = 0;
    if (b == (p->dir ? L : 0)) {
        const double end = p->dir ? c->sink[t] : c->source[t];
        return !(end < INFINITY) || !completes(u, p->dir, b, t, end, 0) || push(start, (px_use_label){end, 0, -1, -1, 0});
    }
    bool ok = true;
    if (c->hop) {
        for (int s = 0; s < c->n_nodes && ok; s++) {
            const double hop = p->dir ? px_hop_into(c, t, s, b) : px_hop_into(c, s, t, b);
            if (hop < INFINITY) ok = gather_from(p, t, s, hop, start);
        }
    } else if (p->dir) {
        for (int e = c->links->first[t]; e < c->links->first[t + 1] && ok; e++) ok = gather_from(p, t, c->links->to[e], c->links->sec[e], start);
    } else {
        for (int e = u->in_first[t]; e < u->in_first[t + 1] && ok; e++) ok = gather_from(p, t, u->in_from[e], u->in_sec[e], start);
    }
    reduce(start, u->most);
    return ok;
}

static bool extend(pass *p, int t, const px_use_list *start) {
    px_use *u = p->u;
    const px_core *c = u->x->c;
    const int L = c->n_layers, b = p->b, most = p->dir ? b : L - b;
    const size_t k = cell(u, b, t);
    const int self = entry_of(u, k, t);
    const double *g = u->priced + (size_t)t * (size_t)(L + 1);
    int shift[PX_USE_MEMORY];
    for (int n = 1; n <= most && n <= u->x->g.run_cap; n++) {
        const int first = p->dir ? b - n : b, end = p->dir ? b - n : b + n;
        const size_t v = visit_at(u, t, first, n), j = cell(u, end, t);
        const double h = u->x->w.large[v], near = u->near[j], priced = g[first + n] - g[first];
        if (!u->alive[v] || !(h < INFINITY) || !(near < INFINITY)) continue;
        const int to = entry_of(u, j, t);
        bool mapped = false, any = false;
        for (int i = 0; i < start->n; i++) {
            const px_use_label *y = &start->v[i];
            if (y->cost + h + near > u->limit) break;
            const double before = self < 0 || !y->used ? 0 : u->full[t] * (double)(y->used >> (BITS * self) & FULL) / FULL;
            const double add = fmax(h, priced + before - u->full[t]), cost = y->cost + add;
            if (cost + near > u->limit) continue;
            if (!mapped) map_entries(u, k, j, shift);
            mapped = any = true;
            uint64_t used = carry(y->used, shift);
            if (to >= 0) {
                const double after = before + fmax(0, priced - add);
                int f = u->full[t] > 0 ? (int)(FULL * after / u->full[t]) : 0;
                if (f > FULL) f = FULL;
                used = (used & ~(31ull << (BITS * to))) | (uint64_t)f << (BITS * to);
            }
            if (!push(&u->list[p->dir][j], (px_use_label){cost, used, y->from_node, y->from_at, n})) return false;
        }
        if (any) u->alive[v] |= 2;
        if (u->list[p->dir][j].n > 4 * u->most + 64) reduce(&u->list[p->dir][j], u->most);
    }
    return true;
}

static void put_visits(void *ctx, size_t block) {
    pass *p = ctx;
    px_use_list start = {0};
    const int S = p->u->x->c->n_nodes;
    for (int t = (int)block * BLOCK; t < (int)(block + 1) * BLOCK && t < S; t++) {
        if (!gather(p, t, &start)) p->failed = true;
        if (start.n > 0 && !extend(p, t, &start)) p->failed = true;
    }
    free(start.v);
}

/* What is in the list is all, and takes no more room than it needs. */
static void settle(void *ctx, size_t block) {
    pass *p = ctx;
    const int S = p->u->x->c->n_nodes;
    for (int t = (int)block * BLOCK; t < (int)(block + 1) * BLOCK && t < S; t++) {
        px_use_list *k = &p->u->list[p->dir][cell(p->u, p->b, t)];
        reduce(k, p->u->most);
        if (k->cap <= 2 * k->n) continue;
        px_use_label *v = k->n > 0 ? realloc(k->v, (size_t)k->n * sizeof *v) : NULL;
        if (k->n == 0) free(k->v);
        if (k->n > 0 && !v) continue;
        k->v = v;
        k->cap = k->n;
    }
}

static double cheapest(const px_use_list *l) { return l->n > 0 ? l->v[0].cost : INFINITY; }

/* near: by the ways of the other direction, or by what path_ng.c left. */
static void look_ahead(px_use *u, int dir) {
    const px_core *c = u->x->c;
    const int L = c->n_layers, S = c->n_nodes, other = !dir;
    for (int b = 0; b <= L; b++)
        for (int s = 0; s < S; s++) {
            const size_t k = cell(u, b, s);
            double least = INFINITY;
            if (b == (dir ? 0 : L)) least = dir ? c->source[s] : c->sink[s];
            else if (b == (dir ? L : 0)) least = 0;
            else if (!u->has[other]) least = dir ? 0 : u->x->ends[k] ? u->x->rest[u->x->at[k]] : INFINITY;
            else if (c->hop) {
                for (int t = 0; t < S; t++)
                    if (t != s) least = fmin(least, (dir ? px_hop_into(c, t, s, b) : px_hop_into(c, s, t, b)) + cheapest(&u->list[other][cell(u, b, t)]));
            } else if (dir) {
                for (int e = u->in_first[s]; e < u->in_first[s + 1]; e++) least = fmin(least, u->in_sec[e] + cheapest(&u->list[other][cell(u, b, u->in_from[e])]));
            } else {
                for (int e = c->links->first[s]; e < c->links->first[s + 1]; e++)
                    least = fmin(least, c->links->sec[e] + cheapest(&u->list[other][cell(u, b, c->links->to[e])]));
            }
            u->near[k] = least;
        }
}

bool dil__px_use_pass(px_use *u, int dir, double limit, int64_t deadline_ns) {
    const px_core *c = u->x->c;
    const int L = c->n_layers, S = c->n_nodes;
    const size_t n_blocks = ((size_t)S + BLOCK - 1) / BLOCK, visits = (size_t)S * (size_t)L * (size_t)u->x->g.run_cap;
    pass p = {.u = u, .dir = dir};
    u->limit = limit;
    u->late = false;
    u->has[dir] = false; /* until it is whole again */
    look_ahead(u, dir);
    for (size_t k = 0; k < (size_t)(L + 1) * (size_t)S; k++) u->list[dir][k].n = 0;
    for (int i = 0; i < L && !p.failed; i++) {
        p.b = dir ? L - i : i;
        u->late = dil_now_ns() >= deadline_ns;
        if (u->late) {
            for (size_t v = 0; v < visits; v++) u->alive[v] &= 1;
            return true;
        }
        if (i > 0) dil_parallel(u->x->n_threads, n_blocks, settle, &p);
        dil_parallel(u->x->n_threads, n_blocks, put_visits, &p);
    }
    if (p.failed) return false;
    p.b = dir ? 0 : L;
    dil_parallel(u->x->n_threads, n_blocks, settle, &p);
    u->least = INFINITY;
    for (int s = 0; s < S; s++) u->least = fmin(u->least, (dir ? c->source[s] : c->sink[s]) + cheapest(&u->list[dir][cell(u, p.b, s)]));
    u->has[dir] = true;
    u->n_alive = u->n_labels = 0;
    for (size_t v = 0; v < visits; v++) u->n_alive += u->alive[v] = u->alive[v] >> 1;
    for (size_t k = 0; k < (size_t)(L + 1) * (size_t)S; k++) u->n_labels += (size_t)u->list[dir][k].n;
    return true;
}

/* --- ways --- */

/* The visits of the label and those before it, in the order of the pass, from *n on. */
static void follow(const px_use *u, int dir, int b, int s, int at, px_visit *v, int *n) {
    while (s >= 0) {
        const px_use_label *y = &u->list[dir][cell(u, b, s)].v[at];
        v[(*n)++] = (px_visit){s, dir ? b : b - y->n, y->n, false};
        b += dir ? y->n : -y->n;
        s = y->from_node;
        at = y->from_at;
    }
}

static void reverse(px_visit *v, int n) {
    for (int i = 0, j = n - 1; i < j; i++, j--) {
        const px_visit t = v[i];
        v[i] = v[j];
        v[j] = t;
    }
}

typedef struct join { double cost; int b, t, front_node, front_at, back_at; } join;

static void note_join(join *v, int *n, int most, join y) {
    if (*n == most && y.cost >= v[*n - 1].cost) return;
    int i = *n < most ? (*n)++ : *n - 1;
    for (; i > 0 && v[i - 1].cost > y.cost; i--) v[i] = v[i - 1];
    v[i] = y;
}

/* The cheapest way whose visit at the boundary b begins on t. */
static bool join_at(px_use *u, int b, int t, px_use_list *start, join *out) {
    pass p = {.u = u, .b = b};
    const size_t k = cell(u, b, t);
    const px_use_list *back = &u->list[1][k];
    *out = (join){.cost = INFINITY, .b = b, .t = t};
    if (back->n == 0) return true;
    if (!gather(&p, t, start)) return false;
    for (int i = 0; i < start->n; i++)
        for (int j = 0; j < back->n && start->v[i].cost + back->v[j].cost < out->cost; j++) {
            const double cost = start->v[i].cost + back->v[j].cost + overrun(u, k, start->v[i].used, back->v[j].used);
            if (cost < out->cost) *out = (join){cost, b, t, start->v[i].from_node, start->v[i].from_at, j};
        }
    return true;
}

bool dil__px_use_ways(px_use *u, int most, px_use_way *way, int *n_ways) {
    const int L = u->x->c->n_layers, S = u->x->c->n_nodes;
    join v[PX_USE_WAYS];
    int n = 0;
    px_use_list start = {0};
    bool ok = u->has[0] && u->has[1];
    for (int b = 0; ok && b < L; b += L / 4 > 0 ? L / 4 : 1)
        for (int t = 0; t < S && ok; t++) {
            join y;
            ok = join_at(u, b, t, &start, &y);
            if (ok && y.cost <= u->limit) note_join(v, &n, most < PX_USE_WAYS ? most : PX_USE_WAYS, y);
        }
    free(start.v);
    for (int i = 0; ok && i < n; i++) {
        way[i].n = 0;
        way[i].cost = v[i].cost;
        if (v[i].b > 0) follow(u, 0, v[i].b, v[i].front_node, v[i].front_at, way[i].visit, &way[i].n);
        reverse(way[i].visit, way[i].n);
        follow(u, 1, v[i].b, v[i].t, v[i].back_at, way[i].visit, &way[i].n);
    }
    *n_ways = ok ? n : 0;
    return ok || !u->has[0] || !u->has[1];
}

void dil__px_use_worth(const px_use *u, double *worth) {
    const int L = u->x->c->n_layers, S = u->x->c->n_nodes;
    for (int s = 0; s < S; s++) {
        worth[s] = INFINITY;
        for (int b = 0; b < L; b++) worth[s] = fmin(worth[s], cheapest(&u->list[1][cell(u, b, s)]) + (b > 0 ? u->near[cell(u, b, s)] : u->x->c->source[s]));
    }
}

double dil__px_use_damage(const px_use *u, const px_use_way *y) {
    const px_core *c = u->x->c;
    double damage = 0;
    int layers[1024], level[1024];
    for (int i = 0; i < y->n; i++) {
        const px_visit *v = &y->visit[i];
        for (int l = 0; l < v->n; l++) layers[l] = v->first + l;
        const px_group g = {v->node, v->n, layers};
        if (!dil__px_group_levels(c, &u->x->w, &g, dil__px_room(c, v->node, layers, 0, v->n), 4 * u->x->w.n_units, level)) return 0;
        for (int l = 0; l < v->n; l++) damage += px_damage(c, layers[l], level[l]);
    }
    return damage;
}

/* --- learning --- */

static bool can_learn(const px_use *u, int b, int s, int node) {
    const size_t k = cell(u, b, s);
    return entry_of(u, k, node) >= 0 || n_memory(u, k) < PX_USE_MEMORY;
}

static bool teach(px_use *u, int b, int s, int node) {
    const size_t k = cell(u, b, s);
    if (b <= 0 || b >= u->x->c->n_layers || entry_of(u, k, node) >= 0 || n_memory(u, k) == PX_USE_MEMORY) return false;
    u->memory[k * PX_USE_MEMORY + u->n_memory[k]++] = node;
    return true;
}

/* The cells from visit i to visit j of the way, and those some layers aside while they have room. */
static int teach_between(px_use *u, const px_use_way *y, int i, int j) {
    const int node = y->visit[j].node;
    int learned = 0;
    for (int k = i + 1; k <= j; k++)
        for (int d = -SPREAD; d <= SPREAD; d++)
            for (int e = 0; e < 2; e++) {
                const int s = y->visit[k - e].node, b = y->visit[k].first + d;
                if (b <= 0 || b >= u->x->c->n_layers || (d != 0 && n_memory(u, cell(u, b, s)) > PX_USE_MEMORY / 2)) continue;
                learned += teach(u, b, s, node);
            }
    return learned;
}

int dil__px_use_learn(px_use *u, const px_use_way *y) {
    int learned = 0;
    for (int j = 1; j < y->n; j++) {
        const int s = y->visit[j].node;
        double sum = 0;
        int i = -1;
        for (int k = 0; k <= j; k++) {
            const px_visit *v = &y->visit[k];
            const double *g = u->priced + (size_t)s * (size_t)(u->x->c->n_layers + 1);
            if (v->node != s) continue;
            if (k < j) i = k;
            sum += fmax(0, g[v->first + v->n] - g[v->first] - u->x->w.large[visit_at(u, s, v->first, v->n)]);
        }
        if (i < 0 || !(sum > u->full[s])) continue;
        bool room = true;
        for (int k = i + 1; k <= j && room; k++) room = can_learn(u, y->visit[k].first, y->visit[k - 1].node, s) && can_learn(u, y->visit[k].first, y->visit[k].node, s);
        if (room) learned += teach_between(u, y, i, j);
    }
    return learned;
}

/* --- life --- */

/* The price of a byte beyond the store: what makes a layer there as dear as the plan's mean one. */
static void set_prices(px_use *u) {
    const px_core *c = u->x->c;
    const px_weight *w = &u->x->w;
    const int L = c->n_layers, S = c->n_nodes, Q = c->n_levels;
    for (int s = 0; s < S; s++) {
        double natural = 0, bytes = 0, *g = u->priced + (size_t)s * (size_t)(L + 1);
        for (int l = 0; l < L; l++) {
            double least = INFINITY;
            int at = 0;
            for (int q = 0; q < Q; q++)
                if (px_cost(c, w, s, l, q) < least) {
                    least = px_cost(c, w, s, l, q);
                    at = q;
                }
            natural += least;
            bytes += px_bytes_on(c, s, l, at);
        }
        const double over = bytes > 0 && c->store[s] > 0 ? fmax(0, u->limit - natural) / bytes : 0;
        u->full[s] = over * c->store[s];
        g[0] = 0;
        for (int l = 0; l < L; l++) {
            double least = INFINITY;
            for (int q = 0; q < Q; q++) least = fmin(least, px_cost(c, w, s, l, q) + over * px_bytes_on(c, s, l, q));
            g[l + 1] = g[l] + least;
        }
    }
}

static bool index_links(px_use *u) {
    const px_core *c = u->x->c;
    if (c->hop) return true;
    const int S = c->n_nodes, n = c->links->first[S];
    u->in_first = dil__px_alloc((size_t)S + 2, sizeof(int));
    u->in_from = dil__px_alloc((size_t)n, sizeof(int));
    u->in_sec = dil__px_alloc((size_t)n, sizeof(double));
    if (!u->in_first || !u->in_from || !u->in_sec) return false;
    for (int e = 0; e < n; e++) u->in_first[c->links->to[e] + 2]++;
    for (int s = 0; s < S; s++) u->in_first[s + 2] += u->in_first[s + 1];
    for (int s = 0; s < S; s++)
        for (int e = c->links->first[s]; e < c->links->first[s + 1]; e++) {
            const int at = u->in_first[c->links->to[e] + 1]++;
            u->in_from[at] = s;
            u->in_sec[at] = c->links->sec[e];
        }
    return true;
}

void dil__px_use_again(px_use *u, double limit) {
    u->limit = limit;
    u->has[0] = u->has[1] = false;
    set_prices(u);
}

bool dil__px_use_init(px_use *u, px_ng *x, double limit) {
    const size_t L = (size_t)x->c->n_layers, S = (size_t)x->c->n_nodes, cells = (L + 1) * S, visits = S * L * (size_t)x->g.run_cap;
    *u = (px_use){.x = x, .limit = limit};
    u->full = dil__px_alloc(S, sizeof(double));
    u->priced = dil__px_alloc(cells, sizeof(double));
    u->near = dil__px_alloc(cells, sizeof(double));
    u->alive = dil__px_alloc(visits, 1);
    u->memory = dil__px_alloc(cells, PX_USE_MEMORY * sizeof *u->memory);
    u->n_memory = dil__px_alloc(cells, 1);
    u->list[0] = dil__px_alloc(cells, sizeof(px_use_list));
    u->list[1] = dil__px_alloc(cells, sizeof(px_use_list));
    if (!u->full || !u->priced || !u->near || !u->alive || !u->memory || !u->n_memory || !u->list[0] || !u->list[1] || !index_links(u)) return false;
    set_prices(u);
    for (size_t k = 0; k < L * S; k++) {
        u->n_memory[k] = (uint8_t)(x->n_memory[k] < PX_USE_MEMORY ? x->n_memory[k] : PX_USE_MEMORY);
        memcpy(u->memory + k * PX_USE_MEMORY, x->memory + k * PX_NG_MEMORY, u->n_memory[k] * sizeof *u->memory);
    }
    for (int s = 0; s < x->c->n_nodes; s++)
        for (int l = 0; l < x->c->n_layers; l++)
            for (int n = 1; n <= x->g.run_max[(size_t)s * L + (size_t)l]; n++) u->alive[visit_at(u, s, l, n)] = x->ends[cell(u, l + n, s)];
    return true;
}

void dil__px_use_fini(px_use *u) {
    const size_t cells = u->x ? (size_t)(u->x->c->n_layers + 1) * (size_t)u->x->c->n_nodes : 0;
    for (int d = 0; d < 2; d++) {
        for (size_t k = 0; u->list[d] && k < cells; k++) free(u->list[d][k].v);
        free(u->list[d]);
    }
    free(u->full);
    free(u->priced);
    free(u->near);
    free(u->alive);
    free(u->memory);
    free(u->n_memory);
    free(u->in_first);
    free(u->in_from);
    free(u->in_sec);
    *u = (px_use){0};
}
