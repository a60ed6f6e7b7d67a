/* The exact solver: DESIGN's flow formulation through HiGHS's C API (docs/PLANNER.md (1)-(9)).
 *
 * Columns: x[l,s,q] binary; f[l,s,s'] >= 0 the hidden state's way after layer l (integral with x); b[s,k] binary, the node needs a buffer of size k;
 * z[s,q] the shared table counted once; T the slowest node's or link's seconds a chunk; e the overrun of an elastic budget.
 * Products y >= x + x' - 1 in place of the flow were rejected: the relaxation is two to three times weaker (issue 4's table).
 * Every budget row is divided by its right-hand side and the objective is scaled to about 100, so that HiGHS's absolute
 * tolerances mean the same for bytes, nats and seconds. */
#include "plan/highs.h"
#include "plan/milp.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { COLS_MAX = 4000000, NONZEROS_MAX = 40000000 };

typedef struct nums {
    double *v;
    size_t n, cap;
} nums;

typedef struct ints {
    int *v;
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
    ints tag;                          /* [rows] what several models share, see dil__milp_part */
    int now_tag;
    uint32_t n_places;                 /* a place is a node, or a stage of shape.order */
    uint32_t *node_of;                 /* [n_places] */
    struct arc { uint32_t from, to; const dil_hop *hop; } *arcs; /* [n_arcs] between places, sorted by from */
    uint32_t n_arcs;
    int *x;                       /* [L][n_places][Q] column, -1: cannot be */
    int *stay, *hop;              /* [L-1][n_places], [L-1][n_arcs] column, -1 */
    int *buffer, *once;           /* [S][n_sizes], [S][Q] */
    double *sizes;                     /* [n_sizes] the layers' buffers that differ, ascending, 0 left out */
    uint32_t n_sizes;
    bool for_busiest; /* while the rows of the busiest one's load are laid */
    int chunk, busiest, first_elastic;
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

static void push_int(dil__milp *m, ints *a, int v)
{
    if (m->failed || !grow((void **)&a->v, &a->cap, a->n, sizeof *a->v)) m->failed = true;
    else a->v[a->n++] = v;
}

static int add_col(dil__milp *m, double cost, double upper, bool integral)
{
    if (m->cost.n >= COLS_MAX) m->failed = true;
    push_num(m, &m->cost, cost);
    push_num(m, &m->upper, upper);
    push_int(m, &m->integral, integral);
    return m->failed ? -1 : (int)m->cost.n - 1;
}

static void begin_row(dil__milp *m, double lower, double upper)
{
    push_num(m, &m->row_lower, lower);
    push_num(m, &m->row_upper, upper);
    push_int(m, &m->start, (int)m->value.n);
    push_int(m, &m->tag, m->now_tag);
    m->now_tag = DIL__TAG_OWN;
}

static void put(dil__milp *m, int col, double v)
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

static size_t at(const dil__milp *m, uint32_t l, uint32_t place, uint32_t q)
{
    return ((size_t)l * m->n_places + place) * m->p->n_levels + q;
}

/* With an order the first layer is at the first stage, the last at the last, and every stage has room for one. */
static bool in_order(const dil__milp *m, uint32_t l, uint32_t place)
{
    uint32_t after = m->p->n_layers - 1 - l, places_after = m->n_places - 1 - place;
    if (!m->shape.order) return true;
    if (m->shape.stage && m->shape.stage[l] != place) return false;
    return place <= l && places_after <= after && (l > 0 || place == 0) && (after > 0 || places_after == 0);
}

/* A choice that alone breaks a hard budget has no column. */
static bool possible(const dil__milp *m, uint32_t l, uint32_t place, uint32_t q)
{
    const dil_problem *p = m->p;
    uint32_t s = m->node_of[place];
    const double slack = 1 + 1e-9;
    size_t lq = (size_t)l * p->n_levels + q;
    dil__budget relax = m->shape.relax;
    if (q >= p->level_count[l] || !in_order(m, l, place)) return false;
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
    if (m->shape.goal == DIL_GOAL_LOAD) return 0;
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
                double c = m->shape.goal == DIL_GOAL_LOAD ? p->load[dil__cell(p, l, s, q)] : x_cost(m, l, s, q);
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
        for (uint32_t k = 0; k < m->n_places; k++) {
            for (uint32_t q = 0; q < p->n_levels; q++)
                m->x[at(m, l, k, q)] = possible(m, l, k, q) ? add_col(m, x_cost(m, l, m->node_of[k], q) * m->scale, 1, true) : -1;
        }
    }
}

