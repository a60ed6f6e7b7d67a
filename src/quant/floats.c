/* Weights as floats, channel by channel multiplied where the model is folded. Factors are kept per tensor: of its rows, and of its columns;
 * they are all drawn before the first byte is written, in the order of the layers, so that a seed always means the same file. */
#include "base/half.h"

#include <dilemma/engine.h>
#include <dilemma/floats.h>

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PIECE_ELEMS ((uint64_t)1 << 20)

typedef struct factors { float *row, *col; } factors; /* [ne[1]], [ne[0]] multiply; NULL: ones */

typedef struct job {
    const dil_floats_opts *o;
    const dil_progress *progress;
    dil_gguf *g;
    dil_arch arch;
    factors *f; /* [n_tensors] */
    dil_rng rng;
    dil_floats_report report;
} job;

/* --- factors ---------------------------------------------------------------------------------------------------------- */

static dil_status draw(job *j, uint64_t n, float **out, dil_err *err)
{
    float *a = malloc(n * sizeof *a);
    if (!a) return dil_fail(err, DIL_EMEMORY, "out of memory for %" PRIu64 " factors", n);
    for (uint64_t i = 0; i < n; i++) a[i] = (float)exp(log(0.8) + dil_rng_unit(&j->rng) * (log(1.25) - log(0.8)));
    *out = a;
    return DIL_OK;
}

static dil_status put_ones(float **f, uint64_t n, dil_err *err)
{
    if (*f) return DIL_OK;
    *f = malloc(n * sizeof **f);
    if (!*f) return dil_fail(err, DIL_EMEMORY, "out of memory for %" PRIu64 " factors", n);
    for (uint64_t i = 0; i < n; i++) (*f)[i] = 1;
    return DIL_OK;
}

/* Multiplies (or divides) the output channels of a tensor: rows of a matrix, elements of a norm or bias. A tensor that the model
 * does not have is no error. */
static dil_status scale_outputs(job *j, uint32_t block, const char *role, const float *a, dil_err *err)
{
    char name[DIL_TENSOR_NAME_MAX];
    snprintf(name, sizeof name, "blk.%u.%s", block, role);
    const dil_tensor *t = dil_gguf_find(j->g, name);
    if (!t) return DIL_OK;
    bool matrix = t->ne[1] > 1;
    factors *f = &j->f[t - dil_gguf_tensor_at(j->g, 0)];
    float **to = matrix ? &f->row : &f->col;
    dil_status st = put_ones(to, matrix ? t->ne[1] : t->ne[0], err);
    for (uint64_t i = 0; st == DIL_OK && i < (matrix ? t->ne[1] : t->ne[0]); i++) (*to)[i] *= a[i];
    return st;
}

/* Divides the input channels; channel i of the tensor is channel_of[i] of a, or i. */
static dil_status unscale_inputs(job *j, uint32_t block, const char *role, const float *a, const uint32_t *channel_of, dil_err *err)
{
    char name[DIL_TENSOR_NAME_MAX];
    snprintf(name, sizeof name, "blk.%u.%s", block, role);
    const dil_tensor *t = dil_gguf_find(j->g, name);
    if (!t) return DIL_OK;
    factors *f = &j->f[t - dil_gguf_tensor_at(j->g, 0)];
    dil_status st = put_ones(&f->col, t->ne[0], err);
    for (uint64_t i = 0; st == DIL_OK && i < t->ne[0]; i++) f->col[i] /= a[channel_of ? channel_of[i] : i];
    return st;
}

static dil_status fold_norm(job *j, uint32_t block, const char *norm, const char *const *behind, dil_err *err)
{
    char bias[32], weight[32];
    float *a;
    snprintf(weight, sizeof weight, "%s.weight", norm);
    snprintf(bias, sizeof bias, "%s.bias", norm);
    dil_status st = draw(j, j->arch.n_embd, &a, err);
    if (st != DIL_OK) return st;
    st = scale_outputs(j, block, weight, a, err);
    if (st == DIL_OK) st = scale_outputs(j, block, bias, a, err);
    for (; *behind && st == DIL_OK; behind++) st = unscale_inputs(j, block, *behind, a, NULL, err);
    free(a);
    return st;
}

