/* One sequence through student and loss, and back. */
#include "quant/distill_int.h"

#include <cblas.h>
#include <math.h>
#include <string.h>

dil_status dil__distill_apply(dil__distill *r, dil_err *err)
{
    dil_status st = DIL_OK;
    for (uint32_t l = 0; l < dil_arch_n_layers(&r->student.arch); l++) {
        for (size_t i = 0; i < DIL_LAYER_TENSORS_MAX && st == DIL_OK; i++) {
            if (!r->of[l][i]) continue;
            dil__trainable *t = &r->t[r->of[l][i] - 1];
            dil__trainable_apply(t);
            st = dil__trainable_values(t, dil__decoder_tensor(r->d, l, i), err);
        }
    }
    return st;
}

void dil__train_take(void *ctx, uint32_t layer, size_t index, const dil_layer_tensor *lt, const float *grad)
{
    dil__distill *r = ctx;
    (void)lt;
    if (!r->of[layer][index] || r->sink_st != DIL_OK) return;
    r->sink_st = dil__trainable_add(&r->t[r->of[layer][index] - 1], grad, dil__decoder_tensor(r->d, layer, index), r->scratch, r->scratch_bytes, &r->sink_err);
}

/* β/(taps n) Σ |h - h'|² / |h'|² behind the tapped layers, each token by its own size. */
static void pull_hidden(void *ctx, uint32_t layer, uint32_t n, const float *h, float *dh)
{
    dil__distill *r = ctx;
    for (uint32_t k = 0; k < DIL__DISTILL_TAPS; k++) {
        if (r->tap[k] != layer) continue;
        const float *want = r->hidden + ((size_t)r->sequence * DIL__DISTILL_TAPS + k) * r->n_ctx * r->width;
        for (uint32_t i = 0; i < n; i++) {
            double size = 0;
            for (size_t j = i * r->width; j < (i + 1) * r->width; j++) size += (double)want[j] * (double)want[j];
            float f = (float)(2 * r->o->beta / (DIL__DISTILL_TAPS * (double)n * (size + 1e-12)));
            for (size_t j = i * r->width; j < (i + 1) * r->width; j++) dh[j] += f * (h[j] - want[j]);
        }
    }
}

/* Logits of n rows: out [n][n_vocab] = x [n][word] tableᵀ. */
static void head(const dil__distill *r, const float *x, const float *table, size_t n, float *out)
{
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)n, (int)r->n_vocab, (int)r->word, 1, x, (int)r->word, table, (int)r->word, 0, out, (int)r->n_vocab);
}

/* Sums of both divergences over a sequence; with weight > 0 dout and dtable as well. */
static dil_status compare(dil__distill *r, uint32_t sequence, float weight, dil__divergence *sum, dil_err *err)
{
    const float *table = dil__decoder_table(r->d);
    *sum = (dil__divergence){0};
    for (uint32_t at = 0; at < r->n_ctx; at += DIL__DISTILL_ROWS) {
        uint32_t n = r->n_ctx - at < DIL__DISTILL_ROWS ? r->n_ctx - at : DIL__DISTILL_ROWS;
        const float *x = r->out + at * r->word;
        head(r, r->target + ((size_t)sequence * r->n_ctx + at) * r->word, r->table, n, r->p);
        head(r, x, table, n, r->q);
        dil__distill_rows(r->p, r->q, n, r->n_vocab, weight, r->n_threads, r->row);
        for (uint32_t i = 0; i < n; i++) {
            if (!isfinite(r->row[i].forward) || !isfinite(r->row[i].backward))
                return dil_fail(err, DIL_EDATA, "the divergence at token %u of sequence %u is not finite", at + i, sequence);
            sum->forward += r->row[i].forward;
            sum->backward += r->row[i].backward;
        }
        if (weight <= 0) continue;
        int m = (int)r->word, v = (int)r->n_vocab;
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)n, m, v, 1, r->q, v, table, m, 0, r->dout + at * r->word, m);
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, v, m, (int)n, 1, r->q, v, x, m, at ? 1 : 0, r->dtable, m);
    }
    return DIL_OK;
}

dil_status dil__distill_gradient(dil__distill *r, uint32_t sequence, double *loss, dil_err *err)
{
    const int32_t *ids = r->ids + (size_t)sequence * r->n_ctx;
    dil__divergence sum;
    dil__decoder_forward(r->d, ids, r->n_ctx, r->out);
    dil_status st = compare(r, sequence, 1 / (float)r->n_ctx, &sum, err);
    if (st != DIL_OK) return st;
    const dil_arch *a = &r->student.arch;
    dil__decoder_sink sink = {.hidden = r->hidden ? pull_hidden : NULL, .grad = dil__train_take, .ctx = r};
    r->sequence = sequence;
    if (!a->tied_head) {
        dil_layer_tensor lt[DIL_LAYER_TENSORS_MAX];
        size_t n = dil_arch_layer_tensors(a, a->n_blocks + 1, lt);
        for (size_t i = 0; i < n; i++)
            if (strcmp(lt[i].role, "output") == 0) dil__train_take(r, a->n_blocks + 1, i, &lt[i], r->dtable);
    }
    dil__decoder_backward(r->d, ids, r->n_ctx, r->dout, r->dtable, &sink);
    *loss = (sum.forward + sum.backward) / (2.0 * r->n_ctx);
    return r->sink_st == DIL_OK ? DIL_OK : dil_fail(err, r->sink_st, "%s", r->sink_err.text);
}

dil_status dil__distill_judge(dil__distill *r, double *kl, dil_err *err)
{
    double total = 0;
    for (uint32_t i = 0; i < r->n_val; i++) {
        dil__divergence sum;
        dil__decoder_forward(r->d, r->ids + (size_t)(r->n_train + i) * r->n_ctx, r->n_ctx, r->out);
        dil_status st = compare(r, r->n_train + i, 0, &sum, err);
        if (st != DIL_OK) return st;
        total += sum.forward;
    }
    *kl = total / ((double)r->n_val * r->n_ctx);
    return DIL_OK;
}
