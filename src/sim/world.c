/* The network, and what a policy makes of it. A plan is made for the nodes that are up and the links as they are; a move stops the service
 * until the weights have come. */
#include "sim/sim_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define WORTH 1e-3 /* `always` moves for a gain above this share */

static const dil_profile_level *find_level(const dil_profile_layer *l, const char *name)
{
    for (uint32_t q = 0; q < l->n_levels; q++) {
        if (strcmp(l->levels[q].name, name) == 0) return &l->levels[q];
    }
    return NULL;
}

dil_status dil__sim_set_plan(dil__sim *x, dil_plan *plan, dil_err *err)
{
    dil_plan_free(x->plan);
    x->plan = plan;
    if (plan->n_layers != x->prof->n_layers) return dil_fail(err, DIL_EUSAGE, "the plan has %u layers, the profile %u", plan->n_layers, x->prof->n_layers);
    for (uint32_t l = 0; l < plan->n_layers; l++) {
        x->level[l] = find_level(&x->prof->layers[l], plan->layers[l].level);
        if (!x->level[l]) return dil_fail(err, DIL_ENOTFOUND, "layer %u: level \"%.100s\" is not in the profile", l, plan->layers[l].level);
    }
    for (uint32_t i = 0; i < plan->n_stages; i++) {
        const dil_plan_stage *g = &plan->stages[i];
        uint32_t node = dil_cluster_find(x->base, g->node);
        if (node == DIL_NO_NODE || x->prof_node[node] == DIL__NONE)
            return dil_fail(err, DIL_ENOTFOUND, "node \"%.100s\" of the plan is not in cluster and profile", g->node);
        x->stage[i] = (dil__stage){node, g->first_layer, g->last_layer};
        for (uint32_t l = g->first_layer; l <= g->last_layer; l++)
            x->held[(size_t)node * x->prof->n_layers + l] |= (uint64_t)1 << (x->level[l] - x->prof->layers[l].levels);
    }
    return DIL_OK;
}

static bool plan_is_up(const dil__sim *x)
{
    for (uint32_t i = 0; i < x->plan->n_stages; i++) {
        if (!x->up[x->stage[i].node]) return false;
    }
    return true;
}

static bool plan_uses(const dil__sim *x, uint32_t node)
{
    for (uint32_t i = 0; i < x->plan->n_stages; i++) {
        if (x->stage[i].node == node) return true;
    }
    return false;
}

static void end_outage(dil__sim *x)
{
    if (x->broken) x->result->outage_sec += x->now - x->broken_since;
    x->broken = false;
}

void dil__sim_network(dil__sim *x, const dil_trace_event *e)
{
    x->changed = true;
    if (e->kind == DIL_TRACE_LINK) {
        dil_cluster_link *k = &x->link[dil_cluster_link_get(x->base, e->node, e->to) - x->base->links];
        k->latency_sec = e->latency_sec;
        k->bytes_per_sec = e->bytes_per_sec;
        return;
    }
    x->up[e->node] = e->kind == DIL_TRACE_RETURN;
    if (e->kind == DIL_TRACE_LEAVE && plan_uses(x, e->node) && !x->broken && !x->moving) {
        x->broken = true;
        x->broken_since = x->now;
        dil__sim_interrupt(x);
    }
    x->noticed_sec = x->now + x->o->detect_sec;
    dil__sim_push(x, x->noticed_sec, DIL__EV_DETECT, 0);
}

/* --- planning ----------------------------------------------------------------------------------------------------------- */

/* The nodes that are up, and the links between them as they are. */
static dil_cluster current(dil__sim *x)
{
    dil_cluster c = {.nodes = x->up_nodes, .links = x->up_links};
    for (uint32_t i = 0; i < x->base->n_nodes; i++) {
        x->new_index[i] = x->up[i] ? c.n_nodes : DIL__NONE;
        if (x->up[i]) c.nodes[c.n_nodes++] = x->base->nodes[i];
    }
    for (uint32_t i = 0; i < x->base->n_links; i++) {
        dil_cluster_link k = x->link[i];
        if (!x->up[k.from] || !x->up[k.to]) continue;
        k.from = x->new_index[k.from];
        k.to = x->new_index[k.to];
        c.links[c.n_links++] = k;
    }
    c.entry = x->new_index[x->base->entry];
    return c;
}

