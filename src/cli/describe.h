/* cli/describe.h - man pages and shell completions, from the same tables that parsing and --help read. A command is described by
 * being run: its dil_cli_parse then writes what is asked for here and ends it. */
#ifndef DIL_CLI_DESCRIBE_H
#define DIL_CLI_DESCRIBE_H

#include "cli/cli.h"

typedef enum dil_cli_form { DIL_CLI_RUN, DIL_CLI_MAN, DIL_CLI_BASH, DIL_CLI_ZSH, DIL_CLI_FISH } dil_cli_form;
extern dil_cli_form dil_cli_describing; /* DIL_CLI_RUN: commands do their work */
extern FILE *dil_cli_describe_to;
extern const char *dil_cli_describe_summary;

/* What dil_cli_parse does then. */
void dil_cli_describe(const char *cmd, const char *usage, const char *about, const dil_cli_opt *opts);

/* The whole documents; commands ends with NULL. */
void dil_cli_write_man(FILE *to, const dil_cli_cmd *c);                     /* of one command */
void dil_cli_write_man_top(FILE *to, const dil_cli_cmd *const *commands);   /* dilemma(1) */
void dil_cli_write_completion(FILE *to, dil_cli_form shell, const dil_cli_cmd *const *commands);
void dil_cli_write_statuses(FILE *to, bool man); /* the exit statuses */

#endif
