/* lab.json from anywhere neither crashes the parser nor yields a link outside its limits. */
#include "netlab/lab.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static dil__lab_spec s;
    dil_err err;
    if (dil__lab_spec_parse("fuzz", (const char *)data, len, &s, &err) != DIL_OK) return 0;
    for (uint32_t a = 0; a < s.n_nodes; a++) {
        for (uint32_t b = 0; b < s.n_nodes; b++) {
            const dil__lab_link *l = &s.link[a][b];
            if (!(l->loss >= 0 && l->loss <= 1 && l->delay_sec >= 0 && l->delay_sec <= DIL_LAB_DELAY_MAX_SEC)) abort();
        }
    }
    return 0;
}
