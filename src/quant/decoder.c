/* A decoder in floats, forward and backward. Rows are tokens; every matrix is row-major, a weight [n_out][n_in]. */
#include "quant/decoder.h"

#include "quant/decoder_parts.h"

#include <dilemma/engine.h>

#include <stdlib.h>
#include <string.h>

enum slot {
    ATTN_NORM, ATTN_NORM_B, Q, Q_B, K, K_B, V, V_B, O, O_B, FFN_NORM, FFN_NORM_B, GATE, GATE_B, UP, UP_B, DOWN, DOWN_B,
    TOKEN_EMBD, POSITION_EMBD, PROJECT_IN, OUTPUT_NORM, OUTPUT_NORM_B, PROJECT_OUT, OUTPUT, ROPE_FREQS, N_SLOTS
};
static const char *const role_of[N_SLOTS] = {
    "attn_norm", "attn_norm.bias", "attn_q", "attn_q.bias", "attn_k", "attn_k.bias", "attn_v", "attn_v.bias", "attn_output", "attn_output.bias",
    "ffn_norm", "ffn_norm.bias", "ffn_gate", "ffn_gate.bias", "ffn_up", "ffn_up.bias", "ffn_down", "ffn_down.bias",
    "token_embd", "position_embd", "project_in", "output_norm", "output_norm.bias", "project_out", "output", "rope_freqs"};

typedef struct layer {
    dil_layer_tensor t[DIL_LAYER_TENSORS_MAX];
    size_t n;
    enum slot slot[DIL_LAYER_TENSORS_MAX];
    float *w[N_SLOTS]; /* NULL: the layer has none; shared ones belong to the first layer that lists them */
    bool owns[N_SLOTS];
} layer;

/* What a block's backward pass needs; [n_ctx] rows. */
typedef struct block {
    float *norm1, *norm2;       /* [n_embd] outputs of the norms */
    dil__norm_stats stats1, stats2;
    float *q, *k, *v, *att;     /* rotated q and k; att: what attn_output multiplies */
    float *probs;               /* [n_head][n_ctx][n_ctx] */
    float *sum1;                /* [n_embd] input plus attention */
    float *sum2;                /* [n_embd] that plus the feed-forward; norm after: before its norm */
    float *gate, *up, *act;     /* [n_ff] gate and up before the activation, act: what ffn_down multiplies */
} block;

struct dil__decoder {
    const dil_arch *arch;
    uint32_t n_ctx, n_layers;
    int n_threads;
    uint32_t root;              /* of a forked sequence */
    const uint32_t *from;       /* [n] borrowed; NULL: no fork */
    bool backward;              /* else all blocks share the first one's activations */
    layer *layer;               /* [n_layers] */
    block *block;               /* [n_blocks] */
    float **hidden;             /* [n_blocks + 1] behind planner layer i, [n_ctx][n_embd] */
    float *word;                /* [n_ctx][n_embd_word] looked-up rows */
    float *last;                /* [n_ctx][n_embd] behind the final norm */
    dil__norm_stats last_stats;
    float *work[5];             /* [n_ctx][widest] */
    float *dh, *dtmp;           /* [n_ctx][n_embd] */
    float *scores;              /* [n_ctx][n_ctx] */
    float *grad[N_SLOTS];       /* one block's gradients, and those of the ends */
    float *dembd;               /* [n_vocab][n_embd_word] where the head is not tied */
    float *rope;                /* [n_ctx][rope_dims] cosine, sine */
};

/* --- memory -------------------------------------------------------------------------------------------------------------- */

static float *floats(size_t n, size_t m, bool *ok)
{
    size_t k;
    float *p = dil_mul_size(n, m, &k) ? calloc(k ? k : 1, sizeof *p) : NULL;
    *ok = *ok && p;
    return p;
}

