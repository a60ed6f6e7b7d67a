/* The steps and what each depends on. A probe keeps its measured links while the same machines answer; what they offer is asked
 * anew each time, so that a node with less memory today is planned for today. */
#include "cli/pipeline.h"

#include "cli/nodetime.h"

#include "cli/cli.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void dil_cli_pipeline_note(dil_cli_pipeline *p, const char *name, bool kept, double sec, const char *fmt, ...)
{
    if (p->n_steps < DIL_CLI_STEPS_MAX) {
        dil_cli_step *s = &p->step[p->n_steps++];
        snprintf(s->name, sizeof s->name, "%s", name);
        s->sec = sec;
        s->kept = kept;
    }
    if (!p->say || dil_cli_quiet) return;
    dil_cli_progress_done();
    char text[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    fprintf(p->say, "%-9s %s", name, text);
    if (kept) fprintf(p->say, "  (kept)\n");
    else fprintf(p->say, "  (%.1f s)\n", sec);
    fflush(p->say);
}

static double since(int64_t start_ns)
{
    return (double)(dil_now_ns() - start_ns) * 1e-9;
}

void dil_cli_pipeline_path(const dil_cli_pipeline *p, const char *file, char out[4096])
{
    if (snprintf(out, 4096, "%s/%s", p->dir, file) >= 4096) out[0] = 0; /* opening "" fails with its own error */
}

dil_status dil_cli_pipeline_open(dil_cli_pipeline *p, dil_err *err)
{
    char steps[4096];
    dil_status s = dil_mkdirs(p->dir, err);
    if (s != DIL_OK) return s;
    dil_cli_pipeline_path(p, "steps.json", steps);
    dil_cli_pipeline_path(p, "cluster.json", p->cluster_path);
    dil_cli_pipeline_path(p, "profile.json", p->profile_path);
    dil_cli_pipeline_path(p, "profile.json.imatrix.gguf", p->imatrix_path);
    dil_cli_pipeline_path(p, "profile-corrected.json", p->corrected_path);
    dil_cli_pipeline_path(p, "plan-first.json", p->first_plan_path);
    dil_cli_pipeline_path(p, "plan.json", p->plan_path);
    dil_cli_pipeline_path(p, "student.gguf", p->student_path);
    s = dil__file_hash(p->model, p->model_hash, err);
    return s == DIL_OK ? dil__steps_open(steps, &p->steps, err) : s;
}

void dil_cli_pipeline_close(dil_cli_pipeline *p)
{
    dil_plan_free(p->plan);
    dil_profile_free(p->profile);
    dil_cluster_free(p->cluster);
    dil__steps_close(p->steps);
}

/* --- probe ------------------------------------------------------------------------------------------------------------------ */

static dil_status connect_peer(const dil_cli_pipeline *p, const char *address, const char *public_key, dil_node_conn **out, dil_err *err)
{
    return dil_node_connect(address, p->key ? public_key : NULL, p->key, 10, out, err);
}

static void links_key(const dil_cli_pipeline *p, const dil_node_info *info, dil__key *k)
{
    dil__key_init(k, "links 1");
    for (uint32_t i = 0; i < p->n_peers; i++) {
        dil__key_str(k, p->peers[i].name);
        dil__key_str(k, p->peers[i].key);
        dil__key_str(k, info[i].cpu);
        dil__key_num(k, info[i].throttle);
    }
}

static dil_status measure_links(dil_cli_pipeline *p, dil_cluster *c, dil_err *err)
{
    dil_probe_node nodes[DIL_CLI_NODES_MAX];
    for (uint32_t i = 0; i < p->n_peers; i++) nodes[i] = (dil_probe_node){p->peers[i].name, p->peers[i].address, p->key ? p->peers[i].key : NULL};
    dil_probe_opts o = {.key = p->key, .link_sec = p->probe_limit_sec, .progress = dil_cli_progress()};
    dil_cluster *probed;
    dil_status s = dil_probe(nodes, p->n_peers, &o, &probed, err);
    if (s != DIL_OK) return s;
    memcpy(c->links, probed->links, probed->n_links * sizeof *c->links); /* the same nodes in the same order */
    c->n_links = probed->n_links;
    dil_cluster_free(probed);
    return DIL_OK;
}

static dil_status ask_nodes(const dil_cli_pipeline *p, dil_node_info *info, dil_err *err)
{
    dil_status s = DIL_OK;
    for (uint32_t i = 0; s == DIL_OK && i < p->n_peers; i++) {
        dil_node_conn *conn;
        s = connect_peer(p, p->peers[i].address, p->peers[i].key, &conn, err);
        if (s != DIL_OK) break;
        s = dil_node_get_info(conn, &info[i], err);
        dil_node_disconnect(conn);
    }
    return s;
}

static void fill_nodes(const dil_cli_pipeline *p, const dil_node_info *info, dil_cluster *c)
{
    for (uint32_t i = 0; i < p->n_peers; i++) {
        if (strcmp(p->peers[i].name, p->entry) == 0) c->entry = i;
        c->nodes[i] = (dil_cluster_node){.name = p->peers[i].name, .address = p->peers[i].address, .public_key = p->key ? p->peers[i].key : "",
                                         .device = info[i].device, .cpu = info[i].cpu, .memory_bytes = info[i].memory_bytes,
                                         .threads = info[i].threads, .throttle = info[i].throttle};
    }
}

static dil_status take_kept_links(const dil_cli_pipeline *p, dil_cluster *c, dil_err *err)
{
    dil_cluster *old;
    char path[4096];
    dil_cli_pipeline_path(p, "links.json", path);
    dil_status s = dil_cluster_read(path, &old, err);
    if (s != DIL_OK) return s;
    if (old->n_nodes != c->n_nodes || old->n_links > c->n_nodes * (c->n_nodes - 1)) s = dil_fail(err, DIL_EFORMAT, "%s: of other machines", path);
    for (uint32_t i = 0; s == DIL_OK && i < old->n_links; i++) c->links[c->n_links++] = old->links[i];
    dil_cluster_free(old);
    return s;
}

dil_status dil_cli_pipeline_probe(dil_cli_pipeline *p, dil_err *err)
{
    int64_t start = dil_now_ns();
    static dil_node_info info[DIL_CLI_NODES_MAX];
    static dil_cluster_node nodes[DIL_CLI_NODES_MAX];
    static dil_cluster_link links[DIL_CLI_NODES_MAX * DIL_CLI_NODES_MAX];
    if (p->n_peers > DIL_CLI_NODES_MAX) return dil_fail(err, DIL_ELIMIT, "%u nodes, at most %d here", p->n_peers, DIL_CLI_NODES_MAX);
    dil_cluster c = {.nodes = nodes, .n_nodes = p->n_peers, .links = links};
    dil_status s = ask_nodes(p, info, err);
    if (s != DIL_OK) return s;
    fill_nodes(p, info, &c);
    char path[4096];
    dil_cli_pipeline_path(p, "links.json", path);
    dil__key k;
    links_key(p, info, &k);
    bool kept = dil__steps_done(p->steps, "links", &k, path) && take_kept_links(p, &c, NULL) == DIL_OK;
    if (!kept) {
        c.n_links = 0;
        s = measure_links(p, &c, err);
        if (s == DIL_OK) s = dil_cluster_write(path, &c, err);
        if (s == DIL_OK) s = dil__steps_record(p->steps, "links", &k, path, err);
    }
    dil__key_fini(&k);
    if (s == DIL_OK) s = dil_cluster_write(p->cluster_path, &c, err);
    if (s == DIL_OK) s = dil_cluster_read(p->cluster_path, &p->cluster, err);
    if (s == DIL_OK) dil_cli_pipeline_note(p, "probe", kept, since(start), "%u nodes, %u links -> %s", p->n_peers, c.n_links, p->cluster_path);
    return s;
}

/* --- profile ----------------------------------------------------------------------------------------------------------------- */

static dil_status profile_key(const dil_cli_pipeline *p, const dil_profiler_opts *o, dil__key *k, dil_err *err)
{
    dil__key_init(k, "profile 3");
    dil__key_str(k, p->model_hash);
    dil__key_str(k, o->method);
    double n[] = {o->context, o->sequences, o->batch, o->n_past, o->n_ctx, o->n_chunks, o->calib_tokens, o->time_limit_sec};
    for (size_t i = 0; i < sizeof n / sizeof n[0]; i++) dil__key_num(k, n[i]);
    for (uint32_t i = 0; i < p->cluster->n_nodes; i++) {
        const dil_cluster_node *d = &p->cluster->nodes[i];
        dil__key_str(k, d->name);
        dil__key_str(k, d->cpu);
        dil__key_str(k, d->device);
        dil__key_num(k, d->threads);
        dil__key_num(k, d->throttle);
    }
    if (o->passes) dil__key_str(k, "passes");
    if (p->data) return dil__key_file(k, p->data, err);
    dil__key_str(k, NULL);
    return DIL_OK;
}

/* A journal of unfinished work is gone on with only when it is of the same key. */
static bool may_resume(const dil_cli_pipeline *p, const dil__key *k)
{
    char begun[4096];
    dil_cli_pipeline_path(p, "profile.begun", begun);
    bool same = dil__steps_done(p->steps, "profile.begun", k, begun);
    if (!same && dil_file_write(begun, "begun\n", 6, NULL) == DIL_OK) dil__steps_record(p->steps, "profile.begun", k, begun, NULL);
    return same;
}

static dil_status method_of(const dil_cli_pipeline *p, dil_quantize_method *out, dil_err *err)
{
    dil_gguf *g;
    dil_arch arch;
    dil_status s = dil_gguf_open(p->model, &g, err);
    if (s != DIL_OK) return s;
    s = dil_arch_read(g, &arch, err);
    if (s == DIL_OK) s = dil_cli_pipeline_method(p, (double)dil_arch_n_params(&arch), out, err);
    dil_gguf_close(g);
    return s;
}

dil_status dil_cli_pipeline_profile(dil_cli_pipeline *p, dil_err *err)
{
    int64_t start = dil_now_ns();
    dil_profiler_opts o = dil_profiler_defaults();
    o.model = p->model;
    o.cluster = p->cluster;
    o.data = p->data;
    o.format = p->format;
    o.out = p->profile_path;
    o.context = p->context;
    o.sequences = p->sequences;
    o.n_threads = p->n_threads;
    o.calib_tokens = p->imatrix_tokens;
    o.batch = 128;
    o.passes = p->plan_options.n_guesses > 0;
    uint32_t scored = o.n_ctx - 33; /* of a chunk; the first ones have too little context to count */
    o.n_chunks = (p->damage_tokens + scored - 1) / scored;
    if (p->time_limit_sec > 0) o.time_limit_sec = p->time_limit_sec;
    dil_cli_nodetime timer = {.key = p->key, .limit_sec = o.time_limit_sec};
    o.time_layer = dil_cli_time_on_node;
    o.time_ctx = &timer;
    dil_quantize_method method;
    dil_status s = method_of(p, &method, err);
    if (s != DIL_OK) return s;
    o.method = dil_quantize_method_name(method);
    dil__key k;
    s = profile_key(p, &o, &k, err);
    bool kept = s == DIL_OK && dil__steps_done(p->steps, "profile", &k, p->profile_path) && dil_file_exists(p->imatrix_path);
    dil_profiler_report r = {0};
    if (s == DIL_OK && !kept) {
        o.resume = may_resume(p, &k);
        s = dil_profiler_run(&o, dil_cli_progress(), &r, err);
        if (s == DIL_OK) s = dil__steps_record(p->steps, "profile", &k, p->profile_path, err);
    }
    dil__key_fini(&k);
    if (s == DIL_OK) s = dil_profile_read(p->profile_path, &p->profile, err);
    if (s != DIL_OK) return s;
    dil_cli_pipeline_note(p, "profile", kept, since(start), "%u layers at up to %u levels on %u nodes; damage on %" PRIu64 " tokens -> %s",
                          p->profile->n_layers, p->profile->layers[1].n_levels, p->profile->n_nodes, p->profile->data_tokens, p->profile_path);
    return DIL_OK;
}

/* --- plan -------------------------------------------------------------------------------------------------------------------- */

static dil_status plan_key(const dil_cli_pipeline *p, dil__key *k, dil_err *err)
{
    const dil_plan_options *o = &p->plan_options;
    dil__key_init(k, "plan 1");
    dil__key_str(k, o->entry);
    dil__key_str(k, o->measure);
    dil__key_str(k, o->solver);
    double n[] = {o->tokens_in, o->tokens_out, o->context, o->max_damage, o->max_loss_increase, o->max_ratio, o->slack, o->rate, o->load_max};
    for (size_t i = 0; i < sizeof n / sizeof n[0]; i++) dil__key_num(k, n[i]);
    if (o->n_guesses) dil__key_num(k, o->n_guesses);
    if (o->n_guesses) dil__key_num(k, o->acceptance);
    dil_status s = dil__key_file(k, p->profile_path, err);
    return s == DIL_OK ? dil__key_file(k, p->cluster_path, err) : s;
}

/* "a: layers 0-3, n: 4-5; left out: c" */
static void who_holds(const dil_plan *plan, const dil_cluster *c, dil_buf *out)
{
    for (uint32_t i = 0; i < plan->n_stages; i++) {
        const dil_plan_stage *g = &plan->stages[i];
        dil_buf_printf(out, g->first_layer == g->last_layer ? "%s%s: %s%u" : "%s%s: %s%u-%u", i ? ", " : "", g->node, i ? "" : g->first_layer == g->last_layer ? "layer " : "layers ",
                       g->first_layer, g->last_layer);
    }
    bool any = false;
    for (uint32_t i = 0; i < c->n_nodes; i++) {
        bool used = false;
        for (uint32_t k = 0; k < plan->n_stages; k++) used |= strcmp(plan->stages[k].node, c->nodes[i].name) == 0;
        if (used) continue;
        dil_buf_printf(out, "%s%s", any ? ", " : "; left out: ", c->nodes[i].name);
        any = true;
    }
}

dil_status dil_cli_pipeline_plan(dil_cli_pipeline *p, dil_err *err)
{
    int64_t start = dil_now_ns();
    dil__key k;
    dil_status s = plan_key(p, &k, err);
    bool kept = s == DIL_OK && dil__steps_done(p->steps, "plan", &k, p->first_plan_path);
    if (s == DIL_OK && !kept) {
        dil_plan *plan;
        p->plan_options.progress = dil_cli_progress();
        s = dil_plan_make(p->profile, p->cluster, &p->plan_options, &plan, err);
        if (s == DIL_OK) {
            s = dil_plan_write(p->first_plan_path, plan, err);
            dil_plan_free(plan);
        }
        if (s == DIL_OK) s = dil__steps_record(p->steps, "plan", &k, p->first_plan_path, err);
    }
    dil__key_fini(&k);
    if (s == DIL_OK) s = dil_plan_read(p->first_plan_path, &p->plan, err);
    if (s != DIL_OK) return s;
    dil_buf holds;
    dil_buf_init(&holds, 4096);
    who_holds(p->plan, p->cluster, &holds);
    dil_cli_pipeline_note(p, "plan", kept, since(start), "%s; %.1f ms a token predicted, %.2f %% of fp32, gap %.2g %% (%s) -> %s", dil_buf_str(&holds), 1e3 * p->plan->token_sec,
                          100 * p->plan->ratio_to_fp32, 100 * p->plan->gap, p->plan->solver, p->first_plan_path);
    dil_buf_fini(&holds);
    return DIL_OK;
}
