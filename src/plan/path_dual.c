/* plan/path_dual.c - multipliers of the whole relaxation of a measured problem.
 *
 * As path_root.c, for every budget at once: damage, file size, bytes and load of each node, and the nodes' parts of the slowest one's
 * seconds a chunk, which sum to its weight at most. It climbs (path_climb.c) from the multipliers of a structure that has a plan. */
#include "plan/path_fit.h"
#include "plan/path_ng.h"

#include <stdlib.h>
#include <string.h>

enum { Z_DAMAGE, Z_FILE, Z_NODE };

typedef struct dual {
    px_core *c;
    const px_graph *g;
    px_dual *out;
    int n;                   /* multipliers */
    double *z, *best, *grad, *unit; /* [n] in seconds for the whole budget */
    double *use;             /* [S][PF_N] */
    double chunk_sum;        /* of z, at most */
    double root;             /* of the last relaxation */
    bool stopped;
    int64_t deadline_ns;
    px_visit *visit;
    int n_visits, *level, *node;
    px_map *met;
    px_plan *plan;
} dual;

static int at(int node, int what) { return Z_NODE + 3 * node + what - PF_BYTES; }

void dil__px_price(px_core *c, const pf_prices *y) {
    const px_real *r = c->real;
    const dil_problem *p = r->p;
    const size_t L = p->n_layers, S = p->n_nodes, Q = p->n_levels;
    double chunk_sum = 0, credit = 0;
    for (size_t s = 0; s < S; s++) chunk_sum += y->node[s][PF_CHUNK];
    const double scale = chunk_sum > r->chunk_weight ? r->chunk_weight / chunk_sum * (1 - 1e-12) : 1;
    for (size_t s = 0; s < S; s++) {
        const double chunk = r->chunk_weight > 0 ? y->node[s][PF_CHUNK] * scale : 0;
        const double load = p->load && p->load_max < INFINITY ? y->node[s][PF_LOAD] : 0;
        credit += load > 0 ? load * r->load_max : 0;
        for (size_t l = 0; l < L; l++)
            for (size_t q = 0; q < p->level_count[l]; q++) {
                const size_t cell = dil__cell(p, (uint32_t)l, (uint32_t)s, (uint32_t)q);
                double v = r->by_damage ? p->damage[l * Q + q] : r->by_load ? 0 : p->layer_sec[cell];
                if (chunk > 0) v += chunk * r->chunk[cell];
                if (load > 0) v += load * p->load[cell];
                r->sec[(s * L + l) * Q + q] = v;
            }
    }
    c->sec_credit = credit;
}

static void to_prices(const dual *d, const double *z, pf_prices *y) {
    y->damage = z[Z_DAMAGE] / d->unit[Z_DAMAGE];
    y->file = z[Z_FILE] / d->unit[Z_FILE];
    for (int s = 0; s < d->c->n_nodes; s++)
        for (int k = PF_BYTES; k <= PF_CHUNK; k++) y->node[s][k] = z[at(s, k)] / d->unit[at(s, k)];
}

static void from_prices(const dual *d, const pf_prices *y, double *z) {
    z[Z_DAMAGE] = y->damage * d->unit[Z_DAMAGE];
    z[Z_FILE] = y->file * d->unit[Z_FILE];
    for (int s = 0; s < d->c->n_nodes; s++)
        for (int k = PF_BYTES; k <= PF_CHUNK; k++) z[at(s, k)] = y->node[s][k] * d->unit[at(s, k)];
}

static void set_units(dual *d) {
    const px_core *c = d->c;
    const px_real *r = c->real;
    const dil_problem *p = r->p;
    double chunk = 0;
    for (int l = 0; r->chunk_weight > 0 && l < c->n_layers; l++) {
        double least = INFINITY;
        for (int s = 0; s < c->n_nodes; s++)
            for (uint32_t q = 0; q < p->level_count[l]; q++) least = fmin(least, r->chunk[dil__cell(p, (uint32_t)l, (uint32_t)s, q)]);
        chunk += least;
    }
    d->unit[Z_DAMAGE] = c->damage_max > 0 ? c->damage_max : 1;
    d->unit[Z_FILE] = c->file_max > 0 && c->file_max < INFINITY ? c->file_max : 1;
    for (int s = 0; s < c->n_nodes; s++) {
        d->unit[at(s, PF_BYTES)] = c->store[s] > 0 ? c->store[s] : 1;
        d->unit[at(s, PF_LOAD)] = r->load_max > 0 && r->load_max < INFINITY ? r->load_max : 1;
        d->unit[at(s, PF_CHUNK)] = chunk > 0 ? chunk : 1;
    }
    d->chunk_sum = r->chunk_weight * (chunk > 0 ? chunk : 1);
}

