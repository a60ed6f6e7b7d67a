/* The pairing as bytes: what an eavesdropper, somebody between, or an old recording can do with it. */
#include "enrol/pairing.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define CODE "4821 7736"

typedef struct message {
    uint8_t byte[DIL__PAIRING_MAX];
    size_t n;
} message;

typedef struct side {
    dil__pairing run;
    dil_status status;
} side;

static dil__pairing_who node_is, boss_is, mallory_is;

static int set_up(void **state)
{
    (void)state;
    dil__pairing_who *const who[] = {&node_is, &boss_is, &mallory_is};
    static const char *const name[] = {"b", "laptop", "mallory"};
    for (int i = 0; i < 3; i++) {
        dil_keypair k;
        if (dil_keypair_new(&k, NULL) != DIL_OK) return 1;
        memcpy(who[i]->key, k.public_key, sizeof who[i]->key);
        snprintf(who[i]->name, sizeof who[i]->name, "%s", name[i]);
    }
    return 0;
}

static message begin(side *s, bool coordinator, const dil__pairing_who *me, const char *code)
{
    dil_buf out;
    message m = {.n = 0};
    dil_buf_init(&out, 1024);
    s->status = dil__pairing_begin(&s->run, coordinator, me, code, &out, NULL);
    assert_int_equal(s->status, DIL_OK);
    assert_true(out.len <= sizeof m.byte);
    if (out.len) memcpy(m.byte, out.data, out.len);
    m.n = out.len;
    dil_buf_fini(&out);
    return m;
}

/* Hands m over; when that proves the peer, its key counts as kept. Returns what is sent then (n 0: nothing). */
static message tell(side *s, message m)
{
    dil_buf out;
    message back = {.n = 0};
    dil_buf_init(&out, 1024);
    s->status = dil__pairing_take(&s->run, m.byte, m.n, &out, NULL);
    if (s->status == DIL_OK && s->run.step == DIL__PAIRING_PROVED) dil__pairing_keep(&s->run, &out);
    assert_true(out.len <= sizeof back.byte);
    if (out.len) memcpy(back.byte, out.data, out.len);
    back.n = out.len;
    assert_true(!out.len || dil__pairing_size(back.byte, back.n) == back.n);
    dil_buf_fini(&out);
    return back;
}

static bool believes(const side *s)
{
    return s->run.step == DIL__PAIRING_PROVED || s->run.step == DIL__PAIRING_DONE_WANTED || s->run.step == DIL__PAIRING_ENDED;
}

/* Carries messages to and fro; change(ctx, i, m) may alter the i-th, record takes each as it was sent. */
static void carry(side *node, side *boss, message m, void (*change)(void *ctx, int i, message *m), void *ctx, message *record)
{
    for (int i = 0; i < 7 && m.n; i++) {
        if (record) record[i] = m;
        if (change) change(ctx, i, &m);
        m = tell(i % 2 == 0 ? boss : node, m);
    }
}

static void the_same_code_enrols_both(void **state)
{
    (void)state;
    side node, boss;
    message sent[7] = {{.n = 0}}, hello = begin(&node, false, &node_is, CODE);
    begin(&boss, true, &boss_is, "48217736");
    carry(&node, &boss, hello, NULL, NULL, sent);
    assert_int_equal(node.run.step, DIL__PAIRING_ENDED);
    assert_int_equal(boss.run.step, DIL__PAIRING_ENDED);
    assert_string_equal(node.run.peer.key, boss_is.key);
    assert_string_equal(node.run.peer.name, "laptop");
    assert_string_equal(boss.run.peer.key, node_is.key);
    assert_string_equal(boss.run.peer.name, "b");
    for (int i = 0; i < 7; i++) { /* the code is in none of them */
        for (size_t at = 0; at + 8 <= sent[i].n; at++) assert_memory_not_equal(sent[i].byte + at, "48217736", 8);
    }
}

