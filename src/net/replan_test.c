/* Another plan for the model that is served: never on what is gone, away from what is slow when that pays, and in words when nothing fits.
 * Every plan is judged by the memory that the nodes offer, counted here from the file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "net/replan.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { NODES = 4, CTX = 512, SEQ = 2 };

static dil_gguf *model;
static dil_arch arch;
static const char *const name[NODES] = {"a", "b", "c", "d"};

typedef struct setup {
    dil_cluster cluster;
    dil_cluster_node node[NODES];
    dil_cluster_link link[NODES * NODES];
    dil_plan plan;
    dil_plan_layer layer[64];
    dil_plan_stage stage[NODES];
    dil__replan *replan;
    dil__replan_node state[NODES];
    uint8_t down[NODES * NODES];
} setup;

static void prepare(setup *s, uint64_t memory_bytes)
{
    *s = (setup){0};
    uint32_t n = dil_arch_n_layers(&arch);
    for (uint32_t i = 0; i < NODES; i++) {
        s->node[i] = (dil_cluster_node){.name = name[i], .address = "", .public_key = "", .device = "CPU", .cpu = "", .memory_bytes = memory_bytes, .throttle = 1};
        s->state[i].usable = true;
        for (uint32_t k = 0; k < NODES; k++)
            if (i != k) s->link[s->cluster.n_links++] = (dil_cluster_link){.from = i, .to = k, .latency_sec = 1e-3, .bytes_per_sec = 1e8};
    }
    s->cluster.nodes = s->node;
    s->cluster.n_nodes = NODES;
    s->cluster.links = s->link;
    for (uint32_t l = 0; l < n; l++) s->layer[l] = (dil_plan_layer){.name = "layer", .level = "served", .node = name[l / (n / 3 + 1)]};
    for (uint32_t i = 0; i < 3; i++) {
        uint32_t first = i * (n / 3 + 1), last = first + n / 3;
        s->stage[i] = (dil_plan_stage){.node = name[i], .first_layer = first, .last_layer = last < n ? last : n - 1, .compute_sec = 0.005};
    }
    s->plan = (dil_plan){.entry = "a", .context = CTX, .sequences = SEQ, .tokens_in = 64, .tokens_out = 64, .layers = s->layer, .n_layers = n, .stages = s->stage,
                         .n_stages = 3, .damage_measure = "kl"};
    dil_stage_opts o = {.n_ctx = CTX, .n_seq = SEQ, .max_batch = 128, .kv_type = DIL_TYPE_F16, .n_threads = 1};
    dil_err err = {0};
    if (dil__replan_new(&s->plan, &s->cluster, model, &arch, &o, &s->replan, &err) != DIL_OK) fail_msg("%s", err.text);
}

static uint64_t bytes_on(const dil_plan *p, const char *node)
{
    uint64_t sum = 0;
    bool table = false;
    dil_layer_tensor t[DIL_LAYER_TENSORS_MAX];
    for (uint32_t l = 0; l < p->n_layers; l++) {
        if (strcmp(p->layers[l].node, node) != 0) continue;
        size_t n = dil_arch_layer_tensors(&arch, l, t);
        for (size_t i = 0; i < n; i++) {
            bool is_table = strcmp(t[i].role, "token_embd") == 0;
            if (!(is_table && table)) sum += dil_gguf_find(model, t[i].name)->bytes;
            table = table || is_table;
        }
        if (l > 0 && l + 1 < p->n_layers) sum += SEQ * dil_arch_kv_bytes(&arch, CTX, DIL_TYPE_F16);
    }
    return sum;
}

static dil_plan *plan_with(setup *s, dil_migration *m)
{
    dil_plan *p = NULL;
    dil_err err = {0};
    dil_migrate_options mo = {.horizon_sec = 3600, .margin = 0.1};
    if (dil__replan_make(s->replan, &s->plan, s->state, s->down, NULL, &mo, 2, &p, m, &err) != DIL_OK) fail_msg("%s", err.text);
    for (uint32_t i = 0; i < NODES; i++) {
        uint64_t on = bytes_on(p, name[i]);
        if (!s->state[i].usable) assert_int_equal(on, 0);
        assert_true(on <= (s->state[i].memory_bytes ? s->state[i].memory_bytes : s->node[i].memory_bytes));
    }
    for (uint32_t l = 0; l < p->n_layers; l++) assert_string_equal(p->layers[l].level, "served");
    for (uint32_t i = 0; i + 1 < p->n_stages; i++) {
        uint32_t from = dil_cluster_find(&s->cluster, p->stages[i].node), to = dil_cluster_find(&s->cluster, p->stages[i + 1].node);
        for (uint32_t k = 0; k < s->cluster.n_links; k++)
            if (s->link[k].from == from && s->link[k].to == to) assert_false(s->down[k]);
    }
    return p;
}

static void finish(setup *s, dil_plan *p)
{
    dil_plan_free(p);
    dil__replan_free(s->replan);
}

static void what_is_gone_holds_nothing(void **state)
{
    (void)state;
    for (uint32_t gone = 0; gone < NODES; gone++) {
        setup s;
        dil_migration m;
        prepare(&s, 60000000);
        s.state[gone].usable = false;
        dil_plan *p = plan_with(&s, &m);
        if (gone < 3) assert_true(m.forced && m.moves); /* d holds nothing in the old plan */
        finish(&s, p);
    }
}