/* Its value and cheapest way at o->y. */
static bool relax(dual *d, double *value) {
    px_dual *o = d->out;
    px_weight *w = o->ng ? &o->ng->w : &o->w;
    w->file = o->y.file;
    if (o->ng) {
        dil__px_ng_learn(o->ng);
        if (!dil__px_ng_relax(o->ng, o->y.damage, o->price)) return false;
        if (w->root < INFINITY) dil__px_ng_way(o->ng);
        d->n_visits = w->root < INFINITY ? o->ng->n_visits : 0;
        memcpy(d->visit, o->ng->visit, (size_t)d->n_visits * sizeof *d->visit);
    } else {
        if (!dil__px_weight_init(d->c, d->g, w, 1, o->y.damage, o->price, o->n_units)) return false;
        d->n_visits = w->root < INFINITY ? dil__px_relaxed(d->c, d->g, w, d->visit) : 0;
    }
    *value = px_seconds(d->c, w, w->root);
    d->root = w->root;
    return true;
}

/* The relaxation at z; the gradient from its plan. */
static bool evaluate(dual *d, const double *z, double *value) {
    px_core *c = d->c;
    const px_real *r = c->real;
    const dil_problem *p = r->p;
    const int S = c->n_nodes, Q = c->n_levels;
    px_dual *o = d->out;
    to_prices(d, z, &o->y);
    dil__px_price(c, &o->y);
    for (int s = 0; s < S; s++) o->price[s] = o->y.node[s][PF_BYTES];
    if (!relax(d, value)) return false;
    memset(d->use, 0, (size_t)S * PF_N * sizeof *d->use);
    double damage = 0, file = 0;
    for (int i = 0; i < d->n_visits; i++) {
        const px_visit *v = &d->visit[i];
        if (!dil__px_visit_levels(c, o->ng ? &o->ng->w : &o->w, v, d->level)) return false;
        double *use = d->use + v->node * PF_N;
        for (int k = 0; k < v->n; k++) {
            const int l = v->first + k, q = d->level[k];
            const size_t cell = dil__cell(p, (uint32_t)l, (uint32_t)v->node, (uint32_t)q);
            d->node[l] = o->node[l] = v->node;
            damage += px_damage(c, l, q);
            file += c->file[l * Q + q];
            use[PF_BYTES] += px_bytes_on(c, v->node, l, q);
            if (p->load) use[PF_LOAD] += p->load[cell];
            if (r->chunk_weight > 0) use[PF_CHUNK] += r->chunk[cell];
        }
    }
    memset(d->grad, 0, (size_t)d->n * sizeof *d->grad);
    if (c->damage_max > 0) d->grad[Z_DAMAGE] = damage / c->damage_max - 1;
    if (c->file_max < INFINITY && c->file_max > 0) d->grad[Z_FILE] = file / c->file_max - 1;
    for (int s = 0; s < S; s++) {
        const double *use = d->use + s * PF_N;
        if (c->store[s] > 0) d->grad[at(s, PF_BYTES)] = use[PF_BYTES] / c->store[s] - 1;
        if (p->load && r->load_max < INFINITY && r->load_max > 0) d->grad[at(s, PF_LOAD)] = use[PF_LOAD] / r->load_max - 1;
        if (r->chunk_weight > 0) d->grad[at(s, PF_CHUNK)] = use[PF_CHUNK] / d->unit[at(s, PF_CHUNK)];
    }
    return true;
}

static void level_twins(const dual *d) {
    for (int k = PF_BYTES; k <= PF_CHUNK; k++) dil__px_level_twins(d->c, d->z + at(0, k), 3);
}

static bool round_structure(dual *d) {
    px_key key = {2, 2};
    bool is_new;
    for (int l = 0; l < d->c->n_layers; l++) dil__px_key_add(&key, (uint64_t)d->node[l]);
    if (!dil__px_map_at(d->met, key, &is_new)) return false;
    return !is_new || dil__px_fit_round(d->c, d->node, d->plan);
}

