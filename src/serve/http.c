/* The HTTP side: libmicrohttpd's one epoll thread runs every connection; a connection whose answer is not there yet is
 * suspended and costs nothing. A second thread closes connections that take too long to ask, and cancels the work of clients
 * that hung up, which a suspended connection would not notice. Rejected: a thread per connection (a slow client would hold
 * one), and polling. */
#include "serve/answer.h"
#include "serve/backend.h"
#include "serve/guard.h"
#include "serve/job.h"

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <pthread.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define MODEL_NAME_MAX 128
#define KEY_MAX 256

struct dil_server {
    struct MHD_Daemon *daemon;
    dil__guard *guard;
    uint16_t port;
    bool loopback;
    char model[MODEL_NAME_MAX], api_key[KEY_MAX];
    int64_t created_sec;
    pthread_mutex_t lock;
    char why[DIL_ERR_TEXT_MAX]; /* why it is not ready, before a backend is attached */
    dil__backend backend;
    bool attached;
    atomic_bool closing;
    size_t body_bytes;          /* of all requests being received */
    uint64_t n_requests[6];     /* answered, by the status' first digit */
};

typedef enum route { ROUTE_NONE, ROUTE_HEALTH, ROUTE_METRICS, ROUTE_MODELS, ROUTE_MODEL, ROUTE_COMPLETION, ROUTE_CHAT } route;

typedef struct request {
    dil_server *s;
    struct MHD_Connection *conn;
    dil__guarded *guarded;   /* the connection's entry at the guard */
    route to;
    dil_buf body;
    size_t reserved;         /* of s->body_bytes */
    int refused;             /* HTTP status to give at the end of the upload */
    dil__job *job;
} request;

/* --- responses -------------------------------------------------------------------------------------------------------- */

static enum MHD_Result send_buf(request *q, int http, const char *type, dil_buf *b)
{
    if (b->failed) {
        dil_buf_fini(b);
        return MHD_NO;
    }
    struct MHD_Response *r = MHD_create_response_from_buffer(b->len, (void *)(uintptr_t)dil_buf_str(b), MHD_RESPMEM_MUST_COPY);
    dil_buf_fini(b);
    if (!r) return MHD_NO;
    MHD_add_response_header(r, "Content-Type", type);
    MHD_add_response_header(r, "X-Content-Type-Options", "nosniff");
    if (http == 429 || http == 503) MHD_add_response_header(r, "Retry-After", "1");
    if (http == 401) MHD_add_response_header(r, "WWW-Authenticate", "Bearer");
    if (http == 405) MHD_add_response_header(r, "Allow", q->to >= ROUTE_COMPLETION ? "POST" : "GET");
    pthread_mutex_lock(&q->s->lock);
    q->s->n_requests[http / 100]++;
    pthread_mutex_unlock(&q->s->lock);
    enum MHD_Result res = MHD_queue_response(q->conn, (unsigned)http, r);
    MHD_destroy_response(r);
    return res;
}

static enum MHD_Result send_error(request *q, int http, const char *param, const char *code, const char *message)
{
    dil_buf b;
    dil_buf_init(&b, 1u << 16);
    dil__answer_error(http, message, param, code, &b);
    return send_buf(q, http, "application/json", &b);
}

static enum MHD_Result send_json(request *q, int http, json_t *doc)
{
    dil_buf b;
    dil_buf_init(&b, 1u << 20);
    char *text = doc ? json_dumps(doc, JSON_COMPACT) : NULL;
    if (text) dil_buf_printf(&b, "%s\n", text);
    else b.failed = true;
    free(text);
    json_decref(doc);
    return send_buf(q, http, "application/json", &b);
}

/* --- state -------------------------------------------------------------------------------------------------------------- */

static void get_state(dil_server *s, dil_runner_state *st)
{
    memset(st, 0, sizeof *st);
    pthread_mutex_lock(&s->lock);
    bool attached = s->attached;
    snprintf(st->why, sizeof st->why, "%s", s->why);
    pthread_mutex_unlock(&s->lock);
    if (attached) s->backend.state(s->backend.ctx, st);
}

