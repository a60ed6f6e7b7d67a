/* model/checkpoint.h - the named tensors of a Hugging Face folder, whichever way they are stored: safetensors or torch.save, in
 * one file or several. Files are mapped; a tensor's bytes are borrowed from the mapping.
 *
 *   dil__ckpt c;  dil__ckpt_open("dir", &c, err);
 *   const dil__ckpt_tensor *t = dil__ckpt_find(&c, "model.norm.weight");  ...  dil__ckpt_close(&c); */
#ifndef DIL_MODEL_CHECKPOINT_H
#define DIL_MODEL_CHECKPOINT_H

#include <dilemma/tensor.h>

#define DIL__CKPT_TENSORS_MAX 65536
#define DIL__CKPT_FILES_MAX 1024
#define DIL__CKPT_HEADER_MAX (16u << 20) /* a safetensors header; a sharded checkpoint's index */

typedef struct dil__ckpt_tensor {
    const char *name, *file;
    const char *type_name; /* as the file spells it */
    dil_type type;         /* F32, F16, BF16; -1: one that no weight may have (integers, masks), data is NULL then */
    uint32_t n_dims;
    uint64_t shape[4];     /* slowest first, as in Python; 1 beyond n_dims */
    const uint8_t *data;   /* [bytes] contiguous, little-endian, unaligned */
    uint64_t bytes;
    bool used;             /* for the importer's own book-keeping */
} dil__ckpt_tensor;

typedef struct dil__ckpt {
    dil_arena *arena;
    dil__ckpt_tensor *tensor; /* sorted by name once open */
    size_t n, cap;
    dil_map *map;
    size_t n_maps;
} dil__ckpt;

/* Looks for model.safetensors.index.json, model.safetensors, pytorch_model.bin.index.json, pytorch_model.bin, in this order.
 * Errors  DIL_ENOTFOUND with what was looked for; DIL_EFORMAT, DIL_EUNSUPPORTED, DIL_ELIMIT naming file and tensor. */
dil_status dil__ckpt_open(const char *dir, dil__ckpt *out, dil_err *err);
void dil__ckpt_close(dil__ckpt *c);
dil__ckpt_tensor *dil__ckpt_find(const dil__ckpt *c, const char *name); /* NULL */

/* For the parts, their tests and fuzzers: init, add one file's tensors from memory, sort (finds names that appear twice). */
dil_status dil__ckpt_init(dil__ckpt *c, dil_err *err);
dil_status dil__ckpt_add_safetensors(dil__ckpt *c, const char *file, const uint8_t *data, size_t len, dil_err *err);
dil_status dil__ckpt_add_pytorch(dil__ckpt *c, const char *file, const uint8_t *data, size_t len, dil_err *err);
dil_status dil__ckpt_sort(dil__ckpt *c, dil_err *err);
dil_status dil__ckpt_add(dil__ckpt *c, const dil__ckpt_tensor *t, dil_err *err); /* name copied, file borrowed from the arena */

/* "dir/name" on the arena; NULL when out of memory. */
char *dil__ckpt_path(dil_arena *arena, const char *dir, const char *name);

#endif
