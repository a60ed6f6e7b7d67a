/* dilemma/arch.h - what kind of decoder a model is: one table of features that covers every supported family.
 *
 * Layers are numbered as the planner does: 0 the embedding, 1..n_blocks the blocks, n_blocks+1 the final norm and head.
 * Tensor names are GGUF's: token_embd, blk.I.attn_q, ..., output_norm, output (each + ".weight"/".bias"). */
#ifndef DILEMMA_ARCH_H
#define DILEMMA_ARCH_H

#include <dilemma/gguf.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Mistral models are llama's: GGUF has no other name for them. */
typedef enum dil_family {
    DIL_FAMILY_LLAMA, DIL_FAMILY_OPT, DIL_FAMILY_QWEN2, DIL_FAMILY_QWEN3, DIL_FAMILY_SMOLLM3, DIL_FAMILY_GPT2, DIL_FAMILY_GEMMA2,
    DIL_FAMILY_GEMMA3, DIL_FAMILY_PHI3
} dil_family;
#define DIL_FAMILY_LAST DIL_FAMILY_PHI3
typedef enum dil_norm { DIL_NORM_RMS, DIL_NORM_LAYER } dil_norm;
typedef enum dil_act { DIL_ACT_SILU, DIL_ACT_RELU, DIL_ACT_GELU, DIL_ACT_GELU_TANH } dil_act; /* GELU by erf, or by its tanh formula */
typedef enum dil_positions { DIL_POS_ROPE_NORM, DIL_POS_ROPE_NEOX, DIL_POS_LEARNED } dil_positions;

/* Where a number is said to be off at 0, 0 is what most families have. */
typedef struct dil_arch {
    dil_family family;
    char name[32];              /* GGUF general.architecture */
    uint32_t n_blocks;          /* decoder blocks */
    uint32_t n_embd;            /* width of the hidden state between blocks */
    uint32_t n_embd_word;       /* width of the embedding and head (OPT-350M: 512), else n_embd */
    uint32_t n_ff;
    uint32_t n_head, n_head_kv;
    uint32_t head_dim;          /* of keys and values */
    uint32_t n_vocab;
    uint32_t n_ctx_train;
    dil_norm norm;
    float norm_eps;
    bool norm_before;           /* pre-norm; false: OPT-350M's post-norm */
    bool final_norm;            /* OPT-350M has none */
    bool post_norms;            /* besides, a norm of what attention and FFN give, before each is added (Gemma) */
    bool qk_norm;               /* an RMS norm of every head's query and key before rope (Qwen3, Gemma 3) */
    dil_positions positions;
    uint32_t position_offset;   /* OPT: 2 */
    float rope_freq_base, rope_scale; /* rope_scale: multiplies positions, 1 / (linear scaling factor); 1: none */
    uint32_t rope_dims;
    bool rope_freqs;            /* tensor rope_freqs.weight [rope_dims / 2] divides the frequencies (Llama 3 scaling) */
    bool rope_long;             /* tensors rope_factors_long and _short do: long where the context exceeds rope_ctx (Phi-3) */
    uint32_t rope_ctx;          /* of rope_long: the context before it was stretched */
    float rope_gain;            /* of rope_long: multiplies sine and cosine; 0: off */
    uint32_t no_rope_period;    /* every so many blocks, the last of them has no positions at all (SmolLM3: 4); 0: off */
    uint32_t window;            /* a token attends to so many positions, its own included, in the windowed blocks; 0: off */
    uint32_t window_period;     /* every so many blocks, the last of them is not windowed (Gemma 2: 2, 3: 6); 0: all are */
    float window_rope_base, window_rope_scale; /* of the windowed blocks; base 0: as the others */
    float attn_scale;           /* multiplies q k; 0: 1 / sqrt(head_dim) */
    float attn_softcap, final_softcap; /* c: x becomes c tanh(x / c), of q k and of the logits (Gemma 2: 50, 30); 0: off */
    float embd_scale;           /* multiplies the looked-up rows (Gemma: sqrt(n_embd)); 0: off */
    dil_act act;
    bool gated_ffn;             /* act(gate) * up, as Llama */
    bool fused_qkv;             /* one tensor attn_qkv, rows of q, then k, then v */
    bool fused_gate_up;         /* ffn_up holds the rows of gate, then up (Phi-3) */
    bool qkv_bias, out_bias;    /* biases of q, k and v (Qwen2), of attn_output */
    bool ffn_bias;              /* on all linear layers of the FFN */
    bool tied_head;             /* head uses token_embd */
} dil_arch;

