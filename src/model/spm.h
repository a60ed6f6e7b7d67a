/* model/spm.h - SentencePiece's tokenizer.model: the fields of the protocol buffer that a tokenizer needs, nothing else of it. */
#ifndef DIL_MODEL_SPM_H
#define DIL_MODEL_SPM_H

#include <dilemma/base.h>

enum { DIL__SPM_UNIGRAM = 1, DIL__SPM_BPE = 2 };
enum { DIL__SPM_PIECES_MAX = 1 << 22 };

typedef struct dil__spm_piece {
    const char *s; /* [len] borrowed from the file's bytes; valid UTF-8 without zero bytes */
    size_t len;
    float score;   /* finite */
    int32_t type;  /* 1 to 6, as tokenizer.ggml.token_type has them */
} dil__spm_piece;

typedef struct dil__spm {
    dil__spm_piece *piece; /* [n] on the arena */
    size_t n;
    int64_t model_type;    /* DIL__SPM_BPE, ... */
    int64_t bos, eos, pad; /* -1: none */
    bool space_first;      /* add_dummy_prefix */
    bool collapses;        /* remove_extra_whitespaces */
    bool escapes;          /* spaces are spelled U+2581 */
    bool space_last;       /* treat_whitespace_as_suffix */
    const uint8_t *charsmap; /* [charsmap_bytes] rules of normalization, borrowed; not looked into */
    size_t charsmap_bytes;
} dil__spm;

/* Errors: DIL_EFORMAT with the byte, DIL_ELIMIT, DIL_EMEMORY; they name `file`. Memory: 32 bytes a piece. */
dil_status dil__spm_read(const char *file, const uint8_t *data, size_t len, dil_arena *arena, dil__spm *out, dil_err *err);

#endif
