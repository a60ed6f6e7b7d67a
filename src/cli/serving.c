/* The server first, so that /health can tell what is going on while weights travel. */
#include "cli/serving.h"

#include "cli/cli.h"

#include "net/draft.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

void dil_cli_model_name(const char *path, char *out, size_t cap)
{
    const char *slash = strrchr(path, '/');
    snprintf(out, cap, "%s", slash ? slash + 1 : path);
    size_t n = strlen(out);
    if (n > 5 && strcmp(out + n - 5, ".gguf") == 0) out[n - 5] = 0;
}

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

struct dil_cli_served {
    dil_gguf *gguf;
    dil_arch arch;
    dil_tokenizer *tok;
    dil_grammar_vocab *words;
    dil_runner *runner;
    dil_server *server;
    dil_buf keys;              /* text that key[] points into */
    const char *key[64];
    size_t n_keys;
};
typedef dil_cli_served loaded;

/* A key a line; empty lines and lines that begin with # do not count. */
static dil_status read_api_keys(const char *path, loaded *m, dil_err *err)
{
    const char *env = getenv("DILEMMA_API_KEY");
    if (!path) {
        if (env && env[0]) m->key[m->n_keys++] = env;
        return DIL_OK;
    }
    dil_status s = dil_file_read(path, &m->keys, err);
    if (s != DIL_OK) return s;
    dil_buf_str(&m->keys);
    char *rest = NULL;
    for (char *p = strtok_r((char *)m->keys.data, "\r\n", &rest); p; p = strtok_r(NULL, "\r\n", &rest)) {
        if (*p == '#') continue;
        if (m->n_keys == sizeof m->key / sizeof m->key[0]) return dil_fail(err, DIL_ELIMIT, "%s: more than %zu keys", path, m->n_keys);
        m->key[m->n_keys++] = p;
    }
    return m->n_keys ? DIL_OK : dil_fail(err, DIL_EFORMAT, "%s: no key in it, one a line is wanted", path);
}

/* What Ollama's clients show. The digest is of the file's header, which names every tensor: it need not read the file. */
static void tell_model(const loaded *m)
{
    uint64_t of_type[DIL_TYPE_LIMIT] = {0}, n_bytes, n_params;
    size_t most = 0, len;
    for (size_t i = 0; i < dil_gguf_n_tensors(m->gguf); i++) {
        const dil_tensor *t = dil_gguf_tensor_at(m->gguf, i);
        of_type[t->type] += dil_tensor_elems(t);
    }
    for (size_t i = 0; i < DIL_TYPE_LIMIT; i++) most = of_type[i] > of_type[most] ? i : most;
    dil_gguf_ratio_to_fp32(m->gguf, &n_bytes, &n_params);
    const void *header = dil_gguf_header(m->gguf, &len);
    dil_hash h = dil_hash_of(header, len);
    char hex[2 * DIL_HASH_BYTES + 1];
    dil_hash_hex(&h, hex);
    dil_serve_model told = {.family = m->arch.name, .quantization = dil_type_get((dil_type)most)->name, .digest = hex, .n_bytes = n_bytes,
                            .n_params = n_params, .n_ctx = m->arch.n_ctx_train};
    dil_server_set_model(m->server, &told);
}

static dil_status open_runner(loaded *m, const dil_cli_serving *v, dil_err *err)
{
    dil_weights w = dil_gguf_weights(m->gguf);
    if (v->plan && dil_plan_uses_rpc(v->plan, v->cluster)) {
        dil_stage_opts o = {.n_threads = v->n_threads, .n_ctx = v->n_ctx, .n_seq = v->n_seq, .kv_type = DIL_TYPE_F16, .fixed_shapes = v->deterministic};
        return dil_runner_rpc(v->plan, v->cluster, &w, &m->arch, &o, &m->runner, err);
    }
    if (v->plan) {
        dil_status s = dil_grammar_vocab_new(m->tok, &m->words, err);
        if (s != DIL_OK) return s;
        dil_ring_opts o = {.key = v->key, .n_seq = v->n_seq, .n_ctx = v->n_ctx, .kv_type = DIL_TYPE_F16, .wire = v->wire, .fixed_shapes = v->deterministic,
                           .lost_sec = v->detect_sec, .patience_sec = v->patience_sec, .horizon_sec = v->horizon_sec, .plan_path = v->plan_path, .words = m->words};
        return dil_runner_ring(v->plan, v->cluster, m->gguf, &m->arch, &o, &m->runner, err);
    }
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
    if (s == DIL_OK) tell_model(m);
    if (s == DIL_OK) s = open_runner(m, v, err);
    if (s == DIL_OK) dil_runner_speculate(m->runner, v->speculate);
    if (s == DIL_OK) s = dil_server_attach(m->server, m->runner, m->tok, err);
    if (s == DIL_OK && v->plan) s = dil_ring_wait_ready(m->runner, 3600, dil_cli_progress(), err);
    dil_cli_progress_done();
    return s;
}

