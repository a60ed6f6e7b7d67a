/* HiGHS behind one function. */
#include "plan/highs.h"

#include <math.h>
#include <stdlib.h>

/* This header declares a static function that nobody defines, which is noticed at the end of the file only. */
#pragma GCC diagnostic ignored "-Wunused-function"
#include "interfaces/highs_c_api.h"

_Static_assert(sizeof(HighsInt) == sizeof(int), "dil__mip hands int arrays to HiGHS");

typedef struct watch {
    const dil__mip_options *o;
    bool canceled;
} watch;

static void on_highs(int type, const char *text, const HighsCallbackDataOut *out, HighsCallbackDataIn *in, void *user)
{
    (void)text;
    watch *w = user;
    const dil__mip_options *o = w->o;
    if (type == kHighsCallbackMipImprovingSolution && o->improved) o->improved(o->ctx, out->objective_function_value, out->mip_dual_bound);
    if (type != kHighsCallbackMipInterrupt) return;
    double done = out->running_time < o->limit_sec ? out->running_time : o->limit_sec;
    if (!dil_progress_step(o->progress, "planning", done, o->limit_sec)) w->canceled = true;
    if (w->canceled) in->user_interrupt = 1;
}

static void *load(const char *name, const dil__mip *m, dil_err *err)
{
    void *h = Highs_create();
    double *lower = calloc((size_t)m->n_cols + 1, sizeof *lower);
    HighsInt *integral = calloc((size_t)m->n_cols + 1, sizeof *integral), status = kHighsStatusError;
    if (h && lower && integral) {
        for (int i = 0; i < m->n_cols; i++) integral[i] = m->integral[i] ? kHighsVarTypeInteger : kHighsVarTypeContinuous;
        Highs_setBoolOptionValue(h, "output_flag", 0);
        status = Highs_passMip(h, m->n_cols, m->n_rows, m->n_values, kHighsMatrixFormatRowwise, kHighsObjSenseMinimize, 0, m->cost, lower,
                               m->upper, m->row_lower, m->row_upper, m->start, m->index, m->value, integral);
    }
    free(lower);
    free(integral);
    if (status != kHighsStatusError) return h;
    if (h) Highs_destroy(h);
    dil_fail(err, DIL_EINTERNAL, "%s: HiGHS refused a model of %d columns and %d rows", name, m->n_cols, m->n_rows);
    return NULL;
}

static dil_status read_result(const char *name, void *h, dil__mip_result *r, dil_err *err)
{
    HighsInt status = Highs_getModelStatus(h), primal = 0;
    Highs_getIntInfoValue(h, "primal_solution_status", &primal);
    r->bound = -INFINITY;
    Highs_getDoubleInfoValue(h, "mip_dual_bound", &r->bound);
    if (!isfinite(r->bound)) r->bound = -INFINITY;
    r->timed_out = status == kHighsModelStatusTimeLimit;
    if (status == kHighsModelStatusInfeasible || status == kHighsModelStatusUnboundedOrInfeasible)
        return dil_fail(err, DIL_EINFEASIBLE, "no plan meets the budgets");
    if (primal == kHighsSolutionStatusFeasible) {
        Highs_getSolution(h, r->v, NULL, NULL, NULL);
        Highs_getDoubleInfoValue(h, "objective_function_value", &r->objective);
        return DIL_OK;
    }
    if (r->timed_out) return dil_fail(err, DIL_ETIMEOUT, "%s: no plan within the time limit", name);
    if (status == kHighsModelStatusInterrupt) return dil_fail(err, DIL_ECANCELED, "%s: canceled", name);
    return dil_fail(err, DIL_EINTERNAL, "%s: HiGHS ended with model status %d", name, (int)status);
}

dil_status dil__mip_solve(const char *name, const dil__mip *m, const dil__mip_options *o, dil__mip_result *r, dil_err *err)
{
    void *h = load(name, m, err);
    if (!h) return DIL_EINTERNAL;
    watch w = {o, false};
    Highs_setIntOptionValue(h, "threads", 1);
    Highs_setDoubleOptionValue(h, "time_limit", o->limit_sec);
    Highs_setDoubleOptionValue(h, "mip_rel_gap", o->gap);
    Highs_setDoubleOptionValue(h, "mip_abs_gap", 0);
    Highs_setDoubleOptionValue(h, "mip_feasibility_tolerance", 1e-9);
    Highs_setDoubleOptionValue(h, "primal_feasibility_tolerance", 1e-9);
    Highs_setDoubleOptionValue(h, "dual_feasibility_tolerance", 1e-9);
    if (o->cutoff > 0 && isfinite(o->cutoff)) Highs_setDoubleOptionValue(h, "objective_bound", o->cutoff);
    Highs_setCallback(h, on_highs, &w);
    Highs_startCallback(h, kHighsCallbackMipInterrupt);
    if (o->improved) Highs_startCallback(h, kHighsCallbackMipImprovingSolution);
    if (o->n_start > 0) Highs_setSparseSolution(h, o->n_start, o->start_col, o->start_value);
    Highs_run(h);
    dil_status s = w.canceled ? dil_fail(err, DIL_ECANCELED, "planning was canceled") : read_result(name, h, r, err);
    Highs_destroy(h);
    return s;
}

dil_status dil__mip_write(const char *path, const dil__mip *m, dil_err *err)
{
    void *h = load("export", m, err);
    if (!h) return DIL_EINTERNAL;
    dil_status s = Highs_writeModel(h, path) == kHighsStatusError ? dil_fail(err, DIL_EIO, "%s: HiGHS could not write the model", path) : DIL_OK;
    Highs_destroy(h);
    return s;
}
