/* plan/path_big.c - hundreds to ten thousands of nodes: which of them can be in a good plan at all.
 *
 * Every node remembers a few others (and itself): while a way stays among nodes that remember one, its large visit is not made twice.
 * Whom to remember is learned from the cycles of the relaxed plans, as in dynamic ng-route relaxations; what is forgotten is held
 * down by prices. A forward and a backward pass give, for every node, the least cost of a way through it; nodes that cannot be in a
 * plan better than the target are dropped, and if few are left they are searched exactly.
 * Plans come from a beam over visits, guided by the completions. */
#include "plan/path_int.h"

#include <stdlib.h>
#include <string.h>

enum { BIG_UNITS = 192, MEM = 5, MASKS = 1 << MEM, CANDIDATES = 24, BEAM = 64, BEAM_NEXT = 32, BEAM_SAME = 3, STEPS = 400 };

typedef struct state { /* of the beam: layers before `layer` are placed */
    double cost, guess;
    int node, first, parent; /* index in the pool, -1: none */
} state;

typedef struct bucket { int n, index[BEAM]; } bucket;

typedef struct big {
    px_big *o;
    const px_core *c;
    px_graph g;
    px_weight w;
    bool *alive;
    int *live, n_live;
    double *start;  /* [L][S][MASKS] cheapest from a visit that starts at the layer on the node */
    double *rest;   /* [L+1][S][MASKS] cheapest after a visit that ends before the layer on the node */
    int *memory;    /* [S][MEM] nodes whose large visits are remembered while on the node */
    int *n_memory;  /* [S] */
    double *arrive; /* [L][S] cheapest way to a visit that starts there, its hop included */
    double *leave;  /* [S] of one layer */
    double *used;
    px_visit *visit;
    int n_visits, *plan_node, *level;
    double *scratch; /* [n_threads] rows of the visit tables */
    size_t scratch_row;
    state *pool;
    int n_pool, cap_pool;
    bucket *at;
    double push;    /* how much more than the bound's weight on damage leads the beam to plans within the budget */
} big;

static size_t flat(const big *b, int l, int s) { return (size_t)l * (size_t)b->c->n_nodes + (size_t)s; }
static size_t cell(const big *b, int l, int s) { return flat(b, l, s) << MEM; }
static double small(const big *b, int s, int l, int n) { return b->w.small[px_visit_at(b->c, &b->g, s, l, n)]; }
static double large(const big *b, int s, int l, int n) { return b->w.large[px_visit_at(b->c, &b->g, s, l, n)]; }

/* --- the relaxation --- */

static void visits_of(void *ctx, size_t i) {
    big *b = ctx;
    dil__px_visits_of_node(b->c, &b->w, b->live[i], b->g.run_max, b->g.run_cap);
}

/* The node's bit in what s remembers; 0: s does not. */
static unsigned bit_at(const big *b, int s, int node) {
    for (int i = 0; i < b->n_memory[s]; i++)
        if (b->memory[s * MEM + i] == node) return 1u << i;
    return 0;
}

/* What is still remembered on t of what was remembered on s. */
static unsigned carry(const big *b, int s, unsigned mask, int t) {
    unsigned kept = 0;
    for (int i = 0; mask >> i; i++)
        if (mask >> i & 1) kept |= bit_at(b, t, b->memory[s * MEM + i]);
    return kept;
}

static void start_at(big *b, int l, int s) {
    double *start = b->start + cell(b, l, s);
    const unsigned self = bit_at(b, s, s), n_masks = 1u << b->n_memory[s];
    const int n_max = b->g.run_max[s * b->c->n_layers + l];
    for (unsigned m = 0; m < n_masks; m++) start[m] = INFINITY;
    for (int n = 1; n <= n_max; n++) {
        const double *rest = b->rest + cell(b, l + n, s);
        const double whole = large(b, s, l, n), half = small(b, s, l, n);
        for (unsigned m = 0; m < n_masks; m++) {
            const double x = half + rest[m], y = whole + rest[m | self];
            if (x < start[m]) start[m] = x;
            if (!(m & self) && y < start[m]) start[m] = y;
        }
    }
}

typedef struct next { double guess, hop; int node; } next;

/* Keeps the `most` least of what is offered, in order. */
static void note_next(next *v, int *n, int most, next x) {
    if (*n == most && x.guess >= v[*n - 1].guess) return;
    int i = *n < most ? (*n)++ : *n - 1;
    for (; i > 0 && v[i - 1].guess > x.guess; i--) v[i] = v[i - 1];
    v[i] = x;
}

