/* The web page: three files in the binary, its state, and its questions: "what if", and enrolling a node. */
#include "serve/enrol.h"
#include "serve/server.h"
#include "serve/whatif.h"

#include <stdlib.h>
#include <string.h>

extern const unsigned char dil__web_index[], dil__web_script[], dil__web_style[], dil__web_openapi[];
extern const size_t dil__web_index_len, dil__web_script_len, dil__web_style_len, dil__web_openapi_len;

static enum MHD_Result send_file(dil__request *q, const char *type, const unsigned char *data, size_t len)
{
    struct MHD_Response *r = MHD_create_response_from_buffer(len, (void *)(uintptr_t)data, MHD_RESPMEM_PERSISTENT);
    if (!r) return MHD_NO;
    dil__send_headers(q, r, 200, type);
    MHD_add_response_header(r, "Cache-Control", "no-cache");
    MHD_add_response_header(r, "Referrer-Policy", "no-referrer");
    MHD_add_response_header(r, "Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src data:; connect-src 'self'; base-uri 'none'; "
                                                          "form-action 'none'; frame-ancestors 'none'");
    enum MHD_Result res = MHD_queue_response(q->conn, 200, r);
    MHD_destroy_response(r);
    return res;
}

enum MHD_Result dil__page_index(dil__request *q)
{
    return send_file(q, "text/html; charset=utf-8", dil__web_index, dil__web_index_len);
}

enum MHD_Result dil__page_script(dil__request *q)
{
    return send_file(q, "text/javascript; charset=utf-8", dil__web_script, dil__web_script_len);
}

enum MHD_Result dil__page_style(dil__request *q)
{
    return send_file(q, "text/css; charset=utf-8", dil__web_style, dil__web_style_len);
}

enum MHD_Result dil__page_openapi(dil__request *q)
{
    return send_file(q, "application/json", dil__web_openapi, dil__web_openapi_len);
}

dil_status dil_server_set_enrol(dil_server *s, const char *dir, const dil_keypair *me, bool find, dil_err *err)
{
    char *copy = strdup(dir);
    if (!copy) return dil_fail(err, DIL_EMEMORY, "no memory for a path");
    free(s->enrol_dir);
    s->enrol_dir = copy;
    s->enrol_key = *me;
    s->enrol_find = find;
    return DIL_OK;
}

/* Who may enrol decides which machines see the model's work: never everybody on the network. */
static bool may_enrol(const dil_server *s)
{
    return s->enrol_dir && (s->loopback || s->n_keys);
}

/* The model that ?model= names, or the first; held by the request. False: the answer is queued. */
static bool find_model(dil__request *q, enum MHD_Result *res)
{
    const char *name = MHD_lookup_connection_value(q->conn, MHD_GET_ARGUMENT_KIND, "model");
    if (!q->served) q->served = dil__served_hold(q->s, name);
    if (!q->served) *res = dil__send_no_model(q, name);
    return q->served != NULL;
}

/* What runs, beside the plan that was made: after a loss or a move these are other nodes and layers. */
static json_t *nodes_now(dil_served *m)
{
    enum { NODES_MAX = 256 };
    dil_ring_node *node = calloc(NODES_MAX, sizeof *node);
    json_t *list = json_array();
    size_t n = node ? dil__served_nodes(m, node, NODES_MAX) : 0;
    for (size_t i = 0; i < n; i++) {
        const dil_ring_node *v = &node[i];
        json_array_append_new(list, json_pack("{s:s, s:s, s:b, s:s, s:I, s:I, s:I, s:f, s:I, s:f}", "name", v->name, "state", v->state, "ready", v->ready, "layers", v->layers,
                                              "stages", (json_int_t)v->n_stages, "bytes", (json_int_t)v->bytes_total, "rss_bytes", (json_int_t)v->rss_bytes, "silent_sec",
                                              v->silent_sec, "works", (json_int_t)v->n_works, "works_sec", v->works_sec));
    }
    free(node);
    return list;
}

static json_t *figures(const dil_runner_state *st)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:f}", "active", (json_int_t)st->n_active, "queued", (json_int_t)st->n_queued, "queue_max",
                     (json_int_t)st->queue_max, "requests", (json_int_t)st->requests, "failures", (json_int_t)st->failures, "recoveries", (json_int_t)st->n_recoveries,
                     "generated_tokens", (json_int_t)st->tokens_out, "prompt_tokens", (json_int_t)st->tokens_in, "guessed_tokens", (json_int_t)st->n_guessed,
                     "accepted_tokens", (json_int_t)st->n_right, "token_sec", st->token_sec, "round_sec", st->round_sec, "compute_sec", st->compute_sec);
}

