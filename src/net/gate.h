/* net/gate.h - who is let in: ZeroMQ's authentication protocol (ZAP, RFC 27) answered in this process. */
#ifndef DIL_NET_GATE_H
#define DIL_NET_GATE_H

#include "net/sock.h"

typedef struct dil__gate dil__gate;

/* Operators are the keys in allow_path (read again when the file changes) and the n keys of `more`. Must be opened before
 * a socket of ctx listens. */
dil_status dil__gate_open(void *ctx, const char *allow_path, const dil_keyring *more, dil__gate **out, dil_err *err);
void dil__gate_close(dil__gate *g); /* before the context ends */

bool dil__gate_is_operator(dil__gate *g, const char *key);
/* Lets a peer in on behalf of owner until until_ns of the monotonic clock (INT64_MAX: until the owner's are expelled). */
void dil__gate_admit(dil__gate *g, const char *key, uint64_t owner, int64_t until_ns);
void dil__gate_expel(dil__gate *g, uint64_t owner);

#endif
