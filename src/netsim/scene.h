/* netsim/scene.h - one seed: a cluster, a plan, requests and faults drawn from it; the real coordinator and the real nodes on them; what must hold. */
#ifndef DIL_NETSIM_SCENE_H
#define DIL_NETSIM_SCENE_H

#include "netsim/toy.h"
#include "netsim/wire.h"

#include <dilemma/coordinator.h>
#include <dilemma/node.h>

enum { SCENE_NODES_MAX = 5, SCENE_BLOCKS_MAX = 6, SCENE_REQUESTS_MAX = 14, SCENE_FAULTS_MAX = 8, SCENE_CTX = 96 };

typedef struct scene_model { /* written once for all seeds */
    uint32_t n_blocks;
    dil_gguf *gguf;
    dil_arch arch;
} scene_model;

typedef struct scene_node {
    sim_host *host;
    char address[16], cache[200];
    uint32_t capacity; /* blocks that its memory holds */
    uint64_t memory_bytes;
    bool stopping, running;
    /* what is wrong with it at the moment */
    bool down, isolated, full, poorer;
    int64_t free_ns;   /* no fault of its own before that */
} scene_node;

typedef struct scene_request {
    int32_t prompt[SCENE_CTX], expect[SCENE_CTX];
    uint32_t n_prompt, max, n_expect, n_resumed, n_got;
    int32_t stop;
    bool stopped, canceled;
    dil_sampler_opts sampler;
    int64_t start_ns, cancel_ns;
    uint64_t id;
    bool submitted, ended;
} scene_request;

typedef enum fault_kind { /* of a node; of a pair (z, the coordinator, may be in it); of the coordinator */
    FAULT_CRASH, FAULT_POWER, FAULT_STOP, FAULT_PAUSE, FAULT_ISOLATE, FAULT_SLOW, FAULT_DISK, FAULT_BLOCK, FAULT_RESET, FAULT_STRETCH, FAULT_SLEEP, FAULT_KINDS
} fault_kind;

typedef struct scene_fault {
    fault_kind kind;
    uint32_t node;     /* index */
    sim_host *from, *to;
    bool one_way, lose_disk, rot, poorer, for_ever; /* rot: a chunk on the disk is not what it was */
    double factor;
    int64_t start_ns, end_ns;
} scene_fault;

typedef struct scene {
    uint64_t seed;
    const scene_model *model;
    char folder[160];
    sim_host *home; /* the coordinator's machine */
    scene_node node[SCENE_NODES_MAX];
    uint32_t n_nodes;
    dil_cluster cluster;
    dil_cluster_node cluster_node[SCENE_NODES_MAX + 1];
    dil_cluster_link link[(SCENE_NODES_MAX + 1) * (SCENE_NODES_MAX + 1)];
    dil_plan plan;
    dil_plan_layer layer[SCENE_BLOCKS_MAX + 2];
    dil_plan_stage stage[SCENE_BLOCKS_MAX + 2];
    dil_plan_costs costs;
    const char *cost_node[SCENE_NODES_MAX];
    double cost_sec[(SCENE_BLOCKS_MAX + 2) * SCENE_NODES_MAX];
    dil_ring_opts opts;
    int speculate;
    double pace; /* a layer takes so many times TOY_LAYER_SEC, on every machine */
    scene_request request[SCENE_REQUESTS_MAX];
    uint32_t n_requests;
    scene_fault fault[SCENE_FAULTS_MAX];
    uint32_t n_faults;
    int64_t healed_ns, close_early_ns;
    bool odd_faults, link_faults;   /* there was a full disk or less memory; a broken link */
    int64_t cannot_ns;              /* last moment at which the nodes could not hold the model; INT64_MAX: now */

    dil_runner *runner;
    bool closed;
    char failure[600]; /* "": none yet */
    bool was_ready;
    uint32_t n_recoveries, n_errors, n_done;
} scene;

void scene_draw(scene *s);         /* everything that the seed decides beforehand: scene_draw.c */
void scene_schedule_faults(scene *s); /* scene_fault.c */
void scene_remove(const char *path);  /* a file or folder, with all in it */
void scene_start_node(scene *s, scene_node *n);
bool scene_can_hold(const scene *s);
void scene_note(scene *s);         /* something became better or worse */
void scene_fail(scene *s, const char *fmt, ...) DIL_PRINTF(2, 3);
uint64_t scene_block_bytes(const scene *s);

/* Runs a seed. folder: an empty one, left for the caller to remove. False: s->failure says why. */
bool scene_run(scene *s, uint64_t seed, const scene_model *models, uint32_t n_models, const char *folder, bool trace);

#endif
