/* The loop: sequences in an order that the seed gives, a warm start and a cosine's fall of the rate, held-out text every few steps. What is
 * written is the best step's file, whose values are the ones that were judged: the forward pass computes with the rounded scales. */
#include "quant/distill_int.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <stdlib.h>

enum { SAVE_SEC = 60, SAVE_SHARE = 30 }; /* at least so far apart; in multiples of what the last one took */

dil_distill_opts dil_distill_defaults(void)
{
    return (dil_distill_opts){.steps = 64, .n_ctx = 512, .chunks = 64, .val_chunks = 4, .batch = 1, .rate = 3e-4, .beta = 0, .seed = 1};
}

typedef struct loop {
    dil__distill r;
    dil_distill_curve_fn *curve;
    void *curve_ctx;
    char state[4096];
    int64_t start_ns, saved_ns, save_ns; /* when the last save ended; how long it took */
    double spent;        /* share of the training that earlier runs have done */
    uint32_t *order;     /* [n_train] */
    uint32_t unimproved;
} loop;

static double share_done(loop *l)
{
    const dil_distill_opts *o = l->r.o;
    double by_steps = o->steps > 0 ? (double)l->r.step / o->steps : 0;
    double by_time = o->minutes > 0 ? l->spent + (double)(dil_now_ns() - l->start_ns) / (60e9 * o->minutes) : 0;
    l->r.share = by_steps > by_time ? by_steps : by_time;
    return l->r.share;
}

static double rate_at(const loop *l, double share)
{
    double warm = ((double)l->r.step + 1) / l->r.aim->warm_steps;
    double fall = 0.1 + 0.45 * (1 + cos(3.14159265358979 * (share < 1 ? share : 1)));
    return l->r.o->rate * (warm < 1 ? warm : 1) * fall;
}

/* The sequence of a step: each pass over the data in its own order. */
static uint32_t sequence_of(const loop *l, uint32_t step)
{
    uint32_t n = l->r.n_train;
    dil_rng rng;
    dil_rng_init(&rng, l->r.o->seed + step / n);
    for (uint32_t i = 0; i < n; i++) l->order[i] = i;
    for (uint32_t i = n - 1; i > 0; i--) {
        uint32_t j = (uint32_t)dil_rng_below(&rng, i + 1), t = l->order[i];
        l->order[i] = l->order[j];
        l->order[j] = t;
    }
    return l->order[step % n];
}

static dil_status judge(loop *l, double *kl, dil_err *err)
{
    dil__distill *r = &l->r;
    dil_status st = r->aim->judge(r, kl, err);
    if (st != DIL_OK) return st;
    if (r->step == 0) r->first_kl = r->best_kl = *kl;
    if (r->step > 0 && *kl >= r->best_kl) {
        l->unimproved++;
        return DIL_OK;
    }
    l->unimproved = 0;
    r->best_kl = *kl;
    r->best_step = r->step;
    for (size_t i = 0; i < r->n_t; i++) memcpy(r->t[i].best, r->t[i].p, r->t[i].n * sizeof(float));
    return DIL_OK;
}

static dil_status save(loop *l, dil_err *err)
{
    int64_t begun = dil_now_ns();
    dil_status st = dil__distill_save(&l->r, l->state, err);
    l->saved_ns = dil_now_ns();
    l->save_ns = l->saved_ns - begun;
    return st;
}

static bool save_is_due(const loop *l)
{
    int64_t apart = dil_now_ns() - l->saved_ns;
    return apart > SAVE_SEC * (int64_t)1000000000 && apart > SAVE_SHARE * l->save_ns;
}

static dil_status one_step(loop *l, double *loss, dil_err *err)
{
    dil__distill *r = &l->r;
    double rate = rate_at(l, share_done(l));
    uint32_t batch = r->o->batch > 0 ? r->o->batch : 1;
    dil_status st = DIL_OK;
    *loss = 0;
    for (uint32_t k = 0; k < batch && st == DIL_OK; k++) {
        double one;
        st = r->aim->gradient(r, sequence_of(l, r->step * batch + k), &one, err);
        *loss += one / batch;
    }
    if (st != DIL_OK) return st;
    r->step++;
    for (size_t i = 0; i < r->n_t; i++) dil__trainable_step(&r->t[i], rate, 1.0 / batch, r->step);
    return dil__distill_apply(r, err);
}

static dil_status train(loop *l, dil_err *err)
{
    dil__distill *r = &l->r;
    double kl, share, loss;
    dil_status st = r->step == 0 ? judge(l, &kl, err) : DIL_OK;
    if (st == DIL_OK && l->curve && r->step == 0) l->curve(l->curve_ctx, 0, (double)NAN, kl);
    while (st == DIL_OK && (share = share_done(l)) < 1 && l->unimproved < r->aim->patience) {
        if (!dil_progress_step(r->progress, r->aim->doing, share, 1)) {
            st = save(l, err);
            return st == DIL_OK ? dil_fail(err, DIL_ECANCELED, "canceled after %u steps; --resume goes on from %s", r->step, l->state) : st;
        }
        st = one_step(l, &loss, err);
        if (st != DIL_OK) return st;
        kl = (double)NAN;
        if (r->step % r->aim->judge_every == 0 || share_done(l) >= 1) st = judge(l, &kl, err);
        if (st == DIL_OK && l->curve) l->curve(l->curve_ctx, r->step, loss, kl);
        if (st == DIL_OK && save_is_due(l)) st = save(l, err);
    }
    dil_progress_step(r->progress, r->aim->doing, 1, 1);
    return st;
}

