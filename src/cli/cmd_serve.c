/* dilemma serve: the OpenAI-compatible HTTP server, over this machine alone or over the nodes of a plan. */
#include "cli/cli.h"
#include "cli/serving.h"
#include "cli/target.h"
#include "base/wire.h"

#include <stdlib.h>
#include <string.h>

static dil_status read_node_key(const char *given, dil_keypair *out, dil_err *err)
{
    char path[4096];
    dil_status s = given ? DIL_OK : dil_keys_path("key", path, sizeof path, err);
    if (s == DIL_OK) s = dil_keypair_read(given ? given : path, out, err);
    if (s == DIL_ENOTFOUND && !given) return dil_fail(err, s, "%s: no key pair yet; make one with: dilemma keys new, or name one with --key", path);
    return s;
}

/* The plan that ran last, where it is one for the same file. Takes `given` over. */
static dil_plan *newer_plan(dil_plan *given, const char *path)
{
    dil_plan *kept;
    dil_err err;
    if (!dil_file_exists(path)) return given;
    bool same = dil_plan_read(path, &kept, &err) == DIL_OK;
    if (!same) {
        dil_log(DIL_LOG_WARN, "serve", "%s", err.text);
        return given;
    }
    same = kept->n_layers == given->n_layers && strcmp(kept->model_hash, given->model_hash) == 0 && strcmp(kept->entry, given->entry) == 0;
    for (uint32_t l = 0; l < given->n_layers && same; l++) same = strcmp(kept->layers[l].level, given->layers[l].level) == 0;
    if (same) dil_log(DIL_LOG_INFO, "serve", "going on with the plan that ran last, %s", path);
    dil_plan_free(same ? given : kept);
    return same ? kept : given;
}

typedef struct chosen { /* the models, in the order of the command line */
    dil_cli_choice what[DIL_SERVE_MODELS_MAX];
    dil_plan *plan[DIL_SERVE_MODELS_MAX];
    char kept[DIL_SERVE_MODELS_MAX][4096];
    dil_cluster *cluster;
} chosen;

/* The first keeps its plan in plan.json, the others in plan-2.json and so on. */
static dil_status choose(chosen *c, size_t i, const char *model, const char *name, const char *plan, const char *state_dir, dil_err *err)
{
    c->what[i] = (dil_cli_choice){.model = model, .name = name, .cluster = c->cluster};
    dil_status s = plan ? dil_plan_read(plan, &c->plan[i], err) : DIL_OK;
    if (s != DIL_OK || !plan) return s;
    if (state_dir) {
        if (i == 0) snprintf(c->kept[i], sizeof c->kept[i], "%.4000s/plan.json", state_dir);
        else snprintf(c->kept[i], sizeof c->kept[i], "%.4000s/plan-%zu.json", state_dir, i + 1);
        c->what[i].plan_path = c->kept[i];
        c->plan[i] = newer_plan(c->plan[i], c->kept[i]);
    }
    c->what[i].plan = c->plan[i];
    return DIL_OK;
}

