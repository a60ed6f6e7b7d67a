/* The hull is walked greedily, which is exact for separable convex choices. Points between hull vertices (a knapsack's) were not
 * wanted: the planner mixes layers of different levels and gets there itself. */
#include "quant/levels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS_MAX = DIL__LEVEL_ROLES * DIL__LEVEL_TYPES };

typedef struct point { double bytes, damage; size_t choice; } point;
typedef struct move { double price; size_t role, to; } move; /* price: damage a byte saved */

static int by_bytes_falling(const void *a, const void *b)
{
    const point *x = a, *y = b;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? 1 : -1;
    return (x->damage > y->damage) - (x->damage < y->damage);
}

static int by_price(const void *a, const void *b)
{
    const move *x = a, *y = b;
    if (x->price != y->price) return x->price < y->price ? -1 : 1;
    if (x->role != y->role) return x->role < y->role ? -1 : 1;
    return (x->to > y->to) - (x->to < y->to);
}

/* The lower convex hull of one role from the least damage down in bytes; hull [n]. */
static size_t hull_of(const dil__role_choice *r, point *hull)
{
    point p[DIL__LEVEL_TYPES];
    size_t best = 0, n = 0;
    for (size_t i = 0; i < r->n; i++) {
        p[i] = (point){r->bytes[i], r->damage[i], i};
        if (r->damage[i] < r->damage[best] || (r->damage[i] == r->damage[best] && r->bytes[i] < r->bytes[best])) best = i;
    }
    qsort(p, r->n, sizeof *p, by_bytes_falling);
    for (size_t i = 0; i < r->n; i++) {
        if (p[i].bytes > r->bytes[best] || (p[i].bytes == r->bytes[best] && p[i].choice != best)) continue;
        if (n > 0 && p[i].bytes == hull[n - 1].bytes) continue;
        while (n > 0 && hull[n - 1].damage >= p[i].damage && hull[n - 1].choice != best) n--;
        while (n > 1 && (hull[n - 1].damage - hull[n - 2].damage) * (hull[n - 2].bytes - p[i].bytes) >=
                            (p[i].damage - hull[n - 2].damage) * (hull[n - 2].bytes - hull[n - 1].bytes))
            n--;
        hull[n++] = p[i];
    }
    return n;
}

static void describe(const dil__role_choice *roles, size_t n_roles, const size_t *choice, dil__level *out)
{
    double bytes = 0, elems = 0;
    bool same = true;
    memset(out, 0, sizeof *out);
    for (size_t r = 0; r < n_roles; r++) {
        out->type[r] = roles[r].type[choice[r]];
        out->damage += roles[r].damage[choice[r]];
        bytes += roles[r].bytes[choice[r]];
        elems += roles[r].elems;
        same &= out->type[r] == out->type[0];
    }
    out->bits = 8 * bytes / elems;
    if (same) snprintf(out->name, sizeof out->name, "%s", dil_type_get(out->type[0])->name);
    else snprintf(out->name, sizeof out->name, "mix-%.3f", out->bits);
}

static bool equal_types(const dil__level *a, const dil__level *b, size_t n_roles)
{
    return memcmp(a->type, b->type, n_roles * sizeof a->type[0]) == 0;
}

static size_t add_level(dil__level *out, size_t n, size_t max, const dil__level *l, size_t n_roles)
{
    for (size_t i = 0; i < n; i++)
        if (equal_types(&out[i], l, n_roles)) return n;
    if (n == max) return n;
    out[n] = *l;
    for (size_t i = 0; i < n; i++)
        if (strcmp(out[i].name, l->name) == 0) snprintf(out[n].name, sizeof out[n].name, "mix-%.3f-%zu", l->bits, n);
    return n + 1;
}

static int by_bits_falling(const void *a, const void *b)
{
    const dil__level *x = a, *y = b;
    if (x->bits != y->bits) return x->bits < y->bits ? 1 : -1;
    return (x->damage > y->damage) - (x->damage < y->damage);
}

/* Every mix on the hull of the sum, by falling bytes; owned by the caller. */
static dil__level *walk(const dil__role_choice *roles, size_t n_roles, size_t *n_out)
{
    dil__level *all = malloc((STEPS_MAX + 1) * sizeof *all);
    move *m = malloc(STEPS_MAX * sizeof *m);
    if (!all || !m) {
        free(all);
        free(m);
        return NULL;
    }
    size_t choice[DIL__LEVEL_ROLES] = {0}, n_moves = 0, n = 0;
    for (size_t r = 0; r < n_roles; r++) {
        point hull[DIL__LEVEL_TYPES];
        size_t k = hull_of(&roles[r], hull);
        choice[r] = hull[0].choice;
        for (size_t i = 1; i < k; i++)
            m[n_moves++] = (move){(hull[i].damage - hull[i - 1].damage) / (hull[i - 1].bytes - hull[i].bytes), r, hull[i].choice};
    }
    qsort(m, n_moves, sizeof *m, by_price);
    describe(roles, n_roles, choice, &all[n++]);
    for (size_t i = 0; i < n_moves; i++) {
        choice[m[i].role] = m[i].to;
        describe(roles, n_roles, choice, &all[n++]);
    }
    free(m);
    *n_out = n;
    return all;
}

static bool uniform_choice(const dil__role_choice *roles, size_t n_roles, dil_type t, size_t *choice)
{
    for (size_t r = 0; r < n_roles; r++) {
        size_t i = 0;
        while (i < roles[r].n && roles[r].type[i] != t) i++;
        if (i == roles[r].n) return false;
        choice[r] = i;
    }
    return true;
}

size_t dil__levels_design(const dil__role_choice *roles, size_t n_roles, const double *ladder, size_t n_ladder, const dil_type *uniform,
                          size_t n_uniform, dil__level *out, size_t max)
{
    size_t n_all = 0, n = 0;
    dil__level *all = walk(roles, n_roles, &n_all);
    if (!all) return 0;
    for (size_t k = 0; k < n_ladder; k++) {
        size_t best = 0;
        for (size_t i = 1; i < n_all; i++)
            if (fabs(all[i].bits - ladder[k]) < fabs(all[best].bits - ladder[k])) best = i;
        n = add_level(out, n, max, &all[best], n_roles);
    }
    free(all);
    for (size_t k = 0; k < n_uniform; k++) {
        size_t choice[DIL__LEVEL_ROLES] = {0};
        dil__level l;
        if (!uniform_choice(roles, n_roles, uniform[k], choice)) continue;
        describe(roles, n_roles, choice, &l);
        n = add_level(out, n, max, &l, n_roles);
    }
    qsort(out, n, sizeof *out, by_bits_falling);
    return n;
}
