/* trace.json: what happens to a network and its users, in order of time. */
#include <dilemma/simulate.h>

#include "plan/jsonfile.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TIME_MAX 1e9
#define SPEED_MIN 1e-3
#define TOKENS_MAX 1000000

static dil_status read_node(const json_t *o, const char *key, const char *where, const dil_cluster *c, uint32_t *out, dil_err *err)
{
    const char *name;
    dil_status s = dil__json_str(o, key, where, &name, err);
    if (s != DIL_OK) return s;
    *out = dil_cluster_find(c, name);
    return *out == DIL_NO_NODE ? dil_fail(err, DIL_EFORMAT, "%s: \"%s\": node \"%.100s\" is not in the cluster", where, key, name) : DIL_OK;
}

static dil_status read_link(const json_t *o, const char *where, const dil_cluster *c, dil_trace_event *e, dil_err *err)
{
    dil_status s = read_node(o, "from", where, c, &e->node, err);
    if (s == DIL_OK) s = read_node(o, "to", where, c, &e->to, err);
    if (s == DIL_OK && !dil_cluster_link_get(c, e->node, e->to))
        s = dil_fail(err, DIL_EFORMAT, "%s: the cluster has no link from \"%.80s\" to \"%.80s\"", where, c->nodes[e->node].name, c->nodes[e->to].name);
    if (s == DIL_OK) s = dil__jsonfile_num(o, "latency_sec", where, 0, TIME_MAX, &e->latency_sec, err);
    if (s == DIL_OK) s = dil__jsonfile_num(o, "bytes_per_sec", where, SPEED_MIN, 1e15, &e->bytes_per_sec, err);
    return s;
}

static dil_status read_event(const json_t *o, const char *where, const dil_cluster *c, dil_trace_event *e, dil_err *err)
{
    const char *kind;
    dil_status s = dil__jsonfile_num(o, "at_sec", where, 0, TIME_MAX, &e->at_sec, err);
    if (s == DIL_OK) s = dil__json_str(o, "kind", where, &kind, err);
    if (s != DIL_OK) return s;
    if (strcmp(kind, "request") == 0) {
        e->kind = DIL_TRACE_REQUEST;
        s = dil__jsonfile_u32(o, "tokens_in", where, TOKENS_MAX, &e->tokens_in, err);
        if (s == DIL_OK) s = dil__jsonfile_u32(o, "tokens_out", where, TOKENS_MAX, &e->tokens_out, err);
        if (s == DIL_OK && (e->tokens_in == 0 || e->tokens_out == 0)) s = dil_fail(err, DIL_EFORMAT, "%s: a request has at least one token in and one out", where);
        return s;
    }
    if (strcmp(kind, "link") == 0) {
        e->kind = DIL_TRACE_LINK;
        return read_link(o, where, c, e, err);
    }
    if (strcmp(kind, "leave") != 0 && strcmp(kind, "return") != 0)
        return dil_fail(err, DIL_EFORMAT, "%s: \"kind\" is \"%.32s\"; there are request, link, leave, return", where, kind);
    e->kind = kind[0] == 'l' ? DIL_TRACE_LEAVE : DIL_TRACE_RETURN;
    s = read_node(o, "node", where, c, &e->node, err);
    if (s == DIL_OK && e->node == c->entry) s = dil_fail(err, DIL_EFORMAT, "%s: the entry node \"%.100s\" cannot leave", where, c->nodes[e->node].name);
    return s;
}

