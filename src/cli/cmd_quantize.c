/* dilemma quantize: a model file at the types of a plan, or at one type. */
#include "base/json.h"
#include "cli/cli.h"

#include <dilemma/plan.h>
#include <dilemma/profiler.h>
#include <dilemma/quantize.h>

#include <inttypes.h>
#include <string.h>

static void print_report(const char *out, const dil_quantize_report *r)
{
    char size[32];
    printf("%s: %s, %.3f bits a weight, %.2f %% of fp32; %u tensors changed", out, dil_format_bytes(r->bytes, size), r->bits_per_weight,
           100 * r->ratio_to_fp32, r->n_changed);
    if (r->n_fallback) printf(", %u of them at another type than asked for", r->n_fallback);
    if (r->imatrix_tokens) printf("; calibrated on %" PRIu64 " tokens", r->imatrix_tokens);
    if (r->n_feedback) printf("; %u with error feedback", r->n_feedback);
    putchar('\n');
}

static dil_status print_json(const char *out, const char *method, const dil_quantize_report *r, dil_err *err)
{
    json_t *o = json_pack("{s:s, s:s, s:I, s:I, s:f, s:f, s:i, s:i, s:i, s:i, s:I}", "output", out, "method", method, "bytes", (json_int_t)r->bytes, "n_params",
                          (json_int_t)r->n_params, "bits_per_weight", r->bits_per_weight, "ratio_to_fp32", r->ratio_to_fp32, "tensors_changed", (int)r->n_changed,
                          "tensors_at_another_type", (int)r->n_fallback, "tensors_requantized", (int)r->n_requantized, "tensors_with_feedback",
                          (int)r->n_feedback, "calibration_tokens", (json_int_t)r->imatrix_tokens);
    dil_status s = dil__json_save("-", o, err);
    json_decref(o);
    return s;
}

/* Judges the student on the text that the profile keeps apart, and corrects the profile by it. */
static dil_status correct_profile(const char *path, dil_profile *p, const dil_quantize_opts *o, const char *model, const char *student, dil_err *err)
{
    dil_plan *plan;
    dil_profile_student m = {.method = dil_quantize_method_name(o->method)};
    dil_status s = dil_profiler_measure(p, model, student, o->imatrix_data, o->imatrix_format, o->n_threads, dil_cli_progress(), &m, err);
    if (s == DIL_OK) s = dil_plan_read(o->plan, &plan, err);
    if (s != DIL_OK) return s;
    s = dil_plan_correct(p, plan, &m, err);
    if (s == DIL_OK) s = dil_profile_write(path, p, err);
    dil_cli_progress_done();
    if (s == DIL_OK && !dil_cli_quiet)
        fprintf(stderr, "KL divergence: the plan predicted %.4f, measured %.4f +- %.4f nats a token (%" PRIu64 " tokens kept apart); %s is corrected\n",
                plan->predicted_damage, m.kl, m.kl_stderr, m.tokens, path);
    dil_plan_free(plan);
    return s;
}

static dil_status make(const char *model, dil_quantize_opts *o, const char *profile, const char *out, dil_quantize_report *r, dil_err *err)
{
    dil_profile *p = NULL;
    dil_status s = profile ? dil_profile_read(profile, &p, err) : DIL_OK;
    if (s != DIL_OK) return s;
    if (p) o->held_from = p->held_from, o->held_to = p->held_to;
    if (p && o->held_to <= o->held_from) {
        dil_profile_free(p);
        return dil_fail(err, DIL_EDATA, "%s keeps no text apart to judge a student on (an older version's?): profile again", profile);
    }
    s = dil_quantize(model, o, out, dil_cli_progress(), r, err);
    if (s == DIL_OK && p) s = correct_profile(profile, p, o, model, out, err);
    dil_profile_free(p);
    return s;
}

