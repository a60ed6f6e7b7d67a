/* Why a plan is as it is. Every gain comes from a plan: the budget is widened, the problem is built again from the changed measurements and
 * solved from the old plan on. Dual values of a relaxation were rejected: with whole layers they promise what no plan can have. */
#include "plan/problem_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SAME 1e-6 /* relative: a gain below is none */

typedef struct study {
    const dil_profile *prof;  /* NULL with all of the next three: a bare problem */
    const dil_cluster *cluster;
    const dil_plan_options *o;
    const dil_plan *plan;
    const dil_progress *progress;
    double gap;
    dil_problem *p;           /* as it is, with its damage budget; what is changed is put back */
    uint32_t *node_of;        /* [S] in the profile */
    uint32_t *in_cluster;     /* [S] */
    uint32_t *node, *level;   /* [L] the plan in the problem's numbers */
    uint32_t shown[DIL_EXPLAIN_NODES_MAX], n_shown, n_solves;
    double damage_max;
    dil_use use;
    int64_t end_ns;
    dil_explanation *out;
    uint32_t *n;
} study;

/* --- the plan in numbers ------------------------------------------------------------------------------------------------ */

dil_status dil__plan_in_problem(const dil_plan *plan, const dil_profile *prof, const dil_problem *p, const uint32_t *node_of, uint32_t *node,
                                uint32_t *level, dil_err *err)
{
    if (plan->n_layers != prof->n_layers) return dil_fail(err, DIL_EUSAGE, "the plan has %u layers, the profile %u", plan->n_layers, prof->n_layers);
    for (uint32_t l = 0; l < plan->n_layers; l++) {
        uint32_t s = 0, q = 0;
        while (s < p->n_nodes && strcmp(prof->nodes[node_of[s]], plan->layers[l].node) != 0) s++;
        while (q < prof->layers[l].n_levels && strcmp(prof->layers[l].levels[q].name, plan->layers[l].level) != 0) q++;
        if (s == p->n_nodes) return dil_fail(err, DIL_ENOTFOUND, "layer %u: node \"%.100s\" of the plan is not there", l, plan->layers[l].node);
        if (q == prof->layers[l].n_levels)
            return dil_fail(err, DIL_ENOTFOUND, "layer %u: level \"%.100s\" of the plan is not in the profile", l, plan->layers[l].level);
        node[l] = s;
        level[l] = q;
    }
    return DIL_OK;
}

static bool holds(const study *x, uint32_t s)
{
    for (uint32_t l = 0; l < x->p->n_layers; l++) {
        if (x->node[l] == s) return true;
    }
    return false;
}

static double used_bytes(const study *x, uint32_t s)
{
    const dil_problem *p = x->p;
    double bytes = 0, buffer = 0;
    for (uint32_t l = 0; l < p->n_layers; l++) {
        if (x->node[l] != s) continue;
        bytes += p->layer_bytes[(size_t)l * p->n_levels + x->level[l]];
        if (p->buffer_bytes) buffer = fmax(buffer, p->buffer_bytes[l]);
    }
    if (p->tied && x->node[0] == s && x->node[p->n_layers - 1] == s) bytes -= p->shared_bytes[x->level[0]];
    return bytes + buffer;
}

/* --- one changed problem ------------------------------------------------------------------------------------------------ */

/* node: the problem's, DIL_NO_NODE: none. */
static dil_explanation *add(study *x, dil_reason reason, uint32_t node)
{
    dil_explanation *e = &x->out[(*x->n)++];
    const char *name = node == DIL_NO_NODE || !x->cluster ? NULL : x->cluster->nodes[x->in_cluster[node]].name;
    *e = (dil_explanation){.reason = reason, .node = name, .index = node, .used = NAN, .limit = NAN, .more = NAN, .token_sec = NAN};
    return e;
}

static const char *name_of(const study *x, uint32_t s, char out[120])
{
    if (x->cluster) snprintf(out, 120, "%.100s", x->cluster->nodes[x->in_cluster[s]].name);
    else snprintf(out, 120, "node %u", s);
    return out;
}

