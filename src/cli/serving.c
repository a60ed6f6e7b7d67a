/* The server first, so that /health can tell what is going on while weights travel. */
#include "cli/serving.h"

#include "cli/cli.h"

#include "net/draft.h"

#include <stdlib.h>
#include <string.h>

bool dil_cli_speculate(const char *text, int *out)
{
    char *end;
    long n = 0;
    bool is_auto = !text || strcmp(text, "auto") == 0, off = text && strcmp(text, "off") == 0;
    if (!is_auto && !off) {
        n = strtol(text, &end, 10);
        if (end == text || *end || n < 0 || n > DIL__DRAFT_MAX) return false;
    }
    *out = is_auto ? DIL_SPECULATE_AUTO : (int)n;
    return true;
}

typedef struct loaded {
    dil_gguf *gguf;
    dil_arch arch;
    dil_tokenizer *tok;
    dil_runner *runner;
    dil_server *server;
} loaded;

static dil_status open_runner(loaded *m, const dil_cli_serving *v, dil_err *err)
{
    if (v->plan) {
        dil_ring_opts o = {.key = v->key, .n_seq = v->n_seq, .n_ctx = v->n_ctx, .kv_type = DIL_TYPE_F16, .fixed_shapes = v->deterministic};
        return dil_runner_ring(v->plan, v->cluster, m->gguf, &m->arch, &o, &m->runner, err);
    }
    dil_weights w = dil_gguf_weights(m->gguf);
    dil_stage_opts o = {.device = v->device, .n_threads = v->n_threads, .n_ctx = v->n_ctx, .kv_type = DIL_TYPE_F16, .fixed_shapes = v->deterministic,
                        .last_layer = m->arch.n_blocks + 1};
    return dil_runner_local(&m->arch, &w, &o, v->n_seq ? v->n_seq : 8, &m->runner, err);
}

/* A ring tells its state itself from here on, so the server gets it before it is ready. */
static dil_status load(loaded *m, const dil_cli_serving *v, dil_err *err)
{
    dil_server_set_status(m->server, "loading the model");
    dil_status s = dil_gguf_open(v->model, &m->gguf, err);
    if (s == DIL_OK) s = dil_arch_read(m->gguf, &m->arch, err);
    if (s == DIL_OK) s = dil_tokenizer_new(m->gguf, &m->tok, err);
    if (s == DIL_OK) s = open_runner(m, v, err);
    if (s == DIL_OK) dil_runner_speculate(m->runner, v->speculate);
    if (s == DIL_OK) s = dil_server_attach(m->server, m->runner, m->tok, err);
    if (s == DIL_OK && v->plan) s = dil_ring_wait_ready(m->runner, 3600, dil_cli_progress(), err);
    dil_cli_progress_done();
    return s;
}

dil_status dil_cli_serving_run(const dil_cli_serving *v, dil_err *err)
{
    loaded m = {0};
    dil_cli_progress(); /* Ctrl-C ends us in order */
    dil_serve_opts so = {.bind = v->bind, .port = v->port, .model_name = v->name, .api_key = v->api_key};
    dil_status s = dil_server_open(&so, &m.server, err);
    if (s != DIL_OK) return s;
    if (!dil_cli_quiet) fprintf(stderr, "serve: loading %s; http://%s:%u/health tells how far\n", v->name, v->bind, dil_server_port(m.server));
    s = load(&m, v, err);
    if (s == DIL_OK) {
        bool v6 = strchr(v->bind, ':') != NULL;
        printf("http://%s%s%s:%u/v1\n", v6 ? "[" : "", strcmp(v->bind, "0.0.0.0") == 0 ? "localhost" : v->bind, v6 ? "]" : "", dil_server_port(m.server));
        fflush(stdout);
        while (!dil_cli_interrupted()) dil_sleep_ns(100000000);
        if (!dil_cli_quiet) fputs("serve: ending\n", stderr);
    }
    dil_server_close(m.server);
    dil_runner_close(m.runner);
    dil_tokenizer_free(m.tok);
    dil_gguf_close(m.gguf);
    return s == DIL_ECANCELED && dil_cli_interrupted() ? DIL_OK : s;
}
