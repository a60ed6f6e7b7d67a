/* A ring of items under one lock; the waiting thread is woken per item. */
#include "net/queue.h"

#include <stdlib.h>

bool dil__queue_init(dil__queue *q, uint32_t cap)
{
    *q = (dil__queue){.cap = cap, .item = calloc(cap, sizeof *q->item)};
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->changed, NULL);
    return q->item != NULL;
}

static void move(dil__item *to, dil__item *from)
{
    *to = *from;
    zmq_msg_init(&to->msg);
    zmq_msg_move(&to->msg, &from->msg);
}

void dil__queue_fini(dil__queue *q)
{
    for (; q->item && q->n; q->n--) {
        zmq_msg_close(&q->item[q->head].msg);
        q->head = (q->head + 1) % q->cap;
    }
    free(q->item);
    pthread_mutex_destroy(&q->lock);
    pthread_cond_destroy(&q->changed);
}

bool dil__queue_push(dil__queue *q, dil__item *it)
{
    pthread_mutex_lock(&q->lock);
    bool ok = !q->closed && q->n < q->cap;
    if (ok) {
        move(&q->item[(q->head + q->n++) % q->cap], it);
        pthread_cond_signal(&q->changed);
    }
    pthread_mutex_unlock(&q->lock);
    return ok;
}

bool dil__queue_pop(dil__queue *q, dil__item *out)
{
    pthread_mutex_lock(&q->lock);
    while (q->n == 0 && !q->closed) pthread_cond_wait(&q->changed, &q->lock);
    bool ok = !q->closed;
    if (ok) {
        move(out, &q->item[q->head]);
        zmq_msg_close(&q->item[q->head].msg);
        q->head = (q->head + 1) % q->cap;
        q->n--;
    }
    pthread_mutex_unlock(&q->lock);
    return ok;
}

void dil__queue_close(dil__queue *q)
{
    pthread_mutex_lock(&q->lock);
    q->closed = true;
    pthread_cond_broadcast(&q->changed);
    pthread_mutex_unlock(&q->lock);
}

uint32_t dil__queue_len(dil__queue *q)
{
    pthread_mutex_lock(&q->lock);
    uint32_t n = q->n;
    pthread_mutex_unlock(&q->lock);
    return n;
}