/* Solves the changed problem from the plan on and fills the figures of e. `cluster` is the changed one, for the figures. */
static dil_status solve_changed(study *x, dil_problem *p, const dil_cluster *cluster, dil_explanation *e, dil_err *err)
{
    double left = (double)(x->end_ns - dil_now_ns()) * 1e-9 / (x->n_solves ? x->n_solves : 1);
    if (x->n_solves) x->n_solves--;
    dil_solve_options so = {.goal = DIL_GOAL_SEC, .limit_sec = fmax(left, 0.05), .gap = x->gap, .start_node = x->node,
                            .start_level = x->level, .progress = x->progress};
    dil_solution *s = NULL;
    dil_plan *plan = NULL;
    dil_status ok = dil_plan_solve(p, &so, &s, err);
    if (ok == DIL_ETIMEOUT) { /* the old plan is within the wider budgets: there is a plan, and nothing better was found */
        if (x->plan) e->token_sec = x->plan->token_sec;
        e->total_sec = x->use.sec;
        return DIL_OK;
    }
    if (ok == DIL_OK && cluster) ok = dil__plan_unbudgeted(x->prof, cluster, x->o, s, x->node_of, &plan, err);
    if (ok == DIL_OK) {
        if (plan) e->token_sec = plan->token_sec;
        e->total_sec = s->objective;
        e->bound_sec = s->bound;
        e->proved = s->optimal;
    }
    dil_plan_free(plan);
    dil_solution_free(s);
    return ok;
}

static void say(const study *x, dil_explanation *e, const char *what)
{
    double before = x->use.sec, gain = before - e->total_sec;
    e->binds = gain > SAME * before;
    if (e->binds && !x->plan)
        snprintf(e->text, sizeof e->text, "%s saves %s%.3g s (%.1f %%)", what, e->proved ? "" : "at least ", gain, 100 * gain / before);
    else if (e->binds)
        snprintf(e->text, sizeof e->text, "%s saves %s%.3g ms a token, %.3g s an answer (%.1f %%)", what, e->proved ? "" : "at least ",
                 1e3 * (x->plan->token_sec - e->token_sec), gain, 100 * gain / before);
    else if (e->proved) snprintf(e->text, sizeof e->text, "%s saves nothing (at most %.2g %%)", what, 100 * fmax(0, 1 - e->bound_sec / before));
    else snprintf(e->text, sizeof e->text, "%s: no faster plan was found in the time (at best %.1f %% less)", what, 100 * fmax(0, 1 - e->bound_sec / before));
}

/* A tenth of v, rounded to 1, 2 or 5 times a power of ten; at least 1. */
static double round_step(double v)
{
    double base = pow(10, floor(log10(fmax(v, 1) / 10))), m = v / 10 / base;
    return fmax(1, base * (m < 1.5 ? 1 : m < 3.5 ? 2 : m < 7.5 ? 5 : 10));
}

static dil_status more_memory(study *x, uint32_t s, dil_err *err)
{
    char what[300], bytes[32], name[120];
    double was = x->p->store_bytes[s], step = round_step(was);
    dil_explanation *e = add(x, DIL_REASON_MEMORY, s);
    e->used = used_bytes(x, s);
    e->limit = was;
    e->more = step;
    x->p->store_bytes[s] += step;
    dil_status ok = solve_changed(x, x->p, x->cluster, e, err);
    x->p->store_bytes[s] = was;
    snprintf(what, sizeof what, "%s more memory on %s", dil_format_bytes((uint64_t)step, bytes), name_of(x, s, name));
    say(x, e, what);
    return ok;
}

