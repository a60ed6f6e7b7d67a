/* From a plan to a student whose divergence is known. A plan's prediction rests on the profile's figures; the student is measured on the text that
 * the profile keeps apart, the profile corrected by it, and the plan's figures with it. Only a quality budget can make the plan itself
 * change then, so that a size budget never quantizes twice. */
#include "cli/pipeline.h"

#include "cli/cli.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

enum { ROUNDS_MAX = 3 };
#define BUDGET_USED 0.85 /* a student that leaves more of its budget unused is planned again */

/* Layer-wise quantizing holds teacher and student in 32 bits and passes over some thousand tokens: for small models. */
#define LAYERWISE_CPU_SEC_PER_PARAM 5e-6
#define LAYERWISE_SEC_MAX 900.0
#define LAYERWISE_BYTES_PER_PARAM 14.0

dil_status dil_cli_pipeline_method(const dil_cli_pipeline *p, double n_params, dil_quantize_method *out, dil_err *err)
{
    if (p->method) return dil_quantize_method_from_name(p->method, out) ? DIL_OK : dil_fail(err, DIL_EUSAGE, "'%s' is no method (layerwise, gptq, rtn)", p->method);
    double params = n_params, threads = p->n_threads ? p->n_threads : dil_cpu_count();
    uint64_t total, available;
    dil_memory(&total, &available);
    bool fits = LAYERWISE_BYTES_PER_PARAM * params < 0.6 * (double)available && LAYERWISE_CPU_SEC_PER_PARAM * params / threads < LAYERWISE_SEC_MAX;
    *out = fits ? DIL_QUANTIZE_LAYERWISE : DIL_QUANTIZE_RTN;
    return DIL_OK;
}

/* The student depends on the types alone, not on who holds them: a plan that only moves layers keeps the file. */
static dil_status student_key(const dil_cli_pipeline *p, const dil_quantize_opts *o, dil__key *k, dil_err *err)
{
    dil__key_init(k, "student 1");
    dil__key_str(k, p->model_hash);
    dil__key_num(k, (double)o->method);
    for (uint32_t l = 0; l < p->plan->n_layers; l++) {
        const dil_plan_layer *layer = &p->plan->layers[l];
        dil__key_str(k, layer->name);
        for (uint32_t i = 0; i < layer->n_types; i++) {
            dil__key_str(k, layer->types[i].role);
            dil__key_str(k, layer->types[i].type);
        }
    }
    dil_status s = o->imatrix ? dil__key_file(k, o->imatrix, err) : DIL_OK;
    return s == DIL_OK && o->imatrix_data ? dil__key_file(k, o->imatrix_data, err) : s;
}

static dil_status options_of(const dil_cli_pipeline *p, dil_quantize_opts *o, dil_err *err)
{
    *o = (dil_quantize_opts){.plan = p->plan_path, .n_threads = p->n_threads, .held_from = p->profile->held_from, .held_to = p->profile->held_to};
    dil_status s = dil_cli_pipeline_method(p, (double)p->profile->n_params, &o->method, err);
    if (o->method == DIL_QUANTIZE_RTN) {
        o->imatrix = p->imatrix_path;
    } else {
        o->imatrix_data = p->data;
        o->imatrix_format = p->format;
    }
    return s;
}

/* The student of p->plan, which is in the plan file. */
static dil_status make_student(dil_cli_pipeline *p, dil_err *err)
{
    int64_t start = dil_now_ns();
    dil_quantize_opts o;
    dil_status s = options_of(p, &o, err);
    if (s != DIL_OK) return s;
    dil__key k;
    s = student_key(p, &o, &k, err);
    bool kept = s == DIL_OK && dil__steps_done(p->steps, "student", &k, p->student_path);
    if (s == DIL_OK && !kept) {
        dil_quantize_report r;
        s = dil_quantize(p->model, &o, p->student_path, dil_cli_progress(), &r, err);
        if (s == DIL_OK) s = dil__steps_record(p->steps, "student", &k, p->student_path, err);
    }
    dil__key_fini(&k);
    if (s != DIL_OK) return s;
    dil_gguf *g;
    s = dil_gguf_open(p->student_path, &g, err);
    if (s != DIL_OK) return s;
    uint64_t bytes, n_params;
    double ratio = dil_gguf_ratio_to_fp32(g, &bytes, &n_params);
    dil_gguf_close(g);
    char size[32];
    dil_cli_pipeline_note(p, "quantize", kept, (double)(dil_now_ns() - start) * 1e-9, "%s, %.2f bits a weight, %.2f %% of fp32, %s -> %s",
                          dil_format_bytes(bytes, size), 8.0 * (double)bytes / (double)n_params, 100 * ratio, dil_quantize_method_name(o.method), p->student_path);
    return DIL_OK;
}

/* --- what it is worth ------------------------------------------------------------------------------------------------------------------ */

/* The divergence that the options allow; INFINITY: no such budget. */
static double budget(const dil_cli_pipeline *p)
{
    const dil_plan_options *o = &p->plan_options;
    double kl = o->max_damage, loss = o->max_loss_increase;
    if (isfinite(loss)) kl = fmin(kl, loss * fabs(p->profile->baseline_loss) / p->profile->kl_to_loss_slope);
    return kl;
}

static dil_status reload(dil_cli_pipeline *p, const char *profile, dil_err *err)
{
    dil_profile_free(p->profile);
    dil_plan_free(p->plan);
    p->profile = NULL;
    p->plan = NULL;
    dil_status s = dil_profile_read(profile, &p->profile, err);
    return s == DIL_OK ? dil_plan_read(p->plan_path, &p->plan, err) : s;
}

