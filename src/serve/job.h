/* serve/job.h - one request's generations between a client's connection and the runner. Knows no HTTP: it fills a byte buffer with the
 * response body (whole, or as server-sent events) and wakes whoever sleeps on it.
 *
 * Two parties hold a job: the connection (until dil__job_leave) and the runner (until the last event of each of its generations). wake is called with the
 * job's lock held, so that a job that was aborted has woken its sleeper for sure. */
#ifndef DIL_SERVE_JOB_H
#define DIL_SERVE_JOB_H

#include "serve/backend.h"

typedef struct dil__job dil__job;

/* Takes over q. wake(wake_ctx) is called, from the runner's thread, when a sleeper has something to do. */
dil_status dil__job_start(const dil__backend *b, dil__api_req *q, const char *model, void (*wake)(void *ctx), void *wake_ctx,
                          dil__job **out, dil_err *err);
void dil__job_leave(dil__job *j);  /* the connection is gone: cancels what still runs */
/* Ends it now with an error, from any thread; its sleeper is woken before this returns. */
void dil__job_abort(dil__job *j, const char *why);
void dil__job_hold(dil__job *j); /* for another party; drop ends that */
void dil__job_drop(dil__job *j);

const void *dil__job_backend(const dil__job *j); /* its ctx */
bool dil__job_is_stream(const dil__job *j);
const char *dil__job_type(const dil__job *j); /* Content-Type of the answer */
typedef struct dil__job_counts {
    uint32_t n_prompt, n_generated;
    double prefill_sec, decode_sec;
} dil__job_counts;
void dil__job_get_counts(dil__job *j, dil__job_counts *out);
/* If there is nothing to do yet, calls suspend(ctx) under the job's lock and returns true: exactly one wake follows.
 * `body`: wait for bytes to read or the end; else for the moment when the HTTP status is known. */
bool dil__job_sleep(dil__job *j, bool body, void (*suspend)(void *ctx), void *ctx);
/* Once the status is known: 200, or the error's with its body in out. */
int dil__job_status(dil__job *j, dil_buf *error_body);
size_t dil__job_read(dil__job *j, char *buf, size_t max, bool *end); /* takes body bytes; end: no more will come */

#endif
