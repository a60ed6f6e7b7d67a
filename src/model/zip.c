/* Reading the directory of a zip archive (APPNOTE 6.3, with the 64-bit records). The central directory at the end is the
 * authority; each entry's local header must agree with it, so that two readers cannot see two different archives.
 *
 * Checksums are not compared: torch can be told not to compute them, and then writes zeros. */
#include "model/zip.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    END_BYTES = 22, END64_BYTES = 56, LOCATOR_BYTES = 20, CENTRAL_BYTES = 46, LOCAL_BYTES = 30,
    END_SIG = 0x06054b50, END64_SIG = 0x06064b50, LOCATOR_SIG = 0x07064b50, CENTRAL_SIG = 0x02014b50, LOCAL_SIG = 0x04034b50,
    FLAG_ENCRYPTED = 1 | 0x40 | 0x2000, EXTRA_ZIP64 = 1
};

typedef struct archive {
    const char *file;
    const uint8_t *data;
    size_t len;
    uint64_t n, dir_begin, dir_end; /* the central directory */
    dil_arena *arena;
    dil_err *err;
} archive;

typedef struct record { /* of the central directory, sizes already widened */
    uint64_t stored, size, local;
    uint32_t flags, method, name_len;
    const uint8_t *name;
} record;

typedef struct span {
    uint64_t begin, end;
    const char *name;
} span;

static uint16_t u16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t u32(const uint8_t *p)
{
    return (uint32_t)u16(p) | (uint32_t)u16(p + 2) << 16;
}

static uint64_t u64(const uint8_t *p)
{
    return u32(p) | (uint64_t)u32(p + 4) << 32;
}

/* --- the end of the archive ---------------------------------------------------------------------------------------- */

/* The end record is the last thing in the file but for a comment, whose length it tells. */
static dil_status find_end(const archive *a, size_t *at)
{
    for (size_t back = END_BYTES; back <= a->len && back <= END_BYTES + 65535u; back++) {
        const uint8_t *p = a->data + a->len - back;
        if (u32(p) != END_SIG || u16(p + 20) != back - END_BYTES) continue;
        *at = a->len - back;
        return DIL_OK;
    }
    return dil_fail(a->err, DIL_EFORMAT, "%s: a zip archive without its end (%zu bytes): truncated?", a->file, a->len);
}

static dil_status read_end64(archive *a, size_t end, uint64_t *size)
{
    if (end < LOCATOR_BYTES || u32(a->data + end - LOCATOR_BYTES) != LOCATOR_SIG)
        return dil_fail(a->err, DIL_EFORMAT, "%s: the 64-bit end record's locator is missing before byte %zu", a->file, end);
    const uint8_t *loc = a->data + end - LOCATOR_BYTES;
    uint64_t at = u64(loc + 8), limit = end - LOCATOR_BYTES;
    if (u32(loc + 4) != 0 || u32(loc + 16) > 1) return dil_fail(a->err, DIL_EUNSUPPORTED, "%s: a zip archive on several disks", a->file);
    if (limit < END64_BYTES || at > limit - END64_BYTES || u32(a->data + at) != END64_SIG)
        return dil_fail(a->err, DIL_EFORMAT, "%s: no 64-bit end record at byte %" PRIu64, a->file, at);
    const uint8_t *p = a->data + at;
    if (u32(p + 16) != 0 || u32(p + 20) != 0 || u64(p + 24) != u64(p + 32))
        return dil_fail(a->err, DIL_EUNSUPPORTED, "%s: a zip archive on several disks", a->file);
    a->n = u64(p + 32);
    *size = u64(p + 40);
    a->dir_begin = u64(p + 48);
    a->dir_end = at;
    return DIL_OK;
}

