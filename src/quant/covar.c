/* Covariances by a tap on the running graph. Sums are kept in double; each batch is one symmetric rank-k product. */
#include "quant/covar.h"

#include "quant/keyed.h"
#include "quant/session.h"

#include <cblas.h>
#include <stdlib.h>
#include <string.h>

enum { COLS_MAX = 16384 };
#define DAMP 0.01

typedef struct entry {
    char name[DIL_TENSOR_NAME_MAX];
    dil__hessian h;
    float *mean; /* [h.n] the diagonal a row, when it was asked for */
} entry;

struct dil__covar {
    dil__keyed e; /* of entries */
    uint64_t n_tokens;
    const void *factored; /* the entry that u belongs to */
    float *u;
    dil__calib_sink sink;
};

/* The tensor under whose name the shared input is kept. */
static void canonical(const char *tensor, char out[DIL_TENSOR_NAME_MAX])
{
    static const char *const same[][2] = {{".attn_k.", ".attn_q."}, {".attn_v.", ".attn_q."}, {".ffn_up.", ".ffn_gate."}};
    snprintf(out, DIL_TENSOR_NAME_MAX, "%s", tensor);
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
        const char *at = strstr(tensor, same[i][0]);
        if (!at) continue;
        snprintf(out, DIL_TENSOR_NAME_MAX, "%.*s%s%s", (int)(at - tensor), tensor, same[i][1], at + strlen(same[i][0]));
        return;
    }
}

static entry *add_entry(dil__covar *c, const char *name, uint64_t n_cols, dil_err *err)
{
    if (n_cols == 0 || n_cols > COLS_MAX) {
        dil_fail(err, DIL_ELIMIT, "%s: error feedback takes inputs of at most %d columns, not %llu", name, COLS_MAX, (unsigned long long)n_cols);
        return NULL;
    }
    entry *e = dil__keyed_add(&c->e, name, err);
    return e && dil__hessian_init(&e->h, (uint32_t)n_cols, err) == DIL_OK ? e : NULL;
}

static void on_tap(void *ctx, const char *tensor, const float *x, uint64_t n_rows, uint64_t n_cols)
{
    dil__covar *c = ctx;
    char name[DIL_TENSOR_NAME_MAX];
    canonical(tensor, name);
    /* A model without a gate has ffn_up alone: its input then comes under its own name. */
    bool alone = strcmp(name, tensor) != 0 && !dil__keyed_find(&c->e, name);
    if (c->sink.st != DIL_OK || (strcmp(name, tensor) != 0 && !alone)) return;
    entry *e = dil__keyed_find(&c->e, tensor);
    if (!e) e = add_entry(c, tensor, n_cols, &c->sink.err);
    if (!e) c->sink.st = c->sink.err.code;
    else if (e->h.n != n_cols) c->sink.st = dil_fail(&c->sink.err, DIL_EINTERNAL, "%s: %u columns, then others", tensor, e->h.n);
    else {
        dil_err why;
        if (dil__hessian_add(&e->h, x, n_rows, &why) == DIL_OK) return;
        c->sink.st = dil_fail(&c->sink.err, why.code, "%s: %s", tensor, why.text);
    }
}

dil_status dil__covar_gather(const char *model, const dil_ids *ids, uint32_t n_ctx, const char *device, int n_threads,
                             const dil_progress *progress, dil__covar **out, dil_err *err)
{
    dil__covar *c = calloc(1, sizeof *c);
    if (!c) return dil_fail(err, DIL_EMEMORY, "out of memory");
    c->e.size = sizeof(entry);
    dil__session s = {0};
    dil_status st = dil__session_open(&s, model, err);
    if (st == DIL_OK) st = dil__session_start(&s, device, n_threads, n_ctx, NULL, err);
    if (st == DIL_OK) {
        dil_stage_set_tap(s.stage, on_tap, c);
        st = dil__calib_pass(&s, ids, n_ctx, &c->sink, &c->n_tokens, progress, err);
    }
    dil__session_close(&s);
    for (size_t i = 0; i < c->e.n; i++) { /* the scratch has done its work */
        entry *e = dil__keyed_at(&c->e, i);
        free(e->h.batch);
        e->h.batch = NULL;
    }
    if (st != DIL_OK) {
        dil__covar_free(c);
        return st;
    }
    *out = c;
    return DIL_OK;
}

void dil__covar_free(dil__covar *c)
{
    if (!c) return;
    for (size_t i = 0; i < c->e.n; i++) {
        entry *e = dil__keyed_at(&c->e, i);
        dil__hessian_fini(&e->h);
        free(e->mean);
    }
    free(c->e.item);
    free(c->u);
    free(c);
}

uint64_t dil__covar_tokens(const dil__covar *c)
{
    return c->n_tokens;
}

/* The entry that a tensor's input is kept in. */
static entry *entry_of(dil__covar *c, const char *tensor, uint64_t n_cols)
{
    char name[DIL_TENSOR_NAME_MAX];
    canonical(tensor, name);
    entry *e = dil__keyed_find(&c->e, name);
    if (!e) e = dil__keyed_find(&c->e, tensor);
    return e && e->h.n == n_cols ? e : NULL;
}

const float *dil__covar_row(dil__covar *c, const char *tensor, uint64_t n_cols)
{
    entry *e = entry_of(c, tensor, n_cols);
    if (!e || e->mean) return e ? e->mean : NULL;
    e->mean = malloc(n_cols * sizeof *e->mean);
    for (uint64_t i = 0; e->mean && i < n_cols; i++) e->mean[i] = (float)(e->h.sum[i * n_cols + i] / (double)e->h.n_rows);
    return e->mean;
}

dil_status dil__covar_factor(dil__covar *c, const char *tensor, uint64_t n_cols, const float **u, dil_err *err)
{
    const entry *e = entry_of(c, tensor, n_cols);
    *u = NULL;
    if (!e) return DIL_OK;
    if (e != c->factored) {
        free(c->u);
        c->u = NULL;
        c->factored = NULL;
        dil_err why;
        dil_status st = dil__gptq_factor(&e->h, DAMP, &c->u, &why);
        if (st != DIL_OK) return dil_fail(err, st, "%s: %s", tensor, why.text);
        c->factored = e;
    }
    *u = c->u;
    return DIL_OK;
}
