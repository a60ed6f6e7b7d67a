/* The report's page: a few figures first, the pictures, then tables with everything behind them. */
#include "serve/report.h"

#include <math.h>
#include <string.h>

void dil__html_text(dil_buf *out, const char *s)
{
    for (; *s; s++) {
        switch (*s) {
        case '&': dil_buf_append(out, "&amp;", 5); break;
        case '<': dil_buf_append(out, "&lt;", 4); break;
        case '>': dil_buf_append(out, "&gt;", 4); break;
        case '"': dil_buf_append(out, "&quot;", 6); break;
        case '\'': dil_buf_append(out, "&#39;", 5); break;
        default: dil_buf_append(out, (unsigned char)*s < 0x20 && *s != '\n' ? " " : s, 1);
        }
    }
}

static const char style[] =
    ":root{--bg:#fbfbf9;--card:#fff;--ink:#1d2327;--soft:#5d6a73;--line:#dfe3e6;--accent:#0b6e8f;--good:#1f7a4d;--lane:#f1f3f4;"
    "--b0:#e8f1d8;--b1:#cfe6c4;--b2:#a5d4bd;--b3:#74bcb9;--b4:#459dae;--b5:#2a7a99;--b6:#235a80;--b7:#1d3d63;--hop:#c4741b;--c1:#2a7a99;--c2:#74bcb9;--meas:#7a5aa8}"
    "@media(prefers-color-scheme:dark){:root{--bg:#14181b;--card:#1c2226;--ink:#e8ecef;--soft:#9aa8b1;--line:#323b41;--accent:#62bcd8;--good:#6cc797;--lane:#242b30;--hop:#e09a4a;--meas:#ab90d6}}"
    "*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}"
    "main{max-width:980px;margin:0 auto;padding:20px 16px 60px}h1{font-size:1.6rem;line-height:1.2;margin:.4em 0 .2em}h2{font-size:1.15rem;margin:0 0 .6em}"
    "p{margin:.4em 0 .8em}.soft{color:var(--soft)}.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:18px 0}"
    ".tile,section{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:14px 16px}.tile b{display:block;font-size:1.5rem;line-height:1.25;font-weight:650}"
    ".tile span{color:var(--soft);font-size:.85rem}section{margin:14px 0}.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,320px),1fr));gap:14px}"
    ".pair section{margin:0}svg{width:100%;max-width:460px;height:auto;display:block;margin:0 auto}"
    ".scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}"
    "th,td{text-align:left;padding:6px 10px 6px 0;border-bottom:1px solid var(--line);vertical-align:top}th{color:var(--soft);font-weight:600}td.n,th.n{text-align:right}td.n{white-space:nowrap}"
    "tr:last-child td{border-bottom:0}code{font:.85em/1.4 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-wrap:anywhere}details{margin-top:.6em}summary{cursor:pointer;color:var(--accent)}"
    ".qa{border-top:1px solid var(--line);padding:10px 0}.qa:first-of-type{border-top:0}.qa p{margin:.15em 0}.who{color:var(--soft);font-size:.85rem}"
    "text{font:11px system-ui,sans-serif;fill:var(--ink)}.mid{text-anchor:middle}.end{text-anchor:end}.node{font-weight:650;font-size:12px}.tick{font-size:9px;fill:var(--soft)}.cell{font-size:8.5px;fill:#10262e}"
    ".t5,.t6,.t7{fill:#fff}.small{font-size:10px;fill:var(--ink)}.lane{fill:var(--lane)}.b0{fill:var(--b0)}.b1{fill:var(--b1)}.b2{fill:var(--b2)}.b3{fill:var(--b3)}.b4{fill:var(--b4)}.b5{fill:var(--b5)}.b6{fill:var(--b6)}.b7{fill:var(--b7)}"
    ".hop{fill:none;stroke:var(--hop);stroke-width:2.2}.link{stroke:var(--soft);stroke-width:1.5}.pill{fill:var(--card);stroke:var(--line)}.box{fill:var(--lane);stroke:var(--line)}.entry{stroke:var(--accent);stroke-width:2}"
    ".comp1{fill:var(--c1)}.comp2{fill:var(--c2)}.hopbar{fill:var(--hop)}.meas{fill:var(--meas)}"
    ".key{display:flex;flex-wrap:wrap;gap:4px 14px;font-size:.82rem;color:var(--soft);margin-top:8px}.key i{display:inline-block;width:.8em;height:.8em;border-radius:3px;margin-right:.35em;vertical-align:-.05em}";

