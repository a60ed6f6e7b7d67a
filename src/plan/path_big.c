/* plan/path_big.c - hundreds to ten thousands of nodes: multipliers, memories and plans until what is left is little.
 *
 * The relaxation (path_ng.c) says which visits can be in a plan better than the target at all; what it cannot exclude is searched for better
 * plans by windows (path_lns.c) among the nodes that its cheapest ways use. Bound and target move towards each other. The target is a
 * plan's seconds less an aim; once everything below it is excluded the aim is halved and all visits come back: dropped at a modest aim
 * they make the steps cheap, and the bound that the aim allows is had early. */
#include "plan/path_use.h"
#include "plan/problem_impl.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { STEPS = 4000, PROMISING = 240, HARVEST = 8, BEAM_CELLS = 30000, FINE_CELLS = 5000, UNITS = 192, FINE_UNITS = 768, PATIENCE = 30, NO_PLAN = 400, PRIME = 5, PRIME_DEGREE = 100 };

typedef struct big {
    px_big *o;
    const px_core *c;
    px_ng x;
    double aim;       /* relative: what is dropped cannot improve the best plan by more */
    bool dropped;
    double stage;     /* bound of the visits that are not dropped */
    double *y, *d, *top, *price; /* [1 + S] multipliers as seconds for a whole budget, direction, the best; [S] a byte */
    double theta;
    int since;
    uint64_t seed;
    double *worth;       /* [S] where path_close.c knows the cheapest ways over the nodes better */
    int waits, next_try; /* harvests without a plan */
} big;

static double target_of(const big *b) { return b->o->best->found ? b->o->best->sec * (1 - b->aim) : INFINITY; }
static bool out_of_time(const big *b) { return dil_now_ns() >= b->o->deadline_ns; }

static void note_bound(big *b) {
    const double proved = b->dropped ? fmin(b->stage, target_of(b)) : b->stage;
    if (proved > b->o->bound) b->o->bound = proved;
    dil__trail_bound(b->o->best->trail, proved);
}

static void drop(big *b) {
    if (!b->o->best->found) return;
    if (dil__px_ng_drop(&b->x, target_of(b)) < INFINITY) b->dropped = true;
}

/* --- plans --- */

typedef struct worth { double cost; int node; } worth;

static int by_cost(const void *p, const void *q) {
    const worth *a = p, *b = q;
    return a->cost != b->cost ? (a->cost < b->cost ? -1 : 1) : a->node - b->node;
}

/* The nodes whose cheapest ways are cheapest, and those of the plan at hand. -> their number; -1: no memory */
static int promising(big *b, int most, int *node) {
    const int S = b->c->n_nodes, L = b->c->n_layers;
    worth *v = dil__px_alloc((size_t)S, sizeof *v);
    if (!v) return -1;
    for (int s = 0; s < S; s++) {
        v[s] = (worth){b->worth ? b->worth[s] : INFINITY, s};
        for (int l = 0; l < L && !b->worth; l++) {
            const size_t k = (size_t)l * (size_t)S + (size_t)s;
            v[s].cost = fmin(v[s].cost, b->x.from0[k] + b->x.start0[k]);
        }
    }
    for (int l = 0; l < L && b->o->best->found; l++) v[b->o->best->node[l]].cost = -1;
    qsort(v, (size_t)S, sizeof *v, by_cost);
    int n = 0;
    while (n < S && n < most && v[n].cost < INFINITY) n++;
    for (int i = 0; i < n; i++) node[i] = v[i].node;
    free(v);
    return n;
}

/* One try at weights on damage `push` times those around the bound's. */
static bool windows_at(big *b, const px_core *c, const px_graph *g, double push, px_plan *best, int n_perturb, int64_t cpu_until_ns) {
    static const double factor[PX_LNS_WEIGHTS] = {0.6, 0.85, 1.2, 1.7};
    px_weight w[PX_LNS_WEIGHTS] = {{0}};
    bool ok = true;
    const int n_w = b->o->damage > 0 ? PX_LNS_WEIGHTS : 1;
    for (int k = 0; k < n_w && ok; k++) {
        w[k] = (px_weight){.sec = 1, .damage = b->o->damage * factor[k] * push, .n_units = 512};
        w[k].large = dil__px_alloc((size_t)c->n_nodes * (size_t)c->n_layers * (size_t)g->run_cap, sizeof(double));
        ok = w[k].large && dil__px_visit_table(c, &w[k], g->run_max, g->run_cap);
    }
    px_lns *x = ok ? dil__px_lns_new(c, g, w, n_w, ++b->seed) : NULL;
    ok = x != NULL;
    if (ok && !best->found) ok = dil__px_lns_beam(x, best, 24);
    if (ok) ok = dil__px_lns_run(x, best, n_perturb, cpu_until_ns, b->o->deadline_ns);
    dil__px_lns_free(x);
    for (int k = 0; k < n_w; k++) dil__px_weight_fini(&w[k]);
    return ok;
}

