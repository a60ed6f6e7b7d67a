/* profile.json: one set of checks for what was read and for what a caller wants written. */
#include <dilemma/profile.h>

#include "plan/jsonfile.h"

#include <math.h>
#include <string.h>

#define BYTES_MAX ((uint64_t)1 << 60)
#define SEC_MAX 1e6
#define DAMAGE_MAX 1e12
#define BITS_MAX 64.0

static dil_status check_secs(const double *v, uint32_t n, const char *key, const char *where, dil_err *err)
{
    if (!v) return dil_fail(err, DIL_EUSAGE, "%s: \"%s\" is not set", where, key);
    for (uint32_t i = 0; i < n; i++) {
        if (!(v[i] >= 0 && v[i] <= SEC_MAX))
            return dil_fail(err, DIL_EFORMAT, "%s: \"%s\"[%u] is %g, allowed 0 to %g seconds", where, key, i, v[i], SEC_MAX);
    }
    return DIL_OK;
}

static dil_status check_damage(double v, const char *key, const char *where, dil_err *err)
{
    if (isnan(v) || fabs(v) <= DAMAGE_MAX) return DIL_OK;
    return dil_fail(err, DIL_EFORMAT, "%s: damage \"%s\" is %g, beyond %g", where, key, v, DAMAGE_MAX);
}

static dil_status check_level(const dil_profile *p, const dil_profile_level *q, const char *where, dil_err *err)
{
    dil_status s = dil__jsonfile_check_str(q->name, "name", where, false, DIL_NAME_MAX, err);
    if (s == DIL_OK && q->n_types > DIL_ROLES_MAX)
        s = dil_fail(err, DIL_ELIMIT, "%s: %u types, at most %d", where, q->n_types, DIL_ROLES_MAX);
    for (uint32_t i = 0; i < q->n_types && s == DIL_OK; i++) {
        s = dil__jsonfile_check_str(q->types[i].role, "types", where, false, DIL_NAME_MAX, err);
        if (s == DIL_OK) s = dil__jsonfile_check_str(q->types[i].type, "types", where, false, DIL_NAME_MAX, err);
    }
    if (s == DIL_OK && (q->bytes > BYTES_MAX || q->shared_bytes > q->bytes))
        s = dil_fail(err, DIL_EFORMAT, "%s: \"bytes\" above 2^60, or \"shared_bytes\" above \"bytes\"", where);
    if (s == DIL_OK) s = check_damage(q->damage_weight, "weight", where, err);
    if (s == DIL_OK) s = check_damage(q->damage_kl, "kl", where, err);
    if (s == DIL_OK) s = check_damage(q->damage_alone, "alone", where, err);
    if (s == DIL_OK) s = check_damage(q->damage_run, "run", where, err);
    if (s == DIL_OK && !isnan(q->bits) && !(q->bits >= 0 && q->bits <= BITS_MAX)) s = dil_fail(err, DIL_EFORMAT, "%s: \"bits\" is %g", where, q->bits);
    if (s == DIL_OK) s = check_secs(q->decode_sec, p->n_nodes, "decode_sec", where, err);
    if (s == DIL_OK) s = check_secs(q->prefill_sec, p->n_nodes, "prefill_sec", where, err);
    if (s == DIL_OK && q->pass_sec) s = check_secs(q->pass_sec, DIL_PROFILE_PASSES * p->n_nodes, "pass_sec", where, err);
    return s;
}

