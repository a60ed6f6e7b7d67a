/* Within a block the tensors go in groups that share an input: q, k, v; attention's output; gate, up; down. Each group sees the student
 * as it is by then: the groups before it quantized, those behind it not yet. The embedding comes first, so that the blocks
 * make up for its errors as well; a tied one needs the covariance of the final norm's output for that, taken from the teacher. */
#include "quant/sequential.h"

#include "quant/codec.h"
#include "quant/gptq.h"
#include "quant/link.h"
#include "quant/recode.h"

#include <cblas.h>
#include <lapacke.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { GROUPS_MAX = 8, GROUP_TENSORS = 4 };

typedef enum residual { INNER, ATTENTION_OUT, BLOCK_OUT } residual; /* what of the residual stream a group's output adds to */

typedef struct group {
    char tensor[GROUP_TENSORS][DIL_TENSOR_NAME_MAX]; /* [n]; the first one's input is tapped */
    size_t n;
    uint64_t n_cols;
    residual kind;
    float *teacher_x; /* [tokens][n_cols] */
} group;

typedef struct run {
    const dil_arch *arch;
    const dil_weights *weights;
    const dil__sequential_opts *o;
    const dil_progress *progress;
    dil__variant *out;
    dil__link_opts lo;
    size_t n_tokens;
    float *teacher, *student; /* [tokens][n_embd] hidden states before the current layer */
    float *teacher_out, *student_out;
    double done;
} run;

/* A tap that copies the input of one tensor; it may come in several pieces of rows. */
typedef struct grab { const char *tensor; float *to; uint64_t n_cols, n_rows, filled; } grab;
typedef struct grabs { grab g[GROUPS_MAX]; size_t n; } grabs;

static void on_tap(void *ctx, const char *tensor, const float *x, uint64_t n_rows, uint64_t n_cols)
{
    grabs *all = ctx;
    for (size_t i = 0; i < all->n; i++) {
        grab *g = &all->g[i];
        if (strcmp(g->tensor, tensor) != 0 || n_cols != g->n_cols || n_rows > g->n_rows - g->filled) continue;
        memcpy(g->to + g->filled * n_cols, x, n_rows * n_cols * sizeof *x);
        g->filled += n_rows;
    }
}

/* After a chunk: all rows came; ready for the next. */
static dil_status check_filled(grabs *all, dil_err *err)
{
    for (size_t i = 0; i < all->n; i++) {
        grab *g = &all->g[i];
        if (g->filled != g->n_rows)
            return dil_fail(err, DIL_EINTERNAL, "%s: %llu of %llu rows of its input were seen", g->tensor, (unsigned long long)g->filled,
                            (unsigned long long)g->n_rows);
        g->filled = 0;
    }
    return DIL_OK;
}

/* --- groups ----------------------------------------------------------------------------------------------------------- */

static bool shares_input(const char *role, const char *first)
{
    return (strcmp(first, "attn_q") == 0 && (strcmp(role, "attn_k") == 0 || strcmp(role, "attn_v") == 0)) ||
           (strcmp(first, "ffn_gate") == 0 && strcmp(role, "ffn_up") == 0);
}

static size_t list_groups(const dil_arch *a, uint32_t layer, group *g)
{
    dil_layer_tensor t[DIL_LAYER_TENSORS_MAX];
    size_t n = dil_arch_layer_tensors(a, layer, t), n_groups = 0, first = 0;
    for (size_t i = 0; i < n; i++) {
        if (!t[i].linear) continue;
        if (n_groups > 0 && shares_input(t[i].role, t[first].role) && g[n_groups - 1].n < GROUP_TENSORS) {
            group *same = &g[n_groups - 1];
            memcpy(same->tensor[same->n++], t[i].name, sizeof t[i].name);
            continue;
        }
        if (n_groups == GROUPS_MAX) break;
        first = i;
        group *fresh = &g[n_groups++];
        *fresh = (group){.n = 1, .n_cols = t[i].ne[0]};
        memcpy(fresh->tensor[0], t[i].name, sizeof t[i].name);
        /* Behind a norm that follows the sum, the sum itself is not at hand. */
        if (a->norm_before && strcmp(t[i].role, "attn_output") == 0) fresh->kind = ATTENTION_OUT;
        if (a->norm_before && strcmp(t[i].role, "ffn_down") == 0) fresh->kind = BLOCK_OUT;
    }
    return n_groups;
}

/* --- one tensor --------------------------------------------------------------------------------------------------------- */

