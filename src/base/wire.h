/* base/wire.h - hidden states as they travel: F32 as computed, or half as many bytes as F16 or BF16.
 *
 * F16 keeps 11 bits and ends at 65,504; BF16 keeps 8 bits and has F32's range. Some models have a few values of many thousands in their
 * hidden states: what does not fit is an error that says so, never a silent infinity. Pure. */
#ifndef DIL_BASE_WIRE_H
#define DIL_BASE_WIRE_H

#include <dilemma/tensor.h>

bool dil__wire_ok(dil_type type);        /* F32, F16 or BF16 */
size_t dil__wire_bytes(dil_type type);   /* of one value */
/* n values into out. DIL_EDATA: one is beyond the type's range; the text has it. */
dil_status dil__wire_narrow(dil_type type, const float *x, size_t n, void *out, dil_err *err);
void dil__wire_widen(dil_type type, const void *x, size_t n, float *out);
bool dil__wire_from_name(const char *name, dil_type *out); /* "f32", "f16", "bf16" */

#endif
