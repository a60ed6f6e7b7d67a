/* The planning problem of a measured model on a measured cluster (docs/PLANNER.md, "From measurements").
 *
 * One request of tokens_in and tokens_out: prefill in C chunks of b tokens that overlap over the stages, then tokens_out - 1 decoded
 * tokens, each at the mean number of cached tokens. With guesses a pass of 1 + d rows yields several of them. The last layer sees one token of the prompt. Neglected: what token ids add to a
 * link's load and to a chunk's time on a link (4 bytes against a hidden state's thousands); their delay is counted. */
#include "plan/problem_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TOKEN_ID_BYTES 4.0

typedef struct builder {
    const dil_profile *prof;
    const dil_cluster *cluster;
    const dil_plan_options *o;
    uint32_t entry;             /* in the cluster */
    uint32_t *prof_of, *in_cluster; /* [n_nodes] of the problem's nodes */
    uint32_t *of_cluster;       /* [cluster nodes] the problem's node, DIL_NO_NODE */
    uint32_t n_nodes;
    bool use_kl;
    double context, chunks, chunk_tokens, mean_cached;
    double rate; /* that loads are counted at; 0: they are not */
    double guesses, yield; /* of a pass: rows beside the first; tokens that come of it on the mean */
    dil_problem *p;
} builder;

dil_plan_options dil_plan_options_default(void)
{
    return (dil_plan_options){.tokens_in = 128, .tokens_out = 128, .max_damage = INFINITY, .max_loss_increase = INFINITY,
                              .max_ratio = INFINITY, .slack = 0.1, .load_max = 0.9, .limit_sec = 60};
}

static dil_status check_options(const dil_profile *prof, const dil_plan_options *o, dil_err *err)
{
    uint32_t context = o->context ? o->context : prof->context;
    if (o->tokens_in == 0 || o->tokens_out == 0) return dil_fail(err, DIL_EUSAGE, "a request has at least one token in and one out");
    if ((uint64_t)o->tokens_in + o->tokens_out > context)
        return dil_fail(err, DIL_EUSAGE, "%u tokens in and %u out do not fit the context of %u", o->tokens_in, o->tokens_out, context);
    if (!(o->max_damage >= 0) || !(o->max_loss_increase >= 0) || !(o->max_ratio > 0))
        return dil_fail(err, DIL_EUSAGE, "a quality budget is negative, or the size ratio is not above 0");
    if (!(o->slack >= 0 && o->slack <= 1e6)) return dil_fail(err, DIL_EUSAGE, "the slack is %g, allowed 0 to 1e6", o->slack);
    if (!(o->rate >= 0 && o->rate <= 1e9)) return dil_fail(err, DIL_EUSAGE, "the rate is %g, allowed 0 to 1e9", o->rate);
    if ((o->rate > 0 || o->objective == DIL_OBJECTIVE_THROUGHPUT) && !(o->load_max > 0 && o->load_max <= 1))
        return dil_fail(err, DIL_EUSAGE, "the highest load is %g, allowed above 0 to 1", o->load_max);
    if (o->n_guesses > DIL_PLAN_GUESSES_MAX) return dil_fail(err, DIL_EUSAGE, "%u guesses a pass, at most %d", o->n_guesses, DIL_PLAN_GUESSES_MAX);
    if (o->n_guesses && !(o->acceptance >= 0 && o->acceptance <= 1)) return dil_fail(err, DIL_EUSAGE, "a guess is right with chance %g, allowed 0 to 1", o->acceptance);
    return DIL_OK;
}

static dil_status match_nodes(builder *b, dil_err *err)
{
    for (uint32_t i = 0; i < b->cluster->n_nodes; i++) b->of_cluster[i] = DIL_NO_NODE;
    for (uint32_t i = 0; i < b->prof->n_nodes; i++) {
        uint32_t c = dil_cluster_find(b->cluster, b->prof->nodes[i]);
        if (c == DIL_NO_NODE) continue;
        b->of_cluster[c] = b->n_nodes;
        b->prof_of[b->n_nodes] = i;
        b->in_cluster[b->n_nodes++] = c;
    }
    if (b->n_nodes == 0) return dil_fail(err, DIL_ENOTFOUND, "none of the profile's %u nodes is in the cluster", b->prof->n_nodes);
    b->entry = b->o->entry ? dil_cluster_find(b->cluster, b->o->entry) : b->cluster->entry;
    if (b->entry == DIL_NO_NODE) return dil_fail(err, DIL_ENOTFOUND, "the entry node \"%.100s\" is not in the cluster", b->o->entry);
    return DIL_OK;
}

