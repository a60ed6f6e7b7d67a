/* Request bodies from anywhere: no crash, and what is accepted keeps the promised ranges. The same bytes, cut into pieces,
 * also go through the text assembler, whose output must not depend on the cuts. */
#include "serve/api.h"
#include "serve/enrol.h"
#include "serve/textout.h"
#include "serve/whatif.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check(const dil__api_req *q)
{
    if (!(q->sampler.temperature >= 0 && q->sampler.temperature <= 2 && q->sampler.top_p >= 0 && q->sampler.top_p <= 1)) abort();
    if (q->n_stop > DIL_API_STOPS_MAX || q->max_tokens > DIL_API_TOKENS_MAX) abort();
    if (q->n < 1 || q->n > DIL_API_CHOICES_MAX || q->n_top > DIL_GEN_TOP_MAX) abort();
    if (q->only_loads) return;
    if (q->kind == DIL_API_CHAT ? q->n_msgs == 0 : !q->prompt == !q->prompt_ids) abort();
    for (size_t i = 0; i < q->n_msgs; i++) {
        if (strlen(q->msgs[i].content) != q->msgs[i].content_len) abort();
    }
}

static void assemble(const uint8_t *data, size_t len, size_t step, dil_buf *out)
{
    const char *stop[] = {"ab", "\xe2\x82\xac"};
    size_t stop_len[] = {2, 3};
    dil__textout t;
    dil__textout_init(&t, stop, stop_len, 2);
    dil_buf_init(out, 1u << 20);
    bool stopped = false;
    for (size_t i = 0; i < len && !stopped; i += step)
        stopped = dil__textout_push(&t, (const char *)data + i, step < len - i ? step : len - i, out);
    if (!stopped) dil__textout_flush(&t, out);
    dil__textout_fini(&t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    for (int form = DIL_API_OPENAI_COMPLETION; form <= DIL_API_OLLAMA_CHAT; form++) {
        dil__api_req q;
        const char *param;
        dil_err err;
        if (dil__api_parse((dil__api_form)form, (const char *)data, len, &q, &param, &err) != DIL_OK) continue;
        check(&q);
        dil__api_req_fini(&q);
    }
    dil_cluster_node nodes[2] = {{.name = "a"}, {.name = "b"}};
    dil_cluster c = {.nodes = nodes, .n_nodes = 2};
    dil__whatif w;
    const char *wrong;
    if (dil__whatif_parse((const char *)data, len, &c, &w, &wrong, NULL) == DIL_OK) {
        if (!(w.max_ratio > 0) || !(w.max_kl >= 0) || w.points > DIL_WHATIF_POINTS_MAX || w.n_without > 64) abort();
        dil__whatif_fini(&w);
    }
    dil__enrol e;
    if (dil__enrol_parse((const char *)data, len, &e, &wrong, NULL) == DIL_OK &&
        (!e.address[0] || strlen(e.code) != DIL_PAIR_DIGITS || (e.name[0] && !dil_pair_name_ok(e.name)))) abort();
    if (len > 2000) return 0;
    dil_buf a, b;
    assemble(data, len, len ? len : 1, &a);
    assemble(data, len, len ? 1 + data[0] % 4 : 1, &b);
    if (a.len != b.len || (a.len && memcmp(a.data, b.data, a.len) != 0)) abort();
    for (size_t i = 0; i < a.len;) {
        int n = dil__utf8_len(a.data + i, a.len - i);
        if (n <= 0) abort();
        i += (size_t)n;
    }
    dil_buf_fini(&a);
    dil_buf_fini(&b);
    return 0;
}