/* Chunks stay in a node's cache, also while it is away. */
static bool has(void *ctx, const char *node, uint32_t layer, const char *level)
{
    const dil__sim *x = ctx;
    const dil_profile_layer *l = &x->prof->layers[layer];
    const dil_profile_level *v = find_level(l, level);
    uint32_t i = dil_cluster_find(x->base, node);
    return v && i != DIL_NO_NODE && (x->held[(size_t)i * x->prof->n_layers + layer] >> (v - l->levels) & 1);
}

static dil_status next_plan(dil__sim *x, const dil_cluster *c, dil_plan **next, dil_migration *m, dil_err *err)
{
    dil_migrate_options mo = x->o->migrate;
    if (mo.rate == 0) mo.rate = x->rate;
    mo.has = has;
    mo.has_ctx = x;
    x->result->n_plannings++;
    if (x->o->policy == DIL_POLICY_HORIZON) return dil_plan_migrate(x->prof, c, &x->o->plan, x->plan, &mo, next, m, err);
    dil_status s = dil_plan_make(x->prof, c, &x->o->plan, next, err);
    if (s == DIL_OK) s = dil_migration_cost(x->prof, c, &x->o->plan, x->plan, *next, &mo, m, err);
    if (s == DIL_OK && !m->forced && (*next)->total_sec > m->old_total_sec * (1 - WORTH)) m->moves = false;
    return s;
}

static dil_status replan(dil__sim *x, dil_err *err)
{
    dil_cluster c = current(x);
    dil_plan *next = NULL;
    dil_migration m = {0};
    dil_err why = {0};
    x->changed = false;
    dil_status s = next_plan(x, &c, &next, &m, &why);
    if (s == DIL_EINFEASIBLE || s == DIL_ETIMEOUT || (s == DIL_OK && !m.moves)) {
        dil_plan_free(next);
        x->changed = s != DIL_OK; /* try again at the next check */
        return DIL_OK;
    }
    if (s == DIL_OK) s = dil__sim_set_plan(x, next, &why);
    else dil_plan_free(next);
    if (s != DIL_OK) return dil_fail(err, s, "at %.1f s: %.400s", x->now, why.text);
    x->result->move_at_sec[x->result->n_moves++] = x->now;
    x->result->moved_bytes += m.moved_bytes;
    x->result->move_sec += m.move_sec;
    x->moving = true;
    dil__sim_interrupt(x);
    dil__sim_push(x, x->now + m.move_sec, DIL__EV_RESUME, 0);
    return DIL_OK;
}

dil_status dil__sim_check(dil__sim *x, dil_err *err)
{
    if (x->o->policy == DIL_POLICY_STATIC || x->moving || !x->changed || x->now < x->noticed_sec) return DIL_OK;
    return replan(x, err);
}

dil_status dil__sim_detect(dil__sim *x, dil_err *err)
{
    if (!x->broken || x->moving) return DIL_OK;
    if (plan_is_up(x)) {
        end_outage(x);
        dil__sim_restart(x);
        return DIL_OK;
    }
    return x->o->policy == DIL_POLICY_STATIC ? DIL_OK : replan(x, err);
}

void dil__sim_resume(dil__sim *x)
{
    x->moving = false;
    if (!plan_is_up(x)) { /* a node of the new plan left while the weights came */
        if (!x->broken) x->broken_since = x->now;
        x->broken = true;
        dil__sim_push(x, x->now + x->o->detect_sec, DIL__EV_DETECT, 0);
        return;
    }
    end_outage(x);
    dil__sim_restart(x);
}
