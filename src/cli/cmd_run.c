/* dilemma run: text from a model in this process, token by token as it comes. */
#include "base/json.h"
#include "cli/clean.h"
#include "cli/cli.h"
#include "cli/model.h"
#include "cli/serving.h"
#include "net/draft.h"
#include "serve/textout.h"

#include <dilemma/grammar.h>

#include <stdlib.h>
#include <string.h>

#define PROMPT_BYTES_MAX (64u << 20)

typedef struct options {
    const char *prompt, *device;
    int64_t n, threads, top_k, seed, context;
    double temp, top_p, min_p;
    double repeat, presence, frequency;
    const char *ids, *logits, *speculate, *schema;
    bool chat, json, exact;
    int depth; /* of speculation */
} options;

typedef struct generation {
    dil_cli_model model;
    dil_tokenizer *tok;
    dil_stage *stage;
    dil_sampler *sampler;
    dil_grammar_vocab *pieces; /* of --json-schema */
    dil_grammar *grammar;
    dil_ids prompt;
    int32_t *id; /* [n] generated */
    uint32_t n;
    float *logits; /* [1 + DIL__DRAFT_MAX][n_vocab] */
    int32_t *known; /* [prompt.n + n] */
    dil__draft *draft;
    dil__pace pace;
    int32_t guess[DIL__DRAFT_MAX];
    uint32_t n_guesses, n_guessed, n_right;
    dil_buf text, given;
    bool stopped;
    double prefill_sec, decode_sec;
} generation;

static dil_status read_prompt(const options *o, generation *g, dil_err *err)
{
    if (strcmp(o->prompt, "-") == 0) return dil_file_read("-", &g->given, err);
    if (!dil_buf_append(&g->given, o->prompt, strlen(o->prompt))) return dil_fail(err, DIL_ELIMIT, "the prompt is too long");
    return DIL_OK;
}

/* FILE, or "any" for any JSON object. */
static dil_status read_schema(const char *file, generation *g, dil_err *err)
{
    if (!g->tok) return dil_fail(err, DIL_EUSAGE, "--json-schema wants a model with a tokenizer");
    bool any = strcmp(file, "any") == 0;
    dil_buf text;
    dil_buf_init(&text, DIL_SCHEMA_BYTES_MAX);
    dil_status s = any ? DIL_OK : dil_file_read(file, &text, err);
    if (!s) s = dil_grammar_vocab_new(g->tok, &g->pieces, err);
    if (!s) s = dil_grammar_json(g->pieces, any ? NULL : dil_buf_str(&text), text.len, &g->grammar, err);
    dil_buf_fini(&text);
    return s;
}

/* "1,2,3" */
static dil_status parse_ids(const char *text, dil_ids *out, dil_err *err)
{
    size_t cap = 1;
    for (const char *p = text; *p; p++) cap += *p == ',';
    out->id = calloc(cap, sizeof *out->id);
    if (!out->id) return dil_fail(err, DIL_EMEMORY, "no memory for %zu tokens", cap);
    while (out->n < cap) {
        char *end;
        long v = strtol(text, &end, 10);
        if (end == text || v < 0 || v > INT32_MAX || (*end && *end != ',')) break;
        out->id[out->n++] = (int32_t)v;
        if (!*end) return DIL_OK;
        text = end + 1;
    }
    return dil_fail(err, DIL_EUSAGE, "--ids wants token ids such as 1,2,3, not '%.40s'", text);
}

static dil_status tokenize(const options *o, generation *g, dil_err *err)
{
    if (o->ids) return parse_ids(o->ids, &g->prompt, err);
    const char *text = dil_buf_str(&g->given);
    dil_status s = DIL_OK;
    if (o->chat) {
        dil_chat_msg msg = {"user", text, g->given.len};
        s = dil_chat_tokenize(g->tok, &msg, 1, &g->prompt, err);
    } else {
        s = dil_tokenize(g->tok, text, g->given.len, DIL_TOK_BOS, &g->prompt, err);
    }
    if (!s && g->prompt.n == 0) s = dil_fail(err, DIL_EUSAGE, "the prompt is empty; give -p TEXT, or -p - for standard input");
    return s;
}

