/* Any bytes as a tokenizer.model. */
#include "model/spm.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    dil_arena *a = dil_arena_new(1 << 24);
    dil__spm m;
    dil_err err;
    if (a && dil__spm_read("fuzz", data, len, a, &m, &err) == DIL_OK) {
        size_t sum = 0;
        for (size_t i = 0; i < m.n; i++) {
            for (size_t k = 0; k < m.piece[i].len; k++) sum += (unsigned char)m.piece[i].s[k] != 0;
            if (m.piece[i].type < 1 || m.piece[i].type > 6 || m.piece[i].len == 0 || sum == 0) abort();
        }
    }
    dil_arena_free(a);
    return 0;
}
