/* The exact solver: DESIGN's flow formulation through HiGHS's C API (docs/PLANNER.md (1)-(9)).
 *
 * Columns: x[l,s,q] binary; f[l,s,s'] >= 0 the hidden state's way after layer l (integral with x); B[s] the largest buffer;
 * z[s,q] the shared table counted once; T the slowest node's or link's seconds a chunk; e the overrun of an elastic budget.
 * Products y >= x + x' - 1 in place of the flow were rejected: the relaxation is two to three times weaker (issue 4's table).
 * Every budget row is divided by its right-hand side and the objective is scaled to about 100, so that HiGHS's absolute
 * tolerances mean the same for bytes, nats and seconds. */
#include "plan/milp.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* This header declares a static function that nobody defines, which is noticed at the end of the file only. */
#pragma GCC diagnostic ignored "-Wunused-function"
#include "interfaces/highs_c_api.h"

enum { COLS_MAX = 4000000, NONZEROS_MAX = 40000000 };

typedef struct nums {
    double *v;
    size_t n, cap;
} nums;

typedef struct ints {
    HighsInt *v;
    size_t n, cap;
} ints;

struct dil__milp {
    const dil_problem *p;
    dil__milp_shape shape;
    double scale;                      /* objective = cost / scale */
    nums cost, upper;                  /* by column; lower bounds are 0 */
    ints integral;
    nums row_lower, row_upper, value;  /* rows */
    ints start, index;
    HighsInt *x;                       /* [L][S][Q] column, -1: cannot be */
    HighsInt *stay, *hop;              /* [L-1][S], [L-1][n_hops] column, -1 */
    HighsInt *buffer, *once;           /* [S], [S][Q] */
    HighsInt chunk, first_elastic;
    bool failed;
};

static bool grow(void **v, size_t *cap, size_t n, size_t size)
{
    if (n < *cap) return true;
    size_t more = *cap ? *cap * 2 : 1024;
    void *p = realloc(*v, more * size);
    if (!p) return false;
    *v = p;
    *cap = more;
    return true;
}

static void push_num(dil__milp *m, nums *a, double v)
{
    if (m->failed || !grow((void **)&a->v, &a->cap, a->n, sizeof *a->v)) m->failed = true;
    else a->v[a->n++] = v;
}

static void push_int(dil__milp *m, ints *a, HighsInt v)
{
    if (m->failed || !grow((void **)&a->v, &a->cap, a->n, sizeof *a->v)) m->failed = true;
    else a->v[a->n++] = v;
}

static HighsInt add_col(dil__milp *m, double cost, double upper, bool integral)
{
    if (m->cost.n >= COLS_MAX) m->failed = true;
    push_num(m, &m->cost, cost);
    push_num(m, &m->upper, upper);
    push_int(m, &m->integral, integral ? kHighsVarTypeInteger : kHighsVarTypeContinuous);
    return m->failed ? -1 : (HighsInt)m->cost.n - 1;
}

static void begin_row(dil__milp *m, double lower, double upper)
{
    push_num(m, &m->row_lower, lower);
    push_num(m, &m->row_upper, upper);
    push_int(m, &m->start, (HighsInt)m->value.n);
}

static void put(dil__milp *m, HighsInt col, double v)
{
    if (col < 0 || v == 0) return;
    if (m->value.n >= NONZEROS_MAX) m->failed = true;
    push_num(m, &m->value, v);
    push_int(m, &m->index, col);
}

/* --- columns ------------------------------------------------------------------------------------------------------------ */

static double larger(double a, double b)
{
    return a > b ? a : b;
}

static double file_bytes(const dil_problem *p, size_t lq)
{
    return p->file_bytes ? p->file_bytes[lq] : p->layer_bytes[lq];
}

