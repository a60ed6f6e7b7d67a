/* `dilemma plan`: which node holds each layer, at which types. */
#include "cli/cli.h"
#include "cli/plan_more.h"
#include "cli/serving.h"

#include <dilemma/problem.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct {
    const char *profile, *cluster, *problem, *entry, *measure, *solver, *out, *svg, *lp, *compare, *pareto_over, *from, *objective, *speculate;
    double max_ratio, max_kl, max_loss_pct, slack, rate, load_max, limit_sec, gap, horizon, margin;
    int64_t context, tokens_in, tokens_out, pareto;
    uint32_t n_guesses;
    double acceptance;
    bool json, explain;
    dil_cli_list models;
} opt;

static const dil_cli_opt options[] = {
    {.name = "--profile", .kind = DIL_CLI_STR, .out = &opt.profile, .arg = "FILE", .help = "profile.json of `dilemma profile` (- is standard input)"},
    {.name = "--cluster", .kind = DIL_CLI_STR, .out = &opt.cluster, .arg = "FILE", .help = "cluster.json of `dilemma probe`"},
    {.name = "--problem", .kind = DIL_CLI_STR, .out = &opt.problem, .arg = "FILE", .help = "a bare problem.json in place of the two (docs/FORMATS.md)"},
    {.name = "--max-ratio", .kind = DIL_CLI_NUM, .out = &opt.max_ratio, .arg = "R", .help = "file size at most R of the model in fp32, 0.1275 for 12.75 %", .min = 1e-9, .max = 1e3},
    {.name = "--max-kl", .kind = DIL_CLI_NUM, .out = &opt.max_kl, .arg = "X", .help = "damage at most X (KL divergence from the teacher, nats a token)", .min = 0, .max = 1e9},
    {.name = "--max-loss-increase", .kind = DIL_CLI_NUM, .out = &opt.max_loss_pct, .arg = "PCT", .help = "loss at most PCT percent up, by the profile's calibration", .min = 0, .max = 1e9},
    {.name = "--slack", .kind = DIL_CLI_NUM, .out = &opt.slack, .arg = "S", .help = "without a quality budget: damage at most 1+S times the least possible (0.1)", .min = 0, .max = 1e6},
    {.name = "--measure", .kind = DIL_CLI_STR, .out = &opt.measure, .arg = "M", .help = "damage by kl or weight (kl where the profile has it)"},
    {.name = "--entry", .kind = DIL_CLI_STR, .out = &opt.entry, .arg = "NODE", .help = "where requests arrive (the cluster's entry)"},
    {.name = "--context", .kind = DIL_CLI_INT, .out = &opt.context, .arg = "N", .help = "cached tokens that must fit (the profile's)", .min = 1, .max = 1e9},
    {.name = "--tokens-in", .kind = DIL_CLI_INT, .out = &opt.tokens_in, .arg = "N", .help = "prompt tokens of a request (128)", .min = 1, .max = 1e9},
    {.name = "--tokens-out", .kind = DIL_CLI_INT, .out = &opt.tokens_out, .arg = "N", .help = "tokens of its answer (128)", .min = 1, .max = 1e9},
    {.name = "--objective", .kind = DIL_CLI_STR, .out = &opt.objective, .arg = "WHAT", .help = "delay of an answer, or throughput: most requests a second, then the least delay (delay)"},
    {.name = "--rate", .kind = DIL_CLI_NUM, .out = &opt.rate, .arg = "R", .help = "requests a second that nodes and links must sustain (not asked)", .min = 0, .max = 1e9},
    {.name = "--max-load", .kind = DIL_CLI_NUM, .out = &opt.load_max, .arg = "U", .help = "highest load of a node or link at that rate (0.9)", .min = 1e-6, .max = 1},
    {.name = "--speculate", .kind = DIL_CLI_STR, .out = &opt.speculate, .arg = "D:CHANCE",
     .help = "count with speculation: each pass carries D guessed tokens (1 to 15), a guess behind right ones is right with\n"
             "CHANCE (0 to 1): 5:0.7; off (off; with --from as in that plan)"},
    {.name = "--solver", .kind = DIL_CLI_STR, .out = &opt.solver, .arg = "NAME", .help = "auto, path, milp, exhaustive or baseline:NAME, see --compare (auto)"},
    {.name = "--compare", .kind = DIL_CLI_STR, .out = &opt.compare, .arg = "LIST",
     .help = "solvers side by side, no plan is written: all, or names with commas. Baselines: best-single, equal-split,\n"
             "memory-proportional, speed-proportional, edgeshard, halda, uniform, soft-quality, paper; those that place\n"
             "only, with +levels behind the name, have the best levels chosen for their placement"},
    {.name = "--from", .kind = DIL_CLI_STR, .out = &opt.from, .arg = "FILE", .help = "the plan that runs now: it stays unless another pays for the bytes to move (--json: the decision)"},
    {.name = "--horizon", .kind = DIL_CLI_NUM, .out = &opt.horizon, .arg = "SEC", .help = "with --from: for how long the network stays as it is (3600)", .min = 0, .max = 1e12},
    {.name = "--margin", .kind = DIL_CLI_NUM, .out = &opt.margin, .arg = "M", .help = "with --from: the gain must be 1+M times the cost (0.1)", .min = 0, .max = 1e6},
    {.name = "--model-profile", .kind = DIL_CLI_LIST, .out = &opt.models, .arg = "F[:key=value]...",
     .help = "several models at once, in place of --profile: F:rate=0.5:max-ratio=0.13; keys rate, weight (the rate), max-ratio,\n"
             "max-kl, max-loss-increase, slack, tokens-in, tokens-out, context; other options hold for all"},
    {.name = "--explain", .kind = DIL_CLI_FLAG, .out = &opt.explain, .help = "what binds, and what more memory, faster links or a wider budget would bring"},
    {.name = "--pareto", .kind = DIL_CLI_INT, .out = &opt.pareto, .arg = "N", .help = "N proved plans from the smallest damage to the least delay: -o front.csv, --svg front.svg", .min = 2, .max = 1000},
    {.name = "--pareto-over", .kind = DIL_CLI_STR, .out = &opt.pareto_over, .arg = "WHAT", .help = "damage or ratio (damage)"},
    {.name = "--time-limit", .kind = DIL_CLI_NUM, .out = &opt.limit_sec, .arg = "SEC", .help = "wall clock of the solver (60); the best plan so far comes with its bound", .min = 1e-3, .max = 1e7},
    {.name = "--gap", .kind = DIL_CLI_NUM, .out = &opt.gap, .arg = "G", .help = "stop when the plan is proved this close to the best (0.001; with --problem 0.0001)", .min = 1e-9, .max = 1},
    {.name = "--out", .letter = 'o', .kind = DIL_CLI_STR, .out = &opt.out, .arg = "FILE", .help = "plan.json (- is standard output)"},
    {.name = "--svg", .kind = DIL_CLI_STR, .out = &opt.svg, .arg = "FILE", .help = "a picture of the layered graph and the path"},
    {.name = "--lp", .kind = DIL_CLI_STR, .out = &opt.lp, .arg = "FILE", .help = "the problem as .lp or .mps, for any solver"},
    {.name = "--json", .kind = DIL_CLI_FLAG, .out = &opt.json, .help = "the plan on standard output as JSON"},
    DIL_CLI_END,
};

