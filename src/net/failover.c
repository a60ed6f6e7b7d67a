/* The thread that decides. It looks at the ring (which watches its own nodes), watches the other nodes of the cluster, and asks the
 * planner in three cases: the ring lost a node or link; patience in vain, but something changed; the ring runs, but a node is back or
 * computes at another speed than was measured. A plan becomes a ring of its own, with a session of its own on its nodes: what a node has
 * in its cache is not sent again, and frames of the old session find nobody. Changing the running ring in place was rejected: every
 * half of it would have to know two plans at once. */
#include "net/failover.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define GRACE_NS INT64_C(250000000)      /* losses that come together are planned around together */
#define RETRY_NS INT64_C(2000000000)     /* without a plan the planner is asked again so often */
#define REFUSED_NS INT64_C(30000000000)  /* a node that refused its layers is left alone for so long */
#define REFUSED_FEW_NS INT64_C(3000000000) /* or for so long where there is no plan without it: its disk may have room again */
#define LINK_NS INT64_C(60000000000)     /* and a link that swallowed a work */
#define SETTLE_SEC 5.0                   /* a node that is back proves itself for so long; doubled with every loss */
#define SETTLE_SEC_MAX 600.0
#define SLOW_NS INT64_C(60000000000)     /* a slow node that holds nothing may have become fast again after so long */
#define ROUNDS_NS INT64_C(500000000)     /* between looks at how long rounds take */
#define START_LOST 5                     /* times detect_sec that the plan's nodes have to answer at the start */
#define PLAN_SEC 0.6                     /* for the planner while requests wait */
#define PLAN_LONG_SEC 10.0               /* where that found none, or nobody waits */
#define MARGIN 0.1

static double sec_since(int64_t then)
{
    return (double)(dil_now_ns() - then) * 1e-9;
}

/* --- what the ring says --------------------------------------------------------------------------------------------------------------- */

typedef struct glance {
    bool ready, was_ready;
    uint32_t n_lost;
    dil_err err;              /* of the first loss */
    char name[DIL_NAME_MAX];  /* its node; "" for a link */
} glance;

static bool is_lost(const dil__ring_node *n)
{
    return n->err.code != DIL_OK && (n->phase == DIL__NODE_CONNECTS || n->phase == DIL__NODE_REFUSES);
}

/* A node that took longer to answer than allowed, or that did not answer at all since the ring was opened. */
static void note_loss(dil__failover *f, const dil__ring_node *n, int64_t now)
{
    uint32_t i = dil_cluster_find(f->cluster, n->name);
    if (i == DIL_NO_NODE) return;
    if (n->phase == DIL__NODE_REFUSES) f->fate[i].refused_ns = now;
    f->fate[i].lost_ns = now;
}

static void note_link(dil__failover *f, const char *from, const char *to, int64_t now)
{
    uint32_t a = dil_cluster_find(f->cluster, from), b = dil_cluster_find(f->cluster, to);
    for (uint32_t k = 0; k < f->cluster->n_links; k++) {
        const dil_cluster_link *l = &f->cluster->links[k];
        if (l->from == a && l->to == b) f->link_down_ns[k] = now;
    }
}

static glance look(dil__failover *f)
{
    dil__ring *r = f->ring; /* only the scheduler replaces it, and only by what this thread gave it */
    int64_t now = dil_now_ns();
    glance g = {0};
    pthread_mutex_lock(&r->lock);
    g.ready = r->ready;
    g.was_ready = r->was_ready;
    for (uint32_t i = 0; i < r->n_nodes; i++) {
        const dil__ring_node *n = &r->node[i];
        if (!is_lost(n)) continue;
        if (g.n_lost++ == 0) {
            g.err = n->err;
            snprintf(g.name, sizeof g.name, "%s", n->name);
        }
        note_loss(f, n, now);
    }
    if (!g.ready && r->broken_to != UINT32_MAX) {
        note_link(f, r->node[r->broken_from].name, r->node[r->broken_to].name, now);
        if (g.n_lost++ == 0) g.err = r->reset_err;
        r->broken_from = r->broken_to = UINT32_MAX;
    }
    pthread_mutex_unlock(&r->lock);
    return g;
}

