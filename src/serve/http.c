/* The HTTP side: libmicrohttpd's one epoll thread runs every connection; a connection whose answer is not there yet is
 * suspended and costs nothing. A second thread closes connections that take too long to ask, and cancels the work of clients
 * that hung up, which a suspended connection would not notice. Rejected: a thread per connection (a slow client would hold
 * one), and polling. */
#include "serve/server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define KEY_MAX 256
#define KEYS_MAX 64

typedef dil__request request;

/* --- generation ----------------------------------------------------------------------------------------------------------- */

static void suspend(void *ctx)
{
    MHD_suspend_connection(((request *)ctx)->conn);
}

static void wake(void *ctx)
{
    MHD_resume_connection(((request *)ctx)->conn);
}

static ssize_t read_body(void *ctx, uint64_t pos, char *buf, size_t max)
{
    (void)pos;
    request *q = ctx;
    bool end;
    size_t n = dil__job_read(q->job, buf, max, &end);
    if (n > 0) return (ssize_t)n;
    if (end) return (ssize_t)MHD_CONTENT_READER_END_OF_STREAM;
    dil__job_sleep(q->job, true, suspend, q);
    return 0;
}

static enum MHD_Result send_stream(request *q)
{
    struct MHD_Response *r = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 16384, read_body, q, NULL);
    if (!r) return MHD_NO;
    dil__send_headers(q, r, 200, dil__job_type(q->job));
    MHD_add_response_header(r, "Cache-Control", "no-cache");
    MHD_add_response_header(r, "X-Accel-Buffering", "no"); /* a proxy in front must not hold tokens back */
    enum MHD_Result res = MHD_queue_response(q->conn, 200, r);
    MHD_destroy_response(r);
    return res;
}

static enum MHD_Result send_whole(request *q)
{
    dil_buf b;
    dil_buf_init(&b, 4 * (size_t)DIL_SERVE_OUTPUT_MAX);
    bool end = false;
    char part[16384];
    for (size_t n; !end && (n = dil__job_read(q->job, part, sizeof part, &end)) > 0;) dil_buf_append(&b, part, n);
    return dil__send(q, 200, dil__job_type(q->job), &b);
}

/* Called when the upload is complete, and again each time the connection is resumed before its response is queued. */
static enum MHD_Result answer_job(request *q)
{
    if (dil__job_sleep(q->job, false, suspend, q)) return MHD_YES;
    dil_buf b;
    dil_buf_init(&b, 1u << 16);
    int http = dil__job_status(q->job, &b);
    if (http != 200) {
        if (http == 499) http = 503; /* canceled by us: the server ends, or the client is gone anyway */
        return dil__send(q, http, "application/json", &b);
    }
    dil_buf_fini(&b);
    return dil__job_is_stream(q->job) ? send_stream(q) : send_whole(q);
}

static enum MHD_Result send_loaded(request *q, dil__api_form form)
{
    dil_buf b;
    dil_buf_init(&b, 1u << 16);
    dil__answer a = {.form = form, .id = "", .model = q->served->name, .created_ms = dil_wall_ms()};
    dil__answer_loaded(&a, &b);
    return dil__send(q, 200, "application/json", &b);
}

/* Whether the server as it is can take up the request; else the answer is queued. */
static bool cannot_start(request *q, const dil__api_req *api, enum MHD_Result *res)
{
    q->served = dil__served_hold(q->s, api->model);
    if (!q->served) {
        *res = dil__send_no_model(q, api->model);
        return true;
    }
    dil_runner_state st;
    dil__served_state(q->served, &st);
    char text[DIL_ERR_TEXT_MAX + 32];
    if (!st.ready && !st.recovering) {
        snprintf(text, sizeof text, "not ready: %s", st.why[0] ? st.why : "starting");
        *res = dil__send_error(q, 503, NULL, "not_ready", text);
    } else if (api->only_loads) *res = send_loaded(q, api->form);
    else if (api->kind == DIL_API_CHAT && !q->served->backend.chat)
        *res = dil__send_error(q, 400, "messages", "no_chat_template",
                               api->form == DIL_API_OLLAMA_GENERATE ? "this model has no chat template that is known; use \"raw\": true"
                               : "this model has no chat template that is known; use /v1/completions");
    else return false;
    return true;
}

