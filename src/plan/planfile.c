/* plan.json. The stages follow from the layers, so reading checks that they do: the pipeline trusts them. */
#include <dilemma/plan.h>
#include <dilemma/tensor.h>

#include "plan/plancosts.h"

#include <math.h>
#include <string.h>

#define BYTES_MAX ((uint64_t)1 << 60)
#define SEC_MAX 1e12

static dil_status check_num(double v, double min, const char *key, const char *what, dil_err *err)
{
    if (v >= min && v <= SEC_MAX) return DIL_OK;
    return dil_fail(err, DIL_EFORMAT, "%s: \"%s\" is %g, allowed %g to %g", what, key, v, min, SEC_MAX);
}

static dil_status check_scalars(const dil_plan *p, const char *what, dil_err *err)
{
    dil_status s = dil__jsonfile_check_str(p->model_path, "path", what, true, DIL__PATH_MAX, err);
    if (s == DIL_OK) s = dil__jsonfile_check_str(p->model_hash, "hash", what, true, DIL_NAME_MAX, err);
    if (s == DIL_OK) s = dil__jsonfile_check_str(p->entry, "entry", what, false, DIL_NAME_MAX, err);
    if (s == DIL_OK) s = dil__jsonfile_check_str(p->solver, "solver", what, false, DIL_NAME_MAX, err);
    if (s == DIL_OK) s = dil__jsonfile_check_str(p->damage_measure, "damage_measure", what, false, DIL_NAME_MAX, err);
    if (s == DIL_OK && (p->n_guesses > DIL_PLAN_GUESSES_MAX || !(p->acceptance >= 0 && p->acceptance <= 1)))
        s = dil_fail(err, DIL_EFORMAT, "%s: \"speculate\": %u guesses, right with chance %g; allowed 0 to %d, 0 to 1", what, p->n_guesses, p->acceptance, DIL_PLAN_GUESSES_MAX);
    if (s == DIL_OK) s = check_num(p->token_sec, 0, "token_sec", what, err);
    if (s == DIL_OK) s = check_num(p->prefill_sec, 0, "prefill_sec", what, err);
    if (s == DIL_OK) s = check_num(p->total_sec, 0, "total_sec", what, err);
    if (s == DIL_OK) s = check_num(p->bound_sec, -SEC_MAX, "bound_sec", what, err);
    if (s == DIL_OK) s = check_num(p->gap, -SEC_MAX, "gap", what, err);
    if (s == DIL_OK) s = check_num(p->solve_sec, 0, "solve_sec", what, err);
    if (s == DIL_OK) s = check_num(p->requests_per_sec, 0, "requests_per_sec", what, err);
    if (s == DIL_OK) s = check_num(p->requests_per_sec_bound, 0, "requests_per_sec_bound", what, err);
    if (s == DIL_OK) s = check_num(p->ratio_to_fp32, 0, "ratio_to_fp32", what, err);
    if (s == DIL_OK) s = check_num(p->predicted_damage, -SEC_MAX, "predicted_damage", what, err);
    return s;
}

static dil_status check_layer(const dil_plan_layer *l, const char *where, dil_err *err)
{
    dil_status s = dil__jsonfile_check_str(l->name, "name", where, false, DIL_NAME_MAX, err);
    if (s == DIL_OK) s = dil__jsonfile_check_str(l->node, "node", where, false, DIL_NAME_MAX, err);
    if (s == DIL_OK) s = dil__jsonfile_check_str(l->level, "level", where, false, DIL_NAME_MAX, err);
    if (s == DIL_OK && (l->bytes > BYTES_MAX || l->n_types > DIL_ROLES_MAX))
        s = dil_fail(err, DIL_ELIMIT, "%s: %llu bytes or %u types is too many", where, (unsigned long long)l->bytes, l->n_types);
    for (uint32_t i = 0; i < l->n_types && s == DIL_OK; i++) {
        s = dil__jsonfile_check_str(l->types[i].role, "types", where, false, DIL_NAME_MAX, err);
        if (s == DIL_OK) s = dil__jsonfile_check_str(l->types[i].type, "types", where, false, DIL_NAME_MAX, err);
    }
    return s;
}

