/* plan/chart.h - a small line chart as SVG: series over one pair of axes, ticks at round numbers. Stands alone in a report. */
#ifndef DIL_PLAN_CHART_H
#define DIL_PLAN_CHART_H

#include <dilemma/base.h>

typedef struct dil__series {
    const char *name, *color;
    const double *x, *y; /* [n]; points that are not finite are left out, and break the line */
    uint32_t n;
    bool steps, dots, line;
} dil__series;

typedef struct dil__chart {
    const char *title, *note, *x_label, *y_label;
    const dil__series *series;
    uint32_t n_series;
    bool y_from_zero;
} dil__chart;

dil_status dil__chart_write(const char *path, const dil__chart *c, dil_err *err);

#endif
