/* plan/path_least.c - plans of least damage when links cost nothing, by local search over nodes and levels together.
 *
 * Where damage is the objective a structure says little: any layer may be anywhere, and what matters is how full each store gets. So
 * the state is a node and a level for every layer; a step re-chooses two layers' levels, on their nodes or on exchanged ones, or
 * moves one layer. Kicks (a few exchanges at random) lead out of local optima. Overruns count before damage, so that the search
 * also finds its way to a first plan. */
#include "plan/path_fit.h"

#include <stdlib.h>
#include <string.h>

typedef struct place { /* what a node holds */
    double bytes, extra, load;
} place;

typedef struct least {
    const px_core *c;
    const dil_problem *p;
    int L, S, Q, first, end; /* layers first..end-1 may change */
    int *node, *level;       /* [L] */
    int *best_node, *best_level;
    place *at;               /* [S] */
    double damage, file;
    double over;             /* of all budgets */
    double best;
    dil_rng rng;
} least;

static double bytes_of(const least *k, int l, int s, int q) {
    double b = k->p->layer_bytes[(size_t)l * (size_t)k->Q + (size_t)q];
    if (k->p->tied && l + 1 == k->L && l > 0 && k->node[0] == s) b -= k->p->shared_bytes[q];
    return b;
}

static double load_of(const least *k, int l, int s, int q) {
    return k->p->load && k->p->load_max < INFINITY ? k->p->load[dil__cell(k->p, (uint32_t)l, (uint32_t)s, (uint32_t)q)] : 0;
}

static bool allowed(const least *k, int l, int q) { return px_bytes(k->c, l, q) < INFINITY; }

static double beyond(double v, double cap) { return v <= cap ? 0 : cap > 0 ? v / cap - 1 : 1 + v; }

static double over_of(const least *k, int s, const place *x) {
    if (x->bytes == 0 && x->load == 0 && x->extra == 0) return 0;
    return beyond(x->bytes + x->extra, k->c->store[s]) + beyond(x->load, k->c->real->load_max);
}

static double file_of(const least *k, int l, int q) {
    return k->c->real->file_max < INFINITY ? k->p->file_bytes ? k->p->file_bytes[l * k->Q + q] : k->p->layer_bytes[l * k->Q + q] : 0;
}

static double extra_of(const least *k, int s, int but, int also) {
    double extra = 0;
    for (int l = 0; k->c->extra && l < k->L; l++)
        if ((k->node[l] == s && l != but) || l == also) extra = fmax(extra, k->c->extra[l]);
    return extra;
}

static void recount(least *k) {
    memset(k->at, 0, (size_t)k->S * sizeof *k->at);
    k->damage = k->file = k->over = 0;
    for (int l = 0; l < k->L; l++) {
        place *x = &k->at[k->node[l]];
        const int q = k->level[l];
        x->bytes += bytes_of(k, l, k->node[l], q);
        x->load += load_of(k, l, k->node[l], q);
        if (k->c->extra) x->extra = fmax(x->extra, k->c->extra[l]);
        k->damage += k->p->damage[l * k->Q + q];
        k->file += file_of(k, l, q);
    }
    for (int s = 0; s < k->S; s++) k->over += over_of(k, s, &k->at[s]);
    k->over += beyond(k->file, k->c->real->file_max);
}

static bool is_path(const least *k) {
    px_fit *f = k->c->real->fit;
    return dil__fit_structure(f, k->node);
}

