/* The architecture table: which features a family has, read from GGUF metadata; which tensors follow from them; and the check
 * that a file holds exactly those. Lists and checks come from one enumeration (layer_tensors), so they cannot disagree.
 *
 * `llama` is GGUF's own. `opt` is ours, since no published convention exists; docs/FORMATS.md lists its keys. */
#include "model/family.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- metadata ------------------------------------------------------------------------------------------------------ */

typedef struct reader {
    const dil_gguf *g;
    const char *prefix; /* "llama" */
    dil_err *err;
} reader;

static const char *full_key(const reader *r, const char *key, char out[DIL_GGUF_KEY_MAX])
{
    snprintf(out, DIL_GGUF_KEY_MAX, "%s.%s", r->prefix, key);
    return out;
}

static bool has(const reader *r, const char *key)
{
    char k[DIL_GGUF_KEY_MAX];
    return dil_gguf_kv_find(r->g, full_key(r, key, k)) != NULL;
}

static dil_status get_u32(const reader *r, const char *key, uint32_t min, uint32_t max, uint32_t *out)
{
    char k[DIL_GGUF_KEY_MAX];
    int64_t v;
    full_key(r, key, k);
    if (!dil_gguf_kv_find(r->g, k)) return dil_fail(r->err, DIL_EFORMAT, "%s: %s is missing", dil_gguf_path(r->g), k);
    if (!dil_gguf_get_int(r->g, k, &v))
        return dil_fail(r->err, DIL_EUNSUPPORTED, "%s: %s is not a single integer", dil_gguf_path(r->g), k);
    if (v < min) return dil_fail(r->err, DIL_EFORMAT, "%s: %s is %" PRId64 ", the least is %u", dil_gguf_path(r->g), k, v, min);
    if (v > max) return dil_fail(r->err, DIL_ELIMIT, "%s: %s is %" PRId64 ", the limit is %u", dil_gguf_path(r->g), k, v, max);
    *out = (uint32_t)v;
    return DIL_OK;
}

static dil_status get_u32_or(const reader *r, const char *key, uint32_t min, uint32_t max, uint32_t dflt, uint32_t *out)
{
    if (has(r, key)) return get_u32(r, key, min, max, out);
    *out = dflt;
    return DIL_OK;
}

/* A finite number within (0, 1e12]. */
static dil_status get_positive(const reader *r, const char *key, float *out)
{
    char k[DIL_GGUF_KEY_MAX];
    double v;
    full_key(r, key, k);
    if (!dil_gguf_kv_find(r->g, k)) return dil_fail(r->err, DIL_EFORMAT, "%s: %s is missing", dil_gguf_path(r->g), k);
    if (!dil_gguf_get_num(r->g, k, &v) || !(v > 0 && v <= 1e12))
        return dil_fail(r->err, DIL_EFORMAT, "%s: %s is not a positive number", dil_gguf_path(r->g), k);
    *out = (float)v;
    return DIL_OK;
}

static dil_status get_flag(const reader *r, const char *key, bool *out)
{
    char k[DIL_GGUF_KEY_MAX];
    if (!dil_gguf_get_bool(r->g, full_key(r, key, k), out))
        return dil_fail(r->err, DIL_EFORMAT, "%s: %s is missing or not a boolean", dil_gguf_path(r->g), k);
    return DIL_OK;
}

static bool str_is(const reader *r, const char *key, const char *value)
{
    char k[DIL_GGUF_KEY_MAX];
    const char *s;
    size_t n;
    return dil_gguf_get_str(r->g, full_key(r, key, k), &s, &n) && n == strlen(value) && memcmp(s, value, n) == 0;
}

/* --- families ------------------------------------------------------------------------------------------------------ */

