/* labels: threads */
/* Rings beside each other on the same nodes, what travels to a ring's last stage besides tokens, and nodes that run short of memory or disk. The nodes are in this process; the model is the
 * real one, where it is at hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "net/node_impl.h"

#include <dilemma/coordinator.h>

#include <jansson.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { N_NODES = 3, N_STAGES = 2, N_TOKENS = 40 }; /* the third node is there when one is short of something */

static char base[64];
static dil_gguf *model;
static dil_arch arch;
static dil_tokenizer *tok;
static dil_grammar_vocab *words;
static dil_keypair coordinator;

static void logline(void *ctx, dil_log_level level, const char *module, const char *text)
{
    (void)ctx;
    if (getenv("VERBOSE")) fprintf(stderr, "    [%d %s] %s\n", (int)level, module, text);
}

typedef struct setup {
    dil_node *node[N_NODES];
    char name[N_NODES][4], address[N_NODES][32];
    dil_keypair key[N_NODES];
    dil_cluster cluster;
    dil_cluster_node nodes[N_NODES];
    dil_cluster_link links[6];
    dil_plan plan;
    dil_plan_stage stages[N_STAGES];
    dil_plan_layer layers[64];
} setup;

/* Evaluates as ever, until it has no memory. */
static atomic_bool out_of_memory;

static dil_status eval_or_not(dil_stage *s, const dil_batch *b, const float *in, float *out, dil_err *err)
{
    if (atomic_load(&out_of_memory)) return dil_fail(err, DIL_EMEMORY, "no memory for %u tokens", b->n_tokens);
    return dil__engine_real.eval(s, b, in, out, err);
}

static void start(setup *s, uint64_t memory)
{
    dil_err err = {0};
    *s = (setup){0};
    char allow[100], cache[100];
    snprintf(allow, sizeof allow, "%s/allowed", base);
    for (int i = 0; i < N_NODES; i++) {
        snprintf(cache, sizeof cache, "%s/cache-%d", base, i);
        assert_int_equal(dil_keypair_new(&s->key[i], &err), DIL_OK);
        dil_node_opts o = {.listen = "127.0.0.1:0", .memory_bytes = memory, .n_threads = 1, .key = &s->key[i], .allow_path = allow, .cache_dir = cache};
        dil__engine engine = dil__engine_real;
        if (i == 1) engine.eval = eval_or_not;
        static dil__engine kept[N_NODES];
        kept[i] = engine;
        if (dil__node_start(&o, &kept[i], &s->node[i], &err) != DIL_OK) fail_msg("%s", err.text);
        snprintf(s->name[i], sizeof s->name[i], "%c", 'a' + i);
        snprintf(s->address[i], sizeof s->address[i], "127.0.0.1:%u", dil_node_port(s->node[i]));
        s->nodes[i] = (dil_cluster_node){.name = s->name[i], .address = s->address[i], .public_key = s->key[i].public_key, .device = "CPU", .cpu = "", .throttle = 1, .memory_bytes = memory};
        for (int k = 0; k < N_NODES; k++) {
            if (k != i) s->links[s->cluster.n_links++] = (dil_cluster_link){.from = (uint32_t)i, .to = (uint32_t)k, .latency_sec = 1e-4, .bytes_per_sec = 1e9};
        }
    }
    uint32_t n = dil_arch_n_layers(&arch), half = n / 2;
    s->cluster.nodes = s->nodes;
    s->cluster.n_nodes = N_NODES;
    s->cluster.links = s->links;
    s->stages[0] = (dil_plan_stage){.node = s->name[0], .first_layer = 0, .last_layer = half};
    s->stages[1] = (dil_plan_stage){.node = s->name[1], .first_layer = half + 1, .last_layer = n - 1};
    for (uint32_t l = 0; l < n; l++) s->layers[l] = (dil_plan_layer){.name = "layer", .level = "served", .node = s->name[l > half]};
    s->plan = (dil_plan){.layers = s->layers, .context = 256, .sequences = 2, .stages = s->stages, .n_stages = N_STAGES, .n_layers = n, .entry = s->name[0]};
}

static void stop(setup *s)
{
    for (int i = 0; i < N_NODES; i++) dil_node_stop(s->node[i]);
}

static bool stay = true; /* on the plan as given */

