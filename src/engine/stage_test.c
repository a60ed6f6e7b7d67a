/* A stage against the definition of a stage: splits change no bit, sequences do not see each other, repeated and continued
 * calls agree, bad batches are refused. On small random models of every family, in every type of cache and attention. */
#include "engine/synthetic.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define N_VOCAB 320u
#define N_TOKENS 37u
#define N_STEPS 5u

static dil_arch llama_arch(void)
{
    return (dil_arch){.family = DIL_FAMILY_LLAMA, .name = "llama", .n_blocks = 4, .n_embd = 128, .n_embd_word = 128, .n_ff = 256,
                      .n_head = 4, .n_head_kv = 2, .head_dim = 32, .n_vocab = N_VOCAB, .n_ctx_train = 256, .norm = DIL_NORM_RMS,
                      .norm_eps = 1e-5f, .norm_before = true, .final_norm = true, .positions = DIL_POS_ROPE_NORM,
                      .rope_freq_base = 10000, .rope_scale = 1, .rope_dims = 32, .rope_freqs = true, .act = DIL_ACT_SILU,
                      .gated_ffn = true, .tied_head = true};
}

static dil_arch opt_arch(bool post_norm)
{
    return (dil_arch){.family = DIL_FAMILY_OPT, .name = "opt", .n_blocks = 3, .n_embd = 128, .n_embd_word = post_norm ? 64 : 128,
                      .n_ff = 256, .n_head = 4, .n_head_kv = 4, .head_dim = 32, .n_vocab = N_VOCAB, .n_ctx_train = 256,
                      .norm = DIL_NORM_LAYER, .norm_eps = 1e-5f, .norm_before = !post_norm, .final_norm = !post_norm,
                      .positions = DIL_POS_LEARNED, .position_offset = 2, .rope_freq_base = 10000, .rope_scale = 1,
                      .act = DIL_ACT_RELU, .qkv_bias = true, .out_bias = true, .ffn_bias = true, .tied_head = true};
}

static dil_arch gemma_arch(void)
{
    dil_arch a = llama_arch();
    a.family = DIL_FAMILY_GEMMA3;
    snprintf(a.name, sizeof a.name, "gemma3");
    a.positions = DIL_POS_ROPE_NEOX;
    a.rope_freqs = false;
    a.post_norms = a.qk_norm = true;
    a.window = 9, a.window_period = 3, a.window_rope_base = 1000, a.window_rope_scale = 1, a.rope_scale = 0.125f;
    a.attn_scale = 0.2f, a.attn_softcap = 4, a.final_softcap = 2, a.embd_scale = 11;
    a.act = DIL_ACT_GELU_TANH;
    return a;
}

/* Fused matrices, half of each head turned by stretched frequencies, blocks without positions. */
static dil_arch phi_arch(void)
{
    dil_arch a = llama_arch();
    a.family = DIL_FAMILY_PHI3;
    snprintf(a.name, sizeof a.name, "phi3");
    a.positions = DIL_POS_ROPE_NEOX;
    a.rope_freqs = a.tied_head = false;
    a.rope_dims = 16, a.rope_long = true, a.rope_ctx = 64, a.rope_gain = 1.2f, a.no_rope_period = 2;
    a.fused_qkv = a.fused_gate_up = a.qkv_bias = true;
    return a;
}

typedef struct model {
    dil_arch arch;
    dil__synthetic *data;
    dil_weights weights;
    dil_stage_opts opts;
} model;

static dil_type as_q4_0(void *ctx, uint32_t layer, size_t index, const dil_layer_tensor *t)
{
    (void)layer;
    (void)index;
    (void)t;
    return *(dil_type *)ctx;
}

