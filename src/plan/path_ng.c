/* plan/path_ng.c - the relaxation of path_ng.h: completions from behind, ways from the front, learning, dropping.
 *
 * Of a cell's masks the empty one is the cheapest, so the successors in order of it settle the other masks after a few; cells that
 * remember nothing are a vectorised minimum over a row of hops. A full table over all masks and successors was the alternative and took ten times longer. */
#include "plan/path_ng.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { MASKS = 1 << PX_NG_MEMORY, CANDIDATES = 48, BLOCK = 32, SPREAD = 2 };

static size_t cell(const px_ng *x, int l, int s) { return (size_t)l * (size_t)x->c->n_nodes + (size_t)s; }
static double small(const px_ng *x, int s, int l, int n) { return x->w.small[px_visit_at(x->c, &x->g, s, l, n)]; }
static double large(const px_ng *x, int s, int l, int n) { return x->w.large[px_visit_at(x->c, &x->g, s, l, n)]; }
static int reach(const px_ng *x, int l, int s) { return x->g.run_max[s * x->c->n_layers + l]; }
static unsigned masks_of(const px_ng *x, size_t k) { return 1u << x->n_memory[k]; }

/* The node's bit in what the cell k remembers; 0: it does not. */
static unsigned bit_of(const px_ng *x, size_t k, int node) {
    const int *m = x->memory + k * PX_NG_MEMORY;
    for (int i = 0; i < x->n_memory[k]; i++)
        if (m[i] == node) return 1u << i;
    return 0;
}

/* For every bit of the cell k its bit in the cell j, 0 where j does not remember. -> all that may be carried */
static unsigned map_bits(const px_ng *x, size_t k, size_t j, unsigned *map) {
    unsigned all = 0;
    for (int i = 0; i < x->n_memory[k]; i++) all |= map[i] = bit_of(x, j, x->memory[k * PX_NG_MEMORY + (size_t)i]);
    return all;
}

static unsigned carry(unsigned mask, const unsigned *map) {
    unsigned to = 0;
    for (int i = 0; mask; i++, mask >>= 1)
        if (mask & 1) to |= map[i];
    return to;
}

unsigned dil__px_ng_carry(const px_ng *x, int l, int s, unsigned mask, int m, int t) {
    unsigned map[PX_NG_MEMORY];
    if (!mask) return 0;
    map_bits(x, cell(x, l, s), cell(x, m, t), map);
    return carry(mask, map);
}

unsigned dil__px_ng_spend(const px_ng *x, int l, int s, unsigned mask, int m) {
    return dil__px_ng_carry(x, l, s, mask, m, s) | bit_of(x, cell(x, m, s), s);
}

double dil__px_ng_rest(const px_ng *x, int l, int s, unsigned mask) {
    const size_t k = cell(x, l, s);
    return x->ends[k] ? x->rest[x->at[k] + mask] : INFINITY;
}

/* --- backward --- */

static void start_at(px_ng *x, int l, int s) {
    const size_t k = cell(x, l, s);
    double *start = x->start + x->at[k];
    const unsigned n_masks = masks_of(x, k), self = bit_of(x, k, s);
    unsigned map[PX_NG_MEMORY], to[MASKS];
    for (unsigned m = 0; m < n_masks; m++) start[m] = INFINITY;
    to[0] = 0;
    for (int n = 1; n <= reach(x, l, s); n++) {
        const size_t j = cell(x, l + n, s);
        const double *rest = x->rest + x->at[j];
        const double whole = large(x, s, l, n), half = small(x, s, l, n);
        const unsigned spent = bit_of(x, j, s);
        if (!x->ends[j] || !(whole < INFINITY)) continue;
        if (n_masks > 1) map_bits(x, k, j, map);
        for (unsigned m = 0; m < n_masks; m++) {
            if (m) to[m] = to[m & (m - 1)] | map[__builtin_ctz(m)];
            const double a = half + rest[to[m]], b = m & self ? INFINITY : whole + rest[to[m] | spent];
            start[m] = fmin(start[m], fmin(a, b));
        }
    }
    x->start0[k] = start[0];
}

typedef struct next { double guess, hop; int node; } next;

static void note_next(next *v, int *n, next y) {
    if (*n == CANDIDATES && y.guess >= v[*n - 1].guess) return;
    int i = *n < CANDIDATES ? (*n)++ : *n - 1;
    for (; i > 0 && v[i - 1].guess > y.guess; i--) v[i] = v[i - 1];
    v[i] = y;
}