dil_status dil_cli_serving_open(const dil_cli_serving *v, loaded **out, dil_err *err)
{
    loaded *m = calloc(1, sizeof *m);
    if (!m) return dil_fail(err, DIL_EMEMORY, "no memory for a server");
    dil_buf_init(&m->keys, 64u << 10);
    dil_status s = DIL_OK;
    if (v->api_key) m->key[m->n_keys++] = v->api_key;
    else s = read_api_keys(v->api_key_file, m, err);
    char retry_path[4096];
    snprintf(retry_path, sizeof retry_path, "%.4000s/requests.journal", v->state_dir ? v->state_dir : "");
    dil_serve_opts so = {.bind = v->bind, .port = v->port, .model_name = v->name, .api_keys = m->key, .n_api_keys = m->n_keys,
                         .tls_cert_file = v->tls_cert_file, .tls_key_file = v->tls_key_file, .retry_path = v->state_dir ? retry_path : NULL};
    if (s == DIL_OK && v->state_dir) s = dil_mkdirs(v->state_dir, err);
    if (s == DIL_OK) s = dil_server_open(&so, &m->server, err);
    if (m->keys.len) sodium_memzero(m->keys.data, m->keys.len);
    dil_buf_fini(&m->keys);
    if (s == DIL_OK && v->announce && !dil_cli_quiet)
        fprintf(stderr, "serve: loading %s; %s://%s:%u/health tells how far\n", v->name, v->tls_cert_file ? "https" : "http", v->bind, dil_server_port(m->server));
    if (s == DIL_OK) dil_server_set_plan(m->server, v->plan, v->cluster, v->profile);
    if (s == DIL_OK && v->key && v->keys_dir) s = dil_server_set_enrol(m->server, v->keys_dir, v->key, v->find, err);
    if (s == DIL_OK) s = load(m, v, err);
    if (s == DIL_OK) *out = m;
    else dil_cli_serving_close(m);
    return s;
}

uint16_t dil_cli_serving_port(const loaded *m)
{
    return dil_server_port(m->server);
}

void dil_cli_serving_close(loaded *m)
{
    if (!m) return;
    dil_server_close(m->server);
    dil_runner_close(m->runner);
    dil_grammar_vocab_free(m->words);
    dil_tokenizer_free(m->tok);
    dil_gguf_close(m->gguf);
    free(m);
}

dil_status dil_cli_serving_run(const dil_cli_serving *v, dil_err *err)
{
    loaded *m = NULL;
    dil_cli_serving with = *v;
    dil_cli_progress(); /* Ctrl-C ends us in order */
    with.announce = true;
    dil_status s = dil_cli_serving_open(&with, &m, err);
    if (s == DIL_OK) {
        char address[256];
        bool v6 = strchr(v->bind, ':') != NULL;
        snprintf(address, sizeof address, "%s://%s%s%s:%u", v->tls_cert_file ? "https" : "http", v6 ? "[" : "", strcmp(v->bind, "0.0.0.0") == 0 ? "localhost" : v->bind, v6 ? "]" : "",
                 dil_cli_serving_port(m));
        printf("%s/v1\n", address);
        fflush(stdout);
        if (!dil_cli_quiet) fprintf(stderr, "serve: ready. The page: %s/ To talk: dilemma chat --url %s (Ctrl-C here ends the server)\n", address, address);
        while (!dil_cli_interrupted()) dil_sleep_ns(100000000);
        if (!dil_cli_quiet) fputs("serve: ending\n", stderr);
    }
    dil_cli_serving_close(m);
    return s == DIL_ECANCELED && dil_cli_interrupted() ? DIL_OK : s;
}