static model make(dil_arch a, dil_type type)
{
    model m = {.arch = a, .opts = {.n_threads = 1, .n_ctx = 128, .max_batch = 64, .kv_type = DIL_TYPE_F16}};
    dil_err err = {0};
    dil__synthetic_opts o = {.last_layer = a.n_blocks + 1, .type_of = as_q4_0, .ctx = &type, .seed = 7};
    if (dil__synthetic_new(&a, &o, &m.data, &err)) fail_msg("%s", err.text);
    m.weights = dil__synthetic_weights(m.data);
    return m;
}

static dil_stage *open_range(const model *m, uint32_t first, uint32_t last)
{
    dil_stage_opts o = m->opts;
    o.first_layer = first;
    o.last_layer = last;
    dil_stage *s;
    dil_err err = {0};
    if (dil_stage_open(&m->arch, &m->weights, &o, NULL, &s, &err)) fail_msg("%s", err.text);
    return s;
}

static dil_stage *open_whole(const model *m)
{
    return open_range(m, 0, m->arch.n_blocks + 1);
}

static void eval(dil_stage *s, const dil_batch *b, const float *in, float *out)
{
    dil_err err = {0};
    if (dil_stage_eval(s, b, in, out, &err)) fail_msg("%s", err.text);
}

static int32_t tok(uint32_t i)
{
    return (int32_t)((i * 7919 + 13) % N_VOCAB);
}

/* Feeds n tokens of one sequence from position pos; logits of the last one. */
static void feed(dil_stage *s, uint32_t seq, uint32_t pos, uint32_t n, float *logits)
{
    int32_t t[64], p[64], q[64];
    for (uint32_t i = 0; i < n; i++) {
        t[i] = tok(pos + i + 31 * seq);
        p[i] = (int32_t)(pos + i);
        q[i] = (int32_t)seq;
    }
    dil_batch b = {.n_tokens = n, .token = t, .pos = p, .seq = q};
    eval(s, &b, NULL, logits);
}

/* Prefill with every row wanted, then decode; out [N_TOKENS + N_STEPS][n_vocab]. */
static void drive(dil_stage **stage, size_t n_stages, const model *m, float *out)
{
    int32_t t[N_TOKENS], p[N_TOKENS];
    uint8_t want[N_TOKENS];
    float *h[2] = {calloc(N_TOKENS, m->arch.n_embd * sizeof **h), calloc(N_TOKENS, m->arch.n_embd * sizeof **h)};
    for (uint32_t i = 0; i < N_TOKENS; i++) {
        t[i] = tok(i);
        p[i] = (int32_t)i;
        want[i] = i % 3 == 0;
    }
    for (uint32_t step = 0; step <= N_STEPS; step++) {
        int32_t one = tok(100 + step), at = (int32_t)(N_TOKENS + step) - 1;
        dil_batch b = step == 0 ? (dil_batch){.n_tokens = N_TOKENS, .token = t, .pos = p, .want = want}
                                : (dil_batch){.n_tokens = 1, .token = &one, .pos = &at};
        float *logits = out + (step == 0 ? 0 : (size_t)(N_TOKENS + step - 1) * N_VOCAB);
        const float *in = NULL;
        for (size_t i = 0; i < n_stages; i++) {
            float *to = i + 1 == n_stages ? logits : h[i % 2];
            eval(stage[i], &b, in, to);
            in = to;
        }
    }
    free(h[0]);
    free(h[1]);
}

static void check_every_split(model *m)
{
    size_t n = (size_t)(N_TOKENS + N_STEPS) * N_VOCAB;
    float *whole = calloc(n, sizeof *whole), *split = calloc(n, sizeof *split);
    dil_stage *s[3] = {open_whole(m)};
    drive(s, 1, m, whole);
    dil_stage_close(s[0]);
    uint32_t last = m->arch.n_blocks + 1;
    for (uint32_t cut = 0; cut < last; cut++) {
        s[0] = open_range(m, 0, cut);
        s[1] = open_range(m, cut + 1, last);
        memset(split, 0, n * sizeof *split);
        drive(s, 2, m, split);
        if (memcmp(whole, split, n * sizeof *whole) != 0) fail_msg("%s split after layer %u differs", m->arch.name, cut);
        dil_stage_close(s[0]);
        dil_stage_close(s[1]);
    }
    s[0] = open_range(m, 0, 1);
    s[1] = open_range(m, 2, last - 1);
    s[2] = open_range(m, last, last);
    drive(s, 3, m, split);
    assert_memory_equal(whole, split, n * sizeof *whole);
    for (int i = 0; i < 3; i++) dil_stage_close(s[i]);
    for (size_t i = 0; i < n; i++) assert_true(isfinite(whole[i]));
    free(whole);
    free(split);
}

