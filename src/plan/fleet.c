/* Several models as one integer program: the program of each beside the others, except that the rows of what they share (a node's memory
 * and time, a link, a connection) are one row for all. Each is scaled by its own capacity, so the rows of two models simply add up. */
#include <dilemma/fleet.h>

#include "plan/milp.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct member {
    const dil_fleet_model *m;
    dil_problem *p;
    dil__milp *milp;
    uint32_t *node_of, *in_cluster; /* [S] in the profile, in the cluster */
    uint32_t *node, *level;         /* [L] chosen */
    bool own_budget, fixed;
} member;

typedef struct fleet {
    member *v;              /* [n] */
    uint32_t n;
    const dil_cluster *cluster;
    const dil_fleet_how *how;
    double gap;
    int64_t end_ns;
} fleet;

typedef struct program { /* the joined one */
    dil__mip mip;
    double *cost, *upper, *row_lower, *row_upper, *value;
    int *integral, *start, *index;
    int *shared;            /* [4 N + links] its row, -1 */
    int *at;                /* [rows + 1] next place of each row */
    int *first_col;         /* [n + 1] */
    double scale;
} program;

/* --- joining ------------------------------------------------------------------------------------------------------------ */

static size_t shared_key(const fleet *f, const member *v, int tag)
{
    uint32_t S = v->p->n_nodes, N = f->cluster->n_nodes, kind = (uint32_t)tag / S, i = (uint32_t)tag % S;
    if (kind < DIL__TAG_LINK) return (size_t)kind * N + v->in_cluster[i];
    const dil_hop *h = &v->p->hops[(uint32_t)tag - DIL__TAG_LINK * S];
    const dil_cluster_link *k = dil_cluster_link_get(f->cluster, v->in_cluster[h->from], v->in_cluster[h->to]);
    return (size_t)DIL__TAG_LINK * N + (size_t)(k - f->cluster->links);
}

/* The joined row of a member's row r; *next is where rows that are nobody else's begin. */
static int row_of(const fleet *f, const member *v, const dil__milp_part *part, program *g, int r, int *next)
{
    if (part->tag[r] == DIL__TAG_OWN) return (*next)++;
    size_t key = shared_key(f, v, part->tag[r]);
    if (g->shared[key] < 0) g->shared[key] = (*next)++;
    return g->shared[key];
}

static void forget_shared(const fleet *f, program *g)
{
    for (size_t i = 0; i < (size_t)DIL__TAG_LINK * f->cluster->n_nodes + f->cluster->n_links; i++) g->shared[i] = -1;
}

static bool allocate(const fleet *f, program *g)
{
    size_t cols = 0, rows = 0, values = 0, keys = (size_t)DIL__TAG_LINK * f->cluster->n_nodes + f->cluster->n_links;
    for (uint32_t i = 0; i < f->n; i++) {
        dil__mip m = dil__milp_get(f->v[i].milp).mip;
        cols += (size_t)m.n_cols;
        rows += (size_t)m.n_rows;
        values += (size_t)m.n_values;
    }
    *g = (program){.cost = calloc(cols + 1, sizeof(double)), .upper = calloc(cols + 1, sizeof(double)), .row_lower = calloc(rows + 1, sizeof(double)),
                   .row_upper = calloc(rows + 1, sizeof(double)), .value = calloc(values + 1, sizeof(double)), .integral = calloc(cols + 1, sizeof(int)),
                   .start = calloc(rows + 1, sizeof(int)), .index = calloc(values + 1, sizeof(int)), .shared = calloc(keys + 1, sizeof(int)),
                   .at = calloc(rows + 1, sizeof(int)), .first_col = calloc(f->n + 1u, sizeof(int))};
    return g->cost && g->upper && g->row_lower && g->row_upper && g->value && g->integral && g->start && g->index && g->shared && g->at && g->first_col;
}

static void release(program *g)
{
    free(g->cost);
    free(g->upper);
    free(g->row_lower);
    free(g->row_upper);
    free(g->value);
    free(g->integral);
    free(g->start);
    free(g->index);
    free(g->shared);
    free(g->at);
    free(g->first_col);
}

