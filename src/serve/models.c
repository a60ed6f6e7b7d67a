/* The models that a server answers for. A request holds its model; one that is removed takes no more requests and goes when the last hold ends,
 * so that whoever removed it may then close what computed it. */
#include "serve/server.h"

#include "base/json.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* --- the table ------------------------------------------------------------------------------------------------------------ */

static bool is_named(const dil_served *m, const char *name)
{
    size_t n = strlen(m->name);
    return strncmp(name, m->name, n) == 0 && (name[n] == 0 || strcmp(name + n, ":latest") == 0);
}

/* Under the lock. */
static dil_served *find(dil_server *s, const char *name)
{
    if (!name) return s->n_served ? s->served[0] : NULL;
    for (uint32_t i = 0; i < s->n_served; i++) {
        if (is_named(s->served[i], name)) return s->served[i];
    }
    return NULL;
}

dil_served *dil__served_hold(dil_server *s, const char *name)
{
    pthread_mutex_lock(&s->lock);
    dil_served *m = find(s, name);
    if (m) m->n_holds++;
    pthread_mutex_unlock(&s->lock);
    return m;
}

void dil__served_release(dil_served *m)
{
    if (!m) return;
    dil_server *s = m->server;
    pthread_mutex_lock(&s->lock);
    m->n_holds--;
    pthread_cond_broadcast(&s->released);
    pthread_mutex_unlock(&s->lock);
}

uint32_t dil__served_all(dil_server *s, dil_served *out[DIL_SERVE_MODELS_MAX])
{
    pthread_mutex_lock(&s->lock);
    uint32_t n = s->n_served;
    for (uint32_t i = 0; i < n; i++) {
        out[i] = s->served[i];
        out[i]->n_holds++;
    }
    pthread_mutex_unlock(&s->lock);
    return n;
}

dil_status dil_server_add(dil_server *s, const char *name, dil_served **out, dil_err *err)
{
    if (!name[0] || strlen(name) >= sizeof (*out)->name) return dil_fail(err, DIL_EUSAGE, "a model's name has 1 to %zu bytes", sizeof (*out)->name - 1);
    dil_served *m = calloc(1, sizeof *m);
    if (!m) return dil_fail(err, DIL_EMEMORY, "no memory for another model");
    m->server = s;
    m->created_sec = dil_wall_ms() / 1000;
    snprintf(m->name, sizeof m->name, "%s", name);
    snprintf(m->why, sizeof m->why, "starting");
    pthread_mutex_lock(&s->lock);
    bool full = s->n_served == DIL_SERVE_MODELS_MAX, known = find(s, name) != NULL;
    if (!full && !known) s->served[s->n_served++] = m;
    pthread_mutex_unlock(&s->lock);
    if (!full && !known) {
        *out = m;
        return DIL_OK;
    }
    free(m);
    if (known) return dil_fail(err, DIL_EBUSY, "a model '%.64s' is served already", name);
    return dil_fail(err, DIL_ELIMIT, "%d models are served already", DIL_SERVE_MODELS_MAX);
}

dil_served *dil_server_first(dil_server *s)
{
    pthread_mutex_lock(&s->lock);
    dil_served *m = find(s, NULL);
    pthread_mutex_unlock(&s->lock);
    return m;
}

static void take_out(dil_server *s, const dil_served *m)
{
    for (uint32_t i = 0; i < s->n_served; i++) {
        if (s->served[i] != m) continue;
        memmove(&s->served[i], &s->served[i + 1], (s->n_served - i - 1) * sizeof *s->served);
        s->n_served--;
        return;
    }
}

void dil_server_remove(dil_served *m, double grace_sec)
{
    dil_server *s = m->server;
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += (time_t)grace_sec;
    pthread_mutex_lock(&s->lock);
    take_out(s, m);
    while (m->n_holds > 0 && pthread_cond_timedwait(&s->released, &s->lock, &end) != ETIMEDOUT) continue;
    while (m->n_holds > 0) { /* a request that came just before may have no job yet: look again */
        pthread_mutex_unlock(&s->lock);
        dil__guard_abort_jobs(s->guard, m->attached ? m->backend.ctx : m, "the model was unloaded");
        clock_gettime(CLOCK_REALTIME, &end);
        end.tv_sec++;
        pthread_mutex_lock(&s->lock);
        if (m->n_holds > 0) pthread_cond_timedwait(&s->released, &s->lock, &end);
    }
    pthread_mutex_unlock(&s->lock);
}

