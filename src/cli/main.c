/* The table of subcommands, and nothing else. */
#include "cli/cli.h"
#include "cli/describe.h"
#include "cli/nearest.h"

#include <signal.h>
#include <string.h>

extern const dil_cli_cmd dil_cli_run, dil_cli_bench;
extern const dil_cli_cmd dil_cli_pull, dil_cli_import;
extern const dil_cli_cmd dil_cli_info;
extern const dil_cli_cmd dil_cli_plan;
extern const dil_cli_cmd dil_cli_simulate, dil_cli_export;
extern const dil_cli_cmd dil_cli_serve, dil_cli_chat, dil_cli_top, dil_cli_doctor;
extern const dil_cli_cmd dil_cli_profile;
extern const dil_cli_cmd dil_cli_quantize;
extern const dil_cli_cmd dil_cli_distill, dil_cli_finetune;
extern const dil_cli_cmd dil_cli_eval;
extern const dil_cli_cmd dil_cli_keys;
extern const dil_cli_cmd dil_cli_node, dil_cli_pair_cmd;
extern const dil_cli_cmd dil_cli_probe;
extern const dil_cli_cmd dil_cli_demo;
extern const dil_cli_cmd dil_cli_up;
extern const dil_cli_cmd dil_cli_man, dil_cli_completion;

const dil_cli_cmd *const dil_cli_commands[] = {
    &dil_cli_pull,
    &dil_cli_import,
    &dil_cli_chat,
    &dil_cli_run,
    &dil_cli_serve,
    &dil_cli_info,
    &dil_cli_bench,
    &dil_cli_node,
    &dil_cli_pair_cmd,
    &dil_cli_up,
    &dil_cli_doctor,
    &dil_cli_top,
    &dil_cli_demo,
    &dil_cli_probe,
    &dil_cli_profile,
    &dil_cli_plan,
    &dil_cli_quantize,
    &dil_cli_export,
    &dil_cli_simulate,
    &dil_cli_eval,
    &dil_cli_distill,
    &dil_cli_finetune,
    &dil_cli_keys,
    &dil_cli_man,
    &dil_cli_completion,
    NULL
};

/* The headings of `dilemma --help`, each before the command that begins its group. */
static const struct {
    const dil_cli_cmd *before;
    const char *text;
} headings[] = {
    {&dil_cli_pull, "on this machine"},
    {&dil_cli_node, "over several machines"},
    {&dil_cli_probe, "the steps of up, one by one"},
    {&dil_cli_eval, "how good, and better"},
    {&dil_cli_keys, "the rest"},
};

static void print_commands(FILE *to)
{
    fputs("dilemma " DILEMMA_VERSION " - runs a large language model over several small, unequal machines\n\n"
          "usage: dilemma COMMAND [options]      dilemma COMMAND --help tells more\n\n"
          "One machine:      dilemma chat MODEL.gguf\n"
          "Several machines: dilemma node --pair     on each; it shows a code\n"
          "                  dilemma pair ADDRESS    on yours, for each; asks for that code\n"
          "                  dilemma up MODEL.gguf   on yours: measures, plans, quantizes, serves\n", to);
    for (size_t i = 0; dil_cli_commands[i]; i++) {
        for (size_t h = 0; h < sizeof headings / sizeof *headings; h++) {
            if (headings[h].before == dil_cli_commands[i]) fprintf(to, "\n%s\n", headings[h].text);
        }
        fprintf(to, "  %-10s %s\n", dil_cli_commands[i]->name, dil_cli_commands[i]->summary);
    }
    dil_cli_write_statuses(to, false);
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN); /* a peer or a reader that goes away is an error code, not our end */
    if (argc < 2) {
        print_commands(stderr);
        return dil_status_exit(DIL_EUSAGE);
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        print_commands(stdout);
        return 0;
    }
    if (strcmp(argv[1], "--version") == 0) {
        puts("dilemma " DILEMMA_VERSION);
        return 0;
    }
    for (size_t i = 0; dil_cli_commands[i]; i++) {
        if (strcmp(argv[1], dil_cli_commands[i]->name) == 0) return dil_cli_commands[i]->run(argc - 1, argv + 1);
    }
    const char *near = NULL;
    unsigned best = 99;
    for (size_t i = 0; dil_cli_commands[i]; i++) {
        if (dil_cli_nearer(argv[1], strlen(argv[1]), dil_cli_commands[i]->name, &best)) near = dil_cli_commands[i]->name;
    }
    return dil_cli_usage("unknown command '%s'%s%s%s (see dilemma --help)", argv[1], near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
}
