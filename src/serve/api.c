/* Request bodies of OpenAI's /v1/completions and /v1/chat/completions and Ollama's /api/generate and /api/chat. What we cannot
 * do is refused by name rather than ignored: a client that asks for tools or pictures must not believe that it got them.
 * Unknown members are ignored, as the APIs' own servers do. */
#include "serve/api.h"

#include "base/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct reader {
    dil__api_req *req;
    const json_t *from; /* where members are looked up: the body, or Ollama's "options" */
    const char *param; /* being looked at */
    dil_err *err;
} reader;

static const json_t *member(reader *r, const char *key)
{
    const json_t *v = json_object_get(r->from, key);
    r->param = key;
    return json_is_null(v) ? NULL : v;
}

static dil_status read_number(reader *r, const char *key, double min, double max, float *out)
{
    const json_t *v = member(r, key);
    if (!v) return DIL_OK;
    double x = json_number_value(v);
    if (!json_is_number(v) || !isfinite(x)) return dil_fail(r->err, DIL_EFORMAT, "%s must be a number", key);
    if (x < min || x > max) return dil_fail(r->err, DIL_EFORMAT, "%s is %g, it must be within %g and %g", key, x, min, max);
    *out = (float)x;
    return DIL_OK;
}

static dil_status read_int(reader *r, const char *key, json_int_t min, json_int_t max, json_int_t *out)
{
    const json_t *v = member(r, key);
    if (!v) return DIL_OK;
    if (!json_is_integer(v)) return dil_fail(r->err, DIL_EFORMAT, "%s must be a whole number", key);
    json_int_t x = json_integer_value(v);
    if (x < min || x > max)
        return dil_fail(r->err, DIL_EFORMAT, "%s is %lld, it must be within %lld and %lld", key, (long long)x, (long long)min,
                        (long long)max);
    *out = x;
    return DIL_OK;
}

static dil_status read_bool(reader *r, const char *key, bool *out)
{
    const json_t *v = member(r, key);
    if (!v) return DIL_OK;
    if (!json_is_boolean(v)) return dil_fail(r->err, DIL_EFORMAT, "%s must be true or false", key);
    *out = json_is_true(v);
    return DIL_OK;
}

static dil_status out_of_memory(reader *r)
{
    return dil_fail(r->err, DIL_EMEMORY, "no memory for the request");
}

static dil_status read_stop(reader *r)
{
    dil__api_req *q = r->req;
    const json_t *v = member(r, "stop");
    if (!v) return DIL_OK;
    size_t n = json_is_string(v) ? 1 : json_array_size(v);
    if (!json_is_string(v) && !json_is_array(v)) return dil_fail(r->err, DIL_EFORMAT, "stop must be a string or a list of strings");
    if (n > DIL_API_STOPS_MAX) return dil_fail(r->err, DIL_ELIMIT, "stop has %zu strings, at most %d", n, DIL_API_STOPS_MAX);
    for (size_t i = 0; i < n; i++) {
        const json_t *s = json_is_string(v) ? v : json_array_get(v, i);
        size_t len = json_string_length(s);
        if (!json_is_string(s) || len == 0) return dil_fail(r->err, DIL_EFORMAT, "stop[%zu] must be a string that is not empty", i);
        if (len > DIL_API_STOP_BYTES_MAX)
            return dil_fail(r->err, DIL_ELIMIT, "stop[%zu] has %zu bytes, at most %d", i, len, DIL_API_STOP_BYTES_MAX);
        q->stop[q->n_stop] = json_string_value(s);
        q->stop_len[q->n_stop++] = len;
    }
    return DIL_OK;
}

static dil_status read_prompt_ids(reader *r, const json_t *list)
{
    size_t n = json_array_size(list);
    int32_t *ids = dil_arena_push(r->req->arena, n, sizeof *ids);
    if (!ids) return out_of_memory(r);
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, i);
        json_int_t id = json_integer_value(v);
        if (!json_is_integer(v) || id < 0 || id > INT32_MAX)
            return dil_fail(r->err, DIL_EFORMAT, "prompt[%zu] must be a token id, as prompt[0] is", i);
        ids[i] = (int32_t)id;
    }
    r->req->prompt_ids = ids;
    r->req->n_prompt_ids = n;
    return DIL_OK;
}

