/* Within a block the tensors go in groups that share an input: q, k, v; attention's output; gate, up; down. Each group sees the student
 * as it is by then: the groups before it quantized, those behind it not yet. The embedding comes first, so that the blocks
 * make up for its errors as well; what an error in a tied one costs, the teacher says before (table_metric.h).
 *
 * The decoder in floats (decoder.h) holds the teacher's weights at first; each tensor gives way to its quantized values, and a block's parts are
 * computed once, the teacher's before any of the block's weights change. */
#include "quant/sequential.h"

#include "quant/codec.h"
#include "quant/crossval.h"
#include "quant/decoder.h"
#include "quant/gptq.h"
#include "quant/recode.h"
#include "quant/table_metric.h"

#include <cblas.h>
#include <stdlib.h>
#include <string.h>

enum { N_GROUPS = 4, TABLE_CHUNKS = 16 }; /* a table's covariance has n_embd columns only: so many sequences settle it */

/* A group's input is a part of the block; its tensors. */
static const struct { dil__part part; const char *role[4]; } groups[N_GROUPS] = {
    {DIL__ATTN_IN, {"attn_q", "attn_k", "attn_v", NULL}},
    {DIL__ATTN, {"attn_output", NULL}},
    {DIL__FFN_IN, {"ffn_gate", "ffn_up", NULL}},
    {DIL__FFN, {"ffn_down", NULL}}};

typedef struct run {
    const dil_arch *arch;
    const dil_weights *weights;
    const dil__sequential_opts *o;
    const dil_progress *progress;
    dil__variant *out;
    dil__decoder *d;
    int n_threads;
    size_t n_tokens, cols[N_GROUPS];
    float *teacher_x[N_GROUPS];        /* [tokens][cols] the groups' inputs in the teacher; of one sequence where the stream is what counts */
    float *x;                          /* [tokens][widest] the current group's in the student */
    float *teacher, *teacher_mid;      /* [tokens][n_embd] streams before the block; behind its attention */
    float *student, *student_mid;
    float *teacher_out;
    float *diff;                       /* [n_ctx][widest] */
} run;

/* --- one tensor --------------------------------------------------------------------------------------------------------- */

/* w [n_rows][n_cols] at the type, with error feedback where the type has a codec. u NULL: each weight by itself. The decoder goes on with the
 * quantized values. */
static dil_status put_quantized(run *r, const dil_tensor *src, const float *w, dil_type type, const float *u, const float *importance,
                                float *live, dil_err *err)
{
    uint64_t n_cols = src->ne[0], n_rows = src->ne[1], row;
    if (!dil_type_row_bytes(type, n_cols, &row)) return dil_fail(err, DIL_EUNSUPPORTED, "%s: its rows do not take the type", src->name);
    void *data = malloc(row * n_rows);
    if (!data) return dil_fail(err, DIL_EMEMORY, "%s: out of memory", src->name);
    dil_status st;
    if (dil__codec_get(type) && u) st = dil__gptq_quantize(type, w, n_rows, n_cols, u, DIL__GPTQ_PASSES, data, r->n_threads, err);
    else if (dil__codec_get(type)) st = dil__codec_quantize(type, w, n_rows, n_cols, importance, data, r->n_threads, err);
    else st = dil_engine_quantize(type, w, n_rows, n_cols, importance, data, r->n_threads, err);
    if (st == DIL_OK) st = dil_engine_dequantize(type, data, n_rows * n_cols, live, err);
    if (st == DIL_OK) return dil__variant_put(r->out, src, type, data, row * n_rows, err);
    free(data);
    return st;
}

/* --- one group ---------------------------------------------------------------------------------------------------------------- */

/* Sums over calibration tokens, as the student stands. */
typedef struct sums {
    dil__hessian h;
    float *lack;     /* [n_cols][n_cols] Σ (x_t - x) xᵀ, of what is inside the block */
    float *residual; /* [n_embd][n_cols] Σ (r_t - r) xᵀ, of what writes the stream */
} sums;

