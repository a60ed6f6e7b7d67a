/* The decoder as a graph of ggml operations. Every family is the same code with other entries in dil_arch; nothing here asks
 * which family it is.
 *
 * Rows of a batch are ordered by group: sequences with consecutive slots and equally many tokens attend in one operation,
 * through views into the cache. Building writes shapes only; dil__graph_aim moves the views of a finished graph. */
#include "engine/internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define NODES_PER_BLOCK 64 /* the longest block has 45; attention of one more group adds GROUP_NODES */
#define GROUP_NODES 20
#define NODES_FIXED 64

/* --- small parts ----------------------------------------------------------------------------------------------------- */

static void note_tap(dil__build *b, struct ggml_tensor *x, const struct ggml_tensor *w)
{
    b->graph->tap[b->graph->n_taps++] = (dil__tap){x, ggml_get_name(w)};
}

struct ggml_tensor *dil__build_linear(dil__build *b, struct ggml_tensor *x, const dil__linear *l)
{
    note_tap(b, x, l->w);
    struct ggml_tensor *y = ggml_mul_mat(b->ctx, l->w, x);
    return l->b ? ggml_add(b->ctx, y, l->b) : y;
}

struct ggml_tensor *dil__build_norm(dil__build *b, struct ggml_tensor *x, const dil__linear *n)
{
    const dil_arch *a = b->gs->arch;
    x = a->norm == DIL_NORM_RMS ? ggml_rms_norm(b->ctx, x, a->norm_eps) : ggml_norm(b->ctx, x, a->norm_eps);
    x = ggml_mul(b->ctx, x, n->w);
    return n->b ? ggml_add(b->ctx, x, n->b) : x;
}

static struct ggml_tensor *input(dil__build *b, enum ggml_type type, int64_t n0, int64_t n1, const char *name)
{
    struct ggml_tensor *t = ggml_new_tensor_2d(b->ctx, type, n0, n1);
    ggml_set_input(t);
    ggml_set_name(t, name);
    return t;
}

/* --- attention ------------------------------------------------------------------------------------------------------- */

static struct ggml_tensor *rope(dil__build *b, struct ggml_tensor *x, uint32_t block)
{
    const dil_arch *a = b->gs->arch;
    const dil__weights *w = b->gs->weights;
    if (!dil_arch_has_rope(a, block)) return x;
    bool windowed = a->window_rope_base > 0 && dil_arch_is_windowed(a, block);
    float base = windowed ? a->window_rope_base : a->rope_freq_base, scale = windowed ? a->window_rope_scale : a->rope_scale;
    struct ggml_tensor *factors = !a->rope_long ? w->rope_freqs : b->gs->kv->n_ctx > a->rope_ctx ? w->rope_long : w->rope_short;
    int mode = a->positions == DIL_POS_ROPE_NEOX ? GGML_ROPE_TYPE_NEOX : GGML_ROPE_TYPE_NORMAL;
    return ggml_rope_ext(b->ctx, x, b->graph->pos, factors, (int)a->rope_dims, mode, 0, base, scale, 0, a->rope_gain > 0 ? a->rope_gain : 1, 0, 0);
}

/* Cells [0, n_kv) of n_seq consecutive sequences, as [head_dim][n_kv][n_head_kv][n_seq]; `cache` is what set_rows returned, so
 * that the view is computed after the write. */
static struct ggml_tensor *cache_view(dil__build *b, struct ggml_tensor *cache, uint32_t n_kv, uint32_t n_seq)
{
    const dil_arch *a = b->gs->arch;
    size_t head = ggml_row_size(cache->type, a->head_dim), row = cache->nb[1];
    return ggml_view_4d(b->ctx, cache, a->head_dim, n_kv, a->n_head_kv, n_seq, row, head, row * b->gs->kv->n_cells, 0);
}

static struct ggml_tensor *soft_cap(dil__build *b, struct ggml_tensor *x, float scale, float cap)
{
    return ggml_scale(b->ctx, ggml_tanh(b->ctx, ggml_scale(b->ctx, x, scale / cap)), cap);
}