/* Successors of s at layer l that some mask may want, the cheapest first. */
static int candidates(const px_ng *x, int l, int s, next *v) {
    const px_core *c = x->c;
    const size_t k = cell(x, l, s);
    const double *start0 = x->start0 + cell(x, l, 0);
    double enough = INFINITY; /* some successor costs no more than this with everything spent */
    unsigned map[PX_NG_MEMORY];
    int n = 0;
    const int lo = c->hop ? 0 : c->links->first[s], hi = c->hop ? c->n_nodes : c->links->first[s + 1];
    for (int e = lo; e < hi; e++) {
        const int t = c->hop ? e : c->links->to[e];
        const double hop = c->hop ? px_hop_row(c, s, l)[t] : c->links->sec[e];
        const double least = hop + start0[t];
        if (!(least < enough) || t == s) continue;
        note_next(v, &n, (next){least, hop, t});
        const size_t j = cell(x, l, t);
        enough = fmin(enough, hop + x->start[x->at[j] + map_bits(x, k, j, map)]);
    }
    return n;
}

static void rest_at(px_ng *x, int l, int s) {
    const size_t k = cell(x, l, s);
    double *rest = x->rest + x->at[k];
    const unsigned n_masks = masks_of(x, k);
    next v[CANDIDATES];
    unsigned map[CANDIDATES][PX_NG_MEMORY];
    if (!x->ends[k]) {
        for (unsigned m = 0; m < n_masks; m++) rest[m] = INFINITY;
        return;
    }
    if (n_masks == 1) {
        rest[0] = dil__px_least_next(x->c, s, l, x->start0 + cell(x, l, 0));
        return;
    }
    const int n = candidates(x, l, s, v);
    for (int i = 0; i < n; i++) map_bits(x, k, cell(x, l, v[i].node), map[i]);
    for (unsigned m = 0; m < n_masks; m++) {
        double least = INFINITY;
        int i = 0;
        for (; i < n && v[i].guess < least; i++)
            least = fmin(least, v[i].hop + x->start[x->at[cell(x, l, v[i].node)] + carry(m, map[i])]);
        if (i == n && n == CANDIDATES) least = fmin(least, v[n - 1].guess); /* what was not kept costs at least this */
        rest[m] = least;
    }
}

typedef struct pass { px_ng *x; int layer; } pass;

static void visits_of(void *ctx, size_t s) {
    px_ng *x = ctx;
    dil__px_visits_of_node(x->c, &x->w, (int)s, x->g.run_max, x->g.run_cap);
}

static void start_block(void *ctx, size_t i) {
    const pass *p = ctx;
    for (int s = (int)i * BLOCK; s < (int)(i + 1) * BLOCK && s < p->x->c->n_nodes; s++) start_at(p->x, p->layer, s);
}

static void rest_block(void *ctx, size_t i) {
    const pass *p = ctx;
    for (int s = (int)i * BLOCK; s < (int)(i + 1) * BLOCK && s < p->x->c->n_nodes; s++) rest_at(p->x, p->layer, s);
}

static void backward(px_ng *x) {
    const px_core *c = x->c;
    const size_t n_blocks = ((size_t)c->n_nodes + BLOCK - 1) / BLOCK;
    for (int s = 0; s < c->n_nodes; s++) x->rest[x->at[cell(x, c->n_layers, s)]] = c->sink[s];
    for (int l = c->n_layers - 1; l >= 0; l--) {
        pass p = {x, l};
        dil_parallel(x->n_threads, n_blocks, start_block, &p);
        if (l > 0) dil_parallel(x->n_threads, n_blocks, rest_block, &p);
    }
    x->w.root = INFINITY;
    for (int s = 0; s < c->n_nodes; s++) x->w.root = fmin(x->w.root, c->source[s] + x->start0[s]);
}