/* What every family has: block count, widths, heads, context. */
static dil_status read_common(const reader *r, dil_arch *a)
{
    dil_status s = get_u32(r, "block_count", 1, DIL_ARCH_BLOCKS_MAX, &a->n_blocks);
    if (s == DIL_OK) s = get_u32(r, "embedding_length", 1, DIL_ARCH_WIDTH_MAX, &a->n_embd);
    if (s == DIL_OK) s = get_u32(r, "feed_forward_length", 1, DIL_ARCH_WIDTH_MAX, &a->n_ff);
    if (s == DIL_OK) s = get_u32(r, "context_length", 1, DIL_ARCH_CTX_MAX, &a->n_ctx_train);
    if (s == DIL_OK) s = get_u32(r, "attention.head_count", 1, DIL_ARCH_HEADS_MAX, &a->n_head);
    if (s == DIL_OK) s = get_u32_or(r, "attention.head_count_kv", 1, DIL_ARCH_HEADS_MAX, a->n_head, &a->n_head_kv);
    if (s != DIL_OK) return s;
    const char *path = dil_gguf_path(r->g);
    if (a->n_head % a->n_head_kv != 0)
        return dil_fail(r->err, DIL_EFORMAT, "%s: %u attention heads do not divide among %u key/value heads", path, a->n_head, a->n_head_kv);
    if (!has(r, "attention.key_length") && a->n_embd % a->n_head != 0)
        return dil_fail(r->err, DIL_EFORMAT, "%s: a width of %u does not divide among %u heads", path, a->n_embd, a->n_head);
    uint32_t value_dim = 0;
    s = get_u32_or(r, "attention.key_length", 1, DIL_ARCH_WIDTH_MAX, a->n_embd / a->n_head, &a->head_dim);
    if (s == DIL_OK) s = get_u32_or(r, "attention.value_length", 1, DIL_ARCH_WIDTH_MAX, a->head_dim, &value_dim);
    if (s == DIL_OK) s = get_positive(r, a->norm == DIL_NORM_RMS ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon", &a->norm_eps);
    if (s != DIL_OK) return s;
    if (a->head_dim == 0)
        return dil_fail(r->err, DIL_EFORMAT, "%s: a width of %u is less than %u heads", path, a->n_embd, a->n_head);
    if (value_dim != a->head_dim)
        return dil_fail(r->err, DIL_EUNSUPPORTED, "%s: keys of %u and values of %u elements a head; only equal ones are supported",
                        path, a->head_dim, value_dim);
    a->n_embd_word = a->n_embd;
    return DIL_OK;
}

static dil_status read_stretch(const reader *r, dil_arch *a)
{
    a->rope_long = true;
    dil_status s = get_u32_or(r, "rope.scaling.original_context_length", 1, DIL_ARCH_CTX_MAX, a->n_ctx_train, &a->rope_ctx);
    if (s == DIL_OK && has(r, "rope.scaling.attn_factor")) s = get_positive(r, "rope.scaling.attn_factor", &a->rope_gain);
    return s;
}

static dil_status read_rope(const reader *r, const dil__family *f, dil_arch *a)
{
    const char *path = dil_gguf_path(r->g);
    dil_status s = get_u32_or(r, "rope.dimension_count", 2, a->head_dim, a->head_dim, &a->rope_dims);
    if (s == DIL_OK && has(r, "rope.freq_base")) s = get_positive(r, "rope.freq_base", &a->rope_freq_base);
    if (s != DIL_OK) return s;
    if (a->rope_dims % 2 != 0) return dil_fail(r->err, DIL_EFORMAT, "%s: rope over %u dimensions, expected an even number", path, a->rope_dims);
    bool stretched = f->may_stretch && (str_is(r, "rope.scaling.type", "longrope") || dil_gguf_find(r->g, "rope_factors_long.weight"));
    if (stretched) return read_stretch(r, a);
    if (has(r, "rope.scaling.type") && !str_is(r, "rope.scaling.type", "none")) {
        if (!str_is(r, "rope.scaling.type", "linear"))
            return dil_fail(r->err, DIL_EUNSUPPORTED, "%s: %s.rope.scaling.type is neither \"none\" nor \"linear\"", path, r->prefix);
        float factor;
        s = get_positive(r, "rope.scaling.factor", &factor);
        if (s != DIL_OK) return s;
        a->rope_scale = 1 / factor;
    }
    a->rope_freqs = dil_gguf_find(r->g, "rope_freqs.weight") != NULL;
    return DIL_OK;
}

/* sliding_window_pattern is a period, or a list with an entry for each block. */
static dil_status read_window_period(const reader *r, const dil__family *f, dil_arch *a)
{
    static const char key[] = "attention.sliding_window_pattern";
    char k[DIL_GGUF_KEY_MAX];
    const dil_gguf_kv *kv = dil_gguf_kv_find(r->g, full_key(r, key, k));
    a->window_period = f->window_period;
    if (!kv || kv->kind != DIL_GGUF_ARRAY) return get_u32_or(r, key, 0, DIL_ARCH_BLOCKS_MAX, f->window_period, &a->window_period);
    const uint8_t *flag = kv->data;
    bool fits = kv->elem_kind == DIL_GGUF_BOOL && kv->n == a->n_blocks;
    a->window_period = 0;
    for (uint32_t i = 0; fits && i < a->n_blocks && a->window_period == 0; i++) {
        if (!flag[i]) a->window_period = i + 1;
    }
    for (uint32_t i = 0; fits && i < a->n_blocks; i++) fits = dil_arch_is_windowed(a, i) == (flag[i] != 0);
    if (fits) return DIL_OK;
    return dil_fail(r->err, DIL_EUNSUPPORTED, "%s: %s is not a regular pattern over the %u blocks", dil_gguf_path(r->g), k, a->n_blocks);
}

static dil_status read_window(const reader *r, const dil__family *f, dil_arch *a)
{
    dil_status s = get_u32_or(r, "attention.sliding_window", 0, DIL_ARCH_CTX_MAX, f->window, &a->window);
    if (s != DIL_OK || a->window == 0) return s;
    s = read_window_period(r, f, a);
    a->window_rope_base = f->window_rope_base;
    if (s == DIL_OK && has(r, "rope.freq_base_swa")) s = get_positive(r, "rope.freq_base_swa", &a->window_rope_base);
    if (a->window_rope_base > 0) a->window_rope_scale = 1;
    return s;
}

static dil_status get_cap(const reader *r, const char *key, float *out)
{
    return has(r, key) ? get_positive(r, key, out) : DIL_OK;
}

/* Keys that would change the computation and that the family's models do not carry. */
static dil_status refuse_variants(const reader *r, const dil__family *f)
{
    const struct {
        const char *key;
        bool known;
    } keys[] = {{"expert_count", false},
                {"logit_scale", false},
                {"embedding_scale", false},
                {"residual_scale", false},
                {"attention.scale", f->scales_embd},
                {"attention.sliding_window", f->may_window},
                {"attn_logit_softcapping", f->may_softcap},
                {"final_logit_softcapping", f->may_softcap}};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        char k[DIL_GGUF_KEY_MAX];
        double v;
        full_key(r, keys[i].key, k);
        if (!keys[i].known && dil_gguf_kv_find(r->g, k) && !(dil_gguf_get_num(r->g, k, &v) && v == 0))
            return dil_fail(r->err, DIL_EUNSUPPORTED, "%s: %s is set; models that need it are not supported yet", dil_gguf_path(r->g), k);
    }
    return DIL_OK;
}

