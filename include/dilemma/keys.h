/* dilemma/keys.h - who may talk to whom: CURVE key pairs and lists of allowed public keys, in files.
 *
 *   dil_keypair k;  dil_keypair_new(&k, err);  dil_keypair_write("node.key", &k, err);      the file has mode 0600
 *   dil_keyring ring;  dil_keyring_read("allowed", &ring, err);  dil_keyring_has(&ring, public_key)
 *
 * Keys are Z85 text of 40 characters (ZeroMQ RFC 32). A key file holds "public KEY" and "secret KEY"; a list holds one
 * "KEY NAME" a line; "# " begins a comment in both. A cluster's folder holds NAME.key and NAME.pub for each machine, and
 * `allowed` with the coordinator's key: what `dilemma keys cluster` makes in one go. */
#ifndef DILEMMA_KEYS_H
#define DILEMMA_KEYS_H

#include <dilemma/base.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { DIL_KEY_CHARS = 40, DIL_KEYRING_MAX = 10000, DIL_KEY_NAME_MAX = 256 };

typedef struct dil_keypair {
    char public_key[DIL_KEY_CHARS + 1];
    char secret_key[DIL_KEY_CHARS + 1]; /* never logged, never sent */
} dil_keypair;

bool dil_key_is_valid(const char *z85); /* 40 characters that decode to 32 bytes */
bool dil_key_equal(const char *a, const char *b); /* constant time for valid keys */

dil_status dil_keypair_new(dil_keypair *out, dil_err *err);
/* Errors: DIL_EAUTH when others may read the file (the text says chmod), DIL_EFORMAT names line and file. */
dil_status dil_keypair_read(const char *path, dil_keypair *out, dil_err *err);
/* Creates the file with mode 0600 and its folder with 0700. Errors: DIL_EBUSY when it exists: a key is never overwritten. */
dil_status dil_keypair_write(const char *path, const dil_keypair *k, dil_err *err);

typedef struct dil_keyring_entry {
    char key[DIL_KEY_CHARS + 1];
    char name[DIL_KEY_NAME_MAX]; /* may be "" */
} dil_keyring_entry;

typedef struct dil_keyring {
    dil_keyring_entry *entry; /* [n], owned */
    size_t n;
} dil_keyring;

/* A missing file is DIL_ENOTFOUND. */
dil_status dil_keyring_read(const char *path, dil_keyring *out, dil_err *err);
void dil_keyring_fini(dil_keyring *ring);
bool dil_keyring_has(const dil_keyring *ring, const char *key);
/* Appends to the file (whole or not at all, mode 0600); an equal key only changes its name. */
dil_status dil_keyring_add(const char *path, const char *key, const char *name, dil_err *err);
dil_status dil_keyring_remove(const char *path, const char *key_or_name, dil_err *err); /* DIL_ENOTFOUND */

/* Where this user's key ("key") and list ("allowed") are: $DILEMMA_HOME, else $XDG_CONFIG_HOME/dilemma, else ~/.config/dilemma. */
dil_status dil_keys_path(const char *file, char *out, size_t cap, dil_err *err);
/* The public key of a machine in a cluster's folder (DIR/NAME.pub). */
dil_status dil_keys_public(const char *dir, const char *name, char out[DIL_KEY_CHARS + 1], dil_err *err);

#ifdef __cplusplus
}
#endif
#endif
