/* An architecture that is written reads back equal; a file that holds other tensors than its metadata implies is refused with
 * the tensor's name; sums agree with published counts of parameters. */
#include "model/family.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static char path[64];
static const char *list_of_windows; /* [n_blocks] flags to be written, or NULL */

static dil_arch llama(void)
{
    return (dil_arch){.family = DIL_FAMILY_LLAMA, .name = "llama", .n_blocks = 2, .n_embd = 64, .n_embd_word = 64, .n_ff = 96,
                      .n_head = 4, .n_head_kv = 2, .head_dim = 16, .n_vocab = 40, .n_ctx_train = 128, .norm = DIL_NORM_RMS,
                      .norm_eps = 1e-5f, .norm_before = true, .final_norm = true, .positions = DIL_POS_ROPE_NORM,
                      .rope_freq_base = 100000, .rope_scale = 1, .rope_dims = 16, .act = DIL_ACT_SILU, .gated_ffn = true, .tied_head = true};
}

static dil_arch opt(void)
{
    return (dil_arch){.family = DIL_FAMILY_OPT, .name = "opt", .n_blocks = 2, .n_embd = 64, .n_embd_word = 64, .n_ff = 96, .n_head = 4,
                      .n_head_kv = 4, .head_dim = 16, .n_vocab = 40, .n_ctx_train = 128, .norm = DIL_NORM_LAYER, .norm_eps = 1e-5f,
                      .norm_before = true, .final_norm = true, .positions = DIL_POS_LEARNED, .position_offset = 2,
                      .rope_freq_base = 10000, .rope_scale = 1, .act = DIL_ACT_RELU, .qkv_bias = true, .out_bias = true, .ffn_bias = true, .tied_head = true};
}

/* What a test may do to one tensor, or to the metadata, before the file is written. */
typedef struct damage {
    const char *drop, *rename_to, *extra; /* a tensor's name; drop with rename_to renames */
    const char *wide;                     /* this tensor has one row more */
    const char *typed;                    /* this tensor has this type */
    dil_type type;
    const char *u32_key;
    uint32_t u32_value;
    const char *str_key, *str_value;
} damage;

static void announce(dil_gguf_writer *w, const dil_layer_tensor *want, const damage *d)
{
    dil_tensor t = {.type = want->linear ? DIL_TYPE_F16 : DIL_TYPE_F32, .ne = {want->ne[0], want->ne[1], 1, 1}};
    snprintf(t.name, sizeof t.name, "%s", want->name);
    if (d->drop && strcmp(d->drop, t.name) == 0) {
        if (!d->rename_to) return;
        snprintf(t.name, sizeof t.name, "%s", d->rename_to);
    }
    if (d->wide && strcmp(d->wide, t.name) == 0) t.ne[1]++;
    if (d->typed && strcmp(d->typed, t.name) == 0) t.type = d->type;
    dil_err err;
    assert_int_equal(dil_gguf_put_tensor(w, &t, &err), DIL_OK);
}

static void write_model(const dil_arch *a, const damage *d)
{
    dil_err err;
    dil_gguf_writer *w;
    dil_gguf_writer_new(&w, &err);
    assert_int_equal(dil_arch_put(w, a, &err), DIL_OK);
    if (list_of_windows) {
        dil_gguf_kv kv = {.key = "gemma3.attention.sliding_window_pattern", .kind = DIL_GGUF_ARRAY, .elem_kind = DIL_GGUF_BOOL, .n = a->n_blocks,
                          .data = list_of_windows, .bytes = a->n_blocks};
        assert_int_equal(dil_gguf_put_kv(w, &kv, &err), DIL_OK);
    }
    if (d->u32_key) dil_gguf_put_u32(w, d->u32_key, d->u32_value, &err);
    if (d->str_key) dil_gguf_put_str(w, d->str_key, d->str_value, &err);
    for (uint32_t layer = 0; layer < dil_arch_n_layers(a); layer++) {
        dil_layer_tensor t[DIL_LAYER_TENSORS_MAX];
        size_t n = dil_arch_layer_tensors(a, layer, t);
        assert_true(n <= DIL_LAYER_TENSORS_MAX);
        for (size_t i = 0; i < n; i++) {
            if (!t[i].shared) announce(w, &t[i], d);
        }
    }
    if (d->extra) announce(w, &(dil_layer_tensor){.ne = {4, 1}, .linear = false}, &(damage){.drop = "", .rename_to = d->extra});
    assert_int_equal(dil_gguf_begin(w, path, &err), DIL_OK);
    uint8_t zero[4096] = {0};
    while (dil_gguf_commit(w, &err) == DIL_EINTERNAL) { /* whatever is still missing */
        size_t n = sizeof zero;
        while (n > 0 && dil_gguf_write_data(w, zero, n, NULL) != DIL_OK) n /= 2;
        assert_true(n > 0);
    }
    dil_gguf_writer_free(w);
}

