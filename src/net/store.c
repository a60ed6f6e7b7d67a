/* The chunk cache: DIR/ab/<hash>. A chunk is written beside its place and renamed, so that what has a chunk's name is a whole
 * write; it is not fsynced, because it is hashed before every use and fetched again when a power cut has torn it. */
#include "net/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct dil__store {
    char *dir;
    uint64_t max_bytes;
};

dil_status dil__store_open(const char *dir, uint64_t max_bytes, dil__store **out, dil_err *err)
{
    if (strlen(dir) > 3900) return dil_fail(err, DIL_ELIMIT, "the cache folder's path is too long");
    dil_status st = dil_mkdirs(dir, err);
    if (st != DIL_OK) return st;
    if (access(dir, W_OK | X_OK) != 0) return dil_fail_errno(err, "%s", dir);
    dil__store *s = calloc(1, sizeof *s);
    if (s) s->dir = strdup(dir);
    if (!s || !s->dir) {
        free(s);
        return dil_fail(err, DIL_EMEMORY, "%s: no memory", dir);
    }
    s->max_bytes = max_bytes;
    *out = s;
    return DIL_OK;
}

void dil__store_close(dil__store *s)
{
    if (!s) return;
    free(s->dir);
    free(s);
}

void dil__store_path(const dil__store *s, const dil_hash *h, char out[4096])
{
    char hex[2 * DIL_HASH_BYTES + 1];
    dil_hash_hex(h, hex);
    snprintf(out, 4096, "%s/%.2s/%s", s->dir, hex, hex);
}

bool dil__store_check(dil__store *s, const dil_hash *h, uint64_t bytes)
{
    char path[4096];
    dil__store_path(s, h, path);
    dil_map m;
    if (dil_map_open(path, &m, NULL) != DIL_OK) return false;
    bool good = m.len == bytes;
    if (good) {
        dil_hash got = dil_hash_of(m.data, m.len);
        good = memcmp(&got, h, sizeof got) == 0;
    }
    dil_map_close(&m);
    if (good) {
        utimensat(AT_FDCWD, path, NULL, 0);
        return true;
    }
    dil_log(DIL_LOG_WARN, "cache", "%s is corrupted: removed, it will be fetched again", path);
    unlink(path);
    return false;
}

static dil_status write_file(const char *part, const void *data, size_t len, dil_err *err)
{
    int fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) return dil_fail_errno(err, "%s", part);
    const uint8_t *p = data;
    dil_status st = DIL_OK;
    while (len && st == DIL_OK) {
        ssize_t n = write(fd, p, len);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            st = dil_fail_errno(err, "%s: writing", part);
            break;
        }
        p += n;
        len -= (size_t)n;
    }
    if (close(fd) != 0 && st == DIL_OK) st = dil_fail_errno(err, "%s: writing", part);
    return st;
}

dil_status dil__store_put(dil__store *s, const dil_hash *h, const void *data, size_t len, dil_err *err)
{
    dil_hash got = dil_hash_of(data, len);
    if (memcmp(&got, h, sizeof got) != 0) return dil_fail(err, DIL_EDATA, "a chunk of %zu bytes does not have the hash that was announced", len);
    char path[4096], part[4200];
    dil__store_path(s, h, path);
    char *slash = strrchr(path, '/');
    *slash = 0;
    if (mkdir(path, 0777) != 0 && errno != EEXIST) return dil_fail_errno(err, "%s", path);
    *slash = '/';
    snprintf(part, sizeof part, "%s.%ld.part", path, (long)getpid());
    dil_status st = write_file(part, data, len, err);
    if (st == DIL_OK && rename(part, path) != 0) st = dil_fail_errno(err, "%s", path);
    if (st != DIL_OK) unlink(part);
    return st;
}

/* --- eviction ------------------------------------------------------------------------------------------------------------- */

typedef struct entry {
    char name[68]; /* "ab/<64 digits>" */
    int64_t used_ms;
    uint64_t bytes;
} entry;

typedef struct listing {
    entry *e;
    size_t n, cap;
    uint64_t bytes;
} listing;

static bool list_one(listing *l, const char *dir, const char *sub, const char *name)
{
    char path[4300];
    snprintf(path, sizeof path, "%s/%s/%s", dir, sub, name);
    struct stat st;
    if (strlen(name) != 2 * DIL_HASH_BYTES || stat(path, &st) != 0 || !S_ISREG(st.st_mode)) return true;
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 256;
        void *p = realloc(l->e, cap * sizeof *l->e);
        if (!p) return false;
        l->e = p;
        l->cap = cap;
    }
    entry *e = &l->e[l->n++];
    snprintf(e->name, sizeof e->name, "%.2s/%.64s", sub, name);
    e->used_ms = (int64_t)st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000;
    e->bytes = (uint64_t)st.st_size;
    l->bytes += e->bytes;
    return true;
}

static void list_folder(listing *l, const char *dir, const char *sub)
{
    char path[4200];
    snprintf(path, sizeof path, "%s/%s", dir, sub);
    DIR *d = opendir(path);
    if (!d) return;
    for (struct dirent *f; (f = readdir(d)) && list_one(l, dir, sub, f->d_name);) continue;
    closedir(d);
}

static int by_age(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    return (x->used_ms > y->used_ms) - (x->used_ms < y->used_ms);
}

void dil__store_evict(dil__store *s, int64_t keep_since_ms)
{
    if (!s->max_bytes) return;
    listing l = {0};
    for (unsigned i = 0; i < 256; i++) {
        char sub[3];
        snprintf(sub, sizeof sub, "%02x", i);
        list_folder(&l, s->dir, sub);
    }
    if (l.n) qsort(l.e, l.n, sizeof *l.e, by_age);
    size_t removed = 0;
    for (size_t i = 0; i < l.n && l.bytes > s->max_bytes && l.e[i].used_ms < keep_since_ms; i++) {
        char path[4200];
        snprintf(path, sizeof path, "%s/%s", s->dir, l.e[i].name);
        if (unlink(path) == 0) {
            l.bytes -= l.e[i].bytes;
            removed++;
        }
    }
    if (removed) dil_log(DIL_LOG_INFO, "cache", "%s: removed %zu chunks that were not used for longest", s->dir, removed);
    free(l.e);
}
