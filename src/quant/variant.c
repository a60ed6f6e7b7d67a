/* A source of weights in front of another one. Lookups are linear: a variant holds one layer's tensors, or is asked once a tensor. */
#include "quant/variant.h"

#include "quant/recode.h"

#include <stdlib.h>
#include <string.h>

void dil__variant_init(dil__variant *v, const dil_weights *base)
{
    *v = (dil__variant){.base = base};
}

void dil__variant_clear(dil__variant *v)
{
    for (size_t i = 0; i < v->n; i++) free((void *)(uintptr_t)v->t[i].data);
    v->n = 0;
}

void dil__variant_fini(dil__variant *v)
{
    dil__variant_clear(v);
    free(v->t);
    memset(v, 0, sizeof *v);
}

static dil_tensor *slot(dil__variant *v, const char *name)
{
    for (size_t i = 0; i < v->n; i++)
        if (strcmp(v->t[i].name, name) == 0) return &v->t[i];
    return NULL;
}

dil_status dil__variant_put(dil__variant *v, const dil_tensor *src, dil_type type, void *data, uint64_t bytes, dil_err *err)
{
    dil_tensor *t = slot(v, src->name);
    if (t) {
        free((void *)(uintptr_t)t->data);
    } else {
        if (v->n == v->cap) {
            size_t cap = v->cap ? 2 * v->cap : 16;
            dil_tensor *more = cap <= DIL__VARIANT_TENSORS ? realloc(v->t, cap * sizeof *more) : NULL;
            if (!more) {
                free(data);
                return dil_fail(err, DIL_EMEMORY, "%s: out of memory for %zu replaced tensors", src->name, cap);
            }
            v->t = more;
            v->cap = cap;
        }
        t = &v->t[v->n++];
    }
    *t = *src;
    t->type = type;
    t->data = data;
    t->bytes = bytes;
    return DIL_OK;
}

dil_status dil__variant_floats(dil__variant *v, const dil_arch *arch, uint32_t layer, int n_threads, dil_err *err)
{
    dil_layer_tensor t[DIL_LAYER_TENSORS_MAX];
    size_t n = dil_arch_layer_tensors(arch, layer, t);
    dil_status st = DIL_OK;
    for (size_t i = 0; i < n && st == DIL_OK; i++) {
        const dil_tensor *src = t[i].linear ? dil_weights_find(v->base, t[i].name) : NULL;
        void *data;
        uint64_t bytes;
        if (!src || src->type == DIL_TYPE_F32 || slot(v, src->name)) continue;
        st = dil__recode_tensor(src, DIL_TYPE_F32, NULL, NULL, n_threads, &data, &bytes, err);
        if (st == DIL_OK) st = dil__variant_put(v, src, DIL_TYPE_F32, data, bytes, err);
    }
    return st;
}

static const dil_tensor *find(void *ctx, const char *name)
{
    dil__variant *v = ctx;
    const dil_tensor *t = slot(v, name);
    return t ? t : dil_weights_find(v->base, name);
}

dil_weights dil__variant_weights(dil__variant *v)
{
    return (dil_weights){.find = find, .ctx = v};
}
