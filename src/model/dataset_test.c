/* Data sets and SQuAD's scores. Against the official normalisation on many answers: tests/dataset_test.py, which runs this program as
 *   model.dataset_test --score RECORDS     or     --load FILE FORMAT */
#include <dilemma/dataset.h>

#include "base/json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void expect_loads(const char *text, dil_data_format format, dil_dataset *out)
{
    dil_err err;
    if (dil_dataset_parse("d", text, strlen(text), format, out, &err) != DIL_OK) fail_msg("%s", err.text);
}

static void expect_fails(const char *text, dil_data_format format, dil_status code, const char *says)
{
    dil_dataset d;
    dil_err err;
    assert_int_equal(dil_dataset_parse("d", text, strlen(text), format, &d, &err), code);
    if (!strstr(err.text, says)) fail_msg("\"%s\" does not say \"%s\"", err.text, says);
}

#define SQUAD(qas) "{\"version\": \"1.1\", \"data\": [{\"title\": \"t\", \"paragraphs\": [{\"context\": \"The sky is blue.\", \"qas\": [" qas "]}]}]}"

static void squad_becomes_prompts_and_completions(void **state)
{
    (void)state;
    dil_dataset d;
    expect_loads(SQUAD("{\"id\": \"q1\", \"question\": \"Colour?\", \"answers\": [{\"text\": \"blue\", \"answer_start\": 11}, {\"text\": \"Blue.\"}]},"
                       "{\"id\": \"q2\", \"question\": \"Why?\", \"is_impossible\": true, \"answers\": [], \"plausible_answers\": [{\"text\": \"x\"}]}"),
                 DIL_DATA_AUTO, &d);
    assert_int_equal(d.format, DIL_DATA_SQUAD);
    assert_int_equal(d.n_samples, 2);
    const dil_sample *s = d.samples;
    assert_string_equal(s[0].id, "q1");
    assert_string_equal(s[0].prompt, "Context: The sky is blue.\nQuestion: Colour?\nAnswer:");
    assert_int_equal(s[0].prompt_len, strlen(s[0].prompt));
    assert_string_equal(s[0].completion, " blue");
    assert_int_equal(s[0].completion_len, 5);
    assert_int_equal(s[0].n_answers, 2);
    assert_string_equal(s[0].answers[1], "Blue.");
    assert_string_equal(s[1].question, "Why?");
    assert_int_equal(s[1].n_answers, 0);
    assert_int_equal(s[1].completion_len, 0);
    dil_dataset_fini(&d);
}

static void squad_errors_name_the_place(void **state)
{
    (void)state;
    expect_fails(SQUAD("{\"id\": \"q\", \"answers\": []}"), DIL_DATA_AUTO, DIL_EFORMAT, "d: data[0].paragraphs[0].qas[0]: \"question\" is missing");
    expect_fails(SQUAD("{\"question\": \"?\", \"answers\": [{\"text\": 5}]}"), DIL_DATA_AUTO, DIL_EFORMAT, "qas[0].answers[0]: \"text\" is a number");
    expect_fails(SQUAD("7"), DIL_DATA_AUTO, DIL_EFORMAT, "qas[0] is not an object");
    expect_fails(SQUAD("{\"question\": \"?\"}"), DIL_DATA_AUTO, DIL_EFORMAT, "\"answers\" is missing");
    expect_fails(SQUAD(""), DIL_DATA_AUTO, DIL_EDATA, "no sample");
    expect_fails("{\"data\": 3}", DIL_DATA_AUTO, DIL_EFORMAT, "\"data\" is a number");
    expect_fails("{\"data\": [", DIL_DATA_AUTO, DIL_EFORMAT, "d: line 1");
    expect_fails("{\"data\": [4]}", DIL_DATA_AUTO, DIL_EFORMAT, "data[0] is not an object");
    expect_fails("[{\"text\": \"x\"}]", DIL_DATA_AUTO, DIL_EFORMAT, "JSON list");
    expect_fails("[]", DIL_DATA_SQUAD, DIL_EFORMAT, "is not an object");
    char *long_context = malloc((1 << 20) + 200);
    int n = snprintf(long_context, 200, "{\"data\": [{\"paragraphs\": [{\"context\": \"");
    memset(long_context + n, 'x', (1 << 20) + 1);
    strcpy(long_context + n + (1 << 20) + 1, "\", \"qas\": []}]}]}");
    expect_fails(long_context, DIL_DATA_SQUAD, DIL_ELIMIT, "\"context\" has 1048577 bytes, at most 1048576");
    free(long_context);
}

