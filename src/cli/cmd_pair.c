/* dilemma pair: the coordinator enrols machines that show a code. */
#include "cli/cli.h"
#include "cli/pairing.h"

#include <string.h>

static const char about[] =
    "Enrols machines, so that this one may use them and nobody else can. On each of them start\n\n"
    "  dilemma node --pair\n\n"
    "which shows a code of eight digits; then here, once for each:\n\n"
    "  dilemma pair 10.0.0.2:7100                     asks for the code; the machine says its own name\n"
    "  dilemma pair pi=10.0.0.2:7100 box=10.0.0.3:7100    names of yours\n"
    "  dilemma pair --discover                        finds those that were started with --announce, and asks for each one's code\n"
    "  dilemma pair                                   who is enrolled\n\n"
    "The code never travels, works once, for ten minutes and five tries. Afterwards `dilemma up` knows the machines.\n"
    "What is kept: this machine's key pair, NAME.pub for each node, and where it was (`nodes`), in ~/.config/dilemma or --keys DIR.";

static dil_status show_enrolled(const char *dir, dil_err *err)
{
    static dil_pair_peer node[DIL_PAIR_NODES_MAX];
    size_t n;
    dil_status s = dil_pair_nodes(dir, node, DIL_PAIR_NODES_MAX, &n, err);
    if (s != DIL_OK) return s;
    if (!n) printf("No machine is enrolled in %s. Start `dilemma node --pair` on one, then here: dilemma pair ITS-ADDRESS:7100\n", dir);
    for (size_t i = 0; i < n; i++) printf("%-16s %-24s %s\n", node[i].name, node[i].address, node[i].key);
    return DIL_OK;
}

static dil_status pair_word(const char *word, const char *code, const dil_keypair *me, const char *dir, dil_err *err)
{
    char name[DIL_PAIR_NAME_MAX];
    const char *eq = strchr(word, '=');
    if (eq && snprintf(name, sizeof name, "%.*s", (int)(eq - word), word) >= (int)sizeof name)
        return dil_fail(err, DIL_EUSAGE, "a machine's name has fewer than %d characters", DIL_PAIR_NAME_MAX);
    dil_pair_peer peer;
    bool skipped;
    return dil_cli_pair(eq ? eq + 1 : word, eq ? name : NULL, NULL, code, me, dir, &peer, &skipped, err);
}

static dil_status pair_found(const dil_keypair *me, const char *dir, dil_err *err)
{
    static dil_cli_target there[DIL_DISCOVER_MAX];
    size_t n;
    return dil_cli_find(me, dir, there, DIL_DISCOVER_MAX, &n, err);
}

static int run(int argc, char **argv)
{
    dil_cli_list words = {0};
    const char *keys = NULL, *key = NULL, *code = NULL;
    bool discover = false;
    const dil_cli_opt opts[] = {
        {.name = "--keys", .kind = DIL_CLI_STR, .out = &keys, .arg = "DIR", .help = "the cluster's folder, made when missing (~/.config/dilemma)"},
        {.name = "--key", .kind = DIL_CLI_STR, .out = &key, .arg = "FILE", .help = "our key pair, made when missing (DIR/coordinator.key, or ~/.config/dilemma/key)"},
        {.name = "--discover", .kind = DIL_CLI_FLAG, .out = &discover, .help = "look for machines on this network (multicast DNS)"},
        {.name = "--code", .kind = DIL_CLI_STR, .out = &code, .arg = "CODE", .help = "instead of asking, for scripts; with one machine"},
        DIL_CLI_END};
    int status = dil_cli_parse(argc, argv, "[NAME=]HOST:PORT... | --discover", about, opts, &words, 0, DIL_PAIR_NODES_MAX);
    if (status >= 0) return status;
    if (code && words.n != 1) return dil_cli_usage("pair: --code goes with one machine");
    if (discover && words.n) return dil_cli_usage("pair: --discover, or addresses, not both");
    dil_err err;
    char dir[4096];
    dil_keypair me;
    dil_status s = dil_cli_key_folder(keys, dir, &err);
    if (s == DIL_OK && !words.n && !discover) s = show_enrolled(dir, &err);
    else if (s == DIL_OK) s = dil_cli_own_key_or_new(key, keys, &me, &err);
    if (s == DIL_OK && discover) s = pair_found(&me, dir, &err);
    for (size_t i = 0; i < words.n && s == DIL_OK; i++) s = pair_word(words.item[i], code, &me, dir, &err);
    if (s == DIL_OK && words.n && !dil_cli_quiet) printf("%-9s dilemma up MODEL.gguf%s%s\n", "next:", keys ? " --keys " : "", keys ? keys : "");
    return s == DIL_OK ? 0 : dil_cli_fail("pair", &err);
}

const dil_cli_cmd dil_cli_pair_cmd = {"pair", "enrol machines by the code they show", run};
