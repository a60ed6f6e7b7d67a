/* plan/path_dual.c - multipliers of the whole relaxation of a measured problem.
 *
 * As path_root.c, for every budget at once: damage, file size, bytes and load of each node, and the nodes' parts of the slowest one's
 * seconds a chunk, which sum to its weight. Projected subgradient steps from the multipliers of a structure that has a plan. */
#include "plan/path_fit.h"

#include <stdlib.h>
#include <string.h>

enum { Z_DAMAGE, Z_FILE, Z_NODE };

typedef struct dual {
    px_core *c;
    const px_graph *g;
    px_dual *out;
    int n;                   /* multipliers */
    double *z, *best, *grad, *dir, *unit; /* [n] in seconds for the whole budget */
    double *use;             /* [S][PF_N] */
    double chunk_sum;        /* of z */
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
                double v = r->by_damage ? p->damage[l * Q + q] : p->layer_sec[cell];
                if (chunk > 0) v += chunk * p->chunk_sec[cell];
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
            for (uint32_t q = 0; q < p->level_count[l]; q++) least = fmin(least, p->chunk_sec[dil__cell(p, (uint32_t)l, (uint32_t)s, q)]);
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
    o->w.file = o->y.file;
    if (!dil__px_weight_init(c, d->g, &o->w, 1, o->y.damage, o->price, o->n_units)) return false;
    *value = px_seconds(c, &o->w, o->w.root);
    d->n_visits = o->w.root < INFINITY ? dil__px_relaxed(c, d->g, &o->w, d->visit) : 0;
    memset(d->use, 0, (size_t)S * PF_N * sizeof *d->use);
    double damage = 0, file = 0;
    for (int i = 0; i < d->n_visits; i++) {
        const px_visit *v = &d->visit[i];
        if (!dil__px_visit_levels(c, &o->w, v, d->level)) return false;
        double *use = d->use + v->node * PF_N;
        for (int k = 0; k < v->n; k++) {
            const int l = v->first + k, q = d->level[k];
            const size_t cell = dil__cell(p, (uint32_t)l, (uint32_t)v->node, (uint32_t)q);
            d->node[l] = o->node[l] = v->node;
            damage += px_damage(c, l, q);
            file += c->file[l * Q + q];
            use[PF_BYTES] += px_bytes_on(c, v->node, l, q);
            if (p->load) use[PF_LOAD] += p->load[cell];
            if (p->chunk_sec) use[PF_CHUNK] += p->chunk_sec[cell];
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

/* Chunk multipliers onto the simplex of their sum. */
static void project(const dual *d, double *z) {
    const int S = d->c->n_nodes;
    double lo = -INFINITY, hi = -INFINITY;
    if (!(d->c->real->chunk_weight > 0)) return;
    for (int s = 0; s < S; s++) hi = fmax(hi, z[at(s, PF_CHUNK)]);
    lo = hi - d->chunk_sum; /* at lo the sum is at least chunk_sum, at hi it is 0 */
    for (int i = 0; i < 60; i++) {
        const double mid = (lo + hi) / 2;
        double sum = 0;
        for (int s = 0; s < S; s++) sum += fmax(0, z[at(s, PF_CHUNK)] - mid);
        if (sum > d->chunk_sum) lo = mid;
        else hi = mid;
    }
    for (int s = 0; s < S; s++) z[at(s, PF_CHUNK)] = fmax(0, z[at(s, PF_CHUNK)] - hi);
}

static bool round_structure(dual *d) {
    px_key key = {2, 2};
    bool is_new;
    for (int l = 0; l < d->c->n_layers; l++) dil__px_key_add(&key, (uint64_t)d->node[l]);
    if (!dil__px_map_at(d->met, key, &is_new)) return false;
    return !is_new || dil__px_fit_round(d->c, d->node, d->plan);
}

static double norm_of(const dual *d) {
    double norm = 0, mean = 0;
    const int S = d->c->n_nodes;
    for (int s = 0; s < S; s++) mean += d->grad[at(s, PF_CHUNK)] / S;
    for (int k = 0; k < d->n; k++) {
        const bool chunk = k >= Z_NODE && (k - Z_NODE) % 3 == PF_CHUNK - PF_BYTES;
        const double g = chunk ? d->grad[k] - mean : d->z[k] <= 0 && d->grad[k] < 0 ? 0 : d->grad[k];
        norm += g * g;
    }
    return norm;
}

static bool ascend(dual *d, int n_steps, int64_t deadline_ns) {
    px_dual *o = d->out;
    const size_t bytes = (size_t)d->n * sizeof *d->z;
    double theta = 1, value;
    memcpy(d->best, d->z, bytes);
    for (int i = 0, stale = 0; i < n_steps && dil_now_ns() < deadline_ns; i++) {
        if (!evaluate(d, d->z, &value)) return false;
        if (d->n_visits == 0) {
            o->no_path = o->w.root == INFINITY;
            break;
        }
        if (!round_structure(d)) return false;
        const double target = d->plan->found ? d->plan->sec : INFINITY;
        if (value > o->bound) {
            stale = value > o->bound + 2e-4 * fabs(o->bound) ? 0 : stale + 1;
            o->bound = value;
            memcpy(d->best, d->z, bytes);
            if (value >= target) break;
        } else {
            stale++;
        }
        if (stale >= 12) {
            stale = 0;
            theta /= 2;
            if (theta < 0.002) break;
            memcpy(d->z, d->best, bytes);
            memset(d->dir, 0, bytes);
            if (!evaluate(d, d->z, &value)) return false;
        }
        const double norm = norm_of(d);
        if (norm <= 0) break;
        const double upper = target < INFINITY ? target : o->bound + 0.15 * fabs(o->bound) + 1e-9, step = theta * fmax(upper - value, 1e-4 * fabs(value)) / norm;
        for (int k = 0; k < d->n; k++) {
            d->dir[k] = 0.7 * d->grad[k] + 0.3 * d->dir[k];
            d->z[k] += step * d->dir[k];
            const bool chunk = k >= Z_NODE && (k - Z_NODE) % 3 == PF_CHUNK - PF_BYTES;
            if (!chunk && d->z[k] < 0) d->z[k] = 0;
        }
        project(d, d->z);
    }
    return evaluate(d, d->best, &value);
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
    d.z = dil__px_alloc(5 * n, sizeof *d.z);
    d.use = dil__px_alloc(S * PF_N, sizeof *d.use);
    d.visit = dil__px_alloc(L, sizeof *d.visit);
    d.level = dil__px_alloc(2 * L, sizeof *d.level);
    bool ok = d.met && d.z && d.use && d.visit && d.level;
    if (ok) {
        d.best = d.z + n;
        d.grad = d.best + n;
        d.dir = d.grad + n;
        d.unit = d.dir + n;
        d.node = d.level + L;
        o->bound = -INFINITY;
        o->no_path = false;
        set_units(&d);
        from_prices(&d, &o->y, d.z);
        project(&d, d.z);
        ok = ascend(&d, n_steps, deadline_ns);
    }
    dil__px_map_free(d.met);
    free(d.z);
    free(d.use);
    free(d.visit);
    free(d.level);
    return ok;
}
