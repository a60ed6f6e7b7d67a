/* The import as a whole: what the architecture asks for is looked up in the checkpoint under the family's names, checked, and
 * streamed into the file. Everything is found and checked before the first byte is written, but for the values themselves.
 *
 * The q and k rows of Llama are reordered: transformers rotates the two halves of a head against each other, GGUF's `llama`
 * neighbouring pairs. */
#include "model/import.h"

#include "base/half.h"
#include "base/json.h"
#include "model/checkpoint.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK = 1 << 16 }; /* elements converted at a time */

typedef struct item { /* one tensor of the file */
    dil_tensor out;
    const dil__ckpt_tensor *src; /* NULL: `fill` everywhere, or `values` */
    uint32_t head_dim;           /* rows are reordered within heads of this size; 0: not */
    float fill;
    const float *values;
} item;

typedef struct import {
    dil__hf_config config;
    dil__ckpt ckpt;
    dil_type type;
    const char *prefix; /* of the names in the checkpoint */
    item *item;
    size_t n;
    uint64_t bytes, n_params;
    float *rope_freqs;
    dil_gguf_writer *w;
    char pre[32];
    const char *dir;
    dil_err *err;
} import;

/* --- names --------------------------------------------------------------------------------------------------------- */

static const struct {
    const char *role, *llama, *opt; /* NULL: the family has none */
} names[] = {
    {"token_embd", "embed_tokens", "embed_tokens"},
    {"position_embd", NULL, "embed_positions"},
    {"project_in", NULL, "project_in"},
    {"project_out", NULL, "project_out"},
    {"output_norm", "norm", "final_layer_norm"},
    {"output", "lm_head", "lm_head"},
    {"attn_norm", "input_layernorm", "self_attn_layer_norm"},
    {"attn_q", "self_attn.q_proj", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj", "self_attn.k_proj"},
    {"attn_v", "self_attn.v_proj", "self_attn.v_proj"},
    {"attn_output", "self_attn.o_proj", "self_attn.out_proj"},
    {"ffn_norm", "post_attention_layernorm", "final_layer_norm"},
    {"ffn_gate", "mlp.gate_proj", NULL},
    {"ffn_up", "mlp.up_proj", "fc1"},
    {"ffn_down", "mlp.down_proj", "fc2"},
};

static const char *const llama_prefixes[] = {"model.", "", NULL};
static const char *const opt_prefixes[] = {"model.decoder.", "decoder.", "", NULL};

static dil_status find_prefix(import *im)
{
    const char *const *p = im->config.arch.family == DIL_FAMILY_OPT ? opt_prefixes : llama_prefixes;
    for (; *p; p++) {
        char name[64];
        snprintf(name, sizeof name, "%sembed_tokens.weight", *p);
        if (!dil__ckpt_find(&im->ckpt, name)) continue;
        im->prefix = *p;
        return DIL_OK;
    }
    return dil_fail(im->err, DIL_EFORMAT, "%s: the weights hold no embed_tokens.weight under a name that %s models use", im->dir, im->config.arch.name);
}

/* The checkpoint's name of a tensor of planner layer `layer`. */
static void source_name(const import *im, uint32_t layer, const dil_layer_tensor *t, char out[128])
{
    bool block = layer > 0 && layer <= im->config.arch.n_blocks;
    size_t role_len = strcspn(t->role, ".");
    const char *suffix = t->role[role_len] ? "bias" : "weight";
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strlen(names[i].role) != role_len || memcmp(names[i].role, t->role, role_len) != 0) continue;
        const char *base = im->config.arch.family == DIL_FAMILY_OPT ? names[i].opt : names[i].llama;
        if (!base) continue;
        const char *prefix = strcmp(base, "lm_head") == 0 ? "" : im->prefix;
        if (block) snprintf(out, 128, "%slayers.%u.%s.%s", prefix, layer - 1, base, suffix);
        else snprintf(out, 128, "%s%s.%s", prefix, base, suffix);
        return;
    }
    snprintf(out, 128, "(%s)", t->role);
}

