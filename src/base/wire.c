/* The two conversions. */
#include "base/wire.h"

#include "base/half.h"

#include <math.h>
#include <strings.h>

bool dil__wire_ok(dil_type type)
{
    return type == DIL_TYPE_F32 || type == DIL_TYPE_F16 || type == DIL_TYPE_BF16;
}

size_t dil__wire_bytes(dil_type type)
{
    return type == DIL_TYPE_F32 ? 4 : 2;
}

dil_status dil__wire_narrow(dil_type type, const float *x, size_t n, void *out, dil_err *err)
{
    if (type == DIL_TYPE_F32) {
        memcpy(out, x, n * sizeof *x);
        return DIL_OK;
    }
    uint16_t *h = out, infinite = type == DIL_TYPE_F16 ? 0x7c00 : 0x7f80;
    for (size_t i = 0; i < n; i++) {
        h[i] = type == DIL_TYPE_F16 ? dil__f16_from_f32(x[i]) : dil__bf16_from_f32(x[i]);
        if ((h[i] & 0x7fff) >= infinite)
            return dil_fail(err, DIL_EDATA, "a hidden state holds %g, which %s cannot hold: serve with --wire %s", (double)x[i],
                            type == DIL_TYPE_F16 ? "F16" : "BF16", type == DIL_TYPE_F16 ? "bf16 or f32" : "f32");
    }
    return DIL_OK;
}

void dil__wire_widen(dil_type type, const void *x, size_t n, float *out)
{
    if (type == DIL_TYPE_F32) {
        memcpy(out, x, n * sizeof *out);
        return;
    }
    const uint16_t *h = x;
    for (size_t i = 0; i < n; i++) out[i] = type == DIL_TYPE_F16 ? dil__f16_to_f32(h[i]) : dil__bf16_to_f32(h[i]);
}

bool dil__wire_from_name(const char *name, dil_type *out)
{
    static const struct { const char *name; dil_type type; } known[] = {{"f32", DIL_TYPE_F32}, {"f16", DIL_TYPE_F16}, {"bf16", DIL_TYPE_BF16}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcasecmp(name, known[i].name) != 0) continue;
        *out = known[i].type;
        return true;
    }
    return false;
}
