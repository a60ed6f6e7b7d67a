/* Look-up drafts. A table of the places behind the last occurrence of every 1 to 4 tokens, overwritten where two fall together: a
 * wrong entry is found out by comparing. The longest agreement wins. Searching for the best of several earlier places was left out: the
 * latest is nearly always the one that a person would choose, and it is the cheapest.
 *
 * How many: the expected tokens over the cost of the work. A guess behind m agreeing tokens is right with a share learned by m; the next
 * stands behind m + 1. The time on the links is shared by the streams in flight, computing is not: under load guesses stop to pay by
 * themselves. A draft model was not tried: there is none smaller than the models that this is measured on. */
#include "net/draft.h"

#include <dilemma/plan.h>
#include <dilemma/runner.h>
#include <stdlib.h>
#include <string.h>

enum { ORDERS = 4, LONGEST = 16, TABLE_MAX = 1 << 18 };
#define FADE 0.98       /* of old observations at each new one of a class */
#define TRUST 6.0       /* observations that what was seen elsewhere counts for */
#define FIRST_MORE 0.6  /* of a further row, before one was measured */
#define GAIN_MIN 1.03   /* what a draft must promise */

/* Agreement by chance is likelier when it is short. Measured on 14 SQuAD questions with SmolLM2 (0.23 0.70 0.76 0.82 0.81 0.89 of 341 guesses); only
 * where to start. */
static const double prior[DIL__DRAFT_CLASSES] = {0.2, 0.6, 0.7, 0.78, 0.82, 0.88};
static const uint32_t depths[] = {1, 2, 3, 5, 7, 11, 15}; /* few shapes: a graph is kept for each */

_Static_assert(DIL__DRAFT_MAX == DIL_PLAN_GUESSES_MAX, "the planner counts with what is sent");

struct dil__draft {
    uint32_t *after;     /* [mask + 1] place behind the last occurrence; 0: none */
    uint32_t mask, n_read;
    uint32_t match;      /* tokens that agreed before the last guess */
    uint32_t watched;    /* place of a token that was foreseen, but not worth sending; 0: none */
    int32_t foreseen;
    dil__draft_stats stats;
};

static uint32_t class_of(uint32_t match)
{
    return match <= 1 ? 0 : match == 2 ? 1 : match == 3 ? 2 : match <= 5 ? 3 : match <= 9 ? 4 : 5;
}

static double share(const dil__draft *d, const dil__pace *p, uint32_t match)
{
    uint32_t c = class_of(match);
    double all = (p->stats.right[c] + TRUST * prior[c]) / (p->stats.seen[c] + TRUST);
    return (d->stats.right[c] + TRUST * all) / (d->stats.seen[c] + TRUST);
}

static void observe(dil__draft_stats *s, uint32_t class, bool right)
{
    s->seen[class] = s->seen[class] * FADE + 1;
    s->right[class] = s->right[class] * FADE + (right ? 1 : 0);
}

/* --- cost ----------------------------------------------------------------------------------------------------------------- */

/* What disturbs a measurement makes it longer: down is believed sooner than up. */
static void approach(double *mean, double value)
{
    *mean += *mean > 0 ? (value - *mean) / (value < *mean ? 4 : 16) : value;
}

void dil__pace_note(dil__pace *p, uint32_t n_rows, double round_sec, double compute_sec, bool alone)
{
    if (n_rows < 1 || n_rows > DIL__DRAFT_MAX + 1) return;
    uint32_t bit = 1u << n_rows;
    bool first = !(p->known & bit);
    p->known |= bit;
    if (first) return;
    if (alone && round_sec > compute_sec) approach(&p->link_sec, round_sec - compute_sec);
    approach(&p->rows_sec[n_rows], compute_sec);
    double one = p->rows_sec[1];
    if (n_rows > 1 && one > 0) p->more = (p->rows_sec[n_rows] / one - 1) / (n_rows - 1);
    if (n_rows > 1 && p->more < 0.02) p->more = 0.02;
}

static double cost(const dil__pace *p, uint32_t n_guesses, uint32_t n_streams)
{
    double more = p->more > 0 ? p->more : FIRST_MORE, seen = p->rows_sec[1 + n_guesses];
    return p->link_sec / (n_streams ? n_streams : 1) + (seen > 0 ? seen : p->rows_sec[1] * (1 + more * n_guesses));
}

