/* The import as a whole: what the architecture asks for is looked up in the checkpoint under the family's names, checked, and
 * streamed into the file. Everything is found and checked before the first byte is written, but for the values themselves.
 *
 * The q and k rows of Llama are reordered: transformers rotates the two halves of a head against each other, GGUF's `llama`
 * neighbouring pairs. */
#include "model/import.h"

#include "base/half.h"
#include "base/json.h"
#include "model/checkpoint.h"
#include "model/family.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK = 1 << 16 }; /* elements converted at a time */

typedef struct item { /* one tensor of the file */
    dil_tensor out;
    const dil__ckpt_tensor *src; /* NULL: `fill` everywhere, or `values` */
    uint32_t head_dim;           /* rows are reordered within heads of this size; 0: not */
    bool turned;                 /* the source holds the transposed matrix */
    float fill, more;            /* more is added to every value */
    const float *values;
} item;

typedef struct import {
    dil__hf_config config;
    dil__ckpt ckpt;
    dil_type type;
    const struct naming *naming;
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

typedef struct role_name { const char *role, *base; } role_name;

#define LLAMA_NAMES                                                                                                        \
    {"token_embd", "embed_tokens"}, {"output_norm", "norm"}, {"output", "lm_head"}, {"attn_norm", "input_layernorm"},      \
        {"attn_q", "self_attn.q_proj"}, {"attn_k", "self_attn.k_proj"}, {"attn_v", "self_attn.v_proj"},                    \
        {"attn_output", "self_attn.o_proj"}, {"ffn_gate", "mlp.gate_proj"}, {"ffn_down", "mlp.down_proj"},                 \
        {"attn_q_norm", "self_attn.q_norm"}, {"attn_k_norm", "self_attn.k_norm"}

static const role_name llama_names[] = {LLAMA_NAMES, {"ffn_norm", "post_attention_layernorm"}, {"ffn_up", "mlp.up_proj"}, {NULL, NULL}};
static const role_name gemma_names[] = {LLAMA_NAMES, {"ffn_norm", "pre_feedforward_layernorm"}, {"ffn_up", "mlp.up_proj"},
                                   {"post_attention_norm", "post_attention_layernorm"}, {"post_ffw_norm", "post_feedforward_layernorm"}, {NULL, NULL}};
static const role_name phi_names[] = {LLAMA_NAMES, {"ffn_norm", "post_attention_layernorm"}, {"ffn_up", "mlp.gate_up_proj"},
                                 {"attn_qkv", "self_attn.qkv_proj"}, {NULL, NULL}};
static const role_name opt_names[] = {
    {"token_embd", "embed_tokens"}, {"position_embd", "embed_positions"}, {"project_in", "project_in"}, {"project_out", "project_out"},
    {"output_norm", "final_layer_norm"}, {"output", "lm_head"}, {"attn_norm", "self_attn_layer_norm"}, {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"}, {"attn_v", "self_attn.v_proj"}, {"attn_output", "self_attn.out_proj"}, {"ffn_norm", "final_layer_norm"},
    {"ffn_up", "fc1"}, {"ffn_down", "fc2"}, {NULL, NULL}};
static const role_name gpt2_names[] = {
    {"token_embd", "wte"}, {"position_embd", "wpe"}, {"output_norm", "ln_f"}, {"output", "lm_head"}, {"attn_norm", "ln_1"},
    {"attn_qkv", "attn.c_attn"}, {"attn_output", "attn.c_proj"}, {"ffn_norm", "ln_2"}, {"ffn_up", "mlp.c_fc"}, {"ffn_down", "mlp.c_proj"}, {NULL, NULL}};

static const char *const llama_prefixes[] = {"model.", "", NULL};
static const char *const gemma_prefixes[] = {"model.", "", "language_model.model.", "model.language_model.", NULL};
static const char *const opt_prefixes[] = {"model.decoder.", "decoder.", "", NULL};
static const char *const gpt2_prefixes[] = {"transformer.", "", NULL};

static const struct naming {
    const role_name *names;
    const char *const *prefixes;
    const char *blocks;
    bool turned;        /* linear layers of blocks are stored [n_in][n_out] */
    bool norms_are_off; /* by one: a norm multiplies with 1 + weight */
} namings[DIL__FAMILIES] = {
    [DIL_FAMILY_LLAMA] = {llama_names, llama_prefixes, "layers", false, false},
    [DIL_FAMILY_OPT] = {opt_names, opt_prefixes, "layers", false, false},
    [DIL_FAMILY_QWEN2] = {llama_names, llama_prefixes, "layers", false, false},
    [DIL_FAMILY_QWEN3] = {llama_names, llama_prefixes, "layers", false, false},
    [DIL_FAMILY_SMOLLM3] = {llama_names, llama_prefixes, "layers", false, false},
    [DIL_FAMILY_GPT2] = {gpt2_names, gpt2_prefixes, "h", true, false},
    [DIL_FAMILY_GEMMA2] = {gemma_names, gemma_prefixes, "layers", false, true},
    [DIL_FAMILY_GEMMA3] = {gemma_names, gemma_prefixes, "layers", false, true},
    [DIL_FAMILY_PHI3] = {phi_names, llama_prefixes, "layers", false, false},
};

static const char *base_of(const import *im, const char *role, size_t len)
{
    for (const role_name *n = im->naming->names; n->role; n++) {
        if (strlen(n->role) == len && memcmp(n->role, role, len) == 0) return n->base;
    }
    return NULL;
}

static void table_name(const import *im, const char *prefix, char out[96])
{
    snprintf(out, 96, "%s%s.weight", prefix, base_of(im, "token_embd", 10));
}

static dil_status find_prefix(import *im)
{
    im->naming = &namings[im->config.arch.family];
    char table[96] = "";
    for (const char *const *p = im->naming->prefixes; *p; p++) {
        table_name(im, *p, table);
        if (!dil__ckpt_find(&im->ckpt, table)) continue;
        im->prefix = *p;
        return DIL_OK;
    }
    return dil_fail(im->err, DIL_EFORMAT, "%s: the weights hold no %s under a name that %s models use", im->dir, table, im->config.arch.name);
}

/* The checkpoint's name of a tensor of planner layer `layer`. */
static void source_name(const import *im, uint32_t layer, const dil_layer_tensor *t, char out[128])
{
    bool block = layer > 0 && layer <= im->config.arch.n_blocks;
    size_t role_len = strcspn(t->role, ".");
    const char *suffix = t->role[role_len] ? "bias" : "weight", *base = base_of(im, t->role, role_len);
    if (!base) snprintf(out, 128, "(%s)", t->role);
    else if (block) snprintf(out, 128, "%s%s.%u.%s.%s", im->prefix, im->naming->blocks, layer - 1, base, suffix);
    else snprintf(out, 128, "%s%s.%s", strcmp(base, "lm_head") == 0 ? "" : im->prefix, base, suffix);
}

/* --- finding and checking ------------------------------------------------------------------------------------------ */

static dil_status check_shape(const import *im, const dil__ckpt_tensor *src, const dil_layer_tensor *want, bool turned)
{
    bool matrix = want->ne[1] != 1 || want->linear || strcmp(want->role, "position_embd") == 0;
    uint64_t rows = !matrix ? 1 : turned ? want->ne[0] : want->ne[1], cols = turned ? want->ne[1] : want->ne[0];
    bool same = matrix ? src->n_dims == 2 && src->shape[0] == rows && src->shape[1] == cols : src->n_dims == 1 && src->shape[0] == cols;
    if (!same)
        return dil_fail(im->err, DIL_EFORMAT, "%s: %s has %u dimensions, %" PRIu64 " x %" PRIu64 "; config.json implies %" PRIu64 " x %" PRIu64, src->file,
                        src->name, src->n_dims, src->shape[0], src->shape[1], matrix ? rows : cols, matrix ? cols : 1);
    if (src->type < 0)
        return dil_fail(im->err, DIL_EUNSUPPORTED, "%s: %s is stored as %s; weights are read from F32, F16 and BF16", src->file, src->name, src->type_name);
    return DIL_OK;
}

static bool is_role(const dil_layer_tensor *t, const char *role)
{
    size_t n = strlen(role);
    return strncmp(t->role, role, n) == 0 && (t->role[n] == 0 || t->role[n] == '.');
}

static dil_status find_source(import *im, uint32_t layer, const dil_layer_tensor *want, item *it)
{
    if (strncmp(want->role, "rope_f", 6) == 0) {
        it->values = is_role(want, "rope_factors_long") ? im->config.long_factor : is_role(want, "rope_factors_short") ? im->config.short_factor : im->rope_freqs;
        return DIL_OK;
    }
    char name[128];
    source_name(im, layer, want, name);
    dil__ckpt_tensor *src = dil__ckpt_find(&im->ckpt, name);
    bool norm = strstr(want->role, "_norm") != NULL, block = layer > 0 && layer <= im->config.arch.n_blocks;
    if (!src && norm && !im->config.norm_affine) {
        it->fill = strchr(want->role, '.') ? 0 : 1;
        return DIL_OK;
    }
    if (!src && im->config.text_only && is_role(want, "output")) { /* beside the language model there */
        snprintf(name, sizeof name, "language_model.lm_head.weight");
        src = dil__ckpt_find(&im->ckpt, name);
    }
    if (!src) return dil_fail(im->err, DIL_EFORMAT, "%s: the weights hold no %s", im->dir, name);
    src->used = true;
    it->src = src;
    it->more = norm && im->naming->norms_are_off ? 1 : 0;
    it->turned = im->naming->turned && block && want->linear;
    if ((is_role(want, "attn_q") || is_role(want, "attn_k")) && im->config.arch.positions == DIL_POS_ROPE_NORM) it->head_dim = im->config.arch.head_dim;
    return check_shape(im, src, want, it->turned);
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
    static const char *const pictures[] = {"vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector."};
    if (im->config.arch.tied_head && (strcmp(name, "lm_head.weight") == 0 || strcmp(name, "language_model.lm_head.weight") == 0)) return true;
    for (size_t i = 0; im->config.text_only && i < sizeof pictures / sizeof *pictures; i++) {
        if (strncmp(name, pictures[i], strlen(pictures[i])) == 0) return true;
    }
    size_t len = strlen(name); /* GPT-2's triangle of the causal mask */
    if (im->config.arch.family == DIL_FAMILY_GPT2 && len > 10 && strcmp(name + len - 10, ".attn.bias") == 0) return true;
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

/* n elements of the file's order of the source, from element `from` on, appended to v; without a source `values` or `fill`. */
static void gather(const item *it, uint64_t from, size_t n, float *v)
{
    if (!it->src) {
        for (size_t i = 0; i < n; i++) v[i] = it->values ? it->values[from + i] : it->fill;
        return;
    }
    size_t size = it->src->type == DIL_TYPE_F32 ? 4 : 2;
    uint64_t cols = it->out.ne[0], rows = it->out.ne[1];
    if (!it->turned) to_float(it->src->type, it->src->data + from * size, n, v);
    for (size_t i = 0; it->turned && i < n; i++) {
        uint64_t row = (from + i) / cols, col = (from + i) % cols;
        to_float(it->src->type, it->src->data + (col * rows + row) * size, 1, v + i);
    }
    for (size_t i = 0; it->more > 0 && i < n; i++) v[i] += it->more;
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
    if (it->src && it->src->type == it->out.type && it->head_dim == 0 && !it->turned && !(it->more > 0)) return write_same(im, it, elems);
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
    char name[96];
    table_name(im, im->prefix, name);
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
    if (s == DIL_OK && im->config.text_only)
        dil_log(DIL_LOG_WARN, "import", "%s: the language model alone is imported; it will not see pictures", im->dir);
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