/* With something remembered, the next node costs no less than with nothing: the candidates in order of the latter settle nearly
 * every mask after a few. */
static void rest_at(big *b, int l, int s) {
    const px_links *k = b->c->links;
    const double *start = b->start + cell(b, l, 0);
    double *rest = b->rest + cell(b, l, s);
    next v[CANDIDATES];
    int n = 0;
    if (b->n_memory[s] == 0) {
        double least = INFINITY;
        for (int e = k->first[s]; e < k->first[s + 1]; e++) {
            const double x = k->sec[e] + start[(size_t)k->to[e] << MEM]; /* dropped nodes start at INFINITY */
            least = x < least ? x : least;
        }
        rest[0] = least;
        return;
    }
    for (int e = k->first[s]; e < k->first[s + 1]; e++) {
        const double x = k->sec[e] + start[(size_t)k->to[e] << MEM];
        if (x < INFINITY) note_next(v, &n, CANDIDATES, (next){x, k->sec[e], k->to[e]});
    }
    for (unsigned m = 0; m < 1u << b->n_memory[s]; m++) {
        double least = INFINITY;
        int i = 0;
        for (; i < n && v[i].guess < least; i++)
            least = fmin(least, v[i].hop + start[((size_t)v[i].node << MEM) + carry(b, s, m, v[i].node)]);
        if (i == n && n == CANDIDATES && v[n - 1].guess < least) least = v[n - 1].guess; /* what was not kept costs at least this */
        rest[m] = least;
    }
}

static void backward(big *b) {
    const px_core *c = b->c;
    for (int i = 0; i < b->n_live; i++)
        for (unsigned m = 0; m < MASKS; m++) b->rest[cell(b, c->n_layers, b->live[i]) + m] = c->sink[b->live[i]];
    for (int l = c->n_layers - 1; l >= 0; l--) {
        for (int i = 0; i < b->n_live; i++) start_at(b, l, b->live[i]);
        for (int i = 0; l > 0 && i < b->n_live; i++) rest_at(b, l, b->live[i]);
    }
    b->w.root = INFINITY;
    for (int i = 0; i < b->n_live; i++) b->w.root = fmin(b->w.root, c->source[b->live[i]] + b->start[cell(b, 0, b->live[i])]);
}

static void forward(big *b) {
    const px_core *c = b->c;
    const px_links *k = c->links;
    const int L = c->n_layers;
    for (size_t i = 0; i < (size_t)L * (size_t)c->n_nodes; i++) b->arrive[i] = INFINITY;
    memcpy(b->arrive, c->source, (size_t)c->n_nodes * sizeof(double));
    for (int l = 1; l < L; l++) {
        double *arrive = b->arrive + flat(b, l, 0);
        for (int i = 0; i < b->n_live; i++) {
            const int s = b->live[i];
            double least = INFINITY;
            for (int n = 1; n <= l && n <= b->g.run_cap; n++)
                if (n <= b->g.run_max[s * L + l - n])
                    least = fmin(least, b->arrive[flat(b, l - n, s)] + large(b, s, l - n, n));
            if (!(least < INFINITY)) continue;
            for (int e = k->first[s]; e < k->first[s + 1]; e++) {
                const double x = least + k->sec[e];
                const int t = k->to[e];
                arrive[t] = x < arrive[t] ? x : arrive[t];
            }
        }
    }
}

static bool relax(big *b, double damage, const double *price) {
    b->w.sec = 1;
    b->w.damage = damage;
    b->w.price = price;
    b->w.credit = 0;
    for (int i = 0; i < b->n_live; i++) b->w.credit += price[b->live[i]] * b->c->store[b->live[i]];
    dil_parallel(b->o->n_threads, (size_t)b->n_live, visits_of, b);
    backward(b);
    return b->w.root < INFINITY;
}

