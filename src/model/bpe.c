/* Byte-pair merges of one word: of all neighbouring pairs the one of lowest rank, leftmost first, is replaced, until none is left.
 *
 * Symbols are a doubly linked list over an array; candidate pairs lie in a binary heap of 64-bit keys, rank above position, and an
 * entry whose symbols have changed meanwhile is recognised when it comes up and dropped. That is n log n for a word of n bytes;
 * scanning for the best pair each time, as is usual for short words, is quadratic on a page of one letter. */
#include "model/vocab.h"

#include "model/utf8.h"

#include <stdlib.h>

struct dil__symbol {
    int32_t id; /* -1: merged into its left neighbour */
    int32_t prev, next;
};

void dil__bpe_fini(dil__bpe *b)
{
    free(b->sym);
    free(b->heap);
    *b = (dil__bpe){0};
}

dil_status dil__ids_push(dil__ids *ids, int32_t id, dil_err *err)
{
    if (ids->n == ids->cap) {
        size_t cap = ids->cap ? ids->cap * 2 : 64, bytes;
        int32_t *p = dil_mul_size(cap, sizeof *p, &bytes) ? realloc(ids->id, bytes) : NULL;
        if (!p) return dil_fail(err, DIL_EMEMORY, "out of memory for %zu token ids", cap);
        ids->id = p;
        ids->cap = cap;
    }
    ids->id[ids->n++] = id;
    return DIL_OK;
}

static void heap_push(uint64_t *heap, size_t *n, uint64_t key)
{
    size_t i = (*n)++;
    while (i > 0 && heap[(i - 1) / 2] > key) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = key;
}

static uint64_t heap_pop(uint64_t *heap, size_t *n)
{
    uint64_t top = heap[0], last = heap[--*n];
    size_t i = 0;
    for (size_t c; (c = 2 * i + 1) < *n; i = c) {
        if (c + 1 < *n && heap[c + 1] < heap[c]) c++;
        if (heap[c] >= last) break;
        heap[i] = heap[c];
    }
    heap[i] = last;
    return top;
}

/* A word of n symbols begins with at most n - 1 candidates, and each of its at most n - 1 merges takes one and adds at most two. */
static dil_status reserve(dil__bpe *b, size_t n, dil_err *err)
{
    if (n > b->sym_cap) {
        size_t cap = n < 256 ? 256 : n;
        struct dil__symbol *p = realloc(b->sym, cap * sizeof *p);
        if (!p) return dil_fail(err, DIL_EMEMORY, "out of memory for a word of %zu bytes", n);
        b->sym = p;
        b->sym_cap = cap;
    }
    if (2 * n > b->heap_cap) {
        size_t cap = n < 256 ? 512 : 2 * n;
        uint64_t *p = realloc(b->heap, cap * sizeof *p);
        if (!p) return dil_fail(err, DIL_EMEMORY, "out of memory for a word of %zu bytes", n);
        b->heap = p;
        b->heap_cap = cap;
    }
    return DIL_OK;
}

static void push_pair(const dil__vocab *v, dil__bpe *b, size_t *n_heap, int32_t at)
{
    int32_t next = at < 0 ? -1 : b->sym[at].next;
    if (next < 0) return;
    int32_t made;
    int64_t rank = dil__vocab_join(v, b->sym[at].id, b->sym[next].id, &made);
    if (rank >= 0) heap_push(b->heap, n_heap, (uint64_t)rank << 32 | (uint32_t)at);
}

static void merge(const dil__vocab *v, dil__bpe *b, size_t *n_heap, uint64_t key)
{
    int32_t at = (int32_t)(uint32_t)key, made;
    struct dil__symbol *s = &b->sym[at];
    if (s->id < 0 || s->next < 0 || dil__vocab_join(v, s->id, b->sym[s->next].id, &made) != (int64_t)(key >> 32)) return;
    struct dil__symbol *gone = &b->sym[s->next];
    s->id = made;
    s->next = gone->next;
    gone->id = -1;
    if (s->next >= 0) b->sym[s->next].prev = at;
    push_pair(v, b, n_heap, s->prev);
    push_pair(v, b, n_heap, at);
}

static dil_status merge_all(const dil__vocab *v, dil__bpe *b, int32_t n, dil__ids *out, dil_err *err)
{
    if (n == 0) return DIL_OK;
    b->sym[n - 1].next = -1;
    size_t n_heap = 0;
    for (int32_t i = 0; i + 1 < n; i++) push_pair(v, b, &n_heap, i);
    while (n_heap > 0) merge(v, b, &n_heap, heap_pop(b->heap, &n_heap));
    dil_status s = DIL_OK;
    for (int32_t i = 0; i >= 0 && s == DIL_OK; i = b->sym[i].next) s = dil__ids_push(out, b->sym[i].id, err);
    return s;
}

/* One character as its token, else as the tokens of its bytes; returns the new number of symbols. */
static int32_t push_character(const dil__vocab *v, dil__bpe *b, int32_t n, const char *s, size_t len)
{
    int32_t id = dil__vocab_find(v, s, len);
    for (size_t i = 0; i < (id >= 0 ? 1 : len); i++) {
        int32_t one = id >= 0 ? id : v->byte_id[(uint8_t)s[i]];
        if (one < 0) continue;
        b->sym[n] = (struct dil__symbol){one, n - 1, n + 1};
        n++;
    }
    return n;
}

dil_status dil__bpe_word(const dil__vocab *v, dil__bpe *b, const char *word, size_t len, dil__ids *out, dil_err *err)
{
    while (len > DIL__WORD_MAX) {
        dil_status s = dil__bpe_word(v, b, word, DIL__WORD_MAX, out, err);
        if (s != DIL_OK) return s;
        word += DIL__WORD_MAX;
        len -= DIL__WORD_MAX;
    }
    dil_status s = reserve(b, len, err);
    if (s != DIL_OK) return s;
    int32_t n = 0;
    for (size_t i = 0; i < len; i++) {
        int32_t id = v->byte_id[(uint8_t)word[i]];
        if (id < 0) continue;
        b->sym[n] = (struct dil__symbol){id, n - 1, n + 1};
        n++;
    }
    return merge_all(v, b, n, out, err);
}

dil_status dil__bpe_text(const dil__vocab *v, dil__bpe *b, const char *text, size_t len, bool space_first, dil__ids *out, dil_err *err)
{
    while (len > 0) {
        size_t part = dil__utf8_part(text, len, DIL__WORD_MAX);
        dil_status s = reserve(b, part + 1, err);
        if (s != DIL_OK) return s;
        int32_t n = 0;
        if (space_first) n = push_character(v, b, n, " ", 1);
        for (size_t i = 0; i < part;) {
            uint32_t cp;
            size_t k = dil__utf8_get(text + i, part - i, &cp);
            bool space = cp == 0x2581; /* the references cannot tell it from a space either */
            n = push_character(v, b, n, space ? " " : text + i, space ? 1 : k ? k : 1);
            i += k ? k : 1;
        }
        s = merge_all(v, b, n, out, err);
        if (s != DIL_OK) return s;
        space_first = false;
        text += part;
        len -= part;
    }
    return DIL_OK;
}
