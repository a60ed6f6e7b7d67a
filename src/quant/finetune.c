/* Training on labels: the samples, what trains, and one sample through model and loss and back. The loop is distill.c's. */
#include "quant/adapter.h"
#include "quant/calib.h"
#include "quant/distill_int.h"
#include "quant/logits.h"

#include <dilemma/finetune.h>

#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { VAL_SHARE = 8, LEN_MIN = 8 };

typedef struct tuning {
    const dil_finetune_opts *o;
    double alpha;
    uint32_t *len, *first; /* [n_train + n_val] tokens of a sample; the first that is a label, > 0 */
    uint32_t cap;
} tuning;

dil_finetune_opts dil_finetune_defaults(void)
{
    return (dil_finetune_opts){.steps = 100, .batch = 8, .n_ctx = 512, .samples = 4096, .val_samples = 64, .rate = 3e-4, .seed = 1};
}

/* --- samples ---------------------------------------------------------------------------------------------------------------------- */

static dil_status add_sample(dil__distill *r, uint32_t at, const int32_t *ids, size_t n, uint32_t first, dil_err *err)
{
    tuning *t = r->more;
    if (at == t->cap) {
        uint32_t cap = t->cap ? 2 * t->cap : 256;
        int32_t *more = realloc(r->ids, (size_t)cap * r->n_ctx * sizeof *more);
        if (more) r->ids = more;
        uint32_t *len = realloc(t->len, cap * sizeof *len);
        if (len) t->len = len;
        uint32_t *firsts = realloc(t->first, cap * sizeof *firsts);
        if (firsts) t->first = firsts;
        if (!more || !len || !firsts) return dil_fail(err, DIL_EMEMORY, "out of memory for %u samples", cap);
        t->cap = cap;
    }
    int32_t *to = r->ids + (size_t)at * r->n_ctx;
    memset(to, 0, r->n_ctx * sizeof *to);
    memcpy(to, ids, n * sizeof *to);
    t->len[at] = (uint32_t)n;
    t->first[at] = first;
    return DIL_OK;
}

/* Prompt, completion, end of text; *added false where it has no label or does not fit. */
static dil_status add_answer(dil__distill *r, uint32_t at, const dil_sample *s, bool *added, dil_err *err)
{
    const dil_tokenizer *tok = r->student.tok;
    dil_ids prompt, completion = {0};
    dil_status st = dil_tokenize(tok, s->prompt, s->prompt_len, DIL_TOK_BOS, &prompt, err);
    if (st != DIL_OK) return st;
    st = dil_tokenize(tok, s->completion, s->completion_len, 0, &completion, err);
    int32_t eos = dil_tokenizer_eos(tok);
    bool whole = completion.n == 0; /* a text: every token is a label */
    size_t n = prompt.n + completion.n + (eos >= 0);
    *added = st == DIL_OK && n >= 2 && n <= r->n_ctx && prompt.n > 0 && !(whole && s->question);
    if (*added) {
        int32_t *all = malloc(n * sizeof *all);
        if (!all) st = dil_fail(err, DIL_EMEMORY, "out of memory");
        else {
            memcpy(all, prompt.id, prompt.n * sizeof *all);
            if (completion.n) memcpy(all + prompt.n, completion.id, completion.n * sizeof *all);
            if (eos >= 0) all[n - 1] = eos;
            st = add_sample(r, at, all, n, whole ? 1 : (uint32_t)prompt.n, err);
        }
        free(all);
    }
    dil_ids_fini(&prompt);
    dil_ids_fini(&completion);
    return st;
}

