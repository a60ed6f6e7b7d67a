/* cli/serving.h - what `serve` and `up` share: the HTTP server over a local runner or a ring, from opening to Ctrl-C. */
#ifndef DIL_CLI_SERVING_H
#define DIL_CLI_SERVING_H

#include <dilemma/coordinator.h>
#include <dilemma/serve.h>

typedef struct dil_cli_choice { /* one of several */
    const char *model, *name, *plan_path;
    const dil_plan *plan;
    const dil_cluster *cluster;
    const dil_profile *profile;
} dil_cli_choice;

#define DIL_CLI_RELINK_SEC 20

typedef struct dil_cli_serving {
    const char *model, *name;          /* of the first model: file; what the API calls it, NULL: the file's name */
    const dil_cli_choice *more; uint32_t n_more; /* beside it */
    const char *bind, *device;
    const char *api_key;               /* the only one; NULL: those of the file */
    const char *api_key_file;          /* a key a line; NULL: $DILEMMA_API_KEY, else none */
    const char *tls_cert_file, *tls_key_file;
    uint16_t port;
    int n_threads;
    uint32_t n_ctx, n_seq;             /* 0: the default, or the plan's */
    bool deterministic;
    bool announce;                     /* say on standard error where /health is, before loading */
    dil_type wire;                     /* of hidden states: F32 (0), F16, BF16 */
    int speculate;                     /* dil_runner_speculate */
    double relink_sec;                 /* dil_ring_opts */
    double detect_sec, patience_sec, horizon_sec; /* 0: the defaults of dil_ring_opts */
    const char *state_dir;             /* answers for retries are kept there; NULL: not */
    const char *plan_path;             /* the plan that runs is kept there when it is another one; NULL: not */
    const dil_plan *plan;              /* NULL: in this process */
    const dil_cluster *cluster;
    const dil_profile *profile;        /* for the page's "what if"; may be NULL */
    const dil_keypair *key;            /* NULL: nodes without keys */
    const char *keys_dir;              /* where the page enrols nodes; NULL: it does not */
    bool find;                         /* and may look for them on the network */
} dil_cli_serving;

/* What the API calls a file's model: its name without folder and ".gguf". */
void dil_cli_model_name(const char *path, char *out, size_t cap);
/* "off", "auto" (also NULL), or how many; false: none of them. */
bool dil_cli_speculate(const char *text, int *out);
/* What a plan counts with: "D:CHANCE", or "off" and NULL, which leave both as they are. */
bool dil_cli_speculate_plan(const char *text, uint32_t *n_guesses, double *acceptance);

typedef struct dil_cli_served dil_cli_served;
/* Listens and loads; returns when it answers. */
dil_status dil_cli_serving_open(const dil_cli_serving *v, dil_cli_served **out, dil_err *err);
uint16_t dil_cli_serving_port(const dil_cli_served *m);
void dil_cli_serving_close(dil_cli_served *m);
/* Listens at once, loads, prints the address on standard output when ready, serves until Ctrl-C or SIGTERM. */
dil_status dil_cli_serving_run(const dil_cli_serving *v, dil_err *err);

#endif
