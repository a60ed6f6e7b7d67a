/* model/import_vocab.h - a tokenizer on its way from a Hugging Face folder to metadata: what the readers of the several layouts fill. */
#ifndef DIL_MODEL_IMPORT_VOCAB_H
#define DIL_MODEL_IMPORT_VOCAB_H

#include "model/import.h"

#include <string.h>

enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5, BYTE = 6 }; /* tokenizer.ggml.token_type */

typedef struct dil__hf_vocab {
    const dil__hf_vocab_files *f;
    const dil__hf_config *c;
    dil_arena *arena;
    dil_gguf_writer *w;
    dil_err *err;
    const char **token; /* [n_vocab] borrowed; NULL: no such id */
    int32_t *kind;
    const char **merge;
    size_t n_merges;
    bool add_bos;
    const char *pre;
    bool pieces;        /* SentencePiece's */
    bool unigram;       /* of them: not byte pairs */
    bool kinds_known;   /* tokenizer.model says each piece's */
    float *score;       /* [n_vocab]; NULL: the merges say */
    const uint8_t *charsmap; /* [charsmap_bytes] unigram: rules of normalization */
    size_t charsmap_bytes;
    bool collapses;     /* unigram: runs of spaces are one */
    int64_t unk;        /* -1: whatever is called <unk> */
    int64_t bos, eos, pad; /* of tokenizer.model; -1: none */
    bool space_first;
} dil__hf_vocab;

static inline const char *dil__hf_str(const json_t *o, const char *key) /* "" where there is none */
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

dil_status dil__hf_bad(const dil__hf_vocab *v, const char *why);
dil_status dil__hf_no_memory(const dil__hf_vocab *v);
dil_status dil__hf_unsupported(const dil__hf_vocab *v, const char *what, const json_t *o);
dil_status dil__hf_set_token(dil__hf_vocab *v, const char *text, json_int_t id, int32_t kind);

/* SentencePiece's side (import_pieces.c). */
dil_status dil__hf_read_piece_rules(dil__hf_vocab *v, const json_t *doc); /* tokenizer.json, byte pairs */
dil_status dil__hf_read_unigram(dil__hf_vocab *v, const json_t *doc);     /* tokenizer.json, vocabulary and rules */
dil_status dil__hf_read_spm(dil__hf_vocab *v);                            /* tokenizer.model alone */
void dil__hf_mark_pieces(dil__hf_vocab *v);
dil_status dil__hf_put_pieces(dil__hf_vocab *v);

#endif
