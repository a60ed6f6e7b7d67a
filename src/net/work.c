/* The frames of the decode path. They are laid out so that token ids, positions and hidden states can be used where they
 * lie in the received message: nothing is copied or allocated between the socket and the engine.
 *
 *   header 32 | stage n_tokens n_begin n_hidden extra_bytes 0 (4 each) | compute_ns 8 | begins 64 each | extras | tokens,
 *   positions, sequences (4 each) | wants (1 each) | zeros up to a multiple of 8 | hidden states
 *
 * The extras are what some begins have beside their numbers, in order: biases (token 4, bias 4), then a schema's text and zeros up to a
 * multiple of 4. */
#include "net/message.h"

#include "engine/grammar.h"

#include <math.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the arrays of a WORK frame are used in place: a big-endian machine needs a copy here"
#endif

enum { HEAD = DIL_FRAME_HEADER_BYTES + 32, BEGIN = 64 };
enum { GRAMMAR_NONE, GRAMMAR_ANY, GRAMMAR_SCHEMA };
_Static_assert(sizeof(dil_logit_bias) == 8, "a bias is used where it lies in the frame");

static size_t hidden_offset(const dil__work_head *h)
{
    size_t n = HEAD + (size_t)h->n_begin * BEGIN + h->extra_bytes + (size_t)h->n_tokens * 13;
    return (n + 7) & ~(size_t)7;
}

size_t dil__work_bytes(const dil__work_head *h)
{
    return hidden_offset(h) + (size_t)h->n_tokens * h->n_hidden * (h->value_bytes ? h->value_bytes : sizeof(float));
}

static uint8_t *append(uint8_t *p, const void *data, size_t n)
{
    if (n) memcpy(p, data, n);
    return p + n;
}

static size_t padded(size_t n)
{
    return (n + 3) & ~(size_t)3;
}

uint32_t dil__work_extra_bytes(const dil__begin *begin, uint32_t n)
{
    size_t sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        const dil_sampler_opts *o = &begin[i].sampler;
        sum += (size_t)o->n_bias * sizeof *o->bias + (o->grammar ? padded(o->grammar->schema_len) : 0);
    }
    return (uint32_t)sum;
}

static uint8_t *append_extras(uint8_t *p, const dil__begin *b)
{
    const dil_sampler_opts *o = &b->sampler;
    p = append(p, o->bias, (size_t)o->n_bias * sizeof *o->bias);
    if (!o->grammar) return p;
    size_t n = o->grammar->schema_len;
    p = append(p, o->grammar->schema, n);
    memset(p, 0, padded(n) - n);
    return p + padded(n) - n;
}

static uint8_t *append_begin(uint8_t *p, const dil__begin *b)
{
    const dil_sampler_opts *o = &b->sampler;
    const float f[] = {o->temperature, o->top_p, o->min_p, o->repeat_penalty, o->presence_penalty, o->frequency_penalty};
    p = append(p, &b->slot, 4);
    p = append(p, &b->n_prompt, 4);
    p = append(p, &b->n_known, 4);
    p = append(p, &o->top_k, 4);
    p = append(p, f, sizeof f);
    p = append(p, &o->seed, 8);
    const dil_grammar *g = o->grammar;
    const uint32_t more[] = {b->n_top, o->n_bias, !g ? GRAMMAR_NONE : g->schema ? GRAMMAR_SCHEMA : GRAMMAR_ANY, g ? (uint32_t)g->schema_len : 0};
    return append(p, more, sizeof more);
}

void dil__work_put(uint8_t *out, uint64_t session, uint64_t id, uint32_t epoch, const dil__work_head *h, const dil_batch *b,
                   const dil__begin *begin, void **hidden)
{
    size_t at = hidden_offset(h);
    dil_frame_header(out, &(dil_frame){.type = DIL_FRAME_WORK, .session = session, .id = id, .epoch = epoch,
                                       .body_bytes = (uint32_t)(dil__work_bytes(h) - DIL_FRAME_HEADER_BYTES)});
    uint8_t *p = out + DIL_FRAME_HEADER_BYTES;
    const uint32_t numbers[] = {h->stage, h->n_tokens, h->n_begin, h->n_hidden, h->extra_bytes, 0};
    p = append(p, numbers, sizeof numbers);
    p = append(p, &h->compute_ns, 8);
    for (uint32_t i = 0; begin && i < h->n_begin; i++) p = append_begin(p, &begin[i]);
    for (uint32_t i = 0; begin && i < h->n_begin; i++) p = append_extras(p, &begin[i]);
    p = out + HEAD + (size_t)h->n_begin * BEGIN + h->extra_bytes;
    p = append(p, b->token, h->n_tokens * sizeof *b->token);
    p = append(p, b->pos, h->n_tokens * sizeof *b->pos);
    p = append(p, b->seq, h->n_tokens * sizeof *b->seq);
    p = append(p, b->want, h->n_tokens);
    memset(p, 0, (size_t)(out + at - p));
    *hidden = out + at;
}

