/* Writing GGUF version 3: everything that was announced is kept (a copy of the metadata, a line per tensor), the header goes
 * out at begin, the data streams through. The file appears under its name at commit. */
#include <dilemma/gguf.h>

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

typedef struct entry { /* one metadata pair, encoded as it stands in the file after its key */
    char *key;
    uint8_t *value;
    size_t bytes;
} entry;

struct dil_gguf_writer {
    entry *kv;
    size_t n_kv, kv_cap;
    dil_tensor *tensor;
    size_t n_tensors, tensor_cap;
    uint64_t align, header_bytes;
    dil_outfile file;
    bool begun;
    size_t current;      /* the tensor whose turn it is */
    uint64_t written;    /* bytes of it so far */
};

static const uint8_t kind_bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

dil_status dil_gguf_writer_new(dil_gguf_writer **out, dil_err *err)
{
    dil_gguf_writer *w = calloc(1, sizeof *w);
    if (!w) return dil_fail(err, DIL_EMEMORY, "no memory for a GGUF writer");
    w->align = 32;
    *out = w;
    return DIL_OK;
}

void dil_gguf_writer_free(dil_gguf_writer *w)
{
    if (!w) return;
    if (w->begun) dil_outfile_abort(&w->file);
    for (size_t i = 0; i < w->n_kv; i++) {
        free(w->kv[i].key);
        free(w->kv[i].value);
    }
    free(w->kv);
    free(w->tensor);
    free(w);
}

/* --- metadata ------------------------------------------------------------------------------------------------------ */

/* Makes room for one more element of an array that grows by doubling. */
static bool grow(void **array, size_t n, size_t *cap, size_t size)
{
    if (n < *cap) return true;
    size_t more = *cap ? *cap * 2 : 64;
    void *p = realloc(*array, more * size);
    if (!p) return false;
    *array = p;
    *cap = more;
    return true;
}

static entry *find_entry(const dil_gguf_writer *w, const char *key)
{
    for (size_t i = 0; i < w->n_kv; i++) {
        if (strcmp(w->kv[i].key, key) == 0) return &w->kv[i];
    }
    return NULL;
}

/* Takes over value. */
static dil_status put_entry(dil_gguf_writer *w, const char *key, uint8_t *value, size_t bytes, dil_err *err)
{
    entry *e = find_entry(w, key);
    if (e) {
        w->header_bytes -= e->bytes;
        free(e->value);
        e->value = value;
        e->bytes = bytes;
        w->header_bytes += bytes;
        return DIL_OK;
    }
    char *copy = strdup(key);
    if (!copy || !grow((void **)&w->kv, w->n_kv, &w->kv_cap, sizeof *w->kv)) {
        free(copy);
        free(value);
        return dil_fail(err, DIL_EMEMORY, "%s: no memory", key);
    }
    w->kv[w->n_kv++] = (entry){.key = copy, .value = value, .bytes = bytes};
    w->header_bytes += 8 + strlen(key) + bytes;
    return DIL_OK;
}

static dil_status check_kv(const dil_gguf_writer *w, const dil_gguf_kv *kv, dil_err *err)
{
    size_t len = strlen(kv->key);
    if (w->begun) return dil_fail(err, DIL_EINTERNAL, "%s: metadata after the file was begun", kv->key);
    if (len == 0 || len > DIL_GGUF_KEY_MAX)
        return dil_fail(err, DIL_ELIMIT, "metadata key of %zu bytes, allowed 1 to %d", len, DIL_GGUF_KEY_MAX);
    if (w->n_kv >= DIL_GGUF_KV_MAX)
        return dil_fail(err, DIL_ELIMIT, "%s: more than %d metadata pairs", kv->key, DIL_GGUF_KV_MAX);
    if (kv->bytes > DIL_GGUF_HEADER_MAX || w->header_bytes + kv->bytes > DIL_GGUF_HEADER_MAX)
        return dil_fail(err, DIL_ELIMIT, "%s: %" PRIu64 " bytes on top of %" PRIu64 " exceed the metadata's limit of %u", kv->key,
                        kv->bytes, w->header_bytes, DIL_GGUF_HEADER_MAX);
    return DIL_OK;
}

