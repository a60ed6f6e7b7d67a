/* Checkpoints of torch.save: a zip archive with NAME/data.pkl, the pickled dict, and NAME/data/KEY, the raw storages. Several
 * tensors may share a storage (tied weights do); each must be contiguous in it. */
#include "model/checkpoint.h"

#include "model/pickle.h"
#include "model/zip.h"

#include <inttypes.h>
#include <string.h>

static const struct {
    const char *name;
    dil_type type;
    uint32_t bytes;
} storages[] = {{"FloatStorage", DIL_TYPE_F32, 4}, {"HalfStorage", DIL_TYPE_F16, 2}, {"BFloat16Storage", DIL_TYPE_BF16, 2},
                {"DoubleStorage", -1, 8},          {"LongStorage", -1, 8},           {"IntStorage", -1, 4},
                {"ShortStorage", -1, 2},           {"CharStorage", -1, 1},           {"ByteStorage", -1, 1},
                {"BoolStorage", -1, 1}};

typedef struct reader {
    const char *file;
    dil__zip zip;
    char prefix[DIL__ZIP_NAME_MAX]; /* "archive/" */
    dil_arena *arena;
    dil_err *err;
} reader;

/* --- the archive --------------------------------------------------------------------------------------------------- */

static dil_status not_a_zip(const char *file, const uint8_t *data, size_t len, dil_err *err)
{
    static const uint8_t legacy[] = {0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46};
    if (len >= sizeof legacy && memcmp(data, legacy, sizeof legacy) == 0)
        return dil_fail(err, DIL_EUNSUPPORTED, "%s: written by torch.save before version 1.6; load and save it with a newer torch", file);
    return dil_fail(err, DIL_EFORMAT, "%s: not a file of torch.save (%zu bytes, no zip archive)", file, len);
}

static dil_status find_pickle(reader *r, const dil__zip_entry **out)
{
    static const char tail[] = "/data.pkl";
    for (size_t i = 0; i < r->zip.n; i++) {
        const char *name = r->zip.entry[i].name, *slash = strchr(name, '/');
        if (!slash || strcmp(slash, tail) != 0) continue;
        snprintf(r->prefix, sizeof r->prefix, "%.*s", (int)(slash + 1 - name), name);
        *out = &r->zip.entry[i];
        return DIL_OK;
    }
    return dil_fail(r->err, DIL_EFORMAT, "%s: no data.pkl in the archive: not a file of torch.save", r->file);
}

static const dil__zip_entry *find_part(const reader *r, const char *dir, const char *key)
{
    char name[DIL__ZIP_NAME_MAX];
    int n = snprintf(name, sizeof name, "%s%s%s", r->prefix, dir, key);
    return n > 0 && (size_t)n < sizeof name ? dil__zip_find(&r->zip, name) : NULL;
}

static dil_status check_byte_order(const reader *r)
{
    const dil__zip_entry *e = find_part(r, "byteorder", "");
    if (!e || (e->bytes == 6 && memcmp(e->data, "little", 6) == 0)) return DIL_OK;
    return dil_fail(r->err, DIL_EUNSUPPORTED, "%s: not written on a little-endian machine", r->file);
}

/* --- tensors ------------------------------------------------------------------------------------------------------- */

static dil_status check_contiguous(const reader *r, const dil__pickle_tensor *p)
{
    uint64_t step = 1;
    for (uint32_t d = p->n_dims; d-- > 0;) {
        if (p->shape[d] != 1 && p->stride[d] != step)
            return dil_fail(r->err, DIL_EUNSUPPORTED, "%s: %.100s: a stride of %" PRIu64 " in dimension %u, only contiguous tensors (here %" PRIu64 ") are read",
                            r->file, p->name, p->stride[d], d, step);
        if (!dil_mul_u64(step, p->shape[d], &step)) return dil_fail(r->err, DIL_EFORMAT, "%s: %.100s: its number of elements overflows", r->file, p->name);
    }
    return DIL_OK;
}

