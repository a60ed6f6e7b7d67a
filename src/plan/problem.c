/* problem.json and what every solver requires of a problem's numbers. Numbers are written with 17 digits: a budget that is the
 * exact sum of a plan's damages must still be that after reading. */
#include <dilemma/problem.h>

#include "plan/jsonfile.h"
#include "plan/problem_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define VALUE_MAX 1e18

dil_status dil__problem_new(uint32_t n_layers, uint32_t n_nodes, uint32_t n_levels, const char *what, dil_problem **out, dil_err *err)
{
    size_t cells;
    if (n_layers == 0 || n_layers > DIL_LAYERS_MAX || n_nodes == 0 || n_nodes > DIL_NODES_MAX || n_levels == 0 || n_levels > DIL_LEVELS_MAX)
        return dil_fail(err, DIL_ELIMIT, "%s: %u layers, %u nodes, %u levels; allowed 1 to %d, %d, %d", what, n_layers, n_nodes, n_levels,
                        DIL_LAYERS_MAX, DIL_NODES_MAX, DIL_LEVELS_MAX);
    cells = (size_t)n_layers * n_nodes * n_levels; /* the three maxima fit in 64 bits by far */
    if (cells > DIL_CELLS_MAX)
        return dil_fail(err, DIL_ELIMIT, "%s: layers * nodes * levels is %zu, at most %zu", what, cells, DIL_CELLS_MAX);
    dil_arena *a = dil_arena_new(DIL__ARENA_MAX);
    dil_problem *p = a ? dil_arena_push(a, 1, sizeof *p) : NULL;
    size_t lq = (size_t)n_layers * n_levels;
    if (p) {
        *p = (dil_problem){.n_layers = n_layers, .n_nodes = n_nodes, .n_levels = n_levels, .arena = a,
                           .level_count = dil_arena_push(a, n_layers, sizeof(uint32_t)),
                           .layer_bytes = dil_arena_push(a, lq, sizeof(double)), .layer_sec = dil_arena_push(a, cells, sizeof(double)),
                           .damage = dil_arena_push(a, lq, sizeof(double)), .store_bytes = dil_arena_push(a, n_nodes, sizeof(double)),
                           .source_sec = dil_arena_push(a, n_nodes, sizeof(double)), .sink_sec = dil_arena_push(a, n_nodes, sizeof(double)),
                           .damage_max = INFINITY, .file_bytes_max = INFINITY, .load_max = INFINITY, .head_share = 1};
    }
    if (!p || !p->level_count || !p->layer_bytes || !p->layer_sec || !p->damage || !p->store_bytes || !p->source_sec || !p->sink_sec) {
        dil_arena_free(a);
        return dil__jsonfile_nomem(what, err);
    }
    *out = p;
    return DIL_OK;
}

void dil_problem_free(dil_problem *p)
{
    if (p) dil_arena_free(p->arena);
}

static dil_status bad(const char *key, size_t at, double v, dil_err *err)
{
    return dil_fail(err, DIL_EFORMAT, "problem: \"%s\", number %zu is %g, allowed 0 to %g", key, at, v, VALUE_MAX);
}

static dil_status check_values(const double *v, size_t n, bool may_be_infinite, const char *key, dil_err *err)
{
    if (!v) return DIL_OK;
    for (size_t i = 0; i < n; i++) {
        if (!(v[i] >= 0 && v[i] <= VALUE_MAX) && !(may_be_infinite && v[i] == INFINITY)) return bad(key, i, v[i], err);
    }
    return DIL_OK;
}

static dil_status check_levels(const dil_problem *p, dil_err *err)
{
    size_t Q = p->n_levels, S = p->n_nodes;
    dil_status s = DIL_OK;
    for (size_t l = 0; l < p->n_layers && s == DIL_OK; l++) {
        size_t n = p->level_count[l];
        if (n == 0 || n > Q) return dil_fail(err, DIL_EFORMAT, "problem: layer %zu has %zu levels, allowed 1 to %zu", l, n, Q);
        s = check_values(p->layer_bytes + l * Q, n, false, "layer_bytes", err);
        if (s == DIL_OK) s = check_values(p->damage + l * Q, n, false, "damage", err);
        if (s == DIL_OK && p->file_bytes) s = check_values(p->file_bytes + l * Q, n, false, "file_bytes", err);
        for (size_t node = 0; node < S && s == DIL_OK; node++) {
            size_t at = (l * S + node) * Q;
            s = check_values(p->layer_sec + at, n, false, "layer_sec", err);
            if (s == DIL_OK && p->chunk_sec) s = check_values(p->chunk_sec + at, n, false, "chunk_sec", err);
            if (s == DIL_OK && p->load) s = check_values(p->load + at, n, false, "load", err);
        }
    }
    if (s == DIL_OK && p->tied && (p->n_layers < 2 || p->level_count[0] != p->level_count[p->n_layers - 1] || !p->shared_bytes))
        s = dil_fail(err, DIL_EFORMAT, "problem: tied, but the first and last layer have %u and %u levels", p->level_count[0],
                     p->level_count[p->n_layers - 1]);
    return s;
}

