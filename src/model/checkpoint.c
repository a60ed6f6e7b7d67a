/* Finding a checkpoint's files, and one sorted table of all their tensors. */
#include "model/checkpoint.h"

#include "base/json.h"

#include <stdlib.h>
#include <string.h>

enum { ARENA_MAX = 512 << 20 };

dil_status dil__ckpt_init(dil__ckpt *c, dil_err *err)
{
    *c = (dil__ckpt){.arena = dil_arena_new(ARENA_MAX)};
    return c->arena ? DIL_OK : dil_fail(err, DIL_EMEMORY, "no memory for a checkpoint");
}

void dil__ckpt_close(dil__ckpt *c)
{
    for (size_t i = 0; i < c->n_maps; i++) dil_map_close(&c->map[i]);
    free(c->map);
    free(c->tensor);
    dil_arena_free(c->arena);
    *c = (dil__ckpt){0};
}

char *dil__ckpt_path(dil_arena *arena, const char *dir, const char *name)
{
    size_t n = strlen(dir), m = strlen(name);
    char *p = dil_arena_push(arena, n + m + 2, 1);
    if (!p) return NULL;
    memcpy(p, dir, n);
    p[n] = '/';
    memcpy(p + n + 1, name, m);
    return p;
}

dil_status dil__ckpt_add(dil__ckpt *c, const dil__ckpt_tensor *t, dil_err *err)
{
    if (c->n >= DIL__CKPT_TENSORS_MAX) return dil_fail(err, DIL_ELIMIT, "%s: more than %d tensors", t->file, DIL__CKPT_TENSORS_MAX);
    if (c->n == c->cap) {
        size_t cap = c->cap ? c->cap * 2 : 256;
        dil__ckpt_tensor *p = realloc(c->tensor, cap * sizeof *p);
        if (!p) return dil_fail(err, DIL_EMEMORY, "%s: no memory for %zu tensors", t->file, cap);
        c->tensor = p;
        c->cap = cap;
    }
    dil__ckpt_tensor *own = &c->tensor[c->n];
    *own = *t;
    own->name = dil_arena_strdup(c->arena, t->name, strlen(t->name));
    if (!own->name) return dil_fail(err, DIL_ELIMIT, "%s: the names of its tensors take more than %d bytes", t->file, ARENA_MAX);
    for (uint32_t d = t->n_dims; d < 4; d++) own->shape[d] = 1;
    c->n++;
    return DIL_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const dil__ckpt_tensor *)a)->name, ((const dil__ckpt_tensor *)b)->name);
}

dil_status dil__ckpt_sort(dil__ckpt *c, dil_err *err)
{
    if (c->n) qsort(c->tensor, c->n, sizeof *c->tensor, by_name);
    for (size_t i = 1; i < c->n; i++) {
        if (strcmp(c->tensor[i - 1].name, c->tensor[i].name) == 0)
            return dil_fail(err, DIL_EFORMAT, "tensor %.100s appears twice: in %s and in %s", c->tensor[i].name, c->tensor[i - 1].file, c->tensor[i].file);
    }
    return DIL_OK;
}

dil__ckpt_tensor *dil__ckpt_find(const dil__ckpt *c, const char *name)
{
    dil__ckpt_tensor probe = {.name = name};
    return c->n ? bsearch(&probe, c->tensor, c->n, sizeof *c->tensor, by_name) : NULL;
}

/* --- files --------------------------------------------------------------------------------------------------------- */

typedef dil_status add_fn(dil__ckpt *c, const char *file, const uint8_t *data, size_t len, dil_err *err);

static dil_status add_file(dil__ckpt *c, const char *path, add_fn *add, dil_err *err)
{
    dil_map *maps = realloc(c->map, (c->n_maps + 1) * sizeof *maps);
    if (!maps) return dil_fail(err, DIL_EMEMORY, "%s: no memory", path);
    c->map = maps;
    dil_status s = dil_map_open(path, &c->map[c->n_maps], err);
    if (s != DIL_OK) return s;
    const dil_map *m = &c->map[c->n_maps++];
    return add(c, path, m->data, m->len, err);
}

