/* The arithmetic of quant/decoder.c. Sums over a row run in double where they decide a scale. */
#include "quant/decoder_parts.h"

#include "quant/wide.h"

#include <cblas.h>
#include <math.h>
#include <string.h>

void dil__blas_threads(int n)
{
    openblas_set_num_threads(n);
}

/* --- linear layers ------------------------------------------------------------------------------------------------------- */

void dil__linear_forward(const float *x, const float *w, const float *bias, size_t n, size_t n_in, size_t n_out, float *out)
{
    for (size_t i = 0; bias && i < n; i++) memcpy(out + i * n_out, bias, n_out * sizeof *out);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)n, (int)n_out, (int)n_in, 1, x, (int)n_in, w, (int)n_in, bias ? 1 : 0, out, (int)n_out);
}

void dil__linear_backward(const float *dy, const float *x, const float *w, size_t n, size_t n_in, size_t n_out, float *dw, float *dbias, bool add,
                          float *dx)
{
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)n_out, (int)n_in, (int)n, 1, dy, (int)n_out, x, (int)n_in, 0, dw, (int)n_in);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)n, (int)n_in, (int)n_out, 1, dy, (int)n_out, w, (int)n_in, add ? 1 : 0, dx, (int)n_in);
    if (!dbias) return;
    memset(dbias, 0, n_out * sizeof *dbias);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n_out; j++) dbias[j] += dy[i * n_out + j];
}

/* --- norms ----------------------------------------------------------------------------------------------------------------- */

void dil__norm_forward(dil_norm kind, float eps, const float *x, const float *w, const float *bias, size_t n, size_t width, const dil__norm_stats *s,
                       float *out)
{
    for (size_t i = 0; i < n; i++) {
        const float *row = x + i * width;
        double mean = 0, square = 0;
        for (size_t j = 0; kind == DIL_NORM_LAYER && j < width; j++) mean += (double)row[j] / (double)width;
        for (size_t j = 0; j < width; j++) square += ((double)row[j] - mean) * ((double)row[j] - mean);
        s->mean[i] = (float)mean;
        s->rsqrt[i] = (float)(1 / sqrt(square / (double)width + (double)eps));
        for (size_t j = 0; j < width; j++) out[i * width + j] = (row[j] - s->mean[i]) * s->rsqrt[i] * w[j] + (bias ? bias[j] : 0);
    }
}

/* With z = (x - mean) r and g = dy w: dx = r (g - mean(g) - z mean(g z)), the mean of g only where one was taken of x. */
void dil__norm_backward(dil_norm kind, const float *dy, const float *x, const float *w, size_t n, size_t width, const dil__norm_stats *s, float *dx,
                        float *dw, float *dbias)
{
    memset(dw, 0, width * sizeof *dw);
    if (dbias) memset(dbias, 0, width * sizeof *dbias);
    for (size_t i = 0; i < n; i++) {
        const float *row = x + i * width, *dr = dy + i * width;
        float mean = s->mean[i], r = s->rsqrt[i];
        double g_sum = 0, gz_sum = 0;
        for (size_t j = 0; j < width; j++) {
            float z = (row[j] - mean) * r, g = dr[j] * w[j];
            dw[j] += dr[j] * z;
            if (dbias) dbias[j] += dr[j];
            g_sum += (double)g;
            gz_sum += (double)g * (double)z;
        }
        float g_mean = kind == DIL_NORM_LAYER ? (float)(g_sum / (double)width) : 0, gz_mean = (float)(gz_sum / (double)width);
        for (size_t j = 0; j < width; j++) dx[i * width + j] = r * (dr[j] * w[j] - g_mean - (row[j] - mean) * r * gz_mean);
    }
}

/* --- rotations ------------------------------------------------------------------------------------------------------------- */