/* Under the ring's lock; NULL: it is not in the ring. */
static const dil__ring_node *in_ring(const dil__ring *r, const char *name)
{
    for (uint32_t i = 0; i < r->n_nodes; i++) {
        if (strcmp(r->node[i].name, name) == 0) return &r->node[i];
    }
    return NULL;
}

/* --- asking the planner ------------------------------------------------------------------------------------------------------------------ */

static double settle_sec(const dil__failover *f, uint32_t node)
{
    return fmin(SETTLE_SEC_MAX, SETTLE_SEC * pow(2, f->fate[node].n_lost > 1 ? f->fate[node].n_lost - 1 : 0));
}

static bool is_settled(const dil__failover *f, uint32_t node)
{
    const dil__member *m = node < f->members.n ? &f->members.member[node] : NULL;
    return m && m->since_ns && (f->fate[node].n_lost == 0 || sec_since(m->since_ns) >= settle_sec(f, node));
}

typedef enum circle { PROVED, ANSWERING, REFUSERS_TOO } circle; /* each holds the one before */

/* Who may hold layers. */
static void fill_nodes(dil__failover *f, circle who, dil__replan_node *out)
{
    int64_t now = dil_now_ns();
    for (uint32_t i = 0; i < f->cluster->n_nodes; i++) {
        uint64_t planned = f->cluster->nodes[i].memory_bytes;
        pthread_mutex_lock(&f->ring->lock);
        const dil__ring_node *n = in_ring(f->ring, f->cluster->nodes[i].name);
        bool inside = n != NULL, lost = n && is_lost(n);
        uint64_t left = n && n->memory_known ? n->memory_free : planned; /* beside the other models there */
        pthread_mutex_unlock(&f->ring->lock);
        const dil__member *m = i < f->members.n ? &f->members.member[i] : NULL;
        bool answers = m && m->since_ns;
        out[i] = (dil__replan_node){.usable = inside ? !lost : who >= ANSWERING ? answers : is_settled(f, i), .slower = f->fate[i].slower};
        if (inside && left < planned) out[i].memory_bytes = left ? left : 1;
        if (!inside && answers) out[i].memory_bytes = m->memory_free ? m->memory_free : 1;
        if (f->fate[i].refused_ns && now - f->fate[i].refused_ns < (who == REFUSERS_TOO ? REFUSED_FEW_NS : REFUSED_NS)) out[i].usable = false;
    }
}

static bool had_layer(void *ctx, const char *node, uint32_t layer, const char *level)
{
    const dil__failover *f = ctx;
    (void)level; /* a layer has one level here */
    uint32_t i = dil_cluster_find(f->cluster, node);
    return i != DIL_NO_NODE && f->fate[i].had[layer];
}

static dil_status make_replan(dil__failover *f, dil_err *err)
{
    if (f->replan) return DIL_OK;
    dil_stage_opts o = {.n_ctx = f->o.n_ctx, .n_seq = f->o.n_seq, .max_batch = f->o.chunk, .kv_type = f->o.kv_type, .fixed_shapes = f->o.fixed_shapes,
                        .n_threads = 1};
    return dil__replan_new(f->first_plan, f->cluster, f->model, &f->arch, &o, &f->replan, err);
}

static dil_status ask(dil__failover *f, circle who, double limit_sec, dil_plan **out, dil_migration *m, dil_err *err)
{
    dil__replan_node *node = calloc(f->cluster->n_nodes, sizeof *node);
    uint8_t *down = calloc(f->cluster->n_links + 1, 1);
    dil_status s = node && down ? make_replan(f, err) : dil_fail(err, DIL_EMEMORY, "planning again: no memory");
    if (s == DIL_OK) {
        int64_t now = dil_now_ns();
        for (uint32_t k = 0; k < f->cluster->n_links; k++) down[k] = f->link_down_ns[k] && now - f->link_down_ns[k] < LINK_NS;
        fill_nodes(f, who, node);
        dil_migrate_options mo = {.horizon_sec = f->o.horizon_sec, .margin = MARGIN, .has = had_layer, .has_ctx = f};
        s = dil__replan_make(f->replan, f->plan, node, down, f->link_now, &mo, limit_sec, out, m, err);
    }
    free(node);
    free(down);
    return s;
}

