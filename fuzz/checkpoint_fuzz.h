/* What the fuzzers of checkpoints share: every tensor that was let through must lie in readable memory. */
#include "model/checkpoint.h"

static inline void walk_checkpoint(dil__ckpt *c)
{
    volatile uint64_t sum = 0;
    if (dil__ckpt_sort(c, NULL) != DIL_OK) return;
    for (size_t i = 0; i < c->n; i++) {
        const dil__ckpt_tensor *t = &c->tensor[i];
        if (dil__ckpt_find(c, t->name) != t) __builtin_trap();
        if (t->data && t->bytes) sum += (uint64_t)t->data[0] + t->data[t->bytes - 1];
    }
}
