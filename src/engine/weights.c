/* A stage's weights on its device. Every tensor of its layers finds its place in the structs by name; linear weights go where
 * the device has a faster layout for their type (CPU_REPACK and its kin). The other weights that are multiplied with are copied into huge
 * pages where the memory at hand allows it: a file's pages are small, and walking their tables took a sixth of the time of a
 * token (SmolLM2 Q4_1, one thread: 1.19 times as fast copied). What is only looked up by rows, and norms, is used where the source holds it
 * when the device can read it there. The look-up table of the embedding stays in plain layout; a tied head whose type has a
 * faster layout is therefore held twice. Whether its speed is worth the memory has not been measured yet; of a mapped plain
 * table only the rows of tokens that occur are ever read. */
#include "engine/internal.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef struct place { /* where a tensor of this name goes */
    const char *name;
    size_t offset;
} place;

#define IN_BLOCK(name, field) {name ".weight", offsetof(dil__block, field.w)}, {name ".bias", offsetof(dil__block, field.b)}
#define IN_STAGE(name, field) {name ".weight", offsetof(dil__weights, field.w)}, {name ".bias", offsetof(dil__weights, field.b)}

static const place block_places[] = {
    IN_BLOCK("attn_norm", attn_norm), IN_BLOCK("attn_q", q),         IN_BLOCK("attn_k", k),
    IN_BLOCK("attn_v", v),            IN_BLOCK("attn_output", o),    IN_BLOCK("ffn_norm", ffn_norm),
    IN_BLOCK("ffn_gate", gate),       IN_BLOCK("ffn_up", up),        IN_BLOCK("ffn_down", down),
    IN_BLOCK("attn_qkv", qkv),        IN_BLOCK("attn_q_norm", q_norm), IN_BLOCK("attn_k_norm", k_norm),
    IN_BLOCK("post_attention_norm", attn_post_norm), IN_BLOCK("post_ffw_norm", ffn_post_norm),
};
static const place stage_places[] = {
    IN_STAGE("token_embd", embd),         IN_STAGE("position_embd", pos_embd),   IN_STAGE("project_in", project_in),
    IN_STAGE("project_out", project_out), IN_STAGE("output_norm", output_norm),  IN_STAGE("output", output),
    {"rope_freqs.weight", offsetof(dil__weights, rope_freqs)},
    {"rope_factors_long.weight", offsetof(dil__weights, rope_long)},
    {"rope_factors_short.weight", offsetof(dil__weights, rope_short)},
};

/* One tensor to be loaded. */
typedef struct item {
    dil_layer_tensor what;
    const dil_tensor *source; /* NULL when only shapes are wanted */
    struct ggml_tensor **slot;
    struct ggml_tensor *t;
    ggml_backend_buffer_type_t buft; /* NULL: used where the source holds it */
} item;

typedef struct loader {
    const dil_arch *arch;
    const dil__layers *layers;
    const dil_weights *source;
    const dil__device *device;
    bool no_repack;
    uint64_t other_bytes;
    dil__weights *w;
    item *items;
    size_t n, cap;
    dil_err *err;
} loader;

dil__layers dil__layers_of(const dil_arch *a, uint32_t first_layer, uint32_t last_layer)
{
    dil__layers l = {.embd = first_layer == 0, .head = last_layer == a->n_blocks + 1};
    uint32_t from = first_layer == 0 ? 1 : first_layer, to = last_layer > a->n_blocks ? a->n_blocks : last_layer;
    if (from <= to) {
        l.first_block = from - 1;
        l.n_blocks = to - from + 1;
        l.last_block = to == a->n_blocks;
    }
    return l;
}

/* The head of a model whose table is tied takes its weight under another slot than the embedding. */
static struct ggml_tensor **find_slot(loader *L, const dil_layer_tensor *t, uint32_t layer)
{
    const char *name = t->name;
    dil__weights *w = L->w;
    if (layer == L->arch->n_blocks + 1 && strcmp(name, "token_embd.weight") == 0) return &w->output.w;
    if (strncmp(name, "blk.", 4) == 0) {
        const char *rest = strchr(name + 4, '.');
        char *base = (char *)&w->block[layer - 1 - L->layers->first_block];
        for (size_t i = 0; rest && i < sizeof block_places / sizeof *block_places; i++) {
            if (strcmp(rest + 1, block_places[i].name) == 0) return (struct ggml_tensor **)(void *)(base + block_places[i].offset);
        }
        return NULL;
    }
    for (size_t i = 0; i < sizeof stage_places / sizeof *stage_places; i++) {
        if (strcmp(name, stage_places[i].name) == 0) return (struct ggml_tensor **)(void *)((char *)w + stage_places[i].offset);
    }
    return NULL;
}

