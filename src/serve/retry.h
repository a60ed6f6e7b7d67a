/* serve/retry.h - answers to requests with an Idempotency-Key, kept so that a client's retry gets the same text: all of it where it was
 * finished, and where it was cut off the tokens that were there, from which the generation goes on. Kept in a file, over restarts.
 *
 *   dil__retry_begin(t, key, body, len, &seed, &run, err);  known tokens go into the request;  dil__retry_note(run, event) ...
 *   dil__retry_leave(run);                                  when nobody writes to it any more
 *
 * Bounded: the entries used longest ago go first. */
#ifndef DIL_SERVE_RETRY_H
#define DIL_SERVE_RETRY_H

#include <dilemma/runner.h>

enum { DIL__RETRY_ENTRIES_MAX = 1024, DIL__RETRY_TOKENS_MAX = 4 << 20, DIL__RETRY_KEY_MAX = 255 };

typedef struct dil__retry dil__retry;
typedef struct dil__retry_run dil__retry_run;

/* path NULL: in memory alone. What cannot be read in the file is left out; it is written anew. Errors: DIL_EIO, DIL_EMEMORY. */
dil_status dil__retry_open(const char *path, dil__retry **out, dil_err *err);
void dil__retry_close(dil__retry *t); /* runs that are held may still note and leave */

/* *seed: in, of a new entry; out, of the entry. Threads: any. Errors: DIL_EBUSY (it is being answered), DIL_EUSAGE (the key came with
 * another body), DIL_ELIMIT (the key is too long, or all entries are busy). */
dil_status dil__retry_begin(dil__retry *t, const char *key, const void *body, size_t len, uint64_t *seed, dil__retry_run **out, dil_err *err);
/* Tokens that are there already; borrowed while the run is held. *stopped: they end at a stop. */
const int32_t *dil__retry_known(const dil__retry_run *run, uint32_t *n, bool *stopped);
/* An event of the generation. Tokens that were known are passed over. */
void dil__retry_note(dil__retry_run *run, const dil_gen_event *e);
void dil__retry_leave(dil__retry_run *run); /* NULL is fine */

#endif