static dil_status check_stages(const dil_plan *p, const char *what, dil_err *err)
{
    uint32_t next = 0;
    for (uint32_t i = 0; i < p->n_stages; i++) {
        const dil_plan_stage *g = &p->stages[i];
        char where[DIL__WHERE_MAX];
        dil__where(where, "%s: stages[%u]", what, i);
        dil_status s = dil__jsonfile_check_str(g->node, "node", where, false, DIL_NAME_MAX, err);
        if (s == DIL_OK) s = check_num(g->compute_sec, 0, "compute_sec", where, err);
        if (s == DIL_OK) s = check_num(g->hop_sec, 0, "hop_sec", where, err);
        if (s != DIL_OK) return s;
        if (g->first_layer != next || g->last_layer < g->first_layer || g->last_layer >= p->n_layers)
            return dil_fail(err, DIL_EFORMAT, "%s: layers %u to %u of %u, expected to start at %u", where, g->first_layer, g->last_layer,
                            p->n_layers, next);
        for (uint32_t l = g->first_layer; l <= g->last_layer; l++) {
            if (strcmp(p->layers[l].node, g->node) != 0)
                return dil_fail(err, DIL_EFORMAT, "%s: on \"%.80s\", but layer %u is on \"%.80s\"", where, g->node, l, p->layers[l].node);
        }
        if (i > 0 && strcmp(p->stages[i - 1].node, g->node) == 0)
            return dil_fail(err, DIL_EFORMAT, "%s: on \"%.80s\" as the stage before it: one stage must hold both", where, g->node);
        next = g->last_layer + 1;
    }
    if (next != p->n_layers) return dil_fail(err, DIL_EFORMAT, "%s: the stages end at layer %u of %u", what, next, p->n_layers);
    return DIL_OK;
}

static dil_status check(const dil_plan *p, const char *what, dil_err *err)
{
    if (p->n_layers == 0 || p->n_layers > DIL_LAYERS_MAX)
        return dil_fail(err, DIL_ELIMIT, "%s: %u layers, allowed 1 to %d", what, p->n_layers, DIL_LAYERS_MAX);
    dil_status s = check_scalars(p, what, err);
    for (uint32_t i = 0; i < p->n_layers && s == DIL_OK; i++) {
        char where[DIL__WHERE_MAX];
        dil__where(where, "%s: layers[%u]", what, i);
        s = check_layer(&p->layers[i], where, err);
    }
    if (s == DIL_OK) s = check_stages(p, what, err);
    return s == DIL_OK ? dil__plan_costs_check(p, what, err) : s;
}

static dil_status read_types(const json_t *o, const char *where, dil_plan_layer *l, dil_arena *a, dil_err *err)
{
    json_t *types;
    dil_status s = dil__json_obj(o, "types", where, &types, err);
    if (s != DIL_OK) return s;
    size_t n = json_object_size(types);
    if (n > DIL_ROLES_MAX) return dil_fail(err, DIL_ELIMIT, "%s: %zu types, at most %d", where, n, DIL_ROLES_MAX);
    l->types = dil_arena_push(a, n, sizeof *l->types);
    if (!l->types) return dil__jsonfile_nomem(where, err);
    const char *role;
    json_t *v;
    json_object_foreach (types, role, v) {
        dil_level_type *t = &l->types[l->n_types++];
        t->role = dil_arena_strdup(a, role, strlen(role));
        s = dil__jsonfile_str(types, role, where, DIL_NAME_MAX, a, &t->type, err);
        if (s != DIL_OK || !t->role) return s != DIL_OK ? s : dil__jsonfile_nomem(where, err);
    }
    return DIL_OK;
}

