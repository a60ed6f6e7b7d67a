/* Different words with their counts, and counts of pairs that are kept up to date: a merge looks through all words (cheap: a compare a symbol) and
 * mends the counts where it happens. Lists of where each pair occurs would save the look, and most of the program is then those lists. */
#include "model/bpe_train.h"

#include "base/mix.h"
#include "model/pretok.h"
#include "model/vocab.h"

#include <stdlib.h>
#include <string.h>

enum { FIRST_BYTE = 4, WORD_MAX = 128 /* longer ones are no words: not counted */ };

typedef struct word { size_t at; uint32_t n; uint64_t count; } word; /* its symbols [n] stand at `at`: bytes, then what merges make of them */
typedef struct pair { int32_t left, right; int64_t count; } pair; /* left 0: a free slot; no pair has a special token */

struct dil__bpe_trainer {
    dil__pretok *rule;
    word *word;
    uint32_t n_words, words_cap, *slot, slot_mask; /* slots: index + 1 */
    int32_t *sym;                                   /* of all words */
    size_t n_sym, sym_cap;
    pair *pairs;
    uint32_t n_pairs, pair_mask;
    int32_t *left, *right;        /* [n_merges] */
    uint32_t n_merges, n_tokens;
    char **token;                 /* [n_vocab] bytes */
    uint32_t *len;
};

/* --- words --------------------------------------------------------------------------------------------------------------------- */

static dil_status no_memory(dil_err *err)
{
    return dil_fail(err, DIL_EMEMORY, "out of memory for a vocabulary");
}

static uint32_t hash_word(const char *s, size_t len)
{
    uint64_t h = 0xCBF29CE484222325u;
    for (size_t i = 0; i < len; i++) h = (h ^ (uint8_t)s[i]) * 0x100000001B3u;
    return (uint32_t)dil__mix(h);
}

static bool same_word(const dil__bpe_trainer *t, const word *w, const char *s, size_t len)
{
    bool same = w->n == len;
    for (size_t i = 0; same && i < len; i++) same = t->sym[w->at + i] == FIRST_BYTE + (uint8_t)s[i];
    return same;
}

static uint32_t *word_slot(const dil__bpe_trainer *t, const char *s, size_t len)
{
    for (uint32_t i = hash_word(s, len) & t->slot_mask;; i = (i + 1) & t->slot_mask)
        if (t->slot[i] == 0 || same_word(t, &t->word[t->slot[i] - 1], s, len)) return &t->slot[i];
}

static uint32_t hash_symbols(const dil__bpe_trainer *t, const word *w)
{
    char s[WORD_MAX];
    for (uint32_t i = 0; i < w->n; i++) s[i] = (char)(t->sym[w->at + i] - FIRST_BYTE);
    return hash_word(s, w->n);
}

/* Twice as many words, at half load. */
static dil_status grow_words(dil__bpe_trainer *t, dil_err *err)
{
    uint32_t cap = t->words_cap ? 2 * t->words_cap : 1 << 14, size = 2 * cap;
    if (cap > DIL__BPE_TRAIN_WORDS) return dil_fail(err, DIL_ELIMIT, "more than %d different words", DIL__BPE_TRAIN_WORDS);
    word *more = realloc(t->word, cap * sizeof *more);
    uint32_t *slot = calloc(size, sizeof *slot);
    if (more) t->word = more;
    if (!more || !slot) {
        free(slot);
        return no_memory(err);
    }
    free(t->slot);
    t->slot = slot, t->slot_mask = size - 1, t->words_cap = cap;
    for (uint32_t k = 0; k < t->n_words; k++) {
        uint32_t i = hash_symbols(t, &t->word[k]) & t->slot_mask;
        while (slot[i]) i = (i + 1) & t->slot_mask;
        slot[i] = k + 1;
    }
    return DIL_OK;
}

static dil_status reserve_symbols(dil__bpe_trainer *t, size_t more, dil_err *err)
{
    if (t->n_sym + more <= t->sym_cap) return DIL_OK;
    size_t cap = t->sym_cap ? 2 * t->sym_cap : 1 << 17;
    int32_t *p = realloc(t->sym, cap * sizeof *p);
    if (!p) return no_memory(err);
    t->sym = p;
    t->sym_cap = cap;
    return DIL_OK;
}

