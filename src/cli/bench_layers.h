/* cli/bench_layers.h - the layers of a model timed one by one. */
#ifndef DIL_CLI_BENCH_LAYERS_H
#define DIL_CLI_BENCH_LAYERS_H

#include "base/json.h"
#include "cli/model.h"

typedef struct dil_cli_bench_layers dil_cli_bench_layers;

dil_status dil_cli_bench_layers_run(const dil_cli_model *m, const char *device, int threads, uint32_t n_past, uint32_t n_batch,
                                    dil_cli_bench_layers **out, dil_err *err);
void dil_cli_bench_layers_free(dil_cli_bench_layers *b);
double dil_cli_bench_layers_sum(const dil_cli_bench_layers *b); /* decode seconds of a token */
json_t *dil_cli_bench_layers_json(const dil_cli_bench_layers *b, double token_sec /* of the whole model; 0: not measured */);
void dil_cli_bench_layers_print(const dil_cli_bench_layers *b, double token_sec);

#endif
