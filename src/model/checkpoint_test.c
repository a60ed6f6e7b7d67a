/* The readers of checkpoints on archives that are put together here, among them the 64-bit records that files beyond 4 GiB have;
 * and on torch.save's own files with every byte changed in turn. What a good file gives is tests/import_test.py's part. */
#include "model/checkpoint.h"
#include "model/pickle.h"
#include "model/zip.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* --- zip archives ---------------------------------------------------------------------------------------------------- */

static void u16(dil_buf *b, uint16_t v) { dil_buf_append(b, &v, sizeof v); }
static void u32(dil_buf *b, uint32_t v) { dil_buf_append(b, &v, sizeof v); }
static void u64(dil_buf *b, uint64_t v) { dil_buf_append(b, &v, sizeof v); }
static void bytes(dil_buf *b, const char *s) { dil_buf_append(b, s, strlen(s)); }

typedef struct spec { /* of an archive with two entries; zero: as it should be */
    bool wide;           /* sizes, offsets and the end in their 64-bit forms */
    uint16_t method, flags, entries, disk;
    int64_t size_off, local_off, dir_off, dir_size_off, end64_off, wide_n_off; /* added to the true numbers */
    const char *local_name, *second_name;
    uint16_t extra_bytes; /* of the 64-bit extra field */
    bool no_locator;
} spec;

static void local_entry(dil_buf *b, const char *name, const char *data, uint16_t method)
{
    u32(b, 0x04034b50);
    u16(b, 45), u16(b, 0), u16(b, method), u16(b, 0), u16(b, 0);
    u32(b, 0), u32(b, (uint32_t)strlen(data)), u32(b, (uint32_t)strlen(data));
    u16(b, (uint16_t)strlen(name)), u16(b, 4);
    bytes(b, name);
    u16(b, 0x4246), u16(b, 0); /* an extra field that only the local header has, as torch pads with */
    bytes(b, data);
}

static void central_entry(dil_buf *b, const spec *s, const char *name, uint64_t local, uint64_t size)
{
    u32(b, 0x02014b50);
    u16(b, 45), u16(b, 45), u16(b, s->flags), u16(b, s->method), u16(b, 0), u16(b, 0);
    u32(b, 0);
    u32(b, s->wide ? 0xffffffff : (uint32_t)size), u32(b, s->wide ? 0xffffffff : (uint32_t)size);
    u16(b, (uint16_t)strlen(name)), u16(b, s->wide ? 28 : 0), u16(b, 0), u16(b, s->disk), u16(b, 0);
    u32(b, 0), u32(b, s->wide ? 0xffffffff : (uint32_t)local);
    bytes(b, name);
    if (s->wide) u16(b, 1), u16(b, s->extra_bytes ? s->extra_bytes : 24), u64(b, size), u64(b, size), u64(b, local);
}

static void archive(dil_buf *b, const spec *s)
{
    dil_buf_init(b, 1 << 16);
    const char *second = s->second_name ? s->second_name : "a/two";
    local_entry(b, s->local_name ? s->local_name : "a/one", "first", s->method);
    uint64_t at = b->len;
    local_entry(b, second, "second!", s->method);
    uint64_t dir = b->len;
    central_entry(b, s, "a/one", (uint64_t)s->local_off, 5 + (uint64_t)s->size_off);
    central_entry(b, s, second, at, 7);
    uint64_t size = b->len - dir, end64 = b->len;
    uint16_t n = s->entries ? s->entries : 2;
    if (s->wide) {
        u32(b, 0x06064b50), u64(b, 44), u16(b, 45), u16(b, 45), u32(b, 0), u32(b, 0), u64(b, n), u64(b, n + (uint64_t)s->wide_n_off);
        u64(b, size + (uint64_t)s->dir_size_off), u64(b, dir + (uint64_t)s->dir_off);
        if (!s->no_locator) u32(b, 0x07064b50), u32(b, 0), u64(b, end64 + (uint64_t)s->end64_off), u32(b, 1);
    }
    u32(b, 0x06054b50), u16(b, 0), u16(b, 0), u16(b, s->wide ? 0xffff : n), u16(b, s->wide ? 0xffff : n);
    u32(b, s->wide ? 0xffffffff : (uint32_t)(size + (uint64_t)s->dir_size_off)), u32(b, s->wide ? 0xffffffff : (uint32_t)(dir + (uint64_t)s->dir_off));
    u16(b, 0);
}