/* The node that a cheapest way goes to after `last` (-1: from the source) with layers before l placed; -1: none. */
static int relaxed_next(const big *b, int l, int last, unsigned mask) {
    const px_core *c = b->c;
    double least = INFINITY;
    int to = -1;
    if (last < 0) {
        for (int i = 0; i < b->n_live; i++) {
            const double x = c->source[b->live[i]] + b->start[cell(b, l, b->live[i])];
            if (x < least) {
                to = b->live[i];
                least = x;
            }
        }
        return to;
    }
    for (int e = c->links->first[last]; e < c->links->first[last + 1]; e++) {
        const int t = c->links->to[e];
        if (c->links->sec[e] + b->start[cell(b, l, t)] >= least) continue;
        const double x = c->links->sec[e] + b->start[cell(b, l, t) + carry(b, last, mask, t)];
        if (x < least) {
            to = t;
            least = x;
        }
    }
    return to;
}

static px_visit relaxed_visit(const big *b, int l, int s, unsigned mask) {
    const unsigned self = bit_at(b, s, s);
    double least = INFINITY;
    px_visit v = {s, l, 1, true};
    for (int n = 1; n <= b->g.run_max[s * b->c->n_layers + l]; n++) {
        const double *rest = b->rest + cell(b, l + n, s);
        const double x = small(b, s, l, n) + rest[mask], y = mask & self ? INFINITY : large(b, s, l, n) + rest[mask | self];
        if (fmin(x, y) < least) {
            least = fmin(x, y);
            v.n = n;
            v.small = x <= y;
        }
    }
    return v;
}

/* The relaxed plan's visits and use of every node -> its damage, INFINITY when there is none. */
static double relaxed_plan(big *b) {
    const px_core *c = b->c;
    int layers[1024];
    double damage = 0;
    unsigned mask = 0;
    memset(b->used, 0, (size_t)c->n_nodes * sizeof *b->used);
    b->n_visits = 0;
    for (int l = 0, last = -1; l < c->n_layers;) {
        const int to = relaxed_next(b, l, last, mask);
        if (to < 0) return INFINITY;
        mask = last < 0 ? 0 : carry(b, last, mask, to);
        const px_visit v = relaxed_visit(b, l, to, mask);
        if (!v.small) mask |= bit_at(b, to, to);
        for (int i = 0; i < v.n; i++) layers[i] = l + i;
        const px_group g = {to, v.n, layers};
        const double store = c->store[to];
        if (!dil__px_group_levels(c, &b->w, &g, v.small ? store / 2 : store, 4 * BIG_UNITS, b->level) &&
            !dil__px_group_levels(c, &b->w, &g, store, 4 * BIG_UNITS, b->level)) return INFINITY;
        for (int i = 0; i < v.n; i++) {
            damage += px_damage(c, layers[i], b->level[i]);
            if (i == 0 && b->used[to] > 0) b->o->again[to]++;
            b->used[to] += px_bytes(c, layers[i], b->level[i]);
        }
        b->visit[b->n_visits++] = v;
        l += v.n;
        last = to;
    }
    return damage;
}

/* Where the relaxed plan comes back to a node for a second large visit, the nodes in between (and it) learn to remember it. */
static void remember(big *b) {
    for (int j = 1; j < b->n_visits; j++) {
        const int node = b->visit[j].node;
        int i = j - 1;
        if (b->visit[j].small) continue;
        while (i >= 0 && (b->visit[i].node != node || b->visit[i].small)) i--;
        if (i < 0 || j - i > 5) continue;
        for (int k = i + 1; k <= j; k++) {
            const int s = b->visit[k].node;
            if (bit_at(b, s, node) || b->n_memory[s] == MEM) continue;
            b->memory[s * MEM + b->n_memory[s]++] = node;
        }
    }
}

/* --- dropping nodes --- */

static void drop_nodes(big *b, double target) {
    const px_core *c = b->c;
    forward(b);
    int n = 0;
    for (int i = 0; i < b->n_live; i++) {
        const int s = b->live[i];
        double least = INFINITY;
        for (int l = 0; l < c->n_layers; l++) least = fmin(least, b->arrive[flat(b, l, s)] + b->start[cell(b, l, s)]);
        const double through = px_seconds(c, &b->w, least);
        if (through < target) {
            b->live[n++] = s;
            continue;
        }
        b->o->lost = fmin(b->o->lost, through);
        b->alive[s] = false;
        for (int l = 0; l < c->n_layers; l++)
            for (unsigned m = 0; m < MASKS; m++) b->start[cell(b, l, s) + m] = b->rest[cell(b, l, s) + m] = INFINITY;
        for (unsigned m = 0; m < MASKS; m++) b->rest[cell(b, c->n_layers, s) + m] = INFINITY;
    }
    b->n_live = n;
}

