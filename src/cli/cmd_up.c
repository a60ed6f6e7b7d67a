/* dilemma up: from running nodes to an answering server in one command. */
#include "cli/cli.h"
#include "cli/model.h"
#include "cli/pairing.h"
#include "cli/pipeline.h"
#include "cli/serving.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char about[] =
    "Does every step from nodes to an answering server, and says each in one line: probe, profile, plan, quantize, serve.\n"
    "What is done already for the same inputs is kept in --dir. Start a node on each machine and enrol it first:\n\n"
    "  dilemma node --pair                                  there: it shows a code\n"
    "  dilemma pair 10.0.0.2:7100                           here, once for each: asks for that code\n"
    "  dilemma up model.gguf --max-ratio 0.1275             over the machines that are enrolled\n"
    "  dilemma up model.gguf --discover                     finds nodes started with --announce, pairs new ones on the way\n"
    "  dilemma up model.gguf --node a=10.0.0.1:7100 b=10.0.0.2:7100     over these";

typedef struct words {
    dil_cli_list node;
    const char *model, *dir, *keys, *key, *entry, *data, *format, *bind, *method;
    double max_ratio, max_kl, max_loss_pct, slack;
    int64_t port, context, sequences, tokens_in, tokens_out, threads;
    bool insecure, no_serve, discover;
    const char *speculate;
    int depth;           /* of what is served */
    uint32_t n_guesses;  /* that the plan counts with */
    double acceptance;
} words;

static dil_status find_peers(const words *w, dil_cli_target *peer, size_t *n, dil_keypair *key, dil_err *err)
{
    char dir[4096];
    dil_status s = dil_cli_key_folder(w->keys, dir, err);
    if (s == DIL_OK) s = dil_cli_own_key_or_new(w->key, w->keys, key, err);
    if (s == DIL_OK) s = dil_cli_find(key, dir, peer, DIL_CLI_NODES_MAX, n, err);
    if (s == DIL_OK && !*n) s = dil_fail(err, DIL_ENOTFOUND, "no node to go on with: start `dilemma node --pair --announce` on the machines, or name them with --node");
    return s;
}

static dil_status read_peers(const words *w, dil_cli_target *peer, size_t *n, dil_keypair *key, dil_err *err)
{
    if (w->discover) return find_peers(w, peer, n, key, err);
    dil_status s = dil_cli_targets(&w->node, w->keys, w->insecure, peer, DIL_CLI_NODES_MAX, n, err);
    if (s == DIL_OK && !w->insecure) s = dil_cli_own_key(w->key, w->keys, key, err);
    if (s != DIL_OK || w->node.n || dil_cli_quiet) return s;
    printf("%-9s %zu enrolled:", "nodes", *n);
    for (size_t i = 0; i < *n; i++) printf("%s %s at %s", i ? "," : "", peer[i].name, peer[i].address);
    putchar('\n');
    fflush(stdout);
    return s;
}

static dil_status serve(const words *w, dil_cli_pipeline *p, dil_err *err)
{
    char name[128], folder[4096];
    dil_cli_model_name(w->model, name, sizeof name);
    dil_status s = dil_cli_key_folder(w->keys, folder, err);
    if (s != DIL_OK) return s;
    dil_cli_serving v = {.relink_sec = DIL_CLI_RELINK_SEC, .keys_dir = folder, .find = w->discover, .model = p->student_path, .name = name, .bind = w->bind, .port = (uint16_t)w->port,
                         .speculate = w->depth, .plan = p->plan, .cluster = p->cluster, .profile = p->profile, .key = p->key};
    return dil_cli_serving_run(&v, err);
}

