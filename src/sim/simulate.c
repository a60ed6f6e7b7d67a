/* dil_simulate: the clock. */
#include "plan/problem_impl.h"
#include "sim/sim_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define DRAIN 10.0 /* durations after which what is not answered is lost */

enum { MOVES_MAX = 100000 };

dil_sim_options dil_sim_options_default(void)
{
    dil_sim_options o = {.policy = DIL_POLICY_HORIZON, .plan = dil_plan_options_default(), .migrate = {.horizon_sec = 120, .margin = 0.1},
                         .check_sec = 10, .detect_sec = 2};
    o.plan.gap = 0.01;
    o.plan.limit_sec = 5;
    return o;
}

static dil_status new_result(const dil_trace *t, dil_sim_result **out, dil_err *err)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < t->n_events; i++) n += t->events[i].kind == DIL_TRACE_REQUEST;
    dil_arena *a = dil_arena_new((size_t)512 << 20);
    dil_sim_result *r = a ? dil_arena_push(a, 1, sizeof *r) : NULL;
    if (r) *r = (dil_sim_result){.arena = a, .requests = dil_arena_push(a, n + 1u, sizeof *r->requests), .move_at_sec = dil_arena_push(a, MOVES_MAX, sizeof(double))};
    if (!r || !r->requests || !r->move_at_sec) {
        dil_arena_free(a);
        return dil_fail(err, DIL_EMEMORY, "simulation: out of memory");
    }
    for (uint32_t i = 0; i < t->n_events; i++) {
        const dil_trace_event *e = &t->events[i];
        if (e->kind == DIL_TRACE_REQUEST)
            r->requests[r->n_requests++] = (dil_sim_request){.arrive_sec = e->at_sec, .start_sec = NAN, .first_token_sec = NAN, .done_sec = NAN,
                                                             .tokens_in = e->tokens_in, .tokens_out = e->tokens_out};
    }
    *out = r;
    return DIL_OK;
}

static dil_status init(dil__sim *x, dil_err *err)
{
    uint32_t n = x->base->n_nodes, links = x->base->n_links, L = x->prof->n_layers, requests = x->result->n_requests;
    x->resource = calloc((size_t)n + links, sizeof *x->resource);
    x->state = calloc(requests + 1u, sizeof *x->state);
    x->done = calloc(requests + 1u, sizeof *x->done);
    x->link = calloc(links + 1u, sizeof *x->link);
    x->up = calloc(n, sizeof *x->up);
    x->stage = calloc(L, sizeof *x->stage);
    x->level = calloc(L, sizeof *x->level);
    x->held = calloc((size_t)n * L, sizeof *x->held);
    x->prof_node = calloc(n, sizeof *x->prof_node);
    x->up_nodes = calloc(n, sizeof *x->up_nodes);
    x->up_links = calloc(links + 1u, sizeof *x->up_links);
    x->new_index = calloc(n, sizeof *x->new_index);
    if (!x->resource || !x->state || !x->done || !x->link || !x->up || !x->stage || !x->level || !x->held || !x->prof_node || !x->up_nodes || !x->up_links || !x->new_index)
        return dil_fail(err, DIL_EMEMORY, "simulation: out of memory");
    if (links) memcpy(x->link, x->base->links, links * sizeof *x->link);
    for (uint32_t i = 0; i < n; i++) {
        x->up[i] = true;
        x->prof_node[i] = DIL__NONE;
        for (uint32_t k = 0; k < x->prof->n_nodes; k++) {
            if (strcmp(x->prof->nodes[k], x->base->nodes[i].name) == 0) x->prof_node[i] = k;
        }
    }
    x->rate = x->trace->duration_sec > 0 ? requests / x->trace->duration_sec : 0;
    dil__sim_interrupt(x); /* queues empty */
    return DIL_OK;
}

static void fini(dil__sim *x)
{
    dil_plan_free(x->plan);
    free(x->heap);
    free(x->task);
    free(x->resource);
    free(x->state);
    free(x->done);
    free(x->link);
    free(x->up);
    free(x->stage);
    free(x->level);
    free(x->held);
    free(x->prof_node);
    free(x->up_nodes);
    free(x->up_links);
    free(x->new_index);
}