/* The text's first half, its second, and both together: what is read off one half can be judged on the other. */
enum { FIRST, SECOND, WHOLE, N_SUMS };
#define HALVES(s) ((const dil__hessian *[]){&(s)[FIRST].h, &(s)[SECOND].h})

static void free_sums(sums *s)
{
    dil__hessian_fini(&s->h);
    free(s->lack);
    free(s->residual);
}

/* c [m][n] += a [rows][m]ᵀ b [rows][n] */
static void add_product(float *c, const float *a, const float *b, size_t rows, size_t m, size_t n)
{
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)m, (int)n, (int)rows, 1, a, (int)m, b, (int)n, 1, c, (int)n);
}

/* The student's input of a group for one sequence, into r->x, from the group before. */
static void advance(run *r, uint32_t layer, size_t g, size_t at)
{
    uint32_t n = r->o->n_ctx;
    size_t e = r->arch->n_embd;
    float *stream = r->student + at * e, *mid = r->student_mid + at * e, *x = r->x + at * r->cols[g];
    switch (groups[g].part) {
    case DIL__ATTN_IN: dil__decoder_part(r->d, layer, DIL__ATTN_IN, NULL, stream, n, x); break;
    case DIL__ATTN:
        dil__decoder_part(r->d, layer, DIL__ATTN_IN, NULL, stream, n, r->diff);
        dil__decoder_part(r->d, layer, DIL__ATTN, r->diff, NULL, n, x);
        break;
    case DIL__FFN_IN: dil__decoder_part(r->d, layer, DIL__FFN_IN, NULL, mid, n, x); break;
    default:
        dil__decoder_part(r->d, layer, DIL__FFN_IN, NULL, mid, n, r->diff);
        dil__decoder_part(r->d, layer, DIL__FFN, r->diff, NULL, n, x);
    }
}

static bool writes_stream(const run *r, size_t g)
{
    return r->arch->norm_before && (groups[g].part == DIL__ATTN || groups[g].part == DIL__FFN); /* behind a norm the sum is not at hand */
}

static dil_status add_sequence(run *r, uint32_t layer, size_t g, size_t at, sums *s, dil_err *err)
{
    size_t n_ctx = r->o->n_ctx, n = r->cols[g], e = r->arch->n_embd;
    const float *x = r->x + at * n;
    dil_status st = dil__hessian_add(&s->h, x, n_ctx, err);
    if (st != DIL_OK) return st;
    if (s->residual) {
        bool attn = groups[g].part == DIL__ATTN;
        dil__decoder_part(r->d, layer, attn ? DIL__ATTN_OUT : DIL__FFN_OUT, x, (attn ? r->student : r->student_mid) + at * e, (uint32_t)n_ctx, r->diff);
        const float *t = (attn ? r->teacher_mid : r->teacher_out) + at * e;
        for (size_t i = 0; i < n_ctx * e; i++) r->diff[i] = t[i] - r->diff[i];
        add_product(s->residual, r->diff, x, n_ctx, e, n);
    } else if (s->lack) {
        for (size_t i = 0; i < n_ctx * n; i++) r->diff[i] = r->teacher_x[g][at * n + i] - x[i];
        add_product(s->lack, r->diff, x, n_ctx, n, n);
    }
    return DIL_OK;
}

static dil_status open_sums(const run *r, size_t g, sums *s, dil_err *err)
{
    size_t n = r->cols[g], e = r->arch->n_embd;
    bool stream = writes_stream(r, g), move = r->o->towards_teacher;
    *s = (sums){.lack = move && !stream ? calloc(n * n, sizeof(float)) : NULL, .residual = move && stream ? calloc(e * n, sizeof(float)) : NULL};
    if (move && !s->lack && !s->residual) return dil_fail(err, DIL_EMEMORY, "out of memory");
    return dil__hessian_init(&s->h, (uint32_t)n, err);
}

static void join(float *to, const float *x, size_t n)
{
    for (size_t i = 0; to && i < n; i++) to[i] += x[i];
}

