/* A tokenizer from a GGUF file's metadata (tokenizer.ggml.*, tokenizer.chat_template). The file's own reader has checked lengths;
 * here it is kinds and counts, and what is missing. */
#include "model/tokenizer_impl.h"

#include "model/utf8.h"

#include <stdlib.h>
#include <string.h>

static dil_status strings(const dil_gguf *g, const char *key, dil__str **out, size_t *n, dil_err *err)
{
    const dil_gguf_kv *kv = dil_gguf_kv_find(g, key);
    if (!kv) return dil_fail(err, DIL_EFORMAT, "%s: %s is missing", dil_gguf_path(g), key);
    if (kv->kind != DIL_GGUF_ARRAY || kv->elem_kind != DIL_GGUF_STRING)
        return dil_fail(err, DIL_EFORMAT, "%s: %s is not an array of strings", dil_gguf_path(g), key);
    if (kv->n > DIL__VOCAB_MAX)
        return dil_fail(err, DIL_ELIMIT, "%s: %s has %llu entries, at most %d", dil_gguf_path(g), key, (unsigned long long)kv->n, DIL__VOCAB_MAX);
    dil__str *a = calloc(kv->n ? kv->n : 1, sizeof *a);
    if (!a) return dil_fail(err, DIL_EMEMORY, "out of memory for %s", key);
    for (uint64_t i = 0; i < kv->n; i++) {
        if (dil_gguf_arr_str(kv, i, &a[i].s, &a[i].len)) continue;
        free(a);
        return dil_fail(err, DIL_EFORMAT, "%s: %s[%llu] cannot be read", dil_gguf_path(g), key, (unsigned long long)i);
    }
    *out = a;
    *n = kv->n;
    return DIL_OK;
}

static dil_status types(const dil_gguf *g, size_t n_tokens, int32_t **out, dil_err *err)
{
    static const char key[] = "tokenizer.ggml.token_type";
    const dil_gguf_kv *kv = dil_gguf_kv_find(g, key);
    *out = NULL;
    if (!kv) return DIL_OK;
    if (kv->kind != DIL_GGUF_ARRAY || (kv->elem_kind != DIL_GGUF_I32 && kv->elem_kind != DIL_GGUF_U32))
        return dil_fail(err, DIL_EFORMAT, "%s: %s is not an array of 32-bit integers", dil_gguf_path(g), key);
    if (kv->n != n_tokens)
        return dil_fail(err, DIL_EFORMAT, "%s: %s has %llu entries for %zu tokens", dil_gguf_path(g), key, (unsigned long long)kv->n, n_tokens);
    int32_t *t = calloc(n_tokens ? n_tokens : 1, sizeof *t);
    if (!t) return dil_fail(err, DIL_EMEMORY, "out of memory for %s", key);
    if (n_tokens) memcpy(t, kv->data, n_tokens * sizeof *t);
    *out = t;
    return DIL_OK;
}

/* Without token types the ids that the file names for itself are the only special tokens that we can know. */
static dil_status guess_types(const dil_gguf *g, size_t n_tokens, int32_t **out, dil_err *err)
{
    static const char *const keys[] = {"tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id", "tokenizer.ggml.padding_token_id",
                                       "tokenizer.ggml.unknown_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"};
    int32_t *t = calloc(n_tokens ? n_tokens : 1, sizeof *t);
    if (!t) return dil_fail(err, DIL_EMEMORY, "out of memory for %zu tokens", n_tokens);
    for (size_t i = 0; i < n_tokens; i++) t[i] = DIL__TOKEN_NORMAL;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        int64_t id;
        if (dil_gguf_get_int(g, keys[i], &id) && id >= 0 && (uint64_t)id < n_tokens) t[id] = DIL__TOKEN_CONTROL;
    }
    *out = t;
    return DIL_OK;
}

static dil_status scores(const dil_gguf *g, size_t n_tokens, float **out, dil_err *err)
{
    static const char key[] = "tokenizer.ggml.scores";
    const dil_gguf_kv *kv = dil_gguf_kv_find(g, key);
    if (!kv || kv->kind != DIL_GGUF_ARRAY || kv->elem_kind != DIL_GGUF_F32)
        return dil_fail(err, DIL_EFORMAT, "%s: %s is missing or not an array of floats; tokenizer.ggml.model llama needs it", dil_gguf_path(g), key);
    if (kv->n != n_tokens)
        return dil_fail(err, DIL_EFORMAT, "%s: %s has %llu entries for %zu tokens", dil_gguf_path(g), key, (unsigned long long)kv->n, n_tokens);
    float *x = calloc(n_tokens ? n_tokens : 1, sizeof *x);
    if (!x) return dil_fail(err, DIL_EMEMORY, "out of memory for %s", key);
    if (n_tokens) memcpy(x, kv->data, n_tokens * sizeof *x);
    *out = x;
    return DIL_OK;
}