dil_status dil_gguf_put_kv(dil_gguf_writer *w, const dil_gguf_kv *kv, dil_err *err)
{
    dil_status s = check_kv(w, kv, err);
    if (s != DIL_OK) return s;
    bool array = kv->kind == DIL_GGUF_ARRAY, counted = array || kv->kind == DIL_GGUF_STRING;
    size_t head = 4 + (array ? 4u : 0u) + (counted ? 8u : 0u), bytes = head + (size_t)kv->bytes;
    uint8_t *value = malloc(bytes);
    if (!value) return dil_fail(err, DIL_EMEMORY, "%s: no memory for %zu bytes", kv->key, bytes);
    uint32_t kind = (uint32_t)kv->kind, elem = (uint32_t)kv->elem_kind;
    memcpy(value, &kind, 4);
    if (array) memcpy(value + 4, &elem, 4);
    if (counted) memcpy(value + head - 8, &kv->n, 8);
    if (kv->bytes) memcpy(value + head, kv->data, (size_t)kv->bytes);
    return put_entry(w, kv->key, value, bytes, err);
}

dil_status dil_gguf_put_str(dil_gguf_writer *w, const char *key, const char *value, dil_err *err)
{
    size_t n = strlen(value);
    return dil_gguf_put_kv(w, &(dil_gguf_kv){.key = key, .kind = DIL_GGUF_STRING, .n = n, .data = value, .bytes = n}, err);
}

static dil_status put_scalar(dil_gguf_writer *w, const char *key, dil_gguf_kind kind, const void *v, dil_err *err)
{
    return dil_gguf_put_kv(w, &(dil_gguf_kv){.key = key, .kind = kind, .n = 1, .data = v, .bytes = kind_bytes[kind]}, err);
}

dil_status dil_gguf_put_u32(dil_gguf_writer *w, const char *key, uint32_t value, dil_err *err)
{
    return put_scalar(w, key, DIL_GGUF_U32, &value, err);
}

dil_status dil_gguf_put_f32(dil_gguf_writer *w, const char *key, float value, dil_err *err)
{
    return put_scalar(w, key, DIL_GGUF_F32, &value, err);
}

dil_status dil_gguf_put_bool(dil_gguf_writer *w, const char *key, bool value, dil_err *err)
{
    uint8_t v = value;
    return put_scalar(w, key, DIL_GGUF_BOOL, &v, err);
}

static dil_status put_array(dil_gguf_writer *w, const char *key, dil_gguf_kind kind, const void *v, size_t n, size_t bytes, dil_err *err)
{
    return dil_gguf_put_kv(
        w, &(dil_gguf_kv){.key = key, .kind = DIL_GGUF_ARRAY, .elem_kind = kind, .n = n, .data = v, .bytes = bytes}, err);
}

dil_status dil_gguf_put_strs(dil_gguf_writer *w, const char *key, const char *const *s, const size_t *len, size_t n, dil_err *err)
{
    dil_buf b;
    dil_buf_init(&b, DIL_GGUF_HEADER_MAX);
    for (size_t i = 0; i < n; i++) {
        uint64_t bytes = len ? len[i] : strlen(s[i]);
        dil_buf_append(&b, &bytes, sizeof bytes);
        dil_buf_append(&b, s[i], (size_t)bytes);
    }
    dil_status st = b.failed ? dil_fail(err, DIL_ELIMIT, "%s: %zu strings exceed the limit of %u bytes or the memory", key, n,
                                        DIL_GGUF_HEADER_MAX)
                             : put_array(w, key, DIL_GGUF_STRING, b.data, n, b.len, err);
    dil_buf_fini(&b);
    return st;
}

dil_status dil_gguf_put_i32s(dil_gguf_writer *w, const char *key, const int32_t *v, size_t n, dil_err *err)
{
    return put_array(w, key, DIL_GGUF_I32, v, n, n * sizeof *v, err);
}

dil_status dil_gguf_put_f32s(dil_gguf_writer *w, const char *key, const float *v, size_t n, dil_err *err)
{
    return put_array(w, key, DIL_GGUF_F32, v, n, n * sizeof *v, err);
}

/* --- tensors ------------------------------------------------------------------------------------------------------- */

static uint32_t dims_of(const dil_tensor *t)
{
    uint32_t n = t->n_dims;
    for (uint32_t d = DIL_TENSOR_DIMS; n == 0 && d > 0; d--) {
        if (t->ne[d - 1] > 1 || d == 1) n = d;
    }
    return n;
}

