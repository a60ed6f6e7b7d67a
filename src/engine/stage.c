/* Stages: opening, evaluating batches, forgetting. The body's rows come out to plain memory between body and head: the two
 * are separate graphs, so that logits are computed a few rows at a time and their buffer stays small (a batch of 512 rows of
 * a 49,152-word vocabulary would be 100 MB). */
#include "engine/stage.h"

#include <stdlib.h>
#include <string.h>

#define HALF_NEG_INF 0xFC00

/* --- opening --------------------------------------------------------------------------------------------------------- */

static dil_status fill_opts(const dil_arch *a, const dil_stage_opts *in, dil_stage_opts *o, dil_err *err)
{
    *o = *in;
    if (o->first_layer > o->last_layer || o->last_layer >= dil_arch_n_layers(a))
        return dil_fail(err, DIL_EUSAGE, "stage: layers %u to %u of a model with %u", o->first_layer, o->last_layer, dil_arch_n_layers(a));
    if (o->n_ctx == 0) o->n_ctx = a->n_ctx_train < 2048 ? a->n_ctx_train : 2048;
    if (o->n_seq == 0) o->n_seq = 1;
    if (o->max_batch == 0) o->max_batch = 512;
    if (o->max_batch < o->n_seq) o->max_batch = o->n_seq;
    if (o->kv_type != DIL_TYPE_F16 && o->kv_type != DIL_TYPE_F32)
        return dil_fail(err, DIL_EUSAGE, "stage: the KV cache can be F16 or F32, not type %d", o->kv_type);
    if (a->positions == DIL_POS_LEARNED && o->n_ctx > a->n_ctx_train)
        return dil_fail(err, DIL_ELIMIT, "a context of %u: this model has learned %u positions", o->n_ctx, a->n_ctx_train);
    if (o->n_ctx > DIL__CTX_MAX) return dil_fail(err, DIL_ELIMIT, "a context of %u, the limit is %u", o->n_ctx, DIL__CTX_MAX);
    if (o->n_seq > DIL__SEQ_MAX) return dil_fail(err, DIL_ELIMIT, "%u sequences at once, the limit is %u", o->n_seq, DIL__SEQ_MAX);
    if (o->max_batch > DIL__BATCH_MAX) return dil_fail(err, DIL_ELIMIT, "batches of %u, the limit is %u", o->max_batch, DIL__BATCH_MAX);
    return DIL_OK;
}

static void link_parts(dil_stage *s)
{
    s->graphs = (dil__graphs){.arch = &s->arch, .layers = &s->layers, .weights = &s->weights, .kv = &s->kv, .device = &s->device,
                              .no_flash = s->opts.no_flash};
}

/* KV and buffer bytes of a stage with these (filled) options, without its weights. */
static dil_status measure(const dil_arch *a, const dil_stage_opts *o, uint64_t *kv_bytes, uint64_t *buffer_bytes, dil_err *err)
{
    dil_stage *s = calloc(1, sizeof *s);
    if (!s) return dil_fail(err, DIL_EMEMORY, "engine: no memory for a stage");
    s->arch = *a;
    s->opts = *o;
    s->layers = dil__layers_of(a, o->first_layer, o->last_layer);
    dil_status status = dil__device_open(o->device, o->n_threads, DIL__DESCRIBE, &s->device, err);
    if (!status) status = dil__weights_load(&s->arch, &s->layers, NULL, &s->device, true, 0, NULL, &s->weights, err);
    if (!status) status = dil__kv_open(&s->arch, &s->layers, o, &s->device, true, &s->kv, err);
    link_parts(s);
    if (!status) status = dil__graphs_reserve(&s->graphs, o->max_batch, true, buffer_bytes, err);
    *kv_bytes = s->kv.bytes;
    *buffer_bytes += s->device.work_size;
    dil_stage_close(s);
    return status;
}