/* A request with an Idempotency-Key is looked up: what was generated for it before is answered again, and goes on. */
static bool cannot_retry(request *q, dil__api_req *api, const dil_hash *body, enum MHD_Result *res)
{
    const char *key = MHD_lookup_connection_value(q->conn, MHD_HEADER_KIND, "Idempotency-Key");
    dil_err err;
    if (!key) return false;
    if (api->n > 1 || api->logprobs) {
        *res = dil__send_error(q, 400, api->n > 1 ? "n" : "logprobs", NULL, "with an Idempotency-Key there is one answer, without probabilities");
        return true;
    }
    if (!api->seeded) randombytes_buf(&api->sampler.seed, sizeof api->sampler.seed);
    api->seeded = true;
    dil_status s = dil__retry_begin(q->s->retry, key, body->bytes, sizeof body->bytes, &api->sampler.seed, &api->retry, &err);
    if (s == DIL_OK) return false;
    *res = dil__send_error(q, s == DIL_EBUSY ? 409 : s == DIL_EUSAGE ? 422 : s == DIL_ELIMIT ? 400 : 503, NULL, "idempotency_key", err.text);
    return true;
}

static enum MHD_Result start_job(request *q)
{
    dil_server *s = q->s;
    dil_err err;
    dil__api_req api;
    const char *param;
    dil_status status = dil__api_parse(q->to->form, dil_buf_str(&q->body), q->body.len, &api, &param, &err);
    dil_hash body = dil_hash_of(dil_buf_str(&q->body), q->body.len);
    dil_buf_fini(&q->body);
    if (status != DIL_OK) return dil__send_error(q, status == DIL_EMEMORY ? 503 : 400, param, NULL, err.text);
    enum MHD_Result res = MHD_NO;
    if (cannot_start(q, &api, &res) || cannot_retry(q, &api, &body, &res)) {
        dil__api_req_fini(&api);
        return res;
    }
    status = dil__job_start(&q->served->backend, &api, q->served->name, wake, q, &q->job, &err);
    if (status != DIL_OK) {
        const char *code;
        int http = dil__answer_status(&err, &code);
        return dil__send_error(q, http, NULL, code, err.text);
    }
    dil__guard_set_job(q->guarded, q->job);
    if (atomic_load(&s->closing)) dil__job_abort(q->job, "the server ends"); /* it may have come after the others were ended */
    return answer_job(q);
}

/* --- requests --------------------------------------------------------------------------------------------------------------- */

/* Hashes are compared, all of them: the time tells nothing about a key, its length or its place. */
static bool key_matches(const dil_server *s, const char *given)
{
    if (!given || strncasecmp(given, "Bearer ", 7) != 0 || strlen(given + 7) >= KEY_MAX) return false;
    dil_hash have = dil_hash_of(given + 7, strlen(given + 7));
    int found = 0;
    for (size_t i = 0; i < s->n_keys; i++) found |= sodium_memcmp(s->key[i].bytes, have.bytes, sizeof have.bytes) == 0;
    return found != 0;
}

static bool is_local_name(const char *host)
{
    static const char *const names[] = {"localhost", "127.0.0.1", "[::1]"};
    for (size_t i = 0; i < 3; i++) {
        size_t n = strlen(names[i]);
        if (strncasecmp(host, names[i], n) == 0 && (host[n] == 0 || host[n] == ':')) return true;
    }
    return false;
}

/* A web page elsewhere must not use a server on this machine through its visitor's browser: neither across origins, nor by
 * a name of its own that resolves to us. */
