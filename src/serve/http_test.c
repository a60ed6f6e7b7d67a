/* labels: threads */
/* The server over real sockets, with a stand-in for the model that does what the prompt says, one byte a token. */
#define _GNU_SOURCE
#include "serve/backend.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

/* --- the stand-in: "echo:TEXT" answers TEXT; "wait:" answers nothing until canceled; "fail:TEXT" breaks after TEXT -------- */

typedef struct gen {
    char text[512];
    size_t n;
    bool wait, fail;
    dil_gen_fn *fn;
    void *ctx;
    uint64_t id;
    uint32_t max_tokens;
    atomic_bool *canceled;
} gen;

static atomic_int n_running, n_waiting, n_canceled;
static atomic_bool cancel_flag[1000];
static atomic_uint_fast64_t next_id;
static pthread_mutex_t wait_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wait_cond = PTHREAD_COND_INITIALIZER;

static void *generate(void *p)
{
    gen *g = p;
    uint32_t sent = 0;
    dil_gen_event done = {.kind = DIL_GEN_DONE, .finish = DIL_FINISH_STOP, .prefill_sec = 0.5, .decode_sec = 0.25};
    for (; sent < g->n && sent < g->max_tokens && !*g->canceled; sent++) {
        dil_gen_event e = {.kind = DIL_GEN_TOKEN, .token = (unsigned char)g->text[sent]};
        g->fn(g->ctx, g->id, &e);
    }
    if (sent < g->n) done.finish = DIL_FINISH_LENGTH;
    if (g->wait) {
        pthread_mutex_lock(&wait_lock);
        n_waiting++;
        pthread_cond_broadcast(&wait_cond);
        while (!*g->canceled) pthread_cond_wait(&wait_cond, &wait_lock);
        n_waiting--;
        pthread_mutex_unlock(&wait_lock);
    }
    if (*g->canceled) done.finish = DIL_FINISH_CANCELED;
    if (g->fail) {
        dil_err err;
        dil_fail(&err, DIL_ENET, "node b vanished");
        dil_gen_event e = {.kind = DIL_GEN_ERROR, .error = &err};
        g->fn(g->ctx, g->id, &e);
    } else g->fn(g->ctx, g->id, &done);
    free(g);
    pthread_mutex_lock(&wait_lock);
    n_running--;
    pthread_cond_broadcast(&wait_cond);
    pthread_mutex_unlock(&wait_lock);
    return NULL;
}

static dil_status encode(void *ctx, const dil__api_req *q, dil_ids *out, dil_err *err)
{
    (void)ctx;
    (void)err;
    const char *s = q->kind == DIL_API_CHAT ? q->msgs[q->n_msgs - 1].content : q->prompt;
    out->n = strlen(s);
    out->id = malloc((out->n + 1) * sizeof *out->id);
    for (size_t i = 0; i < out->n; i++) out->id[i] = (unsigned char)s[i];
    return DIL_OK;
}

static char bytes[256]; /* set before the first server starts */

static const char *piece(void *ctx, int32_t token, size_t *len)
{
    (void)ctx;
    *len = 1;
    return &bytes[token];
}

static dil_status submit(void *ctx, const dil_gen_req *r, dil_gen_fn *fn, void *fn_ctx, uint64_t *id, dil_err *err)
{
    (void)ctx;
    char prompt[512] = "";
    for (size_t i = 0; i < r->n_prompt && i < sizeof prompt - 1; i++) prompt[i] = (char)r->prompt[i];
    if (strncmp(prompt, "busy:", 5) == 0) return dil_fail(err, DIL_EBUSY, "the queue is full: 8 of 8");
    if (strncmp(prompt, "long:", 5) == 0) return dil_fail(err, DIL_ELIMIT, "the prompt has 99 tokens, the context 64");
    gen *g = calloc(1, sizeof *g);
    *g = (gen){.fn = fn, .ctx = fn_ctx, .max_tokens = r->max_tokens, .wait = strncmp(prompt, "wait:", 5) == 0,
               .fail = strncmp(prompt, "fail:", 5) == 0};
    g->n = r->n_prompt - 5;
    memcpy(g->text, prompt + 5, g->n);
    g->id = *id = ++next_id % 1000;
    g->canceled = &cancel_flag[g->id];
    *g->canceled = false;
    n_running++;
    pthread_t t;
    pthread_create(&t, NULL, generate, g);
    pthread_detach(t);
    return DIL_OK;
}

