/* The table of baselines and what they share. */
#include "plan/baseline.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    dil_status (*solve)(dil__job *job, dil_err *err);
    bool choose_levels;
} baselines[] = {
    {"baseline:best-single", dil__baseline_single, false},
    {"baseline:equal-split", dil__baseline_equal_split, false},
    {"baseline:memory-proportional", dil__baseline_memory, false},
    {"baseline:speed-proportional", dil__baseline_speed, false},
    {"baseline:edgeshard", dil__baseline_edgeshard, false},
    {"baseline:halda", dil__baseline_halda, false},
    {"baseline:uniform", dil__baseline_uniform, false},
    {"baseline:soft-quality", dil__baseline_soft, false},
    {"baseline:paper", dil__baseline_paper, false},
    {"baseline:equal-split+levels", dil__baseline_equal_split, true},
    {"baseline:memory-proportional+levels", dil__baseline_memory, true},
    {"baseline:speed-proportional+levels", dil__baseline_speed, true},
    {"baseline:edgeshard+levels", dil__baseline_edgeshard, true},
    {"baseline:halda+levels", dil__baseline_halda, true},
};

enum { N_BASELINES = sizeof baselines / sizeof *baselines };

const char *dil__baseline_name(uint32_t i)
{
    return i < N_BASELINES ? baselines[i].name : NULL;
}

dil_status dil__solve_baseline(const char *name, dil__job *job, dil_err *err)
{
    for (uint32_t i = 0; i < N_BASELINES; i++) {
        if (strcmp(baselines[i].name, name) != 0) continue;
        job->choose_levels = baselines[i].choose_levels;
        return baselines[i].solve(job, err);
    }
    return dil_fail(err, DIL_EUSAGE, "unknown baseline '%.64s'", name);
}

/* --- precisions --------------------------------------------------------------------------------------------------------- */

static uint32_t class_of(const dil_problem *p, uint32_t l, uint32_t q)
{
    return p->precision ? p->precision[(size_t)l * p->n_levels + q] : q;
}

static uint32_t find_level(const dil_problem *p, uint32_t l, uint32_t class)
{
    for (uint32_t q = 0; q < p->level_count[l]; q++) {
        if (class_of(p, l, q) == class) return q;
    }
    return UINT32_MAX;
}

/* The class of number `precision` among those that more than half of the layers have; UINT32_MAX: there are only *n. */
static uint32_t common_class(const dil_problem *p, uint32_t precision, uint32_t *n)
{
    *n = 0;
    for (uint32_t l = 0; l < p->n_layers; l++) {
        for (uint32_t q = 0; q < p->level_count[l]; q++) {
            uint32_t class = class_of(p, l, q), have = 0;
            bool first = true;
            for (uint32_t k = 0; k < l && first; k++) first = find_level(p, k, class) == UINT32_MAX;
            if (!first || p->n_layers - l <= p->n_layers / 2) continue;
            for (uint32_t k = l; k < p->n_layers; k++) have += find_level(p, k, class) != UINT32_MAX;
            if (2 * have <= p->n_layers) continue;
            if ((*n)++ == precision) return class;
        }
    }
    return UINT32_MAX;
}

uint32_t dil__precisions(const dil_problem *p)
{
    uint32_t n;
    common_class(p, UINT32_MAX, &n);
    return n;
}

static double size_of(const dil_problem *p, uint32_t l, uint32_t q)
{
    size_t lq = (size_t)l * p->n_levels + q;
    return p->file_bytes ? p->file_bytes[lq] + (p->tied && l == p->n_layers - 1 ? p->shared_bytes[q] : 0) : p->layer_bytes[lq];
}

static double relative_size(const dil_problem *p, uint32_t l, uint32_t q)
{
    double most = 0;
    for (uint32_t k = 0; k < p->level_count[l]; k++) most = fmax(most, size_of(p, l, k));
    return most > 0 ? size_of(p, l, q) / most : 1;
}

static uint32_t not_smaller(const dil_problem *p, uint32_t l, double than)
{
    uint32_t best = UINT32_MAX, largest = 0;
    for (uint32_t q = 0; q < p->level_count[l]; q++) {
        double r = relative_size(p, l, q);
        if (r > relative_size(p, l, largest)) largest = q;
        if (r < than * (1 - 1e-3)) continue; /* norms and biases blur the last digits */
        if (best == UINT32_MAX || r < relative_size(p, l, best)) best = q;
    }
    return best == UINT32_MAX ? largest : best;
}