static void tile(dil_buf *b, const char *value, const char *label)
{
    dil_buf_printf(b, "<div class=\"tile\"><b>");
    dil__html_text(b, value);
    dil_buf_printf(b, "</b><span>");
    dil__html_text(b, label);
    dil_buf_printf(b, "</span></div>");
}

static void tiles(const dil__report *r, dil_buf *b)
{
    char v[64], l[160], size[32];
    dil_buf_printf(b, "<div class=\"tiles\">");
    snprintf(v, sizeof v, "%.2f %%", 100 * r->after.ratio_to_fp32);
    snprintf(l, sizeof l, isnan(r->max_ratio) ? "of fp32: %s" : "of fp32: %s (budget %.2f %%)", dil_format_bytes(r->after.bytes, size), 100 * r->max_ratio);
    tile(b, v, l);
    if (!isnan(r->measured_token_sec)) {
        snprintf(v, sizeof v, "%.1f ms", 1e3 * r->measured_token_sec);
        snprintf(l, sizeof l, "a token, measured (%.1f tokens/s)", 1 / r->measured_token_sec);
        tile(b, v, l);
    }
    snprintf(v, sizeof v, "%.1f ms", 1e3 * r->plan->token_sec);
    tile(b, v, "a token, predicted");
    snprintf(v, sizeof v, "%.3f \xe2\x86\x92 %.3f", r->before.loss, r->after.loss);
    snprintf(l, sizeof l, "loss before and after (%+.1f %%)", 100 * (r->after.loss / r->before.loss - 1));
    tile(b, v, l);
    snprintf(v, sizeof v, "%.4f", r->after.kl_mean);
    snprintf(l, sizeof l, "KL divergence from the teacher, nats a token; same first choice %.1f %%", 100 * r->after.top1_agreement);
    tile(b, v, l);
    dil_buf_printf(b, "</div>");
}

static void bits_key(dil_buf *b)
{
    static const char *const name[] = {"\xe2\x89\xa4 2.5", "3", "4", "4.5", "5", "6", "8", "16 and more bits a weight"};
    dil_buf_printf(b, "<div class=\"key\">");
    for (int i = 0; i < 8; i++) dil_buf_printf(b, "<span><i style=\"background:var(--b%d)\"></i>%s</span>", i, name[i]);
    dil_buf_printf(b, "</div>");
}

static void th(dil_buf *b, const char *const *name, size_t n)
{
    dil_buf_printf(b, "<div class=\"scroll\"><table><tr>");
    for (size_t i = 0; i < n; i++) dil_buf_printf(b, "<th%s>%s</th>", i ? " class=\"n\"" : "", name[i]);
    dil_buf_printf(b, "</tr>");
}

static void end_table(dil_buf *b)
{
    dil_buf_printf(b, "</table></div>");
}

static void machines_table(const dil__report *r, dil_buf *b)
{
    static const char *const head[] = {"machine", "memory", "weights held", "layers", "slowed by", "compute a token"};
    th(b, head, 6);
    for (uint32_t i = 0; i < r->cluster->n_nodes; i++) {
        const dil_cluster_node *d = &r->cluster->nodes[i];
        uint64_t bytes = 0;
        uint32_t layers = 0;
        double sec = 0;
        for (uint32_t s = 0; s < r->plan->n_stages; s++) {
            const dil_plan_stage *g = &r->plan->stages[s];
            if (strcmp(g->node, d->name) != 0) continue;
            bytes += g->bytes;
            layers += g->last_layer - g->first_layer + 1;
            sec += g->compute_sec;
        }
        char m[32], w[32];
        dil_buf_printf(b, "<tr><td>");
        dil__html_text(b, d->name);
        dil_buf_printf(b, "%s</td><td class=\"n\">%s</td><td class=\"n\">%s</td><td class=\"n\">%u</td><td class=\"n\">%.3g</td><td class=\"n\">%.2f ms</td></tr>",
                       i == r->cluster->entry ? " (entry)" : "", dil_format_bytes(d->memory_bytes, m), dil_format_bytes(bytes, w), layers, d->throttle, 1e3 * sec);
    }
    end_table(b);
}

static void links_table(const dil__report *r, dil_buf *b)
{
    static const char *const head[] = {"link", "one way", "round trip", "rate"};
    dil_buf_printf(b, "<details><summary>all links, as measured</summary>");
    th(b, head, 4);
    for (uint32_t i = 0; i < r->cluster->n_links && i < 500; i++) {
        const dil_cluster_link *l = &r->cluster->links[i];
        dil_buf_printf(b, "<tr><td>");
        dil__html_text(b, r->cluster->nodes[l->from].name);
        dil_buf_printf(b, " \xe2\x86\x92 ");
        dil__html_text(b, r->cluster->nodes[l->to].name);
        dil_buf_printf(b, "</td><td class=\"n\">%.2f ms</td><td class=\"n\">%.2f ms</td><td class=\"n\">%.0f Mbit/s</td></tr>", l->latency_sec * 1e3,
                       l->rtt_sec * 1e3, l->bytes_per_sec * 8e-6);
    }
    end_table(b);
    dil_buf_printf(b, "</details>");
}

