/* From a plan to what each node must be told: which stages, who is before and after them, which tensors in which chunks. A
 * node that the ring visits twice gets one LOAD with both stages, and a tensor that both need once. */
#include "net/ring.h"

#include "engine/grammar.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK_BYTES = 1 << 20, BIG_CHUNK_BYTES = 4 << 20 };
#define BIG_MODEL_BYTES (UINT64_C(16) << 30) /* beyond it, fewer and larger chunks keep a node's mappings within the usual 65,530 */

static dil_status check_plan(const dil_plan *p, const dil_arch *a, dil_err *err)
{
    uint32_t n = dil_arch_n_layers(a);
    if (p->n_stages == 0 || p->stages[0].first_layer != 0 || p->stages[p->n_stages - 1].last_layer != n - 1)
        return dil_fail(err, DIL_EINFEASIBLE, "the plan covers %u layers, the model has %u: it is of another model", p->n_layers, n);
    for (uint32_t i = 0; i < p->n_stages; i++) {
        const dil_plan_stage *s = &p->stages[i];
        if (s->last_layer < s->first_layer || (i && s->first_layer != p->stages[i - 1].last_layer + 1))
            return dil_fail(err, DIL_EINFEASIBLE, "the plan's stage %u holds layers %u to %u, which does not follow on the one before", i, s->first_layer, s->last_layer);
    }
    return DIL_OK;
}

static dil_status add_node(dil__ring *r, const dil_cluster *c, const char *name, uint32_t *index, dil_err *err)
{
    for (uint32_t i = 0; i < r->n_nodes; i++) {
        if (strcmp(r->node[i].name, name) == 0) {
            *index = i;
            return DIL_OK;
        }
    }
    uint32_t at = dil_cluster_find(c, name);
    if (at == DIL_NO_NODE) return dil_fail(err, DIL_ENOTFOUND, "the plan uses node '%s', which is not in the cluster", name);
    const dil_cluster_node *from = &c->nodes[at];
    if (!dil__address_ok(from->address)) return dil_fail(err, DIL_ENOTFOUND, "node '%s' has no usable address in the cluster file: '%s'", name, from->address);
    if (r->secure && !dil_key_is_valid(from->public_key))
        return dil_fail(err, DIL_EAUTH, "node '%s' has no public key in the cluster file: probe it with its key, or say --insecure", name);
    dil__ring_node *n = &r->node[r->n_nodes];
    snprintf(n->name, sizeof n->name, "%s", name);
    snprintf(n->address, sizeof n->address, "%s", from->address);
    if (r->secure) snprintf(n->key, sizeof n->key, "%s", from->public_key);
    *index = r->n_nodes++;
    return DIL_OK;
}

static dil_status add_part(dil__ring *r, const dil_plan *p, uint32_t stage, dil_err *err)
{
    dil__ring_node *n = &r->node[r->stage_node[stage]];
    if (n->load.n_parts == DIL__PARTS_MAX) return dil_fail(err, DIL_ELIMIT, "node '%s' appears in more than %d stages", n->name, DIL__PARTS_MAX);
    if (!n->load.parts) n->load.parts = dil_arena_push(r->arena, DIL__PARTS_MAX, sizeof *n->load.parts);
    if (!n->load.parts) return dil_fail(err, DIL_EMEMORY, "no memory for the plan");
    dil__load_part *part = &n->load.parts[n->load.n_parts++];
    *part = (dil__load_part){.stage = stage, .first_layer = p->stages[stage].first_layer, .last_layer = p->stages[stage].last_layer};
    if (r->secure) memcpy(part->prev_key, stage ? r->node[r->stage_node[stage - 1]].key : r->key.public_key, sizeof part->prev_key);
    if (stage + 1 == p->n_stages) return DIL_OK;
    const dil__ring_node *next = &r->node[r->stage_node[stage + 1]];
    memcpy(part->next.address, next->address, sizeof part->next.address);
    memcpy(part->next.key, next->key, sizeof part->next.key);
    return DIL_OK;
}

