/* The picture of a plan: nodes are rows, layers columns, the chosen cells coloured by bits per weight, the path drawn through them
 * with the delay of every hop. Plain SVG 1.1 that stands alone in a report; text is escaped, sizes follow from the counts. */
#include <dilemma/problem.h>
#include <dilemma/tensor.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS_MAX = 40, LEFT = 150, TOP = 64, CELL_H = 52, FOOT = 92 };

typedef struct picture {
    const dil_plan *plan;
    const dil_profile *prof;
    const dil_cluster *cluster;
    FILE *f;
    uint32_t *row_of;  /* [cluster nodes] row, DIL_NO_NODE: not drawn */
    uint32_t *node_at; /* [rows] */
    uint32_t n_rows, n_hidden;
    double cell_w;
} picture;

static void text(FILE *f, const char *s)
{
    for (; *s; s++) {
        switch (*s) {
        case '<': fputs("&lt;", f); break;
        case '>': fputs("&gt;", f); break;
        case '&': fputs("&amp;", f); break;
        case '"': fputs("&quot;", f); break;
        default: fputc(*s, f);
        }
    }
}

/* From red (2 bits) over green to blue (8 and more), widest apart between 3 and 6 bits, where most levels lie. */
static void color(double bits, char out[40])
{
    static const double at[] = {2, 3, 4, 4.5, 5, 6, 8.5}, hue[] = {0, 32, 62, 112, 158, 195, 250};
    size_t i = 0;
    if (bits <= 0) {
        snprintf(out, 40, "#bbbbbb");
        return;
    }
    while (i + 2 < sizeof at / sizeof *at && bits > at[i + 1]) i++;
    double t = fmin(1, fmax(0, (bits - at[i]) / (at[i + 1] - at[i])));
    snprintf(out, 40, "hsl(%.0f, 62%%, 47%%)", hue[i] + t * (hue[i + 1] - hue[i]));
}

static bool is_used(const dil_plan *p, const char *name)
{
    for (uint32_t i = 0; i < p->n_stages; i++) {
        if (strcmp(p->stages[i].node, name) == 0) return true;
    }
    return strcmp(p->entry, name) == 0;
}

/* Used nodes first in the cluster's order of rows; the others too where there is room. */
static void pick_rows(picture *c)
{
    uint32_t used = 0;
    for (uint32_t i = 0; i < c->cluster->n_nodes; i++) used += is_used(c->plan, c->cluster->nodes[i].name);
    for (uint32_t i = 0; i < c->cluster->n_nodes; i++) {
        bool show = is_used(c->plan, c->cluster->nodes[i].name);
        if (!show && used < ROWS_MAX) {
            show = true;
            used++;
        }
        c->row_of[i] = show ? c->n_rows : DIL_NO_NODE;
        if (show) c->node_at[c->n_rows++] = i;
        else c->n_hidden++;
    }
}

static double center_x(const picture *c, uint32_t layer)
{
    return LEFT + c->cell_w * (layer + 1.5); /* the column before the first layer is the entry's */
}

static double center_y(const picture *c, const char *node)
{
    uint32_t i = dil_cluster_find(c->cluster, node);
    return TOP + CELL_H * ((i == DIL_NO_NODE ? 0 : c->row_of[i]) + 0.5);
}

static void draw_rows(const picture *c)
{
    double right = LEFT + c->cell_w * (c->plan->n_layers + 2);
    for (uint32_t r = 0; r < c->n_rows; r++) {
        const dil_cluster_node *n = &c->cluster->nodes[c->node_at[r]];
        double y = TOP + CELL_H * r;
        char bytes[32];
        uint64_t held = 0;
        for (uint32_t i = 0; i < c->plan->n_stages; i++) {
            if (strcmp(c->plan->stages[i].node, n->name) == 0) held += c->plan->stages[i].bytes;
        }
        fprintf(c->f, "<rect x='%d' y='%g' width='%g' height='%d' fill='%s'/>\n", LEFT, y, right - LEFT, CELL_H, r % 2 ? "#f6f7f9" : "#eceff3");
        fprintf(c->f, "<text x='%d' y='%g' class='n'>", 12, y + 17);
        text(c->f, n->name);
        fprintf(c->f, "%s</text>\n<text x='%d' y='%g' class='d'>", strcmp(n->name, c->plan->entry) == 0 ? " (entry)" : "", 12, y + 32);
        fprintf(c->f, "%s of ", dil_format_bytes(held, bytes));
        fprintf(c->f, "%s</text>\n", dil_format_bytes(n->memory_bytes, bytes));
        double full = n->memory_bytes ? fmin(1, (double)held / (double)n->memory_bytes) : 0;
        fprintf(c->f, "<rect x='12' y='%g' width='%d' height='4' rx='2' fill='#d5dae1'/><rect x='12' y='%g' width='%.1f' height='4' rx='2' "
                "fill='#526070'/>\n", y + 40, LEFT - 28, y + 40, (LEFT - 28) * full);
        for (uint32_t l = 0; l < c->plan->n_layers; l++)
            fprintf(c->f, "<circle cx='%g' cy='%g' r='2' fill='#c3c9d1'/>\n", center_x(c, l), y + CELL_H / 2.0);
    }
}

