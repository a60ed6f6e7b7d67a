/* Evaluation: two models side by side, position by position. Logits files, as the usual tools write them, were rejected: 100 kB a
 * token, and their 16-bit logarithms put a floor under the divergence that they are to measure. */
#include "quant/eval.h"

#include "base/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ROWS_BYTES_MAX ((size_t)256 << 20)

dil_status dil__eval_start(dil__eval *e, uint32_t n_ctx, dil_err *err)
{
    size_t n_vocab = e->student.arch.n_vocab;
    size_t rows = ROWS_BYTES_MAX / (n_vocab * sizeof(float));
    e->rows_max = rows < 1 ? 1 : rows > 512 ? 512 : (uint32_t)rows;
    e->student_rows = malloc(e->rows_max * n_vocab * sizeof(float));
    e->teacher_rows = e->has_teacher ? malloc(e->rows_max * n_vocab * sizeof(float)) : NULL;
    e->score = calloc(e->rows_max, sizeof *e->score);
    if (!e->student_rows || (e->has_teacher && !e->teacher_rows) || !e->score)
        return dil_fail(err, DIL_EMEMORY, "out of memory for %u rows of %zu logits", e->rows_max, n_vocab);
    int threads = e->opts->n_threads;
    e->student.n_parts = e->opts->stages;
    e->student.wire = e->opts->wire;
    dil_status st = dil__session_start(&e->student, e->opts->device, threads, n_ctx, e->progress, err);
    if (st == DIL_OK && e->has_teacher) st = dil__session_start(&e->teacher, e->opts->device, threads, n_ctx, e->progress, err);
    return st;
}

static dil_status remember_kl(dil__eval *e, double kl, dil_err *err)
{
    if (e->n == e->kls_cap) {
        size_t cap = e->kls_cap ? 2 * e->kls_cap : 4096;
        float *more = realloc(e->kls, cap * sizeof *more);
        if (!more) return dil_fail(err, DIL_EMEMORY, "out of memory for %zu divergences", cap);
        e->kls = more;
        e->kls_cap = cap;
    }
    e->kls[e->n] = (float)kl;
    return DIL_OK;
}

static dil_status add_score(dil__eval *e, const dil__score *s, const char *what, uint32_t at, dil_err *err)
{
    if (!isfinite(s->nll))
        return dil_fail(err, DIL_EDATA, "%s: the logits at token %u of %s are not finite (NaN weights?)",
                        dil_gguf_path(e->student.gguf), at, what);
    e->nll += s->nll;
    e->nll2 += s->nll * s->nll;
    if (e->has_teacher) {
        if (!isfinite(s->teacher_nll) || !isfinite(s->kl))
            return dil_fail(err, DIL_EDATA, "%s: the logits at token %u of %s are not finite (NaN weights?)",
                            dil_gguf_path(e->teacher.gguf), at, what);
        dil_status st = remember_kl(e, s->kl, err);
        if (st != DIL_OK) return st;
        e->teacher_nll += s->teacher_nll;
        e->kl += s->kl;
        e->kl2 += s->kl * s->kl;
        e->n_same += s->same_top;
    }
    e->n++;
    return DIL_OK;
}

/* Both models see the same tokens in the same batch shapes: what the kernels' order of summation does is the same in both. */
static dil_status feed_both(dil__eval *e, const int32_t *ids, uint32_t n, uint32_t n_want, dil_err *err)
{
    dil_status st = dil__session_feed(&e->student, ids, n, n_want, e->student_rows, err);
    if (st == DIL_OK && e->has_teacher) st = dil__session_feed(&e->teacher, ids, n, n_want, e->teacher_rows, err);
    return st;
}

dil_status dil__eval_span(dil__eval *e, const int32_t *ids, uint32_t n, uint32_t first, const char *what, dil_err *err)
{
    size_t n_vocab = e->student.arch.n_vocab;
    int threads = e->opts->n_threads ? e->opts->n_threads : dil_cpu_count();
    uint32_t at = dil__session_keep(&e->student, ids, first - 1);
    if (e->has_teacher) dil__session_keep(&e->teacher, ids, first - 1);
    while (at < n - 1) {
        uint32_t scored_from = at > first - 1 ? at : first - 1, end = scored_from + e->rows_max;
        if (end > at + e->student.max_batch && scored_from < at + e->student.max_batch) end = at + e->student.max_batch;
        if (end > n - 1) end = n - 1;
        uint32_t rows = end - scored_from;
        if (rows > e->student.max_batch) rows = e->student.max_batch, end = scored_from + rows;
        dil_status st = feed_both(e, ids + at, end - at, rows, err);
        if (st != DIL_OK) return st;
        dil__logits_score(e->student_rows, e->teacher_rows, ids + scored_from + 1, rows, n_vocab, threads, e->score);
        for (uint32_t i = 0; i < rows; i++) {
            st = add_score(e, &e->score[i], what, scored_from + i, err);
            if (st != DIL_OK) return st;
        }
        at = end;
    }
    return DIL_OK;
}

