/* Troff and shell text. What comes from the tables is escaped for each. */
#include "cli/describe.h"

#include <string.h>

dil_cli_form dil_cli_describing;
FILE *dil_cli_describe_to;
const char *dil_cli_describe_summary;

static const char *const statuses[][2] = {{"0", "done"}, {"2", "usage"}, {"3", "malformed file or request"}, {"4", "unsupported"}, {"5", "not found"}, {"6", "i/o"},
    {"7", "out of memory"}, {"8", "a limit or a store too small"}, {"9", "no plan meets the budgets"}, {"10", "timeout"}, {"11", "network"}, {"12", "not authorized"},
    {"13", "busy"}, {"14", "canceled"}, {"15", "unusable data"}, {"70", "a bug of ours"}};
static const struct { const char *name, *arg, *help; } common[] = {
    {"--quiet", NULL, "only errors on standard error"}, {"--verbose", NULL, "more on standard error"},
    {"--log-format", "F", "text, or json: one object a line"}, {"--help", NULL, "this text"}};

/* --- man ---------------------------------------------------------------------------------------------------------------------- */

static void roff(FILE *f, const char *s)
{
    bool first = true; /* of a line: a dot or quote there is a request */
    for (; *s; s++) {
        if (first && (*s == '.' || *s == '\'')) fputs("\\&", f);
        if (*s == '\\') fputs("\\e", f);
        else if (*s == '-') fputs("\\-", f);
        else fputc(*s, f);
        first = *s == '\n';
    }
}

void dil_cli_write_statuses(FILE *to, bool man)
{
    size_t n = sizeof statuses / sizeof statuses[0];
    if (man) {
        fputs(".SH EXIT STATUS\n", to);
        for (size_t i = 0; i < n; i++) fprintf(to, ".TP 4\n%s\n%s\n", statuses[i][0], statuses[i][1]);
        return;
    }
    fputs("\nexit status: ", to);
    for (size_t i = 0, at = 13; i < n; i++) {
        size_t len = strlen(statuses[i][0]) + strlen(statuses[i][1]) + 3;
        bool wraps = at + len > 120;
        if (i > 0) fputs(wraps ? ",\n" : ", ", to);
        at = wraps ? len : at + len;
        fprintf(to, "%s %s", statuses[i][0], statuses[i][1]);
    }
    fputc('\n', to);
}

/* Lines that begin with two spaces are examples and stay as they are. */
static void man_about(FILE *f, const char *about)
{
    bool example = false;
    while (*about) {
        size_t n = strcspn(about, "\n");
        bool indented = n > 2 && about[0] == ' ' && about[1] == ' ';
        if (indented != example) fputs(indented ? ".PP\n.nf\n" : ".fi\n.PP\n", f);
        example = indented;
        char text[1024];
        snprintf(text, sizeof text, "%.*s", (int)n, about);
        if (n == 0 && !example) fputs(".PP", f);
        else roff(f, text);
        fputc('\n', f);
        about += n + (about[n] == '\n');
    }
    if (example) fputs(".fi\n", f);
}

static void man_option(FILE *f, char letter, const char *name, const char *arg, const char *help)
{
    fputs(".TP\n", f);
    if (letter) fprintf(f, "\\fB\\-%c\\fR%s", letter, name ? ", " : "");
    if (name) {
        fputs("\\fB", f);
        roff(f, name);
        fputs("\\fR", f);
    }
    if (arg) {
        fputs(" \\fI", f);
        roff(f, arg);
        fputs("\\fR", f);
    }
    fputc('\n', f);
    roff(f, help);
    fputc('\n', f);
}

static void man_page(FILE *f, const char *cmd, const char *usage, const char *about, const dil_cli_opt *opts)
{
    char upper[64];
    snprintf(upper, sizeof upper, "DILEMMA-%s", cmd);
    for (char *p = upper; *p; p++) *p = *p >= 'a' && *p <= 'z' ? (char)(*p - 32) : *p;
    fprintf(f, ".TH %s 1 \"\" \"dilemma " DILEMMA_VERSION "\" \"dilemma\"\n.ad l\n.SH NAME\ndilemma\\-%s \\- ", upper, cmd);
    roff(f, dil_cli_describe_summary);
    fprintf(f, "\n.SH SYNOPSIS\n.B dilemma %s\n", cmd);
    roff(f, usage);
    fputs("\n.SH DESCRIPTION\n", f);
    man_about(f, about);
    fputs(".SH OPTIONS\n", f);
    for (const dil_cli_opt *o = opts; o->name || o->letter; o++) man_option(f, o->letter, o->name, o->arg, o->help);
    for (size_t i = 0; i < sizeof common / sizeof common[0]; i++) man_option(f, i == 3 ? 'h' : 0, common[i].name, common[i].arg, common[i].help);
    dil_cli_write_statuses(f, true);
    fputs(".SH SEE ALSO\n.BR dilemma (1)\n", f);
}