static dil_status count_word(void *ctx, const char *s, size_t len, dil_err *err)
{
    dil__bpe_trainer *t = ctx;
    if (len < 2 || len > WORD_MAX) return DIL_OK;
    dil_status st = t->n_words == t->words_cap ? grow_words(t, err) : DIL_OK;
    if (st == DIL_OK) st = reserve_symbols(t, WORD_MAX, err);
    if (st != DIL_OK) return st;
    uint32_t *slot = word_slot(t, s, len);
    if (!*slot) {
        t->word[t->n_words] = (word){.at = t->n_sym, .n = (uint32_t)len};
        for (size_t i = 0; i < len; i++) t->sym[t->n_sym++] = FIRST_BYTE + (uint8_t)s[i];
        *slot = ++t->n_words;
    }
    t->word[*slot - 1].count++;
    return DIL_OK;
}

dil_status dil__bpe_trainer_text(dil__bpe_trainer *t, const char *text, size_t len, dil_err *err)
{
    return dil__pretok_split(t->rule, text, len, count_word, t, err);
}

dil_status dil__bpe_trainer_new(dil__bpe_trainer **out, dil_err *err)
{
    dil__bpe_trainer *t = calloc(1, sizeof *t);
    if (!t) return no_memory(err);
    dil_status st = dil__pretok_new("gpt-2", 5, &t->rule, err);
    if (st != DIL_OK) free(t);
    else *out = t;
    return st;
}

void dil__bpe_trainer_free(dil__bpe_trainer *t)
{
    if (!t) return;
    for (uint32_t i = 0; t->token && i < t->n_tokens; i++) free(t->token[i]);
    void *all[] = {t->word, t->slot, t->sym, t->pairs, t->left, t->right, t->token, t->len};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) free(all[i]);
    dil__pretok_free(t->rule);
    free(t);
}

/* --- pairs --------------------------------------------------------------------------------------------------------------------- */

static pair *pair_slot(pair *table, uint32_t mask, int32_t left, int32_t right)
{
    uint32_t i = (uint32_t)dil__mix((uint64_t)(uint32_t)left << 32 | (uint32_t)right) & mask;
    while (table[i].left && (table[i].left != left || table[i].right != right)) i = (i + 1) & mask;
    return &table[i];
}

static dil_status count_pair(dil__bpe_trainer *t, int32_t left, int32_t right, int64_t count, dil_err *err)
{
    if (2 * t->n_pairs >= t->pair_mask) {
        uint32_t size = t->pairs ? 2 * (t->pair_mask + 1) : 1 << 16;
        pair *table = calloc(size, sizeof *table);
        if (!table) return no_memory(err);
        for (uint32_t i = 0; t->pairs && i <= t->pair_mask; i++)
            if (t->pairs[i].left) *pair_slot(table, size - 1, t->pairs[i].left, t->pairs[i].right) = t->pairs[i];
        free(t->pairs);
        t->pairs = table;
        t->pair_mask = size - 1;
    }
    pair *p = pair_slot(t->pairs, t->pair_mask, left, right);
    t->n_pairs += p->left == 0;
    p->left = left, p->right = right;
    p->count += count;
    return DIL_OK;
}

static dil_status count_pairs(dil__bpe_trainer *t, const word *w, int64_t sign, dil_err *err)
{
    dil_status st = DIL_OK;
    for (uint32_t i = 0; i + 1 < w->n && st == DIL_OK; i++) st = count_pair(t, t->sym[w->at + i], t->sym[w->at + i + 1], sign * (int64_t)w->count, err);
    return st;
}

static pair most_frequent(const dil__bpe_trainer *t)
{
    pair best = {0};
    for (uint32_t i = 0; t->pairs && i <= t->pair_mask; i++) {
        const pair *p = &t->pairs[i];
        bool earlier = p->left < best.left || (p->left == best.left && p->right < best.right);
        if (p->count > best.count || (p->count == best.count && p->count > 0 && earlier)) best = *p;
    }
    return best;
}

