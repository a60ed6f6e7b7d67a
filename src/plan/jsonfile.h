/* plan/jsonfile.h - what the four JSON files of the planner share: bounded loading, checked strings on an arena. */
#ifndef DIL_PLAN_JSONFILE_H
#define DIL_PLAN_JSONFILE_H

#include "base/json.h"

enum {
    DIL__FILE_MAX = 256 << 20,   /* bytes of one file */
    DIL__VALUES_MAX = 24 << 20,  /* JSON values in one file: jansson takes some 50 bytes for each */
    DIL__PATH_MAX = 4096,
    DIL__WHERE_MAX = 400         /* text that names a place for an error; cut where it does not fit */
};
#define DIL__ARENA_MAX ((size_t)2 << 30)

/* Formats the name of a place, cut to fit. */
void dil__where(char out[DIL__WHERE_MAX], const char *fmt, ...) DIL_PRINTF(2, 3);

/* Parses text after counting its values; a top level that is not an object, or another "version" than 1 where one is required,
 * is DIL_EFORMAT. *out is owned (json_decref). */
dil_status dil__jsonfile_parse(const char *what, const char *text, size_t len, bool versioned, json_t **out, dil_err *err);
/* A versioned file as an object of `size` bytes on an arena of its own, which read fills in; *out is the object, freed with its arena.
 * read is called with that arena, must keep it in the object, and may push what it only needs itself to tmp. */
typedef dil_status (*dil__jsonfile_fn)(const json_t *doc, const char *what, void *object, dil_arena *a, dil_arena *tmp, dil_err *err);
dil_status dil__jsonfile_object(const char *what, const char *text, size_t len, size_t size, dil__jsonfile_fn read, void **out, dil_err *err);
/* Calls parse with the whole file, named `path` in errors. */
dil_status dil__jsonfile_read(const char *path, void *ctx,
                              dil_status (*parse)(void *ctx, const char *what, const char *text, size_t len, dil_err *err),
                              dil_err *err);

/* A string member copied to the arena: valid UTF-8 comes from jansson, control characters and more than max - 1 bytes are errors.
 * _or: dflt (copied as is, borrowed) where absent or null. */
dil_status dil__jsonfile_str(const json_t *o, const char *key, const char *where, size_t max, dil_arena *a, const char **out, dil_err *err);
dil_status dil__jsonfile_str_or(const json_t *o, const char *key, const char *where, size_t max, const char *dflt, dil_arena *a,
                                const char **out, dil_err *err);
/* A number member that is within [min, max]; the _or form takes dflt where absent or null. */
dil_status dil__jsonfile_num(const json_t *o, const char *key, const char *where, double min, double max, double *out, dil_err *err);
dil_status dil__jsonfile_num_or(const json_t *o, const char *key, const char *where, double min, double max, double dflt, double *out,
                                dil_err *err);
dil_status dil__jsonfile_uint(const json_t *o, const char *key, const char *where, uint64_t max, uint64_t *out, dil_err *err);
dil_status dil__jsonfile_uint_or(const json_t *o, const char *key, const char *where, uint64_t max, uint64_t dflt, uint64_t *out,
                                 dil_err *err);
dil_status dil__jsonfile_u32(const json_t *o, const char *key, const char *where, uint32_t max, uint32_t *out, dil_err *err);
dil_status dil__jsonfile_u32_or(const json_t *o, const char *key, const char *where, uint32_t max, uint32_t dflt, uint32_t *out,
                                dil_err *err);
/* An array member of exactly n numbers within [min, max], copied to the arena. */
dil_status dil__jsonfile_nums(const json_t *o, const char *key, const char *where, size_t n, double min, double max, dil_arena *a,
                              double **out, dil_err *err);
dil_status dil__jsonfile_nomem(const char *what, dil_err *err);

/* Checks a string that a caller filled in: not NULL, shorter than max, no control characters. */
dil_status dil__jsonfile_check_str(const char *s, const char *key, const char *where, bool may_be_empty, size_t max, dil_err *err);

/* Name -> index, for ten thousand node names: sorted once, found by bisection. */
typedef struct dil__names {
    struct dil__name { const char *name; uint32_t index; } *sorted; /* [n] */
    uint32_t n;
} dil__names;
/* DIL_EFORMAT names a name that occurs twice. On the arena. */
dil_status dil__names_init(dil__names *t, const char *const *names, uint32_t n, const char *where, dil_arena *a, dil_err *err);
uint32_t dil__names_find(const dil__names *t, const char *name); /* UINT32_MAX: none */

#endif
