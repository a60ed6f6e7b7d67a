/* The safetensors format: eight bytes of header length, a JSON object of tensors, the data. Offsets count from the data's
 * start; ranges may not overlap. Source: the format's specification (safetensors README). */
#include "model/checkpoint.h"

#include "base/json.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

typedef struct span {
    uint64_t begin, end;
    const char *name;
} span;

static const struct {
    const char *name;
    dil_type type;
    uint32_t bytes;
} dtypes[] = {{"F32", DIL_TYPE_F32, 4}, {"F16", DIL_TYPE_F16, 2}, {"BF16", DIL_TYPE_BF16, 2}, {"F64", -1, 8}, {"I64", -1, 8},
              {"I32", -1, 4},           {"I16", -1, 2},           {"I8", -1, 1},              {"U8", -1, 1},  {"U16", -1, 2},
              {"U32", -1, 4},           {"U64", -1, 8},           {"BOOL", -1, 1},            {"F8_E4M3", -1, 1}, {"F8_E5M2", -1, 1}};

typedef struct reader {
    const char *file, *name; /* name: the tensor's */
    const uint8_t *data;     /* after the header */
    uint64_t len;
    dil_err *err;
} reader;

static dil_status bad(const reader *r, const char *why)
{
    return dil_fail(r->err, DIL_EFORMAT, "%s: %.100s: %s", r->file, r->name, why);
}

/* A natural number of an array; jansson has already refused what does not fit a signed 64-bit integer. */
static bool natural(const json_t *array, size_t i, uint64_t *out)
{
    const json_t *v = json_array_get(array, i);
    if (!json_is_integer(v) || json_integer_value(v) < 0) return false;
    *out = (uint64_t)json_integer_value(v);
    return true;
}

static dil_status read_dtype(const reader *r, const json_t *o, dil__ckpt_tensor *t, uint32_t *elem_bytes)
{
    const char *name = json_string_value(json_object_get(o, "dtype"));
    if (!name) return bad(r, "\"dtype\" is missing or not a string");
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
        if (strcmp(dtypes[i].name, name) != 0) continue;
        t->type = dtypes[i].type;
        t->type_name = dtypes[i].name;
        *elem_bytes = dtypes[i].bytes;
        return DIL_OK;
    }
    return dil_fail(r->err, DIL_EUNSUPPORTED, "%s: %.100s: unknown dtype \"%.20s\"", r->file, r->name, name);
}

static dil_status read_shape(const reader *r, const json_t *o, dil__ckpt_tensor *t, uint64_t *elems)
{
    const json_t *shape = json_object_get(o, "shape");
    if (!json_is_array(shape)) return bad(r, "\"shape\" is missing or not an array");
    if (json_array_size(shape) > 4) return dil_fail(r->err, DIL_EUNSUPPORTED, "%s: %.100s: %zu dimensions, at most 4 are read", r->file, r->name, json_array_size(shape));
    t->n_dims = (uint32_t)json_array_size(shape);
    *elems = 1;
    for (uint32_t d = 0; d < t->n_dims; d++) {
        if (!natural(shape, d, &t->shape[d])) return bad(r, "a dimension is not a natural number");
        if (!dil_mul_u64(*elems, t->shape[d], elems)) return bad(r, "its number of elements overflows");
    }
    return DIL_OK;
}

