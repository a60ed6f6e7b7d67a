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

typedef enum dil_family { DIL_FAMILY_LLAMA, DIL_FAMILY_OPT } dil_family; /* grows: Qwen2/3, GPT-2, Gemma, Phi-3 */
typedef enum dil_norm { DIL_NORM_RMS, DIL_NORM_LAYER } dil_norm;
typedef enum dil_act { DIL_ACT_SILU, DIL_ACT_RELU, DIL_ACT_GELU } dil_act;
typedef enum dil_positions { DIL_POS_ROPE_NORM, DIL_POS_ROPE_NEOX, DIL_POS_LEARNED } dil_positions;

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
    dil_positions positions;
    uint32_t position_offset;   /* OPT: 2 */
    float rope_freq_base, rope_scale; /* rope_scale: multiplies positions, 1 / (linear scaling factor); 1: none */
    uint32_t rope_dims;
    bool rope_freqs;            /* tensor rope_freqs.weight [rope_dims / 2] divides the frequencies (Llama 3 scaling) */
    dil_act act;
    bool gated_ffn;             /* gate * act, as Llama */
    bool attn_bias, ffn_bias;   /* biases on all linear layers of the attention (q, k, v, output), of the FFN */
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

/* Puts the metadata that dil_arch_read reads back as *a; what it takes from the tensor table (vocabulary, tied head,
 * rope_freqs, Llama's biases) follows from the tensors that the caller announces. */
dil_status dil_arch_put(dil_gguf_writer *w, const dil_arch *a, dil_err *err);

uint32_t dil_arch_n_layers(const dil_arch *a); /* n_blocks + 2 */

/* The tensors of one layer (planner's numbering). Every tensor of the file is listed; one that several layers need is listed
 * in each, with `shared` set in all but the first: token_embd in a tied head, rope_freqs in every block after the first.
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