static const char usage[] = "--profile FILE --cluster FILE [--max-ratio R] [--max-kl X] [--max-loss-increase PCT] -o plan.json\n"
                            "       dilemma plan --problem FILE [--json] [-o FILE]\n"
                            "       dilemma plan --cluster FILE --model-profile F:rate=R:max-ratio=X --model-profile G:... -o plan.json";
static const char about[] =
    "Decides which node holds each layer and at which ggml types, jointly, so that an answer comes as soon as possible within\n"
    "storage and quality. --max-kl and --max-loss-increase are quality budgets, --max-ratio is a limit on the file's size; with\n"
    "a size alone (or nothing) the damage is first made as small as it can be, and may then grow by --slack for speed.\n"
    "The plan is proved optimal to the gap that is printed. No plan: exit status 9, and the text says which budget is short.\n\n"
    "  dilemma plan --profile profile.json --cluster cluster.json --max-ratio 0.1275 -o plan.json --svg plan.svg";

static const char *percent(double v, char out[24])
{
    snprintf(out, 24, v == 0 ? "0 %%" : v < 1e-4 ? "%.4f %%" : "%.2f %%", 100 * v);
    return out;
}

/* Runs of layers of a stage at one level: "Q8_0 x3, IQ4_NL x9". */
static void print_levels(const dil_plan *p, const dil_plan_stage *g)
{
    for (uint32_t l = g->first_layer; l <= g->last_layer;) {
        uint32_t n = 1;
        while (l + n <= g->last_layer && strcmp(p->layers[l + n].level, p->layers[l].level) == 0) n++;
        printf("%s%s", l > g->first_layer ? ", " : "", p->layers[l].level);
        if (n > 1) printf(" x%u", n);
        l += n;
    }
}

