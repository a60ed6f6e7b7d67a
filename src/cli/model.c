/* Opening a model for the programs that run one in this process. */
#include "cli/model.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

dil_status dil_cli_model_there(const char *path, dil_err *err)
{
    struct stat st;
    if (stat(path, &st) != 0 && errno == ENOENT) return dil_fail(err, DIL_ENOTFOUND, "%s: no such file (dilemma pull fetches models, dilemma import converts folders)", path);
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) return dil_fail(err, DIL_EFORMAT, "%s: a folder; dilemma import makes a GGUF file of a checkpoint's folder", path);
    return DIL_OK; /* what else is wrong is said by who opens it */
}

dil_status dil_cli_model_open(const char *path, dil_cli_model *out, dil_err *err)
{
    dil_cli_model m = {0};
    dil_status s = dil_cli_model_there(path, err);
    if (!s) s = dil_gguf_open(path, &m.file, err);
    if (!s) s = dil_arch_read(m.file, &m.arch, err);
    if (s) {
        dil_cli_model_close(&m);
        return s;
    }
    m.weights = dil_gguf_weights(m.file);
    *out = m;
    return DIL_OK;
}

void dil_cli_model_close(dil_cli_model *m)
{
    dil_gguf_close(m->file);
    memset(m, 0, sizeof *m);
}

dil_stage_opts dil_cli_whole(const dil_cli_model *m)
{
    return (dil_stage_opts){.last_layer = m->arch.n_blocks + 1, .kv_type = DIL_TYPE_F16};
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double quantile(const double *sorted, size_t n, double p)
{
    double at = p * (double)(n - 1);
    size_t i = (size_t)at;
    if (i + 1 >= n) return sorted[n - 1];
    return sorted[i] + (at - (double)i) * (sorted[i + 1] - sorted[i]);
}

dil_cli_spread dil_cli_median(double *x, size_t n)
{
    qsort(x, n, sizeof *x, by_value);
    double median = quantile(x, n, 0.5);
    return (dil_cli_spread){median, median > 0 ? (quantile(x, n, 0.75) - quantile(x, n, 0.25)) / median : 0};
}