void dil_cli_write_man_top(FILE *f, const dil_cli_cmd *const *commands)
{
    fputs(".TH DILEMMA 1 \"\" \"dilemma " DILEMMA_VERSION "\" \"dilemma\"\n.SH NAME\ndilemma \\- runs a large language model over several small, unequal machines\n"
          ".SH SYNOPSIS\n.B dilemma\n.I COMMAND\n[options]\n.SH DESCRIPTION\nMeasures machines, links and a model; decides which machine holds each layer and at which "
          "precision; writes the quantized model; runs it; and decides again when the network changes.\n.SH COMMANDS\n", f);
    for (size_t i = 0; commands[i]; i++) {
        fprintf(f, ".TP\n.BR dilemma\\-%s (1)\n", commands[i]->name);
        roff(f, commands[i]->summary);
        fputc('\n', f);
    }
    dil_cli_write_statuses(f, true);
    fputs(".SH ENVIRONMENT\n", f);
    static const char *const env[][2] = {{"DILEMMA_HOME", "where this user's key and list of allowed keys are"}, {"DILEMMA_API_KEY", "the key of the HTTP API, for serve, chat and top"},
        {"HF_ENDPOINT, HF_TOKEN, HF_HOME, HF_HUB_CACHE", "of dilemma pull, as the hub's own tools read them"}, {"NO_COLOR", "no colours"}};
    for (size_t i = 0; i < sizeof env / sizeof env[0]; i++) fprintf(f, ".TP\n.B %s\n%s\n", env[i][0], env[i][1]);
}

/* --- completions --------------------------------------------------------------------------------------------------------------- */

static bool wants_path(const dil_cli_opt *o)
{
    return o->arg && (strstr(o->arg, "FILE") || strstr(o->arg, "DIR"));
}

static void shell_quoted(FILE *f, const char *s, const char *more)
{
    for (; *s && *s != '\n'; s++) {
        if (*s == '\'') fputs("'\\''", f);
        else if (strchr(more, *s)) fprintf(f, "\\%c", *s);
        else fputc(*s, f);
    }
}

static void bash_case(FILE *f, const char *cmd, const dil_cli_opt *opts)
{
    fprintf(f, "    %s)\n      words='", cmd);
    for (const dil_cli_opt *o = opts; o->name || o->letter; o++) {
        if (o->name) fprintf(f, "%s ", o->name);
        else fprintf(f, "-%c ", o->letter);
    }
    fputs("--quiet --verbose --log-format --help'\n      values='", f);
    for (const dil_cli_opt *o = opts; o->name || o->letter; o++) { /* options whose value is no file */
        if (o->kind == DIL_CLI_FLAG || wants_path(o)) continue;
        fprintf(f, " %s ", o->name ? o->name : "");
        if (o->letter) fprintf(f, " -%c ", o->letter);
    }
    fputs("' ;;\n", f);
}

static void zsh_case(FILE *f, const char *cmd, const dil_cli_opt *opts)
{
    fprintf(f, "    %s) _arguments -s", cmd);
    for (const dil_cli_opt *o = opts; o->name || o->letter; o++) {
        char name[64];
        if (o->name) snprintf(name, sizeof name, "%s", o->name);
        else snprintf(name, sizeof name, "-%c", o->letter);
        fprintf(f, " '%s%s[", o->kind == DIL_CLI_LIST ? "*" : "", name);
        shell_quoted(f, o->help, "[]:\\");
        fputs("]", f);
        if (o->kind != DIL_CLI_FLAG) {
            fputs(":", f);
            shell_quoted(f, o->arg ? o->arg : "value", "[]:\\");
            fputs(wants_path(o) ? ":_files" : ": ", f);
        }
        fputs("'", f);
    }
    fputs(" '--quiet[only errors]' '--verbose[more]' '--log-format[of the log]:F:(text json)' '--help[the options]' '*:file:_files' ;;\n", f);
}

