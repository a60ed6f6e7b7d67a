/* The metadata of an architecture, written: the other half of arch.c's readers. */
#include "model/family.h"

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

static void put_rope(writer *w, const dil_arch *a)
{
    put_u32(w, "rope.dimension_count", a->rope_dims);
    put_f32(w, "rope.freq_base", a->rope_freq_base);
    if (a->rope_scale != 1 && a->rope_scale != 0) {
        put_str(w, "rope.scaling.type", "linear");
        put_f32(w, "rope.scaling.factor", 1 / a->rope_scale);
    }
    if (!a->rope_long) return;
    put_u32(w, "rope.scaling.original_context_length", a->rope_ctx);
    if (a->rope_gain > 0) put_f32(w, "rope.scaling.attn_factor", a->rope_gain);
}

/* Only what differs from what a reader of the family takes for granted; a window of 0 says that there is none. */
static void put_window(writer *w, const dil__family *f, const dil_arch *a)
{
    if (a->window == 0 && f->window == 0 && !f->may_stretch) return;
    put_u32(w, "attention.sliding_window", a->window);
    if (a->window == 0) return;
    if (a->window_period != f->window_period) put_u32(w, "attention.sliding_window_pattern", a->window_period);
    if (a->window_rope_base > 0) put_f32(w, "rope.freq_base_swa", a->window_rope_base);
}

static void put_opt(writer *w, const dil_arch *a)
{
    put_u32(w, "word_embedding_length", a->n_embd_word);
    put_u32(w, "position_offset", a->position_offset);
    put_flag(w, "do_layer_norm_before", a->norm_before);
    put_flag(w, "final_norm", a->final_norm);
    put_flag(w, "attention.bias", a->qkv_bias);
    put_flag(w, "feed_forward.bias", a->ffn_bias);
    put_str(w, "activation_function", a->act == DIL_ACT_GELU ? "gelu" : "relu");
}

static bool differs(float x, float y)
{
    return x < y || x > y;
}

static void put_family(writer *w, const dil__family *f, const dil_arch *a)
{
    put_common(w, a);
    put_f32(w, a->norm == DIL_NORM_RMS ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon", a->norm_eps);
    if ((uint64_t)a->head_dim * a->n_head != a->n_embd) {
        put_u32(w, "attention.key_length", a->head_dim);
        put_u32(w, "attention.value_length", a->head_dim);
    }
    if (f->positions != DIL_POS_LEARNED) put_rope(w, a);
    if (f->may_window) put_window(w, f, a);
    if (a->attn_softcap > 0) put_f32(w, "attn_logit_softcapping", a->attn_softcap);
    if (a->final_softcap > 0) put_f32(w, "final_logit_softcapping", a->final_softcap);
    if (differs(a->attn_scale, dil__family_attn_scale(f, a))) put_f32(w, "attention.scale", a->attn_scale);
    if (f->id == DIL_FAMILY_OPT) put_opt(w, a);
}

/* What of *a the family's files have no key for. */
static const char *unsaid(const dil__family *f, const dil_arch *a)
{
    if (a->no_rope_period != f->no_rope_period) return "blocks without positions";
    if (a->window > 0 && !f->may_window) return "a sliding window";
    if ((a->attn_softcap > 0 || a->final_softcap > 0) && !f->may_softcap) return "soft caps";
    if (a->rope_long && !f->may_stretch) return "two sets of rope factors";
    if (differs(a->attn_scale, dil__family_attn_scale(f, a)) && !f->scales_embd) return "an attention scale";
    if (a->act != f->act && f->id != DIL_FAMILY_OPT) return "another activation";
    return NULL;
}

dil_status dil_arch_put(dil_gguf_writer *gw, const dil_arch *a, dil_err *err)
{
    const dil__family *f = &dil__families[a->family];
    writer w = {.w = gw, .prefix = f->name, .err = err};
    if (unsaid(f, a)) return dil_fail(err, DIL_EUNSUPPORTED, "%s models with %s", f->name, unsaid(f, a));
    dil_status s = dil_gguf_put_str(gw, "general.architecture", w.prefix, err);
    if (s != DIL_OK) return s;
    put_family(&w, f, a);
    return w.status;
}
