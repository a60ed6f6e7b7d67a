/* engine/internal.h - the parts of a stage: device, weights, KV cache, graphs. Seen by src/engine alone.
 *
 * A stage computes by two kinds of graphs: the body (embedding and blocks) and the head (final norm and logits). Graphs are
 * built once per shape and share one compute buffer; what changes from call to call (inputs, which cache slots, how many
 * cells) is written into tensors and views that exist already. */
#ifndef DIL_ENGINE_INTERNAL_H
#define DIL_ENGINE_INTERNAL_H

#include <dilemma/engine.h>
#include <ggml-alloc.h>
#include <ggml-backend.h>
#include <ggml-cpu.h>
#include <ggml.h>

#define DIL__SEQ_MAX 256u            /* sequences of a stage */
#define DIL__BATCH_MAX 8192u         /* tokens a call */
#define DIL__CTX_MAX (4u << 20)      /* cells a sequence */
#define DIL__THREADS_MAX 512         /* ggml's own limit */
#define DIL__GRAPHS_MAX 16u          /* shapes kept */
#define DIL__HEAD_ROWS 64u           /* rows of logits computed at once: bounds the head's buffer */
#define DIL__KV_STEP 64u             /* cells that an attention looks at: a multiple of this */
#define DIL__EXTRA_BUFTS 8u

/* --- device ---------------------------------------------------------------------------------------------------------- */

typedef struct dil__device {
    ggml_backend_dev_t dev;
    ggml_backend_t backend;
    ggml_backend_buffer_type_t buft;                      /* ordinary memory of the device */
    ggml_backend_buffer_type_t extra[DIL__EXTRA_BUFTS];   /* layouts with faster kernels, best first */
    size_t n_extra;
    bool is_cpu;
    int n_threads;
    struct ggml_threadpool *pool; /* CPU with more than one thread */
    uint8_t *work;                /* the CPU kernels' scratch, shared by all graphs */
    size_t work_size;
} dil__device;

/* What idle worker threads do: a stage of a pipeline waits for its neighbours most of the time, and spinning would take the
 * processor from whoever else is on the machine; a whole model has its next graph at once. */
typedef enum dil__start { DIL__DESCRIBE /* no threads, no streams: to measure sizes */, DIL__START_SLEEP, DIL__START_SPIN } dil__start;
dil_status dil__device_open(const char *name, int n_threads, dil__start start, dil__device *out, dil_err *err);
void dil__device_close(dil__device *d);
/* Makes the scratch large enough for the graph; of a device that was not started only its size is noted. */
dil_status dil__device_reserve(dil__device *d, struct ggml_cgraph *g, dil_err *err);
dil_status dil__device_compute(dil__device *d, struct ggml_cgraph *g, dil_err *err);
/* Bytes that can be allocated now, of a device or of this process (the smaller of system and control group). */
uint64_t dil__device_free_bytes(const dil__device *d);
/* Sends ggml's messages to our log; safe to call often. */
void dil__ggml_setup(void);

/* --- weights --------------------------------------------------------------------------------------------------------- */

typedef struct dil__linear { struct ggml_tensor *w, *b; } dil__linear; /* b may be NULL; also norms */

typedef struct dil__block {
    dil__linear attn_norm, q, k, v, qkv, q_norm, k_norm, o, attn_post_norm, ffn_norm, gate, up, down, ffn_post_norm;
} dil__block;

typedef struct dil__weights {
    struct ggml_context *ctx;       /* descriptions of the tensors */
    ggml_backend_buffer_t *buffer;  /* [n_buffers] */
    size_t n_buffers, cap_buffers;
    dil__block *block;              /* [n_blocks of the stage] */
    dil__linear embd, pos_embd, project_in, project_out, output_norm, output;
    struct ggml_tensor *rope_freqs, *rope_long, *rope_short;
    uint64_t device_bytes, mapped_bytes; /* copied onto the device; used where the source holds them */
} dil__weights;

typedef struct dil__layers {
    bool embd, head;
    uint32_t first_block, n_blocks; /* 0-based */
    bool last_block;                /* the model's last block is among them: only wanted rows leave it */
} dil__layers;
dil__layers dil__layers_of(const dil_arch *a, uint32_t first_layer, uint32_t last_layer);

/* With source NULL only shapes are described, linear weights as F16: to measure buffers. other_bytes: what the stage will
 * need besides; DIL_ELIMIT before anything is allocated when all of it is more than there is. */
dil_status dil__weights_load(const dil_arch *a, const dil__layers *l, const dil_weights *source, const dil__device *d,
                             bool no_repack, uint64_t other_bytes, const dil_progress *progress, dil__weights *out, dil_err *err);
void dil__weights_free(dil__weights *w);
/* Names the first tensor of the layers whose data holds NaN or infinity; false when there is none. */
bool dil__weights_find_nan(const dil_arch *a, const dil__layers *l, const dil_weights *source, char name[DIL_TENSOR_NAME_MAX]);

