/* The pickle machine alone, where mutations are not lost on the archive around it. */
#include "model/pickle.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    dil_arena *arena = dil_arena_new(64 << 20);
    dil__pickle_tensor *t;
    size_t n;
    dil_err err;
    volatile uint64_t sum = 0;
    if (arena && dil__pickle_read("fuzz", data, len, arena, &t, &n, &err) == DIL_OK) {
        for (size_t i = 0; i < n; i++) sum += (uint64_t)t[i].name[0] + (uint64_t)t[i].key[0] + t[i].n_dims;
    }
    dil_arena_free(arena);
    return 0;
}
