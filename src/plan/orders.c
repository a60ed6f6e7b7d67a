/* The solver `orders`: exact for few nodes, where hops weigh much. The flow relaxation lets a third of every layer sit on each of
 * three nodes and pays a third of the hops; once the order of the stages' nodes is fixed nothing of that is left, and the MILP of
 * one order is tight. So: orders are searched best first by a cheap bound, a complete order gets a Lagrangian bound, and only
 * those that still may beat the best plan are handed to the MILP.
 *
 * Lagrangian bound of an order: damage, file size and the stores are dualised (prices lambda, mu, pi[s]); what remains is a shortest
 * monotone path over (layer, stage), its levels chosen layer by layer. First and last layer have their stages from the order, so a
 * tied head is exact in it. Chunks and load are left out of the bound (they only make plans dearer) and are in the MILP.
 *
 * At the goal of least damage hops cost nothing and longer orders are never dearer: orders up to nodes + 1 stages are tried, and
 * the bound is the one without any order. */
#include "plan/problem_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define CUT_SHARE 0.3 /* of the time left, for the levels of one structure */

enum { STAGES_MAX = 12, QUEUE_MAX = 200000, ROUNDS = 200, NODES_MAX = 64 };

typedef struct entry {
    double bound;
    uint16_t node[STAGES_MAX];
    uint16_t n;
    bool complete, solved; /* solved: the bound is what the MILP left open */
} entry;

typedef struct prices {
    double damage, file, store[NODES_MAX];
} prices;

typedef struct orders {
    dil__job *job;
    const dil_problem *p;
    uint32_t L, S, Q;
    double *cost;          /* [L][S][Q] of the goal, source and sink in it */
    double *least;         /* [L+1] sum over the layers from l on of the cheapest choice anywhere */
    double *value;         /* [L][S] cheapest priced choice */
    uint32_t *pick;        /* [L][S] its level */
    double *best;          /* [L][STAGES_MAX] */
    uint8_t *came;         /* [L][STAGES_MAX] 1: from the stage before */
    uint16_t *at;          /* [L] stage of the relaxed plan */
    uint32_t *node, *level;/* [L] of a MILP's plan */
    double dearest;        /* sum over the layers of their dearest choice: with the hops, no plan costs more */
    double spread;         /* sum over the layers of their dearest choice less the cheapest */
    prices warm;
    entry *heap;
    size_t n_heap;
    double free_bound;     /* of every plan, whatever its order */
    double best_cost, dropped; /* dropped: least bound of what did not fit the queue or the longest order */
    int64_t end_ns;
} orders;

/* --- queue -------------------------------------------------------------------------------------------------------------- */

static void push(orders *o, const entry *e)
{
    if (e->bound >= o->best_cost * (1 - o->job->gap)) return;
    if (o->n_heap == QUEUE_MAX) {
        o->dropped = fmin(o->dropped, e->bound);
        return;
    }
    size_t i = o->n_heap++;
    for (; i > 0 && o->heap[(i - 1) / 2].bound > e->bound; i = (i - 1) / 2) o->heap[i] = o->heap[(i - 1) / 2];
    o->heap[i] = *e;
}

static entry pop(orders *o)
{
    entry top = o->heap[0], last = o->heap[--o->n_heap];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= o->n_heap) break;
        if (child + 1 < o->n_heap && o->heap[child + 1].bound < o->heap[child].bound) child++;
        if (o->heap[child].bound >= last.bound) break;
        o->heap[i] = o->heap[child];
        i = child;
    }
    o->heap[i] = last;
    return top;
}

/* --- bounds ------------------------------------------------------------------------------------------------------------- */

static double hop_cost(const orders *o, uint32_t from, uint32_t to, uint32_t after_layer)
{
    const dil_hop *h = dil_problem_hop(o->p, from, to);
    if (!h) return INFINITY;
    if (o->job->goal == DIL_GOAL_DAMAGE) return 0;
    return after_layer + 2 == o->L ? h->head_sec : h->sec;
}

static double cell_cost(const orders *o, uint32_t l, uint32_t s, uint32_t q)
{
    const dil_problem *p = o->p;
    if ((l == 0 && isinf(p->source_sec[s])) || (l == o->L - 1 && isinf(p->sink_sec[s]))) return INFINITY;
    if (o->job->goal == DIL_GOAL_DAMAGE) return p->damage[(size_t)l * o->Q + q];
    return p->layer_sec[dil__cell(p, l, s, q)] + (l == 0 ? p->source_sec[s] : 0) + (l == o->L - 1 ? p->sink_sec[s] : 0);
}

