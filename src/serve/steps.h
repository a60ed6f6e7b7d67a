/* serve/steps.h - what of a pipeline's work is done already: each step has a key, the hash of all that goes into it, and an
 * output file; it is done when a record with the same key exists and the file still has the recorded hash.
 *
 *   dil__steps_open("dir/steps.json", &st, err);
 *   dil__key k;  dil__key_init(&k, "plan 1");  dil__key_file(&k, profile_path, err);  dil__key_num(&k, 0.1275);
 *   if (!dil__steps_done(st, "plan", &k, path)) { ...; dil__steps_record(st, "plan", &k, path, seconds, err); } */
#ifndef DIL_SERVE_STEPS_H
#define DIL_SERVE_STEPS_H

#include <dilemma/base.h>

typedef struct dil__key {
    dil_buf text;
} dil__key;
void dil__key_init(dil__key *k, const char *what_and_version);
void dil__key_fini(dil__key *k);
void dil__key_str(dil__key *k, const char *s); /* NULL and "" are different */
void dil__key_num(dil__key *k, double v);
dil_status dil__key_file(dil__key *k, const char *path, dil_err *err); /* the hash of its bytes */
dil_status dil__file_hash(const char *path, char hex[2 * DIL_HASH_BYTES + 1], dil_err *err);

typedef struct dil__steps dil__steps;
/* A missing file is an empty record; one that is no record is moved aside as PATH.bad and said in the log. */
dil_status dil__steps_open(const char *path, dil__steps **out, dil_err *err);
void dil__steps_close(dil__steps *s);
bool dil__steps_done(dil__steps *s, const char *step, const dil__key *k, const char *path);
dil_status dil__steps_record(dil__steps *s, const char *step, const dil__key *k, const char *path, dil_err *err);

#endif
