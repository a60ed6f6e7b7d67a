/* Reading GGUF: one pass over the mapped bytes with a cursor that never passes their end; every count is compared with the
 * bytes that it would need before anything is allocated for it.
 *
 * Names are looked up by binary search over sorted pointers. A hash table was rejected: names come from outside, and colliding
 * ones would make opening quadratic. Overlap of tensors is found by sorting their ranges. */
#include <dilemma/gguf.h>

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "GGUF values are taken from the mapping as they are");

typedef struct span { /* of a tensor, relative to the start of the data */
    uint64_t begin, end;
    const dil_tensor *tensor;
} span;

struct dil_gguf {
    dil_map map;
    const uint8_t *data;
    size_t len, header_len;
    char *path;
    dil_arena *arena;
    dil_gguf_kv *kv;
    const dil_gguf_kv **kv_sorted;
    dil_tensor *tensor;
    const dil_tensor **tensor_sorted;
    size_t n_kv, n_tensors;
};

typedef struct cursor {
    const uint8_t *data;
    size_t pos, len;
    const char *file;
    dil_arena *arena;
    dil_err *err;
} cursor;

enum { MIN_ALIGN = 8, MAX_ALIGN = 1 << 20, DEFAULT_ALIGN = 32 };
/* The least bytes that a pair (key length, one byte of key, kind, one byte of value) and a tensor's line take. */
enum { MIN_KV_BYTES = 8 + 1 + 4 + 1, MIN_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8 };

static const uint8_t kind_bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

/* --- the cursor ---------------------------------------------------------------------------------------------------- */

static size_t left(const cursor *c)
{
    return c->len - c->pos;
}

static dil_status need(cursor *c, uint64_t n, const char *what)
{
    if (n <= left(c)) return DIL_OK;
    return dil_fail(c->err, DIL_EFORMAT, "%s: truncated at byte %zu: %s takes %" PRIu64 " bytes, %zu are left", c->file, c->pos,
                    what, n, left(c));
}

static dil_status take_u32(cursor *c, const char *what, uint32_t *out)
{
    dil_status s = need(c, sizeof *out, what);
    if (s != DIL_OK) return s;
    memcpy(out, c->data + c->pos, sizeof *out);
    c->pos += sizeof *out;
    return DIL_OK;
}

static dil_status take_u64(cursor *c, const char *what, uint64_t *out)
{
    dil_status s = need(c, sizeof *out, what);
    if (s != DIL_OK) return s;
    memcpy(out, c->data + c->pos, sizeof *out);
    c->pos += sizeof *out;
    return DIL_OK;
}

/* A length and that many bytes, borrowed. */
static dil_status take_bytes(cursor *c, const char *what, const char **out, uint64_t *len)
{
    dil_status s = take_u64(c, what, len);
    if (s == DIL_OK) s = need(c, *len, what);
    if (s != DIL_OK) return s;
    *out = (const char *)c->data + c->pos;
    c->pos += (size_t)*len;
    return DIL_OK;
}

static dil_status no_memory(cursor *c, const char *what)
{
    return dil_fail(c->err, DIL_EMEMORY, "%s: no memory for %s", c->file, what);
}

/* --- metadata ------------------------------------------------------------------------------------------------------ */

static dil_status read_key(cursor *c, const char **key)
{
    const char *s;
    uint64_t n;
    dil_status st = take_bytes(c, "a metadata key", &s, &n);
    if (st != DIL_OK) return st;
    if (n == 0) return dil_fail(c->err, DIL_EFORMAT, "%s: empty metadata key at byte %zu", c->file, c->pos);
    if (n > DIL_GGUF_KEY_MAX)
        return dil_fail(c->err, DIL_ELIMIT, "%s: metadata key of %" PRIu64 " bytes at byte %zu, the limit is %d", c->file, n,
                        c->pos, DIL_GGUF_KEY_MAX);
    if (memchr(s, 0, (size_t)n))
        return dil_fail(c->err, DIL_EFORMAT, "%s: metadata key at byte %zu holds a zero byte", c->file, c->pos);
    *key = dil_arena_strdup(c->arena, s, (size_t)n);
    return *key ? DIL_OK : no_memory(c, "metadata keys");
}

