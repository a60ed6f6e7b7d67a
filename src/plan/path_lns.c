/* plan/path_lns.c - better structures for many nodes: a part of the plan is taken out and put back as well as it can be.
 *
 * At one weight on damage the cost of a structure whose nodes are visited once is a sum over visits and hops. For the layers of some
 * consecutive visits the cheapest completions come from behind, nodes of the rest of the plan left out, repeats inside the window
 * allowed; then labels go forward, each with its own way and no repeats, and those above the cost at hand are dropped. With room for all labels a
 * window is solved exactly; the whole plan is a window too, with room for some. Windows slide until none improves, then a larger one
 * is perturbed. Branch exchange (2-opt) was the alternative: it does not move the cuts between visits at the same time. */
#include "plan/path_int.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ROOM = 600, SAME = 4 };

typedef struct label {
    double cost[PX_LNS_WEIGHTS]; /* by weight */
    double guess;     /* seconds that no completion within the window beats */
    uint64_t set;     /* sum of the nodes' random numbers */
    int node, first, parent;
} label;

typedef struct bucket { int *v, n, cap; } bucket;

struct px_lns {
    const px_core *c;
    const px_graph *g;
    const px_weight *w;
    int n_w;
    double outside[PX_LNS_WEIGHTS]; /* cost of the plan outside the window, less what the damage budget is worth */
    double *rest, *start; /* [n_w][L+1][S] of the window */
    bool *barred;         /* [S] nodes of the rest of the plan, and those not to be used */
    bool *shunned;        /* [S] */
    uint64_t *number;     /* [S] */
    label *pool;
    int n_pool, cap_pool;
    bucket *at;           /* [L+1] */
    int *n_same;          /* [S] labels of the node in the bucket that is read */
    px_visit *visit, *trial; /* [L] the structure at hand */
    int n_visits;
    double cost[PX_LNS_WEIGHTS], value; /* its weighted costs, and the seconds that they prove for its levels */
    int64_t cpu_until_ns, deadline_ns;
    dil_rng rng;
};

int64_t dil__px_cpu_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static bool is_over(const px_lns *x) { return dil__px_cpu_ns() >= x->cpu_until_ns || dil_now_ns() >= x->deadline_ns; }

static double visit_cost(const px_lns *x, int k, int s, int l, int n) { return x->w[k].large[px_visit_at(x->c, x->g, s, l, n)]; }
static double *row(double *v, const px_lns *x, int k, int l) {
    return v + ((size_t)k * (size_t)(x->c->n_layers + 1) + (size_t)l) * (size_t)x->c->n_nodes;
}
static double value_of(const px_lns *x, const double *cost) {
    double v = -INFINITY;
    for (int k = 0; k < x->n_w; k++) v = fmax(v, cost[k] - x->w[k].damage * x->c->damage_max);
    return v;
}

/* out = least hop + start over the nodes after s. */
PX_HOT static double least_dense(const double *restrict hop, const double *restrict start, int n) {
    double least[8] = {INFINITY, INFINITY, INFINITY, INFINITY, INFINITY, INFINITY, INFINITY, INFINITY};
    int i = 0;
    for (; i + 8 <= n; i += 8)
        for (int k = 0; k < 8; k++) {
            const double v = hop[i + k] + start[i + k];
            least[k] = v < least[k] ? v : least[k];
        }
    for (; i < n; i++) least[0] = fmin(least[0], hop[i] + start[i]);
    for (int k = 1; k < 8; k++) least[0] = fmin(least[0], least[k]);
    return least[0];
}

double dil__px_least_next(const px_core *c, int s, int layer, const double *start) {
    if (c->hop) { /* a hop to itself is no hop: looked at apart */
        const double *hop = px_hop_row(c, s, layer);
        return fmin(least_dense(hop, start, s), least_dense(hop + s + 1, start + s + 1, c->n_nodes - s - 1));
    }
    double least = INFINITY;
    for (int e = c->links->first[s]; e < c->links->first[s + 1]; e++) {
        const double v = c->links->sec[e] + start[c->links->to[e]];
        least = v < least ? v : least;
    }
    return least;
}

/* Completions of layers [a, b) that then go to `after` (-1: the sink), by the weight k. */
static void backward(px_lns *x, int k, int a, int b, int after) {
    const px_core *c = x->c;
    const int S = c->n_nodes;
    for (int s = 0; s < S; s++) row(x->rest, x, k, b)[s] = x->barred[s] ? INFINITY : after < 0 ? c->sink[s] : px_hop(c, s, after);
    for (int l = b - 1; l >= a; l--) {
        double *start = row(x->start, x, k, l), *rest = row(x->rest, x, k, l);
        for (int s = 0; s < S; s++) {
            double least = INFINITY;
            const int most = x->barred[s] ? 0 : x->g->run_max[s * c->n_layers + l];
            for (int n = 1; n <= most && l + n <= b; n++) least = fmin(least, visit_cost(x, k, s, l, n) + row(x->rest, x, k, l + n)[s]);
            start[s] = least;
        }
        for (int s = 0; l > a && s < S; s++) rest[s] = x->barred[s] ? INFINITY : dil__px_least_next(c, s, l, start);
    }
}

