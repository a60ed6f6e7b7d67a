/* net/ring.h - the two halves of a coordinator: the data half is the scheduler's pipe (ring.c), the control half a thread that
 * connects, loads and watches nodes (ringctl.c). They share the struct below; `lock` guards what both touch. */
#ifndef DIL_NET_RING_H
#define DIL_NET_RING_H

#include "net/message.h"
#include "net/sock.h"

#include <dilemma/coordinator.h>

#include <pthread.h>
#include <stdatomic.h>

typedef struct dil__chunk_ref {
    const void *data;
    uint32_t bytes;
} dil__chunk_ref;

typedef enum dil__node_phase { /* of the control half's conversation with one node */
    DIL__NODE_CONNECTS, DIL__NODE_LOADS, DIL__NODE_RECEIVES, DIL__NODE_OPENS, DIL__NODE_READY, DIL__NODE_REFUSES
} dil__node_phase;

typedef struct dil__ring_node {
    char name[DIL_NAME_MAX], address[DIL__ADDRESS_MAX], key[DIL_KEY_CHARS + 1];
    dil__load load;             /* arrays on the ring's arena */
    dil__chunk_ref *chunk;      /* [load.n_chunks] */
    uint64_t bytes_total;

    /* control thread only */
    void *ctl, *bulk;
    dil__watch watch, bulk_watch;
    uint8_t *missing;           /* [load.n_chunks] 1: to be sent */
    uint32_t next_chunk, n_window, n_missing;
    int64_t heard_ns, beat_ns, dial_ns, sent_ns;
    int64_t busy_ns;            /* since when another coordinator has it; 0: it has not */
    dil__node_status status;

    /* under the ring's lock, written by the control thread */
    dil__node_phase phase;
    dil_err err;                /* what went wrong last; code DIL_OK: nothing */
    uint64_t bytes_sent, bytes_cached, rss_bytes, memory_free;
    bool memory_known;          /* it said what is free */
    int64_t shown_heard_ns;
    dil__tempo tempo;
} dil__ring_node;

typedef struct dil__failed_work {
    uint64_t id;
    uint32_t epoch;
    dil_err err;
} dil__failed_work;

typedef struct dil__ring {
    dil__pipe pipe;
    dil_arena *arena;
    const dil_gguf *model;
    dil_keypair key;
    bool secure;
    uint64_t session;
    double lost_sec;
    bool fetch_only;      /* only fills the nodes' caches: its pipe is never used */
    dil__ring_node *node; /* [n_nodes] */
    uint32_t n_nodes, n_stages;
    uint32_t *stage_node; /* [n_stages] */
    uint32_t n_embd, chunk_bytes;
    dil_buf words;        /* of the vocabulary, for the last stage; empty: none */

    void *zmq;
    pthread_t thread;
    bool started;
    atomic_bool closing;
    int wake_fd;          /* the scheduler's */
    int ctl_fd;           /* the control thread's */

    void (*news)(void *ctx); /* a node came or went, the ring closed or broke: any thread, returns at once */
    void *news_ctx;

    pthread_mutex_t lock; /* guards what follows up to `epoch` */
    pthread_cond_t changed;
    bool accepted;        /* every node has its session, and lets its neighbours in */
    bool loaded;          /* every node holds its stages */
    bool ready;           /* and a frame went around */
    bool was_ready;       /* once: streams may wait for it */
    int64_t lost_ns;      /* since when it is not ready any more */
    char lost_node[DIL_NAME_MAX]; /* because of this one; "": a link */
    bool reset;
    dil_err reset_err, ring_err;
    uint32_t broken_from, broken_to; /* nodes whose link swallowed a work last; UINT32_MAX: none */
    dil__failed_work failed[DIL__DEPTH_MAX];
    uint32_t n_failed;
    dil_ring_timing timing;

    /* scheduler thread only */
    uint32_t epoch;
    void *out, *in;
    bool dialled_ahead;   /* they are of no epoch yet */
    enum { RING_DOWN, RING_ATTACHES, RING_TESTS, RING_UP } data_state;
    int64_t data_since_ns;
    uint32_t n_bounced;
    int64_t lost_one_ns;  /* a work was last found lost in the middle */
    zmq_msg_t answer;
    dil__row *rows;       /* [n_seq + DIL__DRAFT_MAX] */
    struct { uint64_t id; int64_t sent_ns; bool decode; } flight[DIL__DEPTH_MAX];

    /* both */
    atomic_uint n_flying;
    atomic_int_fast64_t progress_ns; /* last work sent or result received, or sign of work on a node */
} dil__ring;

/* ring.c. news must not call back. fetch_only: see above; loaded says when. Errors: those of dil_runner_ring. */
dil_status dil__ring_open(const dil_plan *plan, const dil_cluster *cluster, const dil_gguf *model, const dil_arch *arch, const dil_ring_opts *opts,
                          bool fetch_only, void (*news)(void *ctx), void *news_ctx, dil__ring **out, dil_err *err);
const char *dil__ring_phase_text(const dil__ring_node *n, char out[160]);

/* ringload.c */
dil_status dil__ring_build(dil__ring *r, const dil_plan *plan, const dil_cluster *cluster, const dil_arch *arch, const dil_ring_opts *o, dil_err *err);
void dil__ring_hash(dil__ring *r); /* fills the hashes of every node's chunks. Cost: reads the model once */

/* ringctl.c */
void *dil__ring_control(void *ring); /* the control thread */

void dil__ring_poke(int fd);

#endif
