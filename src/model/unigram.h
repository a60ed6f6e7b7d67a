/* model/unigram.h - SentencePiece's unigram model: text is normalized, and of all ways to cut it into pieces the one is taken whose
 * log-probabilities sum highest. Characters that no piece covers become byte tokens, or one unknown token for a run of them.
 *
 * Spaces are plain spaces here, as everywhere behind the vocabulary, and U+2581 in a text is one too. */
#ifndef DIL_MODEL_UNIGRAM_H
#define DIL_MODEL_UNIGRAM_H

#include "model/charsmap.h"
#include "model/vocab.h"

enum { DIL__PIECE_BYTES_MAX = 512 }; /* of a piece: bounds the work at each character */

typedef struct dil__unigram {
    float *score;       /* [vocab n] what a piece adds to the sum */
    uint32_t *sorted;   /* [n] ids of the pieces that text is cut into (normal and user-defined), by their bytes */
    uint32_t n;
    uint32_t first[257]; /* where those begin whose first byte is b; [256] is n */
    float unknown;      /* what a character without a piece adds */
    int32_t unk;        /* the unknown token */
    bool bytes;         /* every byte has a token */
    bool space_first, collapses; /* a text begins with a space; runs of spaces are one, and none at its ends */
    dil__charsmap map;
} dil__unigram;

/* What a file says of it besides its vocabulary, borrowed for the call. */
typedef struct dil__unigram_src {
    const uint8_t *charsmap;
    size_t charsmap_bytes;
    bool space_first, collapses;
} dil__unigram_src;

/* score [v->n]. Errors: DIL_EFORMAT (no unknown token, a score that is not finite), DIL_ELIMIT (a piece), the map's, DIL_EMEMORY. */
dil_status dil__unigram_init(dil__unigram *u, const dil__vocab *v, const float *score, const dil__unigram_src *src, dil_err *err);
void dil__unigram_fini(dil__unigram *u);

/* Appends the text as it is cut; U+FFFD stands for each byte that is no UTF-8. Errors: DIL_ELIMIT past out's maximum. */
dil_status dil__unigram_normalize(const dil__unigram *u, const dil__vocab *v, const char *text, size_t len, dil_buf *out, dil_err *err);

/* Scratch, kept between texts. */
typedef struct dil__viterbi {
    struct dil__best *best;
    size_t cap;
} dil__viterbi;
void dil__viterbi_fini(dil__viterbi *b);
/* Normalizes the text and appends its ids. Cost: the bytes times those of the longest piece that fits. More than DIL__WORD_MAX bytes are cut there. */
dil_status dil__unigram_text(const dil__unigram *u, const dil__vocab *v, dil__viterbi *b, const char *text, size_t len, dil__ids *out, dil_err *err);

#endif
