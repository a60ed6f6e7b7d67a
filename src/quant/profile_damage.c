/* Damage. A block's level is judged by its local error (the hidden state behind the block, relative), which costs one layer's
 * pass; two levels of each block go through the rest of the model for the measured divergence, and the others are read off the
 * line through these two in the logarithms of error and divergence. Measuring all of them the same way (--full) takes about four
 * times as long. Embedding and head are measured at every level. */
#include "quant/profiler.h"
#include "quant/codec.h"
#include "quant/recode.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

dil__kind *dil__profiler_kind(dil__profiler *p, uint32_t layer)
{
    return &p->kind[layer == 0 ? DIL__EMBEDDING : layer + 1 == p->n_layers ? DIL__HEAD : DIL__BLOCK];
}

int dil__profiler_threads(const dil__profiler *p)
{
    return p->o->n_threads ? p->o->n_threads : dil_cpu_count();
}

static dil_status factor_of(dil__profiler *p, uint32_t layer, const char *role, const float **u, dil_err *err)
{
    dil_status st = DIL_OK;
    if (!p->inputs)
        st = dil__inputs_open(&p->arch, &p->weights, dil__chain_decoder(p->chain), dil__profiler_threads(p), p->calib.id, p->o->n_ctx, (uint32_t)(p->calib.n / p->o->n_ctx), &p->inputs, err);
    return st == DIL_OK ? dil__inputs_factor(p->inputs, layer, role, u, err) : st;
}

dil_status dil__profiler_recode(dil__profiler *p, uint32_t layer, const dil_layer_tensor *lt, dil_type type, dil__variant *v, dil_err *err)
{
    const char *tensor = lt->name;
    const dil_tensor *t = dil_weights_find(&p->weights, tensor);
    dil_weights now = dil__variant_weights(v);
    if (dil_weights_find(&now, tensor)->type == type) return DIL_OK; /* as given, or made already for a tied head */
    void *data;
    uint64_t bytes;
    const float *u = NULL;
    dil_status st = p->feedback && dil__codec_get(type) ? factor_of(p, layer, lt->role, &u, err) : DIL_OK;
    if (st != DIL_OK) return st;
    st = dil__recode_tensor(t, type, dil__imatrix_row(p->imatrix, tensor, t->ne[0]), u, dil__profiler_threads(p), &data, &bytes, err);
    return st == DIL_OK ? dil__variant_put(v, t, type, data, bytes, err) : st;
}

dil_status dil__profiler_level(dil__profiler *p, uint32_t layer, size_t level, dil__variant *v, dil_err *err)
{
    const dil__kind *k = dil__profiler_kind(p, layer);
    dil_layer_tensor t[DIL_LAYER_TENSORS_MAX];
    dil_arch_layer_tensors(&p->arch, layer, t);
    dil_status st = DIL_OK;
    for (size_t r = 0; r < k->n_roles && st == DIL_OK; r++) st = dil__profiler_recode(p, layer, &t[k->role[r]], k->level[level].type[r], v, err);
    return st;
}

/* Σ over the tensors of |W - Ŵ|² / |W|², of what v replaces in the layer. */
static dil_status weight_damage(dil__profiler *p, uint32_t layer, const dil_weights *w, double *out, dil_err *err)
{
    const dil__kind *k = dil__profiler_kind(p, layer);
    dil_layer_tensor t[DIL_LAYER_TENSORS_MAX];
    dil_arch_layer_tensors(&p->arch, layer, t);
    *out = 0;
    for (size_t r = 0; r < k->n_roles; r++) {
        const dil_tensor *src = dil_weights_find(&p->weights, t[k->role[r]].name), *dst = dil_weights_find(w, src->name);
        if (dst->data == src->data) continue;
        double e, n;
        dil_status st = dil__recode_error(src, dst->type, dst->data, &e, &n, err);
        if (st != DIL_OK) return st;
        *out += n > 0 ? e / n : 0;
    }
    return DIL_OK;
}

/* --- blocks ---------------------------------------------------------------------------------------------------------------- */

enum { LOCAL, WEIGHT, KL, PER_LEVEL }; /* a level's figures in the journal; KL -1: not measured */

