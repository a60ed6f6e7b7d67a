/* A tokenizer from hostile GGUF metadata: it is refused, or it tokenizes. */
#include <dilemma/tokenizer.h>

#include <stdlib.h>
#include <string.h>

static void use(const dil_tokenizer *t)
{
    static const char text[] = "The 12 cats' \xE2\x82\xAC \xFF\n\n  <s></s>";
    const dil_chat_msg msg = {"user", text, sizeof text - 1};
    dil_ids ids;
    if (dil_tokenize(t, text, sizeof text - 1, DIL_TOK_BOS | DIL_TOK_SPECIAL, &ids, NULL) == DIL_OK) {
        dil_buf b;
        dil_buf_init(&b, 1 << 20);
        dil_detokenize(t, ids.id, ids.n, DIL_DETOK_SPECIAL | DIL_DETOK_START, &b, NULL);
        dil_buf_fini(&b);
        for (size_t i = 0; i < ids.n; i++) {
            if (ids.id[i] < 0 || (uint32_t)ids.id[i] >= dil_tokenizer_n_vocab(t)) abort();
        }
        dil_ids_fini(&ids);
    }
    if (dil_chat_tokenize(t, &msg, 1, &ids, NULL) == DIL_OK) dil_ids_fini(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    dil_gguf *g;
    dil_tokenizer *t;
    dil_err err;
    if (dil_gguf_open_memory(data, size, true, &g, &err) != DIL_OK) return 0;
    if (dil_tokenizer_new(g, &t, &err) == DIL_OK) {
        dil_gguf_close(g);
        use(t);
        dil_tokenizer_free(t);
    } else {
        dil_gguf_close(g);
        if (err.code == DIL_OK || !memchr(err.text, 0, sizeof err.text)) abort();
    }
    return 0;
}
