/* dilemma bench: tokens a second of prefill and of decoding, as llama-bench defines them: prefill of -p random tokens into an
 * empty context, decoding of -n single tokens from an empty context, one warm-up before each series. */
#include "base/json.h"
#include "cli/bench_layers.h"
#include "cli/cli.h"
#include "cli/model.h"

#include <stdlib.h>
#include <string.h>

#define THREAD_COUNTS_MAX 32
#define REPEATS_MAX 1000

typedef struct bench {
    dil_cli_model model;
    const char *device;
    uint32_t n_prompt, n_decode, n_repeats, batch;
    bool layers;
    int32_t *token, *pos;
    float *logits;
} bench;

typedef struct result {
    int threads;
    double prefill[REPEATS_MAX], decode[REPEATS_MAX];
    dil_cli_spread pp, tg;
    dil_cli_bench_layers *layers; /* NULL: not asked for */
} result;

static dil_status feed(const bench *b, dil_stage *s, uint32_t n, uint32_t step, dil_err *err)
{
    dil_stage_seq_trim(s, 0, 0);
    for (uint32_t at = 0; at < n; at += step) {
        uint32_t now = n - at < step ? n - at : step;
        dil_batch batch = {.n_tokens = now, .token = b->token + at, .pos = b->pos + at};
        dil_status status = dil_stage_eval(s, &batch, NULL, b->logits, err);
        if (status) return status;
    }
    return DIL_OK;
}

/* Tokens a second of n tokens in steps, n_repeats times. */
static dil_status series(const bench *b, dil_stage *s, const char *what, uint32_t n, uint32_t step, double *out, dil_err *err)
{
    for (uint32_t r = 0; r <= b->n_repeats; r++) {
        if (!dil_progress_step(dil_cli_progress(), what, r, b->n_repeats + 1)) return dil_fail(err, DIL_ECANCELED, "canceled");
        int64_t start = dil_now_ns();
        dil_status status = feed(b, s, r == 0 && step == 1 && n > 4 ? 4 : n, step, err);
        if (status) return status;
        if (r > 0) out[r - 1] = n * 1e9 / (double)(dil_now_ns() - start);
    }
    return DIL_OK;
}

static dil_status run_threads(const bench *b, result *r, dil_err *err)
{
    dil_stage_opts o = dil_cli_whole(&b->model);
    o.device = b->device;
    o.n_threads = r->threads;
    o.max_batch = b->batch;
    o.n_ctx = b->n_prompt > b->n_decode ? b->n_prompt : b->n_decode;
    dil_stage *s;
    dil_status status = dil_stage_open(&b->model.arch, &b->model.weights, &o, dil_cli_progress(), &s, err);
    if (status) return status;
    char what[64];
    snprintf(what, sizeof what, "prefill, %d threads", r->threads);
    if (b->n_prompt) status = series(b, s, what, b->n_prompt, b->batch, r->prefill, err);
    snprintf(what, sizeof what, "decode, %d threads", r->threads);
    if (!status && b->n_decode) status = series(b, s, what, b->n_decode, 1, r->decode, err);
    dil_stage_close(s);
    dil_cli_progress_done();
    if (!status && b->layers) status = dil_cli_bench_layers_run(&b->model, b->device, r->threads, b->n_decode / 2, b->batch, &r->layers, err);
    return status;
}

static json_t *as_json(double *runs, uint32_t n, dil_cli_spread *out)
{
    if (n == 0) return json_null();
    json_t *list = json_array();
    for (uint32_t i = 0; i < n; i++) json_array_append_new(list, json_real(runs[i]));
    *out = dil_cli_median(runs, n);
    return json_pack("{s:f,s:f,s:o}", "median", out->median, "spread", out->spread, "runs", list);
}

static double token_sec(const bench *b, const result *r)
{
    return b->n_decode ? 1 / r->tg.median : 0;
}

static json_t *report(bench *b, const char *path, result *r, size_t n)
{
    uint64_t bytes, params;
    dil_gguf_ratio_to_fp32(b->model.file, &bytes, &params);
    json_t *results = json_array();
    for (size_t i = 0; i < n; i++) {
        json_t *pp = as_json(r[i].prefill, b->n_prompt ? b->n_repeats : 0, &r[i].pp);
        json_t *tg = as_json(r[i].decode, b->n_decode ? b->n_repeats : 0, &r[i].tg);
        json_t *one = json_pack("{s:i,s:o,s:o}", "threads", r[i].threads, "pp_tok_sec", pp, "tg_tok_sec", tg);
        if (r[i].layers) json_object_set_new(one, "layers", dil_cli_bench_layers_json(r[i].layers, token_sec(b, &r[i])));
        json_array_append_new(results, one);
    }
    return json_pack("{s:i,s:s,s:I,s:I,s:s,s:I,s:I,s:I,s:o}", "version", 1, "model", path, "bytes", (json_int_t)bytes, "n_params",
                     (json_int_t)params, "device", b->device ? b->device : "CPU", "n_prompt", (json_int_t)b->n_prompt, "n_decode",
                     (json_int_t)b->n_decode, "repeats", (json_int_t)b->n_repeats, "results", results);
}

