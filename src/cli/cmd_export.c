/* dilemma export: a plan as the command lines of another engine. llama.cpp spreads layers over RPC servers in the order in which they
 * are given, in proportion to --tensor-split, after those that stay with the server itself; a plan that visits each node once is
 * exactly expressible so (an entry that holds later layers runs an rpc-server beside llama-server). */
#include "base/json.h"
#include "cli/cli.h"

#include <dilemma/cluster.h>
#include <dilemma/plan.h>

#include <stdlib.h>
#include <string.h>

typedef struct worker {
    const char *name;
    char host[256];
    uint32_t threads, layers; /* blocks, and the head where it has it */
} worker;

typedef struct deployment {
    worker *w; /* in the order of the stages, the entry left out */
    uint32_t n, n_offloaded;
    uint32_t context, entry_threads;
    bool embedding_moves;
} deployment;

static void host_of(const char *address, char out[256])
{
    const char *colon = strrchr(address, ':');
    snprintf(out, 256, "%.*s", (int)(colon ? (size_t)(colon - address) : strlen(address)), address);
}

static bool seen_before(const dil_plan *p, uint32_t stage)
{
    for (uint32_t i = 0; i < stage; i++)
        if (strcmp(p->stages[i].node, p->stages[stage].node) == 0) return true;
    return false;
}

/* The embedding always stays with llama.cpp's server, wherever the plan has it. */
static uint32_t layers_of(const dil_plan_stage *g)
{
    return g->last_layer - g->first_layer + 1 - (g->first_layer == 0);
}

static dil_status add_stage(deployment *d, const dil_plan *p, const dil_cluster *c, uint32_t stage, dil_err *err)
{
    const dil_plan_stage *g = &p->stages[stage];
    bool entry = strcmp(g->node, p->entry) == 0;
    uint32_t at = dil_cluster_find(c, g->node);
    if (at == DIL_NO_NODE) return dil_fail(err, DIL_ENOTFOUND, "the plan's node \"%.100s\" is not in the cluster", g->node);
    if (seen_before(p, stage))
        return dil_fail(err, DIL_EUNSUPPORTED, "node %.100s has two runs of layers; llama.cpp gives each device one: plan again without that, or use dilemma serve", g->node);
    if (entry && stage == 0) { /* what llama-server keeps by itself is always the first layers */
        d->entry_threads = c->nodes[at].threads;
        return DIL_OK;
    }
    if (g->first_layer == 0) d->embedding_moves = true;
    if (layers_of(g) == 0) return DIL_OK;
    worker *w = &d->w[d->n++];
    w->name = g->node;
    w->threads = c->nodes[at].threads;
    w->layers = layers_of(g);
    d->n_offloaded += w->layers;
    host_of(c->nodes[at].address, w->host);
    return w->host[0] ? DIL_OK : dil_fail(err, DIL_EFORMAT, "node %.100s has no address in the cluster file", g->node);
}

static dil_status deploy(const dil_plan *p, const dil_cluster *c, deployment *d, dil_err *err)
{
    d->w = calloc(p->n_stages ? p->n_stages : 1, sizeof *d->w);
    if (!d->w) return dil_fail(err, DIL_EMEMORY, "no memory for %u stages", p->n_stages);
    d->context = p->context * p->sequences;
    dil_status s = DIL_OK;
    for (uint32_t i = 0; i < p->n_stages && s == DIL_OK; i++) s = add_stage(d, p, c, i, err);
    return s;
}

/* One string for a shell: each word that is not plain stands in single quotes. */
static void word(dil_buf *b, const char *s)
{
    bool plain = *s && strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:,=+@%") == strlen(s);
    dil_buf_printf(b, b->len ? " %s" : "%s", plain ? "" : "'");
    for (const char *c = s; *c; c++) dil_buf_printf(b, !plain && *c == '\'' ? "'\\''" : "%c", *c);
    if (!plain) dil_buf_printf(b, "'");
}

static void list(const deployment *d, dil_buf *b, char what, unsigned port)
{
    for (uint32_t i = 0; i < d->n; i++) {
        if (i) dil_buf_printf(b, ",");
        if (what == 'r') dil_buf_printf(b, "%s:%u", d->w[i].host, port);
        else if (what == 'd') dil_buf_printf(b, "RPC%u", i);
        else dil_buf_printf(b, "%u", d->w[i].layers);
    }
}

static void pair(dil_buf *b, const char *option, const char *value)
{
    word(b, option);
    word(b, value);
}

static void server_line(const deployment *d, const char *model, unsigned rpc_port, unsigned port, dil_buf *b)
{
    char number[32];
    dil_buf text;
    dil_buf_init(&text, 1 << 20);
    word(b, "llama-server");
    pair(b, "-m", model);
    static const struct { char what; const char *option; } per_worker[] = {{'r', "--rpc"}, {'d', "--device"}, {'s', "--tensor-split"}};
    for (size_t i = 0; i < 3 && d->n; i++) {
        text.len = 0;
        list(d, &text, per_worker[i].what, rpc_port);
        pair(b, per_worker[i].option, dil_buf_str(&text));
    }
    snprintf(number, sizeof number, "%u", d->n_offloaded);
    pair(b, "--n-gpu-layers", number);
    snprintf(number, sizeof number, "%u", d->context);
    pair(b, "--ctx-size", number);
    if (d->entry_threads) {
        snprintf(number, sizeof number, "%u", d->entry_threads);
        pair(b, "--threads", number);
    }
    snprintf(number, sizeof number, "%u", port);
    pair(b, "--port", number);
    dil_buf_fini(&text);
}

