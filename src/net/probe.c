/* Probing. A node's kernels are timed through a layer of one type whose rows every type divides; what a matrix of 2048 x 1024
 * takes is its share of that layer, attention included, which is small there. The planner does not use these figures: the
 * profile times the model's own layers. */
#include <dilemma/probe.h>

#include <string.h>

enum { ROWS = 2048, COLS = 1024, BATCH = 128 };

static const dil_type probe_types[] = {DIL_TYPE_F16, DIL_TYPE_Q8_0, DIL_TYPE_Q6_K, DIL_TYPE_Q5_0, DIL_TYPE_Q4_K, DIL_TYPE_Q4_1, DIL_TYPE_Q4_0, DIL_TYPE_IQ4_NL};
enum { N_TYPES = sizeof probe_types / sizeof probe_types[0] };

typedef struct prober {
    const dil_probe_node *nodes;
    uint32_t n;
    const dil_probe_opts *o;
    double link_sec, timeout_sec;
    dil_cluster *c;
    double done, total;
} prober;

static dil_status step(prober *p, const char *what, dil_err *err)
{
    p->done += 1;
    return dil_progress_step(p->o->progress, what, p->done, p->total) ? DIL_OK : dil_fail(err, DIL_ECANCELED, "probing was canceled");
}

static dil_status connect_to(const prober *p, uint32_t i, dil_node_conn **out, dil_err *err)
{
    dil_err e;
    dil_status s = dil_node_connect(p->nodes[i].address, p->nodes[i].key, p->o->key, p->timeout_sec, out, &e);
    return s == DIL_OK ? s : dil_fail(err, s, "node %s: %s", p->nodes[i].name, e.text);
}

static dil_arch small_arch(void)
{
    dil_arch a = {.family = DIL_FAMILY_LLAMA, .name = "llama", .n_blocks = 1, .n_embd = COLS, .n_embd_word = COLS, .n_ff = ROWS, .n_head = 16, .n_head_kv = 16,
                  .head_dim = 64, .n_vocab = 1024, .n_ctx_train = 2048, .norm = DIL_NORM_RMS, .norm_eps = 1e-5f, .norm_before = true, .final_norm = true,
                  .positions = DIL_POS_ROPE_NORM, .rope_freq_base = 10000, .rope_scale = 1, .rope_dims = 64, .act = DIL_ACT_SILU, .gated_ffn = true, .tied_head = true};
    return a;
}

static dil_status time_type(const prober *p, dil_node_conn *conn, dil_type type, dil_cluster_kernel *out, dil_err *err)
{
    dil_arch a = small_arch();
    dil_layer_tensor t[DIL_LAYER_TENSORS_MAX];
    dil_type types[DIL_LAYER_TENSORS_MAX];
    size_t n = dil_arch_layer_tensors(&a, 1, t);
    double elems = 0;
    for (size_t i = 0; i < n; i++) {
        types[i] = t[i].linear ? type : DIL_TYPE_F32;
        if (t[i].linear) elems += (double)t[i].ne[0] * (double)t[i].ne[1];
    }
    dil_layer_time got;
    dil_status s = dil_node_time_layer(conn, &a, 1, types, (uint32_t)n, 1, BATCH, p->o->kernel_sec, &got, err);
    if (s != DIL_OK) return s;
    double share = (double)ROWS * COLS / elems;
    *out = (dil_cluster_kernel){.type = dil_type_get(type)->name, .rows = ROWS, .cols = COLS, .decode_sec = got.decode_sec * share, .prefill_sec = got.prefill_sec * share};
    return DIL_OK;
}

static dil_status ask_node(prober *p, uint32_t i, dil_err *err)
{
    dil_node_conn *conn;
    dil_node_info info;
    dil_cluster_node *node = &p->c->nodes[i];
    dil_status s = connect_to(p, i, &conn, err);
    if (s != DIL_OK) return s;
    s = dil_node_get_info(conn, &info, err);
    if (s == DIL_OK) {
        dil_arena *a = p->c->arena;
        *node = (dil_cluster_node){.name = dil_arena_strdup(a, p->nodes[i].name, strlen(p->nodes[i].name)),
                                   .address = dil_arena_strdup(a, p->nodes[i].address, strlen(p->nodes[i].address)),
                                   .public_key = dil_arena_strdup(a, p->nodes[i].key ? p->nodes[i].key : "", p->nodes[i].key ? strlen(p->nodes[i].key) : 0),
                                   .device = dil_arena_strdup(a, info.device, strlen(info.device)), .cpu = dil_arena_strdup(a, info.cpu, strlen(info.cpu)),
                                   .memory_bytes = info.memory_bytes, .threads = info.threads, .throttle = info.throttle,
                                   .kernels = dil_arena_push(a, N_TYPES, sizeof *node->kernels)};
        if (!node->name || !node->address || !node->public_key || !node->device || !node->cpu || !node->kernels) s = dil_fail(err, DIL_EMEMORY, "no memory for a cluster");
    }
    for (size_t t = 0; s == DIL_OK && p->o->kernel_sec > 0 && t < N_TYPES; t++) {
        s = time_type(p, conn, probe_types[t], &node->kernels[node->n_kernels], err);
        if (s == DIL_OK) node->n_kernels++;
        if (s == DIL_EUNSUPPORTED) { /* a type that this device has no kernel for: the table is informative */
            dil_log(DIL_LOG_WARN, "probe", "node %s: %s is not timed: %s", p->nodes[i].name, dil_type_get(probe_types[t])->name, err ? err->text : "");
            s = DIL_OK;
        }
        if (s == DIL_OK) s = step(p, "timing kernels", err);
    }
    dil_node_disconnect(conn);
    return s;
}