static dil_status add_answers(dil__distill *r, const dil_dataset *d, uint32_t from, uint32_t most, uint32_t *n, dil_err *err)
{
    uint32_t *order = malloc((d->n_samples + 1) * sizeof *order);
    if (!order) return dil_fail(err, DIL_EMEMORY, "out of memory");
    dil_rng rng;
    dil_rng_init(&rng, r->o->seed + 77);
    for (uint32_t i = 0; i < d->n_samples; i++) {
        uint32_t j = (uint32_t)dil_rng_below(&rng, i + 1);
        order[i] = order[j];
        order[j] = i;
    }
    dil_status st = DIL_OK;
    for (size_t i = 0; i < d->n_samples && *n < most && st == DIL_OK; i++) {
        bool added;
        st = add_answer(r, from + *n, &d->samples[order[i]], &added, err);
        if (st == DIL_OK) *n += added;
    }
    free(order);
    return st;
}

static dil_status add_text(dil__distill *r, const char *path, dil_data_format format, uint32_t from, uint32_t most, uint32_t *n, dil_err *err)
{
    dil_ids ids;
    dil_status st = dil__calib_tokens(r->student.tok, path, format, LEN_MIN, (size_t)most * r->n_ctx, &ids, err);
    if (st != DIL_OK) return st;
    for (size_t at = 0; at + LEN_MIN <= ids.n && st == DIL_OK; at += r->n_ctx) {
        size_t len = ids.n - at < r->n_ctx ? ids.n - at : r->n_ctx;
        if (dil_tokenizer_adds_bos(r->student.tok)) ids.id[at] = dil_tokenizer_bos(r->student.tok);
        st = add_sample(r, from + *n, ids.id + at, len, 1, err);
        *n += 1;
    }
    dil_ids_fini(&ids);
    return st;
}

static dil_status add_data(dil__distill *r, const char *path, dil_data_format format, uint32_t from, uint32_t most, uint32_t *n, dil_err *err)
{
    dil_dataset d;
    *n = 0;
    dil_status st = dil_dataset_load(path, format, &d, err);
    if (st != DIL_OK) return st;
    st = d.format == DIL_DATA_TEXT ? add_text(r, path, format, from, most, n, err) : add_answers(r, &d, from, most, n, err);
    dil_dataset_fini(&d);
    if (st == DIL_OK && *n == 0)
        st = dil_fail(err, DIL_EDATA, "%s: no sample with a completion fits %u tokens", path ? path : "the embedded data", r->n_ctx);
    return st;
}

static dil_status read_samples(dil__distill *r, dil_err *err)
{
    const dil_finetune_opts *o = ((tuning *)r->more)->o;
    dil_status st = add_data(r, o->data, o->format, 0, o->samples + (o->val ? 0 : o->val_samples), &r->n_train, err);
    if (st != DIL_OK) return st;
    if (o->val) return add_data(r, o->val, o->val_format, r->n_train, o->val_samples, &r->n_val, err);
    r->n_val = r->n_train / VAL_SHARE;
    if (r->n_val > o->val_samples) r->n_val = o->val_samples;
    if (r->n_val == 0) return dil_fail(err, DIL_EDATA, "%u samples, training wants %d or more (or --val)", r->n_train, VAL_SHARE);
    r->n_train -= r->n_val;
    return DIL_OK;
}

/* --- what trains ---------------------------------------------------------------------------------------------------------------------- */

static dil_status add_parameters(dil__distill *r, const dil__adapter *a, uint32_t l, size_t i, const dil_layer_tensor *lt, dil_rng *rng, dil_err *err)
{
    const tuning *u = r->more;
    const dil_tensor *src = dil_weights_find(&r->student.weights, lt->name);
    dil__trainable *t = &r->t[r->n_t];
    bool block = l > 0 && l <= r->student.arch.n_blocks, lora = a->g || u->o->rank > 0, has = true;
    dil_status st;
    if (lt->shared || strcmp(lt->role, "rope_freqs") == 0 || (lora && !lt->linear) || (u->o->rank > 0 && !block)) return DIL_OK;
    if (a->g) st = dil__adapter_get(a, src, t, &has, err);
    else if (lora) st = dil__trainable_init_lora(t, src, u->o->rank, (float)(u->alpha / u->o->rank), rng, err);
    else st = dil__trainable_init_full(t, src, err);
    if (st != DIL_OK || !has) return st;
    r->n_params += t->n;
    r->of[l][i] = ++r->n_t;
    return DIL_OK;
}

