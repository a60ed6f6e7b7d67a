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

/* dil_dataset_load - reads a whole file ("-": standard input; NULL: the embedded default set, whatever the format).
 *
 * format   AUTO looks at the content: an object whose first line has "text" or "prompt" is JSON Lines, any other object SQuAD,
 *          all else text.
 * out      at least one sample; dil_dataset_fini.
 * Errors   name the file and the line or JSON place: DIL_EFORMAT, DIL_EDATA (nothing in it), DIL_ELIMIT (docs/DATA.md lists the
 *          limits), DIL_ENOTFOUND, DIL_EIO, DIL_EMEMORY. */
dil_status dil_dataset_load(const char *path, dil_data_format format, dil_dataset *out, dil_err *err);
/* The same from memory, copied; `name` stands for the file in errors. */
dil_status dil_dataset_parse(const char *name, const void *data, size_t len, dil_data_format format, dil_dataset *out, dil_err *err);
void dil_dataset_fini(dil_dataset *d);
bool dil_data_format_from_name(const char *name, dil_data_format *out); /* auto squad text jsonl */

/* SQuAD's official scores (version 2's script): lower case, punctuation and articles removed, white space folded. No answers:
 * the empty prediction scores 1. A prediction of more than 16 MiB scores 0. Threads: safe. */
double dil_squad_exact(const char *prediction, const char *const *answers, size_t n); /* 0 or 1 */
double dil_squad_f1(const char *prediction, const char *const *answers, size_t n);    /* [0,1], best over the answers */

#ifdef __cplusplus
}
#endif
#endif
