/* Files appear whole or not at all: also when the disk is full, the folder is missing, or two write at once. */
#include <dilemma/base.h>

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static char dir[64];

static const char *at(const char *name)
{
    static char path[4][256];
    static int k;
    char *p = path[k++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", dir, name);
    return p;
}

static size_t n_files(const char *where)
{
    char command[300];
    snprintf(command, sizeof command, "ls -A %s | wc -l", where);
    FILE *p = popen(command, "r");
    size_t n = 999;
    assert_int_equal(fscanf(p, "%zu", &n), 1);
    pclose(p);
    return n;
}

static void expect_text(const char *path, const char *text)
{
    dil_buf b;
    dil_buf_init(&b, 1 << 20);
    assert_int_equal(dil_file_read(path, &b, NULL), DIL_OK);
    assert_string_equal(dil_buf_str(&b), text);
    dil_buf_fini(&b);
}

static void a_file_appears_at_commit_and_not_before(void **state)
{
    (void)state;
    dil_outfile o;
    dil_err err;
    assert_int_equal(dil_outfile_open(&o, at("a"), &err), DIL_OK);
    fputs("new", o.stream);
    assert_false(dil_file_exists(at("a")));
    assert_int_equal(dil_outfile_commit(&o, &err), DIL_OK);
    expect_text(at("a"), "new");
    assert_int_equal(n_files(dir), 1);
    assert_int_equal(dil_outfile_open(&o, at("a"), &err), DIL_OK); /* the old one stays until then */
    fputs("newer", o.stream);
    expect_text(at("a"), "new");
    dil_outfile_abort(&o);
    expect_text(at("a"), "new");
    assert_int_equal(n_files(dir), 1);
    assert_int_equal(dil_file_write(at("a"), "newest", 6, &err), DIL_OK);
    expect_text(at("a"), "newest");
    unlink(at("a"));
}

static void two_writers_of_one_name_do_not_mix(void **state)
{
    (void)state;
    dil_outfile one, two;
    assert_int_equal(dil_outfile_open(&one, at("b"), NULL), DIL_OK);
    assert_int_equal(dil_outfile_open(&two, at("b"), NULL), DIL_OK);
    fputs("one", one.stream);
    fputs("two", two.stream);
    assert_int_equal(dil_outfile_commit(&one, NULL), DIL_OK);
    expect_text(at("b"), "one");
    assert_int_equal(dil_outfile_commit(&two, NULL), DIL_OK);
    expect_text(at("b"), "two");
    unlink(at("b"));
    assert_int_equal(n_files(dir), 0);
}

static void a_device_is_written_to_and_not_replaced(void **state)
{
    (void)state;
    dil_err err;
    struct stat st;
    assert_int_equal(dil_file_write("/dev/null", "x", 1, &err), DIL_OK);
    assert_true(stat("/dev/null", &st) == 0 && S_ISCHR(st.st_mode));
    assert_int_equal(dil_file_write("/dev/full", "x", 1, &err), DIL_EIO);
    assert_string_equal(err.text, "/dev/full: writing: No space left on device");
    assert_true(stat("/dev/full", &st) == 0 && S_ISCHR(st.st_mode));
}

static void what_cannot_be_written_is_named(void **state)
{
    (void)state;
    dil_err err;
    assert_int_equal(dil_file_write(at("no/such/folder"), "x", 1, &err), DIL_ENOTFOUND);
    assert_non_null(strstr(err.text, "no/such/folder: No such file"));
    assert_int_equal(dil_file_write(dir, "x", 1, &err), DIL_EIO);
    assert_non_null(strstr(err.text, "is a folder"));
    assert_int_equal(n_files(dir), 0);
}

/* A file system of 64 KiB, where we may mount one. */
static void a_full_disk_leaves_the_old_file_and_no_part(void **state)
{
    (void)state;
    assert_int_equal(mkdir(at("small"), 0700), 0);
    if (mount("none", at("small"), "tmpfs", 0, "size=64k") != 0) {
        fprintf(stderr, "SKIPPED: cannot mount a small file system (%s): needs root\n", strerror(errno));
        rmdir(at("small"));
        skip();
    }
    dil_err err = {0};
    char *big = calloc(1, 1 << 20);
    dil_status first = dil_file_write(at("small/x"), "old", 3, &err);
    dil_status second = dil_file_write(at("small/x"), big, 1 << 20, &err);
    size_t left = n_files(at("small"));
    dil_buf b;
    dil_buf_init(&b, 100);
    dil_status read = dil_file_read(at("small/x"), &b, NULL);
    bool same = read == DIL_OK && strcmp(dil_buf_str(&b), "old") == 0;
    dil_buf_fini(&b);
    free(big);
    umount(at("small"));
    rmdir(at("small"));
    assert_int_equal(first, DIL_OK);
    assert_int_equal(second, DIL_EIO);
    assert_non_null(strstr(err.text, "No space left"));
    assert_int_equal(left, 1);
    assert_true(same);
}

static void reading_stops_at_the_limit(void **state)
{
    (void)state;
    dil_err err;
    dil_file_write(at("r"), "0123456789", 10, NULL);
    dil_buf b;
    dil_buf_init(&b, 9);
    assert_int_equal(dil_file_read(at("r"), &b, &err), DIL_ELIMIT);
    assert_non_null(strstr(err.text, "limit of 9 bytes"));
    dil_buf_fini(&b);
    dil_buf_init(&b, 10);
    assert_int_equal(dil_file_read(at("r"), &b, &err), DIL_OK);
    assert_int_equal(b.len, 10);
    dil_buf_fini(&b);
    assert_int_equal(dil_file_read("/dev/zero", &b, &err), DIL_ELIMIT); /* endless */
    dil_buf_fini(&b);
    assert_int_equal(dil_file_read(at("absent"), &b, &err), DIL_ENOTFOUND);
    assert_int_equal(dil_file_read(dir, &b, &err), DIL_EIO);
    dil_buf_fini(&b);
    unlink(at("r"));
}

static void mapping_shows_the_bytes(void **state)
{
    (void)state;
    dil_err err;
    dil_map m;
    dil_file_write(at("m"), "mapped", 6, NULL);
    assert_int_equal(dil_map_open(at("m"), &m, &err), DIL_OK);
    assert_true(m.len == 6 && memcmp(m.data, "mapped", 6) == 0);
    dil_map_close(&m);
    dil_map_close(&m); /* once more is harmless */
    dil_file_write(at("m"), "", 0, NULL);
    assert_int_equal(dil_map_open(at("m"), &m, &err), DIL_OK);
    assert_true(m.len == 0 && !m.data);
    dil_map_close(&m);
    assert_int_equal(dil_map_open(dir, &m, &err), DIL_EFORMAT);
    assert_int_equal(dil_map_open(at("gone"), &m, &err), DIL_ENOTFOUND);
    assert_int_equal(dil_map_open("/dev/zero", &m, &err), DIL_EFORMAT);
    unlink(at("m"));
}

static void folders_are_made_with_their_parents(void **state)
{
    (void)state;
    dil_err err;
    assert_int_equal(dil_mkdirs(at("p/q/r"), &err), DIL_OK);
    assert_int_equal(dil_mkdirs(at("p/q/r/"), &err), DIL_OK);
    dil_file_write(at("p/file"), "", 0, NULL);
    assert_int_equal(dil_mkdirs(at("p/file"), &err), DIL_EIO);
    assert_int_equal(dil_mkdirs(at("p/file/deeper"), &err), DIL_EIO);
    char command[100];
    snprintf(command, sizeof command, "rm -r %s", at("p"));
    assert_int_equal(system(command), 0);
}

static int make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/dilemma-file-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    return rmdir(dir); /* fails if a test left something */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_appears_at_commit_and_not_before),
        cmocka_unit_test(two_writers_of_one_name_do_not_mix),
        cmocka_unit_test(a_device_is_written_to_and_not_replaced),
        cmocka_unit_test(what_cannot_be_written_is_named),
        cmocka_unit_test(a_full_disk_leaves_the_old_file_and_no_part),
        cmocka_unit_test(reading_stops_at_the_limit),
        cmocka_unit_test(mapping_shows_the_bytes),
        cmocka_unit_test(folders_are_made_with_their_parents),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
