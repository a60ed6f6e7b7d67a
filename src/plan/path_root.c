/* plan/path_root.c - the multipliers of the relaxation.
 *
 * The relaxation at a weight (1, damage, price per byte of each node) is concave in damage and prices, and a subgradient is what its
 * plan overruns of each budget. The weight on damage alone comes first, by cutting planes in one dimension; then damage and prices
 * together by projected subgradient steps of Polyak's length with the direction before mixed in. Every structure on the way is
 * rounded to a plan. */
#include "plan/path_int.h"

#include <stdlib.h>
#include <string.h>

enum { FIRST_TRIES = 7, FIRST_UNITS = 96, FIRST_ROOM = 8 };

typedef struct sample { double at, value, slope; } sample;

/* Levels of the relaxed plan, visit by visit -> its damage and the bytes on every node; false when there is none. */
static bool relaxed_use(px_root *r, double *damage) {
    const px_core *c = r->c;
    int layers[1024];
    *damage = 0;
    memset(r->used, 0, (size_t)c->n_nodes * sizeof *r->used);
    for (int i = 0; i < r->n_visits; i++) {
        const px_visit *v = &r->visit[i];
        for (int l = 0; l < v->n; l++) {
            layers[l] = v->first + l;
            r->node[v->first + l] = v->node;
        }
        const px_group g = {v->node, v->n, layers};
        const double store = c->store[v->node], room = dil__px_room(c, v->node, layers, 0, v->n);
        if (!dil__px_group_levels(c, &r->w, &g, v->small ? fmin(store / 2, room) : room, r->n_units, r->level) &&
            !dil__px_group_levels(c, &r->w, &g, room, r->n_units, r->level)) return false;
        for (int l = 0; l < v->n; l++) {
            *damage += px_damage(c, layers[l], r->level[l]);
            r->used[v->node] += px_bytes_on(c, v->node, layers[l], r->level[l]);
        }
    }
    return true;
}

/* A plan from the relaxed structure, unless it was met before. */
static bool round_structure(px_root *r, double at) {
    px_key key = {2, 2};
    bool is_new;
    for (int l = 0; l < r->c->n_layers; l++) dil__px_key_add(&key, (uint64_t)r->node[l]);
    if (!dil__px_map_at(r->rounded, key, &is_new)) return false;
    double w = at > 0 ? at : 1e-6;
    if (is_new) dil__px_round(r->c, r->node, &w, r->best);
    return true;
}

/* The relaxation at r->damage and r->price. false: no memory. */
static bool evaluate(px_root *r, const double *price, double at, double *value, double *damage) {
    if (!dil__px_weight_init(r->c, r->g, &r->w, 1, at, price, r->n_units)) return false;
    *value = px_seconds(r->c, &r->w, r->w.root);
    if (r->w.root == INFINITY) {
        r->no_path = true;
        return true;
    }
    if (*value > r->bound) {
        r->bound = *value;
        r->best_damage = at;
        if (price) memcpy(r->best_price, price, (size_t)r->c->n_nodes * sizeof *price);
    }
    r->n_visits = dil__px_relaxed(r->c, r->g, &r->w, r->visit);
    if (!relaxed_use(r, damage)) *damage = INFINITY;
    return r->n_visits == 0 || round_structure(r, at);
}

static bool sample_at(px_root *r, double at, sample *s) {
    double damage;
    s->at = at;
    if (!evaluate(r, NULL, at, &s->value, &damage)) return false;
    s->slope = damage - r->c->damage_max;
    return true;
}

double dil__px_first_weight(const px_core *c) {
    double sec = 0;
    for (int l = 0; l < c->n_layers; l++) {
        double least = INFINITY;
        for (int s = 0; s < c->n_nodes; s++)
            for (int q = 0; q < c->n_levels; q++)
                if (px_bytes(c, l, q) < INFINITY) least = fmin(least, px_sec(c, s, l, q));
        sec += least;
    }
    return c->damage_max > 0 && sec > 0 ? 0.2 * sec / c->damage_max : 1;
}

/* A first plan in a few relaxations' time: a beam and windows (path_lns.c) at weights around `at`, larger ones until there is one. The relaxed
 * structures are seldom near a plan before their multipliers are. false: no memory. */
static bool find_first(px_root *r, double at) {
    static const double factor[PX_LNS_WEIGHTS] = {0.6, 0.85, 1.2, 1.7};
    const px_core *c = r->c;
    const size_t visits = (size_t)c->n_nodes * (size_t)c->n_layers * (size_t)r->g->run_cap;
    px_weight w[PX_LNS_WEIGHTS] = {{0}};
    bool ok = true;
    for (int k = 0; ok && k < PX_LNS_WEIGHTS; k++) ok = (w[k].large = dil__px_alloc(visits, sizeof(double))) != NULL;
    for (int i = 0; ok && i < FIRST_TRIES && !r->best->found && dil_now_ns() < r->deadline_ns; i++, at *= 2) {
        for (int k = 0; ok && k < PX_LNS_WEIGHTS; k++) {
            w[k].sec = 1;
            w[k].damage = at * factor[k];
            w[k].n_units = FIRST_UNITS;
            ok = dil__px_visit_table(c, &w[k], r->g->run_max, r->g->run_cap);
        }
        px_lns *x = ok ? dil__px_lns_new(c, r->g, w, PX_LNS_WEIGHTS, 1) : NULL;
        ok = x && dil__px_lns_beam(x, r->best, FIRST_ROOM) && dil__px_lns_run(x, r->best, 0, INT64_MAX, r->deadline_ns);
        dil__px_lns_free(x);
    }
    for (int k = 0; k < PX_LNS_WEIGHTS; k++) dil__px_weight_fini(&w[k]);
    return ok;
}

