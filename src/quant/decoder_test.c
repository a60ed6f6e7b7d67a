/* The differentiating decoder against the engine's graph, and its gradients against finite differences. */
#include "quant/decoder.h"
#include "quant/table_metric.h"
#include "engine/synthetic.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N_VOCAB = 40, N = 13, CTX = 16 };

static dil_arch llama_arch(bool tied, bool neox)
{
    return (dil_arch){.family = DIL_FAMILY_LLAMA, .name = "llama", .n_blocks = 2, .n_embd = 64, .n_embd_word = 64, .n_ff = 96,
                      .n_head = 4, .n_head_kv = 2, .head_dim = 16, .n_vocab = N_VOCAB, .n_ctx_train = 64, .norm = DIL_NORM_RMS,
                      .norm_eps = 1e-5f, .norm_before = true, .final_norm = true, .positions = neox ? DIL_POS_ROPE_NEOX : DIL_POS_ROPE_NORM,
                      .rope_freq_base = 10000, .rope_scale = 1, .rope_dims = 16, .rope_freqs = tied, .act = DIL_ACT_SILU, .gated_ffn = true,
                      .tied_head = tied, .no_rope_period = neox ? 2 : 0};
}

static dil_arch opt_arch(bool post_norm)
{
    return (dil_arch){.family = DIL_FAMILY_OPT, .name = "opt", .n_blocks = 2, .n_embd = 64, .n_embd_word = post_norm ? 32 : 64, .n_ff = 96,
                      .n_head = 4, .n_head_kv = 4, .head_dim = 16, .n_vocab = N_VOCAB, .n_ctx_train = 64, .norm = DIL_NORM_LAYER,
                      .norm_eps = 1e-5f, .norm_before = !post_norm, .final_norm = !post_norm, .positions = DIL_POS_LEARNED,
                      .position_offset = 2, .rope_freq_base = 10000, .rope_scale = 1, .act = post_norm ? DIL_ACT_RELU : DIL_ACT_GELU,
                      .qkv_bias = true, .out_bias = true, .ffn_bias = true, .tied_head = true};
}

typedef struct model {
    dil_arch arch;
    dil__synthetic *data;
    dil_weights weights;
    dil__decoder *d;
    int32_t ids[N];
} model;

static void open_model(model *m, dil_arch a)
{
    dil_err err = {0};
    m->arch = a;
    dil__synthetic_opts o = {.last_layer = a.n_blocks + 1, .seed = 3};
    if (dil__synthetic_new(&m->arch, &o, &m->data, &err)) fail_msg("%s", err.text);
    m->weights = dil__synthetic_weights(m->data);
    if (dil__decoder_open(&m->arch, CTX, 1, true, &m->d, &err) || dil__decoder_load(m->d, &m->weights, &err)) fail_msg("%s", err.text);
    for (int i = 0; i < N; i++) m->ids[i] = (i * 17 + i / 3) % N_VOCAB;
}

static void close_model(model *m)
{
    dil__decoder_free(m->d);
    dil__synthetic_free(m->data);
}

static void forward_agrees_with_the_engine(void **state)
{
    (void)state;
    dil_arch archs[] = {llama_arch(true, false), llama_arch(false, true), opt_arch(false), opt_arch(true)};
    for (size_t k = 0; k < sizeof archs / sizeof archs[0]; k++) {
        model m;
        open_model(&m, archs[k]);
        dil_err err = {0};
        dil_stage_opts o = {.n_threads = 1, .last_layer = m.arch.n_blocks + 1, .n_ctx = 64, .max_batch = N, .kv_type = DIL_TYPE_F32, .no_flash = true};
        dil_stage *s;
        if (dil_stage_open(&m.arch, &m.weights, &o, NULL, &s, &err)) fail_msg("%s", err.text);
        int32_t pos[N];
        uint8_t want[N];
        for (int i = 0; i < N; i++) pos[i] = i, want[i] = 1;
        dil_batch b = {.n_tokens = N, .token = m.ids, .pos = pos, .want = want};
        float logits[N * N_VOCAB], out[N * 64];
        if (dil_stage_eval(s, &b, NULL, logits, &err)) fail_msg("%s", err.text);
        dil__decoder_forward(m.d, m.ids, N, out);
        const float *table = dil__decoder_table(m.d);
        size_t word = m.arch.n_embd_word;
        double size = 0;
        for (size_t i = 0; i < N; i++) {
            for (size_t v = 0; v < N_VOCAB; v++) {
                double z = 0;
                for (size_t j = 0; j < word; j++) z += (double)out[i * word + j] * (double)table[v * word + j];
                double e = fabs(z - (double)logits[i * N_VOCAB + v]);
                if (!(e < 2e-3)) fail_msg("architecture %zu, token %zu, logit %zu: %g here, %g in the engine", k, i, v, z, (double)logits[i * N_VOCAB + v]);
                size = fmax(size, fabs(z));
            }
        }
        assert_true(size > 0.5);
        dil_stage_close(s);
        close_model(&m);
    }
}