static dil_status read_prompt(reader *r)
{
    const json_t *v = member(r, "prompt");
    const json_t *one = json_is_array(v) ? json_array_get(v, 0) : v;
    if (json_is_array(v) && json_is_integer(one)) return read_prompt_ids(r, v);
    if (json_is_array(v) && json_array_size(v) > 1)
        return dil_fail(r->err, DIL_EUNSUPPORTED, "prompt has %zu texts; send one request each", json_array_size(v));
    if (json_is_array(one) && json_is_integer(json_array_get(one, 0))) return read_prompt_ids(r, one);
    if (!json_is_string(one)) return dil_fail(r->err, DIL_EFORMAT, "prompt must be a text or a list of token ids");
    r->req->prompt = json_string_value(one);
    r->req->prompt_len = json_string_length(one);
    return DIL_OK;
}

/* Content as a list of parts: the texts, joined. */
static dil_status join_parts(reader *r, size_t at, const json_t *parts, dil_chat_msg *m)
{
    size_t total = 0, i;
    const json_t *p;
    json_array_foreach(parts, i, p) {
        const char *type = json_string_value(json_object_get(p, "type"));
        const json_t *text = json_object_get(p, "text");
        if (!type) return dil_fail(r->err, DIL_EFORMAT, "messages[%zu].content[%zu] has no type", at, i);
        if (strcmp(type, "text") != 0)
            return dil_fail(r->err, DIL_EUNSUPPORTED, "messages[%zu].content[%zu]: type '%.32s' is not supported, only text", at, i, type);
        if (!json_is_string(text)) return dil_fail(r->err, DIL_EFORMAT, "messages[%zu].content[%zu] has no text", at, i);
        total += json_string_length(text);
    }
    char *s = dil_arena_push(r->req->arena, total + 1, 1);
    if (!s) return out_of_memory(r);
    m->content = s;
    m->content_len = total;
    json_array_foreach(parts, i, p) {
        const json_t *text = json_object_get(p, "text");
        memcpy(s, json_string_value(text), json_string_length(text));
        s += json_string_length(text);
    }
    return DIL_OK;
}

static dil_status read_message(reader *r, size_t at, const json_t *o, dil_chat_msg *m)
{
    const char *role = json_string_value(json_object_get(o, "role"));
    const json_t *content = json_object_get(o, "content");
    if (!role) return dil_fail(r->err, DIL_EFORMAT, "messages[%zu] has no role", at);
    if (strcmp(role, "developer") == 0) role = "system";
    if (strcmp(role, "system") != 0 && strcmp(role, "user") != 0 && strcmp(role, "assistant") != 0)
        return dil_fail(r->err, DIL_EUNSUPPORTED, "messages[%zu]: role '%.32s' is not one of system, user, assistant", at, role);
    m->role = role;
    if (json_is_array(content)) return join_parts(r, at, content, m);
    if (!json_is_string(content)) return dil_fail(r->err, DIL_EFORMAT, "messages[%zu].content must be a text", at);
    m->content = json_string_value(content);
    m->content_len = json_string_length(content);
    return DIL_OK;
}

static dil_status read_messages(reader *r)
{
    const json_t *v = member(r, "messages");
    size_t n = json_array_size(v);
    if (n == 0) return dil_fail(r->err, DIL_EFORMAT, "messages must be a list of at least one message");
    if (n > DIL_API_MESSAGES_MAX) return dil_fail(r->err, DIL_ELIMIT, "messages has %zu entries, at most %d", n, DIL_API_MESSAGES_MAX);
    r->req->msgs = dil_arena_push(r->req->arena, n, sizeof *r->req->msgs);
    if (!r->req->msgs) return out_of_memory(r);
    r->req->n_msgs = n;
    dil_status s = DIL_OK;
    for (size_t i = 0; s == DIL_OK && i < n; i++) s = read_message(r, i, json_array_get(v, i), &r->req->msgs[i]);
    return s;
}

static dil_status read_sampler(reader *r)
{
    dil_sampler_opts *o = &r->req->sampler;
    json_int_t top_k = 0, seed = 0;
    dil_status s = read_number(r, "temperature", 0, 2, &o->temperature);
    if (s == DIL_OK) s = read_number(r, "top_p", 0, 1, &o->top_p);
    if (s == DIL_OK) s = read_number(r, "min_p", 0, 1, &o->min_p);
    if (s == DIL_OK) s = read_number(r, "presence_penalty", -2, 2, &o->presence_penalty);
    if (s == DIL_OK) s = read_number(r, "frequency_penalty", -2, 2, &o->frequency_penalty);
    if (s == DIL_OK) s = read_number(r, "repeat_penalty", 0.01, 100, &o->repeat_penalty);
    if (s == DIL_OK) s = read_int(r, "top_k", 0, INT32_MAX, &top_k);
    if (s == DIL_OK) s = read_int(r, "seed", INT64_MIN, INT64_MAX, &seed);
    if (s != DIL_OK) return s;
    o->top_k = (uint32_t)top_k;
    r->req->seeded = member(r, "seed") != NULL;
    o->seed = (uint64_t)seed;
    return DIL_OK;
}

