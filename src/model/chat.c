/* Chat templates. A template is a Jinja program; we run none. The text is brought to one form (comments, layout and quotes do not
 * count) and compared with the templates that we know; what is not exactly one of them is unsupported, because a guessed template
 * answers worse and nobody sees why.
 *
 * Rendering gives ids, not text: only the template's own special tokens become special ids, and everything between two of them is
 * tokenized as one run of plain text, so that words join over the seam between template and message as they do in the rendered text. */
#include "model/chat.h"

#include "model/tokenizer_impl.h"
#include "model/utf8.h"

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

/* Layout between two tags: nothing where Jinja drops it (a "-" on either side; the line end after a block and the indent before
 * one, as trim_blocks and lstrip_blocks say). Any other text would be output, and no template here has such. */
static void skip_layout(scanner *c, size_t tag_end, bool after_block)
{
    size_t from = c->at;
    while (c->at < c->len && is_blank(c->s[c->at])) c->at++;
    if (c->at == from || c->at == c->len) {
        /* Jinja drops one line end at the very end, and the loaders that wrote the files did the same to the text. */
        c->ok &= c->at == from || c->at - from <= 2;
        return;
    }
    bool stripped_left = tag_end >= 3 && from == tag_end && c->s[tag_end - 3] == '-';
    bool stripped_right = c->len - c->at > 2 && c->s[c->at] == '{' && c->s[c->at + 2] == '-';
    bool block_next = looking_at(c, "{%") || looking_at(c, "{#");
    bool one_line = c->s[from] == '\n' && !memchr(c->s + from + 1, '\n', c->at - from - 1);
    c->ok &= stripped_left || stripped_right || (after_block && one_line && (block_next || c->at == from + 1));
}

/* Appends text in the one form; false for what no known template has. */
static bool canonical(const char *text, size_t len, dil_buf *out)
{
    scanner c = {text, len, 0, out, true};
    size_t tag_end = 0;
    bool after_block = false;
    while (c.ok) {
        skip_layout(&c, tag_end, after_block);
        if (!c.ok || c.at >= len) break;
        if (looking_at(&c, "{#")) {
            skip_comment(&c);
            after_block = true;
        } else if (looking_at(&c, "{%") || looking_at(&c, "{{")) {
            after_block = c.s[c.at + 1] == '%';
            scan_tag(&c);
        } else {
            return false;
        }
        tag_end = c.at;
    }
    return c.ok;
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
    static const char *const names[] = {[DIL__CHAT_CHATML] = "chatml", [DIL__CHAT_LLAMA3] = "llama3", [DIL__CHAT_LLAMA31] = "llama3.1"};
    return c->kind == DIL__CHAT_NONE ? NULL : names[c->kind];
}

/* --- rendering ------------------------------------------------------------------------------------------------------------- */

typedef struct renderer {
    dil__tokenizing run;
    dil_buf plain; /* text since the last special token */
    dil_status status;
    dil_err *err;
} renderer;

static void add_text(renderer *r, const char *s, size_t len)
{
    if (r->status == DIL_OK && !dil_buf_append(&r->plain, s, len))
        r->status = dil_fail(r->err, DIL_ELIMIT, "a conversation of more than %u bytes", DIL_TOK_TEXT_MAX);
}

static void add_id(renderer *r, int32_t id)
{
    if (r->status == DIL_OK && r->plain.len)
        r->status = dil__tokenizing_text(&r->run, (const char *)r->plain.data, r->plain.len, false, r->err);
    r->plain.len = 0;
    if (r->status == DIL_OK && id >= 0) r->status = dil__ids_push(&r->run.ids, id, r->err);
}

static void add_special(renderer *r, const char *name)
{
    size_t len = strlen(name), found = 0;
    int32_t id = dil__vocab_added(&r->run.t->vocab, name, len, true, &found);
    if (r->status == DIL_OK && (id < 0 || found != len))
        r->status = dil_fail(r->err, DIL_EUNSUPPORTED, "the chat template uses %s, which is no special token of this vocabulary", name);
    add_id(r, id);
}