static void every_split_gives_the_same_bits(void **state)
{
    (void)state;
    dil_arch arch[] = {llama_arch(), opt_arch(false), opt_arch(true), gemma_arch(), phi_arch()};
    static const dil_type type[] = {DIL_TYPE_F32, DIL_TYPE_Q4_0, DIL_TYPE_Q4_1};
    for (size_t a = 0; a < sizeof arch / sizeof *arch; a++) {
        for (int variant = 0; variant < 6; variant++) {
            model m = make(arch[a], type[variant % 3]);
            m.opts.kv_type = variant % 2 ? DIL_TYPE_F32 : DIL_TYPE_F16;
            m.opts.no_flash = variant >= 4;
            m.opts.n_threads = variant == 1 ? 2 : 1;
            m.opts.fixed_shapes = variant == 3 || variant == 5;
            check_every_split(&m);
            dil__synthetic_free(m.data);
        }
    }
}

static double max_diff(const float *a, const float *b, size_t n)
{
    double d = 0, top = 0;
    for (size_t i = 0; i < n; i++) {
        double off = fabs((double)a[i] - (double)b[i]), here = fabs((double)a[i]); /* two fmax crash GCC 12 for arm64 */
        if (off > d) d = off;
        if (here > top) top = here;
    }
    return d / top;
}

/* Chunks of any size, another order of slots, and neighbours in the batch change the logits by rounding only. */
static void chunks_and_neighbours_change_rounding_only(void **state)
{
    (void)state;
    dil_arch arch[] = {llama_arch(), opt_arch(false), opt_arch(true), gemma_arch(), phi_arch()};
    for (int variant = 0; variant < 10; variant++) {
        model m = make(arch[variant % 5], DIL_TYPE_F32);
        m.opts.n_seq = 5;
        m.opts.kv_type = DIL_TYPE_F32;
        m.opts.no_flash = variant >= 5;
        float one[N_VOCAB], other[5 * N_VOCAB];
        dil_stage *s = open_whole(&m);
        for (uint32_t q = 0; q < 5; q++) feed(s, q, 0, 20 + q, one);
        dil_stage *t = open_whole(&m);
        for (uint32_t q = 5; q-- > 0;) {
            uint32_t at = 0, n = 20 + q;
            for (uint32_t k = 1; at < n; k++) {
                uint32_t now = n - at < k ? n - at : k;
                feed(t, q, at, now, other);
                at += now;
            }
        }
        /* One batch: two tokens of sequence 3, one of 4, 0, 1 and three of 2, mixed up. */
        int32_t seq[] = {3, 0, 2, 4, 2, 3, 1, 2}, pos[] = {23, 20, 22, 24, 23, 24, 21, 24}, id[8];
        uint8_t want[] = {0, 1, 0, 1, 0, 1, 1, 1};
        for (int i = 0; i < 8; i++) id[i] = tok((uint32_t)(pos[i] + 31 * seq[i]));
        dil_batch b = {.n_tokens = 8, .token = id, .pos = pos, .seq = seq, .want = want};
        eval(s, &b, NULL, other);
        static const uint32_t order[] = {0, 4, 3, 1, 2}, more[] = {1, 1, 3, 2, 1};
        for (int i = 0; i < 5; i++) {
            uint32_t q = order[i];
            feed(t, q, 20 + q, more[q], one);
            double d = max_diff(one, other + (size_t)i * N_VOCAB, N_VOCAB);
            /* a table of halves gives GELU: a rounding can become a step of it */
            if (d > (m.arch.act == DIL_ACT_GELU_TANH && !m.opts.no_flash ? 1e-3 : 1e-4)) fail_msg("variant %d, sequence %u: %g", variant, q, d);
        }
        dil_stage_close(s);
        dil_stage_close(t);
        dil__synthetic_free(m.data);
    }
}

