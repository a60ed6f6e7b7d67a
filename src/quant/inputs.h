/* quant/inputs.h - what error feedback needs of the model as it is given, a layer at a time: second moments of the inputs of a layer's tensors, over
 * one calibration text whose hidden states wait between the layers. For whoever goes through the layers in order: a step back starts over.
 *
 *   dil__inputs *in;  dil__inputs_open(&arch, &weights, decoder, threads, ids, 384, n_chunks, &in, err);
 *   const float *u;   dil__inputs_factor(in, layer, "ffn_down", &u, err);   for dil__recode_tensor */
#ifndef DIL_QUANT_INPUTS_H
#define DIL_QUANT_INPUTS_H

#include "quant/decoder.h"

typedef struct dil__inputs dil__inputs;

/* arch, weights and decoder, which holds the model, are borrowed; ids [n_chunks * n_ctx] are copied. Nothing is computed yet.
 * Memory: the hidden states of all tokens, the moments of one block. */
dil_status dil__inputs_open(const dil_arch *arch, const dil_weights *weights, dil__decoder *decoder, int n_threads, const int32_t *ids, uint32_t n_ctx, uint32_t n_chunks,
                            dil__inputs **out, dil_err *err);
void dil__inputs_free(dil__inputs *in);

/* *u [n_cols][n_cols], borrowed until the next layer is asked for; NULL where no product's input is followed (look-ups, projections). A tied table
 * has what table_metric.h says of it, which takes memory of its own while it is computed. Errors: DIL_EDATA (inputs that are not finite, or singular). */
dil_status dil__inputs_factor(dil__inputs *in, uint32_t layer, const char *role, const float **u, dil_err *err);

#endif