/* Writes the corrected profile, and the plan with the figures that it gives. */
static dil_status correct(dil_cli_pipeline *p, dil_err *err)
{
    int64_t start = dil_now_ns();
    dil_quantize_opts o;
    dil_status s = options_of(p, &o, err);
    if (s != DIL_OK) return s;
    dil_profile_student m = {.method = dil_quantize_method_name(o.method)};
    double predicted = p->plan->predicted_damage;
    s = dil_profiler_measure(p->profile, p->model, p->student_path, p->data, p->format, p->n_threads, dil_cli_progress(), &m, err);
    if (s == DIL_OK) s = dil_plan_correct(p->profile, p->plan, &m, err);
    if (s == DIL_OK) s = dil_profile_write(p->corrected_path, p->profile, err);
    dil_plan_options free_of = p->plan_options;
    free_of.max_damage = free_of.max_loss_increase = INFINITY;
    if (s == DIL_OK) s = dil_plan_predict(p->profile, p->cluster, &free_of, p->plan, true, err);
    if (s == DIL_OK) s = dil_plan_write(p->plan_path, p->plan, err);
    if (s == DIL_OK) s = reload(p, p->corrected_path, err);
    if (s != DIL_OK) return s;
    dil_cli_pipeline_note(p, "measure", false, (double)(dil_now_ns() - start) * 1e-9,
                          "KL %.4f +- %.4f nats a token on %" PRIu64 " tokens kept apart; %.4f was predicted, profile and plan are corrected", m.kl, m.kl_stderr,
                          m.tokens, predicted);
    return DIL_OK;
}

static dil_status plan_again(dil_cli_pipeline *p, dil_err *err)
{
    int64_t start = dil_now_ns();
    dil_plan *plan;
    p->plan_options.progress = dil_cli_progress();
    dil_status s = dil_plan_make(p->profile, p->cluster, &p->plan_options, &plan, err);
    if (s != DIL_OK) return s;
    s = dil_plan_write(p->plan_path, plan, err);
    dil_plan_free(plan);
    if (s == DIL_OK) s = reload(p, p->corrected_path, err);
    if (s == DIL_OK)
        dil_cli_pipeline_note(p, "plan", false, (double)(dil_now_ns() - start) * 1e-9, "again, from the corrected profile: %.1f ms a token, KL %.4f, %.2f %% of fp32",
                              1e3 * p->plan->token_sec, p->plan->predicted_damage, 100 * p->plan->ratio_to_fp32);
    return s;
}

static bool same_types(const dil_plan *a, const dil_plan *b)
{
    bool same = a->n_layers == b->n_layers;
    for (uint32_t l = 0; same && l < a->n_layers; l++) same = strcmp(a->layers[l].level, b->layers[l].level) == 0;
    return same;
}

static dil_status rounds(dil_cli_pipeline *p, dil_err *err)
{
    dil_status s = dil_plan_write(p->plan_path, p->plan, err);
    if (s == DIL_OK) s = make_student(p, err);
    bool can = p->profile->held_to > p->profile->held_from && strcmp(p->plan->damage_measure, "kl") == 0;
    if (s == DIL_OK && can) s = correct(p, err);
    for (int round = 1; s == DIL_OK && can && isfinite(budget(p)); round++) {
        double used = p->plan->predicted_damage / budget(p);
        if (used <= 1 && used >= BUDGET_USED) break;
        if (round == ROUNDS_MAX) {
            if (used > 1) dil_log(DIL_LOG_WARN, "plan", "the student's divergence is %.4f, the budget %.4f: %.1f %% over", p->plan->predicted_damage, budget(p), 100 * (used - 1));
            break;
        }
        dil_plan *before = p->plan;
        p->plan = NULL;
        s = plan_again(p, err);
        bool same = s == DIL_OK && same_types(before, p->plan);
        dil_plan_free(before);
        if (s != DIL_OK || same) break;
        s = make_student(p, err);
        if (s == DIL_OK) s = correct(p, err);
    }
    return s;
}

/* Whatever the rounds came to is one result of the first plan. */
dil_status dil_cli_pipeline_quantize(dil_cli_pipeline *p, dil_err *err)
{
    int64_t start = dil_now_ns();
    dil_quantize_opts o;
    dil_status s = options_of(p, &o, err);
    if (s != DIL_OK) return s;
    const struct { const char *step, *path; } result[] = {
        {"final.student", p->student_path}, {"final.plan", p->plan_path}, {"final.profile", p->corrected_path}};
    size_t n = p->profile->held_to > p->profile->held_from && strcmp(p->plan->damage_measure, "kl") == 0 ? 3 : 2;
    dil__key k;
    s = student_key(p, &o, &k, err);
    if (s == DIL_OK) s = dil__key_file(&k, p->first_plan_path, err);
    bool kept = s == DIL_OK;
    for (size_t i = 0; i < n && kept; i++) kept = dil__steps_done(p->steps, result[i].step, &k, result[i].path);
    p->first_damage = p->plan->predicted_damage;
    if (s == DIL_OK && !kept) s = rounds(p, err);
    else if (s == DIL_OK) s = reload(p, n == 3 ? p->corrected_path : p->profile_path, err);
    for (size_t i = 0; i < n && s == DIL_OK && !kept; i++) s = dil__steps_record(p->steps, result[i].step, &k, result[i].path, err);
    dil__key_fini(&k);
    if (s != DIL_OK) return s;
    if (n == 3 && p->profile->n_students) p->measured = p->profile->students[p->profile->n_students - 1];
    if (kept) dil_cli_pipeline_note(p, "quantize", true, (double)(dil_now_ns() - start) * 1e-9, "%.2f %% of fp32, %s -> %s", 100 * p->plan->ratio_to_fp32,
                                    dil_quantize_method_name(o.method), p->student_path);
    return DIL_OK;
}
