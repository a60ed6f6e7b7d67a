/* dilemma/distill.h - trains what is continuous in a quantized file (block scales and minima, norms, biases) towards its teacher; the
 * codes stay.
 *
 *   dil_distill_opts o = dil_distill_defaults();
 *   o.teacher = "teacher.gguf", o.student = "s.gguf", o.data = "text.txt", o.out = "distilled.gguf";
 *   dil_distill_report r;  dil_distill(&o, NULL, NULL, NULL, &r, err);
 *
 * The loss is ½(KL(p‖q) + KL(q‖p)) over every position, p the teacher's and q the student's distribution, and β times the relative
 * distance of the hidden states behind three blocks. dL/dd of a block is the sum of dL/dW over its weights times what d multiplies;
 * d = d0 exp(s), rounded to a half straight-through, so that what is trained is what the file holds. MXFP4's scales are powers of two, and
 * stay. Adam; held-out text decides which step is kept, and the file that was given is kept if none is better.
 * Source: docs/QUALITY.md. */
#ifndef DILEMMA_DISTILL_H
#define DILEMMA_DISTILL_H

#include <dilemma/dataset.h>
#include <dilemma/gguf.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct dil_distill_opts {
    const char *teacher, *student, *out;
    const char *data;          /* NULL: the embedded text */
    dil_data_format format;
    const char *val;           /* held-out text; NULL: the last eighth of the data */
    dil_data_format val_format;
    uint32_t steps;
    double minutes;            /* > 0: until then instead, at most `steps` where those are given too (0: no limit) */
    uint32_t n_ctx;            /* tokens a sequence */
    uint32_t chunks;           /* different sequences at most; the teacher's targets of all are kept: 4 n_ctx n_embd bytes each, fourfold */
    uint32_t val_chunks;       /* held-out sequences at most */
    uint32_t batch;            /* sequences a step; 0: 1 */
    double rate;               /* Adam's step: a relative change of a scale */
    double beta;               /* weight of the hidden states */
    bool answers;              /* data and val are questions (or prompts with completions): only the answers' tokens are compared; a sequence is a
                                  paragraph with up to eight of its questions, picked at random by the seed */
    uint64_t seed;             /* order of the sequences */
    bool resume;               /* go on from OUT.state */
    int n_threads;             /* 0: all */
} dil_distill_opts;
dil_distill_opts dil_distill_defaults(void);

typedef struct dil_distill_report {
    uint32_t steps, best_step; /* done; kept (0: the file as it was given) */
    uint64_t train_tokens, val_tokens, n_trained; /* seen; held out (both at most, with answers); parameters */
    double kl_before, kl_after; /* held out, mean KL(teacher || student) */
} dil_distill_report;

/* Called after every step: the loss of that step's sequence; val_kl is NaN where the held-out text was not judged. */
typedef void dil_distill_curve_fn(void *ctx, uint32_t step, double loss, double val_kl);

/* Writes out, whole or not at all. OUT.state holds the training every few minutes and after a cancellation; it is removed at the end.
 * Errors: DIL_EUNSUPPORTED (teacher and student do not match; nothing to train), DIL_EDATA (too little text; the loss is not finite),
 * DIL_EFORMAT (OUT.state belongs to other files), DIL_ECANCELED (resume goes on), DIL_EIO. Blocks; threads inside.
 * Memory: four bytes a parameter once, one block's gradients, a table and its gradient, and the activations of one sequence. */
dil_status dil_distill(const dil_distill_opts *opts, const dil_progress *progress, dil_distill_curve_fn *curve, void *curve_ctx,
                       dil_distill_report *report, dil_err *err);

#ifdef __cplusplus
}
#endif
#endif
