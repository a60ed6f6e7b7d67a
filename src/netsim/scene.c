/* A seed's run: the programs on the machines, the client, and the judgement. */
#include "netsim/scene.h"

#include "net/node_impl.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define MS INT64_C(1000000)
#define SEC INT64_C(1000000000)
#define HEAP_MAX ((uint64_t)64 << 20) /* bytes that one program may hold: everything is bounded, the model is small */

void scene_fail(scene *s, const char *fmt, ...)
{
    char text[500];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    sim_trace("FAILED: %s", text);
    if (!s->failure[0]) snprintf(s->failure, sizeof s->failure, "at %.6f s: %s", (double)sim_now() * 1e-9, text);
}

/* --- a node's program --------------------------------------------------------------------------------------------------------------------------- */

typedef struct node_start {
    scene *s;
    scene_node *n;
} node_start;

static void check_nothing_left(scene *s, sim_host *h)
{
    if (h->heap_blocks || h->maps || h->sockets || sim_fds(h)) {
        if (!s->failure[0]) sim_heap_list(h);
        scene_fail(s, "leak: %s ended and left %u blocks (%llu bytes), %u mappings, %u sockets, %u descriptors", h->name, h->heap_blocks,
                   (unsigned long long)h->heap_bytes, h->maps, h->sockets, sim_fds(h));
    }
}

static void *node_main(void *arg)
{
    node_start *a = arg;
    scene *s = a->s;
    scene_node *n = a->n;
    dil_node *node = NULL;
    dil_err err;
    dil_node_opts o = {.listen = n->address, .memory_bytes = n->memory_bytes, .n_threads = 1, .insecure = true, .cache_dir = n->cache};
    free(a);
    if (dil__node_start(&o, &toy_engine, &node, &err) != DIL_OK) {
        scene_fail(s, "node %s does not start: %s", n->host->name, err.text);
        return NULL;
    }
    n->running = true;
    while (!n->stopping) sim_wait(&(const void *){n}, 1, INT64_MAX);
    dil_node_stop(node);
    check_nothing_left(s, n->host);
    n->running = false;
    return NULL;
}

void scene_start_node(scene *s, scene_node *n)
{
    node_start *a = sim_alloc(sizeof *a);
    *a = (node_start){s, n};
    n->stopping = false;
    sim_spawn(n->host, node_main, a);
}

/* --- the client ------------------------------------------------------------------------------------------------------------------------------------ */

/* An error is the promised one when the nodes could not hold the model for the whole of the patience; a node that refused is left alone for 30 s,
 * a link that swallowed a work for 60 s, and noticing takes its time. */
static bool may_give_up(const scene *s)
{
    double slack = 12 + (s->odd_faults ? 45 : 0) + (s->link_faults ? 75 : 0);
    return s->cannot_ns == INT64_MAX || (s->cannot_ns && (double)(sim_now() - s->cannot_ns) * 1e-9 < slack);
}

static void judge_error(scene *s, scene_request *q, const dil_err *e)
{
    int which = (int)(q - s->request);
    q->ended = true;
    s->n_errors++;
    sim_trace("request %d ends with an error: %s", which, e->text);
    if (e->code == DIL_ECANCELED && s->close_early_ns) return;
    if (!strstr(e->text, "cannot take over")) scene_fail(s, "request %d: an error that is not promised: %s", which, e->text);
    else if (!may_give_up(s)) scene_fail(s, "request %d was given up while the nodes can hold the model: %s", which, e->text);
}

static void judge_end(scene *s, scene_request *q, const dil_gen_event *e)
{
    int which = (int)(q - s->request);
    q->ended = true;
    s->n_done++;
    sim_trace("request %d is done: %u tokens", which, q->n_got);
    if (e->finish == DIL_FINISH_CANCELED) {
        if (!q->canceled) scene_fail(s, "request %d ended as canceled, nobody canceled it", which);
        return;
    }
    if (q->n_got != q->n_expect) scene_fail(s, "request %d ended after %u tokens of %u", which, q->n_got, q->n_expect);
    if ((e->finish == DIL_FINISH_STOP) != q->stopped) scene_fail(s, "request %d ended by %s", which, q->stopped ? "length, not at its stop" : "a stop that it does not reach");
}