/* --- the beam --- */

static bool on_branch(const big *b, int i, int node) {
    for (; i >= 0; i = b->pool[i].parent)
        if (b->pool[i].node == node) return true;
    return false;
}

/* Puts a state into the bucket of its end layer if it is among the best there; few of one node. */
static bool offer(big *b, int layer, state x) {
    bucket *k = &b->at[layer];
    int worst = -1, same = 0, worst_same = -1;
    for (int i = 0; i < k->n; i++) {
        const state *y = &b->pool[k->index[i]];
        if (worst < 0 || y->guess > b->pool[k->index[worst]].guess) worst = i;
        if (y->node == x.node) {
            same++;
            if (worst_same < 0 || y->guess > b->pool[k->index[worst_same]].guess) worst_same = i;
        }
    }
    int at = k->n;
    if (same >= BEAM_SAME) at = worst_same;
    else if (k->n == BEAM) at = worst;
    if (at < k->n && b->pool[k->index[at]].guess <= x.guess) return true;
    if (b->n_pool == b->cap_pool) {
        const int cap = b->cap_pool ? 2 * b->cap_pool : 4096;
        state *p = realloc(b->pool, (size_t)cap * sizeof *p);
        if (!p) return false;
        b->pool = p;
        b->cap_pool = cap;
    }
    b->pool[b->n_pool] = x;
    k->index[at] = b->n_pool++;
    if (at == k->n) k->n++;
    return true;
}

static bool extend_state(big *b, int layer, int i) {
    const px_core *c = b->c;
    next v[BEAM_NEXT];
    int n = 0;
    const double so_far = i < 0 ? 0 : b->pool[i].cost;
    const double *start = b->start + cell(b, layer, 0);
    if (i < 0) {
        for (int k = 0; k < b->n_live; k++)
            note_next(v, &n, BEAM_NEXT, (next){c->source[b->live[k]] + start[(size_t)b->live[k] << MEM], c->source[b->live[k]], b->live[k]});
    } else {
        const int s = b->pool[i].node;
        for (int e = c->links->first[s]; e < c->links->first[s + 1]; e++) {
            const double x = c->links->sec[e] + start[(size_t)c->links->to[e] << MEM];
            if (x < INFINITY && (n < BEAM_NEXT || x < v[n - 1].guess) && !on_branch(b, i, c->links->to[e]))
                note_next(v, &n, BEAM_NEXT, (next){x, c->links->sec[e], c->links->to[e]});
        }
    }
    for (int k = 0; k < n; k++)
        for (int m = 1; m <= b->g.run_max[v[k].node * c->n_layers + layer]; m++) {
            const double cost = so_far + v[k].hop + large(b, v[k].node, layer, m);
            const double guess = cost + b->rest[cell(b, layer + m, v[k].node)];
            if (guess < INFINITY && !offer(b, layer + m, (state){cost, guess, v[k].node, layer, i})) return false;
        }
    return true;
}

/* Beam plans under the multipliers at hand; the best few structures are rounded. *within: some met the budget. */
static bool beam(big *b, bool *within) {
    const px_core *c = b->c;
    enum { TRIES = 6 };
    b->n_pool = 0;
    for (int l = 0; l <= c->n_layers; l++) b->at[l].n = 0;
    if (!extend_state(b, 0, -1)) return false;
    for (int l = 1; l < c->n_layers; l++)
        for (int i = 0; i < b->at[l].n; i++)
            if (!extend_state(b, l, b->at[l].index[i])) return false;
    bucket *end = &b->at[c->n_layers];
    for (int t = 0; t < TRIES && end->n > 0; t++) {
        int k = 0;
        for (int i = 1; i < end->n; i++)
            if (b->pool[end->index[i]].guess < b->pool[end->index[k]].guess) k = i;
        int last = c->n_layers;
        for (int i = end->index[k]; i >= 0; i = b->pool[i].parent) {
            for (int l = b->pool[i].first; l < last; l++) b->plan_node[l] = b->pool[i].node;
            last = b->pool[i].first;
        }
        double w = b->w.damage;
        if (dil__px_round(c, b->plan_node, &w, b->o->best)) *within = true;
        end->index[k] = end->index[--end->n];
    }
    return true;
}

/* --- the ascent --- */

