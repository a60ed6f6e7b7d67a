/* One layer as a stage of its own, with what the stage uses in place. */
#include "quant/link.h"

#include "quant/variant.h"

#include <stdlib.h>

struct dil__link {
    dil_stage *s;
    dil__variant floats; /* what the stage uses in place */
    uint32_t n_ctx;
    int32_t *pos;        /* [n_ctx] 0, 1, ... */
    uint8_t *want;       /* [n_ctx] all 1 */
};

static dil_status open_stage(dil__link *k, const dil_arch *arch, const dil_weights *weights, uint32_t layer, const dil__link_opts *o,
                             dil_err *err)
{
    dil_stage_opts so = {.device = o->device, .n_threads = o->n_threads, .first_layer = layer, .last_layer = layer, .n_ctx = o->n_ctx,
                         .n_seq = 1, .max_batch = o->n_ctx, .kv_type = DIL_TYPE_F16};
    return dil_stage_open(arch, weights, &so, NULL, &k->s, err);
}

dil_status dil__link_open(const dil_arch *arch, const dil_weights *weights, uint32_t layer, const dil__link_opts *o, dil__link **out,
                          dil_err *err)
{
    dil__link *k = calloc(1, sizeof *k);
    if (!k) return dil_fail(err, DIL_EMEMORY, "out of memory");
    k->n_ctx = o->n_ctx;
    k->pos = malloc(o->n_ctx * sizeof *k->pos);
    k->want = malloc(o->n_ctx);
    dil_status st = k->pos && k->want ? DIL_OK : dil_fail(err, DIL_EMEMORY, "out of memory");
    for (uint32_t i = 0; st == DIL_OK && i < o->n_ctx; i++) k->pos[i] = (int32_t)i, k->want[i] = 1;
    dil__variant_init(&k->floats, weights);
    dil_weights w = dil__variant_weights(&k->floats);
    if (st == DIL_OK && o->floats) st = dil__variant_floats(&k->floats, arch, layer, o->n_threads, err);
    if (st == DIL_OK) st = open_stage(k, arch, &w, layer, o, err);
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
    free(k->pos);
    free(k->want);
    free(k);
}

dil_status dil__link_run(dil__link *k, const int32_t *ids, const float *in, float *out, dil_err *err)
{
    dil_batch b = {.n_tokens = k->n_ctx, .token = ids, .pos = k->pos, .want = k->want};
    dil_stage_seq_trim(k->s, 0, 0);
    return dil_stage_eval(k->s, &b, in, out, err);
}

void dil__link_tap(dil__link *k, dil_stage_tap_fn *fn, void *ctx)
{
    dil_stage_set_tap(k->s, fn, ctx);
}