static void print_plan(const dil_plan *p)
{
    char bytes[32], gap[24];
    printf("%-16s %-9s %10s %12s %12s  %s\n", "node", "layers", "weights", "compute ms", "hop ms", "levels");
    for (uint32_t i = 0; i < p->n_stages; i++) {
        const dil_plan_stage *g = &p->stages[i];
        char range[24];
        snprintf(range, sizeof range, "%u-%u", g->first_layer, g->last_layer);
        printf("%-16s %-9s %10s %12.3f %12.3f  ", g->node, range, dil_format_bytes(g->bytes, bytes), 1e3 * g->compute_sec, 1e3 * g->hop_sec);
        print_levels(p, g);
        putchar('\n');
    }
    printf("\ntoken %.3f ms, prefill of %u tokens %.1f ms, answer of %u tokens %.3f s\n", 1e3 * p->token_sec, p->tokens_in,
           1e3 * p->prefill_sec, p->tokens_out, p->total_sec);
    double yield = 1;
    for (uint32_t k = 0; k < p->n_guesses; k++) yield = 1 + p->acceptance * yield;
    if (p->n_guesses)
        printf("with %u guesses a pass, each right with %.2g: %.2f tokens come of a pass of %.3f ms\n", p->n_guesses, p->acceptance, yield, 1e3 * yield * p->token_sec);
    if (p->requests_per_sec_bound > 0)
        printf("sustains %.4g requests a second, no plan more than %.4g (%.0f %% busy)\n", p->requests_per_sec, p->requests_per_sec_bound, 100 * opt.load_max);
    else if (opt.rate > 0) printf("sustains %.4g requests a second (%.0f %% busy)\n", p->requests_per_sec, 100 * opt.load_max);
    printf("size %.2f %% of fp32, predicted damage %.4g (%s)\n", 100 * p->ratio_to_fp32, p->predicted_damage, p->damage_measure);
    printf("no plan within these budgets takes less than %.3f s (gap %s); %s, %.2f s\n", p->bound_sec, percent(p->gap, gap), p->solver, p->solve_sec);
}

static dil_plan_options collect(void)
{
    dil_plan_options o = dil_plan_options_default();
    o.tokens_in = (uint32_t)opt.tokens_in;
    o.tokens_out = (uint32_t)opt.tokens_out;
    o.context = (uint32_t)opt.context;
    o.entry = opt.entry;
    o.measure = opt.measure;
    o.max_damage = opt.max_kl;
    o.max_loss_increase = opt.max_loss_pct / 100;
    o.max_ratio = opt.max_ratio;
    o.slack = opt.slack;
    o.rate = opt.rate;
    o.load_max = opt.load_max;
    o.n_guesses = opt.n_guesses;
    o.acceptance = opt.acceptance;
    o.objective = opt.objective && strcmp(opt.objective, "throughput") == 0 ? DIL_OBJECTIVE_THROUGHPUT : DIL_OBJECTIVE_DELAY;
    o.solver = opt.solver;
    o.limit_sec = opt.limit_sec;
    o.gap = opt.gap;
    o.export_path = opt.lp;
    o.progress = dil_cli_progress();
    return o;
}

static int make_plan(const dil_profile *prof, const dil_cluster *cluster, const dil_plan_options *o)
{
    dil_err err = {0};
    dil_plan *plan = NULL;
    dil_status s = DIL_OK;
    bool stdout_taken = opt.json || (opt.out && strcmp(opt.out, "-") == 0) || (opt.svg && strcmp(opt.svg, "-") == 0);
    dil_plan_options mine = *o;
    if (opt.from) {
        dil_migrate_options mo = {.horizon_sec = opt.horizon, .rate = opt.rate, .margin = opt.margin};
        int failed = dil__cli_migrate(prof, cluster, &mine, opt.speculate == NULL, opt.from, &mo, opt.json, stdout_taken, &plan);
        if (failed) return failed;
    } else {
        s = dil_plan_make(prof, cluster, o, &plan, &err);
    }
    dil_cli_progress_done();
    if (s == DIL_OK && opt.out) s = dil_plan_write(opt.out, plan, &err);
    if (s == DIL_OK && opt.svg) s = dil_plan_svg(opt.svg, plan, prof, cluster, &err);
    if (s == DIL_OK && opt.json && !opt.explain && !opt.from) s = dil_plan_write("-", plan, &err);
    if (s == DIL_OK && !stdout_taken) print_plan(plan);
    int status = s == DIL_OK ? 0 : dil_cli_fail("plan", &err);
    if (s == DIL_OK && opt.explain) status = dil__cli_explain(prof, cluster, &mine, plan, opt.json);
    dil_plan_free(plan);
    return status;
}