static void print_table(const bench *b, const result *r, size_t n)
{
    printf("%-8s  %20s  %20s\n", "threads", "prefill tok/s", "decode tok/s");
    for (size_t i = 0; i < n; i++) {
        char pp[32] = "-", tg[32] = "-";
        if (b->n_prompt) snprintf(pp, sizeof pp, "%.1f (%.0f %%)", r[i].pp.median, r[i].pp.spread * 100);
        if (b->n_decode) snprintf(tg, sizeof tg, "%.1f (%.0f %%)", r[i].tg.median, r[i].tg.spread * 100);
        printf("%-8d  %20s  %20s\n", r[i].threads, pp, tg);
        if (r[i].layers) dil_cli_bench_layers_print(r[i].layers, token_sec(b, &r[i]));
    }
}

/* "1,2,4"; 0 when it is not such a list. */
static size_t parse_threads(const char *text, int out[THREAD_COUNTS_MAX])
{
    size_t n = 0;
    while (n < THREAD_COUNTS_MAX) {
        char *end;
        long v = strtol(text, &end, 10);
        if (end == text || v < 1 || v > 512) return 0;
        out[n++] = (int)v;
        if (*end == 0) return n;
        if (*end != ',') return 0;
        text = end + 1;
    }
    return 0;
}

static dil_status prepare(bench *b, dil_err *err)
{
    uint32_t n = b->n_prompt > b->n_decode ? b->n_prompt : b->n_decode;
    b->token = calloc(n, sizeof *b->token);
    b->pos = calloc(n, sizeof *b->pos);
    b->logits = calloc(b->model.arch.n_vocab, sizeof *b->logits);
    if (!b->token || !b->pos || !b->logits) return dil_fail(err, DIL_EMEMORY, "no memory for %u tokens", n);
    dil_rng rng;
    dil_rng_init(&rng, 1);
    for (uint32_t i = 0; i < n; i++) {
        b->token[i] = (int32_t)dil_rng_below(&rng, b->model.arch.n_vocab);
        b->pos[i] = (int32_t)i;
    }
    return DIL_OK;
}

static dil_status measure(bench *b, const char *path, const int *threads, size_t n, result *r, bool as_text, dil_err *err)
{
    dil_status status = dil_cli_model_open(path, &b->model, err);
    if (!status) status = prepare(b, err);
    for (size_t i = 0; !status && i < n; i++) {
        r[i].threads = threads[i];
        status = run_threads(b, &r[i], err);
    }
    if (status) return status;
    json_t *doc = report(b, path, r, n);
    if (as_text) print_table(b, r, n);
    else status = dil__json_save("-", doc, err);
    json_decref(doc);
    return status;
}

static int run(int argc, char **argv)
{
    int64_t n_prompt = 512, n_decode = 128, repeats = 5, batch = 512;
    const char *threads = NULL;
    bool json = false;
    bench b = {0};
    const dil_cli_opt opts[] = {
        {NULL, 'p', DIL_CLI_INT, &n_prompt, "N", "prompt tokens; 0: no prefill (default 512)", 0, 1 << 20, NULL},
        {NULL, 'n', DIL_CLI_INT, &n_decode, "N", "decoded tokens; 0: no decoding (default 128)", 0, 1 << 20, NULL},
        {"--threads", 't', DIL_CLI_STR, &threads, "N,N", "thread counts to measure (default: all CPUs at hand)", 0, 0, NULL},
        {"--repeats", 'r', DIL_CLI_INT, &repeats, "N", "measurements of each (default 5)", 1, REPEATS_MAX, NULL},
        {"--batch", 'b', DIL_CLI_INT, &batch, "N", "prompt tokens at once (default 512)", 1, 8192, NULL},
        {"--device", 0, DIL_CLI_STR, &b.device, "NAME", "where to compute (default CPU)", 0, 0, NULL},
        {"--layers", 0, DIL_CLI_FLAG, &b.layers, NULL, "each kind of layer by itself, and their sum beside the whole model", 0, 0, NULL},
        {"--json", 0, DIL_CLI_FLAG, &json, NULL, "machine-readable result on standard output", 0, 0, NULL},
        DIL_CLI_END};
    dil_cli_list pos = {0};
    int status = dil_cli_parse(argc, argv, "MODEL [-p 512] [-n 128] [-t 1,2] [-r REPEATS] [--json]",
                               "Measures tokens a second of prefill and of decoding: median, and in brackets the spread\n"
                               "(third quartile - first quartile) / median.", opts, &pos, 1, 1);
    if (status >= 0) return status;
    int list[THREAD_COUNTS_MAX] = {dil_cpu_count()};
    size_t n = threads ? parse_threads(threads, list) : 1;
    if (n == 0) return dil_cli_usage("bench: -t wants counts such as 1,2,4, not '%s'", threads);
    if (n_prompt == 0 && n_decode == 0) return dil_cli_usage("bench: nothing to measure with -p 0 -n 0");
    b.n_prompt = (uint32_t)n_prompt;
    b.n_decode = (uint32_t)n_decode;
    b.n_repeats = (uint32_t)repeats;
    b.batch = (uint32_t)batch;
    dil_err err = {0};
    result *r = calloc(n, sizeof *r);
    dil_status s = r ? measure(&b, pos.item[0], list, n, r, !json, &err) : dil_fail(&err, DIL_EMEMORY, "no memory");
    for (size_t i = 0; r && i < n; i++) dil_cli_bench_layers_free(r[i].layers);
    free(r);
    free(b.token);
    free(b.pos);
    free(b.logits);
    dil_cli_model_close(&b.model);
    return s ? dil_cli_fail("bench", &err) : 0;
}

const dil_cli_cmd dil_cli_bench = {"bench", "tokens a second of a model on this machine", run};