static dil_status check_layer(const dil_profile *p, const dil_profile_layer *l, const char *where, dil_err *err)
{
    dil_status s = dil__jsonfile_check_str(l->name, "name", where, false, DIL_NAME_MAX, err);
    if (s != DIL_OK) return s;
    if (l->n_levels == 0 || l->n_levels > DIL_LEVELS_MAX)
        return dil_fail(err, DIL_ELIMIT, "%s: %u levels, allowed 1 to %d", where, l->n_levels, DIL_LEVELS_MAX);
    if (l->kv_bytes > BYTES_MAX || l->buffer_bytes > BYTES_MAX)
        return dil_fail(err, DIL_EFORMAT, "%s: \"kv_bytes\" or \"buffer_bytes\" above 2^60", where);
    if (l->decode_sec_per_cached) s = check_secs(l->decode_sec_per_cached, p->n_nodes, "decode_sec_per_cached", where, err);
    for (uint32_t i = 0; i < l->n_levels && s == DIL_OK; i++) {
        char at[DIL__WHERE_MAX];
        dil__where(at, "%s: levels[%u]", where, i);
        s = check_level(p, &l->levels[i], at, err);
        for (uint32_t j = 0; j < i && s == DIL_OK; j++) {
            if (strcmp(l->levels[i].name, l->levels[j].name) == 0)
                s = dil_fail(err, DIL_EFORMAT, "%s: the level name \"%s\" occurs twice", where, l->levels[i].name);
        }
    }
    return s;
}

static dil_status check_tied(const dil_profile *p, const char *what, dil_err *err)
{
    const dil_profile_layer *first = &p->layers[0], *last = &p->layers[p->n_layers - 1];
    bool same = first->n_levels == last->n_levels;
    for (uint32_t i = 0; same && i < first->n_levels; i++) same = strcmp(first->levels[i].name, last->levels[i].name) == 0;
    return same ? DIL_OK : dil_fail(err, DIL_EFORMAT, "%s: the head is tied, but its levels are not the embedding's (%u and %u levels)",
                                    what, last->n_levels, first->n_levels);
}

static dil_status check_students(const dil_profile *p, const char *what, dil_err *err)
{
    dil_status s = p->method ? dil__jsonfile_check_str(p->method, "method", what, true, DIL_NAME_MAX, err) : DIL_OK;
    if (s == DIL_OK && p->alone_method) s = dil__jsonfile_check_str(p->alone_method, "alone_method", what, true, DIL_NAME_MAX, err);
    if (s == DIL_OK && p->n_students > DIL_STUDENTS_MAX) s = dil_fail(err, DIL_ELIMIT, "%s: %u students, at most %d", what, p->n_students, DIL_STUDENTS_MAX);
    for (uint32_t i = 0; i < p->n_students && s == DIL_OK; i++) {
        const dil_profile_student *t = &p->students[i];
        s = dil__jsonfile_check_str(t->method, "method", what, false, DIL_NAME_MAX, err);
        if (s == DIL_OK && !(t->bits > 0 && t->bits <= BITS_MAX && t->alone > 0 && t->alone <= DAMAGE_MAX && t->run >= 0 && t->run <= DAMAGE_MAX && t->kl > 0 && t->kl <= DAMAGE_MAX))
            s = dil_fail(err, DIL_EFORMAT, "%s: students[%u]: bits %g, alone %g, kl %g: all are above 0", what, i, t->bits, t->alone, t->kl);
    }
    return s;
}

static dil_status check_model(const dil_profile *p, const char *what, dil_err *err)
{
    dil_status s = dil__jsonfile_check_str(p->model_path, "path", what, true, DIL__PATH_MAX, err);
    if (s == DIL_OK) s = dil__jsonfile_check_str(p->model_hash, "hash", what, true, DIL_NAME_MAX, err);
    if (s == DIL_OK) s = dil__jsonfile_check_str(p->arch, "arch", what, true, DIL_NAME_MAX, err);
    if (s == DIL_OK) s = dil__jsonfile_check_str(p->data_path, "data.path", what, true, DIL__PATH_MAX, err);
    if (s != DIL_OK) return s;
    if (p->n_layers < 2 || p->n_layers > DIL_LAYERS_MAX || p->n_layers != p->n_blocks + 2)
        return dil_fail(err, DIL_EFORMAT, "%s: %u layers for %u blocks, expected blocks + 2, at most %d", what, p->n_layers, p->n_blocks,
                        DIL_LAYERS_MAX);
    if (p->n_params == 0 || p->n_params > BYTES_MAX || p->hidden_bytes == 0 || p->hidden_bytes > BYTES_MAX)
        return dil_fail(err, DIL_EFORMAT, "%s: model: \"n_params\" or \"hidden_bytes\" is 0 or above 2^60", what);
    if (p->sequences == 0 || p->batch == 0 || p->context == 0)
        return dil_fail(err, DIL_EFORMAT, "%s: \"context\", \"sequences\" or \"batch\" is 0", what);
    if (!isnan(p->baseline_loss) && !(fabs(p->baseline_loss) <= 1e9))
        return dil_fail(err, DIL_EFORMAT, "%s: baseline: \"loss\" is %g", what, p->baseline_loss);
    if (!isnan(p->kl_to_loss_slope) && !(p->kl_to_loss_slope > 0 && p->kl_to_loss_slope <= 1e9))
        return dil_fail(err, DIL_EFORMAT, "%s: kl_to_loss: \"slope\" is %g, expected above 0", what, p->kl_to_loss_slope);
    return DIL_OK;
}