static void fill_costs(orders *o)
{
    for (uint32_t l = o->L; l-- > 0;) {
        double least = INFINITY, most = 0;
        for (uint32_t s = 0; s < o->S; s++) {
            for (uint32_t q = 0; q < o->p->level_count[l]; q++) {
                double c = cell_cost(o, l, s, q);
                o->cost[dil__cell(o->p, l, s, q)] = c;
                least = fmin(least, c);
                if (isfinite(c)) most = fmax(most, c);
            }
        }
        if (isfinite(least)) o->spread += most - least;
        o->dearest += most;
        o->least[l] = o->least[l + 1] + least;
    }
}

static double file_bytes(const dil_problem *p, size_t lq)
{
    return p->file_bytes ? p->file_bytes[lq] : p->layer_bytes[lq];
}

/* Of the store what layers can fill: less the buffer that every plan of this order needs there. */
static double room(const orders *o, const uint16_t *node, uint32_t n, uint32_t s)
{
    const dil_problem *p = o->p;
    double buffer = 0, block = INFINITY;
    if (!p->buffer_bytes) return p->store_bytes[s];
    for (uint32_t l = 1; l + 1 < o->L; l++) block = fmin(block, p->buffer_bytes[l]);
    for (uint32_t k = 0; k < n; k++) {
        if (node[k] != s) continue;
        double b = k == 0 ? p->buffer_bytes[0] : k + 1 == n ? p->buffer_bytes[o->L - 1] : block;
        if (n == 1) b = fmax(b, p->buffer_bytes[o->L - 1]);
        buffer = fmax(buffer, b);
    }
    return p->store_bytes[s] - buffer;
}

static double priced(const orders *o, const prices *y, uint32_t l, uint32_t s, uint32_t q, double shared)
{
    const dil_problem *p = o->p;
    size_t lq = (size_t)l * o->Q + q;
    return o->cost[dil__cell(p, l, s, q)] + y->damage * p->damage[lq] + y->file * file_bytes(p, lq) + y->store[s] * (p->layer_bytes[lq] - shared);
}

/* The cheapest level of each layer on each node of the order; a tied pair is decided together, in layer 0. */
static void price_choices(orders *o, const prices *y, const uint16_t *node, uint32_t n)
{
    const dil_problem *p = o->p;
    bool tied = p->tied && o->L > 1;
    uint32_t tail = node[n - 1];
    for (uint32_t l = 0; l < o->L; l++) {
        for (uint32_t k = 0; k < n; k++) {
            uint32_t s = node[k], pick = 0;
            double best = INFINITY;
            if ((l == 0 && k > 0) || (l == o->L - 1 && k + 1 < n)) continue;
            for (uint32_t q = 0; q < p->level_count[l]; q++) {
                double v = priced(o, y, l, s, q, 0);
                if (tied && l == 0) v += priced(o, y, o->L - 1, tail, q, s == tail ? p->shared_bytes[q] : 0);
                if (v < best) best = v, pick = q;
            }
            o->value[(size_t)l * o->S + s] = tied && l == o->L - 1 ? 0 : best;
            o->pick[(size_t)l * o->S + s] = tied && l == o->L - 1 ? o->pick[node[0]] : pick;
        }
    }
}

/* Shortest monotone path; the stage of every layer goes to at. */
static double relaxed_path(orders *o, const uint16_t *node, uint32_t n)
{
    for (uint32_t l = 0; l < o->L; l++) {
        for (uint32_t k = 0; k < n; k++) {
            double *best = &o->best[(size_t)l * STAGES_MAX + k], stay, come;
            *best = INFINITY;
            if (k > l || n - 1 - k > o->L - 1 - l || (l == 0 && k > 0) || (l == o->L - 1 && k + 1 < n)) continue;
            if (l == 0) {
                *best = o->value[node[0]];
                continue;
            }
            stay = best[-STAGES_MAX];
            come = k ? best[-STAGES_MAX - 1] + hop_cost(o, node[k - 1], node[k], l - 1) : INFINITY;
            o->came[(size_t)l * STAGES_MAX + k] = come < stay;
            *best = fmin(stay, come) + o->value[(size_t)l * o->S + node[k]];
        }
    }
    uint32_t k = n - 1;
    for (uint32_t l = o->L; l-- > 0;) {
        o->at[l] = (uint16_t)k;
        if (l && o->came[(size_t)l * STAGES_MAX + k]) k--;
    }
    return o->best[(size_t)(o->L - 1) * STAGES_MAX + n - 1];
}

