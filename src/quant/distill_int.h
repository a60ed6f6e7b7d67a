/* quant/distill_int.h - what the parts of distillation share: setting up (distill_open.c), one pass (distill_pass.c), the state on disk
 * (distill_state.c), the loop (distill.c). */
#ifndef DIL_QUANT_DISTILL_INT_H
#define DIL_QUANT_DISTILL_INT_H

#include "quant/decoder.h"
#include "quant/distill_loss.h"
#include "quant/session.h"
#include "quant/trainable.h"
#include "quant/tuning.h"

#include <dilemma/distill.h>

enum { DIL__DISTILL_TAPS = 3, DIL__DISTILL_ROWS = 128 }; /* hidden states that are compared; rows of logits at once */

typedef struct dil__distill dil__distill;
/* What is trained for: distillation's own, or labels (finetune.c). */
typedef struct dil__aim {
    const char *doing;     /* "distilling" */
    dil_status (*open)(dil__distill *r, dil_err *err);
    dil_status (*gradient)(dil__distill *r, uint32_t sequence, double *loss, dil_err *err); /* of one sequence, added up in t; its mean loss a token */
    dil_status (*judge)(dil__distill *r, double *value, dil_err *err);                      /* held out; less is better */
    dil_status (*write)(dil__distill *r, dil_err *err);                                     /* the best parameters are in p and applied */
    uint32_t warm_steps, judge_every, patience; /* steps with a rising rate; between judgements; judgements without gain that end it */
} dil__aim;

struct dil__distill {
    const dil_distill_opts *o;
    const dil__aim *aim;
    void *more;            /* the aim's own */
    const dil_progress *progress;
    dil__session teacher, student; /* files, tokenizers; no stage */
    dil__decoder *d;
    int n_threads;
    uint32_t n_ctx, n_train, n_val; /* tokens; sequences */
    size_t word, width, n_vocab;
    dil__tuning_data labels; /* ids not NULL: sequences of questions, of which only the labels count */
    int32_t *ids;          /* [n_train + n_val][n_ctx], those of labels where it has some */
    size_t *first_row;     /* [n_train + n_val + 1] of a sequence in target */
    float *target;         /* [rows][word] what the teacher's head multiplies, of the rows that count */
    float *hidden;         /* [n_train][DIL__DISTILL_TAPS][n_ctx][width]; NULL with beta 0 */
    uint32_t tap[DIL__DISTILL_TAPS]; /* planner layers */
    float *table;          /* [n_vocab][word] the teacher's head */
    dil__trainable *t;     /* [n_t] */
    size_t n_t, n_params;
    size_t (*of)[DIL_LAYER_TENSORS_MAX]; /* [n_layers] index into t plus one; 0: frozen */
    float *out, *dout, *p, *q, *dtable, *scratch;
    float *x, *dx;         /* [DIL__DISTILL_ROWS][word] rows of out that are compared, their gradient */
    uint8_t *scratch_bytes;
    dil__divergence *row;  /* [DIL__DISTILL_ROWS] */
    uint32_t sequence;     /* the one in work */
    dil_status sink_st;    /* of the gradient sink */
    dil_err sink_err;
    uint32_t step, best_step;
    double first_kl, best_kl;
    double share;          /* of the training that is done */
};

dil_status dil__train_run(const dil__aim *aim, void *more, const dil_distill_opts *opts, const dil_progress *progress, dil_distill_curve_fn *curve, void *curve_ctx,
                          dil_distill_report *report, dil_err *err);
/* The student's file with t's bytes in place of what they are of; the given bytes where no step was better. */
dil_status dil__train_write(dil__distill *r, dil_err *err);
dil_status dil__train_allocate(dil__distill *r, dil_err *err); /* out, dout, p, q, dtable, row, x, dx */

/* One sequence: forward; rows of out that count, piece by piece, through the head; what q has become back from there; backward, its gradients into t. */
void dil__train_forward(dil__distill *r, uint32_t sequence);
uint32_t dil__train_count(const dil__distill *r, uint32_t sequence);
/* From token *at on, at most DIL__DISTILL_ROWS; *at behind the last. Returns how many; target (the labels) may be NULL. */
uint32_t dil__train_rows(const dil__distill *r, uint32_t sequence, uint32_t *at, uint32_t *row, int32_t *target);
void dil__train_head(dil__distill *r, const uint32_t *row, uint32_t n); /* their logits, in q */
void dil__train_head_back(dil__distill *r, const uint32_t *row, uint32_t n, bool first); /* q into dout and dtable, which the first piece clears */
dil_status dil__train_backward(dil__distill *r, uint32_t sequence, dil__decoder_hidden_fn *hidden, dil_err *err);

dil_status dil__distill_open(dil__distill *r, dil_err *err);
void dil__distill_close(dil__distill *r);
/* The student's values as the parameters have it, in the decoder. */
dil_status dil__distill_apply(dil__distill *r, dil_err *err);
/* Gradient of one training sequence, added up in t; the mean loss a token. */
dil_status dil__distill_gradient(dil__distill *r, uint32_t sequence, double *loss, dil_err *err);
/* Mean KL(teacher‖student) over the held-out sequences. */
dil_status dil__distill_judge(dil__distill *r, double *kl, dil_err *err);

dil_status dil__distill_save(const dil__distill *r, const char *path, dil_err *err);
dil_status dil__distill_restore(dil__distill *r, const char *path, dil_err *err);

#endif