static void fish_lines(FILE *f, const char *cmd, const dil_cli_opt *opts)
{
    fprintf(f, "complete -c dilemma -n __fish_use_subcommand -f -a %s -d '", cmd);
    shell_quoted(f, dil_cli_describe_summary, "\\");
    fputs("'\n", f);
    for (const dil_cli_opt *o = opts; o->name || o->letter; o++) {
        fprintf(f, "complete -c dilemma -n '__fish_seen_subcommand_from %s'", cmd);
        if (o->name) fprintf(f, " -l %s", o->name + 2);
        if (o->letter) fprintf(f, " -s %c", o->letter);
        if (o->kind != DIL_CLI_FLAG) fputs(wants_path(o) ? " -r" : " -x", f);
        fputs(" -d '", f);
        shell_quoted(f, o->help, "\\");
        fputs("'\n", f);
    }
}

void dil_cli_describe(const char *cmd, const char *usage, const char *about, const dil_cli_opt *opts)
{
    FILE *f = dil_cli_describe_to;
    switch (dil_cli_describing) {
    case DIL_CLI_MAN: man_page(f, cmd, usage, about, opts); break;
    case DIL_CLI_BASH: bash_case(f, cmd, opts); break;
    case DIL_CLI_ZSH: zsh_case(f, cmd, opts); break;
    case DIL_CLI_FISH: fish_lines(f, cmd, opts); break;
    default: break;
    }
}

static void describe(FILE *to, dil_cli_form form, const dil_cli_cmd *c)
{
    char name[64];
    snprintf(name, sizeof name, "%s", c->name);
    char *argv[] = {name, NULL};
    dil_cli_describing = form;
    dil_cli_describe_to = to;
    dil_cli_describe_summary = c->summary;
    c->run(1, argv);
    dil_cli_describing = DIL_CLI_RUN;
}

void dil_cli_write_man(FILE *to, const dil_cli_cmd *c)
{
    describe(to, DIL_CLI_MAN, c);
}

void dil_cli_write_completion(FILE *to, dil_cli_form shell, const dil_cli_cmd *const *commands)
{
    if (shell == DIL_CLI_BASH) {
        fputs("# bash completion for dilemma; made by `dilemma completion bash`\n_dilemma() {\n  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words='' values=''\n"
              "  COMPREPLY=()\n  if [ \"$COMP_CWORD\" -eq 1 ]; then\n    COMPREPLY=($(compgen -W '", to);
        for (size_t i = 0; commands[i]; i++) fprintf(to, "%s ", commands[i]->name);
        fputs("--help --version' -- \"$cur\"))\n    return\n  fi\n  case ${COMP_WORDS[1]} in\n", to);
    } else if (shell == DIL_CLI_ZSH) {
        fputs("#compdef dilemma\n# zsh completion for dilemma; made by `dilemma completion zsh`\n_dilemma() {\n  if (( CURRENT == 2 )); then\n    local -a commands\n    commands=(", to);
        for (size_t i = 0; commands[i]; i++) {
            fprintf(to, "'%s:", commands[i]->name);
            shell_quoted(to, commands[i]->summary, ":\\");
            fputs("' ", to);
        }
        fputs(")\n    _describe command commands\n    return\n  fi\n  local command=$words[2]\n  shift words\n  (( CURRENT-- ))\n  case $command in\n", to);
    } else {
        fputs("# fish completion for dilemma; made by `dilemma completion fish`\n", to);
        for (size_t i = 0; i < sizeof common / sizeof *common; i++)
            fprintf(to, "complete -c dilemma -l %s%s -d '%s'\n", common[i].name + 2, common[i].arg ? " -x -a 'text json'" : "", common[i].help);
    }
    for (size_t i = 0; commands[i]; i++) describe(to, shell, commands[i]);
    if (shell == DIL_CLI_BASH)
        fputs("  esac\n  case $cur in\n    -*) COMPREPLY=($(compgen -W \"$words\" -- \"$cur\")) ;;\n    *) case \"$values\" in *\" $prev \"*) ;; *) compopt -o filenames 2>/dev/null; "
              "COMPREPLY=($(compgen -f -- \"$cur\")) ;; esac ;;\n  esac\n}\ncomplete -F _dilemma dilemma\n", to);
    if (shell == DIL_CLI_ZSH) fputs("    *) _files ;;\n  esac\n}\n_dilemma \"$@\"\n", to);
}
