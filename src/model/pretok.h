/* model/pretok.h - the pre-tokenizer: cuts text into the "words" that byte-pair merges stay within. */
#ifndef DIL_MODEL_PRETOK_H
#define DIL_MODEL_PRETOK_H

#include <dilemma/base.h>

typedef struct dil__pretok dil__pretok; /* immutable: safe from many threads at once */

/* The rule that a model file names in tokenizer.ggml.pre; DIL_EUNSUPPORTED names the known ones. */
dil_status dil__pretok_new(const char *name, size_t len, dil__pretok **out, dil_err *err);
void dil__pretok_free(dil__pretok *p);
bool dil__pretok_whole_words(const dil__pretok *p); /* a word that is in the vocabulary is taken as it is, without merges */
bool dil__pretok_default_bos(const dil__pretok *p); /* the family's rule where the file has none */

/* Calls word() for each word, in order; together they are the text, byte for byte. Runs of bytes that are not UTF-8 are words
 * of their own. word() returns other than DIL_OK to stop. Linear in len. */
typedef dil_status dil__word_fn(void *ctx, const char *word, size_t len, dil_err *err);
dil_status dil__pretok_split(const dil__pretok *p, const char *text, size_t len, dil__word_fn *word, void *ctx, dil_err *err);

#endif