static void stages_table(const dil__report *r, dil_buf *b)
{
    static const char *const head[] = {"stage", "layers", "weights", "compute", "hop to the next"};
    th(b, head, 5);
    for (uint32_t s = 0; s < r->plan->n_stages; s++) {
        const dil_plan_stage *g = &r->plan->stages[s];
        char w[32];
        dil_buf_printf(b, "<tr><td>%u. ", s + 1);
        dil__html_text(b, g->node);
        dil_buf_printf(b, "</td><td class=\"n\">%u\xe2\x80\x93%u</td><td class=\"n\">%s</td><td class=\"n\">%.2f ms</td><td class=\"n\">%.2f ms</td></tr>", g->first_layer,
                       g->last_layer, dil_format_bytes(g->bytes, w), 1e3 * g->compute_sec, 1e3 * g->hop_sec);
    }
    end_table(b);
}

static void quality_table(const dil__report *r, dil_buf *b)
{
    static const char *const head[] = {"", "before", "after"};
    char s1[32], s2[32];
    th(b, head, 3);
    dil_buf_printf(b, "<tr><td>size</td><td class=\"n\">%s</td><td class=\"n\">%s</td></tr>", dil_format_bytes(r->before.bytes, s1), dil_format_bytes(r->after.bytes, s2));
    dil_buf_printf(b, "<tr><td>of fp32, embedding and head included</td><td class=\"n\">%.2f %%</td><td class=\"n\">%.2f %%</td></tr>", 100 * r->before.ratio_to_fp32,
                   100 * r->after.ratio_to_fp32);
    dil_buf_printf(b, "<tr><td>bits a weight</td><td class=\"n\">%.2f</td><td class=\"n\">%.2f</td></tr>", r->before.bits_per_weight, r->after.bits_per_weight);
    dil_buf_printf(b, "<tr><td>loss, nats a token (%llu tokens)</td><td class=\"n\">%.4f</td><td class=\"n\">%.4f</td></tr>", (unsigned long long)r->after.tokens,
                   r->before.loss, r->after.loss);
    dil_buf_printf(b, "<tr><td>KL divergence, mean \xc2\xb1 standard error</td><td class=\"n\">0</td><td class=\"n\">%.4f \xc2\xb1 %.4f</td></tr>", r->after.kl_mean, r->after.kl_stderr);
    dil_buf_printf(b, "<tr><td>KL divergence, 99th percentile</td><td class=\"n\">0</td><td class=\"n\">%.3f</td></tr>", r->after.kl_p99);
    dil_buf_printf(b, "<tr><td>mean, predicted by the plan</td><td class=\"n\">0</td><td class=\"n\">%.4f</td></tr>", r->plan->predicted_damage);
    if (isfinite(r->first_damage))
        dil_buf_printf(b, "<tr><td>mean, predicted before the student was measured on text kept apart</td><td class=\"n\">0</td><td class=\"n\">%.4f</td></tr>", r->first_damage);
    if (isfinite(r->after.f1) && isfinite(r->before.f1))
        dil_buf_printf(b, "<tr><td>answers: exact match, F1</td><td class=\"n\">%.1f %%, %.1f %%</td><td class=\"n\">%.1f %%, %.1f %%</td></tr>", 100 * r->before.em,
                       100 * r->before.f1, 100 * r->after.em, 100 * r->after.f1);
    end_table(b);
}

static void answer_line(dil_buf *b, const char *who, const char *text)
{
    dil_buf_printf(b, "<p><span class=\"who\">%s</span> ", who);
    dil__html_text(b, text && *text ? text : "(nothing)");
    dil_buf_printf(b, "</p>");
}

static void answers(const dil__report *r, dil_buf *b)
{
    dil_buf_printf(b, "<section><h2>Answers</h2>");
    for (size_t i = 0; i < r->n_answers; i++) {
        const dil__report_answer *a = &r->answers[i];
        dil_buf_printf(b, "<div class=\"qa\"><p><strong>");
        dil__html_text(b, a->question);
        dil_buf_printf(b, "</strong></p>");
        answer_line(b, "student, over the machines:", a->student);
        answer_line(b, "teacher, here:", a->teacher);
        if (a->expected) answer_line(b, "expected:", a->expected);
        dil_buf_printf(b, "</div>");
    }
    dil_buf_printf(b, "</section>");
}

