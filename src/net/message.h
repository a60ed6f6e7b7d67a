/* net/message.h - what the frames say: one struct, one encoder and one decoder a message. Pure; fuzzed through one door.
 *
 * Encoders write a whole frame into an empty buffer and return false when it failed or is too long. Decoders take a decoded
 * frame, check every count and range, and put what needs memory on the arena; text in errors names the message. */
#ifndef DIL_NET_MESSAGE_H
#define DIL_NET_MESSAGE_H

#include "net/tempo.h"
#include "net/pipe.h"

#include <dilemma/frame.h>
#include <dilemma/node.h>

enum {
    DIL__ADDRESS_MAX = 256,
    DIL__PARTS_MAX = 64,           /* stages of one session on one node */
    DIL__TENSORS_MAX = 65536,
    DIL__CHUNKS_MAX = 1 << 20,     /* of one session on one node */
    DIL__CHUNK_BYTES_MIN = 1 << 16,
    DIL__CHUNK_BYTES_MAX = 4 << 20,
    DIL__ADMIT_MAX = 1024
};
/* The tensor, of bytes, that holds the vocabulary's words (engine/grammar.h) for the node that picks tokens; it may be absent. */
#define DIL__WORDS "dilemma.words"

/* --- small answers ------------------------------------------------------------------------------------------------------- */

bool dil__msg_error(dil_buf *b, dil_frame_type type, uint64_t session, uint64_t id, uint32_t epoch, const dil_err *e); /* ERROR, WORK_FAILED */
dil_status dil__msg_get_error(const dil_frame *f, dil_err *out); /* DIL_EFORMAT when malformed, else DIL_OK */
bool dil__msg_empty(dil_buf *b, dil_frame_type type, uint64_t session, uint64_t id, uint32_t epoch);

/* --- who are you ----------------------------------------------------------------------------------------------------------- */

/* A HELLO may say for which model of which run it asks: what a LOAD of that model would replace then counts as free. */
bool dil__msg_hello(dil_buf *b, uint64_t id, uint64_t run, uint64_t model);
/* *named: false for an empty one. */
dil_status dil__msg_get_hello(const dil_frame *f, bool *named, uint64_t *run, uint64_t *model, dil_err *err);
bool dil__msg_info(dil_buf *b, uint64_t id, const dil_node_info *m);
dil_status dil__msg_get_info(const dil_frame *f, dil_node_info *out, dil_err *err);

/* --- measuring ------------------------------------------------------------------------------------------------------------- */

typedef struct dil__time_layer {
    dil_arch arch;
    uint32_t layer, n_types, n_past, n_batch;
    dil_type types[DIL_LAYER_TENSORS_MAX];
    double limit_sec;
} dil__time_layer;
bool dil__msg_time_layer(dil_buf *b, uint64_t id, const dil__time_layer *m);
dil_status dil__msg_get_time_layer(const dil_frame *f, dil__time_layer *out, dil_err *err);
bool dil__msg_times(dil_buf *b, uint64_t id, const dil_layer_time *m);
dil_status dil__msg_get_times(const dil_frame *f, dil_layer_time *out, dil_err *err);

/* reply_bytes: of the answer's payload, at most DIL__ECHO_MAX; UINT32_MAX: no answer is wanted. */
bool dil__msg_echo(dil_buf *b, uint64_t id, uint32_t reply_bytes, uint32_t payload_bytes);
dil_status dil__msg_get_echo(const dil_frame *f, uint32_t *reply_bytes, dil_err *err);
bool dil__msg_echo_reply(dil_buf *b, uint64_t id, uint32_t payload_bytes);
enum { DIL__ECHO_MAX = 4 << 20 };

typedef struct dil__peer {
    char address[DIL__ADDRESS_MAX];  /* HOST:PORT */
    char key[DIL_KEY_CHARS + 1];     /* "": no CURVE */
} dil__peer;

bool dil__msg_admit(dil_buf *b, uint64_t id, uint32_t seconds, const char (*keys)[DIL_KEY_CHARS + 1], uint32_t n);
/* keys [n] on the arena */
dil_status dil__msg_get_admit(const dil_frame *f, dil_arena *a, uint32_t *seconds, char (**keys)[DIL_KEY_CHARS + 1], uint32_t *n, dil_err *err);

bool dil__msg_probe_link(dil_buf *b, uint64_t id, const dil__peer *peer, double limit_sec);
dil_status dil__msg_get_probe_link(const dil_frame *f, dil__peer *peer, double *limit_sec, dil_err *err);
bool dil__msg_link(dil_buf *b, uint64_t id, const dil_node_link *m);
dil_status dil__msg_get_link(const dil_frame *f, dil_node_link *out, dil_err *err);

/* --- loading ----------------------------------------------------------------------------------------------------------------- */

typedef struct dil__load_part { /* one stage of the ring on this node */
    uint32_t stage;             /* its place in the ring */
    uint32_t first_layer, last_layer;
    char prev_key[DIL_KEY_CHARS + 1]; /* works come from this key only; "": no CURVE */
    dil__peer next;             /* address "": the results go to the session's attached coordinator */
} dil__load_part;

