/* net/node_int.h - the daemon's inside, for its three files: node.c (listener, start and stop), node_sessions.c (who holds what; sending),
 * node_jobs.c (the job thread and the worker). */
#ifndef DIL_NET_NODE_INT_H
#define DIL_NET_NODE_INT_H

#include "net/gate.h"
#include "net/node_impl.h"
#include "net/queue.h"

enum { DIL__SESSIONS_MAX = 16 };
enum { DIL__ITEM_FRAME, DIL__ITEM_OPEN, DIL__ITEM_END }; /* of the queue of works */

struct dil_node {
    void *zmq, *router;
    uint16_t port;
    int router_fd, poke_fd;
    pthread_mutex_t router_lock;
    pthread_t listener, jobs_thread, worker;
    int n_threads_started;
    atomic_bool stopping;
    dil__queue jobs, works;

    pthread_mutex_t lock; /* guards sessions and the counts in them */
    dil__net_session *session[DIL__SESSIONS_MAX];
    uint32_t n_sessions;
    uint64_t next_tag;

    dil__gate *gate;      /* NULL: insecure */
    dil_keypair key;
    dil__env env;
    char device[64], cpu[128];
    uint64_t memory_bytes;
    dil_buf reply;        /* the listener's */
    dil_buf job_reply;    /* the job thread's */
    int64_t next_sweep_ns, complained_ns;
};

/* Sending: from any thread; a message that finds nobody is dropped. b: the caller's buffer. */
void dil__node_poke(dil_node *n);
void dil__node_send(void *node, const dil__id *to, const dil_buf *frame);
void dil__node_send_error(dil_node *n, dil_buf *b, const dil__id *to, const dil_frame *f, const dil_err *e);
/* Tells its coordinator how the session is. False: there is nobody any more. A peer that is silent without closing its connection counts as there
 * until ZeroMQ's heartbeats give it up (sock.c), 5 s. */
bool dil__node_push_status(dil_node *n, dil__net_session *s);
void dil__node_send_empty(dil_node *n, dil_buf *b, const dil__id *to, const dil_frame *f, dil_frame_type type);

/* Sessions. One that was got is put back. */
dil__net_session *dil__node_session(dil_node *n, uint64_t id); /* NULL: there is none */
dil_status dil__node_own_session(dil_node *n, uint64_t id, const char *key, dil__net_session **out, dil_err *err); /* of the coordinator with that key */
void dil__node_put(dil_node *n, dil__net_session *s);
void dil__node_remove(dil_node *n, dil__net_session *s, const char *why);
uint64_t dil__node_bytes_in_use(dil_node *n);
/* Held by sessions that a LOAD of owner's model leaves alone, as far as it replaces: other owners', and other models' of the same run. */
uint64_t dil__node_bytes_kept(dil_node *n, const char *owner, uint64_t run, uint64_t model);
uint64_t dil__node_free_for(dil_node *n, const dil__net_session *s); /* what its coordinator's next LOAD of the model can have */
/* True: another run with that key has layers here and is connected; from: where it is. Two of them would replace each other for ever. */
bool dil__node_rival(dil_node *n, const char *owner, uint64_t run, char from[DIL__ADDRESS_MAX]);
void dil__node_end_replaced(dil_node *n, const char *owner, uint64_t run, uint64_t model, const char *why);
void dil__node_end_silent(dil_node *n);
void dil__node_touch(dil_node *n, dil__net_session *s);
void dil__node_complete(dil_node *n, dil__net_session *s); /* all chunks are there */

void *dil__node_run_jobs(void *arg);
void *dil__node_run_works(void *arg);

#endif
