/* dilemma top: what a running server does, live, from its /metrics and /health. */
#include "cli/cli.h"

#include "base/json.h"
#include "serve/client.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct sample {
    int64_t at_ns;
    json_t *metric; /* name without "dilemma_" -> number; with labels as they stand */
    json_t *health;
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

static dil_status take(const dil__client *c, sample *out, dil_err *err)
{
    long http = 0;
    dil_buf b;
    *out = (sample){0};
    dil_buf_init(&b, 4u << 20);
    dil_status s = dil__client_get(c, "/metrics", &http, &b, err);
    if (s == DIL_OK && http != 200)
        s = dil_fail(err, http == 401 ? DIL_EAUTH : DIL_ENET, "%s: %ld%s", c->base, http, http == 401 ? ": it asks for a key; set DILEMMA_API_KEY" : "");
    out->at_ns = dil_now_ns();
    if (s == DIL_OK) out->metric = parse_metrics(dil_buf_str(&b));
    b.len = 0;
    if (s == DIL_OK) s = dil__client_get(c, "/health", &http, &b, err);
    if (s == DIL_OK) s = dil__json_parse("/health", dil_buf_str(&b), b.len, &out->health, err);
    dil_buf_fini(&b);
    return s;
}

static void drop(sample *s)
{
    json_decref(s->metric);
    json_decref(s->health);
    *s = (sample){0};
}

static double rate(const sample *a, const sample *b, const char *name)
{
    double sec = (double)(b->at_ns - a->at_ns) * 1e-9, d = value(b, name) - value(a, name);
    return a->metric && sec > 0 && d >= 0 ? d / sec : NAN;
}

static void print_json(const sample *a, const sample *b)
{
    json_t *doc = json_pack("{s:O, s:O, s:{s:o, s:o}}", "health", b->health, "metrics", b->metric, "per_second", "generated_tokens",
                            dil__json_real_or_null(rate(a, b, "generated_tokens_total")), "prompt_tokens", dil__json_real_or_null(rate(a, b, "prompt_tokens_total")));
    char *text = json_dumps(doc, JSON_COMPACT | JSON_REAL_PRECISION(9));
    puts(text ? text : "{}");
    fflush(stdout);
    free(text);
    json_decref(doc);
}

static void line(const char *what, double v, const char *unit)
{
    if (!isnan(v)) printf("  %-22s %12.*g %s\033[K\n", what, v < 1000 ? 3 : 9, v, unit);
}

static void print_screen(const dil__client *c, const sample *a, const sample *b)
{
    const char *status = json_string_value(json_object_get(b->health, "status")), *why = json_string_value(json_object_get(b->health, "reason"));
    const char *model = json_string_value(json_object_get(b->health, "model"));
    printf("%s  %s  \033[1m%s\033[0m%s%s\033[K\n\n", c->base, model ? model : "", status ? status : "?", why ? ": " : "", why ? why : "");
    line("generated", rate(a, b, "generated_tokens_total"), "tokens/s");
    line("read", rate(a, b, "prompt_tokens_total"), "tokens/s");
    line("a token of a stream", value(b, "token_seconds") * 1e3, "ms");
    line("running", value(b, "requests_active"), "requests");
    line("waiting", value(b, "requests_queued"), "requests");
    line("accepted", value(b, "requests_total"), "requests since start");
    line("failed", value(b, "failures_total"), "");
    line("survived losses", value(b, "recoveries_total"), "");
    line("tokens generated", value(b, "generated_tokens_total"), "since start");
    printf("\033[J\n(Ctrl-C ends)");
    fflush(stdout);
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
        {.name = "--once", .kind = DIL_CLI_FLAG, .out = &once, .help = "two looks, --every apart, and end"},
        {.name = "--json", .kind = DIL_CLI_FLAG, .out = &json, .help = "one JSON object a look"},
        DIL_CLI_END};
    int status = dil_cli_parse(argc, argv, "[--url URL]", "Shows what a running server does: tokens a second, queue, delay, failures.\n\n  dilemma top\n  dilemma top --once --json",
                               opts, NULL, 0, 0);
    if (status >= 0) return status;
    char base[600];
    snprintf(base, sizeof base, "%s", url);
    for (size_t n = strlen(base); n > 0 && base[n - 1] == '/'; n--) base[n - 1] = 0;
    dil__client c = {.base = base, .api_key = getenv("DILEMMA_API_KEY"), .ca_file = ca};
    dil_err err;
    sample before = {0}, now = {0};
    dil_cli_progress(); /* its handler of Ctrl-C */
    bool screen = !json && isatty(STDOUT_FILENO);
    dil_status s = take(&c, &before, &err);
    if (s == DIL_OK && screen) fputs("\033[2J", stdout);
    while (s == DIL_OK && !dil_cli_interrupted()) {
        for (double left = every; left > 0 && !dil_cli_interrupted(); left -= 0.05) dil_sleep_ns((int64_t)((left < 0.05 ? left : 0.05) * 1e9));
        if (dil_cli_interrupted() || (s = take(&c, &now, &err)) != DIL_OK) break;
        if (screen) fputs("\033[H", stdout);
        if (json) print_json(&before, &now);
        else print_screen(&c, &before, &now);
        drop(&before);
        before = now;
        now = (sample){0};
        if (once) break;
    }
    drop(&before);
    drop(&now);
    if (!json) putchar('\n');
    return s == DIL_OK ? 0 : dil_cli_fail("top", &err);
}

const dil_cli_cmd dil_cli_top = {"top", "watch a running server", run};