static dil_status read_model(dil_arch *out, dil_err *err)
{
    dil_gguf *g;
    assert_int_equal(dil_gguf_open(path, &g, err), DIL_OK);
    dil_status s = dil_arch_read(g, out, err);
    dil_gguf_close(g);
    return s;
}

#define SAME(field) \
    if (memcmp(&a->field, &b->field, sizeof a->field) != 0) fail_msg("%s differs", #field)

static void same_fields(const dil_arch *a, const dil_arch *b)
{
    SAME(family); SAME(name); SAME(n_blocks); SAME(n_embd); SAME(n_embd_word); SAME(n_ff); SAME(n_head); SAME(n_head_kv); SAME(head_dim);
    SAME(n_vocab); SAME(n_ctx_train); SAME(norm); SAME(norm_eps); SAME(norm_before); SAME(final_norm); SAME(post_norms); SAME(qk_norm); SAME(positions); SAME(position_offset);
    SAME(rope_freq_base); SAME(rope_scale); SAME(rope_dims); SAME(rope_freqs); SAME(act); SAME(gated_ffn); SAME(qkv_bias); SAME(out_bias); SAME(ffn_bias);
    SAME(tied_head); SAME(rope_long); SAME(rope_ctx); SAME(rope_gain); SAME(no_rope_period); SAME(window); SAME(window_period); SAME(window_rope_base);
    SAME(window_rope_scale); SAME(attn_scale); SAME(attn_softcap); SAME(final_softcap); SAME(embd_scale); SAME(fused_qkv); SAME(fused_gate_up);
}

static void same(dil_arch a)
{
    dil_arch b;
    dil_err err = {0};
    write_model(&a, &(damage){0});
    if (read_model(&b, &err) != DIL_OK) fail_msg("%s", err.text);
    same_fields(&a, &b);
}

static void an_architecture_reads_back_as_it_was_written(void **state)
{
    (void)state;
    same(llama());
    dil_arch a = llama();
    a.tied_head = false;
    a.qkv_bias = a.out_bias = a.ffn_bias = a.rope_freqs = true;
    same(a);
    a.head_dim = 24; /* not n_embd / n_head */
    a.rope_dims = 12;
    a.rope_scale = 0.25f;
    same(a);
    same(opt());
    a = opt(); /* as OPT-350M */
    a.n_embd_word = 32;
    a.norm_before = a.final_norm = false;
    same(a);
    a = opt();
    a.qkv_bias = a.out_bias = a.ffn_bias = a.tied_head = false;
    a.act = DIL_ACT_GELU;
    same(a);
}

static void refuse(const dil_arch *a, const damage *d, dil_status want, const char *says);

static dil_arch of_family(dil_family id)
{
    const dil__family *f = &dil__families[id];
    dil_arch a = llama();
    dil__family_init(f, &a);
    if (f->positions == DIL_POS_LEARNED) a.n_head_kv = 4, a.rope_dims = 0, a.qkv_bias = a.out_bias = a.ffn_bias = true;
    if (f->scales_embd) a.embd_scale = 8;
    a.fused_qkv = f->fuses_qkv;
    a.fused_gate_up = f->fuses_gate_up;
    return a;
}

static void every_family_reads_back_as_it_was_written(void **state)
{
    (void)state;
    for (int id = 0; id <= DIL_FAMILY_LAST; id++) {
        assert_int_equal(dil__families[id].id, id);
        if (id == DIL_FAMILY_OPT) continue;
        dil_arch a = of_family((dil_family)id);
        same(a);
        a.tied_head = false;
        a.head_dim = 24;
        if (a.rope_dims) a.rope_dims = 12;
        same(a);
        if (!dil__families[id].may_window) continue;
        a.window = 5;
        a.window_period = dil__families[id].window_period;
        a.window_rope_base = dil__families[id].window_rope_base;
        a.window_rope_scale = a.window_rope_base > 0 ? 1 : 0;
        same(a);
        a.window_period = 4;
        a.window_rope_base = 1234;
        a.window_rope_scale = 1;
        same(a);
    }
    dil_arch a = of_family(DIL_FAMILY_PHI3);
    a.rope_long = true;
    a.rope_ctx = 77;
    a.rope_gain = 1.25f;
    same(a);
    a = of_family(DIL_FAMILY_GEMMA2);
    a.attn_softcap = 50;
    a.final_softcap = 30;
    a.attn_scale = 0.125f;
    same(a);
    a = of_family(DIL_FAMILY_GEMMA2);
    a.n_blocks = 46; /* the 27B: its scale is known by its depth */
    a.n_embd = a.n_embd_word = 96;
    a.embd_scale = sqrtf(96);
    a.attn_scale = 1 / sqrtf(24);
    same(a);
    a.attn_scale = 0.25f; /* sixteen elements a head: said */
    same(a);
}

static void what_a_family_cannot_say_is_refused(void **state)
{
    (void)state;
    dil_gguf_writer *w;
    dil_err err = {0};
    dil_arch a = of_family(DIL_FAMILY_QWEN2);
    a.window = 7;
    dil_gguf_writer_new(&w, &err);
    assert_int_equal(dil_arch_put(w, &a, &err), DIL_EUNSUPPORTED);
    assert_non_null(strstr(err.text, "qwen2 models with a sliding window"));
    dil_gguf_writer_free(w);
    a = of_family(DIL_FAMILY_QWEN3);
    dil_arch b = llama();
    damage more = {.u32_key = "qwen3.attention.sliding_window", .u32_value = 100};
    refuse(&a, &more, DIL_EUNSUPPORTED, "qwen3.attention.sliding_window is set");
    refuse(&a, &(damage){.drop = "blk.1.attn_q_norm.weight"}, DIL_EFORMAT, "tensor blk.1.attn_q_norm.weight is missing");
    refuse(&b, &(damage){.str_key = "llama.rope.scaling.type", .str_value = "longrope"}, DIL_EUNSUPPORTED, "rope.scaling.type");
}

/* The pattern as newer files write it, an entry for each block. */
static void a_window_pattern_may_be_a_list(void **state)
{
    (void)state;
    for (int regular = 0; regular < 2; regular++) {
        dil_arch a = of_family(DIL_FAMILY_GEMMA3), b;
        a.n_blocks = 5;
        a.window = 5;
        list_of_windows = regular ? "\1\0\1\0\1" : "\1\0\1\1\1";
        dil_err err = {0};
        write_model(&a, &(damage){0});
        list_of_windows = NULL;
        dil_status s = read_model(&b, &err);
        assert_int_equal(s, regular ? DIL_OK : DIL_EUNSUPPORTED);
        if (regular) assert_true(b.window_period == 2 && dil_arch_is_windowed(&b, 0) && !dil_arch_is_windowed(&b, 1));
    }
}

static void refuse(const dil_arch *a, const damage *d, dil_status want, const char *says)
{
    dil_arch b;
    dil_err err = {0};
    write_model(a, d);
    dil_status s = read_model(&b, &err);
    if (s != want || !strstr(err.text, says)) fail_msg("expected %s with \"%s\", got %s: %s", dil_status_name(want), says, dil_status_name(s), err.text);
}

static void tensors_that_do_not_fit_the_metadata_are_named(void **state)
{
    (void)state;
    dil_arch l = llama(), o = opt();
    refuse(&l, &(damage){.drop = "blk.1.ffn_up.weight"}, DIL_EFORMAT, "tensor blk.1.ffn_up.weight is missing");
    refuse(&l, &(damage){.drop = "token_embd.weight"}, DIL_EFORMAT, "tensor token_embd.weight is missing");
    refuse(&l, &(damage){.wide = "blk.0.attn_k.weight"}, DIL_EFORMAT, "blk.0.attn_k.weight is 64 x 33 x 1 x 1, expected 64 x 32");
    refuse(&l, &(damage){.typed = "blk.0.attn_norm.weight", .type = DIL_TYPE_F16}, DIL_EFORMAT, "attn_norm.weight has type F16, expected F32");
    refuse(&l, &(damage){.typed = "blk.0.attn_v.weight", .type = DIL_TYPE_I32}, DIL_EFORMAT, "has type I32");
    refuse(&l, &(damage){.extra = "blk.0.attn_q_norm.weight"}, DIL_EUNSUPPORTED, "blk.0.attn_q_norm.weight is not part of");
    refuse(&l, &(damage){.extra = "blk.1.attn_q.bias"}, DIL_EUNSUPPORTED, "blk.1.attn_q.bias is not part of");
    refuse(&o, &(damage){.drop = "position_embd.weight"}, DIL_EFORMAT, "tensor position_embd.weight is missing");
    refuse(&o, &(damage){.drop = "blk.0.attn_norm.bias"}, DIL_EFORMAT, "tensor blk.0.attn_norm.bias is missing");
    refuse(&o, &(damage){.wide = "position_embd.weight"}, DIL_EFORMAT, "position_embd.weight is 64 x 131");
}

static void metadata_beyond_reason_is_named(void **state)
{
    (void)state;
    dil_arch l = llama(), o = opt();
    refuse(&l, &(damage){.u32_key = "llama.block_count", .u32_value = 0}, DIL_EFORMAT, "llama.block_count is 0, the least is 1");
    refuse(&l, &(damage){.u32_key = "llama.block_count", .u32_value = 4000000000}, DIL_ELIMIT, "llama.block_count is 4000000000, the limit is 1022");
    refuse(&l, &(damage){.u32_key = "llama.block_count", .u32_value = 1022}, DIL_EFORMAT, "tensor blk.2.attn_norm.weight is missing");
    refuse(&l, &(damage){.u32_key = "llama.attention.head_count", .u32_value = 5}, DIL_EFORMAT, "5 attention heads");
    refuse(&l, &(damage){.u32_key = "llama.attention.head_count", .u32_value = 128}, DIL_EFORMAT, "among 128 heads");
    refuse(&l, &(damage){.u32_key = "llama.rope.dimension_count", .u32_value = 15}, DIL_EFORMAT, "rope over 15 dimensions");
    refuse(&l, &(damage){.u32_key = "llama.rope.dimension_count", .u32_value = 18}, DIL_ELIMIT, "rope.dimension_count is 18, the limit is 16");
    refuse(&l, &(damage){.u32_key = "llama.expert_count", .u32_value = 8}, DIL_EUNSUPPORTED, "llama.expert_count is set");
    refuse(&l, &(damage){.u32_key = "llama.attention.value_length", .u32_value = 8}, DIL_EUNSUPPORTED, "keys of 16 and values of 8");
    refuse(&l, &(damage){.str_key = "llama.rope.scaling.type", .str_value = "yarn"}, DIL_EUNSUPPORTED, "rope.scaling.type");
    refuse(&l, &(damage){.str_key = "llama.context_length", .str_value = "2048"}, DIL_EUNSUPPORTED, "llama.context_length is not a single integer");
    refuse(&l, &(damage){.str_key = "llama.attention.layer_norm_rms_epsilon", .str_value = "1"}, DIL_EFORMAT, "epsilon is not a positive number");
    refuse(&o, &(damage){.str_key = "opt.activation_function", .str_value = "swish"}, DIL_EUNSUPPORTED, "activation_function");
    refuse(&o, &(damage){.u32_key = "opt.final_norm", .u32_value = 1}, DIL_EFORMAT, "opt.final_norm is missing or not a boolean");
    refuse(&l, &(damage){.str_key = "general.architecture", .str_value = "mamba"}, DIL_EUNSUPPORTED, "\"mamba\" is not supported; known are llama");
    refuse(&l, &(damage){.u32_key = "general.architecture"}, DIL_EFORMAT, "general.architecture is missing");
}

static void published_sizes_come_out(void **state)
{
    (void)state;
    dil_arch a = opt(); /* OPT-350M: 331,196,416 parameters in transformers */
    a.n_blocks = 24, a.n_embd = 1024, a.n_embd_word = 512, a.n_ff = 4096, a.n_head = a.n_head_kv = 16, a.head_dim = 64;
    a.n_vocab = 50272, a.n_ctx_train = 2048, a.norm_before = a.final_norm = false;
    assert_int_equal(dil_arch_n_params(&a), 331196416);
    assert_int_equal(dil_arch_n_layers(&a), 26);
    assert_int_equal(dil_arch_kv_bytes(&a, 2048, DIL_TYPE_F16), 2048 * 2 * 1024 * 2);
    a = opt(); /* OPT-125M: 125,239,296 */
    a.n_blocks = 12, a.n_embd = a.n_embd_word = 768, a.n_ff = 3072, a.n_head = a.n_head_kv = 12, a.head_dim = 64;
    a.n_vocab = 50272, a.n_ctx_train = 2048;
    assert_int_equal(dil_arch_n_params(&a), 125239296);
    a = llama(); /* SmolLM2-135M: 134,515,008 */
    a.n_blocks = 30, a.n_embd = a.n_embd_word = 576, a.n_ff = 1536, a.n_head = 9, a.n_head_kv = 3, a.head_dim = 64, a.n_vocab = 49152;
    assert_int_equal(dil_arch_n_params(&a), 134515008);
}

static const dil_layer_tensor *named(const dil_layer_tensor *t, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(t[i].name, name) == 0) return &t[i];
    }
    return NULL;
}

