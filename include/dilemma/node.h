/* dilemma/node.h - a node: the daemon that computes layers for a coordinator; and the calls that ask a node for something.
 *
 *   dil_node *n;  dil_node_start(&opts, &n, err);  ...  dil_node_stop(n);                      what `dilemma node` does
 *   dil_node_conn *c;  dil_node_connect("10.0.0.1:7100", its_key, &my_key, 5, &c, err);
 *   dil_node_get_info(c, &info, err);  dil_node_time_layer(c, ...);  dil_node_disconnect(c);   what `probe` and `profile` do
 *
 * A node obeys the keys in its allow file (coordinators) alone. Other nodes get in while a coordinator's session or probe names
 * them, and may then only hand over hidden states of that session, or echo. Running a model over nodes: dilemma/coordinator.h. */
#ifndef DILEMMA_NODE_H
#define DILEMMA_NODE_H

#include <dilemma/engine.h>
#include <dilemma/keys.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct dil_node_opts {
    const char *listen;         /* HOST:PORT; port 0: any free one */
    uint64_t memory_bytes;      /* offered for weights, cache and buffers together; 0: nine tenths of what is free now */
    int n_threads;              /* 0: all this process may use */
    const char *device;         /* NULL: "CPU" */
    double throttle;            /* after each computation it waits (throttle - 1) times as long; 0 and 1: not at all */
    const dil_keypair *key;     /* borrowed for the call; ignored when insecure */
    const char *allow_path;     /* coordinators' public keys; read again when the file changes; may be NULL */
    const dil_keyring *allow;   /* further keys, copied; may be NULL */
    bool insecure;              /* no CURVE: whoever reaches the port may use the node and read what passes */
    const char *cache_dir;      /* chunks of weights; NULL: $XDG_CACHE_HOME/dilemma or ~/.cache/dilemma */
    uint64_t cache_max_bytes;   /* 0: no limit */
} dil_node_opts;

typedef struct dil_node dil_node;
/* Listens and serves in threads of its own. Errors: DIL_EBUSY (the port is in use), DIL_EAUTH (no key and not insecure, or nobody
 * would be allowed), DIL_EIO (the cache folder). */
dil_status dil_node_start(const dil_node_opts *o, dil_node **out, dil_err *err);
uint16_t dil_node_port(const dil_node *n);
/* Ends sessions and threads. Blocks for the computation that is under way. */
void dil_node_stop(dil_node *n);

/* --- asking a node ----------------------------------------------------------------------------------------------------------- */

typedef struct dil_node_conn dil_node_conn; /* one thread at a time; every call blocks for an answer or its timeout */

/* server_key, me: NULL for no CURVE. Errors: DIL_ENET (no answer), DIL_EAUTH (a key is wrong on either side; the text says which). */
dil_status dil_node_connect(const char *address, const char *server_key, const dil_keypair *me, double timeout_sec, dil_node_conn **out,
                            dil_err *err);
void dil_node_disconnect(dil_node_conn *c);

typedef struct dil_node_info {
    char version[32], device[64], cpu[128];
    uint64_t memory_bytes;      /* offered */
    uint64_t memory_free;       /* offered and not in use by a session */
    uint32_t threads;
    double throttle;
} dil_node_info;
dil_status dil_node_get_info(dil_node_conn *c, dil_node_info *out, dil_err *err);

/* dil_engine_time_layer on the node, its throttle included. types [n_types] as dil_arch_layer_tensors lists them.
 * Blocks for about limit_sec, and behind other measurements on that node. */
dil_status dil_node_time_layer(dil_node_conn *c, const dil_arch *arch, uint32_t layer, const dil_type *types, uint32_t n_types,
                               uint32_t n_past, uint32_t n_batch, double limit_sec, dil_layer_time *out, dil_err *err);

/* Lets other nodes in for echoes. keys: Z85. */
dil_status dil_node_admit(dil_node_conn *c, const char *const *keys, uint32_t n_keys, uint32_t seconds, dil_err *err);

typedef struct dil_node_link {
    double rtt_sec;             /* of a small frame, median */
    double rtt_spread;          /* (third quartile - first quartile) / median */
    double bytes_per_sec;       /* from the node to the peer, latency removed */
    uint32_t n_echoes;
} dil_node_link;
/* The node measures its own link to a peer (which must have admitted it). Blocks up to limit_sec. */
dil_status dil_node_probe_link(dil_node_conn *c, const char *peer_address, const char *peer_key, double limit_sec, dil_node_link *out,
                               dil_err *err);

#ifdef __cplusplus
}
#endif
#endif
