/* model/vocab.h - a BPE vocabulary: token bytes, the tables that find them, the merges, the added tokens.
 *
 * Byte-level (GPT-2): a file spells ordinary tokens in GPT-2's alphabet, one printable character a byte, and lists the merges.
 * SentencePiece (Llama 2): tokens are spelled as they are with U+2581 for a space; two neighbours merge where their joint spelling
 * is a token, the one of the highest score first; characters without a token fall back to byte tokens. Either way tokens are bytes
 * here. Token types are the GGUF specification's. Everything is immutable once built. */
#ifndef DIL_MODEL_VOCAB_H
#define DIL_MODEL_VOCAB_H

#include <dilemma/base.h>

enum { DIL__TOKEN_NORMAL = 1, DIL__TOKEN_UNKNOWN, DIL__TOKEN_CONTROL, DIL__TOKEN_USER, DIL__TOKEN_UNUSED, DIL__TOKEN_BYTE };
enum {
    DIL__VOCAB_MAX = 1 << 22,       /* tokens; merges too */
    DIL__TOKEN_BYTES_MAX = 1 << 16, /* of one token; the longest in use are runs of a few hundred spaces */
    DIL__ADDED_BYTES_MAX = 512      /* of a token that is looked for in text */
};

typedef struct dil__str {
    const char *s;
    size_t len;
} dil__str;

/* What a file says, borrowed for the call. */
typedef struct dil__vocab_src {
    const dil__str *tokens; /* [n_tokens] */
    const int32_t *types;   /* [n_tokens]; NULL: all normal */
    size_t n_tokens;
    const dil__str *merges; /* [n_merges] "left right" */
    size_t n_merges;
    const float *scores;    /* [n_tokens]: SentencePiece; NULL: byte-level */
} dil__vocab_src;

typedef struct dil__trie_node {
    int32_t id; /* of the token that ends here, or -1 */
    uint32_t child, sibling;
    uint8_t byte;
} dil__trie_node;

typedef struct dil__vocab {
    uint32_t n;
    char *bytes;      /* every token's bytes, one after the other */
    uint32_t *offset; /* [n + 1] */
    uint8_t *type;    /* [n] */
    int32_t byte_id[256]; /* the token that is this one byte (SentencePiece: <0x00> to <0xFF>), or -1 */
    uint32_t *rank;       /* [n] SentencePiece: 0 the highest score, equal scores have equal ranks; NULL: byte-level */
    uint32_t *slot, slot_mask; /* bytes of a token that merges can make -> id + 1, open addressing */
    uint32_t n_merges;
    int32_t *left, *right, *made; /* [n_merges], in rank order */
    uint32_t *pair, pair_mask;    /* (left, right) -> rank + 1, open addressing */
    dil__trie_node *trie;         /* added tokens by their spelling; node 0 is the root */
    uint32_t n_trie, first[256];  /* the root's children by byte; 0: none */
} dil__vocab;

/* Errors: DIL_EFORMAT names the token or merge that does not fit, DIL_ELIMIT, DIL_EMEMORY. */
dil_status dil__vocab_init(dil__vocab *v, const dil__vocab_src *src, dil_err *err);
void dil__vocab_fini(dil__vocab *v);

/* A byte in GPT-2's alphabet: one or two bytes of UTF-8 to out [2]; returns how many. */
size_t dil__vocab_spell(uint8_t byte, char *out);

/* The token that merges make of these bytes (types normal, user-defined and byte); -1: none. */
int32_t dil__vocab_find(const dil__vocab *v, const char *bytes, size_t len);
/* The rank of the merge of two tokens, lowest first, and what it makes; -1: none. */
int64_t dil__vocab_join(const dil__vocab *v, int32_t left, int32_t right, int32_t *made);
/* The longest added token (control, unknown, user-defined) that s begins with (control and unknown ones only if `control`); -1: none. */
int32_t dil__vocab_added(const dil__vocab *v, const char *s, size_t len, bool control, size_t *token_len);
bool dil__vocab_is_special(const dil__vocab *v, int32_t id); /* control, unknown or unused: not text */

/* One growing list of ids. */
typedef struct dil__ids {
    int32_t *id;
    size_t n, cap;
} dil__ids;
dil_status dil__ids_push(dil__ids *ids, int32_t id, dil_err *err);

/* Scratch of the merges, kept between words. */
typedef struct dil__bpe {
    struct dil__symbol *sym;
    uint64_t *heap;
    size_t sym_cap, heap_cap;
} dil__bpe;
enum { DIL__WORD_MAX = 4 << 20 }; /* bytes merged at once; a longer word (no text has one) is cut, so that scratch is bounded */
void dil__bpe_fini(dil__bpe *b);
/* Appends the ids of one word. Cost n log n in its bytes. A byte that the vocabulary lacks is left out, as the reference does. */
dil_status dil__bpe_word(const dil__vocab *v, dil__bpe *b, const char *word, size_t len, dil__ids *out, dil_err *err);
/* The same of a whole text in SentencePiece's way; space_first: as if it began with a space (where it is not empty). */
dil_status dil__bpe_text(const dil__vocab *v, dil__bpe *b, const char *text, size_t len, bool space_first, dil__ids *out, dil_err *err);

#endif
