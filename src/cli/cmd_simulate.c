/* `dilemma simulate`: what each way of planning again gives in a network that changes. */
#include "base/json.h"
#include "cli/cli.h"

#include <dilemma/simulate.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { POLICIES = 3 };
static const char *const policy_name[POLICIES] = {"static", "always", "horizon"};

static struct {
    const char *profile, *cluster, *trace, *generate, *policy, *plan, *entry, *measure, *out, *svg, *write_trace;
    double max_ratio, max_kl, max_loss_pct, slack, rate, duration, horizon, margin, check, detect, late, limit_sec, gap;
    int64_t context, tokens_in, tokens_out;
    bool json;
} opt;

static const dil_cli_opt options[] = {
    {.name = "--profile", .kind = DIL_CLI_STR, .out = &opt.profile, .arg = "FILE", .help = "profile.json of `dilemma profile`"},
    {.name = "--cluster", .kind = DIL_CLI_STR, .out = &opt.cluster, .arg = "FILE", .help = "cluster.json of `dilemma probe`: the network at the start"},
    {.name = "--trace", .kind = DIL_CLI_STR, .out = &opt.trace, .arg = "FILE", .help = "trace.json: requests, links and nodes over time (docs/FORMATS.md)"},
    {.name = "--generate", .kind = DIL_CLI_STR, .out = &opt.generate, .arg = "KIND:SEED", .help = "or one made up: static, drift, congestion, churn or mixed"},
    {.name = "--duration", .kind = DIL_CLI_NUM, .out = &opt.duration, .arg = "SEC", .help = "of a generated trace (1200)", .min = 1e-3, .max = 1e9},
    {.name = "--rate", .kind = DIL_CLI_NUM, .out = &opt.rate, .arg = "R", .help = "requests a second of a generated trace (0.2)", .min = 1e-9, .max = 1e6},
    {.name = "--write-trace", .kind = DIL_CLI_STR, .out = &opt.write_trace, .arg = "FILE", .help = "the trace, to be looked at or used again"},
    {.name = "--policy", .kind = DIL_CLI_STR, .out = &opt.policy, .arg = "P", .help = "static (the first plan stays), always (the best plan, whatever the move costs),\nhorizon (moves that pay), or all (all)"},
    {.name = "--plan", .kind = DIL_CLI_STR, .out = &opt.plan, .arg = "FILE", .help = "plan.json at the start (made)"},
    {.name = "--horizon", .kind = DIL_CLI_NUM, .out = &opt.horizon, .arg = "SEC", .help = "for how long a change is expected to last (120)", .min = 0, .max = 1e12},
    {.name = "--margin", .kind = DIL_CLI_NUM, .out = &opt.margin, .arg = "M", .help = "the gain must be 1+M times the cost (0.1)", .min = 0, .max = 1e6},
    {.name = "--check", .kind = DIL_CLI_NUM, .out = &opt.check, .arg = "SEC", .help = "how often a changed network is planned for (10)", .min = 1e-3, .max = 1e9},
    {.name = "--detect", .kind = DIL_CLI_NUM, .out = &opt.detect, .arg = "SEC", .help = "until a lost or returned node is noticed (2)", .min = 0, .max = 1e9},
    {.name = "--late", .kind = DIL_CLI_NUM, .out = &opt.late, .arg = "SEC", .help = "an answer that takes longer is a violation (3 times the first plan's)", .min = 0, .max = 1e9},
    {.name = "--max-ratio", .kind = DIL_CLI_NUM, .out = &opt.max_ratio, .arg = "R", .help = "budgets, as in `dilemma plan`", .min = 1e-9, .max = 1e3},
    {.name = "--max-kl", .kind = DIL_CLI_NUM, .out = &opt.max_kl, .arg = "X", .help = "", .min = 0, .max = 1e9},
    {.name = "--max-loss-increase", .kind = DIL_CLI_NUM, .out = &opt.max_loss_pct, .arg = "PCT", .help = "", .min = 0, .max = 1e9},
    {.name = "--slack", .kind = DIL_CLI_NUM, .out = &opt.slack, .arg = "S", .help = "", .min = 0, .max = 1e6},
    {.name = "--measure", .kind = DIL_CLI_STR, .out = &opt.measure, .arg = "M", .help = ""},
    {.name = "--entry", .kind = DIL_CLI_STR, .out = &opt.entry, .arg = "NODE", .help = ""},
    {.name = "--context", .kind = DIL_CLI_INT, .out = &opt.context, .arg = "N", .help = "", .min = 1, .max = 1e9},
    {.name = "--tokens-in", .kind = DIL_CLI_INT, .out = &opt.tokens_in, .arg = "N", .help = "prompt tokens that plans are made for, and of generated requests (128)", .min = 1, .max = 1e6},
    {.name = "--tokens-out", .kind = DIL_CLI_INT, .out = &opt.tokens_out, .arg = "N", .help = "tokens of an answer, likewise (128)", .min = 1, .max = 1e6},
    {.name = "--time-limit", .kind = DIL_CLI_NUM, .out = &opt.limit_sec, .arg = "SEC", .help = "wall clock of one planning (5)", .min = 1e-3, .max = 1e7},
    {.name = "--gap", .kind = DIL_CLI_NUM, .out = &opt.gap, .arg = "G", .help = "a plan proved this close to the best is good enough (0.01)", .min = 1e-9, .max = 1},
    {.name = "--out", .letter = 'o', .kind = DIL_CLI_STR, .out = &opt.out, .arg = "FILE", .help = "CSV, a row for each request"},
    {.name = "--svg", .kind = DIL_CLI_STR, .out = &opt.svg, .arg = "FILE", .help = "delay over time"},
    {.name = "--json", .kind = DIL_CLI_FLAG, .out = &opt.json, .help = "the summary as JSON"},
    DIL_CLI_END,
};

