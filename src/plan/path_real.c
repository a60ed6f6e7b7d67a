/* plan/path_real.c - measured problems for the solver `path`.
 *
 * What px_core cannot say is priced into its seconds (file size, slowest node's chunk, load) at multipliers found on structures, or
 * split into cases: a tied head gives one case for each level of the table and each node of the first layer, and in a case the head's
 * bytes on that node lack what is shared. Cases are searched in the order of their bounds; structures are settled under every
 * budget by path_fit.c. */
#include "plan/path_real.h"

#include <stdlib.h>
#include <string.h>

#define TOLERANCE 0.9e-9

enum { ROOT_UNITS = 256, CASE_UNITS = 512, TREE_UNITS = 2048, BUSY_ROUNDS = 400 };

static double file_bytes(const dil_problem *p, size_t lq) { return p->file_bytes ? p->file_bytes[lq] : p->layer_bytes[lq]; }

static bool job_alloc(px_real_job *j) {
    const size_t L = j->p->n_layers, S = j->p->n_nodes, Q = j->p->n_levels;
    struct { double **v; size_t n; } all[] = {{&j->bytes, L * Q}, {&j->sec, S * L * Q}, {&j->damage, L * Q}, {&j->store, S}, {&j->hop, S * S},
                                              {&j->file, L * Q}, {&j->feasible_price, S}, {&j->head_hop, S * S}, {&j->source, S}, {&j->sink, S}, {&j->extra, L}, {&j->home_bytes, Q}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (!(*all[i].v = dil__px_alloc(all[i].n, sizeof(double)))) return false;
    j->best.node = dil__px_alloc(L, sizeof(int));
    j->best.level = dil__px_alloc(L, sizeof(int));
    j->twin = dil__px_alloc(S, sizeof *j->twin);
    j->list = dil__px_alloc(j->p->tied ? S * S * Q : 1, sizeof *j->list);
    return j->best.node && j->best.level && j->twin && j->list;
}

static void job_fini(px_real_job *j) {
    void *all[] = {j->bytes, j->sec, j->damage, j->file, j->feasible_price, j->store, j->hop, j->head_hop, j->source, j->sink, j->extra, j->home_bytes, j->best.node,
                   j->best.level, j->twin, j->list};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

/* --- numbers ------------------------------------------------------------------------------------------------------------ */

static void fill_stores(px_real_job *j) {
    const dil_problem *p = j->p;
    double least = INFINITY;
    for (uint32_t l = 0; l < p->n_layers; l++) least = fmin(least, p->buffer_bytes ? p->buffer_bytes[l] : 0);
    for (uint32_t l = 0; l < p->n_layers; l++) j->extra[l] = p->buffer_bytes ? p->buffer_bytes[l] - least : 0;
    for (uint32_t s = 0; s < p->n_nodes; s++) j->store[s] = p->store_bytes[s] * (1 + TOLERANCE) - least;
}

static void fill_hops(px_real_job *j) {
    const dil_problem *p = j->p;
    const size_t S = p->n_nodes;
    for (size_t i = 0; i < S * S; i++) j->hop[i] = j->head_hop[i] = INFINITY;
    for (size_t s = 0; s < S; s++) {
        j->hop[s * S + s] = j->head_hop[s * S + s] = 0;
        j->source[s] = j->free_hops && isfinite(p->source_sec[s]) ? 0 : p->source_sec[s];
        j->sink[s] = j->free_hops && isfinite(p->sink_sec[s]) ? 0 : p->sink_sec[s];
    }
    for (uint32_t i = 0; i < p->n_hops; i++) {
        const dil_hop *h = &p->hops[i];
        const double share[] = {1, p->head_share};
        double *to[] = {&j->hop[h->from * S + h->to], &j->head_hop[h->from * S + h->to]};
        const double sec[] = {h->sec, h->head_sec};
        for (int k = 0; k < 2; k++) {
            double load = h->load;
            if (p->out_load) load = fmax(load, p->out_load[h->from]);
            if (p->in_load) load = fmax(load, p->in_load[h->to]);
            if (share[k] * load <= j->real.load_max) *to[k] = j->free_hops ? 0 : sec[k];
        }
    }
}

static void fill_core(px_real_job *j) {
    const dil_problem *p = j->p;
    fill_stores(j);
    fill_hops(j);
    j->real.sec = j->sec;
    double most = 0;
    for (size_t l = 0; l < p->n_layers; l++) {
        double worst = 0;
        for (size_t q = 0; q < p->n_levels; q++) {
            const size_t lq = l * p->n_levels + q;
            const bool is = q < p->level_count[l];
            j->damage[lq] = !is ? 0 : j->file_first ? file_bytes(p, lq) : p->damage[lq];
            j->file[lq] = is ? file_bytes(p, lq) : 0;
            worst = fmax(worst, j->damage[lq]);
        }
        most += worst;
    }
    const double budget = j->file_first ? p->file_bytes_max : p->damage_max;
    j->core = (px_core){.n_layers = (int)p->n_layers, .n_nodes = (int)p->n_nodes, .n_levels = (int)p->n_levels, .bytes = j->bytes,
                        .sec = j->sec, .damage = j->damage, .store = j->store, .hop = j->hop, .head_hop = j->head_hop, .source = j->source,
                        .sink = j->sink, .extra = j->extra, .file = j->file, .file_max = j->file_first ? INFINITY : j->real.file_max, .damage_max = fmin(most, budget * (1 + TOLERANCE)), .real = &j->real};
}

void dil__px_allow(px_real_job *j, int level, int first, int last) {
    const int home = first >= 0 && first == last ? first : -1;
    const dil_problem *p = j->p;
    const size_t L = p->n_layers, Q = p->n_levels;
    for (size_t l = 0; l < L; l++)
        for (size_t q = 0; q < Q; q++) {
            const bool end = p->tied && (l == 0 || l + 1 == L), is = q < p->level_count[l] && !(end && level >= 0 && q != (size_t)level);
            double bytes = is ? p->layer_bytes[l * Q + q] : INFINITY;
            if (is && p->tied && l + 1 == L && first < 0) bytes = fmax(0, bytes - p->shared_bytes[q]);
            j->bytes[l * Q + q] = bytes;
            if (p->tied && l + 1 == L) j->home_bytes[q] = is ? fmax(0, p->layer_bytes[l * Q + q] - p->shared_bytes[q]) : INFINITY;
        }
    for (uint32_t s = 0; s < p->n_nodes; s++) {
        const bool may = first < 0 || (int)s == first, may_end = last < 0 || (int)s == last;
        j->source[s] = !may || isinf(p->source_sec[s]) ? INFINITY : j->free_hops ? 0 : p->source_sec[s];
        j->sink[s] = !may_end || isinf(p->sink_sec[s]) ? INFINITY : j->free_hops ? 0 : p->sink_sec[s];
    }
    j->core.home_bytes = home >= 0 ? j->home_bytes : NULL;
    j->core.home = home;
    j->core.has_ends = first >= 0;
    j->core.first_node = first;
    j->core.last_node = last;
    j->core.twin = dil__px_find_twins(&j->core, j->twin) ? j->twin : NULL;
    if (first < 0) return;
    j->core.first_bytes = j->bytes[level];
    j->core.last_bytes = home >= 0 ? j->home_bytes[level] : j->bytes[(L - 1) * Q + (size_t)level];
}

double dil__px_target(const px_real_job *j) { return j->best.found ? j->best.sec * (1 - j->options.gap) : INFINITY; }

/* --- cases -------------------------------------------------------------------------------------------------------------- */

static int by_bound(const void *a, const void *b) {
    const px_case *x = a, *y = b;
    return x->bound < y->bound ? -1 : x->bound > y->bound;
}

/* The relaxation of all cases together: multipliers, and whether there is a way at all. */
static bool relax_all(px_real_job *j) {
    px_graph g;
    dil__px_allow(j, -1, -1, -1);
    bool ok = dil__px_graph_init(&j->core, &g);
    if (ok && j->by_damage) {
        px_root r = {.c = &j->core, .g = &g, .best = &j->best, .n_units = ROOT_UNITS, .deadline_ns = j->options.deadline_ns};
        dil__px_price(&j->core, &j->dual.y);
        ok = dil__px_root_init(&r) && dil__px_root_run(&r, 40);
        if (ok) {
            j->dual.y.damage = r.best_damage;
            j->dual.bound = r.bound;
            j->dual.no_path = r.no_path;
            memcpy(j->dual.price, r.best_price, j->p->n_nodes * sizeof *r.best_price);
        }
        dil__px_root_fini(&r);
    } else if (ok) {
        j->dual.n_units = ROOT_UNITS;
        ok = dil__px_dual_run(&j->dual, &j->core, &g, &j->best, 80, j->options.deadline_ns);
        if (ok) dil__fit_set_anchor(j->real.fit, &j->dual.y);
    }
    dil__px_graph_fini(&g);
    dil_log(DIL_LOG_DEBUG, "path", "all cases: bound %.6g, best %.6g, %llu structures", j->dual.bound, j->best.found ? j->best.sec : INFINITY,
            (unsigned long long)j->real.fit->n_fits);
    return ok;
}

/* The least seconds of each case at those multipliers. */
static bool list_cases(px_real_job *j) {
    const dil_problem *p = j->p;
    bool ok = true;
    if (!p->tied) {
        j->list[j->n_cases++] = (px_case){j->dual.bound, -1, -1, -1};
        return true;
    }
    for (uint32_t q = 0; ok && q < p->level_count[0]; q++) {
        px_graph g;
        px_weight w = {.file = j->core.file_max < INFINITY ? j->dual.y.file : 0};
        dil__px_allow(j, (int)q, -1, -1);
        ok = dil__px_graph_init(&j->core, &g) &&
             dil__px_weight_init(&j->core, &g, &w, 1, j->dual.y.damage, j->dual.price, ROOT_UNITS);
        for (uint32_t s = 0; ok && s < p->n_nodes; s++) {
            const double root = dil__px_root_from(&j->core, &g, &w, (int)s);
            const int *twin = j->core.twin;
            if (root == INFINITY || (twin && twin[s] >= 0)) continue;
            for (uint32_t t = 0; t < p->n_nodes; t++)
                if (p->sink_sec[t] < INFINITY && (!twin || twin[t] < 0 || twin[t] == (int)s))
                    j->list[j->n_cases++] = (px_case){fmax(j->dual.bound, px_seconds(&j->core, &w, root)), (int)q, (int)s, (int)t};
        }
        dil__px_weight_fini(&w);
        dil__px_graph_fini(&g);
    }
    if (j->n_cases > 1) qsort(j->list, j->n_cases, sizeof *j->list, by_bound);
    return ok;
}

/* Multipliers that bound the damage of what fits, from the structure of the best plan. */
static void find_feasible(px_real_job *j) {
    px_fit *f = j->real.fit;
    if (!j->best.found || !dil__fit_structure(f, j->best.node)) return;
    f->by_damage_warm.base_damage = 1;
    dil__fit_bound(f, &f->by_damage_warm, 300, f->cap_damage, INFINITY);
    j->feasible_file = f->by_damage_warm.file;
    for (uint32_t s = 0; s < j->p->n_nodes; s++) j->feasible_price[s] = f->by_damage_warm.node[s][PF_BYTES];
}

static bool make_weights(px_real_job *j, const px_graph *g, px_weight *w, int *n) {
    static const double factor[] = {1, 0.7, 1.4};
    const px_core *c = &j->core;
    const bool has_file = c->file_max < INFINITY;
    *n = 0;
    for (size_t i = 0; i < sizeof factor / sizeof *factor; i++) {
        if (i > 0 && j->dual.y.damage <= 0) break;
        w[*n].file = has_file ? j->dual.y.file : 0;
        if (!dil__px_weight_init(c, g, &w[(*n)++], 1, j->dual.y.damage * factor[i], j->dual.price, TREE_UNITS)) return false;
    }
    if (c->damage_max <= 0 && !has_file) return true;
    w[*n].file = has_file ? j->feasible_file : 0;
    return dil__px_weight_init(c, g, &w[(*n)++], 0, 1, j->feasible_price, TREE_UNITS);
}

/* One case, its numbers in j->core. */
static bool solve_case(px_real_job *j, px_report *report) {
    px_core *c = &j->core;
    px_graph g;
    px_weight w[PX_WEIGHTS_MAX] = {0}, leaf_w = {.sec = 1, .n_units = TREE_UNITS};
    px_tree t = {.c = c, .g = &g, .w = w, .leaf_w = &leaf_w, .n_leaf_w = 1, .best = &j->best, .stop_at = j->options.stop_at,
                 .rel_gap = j->options.gap, .lost = INFINITY, .deadline_ns = j->options.deadline_ns, .progress = j->options.progress};
    const int64_t t0 = dil_now_ns();
    bool ok = dil__px_graph_init(c, &g);
    dil__px_weight_fini(&j->dual.w);
    j->dual.n_units = CASE_UNITS;
    ok = ok && dil__px_dual_run(&j->dual, c, &g, &j->best, 120, j->options.deadline_ns);
    if (ok) dil__fit_set_anchor(j->real.fit, &j->dual.y);
    report->root_bound = j->dual.bound;
    report->root_sec = (double)(dil_now_ns() - t0) * 1e-9;
    report->complete = true;
    report->bound = j->dual.no_path ? INFINITY : j->dual.bound;
    if (ok && !j->dual.no_path && report->bound < px_target(&t)) {
        ok = make_weights(j, &g, w, &t.n_w);
        for (int k = 0; ok && k < t.n_w; k++) report->bound = fmax(report->bound, px_seconds(c, &w[k], w[k].root));
        ok = ok && dil__px_tree_run(&t);
        report->bound = fmax(report->bound, fmin(t.lost, px_target(&t)));
        report->complete = t.lost == INFINITY || (j->best.found && t.lost >= px_target(&t));
        report->canceled = t.canceled;
    }
    report->n_nodes = t.n_nodes;
    report->n_leaves = t.n_leaves;
    report->n_fronts = t.n_fronts;
    for (int k = 0; k < PX_WEIGHTS_MAX; k++) dil__px_weight_fini(&w[k]);
    dil__px_graph_fini(&g);
    return ok;
}

static bool search_damage(px_real_job *j, int64_t deadline) {
    const px_core *c = &j->core;
    int *order = dil__px_alloc((size_t)(c->n_nodes + c->n_layers), sizeof *order);
    if (!order) return false;
    int *node = order + c->n_nodes;
    bool ok = true;
    for (int s = 0; ok && s < c->n_nodes; s++) {
        const double enough = fmax(j->options.stop_at, j->dual.bound * (1 + j->options.gap));
        if (!(c->source[s] < INFINITY) || (j->best.found && j->best.sec <= enough)) continue;
        dil__px_proportional(c, s, c->n_nodes, order, node);
        if (j->p->tied) node[c->n_layers - 1] = node[0];
        ok = dil__px_least_damage(c, node, enough, 20, deadline, &j->best);
        if (!ok || !j->best.found || j->best.sec <= enough) continue;
        memcpy(node, j->best.node, (size_t)c->n_layers * sizeof *node);
        double lost = INFINITY;
        ok = dil__fit_settle(j->real.fit, node, j->best.sec, deadline, &j->best, &lost) >= 0;
    }
    free(order);
    return ok;
}

/* Damage: what each level of a tied table needs if all stores were one. */
static bool raise_bounds(px_real_job *j) {
    for (size_t i = 0; i < j->n_cases; i++) {
        bool done = false;
        for (size_t k = 0; k < i && !done; k++)
            if (j->list[k].level == j->list[i].level) {
                j->list[i].bound = fmax(j->list[i].bound, j->list[k].bound);
                done = true;
            }
        if (done || j->list[i].bound >= dil__px_target(j)) continue;
        dil__px_allow(j, j->list[i].level, -1, -1);
        if (!dil__px_merged_damage(&j->core, j->list[i].bound, dil__px_target(j), j->options.deadline_ns, &j->list[i].bound)) return false;
    }
    if (j->n_cases > 1) qsort(j->list, j->n_cases, sizeof *j->list, by_bound);
    if (j->n_cases > 0) j->dual.bound = fmax(j->dual.bound, j->list[0].bound);
    return true;
}

/* Throughput: with whole layers on every node, for all cases together and then for each. */
static bool raise_busy(px_real_job *j) {
    const int64_t now = dil_now_ns(), tenth = (j->options.deadline_ns - now) / 10;
    px_busy all = {.deadline_ns = now + tenth}, one = {.deadline_ns = now + 2 * tenth};
    const double target = dil__px_target(j);
    dil__px_allow(j, -1, -1, -1);
    bool ok = dil__px_busy_bound(&j->core, target, BUSY_ROUNDS, &j->dual.y, &all);
    dil_log(DIL_LOG_DEBUG, "path", "busiest node: bound %.6g -> %.6g, best %.6g", j->dual.bound, all.bound, j->best.sec);
    for (size_t i = 0; ok && i < j->n_cases; i++) {
        px_case *k = &j->list[i];
        k->bound = fmax(k->bound, all.bound);
        if (!j->p->tied || k->bound >= target || dil_now_ns() > one.deadline_ns) continue;
        dil__px_allow(j, k->level, k->first, k->last);
        ok = dil__px_busy_bound(&j->core, target, BUSY_ROUNDS / 4, &j->dual.y, &one);
        k->bound = fmax(k->bound, one.bound);
        dil_log(DIL_LOG_DEBUG, "path", "busiest node: level %d, ends on %d and %d: %.6g", k->level, k->first, k->last, k->bound);
    }
    if (j->n_cases > 1) qsort(j->list, j->n_cases, sizeof *j->list, by_bound);
    free(all.z);
    free(one.z);
    return ok;
}

/* First plans, at the levels of a tied table that promise most. */
static bool search_locally(px_real_job *j) {
    const int64_t now = dil_now_ns(), deadline = now + (j->options.deadline_ns - now) / 4;
    int levels[3], n = 0;
    for (size_t i = 0; i < j->n_cases && n < 3; i++) {
        bool is_new = true;
        for (int k = 0; k < n; k++) is_new = is_new && levels[k] != j->list[i].level;
        if (is_new) levels[n++] = j->list[i].level;
    }
    for (int i = 0; i < n; i++) {
        if (j->best.found && j->best.sec <= j->options.stop_at) break;
        dil__px_allow(j, levels[i], -1, -1);
        if (j->by_damage) {
            if (!search_damage(j, deadline)) return false;
        } else if (!dil__px_local_search(&j->core, &j->best, j->dual.node, j->options.gap, deadline)) return false;
        dil_log(DIL_LOG_DEBUG, "path", "local search, level %d: bound %.6g, best %.6g, %.2f s", levels[i], j->dual.bound, j->best.found ? j->best.sec : INFINITY, (double)(dil_now_ns() - now) * 1e-9);
    }
    return true;
}

static dil_status run_cases(px_real_job *j, double *bound, bool *complete, dil_err *err) {
    double least = INFINITY;
    *complete = true;
    for (size_t i = 0; i < j->n_cases; i++) {
        const px_case k = j->list[i];
        px_report report = {0};
        if (k.bound >= dil__px_target(j) || (j->best.found && j->best.sec <= j->options.stop_at)) {
            least = fmin(least, k.bound);
            break;
        }
        if (dil_now_ns() > j->options.deadline_ns) {
            least = fmin(least, k.bound);
            *complete = false;
            break;
        }
        dil__trail_bound(j->job->trail, fmin(least, k.bound));
        dil__px_allow(j, k.level, k.first, k.last);
        if (j->by_damage) {
            dil__px_price(&j->core, &j->real.fit->warm);
            dil_status s = dil__px_solve(&j->core, &j->options, &j->best, &report, err);
            if (s != DIL_OK) return s;
        } else if (!solve_case(j, &report)) {
            return dil_fail(err, DIL_EMEMORY, "path: out of memory for %u layers on %u nodes", j->p->n_layers, j->p->n_nodes);
        }
        dil_log(DIL_LOG_DEBUG, "path", "level %d, ends on %d and %d: bound %.6g -> %.6g (root %.6g in %.2f s), best %.6g; %llu nodes, %llu structures, %llu labelled",
                k.level, k.first, k.last, k.bound, report.bound, report.root_bound, report.root_sec, j->best.found ? j->best.sec : INFINITY, (unsigned long long)report.n_nodes,
                (unsigned long long)report.n_leaves, (unsigned long long)report.n_fronts);
        if (report.canceled) return dil_fail(err, DIL_ECANCELED, "path: canceled");
        least = fmin(least, fmax(k.bound, report.bound));
        if (!report.complete) *complete = false;
    }
    *bound = least;
    return DIL_OK;
}

static void take_start(px_real_job *j) {
    const dil__job *job = j->job;
    if (!job->start_node) return;
    for (int l = 0; l < j->core.n_layers; l++) {
        j->best.node[l] = (int)job->start_node[l];
        j->best.level[l] = (int)job->start_level[l];
    }
    j->best.found = dil__px_fit_evaluate(&j->core, j->best.node, j->best.level, &j->best.sec, &j->best.damage);
    if (j->best.found) dil__trail_plan(job->trail, j->best.sec);
}

/* Without a plan to start from the least damage is sought until it is within the budget: that gives one, or shows that there is none. */
static dil_status find_start(px_real_job *j, dil_err *err) {
    dil__job *job = j->job, least = *job;
    least.goal = DIL_GOAL_DAMAGE;
    least.trail = NULL; /* its plans count when their seconds are known */
    least.limit_sec = 0.5 * job->limit_sec;
    least.cutoff = fmin(j->p->damage_max, 1e300);
    const dil_status s = dil__px_solve_real(&least, err);
    if (s == DIL_OK) {
        job->start_node = job->node;
        job->start_level = job->level;
    }
    return s == DIL_ETIMEOUT ? DIL_OK : s;
}

/* The problem over the nodes that cannot be excluded; done: that was all. */
static dil_status run_few(px_real_job *j, double *bound, bool *complete, bool *done, dil_err *err) {
    const uint32_t L = j->p->n_layers, S = j->p->n_nodes;
    bool *keep = dil__px_alloc(S, sizeof *keep);
    double dropped = INFINITY;
    uint32_t *node = dil__px_alloc((size_t)S + 4 * L, sizeof *node), n = 0;
    dil_problem *few = NULL;
    dil_status s = keep && node ? DIL_OK : DIL_EMEMORY;
    const int left = s == DIL_OK ? dil__px_thin(j, keep, bound, &dropped) : -1;
    if (left < 0) s = dil_fail(err, DIL_EMEMORY, "path: out of memory for %u layers on %u nodes", L, S);
    for (uint32_t i = 0; s == DIL_OK && i < S; i++)
        if (keep[i]) node[n++] = i;
    *complete = s == DIL_OK && *bound >= dil__px_target(j);
    *done = *complete;
    const double sec_left = (double)(j->options.deadline_ns - dil_now_ns()) * 1e-9;
    if (s == DIL_OK && !*done && n < S && sec_left > 0) {
        uint32_t *start = node + S;
        dil__job job = {.goal = j->job->goal, .limit_sec = sec_left, .gap = j->job->gap, .progress = j->job->progress, .trail = j->job->trail, .start_node = start,
                        .start_level = start + L, .node = start + 2 * L, .level = start + 3 * L, .bound = -INFINITY};
        for (uint32_t l = 0; l < L; l++) {
            while (node[start[l]] != (uint32_t)j->best.node[l]) start[l]++;
            start[L + l] = (uint32_t)j->best.level[l];
        }
        if (job.trail) job.trail->cap = fmin(job.trail->cap, dropped);
        s = dil__px_part_of(j->p, node, n, &few, err);
        job.p = few;
        if (s == DIL_OK) s = dil__px_solve_real(&job, err);
        if (s == DIL_OK) {
            int *try_node = j->dual.node, *try_level = (int *)start;
            double sec, damage;
            for (uint32_t l = 0; l < L; l++) {
                try_node[l] = (int)node[job.node[l]];
                try_level[l] = (int)job.level[l];
            }
            dil__px_allow(j, -1, -1, -1);
            if (dil__px_fit_evaluate(&j->core, try_node, try_level, &sec, &damage) && sec < j->best.sec)
                dil__px_take(&j->best, (int)L, try_node, try_level, sec, damage);
            *bound = fmax(*bound, fmin(job.bound, dropped));
        }
        *done = true;
    } else if (s == DIL_OK && !*done && sec_left <= 0) {
        *done = true;
    }
    dil_problem_free(few);
    free(keep);
    free(node);
    return s;
}

static dil_status run(px_real_job *j, double *bound, bool *complete, dil_err *err) {
    take_start(j);
    if (!j->by_damage && j->best.found) {
        dil__px_allow(j, -1, -1, -1);
        dil__px_fit_round(&j->core, j->best.node, &j->best);
        for (uint32_t s = 0; s < j->p->n_nodes; s++) memcpy(j->dual.y.node[s], j->real.fit->warm.node[s], sizeof *j->dual.y.node);
        /* without a damage budget the file's size stands in the damage's place */
        j->dual.y.damage = j->file_first ? j->real.fit->warm.file : j->real.fit->warm.damage;
        j->dual.y.file = j->file_first ? 0 : j->real.fit->warm.file;
        find_feasible(j);
    }
    if (!j->by_damage && j->best.found && j->p->n_nodes > PX_MASK_MAX) {
        bool done;
        const dil_status s = run_few(j, bound, complete, &done, err);
        if (s != DIL_OK || done) return s;
    }
    if (!relax_all(j)) return dil_fail(err, DIL_EMEMORY, "path: out of memory for %u layers on %u nodes", j->p->n_layers, j->p->n_nodes);
    if (j->dual.no_path) return DIL_OK;
    dil__trail_bound(j->job->trail, j->dual.bound);
    if (!list_cases(j)) return dil_fail(err, DIL_EMEMORY, "path: out of memory for %u layers on %u nodes", j->p->n_layers, j->p->n_nodes);
    if (j->by_damage && !raise_bounds(j)) return dil_fail(err, DIL_EMEMORY, "path: out of memory for %u layers on %u nodes", j->p->n_layers, j->p->n_nodes);
    if (!search_locally(j)) return dil_fail(err, DIL_EMEMORY, "path: out of memory for %u layers on %u nodes", j->p->n_layers, j->p->n_nodes);
    if (j->real.by_load && j->best.found && !raise_busy(j)) return dil_fail(err, DIL_EMEMORY, "path: out of memory for %u layers on %u nodes", j->p->n_layers, j->p->n_nodes);
    return run_cases(j, bound, complete, err);
}

static dil_status solve(px_real_job *j, dil_err *err) {
    dil__job *job = j->job;
    double bound = INFINITY;
    bool complete = true;
    px_fit fit = {0};
    dil_status s = DIL_EMEMORY;
    fill_core(j);
    j->real.fit = &fit;
    if (dil__fit_init(&fit, &j->core, &j->real) && dil__px_dual_init(&j->dual, &j->core)) s = run(j, &bound, &complete, err);
    dil_log(DIL_LOG_DEBUG, "path", "%llu structures, %llu labels", (unsigned long long)fit.n_fits, (unsigned long long)fit.n_labels);
    dil__fit_fini(&fit);
    dil__px_dual_fini(&j->dual);
    if (s != DIL_OK) return s;
    if (!j->best.found && complete) return dil_fail(err, DIL_EINFEASIBLE, "path: no plan meets the budgets");
    if (!j->best.found) return dil_fail(err, DIL_ETIMEOUT, "path: no plan within %g seconds", job->limit_sec);
    for (uint32_t l = 0; l < j->p->n_layers; l++) {
        job->node[l] = (uint32_t)j->best.node[l];
        job->level[l] = (uint32_t)j->best.level[l];
    }
    job->bound = fmin(bound, j->best.sec);
    return DIL_OK;
}

dil_status dil__px_solve_real(dil__job *job, dil_err *err) {
    const dil_problem *p = job->p;
    const double limit_sec = fmin(job->limit_sec, 1e9);
    px_real_job j = {.job = job, .p = p, .by_damage = job->goal == DIL_GOAL_DAMAGE};
    j.file_first = j.by_damage || p->damage_max == INFINITY;
    j.real = (px_real){.p = p, .by_damage = j.by_damage, .file_max = p->file_bytes_max * (1 + TOLERANCE), .load_max = p->load_max * (1 + TOLERANCE)};
    j.real.by_load = job->goal == DIL_GOAL_LOAD;
    j.free_hops = j.by_damage || j.real.by_load;
    j.real.chunk = j.real.by_load ? p->load : p->chunk_sec;
    if (!j.by_damage && j.real.chunk) j.real.chunk_weight = j.real.by_load ? 1 : p->chunk_weight;
    j.options = (px_options){.gap = 0.5 * job->gap, .stop_at = j.by_damage && job->cutoff > 0 ? job->cutoff : -1, .deadline_ns = dil_now_ns() + (int64_t)(limit_sec * 1e9), .n_threads = 1,
                             .progress = job->progress};
    if (!j.by_damage && !job->start_node) {
        const dil_status s = find_start(&j, err);
        if (s != DIL_OK) return s;
    }
    j.best.trail = job->trail;
    dil_status s = job_alloc(&j) ? solve(&j, err) : dil_fail(err, DIL_EMEMORY, "path: out of memory for %u layers on %u nodes", p->n_layers, p->n_nodes);
    job_fini(&j);
    return s;
}
