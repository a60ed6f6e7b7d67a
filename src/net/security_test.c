/* labels: threads */
/* What a node refuses, within bounded memory: docs/SECURITY.md names these tests. The node is in this process; its log is kept. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "net/message.h"
#include "net/sock.h"

#include <dilemma/node.h>

#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static char base[64], address[32];
static dil_keypair first, second, node_key, stranger;
static dil_node *node;
static dil_buf log_text;
static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;

static void logline(void *ctx, dil_log_level level, const char *module, const char *text)
{
    (void)ctx;
    pthread_mutex_lock(&log_lock);
    dil_buf_printf(&log_text, "%d %s %s\n", (int)level, module, text);
    pthread_mutex_unlock(&log_lock);
}

static bool logged(const char *text)
{
    pthread_mutex_lock(&log_lock);
    bool yes = strstr(dil_buf_str(&log_text), text) != NULL;
    pthread_mutex_unlock(&log_lock);
    return yes;
}

static int tcp(uint16_t port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    return fd;
}

static void still_serves(void)
{
    dil_node_conn *c;
    dil_node_info info;
    dil_err err;
    if (dil_node_connect(address, node_key.public_key, &first, 20, &c, &err) != DIL_OK) fail_msg("%s", err.text);
    assert_int_equal(dil_node_get_info(c, &info, &err), DIL_OK);
    assert_int_equal(info.memory_free, info.memory_bytes); /* nothing is held */
    dil_node_disconnect(c);
}

/* Bytes until the other side closes, at most limit_ms; -1: it did not. */
static long bytes_until_closed(int fd, int limit_ms)
{
    long n = 0;
    int64_t end = dil_now_ns() + limit_ms * INT64_C(1000000);
    for (char buf[4096];;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int64_t left = end - dil_now_ns();
        if (left <= 0 || poll(&p, 1, (int)(left / 1000000) + 1) <= 0) return -1;
        ssize_t k = recv(fd, buf, sizeof buf, 0);
        if (k <= 0) return n;
        n += k;
    }
}

/* --- somebody between records a session -------------------------------------------------------------------------------------- */

typedef struct relay {
    int listener, back;
    uint16_t port;
    uint8_t said[1 << 16]; /* by the client */
    size_t n_said, n_heard;
    pthread_t thread;
} relay;

static void *run_relay(void *arg)
{
    relay *r = arg;
    int fd = accept(r->listener, NULL, NULL);
    r->back = tcp((uint16_t)strtoul(strrchr(address, ':') + 1, NULL, 10));
    struct pollfd p[2] = {{.fd = fd, .events = POLLIN}, {.fd = r->back, .events = POLLIN}};
    for (uint8_t buf[4096];;) {
        if (poll(p, 2, -1) < 0) break;
        int from = p[0].revents ? 0 : 1;
        ssize_t k = recv(p[from].fd, buf, sizeof buf, 0);
        if (k <= 0) break;
        if (from == 0 && r->n_said + (size_t)k <= sizeof r->said) {
            memcpy(r->said + r->n_said, buf, (size_t)k);
            r->n_said += (size_t)k;
        }
        if (from == 1) r->n_heard += (size_t)k;
        if (send(p[1 - from].fd, buf, (size_t)k, MSG_NOSIGNAL) != k) break;
    }
    close(fd);
    close(r->back);
    return NULL;
}

