/* net/node_impl.h - the node with another engine behind it, for tests. */
#ifndef DIL_NET_NODE_IMPL_H
#define DIL_NET_NODE_IMPL_H

#include "net/session.h"

dil_status dil__node_start(const dil_node_opts *o, const dil__engine *engine, dil_node **out, dil_err *err);

#endif