/* L = Σ c·out + ½ Σ behind layer 1 of c'·h², all with fixed random c. */
typedef struct loss { model *m; float *c; double hidden_weight; } loss;

static double loss_of(const loss *l)
{
    float out[N * 64];
    size_t word = l->m->arch.n_embd_word, e = l->m->arch.n_embd;
    dil__decoder_forward(l->m->d, l->m->ids, N, out);
    double sum = 0;
    for (size_t i = 0; i < N * word; i++) sum += (double)l->c[i] * (double)out[i];
    const float *h = dil__decoder_hidden(l->m->d, 1);
    for (size_t i = 0; i < N * e; i++) sum += l->hidden_weight * 0.5 * (double)h[i] * (double)h[i];
    return sum;
}

static void add_hidden(void *ctx, uint32_t layer, uint32_t n, const float *h, float *dh)
{
    const loss *l = ctx;
    if (layer != 1) return;
    for (size_t i = 0; i < (size_t)n * l->m->arch.n_embd; i++) dh[i] += (float)l->hidden_weight * h[i];
}

/* Keeps a copy of every gradient. */
typedef struct kept { loss l; float *grad[8][DIL_LAYER_TENSORS_MAX]; } kept;

static void keep_hidden(void *ctx, uint32_t layer, uint32_t n, const float *h, float *dh)
{
    add_hidden(&((kept *)ctx)->l, layer, n, h, dh);
}

static void keep(void *ctx, uint32_t layer, size_t index, const dil_layer_tensor *t, const float *grad)
{
    kept *k = ctx;
    size_t n = t->ne[0] * t->ne[1];
    assert_null(k->grad[layer][index]);
    k->grad[layer][index] = malloc(n * sizeof *grad);
    memcpy(k->grad[layer][index], grad, n * sizeof *grad);
}

/* The derivative along a random direction of one tensor, by central differences. */
static void check_tensor(kept *k, uint32_t layer, size_t index, const dil_layer_tensor *t, dil_rng *rng)
{
    size_t n = t->ne[0] * t->ne[1];
    float *w = dil__decoder_tensor(k->l.m->d, layer, index), *was = malloc(n * sizeof *was), *dir = malloc(n * sizeof *dir);
    const float *g = k->grad[layer][index];
    double want = 0, norm = 0, eps = 2e-3;
    memcpy(was, w, n * sizeof *was);
    for (size_t i = 0; i < n; i++) {
        dir[i] = (float)dil_rng_normal(rng) * (fabsf(was[i]) + 0.02f);
        norm += (double)g[i] * (double)g[i];
        want += (double)g[i] * (double)dir[i];
    }
    double l[2];
    for (int s = 0; s < 2; s++) {
        for (size_t i = 0; i < n; i++) w[i] = was[i] + (float)(s ? -eps : eps) * dir[i];
        l[s] = loss_of(&k->l);
    }
    memcpy(w, was, n * sizeof *was);
    double got = (l[0] - l[1]) / (2 * eps), dir_norm = 0;
    for (size_t i = 0; i < n; i++) dir_norm += (double)dir[i] * (double)dir[i];
    double scale = sqrt(norm * dir_norm); /* the derivative of a direction along the gradient */
    if (!(fabs(got - want) <= 0.01 * fabs(want) + 0.002 * scale + 1e-3))
        fail_msg("%s: derivative %g by differences, %g by the gradient (scale %g)", t->name, got, want, scale);
    if (!strstr(t->role, "attn_k.bias")) assert_true(norm > 0); /* a key's bias shifts all scores of a query alike: no effect */
    free(was), free(dir);
}