static void on_event(void *ctx, uint64_t id, const dil_gen_event *e)
{
    scene *s = ctx;
    scene_request *q = NULL;
    for (uint32_t i = 0; i < s->n_requests; i++) {
        if (s->request[i].submitted && s->request[i].id == id) q = &s->request[i];
    }
    if (!q || q->ended) {
        scene_fail(s, "an event of request %llu, which is %s", (unsigned long long)id, q ? "over" : "unknown");
        return;
    }
    int which = (int)(q - s->request);
    if (e->kind == DIL_GEN_ERROR) judge_error(s, q, e->error);
    if (e->kind == DIL_GEN_DONE) judge_end(s, q, e);
    if (e->kind != DIL_GEN_TOKEN) return;
    if (q->n_got >= q->n_expect || e->token != q->expect[q->n_got])
        scene_fail(s, "request %d: token %u is %d, the text says %d", which, q->n_got, e->token, q->n_got < q->n_expect ? q->expect[q->n_got] : -1);
    sim_trace("request %d: token %u", which, q->n_got);
    q->n_got++;
    if (e->n_generated != q->n_got) scene_fail(s, "request %d: token %u comes as number %u", which, q->n_got, e->n_generated);
}

static void submit(scene *s, scene_request *q)
{
    dil_gen_req r = {.prompt = q->prompt, .n_prompt = q->n_prompt, .max_tokens = q->max, .sampler = q->sampler, .stop = &q->stop, .n_stop = 1,
                     .n_top = (uint32_t)(q->n_prompt % 3), .resumed = q->expect, .n_resumed = q->n_resumed,
                     .resumed_stop = q->n_resumed && q->n_resumed == q->n_expect && q->stopped};
    dil_err err;
    q->submitted = true;
    q->id = 0; /* events may come before submit returns: the runner counts what it takes */
    for (uint32_t i = 0; i < s->n_requests; i++) q->id += s->request[i].submitted;
    dil_status st = dil_runner_submit(s->runner, &r, on_event, s, &q->id, &err);
    if (st == DIL_OK) {
        sim_trace("request %d: %u tokens in, %u out", (int)(q - s->request), q->n_prompt, q->n_expect);
        return;
    }
    q->submitted = false;
    if (st != DIL_ENET) scene_fail(s, "request %d is refused: %s", (int)(q - s->request), err.text);
}

static bool serve_requests(scene *s)
{
    bool all = true;
    for (uint32_t i = 0; i < s->n_requests; i++) {
        scene_request *q = &s->request[i];
        if (!q->submitted && sim_now() >= q->start_ns) submit(s, q);
        if (q->submitted && !q->ended && !q->canceled && q->cancel_ns && sim_now() >= q->cancel_ns) {
            q->canceled = true;
            dil_runner_cancel(s->runner, q->id);
        }
        all = all && q->ended;
    }
    return all;
}

/* As whoever serves does: now and then a look at the state and the nodes, from a thread of its own. */
static void look(scene *s)
{
    dil_runner_state st;
    dil_ring_node node[SCENE_NODES_MAX];
    dil_runner_get_state(s->runner, &st);
    s->was_ready |= st.ready;
    s->n_recoveries = st.n_recoveries;
    if (dil_ring_nodes(s->runner, node, SCENE_NODES_MAX) > s->n_nodes) scene_fail(s, "more nodes than there are");
}

/* Nobody will ever hold the model, and whoever asked was told; or, before it was ready once, a node of the plan refuses: that is for a person to mend. */
static bool hopeless(const scene *s)
{
    int64_t settled = s->healed_ns + (int64_t)((s->opts.patience_sec + 40) * 1e9);
    bool refuses = false;
    for (uint32_t i = 0; i < s->n_nodes; i++) refuses = refuses || s->node[i].poorer;
    if ((s->cannot_ns != INT64_MAX && (s->was_ready || !refuses)) || sim_now() < settled) return false;
    for (uint32_t i = 0; i < s->n_requests; i++) {
        if (s->request[i].submitted && !s->request[i].ended) return false;
    }
    return true;
}