dil_status dil_gguf_put_tensor(dil_gguf_writer *w, const dil_tensor *t, dil_err *err)
{
    size_t len = strnlen(t->name, DIL_TENSOR_NAME_MAX);
    if (w->begun) return dil_fail(err, DIL_EINTERNAL, "%.63s: a tensor announced after the file was begun", t->name);
    if (len == 0 || len == DIL_TENSOR_NAME_MAX)
        return dil_fail(err, DIL_EFORMAT, "tensor name of %zu bytes, allowed 1 to %d", len, DIL_TENSOR_NAME_MAX - 1);
    if (w->n_tensors >= DIL_GGUF_TENSORS_MAX)
        return dil_fail(err, DIL_ELIMIT, "%s: more than %d tensors", t->name, DIL_GGUF_TENSORS_MAX);
    if (!grow((void **)&w->tensor, w->n_tensors, &w->tensor_cap, sizeof *w->tensor))
        return dil_fail(err, DIL_EMEMORY, "%s: no memory", t->name);
    dil_tensor *copy = &w->tensor[w->n_tensors];
    *copy = *t;
    copy->n_dims = dims_of(t);
    uint64_t row, rows;
    bool ok = copy->n_dims <= DIL_TENSOR_DIMS && dil_type_row_bytes(t->type, t->ne[0], &row) && dil_mul_u64(t->ne[1], t->ne[2], &rows) &&
              dil_mul_u64(rows, t->ne[3], &rows) && dil_mul_u64(row, rows, &copy->bytes) && copy->bytes > 0 && copy->bytes <= INT64_MAX;
    if (!ok) {
        const dil_type_info *info = dil_type_get(t->type);
        return dil_fail(err, DIL_EFORMAT, "%s: no tensor of type %s has the shape %" PRIu64 " x %" PRIu64 " x %" PRIu64 " x %" PRIu64,
                        t->name, info ? info->name : "(unknown)", t->ne[0], t->ne[1], t->ne[2], t->ne[3]);
    }
    for (uint32_t d = copy->n_dims; d < DIL_TENSOR_DIMS; d++) {
        if (t->ne[d] != 1) return dil_fail(err, DIL_EFORMAT, "%s: %u dimensions, but ne[%u] is %" PRIu64, t->name, t->n_dims, d, t->ne[d]);
    }
    w->n_tensors++;
    w->header_bytes += 8 + len + 4 + 8 * (uint64_t)copy->n_dims + 4 + 8;
    return DIL_OK;
}

/* --- the file ------------------------------------------------------------------------------------------------------ */

static dil_status write_failed(const dil_gguf_writer *w, const char *what, dil_err *err)
{
    return dil_fail_errno(err, "%s: writing %s", w->file.path ? w->file.path : "standard output", what);
}

static bool emit(dil_gguf_writer *w, const void *p, size_t n)
{
    return fwrite(p, 1, n, w->file.stream) == n;
}

static bool emit_u32(dil_gguf_writer *w, uint32_t v)
{
    return emit(w, &v, sizeof v);
}

static bool emit_u64(dil_gguf_writer *w, uint64_t v)
{
    return emit(w, &v, sizeof v);
}

static bool emit_text(dil_gguf_writer *w, const char *s)
{
    size_t n = strlen(s);
    return emit_u64(w, n) && emit(w, s, n);
}

static bool emit_padding(dil_gguf_writer *w, uint64_t after)
{
    static const uint8_t zero[4096];
    uint64_t n = (w->align - after % w->align) % w->align;
    while (n > 0) {
        size_t part = n < sizeof zero ? (size_t)n : sizeof zero;
        if (!emit(w, zero, part)) return false;
        n -= part;
    }
    return true;
}

static bool emit_table(dil_gguf_writer *w)
{
    uint64_t offset = 0;
    for (size_t i = 0; i < w->n_tensors; i++) {
        const dil_tensor *t = &w->tensor[i];
        bool ok = emit_text(w, t->name) && emit_u32(w, t->n_dims);
        for (uint32_t d = 0; ok && d < t->n_dims; d++) ok = emit_u64(w, t->ne[d]);
        if (!ok || !emit_u32(w, (uint32_t)t->type) || !emit_u64(w, offset)) return false;
        offset += (t->bytes + w->align - 1) / w->align * w->align;
    }
    return true;
}

