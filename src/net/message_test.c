/* Frames and messages: what was written is what is read, and what is cut, stretched or lies is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "net/message.h"

#include "engine/grammar.h"

#include <stdlib.h>
#include <string.h>

static dil_arch arch_of_smollm(void)
{
    return (dil_arch){.family = DIL_FAMILY_LLAMA, .name = "llama", .n_blocks = 30, .n_embd = 576, .n_embd_word = 576, .n_ff = 1536, .n_head = 9, .n_head_kv = 3,
                      .head_dim = 64, .n_vocab = 49152, .n_ctx_train = 2048, .norm = DIL_NORM_RMS, .norm_eps = 1e-5f, .norm_before = true, .final_norm = true,
                      .positions = DIL_POS_ROPE_NORM, .rope_freq_base = 1e5f, .rope_scale = 1, .rope_dims = 64, .act = DIL_ACT_SILU, .gated_ffn = true, .tied_head = true};
}

static void decode(const dil_buf *b, dil_frame *f)
{
    dil_err err = {0};
    if (dil_frame_decode(b->data, b->len, f, &err) != DIL_OK) fail_msg("%s", err.text);
}

static void a_frame_comes_back_as_it_was(void **state)
{
    (void)state;
    dil_buf b;
    dil_buf_init(&b, 1000);
    assert_true(dil_frame_begin(&b, DIL_FRAME_ECHO, 0x1122334455667788u, UINT64_MAX, 77));
    dil_put_i32(&b, -5);
    dil_put_f64(&b, 0.1);
    dil_put_str(&b, "hello");
    assert_true(dil_frame_end(&b));
    assert_memory_equal(b.data, "DIL1\3\0\5\0\x88\x77\x66\x55\x44\x33\x22\x11", 16); /* the layout is the protocol */
    dil_frame f;
    decode(&b, &f);
    assert_int_equal(f.type, DIL_FRAME_ECHO);
    assert_true(f.session == 0x1122334455667788u && f.id == UINT64_MAX && f.epoch == 77);
    dil_rd r = dil_frame_body(&f);
    char text[6];
    assert_int_equal(dil_get_i32(&r), -5);
    assert_true(dil_get_f64(&r) == 0.1);
    dil_get_str(&r, text, sizeof text);
    assert_string_equal(text, "hello");
    assert_true(dil_rd_done(&r));
    assert_int_equal(dil_get_u32(&r), 0);
    assert_false(dil_rd_done(&r));
    dil_buf_fini(&b);
}

static void what_is_no_frame_is_refused(void **state)
{
    (void)state;
    uint8_t h[DIL_FRAME_HEADER_BYTES + 4] = {0};
    dil_frame f = {.type = DIL_FRAME_HELLO, .body_bytes = 4};
    dil_err err;
    dil_frame_header(h, &f);
    assert_int_equal(dil_frame_decode(h, sizeof h, &f, &err), DIL_OK);
    assert_int_equal(dil_frame_decode(h, sizeof h - 1, &f, &err), DIL_EFORMAT);
    assert_int_equal(dil_frame_decode(h, 31, &f, &err), DIL_EFORMAT);
    for (int v = 0; v < 256; v++) { /* no version but ours, older ones neither */
        h[4] = (uint8_t)v;
        assert_int_equal(dil_frame_decode(h, sizeof h, &f, &err), v == DIL_FRAME_VERSION ? DIL_OK : DIL_EUNSUPPORTED);
    }
    h[4] = DIL_FRAME_VERSION;
    h[6] = DIL_FRAME_TYPE_LIMIT;
    assert_int_equal(dil_frame_decode(h, sizeof h, &f, &err), DIL_EFORMAT);
    h[0] = 'X';
    assert_int_equal(dil_frame_decode(h, sizeof h, &f, &err), DIL_EFORMAT);
}

static void fill_load(dil__load *m, dil__load_part *part, dil_tensor *t, dil_hash *h)
{
    *part = (dil__load_part){.stage = 1, .first_layer = 3, .last_layer = 5};
    snprintf(part->prev_key, sizeof part->prev_key, "rq:rM>}U?@Lns47E1%%kR.o@n%%FcmmsL/@{H8]yf7");
    snprintf(part->next.address, sizeof part->next.address, "10.0.0.2:7100");
    *t = (dil_tensor){.name = "blk.2.attn_q.weight", .type = DIL_TYPE_Q4_0, .n_dims = 2, .ne = {576, 576, 1, 1}, .bytes = 576 * 576 / 32 * 18};
    for (int i = 0; i < DIL_HASH_BYTES; i++) h[0].bytes[i] = (uint8_t)i;
    memset(&h[1], 9, sizeof h[1]);
    memset(&h[2], 8, sizeof h[2]);
    *m = (dil__load){.arch = arch_of_smollm(), .n_ctx = 2048, .n_seq = 4, .max_batch = 128, .n_stages = 3, .kv_type = DIL_TYPE_F16, .replace = true, .fetch_only = true,
                     .chunk_bytes = 1 << 16, .parts = part, .n_parts = 1, .tensors = t, .n_tensors = 1, .chunks = h, .n_chunks = 3};
}

