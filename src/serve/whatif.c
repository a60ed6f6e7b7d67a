/* The page's picture of a plan, and other plans from the same measurements. */
#include "serve/whatif.h"

#include "base/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const dil_profile_level *level_of(const dil_profile *p, uint32_t layer, const char *name)
{
    if (!p || layer >= p->n_layers) return NULL;
    for (uint32_t q = 0; q < p->layers[layer].n_levels; q++) {
        if (strcmp(p->layers[layer].levels[q].name, name) == 0) return &p->layers[layer].levels[q];
    }
    return NULL;
}

/* Without the profile's figure: the first tensor's type. */
static double bits_of(const dil_plan_layer *l, const dil_profile *profile, uint32_t layer)
{
    const dil_profile_level *v = level_of(profile, layer, l->level);
    dil_type t;
    if (v && isfinite(v->bits)) return v->bits;
    if (l->n_types && dil_type_from_name(l->types[0].type, &t)) return dil_type_bits(t);
    return 0;
}

json_t *dil__plan_json(const dil_plan *p, const dil_profile *profile)
{
    json_t *layers = json_array(), *stages = json_array();
    for (uint32_t i = 0; i < p->n_layers; i++) {
        const dil_plan_layer *l = &p->layers[i];
        json_array_append_new(layers, json_pack("{s:s, s:s, s:s, s:f, s:I}", "name", l->name, "node", l->node, "level", l->level, "bits", bits_of(l, profile, i),
                                                "bytes", (json_int_t)l->bytes));
    }
    for (uint32_t i = 0; i < p->n_stages; i++) {
        const dil_plan_stage *g = &p->stages[i];
        json_array_append_new(stages, json_pack("{s:s, s:I, s:I, s:I, s:f, s:f}", "node", g->node, "first_layer", (json_int_t)g->first_layer, "last_layer",
                                                (json_int_t)g->last_layer, "bytes", (json_int_t)g->bytes, "compute_sec", g->compute_sec, "hop_sec", g->hop_sec));
    }
    return json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:s, s:s, s:I, s:I, s:I, s:o, s:o}", "token_sec", p->token_sec, "prefill_sec", p->prefill_sec, "total_sec",
                     p->total_sec, "gap", p->gap, "ratio_to_fp32", p->ratio_to_fp32, "predicted_damage", p->predicted_damage, "damage_measure", p->damage_measure,
                     "entry", p->entry, "tokens_in", (json_int_t)p->tokens_in, "tokens_out", (json_int_t)p->tokens_out, "context", (json_int_t)p->context,
                     "stages", stages, "layers", layers);
}

json_t *dil__cluster_json(const dil_cluster *c)
{
    json_t *nodes = json_array(), *links = json_array();
    for (uint32_t i = 0; i < c->n_nodes; i++) {
        const dil_cluster_node *n = &c->nodes[i];
        json_array_append_new(nodes, json_pack("{s:s, s:s, s:s, s:s, s:I, s:I}", "name", n->name, "address", n->address ? n->address : "", "cpu", n->cpu ? n->cpu : "",
                                               "device", n->device ? n->device : "", "memory_bytes", (json_int_t)n->memory_bytes, "threads", (json_int_t)n->threads));
    }
    for (uint32_t i = 0; i < c->n_links && i < 4096; i++) {
        const dil_cluster_link *l = &c->links[i];
        json_array_append_new(links, json_pack("{s:I, s:I, s:f, s:f}", "from", (json_int_t)l->from, "to", (json_int_t)l->to, "rtt_sec", l->rtt_sec, "bytes_per_sec",
                                               l->bytes_per_sec));
    }
    return json_pack("{s:o, s:o, s:I}", "nodes", nodes, "links", links, "entry", (json_int_t)c->entry);
}

/* --- questions -------------------------------------------------------------------------------------------------------------- */

static dil_status read_without(dil__whatif *w, const dil_cluster *c, dil_err *err)
{
    const json_t *list = json_object_get(w->doc, "without");
    size_t i;
    const json_t *v;
    if (!list || json_is_null(list)) return DIL_OK;
    if (!json_is_array(list) || json_array_size(list) > 64) return dil_fail(err, DIL_EFORMAT, "without must be a list of at most 64 names");
    json_array_foreach(list, i, v) {
        uint32_t at = json_is_string(v) ? dil_cluster_find(c, json_string_value(v)) : DIL_NO_NODE;
        if (at == DIL_NO_NODE) return dil_fail(err, DIL_EFORMAT, "without[%zu] is no machine of this cluster", i);
        if (at == c->entry) return dil_fail(err, DIL_EFORMAT, "%s is where requests arrive; it stays", c->nodes[at].name);
        w->without[w->n_without++] = json_string_value(v);
    }
    return DIL_OK;
}

