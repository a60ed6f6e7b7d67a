/* A runner and a tokenizer as the server's backend. */
#include "serve/backend.h"

#include <dilemma/grammar.h>

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

typedef struct pair {
    dil_runner *runner;
    const dil_tokenizer *tok;
    int32_t *stop;
    dil_grammar_vocab *words;
    atomic_int n_holders; /* the server and every job: a job ends after its connection */
} pair;

static dil_status encode(void *ctx, const dil__api_req *q, dil_ids *out, dil_err *err)
{
    const pair *p = ctx;
    if (q->kind == DIL_API_CHAT) return dil_chat_tokenize(p->tok, q->msgs, q->n_msgs, out, err);
    if (!q->prompt_ids) {
        unsigned flags = dil_tokenizer_adds_bos(p->tok) ? DIL_TOK_BOS : 0;
        return dil_tokenize(p->tok, q->prompt, q->prompt_len, flags, out, err);
    }
    uint32_t n_vocab = dil_tokenizer_n_vocab(p->tok);
    for (size_t i = 0; i < q->n_prompt_ids; i++) {
        if ((uint32_t)q->prompt_ids[i] >= n_vocab)
            return dil_fail(err, DIL_EFORMAT, "prompt[%zu] is token %d, the vocabulary has %u", i, q->prompt_ids[i], n_vocab);
    }
    out->id = malloc(q->n_prompt_ids * sizeof *out->id);
    if (!out->id) return dil_fail(err, DIL_EMEMORY, "no memory for %zu token ids", q->n_prompt_ids);
    memcpy(out->id, q->prompt_ids, q->n_prompt_ids * sizeof *out->id);
    out->n = q->n_prompt_ids;
    return DIL_OK;
}

static const char *piece(void *ctx, int32_t token, size_t *len)
{
    const pair *p = ctx;
    *len = 0;
    return dil_tokenizer_is_special(p->tok, token) ? "" : dil_token_bytes(p->tok, token, len);
}

static dil_status submit(void *ctx, const dil_gen_req *r, dil_gen_fn *fn, void *fn_ctx, uint64_t *id, dil_err *err)
{
    return dil_runner_submit(((pair *)ctx)->runner, r, fn, fn_ctx, id, err);
}

static void cancel(void *ctx, uint64_t id)
{
    dil_runner_cancel(((pair *)ctx)->runner, id);
}

static void state(void *ctx, dil_runner_state *out)
{
    dil_runner *r = ((pair *)ctx)->runner;
    dil_ring_timing t;
    dil_runner_get_state(r, out);
    dil_ring_get_timing(r, &t);
    out->round_sec = t.round_sec;
    out->compute_sec = t.compute_sec;
}

static size_t nodes(void *ctx, dil_ring_node *out, size_t cap)
{
    return dil_ring_nodes(((pair *)ctx)->runner, out, cap);
}

static dil_status grammar(void *ctx, const char *schema, size_t len, dil_grammar **out, dil_err *err)
{
    return dil_grammar_json(((pair *)ctx)->words, schema, len, out, err);
}

static void hold_pair(void *ctx)
{
    atomic_fetch_add(&((pair *)ctx)->n_holders, 1);
}

static void free_pair(void *ctx)
{
    if (atomic_fetch_sub(&((pair *)ctx)->n_holders, 1) > 1) return;
    dil_grammar_vocab_free(((pair *)ctx)->words);
    free(((pair *)ctx)->stop);
    free(ctx);
}

dil_status dil__backend_of_runner(dil_runner *r, const dil_tokenizer *t, dil__backend *out, dil_err *err)
{
    pair *p = calloc(1, sizeof *p);
    uint32_t n_vocab = dil_tokenizer_n_vocab(t), n = 0;
    for (uint32_t i = 0; i < n_vocab; i++) n += dil_tokenizer_is_eog(t, (int32_t)i);
    if (p) p->stop = malloc((n ? n : 1) * sizeof *p->stop);
    if (!p || !p->stop) {
        free(p);
        return dil_fail(err, DIL_EMEMORY, "no memory for the server's backend");
    }
    atomic_init(&p->n_holders, 1);
    p->runner = r;
    p->tok = t;
    n = 0;
    for (uint32_t i = 0; i < n_vocab; i++) {
        if (dil_tokenizer_is_eog(t, (int32_t)i)) p->stop[n++] = (int32_t)i;
    }
    dil_status st = dil_grammar_vocab_new(t, &p->words, err);
    if (st != DIL_OK) {
        free_pair(p);
        return st;
    }
    *out = (dil__backend){.ctx = p, .encode = encode, .piece = piece, .submit = submit, .cancel = cancel, .state = state, .nodes = nodes,
                          .stop = p->stop, .n_stop = n, .chat = dil_chat_template_name(t) != NULL, .grammar = grammar, .grammar_free = dil_grammar_free, .hold = hold_pair, .free = free_pair};
    return DIL_OK;
}

dil_status dil_served_attach(dil_served *m, dil_runner *r, const dil_tokenizer *t, dil_err *err)
{
    dil__backend b;
    dil_status st = dil__backend_of_runner(r, t, &b, err);
    if (st == DIL_OK) dil__served_attach(m, &b);
    return st;
}
