/* Three unequal machines on one: keys, memory, throttles, links, processes. */
#include "cli/cli.h"
#include "cli/demo.h"

#include <dilemma/engine.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct {
    const char *name;
    double throttle;
    double share; /* of what the whole student takes */
} machine[DIL_DEMO_NODES] = {{"laptop", 1, 0.55}, {"desktop", 1.5, 0.60}, {"board", 3, 0.35}};

static const struct { int from, to; double delay_ms, rate_mbit; } link_of[] = {
    {0, 1, 2, 300}, {1, 0, 2, 300}, {1, 2, 5, 100}, {2, 1, 6, 100}, {0, 2, 12, 50}, {2, 0, 10, 50},
};

static dil_status make_lab(dil_cli_stage *s, dil_err *err)
{
    if (!dil__lab_available(&s->why_no_lab)) return DIL_OK;
    dil__lab_spec *spec = malloc(sizeof *spec);
    if (!spec) return dil_fail(err, DIL_EMEMORY, "no memory");
    dil__lab_spec_init(spec);
    spec->n_nodes = DIL_DEMO_NODES;
    for (int i = 0; i < DIL_DEMO_NODES; i++) snprintf(spec->name[i], DIL_LAB_NAME_MAX, "%s", machine[i].name);
    for (size_t i = 0; i < sizeof link_of / sizeof link_of[0]; i++)
        spec->link[link_of[i].from][link_of[i].to] = (dil__lab_link){.delay_sec = link_of[i].delay_ms * 1e-3, .rate_bytes_per_sec = link_of[i].rate_mbit * 1e6 / 8};
    char name[DIL_LAB_NAME_MAX];
    snprintf(name, sizeof name, "demo-%d", (int)getpid());
    dil_status st = dil__lab_start(spec, name, true, &s->lab, err);
    free(spec);
    return st;
}

/* Keys are made once and kept: a probe and its links belong to them. */
static dil_status kept_pair(const char *path, dil_keypair *out, dil_err *err)
{
    if (dil_file_exists(path)) return dil_keypair_read(path, out, err);
    dil_status st = dil_keypair_new(out, err);
    return st == DIL_OK ? dil_keypair_write(path, out, err) : st;
}

static dil_status make_keys(dil_cli_stage *s, const char *dir, dil_err *err)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/keys/coordinator.key", dir);
    dil_status st = kept_pair(path, &s->key, err);
    for (int i = 0; st == DIL_OK && i < DIL_DEMO_NODES; i++) {
        dil_keypair k;
        snprintf(path, sizeof path, "%s/keys/%s.key", dir, machine[i].name);
        st = kept_pair(path, &k, err);
        if (st == DIL_OK) memcpy(s->peer[i].key, k.public_key, sizeof k.public_key);
    }
    snprintf(path, sizeof path, "%s/keys/allowed", dir);
    if (st == DIL_OK) st = dil_keyring_add(path, s->key.public_key, "coordinator", err);
    return st;
}

/* What the student takes on one machine: weights at the budget, KV cache, scratch. Each machine gets a share of the first two
 * and the scratch, so that none holds it alone and together there is room for a plan. */
static dil_status share_memory(dil_cli_stage *s, const dil_cli_demo_opts *o, const dil_arch *arch, uint32_t context, dil_err *err)
{
    dil_stage_opts e = {.first_layer = 0, .last_layer = arch->n_blocks + 1, .n_ctx = context, .n_seq = 1, .max_batch = 128, .kv_type = DIL_TYPE_F16};
    uint64_t kv, scratch;
    dil_status st = dil_stage_measure(arch, &e, &kv, &scratch, err);
    if (st != DIL_OK) return st;
    double body = o->max_ratio * 4 * (double)dil_arch_n_params(arch) + (double)kv * arch->n_blocks;
    s->alone_bytes = (uint64_t)body + scratch;
    for (int i = 0; i < DIL_DEMO_NODES; i++) s->memory_bytes[i] = (uint64_t)(body * machine[i].share) + scratch;
    return DIL_OK;
}

static dil_status start_node(dil_cli_stage *s, const char *dir, int i, dil_err *err)
{
    char listen[64], address[16], memory[32], throttle[32], key[4096], allow[4096], cache[4096], log[4096];
    if (s->lab) snprintf(listen, sizeof listen, "%s:7100", dil__lab_address((uint32_t)i, address));
    else snprintf(listen, sizeof listen, "127.0.0.1:0");
    snprintf(memory, sizeof memory, "%llu", (unsigned long long)s->memory_bytes[i]);
    snprintf(throttle, sizeof throttle, "%g", machine[i].throttle);
    snprintf(key, sizeof key, "%s/keys/%s.key", dir, machine[i].name);
    snprintf(allow, sizeof allow, "%s/keys/allowed", dir);
    snprintf(cache, sizeof cache, "%s/cache-%s", dir, machine[i].name);
    snprintf(log, sizeof log, "%s/node-%s.log", dir, machine[i].name);
    const char *argv[] = {"node", "--listen", listen, "--memory", memory, "-t", "1", "--throttle", throttle, "--key", key,
                          "--allow", allow, "--cache", cache, NULL};
    dil_status st = dil_cli_proc_start(&s->proc[i], machine[i].name, log, argv, s->lab, (uint32_t)i, 30, err);
    snprintf(s->peer[i].name, sizeof s->peer[i].name, "%s", machine[i].name);
    memcpy(s->peer[i].address, s->proc[i].address, sizeof s->proc[i].address);
    return st;
}

dil_status dil_cli_stage_open(dil_cli_stage *s, const dil_cli_demo_opts *o, const dil_arch *arch, uint32_t context, dil_err *err)
{
    *s = (dil_cli_stage){0};
    dil_status st = dil_mkdirs(o->dir, err);
    if (st == DIL_OK) st = make_lab(s, err);
    if (st == DIL_OK) st = make_keys(s, o->dir, err);
    if (st == DIL_OK) st = share_memory(s, o, arch, context, err);
    for (int i = 0; st == DIL_OK && i < DIL_DEMO_NODES; i++) st = start_node(s, o->dir, i, err);
    if (st == DIL_OK && s->lab) st = dil__lab_enter(s->lab, 0, err);
    return st;
}

void dil_cli_stage_close(dil_cli_stage *s)
{
    for (int i = 0; i < DIL_DEMO_NODES; i++) dil_cli_proc_stop(&s->proc[i]);
    dil__lab_stop(s->lab);
    s->lab = NULL;
}