static dil_status read_opt(const reader *r, dil_arch *a)
{
    dil_status s = get_u32_or(r, "word_embedding_length", 1, DIL_ARCH_WIDTH_MAX, a->n_embd, &a->n_embd_word);
    if (s == DIL_OK) s = get_u32_or(r, "position_offset", 0, 1024, 2, &a->position_offset);
    if (s == DIL_OK) s = get_flag(r, "do_layer_norm_before", &a->norm_before);
    if (s == DIL_OK) s = get_flag(r, "final_norm", &a->final_norm);
    if (s == DIL_OK) s = get_flag(r, "attention.bias", &a->qkv_bias);
    if (s == DIL_OK) s = get_flag(r, "feed_forward.bias", &a->ffn_bias);
    a->out_bias = a->qkv_bias;
    if (s != DIL_OK) return s;
    if (str_is(r, "activation_function", "relu")) a->act = DIL_ACT_RELU;
    else if (str_is(r, "activation_function", "gelu")) a->act = DIL_ACT_GELU;
    else return dil_fail(r->err, DIL_EUNSUPPORTED, "%s: opt.activation_function is neither \"relu\" nor \"gelu\"", dil_gguf_path(r->g));
    if (a->n_head_kv != a->n_head)
        return dil_fail(r->err, DIL_EUNSUPPORTED, "%s: an OPT model with %u of %u key/value heads", dil_gguf_path(r->g), a->n_head_kv, a->n_head);
    return DIL_OK;
}

/* Which of the optional tensors the first block has; that the others have them too is checked with all tensors. */
static void read_tensor_kinds(const reader *r, const dil__family *f, dil_arch *a)
{
    a->fused_qkv = dil_gguf_find(r->g, "blk.0.attn_qkv.weight") != NULL;
    a->fused_gate_up = f->fuses_gate_up && !dil_gguf_find(r->g, "blk.0.ffn_gate.weight");
    a->qkv_bias = dil_gguf_find(r->g, a->fused_qkv ? "blk.0.attn_qkv.bias" : "blk.0.attn_q.bias") != NULL;
    a->out_bias = dil_gguf_find(r->g, "blk.0.attn_output.bias") != NULL;
    a->ffn_bias = dil_gguf_find(r->g, "blk.0.ffn_up.bias") != NULL;
}

