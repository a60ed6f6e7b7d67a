/* The pre-tokenizer rules of the byte-level BPE families, as PCRE2 patterns.
 *
 * The reference library (Hugging Face `tokenizers`) matches with Oniguruma, whose \s is Unicode's White_Space; PCRE2's \s has
 * U+180E besides, so the patterns spell the class out. SmolLM2's two steps (each number alone, then GPT-2's rule on what lies
 * between) are one pattern here: a number ends a piece, so white space before it is not kept back for it. Every pattern matches
 * at every position; alternatives are ordered as in the reference, since the first that matches wins.
 *
 * Patterns backtrack only over runs of white space, and a run is looked at a constant number of times, so that time is linear
 * and no match limit is needed; PCRE2's own, made for patterns from outside, would refuse long runs. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "model/pretok.h"

#include "model/utf8.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#define WS "\\x{9}-\\x{D}\\x{20}\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}"
#define S "[" WS "]"

#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^" WS "\\p{L}\\p{N}]+|" S "+(?![^" WS "])|" S "+"
#define SMOLLM "\\p{N}|'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?[^" WS "\\p{L}\\p{N}]+|" S "+(?![^" WS "\\p{N}])|" S "+"
#define LLAMA3                                                                                                          \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^" WS "\\p{L}\\p{N}]+[\\r\\n]*|" S        \
    "*[\\r\\n]+|" S "+(?![^" WS "])|" S "+"

/* Llama 3's with every digit a word (Qwen2). */
#define QWEN2                                                                                                           \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^" WS "\\p{L}\\p{N}]+[\\r\\n]*|" S             \
    "*[\\r\\n]+|" S "+(?![^" WS "])|" S "+"
/* Words that end where capitals follow small letters. UPPER and LOWER share letters without case and marks, so that a run of them is
 * looked at twice at most before the second alternative takes it. */
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define CASED(tail) "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" tail "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*" tail
#define CASED_REST " ?[^" WS "\\p{L}\\p{N}]+[\\r\\n/]*|" S "*[\\r\\n]+|" S "+(?![^" WS "])|" S "+"
#define TEKKEN CASED("") "|\\p{N}|" CASED_REST
#define GPT4O CASED("(?i:'s|'t|'re|'ve|'m|'ll|'d)?") "|\\p{N}{1,3}|" CASED_REST

typedef struct rule {
    const char *name, *pattern;
    bool whole_words, default_bos;
} rule;

/* Names as llama.cpp writes them; those behind a family's first name have the same rules. */
static const rule rules[] = {
    {"gpt-2", GPT2, false, false},      {"phi-2", GPT2, false, false},
    {"smollm", SMOLLM, false, false},   {"llama-bpe", LLAMA3, true, true},
    {"llama3", LLAMA3, true, true},     {"llama-v3", LLAMA3, true, true},
    {"pixtral", LLAMA3, true, true},    {"smaug-bpe", LLAMA3, false, false},
    {"qwen2", QWEN2, false, false},     {"deepseek-r1-qwen", QWEN2, false, false},
    {"megrez", QWEN2, false, false},    {"tekken", TEKKEN, true, true},
    {"gpt-4o", GPT4O, false, false},
};

struct dil__pretok {
    const rule *rule;
    pcre2_code *code;
};

static dil_status compile(const rule *r, pcre2_code **out, dil_err *err)
{
    int number;
    size_t at;
    pcre2_code *code = pcre2_compile((PCRE2_SPTR)r->pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF, &number, &at, NULL);
    if (!code) {
        PCRE2_UCHAR text[128] = "";
        pcre2_get_error_message(number, text, sizeof text);
        return dil_fail(err, DIL_EINTERNAL, "pre-tokenizer %s: pattern, offset %zu: %s", r->name, at, (const char *)text);
    }
    pcre2_jit_compile(code, PCRE2_JIT_COMPLETE); /* where there is no JIT the interpreter does the same, slower */
    *out = code;
    return DIL_OK;
}