void dil__precision_levels(const dil_problem *p, uint32_t precision, uint32_t *level)
{
    uint32_t n, class = common_class(p, precision, &n), in = 0;
    double sum = 0;
    for (uint32_t l = 0; l < p->n_layers; l++) {
        level[l] = find_level(p, l, class);
        if (level[l] == UINT32_MAX) continue;
        sum += relative_size(p, l, level[l]);
        in++;
    }
    for (uint32_t l = 0; l < p->n_layers; l++) {
        if (level[l] == UINT32_MAX) level[l] = not_smaller(p, l, sum / in);
    }
    if (p->tied) level[p->n_layers - 1] = level[0];
}

/* --- shared ------------------------------------------------------------------------------------------------------------- */

uint32_t dil__entry_node(const dil_problem *p)
{
    uint32_t best = 0;
    for (uint32_t s = 1; s < p->n_nodes; s++) {
        if (p->source_sec[s] < p->source_sec[best]) best = s;
    }
    return best;
}

double dil__trivial_bound(const dil_problem *p, dil_goal goal)
{
    double sum = 0;
    for (uint32_t l = 0; l < p->n_layers; l++) {
        double best = INFINITY;
        for (uint32_t s = 0; s < p->n_nodes; s++) {
            for (uint32_t q = 0; q < p->level_count[l]; q++)
                best = fmin(best, goal == DIL_GOAL_SEC ? p->layer_sec[dil__cell(p, l, s, q)] : p->damage[(size_t)l * p->n_levels + q]);
        }
        sum += best;
    }
    return sum;
}

static double *push_at(dil_problem *to, const dil_problem *p, const double *v, const uint32_t *level, bool by_node)
{
    uint32_t nodes = by_node ? p->n_nodes : 1;
    double *out = v ? dil_arena_push(to->arena, (size_t)p->n_layers * nodes, sizeof *out) : NULL;
    for (uint32_t l = 0; out && l < p->n_layers; l++) {
        for (uint32_t s = 0; s < nodes; s++) out[(size_t)l * nodes + s] = v[((size_t)l * nodes + s) * p->n_levels + level[l]];
    }
    return out;
}

dil_status dil__problem_at_levels(const dil_problem *p, const uint32_t *level, dil_problem **out, dil_err *err)
{
    dil_problem *to;
    dil_status s = dil__problem_new(p->n_layers, p->n_nodes, 1, "baseline", &to, err);
    if (s != DIL_OK) return s;
    dil_problem made = *p;
    made.arena = to->arena;
    made.n_levels = 1;
    made.level_count = to->level_count;
    for (uint32_t l = 0; l < p->n_layers; l++) made.level_count[l] = 1;
    made.precision = NULL;
    made.layer_bytes = push_at(to, p, p->layer_bytes, level, false);
    made.layer_sec = push_at(to, p, p->layer_sec, level, true);
    made.damage = push_at(to, p, p->damage, level, false);
    made.file_bytes = push_at(to, p, p->file_bytes, level, false);
    made.chunk_sec = push_at(to, p, p->chunk_sec, level, true);
    made.load = push_at(to, p, p->load, level, true);
    made.shared_bytes = p->tied ? dil_arena_push(to->arena, 1, sizeof(double)) : NULL;
    if (!made.layer_bytes || !made.layer_sec || !made.damage || (p->file_bytes && !made.file_bytes) || (p->chunk_sec && !made.chunk_sec) ||
        (p->load && !made.load) || (p->tied && !made.shared_bytes)) {
        dil_problem_free(to);
        return dil_fail(err, DIL_EMEMORY, "baseline: out of memory");
    }
    if (p->tied) made.shared_bytes[0] = p->shared_bytes[level[p->n_layers - 1]];
    *to = made; /* what does not depend on levels is borrowed from p */
    *out = to;
    return DIL_OK;
}

/* --- trials ------------------------------------------------------------------------------------------------------------- */

dil_status dil__trial_init(dil__trial *t, dil__job *job, const char *name, dil_err *err)
{
    *t = (dil__trial){.job = job, .name = name, .best_sec = INFINITY, .least_over = INFINITY,
                      .end_ns = dil_now_ns() + (int64_t)(job->limit_sec * 1e9)};
    if (job->goal != DIL_GOAL_SEC) return dil_fail(err, DIL_EUNSUPPORTED, "baseline:%s places layers for speed alone", name);
    t->level = calloc(2u * job->p->n_layers, sizeof *t->level);
    return t->level ? DIL_OK : dil_fail(err, DIL_EMEMORY, "baseline:%s: out of memory", name);
}

