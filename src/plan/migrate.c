/* Moving from one plan to another. The bytes to move are linear in the choice of node and level, so a plan that weighs them in is the same
 * problem with other seconds: the exact solvers find the plan between the old and the best one, which staying or moving all would miss. */
#include <dilemma/migrate.h>

#include "plan/problem_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- what a node lacks -------------------------------------------------------------------------------------------------- */

static const dil_profile_level *level_of(const dil_profile *prof, const dil_plan *plan, uint32_t l)
{
    for (uint32_t q = 0; q < prof->layers[l].n_levels; q++) {
        if (strcmp(prof->layers[l].levels[q].name, plan->layers[l].level) == 0) return &prof->layers[l].levels[q];
    }
    return NULL;
}

static bool same_types(const dil_plan_layer *a, const dil_plan_layer *b)
{
    if (a->n_types != b->n_types) return false;
    for (uint32_t i = 0; i < a->n_types; i++) {
        bool found = false;
        for (uint32_t k = 0; k < b->n_types && !found; k++)
            found = strcmp(a->types[i].role, b->types[k].role) == 0 && strcmp(a->types[i].type, b->types[k].type) == 0;
        if (!found) return false;
    }
    return true;
}

static double table_bytes(const dil_profile *prof, const dil_plan *plan)
{
    const dil_profile_level *head = level_of(prof, plan, prof->n_layers - 1), *first = level_of(prof, plan, 0);
    if (!prof->tied_head || !head || !first) return 0;
    return (double)(head->shared_bytes ? head->shared_bytes : first->bytes < head->bytes ? first->bytes : head->bytes);
}

static bool has(const dil_migrate_options *mo, const char *node, uint32_t l, const char *level)
{
    return mo->has && mo->has(mo->has_ctx, node, l, level);
}

/* The tied table came to the node with either end, at the same level. */
static bool had_table(const dil_profile *prof, const dil_plan *old, const dil_plan *plan, const dil_migrate_options *mo, const char *node)
{
    uint32_t head = prof->n_layers - 1;
    if (has(mo, node, 0, plan->layers[0].level) || has(mo, node, head, plan->layers[0].level)) return true;
    if (strcmp(old->layers[0].level, plan->layers[0].level) != 0) return false;
    return strcmp(old->layers[0].node, node) == 0 || strcmp(old->layers[head].node, node) == 0;
}

/* Bytes that layer l's new node lacks. */
static double lacking(const dil_profile *prof, const dil_plan *old, const dil_plan *plan, const dil_migrate_options *mo, uint32_t l)
{
    const dil_plan_layer *a = &old->layers[l], *b = &plan->layers[l];
    const dil_profile_level *v = level_of(prof, plan, l);
    uint32_t head = prof->n_layers - 1;
    double table = table_bytes(prof, plan), bytes = v ? (double)v->bytes : 0;
    if (strcmp(a->node, b->node) == 0 && strcmp(a->level, b->level) == 0 && same_types(a, b)) return 0;
    if (has(mo, b->node, l, b->level)) return 0;
    if (table == 0 || (l > 0 && l < head)) return bytes;
    bool with_first = l == head && strcmp(plan->layers[0].node, b->node) == 0; /* the embedding brings it, or was there */
    return bytes - (with_first || had_table(prof, old, plan, mo, b->node) ? table : 0);
}

static double out_speed(const dil_cluster *c, uint32_t entry)
{
    return c->nodes[entry].out_bytes_per_sec > 0 ? c->nodes[entry].out_bytes_per_sec : INFINITY;
}

