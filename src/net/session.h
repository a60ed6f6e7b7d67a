/* net/session.h - what one coordinator has loaded on this node: its stages, from the first chunk to the last token.
 *
 * Life: new (from a LOAD frame) -> chunks arrive -> open -> works -> free. The node's job thread does the first two steps, its
 * worker thread the others; what both and the heartbeats read is behind the session's lock. */
#ifndef DIL_NET_SESSION_H
#define DIL_NET_SESSION_H

#include "net/message.h"
#include "net/picker.h"
#include "net/sock.h"
#include "net/store.h"

#include <pthread.h>
#include <stdatomic.h>

/* The engine as the node uses it; the tests put a token function in its place. */
typedef struct dil__engine {
    dil_status (*open)(const dil_arch *arch, const dil_weights *w, const dil_stage_opts *o, const dil_progress *p, dil_stage **out, dil_err *err);
    void (*close)(dil_stage *s);
    dil_status (*eval)(dil_stage *s, const dil_batch *b, const float *hidden_in, float *out, dil_err *err);
    void (*trim)(dil_stage *s, uint32_t seq, uint32_t from_pos);
    dil_status (*measure)(const dil_arch *arch, const dil_stage_opts *o, uint64_t *kv_bytes_per_block, uint64_t *buffer_bytes, dil_err *err);
    dil_status (*time_layer)(const dil_arch *arch, uint32_t layer, const dil_type *types, const char *device, int n_threads, uint32_t n_past,
                             uint32_t n_batch, double limit_sec, dil_layer_time *out, dil_err *err);
} dil__engine;
extern const dil__engine dil__engine_real;

typedef struct dil__env { /* the node around a session; borrowed */
    void *zmq;
    const dil_keypair *key;  /* NULL: insecure */
    const dil__engine *engine;
    const char *device;
    int n_threads;
    double throttle;
    dil__store *store;
    void (*send)(void *node, const dil__id *to, const dil_buf *frame);
    void *node;
    atomic_bool *stopping;
} dil__env;

typedef struct dil__part dil__part;

typedef struct dil__span { /* where a tensor's chunks are mapped */
    void *at;
    size_t bytes;
} dil__span;

typedef struct dil__net_session {
    const dil__env *env;
    uint64_t id;
    char owner[DIL_KEY_CHARS + 1];
    char from[DIL__ADDRESS_MAX]; /* where it is, as ZeroMQ says */
    uint64_t owner_tag;       /* of the keys that it admitted at the gate */
    uint64_t bytes;           /* weights, cache and buffers: what it was accepted for */
    int n_refs;               /* under the node's lock */
    dil_hash load_hash;       /* of the LOAD frame's body */
    int64_t seen_ns;          /* last word from the coordinator; under the node's lock */

    pthread_mutex_t lock;     /* guards what follows up to `arena` */
    dil__net_session_state state;
    dil_err err;
    dil__id control, attached;
    uint32_t n_missing;
    uint8_t *missing;         /* one bit a chunk */
    bool busy, open_queued;
    uint64_t last_work;
    dil__tempo tempo;

    dil_arena *arena;         /* of load */
    dil__load load;
    uint64_t *chunk_tensor;   /* [n_tensors + 1] first chunk of each */
    dil__span *spans;         /* [n_tensors] */
    dil__part *parts;         /* [n_parts] worker thread only, but see net/part.h */
    dil__picker picker;
    float *logits;
    dil__row *rows;
    dil_buf reply;
    uint32_t epoch;
    float *wide_in, *wide_out; /* [max_batch][n_embd] where hidden states travel narrower; NULL with F32 */
    float *aligned;           /* for a frame at an odd address */
    size_t aligned_bytes;
} dil__net_session;

const dil_tensor *dil__net_session_tensor(dil__net_session *s, const char *name); /* NULL: not announced */

/* Decodes and checks the LOAD frame against its own architecture. */
dil_status dil__net_session_new(const dil__env *env, const dil_frame *f, const char *owner, const dil__id *control, dil__net_session **out, dil_err *err);
void dil__net_session_free(dil__net_session *s);
/* Fills s->bytes. text (may be NULL) says how it adds up. */
dil_status dil__net_session_measure(dil__net_session *s, char text[160], dil_err *err);
/* Looks which chunks the cache holds. Cost: hashes them all. */
void dil__net_session_look_up(dil__net_session *s);
/* DIL_EDATA, DIL_EIO, DIL_EFORMAT; n_left: chunks still missing. */
dil_status dil__net_session_chunk(dil__net_session *s, uint32_t index, const void *data, size_t len, uint32_t *n_left, dil_err *err);
dil_status dil__net_session_open(dil__net_session *s, dil_err *err);
/* Dials the nodes behind this one ahead of the first work, so that the handshakes of a ring run beside each other. Any thread. */
void dil__net_session_join(dil__net_session *s);
/* Computes and passes on; failures go to the coordinator. sender: the peer's key, NULL without CURVE. */
void dil__net_session_work(dil__net_session *s, zmq_msg_t *msg, const char *sender);

void dil__net_session_set_state(dil__net_session *s, dil__net_session_state state, const dil_err *err);
void dil__net_session_status(dil__net_session *s, dil__node_status *out);

#endif
