/* The planner's JSON files: what is written reads back equal, and every lie is refused with the place named. */
#include <dilemma/problem.h>

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static const char cluster_text[] =
    "{\"version\": 1, \"nodes\": ["
    "{\"name\": \"a\", \"address\": \"10.0.0.1:7100\", \"memory_bytes\": 1000, \"threads\": 2,"
    " \"kernels\": [{\"type\": \"Q4_0\", \"rows\": 1536, \"cols\": 576, \"decode_sec\": 1e-5, \"prefill_sec\": 2e-6}]},"
    "{\"name\": \"b\", \"memory_bytes\": 2000, \"throttle\": 2.5, \"out_bytes_per_sec\": 5e6}],"
    "\"links\": [{\"from\": \"b\", \"to\": \"a\", \"latency_sec\": 0.02, \"bytes_per_sec\": 1e7},"
    " {\"from\": \"a\", \"to\": \"b\", \"rtt_sec\": 0.05, \"latency_sec\": 0.03, \"bytes_per_sec\": 2e7}], \"entry\": \"b\"}";

static const char profile_text[] =
    "{\"version\": 1, \"model\": {\"path\": \"m.gguf\", \"hash\": \"\", \"arch\": \"llama\", \"n_blocks\": 1, \"n_params\": 100,"
    " \"tied_head\": true, \"hidden_bytes\": 64, \"n_vocab\": 10}, \"data\": {\"path\": null, \"tokens\": 9},"
    " \"context\": 128, \"sequences\": 1, \"batch\": 32, \"n_past\": 16, \"nodes\": [\"a\", \"b\"], \"layers\": ["
    "{\"name\": \"embedding\", \"levels\": [{\"name\": \"Q8_0\", \"types\": {\"token_embd\": \"Q8_0\"}, \"bytes\": 50,"
    " \"damage\": {\"weight\": 0.1, \"kl\": null}, \"decode_sec\": [1, 2], \"prefill_sec\": [3, 4]}]},"
    "{\"name\": \"blk.0\", \"kv_bytes\": 7, \"buffer_bytes\": 8, \"decode_sec_per_cached\": [0.5, 0.25], \"levels\": ["
    " {\"name\": \"x\", \"types\": {\"attn_q\": \"Q4_0\", \"ffn_up\": \"MXFP4\"}, \"bytes\": 20, \"damage\": {\"weight\": 0.3, \"kl\": 0.4},"
    " \"decode_sec\": [1, 2], \"prefill_sec\": [3, 4], \"pass_sec\": {\"2\": [1.5, 3], \"4\": [2, 4], \"8\": [3, 6], \"16\": [5, 10]}}]},"
    "{\"name\": \"head\", \"levels\": [{\"name\": \"Q8_0\", \"types\": {\"output\": \"Q8_0\"}, \"bytes\": 52, \"shared_bytes\": 50,"
    " \"damage\": {}, \"decode_sec\": [1, 2], \"prefill_sec\": [3, 4]}]}],"
    " \"baseline\": {\"loss\": 2.5, \"tokens\": 9}, \"kl_to_loss\": {\"slope\": 1.5, \"points\": 5}}";

static const char plan_text[] =
    "{\"version\": 1, \"model\": {\"path\": \"m.gguf\", \"hash\": \"\"}, \"entry\": \"a\", \"context\": 128, \"token_sec\": 0.5,"
    " \"speculate\": {\"guesses\": 4, \"acceptance\": 0.625},"
    " \"layers\": [{\"layer\": 0, \"name\": \"embedding\", \"node\": \"a\", \"level\": \"Q8_0\", \"types\": {\"token_embd\": \"Q8_0\"}, \"bytes\": 5},"
    " {\"layer\": 1, \"name\": \"head\", \"node\": \"b\", \"level\": \"Q8_0\", \"types\": {}, \"bytes\": 6}],"
    " \"stages\": [{\"node\": \"a\", \"first_layer\": 0, \"last_layer\": 0, \"bytes\": 5, \"compute_sec\": 0.1, \"hop_sec\": 0.2},"
    " {\"node\": \"b\", \"first_layer\": 1, \"last_layer\": 1, \"bytes\": 6, \"compute_sec\": 0.1, \"hop_sec\": 0.2}],"
    " \"costs\": {\"nodes\": [\"a\", \"b\", \"c\"], \"n_past\": 16, \"batch\": 32, \"decode_sec\": [[1, 2, 3], [4, 5, 6]],"
    " \"prefill_sec\": [[0.5, 0.25, 0.125], [7, 8, 9]]}}";