static bool allocate_layer(dil__decoder *d, uint32_t l)
{
    layer *y = &d->layer[l];
    bool ok = true;
    y->n = dil_arch_layer_tensors(d->arch, l, y->t);
    for (size_t i = 0; i < y->n && ok; i++) {
        size_t s = 0;
        while (strcmp(role_of[s], y->t[i].role) != 0) s++; /* dil__decoder_lacks has found it */
        y->slot[i] = (enum slot)s;
        size_t n = y->t[i].ne[0] * y->t[i].ne[1];
        if (y->t[i].shared) y->w[s] = s == TOKEN_EMBD ? d->layer[0].w[s] : d->layer[1].w[s];
        else y->w[s] = floats(n, 1, &ok), y->owns[s] = true;
        if (s != TOKEN_EMBD && s != OUTPUT && s != ROPE_FREQS && !d->grad[s]) d->grad[s] = floats(n, 1, &ok);
    }
    return ok;
}

static bool allocate_block(dil__decoder *d, block *b)
{
    const dil_arch *a = d->arch;
    size_t n = d->n_ctx, e = a->n_embd, q = (size_t)a->n_head * a->head_dim, kv = (size_t)a->n_head_kv * a->head_dim;
    bool ok = true;
    b->norm1 = floats(n, e, &ok);
    b->norm2 = floats(n, e, &ok);
    b->stats1 = (dil__norm_stats){floats(n, 1, &ok), floats(n, 1, &ok)};
    b->stats2 = (dil__norm_stats){floats(n, 1, &ok), floats(n, 1, &ok)};
    b->q = floats(n, q, &ok);
    b->k = floats(n, kv, &ok);
    b->v = floats(n, kv, &ok);
    b->att = floats(n, q, &ok);
    b->probs = floats((size_t)a->n_head * n, n, &ok);
    b->sum1 = floats(n, e, &ok);
    b->sum2 = floats(n, e, &ok);
    b->gate = a->gated_ffn ? floats(n, a->n_ff, &ok) : NULL;
    b->up = floats(n, a->n_ff, &ok);
    b->act = floats(n, a->n_ff, &ok);
    return ok;
}

static bool allocate(dil__decoder *d)
{
    const dil_arch *a = d->arch;
    bool ok = true;
    size_t n = d->n_ctx, q = (size_t)a->n_head * a->head_dim, wide = a->n_embd > a->n_ff ? a->n_embd : a->n_ff;
    if (q > wide) wide = q;
    d->layer = calloc(d->n_layers, sizeof *d->layer);
    d->block = calloc(a->n_blocks, sizeof *d->block);
    d->hidden = calloc(a->n_blocks + 1, sizeof *d->hidden);
    ok = d->layer && d->block && d->hidden;
    for (uint32_t l = 0; l < d->n_layers && ok; l++) ok = allocate_layer(d, l);
    for (uint32_t b = 0; b < a->n_blocks && ok; b++) {
        if (b == 0 || d->backward) ok = allocate_block(d, &d->block[b]);
        else d->block[b] = d->block[0];
    }
    for (uint32_t b = 0; b <= a->n_blocks && ok; b++) d->hidden[b] = b < 2 || d->backward ? floats(n, a->n_embd, &ok) : d->hidden[b - 2];
    for (int i = 0; i < 5 && ok; i++) d->work[i] = floats(n, wide, &ok);
    if (!ok) return false;
    d->word = floats(n, a->n_embd_word, &ok);
    d->last = floats(n, a->n_embd, &ok);
    d->last_stats = (dil__norm_stats){floats(n, 1, &ok), floats(n, 1, &ok)};
    d->dh = floats(n, a->n_embd, &ok);
    d->dtmp = floats(n, a->n_embd, &ok);
    d->scores = floats(n, n, &ok);
    d->rope = floats(n, a->rope_dims ? a->rope_dims : 1, &ok);
    if (!a->tied_head) d->dembd = floats(a->n_vocab, a->n_embd_word, &ok);
    return ok;
}

