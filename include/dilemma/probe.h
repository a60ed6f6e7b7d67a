/* dilemma/probe.h - measuring a cluster: what each node offers and how fast every link is, node to node.
 *
 *   dil_probe_node nodes[] = {{"a", "10.0.0.1:7100", key_a}, ...};
 *   dil_probe(nodes, 3, &opts, &cluster, err);  dil_cluster_write("cluster.json", cluster, err);  dil_cluster_free(cluster);
 *
 * Links are measured one after the other, so that no measurement disturbs another, each direction by the node that sends. */
#ifndef DILEMMA_PROBE_H
#define DILEMMA_PROBE_H

#include <dilemma/cluster.h>
#include <dilemma/node.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DIL_PROBE_NODES_MAX 256

typedef struct dil_probe_node {
    const char *name;         /* unique */
    const char *address;      /* HOST:PORT, at which the other nodes reach it too */
    const char *key;          /* public key; "" or NULL without CURVE */
} dil_probe_node;

typedef struct dil_probe_opts {
    const dil_keypair *key;   /* of whom the nodes obey; NULL: no CURVE */
    double link_sec;          /* at most, for each ordered pair; 0: 2 */
    double kernel_sec;        /* at most, for each node and type; 0: kernels are not timed */
    double timeout_sec;       /* for a node's answer; 0: 5 */
    const dil_progress *progress;
} dil_probe_opts;

/* *out is owned: dil_cluster_free. The entry is the first node. Errors name the node or the pair; DIL_ECANCELED.
 * Blocks for about n * (n - 1) * link_sec at most. */
dil_status dil_probe(const dil_probe_node *nodes, uint32_t n, const dil_probe_opts *o, dil_cluster **out, dil_err *err);

#ifdef __cplusplus
}
#endif
#endif