static dil_status read_kind(cursor *c, const char *key, dil_gguf_kind *kind)
{
    uint32_t k;
    dil_status s = take_u32(c, key, &k);
    if (s != DIL_OK) return s;
    if (k > DIL_GGUF_F64) return dil_fail(c->err, DIL_EFORMAT, "%s: %s: unknown kind of value %u", c->file, key, k);
    *kind = (dil_gguf_kind)k;
    return DIL_OK;
}

/* Walks over the strings of an array once and remembers where each begins. Each takes at least its length's eight bytes, so
 * the index is never larger than what the file holds. */
static dil_status index_strings(cursor *c, dil_gguf_kv *kv)
{
    if (kv->n > left(c) / 8)
        return dil_fail(c->err, DIL_EFORMAT, "%s: %s: %" PRIu64 " strings cannot fit into the %zu bytes left", c->file, kv->key,
                        kv->n, left(c));
    uint64_t *index = dil_arena_push(c->arena, (size_t)kv->n, sizeof *index);
    if (!index) return no_memory(c, kv->key);
    size_t start = c->pos;
    for (uint64_t i = 0; i < kv->n; i++) {
        const char *s;
        uint64_t len;
        index[i] = c->pos - start;
        dil_status st = take_bytes(c, kv->key, &s, &len);
        if (st != DIL_OK) return st;
    }
    kv->data = c->data + start;
    kv->bytes = c->pos - start;
    kv->index = index;
    return DIL_OK;
}

static dil_status read_array(cursor *c, dil_gguf_kv *kv)
{
    dil_status s = read_kind(c, kv->key, &kv->elem_kind);
    if (s == DIL_OK) s = take_u64(c, kv->key, &kv->n);
    if (s != DIL_OK) return s;
    if (kv->elem_kind == DIL_GGUF_ARRAY)
        return dil_fail(c->err, DIL_EUNSUPPORTED, "%s: %s: arrays of arrays are not supported", c->file, kv->key);
    if (kv->elem_kind == DIL_GGUF_STRING) return index_strings(c, kv);
    uint64_t bytes;
    if (!dil_mul_u64(kv->n, kind_bytes[kv->elem_kind], &bytes) || bytes > left(c))
        return dil_fail(c->err, DIL_EFORMAT, "%s: %s: an array of %" PRIu64 " elements exceeds the %zu bytes left", c->file,
                        kv->key, kv->n, left(c));
    kv->data = c->data + c->pos;
    kv->bytes = bytes;
    c->pos += (size_t)bytes;
    return DIL_OK;
}

static dil_status read_kv(cursor *c, dil_gguf_kv *kv)
{
    dil_status s = read_key(c, &kv->key);
    if (s == DIL_OK) s = read_kind(c, kv->key, &kv->kind);
    if (s != DIL_OK) return s;
    if (kv->kind == DIL_GGUF_ARRAY) return read_array(c, kv);
    kv->n = 1;
    if (kv->kind == DIL_GGUF_STRING) {
        const char *text = NULL;
        s = take_bytes(c, kv->key, &text, &kv->n);
        kv->data = text;
        kv->bytes = kv->n;
        return s;
    }
    kv->bytes = kind_bytes[kv->kind];
    s = need(c, kv->bytes, kv->key);
    if (s != DIL_OK) return s;
    kv->data = c->data + c->pos;
    c->pos += (size_t)kv->bytes;
    if (kv->kind == DIL_GGUF_BOOL && *(const uint8_t *)kv->data > 1)
        return dil_fail(c->err, DIL_EFORMAT, "%s: %s: a boolean with the value %u", c->file, kv->key, *(const uint8_t *)kv->data);
    return DIL_OK;
}

