/* quant/crossval.h - how much a covariance of little text may be trusted: two halves of the text, what is read off one judged on the other.
 *
 *   dil__crossval_ridge(h, b, n_rows, &share, err);              how far a weight moves towards the teacher,
 *   dil__ridge_move(&whole, share, b_whole, w, n_rows, err);     W += B (H + λI)⁻¹ with H = Σ x xᵀ of its inputs, B = Σ δ xᵀ of what its outputs lack
 *   dil__crossval_damp(type, h, w, n_rows, &damp, err);          the damping of error feedback
 *
 * Little of what an output lacks can be read off its inputs: most of it is noise that earlier layers' rounding has left, and a solution of 1,536
 * columns fits the noise of 24,000 tokens. Error feedback does the same on a smaller scale. What suits one layer makes another worse (docs/QUALITY.md). */
#ifndef DIL_QUANT_CROSSVAL_H
#define DIL_QUANT_CROSSVAL_H

#include "quant/gptq.h"

/* h [2]: the halves' sums; b [2][n_rows][h.n]. share: λ over the mean diagonal, for the sum of both halves; < 0: no move pays. A tensor's rows
 * are sampled. Errors: DIL_EDATA (singular), DIL_EMEMORY. */
dil_status dil__crossval_ridge(const dil__hessian *const h[2], const double *const b[2], uint64_t n_rows, double *share, dil_err *err);
/* w [n_rows][h->n]. Errors: DIL_EDATA (singular), DIL_EMEMORY. */
dil_status dil__ridge_move(const dil__hessian *h, double share, const double *b, float *w, uint64_t n_rows, dil_err *err);

/* type has a codec. w [n_rows][h.n]: some of its rows are quantized. Errors: those of dil__gptq_factor and dil__gptq_quantize. */
dil_status dil__crossval_damp(dil_type type, const dil__hessian *const h[2], const float *w, uint64_t n_rows, int n_threads, double *damp, dil_err *err);

#endif
