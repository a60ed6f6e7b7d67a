/* `dilemma plan --explain` and `--pareto`. */
#include "cli/cli.h"
#include "cli/plan_more.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void print_use(const dil_explanation *e)
{
    char a[32], b[32];
    double share = e->limit > 0 ? 100 * e->used / e->limit : 100;
    const char *mark = e->binds ? "  <- binds" : "";
    switch (e->reason) {
    case DIL_REASON_MEMORY:
        printf("  %-28s %10s of %10s (%.1f %%)%s\n", e->node, dil_format_bytes((uint64_t)e->used, a), dil_format_bytes((uint64_t)e->limit, b), share, mark);
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

static void json_number(const char *key, double v)
{
    if (isfinite(v)) printf(", \"%s\": %.9g", key, v);
    else printf(", \"%s\": null", key);
}

static void json_text(const char *s)
{
    putchar('"');
    for (; *s; s++) {
        if (*s == '"' || *s == '\\') putchar('\\');
        if ((unsigned char)*s >= 0x20) putchar(*s);
    }
    putchar('"');
}

static void print_json(const dil_explanation *e, uint32_t n)
{
    puts("{\"version\": 1, \"explanations\": [");
    for (uint32_t i = 0; i < n; i++) {
        printf("  {\"reason\": \"%s\", \"node\": ", reason_name[e[i].reason]);
        if (e[i].node) json_text(e[i].node);
        else fputs("null", stdout);
        json_number("used", e[i].used);
        json_number("limit", e[i].limit);
        json_number("more", e[i].more);
        json_number("token_sec", e[i].token_sec);
        json_number("total_sec", e[i].total_sec);
        json_number("bound_sec", e[i].bound_sec);
        printf(", \"proved\": %s, \"binds\": %s, \"text\": ", e[i].proved ? "true" : "false", e[i].binds ? "true" : "false");
        json_text(e[i].text);
        puts(i + 1 < n ? "}," : "}");
    }
    puts("]}");
}

int dil__cli_explain(const dil_profile *profile, const dil_cluster *cluster, const dil_plan_options *o, const dil_plan *plan, bool json)
{
    static dil_explanation e[DIL_EXPLANATIONS_MAX];
    uint32_t n;
    dil_err err = {0};
    dil_status s = dil_plan_explain(profile, cluster, o, plan, e, &n, &err);
    dil_cli_progress_done();
    if (s != DIL_OK) return dil_cli_fail("plan: --explain", &err);
    if (json) {
        print_json(e, n);
        return 0;
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
