/* The referee: what an assignment costs and takes, recomputed term by term from the problem. It shares no code with the solvers and
 * is written to be read beside docs/PLANNER.md, not to be fast. Budgets are met within 1e-9 of themselves, so that a budget that
 * is the exact sum of what is chosen stays met whatever the order of the additions. */
#include <dilemma/problem.h>

#include <math.h>
#include <stdlib.h>

#define TOLERANCE 1e-9

const dil_hop *dil_problem_hop(const dil_problem *p, uint32_t from, uint32_t to)
{
    uint32_t lo = 0, hi = p->n_hops;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        const dil_hop *h = &p->hops[mid];
        if (h->from == from && h->to == to) return h;
        if (h->from < from || (h->from == from && h->to < to)) lo = mid + 1;
        else hi = mid;
    }
    return NULL;
}

static size_t cell(const dil_problem *p, uint32_t layer, uint32_t node, uint32_t level)
{
    return ((size_t)layer * p->n_nodes + node) * p->n_levels + level;
}

typedef struct tally { /* per node, then per connection, then per hop of the path */
    double *bytes, *buffer, *chunk, *load, *out, *in; /* [S] */
    double *hop_chunk, *hop_load;                     /* [n_hops] */
} tally;

static void add_layers(const dil_problem *p, const uint32_t *node, const uint32_t *level, tally *t, dil_use *u)
{
    uint32_t last = p->n_layers - 1;
    for (uint32_t l = 0; l < p->n_layers; l++) {
        uint32_t s = node[l], q = level[l];
        size_t lq = (size_t)l * p->n_levels + q, lsq = cell(p, l, s, q);
        u->sec += p->layer_sec[lsq];
        u->damage += p->damage[lq];
        u->file_bytes += p->file_bytes ? p->file_bytes[lq] : p->layer_bytes[lq];
        t->bytes[s] += p->layer_bytes[lq];
        if (p->buffer_bytes && p->buffer_bytes[l] > t->buffer[s]) t->buffer[s] = p->buffer_bytes[l];
        if (p->chunk_sec) t->chunk[s] += p->chunk_sec[lsq];
        if (p->load) t->load[s] += p->load[lsq];
    }
    if (p->tied && last > 0 && node[0] == node[last]) t->bytes[node[0]] -= p->shared_bytes[level[last]];
}

static void add_hops(const dil_problem *p, const uint32_t *node, tally *t, dil_use *u)
{
    uint32_t last = p->n_layers - 1;
    u->sec += p->source_sec[node[0]] + p->sink_sec[node[last]];
    u->connected = isfinite(u->sec);
    for (uint32_t l = 0; l < last; l++) {
        uint32_t from = node[l], to = node[l + 1];
        if (from == to) continue;
        const dil_hop *h = dil_problem_hop(p, from, to);
        if (!h) {
            u->connected = false;
            continue;
        }
        bool to_head = l + 1 == last;
        double share = to_head ? p->head_share : 1;
        u->sec += to_head ? h->head_sec : h->sec;
        if (!to_head) t->hop_chunk[h - p->hops] += h->chunk_sec;
        t->hop_load[h - p->hops] += share * h->load;
        if (p->out_load) t->out[from] += share * p->out_load[from];
        if (p->in_load) t->in[to] += share * p->in_load[to];
    }
}

static double larger(double a, double b)
{
    return a > b ? a : b;
}

