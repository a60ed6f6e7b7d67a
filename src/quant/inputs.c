/* The stream goes through the layers in place. Keeping every layer's moments was rejected: 0.8 GB for 135 million parameters. */
#include "quant/inputs.h"

#include "quant/decoder.h"
#include "quant/gptq.h"
#include "quant/table_metric.h"

#include <stdlib.h>
#include <string.h>

enum { N_GROUPS = 4, HEAD = N_GROUPS, N_MOMENTS, TABLE_CHUNKS = 6 };
#define DAMP 0.01

static const struct { const char *role; size_t group; } group_of[] = {
    {"attn_q", 0}, {"attn_k", 0}, {"attn_v", 0}, {"attn_output", 1}, {"ffn_gate", 2}, {"ffn_up", 2}, {"ffn_down", 3}};

struct dil__inputs {
    const dil_arch *arch;
    const dil_weights *weights;
    dil__decoder *d;
    int n_threads;
    uint32_t n_ctx, n_chunks;
    int32_t *ids;
    float *stream;                 /* [n_chunks * n_ctx][n_embd] behind layer `at` */
    float *x, *y;                  /* [n_ctx][widest] */
    uint32_t at;
    uint32_t of;                   /* the layer that h and u are of; UINT32_MAX: none */
    dil__hessian h[N_MOMENTS];
    float *u[N_MOMENTS];           /* NULL: not made yet */
    float *table;                  /* a tied table's factor; NULL: not made yet */
    size_t cols[N_MOMENTS];
};

static void forget(dil__inputs *in)
{
    for (size_t g = 0; g < N_MOMENTS; g++) {
        dil__hessian_fini(&in->h[g]);
        free(in->u[g]);
        in->u[g] = NULL;
    }
    in->of = UINT32_MAX;
}

void dil__inputs_free(dil__inputs *in)
{
    if (!in) return;
    forget(in);
    free(in->table);
    free(in->ids);
    free(in->stream);
    free(in->x);
    free(in->y);
    free(in);
}

static void restart(dil__inputs *in)
{
    for (uint32_t c = 0; c < in->n_chunks; c++)
        dil__decoder_embed(in->d, in->ids + (size_t)c * in->n_ctx, in->n_ctx, in->stream + (size_t)c * in->n_ctx * in->arch->n_embd);
    in->at = 0;
}

dil_status dil__inputs_open(const dil_arch *arch, const dil_weights *weights, dil__decoder *decoder, int n_threads, const int32_t *ids, uint32_t n_ctx, uint32_t n_chunks,
                            dil__inputs **out, dil_err *err)
{
    dil__inputs *in = calloc(1, sizeof *in);
    if (!in) return dil_fail(err, DIL_EMEMORY, "out of memory");
    size_t q = (size_t)arch->n_head * arch->head_dim, tokens = (size_t)n_ctx * n_chunks;
    size_t cols[N_MOMENTS] = {arch->n_embd, q, arch->n_embd, arch->n_ff, arch->n_embd_word}, widest = 0;
    for (size_t g = 0; g < N_MOMENTS; g++) widest = cols[g] > widest ? cols[g] : widest;
    memcpy(in->cols, cols, sizeof cols);
    in->arch = arch, in->weights = weights, in->n_threads = n_threads, in->n_ctx = n_ctx, in->n_chunks = n_chunks, in->of = UINT32_MAX;
    in->ids = malloc(tokens * sizeof *in->ids);
    in->stream = malloc(tokens * arch->n_embd * sizeof *in->stream);
    in->x = malloc(n_ctx * widest * sizeof *in->x);
    in->y = malloc(n_ctx * widest * sizeof *in->y);
    in->d = decoder;
    if (!in->ids || !in->stream || !in->x || !in->y) {
        dil__inputs_free(in);
        return dil_fail(err, DIL_EMEMORY, "out of memory for the hidden states of %zu tokens", tokens);
    }
    memcpy(in->ids, ids, tokens * sizeof *in->ids);
    restart(in);
    *out = in;
    return DIL_OK;
}

