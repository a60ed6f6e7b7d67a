/* Protocol buffers as far as this one file needs them: fields are a key (number and wire type) and a value; what is not asked for is
 * stepped over. Lengths are checked against the bytes at hand before they are used; nothing nests deeper than the two levels read. */
#include "model/spm.h"

#include "model/utf8.h"

#include <math.h>
#include <string.h>

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };

typedef struct reader {
    const uint8_t *p, *end, *start;
    bool failed;
} reader;

typedef struct field {
    uint64_t number, varint;
    unsigned wire;
    const uint8_t *bytes; /* BYTES: [len]; FIXED: where it stands */
    size_t len;
} field;

static uint64_t varint(reader *r)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        if (r->p == r->end) break;
        uint8_t b = *r->p++;
        v |= (uint64_t)(b & 0x7F) << shift;
        if (!(b & 0x80)) return v;
    }
    r->failed = true;
    return 0;
}

/* False at the end, and where the bytes make no sense. */
static bool next(reader *r, field *f)
{
    if (r->failed || r->p == r->end) return false;
    uint64_t key = varint(r);
    *f = (field){.number = key >> 3, .wire = (unsigned)(key & 7)};
    uint64_t len = f->wire == FIXED32 ? 4 : f->wire == FIXED64 ? 8 : 0;
    if (f->wire == VARINT) f->varint = varint(r);
    else if (f->wire == BYTES) len = varint(r);
    else if (len == 0) r->failed = true; /* groups are not used */
    if (r->failed || len > (uint64_t)(r->end - r->p)) {
        r->failed = true;
        return false;
    }
    f->bytes = r->p;
    f->len = (size_t)len;
    r->p += len;
    return true;
}

static reader inside(const field *f)
{
    return (reader){.p = f->bytes, .end = f->bytes + f->len, .start = f->bytes};
}

static bool read_piece(const field *of, dil__spm_piece *out)
{
    reader r = inside(of);
    field f;
    *out = (dil__spm_piece){.s = "", .type = 1};
    while (next(&r, &f)) {
        if (f.number == 1 && f.wire == BYTES) out->s = (const char *)f.bytes, out->len = f.len;
        if (f.number == 2 && f.wire == FIXED32) memcpy(&out->score, f.bytes, 4);
        if (f.number == 3 && f.wire == VARINT) out->type = f.varint <= 6 ? (int32_t)f.varint : 0;
    }
    return !r.failed && out->type >= 1 && isfinite(out->score);
}

static bool is_text(const dil__spm_piece *p)
{
    uint32_t cp;
    for (size_t i = 0; i < p->len;) {
        size_t k = dil__utf8_get(p->s + i, p->len - i, &cp);
        if (k == 0 || cp == 0) return false;
        i += k;
    }
    return p->len > 0;
}

static bool read_trainer(const field *of, dil__spm *m)
{
    reader r = inside(of);
    field f;
    while (next(&r, &f)) {
        if (f.wire != VARINT) continue;
        int64_t v = (int64_t)f.varint, id = v >= 0 && v < DIL__SPM_PIECES_MAX ? v : -1; /* -1 is written as ten bytes */
        if (f.number == 3) m->model_type = id;
        if (f.number == 24) m->space_last = f.varint != 0;
        if (f.number == 41) m->bos = id;
        if (f.number == 42) m->eos = id;
        if (f.number == 43) m->pad = id;
    }
    return !r.failed;
}

static bool read_normalizer(const field *of, dil__spm *m)
{
    reader r = inside(of);
    field f;
    while (next(&r, &f)) {
        if (f.number == 2 && f.wire == BYTES) m->charsmap = f.bytes, m->charsmap_bytes = f.len;
        if (f.wire != VARINT) continue;
        if (f.number == 3) m->space_first = f.varint != 0;
        if (f.number == 4) m->collapses = f.varint != 0;
        if (f.number == 5) m->escapes = f.varint != 0;
    }
    return !r.failed;
}

static size_t count_pieces(const uint8_t *data, size_t len)
{
    reader r = {.p = data, .end = data + len, .start = data};
    field f;
    size_t n = 0;
    while (next(&r, &f)) n += f.number == 1 && f.wire == BYTES;
    return n;
}

dil_status dil__spm_read(const char *file, const uint8_t *data, size_t len, dil_arena *arena, dil__spm *out, dil_err *err)
{
    dil__spm m = {.model_type = DIL__SPM_UNIGRAM, .bos = 1, .eos = 2, .pad = -1, .space_first = true, .collapses = true, .escapes = true};
    size_t n = count_pieces(data, len);
    if (n == 0) return dil_fail(err, DIL_EFORMAT, "%s: holds no pieces of a SentencePiece model", file);
    if (n > DIL__SPM_PIECES_MAX) return dil_fail(err, DIL_ELIMIT, "%s: %zu pieces, at most %d", file, n, DIL__SPM_PIECES_MAX);
    m.piece = dil_arena_push(arena, n, sizeof *m.piece);
    if (!m.piece) return dil_fail(err, DIL_EMEMORY, "%s: no memory for %zu pieces", file, n);
    reader r = {.p = data, .end = data + len, .start = data};
    field f;
    while (next(&r, &f)) {
        if (f.wire != BYTES) continue;
        dil__spm_piece *p = f.number == 1 ? &m.piece[m.n++] : NULL;
        bool ok = p ? read_piece(&f, p) && is_text(p) : f.number == 2 ? read_trainer(&f, &m) : f.number == 3 ? read_normalizer(&f, &m) : true;
        if (!ok && p) return dil_fail(err, DIL_EFORMAT, "%s: piece %zu is no piece", file, m.n - 1);
        if (!ok) return dil_fail(err, DIL_EFORMAT, "%s: byte %zu: its settings make no sense", file, (size_t)(f.bytes - data));
    }
    if (r.failed) return dil_fail(err, DIL_EFORMAT, "%s: byte %zu: not a protocol buffer", file, (size_t)(r.p - data));
    *out = m;
    return DIL_OK;
}
