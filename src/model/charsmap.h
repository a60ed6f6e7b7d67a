/* model/charsmap.h - SentencePiece's compiled rules of normalization (NFKC and the like): text that begins with one of the map's
 * keys has the longest of them replaced.
 *
 * The format: 32 bits, the bytes of a double array; the double array (darts-clone's units of 32 bits); replacements, each ended by
 * a zero byte. All little-endian. The bytes come from outside: an index is checked where it is used, since a walk sees few of them. */
#ifndef DIL_MODEL_CHARSMAP_H
#define DIL_MODEL_CHARSMAP_H

#include <dilemma/base.h>

enum {
    DIL__CHARSMAP_MAX = 16 << 20,  /* bytes; nmt_nfkc has 240 thousand */
    DIL__CHARSMAP_KEY_MAX = 256,   /* bytes of a key; longer ones are not found. Unicode's longest has 12 */
    DIL__CHARSMAP_TO_MAX = 1024    /* bytes of a replacement; Unicode's longest has 33 */
};

typedef struct dil__charsmap {
    uint8_t *bytes; /* owned; NULL: no rules */
    size_t n_units;
    const char *to; /* [to_len] the replacements, the last byte is zero */
    size_t to_len;
} dil__charsmap;

/* Copies the len bytes; none at all are a map without rules. Errors: DIL_EFORMAT, DIL_ELIMIT, DIL_EMEMORY. */
dil_status dil__charsmap_init(dil__charsmap *m, const uint8_t *bytes, size_t len, dil_err *err);
void dil__charsmap_fini(dil__charsmap *m);
/* Bytes of the longest key that s[0..len) begins with, and its replacement (borrowed from m); 0: none. */
size_t dil__charsmap_find(const dil__charsmap *m, const char *s, size_t len, const char **to, size_t *to_len);

#endif
