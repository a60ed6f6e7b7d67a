/* Bounds for a fleet by prices on what its members share (Lagrangian relaxation).
 *
 * For prices y >= 0 on the stores, times and connections (each of capacity 1) no set of plans costs less than
 *     sum over the members of min over its plans (cost + y · use)  -  sum of y,
 * and each minimum is bounded by a way through the layered graph with the member's own budgets (damage, file, chunk) priced as well. A way is
 * so cheap (about layers * links steps) that all prices together are climbed by Shor's r-algorithm in one go. Links are not priced: their
 * rows seldom bind before the connections' do. Use is that of the least a plan can take (fleet_rest.c); but a table that both ends of a way
 * share is counted once exactly, because the ends' nodes are known: one pass for each node of the first layer.
 *
 * Rejected: the members' problems solved by `path` at every step. A step takes seconds in place of a millisecond, and what it adds, the member's
 * own limits of storage, is little where several models share the store. It is done once, at the best prices (fleet_search.c). */
#include "plan/fleet_int.h"
#include "plan/path_int.h"

#include <stdlib.h>
#include <string.h>

enum { ROUNDS_MAX = 4000, SCOUT_ROUNDS = 250 };
#define FORGET 0.98

typedef struct way { /* a member's relaxation */
    dil__member *v;
    int first;           /* of its prices: damage, file, then a part of the chunk for each node */
    double *cell;        /* [L][S] least priced cost over the levels */
    uint32_t *pick;      /* [L][S] that level */
    double *end;         /* [S] cost of the ways to each node */
    uint32_t *from;      /* [L][S] the node before */
    uint32_t *node, *level; /* [L] of the best way */
    double *ends;        /* [S][Q] priced cost of the first layer, of the last: tied only */
    double *last;
    double *hop, *head_hop; /* [n_hops] */
    double value;
} way;

typedef struct auction {
    dil__fleet *f;
    way *ways;           /* [n] */
    int n, n_shared;     /* prices; the first ones are keys */
    double *z, *grad;    /* [n] in units of the goal */
    dil__scout *scout;   /* of a fleet of one: what is learnt on the way; NULL: nothing */
    bool none;           /* a member has no way at all */
    int64_t end_ns;
} auction;

/* --- a member at given prices ---------------------------------------------------------------------------------------------- */

static double chunk_price(const auction *a, const way *w, uint32_t s)
{
    double sum = 0;
    const dil_problem *p = w->v->p;
    if (!p->chunk_sec || a->f->goal == DIL_GOAL_DAMAGE) return 0;
    for (uint32_t k = 0; k < p->n_nodes; k++) sum += a->z[w->first + 2 + (int)k];
    return p->chunk_weight * w->v->weight * (sum > 0 ? a->z[w->first + 2 + (int)s] / sum : 1.0 / p->n_nodes);
}

static bool within_own(const dil_problem *p, uint32_t l, uint32_t s, uint32_t q)
{
    const double slack = 1 + 1e-9;
    size_t lq = (size_t)l * p->n_levels + q;
    double bytes = p->layer_bytes[lq] - (p->tied && l == p->n_layers - 1 ? p->shared_bytes[q] : 0) + (p->buffer_bytes ? p->buffer_bytes[l] : 0);
    return bytes <= p->store_bytes[s] * slack && p->damage[lq] <= p->damage_max * slack &&
           (p->file_bytes ? p->file_bytes[lq] : p->layer_bytes[lq]) <= p->file_bytes_max * slack &&
           (!p->load || p->load[dil__cell(p, l, s, q)] <= p->load_max * slack);
}

/* What one cell takes of each budget. */
typedef struct taken {
    double damage, file, chunk, store, busy;
} taken;

