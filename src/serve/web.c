/* The web page: three files in the binary, its state, and its question "what if". A question is answered in a thread of its own
 * while its connection sleeps, one question at a time: a solver takes seconds, and the server's one thread serves everybody. */
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
    json_object_set_new(doc, "plan", plan ? dil__plan_json(plan, profile) : json_null());
    json_object_set_new(doc, "cluster", cluster ? dil__cluster_json(cluster) : json_null());
    return dil__send_json(q, 200, doc);
}

/* --- what if ---------------------------------------------------------------------------------------------------------------- */

struct dil__question {
    dil_server *s;
    struct MHD_Connection *conn;
    pthread_t thread;
    dil__whatif asked;
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

static void *answer(void *ctx)
{
    dil__question *a = ctx;
    dil_server *s = a->s;
    dil_progress p = {.fn = go_on, .ctx = a};
    if (dil__whatif_answer(&a->asked, a->plan, a->profile, a->cluster, &p, &a->answer, &a->err) != DIL_OK) a->answer = NULL;
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

static enum MHD_Result send_answer(dil__request *q)
{
    dil__question *a = q->question;
    pthread_join(a->thread, NULL);
    q->question = NULL;
    json_t *doc = a->answer;
    a->answer = NULL;
    const char *code = NULL;
    enum MHD_Result res = doc ? dil__send_json(q, 200, doc) : dil__send_error(q, 503, NULL, code, a->err.text);
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
    *a = (dil__question){.s = s, .conn = q->conn, .plan = s->plan, .cluster = s->cluster, .profile = s->profile};
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

void dil__questions_wait(dil_server *s)
{
    pthread_mutex_lock(&s->lock);
    while (s->n_questions > 0) pthread_cond_wait(&s->question_done, &s->lock);
    pthread_mutex_unlock(&s->lock);
}
