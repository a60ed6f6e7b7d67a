/* model/chat.h - chat templates, recognised from a model's own text. */
#ifndef DIL_MODEL_CHAT_H
#define DIL_MODEL_CHAT_H

#include <dilemma/tokenizer.h>

typedef enum dil__chat_kind {
    DIL__CHAT_NONE, DIL__CHAT_CHATML, DIL__CHAT_LLAMA3, DIL__CHAT_LLAMA31, DIL__CHAT_QWEN25, DIL__CHAT_QWEN3, DIL__CHAT_SMOLLM3,
    DIL__CHAT_LLAMA2, DIL__CHAT_MISTRAL, DIL__CHAT_MISTRAL_V1, DIL__CHAT_MISTRAL_V3, DIL__CHAT_TEKKEN, DIL__CHAT_ZEPHYR,
    DIL__CHAT_GEMMA, DIL__CHAT_GEMMA3, DIL__CHAT_PHI3, DIL__CHAT_PHI3_SYSTEM, DIL__CHAT_PHI3_LAST, DIL__CHAT_PHI35, DIL__CHAT_PHI4_MINI
} dil__chat_kind;

typedef struct dil__chat {
    dil__chat_kind kind;
    char *system; /* the message that the template puts first when the conversation has none; NULL: it puts none */
    size_t system_len;
} dil__chat;

/* kind NONE for a template that is not known. Errors: DIL_EMEMORY. */
dil_status dil__chat_recognise(const char *text, size_t len, dil__chat *out, dil_err *err);
void dil__chat_fini(dil__chat *c);
bool dil__chat_form(const char *text, size_t len, dil_hash *out); /* the hash of a template's one form; false: it has none */
const char *dil__chat_name(const dil__chat *c); /* NULL for NONE */

#endif