static dil_status read_end(archive *a)
{
    size_t end = 0;
    dil_status s = find_end(a, &end);
    if (s != DIL_OK) return s;
    const uint8_t *p = a->data + end;
    uint64_t size = u32(p + 12);
    a->n = u16(p + 10);
    a->dir_begin = u32(p + 16);
    a->dir_end = end;
    if (a->n == 0xffff || size == 0xffffffff || a->dir_begin == 0xffffffff) s = read_end64(a, end, &size);
    else if (u16(p + 4) != 0 || u16(p + 6) != 0 || u16(p + 8) != a->n) s = dil_fail(a->err, DIL_EUNSUPPORTED, "%s: a zip archive on several disks", a->file);
    if (s != DIL_OK) return s;
    if (a->dir_begin > a->dir_end || size > a->dir_end - a->dir_begin)
        return dil_fail(a->err, DIL_EFORMAT, "%s: the directory (%" PRIu64 " bytes at %" PRIu64 ") passes its end at %" PRIu64, a->file, size,
                        a->dir_begin, a->dir_end);
    a->dir_end = a->dir_begin + size;
    if (a->n > DIL__ZIP_ENTRIES_MAX)
        return dil_fail(a->err, DIL_ELIMIT, "%s: %" PRIu64 " zip entries, the limit is %d", a->file, a->n, DIL__ZIP_ENTRIES_MAX);
    if (a->n > size / CENTRAL_BYTES)
        return dil_fail(a->err, DIL_EFORMAT, "%s: %" PRIu64 " zip entries cannot fit into a directory of %" PRIu64 " bytes", a->file, a->n, size);
    return DIL_OK;
}

/* --- entries ------------------------------------------------------------------------------------------------------- */

static dil_status bad_record(const archive *a, uint64_t at, const char *why)
{
    return dil_fail(a->err, DIL_EFORMAT, "%s: zip directory at byte %" PRIu64 ": %s", a->file, at, why);
}

/* Fields that do not fit 32 bits stand in the 64-bit extra field, in this order, each only if its short form says so. */
static bool widen(record *r, const uint8_t *extra, size_t len)
{
    bool wide = r->size == 0xffffffff || r->stored == 0xffffffff || r->local == 0xffffffff;
    while (wide && len >= 4) {
        size_t n = u16(extra + 2);
        const uint8_t *p = extra + 4, *end = p + n;
        if (n > len - 4) return false;
        if (u16(extra) == EXTRA_ZIP64) {
            uint64_t *field[] = {&r->size, &r->stored, &r->local};
            for (int i = 0; i < 3; i++) {
                if (*field[i] != 0xffffffff) continue;
                if (end - p < 8) return false;
                *field[i] = u64(p);
                p += 8;
            }
            return true;
        }
        extra += 4 + n;
        len -= 4 + n;
    }
    return !wide;
}

static dil_status read_record(const archive *a, uint64_t *at, record *r)
{
    const uint8_t *p = a->data + *at;
    uint64_t left = a->dir_end - *at;
    if (left < CENTRAL_BYTES || u32(p) != CENTRAL_SIG) return bad_record(a, *at, "no entry where one is expected");
    *r = (record){.stored = u32(p + 20), .size = u32(p + 24), .local = u32(p + 42), .flags = u16(p + 8), .method = u16(p + 10),
                  .name_len = u16(p + 28), .name = p + CENTRAL_BYTES};
    uint64_t extra = u16(p + 30), comment = u16(p + 32), total = CENTRAL_BYTES + r->name_len + extra + comment;
    if (total > left) return bad_record(a, *at, "an entry that passes the directory's end");
    if (u16(p + 34) != 0) return bad_record(a, *at, "an entry on another disk");
    if (r->name_len == 0 || r->name_len >= DIL__ZIP_NAME_MAX || memchr(r->name, 0, r->name_len)) return bad_record(a, *at, "an unusable entry name");
    if (!widen(r, r->name + r->name_len, (size_t)extra)) return bad_record(a, *at, "a 64-bit field that is missing or cut off");
    *at += total;
    return DIL_OK;
}

static dil_status check_method(const archive *a, const record *r)
{
    int n = (int)r->name_len;
    if (r->flags & FLAG_ENCRYPTED) return dil_fail(a->err, DIL_EUNSUPPORTED, "%s: %.*s is encrypted", a->file, n, (const char *)r->name);
    if (r->method != 0)
        return dil_fail(a->err, DIL_EUNSUPPORTED, "%s: %.*s is compressed (method %u); torch.save stores", a->file, n, (const char *)r->name, r->method);
    if (r->stored != r->size)
        return dil_fail(a->err, DIL_EFORMAT, "%s: %.*s is stored in %" PRIu64 " bytes but has %" PRIu64, a->file, n, (const char *)r->name, r->stored, r->size);
    return DIL_OK;
}

