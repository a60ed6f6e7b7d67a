/* Text from token bytes. A token may end inside a character and a stop string may span tokens, so the tail that could still
 * turn into either is held back; it is never longer than the longest stop string. */
#include "serve/textout.h"

#include <string.h>

void dil__textout_init(dil__textout *t, const char *const *stop, const size_t *stop_len, size_t n_stop)
{
    *t = (dil__textout){.n_stop = n_stop < DIL_TEXTOUT_STOPS_MAX ? n_stop : DIL_TEXTOUT_STOPS_MAX};
    for (size_t i = 0; i < t->n_stop; i++) {
        t->stop[i] = stop[i];
        t->stop_len[i] = stop_len[i];
    }
    dil_buf_init(&t->held, 1u << 20);
}

void dil__textout_fini(dil__textout *t)
{
    dil_buf_fini(&t->held);
}

/* Table 3-7 of the Unicode standard: well-formed byte sequences. */
int dil__utf8_len(const uint8_t *s, size_t n)
{
    uint8_t a = s[0], lo = 0x80, hi = 0xbf;
    int len;
    if (a < 0x80) return 1;
    if (a >= 0xc2 && a <= 0xdf) len = 2;
    else if (a >= 0xe0 && a <= 0xef) {
        len = 3;
        if (a == 0xe0) lo = 0xa0;
        if (a == 0xed) hi = 0x9f;
    } else if (a >= 0xf0 && a <= 0xf4) {
        len = 4;
        if (a == 0xf0) lo = 0x90;
        if (a == 0xf4) hi = 0x8f;
    } else return 0;
    for (int i = 1; i < len; i++) {
        if ((size_t)i >= n) return -1;
        if (s[i] < lo || s[i] > hi) return 0;
        lo = 0x80;
        hi = 0xbf;
    }
    return len;
}

/* Sends the first n held bytes as well-formed text; with `more` an unfinished character at the end stays. Returns what was
 * consumed. */
static size_t send_text(const uint8_t *s, size_t n, bool more, dil_buf *out)
{
    size_t i = 0;
    while (i < n) {
        int len = dil__utf8_len(s + i, n - i);
        if (len < 0 && more) break;
        if (len > 0) {
            dil_buf_append(out, s + i, (size_t)len);
            i += (size_t)len;
        } else { /* one replacement for a cut-off character, one for each other byte */
            dil_buf_append(out, "\xef\xbf\xbd", 3);
            i = len < 0 ? n : i + 1;
        }
    }
    return i;
}

static void drop_front(dil_buf *b, size_t n)
{
    b->len -= n;
    if (n > 0 && b->len > 0) memmove(b->data, b->data + n, b->len);
}

/* Where the earliest complete stop string begins, else SIZE_MAX. */
static size_t find_stop(const dil__textout *t)
{
    size_t best = SIZE_MAX;
    for (size_t k = 0; k < t->n_stop; k++) {
        for (size_t i = 0; t->stop_len[k] <= t->held.len && i <= t->held.len - t->stop_len[k] && i < best; i++) {
            if (memcmp(t->held.data + i, t->stop[k], t->stop_len[k]) == 0) best = i;
        }
    }
    return best;
}

/* Length of the longest tail that a stop string begins with. */
static size_t tail_of_stop(const dil__textout *t)
{
    size_t longest = 0;
    for (size_t k = 0; k < t->n_stop; k++) {
        size_t n = t->stop_len[k] - 1 < t->held.len ? t->stop_len[k] - 1 : t->held.len;
        for (; n > longest; n--) {
            if (memcmp(t->held.data + t->held.len - n, t->stop[k], n) == 0) longest = n;
        }
    }
    return longest;
}

bool dil__textout_push(dil__textout *t, const char *bytes, size_t len, dil_buf *out)
{
    if (t->stopped) return true;
    if (len == 0) return false;
    dil_buf_append(&t->held, bytes, len);
    size_t at = find_stop(t);
    if (at != SIZE_MAX) {
        send_text(t->held.data, at, false, out);
        t->n_out += at;
        t->held.len = 0;
        t->stopped = true;
        return true;
    }
    size_t sent = send_text(t->held.data, t->held.len - tail_of_stop(t), true, out);
    drop_front(&t->held, sent);
    t->n_out += sent;
    return false;
}

void dil__textout_flush(dil__textout *t, dil_buf *out)
{
    if (t->held.len > 0) send_text(t->held.data, t->held.len, false, out);
    t->n_out += t->held.len;
    t->held.len = 0;
}
