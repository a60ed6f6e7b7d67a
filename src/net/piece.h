/* net/piece.h - into how many pieces a prompt is cut, so that the stages of a ring compute beside each other. Pure arithmetic.
 *
 * A prompt of n tokens in c pieces takes all stages' times for a piece, one after the other, and c - 1 times the slowest's. Small pieces overlap better;
 * what comes with each piece, and kernels that want many rows, speak for large ones. */
#ifndef DIL_NET_PIECE_H
#define DIL_NET_PIECE_H

#include <dilemma/plan.h>

typedef struct dil__pieces { /* seconds; all 0: not known, prompts travel in chunks */
    double more_sec; /* that a piece takes at the slowest stage beyond its tokens */
    double sum_sec;  /* of a prompt token, at all stages and over the links between them */
    double most_sec; /* of that, at the node or link that takes longest */
} dil__pieces;

/* The node's column in the costs; UINT32_MAX: it has none there, or c is NULL. */
uint32_t dil__cost_column(const dil_plan_costs *c, const char *name);
/* From the plan's costs; 0 where it has none, or where one node holds all. value_bytes: of a hidden value on its way. */
dil__pieces dil__pieces_of_plan(const dil_plan *plan, const dil_cluster *cluster, uint32_t n_embd, uint32_t value_bytes);
/* Tokens a piece of a prompt of n, at most chunk. */
uint32_t dil__piece_tokens(const dil__pieces *p, uint32_t n, uint32_t chunk);

#endif
