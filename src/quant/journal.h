/* quant/journal.h - measurements kept as they come, so that killed work goes on where it was: lines "key value value ...", each
 * flushed to disk. A line that a kill cut short is not read; a header that differs starts anew. */
#ifndef DIL_QUANT_JOURNAL_H
#define DIL_QUANT_JOURNAL_H

#include <dilemma/base.h>

enum { DIL__JOURNAL_VALUES = 256, DIL__JOURNAL_KEY = 128 };
#define DIL__JOURNAL_BYTES_MAX ((size_t)64 << 20)

typedef struct dil__journal dil__journal;
/* header: one line without newline that names everything the measurements depend on. resume false: what is there is thrown away. */
dil_status dil__journal_open(const char *path, const char *header, bool resume, dil__journal **out, dil_err *err);
void dil__journal_close(dil__journal *j);                         /* the file stays */
void dil__journal_remove(dil__journal *j);                        /* closes and deletes */
size_t dil__journal_count(const dil__journal *j);                 /* entries read when it was opened */
bool dil__journal_get(const dil__journal *j, const char *key, double *v, size_t n); /* false: not there, or another count */
/* key: no white space. n <= DIL__JOURNAL_VALUES. */
dil_status dil__journal_put(dil__journal *j, const char *key, const double *v, size_t n, dil_err *err);

#endif
