/* Adapters to and from files, and into their model. */
#include "quant/adapter.h"

#include "base/half.h"

#include <dilemma/arch.h>
#include <dilemma/engine.h>
#include <dilemma/finetune.h>

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { RANK_MAX = 4096 };

static bool is_str(const dil_gguf *g, const char *key, const char *want)
{
    const char *s;
    size_t len;
    return dil_gguf_get_str(g, key, &s, &len) && len == strlen(want) && memcmp(s, want, len) == 0;
}

dil_status dil__adapter_open(const char *path, const char *arch, dil__adapter *a, dil_err *err)
{
    *a = (dil__adapter){0};
    dil_status st = dil_gguf_open(path, &a->g, err);
    if (st != DIL_OK) return st;
    if (!is_str(a->g, "general.type", "adapter") || !is_str(a->g, "adapter.type", "lora")) st = dil_fail(err, DIL_EFORMAT, "%s is no LoRA adapter", path);
    else if (!is_str(a->g, "general.architecture", arch)) st = dil_fail(err, DIL_EFORMAT, "%s is an adapter for another architecture than %s", path, arch);
    else if (!dil_gguf_get_num(a->g, "adapter.lora.alpha", &a->alpha) || !(a->alpha >= 0 && a->alpha <= 1e6))
        st = dil_fail(err, DIL_EFORMAT, "%s: adapter.lora.alpha is missing or no size", path);
    if (st != DIL_OK) dil__adapter_close(a);
    return st;
}

void dil__adapter_close(dil__adapter *a)
{
    dil_gguf_close(a->g);
    a->g = NULL;
}

static const dil_tensor *part(const dil__adapter *a, const char *weight, const char *which)
{
    char name[DIL_TENSOR_NAME_MAX + 16];
    snprintf(name, sizeof name, "%s.%s", weight, which);
    return dil_gguf_find(a->g, name);
}

dil_status dil__adapter_get(const dil__adapter *a, const dil_tensor *weight, dil__trainable *t, bool *has, dil_err *err)
{
    const dil_tensor *ta = part(a, weight->name, "lora_a"), *tb = part(a, weight->name, "lora_b");
    *has = ta && tb;
    if (!ta && !tb) return DIL_OK;
    if (!ta || !tb) return dil_fail(err, DIL_EFORMAT, "%s: %s has one of lora_a and lora_b only", dil_gguf_path(a->g), weight->name);
    uint64_t r = ta->ne[1];
    if (ta->ne[0] != weight->ne[0] || tb->ne[1] != weight->ne[1] || tb->ne[0] != r || r == 0 || r > RANK_MAX || ta->ne[2] != 1 || tb->ne[2] != 1)
        return dil_fail(err, DIL_EFORMAT, "%s: %s is {%" PRIu64 ", %" PRIu64 "} and {%" PRIu64 ", %" PRIu64 "} for a weight of {%" PRIu64 ", %" PRIu64 "}",
                        dil_gguf_path(a->g), weight->name, ta->ne[0], r, tb->ne[0], tb->ne[1], weight->ne[0], weight->ne[1]);
    dil_rng rng;
    dil_rng_init(&rng, 0);
    dil_status st = dil__trainable_init_lora(t, weight, (uint32_t)r, a->alpha > 0 ? (float)(a->alpha / (double)r) : 1, &rng, err);
    if (st == DIL_OK) st = dil_engine_dequantize(ta->type, ta->data, dil_tensor_elems(ta), t->p, err);
    if (st == DIL_OK) st = dil_engine_dequantize(tb->type, tb->data, dil_tensor_elems(tb), t->p + dil_tensor_elems(ta), err);
    return st;
}

dil_status dil__adapter_check(const dil__adapter *a, const dil_weights *w, dil_err *err)
{
    for (size_t i = 0; i < dil_gguf_n_tensors(a->g); i++) {
        char name[DIL_TENSOR_NAME_MAX];
        snprintf(name, sizeof name, "%s", dil_gguf_tensor_at(a->g, i)->name);
        char *end = strstr(name, ".lora_");
        if (end) *end = 0;
        if (!end || strcmp(name, "token_embd.weight") == 0 || !dil_weights_find(w, name))
            return dil_fail(err, DIL_EFORMAT, "%s: %s belongs to no linear weight of the model", dil_gguf_path(a->g), dil_gguf_tensor_at(a->g, i)->name);
    }
    return DIL_OK;
}

/* --- writing ---------------------------------------------------------------------------------------------------------------------- */

static dil_tensor part_of(const dil__trainable *t, bool b)
{
    dil_tensor x = {.type = DIL_TYPE_F32, .n_dims = 2, .ne = {b ? t->rank : t->src->ne[0], b ? t->src->ne[1] : t->rank, 1, 1}};
    snprintf(x.name, sizeof x.name, "%.*s.%s", (int)(sizeof x.name - 8), t->src->name, b ? "lora_b" : "lora_a");
    x.data = t->p + (b ? (size_t)t->rank * t->src->ne[0] : 0);
    x.bytes = sizeof(float) * x.ne[0] * x.ne[1];
    return x;
}

