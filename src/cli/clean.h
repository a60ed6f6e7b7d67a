/* cli/clean.h - text of a model on a terminal. */
#ifndef DIL_CLI_CLEAN_H
#define DIL_CLI_CLEAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* Into out [len]: '?' for what would command a terminal (C0 controls but newline and tab, delete), an inverted one for C1 controls. A model may
 * say anything, and what it read may have told it to. */
void dil_cli_clean_text(const char *text, size_t len, char *out);
/* Writes it, cleaned where `to` is a terminal; false: it cannot be written. A piece may end inside a character. */
bool dil_cli_print_model_text(const char *text, size_t len, FILE *to);

#endif
