/* Builds a vocabulary's tables from what a file says, and refuses what does not fit together: an ordinary token outside the byte
 * alphabet, one spelled twice, a merge of unknown parts or into an unknown whole, a type that does not exist. After that no look-up
 * can fail in a way that the tokenizer would have to handle.
 *
 * Tables are open addressing at half load or less. Added tokens (which may begin anywhere in a text) are in a trie whose root is an
 * array by byte; with the named limit on their length a look-up is bounded whatever the file holds. */
#include "model/vocab.h"

#include "base/mix.h"
#include "model/utf8.h"

#include <stdlib.h>
#include <string.h>

/* --- GPT-2's alphabet: printable Latin-1 stands for itself, the other 68 bytes are U+0100 and on, in order --------------------- */

static bool is_itself(uint32_t b)
{
    return (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || (b >= 0xAE && b <= 0xFF);
}

static int byte_of(uint32_t cp)
{
    if (cp <= 0xFF) return is_itself(cp) ? (int)cp : -1;
    if (cp < 0x100 + 33) return (int)(cp - 0x100);              /* 00 to 20 */
    if (cp < 0x100 + 33 + 34) return (int)(cp - 0x100 - 33 + 0x7F); /* 7F to A0 */
    return cp == 0x100 + 67 ? 0xAD : -1;
}

size_t dil__vocab_spell(uint8_t b, char *out)
{
    uint32_t cp = is_itself(b) ? b : b <= 0x20 ? 0x100u + b : b == 0xAD ? 0x100u + 67 : 0x100u + 33 + (b - 0x7Fu);
    return dil__utf8_put(out, cp);
}

/* Writes the bytes that a spelling stands for; false where it is not in the alphabet. out holds len bytes. */
static bool decode_alphabet(dil__str t, char *out, size_t *out_len)
{
    size_t n = 0;
    for (size_t i = 0; i < t.len;) {
        uint32_t cp;
        size_t k = dil__utf8_get(t.s + i, t.len - i, &cp);
        int b = k ? byte_of(cp) : -1;
        if (b < 0) return false;
        out[n++] = (char)b;
        i += k;
    }
    *out_len = n;
    return true;
}

/* --- tables ------------------------------------------------------------------------------------------------------------ */

static uint64_t hash_more(uint64_t h, const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++) h = (h ^ (uint8_t)s[i]) * 0x100000001B3u;
    return h;
}

static uint32_t hash_bytes(const char *a, size_t a_len, const char *b, size_t b_len)
{
    return (uint32_t)dil__mix(hash_more(hash_more(0xCBF29CE484222325u, a, a_len), b, b_len));
}

static uint32_t hash_pair(int32_t left, int32_t right)
{
    return (uint32_t)dil__mix((uint64_t)(uint32_t)left << 32 | (uint32_t)right);
}

static uint32_t *table_new(size_t n, uint32_t *mask)
{
    uint32_t size = 16;
    while (size < 2 * n) size *= 2;
    *mask = size - 1;
    return calloc(size, sizeof(uint32_t));
}

static const char *token_at(const dil__vocab *v, uint32_t id, size_t *len)
{
    *len = v->offset[id + 1] - v->offset[id];
    return v->bytes + v->offset[id];
}

/* The slot that holds these bytes (a and then b), or the free one where they belong. */
static uint32_t *token_slot(const dil__vocab *v, const char *a, size_t a_len, const char *b, size_t b_len)
{
    for (uint32_t i = hash_bytes(a, a_len, b, b_len) & v->slot_mask;; i = (i + 1) & v->slot_mask) {
        uint32_t *slot = &v->slot[i];
        if (*slot == 0) return slot;
        size_t n;
        const char *t = token_at(v, *slot - 1, &n);
        if (n == a_len + b_len && memcmp(t, a, a_len) == 0 && (b_len == 0 || memcmp(t + a_len, b, b_len) == 0)) return slot;
    }
}

int32_t dil__vocab_find(const dil__vocab *v, const char *bytes, size_t len)
{
    return (int32_t)*token_slot(v, bytes, len, NULL, 0) - 1;
}