/* One sequence through a block; the groups' inputs are added up where take says so. */
static dil_status pass(dil__inputs *in, uint32_t layer, uint32_t chunk, bool take, dil_err *err)
{
    static const dil__part part[N_GROUPS][2] = {{DIL__ATTN_IN, DIL__ATTN}, {DIL__ATTN, DIL__ATTN_OUT}, {DIL__FFN_IN, DIL__FFN}, {DIL__FFN, DIL__FFN_OUT}};
    float *stream = in->stream + (size_t)chunk * in->n_ctx * in->arch->n_embd, *x = in->x, *y = in->y;
    dil_status st = DIL_OK;
    for (size_t g = 0; g < N_GROUPS && st == DIL_OK; g++) {
        bool first = g % 2 == 0;
        if (first) dil__decoder_part(in->d, layer, part[g][0], NULL, stream, in->n_ctx, x);
        if (take) st = dil__hessian_add(&in->h[g], x, in->n_ctx, err);
        dil__decoder_part(in->d, layer, part[g][1], x, first ? NULL : stream, in->n_ctx, y);
        if (!first) memcpy(stream, y, (size_t)in->n_ctx * in->arch->n_embd * sizeof *y);
        float *t = x;
        x = y, y = t;
    }
    return st;
}

static dil_status through(dil__inputs *in, uint32_t layer, bool take, dil_err *err)
{
    dil_status st = DIL_OK;
    for (uint32_t c = 0; c < in->n_chunks && st == DIL_OK; c++) st = pass(in, layer, c, take, err);
    in->at = layer;
    return st;
}

static dil_status take_head(dil__inputs *in, dil_err *err)
{
    dil_status st = dil__hessian_init(&in->h[HEAD], (uint32_t)in->cols[HEAD], err);
    for (uint32_t c = 0; c < in->n_chunks && st == DIL_OK; c++) {
        dil__decoder_finish(in->d, in->stream + (size_t)c * in->n_ctx * in->arch->n_embd, in->n_ctx, in->x);
        st = dil__hessian_add(&in->h[HEAD], in->x, in->n_ctx, err);
    }
    return st;
}

/* Moments of a block, or of the head behind all of them. */
static dil_status go_to(dil__inputs *in, uint32_t layer, dil_err *err)
{
    bool head = layer > in->arch->n_blocks;
    uint32_t before = head ? in->arch->n_blocks : layer - 1;
    if (in->of == layer) return DIL_OK;
    forget(in);
    if (in->at > before) restart(in);
    dil_status st = DIL_OK;
    while (in->at < before && st == DIL_OK) st = through(in, in->at + 1, false, err);
    for (size_t g = 0; g < N_GROUPS && !head && st == DIL_OK; g++) st = dil__hessian_init(&in->h[g], (uint32_t)in->cols[g], err);
    if (st == DIL_OK) st = head ? take_head(in, err) : through(in, layer, true, err);
    if (st == DIL_OK) in->of = layer;
    return st;
}

static dil_status table_factor(dil__inputs *in, const float **u, dil_err *err)
{
    dil__table_metric_opts o = {in->arch, in->weights, in->ids, in->n_ctx, in->n_chunks < TABLE_CHUNKS ? in->n_chunks : TABLE_CHUNKS, in->n_threads};
    dil__hessian h = {0};
    dil_status st = in->table ? DIL_OK : dil__table_metric(&o, NULL, &h, err);
    if (st == DIL_OK && !in->table) st = dil__gptq_factor(&h, DAMP, &in->table, err);
    dil__hessian_fini(&h);
    if (st == DIL_OK) *u = in->table;
    return st;
}

dil_status dil__inputs_factor(dil__inputs *in, uint32_t layer, const char *role, const float **u, dil_err *err)
{
    uint32_t head = in->arch->n_blocks + 1;
    size_t g = N_MOMENTS;
    *u = NULL;
    if (layer == 0 || layer == head) {
        if (in->arch->tied_head && strcmp(role, "token_embd") == 0) return table_factor(in, u, err);
        if (strcmp(role, "output") == 0) g = HEAD;
    } else {
        for (size_t i = 0; i < sizeof group_of / sizeof group_of[0]; i++)
            if (strcmp(group_of[i].role, role) == 0) g = group_of[i].group;
    }
    if (g == N_MOMENTS) return DIL_OK;
    dil_status st = go_to(in, layer, err);
    if (st == DIL_OK && !in->u[g]) st = dil__gptq_factor(&in->h[g], DAMP, &in->u[g], err);
    if (st == DIL_OK) *u = in->u[g];
    return st;
}
