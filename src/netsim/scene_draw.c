/* What a seed decides before anything runs. */
#include "netsim/scene.h"

#include <string.h>

#define MS INT64_C(1000000)
#define SEC INT64_C(1000000000)

static uint64_t below(uint64_t n) { return dil_rng_below(sim_rng(), n); }
static int64_t between(int64_t low, int64_t high) { return low + (int64_t)below((uint64_t)(high - low)); }
static double log_between(double low, double high) /* every order of magnitude alike */
{
    double x = low;
    for (double step = 1.05; x * step < high && below(40);) x *= step;
    return x * (1 + 0.05 * dil_rng_unit(sim_rng()));
}

/* --- machines --------------------------------------------------------------------------------------------------------------------------------- */

uint64_t scene_block_bytes(const scene *s)
{
    dil_layer_tensor t[DIL_LAYER_TENSORS_MAX];
    size_t n = dil_arch_layer_tensors(&s->model->arch, 1, t);
    uint64_t bytes = dil_arch_kv_bytes(&s->model->arch, SCENE_CTX, DIL_TYPE_F16) * s->opts.n_seq;
    for (size_t i = 0; i < n; i++) bytes += dil_gguf_find(s->model->gguf, t[i].name)->bytes;
    return bytes;
}

static void draw_nodes(scene *s)
{
    static const char *const name[SCENE_NODES_MAX] = {"a", "b", "c", "d", "e"};
    uint32_t n_blocks = s->model->n_blocks, total = 0;
    s->home = sim_host_new("z");
    s->n_nodes = 1 + (uint32_t)below(SCENE_NODES_MAX);
    uint32_t most = below(2) ? n_blocks : (n_blocks + s->n_nodes - 1) / s->n_nodes + 1; /* half of the clusters need most of their nodes */
    for (uint32_t i = 0; i < s->n_nodes; i++) {
        scene_node *n = &s->node[i];
        n->host = sim_host_new(name[i]);
        snprintf(n->address, sizeof n->address, "%s:7100", name[i]);
        snprintf(n->cache, sizeof n->cache, "%s/%s", s->folder, name[i]);
        n->host->slow = s->pace;
        n->capacity = 1 + (uint32_t)below(most < n_blocks ? most : n_blocks);
        total += n->capacity;
    }
    for (uint32_t i = 0; total < n_blocks; i = (i + 1) % s->n_nodes, total++) s->node[i].capacity++;
    for (uint32_t i = 0; i < s->n_nodes; i++) s->node[i].memory_bytes = s->node[i].capacity * scene_block_bytes(s) + (uint64_t)6 * TOY_BUFFER_BYTES; /* embedding, head, buffers */
}

static void draw_links(scene *s)
{
    double fast = log_between(1e-4, 2e-2), wide = log_between(1e6, 1e9);
    for (uint32_t a = 0; a <= s->n_nodes; a++) {
        for (uint32_t b = 0; b <= s->n_nodes; b++) {
            sim_host *from = sim_host_at((int)a), *to = sim_host_at((int)b);
            double latency = a == b ? 2e-5 : fast * (1 + dil_rng_unit(sim_rng()));
            sim_link(from, to, latency, a == b ? 1e10 : wide);
            if (a != b) s->link[s->cluster.n_links++] = (dil_cluster_link){.from = a, .to = b, .rtt_sec = 2 * latency, .latency_sec = latency, .bytes_per_sec = wide};
        }
    }
}

static void fill_cluster(scene *s)
{
    for (uint32_t i = 0; i <= s->n_nodes; i++) {
        scene_node *n = i ? &s->node[i - 1] : NULL;
        s->cluster_node[i] = (dil_cluster_node){.name = n ? n->host->name : "z", .address = n ? n->address : "", .public_key = "", .device = "CPU", .cpu = "",
                                                .memory_bytes = n ? n->memory_bytes : 0, .throttle = 1};
    }
    s->cluster.nodes = s->cluster_node;
    s->cluster.n_nodes = s->n_nodes + 1;
    s->cluster.links = s->link;
}

/* --- the first plan: any that fits, a node may be there twice ------------------------------------------------------------------------------------ */

static void place(scene *s, uint32_t node, uint32_t first, uint32_t last)
{
    const char *name = s->node[node].host->name;
    dil_plan_stage *before = s->plan.n_stages ? &s->stage[s->plan.n_stages - 1] : NULL;
    if (before && strcmp(before->node, name) == 0) before->last_layer = last;
    else s->stage[s->plan.n_stages++] = (dil_plan_stage){.node = name, .first_layer = first, .last_layer = last};
    dil_plan_stage *now = &s->stage[s->plan.n_stages - 1];
    now->compute_sec = s->pace * TOY_LAYER_SEC * (now->last_layer - now->first_layer + 1);
    for (uint32_t l = first; l <= last; l++) s->layer[l] = (dil_plan_layer){.name = "layer", .level = "served", .node = name};
}