static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Linear between the two nearest ranks, as llama.cpp has it. sorted [n], n > 0. */
static double percentile(const float *sorted, size_t n, double share)
{
    double at = share * (double)(n - 1);
    size_t i = (size_t)at;
    if (i + 1 >= n) return (double)sorted[n - 1];
    double part = at - (double)i;
    return (1 - part) * (double)sorted[i] + part * (double)sorted[i + 1];
}

static double std_error(double sum, double sum2, double n)
{
    if (n < 2) return (double)NAN;
    double var = sum2 / n - (sum / n) * (sum / n);
    return sqrt((var > 0 ? var : 0) / (n - 1));
}

static void summarise(dil__eval *e, dil_eval_result *r)
{
    double n = (double)e->n, nan = (double)NAN;
    *r = (dil_eval_result){.tokens = e->n, .samples = e->n_samples, .samples_left_out = e->n_left_out,
                           .loss = e->nll / n, .loss_stderr = std_error(e->nll, e->nll2, n), .perplexity = exp(e->nll / n),
                           .teacher_loss = nan, .kl_mean = nan, .kl_stderr = nan, .kl_p99 = nan, .kl_max = nan,
                           .top1_agreement = nan, .em = nan, .f1 = nan};
    if (e->has_teacher) {
        qsort(e->kls, e->n, sizeof *e->kls, by_value);
        r->teacher_loss = e->teacher_nll / n;
        r->kl_mean = e->kl / n;
        r->kl_stderr = std_error(e->kl, e->kl2, n);
        r->kl_p99 = percentile(e->kls, e->n, 0.99);
        r->kl_max = (double)e->kls[e->n - 1];
        r->top1_agreement = (double)e->n_same / n;
    }
    if (e->n_answers > 0) {
        r->em = e->em / (double)e->n_answers;
        r->f1 = e->f1 / (double)e->n_answers;
    }
    r->ratio_to_fp32 = dil_gguf_ratio_to_fp32(e->student.gguf, &r->bytes, &r->n_params);
    r->bits_per_weight = 32 * r->ratio_to_fp32;
}

static dil_status run(dil__eval *e, const char *model, const char *teacher, const dil_dataset *data, dil_err *err)
{
    dil_status st = dil__session_open(&e->student, model, err);
    if (st == DIL_OK && teacher) {
        st = dil__session_open(&e->teacher, teacher, err);
        e->has_teacher = true;
        if (st == DIL_OK) st = dil__session_same_tokens(&e->student, &e->teacher, err);
    }
    if (st != DIL_OK) return st;
    st = data->format == DIL_DATA_TEXT ? dil__eval_text(e, data, err) : dil__eval_samples(e, data, err);
    if (st == DIL_OK && e->n == 0)
        st = dil_fail(err, DIL_EDATA, "%s: nothing to score: no sample fits the context", e->opts->data ? e->opts->data : "default data");
    return st;
}

dil_status dil_eval(const char *model, const char *teacher, const dil_eval_opts *opts, const dil_progress *progress,
                    dil_eval_result *out, dil_err *err)
{
    dil_dataset data;
    dil_status st = dil_dataset_load(opts->data, opts->format, &data, err);
    if (st != DIL_OK) return st;
    dil__eval e = {.opts = opts, .progress = progress};
    st = run(&e, model, teacher, &data, err);
    if (st == DIL_OK) summarise(&e, out);
    dil__session_close(&e.student);
    dil__session_close(&e.teacher);
    free(e.student_rows);
    free(e.teacher_rows);
    free(e.score);
    free(e.kls);
    dil_dataset_fini(&data);
    return st;
}

dil_status dil_eval_write_json(const dil_eval_result *r, const char *path, dil_err *err)
{
    json_t *o = json_object();
    json_object_set_new(o, "tokens", json_integer((json_int_t)r->tokens));
    const struct { const char *key; double value; } num[] = {
        {"loss", r->loss}, {"perplexity", r->perplexity}, {"kl_mean", r->kl_mean}, {"kl_stderr", r->kl_stderr}, {"kl_p99", r->kl_p99}, {"kl_max", r->kl_max}, {"teacher_loss", r->teacher_loss},
        {"top1_agreement", r->top1_agreement}, {"em", r->em}, {"f1", r->f1}};
    for (size_t i = 0; i < sizeof num / sizeof num[0]; i++) json_object_set_new(o, num[i].key, dil__json_real_or_null(num[i].value));
    json_object_set_new(o, "bytes", json_integer((json_int_t)r->bytes));
    json_object_set_new(o, "bits_per_weight", dil__json_real_or_null(r->bits_per_weight));
    json_object_set_new(o, "ratio_to_fp32", dil__json_real_or_null(r->ratio_to_fp32));
    dil_status st = dil__json_save(path, o, err);
    json_decref(o);
    return st;
}
