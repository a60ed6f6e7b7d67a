/* dilemma/engine.h - running a contiguous range of a model's layers on one device. The only module that sees ggml.
 *
 *   dil_stage *s;  dil_stage_open(&arch, &weights, &opts, NULL, &s, err);
 *   dil_stage_eval(s, &batch, hidden_in, out, err);   ...   dil_stage_close(s);
 *
 * A stage that owns layer 0 takes token ids, any other takes hidden states [n_tokens][n_embd]; a stage that owns the last
 * layer gives logits, any other hidden states. A whole model is a stage with every layer. Splitting a model into stages
 * changes no bit of the result as long as the batch shapes are equal. */
#ifndef DILEMMA_ENGINE_H
#define DILEMMA_ENGINE_H

#include <dilemma/arch.h>

#ifdef __cplusplus
extern "C" {
#endif

/* --- devices ------------------------------------------------------------------------------------------------------- */

typedef struct dil_device_info {
    char name[64];         /* "CPU", "CUDA0", "Vulkan0" */
    char description[128]; /* "AMD EPYC ..." */
    uint64_t memory_total, memory_free;
    bool is_gpu;
} dil_device_info;
size_t dil_engine_devices(dil_device_info *out, size_t cap); /* writes up to cap, returns how many there are; CPU first */

/* --- stages -------------------------------------------------------------------------------------------------------- */

typedef struct dil_stage_opts {
    const char *device;      /* NULL: "CPU"; "rpc://HOST:PORT": a stock ggml RPC worker */
    int n_threads;           /* 0: all this process may use */
    uint32_t first_layer, last_layer; /* inclusive, planner's numbering; 0 and n_blocks+1: the whole model */
    uint32_t n_ctx;          /* KV cells per sequence; 0: 2048 or the model's training context if that is less */
    uint32_t n_seq;          /* sequences at once; 0: 1 */
    uint32_t max_batch;      /* tokens a call; 0: 512 */
    dil_type kv_type;        /* DIL_TYPE_F16 or DIL_TYPE_F32 */
    bool no_repack;          /* keep the weights as they are in the file (slower for many types, no copy) */
    bool no_flash;           /* plain attention: the reference arithmetic with kv_type F32, slower */
    bool fixed_shapes;       /* --deterministic: one graph shape for decoding, one for prefill */
} dil_stage_opts;

typedef struct dil_batch {
    uint32_t n_tokens;
    const int32_t *token;    /* [n_tokens]; only read by a stage with layer 0 */
    const int32_t *pos;      /* [n_tokens] position in its sequence, from 0 */
    const int32_t *seq;      /* [n_tokens] sequence slot in [0,n_seq); NULL: all 0 */
    const uint8_t *want;     /* [n_tokens] 1 where the last stage gives logits; NULL: only the last token */
} dil_batch;

typedef struct dil_stage dil_stage;

/* Puts the needed tensors onto the device. On the CPU tensors without a repacked layout are used where they are: the source
 * must outlive the stage. Errors: DIL_ELIMIT names the bytes needed and at hand, before anything is allocated; DIL_EFORMAT and
 * DIL_EUNSUPPORTED the tensor; DIL_ENOTFOUND the device or tensor; DIL_EUSAGE the option. Blocks; calls progress. */
dil_status dil_stage_open(const dil_arch *arch, const dil_weights *weights, const dil_stage_opts *opts,
                          const dil_progress *progress, dil_stage **out, dil_err *err);
void dil_stage_close(dil_stage *s);

/* Runs one batch and appends it to the KV cache.
 * hidden_in  [n_tokens][n_embd] where the stage has no layer 0, else NULL
 * out        hidden states [n_tokens][n_embd], or for the last stage logits [number wanted][n_vocab] in the batch's order
 *            (NULL when none is wanted). Only wanted rows leave the last block: a stage that ends there leaves the others zero,
 *            and a stage of the head alone reads only the wanted rows.
 * A token's position must be the number of tokens its sequence holds, counting on within the batch; an earlier one is fine
 * too: from there on the sequence is forgotten and written again, so that a call may be repeated.
 * Errors: DIL_ELIMIT (batch or context exceeded: numbers in the text), DIL_EDATA (token, position or sequence out of range;
 * NaN or infinity in weights or hidden states: names the tensor when it is one). After an error the cache is as before, except
 * that positions the batch overwrote are forgotten.
 * Threads: one call at a time per stage. No allocation of ours after the first call of a shape. */
dil_status dil_stage_eval(dil_stage *s, const dil_batch *b, const float *hidden_in, float *out, dil_err *err);

/* Forgets positions >= from_pos of a sequence (0: all of it). */
void dil_stage_seq_trim(dil_stage *s, uint32_t seq, uint32_t from_pos);

typedef struct dil_stage_stats {
    uint64_t weight_bytes, kv_bytes, buffer_bytes; /* as allocated; buffers: compute buffer and kernels' scratch */
    uint64_t mapped_bytes;   /* weights used where the source holds them: not allocated, but they want to stay in memory */
    int64_t last_eval_ns;                          /* compute of the last call */
} dil_stage_stats;
dil_stage_stats dil_stage_get_stats(const dil_stage *s);
const dil_stage_opts *dil_stage_get_opts(const dil_stage *s); /* with the defaults filled in */

/* What a stage of these layers and types would allocate, without weights: the planner's kv and buffer bytes. */
dil_status dil_stage_measure(const dil_arch *arch, const dil_stage_opts *opts, uint64_t *kv_bytes_per_block,
                             uint64_t *buffer_bytes, dil_err *err);

/* The same for each kind of layer: a planner adds weights and kv_bytes of a node's layers and the largest of their buffers, and never
 * counts less than the node's stage allocates. opts: n_threads, n_ctx, n_seq, max_batch, kv_type; the layers are not read. */
typedef struct dil_layer_memory {
    uint64_t kv_bytes;       /* of a block, all sequences */
    uint64_t embedding_buffer, block_buffer, head_buffer;
} dil_layer_memory;
dil_status dil_engine_layer_memory(const dil_arch *arch, const dil_stage_opts *opts, dil_layer_memory *out, dil_err *err);

/* Calibration tap: called during eval with the input rows of every linear layer (x [n_rows][n_cols], borrowed for the call),
 * named by the weight's tensor name, attn_q/k/v and ffn_gate/up each by their own name. NULL switches it off. */
typedef void dil_stage_tap_fn(void *ctx, const char *tensor, const float *x, uint64_t n_rows, uint64_t n_cols);
void dil_stage_set_tap(dil_stage *s, dil_stage_tap_fn *fn, void *ctx);

/* --- types --------------------------------------------------------------------------------------------------------- */

/* Rows to and from a type. importance [n_cols] or NULL: weights of the squared error (an imatrix row). */
dil_status dil_engine_quantize(dil_type type, const float *src, uint64_t n_rows, uint64_t n_cols, const float *importance,
                               void *dst, int n_threads, dil_err *err);
dil_status dil_engine_dequantize(dil_type type, const void *src, uint64_t n_elems, float *dst, dil_err *err);

/* --- measuring ------------------------------------------------------------------------------------------------------ */

/* Seconds of one layer at the given types with random weights of its real shapes, in a working set that exceeds the last-level
 * cache as in a real model: decode is seconds a token at n_past cached tokens, prefill seconds a token in a batch of n_batch.
 * types [tensors of the layer as dil_arch_layer_tensors lists them]; ignored for tensors that are not linear. */
typedef struct dil_layer_time {
    double decode_sec, prefill_sec;
    double decode_spread, prefill_spread; /* (third quartile - first quartile) / median over the repeats */
} dil_layer_time;
dil_status dil_engine_time_layer(const dil_arch *arch, uint32_t layer, const dil_type *types, const char *device,
                                 int n_threads, uint32_t n_past, uint32_t n_batch, double limit_sec, dil_layer_time *out,
                                 dil_err *err);

/* --- sampling ------------------------------------------------------------------------------------------------------- */

typedef struct dil_logit_bias { int32_t token; float bias; } dil_logit_bias;
#define DIL_LOGIT_BIAS_MAX 1024
typedef struct dil_grammar dil_grammar; /* what a text may be, and the tokens that make it: dilemma/grammar.h */

/* In this order: penalties, bias, grammar (what cannot go on a valid text is out), temperature, top-k, top-p, min-p. */
typedef struct dil_sampler_opts {
    float temperature;      /* <= 0: greedy (lowest id among equals) */
    uint32_t top_k;         /* 0: off */
    float top_p, min_p;     /* 1 and 0: off */
    float repeat_penalty, presence_penalty, frequency_penalty; /* 1, 0, 0: off */
    uint64_t seed;
    const dil_logit_bias *bias; /* [n_bias] added to the logits; tokens outside the vocabulary are passed over. Copied by dil_sampler_new */
    uint32_t n_bias;            /* <= DIL_LOGIT_BIAS_MAX */
    const dil_grammar *grammar; /* NULL: none; borrowed for the sampler's life */
} dil_sampler_opts;
dil_sampler_opts dil_sampler_defaults(void);
typedef struct dil_sampler dil_sampler;
dil_sampler *dil_sampler_new(const dil_sampler_opts *o, uint32_t n_vocab); /* NULL: out of memory */
void dil_sampler_free(dil_sampler *s);
/* logits [n_vocab], not changed. logprob (may be NULL) is the natural log of the token's probability before truncation. */
int32_t dil_sampler_pick(dil_sampler *s, const float *logits, float *logprob);
void dil_sampler_accept(dil_sampler *s, int32_t token); /* for the penalties and the grammar: every token of the answer, in order */
void dil_sampler_skip(dil_sampler *s, uint32_t n);      /* as if n tokens had been picked: the next draw is the one after */

#ifdef __cplusplus
}
#endif
#endif
