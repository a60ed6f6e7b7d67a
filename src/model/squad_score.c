/* SQuAD's exact match and F1, as the official evaluation of version 2 computes them: lower case, ASCII punctuation removed, the words
 * a, an, the removed, white space folded; F1 over the bags of words; the best over the accepted answers. A question without an
 * answer that keeps a word accepts the empty answer alone. (Version 1.1's script differs only there.)
 *
 * Lower case is one character for one, with the final sigma; Python's one longer mapping, of U+0130, is written out below. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <dilemma/dataset.h>

#include "model/lower.h"
#include "model/utf8.h"

#include <pcre2.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_MAX = 16 << 20 };

/* Compiled once for the life of the program; NULL only when memory ran out then. */
static pcre2_code *articles, *final_sigma;
static pthread_once_t compiled = PTHREAD_ONCE_INIT;

static pcre2_code *compile(const char *pattern)
{
    int number;
    size_t at;
    return pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF, &number, &at, NULL);
}

static void compile_all(void)
{
    articles = compile("(?<![\\p{L}\\p{N}_])(?:an?|the)(?![\\p{L}\\p{N}_])"); /* Python's \b spelled out */
    final_sigma = compile("(?<=\\p{L&})\\x{3A3}(?!\\p{L&})");
}

/* in's valid UTF-8, every match replaced, into out. */
static bool replace(const pcre2_code *code, const dil_buf *in, const char *by, dil_buf *out)
{
    size_t size = 2 * in->len + 16;
    if (!code || !dil_buf_reserve(out, size)) return false;
    int n = pcre2_substitute(code, (PCRE2_SPTR)in->data, in->len, 0, PCRE2_SUBSTITUTE_GLOBAL | PCRE2_NO_UTF_CHECK, NULL, NULL,
                             (PCRE2_SPTR)by, PCRE2_ZERO_TERMINATED, (PCRE2_UCHAR *)out->data, &size);
    if (n >= 0) out->len = size;
    return n >= 0;
}

/* Bytes that are not UTF-8 become U+FFFD, as where Python reads them with errors="replace". */
static bool put_valid(const char *s, size_t len, dil_buf *out)
{
    for (size_t i = 0; i < len;) {
        uint32_t cp;
        size_t n = dil__utf8_get(s + i, len - i, &cp);
        if (!(n ? dil_buf_append(out, s + i, n) : dil_buf_append(out, "\xEF\xBF\xBD", 3))) return false;
        i += n ? n : 1;
    }
    return dil_buf_reserve(out, 1);
}

static bool is_ascii_punctuation(uint32_t c)
{
    return (c >= 0x21 && c <= 0x2F) || (c >= 0x3A && c <= 0x40) || (c >= 0x5B && c <= 0x60) || (c >= 0x7B && c <= 0x7E);
}

static bool put_lower(const dil_buf *in, dil_buf *out)
{
    for (size_t i = 0; i < in->len;) {
        uint32_t cp;
        char c[4];
        i += dil__utf8_get((const char *)in->data + i, in->len - i, &cp);
        if (is_ascii_punctuation(cp)) continue;
        bool ok = cp == 0x130 ? dil_buf_append(out, "i\xCC\x87", 3) : dil_buf_append(out, c, dil__utf8_put(c, dil__lower(cp)));
        if (!ok) return false;
    }
    return dil_buf_reserve(out, 1);
}

/* The normalised text: its words, each followed by a zero. */
typedef struct words {
    dil_buf text;
    const char **word;
    size_t n;
} words;

static bool fold_spaces(const dil_buf *in, dil_buf *out, size_t *n_words)
{
    bool inside = false;
    *n_words = 0;
    for (size_t i = 0; i < in->len;) {
        uint32_t cp;
        size_t n = dil__utf8_get((const char *)in->data + i, in->len - i, &cp);
        bool space = dil__utf8_is_py_space(cp);
        if (space ? inside && !dil_buf_append(out, "", 1) : !dil_buf_append(out, in->data + i, n)) return false;
        *n_words += !space && !inside;
        inside = !space;
        i += n;
    }
    return dil_buf_append(out, "", 1);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool normalise(const char *s, words *w)
{
    *w = (words){0};
    pthread_once(&compiled, compile_all);
    dil_buf a, b, c, d;
    dil_buf *all[] = {&a, &b, &c, &d};
    for (int i = 0; i < 4; i++) dil_buf_init(all[i], 8 * (size_t)TEXT_MAX);
    dil_buf_init(&w->text, 8 * (size_t)TEXT_MAX);
    size_t len = strlen(s);
    bool ok = len <= TEXT_MAX && put_valid(s, len, &a) && replace(final_sigma, &a, "\xCF\x82", &b) && put_lower(&b, &c) &&
              replace(articles, &c, " ", &d) && fold_spaces(&d, &w->text, &w->n);
    for (int i = 0; i < 4; i++) dil_buf_fini(all[i]);
    w->word = ok ? calloc(w->n + 1, sizeof *w->word) : NULL;
    if (!w->word) return false;
    const char *p = (const char *)w->text.data;
    for (size_t i = 0; i < w->n; i++, p += strlen(p) + 1) w->word[i] = p;
    return true;
}

static void words_fini(words *w)
{
    dil_buf_fini(&w->text);
    free(w->word);
}

static double exact(const words *p, const words *g)
{
    if (p->n != g->n) return 0;
    for (size_t i = 0; i < p->n; i++) {
        if (strcmp(p->word[i], g->word[i]) != 0) return 0;
    }
    return 1;
}

/* Both sorted. */
static double f1(const words *p, const words *g)
{
    if (p->n == 0 || g->n == 0) return p->n == g->n;
    size_t common = 0;
    for (size_t i = 0, k = 0; i < p->n && k < g->n;) {
        int c = strcmp(p->word[i], g->word[k]);
        common += c == 0;
        i += c <= 0;
        k += c >= 0;
    }
    if (common == 0) return 0;
    double precision = (double)common / (double)p->n, recall = (double)common / (double)g->n;
    return 2 * precision * recall / (precision + recall);
}

static double best(const char *prediction, const char *const *answers, size_t n, bool sorted)
{
    words p, g;
    double score = 0;
    size_t kept = 0;
    if (normalise(prediction, &p)) {
        if (sorted) qsort(p.word, p.n, sizeof *p.word, by_text);
        for (size_t i = 0; i <= n; i++) {
            if (i == n && kept) break;
            bool ok = normalise(i < n ? answers[i] : "", &g);
            if (ok && (g.n > 0 || i == n)) {
                if (sorted) qsort(g.word, g.n, sizeof *g.word, by_text);
                double s = sorted ? f1(&p, &g) : exact(&p, &g);
                score = s > score ? s : score;
                kept++;
            }
            words_fini(&g);
        }
    }
    words_fini(&p);
    return score;
}

double dil_squad_exact(const char *prediction, const char *const *answers, size_t n)
{
    return best(prediction, answers, n, false);
}

double dil_squad_f1(const char *prediction, const char *const *answers, size_t n)
{
    return best(prediction, answers, n, true);
}
