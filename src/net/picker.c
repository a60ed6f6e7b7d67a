/* Samplers by slot. Penalties count generated tokens only: a prompt's words are not held against the answer. A stream that goes on
 * after a loss draws the same numbers as it would have: its sampler skips those already used and accepts the tokens as they pass.
 *
 * A guess is taken when the pick before it is that token. For a guess that is one certain token this is the accept-and-resample rule: it
 * is taken with its probability, and what is picked in its place has the distribution of the others. */
#include "net/picker.h"

#include <math.h>
#include <stdlib.h>

dil_status dil__picker_init(dil__picker *p, uint32_t n_seq, uint32_t n_vocab, dil_err *err)
{
    *p = (dil__picker){.n_seq = n_seq, .n_vocab = n_vocab, .sampler = calloc(n_seq, sizeof *p->sampler), .from = calloc(n_seq, sizeof *p->from),
                       .to = calloc(n_seq, sizeof *p->to), .n_top = calloc(n_seq, sizeof *p->n_top),
                       .grammar = calloc(n_seq, sizeof *p->grammar)};
    if (p->sampler && p->from && p->to && p->n_top && p->grammar) return DIL_OK;
    dil__picker_fini(p);
    return dil_fail(err, DIL_EMEMORY, "no memory for %u samplers", n_seq);
}

void dil__picker_fini(dil__picker *p)
{
    for (uint32_t i = 0; p->sampler && i < p->n_seq; i++) dil_sampler_free(p->sampler[i]);
    for (uint32_t i = 0; p->grammar && i < p->n_seq; i++) dil_grammar_free(p->grammar[i]);
    dil_grammar_vocab_free(p->words);
    free(p->grammar);
    free(p->sampler);
    free(p->from);
    free(p->to);
    free(p->n_top);
    *p = (dil__picker){0};
}

dil_status dil__picker_begin(dil__picker *p, const dil__begin *b, dil_err *err)
{
    if (b->slot >= p->n_seq) return dil_fail(err, DIL_EDATA, "slot %u begins, there are %u", b->slot, p->n_seq);
    dil_sampler_opts o = b->sampler;
    dil_grammar *grammar = NULL;
    if (b->json && !p->words) return dil_fail(err, DIL_EUNSUPPORTED, "a grammar, but the words of the vocabulary are not here");
    dil_status s = b->json ? dil_grammar_json(p->words, b->schema, b->schema_len, &grammar, err) : DIL_OK;
    if (s != DIL_OK) return s;
    if (grammar) o.grammar = grammar;
    dil_sampler *fresh = dil_sampler_new(&o, p->n_vocab);
    if (!fresh) {
        dil_grammar_free(grammar);
        return dil_fail(err, DIL_EMEMORY, "no memory for a sampler of %u tokens", p->n_vocab);
    }
    dil_sampler_free(p->sampler[b->slot]);
    dil_grammar_free(p->grammar[b->slot]);
    p->sampler[b->slot] = fresh;
    p->grammar[b->slot] = grammar;
    p->from[b->slot] = b->n_prompt;
    p->to[b->slot] = b->n_known;
    if (b->n_known > b->n_prompt) dil_sampler_skip(fresh, b->n_known - b->n_prompt);
    p->n_top[b->slot] = b->n_top < DIL_GEN_TOP_MAX ? b->n_top : DIL_GEN_TOP_MAX;
    return DIL_OK;
}

/* Token i is a guess of what row i - 1 picks. */
static bool follows(const dil_batch *b, uint32_t i)
{
    return i > 0 && b->want[i] && b->want[i - 1] && b->seq[i] == b->seq[i - 1];
}

/* The most probable tokens by insertion: few are wanted, and hardly any of the vocabulary gets past the worst of them. */
static void find_top(const float *logits, uint32_t n_vocab, uint32_t k, dil__row *row)
{
    uint32_t n = 0;
    if (k > n_vocab) k = n_vocab;
    for (uint32_t i = 0; i < n_vocab; i++) {
        if (n == k && logits[i] <= row->top[n - 1].logprob) continue;
        uint32_t at = n < k ? n++ : k - 1;
        for (; at > 0 && row->top[at - 1].logprob < logits[i]; at--) row->top[at] = row->top[at - 1];
        row->top[at] = (dil_gen_alt){.token = (int32_t)i, .logprob = logits[i]};
    }
    double sum = 0, max = (double)row->top[0].logprob;
    for (uint32_t i = 0; i < n_vocab; i++) sum += exp((double)logits[i] - max);
    for (uint32_t i = 0; i < n; i++) row->top[i].logprob = (float)((double)row->top[i].logprob - max - log(sum));
    row->n_top = n;
}

dil_status dil__picker_pick(dil__picker *p, const dil_batch *b, const float *logits, dil__row *rows, uint32_t *n_rows, dil_err *err)
{
    uint32_t n = 0;
    bool wrong = false; /* the guess before row i */
    for (uint32_t i = 0; i < b->n_tokens; i++) {
        uint32_t slot = (uint32_t)b->seq[i], pos = (uint32_t)b->pos[i];
        if (slot < p->n_seq && p->sampler[slot] && pos >= p->from[slot] && pos < p->to[slot]) dil_sampler_accept(p->sampler[slot], b->token[i]);
        if (!b->want[i]) continue;
        if (slot >= p->n_seq || !p->sampler[slot])
            return dil_fail(err, DIL_EDATA, "a token is wanted of slot %u, which never began", slot);
        wrong = wrong && follows(b, i);
        rows[n] = (dil__row){.token = -1};
        if (!wrong) {
            if (p->n_top[slot]) find_top(logits + (size_t)n * p->n_vocab, p->n_vocab, p->n_top[slot], &rows[n]);
            rows[n].token = dil_sampler_pick(p->sampler[slot], logits + (size_t)n * p->n_vocab, &rows[n].logprob);
            dil_sampler_accept(p->sampler[slot], rows[n].token);
        }
        wrong = wrong || (i + 1 < b->n_tokens && follows(b, i + 1) && b->token[i + 1] != rows[n].token);
        n++;
    }
    *n_rows = n;
    return DIL_OK;
}
