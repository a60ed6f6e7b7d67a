/* The metadata of an architecture, written: the other half of arch.c's readers. */
#include <dilemma/arch.h>

typedef struct writer {
    dil_gguf_writer *w;
    const char *prefix;
    dil_err *err;
    dil_status status; /* of the first put that failed; later ones do nothing */
} writer;

static const char *full_key(const writer *w, const char *key, char out[128])
{
    snprintf(out, 128, "%s.%s", w->prefix, key);
    return out;
}

static void put_u32(writer *w, const char *key, uint32_t v)
{
    char k[128];
    if (w->status == DIL_OK) w->status = dil_gguf_put_u32(w->w, full_key(w, key, k), v, w->err);
}

static void put_f32(writer *w, const char *key, float v)
{
    char k[128];
    if (w->status == DIL_OK) w->status = dil_gguf_put_f32(w->w, full_key(w, key, k), v, w->err);
}

static void put_flag(writer *w, const char *key, bool v)
{
    char k[128];
    if (w->status == DIL_OK) w->status = dil_gguf_put_bool(w->w, full_key(w, key, k), v, w->err);
}

static void put_str(writer *w, const char *key, const char *v)
{
    char k[128];
    if (w->status == DIL_OK) w->status = dil_gguf_put_str(w->w, full_key(w, key, k), v, w->err);
}

static void put_common(writer *w, const dil_arch *a)
{
    put_u32(w, "block_count", a->n_blocks);
    put_u32(w, "context_length", a->n_ctx_train);
    put_u32(w, "embedding_length", a->n_embd);
    put_u32(w, "feed_forward_length", a->n_ff);
    put_u32(w, "attention.head_count", a->n_head);
    put_u32(w, "attention.head_count_kv", a->n_head_kv);
    put_u32(w, "vocab_size", a->n_vocab);
}

static void put_llama(writer *w, const dil_arch *a)
{
    if (a->head_dim * a->n_head != a->n_embd) {
        put_u32(w, "attention.key_length", a->head_dim);
        put_u32(w, "attention.value_length", a->head_dim);
    }
    put_f32(w, "attention.layer_norm_rms_epsilon", a->norm_eps);
    put_u32(w, "rope.dimension_count", a->rope_dims);
    put_f32(w, "rope.freq_base", a->rope_freq_base);
    if (a->rope_scale != 1) {
        put_str(w, "rope.scaling.type", "linear");
        put_f32(w, "rope.scaling.factor", 1 / a->rope_scale);
    }
}

static void put_opt(writer *w, const dil_arch *a)
{
    put_u32(w, "word_embedding_length", a->n_embd_word);
    put_u32(w, "position_offset", a->position_offset);
    put_f32(w, "attention.layer_norm_epsilon", a->norm_eps);
    put_flag(w, "do_layer_norm_before", a->norm_before);
    put_flag(w, "final_norm", a->final_norm);
    put_flag(w, "attention.bias", a->attn_bias);
    put_flag(w, "feed_forward.bias", a->ffn_bias);
    put_str(w, "activation_function", a->act == DIL_ACT_GELU ? "gelu" : "relu");
}

dil_status dil_arch_put(dil_gguf_writer *gw, const dil_arch *a, dil_err *err)
{
    writer w = {.w = gw, .prefix = a->family == DIL_FAMILY_OPT ? "opt" : "llama", .err = err};
    dil_status s = dil_gguf_put_str(gw, "general.architecture", w.prefix, err);
    if (s != DIL_OK) return s;
    put_common(&w, a);
    if (a->family == DIL_FAMILY_OPT) put_opt(&w, a);
    else put_llama(&w, a);
    return w.status;
}
