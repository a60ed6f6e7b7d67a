/* The tokenizer: added tokens are split out of the text, the pre-tokenizer cuts the rest into words, merges turn words into ids.
 *
 * User-defined tokens are part of the model's text (runs of spaces in code models, say) and are always looked for, as the reference
 * libraries do; control tokens only where the caller says that the text is trusted. */
#include "model/tokenizer_impl.h"

#include <stdlib.h>
#include <string.h>

/* --- construction ------------------------------------------------------------------------------------------------------- */

/* Names that end a generation in the families that we know, whatever eos says: models stop with <|im_end|> although their eos is
 * <|endoftext|>, and the other way round. */
static const char *const eog_names[] = {"<|endoftext|>", "<|im_end|>", "<|end_of_text|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end|>", NULL};

static dil_status check_id(const char *key, int64_t id, uint32_t n, int32_t *out, dil_err *err)
{
    if (id == -1 || id == (int64_t)UINT32_MAX) {
        *out = -1;
        return DIL_OK;
    }
    if (id < 0 || id >= (int64_t)n)
        return dil_fail(err, DIL_EFORMAT, "tokenizer.ggml.%s_token_id is %lld, the vocabulary has %u tokens", key, (long long)id, n);
    *out = (int32_t)id;
    return DIL_OK;
}

static dil_status mark_eog(dil_tokenizer *t, const dil__tokenizer_src *src, dil_err *err)
{
    const int64_t given[3] = {src->eos, src->eot, src->eom};
    static const char *const key[3] = {"eos", "eot", "eom"};
    t->eog = calloc(t->vocab.n, 1);
    if (!t->eog) return dil_fail(err, DIL_EMEMORY, "out of memory for %u tokens", t->vocab.n);
    for (int i = 0; i < 3; i++) {
        int32_t id = -1;
        dil_status s = check_id(key[i], given[i], t->vocab.n, &id, err);
        if (s != DIL_OK) return s;
        if (id >= 0) t->eog[id] = 1;
        if (i == 0) t->eos = id;
    }
    for (const char *const *name = eog_names; *name; name++) {
        int32_t id = dil_tokenizer_find(t, *name, strlen(*name));
        if (id >= 0) t->eog[id] = 1;
    }
    return DIL_OK;
}

static dil_status set_bos(dil_tokenizer *t, const dil__tokenizer_src *src, dil_err *err)
{
    dil_status s = check_id("bos", src->bos, t->vocab.n, &t->bos, err);
    if (s != DIL_OK) return s;
    if (src->add_bos == 1 && t->bos < 0)
        return dil_fail(err, DIL_EFORMAT, "tokenizer.ggml.add_bos_token is true, but there is no tokenizer.ggml.bos_token_id");
    t->add_bos = t->bos >= 0 && (src->add_bos >= 0 ? src->add_bos == 1 : t->is_unigram ? false : !t->pre || dil__pretok_default_bos(t->pre));
    return DIL_OK;
}

dil_status dil__tokenizer_build(const dil__tokenizer_src *src, dil_tokenizer **out, dil_err *err)
{
    dil_tokenizer *t = calloc(1, sizeof *t);
    if (!t) return dil_fail(err, DIL_EMEMORY, "out of memory for the tokenizer");
    dil_status s = src->vocab.scores ? DIL_OK : dil__pretok_new(src->pre.s, src->pre.len, &t->pre, err);
    t->space_first = src->space_first;
    if (s == DIL_OK) s = dil__vocab_init(&t->vocab, &src->vocab, err);
    t->is_unigram = src->unigram != NULL;
    if (s == DIL_OK && t->is_unigram) s = dil__unigram_init(&t->unigram, &t->vocab, src->vocab.scores, src->unigram, err);
    if (s == DIL_OK) s = set_bos(t, src, err);
    if (s == DIL_OK) s = mark_eog(t, src, err);
    if (s == DIL_OK) s = dil__chat_recognise(src->chat_template.s, src->chat_template.len, &t->chat, err);
    if (s != DIL_OK) {
        dil_tokenizer_free(t);
        return s;
    }
    for (uint32_t i = 0; i < t->vocab.n; i++) t->has_user_tokens |= t->vocab.type[i] == DIL__TOKEN_USER;
    *out = t;
    return DIL_OK;
}

void dil_tokenizer_free(dil_tokenizer *t)
{
    if (!t) return;
    dil__vocab_fini(&t->vocab);
    dil__unigram_fini(&t->unigram);
    dil__pretok_free(t->pre);
    dil__chat_fini(&t->chat);
    free(t->eog);
    free(t);
}

/* --- text to ids -------------------------------------------------------------------------------------------------------- */

static dil_status take_word(void *ctx, const char *word, size_t len, dil_err *err)
{
    dil__tokenizing *run = ctx;
    if (dil__pretok_whole_words(run->t->pre)) {
        int32_t id = dil__vocab_find(&run->t->vocab, word, len);
        if (id >= 0) return dil__ids_push(&run->ids, id, err);
    }
    return dil__bpe_word(&run->t->vocab, &run->bpe, word, len, &run->ids, err);
}

