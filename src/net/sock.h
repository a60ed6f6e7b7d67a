/* net/sock.h - ZeroMQ as we use it: CURVE, bounded queues and messages, nothing that lingers, errors in words. */
#ifndef DIL_NET_SOCK_H
#define DIL_NET_SOCK_H

#include <dilemma/frame.h>
#include <dilemma/keys.h>

#include <zmq.h>

enum { DIL__ID_MAX = 32 };

typedef struct dil__id { /* where an answer goes: the routing id that a ROUTER gave the connection */
    uint8_t bytes[DIL__ID_MAX];
    uint8_t len; /* 0: nobody */
} dil__id;

bool dil__address_ok(const char *address);  /* HOST:PORT, "*:PORT" included; [v6]:PORT */

/* me NULL: no CURVE. A DEALER that connects to address and pins server_key. It reconnects by itself; what it cannot send in
 * time waits in a queue of 64 frames. */
dil_status dil__dial(void *ctx, const char *address, const char *server_key, const dil_keypair *me, void **sock, dil_err *err);
/* A ROUTER. port (may be NULL): as bound. Errors: DIL_EBUSY names the address in use. */
dil_status dil__listen(void *ctx, const char *address, const dil_keypair *me, void **sock, uint16_t *port, dil_err *err);

dil_status dil__send_buf(void *sock, const dil_buf *b, dil_err *err); /* one frame, never blocks; DIL_ENET when the queue is full */
/* Reads and forgets the other parts of a message whose first parts were enough. */
void dil__drop_parts(void *sock, const zmq_msg_t *last);

/* Watches a dialled socket for handshakes that fail, to tell a wrong key from a silent host. */
typedef struct dil__watch {
    void *monitor;
    bool connected, shaken; /* TCP; the whole handshake */
    int64_t gone_ns;        /* it was connected and is not since then; 0: it is, or never was */
    uint32_t n_broken;      /* connections that broke after their handshake */
    int refused;            /* 0; 1: our key was refused; 2: the handshake broke (another key or no CURVE over there) */
} dil__watch;
dil_status dil__watch_open(dil__watch *w, void *ctx, void *sock, dil_err *err);
void dil__watch_poll(dil__watch *w);
void dil__watch_close(dil__watch *w, void *sock);
/* The error that the watch explains best: EAUTH, or ENET "HOST:PORT does not answer". */
dil_status dil__watch_fail(const dil__watch *w, const char *address, const dil_keypair *me, double sec, dil_err *err);

#endif