/* Maximises the relaxation over the weight on damage. */
static bool find_damage(px_root *r) {
    sample lo = {0}, hi = {0}, x;
    if (!sample_at(r, 0, &lo)) return false;
    if (r->no_path || lo.slope <= 0) return true;
    double at = dil__px_first_weight(r->c);
    if (!r->c->real && !find_first(r, 1.6 * at)) return false;
    for (int i = 0; i < 24; i++, at *= 4) {
        if (!sample_at(r, at, &hi)) return false;
        if (hi.slope <= 0) break;
        lo = hi;
    }
    for (int i = 0; i < 14 && hi.slope <= 0 && dil_now_ns() < r->deadline_ns; i++) {
        const double mid = (hi.value - hi.slope * hi.at - lo.value + lo.slope * lo.at) / (lo.slope - hi.slope);
        const double top = lo.value + lo.slope * (mid - lo.at);
        if (top - r->bound < 1e-3 * fabs(r->bound)) break;
        if (!(mid > lo.at && mid < hi.at)) break;
        if (!sample_at(r, mid, &x)) return false;
        if (x.slope > 0) lo = x;
        else hi = x;
    }
    return true;
}

/* y[0]: damage, y[1 + s]: price of the node, both in seconds for the whole budget. */
static bool ascend(px_root *r, int n_steps) {
    const px_core *c = r->c;
    const int n = c->n_nodes + 1;
    double *y = dil__px_alloc(4 * (size_t)n, sizeof *y);
    if (!y) return false;
    double *d = y + n, *best = d + n, *price = best + n, value, damage, theta = 0.7;
    bool ok = true;
    best[0] = r->best_damage * c->damage_max;
    for (int s = 0; s + 1 < n; s++) best[1 + s] = r->best_price[s] * c->store[s];
    memcpy(y, best, (size_t)n * sizeof *y);
    int since = 0;
    for (int i = 0; i < n_steps && dil_now_ns() < r->deadline_ns; i++) {
        for (int s = 0; s + 1 < n; s++) price[s] = c->store[s] > 0 ? y[1 + s] / c->store[s] : 0;
        const double before = r->bound;
        ok = evaluate(r, price, c->damage_max > 0 ? y[0] / c->damage_max : r->best_damage, &value, &damage);
        if (!ok || damage == INFINITY || (r->best->found && r->bound >= r->best->sec)) break;
        if (r->bound > before) {
            memcpy(best, y, (size_t)n * sizeof *y);
            since = 0;
        } else if (++since == 5) {
            since = 0;
            theta /= 2;
            memcpy(y, best, (size_t)n * sizeof *y);
            memset(d, 0, (size_t)n * sizeof *d);
            if (theta < 0.02) break;
            continue;
        }
        double norm = 0;
        for (int k = 0; k < n; k++) {
            const double g = k == 0 ? (c->damage_max > 0 ? damage / c->damage_max - 1 : 0)
                                    : c->store[k - 1] > 0 ? r->used[k - 1] / c->store[k - 1] - 1 : 0;
            d[k] = (y[k] <= 0 && g < 0) ? 0 : 0.7 * g + 0.3 * d[k];
            norm += d[k] * d[k];
        }
        if (norm <= 0) break;
        const double upper = r->best->found ? r->best->sec : 1.15 * r->bound;
        const double step = theta * (upper - value) / norm;
        for (int k = 0; k < n; k++) y[k] = fmax(0, y[k] + step * d[k]);
        dil__px_level_twins(c, y + 1, 1);
    }
    free(y);
    return ok;
}

bool dil__px_root_run(px_root *r, int n_steps) {
    r->bound = -INFINITY;
    if (!find_damage(r)) return false;
    r->plain_damage = r->best_damage;
    r->plain_bound = r->bound;
    return r->no_path || ascend(r, n_steps);
}

bool dil__px_root_again(px_root *r, int n_steps) {
    dil__px_weight_fini(&r->w);
    return ascend(r, n_steps);
}

bool dil__px_root_init(px_root *r) {
    const size_t L = (size_t)r->c->n_layers, S = (size_t)r->c->n_nodes;
    r->visit = dil__px_alloc(L, sizeof *r->visit);
    r->node = dil__px_alloc(2 * L, sizeof *r->node);
    r->level = r->node ? r->node + L : NULL;
    r->used = dil__px_alloc(S, sizeof *r->used);
    r->best_price = dil__px_alloc(S, sizeof *r->best_price);
    r->rounded = dil__px_map_new();
    return r->rounded && r->visit && r->node && r->used && r->best_price;
}

void dil__px_root_fini(px_root *r) {
    dil__px_weight_fini(&r->w);
    dil__px_map_free(r->rounded);
    free(r->visit);
    free(r->node);
    free(r->used);
    free(r->best_price);
}
