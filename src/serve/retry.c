/* The file is text, one record a line: "R key body seed" begins an entry, "T key token" adds to it, "E key" ends it at a stop. Keys are
 * hashes. A line is one write, so that a kill cuts off at most the last; it is not fsynced: a token that a power cut takes is generated
 * again, from the same seed. */
#include "serve/retry.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILE_MAX ((size_t)256 << 20)

struct dil__retry_run {
    dil__retry *table;
    dil_hash key, body;
    uint64_t seed;
    int32_t *token; /* [n] */
    uint32_t n, cap;
    bool stopped, busy;
    uint64_t used;  /* turn of the last use */
};

struct dil__retry {
    pthread_mutex_t lock;
    dil__retry_run *run[DIL__RETRY_ENTRIES_MAX];
    uint32_t n, n_busy;
    bool closed;      /* freed with the last run */
    uint64_t n_tokens, turn;
    int fd; /* -1: in memory alone */
};

/* --- entries ---------------------------------------------------------------------------------------------------------------------- */

static void run_free(dil__retry_run *r)
{
    free(r->token);
    free(r);
}

static bool same(const dil_hash *a, const dil_hash *b)
{
    return memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0;
}

static dil__retry_run *find(dil__retry *t, const dil_hash *key)
{
    for (uint32_t i = 0; i < t->n; i++) {
        if (same(&t->run[i]->key, key)) return t->run[i];
    }
    return NULL;
}

static bool drop_oldest(dil__retry *t)
{
    uint32_t at = UINT32_MAX;
    for (uint32_t i = 0; i < t->n; i++) {
        if (!t->run[i]->busy && (at == UINT32_MAX || t->run[i]->used < t->run[at]->used)) at = i;
    }
    if (at == UINT32_MAX) return false;
    t->n_tokens -= t->run[at]->n;
    run_free(t->run[at]);
    t->run[at] = t->run[--t->n];
    return true;
}

static dil__retry_run *add(dil__retry *t, const dil_hash *key, const dil_hash *body, uint64_t seed)
{
    if (t->n == DIL__RETRY_ENTRIES_MAX && !drop_oldest(t)) return NULL;
    dil__retry_run *r = calloc(1, sizeof *r);
    if (!r) return NULL;
    *r = (dil__retry_run){.table = t, .key = *key, .body = *body, .seed = seed, .used = ++t->turn};
    t->run[t->n++] = r;
    return r;
}

static bool push(dil__retry_run *r, int32_t token)
{
    while (r->table->n_tokens >= DIL__RETRY_TOKENS_MAX && drop_oldest(r->table)) continue;
    if (r->table->n_tokens >= DIL__RETRY_TOKENS_MAX) return false;
    if (r->n == r->cap) {
        uint32_t cap = r->cap ? 2 * r->cap : 64;
        int32_t *more = realloc(r->token, cap * sizeof *more);
        if (!more) return false;
        r->token = more;
        r->cap = cap;
    }
    r->token[r->n++] = token;
    r->table->n_tokens++;
    return true;
}

/* --- the file ----------------------------------------------------------------------------------------------------------------------- */

static void write_line(dil__retry *t, const char *line, size_t n)
{
    if (t->fd < 0 || write(t->fd, line, n) == (ssize_t)n) return;
    dil_log(DIL_LOG_WARN, "retry", "the journal cannot be written: %s; retries are answered from memory", strerror(errno));
    close(t->fd);
    t->fd = -1;
}

static int put_begin(const dil__retry_run *r, char *out, size_t cap)
{
    char key[2 * DIL_HASH_BYTES + 1], body[2 * DIL_HASH_BYTES + 1];
    dil_hash_hex(&r->key, key);
    dil_hash_hex(&r->body, body);
    return snprintf(out, cap, "R %s %s %llu\n", key, body, (unsigned long long)r->seed);
}

static int put_token(const dil__retry_run *r, int32_t token, char *out, size_t cap)
{
    char key[2 * DIL_HASH_BYTES + 1];
    dil_hash_hex(&r->key, key);
    return snprintf(out, cap, "T %s %d\n", key, token);
}

static int put_end(const dil__retry_run *r, char *out, size_t cap)
{
    char key[2 * DIL_HASH_BYTES + 1];
    dil_hash_hex(&r->key, key);
    return snprintf(out, cap, "E %s\n", key);
}

/* A line that makes no sense is as good as absent. */
static void take_line(dil__retry *t, char *line)
{
    char kind = 0, key_hex[80] = "", body_hex[80] = "";
    unsigned long long seed = 0;
    long token = 0;
    dil_hash key, body;
    if (sscanf(line, "%c %79s", &kind, key_hex) != 2 || !dil_hash_from_hex(key_hex, &key)) return;
    dil__retry_run *r = find(t, &key);
    if (kind == 'R' && !r && sscanf(line, "R %*s %79s %llu", body_hex, &seed) == 2 && dil_hash_from_hex(body_hex, &body)) add(t, &key, &body, seed);
    else if (kind == 'T' && r && !r->stopped && sscanf(line, "T %*s %ld", &token) == 1 && token >= 0 && token <= INT32_MAX) push(r, (int32_t)token);
    else if (kind == 'E' && r) r->stopped = true;
}

