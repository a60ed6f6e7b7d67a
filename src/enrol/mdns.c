/* Names are kept as they travel, labels with their lengths, but uncompressed and in lower case: comparing is memcmp, and a dot inside
 * a label is no riddle. We write without compression; an answer has some 400 bytes. */
#include "enrol/mdns.h"

#include <string.h>

enum { NAME_MAX_ = 255, TYPE_A = 1, TYPE_PTR = 12, TYPE_TXT = 16, TYPE_SRV = 33, TYPE_ANY = 255, CLASS_IN = 1, FLUSH = 0x8000, ANSWER = 0x8000, HEAD = 12 };

typedef struct wire_name {
    uint8_t byte[NAME_MAX_ + 1];
    size_t len; /* with the final zero */
} wire_name;

static const wire_name service = {"\x08_dilemma\x04_tcp\x05local", 21}, catalogue = {"\x09_services\x07_dns-sd\x04_udp\x05local", 30};

static bool same_name(const wire_name *a, const wire_name *b)
{
    return a->len == b->len && memcmp(a->byte, b->byte, a->len) == 0;
}

/* --- names of ours --------------------------------------------------------------------------------------------------------- */

static void push_label(wire_name *n, const char *text)
{
    size_t len = strlen(text); /* of ours: short */
    n->byte[n->len++] = (uint8_t)len;
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        n->byte[n->len++] = (uint8_t)(c >= 'A' && c <= 'Z' ? c + 32 : c);
    }
}

/* "NAME-ID._dilemma._tcp.local": the id makes it one of a kind, so that no probing for conflicts is needed. */
static wire_name instance_of(const dil__mdns_node *n)
{
    char label[64];
    wire_name out = {.len = 0};
    snprintf(label, sizeof label, "%.46s-%s", n->name, n->id);
    push_label(&out, label);
    memcpy(out.byte + out.len, service.byte, service.len);
    out.len += service.len;
    return out;
}

static wire_name host_of(const dil__mdns_node *n)
{
    char label[64];
    wire_name out = {.len = 0};
    snprintf(label, sizeof label, "dilemma-%s", n->id);
    push_label(&out, label);
    push_label(&out, "local");
    out.byte[out.len++] = 0;
    return out;
}

/* --- writing --------------------------------------------------------------------------------------------------------------------- */

typedef struct writer {
    uint8_t *p;
    size_t n;
} writer;

static void put16(writer *w, unsigned v)
{
    w->p[w->n++] = (uint8_t)(v >> 8);
    w->p[w->n++] = (uint8_t)v;
}

static void put(writer *w, const void *data, size_t len)
{
    memcpy(w->p + w->n, data, len);
    w->n += len;
}

static void put_name(writer *w, const wire_name *n)
{
    put(w, n->byte, n->len);
}

static void head(writer *w, unsigned id, unsigned flags, unsigned questions, unsigned answers)
{
    put16(w, id);
    put16(w, flags);
    put16(w, questions);
    put16(w, answers);
    put16(w, 0);
    put16(w, 0);
}

static void question(writer *w, const wire_name *n)
{
    put_name(w, n);
    put16(w, TYPE_PTR);
    put16(w, CLASS_IN);
}

size_t dil__mdns_query(uint16_t id, uint8_t out[DIL__MDNS_PACKET])
{
    writer w = {.p = out};
    head(&w, id, 0, 1, 0);
    question(&w, &service);
    return w.n;
}

/* Up to the length of what follows, which is filled in by end_record. */
static size_t begin_record(writer *w, const wire_name *n, unsigned type, bool flush, uint32_t ttl)
{
    put_name(w, n);
    put16(w, type);
    put16(w, CLASS_IN | (flush ? FLUSH : 0u));
    put16(w, ttl >> 16);
    put16(w, ttl & 0xffff);
    put16(w, 0);
    return w->n;
}

static void end_record(writer *w, size_t from)
{
    size_t len = w->n - from;
    w->p[from - 2] = (uint8_t)(len >> 8);
    w->p[from - 1] = (uint8_t)len;
}

static void put_text(writer *w, const char *key, const char *value)
{
    size_t k = strlen(key), v = strlen(value); /* of ours: short */
    w->p[w->n++] = (uint8_t)(k + v);
    put(w, key, k);
    put(w, value, v);
}

