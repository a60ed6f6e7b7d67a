/* config.json of transformers to our architecture: names and defaults as its configuration classes have them. */
#include "model/import.h"

#include "base/json.h"
#include "model/family.h"

#include <math.h>
#include <string.h>

/* What a model_type's configuration class fills in where config.json is silent; 0: the key is required, or as the comment says. */
typedef struct kind {
    const char *type; /* config.json's model_type */
    dil_family family;
    uint32_t heads, vocab, ctx;
    uint32_t kv_heads;  /* 0: as many as heads */
    uint32_t head_dim;  /* 0: hidden_size / heads */
    double theta, eps;
    bool tied;
    bool qkv_bias;      /* always */
    bool bias_keys;     /* attention_bias and mlp_bias count */
    const char *act_key;
} kind;

typedef struct reader {
    const json_t *doc;
    const char *where;
    const kind *k;
    dil_err *err;
} reader;

static dil_status get_u32(const reader *r, const char *key, int64_t max, uint32_t *out)
{
    int64_t v = 0;
    dil_status s = dil__json_int(r->doc, key, r->where, 1, max, &v, r->err);
    if (s == DIL_OK) *out = (uint32_t)v;
    return s;
}

static dil_status get_u32_or(const reader *r, const char *key, int64_t max, uint32_t dflt, uint32_t *out)
{
    int64_t v = 0;
    dil_status s = dil__json_int_or(r->doc, key, r->where, 1, max, dflt, &v, r->err);
    if (s == DIL_OK) *out = (uint32_t)v;
    return s;
}

static dil_status get_flag(const reader *r, const char *key, bool dflt, bool *out)
{
    return dil__json_bool_or(r->doc, key, r->where, dflt, out, r->err);
}

/* A token id, or the first of several (Llama 3 lists every id that ends a turn); -1 where absent. */
static dil_status get_token(const reader *r, const char *key, int64_t *out)
{
    const json_t *v = json_object_get(r->doc, key);
    if (json_is_array(v)) v = json_array_get(v, 0);
    *out = -1;
    if (!v || json_is_null(v)) return DIL_OK;
    if (!json_is_integer(v)) return dil_fail(r->err, DIL_EFORMAT, "%s: \"%s\" is not a token id", r->where, key);
    json_int_t id = json_integer_value(v);
    if (id >= 0 && id < DIL_ARCH_VOCAB_MAX) *out = id;
    return DIL_OK;
}

/* max 0: the key is required. */
static dil_status get_u32_def(const reader *r, const char *key, int64_t max, uint32_t dflt, uint32_t *out)
{
    return dflt ? get_u32_or(r, key, max, dflt, out) : get_u32(r, key, max, out);
}

static dil_status read_common(const reader *r, dil__hf_config *c)
{
    dil_arch *a = &c->arch;
    bool short_keys = a->family == DIL_FAMILY_GPT2;
    dil_status s = get_u32(r, short_keys ? "n_layer" : "num_hidden_layers", DIL_ARCH_BLOCKS_MAX, &a->n_blocks);
    if (s == DIL_OK) s = get_u32(r, short_keys ? "n_embd" : "hidden_size", DIL_ARCH_WIDTH_MAX, &a->n_embd);
    if (s == DIL_OK) s = get_u32_def(r, short_keys ? "n_head" : "num_attention_heads", DIL_ARCH_HEADS_MAX, r->k->heads, &a->n_head);
    if (s == DIL_OK) s = get_u32_def(r, "vocab_size", DIL_ARCH_VOCAB_MAX, r->k->vocab, &a->n_vocab);
    if (s == DIL_OK) s = get_u32_or(r, short_keys ? "n_positions" : "max_position_embeddings", DIL_ARCH_CTX_MAX, r->k->ctx, &a->n_ctx_train);
    if (s == DIL_OK) s = get_token(r, "bos_token_id", &c->bos);
    if (s == DIL_OK) s = get_token(r, "eos_token_id", &c->eos);
    if (s == DIL_OK) s = get_token(r, "pad_token_id", &c->pad);
    a->n_embd_word = a->n_embd;
    c->norm_affine = true;
    return s;
}

/* --- positions ----------------------------------------------------------------------------------------------------- */