/* The local header stands before the entry's bytes and repeats its name and method. */
static dil_status locate(const archive *a, const record *r, dil__zip_entry *e, span *at)
{
    if (r->local > a->dir_begin || a->dir_begin - r->local < LOCAL_BYTES || u32(a->data + r->local) != LOCAL_SIG)
        return dil_fail(a->err, DIL_EFORMAT, "%s: %s: no local header at byte %" PRIu64, a->file, e->name, r->local);
    const uint8_t *p = a->data + r->local;
    uint64_t room = a->dir_begin - r->local - LOCAL_BYTES, name = u16(p + 26), extra = u16(p + 28);
    if (name != r->name_len || name + extra > room || memcmp(p + LOCAL_BYTES, r->name, r->name_len) != 0 || u16(p + 8) != r->method)
        return dil_fail(a->err, DIL_EFORMAT, "%s: %s: the local header at byte %" PRIu64 " disagrees with the directory", a->file, e->name, r->local);
    if (r->size > room - name - extra)
        return dil_fail(a->err, DIL_EFORMAT, "%s: %s: %" PRIu64 " bytes, %" PRIu64 " are left before the directory", a->file, e->name, r->size,
                        room - name - extra);
    e->data = p + LOCAL_BYTES + name + extra;
    e->bytes = r->size;
    *at = (span){.begin = r->local, .end = r->local + LOCAL_BYTES + name + extra + r->size, .name = e->name};
    return DIL_OK;
}

static int by_begin(const void *a, const void *b)
{
    const span *x = a, *y = b;
    return (x->begin > y->begin) - (x->begin < y->begin);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const dil__zip_entry *)a)->name, ((const dil__zip_entry *)b)->name);
}

static dil_status check_distinct(const archive *a, dil__zip *z, span *spans)
{
    qsort(z->entry, z->n, sizeof *z->entry, by_name);
    qsort(spans, z->n, sizeof *spans, by_begin);
    for (size_t i = 1; i < z->n; i++) {
        if (strcmp(z->entry[i - 1].name, z->entry[i].name) == 0)
            return dil_fail(a->err, DIL_EFORMAT, "%s: zip entry %s appears twice", a->file, z->entry[i].name);
        if (spans[i].begin < spans[i - 1].end)
            return dil_fail(a->err, DIL_EFORMAT, "%s: zip entry %s begins at %" PRIu64 ", within %s (%" PRIu64 " to %" PRIu64 ")", a->file,
                            spans[i].name, spans[i].begin, spans[i - 1].name, spans[i - 1].begin, spans[i - 1].end);
    }
    return DIL_OK;
}

static dil_status read_entries(archive *a, dil__zip *z)
{
    span *spans = dil_arena_push(a->arena, (size_t)a->n, sizeof *spans);
    z->entry = dil_arena_push(a->arena, (size_t)a->n, sizeof *z->entry);
    if (!spans || !z->entry) return dil_fail(a->err, DIL_EMEMORY, "%s: no memory for %" PRIu64 " zip entries", a->file, a->n);
    uint64_t at = a->dir_begin;
    for (size_t i = 0; i < a->n; i++) {
        record r;
        dil_status s = read_record(a, &at, &r);
        if (s == DIL_OK) s = check_method(a, &r);
        if (s != DIL_OK) return s;
        z->entry[i].name = dil_arena_strdup(a->arena, (const char *)r.name, r.name_len);
        if (!z->entry[i].name) return dil_fail(a->err, DIL_EMEMORY, "%s: no memory for zip entry names", a->file);
        s = locate(a, &r, &z->entry[i], &spans[i]);
        if (s != DIL_OK) return s;
    }
    if (at != a->dir_end) return bad_record(a, at, "bytes after the last entry");
    z->n = (size_t)a->n;
    return check_distinct(a, z, spans);
}

dil_status dil__zip_open(const char *file, const uint8_t *data, size_t len, dil_arena *arena, dil__zip *out, dil_err *err)
{
    archive a = {.file = file, .data = data, .len = len, .arena = arena, .err = err};
    dil__zip z = {0};
    dil_status s = read_end(&a);
    if (s == DIL_OK) s = read_entries(&a, &z);
    if (s == DIL_OK) *out = z;
    return s;
}

const dil__zip_entry *dil__zip_find(const dil__zip *z, const char *name)
{
    dil__zip_entry probe = {.name = name};
    return z->n ? bsearch(&probe, z->entry, z->n, sizeof *z->entry, by_name) : NULL;
}
