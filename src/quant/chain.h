/* quant/chain.h - a model as one stage per layer with the hidden states in between kept, so that the effect of changing one layer
 * costs only the layers behind it, and its local effect only that layer.
 *
 *   dil__chain *c;  dil__chain_open(&arch, &weights, &opts, ids, n_chunks, progress, &c, err);
 *   dil__chain_link(c, 5, &student_weights, &s, err);  dil__chain_local(c, 5, s, &d, err);  dil__chain_effect(c, 5, s, 5, s, &r, err); */
#ifndef DIL_QUANT_CHAIN_H
#define DIL_QUANT_CHAIN_H

#include "quant/link.h"

typedef struct dil__chain dil__chain;

/* What is scored: every position of a chunk but the first DIL__CHAIN_SKIP, where there is hardly any context. */
enum { DIL__CHAIN_SKIP = 32 };

typedef struct dil__chain_opts {
    const char *device;
    int n_threads;      /* 0: all */
    uint32_t n_ctx;     /* tokens a chunk, > 2 * DIL__CHAIN_SKIP */
    uint32_t n_chunks;  /* ids holds n_ctx * n_chunks tokens */
    bool floats;        /* compute with the weights' values in F32, whatever their types: on CPUs the fastest for long batches, and
                         * what is measured is the weights' error alone; by decoder.h where it knows the model */
} dil__chain_opts;

/* Runs the reference once. arch, weights and ids [n_chunks * n_ctx] are borrowed for the chain's life.
 * Memory: the model, n_layers * tokens * n_embd floats of hidden states, tokens * n_vocab floats of logits (at most 2 GiB).
 * Errors: DIL_EDATA (the reference's logits are not finite), those of stages. */
dil_status dil__chain_open(const dil_arch *arch, const dil_weights *weights, const dil__chain_opts *opts, const int32_t *ids,
                           const dil_progress *progress, dil__chain **out, dil_err *err);
void dil__chain_free(dil__chain *c);

struct dil__decoder *dil__chain_decoder(const dil__chain *c); /* with the reference's values; NULL: it runs as stages */
uint64_t dil__chain_tokens(const dil__chain *c);    /* scored */
double dil__chain_loss(const dil__chain *c);        /* of the reference on them */

/* One layer with these weights, for the calls below. */
dil_status dil__chain_link(dil__chain *c, uint32_t layer, const dil_weights *weights, dil__link **out, dil_err *err);
/* The same run by the kernels of its types, whatever the chain computes with. */
dil_status dil__chain_link_as_run(dil__chain *c, uint32_t layer, const dil_weights *weights, dil__link **out, dil_err *err);

/* Mean over the first chunk's scored tokens of |h' - h|² / |h|², h the hidden state behind the layer (not the head). Cost: one layer's
 * pass of one chunk; an average over tokens of a square, it needs fewer of them than a divergence. */
dil_status dil__chain_local(dil__chain *c, uint32_t layer, dil__link *s, double *out, dil_err *err);

typedef struct dil__effect {
    double kl, kl_stderr;  /* mean KL(reference || changed), nats a token */
    double loss;           /* of the changed model */
} dil__effect;
/* The whole model with layer a at sa, and layer b at sb (b == a and sb == sa: one change). Cost: the layers from a on. */
dil_status dil__chain_effect(dil__chain *c, uint32_t a, dil__link *sa, uint32_t b, dil__link *sb, dil__effect *out, dil_err *err);
/* With every layer's link given: links [n_layers], NULL where the reference's. */
dil_status dil__chain_effect_all(dil__chain *c, dil__link *const *links, dil__effect *out, dil_err *err);

#endif
