/* dilemma/tokenizer.h - text to token ids and back, from a model file's own vocabulary; and the chat template.
 *
 *   dil_tokenizer *t;  dil_tokenizer_new(gguf, &t, err);
 *   dil_tokenize(t, text, len, DIL_TOK_BOS, &ids, err);  dil_detokenize(t, ids.id, ids.n, 0, &buf, err);
 *
 * Byte-level BPE (tokenizer.ggml.model "gpt2") under the rules that tokenizer.ggml.pre names: gpt-2 (GPT-2, OPT), smollm,
 * llama-bpe and smaug-bpe (Llama 3, SmolLM3), qwen2, tekken (Mistral Nemo), gpt-4o (Phi-4-mini); and SentencePiece BPE with byte
 * fallback ("llama": Llama 2, TinyLlama, Mistral, Gemma, Phi-3) and unigram with its rules of normalization ("t5"; what those rules
 * change, and extra spaces that they remove, do not come back). Qwen2's normalization to NFC is left out, as llama.cpp does: text that is
 * not NFC already gets other ids than from transformers. Ids equal those of the reference libraries
 * (Hugging Face tokenizers, sentencepiece). Text may be any bytes: what is not UTF-8 is
 * tokenized byte by byte and comes back. A byte that the vocabulary has no token for (SmolLM2 lacks some control characters)
 * is left out, as the reference does. User-defined tokens (token_type 4) belong to the model's text and are always recognised;
 * control tokens only with DIL_TOK_SPECIAL. */
#ifndef DILEMMA_TOKENIZER_H
#define DILEMMA_TOKENIZER_H

#include <dilemma/gguf.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct dil_tokenizer dil_tokenizer; /* immutable: safe from many threads at once */

/* Copies what it needs from g (tokenizer.ggml.*, tokenizer.chat_template).
 * Errors   DIL_EUNSUPPORTED  another tokenizer model, or pre-tokenizer rules that we do not have (named, with the known ones)
 *          DIL_EFORMAT       missing keys; tokens, types and merges that do not fit together (named)
 *          DIL_ELIMIT        more than 4 Mi tokens or merges, a token of more than 64 KiB */
dil_status dil_tokenizer_new(const dil_gguf *g, dil_tokenizer **out, dil_err *err);
void dil_tokenizer_free(dil_tokenizer *t);

typedef struct dil_ids { int32_t *id; size_t n; } dil_ids; /* owned; dil_ids_fini */
void dil_ids_fini(dil_ids *ids);

enum { DIL_TOK_BOS = 1,      /* put the leading token first where the model wants one (OPT's </s>) */
       DIL_TOK_SPECIAL = 2   /* special tokens spelled in the text are recognised (templates; never user text) */ };
#define DIL_TOK_TEXT_MAX (64u << 20)
/* ids is written on DIL_OK; n may be 0. A "word" of more than 4 MiB is cut there. Errors: DIL_ELIMIT (len), DIL_EMEMORY.
 * Cost   n log n in the longest word, else linear: about 5 million tokens a second on a core. */
dil_status dil_tokenize(const dil_tokenizer *t, const char *text, size_t len, unsigned flags, dil_ids *out, dil_err *err);

enum { DIL_DETOK_SPECIAL = 1, /* render special tokens by name instead of leaving them out */
       DIL_DETOK_START = 2    /* the ids begin a text: the space that SentencePiece puts before it is dropped */ };
/* Appends the bytes of n ids to out; a token may end inside a UTF-8 character. Errors: DIL_EFORMAT for an id outside the
 * vocabulary, DIL_ELIMIT for more than out->max bytes (out then holds what fitted). */
dil_status dil_detokenize(const dil_tokenizer *t, const int32_t *id, size_t n, unsigned flags, dil_buf *out, dil_err *err);
/* One token's bytes, borrowed from t, not zero-terminated; NULL for an id outside the vocabulary. */
const char *dil_token_bytes(const dil_tokenizer *t, int32_t id, size_t *len);

uint32_t dil_tokenizer_n_vocab(const dil_tokenizer *t);
int32_t dil_tokenizer_bos(const dil_tokenizer *t);  /* -1: none */
int32_t dil_tokenizer_eos(const dil_tokenizer *t);
bool dil_tokenizer_adds_bos(const dil_tokenizer *t); /* the model's own rule (llama.cpp's add_bos_token) */
bool dil_tokenizer_is_eog(const dil_tokenizer *t, int32_t id); /* ends a generation: eos, <|im_end|>, <|eot_id|>, ... */
bool dil_tokenizer_is_special(const dil_tokenizer *t, int32_t id);
int32_t dil_tokenizer_find(const dil_tokenizer *t, const char *piece, size_t len); /* by its bytes (" the", "<|im_end|>"); -1: none */

/* Chat. The template is recognised from the model's own text; DIL_EUNSUPPORTED when unknown (never guessed). */
typedef struct dil_chat_msg { const char *role, *content; size_t content_len; } dil_chat_msg;
/* chatml (SmolLM2, Qwen2), qwen2.5, qwen3, smollm3, llama2, llama3, llama3.1, mistral, mistral-v1, mistral-v3, mistral-v3-tekken, zephyr
 * (TinyLlama), gemma, gemma3, phi3, phi3-system, phi3-last, phi3.5, phi4-mini; NULL: none recognised. Thinking models think: their
 * templates' own default (SmolLM3 does not where the system message holds /no_think). */
const char *dil_chat_template_name(const dil_tokenizer *t);
/* Token ids of a conversation that the assistant answers next, BOS included where the template has it; roles and contents are
 * never read as special tokens. chatml puts the template's own system message first where the first message is not one.
 * llama3.1 dates the prompt 26 Jul 2024, its template's value where there is no clock, so that ids do not change by the day.
 * Errors   DIL_EUNSUPPORTED  no known template; roles "tool" and "ipython" where a template has a form for them
 *          DIL_EUSAGE        n is 0; what the template itself refuses: turns out of order, a system message that it has no place for
 *          DIL_ELIMIT        contents of more than DIL_TOK_TEXT_MAX between two special tokens */
dil_status dil_chat_tokenize(const dil_tokenizer *t, const dil_chat_msg *msgs, size_t n, dil_ids *out, dil_err *err);

#ifdef __cplusplus
}
#endif
#endif
