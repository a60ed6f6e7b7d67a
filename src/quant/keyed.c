#include "quant/keyed.h"

#include <stdlib.h>
#include <string.h>

void *dil__keyed_at(const dil__keyed *k, size_t i)
{
    return k->item + i * k->size;
}

void *dil__keyed_find(dil__keyed *k, const char *name)
{
    for (size_t tried = 0; tried < k->n; tried++) {
        size_t i = (k->last + tried) % k->n;
        char *item = dil__keyed_at(k, i);
        if (strcmp(item, name) != 0) continue;
        k->last = i + 1;
        return item;
    }
    return NULL;
}

void *dil__keyed_add(dil__keyed *k, const char *name, dil_err *err)
{
    if (k->n >= DIL__KEYED_MAX || strlen(name) >= DIL_TENSOR_NAME_MAX) {
        dil_fail(err, DIL_ELIMIT, "%s: more than %d tensors, or a name of more than %d bytes", name, DIL__KEYED_MAX, DIL_TENSOR_NAME_MAX - 1);
        return NULL;
    }
    if (k->n == k->cap) {
        size_t cap = k->cap ? 2 * k->cap : 64;
        char *more = realloc(k->item, cap * k->size);
        if (!more) {
            dil_fail(err, DIL_EMEMORY, "out of memory for %zu tensors", cap);
            return NULL;
        }
        k->item = more;
        k->cap = cap;
    }
    char *item = dil__keyed_at(k, k->n++);
    memset(item, 0, k->size);
    memcpy(item, name, strlen(name));
    return item;
}