double dil__trial_left_sec(dil__trial *t)
{
    double left = (double)(t->end_ns - dil_now_ns()) * 1e-9;
    if (t->stopped == DIL_OK && left <= 0) t->stopped = DIL_ETIMEOUT;
    if (t->stopped == DIL_OK && !dil_progress_step(t->job->progress, "planning", t->job->limit_sec - left, t->job->limit_sec)) t->stopped = DIL_ECANCELED;
    return t->stopped == DIL_OK ? left : 0;
}

static double relative(double over, double budget)
{
    return over > 0 && isfinite(budget) ? over / (budget > 0 ? budget : 1) : 0;
}

static double overrun(const dil_problem *p, const dil_use *u)
{
    if (!u->connected) return INFINITY;
    return fmax(fmax(relative(u->over_store_bytes, p->store_bytes[u->over_store_node]), relative(u->over_damage, p->damage_max)),
                fmax(relative(u->over_file_bytes, p->file_bytes_max), relative(u->over_load, p->load_max)));
}

static void keep(dil__trial *t, const uint32_t *node, const uint32_t *level)
{
    memcpy(t->job->node, node, t->job->p->n_layers * sizeof *node);
    memcpy(t->job->level, level, t->job->p->n_layers * sizeof *level);
    t->job->has_plan = true;
}

static bool judge(dil__trial *t, const uint32_t *node, const uint32_t *level)
{
    dil_use u = {0};
    dil_err why = {0};
    dil_status s = dil_problem_check(t->job->p, node, level, &u, &why);
    if (s == DIL_OK && u.sec < t->best_sec) {
        t->best_sec = u.sec;
        keep(t, node, level);
    } else if (s == DIL_EINFEASIBLE && isinf(t->best_sec)) {
        double over = overrun(t->job->p, &u);
        if (t->why[0] && over >= t->least_over) return false;
        t->least_over = over;
        snprintf(t->why, sizeof t->why, "%.200s", why.text);
        keep(t, node, level);
    }
    return s == DIL_OK;
}

static bool seen(dil__trial *t, const uint32_t *node)
{
    dil_hash h = dil_hash_of(node, t->job->p->n_layers * sizeof *node);
    uint64_t key;
    memcpy(&key, h.bytes, sizeof key);
    for (uint32_t i = 0; i < t->n_tried; i++) {
        if (t->tried[i] == key) return true;
    }
    if (t->n_tried < sizeof t->tried / sizeof *t->tried) t->tried[t->n_tried++] = key;
    return false;
}

/* The best levels of a placement: the MILP with every layer's stage given. */
static void choose_levels(dil__trial *t, const uint32_t *node)
{
    const dil_problem *p = t->job->p;
    double left = dil__trial_left_sec(t);
    uint32_t *order = calloc(p->n_layers, sizeof *order), n = 0, *where = t->level + p->n_layers;
    uint16_t *stage = calloc(p->n_layers, sizeof *stage);
    if (order && stage && left > 0) {
        for (uint32_t l = 0; l < p->n_layers; l++) {
            if (l == 0 || node[l] != node[l - 1]) order[n++] = node[l];
            stage[l] = (uint16_t)(n - 1);
        }
        dil__job one = {.p = p, .goal = t->job->goal, .limit_sec = left, .gap = t->job->gap, .progress = t->job->progress, .node = where, .level = t->level};
        dil_status s = dil__solve_milp_order(&one, order, n, stage, NULL);
        if (s == DIL_OK) judge(t, node, t->level);
        else if (s == DIL_ECANCELED) t->stopped = s;
    }
    free(order);
    free(stage);
}

void dil__trial_add(dil__trial *t, const uint32_t *node, const uint32_t *level)
{
    judge(t, node, level);
    if (t->job->choose_levels && !seen(t, node)) choose_levels(t, node);
}

dil_status dil__trial_end(dil__trial *t, dil_err *err)
{
    free(t->level);
    t->job->bound = dil__trivial_bound(t->job->p, t->job->goal);
    if (isfinite(t->best_sec)) return DIL_OK;
    if (t->stopped == DIL_ECANCELED) return dil_fail(err, DIL_ECANCELED, "planning was canceled");
    if (t->job->has_plan) return dil_fail(err, DIL_EINFEASIBLE, "baseline:%s: %s", t->name, t->why);
    if (t->stopped == DIL_ETIMEOUT) return dil_fail(err, DIL_ETIMEOUT, "baseline:%s: no plan within the time limit", t->name);
    return dil_fail(err, DIL_EINFEASIBLE, "baseline:%s: the rule makes no plan here", t->name);
}
