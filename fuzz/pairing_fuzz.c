/* Any bytes as what a peer says in a pairing, cut into messages as the sockets cut them, on both sides: nobody is ever believed. */
#include "enrol/pairing.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void hear(bool coordinator, const uint8_t *data, size_t size)
{
    const dil__pairing_who me = {.key = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7", .name = "me"};
    dil__pairing p;
    dil_buf out;
    dil_buf_init(&out, 4 * DIL__PAIRING_MAX);
    if (dil__pairing_begin(&p, coordinator, &me, "48217736", &out, NULL) != DIL_OK) abort();
    for (size_t at = 0; at < size;) {
        uint8_t message[DIL__PAIRING_MAX];
        size_t left = size - at, n = dil__pairing_size(data + at, left < DIL__PAIRING_HEAD ? left : DIL__PAIRING_HEAD);
        if (n == DIL__PAIRING_BAD || n == 0 || n > left) break;
        if (n > sizeof message) abort();
        memcpy(message, data + at, n);
        at += n;
        out.len = 0;
        if (dil__pairing_take(&p, message, n, &out, NULL) != DIL_OK) break;
        if (out.failed || p.step == DIL__PAIRING_PROVED || p.step == DIL__PAIRING_KEPT_WANTED) abort();
    }
    dil__pairing_end(&p);
    dil_buf_fini(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size) return 0;
    hear(data[0] & 1, data + 1, size - 1);
    return 0;
}