static dil_status list_parameters(dil__distill *r, dil_err *err)
{
    tuning *u = r->more;
    uint32_t n_layers = dil_arch_n_layers(&r->student.arch);
    dil__adapter a = {0};
    r->of = calloc(n_layers, sizeof *r->of);
    r->t = calloc((size_t)n_layers * DIL_LAYER_TENSORS_MAX, sizeof *r->t);
    if (!r->of || !r->t) return dil_fail(err, DIL_EMEMORY, "out of memory for the parameters");
    dil_status st = u->o->adapter ? dil__adapter_open(u->o->adapter, r->student.arch.name, &a, err) : DIL_OK;
    if (st == DIL_OK && a.g) st = dil__adapter_check(&a, &r->student.weights, err);
    u->alpha = a.g ? a.alpha : u->o->alpha > 0 ? u->o->alpha : 2.0 * u->o->rank;
    dil_rng rng;
    dil_rng_init(&rng, u->o->seed);
    for (uint32_t l = 0; l < n_layers && st == DIL_OK; l++) {
        dil_layer_tensor lt[DIL_LAYER_TENSORS_MAX];
        size_t n = dil_arch_layer_tensors(&r->student.arch, l, lt);
        for (size_t i = 0; i < n && st == DIL_OK; i++) st = add_parameters(r, &a, l, i, &lt[i], &rng, err);
    }
    dil__adapter_close(&a);
    if (st == DIL_OK && r->n_params == 0) st = dil_fail(err, DIL_EUNSUPPORTED, "nothing here trains");
    return st;
}

static dil_status open_tuning(dil__distill *r, dil_err *err)
{
    const tuning *u = r->more;
    dil_status st = dil__session_open(&r->student, u->o->model, err);
    if (st != DIL_OK) return st;
    const dil_arch *a = &r->student.arch;
    r->n_ctx = u->o->n_ctx < a->n_ctx_train ? u->o->n_ctx : a->n_ctx_train;
    r->word = a->n_embd_word;
    r->width = a->n_embd;
    r->n_vocab = a->n_vocab;
    r->n_threads = u->o->n_threads > 0 ? u->o->n_threads : dil_cpu_count();
    st = read_samples(r, err);
    if (st == DIL_OK) st = list_parameters(r, err);
    if (st == DIL_OK) st = dil__decoder_open(a, r->n_ctx, r->n_threads, true, &r->d, err);
    if (st == DIL_OK) st = dil__train_allocate(r, err);
    if (st == DIL_OK) st = dil__decoder_load(r->d, &r->student.weights, err);
    return st == DIL_OK ? dil__distill_apply(r, err) : st;
}

/* --- one sample ------------------------------------------------------------------------------------------------------------------------ */

typedef struct rows { float *q; const int32_t *target; size_t n; float weight; double *nll; } rows;

/* Logits become weight (softmax - label), or stay with weight 0. */
static void score_row(void *ctx, size_t i)
{
    const rows *j = ctx;
    float *q = j->q + i * j->n;
    dil__lse l = dil__logits_lse(q, j->n);
    j->nll[i] = dil__logits_nll(q, &l, j->target[i]);
    if (j->weight == 0) return;
    float z = (float)((double)l.max + l.log_sum);
    for (size_t k = 0; k < j->n; k++) q[k] = j->weight * expf(q[k] - z);
    q[j->target[i]] -= j->weight;
}