static bool lay_out(px_ng *x) {
    const size_t n = (size_t)(x->c->n_layers + 1) * (size_t)x->c->n_nodes;
    for (size_t k = 0; k < n; k++) {
        const int l = (int)(k / (size_t)x->c->n_nodes), s = (int)(k % (size_t)x->c->n_nodes);
        if (l < x->c->n_layers && !x->ends[k] && reach(x, l, s) == 0) x->n_memory[k] = 0;
        x->at[k + 1] = x->at[k] + masks_of(x, k);
    }
    if (x->at[n] <= x->cap) return true;
    const size_t cap = x->at[n] + x->at[n] / 4;
    free(x->start);
    free(x->rest);
    free(x->from);
    free(x->after);
    x->cap = 0;
    x->start = dil__px_alloc(cap, sizeof *x->start);
    x->rest = dil__px_alloc(cap, sizeof *x->rest);
    x->from = dil__px_alloc(cap, sizeof *x->from);
    x->after = dil__px_alloc(cap, sizeof *x->after);
    if (!x->start || !x->rest || !x->from || !x->after) return false;
    x->cap = cap;
    return true;
}

bool dil__px_ng_relax(px_ng *x, double damage, const double *price) {
    x->w.sec = 1;
    x->w.damage = damage;
    x->w.price = price;
    x->w.credit = 0;
    for (int s = 0; s < x->c->n_nodes; s++) x->w.credit += price[s] * x->c->store[s];
    if (!lay_out(x)) return false;
    x->stale = false;
    dil_parallel(x->n_threads, (size_t)x->c->n_nodes, visits_of, x);
    backward(x);
    return true;
}

/* --- the cheapest way --- */

static int next_node(const px_ng *x, int l, int last, unsigned mask) {
    const px_core *c = x->c;
    double least = INFINITY;
    int to = -1;
    unsigned map[PX_NG_MEMORY];
    const bool dense = last < 0 || c->hop;
    const int lo = dense ? 0 : c->links->first[last], hi = dense ? c->n_nodes : c->links->first[last + 1];
    for (int e = lo; e < hi; e++) {
        const int t = dense ? e : c->links->to[e];
        const double hop = last < 0 ? c->source[t] : dense ? px_hop_row(c, last, l)[t] : c->links->sec[e];
        const size_t j = cell(x, l, t);
        if (t == last || hop + x->start0[j] >= least) continue;
        if (last >= 0) map_bits(x, cell(x, l, last), j, map);
        const double v = hop + x->start[x->at[j] + (last < 0 ? 0 : carry(mask, map))];
        if (v < least) {
            least = v;
            to = t;
        }
    }
    return to;
}

/* The visit that a cheapest way makes at s; *mask: spent before, then after. */
static px_visit next_visit(const px_ng *x, int l, int s, unsigned *mask) {
    const size_t k = cell(x, l, s);
    unsigned map[PX_NG_MEMORY], after = 0;
    double least = INFINITY;
    px_visit v = {s, l, 1, true};
    for (int n = 1; n <= reach(x, l, s); n++) {
        const size_t j = cell(x, l + n, s);
        if (!x->ends[j]) continue;
        map_bits(x, k, j, map);
        const unsigned to = carry(*mask, map), spent = bit_of(x, j, s);
        const double *rest = x->rest + x->at[j];
        const double a = small(x, s, l, n) + rest[to], b = *mask & bit_of(x, k, s) ? INFINITY : large(x, s, l, n) + rest[to | spent];
        if (!(fmin(a, b) < least)) continue;
        least = fmin(a, b);
        v.n = n;
        v.small = a <= b;
        after = v.small ? to : to | spent;
    }
    *mask = after;
    return v;
}

static bool add_levels(px_ng *x, const px_visit *v, double *damage) {
    const px_core *c = x->c;
    int layers[1024];
    for (int i = 0; i < v->n; i++) layers[i] = v->first + i;
    const px_group g = {v->node, v->n, layers};
    const double room = dil__px_room(c, v->node, layers, 0, v->n);
    if (!dil__px_group_levels(c, &x->w, &g, v->small ? fmin(c->store[v->node] / 2, room) : room, 4 * x->w.n_units, x->level) &&
        !dil__px_group_levels(c, &x->w, &g, room, 4 * x->w.n_units, x->level)) return false;
    for (int i = 0; i < v->n; i++) {
        *damage += px_damage(c, layers[i], x->level[i]);
        x->used[v->node] += px_bytes_on(c, v->node, layers[i], x->level[i]);
    }
    return true;
}

double dil__px_ng_way(px_ng *x) {
    assert(!x->stale);
    double damage = 0;
    unsigned mask = 0, map[PX_NG_MEMORY];
    memset(x->used, 0, (size_t)x->c->n_nodes * sizeof *x->used);
    x->n_visits = 0;
    for (int l = 0, last = -1; l < x->c->n_layers;) {
        const int to = next_node(x, l, last, mask);
        if (to < 0) return INFINITY;
        if (last >= 0) {
            map_bits(x, cell(x, l, last), cell(x, l, to), map);
            mask = carry(mask, map);
        }
        const px_visit v = next_visit(x, l, to, &mask);
        if (!add_levels(x, &v, &damage)) return INFINITY;
        x->visit[x->n_visits++] = v;
        l += v.n;
        last = to;
    }
    return damage;
}

