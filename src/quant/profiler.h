/* quant/profiler.h - what the parts of profiling share: damage (profile_damage.c), seconds (profile_time.c), the file (profile_write.c). */
#ifndef DIL_QUANT_PROFILER_H
#define DIL_QUANT_PROFILER_H

#include "quant/calib.h"
#include "quant/chain.h"
#include "quant/inputs.h"
#include "quant/journal.h"
#include "quant/levels.h"
#include "quant/variant.h"

#include <dilemma/profile.h>
#include <dilemma/profiler.h>

/* Layers of one kind have the same shapes and levels. */
enum { DIL__EMBEDDING, DIL__BLOCK, DIL__HEAD, DIL__KINDS };
enum { DIL__CHECKS = 3 };

typedef struct dil__kind {
    uint32_t layer;                          /* the first layer of this kind */
    dil_layer_tensor tensor[DIL_LAYER_TENSORS_MAX];
    size_t n_tensors;
    size_t role[DIL__LEVEL_ROLES], n_roles;  /* indices of the linear tensors */
    dil__level level[DIL__LEVELS_MAX];       /* type[r] is for role[r] */
    size_t n_levels;
    double *decode_sec, *prefill_sec;        /* [n_levels][n_nodes] */
    double *decode_sec_per_cached;           /* [n_nodes] */
    double *pass_sec;                        /* [n_levels][DIL_PROFILE_PASSES][n_nodes]; NULL: not asked for */
} dil__kind;

typedef struct dil__profiler {
    dil_profiler_opts opts; /* what was given, the context settled */
    const dil_profiler_opts *o; /* opts */
    const dil_progress *progress;
    dil_gguf *g;
    dil_arch arch;
    dil_weights weights;
    dil_tokenizer *tok;
    uint32_t n_layers;
    dil_hash hash;
    dil_ids ids;             /* n_chunks * n_ctx, damage is measured on them */
    uint64_t held_from, held_to; /* tokens of the data that no student is calibrated on; ids are the first of them */
    dil_ids calib;           /* importance is gathered on them, and what error feedback needs */
    bool feedback;           /* damage is measured with it */
    dil__inputs *inputs;     /* NULL: not needed yet */
    dil__imatrix *imatrix;
    char *imatrix_path;
    dil__journal *journal;
    dil__chain *chain;
    dil__kind kind[DIL__KINDS];
    double *kl, *weight;     /* [n_layers][DIL__LEVELS_MAX] */
    /* Whole models near one level each. */
    double check[DIL__CHECKS][3];      /* predicted and measured divergence, increase of the loss */
    char check_level[DIL__CHECKS][32];
    double check_bits[DIL__CHECKS];  /* a weight, over all linear tensors */
    dil__variant *check_weights[DIL__CHECKS]; /* [n_layers] made while the blocks were measured; empty: to be made */
    uint32_t n_checks;
    uint32_t n_measured, n_interpolated;
    double run;              /* divergence that rounding activations adds to a quantized model */
    double kl_to_loss;
} dil__profiler;

dil__kind *dil__profiler_kind(dil__profiler *p, uint32_t layer);
int dil__profiler_threads(const dil__profiler *p);
/* A tensor of the layer at a type, in v; nothing where it has that type. */
dil_status dil__profiler_recode(dil__profiler *p, uint32_t layer, const dil_layer_tensor *lt, dil_type type, dil__variant *v, dil_err *err);
/* All linear tensors of a layer at a level, in v. */
dil_status dil__profiler_level(dil__profiler *p, uint32_t layer, size_t level, dil__variant *v, dil_err *err);

dil_status dil__profiler_design(dil__profiler *p, dil_err *err);  /* levels of every kind */
dil_status dil__profiler_damage(dil__profiler *p, dil_err *err);  /* kl, weight, checks */
dil_status dil__profiler_run(dil__profiler *p, dil_err *err);     /* run, after damage */
dil_status dil__profiler_time(dil__profiler *p, dil_err *err);    /* seconds of every kind */
dil_status dil__profiler_write(dil__profiler *p, dil_err *err);

typedef struct dil__memory { uint64_t kv[DIL__KINDS] /* of one layer */, buffer[DIL__KINDS]; } dil__memory;

/* KV and buffer bytes of each kind of layer; opts: context, sequences, batch, cache type. */
dil_status dil__profile_memory(const dil_arch *arch, const dil_stage_opts *opts, dil__memory *m, dil_err *err);

#endif
