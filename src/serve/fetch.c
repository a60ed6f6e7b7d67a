/* Downloads by libcurl's multi interface: one thread, some connections, each fetching the next range that is missing. A range is
 * marked in the map when its bytes are on the disk, so that a process that dies at any moment loses at most the ranges under way.
 * Rejected: one connection with a growing file (slow on long links), and ranges inside the file that other tools resume from
 * (they take its length for the place to go on). */
#include "serve/fetch.h"

#include "serve/protocols.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/file.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define CHUNK_MIN (UINT64_C(8) << 20)
#define CHUNKS_MAX 65536u
#define TRIES_MAX 6 /* in a row without a byte more */

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void init_curl(void)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
}

/* --- requests ------------------------------------------------------------------------------------------------------------- */

static dil_status check_url(const char *url, dil_err *err)
{
    if (strncasecmp(url, "https://", 8) == 0 || strncasecmp(url, "http://", 7) == 0) return DIL_OK;
    return dil_fail(err, DIL_EUSAGE, "'%.200s' is no http or https address", url);
}

static CURL *new_request(const char *url, const char *token, struct curl_slist **headers)
{
    pthread_once(&once, init_curl);
    CURL *c = curl_easy_init();
    if (!c) return NULL;
    curl_easy_setopt(c, CURLOPT_URL, url);
    dil__http_alone(c, strncasecmp(url, "https://", 8) == 0);
    curl_easy_setopt(c, CURLOPT_MAXREDIRS, 5L);
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, 30L);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, 60L);
    curl_easy_setopt(c, CURLOPT_USERAGENT, "dilemma/" DILEMMA_VERSION);
    if (token && token[0]) { /* libcurl keeps it from other hosts that the request is sent on to */
        char line[4200];
        snprintf(line, sizeof line, "Authorization: Bearer %s", token);
        *headers = curl_slist_append(*headers, line);
        curl_easy_setopt(c, CURLOPT_HTTPHEADER, *headers);
    }
    return c;
}

static dil_status bad_status(long http, const char *url, const char *token, dil_err *err)
{
    if (http == 401 || http == 403)
        return dil_fail(err, DIL_EAUTH, "%.300s: %ld: %s", url, http, token && token[0] ? "the token is not enough; a gated model wants its terms accepted on its page first"
                                                                           : "private or gated (or no such model); set HF_TOKEN");
    if (http == 404) return dil_fail(err, DIL_ENOTFOUND, "%.300s: there is no such file or model", url);
    return dil_fail(err, DIL_ENET, "%.300s: the server answered %ld", url, http);
}

static void copy_word(char *to, size_t cap, const char *value, size_t n)
{
    while (n > 0 && (*value == ' ' || *value == '\t')) value++, n--;
    while (n > 0 && (value[n - 1] == '\r' || value[n - 1] == '\n' || value[n - 1] == ' ')) n--;
    if (n > 2 && memcmp(value, "W/", 2) == 0) value += 2, n -= 2;
    if (n >= 2 && value[0] == '"' && value[n - 1] == '"') value++, n -= 2;
    snprintf(to, cap, "%.*s", (int)(n < cap ? n : 0), value); /* what does not fit is as good as not there */
}

typedef struct heads {
    dil__fetch_head *out;
    char location[4096];
    uint64_t linked_size;
} heads;

static size_t take_header(char *line, size_t size, size_t n, void *ctx)
{
    heads *h = ctx;
    n *= size;
    const char *colon = memchr(line, ':', n);
    if (n > 5 && memcmp(line, "HTTP/", 5) == 0) { /* a redirect's headers are not the file's */
        h->location[0] = 0;
        h->out->etag[0] = 0;
        return n;
    }
    if (!colon) return n;
    size_t key = (size_t)(colon - line);
    const char *v = colon + 1;
    size_t len = n - key - 1;
#define IS(name) (key == sizeof name - 1 && strncasecmp(line, name, key) == 0)
    if (IS("ETag")) copy_word(h->out->etag, sizeof h->out->etag, v, len);
    else if (IS("X-Linked-Etag")) copy_word(h->out->linked_etag, sizeof h->out->linked_etag, v, len);
    else if (IS("X-Repo-Commit")) copy_word(h->out->commit, sizeof h->out->commit, v, len);
    else if (IS("Location")) copy_word(h->location, sizeof h->location, v, len);
    else if (IS("X-Linked-Size")) {
        char word[32];
        copy_word(word, sizeof word, v, len);
        h->linked_size = word[0] && strspn(word, "0123456789") == strlen(word) ? strtoull(word, NULL, 10) : DIL_FETCH_UNKNOWN;
    }
    return n;
}

