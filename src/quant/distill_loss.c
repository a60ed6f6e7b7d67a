/* With d = log q - log p: ∂KL(p‖q)/∂z = q - p, and ∂KL(q‖p)/∂z = q (d - KL(q‖p)). One pass for p, q and the sums, one for the gradient. */
#include "quant/distill_loss.h"

#include "quant/logits.h"
#include "quant/wide.h"

#include <math.h>

typedef struct job {
    float *p, *q;
    size_t n;
    float weight;
    dil__divergence *out;
} job;

/* p becomes q - p + q d, q the probabilities; sums: Σ -p d, Σ q d. */
WIDE static void first_pass(float *p, float *q, size_t n, float lp, float lq, double sums[2])
{
    enum { FOLD = 512 };
    size_t i = 0;
    while (i + LANES <= n) {
        size_t end = i + FOLD <= n ? i + FOLD : n - n % LANES;
        v8f forward = {0}, backward = {0};
        for (; i + LANES <= end; i += LANES) {
            v8f a, b;
            load(&a, p + i);
            load(&b, q + i);
            a -= lp;
            b -= lq;
            v8f d = b - a;
            exp8(&a);
            exp8(&b);
            forward -= a * d;
            backward += b * d;
            a = b - a + b * d;
            memcpy(p + i, &a, sizeof a);
            memcpy(q + i, &b, sizeof b);
        }
        sums[0] += fold(&forward);
        sums[1] += fold(&backward);
    }
    for (; i < n; i++) {
        float a = expf(p[i] - lp), b = expf(q[i] - lq), d = (q[i] - lq) - (p[i] - lp);
        sums[0] -= (double)(a * d);
        sums[1] += (double)(b * d);
        p[i] = b - a + b * d;
        q[i] = b;
    }
}

WIDE static void second_pass(const float *p, float *q, size_t n, float backward, float weight)
{
    for (size_t i = 0; i < n; i++) q[i] = weight * 0.5f * (p[i] - backward * q[i]);
}

static void row(void *ctx, size_t i)
{
    const job *j = ctx;
    float *p = j->p + i * j->n, *q = j->q + i * j->n;
    dil__lse lp = dil__logits_lse(p, j->n), lq = dil__logits_lse(q, j->n);
    double sums[2] = {0};
    first_pass(p, q, j->n, (float)((double)lp.max + lp.log_sum), (float)((double)lq.max + lq.log_sum), sums);
    second_pass(p, q, j->n, (float)sums[1], j->weight);
    j->out[i] = (dil__divergence){sums[0], sums[1]};
}

void dil__distill_rows(float *p, float *q, size_t n_rows, size_t n, float weight, int n_threads, dil__divergence *out)
{
    job j = {p, q, n, weight, out};
    dil_parallel(n_threads, n_rows, row, &j);
}
