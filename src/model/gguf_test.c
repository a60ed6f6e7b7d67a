/* GGUF: what we write reads back; every lie in a file is refused with a text that names it. Hostile files are put together
 * here, byte by byte, in buffers of exactly their size, so that the sanitizers see any read beyond the end.
 * That others read what we write, and we what they write, is tests/gguf_test.py's part. */
#include <dilemma/gguf.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

/* --- building files ------------------------------------------------------------------------------------------------ */

static void u32(dil_buf *b, uint32_t v) { dil_buf_append(b, &v, sizeof v); }
static void u64(dil_buf *b, uint64_t v) { dil_buf_append(b, &v, sizeof v); }
static void u8(dil_buf *b, uint8_t v) { dil_buf_append(b, &v, sizeof v); }
static void text(dil_buf *b, const char *s) { u64(b, strlen(s)); dil_buf_append(b, s, strlen(s)); }

static void header(dil_buf *b, uint32_t version, uint64_t n_tensors, uint64_t n_kv)
{
    dil_buf_init(b, 1 << 20);
    dil_buf_append(b, "GGUF", 4);
    u32(b, version);
    u64(b, n_tensors);
    u64(b, n_kv);
}

static void kv_u32(dil_buf *b, const char *key, uint32_t v) { text(b, key); u32(b, DIL_GGUF_U32); u32(b, v); }

static void tensor(dil_buf *b, const char *name, uint64_t ne0, uint64_t ne1, uint32_t type, uint64_t offset)
{
    text(b, name);
    u32(b, 2);
    u64(b, ne0);
    u64(b, ne1);
    u32(b, type);
    u64(b, offset);
}

static void data(dil_buf *b, size_t align, size_t n)
{
    while (b->len % align) u8(b, 0);
    for (size_t i = 0; i < n; i++) u8(b, (uint8_t)i);
}

/* Opens a copy of exactly the buffer's size. */
static dil_status open_copy(const dil_buf *b, size_t len, bool header_only, dil_err *err)
{
    uint8_t *copy = malloc(len ? len : 1);
    if (len) memcpy(copy, b->data, len);
    dil_gguf *g = NULL;
    *err = (dil_err){0};
    dil_status s = dil_gguf_open_memory(copy, len, header_only, &g, err);
    if (s == DIL_OK) dil_gguf_close(g);
    else assert_true(err->code == s && err->text[0]);
    free(copy);
    return s;
}

static void refuse(dil_buf *b, dil_status want, const char *says)
{
    dil_err err;
    dil_status s = open_copy(b, b->len, false, &err);
    if (s != want || !strstr(err.text, says)) fail_msg("expected %s with \"%s\", got %s: %s", dil_status_name(want), says, dil_status_name(s), err.text);
    dil_buf_fini(b);
}

/* --- writing and reading back ---------------------------------------------------------------------------------------- */

static char dir[64];

static const char *in_dir(const char *name)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static void put_everything(dil_gguf_writer *w)
{
    dil_err err;
    const char *words[] = {"a", "", "Ġhello"};
    int32_t ints[] = {-1, 0, 7};
    float nums[] = {0.5f, -2};
    uint64_t big = UINT64_MAX;
    double f64 = 1e300;
    int8_t i8 = -5;
    assert_int_equal(dil_gguf_put_str(w, "general.architecture", "test", &err), DIL_OK);
    assert_int_equal(dil_gguf_put_u32(w, "n", 1, &err), DIL_OK);
    assert_int_equal(dil_gguf_put_u32(w, "n", 3000000000u, &err), DIL_OK); /* replaces */
    assert_int_equal(dil_gguf_put_f32(w, "f", 1.5f, &err), DIL_OK);
    assert_int_equal(dil_gguf_put_bool(w, "b", true, &err), DIL_OK);
    assert_int_equal(dil_gguf_put_strs(w, "words", words, NULL, 3, &err), DIL_OK);
    assert_int_equal(dil_gguf_put_i32s(w, "ints", ints, 3, &err), DIL_OK);
    assert_int_equal(dil_gguf_put_f32s(w, "nums", nums, 2, &err), DIL_OK);
    assert_int_equal(dil_gguf_put_f32s(w, "none", NULL, 0, &err), DIL_OK);
    assert_int_equal(dil_gguf_put_kv(w, &(dil_gguf_kv){.key = "u64", .kind = DIL_GGUF_U64, .n = 1, .data = &big, .bytes = 8}, &err), DIL_OK);
    assert_int_equal(dil_gguf_put_kv(w, &(dil_gguf_kv){.key = "f64", .kind = DIL_GGUF_F64, .n = 1, .data = &f64, .bytes = 8}, &err), DIL_OK);
    assert_int_equal(dil_gguf_put_kv(w, &(dil_gguf_kv){.key = "i8", .kind = DIL_GGUF_I8, .n = 1, .data = &i8, .bytes = 1}, &err), DIL_OK);
}