/* "logprobs" is a flag with "top_logprobs" beside it in a chat, and the number of alternatives in a completion. */
static dil_status read_logprobs(reader *r)
{
    dil__api_req *q = r->req;
    json_int_t n = -1;
    if (q->form == DIL_API_OPENAI_COMPLETION) {
        if (json_is_false(member(r, "logprobs"))) return DIL_OK;
        dil_status s = read_int(r, "logprobs", 0, DIL_GEN_TOP_MAX, &n);
        q->logprobs = n >= 0;
        q->n_top = n > 0 ? (uint32_t)n : 0;
        return s;
    }
    dil_status s = read_bool(r, "logprobs", &q->logprobs);
    if (s == DIL_OK) s = read_int(r, "top_logprobs", 0, DIL_GEN_TOP_MAX, &n);
    if (s == DIL_OK && n > 0 && !q->logprobs) return dil_fail(r->err, DIL_EFORMAT, "top_logprobs wants \"logprobs\": true");
    if (s == DIL_OK && n > 0) q->n_top = (uint32_t)n;
    return s;
}

/* {"TOKEN": BIAS, ...} */
static dil_status read_logit_bias(reader *r)
{
    const json_t *v = member(r, "logit_bias");
    size_t n = json_object_size(v);
    if (!v || (json_is_array(v) && json_array_size(v) == 0)) return DIL_OK;
    if (!json_is_object(v)) return dil_fail(r->err, DIL_EFORMAT, "logit_bias must be an object of token ids and numbers");
    if (n > DIL_LOGIT_BIAS_MAX) return dil_fail(r->err, DIL_ELIMIT, "logit_bias has %zu tokens, at most %d", n, DIL_LOGIT_BIAS_MAX);
    dil_logit_bias *list = dil_arena_push(r->req->arena, n ? n : 1, sizeof *list);
    if (!list) return out_of_memory(r);
    const char *key;
    json_t *bias;
    uint32_t k = 0;
    json_object_foreach((json_t *)(uintptr_t)v, key, bias) {
        char *end;
        long id = strtol(key, &end, 10);
        double b = json_number_value(bias);
        if (end == key || *end || id < 0 || id > INT32_MAX) return dil_fail(r->err, DIL_EFORMAT, "logit_bias: '%.32s' is no token id", key);
        if (!json_is_number(bias) || !(b >= -100 && b <= 100)) return dil_fail(r->err, DIL_EFORMAT, "logit_bias[%ld] must be a number within -100 and 100", id);
        list[k++] = (dil_logit_bias){(int32_t)id, (float)b};
    }
    r->req->sampler.bias = list;
    r->req->sampler.n_bias = k;
    return DIL_OK;
}

/* The schema as text of our own: the grammar reads text. */
static dil_status take_schema(reader *r, const json_t *schema)
{
    dil__api_req *q = r->req;
    char *text = json_dumps(schema, JSON_COMPACT | JSON_PRESERVE_ORDER);
    char *copy = text ? dil_arena_strdup(q->arena, text, strlen(text)) : NULL;
    free(text);
    if (!copy) return out_of_memory(r);
    q->schema = copy;
    q->schema_len = strlen(copy);
    q->json = true;
    return DIL_OK;
}

static dil_status read_response_format(reader *r)
{
    const json_t *format = member(r, "response_format");
    const char *type = json_string_value(json_object_get(format, "type"));
    if (!format) return DIL_OK;
    if (!type) return dil_fail(r->err, DIL_EFORMAT, "response_format must be an object with a type");
    if (strcmp(type, "text") == 0) return DIL_OK;
    if (strcmp(type, "json_object") == 0) {
        r->req->json = true;
        return DIL_OK;
    }
    if (strcmp(type, "json_schema") != 0) return dil_fail(r->err, DIL_EUNSUPPORTED, "response_format: type '%.32s' is not text, json_object or json_schema", type);
    const json_t *schema = json_object_get(json_object_get(format, "json_schema"), "schema");
    if (!json_is_object(schema)) return dil_fail(r->err, DIL_EFORMAT, "response_format: json_schema must hold a schema");
    return take_schema(r, schema);
}

