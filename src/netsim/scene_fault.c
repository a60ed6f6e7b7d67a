/* Faults, each with a beginning and an end, and what the nodes could hold meanwhile: whether an error may be told to a client is judged by that. */
#include "netsim/scene.h"

#include <dirent.h>
#include <limits.h>
#include <string.h>

/* Blocks that fit on what is whole. Of a pair whose link is broken only the larger one counts: the planner may use both, but need not be able to. */
bool scene_can_hold(const scene *s)
{
    uint32_t sum = 0;
    bool out[SCENE_NODES_MAX];
    for (uint32_t i = 0; i < s->n_nodes; i++) {
        const scene_node *n = &s->node[i];
        out[i] = n->down || n->isolated || n->full || n->poorer || n->host->paused_until > sim_now() || sim_link_blocked(s->home, n->host) ||
                 sim_link_blocked(n->host, s->home);
    }
    for (uint32_t i = 0; i < s->n_nodes; i++) {
        for (uint32_t k = i + 1; k < s->n_nodes; k++) {
            if (out[i] || out[k] || (!sim_link_blocked(s->node[i].host, s->node[k].host) && !sim_link_blocked(s->node[k].host, s->node[i].host))) continue;
            out[s->node[i].capacity < s->node[k].capacity ? i : k] = true;
        }
    }
    for (uint32_t i = 0; i < s->n_nodes; i++) sum += out[i] ? 0 : s->node[i].capacity;
    return sum >= s->model->n_blocks;
}

void scene_note(scene *s)
{
    bool can = scene_can_hold(s) && s->home->paused_until <= sim_now();
    if (!can) s->cannot_ns = INT64_MAX;
    else if (s->cannot_ns == INT64_MAX) s->cannot_ns = sim_now();
}

static scene *the_scene; /* of the events */

static void note(void *ctx, uint64_t arg)
{
    (void)ctx, (void)arg;
    scene_note(the_scene);
}

/* --- nodes ------------------------------------------------------------------------------------------------------------------------------------ */

void scene_remove(const char *path)
{
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));) {
        char inside[PATH_MAX];
        bool itself = strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0;
        if (!itself && snprintf(inside, sizeof inside, "%s/%s", path, e->d_name) < (int)sizeof inside) scene_remove(inside);
    }
    if (d) closedir(d);
    remove(path);
}

/* The least name in a folder: folders list theirs in any order. False: none. */
static bool least_name(const char *folder, char out[80])
{
    DIR *d = opendir(folder);
    out[0] = 0;
    for (struct dirent *e; d && (e = readdir(d));) {
        if (e->d_name[0] != '.' && (!out[0] || strcmp(e->d_name, out) < 0)) snprintf(out, 80, "%.79s", e->d_name);
    }
    if (d) closedir(d);
    return out[0] != 0;
}

/* Flips a byte of a chunk. */
static void rot_disk(const scene_node *n)
{
    char name[80], folder[300], path[400] = "";
    if (least_name(n->cache, name)) {
        snprintf(folder, sizeof folder, "%s/%s", n->cache, name);
        if (least_name(folder, name)) snprintf(path, sizeof path, "%s/%s", folder, name);
    }
    FILE *f = path[0] ? fopen(path, "r+b") : NULL;
    if (!f) return;
    int c = fgetc(f);
    rewind(f);
    fputc(c ^ 1, f);
    fclose(f);
    sim_trace("a chunk on the disk of %s is not what it was", n->host->name);
}

static void end_process(scene_node *n, bool silently)
{
    n->down = true;
    sim_wire_gone(n->host, silently);
    sim_sockets_drop(n->host);
    sim_host_kill(n->host);
    n->host->up = false;
    n->running = n->stopping = false;
}

static void begin_again(void *ctx, uint64_t arg)
{
    scene_node *n = ctx;
    const scene_fault *f = &the_scene->fault[arg];
    if (the_scene->closed) return; /* all is being stopped */
    sim_trace("%s starts again%s", n->host->name, f->lose_disk ? " with an empty disk" : "");
    if (f->lose_disk) scene_remove(n->cache);
    else if (f->rot) rot_disk(n);
    sim_wire_back(n->host);
    n->host->up = true;
    n->down = false;
    scene_start_node(the_scene, n);
    scene_note(the_scene);
}

static void wait_for_stop(void *ctx, uint64_t arg)
{
    scene_node *n = ctx;
    const scene_fault *f = &the_scene->fault[arg];
    if (n->running) sim_at(sim_now() + 10000000, wait_for_stop, ctx, arg);
    else if (!f->for_ever) sim_at(f->end_ns, begin_again, ctx, arg);
}

