/* enrol/pairing.h - the pairing's messages and one run of it, without sockets or clock: bytes in, bytes out.
 *
 *   dil__pairing_begin(&p, coordinator, &me, code, &out, err);
 *   n = dil__pairing_size(bytes, len);     0: not yet known; DIL__PAIRING_BAD: no message of ours
 *   dil__pairing_take(&p, message, n, &out, err);   then send `out`
 *   p.step == DIL__PAIRING_PROVED: the peer knew the code; keep its key, then dil__pairing_keep(&p, &out) or dil__pairing_refuse(...)
 *
 * Order: HELLO n->c, START c->n, REPLY n->c, PROVE c->n, PROVEN n->c, KEPT c->n, DONE n->c. The coordinator proves first, so that who
 * asks a node learns nothing from a run that it breaks off. Every message has one length. */
#ifndef DIL_ENROL_PAIRING_H
#define DIL_ENROL_PAIRING_H

#include "enrol/cpace.h"

#include <dilemma/pair.h>

#define DIL__PAIRING_NONCE 16
#define DIL__PAIRING_WHO (1 + DIL_KEY_CHARS + DIL_PAIR_NAME_MAX - 1) /* role, key, name padded with zeros */
#define DIL__PAIRING_HEAD 5
#define DIL__PAIRING_MAX (DIL__PAIRING_HEAD + DIL__PAIRING_NONCE + DIL__CPACE_POINT + DIL__PAIRING_WHO)
#define DIL__PAIRING_BAD SIZE_MAX

typedef enum dil__pairing_type {
    DIL__PAIRING_HELLO = 1, DIL__PAIRING_START, DIL__PAIRING_REPLY, DIL__PAIRING_PROVE, DIL__PAIRING_PROVEN, DIL__PAIRING_KEPT, DIL__PAIRING_DONE,
    DIL__PAIRING_REFUSED, DIL__PAIRING_TYPES
} dil__pairing_type;

typedef enum dil__pairing_reason { DIL__PAIRING_CODE = 1, DIL__PAIRING_FORM, DIL__PAIRING_BUSY, DIL__PAIRING_NAME, DIL__PAIRING_OVER, DIL__PAIRING_REASONS } dil__pairing_reason;

typedef enum dil__pairing_step {
    DIL__PAIRING_HELLO_WANTED, DIL__PAIRING_START_WANTED, DIL__PAIRING_REPLY_WANTED, DIL__PAIRING_PROVE_WANTED, DIL__PAIRING_PROVEN_WANTED,
    DIL__PAIRING_KEPT_WANTED, DIL__PAIRING_PROVED, DIL__PAIRING_DONE_WANTED, DIL__PAIRING_ENDED, DIL__PAIRING_FAILED
} dil__pairing_step;

typedef struct dil__pairing_who {
    char key[DIL_KEY_CHARS + 1], name[DIL_PAIR_NAME_MAX];
} dil__pairing_who;

typedef struct dil__pairing {
    bool coordinator, wrong_code;  /* wrong_code: the peer gave a proof that the code does not fit */
    dil__pairing_step step;
    dil__pairing_who me, peer;     /* peer: from PROVED on */
    char code[DIL_PAIR_DIGITS + 1];
    uint8_t sid[2 * DIL__PAIRING_NONCE]; /* the coordinator's nonce, then the node's */
    dil__cpace pake;
} dil__pairing;

size_t dil__pairing_size(const uint8_t *bytes, size_t len);
/* me, code: copied. The node's HELLO goes to out; the coordinator waits for it. */
dil_status dil__pairing_begin(dil__pairing *p, bool coordinator, const dil__pairing_who *me, const char *code, dil_buf *out, dil_err *err);
/* One whole message. On an error the run is over; out may hold the refusal to send. DIL_EAUTH: the code; DIL_EFORMAT: anything else. */
dil_status dil__pairing_take(dil__pairing *p, const uint8_t *message, size_t len, dil_buf *out, dil_err *err);
void dil__pairing_keep(dil__pairing *p, dil_buf *out);
void dil__pairing_refuse(dil__pairing *p, dil__pairing_reason reason, dil_buf *out);
void dil__pairing_end(dil__pairing *p); /* wipes */

#endif
