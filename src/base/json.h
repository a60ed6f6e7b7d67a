/* base/json.h - the adapter over jansson: bounded loading, and getters whose errors name the place.
 *
 *   json_t *doc;  dil__json_load(path, MAX, &doc, err);
 *   dil__json_num(doc, "rtt_sec", "cluster.json: links[3]", &sec, err);  ...  json_decref(doc); */
#ifndef DIL_BASE_JSON_H
#define DIL_BASE_JSON_H

#include <dilemma/base.h>
#include <jansson.h>

/* Parses a whole file ("-" is standard input) of at most max_bytes. Errors name path, line and column. *out is owned. */
dil_status dil__json_load(const char *path, size_t max_bytes, json_t **out, dil_err *err);
dil_status dil__json_parse(const char *what, const char *text, size_t len, json_t **out, dil_err *err);
/* Writes doc (indented by two, keys in insertion order) to path, whole or not at all; "-" is standard output. */
dil_status dil__json_save(const char *path, const json_t *doc, dil_err *err);
/* Building: a number that is not finite becomes null. Owned. */
json_t *dil__json_real_or_null(double v);

/* Required members. `where` names the object in the error text. Borrowed results. */
dil_status dil__json_obj(const json_t *o, const char *key, const char *where, json_t **out, dil_err *err);
dil_status dil__json_arr(const json_t *o, const char *key, const char *where, json_t **out, dil_err *err);
dil_status dil__json_str(const json_t *o, const char *key, const char *where, const char **out, dil_err *err);
dil_status dil__json_num(const json_t *o, const char *key, const char *where, double *out, dil_err *err); /* finite */
dil_status dil__json_int(const json_t *o, const char *key, const char *where, int64_t min, int64_t max, int64_t *out, dil_err *err);
/* Optional members: the default where absent or null, an error where of another type. */
dil_status dil__json_num_or(const json_t *o, const char *key, const char *where, double dflt, double *out, dil_err *err);
dil_status dil__json_int_or(const json_t *o, const char *key, const char *where, int64_t min, int64_t max, int64_t dflt,
                            int64_t *out, dil_err *err);
dil_status dil__json_str_or(const json_t *o, const char *key, const char *where, const char *dflt, const char **out, dil_err *err);
dil_status dil__json_bool_or(const json_t *o, const char *key, const char *where, bool dflt, bool *out, dil_err *err);

#endif