dil_status dil_stage_measure(const dil_arch *arch, const dil_stage_opts *opts, uint64_t *kv_bytes_per_block, uint64_t *buffer_bytes,
                             dil_err *err)
{
    dil_stage_opts o;
    uint64_t kv = 0, buffers = 0;
    dil_status s = fill_opts(arch, opts, &o, err);
    if (!s) s = measure(arch, &o, &kv, &buffers, err);
    if (s) return s;
    uint32_t n = dil__layers_of(arch, o.first_layer, o.last_layer).n_blocks;
    *kv_bytes_per_block = n ? kv / n : 0;
    *buffer_bytes = buffers;
    return DIL_OK;
}

/* Rows of one head computation. A fixed shape is one row where there is one sequence; else a multiple of four, so that every
 * row goes through the same kernel. */
static uint32_t head_rows(const dil_stage *s)
{
    if (!s->opts.fixed_shapes) return DIL__HEAD_ROWS;
    uint32_t n = s->opts.n_seq == 1 ? 1 : (s->opts.n_seq + 3) / 4 * 4;
    return n < DIL__HEAD_ROWS ? n : DIL__HEAD_ROWS;
}

static dil_status alloc_scratch(dil_stage *s, dil_err *err)
{
    uint32_t rows = s->opts.max_batch;
    bool pads_head = s->layers.head && s->opts.fixed_shapes;
    s->tokens = calloc(rows, sizeof *s->tokens);
    s->rows = calloc((size_t)rows * s->arch.n_embd, sizeof *s->rows);
    s->wanted = s->layers.head ? calloc((size_t)rows * s->arch.n_embd, sizeof *s->wanted) : NULL;
    s->logits = pads_head ? calloc((size_t)head_rows(s) * s->arch.n_vocab, sizeof *s->logits) : NULL;
    s->mask = calloc((size_t)s->kv.n_cells + 1, sizeof *s->mask);
    if (!s->tokens || !s->rows || (s->layers.head && !s->wanted) || (pads_head && !s->logits) || !s->mask)
        return dil_fail(err, DIL_EMEMORY, "engine: no memory for batches of %u", rows);
    dil_status status = dil__ordered_init(&s->order, rows, s->opts.n_seq, err);
    return status ? status : dil__pass_init(&s->pass, rows, s->opts.n_seq, err);
}

static dil_status open_parts(dil_stage *s, const dil_progress *progress, dil_err *err)
{
    uint64_t kv = 0, buffers = 0;
    dil_status status = measure(&s->arch, &s->opts, &kv, &buffers, err);
    if (!status) status = dil__device_open(s->opts.device, s->opts.n_threads, s->layers.embd && s->layers.head ? DIL__START_SPIN : DIL__START_SLEEP, &s->device, err);
    if (status) return status;
    s->opts.n_threads = s->device.n_threads;
    s->opts.device = ggml_backend_dev_name(s->device.dev);
    status = dil__weights_load(&s->arch, &s->layers, &s->source, &s->device, s->opts.no_repack, kv + buffers, progress, &s->weights, err);
    if (!status) status = dil__kv_open(&s->arch, &s->layers, &s->opts, &s->device, false, &s->kv, err);
    link_parts(s);
    if (!status) status = dil__graphs_reserve(&s->graphs, s->opts.max_batch, false, &s->stats.buffer_bytes, err);
    if (!status) status = alloc_scratch(s, err);
    return status;
}

dil_status dil_stage_open(const dil_arch *arch, const dil_weights *weights, const dil_stage_opts *opts, const dil_progress *progress,
                          dil_stage **out, dil_err *err)
{
    dil_stage *s = calloc(1, sizeof *s);
    if (!s) return dil_fail(err, DIL_EMEMORY, "engine: no memory for a stage");
    s->arch = *arch;
    s->source = *weights;
    dil_status status = fill_opts(arch, opts, &s->opts, err);
    if (!status) {
        s->layers = dil__layers_of(arch, s->opts.first_layer, s->opts.last_layer);
        status = open_parts(s, progress, err);
    }
    if (status) {
        dil_stage_close(s);
        return status;
    }
    *out = s;
    return DIL_OK;
}

