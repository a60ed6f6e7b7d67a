/* Ladders of λ and of damping. All in sums over the text: the error that a move D leaves on a half is Σ|δ|² - 2 tr(D Bᵀ) + tr(D H Dᵀ), what
 * rounding adds tr(E H Eᵀ). One value for everything was rejected: the best of a model lie a factor of a hundred apart. */
#include "quant/crossval.h"

#include <dilemma/engine.h>

#include <cblas.h>
#include <lapacke.h>
#include <stdlib.h>
#include <string.h>

static const double ladder[] = {0.01, 0.03, 0.1, 0.3, 1, 3};
enum { N_LADDER = sizeof ladder / sizeof ladder[0], ROWS_MAX = 160 };
static const double damps[] = {0.003, 0.01, 0.03, 0.1, 0.3, 1};
enum { N_DAMPS = sizeof damps / sizeof damps[0], DAMP_ROWS = 64 };

/* x [n_rows][n] becomes x (H + share * mean I)⁻¹; a [n][n] scratch. */
static bool solve(const dil__hessian *h, double share, double *a, double *x, size_t n_rows)
{
    size_t n = h->n;
    double mean = 0;
    memcpy(a, h->sum, n * n * sizeof *a);
    for (size_t i = 0; i < n; i++) mean += a[i * n + i] / (double)n;
    for (size_t i = 0; i < n; i++) a[i * n + i] += share * mean;
    /* Row-major upper is column-major lower; the rows of x are the right-hand sides' columns. */
    return LAPACKE_dpotrf(LAPACK_COL_MAJOR, 'L', (int)n, a, (int)n) == 0 &&
           LAPACKE_dpotrs(LAPACK_COL_MAJOR, 'L', (int)n, (int)n_rows, a, (int)n, x, (int)n) == 0;
}

static dil_status singular(const dil__hessian *h, dil_err *err)
{
    return dil_fail(err, DIL_EDATA, "the covariance of %u columns is singular", h->n);
}

/* What a move x [n_rows][n] takes off the squared error of a half: 2 tr(x bᵀ) - tr(x H xᵀ). hx [n_rows][n]: scratch. */
static double gain_of(const dil__hessian *h, const double *x, const double *b, size_t n_rows, double *hx)
{
    size_t n = h->n;
    double gain = 0;
    cblas_dsymm(CblasRowMajor, CblasRight, CblasUpper, (int)n_rows, (int)n, 1, h->sum, (int)n, x, (int)n, 0, hx, (int)n);
    for (size_t i = 0; i < n_rows * n; i++) gain += x[i] * (2 * b[i] - hx[i]);
    return gain;
}

typedef struct scratch { double *a, *x, *hx, *b[2]; } scratch;

static bool allocate(scratch *s, size_t n, size_t n_rows)
{
    *s = (scratch){malloc(n * n * sizeof *s->a), malloc(n_rows * n * sizeof *s->x), malloc(n_rows * n * sizeof *s->hx),
                   {malloc(n_rows * n * sizeof *s->b[0]), malloc(n_rows * n * sizeof *s->b[1])}};
    return s->a && s->x && s->hx && s->b[0] && s->b[1];
}

/* Both halves' gains by what the other half gives. */
static bool judge(const dil__hessian *const h[2], scratch *s, double share, size_t n_rows, double *gain)
{
    *gain = 0;
    for (int half = 0; half < 2; half++) {
        memcpy(s->x, s->b[half], n_rows * h[half]->n * sizeof *s->x);
        if (!solve(h[half], share, s->a, s->x, n_rows)) return false;
        *gain += gain_of(h[!half], s->x, s->b[!half], n_rows, s->hx);
    }
    return true;
}

dil_status dil__crossval_ridge(const dil__hessian *const h[2], const double *const b[2], uint64_t n_rows, double *share, dil_err *err)
{
    size_t n = h[0]->n, rows = n_rows < ROWS_MAX ? n_rows : ROWS_MAX;
    scratch s;
    bool memory = allocate(&s, n, rows), ok = memory;
    double best = 0, gain;
    *share = -1;
    for (size_t r = 0; ok && r < rows; r++)
        for (int half = 0; half < 2; half++) memcpy(s.b[half] + r * n, b[half] + r * n_rows / rows * n, n * sizeof(double));
    /* From the shortest move on: gains rise to one peak and fall. Twice the text halves the noise, hence the λ that balances it. */
    for (size_t i = N_LADDER; ok && i-- > 0;) {
        ok = judge(h, &s, ladder[i], rows, &gain);
        if (ok && gain < best) break;
        if (!ok || gain <= 0) continue;
        best = gain;
        *share = ladder[i] / 2;
    }
    free(s.a);
    free(s.x);
    free(s.hx);
    free(s.b[0]);
    free(s.b[1]);
    if (!memory) return dil_fail(err, DIL_EMEMORY, "out of memory for a ridge solution of %zu columns", n);
    return ok ? DIL_OK : singular(h[0], err);
}

