/* The best cut by dynamic programming from left to right over the normalized bytes: at each character the best sum so far is final,
 * and each piece that begins there offers one to the place where it ends. Sums are floats, added in the reference's
 * order, since vocabularies have many ties to the last bit ("ab" + "a" against "a" + "ba").
 *
 * Pieces are found in their sorted list by narrowing a range byte by byte: a trie of a quarter million pieces would take
 * twenty times the memory for the same few steps. */
#include "model/unigram.h"

#include "model/utf8.h"

#include <dilemma/tokenizer.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct dil__best { /* of the cuts that end here */
    float sum;
    uint32_t len; /* of the last piece; 0: none ends here */
    int32_t id;
};

/* --- construction ------------------------------------------------------------------------------------------------------- */

static const char *piece(const dil__vocab *v, uint32_t id, size_t *len)
{
    *len = v->offset[id + 1] - v->offset[id];
    return v->bytes + v->offset[id];
}

typedef struct entry {
    const char *s;
    size_t len;
    uint32_t id;
} entry;

static int by_bytes(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    int c = memcmp(x->s, y->s, x->len < y->len ? x->len : y->len);
    return c ? c : x->len != y->len ? (x->len > y->len) - (x->len < y->len) : (x->id > y->id) - (x->id < y->id);
}

static dil_status sort_pieces(dil__unigram *u, const dil__vocab *v, dil_err *err)
{
    entry *e = calloc(v->n, sizeof *e);
    u->sorted = calloc(v->n, sizeof *u->sorted);
    if (!e || !u->sorted) {
        free(e);
        return dil_fail(err, DIL_EMEMORY, "out of memory for %u pieces", v->n);
    }
    for (uint32_t i = 0; i < v->n; i++) {
        size_t len;
        const char *s = piece(v, i, &len);
        if ((v->type[i] != DIL__TOKEN_NORMAL && v->type[i] != DIL__TOKEN_USER) || len == 0) continue;
        if (len > DIL__PIECE_BYTES_MAX) {
            free(e);
            return dil_fail(err, DIL_ELIMIT, "tokenizer.ggml.tokens[%u]: a piece of %zu bytes, at most %d", i, len, DIL__PIECE_BYTES_MAX);
        }
        e[u->n++] = (entry){s, len, i};
    }
    qsort(e, u->n, sizeof *e, by_bytes);
    uint32_t b = 0;
    for (uint32_t i = 0; i < u->n; i++) {
        u->sorted[i] = e[i].id;
        while (b <= (uint8_t)e[i].s[0]) u->first[b++] = i;
    }
    while (b <= 256) u->first[b++] = u->n;
    free(e);
    return DIL_OK;
}

static dil_status take_scores(dil__unigram *u, const dil__vocab *v, const float *score, dil_err *err)
{
    enum { UNKNOWN_PENALTY = 10 };
    u->score = calloc(v->n, sizeof *u->score);
    if (!u->score) return dil_fail(err, DIL_EMEMORY, "out of memory for %u scores", v->n);
    float least = FLT_MAX;
    u->unk = -1;
    for (uint32_t i = 0; i < v->n; i++) {
        if (!isfinite(score[i])) return dil_fail(err, DIL_EFORMAT, "tokenizer.ggml.scores[%u] is not a finite number", i);
        u->score[i] = v->type[i] == DIL__TOKEN_USER ? 0 : score[i]; /* such a piece costs nothing: it is always taken */
        if (v->type[i] == DIL__TOKEN_UNKNOWN && u->unk < 0) u->unk = (int32_t)i;
        if (v->type[i] == DIL__TOKEN_NORMAL && score[i] < least) least = score[i];
    }
    if (u->unk < 0) return dil_fail(err, DIL_EFORMAT, "tokenizer.ggml.token_type names no unknown token; a unigram vocabulary needs one");
    u->unknown = least - (float)UNKNOWN_PENALTY;
    u->bytes = true;
    for (int b = 0; b < 256; b++) u->bytes &= v->byte_id[b] >= 0;
    return DIL_OK;
}

