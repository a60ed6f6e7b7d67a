/* From a model file and a choice of types to a new model file. Types are settled for all tensors before a byte is written, so that
 * what does not fit is said at once; then the tensors pass through one by one. */
#include "quant/calib.h"
#include "quant/codec.h"
#include "quant/covar.h"
#include "quant/decoder.h"
#include "quant/recode.h"
#include "quant/sequential.h"

#include <dilemma/plan.h>
#include <dilemma/quantize.h>

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

typedef struct job {
    const dil_quantize_opts *opts;
    const dil_progress *progress;
    dil_gguf *g;
    dil_arch arch;
    dil_type *type;        /* [n_tensors] in the file's order; -1: not said yet */
    dil__imatrix *imatrix; /* NULL: none */
    dil__covar *covar;     /* NULL: no error feedback */
    dil_weights weights;   /* of g */
    dil__variant made;     /* tensors that the layerwise method has quantized */
    dil_quantize_report report;
} job;

static const char *const method_name[DIL_QUANTIZE_N] = {"rtn", "gptq", "layerwise"};

bool dil_quantize_method_from_name(const char *name, dil_quantize_method *out)
{
    for (int m = 0; m < DIL_QUANTIZE_N; m++) {
        if (strcmp(name, method_name[m]) != 0) continue;
        *out = (dil_quantize_method)m;
        return true;
    }
    return false;
}

const char *dil_quantize_method_name(dil_quantize_method m)
{
    return method_name[m];
}

/* --- which type each tensor gets ------------------------------------------------------------------------------------- */

static size_t index_of(const job *j, const char *name)
{
    const dil_tensor *t = dil_gguf_find(j->g, name);
    return t ? (size_t)(t - dil_gguf_tensor_at(j->g, 0)) : SIZE_MAX;
}

static dil_status set_type(job *j, const dil_layer_tensor *lt, dil_type asked, dil_err *err)
{
    size_t i = index_of(j, lt->name);
    if (i == SIZE_MAX) return dil_fail(err, DIL_ENOTFOUND, "%s: no tensor %s", dil_gguf_path(j->g), lt->name);
    if (!dil__recode_allowed(asked))
        return dil_fail(err, DIL_EUNSUPPORTED, "%s: type %s cannot be written", lt->name, dil_type_get(asked) ? dil_type_get(asked)->name : "?");
    dil_type t = dil__recode_fit(asked, lt->ne[0]);
    if (j->type[i] >= 0) {
        if (j->type[i] == t) return DIL_OK;
        return dil_fail(err, DIL_EFORMAT, "%s is both embedding and head, and the plan says %s and %s", lt->name,
                        dil_type_get(j->type[i])->name, dil_type_get(t)->name);
    }
    if (t != asked) {
        dil_log(DIL_LOG_WARN, "quantize", "%s: rows of %" PRIu64 " do not take %s (blocks of %u): %s instead", lt->name, lt->ne[0],
                dil_type_get(asked)->name, dil_type_get(asked)->block_elems, dil_type_get(t)->name);
        j->report.n_fallback++;
    }
    j->type[i] = t;
    return DIL_OK;
}

static const char *planned(const dil_plan_layer *l, const char *role)
{
    for (uint32_t i = 0; i < l->n_types; i++)
        if (strcmp(l->types[i].role, role) == 0) return l->types[i].type;
    return NULL;
}

static dil_status choose_layer(job *j, uint32_t layer, const dil_plan *plan, dil_err *err)
{
    dil_layer_tensor lt[DIL_LAYER_TENSORS_MAX];
    size_t n = dil_arch_layer_tensors(&j->arch, layer, lt);
    for (size_t i = 0; i < n; i++) {
        if (!lt[i].linear) continue;
        dil_type t = j->opts->type;
        if (plan) {
            const char *name = planned(&plan->layers[layer], lt[i].role);
            if (!name) return dil_fail(err, DIL_EFORMAT, "%s: layer %u has no type for %s", j->opts->plan, layer, lt[i].role);
            if (!dil_type_from_name(name, &t)) return dil_fail(err, DIL_EFORMAT, "%s: layer %u: %s is no type", j->opts->plan, layer, name);
        }
        dil_status st = set_type(j, &lt[i], t, err);
        if (st != DIL_OK) return st;
    }
    return DIL_OK;
}

