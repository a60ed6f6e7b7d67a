/* quant/gptq.h - quantization with error feedback (GPTQ) straight onto ggml's grids.
 *
 *   dil__hessian h;  dil__hessian_init(&h, n_cols, err);  dil__hessian_add(&h, x, n_rows);  ...        H = E[x x^T] of a layer's inputs
 *   float *u;  dil__gptq_factor(&h, 0.01, &u, err);                       once for all tensors that share the input (q, k, v; gate, up)
 *   dil__gptq_quantize(type, w, n_rows, n_cols, u, DIL__GPTQ_PASSES, dst, n_threads, err);  free(u);
 *
 * Source: Frantar et al., GPTQ, arXiv 2210.17323; DESIGN section 3: block scales are fixed from the already compensated weights,
 * with U upper and H^-1 = U^T U. */
#ifndef DIL_QUANT_GPTQ_H
#define DIL_QUANT_GPTQ_H

#include <dilemma/tensor.h>

enum { DIL__GPTQ_PASSES = 4 };

typedef struct dil__hessian {
    uint32_t n;
    uint64_t n_rows;  /* added so far */
    double *sum;      /* [n][n], the upper triangle is kept: sum of x x^T */
    float *batch;     /* [n][n] scratch */
} dil__hessian;

dil_status dil__hessian_init(dil__hessian *h, uint32_t n, dil_err *err); /* DIL_EMEMORY */
void dil__hessian_fini(dil__hessian *h);
/* x [n_rows][n]; rows with NaN or infinity fail with DIL_EDATA and leave the sum as it was. */
dil_status dil__hessian_add(dil__hessian *h, const float *x, uint64_t n_rows, dil_err *err);
void dil__hessian_join(dil__hessian *h, const dil__hessian *other); /* h += other, of equal n */

/* The upper factor of the damped inverse, [n][n] row-major, malloc'ed into *u. damp is added to the diagonal as a share of its mean;
 * columns never seen get the mean. When the matrix is still singular damp grows tenfold, up to 1.
 * Errors: DIL_EDATA (no rows added, or singular beyond that), DIL_EMEMORY. */
dil_status dil__gptq_factor(const dil__hessian *h, double damp, float **u, dil_err *err);

/* w [n_rows][n_cols] is not changed; dst as for dil__codec_quantize. Same result for any n_threads. n_passes: over the codes and scales that error
 * feedback has chosen, each to its best value given all others (gptq_refine.c); 0: error feedback alone.
 * Errors: DIL_EUNSUPPORTED (type without a codec), DIL_EDATA (weight not finite), DIL_EMEMORY.
 * Cost: n_rows * n_cols^2 multiply-adds, about twice that with passes. */
dil_status dil__gptq_quantize(dil_type type, const float *w, uint64_t n_rows, uint64_t n_cols, const float *u, int n_passes, void *dst,
                              int n_threads, dil_err *err);

#endif