/* Opens a copy of exactly the archive's size; NULL text: it must open, and both entries be there. */
static void expect(const spec *s, dil_status want, const char *says)
{
    dil_buf b;
    archive(&b, s);
    uint8_t *copy = malloc(b.len);
    memcpy(copy, b.data, b.len);
    dil_arena *arena = dil_arena_new(1 << 20);
    dil__zip z;
    dil_err err = {0};
    dil_status got = dil__zip_open("z", copy, b.len, arena, &z, &err);
    if (got != want || (says && !strstr(err.text, says))) fail_msg("expected %s, %s; got %s: %s", dil_status_name(want), says ? says : "", dil_status_name(got), err.text);
    if (got == DIL_OK) {
        const dil__zip_entry *one = dil__zip_find(&z, "a/one"), *two = dil__zip_find(&z, "a/two");
        assert_true(one && one->bytes == 5 && memcmp(one->data, "first", 5) == 0);
        assert_true(two && two->bytes == 7 && memcmp(two->data, "second!", 7) == 0 && !dil__zip_find(&z, "a"));
    }
    dil_arena_free(arena);
    free(copy);
    dil_buf_fini(&b);
}

static void archives_open_in_both_widths(void **state)
{
    (void)state;
    expect(&(spec){0}, DIL_OK, NULL);
    expect(&(spec){.wide = true}, DIL_OK, NULL);
}

static void archives_that_lie_are_refused(void **state)
{
    (void)state;
    for (int wide = 0; wide < 2; wide++) {
        bool w = wide;
        expect(&(spec){.wide = w, .method = 8}, DIL_EUNSUPPORTED, "a/one is compressed (method 8)");
        expect(&(spec){.wide = w, .flags = 1}, DIL_EUNSUPPORTED, "a/one is encrypted");
        expect(&(spec){.wide = w, .disk = 1}, DIL_EFORMAT, "another disk");
        expect(&(spec){.wide = w, .size_off = 1 << 20}, DIL_EFORMAT, "are left before the directory");
        expect(&(spec){.wide = w, .size_off = 7}, DIL_EFORMAT, "a/two begins at");
        expect(&(spec){.wide = w, .local_off = 1}, DIL_EFORMAT, "no local header at byte 1");
        expect(&(spec){.wide = w, .local_off = 0xfffffff0}, DIL_EFORMAT, "no local header");
        expect(&(spec){.wide = w, .local_name = "a/One"}, DIL_EFORMAT, "disagrees with the directory");
        expect(&(spec){.wide = w, .second_name = "a/one"}, DIL_EFORMAT, "a/one appears twice");
        expect(&(spec){.wide = w, .entries = 1}, DIL_EFORMAT, "bytes after the last entry");
        expect(&(spec){.wide = w, .entries = 3}, DIL_EFORMAT, w ? "no entry where one is expected" : "3 zip entries cannot fit");
        expect(&(spec){.wide = w, .entries = 60000}, DIL_EFORMAT, "60000 zip entries cannot fit");
        expect(&(spec){.wide = w, .dir_off = 4}, DIL_EFORMAT, NULL);
        expect(&(spec){.wide = w, .dir_off = 1 << 30}, DIL_EFORMAT, "passes its end");
        expect(&(spec){.wide = w, .dir_size_off = 200}, DIL_EFORMAT, "passes its end");
        expect(&(spec){.wide = w, .dir_size_off = -46}, DIL_EFORMAT, NULL);
    }
    expect(&(spec){.wide = true, .no_locator = true}, DIL_EFORMAT, "locator is missing");
    expect(&(spec){.wide = true, .end64_off = 1}, DIL_EFORMAT, "no 64-bit end record");
    expect(&(spec){.wide = true, .end64_off = INT64_MAX}, DIL_EFORMAT, "no 64-bit end record");
    expect(&(spec){.wide = true, .wide_n_off = 1}, DIL_EUNSUPPORTED, "several disks");
    expect(&(spec){.wide = true, .extra_bytes = 16}, DIL_EFORMAT, "64-bit field");
    expect(&(spec){.wide = true, .extra_bytes = 60000}, DIL_EFORMAT, "64-bit field");
    expect(&(spec){.wide = true, .local_off = INT64_MIN}, DIL_EFORMAT, "no local header");
    expect(&(spec){.wide = true, .size_off = -6}, DIL_EFORMAT, "are left before the directory"); /* 2^64 - 1 bytes */
}

