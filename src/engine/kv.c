/* The KV cache: for each block one tensor of keys and one of values, sequences one after the other, so that the cells of
 * consecutive sequences form one strided view. The cell of a token is its position: nothing is ever moved or searched, and a
 * causal mask hides what lies beyond. A shared pool of cells (as servers with paged caches have) was rejected: our
 * sequences are few and the planner counts their memory in full. */
#include "engine/internal.h"

#include <stdlib.h>
#include <string.h>

static dil_status describe(dil__kv *kv, uint64_t row, enum ggml_type type, dil_err *err)
{
    struct ggml_init_params p = {.mem_size = (2 * (size_t)kv->n_blocks + 1) * ggml_tensor_overhead(), .no_alloc = true};
    kv->ctx = ggml_init(p);
    kv->k = calloc(kv->n_blocks ? kv->n_blocks : 1, sizeof *kv->k);
    kv->v = calloc(kv->n_blocks ? kv->n_blocks : 1, sizeof *kv->v);
    kv->len = calloc(kv->n_seq, sizeof *kv->len);
    if (!kv->ctx || !kv->k || !kv->v || !kv->len) return dil_fail(err, DIL_EMEMORY, "engine: no memory for the KV cache");
    int64_t cells = (int64_t)kv->n_cells * kv->n_seq;
    for (uint32_t i = 0; i < kv->n_blocks; i++) {
        kv->k[i] = ggml_new_tensor_2d(kv->ctx, type, (int64_t)row, cells);
        kv->v[i] = ggml_new_tensor_2d(kv->ctx, type, (int64_t)row, cells);
        ggml_format_name(kv->k[i], "cache_k.%u", i);
        ggml_format_name(kv->v[i], "cache_v.%u", i);
        kv->bytes += ggml_nbytes(kv->k[i]) + ggml_nbytes(kv->v[i]);
    }
    return DIL_OK;
}

dil_status dil__kv_open(const dil_arch *a, const dil__layers *l, const dil_stage_opts *o, const dil__device *d, bool dry,
                        dil__kv *out, dil_err *err)
{
    dil__kv kv = {.n_blocks = l->n_blocks, .n_seq = o->n_seq, .n_ctx = o->n_ctx};
    kv.n_cells = (o->n_ctx + (o->fixed_shapes ? o->max_batch : 0) + DIL__KV_STEP - 1) / DIL__KV_STEP * DIL__KV_STEP;
    dil_status status = describe(&kv, (uint64_t)a->head_dim * a->n_head_kv, (enum ggml_type)o->kv_type, err);
    for (uint32_t i = 0; !status && dry && i < kv.n_blocks; i++) kv.k[i]->data = kv.v[i]->data = kv.len; /* taken for placed */
    if (!status && !dry && kv.n_blocks > 0) {
        kv.buffer = ggml_backend_alloc_ctx_tensors_from_buft(kv.ctx, d->buft);
        if (!kv.buffer) {
            char need[32];
            status = dil_fail(err, DIL_EMEMORY, "engine: the KV cache of %u x %u cells in %u blocks needs %s, which cannot be allocated",
                              o->n_seq, o->n_ctx, kv.n_blocks, dil_format_bytes(kv.bytes, need));
        } else {
            ggml_backend_buffer_clear(kv.buffer, 0);
            kv.bytes = ggml_backend_buffer_get_size(kv.buffer);
        }
    }
    if (status) {
        dil__kv_close(&kv);
        return status;
    }
    *out = kv;
    return DIL_OK;
}

void dil__kv_close(dil__kv *kv)
{
    if (kv->buffer) ggml_backend_buffer_free(kv->buffer);
    if (kv->ctx) ggml_free(kv->ctx);
    free(kv->k);
    free(kv->v);
    free(kv->len);
    memset(kv, 0, sizeof *kv);
}

void dil__kv_wipe(dil__kv *kv, uint32_t seq, uint32_t from)
{
    for (uint32_t i = 0; i < kv->n_blocks; i++) {
        size_t row = kv->k[i]->nb[1];
        size_t offset = ((size_t)seq * kv->n_cells + from) * row, size = (size_t)(kv->n_cells - from) * row;
        if (size == 0) continue;
        ggml_backend_tensor_memset(kv->k[i], 0, offset, size);
        ggml_backend_tensor_memset(kv->v[i], 0, offset, size);
    }
}
