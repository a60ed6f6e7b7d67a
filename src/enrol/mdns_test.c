/* The bytes against a message written by hand from RFC 1035, against each other, and against what is broken. */
#include "enrol/mdns.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const dil__mdns_node pi = {.name = "Pi-4", .id = "0123456789abcdef", .address = {10, 0, 0, 2}, .port = 7100, .pairing = true};

static bool equal(const dil__mdns_node *a, const dil__mdns_node *b)
{
    return strcmp(a->name, b->name) == 0 && strcmp(a->id, b->id) == 0 && memcmp(a->address, b->address, 4) == 0 && a->port == b->port && a->pairing == b->pairing;
}

static void the_query_is_rfc_1035s(void **state)
{
    (void)state;
    static const uint8_t want[] = "\x12\x34\0\0\0\1\0\0\0\0\0\0\x08_dilemma\x04_tcp\x05local\0\0\x0c\0\1";
    uint8_t out[DIL__MDNS_PACKET];
    size_t n = dil__mdns_query(0x1234, out);
    assert_int_equal(n, sizeof want - 1);
    assert_memory_equal(out, want, n);
}

static void what_is_written_is_read(void **state)
{
    (void)state;
    uint8_t out[DIL__MDNS_PACKET];
    dil__mdns_node got[4];
    uint16_t id;
    for (int legacy = 0; legacy < 2; legacy++) {
        size_t n = dil__mdns_answer(&pi, legacy, 77, false, out);
        assert_int_equal(dil__mdns_read(out, n, &id, got, 4), 1);
        assert_int_equal(id, legacy ? 77 : 0);
        assert_true(equal(&got[0], &pi));
    }
    size_t n = dil__mdns_answer(&pi, false, 0, true, out); /* a goodbye tells of nobody */
    assert_int_equal(dil__mdns_read(out, n, &id, got, 4), 0);
    dil__mdns_node longest = pi;
    memset(longest.name, 'x', DIL_PAIR_NAME_MAX - 1);
    longest.pairing = false;
    n = dil__mdns_answer(&longest, true, 1, false, out);
    assert_true(n < 600);
    assert_int_equal(dil__mdns_read(out, n, &id, got, 4), 1);
    assert_true(equal(&got[0], &longest));
}

/* As other responders write: compressed, upper case, records in another order, strangers between, two nodes in one message. */
static void a_compressed_answer(void **state)
{
    (void)state;
    static const uint8_t m[] = "\0\0\x84\0\0\0\0\3\0\0\0\3"
                               "\x05" "BOX-a\x05LOCAL\0" "\0\1\x80\1\0\0\0\x78\0\4\x0a\0\0\3"                                             /* 12: A */
                               "\x03" "BOX\x08_DILEMMA\x04_TCP\xc0\x12" "\0\x21\x80\1\0\0\0\x78\0\x8\0\0\0\0\x1b\xbc\xc0\x0c"             /* 39: SRV, its name at 39 */
                               "\xc0\x2b" "\0\x0c\0\1\0\0\x11\x94\0\2\xc0\x27"                                                            /* PTR of the service */
                               "\x07" "printer\x04_ipp\xc0\x34" "\0\x10\0\1\0\0\0\x78\0\4\3a=b"                                            /* another's TXT */
                               "\xc0\x27" "\0\x10\x80\1\0\0\0\x78\0\x24\3v=1\x08name=box\x13id=fedcba9876543210\2zz"                       /* TXT */
                               "\xc0\x0c" "\0\x1c\0\1\0\0\0\x78\0\x10" "0123456789abcdef";                                                 /* AAAA */
    dil__mdns_node got[4], box = {.name = "box", .id = "fedcba9876543210", .address = {10, 0, 0, 3}, .port = 7100};
    uint16_t id;
    assert_int_equal(dil__mdns_read(m, sizeof m - 1, &id, got, 4), 1);
    assert_true(equal(&got[0], &box));
    assert_int_equal(dil__mdns_read(m, sizeof m - 1, &id, got, 0), 0);
}

static void queries_that_are_for_us(void **state)
{
    (void)state;
    uint8_t q[DIL__MDNS_PACKET];
    uint16_t id = 0;
    size_t n = dil__mdns_query(9, q);
    assert_true(dil__mdns_asks(q, n, &pi, &id));
    assert_int_equal(id, 9);
    q[12 + 1] = '-'; /* another service */
    assert_false(dil__mdns_asks(q, n, &pi, &id));
    static const uint8_t all[] = "\0\0\0\0\0\1\0\0\0\0\0\0\x09_Services\x07_dns-sd\x04_udp\x05local\0\0\x0c\x80\1",
                         host[] = "\0\0\0\0\0\1\0\0\0\0\0\0\x18" "dilemma-0123456789ABCDEF\x05local\0\0\1\0\1",
                         srv[] = "\0\0\0\0\0\2\0\0\0\0\0\0\1x\x05local\0\0\1\0\1\x15pi-4-0123456789abcdef\x08_dilemma\x04_tcp\xc0\x0e\0\x21\0\1",
                         answer[] = "\0\0\x84\0\0\1\0\0\0\0\0\0\x09_services\x07_dns-sd\x04_udp\x05local\0\0\x0c\0\1";
    assert_true(dil__mdns_asks(all, sizeof all - 1, &pi, &id));
    assert_true(dil__mdns_asks(host, sizeof host - 1, &pi, &id));
    assert_true(dil__mdns_asks(srv, sizeof srv - 1, &pi, &id));
    assert_false(dil__mdns_asks(answer, sizeof answer - 1, &pi, &id));
}