static void add_flow(dil__milp *m)
{
    const dil_problem *p = m->p;
    bool sec = m->shape.goal == DIL_GOAL_SEC && m->shape.relax == DIL__BUDGET_NONE;
    for (uint32_t l = 0; l + 1 < p->n_layers; l++) {
        bool to_head = l + 2 == p->n_layers;
        for (uint32_t k = 0; k < m->n_places; k++) m->stay[(size_t)l * m->n_places + k] = add_col(m, 0, 1, false);
        for (uint32_t i = 0; i < m->n_arcs; i++) {
            const dil_hop *h = m->arcs[i].hop;
            double load = h->load * (to_head ? p->head_share : 1);
            bool use = m->shape.relax == DIL__BUDGET_LOAD || load <= p->load_max * (1 + 1e-9);
            double cost = sec ? (to_head ? h->head_sec : h->sec) * m->scale : 0;
            m->hop[(size_t)l * m->n_arcs + i] = use ? add_col(m, cost, 1, false) : -1;
        }
    }
}

static void add_others(dil__milp *m)
{
    const dil_problem *p = m->p;
    bool sec = m->shape.goal == DIL_GOAL_SEC && m->shape.relax == DIL__BUDGET_NONE;
    for (uint32_t s = 0; s < p->n_nodes; s++) {
        for (uint32_t i = 0; i < m->n_sizes; i++) m->buffer[(size_t)s * m->n_sizes + i] = add_col(m, 0, 1, true);
        for (uint32_t q = 0; q < p->n_levels; q++)
            m->once[(size_t)s * p->n_levels + q] = p->tied && q < p->level_count[0] ? add_col(m, 0, 1, false) : -1;
    }
    m->chunk = sec && p->chunk_weight > 0 && p->chunk_sec ? add_col(m, p->chunk_weight, INFINITY, false) : -1;
    m->busiest = m->shape.goal == DIL_GOAL_LOAD && m->shape.relax == DIL__BUDGET_NONE ? add_col(m, 1, INFINITY, false) : -1;
    m->first_elastic = (int)m->cost.n;
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
        for (size_t i = at(m, l, 0, 0); i < at(m, l + 1, 0, 0); i++) put(m, m->x[i], 1);
    }
    if (!p->tied || p->n_layers < 2) return;
    for (uint32_t q = 0; q < p->level_count[0]; q++) {
        begin_row(m, 0, 0);
        for (uint32_t k = 0; k < m->n_places; k++) {
            put(m, m->x[at(m, 0, k, q)], 1);
            put(m, m->x[at(m, p->n_layers - 1, k, q)], -1);
        }
    }
}

/* x of a place's layer at any level, against the flow that leaves it or that enters the next layer there. */
static void begin_balance_row(dil__milp *m, uint32_t l, uint32_t place, bool leaving)
{
    begin_row(m, 0, 0);
    for (uint32_t q = 0; q < m->p->n_levels; q++) put(m, m->x[at(m, leaving ? l : l + 1, place, q)], 1);
    put(m, m->stay[(size_t)l * m->n_places + place], -1);
}

static void add_path_rows(dil__milp *m)
{
    /* arcs are sorted by `from`; by `to` they are found through a counting sort */
    uint32_t *start = calloc((size_t)m->n_places + 1, sizeof *start), *by_to = calloc((size_t)m->n_arcs + 1, sizeof *by_to);
    if (!start || !by_to) {
        m->failed = true;
        goto done;
    }
    for (uint32_t i = 0; i < m->n_arcs; i++) start[m->arcs[i].to + 1]++;
    for (uint32_t k = 0; k < m->n_places; k++) start[k + 1] += start[k];
    for (uint32_t i = m->n_arcs; i-- > 0;) by_to[--start[m->arcs[i].to + 1]] = i;
    for (uint32_t l = 0; l + 1 < m->p->n_layers; l++) {
        const int *hop = m->hop + (size_t)l * m->n_arcs;
        uint32_t i = 0;
        for (uint32_t k = 0; k < m->n_places; k++) {
            begin_balance_row(m, l, k, true);
            for (; i < m->n_arcs && m->arcs[i].from == k; i++) put(m, hop[i], -1);
        }
        i = 0;
        for (uint32_t k = 0; k < m->n_places; k++) {
            begin_balance_row(m, l, k, false);
            for (; i < m->n_arcs && m->arcs[by_to[i]].to == k; i++) put(m, hop[by_to[i]], -1);
        }
    }
done:
    free(start);
    free(by_to);
}

