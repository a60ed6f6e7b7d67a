/* model/family.h - the table of families: what all models of a family share, and under which names its metadata and tensors go.
 * Readers, writers and the import look here; nothing else asks which family a model is. */
#ifndef DIL_MODEL_FAMILY_H
#define DIL_MODEL_FAMILY_H

#include <dilemma/arch.h>

typedef struct dil__family {
    dil_family id;
    const char *name;           /* GGUF general.architecture and the prefix of its keys */
    dil_norm norm;
    dil_positions positions;
    dil_act act;
    bool gated_ffn, qk_norm, post_norms, scales_embd;
    bool fuses_gate_up;         /* a file without ffn_gate has its rows in ffn_up */
    bool fuses_qkv;             /* a checkpoint has one matrix for q, k and v */
    bool may_window, may_softcap, may_stretch; /* sliding windows; soft caps; rope_factors_long and _short */
    uint32_t no_rope_period;
    uint32_t window, window_period; /* where the file does not say; window 0: none */
    float window_rope_base;
    uint32_t wide_blocks;       /* with so many blocks attn_scale is that of n_embd / n_head elements a head (Gemma 27B) */
} dil__family;

#define DIL__FAMILIES 9
extern const dil__family dil__families[DIL__FAMILIES]; /* by id */

/* The family's entries; dimensions are left alone. */
void dil__family_init(const dil__family *f, dil_arch *a);
const dil__family *dil__family_find(const char *name, size_t len); /* NULL */
const char *dil__family_names(void); /* "llama, opt, ... and phi3" */
/* 0 where 1 / sqrt(head_dim) is meant; what GGUF files of the family mean without saying it. */
float dil__family_attn_scale(const dil__family *f, const dil_arch *a);

#endif
