/* Random weights. Each tensor has memory of its own, as in a real model, so that caches see what they would see, and its blocks
 * come in no order: on a few rows repeated the same kernels took a fifth less time than on a real model's weights. */
#include "engine/synthetic.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { POOL_ELEMS = 1 << 17, POOL_ROW = 256, UNIT_MIN = 16 };
/* Rows of a real model differ in size. ggml on x86 looks the scales of blocks up in a table of all half floats, so that weights of few different
 * scales were computed a sixth too fast; measured on SmolLM2: 0.2 for its blocks' tensors, 0.35 for its table. */
#define POOL_SPREAD 0.25

typedef struct pool { /* blocks of a type, to draw from */
    dil_type type;
    uint8_t *bytes;
    uint64_t n_units;
    uint32_t unit; /* bytes */
} pool;

struct dil__synthetic {
    dil_tensor *tensor; /* [n], in the order of layers */
    void **data;        /* [n] owned */
    size_t n, n_pools;
    pool pool[DIL_LAYER_TENSORS_MAX];
};

static const dil_tensor *find(void *ctx, const char *name)
{
    const dil__synthetic *s = ctx;
    for (size_t i = 0; i < s->n; i++) {
        if (strcmp(s->tensor[i].name, name) == 0) return &s->tensor[i];
    }
    return NULL;
}

dil_weights dil__synthetic_weights(const dil__synthetic *s)
{
    return (dil_weights){.find = find, .ctx = (void *)(uintptr_t)s};
}

void dil__synthetic_free(dil__synthetic *s)
{
    if (!s) return;
    for (size_t i = 0; i < s->n; i++) free(s->data[i]);
    for (size_t i = 0; i < s->n_pools; i++) free(s->pool[i].bytes);
    free(s->data);
    free(s->tensor);
    free(s);
}

/* --- values --------------------------------------------------------------------------------------------------------------------- */

/* Normal values; `spread` is the deviation of the rows' ln size. */
static dil_status quantize_normal(dil_rng *rng, dil_type type, uint64_t rows, uint64_t n, double sd, double spread, double mean, uint8_t *out, dil_err *err)
{
    float *x = malloc(rows * n * sizeof *x), *ones = malloc(n * sizeof *ones);
    dil_status s = x && ones ? DIL_OK : dil_fail(err, DIL_EMEMORY, "engine: no memory for %llu random weights", (unsigned long long)(rows * n));
    for (uint64_t r = 0; !s && r < rows; r++) {
        double scale = spread > 0 ? sd * exp(spread * dil_rng_normal(rng)) : sd;
        for (uint64_t i = r * n; i < (r + 1) * n; i++) x[i] = (float)(mean + scale * dil_rng_normal(rng));
    }
    for (uint64_t i = 0; !s && i < n; i++) ones[i] = 1;
    if (!s) s = dil_engine_quantize(type, x, rows, n, ones, out, 1, err);
    free(x);
    free(ones);
    return s;
}

static dil_status fill_tensor(dil_rng *rng, const dil_layer_tensor *t, dil_type type, uint8_t *out, dil_err *err)
{
    bool is_norm = strstr(t->role, "norm") && !strstr(t->role, ".bias"), freqs = strncmp(t->role, "rope_f", 6) == 0;
    double sd = t->linear && strcmp(t->role, "token_embd") != 0 ? 1 / sqrt((double)t->ne[0]) : 0.1;
    dil_status s = quantize_normal(rng, type, t->ne[1], t->ne[0], freqs ? 1 : sd, 0, freqs || is_norm ? 1 : 0, out, err);
    float *f = (float *)(void *)out;
    for (uint64_t i = 0; !s && freqs && i < t->ne[0]; i++) f[i] = 1 + fabsf(f[i] - 1); /* type F32, as all that is not linear */
    return s;
}

/* --- the pool ------------------------------------------------------------------------------------------------------------------- */

