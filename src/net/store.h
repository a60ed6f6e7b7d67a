/* net/store.h - chunks of weights on disk, named by their BLAKE2b-256 hash. */
#ifndef DIL_NET_STORE_H
#define DIL_NET_STORE_H

#include <dilemma/base.h>

typedef struct dil__store dil__store;

/* Creates the folder. max_bytes 0: no limit. */
dil_status dil__store_open(const char *dir, uint64_t max_bytes, dil__store **out, dil_err *err);
void dil__store_close(dil__store *s);

/* True when the chunk is there, has these many bytes and these bytes hash to its name; a corrupted one is removed and logged.
 * Marks it as used now. Cost: reads it whole. */
bool dil__store_check(dil__store *s, const dil_hash *h, uint64_t bytes);
/* Stores data that hashes to h. Errors: DIL_EDATA (it does not), DIL_EIO names file and reason. */
dil_status dil__store_put(dil__store *s, const dil_hash *h, const void *data, size_t len, dil_err *err);
/* Path of a chunk. */
void dil__store_path(const dil__store *s, const dil_hash *h, char out[4096]);
/* Removes the least recently used chunks until the rest fits max_bytes; those used after keep_since_ms stay. */
void dil__store_evict(dil__store *s, int64_t keep_since_ms);

#endif
