/* Timing and asking through a runner, local or a ring alike. */
#include "cli/cli.h"
#include "cli/demo.h"

#include "serve/textout.h"

#include <stdlib.h>
#include <string.h>

enum { ANSWER_TOKENS = 24 };

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

dil_status dil_cli_demo_time(dil_runner *r, const dil_tokenizer *tok, const char *text, uint32_t n_prompt, uint32_t n_out, dil_cli_demo_speed *out,
                             dil_err *err)
{
    dil_ids ids = {0};
    dil_status s = dil_tokenize(tok, text, strlen(text), 0, &ids, err);
    if (s != DIL_OK) return s;
    if (ids.n < n_prompt) {
        s = dil_fail(err, DIL_EDATA, "%zu tokens of text, %u are needed", ids.n, n_prompt);
        dil_ids_fini(&ids);
        return s;
    }
    int32_t *tokens = malloc(n_out * sizeof *tokens);
    if (!tokens) s = dil_fail(err, DIL_EMEMORY, "no memory");
    dil_gen_req q = {.prompt = ids.id, .n_prompt = n_prompt, .max_tokens = n_out, .sampler = dil_sampler_defaults()};
    q.sampler.temperature = 0;
    double token[DIL_DEMO_REPEATS], prefill[DIL_DEMO_REPEATS];
    for (int i = -1; s == DIL_OK && i < DIL_DEMO_REPEATS; i++) { /* the first warms up: graphs, caches, sockets */
        uint32_t n;
        dil_gen_event done;
        if (!dil_progress_step(dil_cli_progress(), "timing", i + 1, DIL_DEMO_REPEATS + 1)) s = dil_fail(err, DIL_ECANCELED, "canceled");
        else s = dil_runner_generate(r, &q, tokens, &n, &done, err);
        if (s != DIL_OK || i < 0) continue;
        token[i] = done.n_generated > 1 ? done.decode_sec / (done.n_generated - 1) : 0;
        prefill[i] = done.prefill_sec;
        out->n_generated = done.n_generated;
    }
    if (s == DIL_OK) {
        qsort(token, DIL_DEMO_REPEATS, sizeof token[0], by_value);
        qsort(prefill, DIL_DEMO_REPEATS, sizeof prefill[0], by_value);
        out->token_sec = token[DIL_DEMO_REPEATS / 2];
        out->min_sec = token[0];
        out->max_sec = token[DIL_DEMO_REPEATS - 1];
        out->prefill_sec = prefill[DIL_DEMO_REPEATS / 2];
        out->n_prompt = n_prompt;
    }
    free(tokens);
    dil_ids_fini(&ids);
    return s;
}

static dil_status ask_one(dil_runner *r, const dil_tokenizer *tok, const dil_sample *q, dil_buf *answer, dil_err *err)
{
    dil_ids ids = {0};
    dil_status s = dil_tokenize(tok, q->prompt, q->prompt_len, dil_tokenizer_adds_bos(tok) ? DIL_TOK_BOS : 0, &ids, err);
    if (s != DIL_OK) return s;
    int32_t tokens[ANSWER_TOKENS], eos = dil_tokenizer_eos(tok);
    uint32_t n = 0;
    dil_gen_event done;
    dil_gen_req g = {.prompt = ids.id, .n_prompt = ids.n, .max_tokens = ANSWER_TOKENS, .sampler = dil_sampler_defaults(), .stop = &eos, .n_stop = eos >= 0};
    g.sampler.temperature = 0;
    s = dil_runner_generate(r, &g, tokens, &n, &done, err);
    dil_ids_fini(&ids);
    if (s != DIL_OK) return s;
    const char *stop[] = {"\n"};
    size_t stop_len[] = {1};
    dil__textout text;
    dil__textout_init(&text, stop, stop_len, 1);
    bool ended = false, begun = false;
    for (uint32_t i = 0; i < n && !ended; i++) {
        size_t len;
        const char *piece = dil_token_bytes(tok, tokens[i], &len);
        if (dil_tokenizer_is_special(tok, tokens[i])) continue;
        while (!begun && len > 0 && (*piece == ' ' || *piece == '\n')) piece++, len--;
        begun |= len > 0;
        ended = dil__textout_push(&text, piece, len, answer);
    }
    if (!ended) dil__textout_flush(&text, answer);
    dil__textout_fini(&text);
    return answer->failed ? dil_fail(err, DIL_EMEMORY, "no memory for an answer") : DIL_OK;
}

dil_status dil_cli_demo_ask(dil_runner *r, const dil_tokenizer *tok, const dil_cli_demo_text *t, dil_buf *answer, dil_err *err)
{
    dil_status s = DIL_OK;
    for (size_t i = 0; s == DIL_OK && i < t->n_ask; i++) {
        if (!dil_progress_step(dil_cli_progress(), "asking", (double)i, (double)t->n_ask)) return dil_fail(err, DIL_ECANCELED, "canceled");
        s = ask_one(r, tok, t->ask[i], &answer[i], err);
    }
    return s;
}
