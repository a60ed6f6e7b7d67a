/* cli/target.h - what `probe` and `up` share: nodes as words of the command line. */
#ifndef DIL_CLI_TARGET_H
#define DIL_CLI_TARGET_H

#include "cli/cli.h"

#include <dilemma/cluster.h>
#include <dilemma/keys.h>

typedef struct dil_cli_target {
    char name[DIL_NAME_MAX], address[DIL_NAME_MAX], key[DIL_KEY_CHARS + 1];
} dil_cli_target;

/* [NAME=]HOST:PORT[,KEY]; a key may hold '=' itself, an address may not. dir: a cluster's folder with NAME.pub; NULL: this user's own.
 * The index names a node that has no name: a, b, c, ... */
dil_status dil_cli_target_parse(const char *word, size_t index, const char *dir, bool insecure, dil_cli_target *t, dil_err *err);
/* The nodes that the words name; without words those that are enrolled in dir (NULL: this user's own folder). At least one, at most cap. */
dil_status dil_cli_targets(const dil_cli_list *words, const char *dir, bool insecure, dil_cli_target *t, size_t cap, size_t *n, dil_err *err);
/* DIR, or this user's own folder of keys. */
dil_status dil_cli_key_folder(const char *dir, char out[4096], dil_err *err);
/* The coordinator's pair: the file, else DIR/coordinator.key, else the user's own. */
dil_status dil_cli_own_key(const char *file, const char *dir, dil_keypair *out, dil_err *err);

#endif
