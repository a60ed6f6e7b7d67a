/* Questions that take seconds: a solver, or a model that loads. Each is answered in a thread of its own while its connection sleeps, one of a
 * kind at a time: the server's one thread serves everybody. */
#include "serve/server.h"

#include <stdlib.h>

struct dil__question {
    dil_server *s;
    struct MHD_Connection *conn;
    pthread_t thread;
    dil__question_kind kind;
    dil__asked asked;
    json_t *answer;
    dil_err err;
};

static bool go_on(void *ctx, const char *what, double done, double total)
{
    (void)what, (void)done, (void)total;
    return !atomic_load(&((dil__question *)ctx)->s->closing);
}

static void end_of(dil_server *s, dil__question_kind kind)
{
    pthread_mutex_lock(&s->lock);
    s->n_questions[kind]--;
    pthread_cond_broadcast(&s->question_done);
    pthread_mutex_unlock(&s->lock);
}

static void *answer(void *ctx)
{
    dil__question *a = ctx;
    dil_server *s = a->s;
    dil__question_kind kind = a->kind;
    dil_progress p = {.fn = go_on, .ctx = a};
    if (a->asked.work(a->asked.ctx, &p, &a->answer, &a->err) != DIL_OK) a->answer = NULL;
    MHD_resume_connection(a->conn); /* a may be gone from here on */
    end_of(s, kind);
    return NULL;
}

static void free_question(dil__question *a)
{
    a->asked.fini(a->asked.ctx);
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

static int usual_http(const dil_err *e)
{
    return e->code == DIL_ELIMIT ? 507 : e->code == DIL_EBUSY ? 409 : e->code == DIL_ECANCELED ? 503 : dil_status_http(e->code); /* 507: some machine's memory */
}

enum MHD_Result dil__question_answer(dil__request *q)
{
    dil__question *a = q->question;
    pthread_join(a->thread, NULL);
    q->question = NULL;
    json_t *doc = a->answer;
    a->answer = NULL;
    const char *code = NULL;
    int http = doc ? 200 : a->asked.http ? a->asked.http(&a->err, &code) : usual_http(&a->err);
    enum MHD_Result res = doc ? dil__send_json(q, 200, doc) : dil__send_error(q, http, NULL, code, a->err.text);
    free_question(a);
    return res;
}

enum MHD_Result dil__question_begin(dil__request *q, dil__question_kind kind, const dil__asked *asked)
{
    dil_server *s = q->s;
    dil__question *a = calloc(1, sizeof *a);
    if (!a) {
        asked->fini(asked->ctx);
        return MHD_NO;
    }
    *a = (dil__question){.s = s, .conn = q->conn, .kind = kind, .asked = *asked};
    pthread_mutex_lock(&s->lock);
    bool busy = s->n_questions[kind] > 0 || atomic_load(&s->closing);
    if (!busy) s->n_questions[kind]++;
    pthread_mutex_unlock(&s->lock);
    if (busy) {
        free_question(a);
        return dil__send_error(q, 429, NULL, "busy", "another question of this kind is being answered; try again");
    }
    MHD_suspend_connection(q->conn);
    if (pthread_create(&a->thread, NULL, answer, a) == 0) {
        q->question = a;
        return MHD_YES;
    }
    MHD_resume_connection(q->conn);
    end_of(s, kind);
    free_question(a);
    return MHD_NO;
}

void dil__questions_wait(dil_server *s)
{
    pthread_mutex_lock(&s->lock);
    for (int k = 0; k < DIL__QUESTION_KINDS; k++) {
        while (s->n_questions[k] > 0) pthread_cond_wait(&s->question_done, &s->lock);
    }
    pthread_mutex_unlock(&s->lock);
}
