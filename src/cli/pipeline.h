/* cli/pipeline.h - the steps from nodes to a student model, as `up` and `demo` take them: probe, profile, plan, quantize. Each is
 * done once for the same inputs: dir/steps.json remembers (serve/steps.h). Each says what it did in one line. */
#ifndef DIL_CLI_PIPELINE_H
#define DIL_CLI_PIPELINE_H

#include "cli/target.h"
#include "serve/steps.h"

#include <dilemma/arch.h>
#include <dilemma/probe.h>
#include <dilemma/problem.h>
#include <dilemma/profiler.h>
#include <dilemma/quantize.h>

#define DIL_CLI_NODES_MAX 64
#define DIL_CLI_STEPS_MAX 16

typedef struct dil_cli_step {
    char name[32];
    double sec;
    bool kept;
} dil_cli_step;

typedef struct dil_cli_pipeline {
    const char *model, *dir;
    const char *data; dil_data_format format;   /* to profile on; NULL: embedded */
    const dil_keypair *key;                     /* the coordinator's; NULL: without encryption */
    const dil_cli_target *peers; uint32_t n_peers;
    const char *entry;                          /* a peer's name */
    uint32_t context, sequences, damage_tokens, imatrix_tokens;
    double time_limit_sec;                      /* a measured kernel */
    double probe_limit_sec;                     /* a link */
    int n_threads;
    const char *method;                         /* of quantizing: rtn, gptq, layerwise; NULL: layerwise where it fits */
    dil_plan_options plan_options;
    FILE *say;                                  /* one line a step; NULL: nothing */

    dil__steps *steps;
    char model_hash[2 * DIL_HASH_BYTES + 1];
    char cluster_path[4096], profile_path[4096], corrected_path[4096], first_plan_path[4096], imatrix_path[4096], plan_path[4096], student_path[4096];
    dil_cluster *cluster;
    dil_profile *profile;
    dil_plan *plan;
    double first_damage;                        /* what the plan predicted before a student of it was measured */
    dil_profile_student measured;               /* that student, on the text kept apart; method NULL: none was */
    dil_cli_step step[DIL_CLI_STEPS_MAX]; size_t n_steps;
} dil_cli_pipeline;

dil_status dil_cli_pipeline_open(dil_cli_pipeline *p, dil_err *err); /* the fields above `steps` are set */
void dil_cli_pipeline_close(dil_cli_pipeline *p);
/* In this order. */
dil_status dil_cli_pipeline_probe(dil_cli_pipeline *p, dil_err *err);
dil_status dil_cli_pipeline_profile(dil_cli_pipeline *p, dil_err *err);
dil_status dil_cli_pipeline_plan(dil_cli_pipeline *p, dil_err *err);
/* Makes the student, measures it on text kept apart and corrects the plan's prediction; where a quality budget is then broken, or left far
 * from used, plans and quantizes once more. */
dil_status dil_cli_pipeline_quantize(dil_cli_pipeline *p, dil_err *err);
/* How a model of so many parameters is quantized here. */
dil_status dil_cli_pipeline_method(const dil_cli_pipeline *p, double n_params, dil_quantize_method *out, dil_err *err);
/* For steps beyond these: notes the step and says its line ("NAME      text  (1.2 s)" or "(kept)"). */
void dil_cli_pipeline_note(dil_cli_pipeline *p, const char *name, bool kept, double sec, const char *fmt, ...) DIL_PRINTF(5, 6);
void dil_cli_pipeline_path(const dil_cli_pipeline *p, const char *file, char out[4096]);

#endif