static dil_status fold_ffn(job *j, uint32_t block, dil_err *err)
{
    float *a;
    dil_status st = draw(j, j->arch.n_ff, &a, err);
    if (st != DIL_OK) return st;
    st = scale_outputs(j, block, "ffn_up.weight", a, err);
    if (st == DIL_OK) st = scale_outputs(j, block, "ffn_up.bias", a, err);
    if (st == DIL_OK) st = unscale_inputs(j, block, "ffn_down.weight", a, NULL, err);
    free(a);
    return st;
}

static dil_status fold_values(job *j, uint32_t block, dil_err *err)
{
    const dil_arch *m = &j->arch;
    uint32_t group = m->n_head / m->n_head_kv, *channel = malloc((size_t)m->n_head * m->head_dim * sizeof *channel);
    float *a;
    dil_status st = channel ? draw(j, (uint64_t)m->n_head_kv * m->head_dim, &a, err) : dil_fail(err, DIL_EMEMORY, "out of memory");
    if (st != DIL_OK) {
        free(channel);
        return st;
    }
    for (uint32_t h = 0; h < m->n_head; h++) {
        for (uint32_t i = 0; i < m->head_dim; i++) channel[h * m->head_dim + i] = h / group * m->head_dim + i;
    }
    st = scale_outputs(j, block, "attn_v.weight", a, err);
    if (st == DIL_OK) st = scale_outputs(j, block, "attn_v.bias", a, err);
    if (st == DIL_OK) st = unscale_inputs(j, block, "attn_output.weight", a, channel, err);
    free(a);
    free(channel);
    return st;
}

/* A norm behind the sum writes the residual stream itself, and positive factors pass through a gate's product and through ReLU only. */
static dil_status fold_block(job *j, uint32_t block, dil_err *err)
{
    static const char *const attn[] = {"attn_q.weight", "attn_k.weight", "attn_v.weight", NULL};
    static const char *const ffn[] = {"ffn_gate.weight", "ffn_up.weight", NULL};
    dil_status st = DIL_OK;
    if (j->arch.norm_before) st = fold_norm(j, block, "attn_norm", attn, err);
    if (st == DIL_OK && j->arch.norm_before) st = fold_norm(j, block, "ffn_norm", ffn, err);
    if (st == DIL_OK && (j->arch.gated_ffn || j->arch.act == DIL_ACT_RELU)) st = fold_ffn(j, block, err);
    return st == DIL_OK ? fold_values(j, block, err) : st;
}

/* --- writing ------------------------------------------------------------------------------------------------------------ */

static dil_type target_type(const job *j, const dil_tensor *t)
{
    if (t->ne[1] > 1) return j->o->type;
    return DIL_TYPE_F32;
}

static dil_status describe(job *j, dil_gguf_writer *w, dil_err *err)
{
    dil_status st = DIL_OK;
    for (size_t i = 0; i < dil_gguf_n_kv(j->g) && st == DIL_OK; i++) {
        const dil_gguf_kv *kv = dil_gguf_kv_at(j->g, i);
        if (strcmp(kv->key, "general.quantization_version") != 0) st = dil_gguf_put_kv(w, kv, err);
    }
    uint32_t file = j->o->type == DIL_TYPE_F32 ? 0 : j->o->type == DIL_TYPE_F16 ? 1 : 32; /* general.file_type's numbers */
    if (st == DIL_OK) st = dil_gguf_put_u32(w, "general.file_type", file, err);
    for (size_t i = 0; i < dil_gguf_n_tensors(j->g) && st == DIL_OK; i++) {
        dil_tensor t = *dil_gguf_tensor_at(j->g, i);
        t.type = target_type(j, &t);
        st = dil_gguf_put_tensor(w, &t, err);
    }
    return st;
}

static dil_status write_piece(dil_gguf_writer *w, const dil_tensor *t, dil_type to, uint64_t first, float *v, uint64_t n, dil_err *err)
{
    float most = to == DIL_TYPE_F16 ? 65519.996f : 0x1.fefffep127f;
    uint16_t *half = (uint16_t *)(void *)v; /* converted in place, behind what is read */
    for (uint64_t i = 0; i < n; i++) {
        if (!(fabsf(v[i]) <= most))
            return dil_fail(err, DIL_EDATA, "%s: the weight at row %" PRIu64 ", column %" PRIu64 " is %g%s", t->name, (first + i) / t->ne[0],
                            (first + i) % t->ne[0], (double)v[i], isfinite(v[i]) ? ", more than F16 holds: take f32 or bf16" : "");
        if (to == DIL_TYPE_F32) continue;
        uint16_t h = to == DIL_TYPE_F16 ? dil__f16_from_f32(v[i]) : dil__bf16_from_f32(v[i]);
        memcpy(&half[i], &h, sizeof h);
    }
    return dil_gguf_write_data(w, v, n * (to == DIL_TYPE_F32 ? 4 : 2), err);
}

