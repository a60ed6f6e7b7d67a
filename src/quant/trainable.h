/* quant/trainable.h - the parameters of one stored tensor that train. By default those that are continuous while its codes stay: a factor exp(p) on each block's scale (around its middle code) and minimum, or, of a vector in
 * F32, an offset in units of its size. Any type whose weights are linear in its scale d (and minimum m) as stored. Or all of a tensor in floats, or two
 * thin matrices beside it (LoRA: W + scale B A), whatever its type. */
#ifndef DIL_QUANT_TRAINABLE_H
#define DIL_QUANT_TRAINABLE_H

#include <dilemma/tensor.h>

typedef struct dil__trainable {
    const dil_tensor *src;       /* borrowed */
    uint8_t *bytes;              /* [src->bytes] as the parameters have it */
    uint32_t block_elems, block_bytes;
    int d_at, m_at;              /* where the halves stand in a block; -1: none */
    uint64_t n_blocks;
    size_t n;                    /* parameters: the scales', then the minima's; or the vector's elements */
    float unit;                  /* of a vector */
    uint32_t rank;               /* > 0: p is A [rank][cols], then B [rows][rank]; bytes NULL */
    float lora_scale;            /* alpha / rank */
    float centre, pace_d, pace_m; /* see the table in trainable.c */
    float *p, *grad, *m1, *m2;   /* [n] parameters, gradient, Adam's moments */
    float *best;                 /* [n] of the best step */
} dil__trainable;

/* False: nothing in this tensor trains (n 0). */
bool dil__trainable_can(const dil_tensor *t);
dil_status dil__trainable_init(dil__trainable *t, const dil_tensor *src, dil_err *err);
/* All elements of a tensor in F32, F16 or BF16, as offsets in units of their size. Errors: DIL_EUNSUPPORTED (another type). */
dil_status dil__trainable_init_full(dil__trainable *t, const dil_tensor *src, dil_err *err);
/* A random, B zero: W as it is. */
dil_status dil__trainable_init_lora(dil__trainable *t, const dil_tensor *src, uint32_t rank, float scale, dil_rng *rng, dil_err *err);
/* The tensor's values [elems] with p, after apply. */
dil_status dil__trainable_values(const dil__trainable *t, float *out, dil_err *err);
void dil__trainable_fini(dil__trainable *t);
/* bytes from p. */
void dil__trainable_apply(dil__trainable *t);
/* grad += what dw [elems] means for p; w [elems]: the tensor's values as bytes has them. scratch: floats [elems] and bytes, used for types
 * with minima. */
dil_status dil__trainable_add(dil__trainable *t, const float *dw, const float *w, float *scratch, uint8_t *scratch_bytes, dil_err *err);
/* One step of Adam on grad * scale, number `step` from 1; grad becomes zero. */
void dil__trainable_step(dil__trainable *t, double rate, double scale, uint32_t step);

#endif
