/* What is answered at once: state, metrics, and what the two protocols tell about the model. */
#include "serve/server.h"

#include "base/json.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* --- sending ------------------------------------------------------------------------------------------------------------ */

void dil__send_headers(dil__request *q, struct MHD_Response *r, int http, const char *type)
{
    MHD_add_response_header(r, "Content-Type", type);
    MHD_add_response_header(r, "X-Content-Type-Options", "nosniff");
    MHD_add_response_header(r, "X-Request-Id", q->id);
    if (http == 409 || http == 429 || http == 503) MHD_add_response_header(r, "Retry-After", "1");
    if (http == 401) MHD_add_response_header(r, "WWW-Authenticate", "Bearer");
    if (http == 405) MHD_add_response_header(r, "Allow", strcmp(q->to->method, "GET") == 0 ? "GET, HEAD" : q->to->method);
    q->status = http;
    pthread_mutex_lock(&q->s->lock);
    q->s->n_responses[http / 100]++;
    pthread_mutex_unlock(&q->s->lock);
}

enum MHD_Result dil__send(dil__request *q, int http, const char *type, dil_buf *b)
{
    if (b->failed) {
        dil_buf_fini(b);
        return MHD_NO;
    }
    struct MHD_Response *r = MHD_create_response_from_buffer(b->len, (void *)(uintptr_t)dil_buf_str(b), MHD_RESPMEM_MUST_COPY);
    dil_buf_fini(b);
    if (!r) return MHD_NO;
    dil__send_headers(q, r, http, type);
    enum MHD_Result res = MHD_queue_response(q->conn, (unsigned)http, r);
    MHD_destroy_response(r);
    return res;
}

enum MHD_Result dil__send_error(dil__request *q, int http, const char *param, const char *code, const char *message)
{
    dil_buf b;
    dil_buf_init(&b, 1u << 16);
    dil__answer_error(q->to ? q->to->form : DIL_API_OPENAI_CHAT, http, message, param, code, &b);
    return dil__send(q, http, "application/json", &b);
}

enum MHD_Result dil__send_json(dil__request *q, int http, json_t *doc)
{
    dil_buf b;
    dil_buf_init(&b, 16u << 20);
    char *text = doc ? json_dumps(doc, JSON_COMPACT) : NULL;
    if (text) dil_buf_printf(&b, "%s\n", text);
    else b.failed = true;
    free(text);
    json_decref(doc);
    return dil__send(q, http, "application/json", &b);
}

/* --- state ---------------------------------------------------------------------------------------------------------------- */

/* The truth for whoever balances load: every model that was ready is, and one is. The first that is not speaks for the others. */
static enum MHD_Result page_health(dil__request *q)
{
    dil_served *m[DIL_SERVE_MODELS_MAX];
    uint32_t n = dil__served_all(q->s, m), n_ready = 0;
    const dil_served *bad = NULL;
    dil_runner_state wrong = {0}, sum = {0};
    json_t *list = json_object();
    for (uint32_t i = 0; i < n; i++) {
        dil_runner_state st;
        dil__served_state(m[i], &st);
        n_ready += st.ready;
        sum.n_active += st.n_active;
        sum.n_queued += st.n_queued;
        json_object_set_new(list, m[i]->name, json_string(st.ready ? "ready" : st.recovering ? "recovering" : "not ready"));
        if (st.ready || bad) continue;
        bad = m[i];
        wrong = st;
    }
    bool loads = bad && !bad->attached && n_ready > 0; /* one more, beside others that answer */
    const char *name = bad && !loads ? bad->name : n ? m[0]->name : "";
    json_t *doc;
    int http = 503;
    if (n_ready && (!bad || loads)) {
        http = 200;
        doc = json_pack("{s:s, s:s, s:I, s:I, s:o}", "status", "ok", "model", name, "active", (json_int_t)sum.n_active, "queued", (json_int_t)sum.n_queued, "models", list);
    } else if (bad && wrong.recovering)
        doc = json_pack("{s:s, s:s, s:s, s:f, s:I, s:I, s:s, s:o}", "status", "recovering", "model", name, "node", wrong.node, "since_sec", wrong.recovering_sec,
                        "active", (json_int_t)sum.n_active, "queued", (json_int_t)sum.n_queued, "reason", wrong.why, "models", list);
    else
        doc = json_pack("{s:s, s:s, s:s, s:o}", "status", "not ready", "model", name, "reason", !bad ? "no model is loaded" : wrong.why[0] ? wrong.why : "starting",
                        "models", list);
    for (uint32_t i = 0; i < n; i++) dil__served_release(m[i]);
    return dil__send_json(q, http, doc);
}