static uint32_t *pair_slot(const dil__vocab *v, int32_t left, int32_t right)
{
    for (uint32_t i = hash_pair(left, right) & v->pair_mask;; i = (i + 1) & v->pair_mask) {
        uint32_t *slot = &v->pair[i];
        if (*slot == 0 || (v->left[*slot - 1] == left && v->right[*slot - 1] == right)) return slot;
    }
}

int64_t dil__vocab_join(const dil__vocab *v, int32_t left, int32_t right, int32_t *made)
{
    if (!v->rank) {
        int64_t rank = (int64_t)*pair_slot(v, left, right) - 1;
        if (rank >= 0) *made = v->made[rank];
        return rank;
    }
    if (v->type[left] == DIL__TOKEN_BYTE || v->type[right] == DIL__TOKEN_BYTE) return -1;
    size_t a, b;
    const char *s = token_at(v, (uint32_t)left, &a), *t = token_at(v, (uint32_t)right, &b);
    uint32_t id = *token_slot(v, s, a, t, b);
    if (id == 0) return -1;
    *made = (int32_t)id - 1;
    return v->rank[id - 1];
}

bool dil__vocab_is_special(const dil__vocab *v, int32_t id)
{
    uint8_t t = v->type[id];
    return t == DIL__TOKEN_CONTROL || t == DIL__TOKEN_UNKNOWN || t == DIL__TOKEN_UNUSED;
}

/* --- added tokens ------------------------------------------------------------------------------------------------------- */

static uint32_t *child_link(dil__vocab *v, uint32_t node, uint8_t byte)
{
    if (node == 0) return &v->first[byte];
    uint32_t *link = &v->trie[node].child;
    while (*link && v->trie[*link].byte != byte) link = &v->trie[*link].sibling;
    return link;
}

static dil_status trie_add(dil__vocab *v, const char *s, size_t len, int32_t id, dil_err *err)
{
    if (len > DIL__ADDED_BYTES_MAX)
        return dil_fail(err, DIL_ELIMIT, "tokenizer.ggml.tokens[%d]: a special token of %zu bytes, at most %d", id, len, DIL__ADDED_BYTES_MAX);
    uint32_t node = 0;
    for (size_t i = 0; i < len; i++) {
        uint32_t *link = child_link(v, node, (uint8_t)s[i]);
        if (*link == 0) {
            *link = v->n_trie;
            v->trie[v->n_trie++] = (dil__trie_node){.id = -1, .byte = (uint8_t)s[i]};
        }
        node = *link;
    }
    if (v->trie[node].id >= 0)
        return dil_fail(err, DIL_EFORMAT, "tokenizer.ggml.tokens: %d and %d are the same, %s", v->trie[node].id, id, dil__show(s, len).text);
    v->trie[node].id = id;
    return DIL_OK;
}

static bool is_added(uint8_t type)
{
    return type == DIL__TOKEN_CONTROL || type == DIL__TOKEN_UNKNOWN || type == DIL__TOKEN_USER;
}

static dil_status build_trie(dil__vocab *v, dil_err *err)
{
    size_t nodes = 1;
    for (uint32_t i = 0; i < v->n; i++) nodes += is_added(v->type[i]) ? v->offset[i + 1] - v->offset[i] : 0;
    v->trie = calloc(nodes, sizeof *v->trie);
    if (!v->trie) return dil_fail(err, DIL_EMEMORY, "out of memory for %u tokens", v->n);
    v->trie[0].id = -1;
    v->n_trie = 1;
    for (uint32_t i = 0; i < v->n; i++) {
        size_t len;
        const char *s = token_at(v, i, &len);
        dil_status st = is_added(v->type[i]) && len > 0 ? trie_add(v, s, len, (int32_t)i, err) : DIL_OK;
        if (st != DIL_OK) return st;
    }
    return DIL_OK;
}