static void cancel(void *ctx, uint64_t id)
{
    (void)ctx;
    pthread_mutex_lock(&wait_lock);
    if (!cancel_flag[id]) n_canceled++;
    cancel_flag[id] = true;
    pthread_cond_broadcast(&wait_cond);
    pthread_mutex_unlock(&wait_lock);
}

static atomic_bool lost;

static void get_state(void *ctx, dil_runner_state *st)
{
    (void)ctx;
    *st = (dil_runner_state){.ready = !lost, .n_ctx = 400, .requests = 3};
    if (lost) snprintf(st->why, sizeof st->why, "node b is lost");
}

static const dil__backend fake = {.encode = encode, .piece = piece, .submit = submit, .cancel = cancel, .state = get_state, .chat = true};

/* --- a client --------------------------------------------------------------------------------------------------------------- */

static dil_server *srv;
static char answer[1 << 20];

static int dial(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(dil_server_port(srv)), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    struct timeval limit = {.tv_sec = 20};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    return fd;
}

static void say(int fd, const char *data, size_t n)
{
    for (size_t i = 0; i < n;) {
        ssize_t k = send(fd, data + i, n - i, MSG_NOSIGNAL);
        if (k <= 0) return; /* the server may have answered and closed */
        i += (size_t)k;
    }
}

static void post(int fd, const char *path, const char *body, size_t n, const char *headers)
{
    char head[512];
    int h = snprintf(head, sizeof head, "POST %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %zu\r\n%s\r\n", path, n, headers);
    say(fd, head, (size_t)h);
    if (body) say(fd, body, n);
}

/* Reads to the end; returns the status, the answer in `answer`. */
static int finish(int fd)
{
    size_t n = 0;
    for (ssize_t k; n < sizeof answer - 1 && (k = recv(fd, answer + n, sizeof answer - 1 - n, 0)) > 0;) n += (size_t)k;
    answer[n] = 0;
    close(fd);
    int http = 0;
    sscanf(answer, "HTTP/1.1 %d", &http);
    return http;
}

static int ask(const char *path, const char *body)
{
    int fd = dial();
    post(fd, path, body, strlen(body), "");
    return finish(fd);
}

static int get(const char *path, const char *headers)
{
    char head[512];
    int fd = dial();
    int h = snprintf(head, sizeof head, "GET %s HTTP/1.1\r\nConnection: close\r\n%s\r\n", path, headers);
    say(fd, head, (size_t)h);
    return finish(fd);
}

#define CHAT "/v1/chat/completions"
#define COMP "/v1/completions"
#define has(text) do { if (!strstr(answer, text)) fail_msg("no '%s' in: %.2000s", text, answer); } while (0)
#define has_not(text) do { if (strstr(answer, text)) fail_msg("'%s' in: %.2000s", text, answer); } while (0)

static int start(void **state)
{
    (void)state;
    dil_err err;
    dil_serve_opts o = {.model_name = "tiny"};
    lost = false;
    if (dil_server_open(&o, &srv, &err) != DIL_OK) return -1;
    dil__served_attach(dil_server_first(srv), &fake);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    dil_server_close(srv);
    pthread_mutex_lock(&wait_lock);
    while (n_running > 0) pthread_cond_wait(&wait_cond, &wait_lock);
    pthread_mutex_unlock(&wait_lock);
    return 0;
}

/* --- tests -------------------------------------------------------------------------------------------------------------------- */

