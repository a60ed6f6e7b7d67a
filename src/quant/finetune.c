/* Training on labels: the samples, what trains, and one sample through model and loss and back. The loop is distill.c's. */
#include "quant/adapter.h"
#include "quant/distill_int.h"
#include "quant/logits.h"

#include <dilemma/finetune.h>
#include <dilemma/scratch.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { VAL_SHARE = 8 };
#define SCRATCH_UNIT 0.02f /* of every tensor from nothing: the matrices' size at the start, where a bias has none */

typedef struct tuning {
    const dil_finetune_opts *o;
    double alpha;
} tuning;

dil_finetune_opts dil_finetune_defaults(void)
{
    return (dil_finetune_opts){.steps = 100, .batch = 8, .n_ctx = 512, .samples = 4096, .val_samples = 64, .rate = 3e-4, .seed = 1};
}

static dil_status read_samples(dil__distill *r, dil_err *err)
{
    const dil_finetune_opts *o = ((const tuning *)r->more)->o;
    const dil_tokenizer *tok = r->student.tok;
    r->labels.n_ctx = r->n_ctx;
    r->labels.whole = o->whole || o->scratch;
    dil_status st = dil__tuning_add(&r->labels, tok, o->data, o->format, o->seed, 0, o->samples + (o->val ? 0 : o->val_samples), &r->n_train, err);
    if (st == DIL_OK && o->val) st = dil__tuning_add(&r->labels, tok, o->val, o->val_format, o->seed, r->n_train, o->val_samples, &r->n_val, err);
    r->ids = r->labels.ids;
    if (st != DIL_OK || o->val) return st;
    if (r->n_train < 2) return dil_fail(err, DIL_EDATA, "one sample: training wants two or more (or --val)");
    r->n_val = r->n_train >= VAL_SHARE ? r->n_train / VAL_SHARE : 1;
    if (r->n_val > o->val_samples) r->n_val = o->val_samples;
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
    if (u->o->scratch) t->unit = SCRATCH_UNIT;
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

/* --- one sequence ---------------------------------------------------------------------------------------------------------------------- */

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

/* Loss of a sequence's labels, summed; with the gradient of its mean at the head, dout and dtable, where wanted. */
static dil_status score(dil__distill *r, uint32_t sequence, bool gradient, double *sum, dil_err *err)
{
    uint32_t row[DIL__DISTILL_ROWS], at = 0, n;
    int32_t target[DIL__DISTILL_ROWS];
    double nll[DIL__DISTILL_ROWS];
    float weight = gradient ? 1 / (float)dil__train_count(r, sequence) : 0;
    dil__train_forward(r, sequence);
    *sum = 0;
    for (bool first = true; (n = dil__train_rows(r, sequence, &at, row, target)) > 0; first = false) {
        dil__train_head(r, row, n);
        rows j = {r->q, target, r->n_vocab, weight, nll};
        dil_parallel(r->n_threads, n, score_row, &j);
        if (gradient) dil__train_head_back(r, row, n, first);
        for (uint32_t i = 0; i < n; i++) {
            if (!isfinite(nll[i])) return dil_fail(err, DIL_EDATA, "the loss of sample %u behind token %u is not finite", sequence, row[i]);
            *sum += nll[i];
        }
    }
    return DIL_OK;
}

static dil_status label_gradient(dil__distill *r, uint32_t sequence, double *loss, dil_err *err)
{
    double sum;
    dil_status st = score(r, sequence, true, &sum, err);
    if (st != DIL_OK) return st;
    *loss = sum / dil__train_count(r, sequence);
    return dil__train_backward(r, sequence, NULL, err);
}

/* Nats a label. */
static dil_status label_judge(dil__distill *r, double *loss, dil_err *err)
{
    double sum = 0;
    uint64_t labels = 0;
    for (uint32_t i = r->n_train; i < r->n_train + r->n_val; i++) {
        double one;
        dil_status st = score(r, i, false, &one, err);
        if (st != DIL_OK) return st;
        sum += one;
        labels += dil__train_count(r, i);
    }
    *loss = sum / (double)labels;
    return DIL_OK;
}

static dil_status write_tuned(dil__distill *r, dil_err *err)
{
    const tuning *u = r->more;
    if (!u->o->rank && !u->o->adapter) return dil__train_write(r, err);
    if (u->o->merge) return dil__adapter_write_merged(r->student.gguf, u->o->out, r->t, r->n_t, err);
    return dil__adapter_write(u->o->out, r->student.arch.name, u->alpha, r->t, r->n_t, err);
}

static dil_status tune(const dil_finetune_opts *o, const dil_progress *progress, dil_distill_curve_fn *curve, void *curve_ctx, dil_distill_report *report, dil_err *err)
{
    /* From nothing thousands of steps follow, and the first of them must be small. */
    const dil__aim tuned = {"fine-tuning", open_tuning, label_gradient, label_judge, write_tuned, 4, 8, 5};
    const dil__aim trained = {"training", open_tuning, label_gradient, label_judge, write_tuned, 100, 64, 8};
    dil_distill_opts d = {.student = o->model, .out = o->out, .steps = o->steps, .minutes = o->minutes, .n_ctx = o->n_ctx, .chunks = o->samples, .val_chunks = o->val_samples,
                          .batch = o->batch, .rate = o->rate, .seed = o->seed, .resume = o->resume, .n_threads = o->n_threads};
    tuning u = {.o = o};
    return dil__train_run(o->scratch ? &trained : &tuned, &u, &d, progress, curve, curve_ctx, report, err);
}

dil_status dil_finetune(const dil_finetune_opts *o, const dil_progress *progress, dil_distill_curve_fn *curve, void *curve_ctx, dil_distill_report *report,
                        dil_err *err)
{
    if (!o->scratch) return tune(o, progress, curve, curve_ctx, report, err);
    char start[4096];
    int n = snprintf(start, sizeof start, "%s.start", o->out);
    if (n < 0 || (size_t)n >= sizeof start) return dil_fail(err, DIL_ELIMIT, "%s: the path is too long", o->out);
    dil_finetune_opts from = *o;
    from.model = start;
    dil_status st = dil_scratch(o->scratch, o->data, o->format, o->seed, start, err);
    if (st == DIL_OK) st = tune(&from, progress, curve, curve_ctx, report, err);
    remove(start); /* a run that goes on makes the same one again */
    return st;
}
