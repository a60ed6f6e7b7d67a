/* The report's pictures. Colours are CSS classes, so that light and dark are the page's matter; sizes are in a viewBox about as
 * wide as a phone, so that text stays readable there. Vertical layers were chosen over horizontal ones for that reason. */
#include "serve/report.h"

#include <dilemma/tensor.h>

#include <math.h>
#include <string.h>

#define PLAN_NODES_MAX 12 /* columns of the picture; the table below it has all */
#define LINK_NODES_MAX 8

/* Nodes that the plan uses, in the cluster's order; then the others, as far as columns go. */
static uint32_t pick_columns(const dil__report *r, uint32_t cap, uint32_t *col)
{
    uint32_t n = 0;
    for (int used = 1; used >= 0; used--) {
        for (uint32_t i = 0; i < r->cluster->n_nodes && n < cap; i++) {
            bool in = false;
            for (uint32_t s = 0; s < r->plan->n_stages; s++) in |= strcmp(r->plan->stages[s].node, r->cluster->nodes[i].name) == 0;
            if (in == (used == 1)) col[n++] = i;
        }
    }
    return n;
}

static int column_of(const dil__report *r, const uint32_t *col, uint32_t n, const char *node)
{
    for (uint32_t i = 0; i < n; i++) {
        if (strcmp(r->cluster->nodes[col[i]].name, node) == 0) return (int)i;
    }
    return -1;
}

static int bits_class(double bits)
{
    static const double upto[] = {2.5, 3.5, 4.4, 4.9, 5.6, 7, 9};
    for (int i = 0; i < 7; i++) {
        if (bits <= upto[i]) return i;
    }
    return 7;
}

static const char *short_name(const char *name, char out[16])
{
    size_t n = strlen(name);
    if (n <= 10) return snprintf(out, 16, "%s", name), out;
    return snprintf(out, 16, "%.8s\xe2\x80\xa6", name), out; /* names are plain ASCII by the cluster's rules or cut at worst */
}

static void svg_text(dil_buf *b, double x, double y, const char *cls, const char *text)
{
    dil_buf_printf(b, "<text x=\"%.1f\" y=\"%.1f\" class=\"%s\">", x, y, cls);
    dil__html_text(b, text);
    dil_buf_printf(b, "</text>");
}

/* The types of a layer in one short line: the different ones in their order. */
static void types_line(const dil_plan_layer *l, char *out, size_t cap)
{
    size_t n = 0;
    out[0] = 0;
    for (uint32_t i = 0; i < l->n_types && n < cap; i++) {
        bool again = false;
        for (uint32_t k = 0; k < i; k++) again |= strcmp(l->types[k].type, l->types[i].type) == 0;
        if (!again) n += (size_t)snprintf(out + n, cap - n, "%s%s", n ? " " : "", l->types[i].type);
    }
}

void dil__report_plan_svg(const dil__report *r, dil_buf *b)
{
    const dil_plan *p = r->plan;
    uint32_t col[PLAN_NODES_MAX], n_col = pick_columns(r, PLAN_NODES_MAX, col);
    const double left = 62, top = 34, row = 15, width = 340 - left, cw = n_col ? width / n_col : width;
    double height = top + row * p->n_layers + 10;
    dil_buf_printf(b, "<svg viewBox=\"0 0 350 %.0f\" role=\"img\" aria-label=\"The plan: which machine holds each layer, and at which types\">", height);
    char name[16], text[96];
    for (uint32_t c = 0; c < n_col; c++) {
        svg_text(b, left + cw * (c + 0.5), 14, "node mid", short_name(r->cluster->nodes[col[c]].name, name));
        dil_buf_printf(b, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" rx=\"5\" class=\"lane\"/>", left + cw * c + 2, top - 6,
                       cw - 4, row * p->n_layers + 10);
    }
    double px = NAN, py = 0;
    for (uint32_t l = 0; l < p->n_layers; l++) {
        int c = column_of(r, col, n_col, p->layers[l].node);
        double y = top + row * l;
        svg_text(b, left - 6, y + 10.5, "tick end", p->layers[l].name);
        if (c < 0) continue;
        double x = left + cw * c + 6, mid = left + cw * (c + 0.5);
        if (!isnan(px) && fabs(px - mid) > 1)
            dil_buf_printf(b, "<path d=\"M%.1f %.1f C%.1f %.1f %.1f %.1f %.1f %.1f\" class=\"hop\"/>", px, py, px, py + 9, mid, y - 9, mid, y + 1);
        double bits = dil_plan_layer_bits(&p->layers[l]);
        types_line(&p->layers[l], text, sizeof text);
        dil_buf_printf(b, "<g><title>");
        dil__html_text(b, p->layers[l].name);
        dil_buf_printf(b, " on ");
        dil__html_text(b, p->layers[l].node);
        for (uint32_t i = 0; i < p->layers[l].n_types; i++) {
            dil_buf_printf(b, "&#10;");
            dil__html_text(b, p->layers[l].types[i].role);
            dil_buf_printf(b, " ");
            dil__html_text(b, p->layers[l].types[i].type);
        }
        dil_buf_printf(b, "</title><rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" rx=\"3\" class=\"b%d\"/>", x, y, cw - 12, row - 2,
                       bits_class(bits));
        size_t fits = (size_t)((cw - 14) / 4.9);
        if (strlen(text) > fits && fits > 2) snprintf(text + fits - 1, sizeof text - fits + 1, "\xe2\x80\xa6");
        dil_buf_printf(b, "<text x=\"%.1f\" y=\"%.1f\" class=\"cell mid t%d\">", mid, y + 9.7, bits_class(bits));
        dil__html_text(b, text);
        dil_buf_printf(b, "</text></g>");
        px = mid;
        py = y + row - 2;
    }
    dil_buf_printf(b, "</svg>");
}

