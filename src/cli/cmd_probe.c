/* dilemma probe: nodes in, cluster.json out. */
#include "cli/cli.h"
#include "cli/target.h"

#include <dilemma/probe.h>

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const char about[] =
    "Asks each node what it offers, has every node measure its link to every other (latency, bandwidth), and writes\n"
    "cluster.json. A node is [NAME=]HOST:PORT[,KEY]; KEY is its public key or a .pub file and may be left out when\n"
    "--keys names a cluster's folder (dilemma keys cluster) with NAME.pub in it. Nodes without a name are a, b, c, ...\n"
    "Without --node: the machines that are enrolled (dilemma pair).\n\n"
    "  dilemma probe --keys keys --node a=10.0.0.1:7100 b=10.0.0.2:7100 -o cluster.json";

static void print_nodes(const dil_cluster *c)
{
    printf("%-10s %-22s %10s %8s %9s  %s\n", "node", "address", "memory", "threads", "throttle", "device");
    for (uint32_t i = 0; i < c->n_nodes; i++) {
        const dil_cluster_node *n = &c->nodes[i];
        char mem[32];
        printf("%-10s %-22s %10s %8u %9.2f  %s %s\n", n->name, n->address, dil_format_bytes(n->memory_bytes, mem), n->threads, n->throttle, n->device, n->cpu);
    }
    if (!c->nodes[0].n_kernels) return;
    printf("\n%-10s", "us/column");
    for (uint32_t k = 0; k < c->nodes[0].n_kernels; k++) printf(" %8s", c->nodes[0].kernels[k].type);
    printf("   (%u x %u, one column)\n", c->nodes[0].kernels[0].rows, c->nodes[0].kernels[0].cols);
    for (uint32_t i = 0; i < c->n_nodes; i++) {
        printf("%-10s", c->nodes[i].name);
        for (uint32_t k = 0; k < c->nodes[i].n_kernels; k++) printf(" %8.0f", c->nodes[i].kernels[k].decode_sec * 1e6);
        putchar('\n');
    }
}

static void print_links(const dil_cluster *c)
{
    if (c->n_links) printf("\n%-10s %-10s %12s %14s\n", "from", "to", "RTT ms", "Mbit/s");
    for (uint32_t i = 0; i < c->n_links; i++) {
        const dil_cluster_link *l = &c->links[i];
        printf("%-10s %-10s %12.3f %14.1f\n", c->nodes[l->from].name, c->nodes[l->to].name, l->rtt_sec * 1e3, l->bytes_per_sec * 8e-6);
    }
}

static int probe(const dil_cli_list *words, const char *dir, const char *key_file, bool insecure, dil_probe_opts *o, const char *entry, const char *out, bool json)
{
    dil_err err;
    dil_keypair me;
    enum { NODES_MAX = 256 };
    size_t n = 0;
    dil_cli_target *t = calloc(NODES_MAX, sizeof *t);
    dil_probe_node *nodes = calloc(NODES_MAX, sizeof *nodes);
    dil_cluster *c = NULL;
    dil_status s = t && nodes ? DIL_OK : dil_fail(&err, DIL_EMEMORY, "no memory");
    if (s == DIL_OK) s = dil_cli_targets(words, dir, insecure, t, NODES_MAX, &n, &err);
    for (size_t i = 0; i < n && s == DIL_OK; i++) nodes[i] = (dil_probe_node){t[i].name, t[i].address, t[i].key};
    if (s == DIL_OK && !insecure) s = dil_cli_own_key(key_file, dir, &me, &err);
    o->key = insecure ? NULL : &me;
    if (s == DIL_OK) s = dil_probe(nodes, (uint32_t)n, o, &c, &err);
    dil_cli_progress_done();
    if (s == DIL_OK && entry) {
        uint32_t at = dil_cluster_find(c, entry);
        if (at == DIL_NO_NODE) s = dil_fail(&err, DIL_ENOTFOUND, "--entry %s: no such node", entry);
        else c->entry = at;
    }
    if (s == DIL_OK && out) s = dil_cluster_write(out, c, &err);
    if (s == DIL_OK && json && (!out || strcmp(out, "-") != 0)) s = dil_cluster_write("-", c, &err);
    if (s == DIL_OK && !json && (!out || strcmp(out, "-") != 0)) {
        print_nodes(c);
        print_links(c);
    }
    dil_cluster_free(c);
    free(t);
    free(nodes);
    return s == DIL_OK ? 0 : dil_cli_fail("probe", &err);
}

static int run(int argc, char **argv)
{
    dil_cli_list words = {0};
    const char *dir = NULL, *key = NULL, *out = NULL, *entry = NULL;
    double link_sec = 2, kernel_sec = 0.2;
    bool insecure = false, json = false;
    const dil_cli_opt opts[] = {
        {.name = "--node", .kind = DIL_CLI_LIST, .out = &words, .arg = "NODE...", .help = "[NAME=]HOST:PORT[,KEY]; the address must work from every node"},
        {.name = "--keys", .kind = DIL_CLI_STR, .out = &dir, .arg = "DIR", .help = "a cluster's folder: coordinator.key and NAME.pub"},
        {.name = "--key", .kind = DIL_CLI_STR, .out = &key, .arg = "FILE", .help = "our key pair (DIR/coordinator.key, or ~/.config/dilemma/key)"},
        {.name = "--insecure", .kind = DIL_CLI_FLAG, .out = &insecure, .help = "nodes without keys"},
        {.name = "--entry", .kind = DIL_CLI_STR, .out = &entry, .arg = "NAME", .help = "where requests arrive (the first node)"},
        {.name = "--link-time", .kind = DIL_CLI_NUM, .out = &link_sec, .arg = "SEC", .help = "at most, for a link (2)", .min = 0.1, .max = 60},
        {.name = "--kernel-time", .kind = DIL_CLI_NUM, .out = &kernel_sec, .arg = "SEC", .help = "for a node and type; 0: none (0.2)", .min = 0, .max = 60},
        {.name = "--json", .kind = DIL_CLI_FLAG, .out = &json, .help = "print cluster.json instead of the tables"},
        {.letter = 'o', .kind = DIL_CLI_STR, .out = &out, .arg = "FILE", .help = "write cluster.json"},
        DIL_CLI_END};
    int status = dil_cli_parse(argc, argv, "[--node NODE...] [-o cluster.json]", about, opts, NULL, 0, 0);
    if (status >= 0) return status;
    dil_probe_opts o = {.link_sec = link_sec, .kernel_sec = kernel_sec, .progress = dil_cli_progress()};
    return probe(&words, dir, key, insecure, &o, entry, out, json);
}

const dil_cli_cmd dil_cli_probe = {"probe", "measure nodes and links", run};