/* --- pickles --------------------------------------------------------------------------------------------------------- */

static dil_status read_pickle(const char *p, size_t n, size_t arena_bytes, dil_err *err)
{
    dil_arena *arena = dil_arena_new(arena_bytes);
    dil__pickle_tensor *t;
    size_t count;
    uint8_t *copy = malloc(n);
    memcpy(copy, p, n);
    *err = (dil_err){0};
    dil_status s = dil__pickle_read("p", copy, n, arena, &t, &count, err);
    free(copy);
    dil_arena_free(arena);
    return s;
}

static void pickle(const char *p, size_t n, dil_status want, const char *says)
{
    dil_err err;
    dil_status s = read_pickle(p, n, 1 << 20, &err);
    if (s != want || !strstr(err.text, says)) fail_msg("expected %s, %s; got %s: %s", dil_status_name(want), says, dil_status_name(s), err.text);
}
#define PICKLE(bytes, want, says) pickle(bytes, sizeof bytes - 1, want, says)

static void the_pickle_machine_refuses_what_no_checkpoint_needs(void **state)
{
    (void)state;
    PICKLE("\x80\x02}.", DIL_OK, "");
    PICKLE("\x80\x02" "ccollections\nOrderedDict\n)R.", DIL_OK, "");
    PICKLE("\x80\x02" "cos\nsystem\n.", DIL_EUNSUPPORTED, "byte 2: refuses os.system");
    PICKLE("\x80\x02" "c__builtin__\neval\n.", DIL_EUNSUPPORTED, "refuses __builtin__.eval");
    PICKLE("\x80\x02" "ctorch\nFloatStorage\n)R.", DIL_EFORMAT, "a storage type that is called");
    PICKLE("\x80\x02" "ccollections\nOrderedDict\n}R.", DIL_EFORMAT, "a dict where a tuple is expected");
    PICKLE("\x80\x02" "ctorch._utils\n_rebuild_tensor_v2\n)R.", DIL_EFORMAT, "a tensor from other arguments");
    PICKLE("\x80\x02" "ctorch._utils\n_rebuild_parameter\n)R.", DIL_EFORMAT, "a parameter that is no tensor");
    PICKLE("\x80\x02" "}q\x01.", DIL_EFORMAT, "memo 1 after 0");
    PICKLE("\x80\x02" "}r\xff\xff\xff\xff.", DIL_EFORMAT, "memo 4294967295 after 0");
    PICKLE("\x80\x02" "h\x00.", DIL_EFORMAT, "memo 0 of 0");
    PICKLE("\x80\x02" "R.", DIL_EFORMAT, "stack is empty");
    PICKLE("\x80\x02" "u.", DIL_EFORMAT, "items without a mark");
    PICKLE("\x80\x02" "t.", DIL_EFORMAT, "a tuple without a mark");
    PICKLE("\x80\x02" "}(K\x01u.", DIL_EFORMAT, "a key without an item");
    PICKLE("\x80\x02" "}(K\x01K\x02u.", DIL_EUNSUPPORTED, "an integer as a dict's key");
    PICKLE("\x80\x02" "(}(u.", DIL_EFORMAT, "more or less than one value");
    PICKLE("\x80\x02" "}}.", DIL_EFORMAT, "more or less than one value");
    PICKLE("\x80\x02" ".", DIL_EFORMAT, "more or less than one value");
    PICKLE("\x80\x02" "}", DIL_EFORMAT, "truncated: no end");
    PICKLE("\x80\x02" "\x8a\x09" "123456789.", DIL_EFORMAT, "more than 64 bits");
    PICKLE("\x80\x02" "X\x02\x00\x00\x00" "a\0.", DIL_EFORMAT, "a zero byte");
    PICKLE("\x80\x02" ")Q.", DIL_EFORMAT, "a persistent id that is no storage");
    PICKLE("\x80\x02" "K\x01Q.", DIL_EFORMAT, "an integer where a tuple");
    PICKLE("\x80\x02" "K\x01}b.", DIL_EFORMAT, "an integer where a dict");
    PICKLE("\x80\x02" "S'x'\n.", DIL_EUNSUPPORTED, "opcode 0x53");
    PICKLE("\x80\x02" "i", DIL_EUNSUPPORTED, "opcode 0x69");
}

