/* Traces made from a seed. Every source of change has a random stream of its own, so that "mixed" is the sum of the others. */
#include <dilemma/simulate.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define STEP_SEC 5.0
#define DRIFT_NOISE 0.18  /* of the logarithm, a step */
#define DRIFT_BACK 0.03   /* share of the way back to the measured speed, a step: half of it in about two minutes */

typedef struct maker {
    const dil_cluster *c;
    const dil_trace_how *how;
    dil_trace *t;
    double *log_speed;   /* [n_links] of the drift */
    double *slow_until, *slow_by; /* [n_links] congestion */
    bool failed;
} maker;

static void push(maker *m, dil_trace_event e)
{
    if (m->t->n_events >= DIL_TRACE_EVENTS_MAX) m->failed = true;
    else m->t->events[m->t->n_events++] = e;
}

static double exponential(dil_rng *r, double mean)
{
    return -mean * log(1 - dil_rng_unit(r));
}

static void requests(maker *m, uint64_t seed)
{
    dil_rng r;
    dil_rng_init(&r, seed * 4 + 1);
    for (double t = exponential(&r, 1 / m->how->rate); t <= m->how->duration_sec && !m->failed; t += exponential(&r, 1 / m->how->rate))
        push(m, (dil_trace_event){.at_sec = t, .kind = DIL_TRACE_REQUEST, .tokens_in = m->how->tokens_in, .tokens_out = m->how->tokens_out});
}

/* Links by steps: the drift's factor times the congestion's. */
static void links(maker *m, uint64_t seed, bool drift, bool congestion)
{
    dil_rng walk, jam;
    dil_rng_init(&walk, seed * 4 + 2);
    dil_rng_init(&jam, seed * 4 + 3);
    for (double t = STEP_SEC; t <= m->how->duration_sec && !m->failed; t += STEP_SEC) {
        for (uint32_t i = 0; i < m->c->n_links && !m->failed; i++) {
            const dil_cluster_link *k = &m->c->links[i];
            bool changed = drift;
            if (drift) m->log_speed[i] += DRIFT_NOISE * dil_rng_normal(&walk) - DRIFT_BACK * m->log_speed[i];
            if (congestion && m->slow_until[i] != 0 && t >= m->slow_until[i]) m->slow_until[i] = 0, changed = true;
            if (congestion && m->slow_until[i] == 0 && dil_rng_unit(&jam) < STEP_SEC / 300) { /* each link every five minutes */
                m->slow_until[i] = t + 20 + 100 * dil_rng_unit(&jam);
                m->slow_by[i] = 4 + 16 * dil_rng_unit(&jam);
                changed = true;
            }
            double f = exp(m->log_speed[i]) / (m->slow_until[i] != 0 ? m->slow_by[i] : 1);
            if (changed)
                push(m, (dil_trace_event){.at_sec = t, .kind = DIL_TRACE_LINK, .node = k->from, .to = k->to, .latency_sec = k->latency_sec / f,
                                          .bytes_per_sec = fmax(k->bytes_per_sec * f, 1)});
        }
    }
}

static void churn(maker *m, uint64_t seed)
{
    dil_rng r;
    dil_rng_init(&r, seed * 4 + 4);
    for (uint32_t s = 0; s < m->c->n_nodes; s++) {
        if (s == m->c->entry) continue;
        for (double t = exponential(&r, 400); t <= m->how->duration_sec && !m->failed; t += exponential(&r, 400)) {
            push(m, (dil_trace_event){.at_sec = t, .kind = DIL_TRACE_LEAVE, .node = s});
            t += 30 + 150 * dil_rng_unit(&r);
            if (t <= m->how->duration_sec) push(m, (dil_trace_event){.at_sec = t, .kind = DIL_TRACE_RETURN, .node = s});
        }
    }
}

static int by_time(const void *a, const void *b)
{
    const dil_trace_event *x = a, *y = b;
    if (x->at_sec != y->at_sec) return x->at_sec < y->at_sec ? -1 : 1;
    if (x->kind != y->kind) return x->kind < y->kind ? -1 : 1;
    if (x->node != y->node) return x->node < y->node ? -1 : 1;
    return (x->to > y->to) - (x->to < y->to);
}

static dil_status check(const char *kind, const dil_trace_how *how, dil_err *err)
{
    static const char *const kinds[] = {"static", "drift", "congestion", "churn", "mixed"};
    bool known = false;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) known = known || strcmp(kinds[i], kind) == 0;
    if (!known) return dil_fail(err, DIL_EUSAGE, "unknown kind of trace '%.32s'; there are static, drift, congestion, churn, mixed", kind);
    if (!(how->duration_sec > 0 && how->duration_sec <= 1e9) || !(how->rate > 0 && how->rate <= 1e6) || how->tokens_in == 0 || how->tokens_out == 0)
        return dil_fail(err, DIL_EUSAGE, "a trace of %g s with %g requests a second of %u and %u tokens", how->duration_sec, how->rate, how->tokens_in, how->tokens_out);
    return DIL_OK;
}

dil_status dil_trace_generate(const char *kind, uint64_t seed, const dil_cluster *cluster, const dil_trace_how *how, dil_trace **out, dil_err *err)
{
    dil_status s = check(kind, how, err);
    if (s != DIL_OK) return s;
    dil_arena *a = dil_arena_new((size_t)256 << 20);
    dil_trace *t = a ? dil_arena_push(a, 1, sizeof *t) : NULL;
    maker m = {.c = cluster, .how = how, .t = t};
    bool mixed = strcmp(kind, "mixed") == 0;
    if (t) {
        *t = (dil_trace){.arena = a, .duration_sec = how->duration_sec, .events = dil_arena_push(a, DIL_TRACE_EVENTS_MAX, sizeof *t->events)};
        m.log_speed = dil_arena_push(a, cluster->n_links + 1u, sizeof(double));
        m.slow_until = dil_arena_push(a, cluster->n_links + 1u, sizeof(double));
        m.slow_by = dil_arena_push(a, cluster->n_links + 1u, sizeof(double));
    }
    if (!t || !t->events || !m.log_speed || !m.slow_until || !m.slow_by) {
        dil_arena_free(a);
        return dil_fail(err, DIL_EMEMORY, "trace: out of memory");
    }
    requests(&m, seed);
    if (strcmp(kind, "static") != 0 && strcmp(kind, "churn") != 0) links(&m, seed, mixed || kind[0] == 'd', mixed || kind[1] == 'o');
    if (mixed || strcmp(kind, "churn") == 0) churn(&m, seed);
    if (m.failed) {
        dil_arena_free(a);
        return dil_fail(err, DIL_ELIMIT, "a trace of %g s at %g requests a second has more than %d events", how->duration_sec, how->rate, DIL_TRACE_EVENTS_MAX);
    }
    qsort(t->events, t->n_events, sizeof *t->events, by_time);
    *out = t;
    return DIL_OK;
}