/* The context holds the prompt and what may follow; a longer one only costs memory. */
static dil_status open_stage(const options *o, generation *g, dil_err *err)
{
    uint64_t want = o->context ? (uint64_t)o->context : g->prompt.n + (uint64_t)o->n;
    if (!o->context && want > g->model.arch.n_ctx_train) want = g->model.arch.n_ctx_train;
    if (g->prompt.n > want)
        return dil_fail(err, DIL_ELIMIT, "the prompt is %zu tokens, the context holds %llu%s", g->prompt.n, (unsigned long long)want,
                        o->context ? "; -c makes it larger" : " (what the model was trained for; -c overrides)");
    dil_stage_opts so = dil_cli_whole(&g->model);
    so.device = o->device;
    so.n_threads = (int)o->threads;
    so.n_ctx = (uint32_t)want;
    so.no_flash = o->exact;
    if (o->exact) so.kv_type = DIL_TYPE_F32;
    return dil_stage_open(&g->model.arch, &g->model.weights, &so, dil_cli_progress(), &g->stage, err);
}

static dil_status open_all(const options *o, const char *path, generation *g, dil_err *err)
{
    dil_status s = dil_cli_model_open(path, &g->model, err);
    if (!s && (!o->ids || dil_gguf_kv_find(g->model.file, "tokenizer.ggml.model"))) s = dil_tokenizer_new(g->model.file, &g->tok, err);
    if (!s && g->tok && dil_tokenizer_n_vocab(g->tok) > g->model.arch.n_vocab)
        s = dil_fail(err, DIL_EFORMAT, "the tokenizer has %u tokens, the model's table %u", dil_tokenizer_n_vocab(g->tok), g->model.arch.n_vocab);
    if (!s && !o->ids) s = read_prompt(o, g, err);
    if (!s) s = tokenize(o, g, err);
    if (!s) s = open_stage(o, g, err);
    if (s) return s;
    dil_sampler_opts so = dil_sampler_defaults();
    so.temperature = (float)o->temp;
    so.top_k = (uint32_t)o->top_k;
    so.top_p = (float)o->top_p;
    so.min_p = (float)o->min_p;
    so.seed = (uint64_t)o->seed;
    so.repeat_penalty = (float)o->repeat;
    so.presence_penalty = (float)o->presence;
    so.frequency_penalty = (float)o->frequency;
    if (o->schema) s = read_schema(o->schema, g, err);
    if (s) return s;
    so.grammar = g->grammar;
    g->sampler = dil_sampler_new(&so, g->model.arch.n_vocab);
    g->id = calloc((size_t)o->n, sizeof *g->id);
    g->logits = calloc((size_t)g->model.arch.n_vocab * (1 + DIL__DRAFT_MAX), sizeof *g->logits);
    g->known = calloc(g->prompt.n + (size_t)o->n, sizeof *g->known);
    g->draft = dil__draft_new((uint32_t)(g->prompt.n + (size_t)o->n));
    if (g->known) memcpy(g->known, g->prompt.id, g->prompt.n * sizeof *g->known);
    if (!g->sampler || !g->id || !g->logits || !g->known || !g->draft) return dil_fail(err, DIL_EMEMORY, "no memory for %lld tokens", (long long)o->n);
    return DIL_OK;
}

static dil_status feed(generation *g, const int32_t *id, size_t first, size_t n, bool want, dil_err *err)
{
    int32_t pos[512];
    uint8_t flag[512] = {0};
    for (size_t i = 0; i < n; i++) pos[i] = (int32_t)(first + i);
    flag[n - 1] = want;
    dil_batch b = {.n_tokens = (uint32_t)n, .token = id, .pos = pos, .want = flag};
    return dil_stage_eval(g->stage, &b, NULL, want ? g->logits : NULL, err);
}

static dil_status prefill(generation *g, dil_err *err)
{
    int64_t start = dil_now_ns();
    for (size_t at = 0; at < g->prompt.n;) {
        size_t now = g->prompt.n - at < 512 ? g->prompt.n - at : 512;
        if (!dil_progress_step(dil_cli_progress(), "reading the prompt", (double)at, (double)g->prompt.n))
            return dil_fail(err, DIL_ECANCELED, "canceled");
        dil_status s = feed(g, g->prompt.id + at, at, now, at + now == g->prompt.n, err);
        if (s) return s;
        at += now;
    }
    dil_cli_progress_done();
    g->prefill_sec = (double)(dil_now_ns() - start) * 1e-9;
    return DIL_OK;
}