static void draw_hop(const picture *c, double x1, double y1, double x2, double y2, double sec)
{
    double mid = (x1 + x2) / 2;
    fprintf(c->f, "<path d='M%g %g C%g %g %g %g %g %g' class='h'/>\n", x1, y1, mid, y1, mid, y2, x2, y2);
    if (sec <= 0 || y1 == y2) return;
    fprintf(c->f, "<text x='%g' y='%g' class='l'>%.3g ms</text>\n", mid + 3, (y1 + y2) / 2, 1e3 * sec);
}

static void draw_path(const picture *c)
{
    const dil_plan *p = c->plan;
    uint32_t last = p->n_layers - 1;
    uint32_t from = dil_cluster_find(c->cluster, p->entry), to = dil_cluster_find(c->cluster, p->stages[0].node);
    const dil_cluster_link *in = from == DIL_NO_NODE || to == DIL_NO_NODE ? NULL : dil_cluster_link_get(c->cluster, from, to);
    double x0 = LEFT + 0.5 * c->cell_w, x1 = LEFT + c->cell_w * (p->n_layers + 1.5), ye = center_y(c, p->entry);
    draw_hop(c, x0, ye, center_x(c, 0), center_y(c, p->layers[0].node), in ? in->latency_sec : 0);
    for (uint32_t i = 0; i + 1 < p->n_stages; i++) {
        const dil_plan_stage *g = &p->stages[i];
        draw_hop(c, center_x(c, g->last_layer), center_y(c, g->node), center_x(c, g->last_layer + 1), center_y(c, g[1].node), g->hop_sec);
    }
    for (uint32_t i = 0; i < p->n_stages; i++) {
        const dil_plan_stage *g = &p->stages[i];
        draw_hop(c, center_x(c, g->first_layer), center_y(c, g->node), center_x(c, g->last_layer), center_y(c, g->node), 0);
    }
    draw_hop(c, center_x(c, last), center_y(c, p->layers[last].node), x1, ye, p->stages[p->n_stages - 1].hop_sec);
    fprintf(c->f, "<rect x='%g' y='%g' width='10' height='10' class='e'/><rect x='%g' y='%g' width='10' height='10' class='e'/>\n", x0 - 5, ye - 5,
            x1 - 5, ye - 5);
}

static void draw_cells(const picture *c)
{
    double r = fmin(11, c->cell_w * 0.42);
    for (uint32_t l = 0; l < c->plan->n_layers; l++) {
        const dil_plan_layer *pl = &c->plan->layers[l];
        char fill[40], bytes[32];
        color(dil_plan_layer_bits(pl), fill);
        fprintf(c->f, "<circle cx='%g' cy='%g' r='%g' fill='%s' class='c'><title>", center_x(c, l), center_y(c, pl->node), r, fill);
        text(c->f, pl->name);
        fputs(" on ", c->f);
        text(c->f, pl->node);
        fputs(": ", c->f);
        text(c->f, pl->level);
        fprintf(c->f, ", %s</title></circle>\n", dil_format_bytes(pl->bytes, bytes));
    }
    for (uint32_t i = 0; i < c->plan->n_stages; i++) {
        const dil_plan_stage *g = &c->plan->stages[i];
        fprintf(c->f, "<text x='%g' y='%g' class='l m'>%.3g ms</text>\n", (center_x(c, g->first_layer) + center_x(c, g->last_layer)) / 2,
                center_y(c, g->node) + CELL_H / 2.0 - 3, 1e3 * g->compute_sec);
    }
    uint32_t step = c->plan->n_layers > 40 ? 10 : 5;
    for (uint32_t l = 0; l < c->plan->n_layers; l++) {
        bool end = l == 0 || l + 1 == c->plan->n_layers;
        if (!end && (l % step || l + step > c->plan->n_layers)) continue;
        fprintf(c->f, "<text x='%g' y='%d' class='t'>", center_x(c, l), TOP - 8);
        if (end) fputs(l == 0 ? "emb" : "head", c->f);
        else fprintf(c->f, "%u", l);
        fputs("</text>\n", c->f);
    }
}

