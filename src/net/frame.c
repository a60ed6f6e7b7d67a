/* Frames byte by byte. Written by hand over a schema compiler: twenty fields do not pay for a dependency whose decoder would
 * have to be fuzzed all the same. */
#include <dilemma/frame.h>

#include <string.h>

static const uint8_t magic[4] = {'D', 'I', 'L', '1'};

const char *dil_frame_type_name(dil_frame_type t)
{
    static const char *const name[DIL_FRAME_TYPE_LIMIT] = {
        [DIL_FRAME_ERROR] = "ERROR", [DIL_FRAME_OK] = "OK", [DIL_FRAME_HELLO] = "HELLO", [DIL_FRAME_INFO] = "INFO",
        [DIL_FRAME_ECHO] = "ECHO", [DIL_FRAME_ECHO_REPLY] = "ECHO_REPLY", [DIL_FRAME_TIME_LAYER] = "TIME_LAYER",
        [DIL_FRAME_TIMES] = "TIMES", [DIL_FRAME_ADMIT] = "ADMIT", [DIL_FRAME_PROBE_LINK] = "PROBE_LINK",
        [DIL_FRAME_LINK] = "LINK", [DIL_FRAME_LOAD] = "LOAD", [DIL_FRAME_NEED] = "NEED", [DIL_FRAME_CHUNK] = "CHUNK",
        [DIL_FRAME_HEARTBEAT] = "HEARTBEAT", [DIL_FRAME_STATUS] = "STATUS", [DIL_FRAME_UNLOAD] = "UNLOAD",
        [DIL_FRAME_ATTACH] = "ATTACH", [DIL_FRAME_WORK] = "WORK", [DIL_FRAME_RESULT] = "RESULT",
        [DIL_FRAME_WORK_FAILED] = "WORK_FAILED", [DIL_FRAME_JOIN] = "JOIN",
    };
    return (unsigned)t < DIL_FRAME_TYPE_LIMIT && name[t] ? name[t] : "?";
}

/* --- writing ---------------------------------------------------------------------------------------------------------- */

static void store(uint8_t *p, uint64_t v, size_t n)
{
    for (size_t i = 0; i < n; i++) p[i] = (uint8_t)(v >> (8 * i));
}

static void put(dil_buf *b, uint64_t v, size_t n)
{
    uint8_t bytes[8];
    store(bytes, v, n);
    dil_buf_append(b, bytes, n);
}

void dil_put_u8(dil_buf *b, uint8_t v) { put(b, v, 1); }
void dil_put_u16(dil_buf *b, uint16_t v) { put(b, v, 2); }
void dil_put_u32(dil_buf *b, uint32_t v) { put(b, v, 4); }
void dil_put_u64(dil_buf *b, uint64_t v) { put(b, v, 8); }
void dil_put_i32(dil_buf *b, int32_t v) { put(b, (uint32_t)v, 4); }

void dil_put_f32(dil_buf *b, float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    put(b, bits, 4);
}

void dil_put_f64(dil_buf *b, double v)
{
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    put(b, bits, 8);
}

void dil_put_str(dil_buf *b, const char *s)
{
    size_t n = strlen(s);
    if (n > UINT16_MAX) n = UINT16_MAX;
    dil_put_u16(b, (uint16_t)n);
    dil_buf_append(b, s, n);
}

void dil_put_bytes(dil_buf *b, const void *data, size_t len)
{
    dil_buf_append(b, data, len);
}

void dil_frame_header(uint8_t out[DIL_FRAME_HEADER_BYTES], const dil_frame *f)
{
    memcpy(out, magic, 4);
    store(out + 4, DIL_FRAME_VERSION, 2);
    store(out + 6, (uint64_t)f->type, 2);
    store(out + 8, f->session, 8);
    store(out + 16, f->id, 8);
    store(out + 24, f->epoch, 4);
    store(out + 28, f->body_bytes, 4);
}

bool dil_frame_begin(dil_buf *b, dil_frame_type type, uint64_t session, uint64_t id, uint32_t epoch)
{
    uint8_t head[DIL_FRAME_HEADER_BYTES];
    dil_frame_header(head, &(dil_frame){.type = type, .session = session, .id = id, .epoch = epoch});
    return dil_buf_append(b, head, sizeof head);
}

bool dil_frame_end(dil_buf *b)
{
    if (b->failed || b->len < DIL_FRAME_HEADER_BYTES || b->len > DIL_FRAME_MAX) return false;
    store(b->data + 28, b->len - DIL_FRAME_HEADER_BYTES, 4);
    return true;
}

