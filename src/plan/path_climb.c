/* plan/path_climb.c - maximises a concave function with kinks: Shor's r-algorithm.
 *
 * Every step dilates the space along the difference of two successive supergradients, which straightens the ridges on which plain subgradient
 * steps zigzag: with the slowest node's seconds priced they ended 15 % below the optimum, whatever their length. A bundle method would
 * need a quadratic program a step. Where there are very many prices (DILATE_MAX) it is plain steps.
 * Source: N. Shor, Minimization Methods for Non-Differentiable Functions, 1985; step rule as in Stetsyuk's ralgb5. */
#include "plan/path_int.h"

#include <stdlib.h>
#include <string.h>

enum { DILATE_MAX = 1200, LINE_MAX = 40 };

static const double dilation = 1 / 3.0, longer = 1.15, shorter = 0.9;

/* out = B' v */
static void into(const double *b, const double *v, double *out, int n) {
    memset(out, 0, (size_t)n * sizeof *out);
    for (int i = 0; i < n; i++)
        for (int k = 0; v[i] != 0 && k < n; k++) out[k] += b[(size_t)i * (size_t)n + (size_t)k] * v[i];
}

/* out = B v */
static void back(const double *b, const double *v, double *out, int n) {
    for (int i = 0; i < n; i++) {
        double sum = 0;
        for (int k = 0; k < n; k++) sum += b[(size_t)i * (size_t)n + (size_t)k] * v[k];
        out[i] = sum;
    }
}

static double length(const double *v, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += v[i] * v[i];
    return sqrt(sum);
}

static double dot(const double *a, const double *b, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

size_t dil__px_climb_scratch(int n) {
    const size_t m = (size_t)n;
    return 7 * m + (n <= DILATE_MAX ? m * m : 0);
}

bool dil__px_climb(px_climb *c, double *z, double step) {
    const int n = c->n;
    const size_t bytes = (size_t)n * sizeof *z;
    double *at = c->scratch, *g = at + n, *next = g + n, *dir = next + n, *xi = dir + n, *top = xi + n, *diff = top + n;
    double *b = n <= DILATE_MAX ? diff + n : NULL, value;
    memcpy(at, z, bytes);
    memcpy(top, z, bytes);
    c->best = -INFINITY;
    for (int i = 0; b && i < n; i++)
        for (int k = 0; k < n; k++) b[(size_t)i * (size_t)n + (size_t)k] = i == k;
    int left = c->rounds;
    if (!c->value_at(c->ctx, at, &value, g)) return false;
    c->best = value;
    double mark = value; /* where it stood some steps ago */
    for (int round = 0, since = 0; left > 0 && c->best < c->enough; round++, since++) {
        if (c->stop && c->stop(c->ctx)) break;
        if (since == 6 + n / 2) {
            if (c->best - mark < c->still * fabs(c->best)) break;
            mark = c->best;
            since = 0;
        }
        if (b) into(b, g, xi, n);
        else memcpy(xi, g, bytes);
        const double norm = length(xi, n);
        if (!(norm > 1e-300)) break;
        for (int i = 0; i < n; i++) xi[i] /= norm;
        if (b) back(b, xi, dir, n);
        else memcpy(dir, xi, bytes);
        int tries = 0;
        bool up = true;
        while (up && left > 0 && tries < LINE_MAX && c->best < c->enough) {
            for (int i = 0; i < n; i++) at[i] += step * dir[i];
            if (!c->value_at(c->ctx, at, &value, next)) return false;
            left--;
            tries++;
            if (value > c->best) {
                c->best = value;
                memcpy(top, at, bytes);
            }
            up = dot(dir, next, n) > 0;
            if (up && tries % 2 == 0) step *= longer;
        }
        if (tries == 1) step *= shorter;
        for (int i = 0; i < n; i++) diff[i] = next[i] - g[i];
        memcpy(g, next, bytes);
        if (!b) continue;
        into(b, diff, xi, n);
        const double r = length(xi, n);
        if (!(r > 1e-300)) continue;
        for (int i = 0; i < n; i++) xi[i] /= r;
        back(b, xi, dir, n);
        for (int i = 0; i < n; i++)
            for (int k = 0; k < n; k++) b[(size_t)i * (size_t)n + (size_t)k] += (dilation - 1) * dir[i] * xi[k];
    }
    memcpy(z, top, bytes);
    return true;
}