static taken taken_by(const way *w, uint32_t l, uint32_t s, uint32_t q)
{
    const dil_problem *p = w->v->p;
    size_t lq = (size_t)l * p->n_levels + q, cell = dil__cell(p, l, s, q);
    taken t = {.damage = isfinite(p->damage_max) ? p->damage[lq] / fmax(p->damage_max, 1e-300) : 0,
               .file = isfinite(p->file_bytes_max) ? (p->file_bytes ? p->file_bytes[lq] : p->layer_bytes[lq]) / p->file_bytes_max : 0,
               .chunk = p->chunk_sec ? p->chunk_sec[cell] : 0,
               .store = p->store_bytes[s] > 0 ? (p->layer_bytes[lq] + w->v->spread[l]) / p->store_bytes[s] : 0,
               .busy = p->load && isfinite(p->load_max) ? p->load[cell] / p->load_max : 0};
    return t;
}

static double cell_cost(const auction *a, const way *w, uint32_t l, uint32_t s, uint32_t q, double chunk)
{
    const dil__member *v = w->v;
    const dil_problem *p = v->p;
    const double *own = a->z + w->first;
    if (!within_own(p, l, s, q)) return INFINITY;
    taken t = taken_by(w, l, s, q);
    double cost = v->weight * (a->f->goal == DIL_GOAL_DAMAGE ? p->damage[(size_t)l * p->n_levels + q] : p->layer_sec[dil__cell(p, l, s, q)]);
    cost += own[0] * t.damage + own[1] * t.file + chunk * t.chunk + a->z[dil__fleet_node_key(a->f, v, DIL__TAG_STORE, s)] * t.store;
    return t.busy > 0 ? cost + a->z[dil__fleet_node_key(a->f, v, DIL__TAG_NODE, s)] * t.busy : cost;
}

static void fill_cells(const auction *a, way *w)
{
    const dil_problem *p = w->v->p;
    uint32_t L = p->n_layers, S = p->n_nodes, Q = p->n_levels;
    for (uint32_t s = 0; s < S; s++) {
        double chunk = chunk_price(a, w, s);
        for (uint32_t l = 0; l < L; l++) {
            double *least = &w->cell[(size_t)l * S + s];
            bool end = p->tied && (l == 0 || l == L - 1);
            *least = end ? 0 : INFINITY;
            for (uint32_t q = 0; q < p->level_count[l]; q++) {
                double cost = cell_cost(a, w, l, s, q, chunk);
                if (end) (l ? w->last : w->ends)[(size_t)s * Q + q] = cost;
                if (end || cost >= *least) continue;
                *least = cost;
                w->pick[(size_t)l * S + s] = q;
            }
        }
    }
}

static void fill_hops(const auction *a, way *w)
{
    const dil_problem *p = w->v->p;
    double weight = a->f->goal == DIL_GOAL_DAMAGE ? 0 : w->v->weight;
    bool priced = a->n_shared > (int)a->f->cluster->n_nodes && isfinite(p->load_max) && p->out_load && p->in_load;
    for (uint32_t i = 0; i < p->n_hops; i++) {
        const dil_hop *h = &p->hops[i];
        double load = priced ? (p->out_load[h->from] * a->z[dil__fleet_node_key(a->f, w->v, DIL__TAG_OUT, h->from)] +
                                p->in_load[h->to] * a->z[dil__fleet_node_key(a->f, w->v, DIL__TAG_IN, h->to)]) / p->load_max : 0;
        w->hop[i] = h->load <= p->load_max ? weight * h->sec + load : INFINITY;
        w->head_hop[i] = h->load * p->head_share <= p->load_max ? weight * h->head_sec + load * p->head_share : INFINITY;
    }
}

/* Ways from the costs in w->end, of the first layer, to every node of the last. */
static void walk(way *w, double *next)
{
    const dil_problem *p = w->v->p;
    uint32_t L = p->n_layers, S = p->n_nodes;
    for (uint32_t l = 1; l < L; l++) {
        const double *hop = l == L - 1 ? w->head_hop : w->hop;
        uint32_t *from = w->from + (size_t)l * S;
        for (uint32_t s = 0; s < S; s++) {
            next[s] = w->end[s];
            from[s] = s;
        }
        for (uint32_t i = 0; i < p->n_hops; i++) {
            double cost = w->end[p->hops[i].from] + hop[i];
            if (cost >= next[p->hops[i].to]) continue;
            next[p->hops[i].to] = cost;
            from[p->hops[i].to] = p->hops[i].from;
        }
        for (uint32_t s = 0; s < S; s++) w->end[s] = next[s] + w->cell[(size_t)l * S + s];
    }
}