static dil_status add_bytes(const dil_profile *prof, const dil_cluster *c, const dil_plan *old, const dil_plan *plan, const dil_migrate_options *mo,
                            dil_migration *m, dil_err *err)
{
    uint32_t entry = dil_cluster_find(c, plan->entry);
    if (entry == DIL_NO_NODE) return dil_fail(err, DIL_ENOTFOUND, "the entry node \"%.100s\" is not in the cluster", plan->entry);
    for (uint32_t i = 0; i < plan->n_stages; i++) {
        bool first = true;
        double bytes = 0;
        for (uint32_t k = 0; k < i; k++) first = first && strcmp(plan->stages[k].node, plan->stages[i].node) != 0;
        if (!first) continue;
        uint32_t node = dil_cluster_find(c, plan->stages[i].node);
        for (uint32_t l = 0; l < plan->n_layers; l++) {
            if (strcmp(plan->layers[l].node, plan->stages[i].node) != 0) continue;
            double b = lacking(prof, old, plan, mo, l);
            m->n_layers += b > 0;
            bytes += b;
        }
        if (bytes == 0 || node == entry) continue;
        const dil_cluster_link *k = node == DIL_NO_NODE ? NULL : dil_cluster_link_get(c, entry, node);
        if (!k) return dil_fail(err, DIL_EINFEASIBLE, "no link brings weights from the entry to \"%.100s\"", plan->stages[i].node);
        m->moved_bytes += bytes;
        m->move_sec = fmax(m->move_sec, k->latency_sec + bytes / k->bytes_per_sec);
    }
    m->move_sec = fmax(m->move_sec, m->moved_bytes / out_speed(c, entry));
    return DIL_OK;
}

static bool same_plan(const dil_plan *a, const dil_plan *b)
{
    for (uint32_t l = 0; l < a->n_layers; l++) {
        if (strcmp(a->layers[l].node, b->layers[l].node) != 0 || strcmp(a->layers[l].level, b->layers[l].level) != 0 ||
            !same_types(&a->layers[l], &b->layers[l]))
            return false;
    }
    return true;
}

/* Seconds of `tokens` through the plan as a prompt. The plan's own figures are restored. */
static dil_status replay_sec(const dil_profile *prof, const dil_cluster *c, const dil_plan_options *o, const dil_plan *plan, double tokens, double *sec,
                             dil_err *err)
{
    dil_plan_options one = *o;
    dil_plan copy = *plan;
    one.tokens_in = (uint32_t)fmax(1, ceil(tokens));
    one.tokens_out = 1;
    dil_plan_stage *stages = calloc(plan->n_stages, sizeof *stages); /* the referee fills figures into a plan: into a copy */
    dil_plan_layer *layers = calloc(plan->n_layers, sizeof *layers);
    dil_status s = DIL_EMEMORY;
    if (stages && layers) {
        memcpy(stages, plan->stages, plan->n_stages * sizeof *stages);
        memcpy(layers, plan->layers, plan->n_layers * sizeof *layers);
        copy.stages = stages;
        copy.layers = layers;
        s = dil__plan_refill(prof, c, &one, &copy, err);
        *sec = copy.prefill_sec;
    } else {
        dil_fail(err, s, "migration: out of memory");
    }
    free(stages);
    free(layers);
    return s;
}

static double streams_of(const dil_profile *prof, const dil_migrate_options *mo, double total_sec)
{
    if (mo->rate == 0) return 1;
    return fmin(fmax(1, mo->rate * total_sec), prof->sequences ? prof->sequences : 1);
}

static dil_status price(const dil_profile *prof, const dil_cluster *c, const dil_plan_options *o, const dil_plan *old, const dil_plan *plan,
                        const dil_migrate_options *mo, dil_migration *m, dil_err *err)
{
    double sec;
    m->moves = !same_plan(old, plan);
    m->new_total_sec = plan->total_sec;
    m->n_layers = 0;
    m->moved_bytes = m->move_sec = m->replay_sec = m->pause_sec = m->cost_sec = m->gain_sec = 0;
    if (!m->moves) return DIL_OK;
    dil_status s = add_bytes(prof, c, old, plan, mo, m, err);
    if (s == DIL_OK) s = replay_sec(prof, c, o, plan, o->tokens_in + 0.5 * o->tokens_out, &sec, err);
    if (s != DIL_OK) return s;
    double before = m->forced ? plan->total_sec : m->old_total_sec;
    double rate = mo->rate > 0 ? mo->rate : 1 / before;
    m->streams = streams_of(prof, mo, before);
    m->replay_sec = m->streams * sec;
    m->pause_sec = m->move_sec + m->replay_sec;
    m->cost_sec = m->pause_sec * (m->streams + 0.5 * rate * m->pause_sec);
    m->gain_sec = m->forced ? INFINITY : rate * fmax(0, mo->horizon_sec - m->pause_sec) * (m->old_total_sec - plan->total_sec);
    return DIL_OK;
}

