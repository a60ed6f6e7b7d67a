/* quant/codec.h - the grids of ggml's block types, opened up: which values a block can hold, the best scales for given weights,
 * and the packing of chosen codes into bytes.
 *
 *   const dil__codec *c = dil__codec_get(DIL_TYPE_IQ4_NL);
 *   dil__block_fit f;  c->fit(c, w, importance, &f);                       scales for one block
 *   code = dil__codec_nearest(c, (w[i] - f.offset[g]) * f.inverse[g]);     g = i / c->group; index into c->grid
 *   c->pack(&f, codes, dst);                                               c->block_bytes bytes
 *
 * Within group g a block holds the values scale[g] * grid[code] + offset[g]. Nothing here rounds a value twice: what pack writes is what
 * was chosen. Source: the block layouts of ggml 0.26 (ggml-common.h), checked against its dequantizer in codec_test.c. */
#ifndef DIL_QUANT_CODEC_H
#define DIL_QUANT_CODEC_H

#include <dilemma/tensor.h>

enum { DIL__CODEC_GROUPS = 16, DIL__CODEC_BLOCK = 256, DIL__CODEC_STEPS = 512 };

typedef struct dil__block_fit {
    float scale[DIL__CODEC_GROUPS], offset[DIL__CODEC_GROUPS];
    float inverse[DIL__CODEC_GROUPS]; /* 1 / scale, 0 for a scale of 0 */
    uint16_t d, m;                    /* the block's scale and minimum as stored: halves; MXFP4: the exponent in d */
    int16_t sub[DIL__CODEC_GROUPS];   /* K types: integer scale of each group, as it multiplies d */
    int16_t submin[DIL__CODEC_GROUPS];
} dil__block_fit;

typedef struct dil__codec dil__codec;
struct dil__codec {
    dil_type type;
    uint32_t block, group, block_bytes; /* elements, elements, bytes */
    uint32_t n_codes;
    const float *grid;                  /* [n_codes], ascending */
    bool uniform;                       /* grid[i] = grid[0] + i */
    const uint8_t *nearest;             /* [DIL__CODEC_STEPS] where not uniform: the code nearest to (i - 256) / 2 .. + 1/2 */
    int sub_min, sub_max, submin_max;   /* K types: allowed integer scales; 0, 0, 0 else */
    /* Scales that minimise sum importance * (w - value)^2, rounded as they will be stored. w, importance [block]. */
    void (*fit)(const dil__codec *c, const float *w, const float *importance, dil__block_fit *f);
    /* K types: chooses group g's integer scales again for changed weights w [group], d and m kept; NULL else. */
    void (*refit_group)(const dil__codec *c, uint32_t g, const float *w, const float *importance, dil__block_fit *f);
    void (*pack)(const dil__block_fit *f, const uint8_t *codes, uint8_t *dst); /* codes [block] index the grid */
};

const dil__codec *dil__codec_get(dil_type t); /* NULL: not one of the grids opened here */

/* Index of the grid value nearest to x. */
static inline uint32_t dil__codec_nearest(const dil__codec *c, float x)
{
    if (c->uniform) {
        float r = x - c->grid[0] + 0.5f, top = (float)c->n_codes;
        return r < top ? (r > 0 ? (uint32_t)r : 0) : c->n_codes - 1;
    }
    /* Midpoints between the values of a table are multiples of one half: half steps find the nearest exactly. */
    float half_steps = x * 2 + (float)(DIL__CODEC_STEPS / 2);
    if (!(half_steps > 0)) return 0;
    return half_steps < (float)DIL__CODEC_STEPS ? c->nearest[(uint32_t)half_steps] : c->n_codes - 1;
}

static inline float dil__codec_value(const dil__codec *c, const dil__block_fit *f, uint32_t g, uint32_t code)
{
    return f->scale[g] * c->grid[code] + f->offset[g];
}

bool dil__codec_fit_finite(const dil__codec *c, const dil__block_fit *f); /* false: the weights were too large for the type */

/* Rounds every weight to its block's fitted grid: step 1 of docs/QUALITY.md, without error feedback.
 * w [n_rows][n_cols], importance [n_cols] or NULL for equal weights, dst n_rows rows as dil_type_row_bytes counts them.
 * Errors: DIL_EUNSUPPORTED (no codec, or the block does not divide n_cols), DIL_EDATA (a weight is NaN or infinite). */
dil_status dil__codec_quantize(dil_type type, const float *w, uint64_t n_rows, uint64_t n_cols, const float *importance, void *dst,
                               int n_threads, dil_err *err);

#endif
