/* engine/batch.h - a caller's batch, checked and put into the order of computation. No ggml here. */
#ifndef DIL_ENGINE_BATCH_H
#define DIL_ENGINE_BATCH_H

#include <dilemma/engine.h>

/* Runs of one sequence, in the order of slots; a row is a token at its place in the graph. */
typedef struct dil__run {
    uint32_t seq, first, n, pos; /* rows first .. first+n-1 hold positions pos .. pos+n-1 */
} dil__run;

typedef struct dil__ordered {
    uint32_t n, n_want, n_runs;
    uint32_t *token_of;  /* [max_batch] row -> index in the caller's batch */
    uint32_t *row_of;    /* [max_batch] scratch of passes */
    uint32_t *want_token;/* [max_batch] indices of the wanted tokens */
    dil__run *run;       /* [n_seq] */
    uint32_t *count;     /* [n_seq] scratch */
    uint32_t n_seq, max_batch;
} dil__ordered;

dil_status dil__ordered_init(dil__ordered *o, uint32_t max_batch, uint32_t n_seq, dil_err *err);
void dil__ordered_fini(dil__ordered *o);

typedef struct dil__batch_limits {
    uint32_t n_ctx;
    uint32_t n_vocab;      /* 0: token ids are not read */
    const uint32_t *len;   /* [n_seq] positions held; a batch may overwrite, never leave a gap */
} dil__batch_limits;

/* Orders the rows by sequence (each sequence's tokens stay in the caller's order) and checks everything that kernels would
 * otherwise trip over. Errors: DIL_ELIMIT, DIL_EDATA with the numbers. */
dil_status dil__ordered_set(dil__ordered *o, const dil_batch *b, const dil__batch_limits *limits, dil_err *err);

#endif