static dil_status read_llama3_rope(const reader *r, const json_t *rope, dil__hf_config *c)
{
    static const char at[] = "config.json: rope_scaling";
    dil_status s = dil__json_num(rope, "factor", at, &c->rope_factor, r->err);
    if (s == DIL_OK) s = dil__json_num_or(rope, "low_freq_factor", at, 1, &c->rope_low, r->err);
    if (s == DIL_OK) s = dil__json_num_or(rope, "high_freq_factor", at, 4, &c->rope_high, r->err);
    if (s == DIL_OK) s = dil__json_num_or(rope, "original_max_position_embeddings", at, 8192, &c->rope_context, r->err);
    if (s != DIL_OK) return s;
    if (!(c->rope_factor >= 1 && c->rope_factor <= 1e6 && c->rope_low > 0 && c->rope_high > c->rope_low && c->rope_context > 0))
        return dil_fail(r->err, DIL_EFORMAT, "%s: rope_scaling: factor %g, low_freq_factor %g, high_freq_factor %g over %g positions", r->where,
                        c->rope_factor, c->rope_low, c->rope_high, c->rope_context);
    c->llama3_rope = c->arch.rope_freqs = true;
    return DIL_OK;
}

static dil_status read_factors(const reader *r, const json_t *rope, const char *key, uint32_t n, float *out)
{
    const json_t *list = json_object_get(rope, key);
    if (n > DIL__HF_FACTORS_MAX) return dil_fail(r->err, DIL_ELIMIT, "%s: %s for %u frequencies, the limit is %d", r->where, key, n, DIL__HF_FACTORS_MAX);
    if (json_array_size(list) != n)
        return dil_fail(r->err, DIL_EFORMAT, "%s: rope_scaling: %s has %zu numbers for %u frequencies", r->where, key, json_array_size(list), n);
    for (uint32_t i = 0; i < n; i++) {
        out[i] = (float)json_number_value(json_array_get(list, i));
        if (!(out[i] > 0 && out[i] <= 1e6f)) return dil_fail(r->err, DIL_EFORMAT, "%s: rope_scaling: %s[%u] is no factor", r->where, key, i);
    }
    return DIL_OK;
}

static dil_status read_longrope(const reader *r, const json_t *rope, dil__hf_config *c)
{
    dil_arch *a = &c->arch;
    double gain = 0;
    int64_t before = 0;
    bool own = json_is_integer(json_object_get(rope, "original_max_position_embeddings"));
    dil_status s = dil__json_int_or(own ? rope : r->doc, "original_max_position_embeddings", r->where, 2, DIL_ARCH_CTX_MAX, a->n_ctx_train, &before, r->err);
    if (s == DIL_OK) s = dil__json_num_or(rope, "attention_factor", r->where, 0, &gain, r->err);
    if (s == DIL_OK) s = read_factors(r, rope, "long_factor", a->rope_dims / 2, c->long_factor);
    if (s == DIL_OK) s = read_factors(r, rope, "short_factor", a->rope_dims / 2, c->short_factor);
    if (s != DIL_OK) return s;
    if (!(gain >= 0 && gain <= 1e3)) return dil_fail(r->err, DIL_EFORMAT, "%s: rope_scaling: an attention_factor of %g", r->where, gain);
    double stretch = (double)a->n_ctx_train / (double)before;
    if (gain <= 0 && stretch > 1) gain = sqrt(1 + log(stretch) / log((double)before));
    a->rope_long = true;
    a->rope_ctx = (uint32_t)before;
    a->rope_gain = (float)gain;
    return DIL_OK;
}

static dil_status read_rope_scaling(const reader *r, const json_t *rope, dil__hf_config *c)
{
    const char *type = NULL;
    bool may_stretch = dil__families[c->arch.family].may_stretch;
    dil_status s = dil__json_str_or(rope, "type", r->where, "default", &type, r->err);
    if (s == DIL_OK) s = dil__json_str_or(rope, "rope_type", r->where, type, &type, r->err);
    if (s != DIL_OK) return s;
    if (strcmp(type, "default") == 0) return DIL_OK;
    if (strcmp(type, "llama3") == 0 && c->arch.family == DIL_FAMILY_LLAMA) return read_llama3_rope(r, rope, c);
    if ((strcmp(type, "longrope") == 0 || strcmp(type, "su") == 0) && may_stretch) return read_longrope(r, rope, c);
    if (strcmp(type, "linear") != 0)
        return dil_fail(r->err, DIL_EUNSUPPORTED, "%s: rope_scaling of type \"%.40s\"; none, linear, llama3 (of llama) and longrope (of phi3) are supported",
                        r->where, type);
    double factor = 0;
    s = dil__json_num(rope, "factor", r->where, &factor, r->err);
    if (s == DIL_OK && !(factor > 0 && factor <= 1e6)) s = dil_fail(r->err, DIL_EFORMAT, "%s: rope_scaling: a factor of %g", r->where, factor);
    if (s == DIL_OK) c->arch.rope_scale = (float)(1 / factor);
    return s;
}