/* The measurements with the node's links twice as fast, built and solved again. */
static dil_status solve_fast_links(study *x, uint32_t s, dil_explanation *e, dil_err *err)
{
    const dil_cluster *c = x->cluster;
    dil_cluster fast = *c;
    dil_problem *p = NULL;
    fast.links = calloc(c->n_links + 1u, sizeof *fast.links);
    if (!fast.links) return dil_fail(err, DIL_EMEMORY, "explain: out of memory");
    memcpy(fast.links, c->links, c->n_links * sizeof *fast.links);
    for (uint32_t i = 0; i < c->n_links; i++) {
        dil_cluster_link *k = &fast.links[i];
        if (k->from != x->in_cluster[s] && k->to != x->in_cluster[s]) continue;
        k->latency_sec /= 2;
        k->bytes_per_sec *= 2;
    }
    dil_status ok = dil_problem_from_profile(x->prof, &fast, x->o, &p, NULL, err);
    if (ok == DIL_OK) {
        p->damage_max = x->damage_max;
        ok = solve_changed(x, p, &fast, e, err);
    }
    dil_problem_free(p);
    free(fast.links);
    return ok;
}

/* Doubling is exact, so halved and doubled numbers are the old ones again. */
static void scale_links(dil_problem *p, uint32_t s, double factor)
{
    for (uint32_t i = 0; i < p->n_hops; i++) {
        if (p->hops[i].from != s && p->hops[i].to != s) continue;
        p->hops[i].sec *= factor;
        p->hops[i].head_sec *= factor;
    }
    p->source_sec[s] *= factor;
    p->sink_sec[s] *= factor;
}

static dil_status faster_links(study *x, uint32_t s, dil_err *err)
{
    char what[300], name[120];
    dil_explanation *e = add(x, DIL_REASON_LINKS, s);
    dil_status ok;
    e->more = 2;
    if (x->cluster) {
        ok = solve_fast_links(x, s, e, err);
    } else {
        scale_links(x->p, s, 0.5);
        ok = solve_changed(x, x->p, NULL, e, err);
        scale_links(x->p, s, 2);
    }
    snprintf(what, sizeof what, "links of %s twice as fast", name_of(x, s, name));
    say(x, e, what);
    return ok;
}

static dil_status wider_budget(study *x, dil_reason reason, double used, double *budget, double step, const char *what, dil_err *err)
{
    if (isinf(*budget)) return DIL_OK;
    double was = *budget;
    dil_explanation *e = add(x, reason, DIL_NO_NODE);
    e->used = used;
    e->limit = was;
    e->more = step;
    *budget = was + step;
    dil_status ok = solve_changed(x, x->p, x->cluster, e, err);
    *budget = was;
    say(x, e, what);
    return ok;
}

static dil_status wider_budgets(study *x, dil_err *err)
{
    dil_problem *p = x->p;
    char what[200], a[32];
    double step = p->damage_max > 0 && isfinite(p->damage_max) ? 0.1 * p->damage_max : 0.01;
    snprintf(what, sizeof what, "%.3g more damage allowed", step);
    dil_status ok = wider_budget(x, DIL_REASON_DAMAGE, x->use.damage, &p->damage_max, step, what, err);
    step = isfinite(p->file_bytes_max) ? round_step(p->file_bytes_max) : 0;
    snprintf(what, sizeof what, "a file larger by %s", dil_format_bytes((uint64_t)step, a));
    if (ok == DIL_OK) ok = wider_budget(x, DIL_REASON_SIZE, x->use.file_bytes, &p->file_bytes_max, step, what, err);
    snprintf(what, sizeof what, "0.05 more load allowed");
    return ok == DIL_OK ? wider_budget(x, DIL_REASON_LOAD, x->use.load_max, &p->load_max, 0.05, what, err) : ok;
}

/* --- nodes without layers ----------------------------------------------------------------------------------------------- */

typedef struct detour {
    double sec, over_bytes; /* least delay of a run that fits; least shortage of memory of one that does not */
    uint32_t first, last;
    bool reachable;
} detour;