static void json_lines_of_both_kinds(void **state)
{
    (void)state;
    dil_dataset d;
    expect_loads("\xEF\xBB\xBF{\"text\": \"one\"}\r\n\n  {\"prompt\": \"p\", \"completion\": \" c\"}\n", DIL_DATA_AUTO, &d);
    assert_int_equal(d.format, DIL_DATA_JSONL);
    assert_int_equal(d.n_samples, 2);
    assert_string_equal(d.samples[0].prompt, "one");
    assert_int_equal(d.samples[0].completion_len, 0);
    assert_null(d.samples[0].question);
    assert_string_equal(d.samples[1].completion, " c");
    dil_dataset_fini(&d);
    expect_fails("{\"text\": \"a\"}\n\n{\"texd\": \"b\"}\n", DIL_DATA_AUTO, DIL_EFORMAT, "d: line 3: neither");
    expect_fails("{\"text\": \"a\"}\n{\"text\": \n", DIL_DATA_JSONL, DIL_EFORMAT, "d: line 2, column");
    expect_fails("{\"text\": \"\"}\n", DIL_DATA_JSONL, DIL_EFORMAT, "\"text\" is empty");
    expect_fails("{\"prompt\": \"a\"}\n", DIL_DATA_AUTO, DIL_EFORMAT, "\"completion\" is missing");
    expect_fails("{\"prompt\": \"a\", \"completion\": \"\"}\n", DIL_DATA_AUTO, DIL_EFORMAT, "\"completion\" is empty");
    expect_fails("[3]\n", DIL_DATA_JSONL, DIL_EFORMAT, "line 1 is not a JSON object");
    expect_fails("{\"text\": \"a\\u0000b\"}\n", DIL_DATA_JSONL, DIL_EFORMAT, "line 1, column");
}

static void text_is_one_sample(void **state)
{
    (void)state;
    dil_dataset d;
    static const char text[] = " = A title = \n[x] {\"text\"} \xFF\n";
    expect_loads(text, DIL_DATA_AUTO, &d);
    assert_int_equal(d.format, DIL_DATA_TEXT);
    assert_int_equal(d.n_samples, 1);
    assert_int_equal(d.samples[0].prompt_len, sizeof text - 1);
    assert_memory_equal(d.samples[0].prompt, text, sizeof text - 1);
    dil_dataset_fini(&d);
    expect_fails(" \n", DIL_DATA_AUTO, DIL_EDATA, "empty");
    expect_fails("", DIL_DATA_TEXT, DIL_EDATA, "empty");
    dil_err err;
    assert_int_equal(dil_dataset_load("/nonexistent/x", DIL_DATA_AUTO, &d, &err), DIL_ENOTFOUND);
    dil_data_format f;
    assert_true(dil_data_format_from_name("jsonl", &f) && f == DIL_DATA_JSONL);
    assert_false(dil_data_format_from_name("csv", &f));
}

/* Code points, as SQuAD counts, to bytes. */
static const char *code_point_at(const char *s, int64_t n)
{
    for (; n > 0 && *s; n--) {
        do s++;
        while (((unsigned char)*s & 0xC0) == 0x80);
    }
    return s;
}

static void the_embedded_set_is_sound(void **state)
{
    (void)state;
    extern const unsigned char dil__default_data[];
    extern const size_t dil__default_data_len;
    dil_dataset d;
    dil_err err;
    if (dil_dataset_load(NULL, DIL_DATA_AUTO, &d, &err) != DIL_OK) fail_msg("%s", err.text);
    size_t k = 0, n_paragraphs = 0, i, j, m;
    json_t *doc = NULL, *article, *paragraph, *qa;
    assert_int_equal(dil__json_parse("d", (const char *)dil__default_data, dil__default_data_len, &doc, &err), DIL_OK);
    json_array_foreach(json_object_get(doc, "data"), i, article) {
        json_array_foreach(json_object_get(article, "paragraphs"), j, paragraph) {
            const char *context = json_string_value(json_object_get(paragraph, "context"));
            assert_in_range(strlen(context), 300, 950);
            n_paragraphs++;
            json_array_foreach(json_object_get(paragraph, "qas"), m, qa) {
                json_t *answer = json_array_get(json_object_get(qa, "answers"), 0);
                const char *text = json_string_value(json_object_get(answer, "text"));
                const char *span = code_point_at(context, json_integer_value(json_object_get(answer, "answer_start")));
                if (strncmp(span, text, strlen(text)) != 0) fail_msg("%s: \"%s\" is not at its place", d.samples[k].id, text);
                assert_string_equal(d.samples[k].answers[0], text);
                assert_string_equal(d.samples[k].context, context);
                k++;
            }
        }
    }
    assert_int_equal(k, d.n_samples);
    assert_true(n_paragraphs >= 60 && k >= 180);
    json_decref(doc);
    dil_dataset_fini(&d);
}

