/* Response bodies. Built as jansson documents, so that whatever the model writes is escaped in one place. */
#include "serve/answer.h"

#include "serve/textout.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static bool is_ollama(dil__api_form form)
{
    return form >= DIL_API_OLLAMA_GENERATE;
}

static void dump(json_t *doc, dil_buf *out)
{
    char *text = doc ? json_dumps(doc, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    if (text) dil_buf_append(out, text, strlen(text));
    else out->failed = true;
    free(text);
    json_decref(doc);
}

static void dump_event(json_t *doc, dil__api_form form, dil_buf *out)
{
    if (is_ollama(form)) {
        dump(doc, out);
        dil_buf_append(out, "\n", 1);
        return;
    }
    dil_buf_append(out, "data: ", 6);
    dump(doc, out);
    dil_buf_append(out, "\n\n", 2);
}

static json_t *finish_of(const char *finish)
{
    return finish ? json_string(finish) : json_null();
}

/* --- probabilities ------------------------------------------------------------------------------------------------------ */

/* A token need not be UTF-8 by itself; "bytes" has it exactly. */
static json_t *readable(const char *bytes, size_t len)
{
    dil_buf b;
    dil_buf_init(&b, 4 * len + 4);
    dil__textout t;
    dil__textout_init(&t, NULL, NULL, 0);
    dil__textout_push(&t, bytes, len, &b);
    dil__textout_flush(&t, &b);
    dil__textout_fini(&t);
    json_t *s = json_stringn(dil_buf_str(&b), b.len);
    dil_buf_fini(&b);
    return s;
}

json_t *dil__answer_logprob(const char *bytes, size_t len, double logprob, json_t *top, size_t offset)
{
    json_t *list = json_array();
    for (size_t i = 0; i < len; i++) json_array_append_new(list, json_integer((unsigned char)bytes[i]));
    json_t *doc = json_pack("{s:o, s:f, s:o, s:I}", "token", readable(bytes, len), "logprob", logprob, "bytes", list, "offset", (json_int_t)offset);
    json_object_set_new(doc, "top_logprobs", top ? top : json_array());
    return doc;
}

/* A chat's form: the list as it is, without what is only for completions. */
static json_t *chat_logprobs(json_t *list)
{
    size_t i, k;
    json_t *v, *alt;
    json_array_foreach(list, i, v) {
        json_object_del(v, "offset");
        json_array_foreach(json_object_get(v, "top_logprobs"), k, alt) {
            json_object_del(alt, "offset");
            json_object_del(alt, "top_logprobs");
        }
    }
    return json_pack("{s:o, s:n}", "content", list, "refusal");
}

/* A completion's form: four lists side by side. */
static json_t *text_logprobs(json_t *list)
{
    json_t *tokens = json_array(), *probs = json_array(), *tops = json_array(), *offsets = json_array();
    size_t i, k;
    json_t *v, *alt;
    json_array_foreach(list, i, v) {
        json_t *top = json_object();
        json_array_foreach(json_object_get(v, "top_logprobs"), k, alt)
            json_object_set(top, json_string_value(json_object_get(alt, "token")), json_object_get(alt, "logprob"));
        json_array_append(tokens, json_object_get(v, "token"));
        json_array_append(probs, json_object_get(v, "logprob"));
        json_array_append(offsets, json_object_get(v, "offset"));
        json_array_append_new(tops, top);
    }
    json_decref(list);
    return json_pack("{s:o, s:o, s:o, s:o}", "tokens", tokens, "token_logprobs", probs, "top_logprobs", tops, "text_offset", offsets);
}

static json_t *logprobs_of(const dil__answer *a, dil__choice *c)
{
    json_t *list = c->logprobs;
    c->logprobs = NULL;
    if (!list) return json_null();
    return a->form == DIL_API_OPENAI_CHAT ? chat_logprobs(list) : text_logprobs(list);
}

/* --- OpenAI --------------------------------------------------------------------------------------------------------------- */

static json_t *usage_of(const dil__answer *a)
{
    return json_pack("{s:I, s:I, s:I}", "prompt_tokens", (json_int_t)a->n_prompt, "completion_tokens", (json_int_t)a->n_generated,
                     "total_tokens", (json_int_t)a->n_prompt + a->n_generated);
}

static json_t *head_of(const dil__answer *a, const char *object)
{
    return json_pack("{s:s, s:s, s:I, s:s}", "id", a->id, "object", object, "created", (json_int_t)(a->created_ms / 1000), "model", a->model);
}

static json_t *whole_choice(const dil__answer *a, dil__choice *c)
{
    json_t *content = json_stringn(c->text, c->len), *logprobs = logprobs_of(a, c);
    if (a->form == DIL_API_OPENAI_CHAT)
        return json_pack("{s:I, s:{s:s, s:o, s:n}, s:o, s:o}", "index", (json_int_t)c->index, "message", "role", "assistant", "content", content,
                         "refusal", "logprobs", logprobs, "finish_reason", finish_of(c->finish));
    return json_pack("{s:I, s:o, s:o, s:o}", "index", (json_int_t)c->index, "text", content, "logprobs", logprobs, "finish_reason", finish_of(c->finish));
}

static void chunk(const dil__answer *a, json_t *choices, json_t *usage, dil_buf *out)
{
    json_t *doc = head_of(a, a->form == DIL_API_OPENAI_CHAT ? "chat.completion.chunk" : "text_completion");
    json_object_set_new(doc, "choices", choices);
    if (usage) json_object_set_new(doc, "usage", usage);
    dump_event(doc, a->form, out);
}

/* --- Ollama --------------------------------------------------------------------------------------------------------------- */

static json_t *ollama_head(const dil__answer *a, const char *text, size_t len)
{
    char when[64];
    time_t sec = a->created_ms / 1000;
    struct tm tm;
    gmtime_r(&sec, &tm);
    size_t n = strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(when + n, sizeof when - n, ".%03dZ", (int)(a->created_ms % 1000));
    json_t *doc = json_pack("{s:s, s:s}", "model", a->model, "created_at", when), *s = json_stringn(text, len);
    if (a->form == DIL_API_OLLAMA_CHAT) json_object_set_new(doc, "message", json_pack("{s:s, s:o}", "role", "assistant", "content", s));
    else json_object_set_new(doc, "response", s);
    return doc;
}

static json_t *ollama_piece(const dil__answer *a, const dil__choice *c)
{
    json_t *doc = ollama_head(a, c->text, c->len);
    json_object_set_new(doc, "done", json_boolean(c->finish != NULL));
    if (!c->finish) return doc;
    double ns = 1e9;
    json_t *more = json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "done_reason", c->finish, "total_duration", (json_int_t)((a->prefill_sec + a->decode_sec) * ns),
                             "load_duration", (json_int_t)0, "prompt_eval_count", (json_int_t)a->n_prompt, "prompt_eval_duration",
                             (json_int_t)(a->prefill_sec * ns), "eval_count", (json_int_t)a->n_generated, "eval_duration", (json_int_t)(a->decode_sec * ns));
    json_object_update(doc, more);
    json_decref(more);
    return doc;
}