static void gradients_agree_with_finite_differences(void **state)
{
    (void)state;
    dil_arch archs[] = {llama_arch(true, false), llama_arch(false, true), opt_arch(false), opt_arch(true)};
    for (size_t a = 0; a < sizeof archs / sizeof archs[0]; a++) {
        model m;
        open_model(&m, archs[a]);
        size_t word = m.arch.n_embd_word;
        float c[N * 64], dout[N * 64], out[N * 64], *dtable = calloc(N_VOCAB * word, sizeof *dtable);
        dil_rng rng;
        dil_rng_init(&rng, 21 + a);
        for (size_t i = 0; i < N * word; i++) dout[i] = c[i] = (float)dil_rng_normal(&rng);
        kept k = {.l = {&m, c, 0.1}};
        dil__decoder_forward(m.d, m.ids, N, out);
        dil__decoder_sink sink = {.hidden = keep_hidden, .grad = keep, .ctx = &k};
        dil__decoder_backward(m.d, m.ids, N, dout, dtable, &sink);
        size_t checked = 0;
        for (uint32_t l = 0; l < dil_arch_n_layers(&m.arch); l++) {
            dil_layer_tensor t[DIL_LAYER_TENSORS_MAX];
            size_t n = dil_arch_layer_tensors(&m.arch, l, t);
            for (size_t i = 0; i < n; i++) {
                bool head = l == m.arch.n_blocks + 1 && t[i].ne[1] == N_VOCAB;
                if (head || strcmp(t[i].role, "rope_freqs") == 0) continue;
                assert_non_null(k.grad[l][i]);
                check_tensor(&k, l, i, &t[i], &rng);
                free(k.grad[l][i]);
                checked++;
            }
        }
        assert_true(checked > 18);
        free(dtable);
        close_model(&m);
    }
}

/* Two continuations of one root, computed at once and each alone behind it: the same outputs; the gradients are the sum. */
enum { ROOT = 5, ENDS = 9 }; /* tokens 5..8 are the first branch, 9..12 the second */

static void take_sum(void *ctx, uint32_t layer, size_t index, const dil_layer_tensor *t, const float *grad)
{
    kept *k = ctx;
    size_t n = t->ne[0] * t->ne[1];
    if (!k->grad[layer][index]) k->grad[layer][index] = calloc(n, sizeof(float));
    assert_non_null(k->grad[layer][index]);
    for (size_t i = 0; i < n; i++) k->grad[layer][index][i] += grad[i];
}

static void run_with_gradient(kept *k, const int32_t *ids, uint32_t n, const float *c, float *out)
{
    model *m = k->l.m;
    float dout[N * 64], *dtable = calloc(N_VOCAB * m->arch.n_embd_word, sizeof *dtable);
    dil__decoder_sink sink = {.grad = take_sum, .ctx = k};
    assert_non_null(dtable);
    memcpy(dout, c, n * m->arch.n_embd_word * sizeof *c);
    dil__decoder_forward(m->d, ids, n, out);
    dil__decoder_backward(m->d, ids, n, dout, dtable, &sink);
    free(dtable);
}

static double compare_and_free(kept *a, kept *b, uint32_t layer, size_t index, size_t n)
{
    double worst = 0, size = 1e-6;
    float *x = a->grad[layer][index], *y = b->grad[layer][index];
    for (size_t i = 0; i < n; i++) {
        worst = fmax(worst, fabs((double)x[i] - (double)y[i]));
        size = fmax(size, fabs((double)y[i]));
    }
    free(x), free(y);
    return worst / size;
}