static int by_key(const void *a, const void *b)
{
    return strcmp((*(const dil_gguf_kv *const *)a)->key, (*(const dil_gguf_kv *const *)b)->key);
}

static dil_status read_kvs(cursor *c, dil_gguf *g, uint64_t n)
{
    if (n > DIL_GGUF_KV_MAX)
        return dil_fail(c->err, DIL_ELIMIT, "%s: %" PRIu64 " metadata pairs, the limit is %d", c->file, n, DIL_GGUF_KV_MAX);
    if (n > left(c) / MIN_KV_BYTES)
        return dil_fail(c->err, DIL_EFORMAT, "%s: %" PRIu64 " metadata pairs cannot fit into the %zu bytes left", c->file, n, left(c));
    g->kv = dil_arena_push(c->arena, (size_t)n, sizeof *g->kv);
    g->kv_sorted = dil_arena_push(c->arena, (size_t)n, sizeof(void *));
    if (!g->kv || !g->kv_sorted) return no_memory(c, "the metadata");
    for (size_t i = 0; i < n; i++) {
        dil_status s = read_kv(c, &g->kv[i]);
        if (s != DIL_OK) return s;
        g->kv_sorted[i] = &g->kv[i];
    }
    g->n_kv = (size_t)n;
    qsort(g->kv_sorted, g->n_kv, sizeof(void *), by_key);
    for (size_t i = 1; i < g->n_kv; i++) {
        if (strcmp(g->kv_sorted[i - 1]->key, g->kv_sorted[i]->key) == 0)
            return dil_fail(c->err, DIL_EFORMAT, "%s: metadata key %s appears twice", c->file, g->kv_sorted[i]->key);
    }
    return DIL_OK;
}

static dil_status read_alignment(const dil_gguf *g, uint64_t *align, dil_err *err)
{
    *align = DEFAULT_ALIGN;
    if (!dil_gguf_kv_find(g, "general.alignment")) return DIL_OK;
    int64_t a;
    if (!dil_gguf_get_int(g, "general.alignment", &a))
        return dil_fail(err, DIL_EFORMAT, "%s: general.alignment is not an integer", g->path);
    if (a < MIN_ALIGN || a > MAX_ALIGN || (a & (a - 1)) != 0)
        return dil_fail(err, DIL_EFORMAT, "%s: general.alignment is %" PRId64 ", expected a power of two from %d to %d", g->path, a,
                        MIN_ALIGN, MAX_ALIGN);
    *align = (uint64_t)a;
    return DIL_OK;
}

/* --- tensors ------------------------------------------------------------------------------------------------------- */

static dil_status read_name(cursor *c, size_t i, char name[DIL_TENSOR_NAME_MAX])
{
    const char *s;
    uint64_t n;
    dil_status st = take_bytes(c, "a tensor name", &s, &n);
    if (st != DIL_OK) return st;
    if (n == 0 || n >= DIL_TENSOR_NAME_MAX || memchr(s, 0, (size_t)n))
        return dil_fail(c->err, DIL_EFORMAT, "%s: the name of tensor %zu has %" PRIu64 " bytes, expected 1 to %d and none zero",
                        c->file, i, n, DIL_TENSOR_NAME_MAX - 1);
    memcpy(name, s, (size_t)n);
    name[n] = 0;
    return DIL_OK;
}

