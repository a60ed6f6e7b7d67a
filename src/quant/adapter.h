/* quant/adapter.h - LoRA adapters in GGUF: NAME.lora_a {cols, rank} and NAME.lora_b {rank, rows} for a weight NAME {cols, rows}, adapter.lora.alpha.
 * Source: what llama.cpp's loader checks (llama-adapter.cpp) and what it computes, W x + alpha/rank B (A x). */
#ifndef DIL_QUANT_ADAPTER_H
#define DIL_QUANT_ADAPTER_H

#include "quant/trainable.h"

#include <dilemma/gguf.h>

typedef struct dil__adapter {
    dil_gguf *g;
    double alpha;
} dil__adapter;

/* Errors: DIL_EFORMAT (no adapter, or one for another architecture). */
dil_status dil__adapter_open(const char *path, const char *arch, dil__adapter *a, dil_err *err);
void dil__adapter_close(dil__adapter *a);
/* t for one weight, from the file; *has false where it has none. Errors: DIL_EFORMAT names the tensor whose shape does not fit. */
dil_status dil__adapter_get(const dil__adapter *a, const dil_tensor *weight, dil__trainable *t, bool *has, dil_err *err);
/* Every tensor of the file must belong to a weight of the model. */
dil_status dil__adapter_check(const dil__adapter *a, const dil_weights *w, dil_err *err);

dil_status dil__adapter_write(const char *path, const char *arch, double alpha, const dil__trainable *t, size_t n, dil_err *err);
/* The model's file with t [n] added. */
dil_status dil__adapter_write_merged(const dil_gguf *model, const char *path, const dil__trainable *t, size_t n, dil_err *err);

#endif
