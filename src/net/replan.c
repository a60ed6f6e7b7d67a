#include "net/replan.h"

#include "net/piece.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ASSUMED_BYTES_PER_SEC 5e9 /* a node of which nothing is known reads its weights so fast; only the order of nodes depends on it */
#define PREFILL_SHARE 0.25        /* of a decoded token's seconds that a prompt token takes, where it was not measured */

struct dil__replan {
    const dil_cluster *cluster;
    const dil_plan *plan;
    dil_arena *arena;
    dil_profile profile;      /* one level a layer, seconds as measured */
    dil_profile_level *level; /* [n_layers] */
    double *decode, *prefill; /* [n_layers][n_nodes] as measured; the profile's are these times the nodes' slowness */
    dil_cluster now;          /* the cluster without what is gone */
};

/* --- the model as it is served -------------------------------------------------------------------------------------------------- */

static uint64_t tensor_bytes(const dil_gguf *g, const char *name)
{
    const dil_tensor *t = dil_gguf_find(g, name);
    return t ? t->bytes : 0;
}

static void layer_bytes(const dil_gguf *g, const dil_arch *a, uint32_t layer, dil_profile_level *out)
{
    dil_layer_tensor t[DIL_LAYER_TENSORS_MAX];
    size_t n = dil_arch_layer_tensors(a, layer, t);
    bool head = layer + 1 == dil_arch_n_layers(a);
    for (size_t i = 0; i < n; i++) {
        uint64_t bytes = tensor_bytes(g, t[i].name);
        out->bytes += bytes;
        if (head && a->tied_head && t[i].shared) out->shared_bytes += bytes;
    }
}

static void fill_memory(const dil_arch *a, const dil_layer_memory *m, dil_profile_layer *layer, uint32_t l)
{
    bool head = l + 1 == dil_arch_n_layers(a);
    layer->kv_bytes = l > 0 && !head ? m->kv_bytes : 0;
    layer->buffer_bytes = l == 0 ? m->embedding_buffer : head ? m->head_buffer : m->block_buffer;
}

/* --- seconds ---------------------------------------------------------------------------------------------------------------------- */

/* Bytes that the node reads in a second, as its stages were predicted; 0: unknown. */
static double speed_of(const dil_plan *p, const dil_profile *prof, const char *name)
{
    double bytes = 0, sec = 0;
    for (uint32_t i = 0; i < p->n_stages; i++) {
        if (strcmp(p->stages[i].node, name) != 0) continue;
        for (uint32_t l = p->stages[i].first_layer; l <= p->stages[i].last_layer; l++) bytes += l ? (double)prof->layers[l].levels[0].bytes : 0;
        sec += p->stages[i].compute_sec;
    }
    return sec > 0 ? bytes / sec : 0;
}

static double mean_speed(const dil_plan *p, const dil_profile *prof)
{
    double sum = 0;
    uint32_t n = 0;
    for (uint32_t i = 0; i < p->n_stages; i++) {
        double v = speed_of(p, prof, p->stages[i].node);
        sum += v;
        n += v > 0;
    }
    return n ? sum / n : ASSUMED_BYTES_PER_SEC;
}

static void fill_seconds(dil__replan *r, uint32_t node)
{
    const dil_plan_costs *c = r->plan->costs;
    const dil_cluster_node *n = &r->cluster->nodes[node];
    uint32_t at = dil__cost_column(c, n->name);
    double speed = speed_of(r->plan, &r->profile, n->name);
    if (speed <= 0) speed = mean_speed(r->plan, &r->profile) / (n->throttle > 1 ? n->throttle : 1);
    for (uint32_t l = 0; l < r->profile.n_layers; l++) {
        size_t to = (size_t)l * r->cluster->n_nodes + node, from = c && at != UINT32_MAX ? (size_t)l * c->n_nodes + at : 0;
        double estimate = l ? (double)r->level[l].bytes / speed : 0;
        r->decode[to] = at != UINT32_MAX ? c->decode_sec[from] : estimate;
        r->prefill[to] = at != UINT32_MAX ? c->prefill_sec[from] : PREFILL_SHARE * estimate;
        if (r->profile.layers[l].decode_sec_per_cached && at != UINT32_MAX) r->profile.layers[l].decode_sec_per_cached[node] = c->per_cached_sec[from];
    }
}