/* "a 0-12, b 13-31" */
static const char *describe(const dil_plan *p, char *out, size_t cap)
{
    size_t at = 0;
    out[0] = 0;
    for (uint32_t i = 0; i < p->n_stages && at + 60 < cap; i++)
        at += (size_t)snprintf(out + at, cap - at, "%s%.40s %u-%u", i ? ", " : "", p->stages[i].node, p->stages[i].first_layer, p->stages[i].last_layer);
    return out;
}

static void set_doing(dil__failover *f, const char *text)
{
    pthread_mutex_lock(&f->lock);
    snprintf(f->doing, sizeof f->doing, "%s", text);
    pthread_mutex_unlock(&f->lock);
}

/* --- moving ------------------------------------------------------------------------------------------------------------------------------- */

static void on_news(void *ctx)
{
    dil__ring_poke(((dil__failover *)ctx)->fd);
}

static void note_caches(dil__failover *f)
{
    for (uint32_t l = 0; l < f->plan->n_layers; l++) {
        uint32_t i = dil_cluster_find(f->cluster, f->plan->layers[l].node);
        if (i != DIL_NO_NODE) f->fate[i].had[l] = 1;
    }
}

static bool move_to(dil__failover *f, dil_plan *plan)
{
    dil__ring *next;
    dil_err e;
    if (dil__ring_open(plan, f->cluster, f->model, &f->arch, &f->o, false, on_news, f, &next, &e) != DIL_OK) {
        dil_log(DIL_LOG_ERROR, "keep", "the new plan cannot be run: %s", e.text);
        dil_plan_free(plan);
        return false;
    }
    pthread_mutex_lock(&f->lock);
    f->next = next;
    dil__ring_poke(f->ring->wake_fd);
    pthread_mutex_unlock(&f->lock);
    if (f->plan != f->first_plan) dil_plan_free(f->plan);
    f->plan = plan;
    for (uint32_t i = 0; i < f->cluster->n_nodes; i++) dil__tempo_restart(&f->fate[i].tempo);
    f->rounds = (dil__round_watch){0};
    return true;
}

static void close_old(dil__failover *f)
{
    pthread_mutex_lock(&f->lock);
    dil__ring *r = f->n_lookers == 0 ? f->old : NULL;
    if (r) f->old = NULL;
    pthread_mutex_unlock(&f->lock);
    if (r) r->pipe.ops->close(&r->pipe);
}

static void watch_outsiders(dil__failover *f)
{
    for (uint32_t i = 0; i < f->members.n; i++) {
        pthread_mutex_lock(&f->ring->lock);
        bool inside = in_ring(f->ring, f->cluster->nodes[i].name) != NULL;
        pthread_mutex_unlock(&f->ring->lock);
        dil__members_watch(&f->members, i, !inside);
        f->there[i] = inside || f->members.member[i].since_ns != 0;
        if (!inside && !f->members.member[i].since_ns) f->fate[i].offered = false;
    }
    if (f->links) dil__linkwatch_nodes(f->links, f->there);
}

/* --- losing and recovering -------------------------------------------------------------------------------------------------------------------- */

static void begin_loss(dil__failover *f, const glance *g)
{
    if (f->seen_ns) return;
    f->seen_ns = dil_now_ns();
    f->decide_ns = f->seen_ns + GRACE_NS;
    uint32_t i = g->name[0] ? dil_cluster_find(f->cluster, g->name) : DIL_NO_NODE;
    if (i != DIL_NO_NODE) f->fate[i].n_lost++;
    pthread_mutex_lock(&f->lock);
    if (!f->lost_ns) {
        f->lost_ns = f->seen_ns;
        snprintf(f->lost, sizeof f->lost, "%s", g->name);
    }
    snprintf(f->doing, sizeof f->doing, "%.300s", g->err.text);
    pthread_mutex_unlock(&f->lock);
    dil_log(DIL_LOG_WARN, "keep", "lost: %s", g->err.text);
}

static void give_up(dil__failover *f, const dil_err *why)
{
    pthread_mutex_lock(&f->lock);
    bool first = !f->stuck;
    f->stuck = f->give_up = true;
    dil_fail(&f->stuck_err, DIL_ENET, "%.160s, and the others cannot take over: %.300s", f->doing, why->text);
    dil__ring_poke(f->ring->wake_fd);
    pthread_mutex_unlock(&f->lock);
    if (first) dil_log(DIL_LOG_ERROR, "keep", "after %.1f s without a plan requests are refused: %s", sec_since(f->lost_ns), why->text);
}

