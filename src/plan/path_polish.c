/* plan/path_polish.c - nearly the best levels of a structure, in milliseconds.
 *
 * Every node has its front of (damage, seconds) within some slack of the best weight on damage (path_level.c); one point of every
 * front is then chosen by a knapsack over damage, counted in units and rounded up, so that what comes out is within the budget.
 * The exact choice (path_leaf.c) sums the fronts without units: with a dozen nodes and no near target its sums explode. */
#include "plan/path_int.h"

#include <stdlib.h>
#include <string.h>

enum { DAMAGE_UNITS = 8192, GROUPS_MAX = 1024 };

typedef struct polish {
    const px_core *c;
    const px_group *group;
    px_front *front;
    int n;
    double *v;       /* [2][DAMAGE_UNITS + 1] seconds */
    uint16_t *pick;  /* [n][DAMAGE_UNITS + 1] */
} polish;

/* The damage that every front has at least is taken off the budget, so that the units count what is left to choose. */
static bool choose(polish *p, int *choice) {
    enum { K = DAMAGE_UNITS };
    double room = px_budget(p->c);
    for (int i = 0; i < p->n; i++) {
        if (p->front[i].n == 0) return false;
        room -= p->front[i].damage[0];
    }
    if (room < 0) return false;
    const double unit = room / K;
    double *now = p->v, *next = p->v + K + 1;
    for (int u = 0; u <= K; u++) now[u] = 0;
    for (int i = 0; i < p->n; i++) {
        const px_front *f = &p->front[i];
        uint16_t *pick = p->pick + (size_t)i * (K + 1);
        for (int u = 0; u <= K; u++) next[u] = INFINITY;
        for (int j = 0; j < f->n && j < UINT16_MAX; j++) {
            const double over = f->damage[j] - f->damage[0];
            if (over > room) break;
            const int units = unit > 0 ? (int)ceil(over / unit) : 0;
            for (int u = units; u <= K; u++) {
                const double x = now[u - units] + f->sec[j];
                if (x < next[u]) {
                    next[u] = x;
                    pick[u] = (uint16_t)j;
                }
            }
        }
        double *t = now;
        now = next;
        next = t;
    }
    if (!(now[K] < INFINITY)) return false;
    for (int i = p->n - 1, u = K; i >= 0; i--) {
        const px_front *f = &p->front[i];
        choice[i] = p->pick[(size_t)i * (K + 1) + (size_t)u];
        u -= unit > 0 ? (int)ceil((f->damage[choice[i]] - f->damage[0]) / unit) : 0;
    }
    return true;
}

static void adopt(const polish *p, const int *node, const int *choice, px_plan *best) {
    int level[GROUPS_MAX];
    for (int i = 0; i < p->n; i++)
        for (int k = 0; k < p->group[i].n; k++)
            level[p->group[i].layer[k]] = p->front[i].level[(size_t)choice[i] * (size_t)p->group[i].n + (size_t)k];
    double sec, damage;
    if (!dil__px_evaluate(p->c, node, level, &sec, &damage) || damage > px_budget(p->c) || (best->found && sec >= best->sec)) return;
    dil__px_take(best, p->c->n_layers, node, level, sec, damage);
}

bool dil__px_polish(const px_core *c, const int *node, double w_damage, double slack, px_plan *best) {
    const size_t L = (size_t)c->n_layers;
    if (L > GROUPS_MAX || c->real) return true; /* budgets beyond a bare problem's are dil__px_round's business */
    polish p = {.c = c};
    const px_weight w = {.sec = 1, .damage = w_damage, .n_units = 512};
    px_group *group = dil__px_alloc(L, sizeof *group);
    int *ints = dil__px_alloc(2 * L, sizeof *ints);
    p.front = dil__px_alloc(L, sizeof *p.front);
    p.v = dil__px_alloc(2 * (DAMAGE_UNITS + 1), sizeof *p.v);
    bool ok = group && ints && p.front && p.v;
    if (ok) {
        p.group = group;
        p.n = dil__px_groups(c, node, group, ints);
        p.pick = dil__px_alloc((size_t)p.n * (DAMAGE_UNITS + 1), sizeof *p.pick);
        ok = p.pick != NULL;
    }
    for (int i = 0; ok && i < p.n; i++) ok = dil__px_front_build(c, &w, &group[i], slack, INT64_MAX, &p.front[i]);
    if (ok && choose(&p, ints + L)) adopt(&p, node, ints + L, best);
    for (int i = 0; p.front && i < p.n; i++) dil__px_front_fini(&p.front[i]);
    free(p.pick);
    free(p.v);
    free(p.front);
    free(ints);
    free(group);
    return ok;
}

bool dil__px_round_well(const px_core *c, const int *node, double w_damage, px_plan *best) {
    const size_t L = (size_t)c->n_layers;
    int *ints = dil__px_alloc(2 * L, sizeof *ints);
    if (!ints) return false;
    px_plan own = {.node = ints, .level = ints + L};
    bool ok = true;
    if (dil__px_round(c, node, &w_damage, &own) && (!best->found || own.sec < 1.01 * best->sec))
        ok = dil__px_polish(c, node, w_damage, 0.01 * own.sec, &own);
    if (own.found && (!best->found || own.sec < best->sec)) dil__px_take(best, c->n_layers, own.node, own.level, own.sec, own.damage);
    free(ints);
    return ok;
}