static size_t take_nothing(char *data, size_t size, size_t n, void *ctx)
{
    (void)data;
    (void)ctx;
    return size * n;
}

/* "https://host:port" of a URL: its length. */
static size_t origin_len(const char *url)
{
    const char *at = strstr(url, "://");
    return at ? (size_t)(at - url) + 3 + strcspn(at + 3, "/?#") : 0;
}

static dil_status head_once(const char *url, const char *token, bool follow, heads *h, dil_err *err)
{
    struct curl_slist *headers = NULL;
    CURL *c = new_request(url, token, &headers);
    if (!c) return dil_fail(err, DIL_EMEMORY, "no memory for a request");
    *h->out = (dil__fetch_head){.size = DIL_FETCH_UNKNOWN};
    h->location[0] = 0;
    h->linked_size = DIL_FETCH_UNKNOWN;
    curl_easy_setopt(c, CURLOPT_NOBODY, 1L);
    curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, follow ? 1L : 0L);
    curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, take_header);
    curl_easy_setopt(c, CURLOPT_HEADERDATA, h);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, take_nothing);
    CURLcode rc = curl_easy_perform(c);
    curl_off_t size = -1;
    curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &h->out->status);
    curl_easy_getinfo(c, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &size);
    if (h->linked_size != DIL_FETCH_UNKNOWN) h->out->size = h->linked_size;
    else if (size >= 0 && h->out->status < 300) h->out->size = (uint64_t)size;
    curl_easy_cleanup(c);
    curl_slist_free_all(headers);
    if (rc != CURLE_OK) return dil_fail(err, DIL_ENET, "%.300s: %s", url, curl_easy_strerror(rc));
    return DIL_OK;
}

dil_status dil__fetch_head_of(const char *url, const char *token, bool hub, dil__fetch_head *out, dil_err *err)
{
    char at[4096];
    heads h = {.out = out};
    if (snprintf(at, sizeof at, "%s", url) >= (int)sizeof at) return dil_fail(err, DIL_ELIMIT, "an address of more than %zu bytes", sizeof at - 1);
    dil_status s = check_url(url, err);
    for (int hops = 0; s == DIL_OK; hops++) {
        s = head_once(at, token, !hub, &h, err);
        if (s != DIL_OK || out->status < 300 || out->status >= 400 || !h.location[0]) break;
        size_t n = origin_len(at);
        bool relative = h.location[0] == '/', same = strncmp(h.location, at, n) == 0 && strchr("/?#", h.location[n]);
        if ((!relative && !same) || out->linked_etag[0] || hops == 5) break; /* on to where the bytes are */
        char next[4096];
        if (snprintf(next, sizeof next, "%.*s%s", relative ? (int)n : 0, at, h.location) >= (int)sizeof next) break;
        memcpy(at, next, sizeof at);
    }
    if (s == DIL_OK && out->status >= 400) s = bad_status(out->status, url, token, err);
    if (s == DIL_OK && out->size != DIL_FETCH_UNKNOWN && out->size > DIL_FETCH_SIZE_MAX)
        s = dil_fail(err, DIL_ELIMIT, "%.300s: says that it has %llu bytes, at most %llu", url, (unsigned long long)out->size, (unsigned long long)DIL_FETCH_SIZE_MAX);
    return s;
}

static size_t take_text(char *data, size_t size, size_t n, void *ctx)
{
    return dil_buf_append(ctx, data, size * n) ? size * n : 0;
}

dil_status dil__fetch_text(const char *url, const char *token, dil_buf *out, dil_err *err)
{
    dil_status s = check_url(url, err);
    struct curl_slist *headers = NULL;
    CURL *c = s == DIL_OK ? new_request(url, token, &headers) : NULL;
    if (s != DIL_OK) return s;
    if (!c) return dil_fail(err, DIL_EMEMORY, "no memory for a request");
    long http = 0;
    curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, take_text);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, out);
    CURLcode rc = curl_easy_perform(c);
    curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &http);
    curl_easy_cleanup(c);
    curl_slist_free_all(headers);
    if (out->failed) return dil_fail(err, DIL_ELIMIT, "%.300s: more than %zu bytes", url, out->max);
    if (rc != CURLE_OK) return dil_fail(err, DIL_ENET, "%.300s: %s", url, curl_easy_strerror(rc));
    return http == 200 ? DIL_OK : bad_status(http, url, token, err);
}

