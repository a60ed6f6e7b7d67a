/* Requests over a plan: every node and directed link is a server with a queue, first come first served. What a service takes follows
 * docs/PLANNER.md's model of one request, so that without waiting the sum is dil_plan_predict's. */
#include "sim/sim_int.h"

#include <math.h>
#include <stdlib.h>

#define TOKEN_ID_BYTES 4.0

/* --- events ------------------------------------------------------------------------------------------------------------- */

static bool earlier(const dil__event *a, const dil__event *b)
{
    return a->at_sec != b->at_sec ? a->at_sec < b->at_sec : a->order < b->order;
}

void dil__sim_push(dil__sim *x, double at_sec, dil__what what, uint32_t arg)
{
    if (x->n_heap == x->cap_heap) {
        size_t cap = x->cap_heap ? 2 * x->cap_heap : 1024;
        dil__event *heap = realloc(x->heap, cap * sizeof *heap);
        if (!heap) {
            x->out_of_memory = true;
            return;
        }
        x->heap = heap;
        x->cap_heap = cap;
    }
    dil__event e = {at_sec, x->n_made++, what, arg, x->epoch};
    size_t i = x->n_heap++;
    for (; i > 0 && earlier(&e, &x->heap[(i - 1) / 2]); i = (i - 1) / 2) x->heap[i] = x->heap[(i - 1) / 2];
    x->heap[i] = e;
}

/* --- tasks -------------------------------------------------------------------------------------------------------------- */

static uint32_t new_task(dil__sim *x, uint32_t request, dil__task_kind kind, double tokens)
{
    uint32_t t = x->free_task;
    if (t != DIL__NONE) {
        x->free_task = x->task[t].next;
    } else {
        if (x->n_tasks == x->cap_tasks) {
            uint32_t cap = x->cap_tasks ? 2 * x->cap_tasks : 256;
            dil__task *task = realloc(x->task, cap * sizeof *task);
            if (!task) {
                x->out_of_memory = true;
                return DIL__NONE;
            }
            x->task = task;
            x->cap_tasks = cap;
        }
        t = x->n_tasks++;
    }
    x->task[t] = (dil__task){.request = request, .next = DIL__NONE, .kind = kind, .tokens = tokens};
    return t;
}

static void free_task(dil__sim *x, uint32_t t)
{
    x->task[t].next = x->free_task;
    x->free_task = t;
}

/* --- what a service takes ----------------------------------------------------------------------------------------------- */

static double decode_sec(const dil__sim *x, uint32_t layer, uint32_t node, double cached)
{
    const dil_profile_layer *l = &x->prof->layers[layer];
    double more = l->decode_sec_per_cached ? l->decode_sec_per_cached[node] * (cached - x->prof->n_past) : 0;
    return fmax(0, x->level[layer]->decode_sec[node] + more);
}

static double compute_sec(const dil__sim *x, const dil__task *t, const dil__stage *g)
{
    const dil_sim_request *r = &x->result->requests[t->request];
    double cached = r->tokens_in + 0.5 * r->tokens_out, sec = 0;
    uint32_t head = x->prof->n_layers - 1, node = x->prof_node[g->node];
    for (uint32_t l = g->first; l <= g->last; l++) {
        if (t->kind == DIL__TOKEN || (l == head && t->kind == DIL__LAST_CHUNK)) sec += decode_sec(x, l, node, cached);
        else if (l < head) sec += t->tokens * x->level[l]->prefill_sec[node];
    }
    return sec;
}

static double bytes_of(const dil__sim *x, const dil__task *t)
{
    uint32_t stage = t->place / 2;
    bool to_head = stage < x->plan->n_stages && x->stage[stage].first == x->prof->n_layers - 1;
    double tokens = t->kind == DIL__TOKEN || to_head ? 1 : t->tokens;
    if (stage == 0) return TOKEN_ID_BYTES * (t->kind == DIL__TOKEN ? 1 : t->tokens);
    if (stage == x->plan->n_stages) return TOKEN_ID_BYTES;
    return tokens * (double)x->prof->hidden_bytes;
}

/* --- servers ------------------------------------------------------------------------------------------------------------ */

static uint32_t link_index(const dil__sim *x, uint32_t from, uint32_t to)
{
    const dil_cluster_link *k = dil_cluster_link_get(x->base, from, to);
    return k ? (uint32_t)(k - x->base->links) : DIL__NONE;
}

static void serve_next(dil__sim *x, uint32_t resource)
{
    dil__resource *r = &x->resource[resource];
    if (r->busy || r->head == DIL__NONE) return;
    const dil__task *t = &x->task[r->head];
    double sec = t->place % 2 ? compute_sec(x, t, &x->stage[t->place / 2])
                              : bytes_of(x, t) / x->link[resource - x->base->n_nodes].bytes_per_sec;
    r->busy = true;
    r->serving = r->head;
    r->head = t->next;
    if (r->head == DIL__NONE) r->tail = DIL__NONE;
    dil__sim_push(x, x->now + sec, DIL__EV_DONE, resource);
}