static dil_status check_plan(const job *j, const dil_plan *plan, dil_err *err)
{
    if (plan->n_layers != dil_arch_n_layers(&j->arch))
        return dil_fail(err, DIL_EFORMAT, "%s is for a model of %u layers, %s has %u", j->opts->plan, plan->n_layers, dil_gguf_path(j->g),
                        dil_arch_n_layers(&j->arch));
    dil_hash want;
    if (!plan->model_hash[0] || !dil_hash_from_hex(plan->model_hash, &want)) return DIL_OK;
    dil_map map;
    dil_status st = dil_map_open(dil_gguf_path(j->g), &map, err);
    if (st != DIL_OK) return st;
    dil_hash got = dil_hash_of(map.data, map.len);
    dil_map_close(&map);
    if (memcmp(&got, &want, sizeof got) == 0) return DIL_OK;
    return dil_fail(err, DIL_EFORMAT, "%s was made for another file than %s (%s; the hashes differ): profile and plan this one", j->opts->plan,
                    dil_gguf_path(j->g), plan->model_path);
}

static dil_status choose_types(job *j, dil_err *err)
{
    size_t n = dil_gguf_n_tensors(j->g);
    j->type = malloc(n * sizeof *j->type);
    if (!j->type) return dil_fail(err, DIL_EMEMORY, "out of memory");
    for (size_t i = 0; i < n; i++) j->type[i] = -1;
    dil_plan *plan = NULL;
    dil_status st = j->opts->plan ? dil_plan_read(j->opts->plan, &plan, err) : DIL_OK;
    if (st == DIL_OK && plan) st = check_plan(j, plan, err);
    for (uint32_t l = 0; l < dil_arch_n_layers(&j->arch) && st == DIL_OK; l++) st = choose_layer(j, l, plan, err);
    dil_plan_free(plan);
    if (st != DIL_OK) return st;
    for (size_t i = 0; i < n; i++) {
        const dil_tensor *t = dil_gguf_tensor_at(j->g, i);
        if (j->type[i] < 0) j->type[i] = dil__recode_other(t);
        if (j->type[i] == t->type) continue;
        j->report.n_changed++;
        j->report.n_requantized += dil_type_get(t->type)->is_quantized;
    }
    if (j->report.n_requantized > 0)
        dil_log(DIL_LOG_WARN, "quantize", "%s is quantized already: %u of %u changed tensors start from quantized weights; the reference of all "
                "figures is the file as given", dil_gguf_path(j->g), j->report.n_requantized, j->report.n_changed);
    return DIL_OK;
}

/* --- importance ------------------------------------------------------------------------------------------------------- */

static bool needs_imatrix(const job *j)
{
    for (size_t i = 0; i < dil_gguf_n_tensors(j->g); i++)
        if (j->type[i] != dil_gguf_tensor_at(j->g, i)->type && dil_type_get(j->type[i])->needs_imatrix) return true;
    return false;
}

/* Whether some tensor is written at a type whose grid takes error feedback. */
static bool wants_feedback(const job *j)
{
    if (j->report.method != DIL_QUANTIZE_GPTQ) return false;
    for (size_t i = 0; i < dil_gguf_n_tensors(j->g); i++)
        if (j->type[i] != dil_gguf_tensor_at(j->g, i)->type && dil__codec_get(j->type[i])) return true;
    return false;
}

/* Layer-wise quantizing computes the model in floats of its own; where that does not know a feature, GPTQ on the engine's does. */
static dil_quantize_method method_for(const job *j)
{
    const char *lacks = j->opts->method == DIL_QUANTIZE_LAYERWISE ? dil__decoder_lacks(&j->arch) : NULL;
    if (!lacks) return j->opts->method;
    dil_log(DIL_LOG_WARN, "quantize", "layerwise does not know %s of %s models: quantizing by gptq", lacks, j->arch.name);
    return DIL_QUANTIZE_GPTQ;
}

static dil_status calibrate(job *j, dil_err *err)
{
    const dil_quantize_opts *o = j->opts;
    /* The covariances' diagonals are an importance matrix. */
    bool feedback = wants_feedback(j), gather = !feedback && !o->imatrix && (o->imatrix_data || needs_imatrix(j));
    dil_status st = o->imatrix ? dil__imatrix_load(o->imatrix, &j->imatrix, err) : DIL_OK;
    if (st != DIL_OK || (!feedback && !gather)) return st;
    if (!o->imatrix_data)
        dil_log(DIL_LOG_INFO, "quantize", "%s: calibrating on the embedded text (--imatrix-data takes yours)",
                feedback ? "gptq" : "a type here needs an importance matrix");
    dil_tokenizer *tok;
    st = dil_tokenizer_new(j->g, &tok, err);
    if (st != DIL_OK) return st;
    dil_ids ids;
    st = dil__calib_tokens_without(tok, o->imatrix_data, o->imatrix_format, o->held_from, o->held_to, 512, o->imatrix_tokens ? o->imatrix_tokens : 16384, &ids, err);
    dil_tokenizer_free(tok);
    if (st != DIL_OK) return st;
    const char *model = dil_gguf_path(j->g);
    if (gather) st = dil__imatrix_gather(model, &ids, 512, o->device, o->n_threads, j->progress, &j->imatrix, err);
    if (st == DIL_OK && feedback) st = dil__covar_gather(model, &ids, 512, o->device, o->n_threads, j->progress, &j->covar, err);
    dil_ids_fini(&ids);
    return st;
}