static dil_status load_floats(const dil_tensor *t, float **out, dil_err *err)
{
    float *w = malloc(dil_tensor_elems(t) * sizeof *w);
    if (!w) return dil_fail(err, DIL_EMEMORY, "%s: out of memory", t->name);
    dil_status st = dil_engine_dequantize(t->type, t->data, dil_tensor_elems(t), w, err);
    if (st != DIL_OK) free(w);
    else *out = w;
    return st;
}

/* w [n_rows][n_cols] at the type, with error feedback where the type has a codec. u NULL: each weight by itself. */
static dil_status put_quantized(run *r, const dil_tensor *src, const float *w, dil_type type, const float *u, const float *importance,
                                dil_err *err)
{
    uint64_t n_cols = src->ne[0], n_rows = src->ne[1], row;
    if (!dil_type_row_bytes(type, n_cols, &row)) return dil_fail(err, DIL_EUNSUPPORTED, "%s: its rows do not take the type", src->name);
    void *data = malloc(row * n_rows);
    if (!data) return dil_fail(err, DIL_EMEMORY, "%s: out of memory", src->name);
    dil_status st;
    if (dil__codec_get(type) && u) st = dil__gptq_quantize(type, w, n_rows, n_cols, u, data, r->lo.n_threads, err);
    else if (dil__codec_get(type)) st = dil__codec_quantize(type, w, n_rows, n_cols, importance, data, r->lo.n_threads, err);
    else st = dil_engine_quantize(type, w, n_rows, n_cols, importance, data, r->lo.n_threads, err);
    if (st == DIL_OK) return dil__variant_put(r->out, src, type, data, row * n_rows, err);
    free(data);
    return st;
}

/* W += B (H + λI)⁻¹; w [n_rows][n], b [n_rows][n]. */
static dil_status move_towards(const dil__hessian *h, double ridge, const double *b, float *w, uint64_t n_rows, dil_err *err)
{
    size_t n = h->n;
    double *a = malloc(n * n * sizeof *a), *x = malloc(n_rows * n * sizeof *x), mean = 0;
    if (!a || !x) {
        free(a);
        free(x);
        return dil_fail(err, DIL_EMEMORY, "out of memory for a ridge solution of %zu columns", n);
    }
    memcpy(a, h->sum, n * n * sizeof *a);
    memcpy(x, b, n_rows * n * sizeof *x);
    for (size_t i = 0; i < n; i++) mean += a[i * n + i] / (double)n;
    for (size_t i = 0; i < n; i++) a[i * n + i] += ridge * mean;
    /* Row-major upper is column-major lower; the rows of x are the right-hand sides' columns. */
    bool ok = LAPACKE_dpotrf(LAPACK_COL_MAJOR, 'L', (int)n, a, (int)n) == 0 &&
              LAPACKE_dpotrs(LAPACK_COL_MAJOR, 'L', (int)n, (int)n_rows, a, (int)n, x, (int)n) == 0;
    for (size_t i = 0; ok && i < n_rows * n; i++) w[i] += (float)x[i];
    free(a);
    free(x);
    return ok ? DIL_OK : dil_fail(err, DIL_EDATA, "the covariance of %zu columns is singular", n);
}

/* --- one group ---------------------------------------------------------------------------------------------------------------- */

/* Sums over the calibration tokens, as the student stands. */
typedef struct sums {
    dil__hessian h;
    float *lack;     /* [n_cols][n_cols] Σ (x_t - x) xᵀ */
    float *residual; /* [n_embd][n_cols] Σ (r_t - r) xᵀ */
} sums;

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

static dil_status add_chunk(run *r, const group *g, uint32_t chunk, const float *x, float *diff, sums *s, dil_err *err)
{
    size_t n_ctx = r->o->n_ctx, n = g->n_cols, width = r->arch->n_embd, at = (size_t)chunk * n_ctx;
    dil_status st = dil__hessian_add(&s->h, x, n_ctx, err);
    if (st != DIL_OK || r->o->ridge <= 0) return st;
    if (s->lack) {
        for (size_t i = 0; i < n_ctx * n; i++) diff[i] = g->teacher_x[at * n + i] - x[i];
        add_product(s->lack, diff, x, n_ctx, n, n);
    }
    if (s->residual) {
        const float *t = (g->kind == BLOCK_OUT ? r->teacher_out : r->teacher) + at * width;
        const float *own = (g->kind == BLOCK_OUT ? r->student_out : r->student) + at * width;
        for (size_t i = 0; i < n_ctx * width; i++) diff[i] = t[i] - own[i];
        add_product(s->residual, diff, x, n_ctx, width, n);
    }
    return DIL_OK;
}

