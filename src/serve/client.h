/* serve/client.h - asking a running server: what `dilemma chat` and `dilemma top` do. */
#ifndef DIL_SERVE_CLIENT_H
#define DIL_SERVE_CLIENT_H

#include <dilemma/base.h>

typedef struct dil__client {
    const char *base;    /* "http://127.0.0.1:8080" */
    const char *api_key; /* NULL: none */
    const char *ca_file; /* certificates that HTTPS trusts; NULL: the system's */
    double timeout_sec;  /* of a whole GET; 0: 10 */
} dil__client;

/* Any status is an answer: *http. Errors: DIL_ENET (nobody answers), DIL_ELIMIT (beyond out->max). */
dil_status dil__client_get(const dil__client *c, const char *path, long *http, dil_buf *out, dil_err *err);
/* POSTs JSON and hands over the answer line by line as it comes; fn returns false to break off (DIL_ECANCELED).
 * Errors: another status than 200, with the server's own words. */
dil_status dil__client_post(const dil__client *c, const char *path, const char *body, bool (*fn)(void *ctx, const char *line, size_t len), void *ctx,
                            dil_err *err);

#endif
