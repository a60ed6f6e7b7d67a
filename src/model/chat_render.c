/* Conversations under the templates that chat.c knows. Rendering gives ids, not text: only the template's own special tokens become
 * special ids, and everything between two of them is tokenized as one run of plain text, so that words join over the seam between
 * template and message as they do in the rendered text. */
#include "model/chat.h"

#include "model/tokenizer_impl.h"
#include "model/utf8.h"

#include <stdlib.h>
#include <string.h>

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

/* A mark of the template: a special token where the vocabulary has it, else text. */
static void add_mark(renderer *r, const char *name)
{
    size_t len = strlen(name), found = 0;
    int32_t id = dil__vocab_added(&r->run.t->vocab, name, len, true, &found);
    if (id >= 0 && found == len) add_id(r, id);
    else add_text(r, name, len);
}

static void add_str(renderer *r, const char *s)
{
    add_text(r, s, strlen(s));
}

static void fail(renderer *r, dil_status s, const char *what)
{
    if (r->status == DIL_OK) r->status = dil_fail(r->err, s, "this model's chat template: %s", what);
}

static bool is(const dil_chat_msg *m, const char *role)
{
    return strcmp(m->role, role) == 0;
}

typedef struct span { const char *s; size_t len; } span;

static span content_of(const dil_chat_msg *m)
{
    return (span){m->content, m->content_len};
}

static span trimmed(span x)
{
    trim(&x.s, &x.len);
    return x;
}

/* User and assistant by turns, from the user on. */
static void check_turns(renderer *r, const dil_chat_msg *msgs, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (is(&msgs[i], "user") != (i % 2 == 0)) {
            fail(r, DIL_EUSAGE, "user and assistant take turns, and the user begins");
            return;
        }
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

/* --- Qwen and SmolLM3: ChatML with thoughts ------------------------------------------------------------------------------- */

static void refuse_tools(renderer *r, const dil_chat_msg *msgs, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (is(&msgs[i], "tool")) fail(r, DIL_EUNSUPPORTED, "tool calls are not supported");
    }
}

static void qwen25(renderer *r, const dil_chat_msg *msgs, size_t n)
{
    static const char system[] = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.";
    refuse_tools(r, msgs, n);
    if (!is(&msgs[0], "system")) chatml_message(r, "system", system, sizeof system - 1);
    for (size_t i = 0; i < n; i++) {
        if (is(&msgs[i], "user") || is(&msgs[i], "system") || is(&msgs[i], "assistant")) chatml_message(r, msgs[i].role, msgs[i].content, msgs[i].content_len);
    }
    add_special(r, "<|im_start|>");
    add_str(r, "assistant\n");
}

/* Where `what` is last found (or, first); len where it is not. */
static size_t find(span x, const char *what, bool last)
{
    size_t n = strlen(what), at = x.len;
    for (size_t i = 0; i + n <= x.len; i++) {
        if (memcmp(x.s + i, what, n) != 0) continue;
        at = i;
        if (!last) break;
    }
    return at;
}

static span strip_lines(span x, bool left, bool right)
{
    while (left && x.len > 0 && x.s[0] == '\n') x.s++, x.len--;
    while (right && x.len > 0 && x.s[x.len - 1] == '\n') x.len--;
    return x;
}

/* An answer's thoughts are kept behind the last question only. */
static void qwen3_answer(renderer *r, const dil_chat_msg *m, bool behind, bool last)
{
    span content = content_of(m), thought = {content.s, 0};
    size_t end = find(content, "</think>", true), first = find(content, "</think>", false);
    if (end < content.len) {
        thought = strip_lines((span){content.s, first}, false, true);
        size_t open = find(thought, "<think>", true);
        if (open < thought.len) thought = (span){thought.s + open + 7, thought.len - open - 7};
        thought = strip_lines(thought, true, false);
        content = strip_lines((span){content.s + end + 8, content.len - end - 8}, true, false);
    }
    add_special(r, "<|im_start|>");
    add_str(r, "assistant\n");
    if (behind && (last || thought.len > 0)) {
        thought = strip_lines(thought, true, true);
        content = strip_lines(content, true, false);
        add_mark(r, "<think>");
        add_str(r, "\n");
        add_text(r, thought.s, thought.len);
        add_str(r, "\n");
        add_mark(r, "</think>");
        add_str(r, "\n\n");
    }
    add_text(r, content.s, content.len);
    add_special(r, "<|im_end|>");
    add_str(r, "\n");
}

