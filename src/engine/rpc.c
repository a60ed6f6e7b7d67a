/* The hello of ggml's RPC protocol, spoken once by us: command 14 with 24 bytes of capabilities (all zero: plain TCP), answered by the version and
 * the same. A server of another generation takes another length, and closes. Everything after it is ggml's client. */
#include "engine/rpc.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifdef DILEMMA_HAVE_RPC
#include <ggml-rpc.h>
#endif

enum { HELLO = 14, CAPS = 24, TIMEOUT_SEC = 5 };
static const char scheme[] = "rpc://";

bool dil__is_rpc(const char *device)
{
    return device && strncmp(device, scheme, sizeof scheme - 1) == 0;
}

#ifndef DILEMMA_HAVE_RPC
dil_status dil__rpc_open(const char *device, ggml_backend_dev_t *out, dil_err *err)
{
    (void)out;
    return dil_fail(err, DIL_EUNSUPPORTED, "%s: this program's ggml was built without RPC", device);
}
#else

static int dial(const char *host, const char *port)
{
    struct addrinfo want = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *list = NULL;
    if (getaddrinfo(host, port, &want, &list) != 0) return -1;
    int fd = -1;
    for (const struct addrinfo *a = list; a && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
        struct timeval t = {.tv_sec = TIMEOUT_SEC};
        if (fd < 0) continue;
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t);
        if (connect(fd, a->ai_addr, a->ai_addrlen) == 0) continue;
        close(fd);
        fd = -1;
    }
    freeaddrinfo(list);
    return fd;
}

static bool take(int fd, uint8_t *out, size_t n)
{
    for (size_t got = 0; got < n;) {
        ssize_t k = recv(fd, out + got, n - got, 0);
        if (k <= 0) return false;
        got += (size_t)k;
    }
    return true;
}

static dil_status check_version(int fd, const char *device, dil_err *err)
{
    uint8_t ask[1 + 8 + CAPS] = {HELLO, CAPS}, answer[8 + 4 + CAPS]; /* lengths little-endian */
    if (send(fd, ask, sizeof ask, MSG_NOSIGNAL) != (ssize_t)sizeof ask || !take(fd, answer, sizeof answer) || answer[0] != 4 + CAPS)
        return dil_fail(err, DIL_EUNSUPPORTED, "%s answers, but not in ggml's RPC protocol %d.x: is its llama.cpp of another time?", device, RPC_PROTO_MAJOR_VERSION);
    const uint8_t *v = answer + 8;
    if (v[0] != RPC_PROTO_MAJOR_VERSION || v[1] > RPC_PROTO_MINOR_VERSION)
        return dil_fail(err, DIL_EUNSUPPORTED, "%s speaks RPC protocol %u.%u, this program %d.%d: both ends need the same ggml", device, v[0], v[1],
                        RPC_PROTO_MAJOR_VERSION, RPC_PROTO_MINOR_VERSION);
    return DIL_OK;
}

dil_status dil__rpc_open(const char *device, ggml_backend_dev_t *out, dil_err *err)
{
    char host[256];
    const char *endpoint = device + sizeof scheme - 1, *colon = strchr(endpoint, ':');
    if (!colon || colon == endpoint || colon[1] == 0 || strspn(colon + 1, "0123456789") != strlen(colon + 1) || strlen(endpoint) >= sizeof host)
        return dil_fail(err, DIL_EUSAGE, "'%s' is not rpc://HOST:PORT", device);
    snprintf(host, sizeof host, "%.*s", (int)(colon - endpoint), endpoint);
    int fd = dial(host, colon + 1);
    if (fd < 0) return dil_fail(err, DIL_ENET, "%s does not answer: is rpc-server running there?", device);
    dil_status s = check_version(fd, device, err);
    close(fd);
    if (s != DIL_OK) return s;
    ggml_backend_reg_t reg = ggml_backend_rpc_add_server(endpoint);
    if (!reg || ggml_backend_reg_dev_count(reg) == 0) return dil_fail(err, DIL_ENOTFOUND, "%s has no device", device);
    *out = ggml_backend_reg_dev_get(reg, 0);
    return DIL_OK;
}
#endif