static const char usage[] = "--profile FILE --cluster FILE --trace FILE|--generate KIND:SEED [--policy P] [-o out.csv] [--svg FILE]";
static const char about[] =
    "Plays requests over a plan in a network that changes, under a virtual clock, and plans again as the policy says. Without\n"
    "waiting a request takes exactly what `dilemma plan` predicts. A move stops the service until the weights have come, and the\n"
    "running answers are replayed. Planning itself takes no virtual time.\n\n"
    "  dilemma simulate --profile profile.json --cluster cluster.json --generate mixed:1 -o out.csv --svg out.svg";

static dil_sim_options collect(void)
{
    dil_sim_options o = dil_sim_options_default();
    o.plan.tokens_in = (uint32_t)opt.tokens_in;
    o.plan.tokens_out = (uint32_t)opt.tokens_out;
    o.plan.context = (uint32_t)opt.context;
    o.plan.entry = opt.entry;
    o.plan.measure = opt.measure;
    o.plan.max_damage = opt.max_kl;
    o.plan.max_loss_increase = opt.max_loss_pct / 100;
    o.plan.max_ratio = opt.max_ratio;
    o.plan.slack = opt.slack;
    o.plan.limit_sec = opt.limit_sec;
    o.plan.gap = opt.gap;
    o.plan.progress = dil_cli_progress();
    o.migrate.horizon_sec = opt.horizon;
    o.migrate.margin = opt.margin;
    o.check_sec = opt.check;
    o.detect_sec = opt.detect;
    o.late_sec = opt.late;
    return o;
}