static dil_status check_nodes(const dil_profile *p, const char *what, dil_arena *tmp, dil_err *err)
{
    if (p->n_nodes == 0 || p->n_nodes > DIL_NODES_MAX)
        return dil_fail(err, DIL_ELIMIT, "%s: %u nodes, allowed 1 to %d", what, p->n_nodes, DIL_NODES_MAX);
    for (uint32_t i = 0; i < p->n_nodes; i++) {
        dil_status s = dil__jsonfile_check_str(p->nodes[i], "nodes", what, false, DIL_NAME_MAX, err);
        if (s != DIL_OK) return s;
    }
    dil__names names;
    return dil__names_init(&names, p->nodes, p->n_nodes, what, tmp, err);
}

static dil_status check(const dil_profile *p, const char *what, dil_err *err)
{
    dil_arena *tmp = dil_arena_new(DIL__ARENA_MAX);
    if (!tmp) return dil__jsonfile_nomem(what, err);
    dil_status s = check_model(p, what, err);
    if (s == DIL_OK) s = check_nodes(p, what, tmp, err);
    if (s == DIL_OK) s = check_students(p, what, err);
    dil_arena_free(tmp);
    for (uint32_t i = 0; i < p->n_layers && s == DIL_OK; i++) {
        char where[DIL__WHERE_MAX];
        dil__where(where, "%s: layers[%u]", what, i);
        s = check_layer(p, &p->layers[i], where, err);
    }
    if (s == DIL_OK && p->tied_head) s = check_tied(p, what, err);
    return s;
}

static dil_status read_types(const json_t *o, const char *where, dil_profile_level *q, dil_arena *a, dil_err *err)
{
    json_t *types;
    dil_status s = dil__json_obj(o, "types", where, &types, err);
    if (s != DIL_OK) return s;
    if (json_object_size(types) > DIL_ROLES_MAX)
        return dil_fail(err, DIL_ELIMIT, "%s: %zu types, at most %d", where, json_object_size(types), DIL_ROLES_MAX);
    q->types = dil_arena_push(a, json_object_size(types), sizeof *q->types);
    if (!q->types) return dil__jsonfile_nomem(where, err);
    const char *role;
    json_t *v;
    json_object_foreach (types, role, v) {
        dil_level_type *t = &q->types[q->n_types++];
        t->role = dil_arena_strdup(a, role, strlen(role));
        s = dil__jsonfile_str(types, role, where, DIL_NAME_MAX, a, &t->type, err);
        if (s != DIL_OK || !t->role) return s != DIL_OK ? s : dil__jsonfile_nomem(where, err);
    }
    return DIL_OK;
}

static dil_status read_damage(const json_t *o, const char *where, dil_profile_level *q, dil_err *err)
{
    json_t *damage;
    dil_status s = dil__json_obj(o, "damage", where, &damage, err);
    if (s == DIL_OK) s = dil__json_num_or(damage, "weight", where, NAN, &q->damage_weight, err);
    if (s == DIL_OK) s = dil__json_num_or(damage, "kl", where, NAN, &q->damage_kl, err);
    if (s == DIL_OK) s = dil__json_num_or(damage, "alone", where, NAN, &q->damage_alone, err);
    if (s == DIL_OK) s = dil__json_num_or(damage, "run", where, NAN, &q->damage_run, err);
    return s;
}