void dil__answer_loaded(const dil__answer *a, dil_buf *out)
{
    json_t *doc = ollama_head(a, "", 0);
    json_object_set_new(doc, "done", json_true());
    json_object_set_new(doc, "done_reason", json_string("load"));
    dump(doc, out);
    dil_buf_append(out, "\n", 1);
}

/* --- both ------------------------------------------------------------------------------------------------------------------ */

void dil__answer_whole(const dil__answer *a, dil__choice *c, size_t n, dil_buf *out)
{
    if (is_ollama(a->form)) {
        dump(ollama_piece(a, c), out);
        return;
    }
    json_t *doc = head_of(a, a->form == DIL_API_OPENAI_CHAT ? "chat.completion" : "text_completion"), *choices = json_array();
    for (size_t i = 0; i < n; i++) json_array_append_new(choices, whole_choice(a, &c[i]));
    json_object_set_new(doc, "choices", choices);
    json_object_set_new(doc, "usage", usage_of(a));
    json_object_set_new(doc, "timings", json_pack("{s:f, s:f, s:I, s:I}", "prefill_sec", a->prefill_sec, "decode_sec", a->decode_sec, "guessed_tokens",
                                                        (json_int_t)a->n_guessed, "accepted_tokens", (json_int_t)a->n_right));
    dump(doc, out);
}

void dil__answer_first(const dil__answer *a, uint32_t index, dil_buf *out)
{
    if (a->form != DIL_API_OPENAI_CHAT) return;
    chunk(a, json_pack("[{s:I, s:{s:s, s:s}, s:n, s:n}]", "index", (json_int_t)index, "delta", "role", "assistant", "content", "", "logprobs",
                       "finish_reason"), a->usage ? json_null() : NULL, out);
}

void dil__answer_chunk(const dil__answer *a, dil__choice *c, dil_buf *out)
{
    if (is_ollama(a->form)) {
        dump_event(ollama_piece(a, c), a->form, out);
        return;
    }
    json_t *choice, *logprobs = logprobs_of(a, c);
    if (a->form == DIL_API_OPENAI_CHAT) {
        json_t *delta = json_object();
        if (c->len > 0) json_object_set_new(delta, "content", json_stringn(c->text, c->len));
        choice = json_pack("{s:I, s:o, s:o, s:o}", "index", (json_int_t)c->index, "delta", delta, "logprobs", logprobs, "finish_reason", finish_of(c->finish));
    } else {
        choice = json_pack("{s:I, s:o, s:o, s:o}", "index", (json_int_t)c->index, "text", json_stringn(c->text, c->len), "logprobs", logprobs,
                           "finish_reason", finish_of(c->finish));
    }
    chunk(a, json_pack("[o]", choice), a->usage ? json_null() : NULL, out);
}

void dil__answer_end(const dil__answer *a, dil_buf *out)
{
    if (is_ollama(a->form)) return;
    if (a->usage) chunk(a, json_array(), usage_of(a), out);
    dil_buf_append(out, "data: [DONE]\n\n", 14);
}

const char *dil__answer_type(dil__api_form form, bool stream)
{
    if (!stream) return "application/json";
    return is_ollama(form) ? "application/x-ndjson" : "text/event-stream; charset=utf-8";
}

/* --- errors ---------------------------------------------------------------------------------------------------------------- */

static const char *error_type(int http)
{
    switch (http) {
    case 401: return "authentication_error";
    case 403: return "permission_error";
    case 429: return "rate_limit_error";
    default: return http >= 500 ? "server_error" : "invalid_request_error";
    }
}

static json_t *error_doc(dil__api_form form, int http, const char *message, const char *param, const char *code)
{
    json_t *text = json_string(message);
    if (!text) text = json_string("the error text is no UTF-8"); /* it quoted a file or a peer */
    if (is_ollama(form)) return json_pack("{s:o}", "error", text);
    return json_pack("{s:{s:o, s:s, s:s?, s:s?}}", "error", "message", text, "type", error_type(http), "param", param, "code", code);
}

void dil__answer_error(dil__api_form form, int http, const char *message, const char *param, const char *code, dil_buf *out)
{
    dump(error_doc(form, http, message, param, code), out);
}

void dil__answer_error_event(dil__api_form form, int http, const char *message, dil_buf *out)
{
    dump_event(error_doc(form, http, message, NULL, NULL), form, out);
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