static dil_status check_source(loader *L, const item *it)
{
    const dil_tensor *s = it->source;
    uint64_t row, bytes;
    const struct ggml_type_traits *traits = s && s->type >= 0 && s->type < GGML_TYPE_COUNT ? ggml_get_type_traits((enum ggml_type)s->type) : NULL;
    if (!s) return dil_fail(L->err, DIL_ENOTFOUND, "%s is not among the weights at hand", it->what.name);
    if (!traits || traits->blck_size == 0)
        return dil_fail(L->err, DIL_EUNSUPPORTED, "%s: tensor type %d is not known to this build of ggml", s->name, s->type);
    if (s->ne[0] != it->what.ne[0] || s->ne[1] != it->what.ne[1] || s->ne[2] != 1 || s->ne[3] != 1)
        return dil_fail(L->err, DIL_EFORMAT, "%s: found %" PRIu64 " x %" PRIu64 ", expected %" PRIu64 " x %" PRIu64, s->name, s->ne[0],
                        s->ne[1], it->what.ne[0], it->what.ne[1]);
    if (!dil_type_row_bytes(s->type, s->ne[0], &row) || !dil_mul_u64(row, s->ne[1], &bytes) || bytes != s->bytes || !s->data)
        return dil_fail(L->err, DIL_EFORMAT, "%s: %" PRIu64 " bytes at hand for %" PRIu64 " rows of %" PRIu64, s->name, s->data ? s->bytes : 0,
                        s->ne[1], s->ne[0]);
    bool linear = it->what.linear, is_float = s->type == DIL_TYPE_F32 || s->type == DIL_TYPE_F16 || s->type == DIL_TYPE_BF16;
    bool positions = strcmp(it->what.role, "position_embd") == 0;
    if (!linear && s->type != DIL_TYPE_F32 && !(positions && is_float))
        return dil_fail(L->err, DIL_EUNSUPPORTED, "%s has type %s, expected F32", s->name, traits->type_name);
    if (linear && (!is_float && (!traits->is_quantized || s->type == DIL_TYPE_Q8_1 || s->type == DIL_TYPE_Q8_K)))
        return dil_fail(L->err, DIL_EUNSUPPORTED, "%s: type %s cannot hold weights", s->name, traits->type_name);
    return DIL_OK;
}

static dil_status add_layer(loader *L, uint32_t layer)
{
    dil_layer_tensor t[DIL_LAYER_TENSORS_MAX];
    size_t n = dil_arch_layer_tensors(L->arch, layer, t);
    for (size_t i = 0; i < n; i++) {
        struct ggml_tensor **slot = find_slot(L, &t[i], layer);
        if (!slot) return dil_fail(L->err, DIL_EINTERNAL, "engine: no use for tensor %s", t[i].name);
        bool listed = false;
        for (size_t j = 0; j < L->n; j++) listed |= L->items[j].slot == slot;
        if (listed) continue; /* shared by all blocks */
        item *it = &L->items[L->n];
        *it = (item){.what = t[i], .slot = slot};
        if (L->source) {
            it->source = dil_weights_find(L->source, t[i].name);
            dil_status s = check_source(L, it);
            if (s) return s;
        }
        L->n++;
    }
    return DIL_OK;
}

static dil_status list_items(loader *L)
{
    const dil__layers *l = L->layers;
    L->cap = ((size_t)l->n_blocks + 2) * DIL_LAYER_TENSORS_MAX;
    L->items = calloc(L->cap, sizeof *L->items);
    L->w->block = calloc(l->n_blocks ? l->n_blocks : 1, sizeof *L->w->block);
    if (!L->items || !L->w->block) return dil_fail(L->err, DIL_EMEMORY, "engine: no memory for %zu tensors", L->cap);
    dil_status s = l->embd ? add_layer(L, 0) : DIL_OK;
    for (uint32_t i = 0; !s && i < l->n_blocks; i++) s = add_layer(L, l->first_block + i + 1);
    if (!s && l->head) s = add_layer(L, L->arch->n_blocks + 1);
    return s;
}