/* A choice that alone breaks a hard budget has no column. */
static bool possible(const dil__milp *m, uint32_t l, uint32_t s, uint32_t q)
{
    const dil_problem *p = m->p;
    const double slack = 1 + 1e-9;
    size_t lq = (size_t)l * p->n_levels + q;
    dil__budget relax = m->shape.relax;
    if (q >= p->level_count[l] || (m->shape.only_node != DIL_NO_NODE && s != m->shape.only_node)) return false;
    if (l == 0 && isinf(p->source_sec[s])) return false;
    if (l == p->n_layers - 1 && isinf(p->sink_sec[s])) return false;
    double shared = p->tied && l == p->n_layers - 1 ? p->shared_bytes[q] : 0; /* may be stored already */
    double buffer = p->buffer_bytes ? p->buffer_bytes[l] : 0;
    if (relax != DIL__BUDGET_STORE && p->layer_bytes[lq] - shared + buffer > p->store_bytes[s] * slack) return false;
    if (relax != DIL__BUDGET_DAMAGE && p->damage[lq] > p->damage_max * slack) return false;
    if (relax != DIL__BUDGET_FILE && file_bytes(p, lq) > p->file_bytes_max * slack) return false;
    if (relax != DIL__BUDGET_LOAD && p->load && p->load[dil__cell(p, l, s, q)] > p->load_max * slack) return false;
    return true;
}

static double x_cost(const dil__milp *m, uint32_t l, uint32_t s, uint32_t q)
{
    const dil_problem *p = m->p;
    if (m->shape.relax != DIL__BUDGET_NONE) return 0;
    if (m->shape.goal == DIL_GOAL_DAMAGE) return p->damage[(size_t)l * p->n_levels + q];
    double sec = p->layer_sec[dil__cell(p, l, s, q)];
    if (l == 0) sec += p->source_sec[s];
    if (l == p->n_layers - 1) sec += p->sink_sec[s];
    return sec;
}

/* The objective's size: the sum over the layers of their cheapest choice. */
static double pick_scale(const dil__milp *m)
{
    const dil_problem *p = m->p;
    double least = 0, most = 0;
    for (uint32_t l = 0; l < p->n_layers; l++) {
        double lo = INFINITY, hi = 0;
        for (uint32_t s = 0; s < p->n_nodes; s++) {
            for (uint32_t q = 0; q < p->level_count[l]; q++) {
                double c = x_cost(m, l, s, q);
                if (!isfinite(c)) continue;
                if (c < lo) lo = c;
                if (c > hi) hi = c;
            }
        }
        if (isfinite(lo)) least += lo;
        most += hi;
    }
    double size = larger(least, 1e-4 * most);
    return size > 0 ? 100 / size : 1;
}

static void add_x(dil__milp *m)
{
    const dil_problem *p = m->p;
    for (uint32_t l = 0; l < p->n_layers; l++) {
        for (uint32_t s = 0; s < p->n_nodes; s++) {
            for (uint32_t q = 0; q < p->n_levels; q++) {
                HighsInt *at = &m->x[dil__cell(p, l, s, q)];
                *at = possible(m, l, s, q) ? add_col(m, x_cost(m, l, s, q) * m->scale, 1, true) : -1;
            }
        }
    }
}

static void add_flow(dil__milp *m)
{
    const dil_problem *p = m->p;
    bool sec = m->shape.goal == DIL_GOAL_SEC && m->shape.relax == DIL__BUDGET_NONE;
    for (uint32_t l = 0; l + 1 < p->n_layers; l++) {
        bool to_head = l + 2 == p->n_layers;
        for (uint32_t s = 0; s < p->n_nodes; s++) {
            bool use = m->shape.only_node == DIL_NO_NODE || s == m->shape.only_node;
            m->stay[(size_t)l * p->n_nodes + s] = use ? add_col(m, 0, 1, false) : -1;
        }
        for (uint32_t i = 0; i < p->n_hops; i++) {
            const dil_hop *h = &p->hops[i];
            double load = h->load * (to_head ? p->head_share : 1);
            bool use = m->shape.only_node == DIL_NO_NODE && (m->shape.relax == DIL__BUDGET_LOAD || load <= p->load_max * (1 + 1e-9));
            double cost = sec ? (to_head ? h->head_sec : h->sec) * m->scale : 0;
            m->hop[(size_t)l * p->n_hops + i] = use ? add_col(m, cost, 1, false) : -1;
        }
    }
}