static dil_status bring_up(const words *w, dil_data_format format, dil_err *err)
{
    static dil_cli_target peer[DIL_CLI_NODES_MAX];
    dil_keypair key;
    size_t n_peers;
    dil_status s = dil_cli_model_there(w->model, err);
    if (s == DIL_OK) s = read_peers(w, peer, &n_peers, &key, err);
    if (s != DIL_OK) return s;
    dil_cli_pipeline p = {.model = w->model, .dir = w->dir, .data = w->data, .format = format, .key = w->insecure ? NULL : &key, .peers = peer,
                          .n_peers = (uint32_t)n_peers, .entry = w->entry ? w->entry : peer[0].name, .context = (uint32_t)w->context,
                          .sequences = (uint32_t)w->sequences, .damage_tokens = 1408, .imatrix_tokens = 8192, .probe_limit_sec = 2,
                          .n_threads = (int)w->threads, .method = w->method, .plan_options = dil_plan_options_default(), .say = stdout};
    bool known = false;
    for (uint32_t i = 0; i < p.n_peers; i++) known |= strcmp(peer[i].name, p.entry) == 0;
    if (!known) return dil_fail(err, DIL_ENOTFOUND, "--entry %s: no such node", p.entry);
    p.plan_options.max_ratio = w->max_ratio;
    p.plan_options.max_damage = w->max_kl;
    p.plan_options.max_loss_increase = w->max_loss_pct / 100;
    p.plan_options.slack = w->slack;
    p.plan_options.tokens_in = (uint32_t)w->tokens_in;
    p.plan_options.tokens_out = (uint32_t)w->tokens_out;
    p.plan_options.context = p.context;
    p.plan_options.n_guesses = w->n_guesses;
    p.plan_options.acceptance = w->acceptance;
    s = dil_cli_pipeline_open(&p, err);
    if (s == DIL_OK) s = dil_cli_pipeline_probe(&p, err);
    if (s == DIL_OK) s = dil_cli_pipeline_profile(&p, err);
    if (s == DIL_OK) s = dil_cli_pipeline_plan(&p, err);
    if (s == DIL_OK) s = dil_cli_pipeline_quantize(&p, err);
    if (s == DIL_OK && !w->no_serve) s = serve(w, &p, err);
    dil_cli_pipeline_close(&p);
    return s;
}

