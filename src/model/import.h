/* model/import.h - the parts of dil_import: config.json to an architecture, the tokenizer's files to metadata. */
#ifndef DIL_MODEL_IMPORT_H
#define DIL_MODEL_IMPORT_H

#include <dilemma/import.h>
#include <jansson.h>

#define DIL__CONFIG_BYTES_MAX (16u << 20)
#define DIL__TOKENIZER_BYTES_MAX (128u << 20) /* tokenizer.json of a vocabulary of a quarter million: 35 MB */

enum { DIL__HF_FACTORS_MAX = 512 };

typedef struct dil__hf_config {
    dil_arch arch;
    bool norm_affine;  /* false: norms have no weights of their own (ones and zeros are written) */
    bool llama3_rope;  /* frequencies scaled by wavelength */
    double rope_factor, rope_low, rope_high, rope_context;
    float long_factor[DIL__HF_FACTORS_MAX], short_factor[DIL__HF_FACTORS_MAX]; /* of arch.rope_long, [rope_dims / 2] */
    bool text_only;    /* weights of a picture tower may be there, and are left out */
    int64_t bos, eos, pad; /* token ids, -1: none */
} dil__hf_config;

/* doc: the parsed config.json, `where` its name in error texts. */
dil_status dil__hf_config_read(const json_t *doc, const char *where, dil__hf_config *out, dil_err *err);
/* The divisors of Llama 3's frequencies, [rope_dims / 2]. */
void dil__hf_rope_freqs(const dil__hf_config *c, float *out);

/* Puts tokenizer.ggml.* and tokenizer.chat_template. pre [32] gets tokenizer.ggml.pre; "" when the folder has no tokenizer. */
dil_status dil__hf_vocab_put(const char *dir, const dil__hf_config *c, dil_gguf_writer *w, char pre[32], dil_err *err);

/* The same from parsed files, for tests and fuzzers. tokenizer (tokenizer.json), or vocab (vocab.json) with merges [n_bytes of
 * merges.txt]; config (tokenizer_config.json) and special (special_tokens_map.json) may be NULL. Texts are borrowed. */
typedef struct dil__hf_vocab_files {
    const json_t *tokenizer, *vocab, *config, *special, *added;
    const char *merges;
    size_t merges_bytes;
    const uint8_t *spm;        /* [spm_bytes] tokenizer.model, or NULL; read where the others are not there */
    size_t spm_bytes;
    const char *template_text; /* chat_template.jinja, or NULL */
    const char *where;         /* the folder, for error texts */
} dil__hf_vocab_files;
dil_status dil__hf_vocab_convert(const dil__hf_vocab_files *f, const dil__hf_config *c, dil_gguf_writer *w, char pre[32], dil_err *err);

#endif