dil_status dil__unigram_init(dil__unigram *u, const dil__vocab *v, const float *score, const dil__unigram_src *src, dil_err *err)
{
    *u = (dil__unigram){.space_first = src->space_first, .collapses = src->collapses};
    dil_status s = take_scores(u, v, score, err);
    if (s == DIL_OK) s = sort_pieces(u, v, err);
    if (s == DIL_OK) s = dil__charsmap_init(&u->map, src->charsmap, src->charsmap_bytes, err);
    if (s != DIL_OK) dil__unigram_fini(u);
    return s;
}

void dil__unigram_fini(dil__unigram *u)
{
    free(u->score);
    free(u->sorted);
    dil__charsmap_fini(&u->map);
    *u = (dil__unigram){0};
}

/* --- normalization ------------------------------------------------------------------------------------------------------ */

/* What stands for the beginning of s, and how many of its bytes: a user-defined piece as it is, what the map says, or a character. */
static size_t normal_prefix(const dil__unigram *u, const dil__vocab *v, const char *s, size_t len, const char **to, size_t *to_len)
{
    size_t n = 0;
    *to = s;
    if (dil__vocab_added(v, s, len, false, &n) >= 0 && !memchr(s, ' ', n)) { /* one with spaces is looked for when they are settled */
        *to_len = n;
        return n;
    }
    n = dil__charsmap_find(&u->map, s, len, to, to_len);
    if (n > 0) return n;
    uint32_t cp;
    n = dil__utf8_get(s, len, &cp);
    *to = n ? s : "\xEF\xBF\xBD";
    *to_len = n ? n : 3;
    return n ? n : 1;
}

static bool append_spelled(dil_buf *out, const char *s, size_t len)
{
    for (size_t i = 0; i < len;) { /* U+2581 cannot be told from a space afterwards, in the reference either */
        size_t n = 0;
        while (i + n < len && !(len - i - n >= 3 && memcmp(s + i + n, "\xE2\x96\x81", 3) == 0)) n++;
        if (!dil_buf_append(out, s + i, n)) return false;
        i += n;
        if (i < len && !dil_buf_append(out, " ", 1)) return false;
        i += i < len ? 3 : 0;
    }
    return true;
}

dil_status dil__unigram_normalize(const dil__unigram *u, const dil__vocab *v, const char *text, size_t len, dil_buf *out, dil_err *err)
{
    const char *to;
    size_t to_len, begin = out->len, n;
    while (u->collapses && len > 0) {
        n = normal_prefix(u, v, text, len, &to, &to_len);
        if (to_len != 1 || to[0] != ' ') break;
        text += n;
        len -= n;
    }
    if (len == 0) return DIL_OK;
    bool ok = !u->space_first || dil_buf_append(out, " ", 1), after_space = u->collapses;
    while (len > 0 && ok) {
        n = normal_prefix(u, v, text, len, &to, &to_len);
        while (after_space && to_len > 0 && *to == ' ') to++, to_len--;
        if (to_len > 0) {
            ok = append_spelled(out, to, to_len);
            after_space = u->collapses && to[to_len - 1] == ' ';
        }
        text += n;
        len -= n;
    }
    while (u->collapses && ok && out->len > begin && out->data[out->len - 1] == ' ') out->len--;
    return ok ? DIL_OK : dil_fail(err, DIL_ELIMIT, "the normalized text passes %zu bytes", out->max);
}

/* --- the best cut ------------------------------------------------------------------------------------------------------- */

/* Narrows [*lo, *hi) of the sorted pieces, which agree on their first `at` bytes, to those that have byte c next. */
static void narrow(const dil__unigram *u, const dil__vocab *v, size_t at, uint8_t c, uint32_t *lo, uint32_t *hi)
{
    uint32_t end[2];
    for (int upper = 0; upper < 2; upper++) {
        uint32_t a = upper ? end[0] : *lo, b = *hi;
        while (a < b) {
            uint32_t mid = a + (b - a) / 2;
            size_t len;
            const char *s = piece(v, u->sorted[mid], &len);
            int next = at < len ? (uint8_t)s[at] : -1;
            if (next < (int)c + upper) a = mid + 1;
            else b = mid;
        }
        end[upper] = a;
    }
    *lo = end[0];
    *hi = end[1];
}

static void offer(struct dil__best *to, float sum, size_t len, int32_t id)
{
    if (to->len == 0 || sum > to->sum) *to = (struct dil__best){sum, (uint32_t)len, id};
}