static int run_profile(void)
{
    dil_err err = {0};
    dil_profile *prof = NULL;
    dil_cluster *cluster = NULL;
    dil_plan_options o = collect();
    int status = 0;
    dil_status s = dil_profile_read(opt.profile, &prof, &err);
    if (s == DIL_OK) s = dil_cluster_read(opt.cluster, &cluster, &err);
    if (s != DIL_OK) status = dil_cli_fail("plan", &err);
    else if (opt.compare) status = dil__cli_compare(prof, cluster, &o, opt.compare, opt.json);
    else if (opt.pareto) status = dil__cli_front(prof, cluster, &o, (uint32_t)opt.pareto, opt.pareto_over, opt.out, opt.svg);
    else status = make_plan(prof, cluster, &o);
    dil_cluster_free(cluster);
    dil_profile_free(prof);
    return status;
}

static void print_problem_json(FILE *f, const dil_solution *s, const dil_use *use)
{
    fprintf(f, "{\n  \"objective_sec\": %.17g,\n  \"bound_sec\": %.17g,\n  \"gap\": %.9g,\n  \"solve_sec\": %.6g,\n  \"solve_cpu_sec\": %.6g,\n", s->objective, s->bound, s->gap,
            s->solve_sec, s->solve_cpu_sec);
    fprintf(f, "  \"status\": \"%s\",\n  \"solver\": \"%s\",\n  \"damage\": %.17g,\n  \"layers\": [", s->optimal ? "optimal" : "feasible", s->solver,
            use->damage);
    for (uint32_t l = 0; l < s->n_layers; l++) fprintf(f, "%s{\"node\": %u, \"level\": %u}", l ? ",\n    " : "\n    ", s->node[l], s->level[l]);
    fputs("\n  ],\n  \"incumbents\": [", f);
    for (uint32_t i = 0; i < s->n_incumbents; i++) {
        const dil_incumbent *x = &s->incumbents[i];
        fprintf(f, "%s{\"sec\": %.6g, \"cpu_sec\": %.6g, \"objective_sec\": %.17g, \"bound_sec\": %.17g}", i ? ",\n    " : "\n    ", x->sec, x->cpu_sec, x->objective, x->bound);
    }
    fputs("\n  ]\n}\n", f);
}

static dil_status write_problem_json(const char *path, const dil_solution *s, const dil_use *use, dil_err *err)
{
    dil_outfile o;
    dil_status ok = dil_outfile_open(&o, path, err);
    if (ok != DIL_OK) return ok;
    print_problem_json(o.stream, s, use);
    return dil_outfile_commit(&o, err);
}

static void print_solution(const dil_solution *s, const dil_use *use)
{
    char gap[24];
    printf("%-9s %6s  %s\n", "layers", "node", "levels");
    for (uint32_t l = 0; l < s->n_layers;) {
        uint32_t n = 1;
        while (l + n < s->n_layers && s->node[l + n] == s->node[l]) n++;
        char range[24];
        snprintf(range, sizeof range, "%u-%u", l, l + n - 1);
        printf("%-9s %6u ", range, s->node[l]);
        for (uint32_t i = l; i < l + n; i++) printf(" %u", s->level[i]);
        putchar('\n');
        l += n;
    }
    printf("\n%.6f s, proved at least %.6f s (gap %s), damage %.6g; %s, %.2f s\n", s->objective, s->bound, percent(s->gap, gap), use->damage,
           s->solver, s->solve_sec);
}

