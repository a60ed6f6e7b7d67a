/* serve/backend.h - what the HTTP side needs from the side that generates: a runner and a tokenizer, or a test's stand-in. */
#ifndef DIL_SERVE_BACKEND_H
#define DIL_SERVE_BACKEND_H

#include "serve/api.h"

#include <dilemma/coordinator.h>
#include <dilemma/serve.h>

typedef struct dil__backend {
    void *ctx;
    dil_status (*encode)(void *ctx, const dil__api_req *q, dil_ids *out, dil_err *err);
    const char *(*piece)(void *ctx, int32_t token, size_t *len); /* the bytes that a reader sees; none for special tokens */
    dil_status (*submit)(void *ctx, const dil_gen_req *r, dil_gen_fn *fn, void *fn_ctx, uint64_t *id, dil_err *err);
    void (*cancel)(void *ctx, uint64_t id);
    void (*state)(void *ctx, dil_runner_state *out);
    size_t (*nodes)(void *ctx, dil_ring_node *out, size_t cap); /* dil_ring_nodes; NULL: there is no ring */
    const int32_t *stop; size_t n_stop; /* ids that end a generation */
    bool chat;                          /* knows how to spell a conversation */
    /* A grammar of JSON (schema NULL: any object); NULL where there is none. */
    dil_status (*grammar)(void *ctx, const char *schema, size_t len, dil_grammar **out, dil_err *err);
    void (*grammar_free)(dil_grammar *g);
    void (*hold)(void *ctx);            /* one more that calls free; NULL: it outlives every job anyway */
    void (*free)(void *ctx);            /* may be NULL without hold */
} dil__backend;

/* The ordinary one. Both are borrowed. */
dil_status dil__backend_of_runner(dil_runner *r, const dil_tokenizer *t, dil__backend *out, dil_err *err);
void dil__served_attach(dil_served *m, const dil__backend *b); /* takes over b->ctx */

#endif
