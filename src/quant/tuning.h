/* quant/tuning.h - what fine-tuning trains on: sequences of tokens, some of which are labels. Questions of one paragraph are one sequence
 * that forks (dil__decoder_fork): the paragraph is computed once, and each question has the loss and the gradient that it has alone. */
#ifndef DIL_QUANT_TUNING_H
#define DIL_QUANT_TUNING_H

#include <dilemma/dataset.h>
#include <dilemma/tokenizer.h>

enum { DIL__TUNING_BRANCHES = 8 }; /* questions a sequence at most */

typedef struct dil__tuning_data {
    uint32_t n_ctx, cap;
    bool whole;         /* all tokens are labels, not completions alone */
    int32_t *ids;       /* [cap][n_ctx], zeros behind a sequence's end */
    uint32_t *from;     /* [cap][n_ctx] as dil__decoder_fork takes it */
    uint32_t *label;    /* [cap][n_ctx] of a label one more than the row that predicts it; 0: none */
    uint32_t *len, *root; /* [cap]; root == len: no fork */
} dil__tuning_data;

/* Appends at most `most` sequences behind the first `at`, picked at random by the seed; n: how many they are now.
 * Errors: DIL_EDATA (no sample with a completion fits n_ctx tokens), those of loading. */
dil_status dil__tuning_add(dil__tuning_data *d, const dil_tokenizer *tok, const char *path, dil_data_format format, uint64_t seed, uint32_t at, uint32_t most,
                           uint32_t *n, dil_err *err);
void dil__tuning_fini(dil__tuning_data *d);

#endif