void dil_stage_close(dil_stage *s)
{
    if (!s) return;
    dil__graphs_fini(&s->graphs);
    dil__kv_close(&s->kv);
    dil__weights_free(&s->weights);
    dil__device_close(&s->device);
    dil__ordered_fini(&s->order);
    dil__pass_fini(&s->pass);
    free(s->tokens);
    free(s->rows);
    free(s->wanted);
    free(s->logits);
    free(s->mask);
    free(s);
}

/* --- one pass -------------------------------------------------------------------------------------------------------- */

static void set_input(struct ggml_tensor *t, const void *data, size_t bytes)
{
    if (t && t->data && bytes) ggml_backend_tensor_set(t, data, 0, bytes);
}

/* A row sees positions up to its own, the last `window` of them where that is not 0; padding sees the first cell, so that its
 * softmax has something to sum. */
static void fill_mask(dil_stage *s, struct ggml_tensor *mask, const dil__group *g, uint32_t window)
{
    if (!mask || !mask->data) return;
    for (uint32_t i = 0; i < g->n_seq * g->n_tok; i++) {
        uint32_t row = g->row + i, to = s->pass.token_of[row] < 0 ? 1 : (uint32_t)s->pass.pos[row] + 1;
        uint32_t from = window > 0 && to > window ? to - window : 0;
        size_t at = (size_t)i * g->n_kv;
        uint16_t *m = s->device.is_cpu ? (uint16_t *)mask->data + at : s->mask;
        for (uint32_t c = 0; c < from; c++) m[c] = HALF_NEG_INF;
        memset(m + from, 0, (to - from) * sizeof *m);
        for (uint32_t c = to; c < g->n_kv; c++) m[c] = HALF_NEG_INF;
        if (!s->device.is_cpu) ggml_backend_tensor_set(mask, m, at * sizeof *m, g->n_kv * sizeof *m);
    }
}

static void set_positions(dil_stage *s, dil__graph *g)
{
    if (!g->pos || !g->pos->data) return;
    int32_t offset = s->arch.positions == DIL_POS_LEARNED ? (int32_t)s->arch.position_offset : 0;
    for (uint32_t r = 0; r < s->pass.n_rows; r++) s->tokens[r] = (s->pass.token_of[r] < 0 ? 0 : s->pass.pos[r]) + offset;
    set_input(g->pos, s->tokens, s->pass.n_rows * sizeof *s->tokens);
}

static void set_inputs(dil_stage *s, dil__graph *g, const dil_batch *b, const float *hidden)
{
    const dil__pass *p = &s->pass;
    size_t width = s->arch.n_embd;
    set_positions(s, g);
    for (uint32_t r = 0; r < p->n_rows; r++) {
        int32_t t = p->token_of[r];
        s->tokens[r] = t < 0 || !g->tokens ? 0 : b->token[t];
        if (g->hidden && t >= 0) memcpy(s->rows + r * width, hidden + (size_t)t * width, width * sizeof *hidden);
        if (g->hidden && t < 0) memset(s->rows + r * width, 0, width * sizeof *hidden);
    }
    set_input(g->tokens, s->tokens, p->n_rows * sizeof *s->tokens);
    set_input(g->hidden, s->rows, p->n_rows * width * sizeof *s->rows);
    set_input(g->cells, p->cell, p->n_rows * sizeof *p->cell);
    set_input(g->want, p->want_row, p->n_want * sizeof *p->want_row);
    dil__graph_aim(g, &s->kv, p->group);
    for (uint32_t i = 0; i < p->n_groups; i++) {
        fill_mask(s, g->mask[0][i], &p->group[i], 0);
        fill_mask(s, g->mask[1][i], &p->group[i], s->arch.window);
    }
}