const char *dil__decoder_lacks(const dil_arch *a)
{
    if (a->window > 0) return "sliding windows";
    if (a->attn_softcap > 0 || a->final_softcap > 0) return "soft caps";
    if (a->attn_scale > 0) return "an attention scale of its own";
    if (a->embd_scale > 0) return "scaled embeddings";
    if (a->act == DIL_ACT_GELU_TANH) return "the tanh form of GELU";
    if (a->fused_gate_up) return "gate and up in one tensor";
    for (uint32_t l = 0; l < dil_arch_n_layers(a); l++) {
        dil_layer_tensor t[DIL_LAYER_TENSORS_MAX];
        size_t n = dil_arch_layer_tensors(a, l, t);
        for (size_t i = 0; i < n; i++) {
            size_t s = 0;
            while (s < N_SLOTS && strcmp(role_of[s], t[i].role) != 0) s++;
            if (s < N_SLOTS) continue;
            return a->fused_qkv ? "q, k and v in one tensor" : a->qk_norm ? "norms of q and k" : a->post_norms ? "norms behind attention and FFN" : "all tensors";
        }
    }
    return NULL;
}

dil_status dil__decoder_open(const dil_arch *arch, uint32_t n_ctx, int n_threads, bool backward, dil__decoder **out, dil_err *err)
{
    const char *lacks = dil__decoder_lacks(arch);
    if (lacks) return dil_fail(err, DIL_EUNSUPPORTED, "%s: gradients and layer-wise quantization do not know %s; take --method gptq", arch->name, lacks);
    dil__decoder *d = calloc(1, sizeof *d);
    if (d) *d = (dil__decoder){.arch = arch, .n_ctx = n_ctx, .n_layers = dil_arch_n_layers(arch), .n_threads = n_threads > 0 ? n_threads : dil_cpu_count(), .backward = backward};
    if (!d || !allocate(d)) {
        dil__decoder_free(d);
        return dil_fail(err, DIL_EMEMORY, "out of memory for the gradients of %u tokens", n_ctx);
    }
    *out = d;
    return DIL_OK;
}

static void free_block(block *b)
{
    float *all[] = {b->norm1, b->norm2, b->stats1.mean, b->stats1.rsqrt, b->stats2.mean, b->stats2.rsqrt, b->q, b->k, b->v, b->att, b->probs,
                    b->sum1, b->sum2, b->gate, b->up, b->act};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) free(all[i]);
}

void dil__decoder_free(dil__decoder *d)
{
    if (!d) return;
    for (uint32_t l = 0; d->layer && l < d->n_layers; l++)
        for (size_t s = 0; s < N_SLOTS; s++)
            if (d->layer[l].owns[s]) free(d->layer[l].w[s]);
    for (uint32_t b = 0; d->block && b < (d->backward ? d->arch->n_blocks : 1); b++) free_block(&d->block[b]);
    for (uint32_t b = 0; d->hidden && b <= (d->backward ? d->arch->n_blocks : 1); b++) free(d->hidden[b]);
    for (size_t s = 0; s < N_SLOTS; s++) free(d->grad[s]);
    for (int i = 0; i < 5; i++) free(d->work[i]);
    float *all[] = {d->word, d->last, d->last_stats.mean, d->last_stats.rsqrt, d->scores, d->dembd, d->rope, d->dh, d->dtmp};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) free(all[i]);
    free(d->layer);
    free(d->block);
    free(d->hidden);
    free(d);
}

dil_status dil__decoder_load(dil__decoder *d, const dil_weights *w, dil_err *err)
{
    for (uint32_t l = 0; l < d->n_layers; l++) {
        const layer *y = &d->layer[l];
        for (size_t i = 0; i < y->n; i++) {
            if (y->t[i].shared) continue;
            const dil_tensor *t = dil_weights_find(w, y->t[i].name);
            if (!t) return dil_fail(err, DIL_ENOTFOUND, "no tensor %s", y->t[i].name);
            if (t->ne[0] != y->t[i].ne[0] || t->ne[1] != y->t[i].ne[1]) return dil_fail(err, DIL_EUNSUPPORTED, "%s has another shape", t->name);
            dil_status st = dil_engine_dequantize(t->type, t->data, dil_tensor_elems(t), y->w[y->slot[i]], err);
            if (st != DIL_OK) return st;
        }
    }
    dil__rope_table(d->arch, d->arch->n_blocks ? d->layer[1].w[ROPE_FREQS] : NULL, d->n_ctx, d->rope);
    return DIL_OK;
}

float *dil__decoder_tensor(dil__decoder *d, uint32_t l, size_t index)
{
    return d->layer[l].w[d->layer[l].slot[index]];
}

