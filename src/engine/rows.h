/* engine/rows.h - reductions over one row of logits, in vector registers: a row of 49,152 takes some 100 microseconds, not 600. */
#ifndef DIL_ENGINE_ROWS_H
#define DIL_ENGINE_ROWS_H

#include <dilemma/base.h>

/* Of the largest, the lowest index among equals. x [n], n >= 1, finite. */
uint32_t dil__row_argmax(const float *x, uint32_t n);
/* log(sum exp(x)), max: the largest of x. Relative error of the sum below 1e-6. */
double dil__row_log_sum_exp(const float *x, uint32_t n, float max);

#endif
