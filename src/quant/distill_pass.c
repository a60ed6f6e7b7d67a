/* One sequence through student and loss, and back. What counts of it is every token, or its labels alone. */
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

static void take(void *ctx, uint32_t layer, size_t index, const dil_layer_tensor *lt, const float *grad)
{
    dil__distill *r = ctx;
    (void)lt;
    if (!r->of[layer][index] || r->sink_st != DIL_OK) return;
    r->sink_st = dil__trainable_add(&r->t[r->of[layer][index] - 1], grad, dil__decoder_tensor(r->d, layer, index), r->scratch, r->scratch_bytes, &r->sink_err);
}

/* --- one sequence ----------------------------------------------------------------------------------------------------------- */

static uint32_t length_of(const dil__distill *r, uint32_t sequence)
{
    return r->labels.ids ? r->labels.len[sequence] : r->n_ctx;
}

void dil__train_forward(dil__distill *r, uint32_t sequence)
{
    const dil__tuning_data *d = &r->labels;
    size_t at = (size_t)sequence * r->n_ctx;
    bool forks = d->ids && d->root[sequence] < d->len[sequence];
    dil__decoder_fork(r->d, forks ? d->root[sequence] : 0, forks ? d->from + at : NULL);
    dil__decoder_forward(r->d, r->ids + at, length_of(r, sequence), r->out);
}

uint32_t dil__train_count(const dil__distill *r, uint32_t sequence)
{
    uint32_t n = 0;
    if (!r->labels.ids) return r->n_ctx;
    for (uint32_t i = 0; i < r->labels.len[sequence]; i++) n += r->labels.label[(size_t)sequence * r->n_ctx + i] != 0;
    return n;
}

uint32_t dil__train_rows(const dil__distill *r, uint32_t sequence, uint32_t *at, uint32_t *row, int32_t *target)
{
    const uint32_t *label = r->labels.ids ? r->labels.label + (size_t)sequence * r->n_ctx : NULL;
    uint32_t n = 0, len = length_of(r, sequence);
    for (; *at < len && n < DIL__DISTILL_ROWS; *at += 1) {
        if (label && !label[*at]) continue;
        row[n] = label ? label[*at] - 1 : *at;
        if (target) target[n] = r->ids[(size_t)sequence * r->n_ctx + *at];
        n++;
    }
    return n;
}

/* Logits of n rows: out [n][n_vocab] = x [n][word] tableᵀ. */
static void head(const dil__distill *r, const float *x, const float *table, size_t n, float *out)
{
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)n, (int)r->n_vocab, (int)r->word, 1, x, (int)r->word, table, (int)r->word, 0, out, (int)r->n_vocab);
}

void dil__train_head(dil__distill *r, const uint32_t *row, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) memcpy(r->x + i * r->word, r->out + row[i] * r->word, r->word * sizeof(float));
    head(r, r->x, dil__decoder_table(r->d), n, r->q);
}

void dil__train_head_back(dil__distill *r, const uint32_t *row, uint32_t n, bool first)
{
    int m = (int)r->word, v = (int)r->n_vocab;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)n, m, v, 1, r->q, v, dil__decoder_table(r->d), m, 0, r->dx, m);
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, v, m, (int)n, 1, r->q, v, r->x, m, first ? 0 : 1, r->dtable, m);
    if (first) memset(r->dout, 0, (size_t)r->n_ctx * r->word * sizeof *r->dout);
    for (uint32_t i = 0; i < n; i++)
        for (size_t k = 0; k < r->word; k++) r->dout[row[i] * r->word + k] += r->dx[i * r->word + k];
}

dil_status dil__train_backward(dil__distill *r, uint32_t sequence, dil__decoder_hidden_fn *hidden, dil_err *err)
{
    const dil_arch *a = &r->student.arch;
    dil__decoder_sink sink = {.hidden = hidden, .grad = take, .ctx = r};
    dil_layer_tensor lt[DIL_LAYER_TENSORS_MAX];
    size_t n = a->tied_head ? 0 : dil_arch_layer_tensors(a, a->n_blocks + 1, lt);
    for (size_t i = 0; i < n; i++)
        if (strcmp(lt[i].role, "output") == 0) take(r, a->n_blocks + 1, i, &lt[i], r->dtable);
    dil__decoder_backward(r->d, r->ids + (size_t)sequence * r->n_ctx, length_of(r, sequence), r->dout, r->dtable, &sink);
    return r->sink_st == DIL_OK ? DIL_OK : dil_fail(err, r->sink_st, "%s", r->sink_err.text);
}

/* --- distillation's loss ------------------------------------------------------------------------------------------------------ */

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

/* Sums of both divergences over a sequence's rows; with weight > 0 dout and dtable as well. */
static dil_status compare(dil__distill *r, uint32_t sequence, float weight, dil__divergence *sum, dil_err *err)
{
    uint32_t row[DIL__DISTILL_ROWS], at = 0, n;
    const float *target = r->target + r->first_row[sequence] * r->word;
    *sum = (dil__divergence){0};
    for (bool first = true; (n = dil__train_rows(r, sequence, &at, row, NULL)) > 0; first = false, target += n * r->word) {
        head(r, target, r->table, n, r->p);
        dil__train_head(r, row, n);
        dil__distill_rows(r->p, r->q, n, r->n_vocab, weight, r->n_threads, r->row);
        for (uint32_t i = 0; i < n; i++) {
            if (!isfinite(r->row[i].forward) || !isfinite(r->row[i].backward))
                return dil_fail(err, DIL_EDATA, "the divergence at token %u of sequence %u is not finite", row[i], sequence);
            sum->forward += r->row[i].forward;
            sum->backward += r->row[i].backward;
        }
        if (weight > 0) dil__train_head_back(r, row, n, first);
    }
    return DIL_OK;
}

dil_status dil__distill_gradient(dil__distill *r, uint32_t sequence, double *loss, dil_err *err)
{
    uint32_t n = dil__train_count(r, sequence);
    dil__divergence sum;
    dil__train_forward(r, sequence);
    dil_status st = compare(r, sequence, 1 / (float)n, &sum, err);
    if (st != DIL_OK) return st;
    *loss = (sum.forward + sum.backward) / (2.0 * n);
    r->sequence = sequence;
    return dil__train_backward(r, sequence, r->hidden ? pull_hidden : NULL, err);
}

dil_status dil__distill_judge(dil__distill *r, double *kl, dil_err *err)
{
    double total = 0;
    for (uint32_t i = r->n_train; i < r->n_train + r->n_val; i++) {
        dil__divergence sum;
        dil__train_forward(r, i);
        dil_status st = compare(r, i, 0, &sum, err);
        if (st != DIL_OK) return st;
        total += sum.forward;
    }
    *kl = total / (double)(r->first_row[r->n_train + r->n_val] - r->first_row[r->n_train]);
    return DIL_OK;
}