/* --- tensors -------------------------------------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    return strcmp(((const dil_tensor *)a)->name, ((const dil_tensor *)b)->name);
}

static uint32_t count_tensors(const dil__load *m)
{
    uint32_t n = 0;
    dil_layer_tensor t[DIL_LAYER_TENSORS_MAX];
    for (uint32_t p = 0; p < m->n_parts; p++) {
        for (uint32_t l = m->parts[p].first_layer; l <= m->parts[p].last_layer; l++) n += (uint32_t)dil_arch_layer_tensors(&m->arch, l, t);
    }
    return n;
}

static dil_status list_layer(dil__ring *r, dil__load *m, uint32_t layer, dil_err *err)
{
    dil_layer_tensor t[DIL_LAYER_TENSORS_MAX];
    size_t n = dil_arch_layer_tensors(&m->arch, layer, t);
    for (size_t i = 0; i < n; i++) {
        const dil_tensor *found = dil_gguf_find(r->model, t[i].name);
        if (!found || !found->data) return dil_fail(err, DIL_ENOTFOUND, "%s: no tensor %s, which layer %u needs", dil_gguf_path(r->model), t[i].name, layer);
        m->tensors[m->n_tensors++] = *found;
    }
    return DIL_OK;
}

static void sort_unique(dil__load *m)
{
    if (m->n_tensors) qsort(m->tensors, m->n_tensors, sizeof *m->tensors, by_name);
    uint32_t n = 0;
    for (uint32_t i = 0; i < m->n_tensors; i++) {
        if (n == 0 || strcmp(m->tensors[n - 1].name, m->tensors[i].name) != 0) m->tensors[n++] = m->tensors[i];
    }
    m->n_tensors = n;
}

static dil_status list_tensors(dil__ring *r, dil__ring_node *n, dil_err *err)
{
    dil__load *m = &n->load;
    uint32_t most = count_tensors(m);
    if (most > DIL__TENSORS_MAX) return dil_fail(err, DIL_ELIMIT, "node '%s' holds %u tensors, at most %d", n->name, most, DIL__TENSORS_MAX);
    m->tensors = dil_arena_push(r->arena, most + 2, sizeof *m->tensors);
    if (!m->tensors) return dil_fail(err, DIL_EMEMORY, "no memory for %u tensors", most);
    if (r->words.len && n == &r->node[r->stage_node[r->n_stages - 1]]) {
        dil_tensor *t = &m->tensors[m->n_tensors++];
        *t = (dil_tensor){.type = DIL_TYPE_I8, .n_dims = 1, .ne = {r->words.len, 1, 1, 1}, .data = r->words.data, .bytes = r->words.len};
        snprintf(t->name, sizeof t->name, "%s", DIL__WORDS);
    }
    dil_status s = DIL_OK;
    for (uint32_t p = 0; p < m->n_parts; p++) {
        for (uint32_t l = m->parts[p].first_layer; l <= m->parts[p].last_layer && s == DIL_OK; l++) s = list_layer(r, m, l, err);
    }
    sort_unique(m);
    return s;
}

static dil_status list_chunks(dil__ring *r, dil__ring_node *n, dil_err *err)
{
    dil__load *m = &n->load;
    uint64_t count = 0;
    for (uint32_t i = 0; i < m->n_tensors; i++) {
        count += dil__tensor_chunks(m->tensors[i].bytes, m->chunk_bytes);
        n->bytes_total += m->tensors[i].bytes;
    }
    if (count > DIL__CHUNKS_MAX) return dil_fail(err, DIL_ELIMIT, "node '%s' would hold %llu chunks, at most %d", n->name, (unsigned long long)count, DIL__CHUNKS_MAX);
    m->chunks = dil_arena_push(r->arena, (size_t)count + 1, sizeof *m->chunks);
    n->chunk = dil_arena_push(r->arena, (size_t)count + 1, sizeof *n->chunk);
    n->missing = dil_arena_push(r->arena, (size_t)count + 1, 1);
    if (!m->chunks || !n->chunk || !n->missing) return dil_fail(err, DIL_EMEMORY, "no memory for %llu chunks", (unsigned long long)count);
    for (uint32_t i = 0; i < m->n_tensors; i++) {
        const dil_tensor *t = &m->tensors[i];
        for (uint64_t at = 0; at < t->bytes; at += m->chunk_bytes) {
            uint64_t left = t->bytes - at;
            n->chunk[m->n_chunks++] = (dil__chunk_ref){(const uint8_t *)t->data + at, (uint32_t)(left < m->chunk_bytes ? left : m->chunk_bytes)};
        }
    }
    return DIL_OK;
}

static uint64_t model_bytes(const dil_gguf *g)
{
    uint64_t n = 0;
    for (size_t i = 0; i < dil_gguf_n_tensors(g); i++) n += dil_gguf_tensor_at(g, i)->bytes;
    return n;
}

static void fill_load(const dil__ring *r, dil__load *m, const dil_arch *arch, const dil_ring_opts *o)
{
    m->arch = *arch;
    m->n_ctx = r->pipe.n_ctx;
    m->n_seq = r->pipe.n_seq;
    m->max_batch = r->pipe.chunk;
    m->n_stages = r->n_stages;
    m->kv_type = o->kv_type;
    m->fixed_shapes = o->fixed_shapes;
    m->wire = o->wire;
    m->replace = !r->fetch_only;
    m->run = o->run;
    m->model = o->model;
    m->fetch_only = r->fetch_only;
    m->chunk_bytes = r->chunk_bytes;
}

dil_status dil__ring_build(dil__ring *r, const dil_plan *plan, const dil_cluster *cluster, const dil_arch *arch, const dil_ring_opts *o, dil_err *err)
{
    dil_status s = check_plan(plan, arch, err);
    if (s != DIL_OK) return s;
    r->n_stages = plan->n_stages;
    r->n_embd = arch->n_embd;
    r->chunk_bytes = model_bytes(r->model) > BIG_MODEL_BYTES ? BIG_CHUNK_BYTES : CHUNK_BYTES;
    r->node = dil_arena_push(r->arena, plan->n_stages, sizeof *r->node);
    r->stage_node = dil_arena_push(r->arena, plan->n_stages, sizeof *r->stage_node);
    if (!r->node || !r->stage_node) return dil_fail(err, DIL_EMEMORY, "no memory for %u stages", plan->n_stages);
    if (o->words && !dil__grammar_vocab_pack(o->words, &r->words)) s = dil_fail(err, DIL_EMEMORY, "no memory for the words of %u tokens", arch->n_vocab);
    for (uint32_t i = 0; i < plan->n_stages && s == DIL_OK; i++) s = add_node(r, cluster, plan->stages[i].node, &r->stage_node[i], err);
    for (uint32_t i = 0; i < plan->n_stages && s == DIL_OK; i++) s = add_part(r, plan, i, err);
    for (uint32_t i = 0; i < r->n_nodes && s == DIL_OK; i++) {
        fill_load(r, &r->node[i].load, arch, o);
        s = list_tensors(r, &r->node[i], err);
        if (s == DIL_OK) s = list_chunks(r, &r->node[i], err);
    }
    return s;
}

static void hash_one(void *ctx, size_t i)
{
    dil__ring_node *n = ctx;
    n->load.chunks[i] = dil_hash_of(n->chunk[i].data, n->chunk[i].bytes);
}

void dil__ring_hash(dil__ring *r)
{
    for (uint32_t i = 0; i < r->n_nodes; i++) dil_parallel(dil_cpu_count(), r->node[i].load.n_chunks, hash_one, &r->node[i]);
}
