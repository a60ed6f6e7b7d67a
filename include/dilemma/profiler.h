/* dilemma/profiler.h - measures a model: what each layer costs on each node at each level, and how much each level damages it.
 *
 *   dil_profiler_opts o = dil_profiler_defaults();  o.model = "m.gguf";  o.cluster = cluster;  o.out = "profile.json";
 *   dil_profiler_report r;  dil_profiler_run(&o, NULL, &r, err);
 *
 * Writes out (docs/FORMATS.md) and beside it OUT.imatrix.gguf, the importance matrix that `quantize` needs for the same result. While
 * it works, OUT.part holds what has been measured; with `resume` a killed run goes on from there. */
#ifndef DILEMMA_PROFILER_H
#define DILEMMA_PROFILER_H

#include <dilemma/cluster.h>
#include <dilemma/dataset.h>
#include <dilemma/engine.h>
#include <dilemma/profile.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Seconds of one layer on one node, its throttle included. types as dil_engine_time_layer takes them. */
typedef dil_status dil_profiler_time_fn(void *ctx, const dil_cluster_node *node, const dil_arch *arch, uint32_t layer,
                                        const dil_type *types, uint32_t n_past, uint32_t n_batch, dil_layer_time *out, dil_err *err);

typedef struct dil_profiler_opts {
    const char *model;
    const dil_cluster *cluster;  /* borrowed */
    const char *data;            /* NULL: the embedded set */
    dil_data_format format;
    const char *out;
    bool resume;
    const char *method;          /* of the students that damage_kl shall be for ("rtn", "gptq", "layerwise"); NULL: rtn */
    bool full;                   /* measure the divergence of every level of every block, not of two of them */
    uint32_t calib_tokens;       /* for the importance matrix, at most */
    uint32_t n_ctx, n_chunks;    /* what damage is measured on: n_chunks chunks of n_ctx tokens */
    uint32_t context, sequences, batch, n_past; /* what times and KV bytes are for; context 0: 2048, or as many positions as the model has learned */
    int n_threads;               /* 0: all */
    bool passes;                 /* what passes of 2, 4, 8 and 16 tokens take as well: for plans with speculation */
    double time_limit_sec;       /* per measured kernel mix */
    dil_profiler_time_fn *time_layer; /* NULL: on this machine with the node's number of threads, stretched by its throttle */
    void *time_ctx;
} dil_profiler_opts;
dil_profiler_opts dil_profiler_defaults(void);

typedef struct dil_profiler_report {
    uint32_t n_levels, n_measured_kl, n_interpolated_kl;
    uint64_t tokens;             /* scored */
    double baseline_loss;
    double kl_to_loss;
    /* Whole models at one level each: the sum of the layers' figures beside the measured divergence. */
    uint32_t n_checks;
    struct { char level[32]; double predicted_kl, measured_kl, loss_increase; } check[4];
} dil_profiler_report;

/* Errors: DIL_EDATA (too little data, weights or activations that are not finite), DIL_ECANCELED (resume goes on), those of files and
 * of the timing function. Blocks: minutes for a small model. Memory: dil__chain_open's, about three times the model. */
dil_status dil_profiler_run(const dil_profiler_opts *opts, const dil_progress *progress, dil_profiler_report *report, dil_err *err);

/* A student's divergence from `teacher` on the tokens of `data` that the profile keeps apart, by the kernels that will run it: out->kl, kl_stderr
 * and tokens are filled, for dil_plan_correct. Errors: DIL_EDATA (the profile keeps nothing apart, or the data is shorter: not the profile's). */
dil_status dil_profiler_measure(const dil_profile *profile, const char *teacher, const char *student, const char *data, dil_data_format format,
                                int n_threads, const dil_progress *progress, dil_profile_student *out, dil_err *err);

#ifdef __cplusplus
}
#endif
#endif
