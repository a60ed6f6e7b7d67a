/* Plain text by llama.cpp's protocol: the whole text tokenized once, cut into chunks of n_ctx tokens, the first token of each
 * chunk replaced by the leading one where the model wants it, the second half scored. A tail shorter than a chunk is left out. */
#include "quant/eval.h"

static dil_status eval_chunks(dil__eval *e, dil_ids *ids, uint32_t n_ctx, dil_err *err)
{
    size_t n_chunks = ids->n / n_ctx;
    if (e->opts->max_chunks > 0 && n_chunks > e->opts->max_chunks) n_chunks = e->opts->max_chunks;
    int32_t bos = dil_tokenizer_adds_bos(e->student.tok) ? dil_tokenizer_bos(e->student.tok) : -1;
    for (size_t i = 0; i < n_chunks; i++) {
        if (!dil_progress_step(e->progress, "evaluating", (double)i, (double)n_chunks))
            return dil_fail(err, DIL_ECANCELED, "canceled after %zu of %zu chunks", i, n_chunks);
        int32_t *chunk = ids->id + i * n_ctx;
        if (bos >= 0) chunk[0] = bos;
        /* Every chunk starts from an empty cache, so that all have one batch shape. */
        dil__session_keep(&e->student, NULL, 0);
        if (e->has_teacher) dil__session_keep(&e->teacher, NULL, 0);
        dil_status st = dil__eval_span(e, chunk, n_ctx, n_ctx / 2 + 1, "a chunk", err);
        if (st != DIL_OK) return st;
        e->n_samples++;
    }
    dil_progress_step(e->progress, "evaluating", (double)n_chunks, (double)n_chunks);
    return DIL_OK;
}

dil_status dil__eval_text(dil__eval *e, const dil_dataset *data, dil_err *err)
{
    uint32_t n_ctx = e->opts->n_ctx ? e->opts->n_ctx : 512;
    dil_ids ids;
    const dil_sample *s = &data->samples[0];
    dil_status st = dil_tokenize(e->student.tok, s->prompt, s->prompt_len, DIL_TOK_BOS, &ids, err);
    if (st != DIL_OK) return st;
    if (ids.n < n_ctx)
        st = dil_fail(err, DIL_EDATA, "%s: %zu tokens, a chunk takes %u (a smaller --ctx, or more text)",
                      e->opts->data ? e->opts->data : "default data", ids.n, n_ctx);
    if (st == DIL_OK) st = dil__eval_start(e, n_ctx, err);
    if (st == DIL_OK) st = eval_chunks(e, &ids, n_ctx, err);
    dil_ids_fini(&ids);
    return st;
}