static bool on_way(const px_lns *x, int i, int node) {
    for (; i >= 0; i = x->pool[i].parent)
        if (x->pool[i].node == node) return true;
    return false;
}

static int by_guess(const void *p, const void *q) {
    const label *a = *(const label *const *)p, *b = *(const label *const *)q;
    return a->guess < b->guess ? -1 : a->guess > b->guess;
}

static bool push(px_lns *x, int layer, label y) {
    bucket *k = &x->at[layer];
    if (k->n == k->cap) {
        const int cap = k->cap ? 2 * k->cap : 64;
        int *v = realloc(k->v, (size_t)cap * sizeof *v);
        if (!v) return false;
        k->v = v;
        k->cap = cap;
    }
    if (x->n_pool == x->cap_pool) {
        const int cap = x->cap_pool ? 2 * x->cap_pool : 4096;
        label *v = realloc(x->pool, (size_t)cap * sizeof *v);
        if (!v) return false;
        x->pool = v;
        x->cap_pool = cap;
    }
    x->pool[x->n_pool] = y;
    k->v[k->n++] = x->n_pool++;
    return true;
}

/* The best labels of a bucket, few of one node, of equal sets the cheaper. -> their number */
static int select_labels(px_lns *x, bucket *k, int room, const label ***sorted) {
    const label **v = malloc(((size_t)k->n + 1) * sizeof *v);
    *sorted = v;
    if (!v) return -1;
    for (int i = 0; i < k->n; i++) v[i] = &x->pool[k->v[i]];
    if (k->n > 1) qsort(v, (size_t)k->n, sizeof *v, by_guess);
    int n = 0;
    for (int i = 0; i < k->n && n < room; i++) {
        bool same = false;
        if (x->n_same[v[i]->node] >= SAME) continue;
        for (int j = 0; j < n && !same; j++) same = v[j]->node == v[i]->node && v[j]->set == v[i]->set;
        if (same) continue;
        x->n_same[v[i]->node]++;
        v[n++] = v[i];
    }
    for (int i = 0; i < n; i++) x->n_same[v[i]->node] = 0;
    for (int i = 0; i < n; i++) k->v[i] = (int)(v[i] - x->pool);
    return n;
}

static bool extend_to(px_lns *x, int l, int b, int from, int t, double hop, double *limit) {
    const int most = x->g->run_max[t * x->c->n_layers + l];
    label y = {.set = (from < 0 ? 0 : x->pool[from].set) + x->number[t], .node = t, .first = l, .parent = from};
    for (int n = 1; n <= most && l + n <= b; n++) {
        y.guess = -INFINITY;
        for (int k = 0; k < x->n_w; k++) {
            y.cost[k] = (from < 0 ? 0 : x->pool[from].cost[k]) + hop + visit_cost(x, k, t, l, n);
            y.guess = fmax(y.guess, y.cost[k] + row(x->rest, x, k, l + n)[t] + x->outside[k]);
        }
        if (!(y.guess < *limit)) continue;
        if (!push(x, l + n, y)) return false;
        if (l + n == b) *limit = y.guess;
    }
    return true;
}

/* Everything that may follow one label at layer l. */
static bool extend(px_lns *x, int l, int b, int from, int before, double *limit) {
    const px_core *c = x->c;
    double so_far[PX_LNS_WEIGHTS];
    const int s = from < 0 ? before : x->pool[from].node;
    const bool dense = s < 0 || c->hop;
    const double *hops = s < 0 ? c->source : c->hop ? c->hop + (size_t)s * (size_t)c->n_nodes : NULL;
    const int lo = dense ? 0 : c->links->first[s], hi = dense ? c->n_nodes : c->links->first[s + 1];
    for (int k = 0; k < x->n_w; k++) so_far[k] = (from < 0 ? 0 : x->pool[from].cost[k]) + x->outside[k];
    for (int e = lo; e < hi; e++) {
        const int t = dense ? e : c->links->to[e];
        const double hop = dense ? hops[e] : c->links->sec[e];
        bool may = t != s;
        for (int k = 0; k < x->n_w && may; k++) may = so_far[k] + hop + row(x->start, x, k, l)[t] < *limit;
        if (!may || on_way(x, from, t)) continue;
        if (!extend_to(x, l, b, from, t, hop, limit)) return false;
    }
    return true;
}