static void a_recorded_session_opens_nothing(void **state)
{
    (void)state;
    static relay r;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof at;
    r.listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(r.listener, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(r.listener, 1), 0);
    getsockname(r.listener, (struct sockaddr *)&at, &n);
    assert_int_equal(pthread_create(&r.thread, NULL, run_relay, &r), 0);
    char via[32];
    snprintf(via, sizeof via, "127.0.0.1:%u", ntohs(at.sin_port));
    dil_node_conn *c;
    dil_err err;
    if (dil_node_connect(via, node_key.public_key, &first, 20, &c, &err) != DIL_OK) fail_msg("%s", err.text);
    const char *key = stranger.public_key;
    assert_int_equal(dil_node_admit(c, &key, 1, 60, &err), DIL_OK); /* what would be worth repeating */
    dil_node_disconnect(c);
    pthread_join(r.thread, NULL);
    close(r.listener);
    assert_true(r.n_said > 400 && r.n_heard > 300);
    assert_false(logged(first.secret_key));
    const uint8_t *end = r.said + r.n_said; /* of the frames nothing is readable on the way */
    for (const uint8_t *p = r.said; p + 4 <= end; p++) assert_memory_not_equal(p, "DIL2", 4);
    for (const uint8_t *p = r.said; p + 40 <= end; p++) assert_memory_not_equal(p, key, 40);

    int fd = tcp((uint16_t)strtoul(strrchr(address, ':') + 1, NULL, 10));
    assert_true(send(fd, r.said, r.n_said, MSG_NOSIGNAL) > 0);
    long heard = bytes_until_closed(fd, 20000);
    close(fd);
    print_message("    recorded: %zu bytes there, %zu back; played again: %ld back, then closed\n", r.n_said, r.n_heard, heard);
    assert_true(heard >= 0 && heard < (long)r.n_heard); /* a greeting and a fresh cookie, which the recording does not know */
    still_serves();
}

/* --- who may ask for what ------------------------------------------------------------------------------------------------------ */

typedef struct peer { void *zmq, *sock; dil_buf b; } peer;

static void open_peer(peer *p, const dil_keypair *key)
{
    dil_err err;
    p->zmq = zmq_ctx_new();
    dil_buf_init(&p->b, DIL_FRAME_MAX);
    assert_int_equal(dil__dial(p->zmq, address, node_key.public_key, key, &p->sock, &err), DIL_OK);
    zmq_setsockopt(p->sock, ZMQ_RCVTIMEO, &(int){20000}, sizeof(int));
}

static void close_peer(peer *p)
{
    zmq_close(p->sock);
    zmq_ctx_term(p->zmq);
    dil_buf_fini(&p->b);
}

/* Sends what is in p->b; the answer's type, and an error's code. */
static dil_frame_type say(peer *p, dil_status *code)
{
    zmq_msg_t m;
    dil_frame f;
    dil_err theirs = {0};
    assert_true(zmq_send(p->sock, p->b.data, p->b.len, 0) >= 0);
    p->b.len = 0;
    zmq_msg_init(&m);
    if (zmq_msg_recv(&m, p->sock, 0) < 0) fail_msg("no answer");
    assert_int_equal(dil_frame_decode(zmq_msg_data(&m), zmq_msg_size(&m), &f, NULL), DIL_OK);
    dil_frame_type type = f.type;
    if (type == DIL_FRAME_ERROR) assert_int_equal(dil__msg_get_error(&f, &theirs), DIL_OK);
    if (code) *code = theirs.code;
    zmq_msg_close(&m);
    return type;
}

static void another_node_may_hand_over_and_echo_and_nothing_else(void **state)
{
    (void)state;
    dil_node_conn *c;
    dil_err err;
    dil_status code;
    const char *key = stranger.public_key;
    assert_int_equal(dil_node_connect(address, node_key.public_key, &first, 20, &c, &err), DIL_OK);
    assert_int_equal(dil_node_admit(c, &key, 1, 60, &err), DIL_OK);
    dil_node_disconnect(c);
    peer p;
    open_peer(&p, &stranger); /* let in now, as a node before this one in a ring would be */
    dil__msg_echo(&p.b, 1, 16, 16);
    assert_int_equal(say(&p, NULL), DIL_FRAME_ECHO_REPLY);
    const dil_frame_type asked[] = {DIL_FRAME_HELLO, DIL_FRAME_HEARTBEAT, DIL_FRAME_ADMIT, DIL_FRAME_UNLOAD, DIL_FRAME_ATTACH, DIL_FRAME_LOAD, DIL_FRAME_CHUNK, DIL_FRAME_TIME_LAYER,
                                    DIL_FRAME_PROBE_LINK, DIL_FRAME_JOIN};
    for (size_t i = 0; i < sizeof asked / sizeof *asked; i++) {
        dil__msg_empty(&p.b, asked[i], 7, 1, 0);
        assert_int_equal(say(&p, &code), DIL_FRAME_ERROR);
        assert_int_equal(code, DIL_EAUTH);
    }
    close_peer(&p);
}

