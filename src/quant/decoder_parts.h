/* quant/decoder_parts.h - the operations of a decoder, each with its backward: linear layers, norms, rotations, attention, activations. */
#ifndef DIL_QUANT_DECODER_PARTS_H
#define DIL_QUANT_DECODER_PARTS_H

#include <dilemma/arch.h>

void dil__blas_threads(int n);

/* out [n][n_out] = x [n][n_in] w [n_out][n_in]ᵀ + bias (may be NULL). */
void dil__linear_forward(const float *x, const float *w, const float *bias, size_t n, size_t n_in, size_t n_out, float *out);
/* dw, dbias (may be NULL) are overwritten; dx [n][n_in] too, or added to. */
void dil__linear_backward(const float *dy, const float *x, const float *w, size_t n, size_t n_in, size_t n_out, float *dw, float *dbias, bool add,
                          float *dx);

typedef struct dil__norm_stats { float *mean, *rsqrt; } dil__norm_stats; /* [n] */
void dil__norm_forward(dil_norm kind, float eps, const float *x, const float *w, const float *bias, size_t n, size_t width, const dil__norm_stats *s,
                       float *out);
void dil__norm_backward(dil_norm kind, const float *dy, const float *x, const float *w, size_t n, size_t width, const dil__norm_stats *s, float *dx,
                        float *dw, float *dbias);

/* table [n][rope_dims]: cosine and sine of each pair. freqs [rope_dims / 2] divide the frequencies; NULL: none. */
void dil__rope_table(const dil_arch *a, const float *freqs, size_t n, float *table);
/* One token, x [n_head][head_dim], by its position's row of the table. */
void dil__rope(const dil_arch *a, const float *row, float *x, size_t n_head, bool back);

typedef struct dil__attention {
    size_t n, stride; /* tokens; rows of probs are stride long */
    size_t n_head, n_head_kv, head_dim;
    const float *q, *k, *v; /* [n][heads][head_dim] */
    float *out;             /* [n][n_head][head_dim] */
    float *probs;           /* [n_head][stride][stride] */
    float *scores;          /* [stride][stride] scratch */
    size_t root;            /* with from: token t >= root sees [0, root) and [from[t], t] */
    const uint32_t *from;   /* [n]; NULL: all before it */
} dil__attention;
void dil__attention_forward(const dil__attention *a); /* causal */
void dil__attention_backward(const dil__attention *a, const float *dout, float *dq, float *dk, float *dv);

/* out = f(gate) * up, or f(up) without a gate (NULL). */
void dil__activate(dil_act f, const float *gate, const float *up, size_t n, float *out);
void dil__activate_backward(dil_act f, const float *gate, const float *up, const float *dout, size_t n, float *dgate, float *dup);

#endif
