/* dilemma/tensor.h - tensor types and weights as every module sees them.
 *
 * A type is named by its number in the GGUF specification (equal to ggml's). Rows are quantized in blocks: a row of n
 * elements takes n / block_elems * block_bytes bytes, and n must be a multiple of block_elems. */
#ifndef DILEMMA_TENSOR_H
#define DILEMMA_TENSOR_H

#include <dilemma/base.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef int32_t dil_type;
enum {
    DIL_TYPE_F32 = 0, DIL_TYPE_F16 = 1, DIL_TYPE_Q4_0 = 2, DIL_TYPE_Q4_1 = 3, DIL_TYPE_Q5_0 = 6, DIL_TYPE_Q5_1 = 7,
    DIL_TYPE_Q8_0 = 8, DIL_TYPE_Q8_1 = 9, DIL_TYPE_Q2_K = 10, DIL_TYPE_Q3_K = 11, DIL_TYPE_Q4_K = 12, DIL_TYPE_Q5_K = 13,
    DIL_TYPE_Q6_K = 14, DIL_TYPE_Q8_K = 15, DIL_TYPE_IQ2_XXS = 16, DIL_TYPE_IQ2_XS = 17, DIL_TYPE_IQ3_XXS = 18,
    DIL_TYPE_IQ1_S = 19, DIL_TYPE_IQ4_NL = 20, DIL_TYPE_IQ3_S = 21, DIL_TYPE_IQ2_S = 22, DIL_TYPE_IQ4_XS = 23,
    DIL_TYPE_I8 = 24, DIL_TYPE_I16 = 25, DIL_TYPE_I32 = 26, DIL_TYPE_I64 = 27, DIL_TYPE_F64 = 28, DIL_TYPE_IQ1_M = 29,
    DIL_TYPE_BF16 = 30, DIL_TYPE_TQ1_0 = 34, DIL_TYPE_TQ2_0 = 35, DIL_TYPE_MXFP4 = 39, DIL_TYPE_NVFP4 = 40,
    DIL_TYPE_Q1_0 = 41, DIL_TYPE_Q2_0 = 42,
    DIL_TYPE_LIMIT = 64 /* every valid number is below */
};

typedef struct dil_type_info {
    const char *name; /* "IQ4_NL"; NULL: no such type */
    uint32_t block_elems, block_bytes;
    bool is_quantized;
    bool needs_imatrix; /* cannot be quantized sensibly without importance weights */
} dil_type_info;

const dil_type_info *dil_type_get(dil_type t);              /* NULL for an unknown number */
bool dil_type_from_name(const char *name, dil_type *out);   /* case-insensitive */
double dil_type_bits(dil_type t);                           /* bits per weight, 4.5 for Q4_0 */
bool dil_type_fits_row(dil_type t, uint64_t n);             /* n is a multiple of the block */
bool dil_type_row_bytes(dil_type t, uint64_t n, uint64_t *bytes); /* false: unknown type, not a multiple, overflow */

#define DIL_TENSOR_DIMS 4
#define DIL_TENSOR_NAME_MAX 64 /* with the final zero; ggml's limit */

/* ne[0] is the row length (contiguous), as in ggml: a linear layer's weight is ne = {n_in, n_out}. */
typedef struct dil_tensor {
    char name[DIL_TENSOR_NAME_MAX];
    dil_type type;
    uint32_t n_dims;
    uint64_t ne[DIL_TENSOR_DIMS]; /* unused dimensions are 1 */
    const void *data;             /* [bytes], borrowed from the source */
    uint64_t bytes;
} dil_tensor;

uint64_t dil_tensor_elems(const dil_tensor *t);

/* A source of weights: a GGUF file, or a node's chunk store. Borrowed pointers live as long as the source. Threads: safe. */
typedef struct dil_weights {
    const dil_tensor *(*find)(void *ctx, const char *name); /* NULL: no such tensor */
    void *ctx;
} dil_weights;

static inline const dil_tensor *dil_weights_find(const dil_weights *w, const char *name)
{
    return w->find(w->ctx, name);
}

#ifdef __cplusplus
}
#endif
#endif
