/* Statistics over rows of logits, eight lanes at a time: exponentials in float (a polynomial, relative error below 3e-7),
 * sums folded into doubles every 512 elements. libm's expf was rejected: it is not vectorised without -ffast-math, and at a
 * vocabulary of 49,152 it took as long as a small model's forward pass. */
#include "quant/logits.h"

#include "quant/wide.h"

#include <math.h>
#include <string.h>

enum { FOLD = 512 };

WIDE static double sum_exp(const float *x, size_t n, float max)
{
    double total = 0;
    size_t i = 0;
    while (i + LANES <= n) {
        size_t end = i + FOLD <= n ? i + FOLD : n - n % LANES;
        v8f s = {0};
        for (; i + LANES <= end; i += LANES) {
            v8f v;
            load(&v, x + i);
            v -= max;
            exp8(&v);
            s += v;
        }
        total += fold(&s);
    }
    for (; i < n; i++) total += exp((double)(x[i] - max));
    return total;
}

/* Σ exp(p_j - pmax) · ((p_j - pmax) - (q_j - qmax)) */
WIDE static double sum_exp_diff(const float *p, float pmax, const float *q, float qmax, size_t n)
{
    double total = 0;
    size_t i = 0;
    while (i + LANES <= n) {
        size_t end = i + FOLD <= n ? i + FOLD : n - n % LANES;
        v8f s = {0};
        for (; i + LANES <= end; i += LANES) {
            v8f a, b;
            load(&a, p + i);
            load(&b, q + i);
            a -= pmax;
            v8f d = a - (b - qmax);
            exp8(&a);
            s += a * d;
        }
        total += fold(&s);
    }
    for (; i < n; i++) {
        double a = (double)(p[i] - pmax);
        total += exp(a) * (a - (double)(q[i] - qmax));
    }
    return total;
}

dil__lse dil__logits_lse(const float *x, size_t n)
{
    dil__lse l = {.max = x[0]};
    bool bad = false;
    for (size_t i = 0; i < n; i++) {
        if (x[i] > l.max) l.max = x[i], l.argmax = (uint32_t)i;
        bad |= x[i] != x[i];
    }
    l.log_sum = bad || !isfinite(l.max) ? (double)NAN : log(sum_exp(x, n, l.max));
    return l;
}

double dil__logits_kl(const float *p, const dil__lse *lp, const float *q, const dil__lse *lq, size_t n)
{
    double mean_diff = sum_exp_diff(p, lp->max, q, lq->max, n) / exp(lp->log_sum);
    return mean_diff - lp->log_sum + lq->log_sum;
}

struct score_job {
    const float *student, *teacher;
    const int32_t *target;
    size_t n_vocab;
    dil__score *out;
};

static void score_row(void *ctx, size_t i)
{
    const struct score_job *j = ctx;
    const float *s = j->student + i * j->n_vocab;
    dil__lse ls = dil__logits_lse(s, j->n_vocab);
    dil__score r = {.nll = dil__logits_nll(s, &ls, j->target[i]), .teacher_nll = (double)NAN, .kl = (double)NAN};
    if (j->teacher) {
        const float *t = j->teacher + i * j->n_vocab;
        dil__lse lt = dil__logits_lse(t, j->n_vocab);
        r.teacher_nll = dil__logits_nll(t, &lt, j->target[i]);
        r.kl = dil__logits_kl(t, &lt, s, &ls, j->n_vocab);
        r.same_top = lt.argmax == ls.argmax;
    }
    j->out[i] = r;
}

void dil__logits_score(const float *student, const float *teacher, const int32_t *target, size_t n_rows, size_t n_vocab,
                       int n_threads, dil__score *out)
{
    struct score_job j = {student, teacher, target, n_vocab, out};
    dil_parallel(n_threads, n_rows, score_row, &j);
}
