/* The result as rows and as a picture. */
#include <dilemma/simulate.h>

#include "plan/chart.h"

#include <math.h>
#include <stdlib.h>

enum { SERIES_MAX = 8 };

static void put(FILE *f, double v, char end)
{
    if (isfinite(v)) fprintf(f, "%.9g", v);
    fputc(end, f);
}

static void put_rows(FILE *f, const dil_sim_result *r, const char *name)
{
    for (uint32_t i = 0; i < r->n_requests; i++) {
        const dil_sim_request *q = &r->requests[i];
        fprintf(f, "%s,%u,", name, i);
        put(f, q->arrive_sec, ',');
        put(f, q->start_sec, ',');
        put(f, q->first_token_sec, ',');
        put(f, q->done_sec, ',');
        put(f, q->done_sec - q->arrive_sec, ',');
        fprintf(f, "%u,%u,%u,%d\n", q->tokens_in, q->tokens_out, q->replays, !isnan(q->done_sec));
    }
}

dil_status dil_sim_write_csv(const char *path, const dil_sim_result *const *r, const char *const *name, uint32_t n, dil_err *err)
{
    dil_outfile o;
    dil_status s = dil_outfile_open(&o, path, err);
    if (s != DIL_OK) return s;
    fputs("policy,request,arrive_sec,start_sec,first_token_sec,done_sec,delay_sec,tokens_in,tokens_out,replays,answered\n", o.stream);
    for (uint32_t i = 0; i < n; i++) put_rows(o.stream, r[i], name[i]);
    return dil_outfile_commit(&o, err);
}

dil_status dil_sim_write_svg(const char *path, const char *title, const dil_sim_result *const *r, const char *const *name, uint32_t n, dil_err *err)
{
    static const char *const color[] = {"#9aa5b1", "#d1793b", "#2a6fbb", "#3c9a5f"};
    dil__series s[SERIES_MAX] = {0};
    double *v[SERIES_MAX] = {0};
    char note[300] = "", part[80];
    dil_status ok = DIL_OK;
    if (n > SERIES_MAX) n = SERIES_MAX;
    for (uint32_t i = 0; i < n && ok == DIL_OK; i++) {
        uint32_t m = r[i]->n_requests;
        v[i] = calloc(2u * m + 1, sizeof(double));
        if (!v[i]) ok = dil_fail(err, DIL_EMEMORY, "%s: out of memory", path);
        for (uint32_t k = 0; k < m && ok == DIL_OK; k++) {
            v[i][k] = r[i]->requests[k].arrive_sec;
            v[i][m + k] = r[i]->requests[k].done_sec - r[i]->requests[k].arrive_sec;
        }
        s[i] = (dil__series){.name = name[i], .color = color[i % 4], .x = v[i], .y = v[i] ? v[i] + m : NULL, .n = m, .line = true};
        snprintf(part, sizeof part, "%s%s mean %.3g s, p99 %.3g s", i ? "; " : "", name[i], r[i]->mean_sec, r[i]->p99_sec);
        size_t used = 0;
        while (note[used]) used++;
        snprintf(note + used, sizeof note - used, "%s", part);
    }
    dil__chart c = {.title = title, .note = note, .x_label = "arrival of the request, s", .y_label = "seconds until its last token", .series = s,
                    .n_series = n, .y_from_zero = true};
    if (ok == DIL_OK) ok = dil__chart_write(path, &c, err);
    for (uint32_t i = 0; i < SERIES_MAX; i++) free(v[i]);
    return ok;
}
