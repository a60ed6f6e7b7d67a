/* The web page: three files in the binary, its state, and its questions: "what if", and enrolling a node. A question is answered in a thread of its
 * own while its connection sleeps, one question at a time: a solver takes seconds, and the server's one thread serves everybody. */
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

void dil_server_set_plan(dil_server *s, const dil_plan *plan, const dil_cluster *cluster, const dil_profile *profile)
{
    pthread_mutex_lock(&s->lock);
    s->plan = plan;
    s->cluster = cluster;
    s->profile = profile;
    s->plan_version++;
    pthread_mutex_unlock(&s->lock);
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

enum MHD_Result dil__page_state(dil__request *q)
{
    dil_server *s = q->s;
    dil_runner_state st;
    dil__server_state(s, &st);
    pthread_mutex_lock(&s->lock);
    const dil_plan *plan = s->plan;
    const dil_cluster *cluster = s->cluster;
    const dil_profile *profile = s->profile;
    json_int_t version = s->plan_version;
    pthread_mutex_unlock(&s->lock);
    json_t *metrics = json_pack("{s:I, s:I, s:I, s:I, s:f}", "active", (json_int_t)st.n_active, "queued", (json_int_t)st.n_queued, "generated_tokens",
                                (json_int_t)st.tokens_out, "prompt_tokens", (json_int_t)st.tokens_in, "token_sec", st.token_sec);
    json_t *doc = json_pack("{s:s, s:b, s:s, s:I, s:b, s:o}", "model", s->model.name, "ready", st.ready, "why", st.why[0] ? st.why : "starting", "version", version,
                            "can_replan", plan && cluster && profile, "metrics", metrics);
    json_object_set_new(doc, "enrol", may_enrol(s) ? json_pack("{s:b, s:o}", "find", s->enrol_find, "nodes", dil__enrolled_json(s->enrol_dir)) : json_null());
    json_object_set_new(doc, "plan", plan ? dil__plan_json(plan, profile) : json_null());
    json_object_set_new(doc, "cluster", cluster ? dil__cluster_json(cluster) : json_null());
    return dil__send_json(q, 200, doc);
}

/* --- questions -------------------------------------------------------------------------------------------------------------- */

struct dil__question {
    dil_server *s;
    struct MHD_Connection *conn;
    pthread_t thread;
    dil_status (*find_answer)(dil__question *a); /* into answer, err */
    dil__whatif asked;
    dil__enrol enrol;
    const dil_plan *plan;
    const dil_cluster *cluster;
    const dil_profile *profile;
    json_t *answer;
    dil_err err;
};

static bool go_on(void *ctx, const char *what, double done, double total)
{
    (void)what, (void)done, (void)total;
    return !atomic_load(&((dil__question *)ctx)->s->closing);
}

static dil_status answer_whatif(dil__question *a)
{
    dil_progress p = {.fn = go_on, .ctx = a};
    return dil__whatif_answer(&a->asked, a->plan, a->profile, a->cluster, &p, &a->answer, &a->err);
}

static dil_status answer_pair(dil__question *a)
{
    return dil__enrol_pair(&a->enrol, &a->s->enrol_key, a->s->enrol_dir, &a->answer, &a->err);
}

static dil_status answer_find(dil__question *a)
{
    return dil__enrol_find(a->s->enrol_dir, &a->answer, &a->err);
}

static void *answer(void *ctx)
{
    dil__question *a = ctx;
    dil_server *s = a->s;
    if (a->find_answer(a) != DIL_OK) a->answer = NULL;
    MHD_resume_connection(a->conn);
    pthread_mutex_lock(&s->lock);
    s->n_questions--;
    pthread_cond_broadcast(&s->question_done);
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static void free_question(dil__question *a)
{
    dil__whatif_fini(&a->asked);
    json_decref(a->answer);
    free(a);
}

/* The connection is through with it, answered or not. */
void dil__question_end(dil__request *q)
{
    if (!q->question) return;
    pthread_join(q->question->thread, NULL);
    free_question(q->question);
    q->question = NULL;
}

/* 401 would say that our own API key is wrong, and a machine that cannot be reached is no fault of this server. */
static int http_of(const dil__question *a)
{
    if (a->find_answer == answer_whatif) return 503;
    return a->err.code == DIL_EAUTH ? 403 : a->err.code == DIL_ENET ? 502 : a->err.code == DIL_EBUSY ? 409 : dil_status_http(a->err.code);
}

static enum MHD_Result send_answer(dil__request *q)
{
    dil__question *a = q->question;
    pthread_join(a->thread, NULL);
    q->question = NULL;
    json_t *doc = a->answer;
    a->answer = NULL;
    enum MHD_Result res = doc ? dil__send_json(q, 200, doc) : dil__send_error(q, http_of(a), NULL, a->err.code == DIL_EAUTH ? "wrong_code" : NULL, a->err.text);
    free_question(a);
    return res;
}

static enum MHD_Result begin(dil__request *q, dil__question *a)
{
    dil_server *s = q->s;
    pthread_mutex_lock(&s->lock);
    bool busy = s->n_questions > 0 || atomic_load(&s->closing);
    if (!busy) s->n_questions++;
    pthread_mutex_unlock(&s->lock);
    if (busy) {
        free_question(a);
        return dil__send_error(q, 429, NULL, "busy", "another question is being answered; try again");
    }
    MHD_suspend_connection(q->conn);
    if (pthread_create(&a->thread, NULL, answer, a) == 0) {
        q->question = a;
        return MHD_YES;
    }
    MHD_resume_connection(q->conn);
    pthread_mutex_lock(&s->lock);
    s->n_questions--;
    pthread_mutex_unlock(&s->lock);
    free_question(a);
    return MHD_NO;
}

enum MHD_Result dil__page_whatif(dil__request *q)
{
    dil_server *s = q->s;
    if (q->question) return send_answer(q);
    dil__question *a = calloc(1, sizeof *a);
    if (!a) return MHD_NO;
    pthread_mutex_lock(&s->lock);
    *a = (dil__question){.s = s, .conn = q->conn, .find_answer = answer_whatif, .plan = s->plan, .cluster = s->cluster, .profile = s->profile};
    pthread_mutex_unlock(&s->lock);
    const char *param = NULL;
    enum MHD_Result res;
    if (!a->plan || !a->cluster || !a->profile)
        res = dil__send_error(q, 404, NULL, "no_profile", "this server has no plan with its measurements: dilemma serve --plan --cluster --profile");
    else if (dil__whatif_parse(dil_buf_str(&q->body), q->body.len, a->cluster, &a->asked, &param, &a->err) != DIL_OK)
        res = dil__send_error(q, 400, param, NULL, a->err.text);
    else return begin(q, a);
    free(a);
    return res;
}

static enum MHD_Result refuse_enrol(dil__request *q)
{
    if (!q->s->enrol_dir) return dil__send_error(q, 404, NULL, "no_enrol", "this server has no folder of keys: enrol machines with dilemma pair");
    return dil__send_error(q, 403, NULL, "not_protected", "this server is open to other machines and asks for no API key, so it enrols nobody: dilemma pair does, or --api-key-file");
}

enum MHD_Result dil__page_pair(dil__request *q)
{
    if (q->question) return send_answer(q);
    if (!may_enrol(q->s)) return refuse_enrol(q);
    dil__question *a = calloc(1, sizeof *a);
    if (!a) return MHD_NO;
    *a = (dil__question){.s = q->s, .conn = q->conn, .find_answer = answer_pair};
    const char *param = NULL;
    if (dil__enrol_parse(dil_buf_str(&q->body), q->body.len, &a->enrol, &param, &a->err) == DIL_OK) return begin(q, a);
    enum MHD_Result res = dil__send_error(q, 400, param, NULL, a->err.text);
    free(a);
    return res;
}

enum MHD_Result dil__page_find(dil__request *q)
{
    if (q->question) return send_answer(q);
    if (!may_enrol(q->s)) return refuse_enrol(q);
    if (!q->s->enrol_find) return dil__send_error(q, 404, NULL, "no_find", "this server does not look for machines on the network: dilemma up --discover does");
    dil__question *a = calloc(1, sizeof *a);
    if (!a) return MHD_NO;
    *a = (dil__question){.s = q->s, .conn = q->conn, .find_answer = answer_find};
    return begin(q, a);
}

void dil__questions_wait(dil_server *s)
{
    pthread_mutex_lock(&s->lock);
    while (s->n_questions > 0) pthread_cond_wait(&s->question_done, &s->lock);
    pthread_mutex_unlock(&s->lock);
}
