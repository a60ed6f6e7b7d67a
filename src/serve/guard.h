/* serve/guard.h - one thread that watches all connections of a server: those that take too long to ask are cut, and a client
 * that hangs up while it waits has its work canceled (a suspended connection is not looked at by the HTTP library). */
#ifndef DIL_SERVE_GUARD_H
#define DIL_SERVE_GUARD_H

#include "serve/job.h"

typedef struct dil__guard dil__guard;
typedef struct dil__guarded dil__guarded; /* one connection */
typedef enum dil__guard_phase_of { DIL_GUARD_IDLE, DIL_GUARD_BODY, DIL_GUARD_WORK } dil__guard_phase_of;

dil_status dil__guard_open(int headers_sec, int body_sec, dil__guard **out, dil_err *err);
void dil__guard_close(dil__guard *g); /* when no connection is left */
dil__guarded *dil__guard_add(dil__guard *g, int fd); /* NULL: out of memory; the others take NULL */
void dil__guard_remove(dil__guarded *c);             /* before the descriptor is closed */
void dil__guard_phase(dil__guarded *c, dil__guard_phase_of phase);
void dil__guard_set_job(dil__guarded *c, dil__job *j); /* NULL: none any more */
void dil__guard_abort_jobs(dil__guard *g, const void *backend, const char *why); /* backend: the jobs of this one (its ctx) alone; NULL: all */
/* Waits until the connections of all jobs have answered and let go of them, at most so long. */
void dil__guard_drain(dil__guard *g, int limit_ms);

#endif
