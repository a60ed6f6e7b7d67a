/* serve/answer.h - the response bodies of OpenAI's and Ollama's protocols as JSON text. Pure. Strings must be UTF-8. */
#ifndef DIL_SERVE_ANSWER_H
#define DIL_SERVE_ANSWER_H

#include "serve/api.h"

typedef struct dil__answer {
    dil__api_form form;
    const char *id, *model;
    int64_t created_ms;
    bool usage;                 /* a stream ends with a usage chunk; each chunk before it has the key */
    uint32_t n_prompt, n_generated, n_guessed, n_right;
    double prefill_sec, decode_sec;
} dil__answer;

typedef struct dil__choice { /* one of the answers, or a piece of it */
    uint32_t index;
    const char *text; size_t len;
    const char *finish;         /* "stop", "length"; NULL where it has not ended */
    json_t *logprobs;           /* a list made by dil__answer_logprob; taken over; NULL: not asked for */
} dil__choice;

/* All append to out. */
void dil__answer_whole(const dil__answer *a, dil__choice *c, size_t n, dil_buf *out);
/* Of a stream: server-sent events, "data: ...\n\n", or Ollama's lines. first: a chat's opening chunk with the role. */
void dil__answer_first(const dil__answer *a, uint32_t index, dil_buf *out);
void dil__answer_chunk(const dil__answer *a, dil__choice *c, dil_buf *out);
void dil__answer_end(const dil__answer *a, dil_buf *out);
void dil__answer_error_event(dil__api_form form, int http, const char *message, dil_buf *out);
/* {"error": {"message", "type", "param", "code"}}, param and code may be NULL; Ollama's: {"error": message}. */
void dil__answer_error(dil__api_form form, int http, const char *message, const char *param, const char *code, dil_buf *out);
/* Ollama's answer to an empty request: the model is there. */
void dil__answer_loaded(const dil__answer *a, dil_buf *out);
const char *dil__answer_type(dil__api_form form, bool stream); /* Content-Type */

/* One token and its alternatives (top: a list of such without alternatives, taken over; may be NULL). offset: characters
 * before it. NULL: out of memory. */
json_t *dil__answer_logprob(const char *bytes, size_t len, double logprob, json_t *top, size_t offset);
/* The HTTP status of a failed request, and OpenAI's code word for it or NULL. */
int dil__answer_status(const dil_err *e, const char **code);

#endif
