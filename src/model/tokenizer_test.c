/* labels: threads; needs: model */
/* The tokenizer against facts about known vocabularies, and against hostile ones. The comparison with the reference library's ids is
 * tests/tokenizer_test.py, which runs this program as   model.tokenizer_test --ids MODEL RECORDS   (see print_ids). */
#include "model/tokenizer_impl.h"

#include <dilemma/dataset.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

/* --- a vocabulary of our own: the 256 bytes in order, then what a few merges make, then added tokens ---------------------------- */

static size_t spell(uint8_t byte, char *out)
{
    bool itself = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    uint32_t cp = itself ? byte : byte <= 0x20 ? 0x100u + byte : byte <= 0xA0 ? 0x100u + 33 + byte - 0x7F : 0x100u + 67;
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    out[0] = (char)(0xC0 | cp >> 6);
    out[1] = (char)(0x80 | (cp & 0x3F));
    return 2;
}

enum { N_MERGES = 6, N_EXTRA = N_MERGES + 4, N_TOKENS = 256 + N_EXTRA };

static char byte_text[256][3];
static dil__str own_tokens[N_TOKENS];
static int32_t own_types[N_TOKENS];
static dil__str own_merges[N_MERGES];

static dil__str str(const char *s)
{
    return (dil__str){s, strlen(s)};
}

static dil__tokenizer_src own_source(void)
{
    static const char *const merges[N_MERGES] = {"a a", "aa aa", "h e", "l l", "he ll", "\xC4\xA0 a"};
    static const char *const extra[N_EXTRA] = {"aa", "aaaa", "he", "ll", "hell", "\304\240a", "<s>", "</s>", "<unk>", "[u]"};
    for (int i = 0; i < 256; i++) {
        size_t n = spell((uint8_t)i, byte_text[i]);
        own_tokens[i] = (dil__str){byte_text[i], n};
        own_types[i] = DIL__TOKEN_NORMAL;
    }
    for (int i = 0; i < N_EXTRA; i++) {
        own_tokens[256 + i] = str(extra[i]);
        own_types[256 + i] = i < N_MERGES ? DIL__TOKEN_NORMAL : i == N_EXTRA - 1 ? DIL__TOKEN_USER : DIL__TOKEN_CONTROL;
    }
    for (int i = 0; i < N_MERGES; i++) own_merges[i] = str(merges[i]);
    return (dil__tokenizer_src){.vocab = {own_tokens, own_types, N_TOKENS, own_merges, N_MERGES, NULL}, .pre = str("gpt-2"), .chat_template = str(""),
                                .bos = 262, .eos = 263, .eot = -1, .eom = -1, .add_bos = 0};
}

static dil_tokenizer *own_tokenizer(void)
{
    dil__tokenizer_src src = own_source();
    dil_tokenizer *t = NULL;
    dil_err err;
    if (dil__tokenizer_build(&src, &t, &err) != DIL_OK) fail_msg("%s", err.text);
    return t;
}

static void expect_ids(const dil_tokenizer *t, const char *text, size_t len, unsigned flags, const int32_t *want, size_t n)
{
    dil_ids ids;
    dil_err err;
    if (dil_tokenize(t, text, len, flags, &ids, &err) != DIL_OK) fail_msg("%s", err.text);
    assert_int_equal(ids.n, n);
    if (n) assert_memory_equal(ids.id, want, n * sizeof *want);
    dil_ids_fini(&ids);
}
#define EXPECT_IDS(t, text, flags, ...)                                                                      \
    do {                                                                                                     \
        const int32_t want_[] = {__VA_ARGS__};                                                               \
        expect_ids(t, text, sizeof(text) - 1, flags, want_, sizeof want_ / sizeof *want_);                   \
    } while (0)

