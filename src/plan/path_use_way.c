/* plan/path_use_way.c - the cheapest ways of two passes of path_use.h, what they are worth, and what cells learn from them. */
#include "plan/path_use_int.h"

#include <limits.h>
#include <stdlib.h>

enum { SPREAD = 2 };

/* --- ways --- */

/* The visits of the label and those before it, in the order of the pass, from *n on. */
static void follow(const px_use *u, int dir, int b, int s, int at, px_visit *v, int *n) {
    while (s >= 0) {
        const px_use_label *y = &u->list[dir][use_cell(u, b, s)].v[at];
        v[(*n)++] = (px_visit){s, dir ? b : b - y->n, y->n, false};
        b += dir ? y->n : -y->n;
        s = y->from_node;
        at = y->from_at;
    }
}

static void reverse(px_visit *v, int n) {
    for (int i = 0, j = n - 1; i < j; i++, j--) {
        const px_visit t = v[i];
        v[i] = v[j];
        v[j] = t;
    }
}

typedef struct join { double cost; int b, t, front_node, front_at, back_at; } join;

static void note_join(join *v, int *n, int most, join y) {
    if (*n == most && y.cost >= v[*n - 1].cost) return;
    int i = *n < most ? (*n)++ : *n - 1;
    for (; i > 0 && v[i - 1].cost > y.cost; i--) v[i] = v[i - 1];
    v[i] = y;
}

/* The cheapest way whose visit at the boundary b begins on t. */
static bool join_at(px_use *u, int b, int t, px_use_list *start, join *out) {
    const size_t k = use_cell(u, b, t);
    const px_use_list *back = &u->list[1][k];
    *out = (join){.cost = INFINITY, .b = b, .t = t};
    if (back->n == 0) return true;
    if (!dil__px_use_gather(u, 0, b, t, start)) return false;
    for (int i = 0; i < start->n; i++)
        for (int j = 0; j < back->n && start->v[i].cost + back->v[j].cost < out->cost; j++) {
            const double cost = start->v[i].cost + back->v[j].cost + dil__px_use_overrun(u, k, start->v[i].used, back->v[j].used);
            if (cost < out->cost) *out = (join){cost, b, t, start->v[i].from_node, start->v[i].from_at, j};
        }
    return true;
}

bool dil__px_use_ways(px_use *u, int most, px_use_way *way, int *n_ways) {
    const int L = u->x->c->n_layers, S = u->x->c->n_nodes;
    join v[PX_USE_WAYS];
    int n = 0;
    px_use_list start = {0};
    bool ok = true;
    for (int b = 0; ok && b < L; b += L / 4 > 0 ? L / 4 : 1)
        for (int t = 0; t < S && ok && (b == 0 || use_known(u, 0, b)) && use_known(u, 1, b); t++) {
            join y;
            ok = join_at(u, b, t, &start, &y);
            if (ok && y.cost <= u->limit) note_join(v, &n, most < PX_USE_WAYS ? most : PX_USE_WAYS, y);
        }
    free(start.v);
    for (int i = 0; ok && i < n; i++) {
        way[i].n = 0;
        way[i].cost = v[i].cost;
        if (v[i].b > 0) follow(u, 0, v[i].b, v[i].front_node, v[i].front_at, way[i].visit, &way[i].n);
        reverse(way[i].visit, way[i].n);
        follow(u, 1, v[i].b, v[i].t, v[i].back_at, way[i].visit, &way[i].n);
    }
    *n_ways = ok ? n : 0;
    return ok;
}

void dil__px_use_worth(const px_use *u, double *worth) {
    const int L = u->x->c->n_layers, S = u->x->c->n_nodes;
    for (int s = 0; s < S; s++) {
        worth[s] = INFINITY;
        for (int b = 0; b < L; b++) worth[s] = fmin(worth[s], use_cheapest(&u->list[1][use_cell(u, b, s)]) + (b > 0 ? u->near[use_cell(u, b, s)] : u->x->c->source[s]));
    }
}

double dil__px_use_damage(const px_use *u, const px_use_way *y) {
    const px_core *c = u->x->c;
    double damage = 0;
    int layers[1024], level[1024];
    for (int i = 0; i < y->n; i++) {
        const px_visit *v = &y->visit[i];
        for (int l = 0; l < v->n; l++) layers[l] = v->first + l;
        const px_group g = {v->node, v->n, layers};
        if (!dil__px_group_levels(c, &u->x->w, &g, dil__px_room(c, v->node, layers, 0, v->n), 4 * u->x->w.n_units, level)) return 0;
        for (int l = 0; l < v->n; l++) damage += px_damage(c, layers[l], level[l]);
    }
    return damage;
}

