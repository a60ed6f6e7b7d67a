/* dilemma/serve.h - the HTTP server over a runner: OpenAI's protocol and Ollama's.
 *
 *   dil_server_open(&opts, &srv, err);                       listens at once; /health says 503 and why
 *   dil_served *m = dil_server_first(srv);                   or dil_server_add(srv, name, &m, err): one of several models
 *   dil_served_set_status(m, "loading weights: 40 %");       ... open a runner ...
 *   dil_served_attach(m, runner, tokenizer);                 answers from here on
 *   dil_server_close(srv);  dil_runner_close(runner);
 *
 * Endpoints: docs/SERVE.md.
 * One event-driven thread serves all connections, a second one watches deadlines and clients that hang up; waiting requests
 * cost no thread. Everything that comes from outside is bounded: see the limits below. */
#ifndef DILEMMA_SERVE_H
#define DILEMMA_SERVE_H

#include <dilemma/keys.h>
#include <dilemma/plan.h>
#include <dilemma/runner.h>
#include <dilemma/tokenizer.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DIL_SERVE_BODY_MAX (8u << 20)        /* bytes of one request body; 413 beyond */
#define DIL_SERVE_BODIES_MAX (64u << 20)     /* bytes of all bodies being received; 503 beyond */
#define DIL_SERVE_HEADERS_MAX (32u << 10)    /* bytes of request line and headers; 431 beyond */
#define DIL_SERVE_HEADERS_SEC 30             /* a connection without a complete request is closed */
#define DIL_SERVE_BODY_SEC 60                /* the same for its body */
#define DIL_SERVE_OUTPUT_MAX (16u << 20)     /* bytes of an answer that wait for a slow reader; the request ends beyond */

#define DIL_SERVE_MODELS_MAX 16
#define DIL_SERVE_PATH_MAX 4000              /* bytes of a file's name in a request to load it */

typedef struct dil_server dil_server;
typedef struct dil_served dil_served;         /* one of the models */

/* POST and DELETE /dilemma/models, for clients with an API key. Called from a thread of their own, one at a time; both block until it is done.
 * load adds the model, and removes it again when it fails; p: ends early when the server does. unload frees it. */
typedef struct dil_serve_load { const char *model, *plan, *cluster, *name; } dil_serve_load; /* files; NULL: not given */
typedef struct dil_serve_host {
    void *ctx;
    dil_status (*load)(void *ctx, const dil_serve_load *what, const dil_progress *p, dil_served **out, dil_err *err);
    dil_status (*unload)(void *ctx, const char *name, dil_err *err);
} dil_serve_host;

typedef struct dil_serve_opts {
    const char *bind;         /* NULL: "127.0.0.1"; a numeric IPv4 or IPv6 address */
    uint16_t port;            /* 0: any free one, see dil_server_port */
    const char *model_name;   /* the first model, as /v1/models lists it and requests name it; NULL: none yet. Borrowed for the call */
    const char *const *api_keys; size_t n_api_keys; /* 0: none is asked for; else "Authorization: Bearer KEY" with one of them on
                                                     * all but /health; at most 64, of at most 255 bytes */
    const char *tls_cert_file, *tls_key_file; /* PEM; NULL: HTTP without TLS */
    uint32_t max_connections; /* 0: 256 */
    dil_serve_host host;      /* who loads and unloads models at run time; zero: nobody */
    const char *retry_path;   /* journal of the answers to requests with an Idempotency-Key; NULL: they do not survive a restart */
} dil_serve_opts;

/* Errors: DIL_EBUSY (port in use), DIL_EUSAGE (no such address), DIL_EFORMAT (no certificate), DIL_ELIMIT (keys). Threads: starts two. */
dil_status dil_server_open(const dil_serve_opts *o, dil_server **out, dil_err *err);
uint16_t dil_server_port(const dil_server *s);

/* Errors of add: DIL_EBUSY (the name is taken), DIL_ELIMIT (too many), DIL_EUSAGE. */
dil_status dil_server_add(dil_server *s, const char *name, dil_served **out, dil_err *err);
dil_served *dil_server_first(dil_server *s); /* NULL: none */
/* Takes no more requests from now on, lets those that run go on for grace_sec, ends the others. Afterwards its runner may be closed, then it is freed. */
void dil_server_remove(dil_served *m, double grace_sec);
void dil_served_free(dil_served *m); /* removed, or never attached */
void dil_served_set_status(dil_served *m, const char *why); /* what /health says until a runner is attached; any thread */
typedef struct dil_serve_model { /* what Ollama's clients are told; 0 and NULL: unknown; copied */
    const char *family, *quantization, *digest;
    uint64_t n_bytes, n_params, n_ctx;
} dil_serve_model;
void dil_served_set_model(dil_served *m, const dil_serve_model *told); /* before attaching */
/* What the web page shows, and with the profile what its question "what if" plans from. Each may be NULL; borrowed until
 * dil_served_free or dil_server_close. */
void dil_served_set_plan(dil_served *m, const dil_plan *plan, const dil_cluster *cluster, const dil_profile *profile);
/* Lets the page enrol nodes by their codes (dilemma/pair.h) into dir, with me as the coordinator; find: it may look for them on the network. Copied.
 * Only where this machine alone is served, or API keys are asked for; otherwise the page says how else. Before attaching. */
dil_status dil_server_set_enrol(dil_server *s, const char *dir, const dil_keypair *me, bool find, dil_err *err);
/* Both are borrowed until dil_server_remove or dil_server_close. Once. */
dil_status dil_served_attach(dil_served *m, dil_runner *r, const dil_tokenizer *t, dil_err *err);
void dil_server_close(dil_server *s); /* cancels what runs, frees the models; then the runners may be closed */

#ifdef __cplusplus
}
#endif
#endif
