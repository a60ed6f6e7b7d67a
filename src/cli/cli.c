/* Option parsing from tables, error lines, the log sink and the progress bar. getopt was rejected: help text, types, ranges
 * and completions would each need a second table. */
#include "cli/cli.h"

#include "cli/describe.h"
#include "cli/nearest.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

bool dil_cli_talks;
bool dil_cli_quiet;
static bool verbose, log_json;
static volatile sig_atomic_t interrupted;

/* Threads write to standard error, and the bar is its last line: both are under the stream's own lock. */
static bool bar_open;

static void clear_bar(void)
{
    if (bar_open) fputs("\r\033[K", stderr);
    bar_open = false;
}

static void log_line(void *ctx, dil_log_level level, const char *module, const char *text)
{
    (void)ctx;
    static const char *const name[] = {"debug", "info", "warning", "error"};
    flockfile(stderr);
    clear_bar();
    fprintf(stderr, "%s: %s: %s\n", module, name[level], text);
    funlockfile(stderr);
}

static void json_string_to(FILE *to, const char *s, size_t n)
{
    fputc('"', to);
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c == '"' || c == '\\') fprintf(to, "\\%c", c);
        else if (c < ' ') fprintf(to, "\\u%04x", c);
        else fputc(c, to);
    }
    fputc('"', to);
}

/* Words "name=value" of the text become members of their own, numbers as numbers. */
static void json_words_to(FILE *to, const char *text)
{
    for (const char *w = text; *w;) {
        size_t n = strcspn(w, " "), key = strspn(w, "abcdefghijklmnopqrstuvwxyz_");
        if (key > 0 && key + 1 < n && w[key] == '=' && !(key == 4 && memcmp(w, "time", 4) == 0)) {
            const char *v = w + key + 1;
            size_t len = n - key - 1;
            fprintf(to, ",\"%.*s\":", (int)key, w);
            size_t digits = strspn(v, "0123456789"), end = digits + (v[digits] == '.' ? 1 + strspn(v + digits + 1, "0123456789") : 0);
            bool number = digits > 0 && digits < 16 && end == len && v[len - 1] != '.' && (v[0] != '0' || digits == 1);
            if (number) fprintf(to, "%.*s", (int)len, v);
            else json_string_to(to, v, len);
        }
        w += n + strspn(w + n, " ");
    }
}

static void log_json_line(void *ctx, dil_log_level level, const char *module, const char *text)
{
    (void)ctx;
    static const char *const name[] = {"debug", "info", "warning", "error"};
    int64_t ms = dil_wall_ms();
    time_t sec = (time_t)(ms / 1000);
    struct tm tm;
    char when[32];
    gmtime_r(&sec, &tm);
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &tm);
    flockfile(stderr);
    fprintf(stderr, "{\"time\":\"%s.%03dZ\",\"level\":\"%s\",\"module\":\"%s\",\"message\":", when, (int)(ms % 1000), name[level], module);
    json_string_to(stderr, text, strlen(text));
    json_words_to(stderr, text);
    fputs("}\n", stderr);
    funlockfile(stderr);
}

int dil_cli_usage(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fputs("dilemma: ", stderr);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
    va_end(args);
    return dil_status_exit(DIL_EUSAGE);
}

int dil_cli_fail(const char *context, const dil_err *err)
{
    flockfile(stderr);
    clear_bar();
    fprintf(stderr, "dilemma: %s%s%s\n", context ? context : "", context ? ": " : "", err->text);
    funlockfile(stderr);
    return dil_status_exit(err->code);
}

static void print_help(const char *cmd, const char *usage, const char *about, const dil_cli_opt *opts)
{
    printf("usage: dilemma %s %s\n\n%s\n\noptions:\n", cmd, usage, about);
    for (const dil_cli_opt *o = opts; o->name || o->letter; o++) {
        char left[64] = "  ";
        size_t n = 2;
        if (o->letter) n += (size_t)snprintf(left + n, sizeof left - n, "-%c%s", o->letter, o->name ? ", " : "");
        if (o->name) n += (size_t)snprintf(left + n, sizeof left - n, "%s", o->name);
        if (o->arg) n += (size_t)snprintf(left + n, sizeof left - n, " %s", o->arg);
        printf(n < 28 ? "%-28s" : "%s\n                            ", left);
        for (const char *p = o->help; *p; p++) {
            putchar(*p);
            if (*p == '\n') printf("%-28s", "");
        }
        putchar('\n');
    }
    printf("%-28sonly errors on standard error\n%-28smore on standard error\n%-28stext, or json: one object a line\n%-28sthis text\n", "  --quiet",
           "  --verbose", "  --log-format F", "  -h, --help");
}