static dil_status read_family(const reader *r, const dil__family *f, dil_arch *a)
{
    dil__family_init(f, a);
    dil_status s = refuse_variants(r, f);
    if (s == DIL_OK) s = read_common(r, a);
    if (s == DIL_OK && f->positions != DIL_POS_LEARNED) s = read_rope(r, f, a);
    if (s == DIL_OK && f->may_window) s = read_window(r, f, a);
    if (s == DIL_OK && f->may_softcap) s = get_cap(r, "attn_logit_softcapping", &a->attn_softcap);
    if (s == DIL_OK && f->may_softcap) s = get_cap(r, "final_logit_softcapping", &a->final_softcap);
    if (s != DIL_OK) return s;
    a->attn_scale = dil__family_attn_scale(f, a);
    if (f->scales_embd) s = get_cap(r, "attention.scale", &a->attn_scale);
    if (f->scales_embd) a->embd_scale = sqrtf((float)a->n_embd);
    read_tensor_kinds(r, f, a);
    return s == DIL_OK && f->id == DIL_FAMILY_OPT ? read_opt(r, a) : s;
}

/* --- tensors of a layer -------------------------------------------------------------------------------------------- */

typedef struct list {
    const dil_arch *arch;
    dil_layer_tensor *out;
    size_t n;
    char prefix[24]; /* "blk.3." or "" */
} list;

static dil_layer_tensor *add(list *l, const char *role, const char *suffix, uint64_t ne0, uint64_t ne1, bool linear)
{
    dil_layer_tensor *t = &l->out[l->n++];
    *t = (dil_layer_tensor){.ne = {ne0, ne1}, .linear = linear};
    snprintf(t->name, sizeof t->name, "%s%s.%s", l->prefix, role, suffix);
    snprintf(t->role, sizeof t->role, strcmp(suffix, "weight") == 0 ? "%s" : "%s.%s", role, suffix);
    return t;
}

static void add_linear(list *l, const char *role, uint64_t n_in, uint64_t n_out, bool bias)
{
    add(l, role, "weight", n_in, n_out, true);
    if (bias) add(l, role, "bias", n_out, 1, false);
}

static void add_norm(list *l, const char *role)
{
    add(l, role, "weight", l->arch->n_embd, 1, false);
    if (l->arch->norm == DIL_NORM_LAYER) add(l, role, "bias", l->arch->n_embd, 1, false);
}

static void list_embedding(list *l)
{
    const dil_arch *a = l->arch;
    add(l, "token_embd", "weight", a->n_embd_word, a->n_vocab, true);
    if (a->positions == DIL_POS_LEARNED) add(l, "position_embd", "weight", a->n_embd, (uint64_t)a->n_ctx_train + a->position_offset, false);
    if (a->n_embd_word != a->n_embd) add_linear(l, "project_in", a->n_embd_word, a->n_embd, false);
}

static void list_attention(list *l)
{
    const dil_arch *a = l->arch;
    uint64_t q = (uint64_t)a->n_head * a->head_dim, kv = (uint64_t)a->n_head_kv * a->head_dim;
    add_norm(l, "attn_norm");
    if (a->fused_qkv) {
        add_linear(l, "attn_qkv", a->n_embd, q + 2 * kv, a->qkv_bias);
    } else {
        add_linear(l, "attn_q", a->n_embd, q, a->qkv_bias);
        add_linear(l, "attn_k", a->n_embd, kv, a->qkv_bias);
        add_linear(l, "attn_v", a->n_embd, kv, a->qkv_bias);
    }
    if (a->qk_norm) {
        add(l, "attn_q_norm", "weight", a->head_dim, 1, false);
        add(l, "attn_k_norm", "weight", a->head_dim, 1, false);
    }
    add_linear(l, "attn_output", q, a->n_embd, a->out_bias);
    if (a->post_norms) add_norm(l, "post_attention_norm");
}

static void list_ffn(list *l)
{
    const dil_arch *a = l->arch;
    add_norm(l, "ffn_norm");
    if (a->gated_ffn && !a->fused_gate_up) add_linear(l, "ffn_gate", a->n_embd, a->n_ff, a->ffn_bias);
    add_linear(l, "ffn_up", a->n_embd, a->fused_gate_up ? 2 * (uint64_t)a->n_ff : a->n_ff, a->ffn_bias);
    add_linear(l, "ffn_down", a->n_ff, a->n_embd, a->ffn_bias);
    if (a->post_norms) add_norm(l, "post_ffw_norm");
}

