/* cluster.json: one set of checks for what was read and for what a caller wants written. */
#include <dilemma/cluster.h>

#include "plan/jsonfile.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BYTES_MAX ((uint64_t)1 << 60)
#define SEC_MAX 1e6       /* of one measured thing */
#define SPEED_MAX 1e15    /* bytes a second */

static int by_pair(const void *a, const void *b)
{
    const dil_cluster_link *x = a, *y = b;
    if (x->from != y->from) return x->from < y->from ? -1 : 1;
    return (x->to > y->to) - (x->to < y->to);
}

static bool in_range(double v, double min, double max)
{
    return v >= min && v <= max; /* false for NaN */
}

static dil_status check_node(const dil_cluster_node *n, const char *where, dil_err *err)
{
    dil_status s = dil__jsonfile_check_str(n->name, "name", where, false, DIL_NAME_MAX, err);
    if (s == DIL_OK) s = dil__jsonfile_check_str(n->address, "address", where, true, DIL_NAME_MAX, err);
    if (s == DIL_OK) s = dil__jsonfile_check_str(n->public_key, "public_key", where, true, DIL_NAME_MAX, err);
    if (s == DIL_OK) s = dil__jsonfile_check_str(n->device, "device", where, true, DIL_NAME_MAX, err);
    if (s == DIL_OK) s = dil__jsonfile_check_str(n->cpu, "cpu", where, true, DIL_NAME_MAX, err);
    if (s != DIL_OK) return s;
    if (n->public_key[0] && strlen(n->public_key) != 40)
        return dil_fail(err, DIL_EFORMAT, "%s: \"public_key\" has %zu characters, expected 40 (Z85)", where, strlen(n->public_key));
    if (n->memory_bytes > BYTES_MAX) return dil_fail(err, DIL_EFORMAT, "%s: \"memory_bytes\" is above 2^60", where);
    if (!in_range(n->throttle, 1, 1e6))
        return dil_fail(err, DIL_EFORMAT, "%s: \"throttle\" is %g, allowed 1 to 1e6", where, n->throttle);
    if (!in_range(n->out_bytes_per_sec, 0, SPEED_MAX) || !in_range(n->in_bytes_per_sec, 0, SPEED_MAX))
        return dil_fail(err, DIL_EFORMAT, "%s: \"out_bytes_per_sec\" or \"in_bytes_per_sec\" is not within 0 to %g", where, SPEED_MAX);
    if (n->n_kernels > DIL_KERNELS_MAX)
        return dil_fail(err, DIL_ELIMIT, "%s: %u kernels, at most %d", where, n->n_kernels, DIL_KERNELS_MAX);
    for (uint32_t i = 0; i < n->n_kernels; i++) {
        const dil_cluster_kernel *k = &n->kernels[i];
        s = dil__jsonfile_check_str(k->type, "type", where, false, DIL_NAME_MAX, err);
        if (s != DIL_OK) return s;
        if (!in_range(k->decode_sec, 0, SEC_MAX) || !in_range(k->prefill_sec, 0, SEC_MAX))
            return dil_fail(err, DIL_EFORMAT, "%s: kernels[%u]: seconds not within 0 to %g", where, i, SEC_MAX);
    }
    return DIL_OK;
}

static dil_status check_link(const dil_cluster *c, const dil_cluster_link *l, const char *where, dil_err *err)
{
    if (l->from >= c->n_nodes || l->to >= c->n_nodes)
        return dil_fail(err, DIL_EFORMAT, "%s: node %u to %u of %u nodes", where, l->from, l->to, c->n_nodes);
    if (l->from == l->to) return dil_fail(err, DIL_EFORMAT, "%s: from \"%s\" to itself", where, c->nodes[l->from].name);
    if (!in_range(l->latency_sec, 0, SEC_MAX) || !in_range(l->rtt_sec, 0, SEC_MAX))
        return dil_fail(err, DIL_EFORMAT, "%s: \"latency_sec\" %g or \"rtt_sec\" %g is not within 0 to %g", where, l->latency_sec,
                        l->rtt_sec, SEC_MAX);
    if (!in_range(l->bytes_per_sec, 1e-3, SPEED_MAX))
        return dil_fail(err, DIL_EFORMAT, "%s: \"bytes_per_sec\" is %g, allowed 0.001 to %g", where, l->bytes_per_sec, SPEED_MAX);
    return DIL_OK;
}

