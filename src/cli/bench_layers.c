/* Where the time goes: each kind of layer measured by itself, as `profile` measures it, and their sum beside the whole model. */
#include "cli/bench_layers.h"

#include "cli/cli.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct kind { /* layers that compute the same: place and types */
    char name[24];
    uint32_t layer, count;
    dil_type type[DIL_LAYER_TENSORS_MAX];
    size_t n_types;
    dil_layer_time time;
} kind;

struct dil_cli_bench_layers {
    kind *kind;
    size_t n;
};

static size_t types_of(const dil_cli_model *m, uint32_t layer, dil_type *type)
{
    dil_layer_tensor t[DIL_LAYER_TENSORS_MAX];
    size_t n = dil_arch_layer_tensors(&m->arch, layer, t);
    for (size_t i = 0; i < n; i++) {
        const dil_tensor *w = dil_weights_find(&m->weights, t[i].name);
        type[i] = w ? w->type : DIL_TYPE_F32;
    }
    return n;
}

static bool same_place(const dil_arch *a, uint32_t x, uint32_t y)
{
    bool block_x = x > 0 && x <= a->n_blocks, block_y = y > 0 && y <= a->n_blocks;
    return x == y || (block_x && block_y);
}

static void add_layer(dil_cli_bench_layers *b, const dil_cli_model *m, uint32_t layer)
{
    dil_type type[DIL_LAYER_TENSORS_MAX];
    size_t n = types_of(m, layer, type);
    for (size_t i = 0; i < b->n; i++) {
        kind *k = &b->kind[i];
        if (same_place(&m->arch, k->layer, layer) && k->n_types == n && memcmp(k->type, type, n * sizeof *type) == 0) {
            k->count++;
            return;
        }
    }
    kind *k = &b->kind[b->n++];
    *k = (kind){.layer = layer, .count = 1, .n_types = n};
    memcpy(k->type, type, n * sizeof *type);
    if (layer == 0) snprintf(k->name, sizeof k->name, "embedding");
    else if (layer > m->arch.n_blocks) snprintf(k->name, sizeof k->name, "head");
    else snprintf(k->name, sizeof k->name, "block %u", layer - 1);
}

dil_status dil_cli_bench_layers_run(const dil_cli_model *m, const char *device, int threads, uint32_t n_past, uint32_t n_batch, dil_cli_bench_layers **out, dil_err *err)
{
    uint32_t n_layers = dil_arch_n_layers(&m->arch);
    dil_cli_bench_layers *b = calloc(1, sizeof *b);
    if (b) b->kind = calloc(n_layers, sizeof *b->kind);
    if (!b || !b->kind) {
        free(b);
        return dil_fail(err, DIL_EMEMORY, "no memory for %u layers", n_layers);
    }
    for (uint32_t l = 0; l < n_layers; l++) add_layer(b, m, l);
    dil_status s = DIL_OK;
    for (size_t i = 0; i < b->n && s == DIL_OK; i++) {
        if (!dil_progress_step(dil_cli_progress(), "layers", (double)i, (double)b->n)) s = dil_fail(err, DIL_ECANCELED, "canceled");
        else s = dil_engine_time_layer(&m->arch, b->kind[i].layer, b->kind[i].type, device, threads, n_past, n_batch, 4, &b->kind[i].time, err);
    }
    dil_cli_progress_done();
    if (s == DIL_OK) *out = b;
    else dil_cli_bench_layers_free(b);
    return s;
}

void dil_cli_bench_layers_free(dil_cli_bench_layers *b)
{
    if (b) free(b->kind);
    free(b);
}

double dil_cli_bench_layers_sum(const dil_cli_bench_layers *b)
{
    double sum = 0;
    for (size_t i = 0; i < b->n; i++) sum += b->kind[i].count * b->kind[i].time.decode_sec;
    return sum;
}

json_t *dil_cli_bench_layers_json(const dil_cli_bench_layers *b, double token_sec)
{
    json_t *list = json_array();
    for (size_t i = 0; i < b->n; i++)
        json_array_append_new(list, json_pack("{s:s,s:i,s:i,s:f,s:f}", "name", b->kind[i].name, "first_layer", (int)b->kind[i].layer, "count", (int)b->kind[i].count,
                                              "decode_sec", b->kind[i].time.decode_sec, "prefill_sec", b->kind[i].time.prefill_sec));
    double sum = dil_cli_bench_layers_sum(b);
    return json_pack("{s:o,s:f,s:o}", "kinds", list, "decode_sec", sum, "of_whole", token_sec > 0 ? json_real(sum / token_sec) : json_null());
}

void dil_cli_bench_layers_print(const dil_cli_bench_layers *b, double token_sec)
{
    double sum = dil_cli_bench_layers_sum(b);
    printf("\n%-14s %6s %14s %8s\n", "layer", "count", "decode ms each", "share");
    for (size_t i = 0; i < b->n; i++)
        printf("%-14s %6u %14.4f %6.1f %%\n", b->kind[i].name, b->kind[i].count, 1e3 * b->kind[i].time.decode_sec, 100 * b->kind[i].count * b->kind[i].time.decode_sec / sum);
    printf("%-14s %6s %14.4f", "sum", "", 1e3 * sum);
    if (token_sec > 0) printf("  of %.4f ms the whole model takes (%.3f)", 1e3 * token_sec, sum / token_sec);
    putchar('\n');
}