static dil_status sum_group(run *r, uint32_t layer, size_t g, sums s[N_SUMS], dil_err *err)
{
    size_t n = r->cols[g], e = r->arch->n_embd;
    uint32_t middle = r->o->n_chunks / 2;
    dil_status st = DIL_OK;
    for (int k = 0; k < N_SUMS && st == DIL_OK; k++) st = open_sums(r, g, &s[k], err);
    for (uint32_t c = 0; c < r->o->n_chunks && st == DIL_OK; c++) {
        size_t at = (size_t)c * r->o->n_ctx;
        advance(r, layer, g, at);
        st = add_sequence(r, layer, g, at, &s[c < middle ? FIRST : SECOND], err);
    }
    for (int k = FIRST; k <= SECOND && st == DIL_OK; k++) {
        dil__hessian_join(&s[WHOLE].h, &s[k].h);
        join(s[WHOLE].lack, s[k].lack, n * n);
        join(s[WHOLE].residual, s[k].residual, e * n);
    }
    return st;
}

/* B for one tensor: W Σ(x_t - x)xᵀ, or Σ(r_t - r)xᵀ, [n_rows][n_cols]. */
static dil_status teacher_lack(const sums *s, const float *w, uint64_t n_rows, uint64_t n, double **out, dil_err *err)
{
    float *b = s->lack ? malloc(n_rows * n * sizeof *b) : s->residual;
    double *d = malloc(n_rows * n * sizeof *d);
    if (b && d) {
        if (s->lack)
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)n_rows, (int)n, (int)n, 1, w, (int)n, s->lack, (int)n, 0, b, (int)n);
        for (size_t i = 0; i < n_rows * n; i++) d[i] = (double)b[i];
    }
    bool ok = b && d;
    if (s->lack) free(b);
    if (!ok) {
        free(d);
        return dil_fail(err, DIL_EMEMORY, "out of memory");
    }
    *out = d;
    return DIL_OK;
}

/* w towards the teacher's outputs, as far as one half of the text says that the other's move pays. */
static dil_status move_weight(const sums s[N_SUMS], float *w, uint64_t n_rows, uint64_t n, dil_err *err)
{
    double *b[N_SUMS] = {NULL}, share = -1;
    dil_status st = DIL_OK;
    for (int k = 0; k < N_SUMS && st == DIL_OK; k++) st = teacher_lack(&s[k], w, n_rows, n, &b[k], err);
    if (st == DIL_OK) st = dil__crossval_ridge(HALVES(s), (const double *[]){b[FIRST], b[SECOND]}, n_rows, &share, err);
    if (st == DIL_OK && share >= 0) st = dil__ridge_move(&s[WHOLE].h, share, b[WHOLE], w, n_rows, err);
    for (int k = 0; k < N_SUMS; k++) free(b[k]);
    return st;
}

/* s NULL: where it is. */
static dil_status quantize_tensor(run *r, uint32_t layer, size_t index, const dil_layer_tensor *t, const sums *s, const float *u,
                                  const float *importance, dil_err *err)
{
    const dil_tensor *src = dil_weights_find(r->weights, t->name);
    dil_type type = r->o->type_of(r->o->ctx, t->name);
    if (type == src->type) return DIL_OK;
    size_t size = dil_tensor_elems(src) * sizeof(float);
    float *live = dil__decoder_tensor(r->d, layer, index), *w = malloc(size);
    if (!w) return dil_fail(err, DIL_EMEMORY, "%s: out of memory", t->name);
    memcpy(w, live, size);
    bool move = s && (s->lack || s->residual) && s[FIRST].h.n_rows > 0;
    dil_status st = move ? move_weight(s, w, src->ne[1], src->ne[0], err) : DIL_OK;
    if (st == DIL_OK) st = put_quantized(r, src, w, type, u, importance, live, err);
    free(w);
    return st;
}

static dil_status diagonal(const dil__hessian *h, float **out, dil_err *err)
{
    float *d = malloc(h->n * sizeof *d);
    if (!d) return dil_fail(err, DIL_EMEMORY, "out of memory");
    for (size_t i = 0; i < h->n; i++) d[i] = (float)(h->sum[i * h->n + i] / (double)h->n_rows);
    *out = d;
    return DIL_OK;
}

