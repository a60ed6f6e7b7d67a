/* The baseline "paper": the formulation of DILEMMA, arXiv 2503.01704, as an integer program: x[l,s,q] binary, one choice a layer, the
 * delay of computing and of sending the hidden state from layer to layer, storage of weights, the quality budget. Sending is a
 * product of two choices and is made linear in the textbook way, y[l,s,s'] >= x[l,s] + x[l+1,s'] - 1; the authors hand the program
 * to PuLP, we hand it to HiGHS, which is faster than PuLP's CBC on it (bench/plan times CBC on both formulations).
 *
 * It knows weights only: no buffers, chunks of a prompt, rates or shared tables. So that its plans can be used at all the largest
 * buffer of any layer is set aside on every node, and a tied head takes the embedding's level. Where it is solved to the end
 * its plan is as good as any; what it costs is the time. */
#include "plan/baseline.h"
#include "plan/highs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define COLS_MAX 2e6
#define NONZEROS_MAX 2e7

typedef struct program {
    const dil_problem *p;
    int n_x, n_cols, n_rows, n_values, cap_rows, cap_values;
    double scale;
    double *cost, *upper;   /* [n_cols] */
    int *integral;             /* [n_cols] */
    double *row_lower, *row_upper;  /* [cap_rows] */
    int *start, *index;        /* [cap_rows], [cap_values] */
    double *value;                  /* [cap_values] */
} program;

static int col_x(const dil_problem *p, uint32_t l, uint32_t s, uint32_t q)
{
    return (int)dil__cell(p, l, s, q);
}

static int col_y(const program *m, uint32_t l, uint32_t hop)
{
    return m->n_x + (int)(l * m->p->n_hops + hop);
}

static void row(program *m, double lower, double upper)
{
    m->row_lower[m->n_rows] = lower;
    m->row_upper[m->n_rows] = upper;
    m->start[m->n_rows++] = m->n_values;
}

static void put(program *m, int col, double v)
{
    if (v == 0) return;
    m->index[m->n_values] = col;
    m->value[m->n_values++] = v;
}

static void put_node(program *m, uint32_t l, uint32_t s, double v)
{
    for (uint32_t q = 0; q < m->p->level_count[l]; q++) put(m, col_x(m->p, l, s, q), v);
}

static dil_status allocate(program *m, const dil_problem *p, dil_err *err)
{
    double L = p->n_layers, S = p->n_nodes, Q = p->n_levels, hops = p->n_hops;
    double cols = L * S * Q + (L - 1) * hops, rows = L + Q + S + 2 + (L - 1) * S * S, values = 6 * L * S * Q + (L - 1) * S * S * (2 * Q + 1);
    *m = (program){.p = p};
    if (cols > COLS_MAX || values > NONZEROS_MAX)
        return dil_fail(err, DIL_ELIMIT, "baseline:paper: about %.0f columns and %.0f nonzeros, at most %.0f and %.0f", cols, values, COLS_MAX,
                        NONZEROS_MAX);
    m->n_x = (int)(L * S * Q);
    m->n_cols = (int)cols;
    m->cost = calloc((size_t)cols, sizeof *m->cost);
    m->upper = calloc((size_t)cols, sizeof *m->upper);
    m->integral = calloc((size_t)cols, sizeof *m->integral);
    m->row_lower = calloc((size_t)rows, sizeof *m->row_lower);
    m->row_upper = calloc((size_t)rows, sizeof *m->row_upper);
    m->start = calloc((size_t)rows, sizeof *m->start);
    m->index = calloc((size_t)values, sizeof *m->index);
    m->value = calloc((size_t)values, sizeof *m->value);
    bool ok = m->cost && m->upper && m->integral && m->row_lower && m->row_upper && m->start && m->index && m->value;
    return ok ? DIL_OK : dil_fail(err, DIL_EMEMORY, "baseline:paper: out of memory");
}

static void release(program *m)
{
    free(m->cost);
    free(m->upper);
    free(m->integral);
    free(m->row_lower);
    free(m->row_upper);
    free(m->start);
    free(m->index);
    free(m->value);
}

static void add_columns(program *m)
{
    const dil_problem *p = m->p;
    uint32_t last = p->n_layers - 1;
    double bound = dil__trivial_bound(p, DIL_GOAL_SEC);
    m->scale = bound > 0 ? 100 / bound : 1;
    for (uint32_t l = 0; l <= last; l++) {
        for (uint32_t s = 0; s < p->n_nodes; s++) {
            double ends = (l == 0 ? p->source_sec[s] : 0) + (l == last ? p->sink_sec[s] : 0);
            for (uint32_t q = 0; q < p->level_count[l] && isfinite(ends); q++) {
                int i = col_x(p, l, s, q);
                m->cost[i] = m->scale * (p->layer_sec[i] + ends);
                m->upper[i] = 1;
                m->integral[i] = 1;
            }
        }
    }
    for (uint32_t l = 0; l < last; l++) {
        for (uint32_t h = 0; h < p->n_hops; h++) {
            m->cost[col_y(m, l, h)] = m->scale * (l + 1 == last ? p->hops[h].head_sec : p->hops[h].sec);
            m->upper[col_y(m, l, h)] = 1;
        }
    }
}

