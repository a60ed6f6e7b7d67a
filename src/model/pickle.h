/* model/pickle.h - the tensors that a pickled PyTorch state dict describes. Not a pickle library: a small stack machine that
 * knows the opcodes and the handful of globals that torch.save emits for a dict of tensors, builds only values of its own, calls
 * nothing, and refuses everything else. */
#ifndef DIL_MODEL_PICKLE_H
#define DIL_MODEL_PICKLE_H

#include <dilemma/base.h>

#define DIL__PICKLE_BYTES_MAX (16u << 20)
#define DIL__PICKLE_STACK_MAX 65536
#define DIL__PICKLE_MARKS_MAX 256

typedef struct dil__pickle_tensor {
    const char *name;     /* the key in the state dict */
    const char *storage;  /* "FloatStorage", "HalfStorage", ... */
    const char *key;      /* the storage's name in the archive */
    uint64_t numel;       /* elements of the storage */
    uint64_t offset;      /* first element */
    uint32_t n_dims;
    uint64_t shape[4], stride[4];
} dil__pickle_tensor;

/* Tensors in the dict's order, on the arena with everything else; strings too. Memory is at most some hundred bytes a byte of
 * pickle, and never more than the arena allows (DIL_ELIMIT).
 * Errors  DIL_EUNSUPPORTED names the opcode or global and its byte; DIL_EFORMAT; DIL_ELIMIT. */
dil_status dil__pickle_read(const char *file, const uint8_t *data, size_t len, dil_arena *arena, dil__pickle_tensor **out, size_t *n,
                            dil_err *err);

#endif