static dil_status read_layers(const json_t *doc, const char *what, dil_plan *p, dil_err *err)
{
    json_t *arr;
    dil_status s = dil__json_arr(doc, "layers", what, &arr, err);
    if (s != DIL_OK) return s;
    size_t n = json_array_size(arr);
    if (n > DIL_LAYERS_MAX) return dil_fail(err, DIL_ELIMIT, "%s: %zu layers, at most %d", what, n, DIL_LAYERS_MAX);
    p->layers = dil_arena_push(p->arena, n, sizeof *p->layers);
    if (!p->layers) return dil__jsonfile_nomem(what, err);
    p->n_layers = (uint32_t)n;
    for (size_t i = 0; i < n && s == DIL_OK; i++) {
        const json_t *o = json_array_get(arr, i);
        dil_plan_layer *l = &p->layers[i];
        uint32_t number;
        char where[DIL__WHERE_MAX];
        dil__where(where, "%s: layers[%zu]", what, i);
        s = dil__jsonfile_u32_or(o, "layer", where, DIL_LAYERS_MAX, (uint32_t)i, &number, err);
        if (s == DIL_OK && number != i) s = dil_fail(err, DIL_EFORMAT, "%s: \"layer\" is %u, expected %zu", where, number, i);
        if (s == DIL_OK) s = dil__jsonfile_str(o, "name", where, DIL_NAME_MAX, p->arena, &l->name, err);
        if (s == DIL_OK) s = dil__jsonfile_str(o, "node", where, DIL_NAME_MAX, p->arena, &l->node, err);
        if (s == DIL_OK) s = dil__jsonfile_str(o, "level", where, DIL_NAME_MAX, p->arena, &l->level, err);
        if (s == DIL_OK) s = dil__jsonfile_uint(o, "bytes", where, BYTES_MAX, &l->bytes, err);
        if (s == DIL_OK) s = read_types(o, where, l, p->arena, err);
    }
    return s;
}

static dil_status read_stages(const json_t *doc, const char *what, dil_plan *p, dil_err *err)
{
    json_t *arr;
    dil_status s = dil__json_arr(doc, "stages", what, &arr, err);
    if (s != DIL_OK) return s;
    size_t n = json_array_size(arr);
    if (n > DIL_LAYERS_MAX) return dil_fail(err, DIL_ELIMIT, "%s: %zu stages, at most %d", what, n, DIL_LAYERS_MAX);
    p->stages = dil_arena_push(p->arena, n, sizeof *p->stages);
    if (!p->stages) return dil__jsonfile_nomem(what, err);
    p->n_stages = (uint32_t)n;
    for (size_t i = 0; i < n && s == DIL_OK; i++) {
        const json_t *o = json_array_get(arr, i);
        dil_plan_stage *g = &p->stages[i];
        char where[DIL__WHERE_MAX];
        dil__where(where, "%s: stages[%zu]", what, i);
        s = dil__jsonfile_str(o, "node", where, DIL_NAME_MAX, p->arena, &g->node, err);
        if (s == DIL_OK) s = dil__jsonfile_u32(o, "first_layer", where, DIL_LAYERS_MAX, &g->first_layer, err);
        if (s == DIL_OK) s = dil__jsonfile_u32(o, "last_layer", where, DIL_LAYERS_MAX, &g->last_layer, err);
        if (s == DIL_OK) s = dil__jsonfile_uint_or(o, "bytes", where, BYTES_MAX, 0, &g->bytes, err);
        if (s == DIL_OK) s = dil__json_num_or(o, "compute_sec", where, 0, &g->compute_sec, err);
        if (s == DIL_OK) s = dil__json_num_or(o, "hop_sec", where, 0, &g->hop_sec, err);
    }
    return s;
}

static dil_status read_speculate(const json_t *doc, const char *what, dil_plan *p, dil_err *err)
{
    json_t *o;
    if (!json_object_get(doc, "speculate")) return DIL_OK;
    dil_status s = dil__json_obj(doc, "speculate", what, &o, err);
    if (s == DIL_OK) s = dil__jsonfile_u32(o, "guesses", what, DIL_PLAN_GUESSES_MAX, &p->n_guesses, err);
    return s == DIL_OK ? dil__json_num(o, "acceptance", what, &p->acceptance, err) : s;
}

