/* Samples that follow each other in the file and have a context in common go into one sequence, as many as fit. The fork is behind the longest
 * common beginning of their tokens, not of their text, so that every branch has the tokens that it has alone. */
#include "quant/tuning.h"

#include "quant/calib.h"

#include <stdlib.h>
#include <string.h>

enum { LEN_MIN = 8 };

typedef struct piece { int32_t *id; uint32_t n, first; } piece; /* prompt, completion, end of text; first: of the completion, > 0 */

typedef struct adding {
    dil__tuning_data *d;
    const dil_tokenizer *tok;
    uint32_t at, most, n;
} adding;

/* --- sequences -------------------------------------------------------------------------------------------------------------- */

static bool more_of(void *array, uint32_t cap, size_t size)
{
    void **p = array, *more = realloc(*p, cap * size);
    if (more) *p = more;
    return more != NULL;
}

static dil_status reserve(dil__tuning_data *d, uint32_t at, dil_err *err)
{
    if (at < d->cap) return DIL_OK;
    uint32_t cap = d->cap ? 2 * d->cap : 256;
    size_t row = d->n_ctx * sizeof(uint32_t);
    if (!more_of(&d->ids, cap, row) || !more_of(&d->from, cap, row) || !more_of(&d->label, cap, row) || !more_of(&d->len, cap, sizeof *d->len) ||
        !more_of(&d->root, cap, sizeof *d->root))
        return dil_fail(err, DIL_EMEMORY, "out of memory for %u samples", cap);
    d->cap = cap;
    return DIL_OK;
}

void dil__tuning_fini(dil__tuning_data *d)
{
    void *all[] = {d->ids, d->from, d->label, d->len, d->root};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) free(all[i]);
    *d = (dil__tuning_data){0};
}

/* Where n pieces fork: behind what all begin with, and before any label; one piece does not. */
static uint32_t root_of(const piece *p, uint32_t n)
{
    if (n == 1) return p->n;
    uint32_t root = p->first - 1;
    for (uint32_t k = 1; k < n; k++) {
        uint32_t same = 0, most = root < p[k].first - 1 ? root : p[k].first - 1;
        while (same < most && p[k].id[same] == p->id[same]) same++;
        root = same;
    }
    return root;
}

static bool fits(const dil__tuning_data *d, const piece *p, uint32_t n)
{
    size_t root = root_of(p, n), sum = root;
    for (uint32_t k = 0; k < n; k++) sum += p[k].n - root;
    return root > 0 && sum <= d->n_ctx;
}

static dil_status put(adding *a, const piece *p, uint32_t n, dil_err *err)
{
    dil__tuning_data *d = a->d;
    uint32_t which = a->at + a->n;
    dil_status st = reserve(d, which, err);
    if (st != DIL_OK) return st;
    size_t row = (size_t)which * d->n_ctx;
    int32_t *ids = d->ids + row;
    uint32_t *from = d->from + row, *label = d->label + row, root = root_of(p, n), len = root;
    memset(ids, 0, d->n_ctx * sizeof *ids);
    memset(from, 0, d->n_ctx * sizeof *from);
    memset(label, 0, d->n_ctx * sizeof *label);
    memcpy(ids, p->id, root * sizeof *ids);
    for (uint32_t i = 1; i < root; i++) label[i] = d->whole || i >= p->first ? i : 0;
    for (uint32_t k = 0; k < n; k++) {
        uint32_t start = len;
        for (uint32_t i = root; i < p[k].n; i++, len++) {
            ids[len] = p[k].id[i];
            from[len] = start;
            if (d->whole || i >= p[k].first) label[len] = i == root ? root : len;
        }
    }
    d->len[which] = len;
    d->root[which] = root;
    a->n++;
    return DIL_OK;
}

/* --- questions and completions ----------------------------------------------------------------------------------------------- */

/* n 0 where it has no label or does not fit. */
static dil_status read_piece(const adding *a, const dil_sample *s, piece *p, dil_err *err)
{
    dil_ids prompt, completion = {0};
    *p = (piece){0};
    dil_status st = dil_tokenize(a->tok, s->prompt, s->prompt_len, DIL_TOK_BOS, &prompt, err);
    if (st != DIL_OK) return st;
    st = dil_tokenize(a->tok, s->completion, s->completion_len, 0, &completion, err);
    int32_t eos = dil_tokenizer_eos(a->tok);
    bool text = completion.n == 0; /* every token is a label */
    size_t n = prompt.n + completion.n + (eos >= 0);
    if (st == DIL_OK && n >= 2 && n <= a->d->n_ctx && prompt.n > 0 && !(text && s->question)) {
        p->id = malloc(n * sizeof *p->id);
        if (!p->id) st = dil_fail(err, DIL_EMEMORY, "out of memory");
        else {
            memcpy(p->id, prompt.id, prompt.n * sizeof *p->id);
            if (completion.n) memcpy(p->id + prompt.n, completion.id, completion.n * sizeof *p->id);
            if (eos >= 0) p->id[n - 1] = eos;
            p->n = (uint32_t)n;
            p->first = text ? 1 : (uint32_t)prompt.n;
        }
    }
    dil_ids_fini(&prompt);
    dil_ids_fini(&completion);
    return st;
}

