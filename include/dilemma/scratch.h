/* dilemma/scratch.h - a model from nothing: its shape from a line of words, random weights, a vocabulary made from text.
 *
 *   dil_scratch("opt:layers=6,hidden=256,heads=4,ffn=1024,proj=128,vocab=4096", "text.json", DIL_DATA_AUTO, 1, "start.gguf", err);
 *
 * It says nothing sensible yet: `dilemma finetune --from-scratch` makes it and trains it. */
#ifndef DILEMMA_SCRATCH_H
#define DILEMMA_SCRATCH_H

#include <dilemma/arch.h>
#include <dilemma/dataset.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The architecture that a line names: "opt:" and of layers, hidden, heads, ffn, proj (width of embedding and head; as hidden), context, vocab, norm
 * (pre, or post as OPT-350M) what differs from layers=6,hidden=256,heads=4,ffn=1024,context=512,vocab=4096,norm=post.
 * Errors: DIL_EUSAGE names the word. */
dil_status dil_scratch_arch(const char *line, dil_arch *out, dil_err *err);

/* Writes the model: matrices in F16, normal with 0.02 (the projections, two of which would follow each other so, with 1 / sqrt(n_in)), norms one,
 * biases zero; byte-level BPE made from the data's contexts, questions and answers, or text, under GPT-2's rule, special tokens as OPT's.
 * data NULL: the embedded set. The same seed and data give the same bytes.
 * Errors: DIL_EUSAGE, DIL_EDATA (text too little for the vocabulary), those of loading and writing. */
dil_status dil_scratch(const char *line, const char *data, dil_data_format format, uint64_t seed, const char *out, dil_err *err);

#ifdef __cplusplus
}
#endif
#endif