static dil_status check_theta(const reader *r, const char *key, double theta, float *out)
{
    if (!(theta >= 1 && theta <= 1e12)) return dil_fail(r->err, DIL_EFORMAT, "%s: \"%s\" is %g", r->where, key, theta);
    *out = (float)theta;
    return DIL_OK;
}

/* How many of a head's elements turn. */
static dil_status read_rope_dims(const reader *r, const json_t *params, dil_arch *a)
{
    double part = 1;
    dil_status s = dil__json_num_or(r->doc, "partial_rotary_factor", r->where, 1, &part, r->err);
    if (s == DIL_OK && json_is_object(params)) s = dil__json_num_or(params, "partial_rotary_factor", r->where, part, &part, r->err);
    if (s != DIL_OK) return s;
    if (part < 1 && a->family != DIL_FAMILY_PHI3)
        return dil_fail(r->err, DIL_EUNSUPPORTED, "%s: \"partial_rotary_factor\" is %g; only phi3 models have one", r->where, part);
    if (!(part > 0 && part <= 1)) return dil_fail(r->err, DIL_EFORMAT, "%s: \"partial_rotary_factor\" is %g", r->where, part);
    a->rope_dims = (uint32_t)(part * a->head_dim);
    if (a->rope_dims < 2 || a->rope_dims % 2 != 0)
        return dil_fail(r->err, DIL_EFORMAT, "%s: rope over %u of %u elements a head, expected an even number", r->where, a->rope_dims, a->head_dim);
    return DIL_OK;
}

/* transformers 4 has rope_theta and rope_scaling, transformers 5 one object rope_parameters with both, or one for each kind of block. */
static dil_status read_rope(const reader *r, dil__hf_config *c)
{
    const json_t *params = json_object_get(r->doc, "rope_parameters"), *scaling = json_object_get(r->doc, "rope_scaling");
    const json_t *windowed = json_object_get(params, "sliding_attention");
    if (json_is_object(json_object_get(params, "full_attention"))) params = json_object_get(params, "full_attention");
    double theta = 0, local = dil__families[c->arch.family].window_rope_base;
    dil_status s = read_rope_dims(r, params, &c->arch);
    if (s == DIL_OK) s = dil__json_num_or(r->doc, "rope_theta", r->where, r->k->theta, &theta, r->err);
    if (s == DIL_OK && json_is_object(params)) s = dil__json_num_or(params, "rope_theta", r->where, theta, &theta, r->err);
    if (s == DIL_OK) s = check_theta(r, "rope_theta", theta, &c->arch.rope_freq_base);
    if (s == DIL_OK && local > 0) s = dil__json_num_or(r->doc, "rope_local_base_freq", r->where, local, &local, r->err);
    if (s == DIL_OK && local > 0 && json_is_object(windowed)) s = dil__json_num_or(windowed, "rope_theta", r->where, local, &local, r->err);
    if (s == DIL_OK && local > 0) s = check_theta(r, "rope_local_base_freq", local, &c->arch.window_rope_base);
    if (s == DIL_OK && local > 0) c->arch.window_rope_scale = 1;
    if (s != DIL_OK) return s;
    if (json_is_object(params)) return read_rope_scaling(r, params, c);
    return json_is_object(scaling) ? read_rope_scaling(r, scaling, c) : DIL_OK;
}

static dil_status check_heads(const reader *r, const dil_arch *a, bool own_head_dim)
{
    if (!own_head_dim && a->n_embd % a->n_head != 0)
        return dil_fail(r->err, DIL_EFORMAT, "%s: \"hidden_size\" %u does not divide among %u heads", r->where, a->n_embd, a->n_head);
    if (a->n_head % a->n_head_kv != 0)
        return dil_fail(r->err, DIL_EFORMAT, "%s: %u attention heads do not divide among %u key/value heads", r->where, a->n_head, a->n_head_kv);
    return DIL_OK;
}