static dil_status read_shape(cursor *c, dil_tensor *t)
{
    dil_status s = take_u32(c, t->name, &t->n_dims);
    if (s != DIL_OK) return s;
    if (t->n_dims < 1 || t->n_dims > DIL_TENSOR_DIMS)
        return dil_fail(c->err, DIL_EFORMAT, "%s: %s: %u dimensions, expected 1 to %d", c->file, t->name, t->n_dims, DIL_TENSOR_DIMS);
    uint64_t elems = 1;
    for (uint32_t d = 0; d < DIL_TENSOR_DIMS; d++) {
        t->ne[d] = 1;
        if (d >= t->n_dims) continue;
        s = take_u64(c, t->name, &t->ne[d]);
        if (s != DIL_OK) return s;
        if (t->ne[d] == 0) return dil_fail(c->err, DIL_EFORMAT, "%s: %s: dimension %u is 0", c->file, t->name, d);
        if (!dil_mul_u64(elems, t->ne[d], &elems) || elems > INT64_MAX)
            return dil_fail(c->err, DIL_EFORMAT, "%s: %s: too many elements: dimension %u is %" PRIu64, c->file, t->name, d, t->ne[d]);
    }
    return DIL_OK;
}

static dil_status read_type(cursor *c, dil_tensor *t)
{
    uint32_t type;
    dil_status s = take_u32(c, t->name, &type);
    if (s != DIL_OK) return s;
    const dil_type_info *info = type < DIL_TYPE_LIMIT ? dil_type_get((dil_type)type) : NULL;
    if (!info) return dil_fail(c->err, DIL_EUNSUPPORTED, "%s: %s: unknown tensor type %u", c->file, t->name, type);
    t->type = (dil_type)type;
    uint64_t row;
    if (!dil_type_row_bytes(t->type, t->ne[0], &row))
        return dil_fail(c->err, DIL_EFORMAT, "%s: %s: rows of %" PRIu64 " elements do not divide into blocks of %u (%s)", c->file,
                        t->name, t->ne[0], info->block_elems, info->name);
    if (!dil_mul_u64(row, t->ne[1] * t->ne[2] * t->ne[3], &t->bytes) || t->bytes > INT64_MAX)
        return dil_fail(c->err, DIL_EFORMAT, "%s: %s: its size overflows: %" PRIu64 " rows of %" PRIu64 " bytes", c->file, t->name,
                        t->ne[1] * t->ne[2] * t->ne[3], row);
    return DIL_OK;
}

static dil_status read_tensor(cursor *c, size_t i, uint64_t align, dil_tensor *t, span *at)
{
    dil_status s = read_name(c, i, t->name);
    if (s == DIL_OK) s = read_shape(c, t);
    if (s == DIL_OK) s = read_type(c, t);
    if (s == DIL_OK) s = take_u64(c, t->name, &at->begin);
    if (s != DIL_OK) return s;
    if (at->begin % align != 0)
        return dil_fail(c->err, DIL_EFORMAT, "%s: %s: offset %" PRIu64 " is not a multiple of the alignment %" PRIu64, c->file,
                        t->name, at->begin, align);
    if (!dil_add_u64(at->begin, t->bytes, &at->end))
        return dil_fail(c->err, DIL_EFORMAT, "%s: %s: offset %" PRIu64 " plus %" PRIu64 " bytes overflows", c->file, t->name,
                        at->begin, t->bytes);
    at->tensor = t;
    return DIL_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const dil_tensor *const *)a)->name, (*(const dil_tensor *const *)b)->name);
}

static int by_begin(const void *a, const void *b)
{
    const span *x = a, *y = b;
    return (x->begin > y->begin) - (x->begin < y->begin);
}

static dil_status check_overlap(const dil_gguf *g, span *spans, dil_err *err)
{
    qsort(spans, g->n_tensors, sizeof *spans, by_begin);
    for (size_t i = 1; i < g->n_tensors; i++) {
        if (spans[i].begin < spans[i - 1].end)
            return dil_fail(err, DIL_EFORMAT, "%s: %s begins at %" PRIu64 ", within %s (%" PRIu64 " to %" PRIu64 ")", g->path,
                            spans[i].tensor->name, spans[i].begin, spans[i - 1].tensor->name, spans[i - 1].begin, spans[i - 1].end);
    }
    return DIL_OK;
}