static dil_status write_tensor(job *j, dil_gguf_writer *w, size_t index, float *piece, uint64_t piece_elems, dil_err *err)
{
    const dil_tensor *t = dil_gguf_tensor_at(j->g, index);
    const factors *f = &j->f[index];
    uint64_t cols = t->ne[0], rows = dil_tensor_elems(t) / cols, step = piece_elems / cols, row_bytes;
    if (!dil_type_row_bytes(t->type, cols, &row_bytes)) return dil_fail(err, DIL_EUNSUPPORTED, "%s: unknown type", t->name);
    for (uint64_t r = 0; r < rows; r += step) {
        uint64_t n = rows - r < step ? rows - r : step;
        dil_status st = dil_engine_dequantize(t->type, (const uint8_t *)t->data + r * row_bytes, n * cols, piece, err);
        if (st != DIL_OK) return st;
        for (uint64_t i = 0; i < n * cols && (f->row || f->col); i++)
            piece[i] *= (f->row ? f->row[r + i / cols] : 1) * (f->col ? f->col[i % cols] : 1);
        st = write_piece(w, t, target_type(j, t), r * cols, piece, n * cols, err);
        if (st != DIL_OK) return st;
    }
    j->report.n_params += dil_tensor_elems(t);
    j->report.bytes += dil_tensor_elems(t) * (target_type(j, t) == DIL_TYPE_F32 ? 4 : 2);
    j->report.n_dequantized += dil_type_get(t->type)->is_quantized;
    j->report.n_folded += f->row || f->col;
    return DIL_OK;
}

static dil_status write_all(job *j, dil_gguf_writer *w, const char *out, dil_err *err)
{
    size_t n = dil_gguf_n_tensors(j->g);
    uint64_t most = PIECE_ELEMS;
    for (size_t i = 0; i < n; i++)
        if (dil_gguf_tensor_at(j->g, i)->ne[0] > most) most = dil_gguf_tensor_at(j->g, i)->ne[0];
    float *piece = malloc(most * sizeof *piece);
    dil_status st = piece ? describe(j, w, err) : dil_fail(err, DIL_EMEMORY, "out of memory");
    if (st == DIL_OK) st = dil_gguf_begin(w, out, err);
    for (size_t i = 0; i < n && st == DIL_OK; i++) {
        if (!dil_progress_step(j->progress, "writing floats", (double)i, (double)n)) st = dil_fail(err, DIL_ECANCELED, "canceled; nothing was written to %s", out);
        else st = write_tensor(j, w, i, piece, most, err);
    }
    free(piece);
    return st == DIL_OK ? dil_gguf_commit(w, err) : st;
}

dil_status dil_floats_write(const char *model, const dil_floats_opts *opts, const char *out, const dil_progress *progress,
                            dil_floats_report *report, dil_err *err)
{
    if (opts->type != DIL_TYPE_F32 && opts->type != DIL_TYPE_F16 && opts->type != DIL_TYPE_BF16)
        return dil_fail(err, DIL_EUSAGE, "floats are F32, F16 or BF16");
    job j = {.o = opts, .progress = progress};
    dil_gguf_writer *w = NULL;
    dil_status st = dil_gguf_open(model, &j.g, err);
    if (st == DIL_OK) st = dil_arch_read(j.g, &j.arch, err);
    if (st == DIL_OK) j.f = calloc(dil_gguf_n_tensors(j.g), sizeof *j.f);
    if (st == DIL_OK && !j.f) st = dil_fail(err, DIL_EMEMORY, "out of memory");
    dil_rng_init(&j.rng, opts->seed);
    for (uint32_t b = 0; opts->fold && b < j.arch.n_blocks && st == DIL_OK; b++) st = fold_block(&j, b, err);
    if (st == DIL_OK) st = dil_gguf_writer_new(&w, err);
    if (st == DIL_OK) st = write_all(&j, w, out, err);
    dil_gguf_writer_free(w);
    for (size_t i = 0; j.f && i < dil_gguf_n_tensors(j.g); i++) free(j.f[i].row), free(j.f[i].col);
    free(j.f);
    dil_gguf_close(j.g);
    if (st == DIL_OK && report) *report = j.report;
    return st;
}
