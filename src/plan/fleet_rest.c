/* One member of a fleet beside the others: what plans take of what is shared, and the member's problem within what is left, its use priced.
 *
 * A node that has a share r of its time left is a node whose loads are 1/r times as high under the old limit; so the solvers need not know of
 * others. Prices go into the seconds of (layer, node, level) and of hops. Where a plan takes less than the sum of its layers - a tied table
 * on one node, a buffer that layers share - the price is that of the least it can take, so that a bound stays one. */
#include "plan/fleet_int.h"
#include "plan/path_real.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LEAST_LEFT 1e-12
#define LOAD_MOST 1e17
#define IDLE_BYTES 1e-3 /* where any plan will do: the price of a whole store, so that it takes little */

/* --- use ---------------------------------------------------------------------------------------------------------------- */

static void add_hop(const dil__fleet *f, const dil__member *v, uint32_t l, const uint32_t *node, double *use)
{
    const dil_problem *p = v->p;
    const dil_hop *h = dil_problem_hop(p, node[l], node[l + 1]);
    if (!h || isinf(p->load_max)) return;
    double share = (l + 2 == p->n_layers ? p->head_share : 1) / p->load_max;
    use[dil__fleet_link_key(f, v, (uint32_t)(h - p->hops))] += share * h->load;
    if (p->out_load) use[dil__fleet_node_key(f, v, DIL__TAG_OUT, h->from)] += share * p->out_load[h->from];
    if (p->in_load) use[dil__fleet_node_key(f, v, DIL__TAG_IN, h->to)] += share * p->in_load[h->to];
}

static double bytes_on(const dil_problem *p, const uint32_t *node, const uint32_t *level, uint32_t s)
{
    double bytes = 0, buffer = 0;
    for (uint32_t l = 0; l < p->n_layers; l++) {
        if (node[l] != s) continue;
        bytes += p->layer_bytes[(size_t)l * p->n_levels + level[l]];
        if (p->buffer_bytes) buffer = fmax(buffer, p->buffer_bytes[l]);
    }
    if (p->tied && node[0] == s && node[p->n_layers - 1] == s) bytes -= p->shared_bytes[level[0]];
    return bytes + buffer;
}

void dil__fleet_add_use(const dil__fleet *f, const dil__member *v, const uint32_t *node, const uint32_t *level, double *use)
{
    const dil_problem *p = v->p;
    for (uint32_t s = 0; s < p->n_nodes; s++) {
        double bytes = bytes_on(p, node, level, s);
        if (bytes > 0) use[dil__fleet_node_key(f, v, DIL__TAG_STORE, s)] += p->store_bytes[s] > 0 ? bytes / p->store_bytes[s] : INFINITY;
    }
    for (uint32_t l = 0; l < p->n_layers; l++) {
        if (p->load && isfinite(p->load_max))
            use[dil__fleet_node_key(f, v, DIL__TAG_NODE, node[l])] += p->load[dil__cell(p, l, node[l], level[l])] / p->load_max;
        if (l + 1 < p->n_layers && node[l] != node[l + 1]) add_hop(f, v, l, node, use);
    }
}

void dil__fleet_left(const dil__fleet *f, const dil__member *except, double *left)
{
    for (size_t k = 0; k < dil__fleet_keys(f); k++) {
        left[k] = 1;
        for (uint32_t i = 0; i < f->n; i++) {
            if (f->v[i].placed && &f->v[i] != except) left[k] -= f->v[i].use[k];
        }
    }
}

/* Steps of the buffers' sizes, ascending: each is taken by a node that has any layer so large, so each such layer takes an equal part of it. */
bool dil__fleet_spread(dil__member *v)
{
    const dil_problem *p = v->p;
    v->spread = calloc(p->n_layers, sizeof *v->spread);
    if (!v->spread || !p->buffer_bytes) return v->spread != NULL;
    for (double size = 0;;) {
        double next = INFINITY;
        uint32_t n = 0;
        for (uint32_t l = 0; l < p->n_layers; l++) {
            if (p->buffer_bytes[l] <= size) continue;
            next = fmin(next, p->buffer_bytes[l]);
            n++;
        }
        if (n == 0) return true;
        for (uint32_t l = 0; l < p->n_layers; l++) {
            if (p->buffer_bytes[l] > size) v->spread[l] += (next - size) / n;
        }
        size = next;
    }
}

/* --- the problem that is left --------------------------------------------------------------------------------------------- */

static double scaled(double load, double left)
{
    return fmin(load / fmax(left, LEAST_LEFT), LOAD_MOST);
}

