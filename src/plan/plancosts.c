/* plan.json's "costs": the columns of the profile that the plan chose, on all nodes, so that a plan can be made again at the same levels
 * from the plan alone, when the profile is not at hand: where a model is served. */
#include "plan/plancosts.h"

#include <math.h>
#include <string.h>

#define SEC_MAX 1e12

/* --- from a profile ------------------------------------------------------------------------------------------------------------- */

static const dil_profile_level *level_named(const dil_profile_layer *l, const char *name)
{
    for (uint32_t q = 0; q < l->n_levels; q++) {
        if (strcmp(l->levels[q].name, name) == 0) return &l->levels[q];
    }
    return NULL;
}

static dil_plan_costs *costs_new(dil_arena *a, uint32_t n_layers, uint32_t n_nodes, bool slope)
{
    dil_plan_costs *c = dil_arena_push(a, 1, sizeof *c);
    if (!c) return NULL;
    size_t n = (size_t)n_layers * n_nodes;
    c->n_nodes = n_nodes;
    c->nodes = dil_arena_push(a, n_nodes, sizeof *c->nodes);
    c->decode_sec = dil_arena_push(a, n, sizeof *c->decode_sec);
    c->prefill_sec = dil_arena_push(a, n, sizeof *c->prefill_sec);
    c->per_cached_sec = slope ? dil_arena_push(a, n, sizeof *c->per_cached_sec) : NULL;
    return c->nodes && c->decode_sec && c->prefill_sec && (!slope || c->per_cached_sec) ? c : NULL;
}

static bool has_slope(const dil_profile *prof)
{
    for (uint32_t l = 0; l < prof->n_layers; l++) {
        if (prof->layers[l].decode_sec_per_cached) return true;
    }
    return false;
}

bool dil__plan_costs_fill(dil_plan *plan, const dil_profile *prof)
{
    plan->costs = NULL;
    if ((uint64_t)plan->n_layers * prof->n_nodes > DIL_PLAN_COSTS_MAX) return true;
    dil_plan_costs *c = costs_new(plan->arena, plan->n_layers, prof->n_nodes, has_slope(prof));
    if (!c) return false;
    c->n_past = prof->n_past;
    c->batch = prof->batch;
    for (uint32_t i = 0; i < prof->n_nodes; i++) {
        c->nodes[i] = dil_arena_strdup(plan->arena, prof->nodes[i], strlen(prof->nodes[i]));
        if (!c->nodes[i]) return false;
    }
    for (uint32_t l = 0; l < plan->n_layers; l++) {
        const dil_profile_level *v = level_named(&prof->layers[l], plan->layers[l].level);
        size_t at = (size_t)l * prof->n_nodes;
        if (!v) return false;
        memcpy(c->decode_sec + at, v->decode_sec, prof->n_nodes * sizeof *v->decode_sec);
        memcpy(c->prefill_sec + at, v->prefill_sec, prof->n_nodes * sizeof *v->prefill_sec);
        if (c->per_cached_sec && prof->layers[l].decode_sec_per_cached)
            memcpy(c->per_cached_sec + at, prof->layers[l].decode_sec_per_cached, prof->n_nodes * sizeof *c->per_cached_sec);
    }
    plan->costs = c;
    return true;
}

/* --- the file --------------------------------------------------------------------------------------------------------------------- */

static dil_status check_secs(const double *v, size_t n, const char *key, const char *what, dil_err *err)
{
    for (size_t i = 0; v && i < n; i++) {
        if (!(v[i] >= 0 && v[i] <= SEC_MAX)) return dil_fail(err, DIL_EFORMAT, "%s: costs: \"%s\" holds %g, allowed 0 to %g", what, key, v[i], SEC_MAX);
    }
    return DIL_OK;
}

dil_status dil__plan_costs_check(const dil_plan *p, const char *what, dil_err *err)
{
    const dil_plan_costs *c = p->costs;
    if (!c) return DIL_OK;
    size_t n = (size_t)p->n_layers * c->n_nodes;
    if (c->n_nodes == 0 || n > DIL_PLAN_COSTS_MAX)
        return dil_fail(err, DIL_ELIMIT, "%s: costs: %u nodes for %u layers, allowed 1 to %d in all", what, c->n_nodes, p->n_layers, DIL_PLAN_COSTS_MAX);
    if (c->batch == 0) return dil_fail(err, DIL_EFORMAT, "%s: costs: \"batch\" is 0", what);
    dil_status s = DIL_OK;
    for (uint32_t i = 0; i < c->n_nodes && s == DIL_OK; i++) {
        s = dil__jsonfile_check_str(c->nodes[i], "nodes", what, false, DIL_NAME_MAX, err);
        for (uint32_t k = 0; k < i && s == DIL_OK; k++) {
            if (strcmp(c->nodes[i], c->nodes[k]) == 0) s = dil_fail(err, DIL_EFORMAT, "%s: costs: node \"%.80s\" occurs twice", what, c->nodes[i]);
        }
    }
    if (s == DIL_OK) s = check_secs(c->decode_sec, n, "decode_sec", what, err);
    if (s == DIL_OK) s = check_secs(c->prefill_sec, n, "prefill_sec", what, err);
    return s == DIL_OK ? check_secs(c->per_cached_sec, n, "decode_sec_per_cached", what, err) : s;
}

