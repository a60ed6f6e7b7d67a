/* dilemma/finetune.h - trains a model on labels: the next token of a text, or the answer after a prompt; all of it in floats, or two thin matrices
 * beside each linear weight (LoRA, arXiv 2106.09685), in the GGUF form that llama.cpp's --lora takes.
 *
 *   dil_finetune_opts o = dil_finetune_defaults();
 *   o.model = "m.gguf", o.data = "train.json", o.rank = 8, o.out = "adapter.gguf";
 *   dil_distill_report r;  dil_finetune(&o, NULL, NULL, NULL, &r, err);      r.kl_before, kl_after: the held-out loss, nats a label
 *   dil_adapter_merge("m.gguf", "adapter.gguf", "merged.gguf", err);
 *
 * The loop is distillation's (dilemma/distill.h): Adam, a warm start and a cosine's fall, held-out samples decide which step is kept, a state on disk
 * that survives a kill. Labels of a sample with a completion are the completion and the end of the text after it; of a text all tokens. */
#ifndef DILEMMA_FINETUNE_H
#define DILEMMA_FINETUNE_H

#include <dilemma/distill.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct dil_finetune_opts {
    const char *model, *out;
    const char *scratch;       /* not NULL: no model, but one of this shape (dilemma/scratch.h) with a vocabulary from data; all tokens are labels, the
                                  loop warms up for 100 steps and judges every 64; the beginning is out.start meanwhile */
    bool whole;                /* every token is a label, not the completions alone */
    const char *data;          /* SQuAD, JSON Lines or text; NULL: the embedded set */
    dil_data_format format;
    const char *val;           /* held out; NULL: an eighth of the data */
    dil_data_format val_format;
    uint32_t rank;             /* of LoRA; 0: every tensor whole, which must be F32, F16 or BF16 */
    double alpha;              /* of LoRA: B A counts alpha / rank; 0: twice the rank */
    const char *adapter;       /* LoRA to begin with, its tensors and ranks; NULL: none */
    bool merge;                /* LoRA: out is the whole model with it, not the adapter */
    uint32_t steps, batch;     /* a step: `batch` samples */
    double minutes;            /* > 0: as dil_distill_opts */
    uint32_t n_ctx;            /* longer samples are left out; text is cut so */
    uint32_t samples, val_samples; /* at most; picked at random by the seed */
    double rate;               /* Adam's step; of whole tensors in units of their root mean square (from nothing: of 0.02) */
    uint64_t seed;
    bool resume;
    int n_threads;             /* 0: all */
} dil_finetune_opts;
dil_finetune_opts dil_finetune_defaults(void);

/* Writes out, whole or not at all. Errors: DIL_EUNSUPPORTED (types that do not train whole; a model without gradients), DIL_EDATA (no sample with a
 * completion fits; the loss is not finite), DIL_EFORMAT (an adapter of another model; OUT.state of other files), DIL_ECANCELED, DIL_EIO.
 * Memory: 24 bytes a parameter that trains, four a parameter of the model, the activations of one sample. */
dil_status dil_finetune(const dil_finetune_opts *opts, const dil_progress *progress, dil_distill_curve_fn *curve, void *curve_ctx, dil_distill_report *report,
                        dil_err *err);

/* W + alpha/rank B A for every tensor that the adapter has; these become F16 where they were quantized. Errors as above. */
dil_status dil_adapter_merge(const char *model, const char *adapter, const char *out, dil_err *err);

#ifdef __cplusplus
}
#endif
#endif