/* As climb_value of path_fit.c. */
static bool climb_value(void *ctx, const double *z, double *value, double *grad) {
    dual *d = ctx;
    px_dual *o = d->out;
    double chunk = 0, steepest = 0, mean = 0;
    const int S = d->c->n_nodes;
    for (int k = 0; k < d->n; k++) d->z[k] = fmax(0, z[k]);
    for (int s = 0; s < S; s++) chunk += d->z[at(s, PF_CHUNK)];
    for (int s = 0; s < S; s++) d->z[at(s, PF_CHUNK)] = chunk > 0 ? d->z[at(s, PF_CHUNK)] * d->chunk_sum / chunk : d->chunk_sum / S; /* only proportions count */
    level_twins(d);
    if (!evaluate(d, d->z, value)) return false;
    if (d->n_visits == 0) {
        o->no_path = d->root == INFINITY;
        d->stopped = true;
        *value = -INFINITY;
        return true;
    }
    if (!round_structure(d)) return false;
    if (*value > o->bound) {
        o->bound = *value;
        memcpy(d->best, d->z, (size_t)d->n * sizeof *d->z);
    }
    d->stopped = d->plan->found && o->bound >= d->plan->sec;
    memcpy(grad, d->grad, (size_t)d->n * sizeof *grad);
    for (int s = 0; s < S; s++) mean += d->chunk_sum > 0 ? d->z[at(s, PF_CHUNK)] / d->chunk_sum * grad[at(s, PF_CHUNK)] : 0;
    for (int s = 0; s < S; s++) grad[at(s, PF_CHUNK)] = chunk > 0 ? (grad[at(s, PF_CHUNK)] - mean) * d->chunk_sum / chunk : 0;
    for (int k = PF_BYTES; k <= PF_CHUNK; k++) dil__px_level_twins(d->c, grad + at(0, k), 3);
    for (int k = 0; k < d->n; k++) steepest = fmax(steepest, fabs(grad[k]));
    for (int k = 0; k < d->n; k++) {
        if (z[k] >= 0) continue;
        *value += 2 * steepest * z[k];
        grad[k] = 2 * steepest;
    }
    return true;
}

static bool is_over(void *ctx) {
    const dual *d = ctx;
    return d->stopped || dil_now_ns() > d->deadline_ns;
}

static bool ascend(dual *d, int n_steps, int64_t deadline_ns) {
    px_climb c = {.n = d->n, .rounds = n_steps, .enough = INFINITY, .still = 2e-4, .ctx = d, .value_at = climb_value, .stop = is_over,
                  .scratch = dil__px_alloc(dil__px_climb_scratch(d->n), sizeof(double))};
    double *z = dil__px_alloc((size_t)d->n, sizeof *z), value;
    bool ok = c.scratch && z;
    d->deadline_ns = deadline_ns;
    if (ok) {
        double size = 0;
        memcpy(z, d->z, (size_t)d->n * sizeof *z);
        for (int s = 0; s < d->c->n_nodes; s++) z[at(s, PF_CHUNK)] += 1e-3 * d->chunk_sum;
        memcpy(d->best, d->z, (size_t)d->n * sizeof *z);
        for (int k = 0; k < d->n; k++) size += z[k] * z[k];
        if (d->plan->found) size = fmax(sqrt(size), fabs(d->plan->sec));
        ok = dil__px_climb(&c, z, 0.05 * (size > 0 ? size : 1)) && (d->n_visits == 0 || evaluate(d, d->best, &value));
    }
    free(c.scratch);
    free(z);
    return ok;
}

bool dil__px_dual_init(px_dual *o, const px_core *c) {
    *o = (px_dual){.bound = -INFINITY};
    o->y.node = dil__px_alloc((size_t)c->n_nodes, sizeof *o->y.node);
    o->price = dil__px_alloc((size_t)c->n_nodes, sizeof *o->price);
    o->node = dil__px_alloc((size_t)c->n_layers, sizeof *o->node);
    return o->y.node && o->price && o->node;
}

void dil__px_dual_fini(px_dual *o) {
    dil__px_weight_fini(&o->w);
    free(o->y.node);
    free(o->price);
    free(o->node);
}

bool dil__px_dual_run(px_dual *o, px_core *c, const px_graph *g, px_plan *plan, int n_steps, int64_t deadline_ns) {
    const size_t L = (size_t)c->n_layers, S = (size_t)c->n_nodes, n = 2 + 3 * S;
    dual d = {.c = c, .g = g, .out = o, .n = (int)n, .plan = plan, .met = dil__px_map_new()};
    d.z = dil__px_alloc(4 * n, sizeof *d.z);
    d.use = dil__px_alloc(S * PF_N, sizeof *d.use);
    d.visit = dil__px_alloc(L, sizeof *d.visit);
    d.level = dil__px_alloc(2 * L, sizeof *d.level);
    bool ok = d.met && d.z && d.use && d.visit && d.level;
    if (ok) {
        d.best = d.z + n;
        d.grad = d.best + n;
        d.unit = d.grad + n;
        d.node = d.level + L;
        o->bound = -INFINITY;
        o->no_path = false;
        set_units(&d);
        from_prices(&d, &o->y, d.z);
        ok = ascend(&d, n_steps, deadline_ns);
    }
    dil__px_map_free(d.met);
    free(d.z);
    free(d.use);
    free(d.visit);
    free(d.level);
    return ok;
}