static dil_type planned_type(void *ctx, const char *tensor)
{
    const job *j = ctx;
    return j->type[index_of(j, tensor)];
}

static dil_status calibrate_layerwise(job *j, dil_err *err)
{
    enum { N_CTX = 512, CHUNKS = 80, CHUNKS_MIN = 4 }; /* a covariance of n columns from fewer than n rows is singular */
    const dil_quantize_opts *o = j->opts;
    if (!o->imatrix_data) dil_log(DIL_LOG_INFO, "quantize", "layerwise: calibrating on the embedded text (--imatrix-data takes yours)");
    dil_tokenizer *tok;
    dil_status st = dil_tokenizer_new(j->g, &tok, err);
    if (st != DIL_OK) return st;
    dil_ids ids;
    size_t most = o->imatrix_tokens ? o->imatrix_tokens : CHUNKS * N_CTX;
    st = dil__calib_tokens_without(tok, o->imatrix_data, o->imatrix_format, o->held_from, o->held_to, CHUNKS_MIN * N_CTX, most > CHUNKS_MIN * N_CTX ? most : CHUNKS_MIN * N_CTX, &ids, err);
    if (st == DIL_OK && dil_tokenizer_adds_bos(tok))
        for (size_t i = 0; i < ids.n; i += N_CTX) ids.id[i] = dil_tokenizer_bos(tok);
    dil_tokenizer_free(tok);
    if (st != DIL_OK) return st;
    dil__sequential_opts so = {.n_threads = o->n_threads, .ids = ids.id, .n_ctx = N_CTX,
                               .n_chunks = (uint32_t)(ids.n / N_CTX), .damp = 0.01, .towards_teacher = true, .type_of = planned_type, .ctx = j};
    j->report.imatrix_tokens = (uint64_t)so.n_chunks * N_CTX;
    st = dil__sequential_quantize(&j->arch, &j->weights, &so, j->progress, &j->made, err);
    dil_ids_fini(&ids);
    return st;
}

/* --- writing ---------------------------------------------------------------------------------------------------------- */

/* The number that llama.cpp's general.file_type knows for the type that most weights have. */
static uint32_t file_type(const job *j)
{
    static const struct { dil_type t; uint32_t file; } known[] = {
        {DIL_TYPE_F32, 0}, {DIL_TYPE_F16, 1}, {DIL_TYPE_Q4_0, 2}, {DIL_TYPE_Q4_1, 3}, {DIL_TYPE_Q8_0, 7}, {DIL_TYPE_Q5_0, 8},
        {DIL_TYPE_Q5_1, 9}, {DIL_TYPE_Q2_K, 10}, {DIL_TYPE_Q3_K, 12}, {DIL_TYPE_Q4_K, 15}, {DIL_TYPE_Q5_K, 17}, {DIL_TYPE_Q6_K, 18},
        {DIL_TYPE_IQ2_XXS, 19}, {DIL_TYPE_IQ2_XS, 20}, {DIL_TYPE_IQ3_XXS, 23}, {DIL_TYPE_IQ4_NL, 25}, {DIL_TYPE_IQ3_S, 26},
        {DIL_TYPE_IQ2_S, 28}, {DIL_TYPE_IQ4_XS, 30}, {DIL_TYPE_BF16, 32}, {DIL_TYPE_MXFP4, 38}, {DIL_TYPE_Q2_0, 41}};
    uint64_t elems[DIL_TYPE_LIMIT] = {0}, most = 0;
    uint32_t file = 0;
    for (size_t i = 0; i < dil_gguf_n_tensors(j->g); i++) elems[j->type[i]] += dil_tensor_elems(dil_gguf_tensor_at(j->g, i));
    for (size_t k = 0; k < sizeof known / sizeof known[0]; k++)
        if (elems[known[k].t] > most) most = elems[known[k].t], file = known[k].file;
    return file;
}

