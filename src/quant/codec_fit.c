/* Scale searches by weighted squared error.
 *
 * For one scale: a ladder of candidates between "the largest weight sits on the outermost value" and a clipped range, both signs where
 * the grid is not symmetric; each candidate's codes give the least-squares scale, whose error is a closed form; the best is polished by
 * coding again with it. For scale and minimum the same with a 2 x 2 system. K types choose the groups' ideal scales first, then the
 * block's, then each group's integers among the neighbours, then the block's again by least squares.
 * Plain min/max scaling was rejected: at 4 bits it costs about a fifth of the weighted error (DESIGN section 3, step 1). */
#include "quant/codec_fit.h"
#include "base/half.h"

#include <math.h>

double dil__fit_error(const dil__codec *c, const float *w, const float *imp, uint32_t n, float scale, float offset)
{
    float inverse = scale != 0 ? 1 / scale : 0;
    double err = 0;
    for (uint32_t i = 0; i < n; i++) {
        float e = w[i] - (scale * c->grid[dil__codec_nearest(c, (w[i] - offset) * inverse)] + offset);
        err += (double)imp[i] * e * e;
    }
    return err;
}

/* Codes w with 1/inverse; returns what the least-squares scale would save, (sum wq)^2 / sum qq, and that scale. */
static double gain_of(const dil__codec *c, const float *w, const float *imp, uint32_t n, float inverse, float *scale)
{
    double wq = 0, qq = 0;
    for (uint32_t i = 0; i < n; i++) {
        float q = c->grid[dil__codec_nearest(c, w[i] * inverse)];
        wq += (double)imp[i] * w[i] * q;
        qq += (double)imp[i] * q * q;
    }
    *scale = qq > 0 ? (float)(wq / qq) : 0;
    return qq > 0 ? wq * wq / qq : 0;
}

enum { SCALE_STEPS = 16 };

float dil__fit_scale(const dil__codec *c, const float *w, const float *imp, uint32_t n)
{
    float amax = 0;
    for (uint32_t i = 0; i < n; i++) amax = fabsf(w[i]) > amax ? fabsf(w[i]) : amax;
    if (amax < 1e-30f) return 0;
    float low = -c->grid[0], high = c->grid[c->n_codes - 1];
    float top = low > high ? low : high;
    bool symmetric = low == high;
    float best = 0;
    double best_gain = -1;
    for (int sign = 1; sign >= (symmetric ? 1 : -1); sign -= 2) {
        for (int k = 0; k < SCALE_STEPS; k++) {
            /* 0.75 to 1.35 of the outermost value under the largest weight: beyond 1 the largest weights are clipped. */
            float inverse = (float)sign * top * (0.75f + 0.04f * (float)k) / amax, scale;
            double gain = gain_of(c, w, imp, n, inverse, &scale);
            if (gain > best_gain) {
                best_gain = gain;
                best = scale;
            }
        }
    }
    for (int polish = 0; polish < 2 && best != 0; polish++) {
        float scale;
        double gain = gain_of(c, w, imp, n, 1 / best, &scale);
        if (gain <= best_gain) break;
        best_gain = gain;
        best = scale;
    }
    return best;
}

/* Least squares for w ~ scale q + offset with given codes; falls back to offset 0 where that is asked for or singular. */
static void solve_affine(const dil__codec *c, const float *w, const float *imp, uint32_t n, float inverse, float from, bool nonpositive,
                         float *scale, float *offset)
{
    double s = 0, q1 = 0, q2 = 0, w1 = 0, wq = 0;
    for (uint32_t i = 0; i < n; i++) {
        double p = imp[i], q = c->grid[dil__codec_nearest(c, (w[i] - from) * inverse)];
        s += p;
        q1 += p * q;
        q2 += p * q * q;
        w1 += p * w[i];
        wq += p * q * w[i];
    }
    double det = s * q2 - q1 * q1;
    double a = det > 1e-12 * s * q2 ? (s * wq - q1 * w1) / det : 0, b = s > 0 ? (w1 - a * q1) / s : 0;
    if (det <= 1e-12 * s * q2 || (nonpositive && b > 0)) {
        b = nonpositive && b > 0 ? 0 : b;
        a = b == 0 && q2 > 0 ? wq / q2 : a;
    }
    *scale = (float)(a > 0 ? a : 0);
    *offset = (float)b;
}

enum { AFFINE_STEPS = 22, AFFINE_STARTS = 3 };

