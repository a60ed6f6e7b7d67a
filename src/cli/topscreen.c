/* A screen is written line by line into one buffer, so that a slow terminal never shows half of two. Columns are counted in code points: names of
 * machines are letters and digits, and the rest is ours. */
#include "cli/topscreen.h"

#include "cli/clean.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define BOLD "1"
#define RED "31"
#define GREEN "32"
#define SOFT "2"
#define HEAD "7"

typedef struct pen {
    dil_cli_top_view *v;
    dil_buf *out;
    int column, row;
} pen;

/* Text in the current line, cut at the terminal's edge. style NULL: plain. */
static void put(pen *p, const char *style, const char *fmt, ...) DIL_PRINTF(3, 4);
static void put(pen *p, const char *style, const char *fmt, ...)
{
    char raw[512], text[512];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(raw, sizeof raw, fmt, ap);
    va_end(ap);
    size_t len = n < 0 ? 0 : strlen(raw), end = 0;
    dil_cli_clean_text(raw, len, text);
    for (; end < len && p->column < p->v->columns; end++) {
        bool more = end + 1 < len && ((unsigned char)text[end + 1] & 0xc0) == 0x80; /* the character goes on */
        if (text[end] == '\n') text[end] = ' ';
        p->column += !more;
    }
    style = p->v->color ? style : NULL;
    if (style) dil_buf_printf(p->out, "\033[%sm", style);
    dil_buf_append(p->out, text, end);
    if (style) dil_buf_printf(p->out, "\033[m");
}

static void next_line(pen *p)
{
    dil_buf_printf(p->out, "\033[K");
    if (++p->row < p->v->rows) dil_buf_printf(p->out, "\n");
    p->column = 0;
}

static bool full(const pen *p, int lines_below)
{
    return p->row >= p->v->rows - lines_below;
}

/* --- numbers -------------------------------------------------------------------------------------------------------------------- */