static char *temp_path(const char *name)
{
    static char path[256];
    const char *dir = getenv("TMPDIR");
    snprintf(path, sizeof path, "%s/dilemma-%ld-%s", dir ? dir : "/tmp", (long)getpid(), name);
    return path;
}

static void cluster_survives_writing(void **state)
{
    (void)state;
    dil_err err = {0};
    dil_cluster *c = NULL, *d = NULL;
    assert_int_equal(dil_cluster_parse("t", cluster_text, strlen(cluster_text), &c, &err), DIL_OK);
    char *path = temp_path("cluster.json");
    assert_int_equal(dil_cluster_write(path, c, &err), DIL_OK);
    assert_int_equal(dil_cluster_read(path, &d, &err), DIL_OK);
    unlink(path);
    assert_int_equal(d->n_nodes, 2);
    assert_int_equal(d->entry, 1);
    assert_string_equal(d->nodes[0].address, "10.0.0.1:7100");
    assert_int_equal(d->nodes[0].n_kernels, 1);
    assert_int_equal(d->nodes[0].kernels[0].rows, 1536);
    assert_true(d->nodes[1].throttle == 2.5 && d->nodes[1].out_bytes_per_sec == 5e6);
    const dil_cluster_link *l = dil_cluster_link_get(d, 1, 0);
    assert_non_null(l);
    assert_true(l->latency_sec == 0.02 && l->rtt_sec == 0.04 && l->bytes_per_sec == 1e7);
    assert_null(dil_cluster_link_get(d, 1, 1));
    assert_int_equal(dil_cluster_find(d, "b"), 1);
    assert_int_equal(dil_cluster_find(d, "c"), DIL_NO_NODE);
    dil_cluster_free(c);
    dil_cluster_free(d);
}

static void profile_survives_writing(void **state)
{
    (void)state;
    dil_err err = {0};
    dil_profile *p = NULL, *q = NULL;
    assert_int_equal(dil_profile_parse("t", profile_text, strlen(profile_text), &p, &err), DIL_OK);
    char *path = temp_path("profile.json");
    assert_int_equal(dil_profile_write(path, p, &err), DIL_OK);
    assert_int_equal(dil_profile_read(path, &q, &err), DIL_OK);
    unlink(path);
    assert_int_equal(q->n_layers, 3);
    assert_true(q->tied_head && isnan(q->layers[0].levels[0].damage_kl) && q->layers[1].levels[0].damage_kl == 0.4);
    assert_int_equal(q->layers[2].levels[0].shared_bytes, 50);
    assert_null(q->layers[0].decode_sec_per_cached);
    assert_true(q->layers[1].decode_sec_per_cached[1] == 0.25);
    assert_string_equal(q->layers[1].levels[0].types[1].role, "ffn_up");
    assert_string_equal(q->layers[1].levels[0].types[1].type, "MXFP4");
    assert_null(q->layers[0].levels[0].pass_sec);
    static const double pass[] = {1.5, 3, 2, 4, 3, 6, 5, 10};
    assert_memory_equal(q->layers[1].levels[0].pass_sec, pass, sizeof pass);
    assert_true(q->kl_to_loss_slope == 1.5 && q->baseline_loss == 2.5);
    dil_profile_free(p);
    dil_profile_free(q);
}

static void plan_survives_writing(void **state)
{
    (void)state;
    dil_err err = {0};
    dil_plan *p = NULL, *q = NULL;
    assert_int_equal(dil_plan_parse("t", plan_text, strlen(plan_text), &p, &err), DIL_OK);
    char *path = temp_path("plan.json");
    assert_int_equal(dil_plan_write(path, p, &err), DIL_OK);
    assert_int_equal(dil_plan_read(path, &q, &err), DIL_OK);
    unlink(path);
    assert_int_equal(q->n_stages, 2);
    assert_true(q->n_guesses == 4 && q->acceptance == 0.625);
    assert_string_equal(q->stages[1].node, "b");
    assert_string_equal(q->layers[0].types[0].type, "Q8_0");
    assert_int_equal(q->layers[1].bytes, 6);
    assert_non_null(q->costs);
    assert_int_equal(q->costs->n_nodes, 3);
    assert_string_equal(q->costs->nodes[2], "c");
    assert_int_equal(q->costs->batch, 32);
    assert_true(q->costs->decode_sec[3] == 4 && q->costs->prefill_sec[2] == 0.125);
    assert_null(q->costs->per_cached_sec);
    dil_plan_free(p);
    dil_plan_free(q);
}