static enum MHD_Result send_health(request *q)
{
    dil_runner_state st;
    get_state(q->s, &st);
    if (st.ready)
        return send_json(q, 200, json_pack("{s:s, s:s, s:I, s:I}", "status", "ok", "model", q->s->model, "active",
                                           (json_int_t)st.n_active, "queued", (json_int_t)st.n_queued));
    if (st.recovering)
        return send_json(q, 503, json_pack("{s:s, s:s, s:s, s:f, s:I, s:I, s:s}", "status", "recovering", "model", q->s->model, "node", st.node, "since_sec",
                                           st.recovering_sec, "active", (json_int_t)st.n_active, "queued", (json_int_t)st.n_queued, "reason", st.why));
    return send_json(q, 503, json_pack("{s:s, s:s, s:s}", "status", "not ready", "model", q->s->model, "reason",
                                       st.why[0] ? st.why : "starting"));
}

static void metric(dil_buf *b, const char *name, const char *type, const char *help, double value)
{
    dil_buf_printf(b, "# HELP dilemma_%s %s\n# TYPE dilemma_%s %s\ndilemma_%s %.9g\n", name, help, name, type, name, value);
}

static enum MHD_Result send_metrics(request *q)
{
    dil_runner_state st;
    get_state(q->s, &st);
    dil_buf b;
    dil_buf_init(&b, 1u << 16);
    metric(&b, "ready", "gauge", "1 when every stage is loaded and answers.", st.ready);
    metric(&b, "requests_total", "counter", "Generations accepted.", (double)st.requests);
    metric(&b, "failures_total", "counter", "Generations that ended with an error.", (double)st.failures);
    metric(&b, "prompt_tokens_total", "counter", "Prompt tokens taken in.", (double)st.tokens_in);
    metric(&b, "generated_tokens_total", "counter", "Tokens generated.", (double)st.tokens_out);
    metric(&b, "guessed_tokens_total", "counter", "Tokens guessed ahead (speculation).", (double)st.n_guessed);
    metric(&b, "accepted_tokens_total", "counter", "Guessed tokens that came.", (double)st.n_right);
    metric(&b, "recoveries_total", "counter", "Losses of a node or link that running requests survived.", st.n_recoveries);
    metric(&b, "requests_active", "gauge", "Generations that run.", st.n_active);
    metric(&b, "requests_queued", "gauge", "Generations that wait.", st.n_queued);
    metric(&b, "queue_limit", "gauge", "Generations that may wait; more are answered 429.", st.queue_max);
    metric(&b, "token_seconds", "gauge", "Seconds a token of a running stream, smoothed.", st.token_sec);
    dil_buf_printf(&b, "# HELP dilemma_http_responses_total Responses by class of status.\n# TYPE dilemma_http_responses_total counter\n");
    pthread_mutex_lock(&q->s->lock);
    for (int i = 2; i < 6; i++)
        dil_buf_printf(&b, "dilemma_http_responses_total{class=\"%dxx\"} %llu\n", i, (unsigned long long)q->s->n_requests[i]);
    pthread_mutex_unlock(&q->s->lock);
    return send_buf(q, 200, "text/plain; version=0.0.4; charset=utf-8", &b);
}

static json_t *model_doc(const dil_server *s)
{
    return json_pack("{s:s, s:s, s:I, s:s}", "id", s->model, "object", "model", "created", (json_int_t)s->created_sec, "owned_by", "dilemma");
}

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
    if (end) return MHD_CONTENT_READER_END_OF_STREAM;
    dil__job_sleep(q->job, true, suspend, q);
    return 0;
}

static enum MHD_Result send_stream(request *q)
{
    struct MHD_Response *r = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 16384, read_body, q, NULL);
    if (!r) return MHD_NO;
    MHD_add_response_header(r, "Content-Type", "text/event-stream; charset=utf-8");
    MHD_add_response_header(r, "Cache-Control", "no-cache");
    MHD_add_response_header(r, "X-Accel-Buffering", "no"); /* a proxy in front must not hold tokens back */
    pthread_mutex_lock(&q->s->lock);
    q->s->n_requests[2]++;
    pthread_mutex_unlock(&q->s->lock);
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
    return send_buf(q, 200, "application/json", &b);
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
        return send_buf(q, http, "application/json", &b);
    }
    dil_buf_fini(&b);
    return dil__job_is_stream(q->job) ? send_stream(q) : send_whole(q);
}