dil_status dil__whatif_parse(const char *body, size_t len, const dil_cluster *c, dil__whatif *out, const char **param, dil_err *err)
{
    dil__whatif w = {0};
    int64_t context = 0, points = 0;
    *param = NULL;
    dil_status s = dil__json_parse("request body", body, len, &w.doc, err);
    if (s == DIL_OK && !json_is_object(w.doc)) s = dil_fail(err, DIL_EFORMAT, "the body must be a JSON object");
#define READ(call, name) if (s == DIL_OK && (s = call) != DIL_OK) *param = name
    READ(dil__json_num_or(w.doc, "max_ratio", "the question", INFINITY, &w.max_ratio, err), "max_ratio");
    READ(w.max_ratio > 0 ? DIL_OK : dil_fail(err, DIL_EFORMAT, "max_ratio must be more than 0"), "max_ratio");
    READ(dil__json_num_or(w.doc, "max_kl", "the question", INFINITY, &w.max_kl, err), "max_kl");
    READ(w.max_kl >= 0 ? DIL_OK : dil_fail(err, DIL_EFORMAT, "max_kl must not be negative"), "max_kl");
    READ(dil__json_int_or(w.doc, "context", "the question", 16, 1 << 22, 0, &context, err), "context");
    READ(dil__json_int_or(w.doc, "points", "the question", 0, DIL_WHATIF_POINTS_MAX, 0, &points, err), "points");
    READ(read_without(&w, c, err), "without");
    w.context = (uint32_t)context;
    w.points = (uint32_t)points;
    if (s == DIL_OK) *out = w;
    else json_decref(w.doc);
    return s;
}

void dil__whatif_fini(dil__whatif *w)
{
    json_decref(w->doc);
    *w = (dil__whatif){0};
}

static bool is_without(const dil__whatif *w, const char *name)
{
    for (uint32_t i = 0; i < w->n_without; i++) {
        if (strcmp(w->without[i], name) == 0) return true;
    }
    return false;
}

/* The cluster without some machines; nodes and links are the caller's to free, what they point to is borrowed. */
static bool cut_cluster(const dil__whatif *w, const dil_cluster *c, dil_cluster *out)
{
    *out = (dil_cluster){.nodes = calloc(c->n_nodes, sizeof *c->nodes), .links = calloc(c->n_links ? c->n_links : 1, sizeof *c->links)};
    uint32_t *at = calloc(c->n_nodes, sizeof *at);
    bool good = out->nodes && out->links && at;
    for (uint32_t i = 0; good && i < c->n_nodes; i++) {
        at[i] = DIL_NO_NODE;
        if (is_without(w, c->nodes[i].name)) continue;
        if (i == c->entry) out->entry = out->n_nodes;
        at[i] = out->n_nodes;
        out->nodes[out->n_nodes++] = c->nodes[i];
    }
    for (uint32_t i = 0; good && i < c->n_links; i++) {
        dil_cluster_link l = c->links[i];
        if (at[l.from] == DIL_NO_NODE || at[l.to] == DIL_NO_NODE) continue;
        l.from = at[l.from];
        l.to = at[l.to];
        out->links[out->n_links++] = l;
    }
    free(at);
    return good;
}

static json_t *front_json(const dil_front_point *p, uint32_t n)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < n; i++)
        json_array_append_new(list, json_pack("{s:f, s:f, s:f, s:f, s:f}", "damage", p[i].damage, "ratio_to_fp32", p[i].ratio_to_fp32, "token_sec", p[i].token_sec,
                                              "total_sec", p[i].total_sec, "gap", p[i].gap));
    return list;
}

dil_status dil__whatif_answer(const dil__whatif *w, const dil_plan *now, const dil_profile *profile, const dil_cluster *c, const dil_progress *progress,
                              json_t **out, dil_err *err)
{
    dil_cluster cut;
    dil_plan_options o = dil_plan_options_default();
    o.max_ratio = w->max_ratio;
    o.max_damage = w->max_kl;
    o.context = w->context ? w->context : now->context;
    o.tokens_in = now->tokens_in;
    o.tokens_out = now->tokens_out;
    if (o.tokens_in + o.tokens_out > o.context) { /* a smaller context is for smaller requests */
        o.tokens_in = o.context / 2;
        o.tokens_out = o.context - o.tokens_in;
    }
    o.n_guesses = now->n_guesses;
    o.acceptance = now->acceptance;
    o.measure = now->damage_measure;
    o.limit_sec = DIL_WHATIF_SEC;
    o.progress = progress;
    dil_plan *plan = NULL;
    dil_front_point points[DIL_WHATIF_POINTS_MAX];
    uint32_t found = 0;
    dil_err why = {0};
    dil_status s = cut_cluster(w, c, &cut) ? dil_plan_make(profile, &cut, &o, &plan, &why) : dil_fail(&why, DIL_EMEMORY, "no memory");
    o.limit_sec = DIL_WHATIF_POINT_SEC;
    o.max_damage = INFINITY;
    if (s == DIL_OK && w->points) dil_plan_front(profile, &cut, &o, DIL_FRONT_DAMAGE, w->points, points, &found, NULL);
    bool answered = s == DIL_OK || s == DIL_EINFEASIBLE || s == DIL_ETIMEOUT || s == DIL_EDATA || s == DIL_EUSAGE;
    if (answered) *out = json_pack("{s:o, s:s, s:o}", "plan", plan ? dil__plan_json(plan, profile) : json_null(), "why", why.text, "front", front_json(points, found));
    else if (err) *err = why;
    dil_plan_free(plan);
    free(cut.nodes);
    free(cut.links);
    return answered ? DIL_OK : s;
}