static double target_of(const big *b) { return b->o->best->found ? b->o->best->sec * (1 - b->o->gap) : INFINITY; }

/* At the best weight on damage the relaxation mixes plans on both sides of the budget, and the beam finds those that miss it: it is
 * led by a larger weight, as little larger as will do. */
static bool beam_within(big *b, double damage, const double *price) {
    bool within = false;
    if (!relax(b, damage * b->push, price)) return true;
    if (!beam(b, &within)) return false;
    drop_nodes(b, target_of(b));
    b->push = within ? fmax(1, b->push / 1.08) : fmin(4, b->push * 1.2);
    return true;
}

typedef struct sample { double at, value, slope; } sample;

static bool relax_at(big *b, double at, sample *x) {
    px_big *o = b->o;
    if (!relax(b, at, o->price)) return o->no_path = true;
    x->at = at;
    x->value = px_seconds(b->c, &b->w, b->w.root);
    x->slope = relaxed_plan(b) - b->c->damage_max;
    remember(b);
    if (x->value > o->bound) {
        o->bound = x->value;
        o->damage = at;
    }
    drop_nodes(b, target_of(b));
    return true;
}

/* The weight on damage alone, by cutting planes in one dimension, while the prices are what they are. */
static bool find_damage(big *b, double at, int n_cuts) {
    px_big *o = b->o;
    sample lo = {0}, hi = {0}, x;
    for (int i = 0; i < 40 && !o->no_path; i++) {
        if (!relax_at(b, at, &x)) return false;
        if (x.slope <= 0) hi = x;
        else lo = x;
        if (hi.at > 0 && (lo.at > 0 || i > 3)) break;
        at = x.slope > 0 ? 2 * at : at / 2;
    }
    if (!(hi.at > 0 && lo.at > 0)) return true;
    for (int i = 0; i < n_cuts && b->n_live > o->keep && dil_now_ns() < o->deadline_ns && !o->no_path; i++) {
        const double mid = (hi.value - hi.slope * hi.at - lo.value + lo.slope * lo.at) / (lo.slope - hi.slope);
        const double top = lo.value + lo.slope * (mid - lo.at);
        if (!(mid > lo.at && mid < hi.at) || top - o->bound < 2e-3 * top) break;
        if (!relax_at(b, mid, &x)) return false;
        if (x.slope > 0) lo = x;
        else hi = x;
    }
    for (int i = 0; i < 8 && b->n_live > o->keep && dil_now_ns() < o->deadline_ns && !o->no_path; i++) {
        const bool had = o->best->found;
        if (!beam_within(b, o->damage, o->price)) return false;
        if (had && b->push <= 1.01) break;
    }
    return true;
}

typedef struct ascent { double *y, *d, *best, *price; double theta; int since; } ascent;

/* One subgradient step from the plan of the relaxation at y. */
static bool step(big *b, ascent *a, double value, double damage) {
    const px_core *c = b->c;
    double norm = 0;
    for (int i = -1; i < b->n_live; i++) {
        const int k = i < 0 ? 0 : 1 + b->live[i];
        const double g = i < 0 ? (c->damage_max > 0 ? damage / c->damage_max - 1 : 0)
                               : c->store[k - 1] > 0 ? b->used[k - 1] / c->store[k - 1] - 1 : 0;
        a->d[k] = a->y[k] <= 0 && g < 0 ? 0 : 0.7 * g + 0.3 * a->d[k];
        norm += a->d[k] * a->d[k];
    }
    if (norm <= 0) return false;
    const double upper = b->o->best->found ? b->o->best->sec : 1.2 * value;
    const double t = a->theta * fmax(upper - value, 0.002 * upper) / norm;
    for (int i = -1; i < b->n_live; i++) {
        const int k = i < 0 ? 0 : 1 + b->live[i];
        a->y[k] = fmax(0, a->y[k] + t * a->d[k]);
    }
    return true;
}

