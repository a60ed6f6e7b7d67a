/* The start of a training: architecture, vocabulary, random weights, written as one GGUF file. */
#include <dilemma/scratch.h>

#include "base/half.h"
#include "model/bpe_train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- the shape ---------------------------------------------------------------------------------------------------------------------- */

typedef struct word { const char *key; uint32_t value, most; } word;
enum { LAYERS, HIDDEN, HEADS, FFN, PROJ, CONTEXT, VOCAB, N_WORDS };

static dil_status read_word(word *words, bool *post, const char *s, size_t len, dil_err *err)
{
    const char *equal = memchr(s, '=', len);
    size_t n = equal ? (size_t)(equal - s) : len;
    if (equal && n == 4 && memcmp(s, "norm", 4) == 0) {
        *post = len == 9 && memcmp(s, "norm=post", 9) == 0;
        if (*post || (len == 8 && memcmp(s, "norm=pre", 8) == 0)) return DIL_OK;
    }
    for (word *w = words; equal && w < words + N_WORDS; w++) {
        if (strlen(w->key) != n || memcmp(s, w->key, n) != 0) continue;
        char *end;
        unsigned long v = strtoul(equal + 1, &end, 10);
        if (end != s + len || equal[1] < '0' || equal[1] > '9' || v < 1 || v > w->most)
            return dil_fail(err, DIL_EUSAGE, "\"%.*s\": %s is 1 to %u", (int)len, s, w->key, w->most);
        w->value = (uint32_t)v;
        return DIL_OK;
    }
    return dil_fail(err, DIL_EUSAGE, "\"%.*s\": known are layers=, hidden=, heads=, ffn=, proj=, context=, vocab=, norm=pre and norm=post", (int)(len < 60 ? len : 60), s);
}

dil_status dil_scratch_arch(const char *line, dil_arch *out, dil_err *err)
{
    word w[N_WORDS] = {{"layers", 6, 256}, {"hidden", 256, 16384}, {"heads", 4, 256}, {"ffn", 1024, 65536}, {"proj", 0, 16384},
                       {"context", 512, 1 << 16}, {"vocab", 4096, DIL__BPE_TRAIN_VOCAB}};
    bool post = true;
    dil_status st = DIL_OK;
    if (strncmp(line, "opt:", 4) != 0 && strcmp(line, "opt") != 0) return dil_fail(err, DIL_EUSAGE, "\"%.40s\": what can be made from nothing is \"opt:...\"", line);
    for (const char *s = line + 3; *s && st == DIL_OK;) {
        size_t n = strcspn(++s, ",");
        if (n > 0) st = read_word(w, &post, s, n, err);
        s += n;
    }
    if (st != DIL_OK) return st;
    uint32_t hidden = w[HIDDEN].value, heads = w[HEADS].value;
    if (hidden % heads != 0) return dil_fail(err, DIL_EUSAGE, "hidden=%u is no multiple of heads=%u", hidden, heads);
    *out = (dil_arch){.family = DIL_FAMILY_OPT, .name = "opt", .n_blocks = w[LAYERS].value, .n_embd = hidden, .n_embd_word = w[PROJ].value ? w[PROJ].value : hidden,
                      .n_ff = w[FFN].value, .n_head = heads, .n_head_kv = heads, .head_dim = hidden / heads, .n_vocab = w[VOCAB].value,
                      .n_ctx_train = w[CONTEXT].value, .norm = DIL_NORM_LAYER, .norm_eps = 1e-5f, .norm_before = !post, .final_norm = !post,
                      .positions = DIL_POS_LEARNED, .position_offset = 2, .rope_scale = 1, .act = DIL_ACT_RELU, .qkv_bias = true, .out_bias = true,
                      .ffn_bias = true, .tied_head = true};
    return DIL_OK;
}

/* --- the vocabulary ------------------------------------------------------------------------------------------------------------------- */

static dil_status count_words(dil__bpe_trainer *t, const dil_dataset *d, dil_err *err)
{
    dil_status st = DIL_OK;
    for (size_t i = 0; i < d->n_samples && st == DIL_OK; i++) {
        const dil_sample *s = &d->samples[i];
        bool same = i > 0 && s->context && s[-1].context && strcmp(s->context, s[-1].context) == 0;
        if (!s->context) st = dil__bpe_trainer_text(t, s->prompt, s->prompt_len, err);
        else if (!same) st = dil__bpe_trainer_text(t, s->context, strlen(s->context), err);
        if (st == DIL_OK && s->question) st = dil__bpe_trainer_text(t, s->question, strlen(s->question), err);
        if (st == DIL_OK) st = dil__bpe_trainer_text(t, s->completion, s->completion_len, err);
    }
    return st;
}

