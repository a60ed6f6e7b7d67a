/* `dilemma plan --model-profile`: several models on one cluster. */
#include "base/json.h"
#include "cli/cli.h"
#include "cli/plan_more.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_ROOM = 4096 };

typedef struct fleet {
    dil_fleet_model m[DIL_FLEET_MAX];
    dil_profile *prof[DIL_FLEET_MAX];
    dil_plan *plans[DIL_FLEET_MAX];
    uint32_t n;
} fleet;

static bool parse_number(const char *text, double *out)
{
    char *end;
    errno = 0;
    *out = strtod(text, &end);
    return end != text && *end == 0 && errno == 0 && isfinite(*out) && *out >= 0;
}

/* -> NULL, or what is wrong. */
static const char *set(dil_fleet_model *m, const char *key, const char *value)
{
    double v;
    if (!parse_number(value, &v)) return "not a number from 0 on";
    if (strcmp(key, "rate") == 0) m->options.rate = v;
    else if (strcmp(key, "weight") == 0) m->weight = v;
    else if (strcmp(key, "max-ratio") == 0) m->options.max_ratio = v;
    else if (strcmp(key, "max-kl") == 0) m->options.max_damage = v;
    else if (strcmp(key, "max-loss-increase") == 0) m->options.max_loss_increase = v / 100;
    else if (strcmp(key, "slack") == 0) m->options.slack = v;
    else if (v < 1 || v > 1e9 || v != floor(v)) return "expected a whole number from 1 on (or one of rate, weight, max-ratio, max-kl, max-loss-increase, slack)";
    else if (strcmp(key, "tokens-in") == 0) m->options.tokens_in = (uint32_t)v;
    else if (strcmp(key, "tokens-out") == 0) m->options.tokens_out = (uint32_t)v;
    else if (strcmp(key, "context") == 0) m->options.context = (uint32_t)v;
    else return "unknown; there are rate, weight, max-ratio, max-kl, max-loss-increase, slack, tokens-in, tokens-out, context";
    return NULL;
}

static int parse_model(fleet *f, const char *item, const dil_plan_options *o, char *path)
{
    dil_fleet_model *m = &f->m[f->n];
    char text[PATH_ROOM];
    *m = (dil_fleet_model){.options = *o, .weight = NAN};
    if (strlen(item) >= sizeof text) return dil_cli_usage("plan: --model-profile: the text is too long");
    strcpy(text, item);
    for (char *end; (end = strrchr(text, ':')) != NULL && strchr(end, '=');) { /* from the end: a path may hold colons */
        char *value = strchr(end, '=');
        *end = *value = 0;
        const char *wrong = set(m, end + 1, value + 1);
        if (wrong) return dil_cli_usage("plan: --model-profile: %.40s=%.40s: %s", end + 1, value + 1, wrong);
    }
    if (isnan(m->weight)) m->weight = m->options.rate > 0 ? m->options.rate : 1;
    strcpy(path, text);
    return 0;
}

static const char *numbered(const char *out, uint32_t i, char path[PATH_ROOM])
{
    const char *dot = strrchr(out, '.');
    size_t stem = dot && !strchr(dot, '/') ? (size_t)(dot - out) : strlen(out);
    snprintf(path, PATH_ROOM, "%.*s-%u%s", (int)stem, out, i, out + stem);
    return path;
}

static void print_table(const fleet *f, const dil_fleet_result *r, const dil_fleet_result *turn)
{
    printf("%-28s %9s %10s %10s %9s %9s  %s\n", "model", "weight", "token ms", "answer s", "size %", "damage", "stages");
    for (uint32_t i = 0; i < f->n; i++) {
        const dil_plan *p = f->plans[i];
        const char *slash = strrchr(p->model_path, '/');
        printf("%-28.28s %9.3g %10.3f %10.4f %9.3f %9.4g  ", slash ? slash + 1 : p->model_path, f->m[i].weight, 1e3 * p->token_sec, p->total_sec,
               100 * p->ratio_to_fp32, p->predicted_damage);
        for (uint32_t g = 0; g < p->n_stages; g++)
            printf("%s%s %u-%u", g ? ", " : "", p->stages[g].node, p->stages[g].first_layer, p->stages[g].last_layer);
        putchar('\n');
    }
    printf("\nweighted sum %.4f, proved at least %.4f (gap %.2g %%), %.1f s\n", r->objective, r->bound, 100 * r->gap, r->solve_sec);
    double more = 100 * (turn->objective / r->objective - 1);
    if (turn->objective > 0) printf("one after the other in this order: %.4f (%.1f %% %s)\n", turn->objective, fabs(more), more >= 0 ? "more" : "less, within the gap");
    else puts("one after the other in this order: no plans for all were found");
}