static void qwen3(renderer *r, const dil_chat_msg *msgs, size_t n)
{
    size_t question = n - 1;
    refuse_tools(r, msgs, n);
    for (size_t i = n; i-- > 0;) {
        if (!is(&msgs[i], "user")) continue;
        question = i;
        break;
    }
    for (size_t i = 0; i < n; i++) {
        if (is(&msgs[i], "assistant")) qwen3_answer(r, &msgs[i], i > question, i + 1 == n);
        else if (is(&msgs[i], "user") || is(&msgs[i], "system")) chatml_message(r, msgs[i].role, msgs[i].content, msgs[i].content_len);
    }
    add_special(r, "<|im_start|>");
    add_str(r, "assistant\n");
}

/* --- SmolLM3 ----------------------------------------------------------------------------------------------------------------- */

static const char smollm3_thinks[] =
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face. Your role as an assistant involves thoroughly exploring questions through a "
    "systematic thinking process before providing the final precise and accurate solutions. This requires engaging in a comprehensive cycle of "
    "analysis, summarizing, exploration, reassessment, reflection, backtracking, and iteration to develop well-considered thinking process. Please "
    "structure your response into two main sections: Thought and Solution using the specified format: ";
static const char smollm3_sections[] =
    " Solution section. In the Thought section, detail your reasoning process in steps. Each step should include detailed considerations such as analysing "
    "questions, summarizing relevant findings, brainstorming new ideas, verifying the accuracy of the current steps, refining any errors, and "
    "revisiting previous steps. In the Solution section, based on various attempts, explorations, and reflections from the Thought section, "
    "systematically present the final solution that you deem correct. The Solution section should be logical, accurate, and concise and detail "
    "necessary steps needed to reach the conclusion.\n\n";

static void smollm3_persona(renderer *r)
{
    add_str(r, smollm3_thinks);
    add_mark(r, "<think>");
    add_str(r, " Thought section ");
    add_mark(r, "</think>");
    add_str(r, smollm3_sections);
}

/* The system message without its commands, which decide whether the model thinks. */
static void smollm3_instructions(renderer *r, span x, bool thinks)
{
    dil_buf text;
    dil_buf_init(&text, DIL_TOK_TEXT_MAX);
    bool ok = true;
    for (int pass = 0; pass < 2; pass++) { /* first the longer one, as the template does */
        const char *command = pass == 0 ? "/no_think" : "/think";
        span in = pass == 0 ? x : (span){text.data ? (const char *)text.data : "", text.len};
        size_t n = strlen(command), kept = 0;
        for (size_t i = 0; i < in.len;) {
            if (in.len - i >= n && memcmp(in.s + i, command, n) == 0) {
                i += n;
                continue;
            }
            if (pass == 0) ok = ok && dil_buf_append(&text, in.s + i, 1);
            else text.data[kept++] = (uint8_t)in.s[i];
            i++;
        }
        if (pass == 1) text.len = kept;
    }
    span left = {text.data ? (const char *)text.data : "", text.len}, core = trimmed(left);
    left.len = core.len ? (size_t)(core.s - left.s) + core.len : 0; /* rstrip */
    if (!ok) fail(r, DIL_ELIMIT, "a system message of more than 64 MiB");
    add_text(r, left.s, left.len);
    if (left.len > 0) add_str(r, "\n\n");
    else if (thinks) smollm3_persona(r);
    else add_str(r, "You are a helpful AI assistant named SmolLM, trained by Hugging Face.\n\n");
    dil_buf_fini(&text);
}

