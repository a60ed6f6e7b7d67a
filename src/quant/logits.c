/* Statistics over rows of logits, eight lanes at a time: exponentials in float (a polynomial, relative error below 3e-7),
 * sums folded into doubles every 512 elements. libm's expf was rejected: it is not vectorised without -ffast-math, and at a
 * vocabulary of 49,152 it took as long as a small model's forward pass. */
#include "quant/logits.h"

#include <math.h>
#include <string.h>

typedef float v8f __attribute__((vector_size(32)));
typedef int32_t v8i __attribute__((vector_size(32)));
typedef uint32_t v8u __attribute__((vector_size(32)));
enum { LANES = 8, FOLD = 512 };

#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__SANITIZE_ADDRESS__) && !defined(__clang__)
#define WIDE __attribute__((target_clones("arch=x86-64-v3", "default")))
#else
#define WIDE
#endif

/* exp of x <= 0. Below -87 the result is about 1e-38 instead of less: nothing beside the row's maximum, exp(0). */
static inline __attribute__((always_inline)) void exp8(v8f *x)
{
    const v8f low = {-87, -87, -87, -87, -87, -87, -87, -87};
    v8i small = *x < low;
    v8f v = (v8f)(((v8i)low & small) | ((v8i)*x & ~small));
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    v8f k = v * 1.44269504f + magic;
    v8u ki = (v8u)k << 23;
    k -= magic;
    v8f r = v - k * 0.693359375f;
    r += k * 2.12194440e-4f;
    v8f p = r * 1.9875691e-4f;
    p += 1.3981999e-3f;
    p = p * r + 8.3334519e-3f;
    p = p * r + 4.1665796e-2f;
    p = p * r + 1.6666665e-1f;
    p = p * r + 5.0000001e-1f;
    p = p * r * r + r + 1.0f;
    *x = (v8f)((v8u)p + ki);
}

static inline __attribute__((always_inline)) double fold(const v8f *v)
{
    double s = 0;
    for (int i = 0; i < LANES; i++) s += (double)(*v)[i];
    return s;
}

static inline __attribute__((always_inline)) void load(v8f *v, const float *x)
{
    memcpy(v, x, sizeof *v);
}

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