/* --- learning --- */

static bool remembers(const px_ng *x, int l, int s, int node) { return bit_of(x, cell(x, l, s), node) != 0; }

static void teach(px_ng *x, int l, int s, int node) {
    const size_t k = cell(x, l, s);
    if (l >= x->c->n_layers || (!x->ends[k] && reach(x, l, s) == 0) || bit_of(x, k, node) || x->n_memory[k] == PX_NG_MEMORY) return;
    x->memory[k * PX_NG_MEMORY + x->n_memory[k]++] = node;
    x->stale = true;
}

/* The cells of one visit, and those some layers aside, so that the same cycle a little shifted is no news. */
static void teach_around(px_ng *x, int l, int s, int node) {
    teach(x, l, s, node);
    for (int d = 1; d <= SPREAD; d++) {
        if (l - d > 0 && x->n_memory[cell(x, l - d, s)] < PX_NG_MEMORY / 2) teach(x, l - d, s, node);
        if (l + d < x->c->n_layers && x->n_memory[cell(x, l + d, s)] < PX_NG_MEMORY / 2) teach(x, l + d, s, node);
    }
}

int dil__px_ng_learn(px_ng *x) {
    int learned = 0;
    for (int j = 1; j < x->n_visits; j++) {
        const px_visit *v = x->visit;
        const int node = v[j].node;
        int i = j - 1;
        if (v[j].small) continue;
        while (i >= 0 && (v[i].node != node || v[i].small)) i--;
        if (i < 0) continue;
        bool room = true;
        for (int k = i + 1; k <= j && room; k++) {
            const int before = v[k - 1].node, now = v[k].node, l = v[k].first;
            room = (remembers(x, l, before, node) || x->n_memory[cell(x, l, before)] < PX_NG_MEMORY) &&
                   (remembers(x, l, now, node) || x->n_memory[cell(x, l, now)] < PX_NG_MEMORY);
        }
        if (!room) continue;
        for (int k = i + 1; k <= j; k++) {
            teach_around(x, v[k].first, v[k - 1].node, node);
            teach_around(x, v[k].first, v[k].node, node);
        }
        learned++;
    }
    return learned;
}

/* Keeps s and the most attractive nodes around in list. */
typedef struct near { double cost; int node; } near;

static void note_near(near *v, int *n, int most, near y) {
    if (*n == most && y.cost >= v[*n - 1].cost) return;
    int i = *n < most ? (*n)++ : *n - 1;
    for (; i > 0 && v[i - 1].cost > y.cost; i--) v[i] = v[i - 1];
    v[i] = y;
}

bool dil__px_ng_prime(px_ng *x, int most) {
    const px_core *c = x->c;
    const px_links *k = c->links;
    const int L = c->n_layers, S = c->n_nodes;
    double *cost = dil__px_alloc((size_t)S, sizeof *cost);
    int *seen = dil__px_alloc((size_t)S, sizeof *seen); /* s + 1: looked at for s */
    for (int s = 0; cost && seen && s < S; s++) {
        cost[s] = INFINITY;
        for (int l = 0; l < L; l++) cost[s] = fmin(cost[s], x->from0[cell(x, l, s)] + x->start0[cell(x, l, s)]);
    }
    for (int s = 0; cost && seen && s < S; s++) {
        near v[PX_NG_MEMORY];
        int n = 0;
        seen[s] = s + 1;
        for (int e = k->first[s]; e < k->first[s + 1]; e++)
            for (int f = k->first[k->to[e]] - 1; f < k->first[k->to[e] + 1]; f++) {
                const int t = f < k->first[k->to[e]] ? k->to[e] : k->to[f];
                if (seen[t] == s + 1) continue;
                seen[t] = s + 1;
                if (cost[t] < INFINITY) note_near(v, &n, most - 1, (near){cost[t], t});
            }
        for (int l = 1; l < L; l++) {
            teach(x, l, s, s);
            for (int i = 0; i < n; i++) teach(x, l, s, v[i].node);
        }
    }
    const bool ok = cost && seen;
    free(cost);
    free(seen);
    return ok;
}

