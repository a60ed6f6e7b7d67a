/* Bounded loading of the planner's JSON files. The values are counted before jansson sees the text, because a file within the
 * byte limit that holds nothing but "[0,0,0,..." takes twenty times its size in memory. */
#include "plan/jsonfile.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

dil_status dil__jsonfile_nomem(const char *what, dil_err *err)
{
    return dil_fail(err, DIL_EMEMORY, "%s: out of memory", what);
}

void dil__where(char out[DIL__WHERE_MAX], const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(out, DIL__WHERE_MAX, fmt, args);
    va_end(args);
}

static size_t count_values(const char *text, size_t len)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++) n += text[i] == ',' || text[i] == '[' || text[i] == '{';
    return n;
}

dil_status dil__jsonfile_parse(const char *what, const char *text, size_t len, bool versioned, json_t **out, dil_err *err)
{
    if (len > DIL__FILE_MAX) return dil_fail(err, DIL_ELIMIT, "%s: %zu bytes, at most %d", what, len, DIL__FILE_MAX);
    size_t values = count_values(text, len);
    if (values > DIL__VALUES_MAX)
        return dil_fail(err, DIL_ELIMIT, "%s: about %zu JSON values, at most %d", what, values, DIL__VALUES_MAX);
    json_t *doc;
    dil_status s = dil__json_parse(what, text, len, &doc, err);
    if (s != DIL_OK) return s;
    if (!json_is_object(doc)) {
        json_decref(doc);
        return dil_fail(err, DIL_EFORMAT, "%s: the top level is not a JSON object", what);
    }
    int64_t version = 1;
    if (versioned) {
        s = dil__json_int(doc, "version", what, 0, INT64_MAX, &version, err);
        if (s == DIL_OK && version != 1)
            s = dil_fail(err, DIL_EUNSUPPORTED, "%s: \"version\" is %lld, this program knows 1", what, (long long)version);
    }
    if (s == DIL_OK) *out = doc;
    else json_decref(doc);
    return s;
}

dil_status dil__jsonfile_object(const char *what, const char *text, size_t len, size_t size, dil__jsonfile_fn read, void **out, dil_err *err)
{
    json_t *doc;
    dil_status s = dil__jsonfile_parse(what, text, len, true, &doc, err);
    if (s != DIL_OK) return s;
    dil_arena *a = dil_arena_new(DIL__ARENA_MAX), *tmp = dil_arena_new(DIL__ARENA_MAX);
    void *object = a && tmp ? dil_arena_push(a, 1, size) : NULL;
    s = object ? read(doc, what, object, a, tmp, err) : dil__jsonfile_nomem(what, err);
    json_decref(doc);
    dil_arena_free(tmp);
    if (s == DIL_OK) *out = object;
    else dil_arena_free(a);
    return s;
}

dil_status dil__jsonfile_read(const char *path, void *ctx,
                              dil_status (*parse)(void *ctx, const char *what, const char *text, size_t len, dil_err *err),
                              dil_err *err)
{
    dil_buf b;
    dil_buf_init(&b, DIL__FILE_MAX);
    dil_status s = dil_file_read(path, &b, err);
    if (s == DIL_OK) s = parse(ctx, strcmp(path, "-") == 0 ? "standard input" : path, dil_buf_str(&b), b.len, err);
    dil_buf_fini(&b);
    return s;
}

dil_status dil__jsonfile_check_str(const char *s, const char *key, const char *where, bool may_be_empty, size_t max, dil_err *err)
{
    if (!s) return dil_fail(err, DIL_EUSAGE, "%s: \"%s\" is not set", where, key);
    size_t n = strlen(s);
    if (n == 0 && !may_be_empty) return dil_fail(err, DIL_EFORMAT, "%s: \"%s\" is empty", where, key);
    if (n >= max) return dil_fail(err, DIL_ELIMIT, "%s: \"%s\" has %zu bytes, at most %zu", where, key, n, max - 1);
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)s[i] < 0x20 || s[i] == 0x7f)
            return dil_fail(err, DIL_EFORMAT, "%s: \"%s\" holds a control character at byte %zu", where, key, i);
    }
    return DIL_OK;
}

dil_status dil__jsonfile_str(const json_t *o, const char *key, const char *where, size_t max, dil_arena *a, const char **out, dil_err *err)
{
    const char *v;
    dil_status s = dil__json_str(o, key, where, &v, err);
    if (s == DIL_OK) s = dil__jsonfile_check_str(v, key, where, true, max, err);
    if (s != DIL_OK) return s;
    char *copy = dil_arena_strdup(a, v, strlen(v));
    if (!copy) return dil__jsonfile_nomem(where, err);
    *out = copy;
    return DIL_OK;
}