/* A tensor at a type is needed by several levels of a block: each is made once. */
typedef struct made { dil__variant v[DIL__LEVEL_ROLES * DIL__LEVEL_TYPES]; size_t role[DIL__LEVEL_ROLES * DIL__LEVEL_TYPES];
                      dil_type type[DIL__LEVEL_ROLES * DIL__LEVEL_TYPES]; size_t n; } made;

typedef struct view { const dil_weights *base; const dil_tensor *t[DIL__LEVEL_ROLES]; size_t n; } view;

static const dil_tensor *view_find(void *ctx, const char *name)
{
    const view *v = ctx;
    for (size_t i = 0; i < v->n; i++)
        if (strcmp(v->t[i]->name, name) == 0) return v->t[i];
    return dil_weights_find(v->base, name);
}

static dil_status make(dil__profiler *p, made *m, uint32_t layer, size_t role, const dil_layer_tensor *lt, dil_type type, const dil_tensor **out, dil_err *err)
{
    size_t i = 0;
    while (i < m->n && (m->role[i] != role || m->type[i] != type)) i++;
    if (i == m->n) {
        dil__variant_init(&m->v[i], &p->weights);
        m->role[i] = role;
        m->type[i] = type;
        m->n++;
        dil_status st = dil__profiler_recode(p, layer, lt, type, &m->v[i], err);
        if (st != DIL_OK) return st;
    }
    *out = m->v[i].n ? &m->v[i].t[0] : dil_weights_find(&p->weights, lt->name);
    return DIL_OK;
}

static dil_status view_level(dil__profiler *p, uint32_t layer, size_t level, made *m, view *v, dil_err *err)
{
    const dil__kind *k = &p->kind[DIL__BLOCK];
    dil_layer_tensor t[DIL_LAYER_TENSORS_MAX];
    dil_arch_layer_tensors(&p->arch, layer, t);
    *v = (view){.base = &p->weights, .n = k->n_roles};
    dil_status st = DIL_OK;
    for (size_t r = 0; r < k->n_roles && st == DIL_OK; r++)
        st = make(p, m, layer, r, &t[k->role[r]], k->level[level].type[r], &v->t[r], err);
    return st;
}

static bool is_given(const dil__profiler *p, const view *v)
{
    for (size_t i = 0; i < v->n; i++)
        if (v->t[i]->data != dil_weights_find(&p->weights, v->t[i]->name)->data) return false;
    return true;
}

static dil_status measure_level(dil__profiler *p, uint32_t layer, size_t level, bool with_kl, made *m, double *f, dil_err *err)
{
    view v;
    f[LOCAL] = f[WEIGHT] = 0;
    f[KL] = with_kl ? 0 : -1;
    dil_status st = view_level(p, layer, level, m, &v, err);
    if (st != DIL_OK) return st;
    if (is_given(p, &v)) {
        f[KL] = 0;
        return DIL_OK;
    }
    dil_weights w = {.find = view_find, .ctx = &v};
    dil__link *s = NULL;
    dil__effect e = {.kl = -1};
    st = weight_damage(p, layer, &w, &f[WEIGHT], err);
    if (st == DIL_OK) st = dil__chain_link(p->chain, layer, &w, &s, err);
    if (st == DIL_OK) st = dil__chain_local(p->chain, layer, s, &f[LOCAL], err);
    if (st == DIL_OK && with_kl) st = dil__chain_effect(p->chain, layer, s, layer, s, &e, err);
    if (st == DIL_OK && with_kl) f[KL] = e.kl > 0 ? e.kl : 0;
    dil__link_close(s);
    return st;
}

static size_t nearest_level(const dil__kind *k, double bits)
{
    size_t best = 0;
    for (size_t i = 1; i < k->n_levels; i++)
        if (fabs(k->level[i].bits - bits) < fabs(k->level[best].bits - bits)) best = i;
    return best;
}

static const double check_bits[DIL__CHECKS] = {4.5, 4.1, 3.5};

