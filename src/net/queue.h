/* net/queue.h - a bounded first-in first-out of messages between the node's threads. */
#ifndef DIL_NET_QUEUE_H
#define DIL_NET_QUEUE_H

#include "net/sock.h"

#include <pthread.h>

typedef struct dil__item {
    int kind;                      /* the owner's meaning */
    void *ptr;                     /* the owner's */
    dil__id from;
    char key[DIL_KEY_CHARS + 1];   /* of the sender; "" without CURVE */
    zmq_msg_t msg;                 /* initialised; closed by who pops */
} dil__item;

typedef struct dil__queue {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    dil__item *item; /* [cap] */
    uint32_t cap, head, n;
    bool closed;
} dil__queue;

bool dil__queue_init(dil__queue *q, uint32_t cap);
void dil__queue_fini(dil__queue *q);                   /* closes what is left */
bool dil__queue_push(dil__queue *q, dil__item *it);    /* moves *it in, its msg included; false when full or closed: it stays yours */
bool dil__queue_pop(dil__queue *q, dil__item *out);    /* blocks; false once closed */
void dil__queue_close(dil__queue *q);
uint32_t dil__queue_len(dil__queue *q);

#endif