/* Runs the student's layer as it stands over all tokens and sums up the group's inputs. */
static dil_status sum_group(run *r, uint32_t layer, const group *g, sums *s, dil_err *err)
{
    size_t n_ctx = r->o->n_ctx, n = g->n_cols, width = r->arch->n_embd;
    *s = (sums){.lack = r->o->ridge > 0 && g->kind != BLOCK_OUT ? calloc(n * n, sizeof(float)) : NULL,
                .residual = r->o->ridge > 0 && g->kind != INNER ? calloc(width * n, sizeof(float)) : NULL};
    float *x = malloc(n_ctx * n * sizeof *x), *diff = malloc(n_ctx * (n > width ? n : width) * sizeof *diff);
    dil__link *k = NULL;
    dil_status st = x && diff ? DIL_OK : dil_fail(err, DIL_EMEMORY, "out of memory");
    if (st == DIL_OK) st = dil__hessian_init(&s->h, (uint32_t)n, err);
    dil_weights w = dil__variant_weights(r->out);
    if (st == DIL_OK) st = dil__link_open(r->arch, &w, layer, &r->lo, &k, err);
    grabs tap = {.g = {{.tensor = g->tensor[0], .to = x, .n_cols = n, .n_rows = n_ctx}}, .n = 1};
    if (st == DIL_OK) dil__link_tap(k, on_tap, &tap);
    for (uint32_t c = 0; c < r->o->n_chunks && st == DIL_OK; c++) {
        st = dil__link_run(k, NULL, r->student + c * n_ctx * width, r->student_out + c * n_ctx * width, err);
        if (st == DIL_OK) st = check_filled(&tap, err);
        openblas_set_num_threads(r->lo.n_threads);
        if (st == DIL_OK) st = add_chunk(r, g, c, x, diff, s, err);
    }
    dil__link_close(k);
    free(x);
    free(diff);
    return st;
}

/* B for one tensor: W Σ(x_t - x)xᵀ + Σ(r_t - r)xᵀ, [n_rows][n_cols]. */
static dil_status teacher_lack(const sums *s, const float *w, uint64_t n_rows, uint64_t n, double **out, dil_err *err)
{
    float *b = calloc(n_rows * n, sizeof *b);
    double *d = malloc(n_rows * n * sizeof *d);
    if (!b || !d) {
        free(b);
        free(d);
        return dil_fail(err, DIL_EMEMORY, "out of memory");
    }
    if (s->lack)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)n_rows, (int)n, (int)n, 1, w, (int)n, s->lack, (int)n, 0, b, (int)n);
    for (size_t i = 0; i < n_rows * n; i++) d[i] = (double)b[i] + (s->residual ? (double)s->residual[i] : 0);
    free(b);
    *out = d;
    return DIL_OK;
}