static bool ascend(big *b, ascent *a) {
    const px_core *c = b->c;
    px_big *o = b->o;
    int since_drop = 0;
    for (int i = 0; i < STEPS && dil_now_ns() < o->deadline_ns && b->n_live > o->keep; i++) {
        for (int k = 0; k < b->n_live; k++) {
            const int s = b->live[k];
            a->price[s] = c->store[s] > 0 ? a->y[1 + s] / c->store[s] : 0;
        }
        const double damage_weight = c->damage_max > 0 ? a->y[0] / c->damage_max : 0;
        if (!relax(b, damage_weight, a->price)) return o->no_path = true;
        const double value = px_seconds(c, &b->w, b->w.root);
        const double damage = relaxed_plan(b);
        remember(b);
        const bool better = value > o->bound;
        if (better) {
            o->bound = value;
            o->damage = damage_weight;
            memcpy(o->price, a->price, (size_t)c->n_nodes * sizeof *a->price);
            memcpy(a->best, a->y, (size_t)(c->n_nodes + 1) * sizeof *a->y);
            a->since = 0;
        } else if (++a->since == 8) {
            a->since = 0;
            a->theta *= 0.6;
            memcpy(a->y, a->best, (size_t)(c->n_nodes + 1) * sizeof *a->y);
            if (a->theta < 0.01) break;
        }
        if (!(damage < INFINITY) || !step(b, a, value, damage)) break;
        if (++since_drop >= 8 && better) {
            since_drop = 0;
            drop_nodes(b, target_of(b));
            if (!beam_within(b, damage_weight, a->price)) return false;
        }
    }
    return true;
}

static bool big_init(big *b) {
    const px_core *c = b->c;
    const size_t L = (size_t)c->n_layers, S = (size_t)c->n_nodes;
    if (!dil__px_graph_init(c, &b->g)) return false;
    b->w.n_units = BIG_UNITS;
    b->w.large = dil__px_alloc(S * L * (size_t)b->g.run_cap, sizeof(double));
    b->alive = dil__px_alloc(S, sizeof *b->alive);
    b->live = dil__px_alloc(S, sizeof *b->live);
    b->w.small = dil__px_alloc(S * L * (size_t)b->g.run_cap, sizeof(double));
    b->start = dil__px_alloc(L * S, MASKS * sizeof(double));
    b->rest = dil__px_alloc((L + 1) * S, MASKS * sizeof(double));
    b->memory = dil__px_alloc(S, MEM * sizeof(int));
    b->n_memory = dil__px_alloc(S, sizeof(int));
    b->arrive = dil__px_alloc(L * S, sizeof(double));
    b->used = dil__px_alloc(S, sizeof(double));
    b->visit = dil__px_alloc(L, sizeof *b->visit);
    b->plan_node = dil__px_alloc(2 * L, sizeof(int));
    b->at = dil__px_alloc(L + 1, sizeof *b->at);
    if (!b->w.large || !b->w.small || !b->memory || !b->n_memory || !b->alive || !b->live || !b->start || !b->rest || !b->arrive || !b->used || !b->visit || !b->plan_node || !b->at)
        return false;
    b->level = b->plan_node + L;
    for (int s = 0; s < c->n_nodes; s++) {
        b->alive[s] = true;
        b->live[b->n_live++] = s;
    }
    return true;
}

static void big_fini(big *b) {
    dil__px_weight_fini(&b->w);
    dil__px_graph_fini(&b->g);
    free(b->alive);
    free(b->live);
    free(b->start);
    free(b->rest);
    free(b->arrive);
    free(b->memory);
    free(b->n_memory);
    free(b->used);
    free(b->visit);
    free(b->plan_node);
    free(b->at);
    free(b->pool);
}

bool dil__px_big_run(px_big *o) {
    const size_t S = (size_t)o->c->n_nodes;
    big b = {.o = o, .c = o->c, .push = 1};
    o->bound = -INFINITY;
    o->lost = INFINITY;
    o->price = dil__px_alloc(S, sizeof(double));
    o->node = dil__px_alloc(S, sizeof(int));
    o->again = dil__px_alloc(S, sizeof(int));
    double *y = dil__px_alloc(3 * (S + 1) + S, sizeof *y);
    bool ok = o->price && o->node && o->again && y && big_init(&b);
    if (ok) {
        ascent a = {y, y + S + 1, y + 2 * (S + 1), y + 3 * (S + 1), 0.7, 0};
        ok = find_damage(&b, dil__px_first_weight(o->c), 6);
        a.y[0] = o->damage * o->c->damage_max;
        memcpy(a.best, a.y, (S + 1) * sizeof *a.y);
        ok = ok && (o->no_path || ascend(&b, &a));
        memcpy(o->node, b.live, (size_t)b.n_live * sizeof(int));
        o->n_nodes = b.n_live;
    }
    free(y);
    big_fini(&b);
    return ok;
}
