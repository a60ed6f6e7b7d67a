/* W = d A + m B in every ggml block type, A and B fixed by the codes: dL/dp of a factor exp(p) on d is Σ dL/dW (d A), and d A is what
 * the weights are without the minimum's part. So no type needs its codes taken apart here. */
#include "quant/trainable.h"

#include "base/half.h"

#include <dilemma/engine.h>

#include <cblas.h>
#include <math.h>
#include <string.h>
#include <stdlib.h>

/* Where d and m stand: ggml's block layouts (ggml-common.h of 0.26). centre: the code that stays where it is when d changes; with codes from 0
 * the whole block would move else. pace: shorter steps where one step moves the weights by many units of d. */
static const struct { dil_type type; int d_at, m_at; float centre, pace_d, pace_m; } layouts[] = {
    {DIL_TYPE_Q4_0, 0, -1, 0, 1, 0}, {DIL_TYPE_Q4_1, 0, 2, 7.5f, 1, 0.4f}, {DIL_TYPE_Q5_0, 0, -1, 0, 1, 0},
    {DIL_TYPE_Q5_1, 0, 2, 15.5f, 1, 0.2f}, {DIL_TYPE_Q8_0, 0, -1, 0, 1, 0}, {DIL_TYPE_IQ4_NL, 0, -1, 0, 1, 0},
    {DIL_TYPE_Q2_0, 0, -1, 0, 1, 0}, {DIL_TYPE_Q2_K, 80, 82, 0, 1, 1}, {DIL_TYPE_Q3_K, 108, -1, 0, 1, 0},
    {DIL_TYPE_Q4_K, 0, 2, 0, 0.4f, 0.4f}, {DIL_TYPE_Q5_K, 0, 2, 0, 0.2f, 0.2f}, {DIL_TYPE_Q6_K, 208, -1, 0, 1, 0},
    {DIL_TYPE_IQ4_XS, 0, -1, 0, 1, 0}, {DIL_TYPE_IQ3_S, 0, -1, 0, 1, 0}, {DIL_TYPE_IQ3_XXS, 0, -1, 0, 1, 0},
    {DIL_TYPE_IQ2_S, 0, -1, 0, 1, 0}, {DIL_TYPE_IQ2_XS, 0, -1, 0, 1, 0}, {DIL_TYPE_IQ2_XXS, 0, -1, 0, 1, 0}};
enum { N_LAYOUTS = sizeof layouts / sizeof layouts[0] };

static size_t layout_of(dil_type t)
{
    size_t i = 0;
    while (i < N_LAYOUTS && layouts[i].type != t) i++;
    return i;
}

static bool is_vector(const dil_tensor *t)
{
    return t->type == DIL_TYPE_F32 && t->ne[1] == 1;
}

bool dil__trainable_can(const dil_tensor *t)
{
    return is_vector(t) || layout_of(t->type) < N_LAYOUTS;
}

static float read_half(const uint8_t *p)
{
    return dil__f16_to_f32((uint16_t)(p[0] | p[1] << 8));
}

static void write_half(uint8_t *p, float x)
{
    if (x > 65504) x = 65504;
    if (x < -65504) x = -65504;
    uint16_t h = dil__f16_from_f32(x);
    p[0] = (uint8_t)h;
    p[1] = (uint8_t)(h >> 8);
}

static float read_float(dil_type type, const uint8_t *at, size_t i)
{
    float x;
    if (type == DIL_TYPE_F32) memcpy(&x, at + 4 * i, sizeof x);
    else if (type == DIL_TYPE_F16) x = read_half(at + 2 * i);
    else x = dil__bf16_to_f32((uint16_t)(at[2 * i] | at[2 * i + 1] << 8));
    return x;
}

static void write_float(dil_type type, uint8_t *at, size_t i, float x)
{
    if (type == DIL_TYPE_F32) {
        memcpy(at + 4 * i, &x, sizeof x);
    } else if (type == DIL_TYPE_F16) {
        write_half(at + 2 * i, x);
    } else {
        uint16_t h = dil__bf16_from_f32(x);
        at[2 * i] = (uint8_t)h;
        at[2 * i + 1] = (uint8_t)(h >> 8);
    }
}