static int run(int argc, char **argv)
{
    dil_plan_options d = dil_plan_options_default();
    words w = {.bind = "127.0.0.1", .format = "auto", .max_ratio = INFINITY, .max_kl = INFINITY, .max_loss_pct = INFINITY, .slack = d.slack, .port = 8080,
               .context = 2048, .sequences = 1, .tokens_in = 128, .tokens_out = 128, .depth = DIL_SPECULATE_AUTO};
    const dil_cli_opt opts[] = {
        {.name = "--model", .letter = 'm', .kind = DIL_CLI_STR, .out = &w.model, .arg = "FILE", .help = "another way to name MODEL, a GGUF file"},
        {.name = "--dir", .kind = DIL_CLI_STR, .out = &w.dir, .arg = "DIR", .help = "where the steps' files are kept (MODEL.up, here)"},
        {.name = "--node", .kind = DIL_CLI_LIST, .out = &w.node, .arg = "NODE...", .help = "[NAME=]HOST:PORT[,KEY]; the address must work from every node\n(the machines that are enrolled)"},
        {.name = "--discover", .kind = DIL_CLI_FLAG, .out = &w.discover, .help = "those found on this network (multicast DNS; nodes with --announce); asks for the\ncodes of new ones"},
        {.name = "--keys", .kind = DIL_CLI_STR, .out = &w.keys, .arg = "DIR", .help = "a cluster's folder: coordinator.key and NAME.pub"},
        {.name = "--key", .kind = DIL_CLI_STR, .out = &w.key, .arg = "FILE", .help = "our key pair (KEYS/coordinator.key, or ~/.config/dilemma/key)"},
        {.name = "--insecure", .kind = DIL_CLI_FLAG, .out = &w.insecure, .help = "nodes without keys"},
        {.name = "--entry", .kind = DIL_CLI_STR, .out = &w.entry, .arg = "NAME", .help = "where requests arrive (the first node)"},
        {.name = "--data", .kind = DIL_CLI_STR, .out = &w.data, .arg = "FILE", .help = "text or questions like those to come (embedded)"},
        {.name = "--format", .kind = DIL_CLI_STR, .out = &w.format, .arg = "F", .help = "squad, text, jsonl (by content)"},
        {.name = "--method", .kind = DIL_CLI_STR, .out = &w.method, .arg = "M", .help = "of quantizing: rtn, gptq, layerwise (layerwise where memory and minutes allow)"},
        {.name = "--max-ratio", .kind = DIL_CLI_NUM, .out = &w.max_ratio, .arg = "R", .help = "size as a share of fp32, 0.1275", .min = 0.001, .max = 2},
        {.name = "--max-kl", .kind = DIL_CLI_NUM, .out = &w.max_kl, .arg = "X", .help = "KL divergence, nats a token", .min = 0, .max = 1e6},
        {.name = "--max-loss-increase", .kind = DIL_CLI_NUM, .out = &w.max_loss_pct, .arg = "PCT", .help = "loss, in percent", .min = 0, .max = 1e6},
        {.name = "--slack", .kind = DIL_CLI_NUM, .out = &w.slack, .arg = "S", .help = "without a quality budget: damage at most 1+S times the least (0.1)", .min = 0, .max = 1e6},
        {.name = "--context", .letter = 'c', .kind = DIL_CLI_INT, .out = &w.context, .arg = "N", .help = "tokens of a request and its answer (2048)", .min = 16, .max = 1 << 20},
        {.name = "--sequences", .kind = DIL_CLI_INT, .out = &w.sequences, .arg = "N", .help = "requests at once (1)", .min = 1, .max = 256},
        {.name = "--tokens-in", .kind = DIL_CLI_INT, .out = &w.tokens_in, .arg = "N", .help = "of a typical request (128)", .min = 1, .max = 1 << 20},
        {.name = "--tokens-out", .kind = DIL_CLI_INT, .out = &w.tokens_out, .arg = "N", .help = "of a typical answer (128)", .min = 1, .max = 1 << 20},
        {.name = "--speculate", .kind = DIL_CLI_STR, .out = &w.speculate, .arg = "S", .help = "off, N, auto: as `serve` (auto). D:CHANCE: the plan counts with passes of D guesses, each right with\nCHANCE, and the profile measures what they take (plan --speculate)"},
        {.name = "--port", .letter = 'p', .kind = DIL_CLI_INT, .out = &w.port, .arg = "P", .help = "HTTP port (8080); 0: any free one, printed", .min = 0, .max = 65535},
        {.name = "--bind", .kind = DIL_CLI_STR, .out = &w.bind, .arg = "ADDRESS", .help = "serve there (127.0.0.1: this machine alone)"},
        {.name = "--no-serve", .kind = DIL_CLI_FLAG, .out = &w.no_serve, .help = "end when the student is there"},
        {.name = "--threads", .letter = 't', .kind = DIL_CLI_INT, .out = &w.threads, .arg = "N", .help = "threads here (all)", .min = 1, .max = 256},
        DIL_CLI_END};
    dil_cli_list pos = {0};
    int status = dil_cli_parse(argc, argv, "MODEL [--node NODE...] [budget]", about, opts, &pos, 0, 1);
    if (status >= 0) return status;
    if (pos.n && w.model) return dil_cli_usage("up: MODEL once, not twice");
    if (pos.n) w.model = pos.item[0];
    if (!w.model) return dil_cli_usage("up: which model? A GGUF file is missing (dilemma pull fetches one)");
    if (w.discover && (w.node.n || w.insecure)) return dil_cli_usage("up: --discover goes without --node and --insecure");
    if (!dil_cli_speculate(w.speculate, &w.depth) && !dil_cli_speculate_plan(w.speculate, &w.n_guesses, &w.acceptance))
        return dil_cli_usage("up: --speculate is off, auto, a number, or guesses a pass and the chance that one is right, as 5:0.7, not '%.32s'", w.speculate);
    char dir[4096], name[128];
    dil_cli_model_name(w.model, name, sizeof name);
    snprintf(dir, sizeof dir, "%s.up", name);
    if (!w.dir) w.dir = dir;
    dil_data_format format;
    if (!dil_data_format_from_name(w.format, &format)) return dil_cli_usage("up: --format is squad, text, jsonl or auto, not '%s'", w.format);
    dil_err err;
    return bring_up(&w, format, &err) == DIL_OK ? 0 : dil_cli_fail("up", &err);
}

const dil_cli_cmd dil_cli_up = {"up", "all steps: nodes, probe, profile, plan, quantize, serve", run};
