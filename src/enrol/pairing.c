/* The run as a table of steps. A message of the wrong type, at the wrong time or with anything left to interpret ends it: there is
 * nothing to negotiate, so there is nothing to downgrade. */
#include "enrol/pairing.h"

#include <sodium.h>
#include <string.h>

static const uint8_t magic[4] = {'D', 'L', 'P', '1'};
static const char channel[] = "dilemma pairing 1: coordinator, node";

static const size_t body_bytes[DIL__PAIRING_TYPES] = {
    [DIL__PAIRING_HELLO] = DIL__PAIRING_NONCE,
    [DIL__PAIRING_START] = DIL__PAIRING_NONCE + DIL__CPACE_POINT + DIL__PAIRING_WHO,
    [DIL__PAIRING_REPLY] = DIL__CPACE_POINT + DIL__PAIRING_WHO,
    [DIL__PAIRING_PROVE] = DIL__CPACE_TAG,
    [DIL__PAIRING_PROVEN] = DIL__CPACE_TAG,
    [DIL__PAIRING_KEPT] = DIL__CPACE_TAG,
    [DIL__PAIRING_DONE] = DIL__CPACE_TAG,
    [DIL__PAIRING_REFUSED] = 1,
};

size_t dil__pairing_size(const uint8_t *bytes, size_t len)
{
    size_t n = len < sizeof magic ? len : sizeof magic;
    if (n && memcmp(bytes, magic, n) != 0) return DIL__PAIRING_BAD;
    if (len < DIL__PAIRING_HEAD) return 0;
    uint8_t type = bytes[4];
    if (!type || type >= DIL__PAIRING_TYPES) return DIL__PAIRING_BAD;
    return DIL__PAIRING_HEAD + body_bytes[type];
}

static void put_head(dil_buf *out, dil__pairing_type type)
{
    uint8_t t = (uint8_t)type;
    dil_buf_append(out, magic, sizeof magic);
    dil_buf_append(out, &t, 1);
}

static void who_write(const dil__pairing_who *w, bool coordinator, uint8_t out[DIL__PAIRING_WHO])
{
    memset(out, 0, DIL__PAIRING_WHO);
    out[0] = coordinator ? 'C' : 'N';
    memcpy(out + 1, w->key, DIL_KEY_CHARS);
    memcpy(out + 1 + DIL_KEY_CHARS, w->name, strlen(w->name));
}

/* One form alone: the role, a key that is one, a name that is one, zeros behind it. */
static bool who_read(const uint8_t *in, bool coordinator, dil__pairing_who *w)
{
    uint8_t again[DIL__PAIRING_WHO];
    memset(w, 0, sizeof *w);
    memcpy(w->key, in + 1, DIL_KEY_CHARS);
    memcpy(w->name, in + 1 + DIL_KEY_CHARS, DIL_PAIR_NAME_MAX - 1);
    if (!dil_key_is_valid(w->key) || !dil_pair_name_ok(w->name)) return false;
    who_write(w, coordinator, again);
    return memcmp(again, in, sizeof again) == 0;
}

dil_status dil__pairing_begin(dil__pairing *p, bool coordinator, const dil__pairing_who *me, const char *code, dil_buf *out, dil_err *err)
{
    if (!dil_key_is_valid(me->key)) return dil_fail(err, DIL_EUSAGE, "our public key is none");
    if (!dil_pair_name_ok(me->name)) return dil_fail(err, DIL_EUSAGE, "'%.80s' cannot be a machine's name: letters, digits, '-', '_' and '.'", me->name);
    *p = (dil__pairing){.coordinator = coordinator, .me = *me, .step = coordinator ? DIL__PAIRING_HELLO_WANTED : DIL__PAIRING_START_WANTED};
    if (!dil_pair_code_read(code, p->code)) return dil_fail(err, DIL_EUSAGE, "a code has %d digits", DIL_PAIR_DIGITS);
    uint8_t *mine = coordinator ? p->sid : p->sid + DIL__PAIRING_NONCE;
    randombytes_buf(mine, DIL__PAIRING_NONCE);
    if (!coordinator) {
        put_head(out, DIL__PAIRING_HELLO);
        dil_buf_append(out, mine, DIL__PAIRING_NONCE);
    }
    return DIL_OK;
}

