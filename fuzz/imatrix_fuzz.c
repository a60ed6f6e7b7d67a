/* Importance matrices from outside: whatever the file says, the rows are finite, and as long as they claim to be. */
#include "quant/calib.h"

#include <math.h>
#include <string.h>

static void walk(const dil_gguf *g, const dil__imatrix *m)
{
    for (size_t i = 0; i < dil_gguf_n_tensors(g); i++) {
        const dil_tensor *t = dil_gguf_tensor_at(g, i);
        size_t len = strlen(t->name), tail = strlen(".in_sum2");
        if (len <= tail || strcmp(t->name + len - tail, ".in_sum2") != 0) continue;
        char name[DIL_TENSOR_NAME_MAX];
        snprintf(name, sizeof name, "%.*s", (int)(len - tail), t->name);
        const float *row = dil__imatrix_row(m, name, t->ne[0]);
        if (!row || dil__imatrix_row(m, name, t->ne[0] + 1)) __builtin_trap();
        for (uint64_t j = 0; j < t->ne[0]; j++)
            if (!isfinite(row[j]) || row[j] < 0) __builtin_trap();
    }
    if (dil__imatrix_tokens(m) == 0) __builtin_trap();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    dil_gguf *g;
    dil_err err;
    dil__imatrix *m;
    if (dil_gguf_open_memory(data, len, false, &g, &err) != DIL_OK) return 0;
    if (dil__imatrix_read(g, &m, &err) == DIL_OK) {
        walk(g, m);
        dil__imatrix_free(m);
    }
    dil_gguf_close(g);
    return 0;
}
