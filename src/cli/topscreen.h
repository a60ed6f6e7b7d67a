/* cli/topscreen.h - the picture that `dilemma top` shows on a terminal, out of a server's /dilemma/state. Pure: text goes into a buffer. */
#ifndef DIL_CLI_TOPSCREEN_H
#define DIL_CLI_TOPSCREEN_H

#include <dilemma/base.h>
#include <jansson.h>

typedef struct dil_cli_top_view {
    int columns, rows;       /* of the terminal; longer lines are cut, the list of machines scrolls */
    bool color, links, help;
    int scroll;              /* machines and links above the window; kept in range by drawing */
    double most_tokens_sec;  /* of the bar; grows */
    char note[200];          /* in the last line: what went wrong, "paused"; "": the keys */
} dil_cli_top_view;

/* before, now: two answers of /dilemma/state, sec apart; before may be NULL. Everything that a server says is cleaned before it gets here or while it is
 * written. out: one screen, each line ended by what clears the rest of it. */
void dil_cli_top_draw(dil_cli_top_view *v, const char *where, const json_t *before, const json_t *now, double sec, dil_buf *out);

#endif
