/* Random weights. Each tensor has memory of its own, as in a real model, so that caches see what they would see. */
#include "engine/synthetic.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct dil__synthetic {
    dil_tensor *tensor; /* [n], in the order of layers */
    void **data;        /* [n] owned */
    size_t n;
};

static const dil_tensor *find(void *ctx, const char *name)
{
    const dil__synthetic *s = ctx;
    for (size_t i = 0; i < s->n; i++) {
        if (strcmp(s->tensor[i].name, name) == 0) return &s->tensor[i];
    }
    return NULL;
}

dil_weights dil__synthetic_weights(const dil__synthetic *s)
{
    return (dil_weights){.find = find, .ctx = (void *)(uintptr_t)s};
}

void dil__synthetic_free(dil__synthetic *s)
{
    if (!s) return;
    for (size_t i = 0; i < s->n; i++) free(s->data[i]);
    free(s->data);
    free(s->tensor);
    free(s);
}

static void fill_rows(dil_rng *rng, const dil_layer_tensor *t, float *x, uint64_t rows)
{
    bool is_norm = strstr(t->role, "norm") && !strstr(t->role, ".bias"), freqs = strncmp(t->role, "rope_f", 6) == 0;
    double sd = t->linear && strcmp(t->role, "token_embd") != 0 ? 1 / sqrt((double)t->ne[0]) : 0.1;
    for (uint64_t i = 0; i < rows * t->ne[0]; i++) {
        double v = dil_rng_normal(rng) * sd;
        x[i] = (float)(freqs ? 1 + fabs(v) : is_norm ? 1 + v : v);
    }
}

static dil_status make_data(dil_rng *rng, const dil_layer_tensor *t, dil_type type, uint32_t distinct, dil_tensor *out, void **data, dil_err *err)
{
    uint64_t row, rows = distinct && distinct < t->ne[1] ? distinct : t->ne[1];
    if (!dil_type_row_bytes(type, t->ne[0], &row))
        return dil_fail(err, DIL_EUSAGE, "%s: rows of %llu do not divide into blocks of %s", t->name, (unsigned long long)t->ne[0], dil_type_get(type)->name);
    uint8_t *bytes = NULL;
    float *x = malloc(rows * t->ne[0] * sizeof *x), *ones = malloc(t->ne[0] * sizeof *ones);
    dil_status s = DIL_OK;
    if (!x || !ones || posix_memalign((void **)&bytes, 64, row * t->ne[1]) != 0) s = dil_fail(err, DIL_EMEMORY, "engine: no memory for %s", t->name);
    if (!s) {
        fill_rows(rng, t, x, rows);
        for (uint64_t i = 0; i < t->ne[0]; i++) ones[i] = 1;
        s = dil_engine_quantize(type, x, rows, t->ne[0], ones, bytes, 1, err);
    }
    for (uint64_t r = rows; !s && r < t->ne[1]; r++) memcpy(bytes + r * row, bytes + (r - rows) * row, row);
    free(x);
    free(ones);
    if (s) {
        free(bytes);
        return s;
    }
    *out = (dil_tensor){.type = type, .n_dims = t->ne[1] > 1 ? 2 : 1, .ne = {t->ne[0], t->ne[1], 1, 1}, .data = bytes, .bytes = row * t->ne[1]};
    memcpy(out->name, t->name, sizeof out->name);
    *data = bytes;
    return DIL_OK;
}

static dil_status add_layer(dil__synthetic *s, const dil_arch *a, uint32_t layer, const dil__synthetic_opts *o, dil_rng *rng, dil_err *err)
{
    dil_layer_tensor t[DIL_LAYER_TENSORS_MAX];
    size_t n = dil_arch_layer_tensors(a, layer, t);
    for (size_t i = 0; i < n; i++) {
        if (find(s, t[i].name)) continue; /* shared */
        dil_type type = t[i].linear && o->type_of ? o->type_of(o->ctx, layer, i, &t[i]) : DIL_TYPE_F32;
        dil_status status = make_data(rng, &t[i], type, o->distinct_rows, &s->tensor[s->n], &s->data[s->n], err);
        if (status) return status;
        s->n++;
    }
    return DIL_OK;
}

dil_status dil__synthetic_new(const dil_arch *a, const dil__synthetic_opts *o, dil__synthetic **out, dil_err *err)
{
    size_t cap = ((size_t)o->last_layer - o->first_layer + 1) * DIL_LAYER_TENSORS_MAX;
    dil__synthetic *s = calloc(1, sizeof *s);
    if (s) s->tensor = calloc(cap, sizeof *s->tensor);
    if (s) s->data = calloc(cap, sizeof *s->data);
    dil_status status = s && s->tensor && s->data ? DIL_OK : dil_fail(err, DIL_EMEMORY, "engine: no memory for %zu tensors", cap);
    dil_rng rng;
    dil_rng_init(&rng, o->seed);
    for (uint32_t layer = o->first_layer; !status && layer <= o->last_layer; layer++) status = add_layer(s, a, layer, o, &rng, err);
    if (status) {
        dil__synthetic_free(s);
        return status;
    }
    *out = s;
    return DIL_OK;
}
