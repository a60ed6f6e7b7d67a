/* Timing of layers: what can be said without a quiet machine. That the sum over layers predicts a whole model is measured by
 * bench/engine.sh, side by side. */
#include <dilemma/engine.h>

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static dil_arch arch(bool opt)
{
    dil_arch a = {.name = "llama", .n_blocks = 6, .n_embd = 256, .n_embd_word = 256, .n_ff = 512, .n_head = 4, .n_head_kv = 2,
                  .head_dim = 64, .n_vocab = 1000, .n_ctx_train = 512, .norm_eps = 1e-5f, .norm_before = true, .final_norm = true,
                  .positions = DIL_POS_ROPE_NORM, .rope_freq_base = 10000, .rope_scale = 1, .rope_dims = 64, .gated_ffn = true,
                  .tied_head = true};
    if (opt) {
        a.family = DIL_FAMILY_OPT;
        a.norm = DIL_NORM_LAYER;
        a.n_head_kv = 4;
        a.n_embd_word = 128;
        a.norm_before = a.final_norm = a.gated_ffn = false;
        a.positions = DIL_POS_LEARNED;
        a.position_offset = 2;
        a.act = DIL_ACT_RELU;
        a.qkv_bias = a.out_bias = a.ffn_bias = true;
    }
    return a;
}

static void every_layer_and_type_is_timed_within_its_limit(void **state)
{
    (void)state;
    static const dil_type type[] = {DIL_TYPE_F16, DIL_TYPE_Q4_0, DIL_TYPE_IQ4_NL, DIL_TYPE_MXFP4, DIL_TYPE_Q2_K, DIL_TYPE_IQ2_XXS, DIL_TYPE_IQ3_S};
    for (int opt = 0; opt < 2; opt++) {
        dil_arch a = arch(opt);
        for (uint32_t layer = 0; layer < dil_arch_n_layers(&a); layer += layer == 1 ? a.n_blocks : 1) {
            for (size_t k = 0; k < sizeof type / sizeof *type; k++) {
                dil_layer_tensor t[DIL_LAYER_TENSORS_MAX];
                dil_type types[DIL_LAYER_TENSORS_MAX];
                size_t n = dil_arch_layer_tensors(&a, layer, t);
                for (size_t i = 0; i < n; i++) types[i] = dil_type_fits_row(type[k], t[i].ne[0]) ? type[k] : DIL_TYPE_Q4_0;
                dil_layer_time r = {0};
                dil_err err = {0};
                clock_t start = clock(); /* CPU time: the machine may be busy */
                if (dil_engine_time_layer(&a, layer, types, NULL, 1, 20, 32, 0.1, &r, &err)) fail_msg("%s", err.text);
                assert_true((double)(clock() - start) / CLOCKS_PER_SEC < 5); /* far beyond the limit */
                assert_true(r.decode_sec > 0 && r.decode_sec < 1 && r.prefill_sec > 0 && r.prefill_sec < 1);
                assert_true(r.decode_spread >= 0 && r.prefill_spread >= 0);
            }
        }
    }
}

static void what_cannot_be_timed_is_refused(void **state)
{
    (void)state;
    dil_arch a = arch(true);
    dil_type types[DIL_LAYER_TENSORS_MAX];
    for (size_t i = 0; i < DIL_LAYER_TENSORS_MAX; i++) types[i] = DIL_TYPE_Q4_K;
    dil_layer_time r;
    dil_err err = {0};
    assert_int_equal(dil_engine_time_layer(&a, 0, types, NULL, 1, 0, 8, 0.1, &r, &err), DIL_EUSAGE); /* rows of 128 */
    assert_non_null(strstr(err.text, "token_embd.weight"));
    assert_int_equal(dil_engine_time_layer(&a, 8, types, NULL, 1, 0, 8, 0.1, &r, &err), DIL_EUSAGE);
    assert_int_equal(dil_engine_time_layer(&a, 1, types, NULL, 1, 0, 0, 0.1, &r, &err), DIL_EUSAGE);
    assert_int_equal(dil_engine_time_layer(&a, 1, types, NULL, 1, 0, 8, 0, &r, &err), DIL_EUSAGE);
    assert_int_equal(dil_engine_time_layer(&a, 1, types, "Abacus0", 1, 0, 8, 0.1, &r, &err), DIL_ENOTFOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_layer_and_type_is_timed_within_its_limit),
        cmocka_unit_test(what_cannot_be_timed_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