static dil_status check_hops(const dil_problem *p, dil_err *err)
{
    for (uint32_t i = 0; i < p->n_hops; i++) {
        const dil_hop *h = &p->hops[i], *prev = i ? h - 1 : NULL;
        if (h->from >= p->n_nodes || h->to >= p->n_nodes || h->from == h->to)
            return dil_fail(err, DIL_EFORMAT, "problem: link %u goes from node %u to %u of %u", i, h->from, h->to, p->n_nodes);
        if (prev && (prev->from > h->from || (prev->from == h->from && prev->to >= h->to)))
            return dil_fail(err, DIL_EFORMAT, "problem: the link from node %u to %u is listed twice", h->from, h->to);
        const double v[] = {h->sec, h->head_sec, h->chunk_sec, h->load};
        dil_status s = check_values(v, 4, false, "links", err);
        if (s != DIL_OK) return s;
    }
    return DIL_OK;
}

dil_status dil_problem_validate(const dil_problem *p, dil_err *err)
{
    dil_status s = check_levels(p, err);
    if (s == DIL_OK) s = check_hops(p, err);
    if (s == DIL_OK) s = check_values(p->store_bytes, p->n_nodes, false, "store_bytes", err);
    if (s == DIL_OK) s = check_values(p->source_sec, p->n_nodes, true, "source_sec", err);
    if (s == DIL_OK) s = check_values(p->sink_sec, p->n_nodes, true, "sink_sec", err);
    if (s == DIL_OK) s = check_values(p->buffer_bytes, p->n_layers, false, "buffer_bytes", err);
    if (s == DIL_OK) s = check_values(p->out_load, p->n_nodes, false, "out_load", err);
    if (s == DIL_OK) s = check_values(p->in_load, p->n_nodes, false, "in_load", err);
    const double one[] = {p->damage_max, p->file_bytes_max, p->load_max};
    if (s == DIL_OK) s = check_values(one, 3, true, "damage_max, file_bytes_max or load_max", err);
    const double two[] = {p->chunk_weight, p->head_share};
    if (s == DIL_OK) s = check_values(two, 2, false, "chunk_weight or head_share", err);
    return s;
}

/* --- reading ------------------------------------------------------------------------------------------------------------ */

/* An array of numbers, nested `depth` deep with the lengths dim[0..depth-1], into out. null is `null_is` unless that is NaN. */
static dil_status read_nested(const json_t *v, const size_t *dim, int depth, double null_is, double **out, const char *key,
                              const char *what, dil_err *err)
{
    if (depth == 0) {
        if (json_is_null(v) && !isnan(null_is)) *(*out)++ = null_is;
        else if (json_is_number(v)) *(*out)++ = json_number_value(v);
        else return dil_fail(err, DIL_EFORMAT, "%s: \"%s\" holds something that is not a number", what, key);
        return DIL_OK;
    }
    if (!json_is_array(v) || json_array_size(v) != dim[0])
        return dil_fail(err, DIL_EFORMAT, "%s: \"%s\": an array of %zu was expected where there is one of %zu", what, key, dim[0],
                        json_array_size(v));
    for (size_t i = 0; i < dim[0]; i++) {
        dil_status s = read_nested(json_array_get(v, i), dim + 1, depth - 1, null_is, out, key, what, err);
        if (s != DIL_OK) return s;
    }
    return DIL_OK;
}

static dil_status read_array(const json_t *doc, const char *key, const char *what, const size_t *dim, int depth, double null_is, double *out,
                             dil_err *err)
{
    json_t *arr;
    dil_status s = dil__json_arr(doc, key, what, &arr, err);
    return s == DIL_OK ? read_nested(arr, dim, depth, null_is, &out, key, what, err) : s;
}

static int by_pair(const void *a, const void *b)
{
    const dil_hop *x = a, *y = b;
    if (x->from != y->from) return x->from < y->from ? -1 : 1;
    return (x->to > y->to) - (x->to < y->to);
}