static void an_answer_comes_whole(void **state)
{
    (void)state;
    assert_int_equal(ask(COMP, "{\"model\": \"tiny\", \"prompt\": \"echo:gr\\u00fc\\u00df \\ud83d\\ude00\", \"max_tokens\": 99}"), 200);
    has("\"text\":\"gr\xc3\xbc\xc3\x9f \xf0\x9f\x98\x80\"");
    has("\"finish_reason\":\"stop\"");
    has("\"usage\":{\"prompt_tokens\":16,\"completion_tokens\":11,\"total_tokens\":27}");
    assert_int_equal(ask(CHAT, "{\"messages\": [{\"role\": \"user\", \"content\": \"echo:abcdef\"}], \"max_tokens\": 3}"), 200);
    has("\"content\":\"abc\"");
    has("\"finish_reason\":\"length\"");
    has("\"object\":\"chat.completion\"");
}

static void a_stream_has_whole_characters_and_an_end(void **state)
{
    (void)state;
    assert_int_equal(ask(CHAT, "{\"messages\": [{\"role\": \"user\", \"content\": \"echo:a\\u20ac\"}], \"stream\": true,"
                         "\"stream_options\": {\"include_usage\": true}}"), 200);
    has("text/event-stream");
    has("{\"role\":\"assistant\",\"content\":\"\"}");
    has("{\"content\":\"a\"}");
    has("{\"content\":\"\xe2\x82\xac\"}");
    has_not("\xef\xbf\xbd");
    has("\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":4,\"total_tokens\":13}");
    has("data: [DONE]\n\n");
}

static void a_stop_string_ends_it_and_is_not_sent(void **state)
{
    (void)state;
    int before = n_canceled;
    assert_int_equal(ask(COMP, "{\"prompt\": \"echo:one END two\", \"max_tokens\": 99, \"stop\": \"END\", \"stream\": true}"), 200);
    has_not("E\"");
    has_not("two");
    has("\"finish_reason\":\"stop\"");
    assert_true(n_canceled >= before);
    assert_int_equal(ask(COMP, "{\"prompt\": \"echo:one END two\", \"max_tokens\": 99, \"stop\": [\"x\", \"END\"]}"), 200);
    has("\"text\":\"one \"");
}

static void errors_have_the_api_s_form_and_status(void **state)
{
    (void)state;
    static const struct { const char *path, *body; int http; const char *text; } c[] = {
        {CHAT, "{", 400, "\"type\":\"invalid_request_error\""},
        {CHAT, "{\"messages\": 4}", 400, "\"param\":\"messages\""},
        {COMP, "{\"prompt\": \"x\", \"temperature\": 9}", 400, "\"param\":\"temperature\""},
        {COMP, "{\"prompt\": \"\"}", 400, "prompt is empty"},
        {COMP, "{\"prompt\": \"x\", \"model\": \"other\"}", 404, "\"code\":\"model_not_found\""},
        {COMP, "{\"prompt\": \"long:\"}", 400, "\"code\":\"context_length_exceeded\""},
        {COMP, "{\"prompt\": \"busy:\"}", 429, "\"type\":\"rate_limit_error\""},
        {COMP, "{\"prompt\": \"fail:\", \"stream\": true}", 503, "node b vanished"},
        {COMP, "{\"prompt\": \"fail:abc\"}", 503, "node b vanished"},
        {"/v1/nothing", "{}", 404, "\"error\""},
        {"/health", "{}", 405, "Allow: GET"},
    };
    for (size_t i = 0; i < sizeof c / sizeof c[0]; i++) {
        int http = ask(c[i].path, c[i].body);
        if (http != c[i].http) fail_msg("case %zu: %d: %s", i, http, answer);
        has(c[i].text);
        has("\"message\":");
    }
}

static void a_stream_that_breaks_says_so(void **state)
{
    (void)state;
    assert_int_equal(ask(COMP, "{\"prompt\": \"fail:abc\", \"stream\": true}"), 200);
    has("\"text\":\"a\"");
    has("data: {\"error\":{\"message\":\"node b vanished\"");
    has_not("[DONE]");
}