static void layers_table(const dil__report *r, dil_buf *b)
{
    static const char *const head[] = {"layer", "machine", "bytes", "types"};
    dil_buf_printf(b, "<section><h2>Every layer</h2><details><summary>%u layers</summary>", r->plan->n_layers);
    th(b, head, 4);
    for (uint32_t l = 0; l < r->plan->n_layers; l++) {
        const dil_plan_layer *p = &r->plan->layers[l];
        dil_buf_printf(b, "<tr><td>");
        dil__html_text(b, p->name);
        dil_buf_printf(b, "</td><td class=\"n\">");
        dil__html_text(b, p->node);
        dil_buf_printf(b, "</td><td class=\"n\">%llu</td><td>", (unsigned long long)p->bytes);
        for (uint32_t i = 0; i < p->n_types; i++) {
            dil_buf_printf(b, i ? ", " : "");
            dil__html_text(b, p->types[i].role);
            dil_buf_printf(b, " ");
            dil__html_text(b, p->types[i].type);
        }
        dil_buf_printf(b, "</td></tr>");
    }
    end_table(b);
    dil_buf_printf(b, "</details></section>");
}

static void steps_table(const dil__report *r, dil_buf *b)
{
    static const char *const head[] = {"step", "seconds"};
    th(b, head, 2);
    for (size_t i = 0; i < r->n_steps; i++) {
        dil_buf_printf(b, "<tr><td>");
        dil__html_text(b, r->steps[i].name);
        if (r->steps[i].kept) dil_buf_printf(b, "</td><td class=\"n\">kept</td></tr>");
        else dil_buf_printf(b, "</td><td class=\"n\">%.1f</td></tr>", r->steps[i].sec);
    }
    end_table(b);
}

void dil__report_html(const dil__report *r, dil_buf *b)
{
    dil_buf_printf(b, "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">"
                      "<meta name=\"color-scheme\" content=\"light dark\"><title>");
    dil__html_text(b, r->title);
    dil_buf_printf(b, "</title><style>%s</style></head><body><main><p class=\"soft\">dilemma, ", style);
    dil__html_text(b, r->when);
    dil_buf_printf(b, "</p><h1>");
    dil__html_text(b, r->title);
    dil_buf_printf(b, "</h1><p>");
    dil__html_text(b, r->model_name);
    dil_buf_printf(b, " over %u machine%s: measured, planned together with its bits, quantized, and run.</p>", r->cluster->n_nodes, r->cluster->n_nodes == 1 ? "" : "s");
    tiles(r, b);
    dil_buf_printf(b, "<div class=\"pair\"><section><h2>The plan</h2>");
    dil__report_plan_svg(r, b);
    bits_key(b);
    dil_buf_printf(b, "</section><div><section><h2>Machines and links</h2>");
    dil__report_links_svg(r, b);
    machines_table(r, b);
    links_table(r, b);
    dil_buf_printf(b, "</section><section style=\"margin-top:14px\"><h2>One token's time</h2>");
    dil__report_time_svg(r, b);
    dil_buf_printf(b, "<div class=\"key\"><span><i style=\"background:var(--c1)\"></i><i style=\"background:var(--c2)\"></i>compute</span><span><i style=\"background:var(--hop)\"></i>"
                      "links</span><span><i style=\"background:var(--meas)\"></i>measured</span></div>");
    stages_table(r, b);
    dil_buf_printf(b, "<p class=\"soft\">Planned by %s: total %.2f s for %u tokens in and %u out, proved no better than %.2f s (gap %.2f %%).</p></section></div></div>",
                   r->plan->solver, r->plan->total_sec, r->plan->tokens_in, r->plan->tokens_out, r->plan->bound_sec, 100 * r->plan->gap);
    dil_buf_printf(b, "<div class=\"pair\" style=\"margin-top:14px\"><section><h2>Quality and size</h2>");
    quality_table(r, b);
    dil_buf_printf(b, "</section><section><h2>How it came about</h2>");
    steps_table(r, b);
    for (size_t i = 0; i < r->n_notes; i++) {
        dil_buf_printf(b, "<p class=\"soft\">");
        dil__html_text(b, r->notes[i]);
        dil_buf_printf(b, "</p>");
    }
    dil_buf_printf(b, "<p><code>");
    dil__html_text(b, r->command);
    dil_buf_printf(b, "</code></p></section></div>");
    if (r->n_answers) answers(r, b);
    layers_table(r, b);
    dil_buf_printf(b, "</main></body></html>\n");
}
