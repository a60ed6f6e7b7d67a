/* Chat templates. A template is a Jinja program; we run none. The text is brought to one form (comments, layout and quotes do not
 * count) and compared with the templates that we know; what is not exactly one of them is unsupported, because a guessed template
 * answers worse and nobody sees why. Rendering is chat_render.c's. */
#include "model/chat.h"

#include <stdlib.h>
#include <string.h>

enum { OPEN = 1, CLOSE = 2, HOLE = 3 }; /* around a string literal; in a pattern: any string */
enum { TEMPLATE_MAX = 64 << 10 };

/* --- one form for equal templates ---------------------------------------------------------------------------------------- */

typedef struct scanner {
    const char *s;
    size_t len, at;
    dil_buf *out;
    bool ok;
} scanner;

static bool looking_at(const scanner *c, const char *what)
{
    size_t n = strlen(what);
    return c->len - c->at >= n && memcmp(c->s + c->at, what, n) == 0;
}

static void put(scanner *c, char ch)
{
    c->ok &= dil_buf_append(c->out, &ch, 1);
}

static char last_put(const scanner *c)
{
    return c->out->len ? (char)c->out->data[c->out->len - 1] : 0;
}

static bool is_word(char ch)
{
    return (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9') || ch == '_';
}

static bool is_blank(char ch)
{
    return ch == ' ' || ch == '\t' || ch == '\n' || ch == '\r';
}

/* A literal, escapes resolved, between OPEN and CLOSE. Two that are added are one. */
static void scan_string(scanner *c)
{
    char quote = c->s[c->at++];
    size_t n = c->out->len;
    if (n >= 2 && c->out->data[n - 1] == '+' && c->out->data[n - 2] == CLOSE)
        c->out->len = n - 2;
    else
        put(c, OPEN);
    while (c->ok && c->at < c->len && c->s[c->at] != quote) {
        char ch = c->s[c->at++];
        if (ch == '\\' && c->at < c->len) {
            char e = c->s[c->at++];
            ch = e == 'n' ? '\n' : e == 't' ? '\t' : e;
            c->ok &= e == 'n' || e == 't' || e == '\\' || e == '\'' || e == '"';
        }
        c->ok &= ch != OPEN && ch != CLOSE && ch != HOLE && ch != 0;
        put(c, ch);
    }
    c->ok &= c->at < c->len;
    c->at++;
    put(c, CLOSE);
}

/* From "{%" or "{{" to the closing mark. */
static void scan_tag(scanner *c)
{
    char end = c->s[c->at + 1] == '%' ? '%' : '}';
    put(c, '{');
    put(c, c->s[c->at + 1]);
    c->at += 2;
    if (c->at < c->len && c->s[c->at] == '-') c->at++;
    bool gap = false;
    while (c->ok && c->at < c->len) {
        char ch = c->s[c->at];
        bool dash = ch == '-' && c->at + 2 < c->len && c->s[c->at + 1] == end && c->s[c->at + 2] == '}';
        if (dash || (ch == end && c->at + 1 < c->len && c->s[c->at + 1] == '}')) {
            put(c, end);
            put(c, '}');
            c->at += dash ? 3 : 2;
            return;
        }
        if (is_blank(ch)) {
            gap = true;
            c->at++;
            continue;
        }
        if (gap && is_word(ch) && is_word(last_put(c))) put(c, ' ');
        gap = false;
        if (ch == '\'' || ch == '"') {
            scan_string(c);
        } else {
            c->ok &= ch > 3;
            put(c, ch);
            c->at++;
        }
    }
    c->ok = false; /* no closing mark */
}

static void skip_comment(scanner *c)
{
    while (c->at < c->len && !looking_at(c, "#}")) c->at++;
    c->ok &= c->at < c->len;
    c->at += 2;
}

static bool is_indent(char ch)
{
    return ch == ' ' || ch == '\t';
}

/* Text between two tags, as Jinja puts it out under trim_blocks and lstrip_blocks: without the line end behind a block and the indent
 * before one, without any layout on the side of a "-", and without one line end at the very end. What is left is a literal. */
static void scan_text(scanner *c, bool after_block, bool after_dash)
{
    size_t from = c->at, to;
    while (c->at < c->len && !looking_at(c, "{%") && !looking_at(c, "{{") && !looking_at(c, "{#")) c->at++;
    to = c->at;
    bool last = to == c->len, next_block = !last && c->s[to + 1] != '{', next_dash = !last && to + 2 < c->len && c->s[to + 2] == '-';
    if (after_block && !after_dash && from < to && c->s[from] == '\n') from++;
    while (after_dash && from < to && is_blank(c->s[from])) from++;
    if (last && from < to && c->s[to - 1] == '\n') to--;
    while (next_dash && from < to && is_blank(c->s[to - 1])) to--;
    size_t line = to;
    while (line > from && is_indent(c->s[line - 1])) line--;
    bool begins_line = line == 0 || c->s[line - 1] == '\n';
    if (next_block && !next_dash && begins_line) to = line;
    if (from >= to) return;
    put(c, '{');
    put(c, '{');
    put(c, OPEN);
    for (; from < to; from++) {
        c->ok &= c->s[from] != OPEN && c->s[from] != CLOSE && c->s[from] != HOLE && c->s[from] != 0;
        put(c, c->s[from]);
    }
    put(c, CLOSE);
    put(c, '}');
    put(c, '}');
}

/* Appends text in the one form; false for what no known template has. */
static bool canonical(const char *text, size_t len, dil_buf *out)
{
    scanner c = {text, len, 0, out, true};
    bool after_block = false, after_dash = false;
    while (c.ok) {
        scan_text(&c, after_block, after_dash);
        if (!c.ok || c.at >= len) break;
        after_block = c.s[c.at + 1] != '{';
        if (looking_at(&c, "{#")) skip_comment(&c);
        else scan_tag(&c);
        after_dash = c.ok && c.s[c.at - 3] == '-';
    }
    return c.ok;
}

bool dil__chat_form(const char *text, size_t len, dil_hash *out)
{
    dil_buf form;
    dil_buf_init(&form, 2 * TEMPLATE_MAX);
    bool ok = canonical(text, len, &form);
    if (ok) *out = dil_hash_of(form.data, form.len);
    dil_buf_fini(&form);
    return ok;
}

/* --- the templates that we know -------------------------------------------------------------------------------------------- */

#define Q(text) "\1" text "\2"
#define IF_PROMPT(text) "{%if add_generation_prompt%}{{" Q(text) "}}{%endif%}"
#define CHATML_MESSAGE "{{" Q("<|im_start|>") "+message[" Q("role") "]+" Q("\n") "+message[" Q("content") "]+" Q("<|im_end|>\n") "}}"
#define CHATML_DEFAULT                                                                                                            \
    "{%if loop.first and messages[0][" Q("role") "]!=" Q("system") "%}{{" Q("<|im_start|>system\n\3<|im_end|>\n") "}}{%endif%}"
#define CHATML_PROMPT IF_PROMPT("<|im_start|>assistant\n")
#define PROMPT_DEFINED "{%if not add_generation_prompt is defined%}{%set add_generation_prompt=false%}{%endif%}"
#define LLAMA3_LOOP                                                                                                               \
    "{%set loop_messages=messages%}{%for message in loop_messages%}{%set content=" Q("<|start_header_id|>") "+message[" Q("role") \
    "]+" Q("<|end_header_id|>\n\n") "+message[" Q("content") "]|trim+" Q("<|eot_id|>")                                           \
    "%}{%if loop.index0==0%}{%set content=bos_token+content%}{%endif%}{{content}}{%endfor%}"
#define LLAMA3_PROMPT "<|start_header_id|>assistant<|end_header_id|>\n\n"

static const struct {
    dil__chat_kind kind;
    const char *pattern;
} patterns[] = {
    {DIL__CHAT_CHATML, "{%for message in messages%}" CHATML_DEFAULT CHATML_MESSAGE "{%endfor%}" CHATML_PROMPT},
    {DIL__CHAT_CHATML, "{%for message in messages%}" CHATML_MESSAGE "{%endfor%}" CHATML_PROMPT},
    {DIL__CHAT_CHATML, PROMPT_DEFINED "{%for message in messages%}" CHATML_MESSAGE "{%endfor%}" CHATML_PROMPT},
    {DIL__CHAT_LLAMA3, LLAMA3_LOOP "{{" Q(LLAMA3_PROMPT) "}}"},
    {DIL__CHAT_LLAMA3, LLAMA3_LOOP IF_PROMPT(LLAMA3_PROMPT)},
};

/* Templates too long to spell here: BLAKE2b-256 of the one form. */
static const struct {
    dil__chat_kind kind;
    const char *hash;
} hashes[] = {
    {DIL__CHAT_LLAMA31, "3cf07e3b811f26054989faeac33328c7a76b3b05b5554379de2826a079eb760c"}, /* 3.1 and 3.3 */
    {DIL__CHAT_LLAMA31, "b86414162d14f967a2ea5c592a2fd4ffc164cff3e20b0edb3f00a6895cca5a09"}, /* 3.2 */
    {DIL__CHAT_QWEN25, "5a70b342f1ea375665d2bb70bcbfa5a577724c380ed778e8008363f3cb02ee7c"}, /* Qwen2.5 */
    {DIL__CHAT_QWEN3, "b7c90f7330f5a2395420db0a5e36b06988dcac509b0b1699f9c79086dd07c1d8"}, /* Qwen3 */
    {DIL__CHAT_SMOLLM3, "e5b63b88e4cb51fbe5f2fca1f5f44fb45c6156299335b198d90e6b8674dddb1b"}, /* SmolLM3, without a date */
    {DIL__CHAT_LLAMA2, "98c2639fd61afd920f77c9ff13259f497dca2615dff826bbac747a639c0893c8"}, /* Llama 2 */
    {DIL__CHAT_MISTRAL, "3f963acb102c7af6b827413a5ccbcefbc3c56bcba553cd220dd6f299e88194bc"}, /* Mistral 0.1, 0.2 */
    {DIL__CHAT_MISTRAL_V1, "61648a9f61d797b6c6df6185803c4e995369991c9529dc9e2dea3001666ef972"}, /* Mistral 0.2 with a system message */
    {DIL__CHAT_MISTRAL_V3, "6f8119c8baa03cb9079fb4f3d1c6b200c0283e888eb74baaa031a37d076f0828"}, /* Mistral 0.3 */
    {DIL__CHAT_TEKKEN, "adce0e27fff6a27f92cc8793ed539c60648ce39e1bd698f1e4f7e6a171f2d643"}, /* Mistral Nemo */
    {DIL__CHAT_ZEPHYR, "c2c8c6808b1efc4dab2820b24ec4a96dd32879fca7852d8ed1a32b1d178bf11e"}, /* Zephyr, TinyLlama */
    {DIL__CHAT_GEMMA, "1446389cc5565eba5d6b06ab63a577871f8b04837ab4b61ba8446abad16bd209"}, /* Gemma 1, 2 */
    {DIL__CHAT_GEMMA3, "a657d055046b67b1bf34cb899195450b8b23d80c62e816f870788b98d30fdb27"}, /* Gemma 3 */
    {DIL__CHAT_PHI3, "c316b5f55ddba14fd77a2658b5d05f2865aa11df68625a57636c027fa6875bf8"}, /* Phi-3-mini */
    {DIL__CHAT_PHI3_SYSTEM, "881a8950b28c916f33b3b4249859657ccadcc73a2bd09d18d50621dff1dcde8a"}, /* Phi-3-mini, later */
    {DIL__CHAT_PHI35, "78d4855c18e2aea5710d484582f28f3e3d38f535d2485d089a4935cd1fec523d"}, /* Phi-3.5-mini */
    {DIL__CHAT_PHI3_LAST, "b3aef14a13766dc2a1fa4d3ef7aa98cd5a48c1d20ba8bb1d4e7b8b05881ca14b"}, /* Phi-3-mini, the last */
    {DIL__CHAT_PHI4_MINI, "40cc12f92dcb69877c1c13e6b500b0bf63b4a06339e15092dac675f3c578d894"}, /* Phi-4-mini */
};

/* Is text the pattern, with any string in the place of its hole? hole and hole_len name it where there is one. */
static bool matches(const char *text, size_t len, const char *pattern, const char **hole, size_t *hole_len)
{
    *hole = NULL;
    *hole_len = 0;
    const char *at = strchr(pattern, HOLE);
    size_t n = strlen(pattern), head = at ? (size_t)(at - pattern) : n;
    if (!at) return len == n && memcmp(text, pattern, n) == 0;
    size_t tail = n - head - 1;
    if (len < head + tail || memcmp(text, pattern, head) != 0 || memcmp(text + len - tail, at + 1, tail) != 0) return false;
    *hole = text + head;
    *hole_len = len - head - tail;
    return !memchr(*hole, CLOSE, *hole_len) && !memchr(*hole, OPEN, *hole_len);
}

static bool has_special(const char *s, size_t len)
{
    for (size_t i = 0; i + 1 < len; i++) {
        if (s[i] == '<' && s[i + 1] == '|') return true;
    }
    return false;
}

static dil_status recognise(const char *text, size_t len, dil__chat *out, dil_err *err)
{
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        const char *hole;
        size_t hole_len;
        if (!matches(text, len, patterns[i].pattern, &hole, &hole_len) || (hole && has_special(hole, hole_len))) continue;
        if (hole) {
            out->system = malloc(hole_len + 1);
            if (!out->system) return dil_fail(err, DIL_EMEMORY, "out of memory for the chat template");
            memcpy(out->system, hole, hole_len);
            out->system_len = hole_len;
        }
        out->kind = patterns[i].kind;
        return DIL_OK;
    }
    char hex[2 * DIL_HASH_BYTES + 1];
    dil_hash h = dil_hash_of(text, len);
    dil_hash_hex(&h, hex);
    for (size_t i = 0; i < sizeof hashes / sizeof *hashes; i++) {
        if (strcmp(hex, hashes[i].hash) == 0) out->kind = hashes[i].kind;
    }
    return DIL_OK;
}