static dil_status broken(dil__pairing *p, dil__pairing_reason reason, dil_buf *out, dil_status code, const char *text, dil_err *err)
{
    dil__pairing_refuse(p, reason, out);
    return dil_fail(err, code, "%s", text);
}

static dil_status refused(dil__pairing *p, uint8_t reason, dil_err *err)
{
    static const char *const text[DIL__PAIRING_REASONS] = {
        [DIL__PAIRING_CODE] = "the code is not the one that is shown there",
        [DIL__PAIRING_FORM] = "it did not understand us: are both the same version of dilemma?",
        [DIL__PAIRING_BUSY] = "it has too many connections; try again",
        [DIL__PAIRING_NAME] = "it did not keep our key",
        [DIL__PAIRING_OVER] = "its code is over: start the pairing there again",
    };
    p->step = DIL__PAIRING_FAILED;
    bool known = reason > 0 && reason < DIL__PAIRING_REASONS;
    return dil_fail(err, reason == DIL__PAIRING_CODE || reason == DIL__PAIRING_OVER ? DIL_EAUTH : DIL_ENET, "%s", known ? text[reason] : "it refused, for a reason we do not know");
}

static void begin_pake(dil__pairing *p)
{
    uint8_t ad[DIL__PAIRING_WHO];
    who_write(&p->me, p->coordinator, ad);
    dil__cpace_begin(&p->pake, p->coordinator, p->code, DIL_PAIR_DIGITS, channel, strlen(channel), p->sid, sizeof p->sid, ad, sizeof ad);
}

static void send_point(const dil__pairing *p, dil_buf *out)
{
    dil_buf_append(out, p->pake.own, sizeof p->pake.own);
    dil_buf_append(out, p->pake.own_ad, p->pake.own_ad_len);
}

static void send_tag(const dil__pairing *p, dil__pairing_type type, const char *label, dil_buf *out)
{
    uint8_t tag[DIL__CPACE_TAG];
    dil__cpace_tag(&p->pake, label, tag);
    put_head(out, type);
    dil_buf_append(out, tag, sizeof tag);
}

/* A point and who says it. */
static dil_status meet(dil__pairing *p, const uint8_t *body, dil_buf *out, dil_err *err)
{
    const uint8_t *who = body + DIL__CPACE_POINT;
    if (!who_read(who, !p->coordinator, &p->peer)) return broken(p, DIL__PAIRING_FORM, out, DIL_EFORMAT, "the other side's name or key has a form that is not allowed", err);
    if (!dil__cpace_meet(&p->pake, body, who, DIL__PAIRING_WHO)) return broken(p, DIL__PAIRING_FORM, out, DIL_EFORMAT, "the other side sent no point of the group", err);
    return DIL_OK;
}

static dil_status wrong_code(dil__pairing *p, dil_buf *out, dil_err *err)
{
    p->wrong_code = true;
    return broken(p, DIL__PAIRING_CODE, out, DIL_EAUTH, p->coordinator ? "the other side does not know the code: it is another machine, or somebody is between" : "a wrong code, or somebody is between", err);
}

