/* dilemma/simulate.h - a plan in a network that changes, under a virtual clock: what each way of planning again would have given.
 *
 *   dil_trace *t;  dil_trace_generate("drift", 7, cluster, &how, &t, err);          or dil_trace_read
 *   dil_sim_result *r;  dil_simulate(profile, cluster, t, &options, &r, err);  ...  dil_sim_result_free(r);  dil_trace_free(t);
 *
 * Nodes and directed links serve one thing at a time, first come first served: a prompt's chunks overlap over the stages, each decoded
 * token goes round the ring. At most the profile's `sequences` requests run, the others wait. Without waiting a request takes exactly
 * what dil_plan_predict says (of several chunks: where no node or link is visited twice). Not modelled: batching of several
 * requests' tokens on a node, and the solver's own time. docs/PLANNER.md, "Simulation". Threads: safe on distinct objects. */
#ifndef DILEMMA_SIMULATE_H
#define DILEMMA_SIMULATE_H

#include <dilemma/migrate.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DIL_TRACE_EVENTS_MAX 1000000

typedef enum dil_trace_kind { DIL_TRACE_REQUEST, DIL_TRACE_LINK, DIL_TRACE_LEAVE, DIL_TRACE_RETURN } dil_trace_kind;

typedef struct dil_trace_event {
    double at_sec;
    dil_trace_kind kind;
    uint32_t node, to;                    /* leave, return: node; link: from node to `to` */
    double latency_sec, bytes_per_sec;    /* link: from now on */
    uint32_t tokens_in, tokens_out;       /* request; both >= 1 */
} dil_trace_event;

typedef struct dil_trace {
    dil_trace_event *events;              /* [n_events] in order of time */
    uint32_t n_events;
    double duration_sec;                  /* no event is later */
    dil_arena *arena;
} dil_trace;

/* trace.json (docs/FORMATS.md); names of nodes are those of the cluster, links must be in it, the entry cannot leave. *out is owned.
 * Errors: DIL_EFORMAT names file, place and value; DIL_ELIMIT beyond DIL_TRACE_EVENTS_MAX. */
dil_status dil_trace_read(const char *path, const dil_cluster *cluster, dil_trace **out, dil_err *err);
dil_status dil_trace_parse(const char *what, const char *text, size_t len, const dil_cluster *cluster, dil_trace **out, dil_err *err);
dil_status dil_trace_write(const char *path, const dil_cluster *cluster, const dil_trace *t, dil_err *err);
void dil_trace_free(dil_trace *t);

typedef struct dil_trace_how {
    double duration_sec, rate;            /* requests a second, Poisson; > 0 */
    uint32_t tokens_in, tokens_out;
} dil_trace_how;

/* Kinds: "static" (requests alone), "drift" (each link's speed and latency walk, every 5 s, back to the measured ones in some minutes),
 * "congestion" (now and then a link is 4 to 20 times slower for 20 to 120 s), "churn" (nodes but the entry leave for 30 to 180 s),
 * "mixed" (all three). The same seed gives the same trace everywhere. DIL_EUSAGE: another kind, or numbers out of range. */
dil_status dil_trace_generate(const char *kind, uint64_t seed, const dil_cluster *cluster, const dil_trace_how *how, dil_trace **out, dil_err *err);

typedef enum dil_policy { DIL_POLICY_STATIC, DIL_POLICY_ALWAYS, DIL_POLICY_HORIZON } dil_policy;

typedef struct dil_sim_options {          /* dil_sim_options_default() fills it */
    dil_policy policy;
    dil_plan_options plan;                /* budgets, entry, solver, limit_sec of one planning; its tokens are what plans are made for */
    const dil_plan *first;                /* the plan at the start; NULL: made */
    dil_migrate_options migrate;          /* rate 0: that of the trace */
    double check_sec;                     /* how often a network that changed is planned for (10) */
    double detect_sec;                    /* until a node that left is noticed, and one that returned is used (2) */
    double late_sec;                      /* an answer that takes longer is a violation; 0: three times the first plan's delay */
} dil_sim_options;
dil_sim_options dil_sim_options_default(void);

typedef struct dil_sim_request {
    double arrive_sec, start_sec, first_token_sec, done_sec; /* NAN: did not happen */
    uint32_t tokens_in, tokens_out, replays;
} dil_sim_request;

typedef struct dil_sim_result {
    dil_sim_request *requests;            /* [n_requests] in order of arrival */
    uint32_t n_requests, n_answered, n_lost; /* lost: not answered ten durations after the start; answered + lost = requests */
    uint32_t n_late;                      /* violations: answered later than late_sec, or lost */
    double late_sec;
    double mean_sec, p50_sec, p90_sec, p99_sec, max_sec; /* delay from arrival to the last token, of those answered */
    uint32_t n_plannings, n_moves;
    double moved_bytes, move_sec;
    double outage_sec;                    /* up to the last event: the plan in force could not run, a node was gone */
    double *move_at_sec;                  /* [n_moves] */
    dil_arena *arena;
} dil_sim_result;

/* Errors: those of planning at the start. Later, a network without a plan is an outage, not an error. *out is owned. */
dil_status dil_simulate(const dil_profile *profile, const dil_cluster *cluster, const dil_trace *trace, const dil_sim_options *options,
                        dil_sim_result **out, dil_err *err);
void dil_sim_result_free(dil_sim_result *r);

/* A row for each request of each result; name [n] is the first column. */
dil_status dil_sim_write_csv(const char *path, const dil_sim_result *const *r, const char *const *name, uint32_t n, dil_err *err);
/* Delay against time of arrival, one series for each result. */
dil_status dil_sim_write_svg(const char *path, const char *title, const dil_sim_result *const *r, const char *const *name, uint32_t n, dil_err *err);

#ifdef __cplusplus
}
#endif
#endif
