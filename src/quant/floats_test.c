/* Folding against its definition: the same logits, other weights; and what lay on a grid lies on it no more. */
#include "engine/synthetic.h"
#include "quant/codec.h"

#include <dilemma/floats.h>

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { N_VOCAB = 96, N_TOKENS = 24 };

static dil_arch llama_arch(void)
{
    return (dil_arch){.family = DIL_FAMILY_LLAMA, .name = "llama", .n_blocks = 3, .n_embd = 128, .n_embd_word = 128, .n_ff = 192,
                      .n_head = 4, .n_head_kv = 2, .head_dim = 32, .n_vocab = N_VOCAB, .n_ctx_train = 256, .norm = DIL_NORM_RMS,
                      .norm_eps = 1e-5f, .norm_before = true, .final_norm = true, .positions = DIL_POS_ROPE_NORM,
                      .rope_freq_base = 10000, .rope_scale = 1, .rope_dims = 32, .act = DIL_ACT_SILU, .gated_ffn = true, .tied_head = true};
}

static dil_arch opt_arch(bool post_norm)
{
    return (dil_arch){.family = DIL_FAMILY_OPT, .name = "opt", .n_blocks = 2, .n_embd = 128, .n_embd_word = post_norm ? 64 : 128,
                      .n_ff = 256, .n_head = 4, .n_head_kv = 4, .head_dim = 32, .n_vocab = N_VOCAB, .n_ctx_train = 256,
                      .norm = DIL_NORM_LAYER, .norm_eps = 1e-5f, .norm_before = !post_norm, .final_norm = !post_norm,
                      .positions = DIL_POS_LEARNED, .position_offset = 2, .rope_freq_base = 10000, .rope_scale = 1,
                      .act = DIL_ACT_RELU, .qkv_bias = true, .out_bias = true, .ffn_bias = true, .tied_head = true};
}

static dil_type as_q4_1(void *ctx, uint32_t layer, size_t index, const dil_layer_tensor *t)
{
    (void)ctx, (void)layer, (void)index, (void)t;
    return DIL_TYPE_Q4_1;
}

/* A model file of random weights, its linear tensors in Q4_1. */
static void write_model(const dil_arch *a, const char *path)
{
    dil_err err = {0};
    dil__synthetic_opts o = {.last_layer = a->n_blocks + 1, .type_of = as_q4_1, .seed = 11};
    dil__synthetic *s;
    dil_gguf_writer *w;
    if (dil__synthetic_new(a, &o, &s, &err) || dil_gguf_writer_new(&w, &err) || dil_arch_put(w, a, &err)) fail_msg("%s", err.text);
    dil_weights src = dil__synthetic_weights(s);
    for (int pass = 0; pass < 2; pass++) {
        if (pass && dil_gguf_begin(w, path, &err)) fail_msg("%s", err.text);
        for (uint32_t l = 0; l < dil_arch_n_layers(a); l++) {
            dil_layer_tensor t[DIL_LAYER_TENSORS_MAX];
            size_t n = dil_arch_layer_tensors(a, l, t);
            for (size_t i = 0; i < n; i++) {
                if (t[i].shared) continue;
                const dil_tensor *x = dil_weights_find(&src, t[i].name);
                if (pass ? dil_gguf_write_data(w, x->data, x->bytes, &err) : dil_gguf_put_tensor(w, x, &err)) fail_msg("%s", err.text);
            }
        }
    }
    if (dil_gguf_commit(w, &err)) fail_msg("%s", err.text);
    dil_gguf_writer_free(w);
    dil__synthetic_free(s);
}

static void run(const dil_gguf *g, float *logits)
{
    dil_err err = {0};
    dil_arch a;
    if (dil_arch_read(g, &a, &err)) fail_msg("%s", err.text);
    dil_weights w = dil_gguf_weights(g);
    dil_stage_opts o = {.n_threads = 1, .last_layer = a.n_blocks + 1, .n_ctx = 64, .max_batch = N_TOKENS, .kv_type = DIL_TYPE_F32, .no_flash = true};
    dil_stage *s;
    if (dil_stage_open(&a, &w, &o, NULL, &s, &err)) fail_msg("%s", err.text);
    int32_t id[N_TOKENS], pos[N_TOKENS];
    uint8_t want[N_TOKENS];
    for (int i = 0; i < N_TOKENS; i++) id[i] = (i * 37 + 5) % N_VOCAB, pos[i] = i, want[i] = 1;
    dil_batch b = {.n_tokens = N_TOKENS, .token = id, .pos = pos, .want = want};
    if (dil_stage_eval(s, &b, NULL, logits, &err)) fail_msg("%s", err.text);
    dil_stage_close(s);
}