int32_t dil__vocab_added(const dil__vocab *v, const char *s, size_t len, bool control, size_t *token_len)
{
    int32_t best = -1;
    uint32_t node = len > 0 ? v->first[(uint8_t)s[0]] : 0;
    for (size_t i = 1; node; i++) {
        int32_t id = v->trie[node].id;
        if (id >= 0 && (control || v->type[id] == DIL__TOKEN_USER)) {
            best = id;
            *token_len = i;
        }
        if (i >= len) break;
        node = v->trie[node].child;
        while (node && v->trie[node].byte != (uint8_t)s[i]) node = v->trie[node].sibling;
    }
    return best;
}

/* --- construction ------------------------------------------------------------------------------------------------------- */

/* "<0x0A>", as vocabularies of other families spell a byte */
static bool byte_token(dil__str t, char *out)
{
    if (t.len != 6 || memcmp(t.s, "<0x", 3) != 0 || t.s[5] != '>') return false;
    unsigned value = 0;
    for (int i = 3; i < 5; i++) {
        char c = t.s[i];
        int d = c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (d < 0) return false;
        value = value * 16 + (unsigned)d;
    }
    *out = (char)value;
    return true;
}

static size_t unescape_spaces(dil__str t, char *out)
{
    size_t n = 0;
    for (size_t i = 0; i < t.len;) {
        bool space = t.len - i >= 3 && memcmp(t.s + i, "\xE2\x96\x81", 3) == 0;
        out[n++] = space ? ' ' : t.s[i];
        i += space ? 3 : 1;
    }
    return n;
}

/* Writes one token's bytes to out. An added token's spelling is its text; an ordinary one's stands for bytes. */
static dil_status token_bytes(dil__str t, uint8_t type, size_t id, bool pieces, char *out, size_t *len, dil_err *err)
{
    if (type == DIL__TOKEN_BYTE && byte_token(t, out)) {
        *len = 1;
        return DIL_OK;
    }
    if (pieces && type == DIL__TOKEN_BYTE)
        return dil_fail(err, DIL_EFORMAT, "tokenizer.ggml.tokens[%zu] (%s) is of type byte, expected <0x00> to <0xFF>", id, dil__show(t.s, t.len).text);
    if (pieces && t.len > 0) {
        *len = unescape_spaces(t, out);
        return DIL_OK;
    }
    if (type != DIL__TOKEN_NORMAL && type != DIL__TOKEN_BYTE) {
        if (t.len) memcpy(out, t.s, t.len);
        *len = t.len;
        return DIL_OK;
    }
    if (t.len == 0) return dil_fail(err, DIL_EFORMAT, "tokenizer.ggml.tokens[%zu] is empty", id);
    if (!decode_alphabet(t, out, len))
        return dil_fail(err, DIL_EFORMAT, "tokenizer.ggml.tokens[%zu] (%s) is not spelled in the byte alphabet", id, dil__show(t.s, t.len).text);
    return DIL_OK;
}

static dil_status take_tokens(dil__vocab *v, const dil__vocab_src *src, dil_err *err)
{
    size_t total = 0, used = 0;
    for (size_t i = 0; i < src->n_tokens; i++) {
        if (src->tokens[i].len > DIL__TOKEN_BYTES_MAX)
            return dil_fail(err, DIL_ELIMIT, "tokenizer.ggml.tokens[%zu] has %zu bytes, at most %d", i, src->tokens[i].len, DIL__TOKEN_BYTES_MAX);
        if (!dil_add_size(total, src->tokens[i].len, &total) || total > UINT32_MAX)
            return dil_fail(err, DIL_ELIMIT, "tokenizer.ggml.tokens: more than %u bytes", UINT32_MAX);
    }
    v->bytes = malloc(total + 1);
    v->offset = calloc(src->n_tokens + 1, sizeof *v->offset);
    v->type = calloc(src->n_tokens, 1);
    v->slot = table_new(src->n_tokens, &v->slot_mask);
    if (!v->bytes || !v->offset || !v->type || !v->slot) return dil_fail(err, DIL_EMEMORY, "out of memory for %zu tokens", src->n_tokens);
    for (size_t i = 0; i < src->n_tokens; i++) {
        int32_t type = src->types ? src->types[i] : DIL__TOKEN_NORMAL;
        if (type < DIL__TOKEN_NORMAL || type > DIL__TOKEN_BYTE)
            return dil_fail(err, DIL_EFORMAT, "tokenizer.ggml.token_type[%zu] is %d, allowed 1 to 6", i, type);
        size_t len;
        v->type[i] = (uint8_t)type;
        dil_status s = token_bytes(src->tokens[i], v->type[i], i, src->scores != NULL, v->bytes + used, &len, err);
        if (s != DIL_OK) return s;
        used += len;
        v->offset[i + 1] = (uint32_t)used;
    }
    v->n = (uint32_t)src->n_tokens;
    return DIL_OK;
}