static enum MHD_Result start_job(request *q)
{
    dil_server *s = q->s;
    dil_runner_state st;
    get_state(s, &st);
    dil_err err;
    dil__api_req api;
    const char *param;
    dil_status status = dil__api_parse(q->to == ROUTE_CHAT ? DIL_API_CHAT : DIL_API_COMPLETION, dil_buf_str(&q->body), q->body.len,
                                       &api, &param, &err);
    dil_buf_fini(&q->body);
    if (status != DIL_OK) return send_error(q, status == DIL_EMEMORY ? 503 : 400, param, NULL, err.text);
    if (api.model && strcmp(api.model, s->model) != 0) {
        char text[512];
        snprintf(text, sizeof text, "the model '%.128s' is not served here; this is '%s'", api.model, s->model);
        dil__api_req_fini(&api);
        return send_error(q, 404, "model", "model_not_found", text);
    }
    if (!st.ready && !st.recovering) {
        dil__api_req_fini(&api);
        char text[DIL_ERR_TEXT_MAX + 32];
        snprintf(text, sizeof text, "not ready: %s", st.why[0] ? st.why : "starting");
        return send_error(q, 503, NULL, "not_ready", text);
    }
    if (api.kind == DIL_API_CHAT && !s->backend.chat) {
        dil__api_req_fini(&api);
        return send_error(q, 400, "messages", "no_chat_template", "this model has no chat template that is known; use /v1/completions");
    }
    status = dil__job_start(&s->backend, &api, s->model, wake, q, &q->job, &err);
    if (status != DIL_OK) {
        const char *code;
        int http = dil__answer_status(&err, &code);
        return send_error(q, http, NULL, code, err.text);
    }
    dil__guard_set_job(q->guarded, q->job);
    if (atomic_load(&s->closing)) dil__job_abort(q->job, "the server ends"); /* it may have come after the others were ended */
    return answer_job(q);
}

/* --- requests --------------------------------------------------------------------------------------------------------------- */

static route find_route(const char *url)
{
    if (strcmp(url, "/health") == 0) return ROUTE_HEALTH;
    if (strcmp(url, "/metrics") == 0) return ROUTE_METRICS;
    if (strcmp(url, "/v1/models") == 0) return ROUTE_MODELS;
    if (strncmp(url, "/v1/models/", 11) == 0) return ROUTE_MODEL;
    if (strcmp(url, "/v1/completions") == 0) return ROUTE_COMPLETION;
    if (strcmp(url, "/v1/chat/completions") == 0) return ROUTE_CHAT;
    return ROUTE_NONE;
}