static void a_broken_link_is_not_used(void **state)
{
    (void)state;
    setup s;
    dil_migration m;
    prepare(&s, 60000000);
    for (uint32_t k = 0; k < s.cluster.n_links; k++) s.down[k] = s.link[k].from == 0 && s.link[k].to == 1;
    dil_plan *p = plan_with(&s, &m);
    assert_true(m.forced);
    finish(&s, p);
}

static void a_slow_node_is_left_when_that_pays(void **state)
{
    (void)state;
    setup s;
    dil_migration m;
    prepare(&s, 90000000);
    s.state[1].slower = 10;
    s.plan.n_guesses = 3;
    s.plan.acceptance = 0.5;
    dil_plan *p = plan_with(&s, &m);
    assert_true(m.moves && !m.forced);
    assert_true(p->n_guesses == 3 && p->acceptance == 0.5); /* counted as the plan before */
    assert_true(p->total_sec < m.old_total_sec);
    uint64_t before = bytes_on(&s.plan, "b"), after = bytes_on(p, "b");
    assert_true(after < before);
    finish(&s, p);
}

static void an_offer_of_today_counts(void **state)
{
    (void)state;
    setup s;
    dil_migration m;
    prepare(&s, 60000000);
    s.state[0].usable = false;
    s.state[3].memory_bytes = 45000000; /* plan_with holds it against the plan */
    finish(&s, plan_with(&s, &m));
}

static void what_is_short_is_said_with_its_numbers(void **state)
{
    (void)state;
    setup s;
    dil_migration m;
    dil_plan *p = NULL;
    dil_err err = {0};
    dil_migrate_options mo = {.horizon_sec = 3600};
    prepare(&s, 60000000);
    s.state[0].usable = s.state[1].usable = false;
    assert_int_equal(dil__replan_make(s.replan, &s.plan, s.state, s.down, NULL, &mo, 2, &p, &m, &err), DIL_EINFEASIBLE);
    print_message("    said: %s\n", err.text);
    assert_non_null(strstr(err.text, "memory"));
    assert_non_null(strstr(err.text, "c, d offer 120.0 MB"));
    assert_non_null(strstr(err.text, "too little"));
    s.state[2].usable = s.state[3].usable = false;
    assert_int_equal(dil__replan_make(s.replan, &s.plan, s.state, s.down, NULL, &mo, 2, &p, &m, &err), DIL_EINFEASIBLE);
    assert_non_null(strstr(err.text, "no node is left"));
    finish(&s, NULL);
}

int main(void)
{
    const char *path = getenv("DILEMMA_TEST_MODEL");
    dil_err err = {0};
    if (!path || access(path, R_OK) != 0) {
        fprintf(stderr, "SKIPPED: DILEMMA_TEST_MODEL names no model\n");
        return 77;
    }
    if (dil_gguf_open(path, &model, &err) != DIL_OK || dil_arch_read(model, &arch, &err) != DIL_OK) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_gone_holds_nothing),
        cmocka_unit_test(a_broken_link_is_not_used),
        cmocka_unit_test(a_slow_node_is_left_when_that_pays),
        cmocka_unit_test(an_offer_of_today_counts),
        cmocka_unit_test(what_is_short_is_said_with_its_numbers),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    dil_gguf_close(model);
    return failed;
}
