/* What rounding activations costs: kernels of quantized types multiply eight-bit activations, whatever the weights. A whole model of about eight
 * bits, where the weights hardly err, is run as it would be and compared with the floats; the layers' own damages are taken off. */
#include "quant/profiler.h"

#include <math.h>
#include <stdlib.h>

static size_t level_near(const dil__kind *k, double bits)
{
    size_t best = 0;
    for (size_t i = 1; i < k->n_levels; i++)
        if (fabs(k->level[i].bits - bits) < fabs(k->level[best].bits - bits)) best = i;
    return best;
}

static dil_status open_all(dil__profiler *p, dil__variant *v, dil__link **link, double *weights, dil_err *err)
{
    dil_status st = DIL_OK;
    for (uint32_t l = 0; l < p->n_layers && st == DIL_OK; l++) {
        bool tied = l + 1 == p->n_layers && p->arch.tied_head;
        size_t q = level_near(dil__profiler_kind(p, l), 8.5);
        dil_weights w = dil__variant_weights(&v[tied ? 0 : l]);
        st = dil__profiler_level(p, l, q, &v[tied ? 0 : l], err);
        if (st == DIL_OK) st = dil__chain_link_as_run(p->chain, l, &w, &link[l], err);
        if (!tied) *weights += fmax(0, p->kl[(size_t)l * DIL__LEVELS_MAX + q]);
        if (st == DIL_OK && !dil_progress_step(p->progress, "rounding of activations", l, p->n_layers)) st = dil_fail(err, DIL_ECANCELED, "canceled; --resume goes on");
    }
    return st;
}

static dil_status measure(dil__profiler *p, double *run, dil_err *err)
{
    dil__variant *v = calloc(p->n_layers, sizeof *v);
    dil__link **link = calloc(p->n_layers, sizeof *link);
    dil__effect e = {0};
    double weights = 0;
    dil_status st = v && link ? DIL_OK : dil_fail(err, DIL_EMEMORY, "out of memory");
    for (uint32_t l = 0; st == DIL_OK && l < p->n_layers; l++) dil__variant_init(&v[l], &p->weights);
    bool feedback = p->feedback;
    p->feedback = false; /* at eight bits rounding is as good, and cheap */
    if (st == DIL_OK) st = open_all(p, v, link, &weights, err);
    if (st == DIL_OK) st = dil__chain_effect_all(p->chain, link, &e, err);
    p->feedback = feedback;
    for (uint32_t l = 0; v && link && l < p->n_layers; l++) {
        dil__link_close(link[l]);
        dil__variant_fini(&v[l]);
    }
    free(v);
    free(link);
    *run = fmax(0, e.kl - weights);
    return st;
}

dil_status dil__profiler_run(dil__profiler *p, dil_err *err)
{
    if (dil__journal_get(p->journal, "run", &p->run, 1)) return DIL_OK;
    dil_status st = measure(p, &p->run, err);
    return st == DIL_OK ? dil__journal_put(p->journal, "run", &p->run, 1, err) : st;
}