static dil_status get_trace(const dil_cluster *cluster, dil_trace **out, dil_err *err)
{
    if (opt.trace) return dil_trace_read(opt.trace, cluster, out, err);
    char kind[33] = "";
    const char *colon = strchr(opt.generate, ':');
    char *end = NULL;
    errno = 0;
    unsigned long long seed = colon ? strtoull(colon + 1, &end, 10) : 0;
    if (!colon || colon == opt.generate || (size_t)(colon - opt.generate) >= sizeof kind || end == colon + 1 || *end || errno || colon[1] == '-')
        return dil_fail(err, DIL_EUSAGE, "--generate takes KIND:SEED, as in drift:7, not '%.60s'", opt.generate);
    memcpy(kind, opt.generate, (size_t)(colon - opt.generate));
    dil_trace_how how = {opt.duration, opt.rate, (uint32_t)opt.tokens_in, (uint32_t)opt.tokens_out};
    return dil_trace_generate(kind, seed, cluster, &how, out, err);
}

static void print_table(dil_sim_result *const *r, const char *const *name, uint32_t n)
{
    char bytes[32];
    printf("%-9s %9s %6s %6s %9s %9s %9s %9s %9s %6s %10s %9s\n", "policy", "answered", "lost", "late", "mean s", "p50 s", "p90 s", "p99 s", "max s", "moves",
           "moved", "outage s");
    for (uint32_t i = 0; i < n; i++)
        printf("%-9s %9u %6u %6u %9.3f %9.3f %9.3f %9.3f %9.3f %6u %10s %9.1f\n", name[i], r[i]->n_answered, r[i]->n_lost, r[i]->n_late, r[i]->mean_sec,
               r[i]->p50_sec, r[i]->p90_sec, r[i]->p99_sec, r[i]->max_sec, r[i]->n_moves, dil_format_bytes((uint64_t)r[i]->moved_bytes, bytes), r[i]->outage_sec);
    printf("\nlate: more than %.3g s after arrival, or lost\n", r[0]->late_sec);
}

static dil_status print_json(dil_sim_result *const *r, const char *const *name, uint32_t n, dil_err *err)
{
    json_t *rows = json_array();
    for (uint32_t i = 0; i < n; i++)
        json_array_append_new(rows, json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "policy", name[i],
                                              "requests", (json_int_t)r[i]->n_requests, "answered", (json_int_t)r[i]->n_answered, "lost",
                                              (json_int_t)r[i]->n_lost, "late", (json_int_t)r[i]->n_late, "plannings", (json_int_t)r[i]->n_plannings, "moves",
                                              (json_int_t)r[i]->n_moves, "late_sec", dil__json_real_or_null(r[i]->late_sec), "mean_sec",
                                              dil__json_real_or_null(r[i]->mean_sec), "p50_sec", dil__json_real_or_null(r[i]->p50_sec), "p90_sec",
                                              dil__json_real_or_null(r[i]->p90_sec), "p99_sec", dil__json_real_or_null(r[i]->p99_sec), "max_sec",
                                              dil__json_real_or_null(r[i]->max_sec), "moved_bytes", dil__json_real_or_null(r[i]->moved_bytes), "move_sec",
                                              dil__json_real_or_null(r[i]->move_sec), "outage_sec", dil__json_real_or_null(r[i]->outage_sec)));
    json_t *o = json_pack("{s:i, s:o}", "version", 1, "policies", rows);
    dil_status s = dil__json_save("-", o, err);
    json_decref(o);
    return s;
}

static dil_status write_files(dil_sim_result *const *r, const char *const *name, uint32_t n, dil_err *err)
{
    const dil_sim_result *view[POLICIES] = {r[0], r[1], r[2]};
    char title[160];
    snprintf(title, sizeof title, "Delay of requests, %.120s", opt.trace ? opt.trace : opt.generate);
    dil_status s = opt.out ? dil_sim_write_csv(opt.out, view, name, n, err) : DIL_OK;
    if (s == DIL_OK && opt.svg) s = dil_sim_write_svg(opt.svg, title, view, name, n, err);
    return s;
}

