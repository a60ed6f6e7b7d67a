/* dilemma serve: the OpenAI-compatible HTTP server, over this machine alone or over the nodes of a plan. */
#include "cli/cli.h"

#include <dilemma/serve.h>

#include <stdlib.h>
#include <string.h>

typedef struct loaded {
    dil_gguf *gguf;
    dil_arch arch;
    dil_tokenizer *tok;
    dil_runner *runner;
} loaded;

/* "SmolLM2-135M-Instruct.Q4_1" of "/models/SmolLM2-135M-Instruct.Q4_1.gguf". */
static void name_of_path(const char *path, char *out, size_t cap)
{
    const char *slash = strrchr(path, '/');
    snprintf(out, cap, "%s", slash ? slash + 1 : path);
    size_t n = strlen(out);
    if (n > 5 && strcmp(out + n - 5, ".gguf") == 0) out[n - 5] = 0;
}

static dil_status load_local(loaded *m, const char *path, const dil_stage_opts *o, uint32_t slots, dil_err *err)
{
    dil_status s = dil_gguf_open(path, &m->gguf, err);
    if (s == DIL_OK) s = dil_arch_read(m->gguf, &m->arch, err);
    if (s == DIL_OK) s = dil_tokenizer_new(m->gguf, &m->tok, err);
    if (s != DIL_OK) return s;
    dil_weights w = dil_gguf_weights(m->gguf);
    return dil_runner_local(&m->arch, &w, o, slots, &m->runner, err);
}

static void unload(loaded *m)
{
    dil_runner_close(m->runner);
    dil_tokenizer_free(m->tok);
    dil_gguf_close(m->gguf);
}

static dil_status read_api_key(const char *path, char *out, size_t cap, dil_err *err)
{
    const char *env = getenv("DILEMMA_API_KEY");
    if (!path) {
        snprintf(out, cap, "%s", env ? env : "");
        return env && strlen(env) >= cap ? dil_fail(err, DIL_ELIMIT, "DILEMMA_API_KEY has more than %zu bytes", cap - 1) : DIL_OK;
    }
    dil_buf b;
    dil_buf_init(&b, cap - 1);
    dil_status s = dil_file_read(path, &b, err);
    if (s == DIL_OK) {
        snprintf(out, cap, "%s", dil_buf_str(&b));
        out[strcspn(out, "\r\n")] = 0;
        if (!out[0]) s = dil_fail(err, DIL_EFORMAT, "%s: no key in the first line", path);
    }
    dil_buf_fini(&b);
    return s;
}

static void wait_for_the_end(void)
{
    while (!dil_cli_interrupted()) dil_sleep_ns(100000000);
}

static int run(int argc, char **argv)
{
    const char *model = NULL, *name = NULL, *bind = "127.0.0.1", *key_file = NULL, *device = NULL;
    int64_t port = 8080, threads = 0, ctx = 0, slots = 8;
    const dil_cli_opt opts[] = {
        {.name = "--model", .letter = 'm', .kind = DIL_CLI_STR, .out = &model, .arg = "FILE", .help = "the model, GGUF (required)"},
        {.name = "--port", .letter = 'p', .kind = DIL_CLI_INT, .out = &port, .arg = "P", .help = "HTTP port (8080); 0: any free one, printed", .min = 0, .max = 65535},
        {.name = "--bind", .kind = DIL_CLI_STR, .out = &bind, .arg = "ADDRESS", .help = "listen there (127.0.0.1: this machine alone)"},
        {.name = "--api-key-file", .kind = DIL_CLI_STR, .out = &key_file, .arg = "FILE", .help = "ask for the key in its first line (default: $DILEMMA_API_KEY, else none)"},
        {.name = "--name", .kind = DIL_CLI_STR, .out = &name, .arg = "NAME", .help = "what the API calls the model (the file's name)"},
        {.name = "--slots", .kind = DIL_CLI_INT, .out = &slots, .arg = "N", .help = "requests decoded at once (8)", .min = 1, .max = 256},
        {.name = "--context", .letter = 'c', .kind = DIL_CLI_INT, .out = &ctx, .arg = "N", .help = "tokens of one request and its answer (2048)", .min = 16, .max = 1 << 22},
        {.name = "--threads", .letter = 't', .kind = DIL_CLI_INT, .out = &threads, .arg = "N", .help = "threads (all)", .min = 1, .max = 256},
        {.name = "--device", .kind = DIL_CLI_STR, .out = &device, .arg = "D", .help = "where to compute (CPU)"},
        DIL_CLI_END};
    int status = dil_cli_parse(argc, argv, "--model F [--port P]",
                               "Answers the OpenAI HTTP API: /v1/models, /v1/completions, /v1/chat/completions (streaming and not), /health and\n"
                               "/metrics; see docs/SERVE.md.\n\n"
                               "  dilemma serve --model model.gguf\n"
                               "  curl localhost:8080/v1/chat/completions -d '{\"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}]}'",
                               opts, NULL, 0, 0);
    if (status >= 0) return status;
    if (!model) return dil_cli_usage("serve: --model FILE is missing");
    char model_name[128], key[256];
    name_of_path(name ? name : model, model_name, sizeof model_name);
    dil_err err;
    if (read_api_key(key_file, key, sizeof key, &err) != DIL_OK) return dil_cli_fail("serve", &err);
    dil_cli_progress(); /* Ctrl-C ends us in order */
    dil_serve_opts so = {.bind = bind, .port = (uint16_t)port, .model_name = model_name, .api_key = key[0] ? key : NULL};
    dil_server *srv;
    if (dil_server_open(&so, &srv, &err) != DIL_OK) return dil_cli_fail("serve", &err);
    if (!dil_cli_quiet) fprintf(stderr, "serve: loading %s\n", model_name);
    dil_server_set_status(srv, "loading the model");
    dil_stage_opts eo = {.device = device, .n_threads = (int)threads, .n_ctx = (uint32_t)ctx, .kv_type = DIL_TYPE_F16};
    loaded m = {0};
    dil_status s = load_local(&m, model, &eo, (uint32_t)slots, &err);
    if (s == DIL_OK) s = dil_server_attach(srv, m.runner, m.tok, &err);
    if (s == DIL_OK) {
        printf("http://%s:%u/v1\n", strcmp(bind, "0.0.0.0") == 0 ? "localhost" : bind, dil_server_port(srv));
        fflush(stdout);
        wait_for_the_end();
        if (!dil_cli_quiet) fputs("serve: ending\n", stderr);
    }
    dil_server_close(srv);
    unload(&m);
    return s == DIL_OK ? 0 : dil_cli_fail("serve", &err);
}

const dil_cli_cmd dil_cli_serve = {"serve", "answer the OpenAI HTTP API", run};