static void add_state(dil_runner_state *sum, const dil_runner_state *st)
{
    sum->requests += st->requests;
    sum->failures += st->failures;
    sum->tokens_in += st->tokens_in;
    sum->tokens_out += st->tokens_out;
    sum->n_guessed += st->n_guessed;
    sum->n_right += st->n_right;
    sum->n_recoveries += st->n_recoveries;
    sum->n_active += st->n_active;
    sum->n_queued += st->n_queued;
    sum->queue_max += st->queue_max;
    if (st->token_sec > sum->token_sec) sum->token_sec = st->token_sec;
    if (st->round_sec > sum->round_sec) {
        sum->round_sec = st->round_sec;
        sum->compute_sec = st->compute_sec;
    }
}

/* One line a model. */
static void by_model(dil_buf *b, const char *metric_name, const char *type, const char *help, dil_served *const *m, const double *value, uint32_t n)
{
    dil_buf_printf(b, "# HELP dilemma_model_%s %s\n# TYPE dilemma_model_%s %s\n", metric_name, help, metric_name, type);
    for (uint32_t i = 0; i < n; i++) {
        char name[2 * sizeof m[i]->name];
        size_t k = 0;
        for (const char *c = m[i]->name; *c; c++) {
            if (*c == '"' || *c == '\\' || *c == '\n') name[k++] = '\\';
            name[k++] = *c == '\n' ? 'n' : *c;
        }
        name[k] = 0;
        dil_buf_printf(b, "dilemma_model_%s{model=\"%s\"} %.9g\n", metric_name, name, value[i]);
    }
}

static void metric(dil_buf *b, const char *name, const char *type, const char *help, double value)
{
    dil_buf_printf(b, "# HELP dilemma_%s %s\n# TYPE dilemma_%s %s\ndilemma_%s %.9g\n", name, help, name, type, name, value);
}

static enum MHD_Result page_metrics(dil__request *q)
{
    dil_served *m[DIL_SERVE_MODELS_MAX];
    double ready[DIL_SERVE_MODELS_MAX], tokens[DIL_SERVE_MODELS_MAX], active[DIL_SERVE_MODELS_MAX];
    uint32_t n = dil__served_all(q->s, m), n_ready = 0;
    dil_runner_state st = {0};
    for (uint32_t i = 0; i < n; i++) {
        dil_runner_state one;
        dil__served_state(m[i], &one);
        add_state(&st, &one);
        n_ready += one.ready;
        ready[i] = one.ready;
        tokens[i] = (double)one.tokens_out;
        active[i] = one.n_active;
    }
    dil_buf b;
    dil_buf_init(&b, 1u << 16);
    metric(&b, "ready", "gauge", "1 when every stage of every model is loaded and answers.", n > 0 && n_ready == n);
    metric(&b, "requests_total", "counter", "Generations accepted.", (double)st.requests);
    metric(&b, "failures_total", "counter", "Generations that ended with an error.", (double)st.failures);
    metric(&b, "prompt_tokens_total", "counter", "Prompt tokens taken in.", (double)st.tokens_in);
    metric(&b, "generated_tokens_total", "counter", "Tokens generated.", (double)st.tokens_out);
    metric(&b, "guessed_tokens_total", "counter", "Tokens guessed ahead (speculation).", (double)st.n_guessed);
    metric(&b, "accepted_tokens_total", "counter", "Guessed tokens that came.", (double)st.n_right);
    metric(&b, "recoveries_total", "counter", "Losses of a node or link that running requests survived.", st.n_recoveries);
    metric(&b, "requests_active", "gauge", "Generations that run.", st.n_active);
    metric(&b, "requests_queued", "gauge", "Generations that wait.", st.n_queued);
    metric(&b, "queue_limit", "gauge", "Generations that may wait; more are answered 429.", st.queue_max);
    metric(&b, "token_seconds", "gauge", "Seconds a token of a running stream, smoothed; of the slowest model.", st.token_sec);
    metric(&b, "round_seconds", "gauge", "Seconds of a decoding round through the stages, smoothed; 0: no ring.", st.round_sec);
    metric(&b, "round_compute_seconds", "gauge", "What the stages computed of it; the rest is links.", st.compute_sec);
    by_model(&b, "ready", "gauge", "1 when every stage of it is loaded and answers.", m, ready, n);
    by_model(&b, "generated_tokens_total", "counter", "Tokens that it generated.", m, tokens, n);
    by_model(&b, "requests_active", "gauge", "Its generations that run.", m, active, n);
    for (uint32_t i = 0; i < n; i++) dil__served_release(m[i]);
    dil_buf_printf(&b, "# HELP dilemma_http_responses_total Responses by class of status.\n# TYPE dilemma_http_responses_total counter\n");
    pthread_mutex_lock(&q->s->lock);
    for (int i = 2; i < 6; i++)
        dil_buf_printf(&b, "dilemma_http_responses_total{class=\"%dxx\"} %llu\n", i, (unsigned long long)q->s->n_responses[i]);
    pthread_mutex_unlock(&q->s->lock);
    return dil__send(q, 200, "text/plain; version=0.0.4; charset=utf-8", &b);
}

