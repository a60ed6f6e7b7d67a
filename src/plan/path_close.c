/* plan/path_close.c - passes of path_use.h from both ends in turn, until no way below the target is left.
 *
 * Each pass is cut by what the one before it found from the other side, so that labels become few and their number may grow where the bound stands
 * still. Between passes the cheapest ways teach cells whom to remember, and are rounded to plans. Prices of bytes are left out: they are paid back
 * in every region of a network, while stores that fill up cost a way nothing elsewhere. */
#include "plan/path_use.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { FIRST_MOST = 128, LAST_MOST = 4096, N_WAYS = 64, N_ROUND = 12, N_TUNE = 6, LABELS_MOST = 3000000, FEW = 200, FEW_NODES = 200000 };

static const double NEAR = 0.96; /* of the target: nearer the cheapest way says something about the weight on damage */

static bool round_way(const px_close *k, const px_use_way *y) {
    int node[1024];
    const double w = k->x->w.damage;
    for (int i = 0; i < y->n; i++)
        for (int l = 0; l < y->visit[i].n; l++) node[y->visit[i].first + l] = y->visit[i].node;
    return dil__px_round_well(k->x->c, node, w > 0 ? w : 1e-6, k->best);
}

/* What the cheapest ways are good for. -> entries learned, -1: no memory */
static int use_ways(px_close *k, px_use *u, px_use_way *way, int *n) {
    int learned = 0;
    if (!dil__px_use_ways(u, N_WAYS, way, n)) return -1;
    for (int i = 0; i < *n && i < N_ROUND; i++)
        if (!round_way(k, &way[i])) return -1;
    for (int i = 0; i < *n; i++) learned += dil__px_use_learn(u, &way[i]);
    return learned;
}

static double target_of(const px_close *k) { return k->best->sec * (1 - k->aim); }
static double limit_of(const px_close *k) { return px_limit(k->x->c, &k->x->w, target_of(k)); }
static double seconds_of(const px_close *k, const px_use *u) { return px_seconds(k->x->c, &k->x->w, u->least); }

/* Whole structures of the visits that are left, settled exactly: what one weight on damage cannot tell apart. false: no memory. */
static bool search_rest(px_close *k, const px_use *u) {
    const px_core *c = k->x->c;
    const int L = c->n_layers, S = c->n_nodes;
    int *node = dil__px_alloc((size_t)S, sizeof *node), *run_max = dil__px_alloc((size_t)(FEW + L) * (size_t)L, sizeof *run_max), n = 0;
    const px_options o = {.gap = k->aim, .stop_at = -1, .deadline_ns = k->deadline_ns, .n_threads = 1};
    const double dropped = target_of(k);
    px_report r = {0};
    bool ok = node && run_max;
    for (int s = 0; ok && s < S; s++) {
        bool any = false;
        for (int l = 0; l < L; l++) any = any || k->best->node[l] == s; /* the plan is what others are compared with */
        for (int l = 0; l < L; l++)
            for (int m = 1; m <= k->x->g.run_cap && l + m <= L; m++)
                if (u->alive[px_visit_at(c, &k->x->g, s, l, m)]) {
                    run_max[n * L + l] = m;
                    any = true;
                }
        if (any) node[n++] = s;
    }
    ok = ok && dil__px_solve_part(c, &o, node, n, run_max, FEW_NODES, k->best, &r);
    if (ok) k->bound = fmax(k->bound, fmin(r.bound, dropped));
    if (ok) k->proved = k->bound >= target_of(k);
    dil_log(DIL_LOG_DEBUG, "path", "%zu visits on %d nodes searched: bound %.6g, plan %.6g, %llu nodes, %llu structures, %.2f s of CPU", u->n_alive, n, r.bound,
            k->best->sec, (unsigned long long)r.n_nodes, (unsigned long long)r.n_leaves, (double)clock() / CLOCKS_PER_SEC);
    free(node);
    free(run_max);
    return ok;
}

/* The weight on damage at which the cheapest way just meets the budget: a bracket, logarithms interpolated. */
typedef struct tune {
    double lo, lo_over, hi, hi_over; /* weights, and the logarithm of damage over budget there; 0: none yet */
    int left;                        /* changes that are left */
} tune;

/* Another weight for the way's damage. false: this one will do. */
static bool retune(tune *t, double damage, double budget, double *weight) {
    const double over = damage > 0 && budget > 0 ? log(damage / budget) : 0;
    if (t->left == 0 || fabs(over) < 0.005 || !(*weight > 0)) return false;
    t->left--;
    if (over > 0) {
        t->lo = *weight;
        t->lo_over = over;
    } else {
        t->hi = *weight;
        t->hi_over = over;
    }
    if (t->lo > 0 && t->hi > 0) {
        if (t->hi < 1.01 * t->lo) return false;
        *weight = exp(log(t->lo) + fmin(0.9, fmax(0.1, t->lo_over / (t->lo_over - t->hi_over))) * log(t->hi / t->lo));
    } else {
        *weight *= exp(fmin(0.7, fmax(-0.7, over)));
    }
    return true;
}

/* false: no memory. */
static bool run(px_close *k, px_use *u, px_use_way *way) {
    double before = -INFINITY; /* two passes ago */
    size_t few = FEW;
    tune t = {.left = N_TUNE};
    u->most = FIRST_MOST;
    for (int i = 0; dil_now_ns() < k->deadline_ns && u->most <= LAST_MOST; i++) {
        const double was = k->best->sec;
        int n = 0;
        if (!dil__px_use_pass(u, i & 1, limit_of(k), k->deadline_ns)) return false;
        if (u->late) break;
        const double now = seconds_of(k, u);
        k->bound = fmax(k->bound, fmin(now, target_of(k)));
        k->proved = !(now < target_of(k));
        const int learned = k->proved ? 0 : use_ways(k, u, way, &n);
        dil_log(DIL_LOG_DEBUG, "path", "pass %d: %.6g of %.6g, plan %.6g, %zu visits, %zu labels of %d a cell, learned %d, %.2f s of CPU", i, now, target_of(k),
                k->best->sec, u->n_alive, u->n_labels, u->most, learned, (double)clock() / CLOCKS_PER_SEC);
        if (k->proved) break;
        if (learned < 0) return false;
        if (i > 0 && u->n_alive <= few) {
            if (!search_rest(k, u)) return false;
            if (k->proved) break;
            few = u->n_alive / 2;
        }
        if (i % 2 == 0) continue;
        dil__px_use_worth(u, k->worth);
        if ((i == 1 || k->best->sec < was * 0.999) && k->plans && !k->plans(k->ctx)) return false;
        double weight = k->x->w.damage;
        if (n > 0 && now > NEAR * target_of(k) && retune(&t, dil__px_use_damage(u, &way[0]), k->x->c->damage_max, &weight)) {
            if (!dil__px_ng_relax(k->x, weight, k->x->w.price)) return false;
            dil__px_use_again(u, limit_of(k));
            continue;
        }
        if (now - before < 0.25 * (target_of(k) - before)) {
            if (u->n_labels > LABELS_MOST) break; /* twice as many take too much memory */
            u->most *= 2;
        }
        before = now;
    }
    return true;
}

bool dil__px_close_run(px_close *k) {
    px_use u;
    px_use_way *way = dil__px_alloc(N_WAYS, sizeof *way);
    bool ok = way && dil__px_use_init(&u, k->x, limit_of(k));
    ok = ok && run(k, &u, way);
    if (way) dil__px_use_fini(&u);
    free(way);
    return ok;
}