static void expect_round_trip(const dil_tokenizer *t, const char *text, size_t len)
{
    dil_ids ids;
    dil_err err;
    dil_buf back;
    dil_buf_init(&back, len);
    if (dil_tokenize(t, text, len, 0, &ids, &err) != DIL_OK) fail_msg("%s", err.text);
    if (dil_detokenize(t, ids.id, ids.n, 0, &back, &err) != DIL_OK) fail_msg("%s", err.text);
    assert_int_equal(back.len, len);
    if (len) assert_memory_equal(back.data, text, len);
    dil_buf_fini(&back);
    dil_ids_fini(&ids);
}

static void merges_go_by_rank_then_from_the_left(void **state)
{
    (void)state;
    dil_tokenizer *t = own_tokenizer();
    EXPECT_IDS(t, "aaaaaaa", 0, 257, 256, 'a');
    EXPECT_IDS(t, "hello", 0, 260, 'o');
    EXPECT_IDS(t, "a aa", 0, 'a', ' ', 256); /* within " aa" the pair of rank 0 goes before the one that comes first */
    EXPECT_IDS(t, "a a", 0, 'a', 261);
    EXPECT_IDS(t, "!", 0, '!');
    expect_ids(t, "", 0, 0, NULL, 0);
    dil_tokenizer_free(t);
}

static void special_tokens_are_read_only_where_asked(void **state)
{
    (void)state;
    dil_tokenizer *t = own_tokenizer();
    EXPECT_IDS(t, "<s>a</s>", DIL_TOK_SPECIAL, 262, 'a', 263);
    EXPECT_IDS(t, "<s>a", 0, '<', 's', '>', 'a');
    EXPECT_IDS(t, "[u]<unk", DIL_TOK_SPECIAL, 265, '<', 'u', 'n', 'k');
    EXPECT_IDS(t, "a[u]", 0, 'a', 265); /* user-defined tokens are text of the model */
    assert_true(dil_tokenizer_is_special(t, 262));
    assert_false(dil_tokenizer_is_special(t, 265));
    assert_true(dil_tokenizer_is_eog(t, 263));
    assert_false(dil_tokenizer_is_eog(t, 262));
    assert_int_equal(dil_tokenizer_find(t, "<s>", 3), 262);
    assert_int_equal(dil_tokenizer_find(t, " a", 2), 261);
    assert_int_equal(dil_tokenizer_find(t, "<s", 2), -1);
    const int32_t ids[] = {262, 'a', 265, 263};
    dil_buf b;
    dil_buf_init(&b, 100);
    assert_int_equal(dil_detokenize(t, ids, 4, 0, &b, NULL), DIL_OK);
    assert_string_equal(dil_buf_str(&b), "a[u]");
    assert_int_equal(dil_detokenize(t, ids, 4, DIL_DETOK_SPECIAL, &b, NULL), DIL_OK);
    assert_string_equal(dil_buf_str(&b), "a[u]<s>a[u]</s>");
    dil_buf_fini(&b);
    dil_tokenizer_free(t);
}

static void any_bytes_round_trip(void **state)
{
    (void)state;
    dil_tokenizer *t = own_tokenizer();
    uint64_t seed = (uint64_t)dil_now_ns();
    print_message("seed %llu\n", (unsigned long long)seed);
    dil_rng r;
    dil_rng_init(&r, seed);
    char text[512];
    for (int i = 0; i < 2000; i++) {
        size_t n = (size_t)dil_rng_below(&r, sizeof text);
        for (size_t k = 0; k < n; k++) text[k] = (char)(i % 2 ? dil_rng_below(&r, 256) : 0xC0 + dil_rng_below(&r, 64));
        expect_round_trip(t, text, n);
    }
    static const char odd[] = "\xED\xA0\x80 \xF4\x90\x80\x80\xC0\xAF\xE2\x82 \xF0\x9F\x98\x80\x00\xFF";
    expect_round_trip(t, odd, sizeof odd - 1);
    dil_tokenizer_free(t);
}

