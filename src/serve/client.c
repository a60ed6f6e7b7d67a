/* A small HTTP client over libcurl. A line of an answer may be 1 MiB long. */
#include "serve/client.h"

#include "base/json.h"
#include "serve/protocols.h"

#include <strings.h>
#include <string.h>

#define LINE_MAX_BYTES (1u << 20)

typedef struct asking {
    CURL *curl;
    dil_buf *whole; /* GET */
    dil_buf line;   /* POST: not yet ended; of an error its body */
    bool (*fn)(void *ctx, const char *line, size_t len);
    void *ctx;
    bool broke_off;
} asking;

static size_t take_whole(char *data, size_t size, size_t n, void *ctx)
{
    return dil_buf_append(((asking *)ctx)->whole, data, size * n) ? size * n : 0;
}

static bool is_error(const asking *a)
{
    long http = 0;
    curl_easy_getinfo(a->curl, CURLINFO_RESPONSE_CODE, &http);
    return http != 200;
}

static size_t take_lines(char *data, size_t size, size_t n, void *ctx)
{
    asking *a = ctx;
    n *= size;
    if (is_error(a)) return dil_buf_append(&a->line, data, n) ? n : 0;
    for (size_t i = 0; i < n;) {
        const char *end = memchr(data + i, '\n', n - i);
        size_t k = end ? (size_t)(end - data) - i : n - i;
        if (!dil_buf_append(&a->line, data + i, k)) return 0;
        i += k + (end != NULL);
        if (!end) break;
        a->broke_off = !a->fn(a->ctx, dil_buf_str(&a->line), a->line.len);
        a->line.len = 0;
        if (a->broke_off) return 0;
    }
    return n;
}

/* Asked for now and then while nothing comes, so that Ctrl-C works while the server computes. */
static int beat(void *ctx, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    (void)a, (void)b, (void)c, (void)d;
    asking *q = ctx;
    if (q->fn && !q->fn(q->ctx, NULL, 0)) q->broke_off = true;
    return q->broke_off;
}

static dil_status open_asking(const dil__client *c, const char *path, asking *a, struct curl_slist **headers, dil_err *err)
{
    char url[2048], line[600];
    if (snprintf(url, sizeof url, "%s%s", c->base, path) >= (int)sizeof url) return dil_fail(err, DIL_ELIMIT, "the address is too long");
    a->curl = curl_easy_init();
    if (!a->curl) return dil_fail(err, DIL_EMEMORY, "no memory for a request");
    if (c->api_key && c->api_key[0]) {
        snprintf(line, sizeof line, "Authorization: Bearer %s", c->api_key);
        *headers = curl_slist_append(*headers, line);
    }
    *headers = curl_slist_append(*headers, "Expect:");
    curl_easy_setopt(a->curl, CURLOPT_URL, url);
    dil__http_alone(a->curl, strncasecmp(c->base, "https://", 8) == 0);
    curl_easy_setopt(a->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(a->curl, CURLOPT_NOPROXY, "localhost,127.0.0.1,::1");
    curl_easy_setopt(a->curl, CURLOPT_CONNECTTIMEOUT, 10L);
    if (c->ca_file) curl_easy_setopt(a->curl, CURLOPT_CAINFO, c->ca_file);
    curl_easy_setopt(a->curl, CURLOPT_HTTPHEADER, *headers);
    return DIL_OK;
}

dil_status dil__client_get(const dil__client *c, const char *path, long *http, dil_buf *out, dil_err *err)
{
    asking a = {.whole = out};
    struct curl_slist *headers = NULL;
    dil_status s = open_asking(c, path, &a, &headers, err);
    if (s != DIL_OK) return s;
    curl_easy_setopt(a.curl, CURLOPT_WRITEFUNCTION, take_whole);
    curl_easy_setopt(a.curl, CURLOPT_WRITEDATA, &a);
    curl_easy_setopt(a.curl, CURLOPT_TIMEOUT_MS, (long)((c->timeout_sec > 0 ? c->timeout_sec : 10) * 1000));
    CURLcode rc = curl_easy_perform(a.curl);
    curl_easy_getinfo(a.curl, CURLINFO_RESPONSE_CODE, http);
    curl_easy_cleanup(a.curl);
    curl_slist_free_all(headers);
    if (out->failed) return dil_fail(err, DIL_ELIMIT, "%s%s: more than %zu bytes", c->base, path, out->max);
    return rc == CURLE_OK ? DIL_OK : dil_fail(err, DIL_ENET, "%s: %s; is `dilemma serve` running there?", c->base, curl_easy_strerror(rc));
}

/* The server's words: {"error": {"message": ...}}. */
static dil_status server_error(const dil__client *c, long http, dil_buf *body, dil_err *err)
{
    json_t *doc = NULL;
    const char *text = NULL;
    if (dil__json_parse("answer", dil_buf_str(body), body->len, &doc, NULL) == DIL_OK) text = json_string_value(json_object_get(json_object_get(doc, "error"), "message"));
    dil_status code = http == 401 || http == 403 ? DIL_EAUTH : http == 404 ? DIL_ENOTFOUND : http == 429 ? DIL_EBUSY : http >= 500 ? DIL_ENET : DIL_EFORMAT;
    dil_fail(err, code, "%s: %ld%s%.400s", c->base, http, text ? ": " : "", text ? text : "");
    json_decref(doc);
    return code;
}

dil_status dil__client_post(const dil__client *c, const char *path, const char *body, bool (*fn)(void *ctx, const char *line, size_t len), void *ctx,
                            dil_err *err)
{
    asking a = {.fn = fn, .ctx = ctx};
    struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/json");
    dil_status s = open_asking(c, path, &a, &headers, err);
    if (s != DIL_OK) return s;
    dil_buf_init(&a.line, LINE_MAX_BYTES);
    curl_easy_setopt(a.curl, CURLOPT_POSTFIELDS, body);
    curl_easy_setopt(a.curl, CURLOPT_WRITEFUNCTION, take_lines);
    curl_easy_setopt(a.curl, CURLOPT_WRITEDATA, &a);
    curl_easy_setopt(a.curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(a.curl, CURLOPT_XFERINFOFUNCTION, beat);
    curl_easy_setopt(a.curl, CURLOPT_XFERINFODATA, &a);
    CURLcode rc = curl_easy_perform(a.curl);
    long http = 0;
    curl_easy_getinfo(a.curl, CURLINFO_RESPONSE_CODE, &http);
    if (a.broke_off) s = dil_fail(err, DIL_ECANCELED, "stopped");
    else if (rc == CURLE_OK && http != 200) s = server_error(c, http, &a.line, err);
    else if (a.line.failed) s = dil_fail(err, DIL_ELIMIT, "%s: a line of more than %u bytes", c->base, LINE_MAX_BYTES);
    else if (rc != CURLE_OK) s = dil_fail(err, DIL_ENET, "%s: %s; is `dilemma serve` running there?", c->base, curl_easy_strerror(rc));
    curl_easy_cleanup(a.curl);
    curl_slist_free_all(headers);
    dil_buf_fini(&a.line);
    return s;
}