static void join_columns(const fleet *f, program *g, const double *weight)
{
    double bound = 0;
    for (uint32_t i = 0; i < f->n; i++) {
        dil__milp_part part = dil__milp_get(f->v[i].milp);
        int base = g->first_col[i];
        for (int c = 0; c < part.mip.n_cols; c++) {
            g->cost[base + c] = weight[i] * part.mip.cost[c] / part.scale;
            g->upper[base + c] = part.mip.upper[c];
            g->integral[base + c] = part.mip.integral[c];
        }
        g->first_col[i + 1] = base + part.mip.n_cols;
        bound += weight[i] * 100 / part.scale; /* each program is scaled to about 100 */
    }
    g->scale = bound > 0 ? 100 / bound : 1;
    for (int c = 0; c < g->first_col[f->n]; c++) g->cost[c] *= g->scale;
}

/* First the rows' lengths, then their values. */
static void join_rows(const fleet *f, program *g)
{
    for (int pass = 0; pass < 2; pass++) {
        int next = 0;
        forget_shared(f, g);
        for (uint32_t i = 0; i < f->n; i++) {
            dil__milp_part part = dil__milp_get(f->v[i].milp);
            for (int r = 0; r < part.mip.n_rows; r++) {
                int row = row_of(f, &f->v[i], &part, g, r, &next), from = part.mip.start[r];
                int to = r + 1 < part.mip.n_rows ? part.mip.start[r + 1] : part.mip.n_values;
                g->row_lower[row] = part.mip.row_lower[r];
                g->row_upper[row] = part.mip.row_upper[r];
                for (int k = from; k < to && pass; k++) {
                    g->index[g->at[row]] = g->first_col[i] + part.mip.index[k];
                    g->value[g->at[row]++] = part.mip.value[k];
                }
                if (!pass) g->at[row] += to - from;
            }
        }
        for (int row = 0, sum = 0; row < next && !pass; row++) {
            g->start[row] = sum;
            sum += g->at[row];
            g->at[row] = g->start[row];
            g->mip.n_values = sum;
        }
        g->mip.n_rows = next;
    }
}

/* --- solving ------------------------------------------------------------------------------------------------------------ */

static dil_status build_parts(fleet *f, const dil_goal *goal, dil_err *err)
{
    for (uint32_t i = 0; i < f->n; i++) {
        dil__milp_shape shape = {.goal = goal[i]};
        dil__milp_free(f->v[i].milp);
        f->v[i].milp = NULL;
        dil_status s = dil__milp_build(f->v[i].p, &shape, &f->v[i].milp, err);
        if (s != DIL_OK) return s;
        if (f->v[i].fixed) dil__milp_fix(f->v[i].milp, f->v[i].node, f->v[i].level);
    }
    return DIL_OK;
}

/* The choice of every member, and objective and bound of the weighted sum. */
static dil_status solve_joined(fleet *f, const dil_goal *goal, const double *weight, double *objective, double *bound, dil_err *err)
{
    program g = {0};
    double *v = NULL, left = (double)(f->end_ns - dil_now_ns()) * 1e-9;
    dil_status s = build_parts(f, goal, err);
    if (s != DIL_OK) return s;
    s = allocate(f, &g) ? DIL_OK : dil_fail(err, DIL_EMEMORY, "fleet: out of memory");
    if (s == DIL_OK) {
        join_columns(f, &g, weight);
        join_rows(f, &g);
        g.mip.n_cols = g.first_col[f->n];
        g.mip.cost = g.cost, g.mip.upper = g.upper, g.mip.integral = g.integral, g.mip.row_lower = g.row_lower, g.mip.row_upper = g.row_upper;
        g.mip.start = g.start, g.mip.index = g.index, g.mip.value = g.value;
        v = calloc((size_t)g.mip.n_cols + 1, sizeof *v);
        dil__mip_options o = {.limit_sec = fmax(left, 0.1), .gap = f->gap, .progress = f->how->progress};
        dil__mip_result r = {.v = v};
        s = v ? dil__mip_solve("fleet", &g.mip, &o, &r, err) : dil_fail(err, DIL_EMEMORY, "fleet: out of memory");
        *objective = r.objective / g.scale;
        *bound = r.bound / g.scale;
    }
    for (uint32_t i = 0; i < f->n && s == DIL_OK; i++) dil__milp_choice(f->v[i].milp, v + g.first_col[i], f->v[i].node, f->v[i].level);
    free(v);
    release(&g);
    if (s == DIL_EINFEASIBLE) return dil_fail(err, s, "no plans for all %u models meet the budgets together", f->n);
    return s;
}