static dil_status put_vocabulary(const char *data, dil_data_format format, uint32_t n_vocab, dil_gguf_writer *w, dil_err *err)
{
    dil_dataset d;
    dil__bpe_trainer *t = NULL;
    dil_status st = dil_dataset_load(data, format, &d, err);
    if (st != DIL_OK) return st;
    st = dil__bpe_trainer_new(&t, err);
    if (st == DIL_OK) st = count_words(t, &d, err);
    if (st == DIL_OK) st = dil__bpe_trainer_put(t, n_vocab, w, err);
    dil__bpe_trainer_free(t);
    dil_dataset_fini(&d);
    return st;
}

/* --- the weights ------------------------------------------------------------------------------------------------------------------------ */

static bool is_matrix(const dil_layer_tensor *t)
{
    return t->linear || strcmp(t->role, "position_embd") == 0;
}

static dil_status announce(dil_gguf_writer *w, const dil_layer_tensor *t, dil_err *err)
{
    dil_tensor out = {.type = is_matrix(t) ? DIL_TYPE_F16 : DIL_TYPE_F32, .n_dims = is_matrix(t) ? 2 : 1, .ne = {t->ne[0], t->ne[1], 1, 1}};
    memcpy(out.name, t->name, sizeof out.name);
    return dil_gguf_put_tensor(w, &out, err);
}

static dil_status write_matrix(dil_gguf_writer *w, const dil_layer_tensor *t, dil_rng *rng, dil_err *err)
{
    bool between = strncmp(t->role, "project_", 8) == 0;
    double size = between ? 1 / sqrt((double)t->ne[0]) : 0.02;
    uint8_t *row = malloc(2 * t->ne[0]);
    dil_status st = row ? DIL_OK : dil_fail(err, DIL_EMEMORY, "out of memory");
    for (uint64_t r = 0; r < t->ne[1] && st == DIL_OK; r++) {
        for (uint64_t i = 0; i < t->ne[0]; i++) {
            uint16_t h = dil__f16_from_f32((float)(size * dil_rng_normal(rng)));
            row[2 * i] = (uint8_t)h;
            row[2 * i + 1] = (uint8_t)(h >> 8);
        }
        st = dil_gguf_write_data(w, row, 2 * t->ne[0], err);
    }
    free(row);
    return st;
}

static dil_status write_vector(dil_gguf_writer *w, const dil_layer_tensor *t, dil_err *err)
{
    float *v = calloc(t->ne[0], sizeof *v);
    if (!v) return dil_fail(err, DIL_EMEMORY, "out of memory");
    bool ones = !strchr(t->role, '.'); /* a norm's weight, not a bias */
    for (uint64_t i = 0; ones && i < t->ne[0]; i++) v[i] = 1;
    dil_status st = dil_gguf_write_data(w, v, t->ne[0] * sizeof *v, err);
    free(v);
    return st;
}

/* announce all tensors, or write all their values. */
static dil_status each_tensor(dil_gguf_writer *w, const dil_arch *a, dil_rng *rng, dil_err *err)
{
    dil_status st = DIL_OK;
    for (uint32_t l = 0; l < dil_arch_n_layers(a); l++) {
        dil_layer_tensor t[DIL_LAYER_TENSORS_MAX];
        size_t n = dil_arch_layer_tensors(a, l, t);
        for (size_t i = 0; i < n && st == DIL_OK; i++) {
            if (t[i].shared) continue;
            st = !rng ? announce(w, &t[i], err) : is_matrix(&t[i]) ? write_matrix(w, &t[i], rng, err) : write_vector(w, &t[i], err);
        }
    }
    return st;
}

dil_status dil_scratch(const char *line, const char *data, dil_data_format format, uint64_t seed, const char *out, dil_err *err)
{
    dil_arch a;
    dil_gguf_writer *w;
    dil_rng rng;
    dil_rng_init(&rng, seed);
    dil_status st = dil_scratch_arch(line, &a, err);
    if (st == DIL_OK) st = dil_gguf_writer_new(&w, err);
    if (st != DIL_OK) return st;
    st = dil_arch_put(w, &a, err);
    if (st == DIL_OK) st = dil_gguf_put_str(w, "general.type", "model", err);
    if (st == DIL_OK) st = dil_gguf_put_u32(w, "general.file_type", 1, err); /* mostly F16 */
    if (st == DIL_OK) st = put_vocabulary(data, format, a.n_vocab, w, err);
    if (st == DIL_OK) st = each_tensor(w, &a, NULL, err);
    if (st == DIL_OK) st = dil_gguf_begin(w, out, err);
    if (st == DIL_OK) st = each_tensor(w, &a, &rng, err);
    if (st == DIL_OK) st = dil_gguf_commit(w, err);
    dil_gguf_writer_free(w);
    return st;
}