/* Logits of every prompt token, before anything is generated. */
static dil_status write_logits(const options *o, generation *g, dil_err *err)
{
    dil_outfile f;
    dil_status s = dil_outfile_open(&f, o->logits, err);
    if (s) return s;
    size_t vocab = g->model.arch.n_vocab;
    enum { ROWS = 32 };
    float *rows = malloc(ROWS * vocab * sizeof *rows);
    if (!rows) s = dil_fail(err, DIL_EMEMORY, "no memory for %d rows of logits", ROWS);
    for (size_t at = 0; !s && at < g->prompt.n; at += ROWS) {
        int32_t pos[ROWS];
        uint8_t want[ROWS];
        size_t n = g->prompt.n - at < ROWS ? g->prompt.n - at : ROWS;
        for (size_t i = 0; i < n; i++) pos[i] = (int32_t)(at + i), want[i] = 1;
        dil_batch b = {.n_tokens = (uint32_t)n, .token = g->prompt.id + at, .pos = pos, .want = want};
        s = dil_stage_eval(g->stage, &b, NULL, rows, err);
        if (!s && fwrite(rows, vocab * sizeof *rows, n, f.stream) != n) s = dil_fail_errno(err, "%s", o->logits);
    }
    free(rows);
    if (!s) return dil_outfile_commit(&f, err);
    dil_outfile_abort(&f);
    return s;
}

static dil_status say(generation *g, int32_t id, bool stream, dil_err *err)
{
    size_t len = 0;
    const char *bytes = !g->tok || dil_tokenizer_is_special(g->tok, id) ? NULL : dil_token_bytes(g->tok, id, &len);
    if (!bytes) return DIL_OK;
    if (!dil_buf_append(&g->text, bytes, len)) return dil_fail(err, DIL_ELIMIT, "more than %zu bytes of text", g->text.max);
    if (stream && (!dil_cli_print_model_text(bytes, len, stdout) || fflush(stdout) != 0)) return dil_fail_errno(err, "standard output");
    return DIL_OK;
}

/* From the logits behind the last token, and behind each guess that was right. */
static dil_status take_tokens(const options *o, generation *g, bool *more, dil_err *err)
{
    size_t vocab = g->model.arch.n_vocab;
    uint32_t n_ctx = dil_stage_get_opts(g->stage)->n_ctx, right = 0;
    dil_status s = DIL_OK;
    for (bool on = true; on && !s;) {
        int32_t id = dil_sampler_pick(g->sampler, g->logits + vocab * right, NULL);
        g->stopped = g->tok && dil_tokenizer_is_eog(g->tok, id);
        if (g->stopped) break;
        dil_sampler_accept(g->sampler, id);
        g->known[g->prompt.n + g->n] = id;
        g->id[g->n++] = id;
        s = say(g, id, !o->json, err);
        *more = g->n < (uint32_t)o->n && g->prompt.n + g->n <= n_ctx;
        on = *more && right < g->n_guesses && g->guess[right] == id;
        right += on;
    }
    *more = *more && !g->stopped;
    if (g->n_guesses) dil__draft_learn(g->draft, &g->pace, g->n_guesses, right);
    g->n_guessed += g->n_guesses;
    g->n_right += right;
    return s;
}

/* The last token and guesses of the next ones. */
static dil_status feed_ahead(const options *o, generation *g, dil_err *err)
{
    size_t at = g->prompt.n + g->n - 1, room = dil_stage_get_opts(g->stage)->n_ctx - at - 1, left = (size_t)o->n - g->n - 1;
    g->n_guesses = dil__draft_guess(g->draft, &g->pace, g->known, (uint32_t)(at + 1), o->depth, 1, (uint32_t)(left < room ? left : room), g->guess);
    int32_t id[1 + DIL__DRAFT_MAX], pos[1 + DIL__DRAFT_MAX];
    uint8_t want[1 + DIL__DRAFT_MAX];
    id[0] = g->known[at];
    for (uint32_t i = 0; i < g->n_guesses; i++) id[1 + i] = g->guess[i];
    for (uint32_t i = 0; i <= g->n_guesses; i++) pos[i] = (int32_t)(at + i), want[i] = 1;
    dil_batch b = {.n_tokens = 1 + g->n_guesses, .token = id, .pos = pos, .want = want};
    dil_status s = dil_stage_eval(g->stage, &b, NULL, g->logits, err);
    double sec = (double)dil_stage_get_stats(g->stage).last_eval_ns * 1e-9;
    dil__pace_note(&g->pace, 1 + g->n_guesses, sec, sec, true);
    return s;
}