static void list_block(list *l, uint32_t block)
{
    static const char *const factors[] = {"rope_freqs", "rope_factors_long", "rope_factors_short"};
    const dil_arch *a = l->arch;
    snprintf(l->prefix, sizeof l->prefix, "blk.%u.", block);
    list_attention(l);
    list_ffn(l);
    l->prefix[0] = 0;
    for (size_t i = 0; i < sizeof factors / sizeof *factors; i++) {
        if (i == 0 ? a->rope_freqs : a->rope_long) add(l, factors[i], "weight", a->rope_dims / 2, 1, false)->shared = block > 0;
    }
}

static void list_head(list *l)
{
    const dil_arch *a = l->arch;
    if (a->final_norm) add_norm(l, "output_norm");
    if (a->n_embd_word != a->n_embd) add_linear(l, "project_out", a->n_embd, a->n_embd_word, false);
    if (a->tied_head) add(l, "token_embd", "weight", a->n_embd_word, a->n_vocab, true)->shared = true;
    else add_linear(l, "output", a->n_embd_word, a->n_vocab, false);
}

uint32_t dil_arch_n_layers(const dil_arch *a)
{
    return a->n_blocks + 2;
}

bool dil_arch_is_windowed(const dil_arch *a, uint32_t block)
{
    return a->window > 0 && !(a->window_period > 0 && (block + 1) % a->window_period == 0);
}

bool dil_arch_has_rope(const dil_arch *a, uint32_t block)
{
    return a->positions != DIL_POS_LEARNED && !(a->no_rope_period > 0 && (block + 1) % a->no_rope_period == 0);
}

size_t dil_arch_layer_tensors(const dil_arch *a, uint32_t layer, dil_layer_tensor *out)
{
    list l = {.arch = a, .out = out};
    if (layer == 0) list_embedding(&l);
    else if (layer <= a->n_blocks) list_block(&l, layer - 1);
    else if (layer == a->n_blocks + 1) list_head(&l);
    return l.n;
}

/* --- checking a file ----------------------------------------------------------------------------------------------- */

static bool is_float(dil_type t)
{
    return t == DIL_TYPE_F32 || t == DIL_TYPE_F16 || t == DIL_TYPE_BF16;
}

static dil_status check_type(const dil_gguf *g, const dil_layer_tensor *want, dil_type type, dil_err *err)
{
    const dil_type_info *info = dil_type_get(type);
    if (want->linear ? is_float(type) || (info->is_quantized && type != DIL_TYPE_Q8_1 && type != DIL_TYPE_Q8_K)
                     : type == DIL_TYPE_F32 || (strcmp(want->role, "position_embd") == 0 && is_float(type)))
        return DIL_OK;
    return dil_fail(err, DIL_EFORMAT, "%s: %s has type %s, expected %s", dil_gguf_path(g), want->name, info->name,
                    want->linear ? "a float or quantized type" : "F32");
}

