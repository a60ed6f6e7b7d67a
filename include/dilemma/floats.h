/* dilemma/floats.h - a model file with its weights as floats: a reference to quantize from, and, folded, one off every grid.
 *
 *   dil_floats_opts o = {.type = DIL_TYPE_F16, .fold = true, .seed = 1234};
 *   dil_floats_write("m.Q4_1.gguf", &o, "teacher.gguf", NULL, NULL, err);
 *
 * Weights that were quantized once lie on their grid: writing them on that grid again costs nothing, and any figure of quality
 * taken there would be false. Folding multiplies channels by random factors that the next layer divides out: each norm into the linear
 * layers behind it, ffn_up into ffn_down, attn_v into attn_output (a key/value head serves a group of heads). The function stays the same
 * up to rounding; the weights leave the grid. What has no factor on its columns stays on its own: the table of a tied head, and in models
 * whose norms come after the sum (OPT-350M) all but attn_output and ffn_down. Say so beside figures. */
#ifndef DILEMMA_FLOATS_H
#define DILEMMA_FLOATS_H

#include <dilemma/arch.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct dil_floats_opts {
    dil_type type; /* of linear weights: F32, F16 or BF16; norms and biases are F32 */
    bool fold;
    uint64_t seed; /* of the factors, log-uniform in [0.8, 1.25] */
} dil_floats_opts;

typedef struct dil_floats_report {
    uint64_t n_params, bytes; /* of all tensors as written */
    uint32_t n_dequantized;   /* tensors that were quantized */
    uint32_t n_folded;        /* tensors multiplied by factors */
} dil_floats_report;

/* Writes `out` whole or not at all. report may be NULL.
 * Errors: DIL_EDATA (a weight that is not finite, or that the type cannot hold: tensor, row, column), those of files, DIL_ECANCELED. */
dil_status dil_floats_write(const char *model, const dil_floats_opts *opts, const char *out, const dil_progress *progress,
                            dil_floats_report *report, dil_err *err);

#ifdef __cplusplus
}
#endif
#endif