static void another_code_enrols_nobody(void **state)
{
    (void)state;
    side node, boss;
    message sent[7] = {{.n = 0}}, hello = begin(&node, false, &node_is, CODE);
    begin(&boss, true, &boss_is, "48217737");
    carry(&node, &boss, hello, NULL, NULL, sent);
    assert_true(node.run.wrong_code);
    assert_int_equal(node.status, DIL_EAUTH);
    assert_int_equal(boss.status, DIL_EAUTH);
    assert_false(believes(&node) || believes(&boss));
    assert_int_equal(sent[4].byte[4], DIL__PAIRING_REFUSED); /* the node's proof never left it */
}

/* Mallory speaks with each side in its own run, without the code. */
static void somebody_between_is_found_out(void **state)
{
    (void)state;
    side node, boss, as_node, as_boss;
    message hello = begin(&node, false, &node_is, CODE), fake = begin(&as_node, false, &mallory_is, "00000000");
    begin(&boss, true, &boss_is, CODE);
    begin(&as_boss, true, &mallory_is, "00000000");
    carry(&as_node, &boss, fake, NULL, NULL, NULL);
    assert_false(believes(&boss));
    carry(&node, &as_boss, hello, NULL, NULL, NULL);
    assert_false(believes(&node));
    assert_true(node.run.wrong_code);
}

typedef struct flip {
    int at;
    size_t bit;
} flip;

static void flip_bit(void *ctx, int i, message *m)
{
    const flip *f = ctx;
    if (i == f->at && f->bit / 8 < m->n) m->byte[f->bit / 8] ^= (uint8_t)(1u << f->bit % 8);
}

/* Whatever bit is changed on the way: who decides on that message, or on a later one, does not believe; and a key is never another. */
static void no_bit_may_change_on_the_way(void **state)
{
    (void)state;
    for (int at = 0; at < 7; at++) {
        for (size_t bit = 0; bit < 8 * DIL__PAIRING_MAX; bit += at == 1 || at == 2 ? 7 : 3) {
            side node, boss;
            message hello = begin(&node, false, &node_is, CODE);
            begin(&boss, true, &boss_is, CODE);
            flip f = {at, bit};
            message sent[7] = {{.n = 0}};
            carry(&node, &boss, hello, flip_bit, &f, sent);
            if (bit / 8 >= sent[at].n) break;
            bool both = node.run.step == DIL__PAIRING_ENDED && boss.run.step == DIL__PAIRING_ENDED;
            assert_false(both);
            if (at < 4) assert_false(believes(&node) || believes(&boss));
            if (believes(&node)) assert_string_equal(node.run.peer.key, boss_is.key);
            if (believes(&boss)) assert_string_equal(boss.run.peer.key, node_is.key);
        }
    }
}

static void a_recording_is_worth_nothing(void **state)
{
    (void)state;
    side node, boss;
    message sent[7] = {{.n = 0}}, hello = begin(&node, false, &node_is, CODE);
    begin(&boss, true, &boss_is, CODE);
    carry(&node, &boss, hello, NULL, NULL, sent);
    side again; /* the node shows the same code once more */
    begin(&again, false, &node_is, CODE);
    assert_int_equal(tell(&again, sent[1]).byte[4], DIL__PAIRING_REPLY);
    tell(&again, sent[3]);
    assert_int_equal(again.status, DIL_EAUTH);
    assert_false(believes(&again));
    side more; /* and a coordinator hears the node's old words */
    begin(&more, true, &boss_is, CODE);
    tell(&more, sent[0]);
    tell(&more, sent[2]);
    tell(&more, sent[4]);
    assert_int_equal(more.status, DIL_EAUTH);
    assert_false(believes(&more));
}

