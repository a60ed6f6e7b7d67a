/* Checks and orders a batch: a counting sort by sequence slot. */
#include "engine/batch.h"

#include <stdlib.h>
#include <string.h>

dil_status dil__ordered_init(dil__ordered *o, uint32_t max_batch, uint32_t n_seq, dil_err *err)
{
    *o = (dil__ordered){.n_seq = n_seq, .max_batch = max_batch};
    o->token_of = calloc(max_batch, sizeof *o->token_of);
    o->row_of = calloc(max_batch, sizeof *o->row_of);
    o->want_token = calloc(max_batch, sizeof *o->want_token);
    o->run = calloc(n_seq, sizeof *o->run);
    o->count = calloc(n_seq, sizeof *o->count);
    if (o->token_of && o->row_of && o->want_token && o->run && o->count) return DIL_OK;
    dil__ordered_fini(o);
    return dil_fail(err, DIL_EMEMORY, "engine: no memory for batches of %u", max_batch);
}

void dil__ordered_fini(dil__ordered *o)
{
    free(o->token_of);
    free(o->row_of);
    free(o->want_token);
    free(o->run);
    free(o->count);
    memset(o, 0, sizeof *o);
}

static uint32_t seq_of(const dil_batch *b, uint32_t i)
{
    return b->seq ? (uint32_t)b->seq[i] : 0;
}

static dil_status check_token(const dil__ordered *o, const dil_batch *b, const dil__batch_limits *limits, uint32_t i, dil_err *err)
{
    if (b->seq && (b->seq[i] < 0 || (uint32_t)b->seq[i] >= o->n_seq))
        return dil_fail(err, DIL_EDATA, "batch: token %u is of sequence %d, there are %u", i, b->seq[i], o->n_seq);
    if (b->pos[i] < 0) return dil_fail(err, DIL_EDATA, "batch: token %u is at position %d", i, b->pos[i]);
    if ((uint32_t)b->pos[i] >= limits->n_ctx)
        return dil_fail(err, DIL_ELIMIT, "the context is full: position %d of sequence %u, the context holds %u tokens", b->pos[i],
                        seq_of(b, i), limits->n_ctx);
    if (limits->n_vocab && (b->token[i] < 0 || (uint32_t)b->token[i] >= limits->n_vocab))
        return dil_fail(err, DIL_EDATA, "batch: token %u is %d, the vocabulary has %u", i, b->token[i], limits->n_vocab);
    return DIL_OK;
}

static dil_status check(const dil__ordered *o, const dil_batch *b, const dil__batch_limits *limits, dil_err *err)
{
    if (b->n_tokens == 0) return dil_fail(err, DIL_EDATA, "batch: no tokens");
    if (b->n_tokens > o->max_batch)
        return dil_fail(err, DIL_ELIMIT, "batch: %u tokens, this stage takes %u at once", b->n_tokens, o->max_batch);
    if (!b->pos || (limits->n_vocab && !b->token)) return dil_fail(err, DIL_EDATA, "batch: no positions or no tokens");
    for (uint32_t i = 0; i < b->n_tokens; i++) {
        dil_status s = check_token(o, b, limits, i, err);
        if (s) return s;
    }
    return DIL_OK;
}

static void make_runs(dil__ordered *o, const dil_batch *b)
{
    memset(o->count, 0, o->n_seq * sizeof *o->count);
    for (uint32_t i = 0; i < b->n_tokens; i++) o->count[seq_of(b, i)]++;
    uint32_t row = 0;
    o->n_runs = 0;
    for (uint32_t s = 0; s < o->n_seq; s++) {
        if (o->count[s] == 0) continue;
        o->run[o->n_runs++] = (dil__run){.seq = s, .first = row, .n = o->count[s]};
        uint32_t n = o->count[s];
        o->count[s] = row; /* from here on: the next free row */
        row += n;
    }
}

static dil_status check_positions(const dil__ordered *o, const dil_batch *b, const dil__batch_limits *limits, dil_err *err)
{
    for (uint32_t r = 0; r < o->n_runs; r++) {
        const dil__run *run = &o->run[r];
        for (uint32_t k = 0; k < run->n; k++) {
            uint32_t i = o->token_of[run->first + k];
            if ((uint32_t)b->pos[i] != run->pos + k)
                return dil_fail(err, DIL_EDATA, "batch: token %u of sequence %u is at position %d, expected %u", i, run->seq, b->pos[i], run->pos + k);
        }
        if (run->pos > limits->len[run->seq])
            return dil_fail(err, DIL_EDATA, "batch: sequence %u goes on at position %u, but only %u are held", run->seq, run->pos, limits->len[run->seq]);
    }
    return DIL_OK;
}

dil_status dil__ordered_set(dil__ordered *o, const dil_batch *b, const dil__batch_limits *limits, dil_err *err)
{
    dil_status s = check(o, b, limits, err);
    if (s) return s;
    make_runs(o, b);
    o->n = b->n_tokens;
    for (uint32_t i = 0; i < b->n_tokens; i++) {
        uint32_t row = o->count[seq_of(b, i)]++;
        o->token_of[row] = i;
    }
    for (uint32_t r = 0; r < o->n_runs; r++) o->run[r].pos = (uint32_t)b->pos[o->token_of[o->run[r].first]];
    s = check_positions(o, b, limits, err);
    if (s) return s;
    o->n_want = 0;
    for (uint32_t i = 0; i < b->n_tokens; i++) {
        if (b->want ? !b->want[i] : i + 1 != b->n_tokens) continue;
        o->want_token[o->n_want++] = i;
    }
    return DIL_OK;
}