static void add_others(dil__milp *m)
{
    const dil_problem *p = m->p;
    bool sec = m->shape.goal == DIL_GOAL_SEC && m->shape.relax == DIL__BUDGET_NONE;
    for (uint32_t s = 0; s < p->n_nodes; s++) {
        m->buffer[s] = p->buffer_bytes ? add_col(m, 0, INFINITY, false) : -1;
        for (uint32_t q = 0; q < p->n_levels; q++)
            m->once[(size_t)s * p->n_levels + q] = p->tied && q < p->level_count[0] ? add_col(m, 0, 1, false) : -1;
    }
    m->chunk = sec && p->chunk_weight > 0 && p->chunk_sec ? add_col(m, p->chunk_weight, INFINITY, false) : -1;
    m->first_elastic = (HighsInt)m->cost.n;
    if (m->shape.relax == DIL__BUDGET_STORE) {
        for (uint32_t s = 0; s < p->n_nodes; s++) add_col(m, 1, INFINITY, false);
    } else if (m->shape.relax != DIL__BUDGET_NONE) {
        add_col(m, 1, INFINITY, false);
    }
}

/* --- rows --------------------------------------------------------------------------------------------------------------- */

static void add_choice_rows(dil__milp *m)
{
    const dil_problem *p = m->p;
    for (uint32_t l = 0; l < p->n_layers; l++) {
        begin_row(m, 1, 1);
        for (size_t i = dil__cell(p, l, 0, 0); i < dil__cell(p, l + 1, 0, 0); i++) put(m, m->x[i], 1);
    }
    if (!p->tied || p->n_layers < 2) return;
    for (uint32_t q = 0; q < p->level_count[0]; q++) {
        begin_row(m, 0, 0);
        for (uint32_t s = 0; s < p->n_nodes; s++) {
            put(m, m->x[dil__cell(p, 0, s, q)], 1);
            put(m, m->x[dil__cell(p, p->n_layers - 1, s, q)], -1);
        }
    }
}

/* x of a node's layer at any level, against the flow that leaves it or that enters the next layer there. */
static void add_balance_row(dil__milp *m, uint32_t l, uint32_t s, bool leaving)
{
    const dil_problem *p = m->p;
    begin_row(m, 0, 0);
    for (uint32_t q = 0; q < p->n_levels; q++) put(m, m->x[dil__cell(p, leaving ? l : l + 1, s, q)], 1);
    put(m, m->stay[(size_t)l * p->n_nodes + s], -1);
}

static void add_path_rows(dil__milp *m)
{
    const dil_problem *p = m->p;
    /* hops are sorted by `from`; by `to` they are found through a counting sort */
    uint32_t *at = calloc((size_t)p->n_nodes + 1, sizeof *at), *by_to = calloc((size_t)p->n_hops + 1, sizeof *by_to);
    if (!at || !by_to) {
        m->failed = true;
        goto done;
    }
    for (uint32_t i = 0; i < p->n_hops; i++) at[p->hops[i].to + 1]++;
    for (uint32_t s = 0; s < p->n_nodes; s++) at[s + 1] += at[s];
    for (uint32_t i = p->n_hops; i-- > 0;) by_to[--at[p->hops[i].to + 1]] = i;
    for (uint32_t l = 0; l + 1 < p->n_layers; l++) {
        uint32_t h = 0;
        for (uint32_t s = 0; s < p->n_nodes; s++) {
            add_balance_row(m, l, s, true);
            for (; h < p->n_hops && p->hops[h].from == s; h++) put(m, m->hop[(size_t)l * p->n_hops + h], -1);
        }
        h = 0;
        for (uint32_t s = 0; s < p->n_nodes; s++) {
            add_balance_row(m, l, s, false);
            for (; h < p->n_hops && p->hops[by_to[h]].to == s; h++) put(m, m->hop[(size_t)l * p->n_hops + by_to[h]], -1);
        }
    }
done:
    free(at);
    free(by_to);
}