static dil_status generate(const options *o, generation *g, dil_err *err)
{
    dil_status s = o->logits ? write_logits(o, g, err) : DIL_OK;
    if (!s) s = prefill(g, err);
    int64_t start = dil_now_ns();
    for (bool more = !s && !dil_cli_interrupted(); more && !s;) {
        s = take_tokens(o, g, &more, err);
        more = more && !dil_cli_interrupted();
        if (more && !s) s = feed_ahead(o, g, err);
    }
    g->decode_sec = (double)(dil_now_ns() - start) * 1e-9;
    if (!s && !o->json) fputc('\n', stdout);
    return s;
}

/* Text may end inside a character, and the prompt may be any bytes: JSON wants whole characters. */
static json_t *json_text(const dil_buf *b)
{
    dil_buf out;
    dil__textout t;
    dil_buf_init(&out, 3 * b->len + 16);
    dil__textout_init(&t, NULL, NULL, 0);
    dil__textout_push(&t, (const char *)b->data, b->len, &out);
    dil__textout_flush(&t, &out);
    dil__textout_fini(&t);
    json_t *j = json_stringn(dil_buf_str(&out), out.len);
    dil_buf_fini(&out);
    return j;
}

static json_t *json_ids(const int32_t *id, size_t n)
{
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) json_array_append_new(list, json_integer(id[i]));
    return list;
}

static dil_status print_json(const char *path, generation *g, dil_err *err)
{
    const dil_stage_opts *so = dil_stage_get_opts(g->stage);
    dil_stage_stats st = dil_stage_get_stats(g->stage);
    uint32_t steps = g->n > 1 ? g->n - 1 : 0;
    json_t *doc = json_pack(
        "{s:i,s:s,s:o,s:o,s:o,s:o,s:I,s:I,s:I,s:I,s:s,s:s,s:i,s:f,s:f,s:f,s:f,s:{s:I,s:I,s:I,s:I}}", "version", 1, "model", path, "prompt",
        json_text(&g->given), "text", json_text(&g->text), "prompt_tokens", json_ids(g->prompt.id, g->prompt.n), "tokens",
        json_ids(g->id, g->n), "n_prompt", (json_int_t)g->prompt.n, "n_generated", (json_int_t)g->n, "n_guessed", (json_int_t)g->n_guessed, "n_right", (json_int_t)g->n_right, "finish",
        g->stopped ? "stop" : "length", "device", so->device, "threads", so->n_threads, "prefill_sec", g->prefill_sec, "decode_sec",
        g->decode_sec, "pp_tok_sec", g->prefill_sec > 0 ? (double)g->prompt.n / g->prefill_sec : 0.0, "tg_tok_sec",
        g->decode_sec > 0 ? steps / g->decode_sec : 0.0, "memory", "weight_bytes", (json_int_t)st.weight_bytes, "mapped_bytes",
        (json_int_t)st.mapped_bytes, "kv_bytes", (json_int_t)st.kv_bytes, "buffer_bytes", (json_int_t)st.buffer_bytes);
    if (!doc) return dil_fail(err, DIL_EMEMORY, "no memory for the result");
    dil_status s = dil__json_save("-", doc, err);
    json_decref(doc);
    return s;
}

static void close_all(generation *g)
{
    dil_sampler_free(g->sampler);
    dil_stage_close(g->stage);
    dil_grammar_free(g->grammar);
    dil_grammar_vocab_free(g->pieces);
    dil_tokenizer_free(g->tok);
    dil_cli_model_close(&g->model);
    dil_ids_fini(&g->prompt);
    dil_buf_fini(&g->text);
    dil_buf_fini(&g->given);
    free(g->id);
    free(g->logits);
    free(g->known);
    dil__draft_free(g->draft);
}

