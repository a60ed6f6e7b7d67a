/* Choosing the next token. Candidates are the k best by a partial sort; nucleus and min-p then cut that list. With top-k off the
 * best few thousand are tried first, against the probability of all; only where the cut is not among them is everything sorted, and
 * where nothing cuts nothing is. Greedy is the lowest id among the largest logits, so that text does not depend on how ties fall. */
#include "engine/grammar.h"
#include "engine/rows.h"

#include <dilemma/engine.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_TRY 4096u

typedef struct candidate {
    float logit, p;
    int32_t id;
} candidate;

struct dil_sampler {
    dil_sampler_opts opts;
    uint32_t n_vocab;
    dil_rng rng;
    dil_logit_bias *bias; /* [n_bias] */
    dil__grammar_run *run; /* NULL: no grammar */
    float *logit;       /* [n_vocab] after penalties, bias and grammar; NULL without them */
    uint32_t *count;    /* [n_vocab] how often a token was accepted; NULL without penalties */
    candidate *heap;    /* [n_vocab], [top_k] where that is on */
};

dil_sampler_opts dil_sampler_defaults(void)
{
    return (dil_sampler_opts){.temperature = 0.8f, .top_k = 40, .top_p = 0.95f, .min_p = 0.05f, .repeat_penalty = 1};
}

static bool penalises(const dil_sampler_opts *o)
{
    return (o->repeat_penalty > 0 && o->repeat_penalty != 1) || o->presence_penalty != 0 || o->frequency_penalty != 0;
}

static uint32_t kept_by_top_k(const dil_sampler *s)
{
    return s->opts.top_k && s->opts.top_k < s->n_vocab ? s->opts.top_k : s->n_vocab;
}

static bool take_bias(dil_sampler *s, const dil_sampler_opts *o)
{
    s->opts.bias = NULL;
    s->opts.n_bias = o->n_bias < DIL_LOGIT_BIAS_MAX ? o->n_bias : DIL_LOGIT_BIAS_MAX;
    if (s->opts.n_bias == 0) return true;
    s->bias = malloc(s->opts.n_bias * sizeof *s->bias);
    if (s->bias) memcpy(s->bias, o->bias, s->opts.n_bias * sizeof *s->bias);
    return s->bias != NULL;
}

dil_sampler *dil_sampler_new(const dil_sampler_opts *o, uint32_t n_vocab)
{
    dil_sampler *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    s->opts = *o;
    s->n_vocab = n_vocab;
    dil_rng_init(&s->rng, o->seed);
    s->heap = calloc(kept_by_top_k(s), sizeof *s->heap);
    bool changes = penalises(o) || o->n_bias > 0 || o->grammar, ok = s->heap && take_bias(s, o);
    if (o->grammar) s->run = dil__grammar_run_new(o->grammar);
    ok = ok && (!o->grammar || s->run);
    if (changes) s->logit = malloc((size_t)n_vocab * sizeof *s->logit);
    if (penalises(o)) s->count = calloc(n_vocab, sizeof *s->count);
    if (!ok || (changes && !s->logit) || (penalises(o) && !s->count)) {
        dil_sampler_free(s);
        return NULL;
    }
    return s;
}

void dil_sampler_free(dil_sampler *s)
{
    if (!s) return;
    free(s->bias);
    dil__grammar_run_free(s->run);
    free(s->logit);
    free(s->count);
    free(s->heap);
    free(s);
}

static void penalise(dil_sampler *s)
{
    float repeat = s->opts.repeat_penalty > 0 ? s->opts.repeat_penalty : 1;
    for (uint32_t i = 0; i < s->n_vocab; i++) {
        if (s->count[i] == 0) continue;
        float *l = &s->logit[i];
        *l = *l > 0 ? *l / repeat : *l * repeat;
        *l -= s->opts.presence_penalty + s->opts.frequency_penalty * (float)s->count[i];
    }
}

static const float *changed(dil_sampler *s, const float *logits)
{
    if (!s->logit) return logits;
    memcpy(s->logit, logits, (size_t)s->n_vocab * sizeof *logits);
    if (s->count) penalise(s);
    for (uint32_t i = 0; i < s->opts.n_bias; i++) {
        int32_t t = s->bias[i].token;
        if (t >= 0 && (uint32_t)t < s->n_vocab) s->logit[t] += s->bias[i].bias;
    }
    if (s->run) dil__grammar_run_mask(s->run, s->logit, s->n_vocab);
    return s->logit;
}

/* The worst of the kept candidates is on top; ties are worse with the larger id. */
static bool worse(const candidate *a, const candidate *b)
{
    return a->logit < b->logit || (a->logit == b->logit && a->id > b->id);
}