/* One run of layers moves to s, at the plan's levels. */
static detour best_detour(study *x, uint32_t s, uint32_t *node)
{
    const dil_problem *p = x->p;
    detour d = {.sec = INFINITY, .over_bytes = INFINITY};
    for (uint32_t first = 0; first < p->n_layers; first++) {
        memcpy(node, x->node, p->n_layers * sizeof *node);
        for (uint32_t last = first; last < p->n_layers; last++) {
            dil_use u = {0};
            node[last] = s;
            dil_status ok = dil_problem_check(p, node, x->level, &u, NULL);
            d.reachable = d.reachable || u.connected;
            if (ok != DIL_OK && u.connected && u.over_store_bytes > 0) d.over_bytes = fmin(d.over_bytes, u.over_store_bytes);
            if (ok != DIL_OK || u.sec >= d.sec) continue;
            d.sec = u.sec;
            d.first = first;
            d.last = last;
        }
    }
    return d;
}

/* Seconds of the run's computing there less where it is now. */
static double compute_difference(const study *x, uint32_t s, const detour *d)
{
    double sec = 0;
    for (uint32_t l = d->first; l <= d->last; l++)
        sec += x->p->layer_sec[dil__cell(x->p, l, s, x->level[l])] - x->p->layer_sec[dil__cell(x->p, l, x->node[l], x->level[l])];
    return sec;
}

static dil_status left_out(study *x, uint32_t s, dil_err *err)
{
    char bytes[32], name[120];
    uint32_t *node = calloc(x->p->n_layers, sizeof *node);
    if (!node) return dil_fail(err, DIL_EMEMORY, "explain: out of memory");
    dil_explanation *e = add(x, DIL_REASON_LEFT_OUT, s);
    name_of(x, s, name);
    detour d = best_detour(x, s, node);
    free(node);
    e->total_sec = d.sec;
    if (!d.reachable) snprintf(e->text, sizeof e->text, "%s is left out: no links lead to it and back", name);
    else if (isinf(d.sec) && isfinite(d.over_bytes))
        snprintf(e->text, sizeof e->text, "%s is left out: its memory is short by %s for even one run of layers with its buffer", name,
                 dil_format_bytes((uint64_t)d.over_bytes, bytes));
    else if (isinf(d.sec)) snprintf(e->text, sizeof e->text, "%s is left out: with any run of layers there a load limit would break", name);
    else {
        double compute = compute_difference(x, s, &d), rest = d.sec - x->use.sec - compute;
        snprintf(e->text, sizeof e->text, "%s is left out: the least costly way to use it, layers %u to %u, takes %.3g s longer%s "
                 "(computing %+.3g s, links and waiting %+.3g s)", name, d.first, d.last, d.sec - x->use.sec, x->plan ? " an answer" : "", compute, rest);
    }
    return DIL_OK;
}

/* --- the whole ---------------------------------------------------------------------------------------------------------- */

static dil_status set_damage(study *x, dil_err *err)
{
    dil_solution *least = NULL;
    dil_status s = dil__plan_set_quality(x->p, x->o, &least, err);
    dil_solution_free(least);
    x->damage_max = x->p->damage_max;
    return s;
}

static void pick_nodes(study *x)
{
    for (int pass = 0; pass < 2; pass++) {
        for (uint32_t s = 0; s < x->p->n_nodes && x->n_shown < DIL_EXPLAIN_NODES_MAX; s++) {
            if (holds(x, s) == (pass == 0)) x->shown[x->n_shown++] = s;
        }
    }
}

