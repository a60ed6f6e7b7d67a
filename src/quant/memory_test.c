/* The planner adds weights, KV and the largest buffer of a node's layers; the node measures its stage before it accepts it. What the
 * planner counts must never be less, for any range of layers, and not much more. */
#include "quant/profiler.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const dil_arch smol = {.family = DIL_FAMILY_LLAMA, .name = "llama", .n_blocks = 5, .n_embd = 576, .n_embd_word = 576, .n_ff = 1536,
                              .n_head = 9, .n_head_kv = 3, .head_dim = 64, .n_vocab = 49152, .n_ctx_train = 4096, .norm = DIL_NORM_RMS,
                              .norm_eps = 1e-5f, .norm_before = true, .final_norm = true, .positions = DIL_POS_ROPE_NORM,
                              .rope_freq_base = 10000, .rope_scale = 1, .rope_dims = 64, .act = DIL_ACT_SILU, .gated_ffn = true,
                              .tied_head = true};
static const dil_arch tiny = {.family = DIL_FAMILY_LLAMA, .name = "tiny", .n_blocks = 7, .n_embd = 128, .n_embd_word = 128, .n_ff = 256,
                              .n_head = 4, .n_head_kv = 2, .head_dim = 32, .n_vocab = 2048, .n_ctx_train = 4096, .norm = DIL_NORM_RMS,
                              .norm_eps = 1e-5f, .norm_before = true, .final_norm = true, .positions = DIL_POS_ROPE_NORM,
                              .rope_freq_base = 10000, .rope_scale = 1, .rope_dims = 32, .act = DIL_ACT_SILU, .gated_ffn = true,
                              .tied_head = true};
static const dil_arch opt350 = {.family = DIL_FAMILY_OPT, .name = "opt", .n_blocks = 5, .n_embd = 1024, .n_embd_word = 512, .n_ff = 4096,
                                .n_head = 16, .n_head_kv = 16, .head_dim = 64, .n_vocab = 50272, .n_ctx_train = 2048, .norm = DIL_NORM_LAYER,
                                .norm_eps = 1e-5f, .positions = DIL_POS_LEARNED, .position_offset = 2, .rope_scale = 1,
                                .act = DIL_ACT_RELU, .qkv_bias = true, .out_bias = true, .ffn_bias = true, .tied_head = true};

static void check_ranges(const dil_arch *a, uint32_t n_ctx, uint32_t max_batch)
{
    dil_stage_opts o = {.n_threads = 2, .n_ctx = n_ctx, .n_seq = 1, .max_batch = max_batch, .kv_type = DIL_TYPE_F16};
    dil__memory m;
    dil_err err = {0};
    if (dil__profile_memory(a, &o, &m, &err)) fail_msg("%s", err.text);
    assert_int_equal(m.kv[DIL__BLOCK], dil_arch_kv_bytes(a, n_ctx, DIL_TYPE_F16));
    for (uint32_t first = 0; first <= a->n_blocks + 1; first++) {
        for (uint32_t last = first; last <= a->n_blocks + 1; last++) {
            o.first_layer = first;
            o.last_layer = last;
            uint64_t kv, real, counted = 0;
            if (dil_stage_measure(a, &o, &kv, &real, &err)) fail_msg("%s", err.text);
            for (uint32_t l = first; l <= last; l++) {
                uint64_t b = m.buffer[l == 0 ? DIL__EMBEDDING : l == a->n_blocks + 1 ? DIL__HEAD : DIL__BLOCK];
                if (b > counted) counted = b;
            }
            if (real > counted) fail_msg("%s: layers %u to %u need %lu bytes of buffers, counted are %lu", a->name, first, last, real, counted);
            uint32_t from = first < 1 ? 1 : first, to = last > a->n_blocks ? a->n_blocks : last;
            bool small = to < from + 1; /* at most one block: counted as if there were several */
            if (!small && (double)counted > 1.1 * (double)real + 200e3) fail_msg("%s: layers %u to %u: counted %lu, need %lu", a->name, first, last, counted, real);
        }
    }
}

static void no_stage_needs_more_than_was_counted(void **state)
{
    (void)state;
    static const uint32_t ctx[] = {256, 1024, 2048}, batch[] = {32, 128};
    for (size_t i = 0; i < 3; i++) {
        for (size_t j = 0; j < 2; j++) {
            check_ranges(&smol, ctx[i], batch[j]);
            check_ranges(&tiny, ctx[i], batch[j]);
            check_ranges(&opt350, ctx[i], batch[j]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(no_stage_needs_more_than_was_counted)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
