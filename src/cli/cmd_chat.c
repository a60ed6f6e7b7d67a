/* dilemma chat: a conversation in the terminal, with a running server or a model in this process. There is one way of asking:
 * a model in this process is served on a port of this machine with a key that nobody else knows. */
#include "cli/clean.h"
#include "cli/cli.h"
#include "cli/serving.h"

#include "base/json.h"
#include "serve/client.h"

#include <histedit.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HISTORY_MAX = 1000, INPUT_MAX = 1 << 20 };

static const char about[] =
    "Talks with a model: that of a running server (--url), or one loaded here (MODEL).\n"
    "A line that ends in \\ goes on; three quotes begin and end a text of several lines. Ctrl-C stops an answer, Ctrl-D ends.\n\n"
    "  /new        forget the conversation        /retry      answer the last question again\n"
    "  /system T   say what the model is told      /save FILE  write the conversation as JSON\n"
    "  /help       this list                       /bye        end\n\n"
    "  dilemma chat model.gguf\n"
    "  dilemma chat --url http://localhost:8080";

typedef struct talk {
    dil__client server;
    json_t *messages;          /* [{"role", "content"}] */
    double temperature;
    int64_t max_tokens, seed;
    EditLine *line;            /* NULL: standard input is no terminal */
    History *history;
    char history_path[4096];
    dil_buf answer;
    uint32_t n_tokens;
    int64_t start_ns, first_ns;
    dil_err problem;           /* of a stream that broke */
    bool over;                 /* the last line of a stream came */
} talk;

static const char *prompt_text = ">>> ";

static char *prompt(EditLine *el)
{
    (void)el;
    return (char *)(uintptr_t)prompt_text;
}

/* --- input ----------------------------------------------------------------------------------------------------------------- */

static void open_editor(talk *t)
{
    HistEvent ev;
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    if (!isatty(STDIN_FILENO)) return;
    t->line = el_init("dilemma", stdin, stdout, stderr);
    t->history = history_init();
    if (!t->line || !t->history) return;
    history(t->history, &ev, H_SETSIZE, HISTORY_MAX);
    history(t->history, &ev, H_SETUNIQUE, 1);
    el_set(t->line, EL_PROMPT, prompt);
    el_set(t->line, EL_EDITOR, "emacs");
    el_set(t->line, EL_HIST, history, t->history);
    el_set(t->line, EL_SIGNAL, 1);
    el_source(t->line, NULL); /* ~/.editrc */
    if ((!state || !*state) && (!home || !*home)) return;
    snprintf(t->history_path, sizeof t->history_path, "%s%s/dilemma", state && *state ? state : home, state && *state ? "" : "/.local/state");
    if (dil_mkdirs(t->history_path, NULL) != DIL_OK) t->history_path[0] = 0;
    else strncat(t->history_path, "/chat_history", sizeof t->history_path - strlen(t->history_path) - 1);
    if (t->history_path[0]) history(t->history, &ev, H_LOAD, t->history_path);
}

static void close_editor(talk *t)
{
    HistEvent ev;
    if (t->history && t->history_path[0]) {
        mode_t old = umask(077); /* what was said is nobody else's */
        history(t->history, &ev, H_SAVE, t->history_path);
        umask(old);
    }
    if (t->history) history_end(t->history);
    if (t->line) el_end(t->line);
}

/* One line without its end; NULL: no more. *again: Ctrl-C, the line is thrown away. */
static char *read_line(talk *t, bool *again)
{
    *again = false;
    if (!t->line) {
        char *s = NULL;
        size_t cap = 0;
        ssize_t n = getline(&s, &cap, stdin);
        if (n > 0 && s[n - 1] == '\n') s[n - 1] = 0;
        if (n >= 0) return s;
        free(s);
        return NULL;
    }
    int n = 0;
    const char *s = el_gets(t->line, &n);
    if (dil_cli_take_interrupt()) {
        putchar('\n');
        *again = true;
        return strdup("");
    }
    if (!s || n <= 0) return NULL;
    char *copy = strdup(s);
    if (copy) copy[strcspn(copy, "\n")] = 0;
    return copy;
}

