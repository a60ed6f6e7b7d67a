/* Running a grammar along a text. Where a text stands is a set of threads, each a place in the program and a stack of returns; stacks
 * are lists of shared nodes, sets are kept once, and what a byte makes of a set is remembered: an automaton that is built as texts need
 * it, so that the tokens of a vocabulary, walked in the order of their bytes, cost a look-up a byte. Masks are remembered by set; inside
 * of a string it is the same set at almost every token.
 *
 * Testing only the token that was drawn, and drawing again, was rejected: top-k and nucleus would then cut among tokens that are out. */
#include "engine/grammar.h"

#include "base/mix.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX 512u        /* returns on a stack: some five a level of the document */
#define STEPS_MAX 200000u     /* without reading: a schema that refers to itself in many ways */
#define THREADS_MAX 256u      /* of one set */
#define STATES_MAX (1u << 16) /* then the automaton starts over */
#define MASKS_MAX 64u
#define TOKEN_MAX 512u        /* longer tokens are out */
#define DEAD 0u               /* the set without threads */

typedef struct frame { uint32_t back, below, depth; } frame; /* returns to `back`; the frame below, 0: none */
typedef struct thread { uint32_t pc, stack; } thread;
typedef struct state { uint32_t first, n; bool may_end; } state;

struct dil__grammar_run {
    const dil_grammar *g;
    frame *frame;
    thread *thread;
    state *state;
    uint64_t *edge_key; /* (state << 8 | byte) + 1 */
    uint32_t *edge_to, *frame_slot, *state_slot;
    uint32_t n_frames, cap_frames, n_threads, cap_threads, n_states, cap_states, n_edges, edge_mask, frame_mask, state_mask;
    uint32_t now;
    uint32_t mask_of[MASKS_MAX];
    uint64_t *mask[MASKS_MAX];
    uint32_t n_masks;
    bool failed; /* out of memory: nothing is masked from here on but to the end */
    thread gathered[THREADS_MAX];
    uint32_t n_gathered;
    bool gathered_end;
    uint32_t n_steps;
};

/* --- the vocabulary in order -------------------------------------------------------------------------------------------- */

typedef struct entry { const uint8_t *s; uint32_t len, id; } entry;

static int by_bytes(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    int c = memcmp(x->s, y->s, x->len < y->len ? x->len : y->len);
    if (c) return c;
    return x->len != y->len ? (x->len < y->len ? -1 : 1) : (x->id > y->id) - (x->id < y->id);
}

static void sort_tokens(dil_grammar_vocab *v, entry *e)
{
    for (uint32_t i = 0; i < v->n; i++) {
        uint32_t len = v->offset[i + 1] - v->offset[i];
        if (len > 0) e[v->n_text++] = (entry){v->bytes + v->offset[i], len, i};
    }
    qsort(e, v->n_text, sizeof *e, by_bytes);
    for (uint32_t i = 0; i < v->n_text; i++) {
        uint16_t common = 0;
        while (i > 0 && common < e[i].len && common < e[i - 1].len && e[i].s[common] == e[i - 1].s[common]) common++;
        v->id[i] = e[i].id;
        v->common[i] = common;
    }
}

static dil_grammar_vocab *allocate(uint32_t n, size_t total)
{
    dil_grammar_vocab *v = total <= UINT32_MAX ? calloc(1, sizeof *v) : NULL;
    if (!v) return NULL;
    v->n = n;
    v->id = calloc((size_t)n + 1, sizeof *v->id);
    v->offset = calloc((size_t)n + 1, sizeof *v->offset);
    v->common = calloc((size_t)n + 1, sizeof *v->common);
    v->ends = calloc((size_t)n + 1, 1);
    v->bytes = malloc(total + 1);
    if (v->id && v->offset && v->common && v->ends && v->bytes) return v;
    dil_grammar_vocab_free(v);
    return NULL;
}

