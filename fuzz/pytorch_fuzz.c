/* torch.save's archives from outside: the zip directory, the pickle, the storages. */
#include "checkpoint_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    dil__ckpt c;
    dil_err err;
    if (dil__ckpt_init(&c, &err) != DIL_OK) return 0;
    if (dil__ckpt_add_pytorch(&c, "fuzz", data, len, &err) == DIL_OK) walk_checkpoint(&c);
    dil__ckpt_close(&c);
    return 0;
}
