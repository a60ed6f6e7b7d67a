/* Any datagram, as a query and as an answer; a node that is read is one that could be written. */
#include "enrol/mdns.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const dil__mdns_node self = {.name = "pi", .id = "0123456789abcdef", .address = {10, 0, 0, 2}, .port = 7100};
    dil__mdns_node got[8];
    uint8_t out[DIL__MDNS_PACKET];
    uint16_t id;
    dil__mdns_asks(data, size, &self, &id);
    size_t n = dil__mdns_read(data, size, &id, got, 8);
    if (n > 8) abort();
    for (size_t i = 0; i < n; i++) {
        dil__mdns_node again;
        if (!dil_pair_name_ok(got[i].name) || strlen(got[i].id) != DIL_KEY_ID_CHARS) abort();
        size_t len = dil__mdns_answer(&got[i], false, 0, false, out);
        if (dil__mdns_read(out, len, &id, &again, 1) != 1 || strcmp(again.name, got[i].name) != 0 || again.port != got[i].port) abort();
    }
    return 0;
}
