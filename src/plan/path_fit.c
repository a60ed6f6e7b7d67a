/* plan/path_fit.c - bounds and quick plans of one structure of a measured problem (see path_fit.h).
 *
 * Bounds are Lagrangian: every budget has a price, each layer then takes its cheapest level, and the prices move by subgradient
 * steps. For the slowest node's seconds a chunk, T >= each node's and link's, the prices of the nodes and links sum to T's weight.
 * An LP would give the same bound; some hundred steps over a few hundred items take less time than setting one up. */
#include "plan/path_fit.h"

#include <stdlib.h>
#include <string.h>

#define TOLERANCE 0.9e-9

enum { FEW_LABELS = 2000 };

static bool prices_init(pf_prices *y, int n_nodes) {
    y->node = dil__px_alloc((size_t)n_nodes, sizeof *y->node);
    return y->node != NULL;
}

static void prices_copy(pf_prices *to, const pf_prices *from, int n_nodes) {
    double (*node)[PF_N] = to->node;
    memcpy(node, from->node, (size_t)n_nodes * sizeof *node);
    *to = *from;
    to->node = node;
}

void dil__fit_set_anchor(px_fit *f, const pf_prices *y) {
    prices_copy(&f->anchor, y, f->c->n_nodes);
    f->anchor.base_damage = 0;
    f->has_anchor = true;
    dil__fit_rewind(f);
}

void dil__fit_rewind(px_fit *f) {
    if (f->has_anchor) prices_copy(&f->warm, &f->anchor, f->c->n_nodes);
}

bool dil__fit_init(px_fit *f, const px_core *c, const px_real *real) {
    const size_t L = (size_t)c->n_layers, Q = (size_t)c->n_levels;
    *f = (px_fit){.c = c, .real = real};
    f->group = dil__px_alloc(L, sizeof *f->group);
    f->group_of = dil__px_alloc(L, sizeof *f->group_of);
    f->order = dil__px_alloc(L, sizeof *f->order);
    f->first = dil__px_alloc(L + 1, sizeof *f->first);
    f->item = dil__px_alloc(L * Q, sizeof *f->item);
    f->pick = dil__px_alloc(L, sizeof *f->pick);
    f->level = dil__px_alloc(L, sizeof *f->level);
    const size_t G = L < (size_t)c->n_nodes ? L : (size_t)c->n_nodes; /* groups at most */
    f->gradient = dil__px_alloc(3 * G + 3, sizeof *f->gradient);
    f->z = dil__px_alloc(3 * G + 3, sizeof *f->z);
    f->scratch = dil__px_alloc(dil__px_climb_scratch((int)(3 * G + 3)), sizeof *f->scratch);
    return f->group && f->group_of && f->order && f->first && f->item && f->pick && f->level && f->gradient && f->z && f->scratch &&
           prices_init(&f->warm, c->n_nodes) && prices_init(&f->by_damage_warm, c->n_nodes) && prices_init(&f->at, c->n_nodes) &&
           prices_init(&f->best, c->n_nodes) && prices_init(&f->anchor, c->n_nodes) && prices_init(&f->trial, c->n_nodes);
}

