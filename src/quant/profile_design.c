/* The levels of each kind of layer. A block's are found from the damage of each tensor at each type, taken as the local error of a few
 * blocks spread over the model; embedding and head have one large tensor each, and get one level a type. */
#include "quant/codec.h"
#include "quant/profiler.h"
#include "quant/recode.h"

#include <stdlib.h>
#include <string.h>

enum { SAMPLED_BLOCKS = 4 };

/* What is worth trying in a block. Where a row takes 256-wide blocks these crowd out the 32-wide ones. IQ2_S is left out: it errs as
 * much as Q2_K, which is made 30 times as fast, and saves 0.06 bits. With error feedback the types that have none (IQ3_S, IQ3_XXS) lie above the line between
 * Q3_K and Q2_K and take most of the time; IQ2_XS stays as the smallest. */
static const dil_type narrow_types[] = {DIL_TYPE_Q8_0, DIL_TYPE_Q5_1, DIL_TYPE_Q5_0, DIL_TYPE_Q4_1, DIL_TYPE_IQ4_NL, DIL_TYPE_Q4_0,
                                        DIL_TYPE_MXFP4, DIL_TYPE_Q2_0};
static const dil_type wide_types[] = {DIL_TYPE_Q8_0, DIL_TYPE_Q6_K, DIL_TYPE_Q5_K, DIL_TYPE_Q4_K, DIL_TYPE_IQ4_NL, DIL_TYPE_Q4_0,
                                      DIL_TYPE_IQ4_XS, DIL_TYPE_Q3_K, DIL_TYPE_IQ3_S, DIL_TYPE_IQ3_XXS, DIL_TYPE_Q2_K, DIL_TYPE_IQ2_XS};
static const dil_type table_types[] = {DIL_TYPE_Q8_0, DIL_TYPE_Q6_K, DIL_TYPE_Q5_K, DIL_TYPE_Q5_0, DIL_TYPE_Q4_1, DIL_TYPE_Q4_K,
                                       DIL_TYPE_IQ4_NL, DIL_TYPE_Q4_0, DIL_TYPE_IQ4_XS, DIL_TYPE_MXFP4, DIL_TYPE_Q3_K, DIL_TYPE_Q2_K};
static const double ladder[] = {16, 8.5, 6.6, 5.75, 5.25, 5.0, 4.75, 4.5, 4.35, 4.2, 4.05, 3.9, 3.75, 3.5, 3.2, 2.8};
static const dil_type uniform[] = {DIL_TYPE_Q8_0, DIL_TYPE_IQ4_NL, DIL_TYPE_Q4_0};

#define N_OF(a) (sizeof(a) / sizeof((a)[0]))

static void init_kind(dil__profiler *p, dil__kind *k, uint32_t layer)
{
    k->layer = layer;
    k->n_tensors = dil_arch_layer_tensors(&p->arch, layer, k->tensor);
    for (size_t i = 0; i < k->n_tensors; i++)
        if (k->tensor[i].linear && k->n_roles < DIL__LEVEL_ROLES) k->role[k->n_roles++] = i;
}

static dil_type given_type(const dil__profiler *p, const char *name)
{
    return dil_weights_find(&p->weights, name)->type;
}

static double bytes_of(const dil_layer_tensor *t, dil_type type)
{
    uint64_t row = 0;
    dil_type_row_bytes(type, t->ne[0], &row);
    return (double)row * (double)t->ne[1];
}

/* --- blocks ------------------------------------------------------------------------------------------------------------ */

static void list_types(const dil__profiler *p, const dil_layer_tensor *t, dil__role_choice *c)
{
    bool wide = dil_type_fits_row(DIL_TYPE_Q4_K, t->ne[0]);
    const dil_type *types = wide ? wide_types : narrow_types;
    size_t n = wide ? N_OF(wide_types) : N_OF(narrow_types);
    dil_type given = given_type(p, t->name);
    bool seen = false;
    for (size_t i = 0; i < n; i++) {
        if (!dil_type_fits_row(types[i], t->ne[0]) || (p->feedback && types[i] != DIL_TYPE_IQ2_XS && !dil__codec_get(types[i]))) continue;
        c->type[c->n++] = types[i];
        seen |= types[i] == given;
    }
    if (!seen) c->type[c->n++] = given;
    for (size_t i = 0; i < c->n; i++) c->bytes[i] = bytes_of(t, c->type[i]);
    c->elems = (double)t->ne[0] * (double)t->ne[1];
}

