/* From measurements to profile.json. Levels that another level of the kind beats in bytes, damage and every node's seconds are left
 * out, as no planner could want them, unless that would leave fewer than six. */
#include "quant/profiler.h"
#include "quant/recode.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LEVELS_MIN = 6 };

/* Of all tensors of the layer at the level; a tied head counts the shared table again. */
static dil_status level_bytes(const dil__profiler *p, const dil__kind *k, uint32_t layer, const dil__level *l, uint64_t *bytes,
                              uint64_t *shared, dil_err *err)
{
    dil_layer_tensor t[DIL_LAYER_TENSORS_MAX];
    size_t n = dil_arch_layer_tensors(&p->arch, layer, t), r = 0;
    *bytes = *shared = 0;
    for (size_t i = 0; i < n; i++) {
        const dil_tensor *src = dil_weights_find(&p->weights, t[i].name);
        if (!src) continue;
        dil_type type = dil__recode_other(src);
        if (t[i].linear && r < k->n_roles) type = l->type[r++];
        uint64_t row;
        if (!dil_type_row_bytes(type, t[i].ne[0], &row)) return dil_fail(err, DIL_EINTERNAL, "%s: rows do not take the level's type", t[i].name);
        if (t[i].shared && !t[i].linear) continue; /* counted with the first block that uses it */
        *bytes += row * t[i].ne[1];
        if (t[i].shared) *shared += row * t[i].ne[1];
    }
    return DIL_OK;
}

static double mean_kl(const dil__profiler *p, size_t kind, size_t level)
{
    uint32_t from = kind == DIL__EMBEDDING ? 0 : kind == DIL__BLOCK ? 1 : p->n_layers - 1, to = kind == DIL__BLOCK ? p->n_layers - 2 : from;
    double sum = 0;
    for (uint32_t l = from; l <= to; l++) sum += p->kl[(size_t)l * DIL__LEVELS_MAX + level];
    return sum / (to - from + 1);
}

static bool beats(const dil__profiler *p, size_t kind, size_t a, size_t b)
{
    const dil__kind *k = &p->kind[kind];
    double da = mean_kl(p, kind, a), db = mean_kl(p, kind, b);
    if (k->level[a].bits > k->level[b].bits || da > db) return false;
    for (uint32_t s = 0; s < p->o->cluster->n_nodes; s++) {
        size_t ia = a * p->o->cluster->n_nodes + s, ib = b * p->o->cluster->n_nodes + s;
        if (k->decode_sec[ia] > k->decode_sec[ib] || k->prefill_sec[ia] > k->prefill_sec[ib]) return false;
    }
    return k->level[a].bits < k->level[b].bits || da < db || a < b;
}

/* keep [n_levels]. A tied head keeps what the embedding keeps: its times decide nothing else. */
static void choose_kept(const dil__profiler *p, size_t kind, bool *keep)
{
    const dil__kind *k = &p->kind[kind];
    size_t left = k->n_levels;
    for (size_t b = 0; b < k->n_levels; b++) keep[b] = true;
    if (p->arch.tied_head && kind != DIL__BLOCK) return;
    for (size_t b = k->n_levels; b-- > 0 && left > LEVELS_MIN;) {
        for (size_t a = 0; a < k->n_levels && keep[b]; a++) {
            if (a != b && keep[a] && beats(p, kind, a, b)) keep[b] = false, left--;
        }
    }
}

dil_status dil__profile_memory(const dil_arch *arch, const dil_stage_opts *opts, dil__memory *m, dil_err *err)
{
    dil_layer_memory of;
    dil_status st = dil_engine_layer_memory(arch, opts, &of, err);
    if (st == DIL_OK)
        *m = (dil__memory){.kv[DIL__BLOCK] = of.kv_bytes, .buffer[DIL__EMBEDDING] = of.embedding_buffer, .buffer[DIL__BLOCK] = of.block_buffer,
                           .buffer[DIL__HEAD] = of.head_buffer};
    return st;
}

/* By its part of the model's weights; nothing at a level of floats. */
static double share_of_run(const dil__profiler *p, const dil__kind *k, const dil__level *l)
{
    double mine = 0;
    for (size_t r = 0; r < k->n_roles; r++)
        if (dil_type_get(l->type[r])->is_quantized) mine += (double)k->tensor[k->role[r]].ne[0] * (double)k->tensor[k->role[r]].ne[1];
    return p->run * mine / (double)dil_arch_n_params(&p->arch);
}

static dil_status fill_level(const dil__profiler *p, size_t kind, uint32_t layer, size_t q, dil_arena *a, dil_profile_level *out, dil_err *err)
{
    const dil__kind *k = &p->kind[kind];
    const dil__level *l = &k->level[q];
    uint32_t n_nodes = p->o->cluster->n_nodes;
    size_t at = (size_t)layer * DIL__LEVELS_MAX + q;
    dil_status st = level_bytes(p, k, layer, l, &out->bytes, &out->shared_bytes, err);
    if (st != DIL_OK) return st;
    out->types = dil_arena_push(a, k->n_roles, sizeof *out->types);
    if (!out->types) return dil_fail(err, DIL_EMEMORY, "out of memory");
    for (size_t r = 0; r < k->n_roles; r++) out->types[r] = (dil_level_type){k->tensor[k->role[r]].role, dil_type_get(l->type[r])->name};
    out->n_types = (uint32_t)k->n_roles;
    out->name = l->name;
    out->bits = l->bits;
    out->damage_alone = out->damage_kl = p->kl[at];
    out->damage_run = share_of_run(p, k, l);
    out->damage_weight = p->weight[at];
    out->decode_sec = k->decode_sec + q * n_nodes;
    out->prefill_sec = k->prefill_sec + q * n_nodes;
    out->pass_sec = k->pass_sec ? k->pass_sec + q * DIL_PROFILE_PASSES * n_nodes : NULL;
    return DIL_OK;
}

