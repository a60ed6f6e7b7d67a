/* quant/distill_loss.h - the symmetric divergence of two rows of logits, and its gradient. */
#ifndef DIL_QUANT_DISTILL_LOSS_H
#define DIL_QUANT_DISTILL_LOSS_H

#include <dilemma/base.h>

typedef struct dil__divergence { double forward, backward; } dil__divergence; /* KL(p‖q), KL(q‖p), nats */

/* p, q [n_rows][n] logits of teacher and student; q becomes the gradient of Σ_rows weight · ½(KL(p‖q) + KL(q‖p)), p is overwritten.
 * out [n_rows]. */
void dil__distill_rows(float *p, float *q, size_t n_rows, size_t n, float weight, int n_threads, dil__divergence *out);

#endif