static dil_status read_journal(dil__retry *t, const char *path, dil_err *err)
{
    dil_buf text;
    dil_buf_init(&text, FILE_MAX);
    dil_status s = dil_file_exists(path) ? dil_file_read(path, &text, err) : DIL_OK;
    if (s == DIL_ELIMIT) { /* of another time: not worth refusing to start */
        dil_log(DIL_LOG_WARN, "retry", "%s is longer than 256 MiB: it is begun anew", path);
        text.len = 0;
        s = DIL_OK;
    }
    if (s == DIL_OK && text.len) dil_buf_str(&text);
    char *p = (char *)text.data, *end = s == DIL_OK && p ? p + text.len : p;
    while (p && p < end) {
        char *nl = memchr(p, '\n', (size_t)(end - p));
        if (!nl) break;
        *nl = 0;
        take_line(t, p);
        p = nl + 1;
    }
    dil_buf_fini(&text);
    return s;
}

static dil_status rewrite(dil__retry *t, const char *path, dil_err *err)
{
    char line[256];
    dil_outfile o;
    dil_status s = dil_outfile_open(&o, path, err);
    if (s != DIL_OK) return s;
    for (uint32_t i = 0; i < t->n; i++) {
        put_begin(t->run[i], line, sizeof line);
        fputs(line, o.stream);
        for (uint32_t k = 0; k < t->run[i]->n; k++) {
            put_token(t->run[i], t->run[i]->token[k], line, sizeof line);
            fputs(line, o.stream);
        }
        if (!t->run[i]->stopped) continue;
        put_end(t->run[i], line, sizeof line);
        fputs(line, o.stream);
    }
    s = dil_outfile_commit(&o, err);
    if (s != DIL_OK) return s;
    t->fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
    return t->fd >= 0 ? DIL_OK : dil_fail_errno(err, "%s", path);
}

/* --- the public face ------------------------------------------------------------------------------------------------------------------ */

dil_status dil__retry_open(const char *path, dil__retry **out, dil_err *err)
{
    dil__retry *t = calloc(1, sizeof *t);
    if (!t) return dil_fail(err, DIL_EMEMORY, "no memory for retries");
    t->fd = -1;
    pthread_mutex_init(&t->lock, NULL);
    dil_status s = path ? read_journal(t, path, err) : DIL_OK;
    if (s == DIL_OK && path) s = rewrite(t, path, err);
    if (s == DIL_OK) *out = t;
    else dil__retry_close(t);
    return s;
}

static void table_free(dil__retry *t)
{
    for (uint32_t i = 0; i < t->n; i++) run_free(t->run[i]);
    if (t->fd >= 0) close(t->fd);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

void dil__retry_close(dil__retry *t)
{
    if (!t) return;
    pthread_mutex_lock(&t->lock);
    t->closed = true;
    bool last = t->n_busy == 0;
    pthread_mutex_unlock(&t->lock);
    if (last) table_free(t);
}

static dil_status begin(dil__retry *t, const dil_hash *key, const dil_hash *body, uint64_t *seed, dil__retry_run **out, dil_err *err)
{
    char line[256];
    dil__retry_run *r = find(t, key);
    if (r && !same(&r->body, body)) return dil_fail(err, DIL_EUSAGE, "this Idempotency-Key came with another request before");
    if (r && r->busy) return dil_fail(err, DIL_EBUSY, "the request of this Idempotency-Key is still being answered");
    if (!r) {
        r = add(t, key, body, *seed);
        if (!r) return dil_fail(err, DIL_ELIMIT, "%d requests with an Idempotency-Key are being answered", DIL__RETRY_ENTRIES_MAX);
        write_line(t, line, (size_t)put_begin(r, line, sizeof line));
    }
    r->busy = true;
    t->n_busy++;
    r->used = ++t->turn;
    *seed = r->seed;
    *out = r;
    return DIL_OK;
}

dil_status dil__retry_begin(dil__retry *t, const char *key, const void *body, size_t len, uint64_t *seed, dil__retry_run **out, dil_err *err)
{
    size_t n = strlen(key);
    if (n == 0 || n > DIL__RETRY_KEY_MAX) return dil_fail(err, DIL_ELIMIT, "the Idempotency-Key has %zu bytes, allowed 1 to %d", n, DIL__RETRY_KEY_MAX);
    dil_hash k = dil_hash_of(key, n), b = dil_hash_of(body, len);
    pthread_mutex_lock(&t->lock);
    dil_status s = begin(t, &k, &b, seed, out, err);
    pthread_mutex_unlock(&t->lock);
    return s;
}

const int32_t *dil__retry_known(const dil__retry_run *run, uint32_t *n, bool *stopped)
{
    *n = run->n;
    *stopped = run->stopped;
    return run->token;
}

void dil__retry_note(dil__retry_run *run, const dil_gen_event *e)
{
    char line[256];
    dil__retry *t = run->table;
    pthread_mutex_lock(&t->lock);
    if (e->kind == DIL_GEN_TOKEN && e->n_generated == run->n + 1 && push(run, e->token)) {
        write_line(t, line, (size_t)put_token(run, e->token, line, sizeof line));
    } else if (e->kind == DIL_GEN_DONE && e->finish == DIL_FINISH_STOP && !run->stopped && e->n_generated == run->n) {
        run->stopped = true;
        write_line(t, line, (size_t)put_end(run, line, sizeof line));
    }
    pthread_mutex_unlock(&t->lock);
}

void dil__retry_leave(dil__retry_run *run)
{
    if (!run) return;
    dil__retry *t = run->table;
    pthread_mutex_lock(&t->lock);
    run->busy = false;
    bool last = --t->n_busy == 0 && t->closed;
    pthread_mutex_unlock(&t->lock);
    if (last) table_free(t);
}
