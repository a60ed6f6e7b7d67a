/* The adapter over jansson (see json.h). Jansson itself limits nesting to 2048 and refuses duplicate keys here. */
#include "base/json.h"

#include <math.h>
#include <string.h>

dil_status dil__json_parse(const char *what, const char *text, size_t len, json_t **out, dil_err *err)
{
    json_error_t e;
    json_t *doc = json_loadb(text, len, JSON_REJECT_DUPLICATES, &e);
    if (!doc) return dil_fail(err, DIL_EFORMAT, "%s: line %d, column %d: %s", what, e.line, e.column, e.text);
    *out = doc;
    return DIL_OK;
}

dil_status dil__json_load(const char *path, size_t max_bytes, json_t **out, dil_err *err)
{
    dil_buf b;
    dil_buf_init(&b, max_bytes);
    dil_status s = dil_file_read(path, &b, err);
    if (s == DIL_OK) s = dil__json_parse(path, dil_buf_str(&b), b.len, out, err);
    dil_buf_fini(&b);
    return s;
}

dil_status dil__json_save(const char *path, const json_t *doc, dil_err *err)
{
    dil_outfile o;
    dil_status s = dil_outfile_open(&o, path, err);
    if (s != DIL_OK) return s;
    if (json_dumpf(doc, o.stream, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) != 0 || fputc('\n', o.stream) == EOF) {
        s = dil_fail_errno(err, "%s: writing", path);
        dil_outfile_abort(&o);
        return s;
    }
    return dil_outfile_commit(&o, err);
}

static const char *type_name(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "an array";
    case JSON_STRING: return "a string";
    case JSON_INTEGER:
    case JSON_REAL: return "a number";
    case JSON_TRUE:
    case JSON_FALSE: return "a boolean";
    default: return "null";
    }
}

static dil_status missing(const char *key, const char *where, const json_t *v, const char *wanted, dil_err *err)
{
    if (!v) return dil_fail(err, DIL_EFORMAT, "%s: \"%s\" is missing", where, key);
    return dil_fail(err, DIL_EFORMAT, "%s: \"%s\" is %s, expected %s", where, key, type_name(v), wanted);
}

dil_status dil__json_obj(const json_t *o, const char *key, const char *where, json_t **out, dil_err *err)
{
    json_t *v = json_object_get(o, key);
    if (!json_is_object(v)) return missing(key, where, v, "an object", err);
    *out = v;
    return DIL_OK;
}

dil_status dil__json_arr(const json_t *o, const char *key, const char *where, json_t **out, dil_err *err)
{
    json_t *v = json_object_get(o, key);
    if (!json_is_array(v)) return missing(key, where, v, "an array", err);
    *out = v;
    return DIL_OK;
}

dil_status dil__json_str(const json_t *o, const char *key, const char *where, const char **out, dil_err *err)
{
    const json_t *v = json_object_get(o, key);
    if (!json_is_string(v)) return missing(key, where, v, "a string", err);
    *out = json_string_value(v);
    return DIL_OK;
}

dil_status dil__json_num(const json_t *o, const char *key, const char *where, double *out, dil_err *err)
{
    const json_t *v = json_object_get(o, key);
    if (!json_is_number(v) || !isfinite(json_number_value(v))) return missing(key, where, v, "a finite number", err);
    *out = json_number_value(v);
    return DIL_OK;
}

dil_status dil__json_int(const json_t *o, const char *key, const char *where, int64_t min, int64_t max, int64_t *out, dil_err *err)
{
    const json_t *v = json_object_get(o, key);
    if (!json_is_number(v)) return missing(key, where, v, "an integer", err);
    double d = json_number_value(v);
    /* 1e6 and 6.0 are integers to people and to some writers. */
    if (json_is_real(v) && (d != floor(d) || fabs(d) > 9e15)) return missing(key, where, v, "an integer", err);
    int64_t i = json_is_integer(v) ? (int64_t)json_integer_value(v) : (int64_t)d;
    if (i < min || i > max)
        return dil_fail(err, DIL_EFORMAT, "%s: \"%s\" is %lld, allowed %lld to %lld", where, key, (long long)i, (long long)min,
                        (long long)max);
    *out = i;
    return DIL_OK;
}

static bool absent(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    return !v || json_is_null(v);
}

dil_status dil__json_num_or(const json_t *o, const char *key, const char *where, double dflt, double *out, dil_err *err)
{
    if (!absent(o, key)) return dil__json_num(o, key, where, out, err);
    *out = dflt;
    return DIL_OK;
}

dil_status dil__json_int_or(const json_t *o, const char *key, const char *where, int64_t min, int64_t max, int64_t dflt,
                            int64_t *out, dil_err *err)
{
    if (!absent(o, key)) return dil__json_int(o, key, where, min, max, out, err);
    *out = dflt;
    return DIL_OK;
}

dil_status dil__json_str_or(const json_t *o, const char *key, const char *where, const char *dflt, const char **out, dil_err *err)
{
    if (!absent(o, key)) return dil__json_str(o, key, where, out, err);
    *out = dflt;
    return DIL_OK;
}

dil_status dil__json_bool_or(const json_t *o, const char *key, const char *where, bool dflt, bool *out, dil_err *err)
{
    const json_t *v = json_object_get(o, key);
    if (!absent(o, key) && !json_is_boolean(v)) return missing(key, where, v, "true or false", err);
    *out = absent(o, key) ? dflt : json_is_true(v);
    return DIL_OK;
}

json_t *dil__json_real_or_null(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}