void dil__hf_rope_freqs(const dil__hf_config *c, float *out)
{
    double long_wave = c->rope_context / c->rope_low, short_wave = c->rope_context / c->rope_high;
    for (uint32_t i = 0; i < c->arch.rope_dims / 2; i++) {
        double wave = 2 * 3.14159265358979323846 * pow((double)c->arch.rope_freq_base, 2.0 * i / c->arch.rope_dims);
        double keep = (c->rope_context / wave - c->rope_low) / (c->rope_high - c->rope_low);
        if (wave < short_wave) keep = 1;
        else if (wave > long_wave) keep = 0;
        out[i] = (float)(1 / ((1 - keep) / c->rope_factor + keep));
    }
}

/* --- the families of Llama's form ------------------------------------------------------------------------------------ */

/* A list that transformers may write with an entry a block: the same as what the family's numbers say? */
static dil_status check_list(const reader *r, const dil_arch *a, const char *key, bool (*expected)(const dil_arch *a, uint32_t block), const char *yes)
{
    const json_t *list = json_object_get(r->doc, key), *o;
    size_t i;
    if (!list || json_is_null(list)) return DIL_OK;
    bool fits = json_array_size(list) == a->n_blocks;
    json_array_foreach(list, i, o)
    {
        bool is = yes ? json_is_string(o) && strcmp(json_string_value(o), yes) == 0 : json_is_integer(o) && json_integer_value(o) == 1;
        if (!fits || is == expected(a, (uint32_t)i)) continue;
        fits = false;
    }
    return fits ? DIL_OK : dil_fail(r->err, DIL_EUNSUPPORTED, "%s: \"%s\" is not the pattern of %s models over %u blocks", r->where, key, a->name, a->n_blocks);
}

static dil_status read_window(const reader *r, dil_arch *a)
{
    const dil__family *f = &dil__families[a->family];
    bool used = false, qwen = a->family == DIL_FAMILY_QWEN2 || a->family == DIL_FAMILY_QWEN3 || a->family == DIL_FAMILY_SMOLLM3;
    dil_status s = get_flag(r, "use_sliding_window", false, &used);
    if (s == DIL_OK && qwen && used) s = dil_fail(r->err, DIL_EUNSUPPORTED, "%s: \"use_sliding_window\" of %s models is not supported", r->where, a->name);
    bool llama = strcmp(r->k->type, "llama") == 0; /* its configuration has no window */
    if (s == DIL_OK && f->may_window && !llama) {
        uint32_t dflt = f->window_period ? 4096 : 0;
        const json_t *w = json_object_get(r->doc, "sliding_window");
        if (w && json_is_null(w)) dflt = 0;
        s = get_u32_or(r, "sliding_window", DIL_ARCH_CTX_MAX, dflt, &a->window);
        a->window_period = f->window_period;
        if (s == DIL_OK && f->window_period) s = get_u32_or(r, "sliding_window_pattern", DIL_ARCH_BLOCKS_MAX, f->window_period, &a->window_period);
        if (s == DIL_OK && f->window_period) s = get_u32_or(r, "_sliding_window_pattern", DIL_ARCH_BLOCKS_MAX, a->window_period, &a->window_period);
    }
    if (a->window == 0) a->window_period = 0, a->window_rope_base = a->window_rope_scale = 0;
    return s == DIL_OK ? check_list(r, a, "layer_types", dil_arch_is_windowed, "sliding_attention") : s;
}

static dil_status read_no_rope(const reader *r, dil_arch *a)
{
    uint32_t period = 0;
    if (!a->no_rope_period) return DIL_OK;
    dil_status s = get_u32_or(r, "no_rope_layer_interval", DIL_ARCH_BLOCKS_MAX, a->no_rope_period, &period);
    if (s == DIL_OK && period != a->no_rope_period)
        s = dil_fail(r->err, DIL_EUNSUPPORTED, "%s: \"no_rope_layer_interval\" is %u, only %u is supported", r->where, period, a->no_rope_period);
    return s == DIL_OK ? check_list(r, a, "no_rope_layers", dil_arch_has_rope, NULL) : s;
}