static void check_everything(const dil_gguf *g)
{
    const char *s;
    size_t n;
    int64_t i;
    double d;
    bool b;
    assert_true(dil_gguf_get_str(g, "general.architecture", &s, &n) && n == 4 && memcmp(s, "test", 4) == 0);
    assert_true(dil_gguf_get_int(g, "n", &i) && i == 3000000000);
    assert_true(dil_gguf_get_num(g, "n", &d) && d == 3e9);
    assert_true(dil_gguf_get_num(g, "f", &d) && d == 1.5);
    assert_false(dil_gguf_get_int(g, "f", &i));
    assert_true(dil_gguf_get_bool(g, "b", &b) && b);
    assert_false(dil_gguf_get_bool(g, "n", &b));
    assert_false(dil_gguf_get_int(g, "u64", &i)); /* beyond int64 */
    assert_true(dil_gguf_get_num(g, "f64", &d) && d == 1e300);
    assert_true(dil_gguf_get_int(g, "i8", &i) && i == -5);
    assert_false(dil_gguf_get_str(g, "absent", &s, &n));
    const dil_gguf_kv *kv = dil_gguf_kv_find(g, "words");
    assert_true(kv && kv->n == 3 && dil_gguf_arr_str(kv, 2, &s, &n) && n == 7 && memcmp(s, "Ġhello", 7) == 0);
    assert_true(dil_gguf_arr_str(kv, 1, &s, &n) && n == 0);
    assert_false(dil_gguf_arr_str(kv, 3, &s, &n));
    assert_false(dil_gguf_arr_int(kv, 0, &i));
    kv = dil_gguf_kv_find(g, "ints");
    assert_true(dil_gguf_arr_int(kv, 0, &i) && i == -1 && !dil_gguf_arr_int(kv, 3, &i) && !dil_gguf_arr_str(kv, 0, &s, &n));
    kv = dil_gguf_kv_find(g, "nums");
    assert_true(dil_gguf_arr_num(kv, 1, &d) && d == -2);
    assert_int_equal(dil_gguf_kv_find(g, "none")->n, 0);
}

