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
typedef struct dil__question dil__question; /* web.c */

typedef struct dil__route {
    const char *method, *path; /* a path that ends in '/' takes one more word; "/" itself does not */
    bool open;                 /* no key is asked for */
    enum MHD_Result (*page)(dil__request *q); /* once the body is there; NULL: a generation */
    dil__api_form form;        /* of a generation, and of errors */
} dil__route;
extern const dil__route dil__routes[]; /* ends with a NULL method */

/* NULL: no such path. *wrong_method: the path is known, but with another method (the route returned). */
const dil__route *dil__route_find(const char *method, const char *path, bool *wrong_method);

typedef struct dil__server_model { /* what is told about the model; all owned */
    char name[128], family[64], quantization[32], digest[2 * DIL_HASH_BYTES + 1];
    uint64_t n_bytes, n_params, n_ctx;
} dil__server_model;

struct dil_server {
    struct MHD_Daemon *daemon;
    dil__guard *guard;
    uint16_t port;
    bool loopback;
    dil__server_model model;
    dil_hash *key;              /* [n_keys] of the API keys */
    size_t n_keys;
    int64_t created_sec;
    pthread_mutex_t lock;
    char why[DIL_ERR_TEXT_MAX]; /* why it is not ready, before a backend is attached */
    dil__backend backend;
    bool attached;
    dil__retry *retry;          /* answers for retries */
    atomic_bool closing;
    size_t body_bytes;          /* of all requests being received */
    const dil_plan *plan;       /* for the web page; borrowed, may be NULL */
    const dil_cluster *cluster;
    const dil_profile *profile;
    uint32_t plan_version, n_questions;
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
};

void dil__server_state(dil_server *s, dil_runner_state *out);
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
void dil__question_end(dil__request *q);
void dil__questions_wait(dil_server *s); /* for the threads that answer; closing is set */
bool dil__model_is(const dil_server *s, const char *name); /* Ollama's ":latest" is taken off */

#endif