static void health_tells_the_truth(void **state)
{
    (void)state;
    assert_int_equal(get("/health", "Host: localhost\r\n"), 200);
    has("\"status\":\"ok\"");
    lost = true;
    assert_int_equal(get("/health", "Host: localhost\r\n"), 503);
    has("node b is lost");
    assert_int_equal(ask(COMP, "{\"prompt\": \"echo:a\"}"), 503);
    has("node b is lost");
    has("Retry-After");
    assert_int_equal(get("/metrics", "Host: localhost\r\n"), 200);
    has("dilemma_ready 0\n");
    has("dilemma_requests_total 3\n");
    assert_int_equal(get("/v1/models", "Host: localhost\r\n"), 200);
    has("\"id\":\"tiny\"");
    assert_int_equal(get("/v1/models/tiny", "Host: localhost\r\n"), 200);
    assert_int_equal(get("/v1/models/other", "Host: localhost\r\n"), 404);
}

static void pages_of_others_are_refused(void **state)
{
    (void)state;
    assert_int_equal(get("/v1/models", "Host: evil.example\r\n"), 403);
    assert_int_equal(get("/v1/models", "Host: localhost:1\r\nOrigin: http://evil.example\r\n"), 403);
    assert_int_equal(get("/v1/models", "Host: localhost:1\r\nOrigin: http://localhost:1\r\n"), 200);
    assert_int_equal(get("/v1/models", "Host: localhost:1\r\nOrigin: null\r\n"), 403);
}

static void a_body_beyond_the_limit_is_refused(void **state)
{
    (void)state;
    int fd = dial();
    post(fd, COMP, NULL, (size_t)DIL_SERVE_BODY_MAX + 1, ""); /* by its announced length, before it comes */
    assert_int_equal(finish(fd), 413);
    fd = dial();
    static const char head[] = "POST " COMP " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    say(fd, head, sizeof head - 1);
    static char block[1 << 20];
    memset(block, ' ', sizeof block);
    for (int i = 0; i < 9; i++) {
        say(fd, "100000\r\n", 8);
        say(fd, block, sizeof block);
        say(fd, "\r\n", 2);
    }
    say(fd, "0\r\n\r\n", 5);
    assert_int_equal(finish(fd), 413);
}

static void wait_for(atomic_int *count, int at_least)
{
    pthread_mutex_lock(&wait_lock);
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += 20;
    while (*count < at_least) {
        if (pthread_cond_timedwait(&wait_cond, &wait_lock, &end) != 0) break;
    }
    bool good = *count >= at_least;
    pthread_mutex_unlock(&wait_lock);
    assert_true(good);
}

static void a_client_that_hangs_up_cancels_its_work(void **state)
{
    (void)state;
    static const char *const body[] = {"{\"prompt\": \"wait:\"}", "{\"prompt\": \"wait:\", \"stream\": true}", "{\"prompt\": \"wait:some\", \"stream\": true}"};
    for (int i = 0; i < 3; i++) {
        int before = n_canceled, fd = dial();
        post(fd, COMP, body[i], strlen(body[i]), "");
        wait_for(&n_waiting, 1);
        close(fd);
        wait_for(&n_canceled, before + 1);
        pthread_mutex_lock(&wait_lock);
        while (n_running > 0) pthread_cond_wait(&wait_cond, &wait_lock);
        pthread_mutex_unlock(&wait_lock);
    }
}

static void many_wait_at_once_without_a_thread_each(void **state)
{
    (void)state;
    enum { N = 100 };
    int fd[N];
    const char *body = "{\"prompt\": \"wait:x\", \"stream\": true}";
    for (int i = 0; i < N; i++) post(fd[i] = dial(), COMP, body, strlen(body), "");
    wait_for(&n_waiting, N);
    assert_int_equal(get("/health", "Host: localhost\r\n"), 200);
    dil_server_close(srv); /* with all of them waiting */
    for (int i = 0; i < N; i++) {
        finish(fd[i]);
        if (i == 0) has("\"text\":\"x\"");
    }
    assert_int_equal(start(NULL), 0);
}

