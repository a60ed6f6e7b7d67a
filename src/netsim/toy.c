#include "netsim/toy.h"

#include "base/mix.h"
#include "netsim/world.h"

#include <stdlib.h>
#include <string.h>

/* --- the function ------------------------------------------------------------------------------------------------------------------------ */

static uint64_t join(uint64_t a, uint64_t b)
{
    return dil__mix(a * UINT64_C(0x9E3779B97F4A7C15) + b + 1);
}

/* A layer is known by its weights. */
static uint64_t key_of(const dil_arch *a, const dil_weights *weights, uint32_t layer)
{
    dil_layer_tensor t[DIL_LAYER_TENSORS_MAX];
    size_t n = dil_arch_layer_tensors(a, layer, t);
    uint64_t key = layer;
    for (size_t i = 0; i < n; i++) {
        const dil_tensor *tensor = dil_weights_find(weights, t[i].name);
        const uint8_t *p = tensor ? tensor->data : NULL;
        for (uint64_t k = 0; p && k + 8 <= tensor->bytes; k += 8) {
            uint64_t word;
            memcpy(&word, p + k, 8);
            key = (key ^ word) * UINT64_C(0x100000001B3);
        }
    }
    return dil__mix(key);
}

/* Half of the time the next token follows from the last alone, so that texts repeat themselves and guesses come true. */
static void logits_of(uint64_t key, uint64_t x, uint32_t token, float *logits)
{
    uint64_t h = join(key, x);
    for (uint32_t v = 0; v < TOY_VOCAB; v++) logits[v] = (float)(dil__mix(h + v * UINT64_C(0x9E3779B97F4A7C15)) >> 44) / (float)(1 << 18);
    if (h % 2) logits[(token * 7 + 3) % TOY_VOCAB] = 6;
}

uint32_t toy_text(const dil_arch *arch, const dil_gguf *g, const dil_sampler_opts *o, const int32_t *prompt, uint32_t n_prompt, uint32_t max, int32_t stop,
                  int32_t *out, bool *stopped)
{
    dil_weights weights = dil_gguf_weights(g);
    uint32_t n_layers = dil_arch_n_layers(arch), n = 0;
    uint64_t key[64], past[64];
    for (uint32_t l = 0; l < n_layers; l++) past[l] = key[l] = key_of(arch, &weights, l);
    dil_sampler *s = dil_sampler_new(o, TOY_VOCAB);
    *stopped = false;
    for (uint32_t pos = 0; n < max; pos++) {
        uint32_t token = (uint32_t)(pos < n_prompt ? prompt[pos] : out[pos - n_prompt]);
        uint64_t x = join(key[0], token);
        for (uint32_t l = 1; l + 1 < n_layers; l++) {
            past[l] = join(past[l], x);
            x = join(past[l] ^ x, key[l]);
        }
        if (pos + 1 < n_prompt) continue;
        float logits[TOY_VOCAB];
        logits_of(key[n_layers - 1], x, token, logits);
        int32_t next = dil_sampler_pick(s, logits, NULL);
        dil_sampler_accept(s, next);
        if (next == stop) {
            *stopped = true;
            break;
        }
        out[n++] = next;
    }
    dil_sampler_free(s);
    return n;
}

/* --- a stage ------------------------------------------------------------------------------------------------------------------------------ */

struct dil_stage {
    dil_stage_opts o;
    uint32_t n_layers;
    uint64_t *key;   /* [last - first + 1] */
    uint64_t *past;  /* [n_seq][layers][n_ctx] what the layer has seen up to the position */
    uint32_t *len;   /* [n_seq] */
};

static uint64_t *cell(const dil_stage *s, uint32_t seq, uint32_t layer, uint32_t pos)
{
    uint32_t n = s->o.last_layer - s->o.first_layer + 1;
    return &s->past[((size_t)seq * n + (layer - s->o.first_layer)) * s->o.n_ctx + pos];
}

static void toy_close(dil_stage *s)
{
    if (!s) return;
    free(s->key);
    free(s->past);
    free(s->len);
    free(s);
}