static bool from_foreign_page(const request *q)
{
    const char *host = MHD_lookup_connection_value(q->conn, MHD_HEADER_KIND, "Host");
    const char *origin = MHD_lookup_connection_value(q->conn, MHD_HEADER_KIND, "Origin");
    if (q->s->loopback && host && !is_local_name(host)) return true;
    if (!origin) return false;
    const char *at = strstr(origin, "://");
    return !at || !host || strcasecmp(at + 3, host) != 0;
}

/* Whether the request line and headers are enough to say no; the answer is queued then. */
static bool refused_at_once(request *q, bool wrong_method, enum MHD_Result *res)
{
    const dil_server *s = q->s;
    const char *length = MHD_lookup_connection_value(q->conn, MHD_HEADER_KIND, "Content-Length");
    if (!q->to)
        *res = dil__send_error(q, 404, NULL, NULL, "no such endpoint; see /v1/models, /v1/completions, /v1/chat/completions");
    else if (wrong_method) *res = dil__send_error(q, 405, NULL, NULL, strcmp(q->to->method, "POST") == 0 ? "this endpoint takes POST" : "this endpoint takes GET");
    else if (from_foreign_page(q)) *res = dil__send_error(q, 403, NULL, NULL, "requests from other origins are not served");
    else if (s->n_keys && !q->to->open && !key_matches(s, MHD_lookup_connection_value(q->conn, MHD_HEADER_KIND, "Authorization")))
        *res = dil__send_error(q, 401, NULL, "invalid_api_key", "missing or wrong API key");
    else if (length && (strlen(length) > 10 || strtoull(length, NULL, 10) > DIL_SERVE_BODY_MAX))
        *res = dil__send_error(q, 413, NULL, NULL, "the body is larger than 8 MiB");
    else return false;
    return true;
}

/* An upload's bytes are taken from the common budget as they come; what is refused is read on and dropped, a little. */
static enum MHD_Result take_upload(request *q, const char *data, size_t n)
{
    dil_server *s = q->s;
    pthread_mutex_lock(&s->lock);
    bool fits = s->body_bytes + n <= DIL_SERVE_BODIES_MAX;
    if (fits && !q->refused) {
        s->body_bytes += n;
        q->reserved += n;
    }
    pthread_mutex_unlock(&s->lock);
    if (q->refused) return (q->reserved += n) > 4 * (size_t)DIL_SERVE_BODY_MAX ? MHD_NO : MHD_YES;
    if (!fits) q->refused = 503;
    else if (!dil_buf_append(&q->body, data, n)) q->refused = q->body.len + n > DIL_SERVE_BODY_MAX ? 413 : 503;
    if (!q->refused) return MHD_YES;
    pthread_mutex_lock(&s->lock);
    s->body_bytes -= q->reserved;
    pthread_mutex_unlock(&s->lock);
    q->reserved = 0;
    dil_buf_fini(&q->body);
    return MHD_YES;
}

static void release_body(request *q)
{
    if (!q->refused) {
        pthread_mutex_lock(&q->s->lock);
        q->s->body_bytes -= q->reserved;
        pthread_mutex_unlock(&q->s->lock);
    }
    q->reserved = 0;
}