static void fixed_shapes_give_a_sequence_the_same_bits_in_any_company(void **state)
{
    (void)state;
    for (int variant = 0; variant < 5; variant++) {
        model m = make(variant == 4 ? gemma_arch() : variant % 2 ? opt_arch(true) : llama_arch(), variant < 2 ? DIL_TYPE_Q4_0 : DIL_TYPE_F16);
        m.opts.n_seq = 6;
        m.opts.fixed_shapes = true;
        float alone[N_VOCAB], crowd[6 * N_VOCAB];
        dil_stage *s = open_whole(&m), *t = open_whole(&m);
        feed(s, 4, 0, 30, alone);
        for (uint32_t q = 0; q < 6; q++) feed(t, q, 0, q == 4 ? 30 : 10 + q, crowd);
        for (uint32_t step = 0; step < 4; step++) {
            feed(s, 4, 30 + step, 1, alone);
            int32_t id[5], pos[5], seq[5];
            uint8_t want[5];
            uint32_t n = 0;
            for (uint32_t q = 6; q-- > 0;) {
                if (q == step) continue;
                seq[n] = (int32_t)q;
                pos[n] = (int32_t)(q == 4 ? 30 + step : 10 + q + step - (q < step ? 1 : 0));
                id[n] = tok((uint32_t)pos[n] + 31 * q);
                want[n++] = q == 4;
            }
            dil_batch b = {.n_tokens = n, .token = id, .pos = pos, .seq = seq, .want = want};
            eval(t, &b, NULL, crowd);
            assert_memory_equal(alone, crowd, sizeof alone);
        }
        dil_stage_close(s);
        dil_stage_close(t);
        dil__synthetic_free(m.data);
    }
}

/* Tokens that are all wanted come out as if each had come by itself, also behind guesses that are taken back. */
static void fixed_shapes_decode_ahead_with_the_bits_of_one_after_the_other(void **state)
{
    (void)state;
    for (int variant = 0; variant < 4; variant++) {
        model m = make(variant % 2 ? opt_arch(true) : llama_arch(), DIL_TYPE_Q4_0);
        m.opts.n_seq = variant < 2 ? 1 : 5;
        m.opts.fixed_shapes = true;
        uint32_t q = variant < 2 ? 0 : 3;
        static float each[5][N_VOCAB], ahead[5 * N_VOCAB], other[N_VOCAB];
        dil_stage *s = open_whole(&m), *t = open_whole(&m);
        feed(s, q, 0, 20, other);
        feed(t, q, 0, 20, other);
        if (q) feed(t, 1, 0, 9, other);
        for (uint32_t i = 0; i < 5; i++) feed(s, q, 20 + i, 1, each[i]);
        int32_t id[6], pos[6], seq[6];
        uint8_t want[6] = {1, 1, 1, 1, 1, 1};
        for (uint32_t at = 0; at < 5; at += 2) { /* two tokens, then wrong guesses */
            uint32_t n = 0;
            for (uint32_t i = at; i < 5; i++, n++) {
                id[n] = i < at + 2 ? tok(20 + i + 31 * q) : 7;
                pos[n] = (int32_t)(20 + i);
                seq[n] = (int32_t)q;
            }
            bool beside = q && at == 0;
            if (beside) id[n] = 3, pos[n] = 9, seq[n] = 1;
            dil_batch b = {.n_tokens = n + beside, .token = id, .pos = pos, .seq = seq, .want = want};
            if (beside) want[n] = 0;
            eval(t, &b, NULL, ahead);
            if (beside) want[n] = 1;
            assert_memory_equal(each[at], ahead, sizeof each[0]);
            if (at + 1 < 5) assert_memory_equal(each[at + 1], ahead + N_VOCAB, sizeof each[0]);
        }
        dil_stage_close(s);
        dil_stage_close(t);
        dil__synthetic_free(m.data);
    }
}