static dil_runner *open_ring(setup *s, uint64_t run, uint64_t which, dil_status want)
{
    dil_runner *r = NULL;
    dil_err err = {0};
    dil_ring_opts o = {.key = &coordinator, .kv_type = DIL_TYPE_F16, .run = run, .model = which, .words = words, .stay = stay};
    if (dil_runner_ring(&s->plan, &s->cluster, model, &arch, &o, &r, &err) != DIL_OK) fail_msg("%s", err.text);
    dil_status st = dil_ring_wait_ready(r, 60, NULL, &err);
    if (st != want) fail_msg("%s: %s", dil_status_name(st), err.text);
    if (st != DIL_OK) print_message("    said: %s\n", err.text);
    return r;
}

static dil_runner *open_local(void)
{
    dil_weights w = dil_gguf_weights(model);
    dil_stage_opts o = {.n_threads = 1, .n_ctx = 256, .kv_type = DIL_TYPE_F16, .last_layer = dil_arch_n_layers(&arch) - 1};
    dil_runner *r;
    dil_err err = {0};
    if (dil_runner_local(&arch, &w, &o, 2, &r, &err) != DIL_OK) fail_msg("%s", err.text);
    return r;
}

typedef struct question {
    const char *text, *schema;
    const dil_logit_bias *bias;
    uint32_t n_bias;
    float temperature;
} question;

static dil_status ask(dil_runner *r, const question *q, int32_t out[N_TOKENS], uint32_t *n, dil_err *err)
{
    dil_ids ids = {0};
    dil_grammar *g = NULL;
    int32_t stop_ids[64];
    uint32_t n_stop = 0;
    if (dil_tokenize(tok, q->text, strlen(q->text), 0, &ids, err) != DIL_OK) fail_msg("%s", err->text);
    if (q->schema && dil_grammar_json(words, q->schema, strlen(q->schema), &g, err) != DIL_OK) fail_msg("%s", err->text);
    for (uint32_t i = 0; i < dil_tokenizer_n_vocab(tok) && n_stop < 64; i++) {
        if (dil_tokenizer_is_eog(tok, (int32_t)i)) stop_ids[n_stop++] = (int32_t)i;
    }
    dil_gen_req req = {.prompt = ids.id, .n_prompt = ids.n, .max_tokens = N_TOKENS, .sampler = dil_sampler_defaults(), .stop = stop_ids, .n_stop = n_stop};
    req.sampler.temperature = q->temperature;
    req.sampler.seed = 5;
    req.sampler.grammar = g;
    req.sampler.bias = q->bias;
    req.sampler.n_bias = q->n_bias;
    dil_status s = dil_runner_generate(r, &req, out, n, NULL, err);
    dil_grammar_free(g);
    free(ids.id);
    return s;
}

static void same_answer(dil_runner *here, dil_runner *ring, const question *q, dil_buf *text)
{
    int32_t a[N_TOKENS], b[N_TOKENS];
    uint32_t na = 0, nb = 0;
    dil_err err = {0};
    if (ask(here, q, a, &na, &err) != DIL_OK || ask(ring, q, b, &nb, &err) != DIL_OK) fail_msg("%s: %s", q->text, err.text);
    text->len = 0;
    for (uint32_t i = 0; i < nb; i++) {
        size_t len;
        const char *p = dil_token_bytes(tok, b[i], &len);
        dil_buf_append(text, p, len);
    }
    print_message("    %s -> %s\n", q->text, dil_buf_str(text));
    assert_int_equal(na, nb);
    assert_memory_equal(a, b, na * sizeof *a);
}

static void a_grammar_and_biases_give_the_text_of_one_process(void **state)
{
    (void)state;
    setup s;
    start(&s, 300u << 20);
    dil_runner *here = open_local(), *ring = open_ring(&s, 1, 1, DIL_OK);
    dil_buf text;
    dil_buf_init(&text, 1 << 16);
    dil_err err = {0};
    const char *schema = "{\"type\":\"object\",\"properties\":{\"city\":{\"enum\":[\"Paris\",\"Rome\"]},\"age\":{\"type\":\"integer\"}},\"required\":[\"city\",\"age\"]}";
    for (int warm = 0; warm < 2; warm++) {
        same_answer(here, ring, &(question){.text = "A French person as JSON:", .schema = schema, .temperature = warm ? 0.9f : 0}, &text);
        json_error_t e;
        json_t *doc = json_loads(dil_buf_str(&text), 0, &e);
        assert_true(json_is_string(json_object_get(doc, "city")) && json_is_integer(json_object_get(doc, "age")));
        json_decref(doc);
    }
    question plain = {.text = "The capital of France is"};
    int32_t first[N_TOKENS], other[N_TOKENS];
    uint32_t n = 0;
    assert_int_equal(ask(ring, &plain, first, &n, &err), DIL_OK);
    dil_logit_bias never = {first[0], -100};
    plain.bias = &never;
    plain.n_bias = 1;
    same_answer(here, ring, &plain, &text);
    assert_int_equal(ask(ring, &plain, other, &n, &err), DIL_OK);
    assert_int_not_equal(first[0], other[0]);
    char *large = malloc(DIL__SCHEMA_MAX + 64); /* white space is part of it */
    int at = snprintf(large, 64, "{\"type\":\"object\"");
    memset(large + at, ' ', DIL__SCHEMA_MAX);
    strcpy(large + at + DIL__SCHEMA_MAX, "}");
    assert_int_equal(ask(ring, &(question){.text = "x", .schema = large}, other, &n, &err), DIL_ELIMIT);
    assert_non_null(strstr(err.text, "65536"));
    free(large);
    dil_buf_fini(&text);
    dil_runner_close(ring);
    dil_runner_close(here);
    stop(&s);
}