bool dil__all_finite(const float *x, size_t n); /* no NaN, no infinity */

/* --- KV cache -------------------------------------------------------------------------------------------------------- */

typedef struct dil__kv {
    struct ggml_context *ctx;
    ggml_backend_buffer_t buffer;
    struct ggml_tensor **k, **v; /* [n_blocks], each [head_dim * n_head_kv, n_cells * n_seq] */
    uint32_t n_blocks, n_seq, n_ctx, n_cells; /* n_cells >= n_ctx: cells of one sequence, with room for padding */
    uint32_t *len;               /* [n_seq] positions held */
    uint64_t bytes;
} dil__kv;

/* dry: describe, do not allocate. */
dil_status dil__kv_open(const dil_arch *a, const dil__layers *l, const dil_stage_opts *o, const dil__device *d, bool dry,
                        dil__kv *out, dil_err *err);
void dil__kv_close(dil__kv *kv);
/* Zeroes the cells of positions >= from of a sequence: what is in them is not a number. */
void dil__kv_wipe(dil__kv *kv, uint32_t seq, uint32_t from);

/* --- graphs ---------------------------------------------------------------------------------------------------------- */

/* Sequences first_seq .. first_seq+n_seq-1 with n_tok tokens each, at rows row .. row + n_seq*n_tok - 1 of the batch. */
typedef struct dil__group {
    uint32_t first_seq, n_seq, n_tok, row, n_kv;
} dil__group;

typedef struct dil__shape {
    bool head;                   /* a head graph: n_rows rows, nothing else */
    bool gather;                 /* the rows that leave the last block are picked by `want`; else all leave it, in order */
    uint32_t n_rows, n_want;     /* n_want: rows that leave the last block */
    uint32_t n_groups;
    uint32_t n_kv;               /* plain attention: cells (its intermediate shapes depend on them), else 0 */
    struct { uint32_t n_seq, n_tok; } group[DIL__SEQ_MAX];
} dil__shape;

typedef struct dil__kv_view {
    struct ggml_tensor *k, *v, *v_turned; /* v_turned: plain attention's transposed view, else NULL */
    uint32_t group;
} dil__kv_view;

typedef struct dil__tap {
    struct ggml_tensor *x;
    const char *name; /* the weight's */
} dil__tap;

typedef struct dil__graph {
    dil__shape shape;
    struct ggml_context *ctx;
    struct ggml_cgraph *g;
    struct ggml_tensor *tokens, *hidden, *pos, *cells, *want; /* inputs; NULL or without data where the graph needs none */
    struct ggml_tensor *mask[2][DIL__SEQ_MAX];                /* [n_groups] of all positions, and of the sliding window */
    struct ggml_tensor *result;
    dil__kv_view *view; /* [n_views] */
    dil__tap *tap;      /* [n_taps], in the order of computation */
    size_t n_views, n_taps;
    uint64_t used;
} dil__graph;

typedef struct dil__graphs {
    const dil_arch *arch;
    const dil__layers *layers;
    const dil__weights *weights;
    const dil__kv *kv;
    dil__device *device;
    bool no_flash;
    ggml_gallocr_t alloc;
    dil__graph *slot[DIL__GRAPHS_MAX];
    uint64_t clock;
} dil__graphs;

/* Describes the graph of a shape; nothing is allocated on the device. */
dil_status dil__graph_new(const dil__graphs *gs, const dil__shape *shape, dil__graph **out, dil_err *err);
void dil__graph_free(dil__graph *g);
/* Reserves the compute buffer for the largest shapes that the options allow; dry: only says how many bytes it would be. */
dil_status dil__graphs_reserve(dil__graphs *gs, uint32_t max_rows, bool dry, uint64_t *bytes, dil_err *err);
/* The graph of a shape, ready to compute; built when it was not yet. */
dil_status dil__graphs_get(dil__graphs *gs, const dil__shape *shape, dil__graph **out, dil_err *err);
void dil__graphs_fini(dil__graphs *gs);
/* Points the graph's cache views at the groups' slots and lengths. */
void dil__graph_aim(dil__graph *g, const dil__kv *kv, const dil__group *group);

/* Parts of the graph: one decoder block. x is [n_embd][rows]; the result has n_want rows in the model's last block. */
typedef struct dil__build {
    const dil__graphs *gs;
    dil__graph *graph;
    struct ggml_context *ctx;
} dil__build;
struct ggml_tensor *dil__build_linear(dil__build *b, struct ggml_tensor *x, const dil__linear *l);
struct ggml_tensor *dil__build_norm(dil__build *b, struct ggml_tensor *x, const dil__linear *n);
struct ggml_tensor *dil__build_block(dil__build *b, struct ggml_tensor *x, uint32_t block);
struct ggml_tensor *dil__build_attention(dil__build *b, struct ggml_tensor *x, uint32_t block);

#endif