/* The client's own id where it is a plain word, else one of ours. */
static void choose_id(request *q)
{
    const char *given = MHD_lookup_connection_value(q->conn, MHD_HEADER_KIND, "X-Request-Id");
    size_t n = given ? strspn(given, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") : 0;
    if (n > 0 && n < sizeof q->id && !given[n]) {
        memcpy(q->id, given, n + 1);
        return;
    }
    uint64_t r;
    randombytes_buf(&r, sizeof r);
    snprintf(q->id, sizeof q->id, "req-%016llx", (unsigned long long)r);
}

static request *new_request(dil_server *s, struct MHD_Connection *conn, const char *url, const char *method, bool *wrong_method)
{
    static const char *const methods[] = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"};
    request *q = calloc(1, sizeof *q);
    if (!q) return NULL;
    *q = (request){.s = s, .conn = conn, .to = dil__route_find(method, url, wrong_method), .method = "OTHER", .start_ns = dil_now_ns()};
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++) {
        if (strcmp(method, methods[i]) == 0) q->method = methods[i];
    }
    for (size_t i = 0; url[i] && i < sizeof q->path - 1; i++) q->path[i] = url[i] > ' ' && url[i] < 127 && url[i] != '"' ? url[i] : '?';
    choose_id(q);
    dil_buf_init(&q->body, DIL_SERVE_BODY_MAX);
    const union MHD_ConnectionInfo *i = MHD_get_connection_info(conn, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    q->guarded = i ? i->socket_context : NULL;
    return q;
}

static enum MHD_Result handle(void *cls, struct MHD_Connection *conn, const char *url, const char *method, const char *version,
                              const char *upload, size_t *n_upload, void **con_cls)
{
    (void)version;
    request *q = *con_cls;
    if (!q) {
        bool wrong_method = false;
        *con_cls = q = new_request(cls, conn, url, method, &wrong_method);
        if (!q) return MHD_NO;
        dil__guard_phase(q->guarded, DIL_GUARD_BODY);
        enum MHD_Result res = MHD_YES;
        refused_at_once(q, wrong_method, &res);
        return res;
    }
    if (*n_upload > 0) {
        enum MHD_Result res = take_upload(q, upload, *n_upload);
        *n_upload = 0;
        return res;
    }
    dil__guard_phase(q->guarded, DIL_GUARD_WORK);
    if (q->job) return answer_job(q);
    int refused = q->refused;
    release_body(q);
    if (refused == 413) return dil__send_error(q, 413, NULL, NULL, "the body is larger than 8 MiB");
    if (refused) return dil__send_error(q, refused, NULL, NULL, "too many bytes are being received; try again");
    if (!q->to->page) return start_job(q);
    q->word = url + strlen(q->to->path);
    return q->to->page(q);
}

/* One line a request; what is only looked at now and then by machines is not said. */
static void log_request(request *q, enum MHD_RequestTerminationCode why)
{
    double ms = (double)(dil_now_ns() - q->start_ns) * 1e-6;
    bool whole = why == MHD_REQUEST_TERMINATED_COMPLETED_OK;
    if (!q->job) {
        bool polled = q->to && q->status == 200 && strcmp(q->to->method, "GET") == 0;
        dil_log(polled ? DIL_LOG_DEBUG : DIL_LOG_INFO, "http", "request=%s method=%s path=%s status=%d ms=%.1f", q->id, q->method, q->path, q->status, ms);
        return;
    }
    dil__job_counts c;
    dil__job_get_counts(q->job, &c);
    dil_log(DIL_LOG_INFO, "http", "request=%s method=%s path=%s status=%d ms=%.1f prompt_tokens=%u generated_tokens=%u first_token_ms=%.1f%s", q->id,
            q->method, q->path, q->status, ms, c.n_prompt, c.n_generated, c.prefill_sec * 1e3, whole ? "" : " client=left");
}

static void completed(void *cls, struct MHD_Connection *conn, void **con_cls, enum MHD_RequestTerminationCode why)
{
    (void)cls;
    (void)conn;
    request *q = *con_cls;
    if (!q) return;
    dil__guard_set_job(q->guarded, NULL);
    dil__guard_phase(q->guarded, DIL_GUARD_IDLE);
    log_request(q, why);
    dil__job_leave(q->job);
    dil__question_end(q);
    dil__served_release(q->served);
    release_body(q);
    dil_buf_fini(&q->body);
    free(q);
    *con_cls = NULL;
}

static void connection_changed(void *cls, struct MHD_Connection *conn, void **socket_context, enum MHD_ConnectionNotificationCode what)
{
    dil_server *s = cls;
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *i = MHD_get_connection_info(conn, MHD_CONNECTION_INFO_CONNECTION_FD);
        *socket_context = i ? dil__guard_add(s->guard, i->connect_fd) : NULL;
    } else dil__guard_remove(*socket_context);
}