static double ends_cost(const auction *a, const way *w, uint32_t first, uint32_t last, uint32_t q)
{
    const dil_problem *p = w->v->p;
    double cost = w->ends[(size_t)first * p->n_levels + q] + w->last[(size_t)last * p->n_levels + q];
    if (first != last || !(p->store_bytes[first] > 0)) return cost;
    return cost - a->z[dil__fleet_node_key(a->f, w->v, DIL__TAG_STORE, first)] * p->shared_bytes[q] / p->store_bytes[first];
}

static void trace(way *w, uint32_t last)
{
    const dil_problem *p = w->v->p;
    for (uint32_t l = p->n_layers; l-- > 0;) {
        w->node[l] = last;
        w->level[l] = w->pick[(size_t)l * p->n_nodes + last];
        if (l > 0) last = w->from[(size_t)l * p->n_nodes + last];
    }
}

static double edge(const auction *a, const way *w, const double *sec, uint32_t s)
{
    if (isinf(sec[s])) return INFINITY;
    return a->f->goal == DIL_GOAL_DAMAGE ? 0 : w->v->weight * sec[s];
}

static void relax_plain(const auction *a, way *w, double *next)
{
    const dil_problem *p = w->v->p;
    uint32_t best = 0;
    for (uint32_t s = 0; s < p->n_nodes; s++) w->end[s] = w->cell[s] + edge(a, w, p->source_sec, s);
    walk(w, next);
    for (uint32_t s = 0; s < p->n_nodes; s++) {
        w->end[s] += edge(a, w, p->sink_sec, s);
        if (w->end[s] < w->end[best]) best = s;
    }
    w->value = w->end[best];
    if (isfinite(w->value)) trace(w, best);
}

/* Both ends have one level, and share it where they share a node. */
static void relax_tied(const auction *a, way *w, double *next)
{
    const dil_problem *p = w->v->p;
    uint32_t S = p->n_nodes;
    w->value = INFINITY;
    for (uint32_t first = 0; first < S; first++) {
        double best = INFINITY;
        uint32_t last = 0, level = 0;
        for (uint32_t s = 0; s < S; s++) w->end[s] = s == first ? edge(a, w, p->source_sec, s) : INFINITY;
        if (isinf(w->end[first])) continue;
        walk(w, next);
        for (uint32_t s = 0; s < S; s++) {
            double way_cost = w->end[s] + edge(a, w, p->sink_sec, s);
            for (uint32_t q = 0; q < p->level_count[0]; q++) {
                double cost = way_cost + ends_cost(a, w, first, s, q);
                if (cost >= best) continue;
                best = cost;
                last = s;
                level = q;
            }
        }
        if (best >= w->value) continue;
        w->value = best;
        trace(w, last);
        w->level[0] = w->level[p->n_layers - 1] = level;
    }
}

/* --- all together ---------------------------------------------------------------------------------------------------------- */