float *dil__decoder_swap(dil__decoder *d, uint32_t l, size_t index, float *values)
{
    float **w = &d->layer[l].w[d->layer[l].slot[index]], *had = *w;
    *w = values;
    return had;
}

const float *dil__decoder_table(const dil__decoder *d)
{
    const layer *y = &d->layer[d->n_layers - 1];
    return y->w[d->arch->tied_head ? TOKEN_EMBD : OUTPUT];
}

const float *dil__decoder_hidden(const dil__decoder *d, uint32_t l)
{
    return d->hidden[l];
}

void dil__decoder_fork(dil__decoder *d, uint32_t root, const uint32_t *from)
{
    d->root = root;
    d->from = from;
}

static uint32_t position_of(const dil__decoder *d, uint32_t i)
{
    return d->from && i >= d->root ? d->root + i - d->from[i] : i;
}

/* --- forward -------------------------------------------------------------------------------------------------------------- */

static void add(float *to, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) to[i] += x[i];
}

static dil__attention attention_of(const dil__decoder *d, const block *b, uint32_t n)
{
    const dil_arch *a = d->arch;
    return (dil__attention){.n = n, .stride = d->n_ctx, .n_head = a->n_head, .n_head_kv = a->n_head_kv, .head_dim = a->head_dim,
                            .q = b->q, .k = b->k, .v = b->v, .out = b->att, .probs = b->probs, .scores = d->scores, .root = d->root, .from = d->from};
}

static void rotate(const dil__decoder *d, const layer *y, float *x, uint32_t n_head, uint32_t n, bool back)
{
    const dil_arch *a = d->arch;
    if (!dil_arch_has_rope(a, (uint32_t)(y - d->layer) - 1)) return;
    size_t row = (size_t)n_head * a->head_dim;
    for (uint32_t i = 0; i < n; i++) dil__rope(a, d->rope + (size_t)position_of(d, i) * a->rope_dims, x + i * row, n_head, back);
}

static void norm(const dil__decoder *d, const float *x, const layer *y, enum slot w, uint32_t n, const dil__norm_stats *s, float *out)
{
    dil__norm_forward(d->arch->norm, d->arch->norm_eps, x, y->w[w], y->w[w + 1], n, d->arch->n_embd, s, out);
}

static void attend(dil__decoder *d, const layer *y, block *b, const float *x, uint32_t n)
{
    const dil_arch *a = d->arch;
    size_t e = a->n_embd, q = (size_t)a->n_head * a->head_dim, kv = (size_t)a->n_head_kv * a->head_dim;
    dil__linear_forward(x, y->w[Q], y->w[Q_B], n, e, q, b->q);
    dil__linear_forward(x, y->w[K], y->w[K_B], n, e, kv, b->k);
    dil__linear_forward(x, y->w[V], y->w[V_B], n, e, kv, b->v);
    rotate(d, y, b->q, a->n_head, n, false);
    rotate(d, y, b->k, a->n_head_kv, n, false);
    dil__attention at = attention_of(d, b, n);
    dil__attention_forward(&at);
}

static void activate(dil__decoder *d, const layer *y, block *b, const float *x, uint32_t n)
{
    size_t e = d->arch->n_embd, f = d->arch->n_ff;
    if (b->gate) dil__linear_forward(x, y->w[GATE], y->w[GATE_B], n, e, f, b->gate);
    dil__linear_forward(x, y->w[UP], y->w[UP_B], n, e, f, b->up);
    dil__activate(d->arch->act, b->gate, b->up, n * f, b->act);
}

/* sum = stream + W x; with a norm behind it out is its norm, else out is not used. */
static void add_to_stream(dil__decoder *d, const layer *y, enum slot w, enum slot after, const float *x, const float *stream, uint32_t n, size_t n_in,
                          const dil__norm_stats *s, float *sum, float *out)
{
    size_t e = d->arch->n_embd;
    dil__linear_forward(x, y->w[w], y->w[w + 1], n, n_in, e, sum);
    for (size_t i = 0; i < n * e; i++) sum[i] += stream[i];
    if (!d->arch->norm_before) norm(d, sum, y, after, n, s, out);
}

