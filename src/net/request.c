/* One request: making it from what was asked, and telling its asker what comes. */
#include "net/request.h"

#include "engine/grammar.h"

#include <stdlib.h>
#include <string.h>

/* --- making ---------------------------------------------------------------------------------------------------------- */

dil_status dil__request_check(const dil_gen_req *req, dil__pipe *pipe, dil_err *err)
{
    const dil_grammar *g = req->sampler.grammar;
    if (g && !pipe->schema_max) return dil_fail(err, DIL_EUNSUPPORTED, "a grammar is not supported here");
    if (g && g->schema_len > pipe->schema_max)
        return dil_fail(err, DIL_ELIMIT, "the schema has %zu bytes, over several machines at most %u", g->schema_len, pipe->schema_max);
    if (req->sampler.n_bias > DIL_LOGIT_BIAS_MAX) return dil_fail(err, DIL_ELIMIT, "%u logit biases, at most %d", req->sampler.n_bias, DIL_LOGIT_BIAS_MAX);
    if (req->n_prompt < 1 || req->max_tokens < 1)
        return dil_fail(err, DIL_EUSAGE, "a request wants at least one prompt token and one token to generate");
    if (req->n_prompt >= pipe->n_ctx)
        return dil_fail(err, DIL_ELIMIT, "the prompt has %zu tokens, the context holds %u and needs room for an answer",
                        req->n_prompt, pipe->n_ctx);
    for (size_t i = 0; i < req->n_prompt; i++) {
        if (req->prompt[i] < 0 || (uint32_t)req->prompt[i] >= pipe->n_vocab)
            return dil_fail(err, DIL_EDATA, "prompt token %zu is %d, the vocabulary has %u", i, req->prompt[i], pipe->n_vocab);
    }
    dil_runner_state st = {0};
    pipe->ops->state(pipe, &st);
    return st.ready || st.recovering ? DIL_OK : dil_fail(err, DIL_ENET, "not ready: %.480s", st.why);
}

void dil__request_free(dil__request *q)
{
    if (!q) return;
    free(q->tokens);
    free(q->stop);
    dil__draft_free(q->draft);
    free(q);
}

dil__request *dil__request_new(const dil_gen_req *req, uint32_t n_ctx, bool guess, dil_gen_fn *fn, void *ctx)
{
    dil__request *q = calloc(1, sizeof *q);
    if (!q) return NULL;
    uint32_t room = n_ctx - (uint32_t)req->n_prompt;
    q->n_prompt = q->n_known = (uint32_t)req->n_prompt;
    q->n_max = q->n_prompt + (req->max_tokens < room ? req->max_tokens : room);
    q->tokens = malloc(q->n_max * sizeof *q->tokens);
    q->stop = malloc((req->n_stop + 1) * sizeof *q->stop);
    if (!q->tokens || !q->stop) {
        dil__request_free(q);
        return NULL;
    }
    memcpy(q->tokens, req->prompt, req->n_prompt * sizeof *q->tokens);
    if (req->n_stop) memcpy(q->stop, req->stop, req->n_stop * sizeof *q->stop);
    q->n_stop = req->n_stop;
    uint32_t most = q->n_max - q->n_prompt;
    q->n_resumed = req->n_resumed < most ? (uint32_t)req->n_resumed : most;
    if (q->n_resumed) memcpy(q->tokens + q->n_prompt, req->resumed, q->n_resumed * sizeof *q->tokens);
    q->n_known += q->n_resumed;
    q->resumed_stop = req->resumed_stop;
    q->sampler = req->sampler;
    q->n_top = req->n_top < DIL_GEN_TOP_MAX ? req->n_top : DIL_GEN_TOP_MAX;
    q->fn = fn;
    q->ctx = ctx;
    q->submit_ns = dil_now_ns();
    if (guess) q->draft = dil__draft_new(q->n_max);
    return q;
}

/* --- telling --------------------------------------------------------------------------------------------------------- */

void dil__request_end(dil__request *q, dil_gen_finish finish)
{
    int64_t now = dil_now_ns();
    int64_t first = q->first_ns ? q->first_ns : now;
    q->ended = true;
    q->fn(q->ctx, q->id, &(dil_gen_event){
        .kind = DIL_GEN_DONE, .finish = finish, .n_prompt = q->n_prompt, .n_generated = q->n_known - q->n_prompt,
        .n_guessed = q->n_guessed, .n_right = q->n_right, .prefill_sec = dil__sec(first - q->submit_ns), .decode_sec = dil__sec(now - first)});
}

void dil__request_fail(dil__request *q, const dil_err *e)
{
    q->ended = true;
    q->fn(q->ctx, q->id, &(dil_gen_event){.kind = DIL_GEN_ERROR, .error = e, .n_prompt = q->n_prompt,
                                          .n_generated = q->n_known - q->n_prompt});
}

bool dil__request_stops(const dil__request *q, int32_t token)
{
    for (size_t i = 0; i < q->n_stop; i++) {
        if (q->stop[i] == token) return true;
    }
    return false;
}

int64_t dil__request_tick(dil__request *q)
{
    int64_t now = dil_now_ns(), since = q->first_ns ? now - q->last_ns : 0;
    if (!q->first_ns) q->first_ns = now;
    q->last_ns = now;
    return since;
}

void dil__request_take(dil__request *q, const dil__row *row)
{
    if (dil__request_stops(q, row->token)) {
        dil__request_end(q, DIL_FINISH_STOP);
        return;
    }
    q->tokens[q->n_known++] = row->token;
    q->fn(q->ctx, q->id, &(dil_gen_event){.kind = DIL_GEN_TOKEN, .token = row->token, .logprob = row->logprob, .top = row->top, .n_top = row->n_top,
                                          .n_prompt = q->n_prompt, .n_generated = q->n_known - q->n_prompt});
    if (q->n_known == q->n_max) dil__request_end(q, DIL_FINISH_LENGTH);
}

void dil__request_tell_resumed(dil__request *q)
{
    uint32_t n = q->n_resumed;
    q->n_resumed = 0;
    q->first_ns = q->last_ns = dil_now_ns();
    for (uint32_t i = 0; i < n; i++)
        q->fn(q->ctx, q->id, &(dil_gen_event){.kind = DIL_GEN_TOKEN, .token = q->tokens[q->n_prompt + i], .n_prompt = q->n_prompt, .n_generated = i + 1});
    if (q->resumed_stop) dil__request_end(q, DIL_FINISH_STOP);
    else if (q->n_known == q->n_max) dil__request_end(q, DIL_FINISH_LENGTH);
}