/* Layers l and m (m < 0: l alone) on the nodes s and t at the best levels; taken when that is better. */
static bool rechoose(least *k, int l, int m, int s, int t) {
    const int from = k->node[l], to = m < 0 ? -1 : k->node[m], was_l = k->level[l], was_m = m < 0 ? 0 : k->level[m];
    const int node[4] = {from, to, s, t};
    place base[4]; /* of the nodes concerned, without l and m */
    int n = 0, list[4];
    double over_rest = k->over - beyond(k->file, k->c->real->file_max);
    for (int i = 0; i < 4; i++) {
        bool had = node[i] < 0;
        for (int j = 0; j < n; j++) had = had || list[j] == node[i];
        if (had) continue;
        list[n] = node[i];
        base[n] = k->at[node[i]];
        over_rest -= over_of(k, node[i], &base[n]);
        if (from == node[i]) base[n].bytes -= bytes_of(k, l, from, was_l), base[n].load -= load_of(k, l, from, was_l);
        if (to == node[i]) base[n].bytes -= bytes_of(k, m, to, was_m), base[n].load -= load_of(k, m, to, was_m);
        n++;
    }
    if (s != from || (m >= 0 && t != to)) {
        k->node[l] = s;
        if (m >= 0) k->node[m] = t;
        for (int i = 0; i < n; i++) base[i].extra = extra_of(k, list[i], -1, -1);
        k->node[l] = from;
        if (m >= 0) k->node[m] = to;
    }
    int at_s = 0, at_t = 0;
    while (list[at_s] != s) at_s++;
    while (m >= 0 && list[at_t] != t) at_t++;
    const double damage_rest = k->damage - k->p->damage[l * k->Q + was_l] - (m < 0 ? 0 : k->p->damage[m * k->Q + was_m]);
    const double file_rest = k->file - file_of(k, l, was_l) - (m < 0 ? 0 : file_of(k, m, was_m));
    double over = k->over, damage = k->damage;
    int best_l = -1, best_m = 0;
    for (int q = 0; q < k->Q; q++) {
        if (!allowed(k, l, q)) continue;
        const double d = damage_rest + k->p->damage[l * k->Q + q];
        if (k->over <= 0 && d >= k->damage) continue;
        const double b = bytes_of(k, l, s, q), load = load_of(k, l, s, q), file = file_rest + file_of(k, l, q);
        for (int r = 0; r < (m < 0 ? 1 : k->Q); r++) {
            if (m >= 0 && !allowed(k, m, r)) continue;
            const double all = m < 0 ? d : d + k->p->damage[m * k->Q + r];
            if (over <= 0 && all >= damage * (1 - 1e-12)) continue;
            place x[4];
            memcpy(x, base, (size_t)n * sizeof *x);
            x[at_s].bytes += b;
            x[at_s].load += load;
            if (m >= 0) {
                x[at_t].bytes += bytes_of(k, m, t, r);
                x[at_t].load += load_of(k, m, t, r);
            }
            double o = fmax(0, over_rest) + beyond(m < 0 ? file : file + file_of(k, m, r), k->c->real->file_max);
            for (int i = 0; i < n; i++) o += over_of(k, list[i], &x[i]);
            if (o < 1e-12) o = 0;
            if (o > over || (o == over && all >= damage * (1 - 1e-12))) continue;
            if (o > 0 && o > over - 1e-9) continue;
            over = o;
            damage = all;
            best_l = q;
            best_m = r;
        }
    }
    if (best_l < 0) return false;
    k->node[l] = s;
    k->level[l] = best_l;
    if (m >= 0) {
        k->node[m] = t;
        k->level[m] = best_m;
    }
    if ((s != from || (m >= 0 && t != to)) && !is_path(k)) {
        k->node[l] = from;
        k->level[l] = was_l;
        if (m >= 0) k->node[m] = to, k->level[m] = was_m;
        return false;
    }
    recount(k);
    return true;
}

static void descend(least *k, int64_t deadline_ns) {
    for (bool changed = true; changed && dil_now_ns() < deadline_ns;) {
        changed = false;
        for (int l = k->first; l < k->end; l++) {
            for (int s = 0; s < k->S; s++) changed |= rechoose(k, l, -1, s, -1);
            for (int m = l + 1; m < k->end; m++) {
                const int s = k->node[l], t = k->node[m];
                changed |= rechoose(k, l, m, s, t);
                if (k->node[l] != k->node[m]) changed |= rechoose(k, l, m, k->node[m], k->node[l]);
            }
        }
    }
}

