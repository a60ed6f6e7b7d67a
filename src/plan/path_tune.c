/* plan/path_tune.c - the weight on damage at which the cheapest ways just meet the budget: a bracket, logarithms interpolated. */
#include "plan/path_use.h"

bool dil__px_retune(px_tune *t, double damage, double budget, double near, double *weight) {
    const double over = damage > 0 && budget > 0 ? log(damage / budget) : 0;
    if (t->left == 0 || fabs(over) < near || !(*weight > 0)) return false;
    t->left--;
    if (over > 0) {
        t->lo = *weight;
        t->lo_over = over;
    } else {
        t->hi = *weight;
        t->hi_over = over;
    }
    if (t->lo > 0 && t->hi > 0) {
        if (t->hi < 1.01 * t->lo) return false;
        *weight = exp(log(t->lo) + fmin(0.9, fmax(0.1, t->lo_over / (t->lo_over - t->hi_over))) * log(t->hi / t->lo));
    } else {
        *weight *= exp(fmin(0.7, fmax(-0.7, over)));
    }
    return true;
}