static dil_status toy_open(const dil_arch *arch, const dil_weights *w, const dil_stage_opts *o, const dil_progress *p, dil_stage **out, dil_err *err)
{
    (void)p;
    uint32_t n = o->last_layer - o->first_layer + 1;
    dil_stage *s = calloc(1, sizeof *s);
    if (s) *s = (dil_stage){.o = *o, .n_layers = dil_arch_n_layers(arch), .key = calloc(n, sizeof *s->key), .len = calloc(o->n_seq, sizeof *s->len),
                            .past = calloc((size_t)o->n_seq * n * o->n_ctx, sizeof *s->past)};
    if (!s || !s->key || !s->past || !s->len) {
        toy_close(s);
        return dil_fail(err, DIL_EMEMORY, "no memory for a stage");
    }
    for (uint32_t l = 0; l < n; l++) s->key[l] = key_of(arch, w, o->first_layer + l);
    sim_sleep((int64_t)(1e6 * (double)n * sim_here()->slow));
    *out = s;
    return DIL_OK;
}

static void toy_trim(dil_stage *s, uint32_t seq, uint32_t from_pos)
{
    if (seq < s->o.n_seq && from_pos < s->len[seq]) s->len[seq] = from_pos;
}

/* Numbers up to 255 survive F16 and BF16. */
static void write_hidden(uint64_t x, uint32_t token, float *hidden)
{
    memset(hidden, 0, TOY_EMBD * sizeof *hidden);
    for (int i = 0; i < 8; i++) hidden[i] = (float)(x >> 8 * i & 255);
    hidden[8] = (float)token;
}

static void read_hidden(const float *hidden, uint64_t *x, uint32_t *token)
{
    *x = 0;
    for (int i = 0; i < 8; i++) *x |= (uint64_t)hidden[i] << 8 * i;
    *token = (uint32_t)hidden[8];
}

static uint64_t run_layers(dil_stage *s, uint32_t seq, uint32_t pos, uint64_t x)
{
    for (uint32_t l = s->o.first_layer; l <= s->o.last_layer; l++) {
        uint64_t key = s->key[l - s->o.first_layer];
        if (l == 0 || l + 1 == s->n_layers) continue;
        *cell(s, seq, l, pos) = join(pos ? *cell(s, seq, l, pos - 1) : key, x);
        x = join(*cell(s, seq, l, pos) ^ x, key);
    }
    return x;
}

static dil_status toy_eval(dil_stage *s, const dil_batch *b, const float *hidden_in, float *out, dil_err *err)
{
    bool first = s->o.first_layer == 0, last = s->o.last_layer + 1 == s->n_layers;
    uint32_t wanted = 0;
    sim_trace("layers %u-%u compute %u tokens: sequence %d, position %d", s->o.first_layer, s->o.last_layer, b->n_tokens, b->seq[0], b->pos[0]);
    if (b->n_tokens > s->o.max_batch) return dil_fail(err, DIL_ELIMIT, "toy: %u tokens, at most %u", b->n_tokens, s->o.max_batch);
    for (uint32_t i = 0; i < b->n_tokens; i++) {
        uint32_t seq = (uint32_t)b->seq[i], pos = (uint32_t)b->pos[i], token = first ? (uint32_t)b->token[i] : 0;
        if (pos > s->len[seq]) return dil_fail(err, DIL_EDATA, "toy: sequence %u holds %u tokens, position %u comes", seq, s->len[seq], pos);
        s->len[seq] = pos + 1;
        uint64_t x = first ? join(s->key[0], token) : 0;
        if (!first) read_hidden(hidden_in + (size_t)i * TOY_EMBD, &x, &token);
        x = run_layers(s, seq, pos, x);
        if (!last) write_hidden(x, token, out + (size_t)i * TOY_EMBD);
        else if (b->want[i]) logits_of(s->key[s->o.last_layer - s->o.first_layer], x, token, out + (size_t)wanted++ * TOY_VOCAB);
    }
    sim_sleep((int64_t)(TOY_LAYER_SEC * 1e9 * (s->o.last_layer - s->o.first_layer + 1) * b->n_tokens * sim_here()->slow));
    return DIL_OK;
}

static dil_status toy_measure(const dil_arch *arch, const dil_stage_opts *o, uint64_t *kv_bytes_per_block, uint64_t *buffer_bytes, dil_err *err)
{
    (void)err;
    *kv_bytes_per_block = dil_arch_kv_bytes(arch, o->n_ctx, o->kv_type) * o->n_seq;
    *buffer_bytes = TOY_BUFFER_BYTES;
    return DIL_OK;
}

static dil_status toy_time_layer(const dil_arch *arch, uint32_t layer, const dil_type *types, const char *device, int n_threads, uint32_t n_past,
                                 uint32_t n_batch, double limit_sec, dil_layer_time *out, dil_err *err)
{
    (void)arch, (void)layer, (void)types, (void)device, (void)n_threads, (void)n_past, (void)n_batch, (void)limit_sec, (void)out;
    return dil_fail(err, DIL_EUNSUPPORTED, "toy: layers are not timed");
}