/* Jinja's trim: Python's str.strip. */
static void trim(const char **s, size_t *len)
{
    uint32_t cp = 0;
    size_t n;
    while ((n = dil__utf8_get(*s, *len, &cp)) > 0 && dil__utf8_is_py_space(cp)) {
        *s += n;
        *len -= n;
    }
    for (size_t end = *len; end > 0; *len = end) {
        size_t at = end - 1;
        while (at > 0 && end - at < 4 && ((uint8_t)(*s)[at] & 0xC0) == 0x80) at--;
        if (dil__utf8_get(*s + at, end - at, &cp) != end - at || !dil__utf8_is_py_space(cp)) break;
        end = at;
    }
}

static void chatml_message(renderer *r, const char *role, const char *s, size_t len)
{
    add_special(r, "<|im_start|>");
    add_text(r, role, strlen(role));
    add_text(r, "\n", 1);
    add_text(r, s, len);
    add_special(r, "<|im_end|>");
    add_text(r, "\n", 1);
}

static void chatml(renderer *r, const dil_chat_msg *msgs, size_t n)
{
    const dil__chat *c = &r->run.t->chat;
    if (c->system && strcmp(msgs[0].role, "system") != 0) chatml_message(r, "system", c->system, c->system_len);
    for (size_t i = 0; i < n; i++) chatml_message(r, msgs[i].role, msgs[i].content, msgs[i].content_len);
    add_special(r, "<|im_start|>");
    add_text(r, "assistant\n", 10);
}

static void llama3_header(renderer *r, const char *role)
{
    add_special(r, "<|start_header_id|>");
    add_text(r, role, strlen(role));
    add_special(r, "<|end_header_id|>");
    add_text(r, "\n\n", 2);
}

static void llama3_message(renderer *r, const dil_chat_msg *m)
{
    const char *s = m->content;
    size_t len = m->content_len;
    trim(&s, &len);
    llama3_header(r, m->role);
    add_text(r, s, len);
    add_special(r, "<|eot_id|>");
}

static void llama3(renderer *r, const dil_chat_msg *msgs, size_t n)
{
    add_id(r, r->run.t->bos);
    for (size_t i = 0; i < n; i++) llama3_message(r, &msgs[i]);
    llama3_header(r, "assistant");
}

/* The date is the template's own for a host without a clock: the same prompt has the same ids on any day. */
static void llama31(renderer *r, const dil_chat_msg *msgs, size_t n)
{
    static const char dates[] = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n";
    add_id(r, r->run.t->bos);
    llama3_header(r, "system");
    add_text(r, dates, sizeof dates - 1);
    size_t first = strcmp(msgs[0].role, "system") == 0;
    if (first) {
        const char *s = msgs[0].content;
        size_t len = msgs[0].content_len;
        trim(&s, &len);
        add_text(r, s, len);
    }
    add_special(r, "<|eot_id|>");
    for (size_t i = first; i < n; i++) {
        if (r->status == DIL_OK && (strcmp(msgs[i].role, "tool") == 0 || strcmp(msgs[i].role, "ipython") == 0))
            r->status = dil_fail(r->err, DIL_EUNSUPPORTED, "message %zu: role \"%s\": tool calls are not supported", i, msgs[i].role);
        llama3_message(r, &msgs[i]);
    }
    llama3_header(r, "assistant");
}

const char *dil_chat_template_name(const dil_tokenizer *t)
{
    return dil__chat_name(&t->chat);
}

dil_status dil_chat_tokenize(const dil_tokenizer *t, const dil_chat_msg *msgs, size_t n, dil_ids *out, dil_err *err)
{
    if (t->chat.kind == DIL__CHAT_NONE)
        return dil_fail(err, DIL_EUNSUPPORTED, "this model has no chat template that we know (chatml, llama3, llama3.1); use plain completions");
    if (n == 0) return dil_fail(err, DIL_EUSAGE, "a conversation without messages");
    renderer r = {.run = {.t = t}, .status = DIL_OK, .err = err};
    dil_buf_init(&r.plain, DIL_TOK_TEXT_MAX);
    switch (t->chat.kind) {
    case DIL__CHAT_CHATML: chatml(&r, msgs, n); break;
    case DIL__CHAT_LLAMA3: llama3(&r, msgs, n); break;
    default: llama31(&r, msgs, n); break;
    }
    add_id(&r, -1);
    dil_buf_fini(&r.plain);
    dil__tokenizing_end(&r.run, r.status, out);
    return r.status;
}