static void worker_line(const worker *w, unsigned port, dil_buf *b)
{
    char number[32];
    word(b, "rpc-server");
    pair(b, "--host", w->host);
    snprintf(number, sizeof number, "%u", port);
    pair(b, "--port", number);
    if (w->threads) {
        snprintf(number, sizeof number, "%u", w->threads);
        pair(b, "--threads", number);
    }
    word(b, "--cache");
}

static const char no_lock[] = "rpc-server has no keys and no encryption: only on a network that nobody else is on";
static const char embedding_note[] = "llama.cpp keeps the embedding with llama-server, though the plan has it on another node";

static dil_status print(const deployment *d, const dil_plan *p, const char *model, unsigned rpc_port, unsigned port, bool json, dil_err *err)
{
    dil_buf line;
    dil_buf_init(&line, 1 << 20);
    json_t *workers = json_array();
    for (uint32_t i = 0; i < d->n; i++) {
        line.len = 0;
        worker_line(&d->w[i], rpc_port, &line);
        if (json) json_array_append_new(workers, json_pack("{s:s, s:i, s:s}", "node", d->w[i].name, "layers", (int)d->w[i].layers, "command", dil_buf_str(&line)));
        else printf("# on %s (%u layers)\n%s\n", d->w[i].name, d->w[i].layers, dil_buf_str(&line));
    }
    line.len = 0;
    server_line(d, model, rpc_port, port, &line);
    dil_status s = DIL_OK;
    if (json) {
        json_t *o = json_pack("{s:s, s:O, s:{s:s, s:s}}", "to", "llama.cpp", "workers", workers, "server", "node", p->entry, "command", dil_buf_str(&line));
        s = dil__json_save("-", o, err);
        json_decref(o);
    } else {
        printf("# on %s\n%s\n", p->entry, dil_buf_str(&line));
        if (d->n && !dil_cli_quiet) fprintf(stderr, "note: %s\n", no_lock);
        if (d->embedding_moves && !dil_cli_quiet) fprintf(stderr, "note: %s\n", embedding_note);
    }
    json_decref(workers);
    dil_buf_fini(&line);
    return s;
}

static int run(int argc, char **argv)
{
    const char *to = "llama.cpp", *plan_path = NULL, *cluster_path = NULL, *model = "student.gguf";
    int64_t rpc_port = 50052, port = 8080;
    bool json = false;
    const dil_cli_opt opts[] = {
        {.name = "--plan", .kind = DIL_CLI_STR, .out = &plan_path, .arg = "F", .help = "the plan (required)"},
        {.name = "--cluster", .kind = DIL_CLI_STR, .out = &cluster_path, .arg = "F", .help = "the nodes' addresses and threads (required)"},
        {.name = "--to", .kind = DIL_CLI_STR, .out = &to, .arg = "ENGINE", .help = "llama.cpp"},
        {.name = "--model", .letter = 'm', .kind = DIL_CLI_STR, .out = &model, .arg = "FILE", .help = "the quantized model, as the entry node names it (student.gguf)"},
        {.name = "--rpc-port", .kind = DIL_CLI_INT, .out = &rpc_port, .arg = "P", .help = "of every rpc-server (50052)", .min = 1, .max = 65535},
        {.name = "--port", .letter = 'p', .kind = DIL_CLI_INT, .out = &port, .arg = "P", .help = "of llama-server (8080)", .min = 1, .max = 65535},
        {.name = "--json", .kind = DIL_CLI_FLAG, .out = &json, .help = "as one JSON object"},
        DIL_CLI_END};
    int status = dil_cli_parse(argc, argv, "--plan F --cluster F [--to llama.cpp] [--model student.gguf]",
                               "Prints the commands that run the same plan on stock llama.cpp: an rpc-server on each node, llama-server on the entry.\n\n"
                               "  dilemma export --plan plan.json --cluster cluster.json --model student.gguf",
                               opts, NULL, 0, 0);
    if (status >= 0) return status;
    if (!plan_path || !cluster_path) return dil_cli_usage("export: --plan F and --cluster F are needed");
    if (strcmp(to, "llama.cpp") != 0) return dil_cli_usage("export: --to is llama.cpp, not '%s'", to);
    dil_err err;
    dil_plan *plan = NULL;
    dil_cluster *cluster = NULL;
    deployment d = {0};
    dil_status s = dil_plan_read(plan_path, &plan, &err);
    if (s == DIL_OK) s = dil_cluster_read(cluster_path, &cluster, &err);
    if (s == DIL_OK) s = deploy(plan, cluster, &d, &err);
    if (s == DIL_OK) s = print(&d, plan, model, (unsigned)rpc_port, (unsigned)port, json, &err);
    free(d.w);
    dil_cluster_free(cluster);
    dil_plan_free(plan);
    return s == DIL_OK ? 0 : dil_cli_fail("export", &err);
}

const dil_cli_cmd dil_cli_export = {"export", "a plan as the command lines of stock llama.cpp", run};