static void a_written_file_reads_back_equal(void **state)
{
    (void)state;
    dil_err err;
    for (uint32_t align = 0; align <= 256; align = align ? align * 2 : 32) {
        const char *path = in_dir("round.gguf");
        unlink(path);
        dil_gguf_writer *w;
        assert_int_equal(dil_gguf_writer_new(&w, &err), DIL_OK);
        put_everything(w);
        if (align) dil_gguf_put_u32(w, "general.alignment", align, &err);
        float a[6] = {1, 2, 3, 4, 5, 6};
        uint8_t q[34 * 3];
        for (size_t i = 0; i < sizeof q; i++) q[i] = (uint8_t)(i * 7);
        assert_int_equal(dil_gguf_put_tensor(w, &(dil_tensor){.name = "a", .type = DIL_TYPE_F32, .n_dims = 2, .ne = {3, 2, 1, 1}}, &err), DIL_OK);
        assert_int_equal(dil_gguf_put_tensor(w, &(dil_tensor){.name = "q", .type = DIL_TYPE_Q8_0, .ne = {96, 1, 1, 1}}, &err), DIL_OK);
        assert_int_equal(dil_gguf_begin(w, path, &err), DIL_OK);
        assert_false(dil_file_exists(path));
        assert_int_equal(dil_gguf_write_data(w, a, 8, &err), DIL_OK); /* in pieces */
        assert_int_equal(dil_gguf_write_data(w, a + 2, 16, &err), DIL_OK);
        assert_int_equal(dil_gguf_write_data(w, q, sizeof q, &err), DIL_OK);
        assert_int_equal(dil_gguf_commit(w, &err), DIL_OK);
        dil_gguf_writer_free(w);

        dil_gguf *g;
        assert_int_equal(dil_gguf_open(path, &g, &err), DIL_OK);
        check_everything(g);
        assert_int_equal(dil_gguf_n_tensors(g), 2);
        const dil_tensor *t = dil_gguf_find(g, "a");
        assert_true(t && t == dil_gguf_tensor_at(g, 0) && t->bytes == 24 && memcmp(t->data, a, 24) == 0 && t->ne[0] == 3 && t->ne[1] == 2);
        t = dil_gguf_find(g, "q");
        assert_true(t && t->n_dims == 1 && t->bytes == sizeof q && memcmp(t->data, q, sizeof q) == 0 && (uintptr_t)t->data % (align ? align : 32) == 0);
        assert_null(dil_gguf_find(g, "b"));
        dil_weights weights = dil_gguf_weights(g);
        assert_ptr_equal(dil_weights_find(&weights, "q"), t);

        size_t len;
        const void *head = dil_gguf_header(g, &len);
        dil_gguf *h;
        assert_int_equal(dil_gguf_open_memory(head, len, true, &h, &err), DIL_OK);
        check_everything(h);
        assert_true(dil_gguf_find(h, "q")->bytes == sizeof q && !dil_gguf_find(h, "q")->data);
        dil_gguf_close(h);
        assert_int_equal(dil_gguf_open_memory(head, len, false, &h, &err), DIL_EFORMAT); /* without the data */
        dil_gguf_close(g);
    }
}

static void metadata_is_copied_from_file_to_file(void **state)
{
    (void)state;
    dil_err err;
    dil_gguf_writer *w;
    dil_gguf_writer_new(&w, &err);
    put_everything(w);
    assert_int_equal(dil_gguf_begin(w, in_dir("one.gguf"), &err), DIL_OK);
    assert_int_equal(dil_gguf_commit(w, &err), DIL_OK);
    dil_gguf_writer_free(w);
    dil_gguf *g;
    assert_int_equal(dil_gguf_open(in_dir("one.gguf"), &g, &err), DIL_OK);
    dil_gguf_writer_new(&w, &err);
    for (size_t i = 0; i < dil_gguf_n_kv(g); i++) assert_int_equal(dil_gguf_put_kv(w, dil_gguf_kv_at(g, i), &err), DIL_OK);
    assert_int_equal(dil_gguf_begin(w, in_dir("two.gguf"), &err), DIL_OK);
    assert_int_equal(dil_gguf_commit(w, &err), DIL_OK);
    dil_gguf_writer_free(w);
    dil_map one, two;
    assert_int_equal(dil_map_open(in_dir("one.gguf"), &one, &err), DIL_OK);
    assert_int_equal(dil_map_open(in_dir("two.gguf"), &two, &err), DIL_OK);
    assert_true(one.len == two.len && memcmp(one.data, two.data, one.len) == 0);
    dil_map_close(&one);
    dil_map_close(&two);
    dil_gguf_close(g);
}

static size_t files_in_dir(void)
{
    char command[96];
    snprintf(command, sizeof command, "ls -A %s | wc -l", dir);
    FILE *p = popen(command, "r");
    size_t n = 999;
    assert_int_equal(fscanf(p, "%zu", &n), 1);
    pclose(p);
    return n;
}