void dil__rope_table(const dil_arch *a, const float *freqs, size_t n, float *table)
{
    for (size_t t = 0; t < n; t++) {
        for (size_t i = 0; i < a->rope_dims / 2; i++) {
            double f = pow((double)a->rope_freq_base, -2.0 * (double)i / (double)a->rope_dims) / (freqs ? (double)freqs[i] : 1);
            double angle = (double)t * (double)a->rope_scale * f;
            table[t * a->rope_dims + 2 * i] = (float)cos(angle);
            table[t * a->rope_dims + 2 * i + 1] = (float)sin(angle);
        }
    }
}

void dil__rope(const dil_arch *a, const float *row, float *x, size_t n_head, bool back)
{
    size_t half = a->rope_dims / 2, step = a->positions == DIL_POS_ROPE_NEOX ? half : 1, next = a->positions == DIL_POS_ROPE_NEOX ? 1 : 2;
    for (size_t h = 0; h < n_head; h++) {
        float *v = x + h * a->head_dim;
        for (size_t i = 0; i < half; i++) {
            float c = row[2 * i], s = back ? -row[2 * i + 1] : row[2 * i + 1], *p = v + i * next, p0 = p[0], p1 = p[step];
            p[0] = p0 * c - p1 * s;
            p[step] = p0 * s + p1 * c;
        }
    }
}

/* --- attention ------------------------------------------------------------------------------------------------------------- */

/* softmax of the first n entries of a row times scale; the rest up to `end` becomes zero. */
WIDE static void softmax_row(float *x, size_t n, size_t end, float scale)
{
    float max = x[0];
    for (size_t i = 1; i < n; i++) max = x[i] > max ? x[i] : max;
    size_t i = 0;
    double sum = 0;
    for (; i + LANES <= n; i += LANES) {
        v8f v;
        load(&v, x + i);
        v = (v - max) * scale;
        exp8(&v);
        memcpy(x + i, &v, sizeof v);
        sum += fold(&v);
    }
    for (; i < n; i++) {
        x[i] = expf((x[i] - max) * scale);
        sum += (double)x[i];
    }
    float inverse = (float)(1 / sum);
    for (i = 0; i < n; i++) x[i] *= inverse;
    memset(x + n, 0, (end - n) * sizeof *x);
}

/* Scores of token t to probabilities; of a forked sequence those of other branches to zero (which ends their gradients as well). */
static void attend_row(const dil__attention *a, size_t t, float *row, float scale)
{
    bool forked = a->from && t >= a->root;
    for (size_t j = a->root; forked && j < a->from[t]; j++) row[j] = -1e30f;
    softmax_row(row, t + 1, a->n, scale);
    if (forked) memset(row + a->root, 0, (a->from[t] - a->root) * sizeof *row);
}

void dil__attention_forward(const dil__attention *a)
{
    size_t d = a->head_dim, q_row = a->n_head * d, kv_row = a->n_head_kv * d, group = a->n_head / a->n_head_kv;
    float scale = 1 / sqrtf((float)d);
    int n = (int)a->n, ld = (int)a->stride;
    for (size_t h = 0; h < a->n_head; h++) {
        const float *k = a->k + h / group * d, *v = a->v + h / group * d;
        float *p = a->probs + h * a->stride * a->stride;
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, n, (int)d, 1, a->q + h * d, (int)q_row, k, (int)kv_row, 0, p, ld);
        for (size_t t = 0; t < a->n; t++) attend_row(a, t, p + t * a->stride, scale);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, (int)d, n, 1, p, ld, v, (int)kv_row, 0, a->out + h * d, (int)q_row);
    }
}