static double grid_error(const dil_gguf *g, const char *name)
{
    const dil_tensor *t = dil_gguf_find(g, name);
    size_t n = (size_t)dil_tensor_elems(t);
    float *a = malloc(n * sizeof *a), *b = malloc(n * sizeof *b);
    uint8_t *q = malloc(n);
    dil_err err = {0};
    assert_int_equal(t->type, DIL_TYPE_F32);
    memcpy(a, t->data, n * sizeof *a);
    if (dil__codec_quantize(DIL_TYPE_Q4_1, a, t->ne[1], t->ne[0], NULL, q, 1, &err) || dil_engine_dequantize(DIL_TYPE_Q4_1, q, n, b, &err)) fail_msg("%s", err.text);
    double e = 0, s = 0;
    for (size_t i = 0; i < n; i++) {
        e += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        s += (double)a[i] * (double)a[i];
    }
    free(a), free(b), free(q);
    return sqrt(e / s);
}

static void check(const dil_arch *a, bool norms)
{
    /* A factor of a whole row only scales the grid: columns must be multiplied to leave it. */
    static const char *const always[] = {"blk.1.attn_output.weight", "blk.0.ffn_down.weight"};
    static const char *const behind_norm[] = {"blk.0.attn_q.weight", "blk.1.attn_k.weight", "blk.0.attn_v.weight", "blk.1.ffn_up.weight"};
    char path[3][64];
    for (int i = 0; i < 3; i++) snprintf(path[i], sizeof path[i], "/tmp/dil-floats-%d-%d.gguf", (int)getpid(), i);
    write_model(a, path[0]);
    dil_err err = {0};
    dil_floats_opts plain = {.type = DIL_TYPE_F32}, fold = {.type = DIL_TYPE_F32, .fold = true, .seed = 5};
    dil_floats_report r;
    if (dil_floats_write(path[0], &plain, path[1], NULL, &r, &err)) fail_msg("%s", err.text);
    assert_int_equal(r.n_folded, 0);
    assert_true(r.n_dequantized >= 6 * a->n_blocks);
    if (dil_floats_write(path[0], &fold, path[2], NULL, &r, &err)) fail_msg("%s", err.text);
    dil_gguf *g[2];
    if (dil_gguf_open(path[1], &g[0], &err) || dil_gguf_open(path[2], &g[1], &err)) fail_msg("%s", err.text);
    float x[2][N_TOKENS * N_VOCAB];
    run(g[0], x[0]);
    run(g[1], x[1]);
    double most = 0, size = 0;
    for (size_t i = 0; i < N_TOKENS * N_VOCAB; i++) {
        most = fmax(most, fabs((double)x[0][i] - (double)x[1][i]));
        size = fmax(size, fabs((double)x[0][i]));
    }
    assert_true(size > 0.1);
    if (!(most < 1e-4)) fail_msg("the logits differ by %g", most);
    for (size_t i = 0; i < 2; i++) {
        assert_true(grid_error(g[0], always[i]) < 2e-3);
        if (!(grid_error(g[1], always[i]) > 0.02)) fail_msg("%s still lies on the grid: error %g", always[i], grid_error(g[1], always[i]));
    }
    for (size_t i = 0; i < 4; i++) assert_int_equal(grid_error(g[1], behind_norm[i]) > 0.02, norms);
    dil_gguf_close(g[0]);
    dil_gguf_close(g[1]);
    for (int i = 0; i < 3; i++) remove(path[i]);
}

static void folding_keeps_the_function_and_leaves_the_grid(void **state)
{
    (void)state;
    dil_arch llama = llama_arch(), opt = opt_arch(false), post = opt_arch(true);
    check(&llama, true);
    check(&opt, true);
    check(&post, false); /* the norms write the residual stream */
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(folding_keeps_the_function_and_leaves_the_grid)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