/* Damage budgets of the members without one: the least sum, each (1 + slack) of its part. Fixed members have theirs. */
static dil_status set_quality(fleet *f, dil_err *err)
{
    dil_goal goal[DIL_FLEET_MAX];
    double weight[DIL_FLEET_MAX], objective, bound;
    bool any = false;
    for (uint32_t i = 0; i < f->n; i++) {
        bool open = !f->v[i].own_budget && !f->v[i].fixed;
        goal[i] = DIL_GOAL_DAMAGE;
        weight[i] = open ? 1 : 0;
        any = any || open;
        if (open) f->v[i].p->damage_max = INFINITY;
    }
    if (!any) return DIL_OK;
    int64_t end = f->end_ns, now = dil_now_ns();
    f->end_ns = now + (int64_t)(0.4 * (double)(end - now));
    dil_status s = solve_joined(f, goal, weight, &objective, &bound, err);
    f->end_ns = end;
    for (uint32_t i = 0; i < f->n && s == DIL_OK; i++) {
        const member *v = &f->v[i];
        double damage = 0;
        if (weight[i] == 0) continue;
        for (uint32_t l = 0; l < v->p->n_layers; l++) damage += v->p->damage[(size_t)l * v->p->n_levels + v->level[l]];
        v->p->damage_max = (1 + v->m->options.slack) * damage;
    }
    return s;
}

static dil_status solve(fleet *f, dil_fleet_result *r, dil_err *err)
{
    dil_goal goal[DIL_FLEET_MAX];
    double weight[DIL_FLEET_MAX];
    for (uint32_t i = 0; i < f->n; i++) {
        goal[i] = DIL_GOAL_SEC;
        weight[i] = f->v[i].m->weight;
    }
    dil_status s = set_quality(f, err);
    return s == DIL_OK ? solve_joined(f, goal, weight, &r->objective, &r->bound, err) : s;
}

/* Each model joins those before it, which stay as they are. */
static dil_status solve_in_turn(fleet *f, dil_fleet_result *r, dil_err *err)
{
    uint32_t n = f->n;
    int64_t start = dil_now_ns(), end = f->end_ns;
    dil_status s = DIL_OK;
    for (f->n = 1; f->n <= n && s == DIL_OK; f->n++) {
        f->end_ns = start + (end - start) * f->n / n;
        s = solve(f, r, err);
        f->v[f->n - 1].fixed = true;
    }
    f->n = n;
    r->bound = 0;
    return s;
}

/* --- the whole ---------------------------------------------------------------------------------------------------------- */

static dil_status check_call(const dil_fleet_model *models, uint32_t n, const dil_fleet_how *how, dil_err *err)
{
    double load_max = 0;
    if (n == 0 || n > DIL_FLEET_MAX) return dil_fail(err, DIL_EUSAGE, "%u models, allowed 1 to %d", n, DIL_FLEET_MAX);
    if (!(how->limit_sec > 0) || !(how->gap >= 0)) return dil_fail(err, DIL_EUSAGE, "a time limit of %g s, a gap of %g", how->limit_sec, how->gap);
    for (uint32_t i = 0; i < n; i++) {
        if (!(models[i].weight > 0 && models[i].weight <= 1e9)) return dil_fail(err, DIL_EUSAGE, "model %u: a weight of %g, expected above 0", i, models[i].weight);
        if (!(models[i].options.rate > 0)) continue;
        if (load_max > 0 && models[i].options.load_max != load_max) return dil_fail(err, DIL_EUSAGE, "model %u: another highest load than the others", i);
        load_max = models[i].options.load_max;
    }
    return DIL_OK;
}