static dil_status read_scalars(const json_t *doc, const char *what, dil_plan *p, dil_err *err)
{
    json_t *model;
    dil_arena *a = p->arena;
    dil_status s = dil__json_obj(doc, "model", what, &model, err);
    if (s == DIL_OK) s = dil__jsonfile_str_or(model, "path", what, DIL__PATH_MAX, "", a, &p->model_path, err);
    if (s == DIL_OK) s = dil__jsonfile_str_or(model, "hash", what, DIL_NAME_MAX, "", a, &p->model_hash, err);
    if (s == DIL_OK) s = dil__jsonfile_str(doc, "entry", what, DIL_NAME_MAX, a, &p->entry, err);
    if (s == DIL_OK) s = dil__jsonfile_u32(doc, "context", what, UINT32_MAX, &p->context, err);
    if (s == DIL_OK) s = dil__jsonfile_u32_or(doc, "sequences", what, UINT32_MAX, 1, &p->sequences, err);
    if (s == DIL_OK) s = dil__jsonfile_u32_or(doc, "tokens_in", what, UINT32_MAX, 0, &p->tokens_in, err);
    if (s == DIL_OK) s = dil__jsonfile_u32_or(doc, "tokens_out", what, UINT32_MAX, 0, &p->tokens_out, err);
    if (s == DIL_OK) s = read_speculate(doc, what, p, err);
    if (s == DIL_OK) s = dil__json_num(doc, "token_sec", what, &p->token_sec, err);
    if (s == DIL_OK) s = dil__json_num_or(doc, "prefill_sec", what, 0, &p->prefill_sec, err);
    if (s == DIL_OK) s = dil__json_num_or(doc, "total_sec", what, 0, &p->total_sec, err);
    if (s == DIL_OK) s = dil__json_num_or(doc, "bound_sec", what, 0, &p->bound_sec, err);
    if (s == DIL_OK) s = dil__json_num_or(doc, "gap", what, 1, &p->gap, err);
    if (s == DIL_OK) s = dil__jsonfile_str_or(doc, "solver", what, DIL_NAME_MAX, "unknown", a, &p->solver, err);
    if (s == DIL_OK) s = dil__json_num_or(doc, "solve_sec", what, 0, &p->solve_sec, err);
    if (s == DIL_OK) s = dil__json_num_or(doc, "requests_per_sec", what, 0, &p->requests_per_sec, err);
    if (s == DIL_OK) s = dil__json_num_or(doc, "requests_per_sec_bound", what, 0, &p->requests_per_sec_bound, err);
    if (s == DIL_OK) s = dil__json_num_or(doc, "ratio_to_fp32", what, 0, &p->ratio_to_fp32, err);
    if (s == DIL_OK) s = dil__json_num_or(doc, "predicted_damage", what, 0, &p->predicted_damage, err);
    if (s == DIL_OK) s = dil__jsonfile_str_or(doc, "damage_measure", what, DIL_NAME_MAX, "kl", a, &p->damage_measure, err);
    return s;
}

static dil_status read_plan(const json_t *doc, const char *what, void *object, dil_arena *a, dil_arena *tmp, dil_err *err)
{
    dil_plan *p = object;
    (void)tmp;
    p->arena = a;
    dil_status s = read_scalars(doc, what, p, err);
    if (s == DIL_OK) s = read_layers(doc, what, p, err);
    if (s == DIL_OK) s = read_stages(doc, what, p, err);
    if (s == DIL_OK) s = dil__plan_costs_read(doc, what, p, err);
    return s == DIL_OK ? check(p, what, err) : s;
}

dil_status dil_plan_parse(const char *what, const char *text, size_t len, dil_plan **out, dil_err *err)
{
    void *p = NULL;
    dil_status s = dil__jsonfile_object(what, text, len, sizeof(dil_plan), read_plan, &p, err);
    if (s == DIL_OK) *out = p;
    return s;
}

static dil_status parse_into(void *ctx, const char *what, const char *text, size_t len, dil_err *err)
{
    return dil_plan_parse(what, text, len, ctx, err);
}

dil_status dil_plan_read(const char *path, dil_plan **out, dil_err *err)
{
    return dil__jsonfile_read(path, out, parse_into, err);
}