static dil_buf said;

static void keep_line(void *ctx, dil_log_level level, const char *module, const char *text)
{
    (void)ctx, (void)level;
    dil_buf_printf(&said, "%s %s\n", module, text);
}

static void keys_are_asked_for(void **state)
{
    (void)state;
    dil_server_close(srv);
    dil_buf_init(&said, 1 << 20);
    dil_log_set_sink(keep_line, NULL, DIL_LOG_DEBUG);
    dil_err err;
    const char *const keys[] = {"open", "sesame"};
    dil_serve_opts o = {.model_name = "tiny", .api_keys = keys, .n_api_keys = 2};
    assert_int_equal(dil_server_open(&o, &srv, &err), DIL_OK);
    assert_int_equal(get("/health", "Host: localhost\r\n"), 503); /* nothing attached yet; no key needed */
    dil_served_set_status(dil_server_first(srv), "loading weights: 40 %");
    get("/health", "Host: localhost\r\n");
    has("loading weights: 40 %");
    dil__served_attach(dil_server_first(srv), &fake);
    assert_int_equal(get("/v1/models", "Host: localhost\r\n"), 401);
    assert_int_equal(get("/v1/models", "Host: localhost\r\nAuthorization: Bearer sesam\r\n"), 401);
    assert_int_equal(get("/v1/models", "Host: localhost\r\nAuthorization: Bearer sesamee\r\n"), 401);
    assert_int_equal(get("/v1/models", "Host: localhost\r\nAuthorization: Bearer sesame\r\n"), 200);
    dil_server_close(srv);
    srv = NULL;
    dil_log_set_sink(NULL, NULL, DIL_LOG_INFO);
    assert_non_null(strstr(dil_buf_str(&said), "path=/v1/models status=401"));
    assert_null(strstr(dil_buf_str(&said), "sesam")); /* keys, right or wrong, are not in the log */
    dil_buf_fini(&said);
}

static dil_status load_fake(void *ctx, const dil_serve_load *what, const dil_progress *p, dil_served **out, dil_err *err)
{
    (void)ctx, (void)p;
    if (strcmp(what->model, "large.gguf") == 0) return dil_fail(err, DIL_ELIMIT, "node b: too little memory");
    dil_status s = dil_server_add(srv, what->name ? what->name : "unnamed", out, err);
    if (s == DIL_OK) dil__served_attach(*out, &fake);
    return s;
}

static dil_status unload_fake(void *ctx, const char *name, dil_err *err)
{
    (void)ctx, (void)name, (void)err; /* the test takes out the first each time */
    dil_served *m = dil_server_first(srv);
    dil_server_remove(m, 0);
    dil_served_free(m);
    return DIL_OK;
}

#define SESAME "Host: localhost\r\nAuthorization: Bearer sesame\r\n"

static int change(const char *method, const char *path, const char *body, const char *headers)
{
    char req[2048];
    int fd = dial(), n = snprintf(req, sizeof req, "%s %s HTTP/1.1\r\n%sContent-Length: %zu\r\nConnection: close\r\n\r\n%s", method, path, headers, strlen(body), body);
    say(fd, req, (size_t)n);
    return finish(fd);
}

