/* dilemma man and dilemma completion: the documents that packages install, from the table of commands. */
#include "cli/cli.h"
#include "cli/describe.h"

#include <string.h>

static const dil_cli_cmd *find(const char *name)
{
    for (size_t i = 0; dil_cli_commands[i]; i++) {
        if (strcmp(dil_cli_commands[i]->name, name) == 0) return dil_cli_commands[i];
    }
    return NULL;
}

static dil_status write_page(const char *dir, const dil_cli_cmd *c, dil_err *err)
{
    char path[4096];
    dil_outfile o;
    if (snprintf(path, sizeof path, "%s/dilemma%s%s.1", dir, c ? "-" : "", c ? c->name : "") >= (int)sizeof path) return dil_fail(err, DIL_ELIMIT, "the path is too long");
    dil_status s = dil_outfile_open(&o, path, err);
    if (s != DIL_OK) return s;
    if (c) dil_cli_write_man(o.stream, c);
    else dil_cli_write_man_top(o.stream, dil_cli_commands);
    return dil_outfile_commit(&o, err);
}

static int run_man(int argc, char **argv)
{
    const char *dir = NULL;
    dil_cli_list words = {0};
    const dil_cli_opt opts[] = {{.letter = 'o', .name = "--output", .kind = DIL_CLI_STR, .out = &dir, .arg = "DIR", .help = "all pages, as files"}, DIL_CLI_END};
    int status = dil_cli_parse(argc, argv, "[COMMAND] [-o DIR]", "Prints the manual page of a command, or of dilemma, as troff.\n\n  dilemma man serve | man -l -", opts, &words, 0, 1);
    if (status >= 0) return status;
    dil_err err;
    dil_status s = DIL_OK;
    const dil_cli_cmd *c = words.n ? find(words.item[0]) : NULL;
    if (words.n && !c) return dil_cli_usage("man: no command '%s'", words.item[0]);
    if (!dir) {
        if (c) dil_cli_write_man(stdout, c);
        else dil_cli_write_man_top(stdout, dil_cli_commands);
        return 0;
    }
    s = dil_mkdirs(dir, &err);
    if (s == DIL_OK) s = write_page(dir, NULL, &err);
    for (size_t i = 0; s == DIL_OK && dil_cli_commands[i]; i++) s = write_page(dir, dil_cli_commands[i], &err);
    return s == DIL_OK ? 0 : dil_cli_fail("man", &err);
}

static int run_completion(int argc, char **argv)
{
    dil_cli_list words = {0};
    const char *out = "-";
    const dil_cli_opt opts[] = {{.letter = 'o', .name = "--output", .kind = DIL_CLI_STR, .out = &out, .arg = "FILE", .help = "write there (standard output)"}, DIL_CLI_END};
    int status = dil_cli_parse(argc, argv, "bash|zsh|fish [-o FILE]", "Prints the completions for a shell.\n\n  . <(dilemma completion bash)\n  dilemma completion zsh >~/.zfunc/_dilemma\n"
                               "  dilemma completion fish >~/.config/fish/completions/dilemma.fish", opts, &words, 1, 1);
    if (status >= 0) return status;
    static const char *const name[] = {"bash", "zsh", "fish"};
    static const dil_cli_form form[] = {DIL_CLI_BASH, DIL_CLI_ZSH, DIL_CLI_FISH};
    for (int i = 0; i < 3; i++) {
        if (strcmp(words.item[0], name[i]) != 0) continue;
        dil_err err;
        dil_outfile o;
        dil_status s = dil_outfile_open(&o, out, &err);
        if (s == DIL_OK) {
            dil_cli_write_completion(o.stream, form[i], dil_cli_commands);
            s = dil_outfile_commit(&o, &err);
        }
        return s == DIL_OK ? 0 : dil_cli_fail("completion", &err);
    }
    return dil_cli_usage("completion: for bash, zsh or fish, not '%s'", words.item[0]);
}

const dil_cli_cmd dil_cli_man = {"man", "print manual pages", run_man};
const dil_cli_cmd dil_cli_completion = {"completion", "print shell completions", run_completion};