static void a_file_that_was_not_finished_leaves_nothing(void **state)
{
    (void)state;
    dil_err err;
    size_t before = files_in_dir();
    float x[4] = {0};
    for (int how = 0; how < 3; how++) {
        dil_gguf_writer *w;
        dil_gguf_writer_new(&w, &err);
        dil_gguf_put_tensor(w, &(dil_tensor){.name = "x", .ne = {4, 1, 1, 1}}, &err);
        assert_int_equal(dil_gguf_begin(w, in_dir("half.gguf"), &err), DIL_OK);
        if (how == 1) assert_int_equal(dil_gguf_commit(w, &err), DIL_EINTERNAL); /* no data */
        if (how == 2) {
            assert_int_equal(dil_gguf_write_data(w, x, 12, &err), DIL_OK);
            assert_int_equal(dil_gguf_write_data(w, x, 8, &err), DIL_EINTERNAL); /* crosses the end */
            assert_int_equal(dil_gguf_commit(w, &err), DIL_EINTERNAL);
        }
        dil_gguf_writer_free(w);
    }
    assert_int_equal(files_in_dir(), before);
}

static void the_writer_refuses_what_the_reader_would(void **state)
{
    (void)state;
    dil_err err;
    dil_gguf_writer *w;
    dil_gguf_writer_new(&w, &err);
    assert_int_equal(dil_gguf_put_tensor(w, &(dil_tensor){.name = "x", .type = DIL_TYPE_Q4_0, .ne = {33, 1, 1, 1}}, &err), DIL_EFORMAT);
    assert_int_equal(dil_gguf_put_tensor(w, &(dil_tensor){.name = "x", .type = 5, .ne = {32, 1, 1, 1}}, &err), DIL_EFORMAT);
    assert_int_equal(dil_gguf_put_tensor(w, &(dil_tensor){.name = "x", .ne = {32, 0, 1, 1}}, &err), DIL_EFORMAT);
    assert_int_equal(dil_gguf_put_tensor(w, &(dil_tensor){.name = "x", .ne = {1ull << 40, 1ull << 40, 1, 1}}, &err), DIL_EFORMAT);
    assert_int_equal(dil_gguf_put_tensor(w, &(dil_tensor){.name = "x", .n_dims = 1, .ne = {4, 2, 1, 1}}, &err), DIL_EFORMAT);
    assert_int_equal(dil_gguf_put_tensor(w, &(dil_tensor){.name = "", .ne = {4, 1, 1, 1}}, &err), DIL_EFORMAT);
    assert_int_equal(dil_gguf_put_u32(w, "", 1, &err), DIL_ELIMIT);
    dil_gguf_put_tensor(w, &(dil_tensor){.name = "x", .ne = {4, 1, 1, 1}}, &err);
    dil_gguf_put_tensor(w, &(dil_tensor){.name = "x", .ne = {4, 1, 1, 1}}, &err);
    assert_int_equal(dil_gguf_begin(w, in_dir("twice.gguf"), &err), DIL_EFORMAT);
    assert_non_null(strstr(err.text, "x was announced twice"));
    dil_gguf_put_u32(w, "general.alignment", 24, &err);
    assert_int_equal(dil_gguf_begin(w, in_dir("align.gguf"), &err), DIL_EFORMAT);
    dil_gguf_writer_free(w);
}

/* /dev/full cannot take NAME.part beside it; standard output on it can stand for a disk that fills up. */
static void a_full_disk_is_an_io_error(void **state)
{
    (void)state;
    fflush(stdout);
    int keep = dup(STDOUT_FILENO);
    FILE *full = fopen("/dev/full", "w");
    if (!full) skip();
    dup2(fileno(full), STDOUT_FILENO);
    dil_err err = {0};
    dil_gguf_writer *w;
    dil_gguf_writer_new(&w, &err);
    dil_gguf_put_tensor(w, &(dil_tensor){.name = "x", .ne = {1 << 16, 1, 1, 1}}, &err);
    dil_status s = dil_gguf_begin(w, "-", &err);
    void *zero = calloc(1 << 16, 4);
    if (s == DIL_OK) s = dil_gguf_write_data(w, zero, 4 << 16, &err);
    if (s == DIL_OK) s = dil_gguf_commit(w, &err);
    dil_gguf_writer_free(w);
    dup2(keep, STDOUT_FILENO);
    clearerr(stdout);
    close(keep);
    fclose(full);
    free(zero);
    assert_int_equal(s, DIL_EIO);
    assert_non_null(strstr(err.text, "No space left"));
}

/* --- lies ------------------------------------------------------------------------------------------------------------ */