static int run(int argc, char **argv)
{
    dil_cli_serving v = {.bind = "127.0.0.1", .relink_sec = DIL_CLI_RELINK_SEC};
    const char *cluster = NULL, *profile = NULL, *key_file = NULL, *speculate = NULL, *wire = "f32";
    dil_cli_list models = {0}, plans = {0}, names = {0};
    int64_t port = 8080, threads = 0, ctx = 0, slots = 0;
    bool insecure = false;
    const dil_cli_opt opts[] = {
        {.name = "--model", .letter = 'm', .kind = DIL_CLI_MANY, .out = &models, .arg = "FILE", .help = "another way to name MODEL, a GGUF file; with --plan the one that the plan made.\nSeveral, each with its --plan: all are served, requests choose by name"},
        {.name = "--plan", .kind = DIL_CLI_MANY, .out = &plans, .arg = "FILE", .help = "over the nodes of this plan (default: in this process)"},
        {.name = "--cluster", .kind = DIL_CLI_STR, .out = &cluster, .arg = "FILE", .help = "the nodes' addresses and keys; with --plan"},
        {.name = "--profile", .kind = DIL_CLI_STR, .out = &profile, .arg = "FILE", .help = "the plan's measurements, for the web page's \"what if\"; with --plan"},
        {.name = "--key", .kind = DIL_CLI_STR, .out = &key_file, .arg = "FILE", .help = "this coordinator's key pair (dilemma keys path)"},
        {.name = "--insecure", .kind = DIL_CLI_FLAG, .out = &insecure, .help = "nodes without keys and encryption"},
        {.name = "--deterministic", .kind = DIL_CLI_FLAG, .out = &v.deterministic, .help = "compute in fixed shapes: the same text however requests meet"},
        {.name = "--wire", .kind = DIL_CLI_STR, .out = &wire, .arg = "f32|f16|bf16", .help = "how hidden states travel between nodes (f32: as computed)"},
        {.name = "--speculate", .kind = DIL_CLI_STR, .out = &speculate, .arg = "off|N|auto", .help = "guess up to N tokens ahead from the text so far, check them in one pass; auto: as many as pay (auto)"},
        {.name = "--detect-sec", .kind = DIL_CLI_NUM, .out = &v.detect_sec, .arg = "S", .help = "a node or link is lost after so long without a word (2)", .min = 0.2, .max = 600},
        {.name = "--patience-sec", .kind = DIL_CLI_NUM, .out = &v.patience_sec, .arg = "S", .help = "requests wait so long for nodes that can take over (30)", .min = 1, .max = 86400},
        {.name = "--horizon", .kind = DIL_CLI_NUM, .out = &v.horizon_sec, .arg = "S", .help = "a move to a node that is back must pay within it (3600)", .min = 0.001, .max = 1e9},
        {.name = "--relink-sec", .kind = DIL_CLI_NUM, .out = &v.relink_sec, .arg = "S", .help = "measure a link again every S seconds, in turn, and plan around one that became slow when that\npays (20); 0: never", .min = 0, .max = 1e6},
        {.name = "--state", .kind = DIL_CLI_STR, .out = &v.state_dir, .arg = "DIR", .help = "keep there what a restart goes on from: answers for retries with an Idempotency-Key,\nand the plan when another one was made on the way"},
        {.name = "--port", .letter = 'p', .kind = DIL_CLI_INT, .out = &port, .arg = "P", .help = "HTTP port (8080); 0: any free one, printed", .min = 0, .max = 65535},
        {.name = "--bind", .kind = DIL_CLI_STR, .out = &v.bind, .arg = "ADDRESS", .help = "listen there (127.0.0.1: this machine alone)"},
        {.name = "--api-key-file", .kind = DIL_CLI_STR, .out = &v.api_key_file, .arg = "FILE", .help = "ask for one of its keys, one a line (default: $DILEMMA_API_KEY, else none)"},
        {.name = "--tls-cert", .kind = DIL_CLI_STR, .out = &v.tls_cert_file, .arg = "FILE", .help = "HTTPS with this certificate (chain), PEM"},
        {.name = "--tls-key", .kind = DIL_CLI_STR, .out = &v.tls_key_file, .arg = "FILE", .help = "its private key, PEM"},
        {.name = "--name", .kind = DIL_CLI_MANY, .out = &names, .arg = "NAME", .help = "what the API calls the model (the file's name)"},
        {.name = "--slots", .kind = DIL_CLI_INT, .out = &slots, .arg = "N", .help = "requests decoded at once (8, with --plan the plan's sequences)", .min = 1, .max = 256},
        {.name = "--context", .letter = 'c', .kind = DIL_CLI_INT, .out = &ctx, .arg = "N", .help = "tokens of one request and its answer (2048; the plan's)", .min = 16, .max = 1 << 22},
        {.name = "--threads", .letter = 't', .kind = DIL_CLI_INT, .out = &threads, .arg = "N", .help = "threads, without a plan (all)", .min = 1, .max = 256},
        {.name = "--device", .kind = DIL_CLI_STR, .out = &v.device, .arg = "D", .help = "where to compute, without a plan (CPU)"},
        DIL_CLI_END};
    dil_cli_list pos = {0};
    int status = dil_cli_parse(argc, argv, "MODEL [--plan F --cluster F] [--port P]",
                               "Answers the HTTP APIs of OpenAI (/v1/models, /v1/completions, /v1/chat/completions) and Ollama (/api/chat, /api/generate,\n"
                               "/api/tags), /health and /metrics; see docs/SERVE.md.\n\n"
                               "  dilemma serve model.gguf\n"
                               "  dilemma serve student.gguf --plan plan.json --cluster cluster.json --key coordinator.key\n"
                               "  dilemma serve --model a.gguf --plan plan-0.json --model b.gguf --plan plan-1.json --cluster cluster.json\n"
                               "  curl localhost:8080/v1/chat/completions -d '{\"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}]}'",
                               opts, &pos, 0, 1);
    if (status >= 0) return status;
    if (pos.n && models.n) return dil_cli_usage("serve: MODEL once, not twice");
    if (pos.n) models = pos;
    if (!models.n) return dil_cli_usage("serve: which model? A GGUF file is missing");
    if (models.n > DIL_SERVE_MODELS_MAX) return dil_cli_usage("serve: %zu models, at most %d", models.n, DIL_SERVE_MODELS_MAX);
    if (plans.n && plans.n != models.n) return dil_cli_usage("serve: %zu models and %zu plans; each model has its own", models.n, plans.n);
    if (names.n && names.n != models.n) return dil_cli_usage("serve: %zu models and %zu names; name all or none", models.n, names.n);
    if (!v.tls_cert_file != !v.tls_key_file) return dil_cli_usage("serve: --tls-cert and --tls-key go together");
    if (profile && !plans.n) return dil_cli_usage("serve: --profile goes with --plan");
    if (!plans.n != !cluster) return dil_cli_usage("serve: --plan and --cluster go together");
    if (!dil_cli_speculate(speculate, &v.speculate)) return dil_cli_usage("serve: --speculate is off, auto, or a number, not '%s'", speculate);
    if (!dil__wire_from_name(wire, &v.wire)) return dil_cli_usage("serve: --wire is f32, f16 or bf16, not '%s'", wire);
    v.port = (uint16_t)port;
    v.n_threads = (int)threads;
    v.n_ctx = (uint32_t)ctx;
    v.n_seq = (uint32_t)slots;
    dil_err err;
    dil_keypair key;
    char keys_dir[4096];
    if (plans.n && !insecure) {
        if (read_node_key(key_file, &key, &err) != DIL_OK) return dil_cli_fail("serve", &err);
        v.key = &key;
        if (!key_file && dil_cli_key_folder(NULL, keys_dir, &err) == DIL_OK) v.keys_dir = keys_dir; /* those that dilemma pair uses */
    }
    chosen c = {0};
    dil_profile *prof = NULL;
    dil_status s = cluster ? dil_cluster_read(cluster, &c.cluster, &err) : DIL_OK;
    if (profile && s == DIL_OK) s = dil_profile_read(profile, &prof, &err);
    for (size_t i = 0; i < models.n && s == DIL_OK; i++)
        s = choose(&c, i, models.item[i], names.n ? names.item[i] : NULL, plans.n ? plans.item[i] : NULL, v.state_dir, &err);
    v.model = c.what[0].model;
    v.name = c.what[0].name;
    v.plan = c.what[0].plan;
    v.plan_path = c.what[0].plan_path;
    v.cluster = c.cluster;
    v.profile = prof;
    v.more = c.what + 1;
    v.n_more = (uint32_t)models.n - 1;
    if (s == DIL_OK) s = dil_cli_serving_run(&v, &err);
    for (size_t i = 0; i < models.n; i++) dil_plan_free(c.plan[i]);
    dil_cluster_free(c.cluster);
    dil_profile_free(prof);
    return s == DIL_OK ? 0 : dil_cli_fail("serve", &err);
}

const dil_cli_cmd dil_cli_serve = {"serve", "answer the HTTP APIs of OpenAI and Ollama", run};
