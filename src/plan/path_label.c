/* plan/path_label.c - the exact levels of one structure of a measured problem.
 *
 * Label setting over the layers, group after group. A label is what a choice of levels so far costs and takes: seconds, damage, file
 * bytes; bytes, load and chunk seconds of the group at hand; the slowest group done. It goes when its priced cost and the cheapest
 * priced levels of what follows pass the limit, or when another label is no worse in everything that still counts. A quantity counts
 * only while its budget could still bind. */
#include "plan/path_fit.h"

#include <stdlib.h>
#include <string.h>

enum { V_COST, V_DAMAGE, V_FILE, V_BYTES, V_LOAD, V_CHUNK, V_SLOWEST, V_N, N_Y = 2, LABELS_MAX = 300000, ONE_BY_ONE_MAX = 30000 };

#define SAME 1e-13 /* of a quantity's size: sums of the same terms in another order */

typedef struct label {
    double v[V_N], priced[N_Y];
    double byte_price; /* of priced[0] */
    uint32_t parent;
    uint8_t level;
} label;

typedef struct labels {
    label *v;
    size_t n, cap;
} labels;

typedef struct run {
    px_fit *f;
    const pf_prices *y[N_Y];
    int n_y;
    double limit[N_Y];       /* of priced sums */
    double room_limit[PF_ROOMS];
    double *least[N_Y];      /* [L] cheapest priced item of a layer */
    double *rest[N_Y];       /* [L+1] of the positions from i on */
    double *most[PF_N];      /* [L+1] most that the positions from i on can take of damage and file; of the group's bytes, load, chunk */
    double same[V_N];
    double upper;
    int64_t deadline_ns;
} run;

static bool reserve(labels *a, size_t n) {
    if (n <= a->cap) return true;
    size_t cap = a->cap ? 2 * a->cap : 256;
    while (cap < n) cap *= 2;
    label *p = realloc(a->v, cap * sizeof *p);
    if (!p) return false;
    a->v = p;
    a->cap = cap;
    return true;
}

double dil__fit_limit(const px_fit *f, const pf_prices *y, double upper) {
    double v = y->base_damage > 0 ? f->cap_damage : upper - f->fixed;
    if (f->cap_damage < INFINITY) v += y->damage * f->cap_damage;
    if (f->cap_file < INFINITY) v += y->file * f->cap_file;
    v -= y->link_chunk * f->link_chunk;
    for (int g = 0; g < f->n_groups; g++) {
        const double *n = y->node[f->group[g].node];
        v += n[PF_BYTES] * f->group[g].cap[PF_BYTES];
        if (f->real->load_max < INFINITY) v += n[PF_LOAD] * f->group[g].cap[PF_LOAD];
    }
    return v + 1e-12 * fabs(v);
}

static bool prepare(run *r) {
    px_fit *f = r->f;
    const int L = f->c->n_layers;
    double *v = dil__px_alloc((size_t)(2 * N_Y + PF_N) * (size_t)(L + 1), sizeof *v);
    if (!v) return false;
    for (int k = 0; k < N_Y; k++) {
        r->least[k] = v + (2 * k) * (L + 1);
        r->rest[k] = v + (2 * k + 1) * (L + 1);
    }
    for (int k = 0; k < PF_N; k++) r->most[k] = v + (2 * N_Y + k) * (L + 1);
    dil__fit_room_limits(f, r->y[0], r->upper, r->room_limit);
    for (int k = 0; k < r->n_y; k++) {
        r->limit[k] = dil__fit_limit(f, r->y[k], r->upper);
        for (int i = L - 1; i >= 0; i--) {
            const int l = f->order[i], node = f->group[f->group_of[l]].node;
            double least = INFINITY;
            for (int j = f->first[l]; j < f->first[l + 1]; j++) least = fmin(least, pf_base(&f->item[j], r->y[k], node));
            r->least[k][l] = least;
            r->rest[k][i] = r->rest[k][i + 1] + least;
        }
    }
    return true;
}