/* best[0] is the character's place; left: bytes of text from here. */
static void offer_pieces(const dil__unigram *u, const dil__vocab *v, struct dil__best *best, const char *s, size_t left)
{
    uint32_t cp, lo = u->first[(uint8_t)s[0]], hi = u->first[(uint8_t)s[0] + 1];
    size_t character = dil__utf8_get(s, left, &cp);
    if (character == 0) character = 1;
    bool covered = false;
    for (size_t n = 1; lo < hi; n++) {
        size_t len;
        piece(v, u->sorted[lo], &len);
        if (len == n) { /* the shortest of the range is first */
            uint32_t id = u->sorted[lo++];
            offer(&best[n], u->score[id] + best->sum, n, (int32_t)id);
            covered |= n == character;
            while (lo < hi && (piece(v, u->sorted[lo], &len), len == n)) lo++; /* spelled twice: the first id */
        }
        if (n >= left) break;
        narrow(u, v, n, (uint8_t)s[n], &lo, &hi);
    }
    if (!covered) offer(&best[character], u->unknown + best->sum, character, u->unk);
}

static dil_status reserve(dil__viterbi *b, size_t n, dil_err *err)
{
    if (n + 1 > b->cap) {
        struct dil__best *p = realloc(b->best, (n + 1) * sizeof *p);
        if (!p) return dil_fail(err, DIL_EMEMORY, "out of memory for a text of %zu bytes", n);
        b->best = p;
        b->cap = n + 1;
    }
    memset(b->best, 0, (n + 1) * sizeof *b->best);
    return DIL_OK;
}

void dil__viterbi_fini(dil__viterbi *b)
{
    free(b->best);
    *b = (dil__viterbi){0};
}

/* Characters without a piece: their bytes, or one unknown token for all that stand together. */
static dil_status push_unknown(const dil__unigram *u, const dil__vocab *v, const char *s, size_t len, bool again, dil__ids *out, dil_err *err)
{
    if (!u->bytes) return again ? DIL_OK : dil__ids_push(out, u->unk, err);
    dil_status st = DIL_OK;
    for (size_t i = 0; i < len && st == DIL_OK; i++) st = dil__ids_push(out, v->byte_id[(uint8_t)s[i]], err);
    return st;
}

/* The places where the best cut's pieces end are turned round in place: `len` becomes that of the piece that begins there. */
static dil_status cut(const dil__unigram *u, const dil__vocab *v, dil__viterbi *b, const char *s, size_t len, bool *unknown, dil__ids *out, dil_err *err)
{
    dil_status st = reserve(b, len, err);
    for (size_t i = 0; i < len && st == DIL_OK;) {
        uint32_t cp;
        size_t n = dil__utf8_get(s + i, len - i, &cp);
        offer_pieces(u, v, &b->best[i], s + i, len - i);
        i += n ? n : 1;
    }
    if (st != DIL_OK) return st;
    struct dil__best last = b->best[len];
    for (size_t at = len; at > 0;) {
        size_t from = at - last.len;
        struct dil__best before = b->best[from];
        b->best[from] = last;
        last = before;
        at = from;
    }
    for (size_t at = 0; at < len && st == DIL_OK;) {
        struct dil__best p = b->best[at];
        bool is_unknown = p.id == u->unk;
        st = is_unknown ? push_unknown(u, v, s + at, p.len, *unknown, out, err) : dil__ids_push(out, p.id, err);
        *unknown = is_unknown;
        at += p.len;
    }
    return st;
}

dil_status dil__unigram_text(const dil__unigram *u, const dil__vocab *v, dil__viterbi *b, const char *text, size_t len, dil__ids *out, dil_err *err)
{
    dil_buf normal;
    dil_buf_init(&normal, 2 * (size_t)DIL_TOK_TEXT_MAX);
    dil_status s = dil__unigram_normalize(u, v, text, len, &normal, err);
    bool unknown = false;
    for (size_t at = 0; at < normal.len && s == DIL_OK;) {
        size_t part = dil__utf8_part((const char *)normal.data + at, normal.len - at, DIL__WORD_MAX);
        s = cut(u, v, b, (const char *)normal.data + at, part, &unknown, out, err);
        at += part;
    }
    dil_buf_fini(&normal);
    return s;
}
