/* dilemma/quantize.h - writes a model at other types: what a plan says for every tensor, or one type everywhere.
 *
 *   dil_quantize_opts o = {.plan = "plan.json", .imatrix = "profile.json.imatrix.gguf"};  dil_quantize_report r;
 *   dil_quantize("model.gguf", &o, "student.gguf", NULL, &r, err);
 *
 * The result is standard GGUF, whole or not at all. Norms and biases stay as they are. A model that is quantized already is its own
 * reference, and the report says so: quantizing it again adds to its error and cannot take any back. */
#ifndef DILEMMA_QUANTIZE_H
#define DILEMMA_QUANTIZE_H

#include <dilemma/dataset.h>
#include <dilemma/gguf.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum dil_quantize_method {
    DIL_QUANTIZE_RTN,  /* every block by itself, weighted by the importance matrix where one is at hand */
    DIL_QUANTIZE_GPTQ, /* error feedback over the columns (arXiv 2210.17323), straight onto the grid; codebook types (IQ2, IQ3) as RTN */
    /* The same layer by layer: on the inputs that the student's layers before give, and each weight first moved towards the teacher's
     * outputs. Costs three passes over the calibration text. More text pays: 6k tokens are not enough for it. */
    DIL_QUANTIZE_LAYERWISE,
    DIL_QUANTIZE_N
} dil_quantize_method;
bool dil_quantize_method_from_name(const char *name, dil_quantize_method *out); /* rtn, gptq, layerwise */
const char *dil_quantize_method_name(dil_quantize_method m);

typedef struct dil_quantize_opts {
    const char *plan;            /* plan.json; NULL: `type` for every linear tensor */
    dil_type type;
    dil_quantize_method method;
    const char *imatrix;         /* GGUF as `profile` or llama-imatrix writes it; NULL: see below */
    const char *imatrix_data;    /* gather one on this text; NULL and no imatrix: GPTQ, and types
                                  * that need one, calibrate on the embedded text */
    dil_data_format imatrix_format;
    uint32_t imatrix_tokens;     /* at most; 0: 16384, layerwise 40960 */
    uint64_t held_from, held_to; /* tokens of imatrix_data to leave out, kept apart to judge students on */
    const char *device;
    int n_threads;               /* 0: all */
} dil_quantize_opts;

typedef struct dil_quantize_report {
    dil_quantize_method method;  /* what was done: GPTQ in place of LAYERWISE where that does not know the architecture */
    uint64_t bytes, n_params;    /* of all tensors, a tied table once */
    double bits_per_weight, ratio_to_fp32;
    uint32_t n_changed, n_fallback; /* tensors written at another type; of which the type asked for does not fit the rows */
    uint32_t n_requantized;      /* of the changed: quantized already in the given file */
    uint32_t n_feedback;         /* tensors rounded with error feedback */
    uint64_t imatrix_tokens;     /* 0: no calibration text was used */
} dil_quantize_report;

/* Errors: DIL_EDATA (a weight that is not finite: tensor, row, column; too little text), DIL_EFORMAT (a plan for another model),
 * DIL_EIO (disk full), DIL_ECANCELED. Blocks; threads inside. Memory: one tensor at both types, and the model itself once while an
 * importance matrix is gathered. */
dil_status dil_quantize(const char *model, const dil_quantize_opts *opts, const char *out, const dil_progress *progress,
                        dil_quantize_report *report, dil_err *err);

#ifdef __cplusplus
}
#endif
#endif
