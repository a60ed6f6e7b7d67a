/* Tensors from one type to another, in pieces of rows, so that a large table never stands in memory as floats. */
#include "quant/recode.h"

#include "quant/codec.h"
#include "quant/gptq.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PIECE_ELEMS ((uint64_t)4 << 20)

static const dil_type writable[] = {
    DIL_TYPE_F32, DIL_TYPE_F16, DIL_TYPE_BF16, DIL_TYPE_Q8_0, DIL_TYPE_Q6_K, DIL_TYPE_Q5_1, DIL_TYPE_Q5_0, DIL_TYPE_Q5_K,
    DIL_TYPE_Q4_1, DIL_TYPE_IQ4_NL, DIL_TYPE_Q4_0, DIL_TYPE_Q4_K, DIL_TYPE_IQ4_XS, DIL_TYPE_MXFP4, DIL_TYPE_Q3_K, DIL_TYPE_IQ3_S,
    DIL_TYPE_IQ3_XXS, DIL_TYPE_Q2_K, DIL_TYPE_IQ2_S, DIL_TYPE_IQ2_XS, DIL_TYPE_Q2_0, DIL_TYPE_IQ2_XXS};

size_t dil__recode_types(const dil_type **out)
{
    *out = writable;
    return sizeof writable / sizeof writable[0];
}

bool dil__recode_allowed(dil_type t)
{
    for (size_t i = 0; i < sizeof writable / sizeof writable[0]; i++)
        if (writable[i] == t) return true;
    return false;
}

dil_type dil__recode_fit(dil_type t, uint64_t n_cols)
{
    if (dil_type_fits_row(t, n_cols)) return t;
    dil_type next = t == DIL_TYPE_Q6_K ? DIL_TYPE_Q8_0 : t == DIL_TYPE_Q5_K ? DIL_TYPE_Q5_1 : DIL_TYPE_IQ4_NL;
    return dil_type_fits_row(next, n_cols) ? next : DIL_TYPE_F16;
}

dil_type dil__recode_other(const dil_tensor *t)
{
    return t->type == DIL_TYPE_F32 && strcmp(t->name, "position_embd.weight") == 0 ? DIL_TYPE_F16 : t->type;
}

/* One element's bytes do not exist in block types: a piece is whole rows. */
static uint64_t rows_a_piece(uint64_t n_cols)
{
    uint64_t rows = PIECE_ELEMS / n_cols;
    return rows ? rows : 1;
}

static dil_status check_finite(const dil_tensor *t, const float *x, uint64_t first_row, uint64_t n_rows, dil_err *err)
{
    uint64_t n_cols = t->ne[0];
    for (uint64_t i = 0; i < n_rows * n_cols; i++) {
        if (!isfinite(x[i]))
            return dil_fail(err, DIL_EDATA, "%s: the weight at row %" PRIu64 ", column %" PRIu64 " is not finite", t->name,
                            first_row + i / n_cols, i % n_cols);
    }
    return DIL_OK;
}

/* Rows are independent in every method, so pieces may be quantized one after the other. */
static dil_status encode(dil_type to, const float *w, uint64_t n_rows, uint64_t n_cols, const float *importance, const float *factor,
                         int n_threads, void *out, dil_err *err)
{
    const dil__codec *c = dil__codec_get(to);
    if (!c || n_cols % c->block) return dil_engine_quantize(to, w, n_rows, n_cols, importance, out, n_threads, err);
    if (factor) return dil__gptq_quantize(to, w, n_rows, n_cols, factor, DIL__GPTQ_PASSES, out, n_threads, err);
    return dil__codec_quantize(to, w, n_rows, n_cols, importance, out, n_threads, err);
}