typedef struct use {
    double damage, file, store[NODES_MAX];
} use;

static use used(const orders *o, const uint16_t *node, uint32_t n)
{
    const dil_problem *p = o->p;
    use u = {0};
    for (uint32_t l = 0; l < o->L; l++) {
        uint32_t s = node[o->at[l]], q = o->pick[(size_t)l * o->S + s];
        size_t lq = (size_t)l * o->Q + q;
        u.damage += p->damage[lq];
        u.file += file_bytes(p, lq);
        u.store[s] += p->layer_bytes[lq];
        if (p->tied && o->L > 1 && l == o->L - 1 && node[0] == node[n - 1]) u.store[s] -= p->shared_bytes[q];
    }
    return u;
}

/* One price moves against its relative overrun. */
static double step(double price, double budget, double overrun, double t)
{
    double v = price + t * overrun / (budget > 0 ? budget : 1);
    return v > 0 ? v : 0;
}

static double square(double overrun, double budget, double price)
{
    double g = overrun / (budget > 0 ? budget : 1);
    return g < 0 && price == 0 ? 0 : g * g;
}

static double order_bound(orders *o, const uint16_t *node, uint32_t n, double enough)
{
    const dil_problem *p = o->p;
    prices y = o->warm, best_y = y;
    use best_u = {0};
    double best = -INFINITY, theta = 1, least_theta = 1e-6, space[NODES_MAX];
    bool has_damage = isfinite(p->damage_max), has_file = isfinite(p->file_bytes_max);
    if (!has_damage) y.damage = 0;
    if (!has_file) y.file = 0;
    for (uint32_t s = 0; s < o->S; s++) {
        space[s] = -1;
        for (uint32_t k = 0; k < n; k++) {
            if (node[k] == s) space[s] = room(o, node, n, s);
        }
        if (space[s] < 0) y.store[s] = 0;
    }
    double worst = o->dearest * (1 + 1e-9) + 1e-9 * o->spread;
    for (uint32_t k = 0; k < n; k++) {
        if (space[node[k]] < 0) return INFINITY; /* not even the buffer fits */
        if (k) worst += fmax(hop_cost(o, node[k - 1], node[k], 0), hop_cost(o, node[k - 1], node[k], o->L - 2));
    }
    for (int round = 0, stale = 0; round < ROUNDS; round++) {
        price_choices(o, &y, node, n);
        double v = relaxed_path(o, node, n);
        if (isinf(v)) return INFINITY;
        use u = used(o, node, n);
        if (has_damage) v -= y.damage * p->damage_max;
        if (has_file) v -= y.file * p->file_bytes_max;
        for (uint32_t s = 0; s < o->S; s++) v -= space[s] > 0 ? y.store[s] * space[s] : 0;
        if (v > best) {
            if (round && least_theta < 1e-4 * theta) least_theta = 0.01 * theta; /* the first step that helps sets the scale */
            stale = 0;
            best = v;
            best_y = y;
            best_u = u;
            if (best > worst) return INFINITY; /* a dual without bound: no plan has this order */
            if (best >= enough) break;
        } else if (++stale == (least_theta < 1e-4 * theta ? 1 : 8)) {
            stale = 0;
            theta /= least_theta < 1e-4 * theta ? 4 : 2;
            y = best_y;
            u = best_u;
            v = best;
            if (theta < least_theta) break;
        }
        double norm = has_damage ? square(u.damage - p->damage_max, p->damage_max, y.damage) : 0;
        if (has_file) norm += square(u.file - p->file_bytes_max, p->file_bytes_max, y.file);
        for (uint32_t s = 0; s < o->S; s++) norm += space[s] >= 0 ? square(u.store[s] - space[s], space[s], y.store[s]) : 0;
        if (norm == 0) break;
        double target = isfinite(o->best_cost) ? 1.02 * o->best_cost : best + 0.2 * fabs(best) + 0.1 * o->spread;
        double t = theta * fmax(target - v, 1e-3 * fabs(best) + 1e-12) / norm;
        if (has_damage) y.damage = step(y.damage * p->damage_max, p->damage_max, u.damage - p->damage_max, t) / (p->damage_max > 0 ? p->damage_max : 1);
        if (has_file) y.file = step(y.file * p->file_bytes_max, p->file_bytes_max, u.file - p->file_bytes_max, t) / (p->file_bytes_max > 0 ? p->file_bytes_max : 1);
        for (uint32_t s = 0; s < o->S; s++) {
            if (space[s] > 0) y.store[s] = step(y.store[s] * space[s], space[s], u.store[s] - space[s], t) / space[s];
        }
    }
    o->warm = best_y;
    return best - 1e-9 * fabs(best);
}

