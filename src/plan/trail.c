/* When a solver found its plans: an entry for each that is better than the one before it. */
#include "plan/problem_impl.h"

#include <math.h>
#include <time.h>

static int64_t cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

void dil__trail_begin(dil__trail *t)
{
    *t = (dil__trail){.start_ns = dil_now_ns(), .start_cpu_ns = cpu_ns(), .cap = INFINITY};
}

void dil__trail_now(const dil__trail *t, double *sec, double *cpu_sec)
{
    *sec = (double)(dil_now_ns() - t->start_ns) * 1e-9;
    *cpu_sec = (double)(cpu_ns() - t->start_cpu_ns) * 1e-9;
}

void dil__trail_bound(dil__trail *t, double bound)
{
    if (t) t->bound = fmax(t->bound, fmin(bound, t->cap));
}

/* Every second entry goes, but not the first. */
static void thin(dil__trail *t)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < t->n; i += 2) t->v[n++] = t->v[i];
    t->n = n;
}

void dil__trail_plan(dil__trail *t, double objective)
{
    if (!t || !(objective < INFINITY) || (t->n > 0 && objective >= t->v[t->n - 1].objective)) return;
    if (t->n == DIL_INCUMBENTS_MAX) thin(t);
    dil_incumbent *x = &t->v[t->n++];
    *x = (dil_incumbent){.objective = objective, .bound = fmin(t->bound, objective)};
    dil__trail_now(t, &x->sec, &x->cpu_sec);
}
