/* Response bodies. Built as jansson documents, so that whatever the model writes is escaped in one place. */
#include "serve/answer.h"

#include <stdlib.h>
#include <string.h>

static void dump(json_t *doc, dil_buf *out)
{
    char *text = doc ? json_dumps(doc, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    if (text) dil_buf_append(out, text, strlen(text));
    else out->failed = true;
    free(text);
    json_decref(doc);
}

static void dump_event(json_t *doc, dil_buf *out)
{
    dil_buf_append(out, "data: ", 6);
    dump(doc, out);
    dil_buf_append(out, "\n\n", 2);
}

static json_t *usage_of(const dil__answer *a)
{
    return json_pack("{s:I, s:I, s:I}", "prompt_tokens", (json_int_t)a->n_prompt, "completion_tokens", (json_int_t)a->n_generated,
                     "total_tokens", (json_int_t)a->n_prompt + a->n_generated);
}

static json_t *head_of(const dil__answer *a, const char *object)
{
    return json_pack("{s:s, s:s, s:I, s:s}", "id", a->id, "object", object, "created", (json_int_t)a->created_sec, "model", a->model);
}

static json_t *finish_of(const char *finish)
{
    return finish ? json_string(finish) : json_null();
}

void dil__answer_whole(const dil__answer *a, const char *text, size_t len, const char *finish, dil_buf *out)
{
    bool chat = a->kind == DIL_API_CHAT;
    json_t *doc = head_of(a, chat ? "chat.completion" : "text_completion");
    json_t *content = json_stringn(text, len);
    json_t *choice = chat ? json_pack("{s:i, s:{s:s, s:o}, s:n, s:o}", "index", 0, "message", "role", "assistant", "content", content,
                                      "logprobs", "finish_reason", finish_of(finish))
                          : json_pack("{s:i, s:o, s:n, s:o}", "index", 0, "text", content, "logprobs", "finish_reason", finish_of(finish));
    json_object_set_new(doc, "choices", json_pack("[o]", choice));
    json_object_set_new(doc, "usage", usage_of(a));
    json_object_set_new(doc, "timings", json_pack("{s:f, s:f, s:I, s:I}", "prefill_sec", a->prefill_sec, "decode_sec", a->decode_sec, "guessed_tokens",
                                                        (json_int_t)a->n_guessed, "accepted_tokens", (json_int_t)a->n_right));
    dump(doc, out);
}

static void chunk(const dil__answer *a, json_t *choices, json_t *usage, dil_buf *out)
{
    json_t *doc = head_of(a, a->kind == DIL_API_CHAT ? "chat.completion.chunk" : "text_completion");
    json_object_set_new(doc, "choices", choices);
    if (usage) json_object_set_new(doc, "usage", usage);
    dump_event(doc, out);
}

void dil__answer_first(const dil__answer *a, bool usage, dil_buf *out)
{
    if (a->kind != DIL_API_CHAT) return;
    chunk(a, json_pack("[{s:i, s:{s:s, s:s}, s:n, s:n}]", "index", 0, "delta", "role", "assistant", "content", "", "logprobs",
                       "finish_reason"), usage ? json_null() : NULL, out);
}

void dil__answer_chunk(const dil__answer *a, const char *text, size_t len, const char *finish, bool usage, dil_buf *out)
{
    json_t *choice;
    if (a->kind == DIL_API_CHAT) {
        json_t *delta = json_object();
        if (len > 0) json_object_set_new(delta, "content", json_stringn(text, len));
        choice = json_pack("{s:i, s:o, s:n, s:o}", "index", 0, "delta", delta, "logprobs", "finish_reason", finish_of(finish));
    } else {
        choice = json_pack("{s:i, s:o, s:n, s:o}", "index", 0, "text", json_stringn(text, len), "logprobs", "finish_reason", finish_of(finish));
    }
    chunk(a, json_pack("[o]", choice), usage ? json_null() : NULL, out);
}

void dil__answer_usage(const dil__answer *a, dil_buf *out)
{
    chunk(a, json_array(), usage_of(a), out);
}

static const char *error_type(int http)
{
    switch (http) {
    case 401: return "authentication_error";
    case 403: return "permission_error";
    case 429: return "rate_limit_error";
    default: return http >= 500 ? "server_error" : "invalid_request_error";
    }
}

static json_t *error_doc(int http, const char *message, const char *param, const char *code)
{
    json_t *text = json_string(message);
    if (!text) text = json_string("the error text is no UTF-8"); /* it quoted a file or a peer */
    return json_pack("{s:{s:o, s:s, s:s?, s:s?}}", "error", "message", text, "type", error_type(http), "param", param, "code", code);
}

void dil__answer_error(int http, const char *message, const char *param, const char *code, dil_buf *out)
{
    dump(error_doc(http, message, param, code), out);
}

void dil__answer_error_event(int http, const char *message, dil_buf *out)
{
    dump_event(error_doc(http, message, NULL, NULL), out);
}

int dil__answer_status(const dil_err *e, const char **code)
{
    *code = NULL;
    switch (e->code) {
    case DIL_EBUSY: *code = "queue_full"; return 429;
    case DIL_ENET: *code = "not_ready"; return 503;
    case DIL_ELIMIT: *code = "context_length_exceeded"; return 400; /* the API's own choice for a prompt that is too long */
    default: return dil_status_http(e->code);
    }
}