/* --- the old plan on the network as it is ------------------------------------------------------------------------------- */

/* Without a budget of its own the problem takes the old plan's damage. */
static void judge_old(const dil_profile *prof, const dil_cluster *c, const dil_plan_options *o, const dil_plan *old, dil_plan *now, dil_migration *m)
{
    dil_err why = {0};
    dil_status s = dil_plan_predict(prof, c, o, now, true, &why);
    for (uint32_t l = 0; l < old->n_layers && s == DIL_OK; l++) {
        const dil_profile_level *v = level_of(prof, old, l);
        dil_plan_layer of_profile = {.types = v ? v->types : NULL, .n_types = v ? v->n_types : 0};
        if (!same_types(&old->layers[l], &of_profile)) s = dil_fail(&why, DIL_ENOTFOUND, "layer %u: level \"%.80s\" has other types now", l, old->layers[l].level);
    }
    m->forced = s != DIL_OK;
    m->old_total_sec = m->forced ? INFINITY : now->total_sec;
    snprintf(m->why_forced, sizeof m->why_forced, "%.190s", m->forced ? why.text : "");
}

static dil_plan *shallow(const dil_plan *plan)
{
    dil_arena *a = dil_arena_new((size_t)16 << 20);
    dil_plan *p = a ? dil_arena_push(a, 1, sizeof *p) : NULL;
    if (p) {
        *p = *plan;
        p->arena = a;
        p->layers = dil_arena_push(a, plan->n_layers, sizeof *p->layers);
        p->stages = dil_arena_push(a, plan->n_stages, sizeof *p->stages);
    }
    if (!p || !p->layers || !p->stages) {
        dil_arena_free(a);
        return NULL;
    }
    memcpy(p->layers, plan->layers, plan->n_layers * sizeof *p->layers);
    memcpy(p->stages, plan->stages, plan->n_stages * sizeof *p->stages);
    return p;
}

dil_status dil_migration_cost(const dil_profile *profile, const dil_cluster *cluster, const dil_plan_options *options, const dil_plan *old,
                              const dil_plan *plan, const dil_migrate_options *mo, dil_migration *m, dil_err *err)
{
    *m = (dil_migration){0};
    if (old->n_layers != profile->n_layers || plan->n_layers != profile->n_layers)
        return dil_fail(err, DIL_EUSAGE, "the plans have %u and %u layers, the profile %u", old->n_layers, plan->n_layers, profile->n_layers);
    dil_plan *now = shallow(old);
    if (!now) return dil_fail(err, DIL_EMEMORY, "migration: out of memory");
    judge_old(profile, cluster, options, old, now, m);
    dil_plan_free(now);
    return price(profile, cluster, options, old, plan, mo, m, err);
}

/* --- candidates --------------------------------------------------------------------------------------------------------- */

typedef struct mover {
    const dil_profile *prof;
    const dil_cluster *cluster;
    const dil_plan_options *o;
    const dil_plan *old;
    const dil_migrate_options *mo;
    dil_problem *p;
    uint32_t *node_of, *node, *level; /* [S], and the old plan [L]; UINT32_MAX: not there any more */
    bool old_fits;
    double limit_sec;
} mover;

/* Every choice costs what its bytes take over the entry's link, in seconds of one request. */
static double *weighed_seconds(const mover *x, const dil_migration *m)
{
    const dil_problem *p = x->p;
    double *sec = calloc((size_t)p->n_layers * p->n_nodes * p->n_levels, sizeof *sec);
    uint32_t entry = dil_cluster_find(x->cluster, x->old->entry);
    double before = m->forced ? 0 : m->old_total_sec, rate = x->mo->rate > 0 ? x->mo->rate : before > 0 ? 1 / before : 1;
    double requests = fmax(rate * x->mo->horizon_sec, 1e-9), streams = streams_of(x->prof, x->mo, before);
    for (uint32_t l = 0; sec && l < p->n_layers; l++) {
        for (uint32_t s = 0; s < p->n_nodes; s++) {
            uint32_t node = dil_cluster_find(x->cluster, x->prof->nodes[x->node_of[s]]);
            const dil_cluster_link *k = dil_cluster_link_get(x->cluster, entry, node);
            for (uint32_t q = 0; q < p->level_count[l]; q++) {
                size_t i = dil__cell(p, l, s, q);
                bool here = node == entry || (x->node[l] == s && x->level[l] == q) ||
                            has(x->mo, x->cluster->nodes[node].name, l, x->prof->layers[l].levels[q].name);
                double bytes = (double)x->prof->layers[l].levels[q].bytes - (p->tied && l == p->n_layers - 1 ? p->shared_bytes[q] : 0);
                sec[i] = p->layer_sec[i];
                if (!here) sec[i] += k ? fmin(streams * bytes / k->bytes_per_sec / requests, 1e9) : 1e9;
            }
        }
    }
    return sec;
}