static dil_status quantize_tensor(run *r, const char *name, const sums *s, const float *u, const float *importance, dil_err *err)
{
    const dil_tensor *src = dil_weights_find(r->weights, name);
    dil_type type = r->o->type_of(r->o->ctx, name);
    if (type == src->type) return DIL_OK;
    float *w = NULL;
    double *b = NULL;
    dil_status st = load_floats(src, &w, err);
    if (st != DIL_OK) return st;
    if (s->lack || s->residual) {
        st = teacher_lack(s, w, src->ne[1], src->ne[0], &b, err);
        if (st == DIL_OK) st = move_towards(&s->h, r->o->ridge, b, w, src->ne[1], err);
    }
    if (st == DIL_OK) st = put_quantized(r, src, w, type, u, importance, err);
    free(b);
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

static dil_status quantize_group(run *r, uint32_t layer, const group *g, dil_err *err)
{
    sums s;
    float *u = NULL, *importance = NULL;
    dil_status st = sum_group(r, layer, g, &s, err);
    if (st == DIL_OK) st = dil__gptq_factor(&s.h, r->o->damp, &u, err);
    if (st == DIL_OK) st = diagonal(&s.h, &importance, err);
    for (size_t i = 0; i < g->n && st == DIL_OK; i++) st = quantize_tensor(r, g->tensor[i], &s, u, importance, err);
    free_sums(&s);
    free(u);
    free(importance);
    return st;
}

/* --- layers ------------------------------------------------------------------------------------------------------------------------ */

static dil_status run_layer(run *r, uint32_t layer, const dil_weights *w, const float *in, float *out, grabs *taps, float *const *to, dil_err *err)
{
    size_t n_ctx = r->o->n_ctx, width = r->arch->n_embd;
    dil__link *k;
    dil_status st = dil__link_open(r->arch, w, layer, &r->lo, &k, err);
    if (st != DIL_OK) return st;
    if (taps) dil__link_tap(k, on_tap, taps);
    for (uint32_t c = 0; c < r->o->n_chunks && st == DIL_OK; c++) {
        for (size_t i = 0; taps && i < taps->n; i++) taps->g[i].to = to[i] + c * n_ctx * taps->g[i].n_cols;
        st = dil__link_run(k, r->o->ids + c * n_ctx, in ? in + c * n_ctx * width : NULL, out + c * n_ctx * width, err);
        if (st == DIL_OK && taps) st = check_filled(taps, err);
    }
    dil__link_close(k);
    return st;
}

static dil_status run_teacher_block(run *r, uint32_t layer, group *g, size_t n, dil_err *err)
{
    grabs taps = {.n = n};
    float *to[GROUPS_MAX];
    for (size_t i = 0; i < n; i++) {
        g[i].teacher_x = malloc(r->n_tokens * g[i].n_cols * sizeof(float));
        if (!g[i].teacher_x) return dil_fail(err, DIL_EMEMORY, "out of memory for a layer's inputs");
        taps.g[i] = (grab){.tensor = g[i].tensor[0], .n_cols = g[i].n_cols, .n_rows = r->o->n_ctx};
        to[i] = g[i].teacher_x;
    }
    return run_layer(r, layer, r->weights, r->teacher, r->teacher_out, &taps, to, err);
}

static void swap(float **a, float **b)
{
    float *t = *a;
    *a = *b;
    *b = t;
}

static dil_status quantize_block(run *r, uint32_t layer, dil_err *err)
{
    group g[GROUPS_MAX];
    size_t n = list_groups(r->arch, layer, g);
    dil_status st = run_teacher_block(r, layer, g, n, err);
    for (size_t i = 0; i < n && st == DIL_OK; i++) {
        st = quantize_group(r, layer, &g[i], err);
        if (!dil_progress_step(r->progress, "quantizing", layer - 1 + (double)(i + 1) / (double)(n + 1), r->arch->n_blocks) && st == DIL_OK)
            st = dil_fail(err, DIL_ECANCELED, "canceled; nothing was written");
    }
    for (size_t i = 0; i < n; i++) free(g[i].teacher_x);
    dil_weights w = dil__variant_weights(r->out);
    if (st == DIL_OK) st = run_layer(r, layer, &w, r->student, r->student_out, NULL, NULL, err);
    swap(&r->teacher, &r->teacher_out);
    swap(&r->student, &r->student_out);
    return st;
}

/* The covariance of the head's input in the teacher, without the head's product: the final layer is run on one chunk at a time. */
static dil_status head_covariance(run *r, const char *table, const float *hidden, dil__hessian *h, dil_err *err)
{
    size_t n_ctx = r->o->n_ctx, width = r->arch->n_embd, n = h->n;
    float *x = malloc(n_ctx * n * sizeof *x), *logits = malloc(n_ctx * r->arch->n_vocab * sizeof *logits);
    dil__link *k = NULL;
    dil_status st = x && logits ? DIL_OK : dil_fail(err, DIL_EMEMORY, "out of memory for a chunk of logits");
    if (st == DIL_OK) st = dil__link_open(r->arch, r->weights, r->arch->n_blocks + 1, &r->lo, &k, err);
    grabs tap = {.g = {{.tensor = table, .to = x, .n_cols = n, .n_rows = n_ctx}}, .n = 1};
    if (st == DIL_OK) dil__link_tap(k, on_tap, &tap);
    for (uint32_t c = 0; c < r->o->n_chunks && st == DIL_OK; c++) {
        st = dil__link_run(k, NULL, hidden + c * n_ctx * width, logits, err);
        if (st == DIL_OK) st = check_filled(&tap, err);
        if (st == DIL_OK) st = dil__hessian_add(h, x, n_ctx, err);
    }
    dil__link_close(k);
    free(x);
    free(logits);
    return st;
}

static dil_status teacher_to_the_end(run *r, dil_err *err)
{
    dil_status st = run_layer(r, 0, r->weights, NULL, r->teacher, NULL, NULL, err);
    for (uint32_t l = 1; l <= r->arch->n_blocks && st == DIL_OK; l++) {
        st = run_layer(r, l, r->weights, r->teacher, r->teacher_out, NULL, NULL, err);
        swap(&r->teacher, &r->teacher_out);
        if (!dil_progress_step(r->progress, "running the teacher", l, r->arch->n_blocks) && st == DIL_OK)
            st = dil_fail(err, DIL_ECANCELED, "canceled; nothing was written");
    }
    return st;
}

/* The table of a tied head, or of the head alone: error feedback for the head's product, on `hidden` before the final layer. */
static dil_status quantize_table(run *r, const char *table, const float *hidden, double damp, dil_err *err)
{
    const dil_tensor *src = dil_weights_find(r->weights, table);
    dil__hessian h;
    sums none = {0};
    float *u = NULL, *importance = NULL;
    dil_status st = dil__hessian_init(&h, (uint32_t)src->ne[0], err);
    if (st != DIL_OK) return st;
    st = head_covariance(r, table, hidden, &h, err);
    if (st == DIL_OK) st = dil__gptq_factor(&h, damp, &u, err);
    if (st == DIL_OK) st = diagonal(&h, &importance, err);
    if (st == DIL_OK) st = quantize_tensor(r, table, &none, u, importance, err);
    dil__hessian_fini(&h);
    free(u);
    free(importance);
    return st;
}

/* Linear tensors of embedding and head that no covariance is taken for: each weight by itself. */
static dil_status round_rest(run *r, uint32_t layer, dil_err *err)
{
    dil_layer_tensor t[DIL_LAYER_TENSORS_MAX];
    size_t n = dil_arch_layer_tensors(r->arch, layer, t);
    sums none = {0};
    dil_weights now = dil__variant_weights(r->out);
    dil_status st = DIL_OK;
    for (size_t i = 0; i < n && st == DIL_OK; i++)
        if (t[i].linear && dil_weights_find(&now, t[i].name) == dil_weights_find(r->weights, t[i].name))
            st = quantize_tensor(r, t[i].name, &none, NULL, NULL, err);
    return st;
}

/* A tied table also is the embedding, where every column of a row counts alike: more damping. */
static dil_status quantize_all(run *r, dil_err *err)
{
    const dil_arch *a = r->arch;
    dil_status st = DIL_OK;
    if (a->tied_head) {
        st = teacher_to_the_end(r, err);
        if (st == DIL_OK) st = quantize_table(r, "token_embd.weight", r->teacher, r->o->damp > 0.05 ? r->o->damp : 0.05, err);
    }
    if (st == DIL_OK) st = round_rest(r, 0, err);
    dil_weights w = dil__variant_weights(r->out);
    if (st == DIL_OK) st = run_layer(r, 0, r->weights, NULL, r->teacher, NULL, NULL, err);
    if (st == DIL_OK) st = run_layer(r, 0, &w, NULL, r->student, NULL, NULL, err);
    for (uint32_t l = 1; l <= a->n_blocks && st == DIL_OK; l++) st = quantize_block(r, l, err);
    if (st == DIL_OK && !a->tied_head) st = quantize_table(r, "output.weight", r->student, r->o->damp, err);
    return st == DIL_OK ? round_rest(r, a->n_blocks + 1, err) : st;
}

dil_status dil__sequential_quantize(const dil_arch *arch, const dil_weights *weights, const dil__sequential_opts *o,
                                    const dil_progress *progress, dil__variant *out, dil_err *err)
{
    run r = {.arch = arch, .weights = weights, .o = o, .progress = progress, .out = out,
             .lo = {.device = o->device, .n_threads = o->n_threads > 0 ? o->n_threads : dil_cpu_count(), .n_ctx = o->n_ctx,
                    .floats = true},
             .n_tokens = (size_t)o->n_ctx * o->n_chunks};
    size_t bytes = r.n_tokens * arch->n_embd * sizeof(float);
    float *buf[4] = {malloc(bytes), malloc(bytes), malloc(bytes), malloc(bytes)};
    r.teacher = buf[0], r.teacher_out = buf[1], r.student = buf[2], r.student_out = buf[3];
    dil_status st = buf[0] && buf[1] && buf[2] && buf[3]
                        ? quantize_all(&r, err)
                        : dil_fail(err, DIL_EMEMORY, "out of memory for the hidden states of %zu tokens", r.n_tokens);
    for (size_t i = 0; i < 4; i++) free(buf[i]);
    return st;
}
