/* quant/codec_fit.h - weighted scale searches shared by the codecs: see codec_fit.c. */
#ifndef DIL_QUANT_CODEC_FIT_H
#define DIL_QUANT_CODEC_FIT_H

#include "quant/codec.h"

/* Weighted squared error of w [n] on scale * grid + offset, each weight at its nearest value. */
double dil__fit_error(const dil__codec *c, const float *w, const float *imp, uint32_t n, float scale, float offset);
/* The scale (either sign) that minimises the error on scale * grid. */
float dil__fit_scale(const dil__codec *c, const float *w, const float *imp, uint32_t n);
/* Scale >= 0 and offset for a grid 0..n_codes-1; offset <= 0 where `nonpositive` is set. */
void dil__fit_affine(const dil__codec *c, const float *w, const float *imp, uint32_t n, bool nonpositive, float *scale, float *offset);

void dil__fit_block_scale(const dil__codec *c, const float *w, const float *imp, dil__block_fit *f);   /* d */
void dil__fit_block_affine(const dil__codec *c, const float *w, const float *imp, dil__block_fit *f);  /* d, m */
void dil__fit_block_exponent(const dil__codec *c, const float *w, const float *imp, dil__block_fit *f); /* MXFP4 */
void dil__fit_super_scale(const dil__codec *c, const float *w, const float *imp, dil__block_fit *f);   /* d, sub[] */
void dil__fit_super_affine(const dil__codec *c, const float *w, const float *imp, dil__block_fit *f);  /* d, m, sub[], submin[] */
void dil__refit_group_scale(const dil__codec *c, uint32_t g, const float *w, const float *imp, dil__block_fit *f);
void dil__refit_group_affine(const dil__codec *c, uint32_t g, const float *w, const float *imp, dil__block_fit *f);

#endif
