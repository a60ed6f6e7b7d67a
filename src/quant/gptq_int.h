/* quant/gptq_int.h - rows after error feedback, taken further: gptq_refine.c. */
#ifndef DIL_QUANT_GPTQ_INT_H
#define DIL_QUANT_GPTQ_INT_H

#include "quant/codec.h"

/* One row as error feedback has left it. g = H (ŵ - w), kept true. */
typedef struct dil__chosen_row {
    const dil__codec *codec;
    const float *h;      /* [n][n], symmetric */
    size_t n;
    uint8_t *codes;      /* [n] */
    dil__block_fit *fit; /* [n / block] */
    float *g;            /* [n] */
} dil__chosen_row;

/* Lowers (ŵ - w)ᵀ H (ŵ - w) one code, one scale at a time until nothing lowers it, or for n_passes. */
void dil__refine_row(dil__chosen_row *r, int n_passes);

#endif
