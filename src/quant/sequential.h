/* quant/sequential.h - a whole model quantized with error feedback, layer by layer, each on the inputs that the layers quantized before
 * it give, and towards the outputs that the teacher gives.
 *
 * Before GPTQ a weight moves by the ridge solution towards the teacher: W' = W + B (H + λI)⁻¹ with H = E[x xᵀ] of the student's inputs x and
 * B = E[δ xᵀ], δ being what the student's output lacks with W as it is: W (x_t - x), or, for the tensors that write into the residual
 * stream, what that stream lacks behind them. λ is what cross-validation between the text's halves says (ridge.h). */
#ifndef DIL_QUANT_SEQUENTIAL_H
#define DIL_QUANT_SEQUENTIAL_H

#include "quant/variant.h"

#include <dilemma/engine.h>

typedef struct dil__sequential_opts {
    int n_threads;
    const int32_t *ids;       /* [n_chunks * n_ctx] calibration tokens, borrowed */
    uint32_t n_ctx, n_chunks;
    double damp;              /* GPTQ's, a share of the mean diagonal */
    bool towards_teacher;     /* false: no move towards the teacher before rounding */
    /* The type for a linear tensor. */
    dil_type (*type_of)(void *ctx, const char *tensor);
    void *ctx;
} dil__sequential_opts;

/* Fills out (initialised on weights) with every linear tensor whose type changes. Types without a codec are rounded with the
 * importance that H's diagonal gives. Memory: the model in floats, and a token 4 * (7 n_embd + n_ff) bytes (norms behind the sums: 4 * (8 n_embd + 2 n_ff)).
 * Errors: DIL_EDATA (NaN, too little data), DIL_ECANCELED. */
dil_status dil__sequential_quantize(const dil_arch *arch, const dil_weights *weights, const dil__sequential_opts *o,
                                    const dil_progress *progress, dil__variant *out, dil_err *err);

#endif
