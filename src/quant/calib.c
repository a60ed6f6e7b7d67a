/* Calibration statistics by a tap on the running graph: bounded memory, whatever the length of the data. */
#include "quant/calib.h"

#include "quant/keyed.h"
#include "quant/session.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { COLS_MAX = 1 << 20 };

typedef struct entry {
    char name[DIL_TENSOR_NAME_MAX];
    uint64_t n_cols, n_rows; /* rows: of inputs seen */
    double *sum2;            /* [n_cols] */
    float *mean;             /* [n_cols], after finishing */
} entry;

struct dil__imatrix {
    dil__keyed e; /* of entries */
    uint64_t n_tokens, n_ctx;
    dil__calib_sink sink;
};

/* --- the stream of tokens ------------------------------------------------------------------------------------------ */

/* What follows the paragraph that the sample before had as well; the whole prompt otherwise. */
static const char *new_part(const dil_sample *s, const dil_sample *before)
{
    if (!before || !s->context || !before->context || strcmp(s->context, before->context) != 0) return s->prompt;
    const char *at = strstr(s->prompt, s->context);
    return at ? at + strlen(s->context) : s->prompt;
}

static bool append_sample(dil_buf *text, const dil_sample *s, const dil_sample *before)
{
    const char *from = new_part(s, before);
    if (from == s->prompt && text->len > 0) dil_buf_append(text, "\n\n", 2);
    dil_buf_append(text, from, s->prompt_len - (size_t)(from - s->prompt));
    return dil_buf_append(text, s->completion, s->completion_len);
}

dil_status dil__calib_tokens(const dil_tokenizer *tok, const char *path, dil_data_format format, size_t min_tokens, size_t max_tokens,
                             dil_ids *out, dil_err *err)
{
    dil_dataset data;
    dil_status st = dil_dataset_load(path, format, &data, err);
    if (st != DIL_OK) return st;
    /* No tokenizer here makes fewer than one token of 16 bytes of ordinary text. */
    size_t enough = max_tokens < DIL_TOK_TEXT_MAX / 16 ? 16 * max_tokens : DIL_TOK_TEXT_MAX;
    dil_buf text;
    dil_buf_init(&text, DIL_TOK_TEXT_MAX);
    for (size_t i = 0; i < data.n_samples && text.len < enough; i++) {
        const dil_sample *s = &data.samples[i];
        if (s->prompt_len > enough - text.len) {
            dil_buf_append(&text, s->prompt, enough - text.len);
            break;
        }
        if (!append_sample(&text, s, i ? s - 1 : NULL)) break;
    }
    while (text.len > 0 && text.len == enough && (text.data[text.len - 1] & 0xC0) == 0x80) text.len--; /* half a character */
    st = dil_tokenize(tok, dil_buf_str(&text), text.len, 0, out, err);
    if (st == DIL_OK && out->n > max_tokens) out->n = max_tokens;
    if (st == DIL_OK && out->n < min_tokens) {
        st = dil_fail(err, DIL_EDATA, "%s: %zu tokens, calibration needs at least %zu", path ? path : "the embedded data", out->n,
                      min_tokens);
        dil_ids_fini(out);
    }
    dil_buf_fini(&text);
    dil_dataset_fini(&data);
    return st;
}

dil_status dil__calib_tokens_without(const dil_tokenizer *tok, const char *path, dil_data_format format, uint64_t from, uint64_t to, size_t min_tokens,
                                     size_t max_tokens, dil_ids *out, dil_err *err)
{
    size_t hole = (size_t)(to - from);
    dil_status st = dil__calib_tokens(tok, path, format, min_tokens, max_tokens + hole, out, err);
    if (st != DIL_OK) return st;
    if (from < out->n && hole > 0) {
        size_t end = to < out->n ? (size_t)to : out->n, cut = end - (size_t)from;
        if (out->n - cut < min_tokens) {
            dil_log(DIL_LOG_WARN, "calibrate", "only %zu tokens: the text that students are judged on calibrates them as well", out->n);
        } else {
            memmove(out->id + from, out->id + end, (out->n - end) * sizeof *out->id);
            out->n -= cut;
        }
    }
    if (out->n > max_tokens) out->n = max_tokens;
    return DIL_OK;
}

