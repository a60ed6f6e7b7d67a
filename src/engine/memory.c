/* What stages need beside their weights, as a planner counts it: for each kind of layer, so that the largest figure of a node's layers
 * is what its stage allocates or a little more. */
#include <dilemma/engine.h>

static dil_status raise_to_stage(const dil_arch *arch, const dil_stage_opts *opts, uint32_t first, uint32_t last, uint64_t *buffer, dil_err *err)
{
    dil_stage_opts o = *opts;
    uint64_t kv, bytes;
    o.first_layer = first;
    o.last_layer = last;
    dil_status st = dil_stage_measure(arch, &o, &kv, &bytes, err);
    if (st == DIL_OK && bytes > *buffer) *buffer = bytes;
    return st;
}

/* A stage of blocks holds more than one block alone does, the head more beside blocks than alone, and with the embedding it may be more
 * or less, as the allocator happens to pack. So each kind has the largest figure of all stages with it: a node is never asked for more
 * than it was planned to give. From the third block on nothing changes; four and all of them are tried. */
dil_status dil_engine_layer_memory(const dil_arch *arch, const dil_stage_opts *opts, dil_layer_memory *out, dil_err *err)
{
    uint32_t n = arch->n_blocks, head = n + 1;
    dil_layer_memory m = {.kv_bytes = dil_arch_kv_bytes(arch, opts->n_ctx, opts->kv_type) * opts->n_seq};
    dil_status st = raise_to_stage(arch, opts, 0, 0, &m.embedding_buffer, err);
    if (st == DIL_OK) st = raise_to_stage(arch, opts, head, head, &m.head_buffer, err);
    for (uint32_t k = 1; k <= n && st == DIL_OK; k = k < 4 || k == n ? k + 1 : n) {
        st = raise_to_stage(arch, opts, 1, k, &m.block_buffer, err);
        if (st == DIL_OK) st = raise_to_stage(arch, opts, 0, k, &m.block_buffer, err);
        if (st == DIL_OK) st = raise_to_stage(arch, opts, head - k, head, &m.head_buffer, err);
    }
    if (st == DIL_OK) st = raise_to_stage(arch, opts, 0, head, &m.head_buffer, err);
    if (st == DIL_OK) *out = m;
    return st;
}
