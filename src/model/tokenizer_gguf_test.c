/* What a GGUF file must say about its tokenizer, and what is said where it does not. */
#include <dilemma/tokenizer.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

typedef struct file {
    const char *model, *pre, *arch;   /* NULL: the key is absent */
    bool no_tokens, no_merges, no_types, numeric_merges, float_types;
    size_t n_types;
    int bos, add_bos; /* -1: absent */
} file;

static const file good = {"gpt2", "gpt-2", "opt", .n_types = 5, .bos = 4, .add_bos = -1};
static const char *const tokens[] = {"a", "b", "ab", "\xC4\xA0", "</s>"};
static const int32_t types[] = {1, 1, 1, 1, 3, 1};
static const char *const merges[] = {"a b"};

static void must(dil_status s, const dil_err *err)
{
    if (s != DIL_OK) fail_msg("%s", err->text);
}

static dil_status load(const file *f, dil_tokenizer **t, dil_err *err)
{
    static const float numbers[] = {1, 1, 1, 1, 3};
    char path[] = "/tmp/dilemma-tokenizer-XXXXXX";
    close(mkstemp(path));
    dil_gguf_writer *w = NULL;
    dil_gguf *g = NULL;
    must(dil_gguf_writer_new(&w, err), err);
    if (f->arch) must(dil_gguf_put_str(w, "general.architecture", f->arch, err), err);
    if (f->model) must(dil_gguf_put_str(w, "tokenizer.ggml.model", f->model, err), err);
    if (f->pre) must(dil_gguf_put_str(w, "tokenizer.ggml.pre", f->pre, err), err);
    if (!f->no_tokens) must(dil_gguf_put_strs(w, "tokenizer.ggml.tokens", tokens, NULL, 5, err), err);
    if (f->float_types) must(dil_gguf_put_f32s(w, "tokenizer.ggml.token_type", numbers, 5, err), err);
    else if (!f->no_types) must(dil_gguf_put_i32s(w, "tokenizer.ggml.token_type", types, f->n_types, err), err);
    if (f->numeric_merges) must(dil_gguf_put_i32s(w, "tokenizer.ggml.merges", types, 2, err), err);
    else if (!f->no_merges) must(dil_gguf_put_strs(w, "tokenizer.ggml.merges", merges, NULL, 1, err), err);
    if (f->bos >= 0) must(dil_gguf_put_u32(w, "tokenizer.ggml.bos_token_id", (uint32_t)f->bos, err), err);
    if (f->add_bos >= 0) must(dil_gguf_put_bool(w, "tokenizer.ggml.add_bos_token", f->add_bos, err), err);
    must(dil_gguf_begin(w, path, err), err);
    must(dil_gguf_commit(w, err), err);
    dil_gguf_writer_free(w);
    must(dil_gguf_open(path, &g, err), err);
    dil_status s = dil_tokenizer_new(g, t, err);
    dil_gguf_close(g);
    unlink(path);
    return s;
}

static void expect_refused(file f, dil_status code, const char *says)
{
    dil_tokenizer *t = NULL;
    dil_err err;
    assert_int_equal(load(&f, &t, &err), code);
    if (!strstr(err.text, says)) fail_msg("\"%s\" does not say \"%s\"", err.text, says);
}

static void what_is_missing_or_of_another_kind_is_named(void **state)
{
    (void)state;
    file f = good;
    f.model = "rwkv";
    expect_refused(f, DIL_EUNSUPPORTED, "\"rwkv\"; known are gpt2");
    f.model = "llama";
    expect_refused(f, DIL_EFORMAT, "tokenizer.ggml.scores is missing");
    f = good, f.model = NULL;
    expect_refused(f, DIL_EFORMAT, "tokenizer.ggml.model is missing");
    f = good, f.pre = NULL;
    expect_refused(f, DIL_EFORMAT, "tokenizer.ggml.pre is missing");
    f = good, f.pre = "chameleon";
    expect_refused(f, DIL_EUNSUPPORTED, "\"chameleon\"; known are gpt-2, smollm, llama-bpe");
    f = good, f.no_tokens = true;
    expect_refused(f, DIL_EFORMAT, "tokenizer.ggml.tokens is missing");
    f = good, f.no_merges = true;
    expect_refused(f, DIL_EFORMAT, "tokenizer.ggml.merges is missing");
    f = good, f.numeric_merges = true;
    expect_refused(f, DIL_EFORMAT, "tokenizer.ggml.merges is not an array of strings");
    f = good, f.float_types = true;
    expect_refused(f, DIL_EFORMAT, "token_type is not an array of 32-bit integers");
    f = good, f.n_types = 6;
    expect_refused(f, DIL_EFORMAT, "token_type has 6 entries for 5 tokens");
    f = good, f.bos = 5;
    expect_refused(f, DIL_EFORMAT, "bos_token_id is 5");
}

static void expect_ids(const file *f, unsigned flags, const int32_t *want, size_t n)
{
    dil_tokenizer *t = NULL;
    dil_err err;
    dil_ids ids;
    must(load(f, &t, &err), &err);
    must(dil_tokenize(t, "ab a", 4, flags, &ids, &err), &err);
    assert_int_equal(ids.n, n);
    assert_memory_equal(ids.id, want, n * sizeof *want);
    dil_ids_fini(&ids);
    dil_tokenizer_free(t);
}

static void opt_begins_with_its_end_token_unless_told_otherwise(void **state)
{
    (void)state;
    static const int32_t ids[] = {4, 2, 3, 0};
    file f = good;
    expect_ids(&f, DIL_TOK_BOS, ids, 4);
    expect_ids(&f, 0, ids + 1, 3);
    f.add_bos = 0;
    expect_ids(&f, DIL_TOK_BOS, ids + 1, 3);
    f = good;
    f.arch = "llama";
    expect_ids(&f, DIL_TOK_BOS, ids + 1, 3);
    f.pre = "llama-bpe";
    expect_ids(&f, DIL_TOK_BOS, ids, 4);
    f.add_bos = 1;
    f.pre = "smollm";
    expect_ids(&f, DIL_TOK_BOS, ids, 4);
}

static void without_types_the_named_ids_are_special(void **state)
{
    (void)state;
    file f = good;
    f.no_types = true;
    dil_tokenizer *t = NULL;
    dil_err err;
    must(load(&f, &t, &err), &err);
    assert_true(dil_tokenizer_is_special(t, 4));
    assert_false(dil_tokenizer_is_special(t, 2));
    assert_null(dil_chat_template_name(t));
    dil_ids ids;
    const dil_chat_msg msg = {"user", "a", 1};
    assert_int_equal(dil_chat_tokenize(t, &msg, 1, &ids, &err), DIL_EUNSUPPORTED);
    dil_tokenizer_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_missing_or_of_another_kind_is_named),
        cmocka_unit_test(opt_begins_with_its_end_token_unless_told_otherwise),
        cmocka_unit_test(without_types_the_named_ids_are_special),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