void dil__work_patch(uint8_t *out, const dil__work_head *h, const dil__work_view *from)
{
    memcpy(out + HEAD - 8, &h->compute_ns, 8);
    append(out + HEAD, from->begins, (size_t)h->n_begin * BEGIN + h->extra_bytes);
}

static dil_status bad(dil_err *err, const char *what)
{
    return dil_fail(err, DIL_EFORMAT, "WORK: %s", what);
}

/* What may not be read before it is checked: where the extras lie. */
static dil_status check_extras(const dil__work_view *v, dil_err *err)
{
    size_t left = v->head.extra_bytes;
    for (uint32_t i = 0; i < v->head.n_begin; i++) {
        dil_rd r = {.p = v->begins + (size_t)i * BEGIN + BEGIN - 12, .left = 12};
        uint32_t n_bias = dil_get_u32(&r), kind = dil_get_u32(&r), len = dil_get_u32(&r);
        if (n_bias > DIL_LOGIT_BIAS_MAX || kind > GRAMMAR_SCHEMA || len > DIL__SCHEMA_MAX || (len > 0) != (kind == GRAMMAR_SCHEMA))
            return bad(err, "a sequence begins with biases or a schema beyond their bounds");
        size_t n = n_bias * sizeof(dil_logit_bias) + padded(len);
        if (n > left) return bad(err, "the extras are shorter than its begins say");
        left -= n;
    }
    return left == 0 ? DIL_OK : bad(err, "the extras are longer than its begins say");
}

static dil_status check_biases(const dil__begin *b, dil_err *err)
{
    for (uint32_t i = 0; i < b->sampler.n_bias; i++) {
        if (!isfinite(b->sampler.bias[i].bias)) return bad(err, "a bias is no number");
    }
    return DIL_OK;
}

static dil_status check_batch(dil__work_view *v, uint32_t n_ctx, uint32_t n_seq, uint32_t n_vocab, dil_err *err)
{
    const dil_batch *b = &v->batch;
    for (uint32_t i = 0; i < b->n_tokens; i++) {
        if (b->token[i] < 0 || (uint32_t)b->token[i] >= n_vocab) return bad(err, "a token is outside the vocabulary");
        if (b->pos[i] < 0 || (uint32_t)b->pos[i] >= n_ctx) return bad(err, "a position is outside the context");
        if (b->seq[i] < 0 || (uint32_t)b->seq[i] >= n_seq) return bad(err, "there is no such sequence");
        if (b->want[i] > 1) return bad(err, "a want is neither 0 nor 1");
        v->n_want += b->want[i];
    }
    for (uint32_t i = 0; i < v->head.n_begin; i++) {
        dil__begin begins = dil__work_begin(v, i);
        if (begins.slot >= n_seq) return bad(err, "a sequence begins that does not exist");
        if (begins.n_prompt > begins.n_known || begins.n_known > n_ctx) return bad(err, "a sequence begins with more tokens than the context holds");
        if (begins.n_top > DIL_GEN_TOP_MAX) return bad(err, "more alternatives are wanted than there may be");
        if (check_biases(&begins, err) != DIL_OK) return DIL_EFORMAT;
    }
    if (v->n_want > n_seq + DIL__DRAFT_MAX) return bad(err, "more tokens are wanted than sequences and guesses give");
    return DIL_OK;
}

dil_status dil__work_get(const dil_frame *f, uint32_t n_ctx, uint32_t n_seq, uint32_t n_vocab, uint32_t max_tokens, uint32_t value_bytes, dil__work_view *out,
                         dil_err *err)
{
    dil_rd r = dil_frame_body(f);
    dil__work_view v = {.head.value_bytes = value_bytes};
    v.head.stage = dil_get_u32(&r);
    v.head.n_tokens = dil_get_u32(&r);
    v.head.n_begin = dil_get_u32(&r);
    v.head.n_hidden = dil_get_u32(&r);
    v.head.extra_bytes = dil_get_u32(&r);
    dil_get_u32(&r);
    v.head.compute_ns = dil_get_u64(&r);
    if (r.failed) return bad(err, "shorter than its head");
    if (v.head.n_tokens > max_tokens || v.head.n_begin > n_seq || v.head.n_hidden > DIL_ARCH_WIDTH_MAX || v.head.extra_bytes % 4)
        return bad(err, "more tokens, begins or values than the session allows");
    if (dil__work_bytes(&v.head) != (size_t)f->body_bytes + DIL_FRAME_HEADER_BYTES) return bad(err, "its length is not what its head says");
    const uint8_t *start = f->body - DIL_FRAME_HEADER_BYTES;
    if ((uintptr_t)start % 8) return dil_fail(err, DIL_EINTERNAL, "a WORK frame lies at an odd address");
    v.begins = r.p;
    if (check_extras(&v, err) != DIL_OK) return DIL_EFORMAT;
    const uint8_t *p = v.begins + (size_t)v.head.n_begin * BEGIN + v.head.extra_bytes;
    size_t n = v.head.n_tokens;
    v.batch = (dil_batch){.n_tokens = v.head.n_tokens, .token = (const int32_t *)(const void *)p, .pos = (const int32_t *)(const void *)(p + 4 * n),
                          .seq = (const int32_t *)(const void *)(p + 8 * n), .want = p + 12 * n};
    v.hidden = v.head.n_hidden ? start + hidden_offset(&v.head) : NULL;
    dil_status s = check_batch(&v, n_ctx, n_seq, n_vocab, err);
    if (s == DIL_OK) *out = v;
    return s;
}