/* Takes v over: offsets, bytes and ends are there. */
static dil_status finish_vocab(dil_grammar_vocab *v, dil_grammar_vocab **out, dil_err *err)
{
    uint32_t n = v ? v->n : 0;
    entry *e = v ? calloc((size_t)n + 1, sizeof *e) : NULL;
    if (!e) {
        dil_grammar_vocab_free(v);
        return dil_fail(err, DIL_EMEMORY, "out of memory for the vocabulary's words");
    }
    sort_tokens(v, e);
    free(e);
    *out = v;
    return DIL_OK;
}

/* Of a token that makes text; others have no bytes here. */
static const char *text_of(const dil_tokenizer *t, uint32_t token, size_t *len)
{
    const char *s = dil_token_bytes(t, (int32_t)token, len);
    if (*len > TOKEN_MAX || dil_tokenizer_is_special(t, (int32_t)token)) *len = 0;
    return s;
}

dil_status dil_grammar_vocab_new(const dil_tokenizer *t, dil_grammar_vocab **out, dil_err *err)
{
    uint32_t n = dil_tokenizer_n_vocab(t);
    size_t total = 0, len;
    for (uint32_t i = 0; i < n; i++) {
        text_of(t, i, &len);
        total += len;
    }
    dil_grammar_vocab *v = allocate(n, total);
    for (uint32_t i = 0; v && i < n; i++) {
        const char *s = text_of(t, i, &len);
        if (len) memcpy(v->bytes + v->offset[i], s, len);
        v->offset[i + 1] = v->offset[i] + (uint32_t)len;
        v->ends[i] = dil_tokenizer_is_eog(t, (int32_t)i);
    }
    return finish_vocab(v, out, err);
}

/* --- as bytes, for another machine: n 4 | n of 2: length, the high bit where the token ends a text | the tokens' bytes --------- */

enum { ENDS_BIT = 1 << 15 };

bool dil__grammar_vocab_pack(const dil_grammar_vocab *v, dil_buf *out)
{
    const uint32_t n = v->n;
    dil_buf_append(out, (const uint8_t[]){(uint8_t)n, (uint8_t)(n >> 8), (uint8_t)(n >> 16), (uint8_t)(n >> 24)}, 4);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t x = (v->offset[i + 1] - v->offset[i]) | (v->ends[i] ? ENDS_BIT : 0);
        dil_buf_append(out, (const uint8_t[]){(uint8_t)x, (uint8_t)(x >> 8)}, 2);
    }
    return dil_buf_append(out, v->bytes, v->offset[n]);
}