const dil__engine toy_engine = {toy_open, toy_close, toy_eval, toy_trim, toy_measure, toy_time_layer};

/* What the planner asks the engine: the same numbers. */
dil_status __wrap_dil_engine_layer_memory(const dil_arch *arch, const dil_stage_opts *o, dil_layer_memory *out, dil_err *err);
dil_status __wrap_dil_engine_layer_memory(const dil_arch *arch, const dil_stage_opts *o, dil_layer_memory *out, dil_err *err)
{
    *out = (dil_layer_memory){.embedding_buffer = TOY_BUFFER_BYTES, .block_buffer = TOY_BUFFER_BYTES, .head_buffer = TOY_BUFFER_BYTES};
    uint64_t buffer;
    return toy_measure(arch, o, &out->kv_bytes, &buffer, err);
}

/* --- the model ------------------------------------------------------------------------------------------------------------------------------ */

static dil_status put_tensors(dil_gguf_writer *w, const dil_arch *a, dil_err *err)
{
    dil_status st = DIL_OK;
    for (uint32_t l = 0; l < dil_arch_n_layers(a); l++) {
        dil_layer_tensor t[DIL_LAYER_TENSORS_MAX];
        size_t n = dil_arch_layer_tensors(a, l, t);
        for (size_t i = 0; i < n && st == DIL_OK; i++) {
            uint64_t rows = t[i].ne[1] ? t[i].ne[1] : 1;
            dil_tensor out = {.type = DIL_TYPE_F32, .n_dims = rows > 1 ? 2 : 1, .ne = {t[i].ne[0], rows, 1, 1}, .bytes = t[i].ne[0] * rows * sizeof(float)};
            memcpy(out.name, t[i].name, sizeof out.name);
            st = dil_gguf_put_tensor(w, &out, err);
        }
    }
    return st;
}

static dil_status write_tensors(dil_gguf_writer *w, const dil_arch *a, uint64_t seed, dil_err *err)
{
    dil_rng rng;
    dil_rng_init(&rng, seed);
    dil_status st = DIL_OK;
    for (uint32_t l = 0; l < dil_arch_n_layers(a); l++) {
        dil_layer_tensor t[DIL_LAYER_TENSORS_MAX];
        size_t n = dil_arch_layer_tensors(a, l, t);
        for (size_t i = 0; i < n && st == DIL_OK; i++) {
            static float data[TOY_VOCAB * TOY_EMBD];
            size_t count = (size_t)(t[i].ne[0] * (t[i].ne[1] ? t[i].ne[1] : 1));
            for (size_t k = 0; k < count; k++) data[k] = (float)dil_rng_unit(&rng);
            st = dil_gguf_write_data(w, data, count * sizeof *data, err);
        }
    }
    return st;
}

dil_status toy_model(const char *path, uint32_t n_blocks, uint64_t seed, dil_gguf **g, dil_arch *arch, dil_err *err)
{
    dil_arch a = {.family = DIL_FAMILY_LLAMA, .name = "llama", .n_blocks = n_blocks, .n_embd = TOY_EMBD, .n_embd_word = TOY_EMBD, .n_ff = TOY_EMBD, .n_head = 2,
                  .n_head_kv = 1, .head_dim = 16, .n_vocab = TOY_VOCAB, .n_ctx_train = 256, .norm = DIL_NORM_RMS, .norm_eps = 1e-5f, .norm_before = true,
                  .final_norm = true, .positions = DIL_POS_ROPE_NORM, .rope_freq_base = 10000, .rope_scale = 1, .rope_dims = 16, .act = DIL_ACT_SILU,
                  .gated_ffn = true};
    dil_gguf_writer *w = NULL;
    dil_status st = dil_gguf_writer_new(&w, err);
    if (st == DIL_OK) st = dil_arch_put(w, &a, err);
    if (st == DIL_OK) st = put_tensors(w, &a, err);
    if (st == DIL_OK) st = dil_gguf_begin(w, path, err);
    if (st == DIL_OK) st = write_tensors(w, &a, seed, err);
    if (st == DIL_OK) st = dil_gguf_commit(w, err);
    dil_gguf_writer_free(w);
    if (st == DIL_OK) st = dil_gguf_open(path, g, err);
    return st == DIL_OK ? dil_arch_read(*g, arch, err) : st;
}
