/* The table of grids, and the packing of each block type: the byte layouts of ggml, from its format, checked bit by bit against
 * its dequantizer (codec_test.c). */
#include "quant/codec.h"
#include "quant/codec_fit.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

static const float grid_iq4nl[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
static const float grid_fp4[15] = {-12, -8, -6, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6, 8, 12}; /* doubled e2m1, one zero */
static const uint8_t fp4_code[15] = {15, 14, 13, 12, 11, 10, 9, 0, 1, 2, 3, 4, 5, 6, 7};

/* -128..127 covers every uniform signed grid, 0..31 every unsigned one: a codec points into them. */
#define R4(x) (x), (x) + 1, (x) + 2, (x) + 3
#define R16(x) R4(x), R4((x) + 4), R4((x) + 8), R4((x) + 12)
#define R64(x) R16(x), R16((x) + 16), R16((x) + 32), R16((x) + 48)
static const float integers[256] = {R64(-128), R64(-64), R64(0), R64(64)};
#define FROM(x) (integers + 128 + (x))

static void put_u16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

/* Blocks of 32 with nibbles: byte j holds element j low and element j + 16 high. */
static void pack_nibbles(const uint8_t *codes, uint8_t *dst)
{
    for (int j = 0; j < 16; j++) dst[j] = (uint8_t)((codes[j] & 15) | (codes[j + 16] & 15) << 4);
}

static void pack_fifth_bits(const uint8_t *codes, uint8_t *dst)
{
    uint32_t bits = 0;
    for (int j = 0; j < 32; j++) bits |= (uint32_t)(codes[j] >> 4 & 1) << j;
    for (int k = 0; k < 4; k++) dst[k] = (uint8_t)(bits >> 8 * k);
}

static void pack_d4(const dil__block_fit *f, const uint8_t *codes, uint8_t *dst) /* Q4_0, IQ4_NL */
{
    put_u16(dst, f->d);
    pack_nibbles(codes, dst + 2);
}

static void pack_dm4(const dil__block_fit *f, const uint8_t *codes, uint8_t *dst) /* Q4_1 */
{
    put_u16(dst, f->d);
    put_u16(dst + 2, f->m);
    pack_nibbles(codes, dst + 4);
}

static void pack_d5(const dil__block_fit *f, const uint8_t *codes, uint8_t *dst)
{
    put_u16(dst, f->d);
    pack_fifth_bits(codes, dst + 2);
    pack_nibbles(codes, dst + 6);
}

static void pack_dm5(const dil__block_fit *f, const uint8_t *codes, uint8_t *dst)
{
    put_u16(dst, f->d);
    put_u16(dst + 2, f->m);
    pack_fifth_bits(codes, dst + 4);
    pack_nibbles(codes, dst + 8);
}

static void pack_q8(const dil__block_fit *f, const uint8_t *codes, uint8_t *dst)
{
    put_u16(dst, f->d);
    for (int j = 0; j < 32; j++) dst[2 + j] = (uint8_t)(int8_t)(codes[j] - 127);
}

static void pack_q2_0(const dil__block_fit *f, const uint8_t *codes, uint8_t *dst)
{
    put_u16(dst, f->d);
    for (int j = 0; j < 16; j++)
        dst[2 + j] = (uint8_t)(codes[4 * j] | codes[4 * j + 1] << 2 | codes[4 * j + 2] << 4 | codes[4 * j + 3] << 6);
}

static void pack_mxfp4(const dil__block_fit *f, const uint8_t *codes, uint8_t *dst)
{
    dst[0] = (uint8_t)f->d;
    for (int j = 0; j < 16; j++) dst[1 + j] = (uint8_t)(fp4_code[codes[j]] | fp4_code[codes[j + 16]] << 4);
}

/* K types keep two bits of 128 elements in 32 bytes: element 32 s + l of the half in bits 2 s of byte l. */
static void pack_two_bits(const uint8_t *codes, uint8_t *dst)
{
    for (int half = 0; half < 2; half++) {
        for (int l = 0; l < 32; l++) {
            const uint8_t *c = codes + 128 * half + l;
            dst[32 * half + l] = (uint8_t)((c[0] & 3) | (c[32] & 3) << 2 | (c[64] & 3) << 4 | (c[96] & 3) << 6);
        }
    }
}

static void pack_q2_k(const dil__block_fit *f, const uint8_t *codes, uint8_t *dst)
{
    for (int g = 0; g < 16; g++) dst[g] = (uint8_t)(f->sub[g] | f->submin[g] << 4);
    pack_two_bits(codes, dst + 16);
    put_u16(dst + 80, f->d);
    put_u16(dst + 82, f->m);
}

static void pack_q3_k(const dil__block_fit *f, const uint8_t *codes, uint8_t *dst)
{
    memset(dst, 0, 32);
    for (int i = 0; i < 256; i++) /* the third bit: element i in bit i / 32 of byte i % 32 */
        dst[i % 32] = (uint8_t)(dst[i % 32] | (codes[i] >> 2 & 1) << (i / 32));
    pack_two_bits(codes, dst + 32);
    uint8_t *s = dst + 96;
    memset(s, 0, 12);
    for (int g = 0; g < 16; g++) { /* six bits each: the low four of g and g + 8 share a byte, the high two follow */
        unsigned v = (unsigned)(f->sub[g] + 32);
        s[g % 8] = (uint8_t)(s[g % 8] | (v & 15) << (g < 8 ? 0 : 4));
        s[8 + g % 4] = (uint8_t)(s[8 + g % 4] | (v >> 4) << 2 * (g / 4));
    }
    put_u16(dst + 108, f->d);
}

/* Q4_K and Q5_K: eight six-bit scales and minima in twelve bytes. */
static void pack_scale_min(const dil__block_fit *f, uint8_t *s)
{
    memset(s, 0, 12);
    for (int g = 0; g < 4; g++) {
        s[g] = (uint8_t)(f->sub[g] | (f->sub[g + 4] >> 4) << 6);
        s[g + 4] = (uint8_t)(f->submin[g] | (f->submin[g + 4] >> 4) << 6);
        s[g + 8] = (uint8_t)((f->sub[g + 4] & 15) | (f->submin[g + 4] & 15) << 4);
    }
}

/* Nibbles of 64 elements in 32 bytes: element l low, element 32 + l high. */
static void pack_k_nibbles(const uint8_t *codes, uint8_t *dst)
{
    for (int q = 0; q < 4; q++) {
        for (int l = 0; l < 32; l++)
            dst[32 * q + l] = (uint8_t)((codes[64 * q + l] & 15) | (codes[64 * q + 32 + l] & 15) << 4);
    }
}

static void pack_q4_k(const dil__block_fit *f, const uint8_t *codes, uint8_t *dst)
{
    put_u16(dst, f->d);
    put_u16(dst + 2, f->m);
    pack_scale_min(f, dst + 4);
    pack_k_nibbles(codes, dst + 16);
}

static void pack_q5_k(const dil__block_fit *f, const uint8_t *codes, uint8_t *dst)
{
    put_u16(dst, f->d);
    put_u16(dst + 2, f->m);
    pack_scale_min(f, dst + 4);
    uint8_t *high = dst + 16;
    memset(high, 0, 32);
    for (int i = 0; i < 256; i++) high[i % 32] = (uint8_t)(high[i % 32] | (codes[i] >> 4 & 1) << (i / 32));
    pack_k_nibbles(codes, dst + 48);
}

static void pack_q6_k(const dil__block_fit *f, const uint8_t *codes, uint8_t *dst)
{
    uint8_t *low = dst, *high = dst + 128;
    for (int half = 0; half < 2; half++, low += 64, high += 32) {
        const uint8_t *c = codes + 128 * half;
        for (int l = 0; l < 32; l++) {
            low[l] = (uint8_t)((c[l] & 15) | (c[l + 64] & 15) << 4);
            low[l + 32] = (uint8_t)((c[l + 32] & 15) | (c[l + 96] & 15) << 4);
            high[l] = (uint8_t)(c[l] >> 4 | (c[l + 32] >> 4) << 2 | (c[l + 64] >> 4) << 4 | (c[l + 96] >> 4) << 6);
        }
    }
    for (int g = 0; g < 16; g++) dst[192 + g] = (uint8_t)(int8_t)f->sub[g];
    put_u16(dst + 208, f->d);
}

static void pack_iq4_xs(const dil__block_fit *f, const uint8_t *codes, uint8_t *dst)
{
    put_u16(dst, f->d);
    uint16_t high = 0;
    memset(dst + 4, 0, 4);
    for (int g = 0; g < 8; g++) {
        unsigned v = (unsigned)(f->sub[g] + 32);
        dst[4 + g / 2] = (uint8_t)(dst[4 + g / 2] | (v & 15) << 4 * (g % 2));
        high = (uint16_t)(high | (v >> 4) << 2 * g);
    }
    put_u16(dst + 2, high);
    for (int g = 0; g < 8; g++) pack_nibbles(codes + 32 * g, dst + 8 + 16 * g);
}

#define PLAIN(t, n, bytes, codes, grid, uni, near, fit, pack) \
    {DIL_TYPE_##t, n, n, bytes, codes, grid, uni, near, 0, 0, 0, fit, NULL, pack}
static uint8_t near_iq4nl[DIL__CODEC_STEPS], near_fp4[DIL__CODEC_STEPS]; /* filled once, by fill_tables */

static const dil__codec codecs[] = {
    PLAIN(Q4_0, 32, 18, 16, FROM(-8), true, NULL, dil__fit_block_scale, pack_d4),
    PLAIN(Q4_1, 32, 20, 16, FROM(0), true, NULL, dil__fit_block_affine, pack_dm4),
    PLAIN(Q5_0, 32, 22, 32, FROM(-16), true, NULL, dil__fit_block_scale, pack_d5),
    PLAIN(Q5_1, 32, 24, 32, FROM(0), true, NULL, dil__fit_block_affine, pack_dm5),
    PLAIN(Q8_0, 32, 34, 255, FROM(-127), true, NULL, dil__fit_block_scale, pack_q8),
    PLAIN(IQ4_NL, 32, 18, 16, grid_iq4nl, false, near_iq4nl, dil__fit_block_scale, pack_d4),
    PLAIN(MXFP4, 32, 17, 15, grid_fp4, false, near_fp4, dil__fit_block_exponent, pack_mxfp4),
    PLAIN(Q2_0, 64, 18, 4, FROM(-1), true, NULL, dil__fit_block_scale, pack_q2_0),
    {DIL_TYPE_Q2_K, 256, 16, 84, 4, FROM(0), true, NULL, 0, 15, 15, dil__fit_super_affine, dil__refit_group_affine, pack_q2_k},
    {DIL_TYPE_Q3_K, 256, 16, 110, 8, FROM(-4), true, NULL, -32, 31, 0, dil__fit_super_scale, dil__refit_group_scale, pack_q3_k},
    {DIL_TYPE_Q4_K, 256, 32, 144, 16, FROM(0), true, NULL, 0, 63, 63, dil__fit_super_affine, dil__refit_group_affine, pack_q4_k},
    {DIL_TYPE_Q5_K, 256, 32, 176, 32, FROM(0), true, NULL, 0, 63, 63, dil__fit_super_affine, dil__refit_group_affine, pack_q5_k},
    {DIL_TYPE_Q6_K, 256, 16, 210, 64, FROM(-32), true, NULL, -128, 127, 0, dil__fit_super_scale, dil__refit_group_scale, pack_q6_k},
    {DIL_TYPE_IQ4_XS, 256, 32, 136, 16, grid_iq4nl, false, near_iq4nl, -32, 31, 0, dil__fit_super_scale, dil__refit_group_scale, pack_iq4_xs},
};

static void fill_table(const float *grid, uint32_t n, uint8_t *nearest)
{
    for (int i = 0; i < DIL__CODEC_STEPS; i++) {
        float middle = ((float)(i - DIL__CODEC_STEPS / 2) + 0.5f) / 2;
        uint32_t code = 0;
        for (uint32_t k = 1; k < n; k++) code += middle > 0.5f * (grid[k - 1] + grid[k]);
        nearest[i] = (uint8_t)code;
    }
}

static void fill_tables(void)
{
    fill_table(grid_iq4nl, 16, near_iq4nl);
    fill_table(grid_fp4, 15, near_fp4);
}

const dil__codec *dil__codec_get(dil_type t)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, fill_tables);
    for (size_t i = 0; i < sizeof codecs / sizeof codecs[0]; i++) {
        if (codecs[i].type == t) return &codecs[i];
    }
    return NULL;
}