/* Gives each tensor its bytes, which must end within the file. */
static dil_status place(dil_gguf *g, const span *spans, uint64_t align, dil_err *err)
{
    uint64_t start = (g->header_len + align - 1) / align * align;
    for (size_t i = 0; i < g->n_tensors; i++) {
        uint64_t end;
        if (!dil_add_u64(start, spans[i].end, &end) || end > g->len)
            return dil_fail(err, DIL_EFORMAT, "%s: %s: ends at byte %" PRIu64 " of a file of %zu bytes: it is cut short, fetch it again", g->path, g->tensor[i].name,
                            end, g->len);
        g->tensor[i].data = g->data + start + spans[i].begin;
    }
    return DIL_OK;
}

static dil_status read_tensors(cursor *c, dil_gguf *g, uint64_t n, bool header_only)
{
    uint64_t align = 0;
    dil_status s = read_alignment(g, &align, c->err);
    if (s != DIL_OK) return s;
    g->tensor = dil_arena_push(c->arena, (size_t)n, sizeof *g->tensor);
    g->tensor_sorted = dil_arena_push(c->arena, (size_t)n, sizeof(void *));
    span *spans = dil_arena_push(c->arena, (size_t)n, sizeof *spans);
    if (!g->tensor || !g->tensor_sorted || !spans) return no_memory(c, "the tensor table");
    for (size_t i = 0; i < n; i++) {
        s = read_tensor(c, i, align, &g->tensor[i], &spans[i]);
        if (s != DIL_OK) return s;
        g->tensor_sorted[i] = &g->tensor[i];
    }
    g->n_tensors = (size_t)n;
    g->header_len = c->pos;
    qsort(g->tensor_sorted, g->n_tensors, sizeof(void *), by_name);
    for (size_t i = 1; i < g->n_tensors; i++) {
        if (strcmp(g->tensor_sorted[i - 1]->name, g->tensor_sorted[i]->name) == 0)
            return dil_fail(c->err, DIL_EFORMAT, "%s: tensor %s appears twice", c->file, g->tensor_sorted[i]->name);
    }
    if (!header_only) s = place(g, spans, align, c->err);
    return s == DIL_OK ? check_overlap(g, spans, c->err) : s;
}

/* --- opening ------------------------------------------------------------------------------------------------------- */

static dil_status read_version(cursor *c)
{
    if (left(c) < 8 || memcmp(c->data, "GGUF", 4) != 0)
        return dil_fail(c->err, DIL_EFORMAT, "%s: not a GGUF file (%zu bytes, no \"GGUF\" at the start)", c->file, c->len);
    c->pos = 4;
    uint32_t version;
    dil_status s = take_u32(c, "the version", &version);
    if (s != DIL_OK) return s;
    if (version != 0 && (version & 0xffff) == 0)
        return dil_fail(c->err, DIL_EUNSUPPORTED, "%s: a big-endian GGUF file; only little-endian ones are supported", c->file);
    if (version != 2 && version != 3)
        return dil_fail(c->err, DIL_EUNSUPPORTED, "%s: GGUF version %u; versions 2 and 3 are supported", c->file, version);
    return DIL_OK;
}

static dil_status read_all(cursor *c, dil_gguf *g, bool header_only)
{
    uint64_t n_tensors = 0, n_kv = 0;
    dil_status s = read_version(c);
    if (s == DIL_OK) s = take_u64(c, "the number of tensors", &n_tensors);
    if (s == DIL_OK) s = take_u64(c, "the number of metadata pairs", &n_kv);
    if (s != DIL_OK) return s;
    if (n_tensors > DIL_GGUF_TENSORS_MAX)
        return dil_fail(c->err, DIL_ELIMIT, "%s: %" PRIu64 " tensors, the limit is %d", c->file, n_tensors, DIL_GGUF_TENSORS_MAX);
    if (n_tensors > left(c) / MIN_TENSOR_BYTES)
        return dil_fail(c->err, DIL_EFORMAT, "%s: %" PRIu64 " tensors cannot fit into the %zu bytes left", c->file, n_tensors, left(c));
    s = read_kvs(c, g, n_kv);
    return s == DIL_OK ? read_tensors(c, g, n_tensors, header_only) : s;
}

