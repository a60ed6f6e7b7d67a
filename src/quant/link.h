/* quant/link.h - one layer of a model that is run chunk by chunk, each from an empty cache. */
#ifndef DIL_QUANT_LINK_H
#define DIL_QUANT_LINK_H

#include <dilemma/engine.h>

typedef struct dil__link_opts {
    const char *device;
    int n_threads;
    uint32_t n_ctx; /* tokens a chunk */
    bool floats;    /* compute with the weights' values in F32, whatever their types */
    struct dil__decoder *decoder; /* not NULL: compute with it; it holds the values of base, which weights replace in parts */
    const dil_weights *base;
} dil__link_opts;

typedef struct dil__link dil__link;
/* arch is borrowed; so are the weights, unless floats is set. */
dil_status dil__link_open(const dil_arch *arch, const dil_weights *weights, uint32_t layer, const dil__link_opts *o, dil__link **out,
                          dil_err *err);
void dil__link_close(dil__link *k);
/* ids [n_ctx] for layer 0, in [n_ctx][n_embd] behind it; out [n_ctx][n_embd], of the head [n_ctx][n_vocab]. */
dil_status dil__link_run(dil__link *k, const int32_t *ids, const float *in, float *out, dil_err *err);

#endif