enum MHD_Result dil__page_state(dil__request *q)
{
    dil_server *s = q->s;
    enum MHD_Result res;
    if (!find_model(q, &res)) return res;
    dil_served *m = q->served;
    dil_runner_state st;
    dil__served_state(m, &st);
    pthread_mutex_lock(&s->lock);
    const dil_plan *plan = m->plan;
    const dil_cluster *cluster = m->cluster;
    const dil_profile *profile = m->profile;
    json_int_t version = m->plan_version;
    json_t *models = json_array();
    for (uint32_t i = 0; i < s->n_served; i++) json_array_append_new(models, json_string(s->served[i]->name));
    pthread_mutex_unlock(&s->lock);
    json_t *doc = json_pack("{s:s, s:o, s:b, s:s, s:I, s:b, s:o, s:o}", "model", m->name, "models", models, "ready", st.ready, "why", st.why[0] ? st.why : "starting",
                            "version", version, "can_replan", plan && cluster && profile, "metrics", figures(&st), "nodes",
                            nodes_now(m));
    json_object_set_new(doc, "enrol", may_enrol(s) ? json_pack("{s:b, s:o}", "find", s->enrol_find, "nodes", dil__enrolled_json(s->enrol_dir)) : json_null());
    json_object_set_new(doc, "plan", plan ? dil__plan_json(plan, profile) : json_null());
    json_object_set_new(doc, "cluster", cluster ? dil__cluster_json(cluster) : json_null());
    return dil__send_json(q, 200, doc);
}

/* --- what if ---------------------------------------------------------------------------------------------------------------- */

typedef struct whatif {
    dil__whatif asked;
    const dil_plan *plan;
    const dil_cluster *cluster;
    const dil_profile *profile;
} whatif;

static dil_status answer(void *ctx, const dil_progress *p, json_t **out, dil_err *err)
{
    whatif *a = ctx;
    return dil__whatif_answer(&a->asked, a->plan, a->profile, a->cluster, p, out, err);
}

static int whatif_http(const dil_err *e, const char **code)
{
    (void)e, (void)code;
    return 503;
}

static void end(void *ctx)
{
    dil__whatif_fini(&((whatif *)ctx)->asked);
    free(ctx);
}

enum MHD_Result dil__page_whatif(dil__request *q)
{
    dil_server *s = q->s;
    enum MHD_Result res;
    if (q->question) return dil__question_answer(q);
    if (!find_model(q, &res)) return res;
    whatif *a = calloc(1, sizeof *a);
    if (!a) return MHD_NO;
    pthread_mutex_lock(&s->lock);
    *a = (whatif){.plan = q->served->plan, .cluster = q->served->cluster, .profile = q->served->profile};
    pthread_mutex_unlock(&s->lock);
    const char *param = NULL;
    dil_err err;
    if (!a->plan || !a->cluster || !a->profile)
        res = dil__send_error(q, 404, NULL, "no_profile", "this server has no plan with its measurements: dilemma serve --plan --cluster --profile");
    else if (dil__whatif_parse(dil_buf_str(&q->body), q->body.len, a->cluster, &a->asked, &param, &err) != DIL_OK)
        res = dil__send_error(q, 400, param, NULL, err.text);
    else return dil__question_begin(q, DIL__QUESTION_PAGE, &(dil__asked){a, answer, end, whatif_http});
    free(a);
    return res;
}

/* --- enrolling ---------------------------------------------------------------------------------------------------------------- */

typedef struct enrolling {
    dil_server *s;
    dil__enrol what;
} enrolling;

static dil_status pair_one(void *ctx, const dil_progress *p, json_t **out, dil_err *err)
{
    (void)p;
    enrolling *a = ctx;
    return dil__enrol_pair(&a->what, &a->s->enrol_key, a->s->enrol_dir, out, err);
}

static dil_status find_some(void *ctx, const dil_progress *p, json_t **out, dil_err *err)
{
    (void)p;
    return dil__enrol_find(((enrolling *)ctx)->s->enrol_dir, out, err);
}

/* 401 would say that our own API key is wrong, and a machine that cannot be reached is no fault of this server. */
static int enrol_http(const dil_err *e, const char **code)
{
    if (e->code == DIL_EAUTH) *code = "wrong_code";
    return e->code == DIL_EAUTH ? 403 : e->code == DIL_ENET ? 502 : e->code == DIL_EBUSY ? 409 : dil_status_http(e->code);
}

static enum MHD_Result refuse_enrol(dil__request *q)
{
    if (!q->s->enrol_dir) return dil__send_error(q, 404, NULL, "no_enrol", "this server has no folder of keys: enrol machines with dilemma pair");
    return dil__send_error(q, 403, NULL, "not_protected", "this server is open to other machines and asks for no API key, so it enrols nobody: dilemma pair does, or --api-key-file");
}

enum MHD_Result dil__page_pair(dil__request *q)
{
    if (q->question) return dil__question_answer(q);
    if (!may_enrol(q->s)) return refuse_enrol(q);
    enrolling *a = calloc(1, sizeof *a);
    if (!a) return MHD_NO;
    a->s = q->s;
    const char *param = NULL;
    dil_err err;
    if (dil__enrol_parse(dil_buf_str(&q->body), q->body.len, &a->what, &param, &err) == DIL_OK)
        return dil__question_begin(q, DIL__QUESTION_PAGE, &(dil__asked){a, pair_one, free, enrol_http});
    free(a);
    return dil__send_error(q, 400, param, NULL, err.text);
}

enum MHD_Result dil__page_find(dil__request *q)
{
    if (q->question) return dil__question_answer(q);
    if (!may_enrol(q->s)) return refuse_enrol(q);
    if (!q->s->enrol_find) return dil__send_error(q, 404, NULL, "no_find", "this server does not look for machines on the network: dilemma up --discover does");
    enrolling *a = calloc(1, sizeof *a);
    if (!a) return MHD_NO;
    a->s = q->s;
    return dil__question_begin(q, DIL__QUESTION_PAGE, &(dil__asked){a, find_some, free, enrol_http});
}
