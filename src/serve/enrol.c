/* Pairing and finding as JSON. */
#include "serve/enrol.h"

#include "base/json.h"

#include <stdlib.h>
#include <string.h>

#define USUAL_PORT "7100"

static bool take_text(const json_t *doc, const char *key, bool needed, const char **out)
{
    const json_t *v = json_object_get(doc, key);
    *out = json_string_value(v);
    return v && !json_is_null(v) ? *out != NULL : !needed;
}

static dil_status wrong(const char *member, const char *wants, const char **param, dil_err *err)
{
    *param = member;
    return dil_fail(err, DIL_EFORMAT, "%s must be %s", member, wants);
}

dil_status dil__enrol_parse(const char *body, size_t len, dil__enrol *out, const char **param, dil_err *err)
{
    json_t *doc = NULL;
    const char *address = NULL, *code = NULL, *name = NULL;
    dil__enrol ask = {0};
    *param = NULL;
    dil_status s = dil__json_parse("request body", body, len, &doc, err);
    if (s != DIL_OK) return s;
    if (!take_text(doc, "address", true, &address) || !*address || strlen(address) + sizeof USUAL_PORT + 1 > sizeof ask.address) s = wrong("address", "HOST or HOST:PORT", param, err);
    else if (!take_text(doc, "code", true, &code) || !dil_pair_code_read(code, ask.code)) s = wrong("code", "the eight digits that the machine shows", param, err);
    else if (!take_text(doc, "name", false, &name) || (name && *name && !dil_pair_name_ok(name))) s = wrong("name", "letters, digits, '-', '_' and '.'", param, err);
    if (s == DIL_OK) {
        const char *end = strrchr(address, ']'), *colon = strrchr(end ? end : address, ':');
        snprintf(ask.address, sizeof ask.address, "%s%s", address, colon ? "" : ":" USUAL_PORT);
        snprintf(ask.name, sizeof ask.name, "%s", name ? name : "");
        *out = ask;
    }
    json_decref(doc);
    return s;
}

dil_status dil__enrol_pair(const dil__enrol *ask, const dil_keypair *me, const char *dir, json_t **out, dil_err *err)
{
    dil_pair_peer peer;
    dil_status s = dil_pair_with(ask->address, ask->name[0] ? ask->name : NULL, ask->code, me, dir, DIL_ENROL_SEC, &peer, err);
    if (s == DIL_OK) *out = json_pack("{s:s, s:s, s:s}", "name", peer.name, "address", peer.address, "key", peer.key);
    return s;
}

dil_status dil__enrol_find(const char *dir, json_t **out, dil_err *err)
{
    dil_found_node *found = calloc(DIL_DISCOVER_MAX, sizeof *found);
    dil_pair_peer *known = calloc(DIL_PAIR_NODES_MAX, sizeof *known);
    size_t n = 0, n_known = 0;
    dil_status s = found && known ? DIL_OK : dil_fail(err, DIL_EMEMORY, "no memory to look for nodes");
    if (s == DIL_OK) s = dil_pair_nodes(dir, known, DIL_PAIR_NODES_MAX, &n_known, err);
    if (s == DIL_OK) s = dil_discover(DIL_ENROL_FIND_SEC, found, DIL_DISCOVER_MAX, &n, err);
    json_t *list = json_array();
    for (size_t i = 0; s == DIL_OK && i < n; i++) {
        bool ours = false;
        for (size_t k = 0; k < n_known; k++) {
            char id[DIL_KEY_ID_CHARS + 1];
            dil_key_id(known[k].key, id);
            ours |= strcmp(id, found[i].id) == 0;
        }
        json_array_append_new(list, json_pack("{s:s, s:s, s:b, s:b}", "name", found[i].name, "address", found[i].address, "pairing", found[i].pairing, "enrolled", ours));
    }
    if (s == DIL_OK) *out = json_pack("{s:O}", "nodes", list);
    json_decref(list);
    free(found);
    free(known);
    return s;
}

json_t *dil__enrolled_json(const char *dir)
{
    json_t *list = json_array();
    dil_pair_peer *known = calloc(DIL_PAIR_NODES_MAX, sizeof *known);
    size_t n = 0;
    if (known && dil_pair_nodes(dir, known, DIL_PAIR_NODES_MAX, &n, NULL) == DIL_OK) {
        for (size_t i = 0; i < n; i++) json_array_append_new(list, json_pack("{s:s, s:s}", "name", known[i].name, "address", known[i].address));
    }
    free(known);
    return list;
}