static dil_status take_body(dil__pairing *p, const uint8_t *body, dil_buf *out, dil_err *err)
{
    dil_status s;
    switch (p->step) {
    case DIL__PAIRING_HELLO_WANTED:
        memcpy(p->sid + DIL__PAIRING_NONCE, body, DIL__PAIRING_NONCE);
        begin_pake(p);
        put_head(out, DIL__PAIRING_START);
        dil_buf_append(out, p->sid, DIL__PAIRING_NONCE);
        send_point(p, out);
        p->step = DIL__PAIRING_REPLY_WANTED;
        return DIL_OK;
    case DIL__PAIRING_START_WANTED:
        memcpy(p->sid, body, DIL__PAIRING_NONCE);
        begin_pake(p);
        s = meet(p, body + DIL__PAIRING_NONCE, out, err);
        if (s != DIL_OK) return s;
        put_head(out, DIL__PAIRING_REPLY);
        send_point(p, out);
        p->step = DIL__PAIRING_PROVE_WANTED;
        return DIL_OK;
    case DIL__PAIRING_REPLY_WANTED:
        s = meet(p, body, out, err);
        if (s != DIL_OK) return s;
        send_tag(p, DIL__PAIRING_PROVE, NULL, out);
        p->step = DIL__PAIRING_PROVEN_WANTED;
        return DIL_OK;
    case DIL__PAIRING_PROVE_WANTED:
        if (!dil__cpace_check(&p->pake, NULL, body)) return wrong_code(p, out, err);
        send_tag(p, DIL__PAIRING_PROVEN, NULL, out);
        p->step = DIL__PAIRING_KEPT_WANTED;
        return DIL_OK;
    case DIL__PAIRING_PROVEN_WANTED:
        if (!dil__cpace_check(&p->pake, NULL, body)) return wrong_code(p, out, err);
        p->step = DIL__PAIRING_PROVED;
        return DIL_OK;
    case DIL__PAIRING_KEPT_WANTED:
        if (!dil__cpace_check(&p->pake, "kept", body)) return wrong_code(p, out, err);
        p->step = DIL__PAIRING_PROVED;
        return DIL_OK;
    case DIL__PAIRING_DONE_WANTED:
        if (!dil__cpace_check(&p->pake, "done", body)) return wrong_code(p, out, err);
        p->step = DIL__PAIRING_ENDED;
        return DIL_OK;
    default: return broken(p, DIL__PAIRING_FORM, out, DIL_EFORMAT, "a message after the end", err);
    }
}

static dil__pairing_type wanted(dil__pairing_step step)
{
    switch (step) {
    case DIL__PAIRING_HELLO_WANTED: return DIL__PAIRING_HELLO;
    case DIL__PAIRING_START_WANTED: return DIL__PAIRING_START;
    case DIL__PAIRING_REPLY_WANTED: return DIL__PAIRING_REPLY;
    case DIL__PAIRING_PROVE_WANTED: return DIL__PAIRING_PROVE;
    case DIL__PAIRING_PROVEN_WANTED: return DIL__PAIRING_PROVEN;
    case DIL__PAIRING_KEPT_WANTED: return DIL__PAIRING_KEPT;
    case DIL__PAIRING_DONE_WANTED: return DIL__PAIRING_DONE;
    default: return DIL__PAIRING_TYPES;
    }
}

dil_status dil__pairing_take(dil__pairing *p, const uint8_t *message, size_t len, dil_buf *out, dil_err *err)
{
    if (dil__pairing_size(message, len) != len || !len) return broken(p, DIL__PAIRING_FORM, out, DIL_EFORMAT, "no message of the pairing", err);
    if (message[4] == DIL__PAIRING_REFUSED) return refused(p, message[DIL__PAIRING_HEAD], err);
    if (message[4] != wanted(p->step)) return broken(p, DIL__PAIRING_FORM, out, DIL_EFORMAT, "a message of the pairing out of its order", err);
    return take_body(p, message + DIL__PAIRING_HEAD, out, err);
}

void dil__pairing_keep(dil__pairing *p, dil_buf *out)
{
    if (p->step != DIL__PAIRING_PROVED) return;
    send_tag(p, p->coordinator ? DIL__PAIRING_KEPT : DIL__PAIRING_DONE, p->coordinator ? "kept" : "done", out);
    p->step = p->coordinator ? DIL__PAIRING_DONE_WANTED : DIL__PAIRING_ENDED;
}

void dil__pairing_refuse(dil__pairing *p, dil__pairing_reason reason, dil_buf *out)
{
    uint8_t r = (uint8_t)reason;
    put_head(out, DIL__PAIRING_REFUSED);
    dil_buf_append(out, &r, 1);
    p->step = DIL__PAIRING_FAILED;
}

void dil__pairing_end(dil__pairing *p)
{
    sodium_memzero(p, sizeof *p);
}