/* Bytes are counted in the store's size, so that the right-hand side is 1; a store of 0 bytes in bytes. */
static void add_store_rows(dil__milp *m)
{
    const dil_problem *p = m->p;
    for (uint32_t s = 0; s < p->n_nodes; s++) {
        double unit = p->store_bytes[s] > 0 ? p->store_bytes[s] : 1;
        begin_row(m, -INFINITY, p->store_bytes[s] / unit);
        for (uint32_t l = 0; l < p->n_layers; l++) {
            for (uint32_t q = 0; q < p->n_levels; q++)
                put(m, m->x[dil__cell(p, l, s, q)], p->layer_bytes[(size_t)l * p->n_levels + q] / unit);
        }
        put(m, m->buffer[s], 1);
        for (uint32_t q = 0; p->tied && q < p->level_count[0]; q++) put(m, m->once[(size_t)s * p->n_levels + q], -p->shared_bytes[q] / unit);
        if (m->shape.relax == DIL__BUDGET_STORE) put(m, m->first_elastic + (HighsInt)s, -1 / (unit * dil__milp_elastic_unit(p, m->shape.relax)));
        for (uint32_t l = 0; p->buffer_bytes && l < p->n_layers; l++) {
            if (p->buffer_bytes[l] == 0) continue;
            begin_row(m, 0, INFINITY);
            put(m, m->buffer[s], 1);
            for (uint32_t q = 0; q < p->n_levels; q++) put(m, m->x[dil__cell(p, l, s, q)], -p->buffer_bytes[l] / unit);
        }
        for (uint32_t q = 0; p->tied && q < p->level_count[0]; q++) {
            for (int end = 0; end < 2; end++) {
                begin_row(m, -INFINITY, 0);
                put(m, m->once[(size_t)s * p->n_levels + q], 1);
                put(m, m->x[dil__cell(p, end ? p->n_layers - 1 : 0, s, q)], -1);
            }
        }
    }
}

static void add_sum_row(dil__milp *m, dil__budget which, double max)
{
    const dil_problem *p = m->p;
    if (isinf(max)) return;
    double unit = max > 0 ? max : 1;
    begin_row(m, -INFINITY, max / unit);
    for (uint32_t l = 0; l < p->n_layers; l++) {
        for (uint32_t q = 0; q < p->level_count[l]; q++) {
            size_t lq = (size_t)l * p->n_levels + q;
            double v = (which == DIL__BUDGET_DAMAGE ? p->damage[lq] : file_bytes(p, lq)) / unit;
            for (uint32_t s = 0; s < p->n_nodes; s++) put(m, m->x[dil__cell(p, l, s, q)], v);
        }
    }
    if (m->shape.relax == which) put(m, m->first_elastic, -1 / (unit * dil__milp_elastic_unit(p, which)));
}

static void add_chunk_rows(dil__milp *m)
{
    const dil_problem *p = m->p;
    if (m->chunk < 0) return;
    for (uint32_t s = 0; s < p->n_nodes; s++) {
        begin_row(m, 0, INFINITY);
        put(m, m->chunk, 1);
        for (uint32_t l = 0; l < p->n_layers; l++) {
            for (uint32_t q = 0; q < p->level_count[l]; q++) {
                size_t i = dil__cell(p, l, s, q);
                put(m, m->x[i], -p->chunk_sec[i] * m->scale);
            }
        }
    }
    for (uint32_t h = 0; h < p->n_hops; h++) {
        if (p->hops[h].chunk_sec == 0) continue;
        begin_row(m, 0, INFINITY);
        put(m, m->chunk, 1);
        for (uint32_t l = 0; l + 2 < p->n_layers; l++) put(m, m->hop[(size_t)l * p->n_hops + h], -p->hops[h].chunk_sec * m->scale);
    }
}

static void begin_load_row(dil__milp *m)
{
    double max = m->p->load_max;
    begin_row(m, -INFINITY, max > 0 ? 1 : 0);
    if (m->shape.relax == DIL__BUDGET_LOAD) put(m, m->first_elastic, max > 0 ? -1 / max : -1);
}

