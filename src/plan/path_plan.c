/* plan/path_plan.c - from a structure (a node for every layer) to a plan with levels, near-optimal and quick.
 *
 * For a structure the levels of each node's layers are a byte knapsack at a weight on damage; the weight is bisected until the
 * damage just meets the budget, and single levels are then improved into what is left of it. The exact choice is path_level.c. */
#include "plan/path_fit.h"

#include <stdlib.h>
#include <string.h>

enum { ROUND_UNITS = 2048 };

bool dil__px_evaluate(const px_core *c, const int *node, const int *level, double *sec, double *damage) {
    if (c->real) return dil__px_fit_evaluate(c, node, level, sec, damage);
    double *used = dil__px_alloc((size_t)c->n_nodes, sizeof *used);
    if (!used) return false;
    double t = c->source[node[0]] + c->sink[node[c->n_layers - 1]], d = 0;
    bool ok = true;
    for (int l = 0; l < c->n_layers; l++) {
        used[node[l]] += px_bytes(c, l, level[l]);
        ok = ok && used[node[l]] <= c->store[node[l]];
        t += px_sec(c, node[l], l, level[l]);
        if (l > 0 && node[l] != node[l - 1]) t += px_hop(c, node[l - 1], node[l]);
        d += px_damage(c, l, level[l]);
    }
    free(used);
    *sec = t;
    *damage = d;
    return ok && t < INFINITY;
}

void dil__px_take(px_plan *best, int n_layers, const int *node, const int *level, double sec, double damage) {
    memcpy(best->node, node, (size_t)n_layers * sizeof *node);
    memcpy(best->level, level, (size_t)n_layers * sizeof *level);
    best->sec = sec;
    best->damage = damage;
    best->found = true;
    dil__trail_plan(best->trail, sec);
}

int dil__px_groups(const px_core *c, const int *node, px_group *group, int *layers) {
    int n = 0, at = 0;
    for (int l = 0; l < c->n_layers; l++) {
        bool seen = false;
        for (int i = 0; i < n && !seen; i++) seen = group[i].node == node[l];
        if (seen) continue;
        group[n] = (px_group){node[l], 0, layers + at};
        for (int m = l; m < c->n_layers; m++)
            if (node[m] == node[l]) {
                layers[at++] = m;
                group[n].n++;
            }
        n++;
    }
    return n;
}

/* Single levels that save seconds and still fit, the best first. */
static void polish(const px_core *c, const int *node, int *level, double *used, double damage) {
    for (;;) {
        double best = 0;
        int at = -1, to = -1;
        for (int l = 0; l < c->n_layers; l++)
            for (int q = 0; q < c->n_levels; q++) {
                const double gain = px_sec(c, node[l], l, level[l]) - px_sec(c, node[l], l, q);
                if (gain <= best * (1 + 1e-12) + 1e-15) continue;
                if (damage - px_damage(c, l, level[l]) + px_damage(c, l, q) > c->damage_max) continue;
                if (used[node[l]] - px_bytes(c, l, level[l]) + px_bytes(c, l, q) > c->store[node[l]]) continue;
                best = gain;
                at = l;
                to = q;
            }
        if (at < 0) return;
        damage += px_damage(c, at, to) - px_damage(c, at, level[at]);
        used[node[at]] += px_bytes(c, at, to) - px_bytes(c, at, level[at]);
        level[at] = to;
    }
}

typedef struct rounding {
    const px_core *c;
    const int *node;
    px_group *group;
    int n_groups;
    int *level, *part;
    double *used;
    px_plan *best;
} rounding;

/* Levels at one weight (INFINITY: the least damage): 1 within the budget, 0 not, -1 no levels at all. Keeps what beats the best plan. */
static int try_weight(rounding *r, double w_damage) {
    const px_core *c = r->c;
    const px_weight w = {.sec = w_damage < INFINITY ? 1 : 0, .damage = w_damage < INFINITY ? w_damage : 1};
    for (int i = 0; i < r->n_groups; i++) {
        const px_group *g = &r->group[i];
        if (!dil__px_group_levels(c, &w, g, c->store[g->node], ROUND_UNITS, r->part)) return -1;
        for (int k = 0; k < g->n; k++) r->level[g->layer[k]] = r->part[k];
    }
    double sec, damage;
    if (!dil__px_evaluate(c, r->node, r->level, &sec, &damage)) return -1;
    if (damage > px_budget(c)) return 0;
    memset(r->used, 0, (size_t)c->n_nodes * sizeof *r->used);
    for (int l = 0; l < c->n_layers; l++) r->used[r->node[l]] += px_bytes(c, l, r->level[l]);
    polish(c, r->node, r->level, r->used, damage);
    if (dil__px_evaluate(c, r->node, r->level, &sec, &damage) && damage <= px_budget(c) && (!r->best->found || sec < r->best->sec))
        dil__px_take(r->best, c->n_layers, r->node, r->level, sec, damage);
    return 1;
}

static bool bisect(rounding *r, double *w_damage) {
    double hi = *w_damage > 0 ? *w_damage : 1, lo = 0;
    int rc = try_weight(r, hi);
    if (rc == 0 && try_weight(r, INFINITY) != 1) return false;
    for (int i = 0; i < 40 && rc == 0; i++) {
        lo = hi;
        hi *= 2;
        rc = try_weight(r, hi);
    }
    if (rc != 1) return false;
    for (int i = 0; i < 6 && lo == 0; i++) {
        const int low = try_weight(r, hi / 2);
        if (low == 1) hi /= 2;
        else lo = hi / 2;
    }
    for (int i = 0; i < 7; i++) {
        const double mid = (lo + hi) / 2;
        if (try_weight(r, mid) == 1) hi = mid;
        else lo = mid;
    }
    *w_damage = hi;
    return true;
}

bool dil__px_round(const px_core *c, const int *node, double *w_damage, px_plan *best) {
    if (c->real) return dil__px_fit_round(c, node, best);
    const size_t L = (size_t)c->n_layers, S = (size_t)c->n_nodes;
    rounding r = {.c = c, .node = node, .best = best};
    int *ints = dil__px_alloc(3 * L, sizeof *ints);
    r.group = dil__px_alloc(S < L ? S : L, sizeof *r.group);
    r.used = dil__px_alloc(S, sizeof *r.used);
    bool ok = ints && r.group && r.used;
    if (ok) {
        r.level = ints + L;
        r.part = ints + 2 * L;
        r.n_groups = dil__px_groups(c, node, r.group, ints);
        ok = bisect(&r, w_damage);
    }
    free(r.used);
    free(r.group);
    free(ints);
    return ok;
}