dil_status dil__ridge_move(const dil__hessian *h, double share, const double *b, float *w, uint64_t n_rows, dil_err *err)
{
    size_t n = h->n;
    double *a = malloc(n * n * sizeof *a), *x = malloc(n_rows * n * sizeof *x);
    if (!a || !x) {
        free(a);
        free(x);
        return dil_fail(err, DIL_EMEMORY, "out of memory for a ridge solution of %zu columns", n);
    }
    memcpy(x, b, n_rows * n * sizeof *x);
    bool ok = solve(h, share, a, x, n_rows);
    for (size_t i = 0; ok && i < n_rows * n; i++) w[i] += (float)x[i];
    free(a);
    free(x);
    return ok ? DIL_OK : singular(h, err);
}

/* --- damping ------------------------------------------------------------------------------------------------------------- */

typedef struct trial { float *w, *live; double *e, *he; void *data; size_t n_rows; } trial;

static bool open_trial(trial *t, dil_type type, const float *w, uint64_t n_rows, size_t n)
{
    size_t rows = n_rows < DAMP_ROWS ? n_rows : DAMP_ROWS;
    uint64_t row_bytes = 0;
    dil_type_row_bytes(type, n, &row_bytes);
    *t = (trial){malloc(rows * n * sizeof *t->w), malloc(rows * n * sizeof *t->live), malloc(rows * n * sizeof *t->e), malloc(rows * n * sizeof *t->he),
                 malloc(rows * row_bytes + 1), rows};
    bool ok = t->w && t->live && t->e && t->he && t->data;
    for (size_t r = 0; ok && r < rows; r++) memcpy(t->w + r * n, w + r * n_rows / rows * n, n * sizeof *w);
    return ok;
}

static void close_trial(trial *t)
{
    free(t->w);
    free(t->live);
    free(t->e);
    free(t->he);
    free(t->data);
}

/* tr(E H Eᵀ) on the second half of error feedback by the first's factor. */
static dil_status round_trial(trial *t, dil_type type, const dil__hessian *const h[2], double damp, int n_threads, double *loss, dil_err *err)
{
    size_t n = h[0]->n;
    float *u = NULL;
    dil_status st = dil__gptq_factor(h[0], damp, &u, err);
    if (st == DIL_OK) st = dil__gptq_quantize(type, t->w, t->n_rows, n, u, 0, t->data, n_threads, err);
    if (st == DIL_OK) st = dil_engine_dequantize(type, t->data, t->n_rows * n, t->live, err);
    free(u);
    if (st != DIL_OK) return st;
    for (size_t i = 0; i < t->n_rows * n; i++) t->e[i] = (double)t->live[i] - (double)t->w[i];
    cblas_dsymm(CblasRowMajor, CblasRight, CblasUpper, (int)t->n_rows, (int)n, 1, h[1]->sum, (int)n, t->e, (int)n, 0, t->he, (int)n);
    *loss = 0;
    for (size_t i = 0; i < t->n_rows * n; i++) *loss += t->e[i] * t->he[i];
    return DIL_OK;
}

/* Half the text asks for more damping, the passes behind error feedback for more again (both about twofold on the ladder's scale): what is found
 * here without passes stands for the whole with them. */
dil_status dil__crossval_damp(dil_type type, const dil__hessian *const h[2], const float *w, uint64_t n_rows, int n_threads, double *damp, dil_err *err)
{
    trial t;
    dil_status st = open_trial(&t, type, w, n_rows, h[0]->n) ? DIL_OK : dil_fail(err, DIL_EMEMORY, "out of memory");
    double best = 0;
    for (size_t i = N_DAMPS; i-- > 0 && st == DIL_OK;) {
        double loss;
        st = round_trial(&t, type, h, damps[i], n_threads, &loss, err);
        if (st != DIL_OK || (i + 1 < N_DAMPS && loss >= best)) break;
        best = loss;
        *damp = damps[i];
    }
    close_trial(&t);
    return st;
}