/* --- learning --- */

/* Of a cell's entries those of nodes that are visited on both sides of it: ends [S] before it, starts [S] from it on. */
static void forget_at(px_use *u, int b, size_t k, const int *ends, const int *starts) {
    int *m = u->memory + k * PX_USE_MEMORY, shift[PX_USE_MEMORY], n = 0;
    for (int i = 0; i < u->n_memory[k]; i++) {
        shift[i] = ends[m[i]] <= b && b <= starts[m[i]] ? USE_BITS * n : -1;
        if (shift[i] >= 0) m[n++] = m[i];
    }
    if (n == u->n_memory[k]) return;
    for (int d = 0; d < 2; d++)
        for (int i = 0; i < u->list[d][k].n; i++) u->list[d][k].v[i].used = dil__px_use_carry(u->list[d][k].v[i].used, shift);
    u->n_memory[k] = (uint8_t)n;
}

bool dil__px_use_forget(px_use *u) {
    const int L = u->x->c->n_layers, S = u->x->c->n_nodes;
    int *ends = dil__px_alloc(2 * (size_t)S, sizeof *ends), *starts = ends + S;
    if (!ends) return false;
    for (int s = 0; s < S; s++) {
        ends[s] = INT_MAX;
        starts[s] = -1;
        for (int l = 0; l < L; l++)
            for (int n = 1; n <= u->x->g.run_cap && l + n <= L; n++) {
                if (!u->alive[use_visit_at(u, s, l, n)]) continue;
                if (l + n < ends[s]) ends[s] = l + n;
                starts[s] = l;
            }
    }
    for (int b = 1; b < L; b++)
        for (int s = 0; s < S; s++) forget_at(u, b, use_cell(u, b, s), ends, starts);
    free(ends);
    return true;
}

static bool can_learn(const px_use *u, int b, int s, int node) {
    const size_t k = use_cell(u, b, s);
    return dil__px_use_entry(u, k, node) >= 0 || u->n_memory[k] < PX_USE_MEMORY;
}

static bool teach(px_use *u, int b, int s, int node) {
    const size_t k = use_cell(u, b, s);
    if (b <= 0 || b >= u->x->c->n_layers || dil__px_use_entry(u, k, node) >= 0 || u->n_memory[k] == PX_USE_MEMORY) return false;
    u->memory[k * PX_USE_MEMORY + u->n_memory[k]++] = node;
    return true;
}

static void teach_cell(void *to, int b, int s, int node) { teach(to, b, s, node); }

bool dil__px_use_prime(px_use *u, int most) { return dil__px_teach_near(u->x, most, teach_cell, u); }

/* The cells from visit i to visit j of the way, and those some layers aside while they have room. */
static int teach_between(px_use *u, const px_use_way *y, int i, int j) {
    const int node = y->visit[j].node;
    int learned = 0;
    for (int k = i + 1; k <= j; k++)
        for (int d = -SPREAD; d <= SPREAD; d++)
            for (int e = 0; e < 2; e++) {
                const int s = y->visit[k - e].node, b = y->visit[k].first + d;
                if (b <= 0 || b >= u->x->c->n_layers || (d != 0 && u->n_memory[use_cell(u, b, s)] > PX_USE_MEMORY / 2)) continue;
                learned += teach(u, b, s, node);
            }
    return learned;
}

int dil__px_use_learn(px_use *u, const px_use_way *y) {
    int learned = 0;
    for (int j = 1; j < y->n; j++) {
        const int s = y->visit[j].node;
        double sum = 0;
        int i = -1;
        for (int k = 0; k <= j; k++) {
            const px_visit *v = &y->visit[k];
            const double *g = u->priced + (size_t)s * (size_t)(u->x->c->n_layers + 1);
            if (v->node != s) continue;
            if (k < j) i = k;
            sum += fmax(0, g[v->first + v->n] - g[v->first] - u->x->w.large[use_visit_at(u, s, v->first, v->n)]);
        }
        if (i < 0 || !(sum > u->full[s])) continue;
        bool room = true;
        for (int k = i + 1; k <= j && room; k++) room = can_learn(u, y->visit[k].first, y->visit[k - 1].node, s) && can_learn(u, y->visit[k].first, y->visit[k].node, s);
        if (room) learned += teach_between(u, y, i, j);
    }
    return learned;
}