static void a_load_comes_back_and_every_cut_of_it_is_refused(void **state)
{
    (void)state;
    dil__load m, got;
    dil__load_part part;
    dil_tensor t;
    dil_hash h[3];
    fill_load(&m, &part, &t, h);
    dil_buf b;
    dil_buf_init(&b, 1 << 16);
    assert_true(dil__msg_load(&b, 5, 6, &m));
    dil_frame f;
    decode(&b, &f);
    dil_arena *a = dil_arena_new(1 << 20);
    dil_err err = {0};
    if (dil__msg_get_load(&f, a, &got, &err) != DIL_OK) fail_msg("%s", err.text);
    dil_buf again;
    dil_buf_init(&again, 1 << 16);
    assert_true(dil__msg_load(&again, 5, 6, &got));
    assert_int_equal(again.len, b.len);
    assert_memory_equal(again.data, b.data, b.len);
    dil_buf_fini(&again);
    assert_int_equal(got.arch.n_vocab, 49152);
    assert_int_equal(got.n_chunks, 3);
    assert_memory_equal(got.chunks, h, sizeof h);
    assert_string_equal(got.parts[0].next.address, "10.0.0.2:7100");
    assert_string_equal(got.tensors[0].name, t.name);
    assert_true(got.tensors[0].bytes == t.bytes);
    for (size_t cut = 0; cut < f.body_bytes; cut++) {
        dil_frame shorter = f;
        shorter.body_bytes = (uint32_t)cut;
        assert_int_not_equal(dil__msg_get_load(&shorter, a, &got, &err), DIL_OK);
        dil_arena_free(a);
        a = dil_arena_new(1 << 20);
    }
    dil_arena_free(a);
    dil_buf_fini(&b);
}

static void a_load_whose_hashes_do_not_cover_its_tensors_is_refused(void **state)
{
    (void)state;
    dil__load m, got;
    dil__load_part part;
    dil_tensor t;
    dil_hash h[3];
    fill_load(&m, &part, &t, h);
    m.n_chunks = 2;
    dil_buf b;
    dil_buf_init(&b, 1 << 16);
    dil__msg_load(&b, 5, 6, &m);
    dil_frame f;
    decode(&b, &f);
    dil_arena *a = dil_arena_new(1 << 20);
    dil_err err;
    assert_int_equal(dil__msg_get_load(&f, a, &got, &err), DIL_EFORMAT);
    dil_arena_free(a);
    dil_buf_fini(&b);
}

static void a_work_is_used_where_it_lies(void **state)
{
    (void)state;
    int32_t token[3] = {5, 6, 7}, pos[3] = {0, 1, 9}, seq[3] = {0, 0, 3};
    uint8_t want[3] = {0, 1, 1};
    dil_batch batch = {.n_tokens = 3, .token = token, .pos = pos, .seq = seq, .want = want};
    dil__begin begin = {.slot = 3, .n_top = 5, .n_prompt = 5, .n_known = 9, .sampler = {.temperature = 0.5f, .top_k = 40, .top_p = 0.9f, .min_p = 0.1f, .repeat_penalty = 1.1f, .seed = 99}};
    dil__work_head h = {.stage = 2, .n_tokens = 3, .n_begin = 1, .n_hidden = 4, .compute_ns = 123};
    size_t n = dil__work_bytes(&h);
    uint8_t *m = malloc(n);
    void *hidden;
    dil__work_put(m, 8, 9, 10, &h, &batch, &begin, &hidden);
    memset(hidden, 7, 12 * sizeof(float));
    dil_frame f;
    dil_err err;
    dil__work_view v;
    assert_int_equal(dil_frame_decode(m, n, &f, &err), DIL_OK);
    assert_int_equal(dil__work_get(&f, 16, 4, 100, 8, 4, &v, &err), DIL_OK);
    assert_ptr_equal(v.hidden, hidden);
    assert_memory_equal(v.batch.pos, pos, sizeof pos);
    assert_int_equal(v.n_want, 2);
    dil__begin b = dil__work_begin(&v, 0);
    assert_int_equal(b.slot, 3);
    assert_int_equal(b.n_prompt, 5);
    assert_int_equal(b.n_known, 9);
    assert_int_equal(b.n_top, 5);
    assert_memory_equal(&b.sampler, &begin.sampler, offsetof(dil_sampler_opts, n_bias)); /* what follows is padded */
    assert_int_equal(dil__work_get(&f, 9, 4, 100, 8, 4, &v, &err), DIL_EFORMAT);  /* position 9 of a context of 9 */
    assert_int_equal(dil__work_get(&f, 16, 3, 100, 8, 4, &v, &err), DIL_EFORMAT); /* sequence 3 of 3 */
    assert_int_equal(dil__work_get(&f, 16, 4, 7, 8, 4, &v, &err), DIL_EFORMAT);   /* token 7 of a vocabulary of 7 */
    assert_int_equal(dil__work_get(&f, 16, 4, 100, 2, 4, &v, &err), DIL_EFORMAT); /* three tokens where two are allowed */
    free(m);
}

