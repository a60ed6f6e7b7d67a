/* One connection a measurement: a profile takes minutes, a handshake milliseconds, and a node may restart in between. */
#include "cli/nodetime.h"

#include <dilemma/node.h>

dil_status dil_cli_time_on_node(void *ctx, const dil_cluster_node *node, const dil_arch *arch, uint32_t layer, const dil_type *types,
                                uint32_t n_past, uint32_t n_batch, dil_layer_time *out, dil_err *err)
{
    const dil_cli_nodetime *t = ctx;
    dil_node_conn *conn;
    dil_status s = dil_node_connect(node->address, t->key ? node->public_key : NULL, t->key, 10, &conn, err);
    if (s != DIL_OK) return s;
    dil_layer_tensor tensors[DIL_LAYER_TENSORS_MAX];
    uint32_t n = (uint32_t)dil_arch_layer_tensors(arch, layer, tensors);
    s = dil_node_time_layer(conn, arch, layer, types, n, n_past, n_batch, t->limit_sec, out, err);
    dil_node_disconnect(conn);
    return s;
}