dil_status dil__pretok_new(const char *name, size_t len, dil__pretok **out, dil_err *err)
{
    const rule *found = NULL;
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        if (strlen(rules[i].name) == len && memcmp(rules[i].name, name, len) == 0) found = &rules[i];
    }
    if (!found)
        return dil_fail(err, DIL_EUNSUPPORTED, "tokenizer.ggml.pre is %s; known are gpt-2, smollm, llama-bpe, smaug-bpe, qwen2, tekken, gpt-4o", dil__show(name, len).text);
    dil__pretok *p = calloc(1, sizeof *p);
    if (!p) return dil_fail(err, DIL_EMEMORY, "out of memory for the pre-tokenizer");
    p->rule = found;
    dil_status s = compile(found, &p->code, err);
    if (s != DIL_OK) {
        free(p);
        return s;
    }
    *out = p;
    return DIL_OK;
}

void dil__pretok_free(dil__pretok *p)
{
    if (!p) return;
    pcre2_code_free(p->code);
    free(p);
}

bool dil__pretok_whole_words(const dil__pretok *p)
{
    return p->rule->whole_words;
}

bool dil__pretok_default_bos(const dil__pretok *p)
{
    return p->rule->default_bos;
}

typedef struct matcher {
    const pcre2_code *code;
    pcre2_match_data *data;
    pcre2_match_context *context;
} matcher;

/* The next match at or after `at`. The JIT's small stack suffices for these patterns; the interpreter is the second try. */
static int match(const matcher *m, const char *text, size_t len, size_t at)
{
    PCRE2_SPTR s = (PCRE2_SPTR)text;
    int rc = pcre2_match(m->code, s, len, at, PCRE2_NO_UTF_CHECK, m->data, m->context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) rc = pcre2_match(m->code, s, len, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, m->data, m->context);
    return rc;
}

/* text is valid UTF-8. */
static dil_status split_valid(const matcher *m, const char *text, size_t len, dil__word_fn *word, void *ctx, dil_err *err)
{
    const size_t *span = pcre2_get_ovector_pointer(m->data);
    dil_status s = DIL_OK;
    for (size_t at = 0; at < len && s == DIL_OK;) {
        int rc = match(m, text, len, at);
        if (rc < 0 && rc != PCRE2_ERROR_NOMATCH)
            return dil_fail(err, rc == PCRE2_ERROR_NOMEMORY ? DIL_EMEMORY : DIL_ELIMIT, "pre-tokenizer: byte %zu of %zu: error %d of PCRE2",
                            at, len, rc);
        size_t from = rc < 0 || span[1] <= span[0] ? len : span[0];
        size_t to = from == len ? len : span[1];
        if (from > at) s = word(ctx, text + at, from - at, err);
        if (to > from && s == DIL_OK) s = word(ctx, text + from, to - from, err);
        at = to;
    }
    return s;
}

/* The length of the run at s that is valid UTF-8 (or, of the run that is not). */
static size_t run_length(const char *s, size_t len, bool *valid)
{
    uint32_t cp;
    size_t n = dil__utf8_get(s, len, &cp);
    *valid = n > 0;
    size_t at = n ? n : 1;
    while (at < len) {
        n = dil__utf8_get(s + at, len - at, &cp);
        if ((n > 0) != *valid) break;
        at += n ? n : 1;
    }
    return at;
}

dil_status dil__pretok_split(const dil__pretok *p, const char *text, size_t len, dil__word_fn *word, void *ctx, dil_err *err)
{
    matcher m = {p->code, pcre2_match_data_create(1, NULL), pcre2_match_context_create(NULL)};
    dil_status s = m.data && m.context ? DIL_OK : dil_fail(err, DIL_EMEMORY, "out of memory for the pre-tokenizer");
    if (m.context) pcre2_set_match_limit(m.context, UINT32_MAX);
    for (size_t at = 0; at < len && s == DIL_OK;) {
        bool valid;
        size_t n = run_length(text + at, len - at, &valid);
        s = valid ? split_valid(&m, text + at, n, word, ctx, err) : word(ctx, text + at, n, err);
        at += n;
    }
    pcre2_match_context_free(m.context);
    pcre2_match_data_free(m.data);
    return s;
}