static dil_status print_json(const fleet *f, const dil_fleet_result *r, const dil_fleet_result *turn, dil_err *err)
{
    json_t *models = json_array();
    for (uint32_t i = 0; i < f->n; i++) {
        const dil_plan *p = f->plans[i];
        json_array_append_new(models, json_pack("{s:o, s:o, s:o, s:o, s:o}", "weight", dil__json_real_or_null(f->m[i].weight), "token_sec",
                                                dil__json_real_or_null(p->token_sec), "total_sec", dil__json_real_or_null(p->total_sec), "ratio_to_fp32",
                                                dil__json_real_or_null(p->ratio_to_fp32), "predicted_damage", dil__json_real_or_null(p->predicted_damage)));
    }
    json_t *o = json_pack("{s:i, s:o, s:o, s:o, s:o, s:o, s:o}", "version", 1, "models", models, "objective", dil__json_real_or_null(r->objective), "bound",
                          dil__json_real_or_null(r->bound), "gap", dil__json_real_or_null(r->gap), "solve_sec", dil__json_real_or_null(r->solve_sec),
                          "one_after_the_other", dil__json_real_or_null(turn->objective > 0 ? turn->objective : NAN));
    dil_status s = dil__json_save("-", o, err);
    json_decref(o);
    return s;
}

static dil_fleet_method method_of(const char *solver)
{
    if (solver && strcmp(solver, "path") == 0) return DIL_FLEET_PRICES;
    return solver && strcmp(solver, "milp") == 0 ? DIL_FLEET_PROGRAM : DIL_FLEET_AUTO;
}

static dil_status solve(fleet *f, const dil_cluster *cluster, const dil_plan_options *o, dil_fleet_result *r, dil_fleet_result *turn, dil_err *err)
{
    dil_fleet_how how = {.limit_sec = o->limit_sec, .gap = o->gap, .progress = o->progress, .method = method_of(o->solver)};
    dil_status s = dil_fleet_plan(f->m, f->n, cluster, &how, f->plans, r, err);
    dil_plan *in_turn[DIL_FLEET_MAX] = {0};
    how.method = DIL_FLEET_IN_TURN;
    *turn = (dil_fleet_result){0};
    if (s == DIL_OK && dil_fleet_plan(f->m, f->n, cluster, &how, in_turn, turn, NULL) != DIL_OK) *turn = (dil_fleet_result){0};
    for (uint32_t i = 0; i < f->n; i++) dil_plan_free(in_turn[i]);
    return s;
}

int dil__cli_fleet(const dil_cli_list *list, const char *cluster_path, const dil_plan_options *o, const char *out, bool json)
{
    static fleet f;
    dil_err err = {0};
    dil_cluster *cluster = NULL;
    dil_fleet_result r, turn;
    char path[PATH_ROOM];
    dil_status s = dil_cluster_read(cluster_path, &cluster, &err);
    int status = 0;
    for (size_t i = 0; i < list->n && s == DIL_OK && status == 0; i++) {
        if (f.n == DIL_FLEET_MAX) status = dil_cli_usage("plan: more than %d models", DIL_FLEET_MAX);
        else status = parse_model(&f, list->item[i], o, path);
        if (status == 0) s = dil_profile_read(path, &f.prof[f.n], &err);
        if (status == 0 && s == DIL_OK) f.m[f.n].profile = f.prof[f.n], f.n++;
    }
    if (status == 0 && s == DIL_OK) s = solve(&f, cluster, o, &r, &turn, &err);
    dil_cli_progress_done();
    for (uint32_t i = 0; i < f.n && status == 0 && s == DIL_OK && out; i++) s = dil_plan_write(numbered(out, i, path), f.plans[i], &err);
    if (status == 0 && s == DIL_OK && json) s = print_json(&f, &r, &turn, &err);
    if (status == 0 && s == DIL_OK && !json) print_table(&f, &r, &turn);
    for (uint32_t i = 0; i < f.n; i++) {
        dil_plan_free(f.plans[i]);
        dil_profile_free(f.prof[i]);
    }
    dil_cluster_free(cluster);
    if (status == 0 && s != DIL_OK) status = dil_cli_fail("plan", &err);
    return status;
}