static float rms_of(const dil_tensor *t)
{
    double sum = 0;
    uint64_t n = dil_tensor_elems(t);
    for (uint64_t i = 0; i < n; i++) {
        double x = (double)read_float(t->type, t->data, i);
        sum += x * x;
    }
    float rms = (float)sqrt(sum / (double)n);
    return rms > 1e-6f ? rms : 1e-6f;
}

static dil_status allocate(dil__trainable *t, dil_err *err)
{
    const dil_tensor *src = t->src;
    t->bytes = t->rank ? NULL : malloc(src->bytes);
    t->p = calloc(t->n, sizeof *t->p);
    t->grad = calloc(t->n, sizeof *t->grad);
    t->m1 = calloc(t->n, sizeof *t->m1);
    t->m2 = calloc(t->n, sizeof *t->m2);
    t->best = calloc(t->n, sizeof *t->best);
    if ((!t->bytes && !t->rank) || !t->p || !t->grad || !t->m1 || !t->m2 || !t->best) {
        dil__trainable_fini(t);
        return dil_fail(err, DIL_EMEMORY, "%s: out of memory for %zu parameters", src->name, t->n);
    }
    if (t->bytes) memcpy(t->bytes, src->data, src->bytes);
    return DIL_OK;
}

dil_status dil__trainable_init(dil__trainable *t, const dil_tensor *src, dil_err *err)
{
    *t = (dil__trainable){.src = src, .d_at = -1, .m_at = -1, .pace_d = 1};
    if (is_vector(src)) {
        t->n = src->ne[0];
        t->unit = rms_of(src);
    } else {
        const dil_type_info *info = dil_type_get(src->type);
        size_t k = layout_of(src->type);
        t->d_at = layouts[k].d_at;
        t->m_at = layouts[k].m_at;
        t->centre = layouts[k].centre;
        t->pace_d = layouts[k].pace_d;
        t->pace_m = layouts[k].pace_m;
        t->block_elems = info->block_elems;
        t->block_bytes = info->block_bytes;
        t->n_blocks = src->bytes / info->block_bytes;
        t->n = t->n_blocks * (t->m_at >= 0 ? 2 : 1);
    }
    return allocate(t, err);
}

dil_status dil__trainable_init_full(dil__trainable *t, const dil_tensor *src, dil_err *err)
{
    if (src->type != DIL_TYPE_F32 && src->type != DIL_TYPE_F16 && src->type != DIL_TYPE_BF16)
        return dil_fail(err, DIL_EUNSUPPORTED, "%s is %s: only floats train whole (import --type f16 makes them; or train beside it, --lora)", src->name,
                        dil_type_get(src->type)->name);
    *t = (dil__trainable){.src = src, .d_at = -1, .m_at = -1, .pace_d = 1, .n = dil_tensor_elems(src), .unit = rms_of(src)};
    return allocate(t, err);
}

dil_status dil__trainable_init_lora(dil__trainable *t, const dil_tensor *src, uint32_t rank, float scale, dil_rng *rng, dil_err *err)
{
    *t = (dil__trainable){.src = src, .d_at = -1, .m_at = -1, .pace_d = 1, .n = rank * (src->ne[0] + src->ne[1]), .unit = 1, .rank = rank, .lora_scale = scale};
    dil_status st = allocate(t, err);
    double size = 1 / sqrt((double)src->ne[0]);
    for (size_t i = 0; st == DIL_OK && i < rank * src->ne[0]; i++) t->p[i] = (float)(size * dil_rng_normal(rng));
    return st;
}

void dil__trainable_fini(dil__trainable *t)
{
    free(t->bytes);
    free(t->p);
    free(t->grad);
    free(t->m1);
    free(t->m2);
    free(t->best);
    t->bytes = NULL;
    t->p = t->grad = t->m1 = t->m2 = t->best = NULL;
}