static int run(int argc, char **argv)
{
    dil_quantize_opts o = {0};
    const char *profile = NULL, *type = NULL, *out = NULL, *format = "auto", *method = "rtn";
    int64_t threads = 0, tokens = 0;
    bool json = false;
    const dil_cli_opt opts[] = {
        {.name = "--plan", .kind = DIL_CLI_STR, .out = &o.plan, .arg = "F", .help = "the types that `dilemma plan` chose"},
        {.name = "--type", .kind = DIL_CLI_STR, .out = &type, .arg = "T", .help = "one type for every linear tensor, embedding and head too"},
        {.name = "--output", .letter = 'o', .kind = DIL_CLI_STR, .out = &out, .arg = "FILE", .help = "the new model (required)"},
        {.name = "--method", .kind = DIL_CLI_STR, .out = &method, .arg = "M", .help = "gptq: error feedback over the columns, calibrated on --imatrix-data\nlayerwise: the same layer by layer, towards the teacher's outputs (best, minutes)\nrtn: round to nearest, weighted by importance (default)"},
        {.name = "--imatrix", .kind = DIL_CLI_STR, .out = &o.imatrix, .arg = "F", .help = "importance matrix (GGUF) of `dilemma profile` or llama-imatrix"},
        {.name = "--imatrix-data", .kind = DIL_CLI_STR, .out = &o.imatrix_data, .arg = "FILE", .help = "gather the importance matrix on this text"},
        {.name = "--format", .kind = DIL_CLI_STR, .out = &format, .arg = "F", .help = "of that text: squad, text, jsonl (default: by content)"},
        {.name = "--imatrix-tokens", .kind = DIL_CLI_INT, .out = &tokens, .arg = "N", .help = "at most (16384; layerwise 40960)", .min = 512, .max = 1e8},
        {.name = "--profile", .kind = DIL_CLI_STR, .out = &profile, .arg = "F", .help = "leave out the text that this profile keeps apart, judge the student on it\nafterwards, and correct the profile's damages (with --plan; same --imatrix-data)"},
        {.name = "--threads", .letter = 't', .kind = DIL_CLI_INT, .out = &threads, .arg = "N", .help = "threads (all)", .min = 1, .max = 256},
        {.name = "--json", .kind = DIL_CLI_FLAG, .out = &json, .help = "the figures as one JSON object on standard output"},
        DIL_CLI_END};
    dil_cli_list pos = {.n = 0};
    int status = dil_cli_parse(argc, argv, "MODEL.gguf --plan F | --type T -o student.gguf",
                               "Writes a model at other types; standard GGUF, whole or not at all.\n\n"
                               "  dilemma quantize model.gguf --plan plan.json --imatrix profile.json.imatrix.gguf -o student.gguf",
                               opts, &pos, 1, 1);
    if (status >= 0) return status;
    if (!out) return dil_cli_usage("quantize: -o FILE is missing");
    if (profile && !o.plan) return dil_cli_usage("quantize: --profile goes with --plan");
    if (!o.plan == !type) return dil_cli_usage("quantize: give one of --plan F and --type T");
    if (type && !dil_type_from_name(type, &o.type)) return dil_cli_usage("quantize: '%s' is no type (Q4_0, IQ4_NL, MXFP4, Q8_0, ...)", type);
    if (!dil_quantize_method_from_name(method, &o.method)) return dil_cli_usage("quantize: '%s' is no method (layerwise, gptq, rtn)", method);
    if (!dil_data_format_from_name(format, &o.imatrix_format)) return dil_cli_usage("quantize: --format is squad, text, jsonl or auto, not '%s'", format);
    if (strcmp(out, pos.item[0]) == 0) return dil_cli_usage("quantize: -o names the model that is read");
    o.n_threads = (int)threads;
    o.imatrix_tokens = (uint32_t)tokens;
    dil_err err;
    dil_quantize_report r;
    if (make(pos.item[0], &o, profile, out, &r, &err) != DIL_OK) return dil_cli_fail("quantize", &err);
    dil_cli_progress_done();
    if (json) return print_json(out, dil_quantize_method_name(r.method), &r, &err) == DIL_OK ? 0 : dil_cli_fail("quantize", &err);
    if (!dil_cli_quiet) print_report(out, &r);
    return 0;
}

const dil_cli_cmd dil_cli_quantize = {"quantize", "write a model at the types of a plan, or at one type", run};