/* --- building ----------------------------------------------------------------------------------------------------------------------- */

static bool allocate(dil__replan *r, uint32_t n_layers, uint32_t n_nodes)
{
    dil_arena *a = r->arena;
    size_t n = (size_t)n_layers * n_nodes;
    r->profile.layers = dil_arena_push(a, n_layers, sizeof *r->profile.layers);
    r->profile.nodes = dil_arena_push(a, n_nodes, sizeof *r->profile.nodes);
    r->level = dil_arena_push(a, n_layers, sizeof *r->level);
    r->decode = dil_arena_push(a, n, sizeof *r->decode);
    r->prefill = dil_arena_push(a, n, sizeof *r->prefill);
    double *decode = dil_arena_push(a, n, sizeof *decode), *prefill = dil_arena_push(a, n, sizeof *prefill);
    bool slope = r->plan->costs && r->plan->costs->per_cached_sec;
    double *cached = slope ? dil_arena_push(a, n, sizeof *cached) : NULL;
    r->now = *r->cluster;
    r->now.arena = NULL;
    r->now.nodes = dil_arena_push(a, n_nodes, sizeof *r->now.nodes);
    r->now.links = dil_arena_push(a, r->cluster->n_links ? r->cluster->n_links : 1, sizeof *r->now.links);
    if (!r->profile.layers || !r->profile.nodes || !r->level || !r->decode || !r->prefill || !decode || !prefill || (slope && !cached) || !r->now.nodes ||
        !r->now.links)
        return false;
    for (uint32_t l = 0; l < n_layers; l++) {
        r->level[l].decode_sec = decode + (size_t)l * n_nodes;
        r->level[l].prefill_sec = prefill + (size_t)l * n_nodes;
        r->profile.layers[l].decode_sec_per_cached = cached ? cached + (size_t)l * n_nodes : NULL;
    }
    return true;
}

static dil_status fill(dil__replan *r, const dil_gguf *model, const dil_arch *arch, const dil_stage_opts *opts, dil_err *err)
{
    const dil_plan *plan = r->plan;
    uint32_t n_layers = dil_arch_n_layers(arch), n_nodes = r->cluster->n_nodes;
    if (plan->n_layers != n_layers) return dil_fail(err, DIL_EINFEASIBLE, "the plan has %u layers, the model %u", plan->n_layers, n_layers);
    dil_stage_opts o = *opts;
    for (uint32_t i = 0; i < n_nodes; i++) o.n_threads = (int)r->cluster->nodes[i].threads > o.n_threads ? (int)r->cluster->nodes[i].threads : o.n_threads;
    dil_layer_memory m;
    dil_status s = dil_engine_layer_memory(arch, &o, &m, err);
    if (s != DIL_OK) return s;
    const dil_plan_costs *c = plan->costs;
    r->profile = (dil_profile){.model_path = plan->model_path ? plan->model_path : "", .model_hash = plan->model_hash ? plan->model_hash : "", .arch = arch->name,
                               .n_blocks = arch->n_blocks, .n_params = dil_arch_n_params(arch), .tied_head = arch->tied_head,
                               .hidden_bytes = (uint64_t)arch->n_embd * sizeof(float), .n_vocab = arch->n_vocab, .data_path = "", .context = o.n_ctx,
                               .sequences = o.n_seq, .batch = o.max_batch, .n_past = c ? c->n_past : 0, .n_nodes = n_nodes, .n_layers = n_layers,
                               .baseline_loss = NAN, .kl_to_loss_slope = NAN};
    if (!allocate(r, n_layers, n_nodes)) return dil_fail(err, DIL_EMEMORY, "planning again: no memory for %u layers on %u nodes", n_layers, n_nodes);
    for (uint32_t i = 0; i < n_nodes; i++) r->profile.nodes[i] = r->cluster->nodes[i].name;
    for (uint32_t l = 0; l < n_layers; l++) {
        const dil_plan_layer *from = plan->layers ? &plan->layers[l] : NULL;
        r->level[l].name = from ? from->level : "served";
        r->level[l].types = from ? from->types : NULL;
        r->level[l].n_types = from ? from->n_types : 0;
        layer_bytes(model, arch, l, &r->level[l]);
        r->profile.layers[l].name = from ? from->name : "layer";
        r->profile.layers[l].levels = &r->level[l];
        r->profile.layers[l].n_levels = 1;
        fill_memory(arch, &m, &r->profile.layers[l], l);
    }
    for (uint32_t i = 0; i < n_nodes; i++) fill_seconds(r, i);
    return DIL_OK;
}

