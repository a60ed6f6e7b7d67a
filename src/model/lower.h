/* model/lower.h - lower case of one character, independent of the locale. */
#ifndef DIL_MODEL_LOWER_H
#define DIL_MODEL_LOWER_H

#include <stddef.h>
#include <stdint.h>

uint32_t dil__lower(uint32_t cp); /* itself where it has no lower case */

#endif