/* Two with one key do not replace each other: the second is told, and has the nodes once the first is gone. */
static void a_second_coordinator_with_the_same_key_is_refused(void **state)
{
    (void)state;
    setup s;
    start(&s, 300u << 20);
    dil_runner *here = open_local(), *first = open_ring(&s, 7, 1, DIL_OK);
    dil_runner *second = open_ring(&s, 8, 1, DIL_EBUSY);
    dil_buf text;
    dil_buf_init(&text, 1 << 16);
    question q = {.text = "The sea is"};
    same_answer(here, first, &q, &text);
    dil_runner_state st;
    dil_runner_get_state(second, &st);
    assert_false(st.ready);
    assert_non_null(strstr(st.why, "127.0.0.1"));
    dil_runner_get_state(first, &st);
    assert_true(st.ready);
    assert_int_equal(st.n_recoveries, 0);
    dil_runner_close(first);
    dil_err err;
    dil_status again;
    for (int64_t end = dil_now_ns() + 30000000000; (again = dil_ring_wait_ready(second, 30, NULL, &err)) == DIL_EBUSY && dil_now_ns() < end;) dil_sleep_ns(1000000);
    assert_int_equal(again, DIL_OK);
    same_answer(here, second, &q, &text);
    dil_runner_close(second);
    dil_runner_close(here);
    dil_buf_fini(&text);
    stop(&s);
}

static uint64_t free_on(const setup *s, int node)
{
    dil_node_conn *c;
    dil_node_info info;
    dil_err err;
    if (dil_node_connect(s->address[node], s->key[node].public_key, &coordinator, 5, &c, &err) != DIL_OK) fail_msg("%s", err.text);
    assert_int_equal(dil_node_get_info(c, &info, &err), DIL_OK);
    dil_node_disconnect(c);
    return info.memory_free;
}

static void models_stand_beside_each_other_and_memory_is_refused_before_bytes(void **state)
{
    (void)state;
    setup s;
    start(&s, 200u << 20); /* room for two halves of the model a node, not for three */
    dil_runner *here = open_local(), *one = open_ring(&s, 7, 1, DIL_OK);
    uint64_t left = free_on(&s, 0);
    dil_runner *two = open_ring(&s, 7, 2, DIL_OK);
    assert_true(free_on(&s, 0) < left);
    dil_buf text;
    dil_buf_init(&text, 1 << 16);
    question q = {.text = "The sea is"};
    same_answer(here, one, &q, &text);
    same_answer(here, two, &q, &text);
    dil_runner *three = open_ring(&s, 7, 3, DIL_ELIMIT);
    dil_ring_node nodes[N_STAGES];
    dil_ring_nodes(three, nodes, N_STAGES);
    for (int i = 0; i < N_STAGES; i++) assert_int_equal(nodes[i].bytes_sent, 0);
    dil_runner_close(three);
    same_answer(here, one, &q, &text); /* what was refused took nothing from them */
    dil_runner_close(one);
    for (int64_t end = dil_now_ns() + 10000000000; free_on(&s, 0) < left && dil_now_ns() < end;) dil_sleep_ns(1000000);
    assert_int_equal(free_on(&s, 0), left);
    same_answer(here, two, &q, &text);
    dil_runner_close(two);
    dil_runner_close(here);
    dil_buf_fini(&text);
    stop(&s);
}

