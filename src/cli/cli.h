/* cli/cli.h - the frame of every subcommand: one table of options each, from which parsing, --help, man pages and
 * completions come; log and progress on standard error; results on standard output.
 *
 * A subcommand is one file cmd_NAME.c that defines `const dil_cli_cmd dil_cli_NAME` and is listed in main.c. */
#ifndef DIL_CLI_CLI_H
#define DIL_CLI_CLI_H

#include <dilemma/base.h>

typedef enum dil_cli_kind {
    DIL_CLI_FLAG,  /* bool */
    DIL_CLI_STR,   /* const char * */
    DIL_CLI_INT,   /* int64_t, within min..max */
    DIL_CLI_NUM,   /* double, within min..max */
    DIL_CLI_BYTES, /* uint64_t: 500M, 1.5GiB */
    DIL_CLI_MANY,  /* dil_cli_list: may be repeated, one word each */
    DIL_CLI_LIST   /* dil_cli_list: may be repeated, and takes several words up to the next option */
} dil_cli_kind;

typedef struct dil_cli_list {
    const char *item[256];
    size_t n;
} dil_cli_list;

typedef struct dil_cli_opt {
    const char *name;   /* "--max-ratio"; NULL ends the table */
    char letter;        /* 'o' for -o, 0: none; name may be NULL when letter is set and `end` is false */
    dil_cli_kind kind;
    void *out;          /* holds the default before parsing */
    const char *arg;    /* "FILE" in the help; NULL for flags */
    const char *help;   /* one line or several; the default in words */
    double min, max;    /* for INT and NUM; both 0: any */
    bool *given;        /* optional: set when the option was given */
} dil_cli_opt;
#define DIL_CLI_END {0}

typedef struct dil_cli_cmd {
    const char *name;
    const char *summary;              /* one line of `dilemma --help` */
    int (*run)(int argc, char **argv); /* argv[0] is the subcommand's name; returns the exit status */
} dil_cli_cmd;

extern const dil_cli_cmd *const dil_cli_commands[]; /* main.c; ends with NULL */

/* Parses argv against the table; positional words go to pos. The common options --help, --quiet and --verbose are added.
 * Returns -1 to go on, else the exit status to return at once (0 after --help, 2 after a usage error said on stderr).
 * usage: the text after "usage: dilemma NAME "; about: paragraphs for --help; example lines go there too. */
int dil_cli_parse(int argc, char **argv, const char *usage, const char *about, const dil_cli_opt *opts, dil_cli_list *pos,
                  size_t min_pos, size_t max_pos);

int dil_cli_fail(const char *context, const dil_err *err); /* "dilemma: context: text" on stderr; returns the exit status */
int dil_cli_usage(const char *fmt, ...) DIL_PRINTF(1, 2);  /* a usage error; returns its exit status, 2 */
extern bool dil_cli_quiet;
extern bool dil_cli_talks;         /* set before dil_cli_parse by what writes to a terminal as it talks: no lines of mere information */
bool dil_cli_color(void);          /* standard error is a terminal and NO_COLOR is unset */
/* A progress bar with time left on standard error (a line every few seconds where that is no terminal; nothing with --quiet).
 * Ctrl-C makes it ask for cancellation; a second Ctrl-C ends the program. */
dil_progress *dil_cli_progress(void);
void dil_cli_progress_done(void);  /* ends the bar's line */
bool dil_cli_interrupted(void);
bool dil_cli_take_interrupt(void); /* whether there was one since the last call; forgets it */

#endif
