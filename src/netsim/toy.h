/* netsim/toy.h - the engine's place taken by arithmetic on hashes that is as particular as a decoder: what a layer gives for a token depends on its
 * own weights, on all that the sequence had before at that layer (its KV cache), and on what the layer before gave. A token lost, repeated or in
 * another order, a stale cell of a cache, a wrong layer or chunk of weights: each changes the text from there on.
 *
 * Stages compute it piece by piece (toy_engine); toy_text computes a whole answer from the definition, without cache, batch or stages. */
#ifndef DIL_NETSIM_TOY_H
#define DIL_NETSIM_TOY_H

#include "net/session.h"

enum { TOY_VOCAB = 64, TOY_EMBD = 32 };

extern const dil__engine toy_engine;
#define TOY_LAYER_SEC 1e-4 /* a layer's time for a token on a machine that is not slow */
enum { TOY_BUFFER_BYTES = 4096 };

/* Writes a model of n_blocks with random weights and opens it. */
dil_status toy_model(const char *path, uint32_t n_blocks, uint64_t seed, dil_gguf **g, dil_arch *arch, dil_err *err);

/* The answer to a prompt: at most max tokens, fewer where a token is the stop or the context ends. Returns how many; out [max].
 * stopped: it ended at the stop, which is not in out. */
uint32_t toy_text(const dil_arch *arch, const dil_gguf *g, const dil_sampler_opts *o, const int32_t *prompt, uint32_t n_prompt, uint32_t max, int32_t stop,
                  int32_t *out, bool *stopped);

#endif
