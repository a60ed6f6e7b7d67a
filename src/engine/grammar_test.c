/* Grammars against what they mean: valid documents are let through token by token, whatever the cut into tokens, invalid ones are not; what a
 * sampler draws blindly is valid; equal seeds give equal texts; a schema beyond the subset is refused by name. */
#include "engine/grammar.h"

#include "base/json.h"
#include "model/tokenizer_impl.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* Every byte, and pieces that end in the middle of what JSON is made of. */
static const char *const pieces[] = {"{\"", "\":", "\": ", "\",\"", "\", \"", "true", "false", "null", "},{", "]}", "}}", "\"}", "12", "123", "-1", ".5", "e+", "name",
                                     "age", "\xC3\xA4", "\xE6\x97\xA5", "\xE6\x97", "\\u00", "\\n", "  ", "    ", " \"", "[[", "]]", "\"a", "red\"", "re", "\xF0\x9F\x98\x80"};
enum { N_PIECES = sizeof pieces / sizeof *pieces, N_VOCAB = 256 + N_PIECES + 2, EOS = N_VOCAB - 1 };

static dil_tokenizer *tok;
static dil_grammar_vocab *vocab;

static size_t spell(const char *s, size_t n, char *out)
{
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        uint8_t b = (uint8_t)s[i];
        bool itself = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
        uint32_t cp = itself ? b : b <= 0x20 ? 0x100u + b : b <= 0xA0 ? 0x100u + 33 + b - 0x7F : 0x100u + 67;
        if (cp < 0x80) out[k++] = (char)cp;
        else out[k++] = (char)(0xC0 | cp >> 6), out[k++] = (char)(0x80 | (cp & 0x3F));
    }
    return k;
}

static int open_vocab(void **state)
{
    static char text[N_VOCAB][64];
    static dil__str tokens[N_VOCAB];
    static int32_t types[N_VOCAB];
    (void)state;
    for (int i = 0; i < N_VOCAB; i++) {
        char byte = (char)i;
        const char *s = i < 256 ? &byte : i < 256 + N_PIECES ? pieces[i - 256] : i == EOS ? "</s>" : "<s>";
        bool special = i >= 256 + N_PIECES;
        size_t n = i < 256 ? 1 : strlen(s);
        tokens[i] = (dil__str){text[i], special ? n : spell(s, n, text[i])};
        if (special) memcpy(text[i], s, n);
        types[i] = special ? DIL__TOKEN_CONTROL : DIL__TOKEN_NORMAL;
    }
    dil__tokenizer_src src = {.vocab = {.tokens = tokens, .types = types, .n_tokens = N_VOCAB}, .pre = {"gpt-2", 5}, .bos = EOS - 1, .eos = EOS, .eot = -1, .eom = -1};
    dil_err err = {0};
    if (dil__tokenizer_build(&src, &tok, &err) != DIL_OK || dil_grammar_vocab_new(tok, &vocab, &err) != DIL_OK) fail_msg("%s", err.text);
    return 0;
}

static int close_vocab(void **state)
{
    (void)state;
    dil_grammar_vocab_free(vocab);
    dil_tokenizer_free(tok);
    return 0;
}

static dil_grammar *compile(const char *schema)
{
    dil_grammar *g;
    dil_err err = {0};
    if (dil_grammar_json(vocab, schema, schema ? strlen(schema) : 0, &g, &err) != DIL_OK) fail_msg("%s: %s", schema, err.text);
    return g;
}

/* Whether the text passes, cut into tokens at random. */
static bool passes(const dil_grammar *g, const char *text, dil_rng *rng)
{
    float logits[N_VOCAB];
    dil__grammar_run *r = dil__grammar_run_new(g);
    bool ok = true;
    for (size_t at = 0, n = strlen(text); ok && at < n;) {
        int32_t id = (uint8_t)text[at];
        size_t len = 1;
        for (int i = 0; i < N_PIECES; i++) {
            size_t m = strlen(pieces[i]);
            if (n - at < m || memcmp(text + at, pieces[i], m) != 0 || dil_rng_below(rng, 2)) continue;
            id = 256 + i;
            len = m;
        }
        memset(logits, 0, sizeof logits);
        dil__grammar_run_mask(r, logits, N_VOCAB);
        ok = !isinf(logits[id]);
        dil__grammar_run_accept(r, id);
        at += len;
    }
    if (ok) {
        memset(logits, 0, sizeof logits);
        dil__grammar_run_mask(r, logits, N_VOCAB);
        ok = !isinf(logits[EOS]);
    }
    dil__grammar_run_free(r);
    return ok;
}