static dil_status place(const reader *r, const dil__pickle_tensor *p, uint32_t elem_bytes, dil__ckpt_tensor *t)
{
    const dil__zip_entry *e = find_part(r, "data/", p->key);
    if (!e) return dil_fail(r->err, DIL_EFORMAT, "%s: %.100s: its storage data/%.40s is not in the archive", r->file, p->name, p->key);
    uint64_t bytes, begin, end, elems = 1;
    for (uint32_t d = 0; d < p->n_dims; d++) elems *= p->shape[d]; /* check_contiguous has seen that it fits */
    bool fits = dil_mul_u64(p->numel, elem_bytes, &bytes) && bytes == e->bytes;
    if (!fits)
        return dil_fail(r->err, DIL_EFORMAT, "%s: %.100s: a storage of %" PRIu64 " elements of %u bytes in an entry of %" PRIu64 " bytes", r->file, p->name,
                        p->numel, elem_bytes, e->bytes);
    fits = dil_add_u64(p->offset, elems, &end) && end <= p->numel && dil_mul_u64(elems, elem_bytes, &t->bytes) && dil_mul_u64(p->offset, elem_bytes, &begin);
    if (!fits)
        return dil_fail(r->err, DIL_EFORMAT, "%s: %.100s: %" PRIu64 " elements at %" PRIu64 " of a storage of %" PRIu64, r->file, p->name, elems, p->offset,
                        p->numel);
    t->data = t->type >= 0 ? e->data + begin : NULL;
    return DIL_OK;
}

static dil_status add_tensor(dil__ckpt *c, const reader *r, const dil__pickle_tensor *p)
{
    dil__ckpt_tensor t = {.name = p->name, .file = r->file, .type = -1, .n_dims = p->n_dims};
    memcpy(t.shape, p->shape, sizeof t.shape);
    uint32_t elem_bytes = 0;
    for (size_t i = 0; i < sizeof storages / sizeof *storages; i++) {
        if (strcmp(storages[i].name, p->storage) != 0) continue;
        t.type = storages[i].type;
        t.type_name = storages[i].name;
        elem_bytes = storages[i].bytes;
    }
    if (elem_bytes == 0) return dil_fail(r->err, DIL_EUNSUPPORTED, "%s: %.100s: unknown storage %s", r->file, p->name, p->storage);
    dil_status s = check_contiguous(r, p);
    if (s == DIL_OK) s = place(r, p, elem_bytes, &t);
    return s == DIL_OK ? dil__ckpt_add(c, &t, r->err) : s;
}

static dil_status read_all(dil__ckpt *c, reader *r, const uint8_t *data, size_t len)
{
    const dil__zip_entry *pickle = NULL;
    dil_status s = dil__zip_open(r->file, data, len, r->arena, &r->zip, r->err);
    if (s == DIL_OK) s = find_pickle(r, &pickle);
    if (s == DIL_OK) s = check_byte_order(r);
    if (s != DIL_OK) return s;
    if (pickle->bytes > DIL__PICKLE_BYTES_MAX)
        return dil_fail(r->err, DIL_ELIMIT, "%s: data.pkl has %" PRIu64 " bytes, the limit is %u", r->file, pickle->bytes, DIL__PICKLE_BYTES_MAX);
    dil__pickle_tensor *list = NULL;
    size_t n = 0;
    s = dil__pickle_read(r->file, pickle->data, (size_t)pickle->bytes, r->arena, &list, &n, r->err);
    for (size_t i = 0; s == DIL_OK && i < n; i++) s = add_tensor(c, r, &list[i]);
    return s;
}

dil_status dil__ckpt_add_pytorch(dil__ckpt *c, const char *file, const uint8_t *data, size_t len, dil_err *err)
{
    if (len < 4 || memcmp(data, "PK\3\4", 4) != 0) return not_a_zip(file, data, len, err);
    reader r = {.file = file, .arena = c->arena, .err = err};
    return read_all(c, &r, data, len);
}
