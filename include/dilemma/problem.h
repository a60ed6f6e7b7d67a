/* dilemma/problem.h - the planning problem, its solvers, and the evaluators that every plan passes before it is used.
 *
 * From measurements:  dil_plan_make(profile, cluster, &options, &plan, err)     does all of the following in one call
 * By hand:            dil_problem_from_profile(...) or dil_problem_read(...)
 *                     dil_plan_solve(problem, &solve_options, &solution, err)
 *                     dil_problem_check(problem, solution->node, solution->level, &use, err)
 *
 * A dil_problem is pure numbers: no model, no names. Minimise the seconds of a path over the layers that gives each a node and
 * a level, within storage, damage, file size and load. docs/PLANNER.md has the mathematics. Threads: everything here is safe on
 * distinct objects. */
#ifndef DILEMMA_PROBLEM_H
#define DILEMMA_PROBLEM_H

#include <dilemma/plan.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DIL_CELLS_MAX ((size_t)1 << 26) /* n_layers * n_nodes * n_levels */

typedef struct dil_hop { /* from one layer's node to the next layer's; staying on a node is free and not listed */
    uint32_t from, to;
    double sec;          /* between two layers */
    double head_sec;     /* before the last layer, which sees one token of a prompt where the others see all */
    double chunk_sec;    /* the link's part of a chunk's time; not before the last layer */
    double load;         /* share of the link's capacity that one crossing takes */
} dil_hop;

typedef struct dil_problem {
    uint32_t n_layers, n_nodes, n_levels; /* n_levels: the most that a layer has */
    uint32_t *level_count;    /* [L] of layer l the levels 0..level_count[l]-1 exist; the rest of each [Q] is not read */
    double *layer_bytes;      /* [L][Q] that its node stores (weights and KV), >= 0 */
    double *layer_sec;        /* [L][S][Q] seconds, >= 0 */
    double *damage;           /* [L][Q] >= 0 */
    double *store_bytes;      /* [S] >= 0 */
    double damage_max;        /* INFINITY: no budget */
    dil_hop *hops;            /* [n_hops] sorted by (from, to), from != to; a pair that is absent has no link */
    uint32_t n_hops;
    double *source_sec;       /* [S] to reach the first layer's node; INFINITY: cannot */
    double *sink_sec;         /* [S] from the last layer's node */

    /* A bare problem has none of what follows: NULL, 0, INFINITY. */
    double *file_bytes;       /* [L][Q] in the written file; NULL: as layer_bytes */
    double file_bytes_max;    /* INFINITY: no limit */
    double *buffer_bytes;     /* [L] scratch: a node needs the largest of its layers'; NULL: none */
    bool tied;                /* the last layer takes the first one's level; on one node shared_bytes are stored once */
    double *shared_bytes;     /* [Q] of the last layer's layer_bytes; NULL unless tied */
    double chunk_weight;      /* chunks of a prompt but the first: each costs the slowest node's or link's seconds a chunk */
    double *chunk_sec;        /* [L][S][Q] the layer's part of its node's seconds a chunk; NULL: none */
    double *load;             /* [L][S][Q] share of the node's time at the asked rate; NULL: none */
    double *out_load, *in_load; /* [S] share of the node's connection that one crossing takes; NULL: none */
    double head_share;        /* a crossing before the last layer is this share of another one's load */
    double load_max;          /* each node, link and connection; INFINITY: no limit */
    uint32_t *precision;      /* [L][Q] levels of different layers with the same number have the same types; NULL: the level's own */
    dil_arena *arena;         /* owns everything */
} dil_problem;

/* problem.json ("-": standard input); every number finite and not negative. *out is owned: dil_problem_free. */
dil_status dil_problem_read(const char *path, dil_problem **out, dil_err *err);
dil_status dil_problem_parse(const char *what, const char *text, size_t len, dil_problem **out, dil_err *err);
/* Writes a bare problem; DIL_EUNSUPPORTED for one that has more (export those as LP). */
dil_status dil_problem_write(const char *path, const dil_problem *p, dil_err *err);
/* What every solver requires of the numbers; reading and building have done it. */
dil_status dil_problem_validate(const dil_problem *p, dil_err *err);
void dil_problem_free(dil_problem *p);
const dil_hop *dil_problem_hop(const dil_problem *p, uint32_t from, uint32_t to); /* NULL: no link, or from == to */