/* --- OpenAI's model list ------------------------------------------------------------------------------------------------------ */

static json_t *model_doc(const dil_served *m)
{
    return json_pack("{s:s, s:s, s:I, s:s}", "id", m->name, "object", "model", "created", (json_int_t)m->created_sec, "owned_by", "dilemma");
}

/* {key: [one of each model]} */
static enum MHD_Result send_list(dil__request *q, const char *object, const char *key, json_t *(*one)(const dil_served *m))
{
    dil_served *m[DIL_SERVE_MODELS_MAX];
    uint32_t n = dil__served_all(q->s, m);
    json_t *list = json_array(), *doc = json_object();
    for (uint32_t i = 0; i < n; i++) {
        json_array_append_new(list, one(m[i]));
        dil__served_release(m[i]);
    }
    if (object) json_object_set_new(doc, "object", json_string(object));
    json_object_set_new(doc, key, list);
    return dil__send_json(q, 200, doc);
}

static enum MHD_Result page_models(dil__request *q)
{
    return send_list(q, "list", "data", model_doc);
}

static enum MHD_Result page_model(dil__request *q)
{
    q->served = dil__served_hold(q->s, q->word);
    return q->served ? dil__send_json(q, 200, model_doc(q->served)) : dil__send_no_model(q, q->word);
}

/* --- Ollama's ------------------------------------------------------------------------------------------------------------------- */

static enum MHD_Result page_version(dil__request *q)
{
    return dil__send_json(q, 200, json_pack("{s:s}", "version", DILEMMA_VERSION));
}

static json_t *details(const dil_served *s)
{
    char size[32] = "";
    if (s->n_params >= 1000000000u) snprintf(size, sizeof size, "%.1fB", (double)s->n_params * 1e-9);
    else if (s->n_params) snprintf(size, sizeof size, "%.0fM", (double)s->n_params * 1e-6);
    return json_pack("{s:s, s:s, s:s, s:[s], s:s, s:s}", "parent_model", "", "format", "gguf", "family", s->family, "families", s->family,
                     "parameter_size", size, "quantization_level", s->quantization);
}

static json_t *tag_doc(const dil_served *s)
{
    char when[32];
    time_t sec = s->created_sec;
    struct tm tm;
    gmtime_r(&sec, &tm);
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &tm);
    return json_pack("{s:s, s:s, s:s, s:I, s:s, s:o}", "name", s->name, "model", s->name, "modified_at", when, "size",
                     (json_int_t)s->n_bytes, "digest", s->digest, "details", details(s));
}

static enum MHD_Result page_tags(dil__request *q)
{
    return send_list(q, NULL, "models", tag_doc);
}