bool dil__codec_fit_finite(const dil__codec *c, const dil__block_fit *f)
{
    for (uint32_t g = 0; g < c->block / c->group; g++) {
        if (!isfinite(f->scale[g]) || !isfinite(f->offset[g])) return false;
    }
    return true;
}

typedef struct job {
    const dil__codec *codec;
    const float *w, *importance;
    uint64_t n_cols;
    uint8_t *dst;
    atomic_bool bad;
} job;

static void round_row(void *ctx, size_t row)
{
    job *j = ctx;
    const dil__codec *c = j->codec;
    const float *w = j->w + row * j->n_cols;
    uint8_t *dst = j->dst + row * (j->n_cols / c->block) * c->block_bytes;
    for (uint64_t b = 0; b < j->n_cols; b += c->block, dst += c->block_bytes) {
        uint8_t codes[DIL__CODEC_BLOCK];
        float imp[DIL__CODEC_BLOCK];
        for (uint32_t i = 0; i < c->block; i++) {
            imp[i] = j->importance ? j->importance[b + i] : 1;
            if (!isfinite(w[b + i])) atomic_store(&j->bad, true);
        }
        if (atomic_load(&j->bad)) return;
        dil__block_fit f;
        c->fit(c, w + b, imp, &f);
        if (!dil__codec_fit_finite(c, &f)) {
            atomic_store(&j->bad, true); /* too large for a scale stored as a half */
            return;
        }
        for (uint32_t i = 0; i < c->block; i++) {
            uint32_t g = i / c->group;
            codes[i] = (uint8_t)dil__codec_nearest(c, (w[b + i] - f.offset[g]) * f.inverse[g]);
        }
        c->pack(&f, codes, dst);
    }
}

dil_status dil__codec_quantize(dil_type type, const float *w, uint64_t n_rows, uint64_t n_cols, const float *importance, void *dst,
                               int n_threads, dil_err *err)
{
    const dil__codec *c = dil__codec_get(type);
    const dil_type_info *info = dil_type_get(type);
    if (!c || n_cols % c->block)
        return dil_fail(err, DIL_EUNSUPPORTED, "no weighted search for type %s at rows of %llu", info ? info->name : "?",
                        (unsigned long long)n_cols);
    job j = {.codec = c, .w = w, .importance = importance, .n_cols = n_cols, .dst = dst};
    atomic_init(&j.bad, false);
    dil_parallel(n_threads, n_rows, round_row, &j);
    if (atomic_load(&j.bad)) return dil_fail(err, DIL_EDATA, "a weight is not finite, or beyond what type %s can scale", info->name);
    return DIL_OK;
}