static bool key_matches(const dil_server *s, const char *given)
{
    char want[KEY_MAX] = {0}, have[KEY_MAX] = {0};
    if (!given || strncasecmp(given, "Bearer ", 7) != 0) return false;
    snprintf(want, sizeof want, "%s", s->api_key);
    size_t n = strlen(given + 7);
    if (n >= sizeof have) return false;
    memcpy(have, given + 7, n);
    return sodium_memcmp(want, have, sizeof want) == 0; /* the time tells nothing about where they differ */
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
static bool refused_at_once(request *q, const char *method, enum MHD_Result *res)
{
    const dil_server *s = q->s;
    bool post = q->to >= ROUTE_COMPLETION;
    const char *length = MHD_lookup_connection_value(q->conn, MHD_HEADER_KIND, "Content-Length");
    if (q->to == ROUTE_NONE)
        *res = send_error(q, 404, NULL, NULL, "no such endpoint; see /v1/models, /v1/completions, /v1/chat/completions");
    else if (post ? strcmp(method, "POST") != 0 : strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0)
        *res = send_error(q, 405, NULL, NULL, post ? "this endpoint takes POST" : "this endpoint takes GET");
    else if (from_foreign_page(q)) *res = send_error(q, 403, NULL, NULL, "requests from other origins are not served");
    else if (s->api_key[0] && q->to != ROUTE_HEALTH &&
             !key_matches(s, MHD_lookup_connection_value(q->conn, MHD_HEADER_KIND, "Authorization")))
        *res = send_error(q, 401, NULL, "invalid_api_key", "missing or wrong API key");
    else if (post && length && (strlen(length) > 10 || strtoull(length, NULL, 10) > DIL_SERVE_BODY_MAX))
        *res = send_error(q, 413, NULL, NULL, "the body is larger than 8 MiB");
    else return false;
    return true;
}

static enum MHD_Result send_get(request *q, const char *url)
{
    switch (q->to) {
    case ROUTE_HEALTH: return send_health(q);
    case ROUTE_METRICS: return send_metrics(q);
    case ROUTE_MODELS: return send_json(q, 200, json_pack("{s:s, s:[o]}", "object", "list", "data", model_doc(q->s)));
    default:
        if (strcmp(url + 11, q->s->model) != 0) return send_error(q, 404, "model", "model_not_found", "no such model; see /v1/models");
        return send_json(q, 200, model_doc(q->s));
    }
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

static enum MHD_Result handle(void *cls, struct MHD_Connection *conn, const char *url, const char *method, const char *version,
                              const char *upload, size_t *n_upload, void **con_cls)
{
    (void)version;
    request *q = *con_cls;
    if (!q) {
        q = calloc(1, sizeof *q);
        if (!q) return MHD_NO;
        *con_cls = q;
        *q = (request){.s = cls, .conn = conn, .to = find_route(url)};
        dil_buf_init(&q->body, DIL_SERVE_BODY_MAX);
        const union MHD_ConnectionInfo *i = MHD_get_connection_info(conn, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
        q->guarded = i ? i->socket_context : NULL;
        dil__guard_phase(q->guarded, DIL_GUARD_BODY);
        enum MHD_Result res = MHD_YES;
        refused_at_once(q, method, &res);
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
    if (refused == 413) return send_error(q, 413, NULL, NULL, "the body is larger than 8 MiB");
    if (refused) return send_error(q, refused, NULL, NULL, "too many bytes are being received; try again");
    return q->to >= ROUTE_COMPLETION ? start_job(q) : send_get(q, url);
}

static void completed(void *cls, struct MHD_Connection *conn, void **con_cls, enum MHD_RequestTerminationCode why)
{
    (void)cls;
    (void)conn;
    (void)why;
    request *q = *con_cls;
    if (!q) return;
    dil__guard_set_job(q->guarded, NULL);
    dil__guard_phase(q->guarded, DIL_GUARD_IDLE);
    dil__job_leave(q->job);
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
    s->daemon = MHD_start_daemon(
        MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC | MHD_USE_ERROR_LOG, 0, NULL, NULL, handle, s,
        MHD_OPTION_EXTERNAL_LOGGER, say_nothing, NULL, MHD_OPTION_LISTEN_SOCKET, fd,
        MHD_OPTION_CONNECTION_LIMIT, o->max_connections ? o->max_connections : 256u,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)DIL_SERVE_HEADERS_SEC, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)DIL_SERVE_HEADERS_MAX + 32768,
        MHD_OPTION_NOTIFY_COMPLETED, completed, NULL, MHD_OPTION_NOTIFY_CONNECTION, connection_changed, s, MHD_OPTION_END);
    return s->daemon ? DIL_OK : dil_fail(err, DIL_EIO, "http: the server did not start: %s", strerror(errno));
}

dil_status dil_server_open(const dil_serve_opts *o, dil_server **out, dil_err *err)
{
    if (o->api_key && strlen(o->api_key) >= KEY_MAX) return dil_fail(err, DIL_ELIMIT, "the API key has more than %d bytes", KEY_MAX - 1);
    dil_server *s = calloc(1, sizeof *s);
    if (!s) return dil_fail(err, DIL_EMEMORY, "http: no memory");
    pthread_mutex_init(&s->lock, NULL);
    snprintf(s->model, sizeof s->model, "%s", o->model_name ? o->model_name : "model");
    snprintf(s->api_key, sizeof s->api_key, "%s", o->api_key ? o->api_key : "");
    snprintf(s->why, sizeof s->why, "starting");
    s->created_sec = dil_wall_ms() / 1000;
    int fd = -1;
    dil_status st = make_listener(o, s, &fd, err);
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

void dil_server_set_status(dil_server *s, const char *why)
{
    pthread_mutex_lock(&s->lock);
    snprintf(s->why, sizeof s->why, "%s", why);
    pthread_mutex_unlock(&s->lock);
}

void dil__server_attach(dil_server *s, const dil__backend *b)
{
    pthread_mutex_lock(&s->lock);
    s->backend = *b;
    s->attached = true;
    pthread_mutex_unlock(&s->lock);
}

void dil_server_close(dil_server *s)
{
    if (!s) return;
    if (s->daemon) {
        MHD_socket fd = MHD_quiesce_daemon(s->daemon);
        if (fd != MHD_INVALID_SOCKET) close(fd);
        atomic_store(&s->closing, true);
        dil__guard_abort_jobs(s->guard); /* a daemon cannot stop while connections are suspended */
        dil__guard_drain(s->guard, 1000); /* for the 503s to get out; a client that does not read is cut */
        MHD_stop_daemon(s->daemon);
    }
    dil__guard_close(s->guard);
    if (s->attached && s->backend.free) s->backend.free(s->backend.ctx);
    pthread_mutex_destroy(&s->lock);
    free(s);
}