/* What the user says, of one line or several; false: the end. */
static bool read_input(talk *t, dil_buf *out)
{
    bool quoted = false, more = true, again;
    out->len = 0;
    for (prompt_text = ">>> "; more; prompt_text = "... ") {
        char *s = read_line(t, &again);
        if (!s) return out->len > 0;
        if (again) {
            out->len = 0;
            free(s);
            return true;
        }
        char *text = s;
        if (out->len == 0 && !quoted && strncmp(text, "\"\"\"", 3) == 0) {
            quoted = true;
            text += 3;
        }
        size_t n = strlen(text);
        bool closes = quoted && n >= 3 && strcmp(text + n - 3, "\"\"\"") == 0, goes_on = !quoted && n > 0 && text[n - 1] == '\\';
        dil_buf_append(out, text, closes ? n - 3 : goes_on ? n - 1 : n);
        more = (quoted && !closes) || goes_on;
        if (more) dil_buf_append(out, "\n", 1);
        free(s);
    }
    HistEvent ev;
    if (t->history && out->len) history(t->history, &ev, H_ENTER, dil_buf_str(out));
    return true;
}

/* --- asking ------------------------------------------------------------------------------------------------------------------ */

static bool take_line(void *ctx, const char *line, size_t len)
{
    talk *t = ctx;
    if (dil_cli_take_interrupt()) return false;
    if (!line || len < 7 || strncmp(line, "data: ", 6) != 0) return true;
    if (strcmp(line + 6, "[DONE]") == 0) {
        t->over = true;
        return true;
    }
    json_error_t e;
    json_t *doc = json_loadb(line + 6, len - 6, JSON_ALLOW_NUL, &e); /* a model may say a zero */
    if (!doc) {
        dil_fail(&t->problem, DIL_EFORMAT, "the server's answer: column %d: %s", e.column, e.text);
        return true;
    }
    const json_t *choice = json_array_get(json_object_get(doc, "choices"), 0), *text = json_object_get(json_object_get(choice, "delta"), "content");
    const char *wrong = json_string_value(json_object_get(json_object_get(doc, "error"), "message"));
    const json_t *count = json_object_get(json_object_get(doc, "usage"), "completion_tokens");
    if (wrong) dil_fail(&t->problem, DIL_ENET, "%.400s", wrong);
    if (json_is_integer(count)) t->n_tokens = (uint32_t)json_integer_value(count);
    if (json_string_length(text)) {
        if (!t->first_ns) t->first_ns = dil_now_ns();
        const char *said = json_string_value(text);
        for (size_t i = 0; i < json_string_length(text); i++) {
            if (said[i]) dil_buf_append(&t->answer, &said[i], 1);
        }
        dil_cli_print_model_text(said, json_string_length(text), stdout);
        fflush(stdout);
    }
    json_decref(doc);
    return true;
}

static dil_status ask(talk *t, dil_err *err)
{
    json_t *doc = json_pack("{s:O, s:b, s:{s:b}}", "messages", t->messages, "stream", 1, "stream_options", "include_usage", 1);
    if (t->temperature >= 0) json_object_set_new(doc, "temperature", json_real(t->temperature));
    if (t->max_tokens > 0) json_object_set_new(doc, "max_tokens", json_integer(t->max_tokens));
    if (t->seed >= 0) json_object_set_new(doc, "seed", json_integer(t->seed));
    char *body = json_dumps(doc, JSON_COMPACT);
    json_decref(doc);
    if (!body) return dil_fail(err, DIL_EFORMAT, "what you typed is not UTF-8");
    t->answer.len = 0;
    t->over = false;
    t->n_tokens = 0;
    t->problem = (dil_err){0};
    t->start_ns = dil_now_ns();
    t->first_ns = 0;
    dil_status s = dil__client_post(&t->server, "/v1/chat/completions", body, take_line, t, err);
    free(body);
    if (t->answer.len && dil_buf_str(&t->answer)[t->answer.len - 1] != '\n') putchar('\n');
    if (s == DIL_OK && t->problem.code != DIL_OK) {
        if (err) *err = t->problem;
        s = t->problem.code;
    }
    if (s == DIL_OK && !t->over) s = dil_fail(err, DIL_ENET, "the server broke off");
    if (t->answer.len && (s == DIL_OK || s == DIL_ECANCELED))
        json_array_append_new(t->messages, json_pack("{s:s, s:s}", "role", "assistant", "content", dil_buf_str(&t->answer)));
    if (s == DIL_OK && isatty(STDOUT_FILENO) && !dil_cli_quiet && t->first_ns && t->n_tokens > 1) {
        double sec = (double)(dil_now_ns() - t->first_ns) * 1e-9;
        fprintf(stderr, "  (%u tokens, %.1f a second, the first after %.2f s)\n", t->n_tokens, (t->n_tokens - 1) / sec, (double)(t->first_ns - t->start_ns) * 1e-9);
    }
    return s == DIL_ECANCELED ? DIL_OK : s;
}