static void queue_at(dil__sim *x, uint32_t resource, uint32_t t)
{
    dil__resource *r = &x->resource[resource];
    x->task[t].next = DIL__NONE;
    if (r->tail == DIL__NONE) r->head = t;
    else x->task[r->tail].next = t;
    r->tail = t;
    serve_next(x, resource);
}

static void token_made(dil__sim *x, uint32_t t)
{
    uint32_t i = x->task[t].request;
    dil_sim_request *r = &x->result->requests[i];
    if (isnan(r->first_token_sec)) r->first_token_sec = x->now;
    if (++x->done[i] == r->tokens_out) {
        r->done_sec = x->now;
        x->state[i] = DIL__ANSWERED;
        x->n_running--;
        x->result->n_answered++;
        free_task(x, t);
        dil__sim_admit(x);
        return;
    }
    x->task[t].kind = DIL__TOKEN;
    x->task[t].place = 0;
    dil__sim_ready(x, t);
}

/* The task is at its place; hops to the node where it is take nothing. */
void dil__sim_ready(dil__sim *x, uint32_t t)
{
    dil__task *k = &x->task[t];
    uint32_t n = x->plan->n_stages, entry = x->base->entry, head = x->prof->n_layers - 1;
    for (;; k->place++) {
        uint32_t i = k->place / 2;
        bool at_end = k->place > 2 * n;
        /* a chunk but the last is done where nothing but the head is left */
        if (k->kind == DIL__CHUNK && (at_end || k->place == 2 * n || x->stage[i].first == head)) {
            free_task(x, t);
            return;
        }
        if (at_end) {
            token_made(x, t);
            return;
        }
        if (k->place % 2) {
            queue_at(x, x->stage[i].node, t);
            return;
        }
        uint32_t from = i == 0 ? entry : x->stage[i - 1].node, to = i == n ? entry : x->stage[i].node;
        if (from == to) continue;
        queue_at(x, x->base->n_nodes + link_index(x, from, to), t);
        return;
    }
}

void dil__sim_finish(dil__sim *x, uint32_t resource)
{
    dil__resource *r = &x->resource[resource];
    uint32_t t = r->serving;
    bool link = resource >= x->base->n_nodes;
    r->busy = false;
    x->task[t].place++;
    if (link) dil__sim_push(x, x->now + x->link[resource - x->base->n_nodes].latency_sec, DIL__EV_READY, t);
    serve_next(x, resource);
    if (!link) dil__sim_ready(x, t);
}

/* --- requests ----------------------------------------------------------------------------------------------------------- */

/* The prompt and what was answered before go in as one prompt. */
static void begin(dil__sim *x, uint32_t i)
{
    double tokens = (double)x->result->requests[i].tokens_in + x->done[i], chunks = ceil(tokens / x->prof->batch);
    for (double c = 0; c < chunks && !x->out_of_memory; c++) {
        uint32_t t = new_task(x, i, c + 1 < chunks ? DIL__CHUNK : DIL__LAST_CHUNK, tokens / chunks);
        if (t != DIL__NONE) dil__sim_ready(x, t);
    }
}

void dil__sim_admit(dil__sim *x)
{
    uint32_t most = x->prof->sequences ? x->prof->sequences : 1;
    if (x->broken || x->moving) return;
    while (x->first_waiting < x->n_seen && x->n_running < most) {
        uint32_t i = x->first_waiting++;
        x->state[i] = DIL__RUNNING;
        x->n_running++;
        if (isnan(x->result->requests[i].start_sec)) x->result->requests[i].start_sec = x->now;
        begin(x, i);
    }
}

void dil__sim_arrive(dil__sim *x, uint32_t request)
{
    x->n_seen = request + 1;
    dil__sim_admit(x);
}

void dil__sim_interrupt(dil__sim *x)
{
    x->epoch++;
    x->n_tasks = 0;
    x->free_task = DIL__NONE;
    for (uint32_t i = 0; i < x->base->n_nodes + x->base->n_links; i++) x->resource[i] = (dil__resource){.head = DIL__NONE, .tail = DIL__NONE};
}

void dil__sim_restart(dil__sim *x)
{
    uint32_t n = x->n_running;
    for (uint32_t i = 0; i < x->n_seen && n > 0; i++) {
        if (x->state[i] != DIL__RUNNING) continue;
        x->result->requests[i].replays++;
        n--;
        begin(x, i);
    }
    dil__sim_admit(x);
}