/* --- from measurements ------------------------------------------------------------------------------------------------ */

typedef enum dil_objective { DIL_OBJECTIVE_DELAY, DIL_OBJECTIVE_THROUGHPUT } dil_objective;

typedef struct dil_plan_options { /* dil_plan_options_default() fills it */
    uint32_t tokens_in, tokens_out; /* of one request; both >= 1 */
    uint32_t context;           /* cached tokens that must fit; 0: the profile's. At least tokens_in + tokens_out */
    const char *entry;          /* node where requests arrive; NULL: the cluster's */
    const char *measure;        /* "kl" or "weight"; NULL: kl where it was measured, else weight */
    double max_damage;          /* budget in the measure's unit (--max-kl); INFINITY: none */
    double max_loss_increase;   /* share, 0.01: loss at most 1 % up; INFINITY: none; needs baseline and kl_to_loss in the profile */
    double max_ratio;           /* file size over four bytes a parameter; INFINITY: none */
    double slack;               /* without a quality budget: damage at most (1 + slack) times the least possible */
    double rate;                /* requests a second that must be sustained; 0: not asked */
    double load_max;            /* of every node and link at that rate, 0 < load_max <= 1 */
    uint32_t n_guesses;         /* every pass of decoding carries so many guessed tokens; 0: no speculation. At most DIL_PLAN_GUESSES_MAX */
    double acceptance;          /* chance that a guess is right when those before it are, 0 to 1; read with n_guesses > 0 */
    dil_objective objective;    /* throughput: most requests a second at load_max; of the plans within DIL_THROUGHPUT_SLACK of that the
                                   one of least delay. A rate must still be reached */
    const char *solver;         /* see dil_plan_solvers; NULL: "auto" */
    double limit_sec;           /* wall clock of the solver, > 0 */
    double gap;                 /* relative; a plan proved this close to the best is good enough. 0: 1e-3 */
    const char *export_path;    /* the problem whose plan is returned is written here first, as .lp or .mps; NULL: not */
    const dil_progress *progress; /* may be NULL */
} dil_plan_options;
#define DIL_THROUGHPUT_SLACK 0.05
dil_plan_options dil_plan_options_default(void);

/* The profile's nodes that are in the cluster become the problem's nodes, in the profile's order: node_of [n_nodes] (may be NULL)
 * receives their indices in the profile. Without a quality budget damage_max is INFINITY here: dil_plan_make solves twice.
 * Errors: DIL_EDATA a measure, baseline or calibration that the options need is not in the profile; DIL_ENOTFOUND an unknown entry;
 * DIL_EUSAGE options out of range. */
dil_status dil_problem_from_profile(const dil_profile *profile, const dil_cluster *cluster, const dil_plan_options *options,
                                    dil_problem **out, uint32_t *node_of, dil_err *err);

/* --- solving ---------------------------------------------------------------------------------------------------------- */

/* DIL_GOAL_LOAD: the busiest node, link or connection as little busy as can be; needs the problem's loads. */
typedef enum dil_goal { DIL_GOAL_SEC, DIL_GOAL_DAMAGE, DIL_GOAL_LOAD } dil_goal;

typedef struct dil_solve_options {
    const char *solver;       /* NULL: "auto" */
    dil_goal goal;
    double limit_sec;         /* > 0 */
    double gap;               /* relative; a plan this close to its bound counts as optimal. 0: 1e-4 */
    const uint32_t *start_node, *start_level; /* [L] a plan to start from, NULL: none; one that breaks a budget is ignored */
    const dil_progress *progress;
} dil_solve_options;

typedef struct dil_solution {
    uint32_t n_layers;
    uint32_t *node, *level;   /* [n_layers] */
    double objective;         /* seconds (damage with DIL_GOAL_DAMAGE, load_max with DIL_GOAL_LOAD), as dil_problem_check counts it */
    double bound;             /* <= objective: proved for every assignment within the budgets */
    double gap;               /* (objective - bound) / objective, 0 where both are 0 */
    bool optimal;             /* gap within what was asked; false: the time limit came first, or the solver proves nothing */
    double solve_sec, solve_cpu_sec; /* the clock's; and CPU of all threads of the process */
    dil_incumbent *incumbents; /* [n_incumbents] when the plans on the way were found, the last one at this objective */
    uint32_t n_incumbents;
    char solver[48];
    dil_arena *arena;
} dil_solution;