/* --- gathering ------------------------------------------------------------------------------------------------------ */

void dil__imatrix_free(dil__imatrix *m)
{
    if (!m) return;
    for (size_t i = 0; i < m->e.n; i++) {
        entry *e = dil__keyed_at(&m->e, i);
        free(e->sum2);
        free(e->mean);
    }
    free(m->e.item);
    free(m);
}

static entry *add_entry(dil__imatrix *m, const char *name, uint64_t n_cols, dil_err *err)
{
    if (n_cols == 0 || n_cols > COLS_MAX) {
        dil_fail(err, DIL_ELIMIT, "%s: %" PRIu64 " columns, at most %d", name, n_cols, COLS_MAX);
        return NULL;
    }
    entry *e = dil__keyed_add(&m->e, name, err);
    if (!e) return NULL;
    e->n_cols = n_cols;
    e->sum2 = calloc(n_cols, sizeof(double));
    e->mean = calloc(n_cols, sizeof(float));
    if (e->sum2 && e->mean) return e;
    dil_fail(err, DIL_EMEMORY, "%s: out of memory", name);
    return NULL;
}

static entry *entry_at(const dil__imatrix *m, size_t i)
{
    return dil__keyed_at(&m->e, i);
}

static dil__imatrix *new_imatrix(uint64_t n_ctx)
{
    dil__imatrix *m = calloc(1, sizeof *m);
    if (!m) return NULL;
    m->e.size = sizeof(entry);
    m->n_ctx = n_ctx;
    return m;
}

static void add_rows(entry *e, const float *x, uint64_t n_rows)
{
    for (uint64_t r = 0; r < n_rows; r++) {
        const float *row = x + r * e->n_cols;
        for (uint64_t j = 0; j < e->n_cols; j++) e->sum2[j] += (double)row[j] * (double)row[j];
    }
    e->n_rows += n_rows;
}

static void on_tap(void *ctx, const char *tensor, const float *x, uint64_t n_rows, uint64_t n_cols)
{
    dil__imatrix *m = ctx;
    if (m->sink.st != DIL_OK) return;
    entry *e = dil__keyed_find(&m->e, tensor);
    if (!e) e = add_entry(m, tensor, n_cols, &m->sink.err);
    if (!e) m->sink.st = m->sink.err.code;
    else if (e->n_cols != n_cols) m->sink.st = dil_fail(&m->sink.err, DIL_EINTERNAL, "%s: %" PRIu64 " columns, then %" PRIu64, tensor, e->n_cols, n_cols);
    else add_rows(e, x, n_rows);
}

static dil_status finish(dil__imatrix *m, dil_err *err)
{
    for (size_t i = 0; i < m->e.n; i++) {
        entry *e = entry_at(m, i);
        for (uint64_t j = 0; j < e->n_cols; j++) {
            e->mean[j] = (float)(e->sum2[j] / (double)e->n_rows);
            if (!isfinite(e->mean[j]))
                return dil_fail(err, DIL_EDATA, "%s: the input column %" PRIu64 " is not finite on the calibration data", e->name, j);
        }
    }
    return DIL_OK;
}

dil_status dil__calib_pass(dil__session *s, const dil_ids *ids, uint32_t n_ctx, const dil__calib_sink *sink, uint64_t *n_tokens,
                           const dil_progress *progress, dil_err *err)
{
    int32_t bos = dil_tokenizer_adds_bos(s->tok) ? dil_tokenizer_bos(s->tok) : -1;
    float *logits = malloc((size_t)n_ctx * s->arch.n_vocab * sizeof *logits);
    int32_t *chunk = malloc(n_ctx * sizeof *chunk);
    dil_status st = logits && chunk ? DIL_OK : dil_fail(err, DIL_EMEMORY, "out of memory for %u rows of logits", n_ctx);
    for (size_t at = 0; at < ids->n && st == DIL_OK; at += n_ctx) {
        uint32_t n = ids->n - at < n_ctx ? (uint32_t)(ids->n - at) : n_ctx;
        if (n < n_ctx && at > 0) break;
        if (!dil_progress_step(progress, "calibrating", (double)at, (double)ids->n)) {
            st = dil_fail(err, DIL_ECANCELED, "canceled after %zu of %zu tokens", at, ids->n);
            break;
        }
        memcpy(chunk, ids->id + at, n * sizeof *chunk);
        if (bos >= 0) chunk[0] = bos;
        dil__session_keep(s, NULL, 0);
        st = dil__session_feed(s, chunk, n, n, logits, err); /* every row, so that the head's input counts alike */
        if (st == DIL_OK && sink->st != DIL_OK) st = dil_fail(err, sink->st, "%s", sink->err.text);
        *n_tokens += n;
    }
    dil_progress_step(progress, "calibrating", (double)ids->n, (double)ids->n);
    free(logits);
    free(chunk);
    return st;
}