static void trimmed_and_repeated_tokens_give_the_same_bits(void **state)
{
    (void)state;
    model m = make(llama_arch(), DIL_TYPE_Q8_0);
    float a[N_VOCAB], b[N_VOCAB];
    dil_stage *s = open_whole(&m);
    feed(s, 0, 0, 20, a);
    feed(s, 0, 20, 1, a);
    feed(s, 0, 21, 10, b);
    dil_stage_seq_trim(s, 0, 20);
    feed(s, 0, 20, 1, b);
    assert_memory_equal(a, b, sizeof a);
    feed(s, 0, 20, 1, b); /* the same call again */
    assert_memory_equal(a, b, sizeof a);
    dil_stage_seq_trim(s, 0, 0);
    feed(s, 0, 0, 20, b);
    feed(s, 0, 20, 1, b);
    assert_memory_equal(a, b, sizeof a);
    dil_stage_close(s);
    dil__synthetic_free(m.data);
}

static void expect(dil_stage *s, dil_batch b, dil_status status, const char *text)
{
    static float out[64 * N_VOCAB];
    dil_err err = {0};
    assert_int_equal(dil_stage_eval(s, &b, NULL, out, &err), status);
    if (!strstr(err.text, text)) fail_msg("'%s' lacks '%s'", err.text, text);
}

static void bad_batches_are_refused_and_change_nothing(void **state)
{
    (void)state;
    model m = make(llama_arch(), DIL_TYPE_F32);
    m.opts.n_seq = 2;
    dil_stage *s = open_whole(&m);
    float a[N_VOCAB], b[N_VOCAB];
    feed(s, 0, 0, 10, a);
    int32_t id[200] = {0}, pos[200], seq[200] = {0};
    for (int i = 0; i < 200; i++) pos[i] = 10 + i;
    dil_batch ok = {.n_tokens = 1, .token = id, .pos = pos, .seq = seq}, bad = ok;
    bad.n_tokens = 0;
    expect(s, bad, DIL_EDATA, "no tokens");
    bad.n_tokens = 65;
    expect(s, bad, DIL_ELIMIT, "65 tokens, this stage takes 64");
    id[0] = (int32_t)N_VOCAB;
    expect(s, ok, DIL_EDATA, "vocabulary has 320");
    id[0] = -1;
    expect(s, ok, DIL_EDATA, "vocabulary has 320");
    id[0] = 0;
    seq[0] = 2;
    expect(s, ok, DIL_EDATA, "there are 2");
    seq[0] = -1;
    expect(s, ok, DIL_EDATA, "there are 2");
    seq[0] = 1;
    expect(s, ok, DIL_EDATA, "only 0 are held");
    seq[0] = 0;
    pos[0] = -5;
    expect(s, ok, DIL_EDATA, "position -5");
    pos[0] = 11;
    expect(s, ok, DIL_EDATA, "only 10 are held");
    pos[0] = 128;
    expect(s, ok, DIL_ELIMIT, "the context holds 128");
    pos[0] = 10;
    pos[1] = 13;
    bad.n_tokens = 2;
    expect(s, bad, DIL_EDATA, "expected 11");
    feed(s, 0, 10, 1, a);
    dil_stage *fresh = open_whole(&m);
    feed(fresh, 0, 0, 10, b);
    feed(fresh, 0, 10, 1, b);
    assert_memory_equal(a, b, sizeof a);
    dil_stage_close(s);
    dil_stage_close(fresh);
    dil__synthetic_free(m.data);
}