typedef struct dil__load {
    dil_arch arch;
    uint32_t n_ctx, n_seq, max_batch, n_stages;
    dil_type kv_type;
    bool fixed_shapes;
    dil_type wire;              /* hidden states travel as F32, F16 or BF16 */
    bool replace;               /* sessions of this coordinator's key end first, but for other models of the same run */
    uint64_t run, model;        /* of the coordinator's process, and which of the models that it serves */
    bool fetch_only;            /* the chunks are to be in the cache; nothing is opened, no memory is taken */
    uint32_t chunk_bytes;       /* a tensor is cut into pieces of this size; the last may be shorter */
    dil__load_part *parts; uint32_t n_parts;
    dil_tensor *tensors; uint32_t n_tensors;   /* data NULL */
    dil_hash *chunks; uint32_t n_chunks;       /* of all tensors, in order */
} dil__load;
bool dil__msg_load(dil_buf *b, uint64_t session, uint64_t id, const dil__load *m);
dil_status dil__msg_get_load(const dil_frame *f, dil_arena *a, dil__load *out, dil_err *err);
uint32_t dil__tensor_chunks(uint64_t tensor_bytes, uint32_t chunk_bytes); /* how many pieces */

/* One bit a chunk: 1 where it is missing. */
bool dil__msg_need(dil_buf *b, uint64_t session, uint64_t id, const uint8_t *bits, uint32_t n_chunks);
dil_status dil__msg_get_need(const dil_frame *f, uint32_t n_chunks, const uint8_t **bits, dil_err *err);

bool dil__msg_chunk(dil_buf *b, uint64_t session, uint64_t id, uint32_t index, const void *data, size_t len);
dil_status dil__msg_get_chunk(const dil_frame *f, uint32_t *index, const void **data, size_t *len, dil_err *err);

typedef enum dil__net_session_state { DIL__SESSION_NONE, DIL__SESSION_WAITS, DIL__SESSION_OPENS, DIL__SESSION_READY, DIL__SESSION_FAILED } dil__net_session_state;
typedef struct dil__node_status {
    dil__net_session_state state;   /* of the session that the heartbeat named */
    uint32_t chunks_left, n_queued;
    bool busy;                  /* a work is being computed */
    uint64_t last_work;         /* id of the last work that its last stage sent on */
    uint64_t rss_bytes;
    uint64_t memory_free;       /* offered, and not held by sessions that this coordinator's next LOAD of the model would leave alone */
    dil__tempo tempo;             /* of the session */
    dil_err err;                /* FAILED: why */
} dil__node_status;
bool dil__msg_status(dil_buf *b, uint64_t session, uint64_t id, const dil__node_status *m);
dil_status dil__msg_get_status(const dil_frame *f, dil__node_status *out, dil_err *err);

/* --- works ------------------------------------------------------------------------------------------------------------------- */

enum { DIL__WORK_TOKENS_MAX = 4096 };

typedef struct dil__work_head {
    uint32_t stage;      /* for which this frame is */
    uint32_t n_tokens;   /* 0: only a test of the ring */
    uint32_t n_begin;
    uint32_t n_hidden;   /* values of one hidden state; 0: tokens only */
    uint32_t extra_bytes; /* of biases and schemas */
    uint32_t value_bytes; /* of one of them, as the session's wire type says; not in the frame. 0: 4 */
    uint64_t compute_ns; /* of the stages so far, throttle included */
} dil__work_head;

uint32_t dil__work_extra_bytes(const dil__begin *begin, uint32_t n); /* biases at most DIL_LOGIT_BIAS_MAX, schemas at most DIL__SCHEMA_MAX each */
size_t dil__work_bytes(const dil__work_head *h); /* of the whole frame */
/* Writes header, numbers and begins into out [dil__work_bytes]; *hidden is where [n_tokens][n_hidden] values go, 8-aligned. */
void dil__work_put(uint8_t *out, uint64_t session, uint64_t id, uint32_t epoch, const dil__work_head *h, const dil_batch *b,
                   const dil__begin *begin, void **hidden);
/* As dil__work_put leaves `begins` and the compute time open (begin == NULL), this fills them in from the work that came. */
struct dil__work_view;
void dil__work_patch(uint8_t *out, const dil__work_head *h, const struct dil__work_view *from);
typedef struct dil__work_view { /* borrowed from the frame, which must be 8-aligned */
    dil__work_head head;
    dil_batch batch;
    const uint8_t *begins;  /* [n_begin] encoded, and their extras; dil__work_begin */
    const void *hidden;     /* [n_tokens][n_hidden] of the wire type */
    uint32_t n_want;
} dil__work_view;
/* Checks sizes, and each seq and pos against n_seq and n_ctx, tokens against n_vocab. */
dil_status dil__work_get(const dil_frame *f, uint32_t n_ctx, uint32_t n_seq, uint32_t n_vocab, uint32_t max_tokens, uint32_t value_bytes, dil__work_view *out,
                         dil_err *err);
dil__begin dil__work_begin(const dil__work_view *v, uint32_t i);

bool dil__msg_result(dil_buf *b, uint64_t session, uint64_t id, uint32_t epoch, uint64_t compute_ns, const dil__row *rows, uint32_t n);
/* rows [cap] */
dil_status dil__msg_get_result(const dil_frame *f, uint64_t *compute_ns, dil__row *rows, uint32_t cap, uint32_t *n, dil_err *err);

#endif