dil_status dil__chat_recognise(const char *text, size_t len, dil__chat *out, dil_err *err)
{
    *out = (dil__chat){0};
    if (len == 0 || len > TEMPLATE_MAX) return DIL_OK;
    dil_buf form;
    dil_buf_init(&form, 2 * TEMPLATE_MAX);
    dil_status s = canonical(text, len, &form) ? recognise((const char *)form.data, form.len, out, err) : DIL_OK;
    dil_buf_fini(&form);
    return s;
}

void dil__chat_fini(dil__chat *c)
{
    free(c->system);
    *c = (dil__chat){0};
}

const char *dil__chat_name(const dil__chat *c)
{
    static const char *const names[] = {
        [DIL__CHAT_CHATML] = "chatml",         [DIL__CHAT_LLAMA3] = "llama3",         [DIL__CHAT_LLAMA31] = "llama3.1",  [DIL__CHAT_QWEN25] = "qwen2.5",
        [DIL__CHAT_QWEN3] = "qwen3",           [DIL__CHAT_SMOLLM3] = "smollm3",       [DIL__CHAT_LLAMA2] = "llama2",     [DIL__CHAT_MISTRAL] = "mistral",
        [DIL__CHAT_MISTRAL_V1] = "mistral-v1", [DIL__CHAT_MISTRAL_V3] = "mistral-v3", [DIL__CHAT_TEKKEN] = "mistral-v3-tekken",
        [DIL__CHAT_ZEPHYR] = "zephyr",         [DIL__CHAT_GEMMA] = "gemma",           [DIL__CHAT_GEMMA3] = "gemma3",     [DIL__CHAT_PHI3] = "phi3",
        [DIL__CHAT_PHI3_SYSTEM] = "phi3-system", [DIL__CHAT_PHI3_LAST] = "phi3-last", [DIL__CHAT_PHI35] = "phi3.5",        [DIL__CHAT_PHI4_MINI] = "phi4-mini"};
    return c->kind == DIL__CHAT_NONE ? NULL : names[c->kind];
}