static bool in_group(size_t g, const char *role)
{
    for (const char *const *p = groups[g].role; *p; p++)
        if (strcmp(*p, role) == 0) return true;
    return false;
}

/* For all of a group what suits its first tensor. */
static dil_status choose_damp(run *r, uint32_t layer, size_t g, const sums s[N_SUMS], double *damp, dil_err *err)
{
    dil_layer_tensor t[DIL_LAYER_TENSORS_MAX];
    size_t n = dil_arch_layer_tensors(r->arch, layer, t);
    for (size_t i = 0; i < n && s[FIRST].h.n_rows > 0; i++) {
        dil_type type = t[i].linear && in_group(g, t[i].role) ? r->o->type_of(r->o->ctx, t[i].name) : DIL_TYPE_F32;
        const dil__codec *c = dil__codec_get(type);
        if (!c || t[i].ne[0] % c->block || type == dil_weights_find(r->weights, t[i].name)->type) continue;
        return dil__crossval_damp(type, HALVES(s), dil__decoder_tensor(r->d, layer, i), t[i].ne[1], r->n_threads, damp, err);
    }
    return DIL_OK;
}

static dil_status quantize_group(run *r, uint32_t layer, size_t g, dil_err *err)
{
    dil_layer_tensor t[DIL_LAYER_TENSORS_MAX];
    size_t n = dil_arch_layer_tensors(r->arch, layer, t);
    sums s[N_SUMS];
    memset(s, 0, sizeof s);
    float *u = NULL, *importance = NULL;
    double damp = r->o->damp;
    dil_status st = sum_group(r, layer, g, s, err);
    if (st == DIL_OK) st = choose_damp(r, layer, g, s, &damp, err);
    if (st == DIL_OK) st = dil__gptq_factor(&s[WHOLE].h, damp, &u, err);
    if (st == DIL_OK) st = diagonal(&s[WHOLE].h, &importance, err);
    for (size_t i = 0; i < n && st == DIL_OK; i++)
        if (t[i].linear && in_group(g, t[i].role)) st = quantize_tensor(r, layer, i, &t[i], s, u, importance, err);
    for (int k = 0; k < N_SUMS; k++) free_sums(&s[k]);
    free(u);
    free(importance);
    return st;
}

/* --- layers ------------------------------------------------------------------------------------------------------------------------ */

static void run_teacher_block(run *r, uint32_t layer)
{
    uint32_t n = r->o->n_ctx;
    size_t e = r->arch->n_embd;
    for (uint32_t c = 0; c < r->o->n_chunks; c++) {
        size_t at = (size_t)c * n;
        float *x[N_GROUPS], *stream = r->teacher + at * e, *mid = r->teacher_mid + at * e;
        for (size_t g = 0; g < N_GROUPS; g++) x[g] = r->teacher_x[g] + (writes_stream(r, g) ? 0 : at * r->cols[g]);
        dil__decoder_part(r->d, layer, DIL__ATTN_IN, NULL, stream, n, x[0]);
        dil__decoder_part(r->d, layer, DIL__ATTN, x[0], NULL, n, x[1]);
        dil__decoder_part(r->d, layer, DIL__ATTN_OUT, x[1], stream, n, mid);
        dil__decoder_part(r->d, layer, DIL__FFN_IN, NULL, mid, n, x[2]);
        dil__decoder_part(r->d, layer, DIL__FFN, x[2], NULL, n, x[3]);
        dil__decoder_part(r->d, layer, DIL__FFN_OUT, x[3], mid, n, r->teacher_out + at * e);
    }
}

/* Behind a group that writes the stream: the stream as the quantized tensor gives it. */
static void write_stream(run *r, uint32_t layer, size_t g)
{
    uint32_t n = r->o->n_ctx;
    size_t e = r->arch->n_embd;
    if (groups[g].part != DIL__ATTN && groups[g].part != DIL__FFN) return;
    bool attn = groups[g].part == DIL__ATTN;
    for (size_t at = 0; at < r->n_tokens; at += n)
        dil__decoder_part(r->d, layer, attn ? DIL__ATTN_OUT : DIL__FFN_OUT, r->x + at * r->cols[g], (attn ? r->student : r->student_mid) + at * e, n,
                          (attn ? r->student_mid : r->student) + at * e);
}