static void link_label(const dil_cluster_link *l, char *out, size_t cap)
{
    double mbit = l->bytes_per_sec * 8e-6;
    snprintf(out, cap, mbit >= 1000 ? "%.1f ms  %.1f Gbit/s" : "%.1f ms  %.0f Mbit/s", l->latency_sec * 1e3, mbit >= 1000 ? mbit / 1000 : mbit);
}

void dil__report_links_svg(const dil__report *r, dil_buf *b)
{
    const dil_cluster *c = r->cluster;
    uint32_t col[LINK_NODES_MAX], n = pick_columns(r, LINK_NODES_MAX, col);
    double x[LINK_NODES_MAX], y[LINK_NODES_MAX];
    const double cx = 175, cy = 130, rx = 118, ry = 92;
    for (uint32_t i = 0; i < n; i++) {
        double a = -M_PI / 2 + 2 * M_PI * i / n;
        x[i] = cx + rx * cos(a);
        y[i] = cy + ry * sin(a);
    }
    dil_buf_printf(b, "<svg viewBox=\"0 0 350 262\" role=\"img\" aria-label=\"The machines and the links between them, as measured\">");
    char text[64];
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t k = i + 1; k < n; k++) {
            const dil_cluster_link *l = dil_cluster_link_get(c, col[i], col[k]);
            if (!l) continue;
            dil_buf_printf(b, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" class=\"link\"/>", x[i], y[i], x[k], y[k]);
            if (n > 4) continue; /* the table has the figures */
            link_label(l, text, sizeof text);
            double mx = (x[i] + x[k]) / 2, my = (y[i] + y[k]) / 2;
            dil_buf_printf(b, "<rect x=\"%.1f\" y=\"%.1f\" width=\"112\" height=\"16\" rx=\"8\" class=\"pill\"/>", mx - 56, my - 8);
            svg_text(b, mx, my + 3.6, "small mid", text);
        }
    }
    for (uint32_t i = 0; i < n; i++) {
        const dil_cluster_node *d = &c->nodes[col[i]];
        bool entry = c->entry == col[i];
        dil_buf_printf(b, "<rect x=\"%.1f\" y=\"%.1f\" width=\"92\" height=\"42\" rx=\"10\" class=\"box%s\"/>", x[i] - 46, y[i] - 21, entry ? " entry" : "");
        char name[16], size[32];
        svg_text(b, x[i], y[i] - 4, "node mid", short_name(d->name, name));
        snprintf(text, sizeof text, d->throttle > 1 ? "%s, \xc3\xb7%.3g" : "%s", dil_format_bytes(d->memory_bytes, size), d->throttle);
        svg_text(b, x[i], y[i] + 11, "small mid", text);
    }
    dil_buf_printf(b, "</svg>");
}

static void bar(dil_buf *b, double x, double y, double w, const char *cls, const char *title, double sec)
{
    dil_buf_printf(b, "<g><title>");
    dil__html_text(b, title);
    dil_buf_printf(b, ": %.2f ms</title><rect x=\"%.1f\" y=\"%.1f\" width=\"%.2f\" height=\"22\" class=\"%s\"/></g>", sec * 1e3, x, y, w > 0.3 ? w - 0.3 : w, cls);
}

void dil__report_time_svg(const dil__report *r, dil_buf *b)
{
    const dil_plan *p = r->plan;
    double longest = p->token_sec;
    if (r->measured_token_sec > longest) longest = r->measured_token_sec;
    const double scale = 336 / (longest > 0 ? longest : 1);
    dil_buf_printf(b, "<svg viewBox=\"0 0 350 96\" role=\"img\" aria-label=\"Seconds a token, predicted and measured\">");
    char text[128];
    snprintf(text, sizeof text, "predicted %.1f ms a token", p->token_sec * 1e3);
    svg_text(b, 6, 12, "small", text);
    double x = 6;
    for (uint32_t s = 0; s < p->n_stages; s++) {
        snprintf(text, sizeof text, "%.80s computes", p->stages[s].node);
        bar(b, x, 18, p->stages[s].compute_sec * scale, s % 2 ? "comp2" : "comp1", text, p->stages[s].compute_sec);
        x += p->stages[s].compute_sec * scale;
        snprintf(text, sizeof text, "%.80s sends on", p->stages[s].node);
        bar(b, x, 18, p->stages[s].hop_sec * scale, "hopbar", text, p->stages[s].hop_sec);
        x += p->stages[s].hop_sec * scale;
    }
    if (!isnan(r->measured_token_sec)) {
        snprintf(text, sizeof text, "measured %.1f ms a token (%.2f of the prediction)", r->measured_token_sec * 1e3, r->measured_token_sec / p->token_sec);
        svg_text(b, 6, 62, "small", text);
        bar(b, 6, 68, r->measured_token_sec * scale, "meas", "measured", r->measured_token_sec);
    }
    dil_buf_printf(b, "</svg>");
}