static void nan_in_weights_or_hidden_states_is_named_and_leaves_no_trace(void **state)
{
    (void)state;
    model m = make(llama_arch(), DIL_TYPE_F32);
    m.opts.kv_type = DIL_TYPE_F32;
    dil_stage *s = open_range(&m, 1, m.arch.n_blocks);
    float *h = calloc(4 * m.arch.n_embd, sizeof *h), *a = calloc(4 * m.arch.n_embd, sizeof *a), *b = calloc(4 * m.arch.n_embd, sizeof *b);
    for (uint32_t i = 0; i < 4 * m.arch.n_embd; i++) h[i] = (float)((i * 37) % 101) / 101 - 0.5f;
    int32_t pos[] = {0, 1, 2, 3};
    uint8_t want[] = {1, 1, 1, 1};
    dil_batch batch = {.n_tokens = 4, .pos = pos, .want = want};
    eval(s, &batch, h, a);
    float keep = h[5];
    h[5] = NAN;
    dil_err err = {0};
    assert_int_equal(dil_stage_eval(s, &batch, h, b, &err), DIL_EDATA);
    assert_non_null(strstr(err.text, "came in"));
    h[5] = keep;
    eval(s, &batch, h, b);
    assert_memory_equal(a, b, 4 * m.arch.n_embd * sizeof *a);
    float *w = (float *)(uintptr_t)dil_weights_find(&m.weights, "blk.2.ffn_up.weight")->data;
    w[77] = INFINITY;
    dil_stage_close(s);
    s = open_range(&m, 1, m.arch.n_blocks);
    assert_int_equal(dil_stage_eval(s, &batch, h, b, &err), DIL_EDATA);
    assert_non_null(strstr(err.text, "blk.2.ffn_up.weight"));
    dil_stage_close(s);
    free(h);
    free(a);
    free(b);
    dil__synthetic_free(m.data);
}