/* --- forward, and dropping --- */

PX_HOT static void lower_row(double *restrict to, const double *restrict hop, double add, int n) {
    for (int i = 0; i < n; i++) {
        const double v = add + hop[i];
        to[i] = v < to[i] ? v : to[i];
    }
}

/* Ways that end on s before layer l, by what they have spent. */
static double after_at(px_ng *x, int l, int s) {
    const size_t j = cell(x, l, s);
    double *after = x->after + x->at[j], least = INFINITY;
    const unsigned spent = bit_of(x, j, s);
    unsigned map[PX_NG_MEMORY];
    for (unsigned m = 0; m < masks_of(x, j); m++) after[m] = INFINITY;
    for (int n = 1; n <= l && n <= x->g.run_cap; n++) {
        if (n > reach(x, l - n, s)) continue;
        const size_t k = cell(x, l - n, s);
        const double whole = large(x, s, l - n, n), half = small(x, s, l - n, n);
        const unsigned self = bit_of(x, k, s);
        if (!(whole + x->from0[k] < INFINITY)) continue;
        map_bits(x, k, j, map);
        for (unsigned m = 0; m < masks_of(x, k); m++) {
            const double v = x->from[x->at[k] + m];
            const unsigned to = carry(m, map);
            after[to] = fmin(after[to], v + half);
            if (!(m & self)) after[to | spent] = fmin(after[to | spent], v + whole);
        }
    }
    for (unsigned m = 0; m < masks_of(x, j); m++) least = fmin(least, after[m]);
    return least;
}

/* From s before layer l to the starts at l; only what a plan within the limit could use where a successor remembers. */
static void spread_from(px_ng *x, int l, int s, double least, double limit, double *row) {
    const px_core *c = x->c;
    const size_t k = cell(x, l, s);
    unsigned map[PX_NG_MEMORY];
    if (c->hop) lower_row(row, px_hop_row(c, s, l), least, c->n_nodes);
    const int lo = c->hop ? 0 : c->links->first[s], hi = c->hop ? c->n_nodes : c->links->first[s + 1];
    for (int e = lo; e < hi; e++) {
        const int t = c->hop ? e : c->links->to[e];
        const double hop = c->hop ? px_hop_row(c, s, l)[t] : c->links->sec[e];
        const size_t j = cell(x, l, t);
        if (!c->hop) row[t] = fmin(row[t], least + hop);
        if (x->n_memory[j] == 0 || t == s || !(least + hop + x->start0[j] <= limit)) continue;
        map_bits(x, k, j, map);
        double *from = x->from + x->at[j];
        for (unsigned m = 0; m < masks_of(x, k); m++) {
            const unsigned to = carry(m, map);
            from[to] = fmin(from[to], x->after[x->at[k] + m] + hop);
        }
    }
}

static void forward(px_ng *x, double limit) {
    const px_core *c = x->c;
    const int L = c->n_layers, S = c->n_nodes;
    for (size_t i = 0; i < x->at[(size_t)L * (size_t)S]; i++) x->from[i] = INFINITY;
    for (size_t i = 0; i < (size_t)L * (size_t)S; i++) x->from0[i] = INFINITY;
    for (int s = 0; s < S; s++) x->from0[s] = x->from[x->at[s]] = c->source[s];
    for (int l = 1; l < L; l++) {
        double *row = x->from0 + cell(x, l, 0);
        for (int s = 0; s < S; s++) {
            if (!x->ends[cell(x, l, s)]) continue;
            const double hop_self = row[s], least = after_at(x, l, s);
            if (!(least + x->rest[x->at[cell(x, l, s)]] <= limit)) {
                double *after = x->after + x->at[cell(x, l, s)];
                for (unsigned m = 0; m < masks_of(x, cell(x, l, s)); m++) after[m] = INFINITY;
                continue;
            }
            spread_from(x, l, s, least, limit, row);
            row[s] = hop_self;
        }
        for (int s = 0; s < S; s++) {
            const size_t k = cell(x, l, s);
            double *from = x->from + x->at[k];
            if (x->n_memory[k] == 0) from[0] = row[s];
        }
    }
}