static dil_status read_doc(const json_t *doc, const char *what, const dil_cluster *c, dil_trace *t, dil_err *err)
{
    json_t *arr;
    dil_status s = dil__json_arr(doc, "events", what, &arr, err);
    if (s == DIL_OK) s = dil__jsonfile_num(doc, "duration_sec", what, 0, TIME_MAX, &t->duration_sec, err);
    if (s != DIL_OK) return s;
    size_t n = json_array_size(arr);
    if (n > DIL_TRACE_EVENTS_MAX) return dil_fail(err, DIL_ELIMIT, "%s: %zu events, at most %d", what, n, DIL_TRACE_EVENTS_MAX);
    t->events = dil_arena_push(t->arena, n, sizeof *t->events);
    if (!t->events) return dil__jsonfile_nomem(what, err);
    for (size_t i = 0; i < n; i++) {
        char where[DIL__WHERE_MAX];
        dil__where(where, "%s: events[%zu]", what, i);
        s = read_event(json_array_get(arr, i), where, c, &t->events[i], err);
        if (s != DIL_OK) return s;
        t->n_events++;
        double last = i ? t->events[i - 1].at_sec : 0;
        if (t->events[i].at_sec < last || t->events[i].at_sec > t->duration_sec)
            return dil_fail(err, DIL_EFORMAT, "%s: at %g s, after one at %g s, and the trace lasts %g s", where, t->events[i].at_sec, last, t->duration_sec);
    }
    return DIL_OK;
}

dil_status dil_trace_parse(const char *what, const char *text, size_t len, const dil_cluster *cluster, dil_trace **out, dil_err *err)
{
    json_t *doc;
    dil_status s = dil__jsonfile_parse(what, text, len, true, &doc, err);
    if (s != DIL_OK) return s;
    dil_arena *a = dil_arena_new(DIL__ARENA_MAX);
    dil_trace *t = a ? dil_arena_push(a, 1, sizeof *t) : NULL;
    if (t) {
        t->arena = a;
        s = read_doc(doc, what, cluster, t, err);
    } else {
        s = dil__jsonfile_nomem(what, err);
    }
    json_decref(doc);
    if (s == DIL_OK) *out = t;
    else dil_arena_free(a);
    return s;
}

typedef struct into {
    const dil_cluster *cluster;
    dil_trace **out;
} into;

static dil_status parse_into(void *ctx, const char *what, const char *text, size_t len, dil_err *err)
{
    into *x = ctx;
    return dil_trace_parse(what, text, len, x->cluster, x->out, err);
}

dil_status dil_trace_read(const char *path, const dil_cluster *cluster, dil_trace **out, dil_err *err)
{
    into x = {cluster, out};
    return dil__jsonfile_read(path, &x, parse_into, err);
}

void dil_trace_free(dil_trace *t)
{
    if (t) dil_arena_free(t->arena);
}

static json_t *event_json(const dil_cluster *c, const dil_trace_event *e)
{
    switch (e->kind) {
    case DIL_TRACE_REQUEST:
        return json_pack("{s:f, s:s, s:I, s:I}", "at_sec", e->at_sec, "kind", "request", "tokens_in", (json_int_t)e->tokens_in, "tokens_out",
                         (json_int_t)e->tokens_out);
    case DIL_TRACE_LINK:
        return json_pack("{s:f, s:s, s:s, s:s, s:f, s:f}", "at_sec", e->at_sec, "kind", "link", "from", c->nodes[e->node].name, "to",
                         c->nodes[e->to].name, "latency_sec", e->latency_sec, "bytes_per_sec", e->bytes_per_sec);
    default:
        return json_pack("{s:f, s:s, s:s}", "at_sec", e->at_sec, "kind", e->kind == DIL_TRACE_LEAVE ? "leave" : "return", "node",
                         c->nodes[e->node].name);
    }
}

dil_status dil_trace_write(const char *path, const dil_cluster *cluster, const dil_trace *t, dil_err *err)
{
    json_t *events = json_array();
    for (uint32_t i = 0; i < t->n_events; i++) json_array_append_new(events, event_json(cluster, &t->events[i]));
    json_t *doc = json_pack("{s:i, s:f, s:o}", "version", 1, "duration_sec", t->duration_sec, "events", events);
    if (!doc) return dil_fail(err, DIL_EFORMAT, "%s: a name is not valid UTF-8, or out of memory", path);
    dil_status s = dil__json_save(path, doc, err);
    json_decref(doc);
    return s;
}