#define PERSON "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\",\"minLength\":1,\"maxLength\":5},\"age\":{\"type\":\"integer\"},\"tags\":" \
    "{\"type\":\"array\",\"items\":{\"enum\":[\"red\",\"re\",7,null]},\"maxItems\":3}},\"required\":[\"age\"],\"additionalProperties\":false}"
#define TREE "{\"$ref\":\"#/$defs/node\",\"$defs\":{\"node\":{\"type\":\"object\",\"properties\":{\"v\":{\"type\":[\"number\",\"boolean\"]},\"kids\":{\"type\":\"array\"," \
    "\"items\":{\"$ref\":\"#/$defs/node\"}}},\"required\":[\"v\",\"kids\"]}}}"

static const struct {
    const char *schema, *valid[8], *invalid[10];
} cases[] = {
    {NULL, {"{}", "{\"a\":1}", "{\"a\": [1, -2.5e+3, {\"b\":null}], \"c\":\"\xC3\xA4\\n\\u00e4\xE6\x97\xA5\xF0\x9F\x98\x80\"}", "{\n  \"a\":true}"},
     {"[]", "1", "{\"a\":01}", "{\"a\":1,}", "{a:1}", "{\"a\":\"\n\"}", "{\"a\":\"\\x\"}", "{\"a\":tru}", "{\"a\":\"\xC3\"}"}},
    {PERSON, {"{\"age\":3}", "{\"name\":\"x\",\"age\":-12}", "{\"name\":\"abcd\xC3\xA4\", \"age\":0, \"tags\":[\"red\",7, null]}", "{\"age\":1,\"tags\":[]}"},
     {"{}", "{\"name\":\"x\"}", "{\"name\":\"\",\"age\":1}", "{\"name\":\"abcdef\",\"age\":1}", "{\"age\":1.5}", "{\"age\":1,\"tags\":[\"red\",7,7,7]}",
      "{\"age\":1,\"more\":2}", "{\"tags\":[],\"age\":1}", "{\"age\":1,\"tags\":[\"r\"]}", "{\"age\":1,}"}},
    {TREE, {"{\"v\":1,\"kids\":[]}", "{\"v\":true,\"kids\":[{\"v\":0.5,\"kids\":[]},{\"v\":2,\"kids\":[{\"v\":-3,\"kids\":[]}]}]}"},
     {"{\"v\":1}", "{\"v\":\"1\",\"kids\":[]}", "{\"v\":1,\"kids\":[{}]}", "{\"v\":1,\"kids\":[{\"v\":1,\"kids\":[]},]}"}},
    {"{\"anyOf\":[{\"const\":{\"a\":1}},{\"type\":\"array\",\"items\":{\"type\":\"boolean\"},\"minItems\":2}]}", {"{\"a\":1}", "[true,false]", "[true, true,false]"},
     {"{\"a\":2}", "[true]", "[]", "{}"}},
    {"{\"type\":\"object\",\"additionalProperties\":{\"type\":\"integer\"}}", {"{}", "{\"x\":1,\"y\":2}"}, {"{\"x\":1.5}", "{\"x\":\"1\"}"}},
    {"{\"type\":\"object\",\"properties\":{\"a\":{},\"b\":{},\"c\":{}},\"required\":[\"b\"]}", {"{\"b\":1}", "{\"a\":1,\"b\":2}", "{\"b\":2,\"c\":[]}", "{\"a\":1,\"b\":2,\"c\":3}"},
     {"{\"a\":1}", "{\"c\":1}", "{\"a\":1,\"c\":1}", "{\"b\":1,\"a\":1}", "{,\"b\":1}"}},
    {"{\"type\":\"object\",\"properties\":{\"a\":{},\"b\":{}}}", {"{}", "{\"a\":1}", "{\"b\":1}", "{\"a\":1,\"b\":2}"}, {"{\"b\":1,\"b\":1}", "{,}"}},
};

