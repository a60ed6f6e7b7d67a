/* dilemma/dataset.h - text to calibrate on and to judge with: SQuAD v1.1/v2 JSON, plain text, JSON Lines.
 *
 * A sample is a prompt and a completion; plain text is one sample without a completion. */
#ifndef DILEMMA_DATASET_H
#define DILEMMA_DATASET_H

#include <dilemma/base.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum dil_data_format { DIL_DATA_AUTO, DIL_DATA_SQUAD, DIL_DATA_TEXT, DIL_DATA_JSONL } dil_data_format;

typedef struct dil_sample {
    const char *id;                 /* SQuAD's question id, else "" */
    const char *prompt;  size_t prompt_len;     /* SQuAD: "Context: ...\nQuestion: ...\nAnswer:"; text: the whole text */
    const char *completion; size_t completion_len; /* SQuAD: " " and the first answer; "" for plain text */
    const char *context, *question; /* SQuAD only, else NULL */
    const char *const *answers; size_t n_answers;  /* SQuAD: every accepted answer; none: unanswerable (v2) */
} dil_sample;

typedef struct dil_dataset {
    dil_data_format format;
    dil_sample *samples; size_t n_samples; /* in the file's order; owned by the data set */
    dil_arena *arena;
} dil_dataset;

#define DIL_DATASET_MAX (1u << 30) /* bytes of a file */

/* path NULL: the embedded default set. AUTO looks at the content. Errors name file, line or JSON place. */
dil_status dil_dataset_load(const char *path, dil_data_format format, dil_dataset *out, dil_err *err);
void dil_dataset_fini(dil_dataset *d);
bool dil_data_format_from_name(const char *name, dil_data_format *out); /* auto squad text jsonl */

/* SQuAD's official scores: lower case, punctuation and articles removed, white space folded. */
double dil_squad_exact(const char *prediction, const char *const *answers, size_t n); /* 0 or 1 */
double dil_squad_f1(const char *prediction, const char *const *answers, size_t n);    /* [0,1], best over the answers */

#ifdef __cplusplus
}
#endif
#endif