static const dil_cli_opt *find_opt(const dil_cli_opt *opts, const char *word, size_t len)
{
    for (const dil_cli_opt *o = opts; o->name || o->letter; o++) {
        if (o->name && strlen(o->name) == len && memcmp(o->name, word, len) == 0) return o;
        if (o->letter && len == 2 && word[0] == '-' && word[1] == o->letter) return o;
    }
    return NULL;
}

static int unknown_option(const char *cmd, const dil_cli_opt *opts, const char *word, size_t len)
{
    const char *near = NULL;
    unsigned best = 99;
    for (const dil_cli_opt *o = opts; o->name || o->letter; o++) {
        if (o->name && len > 2 && dil_cli_nearer(word + 2, len - 2, o->name + 2, &best)) near = o->name;
    }
    for (const dil_cli_opt *o = opts; !near && (o->name || o->letter); o++) { /* its beginning */
        if (o->name && len > 4 && strncmp(word, o->name, len) == 0) near = o->name;
    }
    return dil_cli_usage("%s: unknown option '%.*s'%s%s%s (see dilemma %s --help)", cmd, (int)len, word, near ? "; did you mean " : "", near ? near : "", near ? "?" : "", cmd);
}

static int take_value(const char *cmd, const dil_cli_opt *o, const char *word, const char *value)
{
    char *end;
    errno = 0;
    switch (o->kind) {
    case DIL_CLI_FLAG: break;
    case DIL_CLI_STR: *(const char **)o->out = value; break;
    case DIL_CLI_INT: {
        long long v = strtoll(value, &end, 10);
        if (end == value || *end || errno) return dil_cli_usage("%s: %s wants a whole number, not '%s'", cmd, word, value);
        if ((o->min != 0 || o->max != 0) && ((double)v < o->min || (double)v > o->max))
            return dil_cli_usage("%s: %s is %s, allowed %.0f to %.0f", cmd, word, value, o->min, o->max);
        *(int64_t *)o->out = v;
        break;
    }
    case DIL_CLI_NUM: {
        double v = strtod(value, &end);
        if (end == value || *end || errno || v != v) return dil_cli_usage("%s: %s wants a number, not '%s'", cmd, word, value);
        if ((o->min != 0 || o->max != 0) && (v < o->min || v > o->max))
            return dil_cli_usage("%s: %s is %s, allowed %g to %g", cmd, word, value, o->min, o->max);
        *(double *)o->out = v;
        break;
    }
    case DIL_CLI_BYTES:
        if (!dil_parse_bytes(value, o->out))
            return dil_cli_usage("%s: %s wants a size such as 500M or 1.5GiB, not '%s'", cmd, word, value);
        break;
    case DIL_CLI_MANY: case DIL_CLI_LIST: {
        dil_cli_list *l = o->out;
        if (l->n == sizeof l->item / sizeof l->item[0]) return dil_cli_usage("%s: %s: more than %zu values", cmd, word, l->n);
        l->item[l->n++] = value;
        break;
    }
    }
    return -1;
}

/* "-" and negative numbers are values, not options. */
static bool is_option(const char *w)
{
    return w[0] == '-' && w[1] && !(w[1] >= '0' && w[1] <= '9') && !(w[1] == '.' && w[2] >= '0' && w[2] <= '9');
}