static bool emit_header(dil_gguf_writer *w)
{
    if (!emit(w, "GGUF", 4) || !emit_u32(w, 3) || !emit_u64(w, w->n_tensors) || !emit_u64(w, w->n_kv)) return false;
    for (size_t i = 0; i < w->n_kv; i++) {
        if (!emit_text(w, w->kv[i].key) || !emit(w, w->kv[i].value, w->kv[i].bytes)) return false;
    }
    return emit_table(w) && emit_padding(w, 24 + w->header_bytes);
}

static dil_status find_alignment(dil_gguf_writer *w, dil_err *err)
{
    const entry *e = find_entry(w, "general.alignment");
    if (!e) return DIL_OK;
    uint32_t kind, align = 0;
    memcpy(&kind, e->value, sizeof kind);
    if (kind == DIL_GGUF_U32) memcpy(&align, e->value + 4, sizeof align);
    if (align < 8 || align > 1u << 20 || (align & (align - 1)) != 0)
        return dil_fail(err, DIL_EFORMAT, "general.alignment is %u, expected a power of two from 8 to %u", align, 1u << 20);
    w->align = align;
    return DIL_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static dil_status check_names(const dil_gguf_writer *w, dil_err *err)
{
    const char **name = calloc(w->n_tensors + 1, sizeof *name);
    if (!name) return dil_fail(err, DIL_EMEMORY, "no memory for %zu tensor names", w->n_tensors);
    uint64_t total = 0;
    dil_status s = DIL_OK;
    for (size_t i = 0; i < w->n_tensors; i++) {
        name[i] = w->tensor[i].name;
        if (s == DIL_OK && (!dil_add_u64(total, w->tensor[i].bytes + w->align, &total) || total > INT64_MAX))
            s = dil_fail(err, DIL_EFORMAT, "%s: the sizes of the tensors overflow", name[i]);
    }
    qsort(name, w->n_tensors, sizeof *name, by_name);
    for (size_t i = 1; s == DIL_OK && i < w->n_tensors; i++) {
        if (strcmp(name[i - 1], name[i]) == 0) s = dil_fail(err, DIL_EFORMAT, "tensor %s was announced twice", name[i]);
    }
    free(name);
    return s;
}

dil_status dil_gguf_begin(dil_gguf_writer *w, const char *path, dil_err *err)
{
    if (w->begun) return dil_fail(err, DIL_EINTERNAL, "%s: begun twice", path);
    dil_status s = find_alignment(w, err);
    if (s == DIL_OK) s = check_names(w, err);
    if (s == DIL_OK) s = dil_outfile_open(&w->file, path, err);
    if (s != DIL_OK) return s;
    w->begun = true;
    return emit_header(w) ? DIL_OK : write_failed(w, "the header", err);
}

dil_status dil_gguf_write_data(dil_gguf_writer *w, const void *data, uint64_t bytes, dil_err *err)
{
    if (!w->begun || w->current >= w->n_tensors)
        return dil_fail(err, DIL_EINTERNAL, "data for tensor %zu of %zu", w->current, w->n_tensors);
    const dil_tensor *t = &w->tensor[w->current];
    if (bytes > t->bytes - w->written)
        return dil_fail(err, DIL_EINTERNAL, "%s: %" PRIu64 " bytes after %" PRIu64 " of %" PRIu64, t->name, bytes, w->written, t->bytes);
    if (bytes && !emit(w, data, (size_t)bytes)) return write_failed(w, t->name, err);
    w->written += bytes;
    if (w->written < t->bytes) return DIL_OK;
    if (!emit_padding(w, t->bytes)) return write_failed(w, t->name, err);
    w->current++;
    w->written = 0;
    return DIL_OK;
}

dil_status dil_gguf_commit(dil_gguf_writer *w, dil_err *err)
{
    if (!w->begun) return dil_fail(err, DIL_EINTERNAL, "commit before begin");
    if (w->current < w->n_tensors)
        return dil_fail(err, DIL_EINTERNAL, "%s: %" PRIu64 " of %" PRIu64 " bytes were written", w->tensor[w->current].name, w->written,
                        w->tensor[w->current].bytes);
    w->begun = false;
    return dil_outfile_commit(&w->file, err);
}
