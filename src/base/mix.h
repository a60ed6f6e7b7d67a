/* base/mix.h - spreads the bits of a key over a 64-bit word, for hash tables; without a secret, so whoever chooses keys can make them collide. */
#ifndef DIL_BASE_MIX_H
#define DIL_BASE_MIX_H

#include <stdint.h>

static inline uint64_t dil__mix(uint64_t h)
{
    h ^= h >> 32;
    h *= 0xD6E8FEB86659FD93u;
    h ^= h >> 32;
    h *= 0xD6E8FEB86659FD93u;
    return h ^ h >> 32;
}

#endif