static dil_status get_cap(const reader *r, const char *key, double dflt, float *out)
{
    double v = 0;
    const json_t *o = json_object_get(r->doc, key);
    dil_status s = o && json_is_null(o) ? DIL_OK : dil__json_num_or(r->doc, key, r->where, dflt, &v, r->err);
    if (s == DIL_OK && !(v >= 0 && v <= 1e6)) s = dil_fail(r->err, DIL_EFORMAT, "%s: \"%s\" is %g", r->where, key, v);
    if (s == DIL_OK) *out = (float)v;
    return s;
}

static dil_status read_gemma(const reader *r, dil_arch *a)
{
    const dil__family *f = &dil__families[a->family];
    bool second = a->family == DIL_FAMILY_GEMMA2, bidirectional = false;
    double per_head = 0;
    dil_status s = get_cap(r, "attn_logit_softcapping", second ? 50 : 0, &a->attn_softcap);
    if (s == DIL_OK) s = get_cap(r, "final_logit_softcapping", second ? 30 : 0, &a->final_softcap);
    if (s == DIL_OK) s = dil__json_num_or(r->doc, "query_pre_attn_scalar", r->where, 256, &per_head, r->err);
    if (s == DIL_OK) s = get_flag(r, "use_bidirectional_attention", false, &bidirectional);
    if (s != DIL_OK) return s;
    if (bidirectional) return dil_fail(r->err, DIL_EUNSUPPORTED, "%s: attention to both sides is not supported", r->where);
    if (!(per_head > 0 && per_head <= 1e9)) return dil_fail(r->err, DIL_EFORMAT, "%s: \"query_pre_attn_scalar\" is %g", r->where, per_head);
    bool usual = (float)per_head <= (float)a->head_dim && (float)per_head >= (float)a->head_dim && !(dil__family_attn_scale(f, a) > 0);
    a->attn_scale = usual ? 0 : 1 / sqrtf((float)per_head);
    a->embd_scale = sqrtf((float)a->n_embd);
    return DIL_OK;
}

static dil_status read_biases(const reader *r, dil_arch *a)
{
    bool attention = false;
    dil_status s = get_flag(r, "attention_bias", false, &attention);
    if (s == DIL_OK) s = get_flag(r, "mlp_bias", false, &a->ffn_bias);
    if (!r->k->bias_keys) attention = a->ffn_bias = false;
    a->qkv_bias = attention || r->k->qkv_bias;
    a->out_bias = attention;
    return s;
}

static dil_status check_act(const reader *r, const dil_arch *a, const char *key)
{
    const char *act = NULL, *want = a->act == DIL_ACT_SILU ? "silu" : "gelu_pytorch_tanh";
    dil_status s = dil__json_str_or(r->doc, key, r->where, want, &act, r->err);
    if (s == DIL_OK && strcmp(act, want) != 0)
        return dil_fail(r->err, DIL_EUNSUPPORTED, "%s: \"%s\" is \"%.40s\"; a %s model has \"%s\"", r->where, key, act, r->k->type, want);
    return s;
}

static dil_status read_heads(const reader *r, dil_arch *a)
{
    uint32_t kv = r->k->kv_heads ? r->k->kv_heads : a->n_head;
    bool own_head_dim = r->k->head_dim || json_is_integer(json_object_get(r->doc, "head_dim"));
    dil_status s = get_u32_or(r, "num_key_value_heads", DIL_ARCH_HEADS_MAX, kv, &a->n_head_kv);
    if (s == DIL_OK) s = check_heads(r, a, own_head_dim);
    if (s == DIL_OK) s = get_u32_or(r, "head_dim", DIL_ARCH_WIDTH_MAX, r->k->head_dim ? r->k->head_dim : a->n_embd / a->n_head, &a->head_dim);
    if (s == DIL_OK && (a->head_dim < 2 || a->head_dim % 2 != 0))
        s = dil_fail(r->err, DIL_EFORMAT, "%s: heads of %u elements, expected an even number", r->where, a->head_dim);
    return s;
}