static void valid_file(dil_buf *b)
{
    header(b, 3, 2, 3);
    kv_u32(b, "general.alignment", 32);
    text(b, "words"); u32(b, DIL_GGUF_ARRAY); u32(b, DIL_GGUF_STRING); u64(b, 2); text(b, "x"); text(b, "yz");
    text(b, "name"); u32(b, DIL_GGUF_STRING); text(b, "value");
    tensor(b, "a", 8, 1, DIL_TYPE_F32, 0);
    tensor(b, "b", 32, 2, DIL_TYPE_Q4_0, 32);
    data(b, 32, 32 + 36);
}

static void a_file_cut_anywhere_is_refused(void **state)
{
    (void)state;
    dil_buf b;
    valid_file(&b);
    dil_err err;
    assert_int_equal(open_copy(&b, b.len, false, &err), DIL_OK);
    for (size_t n = 0; n < b.len; n++) assert_int_equal(open_copy(&b, n, false, &err), DIL_EFORMAT);
    dil_buf_fini(&b);
}

static void a_file_with_flipped_bits_never_reads_out_of_bounds(void **state)
{
    (void)state;
    dil_buf b;
    valid_file(&b);
    dil_rng r;
    dil_rng_init(&r, 1);
    for (int i = 0; i < 20000; i++) {
        size_t at[3];
        uint8_t was[3];
        for (int k = 0; k < 3; k++) {
            at[k] = (size_t)dil_rng_below(&r, b.len);
            was[k] = b.data[at[k]];
            b.data[at[k]] = (uint8_t)dil_rng_u64(&r);
        }
        dil_err err;
        open_copy(&b, b.len, i % 2, &err);
        for (int k = 2; k >= 0; k--) b.data[at[k]] = was[k];
    }
    dil_buf_fini(&b);
}

static void versions_that_we_do_not_read_are_named(void **state)
{
    (void)state;
    dil_buf b;
    header(&b, 1, 0, 0);
    refuse(&b, DIL_EUNSUPPORTED, "version 1");
    header(&b, 4, 0, 0);
    refuse(&b, DIL_EUNSUPPORTED, "version 4");
    header(&b, 0x03000000, 0, 0);
    refuse(&b, DIL_EUNSUPPORTED, "big-endian");
    header(&b, 3, 0, 0);
    b.data[0] = 'X';
    refuse(&b, DIL_EFORMAT, "not a GGUF file");
}

static void counts_beyond_the_bytes_at_hand_are_refused(void **state)
{
    (void)state;
    dil_buf b;
    header(&b, 3, 0, 5);
    refuse(&b, DIL_EFORMAT, "5 metadata pairs cannot fit");
    header(&b, 3, 0, UINT64_MAX);
    refuse(&b, DIL_ELIMIT, "metadata pairs");
    header(&b, 3, 3, 0);
    refuse(&b, DIL_EFORMAT, "3 tensors cannot fit");
    header(&b, 3, UINT64_MAX, 0);
    refuse(&b, DIL_ELIMIT, "tensors, the limit is");
    header(&b, 3, 0, 1);
    u64(&b, UINT64_MAX - 3); u64(&b, 0);
    refuse(&b, DIL_EFORMAT, "truncated");
    header(&b, 3, 0, 1);
    text(&b, "k"); u32(&b, DIL_GGUF_ARRAY); u32(&b, DIL_GGUF_U64); u64(&b, 1ull << 61);
    refuse(&b, DIL_EFORMAT, "k: an array of 2305843009213693952");
    header(&b, 3, 0, 1);
    text(&b, "k"); u32(&b, DIL_GGUF_ARRAY); u32(&b, DIL_GGUF_STRING); u64(&b, 1ull << 40);
    refuse(&b, DIL_EFORMAT, "1099511627776 strings");
}

