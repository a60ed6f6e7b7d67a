/* cli/nodetime.h - seconds of a layer as the node itself measures them: the profiler's hook over the node protocol. */
#ifndef DIL_CLI_NODETIME_H
#define DIL_CLI_NODETIME_H

#include <dilemma/cluster.h>
#include <dilemma/engine.h>
#include <dilemma/keys.h>

typedef struct dil_cli_nodetime {
    const dil_keypair *key; /* ours; NULL: without encryption */
    double limit_sec;       /* a layer */
} dil_cli_nodetime;

/* dil_profiler_opts.time_layer with a dil_cli_nodetime as its context. Errors: DIL_ENET, DIL_EAUTH name the address. */
dil_status dil_cli_time_on_node(void *ctx, const dil_cluster_node *node, const dil_arch *arch, uint32_t layer, const dil_type *types,
                                uint32_t n_past, uint32_t n_batch, dil_layer_time *out, dil_err *err);

#endif