size_t dil__mdns_answer(const dil__mdns_node *self, bool legacy, uint16_t id, bool goodbye, uint8_t out[DIL__MDNS_PACKET])
{
    writer w = {.p = out};
    wire_name instance = instance_of(self), host = host_of(self);
    bool flush = !legacy;
    uint32_t host_ttl = goodbye ? 0 : legacy ? DIL__MDNS_LEGACY_TTL : 120, ttl = goodbye ? 0 : legacy ? DIL__MDNS_LEGACY_TTL : 4500;
    head(&w, legacy ? id : 0, ANSWER | 0x0400 /* authoritative */, legacy, 4);
    if (legacy) question(&w, &service);
    size_t from = begin_record(&w, &service, TYPE_PTR, false, ttl);
    put_name(&w, &instance);
    end_record(&w, from);
    from = begin_record(&w, &instance, TYPE_SRV, flush, host_ttl);
    put16(&w, 0);
    put16(&w, 0);
    put16(&w, self->port);
    put_name(&w, &host);
    end_record(&w, from);
    from = begin_record(&w, &instance, TYPE_TXT, flush, ttl);
    put_text(&w, "v=", "1");
    put_text(&w, "name=", self->name);
    put_text(&w, "id=", self->id);
    if (self->pairing) put_text(&w, "pair=", "1");
    end_record(&w, from);
    from = begin_record(&w, &host, TYPE_A, flush, host_ttl);
    put(&w, self->address, 4);
    end_record(&w, from);
    return w.n;
}

/* --- reading ---------------------------------------------------------------------------------------------------------------------- */

typedef struct reader {
    const uint8_t *p;
    size_t len, at;
} reader;

static bool get16(reader *r, unsigned *v)
{
    if (r->len - r->at < 2) return false;
    *v = (unsigned)r->p[r->at] << 8 | r->p[r->at + 1];
    r->at += 2;
    return true;
}

/* Each pointer must lead before the place where the labels that led to it began: it ends. */
static bool get_name(reader *r, wire_name *out)
{
    size_t at = r->at, floor = r->at, end = 0;
    out->len = 0;
    for (;;) {
        if (at >= r->len) return false;
        uint8_t n = r->p[at];
        if ((n & 0xc0) == 0xc0) {
            if (r->len - at < 2) return false;
            size_t to = (size_t)(n & 0x3f) << 8 | r->p[at + 1];
            if (to >= floor) return false;
            if (!end) end = at + 2;
            at = floor = to;
            continue;
        }
        if (n > 63 || r->len - at - 1 < n || out->len + n + 1 > NAME_MAX_) return false;
        out->byte[out->len++] = n;
        for (size_t i = 1; i <= n; i++) {
            uint8_t c = r->p[at + i];
            out->byte[out->len++] = c >= 'A' && c <= 'Z' ? (uint8_t)(c + 32) : c;
        }
        at += (size_t)n + 1;
        if (n == 0) break;
    }
    r->at = end ? end : at;
    return true;
}

typedef struct record {
    wire_name name;
    unsigned type, class_;
    uint32_t ttl;
    size_t from, len; /* of its data */
} record;

static bool get_record(reader *r, record *rec)
{
    unsigned hi, lo, len;
    if (!get_name(r, &rec->name) || !get16(r, &rec->type) || !get16(r, &rec->class_) || !get16(r, &hi) || !get16(r, &lo) || !get16(r, &len)) return false;
    if (r->len - r->at < len) return false;
    rec->ttl = (uint32_t)hi << 16 | lo;
    rec->from = r->at;
    rec->len = len;
    r->at += len;
    return true;
}

/* A name that fills a record's data from `skip` on to its end. */
static bool name_in(const reader *r, const record *rec, size_t skip, wire_name *out)
{
    reader in = {.p = r->p, .len = rec->from + rec->len, .at = rec->from + skip};
    return rec->len > skip && get_name(&in, out) && in.at == in.len;
}

static bool get_head(reader *r, unsigned *id, unsigned *flags, unsigned count[4])
{
    return get16(r, id) && get16(r, flags) && get16(r, &count[0]) && get16(r, &count[1]) && get16(r, &count[2]) && get16(r, &count[3]);
}

static bool is_about(const wire_name *asked, unsigned type, const wire_name *instance, const wire_name *host)
{
    bool any = type == TYPE_ANY;
    if (same_name(asked, &service) || same_name(asked, &catalogue)) return any || type == TYPE_PTR;
    if (same_name(asked, instance)) return any || type == TYPE_SRV || type == TYPE_TXT;
    return same_name(asked, host) && (any || type == TYPE_A);
}

bool dil__mdns_asks(const uint8_t *message, size_t len, const dil__mdns_node *self, uint16_t *id)
{
    reader r = {.p = message, .len = len};
    unsigned ident, flags, count[4], type, class_;
    wire_name instance = instance_of(self), host = host_of(self), name, known;
    bool asks = false;
    if (!get_head(&r, &ident, &flags, count) || (flags & 0xf800) != 0) return false; /* an answer, or another operation */
    for (unsigned i = 0; i < count[0] && i < DIL__MDNS_RECORDS; i++) {
        if (!get_name(&r, &name) || !get16(&r, &type) || !get16(&r, &class_)) return false;
        asks |= (class_ & 0x7fff) == CLASS_IN && is_about(&name, type, &instance, &host);
    }
    if (count[0] > DIL__MDNS_RECORDS) return false;
    for (unsigned i = 0; asks && i < count[1] && i < DIL__MDNS_RECORDS; i++) {
        record rec;
        if (!get_record(&r, &rec)) return false;
        bool ours = rec.type == TYPE_PTR && same_name(&rec.name, &service) && name_in(&r, &rec, 0, &known) && same_name(&known, &instance);
        if (ours && rec.ttl >= 4500 / 2) asks = false;
    }
    *id = (uint16_t)ident;
    return asks;
}