static void broken_metadata_is_named(void **state)
{
    (void)state;
    dil_buf b;
    header(&b, 3, 0, 1);
    text(&b, "k"); u32(&b, DIL_GGUF_ARRAY); u32(&b, DIL_GGUF_ARRAY); u64(&b, 1);
    refuse(&b, DIL_EUNSUPPORTED, "arrays of arrays");
    header(&b, 3, 0, 1);
    text(&b, "k"); u32(&b, 13); u32(&b, 0);
    refuse(&b, DIL_EFORMAT, "k: unknown kind of value 13");
    header(&b, 3, 0, 1);
    text(&b, "flag"); u32(&b, DIL_GGUF_BOOL); u8(&b, 2);
    refuse(&b, DIL_EFORMAT, "flag: a boolean with the value 2");
    header(&b, 3, 0, 2);
    kv_u32(&b, "same", 1); kv_u32(&b, "same", 2);
    refuse(&b, DIL_EFORMAT, "same appears twice");
    header(&b, 3, 0, 1);
    kv_u32(&b, "", 1); u64(&b, 0);
    refuse(&b, DIL_EFORMAT, "empty metadata key");
    header(&b, 3, 0, 1);
    u64(&b, 3); dil_buf_append(&b, "a\0b", 3); u32(&b, DIL_GGUF_U32); u32(&b, 1);
    refuse(&b, DIL_EFORMAT, "zero byte");
    uint32_t bad[] = {0, 1, 4, 33, 1u << 30};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        header(&b, 3, 0, 1);
        kv_u32(&b, "general.alignment", bad[i]);
        refuse(&b, DIL_EFORMAT, "general.alignment is");
    }
    header(&b, 3, 0, 1);
    text(&b, "general.alignment"); u32(&b, DIL_GGUF_STRING); text(&b, "32");
    refuse(&b, DIL_EFORMAT, "general.alignment is not an integer");
}

static void one_tensor(dil_buf *b, uint64_t ne0, uint64_t ne1, uint32_t type, uint64_t offset)
{
    header(b, 3, 1, 0);
    tensor(b, "w", ne0, ne1, type, offset);
    data(b, 32, 256);
}

static void tensors_that_lie_about_their_shape_are_refused(void **state)
{
    (void)state;
    dil_buf b;
    one_tensor(&b, 0, 1, DIL_TYPE_F32, 0);
    refuse(&b, DIL_EFORMAT, "w: dimension 0 is 0");
    one_tensor(&b, 1ull << 33, 1ull << 33, DIL_TYPE_F32, 0);
    refuse(&b, DIL_EFORMAT, "w: too many elements");
    one_tensor(&b, 1ull << 31, 1ull << 31, DIL_TYPE_F32, 0);
    refuse(&b, DIL_EFORMAT, "w: its size overflows");
    one_tensor(&b, 33, 1, DIL_TYPE_Q4_0, 0);
    refuse(&b, DIL_EFORMAT, "w: rows of 33 elements do not divide into blocks of 32 (Q4_0)");
    one_tensor(&b, 32, 1, 4, 0);
    refuse(&b, DIL_EUNSUPPORTED, "unknown tensor type 4");
    one_tensor(&b, 32, 1, 0xffffffff, 0);
    refuse(&b, DIL_EUNSUPPORTED, "unknown tensor type 4294967295");
    uint32_t dims[] = {0, 5, 1u << 31};
    for (size_t i = 0; i < 3; i++) {
        header(&b, 3, 1, 0);
        text(&b, "w"); u32(&b, dims[i]);
        for (int k = 0; k < 16; k++) u64(&b, 1);
        refuse(&b, DIL_EFORMAT, "dimensions, expected 1 to 4");
    }
    header(&b, 3, 1, 0);
    tensor(&b, "a-name-that-is-longer-than-the-sixty-three-bytes-that-ggml-allows-for-one", 1, 1, 0, 0);
    refuse(&b, DIL_EFORMAT, "the name of tensor 0 has 73 bytes");
    header(&b, 3, 1, 0);
    tensor(&b, "", 1, 1, 0, 0);
    refuse(&b, DIL_EFORMAT, "the name of tensor 0 has 0 bytes");
}