/* Does the device multiply with this tensor in memory of this kind? Asked with an operation that is never run. */
static bool has_kernel(const loader *L, const struct ggml_tensor *t, ggml_backend_buffer_type_t buft)
{
    struct ggml_init_params p = {.mem_size = 4 * ggml_tensor_overhead(), .no_alloc = true};
    struct ggml_context *ctx = ggml_init(p);
    ggml_backend_buffer_t none = ggml_backend_buft_alloc_buffer(buft, 0);
    bool ok = false;
    if (ctx && none) {
        struct ggml_tensor *w = ggml_new_tensor_2d(ctx, t->type, t->ne[0], t->ne[1]);
        struct ggml_tensor *x = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, t->ne[0], 512);
        w->buffer = none;
        ok = ggml_backend_dev_supports_op(L->device->dev, ggml_mul_mat(ctx, w, x));
    }
    if (none) ggml_backend_buffer_free(none);
    if (ctx) ggml_free(ctx);
    return ok;
}

static bool is_lookup(const item *it)
{
    return strcmp(it->what.role, "token_embd") == 0 || strcmp(it->what.role, "position_embd") == 0;
}

static void choose_place(loader *L, item *it)
{
    const dil__device *d = L->device;
    bool head = it->slot == &L->w->output.w;
    it->buft = d->buft;
    if (it->what.linear && (head || !is_lookup(it)) && !L->no_repack) {
        for (size_t i = 0; i < d->n_extra; i++) {
            if (!has_kernel(L, it->t, d->extra[i])) continue;
            it->buft = d->extra[i];
            return;
        }
    }
    bool aligned = it->source && (uintptr_t)it->source->data % 32 == 0, multiplied = it->what.linear && (head || !is_lookup(it));
    if (d->is_cpu && (aligned || !it->source) && (L->no_repack || !multiplied)) it->buft = NULL;
}

static dil_status describe(loader *L)
{
    struct ggml_init_params p = {.mem_size = (L->n + 1) * ggml_tensor_overhead(), .no_alloc = true};
    L->w->ctx = ggml_init(p);
    if (!L->w->ctx) return dil_fail(L->err, DIL_EMEMORY, "engine: no memory for %zu tensors", L->n);
    for (size_t i = 0; i < L->n; i++) {
        item *it = &L->items[i];
        enum ggml_type type = it->source ? (enum ggml_type)it->source->type : it->what.linear ? GGML_TYPE_F16 : GGML_TYPE_F32;
        if (!it->source && it->what.ne[0] % (uint64_t)ggml_blck_size(type) != 0) type = GGML_TYPE_F32;
        it->t = ggml_new_tensor_2d(L->w->ctx, type, (int64_t)it->what.ne[0], (int64_t)it->what.ne[1]);
        ggml_set_name(it->t, it->what.name);
        choose_place(L, it);
    }
    /* A tied head that stays in plain layout is the embedding's tensor. */
    for (size_t i = 0; i < L->n; i++) {
        item *it = &L->items[i];
        bool tied = it->slot == &L->w->output.w && it->what.shared && L->w->embd.w == NULL;
        bool plain = it->buft == NULL || it->buft == L->device->buft;
        for (size_t j = 0; tied && plain && j < L->n; j++) {
            if (L->items[j].slot != &L->w->embd.w) continue;
            L->items[j].buft = it->buft;
            it->t = L->items[j].t;
        }
    }
    for (size_t i = 0; i < L->n; i++) *L->items[i].slot = L->items[i].t;
    return DIL_OK;
}

static bool add_buffer(dil__weights *w, ggml_backend_buffer_t b)
{
    if (w->n_buffers == w->cap_buffers) {
        size_t cap = w->cap_buffers ? 2 * w->cap_buffers : 64;
        ggml_backend_buffer_t *grown = realloc(w->buffer, cap * sizeof *grown);
        if (!grown) return false;
        w->buffer = grown;
        w->cap_buffers = cap;
    }
    w->buffer[w->n_buffers++] = b;
    return true;
}

static bool is_alias(const loader *L, size_t i)
{
    for (size_t j = 0; j < i; j++) {
        if (L->items[j].t == L->items[i].t) return true;
    }
    return false;
}

