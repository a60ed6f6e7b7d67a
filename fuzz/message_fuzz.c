/* Any bytes as a frame, and its body as every message that a node or a coordinator reads. */
#include "net/message.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_all(const dil_frame *f)
{
    dil_arena *a = dil_arena_new(1 << 24);
    dil_err err;
    dil_node_info info;
    dil__time_layer tl;
    dil_layer_time lt;
    dil__peer peer;
    dil_node_link link;
    dil__load load;
    dil__node_status status;
    dil__work_view work;
    dil__row rows[8];
    double limit;
    uint32_t n, m;
    uint64_t ns;
    bool flag;
    size_t len;
    const void *p;
    const uint8_t *bits;
    char (*keys)[DIL_KEY_CHARS + 1];
    dil__msg_get_error(f, &err);
    dil__msg_get_hello(f, &flag, &ns, &ns, &err);
    dil__msg_get_info(f, &info, &err);
    dil__msg_get_time_layer(f, &tl, &err);
    dil__msg_get_times(f, &lt, &err);
    dil__msg_get_echo(f, &n, &err);
    if (a) dil__msg_get_admit(f, a, &n, &keys, &m, &err);
    dil__msg_get_probe_link(f, &peer, &limit, &err);
    dil__msg_get_link(f, &link, &err);
    if (a && dil__msg_get_load(f, a, &load, &err) == DIL_OK && load.n_chunks > f->body_bytes / DIL_HASH_BYTES) abort();
    dil__msg_get_need(f, 64, &bits, &err);
    dil__msg_get_chunk(f, &n, &p, &len, &err);
    dil__msg_get_status(f, &status, &err);
    dil__msg_get_result(f, &ns, rows, 8, &n, &err);
    if (dil__work_get(f, 256, 8, 1000, 64, 4, &work, &err) == DIL_OK) {
        float sum = 0;
        for (uint32_t i = 0; i < work.head.n_begin; i++) dil__work_begin(&work, i);
        for (size_t i = 0; i < (size_t)work.head.n_tokens * work.head.n_hidden; i++) sum += ((const float *)work.hidden)[i];
        volatile float keep = sum;
        (void)keep;
    }
    dil_arena_free(a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    dil_frame f;
    if (dil_frame_decode(data, size, &f, NULL) == DIL_OK) {
        uint8_t *copy = malloc(size); /* aligned, and its end is watched */
        if (!copy) return 0;
        memcpy(copy, data, size);
        dil_frame_decode(copy, size, &f, NULL);
        read_all(&f);
        free(copy);
    }
    /* The same bytes as a body, so that the fuzzer need not find the header first. */
    uint8_t *whole = malloc(size + DIL_FRAME_HEADER_BYTES);
    if (!whole) return 0;
    dil_frame_header(whole, &(dil_frame){.type = DIL_FRAME_LOAD, .session = 1, .body_bytes = (uint32_t)size});
    if (size) memcpy(whole + DIL_FRAME_HEADER_BYTES, data, size);
    if (dil_frame_decode(whole, size + DIL_FRAME_HEADER_BYTES, &f, NULL) == DIL_OK) read_all(&f);
    free(whole);
    return 0;
}
