/* quant/logits.h - log-softmax, negative log-likelihood and KL divergence of rows of logits. */
#ifndef DIL_QUANT_LOGITS_H
#define DIL_QUANT_LOGITS_H

#include <dilemma/base.h>

/* log Σ exp(x_j) = max + log_sum. argmax is the lowest index among equals. log_sum is NaN where a logit is NaN or +Inf. */
typedef struct dil__lse {
    float max;
    double log_sum;
    uint32_t argmax;
} dil__lse;
dil__lse dil__logits_lse(const float *x, size_t n); /* x [n], n > 0 */

static inline double dil__logits_nll(const float *x, const dil__lse *l, int32_t target)
{
    return (double)l->max + l->log_sum - (double)x[target];
}

/* KL(p || q) in nats of the distributions whose logits are p [n] and q [n]; exactly 0 for equal rows. */
double dil__logits_kl(const float *p, const dil__lse *lp, const float *q, const dil__lse *lq, size_t n);

/* One scored position. Without a teacher, kl is NaN and teacher_nll too. */
typedef struct dil__score {
    double nll, teacher_nll, kl;
    bool same_top;
} dil__score;

/* Scores n_rows positions on threads: student and teacher (may be NULL) are [n_rows][n_vocab], target [n_rows]. */
void dil__logits_score(const float *student, const float *teacher, const int32_t *target, size_t n_rows, size_t n_vocab,
                       int n_threads, dil__score *out);

#endif
