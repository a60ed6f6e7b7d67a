/* quant/eval.h - what the protocols of evaluation share: the two models, and the sums over scored positions. */
#ifndef DIL_QUANT_EVAL_H
#define DIL_QUANT_EVAL_H

#include "quant/logits.h"
#include "quant/session.h"

#include <dilemma/eval.h>

typedef struct dil__eval {
    const dil_eval_opts *opts;
    const dil_progress *progress;
    dil__session student, teacher;
    bool has_teacher;
    uint32_t rows_max;             /* logits rows at once */
    float *student_rows, *teacher_rows; /* [rows_max][n_vocab] */
    dil__score *score;             /* [rows_max] */
    double nll, nll2, teacher_nll, kl, kl2;
    uint64_t n, n_same;
    float *kls;                    /* [n], cap kls_cap: for the percentile */
    size_t kls_cap;
    double em, f1;
    uint64_t n_answers, n_samples, n_left_out;
} dil__eval;

/* Opens nothing: both sessions are open; this starts them with n_ctx and makes the rows. */
dil_status dil__eval_start(dil__eval *e, uint32_t n_ctx, dil_err *err);
/* Feeds ids [n] to both models and scores the predictions of ids[first..n-1] (first >= 1); what is common with the texts
 * before is not computed again. */
dil_status dil__eval_span(dil__eval *e, const int32_t *ids, uint32_t n, uint32_t first, const char *what, dil_err *err);

dil_status dil__eval_text(dil__eval *e, const dil_dataset *data, dil_err *err);  /* llama.cpp's chunks */
dil_status dil__eval_samples(dil__eval *e, const dil_dataset *data, dil_err *err); /* prompt and completion, answers */

#endif
