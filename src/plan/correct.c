/* What the sum of the layers' damages is worth as a whole model's divergence, learnt from whole students that were measured.
 *
 * A level's damage is measured with its layer alone quantized. A student differs in two ways: many layers err at once, and the later ones
 * make up for part of it. Both change with the bits, so that one factor fits one size only. The ratio measured / sum of whole models of several sizes
 * whose layers are quantized as they were alone, which `profile` makes anyway, gives the course over the bits; students of the method at hand give its
 * height, and with more than one of them also the course of what the method gains. Logarithms of ratios are interpolated between sizes, and kept beyond them.
 *
 * Besides, the kernels that run a student round its activations, which costs the same at any weights: that share is no part of the ratios, and is
 * added to each level that is quantized. It is most of the divergence of large students.
 *
 * The correction is a factor a level, so that plans go on adding up damages. A function of the sum was the other choice: exact at every
 * student, but then no solver, bound or budget could stay as it is. Instead the newest student is met exactly, by a last factor for all. */
#include <dilemma/plan.h>

#include <math.h>
#include <string.h>

#define LEAST_SHARE 0.1 /* of a student's divergence that is the weights', where rounding activations was measured to be all of it */
#define SAME_BITS 0.02 /* students nearer than this replace each other */

/* What a student diverges by over what one of another method does, before one is measured: SmolLM2-135M, 12.75 to 25 % of fp32 (docs/QUALITY.md). */
static const struct { const char *method, *base; double ratio; } usual[] = {{"layerwise", "gptq", 0.75}, {"layerwise", "rtn", 0.6}, {"gptq", "rtn", 0.8}};

static double of_weights(double kl, double run)
{
    return fmax(kl - run, LEAST_SHARE * kl);
}

static double log_ratio(const dil_profile_student *t)
{
    return log(of_weights(t->kl, t->run) / t->alone);
}

static double run_of(const dil_profile_level *v)
{
    return v->damage_run > 0 ? v->damage_run : 0;
}

typedef struct curve {
    double bits[DIL_STUDENTS_MAX], log_ratio[DIL_STUDENTS_MAX];
    uint32_t n;
} curve;

static double curve_at(const curve *c, double bits)
{
    if (c->n == 0) return 0;
    uint32_t i = 0;
    while (i < c->n && c->bits[i] < bits) i++;
    if (i == 0 || i == c->n) return c->log_ratio[i ? c->n - 1 : 0];
    double part = (bits - c->bits[i - 1]) / (c->bits[i] - c->bits[i - 1]);
    return (1 - part) * c->log_ratio[i - 1] + part * c->log_ratio[i];
}

/* By rising bits; the newer of two of a size. */
static void curve_add(curve *c, double bits, double log_ratio)
{
    uint32_t i = 0;
    while (i < c->n && c->bits[i] < bits - SAME_BITS) i++;
    bool same = i < c->n && fabs(c->bits[i] - bits) <= SAME_BITS;
    if (!same) {
        memmove(c->bits + i + 1, c->bits + i, (c->n - i) * sizeof *c->bits);
        memmove(c->log_ratio + i + 1, c->log_ratio + i, (c->n - i) * sizeof *c->log_ratio);
        c->n++;
    }
    c->bits[i] = bits;
    c->log_ratio[i] = log_ratio;
}

static void fit(const dil_profile *p, const char *method, curve *plain, curve *gain)
{
    const char *base = p->alone_method && p->alone_method[0] ? p->alone_method : "rtn";
    plain->n = gain->n = 0;
    for (uint32_t i = 0; i < p->n_students; i++)
        if (strcmp(p->students[i].method, base) == 0) curve_add(plain, p->students[i].bits, log_ratio(&p->students[i]));
    if (strcmp(method, base) == 0) return;
    for (uint32_t i = 0; i < p->n_students; i++) {
        const dil_profile_student *t = &p->students[i];
        if (strcmp(t->method, method) == 0) curve_add(gain, t->bits, log_ratio(t) - curve_at(plain, t->bits));
    }
    for (size_t i = 0; gain->n == 0 && i < sizeof usual / sizeof usual[0]; i++)
        if (strcmp(method, usual[i].method) == 0 && strcmp(base, usual[i].base) == 0) curve_add(gain, 4, log(usual[i].ratio));
}