/* Keeps the bytes of a level that a whole model will be made of. */
static dil_status keep_for_checks(dil__profiler *p, uint32_t layer, size_t level, made *m, dil_err *err)
{
    for (size_t i = 0; i < DIL__CHECKS; i++) {
        if (nearest_level(&p->kind[DIL__BLOCK], check_bits[i]) != level) continue;
        view v;
        dil_status st = view_level(p, layer, level, m, &v, err);
        for (size_t r = 0; r < v.n && st == DIL_OK; r++) {
            const dil_tensor *t = v.t[r], *src = dil_weights_find(&p->weights, t->name);
            if (t == src) continue;
            void *copy = malloc(t->bytes);
            if (!copy) return dil_fail(err, DIL_EMEMORY, "%s: out of memory", t->name);
            memcpy(copy, t->data, t->bytes);
            st = dil__variant_put(&p->check_weights[i][layer], src, t->type, copy, t->bytes, err);
        }
        if (st != DIL_OK) return st;
    }
    return DIL_OK;
}

static dil_status report_block(dil__profiler *p, double done, dil_err *err)
{
    if (dil_progress_step(p->progress, "damage of the blocks", done, p->arch.n_blocks)) return DIL_OK;
    return dil_fail(err, DIL_ECANCELED, "canceled after %.0f of %u blocks; what is measured is kept, and --resume (up and demo by themselves) goes on from it",
                    floor(done), p->arch.n_blocks);
}

static dil_status measure_block(dil__profiler *p, uint32_t layer, double *f, dil_err *err)
{
    const dil__kind *k = &p->kind[DIL__BLOCK];
    size_t a = nearest_level(k, 4.5), b = nearest_level(k, 3.5);
    made *m = calloc(1, sizeof *m);
    if (!m) return dil_fail(err, DIL_EMEMORY, "out of memory");
    dil_status st = DIL_OK;
    for (size_t q = 0; q < k->n_levels && st == DIL_OK; q++) {
        st = report_block(p, layer - 1 + (double)q / (double)k->n_levels, err);
        if (st == DIL_OK) st = measure_level(p, layer, q, p->o->full || q == a || q == b, m, f + q * PER_LEVEL, err);
        if (st == DIL_OK) st = keep_for_checks(p, layer, q, m, err);
    }
    for (size_t i = 0; i < m->n; i++) dil__variant_fini(&m->v[i]);
    free(m);
    return st;
}

/* ln KL as a line in ln error through two measured points; beyond them, and with one point only, KL in proportion to the error. */
static double read_off(double d, double d1, double kl1, double d2, double kl2)
{
    if (d <= 0) return 0;
    if (!(d1 > 0 && kl1 > 0)) return d2 > 0 && kl2 > 0 ? kl2 * d / d2 : 0;
    if (!(d2 > 0 && kl2 > 0) || d2 <= d1 * 1.05) return kl1 * d / d1;
    if (d < d1) return kl1 * d / d1;
    double slope = log(kl2 / kl1) / log(d2 / d1);
    if (slope < 0.5) slope = 0.5;
    if (slope > 2) slope = 2;
    return d <= d2 ? kl1 * pow(d / d1, slope) : kl2 * d / d2;
}

static void fill_block(dil__profiler *p, uint32_t layer, const double *f)
{
    const dil__kind *k = &p->kind[DIL__BLOCK];
    size_t a = nearest_level(k, 4.5), b = nearest_level(k, 3.5);
    for (size_t q = 0; q < k->n_levels; q++) {
        const double *x = f + q * PER_LEVEL, *xa = f + a * PER_LEVEL, *xb = f + b * PER_LEVEL;
        size_t at = (size_t)layer * DIL__LEVELS_MAX + q;
        p->weight[at] = x[WEIGHT];
        p->kl[at] = x[KL] >= 0 ? x[KL] : read_off(x[LOCAL], xa[LOCAL], xa[KL], xb[LOCAL], xb[KL]);
        if (x[KL] >= 0) p->n_measured++;
        else p->n_interpolated++;
    }
}

static dil_status all_blocks(dil__profiler *p, dil_err *err)
{
    const dil__kind *k = &p->kind[DIL__BLOCK];
    double *f = calloc(DIL__LEVELS_MAX * PER_LEVEL, sizeof *f);
    if (!f) return dil_fail(err, DIL_EMEMORY, "out of memory");
    dil_status st = DIL_OK;
    for (uint32_t b = 0; b < p->arch.n_blocks && st == DIL_OK; b++) {
        char key[DIL__JOURNAL_KEY];
        snprintf(key, sizeof key, "blk.%u:%s", b, p->o->full ? "full" : "two");
        st = report_block(p, b, err);
        if (st != DIL_OK) break;
        if (!dil__journal_get(p->journal, key, f, k->n_levels * PER_LEVEL)) {
            st = measure_block(p, b + 1, f, err);
            if (st == DIL_OK) st = dil__journal_put(p->journal, key, f, k->n_levels * PER_LEVEL, err);
        }
        if (st == DIL_OK) fill_block(p, b + 1, f);
    }
    dil_progress_step(p->progress, "damage of the blocks", p->arch.n_blocks, p->arch.n_blocks);
    free(f);
    return st;
}

