/* net/tempo.h - how fast a node computes compared with what it did or was measured to do. Pure numbers.
 *
 * A node counts its small works by the number of their tokens: alike works take alike time. The coordinator turns what happened between
 * two heartbeats into bytes of weights read a second, remembers the best, and calls a node slow that stays far below while others do not. */
#ifndef DIL_NET_TEMPO_H
#define DIL_NET_TEMPO_H

#include <dilemma/base.h>

enum { DIL__TEMPO_SIZES = 4 }; /* works of 1, 2, 3 to 4, 5 to 8 tokens; larger ones are not counted */

typedef struct dil__tempo { /* of a session, since its start */
    uint32_t n[DIL__TEMPO_SIZES];
    uint64_t ns[DIL__TEMPO_SIZES];
} dil__tempo;
void dil__tempo_note(dil__tempo *p, uint32_t n_tokens, uint64_t ns);

typedef struct dil__tempo_watch { /* the coordinator's, of one node; lives longer than sessions */
    dil__tempo last;
    double best[DIL__TEMPO_SIZES]; /* bytes a second; 0: not seen yet */
    double factor;                /* best over now, >= 1; 0: nothing was computed lately */
    uint32_t n_slow;              /* looks in a row at which it was slow beside the others */
} dil__tempo_watch;

/* A new session began, or nothing is known any more of what was counted. */
void dil__tempo_restart(dil__tempo_watch *w);
/* now: the session's counts; bytes: of weights that a work reads. measured: bytes a second for one token; 0: not measured.
 * True: enough was computed since the last look; w->factor is new. */
bool dil__tempo_look(dil__tempo_watch *w, const dil__tempo *now, double bytes, double measured);
/* After all nodes were looked at: which are slow beside the others? least: the smallest factor among them. True at the third look in a
 * row; slower is by how much. */
bool dil__tempo_is_slow(dil__tempo_watch *w, double least, double *slower);

#endif
