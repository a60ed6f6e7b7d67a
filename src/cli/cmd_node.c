/* dilemma node: the daemon. */
#include "cli/cli.h"
#include "cli/pairing.h"

#include <dilemma/node.h>

#include <stdlib.h>
#include <string.h>

static const char about[] =
    "Holds layers for a coordinator and computes them. It obeys the coordinators whose public keys are in its\n"
    "allow file, and talks to the other nodes that they name; everything is encrypted.\n\n"
    "  dilemma node --pair                           the first time: shows a code to type on the coordinator (dilemma pair)\n"
    "  dilemma node --listen 0.0.0.0:7100 --memory 512MiB      from then on\n"
    "  dilemma node --announce                       and found on the network by dilemma up --discover\n\n"
    "With --pair a key pair that is missing is made, and all addresses are listened on unless --listen says otherwise.\n"
    "By hand: dilemma keys new, dilemma keys allow KEY, or dilemma keys cluster on the coordinator.";

static dil_status read_key(const char *given, dil_keypair *out, dil_err *err)
{
    char path[4096];
    dil_status s = DIL_OK;
    if (!given) s = dil_keys_path("key", path, sizeof path, err);
    if (s == DIL_OK) s = dil_keypair_read(given ? given : path, out, err);
    if (s == DIL_ENOTFOUND && !given) return dil_fail(err, s, "%s: no key pair yet. The first time: dilemma node --pair (or dilemma keys new, or --insecure)", path);
    return s;
}

static dil_status find_allowed(const char *given, bool may_miss, char path[4096], dil_err *err)
{
    if (given) {
        snprintf(path, 4096, "%s", given);
        return DIL_OK;
    }
    dil_status s = dil_keys_path("allowed", path, 4096, err);
    if (s == DIL_OK && !may_miss && !dil_file_exists(path))
        return dil_fail(err, DIL_EAUTH, "%s: nobody is allowed yet. The first time: dilemma node --pair (or dilemma keys allow KEY NAME, or --insecure)", path);
    return s;
}

static int serve_until_signal(const dil_node_opts *o, bool announce, const char *name)
{
    dil_err err;
    dil_node *node;
    dil_announce *told = NULL;
    dil_cli_progress(); /* its handler of SIGINT and SIGTERM */
    if (dil_node_start(o, &node, &err) != DIL_OK) return dil_cli_fail("node", &err);
    const char *colon = strrchr(o->listen, ':');
    if (announce && dil_cli_announce(o->listen, dil_node_port(node), name, o->key->public_key, false, &told, &err) != DIL_OK) {
        dil_node_stop(node);
        return dil_cli_fail("node", &err);
    }
    printf("listening on %.*s:%u%s\n", (int)(colon - o->listen), o->listen, dil_node_port(node), o->insecure ? " WITHOUT encryption and keys" : "");
    fflush(stdout);
    while (!dil_cli_interrupted()) dil_sleep_ns(50000000);
    dil_announce_close(told);
    dil_node_stop(node);
    return 0;
}