/* Names of the solvers, NULL-terminated: "auto", "path", "milp", "exhaustive", then the published rules "baseline:NAME"
 * (docs/PLANNER.md, "Baselines"). A baseline's plan is not improved, and its bound is the one that needs no solver; where the plan of
 * its rule breaks a budget, it is DIL_EINFEASIBLE and the text names the budget. */
const char *const *dil_plan_solvers(void);

/* dil_plan_solve - places every layer on a node and picks its level, at least delay (or damage) within the budgets.
 * The result has passed dil_problem_check. *out is owned: dil_solution_free.
 * Errors: DIL_EINFEASIBLE no assignment meets the budgets: the text says which is short and by how much;
 * DIL_ETIMEOUT limit_sec passed without a plan; DIL_ELIMIT the problem is too large for that solver; DIL_EUSAGE unknown solver;
 * DIL_ECANCELED; DIL_EINTERNAL a solver's plan failed the check (a bug of ours or of its). */
dil_status dil_plan_solve(const dil_problem *p, const dil_solve_options *o, dil_solution **out, dil_err *err);
void dil_solution_free(dil_solution *s);

typedef struct dil_use { /* what an assignment costs and takes, and the worst overrun of each budget (<= 0: met) */
    double sec, damage, file_bytes;
    double chunk_max_sec;     /* slowest node or link, a chunk */
    double load_max;          /* busiest node, link or connection */
    double over_store_bytes;  /* of the node that is shortest */
    uint32_t over_store_node;
    double over_damage, over_file_bytes, over_load;
    bool connected;           /* every hop has a link, source and sink are reachable */
} dil_use;

/* dil_problem_check - the referee: recomputes every term of an assignment from the problem alone; shares no code with the solvers.
 * Returns DIL_OK when all budgets are met (within 1e-9 of each), DIL_EINFEASIBLE naming the first that is not, DIL_EUSAGE for
 * indices out of range. use (may be NULL) is filled in the first two cases. */
dil_status dil_problem_check(const dil_problem *p, const uint32_t *node, const uint32_t *level, dil_use *use, dil_err *err);

/* Writes the MILP as the solver `milp` sees it; the ending of path says how: .lp or .mps. */
dil_status dil_problem_export(const char *path, const dil_problem *p, dil_goal goal, dil_err *err);

/* --- all in one ------------------------------------------------------------------------------------------------------- */

/* dil_plan_make - builds the problem, solves it (twice where there is no quality budget), has the plan checked against profile and
 * cluster from first principles, and returns it. *out is owned: dil_plan_free. Errors: those of the calls above. */
dil_status dil_plan_make(const dil_profile *profile, const dil_cluster *cluster, const dil_plan_options *options, dil_plan **out,
                         dil_err *err);

/* dil_plan_predict - recomputes every predicted figure, byte and budget of a plan from profile, cluster and options alone (nothing
 * of the problem or a solver is used): DIL_OK when all budgets are met and the plan's own figures agree within 1e-6,
 * DIL_EINFEASIBLE or DIL_EINTERNAL naming the first difference. `fill`: writes the figures into the plan instead of comparing. */
dil_status dil_plan_predict(const dil_profile *profile, const dil_cluster *cluster, const dil_plan_options *options, dil_plan *plan,
                            bool fill, dil_err *err);

/* --- solvers side by side ----------------------------------------------------------------------------------------------- */

typedef struct dil_compare_row {
    char solver[48];
    dil_status status;        /* DIL_OK; DIL_EINFEASIBLE and `why` where its plan breaks a budget or it has none; or what stopped it */
    bool has_plan;            /* the figures below are of a plan, be it within the budgets or not */
    double token_sec, prefill_sec, total_sec; /* of a bare problem only total_sec, the others NAN */
    double damage, ratio_to_fp32;             /* ratio NAN for a bare problem */
    double bound_sec;         /* proved by this solver for the best plan; 0: it proves nothing */
    double solve_sec;
    char why[256];
} dil_compare_row;

/* dil_plan_compare - the same problem through several solvers, each given options->limit_sec; rows [n] as names [n]. The damage budget
 * is the same for all: without one it comes from the exact solver once. Figures are the referee's, of plans that break a budget too.
 * Errors: those of building the problem and of its damage budget; what happens to a solver is in its row. DIL_ECANCELED ends it. */