dil_status dil__grammar_vocab_unpack(const void *data, size_t bytes, uint32_t n_vocab, dil_grammar_vocab **out, dil_err *err)
{
    const uint8_t *p = data;
    uint32_t n = bytes < 4 ? 0 : (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
    if (n == 0 || n != n_vocab || bytes - 4 < 2 * (size_t)n) return dil_fail(err, DIL_EFORMAT, "words: not those of %u tokens", n_vocab);
    size_t total = bytes - 4 - 2 * (size_t)n;
    bool wrong = false;
    dil_grammar_vocab *v = allocate(n, total);
    for (uint32_t i = 0; v && i < n; i++) {
        uint32_t x = (uint32_t)p[4 + 2 * (size_t)i] | (uint32_t)p[5 + 2 * (size_t)i] << 8, len = x & (ENDS_BIT - 1);
        v->ends[i] = (x & ENDS_BIT) != 0;
        wrong = wrong || len > TOKEN_MAX || len > total - v->offset[i];
        v->offset[i + 1] = v->offset[i] + (wrong ? 0 : len);
    }
    if (v && (wrong || v->offset[n] != total)) {
        dil_grammar_vocab_free(v);
        return dil_fail(err, DIL_EFORMAT, "words: their lengths are not those of their bytes");
    }
    if (v && total) memcpy(v->bytes, p + bytes - total, total);
    return finish_vocab(v, out, err);
}

void dil_grammar_vocab_free(dil_grammar_vocab *v)
{
    if (!v) return;
    free(v->id);
    free(v->offset);
    free(v->common);
    free(v->ends);
    free(v->bytes);
    free(v);
}

dil_status dil_grammar_json(const dil_grammar_vocab *v, const char *schema, size_t len, dil_grammar **out, dil_err *err)
{
    dil_grammar *g = calloc(1, sizeof *g);
    if (!g) return dil_fail(err, DIL_EMEMORY, "out of memory for a grammar");
    g->vocab = v;
    dil_status s = dil__schema_compile(schema, len, g, err);
    if (s == DIL_OK && schema) {
        g->schema = malloc(len + 1);
        g->schema_len = len;
        if (g->schema) memcpy(g->schema, schema, len);
        else s = dil_fail(err, DIL_EMEMORY, "out of memory for a grammar");
    }
    if (s != DIL_OK) {
        dil_grammar_free(g);
        return s;
    }
    *out = g;
    return DIL_OK;
}

void dil_grammar_free(dil_grammar *g)
{
    if (!g) return;
    free(g->schema);
    free(g->code);
    free(g->set);
    free(g);
}

/* --- tables that grow ---------------------------------------------------------------------------------------------------- */

static bool grow(void **p, uint32_t *cap, uint32_t need, size_t size)
{
    if (need <= *cap) return true;
    uint32_t more = *cap ? *cap * 2 : 256;
    while (more < need) more *= 2;
    void *q = realloc(*p, (size_t)more * size);
    if (!q) return false;
    *p = q;
    *cap = more;
    return true;
}

/* The frame that returns to `back` above `below`; 0 where there is none (too deep, or no memory). */
static uint32_t push_frame(dil__grammar_run *r, uint32_t back, uint32_t below)
{
    uint32_t depth = below ? r->frame[below].depth + 1 : 1;
    if (depth > DEPTH_MAX) return 0;
    if (2 * r->n_frames > r->frame_mask) { /* a table twice as large */
        uint32_t size = (r->frame_mask + 1) * 2;
        uint32_t *slot = calloc(size, sizeof *slot);
        if (!slot) return r->failed = true, 0;
        for (uint32_t i = 1; i < r->n_frames; i++) {
            uint32_t at = (uint32_t)dil__mix((uint64_t)r->frame[i].back << 32 | r->frame[i].below) & (size - 1);
            while (slot[at]) at = (at + 1) & (size - 1);
            slot[at] = i;
        }
        free(r->frame_slot);
        r->frame_slot = slot;
        r->frame_mask = size - 1;
    }
    uint32_t at = (uint32_t)dil__mix((uint64_t)back << 32 | below) & r->frame_mask;
    for (; r->frame_slot[at]; at = (at + 1) & r->frame_mask) {
        const frame *f = &r->frame[r->frame_slot[at]];
        if (f->back == back && f->below == below) return r->frame_slot[at];
    }
    if (!grow((void **)&r->frame, &r->cap_frames, r->n_frames + 1, sizeof *r->frame)) return r->failed = true, 0;
    r->frame[r->n_frames] = (frame){back, below, depth};
    return r->frame_slot[at] = r->n_frames++;
}

/* --- sets of threads -------------------------------------------------------------------------------------------------------- */

/* Follows what needs no byte; threads gather at SET instructions. The program has no loop that reads nothing, and calls end at DEPTH_MAX. */
static void gather(dil__grammar_run *r, uint32_t pc, uint32_t stack)
{
    for (; r->n_steps < STEPS_MAX; r->n_steps++) {
        const dil__instr *in = &r->g->code[pc];
        switch (in->op) {
        case DIL__OP_SET:
            for (uint32_t i = 0; i < r->n_gathered; i++) {
                if (r->gathered[i].pc == pc && r->gathered[i].stack == stack) return;
            }
            if (r->n_gathered < THREADS_MAX) r->gathered[r->n_gathered++] = (thread){pc, stack};
            return;
        case DIL__OP_SPLIT:
            gather(r, in->a, stack);
            pc = in->b;
            break;
        case DIL__OP_JUMP: pc = in->a; break;
        case DIL__OP_CALL:
            stack = push_frame(r, pc + 1, stack);
            if (stack == 0) return;
            pc = in->a;
            break;
        case DIL__OP_RETURN:
            if (stack == 0) {
                r->gathered_end = true;
                return;
            }
            pc = r->frame[stack].back;
            stack = r->frame[stack].below;
            break;
        default: return;
        }
    }
}

static uint64_t hash_gathered(const dil__grammar_run *r)
{
    uint64_t h = r->gathered_end ? 7 : 3;
    for (uint32_t i = 0; i < r->n_gathered; i++) h = dil__mix(h ^ ((uint64_t)r->gathered[i].pc << 32 | r->gathered[i].stack));
    return h;
}

static bool is_gathered(const dil__grammar_run *r, const state *s)
{
    return s->n == r->n_gathered && s->may_end == r->gathered_end && (s->n == 0 || memcmp(r->thread + s->first, r->gathered, s->n * sizeof(thread)) == 0);
}

static uint64_t hash_state(dil__grammar_run *r, const state *s)
{
    uint64_t h = s->may_end ? 7 : 3;
    for (uint32_t i = 0; i < s->n; i++) h = dil__mix(h ^ ((uint64_t)r->thread[s->first + i].pc << 32 | r->thread[s->first + i].stack));
    return h;
}

static bool widen_states(dil__grammar_run *r)
{
    uint32_t size = (r->state_mask + 1) * 2;
    uint32_t *slot = calloc(size, sizeof *slot);
    if (!slot) return false;
    for (uint32_t i = 1; i < r->n_states; i++) {
        uint32_t at = (uint32_t)hash_state(r, &r->state[i]) & (size - 1);
        while (slot[at]) at = (at + 1) & (size - 1);
        slot[at] = i;
    }
    free(r->state_slot);
    r->state_slot = slot;
    r->state_mask = size - 1;
    return true;
}

/* The number of the set that was gathered. */
static uint32_t intern(dil__grammar_run *r)
{
    if (r->n_gathered == 0 && !r->gathered_end) return DEAD;
    if (2 * r->n_states > r->state_mask && !widen_states(r)) return r->failed = true, DEAD;
    uint32_t at = (uint32_t)hash_gathered(r) & r->state_mask;
    for (; r->state_slot[at]; at = (at + 1) & r->state_mask) {
        if (is_gathered(r, &r->state[r->state_slot[at]])) return r->state_slot[at];
    }
    if (!grow((void **)&r->state, &r->cap_states, r->n_states + 1, sizeof *r->state) ||
        !grow((void **)&r->thread, &r->cap_threads, r->n_threads + r->n_gathered, sizeof *r->thread))
        return r->failed = true, DEAD;
    r->state[r->n_states] = (state){r->n_threads, r->n_gathered, r->gathered_end};
    if (r->n_gathered) memcpy(r->thread + r->n_threads, r->gathered, r->n_gathered * sizeof(thread));
    r->n_threads += r->n_gathered;
    return r->state_slot[at] = r->n_states++;
}

static bool holds(const dil__byteset *s, uint8_t byte)
{
    return s->bit[byte / 8] >> (byte % 8) & 1;
}

static uint32_t compute_step(dil__grammar_run *r, uint32_t from, uint8_t byte)
{
    r->n_gathered = 0;
    r->gathered_end = false;
    r->n_steps = 0;
    uint32_t first = r->state[from].first, n = r->state[from].n;
    for (uint32_t i = 0; i < n; i++) {
        thread t = r->thread[first + i];
        if (holds(&r->g->set[r->g->code[t.pc].a], byte)) gather(r, t.pc + 1, t.stack);
    }
    return intern(r);
}

static bool widen_edges(dil__grammar_run *r)
{
    uint32_t size = (r->edge_mask + 1) * 2;
    uint64_t *key = calloc(size, sizeof *key);
    uint32_t *to = calloc(size, sizeof *to);
    if (!key || !to) {
        free(key);
        free(to);
        return false;
    }
    for (uint32_t i = 0; i <= r->edge_mask; i++) {
        if (r->edge_key[i] == 0) continue;
        uint32_t at = (uint32_t)dil__mix(r->edge_key[i]) & (size - 1);
        while (key[at]) at = (at + 1) & (size - 1);
        key[at] = r->edge_key[i];
        to[at] = r->edge_to[i];
    }
    free(r->edge_key);
    free(r->edge_to);
    r->edge_key = key;
    r->edge_to = to;
    r->edge_mask = size - 1;
    return true;
}

static uint32_t step(dil__grammar_run *r, uint32_t from, uint8_t byte)
{
    if (from == DEAD || r->failed) return DEAD;
    uint64_t key = ((uint64_t)from << 8 | byte) + 1;
    uint32_t at = (uint32_t)dil__mix(key) & r->edge_mask;
    for (; r->edge_key[at]; at = (at + 1) & r->edge_mask) {
        if (r->edge_key[at] == key) return r->edge_to[at];
    }
    uint32_t to = compute_step(r, from, byte);
    if (2 * r->n_edges > r->edge_mask) {
        if (!widen_edges(r)) return r->failed = true, DEAD;
        for (at = (uint32_t)dil__mix(key) & r->edge_mask; r->edge_key[at]; at = (at + 1) & r->edge_mask) {}
    }
    r->edge_key[at] = key;
    r->edge_to[at] = to;
    r->n_edges++;
    return to;
}

/* --- a run ------------------------------------------------------------------------------------------------------------------- */

static void clear(dil__grammar_run *r)
{
    free(r->frame);
    free(r->thread);
    free(r->state);
    free(r->edge_key);
    free(r->edge_to);
    free(r->frame_slot);
    free(r->state_slot);
    for (uint32_t i = 0; i < r->n_masks; i++) free(r->mask[i]);
    *r = (dil__grammar_run){.g = r->g};
}

static bool begin(dil__grammar_run *r)
{
    enum { FIRST = 1024 };
    r->edge_mask = r->frame_mask = r->state_mask = FIRST - 1;
    r->edge_key = calloc(FIRST, sizeof *r->edge_key);
    r->edge_to = calloc(FIRST, sizeof *r->edge_to);
    r->frame_slot = calloc(FIRST, sizeof *r->frame_slot);
    r->state_slot = calloc(FIRST, sizeof *r->state_slot);
    bool ok = grow((void **)&r->frame, &r->cap_frames, 1, sizeof *r->frame) && grow((void **)&r->thread, &r->cap_threads, 1, sizeof *r->thread) &&
              grow((void **)&r->state, &r->cap_states, 1, sizeof *r->state);
    if (!ok || !r->edge_key || !r->edge_to || !r->frame_slot || !r->state_slot) return false;
    r->frame[0] = (frame){0};
    r->state[DEAD] = (state){0};
    r->n_frames = r->n_states = 1;
    return true;
}

dil__grammar_run *dil__grammar_run_new(const dil_grammar *g)
{
    dil__grammar_run *r = calloc(1, sizeof *r);
    if (!r) return NULL;
    r->g = g;
    if (!begin(r)) {
        dil__grammar_run_free(r);
        return NULL;
    }
    gather(r, g->start, 0);
    r->now = intern(r);
    return r;
}

void dil__grammar_run_free(dil__grammar_run *r)
{
    if (!r) return;
    clear(r);
    free(r);
}

bool dil__grammar_run_may_end(const dil__grammar_run *r)
{
    return r->state[r->now].may_end;
}

/* Which tokens may come after a set, a bit each. Tokens lie in the order of their bytes: where one fails, those that share the failing
 * beginning fail with it. */
static void fill_mask(dil__grammar_run *r, uint64_t *bits)
{
    const dil_grammar_vocab *v = r->g->vocab;
    uint32_t at[TOKEN_MAX + 1], known = 0; /* the sets after so many bytes of the token before */
    at[0] = r->now;
    for (uint32_t i = 0; i < v->n_text; i++) {
        uint32_t id = v->id[i], len = v->offset[id + 1] - v->offset[id];
        const uint8_t *s = v->bytes + v->offset[id];
        if (v->common[i] < known) known = v->common[i];
        while (known < len && at[known] != DEAD) {
            at[known + 1] = step(r, at[known], s[known]);
            known++;
        }
        if (known == len && at[len] != DEAD) bits[id / 64] |= (uint64_t)1 << (id % 64);
    }
}

static const uint64_t *mask_of(dil__grammar_run *r)
{
    for (uint32_t i = 0; i < r->n_masks; i++) {
        if (r->mask_of[i] == r->now) return r->mask[i];
    }
    uint32_t words = (r->g->vocab->n + 63) / 64;
    if (r->n_masks == MASKS_MAX) {
        for (uint32_t i = 0; i < r->n_masks; i++) free(r->mask[i]);
        r->n_masks = 0;
    }
    uint64_t *bits = calloc(words ? words : 1, sizeof *bits);
    if (!bits) return NULL;
    fill_mask(r, bits);
    r->mask_of[r->n_masks] = r->now;
    return r->mask[r->n_masks++] = bits;
}

void dil__grammar_run_mask(dil__grammar_run *r, float *logits, uint32_t n_vocab)
{
    const dil_grammar_vocab *v = r->g->vocab;
    const uint64_t *bits = mask_of(r);
    bool any = false, may_end = dil__grammar_run_may_end(r);
    for (uint32_t i = 0; bits && !any && i < (v->n + 63) / 64; i++) any = bits[i] != 0;
    for (uint32_t i = 0; i < n_vocab; i++) {
        bool in = i < v->n && (v->ends[i] ? may_end || !any : bits && bits[i / 64] >> (i % 64) & 1);
        if (!in) logits[i] = -INFINITY;
    }
}

/* Only the set where the text stands outlives a new beginning; its stacks are copied. */
static void start_over(dil__grammar_run *r)
{
    state s = r->state[r->now];
    thread *old = malloc((s.n + 1) * sizeof *old);
    uint32_t (*stack)[DEPTH_MAX] = malloc((s.n + 1) * sizeof *stack), *depth = calloc(s.n + 1, sizeof *depth);
    bool ok = old && stack && depth;
    for (uint32_t i = 0; ok && i < s.n; i++) {
        old[i] = r->thread[s.first + i];
        for (uint32_t f = old[i].stack; f; f = r->frame[f].below) stack[i][depth[i]++] = r->frame[f].back;
    }
    clear(r);
    ok = begin(r) && ok;
    for (uint32_t i = 0; ok && i < s.n; i++) {
        uint32_t f = 0;
        for (uint32_t k = depth[i]; k-- > 0;) f = push_frame(r, stack[i][k], f);
        r->gathered[r->n_gathered++] = (thread){old[i].pc, f};
    }
    r->gathered_end = s.may_end;
    if (ok) r->now = intern(r);
    else r->failed = true, r->now = DEAD;
    free(old);
    free(stack);
    free(depth);
}

void dil__grammar_run_accept(dil__grammar_run *r, int32_t token)
{
    const dil_grammar_vocab *v = r->g->vocab;
    if (token < 0 || (uint32_t)token >= v->n || v->ends[token]) return;
    for (uint32_t i = v->offset[token]; i < v->offset[token + 1]; i++) r->now = step(r, r->now, v->bytes[i]);
    if (r->n_states > STATES_MAX) start_over(r);
}
