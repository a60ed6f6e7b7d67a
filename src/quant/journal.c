/* A text file was preferred over a binary one: it can be looked at while a long run writes it. */
#include "quant/journal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct line { char key[DIL__JOURNAL_KEY]; double *v; size_t n; } line;

struct dil__journal {
    FILE *f;
    char *path;
    line *l;
    size_t n, cap, read;
};

static void free_journal(dil__journal *j)
{
    if (j->f) fclose(j->f);
    for (size_t i = 0; i < j->n; i++) free(j->l[i].v);
    free(j->l);
    free(j->path);
    free(j);
}

void dil__journal_close(dil__journal *j)
{
    if (j) free_journal(j);
}

void dil__journal_remove(dil__journal *j)
{
    if (!j) return;
    unlink(j->path);
    free_journal(j);
}

size_t dil__journal_count(const dil__journal *j)
{
    return j->read;
}

static line *find(const dil__journal *j, const char *key)
{
    for (size_t i = j->n; i-- > 0;)
        if (strcmp(j->l[i].key, key) == 0) return &j->l[i];
    return NULL;
}

bool dil__journal_get(const dil__journal *j, const char *key, double *v, size_t n)
{
    const line *l = find(j, key);
    if (!l || l->n != n) return false;
    if (n) memcpy(v, l->v, n * sizeof *v);
    return true;
}

static bool remember(dil__journal *j, const char *key, const double *v, size_t n)
{
    if (j->n == j->cap) {
        size_t cap = j->cap ? 2 * j->cap : 256;
        line *more = realloc(j->l, cap * sizeof *more);
        if (!more) return false;
        j->l = more;
        j->cap = cap;
    }
    line *l = &j->l[j->n];
    l->v = malloc((n ? n : 1) * sizeof *v);
    if (!l->v) return false;
    if (n) memcpy(l->v, v, n * sizeof *v);
    l->n = n;
    snprintf(l->key, sizeof l->key, "%s", key);
    j->n++;
    return true;
}

/* One line without its newline; a line that makes no sense is as good as absent. */
static bool parse_line(dil__journal *j, char *text)
{
    double v[DIL__JOURNAL_VALUES];
    size_t n = 0, key_len = strcspn(text, " ");
    if (key_len == 0 || key_len >= DIL__JOURNAL_KEY) return true;
    char *p = text + key_len;
    while (*p == ' ') {
        char *end;
        if (n == DIL__JOURNAL_VALUES) return true;
        v[n++] = strtod(p + 1, &end);
        if (end == p + 1) return true;
        p = end;
    }
    if (*p) return true;
    text[key_len] = 0;
    return remember(j, text, v, n);
}

static dil_status read_lines(dil__journal *j, dil_buf *text, const char *header, bool *same, dil_err *err)
{
    *same = false;
    if (text->len == 0) return DIL_OK;
    char *p = (char *)text->data, *end = p + text->len;
    for (bool first = true; p < end; first = false) {
        char *nl = memchr(p, '\n', (size_t)(end - p));
        if (!nl) return DIL_OK;
        *nl = 0;
        if (first) {
            if (strcmp(p, header) != 0) return DIL_OK;
            *same = true;
        } else if (!parse_line(j, p)) {
            return dil_fail(err, DIL_EMEMORY, "%s: out of memory", j->path);
        }
        p = nl + 1;
    }
    j->read = j->n;
    return DIL_OK;
}

/* Writes what was read to a new file, so that a line cut short is gone. */
static dil_status rewrite(dil__journal *j, const char *header, dil_err *err)
{
    j->f = fopen(j->path, "we");
    if (!j->f) return dil_fail_errno(err, "%s: cannot write", j->path);
    if (fprintf(j->f, "%s\n", header) < 0) return dil_fail_errno(err, "%s: cannot write", j->path);
    size_t n = j->n;
    for (size_t i = 0; i < n; i++) {
        fputs(j->l[i].key, j->f);
        for (size_t k = 0; k < j->l[i].n; k++) fprintf(j->f, " %.17g", j->l[i].v[k]);
        fputc('\n', j->f);
    }
    if (fflush(j->f) != 0) return dil_fail_errno(err, "%s: cannot write", j->path);
    return DIL_OK;
}

/* Measurements of something else may have taken hours: they are not thrown away. */
static dil_status set_aside(const char *path, dil_err *err)
{
    char old[4096];
    if (snprintf(old, sizeof old, "%s.old", path) >= (int)sizeof old) return dil_fail(err, DIL_ELIMIT, "%s: the path is too long", path);
    if (rename(path, old) != 0) return dil_fail_errno(err, "%s: cannot be renamed to %s", path, old);
    dil_log(DIL_LOG_WARN, "journal", "%s belongs to another model, data or setting: kept as %s, starting anew", path, old);
    return DIL_OK;
}

dil_status dil__journal_open(const char *path, const char *header, bool resume, dil__journal **out, dil_err *err)
{
    dil__journal *j = calloc(1, sizeof *j);
    if (!j || !(j->path = strdup(path))) {
        free(j);
        return dil_fail(err, DIL_EMEMORY, "out of memory");
    }
    dil_status st = DIL_OK;
    if (resume && dil_file_exists(path)) {
        dil_buf text;
        bool same;
        dil_buf_init(&text, DIL__JOURNAL_BYTES_MAX);
        st = dil_file_read(path, &text, err);
        if (st == DIL_OK) st = read_lines(j, &text, header, &same, err);
        if (st == DIL_OK && !same && text.len > 0) st = set_aside(path, err);
        dil_buf_fini(&text);
    }
    if (st == DIL_OK) st = rewrite(j, header, err);
    if (st != DIL_OK) {
        free_journal(j);
        return st;
    }
    *out = j;
    return DIL_OK;
}

dil_status dil__journal_put(dil__journal *j, const char *key, const double *v, size_t n, dil_err *err)
{
    if (n > DIL__JOURNAL_VALUES || strlen(key) >= DIL__JOURNAL_KEY || strpbrk(key, " \n"))
        return dil_fail(err, DIL_EINTERNAL, "journal: key %s with %zu values", key, n);
    if (!remember(j, key, v, n)) return dil_fail(err, DIL_EMEMORY, "out of memory");
    fputs(key, j->f);
    for (size_t k = 0; k < n; k++) fprintf(j->f, " %.17g", v[k]);
    fputc('\n', j->f);
    if (fflush(j->f) != 0 || fsync(fileno(j->f)) != 0) return dil_fail_errno(err, "%s: cannot write", j->path);
    return DIL_OK;
}