/* The cheapest structures at the bound's weight may all miss the quality budget: then at larger ones. */
static bool windows(big *b, const px_core *c, px_plan *best, int n_perturb, int64_t cpu_until_ns) {
    px_graph g;
    bool ok = dil__px_graph_init(c, &g);
    double push = 1;
    for (int i = 0; i < 8 && ok; i++, push *= 1.6) {
        ok = windows_at(b, c, &g, push, best, n_perturb, cpu_until_ns);
        if (best->found || dil__px_cpu_ns() > cpu_until_ns || out_of_time(b)) break;
    }
    dil__px_graph_fini(&g);
    return ok;
}

/* Plans among the promising nodes, for some seconds of CPU. */
static bool find_plans(big *b, int n_perturb, double cpu_sec) {
    int *node = dil__px_alloc((size_t)b->c->n_nodes, sizeof *node);
    const int64_t cpu_until_ns = dil__px_cpu_ns() + (int64_t)(cpu_sec * 1e9);
    px_part k;
    px_plan inner;
    const int n = node ? promising(b, PROMISING, node) : -1;
    bool ok = n > 0 && dil__px_part_init(&k, b->c, node, n, b->o->best, &inner);
    if (ok) {
        ok = windows(b, &k.core, &inner, n_perturb, cpu_until_ns);
        dil__px_part_fini(&k, node, &inner, b->o->best);
    }
    free(node);
    dil_log(DIL_LOG_DEBUG, "path", "%d promising nodes: plan %.6g, bound %.6g, %.2f s of CPU", n, b->o->best->sec, b->o->bound,
            (double)clock() / CLOCKS_PER_SEC);
    return ok || n == 0;
}

/* --- the ascent --- */

typedef struct sample { double at, value, slope; } sample;

static bool relax_at(big *b, double at, sample *v) {
    px_big *o = b->o;
    if (!dil__px_ng_relax(&b->x, at, b->price)) return false;
    if (!(b->x.w.root < INFINITY)) return o->no_path = true;
    v->at = at;
    v->value = px_seconds(b->c, &b->x.w, b->x.w.root);
    v->slope = dil__px_ng_way(&b->x) - b->c->damage_max;
    if (v->value > b->stage) {
        b->stage = v->value;
        o->damage = at;
        note_bound(b);
    }
    return true;
}

/* The weight on damage alone, by cutting planes in one dimension. */
static bool find_damage(big *b, double at, int n_cuts) {
    px_big *o = b->o;
    sample lo = {0}, hi = {0}, v;
    for (int i = 0; i < 40 && !o->no_path && !out_of_time(b); i++) {
        if (!relax_at(b, at, &v)) return false;
        if (v.slope <= 0) hi = v;
        else lo = v;
        if (hi.at > 0 && (lo.at > 0 || i > 3)) break;
        at = v.slope > 0 ? 2 * at : at / 2;
    }
    for (int i = 0; i < n_cuts && hi.at > 0 && lo.at > 0 && !out_of_time(b) && !o->no_path; i++) {
        const double mid = (hi.value - hi.slope * hi.at - lo.value + lo.slope * lo.at) / (lo.slope - hi.slope);
        const double top = lo.value + lo.slope * (mid - lo.at);
        if (!(mid > lo.at && mid < hi.at) || top - o->bound < 2e-3 * top) break;
        if (!relax_at(b, mid, &v)) return false;
        if (v.slope > 0) lo = v;
        else hi = v;
    }
    return true;
}

/* One subgradient step from the way at y. */
static bool step(big *b, double value, double damage) {
    const px_core *c = b->c;
    const size_t n = (size_t)c->n_nodes + 1;
    double norm = 0;
    for (size_t k = 0; k < n; k++) {
        const double g = k == 0 ? (c->damage_max > 0 ? damage / c->damage_max - 1 : 0)
                                : c->store[k - 1] > 0 ? b->x.used[k - 1] / c->store[k - 1] - 1 : 0;
        b->d[k] = b->y[k] <= 0 && g < 0 ? 0 : 0.7 * g + 0.3 * b->d[k];
        norm += b->d[k] * b->d[k];
    }
    if (norm <= 0) return false;
    const double upper = b->o->best->found ? b->o->best->sec : 1.2 * value;
    const double t = b->theta * fmax(upper - value, 0.002 * upper) / norm;
    for (size_t k = 0; k < n; k++) b->y[k] = fmax(0, b->y[k] + t * b->d[k]);
    return true;
}