static struct ggml_tensor *plain_attention(dil__build *b, struct ggml_tensor *q, struct ggml_tensor *k, struct ggml_tensor *v,
                                           struct ggml_tensor *mask, float scale)
{
    float cap = b->gs->arch->attn_softcap;
    struct ggml_tensor *turned = ggml_transpose(b->ctx, v);
    b->graph->view[b->graph->n_views - 1].v_turned = turned;
    struct ggml_tensor *kq = ggml_mul_mat(b->ctx, k, q);
    ggml_prec_set_acc(kq, GGML_PREC_F32);
    if (cap > 0) kq = soft_cap(b, kq, scale, cap);
    kq = ggml_soft_max_ext(b->ctx, kq, mask, cap > 0 ? 1 : scale, 0);
    struct ggml_tensor *vt = ggml_cont(b->ctx, turned);
    struct ggml_tensor *y = ggml_mul_mat(b->ctx, vt, kq); /* [head_dim][n_tok][n_head][n_seq] */
    return ggml_cont(b->ctx, ggml_permute(b->ctx, y, 0, 2, 1, 3));
}

/* The rows of one group attend; [head_dim][n_head][n_tok][n_seq]. */
static struct ggml_tensor *attend(dil__build *b, uint32_t g, struct ggml_tensor *q, struct ggml_tensor *k, struct ggml_tensor *v,
                                  size_t row, bool windowed)
{
    const dil_arch *a = b->gs->arch;
    dil__graph *gr = b->graph;
    uint32_t n_seq = gr->shape.group[g].n_seq, n_tok = gr->shape.group[g].n_tok;
    uint32_t n_kv = gr->shape.n_kv ? gr->shape.n_kv : b->gs->kv->n_cells;
    struct ggml_tensor *kg = cache_view(b, k, n_kv, n_seq), *vg = cache_view(b, v, n_kv, n_seq), *mask = gr->mask[windowed][g];
    gr->view[gr->n_views++] = (dil__kv_view){.k = kg, .v = vg, .group = g};
    struct ggml_tensor *qg = ggml_view_4d(b->ctx, q, a->head_dim, n_tok, a->n_head, n_seq, q->nb[2], q->nb[1], q->nb[2] * n_tok,
                                          q->nb[2] * row);
    float scale = a->attn_scale > 0 ? a->attn_scale : 1.0f / sqrtf((float)a->head_dim);
    if (b->gs->no_flash) return plain_attention(b, qg, kg, vg, mask, scale);
    struct ggml_tensor *y = ggml_flash_attn_ext(b->ctx, qg, kg, vg, mask, scale, 0, a->attn_softcap);
    ggml_prec_set_acc(y, GGML_PREC_F32);
    return y;
}

typedef struct qkv { struct ggml_tensor *q, *k, *v; } qkv; /* [head_dim][heads][rows]; v flat */

static struct ggml_tensor *part_of(dil__build *b, struct ggml_tensor *all, int64_t from, int64_t n)
{
    return ggml_cont(b->ctx, ggml_view_2d(b->ctx, all, n, all->ne[1], all->nb[1], (size_t)from * all->nb[0]));
}

static qkv project(dil__build *b, struct ggml_tensor *x, const dil__block *w)
{
    const dil_arch *a = b->gs->arch;
    int64_t n = x->ne[1], n_q = (int64_t)a->n_head * a->head_dim, n_kv = (int64_t)a->n_head_kv * a->head_dim;
    qkv p;
    if (a->fused_qkv) {
        struct ggml_tensor *all = dil__build_linear(b, x, &w->qkv);
        p = (qkv){part_of(b, all, 0, n_q), part_of(b, all, n_q, n_kv), part_of(b, all, n_q + n_kv, n_kv)};
    } else {
        p.q = dil__build_linear(b, x, &w->q);
        p.k = dil__build_linear(b, x, &w->k);
        p.v = dil__build_linear(b, x, &w->v);
    }
    p.q = ggml_reshape_3d(b->ctx, p.q, a->head_dim, a->n_head, n);
    p.k = ggml_reshape_3d(b->ctx, p.k, a->head_dim, a->n_head_kv, n);
    if (!a->qk_norm) return p;
    p.q = dil__build_norm(b, p.q, &w->q_norm);
    p.k = dil__build_norm(b, p.k, &w->k_norm);
    return p;
}