static dil_status fill_layers(const dil__profiler *p, dil_arena *a, dil_profile *out, dil_err *err)
{
    dil__memory m;
    bool keep[DIL__KINDS][DIL__LEVELS_MAX];
    for (size_t i = 0; i < DIL__KINDS; i++) choose_kept(p, i, keep[i]);
    uint32_t threads = 1; /* the kernels' scratch grows with them */
    for (uint32_t i = 0; i < p->o->cluster->n_nodes; i++)
        if (p->o->cluster->nodes[i].threads > threads) threads = p->o->cluster->nodes[i].threads;
    dil_stage_opts opts = {.n_threads = (int)threads, .n_ctx = p->o->context, .n_seq = p->o->sequences, .max_batch = p->o->batch,
                           .kv_type = DIL_TYPE_F16};
    dil_status st = dil__profile_memory(&p->arch, &opts, &m, err);
    if (st != DIL_OK) return st;
    out->layers = dil_arena_push(a, p->n_layers, sizeof *out->layers);
    if (!out->layers) return dil_fail(err, DIL_EMEMORY, "out of memory");
    for (uint32_t l = 0; l < p->n_layers; l++) {
        size_t kind = l == 0 ? DIL__EMBEDDING : l + 1 == p->n_layers ? DIL__HEAD : DIL__BLOCK;
        const dil__kind *k = &p->kind[kind];
        dil_profile_layer *o = &out->layers[l];
        char name[32];
        snprintf(name, sizeof name, "blk.%u", l - 1);
        o->name = l == 0 ? "embedding" : kind == DIL__HEAD ? "head" : dil_arena_strdup(a, name, strlen(name));
        o->kv_bytes = m.kv[kind];
        o->buffer_bytes = m.buffer[kind];
        o->decode_sec_per_cached = k->decode_sec_per_cached;
        o->levels = dil_arena_push(a, k->n_levels, sizeof *o->levels);
        if (!o->levels || !o->name) return dil_fail(err, DIL_EMEMORY, "out of memory");
        for (size_t q = 0; q < k->n_levels; q++) {
            if (!keep[kind][q]) continue;
            st = fill_level(p, kind, l, q, a, &o->levels[o->n_levels++], err);
            if (st != DIL_OK) return st;
        }
    }
    return DIL_OK;
}

/* The whole models that were measured, as the first students. */
static void fill_students(const dil__profiler *p, dil_profile_student *s, uint32_t *n)
{
    *n = 0;
    for (uint32_t i = 0; i < p->n_checks; i++)
        if (p->check[i][0] > 0 && p->check[i][1] > 0)
            s[(*n)++] = (dil_profile_student){.method = p->feedback ? "gptq" : "rtn", .bits = p->check_bits[i], .alone = p->check[i][0], .kl = p->check[i][1],
                                              .kl_stderr = (double)NAN, .tokens = dil__chain_tokens(p->chain)};
}

dil_status dil__profiler_write(dil__profiler *p, dil_err *err)
{
    dil_arena *a = dil_arena_new((size_t)64 << 20);
    if (!a) return dil_fail(err, DIL_EMEMORY, "out of memory");
    const dil_cluster *c = p->o->cluster;
    char hash[2 * DIL_HASH_BYTES + 1];
    dil_hash_hex(&p->hash, hash);
    dil_profile out = {.model_path = p->o->model, .model_hash = hash, .arch = p->arch.name, .n_blocks = p->arch.n_blocks,
                       .n_params = dil_arch_n_params(&p->arch), .tied_head = p->arch.tied_head,
                       .hidden_bytes = (uint64_t)p->arch.n_embd * sizeof(float), .n_vocab = p->arch.n_vocab,
                       .data_path = p->o->data ? p->o->data : "", .data_tokens = dil__chain_tokens(p->chain), .context = p->o->context,
                       .sequences = p->o->sequences, .batch = p->o->batch, .n_past = p->o->n_past, .n_nodes = c->n_nodes,
                       .n_layers = p->n_layers, .baseline_loss = dil__chain_loss(p->chain), .baseline_tokens = dil__chain_tokens(p->chain),
                       .kl_to_loss_slope = p->kl_to_loss, .kl_to_loss_points = isfinite(p->kl_to_loss) ? p->n_checks : 0};
    out.nodes = dil_arena_push(a, c->n_nodes, sizeof *out.nodes);
    dil_status st = out.nodes ? DIL_OK : dil_fail(err, DIL_EMEMORY, "out of memory");
    for (uint32_t s = 0; st == DIL_OK && s < c->n_nodes; s++) out.nodes[s] = c->nodes[s].name;
    dil_profile_student students[DIL__CHECKS];
    fill_students(p, students, &out.n_students);
    out.students = students;
    out.alone_method = p->feedback ? "gptq" : "rtn";
    out.held_from = p->held_from;
    out.held_to = p->held_to;
    if (st == DIL_OK) st = fill_layers(p, a, &out, err);
    if (st == DIL_OK) dil_profile_correct(&out, p->o->method ? p->o->method : "rtn");
    if (st == DIL_OK) st = dil_profile_write(p->o->out, &out, err);
    dil_arena_free(a);
    return st;
}
