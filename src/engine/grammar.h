/* engine/grammar.h - a grammar as a program of a small machine with calls, and one run of it along a text. */
#ifndef DIL_ENGINE_GRAMMAR_H
#define DIL_ENGINE_GRAMMAR_H

#include <dilemma/grammar.h>

typedef enum dil__op { DIL__OP_SET, DIL__OP_SPLIT, DIL__OP_JUMP, DIL__OP_CALL, DIL__OP_RETURN, DIL__OP_NEVER } dil__op;
typedef struct dil__instr {
    dil__op op;
    uint32_t a, b; /* SET: index of a set; SPLIT: both ways; JUMP, CALL: where to */
} dil__instr;
typedef struct dil__byteset { uint8_t bit[32]; } dil__byteset;

enum { DIL__PROGRAM_MAX = 1 << 18, DIL__SETS_MAX = 4096 };

struct dil_grammar {
    const dil_grammar_vocab *vocab;
    char *schema; /* [schema_len] it was made from; NULL: any object */
    size_t schema_len;
    dil__instr *code; /* [n_code]; starts at `start` */
    dil__byteset *set;
    uint32_t n_code, n_sets, start, cap_code;
};

/* The program of a schema (NULL: any object) into an empty grammar. */
dil_status dil__schema_compile(const char *schema, size_t len, dil_grammar *g, dil_err *err);

struct dil_grammar_vocab {
    uint32_t n;       /* tokens of the vocabulary */
    uint32_t n_text;  /* those that make text; the others have no bytes */
    uint32_t *id;     /* [n_text] sorted by their bytes */
    uint32_t *offset; /* [n + 1] */
    uint8_t *bytes;
    uint16_t *common; /* [n_text] leading bytes shared with the one before */
    uint8_t *ends;    /* [n] ends a generation */
};

/* The same vocabulary on a machine without the tokenizer. False: no memory. Errors of unpack: DIL_EFORMAT, DIL_EMEMORY. */
bool dil__grammar_vocab_pack(const dil_grammar_vocab *v, dil_buf *out);
dil_status dil__grammar_vocab_unpack(const void *data, size_t bytes, uint32_t n_vocab, dil_grammar_vocab **out, dil_err *err);

typedef struct dil__grammar_run dil__grammar_run;
dil__grammar_run *dil__grammar_run_new(const dil_grammar *g); /* NULL: out of memory */
void dil__grammar_run_free(dil__grammar_run *r);
/* Minus infinity for every token that cannot come next; what ends a text stays where the text may end, or where nothing else may come. */
void dil__grammar_run_mask(dil__grammar_run *r, float *logits, uint32_t n_vocab);
void dil__grammar_run_accept(dil__grammar_run *r, int32_t token);
bool dil__grammar_run_may_end(const dil__grammar_run *r);

#endif