void dil_profile_correct(dil_profile *p, const char *method)
{
    curve plain, gain;
    fit(p, method, &plain, &gain);
    for (uint32_t l = 0; l < p->n_layers; l++) {
        for (uint32_t q = 0; q < p->layers[l].n_levels; q++) {
            dil_profile_level *v = &p->layers[l].levels[q];
            if (isnan(v->damage_alone) || !(v->bits > 0)) continue;
            v->damage_kl = v->damage_alone * exp(curve_at(&plain, v->bits) + curve_at(&gain, v->bits)) + run_of(v);
        }
    }
    p->method = method;
}

static dil_profile_level *level_of(const dil_profile *p, const dil_plan *plan, uint32_t l)
{
    dil_profile_layer *layer = &p->layers[l];
    for (uint32_t q = 0; q < layer->n_levels; q++)
        if (strcmp(layer->levels[q].name, plan->layers[l].level) == 0) return &layer->levels[q];
    return NULL;
}

/* Sums over the plan's levels, the tied table once. */
static dil_status add_up(const dil_profile *p, const dil_plan *plan, double *alone, double *run, double *kl, dil_err *err)
{
    *alone = *run = *kl = 0;
    if (plan->n_layers != p->n_layers) return dil_fail(err, DIL_EFORMAT, "the plan has %u layers, the profile %u", plan->n_layers, p->n_layers);
    for (uint32_t l = 0; l < p->n_layers - (p->tied_head ? 1 : 0); l++) {
        const dil_profile_level *v = level_of(p, plan, l);
        if (!v) return dil_fail(err, DIL_EFORMAT, "the plan has %s at %s, which the profile does not know", plan->layers[l].name, plan->layers[l].level);
        if (isnan(v->damage_alone)) return dil_fail(err, DIL_EDATA, "the profile lacks the damage of %s alone; profile again", plan->layers[l].name);
        *alone += fmax(0, v->damage_alone);
        *run += run_of(v);
        *kl += fmax(0, v->damage_kl);
    }
    return DIL_OK;
}

/* Factors for what is the weights' and what is the activations', so that a plan whose sums these are is worth kl. */
static void meet(dil_profile *p, double weights, double run, double kl)
{
    double part = run > 0 ? of_weights(kl, run) : kl, of_run = run > 0 ? (kl - part) / run : 1;
    for (uint32_t l = 0; l < p->n_layers; l++) {
        for (uint32_t q = 0; q < p->layers[l].n_levels; q++) {
            dil_profile_level *v = &p->layers[l].levels[q];
            if (!isnan(v->damage_alone) && v->bits > 0) v->damage_kl = (v->damage_kl - run_of(v)) * part / weights + run_of(v) * of_run;
        }
    }
}

dil_status dil_plan_correct(dil_profile *p, const dil_plan *plan, const dil_profile_student *measured, dil_err *err)
{
    double alone, run, kl;
    dil_status s = add_up(p, plan, &alone, &run, &kl, err);
    if (s != DIL_OK) return s;
    if (!(alone > 0 && measured->kl > 0)) return DIL_OK; /* nothing is damaged: nothing to learn */
    if (p->n_students == DIL_STUDENTS_MAX) {
        memmove(p->students, p->students + 1, (DIL_STUDENTS_MAX - 1) * sizeof *p->students);
        p->n_students--;
    }
    dil_profile_student *t = &p->students[p->n_students];
    *t = *measured;
    t->method = dil_arena_strdup(p->arena, measured->method, strlen(measured->method));
    if (!t->method) return dil_fail(err, DIL_EMEMORY, "out of memory");
    t->alone = alone;
    t->run = run;
    t->bits = 32 * plan->ratio_to_fp32;
    p->n_students++;
    dil_profile_correct(p, t->method);
    add_up(p, plan, &alone, &run, &kl, NULL);
    meet(p, kl - run, run, measured->kl);
    return DIL_OK;
}
