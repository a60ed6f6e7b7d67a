/* trace.json from anywhere: no crash, nothing accepted that is out of order or names what is not there, and what is accepted can be
 * written. */
#include <dilemma/simulate.h>

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const char cluster[] = "{\"version\":1,\"nodes\":[{\"name\":\"a\",\"memory_bytes\":100000},{\"name\":\"b\",\"memory_bytes\":9}],"
                                  "\"links\":[{\"from\":\"a\",\"to\":\"b\",\"latency_sec\":0.1,\"bytes_per_sec\":10}]}";
    dil_err err;
    dil_cluster *c;
    dil_trace *t;
    if (dil_cluster_parse("fuzz", cluster, sizeof cluster - 1, &c, &err) != DIL_OK) abort();
    if (dil_trace_parse("fuzz", (const char *)data, len, c, &t, &err) == DIL_OK) {
        double last = 0;
        for (uint32_t i = 0; i < t->n_events; i++) {
            const dil_trace_event *e = &t->events[i];
            if (!(e->at_sec >= last && e->at_sec <= t->duration_sec)) abort();
            if (e->kind == DIL_TRACE_REQUEST && (e->tokens_in == 0 || e->tokens_out == 0)) abort();
            if (e->kind == DIL_TRACE_LINK && (!dil_cluster_link_get(c, e->node, e->to) || !(e->bytes_per_sec > 0))) abort();
            if (e->kind > DIL_TRACE_LINK && (e->node >= c->n_nodes || e->node == c->entry)) abort();
            last = e->at_sec;
        }
        if (dil_trace_write("/dev/null/never", c, t, &err) == DIL_OK) abort();
        dil_trace_free(t);
    }
    dil_cluster_free(c);
    return 0;
}
