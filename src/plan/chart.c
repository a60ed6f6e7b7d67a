/* A line chart. */
#include "plan/chart.h"

#include <math.h>

enum { WIDTH = 860, HEIGHT = 460, LEFT = 84, RIGHT = 24, TOP = 66, BOTTOM = 62 };

typedef struct axis {
    double lo, hi, step;
} axis;

static double round_up(double v)
{
    double base = pow(10, floor(log10(v))), m = v / base;
    return base * (m <= 1 ? 1 : m <= 2 ? 2 : m <= 5 ? 5 : 10);
}

static axis make_axis(double lo, double hi, int ticks)
{
    if (!(hi > lo)) {
        double pad = lo != 0 ? fabs(lo) * 0.1 : 1;
        lo -= pad;
        hi += pad;
    }
    axis a = {.step = round_up((hi - lo) / ticks)};
    a.lo = floor(lo / a.step + 1e-9) * a.step;
    a.hi = ceil(hi / a.step - 1e-9) * a.step;
    return a;
}

static void range(const dil__chart *c, bool y, double *lo, double *hi)
{
    *lo = INFINITY;
    *hi = -INFINITY;
    for (uint32_t i = 0; i < c->n_series; i++) {
        const dil__series *s = &c->series[i];
        for (uint32_t k = 0; k < s->n; k++) {
            double v = y ? s->y[k] : s->x[k];
            if (!isfinite(s->x[k]) || !isfinite(s->y[k])) continue;
            *lo = fmin(*lo, v);
            *hi = fmax(*hi, v);
        }
    }
    if (y && c->y_from_zero) *lo = fmin(*lo, 0);
    if (isinf(*lo)) *lo = 0, *hi = 1;
}

static double at_x(const axis *a, double v)
{
    return LEFT + (v - a->lo) / (a->hi - a->lo) * (WIDTH - LEFT - RIGHT);
}

static double at_y(const axis *a, double v)
{
    return HEIGHT - BOTTOM - (v - a->lo) / (a->hi - a->lo) * (HEIGHT - TOP - BOTTOM);
}

static void text(FILE *f, const char *s)
{
    for (; *s; s++) {
        if (*s == '<') fputs("&lt;", f);
        else if (*s == '>') fputs("&gt;", f);
        else if (*s == '&') fputs("&amp;", f);
        else fputc(*s, f);
    }
}

static void draw_axes(FILE *f, const dil__chart *c, const axis *x, const axis *y)
{
    for (int i = 0; y->lo + i * y->step <= y->hi + 0.5 * y->step; i++) {
        double v = y->lo + i * y->step;
        fprintf(f, "<line x1='%d' y1='%.1f' x2='%d' y2='%.1f' class='g'/><text x='%d' y='%.1f' class='d' text-anchor='end'>%.6g</text>\n", LEFT,
                at_y(y, v), WIDTH - RIGHT, at_y(y, v), LEFT - 8, at_y(y, v) + 4, fabs(v) < 1e-9 * y->step ? 0 : v);
    }
    for (int i = 0; x->lo + i * x->step <= x->hi + 0.5 * x->step; i++) {
        double v = x->lo + i * x->step;
        fprintf(f, "<line x1='%.1f' y1='%d' x2='%.1f' y2='%d' class='g'/><text x='%.1f' y='%d' class='d' text-anchor='middle'>%.6g</text>\n",
                at_x(x, v), TOP, at_x(x, v), HEIGHT - BOTTOM, at_x(x, v), HEIGHT - BOTTOM + 18, fabs(v) < 1e-9 * x->step ? 0 : v);
    }
    fprintf(f, "<text x='%d' y='%d' class='d' text-anchor='middle'>", (LEFT + WIDTH - RIGHT) / 2, HEIGHT - BOTTOM + 42);
    text(f, c->x_label);
    fprintf(f, "</text>\n<text transform='translate(20 %d) rotate(-90)' class='d' text-anchor='middle'>", (TOP + HEIGHT - BOTTOM) / 2);
    text(f, c->y_label);
    fputs("</text>\n", f);
}

static void draw_series(FILE *f, const dil__series *s, const axis *x, const axis *y)
{
    bool pen = false;
    double last = 0;
    if (s->line) fprintf(f, "<path fill='none' stroke='%s' stroke-width='2' stroke-linejoin='round' d='", s->color);
    for (uint32_t i = 0; s->line && i < s->n; i++) {
        if (!isfinite(s->x[i]) || !isfinite(s->y[i])) {
            pen = false;
            continue;
        }
        if (pen && s->steps) fprintf(f, "L%.1f %.1f", at_x(x, s->x[i]), last);
        last = at_y(y, s->y[i]);
        fprintf(f, "%s%.1f %.1f", pen ? "L" : "M", at_x(x, s->x[i]), last);
        pen = true;
    }
    if (s->line) fputs("'/>\n", f);
    for (uint32_t i = 0; s->dots && i < s->n; i++) {
        if (!isfinite(s->x[i]) || !isfinite(s->y[i])) continue;
        fprintf(f, "<circle cx='%.1f' cy='%.1f' r='4' fill='%s' class='c'><title>%.6g, %.6g</title></circle>\n", at_x(x, s->x[i]), at_y(y, s->y[i]),
                s->line ? s->color : "none' stroke='#1d2733", s->x[i], s->y[i]);
    }
}

static void draw(FILE *f, const dil__chart *c)
{
    double lo, hi;
    range(c, false, &lo, &hi);
    axis x = make_axis(lo, hi, 8);
    range(c, true, &lo, &hi);
    axis y = make_axis(lo, hi, 6);
    fprintf(f, "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 %d %d' width='%d' height='%d' font-family='system-ui, sans-serif'>\n", WIDTH,
            HEIGHT, WIDTH, HEIGHT);
    fputs("<style>.n{font-size:15px;font-weight:600;fill:#1d2733}.d{font-size:12px;fill:#526070}.g{stroke:#dde2e8;stroke-width:1}"
          ".c{stroke-width:1}</style>\n", f);
    fprintf(f, "<rect width='%d' height='%d' fill='#ffffff'/>\n<text x='%d' y='24' class='n'>", WIDTH, HEIGHT, LEFT);
    text(f, c->title);
    fprintf(f, "</text>\n<text x='%d' y='44' class='d'>", LEFT);
    text(f, c->note ? c->note : "");
    fputs("</text>\n", f);
    draw_axes(f, c, &x, &y);
    for (uint32_t i = 0; i < c->n_series; i++) draw_series(f, &c->series[i], &x, &y);
    double at = LEFT;
    for (uint32_t i = 0; i < c->n_series && c->n_series > 1; i++) {
        fprintf(f, "<rect x='%.0f' y='52' width='14' height='4' fill='%s'/><text x='%.0f' y='59' class='d'>", at, c->series[i].color, at + 19);
        text(f, c->series[i].name);
        fputs("</text>\n", f);
        size_t len = 0;
        while (c->series[i].name[len]) len++;
        at += 40 + 6.6 * (double)len;
    }
    fputs("</svg>\n", f);
}

dil_status dil__chart_write(const char *path, const dil__chart *c, dil_err *err)
{
    dil_outfile o;
    dil_status s = dil_outfile_open(&o, path, err);
    if (s != DIL_OK) return s;
    draw(o.stream, c);
    return dil_outfile_commit(&o, err);
}
