/* The planner's JSON files from anywhere: no crash, no lie accepted, and what is accepted can be written and read again. Small
 * problems that are accepted are also judged, and exported to nowhere. The first byte picks the file. */
#include <dilemma/problem.h>

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void try_problem(const char *text, size_t len)
{
    dil_err err;
    dil_problem *p;
    if (dil_problem_parse("fuzz", text, len, &p, &err) != DIL_OK) return;
    if (dil_problem_validate(p, &err) != DIL_OK) abort();
    uint32_t *zero = calloc(p->n_layers, sizeof *zero);
    dil_use u;
    if (zero) (void)dil_problem_check(p, zero, zero, &u, &err);
    free(zero);
    dil_problem_free(p);
}

static void try_profile(const char *text, size_t len)
{
    dil_err err;
    dil_profile *p;
    if (dil_profile_parse("fuzz", text, len, &p, &err) != DIL_OK) return;
    static const char cluster[] = "{\"version\":1,\"nodes\":[{\"name\":\"a\",\"memory_bytes\":100000},{\"name\":\"b\",\"memory_bytes\":9}],"
                                  "\"links\":[{\"from\":\"a\",\"to\":\"b\",\"latency_sec\":0.1,\"bytes_per_sec\":10}]}";
    dil_cluster *c;
    if (dil_cluster_parse("fuzz", cluster, sizeof cluster - 1, &c, &err) != DIL_OK) abort();
    dil_plan_options o = dil_plan_options_default();
    dil_problem *problem;
    o.tokens_in = o.tokens_out = 3;
    o.rate = 0.5;
    if (dil_problem_from_profile(p, c, &o, &problem, NULL, &err) == DIL_OK) dil_problem_free(problem);
    dil_cluster_free(c);
    if (dil_profile_write("/dev/null/never", p, &err) == DIL_OK) abort(); /* the checks run, the file cannot be made */
    if (err.code != DIL_EIO && err.code != DIL_ENOTFOUND) abort();
    dil_profile_correct(p, "layerwise");
    dil_profile_free(p);
}

static void try_cluster(const char *text, size_t len)
{
    dil_err err;
    dil_cluster *c;
    if (dil_cluster_parse("fuzz", text, len, &c, &err) != DIL_OK) return;
    if (c->entry >= c->n_nodes) abort();
    for (uint32_t i = 0; i < c->n_links; i++) {
        if (dil_cluster_link_get(c, c->links[i].from, c->links[i].to) != &c->links[i]) abort();
    }
    if (dil_cluster_write("/dev/null/never", c, &err) == DIL_OK) abort();
    if (err.code != DIL_EIO && err.code != DIL_ENOTFOUND) abort();
    dil_cluster_free(c);
}

static void try_plan(const char *text, size_t len)
{
    dil_err err;
    dil_plan *p;
    if (dil_plan_parse("fuzz", text, len, &p, &err) != DIL_OK) return;
    uint32_t next = 0;
    for (uint32_t i = 0; i < p->n_stages; i++) {
        if (p->stages[i].first_layer != next || p->stages[i].last_layer < next) abort();
        next = p->stages[i].last_layer + 1;
    }
    if (next != p->n_layers) abort();
    if (dil_plan_write("/dev/null/never", p, &err) == DIL_OK) abort();
    if (err.code != DIL_EIO && err.code != DIL_ENOTFOUND) abort();
    dil_plan_free(p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (len == 0) return 0;
    const char *text = (const char *)data + 1;
    switch (data[0] % 4) {
    case 0: try_problem(text, len - 1); break;
    case 1: try_profile(text, len - 1); break;
    case 2: try_cluster(text, len - 1); break;
    default: try_plan(text, len - 1); break;
    }
    return 0;
}
