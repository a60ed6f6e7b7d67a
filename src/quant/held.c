/* The judgement that corrects a profile: chunk by chunk as damage is measured, but with the kernels that run the student, whose rounding of
 * activations is a part of what a user sees (0.004 nats at eight bits, which is most of it there). */
#include "quant/calib.h"
#include "quant/chain.h"
#include "quant/eval.h"

#include <dilemma/profiler.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N_CTX = 384 };

static dil_status held_tokens(const dil__eval *e, const dil_profile *p, const char *data, dil_data_format format, dil_ids *ids, dil_err *err)
{
    if (p->held_to < p->held_from + N_CTX) return dil_fail(err, DIL_EDATA, "the profile keeps no text apart to judge a student on: profile again");
    dil_status st = dil__calib_tokens(e->student.tok, data, format, (size_t)p->held_to, (size_t)p->held_to, ids, err);
    if (st != DIL_OK) return st;
    ids->n -= (size_t)p->held_from;
    memmove(ids->id, ids->id + p->held_from, ids->n * sizeof *ids->id);
    return DIL_OK;
}

static dil_status judge(dil__eval *e, dil_ids *ids, dil_err *err)
{
    size_t n_chunks = ids->n / N_CTX;
    int32_t bos = dil_tokenizer_adds_bos(e->student.tok) ? dil_tokenizer_bos(e->student.tok) : -1;
    dil_status st = dil__eval_start(e, N_CTX, err);
    for (size_t i = 0; i < n_chunks && st == DIL_OK; i++) {
        if (!dil_progress_step(e->progress, "judging the student", (double)i, (double)n_chunks)) return dil_fail(err, DIL_ECANCELED, "canceled while judging the student");
        int32_t *chunk = ids->id + i * N_CTX;
        if (bos >= 0) chunk[0] = bos;
        dil__session_keep(&e->student, NULL, 0);
        dil__session_keep(&e->teacher, NULL, 0);
        st = dil__eval_span(e, chunk, N_CTX, DIL__CHAIN_SKIP + 1, "a chunk", err);
    }
    dil_progress_step(e->progress, "judging the student", 1, 1);
    return st;
}

dil_status dil_profiler_measure(const dil_profile *profile, const char *teacher, const char *student, const char *data, dil_data_format format,
                                int n_threads, const dil_progress *progress, dil_profile_student *out, dil_err *err)
{
    dil_eval_opts opts = {.n_threads = n_threads};
    dil__eval e = {.opts = &opts, .progress = progress, .has_teacher = true};
    dil_ids ids = {0};
    dil_status st = dil__session_open(&e.student, student, err);
    if (st == DIL_OK) st = dil__session_open(&e.teacher, teacher, err);
    if (st == DIL_OK) st = dil__session_same_tokens(&e.student, &e.teacher, err);
    if (st == DIL_OK) st = held_tokens(&e, profile, data, format, &ids, err);
    if (st == DIL_OK) st = judge(&e, &ids, err);
    if (st == DIL_OK) {
        double n = (double)e.n, var = e.kl2 / n - (e.kl / n) * (e.kl / n);
        out->kl = e.kl / n;
        out->kl_stderr = sqrt((var > 0 ? var : 0) / (n - 1));
        out->tokens = e.n;
    }
    dil_ids_fini(&ids);
    dil__session_close(&e.student);
    dil__session_close(&e.teacher);
    free(e.student_rows);
    free(e.teacher_rows);
    free(e.score);
    free(e.kls);
    return st;
}