/* The cheapest visits found for layers [a, b) between two nodes (-1: the ends), below limit; 0: none, -1: no memory. */
static int solve_window(px_lns *x, int a, int b, int before, int after, double *limit, int room, px_visit *out) {
    x->n_pool = 0;
    for (int l = a; l <= b; l++) x->at[l].n = 0;
    for (int k = 0; k < x->n_w; k++) backward(x, k, a, b, after);
    if (!extend(x, a, b, -1, before, limit)) return -1;
    for (int l = a + 1; l < b; l++) {
        const label **v = NULL;
        const int n = select_labels(x, &x->at[l], room, &v);
        free((void *)v);
        if (n < 0) return -1;
        for (int i = 0; i < n; i++)
            if (x->pool[x->at[l].v[i]].guess < *limit && !extend(x, l, b, x->at[l].v[i], before, limit)) return -1;
    }
    if (x->at[b].n == 0) return 0;
    int i = x->at[b].v[x->at[b].n - 1], n = 0; /* each below the one before */
    for (int j = i; j >= 0; j = x->pool[j].parent) n++;
    for (int last = b, j = n; i >= 0; i = x->pool[i].parent) {
        out[--j] = (px_visit){x->pool[i].node, x->pool[i].first, last - x->pool[i].first, false};
        last = x->pool[i].first;
    }
    return n;
}

/* Cost of the visits [from, to) with the hops to, between and after them. */
static double cost_of(const px_lns *x, int k, int from, int to) {
    const px_core *c = x->c;
    const px_visit *v = x->visit;
    double cost = 0;
    for (int i = from; i < to; i++)
        cost += (i == 0 ? c->source[v[i].node] : px_hop(c, v[i - 1].node, v[i].node)) + visit_cost(x, k, v[i].node, v[i].first, v[i].n);
    if (to > from) cost += to == x->n_visits ? c->sink[v[to - 1].node] : px_hop(c, v[to - 1].node, v[to].node);
    return cost;
}

static void note_costs(px_lns *x) {
    for (int k = 0; k < x->n_w; k++) x->cost[k] = cost_of(x, k, 0, x->n_visits);
    x->value = value_of(x, x->cost);
}

/* Visits [from, to) taken out and put back; limit: what the value may be. 1: changed, 0: not, -1: no memory. */
static int improve(px_lns *x, int from, int to, double limit, int room) {
    const int n_old = x->n_visits, a = x->visit[from].first, b = to == n_old ? x->c->n_layers : x->visit[to].first;
    memcpy(x->barred, x->shunned, (size_t)x->c->n_nodes * sizeof *x->barred);
    for (int i = 0; i < n_old; i++)
        if (i < from || i >= to) x->barred[x->visit[i].node] = true;
    for (int k = 0; k < x->n_w; k++) x->outside[k] = x->cost[k] - cost_of(x, k, from, to) - x->w[k].damage * x->c->damage_max;
    const int n = solve_window(x, a, b, from == 0 ? -1 : x->visit[from - 1].node, to == n_old ? -1 : x->visit[to].node, &limit, room, x->trial);
    if (n <= 0) return n;
    memmove(x->visit + from + n, x->visit + to, (size_t)(n_old - to) * sizeof *x->visit);
    memcpy(x->visit + from, x->trial, (size_t)n * sizeof *x->visit);
    x->n_visits = n_old - (to - from) + n;
    note_costs(x);
    return 1;
}

/* Windows of `width` visits, from the first to the last, until none gets better. */
static int slide(px_lns *x, int width) {
    int changed = 0, since = 0;
    for (int i = 0; since <= x->n_visits && !is_over(x); i++, since++) {
        if (i + 1 >= x->n_visits) i = 0;
        const int to = i + width < x->n_visits ? i + width : x->n_visits;
        const int rc = improve(x, i, to, x->value * (1 - 1e-9), ROOM);
        if (rc < 0) return -1;
        if (rc > 0) {
            changed = 1;
            since = 0;
        }
    }
    return changed;
}

static void adopt(px_lns *x, const px_plan *from) {
    x->n_visits = 0;
    for (int l = 0; l < x->c->n_layers; l++) {
        if (l == 0 || from->node[l] != from->node[l - 1]) x->visit[x->n_visits++] = (px_visit){from->node[l], l, 0, false};
        x->visit[x->n_visits - 1].n++;
    }
    note_costs(x);
}

