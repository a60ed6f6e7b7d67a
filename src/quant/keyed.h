/* quant/keyed.h - items under the names of tensors, in the order of first sight. A model brings its tensors in one order again and
 * again, so the item behind the last one found is nearly always the one asked for. */
#ifndef DIL_QUANT_KEYED_H
#define DIL_QUANT_KEYED_H

#include <dilemma/tensor.h>

enum { DIL__KEYED_MAX = 32768 };

typedef struct dil__keyed {
    char *item;        /* [n] of `size` bytes; each begins with its name, char[DIL_TENSOR_NAME_MAX] */
    size_t size;
    size_t n, cap, last;
} dil__keyed;

void *dil__keyed_at(const dil__keyed *k, size_t i);
void *dil__keyed_find(dil__keyed *k, const char *name); /* NULL */
/* A zeroed item with this name; earlier items may move. NULL: out of memory, too many, or the name is too long; err says which. */
void *dil__keyed_add(dil__keyed *k, const char *name, dil_err *err);

#endif