int dil_cli_parse(int argc, char **argv, const char *usage, const char *about, const dil_cli_opt *opts, dil_cli_list *pos,
                  size_t min_pos, size_t max_pos)
{
    const char *cmd = argv[0];
    if (dil_cli_describing != DIL_CLI_RUN) {
        dil_cli_describe(cmd, usage, about, opts);
        return 0;
    }
    bool only_words = false;
    for (int i = 1; i < argc; i++) {
        const char *w = argv[i];
        if (only_words || !is_option(w)) {
            if (!pos || pos->n >= max_pos) return dil_cli_usage("%s: unexpected word '%s' (see dilemma %s --help)", cmd, w, cmd);
            pos->item[pos->n++] = w;
            continue;
        }
        if (strcmp(w, "--") == 0) {
            only_words = true;
            continue;
        }
        if (strcmp(w, "--help") == 0 || strcmp(w, "-h") == 0) {
            print_help(cmd, usage, about, opts);
            return 0;
        }
        if (strcmp(w, "--quiet") == 0) {
            dil_cli_quiet = true;
            continue;
        }
        if (strcmp(w, "--verbose") == 0) {
            verbose = true;
            continue;
        }
        if (strncmp(w, "--log-format", 12) == 0 && (!w[12] || w[12] == '=')) {
            const char *f = w[12] ? w + 13 : i + 1 < argc ? argv[++i] : "";
            if (strcmp(f, "json") != 0 && strcmp(f, "text") != 0) return dil_cli_usage("%s: --log-format is text or json, not '%s'", cmd, f);
            log_json = strcmp(f, "json") == 0;
            continue;
        }
        const char *eq = w[1] == '-' ? strchr(w, '=') : NULL;
        size_t len = eq ? (size_t)(eq - w) : strlen(w);
        const dil_cli_opt *o = find_opt(opts, w, len);
        if (!o) return unknown_option(cmd, opts, w, len);
        if (o->given) *o->given = true;
        if (o->kind == DIL_CLI_FLAG) {
            if (eq) return dil_cli_usage("%s: %.*s takes no value", cmd, (int)len, w);
            *(bool *)o->out = true;
            continue;
        }
        if (!eq && i + 1 >= argc) return dil_cli_usage("%s: %s wants %s", cmd, w, o->arg ? o->arg : "a value");
        int status = take_value(cmd, o, w, eq ? eq + 1 : argv[++i]);
        while (status < 0 && o->kind == DIL_CLI_LIST && !eq && i + 1 < argc && !is_option(argv[i + 1]))
            status = take_value(cmd, o, w, argv[++i]);
        if (status >= 0) return status;
    }
    if ((pos ? pos->n : 0) < min_pos)
        return dil_cli_usage("%s: too few arguments; usage: dilemma %s %s", cmd, cmd, usage);
    dil_log_set_sink(log_json ? log_json_line : log_line, NULL, verbose ? DIL_LOG_DEBUG : dil_cli_quiet ? DIL_LOG_ERROR : dil_cli_talks ? DIL_LOG_WARN : DIL_LOG_INFO);
    return -1;
}

bool dil_cli_color(void)
{
    const char *no = getenv("NO_COLOR");
    return isatty(STDERR_FILENO) && !(no && *no);
}

static void on_interrupt(int sig)
{
    (void)sig;
    if (interrupted) _exit(130);
    interrupted = 1;
}

bool dil_cli_interrupted(void)
{
    return interrupted != 0;
}

bool dil_cli_take_interrupt(void)
{
    bool was = interrupted != 0;
    interrupted = 0;
    return was;
}

static struct {
    char what[64];
    int64_t start_ns, shown_ns;
    double start_done;
} bar;

static void format_left(double sec, char out[32])
{
    if (sec < 90) snprintf(out, 32, "%.0f s left", sec);
    else if (sec < 5400) snprintf(out, 32, "%.0f min left", sec / 60);
    else snprintf(out, 32, "%.1f h left", sec / 3600);
}

static bool show_progress(void *ctx, const char *what, double done, double total)
{
    (void)ctx;
    if (interrupted) return false;
    if (dil_cli_quiet) return true;
    int64_t now = dil_now_ns();
    bool tty = isatty(STDERR_FILENO) != 0;
    if (strncmp(bar.what, what, sizeof bar.what - 1) != 0) {
        snprintf(bar.what, sizeof bar.what, "%s", what);
        bar.start_ns = bar.shown_ns = now;
        bar.start_done = done;
    }
    int64_t every = tty ? 100000000 : 5000000000;
    if (now - bar.shown_ns < every && done < total) return true;
    if (now - bar.start_ns < every) return true; /* what ends at once needs no bar */
    bar.shown_ns = now;
    double share = total > 0 ? done / total : 0;
    char left[32] = "";
    double sec = (double)(now - bar.start_ns) * 1e-9;
    if (done > bar.start_done && done < total) format_left(sec * (total - done) / (done - bar.start_done), left);
    if (!tty) {
        fprintf(stderr, "%s: %.0f %%  %s\n", what, share * 100, left);
        return true;
    }
    char line[31];
    int fill = (int)(share * 30);
    for (int i = 0; i < 30; i++) line[i] = i < fill ? '#' : '.';
    line[30] = 0;
    flockfile(stderr);
    fprintf(stderr, "\r\033[K%-24.40s [%s] %3.0f %%  %s", what, line, share * 100, left);
    bar_open = true;
    funlockfile(stderr);
    if (done >= total) dil_cli_progress_done();
    return true;
}

void dil_cli_progress_done(void)
{
    flockfile(stderr);
    if (bar_open) fputc('\n', stderr);
    bar_open = false;
    funlockfile(stderr);
    bar.what[0] = 0;
}

dil_progress *dil_cli_progress(void)
{
    static dil_progress p = {.fn = show_progress};
    struct sigaction sa = {.sa_handler = on_interrupt};
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    return &p;
}