/* --- finding and checking ------------------------------------------------------------------------------------------ */

static dil_status check_shape(const import *im, const dil__ckpt_tensor *src, const dil_layer_tensor *want)
{
    bool matrix = want->ne[1] != 1 || want->linear || strcmp(want->role, "position_embd") == 0;
    uint64_t rows = matrix ? want->ne[1] : 1, cols = want->ne[0];
    bool same = matrix ? src->n_dims == 2 && src->shape[0] == rows && src->shape[1] == cols : src->n_dims == 1 && src->shape[0] == cols;
    if (!same)
        return dil_fail(im->err, DIL_EFORMAT, "%s: %s has %u dimensions, %" PRIu64 " x %" PRIu64 "; config.json implies %" PRIu64 " x %" PRIu64, src->file,
                        src->name, src->n_dims, src->shape[0], src->shape[1], matrix ? rows : cols, matrix ? cols : 1);
    if (src->type < 0)
        return dil_fail(im->err, DIL_EUNSUPPORTED, "%s: %s is stored as %s; weights are read from F32, F16 and BF16", src->file, src->name, src->type_name);
    return DIL_OK;
}

static dil_status find_source(import *im, uint32_t layer, const dil_layer_tensor *want, item *it)
{
    if (strcmp(want->role, "rope_freqs") == 0) {
        it->values = im->rope_freqs;
        return DIL_OK;
    }
    char name[128];
    source_name(im, layer, want, name);
    dil__ckpt_tensor *src = dil__ckpt_find(&im->ckpt, name);
    bool norm = strstr(want->role, "_norm") != NULL;
    if (!src && norm && !im->config.norm_affine) {
        it->fill = strchr(want->role, '.') ? 0 : 1;
        return DIL_OK;
    }
    if (!src) return dil_fail(im->err, DIL_EFORMAT, "%s: the weights hold no %s", im->dir, name);
    src->used = true;
    it->src = src;
    bool rotated = strncmp(want->role, "attn_q", 6) == 0 || strncmp(want->role, "attn_k", 6) == 0;
    if (rotated && im->config.arch.positions == DIL_POS_ROPE_NORM) it->head_dim = im->config.arch.head_dim;
    return check_shape(im, src, want);
}

static dil_status add_item(import *im, uint32_t layer, const dil_layer_tensor *want)
{
    item *it = &im->item[im->n];
    *it = (item){.out = {.type = DIL_TYPE_F32, .n_dims = want->ne[1] != 1 || want->linear ? 2 : 1, .ne = {want->ne[0], want->ne[1], 1, 1}}};
    memcpy(it->out.name, want->name, sizeof it->out.name);
    dil_status s = find_source(im, layer, want, it);
    if (s != DIL_OK) return s;
    if (want->linear || strcmp(want->role, "position_embd") == 0) it->out.type = im->type;
    uint64_t row = 0, bytes = 0;
    bool fits = dil_type_row_bytes(it->out.type, want->ne[0], &row) && dil_mul_u64(row, want->ne[1], &bytes);
    if (!fits) return dil_fail(im->err, DIL_ELIMIT, "%s: %s is too large", im->dir, want->name);
    it->out.bytes = bytes;
    im->bytes += bytes;
    im->n_params += want->ne[0] * want->ne[1];
    im->n++;
    return dil_gguf_put_tensor(im->w, &it->out, im->err);
}

/* Left over after all that the architecture needs was found: what holds no weight of the function, or a sign of another model. */
static bool may_be_left(const import *im, const char *name)
{
    static const char *const harmless[] = {"rotary_emb.inv_freq", ".masked_bias", "decoder.version", "position_ids"};
    if (im->config.arch.tied_head && strcmp(name, "lm_head.weight") == 0) return true;
    for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++) {
        size_t n = strlen(name), m = strlen(harmless[i]);
        if (n >= m && strcmp(name + n - m, harmless[i]) == 0) return true;
    }
    return false;
}