/* A shard's name comes from outside and must stay in the folder. */
static dil_status check_shard_name(const char *index, const char *name, dil_err *err)
{
    if (name[0] && name[0] != '.' && !strchr(name, '/') && strlen(name) <= 255) return DIL_OK;
    return dil_fail(err, DIL_EFORMAT, "%s: \"%.80s\" is no name of a file beside it", index, name);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The distinct file names of weight_map, sorted. */
static dil_status list_shards(const char *index, json_t *map, const char **name, size_t *n, dil_err *err)
{
    const char *key;
    json_t *v;
    size_t all = 0, kept = 0;
    json_object_foreach(map, key, v)
    {
        if (!json_is_string(v)) return dil_fail(err, DIL_EFORMAT, "%s: the file of \"%.80s\" is not a string", index, key);
        dil_status s = check_shard_name(index, json_string_value(v), err);
        if (s != DIL_OK) return s;
        name[all++] = json_string_value(v);
    }
    qsort(name, all, sizeof *name, by_text);
    for (size_t i = 0; i < all; i++) {
        if (kept == 0 || strcmp(name[kept - 1], name[i]) != 0) name[kept++] = name[i];
    }
    if (kept == 0 || kept > DIL__CKPT_FILES_MAX)
        return dil_fail(err, DIL_ELIMIT, "%s: %zu files, allowed 1 to %d", index, kept, DIL__CKPT_FILES_MAX);
    *n = kept;
    return DIL_OK;
}

static dil_status check_map(const dil__ckpt *c, const char *index, json_t *map, dil_err *err)
{
    const char *key;
    json_t *v;
    json_object_foreach(map, key, v)
    {
        const dil__ckpt_tensor *t = dil__ckpt_find(c, key);
        const char *base = t ? strrchr(t->file, '/') : NULL;
        if (!base || strcmp(base + 1, json_string_value(v)) != 0)
            return dil_fail(err, DIL_EFORMAT, "%s: tensor %.80s is not in %.80s", index, key, json_string_value(v));
    }
    return DIL_OK;
}

static dil_status add_shards(dil__ckpt *c, const char *dir, const char *index, json_t *map, add_fn *add, dil_err *err)
{
    size_t n = json_object_size(map);
    if (n > DIL__CKPT_TENSORS_MAX) return dil_fail(err, DIL_ELIMIT, "%s: %zu tensors, the limit is %d", index, n, DIL__CKPT_TENSORS_MAX);
    const char **name = dil_arena_push(c->arena, n, sizeof *name);
    if (!name) return dil_fail(err, DIL_EMEMORY, "%s: no memory", index);
    dil_status s = list_shards(index, map, name, &n, err);
    for (size_t i = 0; s == DIL_OK && i < n; i++) {
        const char *path = dil__ckpt_path(c->arena, dir, name[i]);
        s = path ? add_file(c, path, add, err) : dil_fail(err, DIL_EMEMORY, "%s: no memory", index);
    }
    if (s == DIL_OK) s = dil__ckpt_sort(c, err);
    return s == DIL_OK ? check_map(c, index, map, err) : s;
}

static dil_status add_sharded(dil__ckpt *c, const char *dir, const char *index, add_fn *add, dil_err *err)
{
    json_t *doc = NULL, *map = NULL;
    dil_status s = dil__json_load(index, DIL__CKPT_HEADER_MAX, &doc, err);
    if (s == DIL_OK) s = dil__json_obj(doc, "weight_map", index, &map, err);
    if (s == DIL_OK) s = add_shards(c, dir, index, map, add, err);
    json_decref(doc);
    return s;
}

static const struct {
    const char *name;
    bool sharded;
    add_fn *add;
} layouts[] = {
    {"model.safetensors.index.json", true, dil__ckpt_add_safetensors},
    {"model.safetensors", false, dil__ckpt_add_safetensors},
    {"pytorch_model.bin.index.json", true, dil__ckpt_add_pytorch},
    {"pytorch_model.bin", false, dil__ckpt_add_pytorch},
};

static dil_status find_and_add(dil__ckpt *c, const char *dir, dil_err *err)
{
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++) {
        const char *path = dil__ckpt_path(c->arena, dir, layouts[i].name);
        if (!path) return dil_fail(err, DIL_EMEMORY, "%s: no memory", dir);
        if (!dil_file_exists(path)) continue;
        if (layouts[i].sharded) return add_sharded(c, dir, path, layouts[i].add, err);
        dil_status s = add_file(c, path, layouts[i].add, err);
        return s == DIL_OK ? dil__ckpt_sort(c, err) : s;
    }
    return dil_fail(err, DIL_ENOTFOUND, "%s: no weights: neither model.safetensors nor pytorch_model.bin, nor their .index.json", dir);
}

dil_status dil__ckpt_open(const char *dir, dil__ckpt *out, dil_err *err)
{
    dil__ckpt c;
    dil_status s = dil__ckpt_init(&c, err);
    if (s != DIL_OK) return s;
    s = find_and_add(&c, dir, err);
    if (s == DIL_OK) *out = c;
    else dil__ckpt_close(&c);
    return s;
}
