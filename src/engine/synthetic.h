/* engine/synthetic.h - random weights of an architecture, for measuring layers and for tests that need no model file. */
#ifndef DIL_ENGINE_SYNTHETIC_H
#define DIL_ENGINE_SYNTHETIC_H

#include <dilemma/engine.h>

typedef struct dil__synthetic dil__synthetic;

typedef struct dil__synthetic_opts {
    uint32_t first_layer, last_layer; /* inclusive */
    /* The type of a linear tensor; NULL: F32. Where a row does not divide into the type's blocks the call fails. */
    dil_type (*type_of)(void *ctx, uint32_t layer, size_t index, const dil_layer_tensor *t);
    void *ctx;
    bool from_pool; /* linear tensors are drawn from a pool of quantized blocks of their type, for speed; else each value is drawn */
    uint64_t seed;
} dil__synthetic_opts;

/* Normal weights of deviation 1/sqrt(n_in) (from a pool: 1/sqrt(n_embd)), norms near one, small biases: hidden states stay of the size that real ones have. */
dil_status dil__synthetic_new(const dil_arch *a, const dil__synthetic_opts *o, dil__synthetic **out, dil_err *err);
void dil__synthetic_free(dil__synthetic *s);
dil_weights dil__synthetic_weights(const dil__synthetic *s);

#endif
