/* dilemma top: what a running server does, live. On a terminal a screen with keys, from /dilemma/state; elsewhere lines or JSON, from /metrics too. */
#include "cli/cli.h"
#include "cli/topscreen.h"

#include "base/json.h"
#include "serve/client.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

typedef struct sample {
    int64_t at_ns;
    json_t *metric; /* name without "dilemma_" -> number; with labels as they stand */
    json_t *health;
    json_t *state;  /* /dilemma/state */
} sample;

static double value(const sample *s, const char *name)
{
    const json_t *v = json_object_get(s->metric, name);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

/* "dilemma_name{labels} 12" */
static json_t *parse_metrics(const char *text)
{
    json_t *o = json_object();
    while (*text) {
        size_t n = strcspn(text, "\n"), name = 0;
        if (strncmp(text, "dilemma_", 8) == 0) {
            while (name < n && text[name] != ' ') name++;
            char key[256], number[64];
            if (name < n && name - 8 < sizeof key && n - name < sizeof number) {
                snprintf(key, sizeof key, "%.*s", (int)(name - 8), text + 8);
                snprintf(number, sizeof number, "%.*s", (int)(n - name - 1), text + name + 1);
                double v = strtod(number, NULL);
                json_object_set_new(o, key, isfinite(v) ? json_real(v) : json_null());
            }
        }
        text += n + (text[n] == '\n');
    }
    return o;
}

static dil_status get(const dil__client *c, const char *path, bool any_status, dil_buf *b, dil_err *err)
{
    long http = 0;
    b->len = 0;
    dil_status s = dil__client_get(c, path, &http, b, err);
    if (s != DIL_OK || http == 200 || any_status) return s;
    if (http == 401) return dil_fail(err, DIL_EAUTH, "%s asks for a key; set DILEMMA_API_KEY", c->base);
    return dil_fail(err, DIL_ENET, "%s answers %s with %ld: is that a dilemma server?", c->base, path, http);
}

static dil_status take(const dil__client *c, const char *model, sample *out, dil_err *err)
{
    dil_buf b;
    char path[500] = "/dilemma/state";
    size_t at = 0;
    *out = (sample){0};
    if (model) at = (size_t)snprintf(path, sizeof path, "/dilemma/state?model=");
    for (; model && *model && at + 4 < sizeof path; model++) at += (size_t)snprintf(path + at, 4, "%%%02x", (unsigned char)*model);
    dil_buf_init(&b, 16u << 20);
    dil_status s = get(c, "/metrics", false, &b, err);
    out->at_ns = dil_now_ns();
    if (s == DIL_OK) out->metric = parse_metrics(dil_buf_str(&b));
    if (s == DIL_OK) s = get(c, "/health", true, &b, err);
    if (s == DIL_OK) s = dil__json_parse("/health", dil_buf_str(&b), b.len, &out->health, err);
    if (s == DIL_OK) s = get(c, path, false, &b, err);
    if (s == DIL_OK) s = dil__json_parse(path, dil_buf_str(&b), b.len, &out->state, err);
    dil_buf_fini(&b);
    return s;
}

static void drop(sample *s)
{
    json_decref(s->metric);
    json_decref(s->health);
    json_decref(s->state);
    *s = (sample){0};
}

static double rate(const sample *a, const sample *b, const char *name)
{
    double sec = (double)(b->at_ns - a->at_ns) * 1e-9, d = value(b, name) - value(a, name);
    return a->metric && sec > 0 && d >= 0 ? d / sec : NAN;
}

static void print_json(const sample *a, const sample *b)
{
    json_t *doc = json_pack("{s:O, s:O, s:O, s:{s:o, s:o}}", "health", b->health, "metrics", b->metric, "state", b->state, "per_second", "generated_tokens",
                            dil__json_real_or_null(rate(a, b, "generated_tokens_total")), "prompt_tokens", dil__json_real_or_null(rate(a, b, "prompt_tokens_total")));
    char *text = json_dumps(doc, JSON_COMPACT | JSON_REAL_PRECISION(9));
    puts(text ? text : "{}");
    fflush(stdout);
    free(text);
    json_decref(doc);
}

static void line(const char *what, double v, const char *unit)
{
    if (!isnan(v)) printf("  %-22s %12.*g %s\n", what, v < 1000 ? 3 : 9, v, unit);
}

static void print_lines(const dil__client *c, const sample *a, const sample *b)
{
    const char *status = json_string_value(json_object_get(b->health, "status")), *why = json_string_value(json_object_get(b->health, "reason"));
    const char *model = json_string_value(json_object_get(b->state, "model"));
    printf("%s  %s  %s%s%s\n", c->base, model ? model : "", status ? status : "?", why ? ": " : "", why ? why : "");
    line("generated", rate(a, b, "generated_tokens_total"), "tokens/s");
    line("read", rate(a, b, "prompt_tokens_total"), "tokens/s");
    line("a token of a stream", value(b, "token_seconds") * 1e3, "ms");
    line("running", value(b, "requests_active"), "requests");
    line("waiting", value(b, "requests_queued"), "requests");
    line("accepted", value(b, "requests_total"), "requests since start");
    line("failed", value(b, "failures_total"), "");
    line("survived losses", value(b, "recoveries_total"), "");
    line("tokens generated", value(b, "generated_tokens_total"), "since start");
    fflush(stdout);
}

/* --- the screen ------------------------------------------------------------------------------------------------------------------- */

static struct termios as_it_was;
static bool has_keys;

static void leave_screen(void)
{
    if (has_keys) tcsetattr(STDIN_FILENO, TCSANOW, &as_it_was);
    fputs("\033[?25h\033[?1049l", stdout);
    fflush(stdout);
}

static void on_resize(int sig)
{
    (void)sig; /* it interrupts poll, and that draws anew */
}

/* The other screen, without a cursor; keys one by one. Undone at exit. */
static void enter_screen(void)
{
    sigaction(SIGWINCH, &(struct sigaction){.sa_handler = on_resize}, NULL);
    has_keys = isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, &as_it_was) == 0;
    if (has_keys) {
        struct termios raw = as_it_was;
        raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
        tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    }
    atexit(leave_screen);
    fputs("\033[?1049h\033[?25l\033[2J", stdout);
}