/* Items that alone pass a limit go. */
static bool thin_out(run *r) {
    px_fit *f = r->f;
    const int L = f->c->n_layers;
    int to = 0;
    for (int l = 0; l < L; l++) {
        const int from = f->first[l], end = f->first[l + 1], node = f->group[f->group_of[l]].node;
        f->first[l] = to;
        for (int j = from; j < end; j++) {
            bool keep = true;
            for (int k = 0; k < r->n_y && keep; k++)
                keep = r->rest[k][0] - r->least[k][l] + pf_base(&f->item[j], r->y[k], node) <= r->limit[k];
            if (keep) f->item[to++] = f->item[j];
        }
        if (to == f->first[l]) return false;
    }
    f->first[L] = to;
    return true;
}

static void find_most(run *r) {
    px_fit *f = r->f;
    const int L = f->c->n_layers;
    for (int i = L - 1; i >= 0; i--) {
        const int l = f->order[i];
        const bool ends = i + 1 == L || f->group_of[f->order[i + 1]] != f->group_of[l];
        double most[PF_N] = {0};
        for (int j = f->first[l]; j < f->first[l + 1]; j++)
            for (int k = 0; k < PF_N; k++) most[k] = fmax(most[k], f->item[j].use[k]);
        for (int k = 0; k < PF_N; k++) r->most[k][i] = most[k] + (k >= PF_BYTES && ends ? 0 : r->most[k][i + 1]);
    }
    double cost = 0;
    for (int j = 0; j < f->first[L]; j++) cost = fmax(cost, f->item[j].cost);
    r->same[V_COST] = SAME * L * cost;
    r->same[V_DAMAGE] = SAME * r->most[PF_DAMAGE][0];
    r->same[V_FILE] = SAME * r->most[PF_FILE][0];
    r->same[V_CHUNK] = r->same[V_SLOWEST] = r->same[V_COST];
}

/* The quantities that may still bind for some label of in, once position i is done. */
static int counting(const run *r, int i, const labels *in, int *which) {
    const px_fit *f = r->f;
    const int l = f->order[i];
    const pf_group *g = &f->group[f->group_of[l]];
    const bool ends = i + 1 == f->c->n_layers || f->group_of[f->order[i + 1]] != f->group_of[l];
    double most[V_N] = {0}, slowest_least = INFINITY, apart_least = INFINITY, apart_most = -INFINITY; /* file less bytes */
    int n = 0;
    for (size_t j = 0; j < in->n; j++) {
        for (int k = 0; k < V_N; k++) most[k] = fmax(most[k], in->v[j].v[k]);
        const double apart = in->v[j].v[V_FILE] - in->v[j].v[V_BYTES];
        slowest_least = fmin(slowest_least, in->v[j].v[V_SLOWEST]);
        apart_least = fmin(apart_least, apart);
        apart_most = fmax(apart_most, apart);
    }
    const bool file = most[V_FILE] + r->most[PF_FILE][i + 1] > f->cap_file;
    const bool bytes = !ends && most[V_BYTES] + r->most[PF_BYTES][i + 1] > g->cap[PF_BYTES];
    which[n++] = V_COST;
    if (most[V_DAMAGE] + r->most[PF_DAMAGE][i + 1] > f->cap_damage) which[n++] = V_DAMAGE;
    if (file) which[n++] = V_FILE;
    if (bytes && !(file && apart_most - apart_least <= 1e-9 * most[V_FILE])) which[n++] = V_BYTES;
    if (!ends && most[V_LOAD] + r->most[PF_LOAD][i + 1] > g->cap[PF_LOAD]) which[n++] = V_LOAD;
    if (f->real->chunk_weight > 0 && !ends && most[V_CHUNK] + r->most[PF_CHUNK][i + 1] > slowest_least) which[n++] = V_CHUNK;
    if (f->real->chunk_weight > 0 && most[V_SLOWEST] > slowest_least) which[n++] = V_SLOWEST;
    return n;
}

