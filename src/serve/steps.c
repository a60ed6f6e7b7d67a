/* The record is one JSON object {step: {"key", "output"}} in hex hashes, written whole after each step, so that a killed run
 * repeats at most the step it was in. Modification times were rejected: copying or touching a file must not redo an hour. */
#include "serve/steps.h"

#include "base/json.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define RECORD_MAX (1u << 20)
#define KEY_MAX (64u << 20)

struct dil__steps {
    char *path;
    json_t *doc;
};

void dil__key_init(dil__key *k, const char *what_and_version)
{
    dil_buf_init(&k->text, KEY_MAX);
    dil__key_str(k, what_and_version);
}

void dil__key_fini(dil__key *k)
{
    dil_buf_fini(&k->text);
}

void dil__key_str(dil__key *k, const char *s)
{
    if (s) dil_buf_printf(&k->text, "s%zu:%s\n", strlen(s), s);
    else dil_buf_printf(&k->text, "none\n");
}

void dil__key_num(dil__key *k, double v)
{
    dil_buf_printf(&k->text, "%.17g\n", v);
}

dil_status dil__file_hash(const char *path, char hex[2 * DIL_HASH_BYTES + 1], dil_err *err)
{
    dil_map m;
    dil_status s = dil_map_open(path, &m, err);
    if (s != DIL_OK) return s;
    dil_hash h = dil_hash_of(m.data, m.len);
    dil_map_close(&m);
    dil_hash_hex(&h, hex);
    return DIL_OK;
}

dil_status dil__key_file(dil__key *k, const char *path, dil_err *err)
{
    char hex[2 * DIL_HASH_BYTES + 1];
    dil_status s = dil__file_hash(path, hex, err);
    if (s == DIL_OK) dil__key_str(k, hex);
    return s;
}

static void key_hex(const dil__key *k, char hex[2 * DIL_HASH_BYTES + 1])
{
    dil_hash h = dil_hash_of(k->text.data, k->text.len);
    dil_hash_hex(&h, hex);
}

dil_status dil__steps_open(const char *path, dil__steps **out, dil_err *err)
{
    dil__steps *s = calloc(1, sizeof *s);
    if (s) s->path = strdup(path);
    if (!s || !s->path) {
        free(s);
        return dil_fail(err, DIL_EMEMORY, "%s: no memory", path);
    }
    dil_err why;
    dil_status st = dil_file_exists(path) ? dil__json_load(path, RECORD_MAX, &s->doc, &why) : DIL_OK;
    if (st != DIL_OK || (s->doc && !json_is_object(s->doc))) {
        char bad[4096];
        snprintf(bad, sizeof bad, "%s.bad", path);
        dil_log(DIL_LOG_WARN, "steps", "%s is no record of steps and is now %s: %s", path, bad, st != DIL_OK ? why.text : "no object");
        if (rename(path, bad) != 0) dil_log(DIL_LOG_WARN, "steps", "%s: %s", path, strerror(errno));
        json_decref(s->doc);
        s->doc = NULL;
    }
    if (!s->doc) s->doc = json_object();
    if (s->doc) {
        *out = s;
        return DIL_OK;
    }
    dil__steps_close(s);
    return dil_fail(err, DIL_EMEMORY, "%s: no memory", path);
}

void dil__steps_close(dil__steps *s)
{
    if (!s) return;
    json_decref(s->doc);
    free(s->path);
    free(s);
}

bool dil__steps_done(dil__steps *s, const char *step, const dil__key *k, const char *path)
{
    char hex[2 * DIL_HASH_BYTES + 1];
    key_hex(k, hex);
    const json_t *o = json_object_get(s->doc, step);
    const char *key = json_string_value(json_object_get(o, "key")), *output = json_string_value(json_object_get(o, "output"));
    if (k->text.failed || !key || !output || strcmp(key, hex) != 0) return false;
    return dil__file_hash(path, hex, NULL) == DIL_OK && strcmp(output, hex) == 0;
}

dil_status dil__steps_record(dil__steps *s, const char *step, const dil__key *k, const char *path, dil_err *err)
{
    char key[2 * DIL_HASH_BYTES + 1], output[2 * DIL_HASH_BYTES + 1];
    key_hex(k, key);
    dil_status st = dil__file_hash(path, output, err);
    if (st != DIL_OK) return st;
    if (json_object_set_new(s->doc, step, json_pack("{s:s, s:s}", "key", key, "output", output)) != 0)
        return dil_fail(err, DIL_EMEMORY, "%s: no memory", s->path);
    return dil__json_save(s->path, s->doc, err);
}
