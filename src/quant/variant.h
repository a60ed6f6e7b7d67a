/* quant/variant.h - a model's weights with some tensors replaced: the student of one layer's level, without a file. */
#ifndef DIL_QUANT_VARIANT_H
#define DIL_QUANT_VARIANT_H

#include <dilemma/arch.h>

#define DIL__VARIANT_TENSORS 4096

typedef struct dil__variant {
    const dil_weights *base;
    dil_tensor *t;   /* [n] replacements; data owned here */
    size_t n, cap;
} dil__variant;

void dil__variant_init(dil__variant *v, const dil_weights *base); /* base borrowed */
void dil__variant_fini(dil__variant *v);
void dil__variant_clear(dil__variant *v); /* back to the base's tensors */
/* Replaces src's tensor; takes data (malloc'd) over, also on failure. */
dil_status dil__variant_put(dil__variant *v, const dil_tensor *src, dil_type type, void *data, uint64_t bytes, dil_err *err);
/* Every linear tensor of a layer in F32, with the values that the base gives. */
dil_status dil__variant_floats(dil__variant *v, const dil_arch *arch, uint32_t layer, int n_threads, dil_err *err);
dil_weights dil__variant_weights(dil__variant *v); /* valid while v does not move */

#endif
