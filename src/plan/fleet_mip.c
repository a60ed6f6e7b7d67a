/* Several models as one integer program: the program of each beside the others, except that the rows of what they share (a node's memory
 * and time, a link, a connection) are one row for all. Each is scaled by its own capacity, so the rows of two models simply add up. */
#include "plan/fleet_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

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

static size_t shared_key(const dil__fleet *f, const dil__member *v, int tag)
{
    uint32_t S = v->p->n_nodes, kind = (uint32_t)tag / S, i = (uint32_t)tag % S;
    return kind < DIL__TAG_LINK ? dil__fleet_node_key(f, v, (int)kind, i) : dil__fleet_link_key(f, v, (uint32_t)tag - DIL__TAG_LINK * S);
}

/* The joined row of a member's row r; *next is where rows that are nobody else's begin. */
static int row_of(const dil__fleet *f, const dil__member *v, const dil__milp_part *part, program *g, int r, int *next)
{
    if (part->tag[r] == DIL__TAG_OWN) return (*next)++;
    size_t key = shared_key(f, v, part->tag[r]);
    if (g->shared[key] < 0) g->shared[key] = (*next)++;
    return g->shared[key];
}

static void forget_shared(const dil__fleet *f, program *g)
{
    for (size_t i = 0; i < dil__fleet_keys(f); i++) g->shared[i] = -1;
}

static bool allocate(const dil__fleet *f, program *g)
{
    size_t cols = 0, rows = 0, values = 0, keys = dil__fleet_keys(f);
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

static void join_columns(const dil__fleet *f, program *g)
{
    double bound = 0;
    for (uint32_t i = 0; i < f->n; i++) {
        dil__milp_part part = dil__milp_get(f->v[i].milp);
        int base = g->first_col[i];
        for (int c = 0; c < part.mip.n_cols; c++) {
            g->cost[base + c] = f->v[i].weight * part.mip.cost[c] / part.scale;
            g->upper[base + c] = part.mip.upper[c];
            g->integral[base + c] = part.mip.integral[c];
        }
        g->first_col[i + 1] = base + part.mip.n_cols;
        bound += f->v[i].weight * 100 / part.scale; /* each program is scaled to about 100 */
    }
    g->scale = bound > 0 ? 100 / bound : 1;
    for (int c = 0; c < g->first_col[f->n]; c++) g->cost[c] *= g->scale;
}

/* First the rows' lengths, then their values. */
static void join_rows(const dil__fleet *f, program *g)
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

static dil_status build_parts(dil__fleet *f, dil_err *err)
{
    for (uint32_t i = 0; i < f->n; i++) {
        dil__milp_shape shape = {.goal = f->goal};
        dil__milp_free(f->v[i].milp);
        f->v[i].milp = NULL;
        dil_status s = dil__milp_build(f->v[i].p, &shape, &f->v[i].milp, err);
        if (s != DIL_OK) return s;
    }
    return DIL_OK;
}

/* The members' plans as a start, where each has one. -> how many values */
static int lay_start(const dil__fleet *f, const program *g, int *cols, double *v)
{
    int n = 0;
    for (uint32_t i = 0; i < f->n; i++) {
        const dil__member *m = &f->v[i];
        int more = m->placed ? dil__milp_start(m->milp, m->node, m->level, cols + n, v + n) : 0;
        if (more == 0) return 0;
        for (int k = 0; k < more; k++) cols[n + k] += g->first_col[i];
        n += more;
    }
    return n;
}

/* The program's plans where they are better than what there is. */
static dil_status take(dil__fleet *f, const program *g, const double *v, double objective, dil_err *err)
{
    dil_status s = DIL_OK;
    bool better = objective < dil__fleet_cost(f) * (1 - 1e-9);
    for (uint32_t i = 0; i < f->n && s == DIL_OK && better; i++) {
        dil__member *m = &f->v[i];
        uint32_t *node = calloc(2 * (size_t)m->p->n_layers, sizeof *node);
        if (!node) return dil_fail(err, DIL_EMEMORY, "fleet: out of memory");
        dil__milp_choice(m->milp, v + g->first_col[i], node, node + m->p->n_layers);
        s = dil__fleet_place(f, m, node, node + m->p->n_layers, err);
        free(node);
    }
    return s;
}

static dil_status run(dil__fleet *f, program *g, dil_err *err)
{
    size_t n = (size_t)g->mip.n_cols + 1;
    double *v = calloc(2 * n, sizeof *v);
    int *cols = calloc(n, sizeof *cols);
    dil_status s = v && cols ? DIL_OK : dil_fail(err, DIL_EMEMORY, "fleet: out of memory");
    if (s == DIL_OK) {
        dil__mip_options o = {.limit_sec = fmax(dil__fleet_sec_left(f), 0.1), .gap = f->gap, .progress = f->how->progress, .start_col = cols, .start_value = v + n,
                              .n_start = lay_start(f, g, cols, v + n)};
        dil__mip_result r = {.v = v, .bound = -INFINITY};
        s = dil__mip_solve("fleet", &g->mip, &o, &r, err);
        if ((s == DIL_OK || s == DIL_ETIMEOUT) && isfinite(r.bound)) f->bound = fmax(f->bound, r.bound / g->scale);
        if (s == DIL_OK) s = take(f, g, v, r.objective / g->scale, err);
    }
    free(v);
    free(cols);
    return s;
}

double dil__fleet_mip_columns(const dil__fleet *f)
{
    double cols = 0;
    for (uint32_t i = 0; i < f->n; i++) {
        const dil_problem *p = f->v[i].p;
        cols += (double)p->n_layers * ((double)p->n_nodes * (p->n_levels + 1) + p->n_hops);
    }
    return cols;
}

dil_status dil__fleet_mip(dil__fleet *f, dil_err *err)
{
    program g = {0};
    dil_status s = build_parts(f, err);
    if (s != DIL_OK) return s;
    s = allocate(f, &g) ? DIL_OK : dil_fail(err, DIL_EMEMORY, "fleet: out of memory");
    if (s == DIL_OK) {
        join_columns(f, &g);
        join_rows(f, &g);
        g.mip.n_cols = g.first_col[f->n];
        g.mip.cost = g.cost, g.mip.upper = g.upper, g.mip.integral = g.integral, g.mip.row_lower = g.row_lower, g.mip.row_upper = g.row_upper;
        g.mip.start = g.start, g.mip.index = g.index, g.mip.value = g.value;
        s = run(f, &g, err);
    }
    release(&g);
    if (s == DIL_EINFEASIBLE) return dil_fail(err, s, "no plans for all %u models meet the budgets together", f->n);
    return s;
}