dil_status dil__imatrix_gather(const char *model, const dil_ids *ids, uint32_t n_ctx, const char *device, int n_threads,
                               const dil_progress *progress, dil__imatrix **out, dil_err *err)
{
    dil__session s = {0};
    dil__imatrix *m = new_imatrix(n_ctx);
    if (!m) return dil_fail(err, DIL_EMEMORY, "out of memory");
    dil_status st = dil__session_open(&s, model, err);
    if (st == DIL_OK && dil_arch_n_params(&s.arch) <= DIL__FLOATS_PARAMS) st = dil__session_floats(&s, n_threads, err);
    if (st == DIL_OK) st = dil__session_start(&s, device, n_threads, n_ctx, NULL, err);
    if (st == DIL_OK) {
        dil_stage_set_tap(s.stage, on_tap, m);
        st = dil__calib_pass(&s, ids, n_ctx, &m->sink, &m->n_tokens, progress, err);
    }
    if (st == DIL_OK) st = finish(m, err);
    dil__session_close(&s);
    if (st != DIL_OK) {
        dil__imatrix_free(m);
        return st;
    }
    *out = m;
    return DIL_OK;
}

const float *dil__imatrix_row(const dil__imatrix *m, const char *tensor, uint64_t n_cols)
{
    for (size_t i = 0; m && i < m->e.n; i++)
        if (strcmp(entry_at(m, i)->name, tensor) == 0) return entry_at(m, i)->n_cols == n_cols ? entry_at(m, i)->mean : NULL;
    return NULL;
}

uint64_t dil__imatrix_tokens(const dil__imatrix *m)
{
    return m->n_tokens;
}

/* --- files ---------------------------------------------------------------------------------------------------------- */

static dil_status put_pair(dil_gguf_writer *w, const entry *e, bool describe, dil_err *err)
{
    dil_tensor t = {.type = DIL_TYPE_F32, .n_dims = 2, .ne = {e->n_cols, 1, 1, 1}};
    int len = snprintf(t.name, sizeof t.name, "%s.in_sum2", e->name);
    if (len < 0 || (size_t)len >= sizeof t.name) return dil_fail(err, DIL_ELIMIT, "%s: the name is too long for an imatrix file", e->name);
    if (!describe) {
        float *sum = malloc(e->n_cols * sizeof *sum), count = (float)e->n_rows;
        if (!sum) return dil_fail(err, DIL_EMEMORY, "out of memory");
        for (uint64_t j = 0; j < e->n_cols; j++) sum[j] = e->mean[j] * count;
        dil_status st = dil_gguf_write_data(w, sum, e->n_cols * sizeof *sum, err);
        if (st == DIL_OK) st = dil_gguf_write_data(w, &count, sizeof count, err);
        free(sum);
        return st;
    }
    dil_status st = dil_gguf_put_tensor(w, &t, err);
    snprintf(t.name, sizeof t.name, "%.*s.counts", (int)strlen(e->name), e->name);
    t.ne[0] = 1;
    return st == DIL_OK ? dil_gguf_put_tensor(w, &t, err) : st;
}

