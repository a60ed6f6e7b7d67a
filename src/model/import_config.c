/* config.json of transformers to our architecture: names and defaults as its configuration classes have them. */
#include "model/import.h"

#include "base/json.h"

#include <math.h>
#include <string.h>

typedef struct reader {
    const json_t *doc;
    const char *where;
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

static dil_status read_common(const reader *r, dil__hf_config *c)
{
    dil_arch *a = &c->arch;
    dil_status s = get_u32(r, "num_hidden_layers", DIL_ARCH_BLOCKS_MAX, &a->n_blocks);
    if (s == DIL_OK) s = get_u32(r, "hidden_size", DIL_ARCH_WIDTH_MAX, &a->n_embd);
    if (s == DIL_OK) s = get_u32(r, "num_attention_heads", DIL_ARCH_HEADS_MAX, &a->n_head);
    if (s == DIL_OK) s = get_u32(r, "vocab_size", DIL_ARCH_VOCAB_MAX, &a->n_vocab);
    if (s == DIL_OK) s = get_u32_or(r, "max_position_embeddings", DIL_ARCH_CTX_MAX, 2048, &a->n_ctx_train);
    if (s == DIL_OK) s = get_token(r, "bos_token_id", &c->bos);
    if (s == DIL_OK) s = get_token(r, "eos_token_id", &c->eos);
    if (s == DIL_OK) s = get_token(r, "pad_token_id", &c->pad);
    a->n_embd_word = a->n_embd;
    a->rope_freq_base = 10000;
    a->rope_scale = 1;
    c->norm_affine = true;
    return s;
}

/* --- Llama --------------------------------------------------------------------------------------------------------- */

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

static dil_status read_rope_scaling(const reader *r, const json_t *rope, dil__hf_config *c)
{
    const char *type = NULL;
    dil_status s = dil__json_str_or(rope, "type", r->where, "default", &type, r->err);
    if (s == DIL_OK) s = dil__json_str_or(rope, "rope_type", r->where, type, &type, r->err);
    if (s != DIL_OK) return s;
    if (strcmp(type, "default") == 0) return DIL_OK;
    if (strcmp(type, "llama3") == 0) return read_llama3_rope(r, rope, c);
    if (strcmp(type, "linear") != 0)
        return dil_fail(r->err, DIL_EUNSUPPORTED, "%s: rope_scaling of type \"%.40s\"; none, linear and llama3 are supported", r->where, type);
    double factor = 0;
    s = dil__json_num(rope, "factor", r->where, &factor, r->err);
    if (s == DIL_OK && !(factor > 0 && factor <= 1e6)) s = dil_fail(r->err, DIL_EFORMAT, "%s: rope_scaling: a factor of %g", r->where, factor);
    if (s == DIL_OK) c->arch.rope_scale = (float)(1 / factor);
    return s;
}

/* transformers 4 has rope_theta and rope_scaling, transformers 5 one object rope_parameters with both. */
static dil_status read_rope(const reader *r, dil__hf_config *c)
{
    const json_t *params = json_object_get(r->doc, "rope_parameters"), *scaling = json_object_get(r->doc, "rope_scaling");
    double theta = 0;
    dil_status s = dil__json_num_or(r->doc, "rope_theta", r->where, 10000, &theta, r->err);
    if (s == DIL_OK && json_is_object(params)) s = dil__json_num_or(params, "rope_theta", r->where, theta, &theta, r->err);
    if (s == DIL_OK && !(theta >= 1 && theta <= 1e12)) s = dil_fail(r->err, DIL_EFORMAT, "%s: \"rope_theta\" is %g", r->where, theta);
    if (s != DIL_OK) return s;
    c->arch.rope_freq_base = (float)theta;
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

static dil_status read_llama(const reader *r, dil__hf_config *c)
{
    dil_arch *a = &c->arch;
    const char *act = NULL;
    double eps = 0;
    bool own_head_dim = json_is_integer(json_object_get(r->doc, "head_dim"));
    dil_status s = get_u32(r, "intermediate_size", DIL_ARCH_WIDTH_MAX, &a->n_ff);
    if (s == DIL_OK) s = get_u32_or(r, "num_key_value_heads", DIL_ARCH_HEADS_MAX, a->n_head, &a->n_head_kv);
    if (s == DIL_OK) s = check_heads(r, a, own_head_dim);
    if (s == DIL_OK) s = get_u32_or(r, "head_dim", DIL_ARCH_WIDTH_MAX, a->n_embd / a->n_head, &a->head_dim);
    if (s == DIL_OK) s = dil__json_num_or(r->doc, "rms_norm_eps", r->where, 1e-6, &eps, r->err);
    if (s == DIL_OK) s = get_flag(r, "attention_bias", false, &a->attn_bias);
    if (s == DIL_OK) s = get_flag(r, "mlp_bias", false, &a->ffn_bias);
    if (s == DIL_OK) s = get_flag(r, "tie_word_embeddings", false, &a->tied_head);
    if (s == DIL_OK) s = dil__json_str_or(r->doc, "hidden_act", r->where, "silu", &act, r->err);
    if (s == DIL_OK) s = read_rope(r, c);
    if (s != DIL_OK) return s;
    if (strcmp(act, "silu") != 0) return dil_fail(r->err, DIL_EUNSUPPORTED, "%s: \"hidden_act\" is \"%.40s\"; a Llama has \"silu\"", r->where, act);
    if (!(eps > 0 && eps < 1)) return dil_fail(r->err, DIL_EFORMAT, "%s: \"rms_norm_eps\" is %g", r->where, eps);
    if (a->head_dim < 2 || a->head_dim % 2 != 0)
        return dil_fail(r->err, DIL_EFORMAT, "%s: heads of %u elements, expected an even number", r->where, a->head_dim);
    a->family = DIL_FAMILY_LLAMA;
    a->norm = DIL_NORM_RMS;
    a->norm_eps = (float)eps;
    a->norm_before = a->final_norm = true;
    a->positions = DIL_POS_ROPE_NORM;
    a->rope_dims = a->head_dim;
    a->act = DIL_ACT_SILU;
    a->gated_ffn = true;
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
    a->family = DIL_FAMILY_OPT;
    a->head_dim = a->n_embd / a->n_head;
    a->norm = DIL_NORM_LAYER;
    a->norm_eps = 1e-5f; /* torch.nn.LayerNorm's own; OPT has no setting */
    a->final_norm = a->norm_before && !removed;
    a->positions = DIL_POS_LEARNED;
    a->position_offset = 2;
    a->act = strcmp(act, "gelu") == 0 ? DIL_ACT_GELU : DIL_ACT_RELU;
    a->attn_bias = a->ffn_bias = bias;
    return DIL_OK;
}

static const struct {
    const char *name;
    dil_status (*read)(const reader *r, dil__hf_config *c);
} families[] = {{"llama", read_llama}, {"opt", read_opt}};

dil_status dil__hf_config_read(const json_t *doc, const char *where, dil__hf_config *out, dil_err *err)
{
    reader r = {.doc = doc, .where = where, .err = err};
    const char *type = NULL;
    dil_status s = dil__json_str(doc, "model_type", where, &type, err);
    if (s != DIL_OK) return s;
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        if (strcmp(families[i].name, type) != 0) continue;
        dil__hf_config c = {0};
        snprintf(c.arch.name, sizeof c.arch.name, "%s", families[i].name);
        s = read_common(&r, &c);
        if (s == DIL_OK) s = families[i].read(&r, &c);
        if (s == DIL_OK) *out = c;
        return s;
    }
    return dil_fail(err, DIL_EUNSUPPORTED, "%s: model_type \"%.40s\" is not supported; llama and opt are", where, type);
}