static void add_products(program *m)
{
    const dil_problem *p = m->p;
    for (uint32_t l = 0; l + 1 < p->n_layers; l++) {
        for (uint32_t i = 0; i < p->n_nodes; i++) {
            for (uint32_t j = 0; j < p->n_nodes; j++) {
                const dil_hop *h = dil_problem_hop(p, i, j);
                if (i == j) continue;
                row(m, -INFINITY, 1);
                put_node(m, l, i, 1);
                put_node(m, l + 1, j, 1);
                if (h) put(m, col_y(m, l, (uint32_t)(h - p->hops)), -1);
            }
        }
    }
}

static void add_budgets(program *m)
{
    const dil_problem *p = m->p;
    double buffer = 0;
    for (uint32_t l = 0; p->buffer_bytes && l < p->n_layers; l++) buffer = fmax(buffer, p->buffer_bytes[l]);
    for (uint32_t s = 0; s < p->n_nodes; s++) {
        double room = fmax(0, p->store_bytes[s] - buffer), unit = room > 0 ? room : 1;
        row(m, -INFINITY, room / unit);
        for (uint32_t l = 0; l < p->n_layers; l++) {
            for (uint32_t q = 0; q < p->level_count[l]; q++) put(m, col_x(p, l, s, q), p->layer_bytes[(size_t)l * p->n_levels + q] / unit);
        }
    }
    for (int which = 0; which < 2; which++) {
        double max = which ? p->file_bytes_max : p->damage_max, unit = max > 0 ? max : 1;
        const double *v = which ? p->file_bytes ? p->file_bytes : p->layer_bytes : p->damage;
        if (isinf(max)) continue;
        row(m, -INFINITY, max / unit);
        for (uint32_t l = 0; l < p->n_layers; l++) {
            for (uint32_t s = 0; s < p->n_nodes; s++) {
                for (uint32_t q = 0; q < p->level_count[l]; q++) put(m, col_x(p, l, s, q), v[(size_t)l * p->n_levels + q] / unit);
            }
        }
    }
}

static void add_rows(program *m)
{
    const dil_problem *p = m->p;
    for (uint32_t l = 0; l < p->n_layers; l++) {
        row(m, 1, 1);
        for (uint32_t s = 0; s < p->n_nodes; s++) put_node(m, l, s, 1);
    }
    for (uint32_t q = 0; p->tied && q < p->level_count[0]; q++) {
        row(m, 0, 0);
        for (uint32_t s = 0; s < p->n_nodes; s++) put(m, col_x(p, 0, s, q), 1);
        for (uint32_t s = 0; s < p->n_nodes; s++) put(m, col_x(p, p->n_layers - 1, s, q), -1);
    }
    add_products(m);
    add_budgets(m);
}

static void read_plan(const program *m, const double *v, uint32_t *node, uint32_t *level)
{
    const dil_problem *p = m->p;
    for (uint32_t l = 0; l < p->n_layers; l++) {
        double best = -1;
        for (uint32_t s = 0; s < p->n_nodes; s++) {
            for (uint32_t q = 0; q < p->level_count[l]; q++) {
                if (v[col_x(p, l, s, q)] <= best) continue;
                best = v[col_x(p, l, s, q)];
                node[l] = s;
                level[l] = q;
            }
        }
    }
}

static dil_status solve(const program *m, dil__trial *t, dil_err *err)
{
    uint32_t L = m->p->n_layers, *choice = calloc((size_t)2 * L, sizeof *choice);
    double *v = calloc((size_t)m->n_cols + 1, sizeof *v);
    dil__mip mip = {m->n_cols, m->n_rows, m->n_values, m->cost, m->upper, m->integral, m->row_lower, m->row_upper, m->start, m->index, m->value};
    dil__mip_options o = {.limit_sec = t->job->limit_sec, .gap = t->job->gap, .progress = t->job->progress};
    dil__mip_result r = {.v = v};
    dil_status s = v && choice ? dil__mip_solve("baseline:paper", &mip, &o, &r, err) : dil_fail(err, DIL_EMEMORY, "baseline:paper: out of memory");
    if (s == DIL_OK) {
        read_plan(m, v, choice, choice + L);
        dil__trial_add(t, choice, choice + L);
    }
    free(v);
    free(choice);
    return s;
}

dil_status dil__baseline_paper(dil__job *job, dil_err *err)
{
    program m;
    dil__trial t;
    dil_status s = dil__trial_init(&t, job, "paper", err);
    if (s != DIL_OK) return s;
    s = allocate(&m, job->p, err);
    if (s == DIL_OK) {
        add_columns(&m);
        add_rows(&m);
        s = solve(&m, &t, err);
    }
    release(&m);
    if (s == DIL_OK) return dil__trial_end(&t, err);
    free(t.level);
    return s;
}
