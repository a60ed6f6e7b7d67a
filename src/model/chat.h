/* model/chat.h - chat templates, recognised from a model's own text. */
#ifndef DIL_MODEL_CHAT_H
#define DIL_MODEL_CHAT_H

#include <dilemma/tokenizer.h>

typedef enum dil__chat_kind { DIL__CHAT_NONE, DIL__CHAT_CHATML, DIL__CHAT_LLAMA3, DIL__CHAT_LLAMA31 } dil__chat_kind;

typedef struct dil__chat {
    dil__chat_kind kind;
    char *system; /* the message that the template puts first when the conversation has none; NULL: it puts none */
    size_t system_len;
} dil__chat;

/* kind NONE for a template that is not known. Errors: DIL_EMEMORY. */
dil_status dil__chat_recognise(const char *text, size_t len, dil__chat *out, dil_err *err);
void dil__chat_fini(dil__chat *c);
const char *dil__chat_name(const dil__chat *c); /* NULL for NONE */

#endif