/* Can merges make this token? A user-defined one may be both: an ordinary entry that is looked for in text besides. */
static bool is_made(const dil__vocab *v, uint32_t id)
{
    if (v->type[id] == DIL__TOKEN_NORMAL) return true;
    if (v->type[id] == DIL__TOKEN_BYTE) return !v->rank;
    if (v->type[id] != DIL__TOKEN_USER || v->rank) return false;
    size_t len;
    const char *s = token_at(v, id, &len);
    for (size_t i = 0; i < len; i++) {
        if ((uint8_t)s[i] < 0x21 || (uint8_t)s[i] > 0x7E) return false; /* only here spelling and bytes are the same */
    }
    return len > 0;
}

static dil_status index_tokens(dil__vocab *v, dil_err *err)
{
    for (uint32_t i = 0; i < v->n; i++) {
        if (!is_made(v, i)) continue;
        size_t len;
        const char *s = token_at(v, i, &len);
        uint32_t *slot = token_slot(v, s, len, NULL, 0);
        if (*slot)
            return dil_fail(err, DIL_EFORMAT, "tokenizer.ggml.tokens: %u and %u are the same, %s", *slot - 1, i, dil__show(s, len).text);
        *slot = i + 1;
    }
    for (int b = 0; b < 256; b++) {
        char c = (char)b;
        v->byte_id[b] = v->rank ? -1 : dil__vocab_find(v, &c, 1);
    }
    for (uint32_t i = 0; i < v->n && v->rank; i++) {
        if (v->type[i] == DIL__TOKEN_BYTE) v->byte_id[(uint8_t)v->bytes[v->offset[i]]] = (int32_t)i;
    }
    return DIL_OK;
}

/* --- scores ------------------------------------------------------------------------------------------------------------- */

typedef struct scored { float score; uint32_t id; } scored;

static int by_score(const void *a, const void *b)
{
    const scored *x = a, *y = b;
    return x->score != y->score ? (x->score < y->score ? 1 : -1) : (x->id > y->id) - (x->id < y->id);
}

static dil_status take_scores(dil__vocab *v, const dil__vocab_src *src, dil_err *err)
{
    if (!src->scores) return DIL_OK;
    scored *s = calloc(v->n, sizeof *s);
    v->rank = calloc(v->n, sizeof *v->rank);
    if (!s || !v->rank) {
        free(s);
        return dil_fail(err, DIL_EMEMORY, "out of memory for %u scores", v->n);
    }
    for (uint32_t i = 0; i < v->n; i++) {
        s[i] = (scored){src->scores[i], i};
        if (src->scores[i] == src->scores[i]) continue;
        free(s);
        return dil_fail(err, DIL_EFORMAT, "tokenizer.ggml.scores[%u] is not a number", i);
    }
    qsort(s, v->n, sizeof *s, by_score);
    for (uint32_t i = 1; i < v->n; i++) v->rank[s[i].id] = v->rank[s[i - 1].id] + (s[i].score < s[i - 1].score);
    free(s);
    return DIL_OK;
}

/* "left right": the separator is the first space that is not the first character. */
static bool split_merge(dil__str m, dil__str *left, dil__str *right)
{
    const char *sp = m.len > 1 ? memchr(m.s + 1, ' ', m.len - 1) : NULL;
    if (!sp) return false;
    *left = (dil__str){m.s, (size_t)(sp - m.s)};
    *right = (dil__str){sp + 1, m.len - left->len - 1};
    return right->len > 0;
}