static dil_status compute(dil_stage *s, dil__graph *g, dil_err *err)
{
    return s->tap ? dil__stage_compute_tapped(s, g, err) : dil__device_compute(&s->device, g->g, err);
}

static bool in_order(const dil__pass *p)
{
    for (uint32_t i = 0; i < p->n_want; i++) {
        if ((uint32_t)p->want_row[i] != i) return false;
    }
    return p->n_want == p->n_rows;
}

static void shape_of(const dil_stage *s, dil__shape *shape)
{
    const dil__pass *p = &s->pass;
    *shape = (dil__shape){.n_rows = p->n_rows, .n_want = p->n_rows, .n_groups = s->layers.n_blocks ? p->n_groups : 0};
    if (s->layers.last_block) {
        shape->n_want = p->n_want;
        shape->gather = !in_order(p);
    }
    for (uint32_t i = 0; i < shape->n_groups; i++) {
        shape->group[i].n_seq = p->group[i].n_seq;
        shape->group[i].n_tok = p->group[i].n_tok;
        if (s->opts.no_flash && p->group[i].n_kv > shape->n_kv) shape->n_kv = p->group[i].n_kv;
    }
}

/* Computes embedding and blocks; afterwards s->rows holds the hidden rows: the wanted ones in order when the model's last
 * block is here, else one for every row of the pass. */
static dil_status run_body(dil_stage *s, const dil_batch *b, const float *hidden, dil_err *err)
{
    dil__shape shape;
    shape_of(s, &shape);
    for (uint32_t i = 0; shape.n_kv && i < shape.n_groups; i++) s->pass.group[i].n_kv = shape.n_kv;
    dil__graph *g;
    dil_status status = dil__graphs_get(&s->graphs, &shape, &g, err);
    if (status) return status;
    set_inputs(s, g, b, hidden);
    status = compute(s, g, err);
    if (status || !g->result) return status;
    ggml_backend_tensor_get(g->result, s->rows, 0, ggml_nbytes(g->result));
    return DIL_OK;
}

/* What is not a number must not stay in the cache: a masked cell still multiplies. */
static dil_status fail_not_finite(dil_stage *s, dil_err *err)
{
    char name[DIL_TENSOR_NAME_MAX];
    for (uint32_t i = 0; i < s->order.n_runs; i++) dil__kv_wipe(&s->kv, s->order.run[i].seq, s->order.run[i].pos);
    if (dil__weights_find_nan(&s->arch, &s->layers, &s->source, name))
        return dil_fail(err, DIL_EDATA, "%s holds NaN or infinity", name);
    return dil_fail(err, DIL_EDATA, "layers %u to %u give NaN or infinity: the values overflow, or came in so", s->opts.first_layer,
                    s->opts.last_layer);
}

/* The head over rows [n][n_embd]. */
static dil_status run_head(dil_stage *s, const float *rows, uint32_t n, float *out, dil_err *err)
{
    size_t width = s->arch.n_embd, vocab = s->arch.n_vocab;
    uint32_t most = head_rows(s);
    for (uint32_t done = 0; done < n;) {
        uint32_t now = n - done < most ? n - done : most;
        dil__shape shape = {.head = true, .n_rows = s->logits ? most : now};
        dil__graph *g;
        dil_status status = dil__graphs_get(&s->graphs, &shape, &g, err);
        if (status) return status;
        ggml_backend_tensor_set(g->hidden, rows + done * width, 0, now * width * sizeof *rows);
        if (now < shape.n_rows) ggml_backend_tensor_memset(g->hidden, 0, now * width * sizeof *rows, (shape.n_rows - now) * width * sizeof *rows);
        status = compute(s, g, err);
        if (status) return status;
        ggml_backend_tensor_get(g->result, out + done * vocab, 0, now * vocab * sizeof *out);
        done += now;
    }
    return dil__all_finite(out, n * vocab) ? DIL_OK : fail_not_finite(s, err);
}

