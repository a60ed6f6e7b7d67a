/* `dilemma plan --compare`: several solvers in one table. */
#include "base/json.h"
#include "cli/cli.h"
#include "cli/plan_more.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS_MAX = 64, LIST_MAX = 4096 };

typedef struct comparison {
    char text[LIST_MAX];
    const char *name[ROWS_MAX];
    uint32_t n;
    dil_compare_row row[ROWS_MAX];
} comparison;

/* "all" is ours and every baseline; a baseline may be named without its "baseline:". */
static int parse_list(comparison *c, const char *list)
{
    static char full[ROWS_MAX][80];
    if (strcmp(list, "all") == 0) {
        c->name[c->n++] = "auto";
        for (const char *const *s = dil_plan_solvers(); *s && c->n < ROWS_MAX; s++) {
            if (strncmp(*s, "baseline:", 9) == 0) c->name[c->n++] = *s;
        }
        return 0;
    }
    if (strlen(list) >= sizeof c->text) return dil_cli_usage("plan: --compare: the list is too long");
    strcpy(c->text, list);
    for (char *name = strtok(c->text, ","); name; name = strtok(NULL, ",")) {
        const char *found = NULL;
        if (c->n == ROWS_MAX) return dil_cli_usage("plan: --compare: more than %d names", ROWS_MAX);
        snprintf(full[c->n], sizeof full[0], "baseline:%.60s", name);
        for (const char *const *s = dil_plan_solvers(); *s; s++) {
            if (strcmp(*s, name) == 0 || strcmp(*s, full[c->n]) == 0) found = *s;
        }
        if (!found) return dil_cli_usage("plan: --compare: unknown solver '%.60s'", name);
        c->name[c->n++] = found;
    }
    return c->n ? 0 : dil_cli_usage("plan: --compare: no name in the list");
}

static const char *cell(double v, double scale, const char *fmt, char out[24])
{
    if (isnan(v)) snprintf(out, 24, "-");
    else snprintf(out, 24, fmt, v * scale);
    return out;
}

static void print_table(const comparison *c)
{
    char a[24], b[24], d[24], e[24];
    printf("%-36s %10s %10s %10s %9s %9s  %s\n", "solver", "token ms", "total s", "damage", "size %", "solve s", "within the budgets");
    for (uint32_t i = 0; i < c->n; i++) {
        const dil_compare_row *r = &c->row[i];
        printf("%-36s %10s %10s %10s %9s %9.3f  ", r->solver, cell(r->token_sec, 1e3, "%.3f", a), cell(r->total_sec, 1, "%.4f", b),
               cell(r->damage, 1, "%.4g", d), cell(r->ratio_to_fp32, 100, "%.3f", e), r->solve_sec);
        if (r->status != DIL_OK) printf("no: %s\n", r->why);
        else if (strncmp(r->solver, "baseline:", 9) != 0 && r->total_sec > 0)
            printf("yes, proved to %.2g %%\n", 100 * fmax(0, 1 - r->bound_sec / r->total_sec));
        else puts("yes");
    }
}

static dil_status print_json(const comparison *c, dil_err *err)
{
    json_t *rows = json_array();
    for (uint32_t i = 0; i < c->n; i++) {
        const dil_compare_row *r = &c->row[i];
        json_array_append_new(rows, json_pack("{s:s, s:b, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:s}", "solver", r->solver, "feasible", r->status == DIL_OK,
                                              "token_sec", dil__json_real_or_null(r->token_sec), "prefill_sec", dil__json_real_or_null(r->prefill_sec),
                                              "total_sec", dil__json_real_or_null(r->total_sec), "damage", dil__json_real_or_null(r->damage),
                                              "ratio_to_fp32", dil__json_real_or_null(r->ratio_to_fp32), "bound_sec", dil__json_real_or_null(r->bound_sec),
                                              "solve_sec", dil__json_real_or_null(r->solve_sec), "why", r->why));
    }
    json_t *o = json_pack("{s:i, s:o}", "version", 1, "rows", rows);
    dil_status s = dil__json_save("-", o, err);
    json_decref(o);
    return s;
}

static int finish(const comparison *c, dil_status s, dil_err *err, bool json)
{
    dil_cli_progress_done();
    if (s == DIL_OK && json) s = print_json(c, err);
    if (s != DIL_OK) return dil_cli_fail("plan", err);
    if (!json) print_table(c);
    return 0;
}

int dil__cli_compare(const dil_profile *profile, const dil_cluster *cluster, const dil_plan_options *o, const char *list, bool json)
{
    static comparison c;
    dil_err err = {0};
    int status = parse_list(&c, list);
    if (status) return status;
    return finish(&c, dil_plan_compare(profile, cluster, o, c.name, c.n, c.row, &err), &err, json);
}

int dil__cli_compare_problem(const dil_problem *p, const dil_solve_options *o, const char *list, bool json)
{
    static comparison c;
    dil_err err = {0};
    int status = parse_list(&c, list);
    if (status) return status;
    return finish(&c, dil_problem_compare(p, o, c.name, c.n, c.row, &err), &err, json);
}