static dil_status check_tensor(const dil_gguf *g, const dil_layer_tensor *want, dil_err *err)
{
    const dil_tensor *t = dil_gguf_find(g, want->name);
    if (!t) return dil_fail(err, DIL_EFORMAT, "%s: tensor %s is missing", dil_gguf_path(g), want->name);
    if (t->ne[0] != want->ne[0] || t->ne[1] != want->ne[1] || t->ne[2] != 1 || t->ne[3] != 1)
        return dil_fail(err, DIL_EFORMAT, "%s: %s is %" PRIu64 " x %" PRIu64 " x %" PRIu64 " x %" PRIu64 ", expected %" PRIu64 " x %" PRIu64,
                        dil_gguf_path(g), want->name, t->ne[0], t->ne[1], t->ne[2], t->ne[3], want->ne[0], want->ne[1]);
    return check_type(g, want, t->type, err);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Names a tensor of the file that no layer lists. known [n] is sorted here. */
static dil_status check_unknown(const dil_gguf *g, const char **known, size_t n, dil_err *err)
{
    qsort(known, n, sizeof *known, by_text);
    for (size_t i = 0; i < dil_gguf_n_tensors(g); i++) {
        const char *name = dil_gguf_tensor_at(g, i)->name;
        if (!bsearch(&name, known, n, sizeof *known, by_text))
            return dil_fail(err, DIL_EUNSUPPORTED, "%s: tensor %s is not part of the architecture as its metadata describes it",
                            dil_gguf_path(g), name);
    }
    return DIL_OK;
}

static dil_status check_tensors(const dil_gguf *g, const dil_arch *a, dil_err *err)
{
    const char **known = calloc(dil_gguf_n_tensors(g) + 1, sizeof *known);
    if (!known) return dil_fail(err, DIL_EMEMORY, "%s: no memory", dil_gguf_path(g));
    size_t n = 0;
    dil_status s = DIL_OK;
    for (uint32_t layer = 0; s == DIL_OK && layer < dil_arch_n_layers(a); layer++) {
        dil_layer_tensor t[DIL_LAYER_TENSORS_MAX];
        size_t count = dil_arch_layer_tensors(a, layer, t);
        for (size_t i = 0; s == DIL_OK && i < count; i++) {
            s = check_tensor(g, &t[i], err);
            /* Present and listed once: never more of them than the file has tensors. */
            if (s == DIL_OK && !t[i].shared) known[n++] = dil_gguf_find(g, t[i].name)->name;
        }
    }
    if (s == DIL_OK) s = check_unknown(g, known, n, err);
    free(known);
    return s;
}

static dil_status read_vocab(const dil_gguf *g, dil_arch *a, dil_err *err)
{
    const dil_tensor *t = dil_gguf_find(g, "token_embd.weight");
    if (!t) return dil_fail(err, DIL_EFORMAT, "%s: tensor token_embd.weight is missing", dil_gguf_path(g));
    if (t->ne[1] > DIL_ARCH_VOCAB_MAX)
        return dil_fail(err, DIL_ELIMIT, "%s: a vocabulary of %" PRIu64 " tokens, the limit is %u", dil_gguf_path(g), t->ne[1], DIL_ARCH_VOCAB_MAX);
    a->n_vocab = (uint32_t)t->ne[1];
    a->tied_head = dil_gguf_find(g, "output.weight") == NULL;
    return DIL_OK;
}

dil_status dil_arch_read(const dil_gguf *g, dil_arch *out, dil_err *err)
{
    const char *name;
    size_t len;
    if (!dil_gguf_get_str(g, "general.architecture", &name, &len))
        return dil_fail(err, DIL_EFORMAT, "%s: general.architecture is missing or not a string", dil_gguf_path(g));
    const dil__family *f = dil__family_find(name, len);
    if (!f)
        return dil_fail(err, DIL_EUNSUPPORTED, "%s: architecture \"%.*s\" is not supported; known are %s", dil_gguf_path(g), (int)(len < 64 ? len : 64),
                        name, dil__family_names());
    dil_arch a = {0};
    reader r = {.g = g, .prefix = f->name, .err = err};
    dil_status s = read_family(&r, f, &a);
    if (s == DIL_OK) s = read_vocab(g, &a, err);
    if (s == DIL_OK) s = check_tensors(g, &a, err);
    if (s == DIL_OK) *out = a;
    return s;
}

/* --- sums ---------------------------------------------------------------------------------------------------------- */

uint64_t dil_arch_n_params(const dil_arch *a)
{
    uint64_t sum = 0;
    for (uint32_t layer = 0; layer < dil_arch_n_layers(a); layer++) {
        dil_layer_tensor t[DIL_LAYER_TENSORS_MAX];
        size_t n = dil_arch_layer_tensors(a, layer, t);
        for (size_t i = 0; i < n; i++) sum += t[i].shared ? 0 : t[i].ne[0] * t[i].ne[1];
    }
    return sum;
}

uint64_t dil_arch_kv_bytes(const dil_arch *a, uint32_t n_ctx, dil_type kv_type)
{
    uint64_t row;
    if (!dil_type_row_bytes(kv_type, (uint64_t)a->n_head_kv * a->head_dim, &row)) return 0;
    return 2 * row * n_ctx;
}

double dil_gguf_ratio_to_fp32(const dil_gguf *g, uint64_t *bytes, uint64_t *n_params)
{
    double total = 0, params = 0;
    uint64_t b = 0, p = 0;
    for (size_t i = 0; i < dil_gguf_n_tensors(g); i++) {
        const dil_tensor *t = dil_gguf_tensor_at(g, i);
        b += t->bytes;
        p += dil_tensor_elems(t);
        total += (double)t->bytes;
        params += (double)dil_tensor_elems(t);
    }
    if (bytes) *bytes = b;
    if (n_params) *n_params = p;
    return params > 0 ? total / (4 * params) : 0;
}