static void smollm3_answer(renderer *r, bool thinks)
{
    add_special(r, "<|im_start|>");
    add_str(r, "assistant\n");
    if (thinks) return;
    add_mark(r, "<think>");
    add_str(r, "\n\n");
    add_mark(r, "</think>");
    add_str(r, "\n");
}

static void smollm3(renderer *r, const dil_chat_msg *msgs, size_t n)
{
    span system = is(&msgs[0], "system") ? content_of(&msgs[0]) : (span){"", 0};
    bool thinks = find(system, "/no_think", false) == system.len;
    add_special(r, "<|im_start|>");
    add_str(r, "system\n## Metadata\n\nKnowledge Cutoff Date: June 2025\nReasoning Mode: ");
    add_str(r, thinks ? "/think\n\n## Custom Instructions\n\n" : "/no_think\n\n## Custom Instructions\n\n");
    smollm3_instructions(r, system, thinks);
    add_special(r, "<|im_end|>");
    add_str(r, "\n");
    for (size_t i = 0; i < n; i++) {
        if (is(&msgs[i], "user") || is(&msgs[i], "tool")) {
            chatml_message(r, "user", msgs[i].content, msgs[i].content_len);
        } else if (is(&msgs[i], "assistant")) {
            span x = strip_lines(content_of(&msgs[i]), true, false);
            smollm3_answer(r, thinks);
            add_text(r, x.s, x.len);
            add_special(r, "<|im_end|>");
            add_str(r, "\n");
        }
    }
    smollm3_answer(r, thinks);
}

/* --- [INST] ------------------------------------------------------------------------------------------------------------------ */

/* What stands around a question and before an answer. */
typedef struct inst {
    const char *before, *open, *close; /* texts before [INST], behind it, before [/INST] */
    const char *answer;
    bool trims_answer, system_first;   /* the system message goes with the first question; else with the last message, where that is one */
} inst;

static void instructions(renderer *r, const dil_chat_msg *msgs, size_t n, const inst *f)
{
    const dil_chat_msg *system = f->open && is(&msgs[0], "system") ? &msgs[0] : NULL;
    if (system) msgs++, n--;
    check_turns(r, msgs, n);
    add_id(r, r->run.t->bos);
    for (size_t i = 0; i < n; i++) {
        span x = content_of(&msgs[i]);
        if (is(&msgs[i], "user")) {
            add_str(r, f->before);
            add_mark(r, "[INST]");
            add_str(r, f->open);
            if (system && (f->system_first ? i == 0 : i + 1 == n)) {
                add_text(r, system->content, system->content_len);
                add_str(r, "\n\n");
            }
            add_text(r, x.s, x.len);
            add_str(r, f->close);
            add_mark(r, "[/INST]");
        } else if (is(&msgs[i], "assistant")) {
            if (f->trims_answer) x = trimmed(x);
            add_str(r, f->answer);
            add_text(r, x.s, x.len);
            add_id(r, r->run.t->eos);
        } else {
            fail(r, DIL_EUSAGE, "only user and assistant, and a system message where one may come first");
        }
    }
}

static void mistral(renderer *r, const dil_chat_msg *msgs, size_t n)
{
    static const inst plain = {"", " ", " ", "", false, true}, v1 = {" ", " ", " ", " ", false, true}, v3 = {"", " ", "", " ", true, false},
                      tekken = {"", "", "", "", false, false};
    dil__chat_kind k = r->run.t->chat.kind;
    if (k == DIL__CHAT_MISTRAL && is(&msgs[0], "system")) {
        fail(r, DIL_EUSAGE, "no system message");
        return;
    }
    instructions(r, msgs, n, k == DIL__CHAT_MISTRAL ? &plain : k == DIL__CHAT_MISTRAL_V1 ? &v1 : k == DIL__CHAT_MISTRAL_V3 ? &v3 : &tekken);
}

