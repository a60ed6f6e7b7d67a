/* One backward pass a sequence. The labels are sampled rather than given by the text: the text's own labels give the gradient's square of a
 * model that does not fit it, which is another matrix. */
#include "quant/table_metric.h"

#include "quant/decoder.h"
#include "quant/logits.h"

#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 128, SEED = 20 };

typedef struct run {
    const dil__table_metric_opts *o;
    dil__decoder *d;
    dil__hessian *h;
    size_t word;
    float *out, *dout, *g; /* [n_ctx][word] what the head multiplies, its gradient; the words' gradient */
    float *logits;         /* [ROWS][n_vocab] */
    float *dtable;         /* [n_vocab][word] the backward pass wants it */
    double *draw;          /* [ROWS] in [0, 1) */
    float *doubt;          /* [ROWS] 1 - Σ p² */
    dil_status st;
    dil_err err;
} run;

/* Logits become softmax minus the sampled label. */
static void sample_row(void *ctx, size_t i)
{
    const run *r = ctx;
    size_t n = r->o->arch->n_vocab, label = n;
    float *q = r->logits + i * n;
    dil__lse l = dil__logits_lse(q, n);
    float z = (float)((double)l.max + l.log_sum);
    double sum = 0, squares = 0;
    for (size_t k = 0; k < n; k++) {
        q[k] = expf(q[k] - z);
        sum += (double)q[k];
        squares += (double)q[k] * (double)q[k];
        if (label == n && sum > r->draw[i]) label = k;
    }
    q[label < n ? label : l.argmax] -= 1;
    r->doubt[i] = (float)fmax(0, 1 - squares);
}

/* The head's part of a sequence, and dout. */
static dil_status head_part(run *r, dil_rng *rng, dil_err *err)
{
    const float *table = dil__decoder_table(r->d);
    size_t n_ctx = r->o->n_ctx, m = r->word, v = r->o->arch->n_vocab;
    dil_status st = DIL_OK;
    for (size_t at = 0; at < n_ctx && st == DIL_OK; at += ROWS) {
        size_t n = n_ctx - at < ROWS ? n_ctx - at : ROWS;
        float *x = r->out + at * m;
        for (size_t i = 0; i < n; i++) r->draw[i] = dil_rng_unit(rng);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)n, (int)v, (int)m, 1, x, (int)m, table, (int)m, 0, r->logits, (int)v);
        dil_parallel(r->o->n_threads, n, sample_row, r);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)n, (int)m, (int)v, 1, r->logits, (int)v, table, (int)m, 0, r->dout + at * m, (int)m);
        for (size_t i = 0; i < n; i++)
            for (size_t k = 0; k < m; k++) x[i * m + k] *= sqrtf(r->doubt[i]);
        st = dil__hessian_add(r->h, x, n, err);
    }
    return st;
}

/* The hook behind the embedding: the stream's gradient there, back to the words'. */
static void embedding_part(void *ctx, uint32_t layer, uint32_t n, const float *h, float *dh)
{
    run *r = ctx;
    (void)h;
    if (layer != 0 || r->st != DIL_OK) return;
    const dil_arch *a = r->o->arch;
    dil_layer_tensor t[DIL_LAYER_TENSORS_MAX];
    size_t n_t = dil_arch_layer_tensors(a, 0, t), p = 0;
    while (p < n_t && strcmp(t[p].role, "project_in") != 0) p++;
    if (p < n_t)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)n, (int)r->word, (int)a->n_embd, 1, dh, (int)a->n_embd, dil__decoder_tensor(r->d, 0, p),
                    (int)r->word, 0, r->g, (int)r->word);
    else memcpy(r->g, dh, n * r->word * sizeof *r->g);
    r->st = dil__hessian_add(r->h, r->g, n, &r->err);
}

static void ignore(void *ctx, uint32_t layer, size_t index, const dil_layer_tensor *t, const float *grad)
{
    (void)ctx, (void)layer, (void)index, (void)t, (void)grad;
}

static dil_status one_sequence(run *r, const int32_t *ids, dil_rng *rng, dil_err *err)
{
    dil__decoder_forward(r->d, ids, r->o->n_ctx, r->out);
    dil_status st = head_part(r, rng, err);
    if (st != DIL_OK) return st;
    dil__decoder_sink sink = {.hidden = embedding_part, .grad = ignore, .ctx = r};
    dil__decoder_backward(r->d, ids, r->o->n_ctx, r->dout, r->dtable, &sink);
    return r->st == DIL_OK ? DIL_OK : dil_fail(err, r->st, "%s", r->err.text);
}

static dil_status all_sequences(run *r, const dil_progress *progress, dil_err *err)
{
    dil_rng rng;
    dil_rng_init(&rng, SEED);
    dil_status st = DIL_OK;
    for (uint32_t c = 0; c < r->o->n_chunks && st == DIL_OK; c++) {
        st = one_sequence(r, r->o->ids + (size_t)c * r->o->n_ctx, &rng, err);
        if (st == DIL_OK && !dil_progress_step(progress, "running the teacher", c + 1, r->o->n_chunks)) st = dil_fail(err, DIL_ECANCELED, "canceled; nothing was written");
    }
    return st;
}

static bool allocate(run *r)
{
    size_t n = r->o->n_ctx, v = r->o->arch->n_vocab;
    r->out = malloc(n * r->word * sizeof(float));
    r->dout = malloc(n * r->word * sizeof(float));
    r->g = malloc(n * r->word * sizeof(float));
    r->logits = malloc(ROWS * v * sizeof(float));
    r->dtable = calloc(v * r->word, sizeof(float));
    r->draw = malloc(ROWS * sizeof(double));
    r->doubt = malloc(ROWS * sizeof(float));
    return r->out && r->dout && r->g && r->logits && r->dtable && r->draw && r->doubt;
}

dil_status dil__table_metric(const dil__table_metric_opts *o, const dil_progress *progress, dil__hessian *h, dil_err *err)
{
    run r = {.o = o, .h = h, .word = o->arch->n_embd_word};
    dil_status st = dil__hessian_init(h, (uint32_t)r.word, err);
    if (st != DIL_OK) return st;
    if (!allocate(&r)) st = dil_fail(err, DIL_EMEMORY, "out of memory for a table's gradients");
    if (st == DIL_OK) st = dil__decoder_open(o->arch, o->n_ctx, o->n_threads, true, &r.d, err);
    if (st == DIL_OK) st = dil__decoder_load(r.d, o->weights, err);
    if (st == DIL_OK) st = all_sequences(&r, progress, err);
    dil__decoder_free(r.d);
    float *all[] = {r.out, r.dout, r.g, r.logits, r.dtable, r.doubt};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) free(all[i]);
    free(r.draw);
    if (st != DIL_OK) dil__hessian_fini(h);
    return st;
}