static void sift_down(candidate *h, uint32_t n, uint32_t i)
{
    for (;;) {
        uint32_t w = i, l = 2 * i + 1, r = l + 1;
        if (l < n && worse(&h[l], &h[w])) w = l;
        if (r < n && worse(&h[r], &h[w])) w = r;
        if (w == i) return;
        candidate t = h[i];
        h[i] = h[w];
        h[w] = t;
        i = w;
    }
}

/* The k largest, in falling order. */
static uint32_t largest(candidate *h, const float *logits, uint32_t n, uint32_t k)
{
    if (k > n) k = n;
    for (uint32_t i = 0; i < k; i++) h[i] = (candidate){.logit = logits[i], .id = (int32_t)i};
    for (uint32_t i = k / 2; i-- > 0;) sift_down(h, k, i);
    for (uint32_t i = k; i < n; i++) {
        if (logits[i] <= h[0].logit) continue;
        h[0] = (candidate){.logit = logits[i], .id = (int32_t)i};
        sift_down(h, k, 0);
    }
    for (uint32_t m = k; m > 1; m--) {
        candidate t = h[0];
        h[0] = h[m - 1];
        h[m - 1] = t;
        sift_down(h, m - 1, 0);
    }
    return k;
}

static bool cuts_nucleus(const dil_sampler_opts *o)
{
    return o->top_p > 0 && o->top_p < 1;
}

/* How many of the sorted candidates stay; sum: of the probabilities that the nucleus is a share of. n: none was cut. */
static uint32_t cut(const dil_sampler_opts *o, const candidate *c, uint32_t n, double sum)
{
    double kept = 0;
    for (uint32_t k = 0; k < n; k++) {
        if (o->min_p > 0 && k > 0 && c[k].p < o->min_p * c[0].p) return k;
        kept += (double)c[k].p;
        if (cuts_nucleus(o) && kept >= (double)o->top_p * sum && k + 1 < n) return k + 1;
    }
    return n;
}

static double weigh(const dil_sampler_opts *o, candidate *c, uint32_t n, float max)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        c[i].p = expf((c[i].logit - max) / o->temperature);
        sum += (double)c[i].p;
    }
    return sum;
}

static uint32_t all_in_order(candidate *c, const float *logits, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) c[i] = (candidate){.logit = logits[i], .id = (int32_t)i};
    return n;
}

/* The candidates with their weights, as far as top-k, nucleus and min-p leave them. */
static uint32_t candidates(dil_sampler *s, const float *logits)
{
    const dil_sampler_opts *o = &s->opts;
    uint32_t k = kept_by_top_k(s);
    float max = logits[dil__row_argmax(logits, s->n_vocab)];
    if (k == s->n_vocab && !cuts_nucleus(o) && !(o->min_p > 0)) {
        weigh(o, s->heap, all_in_order(s->heap, logits, k), max);
        return k;
    }
    if (k == s->n_vocab && k > FIRST_TRY) {
        double all = 0;
        for (uint32_t i = 0; i < k; i++) all += (double)expf((logits[i] - max) / o->temperature);
        uint32_t n = largest(s->heap, logits, k, FIRST_TRY);
        weigh(o, s->heap, n, max);
        uint32_t left = cut(o, s->heap, n, all);
        if (left < n) return left;
    }
    uint32_t n = largest(s->heap, logits, s->n_vocab, k);
    double sum = weigh(o, s->heap, n, max);
    return cut(o, s->heap, n, sum);
}

static int32_t draw(dil_sampler *s, const candidate *c, uint32_t n)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) sum += (double)c[i].p;
    double at = dil_rng_unit(&s->rng) * sum;
    for (uint32_t i = 0; i + 1 < n; i++) {
        at -= (double)c[i].p;
        if (at < 0) return c[i].id;
    }
    while (n > 1 && !(c[n - 1].p > 0)) n--; /* what is out is not what rounding leaves */
    return c[n - 1].id;
}

static float log_prob(const dil_sampler *s, const float *logits, int32_t id)
{
    float max = logits[dil__row_argmax(logits, s->n_vocab)];
    return (float)((double)logits[id] - dil__row_log_sum_exp(logits, s->n_vocab, max));
}

int32_t dil_sampler_pick(dil_sampler *s, const float *logits, float *logprob)
{
    const float *l = changed(s, logits);
    int32_t id;
    if (s->opts.temperature <= 0) {
        id = (int32_t)dil__row_argmax(l, s->n_vocab);
    } else {
        id = draw(s, s->heap, candidates(s, l));
    }
    if (logprob) *logprob = log_prob(s, logits, id);
    return id;
}

void dil_sampler_accept(dil_sampler *s, int32_t token)
{
    if (s->run) dil__grammar_run_accept(s->run, token);
    if (s->count && token >= 0 && (uint32_t)token < s->n_vocab) s->count[token]++;
}

void dil_sampler_skip(dil_sampler *s, uint32_t n)
{
    for (uint32_t i = 0; s->opts.temperature > 0 && i < n; i++) dil_rng_unit(&s->rng);
}