static dil_status read_passes(const json_t *o, const char *where, uint32_t n_nodes, dil_profile_level *q, dil_arena *a, dil_err *err)
{
    json_t *passes;
    const json_t *given = json_object_get(o, "pass_sec");
    if (!given || json_is_null(given)) return DIL_OK;
    dil_status s = dil__json_obj(o, "pass_sec", where, &passes, err);
    if (s != DIL_OK) return s;
    q->pass_sec = dil_arena_push(a, (size_t)DIL_PROFILE_PASSES * n_nodes, sizeof *q->pass_sec);
    if (!q->pass_sec) return dil__jsonfile_nomem(where, err);
    char at[DIL__WHERE_MAX];
    dil__where(at, "%s: pass_sec", where);
    for (uint32_t i = 0; i < DIL_PROFILE_PASSES && s == DIL_OK; i++) {
        char key[16];
        double *sec;
        snprintf(key, sizeof key, "%u", dil_profile_pass_rows(i));
        s = dil__jsonfile_nums(passes, key, at, n_nodes, 0, SEC_MAX, a, &sec, err);
        if (s == DIL_OK) memcpy(q->pass_sec + (size_t)i * n_nodes, sec, n_nodes * sizeof *sec);
    }
    return s;
}

static dil_status read_level(const json_t *o, const char *where, uint32_t n_nodes, dil_profile_level *q, dil_arena *a, dil_err *err)
{
    dil_status s = dil__jsonfile_str(o, "name", where, DIL_NAME_MAX, a, &q->name, err);
    if (s == DIL_OK) s = read_types(o, where, q, a, err);
    if (s == DIL_OK) s = dil__jsonfile_uint(o, "bytes", where, BYTES_MAX, &q->bytes, err);
    if (s == DIL_OK) s = dil__jsonfile_uint_or(o, "shared_bytes", where, BYTES_MAX, 0, &q->shared_bytes, err);
    if (s == DIL_OK) s = dil__json_num_or(o, "bits", where, NAN, &q->bits, err);
    if (s == DIL_OK) s = read_damage(o, where, q, err);
    if (s == DIL_OK) s = dil__jsonfile_nums(o, "decode_sec", where, n_nodes, 0, SEC_MAX, a, &q->decode_sec, err);
    if (s == DIL_OK) s = dil__jsonfile_nums(o, "prefill_sec", where, n_nodes, 0, SEC_MAX, a, &q->prefill_sec, err);
    if (s == DIL_OK) s = read_passes(o, where, n_nodes, q, a, err);
    return s;
}

static dil_status read_layer(const json_t *o, const char *where, uint32_t n_nodes, dil_profile_layer *l, dil_arena *a, dil_err *err)
{
    json_t *levels;
    dil_status s = dil__jsonfile_str(o, "name", where, DIL_NAME_MAX, a, &l->name, err);
    if (s == DIL_OK) s = dil__jsonfile_uint_or(o, "kv_bytes", where, BYTES_MAX, 0, &l->kv_bytes, err);
    if (s == DIL_OK) s = dil__jsonfile_uint_or(o, "buffer_bytes", where, BYTES_MAX, 0, &l->buffer_bytes, err);
    const json_t *slope = json_object_get(o, "decode_sec_per_cached");
    if (s == DIL_OK && slope && !json_is_null(slope))
        s = dil__jsonfile_nums(o, "decode_sec_per_cached", where, n_nodes, 0, SEC_MAX, a, &l->decode_sec_per_cached, err);
    if (s == DIL_OK) s = dil__json_arr(o, "levels", where, &levels, err);
    if (s != DIL_OK) return s;
    size_t n = json_array_size(levels);
    if (n == 0 || n > DIL_LEVELS_MAX) return dil_fail(err, DIL_ELIMIT, "%s: %zu levels, allowed 1 to %d", where, n, DIL_LEVELS_MAX);
    l->levels = dil_arena_push(a, n, sizeof *l->levels);
    if (!l->levels) return dil__jsonfile_nomem(where, err);
    l->n_levels = (uint32_t)n;
    for (size_t i = 0; i < n && s == DIL_OK; i++) {
        char at[DIL__WHERE_MAX];
        dil__where(at, "%s: levels[%zu]", where, i);
        s = read_level(json_array_get(levels, i), at, n_nodes, &l->levels[i], a, err);
    }
    return s;
}

