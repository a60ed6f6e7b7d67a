/* dilemma/cluster.h - cluster.json: the machines that take part and the links between them.
 *
 *   dil_cluster *c;  dil_cluster_read("cluster.json", &c, err);  ...  dil_cluster_free(c);
 *
 * To write one, fill a dil_cluster of your own (arena NULL, strings and arrays yours) and call dil_cluster_write: it makes the
 * checks that reading makes. The format is docs/FORMATS.md; this is not the place for a node's live state (dilemma/node.h). */
#ifndef DILEMMA_CLUSTER_H
#define DILEMMA_CLUSTER_H

#include <dilemma/base.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DIL_NODES_MAX 10000
#define DIL_LINKS_MAX 2000000       /* ordered pairs in one file: all of 1,414 nodes, or 200 for each of 10,000 */
#define DIL_KERNELS_MAX 1024        /* measured kernels a node */
#define DIL_NAME_MAX 256            /* bytes of any name, address or path in these files, the final zero included; paths 4096 */
#define DIL_NO_NODE UINT32_MAX

typedef struct dil_cluster_kernel { /* informative: how fast one matrix-vector and matrix-matrix product ran */
    const char *type;               /* "Q4_0" */
    uint32_t rows, cols;
    double decode_sec;              /* one column */
    double prefill_sec;             /* a column within a batch */
} dil_cluster_kernel;

typedef struct dil_cluster_node {
    const char *name;               /* unique in the cluster, 1 to 255 bytes */
    const char *address;            /* "HOST:PORT"; "" when unknown */
    const char *public_key;         /* Z85, 40 characters; "" when unknown */
    const char *device, *cpu;       /* "CPU"; "AMD EPYC"; "" when unknown */
    uint64_t memory_bytes;          /* what the node offers */
    uint32_t threads;               /* 0: unknown */
    double throttle;                /* >= 1, stretches its compute */
    double out_bytes_per_sec;       /* of the node's own connection; 0: as fast as the fastest of its links that way */
    double in_bytes_per_sec;
    dil_cluster_kernel *kernels;    /* [n_kernels] */
    uint32_t n_kernels;
} dil_cluster_node;

typedef struct dil_cluster_link {   /* directed; a frame of n bytes takes latency_sec + n / bytes_per_sec */
    uint32_t from, to;              /* node indices, different */
    double rtt_sec;                 /* as measured */
    double latency_sec;             /* one way, of an empty frame, >= 0 */
    double bytes_per_sec;           /* > 0 */
} dil_cluster_link;

typedef struct dil_cluster {
    dil_cluster_node *nodes;        /* [n_nodes] */
    uint32_t n_nodes;
    dil_cluster_link *links;        /* [n_links], at most one for an ordered pair; sorted by (from, to) after reading */
    uint32_t n_links;
    uint32_t entry;                 /* index of the node where requests arrive */
    dil_arena *arena;               /* owns everything after reading; NULL in a cluster that the caller filled */
} dil_cluster;

/* dil_cluster_read - reads and checks a file ("-": standard input). *out is owned: dil_cluster_free.
 * Errors: DIL_EFORMAT names file, place and value (unknown node in a link, a pair twice, a speed that is not positive, ...);
 * DIL_ELIMIT beyond the maxima above or 256 MiB. */
dil_status dil_cluster_read(const char *path, dil_cluster **out, dil_err *err);
/* The same from memory; `what` names the text in errors. */
dil_status dil_cluster_parse(const char *what, const char *text, size_t len, dil_cluster **out, dil_err *err);
/* Checks and writes, whole or not at all ("-": standard output). */
dil_status dil_cluster_write(const char *path, const dil_cluster *c, dil_err *err);
void dil_cluster_free(dil_cluster *c); /* only what read or parse made */

uint32_t dil_cluster_find(const dil_cluster *c, const char *name); /* DIL_NO_NODE when there is none of that name */
/* The link of an ordered pair, NULL where there is none (or from == to). Links must be sorted, as they are after reading. */
const dil_cluster_link *dil_cluster_link_get(const dil_cluster *c, uint32_t from, uint32_t to);

#ifdef __cplusplus
}
#endif
#endif
