/* Keys in files, and the chunk cache: both hold what they are given, and notice when it is not what it was. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "net/store.h"

#include <dilemma/keys.h>

#include <fcntl.h>

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char base[64];

static const char *at(const char *name)
{
    static char path[4][256];
    static unsigned next;
    char *p = path[next++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", base, name);
    return p;
}

static void a_pair_is_private_and_never_overwritten(void **state)
{
    (void)state;
    dil_keypair a, b;
    dil_err err;
    assert_int_equal(dil_keypair_new(&a, &err), DIL_OK);
    assert_true(dil_key_is_valid(a.public_key) && !dil_key_equal(a.public_key, a.secret_key));
    assert_int_equal(dil_keypair_write(at("sub/n.key"), &a, &err), DIL_OK);
    struct stat st;
    assert_int_equal(stat(at("sub/n.key"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(dil_keypair_read(at("sub/n.key"), &b, &err), DIL_OK);
    assert_memory_equal(&a, &b, sizeof a);
    assert_int_equal(dil_keypair_write(at("sub/n.key"), &a, &err), DIL_EBUSY);
    assert_int_equal(chmod(at("sub/n.key"), 0644), 0);
    assert_int_equal(dil_keypair_read(at("sub/n.key"), &b, &err), DIL_EAUTH);
    assert_int_equal(dil_keypair_read(at("none"), &b, &err), DIL_ENOTFOUND);
}

static void a_pair_that_does_not_belong_together_is_refused(void **state)
{
    (void)state;
    dil_keypair a, b;
    dil_err err;
    dil_keypair_new(&a, &err);
    dil_keypair_new(&b, &err);
    memcpy(a.public_key, b.public_key, sizeof a.public_key);
    assert_int_equal(dil_keypair_write(at("mixed.key"), &a, &err), DIL_OK);
    assert_int_equal(dil_keypair_read(at("mixed.key"), &b, &err), DIL_EFORMAT);
}

static void a_list_keeps_names_and_takes_a_key_once(void **state)
{
    (void)state;
    dil_keypair a, b;
    dil_err err;
    dil_keyring ring;
    dil_keypair_new(&a, &err);
    dil_keypair_new(&b, &err);
    assert_int_equal(dil_keyring_add(at("allowed"), a.public_key, "one", &err), DIL_OK);
    assert_int_equal(dil_keyring_add(at("allowed"), b.public_key, "", &err), DIL_OK);
    assert_int_equal(dil_keyring_add(at("allowed"), a.public_key, "uno", &err), DIL_OK);
    assert_int_equal(dil_keyring_add(at("allowed"), "too short", "x", &err), DIL_EFORMAT);
    assert_int_equal(dil_keyring_read(at("allowed"), &ring, &err), DIL_OK);
    assert_int_equal(ring.n, 2);
    assert_string_equal(ring.entry[0].name, "uno");
    assert_true(dil_keyring_has(&ring, b.public_key));
    dil_keyring_fini(&ring);
    assert_int_equal(dil_keyring_remove(at("allowed"), "uno", &err), DIL_OK);
    assert_int_equal(dil_keyring_remove(at("allowed"), "uno", &err), DIL_ENOTFOUND);
    assert_int_equal(dil_keyring_read(at("allowed"), &ring, &err), DIL_OK);
    assert_int_equal(ring.n, 1);
    assert_false(dil_keyring_has(&ring, a.public_key));
    dil_keyring_fini(&ring);
}

static void a_changed_chunk_is_missed_and_removed(void **state)
{
    (void)state;
    dil__store *s;
    dil_err err;
    assert_int_equal(dil__store_open(at("cache"), 0, &s, &err), DIL_OK);
    dil_hash h = dil_hash_of("chunk", 5);
    assert_false(dil__store_check(s, &h, 5));
    assert_int_equal(dil__store_put(s, &h, "chunX", 5, &err), DIL_EDATA);
    assert_int_equal(dil__store_put(s, &h, "chunk", 5, &err), DIL_OK);
    assert_true(dil__store_check(s, &h, 5));
    char path[4096];
    dil__store_path(s, &h, path);
    FILE *f = fopen(path, "r+b");
    fputc('x', f);
    fclose(f);
    assert_false(dil__store_check(s, &h, 5));
    assert_false(dil_file_exists(path));
    dil__store_close(s);
}

static void the_longest_unused_chunks_go_first(void **state)
{
    (void)state;
    dil__store *s;
    dil_err err;
    assert_int_equal(dil__store_open(at("small"), 250, &s, &err), DIL_OK);
    dil_hash h[4];
    char path[4096], data[100] = {0};
    for (int i = 0; i < 4; i++) {
        data[0] = (char)i;
        h[i] = dil_hash_of(data, sizeof data);
        assert_int_equal(dil__store_put(s, &h[i], data, sizeof data, &err), DIL_OK);
        dil__store_path(s, &h[i], path);
        struct timespec t[2] = {{1000 + i, 0}, {1000 + i, 0}};
        utimensat(AT_FDCWD, path, t, 0);
    }
    dil__store_evict(s, INT64_C(1002) * 1000); /* chunks 2 and 3 are in use */
    for (int i = 0; i < 4; i++) {
        dil__store_path(s, &h[i], path);
        assert_int_equal(dil_file_exists(path), i >= 2);
    }
    dil__store_close(s);
}

static int make_base(void **state)
{
    (void)state;
    snprintf(base, sizeof base, "/tmp/dilemma-keys-XXXXXX");
    return mkdtemp(base) ? 0 : -1;
}

static int remove_base(void **state)
{
    (void)state;
    char cmd[128];
    snprintf(cmd, sizeof cmd, "rm -r %s", base);
    return system(cmd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pair_is_private_and_never_overwritten),
        cmocka_unit_test(a_pair_that_does_not_belong_together_is_refused),
        cmocka_unit_test(a_list_keeps_names_and_takes_a_key_once),
        cmocka_unit_test(a_changed_chunk_is_missed_and_removed),
        cmocka_unit_test(the_longest_unused_chunks_go_first),
    };
    return cmocka_run_group_tests(tests, make_base, remove_base);
}