/* With the problem and the plan in its numbers. */
static dil_status explain(study *x, dil_err *err)
{
    dil_status ok = dil_problem_check(x->p, x->node, x->level, &x->use, err);
    if (ok != DIL_OK) return ok;
    pick_nodes(x);
    const double budget[] = {x->p->damage_max, x->p->file_bytes_max, x->p->load_max};
    x->n_solves = 2 * x->n_shown;
    for (int i = 0; i < 3; i++) x->n_solves += isfinite(budget[i]) ? 1 : 0;
    ok = wider_budgets(x, err);
    for (uint32_t i = 0; i < x->n_shown && ok == DIL_OK; i++) ok = more_memory(x, x->shown[i], err);
    for (uint32_t i = 0; i < x->n_shown && ok == DIL_OK; i++) ok = faster_links(x, x->shown[i], err);
    for (uint32_t i = 0; i < x->n_shown && ok == DIL_OK; i++) {
        if (!holds(x, x->shown[i])) ok = left_out(x, x->shown[i], err);
    }
    return ok;
}

static dil_status explain_measured(study *x, dil_err *err)
{
    for (uint32_t s = 0; s < x->p->n_nodes; s++) x->in_cluster[s] = dil_cluster_find(x->cluster, x->prof->nodes[x->node_of[s]]);
    dil_status ok = dil__plan_in_problem(x->plan, x->prof, x->p, x->node_of, x->node, x->level, err);
    if (ok == DIL_OK) ok = set_damage(x, err);
    return ok == DIL_OK ? explain(x, err) : ok;
}

dil_status dil_plan_explain(const dil_profile *profile, const dil_cluster *cluster, const dil_plan_options *options, const dil_plan *plan,
                            dil_explanation *out, uint32_t *n, dil_err *err)
{
    study x = {.prof = profile, .cluster = cluster, .o = options, .plan = plan, .out = out, .n = n, .gap = dil__plan_gap(options), .progress = options->progress,
               .end_ns = dil_now_ns() + (int64_t)(options->limit_sec * 1e9)};
    *n = 0;
    x.node_of = calloc(profile->n_nodes, sizeof *x.node_of);
    x.in_cluster = calloc(profile->n_nodes, sizeof *x.in_cluster);
    x.node = calloc(profile->n_layers, sizeof *x.node);
    x.level = calloc(profile->n_layers, sizeof *x.level);
    dil_status s = x.node_of && x.in_cluster && x.node && x.level ? DIL_OK : dil_fail(err, DIL_EMEMORY, "explain: out of memory");
    if (s == DIL_OK) s = dil_problem_from_profile(profile, cluster, options, &x.p, x.node_of, err);
    if (s == DIL_OK) s = explain_measured(&x, err);
    dil_problem_free(x.p);
    free(x.node_of);
    free(x.in_cluster);
    free(x.node);
    free(x.level);
    return s;
}

dil_status dil_problem_explain(const dil_problem *p, const dil_solve_options *options, const uint32_t *node, const uint32_t *level, dil_explanation *out, uint32_t *n,
                               dil_err *err)
{
    size_t S = p->n_nodes, L = p->n_layers;
    dil_problem mine = *p;
    study x = {.p = &mine, .gap = options->gap, .progress = options->progress, .out = out, .n = n, .damage_max = p->damage_max,
               .end_ns = dil_now_ns() + (int64_t)(options->limit_sec * 1e9)};
    *n = 0;
    double *room = calloc(3 * S, sizeof *room);
    dil_hop *hops = calloc(p->n_hops + 1u, sizeof *hops);
    uint32_t *plan = calloc(2 * L, sizeof *plan);
    dil_status s = room && hops && plan ? DIL_OK : dil_fail(err, DIL_EMEMORY, "explain: out of memory");
    if (s == DIL_OK) {
        mine.store_bytes = memcpy(room, p->store_bytes, S * sizeof *room);
        mine.source_sec = memcpy(room + S, p->source_sec, S * sizeof *room);
        mine.sink_sec = memcpy(room + 2 * S, p->sink_sec, S * sizeof *room);
        mine.hops = hops;
        if (p->n_hops > 0) memcpy(hops, p->hops, p->n_hops * sizeof *hops);
        x.node = memcpy(plan, node, L * sizeof *plan);
        x.level = memcpy(plan + L, level, L * sizeof *plan);
        s = explain(&x, err);
    }
    free(room);
    free(hops);
    free(plan);
    return s;
}