static dil_status read_layers(const json_t *doc, const char *what, dil_profile *p, dil_err *err)
{
    json_t *layers;
    dil_status s = dil__json_arr(doc, "layers", what, &layers, err);
    if (s != DIL_OK) return s;
    size_t n = json_array_size(layers);
    if (n > DIL_LAYERS_MAX) return dil_fail(err, DIL_ELIMIT, "%s: %zu layers, at most %d", what, n, DIL_LAYERS_MAX);
    p->layers = dil_arena_push(p->arena, n, sizeof *p->layers);
    if (!p->layers) return dil__jsonfile_nomem(what, err);
    p->n_layers = (uint32_t)n;
    for (size_t i = 0; i < n && s == DIL_OK; i++) {
        char where[DIL__WHERE_MAX];
        dil__where(where, "%s: layers[%zu]", what, i);
        s = read_layer(json_array_get(layers, i), where, p->n_nodes, &p->layers[i], p->arena, err);
    }
    return s;
}

static dil_status read_node_names(const json_t *doc, const char *what, dil_profile *p, dil_err *err)
{
    json_t *arr;
    dil_status s = dil__json_arr(doc, "nodes", what, &arr, err);
    if (s != DIL_OK) return s;
    size_t n = json_array_size(arr);
    if (n > DIL_NODES_MAX) return dil_fail(err, DIL_ELIMIT, "%s: %zu nodes, at most %d", what, n, DIL_NODES_MAX);
    p->nodes = dil_arena_push(p->arena, n, sizeof *p->nodes);
    if (!p->nodes) return dil__jsonfile_nomem(what, err);
    p->n_nodes = (uint32_t)n;
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(arr, i);
        if (!json_is_string(v)) return dil_fail(err, DIL_EFORMAT, "%s: \"nodes\"[%zu] is not a string", what, i);
        p->nodes[i] = dil_arena_strdup(p->arena, json_string_value(v), json_string_length(v));
        if (!p->nodes[i]) return dil__jsonfile_nomem(what, err);
    }
    return DIL_OK;
}

static dil_status read_model(const json_t *doc, const char *what, dil_profile *p, dil_err *err)
{
    json_t *m;
    char where[DIL__WHERE_MAX];
    dil__where(where, "%s: model", what);
    dil_status s = dil__json_obj(doc, "model", what, &m, err);
    if (s == DIL_OK) s = dil__jsonfile_str_or(m, "path", where, DIL__PATH_MAX, "", p->arena, &p->model_path, err);
    if (s == DIL_OK) s = dil__jsonfile_str_or(m, "hash", where, DIL_NAME_MAX, "", p->arena, &p->model_hash, err);
    if (s == DIL_OK) s = dil__jsonfile_str_or(m, "arch", where, DIL_NAME_MAX, "", p->arena, &p->arch, err);
    if (s == DIL_OK) s = dil__jsonfile_u32(m, "n_blocks", where, DIL_LAYERS_MAX, &p->n_blocks, err);
    if (s == DIL_OK) s = dil__jsonfile_uint(m, "n_params", where, BYTES_MAX, &p->n_params, err);
    if (s == DIL_OK) s = dil__json_bool_or(m, "tied_head", where, false, &p->tied_head, err);
    if (s == DIL_OK) s = dil__jsonfile_uint(m, "hidden_bytes", where, BYTES_MAX, &p->hidden_bytes, err);
    if (s == DIL_OK) s = dil__jsonfile_u32_or(m, "n_vocab", where, UINT32_MAX, 0, &p->n_vocab, err);
    return s;
}