static void add_load_rows(dil__milp *m)
{
    const dil_problem *p = m->p;
    if (isinf(p->load_max)) return;
    double unit = p->load_max > 0 ? p->load_max : 1;
    for (uint32_t s = 0; p->load && s < p->n_nodes; s++) {
        begin_load_row(m);
        for (uint32_t l = 0; l < p->n_layers; l++) {
            for (uint32_t q = 0; q < p->level_count[l]; q++) {
                size_t i = dil__cell(p, l, s, q);
                put(m, m->x[i], p->load[i] / unit);
            }
        }
    }
    for (uint32_t h = 0; h < p->n_hops; h++) {
        if (p->hops[h].load == 0) continue;
        begin_load_row(m);
        for (uint32_t l = 0; l + 1 < p->n_layers; l++)
            put(m, m->hop[(size_t)l * p->n_hops + h], p->hops[h].load / unit * (l + 2 == p->n_layers ? p->head_share : 1));
    }
    for (int in = 0; in < 2; in++) {
        const double *load = in ? p->in_load : p->out_load;
        for (uint32_t s = 0; load && s < p->n_nodes; s++) {
            begin_load_row(m);
            for (uint32_t h = 0; h < p->n_hops; h++) {
                if ((in ? p->hops[h].to : p->hops[h].from) != s) continue;
                for (uint32_t l = 0; l + 1 < p->n_layers; l++)
                    put(m, m->hop[(size_t)l * p->n_hops + h], load[s] / unit * (l + 2 == p->n_layers ? p->head_share : 1));
            }
        }
    }
}

double dil__milp_elastic_unit(const dil_problem *p, dil__budget which)
{
    double size = 0;
    if (which == DIL__BUDGET_LOAD) return 1;
    for (uint32_t l = 0; l < p->n_layers; l++) {
        double most = 0;
        for (uint32_t q = 0; q < p->level_count[l]; q++) {
            size_t lq = (size_t)l * p->n_levels + q;
            most = larger(most, which == DIL__BUDGET_STORE ? p->layer_bytes[lq] : which == DIL__BUDGET_FILE ? file_bytes(p, lq) : p->damage[lq]);
        }
        size += most;
    }
    return size > 0 ? 1 / size : 1; /* an overrun of the whole model is 1 */
}

dil_status dil__milp_build(const dil_problem *p, const dil__milp_shape *shape, dil__milp **out, dil_err *err)
{
    size_t S = p->n_nodes, Q = p->n_levels, steps = p->n_layers - 1u;
    double cols = (double)p->n_layers * (double)S * (double)Q + (double)steps * ((double)p->n_hops + (double)S);
    if (cols > COLS_MAX)
        return dil_fail(err, DIL_ELIMIT, "milp: about %.0f columns for %u layers, %u nodes and %u links, at most %d", cols, p->n_layers,
                        p->n_nodes, p->n_hops, COLS_MAX);
    dil__milp *m = calloc(1, sizeof *m);
    if (!m) return dil_fail(err, DIL_EMEMORY, "milp: out of memory");
    m->p = p;
    m->shape = *shape;
    m->x = malloc(p->n_layers * S * Q * sizeof *m->x);
    m->stay = malloc((steps * S + 1) * sizeof *m->stay);
    m->hop = malloc((steps * p->n_hops + 1) * sizeof *m->hop);
    m->buffer = malloc(S * sizeof *m->buffer);
    m->once = malloc(S * Q * sizeof *m->once);
    m->failed = !m->x || !m->stay || !m->hop || !m->buffer || !m->once;
    if (!m->failed) {
        m->scale = shape->relax == DIL__BUDGET_NONE ? pick_scale(m) : 1;
        add_x(m);
        add_flow(m);
        add_others(m);
        add_choice_rows(m);
        add_path_rows(m);
        add_store_rows(m);
        add_sum_row(m, DIL__BUDGET_DAMAGE, p->damage_max);
        add_sum_row(m, DIL__BUDGET_FILE, p->file_bytes_max);
        add_chunk_rows(m);
        add_load_rows(m);
    }
    if (m->failed) {
        dil__milp_free(m);
        return dil_fail(err, DIL_ELIMIT, "milp: the model is beyond %d columns, %d nonzeros or the memory at hand", COLS_MAX, NONZEROS_MAX);
    }
    *out = m;
    return DIL_OK;
}

void dil__milp_free(dil__milp *m)
{
    if (!m) return;
    nums *n[] = {&m->cost, &m->upper, &m->row_lower, &m->row_upper, &m->value};
    ints *i[] = {&m->integral, &m->start, &m->index};
    for (size_t k = 0; k < sizeof n / sizeof *n; k++) free(n[k]->v);
    for (size_t k = 0; k < sizeof i / sizeof *i; k++) free(i[k]->v);
    free(m->x);
    free(m->stay);
    free(m->hop);
    free(m->buffer);
    free(m->once);
    free(m);
}

