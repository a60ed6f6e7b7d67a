/* enrol/iface.h - this machine's IPv4 addresses. */
#ifndef DIL_ENROL_IFACE_H
#define DIL_ENROL_IFACE_H

#include <dilemma/base.h>

#include <netinet/in.h>

#define DIL__IFACES_MAX 32

typedef struct dil__iface {
    char name[32];
    unsigned index;
    struct in_addr address;
    bool loopback, multicast;
} dil__iface;

/* Those that are up, one entry an address, at most cap. */
size_t dil__ifaces(dil__iface *out, size_t cap);

#endif