static dil_status read_links(const json_t *arr, const char *what, dil_problem *p, dil_err *err)
{
    size_t n = json_array_size(arr);
    if (!json_is_array(arr)) return dil_fail(err, DIL_EFORMAT, "%s: \"links\" is not an array", what);
    if (n > DIL_LINKS_MAX) return dil_fail(err, DIL_ELIMIT, "%s: %zu links, at most %d", what, n, DIL_LINKS_MAX);
    p->hops = dil_arena_push(p->arena, n, sizeof *p->hops);
    if (!p->hops) return dil__jsonfile_nomem(what, err);
    for (size_t i = 0; i < n; i++) {
        double v[3], *at = v;
        const size_t dim[] = {3};
        dil_status s = read_nested(json_array_get(arr, i), dim, 1, NAN, &at, "links", what, err);
        if (s != DIL_OK) return s;
        if (!(v[0] >= 0 && v[0] < p->n_nodes && v[1] >= 0 && v[1] < p->n_nodes) || v[0] != floor(v[0]) || v[1] != floor(v[1]))
            return dil_fail(err, DIL_EFORMAT, "%s: links[%zu]: from node %g to %g of %u", what, i, v[0], v[1], p->n_nodes);
        p->hops[p->n_hops++] = (dil_hop){.from = (uint32_t)v[0], .to = (uint32_t)v[1], .sec = v[2], .head_sec = v[2]};
    }
    qsort(p->hops, p->n_hops, sizeof *p->hops, by_pair);
    return DIL_OK;
}

static dil_status read_matrix(const json_t *doc, const char *what, dil_problem *p, dil_err *err)
{
    size_t S = p->n_nodes, dim[] = {S, S};
    if (S * (S - 1) > DIL_LINKS_MAX)
        return dil_fail(err, DIL_ELIMIT, "%s: \"hop_sec\" of %zu nodes has more than %d links: list them as \"links\"", what, S, DIL_LINKS_MAX);
    double *v = dil_arena_push(p->arena, S * S, sizeof *v);
    p->hops = dil_arena_push(p->arena, S * S, sizeof *p->hops);
    if (!v || !p->hops) return dil__jsonfile_nomem(what, err);
    dil_status s = read_array(doc, "hop_sec", what, dim, 2, INFINITY, v, err);
    for (size_t i = 0; i < S && s == DIL_OK; i++) {
        for (size_t j = 0; j < S; j++) {
            double sec = v[i * S + j];
            if (i == j && sec != 0 && sec != INFINITY)
                return dil_fail(err, DIL_EFORMAT, "%s: \"hop_sec\"[%zu][%zu] is %g: staying on a node takes 0", what, i, j, sec);
            if (i == j || sec == INFINITY) continue;
            p->hops[p->n_hops++] = (dil_hop){.from = (uint32_t)i, .to = (uint32_t)j, .sec = sec, .head_sec = sec};
        }
    }
    return s;
}

static dil_status read_hops(const json_t *doc, const char *what, dil_problem *p, dil_err *err)
{
    const json_t *links = json_object_get(doc, "links"), *matrix = json_object_get(doc, "hop_sec");
    if (links && matrix) return dil_fail(err, DIL_EFORMAT, "%s: both \"hop_sec\" and \"links\": give one", what);
    if (links) return read_links(links, what, p, err);
    return read_matrix(doc, what, p, err);
}

static dil_status read_doc(const json_t *doc, const char *what, dil_problem **out, dil_err *err)
{
    uint32_t L, S, Q;
    dil_problem *p;
    dil_status s = dil__jsonfile_u32(doc, "n_layers", what, DIL_LAYERS_MAX, &L, err);
    if (s == DIL_OK) s = dil__jsonfile_u32(doc, "n_nodes", what, DIL_NODES_MAX, &S, err);
    if (s == DIL_OK) s = dil__jsonfile_u32(doc, "n_levels", what, DIL_LEVELS_MAX, &Q, err);
    if (s == DIL_OK) s = dil__problem_new(L, S, Q, what, &p, err);
    if (s != DIL_OK) return s;
    const size_t lq[] = {L, Q}, lsq[] = {L, S, Q}, nodes[] = {S};
    for (uint32_t l = 0; l < L; l++) p->level_count[l] = Q;
    s = read_array(doc, "layer_bytes", what, lq, 2, NAN, p->layer_bytes, err);
    if (s == DIL_OK) s = read_array(doc, "layer_sec", what, lsq, 3, NAN, p->layer_sec, err);
    if (s == DIL_OK) s = read_array(doc, "damage", what, lq, 2, NAN, p->damage, err);
    if (s == DIL_OK) s = read_array(doc, "store_bytes", what, nodes, 1, NAN, p->store_bytes, err);
    if (s == DIL_OK && json_object_get(doc, "source_sec")) s = read_array(doc, "source_sec", what, nodes, 1, INFINITY, p->source_sec, err);
    if (s == DIL_OK && json_object_get(doc, "sink_sec")) s = read_array(doc, "sink_sec", what, nodes, 1, INFINITY, p->sink_sec, err);
    if (s == DIL_OK) s = dil__json_num_or(doc, "damage_max", what, INFINITY, &p->damage_max, err);
    if (s == DIL_OK) s = read_hops(doc, what, p, err);
    if (s == DIL_OK) s = dil_problem_validate(p, err);
    if (s == DIL_OK) *out = p;
    else dil_problem_free(p);
    return s;
}