static dil_status pick_measure(builder *b, dil_err *err)
{
    const char *m = b->o->measure;
    uint32_t n = b->prof->n_layers - (b->prof->tied_head ? 1 : 0);
    bool kl = true, weight = true;
    for (uint32_t l = 0; l < n; l++) {
        for (uint32_t q = 0; q < b->prof->layers[l].n_levels; q++) {
            kl = kl && !isnan(b->prof->layers[l].levels[q].damage_kl);
            weight = weight && !isnan(b->prof->layers[l].levels[q].damage_weight);
        }
    }
    if (m && strcmp(m, "kl") != 0 && strcmp(m, "weight") != 0)
        return dil_fail(err, DIL_EUSAGE, "unknown damage measure '%.32s'; there are kl and weight", m);
    b->use_kl = m ? strcmp(m, "kl") == 0 : kl;
    if (b->use_kl ? kl : weight) return DIL_OK;
    return dil_fail(err, DIL_EDATA, "the profile lacks the %s damage of some levels", b->use_kl ? "kl" : "weight");
}

/* Only the KL divergence can be turned into a loss, through the profile's own calibration. */
static dil_status pick_budgets(builder *b, dil_err *err)
{
    const dil_plan_options *o = b->o;
    b->p->damage_max = o->max_damage;
    if (isfinite(o->max_loss_increase)) {
        if (!b->use_kl) return dil_fail(err, DIL_EDATA, "a loss budget needs the measured KL divergence, which the profile lacks");
        if (isnan(b->prof->baseline_loss) || isnan(b->prof->kl_to_loss_slope))
            return dil_fail(err, DIL_EDATA, "a loss budget needs \"baseline\" and \"kl_to_loss\" in the profile");
        double kl = o->max_loss_increase * fabs(b->prof->baseline_loss) / b->prof->kl_to_loss_slope;
        if (kl < b->p->damage_max) b->p->damage_max = kl;
    }
    if (isfinite(o->max_ratio)) b->p->file_bytes_max = o->max_ratio * 4 * (double)b->prof->n_params;
    if (o->rate > 0) b->p->load_max = o->load_max;
    return DIL_OK;
}

static dil_status new_arrays(builder *b, uint32_t n_levels, dil_err *err)
{
    dil_status s = dil__problem_new(b->prof->n_layers, b->n_nodes, n_levels, "plan", &b->p, err);
    if (s != DIL_OK) return s;
    dil_problem *p = b->p;
    size_t lq = (size_t)p->n_layers * p->n_levels, cells = lq * p->n_nodes;
    p->tied = b->prof->tied_head;
    p->file_bytes = dil_arena_push(p->arena, lq, sizeof(double));
    p->buffer_bytes = dil_arena_push(p->arena, p->n_layers, sizeof(double));
    p->hops = dil_arena_push(p->arena, b->cluster->n_links, sizeof *p->hops);
    p->precision = dil_arena_push(p->arena, lq, sizeof(uint32_t));
    bool ok = p->file_bytes && p->buffer_bytes && p->hops && p->precision;
    if (p->tied) ok = (p->shared_bytes = dil_arena_push(p->arena, n_levels, sizeof(double))) != NULL && ok;
    if (b->chunks > 1) ok = (p->chunk_sec = dil_arena_push(p->arena, cells, sizeof(double))) != NULL && ok;
    if (b->rate > 0) {
        p->load = dil_arena_push(p->arena, cells, sizeof(double));
        p->out_load = dil_arena_push(p->arena, p->n_nodes, sizeof(double));
        p->in_load = dil_arena_push(p->arena, p->n_nodes, sizeof(double));
        ok = ok && p->load && p->out_load && p->in_load;
    }
    return ok ? DIL_OK : dil_fail(err, DIL_EMEMORY, "plan: out of memory");
}

/* The first row always yields a token, the k-th guess one when all k are right. */
static void set_yield(builder *b)
{
    double all_right = 1;
    b->guesses = b->o->n_guesses;
    b->yield = 1;
    for (uint32_t k = 0; k < b->o->n_guesses; k++) {
        all_right *= b->o->acceptance;
        b->yield += all_right;
    }
}

static void fill_cell(builder *b, uint32_t l, uint32_t s, uint32_t q)
{
    dil_problem *p = b->p;
    const dil_profile_layer *layer = &b->prof->layers[l];
    uint32_t at = b->prof_of[s];
    double decode = layer->levels[q].decode_sec[at], prompt = layer->levels[q].prefill_sec[at];
    if (layer->decode_sec_per_cached) decode += layer->decode_sec_per_cached[at] * (b->mean_cached - b->prof->n_past);
    if (decode < 0) decode = 0;
    double token = (decode + dil_profile_more_sec(&layer->levels[q], b->prof->n_nodes, at, 1 + b->o->n_guesses)) / b->yield;
    bool head = l == p->n_layers - 1;
    double n_in = b->o->tokens_in, n_out = b->o->tokens_out;
    size_t i = dil__cell(p, l, s, q);
    p->layer_sec[i] = (n_out - 1) * token + (head ? decode : b->chunk_tokens * prompt);
    if (p->chunk_sec) p->chunk_sec[i] = head ? 0 : b->chunk_tokens * prompt;
    if (p->load) p->load[i] = b->rate * ((head ? 0 : n_in * prompt) + n_out * token);
}

