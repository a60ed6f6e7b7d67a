/* model/utf8.h - one UTF-8 character at a time, as strict as PCRE2: no surrogates, no overlong forms, nothing past U+10FFFF. */
#ifndef DIL_MODEL_UTF8_H
#define DIL_MODEL_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of the character at s (1 to 4) and its code point; 0 (and U+FFFD) where s[0..len) does not begin with a whole, valid character. */
static inline size_t dil__utf8_get(const char *s, size_t len, uint32_t *cp)
{
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    *cp = 0xFFFD;
    if (len == 0) return 0;
    uint8_t b = (uint8_t)s[0];
    if (b < 0x80) {
        *cp = b;
        return 1;
    }
    size_t n = b >= 0xF0 ? 4 : b >= 0xE0 ? 3 : 2;
    if (b < 0xC2 || b > 0xF4 || len < n) return 0;
    uint32_t c = b & (0x7Fu >> n);
    for (size_t i = 1; i < n; i++) {
        uint8_t k = (uint8_t)s[i];
        if ((k & 0xC0) != 0x80) return 0;
        c = c << 6 | (k & 0x3F);
    }
    if (c < least[n] || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF)) return 0;
    *cp = c;
    return n;
}

/* Bytes of s[0..len) that are taken at once: max at most, and no character is cut. */
static inline size_t dil__utf8_part(const char *s, size_t len, size_t max)
{
    if (len <= max) return len;
    size_t part = max;
    while (part > max - 4 && ((uint8_t)s[part] & 0xC0) == 0x80) part--;
    return part;
}

/* Writes a valid code point; returns its bytes (1 to 4). */
static inline size_t dil__utf8_put(char *s, uint32_t cp)
{
    if (cp < 0x80) {
        s[0] = (char)cp;
        return 1;
    }
    if (cp < 0x800) {
        s[0] = (char)(0xC0 | cp >> 6);
        s[1] = (char)(0x80 | (cp & 0x3F));
        return 2;
    }
    if (cp < 0x10000) {
        s[0] = (char)(0xE0 | cp >> 12);
        s[1] = (char)(0x80 | (cp >> 6 & 0x3F));
        s[2] = (char)(0x80 | (cp & 0x3F));
        return 3;
    }
    s[0] = (char)(0xF0 | cp >> 18);
    s[1] = (char)(0x80 | (cp >> 12 & 0x3F));
    s[2] = (char)(0x80 | (cp >> 6 & 0x3F));
    s[3] = (char)(0x80 | (cp & 0x3F));
    return 4;
}

/* Text from a file as an error message may show it: cut, one line, no control bytes, quotes around it. */
typedef struct dil__shown {
    char text[80];
} dil__shown;
static inline dil__shown dil__show(const char *s, size_t len)
{
    static const char hex[] = "0123456789ABCDEF";
    dil__shown out;
    size_t n = 0;
    out.text[n++] = '"';
    for (size_t i = 0; i < len;) {
        uint32_t cp;
        size_t k = dil__utf8_get(s + i, len - i, &cp);
        bool plain = k > 0 && cp >= 0x20 && (cp < 0x7F || cp >= 0xA0);
        if (n + 12 > sizeof out.text) {
            for (int d = 0; d < 3; d++) out.text[n++] = '.';
            break;
        }
        for (size_t j = 0; plain && j < k; j++) out.text[n++] = s[i + j];
        if (!plain) {
            out.text[n++] = '\\';
            out.text[n++] = 'x';
            out.text[n++] = hex[(uint8_t)s[i] >> 4];
            out.text[n++] = hex[(uint8_t)s[i] & 15];
        }
        i += plain ? k : 1;
    }
    out.text[n++] = '"';
    out.text[n] = 0;
    return out;
}

/* White space as Python's str.split and str.strip see it: Unicode's White_Space and the four ASCII separators. */
static inline bool dil__utf8_is_py_space(uint32_t cp)
{
    return (cp >= 0x09 && cp <= 0x0D) || (cp >= 0x1C && cp <= 0x20) || cp == 0x85 || cp == 0xA0 || cp == 0x1680 ||
           (cp >= 0x2000 && cp <= 0x200A) || cp == 0x2028 || cp == 0x2029 || cp == 0x202F || cp == 0x205F || cp == 0x3000;
}

#endif
