/* A ring tells its state itself from the moment when it is opened, so the server gets it before it is ready. */
#include "cli/served.h"

#include "cli/cli.h"
#include "cli/model.h"

#include <stdlib.h>
#include <string.h>

/* What Ollama's clients show. The digest is of the file's header, which names every tensor: it need not read the file. */
static void tell_model(const dil_cli_one *m)
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
    dil_served_set_model(m->served, &told);
}

static dil_status open_runner(dil_cli_one *m, const dil_cli_serving *v, const dil_cli_choice *what, uint64_t run, uint64_t number, dil_err *err)
{
    dil_weights w = dil_gguf_weights(m->gguf);
    if (what->plan && dil_plan_uses_rpc(what->plan, what->cluster)) {
        dil_stage_opts o = {.n_threads = v->n_threads, .n_ctx = v->n_ctx, .n_seq = v->n_seq, .kv_type = DIL_TYPE_F16, .fixed_shapes = v->deterministic};
        return dil_runner_rpc(what->plan, what->cluster, &w, &m->arch, &o, &m->runner, err);
    }
    if (what->plan) {
        m->over_nodes = true;
        dil_status s = dil_grammar_vocab_new(m->tok, &m->words, err);
        if (s != DIL_OK) return s;
        dil_ring_opts o = {.key = v->key, .n_seq = v->n_seq, .n_ctx = v->n_ctx, .kv_type = DIL_TYPE_F16, .wire = v->wire, .fixed_shapes = v->deterministic,
                           .lost_sec = v->detect_sec, .patience_sec = v->patience_sec, .relink_sec = v->relink_sec,
                           .horizon_sec = v->horizon_sec, .plan_path = what->plan_path,
                           .words = m->words, .run = run, .model = number};
        return dil_runner_ring(what->plan, what->cluster, m->gguf, &m->arch, &o, &m->runner, err);
    }
    dil_stage_opts o = {.device = v->device, .n_threads = v->n_threads, .n_ctx = v->n_ctx, .kv_type = DIL_TYPE_F16, .fixed_shapes = v->deterministic,
                        .last_layer = m->arch.n_blocks + 1};
    return dil_runner_local(&m->arch, &w, &o, v->n_seq ? v->n_seq : 8, &m->runner, err);
}

dil_status dil_cli_one_open(dil_server *server, const dil_cli_serving *how, const dil_cli_choice *what, uint64_t run, uint64_t number, dil_cli_one **out,
                            dil_err *err)
{
    dil_cli_one *m = calloc(1, sizeof *m);
    if (!m) return dil_fail(err, DIL_EMEMORY, "no memory for a model");
    dil_cli_model_name(what->name ? what->name : what->model, m->name, sizeof m->name);
    dil_status s = dil_server_add(server, m->name, &m->served, err);
    if (s == DIL_OK) {
        dil_served_set_status(m->served, "loading the model");
        dil_served_set_plan(m->served, what->plan, what->cluster, what->profile);
        s = dil_cli_model_there(what->model, err);
    }
    if (s == DIL_OK) s = dil_gguf_open(what->model, &m->gguf, err);
    if (s == DIL_OK) s = dil_arch_read(m->gguf, &m->arch, err);
    if (s == DIL_OK) s = dil_tokenizer_new(m->gguf, &m->tok, err);
    if (s == DIL_OK) tell_model(m);
    if (s == DIL_OK) s = open_runner(m, how, what, run, number, err);
    if (s == DIL_OK) dil_runner_speculate(m->runner, how->speculate);
    if (s == DIL_OK) s = dil_served_attach(m->served, m->runner, m->tok, err);
    if (s == DIL_OK) *out = m;
    else dil_cli_one_close(m, 0);
    return s;
}

void dil_cli_one_own(dil_cli_one *m, dil_plan *plan, dil_cluster *cluster)
{
    m->plan = plan;
    m->cluster = cluster;
}

dil_status dil_cli_one_wait(dil_cli_one *m, const dil_progress *p, dil_err *err)
{
    return m->over_nodes ? dil_ring_wait_ready(m->runner, 3600, p, err) : DIL_OK;
}

void dil_cli_one_close(dil_cli_one *m, double grace_sec)
{
    if (!m) return;
    if (m->served) dil_server_remove(m->served, grace_sec);
    dil_runner_close(m->runner);
    dil_served_free(m->served);
    dil_grammar_vocab_free(m->words);
    dil_tokenizer_free(m->tok);
    dil_gguf_close(m->gguf);
    dil_plan_free(m->plan);
    dil_cluster_free(m->cluster);
    free(m);
}