/* The gradient's part: what the best way takes. */
static void add_gradient(auction *a, way *w)
{
    dil__member *v = w->v;
    const dil_problem *p = v->p;
    double *own = a->grad + w->first, mean = 0, sum = 0;
    for (uint32_t l = 0; l < p->n_layers; l++) {
        uint32_t s = w->node[l];
        taken t = taken_by(w, l, s, w->level[l]);
        own[0] += t.damage;
        own[1] += t.file;
        own[2 + s] += t.chunk;
        a->grad[dil__fleet_node_key(a->f, v, DIL__TAG_STORE, s)] += t.store;
        if (t.busy > 0) a->grad[dil__fleet_node_key(a->f, v, DIL__TAG_NODE, s)] += t.busy;
        if (l == 0 || w->node[l - 1] == s || !isfinite(p->load_max) || !p->out_load || !p->in_load) continue;
        double share = (l == p->n_layers - 1 ? p->head_share : 1) / p->load_max;
        a->grad[dil__fleet_node_key(a->f, v, DIL__TAG_OUT, w->node[l - 1])] += share * p->out_load[w->node[l - 1]];
        a->grad[dil__fleet_node_key(a->f, v, DIL__TAG_IN, s)] += share * p->in_load[s];
    }
    uint32_t first = w->node[0];
    if (p->tied && first == w->node[p->n_layers - 1] && p->store_bytes[first] > 0)
        a->grad[dil__fleet_node_key(a->f, v, DIL__TAG_STORE, first)] -= p->shared_bytes[w->level[0]] / p->store_bytes[first];
    if (isfinite(p->damage_max)) own[0] -= 1;
    if (isfinite(p->file_bytes_max)) own[1] -= 1;
    /* of the chunk's prices only the proportions count */
    for (uint32_t s = 0; s < p->n_nodes; s++) sum += a->z[w->first + 2 + (int)s];
    for (uint32_t s = 0; s < p->n_nodes && sum > 0; s++) mean += a->z[w->first + 2 + (int)s] / sum * own[2 + s];
    double all = a->f->goal == DIL_GOAL_DAMAGE || !p->chunk_sec || !(sum > 0) ? 0 : p->chunk_weight * v->weight / sum;
    for (uint32_t s = 0; s < p->n_nodes; s++) own[2 + s] = all * (own[2 + s] - mean);
}

/* The bound at a->z, and its gradient. */
static double evaluate(auction *a)
{
    double sum = 0;
    for (int k = 0; k < a->n_shared; k++) sum -= a->z[k];
    for (int k = 0; k < a->n; k++) a->grad[k] = k < a->n_shared ? -1 : 0;
    for (uint32_t i = 0; i < a->f->n; i++) {
        way *w = &a->ways[i];
        const dil_problem *p = w->v->p;
        double *next = w->end + p->n_nodes;
        fill_cells(a, w);
        fill_hops(a, w);
        if (p->tied) relax_tied(a, w, next);
        else relax_plain(a, w, next);
        if (isinf(w->value)) {
            a->none = true;
            return INFINITY;
        }
        w->value -= (isfinite(p->damage_max) ? a->z[w->first] : 0) + (isfinite(p->file_bytes_max) ? a->z[w->first + 1] : 0);
        sum += w->value;
        add_gradient(a, w);
    }
    return sum;
}

/* Which nodes the way uses, and whether it is a plan by chance. */
static void look(dil__scout *x, const way *w)
{
    const dil_problem *p = w->v->p;
    dil_use u;
    for (uint32_t s = 0; s < p->n_nodes; s++) x->count[s] *= FORGET;
    for (uint32_t l = 0; l < p->n_layers; l++) x->count[w->node[l]] += 1;
    if (dil_problem_check(p, w->node, w->level, &u, NULL) != DIL_OK || u.sec >= x->sec) return;
    x->sec = u.sec;
    memcpy(x->node, w->node, p->n_layers * sizeof *w->node);
    memcpy(x->level, w->level, p->n_layers * sizeof *w->level);
}

static bool value_at(void *ctx, const double *z, double *value, double *grad)
{
    auction *a = ctx;
    double steepest = 0;
    for (int k = 0; k < a->n; k++) a->z[k] = fmax(0, z[k]);
    *value = evaluate(a);
    if (a->none) {
        memset(grad, 0, (size_t)a->n * sizeof *grad);
        *value = -INFINITY;
        return true;
    }
    if (a->scout) look(a->scout, a->ways);
    if (*value > a->f->bound) {
        a->f->bound = *value;
        memcpy(a->f->price, a->z, (size_t)a->n_shared * sizeof *a->z);
        for (uint32_t i = 0; i < a->f->n; i++) a->f->v[i].priced = a->ways[i].value;
    }
    for (int k = 0; k < a->n; k++) steepest = fmax(steepest, fabs(a->grad[k]));
    for (int k = 0; k < a->n; k++) {
        grad[k] = z[k] < 0 ? 2 * steepest : a->grad[k];
        if (z[k] < 0) *value += 2 * steepest * z[k];
    }
    return true;
}

static bool is_over(void *ctx)
{
    const auction *a = ctx;
    return a->none || dil_now_ns() > a->end_ns;
}