static dil_status describe(job *j, dil_gguf_writer *w, dil_err *err)
{
    dil_status st = DIL_OK;
    for (size_t i = 0; i < dil_gguf_n_kv(j->g) && st == DIL_OK; i++) st = dil_gguf_put_kv(w, dil_gguf_kv_at(j->g, i), err);
    if (st == DIL_OK) st = dil_gguf_put_u32(w, "general.file_type", file_type(j), err);
    if (st == DIL_OK) st = dil_gguf_put_u32(w, "general.quantization_version", 2, err);
    for (size_t i = 0; i < dil_gguf_n_tensors(j->g) && st == DIL_OK; i++) {
        dil_tensor t = *dil_gguf_tensor_at(j->g, i);
        t.type = j->type[i];
        st = dil_gguf_put_tensor(w, &t, err);
    }
    return st;
}

static dil_status write_tensor(job *j, dil_gguf_writer *w, size_t i, dil_err *err)
{
    const dil_tensor *t = dil_gguf_tensor_at(j->g, i);
    dil_weights made = dil__variant_weights(&j->made);
    const dil_tensor *have = dil_weights_find(&made, t->name);
    j->report.n_params += dil_tensor_elems(t);
    if (have != t) {
        j->report.bytes += have->bytes;
        j->report.n_feedback += dil__codec_get(have->type) != NULL;
        return dil_gguf_write_data(w, have->data, have->bytes, err);
    }
    int threads = j->opts->n_threads ? j->opts->n_threads : dil_cpu_count();
    const float *importance = dil__imatrix_row(j->imatrix, t->name, t->ne[0]);
    if (!importance && j->covar) importance = dil__covar_row(j->covar, t->name, t->ne[0]);
    if (j->type[i] != t->type && dil_type_get(j->type[i])->needs_imatrix && !importance)
        return dil_fail(err, DIL_EDATA, "%s: the importance matrix does not have it (made from another model?), and %s needs it", t->name,
                        dil_type_get(j->type[i])->name);
    const float *factor = NULL;
    dil_status st = DIL_OK;
    if (j->covar && j->type[i] != t->type && dil__codec_get(j->type[i])) st = dil__covar_factor(j->covar, t->name, t->ne[0], &factor, err);
    if (st != DIL_OK) return st;
    j->report.n_feedback += factor != NULL;
    void *data;
    uint64_t bytes;
    st = dil__recode_tensor(t, j->type[i], importance, factor, threads, &data, &bytes, err);
    if (st != DIL_OK) return st;
    st = dil_gguf_write_data(w, data, bytes, err);
    free(data);
    j->report.bytes += bytes;
    return st;
}

static dil_status write_file(job *j, const char *out, dil_err *err)
{
    dil_gguf_writer *w;
    dil_status st = dil_gguf_writer_new(&w, err);
    if (st != DIL_OK) return st;
    st = describe(j, w, err);
    if (st == DIL_OK) st = dil_gguf_begin(w, out, err);
    double total = (double)dil_arch_n_params(&j->arch);
    for (size_t i = 0; i < dil_gguf_n_tensors(j->g) && st == DIL_OK; i++) {
        if (!dil_progress_step(j->progress, "quantizing", (double)j->report.n_params, total))
            st = dil_fail(err, DIL_ECANCELED, "canceled; nothing was written to %s", out);
        else st = write_tensor(j, w, i, err);
    }
    if (st == DIL_OK) st = dil_gguf_commit(w, err);
    dil_gguf_writer_free(w);
    if (st == DIL_OK) dil_progress_step(j->progress, "quantizing", total, total);
    return st;
}

dil_status dil_quantize(const char *model, const dil_quantize_opts *opts, const char *out, const dil_progress *progress,
                        dil_quantize_report *report, dil_err *err)
{
    job j = {.opts = opts, .progress = progress};
    dil_status st = dil_gguf_open(model, &j.g, err);
    if (st == DIL_OK) st = dil_arch_read(j.g, &j.arch, err);
    if (st == DIL_OK) {
        j.weights = dil_gguf_weights(j.g);
        dil__variant_init(&j.made, &j.weights);
        st = choose_types(&j, err);
        j.report.method = method_for(&j);
    }
    if (st == DIL_OK) st = j.report.method == DIL_QUANTIZE_LAYERWISE ? calibrate_layerwise(&j, err) : calibrate(&j, err);
    if (st == DIL_OK) st = write_file(&j, out, err);
    if (st == DIL_OK) {
        j.report.ratio_to_fp32 = (double)j.report.bytes / (4 * (double)j.report.n_params);
        j.report.bits_per_weight = 32 * j.report.ratio_to_fp32;
        if (j.covar || j.imatrix) j.report.imatrix_tokens = j.covar ? dil__covar_tokens(j.covar) : dil__imatrix_tokens(j.imatrix);
        *report = j.report;
    }
    dil__imatrix_free(j.imatrix);
    dil__covar_free(j.covar);
    dil__variant_fini(&j.made);
    free(j.type);
    dil_gguf_close(j.g);
    return st;
}
