/* Any bytes as a schema: it compiles or is refused, and a run over it ends. */
#include "engine/grammar.h"

#include "model/tokenizer_impl.h"

#include <stdlib.h>
#include <string.h>

enum { N_VOCAB = 95 };

static dil_grammar_vocab *make_vocab(void)
{
    static dil_grammar_vocab v;
    static uint32_t id[N_VOCAB], offset[N_VOCAB + 1];
    static uint8_t bytes[N_VOCAB], ends[N_VOCAB];
    static uint16_t common[N_VOCAB];
    for (uint32_t i = 0; i < N_VOCAB; i++) {
        id[i] = offset[i] = i;
        bytes[i] = (uint8_t)(' ' + i);
    }
    offset[N_VOCAB] = N_VOCAB;
    v = (dil_grammar_vocab){.n = N_VOCAB, .n_text = N_VOCAB, .id = id, .offset = offset, .bytes = bytes, .common = common, .ends = ends};
    return &v;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    dil_grammar *g;
    dil_err err;
    if (len > 4096 || dil_grammar_json(make_vocab(), (const char *)data, len, &g, &err) != DIL_OK) return 0;
    dil__grammar_run *r = dil__grammar_run_new(g);
    for (size_t i = 0; r && i < 24; i++) {
        float logits[N_VOCAB] = {0};
        dil__grammar_run_mask(r, logits, N_VOCAB);
        uint32_t from = len ? data[(i * 7) % len] % N_VOCAB : 0, at = from;
        do at = (at + 1) % N_VOCAB;
        while (at != from && logits[at] < 0);
        dil__grammar_run_accept(r, (int32_t)at);
    }
    dil__grammar_run_free(r);
    dil_grammar_free(g);
    return 0;
}
