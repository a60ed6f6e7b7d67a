#include "model/charsmap.h"

#include <stdlib.h>
#include <string.h>

static uint32_t unit_at(const dil__charsmap *m, size_t i)
{
    const uint8_t *p = m->bytes + 4 + 4 * i;
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* darts-clone: where a unit's children are, relative to itself; and the byte that leads to a unit (no byte where its top bit is set). */
static size_t offset_of(uint32_t unit)
{
    return (size_t)(unit >> 10) << ((unit & 1u << 9) >> 6);
}

static uint32_t label_of(uint32_t unit)
{
    return unit & (1u << 31 | 0xFF);
}

static dil_status check_replacements(const dil__charsmap *m, dil_err *err)
{
    if (m->to_len == 0 || m->to[m->to_len - 1] != 0) return dil_fail(err, DIL_EFORMAT, "precompiled_charsmap: the replacements have no end");
    for (size_t i = 0; i < m->to_len;) {
        size_t n = strlen(m->to + i);
        if (n > DIL__CHARSMAP_TO_MAX) return dil_fail(err, DIL_ELIMIT, "precompiled_charsmap: a replacement of %zu bytes, at most %d", n, DIL__CHARSMAP_TO_MAX);
        i += n + 1;
    }
    return DIL_OK;
}

dil_status dil__charsmap_init(dil__charsmap *m, const uint8_t *bytes, size_t len, dil_err *err)
{
    *m = (dil__charsmap){0};
    if (len == 0) return DIL_OK;
    if (len > DIL__CHARSMAP_MAX) return dil_fail(err, DIL_ELIMIT, "precompiled_charsmap has %zu bytes, at most %d", len, DIL__CHARSMAP_MAX);
    m->bytes = malloc(len);
    if (!m->bytes) return dil_fail(err, DIL_EMEMORY, "precompiled_charsmap: no memory for %zu bytes", len);
    memcpy(m->bytes, bytes, len);
    size_t trie = 0;
    for (size_t i = 0; i < 4 && i < len; i++) trie |= (size_t)bytes[i] << 8 * i;
    dil_status s = DIL_OK;
    if (len < 8 || trie > len - 4 || trie < 4 || trie % 4)
        s = dil_fail(err, DIL_EFORMAT, "precompiled_charsmap: an array of %zu bytes in %zu", trie, len);
    if (s == DIL_OK) {
        m->n_units = trie / 4;
        m->to = (const char *)m->bytes + 4 + trie;
        m->to_len = len - 4 - trie;
        s = check_replacements(m, err);
    }
    if (s != DIL_OK) dil__charsmap_fini(m);
    return s;
}

void dil__charsmap_fini(dil__charsmap *m)
{
    free(m->bytes);
    *m = (dil__charsmap){0};
}

size_t dil__charsmap_find(const dil__charsmap *m, const char *s, size_t len, const char **to, size_t *to_len)
{
    if (!m->bytes) return 0;
    size_t at = offset_of(unit_at(m, 0)), best = 0;
    for (size_t i = 0; i < len && i < DIL__CHARSMAP_KEY_MAX; i++) {
        at ^= (uint8_t)s[i];
        if (at >= m->n_units) break;
        uint32_t unit = unit_at(m, at);
        if (label_of(unit) != (uint8_t)s[i]) break;
        at ^= offset_of(unit);
        if (!(unit & 1u << 8)) continue; /* no key ends here */
        size_t value = at < m->n_units ? unit_at(m, at) & 0x7FFFFFFF : m->to_len;
        if (value >= m->to_len) break;
        best = i + 1;
        *to = m->to + value;
        *to_len = strlen(*to);
    }
    return best;
}
