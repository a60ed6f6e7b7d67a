/* net/picker.h - one sampler a slot: turns the last stage's logits into tokens, on this machine or on the ring's last node. */
#ifndef DIL_NET_PICKER_H
#define DIL_NET_PICKER_H

#include "net/pipe.h"

#include <dilemma/grammar.h>

typedef struct dil__picker {
    dil_sampler **sampler; /* [n_seq], NULL: the slot never began */
    uint32_t *from, *to;   /* [n_seq] positions of tokens that were picked before the slot began: accepted as they pass */
    uint32_t *n_top;       /* [n_seq] */
    uint32_t n_seq, n_vocab;
    dil_grammar_vocab *words; /* owned; NULL: begins with a schema of their own are refused */
    dil_grammar **grammar;    /* [n_seq] made of such a schema */
} dil__picker;

dil_status dil__picker_init(dil__picker *p, uint32_t n_seq, uint32_t n_vocab, dil_err *err);
void dil__picker_fini(dil__picker *p);
dil_status dil__picker_begin(dil__picker *p, const dil__begin *b, dil_err *err);
/* For every batch, also where none is wanted. logits [wanted][n_vocab] in the batch's order; rows [wanted]. */
dil_status dil__picker_pick(dil__picker *p, const dil_batch *b, const float *logits, dil__row *rows, uint32_t *n_rows, dil_err *err);

#endif
