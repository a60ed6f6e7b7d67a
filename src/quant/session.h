/* quant/session.h - one model file, its tokenizer and one stage with every layer, fed with token ids.
 *
 *   dil__session s = {0};  dil__session_open(&s, "m.gguf", err);  dil__session_start(&s, &opts, 512, progress, err);
 *   kept = dil__session_keep(&s, ids, n);  dil__session_feed(&s, ids + kept, n - kept, n_want, logits, err);
 *   dil__session_close(&s); */
#ifndef DIL_QUANT_SESSION_H
#define DIL_QUANT_SESSION_H

#include "quant/variant.h"

#include <dilemma/engine.h>
#include <dilemma/tokenizer.h>

typedef struct dil__session {
    dil_gguf *gguf;
    dil_arch arch;
    dil_weights weights, file;
    dil__variant floats;
    dil_tokenizer *tok;
    dil_stage *stage;
    uint32_t n_parts;        /* set before start: stages in a row, at most 16; 0: one */
    dil_type wire;           /* and how hidden states travel between them: F32 (0), F16, BF16 */
    dil_stage *rest[16];     /* [n_parts - 1] the others */
    float *hidden[2];        /* [max_batch][n_embd] between them */
    uint16_t *narrow;        /* [max_batch][n_embd] */
    uint32_t n_ctx, max_batch;
    int32_t *cached;   /* [n_ctx] what the KV cache holds */
    uint32_t n_cached;
    int32_t *pos;      /* [max_batch] scratch */
    uint8_t *want;     /* [max_batch] scratch */
} dil__session;

dil_status dil__session_open(dil__session *s, const char *path, dil_err *err); /* s zeroed */
/* The same ids must mean the same pieces in both, or a divergence between them means nothing. DIL_EUNSUPPORTED says where they differ. */
dil_status dil__session_same_tokens(const dil__session *s, const dil__session *teacher, dil_err *err);
/* Before start: compute with the weights' values in F32 (on CPUs the fastest for long batches; four bytes a parameter). */
dil_status dil__session_floats(dil__session *s, int n_threads, dil_err *err);
dil_status dil__session_start(dil__session *s, const char *device, int n_threads, uint32_t n_ctx, const dil_progress *progress,
                              dil_err *err);
void dil__session_close(dil__session *s); /* fine on a zeroed one */

/* Keeps the part of the cache that is a prefix of ids [n], forgets the rest; returns its length. */
uint32_t dil__session_keep(dil__session *s, const int32_t *ids, uint32_t n);

/* Appends n tokens; logits [n_want][n_vocab] are those of the last n_want <= min(n, max_batch) tokens; out NULL when n_want is 0. */
dil_status dil__session_feed(dil__session *s, const int32_t *ids, uint32_t n, uint32_t n_want, float *out, dil_err *err);

#endif