/* One pass through the body; its rows go where the caller or the head wants them. */
static dil_status run_pass(dil_stage *s, const dil_batch *b, const float *hidden, float *out, dil_err *err)
{
    const dil__pass *p = &s->pass;
    size_t width = s->arch.n_embd, bytes = width * sizeof *s->rows;
    bool body = s->layers.embd || s->layers.n_blocks > 0;
    dil_status status = body ? run_body(s, b, hidden, err) : DIL_OK;
    if (status) return status;
    uint32_t n = s->layers.head || s->layers.last_block ? p->n_want : p->n_rows;
    for (uint32_t i = 0; i < n; i++) {
        bool wanted = s->layers.head || s->layers.last_block;
        int32_t token = p->token_of[wanted ? p->want_row[i] : (int32_t)i];
        if (token < 0) continue;
        const float *row = body ? s->rows + (s->layers.last_block || !wanted ? i : (size_t)p->want_row[i]) * width : hidden + (size_t)token * width;
        if (!dil__all_finite(row, width)) return fail_not_finite(s, err);
        memcpy(s->layers.head ? s->wanted + p->want_rank[i] * width : out + (size_t)token * width, row, bytes);
    }
    return DIL_OK;
}

static dil_status check_call(const dil_stage *s, const dil_batch *b, const float *hidden, const float *out, dil_err *err)
{
    if (!s->layers.embd && !hidden) return dil_fail(err, DIL_EUSAGE, "stage: layers from %u on want hidden states", s->opts.first_layer);
    if (!out && (!s->layers.head || s->order.n_want > 0)) return dil_fail(err, DIL_EUSAGE, "stage: nowhere to write %u results", b->n_tokens);
    return DIL_OK;
}

dil_status dil_stage_eval(dil_stage *s, const dil_batch *b, const float *hidden_in, float *out, dil_err *err)
{
    int64_t start = dil_now_ns();
    dil__batch_limits limits = {.n_ctx = s->opts.n_ctx, .n_vocab = s->layers.embd ? s->arch.n_vocab : 0, .len = s->kv.len};
    dil_status status = dil__ordered_set(&s->order, b, &limits, err);
    if (!status) status = check_call(s, b, hidden_in, out, err);
    if (status) return status;
    for (uint32_t i = 0; i < s->order.n_runs; i++) s->kv.len[s->order.run[i].seq] = s->order.run[i].pos;
    if (s->layers.last_block && !s->layers.head) memset(out, 0, (size_t)b->n_tokens * s->arch.n_embd * sizeof *out);
    status = dil__stage_each_pass(s, b, hidden_in, out, run_pass, err);
    if (!status && s->layers.head) status = run_head(s, s->wanted, s->order.n_want, out, err);
    if (status) return status;
    for (uint32_t i = 0; i < s->order.n_runs; i++) s->kv.len[s->order.run[i].seq] = s->order.run[i].pos + s->order.run[i].n;
    s->stats.last_eval_ns = dil_now_ns() - start;
    return DIL_OK;
}

/* --- the rest -------------------------------------------------------------------------------------------------------- */

void dil_stage_seq_trim(dil_stage *s, uint32_t seq, uint32_t from_pos)
{
    if (seq < s->kv.n_seq && from_pos < s->kv.len[seq]) s->kv.len[seq] = from_pos;
}

dil_stage_stats dil_stage_get_stats(const dil_stage *s)
{
    dil_stage_stats st = s->stats;
    st.weight_bytes = s->weights.device_bytes;
    st.mapped_bytes = s->weights.mapped_bytes;
    st.kv_bytes = s->kv.bytes;
    st.buffer_bytes += s->device.work_size;
    return st;
}

const dil_stage_opts *dil_stage_get_opts(const dil_stage *s)
{
    return &s->opts;
}

void dil_stage_set_tap(dil_stage *s, dil_stage_tap_fn *fn, void *ctx)
{
    s->tap = fn;
    s->tap_ctx = ctx;
}