static dil_status check_unused(const import *im)
{
    for (size_t i = 0; i < im->ckpt.n; i++) {
        const dil__ckpt_tensor *t = &im->ckpt.tensor[i];
        if (!t->used && !may_be_left(im, t->name))
            return dil_fail(im->err, DIL_EUNSUPPORTED, "%s: %.100s has no place in the model that config.json describes", t->file, t->name);
    }
    return DIL_OK;
}

static dil_status collect(import *im)
{
    const dil_arch *a = &im->config.arch;
    im->item = calloc((size_t)dil_arch_n_layers(a) * DIL_LAYER_TENSORS_MAX, sizeof *im->item);
    im->rope_freqs = calloc(a->rope_dims / 2 + 1, sizeof *im->rope_freqs);
    if (!im->item || !im->rope_freqs) return dil_fail(im->err, DIL_EMEMORY, "%s: no memory", im->dir);
    if (a->rope_freqs) dil__hf_rope_freqs(&im->config, im->rope_freqs);
    for (uint32_t layer = 0; layer < dil_arch_n_layers(a); layer++) {
        dil_layer_tensor t[DIL_LAYER_TENSORS_MAX];
        size_t n = dil_arch_layer_tensors(a, layer, t);
        for (size_t i = 0; i < n; i++) {
            dil_status s = t[i].shared ? DIL_OK : add_item(im, layer, &t[i]);
            if (s != DIL_OK) return s;
        }
    }
    return check_unused(im);
}

/* --- values -------------------------------------------------------------------------------------------------------- */

static void to_float(dil_type type, const uint8_t *src, size_t n, float *out)
{
    if (type == DIL_TYPE_F32) {
        memcpy(out, src, n * sizeof *out);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, src + 2 * i, sizeof h);
        out[i] = type == DIL_TYPE_F16 ? dil__f16_to_f32(h) : dil__bf16_to_f32(h);
    }
}

/* NaN and infinity in the source, and what becomes infinite in the target type. */
static dil_status check_values(const import *im, const item *it, const float *v, size_t n)
{
    float most = it->out.type == DIL_TYPE_F16 ? 65519.996f : it->out.type == DIL_TYPE_BF16 ? 0x1.fefffep127f : 0x1.fffffep127f;
    for (size_t i = 0; i < n; i++) {
        if (fabsf(v[i]) <= most) continue;
        const char *name = it->src ? it->src->name : it->out.name;
        if (!isfinite(v[i])) return dil_fail(im->err, DIL_EDATA, "%s: %s holds %s", im->dir, name, isnan(v[i]) ? "NaN" : "infinity");
        return dil_fail(im->err, DIL_EDATA, "%s: %s holds %g, which %s cannot; use --type %s", im->dir, name, (double)v[i],
                        dil_type_get(it->out.type)->name, it->out.type == DIL_TYPE_F16 ? "bf16" : "f32");
    }
    return DIL_OK;
}

static dil_status write_values(const import *im, const item *it, const float *v, size_t n)
{
    uint16_t half[CHUNK];
    dil_status s = check_values(im, it, v, n);
    if (s != DIL_OK) return s;
    if (it->out.type == DIL_TYPE_F32) return dil_gguf_write_data(im->w, v, n * sizeof *v, im->err);
    for (size_t i = 0; i < n; i++) half[i] = it->out.type == DIL_TYPE_F16 ? dil__f16_from_f32(v[i]) : dil__bf16_from_f32(v[i]);
    return dil_gguf_write_data(im->w, half, n * sizeof *half, im->err);
}

/* Row r of the file is this row of the checkpoint: within a head, pair i of GGUF is rows i and i + head_dim/2. */
static uint64_t source_row(const item *it, uint64_t r)
{
    if (it->head_dim == 0) return r;
    uint64_t head = r / it->head_dim, in = r % it->head_dim;
    return head * it->head_dim + in % 2 * (it->head_dim / 2) + in / 2;
}