void dil__fit_fini(px_fit *f) {
    for (int k = 0; k < PF_ROOMS; k++) free(f->room[k].rest);
    void *all[] = {f->group, f->group_of, f->order, f->first, f->item, f->pick, f->level, f->gradient, f->z, f->scratch, f->warm.node,
                   f->by_damage_warm.node, f->at.node, f->best.node, f->anchor.node, f->trial.node};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

/* --- the structure ------------------------------------------------------------------------------------------------------ */

/* Hops, and what links and connections carry; false where one is missing or overloaded. */
static bool lay_hops(px_fit *f, const int *node) {
    const dil_problem *p = f->real->p;
    const int last = f->c->n_layers - 1;
    const bool load = p->load_max < INFINITY;
    f->fixed = f->real->by_damage || f->real->by_load ? 0 : p->source_sec[node[0]] + p->sink_sec[node[last]];
    f->link_chunk = 0;
    if (f->merged) {
        f->fixed = 0;
        return true;
    }
    if (p->source_sec[node[0]] == INFINITY || p->sink_sec[node[last]] == INFINITY) return false;
    for (int l = 0; l < last; l++) {
        if (node[l] == node[l + 1]) continue;
        const dil_hop *h = dil_problem_hop(p, (uint32_t)node[l], (uint32_t)node[l + 1]);
        if (!h) return false;
        if (!f->real->by_damage && !f->real->by_load) f->fixed += l + 1 == last ? h->head_sec : h->sec;
        double link = 0, chunk = 0, out = 0, in = 0;
        for (int k = 0; k < last; k++) {
            if (node[k] == node[k + 1]) continue;
            const double share = k + 1 == last ? p->head_share : 1;
            const bool same_from = node[k] == node[l], same_to = node[k + 1] == node[l + 1];
            if (same_from && same_to) link += share * h->load;
            if (same_from && same_to && k + 1 < last) chunk += h->chunk_sec;
            if (same_from && p->out_load) out += share * p->out_load[node[l]];
            if (same_to && p->in_load) in += share * p->in_load[node[l + 1]];
        }
        if (load && fmax(link, fmax(out, in)) > f->real->load_max) return false;
        f->link_chunk = fmax(f->link_chunk, f->real->by_load ? fmax(link, fmax(out, in)) : chunk);
    }
    return true;
}

static void lay_groups(px_fit *f, const int *node) {
    const px_core *c = f->c;
    int at = 0;
    f->n_groups = 0;
    for (int l = 0; l < c->n_layers; l++) {
        int g = 0;
        while (g < f->n_groups && f->group[g].node != node[l]) g++;
        if (g < f->n_groups) continue;
        double extra = 0;
        f->group[g] = (pf_group){.node = node[l]};
        f->n_groups++;
        for (int m = l; m < c->n_layers; m++) {
            if (node[m] != node[l]) continue;
            f->group_of[m] = g;
            f->order[at++] = m;
            if (c->extra) extra = fmax(extra, c->extra[m]);
        }
        f->group[g].cap[PF_BYTES] = c->store[node[l]] - extra;
        f->group[g].cap[PF_LOAD] = f->real->load_max;
    }
}

static bool lay_items(px_fit *f, const int *node) {
    const px_core *c = f->c;
    const dil_problem *p = f->real->p;
    int n = 0;
    for (int l = 0; l < c->n_layers; l++) {
        const pf_group *g = &f->group[f->group_of[l]];
        f->first[l] = n;
        for (int q = 0; q < c->n_levels; q++) {
            if (!(px_bytes(c, l, q) < INFINITY)) continue; /* not in this case */
            const size_t lq = (size_t)l * (size_t)c->n_levels + (size_t)q, cell = dil__cell(p, (uint32_t)l, (uint32_t)node[l], (uint32_t)q);
            double bytes = p->layer_bytes[lq];
            if (p->tied && l > 0 && l + 1 == c->n_layers && node[0] == node[l]) bytes -= p->shared_bytes[q];
            if (bytes > g->cap[PF_BYTES]) continue;
            pf_item x = {.level = q, .cost = f->real->by_damage ? p->damage[lq] : f->real->by_load ? 0 : p->layer_sec[cell]};
            x.use[PF_DAMAGE] = f->cap_damage < INFINITY ? p->damage[lq] : 0;
            x.use[PF_FILE] = f->cap_file < INFINITY ? p->file_bytes ? p->file_bytes[lq] : p->layer_bytes[lq] : 0;
            x.use[PF_BYTES] = bytes;
            x.use[PF_LOAD] = p->load && f->real->load_max < INFINITY ? p->load[cell] : 0;
            x.use[PF_CHUNK] = f->real->chunk_weight > 0 ? f->real->chunk[cell] : 0;
            if (x.use[PF_DAMAGE] > f->cap_damage || x.use[PF_FILE] > f->cap_file || x.use[PF_LOAD] > g->cap[PF_LOAD]) continue;
            f->item[n++] = x;
        }
        if (n == f->first[l]) return false;
    }
    f->first[c->n_layers] = n;
    return true;
}

bool dil__fit_structure(px_fit *f, const int *node) {
    f->n_fits++;
    f->cap_damage = f->real->by_damage ? INFINITY : px_budget(f->c);
    if (f->real->p->damage_max == INFINITY) f->cap_damage = INFINITY;
    f->cap_file = f->real->file_max;
    if (!lay_hops(f, node)) return false;
    lay_groups(f, node);
    return lay_items(f, node);
}

/* --- bound -------------------------------------------------------------------------------------------------------------- */

typedef struct total {
    double damage, file, (*group)[PF_N];
} total;

/* Index of a price in the gradient: 0 damage, 1 file, 2 the links' chunk, then three a group. */
static int slot(int group, int what) { return 3 + 3 * group + what - PF_BYTES; }

typedef struct ascent {
    px_fit *f;
    double unit[2];     /* what damage and file are counted in */
    double chunk_unit;  /* seconds a chunk */
    double top;         /* best value met, f->best has its prices */
    bool has[PF_N];
} ascent;

static double priced(const pf_prices *y, const pf_item *x, int node) { return pf_base(x, y, node); }

/* Lagrangian value at y, and how each budget is overrun there, in its unit. */
static double value_at(const ascent *a, const pf_prices *y) {
    px_fit *f = a->f;
    const int L = f->c->n_layers;
    double v = y->base_damage > 0 ? 0 : f->fixed, *g = f->gradient;
    memset(g, 0, (size_t)(3 + 3 * f->n_groups) * sizeof *g);
    for (int l = 0; l < L; l++) {
        const int group = f->group_of[l], node = f->group[group].node;
        double least = INFINITY;
        for (int i = f->first[l]; i < f->first[l + 1]; i++) {
            const double x = priced(y, &f->item[i], node);
            if (x < least) {
                least = x;
                f->pick[l] = i;
            }
        }
        const pf_item *x = &f->item[f->pick[l]];
        v += least;
        g[0] += x->use[PF_DAMAGE];
        g[1] += x->use[PF_FILE];
        for (int k = PF_BYTES; k <= PF_CHUNK; k++) g[slot(group, k)] += x->use[k];
    }
    if (a->has[PF_DAMAGE]) v -= y->damage * f->cap_damage;
    if (a->has[PF_FILE]) v -= y->file * f->cap_file;
    if (a->has[PF_CHUNK]) v += y->link_chunk * f->link_chunk;
    g[0] = a->has[PF_DAMAGE] ? (g[0] - f->cap_damage) / a->unit[0] : 0;
    g[1] = a->has[PF_FILE] ? (g[1] - f->cap_file) / a->unit[1] : 0;
    g[2] = a->has[PF_CHUNK] ? f->link_chunk / a->chunk_unit : 0;
    for (int k = 0; k < f->n_groups; k++) {
        const pf_group *p = &f->group[k];
        const double *n = y->node[p->node];
        v -= n[PF_BYTES] * p->cap[PF_BYTES];
        g[slot(k, PF_BYTES)] = p->cap[PF_BYTES] > 0 ? g[slot(k, PF_BYTES)] / p->cap[PF_BYTES] - 1 : 0;
        if (a->has[PF_LOAD]) {
            v -= n[PF_LOAD] * p->cap[PF_LOAD];
            g[slot(k, PF_LOAD)] = p->cap[PF_LOAD] > 0 ? g[slot(k, PF_LOAD)] / p->cap[PF_LOAD] - 1 : 0;
        } else {
            g[slot(k, PF_LOAD)] = 0;
        }
        g[slot(k, PF_CHUNK)] /= a->chunk_unit;
    }
    return v;
}

static ascent start_of(px_fit *f, pf_prices *y) {
    ascent a = {.f = f, .chunk_unit = 1};
    const bool sec = !(y->base_damage > 0);
    a.has[PF_DAMAGE] = sec && f->cap_damage < INFINITY;
    a.has[PF_FILE] = f->cap_file < INFINITY;
    a.has[PF_LOAD] = f->real->load_max < INFINITY;
    a.has[PF_CHUNK] = sec && f->real->chunk_weight > 0;
    a.unit[0] = f->cap_damage > 0 ? f->cap_damage : 1;
    a.unit[1] = f->cap_file > 0 ? f->cap_file : 1;
    if (!a.has[PF_CHUNK]) return a;
    double chunk = 0; /* of the levels that compute least */
    for (int l = 0; l < f->c->n_layers; l++) {
        double least = INFINITY;
        for (int i = f->first[l]; i < f->first[l + 1]; i++) least = fmin(least, f->item[i].use[PF_CHUNK]);
        chunk += least;
    }
    if (chunk > 0) a.chunk_unit = chunk;
    return a;
}

/* Where each price is in z, and what one unit of z is; 0: the price is not used. */
static double unit_of(const ascent *a, int group, int what) {
    const px_fit *f = a->f;
    if (group < 0) return a->has[what] ? a->unit[what] : 0;
    if (what == PF_LOAD && !a->has[PF_LOAD]) return 0;
    return f->group[group].cap[what] > 0 ? f->group[group].cap[what] : 0;
}

static double *price_at(const px_fit *f, pf_prices *y, int group, int what) {
    return group < 0 ? what == PF_DAMAGE ? &y->damage : &y->file : &y->node[f->group[group].node][what];
}

static double *chunk_at(const px_fit *f, pf_prices *y, int g) { return g < 0 ? &y->link_chunk : &y->node[f->group[g].node][PF_CHUNK]; }
static int chunk_slot(int g) { return g < 0 ? 2 : slot(g, PF_CHUNK); }

/* z as prices, none below 0. Of the chunks' only the proportions count: they sum to their weight. -> the sum of z's */
static double to_prices(const ascent *a, const double *z, pf_prices *y) {
    px_fit *f = a->f;
    double sum = 0;
    for (int g = -1; g < f->n_groups; g++) {
        sum += fmax(0, z[chunk_slot(g)]);
        for (int k = g < 0 ? PF_DAMAGE : PF_BYTES; k <= (g < 0 ? PF_FILE : PF_LOAD); k++) {
            const double unit = unit_of(a, g, k), v = z[g < 0 ? k : slot(g, k)];
            *price_at(f, y, g, k) = unit > 0 && v > 0 ? v / unit : 0;
        }
    }
    const double weight = a->has[PF_CHUNK] ? f->real->chunk_weight * (1 - 1e-14) : 0;
    for (int g = -1; g < f->n_groups; g++)
        *chunk_at(f, y, g) = sum > 0 ? weight * fmax(0, z[chunk_slot(g)]) / sum : weight / (f->n_groups + 1);
    return sum;
}

static void from_prices(const ascent *a, pf_prices *y, double *z) {
    px_fit *f = a->f;
    for (int g = -1; g < f->n_groups; g++) {
        for (int k = g < 0 ? PF_DAMAGE : PF_BYTES; k <= (g < 0 ? PF_FILE : PF_LOAD); k++) z[g < 0 ? k : slot(g, k)] = *price_at(f, y, g, k) * unit_of(a, g, k);
        z[chunk_slot(g)] = *chunk_at(f, y, g) * a->chunk_unit + 1e-3 * f->real->chunk_weight * a->chunk_unit;
    }
}

/* Below 0 the function falls, so that what climbs comes back. */
static bool climb_value(void *ctx, const double *z, double *value, double *g) {
    ascent *a = ctx;
    px_fit *f = a->f;
    const int n = 3 + 3 * f->n_groups;
    const double sum = to_prices(a, z, &f->at), weight = f->real->chunk_weight;
    double steepest = 0, mean = 0;
    *value = value_at(a, &f->at);
    if (*value > a->top) {
        a->top = *value;
        prices_copy(&f->best, &f->at, f->c->n_nodes);
    }
    memcpy(g, f->gradient, (size_t)n * sizeof *g);
    for (int k = -1; k < f->n_groups; k++) mean += weight > 0 ? *chunk_at(f, &f->at, k) / weight * g[chunk_slot(k)] : 0;
    for (int k = -1; k < f->n_groups; k++) g[chunk_slot(k)] = a->has[PF_CHUNK] && sum > 0 ? (g[chunk_slot(k)] - mean) * weight * a->chunk_unit / sum : 0;
    for (int i = 0; i < n; i++) steepest = fmax(steepest, fabs(g[i]));
    for (int i = 0; i < n; i++) {
        if (z[i] >= 0) continue;
        *value += 2 * steepest * z[i];
        g[i] = 2 * steepest;
    }
    return true;
}

double dil__fit_bound(px_fit *f, pf_prices *y, int rounds, double upper, double enough) {
    const int n = 3 + 3 * f->n_groups;
    ascent a = start_of(f, y);
    a.top = -INFINITY;
    px_climb c = {.n = n, .rounds = rounds, .enough = enough, .still = 2e-5, .ctx = &a, .value_at = climb_value, .scratch = f->scratch};
    prices_copy(&f->at, y, f->c->n_nodes);
    from_prices(&a, y, f->z);
    to_prices(&a, f->z, y);
    const double now = value_at(&a, y), goal = upper < INFINITY ? fabs(upper - now) : 0.3 * fabs(now);
    if (now >= enough) return now - 1e-12 * fabs(now);
    dil__px_climb(&c, f->z, fmax(0.1 * goal, 1e-3 * fabs(now)));
    if (a.top < enough) { /* the prices of what is impossible are no start for the next */
        prices_copy(y, &f->best, f->c->n_nodes);
        value_at(&a, y); /* pick is of the best prices */
    }
    return a.top - 1e-12 * fabs(a.top);
}

/* --- levels near the relaxed ones ------------------------------------------------------------------------------------------ */

typedef struct state {
    const px_fit *f;
    int *pick; /* [L] */
    double cost, damage, file;
    double group[64][PF_N];
} state;

static void add(state *s, int l, int item, double sign) {
    const pf_item *x = &s->f->item[item];
    s->cost += sign * x->cost;
    s->damage += sign * x->use[PF_DAMAGE];
    s->file += sign * x->use[PF_FILE];
    for (int k = PF_BYTES; k <= PF_CHUNK; k++) s->group[s->f->group_of[l]][k] += sign * x->use[k];
}

static void exchange(state *s, int l, int item) {
    add(s, l, s->pick[l], -1);
    s->pick[l] = item;
    add(s, l, item, 1);
}

static double beyond(double v, double cap) { return v <= cap ? 0 : cap > 0 ? v / cap - 1 : v; }

static double overrun(const state *s) {
    const px_fit *f = s->f;
    double sum = beyond(s->damage, f->cap_damage) + beyond(s->file, f->cap_file);
    for (int g = 0; g < f->n_groups; g++)
        sum += beyond(s->group[g][PF_BYTES], f->group[g].cap[PF_BYTES]) + beyond(s->group[g][PF_LOAD], f->group[g].cap[PF_LOAD]);
    return sum;
}

static double objective(const state *s) {
    const px_fit *f = s->f;
    double chunk = f->link_chunk;
    if (!(f->real->chunk_weight > 0)) return s->cost;
    for (int g = 0; g < f->n_groups; g++) chunk = fmax(chunk, s->group[g][PF_CHUNK]);
    return s->cost + f->real->chunk_weight * chunk;
}

/* Single changes until all budgets hold: least priced cost for each part of the overrun that goes. */
static bool repair(state *s, const pf_prices *y) {
    const px_fit *f = s->f;
    for (int step = 0; step < 4 * f->c->n_layers; step++) {
        const double over = overrun(s);
        double best = INFINITY;
        int at = -1, to = -1;
        if (over <= 0) return true;
        for (int l = 0; l < f->c->n_layers; l++) {
            const int was = s->pick[l], node = f->group[f->group_of[l]].node;
            for (int i = f->first[l]; i < f->first[l + 1]; i++) {
                if (i == was) continue;
                exchange(s, l, i);
                const double gone = over - overrun(s);
                if (gone > 1e-15) {
                    const double dearer = fmax(0, priced(y, &f->item[i], node) - priced(y, &f->item[was], node));
                    const double rate = (dearer + 1e-12) / gone;
                    if (rate < best) best = rate, at = l, to = i;
                }
                exchange(s, l, was);
            }
        }
        if (at < 0) return false;
        exchange(s, at, to);
    }
    return overrun(s) <= 0;
}

/* Changes of one layer, then of two, while they pay. */
static bool improve_pair(state *s, int l, int i, double *best) {
    const px_fit *f = s->f;
    const int was = s->pick[l];
    exchange(s, l, i);
    if (overrun(s) <= 0 && objective(s) < *best) {
        *best = objective(s);
        return true;
    }
    for (int m = 0; m < f->c->n_layers; m++) {
        if (m == l) continue;
        const int had = s->pick[m];
        for (int k = f->first[m]; k < f->first[m + 1]; k++) {
            if (k == had || s->cost - f->item[had].cost + f->item[k].cost >= *best) continue;
            exchange(s, m, k);
            if (objective(s) < *best && overrun(s) <= 0) {
                *best = objective(s);
                return true;
            }
            exchange(s, m, had);
        }
    }
    exchange(s, l, was);
    return false;
}

static void improve(state *s) {
    const px_fit *f = s->f;
    double best = objective(s) * (1 - 1e-9);
    for (int sweep = 0, changed = 1; changed && sweep < 8; sweep++) {
        changed = 0;
        for (int l = 0; l < f->c->n_layers; l++)
            for (int i = f->first[l]; i < f->first[l + 1]; i++)
                if (i != s->pick[l] && improve_pair(s, l, i, &best)) {
                    changed = 1;
                    best *= 1 - 1e-9;
                }
    }
}

void dil__fit_round(px_fit *f, const pf_prices *y, const int *node, px_plan *best) {
    const px_core *c = f->c;
    if (f->n_groups > 64) return;
    state s = {.f = f, .pick = f->level};
    for (int l = 0; l < c->n_layers; l++) {
        s.pick[l] = f->pick[l];
        add(&s, l, s.pick[l], 1);
    }
    if (!repair(&s, y)) return;
    improve(&s);
    for (int l = 0; l < c->n_layers; l++) f->level[l] = f->item[f->level[l]].level;
    double sec, damage;
    if (!dil__px_fit_evaluate(c, node, f->level, &sec, &damage) || damage > px_budget(c)) return;
    if (best->found && sec >= best->sec) return;
    dil__px_take(best, c->n_layers, node, f->level, sec, damage);
}

/* --- for the search --------------------------------------------------------------------------------------------------------- */

/* The referee's word, in the solver's terms. */
bool dil__px_fit_evaluate(const px_core *c, const int *node, const int *level, double *sec, double *damage) {
    const px_real *r = c->real;
    uint32_t n[DIL_LAYERS_MAX], q[DIL_LAYERS_MAX];
    for (int l = 0; l < c->n_layers; l++) {
        n[l] = (uint32_t)node[l];
        q[l] = (uint32_t)level[l];
    }
    dil_use use;
    if (dil_problem_check(r->p, n, q, &use, NULL) != DIL_OK) return false;
    *sec = r->by_damage ? use.damage : r->by_load ? use.load_max : use.sec;
    *damage = r->by_damage ? 0 : use.damage;
    return true;
}

bool dil__px_fit_round(const px_core *c, const int *node, px_plan *best) {
    px_fit *f = c->real->fit;
    if (!dil__fit_structure(f, node)) return true;
    const double upper = best->found ? best->sec : INFINITY;
    const double bound = dil__fit_bound(f, &f->warm, 300, upper, upper);
    if (bound < upper) dil__fit_round(f, &f->warm, node, best);
    return true;
}

int dil__fit_settle(px_fit *f, const int *node, double upper, int64_t deadline_ns, px_plan *best, double *lost) {
    if (!dil__fit_structure(f, node)) return 1;
    double bound = dil__fit_bound(f, &f->warm, 200, upper, upper);
    if (bound >= upper) return 1;
    if (f->has_anchor) { /* the last structure's prices may be far from this one's */
        prices_copy(&f->trial, &f->anchor, f->c->n_nodes);
        const double other = dil__fit_bound(f, &f->trial, 200, upper, upper);
        if (other >= upper) return 1;
        if (other > bound) {
            bound = other;
            prices_copy(&f->warm, &f->trial, f->c->n_nodes);
        }
    }
    f->by_damage_warm.base_damage = 1;
    if (f->cap_damage < INFINITY && dil__fit_bound(f, &f->by_damage_warm, 60, f->cap_damage, f->cap_damage) > f->cap_damage) return 1;
    const uint64_t before = f->n_labels;
    f->n_rooms = 0;
    for (double room = 2e-3;; room *= 3) {
        if (f->n_rooms == 0 && f->n_labels - before > FEW_LABELS) { /* not an easy one: knapsacks pay */
            bound = fmax(bound, dil__fit_rooms(f, &f->warm, upper));
            if (bound >= upper) return 1;
            room = 2e-3;
        }
        const double limit = room < 1e3 ? fmin(upper, bound + room * fabs(bound) + 1e-12) : upper;
        const int rc = dil__fit_labels(f, &f->warm, f->cap_damage < INFINITY ? &f->by_damage_warm : NULL, node, limit, deadline_ns, best);
        if (rc < 0) return -1;
        if (rc == 0) *lost = fmin(*lost, bound);
        if (rc == 0 || limit >= upper || (best->found && best->sec <= limit)) return 1;
        bound = fmax(bound, limit);
        if (!dil__fit_structure(f, node)) return 1; /* labels leave only the levels that were in their limit */
    }
}

bool dil__px_fit_leaf(px_tree *t, const int *node) {
    t->n_leaves++;
    const uint64_t before = t->c->real->fit->n_labels;
    const int rc = dil__fit_settle(t->c->real->fit, node, px_target(t), t->deadline_ns, t->best, &t->lost);
    t->n_fronts += t->c->real->fit->n_labels > before;
    return rc >= 0;
}