static void long_words_take_n_log_n(void **state)
{
    (void)state;
    dil_tokenizer *t = own_tokenizer();
    double sec[2];
    for (int i = 0; i < 2; i++) {
        size_t n = (size_t)1 << (18 + 2 * i);
        char *text = malloc(n);
        memset(text, 'a', n);
        clock_t start = clock(); /* of this process: others on the machine do not count */
        dil_ids ids;
        assert_int_equal(dil_tokenize(t, text, n, 0, &ids, NULL), DIL_OK);
        sec[i] = (double)(clock() - start) / CLOCKS_PER_SEC;
        assert_int_equal(ids.n, n / 4);
        dil_ids_fini(&ids);
        memset(text, ' ', n); /* white space: the alternatives of the pre-tokenizer that look ahead */
        expect_round_trip(t, text, n);
        free(text);
    }
    print_message("256 KiB of one letter %.3f s, 1 MiB %.3f s\n", sec[0], sec[1]);
    assert_true(sec[1] < 12 * sec[0] + 0.05); /* quadratic would be 16 times */
    dil_tokenizer_free(t);
}

static void words_past_the_limit_are_cut_and_kept(void **state)
{
    (void)state;
    dil_tokenizer *t = own_tokenizer();
    size_t n = DIL__WORD_MAX + 5;
    char *text = malloc(n);
    memset(text, 'x', n);
    expect_round_trip(t, text, n);
    free(text);
    dil_err err;
    dil_ids ids;
    assert_int_equal(dil_tokenize(t, "", (size_t)DIL_TOK_TEXT_MAX + 1, 0, &ids, &err), DIL_ELIMIT);
    dil_tokenizer_free(t);
}

static void smollm_numbers_stand_alone(void **state)
{
    (void)state;
    dil__tokenizer_src src = own_source();
    src.pre = str("smollm");
    dil_tokenizer *t = NULL;
    assert_int_equal(dil__tokenizer_build(&src, &t, NULL), DIL_OK);
    EXPECT_IDS(t, "a 12", 0, 'a', ' ', '1', '2');
    dil_tokenizer_free(t);
}

static void llama3_takes_whole_words_that_are_tokens(void **state)
{
    (void)state;
    dil__tokenizer_src src = own_source();
    src.vocab.n_merges = 3; /* "hell" is now a token that no merge makes */
    src.pre = str("llama-bpe");
    src.add_bos = -1;
    dil_tokenizer *t = NULL;
    assert_int_equal(dil__tokenizer_build(&src, &t, NULL), DIL_OK);
    EXPECT_IDS(t, "hell", DIL_TOK_BOS, 262, 260);
    EXPECT_IDS(t, "hello", 0, 258, 'l', 'l', 'o');
    dil_tokenizer_free(t);
}

static void bytes_that_the_vocabulary_lacks_are_left_out(void **state)
{
    (void)state;
    dil__tokenizer_src src = own_source();
    own_types['z'] = DIL__TOKEN_UNUSED;
    dil_tokenizer *t = NULL;
    assert_int_equal(dil__tokenizer_build(&src, &t, NULL), DIL_OK);
    EXPECT_IDS(t, "azb", 0, 'a', 'b');
    dil_tokenizer_free(t);
}

/* --- vocabularies that do not fit together ---------------------------------------------------------------------------------------- */

static void expect_refused(const dil__tokenizer_src *src, dil_status code, const char *says)
{
    dil_tokenizer *t = NULL;
    dil_err err;
    assert_int_equal(dil__tokenizer_build(src, &t, &err), code);
    if (!strstr(err.text, says)) fail_msg("\"%s\" does not say \"%s\"", err.text, says);
}