static void forks_are_their_branches(void **state)
{
    (void)state;
    dil_arch archs[] = {llama_arch(true, false), llama_arch(false, true), opt_arch(false), opt_arch(true)};
    for (size_t a = 0; a < sizeof archs / sizeof archs[0]; a++) {
        model m;
        open_model(&m, archs[a]);
        size_t word = m.arch.n_embd_word;
        float c[N * 64], together[N * 64], alone[N * 64];
        dil_rng rng;
        dil_rng_init(&rng, 31 + a);
        for (size_t i = 0; i < N * word; i++) c[i] = (float)dil_rng_normal(&rng);
        uint32_t from[N];
        for (uint32_t i = 0; i < N; i++) from[i] = i < ROOT ? 0 : i < ENDS ? ROOT : ENDS;
        kept forked = {.l = {&m, c, 0}}, summed = {.l = {&m, c, 0}};
        dil__decoder_fork(m.d, ROOT, from);
        run_with_gradient(&forked, m.ids, N, c, together);
        dil__decoder_fork(m.d, 0, NULL);
        for (uint32_t start = ROOT, end = ENDS, branch = 0; branch < 2; start = ENDS, end = N, branch++) {
            int32_t ids[N];
            float cs[N * 64] = {0}; /* the root's loss counts once */
            uint32_t n = ROOT + end - start;
            memcpy(ids, m.ids, ROOT * sizeof *ids);
            memcpy(ids + ROOT, m.ids + start, (end - start) * sizeof *ids);
            if (branch == 0) memcpy(cs, c, ROOT * word * sizeof *c);
            memcpy(cs + ROOT * word, c + start * word, (end - start) * word * sizeof *c);
            run_with_gradient(&summed, ids, n, cs, alone);
            for (size_t i = ROOT * word; i < n * word; i++) {
                double e = fabs((double)alone[i] - (double)together[(start - ROOT) * word + i]);
                if (!(e < 1e-4)) fail_msg("architecture %zu, branch %u, value %zu: off by %g", a, branch, i, e);
            }
        }
        for (uint32_t l = 0; l < dil_arch_n_layers(&m.arch); l++) {
            dil_layer_tensor t[DIL_LAYER_TENSORS_MAX];
            size_t n = dil_arch_layer_tensors(&m.arch, l, t);
            for (size_t i = 0; i < n; i++) {
                if (!forked.grad[l][i]) continue;
                double e = compare_and_free(&forked, &summed, l, i, t[i].ne[0] * t[i].ne[1]);
                if (!(e < 1e-3) && !strstr(t[i].role, "attn_k.bias")) fail_msg("architecture %zu, %s: gradients differ by %g of their size", a, t[i].name, e);
            }
        }
        close_model(&m);
    }
}

/* --- what an error in a tied table costs ----------------------------------------------------------------------------------------- */

enum { DRAWS = 1500 };

/* Probabilities of every token's successor, with the stream behind the embedding moved by `by` [n_embd] at token `at`. */
static void probabilities(const model *m, uint32_t at, const float *by, double sign, double *p)
{
    size_t e = m->arch.n_embd;
    float a[N * 64], b[N * 64], logits[N * N_VOCAB];
    dil__decoder_layer(m->d, 0, m->ids, NULL, N, a);
    for (size_t k = 0; k < e; k++) a[at * e + k] += (float)sign * by[k];
    for (uint32_t l = 1; l <= m->arch.n_blocks; l++) {
        dil__decoder_layer(m->d, l, NULL, a, N, b);
        memcpy(a, b, sizeof a);
    }
    dil__decoder_layer(m->d, m->arch.n_blocks + 1, NULL, a, N, logits);
    for (size_t i = 0; i < N; i++) {
        double sum = 0;
        for (size_t v = 0; v < N_VOCAB; v++) sum += p[i * N_VOCAB + v] = exp((double)logits[i * N_VOCAB + v]);
        for (size_t v = 0; v < N_VOCAB; v++) p[i * N_VOCAB + v] /= sum;
    }
}