static void keep(least *k, px_plan *best) {
    double sec, damage;
    if (k->over > 0 || k->damage >= k->best) return;
    if (!dil__px_fit_evaluate(k->c, k->node, k->level, &sec, &damage)) return;
    k->best = sec;
    memcpy(k->best_node, k->node, (size_t)k->L * sizeof *k->node);
    memcpy(k->best_level, k->level, (size_t)k->L * sizeof *k->level);
    if (best->found && sec >= best->sec) return;
    dil__px_take(best, k->L, k->node, k->level, sec, damage);
}

static int random_layer(least *k) { return k->first + (int)dil_rng_below(&k->rng, (uint64_t)(k->end - k->first)); }

static void kick(least *k) {
    const int n = 1 + (int)dil_rng_below(&k->rng, 3);
    for (int i = 0; i < n; i++) {
        const int l = random_layer(k), m = random_layer(k), t = k->node[l];
        k->node[l] = k->node[m];
        k->node[m] = t;
        if (!is_path(k)) {
            k->node[m] = k->node[l];
            k->node[l] = t;
        }
    }
    recount(k);
}

bool dil__px_least_damage(const px_core *c, const int *start, double enough, int rounds, int64_t deadline_ns, px_plan *best) {
    const size_t L = (size_t)c->n_layers;
    const bool tied = c->real->p->tied && L > 1;
    least k = {.c = c, .p = c->real->p, .L = c->n_layers, .S = c->n_nodes, .Q = c->n_levels, .first = tied, .end = c->n_layers - tied,
               .best = INFINITY};
    dil_rng_init(&k.rng, 1);
    k.node = dil__px_alloc(4 * L, sizeof *k.node);
    k.at = dil__px_alloc((size_t)c->n_nodes, sizeof *k.at);
    const bool ok = k.node && k.at;
    if (ok) {
        k.level = k.node + L;
        k.best_node = k.level + L;
        k.best_level = k.best_node + L;
        memcpy(k.node, start, L * sizeof *start);
        for (int l = 0; l < k.L; l++) /* the smallest that is allowed */
            for (int q = 0, has = 0; q < k.Q; q++)
                if (allowed(&k, l, q) && (!has || px_bytes(c, l, q) < px_bytes(c, l, k.level[l]))) k.level[l] = q, has = 1;
        recount(&k);
    }
    for (int round = 0; ok && round < rounds && k.first < k.end; round++) {
        descend(&k, deadline_ns);
        if (k.over > 0 && k.best == INFINITY && round > 40) break;
        keep(&k, best);
        if ((best->found && best->sec <= enough) || dil_now_ns() > deadline_ns) break;
        if (k.best < INFINITY && k.damage > k.best) {
            memcpy(k.node, k.best_node, L * sizeof *k.node);
            memcpy(k.level, k.best_level, L * sizeof *k.level);
        }
        kick(&k);
    }
    free(k.node);
    free(k.at);
    return ok;
}

bool dil__px_merged_damage(const px_core *c, double known, double upper, int64_t deadline_ns, double *bound) {
    const size_t L = (size_t)c->n_layers, S = (size_t)c->n_nodes;
    px_real real = *c->real;
    px_core one = *c;
    px_fit f = {0};
    double *store = dil__px_alloc(S, sizeof *store), lost = INFINITY;
    px_plan best = {.node = dil__px_alloc(3 * L, sizeof(int))};
    bool ok = store && best.node;
    *bound = known;
    real.load_max = INFINITY;
    for (size_t s = 0; ok && s < S; s++) store[0] += fmax(0, c->store[s]);
    one.store = store;
    one.real = &real;
    ok = ok && dil__fit_init(&f, &one, &real);
    if (ok) {
        f.merged = true;
        best.level = best.node + L;
        ok = dil__fit_settle(&f, best.level + L, upper, deadline_ns, &best, &lost) >= 0;
        if (ok) *bound = fmax(known, fmin(best.found ? best.sec : upper, lost) * (1 - 1e-12));
    }
    dil__fit_fini(&f);
    free(store);
    free(best.node);
    return ok;
}
