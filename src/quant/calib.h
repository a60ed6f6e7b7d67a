/* quant/calib.h - calibration: a stream of tokens, and the mean square of every input column of every linear layer over it (an
 * importance matrix; the diagonal of E[x xᵀ]).
 *
 *   dil__calib_tokens(tok, "data.json", DIL_DATA_AUTO, 8192, &ids, err);
 *   dil__imatrix_gather(path, &ids, threads, progress, &im, err);   row = dil__imatrix_row(im, "blk.0.attn_q.weight", 576); */
#ifndef DIL_QUANT_CALIB_H
#define DIL_QUANT_CALIB_H

#include <dilemma/dataset.h>
#include <dilemma/engine.h>
#include <dilemma/tokenizer.h>

/* At most max_tokens ids from a data set as one stream of text: questions about one paragraph follow it without repeating it.
 * Errors: DIL_EDATA (fewer than min_tokens: both numbers). */
dil_status dil__calib_tokens(const dil_tokenizer *tok, const char *path, dil_data_format format, size_t min_tokens, size_t max_tokens,
                             dil_ids *out, dil_err *err);

/* The same without the tokens [from, to), which are kept apart; where that leaves fewer than min_tokens all of it, with a warning. */
dil_status dil__calib_tokens_without(const dil_tokenizer *tok, const char *path, dil_data_format format, uint64_t from, uint64_t to, size_t min_tokens,
                                     size_t max_tokens, dil_ids *out, dil_err *err);

#define DIL__FLOATS_PARAMS 1000000000u /* 4 GB of floats */

/* A tap cannot fail by itself: it leaves its first failure here, and the pass ends with it. */
typedef struct dil__calib_sink {
    dil_status st;
    dil_err err;
} dil__calib_sink;
/* Runs ids through the session's model in chunks of n_ctx, every row of logits computed, so that a tap on the stage sees all inputs alike. */
struct dil__session;
dil_status dil__calib_pass(struct dil__session *s, const dil_ids *ids, uint32_t n_ctx, const dil__calib_sink *sink, uint64_t *n_tokens,
                           const dil_progress *progress, dil_err *err);

typedef struct dil__imatrix dil__imatrix;
void dil__imatrix_free(dil__imatrix *m);
/* One pass over ids in chunks of n_ctx (the leading token first where the model wants it). Memory: 12 bytes a column, and the model: as floats up to DIL__FLOATS_PARAMS parameters.
 * Errors: DIL_EDATA names the tensor whose input is not finite. */
dil_status dil__imatrix_gather(const char *model, const dil_ids *ids, uint32_t n_ctx, const char *device, int n_threads,
                               const dil_progress *progress, dil__imatrix **out, dil_err *err);
/* Mean squares [n_cols] of a weight's input, borrowed; NULL: the tensor was not seen, or has another number of columns. */
const float *dil__imatrix_row(const dil__imatrix *m, const char *tensor, uint64_t n_cols);
uint64_t dil__imatrix_tokens(const dil__imatrix *m);

/* GGUF as llama.cpp's llama-imatrix writes and reads it (TENSOR.in_sum2, TENSOR.counts). data: named in the file, may be NULL. */
dil_status dil__imatrix_save(const dil__imatrix *m, const char *path, const char *data, dil_err *err);
dil_status dil__imatrix_load(const char *path, dil__imatrix **out, dil_err *err);
dil_status dil__imatrix_read(const dil_gguf *g, dil__imatrix **out, dil_err *err); /* of an open file, which may go */

#endif