static uint32_t best_depth(const dil__draft *d, const dil__pace *p, uint32_t n, uint32_t n_streams)
{
    if (p->rows_sec[1] <= 0) return 0;
    double best = GAIN_MIN / cost(p, 0, n_streams), expected = 1, chance = 1;
    uint32_t take = 0, k = 0;
    for (size_t i = 0; i < sizeof depths / sizeof *depths && depths[i] <= n; i++) {
        for (; k < depths[i]; k++) {
            chance *= share(d, p, d->match + k);
            expected += chance;
        }
        double gain = expected / cost(p, k, n_streams);
        if (gain > best) {
            best = gain;
            take = k;
        }
    }
    return take;
}

/* --- looking up ------------------------------------------------------------------------------------------------------------- */

dil__draft *dil__draft_new(uint32_t n_tokens_max)
{
    dil__draft *d = calloc(1, sizeof *d);
    uint32_t size = 256;
    while (size < TABLE_MAX && size / ORDERS < n_tokens_max) size *= 2;
    if (d) d->after = calloc(size, sizeof *d->after);
    if (!d || !d->after) {
        free(d);
        return NULL;
    }
    d->mask = size - 1;
    return d;
}

void dil__draft_free(dil__draft *d)
{
    if (d) free(d->after);
    free(d);
}

/* Of the `order` tokens before end. */
static uint32_t slot_of(const dil__draft *d, const int32_t *tokens, uint32_t end, uint32_t order)
{
    uint64_t h = order;
    for (uint32_t i = end - order; i < end; i++) h = (h ^ (uint32_t)tokens[i]) * 0x9e3779b97f4a7c15u, h ^= h >> 29;
    return (uint32_t)(h >> 20) & d->mask;
}

/* What precedes place i is noted once token i is known: the end of the text is not found in itself. */
static void read_on(dil__draft *d, const int32_t *tokens, uint32_t n)
{
    for (uint32_t i = d->n_read ? d->n_read : 1; i < n; i++) {
        for (uint32_t order = 1; order <= ORDERS && order <= i; order++) d->after[slot_of(d, tokens, i, order)] = i;
    }
    d->n_read = n;
}

/* What was foreseen and not sent tells as much as what was. */
static void watch(dil__draft *d, dil__pace *p, const int32_t *tokens, uint32_t n)
{
    if (d->watched && d->watched < n) {
        observe(&d->stats, class_of(d->match), tokens[d->watched] == d->foreseen);
        observe(&p->stats, class_of(d->match), tokens[d->watched] == d->foreseen);
    }
    d->watched = 0;
}

static uint32_t agreement(const int32_t *tokens, uint32_t at, uint32_t n)
{
    uint32_t m = 0;
    while (m < LONGEST && m < at && tokens[at - 1 - m] == tokens[n - 1 - m]) m++;
    return m;
}

static uint32_t find(dil__draft *d, const int32_t *tokens, uint32_t n)
{
    for (uint32_t order = n < ORDERS ? n : ORDERS; order >= 1; order--) {
        uint32_t at = d->after[slot_of(d, tokens, n, order)];
        uint32_t m = at ? agreement(tokens, at, n) : 0;
        if (m < order) continue;
        d->match = m;
        return at;
    }
    return 0;
}

uint32_t dil__draft_guess(dil__draft *d, dil__pace *p, const int32_t *tokens, uint32_t n, int depth, uint32_t n_streams, uint32_t max, int32_t *out)
{
    watch(d, p, tokens, n);
    read_on(d, tokens, n);
    if (max > DIL__DRAFT_MAX) max = DIL__DRAFT_MAX;
    uint32_t at = max && depth ? find(d, tokens, n) : 0;
    if (!at) return 0;
    uint32_t take = depth == DIL_SPECULATE_AUTO ? best_depth(d, p, max, n_streams) : (uint32_t)depth < max ? (uint32_t)depth : max;
    if (take == 0) {
        d->watched = n;
        d->foreseen = tokens[at];
    }
    for (uint32_t i = 0; i < take; i++) out[i] = at + i < n ? tokens[at + i] : out[at + i - n]; /* a text that repeats itself goes on repeating */
    return take;
}

void dil__draft_learn(dil__draft *d, dil__pace *p, uint32_t n_guessed, uint32_t n_right)
{
    for (uint32_t k = 0; k < n_guessed && k <= n_right; k++) {
        observe(&d->stats, class_of(d->match + k), k < n_right);
        observe(&p->stats, class_of(d->match + k), k < n_right);
    }
}