static void run_block(dil__decoder *d, uint32_t l, uint32_t n)
{
    const layer *y = &d->layer[l];
    block *b = &d->block[l - 1];
    const dil_arch *a = d->arch;
    size_t q = (size_t)a->n_head * a->head_dim;
    bool before = a->norm_before;
    const float *in = d->hidden[l - 1];
    if (before) norm(d, in, y, ATTN_NORM, n, &b->stats1, b->norm1);
    attend(d, y, b, before ? b->norm1 : in, n);
    add_to_stream(d, y, O, ATTN_NORM, b->att, in, n, q, &b->stats1, b->sum1, b->norm1);
    if (before) norm(d, b->sum1, y, FFN_NORM, n, &b->stats2, b->norm2);
    activate(d, y, b, before ? b->norm2 : b->norm1, n);
    add_to_stream(d, y, DOWN, FFN_NORM, b->act, before ? b->sum1 : b->norm1, n, a->n_ff, &b->stats2, b->sum2, d->hidden[l]);
    if (before) memcpy(d->hidden[l], b->sum2, (size_t)n * a->n_embd * sizeof(float));
}

void dil__decoder_part(dil__decoder *d, uint32_t l, dil__part part, const float *x, const float *stream, uint32_t n, float *out)
{
    const layer *y = &d->layer[l];
    block *b = &d->block[l - 1];
    const dil_arch *a = d->arch;
    size_t e = a->n_embd, q = (size_t)a->n_head * a->head_dim, f = a->n_ff;
    bool before = a->norm_before;
    dil__blas_threads(d->n_threads);
    switch (part) {
    case DIL__ATTN_IN:
    case DIL__FFN_IN:
        if (before) norm(d, stream, y, part == DIL__ATTN_IN ? ATTN_NORM : FFN_NORM, n, &b->stats1, out);
        else memcpy(out, stream, n * e * sizeof *out);
        break;
    case DIL__ATTN:
        attend(d, y, b, x, n);
        memcpy(out, b->att, n * q * sizeof *out);
        break;
    case DIL__FFN:
        activate(d, y, b, x, n);
        memcpy(out, b->act, n * f * sizeof *out);
        break;
    case DIL__ATTN_OUT: add_to_stream(d, y, O, ATTN_NORM, x, stream, n, q, &b->stats1, before ? out : b->sum1, out); break;
    case DIL__FFN_OUT: add_to_stream(d, y, DOWN, FFN_NORM, x, stream, n, f, &b->stats1, before ? out : b->sum2, out); break;
    }
}

void dil__decoder_embed(dil__decoder *d, const int32_t *ids, uint32_t n, float *stream)
{
    const layer *y = &d->layer[0];
    size_t e = d->arch->n_embd, word = d->arch->n_embd_word;
    for (uint32_t i = 0; i < n; i++) memcpy(d->word + i * word, y->w[TOKEN_EMBD] + (size_t)ids[i] * word, word * sizeof(float));
    if (y->w[PROJECT_IN]) dil__linear_forward(d->word, y->w[PROJECT_IN], NULL, n, word, e, stream);
    else memcpy(stream, d->word, (size_t)n * e * sizeof(float));
    if (!y->w[POSITION_EMBD]) return;
    const float *pos = y->w[POSITION_EMBD] + (size_t)d->arch->position_offset * e;
    for (uint32_t i = 0; i < n; i++) add(stream + i * e, pos + position_of(d, i) * e, e);
}

void dil__decoder_finish(dil__decoder *d, const float *stream, uint32_t n, float *out)
{
    const layer *y = &d->layer[d->n_layers - 1];
    size_t e = d->arch->n_embd, word = d->arch->n_embd_word;
    const float *x = stream;
    if (y->w[OUTPUT_NORM]) {
        norm(d, x, y, OUTPUT_NORM, n, &d->last_stats, d->last);
        x = d->last;
    }
    if (y->w[PROJECT_OUT]) dil__linear_forward(x, y->w[PROJECT_OUT], NULL, n, e, word, out);
    else memcpy(out, x, (size_t)n * e * sizeof *out);
}

