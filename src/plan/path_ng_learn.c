/* plan/path_ng_learn.c - what the cells of path_ng.h remember: from cycles of ways, and with few links the attractive nodes around. */
#include "plan/path_ng_int.h"

#include <stdlib.h>

enum { SPREAD = 2, NEAR_MOST = 16 };

static bool remembers(const px_ng *x, int l, int s, int node) { return ng_bit_of(x, ng_cell(x, l, s), node) != 0; }

static void teach(void *to, int l, int s, int node) {
    px_ng *x = to;
    const size_t k = ng_cell(x, l, s);
    if (l >= x->c->n_layers || (!x->ends[k] && ng_reach(x, l, s) == 0) || ng_bit_of(x, k, node) || x->n_memory[k] == PX_NG_MEMORY) return;
    x->memory[k * PX_NG_MEMORY + x->n_memory[k]++] = node;
    x->stale = true;
}

/* The cells of one visit, and those some layers aside, so that the same cycle a little shifted is no news. */
static void teach_around(px_ng *x, int l, int s, int node) {
    teach(x, l, s, node);
    for (int d = 1; d <= SPREAD; d++) {
        if (l - d > 0 && x->n_memory[ng_cell(x, l - d, s)] < PX_NG_MEMORY / 2) teach(x, l - d, s, node);
        if (l + d < x->c->n_layers && x->n_memory[ng_cell(x, l + d, s)] < PX_NG_MEMORY / 2) teach(x, l + d, s, node);
    }
}

int dil__px_ng_learn(px_ng *x) {
    int learned = 0;
    for (int j = 1; j < x->n_visits; j++) {
        const px_visit *v = x->visit;
        const int node = v[j].node;
        int i = j - 1;
        if (v[j].small) continue;
        while (i >= 0 && (v[i].node != node || v[i].small)) i--;
        if (i < 0) continue;
        bool room = true;
        for (int k = i + 1; k <= j && room; k++) {
            const int before = v[k - 1].node, now = v[k].node, l = v[k].first;
            room = (remembers(x, l, before, node) || x->n_memory[ng_cell(x, l, before)] < PX_NG_MEMORY) &&
                   (remembers(x, l, now, node) || x->n_memory[ng_cell(x, l, now)] < PX_NG_MEMORY);
        }
        if (!room) continue;
        for (int k = i + 1; k <= j; k++) {
            teach_around(x, v[k].first, v[k - 1].node, node);
            teach_around(x, v[k].first, v[k].node, node);
        }
        learned++;
    }
    return learned;
}

/* Keeps s and the most attractive nodes around in list. */
typedef struct near { double cost; int node; } near;

static void note_near(near *v, int *n, int most, near y) {
    if (*n == most && y.cost >= v[*n - 1].cost) return;
    int i = *n < most ? (*n)++ : *n - 1;
    for (; i > 0 && v[i - 1].cost > y.cost; i--) v[i] = v[i - 1];
    v[i] = y;
}

void dil__px_ng_least(const px_ng *x, double *cost) {
    const int L = x->c->n_layers, S = x->c->n_nodes;
    for (int s = 0; s < S; s++) {
        cost[s] = INFINITY;
        for (int l = 0; l < L; l++) cost[s] = fmin(cost[s], x->from0[ng_cell(x, l, s)] + x->start0[ng_cell(x, l, s)]);
    }
}

/* The `most` nodes (NEAR_MOST at most) up to two links from s that cost least, into node -> their number. seen [S]: zeros at first, then left alone. */
static int near_nodes(const px_core *c, int s, const double *cost, int *seen, int most, int *node) {
    const px_links *k = c->links;
    near v[NEAR_MOST];
    int n = 0;
    if (most > NEAR_MOST) most = NEAR_MOST;
    seen[s] = s + 1;
    for (int e = k->first[s]; most > 0 && e < k->first[s + 1]; e++)
        for (int f = k->first[k->to[e]] - 1; f < k->first[k->to[e] + 1]; f++) {
            const int t = f < k->first[k->to[e]] ? k->to[e] : k->to[f];
            if (seen[t] == s + 1) continue;
            seen[t] = s + 1;
            if (cost[t] < INFINITY) note_near(v, &n, most, (near){cost[t], t});
        }
    for (int i = 0; i < n; i++) node[i] = v[i].node;
    return n;
}

bool dil__px_teach_near(const px_ng *x, int most, px_teach *teach_one, void *to) {
    const int L = x->c->n_layers, S = x->c->n_nodes;
    double *cost = dil__px_alloc((size_t)S, sizeof *cost);
    int *seen = dil__px_alloc((size_t)S, sizeof *seen);
    const bool ok = cost && seen;
    if (ok) dil__px_ng_least(x, cost);
    for (int s = 0; ok && s < S; s++) {
        int node[NEAR_MOST];
        const int n = near_nodes(x->c, s, cost, seen, most - 1, node);
        for (int l = 1; l < L; l++) {
            teach_one(to, l, s, s);
            for (int i = 0; i < n; i++) teach_one(to, l, s, node[i]);
        }
    }
    free(cost);
    free(seen);
    return ok;
}

bool dil__px_ng_prime(px_ng *x, int most) { return dil__px_teach_near(x, most, teach, x); }