/* A plan of the simulation's own, with its figures on this network. */
static dil_status copy_plan(const dil__sim *x, const dil_plan *plan, dil_plan **out, dil_err *err)
{
    uint32_t L = x->prof->n_layers, S = x->prof->n_nodes, *v = calloc((size_t)2 * L + S, sizeof *v);
    dil_solution s = {.n_layers = L, .node = v, .level = v + L, .solver = "given"};
    dil_status ok = v ? DIL_OK : dil_fail(err, DIL_EMEMORY, "simulation: out of memory");
    if (ok == DIL_OK && plan->n_layers != L) ok = dil_fail(err, DIL_EUSAGE, "the plan has %u layers, the profile %u", plan->n_layers, L);
    for (uint32_t i = 0; i < S && ok == DIL_OK; i++) v[2 * L + i] = i;
    for (uint32_t l = 0; l < L && ok == DIL_OK; l++) {
        const dil_profile_layer *layer = &x->prof->layers[l];
        while (s.node[l] < S && strcmp(x->prof->nodes[s.node[l]], plan->layers[l].node) != 0) s.node[l]++;
        while (s.level[l] < layer->n_levels && strcmp(layer->levels[s.level[l]].name, plan->layers[l].level) != 0) s.level[l]++;
        if (s.node[l] == S || s.level[l] == layer->n_levels)
            ok = dil_fail(err, DIL_ENOTFOUND, "layer %u of the plan: \"%.80s\" at \"%.80s\" is not in the profile", l, plan->layers[l].node, plan->layers[l].level);
    }
    if (ok == DIL_OK) {
        *out = dil__plan_from_solution(x->prof, x->base, &x->o->plan, &s, v + 2 * L);
        ok = *out ? dil_plan_predict(x->prof, x->base, &x->o->plan, *out, true, err) : dil_fail(err, DIL_EMEMORY, "simulation: out of memory");
    }
    free(v);
    return ok;
}

static dil_status first_plan(dil__sim *x, dil_err *err)
{
    dil_plan *plan = NULL;
    dil_status s = x->o->first ? copy_plan(x, x->o->first, &plan, err) : dil_plan_make(x->prof, x->base, &x->o->plan, &plan, err);
    if (s != DIL_OK) {
        dil_plan_free(plan);
        return s;
    }
    x->result->late_sec = x->o->late_sec > 0 ? x->o->late_sec : 3 * plan->total_sec;
    return dil__sim_set_plan(x, plan, err);
}

static bool pop(dil__sim *x, dil__event *e)
{
    if (x->n_heap == 0) return false;
    *e = x->heap[0];
    dil__event last = x->heap[--x->n_heap];
    size_t i = 0;
    for (size_t k = 1; k < x->n_heap; k = 2 * i + 1) {
        const dil__event *a = &x->heap[k], *b = k + 1 < x->n_heap ? &x->heap[k + 1] : a;
        if (b->at_sec < a->at_sec || (b->at_sec == a->at_sec && b->order < a->order)) k++;
        if (last.at_sec < x->heap[k].at_sec || (last.at_sec == x->heap[k].at_sec && last.order < x->heap[k].order)) break;
        x->heap[i] = x->heap[k];
        i = k;
    }
    x->heap[i] = last;
    return true;
}

static void next_of_trace(dil__sim *x)
{
    if (x->next_trace < x->trace->n_events) dil__sim_push(x, x->trace->events[x->next_trace].at_sec, DIL__EV_TRACE, x->next_trace);
}

static void from_trace(dil__sim *x)
{
    const dil_trace_event *e = &x->trace->events[x->next_trace++];
    if (e->kind == DIL_TRACE_REQUEST) dil__sim_arrive(x, x->n_seen);
    else dil__sim_network(x, e);
    next_of_trace(x);
}

static dil_status handle(dil__sim *x, const dil__event *e, dil_err *err)
{
    bool old = e->epoch != x->epoch;
    switch (e->what) {
    case DIL__EV_TRACE: from_trace(x); return DIL_OK;
    case DIL__EV_READY:
        if (!old) dil__sim_ready(x, e->arg);
        return DIL_OK;
    case DIL__EV_DONE:
        if (!old) dil__sim_finish(x, e->arg);
        return DIL_OK;
    case DIL__EV_CHECK:
        dil__sim_push(x, x->now + x->o->check_sec, DIL__EV_CHECK, 0);
        return dil__sim_check(x, err);
    case DIL__EV_DETECT: return dil__sim_detect(x, err);
    case DIL__EV_RESUME:
        if (!old) dil__sim_resume(x);
        return DIL_OK;
    }
    return DIL_OK;
}