/* value times x of (layer, level), summed over the places of a node. */
static void put_at_node(dil__milp *m, uint32_t s, uint32_t l, uint32_t q, double value)
{
    for (uint32_t k = 0; k < m->n_places; k++) {
        if (m->node_of[k] == s) put(m, m->x[at(m, l, k, q)], value);
    }
}

/* A buffer of a size is needed where a layer of that size is, or a larger buffer. */
static void add_buffer_rows(dil__milp *m, uint32_t s)
{
    const dil_problem *p = m->p;
    const int *buffer = m->buffer + (size_t)s * m->n_sizes;
    for (uint32_t l = 0; p->buffer_bytes && l < p->n_layers; l++) {
        uint32_t i = 0;
        if (p->buffer_bytes[l] == 0) continue;
        while (m->sizes[i] < p->buffer_bytes[l]) i++;
        begin_row(m, 0, INFINITY);
        put(m, buffer[i], 1);
        for (uint32_t q = 0; q < p->level_count[l]; q++) put_at_node(m, s, l, q, -1);
    }
    for (uint32_t i = 0; i + 1 < m->n_sizes; i++) {
        begin_row(m, 0, INFINITY);
        put(m, buffer[i], 1);
        put(m, buffer[i + 1], -1);
    }
}

/* Bytes are counted in the store's size, so that the right-hand side is 1; a store of 0 bytes in bytes. */
static void add_store_rows(dil__milp *m)
{
    const dil_problem *p = m->p;
    for (uint32_t s = 0; s < p->n_nodes; s++) {
        double unit = p->store_bytes[s] > 0 ? p->store_bytes[s] : 1;
        m->now_tag = dil__tag(p, DIL__TAG_STORE, s);
        begin_row(m, -INFINITY, p->store_bytes[s] / unit);
        for (uint32_t l = 0; l < p->n_layers; l++) {
            for (uint32_t q = 0; q < p->level_count[l]; q++) put_at_node(m, s, l, q, p->layer_bytes[(size_t)l * p->n_levels + q] / unit);
        }
        for (uint32_t i = 0; i < m->n_sizes; i++)
            put(m, m->buffer[(size_t)s * m->n_sizes + i], (m->sizes[i] - (i ? m->sizes[i - 1] : 0)) / unit);
        for (uint32_t q = 0; p->tied && q < p->level_count[0]; q++) put(m, m->once[(size_t)s * p->n_levels + q], -p->shared_bytes[q] / unit);
        if (m->shape.relax == DIL__BUDGET_STORE) put(m, m->first_elastic + (int)s, -1 / (unit * dil__milp_elastic_unit(p, m->shape.relax)));
        add_buffer_rows(m, s);
        for (uint32_t q = 0; p->tied && q < p->level_count[0]; q++) {
            for (int end = 0; end < 2; end++) {
                begin_row(m, -INFINITY, 0);
                put(m, m->once[(size_t)s * p->n_levels + q], 1);
                put_at_node(m, s, end ? p->n_layers - 1 : 0, q, -1);
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
            for (uint32_t k = 0; k < m->n_places; k++) put(m, m->x[at(m, l, k, q)], v);
        }
    }
    if (m->shape.relax == which) put(m, m->first_elastic, -1 / (unit * dil__milp_elastic_unit(p, which)));
}

/* value times each layer's coef [L][S][Q] at node s. */
static void put_cells(dil__milp *m, uint32_t s, const double *coef, double value)
{
    const dil_problem *p = m->p;
    for (uint32_t l = 0; l < p->n_layers; l++) {
        for (uint32_t q = 0; q < p->level_count[l]; q++) put_at_node(m, s, l, q, coef[dil__cell(p, l, s, q)] * value);
    }
}

/* Crossings of arcs that the filter lets through; `last` multiplies those before the last layer. */
static void put_crossings(dil__milp *m, const dil_hop *only, uint32_t from, uint32_t to, double value, double last)
{
    uint32_t steps = m->p->n_layers - 1;
    for (uint32_t i = 0; i < m->n_arcs; i++) {
        const dil_hop *h = m->arcs[i].hop;
        if ((only && h != only) || (from != DIL_NO_NODE && h->from != from) || (to != DIL_NO_NODE && h->to != to)) continue;
        for (uint32_t l = 0; l < steps; l++) put(m, m->hop[(size_t)l * m->n_arcs + i], l + 1 == steps ? value * last : value);
    }
}

/* A link's own rows, once for each link that some arc uses. */
static bool first_arc_of(const dil__milp *m, uint32_t i)
{
    if (!m->shape.order) return true;
    for (uint32_t k = 0; k < i; k++) {
        if (m->arcs[k].hop == m->arcs[i].hop) return false;
    }
    return true;
}

static void add_chunk_rows(dil__milp *m)
{
    const dil_problem *p = m->p;
    if (m->chunk < 0) return;
    for (uint32_t s = 0; s < p->n_nodes; s++) {
        begin_row(m, 0, INFINITY);
        put(m, m->chunk, 1);
        put_cells(m, s, p->chunk_sec, -m->scale);
    }
    for (uint32_t i = 0; i < m->n_arcs; i++) {
        const dil_hop *h = m->arcs[i].hop;
        if (h->chunk_sec == 0 || !first_arc_of(m, i)) continue;
        begin_row(m, 0, INFINITY);
        put(m, m->chunk, 1);
        put_crossings(m, h, h->from, h->to, -h->chunk_sec * m->scale, 0);
    }
}

/* A row of the busiest one's load, or of a budget. */
static void begin_load_row(dil__milp *m)
{
    double max = m->p->load_max;
    if (m->busiest >= 0 && m->for_busiest) {
        begin_row(m, 0, INFINITY);
        put(m, m->busiest, 1);
        return;
    }
    begin_row(m, -INFINITY, max > 0 ? 1 : 0);
    if (m->shape.relax == DIL__BUDGET_LOAD) put(m, m->first_elastic, max > 0 ? -1 / max : -1);
}

static void add_load_rows(dil__milp *m)
{
    const dil_problem *p = m->p;
    if (m->for_busiest ? m->busiest < 0 : isinf(p->load_max)) return;
    double unit = m->for_busiest ? -1 / m->scale : p->load_max > 0 ? p->load_max : 1;
    for (uint32_t s = 0; p->load && s < p->n_nodes; s++) {
        m->now_tag = dil__tag(p, DIL__TAG_NODE, s);
        begin_load_row(m);
        put_cells(m, s, p->load, 1 / unit);
    }
    for (uint32_t i = 0; i < m->n_arcs; i++) {
        const dil_hop *h = m->arcs[i].hop;
        if (h->load == 0 || !first_arc_of(m, i)) continue;
        m->now_tag = dil__tag(p, DIL__TAG_LINK, (uint32_t)(h - p->hops));
        begin_load_row(m);
        put_crossings(m, h, h->from, h->to, h->load / unit, p->head_share);
    }
    for (uint32_t s = 0; p->out_load && p->in_load && s < p->n_nodes; s++) {
        m->now_tag = dil__tag(p, DIL__TAG_OUT, s);
        begin_load_row(m);
        put_crossings(m, NULL, s, DIL_NO_NODE, p->out_load[s] / unit, p->head_share);
        m->now_tag = dil__tag(p, DIL__TAG_IN, s);
        begin_load_row(m);
        put_crossings(m, NULL, DIL_NO_NODE, s, p->in_load[s] / unit, p->head_share);
    }
}

/* --- the whole ---------------------------------------------------------------------------------------------------------- */

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

static int by_value(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* The buffers as steps that a node takes or not: a continuous largest buffer would be a third for a third of every layer. */
static bool sort_buffers(dil__milp *m)
{
    const dil_problem *p = m->p;
    m->sizes = calloc(p->n_layers, sizeof *m->sizes);
    if (!m->sizes || !p->buffer_bytes) return m->sizes != NULL;
    memcpy(m->sizes, p->buffer_bytes, p->n_layers * sizeof *m->sizes);
    qsort(m->sizes, p->n_layers, sizeof *m->sizes, by_value);
    for (uint32_t l = 0; l < p->n_layers; l++) {
        if (m->sizes[l] > (m->n_sizes ? m->sizes[m->n_sizes - 1] : 0)) m->sizes[m->n_sizes++] = m->sizes[l];
    }
    return true;
}

/* Places and the arcs between them: all nodes and links, or the stages of an order and the hop from each to the next. */
static dil_status lay_out(dil__milp *m, dil_err *err)
{
    const dil_problem *p = m->p;
    m->n_places = m->shape.order ? m->shape.n_order : p->n_nodes;
    m->node_of = calloc(m->n_places, sizeof *m->node_of);
    m->arcs = calloc((m->shape.order ? m->n_places : p->n_hops) + 1u, sizeof *m->arcs);
    if (!m->node_of || !m->arcs || !sort_buffers(m)) return dil_fail(err, DIL_EMEMORY, "milp: out of memory");
    for (uint32_t k = 0; k < m->n_places; k++) m->node_of[k] = m->shape.order ? m->shape.order[k] : k;
    for (uint32_t i = 0; !m->shape.order && i < p->n_hops; i++) m->arcs[m->n_arcs++] = (struct arc){p->hops[i].from, p->hops[i].to, &p->hops[i]};
    for (uint32_t k = 0; m->shape.order && k + 1 < m->n_places; k++) {
        const dil_hop *h = dil_problem_hop(p, m->node_of[k], m->node_of[k + 1]);
        if (!h) return dil_fail(err, DIL_EINFEASIBLE, "no link from node %u to node %u", m->node_of[k], m->node_of[k + 1]);
        m->arcs[m->n_arcs++] = (struct arc){k, k + 1, h};
    }
    size_t S = p->n_nodes, Q = p->n_levels, K = m->n_places, steps = p->n_layers - 1u;
    double cols = (double)p->n_layers * (double)K * (double)Q + (double)steps * ((double)m->n_arcs + (double)K);
    if (cols > COLS_MAX)
        return dil_fail(err, DIL_ELIMIT, "milp: about %.0f columns for %u layers, %u nodes and %u links, at most %d", cols, p->n_layers,
                        p->n_nodes, p->n_hops, COLS_MAX);
    m->x = malloc(p->n_layers * K * Q * sizeof *m->x);
    m->stay = malloc((steps * K + 1) * sizeof *m->stay);
    m->hop = malloc((steps * m->n_arcs + 1) * sizeof *m->hop);
    m->buffer = malloc((S * m->n_sizes + 1) * sizeof *m->buffer);
    m->once = malloc(S * Q * sizeof *m->once);
    return m->x && m->stay && m->hop && m->buffer && m->once ? DIL_OK : dil_fail(err, DIL_EMEMORY, "milp: out of memory");
}

dil_status dil__milp_build(const dil_problem *p, const dil__milp_shape *shape, dil__milp **out, dil_err *err)
{
    dil__milp *m = calloc(1, sizeof *m);
    if (!m) return dil_fail(err, DIL_EMEMORY, "milp: out of memory");
    m->p = p;
    m->shape = *shape;
    m->now_tag = DIL__TAG_OWN;
    dil_status s = lay_out(m, err);
    if (s != DIL_OK) {
        dil__milp_free(m);
        return s;
    }
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
    for (int pass = 0; pass < 2; pass++) {
        m->for_busiest = pass == 1;
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
    ints *i[] = {&m->integral, &m->start, &m->index, &m->tag};
    for (size_t k = 0; k < sizeof n / sizeof *n; k++) free(n[k]->v);
    for (size_t k = 0; k < sizeof i / sizeof *i; k++) free(i[k]->v);
    free(m->node_of);
    free(m->arcs);
    free(m->x);
    free(m->stay);
    free(m->hop);
    free(m->buffer);
    free(m->sizes);
    free(m->once);
    free(m);
}

/* --- running ------------------------------------------------------------------------------------------------------------ */

static dil__mip view(const dil__milp *m)
{
    return (dil__mip){.n_cols = (int)m->cost.n, .n_rows = (int)m->row_lower.n, .n_values = (int)m->value.n, .cost = m->cost.v, .upper = m->upper.v,
                      .integral = m->integral.v, .row_lower = m->row_lower.v, .row_upper = m->row_upper.v, .start = m->start.v,
                      .index = m->index.v, .value = m->value.v};
}

/* Every binary x is given. */
int dil__milp_start(const dil__milp *m, const uint32_t *node, const uint32_t *level, int *cols, double *v)
{
    const dil_problem *p = m->p;
    int n = 0;
    for (uint32_t l = 0; l < p->n_layers; l++) {
        for (uint32_t k = 0; k < m->n_places; k++) {
            for (uint32_t q = 0; q < p->n_levels; q++) {
                int col = m->x[at(m, l, k, q)];
                bool chosen = node[l] == m->node_of[k] && level[l] == q;
                if (chosen && col < 0) return 0;
                if (col < 0) continue;
                cols[n] = col;
                v[n++] = chosen;
            }
        }
    }
    return n;
}

static void read_choice(const dil__milp *m, const double *v, uint32_t *node, uint32_t *level)
{
    const dil_problem *p = m->p;
    for (uint32_t l = 0; l < p->n_layers; l++) {
        double best = -1;
        for (uint32_t k = 0; k < m->n_places; k++) {
            for (uint32_t q = 0; q < p->n_levels; q++) {
                int col = m->x[at(m, l, k, q)];
                if (col < 0 || v[col] <= best) continue;
                best = v[col];
                node[l] = m->node_of[k];
                level[l] = q;
            }
        }
    }
}

dil__milp_part dil__milp_get(const dil__milp *m)
{
    return (dil__milp_part){view(m), m->scale, m->tag.v};
}

void dil__milp_choice(const dil__milp *m, const double *v, uint32_t *node, uint32_t *level)
{
    read_choice(m, v, node, level);
}

typedef struct improving {
    dil__trail *trail;
    double scale;
} improving;

static void note_improved(void *ctx, double objective, double bound)
{
    improving *x = ctx;
    if (isfinite(bound)) dil__trail_bound(x->trail, bound / x->scale);
    dil__trail_plan(x->trail, objective / x->scale);
}

dil_status dil__milp_run(const dil__milp *m, const dil__milp_run_options *o, dil__milp_result *r, dil_err *err)
{
    size_t n = m->cost.n + 1;
    double *v = calloc(n, sizeof *v), *start = calloc(n, sizeof *start);
    int *cols = calloc(n, sizeof *cols);
    dil_status s = v && start && cols ? DIL_OK : dil_fail(err, DIL_EMEMORY, "milp: out of memory");
    if (s == DIL_OK) {
        dil__mip mip = view(m);
        dil__mip_options mo = {.limit_sec = o->limit_sec, .gap = o->gap, .cutoff = o->cutoff * m->scale, .progress = o->progress,
                               .start_col = cols, .start_value = start};
        improving found = {o->trail, m->scale};
        if (o->trail) {
            mo.improved = note_improved;
            mo.ctx = &found;
        }
        if (o->start_node && !m->shape.order) mo.n_start = dil__milp_start(m, o->start_node, o->start_level, cols, start);
        dil__mip_result mr = {.v = v, .bound = -INFINITY};
        s = dil__mip_solve("milp", &mip, &mo, &mr, err);
        r->bound = mr.bound / m->scale;
        r->objective = mr.objective / m->scale;
    }
    r->elastic_node = 0;
    for (int i = m->first_elastic; s == DIL_OK && i < (int)m->cost.n; i++) {
        if (v[i] > v[m->first_elastic + (int)r->elastic_node]) r->elastic_node = (uint32_t)(i - m->first_elastic);
    }
    if (s == DIL_OK) read_choice(m, v, r->node, r->level);
    free(v);
    free(start);
    free(cols);
    return s;
}

dil_status dil__solve_milp_order(dil__job *job, const uint32_t *order, uint32_t n_order, const uint16_t *stage, dil_err *err)
{
    dil__milp *m;
    dil__milp_shape shape = {.goal = job->goal, .order = order, .n_order = n_order, .stage = stage};
    dil_status s = dil__milp_build(job->p, &shape, &m, err);
    if (s != DIL_OK) return s;
    dil__milp_run_options o = {job->limit_sec, job->gap, job->progress, job->start_node, job->start_level, job->cutoff, job->trail};
    dil__milp_result r = {.node = job->node, .level = job->level};
    s = dil__milp_run(m, &o, &r, err);
    job->bound = r.bound;
    dil__milp_free(m);
    return s;
}

dil_status dil__solve_milp(dil__job *job, dil_err *err)
{
    return dil__solve_milp_order(job, NULL, 0, NULL, err);
}

dil_status dil_problem_export(const char *path, const dil_problem *p, dil_goal goal, dil_err *err)
{
    size_t n = strlen(path);
    if (!(n > 3 && strcmp(path + n - 3, ".lp") == 0) && !(n > 4 && strcmp(path + n - 4, ".mps") == 0))
        return dil_fail(err, DIL_EUSAGE, "%s: the name must end in .lp or .mps", path);
    dil__milp *m;
    dil__milp_shape shape = {.goal = goal};
    dil_status s = dil__milp_build(p, &shape, &m, err);
    if (s != DIL_OK) return s;
    dil__mip mip = view(m);
    s = dil__mip_write(path, &mip, err);
    dil__milp_free(m);
    return s;
}