static int run_problem(void)
{
    dil_err err = {0};
    dil_problem *p = NULL;
    dil_solution *sol = NULL;
    dil_use use = {0};
    dil_solve_options o = {.solver = opt.solver, .goal = DIL_GOAL_SEC, .limit_sec = opt.limit_sec, .gap = opt.gap, .progress = dil_cli_progress()};
    dil_status s = dil_problem_read(opt.problem, &p, &err);
    if (s == DIL_OK && opt.lp) s = dil_problem_export(opt.lp, p, DIL_GOAL_SEC, &err);
    if (s == DIL_OK && opt.compare) {
        int status = dil__cli_compare_problem(p, &o, opt.compare, opt.json);
        dil_problem_free(p);
        return status;
    }
    if (s == DIL_OK) s = dil_plan_solve(p, &o, &sol, &err);
    dil_cli_progress_done();
    if (s == DIL_OK) s = dil_problem_check(p, sol->node, sol->level, &use, &err);
    if (s == DIL_OK && opt.out) s = write_problem_json(opt.out, sol, &use, &err);
    if (s == DIL_OK && opt.json && !opt.explain) print_problem_json(stdout, sol, &use);
    else if (s == DIL_OK && !opt.json && !(opt.out && strcmp(opt.out, "-") == 0)) print_solution(sol, &use);
    int status = s == DIL_OK ? 0 : dil_cli_fail("plan", &err);
    if (s == DIL_OK && opt.explain) status = dil__cli_explain_problem(p, &o, sol, opt.json);
    dil_solution_free(sol);
    dil_problem_free(p);
    return status;
}

static int run(int argc, char **argv)
{
    dil_plan_options d = dil_plan_options_default();
    opt.max_ratio = d.max_ratio;
    opt.max_kl = d.max_damage;
    opt.max_loss_pct = d.max_loss_increase;
    opt.slack = d.slack;
    opt.load_max = d.load_max;
    opt.limit_sec = d.limit_sec;
    opt.horizon = 3600;
    opt.margin = 0.1;
    opt.tokens_in = d.tokens_in;
    opt.tokens_out = d.tokens_out;
    int status = dil_cli_parse(argc, argv, usage, about, options, NULL, 0, 0);
    if (status >= 0) return status;
    if (opt.objective && strcmp(opt.objective, "delay") != 0 && strcmp(opt.objective, "throughput") != 0)
        return dil_cli_usage("plan: --objective takes delay or throughput, not '%.32s'", opt.objective);
    if (opt.objective && strcmp(opt.objective, "throughput") == 0 && (opt.problem || opt.models.n || opt.compare || opt.pareto || opt.from || opt.explain))
        return dil_cli_usage("plan: --objective throughput makes one plan of one model: no --problem, --model-profile, --compare, --pareto, --from or --explain");
    if (!dil_cli_speculate_plan(opt.speculate, &opt.n_guesses, &opt.acceptance))
        return dil_cli_usage("plan: --speculate is off, or guesses a pass (1 to %d) and the chance that one is right, as 5:0.7, not '%.32s'", DIL_PLAN_GUESSES_MAX, opt.speculate);
    if (opt.problem && opt.speculate) return dil_cli_usage("plan: --speculate needs a profile: a bare problem has no passes");
    if (opt.problem) {
        if (opt.profile || opt.cluster || opt.svg || opt.pareto || opt.from)
            return dil_cli_usage("plan: --problem stands alone: no --profile, --cluster, --svg, --pareto or --from");
        return run_problem();
    }
    if (opt.models.n) {
        if (opt.profile || !opt.cluster || opt.svg || opt.explain || opt.pareto || opt.from || opt.compare)
            return dil_cli_usage("plan: --model-profile needs --cluster, and no --profile, --svg, --explain, --pareto, --from or --compare");
        dil_plan_options o = collect();
        return dil__cli_fleet(&opt.models, opt.cluster, &o, opt.out, opt.json);
    }
    if (!opt.profile || !opt.cluster) return dil_cli_usage("plan: --profile and --cluster are needed, or --problem (see dilemma plan --help)");
    if (opt.from && (opt.compare || opt.pareto)) return dil_cli_usage("plan: --from makes one plan: no --compare or --pareto");
    if (strcmp(opt.profile, "-") == 0 && strcmp(opt.cluster, "-") == 0) return dil_cli_usage("plan: only one file can be standard input");
    return run_profile();
}

const dil_cli_cmd dil_cli_plan = {"plan", "decide which node holds each layer, and at which types", run};
