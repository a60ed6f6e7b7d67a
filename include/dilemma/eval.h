/* dilemma/eval.h - how well a model predicts a data set, and how far it is from a teacher.
 *
 *   dil_eval_opts o = {.data = "text.txt"};  dil_eval_result r;
 *   dil_eval("student.gguf", "teacher.gguf", &o, NULL, &r, err);
 *
 * Plain text follows llama.cpp's protocol (chunks of n_ctx tokens, the second half of each is scored, the leading token as the
 * model wants it), so that perplexity and KL divergence compare with published figures. Question answering scores the answer's
 * tokens given context and question, and greedy answers by SQuAD's exact match and F1. Student and teacher run side by side
 * in one process; no logits are written anywhere. */
#ifndef DILEMMA_EVAL_H
#define DILEMMA_EVAL_H

#include <dilemma/dataset.h>
#include <dilemma/gguf.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct dil_eval_opts {
    const char *data;       /* NULL: the embedded default set */
    dil_data_format format;
    const char *device;     /* NULL: CPU */
    int n_threads;          /* 0: all */
    uint32_t n_ctx;         /* tokens a chunk of text; 0: 512. Question answering takes what its longest sample needs. */
    uint32_t max_chunks;    /* of text; 0: all */
    uint32_t max_samples;   /* of question answering and JSON Lines; 0: all */
    uint32_t max_answer;    /* tokens of a greedy answer; 0: 32 */
    uint32_t stages;        /* the model as so many stages in a row; 0: one. With wire: what narrow hidden states on a ring damage */
    dil_type wire;          /* how hidden states travel between them: F32 (0), F16, BF16 */
    bool no_answers;        /* skip the greedy answers: em and f1 stay NaN */
} dil_eval_opts;

/* What does not apply is NaN. Natural logarithms: nats a token. */
typedef struct dil_eval_result {
    uint64_t tokens;               /* scored */
    uint64_t samples, samples_left_out; /* left out: longer than the model's context */
    double loss, loss_stderr;      /* mean negative log-likelihood of the next token */
    double perplexity;             /* exp(loss) */
    double teacher_loss;
    double kl_mean, kl_stderr, kl_p99, kl_max; /* KL(teacher || student) a token */
    double top1_agreement;         /* share of tokens where both models prefer the same next token, [0,1] */
    double em, f1;                 /* [0,1] */
    uint64_t bytes, n_params;      /* of the model's tensors, metadata not counted, a tied table once */
    double bits_per_weight, ratio_to_fp32;
} dil_eval_result;

/* Errors: DIL_EDATA (too little data: tokens at hand and needed; NaN in the logits: model and position), DIL_EUNSUPPORTED
 * (teacher and student differ in vocabulary), and those of opening files. Blocks; threads inside.
 * Memory: both models, and n_ctx/2 rows of logits of each (at most 256 MiB a model). */
dil_status dil_eval(const char *model, const char *teacher, const dil_eval_opts *opts, const dil_progress *progress,
                    dil_eval_result *out, dil_err *err);

/* Writes the result as a JSON object: tokens, loss, perplexity, kl_mean, kl_stderr, kl_p99, kl_max, teacher_loss, top1_agreement, em, f1, bytes,
 * bits_per_weight, ratio_to_fp32; null where it does not apply. path "-": standard output. */
dil_status dil_eval_write_json(const dil_eval_result *r, const char *path, dil_err *err);

#ifdef __cplusplus
}
#endif
#endif