static void llama2(renderer *r, const dil_chat_msg *msgs, size_t n)
{
    const dil_chat_msg *system = is(&msgs[0], "system") ? &msgs[0] : NULL;
    if (system) msgs++, n--;
    check_turns(r, msgs, n);
    for (size_t i = 0; i < n; i++) {
        span x = content_of(&msgs[i]);
        if (is(&msgs[i], "user")) {
            add_id(r, r->run.t->bos);
            add_mark(r, "[INST]");
            add_str(r, " ");
            if (i == 0 && system) { /* the whole is stripped: its beginning is the mark's */
                add_str(r, "<<SYS>>\n");
                add_text(r, system->content, system->content_len);
                add_str(r, "\n<</SYS>>");
                span core = trimmed(x);
                x.len = core.len ? (size_t)(core.s - x.s) + core.len : 0;
                if (x.len > 0) add_str(r, "\n\n");
            } else {
                x = trimmed(x);
            }
            add_text(r, x.s, x.len);
            add_str(r, " ");
            add_mark(r, "[/INST]");
        } else if (is(&msgs[i], "assistant")) {
            x = trimmed(x);
            add_str(r, " ");
            add_text(r, x.s, x.len);
            add_str(r, " ");
            add_id(r, r->run.t->eos);
        }
    }
}

/* --- Gemma ------------------------------------------------------------------------------------------------------------------- */

static void gemma(renderer *r, const dil_chat_msg *msgs, size_t n)
{
    const dil_chat_msg *system = is(&msgs[0], "system") ? &msgs[0] : NULL;
    if (system && r->run.t->chat.kind == DIL__CHAT_GEMMA) {
        fail(r, DIL_EUSAGE, "no system message");
        return;
    }
    if (system) msgs++, n--;
    check_turns(r, msgs, n);
    add_id(r, r->run.t->bos);
    for (size_t i = 0; i < n; i++) {
        span x = trimmed(content_of(&msgs[i]));
        add_mark(r, "<start_of_turn>");
        add_str(r, is(&msgs[i], "assistant") ? "model" : msgs[i].role);
        add_str(r, "\n");
        if (i == 0 && system) {
            add_text(r, system->content, system->content_len);
            add_str(r, "\n\n");
        }
        add_text(r, x.s, x.len);
        add_mark(r, "<end_of_turn>");
        add_str(r, "\n");
    }
    add_mark(r, "<start_of_turn>");
    add_str(r, "model\n");
}

/* --- Zephyr (TinyLlama), Phi-3 ----------------------------------------------------------------------------------------------- */

static void zephyr(renderer *r, const dil_chat_msg *msgs, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!is(&msgs[i], "user") && !is(&msgs[i], "system") && !is(&msgs[i], "assistant")) continue;
        add_mark(r, is(&msgs[i], "user") ? "<|user|>" : is(&msgs[i], "system") ? "<|system|>" : "<|assistant|>");
        add_str(r, "\n");
        add_text(r, msgs[i].content, msgs[i].content_len);
        add_id(r, r->run.t->eos);
        add_str(r, "\n");
    }
    add_mark(r, "<|assistant|>");
    add_str(r, "\n");
}

/* The tokens of Phi-3's SentencePiece vocabulary swallow white space behind them. */
static void phi_mark(renderer *r, const char *mark)
{
    add_mark(r, mark);
    if (r->run.t->pre) add_str(r, "\n");
}

static void phi_text(renderer *r, span x)
{
    uint32_t cp;
    size_t k;
    while (!r->run.t->pre && (k = dil__utf8_get(x.s, x.len, &cp)) > 0 && dil__utf8_is_py_space(cp)) x.s += k, x.len -= k;
    add_text(r, x.s, x.len);
}