double dil_plan_layer_bits(const dil_plan_layer *l)
{
    double sum = 0;
    uint32_t n = 0;
    for (uint32_t i = 0; i < l->n_types; i++) {
        dil_type t;
        if (!dil_type_from_name(l->types[i].type, &t)) continue;
        sum += dil_type_bits(t);
        n++;
    }
    return n ? sum / n : 0;
}

void dil_plan_free(dil_plan *p)
{
    if (p) dil_arena_free(p->arena);
}

static json_t *layer_json(const dil_plan_layer *l, uint32_t number)
{
    json_t *types = json_object();
    for (uint32_t i = 0; i < l->n_types; i++) json_object_set_new(types, l->types[i].role, json_string(l->types[i].type));
    return json_pack("{s:I, s:s, s:s, s:s, s:o, s:I}", "layer", (json_int_t)number, "name", l->name, "node", l->node, "level", l->level,
                     "types", types, "bytes", (json_int_t)l->bytes);
}

static json_t *stage_json(const dil_plan_stage *g)
{
    return json_pack("{s:s, s:I, s:I, s:I, s:f, s:f}", "node", g->node, "first_layer", (json_int_t)g->first_layer, "last_layer",
                     (json_int_t)g->last_layer, "bytes", (json_int_t)g->bytes, "compute_sec", g->compute_sec, "hop_sec", g->hop_sec);
}

static json_t *plan_json(const dil_plan *p)
{
    json_t *layers = json_array(), *stages = json_array();
    for (uint32_t i = 0; i < p->n_layers; i++) json_array_append_new(layers, layer_json(&p->layers[i], i));
    for (uint32_t i = 0; i < p->n_stages; i++) json_array_append_new(stages, stage_json(&p->stages[i]));
    return json_pack("{s:i, s:{s:s, s:s}, s:s, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:s, s:f, s:f, s:f, s:f, s:f, s:s, s:o, s:o}",
                     "version", 1, "model", "path", p->model_path, "hash", p->model_hash, "entry", p->entry,
                     "context", (json_int_t)p->context, "sequences", (json_int_t)p->sequences, "tokens_in", (json_int_t)p->tokens_in,
                     "tokens_out", (json_int_t)p->tokens_out, "token_sec", p->token_sec, "prefill_sec", p->prefill_sec,
                     "total_sec", p->total_sec, "bound_sec", p->bound_sec, "gap", p->gap, "solver", p->solver,
                     "solve_sec", p->solve_sec, "requests_per_sec", p->requests_per_sec, "requests_per_sec_bound",
                     p->requests_per_sec_bound, "ratio_to_fp32", p->ratio_to_fp32, "predicted_damage", p->predicted_damage,
                     "damage_measure", p->damage_measure, "layers", layers, "stages", stages);
}

static json_t *incumbents_json(const dil_plan *p)
{
    json_t *v = json_array();
    for (uint32_t i = 0; i < p->n_incumbents; i++)
        json_array_append_new(v, json_pack("{s:f, s:f, s:f, s:f}", "sec", p->incumbents[i].sec, "cpu_sec", p->incumbents[i].cpu_sec, "total_sec",
                                           p->incumbents[i].objective, "bound_sec", p->incumbents[i].bound));
    return v;
}

dil_status dil_plan_write(const char *path, const dil_plan *p, dil_err *err)
{
    dil_status s = check(p, path, err);
    if (s != DIL_OK) return s;
    json_t *doc = plan_json(p), *costs = p->costs ? dil__plan_costs_json(p) : NULL;
    if (doc && p->n_guesses)
        json_object_set_new(doc, "speculate", json_pack("{s:I, s:f}", "guesses", (json_int_t)p->n_guesses, "acceptance", p->acceptance));
    if (doc && p->n_incumbents) json_object_set_new(doc, "incumbents", incumbents_json(p));
    if (doc && costs) json_object_set_new(doc, "costs", costs);
    else json_decref(costs);
    if (!doc) return dil_fail(err, DIL_EFORMAT, "%s: a name is not valid UTF-8, or out of memory", path);
    s = dil__json_save(path, doc, err);
    json_decref(doc);
    return s;
}