typedef struct live {
    const dil__client *server;
    sample before, now;
    dil_cli_top_view view;
    double every_sec;
    size_t model;             /* index in the state's list */
    bool paused, end;
    int64_t heard_ns;         /* the server answered then */
    dil_err problem;          /* of the last look; code DIL_OK: none */
} live;

static const char *model_name(const live *l)
{
    const json_t *all = json_object_get(l->now.state, "models");
    return l->model ? json_string_value(json_array_get(all, l->model)) : NULL;
}

static void draw(live *l)
{
    struct winsize w = {0};
    dil_buf b;
    dil_cli_top_view *v = &l->view;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) != 0 || !w.ws_col || !w.ws_row) w = (struct winsize){.ws_row = 24, .ws_col = 80};
    v->columns = w.ws_col;
    v->rows = w.ws_row;
    v->note[0] = 0;
    if (l->paused) snprintf(v->note, sizeof v->note, "paused; p goes on");
    else if (l->problem.code != DIL_OK)
        snprintf(v->note, sizeof v->note, "no answer for %.0f s: %.160s", (double)(dil_now_ns() - l->heard_ns) * 1e-9, l->problem.text);
    dil_buf_init(&b, 1u << 20);
    dil_buf_printf(&b, "\033[H");
    dil_cli_top_draw(v, l->server->base, l->before.state, l->now.state, (double)(l->now.at_ns - l->before.at_ns) * 1e-9, &b);
    fwrite(b.data, 1, b.len, stdout);
    fflush(stdout);
    dil_buf_fini(&b);
}

/* A server that does not answer is waited for: it may be started again. */
static void look(live *l)
{
    sample s;
    dil_err e = {0};
    if (take(l->server, model_name(l), &s, &e) != DIL_OK) {
        drop(&s);
        l->problem = e;
        return;
    }
    l->problem = (dil_err){0};
    l->heard_ns = dil_now_ns();
    drop(&l->before);
    l->before = l->now;
    l->now = s;
}

static void next_model(live *l)
{
    size_t n = json_array_size(json_object_get(l->now.state, "models"));
    if (n < 2) return;
    l->model = (l->model + 1) % n;
    l->view.most_tokens_sec = 0;
    look(l);
    drop(&l->before); /* of another model */
}

/* The first key of what was typed; returns behind it. */
static const char *key(live *l, const char *k)
{
    bool arrow = k[0] == '\033' && k[1] == '[' && k[2];
    char up_down = arrow ? k[2] : 0;
    if (l->view.help) l->view.help = false;
    else if (up_down == 'A' || *k == 'k') l->view.scroll--;
    else if (up_down == 'B' || *k == 'j') l->view.scroll++;
    else if (*k == 'q' || *k == 'Q') l->end = true;
    else if (*k == 'l') l->view.links = !l->view.links, l->view.scroll = 0;
    else if (*k == 'h' || *k == '?') l->view.help = true;
    else if (*k == 'p') l->paused = !l->paused;
    else if (*k == '+') l->every_sec = fmax(0.1, l->every_sec / 2);
    else if (*k == '-') l->every_sec = fmin(60, l->every_sec * 2);
    else if (*k == 'm') next_model(l);
    return k + (arrow ? 3 : 1);
}

