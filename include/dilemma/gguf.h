/* dilemma/gguf.h - reading and writing GGUF version 2 and 3 files (little-endian).
 *
 *   dil_gguf *g;  dil_gguf_open("m.gguf", &g, err);
 *   const dil_tensor *t = dil_gguf_find(g, "blk.0.attn_q.weight");  ...  dil_gguf_close(g);
 *
 * The file is mapped, and every count, length, offset and type is checked against the bytes at hand when it is opened, so
 * that what the getters return can be used without further checks. Tensors are aligned (to at least 8 bytes), lie within the
 * file and do not overlap; names and keys are unique. Opening is O(n log n) in what the file holds, whatever it claims.
 * Threads: an open file is read-only and safe to share; a writer is not. Source: GGUF specification, ggml docs/gguf.md. */
#ifndef DILEMMA_GGUF_H
#define DILEMMA_GGUF_H

#include <dilemma/tensor.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DIL_GGUF_KV_MAX 8192
#define DIL_GGUF_TENSORS_MAX 65536
#define DIL_GGUF_KEY_MAX 1024          /* bytes of a key; the specification allows 65,535 */
#define DIL_GGUF_HEADER_MAX (1u << 30) /* bytes of metadata and tensor table that a writer accepts */

typedef enum dil_gguf_kind { /* numbers of the specification */
    DIL_GGUF_U8, DIL_GGUF_I8, DIL_GGUF_U16, DIL_GGUF_I16, DIL_GGUF_U32, DIL_GGUF_I32, DIL_GGUF_F32, DIL_GGUF_BOOL,
    DIL_GGUF_STRING, DIL_GGUF_ARRAY, DIL_GGUF_U64, DIL_GGUF_I64, DIL_GGUF_F64
} dil_gguf_kind;

typedef struct dil_gguf_kv { /* one metadata pair; pointers borrowed from the file's mapping */
    const char *key; /* zero-terminated */
    dil_gguf_kind kind, elem_kind; /* elem_kind: of an array; nested arrays are refused */
    uint64_t n;                    /* elements of an array, bytes of a string, else 1 */
    const void *data;              /* raw little-endian values, unaligned: use the getters; an array of strings as in the file */
    uint64_t bytes;
    const uint64_t *index;         /* of an array of strings: [n] where each one's length stands in data; else NULL */
} dil_gguf_kv;

typedef struct dil_gguf dil_gguf;

/* Errors  DIL_EFORMAT with file, tensor or key, and the numbers that disagree; DIL_ELIMIT beyond the maxima above;
 *         DIL_EUNSUPPORTED for version 1, big-endian files and types that were withdrawn; DIL_ENOTFOUND, DIL_EIO. */
dil_status dil_gguf_open(const char *path, dil_gguf **out, dil_err *err);
/* The same on memory, borrowed for the object's life (fuzzers, metadata that came over the wire); tensors are as aligned as
 * data is. `header_only` accepts bytes that end after the tensor table: tensors then have data == NULL. */
dil_status dil_gguf_open_memory(const void *data, size_t len, bool header_only, dil_gguf **out, dil_err *err);
void dil_gguf_close(dil_gguf *g);

size_t dil_gguf_n_kv(const dil_gguf *g);
const dil_gguf_kv *dil_gguf_kv_at(const dil_gguf *g, size_t i);
const dil_gguf_kv *dil_gguf_kv_find(const dil_gguf *g, const char *key); /* NULL */
bool dil_gguf_get_int(const dil_gguf *g, const char *key, int64_t *out);     /* any integer kind */
bool dil_gguf_get_num(const dil_gguf *g, const char *key, double *out);      /* any number kind */
bool dil_gguf_get_bool(const dil_gguf *g, const char *key, bool *out);
bool dil_gguf_get_str(const dil_gguf *g, const char *key, const char **s, size_t *len); /* not zero-terminated */
/* Element i of an array; false beyond its end or for another kind. O(1). */
bool dil_gguf_arr_str(const dil_gguf_kv *kv, uint64_t i, const char **s, size_t *len);
bool dil_gguf_arr_int(const dil_gguf_kv *kv, uint64_t i, int64_t *out);
bool dil_gguf_arr_num(const dil_gguf_kv *kv, uint64_t i, double *out);

size_t dil_gguf_n_tensors(const dil_gguf *g);
const dil_tensor *dil_gguf_tensor_at(const dil_gguf *g, size_t i);      /* in the file's order */
const dil_tensor *dil_gguf_find(const dil_gguf *g, const char *name);   /* binary search; NULL */
dil_weights dil_gguf_weights(const dil_gguf *g);                        /* valid while g is open */
const char *dil_gguf_path(const dil_gguf *g);                           /* "(memory)" without one */
/* The bytes before the tensor data (metadata and tensor table), as `open_memory(header_only)` takes them. Borrowed. */
const void *dil_gguf_header(const dil_gguf *g, size_t *len);

/* Writing, version 3. Metadata and every tensor's description first, in any order; then begin, the data in the same order as
 * the descriptions, commit. Whole or not at all. general.alignment is honoured when put; 32 without it. */
typedef struct dil_gguf_writer dil_gguf_writer;
dil_status dil_gguf_writer_new(dil_gguf_writer **out, dil_err *err);
void dil_gguf_writer_free(dil_gguf_writer *w); /* removes an uncommitted partial file */
dil_status dil_gguf_put_kv(dil_gguf_writer *w, const dil_gguf_kv *kv, dil_err *err); /* replaces an equal key; copies */
dil_status dil_gguf_put_str(dil_gguf_writer *w, const char *key, const char *value, dil_err *err);
dil_status dil_gguf_put_u32(dil_gguf_writer *w, const char *key, uint32_t value, dil_err *err);
dil_status dil_gguf_put_f32(dil_gguf_writer *w, const char *key, float value, dil_err *err);
dil_status dil_gguf_put_bool(dil_gguf_writer *w, const char *key, bool value, dil_err *err);
dil_status dil_gguf_put_strs(dil_gguf_writer *w, const char *key, const char *const *s, const size_t *len, size_t n, dil_err *err);
dil_status dil_gguf_put_i32s(dil_gguf_writer *w, const char *key, const int32_t *v, size_t n, dil_err *err);
dil_status dil_gguf_put_f32s(dil_gguf_writer *w, const char *key, const float *v, size_t n, dil_err *err);
/* Announces a tensor; data and bytes of `t` are ignored. n_dims 0 is taken as the smallest that fits ne. */
dil_status dil_gguf_put_tensor(dil_gguf_writer *w, const dil_tensor *t, dil_err *err);
/* Starts the file: header and table. Errors name a tensor that was announced twice. */
dil_status dil_gguf_begin(dil_gguf_writer *w, const char *path, dil_err *err);
/* The next bytes of the tensor whose turn it is, in one call or several; a call never crosses a tensor's end. */
dil_status dil_gguf_write_data(dil_gguf_writer *w, const void *data, uint64_t bytes, dil_err *err);
dil_status dil_gguf_commit(dil_gguf_writer *w, dil_err *err);

#ifdef __cplusplus
}
#endif
#endif