/* tmp holds the sorted names and, where the links are not sorted yet, a sorted copy. */
static dil_status check(const dil_cluster *c, const char *what, dil_arena *tmp, dil__names *names, dil_err *err)
{
    if (c->n_nodes == 0) return dil_fail(err, DIL_EFORMAT, "%s: no nodes", what);
    if (c->n_nodes > DIL_NODES_MAX) return dil_fail(err, DIL_ELIMIT, "%s: %u nodes, at most %d", what, c->n_nodes, DIL_NODES_MAX);
    if (c->n_links > DIL_LINKS_MAX) return dil_fail(err, DIL_ELIMIT, "%s: %u links, at most %d", what, c->n_links, DIL_LINKS_MAX);
    if (c->entry >= c->n_nodes) return dil_fail(err, DIL_EFORMAT, "%s: entry is node %u of %u", what, c->entry, c->n_nodes);
    const char **list = dil_arena_push(tmp, c->n_nodes, sizeof *list);
    if (!list) return dil__jsonfile_nomem(what, err);
    for (uint32_t i = 0; i < c->n_nodes; i++) {
        char where[DIL__WHERE_MAX];
        dil__where(where, "%s: nodes[%u]", what, i);
        dil_status s = check_node(&c->nodes[i], where, err);
        if (s != DIL_OK) return s;
        list[i] = c->nodes[i].name;
    }
    char where[DIL__WHERE_MAX];
    dil__where(where, "%s: nodes", what);
    return dil__names_init(names, list, c->n_nodes, where, tmp, err);
}

static dil_status check_links(const dil_cluster *c, const char *what, dil_arena *tmp, dil_err *err)
{
    for (uint32_t i = 0; i < c->n_links; i++) {
        char where[DIL__WHERE_MAX];
        dil__where(where, "%s: links[%u]", what, i);
        dil_status s = check_link(c, &c->links[i], where, err);
        if (s != DIL_OK) return s;
    }
    dil_cluster_link *sorted = dil_arena_push(tmp, c->n_links, sizeof *sorted);
    if (!sorted) return dil__jsonfile_nomem(what, err);
    if (c->n_links) memcpy(sorted, c->links, c->n_links * sizeof *sorted);
    qsort(sorted, c->n_links, sizeof *sorted, by_pair);
    for (uint32_t i = 1; i < c->n_links; i++) {
        if (by_pair(&sorted[i - 1], &sorted[i]) == 0)
            return dil_fail(err, DIL_EFORMAT, "%s: links: \"%s\" to \"%s\" is listed twice", what, c->nodes[sorted[i].from].name,
                            c->nodes[sorted[i].to].name);
    }
    return DIL_OK;
}

static dil_status read_kernels(const json_t *o, const char *where, dil_cluster_node *n, dil_arena *a, dil_err *err)
{
    json_t *arr = json_object_get(o, "kernels");
    if (!arr || json_is_null(arr)) return DIL_OK;
    if (!json_is_array(arr)) return dil_fail(err, DIL_EFORMAT, "%s: \"kernels\" is not an array", where);
    size_t count = json_array_size(arr);
    if (count > DIL_KERNELS_MAX) return dil_fail(err, DIL_ELIMIT, "%s: %zu kernels, at most %d", where, count, DIL_KERNELS_MAX);
    n->kernels = dil_arena_push(a, count, sizeof *n->kernels);
    if (!n->kernels) return dil__jsonfile_nomem(where, err);
    n->n_kernels = (uint32_t)count;
    for (size_t i = 0; i < count; i++) {
        dil_cluster_kernel *k = &n->kernels[i];
        const json_t *e = json_array_get(arr, i);
        char at[DIL__WHERE_MAX];
        dil__where(at, "%s: kernels[%zu]", where, i);
        dil_status s = dil__jsonfile_str(e, "type", at, DIL_NAME_MAX, a, &k->type, err);
        if (s == DIL_OK) s = dil__jsonfile_u32(e, "rows", at, UINT32_MAX, &k->rows, err);
        if (s == DIL_OK) s = dil__jsonfile_u32(e, "cols", at, UINT32_MAX, &k->cols, err);
        if (s == DIL_OK) s = dil__jsonfile_num(e, "decode_sec", at, 0, SEC_MAX, &k->decode_sec, err);
        if (s == DIL_OK) s = dil__jsonfile_num(e, "prefill_sec", at, 0, SEC_MAX, &k->prefill_sec, err);
        if (s != DIL_OK) return s;
    }
    return DIL_OK;
}

