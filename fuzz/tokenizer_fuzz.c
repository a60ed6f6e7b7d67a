/* Any bytes through a small vocabulary under each rule: ids are in range, text comes back where nothing is special, the same in a
 * conversation. The first byte chooses the rule and the flags. */
#include "model/tokenizer_impl.h"

#include <stdlib.h>
#include <string.h>

enum { N_MERGES = 12, N_ADDED = 9, N_TOKENS = 256 + N_MERGES + N_ADDED };

static const char *const made[N_MERGES][2] = {{"a a", "aa"}, {"aa aa", "aaaa"}, {"aa a", "aaa"}, {"t h", "th"}, {"th e", "the"}, {"\xC4\xA0 the", "\xC4\xA0the"},
    {"1 2", "12"}, {"\xC4\x8A \xC4\x8A", "\xC4\x8A\xC4\x8A"}, {"\xC4\xA0 \xC4\xA0", "\xC4\xA0\xC4\xA0"}, {"\xC3\xA3 \xC4\xA3", "\xC3\xA3\xC4\xA3"}, {"' s", "'s"}, {"e r", "er"}};
static const char *const added[N_ADDED] = {"<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "  ", "[u]"};
static const char *const rules[3] = {"gpt-2", "smollm", "llama-bpe"};
static const char *const templates[3] = {
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "", "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + "
    "'<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}"
    "{% endif %}{{ content }}{% endfor %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"};

static dil_tokenizer *tokenizers[3];

static void build(void)
{
    static char spelled[256][3];
    static dil__str tokens[N_TOKENS], merges[N_MERGES];
    static int32_t types[N_TOKENS];
    uint32_t odd = 0;
    for (uint32_t b = 0; b < 256; b++) {
        bool itself = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
        uint32_t cp = itself ? b : 0x100 + odd++;
        spelled[b][0] = (char)(cp < 0x80 ? cp : 0xC0 | cp >> 6);
        spelled[b][1] = (char)(0x80 | (cp & 0x3F));
        tokens[b] = (dil__str){spelled[b], cp < 0x80 ? 1 : 2};
        types[b] = DIL__TOKEN_NORMAL;
    }
    for (int i = 0; i < N_MERGES; i++) {
        merges[i] = (dil__str){made[i][0], strlen(made[i][0])};
        tokens[256 + i] = (dil__str){made[i][1], strlen(made[i][1])};
        types[256 + i] = DIL__TOKEN_NORMAL;
    }
    for (int i = 0; i < N_ADDED; i++) {
        tokens[256 + N_MERGES + i] = (dil__str){added[i], strlen(added[i])};
        types[256 + N_MERGES + i] = i < N_ADDED - 2 ? DIL__TOKEN_CONTROL : DIL__TOKEN_USER;
    }
    for (int i = 0; i < 3; i++) {
        dil__tokenizer_src src = {{tokens, types, N_TOKENS, merges, N_MERGES}, {rules[i], strlen(rules[i])}, {templates[i], strlen(templates[i])},
                                  256 + N_MERGES, 257 + N_MERGES, -1, -1, 1};
        if (dil__tokenizer_build(&src, &tokenizers[i], NULL) != DIL_OK) abort();
    }
}

static void check(bool ok)
{
    if (!ok) abort();
}

static void check_chat(const dil_tokenizer *t, const char *text, size_t len)
{
    const dil_chat_msg msgs[] = {{"user", text, len / 2}, {"assistant", text + len / 2, len - len / 2}};
    dil_ids ids;
    if (dil_chat_tokenize(t, msgs, 2, &ids, NULL) != DIL_OK) return;
    size_t specials = 0;
    for (size_t i = 0; i < ids.n; i++) specials += dil_tokenizer_is_special(t, ids.id[i]);
    check(specials == (t == tokenizers[0] ? 5u : 9u)); /* the template's, none of the user's */
    dil_ids_fini(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!tokenizers[0]) build();
    if (size == 0) return 0;
    const dil_tokenizer *t = tokenizers[data[0] % 3];
    unsigned flags = data[0] >> 2 & 3;
    const char *text = (const char *)data + 1;
    size_t len = size - 1;
    dil_ids ids;
    check(dil_tokenize(t, text, len, flags, &ids, NULL) == DIL_OK);
    dil_buf back;
    dil_buf_init(&back, len + 3);
    check(dil_detokenize(t, ids.id, ids.n, flags & DIL_TOK_SPECIAL ? DIL_DETOK_SPECIAL : 0, &back, NULL) == DIL_OK);
    size_t skip = (flags & DIL_TOK_BOS) && (flags & DIL_TOK_SPECIAL) ? 3 : 0; /* "<s>" */
    check(back.len == len + skip && (len == 0 || memcmp(dil_buf_str(&back) + skip, text, len) == 0));
    dil_buf_fini(&back);
    dil_ids_fini(&ids);
    check_chat(t, text, len);
    return 0;
}