static int64_t id_of(const dil_gguf *g, const char *key)
{
    int64_t id = -1;
    return dil_gguf_get_int(g, key, &id) ? id : -1;
}

static dil_status required_str(const dil_gguf *g, const char *key, dil__str *out, dil_err *err)
{
    if (dil_gguf_get_str(g, key, &out->s, &out->len)) return DIL_OK;
    return dil_fail(err, DIL_EFORMAT, "%s: %s is missing or not a string", dil_gguf_path(g), key);
}

static bool is_str(dil__str s, const char *want)
{
    return s.len == strlen(want) && memcmp(s.s, want, s.len) == 0;
}

static dil_status charsmap(const dil_gguf *g, dil__unigram_src *out, dil_err *err)
{
    static const char key[] = "tokenizer.ggml.precompiled_charsmap";
    const dil_gguf_kv *kv = dil_gguf_kv_find(g, key);
    if (!kv) return DIL_OK;
    if (kv->kind != DIL_GGUF_ARRAY || (kv->elem_kind != DIL_GGUF_U8 && kv->elem_kind != DIL_GGUF_I8))
        return dil_fail(err, DIL_EFORMAT, "%s: %s is not an array of bytes", dil_gguf_path(g), key);
    out->charsmap = kv->data;
    out->charsmap_bytes = kv->n;
    return DIL_OK;
}

/* OPT puts </s> first; its files may leave that to the reader. */
static int add_bos(const dil_gguf *g)
{
    bool b;
    if (dil_gguf_get_bool(g, "tokenizer.ggml.add_bos_token", &b)) return b;
    dil__str arch;
    return dil_gguf_get_str(g, "general.architecture", &arch.s, &arch.len) && is_str(arch, "opt") ? 1 : -1;
}

dil_status dil_tokenizer_new(const dil_gguf *g, dil_tokenizer **out, dil_err *err)
{
    dil__tokenizer_src src = {.bos = id_of(g, "tokenizer.ggml.bos_token_id"), .eos = id_of(g, "tokenizer.ggml.eos_token_id"),
                              .eot = id_of(g, "tokenizer.ggml.eot_token_id"), .eom = id_of(g, "tokenizer.ggml.eom_token_id"),
                              .add_bos = add_bos(g)};
    dil__str model;
    dil_status s = required_str(g, "tokenizer.ggml.model", &model, err);
    bool unigram = s == DIL_OK && is_str(model, "t5"), pieces = unigram || (s == DIL_OK && is_str(model, "llama"));
    if (s == DIL_OK && !pieces && !is_str(model, "gpt2"))
        s = dil_fail(err, DIL_EUNSUPPORTED, "%s: tokenizer.ggml.model is %s; known are gpt2 (byte-level BPE), llama (SentencePiece BPE) and t5 (SentencePiece unigram)", dil_gguf_path(g),
                     dil__show(model.s, model.len).text);
    if (s == DIL_OK && !pieces) s = required_str(g, "tokenizer.ggml.pre", &src.pre, err);
    dil__str *tokens = NULL, *merges = NULL;
    int32_t *type = NULL;
    float *score = NULL;
    if (s == DIL_OK) s = strings(g, "tokenizer.ggml.tokens", &tokens, &src.vocab.n_tokens, err);
    if (s == DIL_OK && !pieces) s = strings(g, "tokenizer.ggml.merges", &merges, &src.vocab.n_merges, err);
    if (s == DIL_OK && pieces) s = scores(g, src.vocab.n_tokens, &score, err);
    if (pieces && !dil_gguf_get_bool(g, "tokenizer.ggml.add_space_prefix", &src.space_first)) src.space_first = !unigram;
    dil__unigram_src uni = {.space_first = src.space_first};
    if (s == DIL_OK && unigram) s = charsmap(g, &uni, err);
    if (!dil_gguf_get_bool(g, "tokenizer.ggml.remove_extra_whitespaces", &uni.collapses)) uni.collapses = false;
    src.unigram = unigram ? &uni : NULL;
    if (s == DIL_OK) s = types(g, src.vocab.n_tokens, &type, err);
    if (s == DIL_OK && !type) s = guess_types(g, src.vocab.n_tokens, &type, err);
    if (s == DIL_OK) {
        src.vocab.tokens = tokens;
        src.vocab.merges = merges;
        src.vocab.types = type;
        src.vocab.scores = score;
        if (!dil_gguf_get_str(g, "tokenizer.chat_template", &src.chat_template.s, &src.chat_template.len)) src.chat_template.len = 0;
        s = dil__tokenizer_build(&src, out, err);
    }
    free(tokens);
    free(merges);
    free(type);
    free(score);
    return s;
}