dil_status dil__adapter_write(const char *path, const char *arch, double alpha, const dil__trainable *t, size_t n, dil_err *err)
{
    dil_gguf_writer *w;
    dil_status st = dil_gguf_writer_new(&w, err);
    if (st != DIL_OK) return st;
    st = dil_gguf_put_str(w, "general.architecture", arch, err);
    if (st == DIL_OK) st = dil_gguf_put_str(w, "general.type", "adapter", err);
    if (st == DIL_OK) st = dil_gguf_put_str(w, "adapter.type", "lora", err);
    if (st == DIL_OK) st = dil_gguf_put_f32(w, "adapter.lora.alpha", (float)alpha, err);
    for (size_t i = 0; i < 2 * n && st == DIL_OK; i++) {
        dil_tensor x = part_of(&t[i / 2], i % 2);
        st = dil_gguf_put_tensor(w, &x, err);
    }
    if (st == DIL_OK) st = dil_gguf_begin(w, path, err);
    for (size_t i = 0; i < 2 * n && st == DIL_OK; i++) {
        dil_tensor x = part_of(&t[i / 2], i % 2);
        st = dil_gguf_write_data(w, x.data, x.bytes, err);
    }
    if (st == DIL_OK) st = dil_gguf_commit(w, err);
    dil_gguf_writer_free(w);
    return st;
}

static const dil__trainable *of(const dil__trainable *t, size_t n, const dil_tensor *src)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(t[i].src->name, src->name) == 0) return &t[i];
    return NULL;
}

static dil_tensor merged(const dil_tensor *src)
{
    dil_tensor x = *src;
    if (x.type != DIL_TYPE_F32 && x.type != DIL_TYPE_BF16) x.type = DIL_TYPE_F16;
    x.bytes = dil_tensor_elems(src) * (x.type == DIL_TYPE_F32 ? 4 : 2);
    return x;
}

static dil_status write_values(dil_gguf_writer *w, const dil__trainable *t, dil_err *err)
{
    dil_tensor x = merged(t->src);
    size_t n = dil_tensor_elems(t->src);
    float *values = malloc(n * sizeof *values);
    if (!values) return dil_fail(err, DIL_EMEMORY, "%s: out of memory", t->src->name);
    dil_status st = dil__trainable_values(t, values, err);
    uint16_t *half = (uint16_t *)values; /* in place: element i is read before its half is written at or before it */
    for (size_t i = 0; st == DIL_OK && x.type != DIL_TYPE_F32 && i < n; i++) {
        float v;
        memcpy(&v, (const char *)values + 4 * i, sizeof v);
        uint16_t h = x.type == DIL_TYPE_F16 ? dil__f16_from_f32(v) : dil__bf16_from_f32(v);
        memcpy((char *)half + 2 * i, &h, sizeof h);
    }
    if (st == DIL_OK) st = dil_gguf_write_data(w, values, x.bytes, err);
    free(values);
    return st;
}

dil_status dil__adapter_write_merged(const dil_gguf *g, const char *path, const dil__trainable *t, size_t n, dil_err *err)
{
    dil_gguf_writer *w;
    dil_status st = dil_gguf_writer_new(&w, err);
    if (st != DIL_OK) return st;
    for (size_t i = 0; i < dil_gguf_n_kv(g) && st == DIL_OK; i++) st = dil_gguf_put_kv(w, dil_gguf_kv_at(g, i), err);
    for (size_t i = 0; i < dil_gguf_n_tensors(g) && st == DIL_OK; i++) {
        const dil_tensor *src = dil_gguf_tensor_at(g, i);
        dil_tensor x = of(t, n, src) ? merged(src) : *src;
        st = dil_gguf_put_tensor(w, &x, err);
    }
    if (st == DIL_OK) st = dil_gguf_begin(w, path, err);
    for (size_t i = 0; i < dil_gguf_n_tensors(g) && st == DIL_OK; i++) {
        const dil_tensor *src = dil_gguf_tensor_at(g, i);
        const dil__trainable *p = of(t, n, src);
        st = p ? write_values(w, p, err) : dil_gguf_write_data(w, src->data, src->bytes, err);
    }
    if (st == DIL_OK) st = dil_gguf_commit(w, err);
    dil_gguf_writer_free(w);
    return st;
}

static dil_status merge(const dil_gguf *g, const dil__adapter *a, const char *out, dil_err *err)
{
    dil_weights w = dil_gguf_weights(g);
    dil_status st = dil__adapter_check(a, &w, err);
    dil__trainable *t = calloc(dil_gguf_n_tensors(g) + 1, sizeof *t);
    size_t n = 0;
    if (st == DIL_OK && !t) st = dil_fail(err, DIL_EMEMORY, "out of memory");
    for (size_t i = 0; i < dil_gguf_n_tensors(g) && st == DIL_OK; i++) {
        bool has = false;
        st = dil__adapter_get(a, dil_gguf_tensor_at(g, i), &t[n], &has, err);
        n += has;
    }
    if (st == DIL_OK) st = dil__adapter_write_merged(g, out, t, n, err);
    for (size_t i = 0; i < n; i++) dil__trainable_fini(&t[i]);
    free(t);
    return st;
}

dil_status dil_adapter_merge(const char *model, const char *adapter, const char *out, dil_err *err)
{
    dil_gguf *g;
    dil_arch arch;
    dil__adapter a;
    dil_status st = dil_gguf_open(model, &g, err);
    if (st != DIL_OK) return st;
    st = dil_arch_read(g, &arch, err);
    if (st == DIL_OK) st = dil__adapter_open(adapter, arch.name, &a, err);
    if (st == DIL_OK) {
        st = merge(g, &a, out, err);
        dil__adapter_close(&a);
    }
    dil_gguf_close(g);
    return st;
}