/* n elements of the source, from element `from` on, appended to v; without a source `values` or `fill`. */
static void gather(const item *it, uint64_t from, size_t n, float *v)
{
    if (it->src) {
        to_float(it->src->type, it->src->data + from * (it->src->type == DIL_TYPE_F32 ? 4 : 2), n, v);
        return;
    }
    for (size_t i = 0; i < n; i++) v[i] = it->values ? it->values[from + i] : it->fill;
}

/* A bias is a column: each of its elements is a row here. */
static dil_status write_converted(const import *im, const item *it, uint64_t elems, uint64_t run)
{
    float v[CHUNK];
    size_t fill = 0;
    for (uint64_t at = 0; at < elems;) {
        uint64_t from = source_row(it, at / run) * run + at % run, n = run - at % run;
        if (n > CHUNK - fill) n = CHUNK - fill;
        gather(it, from, (size_t)n, v + fill);
        fill += (size_t)n;
        at += n;
        if (fill < CHUNK && at < elems) continue;
        dil_status s = write_values(im, it, v, fill);
        if (s != DIL_OK) return s;
        fill = 0;
    }
    return DIL_OK;
}

/* Whether an exponent is all ones: NaN or infinity. */
static bool any_special(dil_type type, const uint8_t *p, size_t n)
{
    uint32_t seen = 0, mask = type == DIL_TYPE_F16 ? 0x7c00 : type == DIL_TYPE_BF16 ? 0x7f80 : 0x7f800000;
    for (size_t i = 0; i < n; i++) {
        uint32_t u = 0;
        if (type == DIL_TYPE_F32) memcpy(&u, p + 4 * i, 4);
        else u = (uint32_t)(p[2 * i] | p[2 * i + 1] << 8);
        seen |= (u & mask) == mask;
    }
    return seen != 0;
}

/* Equal types and order: the bytes go out as they are. What is not finite takes the other way, which names it. */
static dil_status write_same(const import *im, const item *it, uint64_t elems)
{
    size_t size = it->out.type == DIL_TYPE_F32 ? 4 : 2;
    for (uint64_t at = 0; at < elems;) {
        size_t n = elems - at < CHUNK ? (size_t)(elems - at) : CHUNK;
        const uint8_t *p = it->src->data + at * size;
        if (any_special(it->out.type, p, n)) {
            float v[CHUNK];
            to_float(it->out.type, p, n, v);
            return check_values(im, it, v, n);
        }
        dil_status s = dil_gguf_write_data(im->w, p, n * size, im->err);
        if (s != DIL_OK) return s;
        at += n;
    }
    return DIL_OK;
}

static dil_status write_item(const import *im, const item *it)
{
    uint64_t elems = it->out.ne[0] * it->out.ne[1];
    if (it->src && it->src->type == it->out.type && it->head_dim == 0) return write_same(im, it, elems);
    uint64_t run = it->head_dim == 0 ? elems : it->out.n_dims == 1 ? 1 : it->out.ne[0]; /* contiguous in the source */
    return write_converted(im, it, elems, run);
}

static dil_status write_all(const import *im, const char *out, const dil_progress *progress)
{
    double done = 0;
    dil_status s = dil_gguf_begin(im->w, out, im->err);
    for (size_t i = 0; s == DIL_OK && i < im->n; i++) {
        if (!dil_progress_step(progress, "importing", done, (double)im->bytes)) return dil_fail(im->err, DIL_ECANCELED, "%s: canceled", out);
        s = write_item(im, &im->item[i]);
        done += (double)im->item[i].out.bytes;
    }
    if (s == DIL_OK) s = dil_gguf_commit(im->w, im->err);
    if (s == DIL_OK) dil_progress_step(progress, "importing", done, (double)im->bytes);
    return s;
}

/* --- metadata ------------------------------------------------------------------------------------------------------ */

static const char *folder_name(const char *dir, char *copy)
{
    size_t n = strlen(copy);
    while (n > 1 && copy[n - 1] == '/') copy[--n] = 0;
    const char *slash = strrchr(copy, '/');
    return slash && slash[1] ? slash + 1 : dir;
}

