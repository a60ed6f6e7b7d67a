/* The table of tensor types: number, name, elements and bytes of a block, as the GGUF specification (and ggml) have them. */
#include <dilemma/tensor.h>

#include <string.h>
#include <strings.h>

static const dil_type_info type_table[DIL_TYPE_LIMIT] = {
    [DIL_TYPE_F32] = {"F32", 1, 4, false, false},
    [DIL_TYPE_F16] = {"F16", 1, 2, false, false},
    [DIL_TYPE_Q4_0] = {"Q4_0", 32, 18, true, false},
    [DIL_TYPE_Q4_1] = {"Q4_1", 32, 20, true, false},
    [DIL_TYPE_Q5_0] = {"Q5_0", 32, 22, true, false},
    [DIL_TYPE_Q5_1] = {"Q5_1", 32, 24, true, false},
    [DIL_TYPE_Q8_0] = {"Q8_0", 32, 34, true, false},
    [DIL_TYPE_Q8_1] = {"Q8_1", 32, 36, true, false},
    [DIL_TYPE_Q2_K] = {"Q2_K", 256, 84, true, false},
    [DIL_TYPE_Q3_K] = {"Q3_K", 256, 110, true, false},
    [DIL_TYPE_Q4_K] = {"Q4_K", 256, 144, true, false},
    [DIL_TYPE_Q5_K] = {"Q5_K", 256, 176, true, false},
    [DIL_TYPE_Q6_K] = {"Q6_K", 256, 210, true, false},
    [DIL_TYPE_Q8_K] = {"Q8_K", 256, 292, true, false},
    [DIL_TYPE_IQ2_XXS] = {"IQ2_XXS", 256, 66, true, true},
    [DIL_TYPE_IQ2_XS] = {"IQ2_XS", 256, 74, true, true},
    [DIL_TYPE_IQ3_XXS] = {"IQ3_XXS", 256, 98, true, false},
    [DIL_TYPE_IQ1_S] = {"IQ1_S", 256, 50, true, true},
    [DIL_TYPE_IQ4_NL] = {"IQ4_NL", 32, 18, true, false},
    [DIL_TYPE_IQ3_S] = {"IQ3_S", 256, 110, true, false},
    /* ggml itself lets IQ2_S and IQ1_M through without an imatrix; the result is not usable. */
    [DIL_TYPE_IQ2_S] = {"IQ2_S", 256, 82, true, true},
    [DIL_TYPE_IQ4_XS] = {"IQ4_XS", 256, 136, true, false},
    [DIL_TYPE_I8] = {"I8", 1, 1, false, false},
    [DIL_TYPE_I16] = {"I16", 1, 2, false, false},
    [DIL_TYPE_I32] = {"I32", 1, 4, false, false},
    [DIL_TYPE_I64] = {"I64", 1, 8, false, false},
    [DIL_TYPE_F64] = {"F64", 1, 8, false, false},
    [DIL_TYPE_IQ1_M] = {"IQ1_M", 256, 56, true, true},
    [DIL_TYPE_BF16] = {"BF16", 1, 2, false, false},
    [DIL_TYPE_TQ1_0] = {"TQ1_0", 256, 54, true, false},
    [DIL_TYPE_TQ2_0] = {"TQ2_0", 256, 66, true, false},
    [DIL_TYPE_MXFP4] = {"MXFP4", 32, 17, true, false},
    [DIL_TYPE_NVFP4] = {"NVFP4", 64, 36, true, false},
    [DIL_TYPE_Q1_0] = {"Q1_0", 128, 18, true, false},
    [DIL_TYPE_Q2_0] = {"Q2_0", 64, 18, true, false},
};

const dil_type_info *dil_type_get(dil_type t)
{
    if (t < 0 || t >= DIL_TYPE_LIMIT || !type_table[t].name) return NULL;
    return &type_table[t];
}

bool dil_type_from_name(const char *name, dil_type *out)
{
    for (dil_type t = 0; t < DIL_TYPE_LIMIT; t++) {
        if (!type_table[t].name || strcasecmp(type_table[t].name, name) != 0) continue;
        *out = t;
        return true;
    }
    return false;
}

double dil_type_bits(dil_type t)
{
    const dil_type_info *i = dil_type_get(t);
    return i ? 8.0 * i->block_bytes / i->block_elems : 0;
}

bool dil_type_fits_row(dil_type t, uint64_t n)
{
    const dil_type_info *i = dil_type_get(t);
    return i && n % i->block_elems == 0;
}

bool dil_type_row_bytes(dil_type t, uint64_t n, uint64_t *bytes)
{
    const dil_type_info *i = dil_type_get(t);
    return i && n % i->block_elems == 0 && dil_mul_u64(n / i->block_elems, i->block_bytes, bytes);
}

uint64_t dil_tensor_elems(const dil_tensor *t)
{
    return t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3];
}