static enum MHD_Result page_show(dil__request *q)
{
    json_t *doc = NULL;
    dil_err err;
    dil_status st = dil__json_parse("request body", dil_buf_str(&q->body), q->body.len, &doc, &err);
    if (st != DIL_OK) return dil__send_error(q, 400, NULL, NULL, err.text);
    const char *name = json_string_value(json_object_get(doc, "model"));
    if (!name) name = json_string_value(json_object_get(doc, "name"));
    if (name) q->served = dil__served_hold(q->s, name);
    enum MHD_Result res = name && !q->served ? dil__send_no_model(q, name) : MHD_NO;
    json_decref(doc);
    if (!name) return dil__send_error(q, 400, "model", "model_not_found", "model must be a text");
    const dil_served *s = q->served;
    if (!s) return res;
    json_t *info = json_pack("{s:s, s:I}", "general.architecture", s->family, "general.parameter_count", (json_int_t)s->n_params);
    if (s->family[0]) {
        char key[96];
        snprintf(key, sizeof key, "%s.context_length", s->family);
        json_object_set_new(info, key, json_integer((json_int_t)s->n_ctx));
    }
    return dil__send_json(q, 200, json_pack("{s:s, s:s, s:s, s:o, s:o, s:[s]}", "modelfile", "", "parameters", "", "template", "", "details", details(s),
                                            "model_info", info, "capabilities", "completion"));
}

/* --- the table ------------------------------------------------------------------------------------------------------------------- */

const dil__route dil__routes[] = {
    {"GET", "/", true, dil__page_index, DIL_API_OPENAI_CHAT},
    {"GET", "/app.js", true, dil__page_script, DIL_API_OPENAI_CHAT},
    {"GET", "/style.css", true, dil__page_style, DIL_API_OPENAI_CHAT},
    {"GET", "/openapi.json", true, dil__page_openapi, DIL_API_OPENAI_CHAT},
    {"GET", "/dilemma/state", false, dil__page_state, DIL_API_OPENAI_CHAT},
    {"GET", "/dilemma/models", false, dil__page_served, DIL_API_OPENAI_CHAT},
    {"POST", "/dilemma/models", false, dil__page_load, DIL_API_OPENAI_CHAT},
    {"DELETE", "/dilemma/models/", false, dil__page_unload, DIL_API_OPENAI_CHAT},
    {"POST", "/dilemma/whatif", false, dil__page_whatif, DIL_API_OPENAI_CHAT},
    {"POST", "/dilemma/pair", false, dil__page_pair, DIL_API_OPENAI_CHAT},
    {"POST", "/dilemma/find", false, dil__page_find, DIL_API_OPENAI_CHAT},
    {"GET", "/health", true, page_health, DIL_API_OPENAI_CHAT},
    {"GET", "/metrics", false, page_metrics, DIL_API_OPENAI_CHAT},
    {"GET", "/v1/models", false, page_models, DIL_API_OPENAI_CHAT},
    {"GET", "/v1/models/", false, page_model, DIL_API_OPENAI_CHAT},
    {"POST", "/v1/completions", false, NULL, DIL_API_OPENAI_COMPLETION},
    {"POST", "/v1/chat/completions", false, NULL, DIL_API_OPENAI_CHAT},
    {"GET", "/api/version", false, page_version, DIL_API_OLLAMA_CHAT},
    {"GET", "/api/tags", false, page_tags, DIL_API_OLLAMA_CHAT},
    {"POST", "/api/show", false, page_show, DIL_API_OLLAMA_CHAT},
    {"POST", "/api/generate", false, NULL, DIL_API_OLLAMA_GENERATE},
    {"POST", "/api/chat", false, NULL, DIL_API_OLLAMA_CHAT},
    {NULL, NULL, false, NULL, DIL_API_OPENAI_CHAT},
};

const dil__route *dil__route_find(const char *method, const char *path, bool *wrong_method)
{
    const dil__route *other = NULL;
    for (const dil__route *r = dil__routes; r->method; r++) {
        size_t n = strlen(r->path);
        bool takes_word = n > 1 && r->path[n - 1] == '/';
        if (takes_word ? strncmp(path, r->path, n) != 0 || !path[n] : strcmp(path, r->path) != 0) continue;
        *wrong_method = false;
        if (strcmp(method, r->method) == 0 || (strcmp(method, "HEAD") == 0 && strcmp(r->method, "GET") == 0)) return r;
        other = r;
    }
    *wrong_method = other != NULL;
    return other;
}