static int run(int argc, char **argv)
{
    const char *listen = NULL, *device = NULL, *key = NULL, *allow = NULL, *cache = NULL, *name = NULL;
    uint64_t memory = 0, cache_max = UINT64_C(20) * 1000 * 1000 * 1000;
    int64_t threads = 0;
    double throttle = 1, pair_sec = 600;
    bool insecure = false, pair_first = false, announce = false;
    const dil_cli_opt opts[] = {
        {.name = "--listen", .kind = DIL_CLI_STR, .out = &listen, .arg = "HOST:PORT", .help = "where; port 0 takes any free one (127.0.0.1:7100; with --pair or --announce 0.0.0.0:7100)"},
        {.name = "--pair", .kind = DIL_CLI_FLAG, .out = &pair_first, .help = "show a code first, and wait until a coordinator gives it (dilemma pair)"},
        {.name = "--pair-for", .kind = DIL_CLI_NUM, .out = &pair_sec, .arg = "SEC", .help = "how long the code is good (600)", .min = 0.1, .max = 86400},
        {.name = "--name", .kind = DIL_CLI_STR, .out = &name, .arg = "NAME", .help = "what this machine calls itself (its host name)"},
        {.name = "--announce", .kind = DIL_CLI_FLAG, .out = &announce, .help = "let coordinators on this network find it (multicast DNS), for --discover"},
        {.name = "--memory", .kind = DIL_CLI_BYTES, .out = &memory, .arg = "BYTES", .help = "what weights, KV cache and buffers may take together\n(nine tenths of what is free now)"},
        {.name = "--threads", .letter = 't', .kind = DIL_CLI_INT, .out = &threads, .arg = "N", .help = "threads that compute (all CPUs)", .min = 1, .max = 1024},
        {.name = "--device", .kind = DIL_CLI_STR, .out = &device, .arg = "D", .help = "what computes (CPU); dilemma doctor lists CUDA0, Vulkan0, ... where there are any"},
        {.name = "--throttle", .kind = DIL_CLI_NUM, .out = &throttle, .arg = "F", .help = "be F times slower: wait after each computation (1)", .min = 1, .max = 1000},
        {.name = "--key", .kind = DIL_CLI_STR, .out = &key, .arg = "FILE", .help = "this node's key pair (~/.config/dilemma/key)"},
        {.name = "--allow", .kind = DIL_CLI_STR, .out = &allow, .arg = "FILE", .help = "public keys of coordinators; read again when it changes (~/.config/dilemma/allowed)"},
        {.name = "--insecure", .kind = DIL_CLI_FLAG, .out = &insecure, .help = "no keys and no encryption: anyone who reaches the port may use it"},
        {.name = "--cache", .kind = DIL_CLI_STR, .out = &cache, .arg = "DIR", .help = "where pieces of models are kept (~/.cache/dilemma/chunks)"},
        {.name = "--cache-max", .kind = DIL_CLI_BYTES, .out = &cache_max, .arg = "BYTES", .help = "the oldest pieces go beyond it; 0: no limit (20G)"},
        DIL_CLI_END};
    int status = dil_cli_parse(argc, argv, "[options]", about, opts, NULL, 0, 0);
    if (status >= 0) return status;
    if (pair_first && insecure) return dil_cli_usage("node: --pair makes and exchanges keys, --insecure does without them: one of the two");
    if (announce && insecure) return dil_cli_usage("node: --announce goes with keys: a node without them is not one to be found by everybody");
    if (!listen) listen = pair_first || announce ? "0.0.0.0:7100" : "127.0.0.1:7100";
    if (!strrchr(listen, ':')) return dil_cli_usage("node: --listen wants HOST:PORT, not '%s'", listen);
    dil_err err;
    dil_keypair pair;
    char allowed[4096] = "";
    dil_status s = DIL_OK;
    if (!insecure) s = pair_first ? dil_cli_own_key_or_new(key, NULL, &pair, &err) : read_key(key, &pair, &err);
    if (!insecure && s == DIL_OK) s = find_allowed(allow, pair_first, allowed, &err);
    uint16_t port;
    char same[256]; /* the port that the coordinator knows now, where any free one was taken */
    if (pair_first && s == DIL_OK) {
        s = dil_cli_await_pairing(listen, name, &pair, allowed, pair_sec, announce, &port, &err);
        if (s == DIL_OK) snprintf(same, sizeof same, "%.*s:%u", (int)(strrchr(listen, ':') - listen), listen, port);
        if (s == DIL_OK) listen = same;
    }
    if (s != DIL_OK) return s == DIL_ECANCELED ? 0 : dil_cli_fail("node", &err);
    dil_node_opts o = {.listen = listen, .memory_bytes = memory, .n_threads = (int)threads, .device = device, .throttle = throttle,
                       .key = insecure ? NULL : &pair, .allow_path = insecure ? NULL : allowed, .insecure = insecure, .cache_dir = cache,
                       .cache_max_bytes = cache_max};
    return serve_until_signal(&o, announce, name);
}

const dil_cli_cmd dil_cli_node = {"node", "hold and compute layers for a coordinator", run};