/* --- search ------------------------------------------------------------------------------------------------------------- */

static bool has_order_cost(const orders *o)
{
    return o->job->goal == DIL_GOAL_SEC;
}

/* Cheapest that the hops of an order can be, and every layer on its best node. */
static double prefix_bound(const orders *o, const entry *e)
{
    double sum = o->least[0];
    if (!has_order_cost(o)) return sum;
    for (uint32_t k = 0; k + 1 < e->n; k++) {
        const dil_hop *h = dil_problem_hop(o->p, e->node[k], e->node[k + 1]);
        if (!h) return INFINITY;
        sum += fmin(h->sec, h->head_sec);
    }
    return sum;
}

static void expand(orders *o, const entry *e)
{
    uint32_t longest = o->L < STAGES_MAX ? o->L : STAGES_MAX;
    bool capped = !has_order_cost(o) && longest > o->S + 1;
    if (capped) longest = o->S + 1;
    entry done = *e;
    done.complete = true;
    done.bound = fmax(e->bound, order_bound(o, e->node, e->n, o->best_cost));
    if (isfinite(done.bound)) push(o, &done);
    if (e->n >= longest) {
        if (e->n < o->L && o->S > 1) o->dropped = fmin(o->dropped, e->bound);
        return;
    }
    for (uint32_t s = 0; s < o->S; s++) {
        entry child = *e;
        if (s == e->node[e->n - 1]) continue;
        child.node[child.n++] = (uint16_t)s;
        child.bound = fmax(e->bound, prefix_bound(o, &child));
        if (isfinite(child.bound)) push(o, &child);
    }
}

static void keep_better(orders *o)
{
    dil_use u;
    if (dil_problem_check(o->p, o->node, o->level, &u, NULL) != DIL_OK) return;
    double cost = o->job->goal == DIL_GOAL_SEC ? u.sec : u.damage;
    if (cost >= o->best_cost) return;
    o->best_cost = cost;
    memcpy(o->job->node, o->node, o->L * sizeof *o->node);
    memcpy(o->job->level, o->level, o->L * sizeof *o->level);
}

static dil_status run_milp(orders *o, const entry *e, const uint16_t *stage, double limit_sec, double *bound, dil_err *err)
{
    uint32_t order[STAGES_MAX];
    for (uint32_t k = 0; k < e->n; k++) order[k] = e->node[k];
    dil__job one = {.p = o->p, .goal = o->job->goal, .limit_sec = limit_sec, .gap = o->job->gap / 2, .progress = o->job->progress, .node = o->node,
                    .level = o->level, .bound = -INFINITY, .cutoff = o->best_cost * (1 - o->job->gap / 2)};
    int64_t t0 = dil_now_ns();
    dil_status s = dil__solve_milp_order(&one, order, e->n, stage, err);
    char name[64] = "";
    for (uint32_t k = 0, n = 0; k < e->n && n + 5 < sizeof name; k++) n += (uint32_t)snprintf(name + n, sizeof name - n, "%s%u", k ? "-" : "", order[k]);
    dil_log(DIL_LOG_DEBUG, "orders", "%s%s: bound %.6g, best so far %.6g, its MILP: %s, bound %.6g, %.2f s", name, stage ? " cut" : "", e->bound,
            o->best_cost, dil_status_name(s), one.bound, (double)(dil_now_ns() - t0) * 1e-9);
    *bound = fmin(one.bound, one.cutoff); /* what the cutoff left out is above it, no more */
    if (s == DIL_OK) keep_better(o);
    return s;
}