static void a_flood_is_answered_within_its_bounds(void **state)
{
    (void)state;
    peer p;
    open_peer(&p, &second);
    uint8_t bad[DIL_FRAME_HEADER_BYTES + 64] = {0};
    for (int i = 0; i < 20000; i++) { /* a coordinator gone mad: loads that are none, works of no session */
        dil_frame_header(bad, &(dil_frame){.type = i % 2 ? DIL_FRAME_LOAD : DIL_FRAME_WORK, .session = (uint64_t)i, .id = 7, .body_bytes = 64});
        zmq_send(p.sock, bad, sizeof bad, ZMQ_DONTWAIT);
    }
    still_serves();
    close_peer(&p);
    open_peer(&p, &second);
    zmq_msg_t large; /* longer than any frame: the connection ends, the node does not */
    assert_int_equal(zmq_msg_init_size(&large, (size_t)DIL_FRAME_MAX + 1), 0);
    memset(zmq_msg_data(&large), 0, 64);
    zmq_msg_send(&large, p.sock, 0);
    still_serves();
    close_peer(&p);
}

static void who_connects_and_says_nothing_is_cut(void **state)
{
    (void)state;
    enum { N = 200 };
    int fd[N];
    uint16_t port = (uint16_t)strtoul(strrchr(address, ':') + 1, NULL, 10);
    for (int i = 0; i < N; i++) {
        fd[i] = tcp(port);
        if (i % 2) assert_true(send(fd[i], "\xff\0\0\0\0\0\0\0\1\x7f", 1 + i % 10, MSG_NOSIGNAL) > 0); /* a greeting, a byte at a time and no further */
    }
    still_serves(); /* while they sit there */
    for (int i = 0; i < N; i++) {
        if (bytes_until_closed(fd[i], 20000) < 0) fail_msg("connection %d stays open", i);
        close(fd[i]);
    }
    still_serves();
}

static void no_secret_is_in_the_log(void **state)
{
    (void)state; /* behind all the others */
    const dil_keypair *all[] = {&first, &second, &node_key, &stranger};
    for (size_t i = 0; i < 4; i++) assert_false(logged(all[i]->secret_key));
    assert_true(logged(stranger.public_key)); /* who was refused is named */
}

static int open_all(void **state)
{
    (void)state;
    dil_err err = {0};
    dil_buf_init(&log_text, 64 << 20);
    dil_log_set_sink(logline, NULL, DIL_LOG_DEBUG);
    snprintf(base, sizeof base, "/tmp/dilemma-sec-XXXXXX");
    if (!mkdtemp(base)) return -1;
    char allow[100], cache[100];
    snprintf(allow, sizeof allow, "%s/allowed", base);
    snprintf(cache, sizeof cache, "%s/cache", base);
    dil_keypair *all[] = {&first, &second, &node_key, &stranger};
    for (size_t i = 0; i < 4; i++) {
        if (dil_keypair_new(all[i], &err) != DIL_OK) return -1;
    }
    if (dil_keyring_add(allow, first.public_key, "first", &err) != DIL_OK || dil_keyring_add(allow, second.public_key, "second", &err) != DIL_OK) return -1;
    dil_node_opts o = {.listen = "127.0.0.1:0", .memory_bytes = 1 << 24, .n_threads = 1, .key = &node_key, .allow_path = allow, .cache_dir = cache};
    if (dil_node_start(&o, &node, &err) != DIL_OK) return -1;
    snprintf(address, sizeof address, "127.0.0.1:%u", dil_node_port(node));
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    dil_node_stop(node);
    dil_buf_fini(&log_text);
    char cmd[100];
    snprintf(cmd, sizeof cmd, "rm -r %s", base);
    return system(cmd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_recorded_session_opens_nothing),
        cmocka_unit_test(another_node_may_hand_over_and_echo_and_nothing_else),
        cmocka_unit_test(a_flood_is_answered_within_its_bounds),
        cmocka_unit_test(who_connects_and_says_nothing_is_cut),
        cmocka_unit_test(no_secret_is_in_the_log),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
