/* enrol/mdns.h - the few messages of multicast DNS that finding nodes needs, as bytes. Pure.
 *
 * Written: a query for _dilemma._tcp.local, and one answer that holds everything about a node (PTR, SRV, TXT, A). Read: queries (is it us
 * they ask for?) and answers of anybody, which may be compressed, incomplete, or lies. Nothing is allocated; names have at most 255
 * bytes, a message at most DIL__MDNS_RECORDS records that are looked at, pointers go backwards only, so that reading ends.
 * Source: RFC 1035 section 4, RFC 6762 sections 6, 7.1, 18, RFC 6763 sections 4 to 6. */
#ifndef DIL_ENROL_MDNS_H
#define DIL_ENROL_MDNS_H

#include <dilemma/discover.h>

#define DIL__MDNS_PACKET 1472   /* what we write, and read of one datagram */
#define DIL__MDNS_RECORDS 64
#define DIL__MDNS_PORT 5353
#define DIL__MDNS_LEGACY_TTL 10

typedef struct dil__mdns_node {
    char name[DIL_PAIR_NAME_MAX], id[DIL_KEY_ID_CHARS + 1];
    uint8_t address[4];
    uint16_t port;
    bool pairing;
} dil__mdns_node;

size_t dil__mdns_query(uint16_t id, uint8_t out[DIL__MDNS_PACKET]);

/* Whether the message asks for what self would answer, and does not know the answer yet (RFC 6762, 7.1). *id: the query's. */
bool dil__mdns_asks(const uint8_t *message, size_t len, const dil__mdns_node *self, uint16_t *id);

/* legacy: to one that asked from another port (6.7): its id and question come back, times are short, nothing is flushed. goodbye: TTL 0. */
size_t dil__mdns_answer(const dil__mdns_node *self, bool legacy, uint16_t id, bool goodbye, uint8_t out[DIL__MDNS_PACKET]);

/* The nodes that an answer tells completely; at most cap. 0 for anything that is no answer or broken before its end. *id: its own. */
size_t dil__mdns_read(const uint8_t *message, size_t len, uint16_t *id, dil__mdns_node *out, size_t cap);

#endif
