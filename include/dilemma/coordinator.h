/* dilemma/coordinator.h - a runner (dilemma/runner.h) whose computing is done by the nodes of a plan.
 *
 *   dil_runner *r;  dil_runner_ring(plan, cluster, gguf, &arch, &opts, &r, err);   returns at once, loads in the background
 *   dil_ring_wait_ready(r, 60, progress, err);                                     or watch dil_runner_get_state
 *   dil_runner_generate(r, ...);  dil_runner_close(r);
 *
 * The coordinator connects to every node of the plan, sends each the chunks of its layers that it lacks, and is ready when a
 * frame went once around the ring. Hidden states travel from node to node; only token ids pass through here. Once it was ready
 * it keeps going (and before, when a node of the plan does not answer for five times lost_sec): when a node vanishes or a link breaks it plans around it at the same levels, over all nodes of the cluster that
 * answer, and running requests go on with the tokens they have. Where the others cannot hold the model it waits for the node,
 * and after patience_sec the requests are told which budget is short. A node that is back is used again when that pays. */
#ifndef DILEMMA_COORDINATOR_H
#define DILEMMA_COORDINATOR_H

#include <dilemma/gguf.h>
#include <dilemma/grammar.h>
#include <dilemma/keys.h>
#include <dilemma/plan.h>
#include <dilemma/runner.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct dil_ring_opts {
    const dil_keypair *key;   /* this coordinator's; copied. NULL: no CURVE */
    double lost_sec;          /* a node that is silent for so long has vanished; 0: 2 */
    double patience_sec;      /* requests wait so long for a plan that can run; 0: 30 */
    double horizon_sec;       /* the network is expected to stay as it is for so long: what a voluntary move must pay in; 0: 3600 */
    double relink_sec;        /* links are measured again, one in so long, and those of the ring when its rounds become slow; 0: never */
    const char *plan_path;    /* the plan that runs is written there when it is another one; NULL: not. Borrowed until the runner is closed */
    uint64_t run, model;      /* several models of one process on the same nodes, each with a ring of its own: a number of the process that no other run
                               * has (0: drawn), and one of the model. A ring's layers replace those of its own model, and of any other run with this key
                               * that is not connected any more; one that is has its nodes for itself (DIL_EBUSY) */
    const dil_grammar_vocab *words; /* of the model; borrowed for the runner's life. NULL: requests with a grammar are refused */
    bool stay;                /* never plan again: wait for the plan's own nodes */
    uint32_t n_seq;           /* sequences at once; 0: the plan's */
    uint32_t n_ctx;           /* cached tokens a sequence; 0: the plan's */
    uint32_t chunk;           /* prompt tokens that travel together; 0: 128 */
    dil_type kv_type;         /* as dil_stage_opts */
    dil_type wire;            /* hidden states travel as F32 (0), or in half the bytes as F16 or BF16: docs/PIPELINE.md has what that damages */
    bool fixed_shapes;        /* --deterministic */
} dil_ring_opts;

/* plan       its stages say who holds what; checked against arch and cluster (names, addresses, keys). All three borrowed until the
 *            runner is closed; its costs make planning again as good as planning
 * model      the file that the plan made; borrowed until the runner is closed, as its tensors are sent from it
 * Errors: DIL_EINFEASIBLE (the plan is of another model), DIL_ENOTFOUND (a node is not in the cluster), DIL_EAUTH (a key is
 * missing or wrong). What a node says comes later, through the state or dil_ring_wait_ready. */
dil_status dil_runner_ring(const dil_plan *plan, const dil_cluster *cluster, const dil_gguf *model, const dil_arch *arch,
                           const dil_ring_opts *opts, dil_runner **out, dil_err *err);

/* The same plan on stock ggml RPC workers (llama.cpp's rpc-server): where a node's address is rpc://HOST:PORT. This process drives them one after the
 * other, as llama.cpp does; the entry node may be this process itself. No keys, no encryption, and a worker that dies ends the process: both are
 * ggml's. The protocol's version is checked first. weights: borrowed until the runner is closed.
 * Errors: DIL_ENET (no answer), DIL_EUNSUPPORTED (another version; nodes of ours beside workers), DIL_EINFEASIBLE, DIL_ENOTFOUND, DIL_ELIMIT. */
bool dil_plan_uses_rpc(const dil_plan *plan, const dil_cluster *cluster);
dil_status dil_runner_rpc(const dil_plan *plan, const dil_cluster *cluster, const dil_weights *weights, const dil_arch *arch, const dil_stage_opts *opts,
                          dil_runner **out, dil_err *err);

/* Blocks until the ring is ready. Fails at once when waiting cannot help: DIL_ELIMIT (a node's memory: its numbers), DIL_EAUTH;
 * otherwise DIL_ETIMEOUT with what is missing, DIL_ECANCELED. progress: bytes in place over bytes of all nodes. */
dil_status dil_ring_wait_ready(dil_runner *r, double timeout_sec, const dil_progress *progress, dil_err *err);

typedef struct dil_ring_node {
    char name[DIL_NAME_MAX];
    char state[160];          /* "connecting", "loading 34 %", "ready", or what went wrong */
    bool ready;
    uint64_t bytes_total, bytes_sent, bytes_cached; /* of its weights: sent in this session, found in its cache */
    uint64_t rss_bytes;       /* of the node's process, as it said last; 0: unknown */
    double silent_sec;        /* since its last word */
    char layers[64];          /* "0-12, 20-25"; as many as fit */
    uint32_t n_stages;
    uint64_t n_works;         /* decode works of one token since the session began, of all its stages */
    double works_sec;         /* and what computing them took */
} dil_ring_node;
/* Writes up to cap and returns how many there are, in the order in which the ring first visits them. Any thread. */
size_t dil_ring_nodes(dil_runner *r, dil_ring_node *out, size_t cap);

typedef struct dil_ring_timing { /* smoothed over the last decode works */
    double round_sec;         /* from the coordinator to the coordinator */
    double compute_sec;       /* of that: the stages' own, throttle included; the rest is links and overhead */
    double least_overhead_sec; /* the least of round - compute so far; 0: none yet */
} dil_ring_timing;
void dil_ring_get_timing(dil_runner *r, dil_ring_timing *out);

#ifdef __cplusplus
}
#endif
#endif