void dil__decoder_layer(dil__decoder *d, uint32_t l, const int32_t *ids, const float *in, uint32_t n, float *out)
{
    size_t size = (size_t)n * d->arch->n_embd * sizeof *out;
    dil__blas_threads(d->n_threads);
    if (l == 0) {
        dil__decoder_embed(d, ids, n, out);
    } else if (l + 1 < d->n_layers) {
        memcpy(d->hidden[l - 1], in, size);
        run_block(d, l, n);
        memcpy(out, d->hidden[l], size);
    } else {
        dil__decoder_finish(d, in, n, d->work[0]);
        dil__linear_forward(d->work[0], dil__decoder_table(d), NULL, n, d->arch->n_embd_word, d->arch->n_vocab, out);
    }
}

void dil__decoder_forward(dil__decoder *d, const int32_t *ids, uint32_t n, float *out)
{
    dil__blas_threads(d->n_threads);
    dil__decoder_embed(d, ids, n, d->hidden[0]);
    for (uint32_t l = 1; l <= d->arch->n_blocks; l++) run_block(d, l, n);
    dil__decoder_finish(d, d->hidden[d->arch->n_blocks], n, out);
}

/* --- backward ------------------------------------------------------------------------------------------------------------- */

static void norm_back(dil__decoder *d, const float *dy, const float *x, const layer *y, enum slot slot, uint32_t n, const dil__norm_stats *s, float *dx)
{
    dil__norm_backward(d->arch->norm, dy, x, y->w[slot], n, d->arch->n_embd, s, dx, d->grad[slot], y->w[slot + 1] ? d->grad[slot + 1] : NULL);
}

/* dy [n][n_out] of a linear layer on x: its gradients, and dx (added where add is set). */
static void linear_back(dil__decoder *d, const float *dy, const float *x, const layer *y, enum slot slot, uint32_t n, size_t n_in, size_t n_out, bool add,
                        float *dx)
{
    bool bias = slot < TOKEN_EMBD && y->w[slot + 1] != NULL;
    dil__linear_backward(dy, x, y->w[slot], n, n_in, n_out, d->grad[slot], bias ? d->grad[slot + 1] : NULL, add, dx);
}

/* dout [n_embd] of attention's output; dx: of its input. */
static void attend_back(dil__decoder *d, const layer *y, const block *b, const float *x, const float *dout, uint32_t n, float *dx)
{
    const dil_arch *a = d->arch;
    size_t e = a->n_embd, q = (size_t)a->n_head * a->head_dim, kv = (size_t)a->n_head_kv * a->head_dim;
    float *datt = d->work[1], *dq = d->work[2], *dk = d->work[3], *dv = d->work[4];
    linear_back(d, dout, b->att, y, O, n, q, e, false, datt);
    dil__attention at = attention_of(d, b, n);
    dil__attention_backward(&at, datt, dq, dk, dv);
    rotate(d, y, dq, a->n_head, n, true);
    rotate(d, y, dk, a->n_head_kv, n, true);
    linear_back(d, dq, x, y, Q, n, e, q, false, dx);
    linear_back(d, dk, x, y, K, n, e, kv, true, dx);
    linear_back(d, dv, x, y, V, n, e, kv, true, dx);
}

static void feed_back(dil__decoder *d, const layer *y, const block *b, const float *x, const float *dout, uint32_t n, float *dx)
{
    size_t e = d->arch->n_embd, f = d->arch->n_ff;
    float *dact = d->work[1], *dgate = d->work[2], *dup = d->work[3];
    linear_back(d, dout, b->act, y, DOWN, n, f, e, false, dact);
    dil__activate_backward(d->arch->act, b->gate, b->up, dact, n * f, dgate, dup);
    linear_back(d, dup, x, y, UP, n, e, f, false, dx);
    if (b->gate) linear_back(d, dgate, x, y, GATE, n, e, f, true, dx);
}