static void a_pickle_keeps_to_its_memory(void **state)
{
    (void)state;
    size_t n = 4 << 20;
    char *p = malloc(n);
    dil_err err;
    memset(p, ')', n); /* a value a byte */
    assert_int_equal(read_pickle(p, n, 1 << 20, &err), DIL_ELIMIT);
    for (size_t i = 0; i + 1 < n; i += 2) memcpy(p + i, "N0", 2);
    memcpy(p, "\x80\x02", 2);
    assert_int_equal(read_pickle(p, n, 1 << 20, &err), DIL_EUNSUPPORTED); /* POP is no part of it */
    for (size_t i = 2; i + 6 < n; i += 6) memcpy(p + i, "}}}}}\x87", 6);
    assert_int_equal(read_pickle(p, n, 1 << 20, &err), DIL_ELIMIT);
    assert_int_equal(read_pickle(p, DIL__PICKLE_BYTES_MAX > n ? n : 1, 64, &err), DIL_ELIMIT);
    free(p);
}

/* --- torch's own files, changed ----------------------------------------------------------------------------------------- */

static const char *source_dir(void)
{
    const char *dir = getenv("DILEMMA_SOURCE");
    return dir ? dir : ".";
}

static void torch_files_with_changed_bytes_never_read_out_of_bounds(void **state)
{
    (void)state;
    char path[512];
    snprintf(path, sizeof path, "%s/tests/data/opt-post/pytorch_model.bin", source_dir());
    dil_buf b;
    dil_err err;
    dil_buf_init(&b, 1 << 20);
    if (dil_file_read(path, &b, &err) != DIL_OK) fail_msg("%s", err.text);
    uint8_t *copy = malloc(b.len);
    dil_rng r;
    dil_rng_init(&r, 17);
    size_t read = 0;
    for (int i = 0; i < 4000; i++) {
        memcpy(copy, b.data, b.len);
        for (uint64_t k = dil_rng_below(&r, 3); i > 0 && k < 3; k++) copy[dil_rng_below(&r, b.len)] = (uint8_t)dil_rng_u64(&r);
        dil__ckpt c;
        assert_int_equal(dil__ckpt_init(&c, &err), DIL_OK);
        dil_status s = dil__ckpt_add_pytorch(&c, "f", copy, b.len, &err);
        if (s == DIL_OK) s = dil__ckpt_sort(&c, &err);
        if (i == 0) assert_true(s == DIL_OK && c.n == 37 && dil__ckpt_find(&c, "lm_head.weight") && !dil__ckpt_find(&c, "x"));
        for (size_t t = 0; s == DIL_OK && t < c.n; t++) {
            if (c.tensor[t].bytes) assert_true(c.tensor[t].data >= copy && c.tensor[t].data + c.tensor[t].bytes <= copy + b.len);
        }
        read += s == DIL_OK;
        dil__ckpt_close(&c);
    }
    assert_true(read > 1 && read < 4000); /* changes in values are no one's business here */
    free(copy);
    dil_buf_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(archives_open_in_both_widths),
        cmocka_unit_test(archives_that_lie_are_refused),
        cmocka_unit_test(the_pickle_machine_refuses_what_no_checkpoint_needs),
        cmocka_unit_test(a_pickle_keeps_to_its_memory),
        cmocka_unit_test(torch_files_with_changed_bytes_never_read_out_of_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