static const char *last_role(const talk *t)
{
    size_t n = json_array_size(t->messages);
    return n ? json_string_value(json_object_get(json_array_get(t->messages, n - 1), "role")) : "";
}

/* --- commands ------------------------------------------------------------------------------------------------------------------ */

static void set_system(talk *t, const char *text)
{
    if (json_array_size(t->messages) && strcmp(json_string_value(json_object_get(json_array_get(t->messages, 0), "role")), "system") == 0) json_array_remove(t->messages, 0);
    if (*text) json_array_insert_new(t->messages, 0, json_pack("{s:s, s:s}", "role", "system", "content", text));
}

static void forget(talk *t)
{
    json_t *first = json_incref(json_array_get(t->messages, 0));
    json_array_clear(t->messages);
    if (first && strcmp(json_string_value(json_object_get(first, "role")), "system") == 0) json_array_append(t->messages, first);
    json_decref(first);
}

/* Returns false to end. *asks: the conversation as it is now wants an answer. */
static bool command(talk *t, const char *word, bool *asks, dil_err *err, dil_status *s)
{
    const char *arg = strchr(word, ' ');
    size_t n = arg ? (size_t)(arg - word) : strlen(word);
    arg = arg ? arg + 1 : "";
#define IS(name) (n == sizeof name - 1 && memcmp(word, name, n) == 0)
    if (IS("/bye") || IS("/quit") || IS("/exit")) return false;
    if (IS("/new")) forget(t);
    else if (IS("/system")) set_system(t, arg);
    else if (IS("/retry")) {
        if (strcmp(last_role(t), "assistant") == 0) json_array_remove(t->messages, json_array_size(t->messages) - 1);
        *asks = strcmp(last_role(t), "user") == 0;
    } else if (IS("/save") && *arg) *s = dil__json_save(arg, t->messages, err);
    else puts(strchr(about, '/'));
    return true;
}

/* Says with whom we talk, or that nobody is there, before a question is typed for nothing. */
static dil_status greet(talk *t, const char *model, dil_err *err)
{
    dil_buf b;
    dil_err why;
    long http;
    json_t *doc = NULL;
    dil_buf_init(&b, 1u << 16);
    dil_status s = dil__client_get(&t->server, "/health", &http, &b, &why);
    if (s != DIL_OK) {
        dil_buf_fini(&b);
        return dil_fail(err, s, "%.*s. Start a server (dilemma serve MODEL, or dilemma up MODEL), or load a model here: dilemma chat MODEL", (int)strcspn(why.text, ";"),
                        why.text);
    }
    if (dil__json_parse("health", dil_buf_str(&b), b.len, &doc, NULL) != DIL_OK) {
        dil_buf_fini(&b);
        return dil_fail(err, DIL_ENET, "%s answers (%ld), but not as a dilemma server: is the port right?", t->server.base, http);
    }
    const char *name = json_string_value(json_object_get(doc, "model")), *reason = json_string_value(json_object_get(doc, "reason"));
    if (http != 200) fprintf(stderr, "%s is not ready: %s\n", t->server.base, reason ? reason : "it does not say why");
    else if (t->line && !dil_cli_quiet) printf("%s%s%s. /help lists the commands, Ctrl-C stops an answer, Ctrl-D ends.\n", model ? model : name ? name : "a model", model ? "" : " at ",
                                               model ? "" : t->server.base);
    json_decref(doc);
    dil_buf_fini(&b);
    return DIL_OK;
}

static int converse(talk *t)
{
    dil_buf in;
    dil_err err;
    dil_status s = DIL_OK;
    dil_buf_init(&in, INPUT_MAX);
    dil_buf_init(&t->answer, 16u << 20);
    while (read_input(t, &in)) {
        bool asks = false;
        const char *text = dil_buf_str(&in);
        if (in.failed) {
            s = dil_fail(&err, DIL_ELIMIT, "more than %d bytes at once", INPUT_MAX);
            break;
        }
        if (!*text) continue;
        s = DIL_OK;
        if (text[0] == '/') {
            if (!command(t, text, &asks, &err, &s)) break;
        } else {
            json_t *m = json_pack("{s:s, s:s}", "role", "user", "content", text);
            asks = m && json_array_append_new(t->messages, m) == 0;
            if (!asks) s = dil_fail(&err, DIL_EFORMAT, "what you typed is not UTF-8");
        }
        if (asks && (s = ask(t, &err)) != DIL_OK && strcmp(last_role(t), "user") == 0) json_array_remove(t->messages, json_array_size(t->messages) - 1);
        if (s == DIL_OK) continue;
        dil_cli_fail("chat", &err);
        if (!t->line) break; /* a script wants to know */
    }
    dil_buf_fini(&in);
    dil_buf_fini(&t->answer);
    return s == DIL_OK ? 0 : dil_status_exit(s);
}