static dil_status recode_rows(const dil_tensor *src, uint64_t src_row, dil_type to, uint64_t to_row, const float *importance,
                              const float *factor, int n_threads, float *piece, uint8_t *out, dil_err *err)
{
    uint64_t n_cols = src->ne[0], n_rows = dil_tensor_elems(src) / n_cols, step = rows_a_piece(n_cols);
    for (uint64_t r = 0; r < n_rows; r += step) {
        uint64_t n = n_rows - r < step ? n_rows - r : step;
        dil_status st = dil_engine_dequantize(src->type, (const uint8_t *)src->data + r * src_row, n * n_cols, piece, err);
        if (st == DIL_OK) st = check_finite(src, piece, r, n, err);
        if (st == DIL_OK) st = encode(to, piece, n, n_cols, importance, factor, n_threads, out + r * to_row, err);
        if (st != DIL_OK) return st;
    }
    return DIL_OK;
}

dil_status dil__recode_tensor(const dil_tensor *src, dil_type to, const float *importance, const float *factor, int n_threads, void **out,
                              uint64_t *bytes, dil_err *err)
{
    uint64_t n_cols = src->ne[0], n_rows = dil_tensor_elems(src) / n_cols, src_row, to_row, total;
    if (!dil_type_row_bytes(to, n_cols, &to_row) || !dil_type_row_bytes(src->type, n_cols, &src_row) ||
        !dil_mul_u64(to_row, n_rows, &total))
        return dil_fail(err, DIL_EUNSUPPORTED, "%s: rows of %" PRIu64 " do not take type %s", src->name, n_cols,
                        dil_type_get(to) ? dil_type_get(to)->name : "?");
    uint64_t piece_rows = rows_a_piece(n_cols) < n_rows ? rows_a_piece(n_cols) : n_rows;
    float *piece = malloc(piece_rows * n_cols * sizeof *piece);
    uint8_t *data = malloc(total ? total : 1);
    dil_status st = DIL_OK;
    if (!piece || !data) st = dil_fail(err, DIL_EMEMORY, "%s: out of memory for %" PRIu64 " bytes", src->name, total);
    else if (to == src->type) memcpy(data, src->data, total);
    else st = recode_rows(src, src_row, to, to_row, importance, factor, n_threads, piece, data, err);
    free(piece);
    if (st != DIL_OK) {
        free(data);
        return st;
    }
    *out = data;
    *bytes = total;
    return DIL_OK;
}

dil_status dil__recode_error(const dil_tensor *src, dil_type type, const void *data, double *error, double *norm, dil_err *err)
{
    uint64_t n_cols = src->ne[0], n_rows = dil_tensor_elems(src) / n_cols, src_row, to_row, step = rows_a_piece(n_cols);
    if (!dil_type_row_bytes(type, n_cols, &to_row) || !dil_type_row_bytes(src->type, n_cols, &src_row))
        return dil_fail(err, DIL_EUNSUPPORTED, "%s: rows of %" PRIu64 " do not take this type", src->name, n_cols);
    if (step > n_rows) step = n_rows;
    float *a = malloc(step * n_cols * sizeof *a), *b = malloc(step * n_cols * sizeof *b);
    double e = 0, w = 0;
    dil_status st = a && b ? DIL_OK : dil_fail(err, DIL_EMEMORY, "%s: out of memory", src->name);
    for (uint64_t r = 0; r < n_rows && st == DIL_OK; r += step) {
        uint64_t n = (n_rows - r < step ? n_rows - r : step) * n_cols;
        st = dil_engine_dequantize(src->type, (const uint8_t *)src->data + r * src_row, n, a, err);
        if (st == DIL_OK) st = dil_engine_dequantize(type, (const uint8_t *)data + r * to_row, n, b, err);
        for (uint64_t i = 0; i < n && st == DIL_OK; i++) {
            double d = (double)a[i] - (double)b[i];
            e += d * d;
            w += (double)a[i] * (double)a[i];
        }
    }
    free(a);
    free(b);
    if (st != DIL_OK) return st;
    *error = e;
    *norm = w;
    return DIL_OK;
}
