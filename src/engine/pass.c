/* From a batch to passes. Ordinarily a batch is one pass; sequences in consecutive slots with equally many tokens share an
 * attention. With fixed shapes all single tokens make one pass with a row for every slot, and each longer run a pass padded to
 * max_batch: a sequence's bits then do not depend on who else is in the batch. A run of which every token is
 * wanted is decoding that runs ahead: it takes a pass of single tokens for each, so that it has the bits of one token after the other. Padding
 * writes to cells past the sequence's end, which no token sees before they are written again. */
#include "engine/stage.h"

#include <stdlib.h>
#include <string.h>

dil_status dil__pass_init(dil__pass *p, uint32_t max_rows, uint32_t n_seq, dil_err *err)
{
    *p = (dil__pass){0};
    p->token_of = calloc(max_rows, sizeof *p->token_of);
    p->pos = calloc(max_rows, sizeof *p->pos);
    p->cell = calloc(max_rows, sizeof *p->cell);
    p->want_row = calloc(max_rows, sizeof *p->want_row);
    p->want_rank = calloc(max_rows, sizeof *p->want_rank);
    p->group = calloc(n_seq, sizeof *p->group);
    if (p->token_of && p->pos && p->cell && p->want_row && p->want_rank && p->group) return DIL_OK;
    dil__pass_fini(p);
    return dil_fail(err, DIL_EMEMORY, "engine: no memory for batches of %u", max_rows);
}

void dil__pass_fini(dil__pass *p)
{
    free(p->token_of);
    free(p->pos);
    free(p->cell);
    free(p->want_row);
    free(p->want_rank);
    free(p->group);
    memset(p, 0, sizeof *p);
}

/* How many cells an attention over positions < n looks at. */
static uint32_t round_kv(const dil_stage *s, uint32_t n)
{
    if (s->opts.no_flash && s->opts.fixed_shapes) return s->kv.n_cells;
    n = (n + DIL__KV_STEP - 1) / DIL__KV_STEP * DIL__KV_STEP;
    return n < s->kv.n_cells ? n : s->kv.n_cells;
}

static void put_row(dil_stage *s, int32_t token, uint32_t seq, uint32_t pos)
{
    dil__pass *p = &s->pass;
    p->token_of[p->n_rows] = token;
    p->pos[p->n_rows] = (int32_t)pos;
    p->cell[p->n_rows] = (int64_t)seq * s->kv.n_cells + pos;
    p->n_rows++;
}

static void put_run(dil_stage *s, const dil__run *r)
{
    for (uint32_t i = 0; i < r->n; i++) put_row(s, (int32_t)s->order.token_of[r->first + i], r->seq, r->pos + i);
}

static void begin(dil__pass *p)
{
    p->n_rows = p->n_want = p->n_groups = 0;
}

/* Rows of the wanted tokens that are in this pass, in the caller's order. row_of [batch] or -1 is in the order's row_of. */
static void find_wanted(dil_stage *s)
{
    dil__pass *p = &s->pass;
    dil__ordered *o = &s->order;
    for (uint32_t i = 0; i < o->n; i++) o->row_of[i] = UINT32_MAX;
    for (uint32_t r = 0; r < p->n_rows; r++) {
        if (p->token_of[r] >= 0) o->row_of[p->token_of[r]] = r;
    }
    for (uint32_t k = 0; k < o->n_want; k++) {
        uint32_t row = o->row_of[o->want_token[k]];
        if (row == UINT32_MAX) continue;
        p->want_row[p->n_want] = (int32_t)row;
        p->want_rank[p->n_want++] = k;
    }
}

static void whole_batch(dil_stage *s)
{
    dil__pass *p = &s->pass;
    begin(p);
    for (uint32_t i = 0; i < s->order.n_runs; i++) {
        const dil__run *r = &s->order.run[i];
        dil__group *g = p->n_groups ? &p->group[p->n_groups - 1] : NULL;
        uint32_t n_kv = round_kv(s, r->pos + r->n);
        if (g && g->first_seq + g->n_seq == r->seq && g->n_tok == r->n) {
            g->n_seq++;
            if (n_kv > g->n_kv) g->n_kv = n_kv;
        } else {
            p->group[p->n_groups++] = (dil__group){.first_seq = r->seq, .n_seq = 1, .n_tok = r->n, .row = p->n_rows, .n_kv = n_kv};
        }
        put_run(s, r);
    }
    find_wanted(s);
}

static bool is_single(const dil_stage *s, const dil__run *r, const dil_batch *b)
{
    for (uint32_t i = 0; r->n > 1 && i < r->n; i++) {
        if (!b->want || !b->want[s->order.token_of[r->first + i]]) return false;
    }
    return true;
}

/* The step-th token of every run of single tokens, and a row for every other slot; false when no run has so many. */
static bool all_singles(dil_stage *s, const dil_batch *b, uint32_t step)
{
    dil__pass *p = &s->pass;
    begin(p);
    uint32_t most = 1;
    bool any = false;
    for (uint32_t seq = 0, i = 0; seq < s->opts.n_seq; seq++) {
        while (i < s->order.n_runs && s->order.run[i].seq < seq) i++;
        const dil__run *r = i < s->order.n_runs && s->order.run[i].seq == seq ? &s->order.run[i] : NULL;
        bool single = r && is_single(s, r, b);
        if (single && step < r->n) {
            put_row(s, (int32_t)s->order.token_of[r->first + step], seq, r->pos + step);
            any = true;
            if (r->pos + step + 1 > most) most = r->pos + step + 1;
        } else {
            put_row(s, -1, seq, single ? r->pos + r->n : s->kv.len[seq]);
        }
    }
    p->group[p->n_groups++] = (dil__group){.n_seq = s->opts.n_seq, .n_tok = 1, .n_kv = round_kv(s, most)};
    if (any) find_wanted(s);
    return any;
}

static void padded_run(dil_stage *s, const dil__run *r)
{
    dil__pass *p = &s->pass;
    begin(p);
    put_run(s, r);
    while (p->n_rows < s->opts.max_batch) put_row(s, -1, r->seq, r->pos + p->n_rows);
    p->group[p->n_groups++] = (dil__group){.first_seq = r->seq, .n_seq = 1, .n_tok = p->n_rows, .n_kv = round_kv(s, r->pos + r->n)};
    find_wanted(s);
}

dil_status dil__stage_each_pass(dil_stage *s, const dil_batch *b, const float *hidden, float *out, dil__pass_fn *run, dil_err *err)
{
    if (!s->opts.fixed_shapes) {
        whole_batch(s);
        return run(s, b, hidden, out, err);
    }
    dil_status status = DIL_OK;
    for (uint32_t step = 0; !status && all_singles(s, b, step); step++) status = run(s, b, hidden, out, err);
    for (uint32_t i = 0; !status && i < s->order.n_runs; i++) {
        if (is_single(s, &s->order.run[i], b)) continue;
        padded_run(s, &s->order.run[i]);
        status = run(s, b, hidden, out, err);
    }
    return status;
}
