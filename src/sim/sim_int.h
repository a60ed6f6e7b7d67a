/* sim/sim_int.h - inside the simulator. engine.c: requests over a plan under the clock; world.c: the network, planning and moving. */
#ifndef DIL_SIM_INT_H
#define DIL_SIM_INT_H

#include <dilemma/simulate.h>

#define DIL__NONE UINT32_MAX

typedef enum dil__what { DIL__EV_TRACE, DIL__EV_READY, DIL__EV_DONE, DIL__EV_CHECK, DIL__EV_DETECT, DIL__EV_RESUME } dil__what;

typedef struct dil__event {
    double at_sec;
    uint64_t order;      /* of making: equal times stay in order */
    dil__what what;
    uint32_t arg, epoch; /* task, resource or trace event; READY, DONE and RESUME of an older epoch are void */
} dil__event;

typedef enum dil__task_kind { DIL__CHUNK, DIL__LAST_CHUNK, DIL__TOKEN } dil__task_kind;

/* On its way over the stages: place 2i is the hop into stage i, 2i + 1 its computing, 2n the hop back to the entry. */
typedef struct dil__task {
    uint32_t request, place, next;
    dil__task_kind kind;
    double tokens;       /* of a chunk */
} dil__task;

typedef struct dil__resource { /* nodes first, then links */
    bool busy;
    uint32_t serving, head, tail; /* tasks */
} dil__resource;

typedef enum dil__state { DIL__WAITING, DIL__RUNNING, DIL__ANSWERED } dil__state;

typedef struct dil__stage {
    uint32_t node, first, last;
} dil__stage;

typedef struct dil__sim {
    const dil_profile *prof;
    const dil_cluster *base;       /* as measured */
    const dil_trace *trace;
    const dil_sim_options *o;
    dil_sim_result *result;

    double now;
    dil__event *heap;
    size_t n_heap, cap_heap;
    uint64_t n_made;
    dil__task *task;
    uint32_t n_tasks, cap_tasks, free_task;
    dil__resource *resource;       /* [nodes + links] */
    uint32_t epoch;
    bool out_of_memory;

    dil__state *state;             /* [n_requests] */
    uint32_t *done;                /* [n_requests] tokens of the answer so far */
    uint32_t n_seen, first_waiting, n_running, next_trace; /* requests start in order of arrival */

    dil_cluster_link *link;        /* [n_links] as they are now */
    bool *up;                      /* [n_nodes] */
    bool changed, broken, moving;
    double broken_since, noticed_sec, rate; /* noticed_sec: when the last change of nodes is */
    dil_plan *plan;                /* owned */
    dil__stage *stage;             /* [n_stages] */
    const dil_profile_level **level; /* [n_layers] of the plan */
    uint64_t *held;                /* [n_nodes][n_layers] a bit for each level whose chunks the node has got */
    uint32_t *prof_node;           /* [n_nodes] index in the profile, DIL__NONE */
    dil_cluster_node *up_nodes;    /* scratch of the cluster that is planned for */
    dil_cluster_link *up_links;
    uint32_t *new_index;
} dil__sim;

/* engine.c */
void dil__sim_push(dil__sim *x, double at_sec, dil__what what, uint32_t arg);
void dil__sim_admit(dil__sim *x);      /* waiting requests start while there is room and the plan runs */
void dil__sim_interrupt(dil__sim *x);  /* all work in flight is void; running requests keep what they answered */
void dil__sim_restart(dil__sim *x);    /* running requests are replayed */
void dil__sim_arrive(dil__sim *x, uint32_t request);
void dil__sim_ready(dil__sim *x, uint32_t task);
void dil__sim_finish(dil__sim *x, uint32_t resource); /* what it serves is done */

/* world.c */
dil_status dil__sim_set_plan(dil__sim *x, dil_plan *plan, dil_err *err); /* takes the plan */
void dil__sim_network(dil__sim *x, const dil_trace_event *e);
dil_status dil__sim_check(dil__sim *x, dil_err *err);   /* plans when something changed */
dil_status dil__sim_detect(dil__sim *x, dil_err *err);  /* a change of nodes is noticed */
void dil__sim_resume(dil__sim *x);                      /* the weights have come */

#endif