static void set_room(const dil__fleet *f, dil__member *v, const double *left)
{
    const dil_problem *p = v->p;
    dil_problem *w = v->work;
    for (uint32_t s = 0; s < p->n_nodes; s++) {
        double busy = left[dil__fleet_node_key(f, v, DIL__TAG_NODE, s)];
        w->store_bytes[s] = p->store_bytes[s] * fmax(0, left[dil__fleet_node_key(f, v, DIL__TAG_STORE, s)]);
        if (p->out_load) w->out_load[s] = scaled(p->out_load[s], left[dil__fleet_node_key(f, v, DIL__TAG_OUT, s)]);
        if (p->in_load) w->in_load[s] = scaled(p->in_load[s], left[dil__fleet_node_key(f, v, DIL__TAG_IN, s)]);
        for (uint32_t l = 0; p->load && l < p->n_layers; l++) {
            for (uint32_t q = 0; q < p->level_count[l]; q++) w->load[dil__cell(p, l, s, q)] = scaled(p->load[dil__cell(p, l, s, q)], busy);
        }
    }
    for (uint32_t i = 0; i < p->n_hops; i++) w->hops[i].load = scaled(p->hops[i].load, left[dil__fleet_link_key(f, v, i)]);
}

static double weighed(double weight, double sec)
{
    return isinf(sec) ? sec : weight * sec;
}

static void set_cells(const dil__fleet *f, dil__member *v, const double *price)
{
    const dil_problem *p = v->p;
    dil_problem *w = v->work;
    double per_load = isfinite(p->load_max) && p->load_max > 0 ? 1 / p->load_max : 0;
    for (uint32_t s = 0; s < p->n_nodes; s++) {
        double store = price ? price[dil__fleet_node_key(f, v, DIL__TAG_STORE, s)] : 0, busy = price ? price[dil__fleet_node_key(f, v, DIL__TAG_NODE, s)] : 0;
        if (v->weight == 0) store += IDLE_BYTES;
        double a_byte = p->store_bytes[s] > 0 ? store / p->store_bytes[s] : 0;
        for (uint32_t l = 0; l < p->n_layers; l++) {
            for (uint32_t q = 0; q < p->level_count[l]; q++) {
                size_t cell = dil__cell(p, l, s, q), lq = (size_t)l * p->n_levels + q;
                double bytes = p->layer_bytes[lq] - (p->tied && l == p->n_layers - 1 ? p->shared_bytes[q] : 0) + v->spread[l];
                w->layer_sec[cell] = v->weight * (f->goal == DIL_GOAL_DAMAGE ? p->damage[lq] : p->layer_sec[cell]) + a_byte * fmax(0, bytes);
                if (p->load) w->layer_sec[cell] += busy * per_load * p->load[cell];
                if (p->chunk_sec) w->chunk_sec[cell] = f->goal == DIL_GOAL_DAMAGE ? 0 : v->weight * p->chunk_sec[cell];
            }
        }
    }
}

static void set_hops(const dil__fleet *f, dil__member *v, const double *price)
{
    const dil_problem *p = v->p;
    dil_problem *w = v->work;
    double weight = f->goal == DIL_GOAL_DAMAGE ? 0 : v->weight, per_load = isfinite(p->load_max) && p->load_max > 0 ? 1 / p->load_max : 0;
    for (uint32_t i = 0; i < p->n_hops; i++) {
        const dil_hop *h = &p->hops[i];
        double load = 0;
        if (price) {
            load = h->load * price[dil__fleet_link_key(f, v, i)];
            if (p->out_load) load += p->out_load[h->from] * price[dil__fleet_node_key(f, v, DIL__TAG_OUT, h->from)];
            if (p->in_load) load += p->in_load[h->to] * price[dil__fleet_node_key(f, v, DIL__TAG_IN, h->to)];
        }
        w->hops[i].sec = weight * h->sec + per_load * load;
        w->hops[i].head_sec = weight * h->head_sec + per_load * load * p->head_share;
        w->hops[i].chunk_sec = weight * h->chunk_sec;
    }
    for (uint32_t s = 0; s < p->n_nodes; s++) {
        w->source_sec[s] = weighed(weight, p->source_sec[s]);
        w->sink_sec[s] = weighed(weight, p->sink_sec[s]);
    }
    w->damage_max = p->damage_max;
}

/* --- solving it ------------------------------------------------------------------------------------------------------------ */

/* The nodes of the start and the `few` that the scouted ways use most; few 0: all. -> how many, ascending */
static uint32_t pick_nodes(const dil__member *v, const dil__scout *x, uint32_t few, const uint32_t *start, uint32_t *node)
{
    uint32_t n = 0, S = v->p->n_nodes;
    for (uint32_t s = 0; s < S; s++) {
        uint32_t better = 0;
        bool own = few == 0;
        for (uint32_t k = 0; k < S; k++) better += x->count[k] > x->count[s] || (x->count[k] == x->count[s] && k < s);
        for (uint32_t l = 0; start && l < v->p->n_layers; l++) own = own || start[l] == s;
        if ((better < few && x->count[s] > 0) || own) node[n++] = s;
    }
    return n;
}

