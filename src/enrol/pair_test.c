/* labels: threads
 * Pairing over loopback: two processes' worth of files, wrong codes, a code that is over, and crowds at the door. */
#include <dilemma/pair.h>

#include "enrol/pairing.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define CODE "48217736"

typedef struct desk {
    dil_pair_desk *d;
    pthread_t thread;
    dil_pair_peer peer;
    dil_status status;
    dil_err err;
    char address[64];
} desk;

static char dir[64], allowed[96], keys[96];
static dil_keypair node_key, boss_key;

static int set_up(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/dilemma-pair-XXXXXX");
    if (!mkdtemp(dir)) return 1;
    snprintf(allowed, sizeof allowed, "%s/node/allowed", dir);
    snprintf(keys, sizeof keys, "%s/keys", dir);
    return dil_keypair_new(&node_key, NULL) != DIL_OK || dil_keypair_new(&boss_key, NULL) != DIL_OK;
}

static int tear_down(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

static void *wait_there(void *arg)
{
    desk *d = arg;
    d->status = dil_pair_wait(d->d, NULL, &d->peer, &d->err);
    return NULL;
}

static void open_desk(desk *d, double limit_sec)
{
    dil_pair_opts o = {.listen = "127.0.0.1:0", .name = "b", .key = node_key.public_key, .allow_path = allowed, .code = CODE, .limit_sec = limit_sec};
    memset(d, 0, sizeof *d);
    assert_int_equal(dil_pair_open(&o, &d->d, &d->err), DIL_OK);
    snprintf(d->address, sizeof d->address, "127.0.0.1:%u", dil_pair_port(d->d));
    assert_int_equal(pthread_create(&d->thread, NULL, wait_there, d), 0);
}

static void end_desk(desk *d)
{
    pthread_join(d->thread, NULL);
    dil_pair_close(d->d);
}

static dil_status pair(const desk *d, const char *name, const char *code, dil_pair_peer *peer, dil_err *err)
{
    return dil_pair_with(d->address, name, code, &boss_key, keys, 30, peer, err);
}

static void both_sides_hold_each_others_key(void **state)
{
    (void)state;
    desk d;
    dil_pair_peer peer, known[4];
    dil_err err = {0};
    size_t n;
    open_desk(&d, 60);
    assert_int_equal(pair(&d, NULL, "4821-7736", &peer, &err), DIL_OK);
    end_desk(&d);
    assert_int_equal(d.status, DIL_OK);
    assert_string_equal(peer.name, "b");
    assert_string_equal(peer.key, node_key.public_key);
    assert_string_equal(d.peer.key, boss_key.public_key);
    dil_keyring ring;
    assert_int_equal(dil_keyring_read(allowed, &ring, &err), DIL_OK);
    assert_int_equal(ring.n, 1);
    assert_true(dil_keyring_has(&ring, boss_key.public_key));
    dil_keyring_fini(&ring);
    struct stat st;
    assert_int_equal(stat(allowed, &st), 0);
    assert_int_equal(st.st_mode & 077, 0);
    assert_int_equal(dil_pair_nodes(keys, known, 4, &n, &err), DIL_OK);
    assert_int_equal(n, 1);
    assert_string_equal(known[0].address, d.address);
    assert_string_equal(known[0].key, node_key.public_key);

    open_desk(&d, 60); /* the same machine elsewhere: its line changes, its key stays */
    assert_int_equal(pair(&d, "b", CODE, &peer, &err), DIL_OK);
    end_desk(&d);
    assert_int_equal(dil_pair_nodes(keys, known, 4, &n, &err), DIL_OK);
    assert_int_equal(n, 1);
    assert_string_equal(known[0].address, d.address);

    desk other;
    dil_keypair had = node_key; /* another machine of that name: refused on both sides, then taken under another one */
    assert_int_equal(dil_keypair_new(&node_key, &err), DIL_OK);
    open_desk(&other, 60);
    assert_int_equal(pair(&other, NULL, CODE, &peer, &err), DIL_EBUSY);
    assert_non_null(strstr(err.text, "another name"));
    assert_int_equal(pair(&other, "c", CODE, &peer, &err), DIL_OK);
    end_desk(&other);
    assert_int_equal(dil_pair_nodes(keys, known, 4, &n, &err), DIL_OK);
    assert_int_equal(n, 2);
    assert_string_equal(known[0].key, had.public_key);
    assert_string_equal(known[1].name, "c");
}

static void a_few_wrong_codes_kill_it(void **state)
{
    (void)state;
    desk d;
    dil_pair_peer peer = {.name = "untouched"};
    dil_err err;
    char wrong[16];
    open_desk(&d, 60);
    for (int i = 0; i < DIL_PAIR_TRIES; i++) {
        snprintf(wrong, sizeof wrong, "%08d", i);
        assert_int_equal(pair(&d, "w", wrong, &peer, &err), DIL_EAUTH);
        assert_string_equal(peer.name, "untouched");
    }
    end_desk(&d);
    assert_int_equal(d.status, DIL_EAUTH);
    assert_int_equal(pair(&d, "w", CODE, &peer, &err), DIL_ENET); /* nobody listens there any more */
    char path[128];
    snprintf(path, sizeof path, "%s/w.pub", keys);
    assert_false(dil_file_exists(path));
}

static void a_code_is_over_with_its_time(void **state)
{
    (void)state;
    desk d;
    dil_pair_peer peer;
    dil_err err;
    open_desk(&d, 0.05);
    end_desk(&d);
    assert_int_equal(d.status, DIL_ETIMEOUT);
    assert_int_equal(pair(&d, "w", CODE, &peer, &err), DIL_ENET);
}

static int dial(const desk *d, const char *from)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(dil_pair_port(d->d))}, me = {.sin_family = AF_INET};
    inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
    inet_pton(AF_INET, from, &me.sin_addr);
    assert_int_equal(bind(fd, (struct sockaddr *)&me, sizeof me), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    return fd;
}