/* A node's own words sent back to it, and a coordinator's. */
static void an_echo_is_no_peer(void **state)
{
    (void)state;
    side boss;
    message start;
    begin(&boss, true, &boss_is, CODE);
    message hello = {.byte = {'D', 'L', 'P', '1', DIL__PAIRING_HELLO}, .n = DIL__PAIRING_HEAD + DIL__PAIRING_NONCE};
    start = tell(&boss, hello);
    message reply = {.byte = {'D', 'L', 'P', '1', DIL__PAIRING_REPLY}, .n = DIL__PAIRING_HEAD + DIL__CPACE_POINT + DIL__PAIRING_WHO};
    memcpy(reply.byte + DIL__PAIRING_HEAD, start.byte + DIL__PAIRING_HEAD + DIL__PAIRING_NONCE, DIL__CPACE_POINT + DIL__PAIRING_WHO);
    tell(&boss, reply);
    assert_int_equal(boss.status, DIL_EFORMAT); /* it says that it is a coordinator */
    begin(&boss, true, &boss_is, CODE);
    start = tell(&boss, hello);
    memcpy(reply.byte + DIL__PAIRING_HEAD, start.byte + DIL__PAIRING_HEAD + DIL__PAIRING_NONCE, DIL__CPACE_POINT + DIL__PAIRING_WHO);
    reply.byte[DIL__PAIRING_HEAD + DIL__CPACE_POINT] = 'N';
    message prove = tell(&boss, reply);
    assert_int_equal(prove.byte[4], DIL__PAIRING_PROVE);
    prove.byte[4] = DIL__PAIRING_PROVEN;
    tell(&boss, prove);
    assert_int_equal(boss.status, DIL_EAUTH);
}

/* Every message at every step: only the one that is due goes on. */
static void nothing_out_of_order(void **state)
{
    (void)state;
    side node, boss;
    message sent[7] = {{.n = 0}}, hello = begin(&node, false, &node_is, CODE);
    begin(&boss, true, &boss_is, CODE);
    carry(&node, &boss, hello, NULL, NULL, sent);
    for (int i = 0; i < 7; i++) {
        if (i == 1) continue;
        side fresh;
        begin(&fresh, false, &node_is, CODE);
        message back = tell(&fresh, sent[i]);
        assert_int_equal(fresh.run.step, DIL__PAIRING_FAILED);
        assert_false(fresh.run.wrong_code); /* and that is no guess */
        assert_int_equal(back.byte[4], DIL__PAIRING_REFUSED);
        tell(&fresh, sent[1]);
        assert_int_equal(fresh.run.step, DIL__PAIRING_FAILED); /* an ended run stays ended */
    }
}

static void sizes_are_known_from_five_bytes(void **state)
{
    (void)state;
    const uint8_t ours[] = {'D', 'L', 'P', '1', DIL__PAIRING_START}, zmq[] = {0xff, 0, 0, 0, 0}, type_0[] = {'D', 'L', 'P', '1', 0}, type_9[] = {'D', 'L', 'P', '1', 9};
    assert_int_equal(dil__pairing_size(ours, 0), 0);
    assert_int_equal(dil__pairing_size(ours, 4), 0);
    assert_int_equal(dil__pairing_size(ours, 5), DIL__PAIRING_MAX);
    assert_true(dil__pairing_size(zmq, 1) == DIL__PAIRING_BAD);
    assert_true(dil__pairing_size(type_0, 5) == DIL__PAIRING_BAD);
    assert_true(dil__pairing_size(type_9, 5) == DIL__PAIRING_BAD);
}

static void codes_as_people_type_them(void **state)
{
    (void)state;
    char code[DIL_PAIR_DIGITS + 1];
    assert_true(dil_pair_code_read(" 4821-7736\n", code));
    assert_string_equal(code, "48217736");
    assert_false(dil_pair_code_read("4821773", code));
    assert_false(dil_pair_code_read("482177366", code));
    assert_false(dil_pair_code_read("4821773o", code));
    assert_false(dil_pair_code_read("", code));
    assert_true(dil_pair_name_ok("pi-4.local_2"));
    assert_false(dil_pair_name_ok("../x") || dil_pair_name_ok(".x") || dil_pair_name_ok("a b") || dil_pair_name_ok("") || dil_pair_name_ok("a/b") || dil_pair_name_ok("-x"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_code_enrols_both), cmocka_unit_test(another_code_enrols_nobody), cmocka_unit_test(somebody_between_is_found_out),
        cmocka_unit_test(no_bit_may_change_on_the_way), cmocka_unit_test(a_recording_is_worth_nothing), cmocka_unit_test(an_echo_is_no_peer),
        cmocka_unit_test(nothing_out_of_order), cmocka_unit_test(sizes_are_known_from_five_bytes), cmocka_unit_test(codes_as_people_type_them)};
    return cmocka_run_group_tests(tests, set_up, NULL);
}