/* Twice the divergence over a small move of a word by `dir` [word], over its size squared, summed over the places. */
static double embedding_cost(const model *m, const float *dir)
{
    const float eps = 1e-2f;
    size_t e = m->arch.n_embd, word = m->arch.n_embd_word;
    const float *project = NULL;
    dil_layer_tensor t[DIL_LAYER_TENSORS_MAX];
    size_t n = dil_arch_layer_tensors(&m->arch, 0, t);
    for (size_t i = 0; i < n; i++)
        if (strcmp(t[i].role, "project_in") == 0) project = dil__decoder_tensor(m->d, 0, i);
    float by[64] = {0};
    for (size_t i = 0; i < e; i++)
        for (size_t k = 0; k < word; k++) by[i] += eps * (project ? project[i * word + k] : i == k ? 1.0f : 0.0f) * dir[k];
    double cost = 0, p[N * N_VOCAB], q[N * N_VOCAB];
    for (uint32_t at = 0; at < N; at++) {
        probabilities(m, at, by, 0, p);
        for (int sign = -1; sign <= 1; sign += 2) {
            probabilities(m, at, by, sign, q);
            for (size_t i = 0; i < N * N_VOCAB; i++) cost += p[i] * log(p[i] / q[i]) / (double)(eps * eps);
        }
    }
    return cost;
}

/* Σ_t Σ_v p (1 - p) (dir x)². */
static double head_cost(const model *m, const float *dir)
{
    size_t word = m->arch.n_embd_word;
    float x[N * 64], nowhere[64] = {0};
    double cost = 0, p[N * N_VOCAB];
    probabilities(m, 0, nowhere, 0, p);
    dil__decoder_forward(m->d, m->ids, N, x);
    for (size_t i = 0; i < N; i++) {
        double along = 0, doubt = 0;
        for (size_t k = 0; k < word; k++) along += (double)x[i * word + k] * (double)dir[k];
        for (size_t v = 0; v < N_VOCAB; v++) doubt += p[i * N_VOCAB + v] * (1 - p[i * N_VOCAB + v]);
        cost += doubt * along * along;
    }
    return cost;
}

static void table_metric_is_what_an_error_costs(void **state)
{
    (void)state;
    dil_arch archs[] = {llama_arch(true, false), opt_arch(false), opt_arch(true)};
    for (size_t a = 0; a < sizeof archs / sizeof archs[0]; a++) {
        model m;
        open_model(&m, archs[a]);
        size_t word = m.arch.n_embd_word;
        int32_t *ids = malloc(DRAWS * sizeof m.ids);
        assert_non_null(ids);
        for (size_t i = 0; i < DRAWS; i++) memcpy(ids + i * N, m.ids, sizeof m.ids);
        dil__table_metric_opts o = {&m.arch, &m.weights, ids, N, DRAWS, 1};
        dil__hessian h;
        dil_err err = {0};
        if (dil__table_metric(&o, NULL, &h, &err)) fail_msg("%s", err.text);
        dil_rng rng;
        dil_rng_init(&rng, 51 + a);
        for (int trial = 0; trial < 6; trial++) {
            float dir[64];
            double got = 0;
            for (size_t k = 0; k < word; k++) dir[k] = (float)dil_rng_normal(&rng);
            for (size_t i = 0; i < word; i++)
                for (size_t k = i; k < word; k++) got += (i == k ? 1 : 2) * h.sum[i * word + k] * (double)dir[i] * (double)dir[k] / DRAWS;
            double head = head_cost(&m, dir), embedding = embedding_cost(&m, dir), want = head + embedding;
            if (!(fabs(got - want) <= 0.05 * want)) fail_msg("architecture %zu: %g as head, %g as embedding, together %g; %g by the metric", a, head, embedding, want, got);
        }
        dil__hessian_fini(&h);
        free(ids);
        close_model(&m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(table_metric_is_what_an_error_costs), cmocka_unit_test(forks_are_their_branches), cmocka_unit_test(forward_agrees_with_the_engine), cmocka_unit_test(gradients_agree_with_finite_differences)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
