/* getifaddrs in the form that we need. */
#include "enrol/iface.h"

#include <ifaddrs.h>
#include <net/if.h>
#include <string.h>
#include <sys/socket.h>

size_t dil__ifaces(dil__iface *out, size_t cap)
{
    struct ifaddrs *list;
    size_t n = 0;
    if (getifaddrs(&list) != 0) return 0;
    for (const struct ifaddrs *a = list; a && n < cap; a = a->ifa_next) {
        struct sockaddr_in in;
        if (!a->ifa_addr || a->ifa_addr->sa_family != AF_INET || !(a->ifa_flags & IFF_UP)) continue;
        memcpy(&in, a->ifa_addr, sizeof in);
        out[n] = (dil__iface){.index = if_nametoindex(a->ifa_name), .address = in.sin_addr, .loopback = (a->ifa_flags & IFF_LOOPBACK) != 0,
                              .multicast = (a->ifa_flags & IFF_MULTICAST) != 0};
        snprintf(out[n++].name, sizeof out->name, "%s", a->ifa_name);
    }
    freeifaddrs(list);
    return n;
}