static bool round_visits(px_lns *x, px_plan *best) {
    int node[1024];
    for (int i = 0; i < x->n_visits; i++)
        for (int l = 0; l < x->visit[i].n; l++) node[x->visit[i].first + l] = x->visit[i].node;
    double w = x->w[0].damage > 0 ? x->w[0].damage : 1e-6;
    return dil__px_round_well(x->c, node, w, best);
}

px_lns *dil__px_lns_new(const px_core *c, const px_graph *g, const px_weight *w, int n_w, uint64_t seed) {
    const size_t L = (size_t)c->n_layers, S = (size_t)c->n_nodes;
    px_lns *x = dil__px_alloc(1, sizeof *x);
    if (!x) return NULL;
    x->c = c;
    x->g = g;
    x->w = w;
    x->n_w = n_w;
    x->rest = dil__px_alloc((size_t)n_w * (L + 1) * S, sizeof *x->rest);
    x->start = dil__px_alloc((size_t)n_w * (L + 1) * S, sizeof *x->start);
    x->barred = dil__px_alloc(2 * S, sizeof *x->barred);
    x->shunned = x->barred + S;
    x->number = dil__px_alloc(S, sizeof *x->number);
    x->at = dil__px_alloc(L + 1, sizeof *x->at);
    x->n_same = dil__px_alloc(S, sizeof *x->n_same);
    x->visit = dil__px_alloc(3 * L, sizeof *x->visit);
    x->trial = x->visit + L;
    if (!x->rest || !x->start || !x->barred || !x->number || !x->at || !x->n_same || !x->visit) {
        dil__px_lns_free(x);
        return NULL;
    }
    dil_rng_init(&x->rng, seed);
    for (size_t s = 0; s < S; s++) x->number[s] = dil_rng_u64(&x->rng);
    return x;
}

void dil__px_lns_free(px_lns *x) {
    if (!x) return;
    for (int l = 0; x->at && l <= x->c->n_layers; l++) free(x->at[l].v);
    free(x->rest);
    free(x->start);
    free(x->barred);
    free(x->number);
    free(x->at);
    free(x->n_same);
    free(x->visit);
    free(x->pool);
    free(x);
}

/* A window around a random visit, put back without one of its nodes: a way out of a local optimum. */
static int perturb(px_lns *x) {
    const int width = x->n_visits < 4 ? x->n_visits : 4;
    const int i = (int)dil_rng_below(&x->rng, (uint64_t)(x->n_visits - width + 1));
    const int out = x->visit[i + (int)dil_rng_below(&x->rng, (uint64_t)width)].node;
    x->shunned[out] = true;
    const int rc = improve(x, i, i + width, INFINITY, 60);
    x->shunned[out] = false;
    return rc;
}

bool dil__px_lns_run(px_lns *x, px_plan *best, int n_perturb, int64_t cpu_until_ns, int64_t deadline_ns) {
    px_visit *kept = x->visit + 2 * x->c->n_layers;
    x->cpu_until_ns = cpu_until_ns;
    x->deadline_ns = deadline_ns;
    if (!best->found) return true;
    adopt(x, best);
    const double first = x->value;
    if (x->value < INFINITY && slide(x, 4) < 0) return false;
    round_visits(x, best);
    dil_log(DIL_LOG_DEBUG, "path", "windows: %.6g -> %.6g, best %.6g", first, x->value, best->sec);
    for (int i = 0; i < n_perturb && !is_over(x); i++) {
        const int n_kept = x->n_visits;
        const double value = x->value, was = best->sec;
        memcpy(kept, x->visit, (size_t)n_kept * sizeof *kept);
        if (perturb(x) < 0 || slide(x, 4) < 0) return false;
        if (x->value < best->sec) round_visits(x, best);
        if (best->sec < was) dil_log(DIL_LOG_DEBUG, "path", "windows %d: %.6g, best %.6g", i, x->value, best->sec);
        if (x->value <= value) continue;
        memcpy(x->visit, kept, (size_t)n_kept * sizeof *kept);
        x->n_visits = n_kept;
        note_costs(x);
    }
    return true;
}

bool dil__px_lns_beam(px_lns *x, px_plan *best, int room) {
    memset(x->barred, 0, (size_t)x->c->n_nodes * sizeof *x->barred);
    double limit = best->found ? best->sec : INFINITY;
    for (int k = 0; k < x->n_w; k++) x->outside[k] = -x->w[k].damage * x->c->damage_max;
    const int n = solve_window(x, 0, x->c->n_layers, -1, -1, &limit, room, x->trial);
    if (n <= 0) return n == 0;
    memcpy(x->visit, x->trial, (size_t)n * sizeof *x->visit);
    x->n_visits = n;
    note_costs(x);
    round_visits(x, best);
    return true;
}
