/* Byte by byte, the same length: pieces of a stream need no state. A C1 control whose two bytes come in two pieces gets through as bytes that
 * are no character. */
#include "cli/clean.h"

#include <unistd.h>

void dil_cli_clean_text(const char *text, size_t len, char *out)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i], before = i > 0 ? (unsigned char)text[i - 1] : 0;
        bool c0 = (c < 0x20 && c != '\n' && c != '\t') || c == 0x7f, c1 = c >= 0x80 && c < 0xa0 && before == 0xc2;
        out[i] = (char)(c0 ? '?' : c1 ? 0xbf : c);
    }
}

bool dil_cli_print_model_text(const char *text, size_t len, FILE *to)
{
    char piece[256];
    if (!isatty(fileno(to))) return fwrite(text, 1, len, to) == len;
    for (size_t at = 0, n; at < len; at += n) {
        n = len - at < sizeof piece ? len - at : sizeof piece;
        dil_cli_clean_text(text + at, n, piece);
        if (fwrite(piece, 1, n, to) != n) return false;
    }
    return true;
}
