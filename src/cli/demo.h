/* cli/demo.h - the parts of `dilemma demo`: the stage (three machines on this one), the evaluation, the outcome. */
#ifndef DIL_CLI_DEMO_H
#define DIL_CLI_DEMO_H

#include "cli/pipeline.h"
#include "cli/procs.h"
#include "serve/report.h"

#include <dilemma/runner.h>
#include <dilemma/tokenizer.h>

#define DIL_DEMO_NODES 3
#define DIL_DEMO_QUESTIONS 6
#define DIL_DEMO_REPEATS 5

typedef struct dil_cli_demo_opts {
    const char *model, *dir, *report;
    double max_ratio;
    bool json;
    int n_threads;
} dil_cli_demo_opts;
dil_status dil_cli_demo_run(const dil_cli_demo_opts *o, dil_err *err);

/* --- the machines (demo_stage.c) ------------------------------------------------------------------------------------------- */

typedef struct dil_cli_stage {
    dil__lab *lab;           /* NULL: over loopback */
    dil_err why_no_lab;
    dil_cli_proc proc[DIL_DEMO_NODES];
    dil_cli_target peer[DIL_DEMO_NODES];
    uint64_t memory_bytes[DIL_DEMO_NODES], alone_bytes; /* what each offers; what the whole student takes on one machine */
    dil_keypair key;         /* the coordinator's */
} dil_cli_stage;
/* Starts lab and nodes and moves this process into the entry's namespace. Before any thread is started. */
dil_status dil_cli_stage_open(dil_cli_stage *s, const dil_cli_demo_opts *o, const dil_arch *arch, uint32_t context, dil_err *err);
void dil_cli_stage_close(dil_cli_stage *s);

/* --- text (demo_text.c) -------------------------------------------------------------------------------------------------------- */

typedef struct dil_cli_demo_text {
    dil_dataset data;
    char profile_path[4096], held_path[4096]; /* two thirds to profile on, the rest to judge with; both plain text */
    const dil_sample *ask[DIL_DEMO_QUESTIONS]; size_t n_ask;
} dil_cli_demo_text;
dil_status dil_cli_demo_text_open(dil_cli_demo_text *t, const char *dir, dil_err *err);
void dil_cli_demo_text_close(dil_cli_demo_text *t);

/* --- running (demo_ask.c) -------------------------------------------------------------------------------------------------------- */

typedef struct dil_cli_demo_speed {
    double token_sec, min_sec, max_sec, prefill_sec; /* medians over repeats, and the extremes of token_sec */
    uint32_t n_prompt, n_generated;
} dil_cli_demo_speed;
dil_status dil_cli_demo_time(dil_runner *r, const dil_tokenizer *tok, const char *text, uint32_t n_prompt, uint32_t n_out, dil_cli_demo_speed *out,
                             dil_err *err);
/* Greedy answers, one line each; answer [n] buffers. */
dil_status dil_cli_demo_ask(dil_runner *r, const dil_tokenizer *tok, const dil_cli_demo_text *t, dil_buf *answer, dil_err *err);

#endif
