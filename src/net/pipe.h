/* net/pipe.h - what the scheduler sees of the machine that computes: batches go in, sampled tokens come out in the same order.
 *
 * The local stage and the ring of nodes are two pipes; the tests have a third. A pipe is used by the scheduler's thread alone,
 * except for `wake` and `state`. Slots are the KV cache's sequences; a work that begins a slot forgets what the slot held. */
#ifndef DIL_NET_PIPE_H
#define DIL_NET_PIPE_H

#include "net/draft.h"
#include "net/piece.h"

#include <dilemma/runner.h>

enum {
    DIL__DEPTH_MAX = 64,    /* works in flight */
    DIL__SLOTS_MAX = 1024,  /* sequences at once */
    DIL__SCHEMA_MAX = 64 << 10, /* bytes of a schema that travels to the last stage */
    DIL__CHUNK = 128        /* prompt tokens a work: small enough for stages to overlap and for streams not to wait long */
};

typedef struct dil__begin { /* a slot starts over, with this sampler */
    uint32_t slot;
    uint32_t n_prompt, n_known; /* of a stream that goes on: tokens at n_prompt..n_known-1 were picked before; equal for a new one */
    uint32_t n_top;          /* alternatives wanted with each token, <= DIL_GEN_TOP_MAX */
    dil_sampler_opts sampler; /* with its grammar, or, where it came in a frame, without: */
    bool json;               /* the text is JSON: */
    const char *schema; uint32_t schema_len; /* of this schema; NULL: any object. Borrowed for the call */
} dil__begin;

typedef struct dil__work {
    uint64_t id;
    dil_batch batch;         /* token, pos, seq and want are all given */
    const dil__begin *begin; /* [n_begin] */
    uint32_t n_begin;
} dil__work;

/* One token of each of its sequences, as the planner predicts it: no prompt, and no guesses behind the token. */
static inline bool dil__work_is_round(const dil__work *w)
{
    const dil_batch *b = &w->batch;
    return w->n_begin == 0 && b->want[0] && (b->n_tokens == 1 || b->seq[0] != b->seq[1]);
}

/* Rows of one sequence that follow each other in a work are a token and guesses: behind a row whose token is not the next guess
 * the rows are void. At most n_seq + DIL__DRAFT_MAX rows a work. */
typedef struct dil__row {
    int32_t token; /* -1: void */
    float logprob;
    uint32_t n_top;
    dil_gen_alt top[DIL_GEN_TOP_MAX];
} dil__row;

typedef enum dil__pipe_event_kind {
    DIL__PIPE_NOTHING, /* a wake or the timeout */
    DIL__PIPE_RESULT,
    DIL__PIPE_FAILED,  /* this work failed; slots that it touched are void until they begin again */
    DIL__PIPE_RESET,   /* every work in flight and every slot's contents are lost; err tells why. No work is taken until UP */
    DIL__PIPE_UP,      /* works are taken (again) */
    DIL__PIPE_GIVE_UP  /* it cannot go on: what runs and waits fails with err */
} dil__pipe_event_kind;

typedef struct dil__pipe_event {
    dil__pipe_event_kind kind;
    uint64_t id;
    const dil__row *rows; /* RESULT: one for each wanted token, in the batch's order; borrowed until the next call */
    uint32_t n_rows;
    double compute_sec;   /* RESULT: of all stages together; 0: not known */
    dil_err err;          /* FAILED, RESET, GIVE_UP */
} dil__pipe_event;

typedef struct dil__pipe dil__pipe;

typedef struct dil__pipe_ops {
    /* Copies what it needs of w. Errors: DIL_ENET (as RESET: UP will follow), and the stage's own. */
    dil_status (*submit)(dil__pipe *p, const dil__work *w, dil_err *err);
    /* Blocks until an event, a wake, or timeout_ns (< 0: for ever). */
    void (*wait)(dil__pipe *p, int64_t timeout_ns, dil__pipe_event *out);
    void (*wake)(dil__pipe *p);                                                /* any thread */
    void (*state)(dil__pipe *p, dil_runner_state *out);                        /* any thread; fills ready to recovering_sec */
    void (*close)(dil__pipe *p);
} dil__pipe_ops;

struct dil__pipe { /* first member of every implementation */
    const dil__pipe_ops *ops;
    uint32_t n_ctx, n_seq, n_vocab;
    uint32_t chunk;      /* prompt tokens a work; also bounds the sequences decoded together */
    dil__pieces pieces;  /* known: prompts travel in pieces that may be smaller than a chunk, twice as many as depth says while nobody else waits */
    uint32_t depth;      /* works in flight that keep every stage busy, at most DIL__DEPTH_MAX; 1: submit computes at once. May change with RESET */
    uint32_t schema_max; /* bytes of a grammar's schema; 0: it takes no grammars */
    bool fixed_shapes;   /* never put two prompts into one work */
};

/* Takes pipe over, also on failure. queue_max: requests that wait beyond those that run. */
dil_status dil__runner_new(dil__pipe *pipe, uint32_t queue_max, dil_runner **out, dil_err *err);
dil__pipe *dil__runner_pipe(dil_runner *r);
enum { DIL__QUEUE_MAX = 256 };

#endif
