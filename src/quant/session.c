/* A model that is fed token ids. What two texts have in common at their start is computed once: questions about one paragraph
 * follow each other in a data set, and the paragraph is most of the prompt. */
#include "quant/session.h"

#include "base/wire.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_BATCH = 512 };

dil_status dil__session_open(dil__session *s, const char *path, dil_err *err)
{
    dil_status st = dil_gguf_open(path, &s->gguf, err);
    if (st == DIL_OK) st = dil_arch_read(s->gguf, &s->arch, err);
    if (st == DIL_OK) st = dil_tokenizer_new(s->gguf, &s->tok, err);
    if (st != DIL_OK) {
        dil__session_close(s);
        return st;
    }
    s->weights = dil_gguf_weights(s->gguf);
    return DIL_OK;
}

dil_status dil__session_same_tokens(const dil__session *s, const dil__session *t, dil_err *err)
{
    const char *a = dil_gguf_path(s->gguf), *b = dil_gguf_path(t->gguf);
    if (s->arch.n_vocab != t->arch.n_vocab)
        return dil_fail(err, DIL_EUNSUPPORTED, "%s has a vocabulary of %u tokens, its teacher %s one of %u: they do not compare", a,
                        s->arch.n_vocab, b, t->arch.n_vocab);
    for (uint32_t i = 0; i < s->arch.n_vocab; i++) {
        size_t la = 0, lb = 0;
        const char *pa = dil_token_bytes(s->tok, (int32_t)i, &la), *pb = dil_token_bytes(t->tok, (int32_t)i, &lb);
        if (la != lb || (la > 0 && memcmp(pa, pb, la) != 0))
            return dil_fail(err, DIL_EUNSUPPORTED, "%s and its teacher %s differ in token %u: they do not compare", a, b, i);
    }
    return DIL_OK;
}

dil_status dil__session_floats(dil__session *s, int n_threads, dil_err *err)
{
    dil_status st = DIL_OK;
    s->file = s->weights;
    dil__variant_init(&s->floats, &s->file);
    for (uint32_t l = 0; l < dil_arch_n_layers(&s->arch) && st == DIL_OK; l++)
        st = dil__variant_floats(&s->floats, &s->arch, l, n_threads, err);
    s->weights = dil__variant_weights(&s->floats);
    return st;
}

/* The blocks split evenly, as a ring of nodes would hold them. */
static dil_status open_parts(dil__session *s, dil_stage_opts *o, const dil_progress *progress, dil_err *err)
{
    uint32_t n = s->n_parts, last = o->last_layer;
    if (n > s->arch.n_blocks || n > sizeof s->rest / sizeof *s->rest) return dil_fail(err, DIL_EUSAGE, "%u stages of %u blocks: at most 16, each with a block", n, s->arch.n_blocks);
    for (int i = 0; i < 2; i++) s->hidden[i] = calloc(s->max_batch, s->arch.n_embd * sizeof *s->hidden[i]);
    s->narrow = calloc(s->max_batch, s->arch.n_embd * sizeof(float));
    if (!s->hidden[0] || !s->hidden[1] || !s->narrow) return dil_fail(err, DIL_EMEMORY, "no memory for hidden states");
    dil_status st = DIL_OK;
    for (uint32_t i = 0; i < n && st == DIL_OK; i++) {
        o->last_layer = i + 1 < n ? s->arch.n_blocks * (i + 1) / n : last;
        st = dil_stage_open(&s->arch, &s->weights, o, progress, i ? &s->rest[i - 1] : &s->stage, err);
        o->first_layer = o->last_layer + 1;
    }
    return st;
}

/* Through all stages; between them hidden states are as they would arrive over a network. */
static dil_status eval_parts(dil__session *s, const dil_batch *b, float *out, dil_err *err)
{
    uint32_t n = s->n_parts > 1 ? s->n_parts : 1;
    dil_status st = dil_stage_eval(s->stage, b, NULL, n > 1 ? s->hidden[0] : out, err);
    for (uint32_t i = 1; i < n && st == DIL_OK; i++) {
        size_t values = (size_t)b->n_tokens * s->arch.n_embd;
        float *in = s->hidden[(i - 1) % 2];
        st = dil__wire_narrow(s->wire, in, values, s->narrow, err);
        dil__wire_widen(s->wire, s->narrow, values, in);
        if (st == DIL_OK) st = dil_stage_eval(s->rest[i - 1], b, in, i + 1 < n ? s->hidden[i % 2] : out, err);
    }
    return st;
}