static void broken_vocabularies_are_refused(void **state)
{
    (void)state;
    dil__tokenizer_src src = own_source();
    src.pre = str("qwen9");
    expect_refused(&src, DIL_EUNSUPPORTED, "qwen9");
    src = own_source();
    own_tokens[300 - 40] = str("he"); /* 258 too */
    expect_refused(&src, DIL_EFORMAT, "258 and 260");
    src = own_source();
    own_tokens[5] = str("\xE2\x82\xAC");
    expect_refused(&src, DIL_EFORMAT, "tokens[5]");
    src = own_source();
    own_tokens[5] = str("a\nb\x1b[31m");
    expect_refused(&src, DIL_EFORMAT, "tokens[5] (\"a\\x0Ab\\x1B[31m\")");
    src = own_source();
    own_tokens[6] = str("");
    expect_refused(&src, DIL_EFORMAT, "tokens[6] is empty");
    src = own_source();
    own_tokens[7] = str("\xC4");
    expect_refused(&src, DIL_EFORMAT, "tokens[7]");
    src = own_source();
    own_types[9] = 7;
    expect_refused(&src, DIL_EFORMAT, "token_type[9] is 7");
    src = own_source();
    own_tokens[264] = str("<s>");
    expect_refused(&src, DIL_EFORMAT, "262 and 264");
    src = own_source();
    src.vocab.n_tokens = 0;
    expect_refused(&src, DIL_EFORMAT, "empty");
    src = own_source();
    src.vocab.n_tokens = (size_t)DIL__VOCAB_MAX + 1;
    expect_refused(&src, DIL_ELIMIT, "at most");
    static const char *const merges[][2] = {{"ab", "merges[2]"}, {"a ", "merges[2]"}, {" ", "merges[2]"}, {"", "merges[2]"},
                                            {"a zz", "\"zz\" is not a token"}, {"a b", "makes no token"}, {"a a", "0 and 2"}, {"<s> a", "not a token"}};
    for (size_t i = 0; i < sizeof merges / sizeof *merges; i++) {
        src = own_source();
        own_merges[2] = str(merges[i][0]);
        expect_refused(&src, DIL_EFORMAT, merges[i][1]);
    }
    src = own_source();
    src.bos = N_TOKENS;
    expect_refused(&src, DIL_EFORMAT, "bos_token_id is 266");
    src = own_source();
    src.eos = -5;
    expect_refused(&src, DIL_EFORMAT, "eos_token_id is -5");
    src = own_source();
    src.bos = -1;
    src.add_bos = 1;
    expect_refused(&src, DIL_EFORMAT, "add_bos_token");
}

static void ids_outside_the_vocabulary_are_an_error(void **state)
{
    (void)state;
    dil_tokenizer *t = own_tokenizer();
    dil_buf b;
    dil_buf_init(&b, 3);
    const int32_t bad[] = {'a', N_TOKENS}, worse = -1, many[] = {257, 'a'};
    dil_err err;
    assert_int_equal(dil_detokenize(t, bad, 2, 0, &b, &err), DIL_EFORMAT);
    assert_int_equal(dil_detokenize(t, &worse, 1, 0, &b, &err), DIL_EFORMAT);
    assert_int_equal(dil_detokenize(t, many, 2, 0, &b, &err), DIL_ELIMIT);
    size_t len;
    assert_null(dil_token_bytes(t, -1, &len));
    assert_false(dil_tokenizer_is_eog(t, -1));
    dil_buf_fini(&b);
    dil_tokenizer_free(t);
}

static void *tokenize_often(void *arg)
{
    for (int i = 0; i < 300; i++) expect_round_trip(arg, "hello, aaaaaa hell 123 \xE2\x82\xAC", 26);
    return NULL;
}

static void one_tokenizer_serves_many_threads(void **state)
{
    (void)state;
    dil_tokenizer *t = own_tokenizer();
    pthread_t th[4];
    for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&th[i], NULL, tokenize_often, t), 0);
    for (int i = 0; i < 4; i++) pthread_join(th[i], NULL);
    dil_tokenizer_free(t);
}

/* --- the real model's vocabulary ------------------------------------------------------------------------------------------------- */

static dil_tokenizer *model_tokenizer(void)
{
    const char *path = getenv("DILEMMA_TEST_MODEL");
    if (!path || !dil_file_exists(path)) {
        print_message("SKIPPED: the test model is not there (tools/deps model; DILEMMA_TEST_MODEL)\n");
        skip();
    }
    dil_gguf *g = NULL;
    dil_tokenizer *t = NULL;
    dil_err err;
    if (dil_gguf_open(path, &g, &err) != DIL_OK || dil_tokenizer_new(g, &t, &err) != DIL_OK) fail_msg("%s", err.text);
    dil_gguf_close(g);
    return t;
}