typedef struct edit {
    const char *from, *to; /* the first occurrence is replaced */
    const char *says;      /* the error text holds this */
} edit;

typedef dil_status parse_fn(const char *what, const char *text, size_t len, void **out, dil_err *err);
static dil_status parse_cluster(const char *w, const char *t, size_t n, void **o, dil_err *e) { return dil_cluster_parse(w, t, n, (dil_cluster **)o, e); }
static dil_status parse_profile(const char *w, const char *t, size_t n, void **o, dil_err *e) { return dil_profile_parse(w, t, n, (dil_profile **)o, e); }
static dil_status parse_plan(const char *w, const char *t, size_t n, void **o, dil_err *e) { return dil_plan_parse(w, t, n, (dil_plan **)o, e); }

static void refuses(parse_fn *parse, const char *text, const edit *e)
{
    static char out[8192];
    const char *at = strstr(text, e->from);
    assert_non_null(at);
    snprintf(out, sizeof out, "%.*s%s%s", (int)(at - text), text, e->to, at + strlen(e->from));
    dil_err err = {0};
    void *doc = NULL;
    if (parse("t.json", out, strlen(out), &doc, &err) == DIL_OK) fail_msg("accepted %s -> %s", e->from, e->to);
    assert_null(doc);
    if (!strstr(err.text, e->says)) fail_msg("%s -> %s: '%s' does not say '%s'", e->from, e->to, err.text, e->says);
}

static void lies_in_a_cluster_are_refused(void **state)
{
    (void)state;
    static const edit edits[] = {
        {"\"version\": 1", "\"version\": 2", "version"},
        {"\"name\": \"b\"", "\"name\": \"a\"", "occurs twice"},
        {"\"name\": \"b\"", "\"name\": \"\"", "empty"},
        {"\"name\": \"b\"", "\"name\": \"b\\u0007\"", "control"},
        {"\"memory_bytes\": 1000", "\"memory_bytes\": -1", "memory_bytes"},
        {"\"memory_bytes\": 1000", "\"memory_bytes\": 1e300", "memory_bytes"},
        {"\"throttle\": 2.5", "\"throttle\": 0.5", "throttle"},
        {"\"throttle\": 2.5", "\"public_key\": \"short\"", "40"},
        {"\"from\": \"b\"", "\"from\": \"z\"", "\"z\""},
        {"\"from\": \"b\"", "\"from\": \"a\"", "itself"},
        {"\"from\": \"a\", \"to\": \"b\"", "\"from\": \"b\", \"to\": \"a\"", "twice"},
        {"\"latency_sec\": 0.02", "\"latency_sec\": -0.02", "latency_sec"},
        {"\"latency_sec\": 0.02", "\"latency_sec\": null", "latency_sec"},
        {"\"bytes_per_sec\": 1e7", "\"bytes_per_sec\": 0", "bytes_per_sec"},
        {"\"bytes_per_sec\": 1e7", "\"bytes_per_sec\": 1e999", "t.json"},
        {"\"entry\": \"b\"", "\"entry\": \"c\"", "\"c\""},
        {"\"links\": [", "\"links\": 5, \"x\": [", "links"},
        {"\"kernels\": [", "\"kernels\": [3, ", "kernels[0]"},
    };
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) refuses(parse_cluster, cluster_text, &edits[i]);
}