static dil_status read_scalars(const json_t *doc, const char *what, dil_profile *p, dil_err *err)
{
    json_t *data = json_object_get(doc, "data"), *base = json_object_get(doc, "baseline"), *map = json_object_get(doc, "kl_to_loss");
    p->data_path = "";
    p->baseline_loss = p->kl_to_loss_slope = NAN;
    dil_status s = dil__jsonfile_u32(doc, "context", what, UINT32_MAX, &p->context, err);
    if (s == DIL_OK) s = dil__jsonfile_u32_or(doc, "sequences", what, UINT32_MAX, 1, &p->sequences, err);
    if (s == DIL_OK) s = dil__jsonfile_u32_or(doc, "batch", what, UINT32_MAX, 512, &p->batch, err);
    if (s == DIL_OK) s = dil__jsonfile_u32_or(doc, "n_past", what, UINT32_MAX, 0, &p->n_past, err);
    if (s == DIL_OK && json_is_object(data)) {
        s = dil__jsonfile_str_or(data, "path", what, DIL__PATH_MAX, "", p->arena, &p->data_path, err);
        if (s == DIL_OK) s = dil__jsonfile_uint_or(data, "tokens", what, BYTES_MAX, 0, &p->data_tokens, err);
        if (s == DIL_OK) s = dil__jsonfile_uint_or(data, "held_from", what, BYTES_MAX, 0, &p->held_from, err);
        if (s == DIL_OK) s = dil__jsonfile_uint_or(data, "held_to", what, BYTES_MAX, 0, &p->held_to, err);
        if (s == DIL_OK && p->held_to < p->held_from) s = dil_fail(err, DIL_EFORMAT, "%s: data: \"held_to\" is before \"held_from\"", what);
    }
    if (s == DIL_OK && json_is_object(base)) {
        s = dil__json_num_or(base, "loss", what, NAN, &p->baseline_loss, err);
        if (s == DIL_OK) s = dil__jsonfile_uint_or(base, "tokens", what, BYTES_MAX, 0, &p->baseline_tokens, err);
    }
    if (s == DIL_OK && json_is_object(map)) {
        s = dil__json_num_or(map, "slope", what, NAN, &p->kl_to_loss_slope, err);
        if (s == DIL_OK) s = dil__jsonfile_u32_or(map, "points", what, UINT32_MAX, 0, &p->kl_to_loss_points, err);
    }
    return s;
}

static dil_status read_students(const json_t *doc, const char *what, dil_profile *p, dil_err *err)
{
    const json_t *list = json_object_get(doc, "students");
    dil_status s = dil__jsonfile_str_or(doc, "method", what, DIL_NAME_MAX, "", p->arena, &p->method, err);
    if (s == DIL_OK) s = dil__jsonfile_str_or(doc, "alone_method", what, DIL_NAME_MAX, "", p->arena, &p->alone_method, err);
    p->students = dil_arena_push(p->arena, DIL_STUDENTS_MAX, sizeof *p->students); /* room for those to come */
    if (!p->students) return dil__jsonfile_nomem(what, err);
    if (s != DIL_OK || !list || json_is_null(list)) return s;
    if (!json_is_array(list)) return dil_fail(err, DIL_EFORMAT, "%s: \"students\" is no list", what);
    size_t n = json_array_size(list);
    if (n > DIL_STUDENTS_MAX) return dil_fail(err, DIL_ELIMIT, "%s: %zu students, at most %d", what, n, DIL_STUDENTS_MAX);
    p->n_students = (uint32_t)n;
    for (size_t i = 0; i < n && s == DIL_OK; i++) {
        char where[DIL__WHERE_MAX];
        const json_t *o = json_array_get(list, i);
        dil_profile_student *t = &p->students[i];
        dil__where(where, "%s: students[%zu]", what, i);
        s = dil__jsonfile_str(o, "method", where, DIL_NAME_MAX, p->arena, &t->method, err);
        if (s == DIL_OK) s = dil__json_num_or(o, "bits", where, NAN, &t->bits, err);
        if (s == DIL_OK) s = dil__json_num_or(o, "alone", where, NAN, &t->alone, err);
        if (s == DIL_OK) s = dil__json_num_or(o, "run", where, 0, &t->run, err);
        if (s == DIL_OK) s = dil__json_num_or(o, "kl", where, NAN, &t->kl, err);
        if (s == DIL_OK) s = dil__json_num_or(o, "kl_stderr", where, NAN, &t->kl_stderr, err);
        if (s == DIL_OK) s = dil__jsonfile_uint_or(o, "tokens", where, BYTES_MAX, 0, &t->tokens, err);
    }
    return s;
}

