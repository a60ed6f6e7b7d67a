/* What error feedback leaves: a code is chosen before the columns to its right are rounded, and scales by the diagonal alone. With all of H at
 * hand each code has a best value given all others, ŵ_j - g_j / H_jj, and so has each scale as the file stores it: half-precision d and m, the
 * integers of K types. Every step lowers the loss or is not taken, so passes end; MXFP4's exponents stay, since doubling a scale changes every code.
 *
 * A step costs n where something changes, and little changes: together less than error feedback itself. */
#include "quant/gptq_int.h"

#include "base/half.h"
#include "quant/codec_fit.h"
#include "quant/wide.h"

#include <math.h>

WIDE static void add_scaled(float *to, const float *x, float by, size_t n)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        v8f a, b;
        load(&a, to + i);
        load(&b, x + i);
        a += by * b;
        memcpy(to + i, &a, sizeof a);
    }
    for (; i < n; i++) to[i] += by * x[i];
}

/* vᵀ H v over columns [at, at + n). */
WIDE static double form(const float *h, size_t stride, const float *v, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        v8f s = {0};
        for (size_t k = 0; k + LANES <= n; k += LANES) {
            v8f a, b;
            load(&a, h + i * stride + k);
            load(&b, v + k);
            s += a * b;
        }
        sum += (double)v[i] * fold(&s);
    }
    return sum;
}

/* A block's scale moves all its columns, a code one: scales are most of the time, and settle first. */
enum { SCALE_PASSES = 2 };

/* --- codes ------------------------------------------------------------------------------------------------------------- */

static bool choose_codes(dil__chosen_row *r, size_t block)
{
    const dil__codec *c = r->codec;
    const dil__block_fit *f = &r->fit[block];
    bool changed = false;
    for (uint32_t i = 0; i < c->block; i++) {
        size_t j = block * c->block + i;
        uint32_t g = i / c->group;
        const float *h = r->h + j * r->n;
        float now = dil__codec_value(c, f, g, r->codes[j]);
        uint32_t code = dil__codec_nearest(c, (now - r->g[j] / h[j] - f->offset[g]) * f->inverse[g]);
        if (code == r->codes[j]) continue;
        float move = dil__codec_value(c, f, g, code) - now;
        if (!(2 * move * r->g[j] + move * move * h[j] < 0)) continue;
        add_scaled(r->g, h, move, r->n);
        r->codes[j] = (uint8_t)code;
        changed = true;
    }
    return changed;
}

/* --- scales ------------------------------------------------------------------------------------------------------------ */

/* A direction in which a stored number moves the values of columns [at, at + n). */
typedef struct direction {
    size_t at, n;
    float v[DIL__CODEC_BLOCK];
    double slope, bend; /* the loss along t v is 2 t slope + t² bend */
} direction;

static void measure(const dil__chosen_row *r, direction *d)
{
    d->slope = 0;
    for (size_t i = 0; i < d->n; i++) d->slope += (double)d->v[i] * (double)r->g[d->at + i];
    d->bend = form(r->h + d->at * r->n + d->at, r->n, d->v, d->n);
}

static double loss_at(const direction *d, double t)
{
    return 2 * t * d->slope + t * t * d->bend;
}

static void go(dil__chosen_row *r, const direction *d, float t)
{
    for (size_t i = 0; i < d->n; i++)
        if (d->v[i] != 0) add_scaled(r->g, r->h + (d->at + i) * r->n, t * d->v[i], r->n);
}

static void set_group(const dil__codec *c, dil__block_fit *f, uint32_t g)
{
    float d = dil__f16_to_f32(f->d), m = dil__f16_to_f32(f->m);
    bool super = c->refit_group != NULL;
    f->scale[g] = super ? d * (float)f->sub[g] : d;
    f->offset[g] = super ? -m * (float)f->submin[g] : m;
    f->inverse[g] = f->scale[g] != 0 ? 1 / f->scale[g] : 0;
}

/* A half, d or m, to the nearest of its best value. */
static bool choose_half(dil__chosen_row *r, size_t block, bool minimum)
{
    const dil__codec *c = r->codec;
    dil__block_fit *f = &r->fit[block];
    bool super = c->refit_group != NULL;
    direction d = {.at = block * c->block, .n = c->block};
    for (uint32_t i = 0; i < c->block; i++) {
        uint32_t g = i / c->group;
        if (minimum) d.v[i] = super ? -(float)f->submin[g] : 1;
        else d.v[i] = c->grid[r->codes[d.at + i]] * (super ? (float)f->sub[g] : 1);
    }
    measure(r, &d);
    if (!(d.bend > 0)) return false;
    uint16_t *half = minimum ? &f->m : &f->d;
    float now = dil__f16_to_f32(*half);
    uint16_t want = dil__f16_from_f32(now - (float)(d.slope / d.bend));
    float t = dil__f16_to_f32(want) - now;
    if (want == *half || !isfinite(t) || !(loss_at(&d, (double)t) < 0)) return false;
    if (super && dil__f16_to_f32(want) * now < 0) return false; /* the sign is the integers' */
    go(r, &d, t);
    *half = want;
    for (uint32_t g = 0; g < c->block / c->group; g++) set_group(c, f, g);
    return true;
}

/* K types: a group's integer, by one or two up or down. */
static bool choose_integer(dil__chosen_row *r, size_t block, uint32_t g, bool minimum)
{
    const dil__codec *c = r->codec;
    dil__block_fit *f = &r->fit[block];
    direction d = {.at = block * c->block + g * c->group, .n = c->group};
    float unit = dil__f16_to_f32(minimum ? f->m : f->d);
    for (uint32_t i = 0; i < c->group; i++) d.v[i] = minimum ? -unit : unit * c->grid[r->codes[d.at + i]];
    measure(r, &d);
    if (!(d.bend > 0)) return false;
    int16_t *at = minimum ? &f->submin[g] : &f->sub[g];
    int want = *at + (int)lrint(-d.slope / d.bend), low = minimum ? 0 : c->sub_min, high = minimum ? c->submin_max : c->sub_max;
    want = want < low ? low : want > high ? high : want;
    int t = want - *at;
    if (t == 0 || !(loss_at(&d, t) < 0)) return false;
    go(r, &d, (float)t);
    *at = (int16_t)want;
    set_group(c, f, g);
    return true;
}

static bool choose_scales(dil__chosen_row *r, size_t block)
{
    const dil__codec *c = r->codec;
    if (c->fit == dil__fit_block_exponent) return false;
    bool has_min = c->fit == dil__fit_block_affine || c->submin_max > 0, changed = false;
    for (uint32_t g = 0; c->refit_group && g < c->block / c->group; g++) {
        changed |= choose_integer(r, block, g, false);
        if (has_min) changed |= choose_integer(r, block, g, true);
    }
    changed |= choose_half(r, block, false);
    if (has_min) changed |= choose_half(r, block, true);
    return changed;
}

void dil__refine_row(dil__chosen_row *r, int n_passes)
{
    for (int pass = 0; pass < n_passes; pass++) {
        bool changed = false;
        for (size_t b = 0; b < r->n / r->codec->block; b++) {
            if (pass < SCALE_PASSES) changed |= choose_scales(r, b);
            changed |= choose_codes(r, b);
        }
        if (!changed) break;
    }
}
