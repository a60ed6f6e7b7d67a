/* dilemma/pair.h - two machines learn each other's public keys from a short code that a person carries from one to the other.
 *
 *   node:         dil_pair_open(&opts, &desk, err);  show dil_pair_code(desk);  dil_pair_wait(desk, progress, &peer, err);  dil_pair_close(desk)
 *   coordinator:  dil_pair_with("10.0.0.2:7100", "b", "4821 7736", &me, "keys", 10, &peer, err)
 *
 * Afterwards the coordinator's key stands in the node's allow file and the node's key and address in the coordinator's folder (DIR/NAME.pub,
 * DIR/nodes), so that `dilemma node`, `up` and `serve` work with CURVE as ever. The code is never sent: it goes into CPace
 * (draft-irtf-cfrg-cpace, ristretto255, SHA-512), which lets whoever is between, or guesses, try one code a run; a code dies with its use,
 * with DIL_PAIR_TRIES wrong ones or with its time. The messages are in docs/PAIRING.md. */
#ifndef DILEMMA_PAIR_H
#define DILEMMA_PAIR_H

#include <dilemma/keys.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { DIL_PAIR_TRIES = 5, DIL_PAIR_DIGITS = 8, DIL_PAIR_NAME_MAX = 64, DIL_PAIR_ADDRESS_MAX = 128, DIL_PAIR_NODES_MAX = 256 };

/* Letters, digits, '-', '_' and '.', fewer than DIL_PAIR_NAME_MAX, no '.' first: a machine's name is a file's name as well. */
bool dil_pair_name_ok(const char *name);
/* The host's own name as one; "node" where it has none. */
void dil_pair_own_name(char out[DIL_PAIR_NAME_MAX]);
/* Takes the digits out of what a person typed ("4821 7736", "4821-7736"). False: not DIL_PAIR_DIGITS digits. */
bool dil_pair_code_read(const char *typed, char out[DIL_PAIR_DIGITS + 1]);

typedef struct dil_pair_peer {
    char key[DIL_KEY_CHARS + 1], name[DIL_PAIR_NAME_MAX];
    char address[DIL_PAIR_ADDRESS_MAX]; /* where it was reached, or came from */
} dil_pair_peer;

/* --- the node: shows a code and waits ------------------------------------------------------------------------------------------ */

typedef struct dil_pair_opts {
    const char *listen;      /* HOST:PORT, TCP; port 0: any free one */
    const char *name;        /* this machine's */
    const char *key;         /* its public key, Z85 */
    const char *allow_path;  /* the coordinator's key is added here */
    const char *code;        /* NULL: drawn */
    double limit_sec;        /* how long the code lives; 0: 600 */
} dil_pair_opts;

typedef struct dil_pair_desk dil_pair_desk;
/* Listens. Errors: DIL_EBUSY (the port is in use), DIL_EUSAGE. */
dil_status dil_pair_open(const dil_pair_opts *o, dil_pair_desk **out, dil_err *err);
const char *dil_pair_code(const dil_pair_desk *d); /* "48217736" */
uint16_t dil_pair_port(const dil_pair_desk *d);
/* Blocks until a coordinator that knows the code is enrolled. At most 16 connections at once, two a machine, ten seconds each.
 * Errors: DIL_ETIMEOUT (the code's time is over), DIL_EAUTH (too many wrong codes), DIL_ECANCELED; then the code is dead. */
dil_status dil_pair_wait(dil_pair_desk *d, const dil_progress *progress, dil_pair_peer *out, dil_err *err);
void dil_pair_close(dil_pair_desk *d);

/* --- the coordinator ------------------------------------------------------------------------------------------------------------ */

/* Is anybody there, before a person types a code? Connects and says nothing. Errors: DIL_ENET, DIL_EUSAGE (no address). */
dil_status dil_pair_reach(const char *address, double limit_sec, dil_err *err);

/* address: HOST:PORT. name: what the node is called from now on; NULL: what it calls itself. me: our pair; only the public key is told.
 * Errors: DIL_EAUTH (another code, or somebody between), DIL_ENET (nobody there, or it does not pair), DIL_EBUSY (DIR/NAME.pub is
 * another machine), DIL_EUSAGE (a code of another form). Blocks up to limit_sec. */
dil_status dil_pair_with(const char *address, const char *name, const char *code, const dil_keypair *me, const char *dir, double limit_sec,
                         dil_pair_peer *out, dil_err *err);

/* --- the coordinator's folder: who is enrolled, and where it was last --------------------------------------------------------------- */

/* Lines "NAME HOST:PORT" of DIR/nodes, in order; none when there is no file. At most cap of them, DIL_PAIR_NODES_MAX in a file. */
dil_status dil_pair_nodes(const char *dir, dil_pair_peer *out, size_t cap, size_t *n, dil_err *err);
/* Writes DIR/NAME.pub and the node's line. DIL_EBUSY: NAME.pub has another key. */
dil_status dil_pair_keep(const char *dir, const dil_pair_peer *node, dil_err *err);

#ifdef __cplusplus
}
#endif
#endif
