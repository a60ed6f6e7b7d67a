/* quant/wide.h - eight floats at a time: GCC's vectors, and an exponential (a polynomial, relative error below 3e-7). */
#ifndef DIL_QUANT_WIDE_H
#define DIL_QUANT_WIDE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef float v8f __attribute__((vector_size(32)));
typedef int32_t v8i __attribute__((vector_size(32)));
typedef uint32_t v8u __attribute__((vector_size(32)));
enum { LANES = 8 };

#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__SANITIZE_ADDRESS__) && !defined(__clang__)
#define WIDE __attribute__((target_clones("arch=x86-64-v3", "default")))
#else
#define WIDE
#endif

/* exp of x <= 0. Below -87 the result is about 1e-38 instead of less: nothing beside the row's maximum, exp(0). */
static inline __attribute__((always_inline)) void exp8(v8f *x)
{
    const v8f low = {-87, -87, -87, -87, -87, -87, -87, -87};
    v8i small = *x < low;
    v8f v = (v8f)(((v8i)low & small) | ((v8i)*x & ~small));
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    v8f k = v * 1.44269504f + magic;
    v8u ki = (v8u)k << 23;
    k -= magic;
    v8f r = v - k * 0.693359375f;
    r += k * 2.12194440e-4f;
    v8f p = r * 1.9875691e-4f;
    p += 1.3981999e-3f;
    p = p * r + 8.3334519e-3f;
    p = p * r + 4.1665796e-2f;
    p = p * r + 1.6666665e-1f;
    p = p * r + 5.0000001e-1f;
    p = p * r * r + r + 1.0f;
    *x = (v8f)((v8u)p + ki);
}

static inline __attribute__((always_inline)) double fold(const v8f *v)
{
    double s = 0;
    for (int i = 0; i < LANES; i++) s += (double)(*v)[i];
    return s;
}

static inline __attribute__((always_inline)) void load(v8f *v, const float *x)
{
    memcpy(v, x, sizeof *v);
}

#endif
