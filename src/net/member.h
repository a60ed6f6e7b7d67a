/* net/member.h - the nodes of the cluster that hold nothing at the moment: are they there, for how long, with how much memory?
 *
 * A node counts as there when it answers HELLO, and as gone when it is silent for detect_sec. One thread; nothing blocks. */
#ifndef DIL_NET_MEMBER_H
#define DIL_NET_MEMBER_H

#include "net/message.h"
#include "net/sock.h"

#include <dilemma/cluster.h>

enum { DIL__MEMBERS_MAX = 1024 }; /* nodes watched; those beyond are taken to be gone */

typedef struct dil__member {
    void *sock;
    int64_t dial_ns;          /* 0: not watched, it is in the ring */
    int64_t beat_ns, heard_ns;
    int64_t since_ns;         /* it has answered without a break since; 0: it is not there */
    uint64_t memory_free;     /* for this model, as it said last */
} dil__member;

typedef struct dil__members {
    const dil_cluster *cluster;
    const dil_keypair *key;   /* NULL: no CURVE */
    void *zmq;
    double detect_sec;
    uint64_t run, model;      /* of the LOADs to come */
    uint32_t n;
    dil__member *member;      /* [n], index as in the cluster */
    dil_buf buf;
} dil__members;

/* run, model: as in the LOADs to come (net/message.h). */
dil_status dil__members_init(dil__members *m, const dil_cluster *cluster, const dil_keypair *key, double detect_sec, uint64_t run, uint64_t model,
                             dil_err *err);
void dil__members_fini(dil__members *m);
void dil__members_watch(dil__members *m, uint32_t node, bool on);
/* Waits until something arrives, fd is readable, or timeout_ms; reads and sends what is due. True: a node came or went. */
bool dil__members_poll(dil__members *m, int fd, long timeout_ms);

#endif