static void models_come_and_go(void **state)
{
    (void)state;
    dil_server_close(srv);
    dil_err err;
    const char *const keys[] = {"sesame"};
    dil_serve_opts o = {.model_name = "tiny", .host = {NULL, load_fake, unload_fake}};
    assert_int_equal(dil_server_open(&o, &srv, &err), DIL_OK);
    dil__served_attach(dil_server_first(srv), &fake);
    assert_int_equal(change("POST", "/dilemma/models", "{\"model\": \"x.gguf\"}", "Host: localhost\r\n"), 403); /* no keys: nobody may */
    dil_server_close(srv);
    o.api_keys = keys;
    o.n_api_keys = 1;
    assert_int_equal(dil_server_open(&o, &srv, &err), DIL_OK);
    dil__served_attach(dil_server_first(srv), &fake);
    assert_int_equal(change("POST", "/dilemma/models", "{\"model\": \"x.gguf\"}", "Host: localhost\r\n"), 401);
    assert_int_equal(change("POST", "/dilemma/models", "{\"plan\": \"x\"}", SESAME), 400);
    has("model must name a GGUF file");
    assert_int_equal(change("POST", "/dilemma/models", "{\"model\": 7}", SESAME), 400);
    assert_int_equal(change("POST", "/dilemma/models", "{\"model\": \"large.gguf\"}", SESAME), 507);
    has("too little memory");
    assert_int_equal(change("POST", "/dilemma/models", "{\"model\": \"x.gguf\", \"name\": \"second\"}", SESAME), 200);
    has("\"status\":\"ready\"");
    assert_int_equal(change("POST", "/dilemma/models", "{\"model\": \"x.gguf\", \"name\": \"second\"}", SESAME), 409);
    assert_int_equal(get("/v1/models", SESAME), 200);
    has("\"id\":\"tiny\"");
    has("\"id\":\"second\"");
    assert_int_equal(get("/health", "Host: localhost\r\n"), 200);
    has("\"second\":\"ready\"");
    assert_int_equal(change("POST", COMP, "{\"model\": \"second:latest\", \"prompt\": \"echo:hi\"}", SESAME), 200);
    has("\"model\":\"second\"");
    assert_int_equal(change("POST", COMP, "{\"prompt\": \"echo:hi\"}", SESAME), 200); /* the first, where none is named */
    has("\"model\":\"tiny\"");
    assert_int_equal(change("POST", COMP, "{\"model\": \"third\", \"prompt\": \"echo:hi\"}", SESAME), 404);
    has("these are 'tiny', 'second'");
    assert_int_equal(change("DELETE", "/dilemma/models/third", "", SESAME), 404);
    assert_int_equal(change("DELETE", "/dilemma/models/tiny", "", "Host: localhost\r\n"), 401);
    assert_int_equal(change("DELETE", "/dilemma/models/tiny", "", SESAME), 200);
    assert_int_equal(change("POST", COMP, "{\"model\": \"tiny\", \"prompt\": \"echo:hi\"}", SESAME), 404);
    assert_int_equal(change("POST", COMP, "{\"prompt\": \"echo:hi\"}", SESAME), 200);
    has("\"model\":\"second\"");
    assert_int_equal(change("DELETE", "/dilemma/models/second", "", SESAME), 200);
    assert_int_equal(get("/health", "Host: localhost\r\n"), 503);
    has("no model is loaded");
    assert_int_equal(change("POST", COMP, "{\"prompt\": \"echo:hi\"}", SESAME), 503);
}

static void a_port_in_use_is_named(void **state)
{
    (void)state;
    dil_err err;
    dil_serve_opts o = {.port = dil_server_port(srv)};
    dil_server *other;
    assert_int_equal(dil_server_open(&o, &other, &err), DIL_EBUSY);
    assert_non_null(strstr(err.text, "in use"));
    o = (dil_serve_opts){.bind = "nowhere"};
    assert_int_equal(dil_server_open(&o, &other, &err), DIL_EUSAGE);
}

int main(void)
{
    for (int i = 0; i < 256; i++) bytes[i] = (char)i;
#define T(f) cmocka_unit_test_setup_teardown(f, start, stop)
    const struct CMUnitTest tests[] = {
        T(an_answer_comes_whole), T(a_stream_has_whole_characters_and_an_end), T(a_stop_string_ends_it_and_is_not_sent),
        T(errors_have_the_api_s_form_and_status), T(a_stream_that_breaks_says_so), T(health_tells_the_truth), T(pages_of_others_are_refused),
        T(a_body_beyond_the_limit_is_refused), T(a_client_that_hangs_up_cancels_its_work), T(many_wait_at_once_without_a_thread_each),
        T(keys_are_asked_for), T(models_come_and_go), T(a_port_in_use_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