/* Cuts that give every stage layers in proportion to the room on its node, at each layer's middle level. */
static void proportional_cuts(orders *o, const entry *e)
{
    const dil_problem *p = o->p;
    double share[STAGES_MAX], total = 0, bytes = 0, filled = 0, until = 0;
    for (uint32_t k = 0; k < e->n; k++) {
        uint32_t visits = 0;
        for (uint32_t i = 0; i < e->n; i++) visits += e->node[i] == e->node[k];
        share[k] = fmax(0, room(o, e->node, e->n, e->node[k])) / visits;
        total += share[k];
    }
    bool once = p->tied && o->L > 1 && e->node[0] == e->node[e->n - 1];
    for (uint32_t l = 0; l < o->L; l++) bytes += l + 1 == o->L && once ? 0 : p->layer_bytes[(size_t)l * o->Q + p->level_count[l] / 2];
    uint32_t k = 0;
    for (uint32_t l = 0; l < o->L; l++) {
        double size = l + 1 == o->L && once ? 0 : p->layer_bytes[(size_t)l * o->Q + p->level_count[l] / 2];
        until = 0;
        for (uint32_t i = 0; i <= k; i++) until += share[i];
        bool full = total > 0 && filled + size / 2 > bytes * until / total;
        bool must = o->L - 1 - l < e->n - 1 - k; /* one layer for each stage that is left */
        if (l > 0 && k + 1 < e->n && (full || must)) k++;
        o->at[l] = (uint16_t)k;
        filled += size;
    }
}

/* Levels alone first, with the cuts of the relaxed path and in proportion to the room: that is quick, and gives the MILP of the
 * order a cutoff. */
static dil_status solve_order(orders *o, entry *e, dil_err *err)
{
    double left = (double)(o->end_ns - dil_now_ns()) * 1e-9, bound;
    if (left <= 0) return DIL_ETIMEOUT;
    order_bound(o, e->node, e->n, INFINITY);
    dil_status s = e->n > 1 ? run_milp(o, e, o->at, left * CUT_SHARE, &bound, err) : DIL_OK;
    if (e->n > 1 && s != DIL_ECANCELED) {
        proportional_cuts(o, e);
        s = run_milp(o, e, o->at, left * CUT_SHARE, &bound, err);
    }
    if (s == DIL_ECANCELED) return s;
    left = (double)(o->end_ns - dil_now_ns()) * 1e-9;
    if (fmax(o->free_bound, e->bound) >= o->best_cost * (1 - o->job->gap)) return DIL_OK;
    if (left <= 0) return DIL_ETIMEOUT;
    s = run_milp(o, e, NULL, left, &bound, err);
    if (s == DIL_EINFEASIBLE) return DIL_OK;
    if (s == DIL_OK || s == DIL_ETIMEOUT) e->bound = fmax(e->bound, bound);
    if (s != DIL_OK) return s;
    e->solved = true;
    push(o, e);
    return DIL_OK;
}

/* The bound without an order: one node that offers what all do, is as fast as the fastest for each choice, and needs no buffer.
 * Its MILP is a knapsack of some hundredths of a second, and tight where quality and size bind. -INFINITY: not found in time. */
static dil_status unordered_bound(orders *o, double *bound)
{
    const dil_problem *p = o->p;
    double *sec = calloc((size_t)o->L * o->Q, sizeof *sec), store = 0, zero = 0;
    uint32_t *choice = calloc((size_t)2 * o->L, sizeof *choice);
    *bound = -INFINITY;
    dil_status s = sec && choice ? DIL_OK : DIL_EMEMORY;
    if (s == DIL_OK) {
        for (uint32_t i = 0; i < o->S; i++) store += p->store_bytes[i];
        for (uint32_t l = 0; l < o->L; l++) {
            for (uint32_t q = 0; q < p->level_count[l]; q++) {
                double least = INFINITY;
                for (uint32_t i = 0; i < o->S; i++) least = fmin(least, o->cost[dil__cell(p, l, i, q)]);
                sec[(size_t)l * o->Q + q] = isfinite(least) ? least : 0;
            }
        }
        dil_problem one = *p;
        one.n_nodes = 1;
        one.n_hops = 0;
        one.layer_sec = sec;
        one.store_bytes = &store;
        one.source_sec = one.sink_sec = &zero;
        one.buffer_bytes = one.chunk_sec = one.load = one.out_load = one.in_load = NULL;
        one.chunk_weight = 0;
        one.load_max = INFINITY;
        dil__job job = {.p = &one, .goal = o->job->goal, .limit_sec = CUT_SHARE * o->job->limit_sec, .gap = o->job->gap / 10, .progress = o->job->progress,
                        .node = choice, .level = choice + o->L, .bound = -INFINITY};
        s = dil__solve_milp(&job, NULL);
        *bound = job.bound;
        if (s == DIL_ETIMEOUT || s == DIL_EINTERNAL) s = DIL_OK;
    }
    free(sec);
    free(choice);
    return s;
}