static void decide(dil__failover *f, const glance *g)
{
    dil_plan *plan;
    dil_migration m;
    dil_err e = {0};
    char where[300], bytes[32], text[320];
    int64_t start = dil_now_ns();
    f->news = false;
    dil_status s = ask(f, ANSWERING, PLAN_SEC, &plan, &m, &e);
    if (s == DIL_EINFEASIBLE) s = ask(f, REFUSERS_TOO, PLAN_SEC, &plan, &m, &e);
    if (s == DIL_ETIMEOUT) s = ask(f, ANSWERING, PLAN_LONG_SEC, &plan, &m, &e);
    if (s == DIL_OK) {
        dil_log(DIL_LOG_INFO, "keep", "planned around %s in %.0f ms: %s; %s to send, %.1f ms a token predicted", g->name[0] ? g->name : "the link",
                sec_since(start) * 1e3, describe(plan, where, sizeof where), dil_format_bytes((uint64_t)m.moved_bytes, bytes), plan->token_sec * 1e3);
        snprintf(text, sizeof text, "%.100s is lost; moving to %.170s", g->name[0] ? g->name : "a link", where);
        set_doing(f, text);
        f->seen_ns = 0;
        if (move_to(f, plan)) return;
    }
    f->decide_ns = dil_now_ns() + RETRY_NS;
    if (s != DIL_OK && strcmp(e.text, f->stuck_err.text) != 0) dil_log(DIL_LOG_WARN, "keep", "no plan without %s yet: %s", g->name, e.text);
    if (s != DIL_OK && !f->stuck && sec_since(f->lost_ns) > f->o.patience_sec) give_up(f, &e);
}

/* For a coordinator that starts again. The seconds are those that were measured, not what the nodes do at the moment. */
static void write_plan(const dil__failover *f)
{
    dil_err e;
    dil_plan p = *f->plan;
    p.costs = f->first_plan->costs;
    if (!f->o.plan_path || f->plan == f->first_plan) return;
    if (dil_plan_write(f->o.plan_path, &p, &e) != DIL_OK) dil_log(DIL_LOG_WARN, "keep", "the plan that runs is not kept: %s", e.text);
}

static void recovered(dil__failover *f)
{
    pthread_mutex_lock(&f->lock);
    int64_t since = f->lost_ns;
    f->lost_ns = 0;
    f->stuck = f->give_up = false;
    f->stuck_err = (dil_err){0};
    f->doing[0] = f->lost[0] = 0;
    pthread_mutex_unlock(&f->lock);
    f->seen_ns = 0;
    if (since) dil_log(DIL_LOG_INFO, "keep", "going on after %.2f s", sec_since(since));
    note_caches(f);
    write_plan(f);
}

/* --- better plans ------------------------------------------------------------------------------------------------------------------------------ */

static bool someone_is_new(dil__failover *f, char name[DIL_NAME_MAX])
{
    bool any = false;
    for (uint32_t i = 0; i < f->members.n; i++) {
        if (!f->members.member[i].dial_ns || f->fate[i].offered || !is_settled(f, i)) continue;
        f->fate[i].offered = true;
        if (f->fate[i].n_lost == 0) continue; /* it was there when the plan was made */
        if (!any) snprintf(name, DIL_NAME_MAX, "%s", f->cluster->nodes[i].name);
        any = true;
    }
    return any;
}

static void drop_fetch(dil__failover *f)
{
    if (f->fetch) f->fetch->pipe.ops->close(&f->fetch->pipe);
    f->fetch = NULL;
    dil_plan_free(f->fetch_plan);
    f->fetch_plan = NULL;
}