static void scores_follow_the_official_rules(void **state)
{
    (void)state;
    static const char *const gold[] = {"the Eiffel Tower", "Eiffel"};
    assert_float_equal(dil_squad_exact("  The eiffel tower! ", gold, 2), 1, 0);
    assert_float_equal(dil_squad_exact("tower", gold, 2), 0, 0);
    assert_float_equal(dil_squad_f1("eiffel tower in Paris", gold, 1), 2 * (0.5 * 1) / 1.5, 1e-12);
    assert_float_equal(dil_squad_f1("tower tower", gold, 1), 0.5, 1e-12); /* counted once */
    assert_float_equal(dil_squad_f1("", gold, 2), 0, 0);
    assert_float_equal(dil_squad_exact("The.", NULL, 0), 1, 0);
    assert_float_equal(dil_squad_f1("word", NULL, 0), 0, 0);
    static const char *const article[] = {"a", "x"};
    assert_float_equal(dil_squad_exact("", article, 2), 0, 0);
    assert_float_equal(dil_squad_exact("an", article, 1), 1, 0);
    static const char *const bytes[] = {"a\xFF"};
    assert_float_equal(dil_squad_exact("A\xFE", bytes, 1), 1, 0);
}

/* --- the other side of tests/dataset_test.py -------------------------------------------------------------------------------------- */

/* RECORDS: prediction NUL n_answers (one byte) then n times answer NUL. One line of "exact f1" each. */
static int print_scores(const char *path)
{
    dil_buf b;
    dil_err err;
    dil_buf_init(&b, 256 << 20);
    dil_status s = dil_file_read(path, &b, &err);
    const char *p = dil_buf_str(&b), *end = p + b.len;
    while (s == DIL_OK && p < end) {
        const char *prediction = p, *answers[256];
        p += strlen(p) + 1;
        size_t n = (unsigned char)*p++;
        for (size_t i = 0; i < n; i++) {
            answers[i] = p;
            p += strlen(p) + 1;
        }
        printf("%.17g %.17g\n", dil_squad_exact(prediction, answers, n), dil_squad_f1(prediction, answers, n));
    }
    dil_buf_fini(&b);
    return dil_status_exit(s);
}

static void print_hex(const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++) printf("%02x", (unsigned char)s[i]);
    putchar(' ');
}

static int print_samples(const char *path, const char *format)
{
    dil_data_format f;
    dil_dataset d;
    dil_err err;
    if (!dil_data_format_from_name(format, &f)) return 2;
    dil_status s = dil_dataset_load(path[0] ? path : NULL, f, &d, &err);
    if (s != DIL_OK) {
        puts(err.text);
        return dil_status_exit(s);
    }
    for (size_t i = 0; i < d.n_samples; i++) {
        const dil_sample *x = &d.samples[i];
        print_hex(x->prompt, x->prompt_len);
        print_hex(x->completion, x->completion_len);
        for (size_t k = 0; k < x->n_answers; k++) print_hex(x->answers[k], strlen(x->answers[k]));
        printf("%s\n", x->id);
    }
    dil_dataset_fini(&d);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--score") == 0) return print_scores(argv[2]);
    if (argc == 4 && strcmp(argv[1], "--load") == 0) return print_samples(argv[2], argv[3]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(squad_becomes_prompts_and_completions),
        cmocka_unit_test(squad_errors_name_the_place),
        cmocka_unit_test(json_lines_of_both_kinds),
        cmocka_unit_test(text_is_one_sample),
        cmocka_unit_test(the_embedded_set_is_sound),
        cmocka_unit_test(scores_follow_the_official_rules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
