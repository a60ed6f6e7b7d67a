/* net/draft.h - speculation: guesses of the next tokens, looked up in the text so far, and how many of them pay.
 *
 * What a text said after its last few tokens the time before, it often says again: quotations, code, names. A guess travels with
 * the last token through the ring as one work, every row of which is picked from; rows behind a wrong guess are void. Picking
 * draws one number a token as ever, so the text is the one without guesses, sampled text included, up to the last bits that a
 * wider batch changes (with fixed shapes: none).
 *
 * Pure arithmetic on token ids and seconds: no pipe, no clock. One thread. */
#ifndef DIL_NET_DRAFT_H
#define DIL_NET_DRAFT_H

#include <dilemma/base.h>

enum { DIL__DRAFT_MAX = 15, DIL__DRAFT_CLASSES = 6 };

/* How often a guess was right, by the length of text before it that agreed. Old observations fade. */
typedef struct dil__draft_stats {
    double seen[DIL__DRAFT_CLASSES], right[DIL__DRAFT_CLASSES];
} dil__draft_stats;

typedef struct dil__pace { /* what works cost, measured; one a runner, zeroed */
    double link_sec;  /* of a work's round: what is not computing */
    double rows_sec[DIL__DRAFT_MAX + 2]; /* computing a work of so many rows; 0: not yet measured */
    double more;      /* each further row, over rows_sec[1], as last seen; 0: not yet */
    uint32_t known;   /* bits: work sizes that were seen; the first of a size is not counted, it builds a graph */
    dil__draft_stats stats;
} dil__pace;

/* alone: no other work was in flight, so the time beside computing was the links'. */
void dil__pace_note(dil__pace *p, uint32_t n_rows, double round_sec, double compute_sec, bool alone);

typedef struct dil__draft dil__draft; /* of one text */
dil__draft *dil__draft_new(uint32_t n_tokens_max); /* NULL: out of memory */
void dil__draft_free(dil__draft *d);

/* Guesses what follows tokens [n], which must begin with the text of the call before. depth: DIL_SPECULATE_AUTO, or how many whenever there
 * are any. n_streams: how many share the links' delay. out [max]; returns how many, at most DIL__DRAFT_MAX.
 * What was foreseen without being worth a guess is looked at in the next call, and learned from. Cost: new tokens + guesses. */
uint32_t dil__draft_guess(dil__draft *d, dil__pace *p, const int32_t *tokens, uint32_t n, int depth, uint32_t n_streams, uint32_t max, int32_t *out);
/* Of the last n_guessed the first n_right were right. */
void dil__draft_learn(dil__draft *d, dil__pace *p, uint32_t n_guessed, uint32_t n_right);

#endif
