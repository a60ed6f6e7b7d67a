/* serve/server.h - the server's state and one request of it, for the files that answer: http.c (connections, uploads, generations)
 * and pages.c (everything that is answered at once). */
#ifndef DIL_SERVE_SERVER_H
#define DIL_SERVE_SERVER_H

#include "serve/answer.h"
#include "serve/backend.h"
#include "serve/guard.h"
#include "serve/job.h"

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>

#define DIL__REQUEST_ID_MAX 65

typedef struct dil__request dil__request;
typedef struct dil__question dil__question; /* ask.c */
typedef enum dil__question_kind { DIL__QUESTION_PAGE, DIL__QUESTION_MODELS, DIL__QUESTION_KINDS } dil__question_kind;

typedef struct dil__route {
    const char *method, *path; /* a path that ends in '/' takes one more word; "/" itself does not */
    bool open;                 /* no key is asked for */
    enum MHD_Result (*page)(dil__request *q); /* once the body is there; NULL: a generation */
    dil__api_form form;        /* of a generation, and of errors */
} dil__route;
extern const dil__route dil__routes[]; /* ends with a NULL method */

/* NULL: no such path. *wrong_method: the path is known, but with another method (the route returned). */
const dil__route *dil__route_find(const char *method, const char *path, bool *wrong_method);

struct dil_served { /* one model: what is told about it, and what answers */
    dil_server *server;
    char name[128];          /* fixed */
    int64_t created_sec;     /* fixed */
    /* under the server's lock */
    char family[64], quantization[32], digest[2 * DIL_HASH_BYTES + 1];
    uint64_t n_bytes, n_params, n_ctx;
    char why[DIL_ERR_TEXT_MAX]; /* why it is not ready, before a backend is attached */
    const dil_plan *plan;    /* for the web page; borrowed, may be NULL */
    const dil_cluster *cluster;
    const dil_profile *profile;
    uint32_t plan_version;
    bool attached;
    dil__backend backend;    /* fixed once attached */
    uint32_t n_holds;        /* requests that use it */
};

struct dil_server {
    struct MHD_Daemon *daemon;
    dil__guard *guard;
    uint16_t port;
    bool loopback;
    dil_hash *key;              /* [n_keys] of the API keys */
    size_t n_keys;
    int64_t created_sec;
    pthread_mutex_t lock;
    dil_served *served[DIL_SERVE_MODELS_MAX]; /* oldest first; the first answers who names none */
    uint32_t n_served;
    pthread_cond_t released;    /* a hold ended */
    dil_serve_host host;
    dil__retry *retry;          /* answers for retries */
    atomic_bool closing;
    size_t body_bytes;          /* of all requests being received */
    uint32_t n_questions[DIL__QUESTION_KINDS];
    char *enrol_dir;            /* where the page enrols nodes; NULL: it does not */
    dil_keypair enrol_key;
    bool enrol_find;
    pthread_cond_t question_done;
    uint64_t n_responses[6];    /* by the status' first digit */
};

struct dil__request {
    dil_server *s;
    struct MHD_Connection *conn;
    dil__guarded *guarded;   /* the connection's entry at the guard */
    const dil__route *to;
    const char *method;      /* a literal */
    char path[128];          /* as far as it fits, printable */
    const char *word;        /* of the path: what follows the route's own */
    char id[DIL__REQUEST_ID_MAX];
    int64_t start_ns;
    int status;              /* sent */
    dil_buf body;
    size_t reserved;         /* of s->body_bytes */
    int refused;             /* HTTP status to give at the end of the upload */
    dil__job *job;
    dil__question *question;
    dil_served *served;      /* held; NULL: none yet */
};

/* models.c. A model that is held stays until it is released. */
dil_served *dil__served_hold(dil_server *s, const char *name); /* NULL: the first. NULL: there is none. Ollama's ":latest" is taken off */
void dil__served_release(dil_served *m);                       /* NULL is fine */
void dil__served_state(dil_served *m, dil_runner_state *out);
size_t dil__served_nodes(dil_served *m, dil_ring_node *out, size_t cap);
uint32_t dil__served_all(dil_server *s, dil_served *out[DIL_SERVE_MODELS_MAX]); /* all held, oldest first */
enum MHD_Result dil__page_served(dil__request *q);
enum MHD_Result dil__page_load(dil__request *q);
enum MHD_Result dil__page_unload(dil__request *q);
enum MHD_Result dil__send_no_model(dil__request *q, const char *name);
enum MHD_Result dil__send(dil__request *q, int http, const char *type, dil_buf *b); /* takes b over */
enum MHD_Result dil__send_error(dil__request *q, int http, const char *param, const char *code, const char *message);
enum MHD_Result dil__send_json(dil__request *q, int http, json_t *doc); /* takes doc over */
void dil__send_headers(dil__request *q, struct MHD_Response *r, int http, const char *type);
enum MHD_Result dil__page_index(dil__request *q);
enum MHD_Result dil__page_script(dil__request *q);
enum MHD_Result dil__page_style(dil__request *q);
enum MHD_Result dil__page_openapi(dil__request *q);
enum MHD_Result dil__page_state(dil__request *q);
enum MHD_Result dil__page_whatif(dil__request *q);
enum MHD_Result dil__page_pair(dil__request *q);
enum MHD_Result dil__page_find(dil__request *q);
/* ask.c: what takes seconds is answered in a thread of its own while its connection sleeps, one question of a kind at a time. work fills
 * *answer (owned JSON) or returns an error; fini ends ctx, always. When q->question is set, a page is through: dil__question_answer. */
typedef struct dil__asked {
    void *ctx;
    dil_status (*work)(void *ctx, const dil_progress *p, json_t **answer, dil_err *err);
    void (*fini)(void *ctx);
    int (*http)(const dil_err *e, const char **code); /* an error's status and code word; NULL: the usual ones */
} dil__asked;
enum MHD_Result dil__question_begin(dil__request *q, dil__question_kind kind, const dil__asked *asked);
enum MHD_Result dil__question_answer(dil__request *q);
void dil__question_end(dil__request *q);
void dil__questions_wait(dil_server *s); /* for the threads that answer; closing is set */

#endif
