/* dilemma/runner.h - generating text for many requests at once, on this machine or over a ring of nodes, behind one interface.
 *
 *   dil_runner *r;  dil_runner_local(&arch, &weights, &opts, 16, &r, err);      or dil_runner_ring(...), see coordinator.h
 *   dil_runner_submit(r, &req, on_event, ctx, &id, err);                         ... events come ...   dil_runner_close(r);
 *
 * A runner owns one scheduler thread: continuous batching, requests served fairly in chunks, a bounded queue. */
#ifndef DILEMMA_RUNNER_H
#define DILEMMA_RUNNER_H

#include <dilemma/engine.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct dil_runner dil_runner;

typedef struct dil_gen_req {
    const int32_t *prompt; /* [n_prompt] token ids, copied; n_prompt >= 1 */
    size_t n_prompt;
    uint32_t max_tokens;   /* >= 1; generation also ends where the context does */
    dil_sampler_opts sampler; /* its bias and grammar are borrowed until DONE or ERROR; a ring takes schemas of up to 64 KiB */
    const int32_t *stop;   /* [n_stop] ids that end the text (end of generation); not reported as tokens; copied */
    size_t n_stop;
    uint32_t n_top;        /* most probable tokens reported with each token, 0 to DIL_GEN_TOP_MAX */
    const int32_t *resumed; /* [n_resumed] tokens that an earlier run of the same request generated: reported again (logprob 0), then it */
    size_t n_resumed;       /* goes on from there as that run would have; copied */
    bool resumed_stop;      /* that run ended there at a stop: nothing is generated */
} dil_gen_req;

#define DIL_GEN_TOP_MAX 20
typedef struct dil_gen_alt {
    int32_t token;
    float logprob;         /* natural log of its probability, before penalties, temperature and truncation */
} dil_gen_alt;

typedef enum dil_gen_kind { DIL_GEN_TOKEN, DIL_GEN_DONE, DIL_GEN_ERROR } dil_gen_kind;
typedef enum dil_gen_finish { DIL_FINISH_STOP, DIL_FINISH_LENGTH, DIL_FINISH_CANCELED } dil_gen_finish;

typedef struct dil_gen_event {
    dil_gen_kind kind;
    int32_t token;           /* TOKEN */
    float logprob;           /* TOKEN: natural log of its probability */
    const dil_gen_alt *top;  /* TOKEN: [n_top] the most probable ones, best first; borrowed for the call */
    uint32_t n_top;
    dil_gen_finish finish;   /* DONE */
    uint32_t n_prompt, n_generated;
    uint32_t n_guessed, n_right; /* DONE: tokens that were guessed ahead, and how many of them came */
    double prefill_sec, decode_sec; /* DONE: to the first token, and from there on */
    const dil_err *error;    /* ERROR: borrowed for the call */
} dil_gen_event;

/* Called from the runner's thread: return soon, do not call the runner's blocking functions. After DONE or ERROR no more come. */
typedef void dil_gen_fn(void *ctx, uint64_t id, const dil_gen_event *event);

/* Errors: DIL_ELIMIT (the prompt does not fit the context: numbers), DIL_EBUSY (the queue is full), DIL_ENET (not ready). */
dil_status dil_runner_submit(dil_runner *r, const dil_gen_req *req, dil_gen_fn *fn, void *ctx, uint64_t *id, dil_err *err);
void dil_runner_cancel(dil_runner *r, uint64_t id); /* a DONE with DIL_FINISH_CANCELED follows, unless it ended before */

typedef struct dil_runner_state {
    bool ready;            /* the truth for /health: every stage loaded and answering */
    bool recovering;       /* not ready, but what runs will go on and new requests are taken: a node was lost and is planned around */
    char why[DIL_ERR_TEXT_MAX]; /* when not ready: loading (with percent), or what failed */
    char node[128];        /* recovering: which node was lost; "" when it is a link */
    double recovering_sec; /* for so long */
    uint32_t n_recoveries; /* losses that running requests survived, since start */
    uint32_t n_ctx, n_active, n_queued, queue_max;
    uint64_t tokens_in, tokens_out, requests, failures; /* since start */
    uint64_t n_guessed, n_right; /* tokens guessed ahead, and how many of them came */
    double token_sec;      /* seconds a token of the running streams, smoothed; 0 before the first */
    double round_sec, compute_sec; /* a decoding round through a ring: whole, and the stages' own part, smoothed; 0 without a ring */
} dil_runner_state;
void dil_runner_get_state(dil_runner *r, dil_runner_state *out); /* any thread */
void dil_runner_close(dil_runner *r); /* ends running requests with DIL_ECANCELED */

/* Speculation: the next tokens are guessed from the text so far and checked in one pass. The text is the same as without (sampled
 * text too: each token takes one random number) but for the last bits of wider batches; with fixed shapes bit for bit. depth: how
 * many guesses at most, 0 none; DIL_SPECULATE_AUTO (the default): as many as pay, by what passes and links were measured to cost. Any thread. */
#define DIL_SPECULATE_AUTO (-1)
void dil_runner_speculate(dil_runner *r, int depth);

/* One stage with every layer, in this process. n_seq sequences are decoded at once (opts->n_seq is ignored). */
dil_status dil_runner_local(const dil_arch *arch, const dil_weights *weights, const dil_stage_opts *opts, uint32_t n_seq,
                            dil_runner **out, dil_err *err);

/* Blocking convenience: submits and waits; tokens [max_tokens]. Not from an event callback. */
dil_status dil_runner_generate(dil_runner *r, const dil_gen_req *req, int32_t *tokens, uint32_t *n_tokens, dil_gen_event *done,
                               dil_err *err);

#ifdef __cplusplus
}
#endif
#endif