static dil_status candidate(const mover *x, dil_problem *p, dil_plan **out, dil_err *err)
{
    dil_solve_options so = {.solver = x->o->solver, .goal = DIL_GOAL_SEC, .limit_sec = x->limit_sec, .gap = dil__plan_gap(x->o), .progress = x->o->progress};
    dil_solution *s = NULL;
    if (x->old_fits) {
        so.start_node = x->node;
        so.start_level = x->level;
    }
    dil_status ok = dil_plan_solve(p, &so, &s, err);
    if (ok == DIL_OK) ok = dil__plan_unbudgeted(x->prof, x->cluster, x->o, s, x->node_of, out, err);
    if (ok == DIL_OK) {
        (*out)->bound_sec = fmin(s->bound, (*out)->total_sec);
        (*out)->gap = (*out)->total_sec > 0 ? 1 - (*out)->bound_sec / (*out)->total_sec : 0;
    }
    dil_solution_free(s);
    return ok;
}

static dil_status locate_old(mover *x)
{
    dil_status s = DIL_OK;
    for (uint32_t l = 0; l < x->p->n_layers; l++) {
        uint32_t n = 0, q = 0;
        while (n < x->p->n_nodes && strcmp(x->prof->nodes[x->node_of[n]], x->old->layers[l].node) != 0) n++;
        while (q < x->p->level_count[l] && strcmp(x->prof->layers[l].levels[q].name, x->old->layers[l].level) != 0) q++;
        x->node[l] = n < x->p->n_nodes ? n : UINT32_MAX;
        x->level[l] = q < x->p->level_count[l] ? q : UINT32_MAX;
        if (n == x->p->n_nodes || q == x->p->level_count[l]) s = DIL_ENOTFOUND;
    }
    return s;
}

static dil_status set_damage(mover *x, double old_damage, dil_err *err)
{
    dil_solution *least = NULL;
    double explicit_max = x->p->damage_max;
    dil_status s = dil__plan_set_quality(x->p, x->o, &least, err);
    dil_solution_free(least);
    if (s == DIL_OK && isinf(explicit_max) && x->old_fits) x->p->damage_max = fmax(x->p->damage_max, old_damage);
    return s;
}

/* When the old plan cannot run there is no gain to speak of: what all requests of the horizon wait is compared. */
static double net_gain(const mover *x, const dil_migration *m)
{
    double rate = x->mo->rate > 0 ? x->mo->rate : 1 / fmax(m->new_total_sec, 1e-9);
    return m->forced ? -m->cost_sec - rate * x->mo->horizon_sec * m->new_total_sec : m->gain_sec - m->cost_sec;
}

/* Takes the plan of larger net gain; of equal ones the one that moves less. */
static void choose(const mover *x, dil_plan **best, dil_migration *kept, dil_plan *other, const dil_migration *m)
{
    if (*best && net_gain(x, m) <= net_gain(x, kept)) {
        dil_plan_free(other);
        return;
    }
    dil_plan_free(*best);
    *best = other;
    *kept = *m;
}