static void consider(dil__failover *f, const char *why)
{
    dil_plan *plan;
    dil_migration m;
    dil_err e = {0};
    char where[300], bytes[32];
    if (ask(f, PROVED, PLAN_LONG_SEC / 4, &plan, &m, &e) != DIL_OK) {
        dil_log(DIL_LOG_WARN, "keep", "%s; no other plan: %s", why, e.text);
        return;
    }
    if (!m.moves) {
        dil_log(DIL_LOG_INFO, "keep", "%s; staying: the best plan would answer in %.2f s instead of %.2f s, which does not pay within %.0f s", why,
                m.best_total_sec, m.old_total_sec, f->o.horizon_sec);
        dil_plan_free(plan);
        return;
    }
    dil_log(DIL_LOG_INFO, "keep", "%s; moving to %s: %.2f s a request instead of %.2f s, a pause of %.2f s, %s to send", why, describe(plan, where, sizeof where),
            m.new_total_sec, m.old_total_sec, m.pause_sec, dil_format_bytes((uint64_t)m.moved_bytes, bytes));
    f->fetch_plan = plan;
    if (dil__ring_open(plan, f->cluster, f->model, &f->arch, &f->o, true, on_news, f, &f->fetch, &e) == DIL_OK) return;
    dil_log(DIL_LOG_WARN, "keep", "nothing can be sent ahead: %s", e.text);
    drop_fetch(f);
}

/* The move itself, when the nodes have what they need. */
static void follow_fetch(dil__failover *f)
{
    bool there, lost = false;
    pthread_mutex_lock(&f->fetch->lock);
    there = f->fetch->loaded;
    for (uint32_t i = 0; i < f->fetch->n_nodes; i++) lost = lost || is_lost(&f->fetch->node[i]);
    pthread_mutex_unlock(&f->fetch->lock);
    if (!there && !lost) return;
    char where[300], text[320];
    dil_plan *plan = f->fetch_plan;
    f->fetch_plan = lost ? plan : NULL;
    drop_fetch(f);
    if (lost) return;
    snprintf(text, sizeof text, "moving to %.280s", describe(plan, where, sizeof where));
    set_doing(f, text);
    pthread_mutex_lock(&f->lock);
    f->lost_ns = dil_now_ns();
    pthread_mutex_unlock(&f->lock);
    move_to(f, plan);
}

/* The least factor of the ring's nodes is what the machine under all of them does; 0 when only one computes. */
static double look_at_tempo(dil__failover *f)
{
    dil__ring *r = f->ring;
    double least = 0;
    uint32_t n = 0;
    for (uint32_t i = 0; i < r->n_nodes; i++) {
        uint32_t at = dil_cluster_find(f->cluster, r->node[i].name);
        if (at == DIL_NO_NODE) continue;
        struct dil__fate *fate = &f->fate[at];
        pthread_mutex_lock(&r->lock);
        dil__tempo tempo = r->node[i].tempo;
        pthread_mutex_unlock(&r->lock);
        fate->tempo.factor = 0;
        double bytes = (double)r->node[i].bytes_total / r->node[i].load.n_parts;
        double measured = make_replan(f, NULL) == DIL_OK ? dil__replan_speed(f->replan, f->plan, at) : 0;
        if (!dil__tempo_look(&fate->tempo, &tempo, bytes, measured)) continue;
        if (n++ == 0 || fate->tempo.factor < least) least = fate->tempo.factor;
    }
    return n > 1 ? least : 0;
}

/* True: there is a node, newly found slow, that the planner should be asked about. */
static bool someone_is_slow(dil__failover *f, char why[DIL_NAME_MAX + 64])
{
    int64_t now = dil_now_ns();
    if (now < f->tempo_ns) return false;
    f->tempo_ns = now + (int64_t)(f->o.lost_sec / 4 * 1e9);
    double least = look_at_tempo(f), slower;
    bool found = false;
    for (uint32_t i = 0; i < f->ring->n_nodes; i++) {
        uint32_t at = dil_cluster_find(f->cluster, f->ring->node[i].name);
        if (at == DIL_NO_NODE || !dil__tempo_is_slow(&f->fate[at].tempo, least, &slower)) continue;
        f->fate[at].slower = slower;
        f->fate[at].slow_ns = now;
        f->fate[at].n_lost++;
        snprintf(why, DIL_NAME_MAX + 64, "node %.200s computes %.1f times slower than it did", f->cluster->nodes[at].name, slower);
        found = true;
    }
    for (uint32_t i = 0; i < f->cluster->n_nodes; i++) {
        struct dil__fate *fate = &f->fate[i];
        bool outside = i < f->members.n && f->members.member[i].dial_ns;
        if (fate->slower <= 0 || (outside ? now - fate->slow_ns < SLOW_NS : !(fate->tempo.factor > 0 && fate->tempo.factor < 1.5))) continue;
        fate->slower = 0;
        fate->offered = false;
    }
    return found;
}