static void lies_in_a_profile_are_refused(void **state)
{
    (void)state;
    static const edit edits[] = {
        {"\"n_blocks\": 1", "\"n_blocks\": 2", "blocks"},
        {"\"n_blocks\": 1", "\"n_blocks\": 100000", "n_blocks"},
        {"\"n_params\": 100", "\"n_params\": 0", "n_params"},
        {"\"nodes\": [\"a\", \"b\"]", "\"nodes\": [\"a\", \"a\"]", "occurs twice"},
        {"\"nodes\": [\"a\", \"b\"]", "\"nodes\": [\"a\"]", "decode_sec"},
        {"\"nodes\": [\"a\", \"b\"]", "\"nodes\": []", "expected 0"},
        {"\"decode_sec\": [1, 2]", "\"decode_sec\": [1, -2]", "decode_sec"},
        {"\"decode_sec\": [1, 2]", "\"decode_sec\": [1, \"2\"]", "decode_sec"},
        {"\"prefill_sec\": [3, 4]", "\"prefill_sec\": [3, 4, 5]", "prefill_sec"},
        {"\"8\": [3, 6]", "\"9\": [3, 6]", "pass_sec"},
        {"\"8\": [3, 6]", "\"8\": [3, -6]", "pass_sec"},
        {"\"weight\": 0.1", "\"weight\": \"x\"", "weight"},
        {"\"shared_bytes\": 50", "\"shared_bytes\": 53", "shared_bytes"},
        {"\"name\": \"Q8_0\"", "\"name\": \"Q9_0\"", "tied"},
        {"\"levels\": [", "\"levels\": [], \"x\": [", "levels"},
        {"\"slope\": 1.5", "\"slope\": -1", "slope"},
        {"\"context\": 128", "\"context\": 0", "context"},
        {"\"bytes\": 20", "\"bytes\": 20.5", "bytes"},
    };
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) refuses(parse_profile, profile_text, &edits[i]);
}

static void lies_in_a_plan_are_refused(void **state)
{
    (void)state;
    static const edit edits[] = {
        {"\"token_sec\": 0.5", "\"token_sec\": -1", "token_sec"},
        {"\"layer\": 1", "\"layer\": 7", "layer"},
        {"\"node\": \"b\", \"level\"", "\"node\": \"a\", \"level\"", "stages[1]"},
        {"\"first_layer\": 1, \"last_layer\": 1", "\"first_layer\": 1, \"last_layer\": 2", "stages[1]"},
        {"\"first_layer\": 0, \"last_layer\": 0", "\"first_layer\": 0, \"last_layer\": 1", "stages[0]"},
        {"\"stages\": [", "\"stages\": [], \"x\": [", "stages end"},
        {"\"layers\": [", "\"layers\": [], \"x\": [", "layers"},
        {"\"entry\": \"a\"", "\"entry\": \"\"", "entry"},
        {"\"nodes\": [\"a\", \"b\", \"c\"]", "\"nodes\": [\"a\", \"b\"]", "decode_sec"},
        {"\"nodes\": [\"a\", \"b\", \"c\"]", "\"nodes\": [\"a\", \"b\", \"b\"]", "occurs twice"},
        {"[4, 5, 6]", "[4, -5, 6]", "decode_sec"},
        {"[4, 5, 6]", "[4, null, 6]", "decode_sec"},
        {"[[1, 2, 3], [4, 5, 6]]", "[[1, 2, 3]]", "rows"},
        {"\"batch\": 32", "\"batch\": 0", "batch"},
        {"\"guesses\": 4", "\"guesses\": 16", "guesses"},
        {"\"guesses\": 4, ", "", "guesses"},
        {"0.625", "1.5", "speculate"},
        {"0.625", "-0.5", "speculate"},
        {"0.625", "null", "acceptance"},
        {"\"speculate\": {", "\"speculate\": 3, \"x\": {", "speculate"},
        {"\"costs\": {", "\"costs\": 3, \"x\": {", "costs"},
    };
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) refuses(parse_plan, plan_text, &edits[i]);
}

static const char problem_text[] =
    "{\"n_layers\": 2, \"n_nodes\": 2, \"n_levels\": 1, \"layer_bytes\": [[10], [20]], \"layer_sec\": [[[1], [2]], [[3], [4]]],"
    " \"damage\": [[0.5], [0.25]], \"store_bytes\": [30, 40], \"damage_max\": 1, \"hop_sec\": [[0, 5], [6, 0]], \"source_sec\": [0, 7], \"sink_sec\": [0, null]}";

