/* engine/stage.h - what a stage is made of, and a pass: one trip of rows through its graphs. */
#ifndef DIL_ENGINE_STAGE_H
#define DIL_ENGINE_STAGE_H

#include "engine/batch.h"
#include "engine/internal.h"

/* Rows in the order of computation; padding rows belong to no token. */
typedef struct dil__pass {
    uint32_t n_rows, n_want, n_groups;
    int32_t *token_of;   /* [n_rows] index in the caller's batch, -1: padding */
    int32_t *pos;        /* [n_rows] position in its sequence */
    int64_t *cell;       /* [n_rows] cache row */
    int32_t *want_row;   /* [n_want] */
    uint32_t *want_rank; /* [n_want] which of the batch's wanted tokens it is */
    dil__group *group;   /* [n_groups] */
} dil__pass;

struct dil_stage {
    dil_arch arch;
    dil_stage_opts opts;
    dil__layers layers;
    dil_weights source;
    dil__device device;
    dil__weights weights;
    dil__kv kv;
    dil__graphs graphs;
    dil_stage_stats stats;
    dil__ordered order;
    dil__pass pass;
    int32_t *tokens;  /* [max_batch] */
    float *rows;      /* [max_batch][n_embd] into and out of the body */
    float *wanted;    /* [max_batch][n_embd] into the head, in the caller's order */
    float *logits;    /* [head rows][n_vocab] where the head's shape is padded; else NULL */
    uint16_t *mask;   /* [n_cells] one row, for devices whose memory we cannot write */
    dil_stage_tap_fn *tap;
    void *tap_ctx;
};

/* Computes the graph in pieces and shows the inputs of linear layers to the tap in between. */
dil_status dil__stage_compute_tapped(dil_stage *s, dil__graph *g, dil_err *err);

/* The batch as passes: calls run for each. */
typedef dil_status dil__pass_fn(dil_stage *s, const dil_batch *b, const float *hidden, float *out, dil_err *err);
dil_status dil__stage_each_pass(dil_stage *s, const dil_batch *b, const float *hidden, float *out, dil__pass_fn *run, dil_err *err);
dil_status dil__pass_init(dil__pass *p, uint32_t max_rows, uint32_t n_seq, dil_err *err);
void dil__pass_fini(dil__pass *p);

#endif