static void valid_documents_pass_and_others_do_not(void **state)
{
    (void)state;
    dil_rng rng;
    dil_rng_init(&rng, 9);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        dil_grammar *g = compile(cases[i].schema);
        for (int k = 0; k < 8 * 20 && cases[i].valid[k / 20]; k++) {
            if (!passes(g, cases[i].valid[k / 20], &rng)) fail_msg("case %zu does not let %s through", i, cases[i].valid[k / 20]);
        }
        for (int k = 0; k < 10 * 20 && cases[i].invalid[k / 20]; k++) {
            if (passes(g, cases[i].invalid[k / 20], &rng)) fail_msg("case %zu lets %s through", i, cases[i].invalid[k / 20]);
        }
        dil_grammar_free(g);
    }
}

/* What comes out of a sampler that sees noise, drawn to its end. */
static bool draw(const dil_grammar *g, uint64_t seed, char *text, size_t cap)
{
    dil_sampler_opts o = {.temperature = 1, .top_p = 1, .repeat_penalty = 1, .seed = seed, .grammar = g};
    dil_sampler *s = dil_sampler_new(&o, N_VOCAB);
    dil_rng noise;
    dil_rng_init(&noise, seed);
    size_t used = 0;
    bool ended = false;
    for (int i = 0; i < 400 && !ended; i++) {
        float logits[N_VOCAB];
        size_t len;
        for (int k = 0; k < N_VOCAB; k++) logits[k] = (float)dil_rng_normal(&noise) * 2 + (k < 128 && strchr("}]\"", k) && k ? 4 : 0);
        logits[EOS] += 3;
        int32_t id = dil_sampler_pick(s, logits, NULL);
        dil_sampler_accept(s, id);
        ended = id == EOS;
        const char *bytes = dil_token_bytes(tok, id, &len);
        if (!ended && used + len < cap) memcpy(text + used, bytes, len), used += len;
    }
    text[used] = 0;
    dil_sampler_free(s);
    return ended;
}

static void what_is_drawn_is_json_and_the_same_for_a_seed(void **state)
{
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        dil_grammar *g = compile(cases[i].schema);
        int ended = 0;
        for (uint64_t seed = 1; seed <= 40; seed++) {
            char text[4096], again[4096];
            json_t *doc;
            dil_err err = {0};
            bool whole = draw(g, seed, text, sizeof text);
            draw(g, seed, again, sizeof again);
            assert_string_equal(text, again);
            if (!whole) continue;
            ended++;
            if (dil__json_parse("drawn", text, strlen(text), &doc, &err) != DIL_OK) fail_msg("seed %d: %s: %s", (int)seed, err.text, text);
            if (i == 1 && !json_is_integer(json_object_get(doc, "age"))) fail_msg("no age: %s", text);
            if (i == 2 && !json_is_array(json_object_get(doc, "kids"))) fail_msg("no kids: %s", text);
            json_decref(doc);
        }
        if (ended < 20) fail_msg("case %zu: %d of 40 ended", i, ended);
        dil_grammar_free(g);
    }
}

static void a_long_text_starts_the_automaton_over(void **state)
{
    (void)state;
    dil_grammar *g = compile(NULL);
    dil__grammar_run *r = dil__grammar_run_new(g);
    float logits[N_VOCAB] = {0};
    const char *open = "{\"a\":[[[[", *close = "]]]]}";
    for (const char *p = open; *p; p++) dil__grammar_run_accept(r, (uint8_t)*p);
    for (int i = 0; i < 60000; i++) {
        for (const char *p = i ? ",{\"k\":12}" : "{\"k\":12}"; *p; p++) dil__grammar_run_accept(r, (uint8_t)*p);
        if (i % 10000) continue;
        memset(logits, 0, sizeof logits);
        dil__grammar_run_mask(r, logits, N_VOCAB);
        assert_true(isinf(logits['}']) && !isinf(logits[',']) && !isinf(logits[']']));
    }
    for (const char *p = close; *p; p++) dil__grammar_run_accept(r, (uint8_t)*p);
    assert_true(dil__grammar_run_may_end(r));
    dil__grammar_run_free(r);
    dil_grammar_free(g);
}

