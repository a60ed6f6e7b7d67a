/* dilemma/import.h - a Hugging Face folder becomes one GGUF file.
 *
 *   dil_import("opt-350m", "opt-350m.gguf", NULL, NULL, NULL, err);
 *
 * Read are config.json; the weights (model.safetensors, pytorch_model.bin as torch.save writes it since 1.6, either in shards);
 * tokenizer.json, or vocab.json with merges.txt; tokenizer_config.json. Families: OPT (all sizes) and Llama (SmolLM2, Llama 3).
 * Weights stream through, a megabyte at a time. Not for quantizing: `dilemma quantize` takes the file from there. */
#ifndef DILEMMA_IMPORT_H
#define DILEMMA_IMPORT_H

#include <dilemma/arch.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DIL_TYPE_AS_STORED ((dil_type)-1)

typedef struct dil_import_opts {
    dil_type type;      /* of linear weights: F32, F16, BF16 (round to nearest even), or AS_STORED: the token table's own type */
    bool no_tokenizer;  /* weights only; the file then cannot tokenize */
    const char *name;   /* general.name; NULL: the folder's name */
} dil_import_opts;

typedef struct dil_import_info {
    dil_arch arch;
    dil_type type;
    uint64_t n_params, bytes; /* of all tensors as written */
    char tokenizer[32];       /* tokenizer.ggml.pre, "" without one */
} dil_import_info;

/* dil_import - reads `dir`, writes `out` ("-": standard output), whole or not at all.
 *
 * opts, progress, info may be NULL (opts: AS_STORED).
 * Errors  DIL_ENOTFOUND    no config.json, no weights
 *         DIL_EFORMAT      a file is malformed or truncated; a tensor is missing or has another shape than config.json implies
 *         DIL_EUNSUPPORTED the architecture, a feature of it, a tokenizer that is not byte-level BPE, a pickle with more than tensors
 *         DIL_EDATA        NaN or infinity in a weight, or one that F16 cannot hold: the text names the tensor (and suggests BF16)
 *         DIL_ELIMIT, DIL_EIO, DIL_EMEMORY, DIL_ECANCELED
 * Cost    one read of the weights, one write. Blocks; safe on distinct outputs. */
dil_status dil_import(const char *dir, const char *out, const dil_import_opts *opts, const dil_progress *progress,
                      dil_import_info *info, dil_err *err);

#ifdef __cplusplus
}
#endif
#endif