void dil__fit_affine(const dil__codec *c, const float *w, const float *imp, uint32_t n, bool nonpositive, float *scale, float *offset)
{
    float lo = w[0], hi = w[0];
    for (uint32_t i = 1; i < n; i++) {
        lo = w[i] < lo ? w[i] : lo;
        hi = w[i] > hi ? w[i] : hi;
    }
    if (nonpositive && lo > 0) lo = 0;
    *scale = 0;
    *offset = lo;
    if (hi - lo < 1e-30f) return;
    double best = INFINITY;
    float top = (float)(c->n_codes - 1);
    /* K types search sixteen groups a block several times over: a coarser ladder loses 1 % of the error and saves two thirds of the time. */
    int stride = nonpositive ? 4 : 1;
    for (int k = 0; k < AFFINE_STEPS * AFFINE_STARTS; k += stride) {
        /* Steps from one that leaves a value unused to one that clips about 1.3 steps: all at the top, half and half, at the bottom. */
        float inverse = (top - 0.9f + 0.1f * (float)(k / AFFINE_STARTS)) / (hi - lo);
        float clipped = hi - lo - top / inverse;
        float from = lo + 0.5f * (float)(k % AFFINE_STARTS) * clipped;
        if (nonpositive && from > 0) from = 0;
        for (int polish = 0; polish < 2; polish++) {
            float a, b;
            solve_affine(c, w, imp, n, inverse, from, nonpositive, &a, &b);
            if (a <= 0) break;
            double err = dil__fit_error(c, w, imp, n, a, b);
            if (err < best) {
                best = err;
                *scale = a;
                *offset = b;
            }
            inverse = 1 / a;
            from = b;
        }
    }
}

static void set_group(dil__block_fit *f, uint32_t g, float scale, float offset)
{
    f->scale[g] = scale;
    f->offset[g] = offset;
    f->inverse[g] = scale != 0 ? 1 / scale : 0;
}

void dil__fit_block_scale(const dil__codec *c, const float *w, const float *imp, dil__block_fit *f)
{
    f->d = dil__f16_from_f32(dil__fit_scale(c, w, imp, c->block));
    f->m = 0;
    set_group(f, 0, dil__f16_to_f32(f->d), 0);
}

void dil__fit_block_affine(const dil__codec *c, const float *w, const float *imp, dil__block_fit *f)
{
    float scale, offset;
    dil__fit_affine(c, w, imp, c->block, false, &scale, &offset);
    f->d = dil__f16_from_f32(scale);
    f->m = dil__f16_from_f32(offset);
    set_group(f, 0, dil__f16_to_f32(f->d), dil__f16_to_f32(f->m));
}

/* The stored exponent e stands for 2^(e - 128), half the unit of the doubled e2m1 grid. */
void dil__fit_block_exponent(const dil__codec *c, const float *w, const float *imp, dil__block_fit *f)
{
    float amax = 0;
    for (uint32_t i = 0; i < c->block; i++) amax = fabsf(w[i]) > amax ? fabsf(w[i]) : amax;
    f->d = f->m = 0;
    set_group(f, 0, 0x1p-128f, 0);
    f->inverse[0] = 0; /* 2^128 is no float */
    if (amax < 0x1p-100f) return;
    int exp;
    frexpf(amax / c->grid[c->n_codes - 1], &exp);
    double best = INFINITY;
    for (int e = exp - 2; e <= exp + 1; e++) {
        if (e + 128 < 1 || e + 128 > 254) continue;
        float scale = ldexpf(1, e);
        double err = dil__fit_error(c, w, imp, c->block, scale, 0);
        if (err >= best) continue;
        best = err;
        f->d = (uint16_t)(e + 128);
        set_group(f, 0, scale, 0);
    }
}

static int clamp_int(int x, int lo, int hi)
{
    return x < lo ? lo : x > hi ? hi : x;
}

void dil__refit_group_scale(const dil__codec *c, uint32_t g, const float *w, const float *imp, dil__block_fit *f)
{
    float d = dil__f16_to_f32(f->d);
    int ideal = d != 0 ? (int)lrintf(dil__fit_scale(c, w, imp, c->group) / d) : 0;
    double best = INFINITY;
    for (int s = ideal - 1; s <= ideal + 1; s++) {
        int sub = clamp_int(s, c->sub_min, c->sub_max);
        double err = dil__fit_error(c, w, imp, c->group, d * (float)sub, 0);
        if (err >= best) continue;
        best = err;
        f->sub[g] = (int16_t)sub;
    }
    set_group(f, g, d * (float)f->sub[g], 0);
}

