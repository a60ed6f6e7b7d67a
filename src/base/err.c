/* Status codes, their names, and the one table that maps them to exit status and HTTP status. */
#include <dilemma/base.h>

#include <errno.h>
#include <string.h>

static const struct {
    const char *name;
    int exit_status, http_status;
} status_table[DIL_N_STATUS] = {
    [DIL_OK] = {"ok", 0, 200},
    [DIL_EUSAGE] = {"usage", 2, 400},
    [DIL_EFORMAT] = {"format", 3, 400},
    [DIL_EUNSUPPORTED] = {"unsupported", 4, 400},
    [DIL_ENOTFOUND] = {"not found", 5, 404},
    [DIL_EIO] = {"i/o", 6, 500},
    [DIL_EMEMORY] = {"out of memory", 7, 503},
    [DIL_ELIMIT] = {"limit", 8, 413},
    [DIL_EINFEASIBLE] = {"infeasible", 9, 422},
    [DIL_ETIMEOUT] = {"timeout", 10, 504},
    [DIL_ENET] = {"network", 11, 502},
    [DIL_EAUTH] = {"not authorized", 12, 401},
    [DIL_EBUSY] = {"busy", 13, 503},
    [DIL_ECANCELED] = {"canceled", 14, 499},
    [DIL_EDATA] = {"data", 15, 400},
    [DIL_EINTERNAL] = {"internal", 70, 500},
};

static bool known(dil_status s)
{
    return (unsigned)s < DIL_N_STATUS && status_table[s].name;
}

const char *dil_status_name(dil_status s)
{
    return known(s) ? status_table[s].name : "unknown";
}

int dil_status_exit(dil_status s)
{
    return known(s) ? status_table[s].exit_status : 70;
}

int dil_status_http(dil_status s)
{
    return known(s) ? status_table[s].http_status : 500;
}

/* Length of the UTF-8 sequence at s, 0 when it is none. */
static size_t sequence(const unsigned char *s)
{
    size_t n = s[0] < 0x80 ? 1 : s[0] >= 0xc2 && s[0] < 0xe0 ? 2 : s[0] >= 0xe0 && s[0] < 0xf0 ? 3 : s[0] >= 0xf0 && s[0] < 0xf5 ? 4 : 0;
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80) return 0;
    }
    bool overlong = (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xf0 && s[1] < 0x90);
    bool beyond = (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf4 && s[1] > 0x8f);
    return overlong || beyond ? 0 : n;
}

/* One line of valid UTF-8 without control characters, whatever the arguments hold: error text may quote names that came from a
 * file or a peer, and ends on a terminal or in JSON. */
static void flatten(char *text)
{
    unsigned char *s = (unsigned char *)text;
    while (*s) {
        size_t n = sequence(s);
        if (n == 0) *s = '?';
        else if (*s < 0x20 || *s == 0x7f) *s = ' ';
        else if (*s == 0xc2 && s[1] < 0xa0) s[0] = s[1] = ' '; /* the upper control characters */
        s += n ? n : 1;
    }
}

/* Through a buffer of its own: the arguments may point into err->text, as when a program puts a context in front. */
static void set_text(dil_err *err, dil_status code, const char *fmt, va_list args, const char *reason)
{
    char text[DIL_ERR_TEXT_MAX];
    int n = vsnprintf(text, sizeof text, fmt, args);
    if (reason && n >= 0 && (size_t)n < sizeof text) snprintf(text + n, sizeof text - (size_t)n, ": %s", reason);
    flatten(text);
    memcpy(err->text, text, sizeof text);
    err->code = code;
}

dil_status dil_fail(dil_err *err, dil_status code, const char *fmt, ...)
{
    if (!err) return code;
    va_list args;
    va_start(args, fmt);
    set_text(err, code, fmt, args, NULL);
    va_end(args);
    return code;
}

dil_status dil_fail_errno(dil_err *err, const char *fmt, ...)
{
    int e = errno;
    dil_status code = e == ENOENT ? DIL_ENOTFOUND : e == ENOMEM ? DIL_EMEMORY : DIL_EIO;
    if (!err) return code;
    va_list args;
    va_start(args, fmt);
    set_text(err, code, fmt, args, strerror(e));
    va_end(args);
    return code;
}