static bool absent(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    return !v || json_is_null(v);
}

dil_status dil__jsonfile_str_or(const json_t *o, const char *key, const char *where, size_t max, const char *dflt, dil_arena *a,
                                const char **out, dil_err *err)
{
    if (!absent(o, key)) return dil__jsonfile_str(o, key, where, max, a, out, err);
    *out = dflt;
    return DIL_OK;
}

dil_status dil__jsonfile_num(const json_t *o, const char *key, const char *where, double min, double max, double *out, dil_err *err)
{
    double v;
    dil_status s = dil__json_num(o, key, where, &v, err);
    if (s != DIL_OK) return s;
    if (!(v >= min && v <= max)) return dil_fail(err, DIL_EFORMAT, "%s: \"%s\" is %g, allowed %g to %g", where, key, v, min, max);
    *out = v;
    return DIL_OK;
}

dil_status dil__jsonfile_num_or(const json_t *o, const char *key, const char *where, double min, double max, double dflt, double *out,
                                dil_err *err)
{
    if (!absent(o, key)) return dil__jsonfile_num(o, key, where, min, max, out, err);
    *out = dflt;
    return DIL_OK;
}

dil_status dil__jsonfile_uint(const json_t *o, const char *key, const char *where, uint64_t max, uint64_t *out, dil_err *err)
{
    int64_t v;
    dil_status s = dil__json_int(o, key, where, 0, (int64_t)max, &v, err);
    if (s == DIL_OK) *out = (uint64_t)v;
    return s;
}

dil_status dil__jsonfile_uint_or(const json_t *o, const char *key, const char *where, uint64_t max, uint64_t dflt, uint64_t *out,
                                 dil_err *err)
{
    if (!absent(o, key)) return dil__jsonfile_uint(o, key, where, max, out, err);
    *out = dflt;
    return DIL_OK;
}

dil_status dil__jsonfile_u32(const json_t *o, const char *key, const char *where, uint32_t max, uint32_t *out, dil_err *err)
{
    uint64_t v;
    dil_status s = dil__jsonfile_uint(o, key, where, max, &v, err);
    if (s == DIL_OK) *out = (uint32_t)v;
    return s;
}

dil_status dil__jsonfile_u32_or(const json_t *o, const char *key, const char *where, uint32_t max, uint32_t dflt, uint32_t *out,
                                dil_err *err)
{
    if (!absent(o, key)) return dil__jsonfile_u32(o, key, where, max, out, err);
    *out = dflt;
    return DIL_OK;
}

dil_status dil__jsonfile_nums(const json_t *o, const char *key, const char *where, size_t n, double min, double max, dil_arena *a,
                              double **out, dil_err *err)
{
    json_t *arr;
    dil_status s = dil__json_arr(o, key, where, &arr, err);
    if (s != DIL_OK) return s;
    if (json_array_size(arr) != n)
        return dil_fail(err, DIL_EFORMAT, "%s: \"%s\" has %zu numbers, expected %zu", where, key, json_array_size(arr), n);
    double *v = dil_arena_push(a, n, sizeof *v);
    if (!v) return dil__jsonfile_nomem(where, err);
    for (size_t i = 0; i < n; i++) {
        const json_t *e = json_array_get(arr, i);
        v[i] = json_is_number(e) ? json_number_value(e) : (double)NAN;
        if (!(v[i] >= min && v[i] <= max))
            return dil_fail(err, DIL_EFORMAT, "%s: \"%s\"[%zu] is not a number within %g to %g", where, key, i, min, max);
    }
    *out = v;
    return DIL_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct dil__name *)a)->name, ((const struct dil__name *)b)->name);
}

dil_status dil__names_init(dil__names *t, const char *const *names, uint32_t n, const char *where, dil_arena *a, dil_err *err)
{
    struct dil__name *sorted = dil_arena_push(a, n, sizeof *sorted);
    if (!sorted) return dil__jsonfile_nomem(where, err);
    for (uint32_t i = 0; i < n; i++) sorted[i] = (struct dil__name){names[i], i};
    qsort(sorted, n, sizeof *sorted, by_name);
    for (uint32_t i = 1; i < n; i++) {
        if (strcmp(sorted[i - 1].name, sorted[i].name) == 0)
            return dil_fail(err, DIL_EFORMAT, "%s: the name \"%s\" occurs twice", where, sorted[i].name);
    }
    *t = (dil__names){sorted, n};
    return DIL_OK;
}

uint32_t dil__names_find(const dil__names *t, const char *name)
{
    struct dil__name key = {name, 0};
    const struct dil__name *hit = t->n ? bsearch(&key, t->sorted, t->n, sizeof key, by_name) : NULL;
    return hit ? hit->index : UINT32_MAX;
}