/* --- the part and its map ------------------------------------------------------------------------------------------------------ */

typedef struct part {
    const dil__fetch_opts *o;
    char file[4096], map[4096];
    int fd, map_fd;
    uint64_t chunk;
    uint32_t n_chunks;
    off_t bits_at;        /* in the map: a byte a chunk, '0' or '1' */
    char *state;          /* [n_chunks] '0' missing, '1' there, '2' under way */
    uint64_t done_bytes;  /* of whole chunks */
} part;

static uint64_t chunk_len(const part *p, uint32_t i)
{
    uint64_t at = (uint64_t)i * p->chunk, left = p->o->size - at;
    return left < p->chunk ? left : p->chunk;
}

static dil_status start_map(part *p, const char *head, dil_err *err)
{
    if (ftruncate(p->map_fd, 0) != 0 || ftruncate(p->fd, 0) != 0 || ftruncate(p->fd, (off_t)p->o->size) != 0)
        return dil_fail_errno(err, "%s", p->file);
    memset(p->state, '0', p->n_chunks);
    size_t n = strlen(head);
    if (pwrite(p->map_fd, head, n, 0) != (ssize_t)n || pwrite(p->map_fd, p->state, p->n_chunks, (off_t)n) != (ssize_t)p->n_chunks)
        return dil_fail_errno(err, "%s", p->map);
    return DIL_OK;
}

/* Takes up what an earlier call left, if it is of the same file. */
static dil_status open_map(part *p, dil_err *err)
{
    char head[512], found[512] = "";
    p->chunk = p->o->chunk_bytes ? p->o->chunk_bytes : CHUNK_MIN;
    while (p->o->size / p->chunk >= CHUNKS_MAX / 16) p->chunk *= 2;
    p->n_chunks = (uint32_t)((p->o->size + p->chunk - 1) / p->chunk);
    int n = snprintf(head, sizeof head, "dilemma-part 1\n%llu %llu %s\n", (unsigned long long)p->o->size, (unsigned long long)p->chunk, p->o->etag);
    p->bits_at = n;
    p->state = malloc(p->n_chunks ? p->n_chunks : 1);
    if (!p->state) return dil_fail(err, DIL_EMEMORY, "%s: no memory", p->o->what);
    bool same = pread(p->map_fd, found, (size_t)n, 0) == n && strcmp(found, head) == 0 &&
                pread(p->map_fd, p->state, p->n_chunks, n) == (ssize_t)p->n_chunks && lseek(p->fd, 0, SEEK_END) == (off_t)p->o->size;
    if (!same || !p->o->etag[0]) return start_map(p, head, err);
    for (uint32_t i = 0; i < p->n_chunks; i++) {
        if (p->state[i] == '1') p->done_bytes += chunk_len(p, i);
        else p->state[i] = '0';
    }
    return DIL_OK;
}

static dil_status check_disk(const part *p, dil_err *err)
{
    struct statvfs v;
    if (p->o->size == DIL_FETCH_UNKNOWN || fstatvfs(p->fd, &v) != 0) return DIL_OK;
    uint64_t free_bytes = (uint64_t)v.f_bavail * v.f_frsize, need = p->o->size - p->done_bytes;
    char a[32], b[32];
    if (need <= free_bytes) return DIL_OK;
    return dil_fail(err, DIL_ELIMIT, "%s: %s are missing, %s are free beside %s", p->o->what, dil_format_bytes(need, a), dil_format_bytes(free_bytes, b), p->o->path);
}

static void close_part(part *p)
{
    if (p->fd >= 0) close(p->fd);
    if (p->map_fd >= 0) close(p->map_fd);
    free(p->state);
}