static dil_status consider(mover *x, dil_plan **best, dil_migration *kept, dil_err *err)
{
    dil_migration m = *kept;
    dil_plan *plan = NULL;
    dil_status s = candidate(x, x->p, &plan, err);
    if (s != DIL_OK) return s;
    double best_total = plan->total_sec, bound = plan->bound_sec;
    s = price(x->prof, x->cluster, x->o, x->old, plan, x->mo, &m, NULL);
    if (s == DIL_OK) choose(x, best, kept, plan, &m);
    else dil_plan_free(plan);
    double *own = x->p->layer_sec, *weighed = weighed_seconds(x, kept);
    if (!weighed) return dil_fail(err, DIL_EMEMORY, "migration: out of memory");
    plan = NULL;
    m = *kept;
    x->p->layer_sec = weighed;
    s = candidate(x, x->p, &plan, err);
    x->p->layer_sec = own;
    free(weighed);
    if (s == DIL_OK) s = price(x->prof, x->cluster, x->o, x->old, plan, x->mo, &m, err);
    if (s == DIL_OK) {
        plan->bound_sec = fmin(bound, plan->total_sec); /* its own was for the weighed seconds */
        plan->gap = plan->total_sec > 0 ? 1 - plan->bound_sec / plan->total_sec : 0;
        choose(x, best, kept, plan, &m);
    } else {
        dil_plan_free(plan);
    }
    kept->best_total_sec = best_total;
    return *best ? DIL_OK : s;
}

static dil_status migrate(mover *x, const dil_plan *now, dil_plan **out, dil_migration *m, dil_err *err)
{
    dil_plan *best = NULL;
    x->old_fits = locate_old(x) == DIL_OK && !m->forced;
    dil_status s = set_damage(x, now->predicted_damage, err);
    if (s == DIL_OK) s = consider(x, &best, m, err);
    if (s != DIL_OK) {
        dil_plan_free(best);
        return s;
    }
    if (m->forced || (m->moves && m->gain_sec >= (1 + x->mo->margin) * m->cost_sec)) {
        *out = best;
        return DIL_OK;
    }
    double best_total = m->best_total_sec, bound = best->bound_sec, old_total = m->old_total_sec;
    dil_plan_free(best);
    *m = (dil_migration){.old_total_sec = old_total, .new_total_sec = old_total, .best_total_sec = best_total, .streams = m->streams};
    dil_solution kept = {.n_layers = x->p->n_layers, .node = x->node, .level = x->level, .solver = "kept"};
    s = dil__plan_unbudgeted(x->prof, x->cluster, x->o, &kept, x->node_of, out, err);
    if (s != DIL_OK) return s;
    (*out)->bound_sec = fmin(bound, old_total);
    (*out)->gap = old_total > 0 ? 1 - (*out)->bound_sec / old_total : 0;
    return DIL_OK;
}

dil_status dil_plan_migrate(const dil_profile *profile, const dil_cluster *cluster, const dil_plan_options *options, const dil_plan *old,
                            const dil_migrate_options *mo, dil_plan **out, dil_migration *m, dil_err *err)
{
    mover x = {.prof = profile, .cluster = cluster, .o = options, .old = old, .mo = mo, .limit_sec = options->limit_sec / 2};
    *m = (dil_migration){0};
    if (!(mo->horizon_sec >= 0 && mo->horizon_sec <= 1e12) || !(mo->rate >= 0 && mo->rate <= 1e9) || !(mo->margin >= 0 && mo->margin <= 1e6))
        return dil_fail(err, DIL_EUSAGE, "horizon %g s, rate %g, margin %g: all are 0 or more", mo->horizon_sec, mo->rate, mo->margin);
    if (old->n_layers != profile->n_layers)
        return dil_fail(err, DIL_EUSAGE, "the old plan has %u layers, the profile %u", old->n_layers, profile->n_layers);
    dil_plan *now = shallow(old);
    x.node_of = calloc(profile->n_nodes, sizeof *x.node_of);
    x.node = calloc(profile->n_layers, sizeof *x.node);
    x.level = calloc(profile->n_layers, sizeof *x.level);
    dil_status s = now && x.node_of && x.node && x.level ? DIL_OK : dil_fail(err, DIL_EMEMORY, "migration: out of memory");
    if (s == DIL_OK) {
        judge_old(profile, cluster, options, old, now, m);
        s = dil_problem_from_profile(profile, cluster, options, &x.p, x.node_of, err);
    }
    if (s == DIL_OK) s = migrate(&x, now, out, m, err);
    dil_problem_free(x.p);
    dil_plan_free(now);
    free(x.node_of);
    free(x.node);
    free(x.level);
    return s;
}