static dil_status write_all(const dil__imatrix *m, dil_gguf_writer *w, const char *path, const char *data, dil_err *err)
{
    const char *names[1] = {data ? data : "embedded"};
    size_t len = strlen(names[0]);
    dil_status st = dil_gguf_put_str(w, "general.type", "imatrix", err);
    if (st == DIL_OK) st = dil_gguf_put_strs(w, "imatrix.datasets", names, &len, 1, err);
    if (st == DIL_OK) st = dil_gguf_put_u32(w, "imatrix.chunk_count", (uint32_t)((m->n_tokens + m->n_ctx - 1) / m->n_ctx), err);
    if (st == DIL_OK) st = dil_gguf_put_u32(w, "imatrix.chunk_size", (uint32_t)m->n_ctx, err);
    for (size_t i = 0; i < m->e.n && st == DIL_OK; i++) st = put_pair(w, entry_at(m, i), true, err);
    if (st == DIL_OK) st = dil_gguf_begin(w, path, err);
    for (size_t i = 0; i < m->e.n && st == DIL_OK; i++) st = put_pair(w, entry_at(m, i), false, err);
    return st == DIL_OK ? dil_gguf_commit(w, err) : st;
}

dil_status dil__imatrix_save(const dil__imatrix *m, const char *path, const char *data, dil_err *err)
{
    dil_gguf_writer *w;
    dil_status st = dil_gguf_writer_new(&w, err);
    if (st != DIL_OK) return st;
    st = write_all(m, w, path, data, err);
    dil_gguf_writer_free(w);
    return st;
}

static dil_status load_entry(dil__imatrix *m, const dil_gguf *g, const dil_tensor *t, dil_err *err)
{
    static const char suffix[] = ".in_sum2";
    size_t len = strlen(t->name), tail = sizeof suffix - 1;
    if (len <= tail || strcmp(t->name + len - tail, suffix) != 0) return DIL_OK;
    char name[DIL_TENSOR_NAME_MAX], counts[DIL_TENSOR_NAME_MAX];
    snprintf(name, sizeof name, "%.*s", (int)(len - tail), t->name);
    snprintf(counts, sizeof counts, "%.*s.counts", (int)(len - tail), t->name);
    const dil_tensor *c = dil_gguf_find(g, counts);
    if (t->type != DIL_TYPE_F32 || !c || c->type != DIL_TYPE_F32 || dil_tensor_elems(c) != 1 || t->ne[0] != dil_tensor_elems(t))
        return dil_fail(err, DIL_EFORMAT, "%s: %s is no pair of F32 sums and one count", dil_gguf_path(g), t->name);
    float count;
    memcpy(&count, c->data, sizeof count);
    if (!(count >= 1 && count <= 1e15f)) return dil_fail(err, DIL_EFORMAT, "%s: %s counts %g inputs", dil_gguf_path(g), name, (double)count);
    entry *e = add_entry(m, name, t->ne[0], err);
    if (!e) return err ? err->code : DIL_ELIMIT;
    e->n_rows = (uint64_t)count;
    if (e->n_rows > m->n_tokens) m->n_tokens = e->n_rows;
    memcpy(e->mean, t->data, t->bytes);
    for (uint64_t j = 0; j < e->n_cols; j++) {
        e->mean[j] /= count;
        if (!(e->mean[j] >= 0) || !isfinite(e->mean[j]))
            return dil_fail(err, DIL_EFORMAT, "%s: %s: column %" PRIu64 " is %g", dil_gguf_path(g), name, j, (double)e->mean[j]);
    }
    return DIL_OK;
}

dil_status dil__imatrix_read(const dil_gguf *g, dil__imatrix **out, dil_err *err)
{
    dil__imatrix *m = new_imatrix(512);
    dil_status st = m ? DIL_OK : dil_fail(err, DIL_EMEMORY, "out of memory");
    for (size_t i = 0; i < dil_gguf_n_tensors(g) && st == DIL_OK; i++) st = load_entry(m, g, dil_gguf_tensor_at(g, i), err);
    if (st == DIL_OK && m->e.n == 0) st = dil_fail(err, DIL_EFORMAT, "%s: no importance matrix in it", dil_gguf_path(g));
    if (st != DIL_OK) {
        dil__imatrix_free(m);
        return st;
    }
    *out = m;
    return DIL_OK;
}

dil_status dil__imatrix_load(const char *path, dil__imatrix **out, dil_err *err)
{
    dil_gguf *g;
    dil_status st = dil_gguf_open(path, &g, err);
    if (st != DIL_OK) return st;
    st = dil__imatrix_read(g, out, err);
    dil_gguf_close(g);
    return st;
}