static void layers_list_their_tensors(void **state)
{
    (void)state;
    dil_layer_tensor t[DIL_LAYER_TENSORS_MAX];
    dil_arch a = opt();
    a.n_embd_word = 32;
    size_t n = dil_arch_layer_tensors(&a, 0, t);
    assert_int_equal(n, 3);
    assert_true(named(t, n, "token_embd.weight")->linear && !named(t, n, "position_embd.weight")->linear && named(t, n, "project_in.weight")->linear);
    n = dil_arch_layer_tensors(&a, 1, t);
    assert_int_equal(n, 16);
    assert_string_equal(named(t, n, "blk.0.attn_output.bias")->role, "attn_output.bias");
    assert_string_equal(named(t, n, "blk.0.ffn_down.weight")->role, "ffn_down");
    n = dil_arch_layer_tensors(&a, 3, t);
    assert_int_equal(n, 4); /* output_norm, its bias, project_out, the shared table */
    assert_true(named(t, n, "token_embd.weight")->shared);
    assert_int_equal(dil_arch_layer_tensors(&a, 4, t), 0);
    a = llama();
    a.rope_freqs = true;
    n = dil_arch_layer_tensors(&a, 1, t);
    assert_false(named(t, n, "rope_freqs.weight")->shared);
    n = dil_arch_layer_tensors(&a, 2, t);
    assert_true(named(t, n, "rope_freqs.weight")->shared);
}

