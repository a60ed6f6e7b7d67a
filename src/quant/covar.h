/* quant/covar.h - second moments E[x x^T] of every linear layer's input, gathered in one pass over calibration text: what error
 * feedback (gptq.h) compensates with.
 *
 *   dil__covar *c;  dil__covar_gather("m.gguf", &ids, 512, NULL, threads, progress, &c, err);
 *   const float *u;  dil__covar_factor(c, "blk.0.attn_k.weight", 576, &u, err);  ...  dil__covar_free(c);
 *
 * Tensors with the same input (q, k, v; gate, up) share one matrix. Memory: 8 n^2 bytes a matrix of n columns. */
#ifndef DIL_QUANT_COVAR_H
#define DIL_QUANT_COVAR_H

#include "quant/calib.h"
#include "quant/gptq.h"

typedef struct dil__covar dil__covar;

/* Chunks of n_ctx tokens, as dil__imatrix_gather. Errors: DIL_EDATA names the tensor whose input is not finite, DIL_EMEMORY. */
dil_status dil__covar_gather(const char *model, const dil_ids *ids, uint32_t n_ctx, const char *device, int n_threads,
                             const dil_progress *progress, dil__covar **out, dil_err *err);
void dil__covar_free(dil__covar *c);
uint64_t dil__covar_tokens(const dil__covar *c);

/* The factor that dil__gptq_quantize takes, [n_cols][n_cols], borrowed until the next call (tensors that share an input and follow
 * each other share the work). *u is NULL where the tensor was not seen. Errors: DIL_EDATA (singular), DIL_EMEMORY. */
dil_status dil__covar_factor(dil__covar *c, const char *tensor, uint64_t n_cols, const float **u, dil_err *err);

/* The diagonal a token [n_cols], which is the tensor's row of an importance matrix; borrowed. NULL: not seen, or out of memory. */
const float *dil__covar_row(dil__covar *c, const char *tensor, uint64_t n_cols);

#endif