/* -> DIL_OK when the queue is spent or its least bound is good enough; job->bound is set either way. */
static dil_status search(orders *o, dil_err *err)
{
    dil_status s = unordered_bound(o, &o->free_bound);
    if (s == DIL_EINFEASIBLE) return DIL_OK; /* not even without an order */
    if (s != DIL_OK) return s;
    dil_log(DIL_LOG_DEBUG, "orders", "bound without an order: %.6g", o->free_bound);
    for (uint32_t i = 0; i < o->S; i++) {
        entry e = {.n = 1, .node = {(uint16_t)i}};
        e.bound = prefix_bound(o, &e);
        push(o, &e);
    }
    double open = INFINITY;
    while (o->n_heap && s == DIL_OK) {
        entry e = pop(o);
        open = e.bound;
        if (fmax(o->free_bound, e.bound) >= o->best_cost * (1 - o->job->gap) || e.solved) break;
        if (dil_now_ns() > o->end_ns) s = DIL_ETIMEOUT;
        else if (e.complete) s = solve_order(o, &e, err);
        else expand(o, &e);
        open = s == DIL_OK ? INFINITY : e.bound;
    }
    o->job->bound = fmin(fmax(o->free_bound, fmin(open, o->dropped)), o->best_cost);
    return s;
}

static bool new_orders(orders *o)
{
    size_t L = o->L, S = o->S;
    o->cost = calloc(L * S * o->Q, sizeof *o->cost);
    o->least = calloc(L + 1, sizeof *o->least);
    o->value = calloc(L * S, sizeof *o->value);
    o->pick = calloc(L * S, sizeof *o->pick);
    o->best = calloc(L * STAGES_MAX, sizeof *o->best);
    o->came = calloc(L * STAGES_MAX, sizeof *o->came);
    o->at = calloc(L, sizeof *o->at);
    o->node = calloc(2 * L, sizeof *o->node);
    o->level = o->node ? o->node + L : NULL;
    o->heap = malloc(QUEUE_MAX * sizeof *o->heap);
    return o->cost && o->least && o->value && o->pick && o->best && o->came && o->at && o->node && o->heap;
}

static void free_orders(orders *o)
{
    void *all[] = {o->cost, o->least, o->value, o->pick, o->best, o->came, o->at, o->node, o->heap};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

static void take_start(orders *o)
{
    dil_use u;
    if (!o->job->start_node || dil_problem_check(o->p, o->job->start_node, o->job->start_level, &u, NULL) != DIL_OK) return;
    o->best_cost = o->job->goal == DIL_GOAL_SEC ? u.sec : u.damage;
    memcpy(o->job->node, o->job->start_node, o->L * sizeof *o->node);
    memcpy(o->job->level, o->job->start_level, o->L * sizeof *o->level);
}

dil_status dil__solve_orders(dil__job *job, dil_err *err)
{
    const dil_problem *p = job->p;
    if (p->n_nodes > NODES_MAX) return dil_fail(err, DIL_ELIMIT, "orders: %u nodes, at most %d; use path or milp", p->n_nodes, NODES_MAX);
    orders o = {.job = job, .p = p, .L = p->n_layers, .S = p->n_nodes, .Q = p->n_levels, .best_cost = INFINITY, .dropped = INFINITY,
                .end_ns = dil_now_ns() + (int64_t)(job->limit_sec * 1e9)};
    dil_status s = DIL_EMEMORY;
    if (new_orders(&o)) {
        fill_costs(&o);
        take_start(&o);
        s = search(&o, err);
    }
    free_orders(&o);
    if (s == DIL_EMEMORY) return dil_fail(err, s, "orders: out of memory");
    if (isfinite(o.best_cost) && (s == DIL_OK || s == DIL_ETIMEOUT)) return DIL_OK;
    if (s == DIL_OK && isinf(o.dropped)) return dil_fail(err, DIL_EINFEASIBLE, "no plan meets the budgets");
    if (s == DIL_OK || s == DIL_ETIMEOUT) return dil_fail(err, DIL_ETIMEOUT, "orders: no plan among those tried within the time limit");
    return s;
}