static bool has_pair(const dil__bpe_trainer *t, const word *w, const pair *p)
{
    const int32_t *s = t->sym + w->at;
    for (uint32_t i = 0; i + 1 < w->n; i++)
        if (s[i] == p->left && s[i + 1] == p->right) return true;
    return false;
}

static void join(dil__bpe_trainer *t, word *w, const pair *p, int32_t made)
{
    int32_t *s = t->sym + w->at;
    uint32_t n = 0;
    for (uint32_t i = 0; i < w->n; i++) {
        bool here = i + 1 < w->n && s[i] == p->left && s[i + 1] == p->right;
        s[n++] = here ? made : s[i];
        i += here;
    }
    w->n = n;
}

/* --- tokens -------------------------------------------------------------------------------------------------------------------- */

static dil_status add_token(dil__bpe_trainer *t, const char *a, uint32_t n_a, const char *b, uint32_t n_b, dil_err *err)
{
    char *s = malloc(n_a + n_b + 1);
    if (!s) return no_memory(err);
    memcpy(s, a, n_a);
    memcpy(s + n_a, b, n_b);
    s[n_a + n_b] = 0;
    t->token[t->n_tokens] = s;
    t->len[t->n_tokens++] = n_a + n_b;
    return DIL_OK;
}

/* Two ways to one spelling make one token. */
static int32_t find_joint(const dil__bpe_trainer *t, const pair *p)
{
    const char *a = t->token[p->left], *b = t->token[p->right];
    uint32_t n_a = t->len[p->left], n_b = t->len[p->right], id = FIRST_BYTE;
    while (id < t->n_tokens && !(t->len[id] == n_a + n_b && memcmp(t->token[id], a, n_a) == 0 && memcmp(t->token[id] + n_a, b, n_b) == 0)) id++;
    return (int32_t)id;
}

static dil_status merge(dil__bpe_trainer *t, const pair *p, dil_err *err)
{
    int32_t made = find_joint(t, p);
    dil_status st = DIL_OK;
    if (made == (int32_t)t->n_tokens) st = add_token(t, t->token[p->left], t->len[p->left], t->token[p->right], t->len[p->right], err);
    if (st != DIL_OK) return st;
    t->left[t->n_merges] = p->left, t->right[t->n_merges] = p->right;
    t->n_merges++;
    for (uint32_t i = 0; i < t->n_words && st == DIL_OK; i++) {
        word *w = &t->word[i];
        if (!has_pair(t, w, p)) continue;
        st = count_pairs(t, w, -1, err);
        join(t, w, p, made);
        if (st == DIL_OK) st = count_pairs(t, w, 1, err);
    }
    return st;
}

static dil_status begin_tokens(dil__bpe_trainer *t, uint32_t n_vocab, dil_err *err)
{
    static const char *const special[FIRST_BYTE] = {"<s>", "<pad>", "</s>", "<unk>"};
    uint32_t most = 2 * n_vocab; /* merges: those into a token that is there add none */
    t->token = calloc(n_vocab, sizeof *t->token);
    t->len = calloc(n_vocab, sizeof *t->len);
    t->left = calloc(most, sizeof *t->left);
    t->right = calloc(most, sizeof *t->right);
    dil_status st = t->token && t->len && t->left && t->right ? DIL_OK : no_memory(err);
    for (int i = 0; i < FIRST_BYTE && st == DIL_OK; i++) st = add_token(t, special[i], (uint32_t)strlen(special[i]), "", 0, err);
    for (int b = 0; b < 256 && st == DIL_OK; b++) st = add_token(t, &(char){(char)b}, 1, "", 0, err);
    return st;
}

static dil_status train(dil__bpe_trainer *t, uint32_t n_vocab, dil_err *err)
{
    dil_status st = begin_tokens(t, n_vocab, err);
    for (uint32_t i = 0; i < t->n_words && st == DIL_OK; i++) st = count_pairs(t, &t->word[i], 1, err);
    while (t->n_tokens < n_vocab && st == DIL_OK) {
        pair p = most_frequent(t);
        if (p.count < 2 || t->n_merges == 2 * n_vocab)
            return dil_fail(err, DIL_EDATA, "the text makes a vocabulary of %u tokens, %u are wanted: take more text or fewer tokens", t->n_tokens, n_vocab);
        st = merge(t, &p, err);
    }
    return st;
}

