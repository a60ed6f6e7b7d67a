/* The JSON that an import reads: one document {"config": …, "tokenizer": …, "vocab": …, "tokenizer_config": …, "special": …,
 * "added": …, "merges": "…"}; each part as the file of that name would have it. */
#include "model/import.h"

#include "base/json.h"

#include <string.h>

static void convert(const json_t *doc, const dil__hf_config *c)
{
    const json_t *merges = json_object_get(doc, "merges");
    dil__hf_vocab_files f = {.tokenizer = json_object_get(doc, "tokenizer"), .vocab = json_object_get(doc, "vocab"),
                             .config = json_object_get(doc, "tokenizer_config"), .special = json_object_get(doc, "special"),
                             .added = json_object_get(doc, "added"), .merges = json_string_value(merges),
                             .merges_bytes = json_string_length(merges), .where = "fuzz"};
    dil_gguf_writer *w;
    dil_err err;
    char pre[32];
    if (dil_gguf_writer_new(&w, &err) != DIL_OK) return;
    if (dil_arch_put(w, &c->arch, &err) == DIL_OK) dil__hf_vocab_convert(&f, c, w, pre, &err);
    dil_gguf_writer_free(w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    json_t *doc;
    dil_err err;
    dil__hf_config c;
    if (dil__json_parse("fuzz", (const char *)data, len, &doc, &err) != DIL_OK) return 0;
    if (dil__hf_config_read(json_object_get(doc, "config"), "fuzz", &c, &err) == DIL_OK) {
        float freqs[4096];
        if (c.arch.rope_freqs && c.arch.rope_dims <= 8192) dil__hf_rope_freqs(&c, freqs);
        if (c.arch.n_vocab <= 65536) convert(doc, &c);
    }
    json_decref(doc);
    return 0;
}