static void options_beyond_limits_are_refused(void **state)
{
    (void)state;
    model m = make(opt_arch(false), DIL_TYPE_F32);
    static const struct { dil_stage_opts o; dil_status status; const char *text; } cases[] = {
        {{.last_layer = 9}, DIL_EUSAGE, "of a model with 5"},
        {{.first_layer = 3, .last_layer = 2}, DIL_EUSAGE, "layers 3 to 2"},
        {{.last_layer = 4, .device = "Abacus0"}, DIL_ENOTFOUND, "Abacus0"},
        {{.last_layer = 4, .n_ctx = 257}, DIL_ELIMIT, "learned 256 positions"},
        {{.last_layer = 4, .n_seq = 257}, DIL_ELIMIT, "257 sequences"},
        {{.last_layer = 4, .max_batch = 100000}, DIL_ELIMIT, "100000"},
        {{.last_layer = 4, .kv_type = DIL_TYPE_Q4_0}, DIL_EUSAGE, "F16 or F32"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        dil_stage *s;
        dil_err err = {0};
        assert_int_equal(dil_stage_open(&m.arch, &m.weights, &cases[i].o, NULL, &s, &err), cases[i].status);
        if (!strstr(err.text, cases[i].text)) fail_msg("'%s' lacks '%s'", err.text, cases[i].text);
    }
    dil_arch big = llama_arch();
    big.n_ctx_train = 1u << 28;
    dil_stage_opts o = {.last_layer = big.n_blocks + 1, .n_ctx = 4u << 20, .n_seq = 256, .kv_type = DIL_TYPE_F32};
    model l = make(llama_arch(), DIL_TYPE_F32);
    dil_stage *s;
    dil_err err = {0};
    assert_int_equal(dil_stage_open(&big, &l.weights, &o, NULL, &s, &err), DIL_ELIMIT);
    assert_non_null(strstr(err.text, "free"));
    dil__synthetic_free(l.data);
    dil__synthetic_free(m.data);
}

static void measured_bytes_are_the_allocated_bytes(void **state)
{
    (void)state;
    model m = make(llama_arch(), DIL_TYPE_F16);
    m.opts.last_layer = m.arch.n_blocks + 1;
    uint64_t kv, buffers;
    assert_int_equal(dil_stage_measure(&m.arch, &m.opts, &kv, &buffers, NULL), DIL_OK);
    dil_stage *s = open_whole(&m);
    dil_stage_stats st = dil_stage_get_stats(s);
    assert_true(st.kv_bytes >= kv * m.arch.n_blocks && st.kv_bytes < kv * m.arch.n_blocks + 4096);
    assert_int_equal(kv, dil_arch_kv_bytes(&m.arch, 128, DIL_TYPE_F16));
    assert_true(buffers <= st.buffer_bytes && buffers * 1.3 + (1 << 20) > (double)st.buffer_bytes);
    dil_stage_close(s);
    dil__synthetic_free(m.data);
}

typedef struct seen {
    uint64_t rows, cols, calls;
    double sum;
    char name[32][DIL_TENSOR_NAME_MAX];
} seen;

static void note(void *ctx, const char *tensor, const float *x, uint64_t n_rows, uint64_t n_cols)
{
    seen *s = ctx;
    if (s->calls < 32) snprintf(s->name[s->calls], sizeof s->name[0], "%s", tensor);
    s->calls++;
    s->rows += n_rows;
    s->cols += n_cols;
    for (uint64_t i = 0; i < n_rows * n_cols; i++) s->sum += (double)x[i] * (double)x[i];
}

static void taps_show_every_linear_input_and_change_nothing(void **state)
{
    (void)state;
    dil_arch arch[] = {llama_arch(), opt_arch(false), opt_arch(true), gemma_arch(), phi_arch()};
    static const uint64_t linears[] = {7 * 4 + 1, 6 * 3 + 1, 6 * 3 + 3, 7 * 4 + 1, 4 * 4 + 1};
    for (size_t a = 0; a < sizeof arch / sizeof *arch; a++) {
        model m = make(arch[a], DIL_TYPE_F32);
        dil_stage *s = open_whole(&m);
        float *plain = calloc(2 * N_VOCAB, sizeof *plain), *tapped = plain + N_VOCAB;
        feed(s, 0, 0, 12, plain);
        seen n = {0};
        dil_stage_set_tap(s, note, &n);
        feed(s, 0, 0, 12, tapped);
        assert_int_equal(n.calls, linears[a]);
        assert_true(isfinite(n.sum) && n.sum > 0);
        assert_true(max_diff(plain, tapped, N_VOCAB) < 1e-5);
        dil_stage_set_tap(s, NULL, NULL);
        feed(s, 0, 0, 12, tapped);
        assert_memory_equal(plain, tapped, N_VOCAB * sizeof *plain);
        free(plain);
        dil_stage_close(s);
        dil__synthetic_free(m.data);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_split_gives_the_same_bits),
        cmocka_unit_test(chunks_and_neighbours_change_rounding_only),
        cmocka_unit_test(fixed_shapes_give_a_sequence_the_same_bits_in_any_company),
        cmocka_unit_test(fixed_shapes_decode_ahead_with_the_bits_of_one_after_the_other),
        cmocka_unit_test(trimmed_and_repeated_tokens_give_the_same_bits),
        cmocka_unit_test(bad_batches_are_refused_and_change_nothing),
        cmocka_unit_test(nan_in_weights_or_hidden_states_is_named_and_leaves_no_trace),
        cmocka_unit_test(options_beyond_limits_are_refused),
        cmocka_unit_test(measured_bytes_are_the_allocated_bytes),
        cmocka_unit_test(taps_show_every_linear_input_and_change_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