void dil__trainable_apply(dil__trainable *t)
{
    const uint8_t *from = t->src->data;
    if (t->rank) return;
    if (t->d_at < 0) {
        for (size_t i = 0; i < t->n; i++) write_float(t->src->type, t->bytes, i, read_float(t->src->type, from, i) + t->unit * t->p[i]);
        return;
    }
    for (uint64_t b = 0; b < t->n_blocks; b++) {
        size_t at = b * t->block_bytes;
        float d = read_half(from + at + t->d_at), grown = d * expf(t->p[b]);
        write_half(t->bytes + at + t->d_at, grown);
        if (t->m_at >= 0) write_half(t->bytes + at + t->m_at, read_half(from + at + t->m_at) * expf(t->p[t->n_blocks + b]) + t->centre * (d - grown));
    }
}

/* W + scale B A. */
dil_status dil__trainable_values(const dil__trainable *t, float *out, dil_err *err)
{
    dil_status st = dil_engine_dequantize(t->src->type, t->rank ? t->src->data : t->bytes, dil_tensor_elems(t->src), out, err);
    if (st != DIL_OK || !t->rank) return st;
    int cols = (int)t->src->ne[0], rows = (int)t->src->ne[1], r = (int)t->rank;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows, cols, r, t->lora_scale, t->p + (size_t)r * t->src->ne[0], r, t->p, cols, 1, out, cols);
    return DIL_OK;
}

static void add_lora(dil__trainable *t, const float *dw)
{
    int cols = (int)t->src->ne[0], rows = (int)t->src->ne[1], r = (int)t->rank;
    size_t b = (size_t)r * t->src->ne[0];
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, r, cols, rows, t->lora_scale, t->p + b, r, dw, cols, 1, t->grad, cols);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, r, cols, t->lora_scale, dw, cols, t->p, cols, 1, t->grad + b, r);
}

/* The minima's part of every weight: the same blocks with d zero. */
static dil_status minima(const dil__trainable *t, float *out, uint8_t *bytes, dil_err *err)
{
    memcpy(bytes, t->bytes, t->src->bytes);
    for (uint64_t b = 0; b < t->n_blocks; b++) memset(bytes + b * t->block_bytes + t->d_at, 0, 2);
    return dil_engine_dequantize(t->src->type, bytes, t->n_blocks * t->block_elems, out, err);
}

dil_status dil__trainable_add(dil__trainable *t, const float *dw, const float *w, float *scratch, uint8_t *scratch_bytes, dil_err *err)
{
    if (t->rank) {
        add_lora(t, dw);
        return DIL_OK;
    }
    if (t->d_at < 0) {
        for (size_t i = 0; i < t->n; i++) t->grad[i] += t->unit * dw[i];
        return DIL_OK;
    }
    dil_status st = t->m_at >= 0 ? minima(t, scratch, scratch_bytes, err) : DIL_OK;
    for (uint64_t b = 0; b < t->n_blocks && st == DIL_OK; b++) {
        float all = 0, of_min = 0, sum = 0;
        for (size_t i = b * t->block_elems; i < (b + 1) * t->block_elems; i++) {
            all += dw[i] * w[i];
            if (t->m_at >= 0) of_min += dw[i] * scratch[i];
            sum += dw[i];
        }
        float moved = t->centre != 0 ? t->centre * read_half(t->bytes + b * t->block_bytes + t->d_at) * sum : 0;
        t->grad[b] += all - of_min - moved;
        /* What the centre has added to m is no part of its factor: near p = 0 it is small beside m. */
        if (t->m_at >= 0) t->grad[t->n_blocks + b] += of_min;
    }
    return st;
}

void dil__trainable_step(dil__trainable *t, double rate, double scale, uint32_t step)
{
    const float b1 = 0.9f, b2 = 0.99f; /* a hundred steps are a long training here: the usual 0.999 would still be warming up */
    float fix1 = 1 / (1 - powf(b1, (float)step)), fix2 = 1 / (1 - powf(b2, (float)step));
    for (size_t i = 0; i < t->n; i++) {
        float g = t->grad[i] * (float)scale;
        t->m1[i] = b1 * t->m1[i] + (1 - b1) * g;
        t->m2[i] = b2 * t->m2[i] + (1 - b2) * g * g;
        float pace = i < t->n_blocks || t->d_at < 0 ? t->pace_d : t->pace_m;
        t->p[i] -= pace * (float)rate * fix1 * t->m1[i] / (sqrtf(fix2 * t->m2[i]) + 1e-12f);
        t->grad[i] = 0;
    }
}