static dil_status open_part(part *p, dil_err *err)
{
    if (snprintf(p->file, sizeof p->file, "%s.dilemma-part", p->o->path) >= (int)sizeof p->file || snprintf(p->map, sizeof p->map, "%s.dilemma-map", p->o->path) >= (int)sizeof p->map)
        return dil_fail(err, DIL_ELIMIT, "the path is too long");
    p->map_fd = open(p->map, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (p->map_fd < 0) return dil_fail_errno(err, "%s", p->map);
    if (flock(p->map_fd, LOCK_EX | LOCK_NB) != 0) return dil_fail(err, DIL_EBUSY, "%s: another download of it runs", p->o->path);
    p->fd = open(p->file, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (p->fd < 0) return dil_fail_errno(err, "%s", p->file);
    return DIL_OK;
}

/* --- ranges ---------------------------------------------------------------------------------------------------------------------- */

typedef struct lane { /* one connection and the chunk it fetches */
    part *p;
    CURL *c;
    struct curl_slist *headers;
    bool busy;
    uint32_t chunk;
    uint64_t at, got, want; /* of the file; got bytes of the chunk so far */
    bool checked, no_ranges, wrong, disk_full;
} lane;

static size_t take_range(char *data, size_t size, size_t n, void *ctx)
{
    lane *l = ctx;
    n *= size;
    if (!l->checked) {
        long http = 0;
        curl_easy_getinfo(l->c, CURLINFO_RESPONSE_CODE, &http);
        l->checked = true;
        l->no_ranges = http == 200;
        if (http != 206) return 0; /* an error's text is not the file's bytes */
    }
    if (n > l->want - l->got) {
        l->wrong = true;
        return 0;
    }
    for (size_t k = 0; k < n;) {
        ssize_t w = pwrite(l->p->fd, data + k, n - k, (off_t)(l->at + l->got));
        if (w < 0 && errno == EINTR) continue;
        if (w <= 0) {
            l->disk_full = true;
            return 0;
        }
        k += (size_t)w;
        l->got += (uint64_t)w;
    }
    return n;
}

/* "Content-Range: bytes 0-99/1234": the range and the size that we asked for, or the server means another file. */
static size_t take_range_header(char *line, size_t size, size_t n, void *ctx)
{
    lane *l = ctx;
    unsigned long long a, b, total;
    char text[128];
    n *= size;
    snprintf(text, sizeof text, "%.*s", (int)(n < sizeof text ? n : sizeof text - 1), line);
    if (strncasecmp(text, "Content-Range:", 14) != 0) return n;
    if (sscanf(text + 14, " bytes %llu-%llu/%llu", &a, &b, &total) != 3 || a != l->at + l->got || b != l->at + l->want - 1 || total != l->p->o->size) l->wrong = true;
    return n;
}

static bool next_chunk(part *p, uint32_t *i)
{
    for (*i = 0; *i < p->n_chunks; ++*i) {
        if (p->state[*i] == '0') return true;
    }
    return false;
}

static void begin_range(lane *l, CURLM *m)
{
    char range[64];
    snprintf(range, sizeof range, "%llu-%llu", (unsigned long long)(l->at + l->got), (unsigned long long)(l->at + l->want - 1));
    l->checked = l->wrong = false;
    curl_easy_setopt(l->c, CURLOPT_RANGE, range);
    curl_multi_add_handle(m, l->c);
    l->busy = true;
}

static bool open_lane(lane *l, part *p)
{
    *l = (lane){.p = p, .c = new_request(p->o->url, p->o->token, &l->headers)};
    if (!l->c) return false;
    curl_easy_setopt(l->c, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(l->c, CURLOPT_WRITEFUNCTION, take_range);
    curl_easy_setopt(l->c, CURLOPT_WRITEDATA, l);
    curl_easy_setopt(l->c, CURLOPT_HEADERFUNCTION, take_range_header);
    curl_easy_setopt(l->c, CURLOPT_HEADERDATA, l);
    curl_easy_setopt(l->c, CURLOPT_PRIVATE, l);
    return true;
}

static dil_status chunk_done(lane *l, dil_err *err)
{
    part *p = l->p;
    if (fdatasync(p->fd) != 0 || pwrite(p->map_fd, "1", 1, p->bits_at + (off_t)l->chunk) != 1) return dil_fail_errno(err, "%s", p->file);
    p->state[l->chunk] = '1';
    p->done_bytes += l->want;
    return DIL_OK;
}

/* What a finished transfer means: the chunk is there, or a try failed (*failed), or it cannot be. */
static dil_status judge(lane *l, CURLcode rc, bool *failed, dil_err *err)
{
    const dil__fetch_opts *o = l->p->o;
    long http = 0;
    curl_easy_getinfo(l->c, CURLINFO_RESPONSE_CODE, &http);
    if (l->disk_full) return dil_fail_errno(err, "writing %s", l->p->file);
    if (l->no_ranges) return DIL_OK; /* seen by the caller */
    if (http == 200 || (http >= 400 && http < 500 && http != 408 && http != 429)) return bad_status(http, o->url, o->token, err);
    if (l->wrong) return dil_fail(err, DIL_EFORMAT, "%s: the server sent another range or size than it had promised (%llu bytes)", o->what, (unsigned long long)o->size);
    if (rc == CURLE_OK && http == 206 && l->got == l->want) return chunk_done(l, err);
    *failed = true;
    dil_fail(err, DIL_ENET, "%s: %s at %llu of %llu bytes", o->what, rc == CURLE_OK ? "the answer ended early" : curl_easy_strerror(rc),
             (unsigned long long)(l->at + l->got), (unsigned long long)o->size);
    return DIL_OK;
}

static uint64_t bytes_so_far(const part *p, const lane *l, uint32_t n)
{
    uint64_t sum = p->done_bytes;
    for (uint32_t i = 0; i < n; i++) sum += l[i].busy ? l[i].got : 0;
    return sum;
}

static bool give_work(lane *l, CURLM *m)
{
    uint32_t i;
    if (l->busy || !next_chunk(l->p, &i)) return l->busy;
    l->p->state[i] = '2';
    l->chunk = i;
    l->at = (uint64_t)i * l->p->chunk;
    l->got = 0;
    l->want = chunk_len(l->p, i);
    begin_range(l, m);
    return true;
}

static dil_status run_lanes(part *p, lane *lanes, uint32_t n, CURLM *m, bool *no_ranges, dil_err *err)
{
    dil_status s = DIL_OK;
    dil_err last = {0};
    int tries = 0;
    uint64_t best = 0;
    while (s == DIL_OK && !*no_ranges) {
        bool any = false;
        for (uint32_t i = 0; i < n; i++) any |= give_work(&lanes[i], m);
        if (!any) return DIL_OK;
        int running;
        curl_multi_perform(m, &running);
        curl_multi_poll(m, NULL, 0, 200, NULL);
        CURLMsg *msg;
        for (int left; s == DIL_OK && (msg = curl_multi_info_read(m, &left));) {
            lane *l = NULL;
            bool failed = false;
            CURLcode rc = msg->data.result;
            curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, (char **)&l);
            curl_multi_remove_handle(m, l->c);
            l->busy = false;
            s = judge(l, rc, &failed, &last);
            *no_ranges |= l->no_ranges;
            uint64_t now = bytes_so_far(p, lanes, n) + (failed ? l->got : 0);
            if (now > best) tries = 0, best = now;
            if (s == DIL_OK && failed && ++tries > TRIES_MAX) s = last.code;
            if (s == DIL_OK && failed) {
                dil_log(DIL_LOG_INFO, "pull", "%s; trying again", last.text);
                if (tries > 1) dil_sleep_ns(INT64_C(100000000) << (tries < 5 ? tries : 5));
                begin_range(l, m); /* from where it broke off */
            }
        }
        if (s != DIL_OK && err) *err = last;
        if (s == DIL_OK && !dil_progress_step(p->o->progress, p->o->what, (double)bytes_so_far(p, lanes, n), (double)p->o->size))
            s = dil_fail(err, DIL_ECANCELED, "%s: canceled; the same command goes on from here", p->o->what);
    }
    return s;
}

static dil_status fetch_ranges(part *p, bool *no_ranges, dil_err *err)
{
    uint32_t n = p->o->n_connections ? p->o->n_connections : 4;
    lane lanes[DIL_FETCH_CONNECTIONS_MAX];
    if (n > DIL_FETCH_CONNECTIONS_MAX) n = DIL_FETCH_CONNECTIONS_MAX;
    if (n > p->n_chunks) n = p->n_chunks;
    memset(lanes, 0, sizeof lanes);
    pthread_once(&once, init_curl);
    CURLM *m = curl_multi_init();
    bool good = m != NULL;
    for (uint32_t i = 0; i < n; i++) good = good && open_lane(&lanes[i], p);
    dil_status s = good ? run_lanes(p, lanes, n, m, no_ranges, err) : dil_fail(err, DIL_EMEMORY, "no memory for %u connections", n);
    for (uint32_t i = 0; i < n; i++) {
        if (lanes[i].busy) curl_multi_remove_handle(m, lanes[i].c);
        curl_easy_cleanup(lanes[i].c);
        curl_slist_free_all(lanes[i].headers);
    }
    if (m) curl_multi_cleanup(m);
    return s;
}

/* --- in one piece ------------------------------------------------------------------------------------------------------------------ */

typedef struct stream {
    part *p;
    uint64_t got;
    bool full, too_long, canceled;
} stream;

static size_t take_stream(char *data, size_t size, size_t n, void *ctx)
{
    stream *t = ctx;
    const dil__fetch_opts *o = t->p->o;
    n *= size;
    t->too_long = t->got + n > (o->size == DIL_FETCH_UNKNOWN ? DIL_FETCH_SIZE_MAX : o->size);
    t->canceled = !dil_progress_step(o->progress, o->what, (double)t->got, o->size == DIL_FETCH_UNKNOWN ? (double)t->got + 1 : (double)o->size);
    if (t->too_long || t->canceled) return 0;
    for (size_t k = 0; k < n;) {
        ssize_t w = pwrite(t->p->fd, data + k, n - k, (off_t)(t->got + k));
        if (w < 0 && errno == EINTR) continue;
        t->full = w <= 0;
        if (t->full) return 0;
        k += (size_t)w;
    }
    t->got += n;
    return n;
}

static dil_status fetch_stream(part *p, dil_err *err)
{
    const dil__fetch_opts *o = p->o;
    struct curl_slist *headers = NULL;
    CURL *c = new_request(o->url, o->token, &headers);
    stream t = {.p = p};
    if (!c || ftruncate(p->fd, 0) != 0) return dil_fail_errno(err, "%s", p->file);
    curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(c, CURLOPT_FAILONERROR, 1L);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, take_stream);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, &t);
    CURLcode rc = curl_easy_perform(c);
    long http = 0;
    curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &http);
    curl_easy_cleanup(c);
    curl_slist_free_all(headers);
    if (t.full) return dil_fail_errno(err, "writing %s", p->file);
    if (t.canceled) return dil_fail(err, DIL_ECANCELED, "%s: canceled", o->what);
    if (t.too_long) return dil_fail(err, DIL_EFORMAT, "%s: more bytes come than the %llu that were promised", o->what, (unsigned long long)o->size);
    if (http >= 400) return bad_status(http, o->url, o->token, err);
    if (rc != CURLE_OK) return dil_fail(err, DIL_ENET, "%s: %s after %llu bytes", o->what, curl_easy_strerror(rc), (unsigned long long)t.got);
    if (o->size != DIL_FETCH_UNKNOWN && t.got != o->size)
        return dil_fail(err, DIL_EFORMAT, "%s: %llu bytes came of the %llu that were promised", o->what, (unsigned long long)t.got, (unsigned long long)o->size);
    return DIL_OK;
}