static dil_status open_member(fleet *f, member *v, const dil_fleet_model *m, dil_err *err)
{
    *v = (member){.m = m, .own_budget = isfinite(m->options.max_damage) || isfinite(m->options.max_loss_increase)};
    v->node_of = calloc(m->profile->n_nodes, sizeof *v->node_of);
    v->in_cluster = calloc(m->profile->n_nodes, sizeof *v->in_cluster);
    v->node = calloc(m->profile->n_layers, sizeof *v->node);
    v->level = calloc(m->profile->n_layers, sizeof *v->level);
    if (!v->node_of || !v->in_cluster || !v->node || !v->level) return dil_fail(err, DIL_EMEMORY, "fleet: out of memory");
    dil_status s = dil_problem_from_profile(m->profile, f->cluster, &m->options, &v->p, v->node_of, err);
    for (uint32_t i = 0; s == DIL_OK && i < v->p->n_nodes; i++) v->in_cluster[i] = dil_cluster_find(f->cluster, m->profile->nodes[v->node_of[i]]);
    return s;
}

static void close_member(member *v)
{
    dil__milp_free(v->milp);
    dil_problem_free(v->p);
    free(v->node_of);
    free(v->in_cluster);
    free(v->node);
    free(v->level);
}

static dil_status make_plans(fleet *f, dil_plan **plans, dil_err *err)
{
    for (uint32_t i = 0; i < f->n; i++) {
        member *v = &f->v[i];
        dil_use u;
        dil_err why = {0};
        if (dil_problem_check(v->p, v->node, v->level, &u, &why) != DIL_OK) return dil_fail(err, DIL_EINTERNAL, "fleet: model %u: %.300s", i, why.text);
        dil_solution s = {.n_layers = v->p->n_layers, .node = v->node, .level = v->level, .solver = "fleet"};
        dil_status ok = dil__plan_unbudgeted(v->m->profile, f->cluster, &v->m->options, &s, v->node_of, &plans[i], err);
        if (ok != DIL_OK) return ok;
        plans[i]->bound_sec = 0;
        plans[i]->gap = 1;
    }
    return DIL_OK;
}

dil_status dil_fleet_plan(const dil_fleet_model *models, uint32_t n, const dil_cluster *cluster, const dil_fleet_how *how, dil_plan **plans,
                          dil_fleet_result *r, dil_err *err)
{
    dil_status s = check_call(models, n, how, err);
    if (s != DIL_OK) return s;
    int64_t start = dil_now_ns();
    member v[DIL_FLEET_MAX] = {0};
    dil_plan *made[DIL_FLEET_MAX] = {0};
    fleet f = {.v = v, .n = n, .cluster = cluster, .how = how, .gap = how->gap > 0 ? how->gap : 1e-3, .end_ns = start + (int64_t)(how->limit_sec * 1e9)};
    *r = (dil_fleet_result){0};
    for (uint32_t i = 0; i < n && s == DIL_OK; i++) s = open_member(&f, &v[i], &models[i], err);
    if (s == DIL_OK) s = how->one_after_the_other ? solve_in_turn(&f, r, err) : solve(&f, r, err);
    if (s == DIL_OK) s = make_plans(&f, made, err);
    if (s == DIL_OK) {
        dil_err why = {0};
        r->objective = 0;
        for (uint32_t i = 0; i < n; i++) r->objective += models[i].weight * made[i]->total_sec;
        if (dil_fleet_check(models, n, cluster, made, &why) != DIL_OK) s = dil_fail(err, DIL_EINTERNAL, "fleet: its plans fail the check: %.300s", why.text);
    }
    r->bound = fmax(0, fmin(r->bound, r->objective));
    r->gap = r->objective > 0 ? (r->objective - r->bound) / r->objective : 0;
    r->solve_sec = (double)(dil_now_ns() - start) * 1e-9;
    for (uint32_t i = 0; i < n; i++) {
        close_member(&v[i]);
        if (s == DIL_OK) plans[i] = made[i];
        else dil_plan_free(made[i]);
    }
    return s;
}