static void draw_plan(scene *s)
{
    uint32_t n_blocks = s->model->n_blocks, left[SCENE_NODES_MAX];
    for (uint32_t i = 0; i < s->n_nodes; i++) left[i] = s->node[i].capacity;
    s->plan = (dil_plan){.entry = "z", .context = SCENE_CTX, .sequences = s->opts.n_seq, .tokens_in = 32, .tokens_out = 32, .layers = s->layer, .n_layers = n_blocks + 2,
                         .stages = s->stage, .damage_measure = "kl"};
    for (uint32_t block = 1; block <= n_blocks;) {
        uint32_t i = (uint32_t)below(s->n_nodes);
        if (!left[i]) continue;
        uint32_t room = n_blocks + 1 - block, take = 1 + (uint32_t)below(left[i] < room ? left[i] : room), last = block + take - 1;
        left[i] -= take;
        place(s, i, block == 1 ? 0 : block, last == n_blocks ? last + 1 : last);
        block += take;
    }
    if (below(2)) return; /* the others have costs: their prompts travel in pieces */
    for (uint32_t i = 0; i < s->n_nodes; i++) s->cost_node[i] = s->node[i].host->name;
    for (uint32_t i = 0; i < s->plan.n_layers * s->n_nodes; i++) s->cost_sec[i] = s->pace * TOY_LAYER_SEC;
    s->costs = (dil_plan_costs){.nodes = s->cost_node, .n_nodes = s->n_nodes, .n_past = 16, .batch = 64, .decode_sec = s->cost_sec, .prefill_sec = s->cost_sec};
    s->plan.costs = &s->costs;
}

/* --- requests ---------------------------------------------------------------------------------------------------------------------------------------- */

static void draw_sampler(dil_sampler_opts *o)
{
    *o = dil_sampler_defaults();
    o->temperature = 0;
    if (below(2)) return;
    o->temperature = 0.8f;
    o->seed = dil_rng_u64(sim_rng());
    if (below(2)) o->repeat_penalty = 1.1f;
    if (below(2)) o->top_k = 10;
    if (below(2)) o->frequency_penalty = 0.2f;
}

static void draw_request(scene *s, scene_request *q)
{
    q->n_prompt = 1 + (uint32_t)below(below(2) ? 8 : 40);
    for (uint32_t i = 0; i < q->n_prompt; i++) q->prompt[i] = (int32_t)below(TOY_VOCAB);
    q->max = 1 + (uint32_t)below(60);
    q->stop = (int32_t)below(TOY_VOCAB);
    draw_sampler(&q->sampler);
    uint32_t room = SCENE_CTX - q->n_prompt;
    q->n_expect = toy_text(&s->model->arch, s->model->gguf, &q->sampler, q->prompt, q->n_prompt, q->max < room ? q->max : room, q->stop, q->expect, &q->stopped);
    if (below(8) == 0 && q->n_expect) q->n_resumed = 1 + (uint32_t)below(q->n_expect);
    q->start_ns = SEC + (below(3) ? between(0, 10 * SEC) : 0);
    q->cancel_ns = below(12) ? 0 : q->start_ns + between(MS, 3 * SEC);
}

/* --- faults ------------------------------------------------------------------------------------------------------------------------------------------- */

static void draw_fault(scene *s, scene_fault *f)
{
    f->kind = (fault_kind)below(FAULT_KINDS);
    f->node = (uint32_t)below(s->n_nodes);
    f->from = below(2) ? s->home : sim_host_at((int)below(s->n_nodes + 1));
    do f->to = sim_host_at((int)below(s->n_nodes + 1));
    while (f->to == f->from);
    f->one_way = below(2);
    f->lose_disk = below(2);
    f->rot = below(4) == 0;
    f->poorer = below(6) == 0;
    f->for_ever = below(10) == 0;
    f->factor = 2 + 20 * dil_rng_unit(sim_rng());
    f->start_ns = SEC + (below(3) ? between(0, 8 * SEC) : between(0, SEC / 2)); /* a third of them while layers are loaded */
    f->end_ns = f->start_ns + between(MS, below(2) ? SEC : 8 * SEC);
}

void scene_draw(scene *s)
{
    s->opts = (dil_ring_opts){.n_seq = 1 + (uint32_t)below(3), .n_ctx = SCENE_CTX, .chunk = below(2) ? 8 : 64, .kv_type = DIL_TYPE_F16,
                              .wire = (dil_type[]){DIL_TYPE_F32, DIL_TYPE_F32, DIL_TYPE_F16, DIL_TYPE_BF16}[below(4)], .fixed_shapes = below(3) == 0,
                              .lost_sec = (double[]){0.5, 1, 2}[below(3)], .patience_sec = (double)between(3, 8), .horizon_sec = below(2) ? 3600 : 20};
    s->speculate = (int[]){DIL_SPECULATE_AUTO, 0, 4, 15}[below(4)];
    s->pace = below(4) ? log_between(1, 50) : 40; /* a quarter computes a chunk for longer than detect_sec */
    draw_nodes(s);
    draw_links(s);
    fill_cluster(s);
    draw_plan(s);
    s->n_requests = 1 + (uint32_t)below(SCENE_REQUESTS_MAX); /* spread over the time in which faults come */
    for (uint32_t i = 0; i < s->n_requests; i++) draw_request(s, &s->request[i]);
    s->n_faults = (uint32_t)below(SCENE_FAULTS_MAX + 1);
    for (uint32_t i = 0; i < s->n_faults; i++) draw_fault(s, &s->fault[i]);
    s->close_early_ns = below(12) ? 0 : SEC + between(0, 10 * SEC);
}