/* --- the whole ------------------------------------------------------------------------------------------------------------------------ */

static dil_status check_hash(const part *p, dil_err *err)
{
    const dil__fetch_opts *o = p->o;
    char hex[65];
    if (!o->hash) return DIL_OK;
    dil_status s = strlen(o->hash) == 40 ? dil__file_git_sha1(p->file, hex, err) : dil__file_sha256(p->file, o->progress, hex, err);
    if (s != DIL_OK || strcasecmp(hex, o->hash) == 0) return s;
    unlink(p->file);
    unlink(p->map);
    return dil_fail(err, DIL_EFORMAT, "%s: its hash is %.16s..., expected %.16s...; what came is thrown away", o->what, hex, o->hash);
}

dil_status dil__fetch(const dil__fetch_opts *o, dil_err *err)
{
    part p = {.o = o, .fd = -1, .map_fd = -1};
    bool in_one = o->size == DIL_FETCH_UNKNOWN || o->size == 0, no_ranges = false;
    dil_err e = {0};
    dil_status s = check_url(o->url, &e);
    if (s == DIL_OK) s = open_part(&p, &e);
    if (s == DIL_OK && !in_one) s = open_map(&p, &e);
    if (s == DIL_OK) s = check_disk(&p, &e);
    if (s == DIL_OK && !in_one) s = fetch_ranges(&p, &no_ranges, &e);
    if (s == DIL_OK && (in_one || no_ranges)) s = fetch_stream(&p, &e);
    if (s == DIL_OK && fsync(p.fd) != 0) s = dil_fail_errno(&e, "%s", p.file);
    if (s == DIL_OK) s = check_hash(&p, &e);
    if (s == DIL_OK && rename(p.file, o->path) != 0) s = dil_fail_errno(&e, "%s", o->path);
    if (s == DIL_OK) unlink(p.map);
    close_part(&p);
    if (s != DIL_OK && err) *err = e;
    return s;
}
