/* serve/enrol.h - the page's "add a machine": what it asks, and the answers. Blocking; the server calls it from a thread of the question. */
#ifndef DIL_SERVE_ENROL_H
#define DIL_SERVE_ENROL_H

#include <dilemma/discover.h>
#include <jansson.h>

#define DIL_ENROL_SEC 10.0 /* a pairing takes at most */
#define DIL_ENROL_FIND_SEC 2.0

typedef struct dil__enrol {
    char address[DIL_PAIR_ADDRESS_MAX], code[DIL_PAIR_DIGITS + 1], name[DIL_PAIR_NAME_MAX]; /* name "": the node's own */
} dil__enrol;

/* {"address", "code", "name"}; an address without a port gets the usual one. DIL_EFORMAT, with *param the name of the member. */
dil_status dil__enrol_parse(const char *body, size_t len, dil__enrol *out, const char **param, dil_err *err);
/* {"name", "address", "key"} of the node that is enrolled in dir now. Errors: dil_pair_with's. */
dil_status dil__enrol_pair(const dil__enrol *ask, const dil_keypair *me, const char *dir, json_t **out, dil_err *err);
/* {"nodes": [{"name", "address", "pairing", "enrolled"}]} on this network. */
dil_status dil__enrol_find(const char *dir, json_t **out, dil_err *err);
json_t *dil__enrolled_json(const char *dir); /* [{"name", "address"}]; empty when there is none */

#endif
