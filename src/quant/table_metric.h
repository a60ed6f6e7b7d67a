/* quant/table_metric.h - what an error in a row of a table costs that is embedding and head at once.
 *
 *   dil__hessian h;  dil__table_metric(&o, progress, &h, err);  dil__gptq_factor(&h, 0.01, &u, err);  ...  dil__hessian_fini(&h);
 *
 * Both parts are second derivatives of the divergence, so that they add up without a weight between them. As head, an error e of row v moves the
 * logits by e·x: ½ Σ_t p(v) (1 - p(v)) (e·x)². As embedding it moves the stream where v stands: ½ Σ_t (e·g)², g being the gradient, at that
 * place, of the loss of labels sampled from the model's own answers (the Fisher information's estimate). Over text a row is predicted about as often as
 * it stands there, so one matrix serves all rows: M = Σ_t (1 - Σ_v p²) x xᵀ + g gᵀ. */
#ifndef DIL_QUANT_TABLE_METRIC_H
#define DIL_QUANT_TABLE_METRIC_H

#include "quant/gptq.h"

#include <dilemma/arch.h>

typedef struct dil__table_metric_opts {
    const dil_arch *arch;       /* with a tied head */
    const dil_weights *weights; /* the teacher's */
    const int32_t *ids;         /* [n_chunks * n_ctx] */
    uint32_t n_ctx, n_chunks;
    int n_threads;
} dil__table_metric_opts;

/* Initialises h, n_embd_word columns; dil__hessian_fini.
 * Errors: DIL_EDATA (an activation or a gradient that is not finite), DIL_ECANCELED, DIL_EMEMORY, those of dil__decoder_open.
 * Memory: the model in floats, twice the table, and one sequence's activations (decoder.h). */
dil_status dil__table_metric(const dil__table_metric_opts *o, const dil_progress *progress, dil__hessian *h, dil_err *err);

#endif