static dil_status read_decoder(const reader *r, dil__hf_config *c)
{
    dil_arch *a = &c->arch;
    const dil__family *f = &dil__families[a->family];
    double eps = 0;
    dil_status s = get_u32(r, "intermediate_size", DIL_ARCH_WIDTH_MAX, &a->n_ff);
    if (s == DIL_OK) s = read_heads(r, a);
    if (s == DIL_OK) s = dil__json_num_or(r->doc, "rms_norm_eps", r->where, r->k->eps, &eps, r->err);
    if (s == DIL_OK) s = get_flag(r, "tie_word_embeddings", r->k->tied, &a->tied_head);
    if (s == DIL_OK) s = check_act(r, a, r->k->act_key);
    if (s == DIL_OK) s = read_biases(r, a);
    if (s == DIL_OK) s = read_rope(r, c);
    if (s == DIL_OK) s = read_window(r, a);
    if (s == DIL_OK) s = read_no_rope(r, a);
    if (s == DIL_OK && f->scales_embd) s = read_gemma(r, a);
    if (s != DIL_OK) return s;
    if (!(eps > 0 && eps < 1)) return dil_fail(r->err, DIL_EFORMAT, "%s: \"rms_norm_eps\" is %g", r->where, eps);
    a->norm_eps = (float)eps;
    a->fused_qkv = f->fuses_qkv;
    a->fused_gate_up = f->fuses_gate_up;
    return DIL_OK;
}

/* --- OPT ----------------------------------------------------------------------------------------------------------- */

static dil_status read_opt(const reader *r, dil__hf_config *c)
{
    dil_arch *a = &c->arch;
    const char *act = NULL;
    bool bias = true, removed = false;
    dil_status s = get_u32(r, "ffn_dim", DIL_ARCH_WIDTH_MAX, &a->n_ff);
    a->n_head_kv = a->n_head;
    if (s == DIL_OK) s = check_heads(r, a, false);
    if (s == DIL_OK) s = get_u32_or(r, "word_embed_proj_dim", DIL_ARCH_WIDTH_MAX, a->n_embd, &a->n_embd_word);
    if (s == DIL_OK) s = get_flag(r, "do_layer_norm_before", true, &a->norm_before);
    if (s == DIL_OK) s = get_flag(r, "_remove_final_layer_norm", false, &removed);
    if (s == DIL_OK) s = get_flag(r, "enable_bias", true, &bias);
    if (s == DIL_OK) s = get_flag(r, "layer_norm_elementwise_affine", true, &c->norm_affine);
    if (s == DIL_OK) s = get_flag(r, "tie_word_embeddings", true, &a->tied_head);
    if (s == DIL_OK) s = dil__json_str_or(r->doc, "activation_function", r->where, "relu", &act, r->err);
    if (s != DIL_OK) return s;
    if (strcmp(act, "relu") != 0 && strcmp(act, "gelu") != 0)
        return dil_fail(r->err, DIL_EUNSUPPORTED, "%s: \"activation_function\" is \"%.40s\"; relu and gelu are supported", r->where, act);
    a->head_dim = a->n_embd / a->n_head;
    a->norm_eps = 1e-5f; /* torch.nn.LayerNorm's own; OPT has no setting */
    a->final_norm = a->norm_before && !removed;
    a->position_offset = 2;
    a->act = strcmp(act, "gelu") == 0 ? DIL_ACT_GELU : DIL_ACT_RELU;
    a->qkv_bias = a->out_bias = a->ffn_bias = bias;
    return DIL_OK;
}

/* --- GPT-2 --------------------------------------------------------------------------------------------------------- */

