/* dilemma/profile.h - profile.json: every layer's levels with bytes, seconds on each node, and the damage they do.
 *
 *   dil_profile *p;  dil_profile_read("profile.json", &p, err);  ...  dil_profile_free(p);
 *
 * To write one, fill a dil_profile of your own (arena NULL) and call dil_profile_write: it makes the checks that reading makes.
 * Layers are numbered as the planner does: 0 the embedding, 1..n_blocks the blocks, n_blocks+1 the final norm and head.
 * The format is docs/FORMATS.md. */
#ifndef DILEMMA_PROFILE_H
#define DILEMMA_PROFILE_H

#include <dilemma/cluster.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DIL_LAYERS_MAX 1024
#define DIL_LEVELS_MAX 64 /* a layer */
#define DIL_ROLES_MAX 32  /* linear tensors a layer */
#define DIL_STUDENTS_MAX 64
#define DIL_PROFILE_PASSES 4
static inline uint32_t dil_profile_pass_rows(uint32_t i) { return 2u << i; } /* 2, 4, 8, 16 */

typedef struct dil_level_type {
    const char *role; /* "attn_q", "ffn_down", "token_embd", "output" */
    const char *type; /* "IQ4_NL" */
} dil_level_type;

typedef struct dil_profile_level {
    const char *name;         /* unique in the layer */
    dil_level_type *types;    /* [n_types] one for each linear tensor */
    uint32_t n_types;
    uint64_t bytes;           /* of all the layer's tensors, norms and biases included; a tied head counts the table again */
    uint64_t shared_bytes;    /* of a tied head: of the table that it shares with the embedding (0: all of the embedding's bytes) */
    double bits;              /* a weight, over the linear tensors; NAN: not said */
    double damage_weight;     /* NAN: not measured */
    double damage_alone;      /* nats a token with this layer alone quantized (by alone_method); NAN: not measured */
    double damage_run;        /* its share of what the kernels' rounding of activations adds, nats a token, whatever the weights; NAN: not measured */
    double damage_kl;         /* its share of a whole student's divergence, nats a token, what plans add up; NAN: not measured */
    double *decode_sec;       /* [n_nodes] a token at n_past cached tokens */
    double *prefill_sec;      /* [n_nodes] a prompt token within a batch */
    double *pass_sec;         /* [DIL_PROFILE_PASSES][n_nodes] all of a pass of dil_profile_pass_rows(i) tokens, at n_past; NULL: not measured */
} dil_profile_level;

typedef struct dil_profile_layer {
    const char *name;         /* "embedding", "blk.0", "head" */
    uint64_t kv_bytes;        /* for the whole context and all sequences */
    uint64_t buffer_bytes;    /* scratch that the layer's graph needs; a node needs the largest of its layers' */
    double *decode_sec_per_cached; /* [n_nodes] seconds more for each cached token beyond n_past; NULL: none measured */
    dil_profile_level *levels; /* [n_levels] */
    uint32_t n_levels;
} dil_profile_layer;

/* A whole student that was made and measured: what the layers' sum is worth. */
typedef struct dil_profile_student {
    const char *method;       /* "rtn", "gptq", "layerwise": how it was quantized */
    double bits;              /* a weight, over all tensors */
    double alone, run;        /* the sums of its levels' damage_alone and damage_run; run 0 where floats were measured */
    double kl, kl_stderr;     /* measured on the text kept apart; stderr NAN: not known */
    uint64_t tokens;
} dil_profile_student;

typedef struct dil_profile {
    const char *model_path, *model_hash, *arch; /* hash: BLAKE2b-256 of the file in hex, "" when unknown */
    uint32_t n_blocks;
    uint64_t n_params;        /* tied once */
    bool tied_head;
    uint64_t hidden_bytes;    /* one token's hidden state on a link */
    uint32_t n_vocab;
    const char *data_path;    /* "" for the embedded data */
    uint64_t data_tokens;
    uint64_t held_from, held_to; /* tokens of the data kept apart: damage is measured there, no student is calibrated there; equal: not said */
    uint32_t context, sequences, batch, n_past; /* batch: the chunk of prefill */
    const char **nodes;       /* [n_nodes] names, the order of every [n_nodes] array */
    uint32_t n_nodes;
    dil_profile_layer *layers; /* [n_layers], n_layers = n_blocks + 2 */
    uint32_t n_layers;
    double baseline_loss;     /* NAN: not measured */
    uint64_t baseline_tokens;
    double kl_to_loss_slope;  /* loss increase = slope * KL; NAN: not calibrated */
    uint32_t kl_to_loss_points;
    const char *method;       /* the students that damage_kl is for; "" when not said */
    const char *alone_method; /* how layers were quantized for damage_alone; NULL, "": rtn */
    dil_profile_student *students; /* [n_students] in the order of measuring */
    uint32_t n_students;
    dil_arena *arena;         /* owns everything after reading; NULL in a profile that the caller filled */
} dil_profile;

/* Reads and checks ("-": standard input). *out is owned: dil_profile_free. Errors as dil_cluster_read. */
dil_status dil_profile_read(const char *path, dil_profile **out, dil_err *err);
dil_status dil_profile_parse(const char *what, const char *text, size_t len, dil_profile **out, dil_err *err);
/* Checks and writes, whole or not at all ("-": standard output). */
dil_status dil_profile_write(const char *path, const dil_profile *p, dil_err *err);
void dil_profile_free(dil_profile *p); /* only what read or parse made */

/* Seconds of a pass of `rows` tokens of one sequence (a token and guesses, at most 16) beyond those of a pass of one: between what was measured, else
 * every further row as a prompt token within a batch, the least that it can cost. */
double dil_profile_more_sec(const dil_profile_level *v, uint32_t n_nodes, uint32_t node, uint32_t rows);

/* Every damage_kl anew: damage_run and damage_alone times what whole students of `method` were measured to be worth near that level's bits. Students of
 * alone_method give the course over the bits (layers' damages add up less and less truly as bits fall); students of the method itself its height;
 * before there is one, a usual ratio. docs/PLANNER.md has more. Levels without damage_alone stay. */
void dil_profile_correct(dil_profile *p, const char *method);

#ifdef __cplusplus
}
#endif
#endif