/* ggml only reads weights; its interface has no const. */
static void *unconst(const void *p)
{
    return (void *)(uintptr_t)p;
}

static dil_status map_items(loader *L)
{
    for (size_t i = 0; i < L->n; i++) {
        item *it = &L->items[i];
        if (it->buft || is_alias(L, i)) continue;
        void *data = unconst(it->source->data);
        ggml_backend_buffer_t b = ggml_backend_cpu_buffer_from_ptr(data, it->source->bytes);
        if (!b || !add_buffer(L->w, b)) {
            if (b) ggml_backend_buffer_free(b);
            return dil_fail(L->err, DIL_EMEMORY, "engine: no memory for %s", it->what.name);
        }
        ggml_backend_buffer_set_usage(b, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
        if (ggml_backend_tensor_alloc(b, it->t, data) != GGML_STATUS_SUCCESS)
            return dil_fail(L->err, DIL_EINTERNAL, "engine: %s cannot be placed", it->what.name);
        L->w->mapped_bytes += it->source->bytes;
    }
    return DIL_OK;
}

static uint64_t aligned_size(ggml_backend_buffer_type_t buft, const struct ggml_tensor *t)
{
    uint64_t size = ggml_backend_buft_get_alloc_size(buft, t), align = ggml_backend_buft_get_alignment(buft);
    return (size + align - 1) / align * align;
}

/* One reading of the page tables then covers 2 MiB instead of 4 KiB. A hint: where there are no huge pages, nothing changes. */
static void ask_for_huge_pages(const loader *L, ggml_backend_buffer_t b)
{
    if (!L->device->is_cpu) return;
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), from = (uintptr_t)ggml_backend_buffer_get_base(b);
    uintptr_t end = (from + ggml_backend_buffer_get_size(b)) / page * page;
    from = (from + page - 1) / page * page;
    if (from < end) (void)madvise((void *)from, end - from, MADV_HUGEPAGE);
}

static dil_status check_memory(loader *L, uint64_t weights)
{
    uint64_t at_hand = dil__device_free_bytes(L->device), need;
    char a[32], b[32], c[32];
    if (dil_add_u64(weights, L->other_bytes, &need) && need <= at_hand) return DIL_OK;
    return dil_fail(L->err, DIL_ELIMIT, "%s has %s free, these layers need %s for weights and %s for KV cache and buffers (%" PRIu64
                    " of %" PRIu64 " bytes)", ggml_backend_dev_name(L->device->dev), dil_format_bytes(at_hand, a), dil_format_bytes(weights, b),
                    dil_format_bytes(L->other_bytes, c), at_hand, weights + L->other_bytes);
}

/* Everything of one memory kind goes into one buffer. */
static dil_status alloc_items(loader *L, ggml_backend_buffer_type_t buft)
{
    uint64_t total = 0;
    for (size_t i = 0; i < L->n; i++) {
        if (L->items[i].buft == buft && !is_alias(L, i)) total += aligned_size(buft, L->items[i].t);
    }
    if (total == 0) return DIL_OK;
    ggml_backend_buffer_t b = ggml_backend_buft_alloc_buffer(buft, total);
    if (!b || !add_buffer(L->w, b)) {
        if (b) ggml_backend_buffer_free(b);
        return dil_fail(L->err, DIL_EMEMORY, "engine: %" PRIu64 " bytes for weights cannot be allocated", total);
    }
    ggml_backend_buffer_set_usage(b, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    L->w->device_bytes += ggml_backend_buffer_get_size(b);
    ask_for_huge_pages(L, b);
    char *at = ggml_backend_buffer_get_base(b);
    for (size_t i = 0; i < L->n; i++) {
        if (L->items[i].buft != buft || is_alias(L, i)) continue;
        if (ggml_backend_tensor_alloc(b, L->items[i].t, at) != GGML_STATUS_SUCCESS)
            return dil_fail(L->err, DIL_EINTERNAL, "engine: %s cannot be placed", L->items[i].what.name);
        at += aligned_size(buft, L->items[i].t);
    }
    return DIL_OK;
}

static dil_status copy_items(loader *L, uint64_t total, const dil_progress *progress)
{
    uint64_t done = 0;
    for (size_t i = 0; i < L->n; i++) {
        item *it = &L->items[i];
        if (!it->buft || is_alias(L, i)) continue;
        ggml_backend_tensor_set(it->t, it->source->data, 0, it->source->bytes);
        done += it->source->bytes;
        if (!dil_progress_step(progress, "loading weights", (double)done, (double)total))
            return dil_fail(L->err, DIL_ECANCELED, "loading was canceled");
    }
    return DIL_OK;
}

/* For measuring: the allocator of graphs takes a tensor with an address for one that needs no place. */
static void pretend(loader *L)
{
    for (size_t i = 0; i < L->n; i++) L->items[i].t->data = unconst(L->items);
}

static uint64_t copied_bytes(const loader *L)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < L->n; i++) {
        if (L->items[i].buft && !is_alias(L, i)) sum += aligned_size(L->items[i].buft, L->items[i].t);
    }
    return sum;
}