void dil__refit_group_affine(const dil__codec *c, uint32_t g, const float *w, const float *imp, dil__block_fit *f)
{
    float d = dil__f16_to_f32(f->d), m = dil__f16_to_f32(f->m), scale, offset;
    dil__fit_affine(c, w, imp, c->group, true, &scale, &offset);
    int ideal = d != 0 ? (int)lrintf(scale / d) : 0, ideal_min = m != 0 ? (int)lrintf(-offset / m) : 0;
    double best = INFINITY;
    for (int s = ideal - 1; s <= ideal + 1; s++) {
        for (int t = ideal_min - 1; t <= ideal_min + 1; t++) {
            int sub = clamp_int(s, 0, c->sub_max), submin = clamp_int(t, 0, c->submin_max);
            double err = dil__fit_error(c, w, imp, c->group, d * (float)sub, -m * (float)submin);
            if (err >= best) continue;
            best = err;
            f->sub[g] = (int16_t)sub;
            f->submin[g] = (int16_t)submin;
        }
    }
    set_group(f, g, d * (float)f->sub[g], -m * (float)f->submin[g]);
}

/* Least squares for the block's d with the integers and codes kept. */
static float refine_scale(const dil__codec *c, const float *w, const float *imp, const dil__block_fit *f)
{
    double wq = 0, qq = 0;
    for (uint32_t i = 0; i < c->block; i++) {
        uint32_t g = i / c->group;
        double q = (double)f->sub[g] * c->grid[dil__codec_nearest(c, w[i] * f->inverse[g])];
        wq += imp[i] * q * w[i];
        qq += imp[i] * q * q;
    }
    return qq > 0 ? (float)(wq / qq) : 0;
}

static double block_error(const dil__codec *c, const float *w, const float *imp, const dil__block_fit *f)
{
    double err = 0;
    for (uint32_t g = 0; g < c->block / c->group; g++)
        err += dil__fit_error(c, w + g * c->group, imp + g * c->group, c->group, f->scale[g], f->offset[g]);
    return err;
}

static void fit_groups(const dil__codec *c, const float *w, const float *imp, dil__block_fit *f)
{
    for (uint32_t g = 0; g < c->block / c->group; g++) c->refit_group(c, g, w + g * c->group, imp + g * c->group, f);
}

void dil__fit_super_scale(const dil__codec *c, const float *w, const float *imp, dil__block_fit *f)
{
    float extreme = 0;
    for (uint32_t g = 0; g < c->block / c->group; g++) {
        float s = dil__fit_scale(c, w + g * c->group, imp + g * c->group, c->group);
        if (fabsf(s) > fabsf(extreme)) extreme = s;
    }
    /* The largest group takes the end of the integers that reaches further. */
    int end = -c->sub_min > c->sub_max ? c->sub_min : c->sub_max;
    *f = (dil__block_fit){.d = dil__f16_from_f32(extreme / (float)end)};
    fit_groups(c, w, imp, f);
    dil__block_fit again = {.d = dil__f16_from_f32(refine_scale(c, w, imp, f))};
    fit_groups(c, w, imp, &again);
    if (block_error(c, w, imp, &again) < block_error(c, w, imp, f)) *f = again;
}

/* Least squares for d and m with the integers and codes kept: w ~ d (sub q) - m submin. */
static void refine_affine(const dil__codec *c, const float *w, const float *imp, const dil__block_fit *f, float *d, float *m)
{
    double aa = 0, ab = 0, bb = 0, wa = 0, wb = 0;
    for (uint32_t i = 0; i < c->block; i++) {
        uint32_t g = i / c->group;
        double a = (double)f->sub[g] * c->grid[dil__codec_nearest(c, (w[i] - f->offset[g]) * f->inverse[g])];
        double b = -(double)f->submin[g], p = imp[i];
        aa += p * a * a;
        ab += p * a * b;
        bb += p * b * b;
        wa += p * w[i] * a;
        wb += p * w[i] * b;
    }
    double det = aa * bb - ab * ab;
    if (det <= 1e-12 * aa * bb) return;
    double x = (bb * wa - ab * wb) / det, y = (aa * wb - ab * wa) / det;
    if (x > 0 && y >= 0) {
        *d = (float)x;
        *m = (float)y;
    }
}

void dil__fit_super_affine(const dil__codec *c, const float *w, const float *imp, dil__block_fit *f)
{
    float top = 0, deep = 0;
    for (uint32_t g = 0; g < c->block / c->group; g++) {
        float s, o;
        dil__fit_affine(c, w + g * c->group, imp + g * c->group, c->group, true, &s, &o);
        top = s > top ? s : top;
        deep = -o > deep ? -o : deep;
    }
    *f = (dil__block_fit){.d = dil__f16_from_f32(top / (float)c->sub_max), .m = dil__f16_from_f32(deep / (float)c->submin_max)};
    fit_groups(c, w, imp, f);
    float d = dil__f16_to_f32(f->d), m = dil__f16_to_f32(f->m);
    refine_affine(c, w, imp, f, &d, &m);
    dil__block_fit again = {.d = dil__f16_from_f32(d), .m = dil__f16_from_f32(m)};
    fit_groups(c, w, imp, &again);
    if (block_error(c, w, imp, &again) < block_error(c, w, imp, f)) *f = again;
}
