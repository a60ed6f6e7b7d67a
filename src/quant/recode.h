/* quant/recode.h - which types a tensor may take, and a tensor's bytes at another type. */
#ifndef DIL_QUANT_RECODE_H
#define DIL_QUANT_RECODE_H

#include <dilemma/engine.h>

/* Types that a linear weight may be written in (floats included), by falling size. Returns how many; the array is static. */
size_t dil__recode_types(const dil_type **out);
bool dil__recode_allowed(dil_type t);

/* The type that a row of n_cols really gets when t was asked for: t where it fits, else one of no less precision whose block
 * divides the row, else F16. */
dil_type dil__recode_fit(dil_type t, uint64_t n_cols);

/* The type of a tensor that is no linear weight: as it is, but learned positions in F32 become F16. */
dil_type dil__recode_other(const dil_tensor *t);

/* Writes `src` at another type, row by row, into `out` (bytes of dil_type_row_bytes times rows; owned: free). importance [n_cols] or
 * NULL; factor [n_cols][n_cols] of dil__covar_factor or NULL: error feedback where the type has a codec (codec.h). The same type copies. Memory: a piece of at most 16 MiB of floats besides the result.
 * Errors: DIL_EDATA (a weight that is not finite: tensor, row, column), DIL_EMEMORY, DIL_EUNSUPPORTED (does not fit the row). */
dil_status dil__recode_tensor(const dil_tensor *src, dil_type to, const float *importance, const float *factor, int n_threads, void **out,
                              uint64_t *bytes, dil_err *err);

/* Squared error and squared norm of `bytes` at `type` against src. */
dil_status dil__recode_error(const dil_tensor *src, dil_type type, const void *data, double *error, double *norm, dil_err *err);

#endif