void dil__attention_backward(const dil__attention *a, const float *dout, float *dq, float *dk, float *dv)
{
    size_t d = a->head_dim, q_row = a->n_head * d, kv_row = a->n_head_kv * d, group = a->n_head / a->n_head_kv;
    float scale = 1 / sqrtf((float)d), *s = a->scores;
    int n = (int)a->n, ld = (int)a->stride, dim = (int)d, qr = (int)q_row, kr = (int)kv_row;
    for (size_t h = 0; h < a->n_head; h++) {
        size_t g = h / group * d;
        float *p = a->probs + h * a->stride * a->stride, more = h % group ? 1 : 0;
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, n, dim, n, 1, p, ld, dout + h * d, qr, more, dv + g, kr);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, n, dim, 1, dout + h * d, qr, a->v + g, kr, 0, s, ld);
        for (size_t t = 0; t < a->n; t++) {
            float *row = s + t * a->stride, *pr = p + t * a->stride;
            double sum = 0;
            for (size_t j = 0; j <= t; j++) sum += (double)row[j] * (double)pr[j];
            for (size_t j = 0; j < a->n; j++) row[j] = j <= t ? pr[j] * (row[j] - (float)sum) * scale : 0;
        }
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, dim, n, 1, s, ld, a->k + g, kr, 0, dq + h * d, qr);
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, n, dim, n, 1, s, ld, a->q + h * d, qr, more, dk + g, kr);
    }
}

/* --- activations -------------------------------------------------------------------------------------------------------------- */

/* 1 / (1 + exp(-x)), x [n], eight at a time. */
WIDE static void sigmoid(const float *x, size_t n, float *out)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        v8f v, e;
        load(&v, x + i);
        v8i negative = v < 0;
        e = (v8f)((v8i)v | (v8i)((v8u){0} + 0x80000000u)); /* -|x| */
        exp8(&e);
        v8f one = 1 / (1 + e), other = e * one;
        one = (v8f)(((v8i)other & negative) | ((v8i)one & ~negative));
        memcpy(out + i, &one, sizeof one);
    }
    for (; i < n; i++) out[i] = 1 / (1 + expf(-x[i]));
}

enum { PIECE = 1024 };

/* f [n] and its derivative at x [n], n <= PIECE; d may be NULL. */
static void value_and_slope(dil_act kind, const float *x, size_t n, float *f, float *d)
{
    if (kind == DIL_ACT_SILU) {
        sigmoid(x, n, f);
        for (size_t i = 0; i < n; i++) {
            float s = f[i];
            f[i] = x[i] * s;
            if (d) d[i] = s * (1 + x[i] * (1 - s));
        }
    } else if (kind == DIL_ACT_RELU) {
        for (size_t i = 0; i < n; i++) f[i] = x[i] > 0 ? x[i] : 0;
        for (size_t i = 0; d && i < n; i++) d[i] = x[i] > 0 ? 1.0f : 0.0f;
    } else {
        for (size_t i = 0; i < n; i++) {
            float phi = 0.5f * (1 + erff(x[i] * 0.70710678f));
            f[i] = x[i] * phi;
            if (d) d[i] = phi + x[i] * 0.39894228f * expf(-0.5f * x[i] * x[i]);
        }
    }
}

void dil__activate(dil_act kind, const float *gate, const float *up, size_t n, float *out)
{
    const float *x = gate ? gate : up;
    for (size_t at = 0; at < n; at += PIECE) {
        size_t m = n - at < PIECE ? n - at : PIECE;
        value_and_slope(kind, x + at, m, out + at, NULL);
        for (size_t i = at; gate && i < at + m; i++) out[i] *= up[i];
    }
}

void dil__activate_backward(dil_act kind, const float *gate, const float *up, const float *dout, size_t n, float *dgate, float *dup)
{
    const float *x = gate ? gate : up;
    float f[PIECE], d[PIECE];
    for (size_t at = 0; at < n; at += PIECE) {
        size_t m = n - at < PIECE ? n - at : PIECE;
        value_and_slope(kind, x + at, m, f, d);
        for (size_t i = 0; i < m; i++) {
            if (gate) {
                dup[at + i] = dout[at + i] * f[i];
                dgate[at + i] = dout[at + i] * d[i] * up[at + i];
            } else {
                dup[at + i] = dout[at + i] * d[i];
            }
        }
    }
}
