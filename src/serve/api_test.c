/* What request bodies mean, and that what we cannot do is refused by the member's name. */
#include "serve/api.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static dil__api_req q;
static dil_err err;
static const char *param;

static dil_status parse(dil__api_form kind, const char *body)
{
    return dil__api_parse(kind, body, strlen(body), &q, &param, &err);
}

static void a_chat_request_is_read(void **state)
{
    (void)state;
    assert_int_equal(parse(DIL_API_OPENAI_CHAT, "{\"model\": \"m\", \"messages\": [{\"role\": \"developer\", \"content\": \"be brief\"},"
                           "{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"a\\u00e9\"}, {\"type\": \"text\", \"text\": \"b\"}]}],"
                           "\"max_completion_tokens\": 7, \"temperature\": 0.5, \"top_p\": 0.25, \"seed\": -3, \"stop\": [\"x\", \"yz\"],"
                           "\"stream\": true, \"stream_options\": {\"include_usage\": true}, \"n\": 1, \"user\": \"u\", \"logprobs\": false}"), DIL_OK);
    assert_string_equal(q.model, "m");
    assert_int_equal(q.n_msgs, 2);
    assert_string_equal(q.msgs[0].role, "system");
    assert_string_equal(q.msgs[1].content, "a\xc3\xa9" "b");
    assert_int_equal(q.msgs[1].content_len, 4);
    assert_int_equal(q.max_tokens, 7);
    assert_float_equal(q.sampler.temperature, 0.5, 0);
    assert_float_equal(q.sampler.top_p, 0.25, 0);
    assert_true(q.seeded && q.sampler.seed == (uint64_t)-3);
    assert_int_equal(q.n_stop, 2);
    assert_string_equal(q.stop[1], "yz");
    assert_true(q.stream && q.stream_usage);
    dil__api_req_fini(&q);
}

static void a_completion_takes_text_or_ids(void **state)
{
    (void)state;
    assert_int_equal(parse(DIL_API_OPENAI_COMPLETION, "{\"prompt\": \"hi\"}"), DIL_OK);
    assert_string_equal(q.prompt, "hi");
    assert_float_equal(q.sampler.temperature, 1, 0);
    assert_int_equal(q.max_tokens, 0);
    assert_false(q.stream || q.seeded);
    dil__api_req_fini(&q);
    assert_int_equal(parse(DIL_API_OPENAI_COMPLETION, "{\"prompt\": [\"hi\"], \"stop\": \"q\"}"), DIL_OK);
    assert_string_equal(q.prompt, "hi");
    assert_int_equal(q.n_stop, 1);
    dil__api_req_fini(&q);
    static const char *const ids[] = {"{\"prompt\": [1, 2, 3]}", "{\"prompt\": [[1, 2, 3]]}"};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(parse(DIL_API_OPENAI_COMPLETION, ids[i]), DIL_OK);
        assert_int_equal(q.n_prompt_ids, 3);
        assert_int_equal(q.prompt_ids[2], 3);
        dil__api_req_fini(&q);
    }
}

static void wrong_members_are_refused_by_name(void **state)
{
    (void)state;
#define MSG "\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]"
    static const struct { const char *body, *param; } bad[] = {
        {"", NULL}, {"[]", NULL}, {"{", NULL}, {"{}", "messages"}, {"{\"messages\": []}", "messages"}, {"{\"messages\": \"x\"}", "messages"},
        {"{\"messages\": [{\"content\": \"x\"}]}", "messages"}, {"{\"messages\": [{\"role\": \"tool\", \"content\": \"x\"}]}", "messages"},
        {"{\"messages\": [{\"role\": \"user\"}]}", "messages"}, {"{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"image_url\"}]}]}", "messages"},
        {"{" MSG ", \"temperature\": 3}", "temperature"}, {"{" MSG ", \"temperature\": \"hot\"}", "temperature"},
        {"{" MSG ", \"top_p\": -0.1}", "top_p"}, {"{" MSG ", \"max_tokens\": 0}", "max_tokens"}, {"{" MSG ", \"max_tokens\": 1.5}", "max_tokens"},
        {"{" MSG ", \"stop\": [\"\"]}", "stop"}, {"{" MSG ", \"stop\": 5}", "stop"}, {"{" MSG ", \"stream\": 1}", "stream"},
        {"{" MSG ", \"n\": 17}", "n"}, {"{" MSG ", \"tools\": [{}]}", "tools"}, {"{" MSG ", \"logprobs\": 1}", "logprobs"}, {"{" MSG ", \"top_logprobs\": 2}", "top_logprobs"},
        {"{" MSG ", \"logprobs\": true, \"top_logprobs\": 21}", "top_logprobs"},
        {"{" MSG ", \"response_format\": {\"type\": \"xml\"}}", "response_format"}, {"{" MSG ", \"response_format\": {\"type\": \"json_schema\"}}", "response_format"},
        {"{" MSG ", \"logit_bias\": {\"x\": 1}}", "logit_bias"}, {"{" MSG ", \"logit_bias\": {\"1\": 101}}", "logit_bias"}, {"{" MSG ", \"logit_bias\": [1]}", "logit_bias"}, {"{" MSG ", \"model\": 4}", "model"},
        {"{" MSG ", \"stream_options\": 4}", "stream_options"}, {"{" MSG ", \"seed\": 1.5}", "seed"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (parse(DIL_API_OPENAI_CHAT, bad[i].body) == DIL_OK) fail_msg("taken: %s", bad[i].body);
        if (!bad[i].param != !param || (param && strcmp(param, bad[i].param) != 0)) fail_msg("%s: blamed %s", bad[i].body, param ? param : "nothing");
    }
    static const char *const prompts[] = {"{}", "{\"prompt\": null}", "{\"prompt\": []}", "{\"prompt\": [\"a\", \"b\"]}", "{\"prompt\": [1, -2]}",
                                          "{\"prompt\": [1, \"a\"]}", "{\"prompt\": {}}"};
    for (size_t i = 0; i < sizeof prompts / sizeof prompts[0]; i++) {
        if (parse(DIL_API_OPENAI_COMPLETION, prompts[i]) == DIL_OK) fail_msg("taken: %s", prompts[i]);
        assert_string_equal(param, "prompt");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_chat_request_is_read),
        cmocka_unit_test(a_completion_takes_text_or_ids),
        cmocka_unit_test(wrong_members_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
