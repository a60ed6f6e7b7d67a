/* dilemma/tokenizer.h - text to token ids and back, from a model file's own vocabulary; and the chat template.
 *
 *   dil_tokenizer *t;  dil_tokenizer_new(gguf, &t, err);
 *   dil_tokenize(t, text, len, DIL_TOK_BOS, &ids, err);  dil_detokenize(t, ids.id, ids.n, 0, &buf, err); */
#ifndef DILEMMA_TOKENIZER_H
#define DILEMMA_TOKENIZER_H

#include <dilemma/gguf.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct dil_tokenizer dil_tokenizer; /* immutable: safe from many threads at once */

dil_status dil_tokenizer_new(const dil_gguf *g, dil_tokenizer **out, dil_err *err); /* copies what it needs */
void dil_tokenizer_free(dil_tokenizer *t);

typedef struct dil_ids { int32_t *id; size_t n; } dil_ids; /* owned; dil_ids_fini */
void dil_ids_fini(dil_ids *ids);

enum { DIL_TOK_BOS = 1,      /* put the leading token first where the model wants one (OPT's </s>) */
       DIL_TOK_SPECIAL = 2   /* special tokens spelled in the text are recognised (templates; never user text) */ };
#define DIL_TOK_TEXT_MAX (64u << 20)
dil_status dil_tokenize(const dil_tokenizer *t, const char *text, size_t len, unsigned flags, dil_ids *out, dil_err *err);

enum { DIL_DETOK_SPECIAL = 1 /* render special tokens by name instead of leaving them out */ };
/* Appends the bytes of n ids to out; a token may end inside a UTF-8 character. */
dil_status dil_detokenize(const dil_tokenizer *t, const int32_t *id, size_t n, unsigned flags, dil_buf *out, dil_err *err);
/* One token's bytes, borrowed from t. */
const char *dil_token_bytes(const dil_tokenizer *t, int32_t id, size_t *len);

uint32_t dil_tokenizer_n_vocab(const dil_tokenizer *t);
int32_t dil_tokenizer_bos(const dil_tokenizer *t);  /* -1: none */
int32_t dil_tokenizer_eos(const dil_tokenizer *t);
bool dil_tokenizer_adds_bos(const dil_tokenizer *t); /* the model's own rule (llama.cpp's add_bos_token) */
bool dil_tokenizer_is_eog(const dil_tokenizer *t, int32_t id); /* ends a generation: eos, <|im_end|>, <|eot_id|>, ... */
bool dil_tokenizer_is_special(const dil_tokenizer *t, int32_t id);
int32_t dil_tokenizer_find(const dil_tokenizer *t, const char *piece, size_t len); /* a vocabulary entry, -1 */

/* Chat. The template is recognised from the model's own text; DIL_EUNSUPPORTED when unknown (never guessed). */
typedef struct dil_chat_msg { const char *role, *content; size_t content_len; } dil_chat_msg;
const char *dil_chat_template_name(const dil_tokenizer *t); /* "chatml", "llama3", ...; NULL: none recognised */
/* Token ids of a conversation that the assistant answers next; user text is never read as special tokens. */
dil_status dil_chat_tokenize(const dil_tokenizer *t, const dil_chat_msg *msgs, size_t n, dil_ids *out, dil_err *err);

#ifdef __cplusplus
}
#endif
#endif
