/* cli/pairing.h - what `node`, `pair` and `up` share of enrolling machines: folders, keys made when missing, and asking for codes. */
#ifndef DIL_CLI_PAIRING_H
#define DIL_CLI_PAIRING_H

#include "cli/target.h"

#include <dilemma/pair.h>

/* dil_cli_own_key; a pair that is missing is made, and said on standard output. */
dil_status dil_cli_own_key_or_new(const char *file, const char *dir, dil_keypair *out, dil_err *err);
/* "4821 7736" for people. */
const char *dil_cli_code_text(const char *code, char out[DIL_PAIR_DIGITS + 2]);

/* Pairs with the node at address. code NULL: asks on the terminal (or a line of standard input), three times at most; an empty line
 * leaves it out (*skipped). Says what happened in one line. name NULL: its own. */
dil_status dil_cli_pair(const char *address, const char *name, const char *told, const char *code, const dil_keypair *me, const char *dir,
                        dil_pair_peer *peer, bool *skipped, dil_err *err);

/* The node's side: shows a code and waits. listen: where; *port: the one that it was. allow_path is made when missing. */
dil_status dil_cli_await_pairing(const char *listen, const char *name, const dil_keypair *key, const char *allow_path, double limit_sec, uint16_t *port, dil_err *err);

#endif