/* One budget exact, the others priced. */
static bool has_room(const run *r, int i, const label *x) {
    const px_fit *f = r->f;
    for (int k = 0; k < f->n_rooms; k++) {
        const int what = f->room[k].what;
        const double used = x->v[what == PF_FILE ? V_FILE : what == PF_DAMAGE ? V_DAMAGE : V_BYTES];
        const double price = what == PF_FILE ? r->y[0]->file * used : what == PF_DAMAGE ? r->y[0]->damage * used : x->byte_price;
        if (x->priced[0] - price + dil__fit_room_rest(f, k, i + 1, used) > r->room_limit[k]) return false;
    }
    return true;
}

static bool take(const run *r, int i, const label *from, uint32_t parent, const pf_item *x, label *to) {
    const px_fit *f = r->f;
    const pf_group *g = &f->group[f->group_of[f->order[i]]];
    for (int k = 0; k < r->n_y; k++) {
        to->priced[k] = from->priced[k] + pf_base(x, r->y[k], g->node);
        if (to->priced[k] + r->rest[k][i + 1] > r->limit[k]) return false;
    }
    to->v[V_COST] = from->v[V_COST] + x->cost;
    to->v[V_DAMAGE] = from->v[V_DAMAGE] + x->use[PF_DAMAGE];
    to->v[V_FILE] = from->v[V_FILE] + x->use[PF_FILE];
    to->v[V_BYTES] = from->v[V_BYTES] + x->use[PF_BYTES];
    to->v[V_LOAD] = from->v[V_LOAD] + x->use[PF_LOAD];
    to->v[V_CHUNK] = from->v[V_CHUNK] + x->use[PF_CHUNK];
    to->v[V_SLOWEST] = from->v[V_SLOWEST];
    to->byte_price = from->byte_price + r->y[0]->node[g->node][PF_BYTES] * x->use[PF_BYTES];
    to->parent = parent;
    to->level = (uint8_t)x->level;
    return to->v[V_DAMAGE] <= f->cap_damage && to->v[V_FILE] <= f->cap_file && to->v[V_BYTES] <= g->cap[PF_BYTES] &&
           to->v[V_LOAD] <= g->cap[PF_LOAD] && has_room(r, i, to);
}

/* What is compared. In place of chunk seconds and of the slowest so far, the cost if that becomes the slowest of all: no less in both,
 * and in cost, is no less whatever follows, and it leaves fewer labels than the seconds themselves. */
static double compared(const run *r, const label *x, int k) {
    return k == V_CHUNK || k == V_SLOWEST ? x->v[V_COST] + r->f->real->chunk_weight * x->v[k] : x->v[k];
}

static int by_priced(const void *a, const void *b) {
    const label *x = a, *y = b;
    return x->priced[0] < y->priced[0] ? -1 : x->priced[0] > y->priced[0];
}

static int by_cost(const void *a, const void *b) {
    const label *x = a, *y = b;
    return x->v[V_COST] < y->v[V_COST] ? -1 : x->v[V_COST] > y->v[V_COST];
}

/* Pairs (u ascending, v descending): a pair is on the stair or above it. */
typedef struct stair {
    struct step { double u, v; } *at;
    size_t n, cap;
} stair;

