/* The families. A new one is a line here, its names in import.c where its checkpoints have others, and its configuration's keys in
 * import_config.c where they differ. */
#include "model/family.h"

#include <math.h>
#include <string.h>

#define GEMMA .norm = DIL_NORM_RMS, .positions = DIL_POS_ROPE_NEOX, .act = DIL_ACT_GELU_TANH, .gated_ffn = true, .post_norms = true, .scales_embd = true
#define LLAMA .norm = DIL_NORM_RMS, .act = DIL_ACT_SILU, .gated_ffn = true

const dil__family dil__families[DIL__FAMILIES] = {
    {DIL_FAMILY_LLAMA, "llama", LLAMA, .positions = DIL_POS_ROPE_NORM, .may_window = true},
    {DIL_FAMILY_OPT, "opt", .norm = DIL_NORM_LAYER, .positions = DIL_POS_LEARNED, .act = DIL_ACT_RELU},
    {DIL_FAMILY_QWEN2, "qwen2", LLAMA, .positions = DIL_POS_ROPE_NEOX},
    {DIL_FAMILY_QWEN3, "qwen3", LLAMA, .positions = DIL_POS_ROPE_NEOX, .qk_norm = true},
    {DIL_FAMILY_SMOLLM3, "smollm3", LLAMA, .positions = DIL_POS_ROPE_NORM, .no_rope_period = 4},
    {DIL_FAMILY_GPT2, "gpt2", .norm = DIL_NORM_LAYER, .positions = DIL_POS_LEARNED, .act = DIL_ACT_GELU_TANH, .fuses_qkv = true},
    {DIL_FAMILY_GEMMA2, "gemma2", GEMMA, .may_window = true, .may_softcap = true, .window = 4096, .window_period = 2, .wide_blocks = 46},
    {DIL_FAMILY_GEMMA3, "gemma3", GEMMA, .qk_norm = true, .may_window = true, .may_softcap = true, .window_period = 6, .window_rope_base = 10000, .wide_blocks = 62},
    {DIL_FAMILY_PHI3, "phi3", LLAMA, .positions = DIL_POS_ROPE_NEOX, .fuses_qkv = true, .fuses_gate_up = true, .may_window = true, .may_stretch = true},
};

void dil__family_init(const dil__family *f, dil_arch *a)
{
    a->family = f->id;
    snprintf(a->name, sizeof a->name, "%s", f->name);
    a->norm = f->norm;
    a->positions = f->positions;
    a->act = f->act;
    a->gated_ffn = f->gated_ffn;
    a->qk_norm = f->qk_norm;
    a->post_norms = f->post_norms;
    a->no_rope_period = f->no_rope_period;
    a->norm_before = a->final_norm = true;
    a->rope_freq_base = 10000;
    a->rope_scale = 1;
}

const dil__family *dil__family_find(const char *name, size_t len)
{
    for (size_t i = 0; i < DIL__FAMILIES; i++) {
        if (strlen(dil__families[i].name) == len && memcmp(dil__families[i].name, name, len) == 0) return &dil__families[i];
    }
    return NULL;
}

const char *dil__family_names(void)
{
    return "llama (Mistral too), opt, qwen2, qwen3, smollm3, gpt2, gemma2, gemma3 and phi3";
}

float dil__family_attn_scale(const dil__family *f, const dil_arch *a)
{
    return f->wide_blocks && a->n_blocks == f->wide_blocks ? 1 / sqrtf((float)(a->n_embd / a->n_head)) : 0;
}