static void begin_stage(big *b, double aim) {
    dil_log(DIL_LOG_DEBUG, "path", "aim %.3g reached: plan %.6g, bound %.6g, %.2f s of CPU", b->aim, b->o->best->sec, b->o->bound,
            (double)clock() / CLOCKS_PER_SEC);
    b->aim = aim;
    b->stage = -INFINITY;
    b->dropped = false;
    b->theta = fmax(b->theta, 0.1);
    b->since = 0;
    b->x.w.n_units = UNITS;
    memcpy(b->y, b->top, (size_t)(b->c->n_nodes + 1) * sizeof *b->y);
    dil__px_ng_revive(&b->x);
}

static double damage_weight(const big *b) { return b->c->damage_max > 0 ? b->y[0] / b->c->damage_max : 0; }

/* One step: 1 go on, 0 no more to gain at this aim, -1 no memory. */
static int ascend_once(big *b, int i) {
    const px_core *c = b->c;
    px_big *o = b->o;
    const int learned = dil__px_ng_learn(&b->x); /* from the way before: what is learned takes effect with the next relaxation only */
    for (int s = 0; s < c->n_nodes; s++) b->price[s] = c->store[s] > 0 ? b->y[1 + s] / c->store[s] : 0;
    if (!dil__px_ng_relax(&b->x, damage_weight(b), b->price)) return -1;
    if (!(b->x.w.root < INFINITY)) { /* all dropped */
        if (!b->dropped) o->no_path = true;
        b->stage = INFINITY;
        note_bound(b);
        return 0;
    }
    const double value = px_seconds(c, &b->x.w, b->x.w.root), damage = dil__px_ng_way(&b->x);
    if (i % 10 == 0)
        dil_log(DIL_LOG_DEBUG, "path", "step %d: %.6g, bound %.6g, plan %.6g, %zu cells, %zu values, learned %d, theta %.3g, %.2f s of CPU", i, value, b->stage,
                o->best->sec, b->x.n_cells, b->x.at[(size_t)(c->n_layers + 1) * (size_t)c->n_nodes], learned, b->theta, (double)clock() / CLOCKS_PER_SEC);
    if (value > b->stage) {
        b->stage = value;
        o->damage = damage_weight(b);
        memcpy(b->top, b->y, (size_t)(c->n_nodes + 1) * sizeof *b->y);
        memcpy(o->price, b->price, (size_t)c->n_nodes * sizeof *b->price);
        b->since = 0;
        note_bound(b);
    } else if (++b->since >= 8 + (learned > 0 ? 8 : 0)) {
        b->since = 0;
        b->theta *= 0.6;
        memcpy(b->y, b->top, (size_t)(c->n_nodes + 1) * sizeof *b->y);
        if (b->theta < 0.004) return 0;
        return 1;
    }
    if (!(damage < INFINITY) || !step(b, value, damage)) return 0;
    return 1;
}

static double degree(const px_core *c) { return c->hop ? c->n_nodes : (double)c->links->first[c->n_nodes] / c->n_nodes; }

/* What the best multipliers so far are good for: visits dropped, and plans. They are those of the last step. */
static bool harvest(big *b) {
    px_big *o = b->o;
    if (!o->best->found && ++b->waits >= b->next_try) { /* seldom, for there may be none */
        b->next_try = 2 * b->waits;
        if (!find_plans(b, 4, 4)) return false;
    }
    const double was = o->best->found ? o->best->sec : INFINITY;
    drop(b);
    const int room = (double)b->x.n_cells * degree(b->c) > BEAM_CELLS * 1e3 ? 60 : 200;
    if (!dil__px_ng_beam(&b->x, px_limit(b->c, &b->x.w, was), room, 12, o->best)) return false;
    if (o->best->sec < was) drop(b);
    if (b->x.n_cells < FINE_CELLS && o->best->found) b->x.w.n_units = FINE_UNITS;
    return o->best->sec >= was || find_plans(b, 4, 0.7);
}

static bool more_plans(void *ctx) { return find_plans(ctx, 4, 0.7); }

/* What multipliers and large visits leave open is closed by stores that fill up, at the aim and then at smaller ones. false: no memory. */
static bool close_gap(big *b) {
    px_big *o = b->o;
    bool ok = true;
    double *over = dil__px_alloc((size_t)b->c->n_nodes, sizeof *over);
    while (ok && over && o->best->found && !out_of_time(b)) {
        px_close k = {.x = &b->x, .best = o->best, .aim = b->aim, .deadline_ns = o->deadline_ns, .plans = more_plans, .ctx = b, .worth = over, .bound = o->bound,
                      .few_links = o->few_links};
        if (o->bound < target_of(b)) {
            memset(b->price, 0, (size_t)b->c->n_nodes * sizeof *b->price);
            b->worth = over;
            ok = dil__px_ng_relax(&b->x, damage_weight(b), b->price);
            if (ok) drop(b);
            ok = ok && dil__px_close_run(&k);
            b->worth = NULL;
            o->bound = fmax(o->bound, k.bound);
            if (!k.proved) break;
        }
        if (b->aim <= o->gap * 1.001) break;
        begin_stage(b, fmax(o->gap, b->aim / 2));
    }
    free(over);
    return ok && over;
}

