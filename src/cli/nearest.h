/* cli/nearest.h - what a mistyped word was meant to be. */
#ifndef DIL_CLI_NEAREST_H
#define DIL_CLI_NEAREST_H

#include <stddef.h>

/* Letters to insert, drop, replace or swap with their neighbour (optimal string alignment); 99 for words of 31 letters and more. */
unsigned dil_cli_distance(const char *a, size_t a_len, const char *b, size_t b_len);
/* Whether b is near enough to a to be offered for it: closer than *best, at most a third of the letters. Then *best is its distance. */
int dil_cli_nearer(const char *a, size_t a_len, const char *b, unsigned *best);

#endif