static void what_is_not_understood_is_named(void **state)
{
    (void)state;
    static const struct { const char *schema; dil_status s; const char *says; } bad[] = {
        {"{", DIL_EFORMAT, "schema"},
        {"{\"type\":\"string\",\"pattern\":\"a+\"}", DIL_EUNSUPPORTED, "\"pattern\" is not supported"},
        {"{\"type\":\"object\",\"properties\":{\"x\":{\"oneOf\":[]}}}", DIL_EUNSUPPORTED, "/x: \"oneOf\" is not supported"},
        {"{\"type\":\"integer\",\"minimum\":3}", DIL_EUNSUPPORTED, "\"minimum\""},
        {"{\"type\":\"color\"}", DIL_EFORMAT, "an unknown type"},
        {"{\"$ref\":\"http://x/y\"}", DIL_EUNSUPPORTED, "not within the document"},
        {"{\"type\":\"array\",\"maxItems\":1000}", DIL_ELIMIT, "maxItems is 1000, the limit is 64"},
        {"{\"type\":\"object\",\"properties\":{\"a\":{}},\"required\":[\"b\"]}", DIL_EUNSUPPORTED, "required names"},
        {"{\"enum\":[]}", DIL_EFORMAT, "alternatives"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        dil_grammar *g;
        dil_err err = {0};
        dil_status s = dil_grammar_json(vocab, bad[i].schema, strlen(bad[i].schema), &g, &err);
        if (s != bad[i].s || !strstr(err.text, bad[i].says)) fail_msg("%s: %s: %s", bad[i].schema, dil_status_name(s), err.text);
    }
    /* Refers to itself without reading: nothing can be said, and it ends. */
    dil_grammar *g = compile("{\"anyOf\":[{\"$ref\":\"#\"},{\"$ref\":\"#\"}]}");
    float logits[N_VOCAB] = {0};
    dil__grammar_run *r = dil__grammar_run_new(g);
    dil__grammar_run_mask(r, logits, N_VOCAB);
    assert_true(!isinf(logits[EOS]) && isinf(logits['{']));
    dil__grammar_run_free(r);
    dil_grammar_free(g);
}

static void a_packed_vocabulary_is_the_same_and_every_cut_of_it_is_refused(void **state)
{
    (void)state;
    dil_buf b;
    dil_buf_init(&b, 1 << 20);
    dil_grammar_vocab *v;
    assert_true(dil__grammar_vocab_pack(vocab, &b));
    if (dil__grammar_vocab_unpack(b.data, b.len, N_VOCAB, &v, NULL) != DIL_OK) fail();
    assert_int_equal(v->n_text, vocab->n_text);
    assert_memory_equal(v->id, vocab->id, v->n_text * sizeof *v->id);
    assert_memory_equal(v->common, vocab->common, v->n_text * sizeof *v->common);
    assert_memory_equal(v->offset, vocab->offset, (v->n + 1) * sizeof *v->offset);
    assert_memory_equal(v->bytes, vocab->bytes, v->offset[v->n]);
    assert_memory_equal(v->ends, vocab->ends, v->n);
    dil_grammar_vocab_free(v);
    for (size_t n = 0; n < b.len; n++) assert_int_equal(dil__grammar_vocab_unpack(b.data, n, N_VOCAB, &v, NULL), DIL_EFORMAT);
    assert_int_equal(dil__grammar_vocab_unpack(b.data, b.len, N_VOCAB + 1, &v, NULL), DIL_EFORMAT);
    b.data[5] |= 0x7f; /* the first token's length */
    assert_int_equal(dil__grammar_vocab_unpack(b.data, b.len, N_VOCAB, &v, NULL), DIL_EFORMAT);
    dil_buf_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(valid_documents_pass_and_others_do_not),
        cmocka_unit_test(what_is_drawn_is_json_and_the_same_for_a_seed),
        cmocka_unit_test(a_long_text_starts_the_automaton_over),
        cmocka_unit_test(what_is_not_understood_is_named),
        cmocka_unit_test(a_packed_vocabulary_is_the_same_and_every_cut_of_it_is_refused),
    };
    return cmocka_run_group_tests(tests, open_vocab, close_vocab);
}