static const uint8_t *extras_of(const dil__work_view *v, uint32_t begin)
{
    const uint8_t *p = v->begins + (size_t)v->head.n_begin * BEGIN;
    for (uint32_t i = 0; i < begin; i++) {
        dil_rd r = {.p = v->begins + (size_t)i * BEGIN + BEGIN - 12, .left = 12};
        uint32_t n_bias = dil_get_u32(&r);
        dil_get_u32(&r);
        p += n_bias * sizeof(dil_logit_bias) + padded(dil_get_u32(&r));
    }
    return p;
}

dil__begin dil__work_begin(const dil__work_view *v, uint32_t i)
{
    dil_rd r = {.p = v->begins + (size_t)i * BEGIN, .left = BEGIN};
    dil__begin b = {.slot = dil_get_u32(&r)};
    b.n_prompt = dil_get_u32(&r);
    b.n_known = dil_get_u32(&r);
    dil_sampler_opts *o = &b.sampler;
    o->top_k = dil_get_u32(&r);
    o->temperature = dil_get_f32(&r);
    o->top_p = dil_get_f32(&r);
    o->min_p = dil_get_f32(&r);
    o->repeat_penalty = dil_get_f32(&r);
    o->presence_penalty = dil_get_f32(&r);
    o->frequency_penalty = dil_get_f32(&r);
    o->seed = dil_get_u64(&r);
    b.n_top = dil_get_u32(&r);
    o->n_bias = dil_get_u32(&r);
    b.json = dil_get_u32(&r) != GRAMMAR_NONE;
    b.schema_len = dil_get_u32(&r);
    const uint8_t *extra = extras_of(v, i);
    if (o->n_bias) o->bias = (const dil_logit_bias *)(const void *)extra;
    if (b.schema_len) b.schema = (const char *)extra + o->n_bias * sizeof *o->bias;
    return b;
}

bool dil__msg_result(dil_buf *b, uint64_t session, uint64_t id, uint32_t epoch, uint64_t compute_ns, const dil__row *rows, uint32_t n)
{
    dil_frame_begin(b, DIL_FRAME_RESULT, session, id, epoch);
    dil_put_u64(b, compute_ns);
    dil_put_u32(b, n);
    for (uint32_t i = 0; i < n; i++) {
        dil_put_i32(b, rows[i].token);
        dil_put_f32(b, rows[i].logprob);
        dil_put_u32(b, rows[i].n_top);
        for (uint32_t k = 0; k < rows[i].n_top; k++) {
            dil_put_i32(b, rows[i].top[k].token);
            dil_put_f32(b, rows[i].top[k].logprob);
        }
    }
    return dil_frame_end(b);
}

dil_status dil__msg_get_result(const dil_frame *f, uint64_t *compute_ns, dil__row *rows, uint32_t cap, uint32_t *n, dil_err *err)
{
    dil_rd r = dil_frame_body(f);
    uint64_t ns = dil_get_u64(&r);
    uint32_t count = dil_get_count(&r, cap, 12);
    for (uint32_t i = 0; i < count; i++) {
        rows[i].token = dil_get_i32(&r);
        rows[i].logprob = dil_get_f32(&r);
        rows[i].n_top = dil_get_count(&r, DIL_GEN_TOP_MAX, 8);
        for (uint32_t k = 0; k < rows[i].n_top; k++) {
            rows[i].top[k].token = dil_get_i32(&r);
            rows[i].top[k].logprob = dil_get_f32(&r);
        }
    }
    if (!dil_rd_done(&r)) return dil_fail(err, DIL_EFORMAT, "RESULT: malformed");
    *compute_ns = ns;
    *n = count;
    return DIL_OK;
}