static dil_status parse_problem(const char *w, const char *t, size_t n, void **o, dil_err *e) { return dil_problem_parse(w, t, n, (dil_problem **)o, e); }

static void lies_in_a_problem_are_refused(void **state)
{
    (void)state;
    static const edit edits[] = {
        {"\"n_layers\": 2, ", "", "n_layers"},
        {"\"n_layers\": 2", "\"n_layers\": 3", "layer_bytes"},
        {"\"n_layers\": 2", "\"n_layers\": 0", "0 layers"},
        {"\"n_nodes\": 2", "\"n_nodes\": 4000000000", "n_nodes"},
        {"\"n_nodes\": 2", "\"n_nodes\": 1", "layer_sec"},
        {"\"n_levels\": 1", "\"n_levels\": -1", "n_levels"},
        {"[[1], [2]]", "[[1], [NaN]]", "t.json"},
        {"[[1], [2]]", "[[1], [null]]", "layer_sec"},
        {"[[1], [2]]", "[[1], [-2]]", "layer_sec"},
        {"[[1], [2]]", "[[1], [1e300]]", "layer_sec"},
        {"[[1], [2]]", "[[1], [1e999]]", "t.json"},
        {"[[1], [2]]", "[[1], [2, 3]]", "layer_sec"},
        {"[[10], [20]]", "[[10], [-20]]", "layer_bytes"},
        {"[[0.5], [0.25]]", "[[0.5], [-0.25]]", "damage"},
        {"\"damage\": [[0.5], [0.25]], ", "", "damage"},
        {"[30, 40]", "[30]", "store_bytes"},
        {"[30, 40]", "[30, -40]", "store_bytes"},
        {"\"damage_max\": 1", "\"damage_max\": -1", "damage_max"},
        {"\"damage_max\": 1", "\"damage_max\": \"x\"", "damage_max"},
        {"[[0, 5], [6, 0]]", "[[0, 5], [6, 1]]", "staying on a node takes 0"},
        {"[[0, 5], [6, 0]]", "[[0, -5], [6, 0]]", "links"},
        {"\"hop_sec\"", "\"links\": [], \"hop_sec\"", "both"},
        {"\"hop_sec\": [[0, 5], [6, 0]]", "\"links\": [[0, 1, 5], [0, 1, 6]]", "listed twice"},
        {"\"hop_sec\": [[0, 5], [6, 0]]", "\"links\": [[0, 2, 5]]", "links[0]"},
        {"\"hop_sec\": [[0, 5], [6, 0]]", "\"links\": [[1, 1, 5]]", "goes from node 1 to 1"},
        {"\"hop_sec\": [[0, 5], [6, 0]], ", "", "hop_sec"},
        {"\"source_sec\": [0, 7]", "\"source_sec\": [0, -7]", "source_sec"},
    };
    dil_err err = {0};
    dil_problem *p = NULL;
    if (dil_problem_parse("t.json", problem_text, strlen(problem_text), &p, &err) != DIL_OK) fail_msg("%s", err.text);
    assert_true(p->n_hops == 2 && p->hops[1].sec == 6 && isinf(p->sink_sec[1]));
    dil_problem_free(p);
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) refuses(parse_problem, problem_text, &edits[i]);
}

static void a_writer_refuses_what_a_reader_would(void **state)
{
    (void)state;
    dil_err err = {0};
    dil_cluster *c = NULL;
    assert_int_equal(dil_cluster_parse("t", cluster_text, strlen(cluster_text), &c, &err), DIL_OK);
    c->links[0].bytes_per_sec = NAN;
    char *path = temp_path("never.json");
    assert_int_equal(dil_cluster_write(path, c, &err), DIL_EFORMAT);
    assert_false(dil_file_exists(path));
    dil_cluster_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cluster_survives_writing),
        cmocka_unit_test(profile_survives_writing),
        cmocka_unit_test(plan_survives_writing),
        cmocka_unit_test(lies_in_a_cluster_are_refused),
        cmocka_unit_test(lies_in_a_profile_are_refused),
        cmocka_unit_test(lies_in_a_plan_are_refused),
        cmocka_unit_test(lies_in_a_problem_are_refused),
        cmocka_unit_test(a_writer_refuses_what_a_reader_would),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