static void *client_main(void *arg)
{
    scene *s = arg;
    dil_err err;
    if (dil_runner_ring(&s->plan, &s->cluster, s->model->gguf, &s->model->arch, &s->opts, &s->runner, &err) != DIL_OK) {
        scene_fail(s, "no runner: %s", err.text);
        return NULL;
    }
    dil_runner_speculate(s->runner, s->speculate);
    while (!serve_requests(s) && !s->failure[0] && !hopeless(s)) {
        if (s->close_early_ns && sim_now() > s->close_early_ns) break;
        look(s);
        sim_sleep(20 * MS);
    }
    dil_runner_close(s->runner);
    for (uint32_t i = 0; i < s->n_requests; i++) {
        if (s->request[i].submitted && !s->request[i].ended) scene_fail(s, "request %u was never ended", i);
    }
    check_nothing_left(s, s->home);
    s->closed = true;
    return NULL;
}

/* --- the run ------------------------------------------------------------------------------------------------------------------------------------------- */

static bool is_closed(void *ctx)
{
    const scene *s = ctx;
    return s->closed || s->failure[0];
}

static bool all_stopped(void *ctx)
{
    const scene *s = ctx;
    bool any = false;
    for (uint32_t i = 0; i < s->n_nodes; i++) any = any || s->node[i].running;
    return !any || s->failure[0];
}

static void stop_nodes(scene *s)
{
    for (uint32_t i = 0; i < s->n_nodes; i++) {
        s->node[i].stopping = true;
        sim_wake(&s->node[i], INT32_MAX);
    }
}

static void say_stuck(scene *s, const char *what)
{
    uint32_t open = 0;
    for (uint32_t i = 0; i < s->n_requests; i++) open += s->request[i].submitted && !s->request[i].ended;
    scene_fail(s, "%s: %u requests are open", what, open);
    sim_list_tasks();
}

static void check_bounds(scene *s)
{
    for (int i = 0; sim_host_at(i); i++) {
        sim_host *h = sim_host_at(i);
        if (h->heap_peak > HEAP_MAX) scene_fail(s, "%s held %llu bytes", h->name, (unsigned long long)h->heap_peak);
    }
    if (sim_queue_most() > SIM_HWM) scene_fail(s, "%u messages stood in one queue", sim_queue_most());
}

bool scene_run(scene *s, uint64_t seed, const scene_model *models, uint32_t n_models, const char *folder, bool trace)
{
    *s = (scene){.seed = seed};
    snprintf(s->folder, sizeof s->folder, "%s", folder);
    sim_begin(&(sim_options){.seed = seed, .trace = trace});
    sim_sockets_begin();
    sim_wire_begin();
    s->model = &models[dil_rng_below(sim_rng(), n_models)];
    scene_draw(s);
    scene_schedule_faults(s);
    for (uint32_t i = 0; i < s->n_nodes; i++) scene_start_node(s, &s->node[i]);
    sim_spawn(s->home, client_main, s);
    int64_t until = (s->healed_ns > 10 * SEC ? s->healed_ns : 10 * SEC) + (int64_t)((s->opts.patience_sec + 180) * 1e9);
    if (!sim_run(until, is_closed, s)) say_stuck(s, "nothing ends");
    if (!s->failure[0]) {
        for (int i = 0; sim_host_at(i); i++) sim_host_at(i)->paused_until = 0;
        stop_nodes(s);
        if (!sim_run(sim_now() + 60 * SEC, all_stopped, s)) say_stuck(s, "the nodes do not stop");
    }
    check_bounds(s);
    sim_sockets_drop(NULL);
    sim_wire_end();
    sim_finish();
    return !s->failure[0];
}
