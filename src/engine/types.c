/* Rows to and from ggml's types. ggml's own quantizers are used as they are; what would make them abort (NaN, infinities,
 * values beyond a half float's range, importance that is zero everywhere in a block) is caught or mended here. */
#include "engine/internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_ABS 65504.0f /* the largest half: block scales are halves */
#define LEAST_IMPORTANCE 1e-6f /* of the row's mean: below, the searches of some types divide by zero */
#define CHUNK_ELEMS (64u << 10)

/* No infinity and no NaN: no exponent of all ones. Written for eight independent sums, since it runs on every logit. */
bool dil__all_finite(const float *x, size_t n)
{
    uint32_t bad[8] = {0}, bits[8];
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        memcpy(bits, x + i, sizeof bits);
        for (int k = 0; k < 8; k++) bad[k] |= (bits[k] & 0x7fffffffu) + 0x00800000u;
    }
    for (; i < n; i++) {
        memcpy(bits, x + i, sizeof *x);
        bad[0] |= (bits[0] & 0x7fffffffu) + 0x00800000u;
    }
    return ((bad[0] | bad[1] | bad[2] | bad[3] | bad[4] | bad[5] | bad[6] | bad[7]) & 0x80000000u) == 0;
}

static bool can_quantize(dil_type type)
{
    const dil_type_info *info = dil_type_get(type);
    if (type == DIL_TYPE_F32 || type == DIL_TYPE_F16 || type == DIL_TYPE_BF16) return true;
    return info && info->is_quantized && type != DIL_TYPE_Q8_1 && type != DIL_TYPE_Q8_K && type < GGML_TYPE_COUNT;
}

typedef struct job {
    dil_type type;
    const float *src;
    uint64_t n_rows, n_cols, rows_per_chunk;
    const float *importance;
    uint8_t *dst;
    size_t row_bytes;
} job;

static void quantize_chunk(void *ctx, size_t i)
{
    const job *j = ctx;
    uint64_t from = i * j->rows_per_chunk, n = j->n_rows - from < j->rows_per_chunk ? j->n_rows - from : j->rows_per_chunk;
    ggml_quantize_chunk((enum ggml_type)j->type, j->src + from * j->n_cols, j->dst + from * j->row_bytes, 0, (int64_t)n,
                        (int64_t)j->n_cols, j->importance);
}

static dil_status check_values(const float *x, uint64_t n_rows, uint64_t n_cols, float max, dil_err *err)
{
    for (uint64_t r = 0; r < n_rows; r++) {
        for (uint64_t c = 0; c < n_cols; c++) {
            if (fabsf(x[r * n_cols + c]) <= max) continue;
            return dil_fail(err, DIL_EDATA, "row %llu, column %llu is %g; a weight must be a number within +-%g", (unsigned long long)r,
                            (unsigned long long)c, (double)x[r * n_cols + c], (double)max);
        }
    }
    return DIL_OK;
}

/* A copy with mean 1 and no zeros; *out is owned. */
static dil_status mend_importance(const float *importance, uint64_t n, float **out, dil_err *err)
{
    double sum = 0;
    for (uint64_t i = 0; i < n; i++) {
        if (!(importance[i] >= 0) || isinf(importance[i]))
            return dil_fail(err, DIL_EDATA, "importance of column %llu is %g", (unsigned long long)i, (double)importance[i]);
        sum += (double)importance[i];
    }
    float *copy = malloc(n * sizeof *copy);
    if (!copy) return dil_fail(err, DIL_EMEMORY, "engine: no memory for %llu importance weights", (unsigned long long)n);
    double mean = sum / (double)n;
    for (uint64_t i = 0; i < n; i++) {
        float v = mean > 0 ? (float)((double)importance[i] / mean) : 1;
        copy[i] = v > LEAST_IMPORTANCE ? v : LEAST_IMPORTANCE;
    }
    *out = copy;
    return DIL_OK;
}

dil_status dil_engine_quantize(dil_type type, const float *src, uint64_t n_rows, uint64_t n_cols, const float *importance, void *dst,
                               int n_threads, dil_err *err)
{
    const dil_type_info *info = dil_type_get(type);
    uint64_t row_bytes, total;
    if (!can_quantize(type)) return dil_fail(err, DIL_EUNSUPPORTED, "%s cannot be written by quantizing", info && info->name ? info->name : "this type");
    if (!dil_type_row_bytes(type, n_cols, &row_bytes) || !dil_mul_u64(row_bytes, n_rows, &total) || !dil_mul_u64(n_rows, n_cols, &total) || n_cols == 0)
        return dil_fail(err, DIL_EUSAGE, "rows of %llu do not divide into blocks of %u (%s)", (unsigned long long)n_cols, info->block_elems, info->name);
    if (ggml_quantize_requires_imatrix((enum ggml_type)type) && !importance)
        return dil_fail(err, DIL_EDATA, "%s needs importance weights (an imatrix)", info->name);
    dil_status s = check_values(src, n_rows, n_cols, type == DIL_TYPE_F32 || type == DIL_TYPE_BF16 ? 3.4e38f : MAX_ABS, err);
    float *mended = NULL;
    if (!s && importance && info->is_quantized) s = mend_importance(importance, n_cols, &mended, err);
    if (s) return s;
    dil__ggml_setup();
    ggml_quantize_init((enum ggml_type)type);
    job j = {.type = type, .src = src, .n_rows = n_rows, .n_cols = n_cols, .importance = mended, .dst = dst, .row_bytes = (size_t)row_bytes};
    j.rows_per_chunk = n_cols >= CHUNK_ELEMS ? 1 : CHUNK_ELEMS / n_cols;
    dil_parallel(n_threads > 0 ? n_threads : dil_cpu_count(), (size_t)((n_rows + j.rows_per_chunk - 1) / j.rows_per_chunk), quantize_chunk, &j);
    free(mended);
    return DIL_OK;
}

dil_status dil_engine_dequantize(dil_type type, const void *src, uint64_t n_elems, float *dst, dil_err *err)
{
    const dil_type_info *info = dil_type_get(type);
    if (!can_quantize(type)) return dil_fail(err, DIL_EUNSUPPORTED, "%s cannot be read as numbers", info && info->name ? info->name : "this type");
    if (n_elems % info->block_elems != 0)
        return dil_fail(err, DIL_EUSAGE, "%llu elements are no whole number of blocks of %u (%s)", (unsigned long long)n_elems, info->block_elems, info->name);
    dil__ggml_setup();
    if (type == DIL_TYPE_F32) {
        for (uint64_t i = 0; i < n_elems; i++) dst[i] = ((const float *)src)[i];
        return DIL_OK;
    }
    ggml_get_type_traits((enum ggml_type)type)->to_float(src, dst, (int64_t)n_elems);
    return DIL_OK;
}
