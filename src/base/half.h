/* base/half.h - IEEE 754 binary16 and bfloat16 to and from float, round to nearest even, in plain C: not every supported
 * compiler has _Float16, and the results must be the same on every node. */
#ifndef DIL_BASE_HALF_H
#define DIL_BASE_HALF_H

#include <stdint.h>
#include <string.h>

static inline uint32_t dil__f32_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static inline float dil__f32_from_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline float dil__f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exp = (h >> 10) & 31, man = h & 1023;
    if (exp == 31) return dil__f32_from_bits(sign | 0x7f800000 | man << 13);
    if (exp) return dil__f32_from_bits(sign | (exp + 112) << 23 | man << 13);
    float f = (float)man * 0x1p-24f; /* zero and subnormals, exact */
    return sign ? -f : f;
}

/* Beyond the largest finite half the result is infinite; NaN stays NaN. */
static inline uint16_t dil__f16_from_f32(float f)
{
    uint32_t u = dil__f32_bits(f), sign = (u >> 16) & 0x8000, a = u & 0x7fffffff;
    if (a > 0x7f800000) return (uint16_t)(sign | 0x7e00);
    if (a >= 0x477ff000) return (uint16_t)(sign | 0x7c00);     /* rounds beyond 65504 */
    if (a < 0x38800000) {                                      /* below 2^-14: subnormal, units of 2^-24 */
        float scaled = dil__f32_from_bits(a) + 0.5f;           /* the addition rounds to nearest even at 2^-24 */
        return (uint16_t)(sign | (dil__f32_bits(scaled) - 0x3f000000));
    }
    uint32_t odd = (a >> 13) & 1;
    return (uint16_t)(sign | ((a - 0x38000000 + 0xfff + odd) >> 13));
}

static inline float dil__bf16_to_f32(uint16_t h)
{
    return dil__f32_from_bits((uint32_t)h << 16);
}

static inline uint16_t dil__bf16_from_f32(float f)
{
    uint32_t u = dil__f32_bits(f);
    if ((u & 0x7fffffff) > 0x7f800000) return (uint16_t)(u >> 16 | 64); /* quiet NaN */
    return (uint16_t)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

#endif