/* The ring's own links, as indices of the cluster's; link [n_stages + 1]. */
static uint32_t links_of_ring(const dil__failover *f, uint32_t *link)
{
    uint32_t n = 0, at = f->plan->entry ? dil_cluster_find(f->cluster, f->plan->entry) : DIL_NO_NODE, entry = at;
    for (uint32_t i = 0; i <= f->plan->n_stages; i++) {
        uint32_t next = i < f->plan->n_stages ? dil_cluster_find(f->cluster, f->plan->stages[i].node) : entry;
        for (uint32_t k = 0; k < f->cluster->n_links; k++) {
            if (f->cluster->links[k].from == at && f->cluster->links[k].to == next) link[n++] = k;
        }
        at = next;
    }
    return n;
}

/* What every token tells for nothing: how long its round took beyond computing. */
static void look_at_rounds(dil__failover *f)
{
    int64_t now = dil_now_ns();
    if (now < f->rounds_ns) return;
    f->rounds_ns = now + ROUNDS_NS;
    pthread_mutex_lock(&f->ring->lock);
    dil_ring_timing t = f->ring->timing;
    pthread_mutex_unlock(&f->ring->lock);
    bool decoded = t.round_sec != f->round_seen_sec;
    f->round_seen_sec = t.round_sec;
    if (!dil__round_is_slow(&f->rounds, decoded ? t.round_sec - t.compute_sec : 0)) return;
    uint32_t *link = calloc(f->plan->n_stages + 1, sizeof *link);
    if (link) dil__linkwatch_suspect(f->links, link, links_of_ring(f, link));
    free(link);
}

static bool a_link_changed(dil__failover *f, char why[160])
{
    if (!f->links) return false;
    look_at_rounds(f);
    return dil__linkwatch_take(f->links, f->link_now, why);
}

/* --- the loop ----------------------------------------------------------------------------------------------------------------------------------- */

/* At the start nodes are waited for, but not for ever; one that refuses is for a person to mend, but where its disk is full or broken. */
static bool starts_without(const dil__failover *f, const glance *g)
{
    if (g->n_lost > 0 && g->err.code == DIL_EIO) return true;
    return g->n_lost > 0 && g->err.code == DIL_ENET && sec_since(f->start_ns) > START_LOST * f->o.lost_sec;
}

static void step(dil__failover *f)
{
    pthread_mutex_lock(&f->lock);
    bool swapping = f->next || f->old;
    pthread_mutex_unlock(&f->lock);
    if (swapping) return;
    watch_outsiders(f);
    glance g = look(f);
    if (g.ready) {
        if (!f->ready_seen || f->lost_ns || f->seen_ns) recovered(f);
        f->ready_seen = true;
        pthread_mutex_lock(&f->lock);
        f->was_ready = true;
        pthread_mutex_unlock(&f->lock);
        char name[DIL_NAME_MAX], why[DIL_NAME_MAX + 160];
        if (f->o.stay) return;
        if (f->fetch) {
            follow_fetch(f);
            return;
        }
        if (someone_is_slow(f, why)) {
            consider(f, why);
        } else if (a_link_changed(f, why)) {
            consider(f, why);
        } else if (someone_is_new(f, name)) {
            snprintf(why, sizeof why, "node %.200s is back", name);
            consider(f, why);
        }
        return;
    }
    if (g.n_lost && f->fetch) drop_fetch(f);
    if (f->o.stay || (!f->ready_seen && !starts_without(f, &g))) return;
    if (g.n_lost == 0 && !f->seen_ns) return; /* it loads, or tests itself */
    if (g.n_lost) begin_loss(f, &g);
    if (g.n_lost == 0) { /* what was lost is back before a plan without it was made */
        f->seen_ns = 0;
        return;
    }
    if (dil_now_ns() >= f->decide_ns || (f->news && dil_now_ns() - f->seen_ns > GRACE_NS)) decide(f, &g);
}

void *dil__failover_run(void *failover)
{
    dil__failover *f = failover;
    f->start_ns = dil_now_ns();
    while (!atomic_load(&f->closing)) {
        if (dil__members_poll(&f->members, f->fd, 50)) f->news = true;
        close_old(f);
        step(f);
    }
    return NULL;
}