static dil_status quantize_block(run *r, uint32_t layer, dil_err *err)
{
    dil_status st = DIL_OK;
    run_teacher_block(r, layer);
    for (size_t g = 0; g < N_GROUPS && st == DIL_OK; g++) {
        st = quantize_group(r, layer, g, err);
        if (st == DIL_OK) write_stream(r, layer, g);
        if (!dil_progress_step(r->progress, "quantizing", layer - 1 + (double)(g + 1) / N_GROUPS, r->arch->n_blocks) && st == DIL_OK)
            st = dil_fail(err, DIL_ECANCELED, "canceled; nothing was written");
    }
    float *t = r->teacher;
    r->teacher = r->teacher_out;
    r->teacher_out = t;
    return st;
}

/* The table of that role with error feedback under h. */
static dil_status quantize_table(run *r, uint32_t layer, const char *role, const dil__hessian *h, double damp, dil_err *err)
{
    dil_layer_tensor t[DIL_LAYER_TENSORS_MAX];
    size_t n = dil_arch_layer_tensors(r->arch, layer, t);
    float *u = NULL, *importance = NULL;
    dil_status st = dil__gptq_factor(h, damp, &u, err);
    if (st == DIL_OK) st = diagonal(h, &importance, err);
    for (size_t i = 0; i < n && st == DIL_OK; i++)
        if (strcmp(t[i].role, role) == 0) st = quantize_tensor(r, layer, i, &t[i], NULL, u, importance, err);
    free(u);
    free(importance);
    return st;
}

/* A head with a table of its own: the covariance of what it multiplies behind the student's last block. */
static dil_status quantize_head(run *r, uint32_t n_chunks, dil_err *err)
{
    size_t word = r->arch->n_embd_word, n_ctx = r->o->n_ctx;
    dil__hessian h;
    float *x = malloc(n_ctx * word * sizeof *x);
    dil_status st = x ? dil__hessian_init(&h, (uint32_t)word, err) : dil_fail(err, DIL_EMEMORY, "out of memory");
    if (st != DIL_OK) {
        free(x);
        return st;
    }
    for (uint32_t c = 0; c < n_chunks && st == DIL_OK; c++) {
        dil__decoder_finish(r->d, r->student + c * n_ctx * r->arch->n_embd, (uint32_t)n_ctx, x);
        st = dil__hessian_add(&h, x, n_ctx, err);
    }
    if (st == DIL_OK) st = quantize_table(r, r->arch->n_blocks + 1, "output", &h, r->o->damp, err);
    dil__hessian_fini(&h);
    free(x);
    return st;
}

/* Linear tensors of embedding and head that no covariance is taken for: each weight by itself. */
static dil_status round_rest(run *r, uint32_t layer, dil_err *err)
{
    dil_layer_tensor t[DIL_LAYER_TENSORS_MAX];
    size_t n = dil_arch_layer_tensors(r->arch, layer, t);
    dil_weights now = dil__variant_weights(r->out);
    dil_status st = DIL_OK;
    for (size_t i = 0; i < n && st == DIL_OK; i++)
        if (t[i].linear && !t[i].shared && dil_weights_find(&now, t[i].name) == dil_weights_find(r->weights, t[i].name))
            st = quantize_tensor(r, layer, i, &t[i], NULL, NULL, NULL, err);
    return st;
}

static uint32_t table_chunks(const dil__sequential_opts *o)
{
    return o->n_chunks < TABLE_CHUNKS ? o->n_chunks : TABLE_CHUNKS;
}