/* --- embedding and head -------------------------------------------------------------------------------------------------------- */

static dil_status measure_table(dil__profiler *p, uint32_t layer, size_t level, double f[2], dil_err *err)
{
    uint32_t head = p->n_layers - 1, from = layer, to = p->arch.tied_head ? head : layer;
    dil__variant v;
    dil__variant_init(&v, &p->weights);
    dil_weights w = dil__variant_weights(&v);
    dil__link *a = NULL, *b = NULL;
    dil__effect e = {0};
    f[0] = f[1] = 0;
    dil_status st = dil__profiler_level(p, from, level, &v, err);
    if (st == DIL_OK && to != from) st = dil__profiler_level(p, to, level, &v, err);
    if (st == DIL_OK && v.n > 0) {
        st = weight_damage(p, layer, &w, &f[1], err);
        if (st == DIL_OK) st = dil__chain_link(p->chain, from, &w, &a, err);
        if (st == DIL_OK && to != from) st = dil__chain_link(p->chain, to, &w, &b, err);
        if (st == DIL_OK) st = dil__chain_effect(p->chain, from, a, to, to != from ? b : a, &e, err);
        f[0] = e.kl > 0 ? e.kl : 0;
    }
    dil__link_close(a);
    dil__link_close(b);
    dil__variant_fini(&v);
    return st;
}

static dil_status all_tables(dil__profiler *p, dil_err *err)
{
    uint32_t head = p->n_layers - 1;
    for (uint32_t layer = 0; layer <= head; layer += head) {
        const dil__kind *k = dil__profiler_kind(p, layer);
        for (size_t q = 0; q < k->n_levels; q++) {
            size_t at = (size_t)layer * DIL__LEVELS_MAX + q;
            if (layer == head && p->arch.tied_head) {
                p->kl[at] = p->kl[q];
                p->weight[at] = p->weight[q];
                continue;
            }
            char key[DIL__JOURNAL_KEY];
            double f[2];
            snprintf(key, sizeof key, "%s:%s", layer ? "head" : "embedding", k->level[q].name);
            if (!dil_progress_step(p->progress, layer ? "damage of the head" : "damage of the embedding", (double)q, (double)k->n_levels))
                return dil_fail(err, DIL_ECANCELED, "canceled; what is measured is kept, and --resume (up and demo by themselves) goes on from it");
            if (!dil__journal_get(p->journal, key, f, 2)) {
                dil_status st = measure_table(p, layer, q, f, err);
                if (st == DIL_OK) st = dil__journal_put(p->journal, key, f, 2, err);
                if (st != DIL_OK) return st;
            }
            p->kl[at] = f[0];
            p->weight[at] = f[1];
            p->n_measured++;
        }
        dil_progress_step(p->progress, layer ? "damage of the head" : "damage of the embedding", 1, 1);
    }
    return DIL_OK;
}

/* --- whole models: are the layers' figures additive, and what does a nat of divergence cost in loss? -------------------------------- */

static dil_status open_whole(dil__profiler *p, const size_t level[DIL__KINDS], dil__variant *v, dil__link **link, dil_err *err)
{
    for (uint32_t l = 0; l < p->n_layers; l++) {
        dil__variant *of = l + 1 == p->n_layers && p->arch.tied_head ? &v[0] : &v[l];
        dil_weights w = dil__variant_weights(of);
        dil_status st = dil__profiler_level(p, l, level[dil__profiler_kind(p, l) - p->kind], of, err);
        if (st == DIL_OK) st = dil__chain_link(p->chain, l, &w, &link[l], err);
        if (st != DIL_OK) return st;
        if (!dil_progress_step(p->progress, "checking whole models", l, p->n_layers))
            return dil_fail(err, DIL_ECANCELED, "canceled; what is measured is kept, and --resume (up and demo by themselves) goes on from it");
    }
    return DIL_OK;
}