dil_status dil__session_start(dil__session *s, const char *device, int n_threads, uint32_t n_ctx, const dil_progress *progress,
                              dil_err *err)
{
    s->n_ctx = n_ctx;
    s->max_batch = n_ctx < MAX_BATCH ? n_ctx : MAX_BATCH;
    s->n_cached = 0;
    s->cached = calloc(n_ctx, sizeof *s->cached);
    s->pos = calloc(s->max_batch, sizeof *s->pos);
    s->want = calloc(s->max_batch, 1);
    if (!s->cached || !s->pos || !s->want)
        return dil_fail(err, DIL_EMEMORY, "%s: out of memory for %u tokens of context", dil_gguf_path(s->gguf), n_ctx);
    dil_stage_opts o = {.device = device, .n_threads = n_threads, .last_layer = s->arch.n_blocks + 1, .n_ctx = n_ctx, .n_seq = 1,
                        .max_batch = s->max_batch, .kv_type = DIL_TYPE_F16};
    return s->n_parts > 1 ? open_parts(s, &o, progress, err) : dil_stage_open(&s->arch, &s->weights, &o, progress, &s->stage, err);
}

void dil__session_close(dil__session *s)
{
    dil_stage_close(s->stage);
    for (uint32_t i = 1; i < s->n_parts && i < sizeof s->rest / sizeof *s->rest; i++) dil_stage_close(s->rest[i - 1]);
    free(s->hidden[0]);
    free(s->hidden[1]);
    free(s->narrow);
    dil_tokenizer_free(s->tok);
    dil_gguf_close(s->gguf);
    dil__variant_fini(&s->floats);
    free(s->cached);
    free(s->pos);
    free(s->want);
    memset(s, 0, sizeof *s);
}

uint32_t dil__session_keep(dil__session *s, const int32_t *ids, uint32_t n)
{
    uint32_t k = 0;
    while (k < n && k < s->n_cached && ids[k] == s->cached[k]) k++;
    if (k < s->n_cached) dil_stage_seq_trim(s->stage, 0, k);
    for (uint32_t i = 1; k < s->n_cached && i < s->n_parts; i++) dil_stage_seq_trim(s->rest[i - 1], 0, k);
    s->n_cached = k;
    return k;
}

static dil_status feed_batch(dil__session *s, const int32_t *ids, uint32_t n, uint32_t n_want, float *out, dil_err *err)
{
    for (uint32_t i = 0; i < n; i++) {
        s->pos[i] = (int32_t)(s->n_cached + i);
        s->want[i] = i + n_want >= n;
    }
    dil_batch b = {.n_tokens = n, .token = ids, .pos = s->pos, .want = s->want};
    dil_status st = eval_parts(s, &b, n_want ? out : NULL, err);
    if (st != DIL_OK) return st;
    memcpy(s->cached + s->n_cached, ids, n * sizeof *ids);
    s->n_cached += n;
    return DIL_OK;
}

dil_status dil__session_feed(dil__session *s, const int32_t *ids, uint32_t n, uint32_t n_want, float *out, dil_err *err)
{
    if (n > s->n_ctx - s->n_cached)
        return dil_fail(err, DIL_ELIMIT, "%s: %u tokens after %u do not fit a context of %u", dil_gguf_path(s->gguf), n, s->n_cached,
                        s->n_ctx);
    while (n > s->max_batch) {
        uint32_t take = n - n_want < s->max_batch ? n - n_want : s->max_batch;
        dil_status st = feed_batch(s, ids, take, 0, NULL, err);
        if (st != DIL_OK) return st;
        ids += take;
        n -= take;
    }
    return n > 0 ? feed_batch(s, ids, n, n_want, out, err) : DIL_OK;
}
