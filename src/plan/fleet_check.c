/* The referee of several plans: what they take together, from profiles and cluster alone. It shares no code with fleet.c or the program. */
#include <dilemma/fleet.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TOLERANCE 1e-9

typedef struct sums {
    double *bytes, *busy, *out, *in; /* [N] */
    double *link;                    /* [n_links] bytes a second */
} sums;

static const dil_profile_level *level_at(const dil_profile *p, const dil_plan *plan, uint32_t l)
{
    for (uint32_t q = 0; q < p->layers[l].n_levels; q++) {
        if (strcmp(p->layers[l].levels[q].name, plan->layers[l].level) == 0) return &p->layers[l].levels[q];
    }
    return NULL;
}

static uint32_t profile_node(const dil_profile *p, const char *name)
{
    uint32_t i = 0;
    while (i < p->n_nodes && strcmp(p->nodes[i], name) != 0) i++;
    return i;
}

static void add_memory(const dil_fleet_model *m, const dil_plan *plan, uint32_t node, const char *name, sums *x)
{
    const dil_profile *p = m->profile;
    uint32_t head = p->n_layers - 1;
    double context = m->options.context ? m->options.context : p->context, buffer = 0;
    for (uint32_t l = 0; l <= head; l++) {
        if (strcmp(plan->layers[l].node, name) != 0) continue;
        const dil_profile_level *v = level_at(p, plan, l), *first = level_at(p, plan, 0);
        x->bytes[node] += (double)v->bytes + ceil((double)p->layers[l].kv_bytes * context / p->context);
        buffer = fmax(buffer, (double)p->layers[l].buffer_bytes);
        if (p->tied_head && l == head && strcmp(plan->layers[0].node, name) == 0)
            x->bytes[node] -= v->shared_bytes ? (double)v->shared_bytes : fmin((double)first->bytes, (double)v->bytes);
    }
    x->bytes[node] += buffer;
}

static void add_load(const dil_fleet_model *m, const dil_plan *plan, const dil_cluster *c, sums *x)
{
    const dil_profile *p = m->profile;
    double n_in = m->options.tokens_in, n_out = m->options.tokens_out, rate = m->options.rate, cached = n_in + n_out / 2, tokens = 1;
    for (uint32_t k = 0; k < m->options.n_guesses; k++) tokens = 1 + m->options.acceptance * tokens; /* of a pass */
    for (uint32_t l = 0; l < p->n_layers && rate > 0; l++) {
        bool head = l == p->n_layers - 1, to_head = l + 2 == p->n_layers;
        uint32_t at = profile_node(p, plan->layers[l].node), node = dil_cluster_find(c, plan->layers[l].node);
        const dil_profile_level *v = level_at(p, plan, l);
        const double *more = p->layers[l].decode_sec_per_cached;
        double decode = fmax(0, v->decode_sec[at] + (more ? more[at] * (cached - p->n_past) : 0));
        x->busy[node] += rate * (n_out / tokens * (decode + dil_profile_more_sec(v, p->n_nodes, at, 1 + m->options.n_guesses)) + (head ? 0 : n_in * v->prefill_sec[at]));
        if (head || strcmp(plan->layers[l].node, plan->layers[l + 1].node) == 0) continue;
        uint32_t next = dil_cluster_find(c, plan->layers[l + 1].node);
        double bytes = rate * (double)p->hidden_bytes * (n_out / tokens * (1 + m->options.n_guesses) + (to_head ? 0 : n_in));
        const dil_cluster_link *k = dil_cluster_link_get(c, node, next);
        if (k) x->link[k - c->links] += bytes;
        x->out[node] += bytes;
        x->in[next] += bytes;
    }
}

static double own_speed(const dil_cluster *c, uint32_t node, bool out)
{
    double speed = out ? c->nodes[node].out_bytes_per_sec : c->nodes[node].in_bytes_per_sec;
    if (speed > 0) return speed;
    for (uint32_t i = 0; i < c->n_links; i++) {
        if ((out ? c->links[i].from : c->links[i].to) == node) speed = fmax(speed, c->links[i].bytes_per_sec);
    }
    return speed;
}

static dil_status judge(const dil_cluster *c, const sums *x, double load_max, dil_err *err)
{
    double most = load_max * (1 + TOLERANCE);
    for (uint32_t i = 0; i < c->n_nodes; i++) {
        double memory = (double)c->nodes[i].memory_bytes;
        if (x->bytes[i] > memory * (1 + TOLERANCE))
            return dil_fail(err, DIL_EINFEASIBLE, "storage: \"%.100s\" needs %.0f bytes for all models and offers %.0f", c->nodes[i].name, x->bytes[i], memory);
        if (x->busy[i] > most) return dil_fail(err, DIL_EINFEASIBLE, "rate: \"%.100s\" is busy %.4f of the time, limit %.4f", c->nodes[i].name, x->busy[i], load_max);
        if ((x->out[i] > 0 && x->out[i] > most * own_speed(c, i, true)) || (x->in[i] > 0 && x->in[i] > most * own_speed(c, i, false)))
            return dil_fail(err, DIL_EINFEASIBLE, "rate: the connection of \"%.100s\" is loaded above %.4f", c->nodes[i].name, load_max);
    }
    for (uint32_t i = 0; i < c->n_links; i++) {
        if (x->link[i] > most * c->links[i].bytes_per_sec)
            return dil_fail(err, DIL_EINFEASIBLE, "rate: the link from \"%.80s\" to \"%.80s\" is loaded above %.4f", c->nodes[c->links[i].from].name,
                            c->nodes[c->links[i].to].name, load_max);
    }
    return DIL_OK;
}

dil_status dil_fleet_check(const dil_fleet_model *models, uint32_t n, const dil_cluster *cluster, dil_plan *const *plans, dil_err *err)
{
    size_t N = cluster->n_nodes;
    double load_max = INFINITY, *v = calloc(4 * N + cluster->n_links + 1, sizeof *v);
    if (!v) return dil_fail(err, DIL_EMEMORY, "fleet: out of memory");
    sums x = {v, v + N, v + 2 * N, v + 3 * N, v + 4 * N};
    dil_status s = DIL_OK;
    for (uint32_t i = 0; i < n && s == DIL_OK; i++) {
        s = dil_plan_predict(models[i].profile, cluster, &models[i].options, plans[i], false, err);
        if (s != DIL_OK) break;
        if (models[i].options.rate > 0) load_max = models[i].options.load_max;
        for (uint32_t k = 0; k < cluster->n_nodes; k++) {
            bool holds = false;
            for (uint32_t g = 0; g < plans[i]->n_stages; g++) holds = holds || strcmp(plans[i]->stages[g].node, cluster->nodes[k].name) == 0;
            if (holds) add_memory(&models[i], plans[i], k, cluster->nodes[k].name, &x);
        }
        add_load(&models[i], plans[i], cluster, &x);
    }
    if (s == DIL_OK) s = judge(cluster, &x, load_max, err);
    free(v);
    return s;
}