/* Until it is time for the next look; keys act at once. */
static void wait_for_keys(live *l)
{
    int64_t end = dil_now_ns() + (int64_t)(l->every_sec * 1e9);
    struct pollfd in = {.fd = has_keys ? STDIN_FILENO : -1, .events = POLLIN};
    for (int64_t left; !l->end && !dil_cli_interrupted() && (left = end - dil_now_ns()) > 0;) {
        int n = poll(&in, 1, (int)(left / 1000000) + 1);
        if (n < 0 && errno == EINTR) draw(l); /* Ctrl-C, or another size */
        if (n <= 0) continue;
        char k[16] = {0};
        ssize_t got = read(STDIN_FILENO, k, sizeof k - 1);
        if (got <= 0) l->end = true;
        for (const char *next = k; *next && !l->end;) next = key(l, next);
        if (!l->end) draw(l);
    }
}

static void on_screen(const dil__client *c, sample *first, double every)
{
    live l = {.server = c, .now = *first, .every_sec = every, .heard_ns = first->at_ns, .view = {.color = !getenv("NO_COLOR")}};
    *first = (sample){0};
    enter_screen();
    while (!l.end && !dil_cli_interrupted()) {
        draw(&l);
        wait_for_keys(&l);
        if (!l.paused && !l.end && !dil_cli_interrupted()) look(&l);
    }
    drop(&l.before);
    drop(&l.now);
}

/* --- lines -------------------------------------------------------------------------------------------------------------------------- */

static dil_status in_lines(const dil__client *c, sample *before, double every, bool once, bool json, dil_err *err)
{
    sample now = {0};
    dil_status s = DIL_OK;
    while (!dil_cli_interrupted()) {
        for (double left = every; left > 0 && !dil_cli_interrupted(); left -= 0.05) dil_sleep_ns((int64_t)((left < 0.05 ? left : 0.05) * 1e9));
        if (dil_cli_interrupted() || (s = take(c, NULL, &now, err)) != DIL_OK) break;
        if (json) print_json(before, &now);
        else print_lines(c, before, &now);
        drop(before);
        *before = now;
        now = (sample){0};
        if (once) break;
    }
    drop(&now);
    return s;
}

static int run(int argc, char **argv)
{
    const char *url = "http://localhost:8080", *ca = NULL;
    double every = 1;
    bool once = false, json = false;
    const dil_cli_opt opts[] = {
        {.name = "--url", .kind = DIL_CLI_STR, .out = &url, .arg = "URL", .help = "of the server (http://localhost:8080); its key: $DILEMMA_API_KEY"},
        {.name = "--ca", .kind = DIL_CLI_STR, .out = &ca, .arg = "FILE", .help = "certificates to trust, PEM (the system's)"},
        {.name = "--every", .kind = DIL_CLI_NUM, .out = &every, .arg = "SEC", .help = "between two looks (1)", .min = 0.1, .max = 3600},
        {.name = "--once", .kind = DIL_CLI_FLAG, .out = &once, .help = "two looks, --every apart, as lines, and end"},
        {.name = "--json", .kind = DIL_CLI_FLAG, .out = &json, .help = "one JSON object a look"},
        DIL_CLI_END};
    int status = dil_cli_parse(argc, argv, "[--url URL]",
                               "Shows what a running server does: tokens a second, queue, predicted and measured delay, machines and links.\n"
                               "On a terminal q ends, and h lists the other keys.\n\n  dilemma top\n  dilemma top --once --json",
                               opts, NULL, 0, 0);
    if (status >= 0) return status;
    char base[600];
    snprintf(base, sizeof base, "%s", url);
    for (size_t n = strlen(base); n > 0 && base[n - 1] == '/'; n--) base[n - 1] = 0;
    dil__client c = {.base = base, .api_key = getenv("DILEMMA_API_KEY"), .ca_file = ca};
    dil_err err;
    sample first = {0};
    dil_cli_progress(); /* its handler of Ctrl-C */
    dil_status s = take(&c, NULL, &first, &err);
    if (s == DIL_OK && !json && !once && isatty(STDOUT_FILENO)) on_screen(&c, &first, every);
    else if (s == DIL_OK) s = in_lines(&c, &first, every, once, json, &err);
    drop(&first);
    return s == DIL_OK ? 0 : dil_cli_fail("top", &err);
}

const dil_cli_cmd dil_cli_top = {"top", "watch a running server", run};