/* --- open and close ----------------------------------------------------------------------------------------------------------- */

static dil_status make_listener(const dil_serve_opts *o, dil_server *s, int *out, dil_err *err)
{
    const char *bind_to = o->bind ? o->bind : "127.0.0.1";
    struct sockaddr_in a4 = {.sin_family = AF_INET, .sin_port = htons(o->port)};
    struct sockaddr_in6 a6 = {.sin6_family = AF_INET6, .sin6_port = htons(o->port)};
    bool v6 = inet_pton(AF_INET, bind_to, &a4.sin_addr) != 1;
    if (v6 && inet_pton(AF_INET6, bind_to, &a6.sin6_addr) != 1)
        return dil_fail(err, DIL_EUSAGE, "'%.64s' is no IPv4 or IPv6 address to listen on", bind_to);
    s->loopback = v6 ? IN6_IS_ADDR_LOOPBACK(&a6.sin6_addr) : (ntohl(a4.sin_addr.s_addr) >> 24) == 127;
    int fd = socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), one = 1;
    if (fd < 0) return dil_fail_errno(err, "listening on %s", bind_to);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr *a = v6 ? (struct sockaddr *)&a6 : (struct sockaddr *)&a4;
    socklen_t n = v6 ? sizeof a6 : sizeof a4;
    if (bind(fd, a, n) != 0 || listen(fd, 128) != 0) {
        int e = errno;
        close(fd);
        errno = e;
        if (e == EADDRINUSE) return dil_fail(err, DIL_EBUSY, "port %u on %s is in use; choose another with --port", o->port, bind_to);
        return dil_fail_errno(err, "listening on %s port %u", bind_to, o->port);
    }
    struct sockaddr_storage got;
    n = sizeof got;
    getsockname(fd, (struct sockaddr *)&got, &n);
    s->port = ntohs(v6 ? ((struct sockaddr_in6 *)&got)->sin6_port : ((struct sockaddr_in *)&got)->sin_port);
    *out = fd;
    return DIL_OK;
}

static void say_nothing(void *cls, const char *fmt, va_list args)
{
    (void)cls;
    char text[512];
    vsnprintf(text, sizeof text, fmt, args);
    dil_log(DIL_LOG_DEBUG, "http", "%s", text);
}

static dil_status start_daemon(dil_server *s, const dil_serve_opts *o, int fd, dil_err *err)
{
    dil_buf cert, key;
    dil_buf_init(&cert, 1u << 20);
    dil_buf_init(&key, 1u << 16);
    dil_status st = DIL_OK;
    if (o->tls_cert_file) st = dil_file_read(o->tls_cert_file, &cert, err);
    if (st == DIL_OK && o->tls_cert_file) st = dil_file_read(o->tls_key_file, &key, err);
    struct MHD_OptionItem tls[] = {{MHD_OPTION_HTTPS_MEM_CERT, 0, (void *)(uintptr_t)dil_buf_str(&cert)},
                                   {MHD_OPTION_HTTPS_MEM_KEY, 0, (void *)(uintptr_t)dil_buf_str(&key)}, {MHD_OPTION_END, 0, NULL}};
    if (!o->tls_cert_file) tls[0].option = MHD_OPTION_END;
    unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC | MHD_USE_ERROR_LOG;
    if (st == DIL_OK)
        s->daemon = MHD_start_daemon(
            o->tls_cert_file ? flags | MHD_USE_TLS : flags, 0, NULL, NULL, handle, s,
            MHD_OPTION_EXTERNAL_LOGGER, say_nothing, NULL, MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_ARRAY, tls,
            MHD_OPTION_CONNECTION_LIMIT, o->max_connections ? o->max_connections : 256u,
            MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)DIL_SERVE_HEADERS_SEC, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)DIL_SERVE_HEADERS_MAX + 32768,
            MHD_OPTION_NOTIFY_COMPLETED, completed, NULL, MHD_OPTION_NOTIFY_CONNECTION, connection_changed, s, MHD_OPTION_END);
    if (key.len) sodium_memzero(key.data, key.len);
    dil_buf_fini(&cert);
    dil_buf_fini(&key);
    if (st != DIL_OK || s->daemon) return st;
    if (o->tls_cert_file) return dil_fail(err, DIL_EFORMAT, "%s and %s are no certificate and key in PEM that fit together", o->tls_cert_file, o->tls_key_file);
    return dil_fail(err, DIL_EIO, "http: the server did not start: %s", strerror(errno));
}

