/* Mappings, whole-file reads, and output files that appear whole or not at all (NAME.part, fsync, rename). */
#include <dilemma/base.h>

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

dil_status dil_map_open(const char *path, dil_map *out, dil_err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return dil_fail_errno(err, "%s", path);
    struct stat st;
    if (fstat(fd, &st) != 0) {
        dil_status s = dil_fail_errno(err, "%s", path);
        close(fd);
        return s;
    }
    if (!S_ISREG(st.st_mode)) {
        close(fd);
        return dil_fail(err, DIL_EFORMAT, "%s: not a regular file", path);
    }
    void *p = NULL;
    if (st.st_size > 0) {
        p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED) {
            dil_status s = dil_fail_errno(err, "%s: mapping %lld bytes", path, (long long)st.st_size);
            close(fd);
            return s;
        }
    }
    *out = (dil_map){.data = p, .len = (size_t)st.st_size, .fd = fd};
    return DIL_OK;
}

void dil_map_close(dil_map *m)
{
    if (m->data) munmap((void *)(uintptr_t)m->data, m->len);
    if (m->data || m->len || m->fd > 0) close(m->fd);
    *m = (dil_map){.fd = -1};
}

dil_status dil_file_read(const char *path, dil_buf *buf, dil_err *err)
{
    bool is_stdin = strcmp(path, "-") == 0;
    int fd = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return dil_fail_errno(err, "%s", path);
    dil_status s = DIL_OK;
    for (;;) {
        size_t room = buf->max - buf->len;
        size_t want = room < 65536 ? room + 1 : 65536; /* one byte more than fits tells "too long" from "just fits" */
        uint8_t chunk[65536];
        if (want > sizeof chunk) want = sizeof chunk;
        ssize_t n = read(fd, chunk, want);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) s = dil_fail_errno(err, "%s", path);
        if (n <= 0) break;
        if ((size_t)n > room) {
            s = dil_fail(err, DIL_ELIMIT, "%s: longer than the limit of %zu bytes", path, buf->max);
            break;
        }
        if (!dil_buf_append(buf, chunk, (size_t)n)) {
            s = dil_fail(err, DIL_EMEMORY, "%s: no memory for %zu bytes", path, buf->len + (size_t)n);
            break;
        }
    }
    if (!is_stdin) close(fd);
    return s;
}

bool dil_file_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

dil_status dil_mkdirs(const char *path, dil_err *err)
{
    char *copy = strdup(path);
    if (!copy) return dil_fail(err, DIL_EMEMORY, "%s: no memory", path);
    dil_status s = DIL_OK;
    for (char *p = copy + 1; s == DIL_OK; p++) {
        if (*p != '/' && *p != 0) continue;
        char end = *p;
        *p = 0;
        if (mkdir(copy, 0777) != 0 && errno != EEXIST) s = dil_fail_errno(err, "%s", copy);
        if (end == 0) break;
        *p = '/';
    }
    struct stat st;
    if (s == DIL_OK && (stat(path, &st) != 0 || !S_ISDIR(st.st_mode)))
        s = dil_fail(err, DIL_EIO, "%s: exists and is not a folder", path);
    free(copy);
    return s;
}

/* A device or a pipe is written to as it is: a file in its place would not be what was asked for. */
static dil_status open_special(dil_outfile *o, const char *path, const struct stat *st, dil_err *err)
{
    if (S_ISDIR(st->st_mode)) return dil_fail(err, DIL_EIO, "%s: is a folder", path);
    o->stream = fopen(path, "wbe");
    if (o->stream) return DIL_OK;
    return dil_fail_errno(err, "%s", path);
}

/* The process id and a count keep two writers of one file apart; the last to commit wins, whole. */
static dil_status open_part(dil_outfile *o, const char *path, dil_err *err)
{
    static atomic_uint count;
    size_t n = strlen(path) + 48;
    o->part = malloc(n);
    if (!o->part) return dil_fail(err, DIL_EMEMORY, "%s: no memory", path);
    snprintf(o->part, n, "%s.%ld-%u.part", path, (long)getpid(), atomic_fetch_add(&count, 1));
    o->stream = fopen(o->part, "wbe");
    if (o->stream) return DIL_OK;
    dil_status s = dil_fail_errno(err, "%s", path);
    free(o->part);
    o->part = NULL;
    return s;
}

dil_status dil_outfile_open(dil_outfile *o, const char *path, dil_err *err)
{
    *o = (dil_outfile){0};
    if (strcmp(path, "-") == 0) {
        o->stream = stdout;
        return DIL_OK;
    }
    o->path = strdup(path);
    if (!o->path) return dil_fail(err, DIL_EMEMORY, "%s: no memory", path);
    struct stat st;
    bool special = stat(path, &st) == 0 && !S_ISREG(st.st_mode);
    dil_status s = special ? open_special(o, path, &st, err) : open_part(o, path, err);
    if (s != DIL_OK) dil_outfile_abort(o);
    return s;
}

dil_status dil_outfile_commit(dil_outfile *o, dil_err *err)
{
    dil_status s = DIL_OK;
    const char *name = o->path ? o->path : "standard output";
    bool failed_before = ferror(o->stream) != 0;
    if (fflush(o->stream) != 0) s = dil_fail_errno(err, "%s: writing", name);
    else if (failed_before) s = dil_fail(err, DIL_EIO, "%s: an earlier write failed", name);
    if (!o->path) {
        o->stream = NULL;
        return s;
    }
    if (s == DIL_OK && o->part && fsync(fileno(o->stream)) != 0) s = dil_fail_errno(err, "%s: writing", name);
    int closed = fclose(o->stream);
    o->stream = NULL;
    if (s == DIL_OK && closed != 0) s = dil_fail_errno(err, "%s: writing", name);
    if (s == DIL_OK && o->part && rename(o->part, o->path) != 0) s = dil_fail_errno(err, "%s", name);
    if (s == DIL_OK) {
        free(o->part);
        o->part = NULL;
    }
    dil_outfile_abort(o);
    return s;
}

void dil_outfile_abort(dil_outfile *o)
{
    if (o->stream && o->stream != stdout) fclose(o->stream);
    if (o->part) unlink(o->part);
    free(o->part);
    free(o->path);
    *o = (dil_outfile){0};
}

dil_status dil_file_write(const char *path, const void *data, size_t len, dil_err *err)
{
    dil_outfile o;
    dil_status s = dil_outfile_open(&o, path, err);
    if (s != DIL_OK) return s;
    if (len && fwrite(data, 1, len, o.stream) != len) {
        s = dil_fail_errno(err, "%s: writing", path);
        dil_outfile_abort(&o);
        return s;
    }
    return dil_outfile_commit(&o, err);
}