/* Least cost of a way through the visit (l, s, n). */
static double through(const px_ng *x, int l, int s, int n) {
    const size_t k = cell(x, l, s), j = cell(x, l + n, s);
    const unsigned self = bit_of(x, k, s), spent = bit_of(x, j, s);
    const double whole = large(x, s, l, n), half = small(x, s, l, n);
    unsigned map[PX_NG_MEMORY];
    double least = INFINITY;
    if (!x->ends[j]) return INFINITY;
    map_bits(x, k, j, map);
    for (unsigned m = 0; m < masks_of(x, k); m++) {
        const double v = x->from[x->at[k] + m];
        if (!(v < INFINITY)) continue;
        const unsigned to = carry(m, map);
        const double *rest = x->rest + x->at[j];
        least = fmin(least, v + half + rest[to]);
        if (!(m & self)) least = fmin(least, v + whole + rest[to | spent]);
    }
    return least;
}

double dil__px_ng_drop(px_ng *x, double target) {
    const px_core *c = x->c;
    const int L = c->n_layers, S = c->n_nodes;
    const double limit = px_limit(c, &x->w, target);
    double lost = INFINITY;
    assert(!x->stale);
    forward(x, limit);
    bool *ends = calloc((size_t)(L + 1) * (size_t)S, sizeof *ends);
    if (!ends) return INFINITY; /* nothing is dropped */
    x->n_cells = 0;
    for (int s = 0; s < S; s++)
        for (int l = 0; l < L; l++) {
            int *most = &x->g.run_max[s * L + l], n = *most, keep = 0;
            for (; n > 0; n--) {
                const double v = through(x, l, s, n);
                if (v <= limit) {
                    if (keep == 0) keep = n;
                    ends[cell(x, l + n, s)] = true;
                }
            }
            if (keep < *most) lost = target;
            *most = keep;
            x->n_cells += keep > 0;
        }
    memcpy(x->ends, ends, (size_t)(L + 1) * (size_t)S * sizeof *ends);
    free(ends);
    return lost;
}

/* --- life --- */

void dil__px_ng_revive(px_ng *x) {
    const px_core *c = x->c;
    px_graph g;
    if (!dil__px_graph_init(c, &g)) return; /* what was dropped stays so */
    memcpy(x->g.run_max, g.run_max, (size_t)c->n_nodes * (size_t)c->n_layers * sizeof *g.run_max);
    for (size_t k = 0; k < (size_t)(c->n_layers + 1) * (size_t)c->n_nodes; k++) x->ends[k] = true;
    x->n_cells = (size_t)c->n_layers * (size_t)c->n_nodes;
    dil__px_graph_fini(&g);
}

bool dil__px_ng_init(px_ng *x, const px_core *c, int n_threads) {
    const size_t L = (size_t)c->n_layers, S = (size_t)c->n_nodes;
    *x = (px_ng){.c = c, .n_threads = n_threads};
    if (!dil__px_graph_init(c, &x->g)) return false;
    const size_t visits = S * L * (size_t)x->g.run_cap;
    x->w.n_units = 192;
    x->w.small = dil__px_alloc(visits, sizeof(double));
    x->w.large = dil__px_alloc(visits, sizeof(double));
    x->memory = dil__px_alloc(L * S, PX_NG_MEMORY * sizeof *x->memory);
    x->n_memory = dil__px_alloc((L + 1) * S, 1);
    x->ends = dil__px_alloc((L + 1) * S, sizeof *x->ends);
    x->at = dil__px_alloc((L + 1) * S + 1, sizeof *x->at);
    x->start0 = dil__px_alloc(L * S, sizeof *x->start0);
    x->from0 = dil__px_alloc(L * S, sizeof *x->from0);
    x->visit = dil__px_alloc(L, sizeof *x->visit);
    x->used = dil__px_alloc(S, sizeof *x->used);
    x->level = dil__px_alloc(L, sizeof *x->level);
    if (!x->w.small || !x->w.large || !x->memory || !x->n_memory || !x->ends || !x->at || !x->start0 || !x->from0 || !x->visit ||
        !x->used || !x->level) return false;
    memset(x->ends, true, (L + 1) * S * sizeof *x->ends);
    x->n_cells = L * S;
    return true;
}

void dil__px_ng_fini(px_ng *x) {
    dil__px_weight_fini(&x->w);
    dil__px_graph_fini(&x->g);
    free(x->memory);
    free(x->n_memory);
    free(x->ends);
    free(x->at);
    free(x->start);
    free(x->rest);
    free(x->from);
    free(x->after);
    free(x->start0);
    free(x->from0);
    free(x->visit);
    free(x->used);
    free(x->level);
    *x = (px_ng){0};
}