dil_status dil__replan_new(const dil_plan *plan, const dil_cluster *cluster, const dil_gguf *model, const dil_arch *arch, const dil_stage_opts *opts,
                           dil__replan **out, dil_err *err)
{
    dil__replan *r = calloc(1, sizeof *r);
    if (!r) return dil_fail(err, DIL_EMEMORY, "planning again: no memory");
    r->plan = plan;
    r->cluster = cluster;
    r->arena = dil_arena_new((size_t)1 << 30);
    dil_status s = r->arena ? fill(r, model, arch, opts, err) : dil_fail(err, DIL_EMEMORY, "planning again: no memory");
    if (s == DIL_OK) *out = r;
    else dil__replan_free(r);
    return s;
}

void dil__replan_free(dil__replan *r)
{
    if (!r) return;
    dil_arena_free(r->arena);
    free(r);
}

/* --- planning -------------------------------------------------------------------------------------------------------------------------- */

/* A node that is gone keeps its place, since the entry may be among them, but can hold nothing. */
static void take_state(dil__replan *r, const dil__replan_node *node, const uint8_t *link_down, const dil_cluster_link *link_now)
{
    uint32_t n_nodes = r->cluster->n_nodes;
    for (uint32_t i = 0; i < n_nodes; i++) {
        double slower = node[i].slower > 0 ? node[i].slower : 1;
        r->now.nodes[i] = r->cluster->nodes[i];
        if (node[i].memory_bytes) r->now.nodes[i].memory_bytes = node[i].memory_bytes;
        if (!node[i].usable) r->now.nodes[i].memory_bytes = 0;
        for (uint32_t l = 0; l < r->profile.n_layers; l++) {
            size_t at = (size_t)l * n_nodes + i;
            r->level[l].decode_sec[i] = slower * r->decode[at];
            r->level[l].prefill_sec[i] = slower * r->prefill[at];
        }
    }
    r->now.n_links = 0;
    for (uint32_t k = 0; k < r->cluster->n_links; k++) {
        if (!link_down || !link_down[k]) r->now.links[r->now.n_links++] = link_now ? link_now[k] : r->cluster->links[k];
    }
}

static dil_plan_options options_of(const dil__replan *r, const dil_plan *old, double limit_sec)
{
    dil_plan_options o = dil_plan_options_default();
    o.context = r->profile.context;
    o.tokens_in = old->tokens_in ? old->tokens_in : o.tokens_in;
    o.tokens_out = old->tokens_out ? old->tokens_out : o.tokens_out;
    if (o.tokens_in + o.tokens_out > o.context) {
        o.tokens_in = o.context / 2;
        o.tokens_out = o.context - o.tokens_in;
    }
    o.n_guesses = old->n_guesses;
    o.acceptance = old->acceptance;
    o.entry = old->entry;
    o.max_damage = 1e17; /* the levels are given: no budget to keep */
    o.solver = "path";
    o.limit_sec = limit_sec;
    o.gap = 0.01; /* requests wait */
    return o;
}