static dil_status open_bytes(dil_gguf *g, bool header_only, dil_err *err)
{
    /* Everything that is pushed stands for bytes of the file, a few times over. */
    size_t max = g->len > (SIZE_MAX >> 5) ? SIZE_MAX : (g->len << 4) + (1 << 20);
    g->arena = dil_arena_new(max);
    if (!g->arena) return dil_fail(err, DIL_EMEMORY, "%s: no memory", g->path);
    cursor c = {.data = g->data, .len = g->len, .file = g->path, .arena = g->arena, .err = err};
    return read_all(&c, g, header_only);
}

static dil_status finish(dil_gguf *g, dil_status s, dil_gguf **out)
{
    if (s == DIL_OK) *out = g;
    else dil_gguf_close(g);
    return s;
}

dil_status dil_gguf_open(const char *path, dil_gguf **out, dil_err *err)
{
    dil_gguf *g = calloc(1, sizeof *g);
    if (g) g->path = strdup(path);
    if (!g || !g->path) {
        free(g);
        return dil_fail(err, DIL_EMEMORY, "%s: no memory", path);
    }
    g->map.fd = -1;
    dil_status s = dil_map_open(path, &g->map, err);
    if (s != DIL_OK) return finish(g, s, out);
    g->data = g->map.data;
    g->len = g->map.len;
    return finish(g, open_bytes(g, false, err), out);
}

dil_status dil_gguf_open_memory(const void *data, size_t len, bool header_only, dil_gguf **out, dil_err *err)
{
    dil_gguf *g = calloc(1, sizeof *g);
    if (g) g->path = strdup("(memory)");
    if (!g || !g->path) {
        free(g);
        return dil_fail(err, DIL_EMEMORY, "no memory");
    }
    g->map.fd = -1;
    g->data = data;
    g->len = len;
    return finish(g, open_bytes(g, header_only, err), out);
}

void dil_gguf_close(dil_gguf *g)
{
    if (!g) return;
    if (g->map.fd >= 0) dil_map_close(&g->map);
    dil_arena_free(g->arena);
    free(g->path);
    free(g);
}

/* --- getters ------------------------------------------------------------------------------------------------------- */

size_t dil_gguf_n_kv(const dil_gguf *g)
{
    return g->n_kv;
}

const dil_gguf_kv *dil_gguf_kv_at(const dil_gguf *g, size_t i)
{
    return i < g->n_kv ? &g->kv[i] : NULL;
}

const dil_gguf_kv *dil_gguf_kv_find(const dil_gguf *g, const char *key)
{
    dil_gguf_kv probe = {.key = key};
    const dil_gguf_kv *p = &probe, **hit = NULL;
    if (g->n_kv) hit = bsearch(&p, g->kv_sorted, g->n_kv, sizeof(void *), by_key);
    return hit ? *hit : NULL;
}

static bool int_at(dil_gguf_kind kind, const uint8_t *p, int64_t *out)
{
    union {
        uint8_t u8;
        int8_t i8;
        uint16_t u16;
        int16_t i16;
        uint32_t u32;
        int32_t i32;
        uint64_t u64;
        int64_t i64;
    } v;
    memcpy(&v, p, kind_bytes[kind]);
    switch (kind) {
    case DIL_GGUF_U8: *out = v.u8; return true;
    case DIL_GGUF_I8: *out = v.i8; return true;
    case DIL_GGUF_U16: *out = v.u16; return true;
    case DIL_GGUF_I16: *out = v.i16; return true;
    case DIL_GGUF_U32: *out = v.u32; return true;
    case DIL_GGUF_I32: *out = v.i32; return true;
    case DIL_GGUF_I64: *out = v.i64; return true;
    case DIL_GGUF_U64:
        if (v.u64 > INT64_MAX) return false;
        *out = (int64_t)v.u64;
        return true;
    default: return false;
    }
}