static dil_status read_gpt2(const reader *r, dil__hf_config *c)
{
    static const char *const variants[] = {"scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn", "add_cross_attention"};
    dil_arch *a = &c->arch;
    const char *act = NULL;
    double eps = 0;
    bool other = false, scaled = true;
    a->n_head_kv = a->n_head;
    dil_status s = check_heads(r, a, false);
    if (s == DIL_OK) s = get_u32_or(r, "n_inner", DIL_ARCH_WIDTH_MAX, 4 * a->n_embd, &a->n_ff);
    if (s == DIL_OK) s = dil__json_num_or(r->doc, "layer_norm_epsilon", r->where, 1e-5, &eps, r->err);
    if (s == DIL_OK) s = get_flag(r, "tie_word_embeddings", true, &a->tied_head);
    if (s == DIL_OK) s = get_flag(r, "scale_attn_weights", true, &scaled);
    if (s == DIL_OK) s = dil__json_str_or(r->doc, "activation_function", r->where, "gelu_new", &act, r->err);
    if (s != DIL_OK) return s;
    for (size_t i = 0; s == DIL_OK && i < sizeof variants / sizeof *variants; i++) {
        s = get_flag(r, variants[i], false, &other);
        if (s == DIL_OK && other) s = dil_fail(r->err, DIL_EUNSUPPORTED, "%s: \"%s\" is not supported", r->where, variants[i]);
    }
    if (s != DIL_OK) return s;
    if (!scaled) return dil_fail(r->err, DIL_EUNSUPPORTED, "%s: \"scale_attn_weights\" is false, which is not supported", r->where);
    if (strcmp(act, "gelu_new") != 0 && strcmp(act, "gelu_pytorch_tanh") != 0)
        return dil_fail(r->err, DIL_EUNSUPPORTED, "%s: \"activation_function\" is \"%.40s\"; a GPT-2 has \"gelu_new\"", r->where, act);
    if (!(eps > 0 && eps < 1)) return dil_fail(r->err, DIL_EFORMAT, "%s: \"layer_norm_epsilon\" is %g", r->where, eps);
    a->head_dim = a->n_embd / a->n_head;
    a->norm_eps = (float)eps;
    a->fused_qkv = a->qkv_bias = a->out_bias = a->ffn_bias = true;
    return DIL_OK;
}

#define KEYED .bias_keys = true, .act_key = "hidden_act"
static const kind kinds[] = {
    {"llama", DIL_FAMILY_LLAMA, .ctx = 2048, .theta = 1e4, .eps = 1e-6, KEYED},
    {"mistral", DIL_FAMILY_LLAMA, .ctx = 131072, .kv_heads = 8, .theta = 1e4, .eps = 1e-6, .act_key = "hidden_act"},
    {"opt", DIL_FAMILY_OPT, .ctx = 2048},
    {"qwen2", DIL_FAMILY_QWEN2, .ctx = 32768, .theta = 1e4, .eps = 1e-6, .qkv_bias = true, .act_key = "hidden_act"},
    {"qwen3", DIL_FAMILY_QWEN3, .ctx = 32768, .head_dim = 128, .theta = 1e4, .eps = 1e-6, KEYED},
    {"smollm3", DIL_FAMILY_SMOLLM3, .ctx = 32768, .theta = 2e6, .eps = 1e-6, .tied = true, KEYED},
    {"gpt2", DIL_FAMILY_GPT2, .ctx = 1024},
    {"gemma2", DIL_FAMILY_GEMMA2, .ctx = 8192, .kv_heads = 4, .head_dim = 256, .theta = 1e4, .eps = 1e-6, .tied = true, .act_key = "hidden_activation"},
    {"gemma3_text", DIL_FAMILY_GEMMA3, .heads = 8, .vocab = 262208, .ctx = 131072, .kv_heads = 4, .head_dim = 256, .theta = 1e6, .eps = 1e-6,
     .tied = true, .act_key = "hidden_activation"},
    {"phi3", DIL_FAMILY_PHI3, .ctx = 4096, .theta = 1e4, .eps = 1e-5, .act_key = "hidden_act"},
};

static const kind *find_kind(const char *type)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(kinds[i].type, type) == 0) return &kinds[i];
    }
    return NULL;
}

dil_status dil__hf_config_read(const json_t *doc, const char *where, dil__hf_config *out, dil_err *err)
{
    const char *type = NULL;
    dil_status s = dil__json_str(doc, "model_type", where, &type, err);
    if (s != DIL_OK) return s;
    const json_t *text = json_object_get(doc, "text_config");
    bool part = strcmp(type, "gemma3") == 0 && json_is_object(text); /* the language model of a model that also sees */
    const kind *k = find_kind(part ? "gemma3_text" : type);
    if (!k)
        return dil_fail(err, DIL_EUNSUPPORTED, "%s: model_type \"%.40s\" is not supported; known are mistral, %s", where, type, dil__family_names());
    reader r = {.doc = part ? text : doc, .where = where, .k = k, .err = err};
    dil__hf_config c = {.text_only = part};
    dil__family_init(&dil__families[k->family], &c.arch);
    s = read_common(&r, &c);
    if (s == DIL_OK) s = k->family == DIL_FAMILY_OPT ? read_opt(&r, &c) : k->family == DIL_FAMILY_GPT2 ? read_gpt2(&r, &c) : read_decoder(&r, &c);
    if (s == DIL_OK) *out = c;
    return s;
}
