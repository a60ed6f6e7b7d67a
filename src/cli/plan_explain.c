/* `dilemma plan --explain` and `--pareto`. */
#include "base/json.h"
#include "cli/cli.h"
#include "cli/plan_more.h"

#include <stdlib.h>
#include <string.h>

static void print_use(const dil_explanation *e)
{
    char a[32], b[32];
    double share = e->limit > 0 ? 100 * e->used / e->limit : 100;
    const char *mark = e->binds ? "  <- binds" : "";
    switch (e->reason) {
    case DIL_REASON_MEMORY:
        if (e->node) printf("  %-28s", e->node);
        else printf("  node %-23u", e->index);
        printf(" %10s of %10s (%.1f %%)%s\n", dil_format_bytes((uint64_t)e->used, a), dil_format_bytes((uint64_t)e->limit, b), share, mark);
        break;
    case DIL_REASON_SIZE:
        printf("  %-28s %10s of %10s (%.1f %%)%s\n", "file size", dil_format_bytes((uint64_t)e->used, a), dil_format_bytes((uint64_t)e->limit, b), share, mark);
        break;
    case DIL_REASON_DAMAGE:
    case DIL_REASON_LOAD:
        printf("  %-28s %10.4g of %10.4g (%.1f %%)%s\n", e->reason == DIL_REASON_LOAD ? "load" : "quality (damage)", e->used, e->limit, share, mark);
        break;
    case DIL_REASON_LINKS:
    case DIL_REASON_LEFT_OUT: break;
    }
}

static const char *const reason_name[] = {"memory", "damage", "size", "load", "links", "left-out"};

static dil_status print_json(const dil_explanation *e, uint32_t n, dil_err *err)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < n; i++)
        json_array_append_new(list, json_pack("{s:s, s:s?, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:b, s:b, s:s}", "reason", reason_name[e[i].reason], "node", e[i].node,
                                              "index", e[i].index == DIL_NO_NODE ? json_null() : json_integer(e[i].index), "used", dil__json_real_or_null(e[i].used), "limit", dil__json_real_or_null(e[i].limit), "more",
                                              dil__json_real_or_null(e[i].more), "token_sec", dil__json_real_or_null(e[i].token_sec), "total_sec",
                                              dil__json_real_or_null(e[i].total_sec), "bound_sec", dil__json_real_or_null(e[i].bound_sec), "proved",
                                              e[i].proved, "binds", e[i].binds, "text", e[i].text));
    json_t *o = json_pack("{s:i, s:o}", "version", 1, "explanations", list);
    dil_status s = dil__json_save("-", o, err);
    json_decref(o);
    return s;
}

static int print(const dil_explanation *e, uint32_t n, bool json)
{
    dil_err err = {0};
    if (json) {
        dil_status s = print_json(e, n, &err);
        return s == DIL_OK ? 0 : dil_cli_fail("plan: --explain", &err);
    }
    puts("\nbudgets");
    for (uint32_t i = 0; i < n; i++) print_use(&e[i]);
    puts("\nwhat more would bring (each solved again)");
    for (uint32_t i = 0; i < n; i++) {
        if (e[i].reason != DIL_REASON_LEFT_OUT) printf("  %s\n", e[i].text);
    }
    bool any = false;
    for (uint32_t i = 0; i < n; i++) {
        if (e[i].reason != DIL_REASON_LEFT_OUT) continue;
        if (!any) puts("\nnodes without layers");
        any = true;
        printf("  %s\n", e[i].text);
    }
    return 0;
}

int dil__cli_explain(const dil_profile *profile, const dil_cluster *cluster, const dil_plan_options *o, const dil_plan *plan, bool json)
{
    static dil_explanation e[DIL_EXPLANATIONS_MAX];
    uint32_t n;
    dil_err err = {0};
    dil_status s = dil_plan_explain(profile, cluster, o, plan, e, &n, &err);
    dil_cli_progress_done();
    return s == DIL_OK ? print(e, n, json) : dil_cli_fail("plan: --explain", &err);
}

int dil__cli_explain_problem(const dil_problem *p, const dil_solve_options *o, const dil_solution *plan, bool json)
{
    static dil_explanation e[DIL_EXPLANATIONS_MAX];
    uint32_t n;
    dil_err err = {0};
    dil_status s = dil_problem_explain(p, o, plan->node, plan->level, e, &n, &err);
    dil_cli_progress_done();
    return s == DIL_OK ? print(e, n, json) : dil_cli_fail("plan: --explain", &err);
}

int dil__cli_front(const dil_profile *profile, const dil_cluster *cluster, const dil_plan_options *o, uint32_t n, const char *over_name,
                   const char *csv, const char *svg)
{
    dil_err err = {0};
    uint32_t found = 0;
    dil_front over = DIL_FRONT_DAMAGE;
    if (over_name && strcmp(over_name, "ratio") == 0) over = DIL_FRONT_RATIO;
    else if (over_name && strcmp(over_name, "kl") != 0 && strcmp(over_name, "damage") != 0)
        return dil_cli_usage("plan: --pareto-over takes damage or ratio, not '%.32s'", over_name);
    dil_front_point *points = calloc(n, sizeof *points);
    dil_status s = points ? dil_plan_front(profile, cluster, o, over, n, points, &found, &err) : dil_fail(&err, DIL_EMEMORY, "out of memory");
    dil_cli_progress_done();
    if (s == DIL_OK) s = dil_front_write_csv(csv ? csv : "-", points, found, &err);
    if (s == DIL_OK && svg) s = dil_front_write_svg(svg, over, points, found, &err);
    if (s == DIL_OK && found < n && !dil_cli_quiet) fprintf(stderr, "%u of %u budgets have no plan and are left out\n", n - found, n);
    free(points);
    return s == DIL_OK ? 0 : dil_cli_fail("plan: --pareto", &err);
}