/* --- the file ------------------------------------------------------------------------------------------------------------- */

static const uint8_t *bytes_of(const dil__distill *r, const dil_tensor *t)
{
    for (size_t i = 0; i < r->n_t; i++)
        if (r->t[i].src == t) return r->t[i].bytes;
    return t->data;
}

static dil_status write_best(loop *l, dil_err *err)
{
    dil__distill *r = &l->r;
    for (size_t i = 0; i < r->n_t; i++) {
        memcpy(r->t[i].p, r->t[i].best, r->t[i].n * sizeof(float));
        dil__trainable_apply(&r->t[i]);
    }
    return r->aim->write(r, err);
}

dil_status dil__train_write(dil__distill *r, dil_err *err)
{
    const dil_gguf *g = r->student.gguf;
    dil_gguf_writer *w;
    dil_status st = dil_gguf_writer_new(&w, err);
    if (st != DIL_OK) return st;
    for (size_t i = 0; i < dil_gguf_n_kv(g) && st == DIL_OK; i++) st = dil_gguf_put_kv(w, dil_gguf_kv_at(g, i), err);
    for (size_t i = 0; i < dil_gguf_n_tensors(g) && st == DIL_OK; i++) st = dil_gguf_put_tensor(w, dil_gguf_tensor_at(g, i), err);
    if (st == DIL_OK) st = dil_gguf_begin(w, r->o->out, err);
    for (size_t i = 0; i < dil_gguf_n_tensors(g) && st == DIL_OK; i++) {
        const dil_tensor *t = dil_gguf_tensor_at(g, i);
        st = dil_gguf_write_data(w, r->best_step > 0 ? bytes_of(r, t) : t->data, t->bytes, err);
    }
    if (st == DIL_OK) st = dil_gguf_commit(w, err);
    dil_gguf_writer_free(w);
    return st;
}

static dil_status start(loop *l, dil_err *err)
{
    dil__distill *r = &l->r;
    const dil_distill_opts *o = r->o;
    int n = snprintf(l->state, sizeof l->state, "%s.state", o->out);
    if (n < 0 || (size_t)n >= sizeof l->state) return dil_fail(err, DIL_ELIMIT, "%s: the path is too long", o->out);
    if (o->n_ctx < 16 || o->chunks < 1 || o->val_chunks < 1 || (o->steps == 0 && !(o->minutes > 0)))
        return dil_fail(err, DIL_EUSAGE, "training wants steps or minutes, sequences of 16 tokens or more, and held-out text");
    dil_status st = r->aim->open(r, err);
    if (st != DIL_OK) return st;
    for (size_t i = 0; i < r->n_t; i++) memcpy(r->t[i].best, r->t[i].p, r->t[i].n * sizeof(float));
    l->order = calloc(r->n_train, sizeof *l->order);
    if (!l->order) return dil_fail(err, DIL_EMEMORY, "out of memory");
    if (o->resume && dil_file_exists(l->state)) {
        st = dil__distill_restore(r, l->state, err);
        if (st == DIL_OK) st = dil__distill_apply(r, err);
        if (st == DIL_OK) dil_log(DIL_LOG_INFO, "distill", "going on after step %u (held-out divergence %.5f, %.5f before)", r->step, r->best_kl, r->first_kl);
    }
    l->spent = r->share;
    l->start_ns = l->saved_ns = dil_now_ns();
    return st;
}

dil_status dil_distill(const dil_distill_opts *opts, const dil_progress *progress, dil_distill_curve_fn *curve, void *curve_ctx,
                       dil_distill_report *report, dil_err *err)
{
    static const dil__aim aim = {"distilling", dil__distill_open, dil__distill_gradient, dil__distill_judge, dil__train_write, 4, 8, 5};
    return dil__train_run(&aim, NULL, opts, progress, curve, curve_ctx, report, err);
}

dil_status dil__train_run(const dil__aim *aim, void *more, const dil_distill_opts *opts, const dil_progress *progress, dil_distill_curve_fn *curve, void *curve_ctx,
                          dil_distill_report *report, dil_err *err)
{
    loop *l = calloc(1, sizeof *l);
    if (!l) return dil_fail(err, DIL_EMEMORY, "out of memory");
    l->r.o = opts;
    l->r.aim = aim;
    l->r.more = more;
    l->r.progress = progress;
    l->curve = curve;
    l->curve_ctx = curve_ctx;
    dil_status st = start(l, err);
    if (st == DIL_OK) st = train(l, err);
    if (st == DIL_OK) st = write_best(l, err);
    if (st == DIL_OK) {
        const dil__distill *r = &l->r;
        remove(l->state);
        *report = (dil_distill_report){.steps = r->step, .best_step = r->best_step, .train_tokens = (uint64_t)r->step * (opts->batch ? opts->batch : 1) * r->n_ctx,
                                       .val_tokens = (uint64_t)r->n_val * r->n_ctx, .n_trained = r->n_params, .kl_before = r->first_kl,
                                       .kl_after = r->best_kl};
    }
    dil__distill_close(&l->r);
    free(l->order);
    free(l);
    return st;
}
