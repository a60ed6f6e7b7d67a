/* dilemma/serve.h - the HTTP server over a runner: OpenAI's protocol and Ollama's.
 *
 *   dil_server_open(&opts, &srv, err);                       listens at once; /health says 503 and why
 *   dil_server_set_status(srv, "loading weights: 40 %");     ... open a runner ...
 *   dil_server_attach(srv, runner, tokenizer);               answers from here on
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

typedef struct dil_serve_opts {
    const char *bind;         /* NULL: "127.0.0.1"; a numeric IPv4 or IPv6 address */
    uint16_t port;            /* 0: any free one, see dil_server_port */
    const char *model_name;   /* what /v1/models lists and requests name; borrowed for the call */
    const char *const *api_keys; size_t n_api_keys; /* 0: none is asked for; else "Authorization: Bearer KEY" with one of them on
                                                     * all but /health; at most 64, of at most 255 bytes */
    const char *tls_cert_file, *tls_key_file; /* PEM; NULL: HTTP without TLS */
    uint32_t max_connections; /* 0: 256 */
    const char *retry_path;   /* journal of the answers to requests with an Idempotency-Key; NULL: they do not survive a restart */
} dil_serve_opts;

typedef struct dil_server dil_server;

/* Errors: DIL_EBUSY (port in use), DIL_EUSAGE (no such address), DIL_EFORMAT (no certificate), DIL_ELIMIT (keys). Threads: starts two. */
dil_status dil_server_open(const dil_serve_opts *o, dil_server **out, dil_err *err);
uint16_t dil_server_port(const dil_server *s);
void dil_server_set_status(dil_server *s, const char *why); /* what /health says until a runner is attached; any thread */
typedef struct dil_serve_model { /* what Ollama's clients are told; 0 and NULL: unknown; copied */
    const char *family, *quantization, *digest;
    uint64_t n_bytes, n_params, n_ctx;
} dil_serve_model;
void dil_server_set_model(dil_server *s, const dil_serve_model *m); /* before attaching */
/* What the web page shows, and with the profile what its question "what if" plans from. Each may be NULL; borrowed until
 * dil_server_close. */
void dil_server_set_plan(dil_server *s, const dil_plan *plan, const dil_cluster *cluster, const dil_profile *profile);
/* Lets the page enrol nodes by their codes (dilemma/pair.h) into dir, with me as the coordinator; find: it may look for them on the network. Copied.
 * Only where this machine alone is served, or API keys are asked for; otherwise the page says how else. Before attaching. */
dil_status dil_server_set_enrol(dil_server *s, const char *dir, const dil_keypair *me, bool find, dil_err *err);
/* Both are borrowed until dil_server_close. Once. */
dil_status dil_server_attach(dil_server *s, dil_runner *r, const dil_tokenizer *t, dil_err *err);
void dil_server_close(dil_server *s); /* cancels what runs; then the runner may be closed */

#ifdef __cplusplus
}
#endif
#endif