struct ggml_tensor *dil__build_attention(dil__build *b, struct ggml_tensor *x, uint32_t block)
{
    const dil_arch *a = b->gs->arch;
    const dil__kv *kv = b->gs->kv;
    dil__graph *gr = b->graph;
    int64_t n = gr->shape.n_rows, width = (int64_t)a->n_head * a->head_dim;
    uint32_t of_model = b->gs->layers->first_block + block;
    qkv p = project(b, x, &b->gs->weights->block[block]);
    struct ggml_tensor *q = rope(b, p.q, of_model);
    struct ggml_tensor *k = ggml_reshape_2d(b->ctx, rope(b, p.k, of_model), (int64_t)a->head_dim * a->n_head_kv, n);
    ggml_build_forward_expand(gr->g, q);
    struct ggml_tensor *kc = ggml_set_rows(b->ctx, kv->k[block], k, gr->cells);
    struct ggml_tensor *vc = ggml_set_rows(b->ctx, kv->v[block], p.v, gr->cells);
    ggml_build_forward_expand(gr->g, kc);
    ggml_build_forward_expand(gr->g, vc);
    if (gr->shape.n_want == 0 && b->gs->layers->last_block && block + 1 == b->gs->layers->n_blocks) return NULL;
    struct ggml_tensor *all = ggml_reshape_2d(b->ctx, q, width, n);
    size_t row = 0;
    for (uint32_t g = 0; g < gr->shape.n_groups; g++) {
        int64_t rows = (int64_t)gr->shape.group[g].n_seq * gr->shape.group[g].n_tok;
        struct ggml_tensor *y = ggml_reshape_2d(b->ctx, attend(b, g, q, kc, vc, row, dil_arch_is_windowed(a, of_model)), width, rows);
        if (gr->shape.n_groups == 1) return y;
        all = ggml_set_2d_inplace(b->ctx, all, y, all->nb[1], row * all->nb[1]); /* the group's queries are no longer needed */
        row += (size_t)rows;
    }
    return all;
}

/* --- block ----------------------------------------------------------------------------------------------------------- */

static const enum ggml_glu_op gated_op[] = {[DIL_ACT_SILU] = GGML_GLU_OP_SWIGLU, [DIL_ACT_RELU] = GGML_GLU_OP_REGLU,
                                            [DIL_ACT_GELU] = GGML_GLU_OP_GEGLU_ERF, [DIL_ACT_GELU_TANH] = GGML_GLU_OP_GEGLU};
static const enum ggml_unary_op plain_op[] = {[DIL_ACT_SILU] = GGML_UNARY_OP_SILU, [DIL_ACT_RELU] = GGML_UNARY_OP_RELU,
                                              [DIL_ACT_GELU] = GGML_UNARY_OP_GELU_ERF, [DIL_ACT_GELU_TANH] = GGML_UNARY_OP_GELU};

/* ggml's own looks the function up in a table of halves; the reference arithmetic computes it: x sigmoid(2 sqrt(2/pi) (x + 0.044715 x^3)). */
static struct ggml_tensor *exact_gelu(dil__build *b, struct ggml_tensor *up, struct ggml_tensor *gate)
{
    const float c = 1.5957691216057308f;
    struct ggml_tensor *x = gate ? gate : up, *t = ggml_scale_bias(b->ctx, ggml_sqr(b->ctx, x), 0.044715f * c, c);
    struct ggml_tensor *y = ggml_mul(b->ctx, x, ggml_sigmoid(b->ctx, ggml_mul(b->ctx, x, t)));
    return gate ? ggml_mul(b->ctx, y, up) : y;
}

static struct ggml_tensor *feed_forward(dil__build *b, struct ggml_tensor *x, const dil__block *w)
{
    const dil_arch *a = b->gs->arch;
    struct ggml_tensor *up = dil__build_linear(b, x, &w->up), *y;
    if (a->fused_gate_up) y = ggml_glu(b->ctx, up, gated_op[a->act], false);
    else if (b->gs->no_flash && a->act == DIL_ACT_GELU_TANH) y = exact_gelu(b, up, a->gated_ffn ? dil__build_linear(b, x, &w->gate) : NULL);
    else if (a->gated_ffn) y = ggml_glu_split(b->ctx, dil__build_linear(b, x, &w->gate), up, gated_op[a->act]);
    else y = ggml_unary(b->ctx, up, plain_op[a->act]);
    return dil__build_linear(b, y, &w->down);
}