static void hit_node(scene *s, scene_fault *f, uint64_t index)
{
    scene_node *n = &s->node[f->node];
    n->free_ns = f->for_ever ? INT64_MAX : f->end_ns + 1;
    if (f->poorer && !f->for_ever && n->capacity > 1) { /* comes back with less memory than the cluster file says */
        n->memory_bytes -= scene_block_bytes(s);
        n->poorer = true;
    }
    if (f->kind == FAULT_STOP) {
        n->stopping = n->down = true;
        sim_wake(n, INT32_MAX);
        wait_for_stop(n, index);
        return;
    }
    end_process(n, f->kind == FAULT_POWER);
    if (!f->for_ever) sim_at(f->end_ns, begin_again, n, index);
}

/* --- links --------------------------------------------------------------------------------------------------------------------------------------- */

static void block_node(scene *s, uint32_t node, bool on)
{
    for (int i = 0; sim_host_at(i); i++) {
        sim_host *other = sim_host_at(i), *h = s->node[node].host;
        if (other == h) continue;
        sim_link_block(h, other, on);
        sim_link_block(other, h, on);
    }
    s->node[node].isolated = on;
}

static void heal(void *ctx, uint64_t index)
{
    scene_fault *f = ctx;
    scene *s = the_scene;
    scene_node *n = &s->node[f->node];
    (void)index;
    sim_trace("what was wrong (%d) is well again", (int)f->kind);
    switch (f->kind) {
    case FAULT_ISOLATE: block_node(s, f->node, false); break;
    case FAULT_SLOW: n->host->slow = s->pace; break;
    case FAULT_DISK: n->host->disk_full = n->full = false; break;
    case FAULT_BLOCK:
        sim_link_block(f->from, f->to, false);
        sim_link_block(f->to, f->from, false);
        break;
    case FAULT_STRETCH: sim_link_stretch(f->from, f->to, 1); break;
    default: break;
    }
    scene_note(s);
}

static void pause_host(sim_host *h, int64_t until)
{
    h->paused_until = until;
    sim_wire_paused(h);
    sim_at(until, note, NULL, 0);
}

static void begin(void *ctx, uint64_t index)
{
    static const char *const name[] = {"killed", "without power", "stopped", "frozen", "isolated", "slow", "full", "a blocked link", "a reset", "a slow link", "sleep"};
    scene_fault *f = ctx;
    scene *s = the_scene;
    scene_node *n = &s->node[f->node];
    bool of_node = f->kind <= FAULT_DISK;
    if (s->closed || (of_node && (n->free_ns > sim_now() || n->stopping))) return; /* who is stopping takes its time */
    sim_trace("fault: %s, %s or %s-%s, for %.3f s%s", name[f->kind], n->host->name, f->from->name, f->to->name, (double)(f->end_ns - f->start_ns) * 1e-9,
              f->for_ever && f->kind <= FAULT_STOP ? ", for ever" : "");
    if (of_node) n->free_ns = f->end_ns + 1;
    switch (f->kind) {
    case FAULT_CRASH: case FAULT_POWER: case FAULT_STOP: hit_node(s, f, index); break;
    case FAULT_PAUSE: pause_host(n->host, f->end_ns); break;
    case FAULT_SLEEP: pause_host(s->home, f->end_ns); break;
    case FAULT_ISOLATE: block_node(s, f->node, true); break;
    case FAULT_SLOW: n->host->slow = s->pace * f->factor; break;
    case FAULT_DISK: n->host->disk_full = n->full = true; break;
    case FAULT_BLOCK:
        sim_link_block(f->from, f->to, true);
        if (!f->one_way) sim_link_block(f->to, f->from, true);
        break;
    case FAULT_RESET: sim_link_reset(f->from, f->to); break;
    case FAULT_STRETCH: sim_link_stretch(f->from, f->to, f->factor); break;
    case FAULT_KINDS: break;
    }
    if (f->kind > FAULT_PAUSE && f->kind != FAULT_SLEEP && f->kind != FAULT_RESET) sim_at(f->end_ns, heal, f, index);
    s->odd_faults |= f->kind == FAULT_DISK || n->poorer;
    s->link_faults |= f->kind == FAULT_BLOCK || f->kind == FAULT_ISOLATE || f->kind == FAULT_STRETCH || f->kind == FAULT_RESET;
    scene_note(s);
}

void scene_schedule_faults(scene *s)
{
    the_scene = s;
    s->healed_ns = 0;
    for (uint32_t i = 0; i < s->n_faults; i++) {
        sim_at(s->fault[i].start_ns, begin, &s->fault[i], i);
        if (s->fault[i].end_ns > s->healed_ns) s->healed_ns = s->fault[i].end_ns;
    }
}
