/* serve/answer.h - the OpenAI response bodies as JSON text. Pure. Strings must be UTF-8. */
#ifndef DIL_SERVE_ANSWER_H
#define DIL_SERVE_ANSWER_H

#include "serve/api.h"

typedef struct dil__answer {
    dil__api_kind kind;
    const char *id, *model;
    int64_t created_sec;
    uint32_t n_prompt, n_generated, n_guessed, n_right;
    double prefill_sec, decode_sec;
} dil__answer;

/* All append to out. finish: "stop", "length"; NULL where it has not ended. */
void dil__answer_whole(const dil__answer *a, const char *text, size_t len, const char *finish, dil_buf *out);
/* Server-sent events, "data: ...\n\n". first: a chat's opening chunk with the role. usage: the key is there (null so far). */
void dil__answer_first(const dil__answer *a, bool usage, dil_buf *out);
void dil__answer_chunk(const dil__answer *a, const char *text, size_t len, const char *finish, bool usage, dil_buf *out);
void dil__answer_usage(const dil__answer *a, dil_buf *out);
void dil__answer_error_event(int http, const char *message, dil_buf *out);
/* {"error": {"message", "type", "param", "code"}}; param and code may be NULL. */
void dil__answer_error(int http, const char *message, const char *param, const char *code, dil_buf *out);
/* The HTTP status of a failed request, and OpenAI's code word for it or NULL. */
int dil__answer_status(const dil_err *e, const char **code);

#endif
