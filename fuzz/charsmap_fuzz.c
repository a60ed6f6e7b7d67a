/* Any bytes as rules of normalization, and what follows them as text: the map is refused, or text of bounded length comes out of it and is cut
 * into ids of the vocabulary. The first two bytes are the map's length. */
#include "model/unigram.h"

#include <stdlib.h>
#include <string.h>

enum { N = 8 };

static void use(const dil__unigram *u, const dil__vocab *v, const char *text, size_t len)
{
    dil_buf out;
    dil__viterbi scratch = {0};
    dil__ids ids = {0};
    dil_buf_init(&out, len * DIL__CHARSMAP_TO_MAX + 2);
    if (dil__unigram_normalize(u, v, text, len, &out, NULL) != DIL_OK) abort(); /* a map adds no more than that */
    if (dil__unigram_text(u, v, &scratch, text, len, &ids, NULL) != DIL_OK || ids.n > out.len) abort();
    for (size_t i = 0; i < ids.n; i++) {
        if (ids.id[i] < 0 || ids.id[i] >= N) abort();
    }
    free(ids.id);
    dil__viterbi_fini(&scratch);
    dil_buf_fini(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const spelling[N] = {"<unk>", "a", "\xE2\x96\x81", "ab", "ba", "\xC3\xA9", "aab", "[u]"};
    static const float score[N] = {0, -2, -1, -3, -3, -4, -5, 0};
    static const int32_t type[N] = {DIL__TOKEN_UNKNOWN, 1, 1, 1, 1, 1, 1, DIL__TOKEN_USER};
    if (size < 2) return 0;
    dil__str token[N];
    for (int i = 0; i < N; i++) token[i] = (dil__str){spelling[i], strlen(spelling[i])};
    size_t map = data[0] | (size_t)data[1] << 8;
    if (map > size - 2) map = size - 2;
    const dil__vocab_src src = {.tokens = token, .types = type, .n_tokens = N, .scores = score};
    const dil__unigram_src more = {.charsmap = data + 2, .charsmap_bytes = map, .space_first = map & 1, .collapses = map & 2};
    dil__vocab v;
    dil__unigram u;
    dil_err err;
    if (dil__vocab_init(&v, &src, NULL) != DIL_OK) abort();
    if (dil__unigram_init(&u, &v, score, &more, &err) == DIL_OK) {
        use(&u, &v, (const char *)data + 2 + map, size - 2 - map);
        dil__unigram_fini(&u);
    }
    dil__vocab_fini(&v);
    return 0;
}