static dil_status admit_all(prober *p, uint32_t to, dil_err *err)
{
    const char *keys[DIL_PROBE_NODES_MAX];
    uint32_t n = 0;
    for (uint32_t i = 0; i < p->n; i++) {
        if (i != to) keys[n++] = p->nodes[i].key;
    }
    double sec = 60 + 3 * p->link_sec * p->n * p->n;
    dil_node_conn *conn;
    dil_status s = connect_to(p, to, &conn, err);
    if (s != DIL_OK) return s;
    s = dil_node_admit(conn, keys, n, sec < 86400 ? (uint32_t)sec : 86400, err);
    dil_node_disconnect(conn);
    return s;
}

static dil_status measure_from(prober *p, uint32_t from, dil_err *err)
{
    dil_node_conn *conn;
    dil_status s = connect_to(p, from, &conn, err);
    if (s != DIL_OK) return s;
    for (uint32_t to = 0; s == DIL_OK && to < p->n; to++) {
        if (to == from) continue;
        dil_node_link got;
        dil_err e;
        s = dil_node_probe_link(conn, p->nodes[to].address, p->nodes[to].key, p->link_sec, &got, &e);
        if (s != DIL_OK) {
            dil_fail(err, s, "link %s to %s: %s", p->nodes[from].name, p->nodes[to].name, e.text);
            break;
        }
        p->c->links[p->c->n_links++] = (dil_cluster_link){.from = from, .to = to, .rtt_sec = got.rtt_sec, .latency_sec = got.rtt_sec / 2, .bytes_per_sec = got.bytes_per_sec};
        s = step(p, "measuring links", err);
    }
    dil_node_disconnect(conn);
    return s;
}

static dil_status check_nodes(const dil_probe_node *nodes, uint32_t n, const dil_probe_opts *o, dil_err *err)
{
    if (n < 1 || n > DIL_PROBE_NODES_MAX) return dil_fail(err, DIL_EUSAGE, "%u nodes to probe, allowed 1 to %d", n, DIL_PROBE_NODES_MAX);
    for (uint32_t i = 0; i < n; i++) {
        if (o->key && !dil_key_is_valid(nodes[i].key)) return dil_fail(err, DIL_EAUTH, "node %s: its public key is missing or no key", nodes[i].name);
        for (uint32_t k = 0; k < i; k++) {
            if (strcmp(nodes[i].name, nodes[k].name) == 0) return dil_fail(err, DIL_EUSAGE, "two nodes have the name '%s'", nodes[i].name);
        }
    }
    return DIL_OK;
}

dil_status dil_probe(const dil_probe_node *nodes, uint32_t n, const dil_probe_opts *o, dil_cluster **out, dil_err *err)
{
    dil_status s = check_nodes(nodes, n, o, err);
    if (s != DIL_OK) return s;
    dil_arena *a = dil_arena_new((size_t)1 << 26);
    dil_cluster *c = a ? dil_arena_push(a, 1, sizeof *c) : NULL;
    if (c) {
        c->arena = a;
        c->n_nodes = n;
        c->nodes = dil_arena_push(a, n, sizeof *c->nodes);
        c->links = dil_arena_push(a, (size_t)n * n, sizeof *c->links);
    }
    if (!c || !c->nodes || !c->links) {
        dil_arena_free(a);
        return dil_fail(err, DIL_EMEMORY, "no memory for a cluster of %u nodes", n);
    }
    prober p = {.nodes = nodes, .n = n, .o = o, .link_sec = o->link_sec > 0 ? o->link_sec : 2, .timeout_sec = o->timeout_sec > 0 ? o->timeout_sec : 5, .c = c,
                .total = (double)n * (n - 1) + (o->kernel_sec > 0 ? (double)n * N_TYPES : 0)};
    for (uint32_t i = 0; i < n && s == DIL_OK; i++) s = ask_node(&p, i, err);
    for (uint32_t i = 0; i < n && n > 1 && o->key && s == DIL_OK; i++) s = admit_all(&p, i, err);
    for (uint32_t i = 0; i < n && s == DIL_OK; i++) s = measure_from(&p, i, err);
    if (s == DIL_OK) *out = c;
    else dil_cluster_free(c);
    return s;
}