typedef struct level_name {
    const char *name;
    uint32_t at; /* in [L][Q] */
} level_name;

static int by_name(const void *a, const void *b)
{
    const level_name *x = a, *y = b;
    int order = strcmp(x->name, y->name);
    return order ? order : (x->at > y->at) - (x->at < y->at);
}

/* Levels of the same name are the same precision; its number is that of the name's first place. */
static bool fill_precision(builder *b)
{
    const dil_profile *prof = b->prof;
    uint32_t Q = b->p->n_levels, n = 0, first = 0;
    level_name *names = calloc((size_t)prof->n_layers * Q, sizeof *names);
    for (uint32_t l = 0; names && l < prof->n_layers; l++) {
        for (uint32_t q = 0; q < prof->layers[l].n_levels; q++) names[n++] = (level_name){prof->layers[l].levels[q].name, l * Q + q};
    }
    if (names) qsort(names, n, sizeof *names, by_name);
    for (uint32_t i = 0; i < n; i++) {
        if (strcmp(names[i].name, names[first].name) != 0) first = i;
        b->p->precision[names[i].at] = names[first].at;
    }
    free(names);
    return n > 0;
}

static void fill_layers(builder *b)
{
    dil_problem *p = b->p;
    for (uint32_t l = 0; l < p->n_layers; l++) {
        const dil_profile_layer *layer = &b->prof->layers[l];
        bool tied_head = p->tied && l == p->n_layers - 1;
        double kv = ceil((double)layer->kv_bytes * b->context / b->prof->context);
        p->level_count[l] = layer->n_levels;
        p->buffer_bytes[l] = (double)layer->buffer_bytes;
        for (uint32_t q = 0; q < layer->n_levels; q++) {
            const dil_profile_level *level = &layer->levels[q];
            size_t lq = (size_t)l * p->n_levels + q;
            double damage = b->use_kl ? level->damage_kl : level->damage_weight;
            double shared = 0;
            if (tied_head) {
                shared = level->shared_bytes ? (double)level->shared_bytes : fmin((double)b->prof->layers[0].levels[q].bytes, (double)level->bytes);
                p->shared_bytes[q] = shared;
            }
            p->layer_bytes[lq] = (double)level->bytes + kv;
            p->file_bytes[lq] = (double)level->bytes - shared;
            p->damage[lq] = tied_head || damage < 0 ? 0 : damage;
            for (uint32_t s = 0; s < p->n_nodes; s++) fill_cell(b, l, s, q);
        }
    }
}

static int by_pair(const void *a, const void *b)
{
    const dil_hop *x = a, *y = b;
    if (x->from != y->from) return x->from < y->from ? -1 : 1;
    return (x->to > y->to) - (x->to < y->to);
}

static void fill_hops(builder *b)
{
    dil_problem *p = b->p;
    double hidden = (double)b->prof->hidden_bytes, n_in = b->o->tokens_in, n_out = b->o->tokens_out;
    double rows = (1 + b->guesses) / b->yield, passes = (n_out - 1) / b->yield; /* rows sent for a token that comes */
    for (uint32_t i = 0; i < b->cluster->n_links; i++) {
        const dil_cluster_link *k = &b->cluster->links[i];
        uint32_t from = b->of_cluster[k->from], to = b->of_cluster[k->to];
        if (from == DIL_NO_NODE || to == DIL_NO_NODE) continue;
        double one = k->latency_sec + hidden / k->bytes_per_sec, token = k->latency_sec / b->yield + rows * hidden / k->bytes_per_sec, send = b->chunk_tokens * hidden / k->bytes_per_sec;
        p->hops[p->n_hops++] = (dil_hop){.from = from, .to = to, .sec = (n_out - 1) * token + k->latency_sec + send, .head_sec = n_out * token + (one - token),
                                         .chunk_sec = b->chunks > 1 ? send : 0,
                                         .load = b->rate * hidden * (n_in + rows * n_out) / k->bytes_per_sec};
    }
    qsort(p->hops, p->n_hops, sizeof *p->hops, by_pair);
    p->head_share = rows * n_out / (n_in + rows * n_out);
    for (uint32_t s = 0; s < p->n_nodes; s++) {
        const dil_cluster_link *in = dil_cluster_link_get(b->cluster, b->entry, b->in_cluster[s]);
        const dil_cluster_link *out = dil_cluster_link_get(b->cluster, b->in_cluster[s], b->entry);
        bool here = b->in_cluster[s] == b->entry;
        double id_one = out ? out->latency_sec + TOKEN_ID_BYTES / out->bytes_per_sec : 0;
        double id_token = out ? out->latency_sec / b->yield + TOKEN_ID_BYTES / out->bytes_per_sec : 0; /* what is wrong does not come back */
        p->source_sec[s] = here ? 0 : !in ? INFINITY
                         : (passes + 1) * in->latency_sec + (rows * (n_out - 1) + b->chunk_tokens) * TOKEN_ID_BYTES / in->bytes_per_sec;
        p->sink_sec[s] = here ? 0 : !out ? INFINITY : n_out * id_token + (id_one - id_token);
    }
}