static void draw_legend(const picture *c)
{
    static const double bits[] = {2.25, 3, 4.25, 4.5, 5.5, 6.5, 8.5, 16};
    double y = TOP + CELL_H * c->n_rows + 28;
    fprintf(c->f, "<text x='12' y='%g' class='d'>bits a weight</text>\n", y + 4);
    for (size_t i = 0; i < sizeof bits / sizeof *bits; i++) {
        char fill[40];
        color(bits[i], fill);
        double x = LEFT + 12 + 64 * (double)i;
        fprintf(c->f, "<circle cx='%g' cy='%g' r='8' fill='%s' class='c'/><text x='%g' y='%g' class='d'>%g</text>\n", x, y, fill, x + 13, y + 4, bits[i]);
    }
    fprintf(c->f, "<text x='12' y='%g' class='d'>token %.3g ms, prefill of %u tokens %.3g ms, answer %.3g s, ", y + 34, 1e3 * c->plan->token_sec,
            c->plan->tokens_in, 1e3 * c->plan->prefill_sec, c->plan->total_sec);
    if (c->plan->gap < 1e-4) fputs("proved the least; ", c->f);
    else fprintf(c->f, "proved within %.2g %%; ", 100 * c->plan->gap);
    fprintf(c->f, "size %.2f %% of fp32, predicted damage %.3g (", 100 * c->plan->ratio_to_fp32, c->plan->predicted_damage);
    text(c->f, c->plan->damage_measure);
    fputs(")", c->f);
    if (c->n_hidden) fprintf(c->f, "; %u nodes without layers are not drawn", c->n_hidden);
    fputs("</text>\n", c->f);
}

static void draw(picture *c)
{
    c->cell_w = fmax(14, fmin(30, 1100.0 / (c->plan->n_layers + 2)));
    double width = fmax(720, LEFT + c->cell_w * (c->plan->n_layers + 2) + 20), height = TOP + CELL_H * c->n_rows + FOOT;
    fprintf(c->f, "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 %g %g' width='%g' height='%g' font-family='system-ui, sans-serif'>\n", width,
            height, width, height);
    fputs("<style>.n{font-size:14px;font-weight:600;fill:#1d2733}.d{font-size:12px;fill:#526070}.t{font-size:11px;fill:#526070;text-anchor:middle}"
          ".l{font-size:11px;fill:#1d2733;paint-order:stroke;stroke:#fff;stroke-width:3px}.h{fill:none;stroke:#1d2733;stroke-width:2}"
          ".c{stroke:#fff;stroke-width:1}.e{fill:#1d2733}.m{text-anchor:middle}</style>\n", c->f);
    fprintf(c->f, "<rect width='%g' height='%g' fill='#ffffff'/>\n<text x='12' y='26' class='n'>", width, height);
    const char *slash = strrchr(c->plan->model_path, '/');
    text(c->f, slash ? slash + 1 : c->plan->model_path[0] ? c->plan->model_path : "plan");
    fprintf(c->f, "</text>\n<text x='12' y='44' class='d'>%u layers on %u stages</text>\n", c->plan->n_layers, c->plan->n_stages);
    draw_rows(c);
    draw_path(c);
    draw_cells(c);
    draw_legend(c);
    fputs("</svg>\n", c->f);
}

dil_status dil_plan_svg(const char *path, const dil_plan *plan, const dil_profile *profile, const dil_cluster *cluster, dil_err *err)
{
    for (uint32_t l = 0; l < plan->n_layers; l++) {
        if (dil_cluster_find(cluster, plan->layers[l].node) == DIL_NO_NODE)
            return dil_fail(err, DIL_ENOTFOUND, "layer %u: node \"%.100s\" is not in the cluster", l, plan->layers[l].node);
    }
    picture c = {.plan = plan, .prof = profile, .cluster = cluster};
    c.row_of = calloc(cluster->n_nodes, sizeof *c.row_of);
    c.node_at = calloc(cluster->n_nodes, sizeof *c.node_at);
    dil_outfile o;
    dil_status s = c.row_of && c.node_at ? dil_outfile_open(&o, path, err) : dil_fail(err, DIL_EMEMORY, "%s: out of memory", path);
    if (s == DIL_OK) {
        c.f = o.stream;
        pick_rows(&c);
        draw(&c);
        s = dil_outfile_commit(&o, err);
    }
    free(c.row_of);
    free(c.node_at);
    return s;
}
