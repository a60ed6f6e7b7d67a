/* GPTQ onto block grids. Rows are independent, so threads take slabs of rows; within a slab the columns go left to right in units of
 * one scale group: the group's scale is chosen for the weights as compensation has left them, each column is rounded and its error
 * spread over the unit's later columns at once, over all later columns by one matrix product.
 * Scales fixed before any compensation were rejected: without the search on compensated weights GPTQ does not beat an importance
 * matrix (DESIGN section 3). Column reordering (act-order) is not possible: blocks are consecutive columns in the file. */
#include "quant/gptq.h"
#include "quant/codec.h"
#include "quant/gptq_int.h"

#include <cblas.h>
#include <lapacke.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

dil_status dil__hessian_init(dil__hessian *h, uint32_t n, dil_err *err)
{
    *h = (dil__hessian){.n = n, .sum = calloc((size_t)n * n, sizeof(double)), .batch = malloc((size_t)n * n * sizeof(float))};
    if (h->sum && h->batch) return DIL_OK;
    dil__hessian_fini(h);
    return dil_fail(err, DIL_EMEMORY, "no memory for a %u x %u covariance", n, n);
}

void dil__hessian_fini(dil__hessian *h)
{
    free(h->sum);
    free(h->batch);
    *h = (dil__hessian){0};
}

dil_status dil__hessian_add(dil__hessian *h, const float *x, uint64_t n_rows, dil_err *err)
{
    size_t n = h->n;
    for (size_t i = 0; i < n_rows * n; i++) {
        if (!isfinite(x[i])) return dil_fail(err, DIL_EDATA, "activation %zu of row %zu is not finite", i % n, i / n);
    }
    cblas_ssyrk(CblasRowMajor, CblasUpper, CblasTrans, (int)n, (int)n_rows, 1, x, (int)n, 0, h->batch, (int)n);
    for (size_t i = 0; i < n; i++) {
        for (size_t j = i; j < n; j++) h->sum[i * n + j] += (double)h->batch[i * n + j];
    }
    h->n_rows += n_rows;
    return DIL_OK;
}

void dil__hessian_join(dil__hessian *h, const dil__hessian *other)
{
    for (size_t i = 0; i < (size_t)h->n * h->n; i++) h->sum[i] += other->sum[i];
    h->n_rows += other->n_rows;
}

/* Upper U with H^-1 = U^T U, in place in a [n][n]; false when H is not positive definite. */
static bool invert_and_factor(double *a, int n)
{
    if (LAPACKE_dpotrf(LAPACK_ROW_MAJOR, 'U', n, a, n) != 0) return false;
    if (LAPACKE_dpotri(LAPACK_ROW_MAJOR, 'U', n, a, n) != 0) return false;
    return LAPACKE_dpotrf(LAPACK_ROW_MAJOR, 'U', n, a, n) == 0;
}

static void damped_copy(const dil__hessian *h, double damp, double *a)
{
    size_t n = h->n;
    double mean = 0;
    for (size_t i = 0; i < n; i++) mean += h->sum[i * n + i];
    mean /= (double)n;
    memcpy(a, h->sum, n * n * sizeof *a);
    for (size_t i = 0; i < n; i++) {
        if (a[i * n + i] <= 0) a[i * n + i] = mean; /* an input that is always zero: its weights touch nothing */
        a[i * n + i] += damp * mean;
    }
}

dil_status dil__gptq_factor(const dil__hessian *h, double damp, float **u, dil_err *err)
{
    size_t n = h->n;
    if (h->n_rows == 0) return dil_fail(err, DIL_EDATA, "no calibration rows for a covariance of %u columns", h->n);
    double *a = malloc(n * n * sizeof *a);
    float *out = malloc(n * n * sizeof *out);
    if (!a || !out) {
        free(a);
        free(out);
        return dil_fail(err, DIL_EMEMORY, "no memory for a %zu x %zu factor", n, n);
    }
    bool ok = false;
    for (double d = damp; !ok && d <= 1; d = d > 0 ? d * 10 : 1e-6) {
        damped_copy(h, d, a);
        ok = invert_and_factor(a, (int)n);
    }
    for (size_t i = 0; ok && i < n; i++) {
        for (size_t j = 0; j < n; j++) out[i * n + j] = j < i ? 0 : (float)a[i * n + j];
        ok = isfinite(out[i * n + i]) && out[i * n + i] > 0;
    }
    free(a);
    if (!ok) {
        free(out);
        return dil_fail(err, DIL_EDATA, "the covariance of %zu columns from %llu rows is singular", n, (unsigned long long)h->n_rows);
    }
    *u = out;
    return DIL_OK;
}