/* Mean loss of a sample's labels; with its gradient at the head, dout and dtable, where wanted. */
static dil_status score(dil__distill *r, uint32_t sample, bool gradient, double *loss, dil_err *err)
{
    const tuning *u = r->more;
    const int32_t *ids = r->ids + (size_t)sample * r->n_ctx;
    uint32_t len = u->len[sample], from = u->first[sample] - 1, end = len - 1;
    const float *table = dil__decoder_table(r->d);
    double nll[DIL__DISTILL_ROWS], sum = 0;
    int m = (int)r->word, v = (int)r->n_vocab;
    dil__decoder_forward(r->d, ids, len, r->out);
    if (gradient) memset(r->dout, 0, (size_t)len * r->word * sizeof *r->dout);
    for (uint32_t at = from; at < end; at += DIL__DISTILL_ROWS) {
        uint32_t n = end - at < DIL__DISTILL_ROWS ? end - at : DIL__DISTILL_ROWS;
        const float *x = r->out + at * r->word;
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)n, v, m, 1, x, m, table, m, 0, r->q, v);
        rows j = {r->q, ids + at + 1, r->n_vocab, gradient ? 1 / (float)(end - from) : 0, nll};
        dil_parallel(r->n_threads, n, score_row, &j);
        for (uint32_t i = 0; i < n; i++) {
            if (!isfinite(nll[i])) return dil_fail(err, DIL_EDATA, "the loss at token %u of sample %u is not finite", at + i, sample);
            sum += nll[i];
        }
        if (!gradient) continue;
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)n, m, v, 1, r->q, v, table, m, 0, r->dout + at * r->word, m);
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, v, m, (int)n, 1, r->q, v, x, m, at > from ? 1 : 0, r->dtable, m);
    }
    *loss = sum / (end - from);
    return DIL_OK;
}

static dil_status label_gradient(dil__distill *r, uint32_t sample, double *loss, dil_err *err)
{
    const tuning *u = r->more;
    const dil_arch *a = &r->student.arch;
    dil_status st = score(r, sample, true, loss, err);
    if (st != DIL_OK) return st;
    dil__decoder_sink sink = {.grad = dil__train_take, .ctx = r};
    dil_layer_tensor lt[DIL_LAYER_TENSORS_MAX];
    size_t n = a->tied_head ? 0 : dil_arch_layer_tensors(a, a->n_blocks + 1, lt);
    for (size_t i = 0; i < n; i++)
        if (strcmp(lt[i].role, "output") == 0) dil__train_take(r, a->n_blocks + 1, i, &lt[i], r->dtable);
    dil__decoder_backward(r->d, r->ids + (size_t)sample * r->n_ctx, u->len[sample], r->dout, r->dtable, &sink);
    return r->sink_st == DIL_OK ? DIL_OK : dil_fail(err, r->sink_st, "%s", r->sink_err.text);
}

static dil_status label_judge(dil__distill *r, double *loss, dil_err *err)
{
    double sum = 0;
    for (uint32_t i = 0; i < r->n_val; i++) {
        double one;
        dil_status st = score(r, r->n_train + i, false, &one, err);
        if (st != DIL_OK) return st;
        sum += one;
    }
    *loss = sum / r->n_val;
    return DIL_OK;
}

static dil_status write_tuned(dil__distill *r, dil_err *err)
{
    const tuning *u = r->more;
    if (!u->o->rank && !u->o->adapter) return dil__train_write(r, err);
    if (u->o->merge) return dil__adapter_write_merged(r->student.gguf, u->o->out, r->t, r->n_t, err);
    return dil__adapter_write(u->o->out, r->student.arch.name, u->alpha, r->t, r->n_t, err);
}

dil_status dil_finetune(const dil_finetune_opts *o, const dil_progress *progress, dil_distill_curve_fn *curve, void *curve_ctx, dil_distill_report *report,
                        dil_err *err)
{
    static const dil__aim aim = {"fine-tuning", open_tuning, label_gradient, label_judge, write_tuned};
    dil_distill_opts d = {.student = o->model, .out = o->out, .steps = o->steps, .minutes = o->minutes, .n_ctx = o->n_ctx, .chunks = o->samples, .val_chunks = o->val_samples,
                          .batch = o->batch, .rate = o->rate, .seed = o->seed, .resume = o->resume, .n_threads = o->n_threads};
    tuning u = {.o = o};
    dil_status st = dil__train_run(&aim, &u, &d, progress, curve, curve_ctx, report, err);
    free(u.len);
    free(u.first);
    return st;
}