dil_status dil_plan_compare(const dil_profile *profile, const dil_cluster *cluster, const dil_plan_options *options, const char *const *names,
                            uint32_t n, dil_compare_row *rows, dil_err *err);
dil_status dil_problem_compare(const dil_problem *p, const dil_solve_options *options, const char *const *names, uint32_t n,
                               dil_compare_row *rows, dil_err *err);

/* --- why this plan, and what else could be had -------------------------------------------------------------------------- */

typedef enum dil_reason { DIL_REASON_MEMORY, DIL_REASON_DAMAGE, DIL_REASON_SIZE, DIL_REASON_LOAD, DIL_REASON_LINKS, DIL_REASON_LEFT_OUT } dil_reason;

typedef struct dil_explanation {
    dil_reason reason;
    const char *node;         /* of memory, links and left out; else NULL. Borrowed from the cluster; NULL for a bare problem */
    uint32_t index;           /* the same in the problem's numbers; else DIL_NO_NODE */
    double used, limit;       /* of the budget, in its unit; NAN for links and left out */
    double more;              /* by how much it was widened for what follows; links: 2, twice as fast */
    double token_sec, total_sec; /* of the best plan then (left out: of the best way found to use the node; INFINITY: there is none) */
    double bound_sec;         /* no plan takes less total_sec then */
    bool proved;              /* total_sec is within the asked gap of bound_sec: the gain is exact, else it is at least this */
    bool binds;               /* the best plan then is faster than the given one */
    char text[400];           /* the same in words */
} dil_explanation;

#define DIL_EXPLAIN_NODES_MAX 16 /* nodes that are looked at: those of the plan first, then the others in the cluster's order */
#define DIL_EXPLANATIONS_MAX (3 + 3 * DIL_EXPLAIN_NODES_MAX)

/* dil_plan_explain - what binds: for each budget, each node's memory and each node's links the problem is solved again with it widened,
 * starting from the plan, so that the gain is one of a plan that exists. For a node that holds nothing: the least delay of moving one
 * run of the plan's layers there. Without a quality budget the damage allowed is the plan's own budget, (1 + slack) of the least.
 * out [DIL_EXPLANATIONS_MAX], *n of them; options->limit_sec is for all solves together. Errors: those of solving. */
dil_status dil_plan_explain(const dil_profile *profile, const dil_cluster *cluster, const dil_plan_options *options, const dil_plan *plan,
                            dil_explanation *out, uint32_t *n, dil_err *err);

/* The same for a problem and a plan of it that is within the budgets; of a bare one token_sec is NAN, and links twice as fast take half the
 * seconds of the node's hops, source and sink. options->solver, goal and start are not read. */
dil_status dil_problem_explain(const dil_problem *p, const dil_solve_options *options, const uint32_t *node, const uint32_t *level, dil_explanation *out, uint32_t *n,
                               dil_err *err);

typedef enum dil_front { DIL_FRONT_DAMAGE, DIL_FRONT_RATIO } dil_front;

typedef struct dil_front_point {
    double budget;            /* the damage or ratio allowed */
    double damage, ratio_to_fp32, token_sec, prefill_sec, total_sec;
    double bound_sec, gap;    /* proved at that budget */
    double solve_sec;
} dil_front_point;

/* dil_plan_front - delay against damage (or against the file's size, the damage as small as that size allows plus slack): n budgets from
 * the smallest with a plan to where it no longer matters. points [n], *found <= n in rising order of the budget; each is solved with
 * options->limit_sec. Errors: those of solving the first point; later ones that fail are left out. */
dil_status dil_plan_front(const dil_profile *profile, const dil_cluster *cluster, const dil_plan_options *options, dil_front over, uint32_t n,
                          dil_front_point *points, uint32_t *found, dil_err *err);
dil_status dil_front_write_csv(const char *path, const dil_front_point *points, uint32_t n, dil_err *err);
dil_status dil_front_write_svg(const char *path, dil_front over, const dil_front_point *points, uint32_t n, dil_err *err);

/* A picture of the layered graph: nodes as rows, layers as columns, coloured by bits, the path with its hops. */
dil_status dil_plan_svg(const char *path, const dil_plan *plan, const dil_profile *profile, const dil_cluster *cluster, dil_err *err);

#ifdef __cplusplus
}
#endif
#endif