static void tensors_that_lie_about_their_place_are_refused(void **state)
{
    (void)state;
    dil_buf b;
    one_tensor(&b, 32, 1, DIL_TYPE_F32, 16);
    refuse(&b, DIL_EFORMAT, "w: offset 16 is not a multiple of the alignment 32");
    one_tensor(&b, 32, 1, DIL_TYPE_F32, UINT64_MAX - 31);
    refuse(&b, DIL_EFORMAT, "w: offset 18446744073709551584 plus 128 bytes overflows");
    one_tensor(&b, 32, 1, DIL_TYPE_F32, UINT64_MAX - 255);
    refuse(&b, DIL_EFORMAT, "w: ends at byte");
    one_tensor(&b, 65, 1, DIL_TYPE_F32, 0);
    refuse(&b, DIL_EFORMAT, "of a file of 352 bytes");
    header(&b, 3, 2, 0);
    tensor(&b, "late", 32, 1, DIL_TYPE_F32, 96);
    tensor(&b, "early", 32, 1, DIL_TYPE_F32, 0);
    data(&b, 32, 256);
    refuse(&b, DIL_EFORMAT, "late begins at 96, within early (0 to 128)");
    header(&b, 3, 2, 0);
    tensor(&b, "w", 8, 1, DIL_TYPE_F32, 0);
    tensor(&b, "w", 8, 1, DIL_TYPE_F32, 32);
    data(&b, 32, 64);
    refuse(&b, DIL_EFORMAT, "tensor w appears twice");
}

/* The most that the limits allow: names that differ in their last bytes only. It must take a fraction of a second. */
static void many_tensors_open_fast(void **state)
{
    (void)state;
    dil_buf b;
    dil_buf_init(&b, 64 << 20);
    dil_buf_append(&b, "GGUF", 4);
    u32(&b, 3); u64(&b, DIL_GGUF_TENSORS_MAX); u64(&b, 0);
    for (unsigned i = 0; i < DIL_GGUF_TENSORS_MAX; i++) {
        char name[64];
        snprintf(name, sizeof name, "a-long-common-beginning-of-all-the-names-in-here-%08u", i);
        tensor(&b, name, 1, 1, DIL_TYPE_F32, (uint64_t)(DIL_GGUF_TENSORS_MAX - 1 - i) * 32);
    }
    data(&b, 32, DIL_GGUF_TENSORS_MAX * 32u);
    assert_false(b.failed);
    dil_err err;
    int64_t start = dil_now_ns();
    assert_int_equal(open_copy(&b, b.len, false, &err), DIL_OK);
    assert_true(dil_now_ns() - start < 10000000000);
    dil_buf_fini(&b);
}

static void missing_files_and_folders_are_told_apart(void **state)
{
    (void)state;
    dil_gguf *g;
    dil_err err;
    assert_int_equal(dil_gguf_open(in_dir("absent.gguf"), &g, &err), DIL_ENOTFOUND);
    assert_int_equal(dil_gguf_open(dir, &g, &err), DIL_EFORMAT);
    dil_file_write(in_dir("empty.gguf"), "", 0, NULL);
    assert_int_equal(dil_gguf_open(in_dir("empty.gguf"), &g, &err), DIL_EFORMAT);
    assert_non_null(strstr(err.text, "empty.gguf: not a GGUF file (0 bytes"));
}

static int make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/dilemma-gguf-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    char command[96];
    snprintf(command, sizeof command, "rm -r %s", dir);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_written_file_reads_back_equal),
        cmocka_unit_test(metadata_is_copied_from_file_to_file),
        cmocka_unit_test(a_file_that_was_not_finished_leaves_nothing),
        cmocka_unit_test(the_writer_refuses_what_the_reader_would),
        cmocka_unit_test(a_full_disk_is_an_io_error),
        cmocka_unit_test(a_file_cut_anywhere_is_refused),
        cmocka_unit_test(a_file_with_flipped_bits_never_reads_out_of_bounds),
        cmocka_unit_test(versions_that_we_do_not_read_are_named),
        cmocka_unit_test(counts_beyond_the_bytes_at_hand_are_refused),
        cmocka_unit_test(broken_metadata_is_named),
        cmocka_unit_test(tensors_that_lie_about_their_shape_are_refused),
        cmocka_unit_test(tensors_that_lie_about_their_place_are_refused),
        cmocka_unit_test(many_tensors_open_fast),
        cmocka_unit_test(missing_files_and_folders_are_told_apart),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