static double number(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

static const char *text(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static const char *ms(double sec, char out[32])
{
    if (sec > 0) snprintf(out, 32, "%.*f ms", sec < 0.01 ? 2 : sec < 0.1 ? 1 : 0, sec * 1e3);
    else snprintf(out, 32, "-");
    return out;
}

/* Of a counter, a second; NAN where there is no earlier look, or the server began anew. */
static double rate(const json_t *before, const json_t *now, const char *key, double sec)
{
    double d = number(now, key) - number(before, key);
    return before && sec > 0 && d >= 0 ? d / sec : NAN;
}

static void bar(pen *p, double share, int width, const char *style, const char *label)
{
    char cells[128];
    int n = (int)strlen(label), on = (int)lround(fmin(1, fmax(0, isnan(share) ? 0 : share)) * width);
    if (width > (int)sizeof cells - 1) width = (int)sizeof cells - 1;
    for (int i = 0; i < width; i++) cells[i] = i >= width - n ? label[i - (width - n)] : i < on ? '|' : ' ';
    cells[width] = 0;
    put(p, NULL, "[");
    put(p, style, "%.*s", on, cells);
    put(p, NULL, "%s]", cells + (on < width ? on : width));
}

/* --- the parts ------------------------------------------------------------------------------------------------------------------ */

static void title(pen *p, const char *where, const json_t *now)
{
    bool ready = json_is_true(json_object_get(now, "ready"));
    put(p, BOLD, "%s", text(now, "model"));
    put(p, NULL, " at %s  ", where);
    put(p, ready ? GREEN : RED, "%s", ready ? "ready" : text(now, "why"));
    size_t n = json_array_size(json_object_get(now, "models"));
    if (n > 1) put(p, SOFT, "  (one of %zu models: m)", n);
    next_line(p);
}

static void traffic(pen *p, const json_t *before, const json_t *now, double sec)
{
    const json_t *was = json_object_get(before, "metrics"), *m = json_object_get(now, "metrics");
    double made = rate(was, m, "generated_tokens", sec), read = rate(was, m, "prompt_tokens", sec), guessed = number(m, "guessed_tokens");
    char label[32];
    if (made > p->v->most_tokens_sec) p->v->most_tokens_sec = made;
    snprintf(label, sizeof label, "%.1f", isnan(made) ? 0 : made);
    put(p, NULL, "tokens/s ");
    bar(p, p->v->most_tokens_sec > 0 ? made / p->v->most_tokens_sec : 0, p->v->columns > 100 ? 40 : 24, GREEN, label);
    put(p, NULL, "  reading %.0f a second  running ", isnan(read) ? 0 : read);
    put(p, BOLD, "%.0f", number(m, "active"));
    put(p, NULL, "  waiting ");
    put(p, number(m, "queued") > 0 ? BOLD : NULL, "%.0f", number(m, "queued"));
    put(p, SOFT, " of %.0f", number(m, "queue_max"));
    next_line(p);
    put(p, NULL, "requests %.0f  ", number(m, "requests"));
    put(p, number(m, "failures") > 0 ? RED : NULL, "failed %.0f", number(m, "failures"));
    put(p, NULL, "  survived losses %.0f  tokens made %.0f, read %.0f", number(m, "recoveries"), number(m, "generated_tokens"), number(m, "prompt_tokens"));
    if (guessed > 0) put(p, NULL, "  guessed %.0f, right %.0f %%", guessed, 100 * number(m, "accepted_tokens") / guessed);
    next_line(p);
    next_line(p);
}

static void delay_line(pen *p, const char *what, double predicted, double measured)
{
    char a[32], b[32];
    put(p, NULL, "  %-18s %10s %10s", what, ms(predicted, a), ms(measured, b));
    if (predicted > 0 && measured > 0) put(p, measured > 1.25 * predicted ? RED : SOFT, "  %+.0f %%", 100 * (measured / predicted - 1));
    next_line(p);
}

/* A round is one token of every running stream; beside others, or with guesses, it computes more than the plan's token. */
static void delays(pen *p, const json_t *now)
{
    const json_t *plan = json_object_get(now, "plan"), *m = json_object_get(now, "metrics"), *g;
    double compute = 0, token = number(plan, "token_sec");
    char first[32];
    size_t i;
    if (!json_is_object(plan)) {
        put(p, NULL, "a token of a stream takes %s; there is no plan: the model is in the server's own process", ms(number(m, "token_sec"), first));
        next_line(p);
        next_line(p);
        return;
    }
    json_array_foreach(json_object_get(plan, "stages"), i, g) compute += number(g, "compute_sec");
    put(p, SOFT, "  %-18s %10s %10s", "", "predicted", "measured");
    next_line(p);
    delay_line(p, "a token", token, number(m, "token_sec"));
    delay_line(p, "  computing", compute, number(m, "compute_sec"));
    delay_line(p, "  links, waiting", token - compute, number(m, "round_sec") - number(m, "compute_sec"));
    put(p, SOFT, "  the plan:");
    if (number(plan, "ratio_to_fp32") > 0) put(p, SOFT, " %.2f %% of fp32, damage %.3g (%s),", 100 * number(plan, "ratio_to_fp32"), number(plan, "predicted_damage"), text(plan, "damage_measure"));
    if (number(plan, "prefill_sec") > 0) put(p, SOFT, " %.2f s to the first token after %.0f,", number(plan, "prefill_sec"), number(plan, "tokens_in"));
    if (number(plan, "gap") < 1) put(p, SOFT, " at most %.2g %% slower than the best", 100 * number(plan, "gap"));
    else put(p, SOFT, " without a bound");
    next_line(p);
    next_line(p);
}

static const json_t *by_name(const json_t *list, const char *name)
{
    const json_t *o;
    size_t i;
    json_array_foreach(list, i, o) if (strcmp(text(o, "name"), name) == 0) return o;
    return NULL;
}

static void machine_line(pen *p, const json_t *before, const json_t *now, const json_t *machine, bool is_entry)
{
    const char *name = text(machine, "name");
    const json_t *live = by_name(json_object_get(now, "nodes"), name), *was = by_name(json_object_get(before, "nodes"), name), *g;
    double planned = 0, hop = 0, works = number(live, "works") - number(was, "works"), spent = number(live, "works_sec") - number(was, "works_sec");
    double offered = number(machine, "memory_bytes"), used = number(live, "rss_bytes") > 0 ? number(live, "rss_bytes") : number(live, "bytes");
    char a[32], b[32], c[32], label[80], u[32], o[32];
    size_t i;
    json_array_foreach(json_object_get(json_object_get(now, "plan"), "stages"), i, g) {
        if (strcmp(text(g, "node"), name) != 0) continue;
        planned += number(g, "compute_sec");
        hop += number(g, "hop_sec");
    }
    if (!(works > 0)) works = number(live, "works"), spent = number(live, "works_sec"); /* nothing since: of the whole session */
    bool idle = !live, fine = json_is_true(json_object_get(live, "ready"));
    snprintf(label, sizeof label, "%.12s%s", name, is_entry ? " <" : "");
    put(p, idle ? SOFT : NULL, "  %-14s %-14.14s ", label, idle ? "-" : text(live, "layers"));
    snprintf(label, sizeof label, "%s of %s", used > 0 ? dil_format_bytes((uint64_t)used, u) : "0 B", dil_format_bytes(offered > 0 ? (uint64_t)offered : 0, o));
    bar(p, offered > 0 && used > 0 ? used / offered : 0, 24, GREEN, label);
    put(p, NULL, " %9s %9s %9s ", ms(planned, a), ms(works > 0 ? spent / works * number(live, "stages") : 0, b), ms(hop, c));
    put(p, idle ? SOFT : fine ? GREEN : RED, "%s", idle ? "holds nothing" : text(live, "state"));
    next_line(p);
}

/* NULL: the server names none. */
static const json_t *at_index(const json_t *list, const json_t *o, const char *key)
{
    json_int_t i = json_integer_value(json_object_get(o, key));
    return i < 0 ? NULL : json_array_get(list, (size_t)i);
}

static void link_line(pen *p, const json_t *nodes, const json_t *link)
{
    double bits = 8 * number(link, "bytes_per_sec");
    char a[32];
    put(p, NULL, "  %-14.14s %-14.14s %9s there and back, %.3g %s", text(at_index(nodes, link, "from"), "name"),
        text(at_index(nodes, link, "to"), "name"), ms(number(link, "rtt_sec"), a), bits < 1e9 ? bits * 1e-6 : bits * 1e-9,
        bits < 1e9 ? "Mbit/s" : "Gbit/s");
    next_line(p);
}

static void list(pen *p, const json_t *before, const json_t *now)
{
    const json_t *cluster = json_object_get(now, "cluster"), *nodes = json_object_get(cluster, "nodes"), *links = json_object_get(cluster, "links");
    int n_nodes = (int)json_array_size(nodes), n = p->v->links ? (int)json_array_size(links) : n_nodes, room = p->v->rows - p->row - 2;
    if (!n || room < 1) return;
    if (p->v->links) put(p, HEAD, "  %-14s %-14s %9s %-45s", "from", "to", "", "");
    else put(p, HEAD, "  %-14s %-14s %-26s %9s %9s %9s %-13s", "machine", "layers", "memory", "planned", "computes", "hop", "state");
    next_line(p);
    if (p->v->scroll > n - room) p->v->scroll = n - room;
    if (p->v->scroll < 0) p->v->scroll = 0;
    double entry = number(cluster, "entry");
    for (int i = p->v->scroll; i < n && !full(p, 1); i++) {
        if (p->v->links) link_line(p, nodes, json_array_get(links, (size_t)i));
        else machine_line(p, before, now, json_array_get(nodes, (size_t)i), i == entry);
    }
}

static void help(pen *p)
{
    static const char *const lines[] = {
        "q  Ctrl-C     end",
        "l             links, and back to machines",
        "m             the next model, where several are served",
        "p             pause, and go on",
        "+  -          look more, or less often",
        "up, down      scroll the list of machines or links",
        "h  ?          this help; any key ends it",
        "",
        "planned: milliseconds of computing a token, as the plan predicts; computes: as measured",
        "there, over the last look or, where nothing was computed since, the whole session.",
        "<  marks the machine where requests arrive.", NULL};
    for (int i = 0; lines[i] && !full(p, 1); i++) {
        put(p, NULL, "  %s", lines[i]);
        next_line(p);
    }
}

void dil_cli_top_draw(dil_cli_top_view *v, const char *where, const json_t *before, const json_t *now, double sec, dil_buf *out)
{
    pen p = {.v = v, .out = out};
    title(&p, where, now);
    if (v->help) {
        next_line(&p);
        help(&p);
    } else {
        if (!full(&p, 4)) traffic(&p, before, now, sec);
        if (!full(&p, 7)) delays(&p, now);
        list(&p, before, now);
    }
    while (!full(&p, 1)) next_line(&p);
    if (v->note[0]) put(&p, RED, "%s", v->note);
    else put(&p, SOFT, "q end  h help  l %s  m model  p pause  up/down scroll", v->links ? "machines" : "links");
    dil_buf_printf(out, "\033[K");
}