/* What was seen so far of one instance. */
typedef struct sighting {
    wire_name instance, host;
    dil__mdns_node node;
    bool has_srv, has_txt, has_address, gone;
} sighting;

typedef struct collection {
    sighting seen[16];
    size_t n;
    struct { wire_name name; uint8_t address[4]; } host[16];
    size_t n_hosts;
} collection;

static bool of_service(const wire_name *n)
{
    size_t first = (size_t)n->byte[0] + 1;
    return n->len == first + service.len && first > 1 && memcmp(n->byte + first, service.byte, service.len) == 0;
}

static sighting *sighting_of(collection *c, const wire_name *instance)
{
    for (size_t i = 0; i < c->n; i++) {
        if (same_name(&c->seen[i].instance, instance)) return &c->seen[i];
    }
    if (c->n == sizeof c->seen / sizeof c->seen[0]) return NULL;
    sighting *s = &c->seen[c->n++];
    memset(s, 0, sizeof *s);
    s->instance = *instance;
    return s;
}

static bool take_word(const uint8_t *text, size_t len, const char *key, char *out, size_t cap)
{
    size_t k = strlen(key);
    if (len <= k || len - k >= cap || memcmp(text, key, k) != 0 || memchr(text, 0, len)) return false;
    memcpy(out, text + k, len - k);
    out[len - k] = 0;
    return true;
}

static void read_txt(const reader *r, const record *rec, sighting *s)
{
    char version[4] = "", pair[4] = "";
    for (size_t at = rec->from, end = rec->from + rec->len; at < end;) {
        size_t n = r->p[at++];
        if (n > end - at) return;
        take_word(r->p + at, n, "v=", version, sizeof version);
        take_word(r->p + at, n, "name=", s->node.name, sizeof s->node.name);
        take_word(r->p + at, n, "id=", s->node.id, sizeof s->node.id);
        take_word(r->p + at, n, "pair=", pair, sizeof pair);
        at += n;
    }
    s->node.pairing = strcmp(pair, "1") == 0;
    s->has_txt = strcmp(version, "1") == 0 && dil_pair_name_ok(s->node.name) && strlen(s->node.id) == DIL_KEY_ID_CHARS &&
                 strspn(s->node.id, "0123456789abcdef") == DIL_KEY_ID_CHARS;
}

static void take_record(const reader *r, const record *rec, collection *c)
{
    if ((rec->class_ & 0x7fff) != CLASS_IN) return;
    if (rec->type == TYPE_A && rec->len == 4 && c->n_hosts < sizeof c->host / sizeof c->host[0]) {
        c->host[c->n_hosts].name = rec->name;
        memcpy(c->host[c->n_hosts++].address, r->p + rec->from, 4);
    }
    if ((rec->type != TYPE_SRV && rec->type != TYPE_TXT) || !of_service(&rec->name)) return;
    sighting *s = sighting_of(c, &rec->name);
    if (!s) return;
    if (rec->type == TYPE_TXT) read_txt(r, rec, s);
    else if (rec->len > 6 && name_in(r, rec, 6, &s->host)) {
        s->node.port = (uint16_t)(r->p[rec->from + 4] << 8 | r->p[rec->from + 5]);
        s->has_srv = s->node.port != 0;
        s->gone = rec->ttl == 0;
    }
}

size_t dil__mdns_read(const uint8_t *message, size_t len, uint16_t *id, dil__mdns_node *out, size_t cap)
{
    reader r = {.p = message, .len = len};
    unsigned ident, flags, count[4], skip;
    wire_name name;
    if (!get_head(&r, &ident, &flags, count) || (flags & 0xf80f) != ANSWER) return 0;
    if (count[0] > DIL__MDNS_RECORDS || count[1] + count[2] + count[3] > DIL__MDNS_RECORDS) return 0;
    for (unsigned i = 0; i < count[0]; i++) {
        if (!get_name(&r, &name) || !get16(&r, &skip) || !get16(&r, &skip)) return 0;
    }
    collection c;
    c.n = c.n_hosts = 0;
    for (unsigned i = 0; i < count[1] + count[2] + count[3]; i++) {
        record rec;
        if (!get_record(&r, &rec)) return 0;
        take_record(&r, &rec, &c);
    }
    *id = (uint16_t)ident;
    size_t n = 0;
    for (size_t i = 0; i < c.n && n < cap; i++) {
        sighting *s = &c.seen[i];
        for (size_t h = 0; h < c.n_hosts && !s->has_address; h++) {
            if (!same_name(&c.host[h].name, &s->host)) continue;
            memcpy(s->node.address, c.host[h].address, 4);
            s->has_address = true;
        }
        if (s->has_srv && s->has_txt && s->has_address && !s->gone) out[n++] = s->node;
    }
    return n;
}