struct ggml_tensor *dil__build_block(dil__build *b, struct ggml_tensor *x, uint32_t block)
{
    bool before = b->gs->arch->norm_before, post = b->gs->arch->post_norms;
    const dil__block *w = &b->gs->weights->block[block];
    struct ggml_tensor *y = dil__build_attention(b, before ? dil__build_norm(b, x, &w->attn_norm) : x, block);
    if (!y) return NULL;
    if (b->graph->want && block + 1 == b->gs->layers->n_blocks) { /* what nobody asks for ends here */
        y = ggml_get_rows(b->ctx, y, b->graph->want);
        x = ggml_get_rows(b->ctx, x, b->graph->want);
    }
    y = dil__build_linear(b, y, &w->o);
    x = ggml_add(b->ctx, post ? dil__build_norm(b, y, &w->attn_post_norm) : y, x);
    if (!before) x = dil__build_norm(b, x, &w->attn_norm);
    y = feed_forward(b, before ? dil__build_norm(b, x, &w->ffn_norm) : x, w);
    x = ggml_add(b->ctx, post ? dil__build_norm(b, y, &w->ffn_post_norm) : y, x);
    return before ? x : dil__build_norm(b, x, &w->ffn_norm);
}

/* --- whole graphs ---------------------------------------------------------------------------------------------------- */

static struct ggml_tensor *embedding(dil__build *b)
{
    const dil__weights *w = b->gs->weights;
    dil__graph *gr = b->graph;
    gr->tokens = input(b, GGML_TYPE_I32, gr->shape.n_rows, 1, "tokens");
    struct ggml_tensor *x = ggml_get_rows(b->ctx, w->embd.w, gr->tokens);
    if (b->gs->arch->embd_scale > 0) x = ggml_scale(b->ctx, x, b->gs->arch->embd_scale);
    if (w->project_in.w) x = dil__build_linear(b, x, &w->project_in);
    if (w->pos_embd.w) x = ggml_add(b->ctx, x, ggml_get_rows(b->ctx, w->pos_embd.w, gr->pos));
    return x;
}

static void make_inputs(dil__build *b)
{
    dil__graph *gr = b->graph;
    const dil__shape *s = &gr->shape;
    gr->pos = input(b, GGML_TYPE_I32, s->n_rows, 1, "positions");
    gr->cells = input(b, GGML_TYPE_I64, s->n_rows, 1, "cells");
    if (s->gather && s->n_want > 0) gr->want = input(b, GGML_TYPE_I32, s->n_want, 1, "wanted");
    for (uint32_t i = 0; i < 2 * s->n_groups && b->gs->layers->n_blocks > 0; i++) {
        uint32_t g = i / 2;
        if (i % 2 == 1 && b->gs->arch->window == 0) continue;
        int64_t n_kv = s->n_kv ? s->n_kv : b->gs->kv->n_cells;
        struct ggml_tensor *m = ggml_new_tensor_4d(b->ctx, GGML_TYPE_F16, n_kv, s->group[g].n_tok, 1, s->group[g].n_seq);
        ggml_set_input(m);
        ggml_set_name(m, i % 2 ? "mask of the window" : "mask");
        gr->mask[i % 2][g] = m;
    }
}

static struct ggml_tensor *body(dil__build *b)
{
    dil__graph *gr = b->graph;
    const dil__layers *l = b->gs->layers;
    make_inputs(b);
    struct ggml_tensor *x;
    if (l->embd) x = embedding(b);
    else x = gr->hidden = input(b, GGML_TYPE_F32, b->gs->arch->n_embd, gr->shape.n_rows, "hidden");
    for (uint32_t i = 0; x && i < l->n_blocks; i++) x = dil__build_block(b, x, i);
    return x;
}