/* dh: of the hidden state behind the block, becomes that before it. */
static void block_back(dil__decoder *d, uint32_t l, uint32_t n, float *dh, float *tmp)
{
    const layer *y = &d->layer[l];
    const block *b = &d->block[l - 1];
    size_t size = (size_t)n * d->arch->n_embd;
    float *dx = d->work[0];
    if (d->arch->norm_before) {
        feed_back(d, y, b, b->norm2, dh, n, dx);
        norm_back(d, dx, b->sum1, y, FFN_NORM, n, &b->stats2, tmp);
        add(dh, tmp, size);
        attend_back(d, y, b, b->norm1, dh, n, dx);
        norm_back(d, dx, d->hidden[l - 1], y, ATTN_NORM, n, &b->stats1, tmp);
        add(dh, tmp, size);
        return;
    }
    norm_back(d, dh, b->sum2, y, FFN_NORM, n, &b->stats2, tmp);
    feed_back(d, y, b, b->norm1, tmp, n, dx);
    add(tmp, dx, size);
    norm_back(d, tmp, b->sum1, y, ATTN_NORM, n, &b->stats1, dh);
    attend_back(d, y, b, d->hidden[l - 1], dh, n, dx);
    add(dh, dx, size);
}

static void hand_out(dil__decoder *d, uint32_t l, const dil__decoder_sink *sink)
{
    const layer *y = &d->layer[l];
    for (size_t i = 0; i < y->n; i++) {
        enum slot s = y->slot[i];
        if (d->grad[s]) sink->grad(sink->ctx, l, i, &y->t[i], d->grad[s]);
    }
}

static void embed_back(dil__decoder *d, const int32_t *ids, uint32_t n, const float *dh, float *dtable, const dil__decoder_sink *sink)
{
    const layer *y = &d->layer[0];
    size_t e = d->arch->n_embd, word = d->arch->n_embd_word;
    if (y->w[POSITION_EMBD]) {
        float *g = d->grad[POSITION_EMBD];
        memset(g, 0, (size_t)(d->arch->n_ctx_train + d->arch->position_offset) * e * sizeof *g);
        for (uint32_t i = 0; i < n; i++) add(g + (size_t)(d->arch->position_offset + position_of(d, i)) * e, dh + i * e, e);
    }
    const float *dword = dh;
    if (y->w[PROJECT_IN]) {
        linear_back(d, dh, d->word, y, PROJECT_IN, n, word, e, false, d->work[1]);
        dword = d->work[1];
    }
    float *g = d->arch->tied_head ? dtable : d->dembd;
    if (!d->arch->tied_head) memset(g, 0, (size_t)d->arch->n_vocab * word * sizeof *g);
    for (uint32_t i = 0; i < n; i++) add(g + (size_t)ids[i] * word, dword + i * word, word);
    for (size_t i = 0; i < y->n; i++)
        if (y->slot[i] == TOKEN_EMBD) sink->grad(sink->ctx, 0, i, &y->t[i], g);
    hand_out(d, 0, sink);
}

void dil__decoder_backward(dil__decoder *d, const int32_t *ids, uint32_t n, float *dout, float *dtable, const dil__decoder_sink *sink)
{
    uint32_t head = d->n_layers - 1;
    const layer *y = &d->layer[head];
    size_t e = d->arch->n_embd, word = d->arch->n_embd_word, size = (size_t)n * e;
    float *dh = d->dh, *tmp = d->dtmp;
    dil__blas_threads(d->n_threads);
    const float *last = d->hidden[d->arch->n_blocks];
    if (y->w[PROJECT_OUT]) linear_back(d, dout, y->w[OUTPUT_NORM] ? d->last : last, y, PROJECT_OUT, n, e, word, false, tmp);
    else memcpy(tmp, dout, size * sizeof *tmp);
    if (y->w[OUTPUT_NORM]) norm_back(d, tmp, last, y, OUTPUT_NORM, n, &d->last_stats, dh);
    else memcpy(dh, tmp, size * sizeof *dh);
    hand_out(d, head, sink);
    for (uint32_t l = d->arch->n_blocks; l > 0; l--) {
        if (sink->hidden) sink->hidden(sink->ctx, l, n, d->hidden[l], dh);
        block_back(d, l, n, dh, tmp);
        hand_out(d, l, sink);
    }
    if (sink->hidden) sink->hidden(sink->ctx, 0, n, d->hidden[0], dh);
    embed_back(d, ids, n, dh, dtable, sink);
}