static bool runs_on(dil_runner *r, const char *name)
{
    dil_ring_node nodes[N_NODES];
    size_t n = dil_ring_nodes(r, nodes, N_NODES);
    for (size_t i = 0; i < n; i++) {
        if (strcmp(nodes[i].name, name) == 0) return true;
    }
    return false;
}

static void a_node_out_of_memory_in_a_work_is_planned_around(void **state)
{
    (void)state;
    setup s;
    start(&s, 110u << 20);
    stay = false;
    dil_runner *here = open_local(), *ring = open_ring(&s, 1, 1, DIL_OK);
    dil_buf text;
    dil_buf_init(&text, 1 << 16);
    question q = {.text = "The sea is"};
    same_answer(here, ring, &q, &text);
    assert_true(runs_on(ring, "b"));
    atomic_store(&out_of_memory, true);
    same_answer(here, ring, &q, &text); /* the request is answered all the same */
    assert_false(runs_on(ring, "b"));
    atomic_store(&out_of_memory, false);
    dil_runner_state st;
    dil_runner_get_state(ring, &st);
    assert_int_equal(st.failures, 0);
    dil_runner_close(ring);
    dil_runner_close(here);
    dil_buf_fini(&text);
    stay = true;
    stop(&s);
}

/* Files where the cache wants its folders: what is sent to the node cannot be written, as on a full disk. */
static void spoil_cache(int node, bool spoil)
{
    char path[128];
    for (int i = 0; i < 256; i++) {
        snprintf(path, sizeof path, "%s/cache-%d/%02x", base, node, i);
        if (spoil) {
            FILE *f = fopen(path, "w");
            assert_non_null(f);
            fclose(f);
        } else unlink(path);
    }
}

static void a_node_that_cannot_store_is_planned_around_from_the_start(void **state)
{
    (void)state;
    char cmd[256];
    snprintf(cmd, sizeof cmd, "rm -rf %s/cache-1 && mkdir %s/cache-1", base, base);
    assert_int_equal(system(cmd), 0);
    spoil_cache(1, true);
    setup s;
    start(&s, 110u << 20);
    stay = false;
    dil_runner *here = open_local(), *ring = open_ring(&s, 1, 1, DIL_OK);
    assert_false(runs_on(ring, "b"));
    dil_buf text;
    dil_buf_init(&text, 1 << 16);
    question q = {.text = "The sea is"};
    same_answer(here, ring, &q, &text);
    dil_runner_close(ring);
    dil_runner_close(here);
    dil_buf_fini(&text);
    stay = true;
    stop(&s);
    spoil_cache(1, false);
}

static int open_all(void **state)
{
    (void)state;
    dil_err err = {0};
    dil_log_set_sink(logline, NULL, DIL_LOG_INFO);
    snprintf(base, sizeof base, "/tmp/dilemma-beside-XXXXXX");
    if (!mkdtemp(base)) return -1;
    char allow[100];
    snprintf(allow, sizeof allow, "%s/allowed", base);
    dil_status s = dil_keypair_new(&coordinator, &err);
    if (s == DIL_OK) s = dil_keyring_add(allow, coordinator.public_key, "test", &err);
    if (s == DIL_OK) s = dil_gguf_open(getenv("DILEMMA_TEST_MODEL"), &model, &err);
    if (s == DIL_OK) s = dil_arch_read(model, &arch, &err);
    if (s == DIL_OK) s = dil_tokenizer_new(model, &tok, &err);
    if (s == DIL_OK) s = dil_grammar_vocab_new(tok, &words, &err);
    if (s != DIL_OK) print_error("%s\n", err.text);
    return s == DIL_OK ? 0 : -1;
}

static int close_all(void **state)
{
    (void)state;
    dil_grammar_vocab_free(words);
    dil_tokenizer_free(tok);
    dil_gguf_close(model);
    char cmd[100];
    snprintf(cmd, sizeof cmd, "rm -r %s", base);
    return system(cmd);
}

int main(void)
{
    const char *path = getenv("DILEMMA_TEST_MODEL");
    if (!path || access(path, R_OK) != 0) {
        fprintf(stderr, "SKIPPED: the test of rings beside each other needs DILEMMA_TEST_MODEL (a model)\n");
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_grammar_and_biases_give_the_text_of_one_process),
        cmocka_unit_test(a_node_out_of_memory_in_a_work_is_planned_around),
        cmocka_unit_test(a_node_that_cannot_store_is_planned_around_from_the_start),
        cmocka_unit_test(a_second_coordinator_with_the_same_key_is_refused),
        cmocka_unit_test(models_stand_beside_each_other_and_memory_is_refused_before_bytes),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
