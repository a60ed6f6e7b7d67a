/* serve/textout.h - the bytes of tokens become text that can be sent: whole UTF-8 characters only, and nothing that is, or
 * may yet become, a stop string.
 *
 *   dil__textout_init(&t, stops, lens, n);  while (tokens) if (dil__textout_push(&t, bytes, len, &out)) break;
 *   dil__textout_flush(&t, &out);  dil__textout_fini(&t); */
#ifndef DIL_SERVE_TEXTOUT_H
#define DIL_SERVE_TEXTOUT_H

#include <dilemma/base.h>

#define DIL_TEXTOUT_STOPS_MAX 16

typedef struct dil__textout {
    const char *stop[DIL_TEXTOUT_STOPS_MAX]; /* borrowed */
    size_t stop_len[DIL_TEXTOUT_STOPS_MAX], n_stop;
    dil_buf held; /* bytes that were pushed and not sent */
    size_t n_out; /* pushed bytes that came out as text */
    bool stopped;
} dil__textout;

void dil__textout_init(dil__textout *t, const char *const *stop, const size_t *stop_len, size_t n_stop);
void dil__textout_fini(dil__textout *t);
/* Appends to out what became certain. Returns true when a stop string is complete: it and what follows are dropped, and
 * further pushes do nothing. Bytes that are no UTF-8 come out as U+FFFD. */
bool dil__textout_push(dil__textout *t, const char *bytes, size_t len, dil_buf *out);
void dil__textout_flush(dil__textout *t, dil_buf *out); /* the end: what was held back; an unfinished character is U+FFFD */

/* Length of the UTF-8 character at s (n > 0 bytes at hand): 1 to 4; 0: not UTF-8; -1: the beginning of one, cut off. */
int dil__utf8_len(const uint8_t *s, size_t n);

#endif