static dil_status read_profile(const json_t *doc, const char *what, void *object, dil_arena *a, dil_arena *tmp, dil_err *err)
{
    dil_profile *p = object;
    (void)tmp;
    p->arena = a;
    dil_status s = read_model(doc, what, p, err);
    if (s == DIL_OK) s = read_scalars(doc, what, p, err);
    if (s == DIL_OK) s = read_students(doc, what, p, err);
    if (s == DIL_OK) s = read_node_names(doc, what, p, err);
    if (s == DIL_OK) s = read_layers(doc, what, p, err);
    return s == DIL_OK ? check(p, what, err) : s;
}

dil_status dil_profile_parse(const char *what, const char *text, size_t len, dil_profile **out, dil_err *err)
{
    void *p = NULL;
    dil_status s = dil__jsonfile_object(what, text, len, sizeof(dil_profile), read_profile, &p, err);
    if (s == DIL_OK) *out = p;
    return s;
}

static dil_status parse_into(void *ctx, const char *what, const char *text, size_t len, dil_err *err)
{
    return dil_profile_parse(what, text, len, ctx, err);
}

dil_status dil_profile_read(const char *path, dil_profile **out, dil_err *err)
{
    return dil__jsonfile_read(path, out, parse_into, err);
}

void dil_profile_free(dil_profile *p)
{
    if (p) dil_arena_free(p->arena);
}

static json_t *nums_json(const double *v, uint32_t n)
{
    json_t *arr = json_array();
    for (uint32_t i = 0; i < n; i++) json_array_append_new(arr, json_real(v[i]));
    return arr;
}

double dil_profile_more_sec(const dil_profile_level *v, uint32_t n_nodes, uint32_t node, uint32_t rows)
{
    if (!v->pass_sec) return (rows - 1) * v->prefill_sec[node];
    double low = v->decode_sec[node], high = low;
    uint32_t from = 1, to = 1;
    for (uint32_t i = 0; i < DIL_PROFILE_PASSES && to < rows; i++) {
        low = high, from = to;
        high = v->pass_sec[(size_t)i * n_nodes + node], to = dil_profile_pass_rows(i);
    }
    double pass = to > from ? low + (high - low) * (rows - from) / (to - from) : low;
    return pass > v->decode_sec[node] ? pass - v->decode_sec[node] : 0;
}

static json_t *level_json(const dil_profile *p, const dil_profile_level *q)
{
    json_t *types = json_object();
    for (uint32_t i = 0; i < q->n_types; i++) json_object_set_new(types, q->types[i].role, json_string(q->types[i].type));
    json_t *o = json_pack("{s:s, s:o, s:I}", "name", q->name, "types", types, "bytes", (json_int_t)q->bytes);
    if (q->shared_bytes) json_object_set_new(o, "shared_bytes", json_integer((json_int_t)q->shared_bytes));
    if (q->bits > 0) json_object_set_new(o, "bits", json_real(q->bits));
    json_object_set_new(o, "damage", json_pack("{s:o, s:o, s:o, s:o}", "weight", dil__json_real_or_null(q->damage_weight), "alone",
                                               dil__json_real_or_null(q->damage_alone), "run", dil__json_real_or_null(q->damage_run), "kl", dil__json_real_or_null(q->damage_kl)));
    json_object_set_new(o, "decode_sec", nums_json(q->decode_sec, p->n_nodes));
    json_object_set_new(o, "prefill_sec", nums_json(q->prefill_sec, p->n_nodes));
    if (!q->pass_sec) return o;
    json_t *passes = json_object();
    for (uint32_t i = 0; i < DIL_PROFILE_PASSES; i++) {
        char key[16];
        snprintf(key, sizeof key, "%u", dil_profile_pass_rows(i));
        json_object_set_new(passes, key, nums_json(q->pass_sec + (size_t)i * p->n_nodes, p->n_nodes));
    }
    json_object_set_new(o, "pass_sec", passes);
    return o;
}