static int run(int argc, char **argv)
{
    dil_cli_serving v = {.bind = "127.0.0.1", .name = "model", .n_seq = 1, .speculate = DIL_SPECULATE_AUTO};
    talk t = {.temperature = -1, .seed = -1};
    const char *url = NULL, *system = NULL;
    int64_t ctx = 0, threads = 0;
    const dil_cli_opt opts[] = {
        {.name = "--url", .kind = DIL_CLI_STR, .out = &url, .arg = "URL", .help = "a running server (http://localhost:8080); its key: $DILEMMA_API_KEY"},
        {.name = "--ca", .kind = DIL_CLI_STR, .out = &t.server.ca_file, .arg = "FILE", .help = "certificates to trust, PEM (the system's)"},
        {.name = "--model", .letter = 'm', .kind = DIL_CLI_STR, .out = &v.model, .arg = "FILE", .help = "another way to name MODEL: a GGUF file to load here"},
        {.name = "--system", .kind = DIL_CLI_STR, .out = &system, .arg = "TEXT", .help = "what the model is told first"},
        {.name = "--temperature", .kind = DIL_CLI_NUM, .out = &t.temperature, .arg = "T", .help = "0 takes the likeliest (the server's, 1)", .min = 0, .max = 2},
        {.name = "--seed", .kind = DIL_CLI_INT, .out = &t.seed, .arg = "N", .help = "the same answers again", .min = 0, .max = 9e15},
        {.name = "--max-tokens", .letter = 'n', .kind = DIL_CLI_INT, .out = &t.max_tokens, .arg = "N", .help = "of an answer (to the end of the context)", .min = 1, .max = 1 << 24},
        {.name = "--context", .letter = 'c', .kind = DIL_CLI_INT, .out = &ctx, .arg = "N", .help = "with MODEL: tokens of the conversation (2048)", .min = 16, .max = 1 << 22},
        {.name = "--threads", .letter = 't', .kind = DIL_CLI_INT, .out = &threads, .arg = "N", .help = "with MODEL (all)", .min = 1, .max = 256},
        DIL_CLI_END};
    dil_cli_list pos = {0};
    dil_cli_talks = true;
    int status = dil_cli_parse(argc, argv, "[MODEL | --url URL] [options]", about, opts, &pos, 0, 1);
    if (status >= 0) return status;
    if (pos.n && v.model) return dil_cli_usage("chat: MODEL once, not twice");
    if (pos.n) v.model = pos.item[0];
    if (url && v.model) return dil_cli_usage("chat: --url or MODEL, not both");
    char base[600], key[65];
    dil_err err;
    dil_cli_served *served = NULL;
    snprintf(base, sizeof base, "%s", url ? url : "http://localhost:8080");
    for (size_t n = strlen(base); n > 0 && base[n - 1] == '/'; n--) base[n - 1] = 0;
    t.server.base = base;
    t.server.api_key = getenv("DILEMMA_API_KEY");
    dil_cli_progress(); /* its handler of Ctrl-C */
    if (v.model) {
        uint8_t secret[32];
        randombytes_buf(secret, sizeof secret);
        sodium_bin2hex(key, sizeof key, secret, sizeof secret);
        v.api_key = t.server.api_key = key;
        v.n_ctx = (uint32_t)ctx;
        v.n_threads = (int)threads;
        if (dil_cli_serving_open(&v, &served, &err) != DIL_OK) return dil_cli_fail("chat", &err);
        snprintf(base, sizeof base, "http://127.0.0.1:%u", dil_cli_serving_port(served));
    }
    t.messages = json_array();
    if (system) set_system(&t, system);
    open_editor(&t);
    status = greet(&t, v.model, &err) == DIL_OK ? converse(&t) : dil_cli_fail("chat", &err);
    close_editor(&t);
    json_decref(t.messages);
    dil_cli_serving_close(served);
    return status;
}

const dil_cli_cmd dil_cli_chat = {"chat", "talk with a model in the terminal", run};