static dil_status add_run(adding *a, const dil_sample *s, uint32_t n, dil_err *err)
{
    piece p[DIL__TUNING_BRANCHES];
    uint32_t got = 0;
    dil_status st = DIL_OK;
    for (uint32_t i = 0; i < n && st == DIL_OK; i++) {
        st = read_piece(a, &s[i], &p[got], err);
        got += p[got].n > 0;
    }
    for (uint32_t i = 0, k; i < got && a->n < a->most && st == DIL_OK; i += k) {
        for (k = 1; i + k < got && fits(a->d, p + i, k + 1);) k++;
        st = put(a, p + i, k, err);
    }
    for (uint32_t i = 0; i < got; i++) free(p[i].id);
    return st;
}

static bool same_context(const dil_sample *s, const dil_sample *t)
{
    return s->context && t->context && strcmp(s->context, t->context) == 0;
}

/* run [n_samples + 1]: where each run of samples begins, and the end. */
static uint32_t find_runs(const dil_dataset *d, uint32_t *run)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < d->n_samples; i++)
        if (i == 0 || !same_context(&d->samples[i], &d->samples[i - 1]) || i - run[n - 1] == DIL__TUNING_BRANCHES) run[n++] = i;
    run[n] = (uint32_t)d->n_samples;
    return n;
}

static dil_status add_answers(adding *a, const dil_dataset *d, uint64_t seed, dil_err *err)
{
    uint32_t *run = malloc((d->n_samples + 1) * sizeof *run), *order = malloc((d->n_samples + 1) * sizeof *order);
    dil_status st = run && order ? DIL_OK : dil_fail(err, DIL_EMEMORY, "out of memory");
    uint32_t n = st == DIL_OK ? find_runs(d, run) : 0;
    dil_rng rng;
    dil_rng_init(&rng, seed + 77);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t j = (uint32_t)dil_rng_below(&rng, i + 1);
        order[i] = order[j];
        order[j] = i;
    }
    for (uint32_t i = 0; i < n && a->n < a->most && st == DIL_OK; i++)
        st = add_run(a, d->samples + run[order[i]], run[order[i] + 1] - run[order[i]], err);
    free(run);
    free(order);
    return st;
}

/* --- text --------------------------------------------------------------------------------------------------------------------- */

static dil_status add_text(adding *a, const char *path, dil_data_format format, dil_err *err)
{
    uint32_t n_ctx = a->d->n_ctx;
    dil_ids ids;
    dil_status st = dil__calib_tokens(a->tok, path, format, LEN_MIN, (size_t)a->most * n_ctx, &ids, err);
    if (st != DIL_OK) return st;
    for (size_t at = 0; at + LEN_MIN <= ids.n && st == DIL_OK; at += n_ctx) {
        piece p = {ids.id + at, (uint32_t)(ids.n - at < n_ctx ? ids.n - at : n_ctx), 1};
        if (dil_tokenizer_adds_bos(a->tok)) *p.id = dil_tokenizer_bos(a->tok);
        st = put(a, &p, 1, err);
    }
    dil_ids_fini(&ids);
    return st;
}

dil_status dil__tuning_add(dil__tuning_data *d, const dil_tokenizer *tok, const char *path, dil_data_format format, uint64_t seed, uint32_t at, uint32_t most,
                           uint32_t *n, dil_err *err)
{
    adding a = {.d = d, .tok = tok, .at = at, .most = most};
    dil_dataset data;
    dil_status st = dil_dataset_load(path, format, &data, err);
    if (st != DIL_OK) return st;
    st = data.format == DIL_DATA_TEXT ? add_text(&a, path, format, err) : add_answers(&a, &data, seed, err);
    dil_dataset_fini(&data);
    if (st == DIL_OK && a.n == 0) st = dil_fail(err, DIL_EDATA, "%s: no sample with a completion fits %u tokens", path ? path : "the embedded data", d->n_ctx);
    *n = a.n;
    return st;
}