static void biases_and_schemas_travel_with_a_begin(void **state)
{
    (void)state;
    int32_t token[1] = {5}, pos[1] = {0}, seq[1] = {0};
    uint8_t want[1] = {1};
    dil_batch batch = {.n_tokens = 1, .token = token, .pos = pos, .seq = seq, .want = want};
    dil_logit_bias bias[2] = {{7, -100}, {9, 1.5f}};
    dil_grammar schema = {.schema = (char[]){"{\"a\":1}"}, .schema_len = 7}, any = {0};
    dil__begin begin[3] = {{.slot = 0, .sampler = {.bias = bias, .n_bias = 2, .grammar = &schema}}, {.slot = 1, .sampler = {.grammar = &any}},
                           {.slot = 2, .sampler = {.bias = bias + 1, .n_bias = 1}}};
    dil__work_head h = {.n_tokens = 1, .n_begin = 3, .extra_bytes = dil__work_extra_bytes(begin, 3)};
    assert_int_equal(h.extra_bytes, 16 + 8 + 8); /* seven bytes of schema are padded to eight */
    size_t n = dil__work_bytes(&h);
    uint8_t *m = malloc(n), *keep = malloc(n);
    void *hidden;
    dil__work_put(m, 8, 9, 10, &h, &batch, begin, &hidden);
    memcpy(keep, m, n);
    dil_frame f;
    dil_err err;
    dil__work_view v;
    assert_int_equal(dil_frame_decode(m, n, &f, &err), DIL_OK);
    assert_int_equal(dil__work_get(&f, 16, 4, 100, 8, 4, &v, &err), DIL_OK);
    assert_int_equal(v.batch.token[0], 5);
    dil__begin b = dil__work_begin(&v, 0);
    assert_memory_equal(b.sampler.bias, bias, sizeof bias);
    assert_true(b.json && b.schema_len == 7);
    assert_memory_equal(b.schema, schema.schema, 7);
    b = dil__work_begin(&v, 1);
    assert_true(b.json && !b.schema && b.sampler.n_bias == 0);
    b = dil__work_begin(&v, 2);
    assert_true(!b.json && b.sampler.n_bias == 1 && b.sampler.bias[0].token == 9);
    /* The last numbers of the first begin: how many biases, kind of grammar, bytes of schema. */
    const size_t at = DIL_FRAME_HEADER_BYTES + 32 + 52;
    const struct { size_t at; uint32_t value; } lies[] = {{at, 3}, {at, 1}, {at, DIL_LOGIT_BIAS_MAX + 1}, {at, UINT32_MAX}, {at + 4, 3}, {at + 4, 0}, {at + 8, 0}, {at + 8, 12},
                                                         {at + 8, DIL__SCHEMA_MAX + 1}, {at + 8, UINT32_MAX}, {DIL_FRAME_HEADER_BYTES + 16, 28},
                                                         {DIL_FRAME_HEADER_BYTES + 16, UINT32_MAX}};
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        memcpy(m, keep, n);
        memcpy(m + lies[i].at, &lies[i].value, 4);
        assert_int_equal(dil_frame_decode(m, n, &f, &err), DIL_OK);
        if (dil__work_get(&f, 16, 4, 100, 8, 4, &v, &err) != DIL_EFORMAT) fail_msg("lie %zu is believed", i);
    }
    free(m);
    free(keep);
}

static void a_peers_error_is_one_clean_line(void **state)
{
    (void)state;
    dil_err e = {.code = DIL_ELIMIT, .text = "too\nlittle\tmemory"}, got;
    dil_buf b;
    dil_buf_init(&b, 4096);
    dil__msg_error(&b, DIL_FRAME_ERROR, 1, 2, 3, &e);
    dil_frame f;
    decode(&b, &f);
    assert_int_equal(dil__msg_get_error(&f, &got), DIL_OK);
    assert_int_equal(got.code, DIL_ELIMIT);
    assert_string_equal(got.text, "too little memory");
    dil_buf_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_frame_comes_back_as_it_was),
        cmocka_unit_test(what_is_no_frame_is_refused),
        cmocka_unit_test(a_load_comes_back_and_every_cut_of_it_is_refused),
        cmocka_unit_test(a_load_whose_hashes_do_not_cover_its_tensors_is_refused),
        cmocka_unit_test(a_work_is_used_where_it_lies),
        cmocka_unit_test(biases_and_schemas_travel_with_a_begin),
        cmocka_unit_test(a_peers_error_is_one_clean_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