/* Copies that only make things faster give way to a model that fits. */
static void map_what_can_be(loader *L)
{
    for (size_t i = 0; i < L->n; i++) {
        item *it = &L->items[i];
        if (it->buft == L->device->buft && (uintptr_t)it->source->data % 32 == 0) it->buft = NULL;
    }
}

static dil_status place_items(loader *L, const dil_progress *progress)
{
    uint64_t copied = copied_bytes(L), need;
    bool fits = dil_add_u64(copied, L->other_bytes, &need) && need <= dil__device_free_bytes(L->device);
    if (!fits && L->device->is_cpu) {
        map_what_can_be(L);
        copied = copied_bytes(L);
    }
    dil_status s = check_memory(L, copied);
    if (!s) s = map_items(L);
    if (!s) s = alloc_items(L, L->device->buft);
    for (size_t i = 0; !s && i < L->device->n_extra; i++) s = alloc_items(L, L->device->extra[i]);
    if (!s) s = copy_items(L, copied, progress);
    return s;
}

dil_status dil__weights_load(const dil_arch *a, const dil__layers *l, const dil_weights *source, const dil__device *d,
                             bool no_repack, uint64_t other_bytes, const dil_progress *progress, dil__weights *out, dil_err *err)
{
    dil__weights w = {0};
    loader L = {.arch = a, .layers = l, .source = source, .device = d, .no_repack = no_repack, .other_bytes = other_bytes, .w = &w,
                .err = err};
    dil_status s = list_items(&L);
    if (!s) s = describe(&L);
    if (!s && !source) pretend(&L);
    if (!s && source) s = place_items(&L, progress);
    free(L.items);
    if (s) {
        dil__weights_free(&w);
        return s;
    }
    *out = w;
    return DIL_OK;
}

void dil__weights_free(dil__weights *w)
{
    for (size_t i = 0; i < w->n_buffers; i++) ggml_backend_buffer_free(w->buffer[i]);
    free(w->buffer);
    if (w->ctx) ggml_free(w->ctx);
    free(w->block);
    memset(w, 0, sizeof *w);
}

static bool holds_nan(const dil_tensor *t)
{
    enum { N = 2048 }; /* a multiple of every block */
    float x[N];
    const uint8_t *at = t->data;
    uint64_t left = dil_tensor_elems(t), bytes = 0;
    for (; left > 0; at += bytes) {
        uint64_t n = left < N ? left : N;
        if (!dil_type_row_bytes(t->type, n, &bytes) || dil_engine_dequantize(t->type, at, n, x, NULL)) return false;
        if (!dil__all_finite(x, n)) return true;
        left -= n;
    }
    return false;
}

bool dil__weights_find_nan(const dil_arch *a, const dil__layers *l, const dil_weights *source, char name[DIL_TENSOR_NAME_MAX])
{
    for (uint32_t layer = 0; layer < dil_arch_n_layers(a); layer++) {
        bool mine = layer == 0 ? l->embd : layer > a->n_blocks ? l->head : layer - 1 >= l->first_block && layer - 1 < l->first_block + l->n_blocks;
        if (!mine) continue;
        dil_layer_tensor t[DIL_LAYER_TENSORS_MAX];
        size_t n = dil_arch_layer_tensors(a, layer, t);
        for (size_t i = 0; i < n; i++) {
            const dil_tensor *s = dil_weights_find(source, t[i].name);
            if (!s || !s->data || !holds_nan(s)) continue;
            snprintf(name, DIL_TENSOR_NAME_MAX, "%s", s->name);
            return true;
        }
    }
    return false;
}