/* h stays empty where no tied table changes. */
static dil_status measure_table(const run *r, dil__hessian *h, dil_err *err)
{
    dil_layer_tensor t[DIL_LAYER_TENSORS_MAX];
    size_t n = r->arch->tied_head ? dil_arch_layer_tensors(r->arch, 0, t) : 0;
    dil__table_metric_opts o = {r->arch, r->weights, r->o->ids, r->o->n_ctx, table_chunks(r->o), r->n_threads};
    for (size_t i = 0; i < n; i++) {
        if (strcmp(t[i].role, "token_embd") != 0) continue;
        bool changes = r->o->type_of(r->o->ctx, t[i].name) != dil_weights_find(r->weights, t[i].name)->type;
        return changes ? dil__table_metric(&o, r->progress, h, err) : DIL_OK;
    }
    return DIL_OK;
}

static void embed(run *r, float *stream)
{
    uint32_t n = r->o->n_ctx;
    for (uint32_t c = 0; c < r->o->n_chunks; c++)
        dil__decoder_embed(r->d, r->o->ids + (size_t)c * n, n, stream + (size_t)c * n * r->arch->n_embd);
}

static dil_status quantize_all(run *r, const dil__hessian *table, dil_err *err)
{
    const dil_arch *a = r->arch;
    dil_status st = dil__decoder_load(r->d, r->weights, err);
    if (st != DIL_OK) return st;
    embed(r, r->teacher);
    if (table->n > 0) st = quantize_table(r, 0, "token_embd", table, r->o->damp, err);
    if (st == DIL_OK) st = round_rest(r, 0, err);
    if (st == DIL_OK) embed(r, r->student);
    for (uint32_t l = 1; l <= a->n_blocks && st == DIL_OK; l++) st = quantize_block(r, l, err);
    if (st == DIL_OK && !a->tied_head) st = quantize_head(r, table_chunks(r->o), err);
    return st == DIL_OK ? round_rest(r, a->n_blocks + 1, err) : st;
}

static bool allocate(run *r)
{
    const dil_arch *a = r->arch;
    size_t q = (size_t)a->n_head * a->head_dim, widest = a->n_ff > a->n_embd ? a->n_ff : a->n_embd, n = r->n_tokens, e = a->n_embd;
    size_t cols[N_GROUPS] = {e, q, e, a->n_ff};
    if (q > widest) widest = q;
    memcpy(r->cols, cols, sizeof cols);
    bool ok = true;
    for (size_t g = 0; g < N_GROUPS; g++) ok = (r->teacher_x[g] = malloc((writes_stream(r, g) ? r->o->n_ctx : n) * cols[g] * sizeof(float))) != NULL && ok;
    float **streams[] = {&r->teacher, &r->teacher_mid, &r->teacher_out, &r->student, &r->student_mid};
    for (size_t i = 0; i < 5; i++) ok = (*streams[i] = malloc(n * e * sizeof(float))) != NULL && ok;
    r->x = malloc(n * widest * sizeof(float));
    r->diff = malloc(r->o->n_ctx * widest * sizeof(float));
    return ok && r->x && r->diff;
}

dil_status dil__sequential_quantize(const dil_arch *arch, const dil_weights *weights, const dil__sequential_opts *o,
                                    const dil_progress *progress, dil__variant *out, dil_err *err)
{
    run r = {.arch = arch, .weights = weights, .o = o, .progress = progress, .out = out, .n_threads = o->n_threads > 0 ? o->n_threads : dil_cpu_count(),
             .n_tokens = (size_t)o->n_ctx * o->n_chunks};
    dil__hessian table = {0}; /* measured before the streams of all sequences take their memory */
    dil_status st = measure_table(&r, &table, err);
    if (st == DIL_OK && !allocate(&r)) st = dil_fail(err, DIL_EMEMORY, "out of memory for the hidden states of %zu tokens", r.n_tokens);
    if (st == DIL_OK) st = dil__decoder_open(arch, o->n_ctx, r.n_threads, false, &r.d, err);
    if (st == DIL_OK) st = quantize_all(&r, &table, err);
    dil__decoder_free(r.d);
    dil__hessian_fini(&table);
    float *all[] = {r.teacher, r.teacher_mid, r.teacher_out, r.student, r.student_mid, r.x, r.diff, r.teacher_x[0], r.teacher_x[1], r.teacher_x[2], r.teacher_x[3]};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) free(all[i]);
    return st;
}