/* --- reading ------------------------------------------------------------------------------------------------------------ */

static uint64_t load(const uint8_t *p, size_t n)
{
    uint64_t v = 0;
    for (size_t i = 0; i < n; i++) v |= (uint64_t)p[i] << (8 * i);
    return v;
}

dil_status dil_frame_decode(const void *data, size_t len, dil_frame *out, dil_err *err)
{
    const uint8_t *p = data;
    if (len < DIL_FRAME_HEADER_BYTES)
        return dil_fail(err, DIL_EFORMAT, "a frame of %zu bytes, the header alone has %d", len, DIL_FRAME_HEADER_BYTES);
    if (memcmp(p, magic, 4) != 0) return dil_fail(err, DIL_EFORMAT, "not a frame: it begins with %02x%02x%02x%02x", p[0], p[1], p[2], p[3]);
    unsigned version = (unsigned)load(p + 4, 2);
    if (version != DIL_FRAME_VERSION)
        return dil_fail(err, DIL_EUNSUPPORTED, "the peer speaks version %u, we speak %d: use the same dilemma on both", version, DIL_FRAME_VERSION);
    unsigned type = (unsigned)load(p + 6, 2);
    if (type == 0 || type >= DIL_FRAME_TYPE_LIMIT) return dil_fail(err, DIL_EFORMAT, "unknown frame type %u", type);
    uint64_t body = load(p + 28, 4);
    if (len > DIL_FRAME_MAX || body != len - DIL_FRAME_HEADER_BYTES)
        return dil_fail(err, DIL_EFORMAT, "%s: says %llu bytes of body, has %zu", dil_frame_type_name((dil_frame_type)type),
                        (unsigned long long)body, len - DIL_FRAME_HEADER_BYTES);
    *out = (dil_frame){.type = (dil_frame_type)type, .session = load(p + 8, 8), .id = load(p + 16, 8),
                       .epoch = (uint32_t)load(p + 24, 4), .body = p + DIL_FRAME_HEADER_BYTES, .body_bytes = (uint32_t)body};
    return DIL_OK;
}

dil_rd dil_frame_body(const dil_frame *f)
{
    return (dil_rd){.p = f->body, .left = f->body_bytes};
}

const void *dil_get_bytes(dil_rd *r, size_t len)
{
    if (r->failed || len > r->left) {
        r->failed = true;
        return NULL;
    }
    const void *p = r->p;
    r->p += len;
    r->left -= len;
    return p;
}

static uint64_t get(dil_rd *r, size_t n)
{
    const uint8_t *p = dil_get_bytes(r, n);
    return p ? load(p, n) : 0;
}

uint8_t dil_get_u8(dil_rd *r) { return (uint8_t)get(r, 1); }
uint16_t dil_get_u16(dil_rd *r) { return (uint16_t)get(r, 2); }
uint32_t dil_get_u32(dil_rd *r) { return (uint32_t)get(r, 4); }
uint64_t dil_get_u64(dil_rd *r) { return get(r, 8); }
int32_t dil_get_i32(dil_rd *r) { return (int32_t)(uint32_t)get(r, 4); }

float dil_get_f32(dil_rd *r)
{
    uint32_t bits = (uint32_t)get(r, 4);
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

double dil_get_f64(dil_rd *r)
{
    uint64_t bits = get(r, 8);
    double v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

bool dil_get_bool(dil_rd *r)
{
    uint8_t v = dil_get_u8(r);
    if (v > 1) r->failed = true;
    return v == 1;
}

void dil_get_str(dil_rd *r, char *out, size_t cap)
{
    size_t n = dil_get_u16(r);
    const char *p = dil_get_bytes(r, n);
    out[0] = 0;
    if (!p) return;
    if (n >= cap || memchr(p, 0, n)) {
        r->failed = true;
        return;
    }
    memcpy(out, p, n);
    out[n] = 0;
}

uint32_t dil_get_count(dil_rd *r, uint32_t max, size_t elem_bytes_min)
{
    uint32_t n = dil_get_u32(r);
    if (r->failed || n > max || (elem_bytes_min && n > r->left / elem_bytes_min)) {
        r->failed = true;
        return 0;
    }
    return n;
}

bool dil_rd_done(const dil_rd *r)
{
    return !r->failed && r->left == 0;
}