static int run(int argc, char **argv)
{
    options o = {.n = 128, .top_k = 40, .top_p = 0.95, .min_p = 0.05, .repeat = 1};
    const dil_cli_opt opts[] = {
        {"--prompt", 'p', DIL_CLI_STR, &o.prompt, "TEXT", "the text to go on from; -: standard input", 0, 0, NULL},
        {"--tokens", 'n', DIL_CLI_INT, &o.n, "N", "at most so many tokens (default 128)", 1, 1 << 24, NULL},
        {"--chat", 0, DIL_CLI_FLAG, &o.chat, NULL, "the text is a user's message: use the model's chat template", 0, 0, NULL},
        {"--temp", 0, DIL_CLI_NUM, &o.temp, "T", "temperature; 0: always the likeliest token (default 0)", 0, 100, NULL},
        {"--top-k", 0, DIL_CLI_INT, &o.top_k, "K", "sample among the K likeliest; 0: as many as we keep, 4096 (default 40)", 0, 1 << 24, NULL},
        {"--top-p", 0, DIL_CLI_NUM, &o.top_p, "P", "sample among those that make up P; 1: all (default 0.95)", 0, 1, NULL},
        {"--min-p", 0, DIL_CLI_NUM, &o.min_p, "P", "leave out what is below P times the likeliest (default 0.05)", 0, 1, NULL},
        {"--seed", 0, DIL_CLI_INT, &o.seed, "S", "of the random numbers (default 0)", 0, 9e18, NULL},
        {"--repeat-penalty", 0, DIL_CLI_NUM, &o.repeat, "X", "divides the logits of tokens that came already (default 1: off)", 0.01, 100, NULL},
        {"--presence-penalty", 0, DIL_CLI_NUM, &o.presence, "X", "taken off the logits of tokens that came already (default 0)", -100, 100, NULL},
        {"--frequency-penalty", 0, DIL_CLI_NUM, &o.frequency, "X", "the same for each time that they came (default 0)", -100, 100, NULL},
        {"--json-schema", 0, DIL_CLI_STR, &o.schema, "FILE", "only text that is JSON of this schema; any: any JSON object", 0, 0, NULL},
        {"--context", 'c', DIL_CLI_INT, &o.context, "N", "tokens of context (default: as many as the call needs)", 1, 1 << 22, NULL},
        {"--threads", 't', DIL_CLI_INT, &o.threads, "N", "threads (default: all CPUs at hand)", 1, 512, NULL},
        {"--device", 0, DIL_CLI_STR, &o.device, "NAME", "where to compute (default CPU)", 0, 0, NULL},
        {"--ids", 0, DIL_CLI_STR, &o.ids, "N,N", "token ids in place of a text", 0, 0, NULL},
        {"--logits", 0, DIL_CLI_STR, &o.logits, "FILE", "write the logits of every prompt token: float32 [tokens][vocabulary]", 0, 0, NULL},
        {"--speculate", 0, DIL_CLI_STR, &o.speculate, "off|N|auto", "guess up to N tokens ahead from the text so far, check them in one pass; auto: as many as pay (auto)", 0, 0, NULL},
        {"--exact", 0, DIL_CLI_FLAG, &o.exact, NULL, "F32 cache and plain attention: the reference arithmetic, slower", 0, 0, NULL},
        {"--json", 0, DIL_CLI_FLAG, &o.json, NULL, "text, token ids, timings and memory as JSON, when done", 0, 0, NULL},
        DIL_CLI_END};
    dil_cli_list pos = {0};
    int status = dil_cli_parse(argc, argv, "MODEL -p TEXT [-n N] [--chat] [--temp T] [-t THREADS] [--json]",
                               "Generates text with a model on this machine, and shows it as it comes.\n\n"
                               "example: dilemma run model.gguf --chat -p 'Why is the sky blue?'", opts, &pos, 1, 1);
    if (status >= 0) return status;
    if (!o.prompt && !o.ids) return dil_cli_usage("run: -p TEXT is missing (see dilemma run --help)");
    generation g = {0};
    dil_err err = {0};
    if (!dil_cli_speculate(o.speculate, &o.depth)) return dil_cli_usage("run: --speculate is off, auto, or 1 to %d, not '%s'", DIL__DRAFT_MAX, o.speculate);
    dil_buf_init(&g.given, PROMPT_BYTES_MAX);
    dil_buf_init(&g.text, SIZE_MAX / 2);
    dil_status s = open_all(&o, pos.item[0], &g, &err);
    if (!s) s = generate(&o, &g, &err);
    if (!s && o.json) s = print_json(pos.item[0], &g, &err);
    close_all(&g);
    return s ? dil_cli_fail("run", &err) : 0;
}

const dil_cli_cmd dil_cli_run = {"run", "text from a model on this machine", run};