static dil_status find_pool(dil__synthetic *s, const dil_arch *a, dil_type type, dil_rng *rng, const pool **out, dil_err *err)
{
    for (size_t i = 0; i < s->n_pools; i++) {
        *out = &s->pool[i];
        if (s->pool[i].type == type) return DIL_OK;
    }
    const dil_type_info *k = dil_type_get(type);
    if (!k || s->n_pools == DIL_LAYER_TENSORS_MAX) return dil_fail(err, DIL_EUSAGE, "engine: no random weights of type %d", (int)type);
    uint64_t n = k->block_elems > POOL_ROW ? k->block_elems : POOL_ROW, rows = POOL_ELEMS / n, row = 0;
    if (!dil_type_row_bytes(type, n, &row)) return dil_fail(err, DIL_EUSAGE, "engine: no rows of %s", k->name);
    pool p = {.type = type, .unit = k->block_bytes, .bytes = malloc(row * rows)};
    while (p.unit < UNIT_MIN) p.unit *= 2; /* floats in small groups */
    p.n_units = row * rows / p.unit;
    dil_status st = p.bytes ? quantize_normal(rng, type, rows, n, 1 / sqrt((double)a->n_embd), POOL_SPREAD, 0, p.bytes, err)
                            : dil_fail(err, DIL_EMEMORY, "engine: no memory for random weights");
    if (st) {
        free(p.bytes);
        return st;
    }
    s->pool[s->n_pools] = p;
    *out = &s->pool[s->n_pools++];
    return DIL_OK;
}

static void draw_units(dil_rng *rng, const pool *p, uint8_t *out, uint64_t bytes)
{
    for (uint64_t at = 0; at < bytes; at += p->unit) {
        uint64_t n = bytes - at < p->unit ? bytes - at : p->unit;
        memcpy(out + at, p->bytes + dil_rng_below(rng, p->n_units) * p->unit, n);
    }
}

/* --- tensors -------------------------------------------------------------------------------------------------------------------- */

static dil_status make_data(dil__synthetic *s, const dil_arch *a, dil_rng *rng, const dil_layer_tensor *t, dil_type type, bool from_pool, dil_err *err)
{
    uint64_t row;
    if (!dil_type_row_bytes(type, t->ne[0], &row))
        return dil_fail(err, DIL_EUSAGE, "%s: rows of %llu do not divide into blocks of %s", t->name, (unsigned long long)t->ne[0], dil_type_get(type)->name);
    uint8_t *bytes = NULL;
    if (posix_memalign((void **)&bytes, 64, row * t->ne[1]) != 0) return dil_fail(err, DIL_EMEMORY, "engine: no memory for %s", t->name);
    const pool *p = NULL;
    dil_status st = from_pool && t->linear ? find_pool(s, a, type, rng, &p, err) : fill_tensor(rng, t, type, bytes, err);
    if (st) {
        free(bytes);
        return st;
    }
    if (p) draw_units(rng, p, bytes, row * t->ne[1]);
    dil_tensor *out = &s->tensor[s->n];
    *out = (dil_tensor){.type = type, .n_dims = t->ne[1] > 1 ? 2 : 1, .ne = {t->ne[0], t->ne[1], 1, 1}, .data = bytes, .bytes = row * t->ne[1]};
    memcpy(out->name, t->name, sizeof out->name);
    s->data[s->n++] = bytes;
    return DIL_OK;
}

static dil_status add_layer(dil__synthetic *s, const dil_arch *a, uint32_t layer, const dil__synthetic_opts *o, dil_rng *rng, dil_err *err)
{
    dil_layer_tensor t[DIL_LAYER_TENSORS_MAX];
    size_t n = dil_arch_layer_tensors(a, layer, t);
    for (size_t i = 0; i < n; i++) {
        if (find(s, t[i].name)) continue; /* shared */
        dil_type type = t[i].linear && o->type_of ? o->type_of(o->ctx, layer, i, &t[i]) : DIL_TYPE_F32;
        dil_status status = make_data(s, a, rng, &t[i], type, o->from_pool, err);
        if (status) return status;
    }
    return DIL_OK;
}

dil_status dil__synthetic_new(const dil_arch *a, const dil__synthetic_opts *o, dil__synthetic **out, dil_err *err)
{
    size_t cap = ((size_t)o->last_layer - o->first_layer + 1) * DIL_LAYER_TENSORS_MAX;
    dil__synthetic *s = calloc(1, sizeof *s);
    if (s) s->tensor = calloc(cap, sizeof *s->tensor);
    if (s) s->data = calloc(cap, sizeof *s->data);
    dil_status status = s && s->tensor && s->data ? DIL_OK : dil_fail(err, DIL_EMEMORY, "engine: no memory for %zu tensors", cap);
    dil_rng rng;
    dil_rng_init(&rng, o->seed);
    for (uint32_t layer = o->first_layer; !status && layer <= o->last_layer; layer++) status = add_layer(s, a, layer, o, &rng, err);
    if (status) {
        dil__synthetic_free(s);
        return status;
    }
    *out = s;
    return DIL_OK;
}
