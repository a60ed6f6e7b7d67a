/* The course of a profile: calibrate, run the reference, find levels, measure damage and seconds, write. Each part asks the journal
 * before it measures. */
#include "quant/profiler.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CONTEXT = 2048 };

dil_profiler_opts dil_profiler_defaults(void)
{
    return (dil_profiler_opts){.calib_tokens = 8192, .n_ctx = 384, .n_chunks = 3, .sequences = 1, .batch = 512,
                               .n_past = 256, .time_limit_sec = 0.5};
}

static dil_status hash_file(const char *path, dil_hash *out, dil_err *err)
{
    dil_map map;
    dil_status st = dil_map_open(path, &map, err);
    if (st != DIL_OK) return st;
    *out = dil_hash_of(map.data, map.len);
    dil_map_close(&map);
    return DIL_OK;
}

/* A model with learned positions has no more than those. */
static dil_status settle_context(dil__profiler *p, dil_err *err)
{
    uint32_t most = p->arch.positions == DIL_POS_LEARNED ? p->arch.n_ctx_train : UINT32_MAX;
    if (p->opts.context == 0) p->opts.context = most < CONTEXT ? most : CONTEXT;
    if (p->opts.context <= most) return DIL_OK;
    return dil_fail(err, DIL_ELIMIT, "%s: a context of %u, the model has learned %u positions", p->o->model, p->o->context, most);
}

static dil_status open_model(dil__profiler *p, dil_err *err)
{
    dil_status st = dil_gguf_open(p->o->model, &p->g, err);
    if (st == DIL_OK) st = dil_arch_read(p->g, &p->arch, err);
    if (st == DIL_OK) st = dil_tokenizer_new(p->g, &p->tok, err);
    if (st == DIL_OK) st = hash_file(p->o->model, &p->hash, err);
    if (st != DIL_OK) return st;
    p->weights = dil_gguf_weights(p->g);
    p->n_layers = dil_arch_n_layers(&p->arch);
    return settle_context(p, err);
}

static dil_status open_journal(dil__profiler *p, dil_err *err)
{
    char path[4096], hex[2 * DIL_HASH_BYTES + 1], header[512];
    if (snprintf(path, sizeof path, "%s.part", p->o->out) >= (int)sizeof path) return dil_fail(err, DIL_ELIMIT, "-o: the path is too long");
    dil_hash data = dil_hash_of(p->ids.id, p->ids.n * sizeof *p->ids.id);
    dil_hash_hex(&data, hex);
    int n = snprintf(header, sizeof header, "dilemma-profile-1 data=%.32s", hex);
    dil_hash_hex(&p->hash, hex);
    snprintf(header + n, sizeof header - (size_t)n, " feedback=%d model=%.32s calib=%u chunks=%ux%u context=%u batch=%u past=%u", p->feedback, hex,
             p->o->calib_tokens, p->o->n_chunks, p->o->n_ctx, p->o->context, p->o->batch, p->o->n_past);
    dil_status st = dil__journal_open(path, header, p->o->resume, &p->journal, err);
    if (st == DIL_OK && dil__journal_count(p->journal) > 0)
        dil_log(DIL_LOG_INFO, "profile", "going on after %zu measurements", dil__journal_count(p->journal));
    return st;
}

/* Importance is gathered on the beginning of the text; what follows is kept apart, at least what damage is measured on and up to HELD_CHUNKS of a
 * long text, for the students that come later to be judged on. */
enum { HELD_CHUNKS = 12, HELD_SHARE = 5, FEEDBACK_CHUNKS = 4 };

/* Error feedback wants some text of its own and the model in floats. Takes the tokens over. */
static void keep_calibration(dil__profiler *p, dil_ids *all, size_t n)
{
    p->calib = (dil_ids){all->id, n - n % p->o->n_ctx};
    *all = (dil_ids){0};
    p->feedback = p->feedback && p->calib.n >= (size_t)FEEDBACK_CHUNKS * p->o->n_ctx;
    for (size_t i = 0; dil_tokenizer_adds_bos(p->tok) && i < p->calib.n; i += p->o->n_ctx) p->calib.id[i] = dil_tokenizer_bos(p->tok);
}

static dil_status calibrate(dil__profiler *p, dil_err *err)
{
    const dil_profiler_opts *o = p->o;
    size_t need = (size_t)o->n_ctx * o->n_chunks, most = (size_t)o->n_ctx * (o->n_chunks > HELD_CHUNKS ? o->n_chunks : HELD_CHUNKS);
    dil_ids all;
    dil_status st = dil__calib_tokens(p->tok, o->data, o->format, need, o->calib_tokens + HELD_SHARE * most, &all, err);
    if (st != DIL_OK) return st;
    size_t held = all.n / HELD_SHARE;
    held = held < need ? need : held > most ? most : held - held % o->n_ctx;
    size_t before = all.n - held < o->calib_tokens ? all.n - held : o->calib_tokens;
    p->held_from = before;
    p->held_to = before + held;
    all.n = p->held_to;
    p->ids.id = malloc(need * sizeof *p->ids.id);
    if (!p->ids.id) st = dil_fail(err, DIL_EMEMORY, "out of memory");
    if (st == DIL_OK) {
        p->ids.n = need;
        memcpy(p->ids.id, all.id + before, need * sizeof *p->ids.id);
        if (dil_tokenizer_adds_bos(p->tok))
            for (uint32_t k = 0; k < o->n_chunks; k++) p->ids.id[(size_t)k * o->n_ctx] = dil_tokenizer_bos(p->tok);
        st = open_journal(p, err);
    }
    double done;
    if (st == DIL_OK && dil__journal_get(p->journal, "imatrix", &done, 1) && dil_file_exists(p->imatrix_path)) {
        st = dil__imatrix_load(p->imatrix_path, &p->imatrix, err);
    } else if (st == DIL_OK) {
        if (before < need) {
            dil_log(DIL_LOG_WARN, "profile", "only %zu tokens: importance and damage are measured on the same text", all.n);
            before = all.n;
        }
        dil_ids some = {all.id, before};
        st = dil__imatrix_gather(o->model, &some, o->n_ctx, NULL, o->n_threads, p->progress, &p->imatrix, err);
        if (st == DIL_OK) st = dil__imatrix_save(p->imatrix, p->imatrix_path, o->data, err);
        done = (double)before;
        if (st == DIL_OK) st = dil__journal_put(p->journal, "imatrix", &done, 1, err);
    }
    if (st == DIL_OK) keep_calibration(p, &all, (size_t)p->held_from);
    dil_ids_fini(&all);
    return st;
}

