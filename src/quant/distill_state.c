/* Training on disk: a fixed header, then parameters, moments and the best parameters of every tensor, floats in this machine's order. Whether it
 * belongs to these files is told by hashes; its length must be exact. */
#include "quant/distill_int.h"

#include <errno.h>
#include <math.h>
#include <string.h>

typedef struct header {
    char magic[8];
    dil_hash student, text;
    uint64_t n_params, seed;
    uint32_t step, best_step;
    double first_kl, best_kl, share;
} header;

static dil_hash hash_student(const dil__distill *r)
{
    dil_hash part[2] = {{{0}}};
    for (size_t i = 0; i < r->n_t; i++) {
        part[1] = dil_hash_of(r->t[i].src->data, r->t[i].src->bytes);
        part[0] = dil_hash_of(part, sizeof part);
    }
    return part[0];
}

static header make_header(const dil__distill *r)
{
    header h;
    memset(&h, 0, sizeof h); /* padding goes to disk too */
    memcpy(h.magic, "DILDST1", 8);
    h.student = hash_student(r);
    uint32_t n = r->n_train + r->n_val;
    h.text = r->target ? dil_hash_of(r->target, r->first_row[n] * r->word * sizeof *r->target) : dil_hash_of(r->ids, (size_t)n * r->n_ctx * sizeof *r->ids);
    h.n_params = r->n_params, h.seed = r->o->seed;
    h.step = r->step, h.best_step = r->best_step;
    h.first_kl = r->first_kl, h.best_kl = r->best_kl, h.share = r->share;
    return h;
}

dil_status dil__distill_save(const dil__distill *r, const char *path, dil_err *err)
{
    dil_outfile f;
    dil_status st = dil_outfile_open(&f, path, err);
    if (st != DIL_OK) return st;
    header h = make_header(r);
    bool ok = fwrite(&h, sizeof h, 1, f.stream) == 1;
    for (size_t i = 0; i < r->n_t && ok; i++) {
        const dil__trainable *t = &r->t[i];
        const float *part[] = {t->p, t->m1, t->m2, t->best};
        for (size_t k = 0; k < 4 && ok; k++) ok = fwrite(part[k], sizeof(float), t->n, f.stream) == t->n;
    }
    if (ok) return dil_outfile_commit(&f, err);
    int why = errno;
    dil_outfile_abort(&f);
    errno = why;
    return dil_fail_errno(err, "%s: writing the training state", path);
}

static dil_status check(const header *got, const header *want, const char *path, dil_err *err)
{
    if (memcmp(got->magic, want->magic, 8) != 0) return dil_fail(err, DIL_EFORMAT, "%s is no training state", path);
    if (memcmp(&got->student, &want->student, sizeof got->student) != 0 || got->n_params != want->n_params)
        return dil_fail(err, DIL_EFORMAT, "%s belongs to another student; remove it to start anew", path);
    if (memcmp(&got->text, &want->text, sizeof got->text) != 0)
        return dil_fail(err, DIL_EFORMAT, "%s belongs to another teacher or text; remove it to start anew", path);
    if (!isfinite(got->first_kl) || !isfinite(got->best_kl) || !(got->share >= 0)) return dil_fail(err, DIL_EFORMAT, "%s: its divergences are no numbers", path);
    return DIL_OK;
}

dil_status dil__distill_restore(dil__distill *r, const char *path, dil_err *err)
{
    dil_map map;
    dil_status st = dil_map_open(path, &map, err);
    if (st != DIL_OK) return st;
    header h, want = make_header(r);
    uint64_t whole = sizeof h + 16 * (uint64_t)r->n_params;
    if (map.len != whole)
        st = dil_fail(err, DIL_EFORMAT, "%s has %zu bytes, this training's state %llu; remove it to start anew", path, map.len, (unsigned long long)whole);
    if (st == DIL_OK) {
        memcpy(&h, map.data, sizeof h);
        st = check(&h, &want, path, err);
    }
    const uint8_t *at = map.data + sizeof h;
    for (size_t i = 0; i < r->n_t && st == DIL_OK; i++) {
        dil__trainable *t = &r->t[i];
        float *part[] = {t->p, t->m1, t->m2, t->best};
        for (size_t k = 0; k < 4; k++, at += t->n * sizeof(float)) memcpy(part[k], at, t->n * sizeof(float));
    }
    dil_map_close(&map);
    if (st != DIL_OK) return st;
    r->step = h.step, r->best_step = h.best_step;
    r->first_kl = h.first_kl, r->best_kl = h.best_kl, r->share = h.share;
    return DIL_OK;
}