enum { SLAB_ROWS = 64, UNIT_MAX = 64 };

typedef struct job {
    const dil__codec *codec;
    const float *w, *u, *h, *importance; /* h: NULL without passes */
    uint64_t n_rows, n_cols;
    int n_passes;
    uint8_t *dst;
    atomic_int failure; /* dil_status of the first failure */
} job;

/* Rows in work: compensated weights, errors of a unit, codes and fits of all blocks, gradients. */
typedef struct slab_rows {
    float *w, *e, *g;       /* [n][n_cols], [n][UNIT_MAX], [n][n_cols] */
    uint8_t *codes;         /* [n][n_cols] */
    dil__block_fit *fit;    /* [n][n_cols / block] */
} slab_rows;

/* Rounds columns [at, at + group) of one row; writes codes, and the scaled errors to e [group]. */
static void round_unit(const job *j, const dil__block_fit *f, uint32_t g, float *w, size_t at, uint8_t *codes, float *e)
{
    const dil__codec *c = j->codec;
    for (uint32_t i = 0; i < c->group; i++) {
        const float *u = j->u + (at + i) * j->n_cols + at;
        codes[i] = (uint8_t)dil__codec_nearest(c, (w[i] - f->offset[g]) * f->inverse[g]);
        e[i] = (w[i] - dil__codec_value(c, f, g, codes[i])) / u[i];
        for (uint32_t k = i + 1; k < c->group; k++) w[k] -= e[i] * u[k];
    }
}

static dil_status feed_back(const job *j, const slab_rows *s, size_t n)
{
    const dil__codec *c = j->codec;
    size_t cols = j->n_cols, blocks = cols / c->block;
    for (size_t at = 0; at < cols; at += c->group) {
        uint32_t g = (uint32_t)(at % c->block / c->group);
        size_t rest = at + c->group;
        for (size_t r = 0; r < n; r++) {
            float *row = s->w + r * cols;
            dil__block_fit *f = &s->fit[r * blocks + at / c->block];
            if (g == 0) c->fit(c, row + at, j->importance + at, f);
            else if (c->refit_group) c->refit_group(c, g, row + at, j->importance + at, f);
            if (!dil__codec_fit_finite(c, f)) return DIL_EDATA;
            round_unit(j, f, g, row + at, at, s->codes + r * cols + at, s->e + r * c->group);
        }
        if (rest < cols)
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)n, (int)(cols - rest), (int)c->group, -1, s->e, (int)c->group,
                        j->u + at * cols + rest, (int)cols, 1, s->w + rest, (int)cols);
    }
    return DIL_OK;
}

/* w: becomes ŵ - w. */
static void refine(const job *j, const slab_rows *s, size_t first, size_t n)
{
    const dil__codec *c = j->codec;
    size_t cols = j->n_cols, blocks = cols / c->block;
    for (size_t r = 0; r < n; r++) {
        for (size_t i = 0; i < cols; i++) {
            const dil__block_fit *f = &s->fit[r * blocks + i / c->block];
            s->w[r * cols + i] = dil__codec_value(c, f, (uint32_t)(i % c->block / c->group), s->codes[r * cols + i]) - j->w[(first + r) * cols + i];
        }
    }
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)n, (int)cols, (int)cols, 1, s->w, (int)cols, j->h, (int)cols, 0, s->g, (int)cols);
    for (size_t r = 0; r < n; r++) {
        dil__chosen_row row = {c, j->h, cols, s->codes + r * cols, s->fit + r * blocks, s->g + r * cols};
        dil__refine_row(&row, j->n_passes);
    }
}

