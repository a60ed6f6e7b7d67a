/* Seconds of one layer at given types: a stage of copies of that layer with random weights runs through the same graphs as a
 * real one, so that kernels, shapes, barriers and cache misses are those of the model. Timing single operations was rejected:
 * their sum misses the barriers between them and finds its weights in the cache. */
#include "engine/stage.h"
#include "engine/synthetic.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SET_BYTES_MIN (32u << 20)
#define SET_BYTES_MAX (96u << 20) /* bounds time and memory; a cache larger than this would be measured too warm */
#define COPIES_MAX 64u
#define DECODE_RUNS 25
#define PREFILL_RUNS 5
#define DECODE_SHARE 0.5        /* of the time limit */

typedef struct timing {
    dil_arch arch;      /* with as many blocks as there are copies, and one more: no copy is the model's last block */
    const dil_type *types;
    const char *device;
    int n_threads;
    uint32_t n_past, n_batch, copies, first, last;
    dil__synthetic *data;
    float *in, *out;
    int32_t *token, *pos;
    uint8_t *want;
    dil_sampler *sampler; /* of a head */
    dil_err *err;
} timing;

static dil_type type_of(void *ctx, uint32_t layer, size_t index, const dil_layer_tensor *t)
{
    (void)layer;
    (void)t;
    return ((const dil_type *)ctx)[index];
}

static uint64_t layer_bytes(const dil_arch *a, uint32_t layer, const dil_type *types)
{
    dil_layer_tensor t[DIL_LAYER_TENSORS_MAX];
    size_t n = dil_arch_layer_tensors(a, layer, t);
    uint64_t sum = 0, row;
    for (size_t i = 0; i < n; i++) {
        if (dil_type_row_bytes(t[i].linear ? types[i] : DIL_TYPE_F32, t[i].ne[0], &row)) sum += row * t[i].ne[1];
    }
    return sum;
}

/* As much as a share of the model that does not stay in the cache, but never more layers than the model has. */
static uint32_t count_copies(const dil_arch *a, uint32_t layer, const dil_type *types)
{
    if (layer == 0 || layer > a->n_blocks) return 1;
    long cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
    uint64_t want = cache > 0 ? (uint64_t)cache * 2 : SET_BYTES_MIN, bytes = layer_bytes(a, layer, types);
    if (want < SET_BYTES_MIN) want = SET_BYTES_MIN;
    if (want > SET_BYTES_MAX) want = SET_BYTES_MAX;
    uint64_t n = bytes ? (want + bytes - 1) / bytes : 1;
    if (n > a->n_blocks) n = a->n_blocks;
    return (uint32_t)(n < COPIES_MAX ? n : COPIES_MAX);
}

static dil_status make_inputs(timing *t)
{
    uint32_t n = t->n_batch;
    size_t width = t->arch.n_embd, out = t->last == t->arch.n_blocks + 1 ? t->arch.n_vocab : width;
    t->in = calloc((size_t)n * width, sizeof *t->in);
    t->out = calloc((size_t)n * out, sizeof *t->out);
    t->token = calloc(n, sizeof *t->token);
    t->pos = calloc(n, sizeof *t->pos);
    t->want = calloc(n, sizeof *t->want);
    if (!t->in || !t->out || !t->token || !t->pos || !t->want) return dil_fail(t->err, DIL_EMEMORY, "timing: no memory for batches of %u", n);
    dil_rng rng;
    dil_rng_init(&rng, 3);
    for (size_t i = 0; i < (size_t)n * width; i++) t->in[i] = (float)dil_rng_normal(&rng);
    for (uint32_t i = 0; i < n; i++) {
        t->token[i] = (int32_t)dil_rng_below(&rng, t->arch.n_vocab);
        t->want[i] = 1;
    }
    return DIL_OK;
}

static dil_status open_copies(const timing *t, uint32_t copies, dil_stage **out)
{
    bool blocks = t->first > 0 && t->first <= t->arch.n_blocks;
    dil_stage_opts o = {.device = t->device, .n_threads = t->n_threads, .first_layer = t->first, .kv_type = DIL_TYPE_F16,
                        .last_layer = blocks ? t->first + copies - 1 : t->last, .n_ctx = t->n_past + t->n_batch + 1, .max_batch = t->n_batch};
    dil_weights w = dil__synthetic_weights(t->data);
    return dil_stage_open(&t->arch, &w, &o, NULL, out, t->err);
}

