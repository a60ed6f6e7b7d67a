/* labels: threads */
/* Connections that take too long to ask are cut, those that work are left alone. */
#include "serve/guard.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

static bool is_cut(int fd, int wait_ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    char c;
    return poll(&p, 1, wait_ms) == 1 && recv(fd, &c, 1, 0) == 0;
}

static void who_takes_too_long_is_cut(void **state)
{
    (void)state;
    dil_err err;
    dil__guard *g;
    assert_int_equal(dil__guard_open(1, 2, &g, &err), DIL_OK);
    int idle[2], body[2], work[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, idle) | socketpair(AF_UNIX, SOCK_STREAM, 0, body) | socketpair(AF_UNIX, SOCK_STREAM, 0, work), 0);
    dil__guarded *a = dil__guard_add(g, idle[0]), *b = dil__guard_add(g, body[0]), *c = dil__guard_add(g, work[0]);
    dil__guard_phase(b, DIL_GUARD_BODY);
    dil__guard_phase(c, DIL_GUARD_WORK);
    int64_t start = dil_now_ns();
    assert_true(is_cut(idle[1], 10000));
    assert_true(dil_now_ns() - start > 900000000);
    assert_true(is_cut(body[1], 10000));
    assert_false(is_cut(work[1], 0));
    dil__guard_remove(b);
    dil__guard_remove(a);
    dil__guard_remove(c);
    dil__guard_close(g);
    for (int i = 0; i < 2; i++) {
        close(idle[i]);
        close(body[i]);
        close(work[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(who_takes_too_long_is_cut)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