static dil_status take_keys(dil_server *s, const dil_serve_opts *o, dil_err *err)
{
    if (o->n_api_keys > KEYS_MAX) return dil_fail(err, DIL_ELIMIT, "%zu API keys, at most %d", o->n_api_keys, KEYS_MAX);
    s->key = calloc(o->n_api_keys ? o->n_api_keys : 1, sizeof *s->key);
    if (!s->key) return dil_fail(err, DIL_EMEMORY, "http: no memory");
    for (size_t i = 0; i < o->n_api_keys; i++) {
        size_t n = strlen(o->api_keys[i]);
        if (n == 0 || n >= KEY_MAX) return dil_fail(err, DIL_ELIMIT, "API key %zu has %zu bytes, it must have 1 to %d", i + 1, n, KEY_MAX - 1);
        s->key[i] = dil_hash_of(o->api_keys[i], n);
    }
    s->n_keys = o->n_api_keys;
    return DIL_OK;
}

dil_status dil_server_open(const dil_serve_opts *o, dil_server **out, dil_err *err)
{
    if (!o->tls_cert_file != !o->tls_key_file) return dil_fail(err, DIL_EUSAGE, "a TLS certificate and its key go together");
    dil_server *s = calloc(1, sizeof *s);
    if (!s) return dil_fail(err, DIL_EMEMORY, "http: no memory");
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->question_done, NULL);
    pthread_cond_init(&s->released, NULL);
    s->host = o->host;
    s->created_sec = dil_wall_ms() / 1000;
    int fd = -1;
    dil_served *first;
    dil_status st = take_keys(s, o, err);
    if (st == DIL_OK && o->model_name) st = dil_server_add(s, o->model_name, &first, err);
    if (st == DIL_OK) st = make_listener(o, s, &fd, err);
    if (st == DIL_OK) st = dil__retry_open(o->retry_path, &s->retry, err);
    if (st == DIL_OK) st = dil__guard_open(DIL_SERVE_HEADERS_SEC, DIL_SERVE_BODY_SEC, &s->guard, err);
    if (st == DIL_OK) st = start_daemon(s, o, fd, err); /* fd is the daemon's from here on */
    if (st == DIL_OK) {
        *out = s;
        return st;
    }
    if (fd >= 0 && !s->daemon) close(fd);
    dil_server_close(s);
    return st;
}

uint16_t dil_server_port(const dil_server *s)
{
    return s->port;
}

void dil_server_close(dil_server *s)
{
    if (!s) return;
    if (s->daemon) {
        MHD_socket fd = MHD_quiesce_daemon(s->daemon);
        if (fd != MHD_INVALID_SOCKET) close(fd);
        atomic_store(&s->closing, true);
        dil__guard_abort_jobs(s->guard, NULL, "the server ends"); /* a daemon cannot stop while connections are suspended */
        dil__questions_wait(s);
        dil__guard_drain(s->guard, 1000); /* for the 503s to get out; a client that does not read is cut */
        MHD_stop_daemon(s->daemon);
    }
    dil__guard_close(s->guard);
    while (s->n_served) dil_served_free(s->served[s->n_served - 1]);
    dil__retry_close(s->retry);
    pthread_cond_destroy(&s->question_done);
    free(s->enrol_dir);
    sodium_memzero(&s->enrol_key, sizeof s->enrol_key);
    pthread_cond_destroy(&s->released);
    pthread_mutex_destroy(&s->lock);
    free(s->key);
    free(s);
}
