/* dilemma info: what a GGUF file holds, for people or as JSON. */
#include "cli/cli.h"

#include "base/json.h"

#include <dilemma/arch.h>

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

typedef struct options {
    bool as_json, full, hash, tensors;
} options;

enum { SHORT_ARRAY = 8 };

/* Text that is not UTF-8 (a token may be half a character) becomes null. */
static json_t *text_value(const char *s, size_t len)
{
    json_t *v = json_stringn(s, len);
    return v ? v : json_null();
}

static json_t *element(const dil_gguf_kv *kv, uint64_t i)
{
    const char *s;
    size_t len;
    int64_t n;
    double d;
    if (dil_gguf_arr_str(kv, i, &s, &len)) return text_value(s, len);
    if (kv->elem_kind == DIL_GGUF_BOOL) return json_boolean(((const uint8_t *)kv->data)[i] != 0);
    if (dil_gguf_arr_int(kv, i, &n)) return json_integer(n);
    return dil_gguf_arr_num(kv, i, &d) ? json_real(d) : json_null();
}

static json_t *kv_value(const dil_gguf *g, const dil_gguf_kv *kv, bool full)
{
    const char *s;
    size_t len;
    int64_t n;
    double d;
    bool b;
    if (dil_gguf_get_str(g, kv->key, &s, &len)) return text_value(s, len);
    if (dil_gguf_get_bool(g, kv->key, &b)) return json_boolean(b);
    if (dil_gguf_get_int(g, kv->key, &n)) return json_integer(n);
    if (dil_gguf_get_num(g, kv->key, &d)) return json_real(d);
    if (kv->kind != DIL_GGUF_ARRAY) return json_null(); /* an unsigned number beyond 2^63 */
    if (!full && kv->n > SHORT_ARRAY) return json_pack("{s:I}", "elements", (json_int_t)kv->n);
    json_t *list = json_array();
    for (uint64_t i = 0; i < kv->n; i++) json_array_append_new(list, element(kv, i));
    return list;
}

static json_t *tensor_value(const dil_tensor *t, bool hash)
{
    json_t *ne = json_array();
    for (uint32_t d = 0; d < t->n_dims; d++) json_array_append_new(ne, json_integer((json_int_t)t->ne[d]));
    json_t *o = json_pack("{s:s, s:s, s:o, s:I}", "name", t->name, "type", dil_type_get(t->type)->name, "ne", ne, "bytes", (json_int_t)t->bytes);
    if (hash) {
        char hex[2 * DIL_HASH_BYTES + 1];
        dil_hash h = dil_hash_of(t->data, (size_t)t->bytes);
        dil_hash_hex(&h, hex);
        json_object_set_new(o, "blake2b", json_string(hex));
    }
    return o;
}

/* Seven digits are what F32 metadata has. */
static int print_json(const dil_gguf *g, const dil_arch *a, const options *opt)
{
    uint64_t bytes, params;
    double ratio = dil_gguf_ratio_to_fp32(g, &bytes, &params);
    json_t *meta = json_object(), *tensors = json_array();
    for (size_t i = 0; i < dil_gguf_n_kv(g); i++) {
        const dil_gguf_kv *kv = dil_gguf_kv_at(g, i);
        json_object_set_new(meta, kv->key, kv_value(g, kv, opt->full));
    }
    for (size_t i = 0; i < dil_gguf_n_tensors(g); i++) json_array_append_new(tensors, tensor_value(dil_gguf_tensor_at(g, i), opt->hash));
    json_t *doc = json_pack("{s:s, s:s?, s:I, s:I, s:f, s:f, s:o, s:o}", "path", dil_gguf_path(g), "arch", a ? a->name : NULL, "n_params",
                            (json_int_t)params, "bytes", (json_int_t)bytes, "bits_per_weight", ratio * 32, "ratio_to_fp32", ratio, "metadata", meta,
                            "tensors", tensors);
    int failed = json_dumpf(doc, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(doc);
    return failed ? dil_status_exit(DIL_EIO) : 0;
}

static void print_types(const dil_gguf *g)
{
    uint64_t bytes[DIL_TYPE_LIMIT] = {0}, count[DIL_TYPE_LIMIT] = {0};
    for (size_t i = 0; i < dil_gguf_n_tensors(g); i++) {
        const dil_tensor *t = dil_gguf_tensor_at(g, i);
        bytes[t->type] += t->bytes;
        count[t->type]++;
    }
    for (dil_type t = 0; t < DIL_TYPE_LIMIT; t++) {
        char size[32];
        if (count[t]) printf("  %-8s %5" PRIu64 " tensors  %s\n", dil_type_get(t)->name, count[t], dil_format_bytes(bytes[t], size));
    }
}

static void print_text(const dil_gguf *g, const dil_arch *a, const dil_err *err, const options *opt)
{
    uint64_t bytes, params;
    double ratio = dil_gguf_ratio_to_fp32(g, &bytes, &params);
    char size[32];
    printf("%s\n", dil_gguf_path(g));
    if (a) {
        printf("  %s: %u blocks, width %u, FFN %u, %u heads (%u for keys and values) of %u, vocabulary %u, context %u, %s head\n", a->name,
               a->n_blocks, a->n_embd, a->n_ff, a->n_head, a->n_head_kv, a->head_dim, a->n_vocab, a->n_ctx_train, a->tied_head ? "tied" : "own");
    } else {
        printf("  cannot be run: %s\n", err->text);
    }
    printf("  %" PRIu64 " parameters, %s, %.3f bits a weight, %.2f %% of fp32\n", params, dil_format_bytes(bytes, size), ratio * 32, ratio * 100);
    print_types(g);
    for (size_t i = 0; opt->tensors && i < dil_gguf_n_tensors(g); i++) {
        const dil_tensor *t = dil_gguf_tensor_at(g, i);
        printf("  %-40s %-8s %" PRIu64 " x %" PRIu64 "\n", t->name, dil_type_get(t->type)->name, t->ne[0], t->ne[1] * t->ne[2] * t->ne[3]);
    }
}

static int run(int argc, char **argv)
{
    options o = {0};
    const dil_cli_opt opts[] = {
        {.name = "--tensors", .kind = DIL_CLI_FLAG, .out = &o.tensors, .help = "a line for every tensor"},
        {.name = "--json", .kind = DIL_CLI_FLAG, .out = &o.as_json, .help = "everything, as JSON; arrays longer than 8 by their length alone"},
        {.name = "--full", .kind = DIL_CLI_FLAG, .out = &o.full, .help = "with --json: arrays in full"},
        {.name = "--hash", .kind = DIL_CLI_FLAG, .out = &o.hash, .help = "with --json: BLAKE2b-256 of every tensor's bytes"},
        DIL_CLI_END};
    dil_cli_list file = {0};
    int status = dil_cli_parse(argc, argv, "MODEL.gguf [options]", "Tells what a GGUF file holds.", opts, &file, 1, 1);
    if (status >= 0) return status;
    dil_gguf *g;
    dil_err err;
    if (dil_gguf_open(file.item[0], &g, &err) != DIL_OK) return dil_cli_fail("info", &err);
    dil_arch arch;
    bool known = dil_arch_read(g, &arch, &err) == DIL_OK;
    if (o.as_json) status = print_json(g, known ? &arch : NULL, &o);
    else print_text(g, known ? &arch : NULL, &err, &o);
    dil_gguf_close(g);
    return status < 0 ? 0 : status;
}

const dil_cli_cmd dil_cli_info = {"info", "what a GGUF file holds", run};
