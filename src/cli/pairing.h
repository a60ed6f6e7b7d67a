/* cli/pairing.h - what `node`, `pair` and `up` share of enrolling machines: folders, keys made when missing, and asking for codes. */
#ifndef DIL_CLI_PAIRING_H
#define DIL_CLI_PAIRING_H

#include "cli/target.h"

#include <dilemma/discover.h>

/* dil_cli_own_key; a pair that is missing is made, and said on standard output. */
dil_status dil_cli_own_key_or_new(const char *file, const char *dir, dil_keypair *out, dil_err *err);
/* "4821 7736" for people. */
const char *dil_cli_code_text(const char *code, char out[DIL_PAIR_DIGITS + 2]);

/* Pairs with the node at address. code NULL: asks on the terminal (or a line of standard input), three times at most; an empty line
 * leaves it out (*skipped). Says what happened in one line. name NULL: its own. */
dil_status dil_cli_pair(const char *address, const char *name, const char *told, const char *code, const dil_keypair *me, const char *dir,
                        dil_pair_peer *peer, bool *skipped, dil_err *err);

/* Looks for nodes on the network and says what it found: notes new addresses of those that are enrolled, and asks for the codes of those
 * that show one. t [n]: the enrolled ones that are there; at most cap, perhaps none. */
dil_status dil_cli_find(const dil_keypair *me, const char *dir, dil_cli_target *t, size_t cap, size_t *n, dil_err *err);

/* The node's side: shows a code and waits. listen: where; *port: the one that it was. allow_path is made when missing. announce: on the network. */
dil_status dil_cli_await_pairing(const char *listen, const char *name, const dil_keypair *key, const char *allow_path, double limit_sec, bool announce, uint16_t *port,
                                 dil_err *err);
/* dil_announce_open for HOST:PORT and a name that may be NULL. */
dil_status dil_cli_announce(const char *listen, uint16_t port, const char *name, const char *key, bool pairing, dil_announce **out, dil_err *err);

#endif