static dil_status run(dil__profiler *p, dil_err *err)
{
    dil_status st = open_model(p, err);
    p->feedback = st == DIL_OK && p->o->method && strcmp(p->o->method, "rtn") != 0 && dil_arch_n_params(&p->arch) <= DIL__FLOATS_PARAMS;
    if (st == DIL_OK) st = calibrate(p, err);
    dil__chain_opts co = {.n_threads = p->o->n_threads, .n_ctx = p->o->n_ctx, .n_chunks = p->o->n_chunks};
    if (st == DIL_OK) co.floats = dil_arch_n_params(&p->arch) <= DIL__FLOATS_PARAMS;
    if (st == DIL_OK) st = dil__chain_open(&p->arch, &p->weights, &co, p->ids.id, p->progress, &p->chain, err);
    if (st == DIL_OK) p->feedback = p->feedback && dil__chain_decoder(p->chain);
    if (st == DIL_OK) st = dil__profiler_design(p, err);
    if (st == DIL_OK) st = dil__profiler_damage(p, err);
    if (st == DIL_OK) st = dil__profiler_run(p, err);
    if (st == DIL_OK) st = dil__profiler_time(p, err);
    if (st == DIL_OK) st = dil__profiler_write(p, err);
    return st;
}

static void fill_report(const dil__profiler *p, dil_profiler_report *r)
{
    *r = (dil_profiler_report){.n_levels = (uint32_t)p->kind[DIL__BLOCK].n_levels, .n_measured_kl = p->n_measured,
                               .n_interpolated_kl = p->n_interpolated, .tokens = dil__chain_tokens(p->chain),
                               .baseline_loss = dil__chain_loss(p->chain), .kl_to_loss = p->kl_to_loss, .n_checks = p->n_checks};
    for (uint32_t i = 0; i < p->n_checks; i++) {
        memcpy(r->check[i].level, p->check_level[i], sizeof r->check[i].level);
        r->check[i].predicted_kl = p->check[i][0];
        r->check[i].measured_kl = p->check[i][1];
        r->check[i].loss_increase = p->check[i][2];
    }
}

static void fini(dil__profiler *p, bool done)
{
    for (size_t i = 0; i < DIL__KINDS; i++) {
        free(p->kind[i].decode_sec);
        free(p->kind[i].prefill_sec);
        free(p->kind[i].decode_sec_per_cached);
        free(p->kind[i].pass_sec);
    }
    if (done) dil__journal_remove(p->journal);
    else dil__journal_close(p->journal);
    dil__chain_free(p->chain);
    for (size_t i = 0; i < DIL__CHECKS; i++) {
        for (uint32_t l = 0; p->check_weights[i] && l < p->n_layers; l++) dil__variant_fini(&p->check_weights[i][l]);
        free(p->check_weights[i]);
    }
    dil__imatrix_free(p->imatrix);
    dil__inputs_free(p->inputs);
    dil_ids_fini(&p->calib);
    dil_ids_fini(&p->ids);
    dil_tokenizer_free(p->tok);
    dil_gguf_close(p->g);
    free(p->imatrix_path);
    free(p->kl);
    free(p->weight);
    free(p);
}

dil_status dil_profiler_run(const dil_profiler_opts *opts, const dil_progress *progress, dil_profiler_report *report, dil_err *err)
{
    if (opts->n_ctx <= 2 * DIL__CHAIN_SKIP || opts->n_chunks == 0)
        return dil_fail(err, DIL_EUSAGE, "damage is measured on chunks of more than %d tokens, at least one", 2 * DIL__CHAIN_SKIP);
    dil__profiler *p = calloc(1, sizeof *p);
    size_t len = strlen(opts->out) + sizeof ".imatrix.gguf";
    if (!p || !(p->imatrix_path = malloc(len))) {
        free(p);
        return dil_fail(err, DIL_EMEMORY, "out of memory");
    }
    snprintf(p->imatrix_path, len, "%s.imatrix.gguf", opts->out);
    p->opts = *opts;
    p->o = &p->opts;
    p->progress = progress;
    p->kl_to_loss = (double)NAN;
    dil_status st = run(p, err);
    if (st == DIL_OK) fill_report(p, report);
    fini(p, st == DIL_OK);
    return st;
}
