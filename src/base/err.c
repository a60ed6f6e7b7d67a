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

/* One line, whatever the arguments hold: error text may quote names that came from a file or a peer. */
static void flatten(char *text)
{
    for (; *text; text++) {
        if ((unsigned char)*text < 0x20 || *text == 0x7f) *text = ' ';
    }
}

dil_status dil_fail(dil_err *err, dil_status code, const char *fmt, ...)
{
    if (!err) return code;
    va_list args;
    va_start(args, fmt);
    vsnprintf(err->text, sizeof err->text, fmt, args);
    va_end(args);
    flatten(err->text);
    err->code = code;
    return code;
}

dil_status dil_fail_errno(dil_err *err, const char *fmt, ...)
{
    int e = errno;
    dil_status code = e == ENOENT ? DIL_ENOTFOUND : e == ENOMEM ? DIL_EMEMORY : DIL_EIO;
    if (!err) return code;
    va_list args;
    va_start(args, fmt);
    vsnprintf(err->text, sizeof err->text, fmt, args);
    va_end(args);
    size_t n = strlen(err->text);
    snprintf(err->text + n, sizeof err->text - n, ": %s", strerror(e));
    flatten(err->text);
    err->code = code;
    return code;
}