static void crowds_and_rubbish_keep_nobody_out(void **state)
{
    (void)state;
    desk d;
    dil_pair_peer peer;
    dil_err err;
    int idle[40];
    open_desk(&d, 60);
    for (int i = 0; i < 40; i++) { /* forty idle connections from twenty machines; each hears the node's hello or is turned away */
        char from[32];
        snprintf(from, sizeof from, "127.0.1.%d", 1 + i % 20);
        idle[i] = dial(&d, from);
        uint8_t head[DIL__PAIRING_HEAD];
        assert_int_equal(recv(idle[i], head, sizeof head, MSG_WAITALL), sizeof head);
        assert_memory_equal(head, "DLP1", 4);
        assert_true(head[4] == DIL__PAIRING_HELLO || head[4] == DIL__PAIRING_REFUSED);
    }
    dil_rng rng;
    dil_rng_init(&rng, 7);
    for (int i = 0; i < 200; i++) { /* rubbish, some of it beginning well; the desk hangs up on each */
        uint8_t bytes[300];
        for (size_t k = 0; k < sizeof bytes; k++) bytes[k] = (uint8_t)dil_rng_u64(&rng);
        if (i % 2) memcpy(bytes, "DLP1", 4), bytes[4] = (uint8_t)(i / 2 % 12);
        int fd = dial(&d, "127.0.2.1");
        send(fd, bytes, 1 + dil_rng_below(&rng, sizeof bytes), MSG_NOSIGNAL);
        shutdown(fd, SHUT_WR);
        while (recv(fd, bytes, sizeof bytes, 0) > 0) {}
        close(fd);
    }
    dil_status s = pair(&d, "crowd", CODE, &peer, &err);
    if (s != DIL_OK) print_error("%s\n", err.text);
    assert_int_equal(s, DIL_OK);
    end_desk(&d);
    assert_int_equal(d.status, DIL_OK);
    for (int i = 0; i < 40; i++) close(idle[i]);
}

/* A machine that takes connections and speaks something else, or nothing. */
static void a_port_that_does_not_pair_is_told(void **state)
{
    (void)state;
    dil_pair_peer peer;
    dil_err err;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t len = sizeof at;
    inet_pton(AF_INET, "127.0.0.1", &at.sin_addr);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(fd, 4), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &len), 0);
    char address[64];
    snprintf(address, sizeof address, "127.0.0.1:%u", ntohs(at.sin_port));
    assert_int_equal(dil_pair_with(address, "x", CODE, &boss_key, keys, 0.05, &peer, &err), DIL_ENET);
    assert_non_null(strstr(err.text, "--pair"));
    assert_int_equal(dil_pair_with(address, "x", "123", &boss_key, keys, 1, &peer, &err), DIL_EUSAGE);
    assert_int_equal(dil_pair_with(address, "../x", CODE, &boss_key, keys, 1, &peer, &err), DIL_EUSAGE);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(both_sides_hold_each_others_key), cmocka_unit_test(a_few_wrong_codes_kill_it),
                                       cmocka_unit_test(a_code_is_over_with_its_time), cmocka_unit_test(crowds_and_rubbish_keep_nobody_out),
                                       cmocka_unit_test(a_port_that_does_not_pair_is_told)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