/* Bytes that any plan takes: weights, a tied table once, KV cache, and on one node at least the head's buffer. */
static uint64_t least_bytes(const dil__replan *r)
{
    uint64_t sum = 0;
    for (uint32_t l = 0; l < r->profile.n_layers; l++) sum += r->level[l].bytes + r->profile.layers[l].kv_bytes;
    sum += r->profile.layers[r->profile.n_layers - 1].buffer_bytes;
    return r->profile.tied_head ? sum - r->level[r->profile.n_layers - 1].shared_bytes : sum;
}

static uint64_t list_usable(const dil__replan *r, char out[200])
{
    uint64_t sum = 0;
    out[0] = 0;
    for (uint32_t i = 0; i < r->now.n_nodes; i++) {
        size_t at = strlen(out);
        if (!r->now.nodes[i].memory_bytes) continue;
        sum += r->now.nodes[i].memory_bytes;
        if (at + 40 < 200) snprintf(out + at, 200 - at, "%s%.30s", at ? ", " : "", r->now.nodes[i].name);
    }
    return sum;
}

/* What no search is needed for. */
static dil_status check_memory(const dil__replan *r, dil_err *err)
{
    char who[200], have[32], need[32], lack[32];
    uint64_t offered = list_usable(r, who), least = least_bytes(r);
    if (!who[0]) return dil_fail(err, DIL_EINFEASIBLE, "no node is left that could hold layers");
    if (least <= offered) return DIL_OK;
    return dil_fail(err, DIL_EINFEASIBLE, "memory: the model as served needs at least %s, %s offer %s, %s too little", dil_format_bytes(least, need), who,
                    dil_format_bytes(offered, have), dil_format_bytes(least - offered, lack));
}

static dil_status say_who_is_left(const dil__replan *r, const dil_err *why, dil_err *err)
{
    char who[200], have[32], need[32];
    uint64_t offered = list_usable(r, who);
    return dil_fail(err, why->code, "memory: the model as served needs at least %s, %s offer %s, but: %.200s", dil_format_bytes(least_bytes(r), need), who,
                    dil_format_bytes(offered, have), why->text);
}

dil_status dil__replan_make(dil__replan *r, const dil_plan *old, const dil__replan_node *node, const uint8_t *link_down,
                            const dil_cluster_link *link_now,
                            const dil_migrate_options *mo, double limit_sec, dil_plan **out, dil_migration *m, dil_err *err)
{
    take_state(r, node, link_down, link_now);
    dil_plan from = *old; /* one made by hand may lack words */
    if (!from.damage_measure) from.damage_measure = "kl";
    if (!from.entry) from.entry = r->cluster->nodes[r->cluster->entry].name;
    dil_plan_options o = options_of(r, &from, limit_sec);
    dil_err why = {0};
    dil_status s = check_memory(r, err);
    if (s != DIL_OK) return s;
    s = dil_plan_migrate(&r->profile, &r->now, &o, &from, mo, out, m, &why);
    return s == DIL_OK ? s : say_who_is_left(r, &why, err);
}

double dil__replan_speed(const dil__replan *r, const dil_plan *plan, uint32_t node)
{
    double bytes = 0, sec = 0;
    if (dil__cost_column(r->plan->costs, r->cluster->nodes[node].name) == UINT32_MAX) return 0;
    for (uint32_t i = 0; i < plan->n_stages; i++) {
        if (strcmp(plan->stages[i].node, r->cluster->nodes[node].name) != 0) continue;
        for (uint32_t l = plan->stages[i].first_layer; l <= plan->stages[i].last_layer; l++) {
            bytes += (double)r->level[l].bytes;
            sec += r->decode[(size_t)l * r->cluster->n_nodes + node];
        }
    }
    return sec > 0 ? bytes / sec : 0;
}