/* scratch holds 2 * DIL__TOKEN_BYTES_MAX bytes. */
static dil_status take_merge(dil__vocab *v, dil__str m, uint32_t rank, char *scratch, dil_err *err)
{
    dil__str part[2];
    size_t len[2];
    int32_t id[3] = {-1, -1, -1};
    if (!split_merge(m, &part[0], &part[1]))
        return dil_fail(err, DIL_EFORMAT, "tokenizer.ggml.merges[%u] (%s) is not two tokens with a space between", rank, dil__show(m.s, m.len).text);
    if (part[0].len > DIL__TOKEN_BYTES_MAX || part[1].len > DIL__TOKEN_BYTES_MAX)
        return dil_fail(err, DIL_ELIMIT, "tokenizer.ggml.merges[%u] has %zu bytes", rank, m.len);
    char *to = scratch;
    for (int i = 0; i < 2; i++) {
        if (decode_alphabet(part[i], to, &len[i])) id[i] = dil__vocab_find(v, to, len[i]);
        if (id[i] < 0)
            return dil_fail(err, DIL_EFORMAT, "tokenizer.ggml.merges[%u]: %s is not a token", rank, dil__show(part[i].s, part[i].len).text);
        to += len[i];
    }
    id[2] = dil__vocab_find(v, scratch, len[0] + len[1]);
    if (id[2] < 0) return dil_fail(err, DIL_EFORMAT, "tokenizer.ggml.merges[%u] (%s) makes no token", rank, dil__show(m.s, m.len).text);
    uint32_t *slot = pair_slot(v, id[0], id[1]);
    if (*slot) return dil_fail(err, DIL_EFORMAT, "tokenizer.ggml.merges: %u and %u are the same, %s", *slot - 1, rank, dil__show(m.s, m.len).text);
    v->left[rank] = id[0];
    v->right[rank] = id[1];
    v->made[rank] = id[2];
    *slot = rank + 1;
    return DIL_OK;
}

static dil_status take_merges(dil__vocab *v, const dil__vocab_src *src, dil_err *err)
{
    size_t n = src->n_merges ? src->n_merges : 1;
    v->left = calloc(n, sizeof *v->left);
    v->right = calloc(n, sizeof *v->right);
    v->made = calloc(n, sizeof *v->made);
    v->pair = table_new(n, &v->pair_mask);
    char *scratch = malloc(2 * DIL__TOKEN_BYTES_MAX);
    dil_status s = v->left && v->right && v->made && v->pair && scratch ? DIL_OK : dil_fail(err, DIL_EMEMORY, "out of memory for %zu merges", n);
    for (size_t i = 0; i < src->n_merges && s == DIL_OK; i++) s = take_merge(v, src->merges[i], (uint32_t)i, scratch, err);
    free(scratch);
    v->n_merges = (uint32_t)src->n_merges;
    return s;
}

dil_status dil__vocab_init(dil__vocab *v, const dil__vocab_src *src, dil_err *err)
{
    *v = (dil__vocab){0};
    if (src->n_tokens == 0) return dil_fail(err, DIL_EFORMAT, "tokenizer.ggml.tokens is empty");
    if (src->n_tokens > DIL__VOCAB_MAX || src->n_merges > DIL__VOCAB_MAX)
        return dil_fail(err, DIL_ELIMIT, "tokenizer: %zu tokens and %zu merges, at most %d", src->n_tokens, src->n_merges, DIL__VOCAB_MAX);
    dil_status s = take_tokens(v, src, err);
    if (s == DIL_OK) s = take_scores(v, src, err);
    if (s == DIL_OK) s = index_tokens(v, err);
    if (s == DIL_OK) s = take_merges(v, src, err);
    if (s == DIL_OK) s = build_trie(v, err);
    if (s != DIL_OK) dil__vocab_fini(v);
    return s;
}

void dil__vocab_fini(dil__vocab *v)
{
    free(v->bytes);
    free(v->offset);
    free(v->type);
    free(v->rank);
    free(v->slot);
    free(v->left);
    free(v->right);
    free(v->made);
    free(v->pair);
    free(v->trie);
    *v = (dil__vocab){0};
}
