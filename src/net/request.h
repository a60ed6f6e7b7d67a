/* net/request.h - one request of the scheduler: its tokens, how far they are fed, and what its asker is told.
 *
 * Owned by the scheduler's thread, but for `canceled` and `id` (under the runner's lock). Every request is told exactly one last event: DONE or ERROR. */
#ifndef DIL_NET_REQUEST_H
#define DIL_NET_REQUEST_H

#include "net/pipe.h"

#include <stdatomic.h>

typedef struct dil__request {
    uint64_t id;
    int32_t *tokens; /* [n_prompt + max_tokens] */
    uint32_t n_prompt, n_known, n_fed, n_max;
    uint32_t n_resumed; /* tokens of an earlier run that are still to be told */
    bool resumed_stop;
    uint32_t n_counted; /* prompt tokens that are in the statistics */
    int32_t *stop;
    size_t n_stop;
    dil_sampler_opts sampler;
    uint32_t n_top;
    dil_gen_fn *fn;
    void *ctx;
    uint32_t n_flying; /* works in flight that hold tokens of it */
    bool begun, ended;
    atomic_bool canceled;
    int64_t submit_ns, first_ns, last_ns;
    dil__draft *draft; /* NULL: no guesses */
    uint32_t n_guessed, n_right;
} dil__request;

static inline double dil__sec(int64_t ns)
{
    return (double)ns * 1e-9;
}

/* Whether pipe can run it: sizes, token ids, the grammar, and the pipe's own state (DIL_ENET: not ready). */
dil_status dil__request_check(const dil_gen_req *req, dil__pipe *pipe, dil_err *err);
/* A copy of req for a context of n_ctx tokens, with a draft if it shall guess (short of memory: without). NULL: no memory. */
dil__request *dil__request_new(const dil_gen_req *req, uint32_t n_ctx, bool guess, dil_gen_fn *fn, void *ctx);
void dil__request_free(dil__request *q); /* NULL too */

/* A token came: nanoseconds since the one before, 0 for the first. */
int64_t dil__request_tick(dil__request *q);
/* Whether the token ends the text, and is none of it. */
bool dil__request_stops(const dil__request *q, int32_t token);
/* Takes a sampled token and tells it; the request ends where that stops it, or with the last token allowed. */
void dil__request_take(dil__request *q, const dil__row *row);
/* Tells what an earlier run of it had sampled; it may end with that. */
void dil__request_tell_resumed(dil__request *q);
void dil__request_end(dil__request *q, dil_gen_finish finish);
void dil__request_fail(dil__request *q, const dil_err *e);

#endif