#define DIL_ARCH_BLOCKS_MAX 1022 /* with embedding and head: 1,024 layers */
#define DIL_ARCH_WIDTH_MAX (1u << 20) /* n_embd, n_embd_word, n_ff */
#define DIL_ARCH_HEADS_MAX 4096
#define DIL_ARCH_VOCAB_MAX (1u << 22)
#define DIL_ARCH_CTX_MAX (1u << 28)

/* Reads and checks the architecture from metadata and the tensor table: every dimension within its named maximum, every
 * required tensor present with the shape that the architecture implies, norms and biases in F32, and no tensor that the
 * architecture does not know (the model would be another one). A file that was opened header_only will do.
 * Errors: DIL_EUNSUPPORTED names the architecture and the known ones, or the feature that we lack; DIL_EFORMAT names key or
 * tensor, found and expected; DIL_ELIMIT the dimension and its maximum. */
dil_status dil_arch_read(const dil_gguf *g, dil_arch *out, dil_err *err);

/* Puts the metadata that dil_arch_read reads back as *a; what it takes from the tensor table (vocabulary, tied head, rope_freqs
 * and rope_long, fused tensors, biases of others than OPT) follows from the tensors that the caller announces.
 * Errors: DIL_EUNSUPPORTED for what the family's metadata cannot say. */
dil_status dil_arch_put(dil_gguf_writer *w, const dil_arch *a, dil_err *err);

uint32_t dil_arch_n_layers(const dil_arch *a); /* n_blocks + 2 */
bool dil_arch_is_windowed(const dil_arch *a, uint32_t block); /* 0-based block */
bool dil_arch_has_rope(const dil_arch *a, uint32_t block);

/* The tensors of one layer (planner's numbering). Every tensor of the file is listed; one that several layers need is listed
 * in each, with `shared` set in all but the first: token_embd in a tied head, rope_freqs (and rope_factors_*) in every block after the first.
 * Linear weights are the ones that quantization may change; norms, biases and the position table (which may be F16 or BF16)
 * stay as they are. Layer 0 holds token_embd, position_embd and project_in; the last output_norm, project_out and output. */
typedef struct dil_layer_tensor {
    char name[DIL_TENSOR_NAME_MAX]; /* in the file */
    char role[24];                  /* "attn_q", "ffn_down", "token_embd", "output"; "attn_norm", "attn_q.bias", ... */
    uint64_t ne[2];
    bool linear;                    /* a weight of a linear layer, or token_embd */
    bool shared;                    /* an earlier layer lists it too */
} dil_layer_tensor;

#define DIL_LAYER_TENSORS_MAX 32
/* Returns how many were written to out [DIL_LAYER_TENSORS_MAX]. */
size_t dil_arch_layer_tensors(const dil_arch *a, uint32_t layer, dil_layer_tensor *out);

uint64_t dil_arch_n_params(const dil_arch *a);                       /* tied once */
uint64_t dil_arch_kv_bytes(const dil_arch *a, uint32_t n_ctx, dil_type kv_type); /* one block, one sequence */
/* Bytes of all tensors in the file (tied once, metadata excluded) over four bytes a parameter: DESIGN's ratio_to_fp32. */
double dil_gguf_ratio_to_fp32(const dil_gguf *g, uint64_t *bytes, uint64_t *n_params);

#ifdef __cplusplus
}
#endif
#endif
