/* GGUF files and headers from outside: opening, every getter, and the architecture. */
#include <dilemma/arch.h>

#include <string.h>

static uint64_t touch(const void *p, size_t n)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++) sum += ((const uint8_t *)p)[i];
    return sum;
}

static void walk_kv(const dil_gguf *g, const dil_gguf_kv *kv)
{
    int64_t i;
    double d;
    bool b;
    const char *s;
    size_t n;
    if (dil_gguf_kv_find(g, kv->key) != kv) __builtin_trap();
    dil_gguf_get_int(g, kv->key, &i);
    dil_gguf_get_num(g, kv->key, &d);
    dil_gguf_get_bool(g, kv->key, &b);
    if (dil_gguf_get_str(g, kv->key, &s, &n)) touch(s, n);
    touch(kv->data, (size_t)kv->bytes);
    for (uint64_t k = 0; k < kv->n && k < 4096; k++) {
        if (dil_gguf_arr_str(kv, k, &s, &n)) touch(s, n);
        dil_gguf_arr_int(kv, k, &i);
        dil_gguf_arr_num(kv, k, &d);
    }
}

static void walk(const dil_gguf *g)
{
    for (size_t i = 0; i < dil_gguf_n_kv(g); i++) walk_kv(g, dil_gguf_kv_at(g, i));
    for (size_t i = 0; i < dil_gguf_n_tensors(g); i++) {
        const dil_tensor *t = dil_gguf_tensor_at(g, i);
        if (dil_gguf_find(g, t->name) != t) __builtin_trap();
        if (t->data) touch(t->data, (size_t)t->bytes);
    }
    dil_gguf_ratio_to_fp32(g, NULL, NULL);
    dil_arch a;
    dil_err err;
    if (dil_arch_read(g, &a, &err) != DIL_OK) return;
    if (dil_arch_n_params(&a) == 0 || dil_arch_kv_bytes(&a, 16, DIL_TYPE_F16) == 0) __builtin_trap();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    for (int header_only = 0; header_only < 2; header_only++) {
        dil_gguf *g;
        dil_err err;
        if (dil_gguf_open_memory(data, len, header_only != 0, &g, &err) != DIL_OK) continue;
        walk(g);
        dil_gguf_close(g);
    }
    return 0;
}