static dil_status read_node(const json_t *o, const char *where, dil_cluster_node *n, dil_arena *a, dil_err *err)
{
    dil_status s = dil__jsonfile_str(o, "name", where, DIL_NAME_MAX, a, &n->name, err);
    if (s == DIL_OK) s = dil__jsonfile_str_or(o, "address", where, DIL_NAME_MAX, "", a, &n->address, err);
    if (s == DIL_OK) s = dil__jsonfile_str_or(o, "public_key", where, DIL_NAME_MAX, "", a, &n->public_key, err);
    if (s == DIL_OK) s = dil__jsonfile_str_or(o, "device", where, DIL_NAME_MAX, "", a, &n->device, err);
    if (s == DIL_OK) s = dil__jsonfile_str_or(o, "cpu", where, DIL_NAME_MAX, "", a, &n->cpu, err);
    if (s == DIL_OK) s = dil__jsonfile_uint(o, "memory_bytes", where, BYTES_MAX, &n->memory_bytes, err);
    if (s == DIL_OK) s = dil__jsonfile_u32_or(o, "threads", where, 1 << 20, 0, &n->threads, err);
    if (s == DIL_OK) s = dil__jsonfile_num_or(o, "throttle", where, 1, 1e6, 1, &n->throttle, err);
    if (s == DIL_OK) s = dil__jsonfile_num_or(o, "out_bytes_per_sec", where, 0, SPEED_MAX, 0, &n->out_bytes_per_sec, err);
    if (s == DIL_OK) s = dil__jsonfile_num_or(o, "in_bytes_per_sec", where, 0, SPEED_MAX, 0, &n->in_bytes_per_sec, err);
    return s == DIL_OK ? read_kernels(o, where, n, a, err) : s;
}

static dil_status read_nodes(const json_t *doc, const char *what, dil_cluster *c, dil_err *err)
{
    json_t *arr;
    dil_status s = dil__json_arr(doc, "nodes", what, &arr, err);
    if (s != DIL_OK) return s;
    size_t count = json_array_size(arr);
    if (count > DIL_NODES_MAX) return dil_fail(err, DIL_ELIMIT, "%s: %zu nodes, at most %d", what, count, DIL_NODES_MAX);
    c->nodes = dil_arena_push(c->arena, count, sizeof *c->nodes);
    if (!c->nodes) return dil__jsonfile_nomem(what, err);
    c->n_nodes = (uint32_t)count;
    for (size_t i = 0; i < count && s == DIL_OK; i++) {
        char where[DIL__WHERE_MAX];
        dil__where(where, "%s: nodes[%zu]", what, i);
        s = read_node(json_array_get(arr, i), where, &c->nodes[i], c->arena, err);
    }
    return s;
}

static dil_status read_end(const json_t *o, const char *key, const char *where, const dil__names *names, uint32_t *out, dil_err *err)
{
    const char *name;
    dil_status s = dil__json_str(o, key, where, &name, err);
    if (s != DIL_OK) return s;
    *out = dil__names_find(names, name);
    return *out == DIL_NO_NODE ? dil_fail(err, DIL_EFORMAT, "%s: \"%s\" is \"%.100s\", which is not among the nodes", where, key, name) : DIL_OK;
}

static dil_status read_links(const json_t *doc, const char *what, const dil__names *names, dil_cluster *c, dil_err *err)
{
    json_t *arr;
    dil_status s = dil__json_arr(doc, "links", what, &arr, err);
    if (s != DIL_OK) return s;
    size_t count = json_array_size(arr);
    if (count > DIL_LINKS_MAX) return dil_fail(err, DIL_ELIMIT, "%s: %zu links, at most %d", what, count, DIL_LINKS_MAX);
    c->links = dil_arena_push(c->arena, count, sizeof *c->links);
    if (!c->links) return dil__jsonfile_nomem(what, err);
    c->n_links = (uint32_t)count;
    for (size_t i = 0; i < count && s == DIL_OK; i++) {
        dil_cluster_link *l = &c->links[i];
        const json_t *o = json_array_get(arr, i);
        char where[DIL__WHERE_MAX];
        dil__where(where, "%s: links[%zu]", what, i);
        s = read_end(o, "from", where, names, &l->from, err);
        if (s == DIL_OK) s = read_end(o, "to", where, names, &l->to, err);
        if (s == DIL_OK) s = dil__jsonfile_num(o, "latency_sec", where, 0, SEC_MAX, &l->latency_sec, err);
        if (s == DIL_OK) s = dil__jsonfile_num_or(o, "rtt_sec", where, 0, SEC_MAX, 2 * l->latency_sec, &l->rtt_sec, err);
        if (s == DIL_OK) s = dil__jsonfile_num(o, "bytes_per_sec", where, 1e-3, SPEED_MAX, &l->bytes_per_sec, err);
    }
    return s;
}