/* A node's own connection: as stated, else as fast as its fastest link that way. */
static void fill_connections(builder *b)
{
    dil_problem *p = b->p;
    if (!p->out_load) return;
    double bytes_per_sec = b->rate * (double)b->prof->hidden_bytes * ((double)b->o->tokens_in + (1 + b->guesses) / b->yield * b->o->tokens_out);
    for (uint32_t s = 0; s < p->n_nodes; s++) {
        const dil_cluster_node *n = &b->cluster->nodes[b->in_cluster[s]];
        double out = n->out_bytes_per_sec, in = n->in_bytes_per_sec;
        for (uint32_t i = 0; i < b->cluster->n_links; i++) {
            const dil_cluster_link *k = &b->cluster->links[i];
            if (n->out_bytes_per_sec == 0 && k->from == b->in_cluster[s]) out = fmax(out, k->bytes_per_sec);
            if (n->in_bytes_per_sec == 0 && k->to == b->in_cluster[s]) in = fmax(in, k->bytes_per_sec);
        }
        p->out_load[s] = out > 0 ? bytes_per_sec / out : 0; /* no link: no crossing either */
        p->in_load[s] = in > 0 ? bytes_per_sec / in : 0;
    }
}

static dil_status build(builder *b, dil_err *err)
{
    uint32_t n_levels = 0;
    dil_status s = match_nodes(b, err);
    if (s == DIL_OK) s = pick_measure(b, err);
    for (uint32_t l = 0; l < b->prof->n_layers; l++) {
        if (b->prof->layers[l].n_levels > n_levels) n_levels = b->prof->layers[l].n_levels;
    }
    set_yield(b);
    b->context = b->o->context ? b->o->context : b->prof->context;
    b->chunks = ceil((double)b->o->tokens_in / b->prof->batch);
    b->chunk_tokens = b->o->tokens_in / b->chunks;
    b->rate = b->o->rate > 0 ? b->o->rate : b->o->objective == DIL_OBJECTIVE_THROUGHPUT ? 1 : 0;
    b->mean_cached = b->o->tokens_in + b->o->tokens_out / 2.0;
    if (s == DIL_OK) s = new_arrays(b, n_levels, err);
    if (s == DIL_OK) s = pick_budgets(b, err);
    if (s != DIL_OK) return s;
    b->p->chunk_weight = b->chunks - 1;
    for (uint32_t i = 0; i < b->n_nodes; i++) b->p->store_bytes[i] = (double)b->cluster->nodes[b->in_cluster[i]].memory_bytes;
    fill_layers(b);
    if (!fill_precision(b)) return dil_fail(err, DIL_EMEMORY, "plan: out of memory");
    fill_hops(b);
    fill_connections(b);
    return dil_problem_validate(b->p, err);
}

dil_status dil_problem_from_profile(const dil_profile *profile, const dil_cluster *cluster, const dil_plan_options *options, dil_problem **out,
                                    uint32_t *node_of, dil_err *err)
{
    dil_status s = check_options(profile, options, err);
    if (s != DIL_OK) return s;
    builder b = {.prof = profile, .cluster = cluster, .o = options};
    b.prof_of = calloc(profile->n_nodes, sizeof *b.prof_of);
    b.in_cluster = calloc(profile->n_nodes, sizeof *b.in_cluster);
    b.of_cluster = calloc(cluster->n_nodes, sizeof *b.of_cluster);
    if (b.prof_of && b.in_cluster && b.of_cluster) s = build(&b, err);
    else s = dil_fail(err, DIL_EMEMORY, "plan: out of memory");
    if (s == DIL_OK && node_of) memcpy(node_of, b.prof_of, b.n_nodes * sizeof *node_of);
    free(b.prof_of);
    free(b.in_cluster);
    free(b.of_cluster);
    if (s == DIL_OK) *out = b.p;
    else dil_problem_free(b.p);
    return s;
}