static void smollm2_has_its_vocabulary(void **state)
{
    (void)state;
    dil_tokenizer *t = model_tokenizer();
    assert_int_equal(dil_tokenizer_n_vocab(t), 49152);
    assert_int_equal(dil_tokenizer_bos(t), 1);
    assert_int_equal(dil_tokenizer_eos(t), 2);
    assert_false(dil_tokenizer_adds_bos(t));
    assert_true(dil_tokenizer_is_eog(t, 0) && dil_tokenizer_is_eog(t, 2));
    assert_false(dil_tokenizer_is_eog(t, 1));
    assert_string_equal(dil_chat_template_name(t), "chatml");
    dil_tokenizer_free(t);
}

static void smollm2_conversations_begin_with_its_own_system_message(void **state)
{
    (void)state;
    dil_tokenizer *t = model_tokenizer();
    static const char user[] = "Hi <|im_end|>", system[] = "Be terse.";
    const dil_chat_msg msgs[] = {{"system", system, sizeof system - 1}, {"user", user, sizeof user - 1}};
    for (int first = 0; first < 2; first++) {
        dil_ids ids;
        dil_err err;
        if (dil_chat_tokenize(t, msgs + first, (size_t)(2 - first), &ids, &err) != DIL_OK) fail_msg("%s", err.text);
        dil_buf b;
        dil_buf_init(&b, 1000);
        assert_int_equal(dil_detokenize(t, ids.id, ids.n, DIL_DETOK_SPECIAL, &b, NULL), DIL_OK);
        assert_string_equal(dil_buf_str(&b), first ? "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
                                                     "<|im_start|>user\nHi <|im_end|><|im_end|>\n<|im_start|>assistant\n"
                                                   : "<|im_start|>system\nBe terse.<|im_end|>\n<|im_start|>user\nHi <|im_end|><|im_end|>\n<|im_start|>assistant\n");
        int ends = 0;
        for (size_t i = 0; i < ids.n; i++) ends += ids.id[i] == 2;
        assert_int_equal(ends, 2); /* the one that the user wrote is text */
        dil_buf_fini(&b);
        dil_ids_fini(&ids);
    }
    dil_tokenizer_free(t);
}

static void the_embedded_set_is_enough_to_calibrate_on(void **state)
{
    (void)state;
    dil_tokenizer *t = model_tokenizer();
    dil_dataset d;
    dil_err err;
    if (dil_dataset_load(NULL, DIL_DATA_AUTO, &d, &err) != DIL_OK) fail_msg("%s", err.text);
    size_t total = 0;
    for (size_t i = 0; i < d.n_samples; i++) {
        if (i > 0 && strcmp(d.samples[i].context, d.samples[i - 1].context) == 0) continue; /* each paragraph once */
        dil_ids ids;
        assert_int_equal(dil_tokenize(t, d.samples[i].context, strlen(d.samples[i].context), 0, &ids, NULL), DIL_OK);
        total += ids.n;
        dil_ids_fini(&ids);
    }
    print_message("%zu tokens in its paragraphs\n", total);
    assert_true(total >= 8000);
    dil_dataset_fini(&d);
    dil_tokenizer_free(t);
}

/* --- the other side of tests/tokenizer_test.py ---------------------------------------------------------------------------------- */

/* RECORDS holds one request after the other: a flag byte, a little-endian 32-bit length, that many bytes of text. Each gives one
 * line of ids. Flag bits are dil_tokenize's; 'C' is a conversation, its text role NUL content NUL role NUL content NUL ...; 'N' wants
 * the chat template's name. */