static dil_status read_cluster(const json_t *doc, const char *what, void *object, dil_arena *a, dil_arena *tmp, dil_err *err)
{
    dil_cluster *c = object;
    dil__names names;
    c->arena = a;
    dil_status s = read_nodes(doc, what, c, err);
    if (s == DIL_OK) s = check(c, what, tmp, &names, err);
    if (s == DIL_OK) s = read_links(doc, what, &names, c, err);
    if (s == DIL_OK) s = check_links(c, what, tmp, err);
    if (s != DIL_OK) return s;
    qsort(c->links, c->n_links, sizeof *c->links, by_pair);
    const json_t *entry = json_object_get(doc, "entry");
    if (!entry || json_is_null(entry)) return DIL_OK;
    return read_end(doc, "entry", what, &names, &c->entry, err);
}

dil_status dil_cluster_parse(const char *what, const char *text, size_t len, dil_cluster **out, dil_err *err)
{
    void *c = NULL;
    dil_status s = dil__jsonfile_object(what, text, len, sizeof(dil_cluster), read_cluster, &c, err);
    if (s == DIL_OK) *out = c;
    return s;
}

static dil_status parse_into(void *ctx, const char *what, const char *text, size_t len, dil_err *err)
{
    return dil_cluster_parse(what, text, len, ctx, err);
}

dil_status dil_cluster_read(const char *path, dil_cluster **out, dil_err *err)
{
    return dil__jsonfile_read(path, out, parse_into, err);
}

void dil_cluster_free(dil_cluster *c)
{
    if (c) dil_arena_free(c->arena);
}

static json_t *node_json(const dil_cluster_node *n)
{
    json_t *o = json_pack("{s:s, s:s, s:s, s:I, s:i, s:s, s:s, s:f}", "name", n->name, "address", n->address, "public_key",
                          n->public_key, "memory_bytes", (json_int_t)n->memory_bytes, "threads", (int)n->threads, "device",
                          n->device, "cpu", n->cpu, "throttle", n->throttle);
    if (n->out_bytes_per_sec > 0) json_object_set_new(o, "out_bytes_per_sec", json_real(n->out_bytes_per_sec));
    if (n->in_bytes_per_sec > 0) json_object_set_new(o, "in_bytes_per_sec", json_real(n->in_bytes_per_sec));
    json_t *arr = json_array();
    for (uint32_t i = 0; i < n->n_kernels; i++) {
        const dil_cluster_kernel *k = &n->kernels[i];
        json_array_append_new(arr, json_pack("{s:s, s:I, s:I, s:f, s:f}", "type", k->type, "rows", (json_int_t)k->rows, "cols",
                                             (json_int_t)k->cols, "decode_sec", k->decode_sec, "prefill_sec", k->prefill_sec));
    }
    json_object_set_new(o, "kernels", arr);
    return o;
}

static json_t *cluster_json(const dil_cluster *c)
{
    json_t *nodes = json_array(), *links = json_array();
    for (uint32_t i = 0; i < c->n_nodes; i++) json_array_append_new(nodes, node_json(&c->nodes[i]));
    for (uint32_t i = 0; i < c->n_links; i++) {
        const dil_cluster_link *l = &c->links[i];
        json_array_append_new(links, json_pack("{s:s, s:s, s:f, s:f, s:f}", "from", c->nodes[l->from].name, "to",
                                               c->nodes[l->to].name, "rtt_sec", l->rtt_sec, "latency_sec", l->latency_sec,
                                               "bytes_per_sec", l->bytes_per_sec));
    }
    return json_pack("{s:i, s:o, s:o, s:s}", "version", 1, "nodes", nodes, "links", links, "entry", c->nodes[c->entry].name);
}

dil_status dil_cluster_write(const char *path, const dil_cluster *c, dil_err *err)
{
    dil_arena *tmp = dil_arena_new(DIL__ARENA_MAX);
    if (!tmp) return dil__jsonfile_nomem(path, err);
    dil__names names;
    dil_status s = check(c, path, tmp, &names, err);
    if (s == DIL_OK) s = check_links(c, path, tmp, err);
    dil_arena_free(tmp);
    if (s != DIL_OK) return s;
    json_t *doc = cluster_json(c);
    if (!doc) return dil_fail(err, DIL_EFORMAT, "%s: a name is not valid UTF-8, or out of memory", path);
    s = dil__json_save(path, doc, err);
    json_decref(doc);
    return s;
}

uint32_t dil_cluster_find(const dil_cluster *c, const char *name)
{
    for (uint32_t i = 0; i < c->n_nodes; i++) {
        if (strcmp(c->nodes[i].name, name) == 0) return i;
    }
    return DIL_NO_NODE;
}

const dil_cluster_link *dil_cluster_link_get(const dil_cluster *c, uint32_t from, uint32_t to)
{
    dil_cluster_link key = {.from = from, .to = to};
    return c->n_links ? bsearch(&key, c->links, c->n_links, sizeof key, by_pair) : NULL;
}
