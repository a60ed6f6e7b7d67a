/* One layer: as a stage of its own with what the stage uses in place, or, in floats, through a decoder that all links of a model share, each with
 * the values that differ. The latter multiplies by BLAS, at 95 GFLOPS a core where ggml's graph comes to about 35. */
#include "quant/link.h"

#include "quant/decoder.h"
#include "quant/variant.h"

#include <stdlib.h>

struct dil__link {
    dil_stage *s;
    dil__variant floats; /* what the stage uses in place */
    uint32_t n_ctx, layer;
    int32_t *pos;        /* [n_ctx] 0, 1, ... */
    uint8_t *want;       /* [n_ctx] all 1 */
    dil__decoder *d;     /* NULL: the stage */
    struct { size_t index; float *w; } own[DIL_LAYER_TENSORS_MAX]; size_t n_own;
};

static dil_status open_stage(dil__link *k, const dil_arch *arch, const dil_weights *weights, uint32_t layer, const dil__link_opts *o,
                             dil_err *err)
{
    dil_stage_opts so = {.device = o->device, .n_threads = o->n_threads, .first_layer = layer, .last_layer = layer, .n_ctx = o->n_ctx,
                         .n_seq = 1, .max_batch = o->n_ctx, .kv_type = DIL_TYPE_F16};
    k->pos = malloc(o->n_ctx * sizeof *k->pos);
    k->want = malloc(o->n_ctx);
    if (!k->pos || !k->want) return dil_fail(err, DIL_EMEMORY, "out of memory");
    for (uint32_t i = 0; i < o->n_ctx; i++) k->pos[i] = (int32_t)i, k->want[i] = 1;
    dil__variant_init(&k->floats, weights);
    dil_weights w = dil__variant_weights(&k->floats);
    dil_status st = o->floats ? dil__variant_floats(&k->floats, arch, layer, o->n_threads, err) : DIL_OK;
    return st == DIL_OK ? dil_stage_open(arch, &w, &so, NULL, &k->s, err) : st;
}

static dil_status take_values(dil__link *k, const dil_arch *arch, const dil_weights *weights, const dil_weights *base, dil_err *err)
{
    dil_layer_tensor t[DIL_LAYER_TENSORS_MAX];
    size_t n = dil_arch_layer_tensors(arch, k->layer, t);
    dil_status st = DIL_OK;
    for (size_t i = 0; i < n && st == DIL_OK; i++) {
        const dil_tensor *src = dil_weights_find(weights, t[i].name), *ref = dil_weights_find(base, t[i].name);
        if (!src || (ref && src->data == ref->data)) continue;
        float *w = malloc(dil_tensor_elems(src) * sizeof *w);
        if (!w) return dil_fail(err, DIL_EMEMORY, "%s: out of memory", t[i].name);
        k->own[k->n_own].index = i;
        k->own[k->n_own++].w = w;
        st = dil_engine_dequantize(src->type, src->data, dil_tensor_elems(src), w, err);
    }
    return st;
}

dil_status dil__link_open(const dil_arch *arch, const dil_weights *weights, uint32_t layer, const dil__link_opts *o, dil__link **out,
                          dil_err *err)
{
    dil__link *k = calloc(1, sizeof *k);
    if (!k) return dil_fail(err, DIL_EMEMORY, "out of memory");
    k->n_ctx = o->n_ctx;
    k->layer = layer;
    k->d = o->decoder;
    dil_status st = k->d ? take_values(k, arch, weights, o->base, err) : open_stage(k, arch, weights, layer, o, err);
    if (st != DIL_OK) {
        dil__link_close(k);
        return st;
    }
    *out = k;
    return DIL_OK;
}

void dil__link_close(dil__link *k)
{
    if (!k) return;
    dil_stage_close(k->s);
    dil__variant_fini(&k->floats);
    for (size_t i = 0; i < k->n_own; i++) free(k->own[i].w);
    free(k->pos);
    free(k->want);
    free(k);
}

static void swap_values(dil__link *k)
{
    for (size_t i = 0; i < k->n_own; i++) k->own[i].w = dil__decoder_swap(k->d, k->layer, k->own[i].index, k->own[i].w);
}

dil_status dil__link_run(dil__link *k, const int32_t *ids, const float *in, float *out, dil_err *err)
{
    if (k->d) {
        swap_values(k);
        dil__decoder_layer(k->d, k->layer, ids, in, k->n_ctx, out);
        swap_values(k);
        return DIL_OK;
    }
    dil_batch b = {.n_tokens = k->n_ctx, .token = ids, .pos = k->pos, .want = k->want};
    dil_stage_seq_trim(k->s, 0, 0);
    return dil_stage_eval(k->s, &b, in, out, err);
}