static json_t *layer_json(const dil_profile *p, const dil_profile_layer *l)
{
    json_t *levels = json_array();
    for (uint32_t i = 0; i < l->n_levels; i++) json_array_append_new(levels, level_json(p, &l->levels[i]));
    json_t *o = json_pack("{s:s, s:I, s:I}", "name", l->name, "kv_bytes", (json_int_t)l->kv_bytes, "buffer_bytes",
                          (json_int_t)l->buffer_bytes);
    if (l->decode_sec_per_cached) json_object_set_new(o, "decode_sec_per_cached", nums_json(l->decode_sec_per_cached, p->n_nodes));
    json_object_set_new(o, "levels", levels);
    return o;
}

static json_t *student_json(const dil_profile_student *t)
{
    return json_pack("{s:s, s:f, s:f, s:f, s:f, s:o, s:I}", "method", t->method, "bits", t->bits, "alone", t->alone, "run", t->run, "kl", t->kl, "kl_stderr",
                     dil__json_real_or_null(t->kl_stderr), "tokens", (json_int_t)t->tokens);
}

static json_t *profile_json(const dil_profile *p)
{
    json_t *nodes = json_array(), *layers = json_array();
    for (uint32_t i = 0; i < p->n_nodes; i++) json_array_append_new(nodes, json_string(p->nodes[i]));
    for (uint32_t i = 0; i < p->n_layers; i++) json_array_append_new(layers, layer_json(p, &p->layers[i]));
    json_t *model = json_pack("{s:s, s:s, s:s, s:I, s:I, s:b, s:I, s:I}", "path", p->model_path, "hash", p->model_hash, "arch", p->arch,
                              "n_blocks", (json_int_t)p->n_blocks, "n_params", (json_int_t)p->n_params, "tied_head", p->tied_head,
                              "hidden_bytes", (json_int_t)p->hidden_bytes, "n_vocab", (json_int_t)p->n_vocab);
    json_t *data = json_pack("{s:o, s:I, s:I, s:I}", "path", p->data_path[0] ? json_string(p->data_path) : json_null(), "tokens",
                             (json_int_t)p->data_tokens, "held_from", (json_int_t)p->held_from, "held_to", (json_int_t)p->held_to);
    json_t *students = json_array();
    for (uint32_t i = 0; i < p->n_students; i++) json_array_append_new(students, student_json(&p->students[i]));
    return json_pack("{s:i, s:o, s:o, s:s, s:s, s:o, s:I, s:I, s:I, s:I, s:o, s:o, s:{s:o, s:I}, s:{s:o, s:I}}", "version", 1, "model", model, "data",
                     data, "method", p->method ? p->method : "", "alone_method", p->alone_method ? p->alone_method : "", "students", students, "context", (json_int_t)p->context, "sequences", (json_int_t)p->sequences, "batch", (json_int_t)p->batch,
                     "n_past", (json_int_t)p->n_past, "nodes", nodes, "layers", layers, "baseline", "loss",
                     dil__json_real_or_null(p->baseline_loss), "tokens", (json_int_t)p->baseline_tokens, "kl_to_loss", "slope",
                     dil__json_real_or_null(p->kl_to_loss_slope), "points", (json_int_t)p->kl_to_loss_points);
}

dil_status dil_profile_write(const char *path, const dil_profile *p, dil_err *err)
{
    dil_status s = check(p, path, err);
    if (s != DIL_OK) return s;
    json_t *doc = profile_json(p);
    if (!doc) return dil_fail(err, DIL_EFORMAT, "%s: a name is not valid UTF-8, or out of memory", path);
    s = dil__json_save(path, doc, err);
    json_decref(doc);
    return s;
}
