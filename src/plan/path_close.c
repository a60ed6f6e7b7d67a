/* plan/path_close.c - passes of path_use.h from both ends in turn, until no way below the target is left.
 *
 * Each pass is cut by what the one before it found from the other side, so that labels become few and their number may grow where the bound stands
 * still. Between passes the cheapest ways teach cells whom to remember, and are rounded to plans. Prices of bytes are left out: they are paid back
 * in every region of a network, while stores that fill up cost a way nothing elsewhere. */
#include "plan/path_use.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { FIRST_MOST = 128, LAST_MOST = 4096, N_WAYS = 64, N_ROUND = 12, N_TUNE = 6, LABELS_MOST = 10000000, FEW = 200, FEW_LAST = 1500, FEW_NODES = 200000, PRIME = 10, N_TARGETS = 8, CLIMB_PASSES = 8 };

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
static double limit_of(const px_close *k, double sec) { return px_limit(k->x->c, &k->x->w, sec); }
static double seconds_of(const px_close *k, const px_use *u) { return px_seconds(k->x->c, &k->x->w, u->least); }

/* Whole structures of the visits that are left, settled exactly: what one weight on damage cannot tell apart. false: no memory. */
static bool search_rest(px_close *k, const px_use *u) {
    const px_core *c = k->x->c;
    const int L = c->n_layers, S = c->n_nodes;
    int *node = dil__px_alloc((size_t)S, sizeof *node), *run_max = dil__px_alloc((u->n_alive + (size_t)L) * (size_t)L, sizeof *run_max), n = 0;
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

/* Passes at one target, and what is known of the last two of them. */
typedef struct goal {
    double sec;      /* the target, unless the plan's is less */
    bool last;       /* it is the plan's */
    double before;   /* the bound then */
    size_t visits, few; /* left then; worth a search */
    px_tune tune;
} goal;

/* Whether more passes would say no more. More labels are allowed where the bound hardly moves. */
static bool stands_still(goal *g, px_use *u, double now, double target, int learned) {
    const bool slow = now - g->before < 0.25 * (target - g->before), stuck = learned == 0 && (double)u->n_alive > 0.97 * (double)g->visits;
    g->before = now;
    g->visits = u->n_alive;
    if (!slow || !u->melted || u->most >= LAST_MOST || u->n_labels > LABELS_MOST) return slow && stuck;
    u->most *= 2;
    return false;
}

/* After a pass from the end at the last target: plans, and the weight on damage. *again: it was changed. false: no memory. */
static bool look_around(px_close *k, px_use *u, goal *g, const px_use_way *way, bool plans, double now, bool *again) {
    double weight = k->x->w.damage;
    *again = false;
    dil__px_use_worth(u, k->worth);
    if (plans && k->plans && !k->plans(k->ctx)) return false;
    if (!way || !(now > NEAR * target_of(k)) || !dil__px_retune(&g->tune, dil__px_use_damage(u, way), k->x->c->damage_max, 0.005, &weight)) return true;
    if (!dil__px_ng_relax(k->x, weight, k->x->w.price)) return false;
    dil__px_use_again(u, limit_of(k, target_of(k)));
    *again = true;
    return true;
}

/* false: no memory. */
static bool run(px_close *k, px_use *u, px_use_way *way, double sec, bool last) {
    const int L = k->x->c->n_layers;
    goal g = {.sec = sec, .last = last, .before = -INFINITY, .few = FEW, .tune = {.left = N_TUNE}};
    u->most = FIRST_MOST;
    for (int i = 0; dil_now_ns() < k->deadline_ns && (last || i < CLIMB_PASSES); i++) {
        const double was = k->best->sec, target = fmin(g.sec, target_of(k));
        int n = 0;
        bool again = false;
        if (!dil__px_use_pass(u, i & 1, i & 1 ? 0 : i == 0 ? L / 2 : L, limit_of(k, target), k->deadline_ns)) return false;
        if (u->late) break;
        const double now = seconds_of(k, u);
        k->bound = fmax(k->bound, fmin(now, target));
        k->proved = !(now < target_of(k));
        const bool done = !(now < target);
        if (!done && !dil__px_use_forget(u)) return false;
        const int learned = done ? 0 : use_ways(k, u, way, &n);
        dil_log(DIL_LOG_DEBUG, "path", "pass %d: %.6g of %.6g, plan %.6g, %zu visits, %zu labels of %d a cell, learned %d, %.2f s of CPU", i, now, target,
                k->best->sec, u->n_alive, u->n_labels, u->most, learned, (double)clock() / CLOCKS_PER_SEC);
        if (learned < 0) return false;
        if (done) break;
        if (last && i > 0 && u->n_alive <= g.few) {
            if (!search_rest(k, u)) return false;
            if (k->proved) break;
            g.few = u->n_alive / 2;
        }
        if (i % 2 == 0) continue;
        if (last && !look_around(k, u, &g, n > 0 ? way : NULL, i == 1 || k->best->sec < was * 0.999, now, &again)) return false;
        if (again || !stands_still(&g, u, now, target, learned)) continue;
        return !last || u->n_alive > FEW_LAST || search_rest(k, u);
    }
    return true;
}

/* Targets from the bound up towards the plan's: below a low one few ways are left, so that it is soon proved. false: no memory. */
static bool climb(px_close *k, px_use *u, px_use_way *way) {
    const double low = px_seconds(k->x->c, &k->x->w, k->x->w.root), step = (target_of(k) - low) / N_TARGETS;
    if (!dil__px_use_prime(u, PRIME)) return false;
    for (int i = 1; i < N_TARGETS && step > 0 && !u->late; i++) {
        dil__px_use_revive(u, limit_of(k, low + i * step));
        if (!run(k, u, way, low + i * step, false)) return false;
    }
    dil__px_use_revive(u, limit_of(k, target_of(k)));
    return true;
}

bool dil__px_close_run(px_close *k) {
    px_use u;
    px_use_way *way = dil__px_alloc(N_WAYS, sizeof *way);
    bool ok = way && dil__px_use_init(&u, k->x, limit_of(k, target_of(k)));
    if (ok && k->few_links) ok = climb(k, &u, way);
    ok = ok && run(k, &u, way, INFINITY, true);
    if (way) dil__px_use_fini(&u);
    free(way);
    return ok;
}