static dil_status run_once(timing *t, dil_stage *s, uint32_t n_tokens, double *sec)
{
    for (uint32_t i = 0; i < n_tokens; i++) t->pos[i] = (int32_t)(t->n_past + i);
    s->kv.len[0] = t->n_past; /* zeros are as good as any keys and values here */
    dil_batch b = {.n_tokens = n_tokens, .token = t->token, .pos = t->pos, .want = t->want};
    int64_t start = dil_now_ns();
    dil_status status = dil_stage_eval(s, &b, t->in, t->out, t->err);
    float logprob;
    if (!status && t->sampler) dil_sampler_pick(t->sampler, t->out, &logprob); /* the last stage chooses the token */
    *sec = (double)(dil_now_ns() - start) * 1e-9;
    return status;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Runs until max_runs or the deadline, the first run apart: it builds the graph. Seconds per token and copy. */
static dil_status series(timing *t, uint32_t copies, uint32_t n_tokens, int max_runs, int64_t deadline, double *median, double *spread)
{
    dil_stage *s;
    double x[DECODE_RUNS + 1], first = 0;
    int n = 0;
    dil_status status = open_copies(t, copies, &s);
    if (status) return status;
    status = run_once(t, s, n_tokens, &first);
    do {
        if (!status) status = run_once(t, s, n_tokens, &x[n++]);
    } while (!status && n < max_runs && dil_now_ns() + (int64_t)(first * 1e9) < deadline);
    dil_stage_close(s);
    if (status) return status;
    qsort(x, (size_t)n, sizeof *x, by_value);
    *median = x[n / 2] / ((double)n_tokens * copies);
    *spread = x[n / 2] > 0 ? (x[n * 3 / 4] - x[n / 4]) / x[n / 2] : 0;
    return DIL_OK;
}

static dil_status measure(timing *t, double limit_sec, dil_layer_time *out)
{
    int64_t start = dil_now_ns(), limit = (int64_t)(limit_sec * 1e9);
    dil__synthetic_opts o = {.first_layer = t->first, .last_layer = t->last, .type_of = type_of, .ctx = (void *)(uintptr_t)t->types,
                             .from_pool = true, .seed = 1};
    dil_status s = dil__synthetic_new(&t->arch, &o, &t->data, t->err);
    if (!s) s = make_inputs(t);
    dil_sampler_opts greedy = {0};
    if (!s && t->last == t->arch.n_blocks + 1 && !(t->sampler = dil_sampler_new(&greedy, t->arch.n_vocab))) s = dil_fail(t->err, DIL_EMEMORY, "timing: no memory for a sampler");
    dil_layer_time r = {0};
    if (!s) s = series(t, t->copies, 1, DECODE_RUNS, start + (int64_t)((double)limit * DECODE_SHARE), &r.decode_sec, &r.decode_spread);
    if (!s) s = series(t, 1, t->n_batch, PREFILL_RUNS, start + limit, &r.prefill_sec, &r.prefill_spread);
    if (!s) *out = r;
    dil__synthetic_free(t->data);
    dil_sampler_free(t->sampler);
    free(t->in);
    free(t->out);
    free(t->token);
    free(t->pos);
    free(t->want);
    return s;
}

dil_status dil_engine_time_layer(const dil_arch *arch, uint32_t layer, const dil_type *types, const char *device, int n_threads,
                                 uint32_t n_past, uint32_t n_batch, double limit_sec, dil_layer_time *out, dil_err *err)
{
    if (layer >= dil_arch_n_layers(arch)) return dil_fail(err, DIL_EUSAGE, "timing: layer %u of %u", layer, dil_arch_n_layers(arch));
    if (n_batch == 0 || n_batch > DIL__BATCH_MAX) return dil_fail(err, DIL_EUSAGE, "timing: batches of %u", n_batch);
    if (!(limit_sec > 0)) return dil_fail(err, DIL_EUSAGE, "timing: a limit of %g s", limit_sec);
    if (n_past >= DIL__CTX_MAX - n_batch - 1) return dil_fail(err, DIL_ELIMIT, "timing: %u tokens of context", n_past);
    timing t = {.arch = *arch, .types = types, .device = device, .n_threads = n_threads, .n_past = n_past, .n_batch = n_batch, .err = err};
    bool head = layer == arch->n_blocks + 1;
    if (head && t.n_batch > DIL__HEAD_ROWS) t.n_batch = DIL__HEAD_ROWS; /* more are computed in such pieces */
    t.copies = count_copies(arch, layer, types);
    t.arch.n_blocks = t.copies + 1;
    t.arch.n_ctx_train = arch->n_ctx_train > n_past + n_batch + 1 ? arch->n_ctx_train : n_past + n_batch + 1;
    t.first = layer == 0 ? 0 : head ? t.arch.n_blocks + 1 : 1;
    t.last = layer == 0 || head ? t.first : t.copies;
    return measure(&t, limit_sec, out);
}