/* f: the sum of the layers' divergences, the measured one, the increase of the loss. */
static dil_status check_level(dil__profiler *p, size_t check, double f[3], dil_err *err)
{
    size_t level[DIL__KINDS];
    for (size_t i = 0; i < DIL__KINDS; i++) level[i] = nearest_level(&p->kind[i], check_bits[check]);
    f[0] = 0;
    for (uint32_t l = 0; l < p->n_layers; l++) {
        if (l + 1 == p->n_layers && p->arch.tied_head) continue; /* counted with the embedding */
        f[0] += p->kl[(size_t)l * DIL__LEVELS_MAX + level[dil__profiler_kind(p, l) - p->kind]];
    }
    dil__link **link = calloc(p->n_layers, sizeof *link);
    if (!link) return dil_fail(err, DIL_EMEMORY, "out of memory");
    dil__effect e;
    dil_status st = open_whole(p, level, p->check_weights[check], link, err);
    if (st == DIL_OK) st = dil__chain_effect_all(p->chain, link, &e, err);
    for (uint32_t l = 0; l < p->n_layers; l++) dil__link_close(link[l]);
    free(link);
    if (st != DIL_OK) return st;
    f[1] = e.kl;
    f[2] = e.loss - dil__chain_loss(p->chain);
    return DIL_OK;
}

/* Bits a weight of the whole model that check_level makes. */
static double bits_of_check(const dil__profiler *p, size_t check)
{
    double bits = 0, elems = 0;
    for (uint32_t l = 0; l < p->n_layers; l++) {
        if (l + 1 == p->n_layers && p->arch.tied_head) continue;
        const dil__kind *k = &p->kind[l == 0 ? DIL__EMBEDDING : l + 1 == p->n_layers ? DIL__HEAD : DIL__BLOCK];
        double n = 0;
        for (size_t r = 0; r < k->n_roles; r++) n += (double)k->tensor[k->role[r]].ne[0] * (double)k->tensor[k->role[r]].ne[1];
        bits += n * k->level[nearest_level(k, check_bits[check])].bits;
        elems += n;
    }
    return bits / elems;
}

static dil_status check_models(dil__profiler *p, dil_err *err)
{
    double xy = 0, xx = 0;
    for (size_t i = 0; i < DIL__CHECKS; i++) {
        char key[DIL__JOURNAL_KEY];
        double *f = p->check[p->n_checks];
        snprintf(key, sizeof key, "check:%g", check_bits[i]);
        if (!dil__journal_get(p->journal, key, f, 3)) {
            dil_status st = check_level(p, i, f, err);
            if (st == DIL_OK) st = dil__journal_put(p->journal, key, f, 3, err);
            if (st != DIL_OK) return st;
        }
        const dil__kind *k = &p->kind[DIL__BLOCK];
        p->check_bits[p->n_checks] = bits_of_check(p, i);
        memcpy(p->check_level[p->n_checks], k->level[nearest_level(k, check_bits[i])].name, sizeof p->check_level[0]);
        p->n_checks++;
        xy += f[1] * f[2];
        xx += f[1] * f[1];
    }
    dil_progress_step(p->progress, "checking whole models", 1, 1);
    p->kl_to_loss = xx > 0 && xy > 0 ? xy / xx : (double)NAN;
    return DIL_OK;
}

dil_status dil__profiler_damage(dil__profiler *p, dil_err *err)
{
    size_t n = (size_t)p->n_layers * DIL__LEVELS_MAX;
    p->kl = calloc(n, sizeof *p->kl);
    p->weight = calloc(n, sizeof *p->weight);
    if (!p->kl || !p->weight) return dil_fail(err, DIL_EMEMORY, "out of memory");
    for (size_t i = 0; i < DIL__CHECKS; i++) {
        p->check_weights[i] = calloc(p->n_layers, sizeof *p->check_weights[i]);
        if (!p->check_weights[i]) return dil_fail(err, DIL_EMEMORY, "out of memory");
        for (uint32_t l = 0; l < p->n_layers; l++) dil__variant_init(&p->check_weights[i][l], &p->weights);
    }
    dil_status st = all_blocks(p, err);
    if (st == DIL_OK) st = all_tables(p, err); /* the head's inputs come behind the blocks */
    return st == DIL_OK ? check_models(p, err) : st;
}
