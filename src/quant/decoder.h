/* quant/decoder.h - a decoder in plain floats that differentiates: the forward pass keeps what the backward pass needs.
 *
 *   dil__decoder *d;  dil__decoder_open(&arch, 512, threads, &d, err);  dil__decoder_load(d, &weights, err);
 *   dil__decoder_forward(d, ids, n, out);        out [n][n_embd_word], what the head multiplies
 *   dil__decoder_backward(d, ids, n, dout, ...); gradients of every tensor, a layer at a time from the last to the first
 *
 * Every matrix product is BLAS's; the same table of features as the engine's graph (dilemma/arch.h), checked against the engine and against
 * finite differences in decoder_test.c. ggml's own backward graph was rejected: its outer products run at about a tenth of
 * the speed of BLAS here, it has no backward for LayerNorm and GELU, and it keeps every intermediate. */
#ifndef DIL_QUANT_DECODER_H
#define DIL_QUANT_DECODER_H

#include <dilemma/arch.h>

typedef struct dil__decoder dil__decoder;

/* Which feature of the architecture this decoder does not compute; NULL: none. */
const char *dil__decoder_lacks(const dil_arch *a);

/* arch is borrowed. n_ctx: the most tokens of one sequence. backward: whether activations are kept for it.
 * Memory: four bytes a parameter, and per token, with backward per token and block, about 4 * (8 n_embd + 4 n_ff + n_head * n_ctx) bytes.
 * Errors: DIL_EUNSUPPORTED names a feature that this decoder lacks; DIL_EMEMORY. */
dil_status dil__decoder_open(const dil_arch *arch, uint32_t n_ctx, int n_threads, bool backward, dil__decoder **out, dil_err *err);
void dil__decoder_free(dil__decoder *d);

/* The tensors of a layer are numbered as dil_arch_layer_tensors lists them (shared ones included). */
dil_status dil__decoder_load(dil__decoder *d, const dil_weights *w, dil_err *err); /* all of them, from any types */
float *dil__decoder_tensor(dil__decoder *d, uint32_t layer, size_t index); /* its values, to be changed between passes */
/* Other values for a tensor, borrowed until they are taken back; returns those it had. A tied head's table is the head's own pointer. */
float *dil__decoder_swap(dil__decoder *d, uint32_t layer, size_t index, float *values);
const float *dil__decoder_table(const dil__decoder *d);  /* the head's [n_vocab][n_embd_word] */

/* Later sequences fork: tokens [0, root) are common; a later token i sees them and its own branch [from[i], i], and its position is
 * root + i - from[i]. So what several continuations share is computed once, each as if it stood alone behind the root. from [n] is borrowed until the
 * next call, root <= from[i] <= i where i >= root; NULL: no fork. */
void dil__decoder_fork(dil__decoder *d, uint32_t root, const uint32_t *from);

/* One sequence of n tokens from position 0. out [n][n_embd_word]. */
void dil__decoder_forward(dil__decoder *d, const int32_t *ids, uint32_t n, float *out);
/* The hidden state behind planner layer `layer` (0..n_blocks) of the last forward pass, [n][n_embd]. */
const float *dil__decoder_hidden(const dil__decoder *d, uint32_t layer);

/* A block in parts, for whoever changes its weights in between. stream: the residual stream, [n][n_embd].
 *   ATTN_IN   stream -> out [n][n_embd]: the input of attn_q, k, v          FFN_IN   stream -> out: the input of ffn_gate, up
 *   ATTN      x -> out [n][n_head * head_dim]: the input of attn_output     FFN      x -> out [n][n_ff]: the input of ffn_down
 *   ATTN_OUT  x, stream -> out [n][n_embd]: the stream behind attention     FFN_OUT  x, stream -> out: the stream behind the block */
typedef enum dil__part { DIL__ATTN_IN, DIL__ATTN, DIL__ATTN_OUT, DIL__FFN_IN, DIL__FFN, DIL__FFN_OUT } dil__part;
void dil__decoder_part(dil__decoder *d, uint32_t layer, dil__part part, const float *x, const float *stream, uint32_t n, float *out);
/* A whole planner layer: ids for layer 0, else in [n][n_embd]; out [n][n_embd], of the head [n][n_vocab] logits. */
void dil__decoder_layer(dil__decoder *d, uint32_t layer, const int32_t *ids, const float *in, uint32_t n, float *out);
void dil__decoder_embed(dil__decoder *d, const int32_t *ids, uint32_t n, float *stream);
void dil__decoder_finish(dil__decoder *d, const float *stream, uint32_t n, float *out); /* what the head multiplies */

/* What is added to the gradient of the hidden state behind a layer; may do nothing. dh [n][n_embd]. */
typedef void dil__decoder_hidden_fn(void *ctx, uint32_t layer, uint32_t n, const float *h, float *dh);
/* The gradient of one tensor of a layer, complete. The head's table is not among them: see dtable. */
typedef void dil__decoder_grad_fn(void *ctx, uint32_t layer, size_t index, const dil_layer_tensor *t, const float *grad);
typedef struct dil__decoder_sink {
    dil__decoder_hidden_fn *hidden; /* NULL: none */
    dil__decoder_grad_fn *grad;
    void *ctx;
} dil__decoder_sink;
/* After forward on the same ids. dout [n][n_embd_word] is overwritten. dtable [n_vocab][n_embd_word]: what the head has given its table; with a tied
 * head the embedding's gradient is added there and handed out with layer 0; NULL otherwise. */
void dil__decoder_backward(dil__decoder *d, const int32_t *ids, uint32_t n, float *dout, float *dtable, const dil__decoder_sink *sink);

#endif
