/* model/tokenizer_impl.h - what the tokenizer's own files share. */
#ifndef DIL_MODEL_TOKENIZER_IMPL_H
#define DIL_MODEL_TOKENIZER_IMPL_H

#include "model/chat.h"
#include "model/pretok.h"
#include "model/unigram.h"
#include "model/vocab.h"

/* What a file says about its tokenizer, borrowed for the call. */
typedef struct dil__tokenizer_src {
    dil__vocab_src vocab;
    dil__str pre, chat_template;
    int64_t bos, eos, eot, eom; /* -1: none */
    int add_bos;                /* -1: not said, the family's rule */
    bool space_first;           /* SentencePiece: a text begins as if a space stood before it */
    const dil__unigram_src *unigram; /* NULL: byte pairs */
} dil__tokenizer_src;

struct dil_tokenizer {
    dil__vocab vocab;
    dil__pretok *pre; /* NULL: SentencePiece */
    dil__unigram unigram;
    bool is_unigram;
    bool space_first;
    dil__chat chat;
    int32_t bos, eos;
    bool add_bos;
    bool has_user_tokens; /* else text without DIL_TOK_SPECIAL need not be searched */
    uint8_t *eog;         /* [n_vocab] 1: ends a generation */
};

dil_status dil__tokenizer_build(const dil__tokenizer_src *src, dil_tokenizer **out, dil_err *err);

/* One run of the tokenizer: text comes in pieces, ids gather in `ids`. */
typedef struct dil__tokenizing {
    const dil_tokenizer *t;
    dil__ids ids;
    dil__bpe bpe;
    dil__viterbi viterbi;
} dil__tokenizing;
dil_status dil__tokenizing_text(dil__tokenizing *run, const char *text, size_t len, bool control, dil_err *err);
void dil__tokenizing_end(dil__tokenizing *run, dil_status s, dil_ids *out); /* hands the ids over on DIL_OK, else frees them */

#endif
