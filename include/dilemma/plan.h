/* dilemma/plan.h - plan.json: which node holds each layer, at which types, and what that is predicted to cost.
 *
 *   dil_plan *p;  dil_plan_read("plan.json", &p, err);  p->stages[i].node ...  dil_plan_free(p);
 *
 * The format is docs/FORMATS.md, the method docs/PLANNER.md; dilemma/problem.h makes and solves the problem. */
#ifndef DILEMMA_PLAN_H
#define DILEMMA_PLAN_H

#include <dilemma/profile.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct dil_plan_layer {
    const char *name;        /* "blk.0" */
    const char *node;        /* name in the cluster */
    const char *level;       /* name in the profile */
    dil_level_type *types;   /* [n_types] role -> ggml type; what `quantize` does */
    uint32_t n_types;
    uint64_t bytes;          /* in the file; a tied head's are those beyond the shared table */
} dil_plan_layer;

typedef struct dil_plan_stage { /* a maximal run of consecutive layers on one node, in order; a node may appear again */
    const char *node;
    uint32_t first_layer, last_layer;
    uint64_t bytes;          /* of weights on the node for this stage; a table shared with an earlier stage there is not repeated */
    double compute_sec;      /* a decoded token, in a pass without guesses */
    double hop_sec;          /* of one hidden state to the next stage; after the last: of the token to the entry */
} dil_plan_stage;

/* Seconds of every layer at its level on each node that could hold it: what planning again at the same levels needs. */
typedef struct dil_plan_costs {
    const char **nodes;      /* [n_nodes] */
    uint32_t n_nodes;
    uint32_t n_past, batch;  /* as in the profile: decode_sec at n_past cached tokens, prefill_sec within a batch */
    double *decode_sec;      /* [n_layers][n_nodes] a token */
    double *prefill_sec;     /* [n_layers][n_nodes] a prompt token */
    double *per_cached_sec;  /* [n_layers][n_nodes] seconds more for each cached token beyond n_past; NULL: none measured */
} dil_plan_costs;

typedef struct dil_incumbent { /* a plan on the solver's way, better than every one before it */
    double sec, cpu_sec;     /* since the solver began: wall clock, and CPU of all threads of the process */
    double objective;        /* in the solver's goal */
    double bound;            /* what was proved by then; 0: nothing */
} dil_incumbent;

#define DIL_INCUMBENTS_MAX 64 /* of more than these every second one is forgotten, never the first or the last */
#define DIL_PLAN_GUESSES_MAX 15 /* as many as a runner sends in one work */
#define DIL_PLAN_COSTS_MAX 1000000 /* n_layers * n_nodes; a larger plan is written without */

typedef struct dil_plan {
    const char *model_path, *model_hash; /* hash "" when unknown */
    const char *entry;       /* name of the node where requests arrive */
    uint32_t context, sequences, tokens_in, tokens_out;
    uint32_t n_guesses;      /* predicted for passes that carry so many guessed tokens each (speculation); 0: none */
    double acceptance;       /* chance that a guess is right when those before it are; 0 without guesses */
    double token_sec, prefill_sec, total_sec; /* predicted; total = prefill + (tokens_out - 1) * token */
    double bound_sec;        /* proved: no plan within the budgets has a smaller total_sec */
    double gap;              /* (total - bound) / total */
    const char *solver;
    double solve_sec;
    double requests_per_sec; /* that it sustains with no node, link or connection busier than options.load_max; 0: unknown */
    double requests_per_sec_bound; /* no plan within the budgets sustains more; 0: throughput was not the objective */
    double ratio_to_fp32;    /* bytes of all tensors (tied once) over four a parameter */
    double predicted_damage; /* sum over the layers, in the unit of damage_measure */
    const char *damage_measure; /* "kl" or "weight" */
    dil_plan_layer *layers;  /* [n_layers] */
    uint32_t n_layers;
    dil_plan_stage *stages;  /* [n_stages], cover all layers in order */
    uint32_t n_stages;
    dil_plan_costs *costs;   /* NULL: none */
    dil_incumbent *incumbents; /* [n_incumbents] total_sec on the way here; written, not read back */
    uint32_t n_incumbents;
    dil_arena *arena;        /* owns everything; NULL in a plan that the caller filled */
} dil_plan;

/* Reads and checks ("-": standard input): the stages are exactly what the layers say. *out is owned: dil_plan_free.
 * Errors: DIL_EFORMAT names file, place and value; DIL_ELIMIT beyond 256 MiB or the maxima in profile.h. */
dil_status dil_plan_read(const char *path, dil_plan **out, dil_err *err);
dil_status dil_plan_parse(const char *what, const char *text, size_t len, dil_plan **out, dil_err *err);
dil_status dil_plan_write(const char *path, const dil_plan *p, dil_err *err); /* checks, then writes whole or not at all */
void dil_plan_free(dil_plan *p);

/* Mean bits a weight of the layer's types, each tensor alike, for a plan does not say how large they are: a class for pictures. 0: unknown. */
double dil_plan_layer_bits(const dil_plan_layer *l);

/* Learns from a student that was made of the plan and measured: `measured` (method, kl, kl_stderr, tokens; the rest is found here) joins the profile's
 * students, and every damage_kl becomes what they say, so that the plan's own sum is what was measured. The profile comes from
 * dil_profile_read. Errors: DIL_EFORMAT (a plan from another profile), DIL_EDATA (a profile of an older version). */
dil_status dil_plan_correct(dil_profile *profile, const dil_plan *plan, const dil_profile_student *measured, dil_err *err);

#ifdef __cplusplus
}
#endif
#endif