static dil_status run(dil__sim *x, dil_err *err)
{
    double end = DRAIN * x->trace->duration_sec;
    dil__event e;
    next_of_trace(x);
    if (x->o->policy != DIL_POLICY_STATIC) dil__sim_push(x, x->o->check_sec, DIL__EV_CHECK, 0);
    while (pop(x, &e) && e.at_sec <= end) {
        if (x->next_trace == x->trace->n_events && x->result->n_answered == x->result->n_requests) break;
        if (x->result->n_moves == MOVES_MAX) return dil_fail(err, DIL_ELIMIT, "simulation: more than %d moves", MOVES_MAX);
        x->now = e.at_sec;
        dil_status s = handle(x, &e, err);
        if (s == DIL_OK && x->out_of_memory) s = dil_fail(err, DIL_EMEMORY, "simulation: out of memory");
        if (s == DIL_OK && e.what != DIL__EV_READY && e.what != DIL__EV_DONE && !dil_progress_step(x->o->plan.progress, "simulating", x->now, x->trace->duration_sec))
            s = dil_fail(err, DIL_ECANCELED, "the simulation was canceled");
        if (s != DIL_OK) return s;
    }
    if (x->broken) x->result->outage_sec += fmax(0, fmin(end, fmax(x->now, x->trace->duration_sec)) - x->broken_since);
    return DIL_OK;
}

static int by_value(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* Nearest rank. */
static double rank(const double *v, uint32_t n, double share)
{
    uint32_t i = (uint32_t)ceil(share * n);
    return n ? v[i ? i - 1 : 0] : NAN;
}

static dil_status summarize(dil_sim_result *r, dil_err *err)
{
    double *v = calloc(r->n_requests + 1u, sizeof *v), sum = 0;
    uint32_t n = 0;
    if (!v) return dil_fail(err, DIL_EMEMORY, "simulation: out of memory");
    for (uint32_t i = 0; i < r->n_requests; i++) {
        double delay = r->requests[i].done_sec - r->requests[i].arrive_sec;
        if (isnan(delay)) {
            r->n_lost++;
            r->n_late++;
            continue;
        }
        v[n++] = delay;
        sum += delay;
        r->n_late += delay > r->late_sec;
    }
    qsort(v, n, sizeof *v, by_value);
    r->mean_sec = n ? sum / n : NAN;
    r->p50_sec = rank(v, n, 0.5);
    r->p90_sec = rank(v, n, 0.9);
    r->p99_sec = rank(v, n, 0.99);
    r->max_sec = rank(v, n, 1);
    free(v);
    return DIL_OK;
}

dil_status dil_simulate(const dil_profile *profile, const dil_cluster *cluster, const dil_trace *trace, const dil_sim_options *options,
                        dil_sim_result **out, dil_err *err)
{
    dil__sim x = {.prof = profile, .base = cluster, .trace = trace, .o = options, .free_task = DIL__NONE};
    dil_cluster here = *cluster; /* the entry of the options is the cluster's here */
    if (options->plan.n_guesses) return dil_fail(err, DIL_EUSAGE, "simulated passes carry one token each: no guesses in the plan's options");
    if (!(options->check_sec > 0) || !(options->detect_sec >= 0) || !(options->late_sec >= 0))
        return dil_fail(err, DIL_EUSAGE, "checks every %g s, changes noticed after %g s, late after %g s", options->check_sec, options->detect_sec, options->late_sec);
    if (options->plan.entry) here.entry = dil_cluster_find(cluster, options->plan.entry);
    if (here.entry == DIL_NO_NODE) return dil_fail(err, DIL_ENOTFOUND, "the entry node \"%.100s\" is not in the cluster", options->plan.entry);
    x.base = &here;
    dil_status s = new_result(trace, &x.result, err);
    if (s != DIL_OK) return s;
    s = init(&x, err);
    if (s == DIL_OK) s = first_plan(&x, err);
    if (s == DIL_OK) s = run(&x, err);
    if (s == DIL_OK) s = summarize(x.result, err);
    fini(&x);
    if (s == DIL_OK) *out = x.result;
    else dil_sim_result_free(x.result);
    return s;
}

void dil_sim_result_free(dil_sim_result *r)
{
    if (r) dil_arena_free(r->arena);
}
