/* Written with the compilers' vector types, which every target has: without -ffast-math they turn no plain loop with a maximum or a
 * library's exp into vector code. exp: 2^k times a polynomial on [-ln 2 / 2, ln 2 / 2], its coefficients those of the Taylor series up to the sixth
 * power (relative error 1.2e-7 there). */
#include "engine/rows.h"

#include <math.h>
#include <string.h>

enum { LANES = 4, BLOCK = 1024 };
typedef float floats __attribute__((vector_size(4 * LANES)));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t words __attribute__((vector_size(4 * LANES)));

static inline floats load(const float *x)
{
    floats v;
    memcpy(&v, x, sizeof v);
    return v;
}

static inline floats pick(ints mask, floats a, floats b)
{
    return (floats)((mask & (ints)a) | (~mask & (ints)b));
}

static float largest(const float *x, uint32_t n)
{
    float most = x[0];
    uint32_t i = 0;
    if (n >= LANES) {
        floats v = load(x);
        for (i = LANES; i + LANES <= n; i += LANES) {
            floats y = load(x + i);
            v = pick(y > v, y, v);
        }
        for (int k = 0; k < LANES; k++) most = v[k] > most ? v[k] : most;
    }
    for (; i < n; i++) most = x[i] > most ? x[i] : most;
    return most;
}

uint32_t dil__row_argmax(const float *x, uint32_t n)
{
    float block_most = x[0];
    uint32_t block = 0;
    for (uint32_t at = 0; at < n; at += BLOCK) {
        float most = largest(x + at, n - at < BLOCK ? n - at : BLOCK);
        if (most > block_most || at == 0) {
            block_most = most;
            block = at;
        }
    }
    while (x[block] != block_most) block++;
    return block;
}

/* Of values <= 0; below -87 it is 0 or nearly so. */
static inline floats exp_of(floats x)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it leaves the rounded integer in the low bits */
    x = pick(x < -87.0f, x - x - 87.0f, x);
    floats t = x * 1.44269504f + magic, k = t - magic;
    floats f = (x - k * 0.693359375f) + k * 2.12194440e-4f;
    floats p = 1.0f + f * (1.0f + f * (0.5f + f * (0.166666667f + f * (0.0416666667f + f * (8.33333333e-3f + f * 1.38888889e-3f)))));
    return (floats)((words)p + ((words)t << 23));
}

static double sum_exp(const float *x, uint32_t n, float max)
{
    floats sum = {0};
    uint32_t i = 0;
    for (; i + LANES <= n; i += LANES) sum += exp_of(load(x + i) - max);
    double all = 0;
    for (int k = 0; k < LANES; k++) all += (double)sum[k];
    for (; i < n; i++) all += exp((double)(x[i] - max));
    return all;
}

double dil__row_log_sum_exp(const float *x, uint32_t n, float max)
{
    double sum = 0;
    for (uint32_t at = 0; at < n; at += BLOCK) sum += sum_exp(x + at, n - at < BLOCK ? n - at : BLOCK, max);
    return (double)max + log(sum);
}
