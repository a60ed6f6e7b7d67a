/* plan/small_model.h - for tests: a random measured model of a few layers on a random cluster, small enough to enumerate. */
#ifndef DIL_PLAN_SMALL_MODEL_H
#define DIL_PLAN_SMALL_MODEL_H

#include <dilemma/problem.h>

#include <math.h>
#include <string.h>

static inline double small_between(dil_rng *r, double lo, double hi)
{
    return lo + (hi - lo) * dil_rng_unit(r);
}

static inline void small_nums(dil_buf *b, const char *key, dil_rng *r, uint32_t n, double lo, double hi)
{
    dil_buf_printf(b, "\"%s\": [", key);
    for (uint32_t i = 0; i < n; i++) dil_buf_printf(b, "%s%.9g", i ? ", " : "", small_between(r, lo, hi));
    dil_buf_printf(b, "]");
}

/* Nodes n0 (the entry), n1, ...; n_blocks blocks between a tied embedding and head; levels "big", "mid", "small". `tight`: the whole
 * does not fit one node at "big". */
static inline dil_status small_model(uint64_t seed, uint32_t n_blocks, uint32_t n_nodes, bool tight, dil_profile **profile, dil_cluster **cluster,
                                     dil_err *err)
{
    static const char *const level[] = {"big", "mid", "small"};
    dil_rng r;
    dil_buf b;
    dil_rng_init(&r, seed);
    dil_buf_init(&b, 1 << 20);
    dil_buf_printf(&b, "{\"version\": 1, \"model\": {\"path\": \"m.gguf\", \"hash\": \"\", \"arch\": \"llama\", \"n_blocks\": %u, \"n_params\": %u, "
                   "\"tied_head\": true, \"hidden_bytes\": 2304, \"n_vocab\": 100}, \"context\": 256, \"sequences\": 1, \"batch\": 32, \"n_past\": 64, \"nodes\": [",
                   n_blocks, 4000000 + 2000000 * n_blocks);
    for (uint32_t i = 0; i < n_nodes; i++) dil_buf_printf(&b, "%s\"n%u\"", i ? ", " : "", i);
    dil_buf_printf(&b, "], \"layers\": [");
    for (uint32_t l = 0; l < n_blocks + 2; l++) {
        bool end = l == 0 || l == n_blocks + 1;
        dil_buf_printf(&b, "%s{\"name\": \"%s%.0u\", \"kv_bytes\": %u, \"buffer_bytes\": %u, \"levels\": [", l ? ", " : "", l == 0 ? "emb" : end ? "head" : "blk.", l,
                       end ? 0 : 65536, end ? 400000 : 100000);
        for (uint32_t q = 0; q < 3; q++) {
            double bytes = (end ? 4e6 : 2e6) * (q == 0 ? 1 : q == 1 ? 0.6 : 0.4), sec = 1e-3 * (q == 0 ? 1 : q == 1 ? 0.8 : 0.9);
            dil_buf_printf(&b, "%s{\"name\": \"%s\", \"types\": {\"%s\": \"%s\"}, \"bytes\": %.0f, \"damage\": {\"kl\": %.9g}, ", q ? ", " : "", level[q],
                           l == 0 ? "token_embd" : end ? "output" : "ffn_up", q == 0 ? "Q8_0" : q == 1 ? "Q5_0" : "Q3_K", bytes,
                           q == 0 ? 0 : small_between(&r, 0.5, 1.5) * (q == 1 ? 0.005 : 0.05));
            small_nums(&b, "decode_sec", &r, n_nodes, 0.6 * sec, 2.5 * sec);
            dil_buf_printf(&b, ", ");
            small_nums(&b, "prefill_sec", &r, n_nodes, 0.1 * sec, 0.5 * sec);
            dil_buf_printf(&b, "}");
        }
        dil_buf_printf(&b, "]}");
    }
    dil_buf_printf(&b, "]}");
    dil_status s = dil_profile_parse("profile", dil_buf_str(&b), b.len, profile, err);
    b.len = 0;
    dil_buf_printf(&b, "{\"version\": 1, \"nodes\": [");
    double whole = 5e6 + 2.2e6 * n_blocks;
    for (uint32_t i = 0; i < n_nodes; i++)
        dil_buf_printf(&b, "%s{\"name\": \"n%u\", \"memory_bytes\": %.0f}", i ? ", " : "", i, whole * (tight ? small_between(&r, 0.45, 0.8) : 2));
    dil_buf_printf(&b, "], \"links\": [");
    for (uint32_t i = 0, first = 1; i < n_nodes; i++) {
        for (uint32_t k = 0; k < n_nodes; k++) {
            if (i == k) continue;
            dil_buf_printf(&b, "%s{\"from\": \"n%u\", \"to\": \"n%u\", \"latency_sec\": %.9g, \"bytes_per_sec\": %.9g}", first ? "" : ", ", i, k,
                           small_between(&r, 1e-4, 2e-3), small_between(&r, 2e6, 2e7));
            first = 0;
        }
    }
    dil_buf_printf(&b, "], \"entry\": \"n0\"}");
    if (s == DIL_OK) s = dil_cluster_parse("cluster", dil_buf_str(&b), b.len, cluster, err);
    dil_buf_fini(&b);
    return s;
}

#endif