/* --- HiGHS -------------------------------------------------------------------------------------------------------------- */

static void *new_highs(const dil__milp *m, dil_err *err)
{
    void *h = Highs_create();
    nums lower = {calloc(m->cost.n + 1, sizeof(double)), m->cost.n, m->cost.n};
    HighsInt status = kHighsStatusError;
    if (h && lower.v) {
        Highs_setBoolOptionValue(h, "output_flag", 0);
        status = Highs_passMip(h, (HighsInt)m->cost.n, (HighsInt)m->row_lower.n, (HighsInt)m->value.n, kHighsMatrixFormatRowwise,
                               kHighsObjSenseMinimize, 0, m->cost.v, lower.v, m->upper.v, m->row_lower.v, m->row_upper.v, m->start.v,
                               m->index.v, m->value.v, m->integral.v);
    }
    free(lower.v);
    if (status != kHighsStatusError) return h;
    if (h) Highs_destroy(h);
    dil_fail(err, DIL_EINTERNAL, "milp: HiGHS refused a model of %zu columns and %zu rows", m->cost.n, m->row_lower.n);
    return NULL;
}

static void set_start(const dil__milp *m, void *h, const uint32_t *node, const uint32_t *level)
{
    const dil_problem *p = m->p;
    double *v = calloc(m->cost.n + 1, sizeof *v);
    HighsInt *cols = calloc(m->cost.n + 1, sizeof *cols), n = 0;
    if (!v || !cols) goto done;
    /* every binary is given: the rest follows from them */
    for (uint32_t l = 0; l < p->n_layers; l++) {
        for (uint32_t s = 0; s < p->n_nodes; s++) {
            for (uint32_t q = 0; q < p->n_levels; q++) {
                HighsInt col = m->x[dil__cell(p, l, s, q)];
                bool chosen = node[l] == s && level[l] == q;
                if (chosen && col < 0) goto done;
                if (col < 0) continue;
                cols[n] = col;
                v[n++] = chosen;
            }
        }
    }
    Highs_setSparseSolution(h, n, cols, v);
done:
    free(v);
    free(cols);
}

typedef struct watch {
    const dil_progress *progress;
    double limit_sec;
    bool canceled;
} watch;

static void on_highs(int type, const char *text, const HighsCallbackDataOut *out, HighsCallbackDataIn *in, void *user)
{
    (void)text;
    watch *w = user;
    if (type != kHighsCallbackMipInterrupt) return;
    double done = out->running_time < w->limit_sec ? out->running_time : w->limit_sec;
    if (!dil_progress_step(w->progress, "planning", done, w->limit_sec)) w->canceled = true;
    if (w->canceled) in->user_interrupt = 1;
}

static void read_choice(const dil__milp *m, const double *v, uint32_t *node, uint32_t *level)
{
    const dil_problem *p = m->p;
    for (uint32_t l = 0; l < p->n_layers; l++) {
        double best = -1;
        for (uint32_t s = 0; s < p->n_nodes; s++) {
            for (uint32_t q = 0; q < p->n_levels; q++) {
                HighsInt col = m->x[dil__cell(p, l, s, q)];
                if (col < 0 || v[col] <= best) continue;
                best = v[col];
                node[l] = s;
                level[l] = q;
            }
        }
    }
}