/* The work over some nodes [n] through `path`, from start [2L] (may be NULL) on. */
static dil_status solve_part(const dil__fleet *f, const dil__member *v, dil_goal goal, const uint32_t *node, uint32_t n, const uint32_t *start, dil__fleet_solve *o,
                             dil_err *err)
{
    uint32_t L = v->p->n_layers, *inner = calloc(2 * (size_t)L, sizeof *inner);
    dil_problem *part = NULL;
    dil_status s = inner ? dil__px_part_of(v->work, node, n, &part, err) : dil_fail(err, DIL_EMEMORY, "fleet: out of memory");
    dil__job job = {.p = part, .goal = goal, .limit_sec = o->limit_sec, .gap = o->gap, .progress = f->how->progress, .node = o->node, .level = o->level,
                    .bound = -INFINITY};
    if (s == DIL_OK && start) {
        for (uint32_t l = 0; l < L; l++) {
            while (node[inner[l]] != start[l]) inner[l]++;
            inner[L + l] = start[L + l];
        }
        job.start_node = inner;
        job.start_level = inner + L;
    }
    if (s == DIL_OK) s = dil__solve_path(&job, err);
    for (uint32_t l = 0; l < L && s == DIL_OK; l++) o->node[l] = node[o->node[l]];
    o->bound = n < v->p->n_nodes ? -INFINITY : goal == DIL_GOAL_DAMAGE ? v->weight * job.bound : job.bound;
    dil_problem_free(part);
    free(inner);
    return s;
}

static dil_status solve_work(const dil__fleet *f, dil__member *v, dil_goal goal, dil__scout *x, uint32_t *node, uint32_t *start, dil__fleet_solve *o, dil_err *err)
{
    size_t bytes = v->p->n_layers * sizeof *start;
    int64_t begun = dil_now_ns();
    bool own = v->placed && o->from_plan && dil_problem_check(v->work, v->node, v->level, NULL, NULL) == DIL_OK;
    dil_status s = own && o->few == 0 ? DIL_OK : dil__fleet_scout(f, v, 0.5 * o->limit_sec, x, err);
    if (s != DIL_OK) return s;
    if (x->none) return dil_fail(err, DIL_EINFEASIBLE, "fleet: no way within what is left");
    if (own) { /* start holds the scout's otherwise */
        memcpy(start, v->node, bytes);
        memcpy(start + v->p->n_layers, v->level, bytes);
    }
    bool has_start = own || isfinite(x->sec);
    o->limit_sec = fmax(o->limit_sec - (double)(dil_now_ns() - begun) * 1e-9, 0.02);
    uint32_t n = pick_nodes(v, x, o->few < v->p->n_nodes ? o->few : 0, has_start ? start : NULL, node);
    s = solve_part(f, v, goal, node, n, has_start ? start : NULL, o, err);
    if (s != DIL_ETIMEOUT || !has_start) return s;
    memcpy(o->node, start, bytes);
    memcpy(o->level, start + v->p->n_layers, bytes);
    return DIL_OK;
}

dil_status dil__fleet_solve_member(const dil__fleet *f, dil__member *v, dil__fleet_solve *o, dil_err *err)
{
    /* where only damage counts it is the problem's own goal */
    dil_goal goal = f->goal == DIL_GOAL_DAMAGE && !o->price && v->weight > 0 ? DIL_GOAL_DAMAGE : DIL_GOAL_SEC;
    size_t L = v->p->n_layers, S = v->p->n_nodes;
    uint32_t *start = calloc(2 * L + S, sizeof *start);
    dil__scout x = {.count = calloc(S, sizeof *x.count), .node = start, .level = start ? start + L : NULL, .sec = INFINITY};
    set_room(f, v, o->left);
    set_cells(f, v, o->price);
    set_hops(f, v, o->price);
    o->bound = -INFINITY;
    dil_status s = start && x.count ? solve_work(f, v, goal, &x, start + 2 * L, start, o, err) : dil_fail(err, DIL_EMEMORY, "fleet: out of memory");
    if (s == DIL_OK && dil_problem_check(v->work, o->node, o->level, NULL, err) != DIL_OK) s = DIL_EINTERNAL;
    free(start);
    free(x.count);
    return s;
}

dil_status dil__fleet_place(const dil__fleet *f, dil__member *v, const uint32_t *node, const uint32_t *level, dil_err *err)
{
    dil_use u;
    dil_err why = {0};
    if (dil_problem_check(v->p, node, level, &u, &why) != DIL_OK) return dil_fail(err, DIL_EINTERNAL, "fleet: a plan breaks its own budgets: %.300s", why.text);
    memmove(v->node, node, v->p->n_layers * sizeof *node);
    memmove(v->level, level, v->p->n_layers * sizeof *level);
    memset(v->use, 0, dil__fleet_keys(f) * sizeof *v->use);
    dil__fleet_add_use(f, v, v->node, v->level, v->use);
    v->cost = v->weight * dil__goal_cost(&u, f->goal);
    v->placed = true;
    return DIL_OK;
}