void dil_served_free(dil_served *m)
{
    if (!m) return;
    pthread_mutex_lock(&m->server->lock);
    take_out(m->server, m);
    pthread_mutex_unlock(&m->server->lock);
    if (m->attached && m->backend.free) m->backend.free(m->backend.ctx);
    free(m);
}

/* --- what is told ----------------------------------------------------------------------------------------------------------- */

void dil_served_set_status(dil_served *m, const char *why)
{
    pthread_mutex_lock(&m->server->lock);
    snprintf(m->why, sizeof m->why, "%s", why);
    pthread_mutex_unlock(&m->server->lock);
}

void dil_served_set_model(dil_served *m, const dil_serve_model *told)
{
    pthread_mutex_lock(&m->server->lock);
    snprintf(m->family, sizeof m->family, "%s", told->family ? told->family : "");
    snprintf(m->quantization, sizeof m->quantization, "%s", told->quantization ? told->quantization : "");
    snprintf(m->digest, sizeof m->digest, "%s", told->digest ? told->digest : "");
    m->n_bytes = told->n_bytes;
    m->n_params = told->n_params;
    m->n_ctx = told->n_ctx;
    pthread_mutex_unlock(&m->server->lock);
}

void dil_served_set_plan(dil_served *m, const dil_plan *plan, const dil_cluster *cluster, const dil_profile *profile)
{
    pthread_mutex_lock(&m->server->lock);
    m->plan = plan;
    m->cluster = cluster;
    m->profile = profile;
    m->plan_version++;
    pthread_mutex_unlock(&m->server->lock);
}

void dil__served_attach(dil_served *m, const dil__backend *b)
{
    pthread_mutex_lock(&m->server->lock);
    m->backend = *b;
    m->attached = true;
    pthread_mutex_unlock(&m->server->lock);
}

void dil__served_state(dil_served *m, dil_runner_state *st)
{
    memset(st, 0, sizeof *st);
    pthread_mutex_lock(&m->server->lock);
    bool attached = m->attached;
    snprintf(st->why, sizeof st->why, "%s", m->why);
    pthread_mutex_unlock(&m->server->lock);
    if (attached) m->backend.state(m->backend.ctx, st);
}

size_t dil__served_nodes(dil_served *m, dil_ring_node *out, size_t cap)
{
    pthread_mutex_lock(&m->server->lock);
    bool there = m->attached && m->backend.nodes;
    pthread_mutex_unlock(&m->server->lock);
    size_t n = there ? m->backend.nodes(m->backend.ctx, out, cap) : 0;
    return n < cap ? n : cap;
}

/* --- loading and unloading while it serves -------------------------------------------------------------------------------------- */

enum MHD_Result dil__send_no_model(dil__request *q, const char *name)
{
    char text[300], list[120] = "";
    dil_server *s = q->s;
    pthread_mutex_lock(&s->lock);
    for (uint32_t i = 0; i < s->n_served; i++) {
        size_t at = strlen(list);
        if (at + 4 < sizeof list) snprintf(list + at, sizeof list - at, "%s'%.64s'", at ? ", " : "", s->served[i]->name);
    }
    bool one = s->n_served == 1;
    pthread_mutex_unlock(&s->lock);
    if (name) snprintf(text, sizeof text, "the model '%.128s' is not served here; %s %s", name, !list[0] ? "none is" : one ? "this is" : "these are", list);
    else snprintf(text, sizeof text, "no model is loaded");
    if (!list[0]) return dil__send_error(q, 503, "model", "not_ready", text); /* one may come */
    return dil__send_error(q, 404, "model", "model_not_found", text);
}

static json_t *served_doc(dil_served *m)
{
    dil_runner_state st;
    dil__served_state(m, &st);
    return json_pack("{s:s, s:s, s:s, s:I, s:I, s:I}", "name", m->name, "status", st.ready ? "ready" : st.recovering ? "recovering" : "not ready", "reason",
                     st.ready ? "" : st.why, "active", (json_int_t)st.n_active, "queued", (json_int_t)st.n_queued, "bytes", (json_int_t)m->n_bytes);
}