static bool open_way(way *w, dil__member *v, int first)
{
    const dil_problem *p = v->p;
    size_t L = p->n_layers, S = p->n_nodes, Q = p->n_levels, H = (size_t)p->n_hops + 1;
    *w = (way){.v = v, .first = first};
    w->cell = calloc(L * S + 2 * S + 2 * S * Q + 2 * H, sizeof *w->cell);
    w->pick = calloc(2 * L * S + 2 * L, sizeof *w->pick);
    if (!w->cell || !w->pick) return false;
    w->end = w->cell + L * S;
    w->ends = w->end + 2 * S;
    w->last = w->ends + S * Q;
    w->hop = w->last + S * Q;
    w->head_hop = w->hop + H;
    w->from = w->pick + L * S;
    w->node = w->from + L * S;
    w->level = w->node + L;
    return true;
}

/* Where to begin: prices of about the cost that they may have to move. */
static void climb(auction *a, px_climb *c, double *z)
{
    double size;
    memset(z, 0, (size_t)a->n * sizeof *z);
    value_at(a, z, &size, c->scratch);
    if (a->none) return;
    size = fmax(size, 1e-12);
    for (int k = 0; k < a->n; k++) z[k] = size / (4.0 * a->n);
    dil__px_climb(c, z, 0.05 * size); /* value_at never fails */
}

/* The climb for whatever fleet it is. */
static dil_status raise(dil__fleet *f, int rounds, double limit_sec, dil__scout *scout, dil_err *err)
{
    auction a = {.f = f, .scout = scout, .n_shared = (int)f->cluster->n_nodes, .end_ns = dil_now_ns() + (int64_t)(limit_sec * 1e9)};
    px_climb c = {.rounds = rounds, .enough = INFINITY, .still = 1e-5, .ctx = &a, .value_at = value_at, .stop = is_over};
    bool ok = (a.ways = calloc(f->n, sizeof *a.ways)) != NULL;
    for (uint32_t i = 0; i < f->n; i++) {
        if (f->v[i].p->load && isfinite(f->v[i].p->load_max)) a.n_shared = (int)(DIL__TAG_LINK * f->cluster->n_nodes);
    }
    a.n = a.n_shared;
    for (uint32_t i = 0; i < f->n && ok; i++) {
        ok = open_way(&a.ways[i], &f->v[i], a.n);
        a.n += 2 + (int)f->v[i].p->n_nodes;
    }
    size_t n = (size_t)a.n;
    a.z = calloc(3 * n, sizeof *a.z);
    c.n = a.n;
    c.scratch = ok ? calloc(dil__px_climb_scratch(a.n), sizeof *c.scratch) : NULL;
    ok = ok && a.z && c.scratch;
    if (ok) {
        a.grad = a.z + n;
        climb(&a, &c, a.grad + n);
        if (a.none) f->bound = INFINITY;
    }
    for (uint32_t i = 0; i < f->n && a.ways; i++) {
        free(a.ways[i].cell);
        free(a.ways[i].pick);
    }
    free(a.ways);
    free(a.z);
    free(c.scratch);
    return ok ? DIL_OK : dil_fail(err, DIL_EMEMORY, "fleet: out of memory");
}

dil_status dil__fleet_raise(dil__fleet *f, double limit_sec, dil_err *err)
{
    return raise(f, ROUNDS_MAX, limit_sec, NULL, err);
}

dil_status dil__fleet_scout(const dil__fleet *f, const dil__member *v, double limit_sec, dil__scout *x, dil_err *err)
{
    dil__member one = *v;
    dil__fleet alone = {.v = &one, .n = 1, .cluster = f->cluster, .how = f->how, .goal = DIL_GOAL_SEC, .bound = -INFINITY,
                        .price = calloc(dil__fleet_keys(f), sizeof *alone.price)};
    one.p = v->work; /* whose costs are weighted and priced already */
    one.weight = 1;
    x->sec = INFINITY;
    dil_status s = alone.price ? raise(&alone, SCOUT_ROUNDS, limit_sec, x, err) : dil_fail(err, DIL_EMEMORY, "fleet: out of memory");
    x->none = alone.bound == INFINITY;
    free(alone.price);
    return s;
}