static dil_status read_result(const dil__milp *m, void *h, dil__milp_result *r, dil_err *err)
{
    HighsInt status = Highs_getModelStatus(h), primal = 0;
    Highs_getIntInfoValue(h, "primal_solution_status", &primal);
    double bound = -INFINITY;
    Highs_getDoubleInfoValue(h, "mip_dual_bound", &bound);
    r->bound = isfinite(bound) ? bound / m->scale : -INFINITY;
    if (status == kHighsModelStatusInfeasible || status == kHighsModelStatusUnboundedOrInfeasible)
        return dil_fail(err, DIL_EINFEASIBLE, "no plan meets the budgets");
    if (primal != kHighsSolutionStatusFeasible) {
        if (status == kHighsModelStatusTimeLimit) return dil_fail(err, DIL_ETIMEOUT, "milp: no plan within the time limit");
        if (status == kHighsModelStatusInterrupt) return dil_fail(err, DIL_ECANCELED, "milp: canceled");
        return dil_fail(err, DIL_EINTERNAL, "milp: HiGHS ended with model status %d", (int)status);
    }
    double *v = calloc(m->cost.n + 1, sizeof *v);
    if (!v) return dil_fail(err, DIL_EMEMORY, "milp: out of memory");
    Highs_getSolution(h, v, NULL, NULL, NULL);
    Highs_getDoubleInfoValue(h, "objective_function_value", &r->objective);
    r->objective /= m->scale;
    r->elastic_node = 0;
    for (HighsInt i = m->first_elastic; i < (HighsInt)m->cost.n; i++) {
        if (v[i] > v[m->first_elastic + (HighsInt)r->elastic_node]) r->elastic_node = (uint32_t)(i - m->first_elastic);
    }
    read_choice(m, v, r->node, r->level);
    free(v);
    return DIL_OK;
}

dil_status dil__milp_run(const dil__milp *m, const dil__milp_run_options *o, dil__milp_result *r, dil_err *err)
{
    void *h = new_highs(m, err);
    if (!h) return DIL_EINTERNAL;
    watch w = {o->progress, o->limit_sec, false};
    Highs_setIntOptionValue(h, "threads", 1);
    Highs_setDoubleOptionValue(h, "time_limit", o->limit_sec);
    Highs_setDoubleOptionValue(h, "mip_rel_gap", o->gap);
    Highs_setDoubleOptionValue(h, "mip_abs_gap", 0);
    Highs_setDoubleOptionValue(h, "mip_feasibility_tolerance", 1e-9);
    Highs_setDoubleOptionValue(h, "primal_feasibility_tolerance", 1e-9);
    Highs_setDoubleOptionValue(h, "dual_feasibility_tolerance", 1e-9);
    Highs_setCallback(h, on_highs, &w);
    Highs_startCallback(h, kHighsCallbackMipInterrupt);
    if (o->start_node) set_start(m, h, o->start_node, o->start_level);
    Highs_run(h);
    dil_status s = w.canceled ? dil_fail(err, DIL_ECANCELED, "planning was canceled") : read_result(m, h, r, err);
    Highs_destroy(h);
    return s;
}

dil_status dil__solve_milp_on(dil__job *job, uint32_t only_node, dil_err *err)
{
    dil__milp *m;
    dil__milp_shape shape = {.goal = job->goal, .only_node = only_node};
    dil_status s = dil__milp_build(job->p, &shape, &m, err);
    if (s != DIL_OK) return s;
    dil__milp_run_options o = {job->limit_sec, job->gap, job->progress, job->start_node, job->start_level};
    dil__milp_result r = {.node = job->node, .level = job->level};
    s = dil__milp_run(m, &o, &r, err);
    job->bound = r.bound;
    dil__milp_free(m);
    return s;
}

dil_status dil__solve_milp(dil__job *job, dil_err *err)
{
    return dil__solve_milp_on(job, DIL_NO_NODE, err);
}

dil_status dil_problem_export(const char *path, const dil_problem *p, dil_goal goal, dil_err *err)
{
    size_t n = strlen(path);
    if (!(n > 3 && strcmp(path + n - 3, ".lp") == 0) && !(n > 4 && strcmp(path + n - 4, ".mps") == 0))
        return dil_fail(err, DIL_EUSAGE, "%s: the name must end in .lp or .mps", path);
    dil__milp *m;
    dil__milp_shape shape = {.goal = goal, .only_node = DIL_NO_NODE};
    dil_status s = dil__milp_build(p, &shape, &m, err);
    if (s != DIL_OK) return s;
    void *h = new_highs(m, err);
    s = h ? DIL_OK : DIL_EINTERNAL;
    if (h && Highs_writeModel(h, path) == kHighsStatusError) s = dil_fail(err, DIL_EIO, "%s: HiGHS could not write the model", path);
    if (h) Highs_destroy(h);
    dil__milp_free(m);
    return s;
}