static dil_status answer(const dil_tokenizer *t, uint8_t flag, const char *s, size_t len, dil_err *err)
{
    dil_ids ids = {0};
    dil_status st;
    if (flag == 'N') {
        puts(dil_chat_template_name(t) ? dil_chat_template_name(t) : "-");
        return DIL_OK;
    }
    if (flag == 'C') {
        dil_chat_msg msgs[64];
        size_t n = 0;
        for (size_t at = 0; at < len && n < 64; n++) {
            const char *role = s + at, *content = role + strlen(role) + 1;
            msgs[n] = (dil_chat_msg){role, content, strlen(content)};
            at = (size_t)(content - s) + strlen(content) + 1;
        }
        st = dil_chat_tokenize(t, msgs, n, &ids, err);
    } else {
        st = dil_tokenize(t, s, len, flag, &ids, err);
        dil_buf back;
        dil_buf_init(&back, 4 * len + 1000);
        if (st == DIL_OK) st = dil_detokenize(t, ids.id, ids.n, DIL_DETOK_START | (flag & DIL_TOK_SPECIAL ? DIL_DETOK_SPECIAL : 0), &back, err);
        if (st == DIL_OK && (back.len != len || memcmp(dil_buf_str(&back), s, len) != 0)) fputs("! ", stdout);
        dil_buf_fini(&back);
    }
    for (size_t i = 0; i < ids.n; i++) printf("%d ", ids.id[i]);
    putchar('\n');
    if (st == DIL_OK) dil_ids_fini(&ids);
    return st;
}

static int print_ids(const char *model, const char *records)
{
    dil_gguf *g = NULL;
    dil_tokenizer *t = NULL;
    dil_err err = {0};
    dil_buf b;
    dil_buf_init(&b, 256 << 20);
    dil_status s = dil_gguf_open(model, &g, &err);
    if (s == DIL_OK) s = dil_tokenizer_new(g, &t, &err);
    if (s == DIL_OK) s = dil_file_read(records, &b, &err);
    const char *p = dil_buf_str(&b);
    int64_t start = dil_now_ns();
    for (size_t at = 0; s == DIL_OK && at + 5 <= b.len;) {
        uint32_t len;
        memcpy(&len, p + at + 1, 4);
        if (len > b.len - at - 5) break;
        s = answer(t, (uint8_t)p[at], p + at + 5, len, &err);
        at += 5 + (size_t)len;
    }
    fprintf(stderr, "%s (%.3f s)\n", s == DIL_OK ? "ok" : err.text, (double)(dil_now_ns() - start) * 1e-9);
    dil_buf_fini(&b);
    dil_tokenizer_free(t);
    dil_gguf_close(g);
    return dil_status_exit(s);
}

/* The form's hash of each template in a file, for the table in chat.c. */
static int print_form(const char *file)
{
    dil_buf text;
    dil_hash h;
    dil_err err;
    char hex[2 * DIL_HASH_BYTES + 1];
    dil_buf_init(&text, 1 << 20);
    if (dil_file_read(file, &text, &err) != DIL_OK) return 1;
    bool ok = dil__chat_form((const char *)text.data, text.len, &h);
    dil_hash_hex(&h, hex);
    printf("%s\n", ok ? hex : "no form");
    dil_buf_fini(&text);
    return ok ? 0 : 1;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--form") == 0) return print_form(argv[2]);
    if (argc == 4 && strcmp(argv[1], "--ids") == 0) return print_ids(argv[2], argv[3]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_go_by_rank_then_from_the_left),
        cmocka_unit_test(special_tokens_are_read_only_where_asked),
        cmocka_unit_test(any_bytes_round_trip),
        cmocka_unit_test(long_words_take_n_log_n),
        cmocka_unit_test(words_past_the_limit_are_cut_and_kept),
        cmocka_unit_test(smollm_numbers_stand_alone),
        cmocka_unit_test(llama3_takes_whole_words_that_are_tokens),
        cmocka_unit_test(bytes_that_the_vocabulary_lacks_are_left_out),
        cmocka_unit_test(broken_vocabularies_are_refused),
        cmocka_unit_test(ids_outside_the_vocabulary_are_an_error),
        cmocka_unit_test(one_tokenizer_serves_many_threads),
        cmocka_unit_test(smollm2_has_its_vocabulary),
        cmocka_unit_test(smollm2_conversations_begin_with_its_own_system_message),
        cmocka_unit_test(the_embedded_set_is_enough_to_calibrate_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