enum MHD_Result dil__page_served(dil__request *q)
{
    dil_served *m[DIL_SERVE_MODELS_MAX];
    uint32_t n = dil__served_all(q->s, m);
    json_t *list = json_array();
    for (uint32_t i = 0; i < n; i++) {
        json_array_append_new(list, served_doc(m[i]));
        dil__served_release(m[i]);
    }
    return dil__send_json(q, 200, json_pack("{s:o}", "models", list));
}

typedef struct change {
    dil_server *s;
    json_t *doc;          /* owns the strings */
    dil_serve_load what;
    char name[128];       /* to be unloaded */
} change;

static void end_change(void *ctx)
{
    json_decref(((change *)ctx)->doc);
    free(ctx);
}

static dil_status do_load(void *ctx, const dil_progress *p, json_t **answer, dil_err *err)
{
    change *c = ctx;
    dil_served *m;
    dil_status st = c->s->host.load(c->s->host.ctx, &c->what, p, &m, err);
    if (st == DIL_OK) *answer = served_doc(m); /* nobody else changes models meanwhile */
    return st;
}

static dil_status do_unload(void *ctx, const dil_progress *p, json_t **answer, dil_err *err)
{
    (void)p;
    change *c = ctx;
    dil_status st = c->s->host.unload(c->s->host.ctx, c->name, err);
    if (st == DIL_OK) *answer = json_pack("{s:s, s:s}", "name", c->name, "status", "unloaded");
    return st;
}

/* Files of this machine are opened at a client's word: only for clients that showed a key. */
static bool may_change(dil__request *q, enum MHD_Result *res)
{
    if (!q->s->host.load) *res = dil__send_error(q, 404, NULL, NULL, "models are not loaded at run time here");
    else if (!q->s->n_keys) *res = dil__send_error(q, 403, NULL, "api_key_needed", "models are loaded and unloaded only by clients with an API key: start the server with --api-key-file");
    else return true;
    return false;
}

static dil_status read_load(change *c, const char *body, size_t len, const char **param, dil_err *err)
{
    dil_status st = dil__json_parse("request body", body, len, &c->doc, err);
    if (st != DIL_OK) return st;
    if (!json_is_object(c->doc)) return dil_fail(err, DIL_EFORMAT, "the body must be a JSON object");
    const struct { const char *key, **to; } member[] = {{"model", &c->what.model}, {"plan", &c->what.plan}, {"cluster", &c->what.cluster}, {"name", &c->what.name}};
    for (size_t i = 0; i < sizeof member / sizeof *member; i++) {
        const json_t *v = json_object_get(c->doc, member[i].key);
        *param = member[i].key;
        if (!v || json_is_null(v)) continue;
        if (!json_is_string(v) || json_string_length(v) == 0 || json_string_length(v) > DIL_SERVE_PATH_MAX)
            return dil_fail(err, DIL_EFORMAT, "%s must be a text of 1 to %d bytes", member[i].key, DIL_SERVE_PATH_MAX);
        *member[i].to = json_string_value(v);
    }
    *param = "model";
    return c->what.model ? DIL_OK : dil_fail(err, DIL_EFORMAT, "model must name a GGUF file on the server's machine");
}

enum MHD_Result dil__page_load(dil__request *q)
{
    enum MHD_Result res;
    if (q->question) return dil__question_answer(q);
    if (!may_change(q, &res)) return res;
    change *c = calloc(1, sizeof *c);
    if (!c) return MHD_NO;
    c->s = q->s;
    const char *param = NULL;
    dil_err err;
    if (read_load(c, dil_buf_str(&q->body), q->body.len, &param, &err) == DIL_OK)
        return dil__question_begin(q, DIL__QUESTION_MODELS, &(dil__asked){c, do_load, end_change, NULL});
    end_change(c);
    return dil__send_error(q, 400, param, NULL, err.text);
}

enum MHD_Result dil__page_unload(dil__request *q)
{
    enum MHD_Result res;
    if (q->question) return dil__question_answer(q);
    if (!may_change(q, &res)) return res;
    dil_served *m = dil__served_hold(q->s, q->word);
    if (!m) return dil__send_no_model(q, q->word);
    change *c = calloc(1, sizeof *c);
    if (c) {
        c->s = q->s;
        snprintf(c->name, sizeof c->name, "%s", m->name);
    }
    dil__served_release(m);
    return c ? dil__question_begin(q, DIL__QUESTION_MODELS, &(dil__asked){c, do_unload, end_change, NULL}) : MHD_NO;
}