static void find_maxima(const dil_problem *p, const uint32_t *node, const tally *t, dil_use *u)
{
    double worst = -INFINITY;
    for (uint32_t s = 0; s < p->n_nodes; s++) {
        double over = t->bytes[s] + t->buffer[s] - p->store_bytes[s];
        if (over - TOLERANCE * p->store_bytes[s] > worst) {
            worst = over - TOLERANCE * p->store_bytes[s];
            u->over_store_bytes = over;
            u->over_store_node = s;
        }
        u->chunk_max_sec = larger(u->chunk_max_sec, t->chunk[s]);
        u->load_max = larger(larger(u->load_max, t->load[s]), larger(t->out[s], t->in[s]));
    }
    for (uint32_t l = 0; l + 1 < p->n_layers; l++) {
        const dil_hop *h = node[l] == node[l + 1] ? NULL : dil_problem_hop(p, node[l], node[l + 1]);
        if (!h) continue;
        u->chunk_max_sec = larger(u->chunk_max_sec, t->hop_chunk[h - p->hops]);
        u->load_max = larger(u->load_max, t->hop_load[h - p->hops]);
    }
    u->sec += p->chunk_weight * u->chunk_max_sec;
    u->over_damage = u->damage - p->damage_max;
    u->over_file_bytes = u->file_bytes - p->file_bytes_max;
    u->over_load = u->load_max - p->load_max;
}

static dil_status judge(const dil_problem *p, const uint32_t *node, const uint32_t *level, const dil_use *u, dil_err *err)
{
    if (p->tied && level[0] != level[p->n_layers - 1])
        return dil_fail(err, DIL_EINFEASIBLE, "tied head: level %u, but the embedding has %u", level[p->n_layers - 1], level[0]);
    if (!u->connected) {
        for (uint32_t l = 0; l + 1 < p->n_layers; l++) {
            if (node[l] != node[l + 1] && !dil_problem_hop(p, node[l], node[l + 1]))
                return dil_fail(err, DIL_EINFEASIBLE, "links: none from node %u to node %u after layer %u", node[l], node[l + 1], l);
        }
        return dil_fail(err, DIL_EINFEASIBLE, "links: node %u cannot be reached from the entry, or the entry not from node %u", node[0],
                        node[p->n_layers - 1]);
    }
    double store = p->store_bytes[u->over_store_node];
    if (u->over_store_bytes > TOLERANCE * store)
        return dil_fail(err, DIL_EINFEASIBLE, "storage: node %u needs %.0f bytes and offers %.0f", u->over_store_node,
                        store + u->over_store_bytes, store);
    if (u->damage > p->damage_max * (1 + TOLERANCE))
        return dil_fail(err, DIL_EINFEASIBLE, "quality: damage %.9g, budget %.9g", u->damage, p->damage_max);
    if (u->file_bytes > p->file_bytes_max * (1 + TOLERANCE))
        return dil_fail(err, DIL_EINFEASIBLE, "size: %.0f bytes, limit %.0f", u->file_bytes, p->file_bytes_max);
    if (u->load_max > p->load_max * (1 + TOLERANCE))
        return dil_fail(err, DIL_EINFEASIBLE, "load: %.6g of a node, link or connection, limit %.6g", u->load_max, p->load_max);
    return DIL_OK;
}

dil_status dil_problem_check(const dil_problem *p, const uint32_t *node, const uint32_t *level, dil_use *use, dil_err *err)
{
    for (uint32_t l = 0; l < p->n_layers; l++) {
        if (node[l] >= p->n_nodes || level[l] >= p->level_count[l])
            return dil_fail(err, DIL_EUSAGE, "layer %u: node %u of %u, level %u of %u", l, node[l], p->n_nodes, level[l], p->level_count[l]);
    }
    double *v = calloc((size_t)6 * p->n_nodes + (size_t)2 * p->n_hops, sizeof *v);
    if (!v) return dil_fail(err, DIL_EMEMORY, "checking a plan: out of memory");
    size_t n = p->n_nodes;
    tally t = {v, v + n, v + 2 * n, v + 3 * n, v + 4 * n, v + 5 * n, v + 6 * n, v + 6 * n + p->n_hops};
    dil_use u = {0};
    add_layers(p, node, level, &t, &u);
    add_hops(p, node, &t, &u);
    find_maxima(p, node, &t, &u);
    free(v);
    if (use) *use = u;
    return judge(p, node, level, &u, err);
}
