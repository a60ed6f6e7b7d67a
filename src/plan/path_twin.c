/* plan/path_twin.c - nodes that can be exchanged for one another without changing any cost: a row of equal machines.
 *
 * Every plan has then as many copies as the machines have orders. The search takes the one in which equal nodes are entered in the order
 * of their numbers, and the multipliers of equal nodes are kept equal: the relaxation is concave, so their mean is no worse. */
#include "plan/path_fit.h"

#include <stdlib.h>

static bool same_hops(const double *hop, int S, int a, int b) {
    if (hop[a * S + b] != hop[b * S + a]) return false;
    for (int t = 0; t < S; t++)
        if (t != a && t != b && (hop[a * S + t] != hop[b * S + t] || hop[t * S + a] != hop[t * S + b])) return false;
    return true;
}

static bool same_cells(const double *v, const dil_problem *p, int a, int b) {
    for (uint32_t l = 0; v && l < p->n_layers; l++)
        for (uint32_t q = 0; q < p->level_count[l]; q++)
            if (v[dil__cell(p, l, (uint32_t)a, q)] != v[dil__cell(p, l, (uint32_t)b, q)]) return false;
    return true;
}

static bool same_link(const dil_problem *p, int a, int b, int c, int d) {
    const dil_hop *x = dil_problem_hop(p, (uint32_t)a, (uint32_t)b), *y = dil_problem_hop(p, (uint32_t)c, (uint32_t)d);
    return !x || !y ? x == y : x->chunk_sec == y->chunk_sec && x->load == y->load;
}

/* What a measured problem has beyond the core; seconds are the problem's, for the core's are priced. */
static bool same_measured(const px_real *r, int a, int b) {
    const dil_problem *p = r->p;
    const bool sec = !r->by_damage && !r->by_load, load = r->by_load || p->load_max < INFINITY, chunk = !r->by_damage && r->chunk_weight > 0;
    if ((sec && !same_cells(p->layer_sec, p, a, b)) || (chunk && !same_cells(r->chunk, p, a, b)) || (load && !same_cells(p->load, p, a, b))) return false;
    if (load && p->out_load && p->out_load[a] != p->out_load[b]) return false;
    if (load && p->in_load && p->in_load[a] != p->in_load[b]) return false;
    if (!load && !chunk) return true;
    if (!same_link(p, a, b, b, a)) return false;
    for (int t = 0; t < (int)p->n_nodes; t++)
        if (t != a && t != b && (!same_link(p, a, t, b, t) || !same_link(p, t, a, t, b))) return false;
    return true;
}

static bool are_twins(const px_core *c, int a, int b) {
    if (c->has_ends && (a == c->first_node || a == c->last_node || b == c->first_node || b == c->last_node)) return false;
    if (c->store[a] != c->store[b] || c->source[a] != c->source[b] || c->sink[a] != c->sink[b]) return false;
    if (!same_hops(c->hop, c->n_nodes, a, b) || (c->head_hop && !same_hops(c->head_hop, c->n_nodes, a, b))) return false;
    if (c->real) return same_measured(c->real, a, b);
    for (int l = 0; l < c->n_layers; l++)
        for (int q = 0; q < c->n_levels; q++)
            if (px_sec(c, a, l, q) != px_sec(c, b, l, q)) return false;
    return true;
}

bool dil__px_find_twins(const px_core *c, int *twin) {
    bool any = false;
    for (int s = 0; s < c->n_nodes; s++) {
        twin[s] = -1;
        for (int t = s - 1; t >= 0 && twin[s] < 0; t--)
            if (are_twins(c, t, s)) twin[s] = t;
        any = any || twin[s] >= 0;
    }
    return any;
}

void dil__px_level_twins(const px_core *c, double *v, size_t stride) {
    for (int s = 0; c->twin && s < c->n_nodes; s++) {
        double sum = 0;
        int n = 0;
        for (int t = s; t >= 0; t = c->twin[t], n++) sum += v[(size_t)t * stride];
        bool is_last = true;
        for (int t = s + 1; t < c->n_nodes; t++) is_last = is_last && c->twin[t] != s;
        for (int t = s; t >= 0 && is_last && n > 1; t = c->twin[t]) v[(size_t)t * stride] = sum / n;
    }
}