static dil_status quantize_slab(const job *j, size_t first, size_t n, const slab_rows *s)
{
    const dil__codec *c = j->codec;
    size_t cols = j->n_cols, blocks = cols / c->block;
    memcpy(s->w, j->w + first * cols, n * cols * sizeof *s->w);
    for (size_t i = 0; i < n * cols; i++) {
        if (!isfinite(s->w[i])) return DIL_EDATA;
    }
    dil_status st = feed_back(j, s, n);
    if (st != DIL_OK) return st;
    if (j->h) refine(j, s, first, n);
    for (size_t b = 0; b < n * blocks; b++) c->pack(&s->fit[b], s->codes + b * c->block, j->dst + (first * blocks + b) * c->block_bytes);
    return DIL_OK;
}

static void slab(void *ctx, size_t index)
{
    job *j = ctx;
    size_t first = index * SLAB_ROWS, n = j->n_rows - first < SLAB_ROWS ? j->n_rows - first : SLAB_ROWS, cols = j->n_cols;
    slab_rows r = {malloc(n * cols * sizeof *r.w), malloc(n * UNIT_MAX * sizeof *r.e), malloc(n * cols * sizeof *r.g), malloc(n * cols),
                   malloc(n * (cols / j->codec->block) * sizeof *r.fit)};
    dil_status s = r.w && r.e && r.g && r.codes && r.fit ? quantize_slab(j, first, n, &r) : DIL_EMEMORY;
    if (s != DIL_OK) atomic_store(&j->failure, (int)s);
    free(r.w);
    free(r.e);
    free(r.g);
    free(r.codes);
    free(r.fit);
}

/* H as the factor has it, damping included: (UᵀU)⁻¹. NULL: out of memory. */
static float *covariance_of(const float *u, size_t n)
{
    double *a = malloc(n * n * sizeof *a);
    float *h = malloc(n * n * sizeof *h);
    if (!a || !h) {
        free(a);
        free(h);
        return NULL;
    }
    for (size_t i = 0; i < n * n; i++) a[i] = (double)u[i];
    LAPACKE_dpotri(LAPACK_ROW_MAJOR, 'U', (int)n, a, (int)n); /* fails for a diagonal with a zero only: the factor has none */
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < n; k++) h[i * n + k] = (float)(k < i ? a[k * n + i] : a[i * n + k]);
    }
    free(a);
    return h;
}

dil_status dil__gptq_quantize(dil_type type, const float *w, uint64_t n_rows, uint64_t n_cols, const float *u, int n_passes, void *dst,
                              int n_threads, dil_err *err)
{
    const dil__codec *c = dil__codec_get(type);
    const dil_type_info *info = dil_type_get(type);
    if (!c || n_cols % c->block || c->group > UNIT_MAX)
        return dil_fail(err, DIL_EUNSUPPORTED, "no error feedback for type %s at rows of %llu", info ? info->name : "?",
                        (unsigned long long)n_cols);
    float *importance = malloc(n_cols * sizeof *importance), *h = n_passes > 0 ? covariance_of(u, n_cols) : NULL;
    if (!importance || (n_passes > 0 && !h)) {
        free(importance);
        free(h);
        return dil_fail(err, DIL_EMEMORY, "no memory for %llu columns", (unsigned long long)n_cols);
    }
    /* What rounding column k costs once the later ones have compensated: e^2 / U_kk^2. */
    for (size_t k = 0; k < n_cols; k++) importance[k] = 1 / (u[k * n_cols + k] * u[k * n_cols + k]);
    job j = {.codec = c, .w = w, .u = u, .h = h, .importance = importance, .n_rows = n_rows, .n_cols = n_cols, .n_passes = n_passes, .dst = dst};
    atomic_init(&j.failure, DIL_OK);
    int blas_threads = openblas_get_num_threads();
    openblas_set_num_threads(1); /* the slabs are the threads */
    dil_parallel(n_threads, (n_rows + SLAB_ROWS - 1) / SLAB_ROWS, slab, &j);
    openblas_set_num_threads(blas_threads);
    free(importance);
    free(h);
    dil_status s = (dil_status)atomic_load(&j.failure);
    if (s == DIL_EMEMORY) return dil_fail(err, s, "no memory for slabs of %d rows", SLAB_ROWS);
    if (s != DIL_OK) return dil_fail(err, s, "a weight is not finite, or beyond what type %s can scale", info->name);
    return DIL_OK;
}