static dil_status read_nodes(const json_t *o, const char *where, dil_plan *p, uint32_t *n_nodes, const char ***names, dil_err *err)
{
    json_t *arr;
    dil_status s = dil__json_arr(o, "nodes", where, &arr, err);
    if (s != DIL_OK) return s;
    size_t n = json_array_size(arr);
    if (n == 0 || n > DIL_NODES_MAX || n * p->n_layers > DIL_PLAN_COSTS_MAX)
        return dil_fail(err, DIL_ELIMIT, "%s: %zu nodes, allowed 1 to %d for all layers together", where, n, DIL_PLAN_COSTS_MAX);
    *names = dil_arena_push(p->arena, n, sizeof **names);
    if (!*names) return dil__jsonfile_nomem(where, err);
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(arr, i);
        if (!json_is_string(v)) return dil_fail(err, DIL_EFORMAT, "%s: nodes[%zu] is not a string", where, i);
        (*names)[i] = dil_arena_strdup(p->arena, json_string_value(v), json_string_length(v));
        if (!(*names)[i]) return dil__jsonfile_nomem(where, err);
    }
    *n_nodes = (uint32_t)n;
    return DIL_OK;
}

static dil_status read_secs(const json_t *o, const char *key, const char *where, uint32_t n_layers, uint32_t n_nodes, double *out, dil_err *err)
{
    json_t *rows;
    dil_status s = dil__json_arr(o, key, where, &rows, err);
    if (s == DIL_OK && json_array_size(rows) != n_layers)
        s = dil_fail(err, DIL_EFORMAT, "%s: \"%s\" has %zu rows for %u layers", where, key, json_array_size(rows), n_layers);
    for (uint32_t l = 0; l < n_layers && s == DIL_OK; l++) {
        const json_t *row = json_array_get(rows, l);
        if (!json_is_array(row) || json_array_size(row) != n_nodes)
            return dil_fail(err, DIL_EFORMAT, "%s: \"%s\"[%u] is not a list of %u numbers", where, key, l, n_nodes);
        for (uint32_t i = 0; i < n_nodes; i++) {
            const json_t *v = json_array_get(row, i);
            if (!json_is_number(v)) return dil_fail(err, DIL_EFORMAT, "%s: \"%s\"[%u][%u] is not a number", where, key, l, i);
            out[(size_t)l * n_nodes + i] = json_number_value(v);
        }
    }
    return s;
}

dil_status dil__plan_costs_read(const json_t *doc, const char *what, dil_plan *p, dil_err *err)
{
    const json_t *o = json_object_get(doc, "costs");
    if (!o || json_is_null(o)) return DIL_OK;
    char where[DIL__WHERE_MAX];
    dil__where(where, "%s: costs", what);
    if (!json_is_object(o)) return dil_fail(err, DIL_EFORMAT, "%s is not an object", where);
    const json_t *slope = json_object_get(o, "decode_sec_per_cached");
    uint32_t n_nodes = 0;
    const char **names = NULL;
    dil_status s = read_nodes(o, where, p, &n_nodes, &names, err);
    if (s != DIL_OK) return s;
    dil_plan_costs *c = costs_new(p->arena, p->n_layers, n_nodes, slope && !json_is_null(slope));
    if (!c) return dil__jsonfile_nomem(where, err);
    c->nodes = names;
    s = dil__jsonfile_u32_or(o, "n_past", where, UINT32_MAX, 0, &c->n_past, err);
    if (s == DIL_OK) s = dil__jsonfile_u32(o, "batch", where, UINT32_MAX, &c->batch, err);
    if (s == DIL_OK) s = read_secs(o, "decode_sec", where, p->n_layers, n_nodes, c->decode_sec, err);
    if (s == DIL_OK) s = read_secs(o, "prefill_sec", where, p->n_layers, n_nodes, c->prefill_sec, err);
    if (s == DIL_OK && c->per_cached_sec) s = read_secs(o, "decode_sec_per_cached", where, p->n_layers, n_nodes, c->per_cached_sec, err);
    if (s == DIL_OK) p->costs = c;
    return s;
}

static json_t *secs_json(const double *v, uint32_t n_layers, uint32_t n_nodes)
{
    json_t *rows = json_array();
    for (uint32_t l = 0; l < n_layers; l++) {
        json_t *row = json_array();
        for (uint32_t i = 0; i < n_nodes; i++) json_array_append_new(row, json_real(v[(size_t)l * n_nodes + i]));
        json_array_append_new(rows, row);
    }
    return rows;
}

json_t *dil__plan_costs_json(const dil_plan *p)
{
    const dil_plan_costs *c = p->costs;
    json_t *names = json_array();
    for (uint32_t i = 0; i < c->n_nodes; i++) json_array_append_new(names, json_string(c->nodes[i]));
    json_t *o = json_pack("{s:o, s:I, s:I, s:o, s:o}", "nodes", names, "n_past", (json_int_t)c->n_past, "batch", (json_int_t)c->batch, "decode_sec",
                          secs_json(c->decode_sec, p->n_layers, c->n_nodes), "prefill_sec", secs_json(c->prefill_sec, p->n_layers, c->n_nodes));
    if (o && c->per_cached_sec) json_object_set_new(o, "decode_sec_per_cached", secs_json(c->per_cached_sec, p->n_layers, c->n_nodes));
    return o;
}
