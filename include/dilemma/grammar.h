/* dilemma/grammar.h - text that is valid JSON of a schema: the sampler leaves out every token that cannot go on such a text.
 *
 *   dil_grammar_vocab *v;  dil_grammar_vocab_new(tokenizer, &v, err);         once a model
 *   dil_grammar *g;        dil_grammar_json(v, schema, len, &g, err);         once a request
 *   opts.grammar = g;  ... dil_sampler_pick, dil_sampler_accept ...           dil_grammar_free(g);
 *
 * What of JSON Schema is understood: type (one or several), properties, required, additionalProperties, items, minItems and maxItems (to
 * 64), minLength and maxLength (to 256), enum, const, anyOf, allOf of one, $ref into the same document (recursive too). An object's
 * members come in the schema's order, those not required may be left out, and none that properties does not name; an object without
 * properties is a map of additionalProperties. Strings are UTF-8, numbers have at most 18 digits before and 16 behind the point. Titles,
 * descriptions, defaults, examples, formats and comments are passed over. Any other keyword is refused by name. White space is one
 * space, or a line end with up to 24 spaces, where JSON allows some. A document nests some hundred deep. */
#ifndef DILEMMA_GRAMMAR_H
#define DILEMMA_GRAMMAR_H

#include <dilemma/engine.h>
#include <dilemma/tokenizer.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct dil_grammar_vocab dil_grammar_vocab; /* immutable: safe from many threads at once */
/* The tokenizer is copied from. Cost: n log n in the vocabulary, some ten milliseconds. Errors: DIL_EMEMORY. */
dil_status dil_grammar_vocab_new(const dil_tokenizer *t, dil_grammar_vocab **out, dil_err *err);
void dil_grammar_vocab_free(dil_grammar_vocab *v);

#define DIL_SCHEMA_BYTES_MAX (1u << 20)
/* v is borrowed for the grammar's life; the grammar is immutable. schema NULL: any JSON object.
 * Errors: DIL_EFORMAT (not JSON, a keyword's value of the wrong kind), DIL_EUNSUPPORTED names keyword and place, DIL_ELIMIT, DIL_EMEMORY. */
dil_status dil_grammar_json(const dil_grammar_vocab *v, const char *schema, size_t len, dil_grammar **out, dil_err *err);
void dil_grammar_free(dil_grammar *g);

#ifdef __cplusplus
}
#endif
#endif