/* Members whose ordinary value we accept and whose other values would change the answer's shape or meaning. */
static dil_status refuse_unsupported(reader *r)
{
    static const char *const absent[] = {"tools", "tool_choice", "functions", "function_call", "suffix", "audio", "modalities"};
    const json_t *best_of = member(r, "best_of");
    if (best_of && json_integer_value(best_of) != 1) return dil_fail(r->err, DIL_EUNSUPPORTED, "best_of other than 1 is not supported");
    for (size_t i = 0; i < sizeof absent / sizeof absent[0]; i++) {
        const json_t *v = member(r, absent[i]);
        bool empty = (json_is_array(v) && json_array_size(v) == 0) || (json_is_object(v) && json_object_size(v) == 0) ||
                     (json_is_string(v) && (json_string_length(v) == 0 || strcmp(json_string_value(v), "none") == 0));
        if (v && !empty) return dil_fail(r->err, DIL_EUNSUPPORTED, "%s is not supported", absent[i]);
    }
    const json_t *echo = member(r, "echo");
    if (echo && !json_is_false(echo)) return dil_fail(r->err, DIL_EUNSUPPORTED, "echo is not supported");
    return DIL_OK;
}

static dil_status read_openai(reader *r)
{
    dil__api_req *q = r->req;
    dil_status s = q->kind == DIL_API_CHAT ? read_messages(r) : read_prompt(r);
    json_int_t max_tokens = 0;
    if (s == DIL_OK) s = read_int(r, "max_tokens", 1, DIL_API_TOKENS_MAX, &max_tokens);
    if (s == DIL_OK) s = read_int(r, "max_completion_tokens", 1, DIL_API_TOKENS_MAX, &max_tokens);
    q->max_tokens = (uint32_t)max_tokens;
    if (s == DIL_OK) s = read_bool(r, "ignore_eos", &q->ignore_eos);
    json_int_t n = 1;
    if (s == DIL_OK) s = read_int(r, "n", 1, DIL_API_CHOICES_MAX, &n);
    q->n = (uint32_t)n;
    if (s == DIL_OK) s = read_logprobs(r);
    if (s == DIL_OK) s = read_sampler(r);
    if (s == DIL_OK) s = read_stop(r);
    if (s == DIL_OK) s = read_bool(r, "stream", &q->stream);
    const json_t *so = s == DIL_OK ? member(r, "stream_options") : NULL;
    if (so && !json_is_object(so)) return dil_fail(r->err, DIL_EFORMAT, "stream_options must be an object");
    q->stream_usage = json_is_true(json_object_get(so, "include_usage"));
    if (s == DIL_OK) s = read_logit_bias(r);
    if (s == DIL_OK) s = read_response_format(r);
    if (s == DIL_OK) s = refuse_unsupported(r);
    return s;
}

/* --- Ollama ------------------------------------------------------------------------------------------------------------- */

/* "prompt" and "system" as the conversation that they stand for; with "raw" the prompt alone, as it is. */
static dil_status read_generate(reader *r)
{
    dil__api_req *q = r->req;
    bool raw = false;
    dil_status s = read_bool(r, "raw", &raw);
    const json_t *system = member(r, "system"), *prompt = member(r, "prompt");
    if (s != DIL_OK) return s;
    if (prompt && !json_is_string(prompt)) return dil_fail(r->err, DIL_EFORMAT, "prompt must be a text");
    if (!json_string_length(prompt)) {
        q->only_loads = true;
        return DIL_OK;
    }
    if (raw) {
        q->kind = DIL_API_COMPLETION;
        q->prompt = json_string_value(prompt);
        q->prompt_len = json_string_length(prompt);
        return DIL_OK;
    }
    r->param = "system";
    if (system && !json_is_string(system)) return dil_fail(r->err, DIL_EFORMAT, "system must be a text");
    q->msgs = dil_arena_push(q->arena, 2, sizeof *q->msgs);
    if (!q->msgs) return out_of_memory(r);
    if (json_string_length(system))
        q->msgs[q->n_msgs++] = (dil_chat_msg){"system", json_string_value(system), json_string_length(system)};
    q->msgs[q->n_msgs++] = (dil_chat_msg){"user", json_string_value(prompt), json_string_length(prompt)};
    return DIL_OK;
}