static dil_status put_general(import *im, const dil_import_opts *opts)
{
    char *real = realpath(im->dir, NULL);
    const char *name = opts->name ? opts->name : real ? folder_name(im->dir, real) : im->dir;
    uint32_t file_type = im->type == DIL_TYPE_F32 ? 0 : im->type == DIL_TYPE_F16 ? 1 : 32; /* llama.cpp's LLAMA_FTYPE numbers */
    dil_status s = dil_gguf_put_str(im->w, "general.type", "model", im->err);
    if (s == DIL_OK) s = dil_gguf_put_str(im->w, "general.name", name, im->err);
    if (s == DIL_OK) s = dil_gguf_put_u32(im->w, "general.file_type", file_type, im->err);
    free(real);
    return s;
}

static dil_status read_config(import *im)
{
    json_t *doc = NULL;
    dil_buf path;
    dil_buf_init(&path, 1 << 16);
    dil_status s = dil_buf_printf(&path, "%s/config.json", im->dir) ? DIL_OK : dil_fail(im->err, DIL_ELIMIT, "the folder's name is too long");
    if (s == DIL_OK) s = dil__json_load(dil_buf_str(&path), DIL__CONFIG_BYTES_MAX, &doc, im->err);
    if (s == DIL_OK) s = dil__hf_config_read(doc, dil_buf_str(&path), &im->config, im->err);
    json_decref(doc);
    dil_buf_fini(&path);
    return s;
}

static dil_status choose_type(import *im, const dil_import_opts *opts)
{
    char name[64];
    snprintf(name, sizeof name, "%sembed_tokens.weight", im->prefix);
    const dil__ckpt_tensor *t = dil__ckpt_find(&im->ckpt, name);
    im->type = opts->type == DIL_TYPE_AS_STORED ? t->type : opts->type;
    if (im->type == DIL_TYPE_F32 || im->type == DIL_TYPE_F16 || im->type == DIL_TYPE_BF16) return DIL_OK;
    if (opts->type != DIL_TYPE_AS_STORED) return dil_fail(im->err, DIL_EUSAGE, "import writes F32, F16 or BF16; other types are `dilemma quantize`'s");
    return dil_fail(im->err, DIL_EUNSUPPORTED, "%s: %s is stored as %s; weights are read from F32, F16 and BF16", t->file, t->name, t->type_name);
}

static dil_status run(import *im, const char *out, const dil_import_opts *opts, const dil_progress *progress)
{
    dil_status s = read_config(im);
    if (s == DIL_OK) s = dil__ckpt_open(im->dir, &im->ckpt, im->err);
    if (s == DIL_OK) s = find_prefix(im);
    if (s == DIL_OK) s = choose_type(im, opts);
    if (s == DIL_OK) s = dil_gguf_writer_new(&im->w, im->err);
    if (s == DIL_OK) s = dil_arch_put(im->w, &im->config.arch, im->err);
    if (s == DIL_OK) s = put_general(im, opts);
    if (s == DIL_OK && !opts->no_tokenizer) s = dil__hf_vocab_put(im->dir, &im->config, im->w, im->pre, im->err);
    if (s == DIL_OK) s = collect(im);
    return s == DIL_OK ? write_all(im, out, progress) : s;
}

dil_status dil_import(const char *dir, const char *out, const dil_import_opts *opts, const dil_progress *progress, dil_import_info *info,
                      dil_err *err)
{
    dil_import_opts defaults = {.type = DIL_TYPE_AS_STORED};
    import im = {.dir = dir, .err = err};
    dil_status s = run(&im, out, opts ? opts : &defaults, progress);
    if (s == DIL_OK && info) {
        *info = (dil_import_info){.arch = im.config.arch, .type = im.type, .n_params = im.n_params, .bytes = im.bytes};
        snprintf(info->tokenizer, sizeof info->tokenizer, "%s", im.pre);
    }
    dil_gguf_writer_free(im.w);
    dil__ckpt_close(&im.ckpt);
    free(im.item);
    free(im.rope_freqs);
    return s;
}