static struct ggml_tensor *head(dil__build *b)
{
    const dil__weights *w = b->gs->weights;
    struct ggml_tensor *x = b->graph->hidden = input(b, GGML_TYPE_F32, b->gs->arch->n_embd, b->graph->shape.n_rows, "hidden");
    if (w->output_norm.w) x = dil__build_norm(b, x, &w->output_norm);
    if (w->project_out.w) x = dil__build_linear(b, x, &w->project_out);
    x = dil__build_linear(b, x, &w->output);
    float cap = b->gs->arch->final_softcap;
    return cap > 0 ? soft_cap(b, x, 1, cap) : x;
}

static size_t count_nodes(const dil__graphs *gs, const dil__shape *s)
{
    size_t n = NODES_FIXED + 2 * (size_t)s->n_groups;
    if (!s->head) n += (size_t)gs->layers->n_blocks * (NODES_PER_BLOCK + (size_t)s->n_groups * GROUP_NODES);
    return n;
}

dil_status dil__graph_new(const dil__graphs *gs, const dil__shape *shape, dil__graph **out, dil_err *err)
{
    size_t nodes = count_nodes(gs, shape), blocks = gs->layers->n_blocks;
    dil__graph *g = calloc(1, sizeof *g);
    if (!g) return dil_fail(err, DIL_EMEMORY, "engine: no memory for a graph");
    g->shape = *shape;
    struct ggml_init_params p = {.mem_size = nodes * ggml_tensor_overhead() + ggml_graph_overhead_custom(nodes, false), .no_alloc = true};
    g->ctx = ggml_init(p);
    g->view = calloc(blocks * shape->n_groups + 1, sizeof *g->view);
    g->tap = calloc(blocks * 8 + 8, sizeof *g->tap);
    if (!g->ctx || !g->view || !g->tap) {
        dil__graph_free(g);
        return dil_fail(err, DIL_EMEMORY, "engine: no memory for a graph of %zu nodes", nodes);
    }
    g->g = ggml_new_graph_custom(g->ctx, nodes, false);
    dil__build b = {.gs = gs, .graph = g, .ctx = g->ctx};
    g->result = shape->head ? head(&b) : body(&b);
    if (g->result) {
        ggml_set_output(g->result);
        ggml_build_forward_expand(g->g, g->result);
    }
    *out = g;
    return DIL_OK;
}

void dil__graph_free(dil__graph *g)
{
    if (!g) return;
    if (g->ctx) ggml_free(g->ctx);
    free(g->view);
    free(g->tap);
    free(g);
}

/* --- the set of graphs ----------------------------------------------------------------------------------------------- */

static bool same_shape(const dil__shape *a, const dil__shape *b)
{
    return a->head == b->head && a->gather == b->gather && a->n_rows == b->n_rows && a->n_want == b->n_want && a->n_groups == b->n_groups && a->n_kv == b->n_kv &&
           memcmp(a->group, b->group, a->n_groups * sizeof a->group[0]) == 0;
}

static void drop_all(dil__graphs *gs)
{
    for (uint32_t i = 0; i < DIL__GRAPHS_MAX; i++) {
        dil__graph_free(gs->slot[i]);
        gs->slot[i] = NULL;
    }
}

void dil__graphs_fini(dil__graphs *gs)
{
    drop_all(gs);
    if (gs->alloc) ggml_gallocr_free(gs->alloc);
    gs->alloc = NULL;
}

static dil_status reserve_shape(dil__graphs *gs, const dil__shape *s, bool dry, uint64_t *bytes, dil_err *err)
{
    dil__graph *g;
    dil_status status = dil__graph_new(gs, s, &g, err);
    if (status) return status;
    if (ggml_graph_n_nodes(g->g) > 0) {
        size_t size = 0;
        if (dry) ggml_gallocr_reserve_n_size(gs->alloc, g->g, NULL, NULL, &size);
        else if (!ggml_gallocr_reserve(gs->alloc, g->g)) status = dil_fail(err, DIL_EMEMORY, "engine: no memory for the compute buffer of a batch of %u", s->n_rows);
        else size = ggml_gallocr_get_buffer_size(gs->alloc, 0);
        if (!status) status = dil__device_reserve(gs->device, g->g, err);
        if (size > *bytes) *bytes = size;
    }
    dil__graph_free(g);
    return status;
}