static dil_status read_tensor(const reader *r, const json_t *o, dil__ckpt_tensor *t, span *at)
{
    uint32_t elem_bytes = 0;
    uint64_t elems = 0;
    if (!json_is_object(o)) return bad(r, "not an object");
    dil_status s = read_dtype(r, o, t, &elem_bytes);
    if (s == DIL_OK) s = read_shape(r, o, t, &elems);
    if (s != DIL_OK) return s;
    const json_t *offsets = json_object_get(o, "data_offsets");
    if (json_array_size(offsets) != 2 || !natural(offsets, 0, &at->begin) || !natural(offsets, 1, &at->end))
        return bad(r, "\"data_offsets\" is not a pair of natural numbers");
    if (!dil_mul_u64(elems, elem_bytes, &t->bytes)) return bad(r, "its size overflows");
    if (at->begin > at->end || at->end - at->begin != t->bytes)
        return dil_fail(r->err, DIL_EFORMAT, "%s: %.100s: offsets %" PRIu64 " to %" PRIu64 ", but its shape takes %" PRIu64 " bytes", r->file, r->name,
                        at->begin, at->end, t->bytes);
    if (at->end > r->len)
        return dil_fail(r->err, DIL_EFORMAT, "%s: %.100s: ends at byte %" PRIu64 " of %" PRIu64 " bytes of data: truncated?", r->file, r->name, at->end, r->len);
    t->data = t->type >= 0 ? r->data + at->begin : NULL;
    return DIL_OK;
}

static int by_begin(const void *a, const void *b)
{
    const span *x = a, *y = b;
    if (x->begin != y->begin) return (x->begin > y->begin) - (x->begin < y->begin);
    return (x->end > y->end) - (x->end < y->end); /* empty tensors first */
}

static dil_status read_table(dil__ckpt *c, reader *r, json_t *doc)
{
    size_t n = 0;
    span *spans = dil_arena_push(c->arena, json_object_size(doc), sizeof *spans);
    if (!spans) return dil_fail(r->err, DIL_ELIMIT, "%s: %zu tensors are too many", r->file, json_object_size(doc));
    json_t *o;
    json_object_foreach(doc, r->name, o)
    {
        if (strcmp(r->name, "__metadata__") == 0) continue;
        dil__ckpt_tensor t = {.name = r->name, .file = r->file};
        dil_status s = read_tensor(r, o, &t, &spans[n]);
        if (s == DIL_OK) s = dil__ckpt_add(c, &t, r->err);
        if (s != DIL_OK) return s;
        spans[n++].name = c->tensor[c->n - 1].name;
    }
    qsort(spans, n, sizeof *spans, by_begin);
    for (size_t i = 1; i < n; i++) {
        if (spans[i].begin < spans[i - 1].end)
            return dil_fail(r->err, DIL_EFORMAT, "%s: %.100s begins at %" PRIu64 ", within %.100s (%" PRIu64 " to %" PRIu64 ")", r->file, spans[i].name,
                            spans[i].begin, spans[i - 1].name, spans[i - 1].begin, spans[i - 1].end);
    }
    return DIL_OK;
}

dil_status dil__ckpt_add_safetensors(dil__ckpt *c, const char *file, const uint8_t *data, size_t len, dil_err *err)
{
    uint64_t n = 0;
    if (len < sizeof n) return dil_fail(err, DIL_EFORMAT, "%s: not a safetensors file (%zu bytes)", file, len);
    memcpy(&n, data, sizeof n);
    if (n > len - sizeof n)
        return dil_fail(err, DIL_EFORMAT, "%s: a header of %" PRIu64 " bytes in a file of %zu: truncated, or not a safetensors file", file, n, len);
    if (n > DIL__CKPT_HEADER_MAX) return dil_fail(err, DIL_ELIMIT, "%s: a header of %" PRIu64 " bytes, the limit is %u", file, n, DIL__CKPT_HEADER_MAX);
    reader r = {.file = file, .data = data + sizeof n + n, .len = len - sizeof n - n, .err = err};
    json_t *doc = NULL;
    dil_status s = dil__json_parse(file, (const char *)data + sizeof n, (size_t)n, &doc, err);
    if (s == DIL_OK && !json_is_object(doc)) s = dil_fail(err, DIL_EFORMAT, "%s: the header is not a JSON object", file);
    if (s == DIL_OK) s = read_table(c, &r, doc);
    json_decref(doc);
    return s;
}