dil_status dil_problem_parse(const char *what, const char *text, size_t len, dil_problem **out, dil_err *err)
{
    json_t *doc;
    dil_status s = dil__jsonfile_parse(what, text, len, false, &doc, err);
    if (s != DIL_OK) return s;
    s = read_doc(doc, what, out, err);
    json_decref(doc);
    return s;
}

static dil_status parse_into(void *ctx, const char *what, const char *text, size_t len, dil_err *err)
{
    return dil_problem_parse(what, text, len, ctx, err);
}

dil_status dil_problem_read(const char *path, dil_problem **out, dil_err *err)
{
    return dil__jsonfile_read(path, out, parse_into, err);
}

/* --- writing ------------------------------------------------------------------------------------------------------------ */

static void write_nums(FILE *f, const double *v, size_t n)
{
    fputc('[', f);
    for (size_t i = 0; i < n; i++) {
        if (isfinite(v[i])) fprintf(f, "%s%.17g", i ? ", " : "", v[i]);
        else fprintf(f, "%snull", i ? ", " : "");
    }
    fputc(']', f);
}

static void write_rows(FILE *f, const char *key, const double *v, size_t rows, size_t cols)
{
    fprintf(f, ",\n \"%s\": [", key);
    for (size_t i = 0; i < rows; i++) {
        if (i) fputs(",\n  ", f);
        write_nums(f, v + i * cols, cols);
    }
    fputc(']', f);
}

static void write_layer_sec(FILE *f, const dil_problem *p)
{
    size_t S = p->n_nodes, Q = p->n_levels;
    fputs(",\n \"layer_sec\": [", f);
    for (size_t l = 0; l < p->n_layers; l++) {
        fputs(l ? ",\n  [" : "[", f);
        for (size_t s = 0; s < S; s++) {
            if (s) fputs(", ", f);
            write_nums(f, p->layer_sec + (l * S + s) * Q, Q);
        }
        fputc(']', f);
    }
    fputc(']', f);
}

dil_status dil_problem_write(const char *path, const dil_problem *p, dil_err *err)
{
    bool bare = !p->file_bytes && isinf(p->file_bytes_max) && !p->buffer_bytes && !p->tied && p->chunk_weight == 0 && !p->load && isinf(p->load_max);
    for (uint32_t l = 0; l < p->n_layers; l++) bare = bare && p->level_count[l] == p->n_levels;
    if (!bare) return dil_fail(err, DIL_EUNSUPPORTED, "%s: problem.json holds bare problems only; this one has more: export it as .lp", path);
    dil_outfile o;
    dil_status s = dil_outfile_open(&o, path, err);
    if (s != DIL_OK) return s;
    FILE *f = o.stream;
    fprintf(f, "{\"n_layers\": %u, \"n_nodes\": %u, \"n_levels\": %u", p->n_layers, p->n_nodes, p->n_levels);
    write_rows(f, "layer_bytes", p->layer_bytes, p->n_layers, p->n_levels);
    write_layer_sec(f, p);
    write_rows(f, "damage", p->damage, p->n_layers, p->n_levels);
    fputs(",\n \"store_bytes\": ", f);
    write_nums(f, p->store_bytes, p->n_nodes);
    if (isfinite(p->damage_max)) fprintf(f, ",\n \"damage_max\": %.17g", p->damage_max);
    fputs(",\n \"source_sec\": ", f);
    write_nums(f, p->source_sec, p->n_nodes);
    fputs(",\n \"sink_sec\": ", f);
    write_nums(f, p->sink_sec, p->n_nodes);
    fputs(",\n \"links\": [", f);
    for (uint32_t i = 0; i < p->n_hops; i++) fprintf(f, "%s[%u, %u, %.17g]", i ? ", " : "", p->hops[i].from, p->hops[i].to, p->hops[i].sec);
    fputs("]}\n", f);
    if (ferror(f)) {
        s = dil_fail_errno(err, "%s: writing", path);
        dil_outfile_abort(&o);
        return s;
    }
    return dil_outfile_commit(&o, err);
}