static dil_status take_section(dil__tokenizing *run, const char *text, size_t len, dil_err *err)
{
    const dil_tokenizer *t = run->t;
    if (t->pre) return dil__pretok_split(t->pre, text, len, take_word, run, err);
    if (t->is_unigram) return dil__unigram_text(&t->unigram, &t->vocab, &run->viterbi, text, len, &run->ids, err);
    return dil__bpe_text(&t->vocab, &run->bpe, text, len, t->space_first, &run->ids, err);
}

dil_status dil__tokenizing_text(dil__tokenizing *run, const char *text, size_t len, bool control, dil_err *err)
{
    const dil_tokenizer *t = run->t;
    if (len > DIL_TOK_TEXT_MAX) return dil_fail(err, DIL_ELIMIT, "a text of %zu bytes, at most %u", len, DIL_TOK_TEXT_MAX);
    size_t start = 0;
    dil_status s = DIL_OK;
    bool user = t->has_user_tokens && !t->is_unigram; /* its own search finds them, in the normalized text */
    for (size_t i = control || user ? 0 : len; i < len && s == DIL_OK;) {
        size_t n = 0;
        int32_t id = dil__vocab_added(&t->vocab, text + i, len - i, control, &n);
        if (id < 0 || (t->vocab.type[id] == DIL__TOKEN_USER && t->is_unigram)) {
            i += id < 0 ? 1 : n;
            continue;
        }
        s = take_section(run, text + start, i - start, err);
        if (s == DIL_OK) s = dil__ids_push(&run->ids, id, err);
        start = i += n;
    }
    return s == DIL_OK ? take_section(run, text + start, len - start, err) : s;
}

void dil__tokenizing_end(dil__tokenizing *run, dil_status s, dil_ids *out)
{
    dil__bpe_fini(&run->bpe);
    dil__viterbi_fini(&run->viterbi);
    if (s == DIL_OK)
        *out = (dil_ids){run->ids.id, run->ids.n};
    else
        free(run->ids.id);
}

dil_status dil_tokenize(const dil_tokenizer *t, const char *text, size_t len, unsigned flags, dil_ids *out, dil_err *err)
{
    dil__tokenizing run = {.t = t};
    dil_status s = DIL_OK;
    if ((flags & DIL_TOK_BOS) && t->add_bos) s = dil__ids_push(&run.ids, t->bos, err);
    if (s == DIL_OK) s = dil__tokenizing_text(&run, text, len, flags & DIL_TOK_SPECIAL, err);
    dil__tokenizing_end(&run, s, out);
    return s;
}

void dil_ids_fini(dil_ids *ids)
{
    free(ids->id);
    *ids = (dil_ids){0};
}

/* --- ids to text -------------------------------------------------------------------------------------------------------- */

const char *dil_token_bytes(const dil_tokenizer *t, int32_t id, size_t *len)
{
    if (id < 0 || (uint32_t)id >= t->vocab.n) {
        *len = 0;
        return NULL;
    }
    *len = t->vocab.offset[id + 1] - t->vocab.offset[id];
    return t->vocab.bytes + t->vocab.offset[id];
}

dil_status dil_detokenize(const dil_tokenizer *t, const int32_t *id, size_t n, unsigned flags, dil_buf *out, dil_err *err)
{
    bool begins = (flags & DIL_DETOK_START) && t->space_first;
    for (size_t i = 0; i < n; i++) {
        size_t len;
        const char *s = dil_token_bytes(t, id[i], &len);
        if (!s) return dil_fail(err, DIL_EFORMAT, "token %zu of %zu is %d, the vocabulary has %u", i, n, id[i], t->vocab.n);
        bool special = dil__vocab_is_special(&t->vocab, id[i]);
        if (begins && !special && len > 0 && s[0] == ' ') s++, len--;
        begins = special && (flags & DIL_DETOK_START) && t->space_first; /* each section of text has its own space before it */
        if (special && !(flags & DIL_DETOK_SPECIAL)) continue;
        if (!dil_buf_append(out, s, len)) return dil_fail(err, DIL_ELIMIT, "the text of %zu tokens passes %zu bytes", n, out->max);
    }
    return DIL_OK;
}

/* --- facts -------------------------------------------------------------------------------------------------------------- */

uint32_t dil_tokenizer_n_vocab(const dil_tokenizer *t)
{
    return t->vocab.n;
}

int32_t dil_tokenizer_bos(const dil_tokenizer *t)
{
    return t->bos;
}

int32_t dil_tokenizer_eos(const dil_tokenizer *t)
{
    return t->eos;
}

bool dil_tokenizer_adds_bos(const dil_tokenizer *t)
{
    return t->add_bos;
}

bool dil_tokenizer_is_eog(const dil_tokenizer *t, int32_t id)
{
    return id >= 0 && (uint32_t)id < t->vocab.n && t->eog[id];
}

bool dil_tokenizer_is_special(const dil_tokenizer *t, int32_t id)
{
    return id >= 0 && (uint32_t)id < t->vocab.n && dil__vocab_is_special(&t->vocab, id);
}

int32_t dil_tokenizer_find(const dil_tokenizer *t, const char *piece, size_t len)
{
    int32_t id = dil__vocab_find(&t->vocab, piece, len);
    if (id >= 0) return id;
    size_t found = 0;
    id = dil__vocab_added(&t->vocab, piece, len, true, &found);
    return id >= 0 && found == len ? id : -1;
}