static bool num_at(dil_gguf_kind kind, const uint8_t *p, double *out)
{
    int64_t i;
    float f;
    switch (kind) {
    case DIL_GGUF_F32:
        memcpy(&f, p, sizeof f);
        *out = (double)f;
        return true;
    case DIL_GGUF_F64: memcpy(out, p, sizeof *out); return true;
    default:
        if (!int_at(kind, p, &i)) return false;
        *out = (double)i;
        return true;
    }
}

bool dil_gguf_get_int(const dil_gguf *g, const char *key, int64_t *out)
{
    const dil_gguf_kv *kv = dil_gguf_kv_find(g, key);
    return kv && int_at(kv->kind, kv->data, out);
}

bool dil_gguf_get_num(const dil_gguf *g, const char *key, double *out)
{
    const dil_gguf_kv *kv = dil_gguf_kv_find(g, key);
    return kv && num_at(kv->kind, kv->data, out);
}

bool dil_gguf_get_bool(const dil_gguf *g, const char *key, bool *out)
{
    const dil_gguf_kv *kv = dil_gguf_kv_find(g, key);
    if (!kv || kv->kind != DIL_GGUF_BOOL) return false;
    *out = *(const uint8_t *)kv->data != 0;
    return true;
}

bool dil_gguf_get_str(const dil_gguf *g, const char *key, const char **s, size_t *len)
{
    const dil_gguf_kv *kv = dil_gguf_kv_find(g, key);
    if (!kv || kv->kind != DIL_GGUF_STRING) return false;
    *s = kv->data;
    *len = (size_t)kv->n;
    return true;
}

bool dil_gguf_arr_str(const dil_gguf_kv *kv, uint64_t i, const char **s, size_t *len)
{
    if (kv->kind != DIL_GGUF_ARRAY || kv->elem_kind != DIL_GGUF_STRING || i >= kv->n || !kv->index) return false;
    const uint8_t *p = (const uint8_t *)kv->data + kv->index[i];
    uint64_t n;
    memcpy(&n, p, sizeof n);
    *s = (const char *)p + sizeof n;
    *len = (size_t)n;
    return true;
}

bool dil_gguf_arr_int(const dil_gguf_kv *kv, uint64_t i, int64_t *out)
{
    if (kv->kind != DIL_GGUF_ARRAY || i >= kv->n) return false;
    return int_at(kv->elem_kind, (const uint8_t *)kv->data + i * kind_bytes[kv->elem_kind], out);
}

bool dil_gguf_arr_num(const dil_gguf_kv *kv, uint64_t i, double *out)
{
    if (kv->kind != DIL_GGUF_ARRAY || i >= kv->n) return false;
    return num_at(kv->elem_kind, (const uint8_t *)kv->data + i * kind_bytes[kv->elem_kind], out);
}

size_t dil_gguf_n_tensors(const dil_gguf *g)
{
    return g->n_tensors;
}

const dil_tensor *dil_gguf_tensor_at(const dil_gguf *g, size_t i)
{
    return i < g->n_tensors ? &g->tensor[i] : NULL;
}

const dil_tensor *dil_gguf_find(const dil_gguf *g, const char *name)
{
    size_t lo = 0, hi = g->n_tensors;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int order = strcmp(name, g->tensor_sorted[mid]->name);
        if (order == 0) return g->tensor_sorted[mid];
        if (order < 0) hi = mid;
        else lo = mid + 1;
    }
    return NULL;
}

static const dil_tensor *find_weight(void *ctx, const char *name)
{
    return dil_gguf_find(ctx, name);
}

dil_weights dil_gguf_weights(const dil_gguf *g)
{
    return (dil_weights){.find = find_weight, .ctx = (void *)(uintptr_t)g};
}

const char *dil_gguf_path(const dil_gguf *g)
{
    return g->path;
}

const void *dil_gguf_header(const dil_gguf *g, size_t *len)
{
    *len = g->header_len;
    return g->data;
}