/* The local error of one tensor of one block at one type. */
static dil_status tensor_damage(dil__profiler *p, uint32_t layer, const dil_layer_tensor *lt, dil_type type, double *out, dil_err *err)
{
    const char *tensor = lt->name;
    char key[DIL__JOURNAL_KEY];
    snprintf(key, sizeof key, "design:%s:%s", tensor, dil_type_get(type)->name);
    if (type == given_type(p, tensor)) {
        *out = 0;
        return DIL_OK;
    }
    if (dil__journal_get(p->journal, key, out, 1)) return DIL_OK;
    dil__variant v;
    dil__variant_init(&v, &p->weights);
    dil_weights w = dil__variant_weights(&v);
    dil__link *s = NULL;
    dil_status st = dil__profiler_recode(p, layer, lt, type, &v, err);
    if (st == DIL_OK) st = dil__chain_link(p->chain, layer, &w, &s, err);
    if (st == DIL_OK) st = dil__chain_local(p->chain, layer, s, out, err);
    if (st == DIL_OK) st = dil__journal_put(p->journal, key, out, 1, err);
    dil__link_close(s);
    dil__variant_fini(&v);
    return st;
}

static dil_status design_blocks(dil__profiler *p, dil_err *err)
{
    dil__kind *k = &p->kind[DIL__BLOCK];
    dil__role_choice *c = calloc(k->n_roles, sizeof *c);
    if (!c) return dil_fail(err, DIL_EMEMORY, "out of memory");
    for (size_t r = 0; r < k->n_roles; r++) list_types(p, &k->tensor[k->role[r]], &c[r]);
    uint32_t n = p->arch.n_blocks < SAMPLED_BLOCKS ? p->arch.n_blocks : SAMPLED_BLOCKS;
    dil_status st = DIL_OK;
    for (uint32_t b = 0; b < n && st == DIL_OK; b++) {
        uint32_t layer = 1 + (uint32_t)((2 * b + 1) * (uint64_t)p->arch.n_blocks / (2 * n));
        dil_layer_tensor t[DIL_LAYER_TENSORS_MAX];
        dil_arch_layer_tensors(&p->arch, layer, t);
        for (size_t r = 0; r < k->n_roles && st == DIL_OK; r++) {
            if (!dil_progress_step(p->progress, "finding levels", (double)(b * k->n_roles + r), (double)(n * k->n_roles)))
                st = dil_fail(err, DIL_ECANCELED, "canceled; what is measured is kept, and --resume (up and demo by themselves) goes on from it");
            for (size_t i = 0; i < c[r].n && st == DIL_OK; i++) {
                double d;
                st = tensor_damage(p, layer, &t[k->role[r]], c[r].type[i], &d, err);
                if (st == DIL_OK) c[r].damage[i] += d / n;
            }
        }
    }
    dil_progress_step(p->progress, "finding levels", 1, 1);
    if (st == DIL_OK) {
        k->n_levels = dil__levels_design(c, k->n_roles, ladder, N_OF(ladder), uniform, N_OF(uniform), k->level, DIL__LEVELS_MAX);
        if (k->n_levels == 0) st = dil_fail(err, DIL_EMEMORY, "out of memory for the levels");
    }
    free(c);
    return st;
}

/* --- embedding and head -------------------------------------------------------------------------------------------------- */

/* The projections beside a narrow table are under a hundredth of the model and feed every layer: eight bits. */
static void table_level(const dil__profiler *p, const dil__kind *k, dil_type type, bool given, dil__level *l)
{
    memset(l, 0, sizeof *l);
    double bytes = 0, elems = 0;
    for (size_t r = 0; r < k->n_roles; r++) {
        const dil_layer_tensor *t = &k->tensor[k->role[r]];
        bool table = strcmp(t->role, "token_embd") == 0 || strcmp(t->role, "output") == 0;
        l->type[r] = given ? given_type(p, t->name) : dil__recode_fit(table ? type : DIL_TYPE_Q8_0, t->ne[0]);
        bytes += bytes_of(t, l->type[r]);
        elems += (double)t->ne[0] * (double)t->ne[1];
    }
    l->bits = 8 * bytes / elems;
    snprintf(l->name, sizeof l->name, "%s", dil_type_get(type)->name);
}

static const dil_layer_tensor *table_of(const dil__kind *k)
{
    for (size_t r = 0; r < k->n_roles; r++) {
        const dil_layer_tensor *t = &k->tensor[k->role[r]];
        if (strcmp(t->role, "token_embd") == 0 || strcmp(t->role, "output") == 0) return t;
    }
    return &k->tensor[k->role[0]];
}

static void design_table(dil__profiler *p, dil__kind *k)
{
    const dil_layer_tensor *t = table_of(k);
    dil_type given = given_type(p, t->name);
    table_level(p, k, given, true, &k->level[k->n_levels++]);
    for (size_t i = 0; i < N_OF(table_types); i++)
        if (table_types[i] != given && dil_type_fits_row(table_types[i], t->ne[0]))
            table_level(p, k, table_types[i], false, &k->level[k->n_levels++]);
}

dil_status dil__profiler_design(dil__profiler *p, dil_err *err)
{
    init_kind(p, &p->kind[DIL__EMBEDDING], 0);
    init_kind(p, &p->kind[DIL__BLOCK], 1);
    init_kind(p, &p->kind[DIL__HEAD], p->n_layers - 1);
    design_table(p, &p->kind[DIL__EMBEDDING]);
    design_table(p, &p->kind[DIL__HEAD]);
    return design_blocks(p, err);
}