static dil_status play(const dil_profile *prof, const dil_cluster *cluster, const dil_trace *trace, const dil_plan *first, int policy, dil_err *err)
{
    dil_sim_result *r[POLICIES] = {0};
    const char *name[POLICIES] = {0};
    uint32_t n = 0;
    dil_plan *made = NULL;
    dil_sim_options o = collect();
    dil_status s = DIL_OK;
    if (!first) s = dil_plan_make(prof, cluster, &o.plan, &made, err);
    o.first = first ? first : made;
    for (int p = 0; p < POLICIES && s == DIL_OK; p++) {
        if (policy != POLICIES && policy != p) continue;
        o.policy = (dil_policy)p;
        name[n] = policy_name[p];
        s = dil_simulate(prof, cluster, trace, &o, &r[n], err);
        n += s == DIL_OK;
    }
    dil_cli_progress_done();
    if (s == DIL_OK) s = write_files(r, name, n, err);
    bool stdout_taken = (opt.out && strcmp(opt.out, "-") == 0) || (opt.svg && strcmp(opt.svg, "-") == 0);
    if (s == DIL_OK && opt.json) s = print_json(r, name, n, err);
    else if (s == DIL_OK && !stdout_taken) print_table(r, name, n);
    for (int p = 0; p < POLICIES; p++) dil_sim_result_free(r[p]);
    dil_plan_free(made);
    return s;
}

static int run_all(int policy)
{
    dil_err err = {0};
    dil_profile *prof = NULL;
    dil_cluster *cluster = NULL;
    dil_trace *trace = NULL;
    dil_plan *first = NULL;
    dil_status s = dil_profile_read(opt.profile, &prof, &err);
    if (s == DIL_OK) s = dil_cluster_read(opt.cluster, &cluster, &err);
    if (s == DIL_OK) s = get_trace(cluster, &trace, &err);
    if (s == DIL_OK && opt.write_trace) s = dil_trace_write(opt.write_trace, cluster, trace, &err);
    if (s == DIL_OK && opt.plan) s = dil_plan_read(opt.plan, &first, &err);
    if (s == DIL_OK) s = play(prof, cluster, trace, first, policy, &err);
    dil_plan_free(first);
    dil_trace_free(trace);
    dil_cluster_free(cluster);
    dil_profile_free(prof);
    return s == DIL_OK ? 0 : dil_cli_fail("simulate", &err);
}

static int run(int argc, char **argv)
{
    dil_sim_options d = dil_sim_options_default();
    opt.max_ratio = d.plan.max_ratio;
    opt.max_kl = d.plan.max_damage;
    opt.max_loss_pct = d.plan.max_loss_increase;
    opt.slack = d.plan.slack;
    opt.limit_sec = d.plan.limit_sec;
    opt.gap = d.plan.gap;
    opt.tokens_in = d.plan.tokens_in;
    opt.tokens_out = d.plan.tokens_out;
    opt.horizon = d.migrate.horizon_sec;
    opt.margin = d.migrate.margin;
    opt.check = d.check_sec;
    opt.detect = d.detect_sec;
    opt.duration = 1200;
    opt.rate = 0.2;
    opt.policy = "all";
    int status = dil_cli_parse(argc, argv, usage, about, options, NULL, 0, 0), policy = 0;
    if (status >= 0) return status;
    if (!opt.profile || !opt.cluster) return dil_cli_usage("simulate: --profile and --cluster are needed (see dilemma simulate --help)");
    if (!opt.trace == !opt.generate) return dil_cli_usage("simulate: one of --trace and --generate is needed");
    while (policy < POLICIES && strcmp(policy_name[policy], opt.policy) != 0) policy++;
    if (policy == POLICIES && strcmp(opt.policy, "all") != 0)
        return dil_cli_usage("simulate: --policy takes static, always, horizon or all, not '%.32s'", opt.policy);
    return run_all(policy);
}

const dil_cli_cmd dil_cli_simulate = {"simulate", "play requests over plans in a network that changes", run};