static void phi3(renderer *r, const dil_chat_msg *msgs, size_t n)
{
    dil__chat_kind kind = r->run.t->chat.kind;
    bool early = kind == DIL__CHAT_PHI3 || kind == DIL__CHAT_PHI3_SYSTEM; /* an answer is asked for behind every question */
    if (early) add_id(r, r->run.t->bos);
    for (size_t i = 0; i < n; i++) {
        bool user = is(&msgs[i], "user"), system = is(&msgs[i], "system"), answer = is(&msgs[i], "assistant");
        if (system && (kind == DIL__CHAT_PHI3 || (kind == DIL__CHAT_PHI35 && msgs[i].content_len == 0))) continue;
        if (!user && !system && !answer) continue;
        if (!answer || !early) phi_mark(r, user ? "<|user|>" : system ? "<|system|>" : "<|assistant|>");
        phi_text(r, content_of(&msgs[i]));
        phi_mark(r, "<|end|>");
        if (early && user) phi_mark(r, "<|assistant|>");
    }
    if (!early) phi_mark(r, "<|assistant|>");
}

static void phi4_mini(renderer *r, const dil_chat_msg *msgs, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char mark[64];
        int len = snprintf(mark, sizeof mark, "<|%s|>", msgs[i].role);
        if (len < 0 || (size_t)len >= sizeof mark) {
            fail(r, DIL_EUSAGE, "a role of more than sixty bytes");
            return;
        }
        add_mark(r, mark);
        add_text(r, msgs[i].content, msgs[i].content_len);
        add_mark(r, "<|end|>");
    }
    add_mark(r, "<|assistant|>");
}

/* --- all ------------------------------------------------------------------------------------------------------------------------ */

static void (*const render[])(renderer *r, const dil_chat_msg *msgs, size_t n) = {
    [DIL__CHAT_CHATML] = chatml,      [DIL__CHAT_LLAMA3] = llama3,      [DIL__CHAT_LLAMA31] = llama31,  [DIL__CHAT_QWEN25] = qwen25,
    [DIL__CHAT_QWEN3] = qwen3,        [DIL__CHAT_SMOLLM3] = smollm3,    [DIL__CHAT_LLAMA2] = llama2,    [DIL__CHAT_MISTRAL] = mistral,
    [DIL__CHAT_MISTRAL_V1] = mistral, [DIL__CHAT_MISTRAL_V3] = mistral, [DIL__CHAT_TEKKEN] = mistral,   [DIL__CHAT_ZEPHYR] = zephyr,
    [DIL__CHAT_GEMMA] = gemma,        [DIL__CHAT_GEMMA3] = gemma,       [DIL__CHAT_PHI3] = phi3,        [DIL__CHAT_PHI3_SYSTEM] = phi3,
    [DIL__CHAT_PHI3_LAST] = phi3,     [DIL__CHAT_PHI35] = phi3,         [DIL__CHAT_PHI4_MINI] = phi4_mini};

const char *dil_chat_template_name(const dil_tokenizer *t)
{
    return dil__chat_name(&t->chat);
}

dil_status dil_chat_tokenize(const dil_tokenizer *t, const dil_chat_msg *msgs, size_t n, dil_ids *out, dil_err *err)
{
    if (t->chat.kind == DIL__CHAT_NONE)
        return dil_fail(err, DIL_EUNSUPPORTED, "this model has no chat template that we know; use plain completions");
    if (n == 0) return dil_fail(err, DIL_EUSAGE, "a conversation without messages");
    renderer r = {.run = {.t = t}, .status = DIL_OK, .err = err};
    dil_buf_init(&r.plain, DIL_TOK_TEXT_MAX);
    render[t->chat.kind](&r, msgs, n);
    add_id(&r, -1);
    dil_buf_fini(&r.plain);
    dil__tokenizing_end(&r.run, r.status, out);
    return r.status;
}