/* A query that brings our answer along is not answered, unless that is about to be forgotten. */
static void what_is_known_is_not_said_again(void **state)
{
    (void)state;
    uint8_t q[DIL__MDNS_PACKET];
    size_t n = dil__mdns_query(0, q);
    q[7] = 1; /* one answer */
    memcpy(q + n, "\xc0\x0c\0\x0c\0\1\0\0\x11\x94\0\x18\x15pi-4-0123456789abcdef\xc0\x0c", 36);
    uint16_t id;
    assert_false(dil__mdns_asks(q, n + 36, &pi, &id));
    q[n + 8] = 8; /* a TTL of 2,196 s */
    assert_true(dil__mdns_asks(q, n + 36, &pi, &id));
    q[n + 8] = 0x11;
    q[n + 14] = 'x'; /* another's */
    assert_true(dil__mdns_asks(q, n + 36, &pi, &id));
}

/* Cut anywhere, a pointer to itself or forwards, a name too long: nothing is read, and reading ends. */
static void what_is_broken_says_nothing(void **state)
{
    (void)state;
    uint8_t out[DIL__MDNS_PACKET];
    dil__mdns_node got[4];
    uint16_t id;
    size_t n = dil__mdns_answer(&pi, false, 0, false, out);
    for (size_t cut = 0; cut < n; cut++) {
        uint8_t *exact = malloc(cut + 1); /* its end is watched under sanitizers */
        memcpy(exact, out, cut);
        assert_int_equal(dil__mdns_read(exact, cut, &id, got, 4), 0);
        free(exact);
    }
    static const uint8_t self[] = "\0\0\x84\0\0\0\0\1\0\0\0\0\xc0\x0c\0\1\0\1\0\0\0\1\0\4\1\2\3\4", ahead[] = "\0\0\x84\0\0\0\0\1\0\0\0\0\xc0\x10\0\1\0\1\0\0\0\1\0\4\1\2\3\4";
    assert_int_equal(dil__mdns_read(self, sizeof self - 1, &id, got, 4), 0);
    assert_int_equal(dil__mdns_read(ahead, sizeof ahead - 1, &id, got, 4), 0);
    memset(out, 0, 12);
    out[2] = 0x84, out[7] = 1;
    for (size_t at = 12; at + 64 < sizeof out; at += 64) {
        out[at] = 63;
        memset(out + at + 1, 'a', 63);
    }
    assert_int_equal(dil__mdns_read(out, sizeof out, &id, got, 4), 0);
    uint8_t many[12] = {0, 0, 0x84, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    assert_int_equal(dil__mdns_read(many, sizeof many, &id, got, 4), 0);
}

/* A name or an id that could be anything else is nobody's. */
static void lies_are_not_passed_on(void **state)
{
    (void)state;
    static const char *const name[] = {"../../etc", "a b", "", ".x", "a=b"};
    uint8_t out[DIL__MDNS_PACKET];
    dil__mdns_node got[4];
    uint16_t id;
    for (size_t i = 0; i < sizeof name / sizeof name[0]; i++) {
        dil__mdns_node liar = pi;
        snprintf(liar.name, sizeof liar.name, "%s", name[i]);
        size_t n = dil__mdns_answer(&liar, false, 0, false, out);
        assert_int_equal(dil__mdns_read(out, n, &id, got, 4), 0);
    }
    dil__mdns_node liar = pi;
    liar.id[3] = 'G';
    size_t n = dil__mdns_answer(&liar, false, 0, false, out);
    assert_int_equal(dil__mdns_read(out, n, &id, got, 4), 0);
    liar = pi;
    liar.port = 0;
    n = dil__mdns_answer(&liar, false, 0, false, out);
    assert_int_equal(dil__mdns_read(out, n, &id, got, 4), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_query_is_rfc_1035s), cmocka_unit_test(what_is_written_is_read), cmocka_unit_test(a_compressed_answer), cmocka_unit_test(queries_that_are_for_us),
        cmocka_unit_test(what_is_known_is_not_said_again), cmocka_unit_test(what_is_broken_says_nothing), cmocka_unit_test(lies_are_not_passed_on)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
