/* Three rows of the textbook table are enough. */
#include "cli/nearest.h"

#include <string.h>

enum { WORD_MAX = 31, FAR = 99 };

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

unsigned dil_cli_distance(const char *a, size_t a_len, const char *b, size_t b_len)
{
    unsigned row[3][WORD_MAX + 1];
    if (a_len >= WORD_MAX || b_len >= WORD_MAX) return FAR;
    for (unsigned j = 0; j <= b_len; j++) row[0][j] = j;
    for (size_t i = 1; i <= a_len; i++) {
        unsigned *now = row[i % 3], *above = row[(i + 2) % 3], *two_up = row[(i + 1) % 3];
        now[0] = (unsigned)i;
        for (size_t j = 1; j <= b_len; j++) {
            unsigned d = least(least(above[j], now[j - 1]) + 1, above[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) d = least(d, two_up[j - 2] + 1);
            now[j] = d;
        }
    }
    return row[a_len % 3][b_len];
}

int dil_cli_nearer(const char *a, size_t a_len, const char *b, unsigned *best)
{
    size_t n = strlen(b), longer = n > a_len ? n : a_len;
    unsigned d = dil_cli_distance(a, a_len, b, n);
    if (d >= *best || 3 * d > longer) return 0;
    *best = d;
    return 1;
}
