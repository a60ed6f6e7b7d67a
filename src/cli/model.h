/* cli/model.h - what `run` and `bench` share: a model file opened with its architecture and weights. */
#ifndef DIL_CLI_MODEL_H
#define DIL_CLI_MODEL_H

#include <dilemma/engine.h>
#include <dilemma/tokenizer.h>

typedef struct dil_cli_model {
    dil_gguf *file;
    dil_arch arch;
    dil_weights weights;
} dil_cli_model;

dil_status dil_cli_model_there(const char *path, dil_err *err); /* what a newcomer gets wrong: no file, or a folder, with the cure */
dil_status dil_cli_model_open(const char *path, dil_cli_model *out, dil_err *err);
void dil_cli_model_close(dil_cli_model *m);
dil_stage_opts dil_cli_whole(const dil_cli_model *m); /* options of a stage with every layer, F16 cache */

/* Of n > 0 values, which are sorted here; spread is (third quartile - first quartile) / median. */
typedef struct dil_cli_spread { double median, spread; } dil_cli_spread;
dil_cli_spread dil_cli_median(double *x, size_t n);

#endif