static void the_ratio_counts_what_the_file_holds(void **state)
{
    (void)state;
    dil_arch a = llama();
    write_model(&a, &(damage){0});
    dil_gguf *g;
    dil_err err;
    assert_int_equal(dil_gguf_open(path, &g, &err), DIL_OK);
    uint64_t bytes, params, norms = 5 * 64;
    double ratio = dil_gguf_ratio_to_fp32(g, &bytes, &params);
    assert_int_equal(params, dil_arch_n_params(&a));
    assert_int_equal(bytes, 2 * (params - norms) + 4 * norms);
    assert_true(ratio == (double)bytes / (4.0 * (double)params));
    dil_gguf_close(g);
}

static void the_real_model_is_understood(void **state)
{
    (void)state;
    const char *model = getenv("DILEMMA_TEST_MODEL");
    dil_gguf *g = NULL;
    dil_err err;
    if (!model || dil_gguf_open(model, &g, &err) != DIL_OK) {
        fprintf(stderr, "SKIPPED: no model at DILEMMA_TEST_MODEL\n");
        skip();
    }
    dil_arch a;
    assert_int_equal(dil_arch_read(g, &a, &err), DIL_OK);
    assert_true(a.n_blocks == 30 && a.n_embd == 576 && a.n_head == 9 && a.n_head_kv == 3 && a.head_dim == 64 && a.tied_head);
    assert_true(a.rope_freq_base == 100000.0f && a.norm_eps == 1e-5f && a.rope_dims == 64);
    assert_int_equal(dil_arch_n_params(&a), 134515008);
    dil_gguf_close(g);
}

static int make_path(void **state)
{
    (void)state;
    snprintf(path, sizeof path, "/tmp/dilemma-arch-%ld.gguf", (long)getpid());
    return 0;
}

static int remove_path(void **state)
{
    (void)state;
    return unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_architecture_reads_back_as_it_was_written),
        cmocka_unit_test(every_family_reads_back_as_it_was_written),
        cmocka_unit_test(what_a_family_cannot_say_is_refused),
        cmocka_unit_test(a_window_pattern_may_be_a_list),
        cmocka_unit_test(tensors_that_do_not_fit_the_metadata_are_named),
        cmocka_unit_test(metadata_beyond_reason_is_named),
        cmocka_unit_test(published_sizes_come_out),
        cmocka_unit_test(layers_list_their_tensors),
        cmocka_unit_test(the_ratio_counts_what_the_file_holds),
        cmocka_unit_test(the_real_model_is_understood),
    };
    return cmocka_run_group_tests(tests, make_path, remove_path);
}