dil_status dil__graphs_reserve(dil__graphs *gs, uint32_t max_rows, bool dry, uint64_t *bytes, dil_err *err)
{
    if (!gs->alloc) gs->alloc = ggml_gallocr_new(gs->device->buft);
    if (!gs->alloc) return dil_fail(err, DIL_EMEMORY, "engine: no memory for an allocator");
    dil__shape body = {.n_rows = max_rows, .n_want = max_rows, .gather = gs->layers->last_block, .n_groups = 1, .group = {{1, max_rows}}};
    if (gs->no_flash) body.n_kv = gs->kv->n_cells;
    dil_status s = DIL_OK;
    *bytes = 0;
    if (gs->layers->embd || gs->layers->n_blocks > 0) s = reserve_shape(gs, &body, dry, bytes, err);
    dil__shape head_shape = {.head = true, .n_rows = max_rows < DIL__HEAD_ROWS ? max_rows : DIL__HEAD_ROWS};
    if (!s && gs->layers->head) s = reserve_shape(gs, &head_shape, dry, bytes, err);
    return s;
}

static uint32_t find_slot(dil__graphs *gs, const dil__shape *s)
{
    uint32_t oldest = 0;
    for (uint32_t i = 0; i < DIL__GRAPHS_MAX; i++) {
        if (gs->slot[i] && same_shape(&gs->slot[i]->shape, s)) return i;
        if (!gs->slot[i]) oldest = i;
        else if (gs->slot[oldest] && gs->slot[i]->used < gs->slot[oldest]->used) oldest = i;
    }
    return oldest;
}

dil_status dil__graphs_get(dil__graphs *gs, const dil__shape *shape, dil__graph **out, dil_err *err)
{
    uint32_t i = find_slot(gs, shape);
    dil__graph *g = gs->slot[i];
    if (!g || !same_shape(&g->shape, shape)) {
        dil_status s = dil__graph_new(gs, shape, &g, err);
        if (s) return s;
        size_t before = ggml_gallocr_get_buffer_size(gs->alloc, 0);
        bool ok = ggml_gallocr_alloc_graph(gs->alloc, g->g);
        /* A larger buffer is another buffer: what was placed in the old one is gone. */
        if (!ok || ggml_gallocr_get_buffer_size(gs->alloc, 0) != before) drop_all(gs);
        s = ok ? dil__device_reserve(gs->device, g->g, err)
               : dil_fail(err, DIL_EMEMORY, "engine: no memory for the compute buffer of a batch of %u", shape->n_rows);
        if (s) {
            dil__graph_free(g);
            return s;
        }
        dil__graph_free(gs->slot[i]);
        gs->slot[i] = g;
    }
    g->used = ++gs->clock;
    *out = g;
    return DIL_OK;
}

static void aim_view(struct ggml_tensor *t, size_t offset)
{
    t->view_offs = offset;
    t->data = (char *)t->view_src->data + offset;
}

void dil__graph_aim(dil__graph *g, const dil__kv *kv, const dil__group *group)
{
    for (size_t i = 0; i < g->n_views; i++) {
        const dil__kv_view *v = &g->view[i];
        const dil__group *gr = &group[v->group];
        size_t cell = (size_t)gr->first_seq * kv->n_cells;
        v->k->ne[1] = v->v->ne[1] = gr->n_kv;
        aim_view(v->k, cell * v->k->nb[1]);
        aim_view(v->v, cell * v->v->nb[1]);
        if (v->v_turned) aim_view(v->v_turned, cell * v->v->nb[1]);
    }
    for (uint32_t i = 0; i < 2 * g->shape.n_groups; i++) {
        struct ggml_tensor *m = g->mask[i % 2][i / 2];
        if (!m) continue;
        m->ne[0] = group[i / 2].n_kv;
        m->nb[1] = m->nb[0] * group[i / 2].n_kv;
        m->nb[2] = m->nb[1] * (size_t)m->ne[1];
        m->nb[3] = m->nb[2];
    }
}
