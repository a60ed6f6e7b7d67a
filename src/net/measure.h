/* net/measure.h - how long a frame takes to another node, and how fast the link carries many. */
#ifndef DIL_NET_MEASURE_H
#define DIL_NET_MEASURE_H

#include "net/message.h"
#include "net/sock.h"

/* Dials the peer and echoes with it for at most limit_sec. Errors: DIL_ENET, DIL_EAUTH as dil__watch_fail tells them. */
dil_status dil__measure_link(void *zmq, const dil__peer *peer, const dil_keypair *me, double limit_sec, dil_node_link *out, dil_err *err);

#endif
