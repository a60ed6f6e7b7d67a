/* model/bpe_train.h - a byte-level BPE vocabulary made from text: within GPT-2's words the most frequent pair of neighbours becomes a token, again
 * and again (arXiv 1508.07909).
 *
 *   dil__bpe_trainer_new(&t, err);  dil__bpe_trainer_text(t, s, len, err);  ...  dil__bpe_trainer_put(t, 4096, writer, err);  dil__bpe_trainer_free(t); */
#ifndef DIL_MODEL_BPE_TRAIN_H
#define DIL_MODEL_BPE_TRAIN_H

#include <dilemma/gguf.h>

enum { DIL__BPE_TRAIN_LEAST = 4 + 256, DIL__BPE_TRAIN_WORDS = 1 << 22, DIL__BPE_TRAIN_VOCAB = 1 << 17 };

typedef struct dil__bpe_trainer dil__bpe_trainer;
dil_status dil__bpe_trainer_new(dil__bpe_trainer **out, dil_err *err);
void dil__bpe_trainer_free(dil__bpe_trainer *t);
/* Counts the words of a text. Errors: DIL_ELIMIT (more than DIL__BPE_TRAIN_WORDS different ones). */
dil_status dil__bpe_trainer_text(dil__bpe_trainer *t, const char *text, size_t len, dil_err *err);
/* Trains, and puts tokenizer.ggml.*: OPT's special tokens <s>, <pad>, </s> (begins and ends a text), <unk>, the 256 bytes, and merges up to n_vocab tokens.
 * Equally frequent pairs: the one of lower ids first. Once.
 * Errors: DIL_EUSAGE (n_vocab outside DIL__BPE_TRAIN_LEAST..VOCAB), DIL_EDATA (fewer pairs occur twice than that takes).
 * Cost: n_vocab times the different words' bytes. */
dil_status dil__bpe_trainer_put(dil__bpe_trainer *t, uint32_t n_vocab, dil_gguf_writer *w, dil_err *err);

#endif