static size_t first_beyond(const stair *s, double u) {
    size_t lo = 0, hi = s->n;
    while (lo < hi) {
        const size_t mid = (lo + hi) / 2;
        if (s->at[mid].u <= u) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

static bool is_above(const stair *s, double u, double v) {
    const size_t i = first_beyond(s, u);
    return i > 0 && s->at[i - 1].v <= v;
}

static bool add_step(stair *s, double u, double v) {
    if (is_above(s, u, v)) return true;
    size_t from = first_beyond(s, u);
    if (s->n == s->cap) {
        const size_t cap = s->cap ? 2 * s->cap : 8;
        struct step *p = realloc(s->at, cap * sizeof *p);
        if (!p) return false;
        s->at = p;
        s->cap = cap;
    }
    while (from > 0 && s->at[from - 1].u >= u) from--;
    size_t to = from;
    while (to < s->n && s->at[to].v >= v) to++;
    if (to != from + 1) memmove(s->at + from + 1, s->at + to, (s->n - to) * sizeof *s->at);
    s->n = s->n - (to - from) + 1;
    s->at[from] = (struct step){u, v};
    return true;
}

static int by_number(const void *a, const void *b) {
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static size_t count_up_to(const double *v, size_t n, double x) {
    size_t lo = 0, hi = n;
    while (lo < hi) {
        const size_t mid = (lo + hi) / 2;
        if (v[mid] <= x) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

/* Up to four quantities: labels in order of cost; stairs of the next two in a Fenwick tree over the ranks of the last. */
static bool drop_by_stairs(const run *r, labels *a, const int *which, int n_which) {
    const size_t all = a->n;
    stair *tree = dil__px_alloc(all + 1, sizeof *tree);
    double *rank = dil__px_alloc(all, sizeof *rank);
    size_t n = 0;
    bool ok = tree && rank;
    if (ok && all > 1) qsort(a->v, all, sizeof *a->v, by_cost);
    for (size_t i = 0; ok && n_which > 3 && i < all; i++) rank[i] = compared(r, &a->v[i], which[3]);
    if (ok && all > 1 && n_which > 3) qsort(rank, all, sizeof *rank, by_number);
    for (size_t i = 0; ok && i < all; i++) {
        const double x = n_which > 1 ? compared(r, &a->v[i], which[1]) : 0, y = n_which > 2 ? compared(r, &a->v[i], which[2]) : 0;
        const double z = n_which > 3 ? compared(r, &a->v[i], which[3]) : 0;
        const double x_same = n_which > 1 ? x + r->same[which[1]] : 0, y_same = n_which > 2 ? y + r->same[which[2]] : 0;
        bool out = false;
        size_t k = n_which > 3 ? count_up_to(rank, all, z + r->same[which[3]]) : 1;
        for (; k > 0 && !out; k &= k - 1) out = is_above(&tree[k], x_same, y_same);
        if (out) continue;
        k = n_which > 3 ? count_up_to(rank, all, z) : 1;
        for (; k <= (n_which > 3 ? all : 1) && ok; k += k & (~k + 1)) ok = add_step(&tree[k], x, y);
        a->v[n++] = a->v[i];
    }
    if (ok) a->n = n;
    for (size_t i = 0; tree && i <= all; i++) free(tree[i].at);
    free(tree);
    free(rank);
    return ok;
}

/* Any number of quantities. What dominates has no larger priced cost, so it comes first. The last label that dominated is tried
 * first: neighbours often fall to the same one. */
static int drop_one_by_one(const run *r, labels *a, const int *which, int n_which) {
    size_t n = 0, last = 0;
    if (a->n > 1) qsort(a->v, a->n, sizeof *a->v, by_priced);
    double *kept = malloc((a->n ? a->n : 1) * (size_t)n_which * sizeof *kept);
    if (!kept) return -1;
    for (size_t i = 0; i < a->n; i++) {
        double x[V_N];
        bool out = false;
        if ((i & 0xff) == 0xff && (n > ONE_BY_ONE_MAX || dil_now_ns() > r->deadline_ns)) {
            free(kept);
            return 0;
        }
        for (int k = 0; k < n_which; k++) x[k] = compared(r, &a->v[i], which[k]) + r->same[which[k]];
        for (size_t j = 0; j <= n && !out && n > 0; j++) {
            const size_t at = j == 0 ? last : j - 1;
            const double *y = kept + at * (size_t)n_which;
            int k = 0;
            while (k < n_which && y[k] <= x[k]) k++;
            out = k == n_which;
            if (out) last = at;
        }
        if (out) continue;
        for (int k = 0; k < n_which; k++) kept[n * (size_t)n_which + (size_t)k] = compared(r, &a->v[i], which[k]);
        a->v[n++] = a->v[i];
    }
    a->n = n;
    free(kept);
    return 1;
}

/* 1 done, 0 it would take too long, -1 no memory. */
static int drop_dominated(const run *r, labels *a, const int *which, int n_which) {
    return n_which <= 4 ? (drop_by_stairs(r, a, which, n_which) ? 1 : -1) : drop_one_by_one(r, a, which, n_which);
}

/* 1: go on, 0: too many, -1: no memory. */
static int extend(run *r, int i, const labels *in, labels *out) {
    px_fit *f = r->f;
    const int l = f->order[i];
    const bool ends = i + 1 == f->c->n_layers || f->group_of[f->order[i + 1]] != f->group_of[l];
    for (size_t j = 0; j < in->n; j++)
        for (int k = f->first[l]; k < f->first[l + 1]; k++) {
            if (!reserve(out, out->n + 1)) return -1;
            if (!take(r, i, &in->v[j], (uint32_t)j, &f->item[k], &out->v[out->n])) continue;
            if (ends) {
                double *v = out->v[out->n].v;
                v[V_SLOWEST] = fmax(v[V_SLOWEST], v[V_CHUNK]);
                v[V_BYTES] = v[V_LOAD] = v[V_CHUNK] = 0;
            }
            if (++out->n > LABELS_MAX) return 0;
        }
    int which[V_N];
    const int n = counting(r, i, out, which);
    f->n_labels += out->n;
    const int rc = drop_dominated(r, out, which, n);
    return rc > 0 ? dil_now_ns() <= r->deadline_ns : rc;
}

static void adopt(run *r, const labels *by_layer, const int *node, px_plan *best) {
    px_fit *f = r->f;
    const int L = f->c->n_layers;
    const double weight = f->real->chunk_weight;
    for (size_t j = 0; j < by_layer[L].n; j++) {
        const label *x = &by_layer[L].v[j];
        const double cost = f->fixed + x->v[V_COST] + (weight > 0 ? weight * x->v[V_SLOWEST] : 0);
        if (best->found && cost >= best->sec) continue;
        for (int i = L; i > 0; i--) {
            f->level[f->order[i - 1]] = x->level;
            x = &by_layer[i - 1].v[x->parent];
        }
        double sec = cost, damage = x->v[V_DAMAGE];
        if (!f->merged && !dil__px_fit_evaluate(f->c, node, f->level, &sec, &damage)) continue;
        if (best->found && sec >= best->sec) continue;
        dil__px_take(best, L, node, f->level, sec, damage);
    }
}

int dil__fit_labels(px_fit *f, const pf_prices *y, const pf_prices *y_damage, const int *node, double upper, int64_t deadline_ns,
                    px_plan *best) {
    const int L = f->c->n_layers;
    run r = {.f = f, .y = {y, y_damage}, .n_y = y_damage ? 2 : 1, .upper = upper, .deadline_ns = deadline_ns};
    labels *by_layer = dil__px_alloc((size_t)L + 1, sizeof *by_layer);
    int rc = by_layer && prepare(&r) && reserve(&by_layer[0], 1) ? 1 : -1;
    if (rc > 0 && thin_out(&r)) {
        find_most(&r);
        by_layer[0].v[0] = (label){.v[V_SLOWEST] = f->link_chunk};
        by_layer[0].n = 1;
        for (int i = 0; i < L && rc > 0; i++) rc = extend(&r, i, &by_layer[i], &by_layer[i + 1]);
        if (rc > 0) adopt(&r, by_layer, node, best);
    }
    for (int i = 0; by_layer && i <= L; i++) free(by_layer[i].v);
    free(by_layer);
    free(r.least[0]);
    return rc;
}