static bool ascend(big *b) {
    px_big *o = b->o;
    int since_harvest = HARVEST, checked = 0;
    double before = -INFINITY;
    for (int i = 0; i < STEPS && !out_of_time(b) && !o->no_path; i++) {
        const int rc = ascend_once(b, i);
        if (rc < 0) return false;
        if (rc == 0) {
            if (b->stage < target_of(b)) return close_gap(b); /* stuck */
            if (b->aim <= o->gap * 1.001) break;
            begin_stage(b, fmax(o->gap, b->aim / 2));
            since_harvest = HARVEST;
            checked = i;
            before = -INFINITY;
            continue;
        }
        if (i - checked >= PATIENCE) { /* hardly moving, or no plan in sight */
            const double wanted = o->best->found ? 0.05 * (target_of(b) - before) : 1e-4 * fabs(before);
            if ((before > -INFINITY && b->stage < before + wanted) || (!o->best->found && i >= NO_PLAN)) return close_gap(b);
            checked = i;
            before = b->stage;
        }
        if (++since_harvest < HARVEST || b->since > 0) continue;
        since_harvest = 0;
        if (!harvest(b)) return false;
    }
    return true;
}

/* Plans and multipliers where links are many: a network is one region, and its most promising nodes are one problem. */
static bool run_dense(big *b) {
    dil__px_ng_drop(&b->x, INFINITY); /* for the ways to every node */
    if (!find_plans(b, 8, 4)) return false;
    if (b->o->no_path) return true;
    drop(b);
    if (degree(b->c) < PRIME_DEGREE && !dil__px_ng_prime(&b->x, PRIME)) return false; /* tables are out of date until the next relaxation */
    return ascend(b);
}

/* Where links are few: plans of all regions, then passes; prices of bytes would be paid back in every region. */
static bool run_sparse(big *b) {
    px_big *o = b->o;
    double *over = dil__px_alloc(2 * (size_t)b->c->n_nodes, sizeof *over);
    memset(b->price, 0, (size_t)b->c->n_nodes * sizeof *b->price);
    px_sparse k = {.x = &b->x, .best = o->best, .damage = o->damage, .price = b->price, .deadline_ns = o->deadline_ns, .worth = over};
    bool ok = over && dil__px_sparse_plans(&k);
    if (ok && o->best->found) {
        b->y[0] = k.damage * b->c->damage_max;
        memcpy(b->top, b->y, (size_t)(b->c->n_nodes + 1) * sizeof *b->y);
        o->damage = k.damage;
        b->worth = over;
        ok = find_plans(b, 8, 4);
        b->worth = NULL;
        ok = ok && close_gap(b);
    } else if (ok && !out_of_time(b)) {
        ok = run_dense(b);
    }
    free(over);
    return ok;
}

static void hand_over(big *b) {
    px_big *o = b->o;
    const int L = b->c->n_layers;
    o->n_nodes = 0;
    for (int s = 0; s < b->c->n_nodes; s++) {
        bool any = false;
        for (int l = 0; l < L && !any; l++) any = b->x.g.run_max[s * L + l] > 0;
        if (any) o->node[o->n_nodes++] = s;
    }
    o->lost = b->dropped ? target_of(b) : INFINITY;
}

bool dil__px_big_run(px_big *o) {
    const size_t S = (size_t)o->c->n_nodes;
    big b = {.o = o, .c = o->c, .aim = fmax(o->gap, 0.018), .stage = -INFINITY, .theta = 0.7};
    o->bound = -INFINITY;
    o->lost = INFINITY;
    o->price = dil__px_alloc(S, sizeof(double));
    o->node = dil__px_alloc(S, sizeof(int));
    double *v = dil__px_alloc(4 * (S + 1), sizeof *v);
    bool ok = o->price && o->node && v && dil__px_ng_init(&b.x, o->c, o->n_threads);
    if (ok) {
        b.y = v;
        b.d = v + S + 1;
        b.top = v + 2 * (S + 1);
        b.price = v + 3 * (S + 1);
        ok = find_damage(&b, dil__px_first_weight(o->c), 6);
        b.y[0] = o->damage * o->c->damage_max;
        memcpy(b.top, b.y, (S + 1) * sizeof *b.y);
        if (ok && !o->no_path) ok = o->few_links ? run_sparse(&b) : run_dense(&b);
        hand_over(&b);
    }
    free(v);
    dil__px_ng_fini(&b.x);
    return ok;
}