/* --- the file ------------------------------------------------------------------------------------------------------------------ */

static bool spell(dil_buf *b, const dil__bpe_trainer *t, int32_t id)
{
    char s[2];
    for (uint32_t i = 0; i < t->len[id]; i++) dil_buf_append(b, s, dil__vocab_spell((uint8_t)t->token[id][i], s));
    return !b->failed;
}

/* The tokens' spellings, or the merges'. */
static dil_status put_strings(const dil__bpe_trainer *t, bool merges, dil_gguf_writer *w, dil_err *err)
{
    uint32_t n = merges ? t->n_merges : t->n_tokens;
    const char **s = calloc(n + 1, sizeof *s);
    size_t *at = calloc(n + 1, sizeof *at);
    dil_buf b;
    dil_buf_init(&b, 1 << 28);
    for (uint32_t i = 0; s && at && i < n; i++) {
        at[i] = b.len;
        if (merges) {
            spell(&b, t, t->left[i]);
            dil_buf_append(&b, " ", 1);
            spell(&b, t, t->right[i]);
        } else if (i < FIRST_BYTE) {
            dil_buf_append(&b, t->token[i], t->len[i]);
        } else {
            spell(&b, t, (int32_t)i);
        }
        dil_buf_append(&b, "", 1);
    }
    for (uint32_t i = 0; s && at && i < n; i++) s[i] = (const char *)b.data + at[i];
    dil_status st = s && at && !b.failed ? dil_gguf_put_strs(w, merges ? "tokenizer.ggml.merges" : "tokenizer.ggml.tokens", s, NULL, n, err) : no_memory(err);
    dil_buf_fini(&b);
    free(s);
    free(at);
    return st;
}

static dil_status put_types(const dil__bpe_trainer *t, dil_gguf_writer *w, dil_err *err)
{
    int32_t *type = calloc(t->n_tokens, sizeof *type);
    if (!type) return no_memory(err);
    for (uint32_t i = 0; i < t->n_tokens; i++) type[i] = i < FIRST_BYTE ? DIL__TOKEN_CONTROL : DIL__TOKEN_NORMAL;
    dil_status st = dil_gguf_put_i32s(w, "tokenizer.ggml.token_type", type, t->n_tokens, err);
    free(type);
    return st;
}

dil_status dil__bpe_trainer_put(dil__bpe_trainer *t, uint32_t n_vocab, dil_gguf_writer *w, dil_err *err)
{
    static const struct { const char *key; uint32_t id; } ids[] = {
        {"tokenizer.ggml.bos_token_id", 2}, {"tokenizer.ggml.eos_token_id", 2}, {"tokenizer.ggml.unknown_token_id", 3}, {"tokenizer.ggml.padding_token_id", 1}};
    if (n_vocab < DIL__BPE_TRAIN_LEAST || n_vocab > DIL__BPE_TRAIN_VOCAB)
        return dil_fail(err, DIL_EUSAGE, "a vocabulary of %u tokens: %d to %d can be made", n_vocab, DIL__BPE_TRAIN_LEAST, DIL__BPE_TRAIN_VOCAB);
    dil_status st = train(t, n_vocab, err);
    if (st == DIL_OK) st = dil_gguf_put_str(w, "tokenizer.ggml.model", "gpt2", err);
    if (st == DIL_OK) st = dil_gguf_put_str(w, "tokenizer.ggml.pre", "gpt-2", err);
    if (st == DIL_OK) st = put_strings(t, false, w, err);
    if (st == DIL_OK) st = put_types(t, w, err);
    if (st == DIL_OK) st = put_strings(t, true, w, err);
    for (size_t i = 0; i < sizeof ids / sizeof ids[0] && st == DIL_OK; i++) st = dil_gguf_put_u32(w, ids[i].key, ids[i].id, err);
    return st == DIL_OK ? dil_gguf_put_bool(w, "tokenizer.ggml.add_bos_token", true, err) : st;
}
