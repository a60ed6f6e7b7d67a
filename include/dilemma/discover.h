/* dilemma/discover.h - nodes on the local network: announced by themselves, found by asking (multicast DNS, RFC 6762; DNS-SD, RFC 6763).
 *
 *   node:         dil_announce_open("0.0.0.0", 7100, "pi", public_key, true, &a, err);  ...  dil_announce_close(a)
 *   coordinator:  dil_discover(2, found, 64, &n, err)
 *
 * Off unless asked for on both sides. What is found is a hint where to knock: names and addresses on a network can be anybody's, keys decide
 * (dilemma/keys.h), and they come from pairing (dilemma/pair.h). The service is _dilemma._tcp.local, IPv4; no daemon is needed, and one
 * that runs beside (Avahi, systemd-resolved) is not disturbed. */
#ifndef DILEMMA_DISCOVER_H
#define DILEMMA_DISCOVER_H

#include <dilemma/pair.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { DIL_KEY_ID_CHARS = 16, DIL_DISCOVER_MAX = 64 };

/* The first 8 bytes of a public key's BLAKE2b in hexadecimal: how an announcement says whose it is. */
void dil_key_id(const char *z85, char out[DIL_KEY_ID_CHARS + 1]);

typedef struct dil_found_node {
    char name[DIL_PAIR_NAME_MAX], id[DIL_KEY_ID_CHARS + 1], address[DIL_PAIR_ADDRESS_MAX];
    bool pairing; /* it says that it shows a code */
} dil_found_node;

/* Asks on every interface, three times, and listens for sec. Sorted by name; at most cap. None is no error.
 * Errors: DIL_ENET (no interface with multicast, no socket). Blocks for sec. */
dil_status dil_discover(double sec, dil_found_node *out, size_t cap, size_t *n, dil_err *err);

typedef struct dil_announce dil_announce;
/* host: an IPv4 address of this machine, or 0.0.0.0 for all of them. Answers in a thread of its own until closed, then says goodbye.
 * Errors: DIL_EUSAGE (an address that nobody else reaches), DIL_ENET (no interface with multicast, the mDNS port). */
dil_status dil_announce_open(const char *host, uint16_t port, const char *name, const char *key, bool pairing, dil_announce **out, dil_err *err);
void dil_announce_close(dil_announce *a);

#ifdef __cplusplus
}
#endif
#endif