static dil_status refuse_unsupported_ollama(reader *r)
{
    static const char *const absent[] = {"tools", "images", "suffix", "template", "context"};
    for (size_t i = 0; i < sizeof absent / sizeof absent[0]; i++) {
        const json_t *v = member(r, absent[i]);
        bool empty = (json_is_array(v) && json_array_size(v) == 0) || (json_is_string(v) && json_string_length(v) == 0);
        if (v && !empty) return dil_fail(r->err, DIL_EUNSUPPORTED, "%s is not supported", absent[i]);
    }
    const json_t *format = member(r, "format");
    if (json_is_object(format)) {
        dil_status s = take_schema(r, format);
        if (s != DIL_OK) return s;
    } else if (json_is_string(format) && strcmp(json_string_value(format), "json") == 0) r->req->json = true;
    else if (format && !(json_is_string(format) && json_string_length(format) == 0)) return dil_fail(r->err, DIL_EUNSUPPORTED, "format must be \"json\" or a schema");
    if (json_is_true(member(r, "think"))) return dil_fail(r->err, DIL_EUNSUPPORTED, "think is not supported");
    size_t i;
    const json_t *m;
    json_array_foreach(member(r, "messages"), i, m) {
        if (json_array_size(json_object_get(m, "images")) > 0) return dil_fail(r->err, DIL_EUNSUPPORTED, "messages[%zu]: images are not supported", i);
    }
    return DIL_OK;
}

static dil_status read_ollama_options(reader *r)
{
    dil__api_req *q = r->req;
    const json_t *options = member(r, "options");
    if (!options) return DIL_OK;
    if (!json_is_object(options)) return dil_fail(r->err, DIL_EFORMAT, "options must be an object");
    r->from = options;
    json_int_t n = 0;
    dil_status s = read_int(r, "num_predict", -2, DIL_API_TOKENS_MAX, &n); /* -1, -2: to the end of the context */
    if (s == DIL_OK && n > 0) q->max_tokens = (uint32_t)n;
    if (s == DIL_OK) s = read_sampler(r);
    if (s == DIL_OK) s = read_stop(r);
    r->from = q->doc;
    return s;
}

static dil_status read_ollama(reader *r)
{
    dil__api_req *q = r->req;
    q->stream = true;
    q->sampler = (dil_sampler_opts){.temperature = 0.8f, .top_k = 40, .top_p = 0.9f, .repeat_penalty = 1};
    dil_status s = read_bool(r, "stream", &q->stream);
    if (s == DIL_OK && q->form == DIL_API_OLLAMA_GENERATE) s = read_generate(r);
    else if (s == DIL_OK) {
        const json_t *m = member(r, "messages");
        q->only_loads = !m || (json_is_array(m) && json_array_size(m) == 0);
        if (!q->only_loads) s = read_messages(r);
    }
    if (s == DIL_OK) s = read_ollama_options(r);
    if (s == DIL_OK) s = refuse_unsupported_ollama(r);
    return s;
}

static dil_status read_all(reader *r)
{
    dil__api_req *q = r->req;
    const json_t *model = member(r, "model");
    if (model && !json_is_string(model)) return dil_fail(r->err, DIL_EFORMAT, "model must be a text");
    q->model = json_string_value(model);
    return q->form < DIL_API_OLLAMA_GENERATE ? read_openai(r) : read_ollama(r);
}

dil_status dil__api_parse(dil__api_form form, const char *body, size_t len, dil__api_req *out, const char **param, dil_err *err)
{
    if (param) *param = NULL;
    if (len > DIL_API_BODY_MAX) return dil_fail(err, DIL_ELIMIT, "the body has %zu bytes, at most %u", len, DIL_API_BODY_MAX);
    /* The API's defaults, not ours. */
    dil__api_req q = {.form = form, .kind = form == DIL_API_OPENAI_COMPLETION ? DIL_API_COMPLETION : DIL_API_CHAT, .n = 1, .sampler = {.temperature = 1, .top_p = 1, .repeat_penalty = 1}};
    reader r = {.req = &q, .err = err};
    dil_status s = dil__json_parse("request body", body, len, &q.doc, err);
    if (s == DIL_OK && !json_is_object(q.doc)) s = dil_fail(err, DIL_EFORMAT, "the body must be a JSON object");
    r.from = q.doc;
    if (s == DIL_OK && !(q.arena = dil_arena_new(4 * (size_t)DIL_API_BODY_MAX))) s = out_of_memory(&r);
    if (s == DIL_OK) s = read_all(&r);
    if (s == DIL_OK) {
        *out = q;
        return s;
    }
    if (param && q.doc) *param = json_is_object(q.doc) ? r.param : NULL;
    dil__api_req_fini(&q);
    return s;
}

void dil__api_req_fini(dil__api_req *r)
{
    json_decref(r->doc);
    dil_arena_free(r->arena);
    dil__retry_leave(r->retry);
    *r = (dil__api_req){0};
}
